import { getMonoid as functionMonoid } from 'fp-ts/lib/function.js'
import type { Monoid } from 'fp-ts/lib/Monoid.js'
import { choose as chooseIndices, bernoulli as draw, fold, integers } from '../core/key.ts'
import { interval } from '../core/op.ts'
import type { Apply, Interval, Tensor } from '../core/tensor.ts'
import type { Named } from '../nn/layers.ts'
import {
  add as addNodes,
  choose,
  exp,
  feed,
  gather,
  type Host,
  imagesKey,
  log,
  maximum,
  mul,
  probe,
  scalar,
  sub,
} from '../ops/index.ts'
import type { Range } from '../robust/perturbation.ts'
import type { Specification } from '../robust/specification.ts'

/** What a loss is taken of: nodes, so that a new batch or a new epsilon never recompiles. */
export interface Step {
  /** `[n, ...shape]`. */
  readonly inputs: Tensor
  /** `[n]`, class numbers. */
  readonly labels: Tensor
  readonly classes: number
  /** l-inf radius in input units, a scalar. */
  readonly epsilon: Tensor
  /** Valid inputs; boxes and attacks are cut to it. */
  readonly range: Range
  /** `[n]`: factors of the images in every mean over them, where images were drawn with unequal probabilities. Default: 1 each. */
  readonly weights?: Tensor
  /** Whether bounds are of the network with the statistics of the population (`withPopulation`). Default: false. */
  readonly population?: boolean
  /** Parts of the images that a robust term takes one after the other, to need less memory. Default: 1. */
  readonly parts?: number
  /** How many micro-batches the batch has, of which these images are one. Default: 1. */
  readonly microBatches?: number
}

/** A model with its parameters bound. */
export interface Model {
  readonly logits: Apply
  readonly parameters: Named<Tensor>
  /** The same with the statistics of the population in its batch norms, as they were before the step; absent without batch norm. */
  readonly population?: Apply
}

/**
 * The loss with its bounds taken of the network with population statistics, as CTBench trains (arXiv:2406.04848): what is bounded is then what will be evaluated, each image by itself, and
 * no gradient of a bound flows through statistics. Clean and adversarial terms keep those of the batch. Without batch norm it is the loss.
 *
 * @example
 *   const loss = withPopulation(verifiable(ibp))
 */
export const withPopulation =
  (loss: Loss): Loss =>
  (step) =>
    loss({ ...step, population: true })

/** What bounds are taken of. */
export const boundedLogits = ({ population = false }: Pick<Step, 'population'>, model: Model): Apply =>
  (population ? model.population : undefined) ?? model.logits

/** A training objective: a scalar graph. Losses are values; the combinators below are the whole language. */
export type Loss = (step: Step) => (model: Model) => Tensor
/** Inputs `[n, ...shape]` inside the step's ball: clean, or as an attack proposes them. */
export type Inputs = (step: Step) => (model: Model) => Tensor
/** A box of inputs `[n, ...shape]`, inside the step's ball cut to the valid range. */
export type Region = (step: Step) => (model: Model) => Interval
/** Logits `[n, classes]` to judge: clean, under attack, or worst-case. */
export type Logits = (step: Step) => (model: Model) => Tensor
/** Boxes of the inputs of the nonlinear ops over a region (pre-activation bounds), in the network's order. */
export type Hidden = (step: Step) => (model: Model) => readonly Interval[]
/** Bounds of rows of a specification `[rows, n, classes]`, as intervals `[rows, n]`, over a region. */
export type Bounds = (step: Step) => (model: Model) => (spec: Specification) => Interval

/**
 * One graph for one step and model, however often it is asked for. Draws of an attack are leaves, and leaves are never merged: inputs that two terms
 * share would be attacked twice, with the same result.
 */
