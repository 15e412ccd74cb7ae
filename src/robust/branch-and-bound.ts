import type { Backend } from '../backend/backend.ts'
import { openRegion } from '../backend/region.ts'
import { raise, usage } from '../core/error.ts'
import { fold, key as keyOf } from '../core/key.ts'
import { type Rounding, requireIeee, roundDown, roundUp } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import {
  type Attacker,
  attacker,
  type Subject,
  starts,
  type UnsafeCase,
  type UnsafeProperty,
} from './counterexample.ts'
import { inputBrancher, inputBytes } from './input-splits.ts'
import { type Counterexample, type Judge, judge } from './judge.ts'
import { queue } from './queue.ts'
import { excess, hasRelus, reluBrancher, reluBytes } from './relu-splits.ts'
import { type Root, rootOf } from './root-bounds.ts'

/**
 * How far above 0 a bound that rounds to nearest must be to count, as a share of |bound| + sum |c_i y_i| at the centre of the box: a margin
 * against errors, not a proof that they are smaller. Bounds that round outward need none.
 */
export const SAFETY = 1e-5

/** How a property came out. `unsat`: it holds. `sat`: it has a counterexample. */
export type Verdict = 'unsat' | 'sat' | 'unknown' | 'timeout'

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
  /** Scratch bytes of one run, and bytes of the queue. */
  readonly memory?: number
  /** Subproblems at once, fewer where the memory is too small. */
  readonly batchSize?: number
  /** `auto`: inputs up to 20 of them, ReLUs otherwise. A network without ReLUs is always split at its inputs. */
  readonly split?: 'auto' | 'relus' | 'inputs'
  /** Runs of the first attack for each conjunction. 0: no attack. */
  readonly restarts?: number
  readonly seed?: number
}

/** How long one decision may take, and who hears of it. */
export interface Patience {
  /** Seconds. Looked at between runs of the device. Default: 300. */
  readonly timeout?: number | undefined
  readonly progress?: ((p: Progress) => void | Promise<void>) | undefined
}

/** The most that properties may have, for which plans are made: constraints in a conjunction, conjunctions in a case. */
export interface Extent {
  readonly constraints: number
  readonly conjunctions: number
}

export interface PropertyOptions extends Subject, DecisionOptions, Patience {
  readonly property: UnsafeProperty
}

export interface Verification {
  readonly verdict: Verdict
  readonly counterexample: Counterexample | undefined
  /**
   * Lower bound, over the inputs of all cases, of how far each is from a counterexample: the largest excess of a constraint, less the safety
   * margin of bounds that round to nearest. Above 0 iff the verdict is unsat; -infinity while a case was not looked at.
   */
  readonly lower: number
  /** Subproblems bounded. */
  readonly bounded: number
  readonly seconds: number
  /** Why a verdict is unknown. */
  readonly reason: string | undefined
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
} satisfies DecisionOptions
/** Inputs up to which `auto` splits inputs. */
const FEW_INPUTS = 20
/** Rows bounded at once at the root. */
const ROOT_ROWS = 128
const BRANCH = { steps: 16, lr: 0.2, candidates: 4 }
/** `runs`: the most of the first attack on a case; `share`: of the time-out, after which no other case is attacked first. */
const ATTACK = { images: 32, steps: 20, runs: 100, share: 0.25 }
/** Share of the time that attacks may take while branching. */
const ATTACK_SHARE = 0.15

/** An end of the search, thrown through the loops below. */
class Ended {
  constructor(
    readonly verdict: Exclude<Verdict, 'unsat'>,
    readonly lower: number,
    readonly counterexample?: Counterexample,
    readonly reason?: string,
  ) {}
}

/** What all cases of a property share: the bench, and the clock of this property. */
interface Session extends Bench {
  readonly timeout: number
  readonly seconds: () => number
  readonly late: () => boolean
  readonly note: (p: Omit<Progress, 'seconds' | 'bounded'>) => Promise<void>
  readonly count: (bounded: number) => void
}

