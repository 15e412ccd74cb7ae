import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError, MixtrainException, raise } from '../core/error.ts'
import { nodeModule } from '../core/runtime.ts'
import { type BytesDone, piecesOf } from './download.ts'
import { reasonOf } from './files.ts'
import { optionalPackage } from './optional.ts'

const fs = () => nodeModule<typeof import('node:fs/promises')>('node:fs/promises')

/** What is used of `modern-tar`. */
interface Tar {
  readonly createTarDecoder: (options: { readonly strict: boolean }) => {
    readonly readable: ReadableStream<{
      readonly header: { readonly name: string; readonly type?: string; readonly size: number }
      readonly body: ReadableStream<Uint8Array>
    }>
    readonly writable: WritableStream<Uint8Array>
  }
}

/** What is used of `fflate`. */
interface Zip {
  readonly Unzip: new (
    file: (f: {
      readonly name: string
      ondata: (error: Error | null, piece: Uint8Array, last: boolean) => void
      readonly start: () => void
    }) => void,
  ) => { readonly register: (decoder: unknown) => void; readonly push: (piece: Uint8Array, last: boolean) => void }
  readonly UnzipInflate: unknown
}

/** A file of an archive. */
interface Entry {
  readonly name: string
  readonly content: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>
}

/**
 * Path of an entry below the folder that is taken out; undefined for what lies beside it. A name that could lead out of the
 * target (`..`, absolute, with a drive or a backslash) is refused.
 */
const inside = (name: string, folder: string, archive: string): string | undefined => {
  const steps = name.split('/').filter((s) => s !== '' && s !== '.')
  if (name.startsWith('/') || /[\\\0]|^[a-z]:/i.test(name) || steps.includes('..'))
    raise(
      fileError(
        archive,
        `expected names within the archive, found ${JSON.stringify(name.slice(0, 80))}, which leads out of it`,
      ),
    )
  return steps[0] === folder && steps.length > 1 ? steps.slice(1).join('/') : undefined
}

async function* read(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    yield value
  }
}

/** The file as a stream that tells how much of it was taken. */
const streamOf = (
  archive: string,
  progress: (piece: number) => Promise<void>,
): ReadableStream<Uint8Array<ArrayBuffer>> => {
  const pieces = piecesOf(archive)
  return new ReadableStream(
    {
      pull: async (controller) => {
        const { done, value } = await pieces.next()
        if (done) return controller.close()
        await progress(value.length)
        controller.enqueue(value)
      },
      cancel: async () => {
        await pieces.return(undefined)
      },
    },
    { highWaterMark: 0 },
  )
}

/** The package, or its error raised: `unpack` makes a value of it again. */
const needed = async <M>(name: string, what: string): Promise<M> => {
  const found = await optionalPackage<M>(name, what)()
  return E.isRight(found) ? found.right : raise(found.left)
}

async function* tarEntries(archive: string, progress: (piece: number) => Promise<void>): AsyncGenerator<Entry> {
  const { createTarDecoder } = await needed<Tar>('modern-tar', 'unpacking tar')
  const reader = streamOf(archive, progress)
    .pipeThrough(new DecompressionStream('gzip') as unknown as ReadableWritablePair<Uint8Array, Uint8Array>)
    .pipeThrough(createTarDecoder({ strict: true }))
    .getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      const { header, body } = value
      const type = header.type ?? 'file'
      if (type !== 'file' && type !== 'directory')
        raise(fileError(archive, `expected files and folders, found ${JSON.stringify(header.name)}, a ${type}`))
      if (type === 'file') yield { name: header.name, content: () => read(body) }
      // The next entry comes when this one has been read to its end.
      await body.cancel().catch(() => undefined)
    }
  } finally {
    reader.cancel().catch(() => undefined)
  }
}

async function* zipEntries(archive: string, progress: (piece: number) => Promise<void>): AsyncGenerator<Entry> {
  const { Unzip, UnzipInflate } = await needed<Zip>('fflate', 'unpacking ZIP')
  let ready: Entry[] = []
  let open: string | undefined
  const unzip = new Unzip((file) => {
    const pieces: Uint8Array[] = []
    open = file.name
    file.ondata = (error, piece, last) => {
      if (error !== null) throw error
      pieces.push(piece)
      if (!last) return
      open = undefined
      if (!file.name.endsWith('/')) ready.push({ name: file.name, content: () => pieces })
    }
    file.start()
  })
  unzip.register(UnzipInflate)
  const taken = function* () {
    const entries = ready
    ready = []
    yield* entries
  }
  for await (const piece of piecesOf(archive)) {
    await progress(piece.length)
    unzip.push(piece, false)
    yield* taken()
  }
  unzip.push(new Uint8Array(), true)
  yield* taken()
  if (open !== undefined) throw new Error(`it ends within ${JSON.stringify(open)}`)
}

/**
 * Takes a folder out of an archive into `target`, which is made. Errors: damaged or truncated data, a name that leads out of the archive,
 * anything but files and folders (links among them), a folder that is not in it, a full disk.
 */
export const unpack =
  (
    archive: string,
    { format, folder }: { readonly format: 'tar.gz' | 'zip'; readonly folder: string },
    target: string,
    progress: BytesDone = () => undefined,
  ): TaskEither<MixtrainError, void> =>
  async () => {
    const { mkdir, open, stat } = await fs()
    let interrupted: { readonly cause: unknown } | undefined
    try {
      const total = (await stat(archive)).size
      let done = 0
      const told = async (piece: number) => {
        done += piece
        try {
          await progress(done, total)
        } catch (cause) {
          interrupted = { cause }
          throw cause
        }
      }
      const made = new Set<string>()
      let count = 0
      for await (const { name, content } of (format === 'zip' ? zipEntries : tarEntries)(archive, told)) {
        const path = inside(name, folder, archive)
        if (path === undefined) continue
        const full = `${target}/${path}`
        const parent = full.slice(0, full.lastIndexOf('/'))
        if (!made.has(parent)) await mkdir(parent, { recursive: true })
        made.add(parent)
        const handle = await open(full, 'w')
        try {
          for await (const piece of content()) await handle.writeFile(piece)
        } finally {
          await handle.close()
        }
        count++
      }
      return count > 0 ? E.right(undefined) : E.left(fileError(archive, `expected a folder ${folder}, found none`))
    } catch (cause) {
      if (interrupted !== undefined) throw interrupted.cause
      if (cause instanceof MixtrainException) return E.left(cause.error)
      const isSystem = cause instanceof Error && 'syscall' in cause
      return E.left(
        fileError(archive, isSystem ? reasonOf(cause) : `the archive is damaged or truncated: ${reasonOf(cause)}`),
      )
    }
  }
