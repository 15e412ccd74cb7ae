import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { nodeModule } from '../core/runtime.ts'
import { reasonOf, remove } from './files.ts'
import type { Published } from './sources.ts'

const fs = () => nodeModule<typeof import('node:fs/promises')>('node:fs/promises')

/** Told how many bytes are there; a promise is waited for. What it throws ends the work and reaches the caller. */
export type BytesDone = (done: number, total: number) => void | Promise<void>

/** Content of a file in pieces of 1 MB. */
export async function* piecesOf(path: string): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const handle = await (await fs()).open(path, 'r')
  try {
    for (;;) {
      const buffer = new Uint8Array(2 ** 20)
      const { bytesRead } = await handle.read(buffer)
      if (bytesRead === 0) return
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    await handle.close()
  }
}

const sizeOf = async (path: string): Promise<number> =>
  (await fs()).stat(path).then(
    (s) => s.size,
    () => 0,
  )

/** SHA-256 of a file, in hexadecimal digits. */
const sha256Of = async (path: string): Promise<string> => {
  const { createHash } = await nodeModule<typeof import('node:crypto')>('node:crypto')
  const hash = createHash('sha256')
  for await (const piece of piecesOf(path)) hash.update(piece)
  return hash.digest('hex')
}

/** Whether a file is there, whole and unchanged. */
export const isWhole = async (path: string, { bytes, sha256 }: Published): Promise<boolean> =>
  (await sizeOf(path)) === bytes && (await sha256Of(path)) === sha256

const left = (path: string, message: string) => E.left(fileError(path, message))

/** An error of the network in words: the cause says more than "fetch failed". */
const networkReason = (cause: unknown): string => {
  const inner = cause instanceof Error ? cause.cause : undefined
  return inner instanceof Error && inner.message !== '' ? inner.message : reasonOf(cause)
}

/** Where the body of an answer begins, if it is what was asked for. */
const startOf = (response: Response, asked: number): number | undefined => {
  if (response.status === 200) return 0
  const range = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')
  return response.status === 206 && Number(range?.[1]) === asked ? asked : undefined
}

/** Appends what is missing of a partial file that is to have so many bytes; they are not checked. */
const continued = async (
  url: string,
  part: string,
  bytes: number,
  progress: BytesDone,
): Promise<E.Either<MixtrainError, void>> => {
  const have = await sizeOf(part)
  if (have === bytes) return E.right(undefined)
  if (have > bytes) {
    await remove(part)()
    return continued(url, part, bytes, progress)
  }
  // Compressed on the way, an answer could be neither resumed nor checked.
  const headers = { 'accept-encoding': 'identity', ...(have > 0 ? { range: `bytes=${have}-` } : {}) }
  let response: Response
  try {
    response = await fetch(url, { headers })
  } catch (cause) {
    return left(url, `no answer: ${networkReason(cause)}`)
  }
  const start = startOf(response, have)
  if (start === undefined || response.body === null) {
    await response.body?.cancel()
    if (response.status === 416 && have > 0) {
      await remove(part)()
      return continued(url, part, bytes, progress)
    }
    return left(url, `the server answers ${response.status} ${response.statusText}`.trimEnd())
  }
  let done = start
  const reader = response.body.getReader()
  const handle = await (await fs()).open(part, start === 0 ? 'w' : 'a')
  try {
    for (;;) {
      let next: ReadableStreamReadResult<Uint8Array>
      try {
        next = await reader.read()
      } catch (cause) {
        return left(
          url,
          `interrupted after ${done} of ${bytes} bytes: ${networkReason(cause)}; the same command goes on from there`,
        )
      }
      if (next.done) break
      done += next.value.length
      if (done > bytes) return left(url, `expected ${bytes} bytes, found more`)
      await handle.writeFile(next.value)
      await progress(done, bytes)
    }
    await handle.sync()
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause
    if (!code) throw cause
    return left(part, reasonOf(cause))
  } finally {
    await handle.close()
    await reader.cancel().catch(() => undefined)
  }
  return done === bytes
    ? E.right(undefined)
    : left(url, `ended after ${done} of ${bytes} bytes; the same command goes on from there`)
}

/**
 * Fetches a published file to `path`, which is there afterwards whole, with the right SHA-256, or not at all. What was fetched before an
 * interruption stays in `path.part` and is gone on with (HTTP Range; a server that does not know it sends everything again). The addresses
 * are tried in turn. Errors: no address has it (with the reason of each), content with another checksum (it is thrown away).
 */
export const download =
  (
    addresses: readonly string[],
    file: Published,
    path: string,
    progress: BytesDone = () => undefined,
  ): TaskEither<MixtrainError, void> =>
  async () => {
    if (await isWhole(path, file)) return E.right(undefined)
    const part = `${path}.part`
    const reasons: string[] = []
    for (const address of addresses) {
      const url = `${address.replace(/\/?$/, '/')}${file.name}`
      const got = await continued(url, part, file.bytes, progress)
      if (E.isLeft(got)) {
        reasons.push(got.left.kind === 'file' ? `${got.left.path}: ${got.left.message}` : got.left.kind)
        continue
      }
      const found = await sha256Of(part)
      if (found === file.sha256) {
        await (await fs()).rename(part, path)
        return E.right(undefined)
      }
      await remove(part)()
      reasons.push(`${url}: expected SHA-256 ${file.sha256}, found ${found}; the content was thrown away`)
    }
    return left(path, `could not be fetched.\n${reasons.join('\n')}`)
  }
