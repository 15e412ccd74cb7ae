import type { Tensor } from '../core/tensor.ts'
import { add, argmax, exp, greater, logSoftmax, logSumExp, max, maximum, mul, select, sub, sum } from '../ops/index.ts'
import { oneHot } from '../robust/specification.ts'

/** A judgement of logits `[n, k]` against labels `[n]`: one number per image, `[n]`. */
export type Criterion = (logits: Tensor, labels: Tensor) => Tensor

const own = (logits: Tensor, labels: Tensor): Tensor => sum(mul(logits, oneHot(labels, logits.shape[1])), 1)

/** Below every logit, and finite: infinities would make NaN. */
const LOWEST = -3e38

/** The logits of the other classes, the label's far below them. */
const others = (logits: Tensor, labels: Tensor): Tensor => select(oneHot(labels, logits.shape[1]), LOWEST, logits)

/** The largest logit of the other classes. */
const rival = (logits: Tensor, labels: Tensor): Tensor => max(others(logits, labels), 1)

/** log(sum_j e^z_j) - z_y. */
export const crossEntropy: Criterion = (z, y) => sub(logSumExp(z, 1), own(z, y))

/** Carlini-Wagner margin max(max_{j != y} z_j - z_y, -confidence) (arXiv:1608.04644). */
export const marginLoss =
  (confidence = 0): Criterion =>
  (z, y) =>
    maximum(sub(rival(z, y), own(z, y)), -confidence)

/** 1 where the label alone has the largest logit, else 0, also where a logit is NaN. */
export const correct: Criterion = (z, y) => greater(own(z, y), rival(z, y))

/**
 * Boosted cross-entropy of MART (Wang et al., ICLR 2020): -log p_y - log(1 - max_{j != y} p_j), the second logarithm as a log-sum-exp over all
 * classes but that rival, so that it is finite where the rival's probability is 1 in floating point.
 */
export const boostedCrossEntropy: Criterion = (z, y) => {
  const first = argmax(others(z, y), 1)
  const rest = select(oneHot(first, z.shape[1]), LOWEST, z)
  return add(crossEntropy(z, y), sub(logSumExp(z, 1), logSumExp(rest, 1)))
}

/** KL(p || q) = sum_j p_j (log p_j - log q_j) of the softmax of two sets of logits: `[n, k], [n, k] -> [n]`. 0 where they agree. */
export const divergence = (p: Tensor, q: Tensor): Tensor => {
  const [logP, logQ] = [logSoftmax(p, 1), logSoftmax(q, 1)]
  return sum(mul(exp(logP), sub(logP, logQ)), 1)
}
