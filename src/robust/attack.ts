import { fold, uniform } from '../core/key.ts'
import * as S from '../core/shape.ts'
import type { Apply, Tensor } from '../core/tensor.ts'
import { add, feed, type Host, maximum, minimum, mul, sign, stopGradient, sub, sum } from '../ops/index.ts'
import { grad } from '../tape/vjp.ts'
import type { Range } from './perturbation.ts'

/** What an attack raises: one number per image from logits `[n, k]` and labels `[n]`. */
type Judge = (logits: Tensor, labels: Tensor) => Tensor

export interface Target {
  readonly logits: Apply
  readonly inputs: Tensor
  readonly labels: Tensor
  readonly epsilon: Tensor
  readonly range: Range
}

/** Inputs inside the box that an attack proposes, as a graph of the same shape as the inputs; no gradient flows through it. */
export type Attack = (target: Target) => Tensor

export interface Pgd {
  readonly steps: number
  /** As a share of epsilon: the step is `stepSize * epsilon`. */
  readonly stepSize: number
  /** Start at a uniformly random point of the box, drawn anew at each run (`noise`: uniform in [-1, 1)), or at the input. */
  readonly start: 'random' | 'input'
}

/** Uniform in [-1, 1), for one random start. The name tells draws of one step apart. */
export const noise = (name: string, shape: S.Shape): Tensor =>
  feed(name, shape, (h: Host) => uniform(fold(h.key, name), S.size(shape), -1, 1))

/**
 * Projected gradient descent on the l-inf ball (arXiv:1706.06083): x <- clip(x + stepSize epsilon sign(gradient of the judge)), projected
 * to the ball and to the valid range after each step. `start` gives the first point relative to the ball, in units of epsilon.
 */
export const pgdFrom =
  ({ steps, stepSize }: Omit<Pgd, 'start'>, judge: Judge, start: Tensor | undefined): Attack =>
  ({ logits, inputs, labels, epsilon, range }) => {
    const lower = maximum(sub(inputs, epsilon), range[0])
    const upper = minimum(add(inputs, epsilon), range[1])
    const project = (x: Tensor) => minimum(maximum(x, lower), upper)
    const stride = mul(epsilon, stepSize)
    let x: Tensor = start === undefined ? inputs : project(add(inputs, mul(epsilon, start)))
    for (let t = 0; t < steps; t++) {
      const at = stopGradient(x)
      const [g] = grad(sum(judge(logits(at), labels)), [at])
      x = project(add(at, mul(stride, sign(g))))
    }
    return stopGradient(x)
  }

/** `pgdFrom` with the start that the options name. */
export const pgd =
  ({ start, ...rest }: Pgd, judge: Judge): Attack =>
  (target) =>
    pgdFrom(rest, judge, start === 'random' ? noise('pgd', target.inputs.shape) : undefined)(target)

/** One step of size epsilon from the input (arXiv:1412.6572). */
export const fgsm = (judge: Judge): Attack => pgd({ steps: 1, stepSize: 1, start: 'input' }, judge)
