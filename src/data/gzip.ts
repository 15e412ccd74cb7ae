import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'

/**
 * Deflate expands at most 1032 : 1, so one piece of input makes less than 17 MB of output before the limit is looked
 * at again.
 */
const PIECE = 16384

/** Content is at most 64 MB, or 100 times the compressed bytes (MNIST: 5 times; what deflate can do: 1032 times). */
const plausible = (compressed: number): number => Math.max(2 ** 26, 100 * compressed)

/** Bytes that `sizeOf` is shown, at least (or all there are). */
export const HEAD = 1024

export const isGzip = (bytes: Uint8Array): boolean => bytes[0] === 0x1f && bytes[1] === 0x8b

const pieces = (bytes: Uint8Array): ReadableStream<Uint8Array<ArrayBuffer>> => {
  let at = 0
  return new ReadableStream(
    {
      pull: (controller) => {
        if (at >= bytes.length) return controller.close()
        controller.enqueue(bytes.subarray(at, at + PIECE) as Uint8Array<ArrayBuffer>)
        at += PIECE
      },
    },
    { highWaterMark: 0 },
  )
}

const concat = (chunks: readonly Uint8Array[], length: number): Uint8Array => {
  const out = new Uint8Array(length)
  let at = 0
  for (const chunk of chunks) {
    out.set(chunk, at)
    at += chunk.length
  }
  return out
}

/**
 * The content of a gzip file of one member, by the web's own DecompressionStream (Node, Deno, browsers). The first
 * decompressed bytes go to `sizeOf`, which says how long the content ought to be, or what is wrong with it; reading
 * stops as soon as there is more than that, so a small file cannot fill the memory. Content that is too short is
 * returned as it is: its decoder knows what is missing.
 * Errors: damaged or truncated gzip data, more content than `sizeOf` said, bytes after the gzip member, and those of
 * `sizeOf`.
 */
export const inflate =
  (
    bytes: Uint8Array,
    path: string,
    sizeOf: (head: Uint8Array) => E.Either<MixtrainError, number>,
  ): TaskEither<MixtrainError, Uint8Array> =>
  async () => {
    const left = (message: string, place = 'gzip') => E.left(fileError(path, message, place))
    const reader = pieces(bytes).pipeThrough(new DecompressionStream('gzip')).getReader()
    const chunks: Uint8Array[] = []
    let length = 0
    let expected: number | undefined
    try {
      for (;;) {
        const { done, value } = await reader.read()
        if (!done) {
          chunks.push(value)
          length += value.length
        }
        if (expected === undefined && (done || length >= HEAD)) {
          const size = sizeOf(concat(chunks, length))
          if (E.isLeft(size)) return size
          expected = size.right
          const most = plausible(bytes.length)
          if (expected > most) return left(`expected at most ${most} bytes of content, the header claims ${expected}`)
        }
        if (expected !== undefined && length > expected)
          return left(
            `expected ${expected} bytes of content, as its header says, found more`,
            `byte ${expected} after decompression`,
          )
        if (done) break
      }
    } catch (cause) {
      return left(`the compressed data are damaged or truncated: ${cause instanceof Error ? cause.message : cause}`)
    } finally {
      reader.cancel().catch(() => undefined)
    }
    // RFC 1952: the last four bytes of the file are the length of the content modulo 2^32.
    const end = bytes.length - 4
    const stated = new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(end, true)
    return stated === length % 2 ** 32
      ? E.right(concat(chunks, length))
      : left(
          `expected the end of the gzip data, with the length of the content, ${length}, found ${stated}`,
          `gzip byte ${end}`,
        )
  }

/** The content of a file that may be gzip, which its first bytes tell, whatever its name; other bytes are returned as they are. */
export const unpacked = (bytes: Uint8Array, path: string): TaskEither<MixtrainError, Uint8Array> => {
  if (!isGzip(bytes)) return async () => E.right(bytes)
  if (bytes.length < 18) return async () => E.left(fileError(path, 'the compressed data are truncated', 'gzip'))
  const stated = new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(bytes.length - 4, true)
  const most = plausible(bytes.length)
  return inflate(bytes, path, () =>
    stated <= most
      ? E.right(stated)
      : E.left(
          fileError(
            path,
            `at most ${most} bytes of content are read of so small a file, and it says that it has ${stated}: unpack it first`,
            'gzip',
          ),
        ),
  )
}
