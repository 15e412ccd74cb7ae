import { fold, integers, uniform } from '../core/key.ts'
import type { Tensor } from '../core/tensor.ts'
import type { Criterion } from '../nn/criterion.ts'
import {
  add as addNodes,
  constant,
  div,
  equal,
  feed,
  gather,
  greater,
  greaterEqual,
  imagesKey,
  iota,
  minimum,
  mul,
  reshape,
  select,
  stopGradient,
  sum,
} from '../ops/index.ts'
import { add, type Logits, type Loss, type Model, picked, type Step, sampled, scale } from './loss.ts'

/**
 * Which images of a batch a loss is taken on: stochastic robust approximation (arXiv:1811.02625) with other draws than uniform ones. What `sampled(k)` promises, a mean over
 * all draws that is the loss on the whole batch, holds for `stratified`, `importance` and `controlled` too, for losses that are means over images; `hardest` is biased on purpose.
 */

/** A number for each image of a step, `[n]`, that images are chosen by; no gradient flows through it. */
export type Scores = (step: Step) => (model: Model) => Tensor

/**
 * A criterion of each image: `scored(crossEntropy)(forward)`.
 *
 * @example
 *   const scores = scored(crossEntropy)(worstLogits(bounded(ibp)))
 */
export const scored =
  (criterion: Criterion) =>
  (logits: Logits): Scores =>
  (step) =>
  (model) =>
    criterion(logits(step)(model), step.labels)

/** 1 where a > b, for all pairs: `[n] -> [n, n]`, and the same for equality. */
const pairs = (x: Tensor) => {
  const n = x.shape[0]
  const [row, column] = [reshape(x, [n, 1]), reshape(x, [1, n])]
  return { above: greater(column, row), below: greater(row, column), same: equal(row, column) }
}

/** The number of the image that has each place, from the place of each image: `[n], [k] -> [k]`. */
const imagesAt = (place: Tensor, places: Tensor): Tensor => {
  const n = place.shape[0]
  const match = equal(reshape(place, [1, n]), reshape(places, [places.shape[0], 1]))
  return sum(mul(match, iota(n)), 1)
}

/**
 * The loss on the k images with the largest scores, the first of equal ones; NaN counts as largest. Hard example mining (arXiv:1604.03540): at least the mean over the batch if
 * the loss is the score. From k = n on it is the loss itself.
 *
 * @example
 *   const scores = scored(crossEntropy)(worstLogits(bounded(ibp)))
 *   const loss = hardest(5, scores)(robust(symbolic, worstCase(crossEntropy)))
 */
export const hardest =
  (k: number, scores: Scores) =>
  (loss: Loss): Loss =>
  (step) => {
    const n = step.inputs.shape[0]
    if (k >= n) return loss(step)
    return (model) => {
      const score = stopGradient(scores(step)(model))
      const { above, same } = pairs(select(equal(score, score), score, Number.POSITIVE_INFINITY))
      const earlier = pairs(iota(n)).below
      const place = sum(addNodes(above, mul(same, earlier)), 1)
      return loss(picked(step, imagesAt(place, iota(k))))(model)
    }
  }

/**
 * The loss on k images drawn so that every class has its share of them, to within one: the batch in the order of its labels, in a random order within each, and of it the
 * places floor((j n + r) / k), j = 0 .. k - 1, r uniform in 0 .. n - 1 (systematic sampling; Cochran, Sampling Techniques, chapter 8). Each image is drawn with probability
 * k / n, so the mean over all draws is the loss on the whole batch. From k = n on it is the loss itself.
 *
 * @example
 *   const loss = stratified(5)(robust(symbolic, worstCase(crossEntropy)))
 */
export const stratified =
  (k: number, name = 'stratified') =>
  (loss: Loss): Loss =>
  (step) => {
    const n = step.inputs.shape[0]
    if (k >= n) return loss(step)
    const places = feed(name, [k], (h) => {
      const [r] = integers(fold(imagesKey(h), name), 1, n)
      return Float32Array.from({ length: k }, (_, j) => Math.floor((j * n + r) / k))
    })
    const ties = feed(`${name}.order`, [n], (h) => uniform(fold(imagesKey(h), `${name}.order`), n))
    const [label, tie, number] = [step.labels, ties, iota(n)].map(pairs)
    const later = addNodes(tie.below, mul(tie.same, number.below))
    const place = sum(addNodes(label.below, mul(label.same, later)), 1)
    return loss(picked(step, imagesAt(place, places)))
  }

/**
 * The loss on k images drawn, with replacement, with probabilities p_i = u / n + (1 - u) s_i / sum_j s_j for scores s >= 0, each with the factor 1 / (n p_i) in the mean, so that
 * the mean over all draws is the loss on the whole batch whatever the scores are (importance sampling: arXiv:1803.00942, section 3). Its variance is least where scores
 * follow the loss of each image; u in (0, 1] keeps factors below 1 / u. One draw from each k-th of the distribution.
 *
 * @example
 *   const scores = scored(crossEntropy)(worstLogits(bounded(ibp)))
 *   const loss = importance(5, scores)(robust(symbolic, worstCase(crossEntropy)))
 */
export const importance =
  (k: number, scores: Scores, { u = 0.5, name = 'importance' }: { readonly u?: number; readonly name?: string } = {}) =>
  (loss: Loss): Loss =>
  (step) =>
  (model) => {
    const n = step.inputs.shape[0]
    const score = stopGradient(scores(step)(model))
    const total = sum(score)
    const share = select(greater(total, 0), div(score, select(greater(total, 0), total, 1)), 1 / n)
    const p = addNodes(mul(share, 1 - u), u / n)
    const sums = constant(
      Float64Array.from({ length: n * n }, (_, i) => Number(i % n <= Math.floor(i / n))),
      [n, n],
    )
    const reached = sum(mul(sums, reshape(p, [1, n])), 1)
    const draws = feed(name, [k], (h) => uniform(fold(imagesKey(h), name), k).map((r, j) => (j + r) / k))
    const passed = sum(greaterEqual(reshape(draws, [k, 1]), reshape(reached, [1, n])), 1)
    // Rounding may leave the last sum below 1.
    const indices: Tensor = minimum(passed, n - 1)
    return loss(picked(step, indices, div(1 / n, gather(p, indices))))(model)
  }

/**
 * A dear loss on k images, corrected by a cheap one on all: beta mean_all cheap + mean_R (dear - beta cheap), R as in `sampled` (control variates: Owen, Monte Carlo theory, methods and
 * examples, section 8.9). Its mean over all draws is the dear loss on the whole batch; its variance is that of dear - beta cheap, 0 where the two agree. With symbolic bounds as
 * the dear and interval bounds as the cheap loss, `controlled(k)(certified(symbolic), certified(ibp))`, they do ever better as training goes on.
 *
 * @example
 *   const [dear, cheap] = [symbolic, ibp].map((method) => robust(method, worstCase(crossEntropy)))
 *   const loss = controlled(5)(dear, cheap)
 */
export const controlled =
  (k: number, beta = 1, name?: string) =>
  (dear: Loss, cheap: Loss): Loss =>
    add(scale(beta)(cheap), sampled(k, 'without replacement', name)(add(dear, scale(-beta)(cheap))))
