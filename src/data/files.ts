import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { joinedAs } from '../core/arrays.ts'
import { fileError, type MixtrainError } from '../core/error.ts'
import { nodeModule } from '../core/runtime.ts'

/**
 * The capability to read files: `files` on Node and Deno, anything else (fetch, a dropped folder) where there is no
 * file system.
 */
export interface FileReader {
  /** `signal` gives up what does not end, such as a pipe. */
  readonly read: (path: string, signal?: AbortSignal) => TE.TaskEither<MixtrainError, Uint8Array>
  /** Names of the entries of a folder, in order of code units. */
  readonly list: (path: string) => TE.TaskEither<MixtrainError, readonly string[]>
  /** Keeps a file entirely or not at all; absent where nothing can be kept. */
  readonly write?: (path: string, bytes: Uint8Array) => TE.TaskEither<MixtrainError, void>
}

/** Imported when first used, so that a browser can load this module. */
const fs = () => nodeModule<typeof import('node:fs/promises')>('node:fs/promises')

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file or folder',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EISDIR: 'expected a file, found a folder',
  ENOTDIR: 'expected a folder, found a file',
  EEXIST: 'there is something of that name already',
  ENOSPC: 'no space left on the disk',
  EDQUOT: 'no space left in the disk quota',
  EFBIG: 'the file is larger than allowed',
  EROFS: 'the file system is read-only',
  ENAMETOOLONG: 'the name is too long',
  ELOOP: 'its symbolic links lead round in a circle',
  ENXIO: 'it is a device or a socket that cannot be opened',
  EMFILE: 'too many files are open',
  ENFILE: 'too many files are open',
  EIO: 'the disk or the connection to it fails',
  EBUSY: 'it is in use',
  ENODEV: 'there is no such device',
  EINVAL: 'its file system refuses that',
}

const codeOf = (cause: unknown): string | undefined =>
  cause instanceof Error && 'code' in cause && typeof cause.code === 'string' ? cause.code : undefined

/** What went wrong with a file, in words. */
export const reasonOf = (cause: unknown): string =>
  REASONS[codeOf(cause) ?? ''] ?? (cause instanceof Error ? cause.message : String(cause))

/** What went wrong with a file that an exception of the runtime names; undefined for any other exception. */
export const fileErrorOf = (cause: unknown): MixtrainError | undefined => {
  const path = cause instanceof Error && 'path' in cause ? cause.path : undefined
  return typeof path === 'string' && Object.hasOwn(REASONS, codeOf(cause) ?? '')
    ? fileError(path, reasonOf(cause))
    : undefined
}

const effect = <A>(path: string, run: () => Promise<A>): TE.TaskEither<MixtrainError, A> =>
  TE.tryCatch(run, (cause) => fileError(path, reasonOf(cause)))

export const exists = (path: string): TE.TaskEither<MixtrainError, boolean> => effect(path, () => isThere(path))

/**
 * Makes a folder and those above it. Node's own `recursive` takes a file system that refuses (a read-only one, /proc) for one whose upper folder is
 * absent: it says so, or tries for ever.
 */
const makeAll = async (path: string): Promise<void> => {
  const { mkdir, stat } = await fs()
  try {
    await mkdir(path)
  } catch (cause) {
    const above = path.replace(/[/\\]+$/, '').replace(/[^/\\]+$/, '')
    if (codeOf(cause) === 'ENOENT' && above !== '' && above !== path && !(await isThere(above))) {
      await makeAll(above)
      return mkdir(path)
    }
    const there = await stat(path).catch(() => undefined)
    if (there?.isDirectory()) return
    throw cause
  }
}

/** Whether there is something of this name. */
const isThere = async (path: string): Promise<boolean> =>
  (await fs()).stat(path).then(
    () => true,
    (cause) => (codeOf(cause) === 'ENOENT' ? false : Promise.reject(cause)),
  )

/** Makes a folder and those above it; one that is there already is fine. */
export const makeDirectory = (path: string): TE.TaskEither<MixtrainError, void> => effect(path, () => makeAll(path))

/** Files that are being written; undefined until the first. */
let unfinished: Set<string> | undefined

/** Takes note of half-written files, which go when the process ends before them. */
const noted = async (): Promise<Set<string>> => {
  if (unfinished !== undefined) return unfinished
  const names = new Set<string>()
  unfinished = names
  const { rmSync } = await nodeModule<typeof import('node:fs')>('node:fs')
  const { default: process } = await nodeModule<{ readonly default: NodeJS.Process }>('node:process')
  process.on('exit', () => {
    for (const name of names) rmSync(name, { force: true })
  })
  return names
}

