import type { Backend } from '../compile/backend.ts'
import { openRegion, type Region } from '../compile/region.ts'
import { type MixtrainException, raise, show, usage } from '../core/error.ts'
import { counted } from '../core/number.ts'
import { type Rounding, requireIeee } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import { type Budget, budgetOf, OutOfTime } from '../robust/budget.ts'
import type { Subject, UnsafeProperty } from './counterexample.ts'
import {
  type Decision,
  type DecisionOptions,
  Ended,
  type Patience,
  type Prepared,
  type PropertyExtent,
  type PropertyOptions,
  type Settings,
  type Verification,
} from './decision.ts'
import { attackAll, attackByEvolution, settle } from './decision-attack.ts'
import { type Goal, goalExtent, goalsOf, requireFloat32, SAFETY } from './goals.ts'
import { freeInputs, inputBrancher, inputWays } from './input-splits.ts'
import { overInputs } from './over-inputs.ts'
import { overRelus } from './over-relus.ts'
import { pool } from './plan-pool.ts'
import { pointCheckOf } from './point-check.ts'
import { propertyAttack } from './property-attack.ts'
import { hasRelus, isPiecewise } from './relu-graphs.ts'
import { reluBrancher } from './relu-splits.ts'
import { rootOf } from './root.ts'
import { another, firstOf, refusedBy } from './root-bounds.ts'
import { type Searcher, searcher } from './searcher.ts'

export type {
  DecisionOptions,
  Patience,
  Progress,
  PropertyExtent,
  PropertyOptions,
  Verdict,
  Verification,
} from './decision.ts'
export { SAFETY }

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
} satisfies Omit<Settings, 'replay'>
/**
 * Steps of ascent on a branch, where ReLUs alone bend the network and where other relaxations stay, and candidates that are tried. Measured on oval21, vit and
 * MNIST (docs/benchmarks.md): with ReLUs alone 16 steps cost more and save hardly a branch, 6 leave images open; fewer than 4 candidates need two to three times as many branches.
 */
const BRANCH = { piecewise: 10, steps: 16, lr: 0.2, candidates: 4 }

/** Free inputs up to which inputs are split, and from which ReLUs; in between both, by turns, up to so many inputs first (measured on safenlp, docs/benchmarks.md). */
const [FEW_INPUTS, INPUTS_FIRST, MANY_INPUTS] = [20, 32, 128]

/** Which kinds of split are tried: the first begins. */
const kinds = ({ prepared, goals }: Decision): readonly ('inputs' | 'relus')[] => {
  const { split } = prepared.options
  if (!hasRelus(prepared.subject)) return ['inputs']
  if (split !== 'auto') return [split]
  const free = Math.max(0, ...goals.map(({ box }) => freeInputs(box)))
  if (free <= FEW_INPUTS) return ['inputs']
  return free <= INPUTS_FIRST ? ['inputs', 'relus'] : free <= MANY_INPUTS ? ['relus', 'inputs'] : ['relus']
}

/** How much work the first kind of split does before the second begins, multiply-adds. */
const HEAD_START = 5e9

/** The batch after which points evolve for the first time, and the share of the search's time that this may take before it is done again. */
const EVOLUTION = { first: 4, share: 0.1 }

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
  const begun = budget.seconds()
  let [turns, evolving] = [0, 0]
  /** Attacks again and again, ever more seldom, while the search goes on. */
  const evolved = async (): Promise<void> => {
    const now = budget.seconds()
    if (++turns < EVOLUTION.first || !Number.isInteger(Math.log2(turns)) || free > FEW_INPUTS) return
    if (evolving > EVOLUTION.share * (now - begun)) return
    await attackByEvolution(decision, turns)
    evolving += budget.seconds() - now
  }
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
    await settle(prepared)
    await evolved()
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

