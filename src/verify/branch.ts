import { type Box, type Goal, grained, mixed, raised } from './goals.ts'
import type { HiddenBoxes } from './root.ts'
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

/** Rounds of ascent that a branch without unstable neurons gets before an input is halved. */
const PATIENCE = 3
/** How fast weights of rows move. */
const RATE = 1.5

/** A split of a neuron as `Branch` has it, and back. */
export const codeOf = (neuron: number, positive: boolean): number => 2 * neuron + Number(positive)
export const neuronOf = (code: number): { readonly neuron: number; readonly positive: boolean } => ({
  neuron: code >> 1,
  positive: (code & 1) === 1,
})

/** The branch in two, at the best neuron; once more, or at an input where it has none. */
export const splitBranch = (branch: Branch): readonly Branch[] => {
  const [neuron] = branch.next
  if (neuron === undefined)
    return branch.stalled < PATIENCE ? [{ ...branch, stalled: branch.stalled + 1 }] : halved(branch)
  return [false, true].map((positive) => {
    const betas = new Float32Array(branch.betas.length + 1)
    betas.set(branch.betas)
    return {
      ...branch,
      splits: [...branch.splits, codeOf(neuron, positive)],
      betas,
      stalled: 0,
      depth: branch.depth + 1,
    }
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

/** What is bounded of a branch: the mean of its conjunction's rows, or its only row. */
export const rowOf = ({
  goal,
  conjunction,
  weights,
}: Branch): { readonly row: Float32Array; readonly bound: number } => {
  const c = goal.conjunctions[conjunction]
  if (c.rows.length > 1 && c.dyadic) return mixed(c, weights)
  let best = 0
  weights.forEach((w, k) => {
    if (w > weights[best]) best = k
  })
  return { row: c.rows[best], bound: c.bounds[best] }
}

/** A bound less what that of the mean must exceed; NaN and infinity prove nothing. */
export const excess = (lower: number, { goal, conjunction }: Pick<Branch, 'goal' | 'conjunction'>): number => {
  const e = lower - Math.max(...goal.conjunctions[conjunction].tolerance)
  return e < Number.POSITIVE_INFINITY ? e : Number.NEGATIVE_INFINITY
}

/** Whether the conjunction of a branch has several rows, whose weights may move. */
export const hasWeights = ({ goal, conjunction }: Branch): boolean => goal.conjunctions[conjunction].rows.length > 1

/** A branch with the weights of its rows, if it has several, moved to where the bound of their mean rises; `slope` is that of the outputs. */
export const reweighed = (branch: Branch, slope: ArrayLike<number>): Branch => {
  const c = branch.goal.conjunctions[branch.conjunction]
  if (c.rows.length === 1) return branch
  const gains = c.rows.map((r, k) => r.reduce((s, a, j) => s + a * slope[j], -c.bounds[k]))
  if (c.dyadic) return { ...branch, weights: grained(raised(branch.weights, gains, RATE)) }
  const most = gains.indexOf(Math.max(...gains))
  return most < 0 ? branch : { ...branch, weights: Float64Array.from(gains, (_, k) => Number(k === most)) }
}
