import { doublesOf, type Epsilon } from '../core/epsilon.ts'
import { nextDouble } from '../core/rounding.ts'
import type { Tensor } from '../core/tensor.ts'
import { equal, greater, greaterEqual, iota, neg, oneHot, pad, reshape, select, transpose } from '../ops/index.ts'
import type { Constraint, UnsafeProperty } from './counterexample.ts'
import type { Range } from './perturbation.ts'

/**
 * Rows of linear functionals of the logits, `[rows, n, classes]`: what a bound is asked about. Rows are merged into the last layer
 * before they meet a box, which is much tighter than combining bounds of the logits.
 */
export type Specification = Tensor

/** a - b of zeros and ones, by choices alone, which are exact: bounds that round outward take what was computed for rounded. */
const difference = (a: Tensor, b: Tensor): Tensor => select(a, select(b, 0, 1), select(b, -1, 0))

/**
 * Margins z_y - z_j for every class j: `[n] -> [classes, n, classes]`; row j = y is 0. An input is verified iff every lower bound
 * with j != y is > 0.
 */
export const margins = (labels: Tensor, classes: number): Specification => {
  const n = labels.shape[0]
  const own = reshape(oneHot(labels, classes), [1, n, classes])
  const each = equal(reshape(iota(classes), [classes, 1, 1]), reshape(iota(classes), [1, 1, classes]))
  return difference(own, each)
}

/**
 * The margins that can be lost, z_y - z_j for j != y ascending: `[n] -> [classes - 1, n, classes]`. One row less to carry than `margins`,
 * whose row y is 0 by construction.
 */
export const rivals = (labels: Tensor, classes: number): Specification => {
  const n = labels.shape[0]
  const [place, next] = [0, 1].map((first) => reshape(iota(classes - 1, first), [classes - 1, 1]))
  const other = select(greaterEqual(place, reshape(labels, [1, n])), next, place)
  const each = equal(reshape(other, [classes - 1, n, 1]), iota(classes))
  return difference(reshape(oneHot(labels, classes), [1, n, classes]), each)
}

/**
 * Worst-case logits m_j = upper bound of z_j - z_y, so m_y = 0, from lower bounds of the rows of `rivals`: `[classes - 1, n] -> [n, classes]`.
 * Any criterion that grows with z_j - z_y is at least its true value over the box when judged on them.
 */
export const worstCaseLogits = (lower: Tensor, labels: Tensor): Tensor => {
  const m = transpose(neg(lower), [1, 0])
  const [n, others] = m.shape
  const j = iota(others + 1)
  const y = reshape(labels, [n, 1])
  const [before, after] = [pad(m, [0, 0], [0, 1]), pad(m, [0, 1], [0, 0])]
  return select(greater(y, j), before, select(greater(j, y), after, 0))
}

/** a + b rounded towards infinity: the rounding error of a double sum is a double (TwoSum, Knuth). */
const sumUp = (a: number, b: number): number => {
  const s = a + b
  const other = s - a
  const error = a - (s - other) + (b - other)
  return error > 0 ? nextDouble(s) : s
}

/**
 * That an image keeps its label in the l-inf ball of radius epsilon, cut to the range, as a property: unsafe is z_y - z_j <= 0 for some j != y, the
 * opposite of what every verifier of margins claims. The ends of the box are rounded inward, its `outward` ones outward.
 */
export const robustness = (
  pixels: ArrayLike<number>,
  label: number,
  classes: number,
  epsilon: Epsilon | number,
  [low, high]: Range,
): UnsafeProperty => {
  const { below, above } = doublesOf(epsilon)
  const ends = (end: (p: number) => number) => Float64Array.from(pixels, (p) => Math.min(high, Math.max(low, end(p))))
  const margin = (rival: number): Constraint => {
    const coefficients = new Float64Array(classes)
    coefficients[label] = 1
    coefficients[rival] = -1
    return { coefficients, bound: 0, outward: 0 }
  }
  const others = Array.from({ length: classes }, (_, j) => j).filter((j) => j !== label)
  return {
    inputs: pixels.length,
    outputs: classes,
    cases: [
      {
        lower: ends((p) => sumUp(p, -below)),
        upper: ends((p) => -sumUp(-p, -below)),
        outward: { lower: ends((p) => -sumUp(-p, above)), upper: ends((p) => sumUp(p, above)) },
        unsafe: others.map((j) => [margin(j)]),
      },
    ],
  }
}
