import type { Buffer } from '../backend/backend.ts'
import type { Region } from '../backend/region.ts'
import { power } from '../core/number.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import { add, concat, greater, input, max, mul, neg, reshape, select, subRounded, sum, zeros } from '../ops/index.ts'
import { anatomy } from '../tape/anatomy.ts'
import type { Boxes } from '../tape/ibp.ts'
import { linearBounds } from '../tape/linear-bounds.ts'
import { plan } from '../tape/plan.ts'
import { compileIn } from '../tape/run.ts'
import { order, rewrite, substitute } from '../tape/tape.ts'
import { grad } from '../tape/vjp.ts'
import { ascending, ascentGraph, type Free, isRelu, leak } from './alpha-crown.ts'
import { outputOf, type Subject, violation } from './counterexample.ts'

/** Boxes of the hidden nodes of one region of inputs, in the order of the graph. */
export interface HiddenBoxes {
  readonly lower: readonly Float32Array[]
  readonly upper: readonly Float32Array[]
}

/** Part of the inputs: those at which the chosen neurons have the chosen signs, within a box. */
export interface Branch {
  readonly conjunction: number
  /** Neuron and sign, as 2 neuron + (sign > 0 ? 1 : 0). Neurons of all split nodes are numbered through. */
  readonly splits: readonly number[]
  /** Multipliers of the splits, `[splits, rows]`. */
  readonly betas: Float32Array
  /** Slopes in 255ths of the way from the leak of a ReLU to 1, `[relus and their elements, rows]`; any are sound. */
  readonly alphas: Uint8Array
  /** Part of the case's box, where the inputs were split. */
  readonly box: { readonly lower: Float32Array; readonly upper: Float32Array }
  readonly lower: number
  /** Neurons to split at, the best first; empty when all are stable. */
  readonly next: readonly number[]
  /** Where the linear bound is least, and how far that is from a counterexample. */
  readonly point: Float32Array
  readonly violation: number
  /** Rounds of ascent without a new split. */
  readonly stalled: number
}

/** What a batch of branches has in common. */
export interface Ground {
  readonly hidden: HiddenBoxes
  /** By conjunction: coefficients `[rows, outputs]`, bounds `[rows]`, and what a bound must exceed `[rows]`. */
  readonly spec: readonly Float32Array[]
  readonly bound: readonly Float32Array[]
  readonly tolerance: readonly Float32Array[]
}

export interface ReluOptions {
  readonly rows: number
  readonly batch: number
  /** Of the bounds. */
  readonly rounding: Rounding
  readonly steps: number
  readonly lr: number
  /** Neurons of which both branches are bounded before one is chosen. */
  readonly candidates: number
}

