import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Backend, Buffer, Data } from './backend.ts'

/** An owner of resident memory: parameters, optimizer state, data. */
export interface Region {
  readonly backend: Backend
  /** A new buffer of this region. */
  readonly alloc: (length: number) => Buffer
  /** A new buffer of this region with this content. */
  readonly from: (data: Data) => Buffer
  /** Frees a buffer of this region before the region ends. */
  readonly free: (buffer: Buffer) => void
  /** Hands a buffer over to the caller, who frees it from now on. */
  readonly detach: (buffer: Buffer) => Buffer
  /** Runs when the region ends: executables are released this way. */
  readonly defer: (release: () => void) => void
}

/**
 * A region with its end in the caller's hands, for owners that live across an async iteration. `close` frees exactly once.
 *
 * @example
 *   const { region, close } = openRegion(reference())
 *   close()
 */
export const openRegion = (backend: Backend): { readonly region: Region; readonly close: () => void } => {
  const owned = new Set<Buffer>()
  const deferred: (() => void)[] = []
  const keep = (b: Buffer): Buffer => {
    owned.add(b)
    return b
  }
  return {
    region: {
      backend,
      alloc: (length) => keep(backend.alloc(length)),
      from: (data) => {
        const b = keep(backend.alloc(data.length))
        backend.write(b, data)
        return b
      },
      free: (b) => {
        backend.free(b)
        owned.delete(b)
      },
      detach: (b) => {
        owned.delete(b)
        return b
      },
      defer: (release) => {
        deferred.push(release)
      },
    },
    close: () => {
      for (const b of owned) backend.free(b)
      owned.clear()
      for (const release of deferred.splice(0).reverse()) release()
    },
  }
}

/**
 * Runs `use` with a region and frees what the region still owns, exactly once, whether `use` ends in Right, in Left, throws or
 * rejects; a throw or a rejection goes on as a rejection. (fp-ts `TaskEither.bracket` does not release on a throw.)
 *
 * @example
 *   const task = withRegion(reference())((region) => async () => ({ _tag: 'Right' as const, right: await compileIn(region)([scalar(1)], []) }))
 *   (await task())._tag // 'Right'
 */
export const withRegion =
  (backend: Backend) =>
  <Err, A>(use: (region: Region) => TaskEither<Err, A>): TaskEither<Err, A> =>
  async () => {
    const { region, close } = openRegion(backend)
    try {
      return await use(region)()
    } finally {
      close()
    }
  }
