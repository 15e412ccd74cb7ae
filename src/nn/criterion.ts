import { node } from '../core/op.ts'
import { MOST } from '../core/rounding.ts'
import type { Tensor } from '../core/tensor.ts'
import {
  add,
  argmax,
  crossEntropyOp,
  equal,
  exp,
  greater,
  logitOf,
  logSoftmax,
  logSumExp,
  max,
  maximum,
  mul,
  oneHot,
  reshape,
  select,
  shiftOf,
  sub,
  sum,
} from '../ops/index.ts'

/** A judgement of logits `[n, k]` against labels `[n]`: one number per image, `[n]`. */
export type Criterion = (logits: Tensor, labels: Tensor) => Tensor

/** The logits of the other classes, the label's below them all. */
const others = (logits: Tensor, labels: Tensor): Tensor =>
  select(oneHot(labels, logits.shape[1]), Number.NEGATIVE_INFINITY, logits)

/** The largest logit of the other classes. */
const rival = (logits: Tensor, labels: Tensor): Tensor => max(others(logits, labels), 1)

/**
 * log(sum_j e^(z_j - z_y)), which only differences of logits enter: the same for z and z + c. The gradient is softmax(z) - e_y, which is that of the limit where logits
 * are infinite:
 *
 * - A class at -infinity adds nothing, to the loss or to a gradient.
 * - Where the label's logit is -infinity, or so far below the largest that their difference overflows, the loss is infinite. Its gradient is not: -1 for the label, and
 *   for the others the softmax without it, as PyTorch has it.
 * - Where all logits are -infinity nothing is defined: NaN. A logit of +infinity, which is an overflow, makes the loss infinite and its gradient NaN (0, and 0, if it is
 *   the label's alone).
 *
 * @example
 *   crossEntropy(constant([0, 0], [1, 2]), constant([1], [1])) // [0.6931]
 */
export const crossEntropy: Criterion = (z, y) => node(crossEntropyOp, [z, y], undefined)

/**
 * Carlini-Wagner margin max(max_{j != y} z_j - z_y, -confidence) (arXiv:1608.04644).
 *
 * @example
 *   marginLoss(1)(constant([1, 2, 5], [1, 3]), constant([1], [1])) // [3]
 */
export const marginLoss =
  (confidence = 0): Criterion =>
  (z, y) =>
    maximum(sub(rival(z, y), logitOf(z, y)), -confidence)

/** 1 where the label alone has the largest logit, else 0, also where a logit is NaN. */
export const correct: Criterion = (z, y) => greater(logitOf(z, y), rival(z, y))

/** Below every logit but -infinity. */
const LOWEST = -MOST

/**
 * Boosted cross-entropy of MART (Wang et al., ICLR 2020), `[n, classes], [n] -> [n]`: -log p_y - log(1 - max_{j != y} p_j), the second logarithm as a log-sum-exp over all
 * classes but that rival, so that it is finite where the rival's probability is 1 in floating point. Where no class but the rival has a share, it is infinite, and its gradient is that of the
 * first log-sum-exp.
 */
export const boostedCrossEntropy: Criterion = (z, y) => {
  const own = oneHot(y, z.shape[1])
  // The label is no rival of itself, not even where all others are switched off by -infinity.
  const first = argmax(select(own, Number.NEGATIVE_INFINITY, maximum(z, LOWEST)), 1)
  const shifted = sub(z, shiftOf(z, [1]))
  const rest = select(select(own, 0, oneHot(first, z.shape[1])), Number.NEGATIVE_INFINITY, shifted) as Tensor
  const none = equal(max(rest, 1, true), Number.NEGATIVE_INFINITY) as Tensor
  const total = logSumExp(select(none, 0, rest) as Tensor, 1)
  const left = select(reshape(none, total.shape), Number.NEGATIVE_INFINITY, total)
  return add(crossEntropy(z, y), sub(logSumExp(shifted, 1), left))
}

/**
 * KL(p || q) = sum_j p_j (log p_j - log q_j) of the softmax of two sets of logits: `[n, k], [n, k] -> [n]`. 0 where they agree; a class of probability 0 under p
 * adds nothing.
 *
 * @example
 *   divergence(constant([0, 0], [1, 2]), constant([1, 0], [1, 2])) // [0.1201]
 */
export const divergence = (p: Tensor, q: Tensor): Tensor => {
  const [logP, logQ] = [logSoftmax(p, 1), logSoftmax(q, 1)]
  const share = exp(logP)
  return sum(mul(share, select(equal(share, 0), 0, sub(logP, logQ))), 1)
}
