import * as E from 'fp-ts/lib/Either.js'
import { Micro } from '../core/lowering.ts'
import { apply, interval, lowerOf, type Op, type Slope, upperOf } from '../core/op.ts'
import type { Operand, Tensor } from '../core/tensor.ts'
import { up } from './directed.ts'
import {
  add,
  clamp,
  divideWhere,
  maximum,
  minimum,
  mul,
  neg,
  reluLines,
  select,
  sign,
  step,
  straddles,
  sub,
} from './elementwise.ts'
import { elementwise, unary } from './maker.ts'
import { increasing } from './shape.ts'

/** Piecewise linear functions with one kink at 0, and their lines. */

/**
 * Lines of reluLines that hold in real arithmetic whatever rounding made of their slopes: any slope p in [a, 1] is sound below, and above
 * s x + t is for s in [a, 1] as soon as t >= (a - s) l and t >= (1 - s) u, both of which are computed upward.
 */
const reluOutward = (l: Tensor, u: Tensor, a: number, slope: Slope) => {
  const stable = select(step(maximum(l, u)), 1, a)
  const { lower, upper } = reluLines(l, u, a, slope)
  const unstable = straddles(l, u)
  const sound = ([s]: readonly Tensor[]): Tensor => select(unstable, clamp(s, a, 1), stable)
  const chord = sound(upper.slopes)
  const product = (p: Tensor, q: Tensor) => up(mul(up(p), q))
  const intercept = select(unstable, maximum(product(sub(chord, a), neg(l)), product(sub(1, chord), u)), 0)
  const line = lower.slopes[0] === upper.slopes[0] ? chord : sound(lower.slopes)
  return { lower: { slopes: [line], intercept: undefined }, upper: { slopes: [chord], intercept } }
}

/** max(x, 0). The gradient at 0 is 0. */
export const reluOp: Op<undefined> = elementwise(
  {
    name: 'relu',
    exact: 'elements',
    nonnegative: 'always',
    vjp: (ct, [x]) => [mul(ct, step(x))],
    interval: increasing(() => reluOp),
    relax: ([x], _, slope) => reluLines(lowerOf(x), upperOf(x), 0, slope),
    leak: () => 0,
    outward: {
      interval: 'exact',
      relax: ([x], _, slope) => reluOutward(lowerOf(x), upperOf(x), 0, slope),
    },
  },
  Micro.relu,
  (a) => Math.max(a, 0),
)

/** Lines of |x| on [l, u]: the chord above; below, a line through 0 of the chord's slope, of slope 0, or of the sign of the wider side. */
const absLines = (l: Tensor, u: Tensor, slope: Slope) => {
  const unstable = straddles(l, u)
  const stable = sign(add(l, u))
  const chord = divideWhere(unstable, add(u, l), sub(u, l), stable)
  const line = slope === 'same' ? chord : slope === 'zero' ? select(unstable, 0, stable) : stable
  return {
    lower: { slopes: [line] },
    upper: { slopes: [chord], intercept: select(unstable, sub(u, mul(chord, u)), 0) },
  }
}

/** |x|. The gradient at 0 is 0. */
export const absOp: Op<undefined> = elementwise(
  {
    name: 'abs',
    exact: 'elements',
    nonnegative: 'always',
    vjp: (ct, [x]) => [mul(ct, sign(x))],
    interval: ([x]) => {
      const [p, q] = [abs(lowerOf(x)), abs(upperOf(x))]
      return interval(select(straddles(lowerOf(x), upperOf(x)), 0, minimum(p, q)), maximum(p, q))
    },
    relax: ([x], _, slope) => absLines(lowerOf(x), upperOf(x), slope),
    outward: {
      interval: 'exact',
      // Any slope in [-1, 1] holds below; above, |x| - s x is largest at an end.
      relax: ([x], _, slope) => {
        const [l, u] = [lowerOf(x), upperOf(x)]
        const { lower, upper } = absLines(l, u, slope)
        const s = clamp(upper.slopes[0], -1, 1)
        const intercept = maximum(up(mul(up(add(1, s)), neg(l))), up(mul(up(sub(1, s)), u)))
        return {
          lower: { slopes: [lower.slopes[0] === upper.slopes[0] ? s : clamp(lower.slopes[0], -1, 1)] },
          upper: { slopes: [s], intercept: select(straddles(l, u), intercept, 0) },
        }
      },
    },
  },
  Micro.abs,
  (a) => Math.abs(a),
)

/**
 * max(0, x), elementwise; the derivative at 0 is 0. Bounds: the chord above, a line through 0 below, by the method.
 *
 * @example
 *   relu(constant([-1, 2], [2])) // [0, 2]
 *
 * @function
 */
export const relu = unary(reluOp, undefined)

/**
 * |x|, elementwise. The gradient at 0 is 0.
 *
 * @example
 *   abs(constant([-2, 3], [2])) // [2, 3]
 *
 * @function
 */
export const abs = unary(absOp, undefined)

/** max(x, slope x), 0 <= slope < 1, a float32 number. Runs as its expansion; relaxed as one piece. */
export const leakyReluOp: Op<{ readonly slope: number }> = {
  name: 'leakyRelu',
  shape: ([x], { slope }) => (slope >= 0 && slope < 1 ? E.right(x) : E.left(`slope ${slope} must lie in [0, 1)`)),
  vjp: (ct, [x], _, { slope }) => [mul(ct, add(slope, mul(1 - slope, step(x))))],
  interval: increasing(() => leakyReluOp),
  relax: ([x], { slope: a }, slope) => reluLines(lowerOf(x), upperOf(x), a, slope),
  leak: ({ slope }) => slope,
  outward: {
    interval: 'rounded',
    relax: ([x], { slope: a }, slope) => reluOutward(lowerOf(x), upperOf(x), a, slope),
  },
  kernel: { expand: ([x], { slope }) => maximum(x, mul(slope, x)) },
}

/**
 * max(x, slope x), the slope rounded to float32, so that it is one function on every device.
 *
 * @example
 *   leakyRelu(0.1)(constant([-1, 2], [2])) // [-0.1, 2]
 */
export const leakyRelu =
  (slope: number) =>
  <T extends Operand>(x: T): T =>
    apply(leakyReluOp, [x], { slope: Math.fround(slope) }) as T