/** What all properties of a network share: the device, and plans made once. */
interface Bench {
  readonly subject: Subject
  readonly options: Required<DecisionOptions>
  /** Constraints of the largest conjunction. */
  readonly rows: number
  readonly attack: () => Promise<Attacker>
  readonly root: () => Promise<Root>
  readonly relus: () => Promise<Awaited<ReturnType<ReturnType<typeof reluBrancher>>> & { readonly batch: number }>
  readonly inputs: () => Promise<Awaited<ReturnType<ReturnType<typeof inputBrancher>>> & { readonly batch: number }>
  readonly check: Judge['check']
  readonly doubt: Judge['doubt']
  readonly outputs: (x: Float64Array) => Promise<Float64Array>
}

const lazily = <A>(make: () => Promise<A>): (() => Promise<A>) => {
  let made: Promise<A> | undefined
  return () => {
    made ??= make()
    return made
  }
}

// ---- one case --------------------------------------------------------------------------------------------------------

/** A case as float32 arguments: its box rounded outward, its conjunctions filled up to `rows` constraints each. */
const groundOf = async (session: Session, c: UnsafeCase) => {
  const { rows, subject, options } = session
  if (options.rounding !== 'none') requireFloat32(c)
  const box = {
    lower: Float32Array.from(c.outward.lower, roundDown),
    upper: Float32Array.from(c.outward.upper, roundUp),
  }
  const centre = await session.outputs(Float64Array.from(c.lower, (l, i) => 0.5 * (l + c.upper[i])))
  const repeated = c.unsafe.map((conjunction) =>
    Array.from({ length: rows }, (_, k) => conjunction[k % conjunction.length]),
  )
  const near = repeated.map((all) =>
    Float32Array.from(
      all,
      ({ coefficients, bound }) =>
        SAFETY * coefficients.reduce((n, a, i) => n + Math.abs(a * centre[i]), Math.abs(bound)),
    ),
  )
  return {
    box,
    spec: repeated.map((all) => {
      const out = new Float32Array(rows * subject.outputs)
      all.forEach(({ coefficients }, k) => {
        out.set(coefficients, k * subject.outputs)
      })
      return out
    }),
    bound: repeated.map((all) => Float32Array.from(all, ({ outward }) => roundUp(outward))),
    tolerance: options.rounding === 'none' ? near : repeated.map(() => new Float32Array(rows)),
    near,
  }
}

/** Rows of the bounds are float32 numbers: other coefficients would make another property. */
const requireFloat32 = ({ unsafe }: UnsafeCase): void => {
  const wrong = unsafe.flat().flatMap(({ coefficients }) => [...coefficients].filter((a) => Math.fround(a) !== a))[0]
  if (wrong !== undefined)
    raise({
      kind: 'unsupported',
      what: `outward rounding of a constraint with the coefficient ${wrong}`,
      reason: 'float32 does not hold it',
    })
}

type Prepared = Awaited<ReturnType<typeof groundOf>>

/** Conjunctions attacked from many starts. Throws a checked counterexample. */
const attackAll = async (session: Session, c: UnsafeCase, ground: Prepared, at: number): Promise<void> => {
  const { restarts, seed } = session.options
  if (restarts === 0) return
  const attack = await session.attack()
  const { images } = attack
  const jobs = Math.min(c.unsafe.length * restarts, ATTACK.runs * images)
  for (let from = 0; from < jobs && !session.late(); from += images) {
    await session.note({ phase: 'attack', at, open: jobs - from, lower: Number.NEGATIVE_INFINITY })
    const conjunction = (i: number) => (from + i) % c.unsafe.length
    const restart = (i: number) => Math.floor((from + i) / c.unsafe.length)
    const start = starts(fold(fold(keyOf(seed), at), from), restart, images, ground.box.lower.length)
    await attackAt(
      session,
      c,
      ground,
      Array.from({ length: images }, (_, i) => ({ conjunction: conjunction(i), box: ground.box })),
      start,
    )
  }
}

interface Aim {
  readonly conjunction: number
  readonly box: { readonly lower: Float32Array; readonly upper: Float32Array }
}

