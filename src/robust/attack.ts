import { grad, vjp } from '../compile/vjp.ts'
import { fold, uniform } from '../core/key.ts'
import * as S from '../core/shape.ts'
import type { Apply, Norm, Tensor } from '../core/tensor.ts'
import { type Criterion, marginLoss } from '../nn/criterion.ts'
import {
  abs,
  add,
  clamp,
  div,
  equal,
  feed,
  greater,
  type Host,
  imagesKey,
  max,
  maximum,
  minimum,
  mul,
  reshape,
  select,
  sign,
  sqrt,
  stopGradient,
  sub,
  sum,
  zeros,
} from '../ops/index.ts'
import type { Range } from './perturbation.ts'

/** What an attack works on: the network as a function, the images that it begins at, their labels and the ball. */
export interface Target {
  readonly logits: Apply
  readonly inputs: Tensor
  readonly labels: Tensor
  readonly epsilon: Tensor
  readonly range: Range
  /** Default: linf. */
  readonly norm?: Norm
}

/** Inputs inside the ball that an attack proposes, as a graph of the same shape as the inputs; no gradient flows through it. */
export type Attack = (target: Target) => Tensor

/** Settings of projected gradient ascent (arXiv:1706.06083). */
export interface Pgd {
  readonly steps: number
  /** As a share of epsilon: the step is `stepSize * epsilon`. */
  readonly stepSize: number
  /** Start at a uniformly random point of the box, drawn anew at each run (`noise`: uniform in [-1, 1)), or at the input. */
  readonly start: 'random' | 'input'
  /**
   * What is raised at an image where the gradient of the criterion with respect to its logits is 0: cross-entropy underflows where one logit is far above the
   * others, and an attack would stand still. Default: the margin. null: nothing.
   */
  readonly fallback?: Criterion | null
}

/** max_{j != y} z_j - z_y, whose gradient never is 0 at the logits. */
export const margin: Criterion = marginLoss(3e38)

/**
 * The usual step of PGD, as a share of epsilon: 1 / 30 from 40 steps on (0.01 at 0.3, arXiv:1706.06083), else 2.5 / steps.
 *
 * @example
 *   usualStep(10) // 0.25
 */
export const usualStep = (steps: number): number => (steps >= 40 ? 1 / 30 : 2.5 / steps)

/** Uniform in [-1, 1), for one random start. The name tells draws of one step apart. */
export const noise = (name: string, shape: S.Shape): Tensor =>
  feed(name, shape, (h: Host) => uniform(fold(imagesKey(h), name), S.size(shape), -1, 1))

// ---- the ball, as an attack moves in it ------------------------------------------------------------------------------

/** How to stay in a ball round the inputs and in the valid range, and which way is up in it. */
interface Geometry {
  readonly project: (x: Tensor) => Tensor
  /** One step of a length (in input units) along the gradient, before it is projected. */
  readonly ascend: (at: Tensor, gradient: Tensor, length: Tensor) => Tensor
}

type Ground = Pick<Target, 'inputs' | 'epsilon' | 'range'>

const axesOf = (x: Tensor): readonly number[] => [...x.shape.keys()].slice(1)
const TINY = 1e-30

/** Signed steps, clipped. */
const square = ({ inputs, epsilon, range }: Ground): Geometry => {
  const lower = maximum(sub(inputs, epsilon), range[0])
  const upper = minimum(add(inputs, epsilon), range[1])
  return {
    project: (x) => minimum(maximum(x, lower), upper),
    ascend: (at, g, length) => add(at, mul(length, sign(g))),
  }
}

/** Normalized steps; what is outside comes back along its radius. */
const round = ({ inputs, epsilon, range }: Ground): Geometry => {
  const norm = (d: Tensor) => sqrt(sum(mul(d, d), axesOf(d), true))
  return {
    project: (x) => {
      const d = sub(x, inputs)
      const shrunk = mul(d, minimum(1, div(epsilon, maximum(norm(d), TINY))))
      return clamp(add(inputs, shrunk) as Tensor, range[0], range[1])
    },
    ascend: (at, g, length) => add(at, mul(length, div(g, maximum(norm(g), TINY)))),
  }
}