type Stats = import('node:fs').Stats

const kindOf = (s: Stats): string =>
  s.isDirectory()
    ? 'a folder'
    : s.isFIFO()
      ? 'a named pipe'
      : s.isSocket()
        ? 'a socket'
        : s.isCharacterDevice() || s.isBlockDevice()
          ? 'a device'
          : 'something else'

/**
 * Writes a file entirely or not at all: to a new file beside it, which is flushed to the disk and then takes its
 * name. After an error (a full disk) the file at `path` is what it was before, and the new one is gone. What is no file, such as /dev/null or a pipe, is refused: a file would
 * take its place.
 */
export const writeAtomic = (path: string, bytes: Uint8Array): TE.TaskEither<MixtrainError, void> =>
  pipe(
    effect(path, async () => {
      const found = await (await fs()).stat(path).catch(() => undefined)
      const isOther = found !== undefined && !found.isFile() && !found.isDirectory()
      return isOther ? E.left(`expected a file, found ${kindOf(found)}`) : E.right(undefined)
    }),
    TE.chainEitherK(E.mapLeft((message) => fileError(path, message))),
    TE.chain(() => replaced(path, bytes)),
  )

const replaced = (path: string, bytes: Uint8Array): TE.TaskEither<MixtrainError, void> =>
  effect(path, async () => {
    const { open, rename, rm } = await fs()
    const temporary = `${path}.${crypto.randomUUID()}.tmp`
    const names = await noted()
    names.add(temporary)
    try {
      const handle = await open(temporary, 'wx')
      try {
        await handle.writeFile(bytes)
        await handle.sync()
      } finally {
        await handle.close()
      }
      await rename(temporary, path)
    } catch (cause) {
      await rm(temporary, { force: true })
      throw cause
    } finally {
      names.delete(temporary)
    }
  })

/** Why a path is not read as a file; undefined where it is. */
const notReadable = async (path: string): Promise<string | undefined> => {
  const { realpath, stat } = await fs()
  const found = await stat(path)
  if (found.isFile() || found.isDirectory()) return undefined
  // A pipe that a shell made for this run leads to no name; opening one that has a name waits for a writer, which may never come.
  const name = found.isFIFO() ? await realpath(path).catch(() => undefined) : path
  return name === undefined || name.startsWith('/dev/fd/') ? undefined : `expected a file, found ${kindOf(found)}`
}

/** What is said of a file whose reading was given up. */
export const GIVEN_UP = 'it did not end in time'

/** How long is waited for more of a pipe, ms. */
const PAUSE = 5

/** The bytes of a pipe, up to its end, by reads that do not wait. */
const polled = async (path: string, signal: AbortSignal | undefined): Promise<Uint8Array> => {
  const { closeSync, constants, openSync, readSync } = await nodeModule<typeof import('node:fs')>('node:fs')
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const chunks: Uint8Array[] = []
  const next = (): number | undefined => {
    const bytes = new Uint8Array(2 ** 16)
    try {
      const n = readSync(fd, bytes)
      chunks.push(bytes.subarray(0, n))
      return n
    } catch (cause) {
      if (codeOf(cause) === 'EAGAIN') return undefined
      throw cause
    }
  }
  try {
    for (;;) {
      signal?.throwIfAborted()
      const n = next()
      if (n === 0) return joinedAs(Uint8Array, chunks)
      if (n === undefined) await new Promise((resolve) => setTimeout(resolve, PAUSE))
    }
  } finally {
    closeSync(fd)
  }
}

/**
 * The bytes of a pipe, up to its end. It is waited for as for a connection: a read that blocks holds a thread of Node, and without that thread the process
 * cannot end, whatever its time limit or a signal says. Deno has no such socket: there it is asked again and again. Bun reads it as a file.
 */
const readPipe = async (path: string, signal: AbortSignal | undefined): Promise<Uint8Array> => {
  if ('Deno' in globalThis) return polled(path, signal)
  if ('Bun' in globalThis) return (await fs()).readFile(path, { signal })
  const { constants, openSync } = await nodeModule<typeof import('node:fs')>('node:fs')
  const { Socket } = await nodeModule<typeof import('node:net')>('node:net')
  // The socket closes it.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const socket = new Socket({ fd, readable: true, writable: false, signal })
  const chunks: Uint8Array[] = []
  for await (const chunk of socket) chunks.push(chunk)
  return joinedAs(Uint8Array, chunks)
}