/** One run of the attack; each point that looks like a counterexample is judged in doubles. Throws the first that is one. */
const attackAt = async (
  session: Session,
  c: UnsafeCase,
  { spec, bound, near: close }: Prepared,
  aims: readonly Aim[],
  start: Float32Array,
): Promise<void> => {
  const attack = await session.attack()
  const { images, rows } = attack
  const size = S.size(session.subject.input)
  const aim = (i: number) => aims[i % aims.length]
  const fill = (f: (a: Aim, j: number) => number) => {
    const out = new Float32Array(images * size)
    for (let i = 0; i < images; i++) for (let j = 0; j < size; j++) out[i * size + j] = f(aim(i), j)
    return out
  }
  const specs = new Float32Array(rows * images * session.subject.outputs)
  const bounds = new Float32Array(rows * images)
  const width = session.subject.outputs
  for (let k = 0; k < rows; k++)
    for (let i = 0; i < images; i++) {
      specs.set(spec[aim(i).conjunction].subarray(k * width, (k + 1) * width), (k * images + i) * width)
      bounds[k * images + i] = bound[aim(i).conjunction][k]
    }
  const found = await attack.run(
    {
      centre: fill(({ box }, j) => 0.5 * (box.lower[j] + box.upper[j])),
      radius: fill(({ box }, j) => 0.5 * (box.upper[j] - box.lower[j])),
    },
    { spec: specs, bound: bounds },
    start,
  )
  const near = Array.from({ length: Math.min(images, aims.length) }, (_, i) => i)
    .filter((i) => found.violation[i] <= Math.max(...close[aim(i).conjunction]))
    .sort((i, j) => found.violation[i] - found.violation[j])
  for (const i of near.slice(0, 8))
    await confirm(
      session,
      c,
      Array.from({ length: size }, (_, j) => found.x[i * size + j]),
    )
}

/** Throws the point if it is a counterexample. */
const confirm = async (session: Session, c: UnsafeCase, x: ArrayLike<number>): Promise<void> => {
  const found = await session.check(c, x, session.late)
  if (found !== undefined) throw new Ended('sat', Number.NEGATIVE_INFINITY, found)
}

/** A subproblem as the search sees it, whatever is split. */
interface Part {
  readonly conjunction: number
  readonly box: { readonly lower: Float32Array; readonly upper: Float32Array }
  readonly lower: number
  readonly point: Float32Array
  readonly violation: number
}

/** The point of a part that waits: it was looked at when the part was bounded. */
const FORGOTTEN = new Float32Array(0)

/** How parts of one kind are bounded and split. */
interface Brancher<P extends Part> {
  readonly batch: number
  readonly bytes: (part: P) => number
  readonly bound: (parts: readonly P[]) => Promise<readonly P[]>
  /** Smaller parts that cover the part; none where it cannot be split. */
  readonly split: (part: P, levels: number) => readonly P[]
}

/** Attacks the parts that are not proved, from the points where their bounds are least. */
const attackParts = async (
  session: Session,
  c: UnsafeCase,
  ground: Prepared,
  parts: readonly Part[],
): Promise<void> => {
  const aims = parts.filter((p) => !(p.lower > 0)).sort((p, q) => p.violation - q.violation)
  if (aims.length === 0) return
  const { images } = await session.attack()
  const chosen = aims.slice(0, images)
  const size = ground.box.lower.length
  const start = new Float32Array(images * size)
  chosen.forEach(({ box: { lower, upper }, point }, b) => {
    for (let j = 0; j < size; j++)
      if (upper[j] > lower[j])
        start[b * size + j] = Math.min(1, Math.max(-1, (2 * point[j] - lower[j] - upper[j]) / (upper[j] - lower[j])))
  })
  await attackAt(session, c, ground, chosen, start)
}

/**
 * Best-first branch and bound (arXiv:1711.00455): the parts of the least bounds are split, a batch of halves is bounded at once,
 * and a part above 0 is done. When the queue is nearly full, parts of large bounds go first: they need the fewest splits. Returns the
 * least bound of the parts that were done; throws any other end.
 */