/** Halvings of the search for the threshold of an l1 projection; float32 has no more bits. */
const HALVINGS = 26
/** A step in l1 goes to coordinates whose gradient is at least this share of the largest. */
const STEEP = 0.8

/** Steps to the few steepest coordinates that can still move; what is outside is soft-thresholded (Duchi et al. 2008). */
const diamond = ({ inputs, epsilon, range }: Ground): Geometry => ({
  project: (x) => {
    const d = sub(x, inputs)
    const size = abs(d)
    let low: Tensor = mul(max(size, axesOf(d), true), 0)
    let high: Tensor = max(size, axesOf(d), true)
    const rest = (threshold: Tensor) => maximum(sub(size, threshold), 0)
    for (let i = 0; i < HALVINGS; i++) {
      const middle = mul(add(low, high), 0.5)
      const over = greater(sum(rest(middle), axesOf(d), true), epsilon)
      low = add(low, mul(over, sub(middle, low)))
      high = sub(high, mul(sub(1, over), sub(high, middle)))
    }
    const inside = sub(1, greater(sum(size, axesOf(d), true), epsilon))
    const moved = add(inputs, mul(sign(d), rest(mul(high, sub(1, inside)))))
    return clamp(moved as Tensor, range[0], range[1])
  },
  ascend: (at, g, length) => {
    const free = add(mul(greater(g, 0), greater(range[1], at)), mul(greater(0, g), greater(at, range[0]))) as Tensor
    const slope = mul(abs(g), free)
    const top = maximum(max(slope, axesOf(g), true), TINY)
    const chosen = greater(slope, mul(top, STEEP))
    const count = maximum(sum(chosen, axesOf(g), true), 1)
    return add(at, mul(div(length, count), mul(sign(g), chosen)))
  },
})

export const geometry = (norm: Norm = 'linf'): ((ground: Ground) => Geometry) =>
  ({ linf: square, l2: round, l1: diamond })[norm]

// ---- attacks by gradient ---------------------------------------------------------------------------------------------

/** What a step goes by. */
interface Slope {
  readonly gradient: Tensor
  /** For each image 0 where the gradient is that of the criterion, 1 where it is that of the fallback, 2 where there is none but 0. */
  readonly state: Tensor
}

/** Factors for the gradients of an image by its logits that are below 2^-32, below 2^-96: powers of two, which change no digit. */
const [SMALL, TINIER] = [2 ** -32, 2 ** -96]
const [RAISE, LIFT] = [2 ** 64, 2 ** 112]

/**
 * The gradient of a criterion with respect to points, up to a positive factor for each image: attacks only ask for its direction. Small gradients with respect to
 * the logits are scaled, so that they do not underflow on their way to the points, and those that are 0 are replaced by the fallback's.
 */
export const slopeOf = (
  criterion: Criterion,
  fallback: Criterion | null,
  [at, z, labels]: readonly [points: Tensor, logits: Tensor, labels: Tensor],
): Slope => {
  const byLogits = (j: Criterion) => grad(sum(j(z, labels)), [z])[0]
  const own = byLogits(criterion)
  const size = max(abs(own), axesOf(own), true)
  const scaled = mul(own, select(greater(SMALL, size), select(greater(TINIER, size), LIFT, RAISE), 1))
  const none = equal(size, 0)
  const replaced = fallback !== null && fallback !== criterion
  const ct = replaced ? select(none, byLogits(fallback), scaled) : scaled
  const [gradient] = vjp([z], [ct], [at])
  const still = equal(max(abs(gradient), axesOf(gradient)), 0)
  return { gradient, state: select(still, 2, replaced ? reshape(none, still.shape) : 0) }
}

/** Points that an ascent came to, and for each image the largest state of its steps (`Slope`). */
interface Ascent {
  readonly points: Tensor
  readonly state: Tensor
}

/**
 * Projected gradient descent (arXiv:1706.06083): x <- project(x + a step of stepSize epsilon along the gradient of the criterion), into the ball of the target's
 * norm and the valid range. The step is the sign of the gradient for l-inf, the gradient at length 1 for l2, the steepest coordinates for l1. `start` gives the
 * first point relative to the ball, in units of epsilon.
 */
