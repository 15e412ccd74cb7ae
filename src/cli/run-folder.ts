import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { append, exists, files, makeDirectory, makeFresh, remove, removeEmpty, writeAtomic } from '../data/files.ts'
import type { Network } from '../nn/networks.ts'
import { decodeCheckpoint, encodeCheckpoint, logged, type Settings, type StoredRun } from '../train/checkpoint.ts'
import type { Checkpoint, EpochRecord } from '../train/fit.ts'
import { type Lock, lock } from './lock.ts'

/** The files of a run. */
export const FILES = {
  checkpoint: 'checkpoint.safetensors',
  log: 'log.jsonl',
  model: 'model.safetensors',
  onnx: 'model.onnx',
  report: 'report.json',
  curves: 'curves.svg',
} as const

/** There while a process writes to the folder. */
const LOCK = 'run.lock'

/** A folder that this process alone may write to, until it is released; `made` if it was not there before. */
export interface RunFolder extends Lock {
  readonly path: string
  readonly made: boolean
}

/** A folder, which exists, for this process alone. */
const held = (path: string, made: boolean): TE.TaskEither<MixtrainError, RunFolder> =>
  pipe(
    TE.fromEither(lock(join(path, LOCK), path)),
    TE.map(({ release }) => ({ path, made, release })),
    TE.orElseFirst(() => (made ? removeEmpty(path) : TE.right(undefined))),
  )

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

/** An error if there is a run in the folder already. */
const vacant = (path: string): TE.TaskEither<MixtrainError, void> =>
  pipe(
    files.list(path),
    TE.chainEitherK((entries) => {
      const taken = Object.values(FILES).find((name) => entries.includes(name))
      return taken === undefined
        ? E.right(undefined)
        : E.left(
            fileError(
              path,
              `there is a run in this folder already (${taken}); choose another --output${
                entries.includes(FILES.checkpoint) ? `, or go on with --resume ${path}` : ''
              }`,
            ),
          )
    }),
  )

/** The folder asked for by name: it may exist, but have no run in it. What is seen under the lock stays so. */
export const claim = (path: string): TE.TaskEither<MixtrainError, RunFolder> =>
  pipe(
    exists(path),
    TE.chainFirst((there): TE.TaskEither<MixtrainError, unknown> => (there ? files.list(path) : makeDirectory(path))),
    TE.chain((there) => held(path, !there)),
    TE.chainFirst((folder) =>
      pipe(
        vacant(path),
        TE.chain(() => tidied(path)),
        TE.mapLeft((error) => {
          folder.release()
          return error
        }),
      ),
    ),
  )

/** The folder of a run that is to go on. */
export const reclaim = (path: string): TE.TaskEither<MixtrainError, RunFolder> =>
  pipe(
    exists(join(path, FILES.checkpoint)),
    TE.filterOrElse(
      (there) => there,
      (): MixtrainError =>
        fileError(path, `there is no ${FILES.checkpoint} to resume from: no epoch of a run was finished here`),
    ),
    TE.chain(() => held(path, false)),
  )

/** A folder of its own under `runs`: the UTC time as 2026-11-22T18-20-59, with a number where that is taken. */
export const fresh = (now: Date): TE.TaskEither<MixtrainError, RunFolder> => {
  const time = now.toISOString().slice(0, 19).replaceAll(':', '-')
  const attemptAt = (n: number): TE.TaskEither<MixtrainError, RunFolder> => {
    const path = join('runs', n === 1 ? time : `${time}-${n}`)
    return pipe(
      makeFresh(path),
      TE.chain(() => held(path, true)),
      TE.orElse((error) =>
        pipe(
          exists(path),
          TE.chain((there) => (there && n < 100 ? attemptAt(n + 1) : TE.left(error))),
        ),
      ),
    )
  }
  return pipe(
    makeDirectory('runs'),
    TE.chain(() => attemptAt(1)),
  )
}

/** The run of a folder as its last checkpoint has it. */
export const stored = (folder: string): TE.TaskEither<MixtrainError, StoredRun> => {
  const path = join(folder, FILES.checkpoint)
  return pipe(
    files.read(path),
    TE.chain((bytes) => decodeCheckpoint(bytes, path)),
  )
}

