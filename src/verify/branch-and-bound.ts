import type { Backend } from '../compile/backend.ts'
import { workOf } from '../compile/keep.ts'
import { openRegion, type Region } from '../compile/region.ts'
import { order } from '../compile/tape.ts'
import { type MixtrainException, raise, show, usage } from '../core/error.ts'
import { fold, key as keyOf } from '../core/key.ts'
import { lazily } from '../core/lazily.ts'
import { type Rounding, requireIeee } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import { input } from '../ops/index.ts'
import { type Budget, budgetOf, OutOfTime } from '../robust/budget.ts'
import { outputOf, type Subject, type UnsafeProperty } from './counterexample.ts'
import { type Counterexample, type CounterexampleCheck, counterexampleCheck } from './counterexample-check.ts'
import { type Box, type Goal, goalExtent, goalsOf, requireFloat32, SAFETY } from './goals.ts'
import { type Cell, freeInputs, inputBrancher, inputWays, rootCell, splitCell } from './input-splits.ts'
import {
  type AttackResult,
  type AttackTarget,
  corner,
  middle,
  type PropertyAttack,
  propertyAttack,
  scattered,
} from './property-attack.ts'
import { queue } from './queue.ts'
import { type Branch, branchBytes, hasRelus, reluBrancher, splitBranch } from './relu-splits.ts'
import { another, firstOf, type Root, refusedBy, rootOf } from './root-bounds.ts'
import { grown, halvedAt, type Placed, type Refuted, type SearchTree } from './trace.ts'

export { SAFETY }

/** How a property came out. `unsat`: it holds. `sat`: it has a counterexample. */
export type Verdict = 'unsat' | 'sat' | 'unknown' | 'timeout'

/** Where the search for a decision stands. */
export interface Progress {
  readonly phase: 'attack' | 'bounds' | 'search'
  /** Case of the property, from 0. */
  readonly at: number
  /** Subproblems bounded so far, in all cases. */
  readonly bounded: number
  /** Subproblems that wait. */
  readonly open: number
  /** Least bound of what is open. */
  readonly lower: number
  readonly seconds: number
}

/** How properties of a network are decided. */
export interface DecisionOptions {
  /** Of the bounds. Default: outward, in real arithmetic; what cannot be rounded so raises. */
  readonly rounding?: Rounding
  /** Bytes of scratch and constants of one plan, and bytes of the queue. */
  readonly memory?: number
  /** Subproblems at once at most, as many as there are and as memory allows. */
  readonly batchSize?: number
  /** `auto`: by the number of inputs that are not fixed, up to 20 of them inputs, ReLUs otherwise, and in between both by turns. A network without ReLUs is always split at its inputs. */
  readonly split?: 'auto' | 'relus' | 'inputs'
  /** Starts of the first attack on each conjunction. 0: no attack. */
  readonly restarts?: number
  readonly seed?: number
  /** Whether the trees of the search are kept, as hints for a proof. Default: false. */
  readonly trace?: boolean
}

/** How long one decision may take, and who hears of it. */
export interface Patience {
  /** Seconds. Nothing is begun that would end later, by what it is estimated to cost. Default: 300. */
  readonly timeout?: number | undefined
  readonly progress?: ((p: Progress) => void | Promise<void>) | undefined
  /** Hears of each step of the strategy as it is begun: what the property and the network made of it, the same on every machine but for what memory and time leave out. */
  readonly said?: ((step: string) => void) | undefined
}

/** The most that properties may have, for which plans are made: constraints in a conjunction, conjunctions in a case. */
export interface PropertyExtent {
  readonly constraints: number
  readonly conjunctions: number
}

export interface PropertyOptions extends Subject, DecisionOptions, Patience {
  readonly property: UnsafeProperty
}