export const pgdFrom =
  (options: Omit<Pgd, 'start'>, criterion: Criterion, start: Tensor | undefined): Attack =>
  (target) => {
    const { inputs, epsilon, norm } = target
    return start === undefined
      ? ascended(options, criterion, inputs)(target).points
      : ascended(options, criterion, geometry(norm)(target).project(add(inputs, mul(epsilon, start))))(target).points
  }

/** Where an ascent stands: its points, the largest state of its steps so far, and the best iterate before these points with its score. */
export interface Standing {
  readonly points: Tensor
  readonly state: Tensor
  readonly best?: { readonly points: Tensor; readonly score: Tensor } | undefined
}

/** The iterate of larger score for each image, the earlier one of equal ones, given the logits at the points. */
export const bestOf = (keep: Criterion, z: Tensor, labels: Tensor, { points, best }: Standing) => {
  const score = keep(z, labels)
  if (best === undefined) return { points, score }
  const better = greater(score, best.score)
  const images = reshape(better, [points.shape[0], ...points.shape.slice(1).map(() => 1)])
  return { points: select(images, points, best.points), score: select(better, score, best.score) }
}

/** One step of an ascent; no gradient flows through it. */
export const ascendedOnce =
  ({ stepSize, fallback = margin }: Pick<Pgd, 'stepSize' | 'fallback'>, criterion: Criterion, keep?: Criterion) =>
  ({ logits, labels, ...ground }: Target, from: Standing): Standing => {
    const { project, ascend } = geometry(ground.norm)(ground)
    const at = stopGradient(from.points)
    const z = logits(at)
    const best = keep === undefined ? undefined : bestOf(keep, z, labels, { ...from, points: at })
    const slope = slopeOf(criterion, fallback, [at, z, labels])
    return {
      points: project(ascend(at, slope.gradient, mul(ground.epsilon, stepSize))),
      state: maximum(from.state, slope.state),
      best,
    }
  }

/** The same from a point of the ball. With `keep` each image gets the first of its iterates, the start included, for which that is largest, else the last one. */
const ascended =
  ({ steps, ...options }: Omit<Pgd, 'start'>, criterion: Criterion, from: Tensor, keep?: Criterion) =>
  (target: Target): Ascent => {
    const step = ascendedOnce(options, criterion, keep)
    let at: Standing = { points: from, state: zeros([from.shape[0]]) }
    for (let t = 0; t < steps; t++) at = step(target, at)
    const last = keep === undefined ? at : bestOf(keep, target.logits(at.points), target.labels, at)
    return { points: stopGradient(last.points), state: at.state }
  }

/**
 * Projected gradient ascent of a criterion (arXiv:1706.06083, section 2.1): x <- clip(x + stepSize epsilon sign(gradient)), for l2 and l1 along the steepest direction of the norm, projected onto the ball and cut to the
 * valid range, from the start that the options name; `[n, ...shape] -> [n, ...shape]`.
 *
 * @example
 *   const attack = pgd({ steps: 10, stepSize: usualStep(10), start: 'random' }, crossEntropy)
 */
export const pgd =
  ({ start, ...rest }: Pgd, criterion: Criterion): Attack =>
  (target) =>
    pgdFrom(rest, criterion, start === 'random' ? noise('pgd', target.inputs.shape) : undefined)(target)

/**
 * The attack in a ball of `factor` times the radius, factor > 0, cut to the valid range: training attacks of 2305.13991 see more than the ball that is certified.
 *
 * @example
 *   const attack = wider(2)(fgsm(crossEntropy))
 */
export const wider =
  (factor: number) =>
  (attack: Attack): Attack =>
    factor === 1 ? attack : (target) => attack({ ...target, epsilon: mul(target.epsilon, factor) })

/**
 * One step of size epsilon from the input (arXiv:1412.6572): x + epsilon sign(gradient of the criterion), cut to the valid range; `[n, ...shape] -> [n, ...shape]`.
 *
 * @example
 *   const attack = fgsm(crossEntropy)
 */
export const fgsm = (criterion: Criterion): Attack => pgd({ steps: 1, stepSize: 1, start: 'input' }, criterion)
