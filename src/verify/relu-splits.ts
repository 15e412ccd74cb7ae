import { anatomy, isNonlinear } from '../bounds/anatomy.ts'
import type { Boxes } from '../bounds/ibp.ts'
import { linearBounds } from '../bounds/linear-bounds.ts'
import type { Region } from '../compile/region.ts'
import { order, rewrite, substitute } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import { power } from '../core/number.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import { add, concat, greater, input, neg, reshape, select, subRounded, sum, zeros } from '../ops/index.ts'
import { ascending, type Free, isRelu, leak } from '../robust/alpha-crown.ts'
import { argumentsOf, type Budget, type Graph } from '../robust/budget.ts'
import { boundedOutputOf, type Subject } from './counterexample.ts'
import { type Box, type Conjunction, type Goal, grained, mixed, raised } from './goals.ts'
import { violationOf } from './input-splits.ts'
import { argumentsFor, type HiddenBoxes, lastWalkNodes } from './root-bounds.ts'
import type { Placed } from './trace.ts'

/** Part of the inputs: those at which the chosen neurons have the chosen signs, within a box. */
export interface Branch extends Placed {
  readonly goal: Goal
  readonly conjunction: number
  /** Boxes of the hidden nodes over the whole box of the goal: splits clip them. */
  readonly hidden: HiddenBoxes
  /** Weights of the rows of the conjunction: their mean is what is bounded. */
  readonly weights: Float64Array
  /** Neuron and sign, as 2 neuron + (sign > 0 ? 1 : 0). Neurons of all split nodes are numbered through. */
  readonly splits: readonly number[]
  /** Multipliers of the splits. */
  readonly betas: Float32Array
  /** Slopes in 255ths of the way from the leak of a ReLU to 1, the elements of one ReLU after the other; any are sound. */
  readonly alphas: Uint8Array
  /** Part of the case's box, where the inputs were split. */
  readonly box: Box
  readonly lower: number
  /** Neurons to split at, the best first; empty when all are stable. */
  readonly next: readonly number[]
  /** Where the linear bound is least, and how far that is from a counterexample. */
  readonly point: Float32Array
  readonly violation: number
  /** Rounds of ascent without a new split. */
  readonly stalled: number
  readonly depth: number
  /** What the first bound above 0 was computed from, where the trees of the search are kept: slopes, multipliers of splits, weights. */
  readonly evaluated?: Evaluated | undefined
}

export interface Evaluated {
  /** Of all neurons, the elements of one ReLU after the other. */
  readonly slopes: Float32Array
  readonly betas: Float32Array
  readonly weights: Float64Array
}

export interface ReluOptions {
  readonly batch: number
  /** Of the bounds. */
  readonly rounding: Rounding
  readonly steps: number
  readonly lr: number
  /** Neurons of which both branches are bounded before one is chosen. */
  readonly candidates: number
  /** Whether branches keep what they were bounded by. */
  readonly trace?: boolean
}

/** What a graph depends on. */
type Shapes = Pick<ReluOptions, 'batch' | 'rounding'>

const FOREVER = 3e38
/** Rounds of ascent that a branch without unstable neurons gets before an input is halved. */
const PATIENCE = 3
/** Multipliers move by as much as slopes do. */
const BETA_RATE = 1

/** A slope of a ReLU as 255ths of the way from its leak, the least that is sound, to 1; and back. */
const encoded = (slope: number, low: number): number => Math.round((255 * (slope - low)) / (1 - low))
const decoded = (code: number, low: number): number => low + ((1 - low) * code) / 255

/** The network with 0 added to each ReLU: the derivative of a bound with respect to such a 0 is the coefficient of the ReLU. */
const marked = (y: Tensor): { readonly y: Tensor; readonly marks: readonly Tensor[] } => {
  const marks: Tensor[] = []
  const [built] = rewrite([y], (n, inputs) => {
    const copy = inputs.every((i, k) => i === n.inputs[k]) ? n : { ...n, inputs }
    if (!isRelu(n)) return copy
    const mark = zeros(n.shape)
    marks.push(mark)
    return add(copy, mark) as Tensor
  })
  return { y: built, marks }
}

/**
 * The bound of a batch of branches. beta-CROWN (arXiv:2103.06624): where s z >= 0, c . y is at least c . y - beta s z for beta >= 0. The right
 * side is a linear functional of the outputs and of z, so its bound is an ordinary walk, from a network that has the split nodes
 * among its outputs.
 */
