import type { Tensor } from '../core/tensor.ts'
import { greater, logSumExp, max, maximum, mul, select, sub, sum } from '../ops/index.ts'
import { oneHot } from '../robust/specification.ts'

/** A judgement of logits `[n, k]` against labels `[n]`: one number per image, `[n]`. */
export type Criterion = (logits: Tensor, labels: Tensor) => Tensor

const own = (logits: Tensor, labels: Tensor): Tensor => sum(mul(logits, oneHot(labels, logits.shape[1])), 1)

/** The largest logit of the other classes. */
const rival = (logits: Tensor, labels: Tensor): Tensor => max(select(oneHot(labels, logits.shape[1]), -3e38, logits), 1)

/** log(sum_j e^z_j) - z_y. */
export const crossEntropy: Criterion = (z, y) => sub(logSumExp(z, 1), own(z, y))

/** Carlini-Wagner margin max(max_{j != y} z_j - z_y, -confidence) (arXiv:1608.04644). */
export const marginLoss =
  (confidence = 0): Criterion =>
  (z, y) =>
    maximum(sub(rival(z, y), own(z, y)), -confidence)

/** 1 where the label alone has the largest logit, else 0, also where a logit is NaN. */
export const correct: Criterion = (z, y) => greater(own(z, y), rival(z, y))
