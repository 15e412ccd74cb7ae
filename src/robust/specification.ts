import type { Tensor } from '../core/tensor.ts'
import { equal, greater, greaterEqual, iota, neg, oneHot, pad, reshape, select, transpose } from '../ops/index.ts'

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
 *
 * @example
 *   margins(constant([2], [1]), 3).shape // [3, 1, 3]
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
 *
 * @example
 *   rivals(constant([2], [1]), 3).shape // [2, 1, 3]
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