/**
 * The file system of Node and Deno. Devices are refused: some give bytes without end. So are sockets and pipes that have a name: opening one waits for another
 * process. A pipe without a name, `<(command)` or `/dev/stdin`, is read until it ends.
 */
export const files: Required<FileReader> = {
  read: (path, signal) =>
    pipe(
      effect(path, async () => {
        const { readFile, stat } = await fs()
        const problem = await notReadable(path)
        if (problem !== undefined) return E.left(problem)
        try {
          const { buffer, byteOffset, length } = (await stat(path)).isFIFO()
            ? await readPipe(path, signal)
            : await readFile(path, { signal })
          return E.right(new Uint8Array(buffer, byteOffset, length))
        } catch (cause) {
          if (signal?.aborted) return E.left(GIVEN_UP)
          throw cause
        }
      }),
      TE.chainEitherK(E.mapLeft((message) => fileError(path, message))),
    ),
  list: (path) => effect(path, async () => (await (await fs()).readdir(path)).sort()),
  write: writeAtomic,
}

type FileHandle = import('node:fs/promises').FileHandle

/** `handle`'s bytes, as many as its file had when it was opened. */
const readOpen = async (handle: FileHandle, size: number): Promise<Uint8Array> => {
  const bytes = new Uint8Array(size)
  let at = 0
  while (at < size) {
    const { bytesRead } = await handle.read(bytes, at, size - at, at)
    if (bytesRead === 0) break
    at += bytesRead
  }
  return bytes.subarray(0, at)
}

/**
 * Reads what others named: only regular files of at most `most` bytes, and writes nothing. A device, a pipe, a socket or a folder is refused
 * by name without being opened; what takes the place of a file in between is not waited for.
 */
export const regularFiles = (most: number): FileReader => ({
  read: (path) =>
    pipe(
      effect(path, async () => {
        const { constants, open, stat } = await fs()
        const refused = (s: Stats): string | undefined =>
          !s.isFile()
            ? `expected a regular file, found ${kindOf(s)}`
            : s.size > most
              ? `expected at most ${most} bytes, found ${s.size}`
              : undefined
        const before = refused(await stat(path))
        if (before !== undefined) return E.left(before)
        const handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
        try {
          const opened = await handle.stat()
          const problem = refused(opened)
          return problem === undefined ? E.right(await readOpen(handle, opened.size)) : E.left(problem)
        } finally {
          await handle.close()
        }
      }),
      TE.chainEitherK(E.mapLeft((message) => fileError(path, message))),
    ),
  list: files.list,
})

/** Adds bytes to the end of a file, which is made if it is absent. */
export const append = (path: string, bytes: Uint8Array): TE.TaskEither<MixtrainError, void> =>
  effect(path, async () => (await fs()).appendFile(path, bytes))

/** Makes one new folder; an error if something of that name is there. */
export const makeFresh = (path: string): TE.TaskEither<MixtrainError, void> =>
  effect(path, async () => (await fs()).mkdir(path))

/** Removes a folder if it is empty; otherwise nothing happens. */
export const removeEmpty = (path: string): TE.TaskEither<MixtrainError, void> =>
  effect(path, async () => (await fs()).rmdir(path).catch(() => undefined))

/** Removes a file; one that is absent is fine. */
export const remove = (path: string): TE.TaskEither<MixtrainError, void> =>
  effect(path, async () => (await fs()).rm(path, { force: true }))

/** A file that grows: what was added is on the disk once `append` resolves. */
export interface GrowingFile {
  readonly append: (bytes: Uint8Array) => TE.TaskEither<MixtrainError, void>
  readonly close: TE.TaskEither<MixtrainError, void>
}

/** Opens a file to add to it; all after its first `length` bytes goes before. */
export const growing = (path: string, length: number): TE.TaskEither<MixtrainError, GrowingFile> =>
  effect(path, async () => {
    const handle = await (await fs()).open(path, 'r+')
    await handle.truncate(length)
    await handle.sync()
    let at = length
    return {
      append: (bytes) =>
        effect(path, async () => {
          for (let done = 0; done < bytes.length; ) {
            const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, at)
            done += bytesWritten
            at += bytesWritten
          }
          await handle.sync()
        }),
      close: effect(path, () => handle.close()),
    }
  })
