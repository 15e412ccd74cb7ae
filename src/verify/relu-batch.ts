import type { Data } from '../compile/backend.ts'
import { type Branch, type Evaluated, neuronOf, rowOf } from './branch.ts'
import type { Neurons } from './relu-graphs.ts'

/** A slope of a ReLU as 255ths of the way from its leak, the least that is sound, to 1; and back. */
export const encoded = (slope: number, low: number): number => Math.round((255 * (slope - low)) / (1 - low))
const decoded = (code: number, low: number): number => low + ((1 - low) * code) / 255

/** Numbers of a batch of branches, as its programs take them: the `b`-th of each has the places from b times its own size. */
export interface Batch {
  readonly lower: Float32Array
  readonly upper: Float32Array
  readonly hidden: { readonly lower: readonly Float32Array[]; readonly upper: readonly Float32Array[] }
  readonly signs: Float32Array
  readonly spec: Float32Array
  readonly bound: Float32Array
  /** Slopes of each ReLU, then the multipliers of the splits. */
  readonly values: readonly Float32Array[]
}

/** Puts the row of a branch in its place. */
export const putRow = ({ spec, bound }: Batch, b: number, branch: Branch): void => {
  const { row, bound: own } = rowOf(branch)
  spec.set(row, b * row.length)
  bound[b] = own
}

/** Puts one side of a neuron as a split with a multiplier: it clips the neuron's box. */
const putSplit = (batch: Batch, { count, split }: Neurons, b: number, code: number, multiplier: number): void => {
  const { neuron, positive } = neuronOf(code)
  let i = split.length - 1
  while (split[i].first > neuron) i--
  const { size, first, hidden } = split[i]
  const at = b * size + neuron - first
  const [l, u] = [batch.hidden.lower[hidden], batch.hidden.upper[hidden]]
  if (positive) l[at] = Math.max(l[at], 0)
  else u[at] = Math.min(u[at], 0)
  batch.signs[b * count + neuron] = positive ? 1 : -1
  batch.values[batch.values.length - 1][b * count + neuron] = multiplier
}

/** Puts a branch in its place, with one more split if that is given. */
export const put = (batch: Batch, neurons: Neurons, b: number, branch: Branch, extra?: number): void => {
  const { count, hidden, relus } = neurons
  batch.lower.set(branch.box.lower, b * branch.box.lower.length)
  batch.upper.set(branch.box.upper, b * branch.box.upper.length)
  hidden.forEach((n, h) => {
    batch.hidden.lower[h].set(branch.hidden.lower[h], b * n)
    batch.hidden.upper[h].set(branch.hidden.upper[h], b * n)
  })
  batch.signs.fill(0, b * count, (b + 1) * count)
  batch.values[relus.length].fill(0, b * count, (b + 1) * count)
  const splits = extra === undefined ? branch.splits : [...branch.splits, extra]
  for (const [i, code] of splits.entries()) putSplit(batch, neurons, b, code, branch.betas[i] ?? 0)
  putRow(batch, b, branch)
  let at = 0
  relus.forEach(({ size, leak }, r) => {
    for (let j = 0; j < size; j++) batch.values[r][b * size + j] = decoded(branch.alphas[at + j], leak)
    at += size
  })
}

type Values = readonly Data[]

/** The slopes of the `b`-th of a batch, the elements of one ReLU after the other. */
const slopesAt = ({ relus }: Neurons, values: Values, b: number): Float32Array => {
  const out = new Float32Array(relus.reduce((n, { size }) => n + size, 0))
  let at = 0
  relus.forEach(({ size }, r) => {
    out.set(values[r].subarray(b * size, (b + 1) * size), at)
    at += size
  })
  return out
}

/** The slopes of the `b`-th of a batch, as a branch has them. */
export const alphasOf = ({ relus }: Neurons, values: Values, b: number): Uint8Array => {
  const out = new Uint8Array(relus.reduce((n, { size }) => n + size, 0))
  let at = 0
  relus.forEach(({ size, leak }, r) => {
    for (let j = 0; j < size; j++) out[at + j] = encoded(values[r][b * size + j], leak)
    at += size
  })
  return out
}

/** The multipliers of a branch. */
export const betasOf = ({ count, relus }: Neurons, values: Values, branch: Branch, b: number): Float32Array =>
  Float32Array.from(branch.splits, (code) => values[relus.length][b * count + neuronOf(code).neuron])

/** Slopes, multipliers and weights of a branch. */
export const evaluatedOf = (neurons: Neurons, values: Values, branch: Branch, b: number): Evaluated => ({
  slopes: slopesAt(neurons, values, b),
  betas: betasOf(neurons, values, branch, b),
  weights: branch.weights,
})

/** How much is lost to the relaxation of each neuron that is still unstable: the intercept of its upper line, weighed (BaBSR, arXiv:1909.06588). */
export const lossOf = (
  batch: Batch,
  { count, split, relus }: Neurons,
  b: number,
  coefficients: Values,
): Float32Array => {
  const out = new Float32Array(count)
  relus.forEach(({ size, leak, of }, i) => {
    const { first, hidden } = split[of]
    const [l, u] = [batch.hidden.lower[hidden], batch.hidden.upper[hidden]]
    for (let j = 0; j < size; j++) {
      const [lo, hi] = [l[b * size + j], u[b * size + j]]
      if (!(lo < 0 && hi > 0)) continue
      const a = coefficients[i][b * size + j]
      const gap = (-lo * hi * (1 - leak)) / (hi - lo)
      // Lines below cost at most as much; they were optimized, so they count little.
      out[first + j] += a < 0 ? -a * gap : 0.1 * a * gap + 1e-30
    }
  })
  return out
}

/** The places of the largest scores above 0, the best first. */
export const ranked = (scores: Float32Array, keep: number): readonly number[] => {
  const best: number[] = []
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
