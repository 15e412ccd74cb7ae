/** How many threads a machine computes on, run by run. Results do not depend on it. */
export interface Pace {
  /** Threads for the next run of a program. */
  readonly threadsFor: (program: number) => number
  /** What a run took, and how often threads waited at a barrier meanwhile for longer than they spin. */
  readonly ran: (program: number, milliseconds: number, waits: number) => void
}

/** A pace of at most `most` threads; `changed` is told when it is another number from now on. */
export type Pacing = (most: number, changed?: (threads: number, before: number) => void) => Pace

/** All of them, always. */
export const steady: Pacing = (most) => ({ threadsFor: () => most, ran: () => undefined })

/** Runs of a trial on each number of threads. */
const ROUNDS = 3
/** What the other number must take less than, as a share of the time of the one in use. */
const BETTER = 0.9
/** A first run that takes so many times as long ends a trial. */
const HOPELESS = 2
/** Time until a trial of fewer threads and of more, in runs of the program that is tried; and at least so many ms. */
const FEWER = { runs: 20, ms: 50 }
const MORE = { runs: 500, ms: 2000 }
/** The most of either. */
const LATEST = { runs: 20_000, ms: 60_000 }
/** Runs of other programs after which a trial is given up. */
const FORGOTTEN = 1000

interface Trial {
  readonly program: number
  /** The number in use, and the other one. */
  readonly counts: readonly [number, number]
  readonly times: readonly [number[], number[]]
  others: number
}

const median = (x: readonly number[]): number => [...x].sort((a, b) => a - b)[x.length >> 1]

/**
 * All of them at first. Threads that wait for processors which other programs have are slower than one thread; what tells is the time of
 * one program. A *trial* runs it on two numbers of threads in turn and keeps the faster one. Fewer are tried once runs whose threads waited
 * add up to some time; more, now and then, for the machine may have become quiet. A trial that changes nothing doubles the time until the
 * next, so that trials cost next to nothing of a long run. There is no clock here: a process that was stopped for a while spoils one time
 * of a trial, which goes by medians.
 */
export const adaptive: Pacing = (most, changed = () => undefined) => {
  let threads = most
  /** Milliseconds of runs whose threads waited, and of all, since the last trial. */
  let [waited, passed] = [0, 0]
  /** Doublings of the time until the next trial. */
  const patience = { fewer: 0, more: 0 }
  let trial: Trial | undefined

  /** The number to try beside the one in use, if it is time to. */
  const other = (ms: number): number | undefined => {
    const due = (first: typeof FEWER, doublings: number) =>
      Math.max(Math.min(first.ms * 2 ** doublings, LATEST.ms), Math.min(first.runs * 2 ** doublings, LATEST.runs) * ms)
    if (threads > 1 && waited >= due(FEWER, patience.fewer)) return threads >> 1
    if (threads < most && passed >= due(MORE, patience.more)) return Math.min(most, threads * 2)
    return undefined
  }

  const settle = ({ counts: [now, tried], times: [ours, theirs] }: Trial): void => {
    trial = undefined
    waited = 0
    passed = 0
    const better = theirs.length === ROUNDS && median(theirs) < BETTER * median(ours)
    if (better) threads = tried
    // Fewer threads that turn out to be better are no reason to ask for more again soon, or the number would swing.
    if (tried < now) {
      if (better) patience.more++
      patience.fewer = better ? 0 : patience.fewer + 1
    } else if (!better) patience.more++
    if (better) changed(tried, now)
  }

  return {
    threadsFor: (program) => {
      if (trial === undefined || trial.program !== program) return threads
      const [ours, theirs] = trial.times
      return trial.counts[ours.length <= theirs.length ? 0 : 1]
    },
    ran: (program, ms, waits) => {
      if (most === 1) return
      if (trial === undefined) {
        passed += ms
        if (waits > 0) waited += ms
        const tried = other(ms)
        if (tried !== undefined) trial = { program, counts: [threads, tried], times: [[], []], others: 0 }
        return
      }
      if (trial.program !== program) {
        trial.others++
        if (trial.others > FORGOTTEN) trial = undefined
        return
      }
      const [ours, theirs] = trial.times
      if (ours.length <= theirs.length) ours.push(ms)
      else theirs.push(ms)
      if (theirs.length === ROUNDS || theirs[0] > HOPELESS * ours[0]) settle(trial)
    },
  }
}
