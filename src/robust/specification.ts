import type { Tensor } from '../core/tensor.ts'
import { equal, iota, reshape, sub } from '../ops/index.ts'

/**
 * Rows of linear functionals of the logits, `[rows, n, classes]`: what a bound is asked about. Rows are merged into the last layer
 * before they meet a box, which is much tighter than combining bounds of the logits.
 */
export type Specification = Tensor

/** 1 at the label: `[n] -> [n, classes]`. */
export const oneHot = (labels: Tensor, classes: number): Tensor =>
  equal(reshape(labels, [labels.shape[0], 1]), iota(classes)) as Tensor

/**
 * Margins z_y - z_j for every class j: `[n] -> [classes, n, classes]`; row j = y is 0. An input is verified iff every lower bound
 * with j != y is > 0.
 */
export const margins = (labels: Tensor, classes: number): Specification => {
  const n = labels.shape[0]
  const own = reshape(oneHot(labels, classes), [1, n, classes])
  const each = equal(reshape(iota(classes), [classes, 1, 1]), reshape(iota(classes), [1, 1, classes]))
  return sub(own, each) as Tensor
}
