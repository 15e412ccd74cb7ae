import { type Decision, Ended } from './decision.ts'
import { attack, confirmPoint } from './decision-attack.ts'
import type { Box, Goal } from './goals.ts'
import type { Pool, Sized } from './plan-pool.ts'
import { queue } from './queue.ts'
import type { Placed, Refuted, SearchTree } from './trace.ts'

/** A subproblem as the search sees it, whatever is split. */
interface Subproblem extends Placed {
  readonly goal: Goal
  readonly conjunction: number
  readonly box: Box
  readonly lower: number
  readonly point: Float32Array
  readonly violation: number
}

/** The point of a part that waits: it was looked at when the part was bounded. */
const FORGOTTEN = new Float32Array(0)

/** How parts of one kind are made, bounded and split. */
export interface Brancher<P extends Subproblem> {
  readonly name: string
  readonly pool: Pool<P, Sized<P>>
  /** The parts that cover a goal but for what is refuted at once, and the least bound of that. */
  readonly roots: (goal: Goal) => Promise<{ readonly parts: readonly P[]; readonly proved: number }>
  readonly bytes: (part: P) => number
  /** Smaller parts that cover the part; none where it cannot be split. */
  readonly split: (part: P) => readonly P[]
  /** Whether constraints clipped the part that was bounded. */
  readonly clipped: (part: P) => boolean
  /** What refuted a part. */
  readonly refuted: (part: P) => Refuted
  /** The trees so far, where they are kept. */
  readonly trees: readonly SearchTree[]
}

/** A search that goes on step by step. */
export interface Searcher {
  readonly name: string
  /** Multiply-adds so far: the same on every machine. */
  readonly spent: () => number
  readonly open: () => number
  /** Least bound of what is open. */
  readonly lower: () => number
  /** The case that is looked at. */
  readonly at: () => number
  /** Bounds one batch. */
  readonly step: () => Promise<'open' | 'proved' | 'stuck'>
  /** Least bound of what was proved. */
  readonly proved: () => number
  readonly trees: readonly SearchTree[]
}

/** Share of the time that attacks may take while branching: at first, and where bounds have not moved. */
const [SHARE, STALLED_SHARE] = [0.15, 0.4]
/** Every so many batches are of the parts nearest to a counterexample. */
const NEAR = 4

/**
 * Best-first branch and bound (arXiv:1711.00455) of all goals in one queue: the parts of the least bounds are split, a batch of halves is bounded at once, and a part
 * above 0 is done. When the queue is nearly full, parts of large bounds go first: they need the fewest splits.
 */
export const searcher = <P extends Subproblem>(decision: Decision, brancher: Brancher<P>): Searcher => {
  const { prepared, budget, goals, count } = decision
  const { memory, restarts } = prepared.options
  const open = queue<P>()
  const fresh: P[] = []
  let next = 0
  let [proved, stuck] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]
  let [bytes, spent, steps, attacking] = [0, 0, 0, 0]
  let [highest, moved, begun] = [Number.NEGATIVE_INFINITY, 0, 0]
  let at = 0
  /** Least bound of the batch that is out: the search may end before it is back. */
  let out = Number.POSITIVE_INFINITY
  const waiting = () => fresh.length + open.size()
  const lower = () =>
    next < goals.length || fresh.length > 0 ? Number.NEGATIVE_INFINITY : Math.min(open.least(), stuck, out)

  /** Goals are made parts of as they are needed. */
  const fill = async (): Promise<void> => {
    while (next < goals.length && fresh.length < 64) {
      const { parts, proved: least } = await brancher.roots(goals[next])
      at = goals[next].at
      next++
      proved = Math.min(proved, least)
      fresh.push(...parts)
    }
  }
  const attacked = async (parts: readonly P[]): Promise<void> => {
    if (restarts === 0) return
    const now = budget.seconds()
    if (begun === 0) begun = now
    const share = steps - moved > 8 ? STALLED_SHARE : SHARE
    if (attacking > share * (now - begun)) return
    const targets = parts
      .filter((p) => !(p.lower > 0))
      .sort((p, q) => p.violation - q.violation)
      .slice(0, 64)
      .map(({ goal, conjunction, box, point }) => ({ goal, conjunction, box, start: point }))
    if (targets.length > 0) await attack(decision, targets, now + 0.1 * budget.left())
    attacking += budget.seconds() - now
  }
  const take = async (parts: readonly P[], plan: Sized<P>): Promise<void> => {
    out = parts.reduce((least, p) => (p.lower >= least ? least : p.lower || Number.NEGATIVE_INFINITY), out)
    for (let i = 0; i < parts.length; i += plan.batch) {
      const some = await plan.bound(parts.slice(i, i + plan.batch))
      count(some.length)
      spent += plan.work
      for (const p of some) {
        if (p.lower > 0) {
          proved = Math.min(proved, p.lower)
          if (p.node !== undefined) p.node.refuted = brancher.refuted(p)
          continue
        }
        if (brancher.clipped(p)) proved = Math.min(proved, Number.MIN_VALUE)
        if (p.violation <= p.goal.conjunctions[p.conjunction].near) await confirmPoint(prepared, p.goal, p.point)
        open.push(p.lower, { ...p, point: FORGOTTEN }, p.violation)
        bytes += brancher.bytes(p)
      }
      await attacked(some)
    }
    out = Number.POSITIVE_INFINITY
  }
  const popped = (): P => {
    const p = bytes > 0.75 * memory ? open.popEasy() : steps % NEAR === NEAR - 1 ? open.popNear() : open.pop()
    bytes -= brancher.bytes(p as P)
    return p as P
  }
  /** A batch of halves of open parts. */
  const halved = (batch: number): readonly P[] => {
    const parts: P[] = []
    while (open.size() > 0 && parts.length < batch) {
      const p = popped()
      const halves = brancher.split(p)
      if (halves.length === 0) stuck = Math.min(stuck, p.lower)
      parts.push(...halves)
    }
    return parts
  }
  return {
    name: brancher.name,
    spent: () => spent,
    open: waiting,
    lower,
    at: () => at,
    proved: () => proved,
    trees: brancher.trees,
    step: async () => {
      if (bytes > memory) throw new Ended('unknown', lower(), undefined, 'the queue of subproblems is full (--memory)')
      await fill()
      if (fresh.length > 0) {
        const plan = await brancher.pool.pick(fresh.length + (next < goals.length ? 64 : 0))
        await take(fresh.splice(0, plan.batch), plan)
      } else if (open.size() > 0) {
        const plan = await brancher.pool.pick(2 * open.size())
        await take(halved(plan.batch), plan)
      }
      steps++
      if (lower() > highest) [highest, moved] = [lower(), steps]
      if (waiting() > 0 || next < goals.length) return 'open'
      return stuck < Number.POSITIVE_INFINITY ? 'stuck' : 'proved'
    },
  }
}