export const once = <A>(f: (step: Step) => (model: Model) => A): ((step: Step) => (model: Model) => A) => {
  const known = new WeakMap<Step, WeakMap<Model, { readonly value: A }>>()
  return (step) => (model) => {
    const models = known.get(step) ?? new WeakMap<Model, { readonly value: A }>()
    const made = models.get(model) ?? { value: f(step)(model) }
    known.set(step, models.set(model, made))
    return made.value
  }
}

/** A number that may follow the host's state, as pure data -> number. */
export type Schedule = (host: Host) => number
/** A factor of a term: a number, or a schedule that gives one in each step. */
export type Weight = number | Schedule

/** 1 - w. */
export const complement = (w: Weight): Weight => (typeof w === 'number' ? 1 - w : (h) => 1 - w(h))

const fed = (w: Schedule): Tensor => feed('weight', [], (h) => Float32Array.of(w(h)))

const ZERO = scalar(0)
const tensorMonoid: Monoid<Tensor> = {
  empty: ZERO,
  concat: (x, y) => (x === ZERO ? y : y === ZERO ? x : addNodes(x, y)),
}

/**
 * Losses add up, pointwise: associative, with `zero` as the unit (which adds no node). Derived, not written.
 *
 * @example
 *   const loss = getMonoid().concat(natural(crossEntropy), robust(ibp, worstCase(crossEntropy)))
 */
export const getMonoid = (): Monoid<Loss> => functionMonoid(functionMonoid(tensorMonoid)<Model>())<Step>()

/** The loss that is 0: the unit of `add`. */
export const zero: Loss = getMonoid().empty

/**
 * x + y + ..., pointwise; of none it is `zero`.
 *
 * @example
 *   const loss = add(natural(crossEntropy), scale(0.1)(robust(ibp, worstCase(crossEntropy))))
 */
export const add = (...losses: readonly Loss[]): Loss => losses.reduce(getMonoid().concat, zero)

/** A weight times a graph; 0 drops the graph (0 * inf is NaN, and a warm-up must not pay for bounds), 1 adds no node. */
const weighted = (w: Weight, x: Tensor): Tensor =>
  typeof w === 'number'
    ? w === 0 || x === ZERO
      ? ZERO
      : w === 1
        ? x
        : mul(w, x)
    : choose((h) => (w(h) === 0 ? 0 : 1), [ZERO, mul(fed(w), x)])

/**
 * w x. `scale(a)(scale(b)(x)) = scale(a b)(x)`, `scale(a)(add(x, y)) = add(scale(a)(x), scale(a)(y))`, `scale(0)(x) = zero`.
 *
 * @example
 *   const loss = scale(0.1)(natural(crossEntropy))
 */
export const scale =
  (w: Weight) =>
  (loss: Loss): Loss =>
  (step) =>
  (model) =>
    weighted(w, loss(step)(model))

const mixNodes = (a: Weight, x: () => Tensor, y: () => Tensor): Tensor => {
  if (typeof a === 'number') return a === 0 ? x() : a === 1 ? y() : (addNodes(mul(1 - a, x()), mul(a, y())) as Tensor)
  const [p, q] = [x(), y()]
  const share = fed(a)
  return choose((h) => (a(h) === 0 ? 0 : a(h) === 1 ? 1 : 2), [p, q, addNodes(mul(sub(1, share), p), mul(share, q))])
}

/**
 * (1 - a) x + a y, a in [0, 1]. `mix(a)(x, x) = x`, `mix(a)(x, y) = mix(1 - a)(y, x)`; at 0 and 1 it is x and y alone, whatever the
 * other is (NaN included). Not associative.
 *
 * @example
 *   const loss = mix(0.7)(natural(crossEntropy), robust(crown, worstCase(crossEntropy)))
 */
export const mix =
  (a: Weight) =>
  (x: Loss, y: Loss): Loss =>
  (step) =>
  (model) =>
    mixNodes(
      a,
      () => x(step)(model),
      () => y(step)(model),
    )