/** What was decided of a property, and by what. */
export interface Verification {
  readonly verdict: Verdict
  readonly counterexample: Counterexample | undefined
  /**
   * Lower bound, over the inputs of all cases, of how far each is from a counterexample: the largest excess of a constraint, less the safety
   * margin of bounds that round to nearest. Above 0 iff the verdict is unsat, and then the least double where parts of boxes were clipped off, of which no more is known; -infinity
   * while a case was not looked at.
   */
  readonly lower: number
  /** Subproblems bounded. */
  readonly bounded: number
  readonly seconds: number
  /** Why there is no verdict. */
  readonly reason: string | undefined
  /** The trees of the search that proved it, where they were kept. */
  readonly trees?: readonly SearchTree[] | undefined
}

const REAL: Rounding = { outward: 'real' }
const TIMEOUT = 300
const DEFAULTS = {
  memory: 2 ** 31,
  batchSize: 64,
  restarts: 8,
  seed: 0,
  rounding: REAL,
  split: 'auto',
  trace: false,
} satisfies DecisionOptions
const BRANCH = { steps: 16, lr: 0.2, candidates: 4 }

// ---- ends ------------------------------------------------------------------------------------------------------------

/** An end of the search, thrown through the loops below. */
class Ended {
  constructor(
    readonly verdict: Exclude<Verdict, 'unsat'>,
    readonly lower: number,
    readonly counterexample?: Counterexample,
    readonly reason?: string,
  ) {}
}

/** One decision: a property of a network, within a budget. */
interface Decision {
  readonly prepared: Prepared
  readonly budget: Budget
  readonly goals: readonly Goal[]
  readonly note: (p: Pick<Progress, 'phase' | 'at' | 'open' | 'lower'>) => Promise<void>
  readonly count: (bounded: number) => void
  readonly say: (step: string) => void
}

/** What all properties of a network share: the device, and plans made once. */
interface Prepared {
  readonly subject: Subject
  readonly options: Required<DecisionOptions>
  readonly propertyAttack: PropertyAttack
  readonly root: Root
  readonly inputs: Pool<Cell, Sized<Cell>>
  readonly relus: Pool<Branch, Sized<Branch> & Pick<Awaited<ReturnType<ReturnType<typeof reluBrancher>>>, 'root'>>
  readonly pointCheck: PointCheck
}

// ---- exact looks -----------------------------------------------------------------------------------------------------

/** Exact looks at points, within the budget. */
interface PointCheck {
  /** @throws OutOfTime where time does not suffice for a look. */
  readonly check: CounterexampleCheck['check']
  /** Why the last point that looked like a counterexample was not confirmed, if there was one since this was asked last. */
  readonly doubt: () => Promise<string | undefined>
  readonly close: () => void
}

/** Multiply-adds a second of the reference backend, until it was seen at work. */
const REFERENCE = 1e8

const pointCheckOf = (region: Region, budget: Budget, subject: Subject, rounding: Rounding): PointCheck => {
  const made = lazily(() => counterexampleCheck(subject, rounding, region.backend))
  let took: number | undefined
  const estimate = () => {
    if (took !== undefined) return took
    const nodes = order([outputOf(subject, input('x', [1, ...subject.input]))])
    return nodes.reduce((n, node) => n + workOf(node) + S.size(node.shape), 0) / REFERENCE
  }
  return {
    check: async (c, x) => {
      budget.afford(1.2 * estimate(), 'an exact look at a point')
      const { check } = await made.get()
      const begun = budget.seconds()
      const found = await check(c, x, budget.late)
      took = budget.seconds() - begun
      return found
    },
    doubt: async () => (await made.known())?.doubt(),
    close: () => made.known()?.then(({ close }) => close()),
  }
}

// ---- plans for few and for many --------------------------------------------------------------------------------------

/** Bounds of so many subproblems at once. */
interface Sized<P> {
  readonly batch: number
  readonly work: number
  readonly seconds: () => number
  readonly bound: (parts: readonly P[]) => Promise<readonly P[]>
}

/** The plans for one kind of subproblem, each made when there are enough of them to fill it. */
interface Pool<P, B extends Sized<P>> {
  /** The plan for so many that wait. The smallest one is always there: its errors are the caller's. */
  readonly pick: (waiting: number) => Promise<B>
}

/** Sizes of plans, and seconds of a run beyond which a larger one gains nothing but delay. */
const [SIZES, SLOW] = [[1, 8, 64, 512], 2]