const search = async <P extends Part>(
  session: Session,
  c: UnsafeCase,
  ground: Prepared,
  at: number,
  roots: readonly P[],
  brancher: Brancher<P>,
): Promise<number> => {
  const { memory, restarts } = session.options
  const open = queue<P>()
  let [proved, stuck] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]
  let [bytes, attacking] = [0, 0]
  const begun = performance.now()
  const lower = (parts: readonly P[] = []) => Math.min(open.least(), stuck, ...parts.map((p) => p.lower))
  const take = async (parts: readonly P[]): Promise<void> => {
    for (let i = 0; i < parts.length; i += brancher.batch) {
      if (session.late()) throw new Ended('timeout', lower(parts.slice(i)))
      const some = await brancher.bound(parts.slice(i, i + brancher.batch))
      session.count(some.length)
      for (const p of some) {
        if (p.lower > 0) {
          proved = Math.min(proved, p.lower)
          continue
        }
        if (p.violation <= Math.max(...ground.near[p.conjunction])) await confirm(session, c, p.point)
        open.push(p.lower, { ...p, point: FORGOTTEN })
        bytes += brancher.bytes(p)
      }
      const before = performance.now()
      if (restarts === 0 || attacking > ATTACK_SHARE * (before - begun)) continue
      await attackParts(session, c, ground, some)
      attacking += performance.now() - before
    }
  }
  await take(roots)
  while (open.size() > 0) {
    await session.note({ phase: 'search', at, open: open.size(), lower: lower() })
    if (bytes > memory) throw new Ended('unknown', lower(), undefined, 'the queue of subproblems is full (--memory)')
    // With few parts open, each is split several times at once, so that a batch is full.
    const levels = Math.max(1, Math.floor(Math.log2(brancher.batch / open.size())))
    const some: P[] = []
    while (open.size() > 0 && some.length < Math.max(1, brancher.batch >> levels)) {
      const p = (bytes > 0.75 * memory ? open.popEasy() : open.pop()) as P
      bytes -= brancher.bytes(p)
      some.push(p)
    }
    const halves = some.map((p) => brancher.split(p, levels))
    for (const [i, parts] of halves.entries()) if (parts.length === 0) stuck = Math.min(stuck, some[i].lower)
    await take(halves.flat())
  }
  if (stuck < Number.POSITIVE_INFINITY)
    throw new Ended('unknown', stuck, undefined, 'a part is undecided whose inputs have no float32 between them')
  return proved
}

/** Branch and bound over the inputs, for the whole case. */
const searchInputs = async (session: Session, c: UnsafeCase, ground: Prepared, at: number): Promise<number> => {
  const brancher = await session.inputs()
  const bytes = 16 * ground.box.lower.length + 200
  return search(
    session,
    c,
    ground,
    at,
    c.unsafe.map((_, i) => brancher.root(i, ground.box)),
    { ...brancher, bytes: () => bytes, bound: (cells) => brancher.bound(ground, cells) },
  )
}

/** alpha-CROWN of the whole box, a chunk of conjunctions at a time, and branch and bound over ReLUs for those not proved by it. */
const searchRelus = async (session: Session, c: UnsafeCase, ground: Prepared, at: number): Promise<number> => {
  const { rows, subject, late } = session
  const root = await session.root()
  const each = Math.floor(root.rows / rows)
  let proved = Number.POSITIVE_INFINITY
  for (let from = 0; from < c.unsafe.length; from += each) {
    const chunk = Array.from({ length: Math.min(each, c.unsafe.length - from) }, (_, i) => from + i)
    // Rows that are not needed repeat the first conjunction.
    const own = (row: number) => chunk[Math.floor(row / rows)] ?? from
    const spec = new Float32Array(root.rows * subject.outputs)
    const bound = new Float32Array(root.rows)
    const width = subject.outputs
    for (let r = 0; r < root.rows; r++) {
      spec.set(ground.spec[own(r)].subarray((r % rows) * width, ((r % rows) + 1) * width), r * width)
      bound[r] = ground.bound[own(r)][r % rows]
    }
    await session.note({ phase: 'bounds', at, open: chunk.length, lower: Number.NEGATIVE_INFINITY })
    const marginOf = (lower: Float32Array, i: number) =>
      excess(lower.subarray(i * rows, (i + 1) * rows), ground.tolerance[chunk[i]])
    const done = (lower: Float32Array) => chunk.map((_, i) => marginOf(lower, i) > 0)
    const found = await root.run(
      ground.box,
      spec,
      bound,
      (lower) => {
        const proofs = done(lower)
        return Array.from({ length: root.rows }, (_, r) => proofs[Math.floor(r / rows)] ?? true)
      },
      late,
    )
    session.count(1)
    const margins = chunk.map((_, i) => marginOf(found.lower, i))
    for (const m of margins) if (m > 0) proved = Math.min(proved, m)
    const left = chunk.filter((_, i) => !(margins[i] > 0))
    if (left.length === 0) continue
    const rest = from + each < c.unsafe.length ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
    if (late()) throw new Ended('timeout', Math.min(rest, ...margins))
    if (Math.min(...margins) === Number.NEGATIVE_INFINITY)
      throw new Ended('unknown', Number.NEGATIVE_INFINITY, undefined, 'bounds are not finite')
    const brancher = await session.relus()
    const shared = { ...ground, hidden: found.hidden }
    const roots = left.map((conjunction) => {
      const first = (conjunction - from) * rows
      const slopes = Array.from({ length: rows }, (_, k) => found.slopes(first + k))
      return { ...brancher.root(conjunction, ground.box, slopes), lower: margins[conjunction - from] }
    })
    try {
      const least = await search(session, c, ground, at, roots, {
        ...brancher,
        bytes: (b) => b.alphas.length + 4 * b.betas.length + 8 * b.splits.length + 200,
        bound: (branches) => brancher.bound(shared, branches, late),
      })
      proved = Math.min(proved, least)
    } catch (e) {
      if (!(e instanceof Ended)) throw e
      throw new Ended(e.verdict, Math.min(rest, e.lower), e.counterexample, e.reason)
    }
  }
  return proved
}

