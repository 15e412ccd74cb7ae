import { anatomy } from '../bounds/anatomy.ts'
import type { Boxes } from '../bounds/ibp.ts'
import { grad } from '../compile/vjp.ts'
import { interval } from '../core/op.ts'
import type { Tensor } from '../core/tensor.ts'
import { add, greater, input, maximum, min, minimum, mul, reshape, sign, sub, sum, zeros } from '../ops/index.ts'
import { geometry, type Target } from './attack.ts'
import { symbolic } from './bounds.ts'
import { rivals } from './specification.ts'

/**
 * What the interval attack (arXiv:1906.02282; docs/method.md, section 4) learns from a small box [x - h, x + h] of the valid range round each point:
 * symbolic bounds of the margins say whether the box holds no violation (`proved`, `[n]`), and the coefficients of the least margin, the *interval gradient*, point
 * to where one may be found: to a corner of the ball, `next`. A point gradient sees one x; these see the whole box.
 */
export interface IntervalStep {
  readonly proved: Tensor
  readonly next: Tensor
}

/**
 * points `[n, ...shape]` in the ball of the target, halves `[n]` in input units.
 *
 * @example
 *   const step = intervalStep(10)
 */
export const intervalStep =
  (classes: number) =>
  (target: Target, points: Tensor, halves: Tensor): IntervalStep => {
    const { logits, labels, range } = target
    const x: Tensor = input('x', points.shape)
    const y = logits(x)
    const h = reshape(halves, [halves.shape[0], ...points.shape.slice(1).map(() => 1)])
    const box = interval(maximum(sub(points, h), range[0]), minimum(add(points, h), range[1]))
    const around: Boxes = new Map([[x, box]])
    const small = symbolic(y, around)
    const known: Boxes = new Map(anatomy(y, around).hidden.map((h) => [h, small.node(h)]))
    // The last walk meets the box moved by 0: the derivative with respect to that 0 is the walk's coefficient of the input.
    const shift = zeros(points.shape)
    const moved: Boxes = new Map([[x, interval(add(box.lower, shift) as Tensor, add(box.upper, shift) as Tensor)]])
    const least = min(symbolic(y, moved, known).rows(rivals(labels, classes)).lower, 0)
    const [coefficients] = grad(sum(least), [shift])
    // Past the ball on every side, so that what is left after projecting is a corner of it.
    const far = mul(sign(coefficients), range[1] - range[0])
    return { proved: greater(least, 0), next: geometry(target.norm)(target).project(sub(points, far) as Tensor) }
  }