const pool = <P, B extends Sized<P>>(budget: Budget, most: number, make: (batch: number) => Promise<B>): Pool<P, B> => {
  const sizes = [...new Set(SIZES.map((s) => Math.min(s, most)))]
  const made: B[] = []
  let refused = false
  return {
    pick: async (waiting) => {
      if (made.length === 0) made.push(await make(sizes[0]))
      while (!refused && made.length < sizes.length && waiting >= sizes[made.length]) {
        const last = made[made.length - 1]
        const size = sizes[made.length]
        const expected = (last.seconds() * size) / last.batch
        if (expected > Math.min(SLOW, 0.25 * budget.left())) break
        try {
          made.push(await make(size))
        } catch (e) {
          if (!another(e) && !(e instanceof OutOfTime)) throw e
          // Time may suffice for another property, memory will not.
          if (e instanceof OutOfTime) break
          refused = true
        }
      }
      const fits = made.filter(({ batch }) => batch === made[0].batch || 2 * waiting >= batch)
      return fits[fits.length - 1]
    },
  }
}

// ---- attack ----------------------------------------------------------------------------------------------------------

/** Shares of the time that the first attack may take, and one look at random points; points that are looked at before any is moved. */
const [FIRST_SHARE, LOOK_SHARE, LOOKS] = [0.2, 0.01, 8192]
/** Numbers of the points that are looked at for one conjunction: among many inputs random points say nothing. */
const LOOK_NUMBERS = 2 ** 14
/** Share of the time that attacks may take while branching: at first, and where bounds have not moved. */
const [SHARE, STALLED_SHARE] = [0.15, 0.4]

/** Checks the most promising points exactly. Throws the first that is a counterexample. */
const confirm = async ({ prepared }: Decision, results: readonly AttackResult[]): Promise<void> => {
  const near = results
    .filter(({ target: { goal, conjunction }, violation }) => violation <= goal.conjunctions[conjunction].near)
    .sort((p, q) => p.violation - q.violation)
  for (const { target, x } of near.slice(0, 8)) await confirmPoint(prepared, target.goal, x)
}

const confirmPoint = async (
  { pointCheck }: Pick<Prepared, 'pointCheck'>,
  goal: Goal,
  x: ArrayLike<number>,
): Promise<void> => {
  const found = await pointCheck.check(goal.of, x)
  if (found !== undefined) throw new Ended('sat', Number.NEGATIVE_INFINITY, found)
}

/** Ascends, and tries the corners next to where that led. */
const attack = async (decision: Decision, targets: readonly AttackTarget[], until: number): Promise<void> => {
  const { propertyAttack } = decision.prepared
  const results = await propertyAttack.ascend(targets, until)
  await confirm(decision, results)
  // What looked like a counterexample and was none, or could not be told, may be one further on.
  const doubtful = results.filter(({ violation }) => violation <= 0).slice(0, 8)
  if (doubtful.length > 0)
    await confirm(
      decision,
      await propertyAttack.deepen(
        doubtful.map(({ target, x }) => ({ ...target, start: x })),
        until,
      ),
    )
  const best = [...results].sort((p, q) => p.violation - q.violation).slice(0, 64)
  const corners = best.map(({ target, x }) => ({ ...target, start: corner(target.box, x) }))
  await confirm(decision, await propertyAttack.look(corners, until))
}