/**
 * `mix` on logits, before they are judged (CC-IBP, arXiv:2305.13991).
 *
 * @example
 *   const loss = judged(crossEntropy)(mixLogits(0.3)(attacked(madry(8)), worstLogits(bounded(ibp))))
 */
export const mixLogits =
  (a: Weight) =>
  (x: Logits, y: Logits): Logits =>
  (step) =>
  (model) =>
    mixNodes(
      a,
      () => x(step)(model),
      () => y(step)(model),
    )

/**
 * `mix` on bounds, end by end: sound, as both are (CROWN-IBP's beta, arXiv:1906.06316). A bound whose weight is 0 is not computed.
 *
 * @example
 *   const bounds = mixBounds(0.5)(bounded(ibp), bounded(crown))
 */
export const mixBounds =
  (a: Weight) =>
  (x: Bounds, y: Bounds): Bounds =>
  (step) =>
  (model) => {
    const [p, q] = [x(step)(model), y(step)(model)]
    return (spec) => {
      const end = (which: 'lower' | 'upper') =>
        mixNodes(
          a,
          () => p(spec)[which],
          () => q(spec)[which],
        )
      return interval(end('lower'), end('upper'))
    }
  }

/** Below this, a factor of a product of powers has no gradient: log is steep there, and exactly 0 in float32 at some point. */
const LEAST = 1e-12

/**
 * x^(1 - a) y^a of losses >= 0, a in [0, 1]: `mix` in the space of logarithms (EXP-IBP, arXiv:2305.13991). At 0 and 1 it is x and y alone, whatever the other is;
 * `geometric(a)(x, x) = x`.
 *
 * @example
 *   const loss = geometric(0.5)(adversarial(8), robust(ibp, worstCase(crossEntropy)))
 */
export const geometric =
  (a: Weight) =>
  (x: Loss, y: Loss): Loss =>
  (step) =>
  (model) => {
    const logarithm = (loss: Loss) => log(maximum(loss(step)(model), LEAST))
    const mean = (share: Tensor | number) =>
      exp(addNodes(mul(sub(1, share), logarithm(x)), mul(share, logarithm(y)))) as Tensor
    if (typeof a === 'number') return a === 0 ? x(step)(model) : a === 1 ? y(step)(model) : mean(a)
    const branches = [x(step)(model), y(step)(model), mean(fed(a))]
    return choose((h) => (a(h) === 0 ? 0 : a(h) === 1 ? 1 : 2), branches)
  }

/**
 * x y, pointwise: the product of two scalar losses (TAPS, arXiv:2305.04574).
 *
 * @example
 *   const loss = product(natural(crossEntropy), robust(ibp, worstCase(crossEntropy)))
 */
export const product =
  (x: Loss, y: Loss): Loss =>
  (step) =>
  (model) =>
    mul(x(step)(model), y(step)(model))

/** Whether a term takes part in a step. */
export type Gate = (host: Host) => boolean
/** The gate that is open in every step. */
export const always: Gate = () => true
/**
 * Open with probability p in [0, 1], independently in each step. Gates of one name open together; name them to draw apart.
 *
 * @example
 *   const loss = gate(bernoulli(0.8))(robust(symbolic, worstCase(crossEntropy)))
 */
export const bernoulli =
  (p: number, name = 'gate'): Gate =>
  (h) =>
    draw(fold(h.key, name), p)
/**
 * Of every `period` steps, the last `open`, 0 <= open <= period: whole batches alternate between natural and robust.
 *
 * @example
 *   const loss = gate(alternate(2, 10))(robust(symbolic, worstCase(crossEntropy)))
 */
export const alternate =
  (open: number, period = 10): Gate =>
  (h) =>
    h.count % period >= period - open

/**
 * The loss in steps where the gate is open, 0 in others, which do not compute it.
 *
 * @example
 *   const loss = gate(bernoulli(0.8))(robust(symbolic, worstCase(crossEntropy)))
 */