const extentOf = ({ cases }: UnsafeProperty): PropertyExtent => ({
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
  options: Settings,
): Promise<Prepared> => {
  const { rounding, batchSize } = options
  const extent = goalExtent(constraints, conjunctions)
  const width = region.backend.dtype === 'f32' ? 4 : 8
  let way: ReturnType<typeof inputWays>[number] | undefined
  return {
    subject,
    options,
    propertyAttack: propertyAttack(region, budget, subject, constraints),
    root: rootOf(region, budget, subject, rounding, options.trace),
    inputs: pool(budget, batchSize, (batch) =>
      firstOf(way === undefined ? inputWays(subject, budget.memory, width) : [way], async (w, isLast) => {
        const made = await inputBrancher(budget)(subject, { extent, rounding, clips: !options.trace }, w, batch)
        // A way of which one box takes all the time is none, unless there is no other.
        if (batch === 1 && !isLast && made.seconds() > 0.25 * budget.left()) throw new OutOfTime('bounding one box')
        way = w
        return made
      }),
    ),
    relus: pool(budget, batchSize, (batch) => {
      const { piecewise, steps, ...rest } = BRANCH
      return reluBrancher(region, budget)(subject, {
        ...rest,
        batch,
        rounding,
        steps: isPiecewise(subject) ? piecewise : steps,
        trace: options.trace,
      })
    }),
    pointCheck: pointCheckOf(region, budget, subject, options),
  }
}

/**
 * What a search came to. A counterexample that no replay confirmed is still one: it is answered unless only what was replayed counts, and then nothing is.
 */
const concluded = async (
  pointCheck: Prepared['pointCheck'],
  end: Ended | Proved,
  required: boolean,
): Promise<Omit<Verification, 'bounded' | 'seconds'>> => {
  const unconfirmed = await pointCheck.unconfirmed()
  const doubt = await pointCheck.doubt()
  if (end instanceof Ended && end.verdict === 'sat')
    return {
      verdict: 'sat',
      counterexample: end.counterexample,
      lower: end.lower,
      reason: end.counterexample?.replayed?.reason,
    }
  if (unconfirmed !== undefined && !required)
    return {
      verdict: 'sat',
      counterexample: unconfirmed,
      lower: Number.NEGATIVE_INFINITY,
      reason: unconfirmed.replayed?.reason,
    }
  const open =
    unconfirmed && `a counterexample was found that its replay does not confirm: ${unconfirmed.replayed?.reason}`
  if (end instanceof Ended || open !== undefined) {
    const { verdict, lower, reason } =
      end instanceof Ended ? end : { ...end, verdict: 'unknown' as const, reason: undefined }
    const reasons = [open, doubt, reason].filter((r) => r !== undefined)
    return { verdict, counterexample: undefined, lower, reason: reasons.join('; ') || undefined }
  }
  return { verdict: 'unsat', counterexample: undefined, reason: undefined, ...end }
}

/** Bytes that a WebAssembly memory has at most, less what the machine itself takes. */
export const ADDRESSABLE = 65535 * 65536 - 2 ** 24

/**
 * Decides properties of a network: attack first, then branch and bound. A case is a box and a disjunction of unsafe conjunctions; it
 * holds iff for every conjunction and every part of the box some constraint c . y <= b is refuted by a bound c . y - b > 0, or a mean of some by a bound of the mean.
 *
 * - Up to 20 free inputs are bisected (ReluVal, arXiv:1804.10829) and bounded by CROWN with intersected hidden boxes, all rows of a box at once; the linear bounds of constraints clip
 *   the box to where a conjunction may hold yet (arXiv:2512.11087), unless the trees are kept for a proof.
 * - Otherwise the box is bounded by CROWN, then, for rows that leaves open, with the slopes of the last walk optimized, then by alpha-CROWN (arXiv:2011.13824) with all
 *   slopes, hidden ones too, and split at ReLUs with beta-CROWN (arXiv:2103.06624); neurons are chosen by the intercepts of their relaxations, the first few by trial (arXiv:2104.06718). Up to 128 free inputs both kinds of
 *   split are tried by turns, up to 32 inputs first.
 * - All cases share one queue. Plans are made for 1, 8, 64 subproblems as there are so many. What does not fit the memory is bounded by CROWN in parts, by CROWN-IBP or by intervals.
 *
 * `sat` comes with a point that lies in the box and satisfies the constraints, as they were meant and in the arithmetic that `rounding` names (verify/counterexample-check.ts).
 * With a `replay`, points that it confirms, too, are preferred, and are the only ones where it is required.
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
        return {
          ...(await concluded(prepared.pointCheck, end, options.replay?.required ?? false)),
          bounded,
          seconds: budget.seconds(),
        }
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
