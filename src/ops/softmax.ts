import { apply, lowerOf, type Op, upperOf } from '../core/op.ts'
import type { Operand, Tensor } from '../core/tensor.ts'
import { add, centre, exp, log, mul, sub } from './elementwise.ts'
import { max } from './reduce.ts'
import {
  type Axes,
  broadcastTo,
  full,
  increasing,
  liftReduced,
  normalise,
  reducedShape,
  reshape,
  stopGradient,
  sum,
} from './shape.ts'

/**
 * log(sum(exp(x))) over axes, shifted by the maximum so that nothing overflows. `[n, k] -> [n]` for axis 1.
 * Relaxation (convex in x): lower, the tangent at the centre c, softmax(c) . (x - c) + lse(c); upper, the constant lse(upper).
 */
export const logSumExpOp: Op<Axes> = {
  name: 'logSumExp',
  shape: ([x], attrs) => reducedShape(x, attrs),
  vjp: (ct, [x], out, attrs) => [mul(liftReduced(ct, x.shape, attrs), exp(sub(x, liftReduced(out, x.shape, attrs))))],
  interval: increasing(() => logSumExpOp),
  relax: {
    relax: ([x], attrs) => {
      const c = centre(x)
      const value = logSumExp(c, attrs.axes, attrs.keep)
      const soft = exp(sub(c, liftReduced(value, c.shape, attrs)))
      return {
        lower: { slopes: [soft], intercept: sub(value, sum(mul(soft, c), attrs.axes, attrs.keep)) },
        // lse(u), and NaN where the lower bound is NaN.
        upper: {
          slopes: [full(c.shape, 0)],
          intercept: add(
            logSumExp(upperOf(x), attrs.axes, attrs.keep),
            mul(0, sum(lowerOf(x), attrs.axes, attrs.keep)),
          ),
        },
      }
    },
    lift: (a, [x], attrs) => liftReduced(a, x.shape, attrs),
  },
  kernel: {
    expand: ([x], attrs) => {
      const m = stopGradient(max(x, attrs.axes, true))
      const s = log(sum(exp(sub(x, m)), attrs.axes, attrs.keep))
      return add(s, reshape(m, s.shape))
    },
  },
}

export const logSumExp = <T extends Operand>(x: T, axes?: readonly number[] | number, keep = false): T =>
  apply(logSumExpOp, [x], { axes: normalise(x.shape.length, axes), keep }) as T

/** x - logSumExp(x): logarithms of probabilities along an axis. */
export const logSoftmax = <T extends Operand>(x: T, axis = -1): T =>
  sub(x, broadcastTo(logSumExp(x, axis, true), x.shape)) as unknown as T

/** Probabilities along an axis. */
export const softmax = (x: Tensor, axis = -1): Tensor => exp(logSoftmax(x, axis))