export const gate =
  (g: Gate) =>
  (loss: Loss): Loss =>
  (step) =>
  (model) =>
    g === always ? loss(step)(model) : choose((h) => (g(h) ? 1 : 0), [ZERO, loss(step)(model)])

/**
 * A loss that depends on a schedule: `scheduled(kappa, (k) => mix(complement(k))(natural, robust))`.
 *
 * @example
 *   const loss = scheduled(({ progress }) => progress, (w) => scale(w)(natural(crossEntropy)))
 */
export const scheduled = (schedule: Weight, f: (weight: Weight) => Loss): Loss => f(schedule)

/** Of k images that `of` micro-batches share, how many one takes: floor(k / of) or one more; the latter lie evenly apart and go round with the steps. */
export const shareOf = (k: number, { micro, count }: Pick<Host, 'micro' | 'count'>, of: number): number => {
  const left = k % of
  const place = ((micro?.index ?? 0) + count) % of
  return Math.floor(k / of) + (Math.floor(((place + 1) * left) / of) - Math.floor((place * left) / of))
}

/** A loss on k images that micro-batches share: of each the loss on so many images, with the factor that makes the mean over micro-batches the mean over the k. */
export const shared = (
  k: number,
  { microBatches: of = 1 }: Pick<Step, 'microBatches'>,
  on: (some: number) => (model: Model) => Tensor,
): ((model: Model) => Tensor) => {
  const few = Math.floor(k / of)
  const drawn = (some: number) => (some === 0 ? () => ZERO : on(some))
  if (k % of === 0) return drawn(few)
  return (model) => {
    const [less, more] = [few, few + 1].map((some) => weighted((of * some) / k, drawn(some)(model)))
    return choose((h) => shareOf(k, h, of) - few, [less, more])
  }
}

/**
 * Stochastic robust approximation (arXiv:1811.02625): the loss on k images of the batch, drawn anew in each step, without replacement
 * unless told otherwise; terms of one name draw the same images. Its mean over all draws is the loss on the whole batch, for a loss that is a mean over images.
 *
 * Of M micro-batches, each draws floor(k / M) or one more of its own images, with the factor that makes the mean over micro-batches the mean over the k: as a batch is in random order, every k of
 * its images are equally likely all the same.
 *
 * @example
 *   const loss = sampled(5)(robust(symbolic, worstCase(crossEntropy)))
 */
export const sampled =
  (k: number, how: 'without replacement' | 'with replacement' = 'without replacement', name = 'sample') =>
  (loss: Loss): Loss =>
  (step) => {
    const n = step.inputs.shape[0]
    const of = step.microBatches ?? 1
    if (how === 'without replacement' && k >= n * of) return loss(step)
    return shared(k, step, (some) => {
      const indices = feed(name, [some], (h) => {
        const key = fold(imagesKey(h), name)
        return Float32Array.from(how === 'with replacement' ? integers(key, some, n) : chooseIndices(key, n, some))
      })
      return loss(picked(step, indices))
    })
  }

/** The step on the images of these indices `[k]`, each with a factor `[k]` of its own in means, if given. */
export const picked = (step: Step, indices: Tensor, factors?: Tensor): Step => {
  const before = step.weights && gather(step.weights, indices)
  const weights = before && factors ? mul(before, factors) : (before ?? factors)
  return {
    ...step,
    inputs: gather(step.inputs, indices),
    labels: gather(step.labels, indices),
    ...(weights === undefined ? {} : { weights }),
  }
}

/**
 * The loss under a name in the metrics of a run (`natural`, `robust`), as it is here: weights round it do not show. The value is unchanged.
 *
 * @example
 *   const loss = named('worst')(judged(crossEntropy)(worstLogits(bounded(ibp))))
 */
export const named =
  (name: string) =>
  (loss: Loss): Loss =>
  (step) =>
  (model) => {
    const value = loss(step)(model)
    return value === ZERO ? value : probe(name, value)
  }