/** What a graph depends on. */
type Shapes = Pick<ReluOptions, 'rows' | 'batch' | 'rounding'>

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
const graphOf = (subject: Subject, { rows, batch, rounding }: Shapes, mark: boolean) => {
  const x = input('x', [batch, ...subject.input])
  const { y, marks } = mark ? marked(outputOf(subject, x)) : { y: outputOf(subject, x), marks: [] }
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
      const coefficients = concat([spec, neg(mul(values[relus.length], signs)) as Tensor], 2)
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

/** Bounds, coefficients of the ReLUs where the best row is bounded, and the point where that bound is least. */
const scoreOf = (subject: Subject, options: Shapes) => {
  const { free, inputs, lowerOf, marks, box, x, y, spec, bound } = graphOf(subject, options, true)
  const values = free.map(({ shape }, i) => input(`value.${i}`, shape))
  const lower = lowerOf(values)
  const [l, u, ...coefficients] = grad(sum(max(lower, 0)), [...box, ...marks])
  const point = select(greater(add(l, u), 0), box[0], box[1]) as Tensor
  const [closeness] = substitute([violation(y, spec, bound)], new Map([[x, point]]))
  return { inputs: [...inputs, ...values], outputs: [lower, point, closeness, ...coefficients] }
}

/** True for a network that ReLU splitting can split. */
export const hasRelus = (subject: Subject): boolean =>
  order([outputOf(subject, input('x', [1, ...subject.input]))]).some(isRelu)

/** Bytes of scratch of the largest graph of a batch. */
export const reluBytes = (subject: Subject, options: Shapes, width: number): number => {
  const { arguments: given, results } = ascentGraph(ascentOf(subject, options))
  return plan(results, given).arena * width
}

/** ReLU splitting on a device. */
export interface ReluBrancher {
  /** Slopes of a branch without splits, from those of one row: by ReLU, its elements. */
  readonly root: (conjunction: number, box: Branch['box'], alphas: readonly (readonly Float32Array[])[]) => Branch
  /** Raises the bounds of up to `batch` branches, and finds out how to split them. */
  readonly bound: (ground: Ground, branches: readonly Branch[], late: () => boolean) => Promise<readonly Branch[]>
  /** The branch in 2^levels parts, if it has so many neurons to split at; by an input where it has none. */
  readonly split: (branch: Branch, levels: number) => readonly Branch[]
}

/** Least margin over its tolerance; NaN and infinity prove nothing. */
export const excess = (lower: ArrayLike<number>, tolerance: ArrayLike<number>): number => {
  let most = Number.NEGATIVE_INFINITY
  for (let k = 0; k < tolerance.length; k++) {
    const e = lower[k] - tolerance[k]
    if (e > most && e < Number.POSITIVE_INFINITY) most = e
  }
  return most
}

export const reluBrancher =
  (region: Region) =>
  async (subject: Subject, options: ReluOptions): Promise<ReluBrancher> => {
    const { backend } = region
    const { rows, batch, steps, lr, candidates } = options
    const shapes = graphOf(subject, options, false)
    const { relus, split, sizes, neurons, hidden, free } = shapes
    const ascent = await ascending(region)(ascentOf(subject, options))
    const score = scoreOf(subject, options)
    const scoring = await compileIn(region)(score.outputs, score.inputs)
    const trial = graphOf(subject, options, false)
    const trialValues = free.map(({ shape }, i) => input(`value.${i}`, shape))
    const trying = await compileIn(region)([trial.lowerOf(trialValues)], [...trial.inputs, ...trialValues])
    const alloc = (t: { readonly shape: S.Shape }) => region.alloc(S.size(t.shape))
    const scoreOut = score.outputs.map(alloc)
    const values = free.map(alloc)
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
      spec: new Float32Array(rows * batch * subject.outputs),
      bound: new Float32Array(rows * batch),
      values: free.map(({ shape }) => new Float32Array(S.size(shape))),
    }
    const put = (
      b: number,
      { hidden: boxes, spec, bound }: Ground,
      branch: Branch,
      extra: number | undefined,
    ): void => {
      filled.box[0].set(branch.box.lower, b * size)
      filled.box[1].set(branch.box.upper, b * size)
      hiddenSizes.forEach((n, h) => {
        filled.lower[h].set(boxes.lower[h], b * n)
        filled.upper[h].set(boxes.upper[h], b * n)
      })
      filled.signs.fill(0, b * neurons, (b + 1) * neurons)
      const beta = filled.values[relus.length]
      for (let k = 0; k < rows; k++) beta.fill(0, (k * batch + b) * neurons, (k * batch + b + 1) * neurons)
      const splits = extra === undefined ? branch.splits : [...branch.splits, extra]
      splits.forEach((s, i) => {
        const [neuron, positive] = [s >> 1, (s & 1) === 1]
        const [z, j] = siteOf(neuron)
        const at = b * sizes[z] + j
        const [l, u] = [filled.lower[hiddenOf[z]], filled.upper[hiddenOf[z]]]
        if (positive) l[at] = Math.max(l[at], 0)
        else u[at] = Math.min(u[at], 0)
        filled.signs[b * neurons + neuron] = positive ? 1 : -1
        for (let k = 0; k < rows; k++) beta[(k * batch + b) * neurons + neuron] = branch.betas[i * rows + k] ?? 0
      })
      for (let k = 0; k < rows; k++) {
        filled.spec.set(
          spec[branch.conjunction].subarray(k * subject.outputs, (k + 1) * subject.outputs),
          (k * batch + b) * subject.outputs,
        )
        filled.bound[k * batch + b] = bound[branch.conjunction][k]
        let at = k * slopes
        reluSizes.forEach((n, r) => {
          const to = (k * batch + b) * n
          for (let j = 0; j < n; j++) filled.values[r][to + j] = decoded(branch.alphas[at + j], leaks[r])
          at += n
        })
      }
    }
    const writeInputs = (to: readonly Buffer[]): void => {
      backend.write(to[0], filled.box[0])
      backend.write(to[1], filled.box[1])
      hidden.forEach((_, h) => {
        backend.write(to[lowerAt + h], filled.lower[h])
        backend.write(to[upperAt + h], filled.upper[h])
      })
      backend.write(to[signsAt], filled.signs)
      backend.write(to[signsAt + 1], filled.spec)
      backend.write(to[signsAt + 2], filled.bound)
    }
    const column = (data: ArrayLike<number>, b: number): Float32Array =>
      Float32Array.from({ length: rows }, (_, k) => data[k * batch + b])

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

    return {
      root: (conjunction, box, alphas) => ({
        conjunction,
        splits: [],
        betas: new Float32Array(0),
        alphas: Uint8Array.from(
          alphas.flatMap((row) => row.flatMap((a, r) => [...a].map((v) => encoded(v, leaks[r])))),
        ),
        box,
        lower: Number.NEGATIVE_INFINITY,
        next: [],
        point: new Float32Array(size),
        violation: Number.POSITIVE_INFINITY,
        stalled: 0,
      }),
      bound: async (ground, branches, late) => {
        for (let b = 0; b < batch; b++) put(b, ground, branches[b % branches.length], undefined)
        writeInputs(ascent.inputs)
        ascent.start(filled.values)
        const lower = branches.map(() => new Float32Array(rows).fill(Number.NEGATIVE_INFINITY))
        const tolerance = branches.map((d) => ground.tolerance[d.conjunction])
        for (let t = 0; t < steps && !late(); t++) {
          ascent.run(lr * power(0.97, t))
          // Looking means waiting; it pays now and then.
          if (t % 4 !== 3 && t < steps - 1) continue
          const seen = await backend.read(lowerOut)
          branches.forEach((_, b) => {
            const now = column(seen, b)
            now.forEach((v, k) => {
              if (v > lower[b][k]) lower[b][k] = v
            })
          })
          if (branches.every((_, b) => excess(lower[b], tolerance[b]) > 0)) break
        }
        const raised = await ascent.values()
        writeInputs(ascent.inputs)
        values.forEach((v, i) => {
          backend.write(v, raised[i])
        })
        scoring.run([...ascent.inputs, ...values, ...scoreOut])
        const seen: ArrayLike<number>[] = []
        for (const o of scoreOut) seen.push(await backend.read(o))
        const [last, points, closeness, ...coefficients] = seen
        const found = branches.map((branch, b): Branch => {
          column(last, b).forEach((v, k) => {
            if (v > lower[b][k]) lower[b][k] = v
          })
          const betas = new Float32Array(branch.splits.length * rows)
          const alphas = new Uint8Array(rows * slopes)
          for (let k = 0; k < rows; k++) {
            branch.splits.forEach((s, i) => {
              betas[i * rows + k] = raised[relus.length][(k * batch + b) * neurons + (s >> 1)]
            })
            let at = k * slopes
            reluSizes.forEach((n, r) => {
              const from = (k * batch + b) * n
              for (let j = 0; j < n; j++) alphas[at + j] = encoded(raised[r][from + j], leaks[r])
              at += n
            })
          }
          return {
            ...branch,
            betas,
            alphas,
            lower: Math.max(branch.lower, excess(lower[b], tolerance[b])),
            next: ranked(loss(b, coefficients)),
            point: Float32Array.from({ length: size }, (_, i) => points[b * size + i]),
            violation: closeness[b],
          }
        })
        return candidates > 1 ? await tried(ground, found, late) : found
      },
      split: (branch, levels) => {
        if (branch.next.length === 0)
          return branch.stalled < PATIENCE ? [{ ...branch, stalled: branch.stalled + 1 }] : halved(branch)
        return branch.next.slice(0, levels).reduce<readonly Branch[]>(
          (parts, neuron) =>
            parts.flatMap((p) =>
              [0, 1].map((sign) => {
                const betas = new Float32Array(p.betas.length + rows)
                betas.set(p.betas)
                return { ...p, splits: [...p.splits, 2 * neuron + sign], betas, stalled: 0 }
              }),
            ),
          [branch],
        )
      },
    }

    /** Both branches of each candidate, bounded as they are: the one whose worse half is best comes first. */
    async function tried(ground: Ground, found: readonly Branch[], late: () => boolean): Promise<readonly Branch[]> {
      const trials = found.flatMap((branch, i) =>
        branch.lower > 0
          ? []
          : branch.next.slice(0, candidates).flatMap((neuron) => [0, 1].map((sign) => ({ i, neuron, sign }))),
      )
      const worse = new Map<string, number>()
      for (let at = 0; at < trials.length && !late(); at += batch) {
        const some = trials.slice(at, at + batch)
        for (let b = 0; b < some.length; b++) put(b, ground, found[some[b].i], 2 * some[b].neuron + some[b].sign)
        writeInputs(ascent.inputs)
        filled.values.forEach((v, i) => {
          backend.write(values[i], v)
        })
        trying.run([...ascent.inputs, ...values, lowerOut])
        const seen = await backend.read(lowerOut)
        some.forEach(({ i, neuron }, b) => {
          const e = excess(column(seen, b), ground.tolerance[found[i].conjunction])
          const key = `${i}:${neuron}`
          worse.set(key, Math.min(worse.get(key) ?? Number.POSITIVE_INFINITY, e))
        })
      }
      return found.map((branch, i) => {
        const gain = (neuron: number) => worse.get(`${i}:${neuron}`) ?? Number.NEGATIVE_INFINITY
        const [tested, rest] = [branch.next.slice(0, candidates), branch.next.slice(candidates)]
        return { ...branch, next: [...[...tested].sort((a, b) => gain(b) - gain(a)), ...rest] }
      })
    }

    /** Two halves of the box of a branch, across its widest side; none where no float32 lies between its ends. */
    function halved(branch: Branch): readonly Branch[] {
      const { lower, upper } = branch.box
      let widest = 0
      for (let i = 1; i < size; i++) if (upper[i] - lower[i] > upper[widest] - lower[widest]) widest = i
      const middle = Math.fround(0.5 * (lower[widest] + upper[widest]))
      if (!(middle > lower[widest] && middle < upper[widest])) return []
      const [left, right] = [upper.slice(), lower.slice()]
      left[widest] = middle
      right[widest] = middle
      return [
        { ...branch, box: { lower, upper: left }, stalled: 0 },
        { ...branch, box: { lower: right, upper }, stalled: 0 },
      ]
    }
  }