const lines = (history: readonly EpochRecord[]): string => history.map((r) => `${JSON.stringify(logged(r))}\n`).join('')

/** Whether a line that was not finished may be the beginning of one; of an epoch that the checkpoint does not have it may be anything. */
const begins = (piece: string, line = ''): boolean => line === '' || line.startsWith(piece)

/**
 * An error if the log says anything that the checkpoint does not. It may lack its last lines, or end within one: an epoch is logged after its checkpoint
 * is written, and what lacks is written again. Other text was written by somebody else, and would be lost.
 */
export const unaltered = (folder: string, history: readonly EpochRecord[]): TE.TaskEither<MixtrainError, void> => {
  const path = join(folder, FILES.log)
  return pipe(
    exists(path),
    TE.chain((there) => (there ? files.read(path) : TE.right(new Uint8Array()))),
    TE.chainEitherK((bytes) => {
      const [found, expected] = [new TextDecoder().decode(bytes).split('\n'), lines(history).split('\n')]
      // The last piece has no end of line: it may be any part of a line, and that of an epoch whose checkpoint was lost with the power.
      const altered = found.findIndex((line, i) =>
        i < found.length - 1 ? line !== expected[i] : !begins(line, expected[i]),
      )
      return altered < 0
        ? E.right(undefined)
        : E.left(
            fileError(
              path,
              `this is not what ${FILES.checkpoint} has of epoch ${altered}: the log was edited, or is that of another run; remove it, and it is written again`,
              `line ${altered + 1}`,
            ),
          )
    }),
  )
}

/** What a killed process leaves of a file that it was writing, or of a lock that it was taking. */
const LEFTOVER = new RegExp(
  `^((${Object.values(FILES).join('|').replaceAll('.', '\\.')})\\.[0-9a-f-]{36}\\.tmp|${LOCK}(\\.[0-9a-f-]{36})+(\\.tmp)?)$`,
)

/** Removes what killed processes left half-written. */
const tidied = (folder: string): TE.TaskEither<MixtrainError, void> =>
  pipe(
    files.list(folder),
    TE.map((entries) => entries.filter((name) => LEFTOVER.test(name))),
    TE.chain((leftovers) => TE.sequenceSeqArray(leftovers.map((name) => remove(join(folder, name))))),
    TE.map(() => undefined),
  )

/**
 * Makes a folder what its checkpoint knows: a torn last line of the log, or an epoch that was logged but not kept, goes; half-written
 * files go too.
 */
export const heal = (folder: string, history: readonly EpochRecord[]): TE.TaskEither<MixtrainError, void> =>
  pipe(
    tidied(folder),
    TE.chain(() => writeAtomic(join(folder, FILES.log), utf8(lines(history)))),
  )

/** Keeps a finished epoch: the checkpoint first, so that no epoch is logged that would be trained again. */
export const keep =
  (folder: string, network: Network, settings: Settings) =>
  (checkpoint: Checkpoint): TE.TaskEither<MixtrainError, void> =>
    pipe(
      keepPart(folder, network, settings)(checkpoint),
      TE.chain(() => append(join(folder, FILES.log), utf8(lines(checkpoint.history.slice(-1))))),
    )

/** Keeps a checkpoint within an epoch, which is not logged yet. */
export const keepPart =
  (folder: string, network: Network, settings: Settings) =>
  (checkpoint: Checkpoint): TE.TaskEither<MixtrainError, void> =>
    pipe(
      TE.fromTask(() => encodeCheckpoint(network, checkpoint, settings)),
      TE.chain((bytes) => writeAtomic(join(folder, FILES.checkpoint), bytes)),
    )

export const write =
  (folder: string) =>
  (name: (typeof FILES)[keyof typeof FILES], content: string | Uint8Array): TE.TaskEither<MixtrainError, void> =>
    writeAtomic(join(folder, name), typeof content === 'string' ? utf8(content) : content)

/** A folder as it is written on a command line. */
export const shown = (path: string): string =>
  /^[\w./+=@:-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`