// ---- the property ----------------------------------------------------------------------------------------------------

/** The largest batch, at most `wanted` and a power of 2, whose plan fits. */
const fitting = (wanted: number, memory: number, bytes: (batch: number) => number): number => {
  for (let batch = 2 ** Math.floor(Math.log2(Math.max(2, wanted))); ; batch /= 2) {
    const needed = bytes(batch)
    if (needed <= memory) return batch
    if (batch === 2) return raise({ kind: 'memory', needed, budget: memory, what: 'bounding two subproblems' })
  }
}

const checked = ({ input: shape, outputs }: Subject, extent: Extent, property: UnsafeProperty): void => {
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

export const extentOf = ({ cases }: UnsafeProperty): Extent => ({
  constraints: Math.max(1, ...cases.flatMap(({ unsafe }) => unsafe.map((u) => u.length))),
  conjunctions: Math.max(1, ...cases.map(({ unsafe }) => unsafe.length)),
})

/** The cases one after the other; throws an end other than unsat. Returns the least bound of what was closed, or the end of a case left open. */
const decided = async (session: Session, property: UnsafeProperty): Promise<Ended | number> => {
  const { split } = session.options
  const wanted = split === 'auto' ? (property.inputs <= FEW_INPUTS ? 'inputs' : 'relus') : split
  const searched = wanted === 'inputs' || !hasRelus(session.subject) ? searchInputs : searchRelus
  const grounds: Prepared[] = []
  for (const [at, c] of property.cases.entries()) {
    const ground = await groundOf(session, c)
    grounds.push(ground)
    if (session.seconds() < ATTACK.share * session.timeout) await attackAll(session, c, ground, at)
  }
  let lower = Number.POSITIVE_INFINITY
  let undecided: Ended | undefined
  for (const [at, c] of property.cases.entries()) {
    if (session.late()) throw new Ended('timeout', Number.NEGATIVE_INFINITY)
    try {
      lower = Math.min(lower, await searched(session, c, grounds[at], at))
    } catch (e) {
      if (!(e instanceof Ended)) throw e
      // Another case may have a counterexample yet.
      lower = Math.min(lower, e.lower)
      if (e.verdict !== 'unknown') {
        const all = at === property.cases.length - 1
        throw new Ended(e.verdict, all ? lower : Number.NEGATIVE_INFINITY, e.counterexample)
      }
      undecided ??= e
    }
  }
  return undecided === undefined ? lower : new Ended('unknown', lower, undefined, undecided.reason)
}

/** Decides properties of one network, by plans that are made once. */
export interface Decider {
  readonly decide: (property: UnsafeProperty, patience?: Patience) => Promise<Verification>
  /** Frees what the device holds. */
  readonly close: () => void
}

/**
 * Decides properties of a network: attack first, then branch and bound. A case is a box and a disjunction of unsafe conjunctions; it
 * holds iff for every conjunction and every part of the box some constraint c . y <= b is refuted by a bound c . y - b > 0.
 *
 * - Up to 20 inputs are bisected (ReluVal, arXiv:1804.10829) and bounded by CROWN with intersected hidden boxes.
 * - Otherwise the box is bounded by alpha-CROWN (arXiv:2011.13824) with all hidden slopes optimised, and split at ReLUs with
 *   beta-CROWN (arXiv:2103.06624); neurons are chosen by the intercepts of their relaxations, the first few by trial (arXiv:2104.06718).
 *
 * `sat` comes with a point that lies in the box and satisfies the constraints, as they were meant and in the arithmetic that `rounding` names (robust/judge.ts).
 * `unsat` means that every part of the box was closed by a bound that rounds outward, optimised slopes and multipliers included, since any of them are sound: a
 * theorem about what `rounding` names (core/rounding.ts). With `rounding: 'none'` bounds round to nearest and count above `SAFETY`, which is no proof. A
 * bound that is NaN or infinite never counts. What is neither is `unknown` or, past the limit, `timeout`.
 * @throws usage errors where property and network do not fit; unsupported and memory errors; device errors.
 */
export const decider =
  (subject: Subject, extent: Extent, given: DecisionOptions = {}) =>
  async (backend: Backend): Promise<Decider> => {
    const options = { ...DEFAULTS, ...given }
    const { rounding, memory, batchSize } = options
    requireIeee(backend.name, rounding)
    const { constraints: rows, conjunctions } = extent
    const width = backend.dtype === 'f32' ? 4 : 8
    const { region, close } = openRegion(backend)
    const referee = await judge(subject, rounding, backend)
    const bench: Bench = {
      subject,
      options,
      rows,
      attack: lazily(() => attacker(region)(subject, ATTACK.images, rows, ATTACK.steps)),
      root: lazily(() => {
        const chunk = Math.max(1, Math.min(conjunctions, Math.floor(ROOT_ROWS / rows)))
        return rootOf(region, subject, rows * chunk, memory, rounding)
      }),
      relus: lazily(async () => {
        const batch = fitting(batchSize, memory, (n) => reluBytes(subject, { rows, batch: n, rounding }, width))
        return { batch, ...(await reluBrancher(region)(subject, { rows, batch, rounding, ...BRANCH })) }
      }),
      inputs: lazily(async () => {
        const batch = fitting(batchSize, memory, (n) => inputBytes(subject, { rows, batch: n, rounding }, width))
        return { batch, ...(await inputBrancher(region)(subject, { rows, batch, rounding })) }
      }),
      check: referee.check,
      doubt: referee.doubt,
      outputs: referee.outputs,
    }
    return {
      decide: async (property, { timeout = TIMEOUT, progress = () => undefined } = {}) => {
        checked(subject, extent, property)
        const begun = performance.now()
        const seconds = () => (performance.now() - begun) / 1000
        let bounded = 0
        const session: Session = {
          ...bench,
          timeout,
          seconds,
          late: () => seconds() >= timeout,
          note: async (p) => progress({ ...p, bounded, seconds: seconds() }),
          count: (n) => {
            bounded += n
          },
        }
        const end = await decided(session, property).catch((e) => {
          if (e instanceof Ended) return e
          throw e
        })
        const common = { bounded, seconds: seconds() }
        const doubt = referee.doubt()
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
          : { verdict: 'unsat', counterexample: undefined, lower: end, reason: undefined, ...common }
      },
      close: () => {
        referee.close()
        close()
      },
    }
  }

/** Decides one property of a network, as `decider` does. */
export const verifyProperty =
  ({ network, input, outputs, property, timeout, progress, ...options }: PropertyOptions) =>
  async (backend: Backend): Promise<Verification> => {
    const { decide, close } = await decider({ network, input, outputs }, extentOf(property), options)(backend)
    try {
      return await decide(property, { timeout, progress })
    } finally {
      close()
    }
  }
