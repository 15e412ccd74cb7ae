import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { joinedAs } from '../core/arrays.ts'
import { fileError, type MixtrainError } from '../core/error.ts'

/**
 * Deflate expands at most 1032 : 1, so one piece of input makes less than 17 MB of output before the limit is looked
 * at again.
 */
const PIECE = 16384

/** Content is at most 64 MB, or 100 times the compressed bytes (MNIST: 5 times; what deflate can do: 1032 times). */
const plausible = (compressed: number): number => Math.max(2 ** 26, 100 * compressed)

/** Bytes that `sizeOf` is shown, at least (or all there are). */
const HEAD = 1024

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

/** What the first bytes of a content say about its length, or what is wrong with it. */
type SizeOf = (head: Uint8Array) => E.Either<MixtrainError, number>

/** The content of one gzip member, which ends where the bytes do, by the web's own DecompressionStream (Node, Deno, browsers). */
const inflateMember =
  (
    bytes: Uint8Array,
    path: string,
    sizeOf: SizeOf,
    tooMuch = (expected: number) => `expected ${expected} bytes of content, as its header says, found more`,
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
          const size = sizeOf(joinedAs(Uint8Array, chunks))
          if (E.isLeft(size)) return size
          expected = size.right
          const most = plausible(bytes.length)
          if (expected > most) return left(`expected at most ${most} bytes of content, the header claims ${expected}`)
        }
        if (expected !== undefined && length > expected)
          return left(tooMuch(expected), `byte ${expected} after decompression`)
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
      ? E.right(joinedAs(Uint8Array, chunks))
      : left(
          `expected the end of the gzip data, with the length of the content, ${length}, found ${stated}`,
          `gzip byte ${end}`,
        )
  }

/** Places that begin like a member but lie within one are one in 2^27: after so many the rest is taken for one member. */
const MAX_ASTRAY = 64

/** Where a further member may begin: RFC 1952 has it start with 1f 8b, deflate as the method and no reserved flag. */
const beginnings = (bytes: Uint8Array): readonly number[] => {
  const found: number[] = []
  for (let i = bytes.indexOf(0x1f, 1); i >= 0 && i + 4 <= bytes.length; i = bytes.indexOf(0x1f, i + 1))
    if (bytes[i + 1] === 0x8b && bytes[i + 2] === 8 && bytes[i + 3] < 0x20) found.push(i)
  return found
}

/**
 * The members of a gzip file that has several, one after the other. A member ends where the next one begins if what lies
 * before decompresses to its own length and checksum; the web's streams do not tell where one ended.
 */
const inflateMembers = async (
  bytes: Uint8Array,
  path: string,
  starts: readonly number[],
): Promise<E.Either<MixtrainError, readonly Uint8Array[]>> => {
  const most = plausible(bytes.length)
  const members: Uint8Array[] = []
  let [from, length, astray] = [0, 0, 0]
  const next = (to: number) => {
    const piece = bytes.subarray(from, to)
    const room = Math.min(most - length, plausible(piece.length))
    return inflateMember(
      piece,
      path,
      () => E.right(room),
      () => `at most ${most} bytes of content are read of so small a file: unpack it first`,
    )()
  }
  for (const to of starts) {
    if (astray > MAX_ASTRAY) break
    const member = await next(to)
    if (E.isLeft(member)) {
      astray++
      continue
    }
    members.push(member.right)
    length += member.right.length
    from = to
  }
  const last = await next(bytes.length)
  return E.isLeft(last) ? last : E.right([...members, last.right])
}

/**
 * The content of a gzip file, of all its members (`cat a.gz b.gz`, bgzip, pigz). The first decompressed bytes go to `sizeOf`, which says how long
 * the content ought to be, or what is wrong with it; reading stops as soon as there is more than that, so a small file cannot fill the
 * memory. Content that is too short is returned as it is: its decoder knows what is missing.
 * Errors: damaged or truncated gzip data, more content than `sizeOf` said, other bytes after the last member, and those of `sizeOf`.
 */
export const inflate =
  (bytes: Uint8Array, path: string, sizeOf: SizeOf): TaskEither<MixtrainError, Uint8Array> =>
  async () => {
    const starts = beginnings(bytes)
    if (starts.length === 0) return inflateMember(bytes, path, sizeOf)()
    const members = await inflateMembers(bytes, path, starts)
    if (E.isLeft(members)) return members
    const content = joinedAs(Uint8Array, members.right)
    const size = sizeOf(content.subarray(0, HEAD))
    if (E.isLeft(size)) return size
    return content.length <= size.right
      ? E.right(content)
      : E.left(
          fileError(
            path,
            `expected ${size.right} bytes of content, as its header says, found ${content.length}`,
            'gzip',
          ),
        )
  }

/** The content of a file that may be gzip, which its first bytes tell, whatever its name; other bytes are returned as they are. */
export const unpacked = (bytes: Uint8Array, path: string): TaskEither<MixtrainError, Uint8Array> => {
  if (!isGzip(bytes)) return async () => E.right(bytes)
  if (bytes.length < 18) return async () => E.left(fileError(path, 'the compressed data are truncated', 'gzip'))
  const stated = new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(bytes.length - 4, true)
  const most = plausible(bytes.length)
  // The last four bytes tell the length of the last member alone.
  if (beginnings(bytes).length > 0) return inflate(bytes, path, () => E.right(most))
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
