import { fold, uniform } from '../core/key.ts'
import * as S from '../core/shape.ts'
import type { Apply, Norm, Tensor } from '../core/tensor.ts'
import {
  abs,
  add,
  clamp,
  div,
  feed,
  greater,
  type Host,
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
} from '../ops/index.ts'
import { grad } from '../tape/vjp.ts'
import type { Range } from './perturbation.ts'

/** What an attack raises: one number per image from logits `[n, k]` and labels `[n]`. */
export type Judge = (logits: Tensor, labels: Tensor) => Tensor

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

export interface Pgd {
  readonly steps: number
  /** As a share of epsilon: the step is `stepSize * epsilon`. */
  readonly stepSize: number
  /** Start at a uniformly random point of the box, drawn anew at each run (`noise`: uniform in [-1, 1)), or at the input. */
  readonly start: 'random' | 'input'
}

/** The usual step of PGD, as a share of epsilon: 1 / 30 from 40 steps on (0.01 at 0.3, arXiv:1706.06083), else 2.5 / steps. */
export const usualStep = (steps: number): number => (steps >= 40 ? 1 / 30 : 2.5 / steps)

/** Uniform in [-1, 1), for one random start. The name tells draws of one step apart. */
export const noise = (name: string, shape: S.Shape): Tensor =>
  feed(name, shape, (h: Host) => uniform(fold(h.key, name), S.size(shape), -1, 1))

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

/** Normalised steps; what is outside comes back along its radius. */
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

/**
 * Projected gradient descent (arXiv:1706.06083): x <- project(x + a step of stepSize epsilon along the gradient of the judge), into the ball of the target's
 * norm and the valid range. The step is the sign of the gradient for l-inf, the gradient at length 1 for l2, the steepest coordinates for l1. `start` gives the
 * first point relative to the ball, in units of epsilon.
 */
export const pgdFrom =
  (options: Omit<Pgd, 'start'>, judge: Judge, start: Tensor | undefined): Attack =>
  (target) => {
    const { inputs, epsilon, norm } = target
    return start === undefined
      ? ascended(options, judge, inputs)(target)
      : ascended(options, judge, geometry(norm)(target).project(add(inputs, mul(epsilon, start))))(target)
  }

/** The same from a point of the ball. With `keep` each image gets the first of its iterates, the start included, for which that is largest, else the last one. */
export const ascended =
  ({ steps, stepSize }: Omit<Pgd, 'start'>, judge: Judge, from: Tensor, keep?: Judge): Attack =>
  (target) => {
    const { logits, labels, epsilon, norm } = target
    const { project, ascend } = geometry(norm)(target)
    const stride = mul(epsilon, stepSize)
    let x = from
    let best: { readonly x: Tensor; readonly score: Tensor } | undefined
    const kept = (at: Tensor, z: Tensor) => {
      if (keep === undefined) return undefined
      const score = keep(z, labels)
      if (best === undefined) return { x: at, score }
      const better = greater(score, best.score)
      const images = reshape(better, [at.shape[0], ...at.shape.slice(1).map(() => 1)])
      return { x: select(images, at, best.x), score: select(better, score, best.score) }
    }
    for (let t = 0; t < steps; t++) {
      const at = stopGradient(x)
      const z = logits(at)
      best = kept(at, z)
      const [g] = grad(sum(judge(z, labels)), [at])
      x = project(ascend(at, g, stride))
    }
    return stopGradient((keep === undefined ? undefined : kept(x, logits(x)))?.x ?? x)
  }

/** `pgdFrom` with the start that the options name. */
export const pgd =
  ({ start, ...rest }: Pgd, judge: Judge): Attack =>
  (target) =>
    pgdFrom(rest, judge, start === 'random' ? noise('pgd', target.inputs.shape) : undefined)(target)

/** One step of size epsilon from the input (arXiv:1412.6572). */
export const fgsm = (judge: Judge): Attack => pgd({ steps: 1, stepSize: 1, start: 'input' }, judge)