const graphOf = (subject: Subject, { batch, rounding }: Shapes, mark: boolean) => {
  const rows = 1
  const x = input('x', [batch, ...subject.input])
  const { y, marks } = mark ? marked(boundedOutputOf(subject, x)) : { y: boundedOutputOf(subject, x), marks: [] }
  const [lower, upper] = [input('lower', x.shape), input('upper', x.shape)]
  const boxes: Boxes = new Map([[x, interval(lower, upper)]])
  const { boxed, hidden } = anatomy(y, boxes)
  const relus = order([y]).filter((r) => isRelu(r) && boxed.has(r))
  const split = [...new Set(relus.map((r) => r.inputs[0]))]
  const sizes = split.map((z) => S.size(z.shape.slice(1)))
  const neurons = sizes.reduce((a, b) => a + b, 0)
  const hiddenLower = hidden.map((h, i) => input(`lower.${i}`, h.shape))
  const hiddenUpper = hidden.map((h, i) => input(`upper.${i}`, h.shape))
  const signs = input('signs', [batch, neurons])
  const [spec, bound] = [input('spec', [rows, batch, subject.outputs]), input('bound', [rows, batch])]
  const free: readonly Free[] = [
    ...relus.map((r) => ({ shape: [rows, ...r.shape], low: leak(r), high: 1 })),
    { shape: [rows, batch, neurons], low: 0, high: FOREVER, rate: BETA_RATE },
  ]
  const given: Boxes = new Map(hidden.map((h, i): [Tensor, Interval] => [h, interval(hiddenLower[i], hiddenUpper[i])]))
  return {
    x,
    y,
    marks,
    relus,
    split,
    sizes,
    neurons,
    hidden,
    free,
    box: [lower, upper] as const,
    spec,
    bound,
    inputs: [lower, upper, ...hiddenLower, ...hiddenUpper, signs, spec, bound],
    /** Lower bounds of spec . y - bound, `[rows, n]`. */
    lowerOf: (values: readonly Tensor[]): Tensor => {
      const slope = new Map(relus.map((r, i) => [r, values[i]]))
      const outputs = concat([y, ...split.map((z, i) => reshape(z, [batch, sizes[i]]))], 1)
      // By choices, not by a product: they are exact, so that no bound of the coefficients is taken.
      const beta = values[relus.length]
      const coefficients = concat([spec, select(greater(signs, 0), neg(beta), select(greater(0, signs), beta, 0))], 2)
      const { lower: least } = linearBounds({ slope, hidden: 'own' })(outputs, boxes, given, rounding).rows(
        coefficients,
      )
      return subRounded(least, bound, rounding)
    },
  }
}

const ascentOf = (subject: Subject, options: Shapes) => {
  const { free, inputs, lowerOf } = graphOf(subject, options, false)
  return {
    free,
    inputs,
    graph: (values: readonly Tensor[]) => {
      const objective = lowerOf(values)
      return { objective, outputs: [objective] }
    },
  }
}

/** Bounds, the point where each is least, the output there, what the rows of the conjunction are there, and the coefficients of the ReLUs. */
const scoreOf = (subject: Subject, options: Shapes): Graph => {
  const { free, inputs, lowerOf, marks, box, x, y, spec } = graphOf(subject, options, true)
  const values = free.map(({ shape }, i) => input(`value.${i}`, shape))
  const lower = lowerOf(values)
  const [l, u, slope, ...coefficients] = grad(sum(lower), [...box, spec, ...marks])
  const point = select(greater(add(l, u), 0), box[0], box[1]) as Tensor
  const [there] = substitute([y], new Map([[x, point]]))
  return { inputs: [...inputs, ...values], outputs: [lower, point, there, slope, ...coefficients] }
}

const trialOf = (subject: Subject, options: Shapes): Graph => {
  const { free, inputs, lowerOf } = graphOf(subject, options, false)
  const values = free.map(({ shape }, i) => input(`value.${i}`, shape))
  return { inputs: [...inputs, ...values], outputs: [lowerOf(values)] }
}

/** True for a network that ReLU splitting can split. */
export const hasRelus = (subject: Subject): boolean =>
  order([boundedOutputOf(subject, input('x', [1, ...subject.input]))]).some(isRelu)

