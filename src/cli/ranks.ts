import { hostname } from 'node:os'
import process from 'node:process'
import * as E from 'fp-ts/lib/Either.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { endLauncher, launcherProcess } from '../cluster/launcher.ts'
import { launched, type Mpi, openMpi } from '../cluster/mpi.ts'
import { agree, PATIENCE, type Team, team } from '../cluster/team.ts'
import { guarded } from '../cluster/watchdog.ts'
import { type MixtrainError, show, usage } from '../core/error.ts'
import { sha256 } from '../core/hash.ts'
import type { Settings, StoredRun } from '../train/checkpoint.ts'
import { attempt, exitCodeOf, Interrupted, type Shell } from './shell.ts'
import { codeHash } from './version.ts'

/** A job of several processes, as one of them sees it. */
export interface Job {
  readonly mpi: Mpi
  readonly team: Team
  /** Rank 0 alone writes files and says what happens. */
  readonly writes: boolean
}

/** How long a rank is waited for, seconds: more where one step of training takes longer. */
const patience = (): number => Number(process.env.MIXTRAIN_RANK_PATIENCE ?? PATIENCE)

/** How long the library may take to end the job, seconds. */
const ABORT = 5

/** Results and progress are rank 0's. */
const quiet = (shell: Shell): Shell => ({
  ...shell,
  print: () => undefined,
  note: () => undefined,
  progress: () => shell.progress('', 0, 1),
})

/** Runs `use` as a rank of the job that the environment tells of, or by itself. Whatever ends a rank ends all of them, and says which, where and why. */
export const withJob = (
  shell: Shell,
  use: (job: Job | undefined, shell: Shell) => TE.TaskEither<MixtrainError, void>,
): TE.TaskEither<MixtrainError, void> => {
  const found = launched(process.env)
  if (found === undefined || found.size === 1) return use(undefined, shell)
  return async () => {
    const joining = `mixtrain: on ${hostname()}: this process did not join the ${found.size} of its job in ${patience()} seconds: some were not started, or cannot be reached`
    // srun ends what it started by itself.
    const launcher = found.launcher === 'mpirun' ? await launcherProcess() : undefined
    const opened = await attempt(() => openMpi(found, (init) => guarded(patience(), joining, init)))()
    if (E.isLeft(opened)) return opened
    const mpi = opened.right
    const name = `mixtrain: rank ${mpi.rank} of ${mpi.size} on ${hostname()}`
    /** Ends the job; the others may be anywhere. What is to end them may hang itself, where a host cannot be reached. */
    const end = async (reason: string, code: number): Promise<void> => {
      shell.clear()
      shell.note(`${name}: ${reason}`)
      if (launcher !== undefined) await endLauncher(launcher, ABORT)
      await guarded(ABORT, `${name}: MPI_Abort did not end the job in ${ABORT} seconds; this process ends`, () =>
        mpi.abort(code),
      )
    }
    try {
      const met = await attempt(() => team(mpi, hostname(), patience()))()
      if (E.isLeft(met)) {
        await end(show(met.left), 1)
        return met
      }
      const writes = mpi.rank === 0
      const result = await use({ mpi, team: met.right, writes }, writes ? shell : quiet(shell))()
      if (E.isLeft(result)) await end(show(result.left), result.left.kind === 'usage' ? 2 : 1)
      else mpi.finalize()
      return result
    } catch (cause) {
      if (cause instanceof Interrupted) await end(cause.message, exitCodeOf(cause.signal))
      else await end(`this is a defect of the program: ${cause instanceof Error ? cause.stack : cause}`, 1)
      throw cause
    }
  }
}

/** All ranks train the same: code, images, settings, and what they go on from. */
export const agreed = (
  job: Job | undefined,
  settings: Settings,
  before: StoredRun | undefined,
): TE.TaskEither<MixtrainError, void> =>
  job === undefined
    ? TE.right(undefined)
    : settings.microBatches === undefined
      ? TE.left(
          usage(
            `training over ${job.mpi.size} ranks shares micro-batches, which decide the bits: add --micro-batches M`,
          ),
        )
      : attempt(async () => {
          const { data: _, dataSha256, ...others } = settings
          const text = (x: unknown) => sha256(new TextEncoder().encode(JSON.stringify(x)))
          const hashes = {
            code: await codeHash(),
            data: dataSha256,
            settings: await text(others),
            checkpoint: before?.file.metadata.sha256 ?? 'none',
          }
          await agree(job.mpi, job.team, hashes, patience())
        })

/** What the sums of a run cost. */
export const costLine = ({ size, cost }: Pick<Team, 'size' | 'cost'>): string => {
  const { bytes, seconds, whole, sums } = cost()
  const each = (x: number) => x / Math.max(1, sums)
  const share = whole > 0 ? seconds / whole : 0
  return `${size} ranks: ${sums} sums over micro-batches, ${each(bytes / 1e6).toFixed(2)} MB sent each by rank 0, ${each(1000 * seconds).toFixed(1)} ms each waited and added, ${(100 * share).toFixed(0)} % of the time that what is summed took`
}
