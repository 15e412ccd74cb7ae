import { raise, usage } from '../core/error.ts'
import { fold, integers, uniform } from '../core/key.ts'
import type { Shape } from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import type { Criterion } from '../nn/criterion.ts'
import {
  add as addNodes,
  type BatchChoice,
  type Chosen,
  chosen,
  constant,
  div,
  equal,
  feed,
  gather,
  greater,
  greaterEqual,
  type Host,
  iota,
  isGiven,
  minimum,
  mul,
  type Picked,
  reshape,
  select,
  stopGradient,
  sum,
} from '../ops/index.ts'
import { add, type Logits, type Loss, type Model, picked, type Step, sampled, scale, shared } from './loss.ts'

/**
 * Which images of a batch a loss is taken on: stochastic robust approximation (arXiv:1811.02625) with other draws than uniform ones. What `sampled(k)` promises, a mean over
 * all draws that is the loss on the whole batch, holds for `stratified`, `importance` and `controlled` too, for losses that are means over images; `hardest` is biased on purpose.
 *
 * Where a batch is cut into micro-batches, images are chosen of all of it as of a batch in one piece: scores are computed first, of every micro-batch, and the chosen images are then shared out evenly.
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

/** How many images the batch has that a step is, or is a micro-batch of. */
const batchOf = ({ inputs, microBatches = 1 }: Step): number => inputs.shape[0] * microBatches

/**
 * The loss on images chosen of a whole batch by scores of its micro-batches.
 * @throws where what is chosen among are not the images of the batch themselves
 */
const overBatch =
  (choice: Omit<BatchChoice, 'scores'>, scores: Scores, hasFactors = false) =>
  (loss: Loss): Loss =>
  (step) =>
  (model) => {
    const { name, k } = choice
    if (!isGiven(step.inputs) || step.weights !== undefined)
      raise(
        usage(
          `over micro-batches, images are chosen of the batch as it is: take ${name} out of what draws, weighs or changes images`,
        ),
      )
    const made: BatchChoice = { ...choice, scores: stopGradient(scores(step)(model)) }
    return shared(k, step, (some) => {
      const of = (what: keyof Chosen, shape: Shape = [some]) => chosen(made, what, shape)
      return loss({
        ...step,
        inputs: of('inputs', [some, ...step.inputs.shape.slice(1)]),
        labels: of('labels'),
        ...(hasFactors ? { weights: of('factors') } : {}),
      })
    })(model)
  }

/** Numbers of images by score, the largest first, the first of equal ones; NaN counts as largest. */
const descending = (scores: Float32Array): readonly number[] => {
  const rank = (i: number) => (Number.isNaN(scores[i]) ? Number.POSITIVE_INFINITY : scores[i])
  return [...scores.keys()].sort((i, j) => (rank(i) === rank(j) ? i - j : rank(i) > rank(j) ? -1 : 1))
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
  (k: number, scores: Scores, name = 'hardest') =>
  (loss: Loss): Loss =>
  (step) => {
    const n = batchOf(step)
    if (k >= n) return loss(step)
    if (n > step.inputs.shape[0])
      return overBatch({ name, k, pick: (x) => ({ images: descending(x).slice(0, k) }) }, scores)(loss)(step)
    return (model) => {
      const score = stopGradient(scores(step)(model))
      const { above, same } = pairs(select(equal(score, score), score, Number.POSITIVE_INFINITY))
      const earlier = pairs(iota(n)).below
      const place = sum(addNodes(above, mul(same, earlier)), 1)
      return loss(picked(step, imagesAt(place, iota(k))))(model)
    }
  }

/** Places of a systematic sample of k out of n, in order. */
const systematic = (k: number, n: number, { key }: Host, name: string): readonly number[] => {
  const [r] = integers(fold(key, name), 1, n)
  return Array.from({ length: k }, (_, j) => Math.floor((j * n + r) / k))
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
    const n = batchOf(step)
    if (k >= n) return loss(step)
    const tiesOf = ({ key }: Host) => uniform(fold(key, `${name}.order`), n)
    if (n > step.inputs.shape[0]) {
      const pick = (labels: Float32Array, h: Host): Picked => {
        const tie = tiesOf(h)
        const order = [...labels.keys()].sort((i, j) => labels[i] - labels[j] || tie[i] - tie[j] || i - j)
        return { images: systematic(k, n, h, name).map((place) => order[place]) }
      }
      return overBatch({ name, k, pick }, (s) => () => s.labels)(loss)(step)
    }
    const places = feed(name, [k], (h) => Float32Array.from(systematic(k, n, h, name)))
    const ties = feed(`${name}.order`, [n], tiesOf)
    const [label, tie, number] = [step.labels, ties, iota(n)].map(pairs)
    const later = addNodes(tie.below, mul(tie.same, number.below))
    const place = sum(addNodes(label.below, mul(label.same, later)), 1)
    return loss(picked(step, imagesAt(place, places)))
  }

/** The images that draws from [0, 1) fall on where image i has the probability p_i = u / n + (1 - u) s_i / sum_j s_j, each with the factor 1 / (n p_i). */
const inProportion = (scores: Float32Array, u: number, draws: Float32Array): Picked => {
  const n = scores.length
  const total = scores.reduce((a, b) => a + b, 0)
  const p = Float64Array.from(scores, (s) => u / n + (1 - u) * (total > 0 ? s / total : 1 / n))
  let reached = 0
  const sums = p.map((x) => {
    reached += x
    return reached
  })
  // Rounding may leave the last sum below 1.
  const images = Array.from(draws, (d) => Math.min(n - 1, sums.filter((s) => d >= s).length))
  return { images, factors: images.map((i) => 1 / n / p[i]) }
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
    const n = batchOf(step)
    const drawsOf = ({ key }: Host) => uniform(fold(key, name), k).map((r, j) => (j + r) / k)
    if (n > step.inputs.shape[0])
      return overBatch({ name, k, pick: (x, h) => inProportion(x, u, drawsOf(h)) }, scores, true)(loss)(step)(model)
    const score = stopGradient(scores(step)(model))
    const total = sum(score)
    const share = select(greater(total, 0), div(score, select(greater(total, 0), total, 1)), 1 / n)
    const p = addNodes(mul(share, 1 - u), u / n)
    const sums = constant(
      Float64Array.from({ length: n * n }, (_, i) => Number(i % n <= Math.floor(i / n))),
      [n, n],
    )
    const reached = sum(mul(sums, reshape(p, [1, n])), 1)
    const draws = feed(name, [k], drawsOf)
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