const counted = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`

const targetsOf = (goals: readonly Goal[]) =>
  goals.flatMap((goal) => goal.conjunctions.map((_, conjunction) => ({ goal, conjunction, box: goal.box })))

/** Every conjunction attacked from many starts: those of many random points that come nearest to a violation. */
const attackAll = async (decision: Decision): Promise<void> => {
  const { prepared, budget, goals, note, say } = decision
  const { restarts, seed } = prepared.options
  if (restarts === 0) return
  const all = targetsOf(goals)
  const until = Math.max(budget.seconds(), FIRST_SHARE * (budget.seconds() + budget.left()))
  const done = () => budget.seconds() > until
  const shown = (open: number) => note({ phase: 'attack', at: 0, open, lower: Number.NEGATIVE_INFINITY })
  const size = goals[0]?.box.lower.length ?? 1
  const looks = Math.max(1, Math.min(1024, Math.floor(LOOKS / all.length), Math.floor(LOOK_NUMBERS / size)))
  const each = Math.max(1, Math.min(restarts, Math.floor((4 * LOOKS) / all.length)))
  say(`attack: ${counted(all.length, 'conjunction')}, ${each} of ${Math.max(looks, each)} points each ascended`)
  // A few conjunctions at a time, so that what is found early ends it early.
  const group = Math.max(1, Math.floor(64 / each))
  for (let from = 0; from < all.length; from += group) {
    if (from > 0 && done()) return
    await shown(all.length - from)
    const some = all.slice(from, from + group)
    const starts: AttackTarget[] = []
    for (const [i, target] of some.entries()) {
      const key = fold(keyOf(seed), from + i)
      const centre = { ...target, start: middle(target.box) }
      const points = scattered(target.box, key, Math.max(looks, each - 1)).map((start) => ({ ...target, start }))
      if (looks <= each) {
        starts.push(centre, ...points.slice(0, each - 1))
        continue
      }
      const seen = await prepared.propertyAttack.look(
        [centre, ...points],
        budget.seconds() + LOOK_SHARE * budget.left(),
      )
      await confirm(decision, seen)
      // Half of the starts are the best of those seen, half random: the best may lie in one hollow.
      const best = [...seen].sort((p, q) => p.violation - q.violation).slice(0, each >> 1)
      starts.push(centre, ...best.map(({ target }) => target), ...points.slice(0, each - 1 - best.length))
    }
    await attack(decision, starts, until)
  }
}

// ---- branch and bound ------------------------------------------------------------------------------------------------

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
interface Brancher<P extends Subproblem> {
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
interface Searcher {
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

/** Every so many batches are of the parts nearest to a counterexample. */
const NEAR = 4

/**
 * Best-first branch and bound (arXiv:1711.00455) of all goals in one queue: the parts of the least bounds are split, a batch of halves is bounded at once, and a part
 * above 0 is done. When the queue is nearly full, parts of large bounds go first: they need the fewest splits.
 */
const searcher = <P extends Subproblem>(decision: Decision, brancher: Brancher<P>): Searcher => {
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

/** Branch and bound over the inputs. */
const overInputs = ({ prepared }: Decision): Brancher<Cell> => {
  const trees: SearchTree[] = []
  return {
    name: 'inputs',
    pool: prepared.inputs,
    roots: async (goal) => ({
      parts: [{ ...rootCell(goal), ...planted(prepared, trees, goal.at) }],
      proved: Number.POSITIVE_INFINITY,
    }),
    bytes: ({ goal, box }) => 16 * box.lower.length + 16 * goal.conjunctions.length + 300,
    split: (cell) => {
      const halves = splitCell(cell)
      return grown(cell, halves, () => halvedAt(cell.box, halves[0].box))
    },
    clipped: ({ shrunk }) => shrunk,
    refuted: ({ weights }) => ({ weights }),
    trees,
  }
}

/** The root of a new tree, where trees are kept. */
const planted = ({ options }: Prepared, trees: SearchTree[], at: number, conjunction?: number): Placed => {
  if (!options.trace) return {}
  const root = {}
  trees.push({ at, root, ...(conjunction === undefined ? {} : { conjunction }) })
  return { node: root }
}

/** CROWN of the whole box, alpha-CROWN of the rows that it leaves open, and branch and bound over ReLUs for the conjunctions that are still. */
const overRelus = (decision: Decision): Brancher<Branch> => {
  const { prepared, note, count, say } = decision
  const trees: SearchTree[] = []
  const roots = async (goal: Goal) => {
    const { conjunctions } = goal
    await note({ phase: 'bounds', at: goal.at, open: conjunctions.length, lower: Number.NEGATIVE_INFINITY })
    const rowsOf = (which: readonly number[]) => which.flatMap((g) => conjunctions[g].rows.map((_, k) => ({ g, k })))
    const wanted = (rows: ReturnType<typeof rowsOf>) => ({
      spec: rows.map(({ g, k }) => conjunctions[g].rows[k]),
      bound: rows.map(({ g, k }) => conjunctions[g].bounds[k]),
    })
    const margins = new Float64Array(conjunctions.length).fill(Number.NEGATIVE_INFINITY)
    const judged = (rows: ReturnType<typeof rowsOf>, lower: ArrayLike<number>) =>
      rows.forEach(({ g, k }, r) => {
        const e = lower[r] - conjunctions[g].tolerance[k]
        if (e > margins[g] && e < Number.POSITIVE_INFINITY) margins[g] = e
      })
    const all = rowsOf(conjunctions.map((_, g) => g))
    let found = await prepared.root.crown(goal.box, wanted(all))
    count(1)
    judged(all, found.lower)
    let rows = all
    let open = conjunctions.map((_, g) => g).filter((g) => !(margins[g] > 0))
    say(`CROWN of the whole box: ${open.length} of ${counted(conjunctions.length, 'conjunction')} open`)
    if (open.length > 0) {
      const some = rowsOf(open)
      const raised = await prepared.root.alpha(
        goal.box,
        wanted(some),
        {
          ...found,
          lower: Float32Array.from(some, ({ g, k }) => found.lower[all.findIndex((r) => r.g === g && r.k === k)]),
        },
        (lower) => {
          judged(some, lower)
          return some.map(({ g }) => margins[g] > 0)
        },
      )
      if (raised !== undefined) {
        ;[found, rows] = [raised, some]
        judged(rows, found.lower)
      }
      open = open.filter((g) => !(margins[g] > 0))
      say(raised === undefined ? 'alpha-CROWN left out: time or memory' : `alpha-CROWN: ${open.length} open`)
    }
    const proved = Math.min(Number.POSITIVE_INFINITY, ...margins.filter((m) => m > 0))
    for (const g of conjunctions.keys()) {
      const { node } = open.includes(g) ? { node: undefined } : planted(prepared, trees, goal.at, g)
      if (node === undefined) continue
      const own = rows.map((r, i) => ({ ...r, i })).filter((r) => r.g === g)
      const best = own.reduce((a, b) => (found.lower[b.i] > found.lower[a.i] ? b : a), own[0])
      node.refuted = best === undefined ? {} : { slopes: joined(found.slopes(best.i)) }
    }
    if (open.length === 0) return { parts: [], proved }
    const brancher = await prepared.relus.pick(1)
    const parts = open.map((g) => {
      const own = rows.map((r, i) => ({ ...r, i })).filter((r) => r.g === g)
      const best = own.reduce((a, b) => (found.lower[b.i] > found.lower[a.i] ? b : a))
      // Weights begin with half on the best row.
      const weights = Float64Array.from(own, (r) => 0.5 / own.length + (r === best ? 0.5 : 0))
      const root = brancher.root(goal, g, found.hidden, found.slopes(best.i), weights)
      return { ...root, lower: margins[g], ...planted(prepared, trees, goal.at, g) }
    })
    return { parts, proved }
  }
  return {
    name: 'relus',
    pool: prepared.relus,
    roots,
    bytes: branchBytes,
    split: (branch) => {
      const parts = splitBranch(branch)
      if (parts.length === 1) return parts
      const [neuron] = branch.next
      // The search takes the half below 0 first.
      const halves = neuron === undefined ? parts : [parts[1], parts[0]]
      return grown(branch, halves, () =>
        neuron === undefined ? halvedAt(branch.box, parts[0].box) : { kind: 'relu', neuron },
      )
    },
    clipped: () => false,
    refuted: ({ splits, betas, weights, conjunction, goal, alphas }) => ({
      slopes: Float32Array.from(alphas, (a) => a / 255),
      signs: splits.map((s, k) => [s >> 1, betas[k]] as const),
      weights: goal.conjunctions.map((c, g) => (g === conjunction ? weights : new Float64Array(c.rows.length))),
    }),
    trees,
  }
}

const joined = (parts: readonly Float32Array[]): Float32Array => Float32Array.from(parts.flatMap((p) => [...p]))

/** Free inputs up to which inputs are split, and from which ReLUs; in between both, by turns. */
const [FEW_INPUTS, MANY_INPUTS] = [20, 128]

/** Which kinds of split are tried: the first begins. */
const kinds = ({ prepared, goals }: Decision): readonly ('inputs' | 'relus')[] => {
  const { split } = prepared.options
  if (!hasRelus(prepared.subject)) return ['inputs']
  if (split !== 'auto') return [split]
  const free = Math.max(0, ...goals.map(({ box }) => freeInputs(box)))
  return free <= FEW_INPUTS ? ['inputs'] : free <= MANY_INPUTS ? ['relus', 'inputs'] : ['relus']
}

/** How much work the first kind of split does before the second begins, multiply-adds. */
const HEAD_START = 5e9

/** What was proved: the least bound of what was closed, and the trees of it. */
type Proved = Pick<Verification, 'lower' | 'trees'>

/** Searches, by turns where there are several, each with as much work as the others. Throws any end but a proof. */
const searched = async (decision: Decision): Promise<Proved> => {
  const { budget, note, goals, prepared, say } = decision
  if (prepared.options.rounding !== 'none') for (const { of } of goals) requireFloat32(of)
  const searchers = kinds(decision).map((kind) =>
    kind === 'inputs' ? searcher(decision, overInputs(decision)) : searcher(decision, overRelus(decision)),
  )
  const free = Math.max(0, ...goals.map(({ box }) => freeInputs(box)))
  say(`branch and bound: splits of ${searchers.map((s) => s.name).join(' and of ')}, ${counted(free, 'free input')}`)
  const lower = () => Math.max(...searchers.map((s) => s.lower()))
  const stuck = new Set<Searcher>()
  for (;;) {
    if (budget.late()) throw new Ended('timeout', lower())
    const costs = (s: Searcher, i: number) => s.spent() + i * HEAD_START
    const running = searchers.filter((s) => !stuck.has(s))
    const turn = running.reduce((a, b) => (costs(b, searchers.indexOf(b)) < costs(a, searchers.indexOf(a)) ? b : a))
    if (Number.isFinite(turn.lower())) await note({ phase: 'search', at: turn.at(), open: turn.open(), lower: lower() })
    let state: 'open' | 'proved' | 'stuck'
    try {
      state = await turn.step()
    } catch (e) {
      if (e instanceof OutOfTime) throw new Ended('timeout', lower(), undefined, e.message)
      if (!another(e) || running.length === 1) throw e
      // The other kind of split may do.
      state = 'stuck'
    }
    if (state === 'proved') return { lower: turn.proved(), trees: prepared.options.trace ? turn.trees : undefined }
    if (state === 'stuck') stuck.add(turn)
    if (stuck.size === searchers.length)
      throw new Ended('unknown', lower(), undefined, 'a part is undecided whose inputs have no float32 between them')
  }
}

// ---- the property ----------------------------------------------------------------------------------------------------

const checked = ({ input: shape, outputs }: Subject, extent: PropertyExtent, property: UnsafeProperty): void => {
  if (property.inputs !== S.size(shape))
    raise(usage(`the property is about ${property.inputs} inputs, but the network takes ${S.show(shape)}`))
  if (property.outputs !== outputs)
    raise(usage(`the property is about ${property.outputs} outputs, but the network has ${outputs}`))
  const { constraints, conjunctions } = extentOf(property)
  if (constraints > extent.constraints || conjunctions > extent.conjunctions)
    raise(
      usage(
        `the property has conjunctions of up to ${constraints} constraints, ${conjunctions} in a case; plans were made for ${extent.constraints} and ${extent.conjunctions}`,
      ),
    )
}

export const extentOf = ({ cases }: UnsafeProperty): PropertyExtent => ({
  constraints: Math.max(1, ...cases.flatMap(({ unsafe }) => unsafe.map((u) => u.length))),
  conjunctions: Math.max(1, ...cases.map(({ unsafe }) => unsafe.length)),
})

/** What a refusal says, and whether bounds that round to nearest would go on. */
const reasonOf = ({ prepared }: Decision, e: MixtrainException): string => {
  const { subject, options } = prepared
  if (e.error.kind !== 'unsupported') return show(e.error)
  const { instead, ...rest } = e.error
  const own = show(rest)
  return options.rounding !== 'none' && !refusedBy(subject, 'none')
    ? `${own}; bounds that round to nearest (--rounding none) may decide it, without a proof`
    : own
}

/** The goals of all cases: what is near 0 depends on the outputs at the centres of their boxes. */
const goalsFor = async (
  { options, propertyAttack }: Prepared,
  { cases }: UnsafeProperty,
  { constraints, conjunctions }: PropertyExtent,
): Promise<readonly Goal[]> => {
  const centres = await propertyAttack.outputs(
    cases.map((c) => Float32Array.from(c.lower, (l, i) => 0.5 * (l + c.upper[i]))),
  )
  const extent = goalExtent(constraints, conjunctions)
  return cases.flatMap((c, at) => goalsOf(c, at, extent, centres[at], options.rounding))
}

/** Attacks, then searches. Throws an end other than unsat. */
const decided = async (start: Decision, property: UnsafeProperty, extent: PropertyExtent): Promise<Proved> => {
  try {
    const decision = { ...start, goals: await goalsFor(start.prepared, property, extent) }
    try {
      await attackAll(decision)
    } catch (e) {
      // What cannot be attacked may be bounded yet.
      if (!another(e) && !(e instanceof OutOfTime)) throw e
    }
    return await searched(decision)
  } catch (e) {
    if (e instanceof OutOfTime) throw new Ended('timeout', Number.NEGATIVE_INFINITY, undefined, e.message)
    if (another(e)) throw new Ended('unknown', Number.NEGATIVE_INFINITY, undefined, reasonOf(start, e))
    throw e
  }
}

/** Decides properties of one network, by plans that are made once. */
export interface Decider {
  readonly decide: (property: UnsafeProperty, patience?: Patience) => Promise<Verification>
  /** Frees what the device holds. */
  readonly close: () => void
}

const prepare = async (
  region: Region,
  budget: Budget,
  subject: Subject,
  { constraints, conjunctions }: PropertyExtent,
  options: Required<DecisionOptions>,
): Promise<Prepared> => {
  const { rounding, batchSize } = options
  const extent = goalExtent(constraints, conjunctions)
  const width = region.backend.dtype === 'f32' ? 4 : 8
  let way: ReturnType<typeof inputWays>[number] | undefined
  return {
    subject,
    options,
    propertyAttack: propertyAttack(region, budget, subject, constraints),
    root: rootOf(region, budget, subject, rounding),
    inputs: pool(budget, batchSize, (batch) =>
      firstOf(way === undefined ? inputWays(budget.memory, width) : [way], async (w, isLast) => {
        const made = await inputBrancher(region, budget)(subject, { extent, rounding, clips: !options.trace }, w, batch)
        // A way of which one box takes all the time is none, unless there is no other.
        if (batch === 1 && !isLast && made.seconds() > 0.25 * budget.left()) throw new OutOfTime('bounding one box')
        way = w
        return made
      }),
    ),
    relus: pool(budget, batchSize, (batch) => reluBrancher(region, budget)(subject, { batch, rounding, ...BRANCH })),
    pointCheck: pointCheckOf(region, budget, subject, rounding),
  }
}

/** Bytes that a WebAssembly memory has at most, less what the machine itself takes. */
export const ADDRESSABLE = 65535 * 65536 - 2 ** 24

/**
 * Decides properties of a network: attack first, then branch and bound. A case is a box and a disjunction of unsafe conjunctions; it
 * holds iff for every conjunction and every part of the box some constraint c . y <= b is refuted by a bound c . y - b > 0, or a mean of some by a bound of the mean.
 *
 * - Up to 20 free inputs are bisected (ReluVal, arXiv:1804.10829) and bounded by CROWN with intersected hidden boxes, all rows of a box at once; the linear bounds of constraints clip
 *   the box to where a conjunction may hold yet (arXiv:2512.11087), unless the trees are kept for a proof.
 * - Otherwise the box is bounded by CROWN, then, for rows that leaves open, by alpha-CROWN (arXiv:2011.13824) with all hidden slopes optimized, and split at ReLUs with
 *   beta-CROWN (arXiv:2103.06624); neurons are chosen by the intercepts of their relaxations, the first few by trial (arXiv:2104.06718). Up to 128 free inputs both kinds of
 *   split are tried by turns.
 * - All cases share one queue. Plans are made for 1, 8, 64 subproblems as there are so many. What does not fit the memory is bounded in parts, then by CROWN-IBP, then by intervals.
 *
 * `sat` comes with a point that lies in the box and satisfies the constraints, as they were meant and in the arithmetic that `rounding` names (verify/counterexample-check.ts).
 * `unsat` means that every part of the box was closed by a bound that rounds outward, optimized slopes and multipliers included, since any of them are sound: a
 * theorem about what `rounding` names (core/rounding.ts). With `rounding: 'none'` bounds round to nearest and count above `SAFETY`, which is no proof. A
 * bound that is NaN or infinite never counts. What is neither is `unknown` or, where the time left does not suffice for what comes next, `timeout`; a network whose bounds are
 * refused is attacked all the same, and then `unknown` with the reason.
 * @throws usage errors where property and network do not fit; unsupported errors where the network cannot be run; device errors.
 *
 * @example
 *   const decide = decider(subject, extent)
 */
export const decider =
  (subject: Subject, extent: PropertyExtent, given: DecisionOptions = {}) =>
  async (backend: Backend): Promise<Decider> => {
    const options = { ...DEFAULTS, ...given }
    const { rounding } = options
    requireIeee(backend.name, rounding)
    const { region, close } = openRegion(backend)
    const budget = budgetOf(region, backend.name === 'wasm' ? Math.min(options.memory, ADDRESSABLE) : options.memory)
    const prepared = await prepare(region, budget, subject, extent, options)
    return {
      decide: async (property, { timeout = TIMEOUT, progress = () => undefined, said = () => undefined } = {}) => {
        checked(subject, extent, property)
        let bounded = 0
        let last: Parameters<Decision['note']>[0] = { phase: 'attack', at: 0, open: 0, lower: Number.NEGATIVE_INFINITY }
        const shown = async () => progress({ ...last, bounded, seconds: budget.seconds() })
        budget.start(timeout, shown)
        const end = await (async () => {
          try {
            const note: Decision['note'] = (p) => {
              last = p
              return shown()
            }
            const count = (n: number) => {
              bounded += n
            }
            return await decided({ prepared, budget, goals: [], note, count, say: said }, property, extent)
          } catch (e) {
            if (e instanceof Ended) return e
            throw e
          }
        })()
        const common = { bounded, seconds: budget.seconds() }
        const doubt = await prepared.pointCheck.doubt()
        return end instanceof Ended
          ? {
              verdict: end.verdict,
              counterexample: end.counterexample,
              lower: end.lower,
              reason:
                end.verdict === 'sat'
                  ? undefined
                  : [doubt, end.reason].filter((r) => r !== undefined).join('; ') || undefined,
              ...common,
            }
          : { verdict: 'unsat', counterexample: undefined, reason: undefined, ...end, ...common }
      },
      close: () => {
        prepared.pointCheck.close()
        close()
      },
    }
  }

/**
 * Decides one property of a network, as `decider` does.
 *
 * @example
 *   const { verdict } = await verifyProperty({ network: classify, input, outputs, property })(await device())
 */
export const verifyProperty =
  ({ network, input, outputs, property, timeout, progress, said, ...options }: PropertyOptions) =>
  async (backend: Backend): Promise<Verification> => {
    const { decide, close } = await decider({ network, input, outputs }, extentOf(property), options)(backend)
    try {
      return await decide(property, { timeout, progress, said })
    } finally {
      close()
    }
  }