/** Whether nothing but ReLUs bends the network, so that enough splits leave no relaxation. */
export const isPiecewise = (subject: Subject): boolean => {
  const { y, boxes } = argumentsFor(subject, 1)
  const { boxed } = anatomy(y, boxes)
  return order([y]).every((x) => !boxed.has(x) || boxes.has(x) || !isNonlinear(x, boxed) || isRelu(x))
}

/** ReLU splitting on a device. */
export interface ReluBrancher {
  /** Branches of one run, multiply-adds of bounding them, and an estimate of the seconds of one ascent. */
  readonly batch: number
  readonly work: number
  readonly seconds: () => number
  /** A branch without splits, from hidden boxes and slopes by ReLU. */
  readonly root: (
    goal: Goal,
    conjunction: number,
    hidden: HiddenBoxes,
    alphas: readonly Float32Array[],
    weights: Float64Array,
  ) => Branch
  /** Raises the bounds of up to `batch` branches, and finds out how to split them. */
  readonly bound: (branches: readonly Branch[]) => Promise<readonly Branch[]>
}

/** The branch in two, at the best neuron; once more, or at an input where it has none. */
export const splitBranch = (branch: Branch): readonly Branch[] => {
  const [neuron] = branch.next
  if (neuron === undefined)
    return branch.stalled < PATIENCE ? [{ ...branch, stalled: branch.stalled + 1 }] : halved(branch)
  return [0, 1].map((sign) => {
    const betas = new Float32Array(branch.betas.length + 1)
    betas.set(branch.betas)
    return { ...branch, splits: [...branch.splits, 2 * neuron + sign], betas, stalled: 0, depth: branch.depth + 1 }
  })
}

/** Two halves of the box of a branch, across its widest side; none where no float32 lies between its ends. */
const halved = (branch: Branch): readonly Branch[] => {
  const { lower, upper } = branch.box
  let widest = 0
  for (let i = 1; i < lower.length; i++) if (upper[i] - lower[i] > upper[widest] - lower[widest]) widest = i
  const middle = Math.fround(0.5 * (lower[widest] + upper[widest]))
  if (!(middle > lower[widest] && middle < upper[widest])) return []
  const [left, right] = [upper.slice(), lower.slice()]
  left[widest] = middle
  right[widest] = middle
  return [
    { ...branch, box: { lower, upper: left }, stalled: 0, depth: branch.depth + 1 },
    { ...branch, box: { lower: right, upper }, stalled: 0, depth: branch.depth + 1 },
  ]
}

/** Bytes of a branch that waits. */
export const branchBytes = (branch: Branch): number =>
  branch.alphas.length + 4 * branch.betas.length + 24 * branch.splits.length + 300

/** How fast weights of rows move. */
const RATE = 1.5

/** What is bounded of a branch: the mean of its conjunction's rows, or its only row. */
const rowOf = ({ goal, conjunction, weights }: Branch): { readonly row: Float32Array; readonly bound: number } => {
  const c = goal.conjunctions[conjunction]
  if (c.rows.length > 1 && c.dyadic) return mixed(c, weights)
  let best = 0
  weights.forEach((w, k) => {
    if (w > weights[best]) best = k
  })
  return { row: c.rows[best], bound: c.bounds[best] }
}

/** What a bound of the mean must exceed. */
const toleranceOf = (c: Conjunction): number => Math.max(...c.tolerance)

/** A bound less its tolerance; NaN and infinity prove nothing. */
const excess = (lower: number, c: Conjunction): number => {
  const e = lower - toleranceOf(c)
  return e < Number.POSITIVE_INFINITY ? e : Number.NEGATIVE_INFINITY
}

export const reluBrancher =
  (region: Region, budget: Budget) =>
  async (subject: Subject, options: ReluOptions): Promise<ReluBrancher> => {
    const { backend } = region
    const { batch, steps, lr, candidates, trace = false } = options
    const { relus, split, sizes, neurons, hidden, free } = graphOf(subject, options, false)
    const nodes = lastWalkNodes(subject)
    const what = batch === 1 ? 'bounding one branch' : `bounding ${batch} branches`
    const ascent = await ascending(region, budget)(what, 3 * nodes, () => ascentOf(subject, options))
    const planned = async (make: () => Graph) => {
      let graph: Graph | undefined
      const plan = await budget.plan(what, 3 * nodes, () => {
        graph = make()
        return graph
      })
      return { plan, results: argumentsOf(region, (graph as Graph).outputs) }
    }
    const scoring = await planned(() => scoreOf(subject, options))
    const trying = await planned(() => trialOf(subject, options))
    const values = free.map(({ shape }) => region.alloc(S.size(shape)))
    const [lowerOut] = ascent.outputs
    const size = S.size(subject.input)
    const reluSizes = relus.map((r) => S.size(r.shape.slice(1)))
    const leaks = relus.map(leak)
    const slopes = reluSizes.reduce((a, b) => a + b, 0)
    /** First neuron of each split node, and where its box is among the hidden ones. */
    const firstOf = sizes.map((_, i) => sizes.slice(0, i).reduce((a, b) => a + b, 0))
    const hiddenOf = split.map((z) => hidden.indexOf(z))
    const splitOf = relus.map((r) => split.indexOf(r.inputs[0]))
    const siteOf = (neuron: number): readonly [number, number] => {
      let i = sizes.length - 1
      while (firstOf[i] > neuron) i--
      return [i, neuron - firstOf[i]]
    }
    const hiddenSizes = hidden.map((h) => S.size(h.shape.slice(1)))
    const [lowerAt, upperAt] = [2, 2 + hidden.length]
    const signsAt = 2 + 2 * hidden.length

    // Host copies of the arguments, filled branch by branch.
    const filled = {
      box: [new Float32Array(batch * size), new Float32Array(batch * size)] as const,
      lower: hiddenSizes.map((n) => new Float32Array(batch * n)),
      upper: hiddenSizes.map((n) => new Float32Array(batch * n)),
      signs: new Float32Array(batch * neurons),
      spec: new Float32Array(batch * subject.outputs),
      bound: new Float32Array(batch),
      values: free.map(({ shape }) => new Float32Array(S.size(shape))),
    }
    const putRow = (b: number, branch: Branch): void => {
      const { row, bound } = rowOf(branch)
      filled.spec.set(row, b * subject.outputs)
      filled.bound[b] = bound
    }
    const put = (b: number, branch: Branch, extra: number | undefined): void => {
      filled.box[0].set(branch.box.lower, b * size)
      filled.box[1].set(branch.box.upper, b * size)
      hiddenSizes.forEach((n, h) => {
        filled.lower[h].set(branch.hidden.lower[h], b * n)
        filled.upper[h].set(branch.hidden.upper[h], b * n)
      })
      filled.signs.fill(0, b * neurons, (b + 1) * neurons)
      const beta = filled.values[relus.length]
      beta.fill(0, b * neurons, (b + 1) * neurons)
      const splits = extra === undefined ? branch.splits : [...branch.splits, extra]
      splits.forEach((s, i) => {
        const [neuron, positive] = [s >> 1, (s & 1) === 1]
        const [z, j] = siteOf(neuron)
        const at = b * sizes[z] + j
        const [l, u] = [filled.lower[hiddenOf[z]], filled.upper[hiddenOf[z]]]
        if (positive) l[at] = Math.max(l[at], 0)
        else u[at] = Math.min(u[at], 0)
        filled.signs[b * neurons + neuron] = positive ? 1 : -1
        beta[b * neurons + neuron] = branch.betas[i] ?? 0
      })
      putRow(b, branch)
      let at = 0
      reluSizes.forEach((n, r) => {
        for (let j = 0; j < n; j++) filled.values[r][b * n + j] = decoded(branch.alphas[at + j], leaks[r])
        at += n
      })
    }
    const writeInputs = (): void => {
      const to = ascent.inputs
      backend.write(to[0], filled.box[0])
      backend.write(to[1], filled.box[1])
      hidden.forEach((_, h) => {
        backend.write(to[lowerAt + h], filled.lower[h])
        backend.write(to[upperAt + h], filled.upper[h])
      })
      backend.write(to[signsAt], filled.signs)
      writeRows()
    }
    const writeRows = (): void => {
      backend.write(ascent.inputs[signsAt + 1], filled.spec)
      backend.write(ascent.inputs[signsAt + 2], filled.bound)
    }

    /** How much is lost to the relaxation of each neuron that is still unstable: the intercept of its upper line, weighed (BaBSR). */
    const loss = (b: number, coefficients: readonly ArrayLike<number>[]): Float32Array => {
      const out = new Float32Array(neurons)
      relus.forEach((r, i) => {
        const [z, n] = [splitOf[i], reluSizes[i]]
        const [l, u] = [filled.lower[hiddenOf[z]], filled.upper[hiddenOf[z]]]
        for (let j = 0; j < n; j++) {
          const [lo, hi] = [l[b * n + j], u[b * n + j]]
          if (!(lo < 0 && hi > 0)) continue
          const a = coefficients[i][b * n + j]
          const gap = (-lo * hi * (1 - leak(r))) / (hi - lo)
          // Lines below cost at most as much; they were optimised, so they count little.
          out[firstOf[z] + j] += a < 0 ? -a * gap : 0.1 * a * gap + 1e-30
        }
      })
      return out
    }

    const ranked = (scores: Float32Array): readonly number[] => {
      const best: number[] = []
      const keep = Math.max(candidates, 6)
      for (let j = 0; j < scores.length; j++) {
        if (!(scores[j] > 0)) continue
        if (best.length === keep && scores[j] <= scores[best[keep - 1]]) continue
        if (best.length === keep) best.pop()
        let at = best.length
        while (at > 0 && scores[best[at - 1]] < scores[j]) at--
        best.splice(at, 0, j)
      }
      return best
    }

    /** Slopes, multipliers and weights of a branch among the values of a batch. */
    const evaluatedOf = (values: readonly ArrayLike<number>[], branch: Branch, b: number): Evaluated => ({
      slopes: Float32Array.from(reluSizes.flatMap((n, r) => Array.from({ length: n }, (_, j) => values[r][b * n + j]))),
      betas: Float32Array.from(branch.splits, (s) => values[relus.length][b * neurons + (s >> 1)]),
      weights: branch.weights,
    })

    /** Some updates of slopes and multipliers; `best` keeps the largest bound of each branch, `kept` what made the first above 0. */
    const ascend = async (
      count: number,
      branches: readonly Branch[],
      best: Float64Array,
      kept: (Evaluated | undefined)[],
    ): Promise<void> => {
      for (let t = 0; t < count && (t === 0 || ascent.seconds() < 0.5 * budget.left()); t++) {
        await ascent.run(lr * power(0.97, t))
        // Looking means waiting; it pays now and then.
        if (t % 4 !== 3 && t < count - 1) continue
        const seen = await backend.read(lowerOut)
        const now = branches.map(({ goal, conjunction }, b) => excess(seen[b], goal.conjunctions[conjunction]))
        const fresh = now.map((e, b) => trace && e > 0 && kept[b] === undefined)
        const used = fresh.includes(true) ? await ascent.evaluated() : []
        branches.forEach((branch, b) => {
          best[b] = Math.max(best[b], now[b])
          if (fresh[b]) kept[b] = evaluatedOf(used, branch, b)
        })
        if (branches.every((_, b) => best[b] > 0)) break
      }
    }

    const scored = async (): Promise<readonly ArrayLike<number>[]> => {
      const raisedValues = await ascent.values()
      values.forEach((v, i) => {
        backend.write(v, raisedValues[i])
      })
      await scoring.plan.run([...ascent.inputs, ...values, ...scoring.results.all])
      const seen: ArrayLike<number>[] = []
      for (let i = 0; i < scoring.results.all.length; i++) seen.push(await scoring.results.read(i))
      return seen
    }

    /** Weights of the rows of each branch that has several, moved to where the bound of their mean rises. */
    const reweighed = (branches: readonly Branch[], slope: ArrayLike<number>): readonly Branch[] =>
      branches.map((branch, b) => {
        const c = branch.goal.conjunctions[branch.conjunction]
        if (c.rows.length === 1) return branch
        const gains = c.rows.map((r, k) => r.reduce((s, a, j) => s + a * slope[b * subject.outputs + j], -c.bounds[k]))
        if (c.dyadic) return { ...branch, weights: grained(raised(branch.weights, gains, RATE)) }
        const most = gains.indexOf(Math.max(...gains))
        return most < 0 ? branch : { ...branch, weights: Float64Array.from(gains, (_, k) => Number(k === most)) }
      })

    /** Both branches of each candidate, bounded as they are: the one whose worse half is best comes first. */
    const tried = async (found: readonly Branch[]): Promise<readonly Branch[]> => {
      const trials = found.flatMap((branch, i) =>
        branch.lower > 0
          ? []
          : branch.next.slice(0, candidates).flatMap((neuron) => [0, 1].map((sign) => ({ i, neuron, sign }))),
      )
      const worse = new Map<string, number>()
      for (let at = 0; at < trials.length && 4 * trying.plan.seconds() < budget.left(); at += batch) {
        const some = trials.slice(at, at + batch)
        for (let b = 0; b < some.length; b++) put(b, found[some[b].i], 2 * some[b].neuron + some[b].sign)
        writeInputs()
        filled.values.forEach((v, i) => {
          backend.write(values[i], v)
        })
        await trying.plan.run([...ascent.inputs, ...values, ...trying.results.all])
        const seen = await trying.results.read(0)
        some.forEach(({ i, neuron }, b) => {
          const { goal, conjunction } = found[i]
          const key = `${i}:${neuron}`
          worse.set(
            key,
            Math.min(worse.get(key) ?? Number.POSITIVE_INFINITY, excess(seen[b], goal.conjunctions[conjunction])),
          )
        })
      }
      return found.map((branch, i) => {
        const gain = (neuron: number) => worse.get(`${i}:${neuron}`) ?? Number.NEGATIVE_INFINITY
        const [tested, rest] = [branch.next.slice(0, candidates), branch.next.slice(candidates)]
        return { ...branch, next: [...[...tested].sort((a, b) => gain(b) - gain(a)), ...rest] }
      })
    }

    return {
      batch,
      work: steps * ascent.work + scoring.plan.work + 2 * candidates * trying.plan.work,
      seconds: ascent.seconds,
      root: (goal, conjunction, boxes, alphas, weights) => ({
        goal,
        conjunction,
        hidden: boxes,
        weights,
        splits: [],
        betas: new Float32Array(0),
        alphas: Uint8Array.from(alphas.flatMap((a, r) => [...a].map((v) => encoded(v, leaks[r])))),
        box: goal.box,
        lower: Number.NEGATIVE_INFINITY,
        next: [],
        point: new Float32Array(size),
        violation: Number.POSITIVE_INFINITY,
        stalled: 0,
        depth: 0,
      }),
      bound: async (given) => {
        for (let b = 0; b < batch; b++) put(b, given[b % given.length], undefined)
        writeInputs()
        ascent.start(filled.values)
        const best = new Float64Array(given.length).fill(Number.NEGATIVE_INFINITY)
        const kept: (Evaluated | undefined)[] = given.map(() => undefined)
        const several = given.some(({ goal, conjunction }) => goal.conjunctions[conjunction].rows.length > 1)
        let branches = given
        // Weights of rows move between two ascents.
        for (const count of several ? [steps >> 1, steps - (steps >> 1)] : [steps]) {
          await ascend(count, branches, best, kept)
          if (!several || branches !== given || branches.every((_, b) => best[b] > 0)) continue
          branches = reweighed(branches, (await scored())[3])
          for (let b = 0; b < batch; b++) putRow(b, branches[b % branches.length])
          writeRows()
        }
        const [last, points, outputs, slope, ...coefficients] = await scored()
        const after = reweighed(branches, slope)
        const raisedValues = await ascent.values()
        const found = branches.map((branch, b): Branch => {
          const alphas = new Uint8Array(slopes)
          let at = 0
          reluSizes.forEach((n, r) => {
            for (let j = 0; j < n; j++) alphas[at + j] = encoded(raisedValues[r][b * n + j], leaks[r])
            at += n
          })
          const own = excess(last[b], branch.goal.conjunctions[branch.conjunction])
          const y = Float64Array.from({ length: subject.outputs }, (_, j) => outputs[b * subject.outputs + j])
          return {
            ...branch,
            weights: after[b].weights,
            betas: Float32Array.from(branch.splits, (s) => raisedValues[relus.length][b * neurons + (s >> 1)]),
            alphas,
            lower: Math.max(branch.lower, best[b], own),
            next: ranked(loss(b, coefficients)),
            evaluated: kept[b] ?? (trace && own > 0 ? evaluatedOf(raisedValues, branch, b) : undefined),
            point: Float32Array.from({ length: size }, (_, i) => points[b * size + i]),
            violation: violationOf(branch.goal, y),
          }
        })
        return candidates > 1 ? await tried(found) : found
      },
    }
  }
