import { Micro } from '../core/lowering.ts'
import { apply, type Op } from '../core/op.ts'
import { roundUp } from '../core/rounding.ts'
import type { Operand, Tensor } from '../core/tensor.ts'
import { aboveZero, atLeast, COMPOSED, enclosed, type Function1, smooth, within } from './composed.ts'
import { add, div, greater, minimum, mul, neg, select, sub } from './elementwise.ts'
import { onFinite } from './lines.ts'
import { elementwise, unary } from './maker.ts'
import { near as about, real } from './outward.ts'
import { abs, relu } from './relu.ts'
import { full, increasing } from './shape.ts'
import {
  type Curve,
  curved,
  curvedChoice,
  exp,
  log,
  outwardOf,
  sigmoid,
  sShaped,
  sShapedChoice,
  ULPS,
} from './smooth.ts'

/** Increasing activations that bend: convex, concave, or one and then the other. */

const eluSlope =
  (alpha: number): Function1 =>
  (x) =>
    select(greater(x, 0), 1, mul(alpha, exp(minimum(x, 0)))) as Tensor

/** At the kink the derivative from the left stands: any number between that and 1 is one of a tangent. */
const eluOutward = (alpha: number) => {
  const curve: Curve = {
    value: (x) => aboveZero(x, x, enclosed.mul(real(alpha), enclosed.sub(enclosed.exp(minimum(x, 0)), 1))),
    slope: (x) => aboveZero(x, full(x.shape, 1), enclosed.mul(real(alpha), enclosed.exp(minimum(x, 0)))),
    inflection: alpha <= 1 ? Number.POSITIVE_INFINITY : 0,
  }
  const f = elu(alpha) as Function1
  const choice = alpha <= 1 ? curvedChoice(f, eluSlope(alpha), 'convex') : sShapedChoice(f, eluSlope(alpha))
  return outwardOf(curve, choice, {}, roundUp(Math.max(1, alpha)))
}

/** `elu(alpha)(x)`, alpha >= 0: x above 0, alpha (e^x - 1) below. Convex for alpha <= 1, else convex below 0 and linear above (SELU). */
export const eluOp: Op<{ readonly alpha: number }> = smooth(
  'elu',
  ({ alpha }) => ({
    f: (x) => select(greater(x, 0), x, mul(alpha, sub(exp(minimum(x, 0)), 1))) as Tensor,
    df: eluSlope(alpha),
  }),
  {
    interval: increasing(() => eluOp),
    relax: (xs, { alpha }, slope) => {
      const f = elu(alpha) as Function1
      const df = eluSlope(alpha)
      const rule = alpha <= 1 ? curved(f, df, 'convex') : onFinite(f, sShaped(f, df))
      return rule(xs, undefined, slope)
    },
    outward: {
      interval: (xs, { alpha }) => eluOutward(alpha).interval(xs),
      relax: (xs, { alpha }, slope) => eluOutward(alpha).relax(xs, undefined, slope),
      steep: true,
      ulps: COMPOSED,
      scale: (xs, box, { alpha }) => atLeast(alpha)(xs, box),
    },
  },
  ({ alpha }) => (alpha >= 0 && Number.isFinite(alpha) ? undefined : `alpha ${alpha} must be a number >= 0`),
)
/**
 * x above 0, alpha (e^x - 1) below, elementwise, alpha >= 0 (arXiv:1511.07289).
 *
 * @example
 *   elu()(constant([-1, 2], [2])) // [-0.6321, 2]
 */
export const elu =
  (alpha = 1) =>
  <T extends Operand>(x: T): T =>
    apply(eluOp, [x], { alpha }) as T

/**
 * `selu(x)`, elementwise, scale times elu, arXiv:1706.02515.
 *
 * @example
 *   selu(constant([-1, 1], [2])) // [-1.1113, 1.0507]
 */
export const selu = <T extends Operand>(x: T): T => mul(1.0507009873554805, elu(1.6732632423543772)(x)) as T

/**
 * `celu(alpha)(x)`, alpha > 0: x above 0, alpha (e^(x / alpha) - 1) below. arXiv:1704.07483.
 *
 * @example
 *   celu(2)(constant([-1, 2], [2])) // [-0.7869, 2]
 */
export const celu =
  (alpha = 1) =>
  <T extends Operand>(x: T): T =>
    (alpha === 1 ? elu(1)(x) : mul(alpha, elu(1)(div(x, alpha) as Operand))) as T

/** log(1 + e^x), convex; without overflow. */
export const softplusOp: Op<undefined> = smooth<undefined>(
  'softplus',
  () => ({ f: (x) => add(relu(x), log(add(1, exp(neg(abs(x)))))) as Tensor, df: (x) => sigmoid(x) }),
  {
    interval: increasing(() => softplusOp),
    relax: (xs, attrs, slope) => curved(softplus, sigmoid, 'convex')(xs, attrs, slope),
    outward: outwardOf(
      {
        // At least relu(x).
        value: (x) =>
          within(
            (y) => enclosed.add(relu(y), enclosed.log(enclosed.add(1, enclosed.exp(neg(abs(y)))))),
            relu(x),
            Number.POSITIVE_INFINITY,
          )(x),
        slope: (x) => enclosed.sigmoid(x),
        inflection: Number.POSITIVE_INFINITY,
      },
      (l, u, parallel) => curvedChoice(softplus, sigmoid, 'convex')(l, u, parallel),
      // log(1 + e^x): the sum rounds to a unit in the last place of 1.
      { ulps: COMPOSED, scale: atLeast(1) },
      1,
    ),
  },
)
/**
 * log(1 + e^x), elementwise, without overflow.
 *
 * @example
 *   softplus(constant([-1, 0, 100], [3])) // [0.3133, 0.6931, 100]
 *
 * @function
 */
export const softplus = unary(softplusOp, undefined)

const softsignSlope: Function1 = (x) => {
  const r = div(1, add(1, abs(x)))
  return mul(r, r) as Tensor
}

/** x / (1 + |x|). */
export const softsignOp: Op<undefined> = smooth<undefined>(
  'softsign',
  () => ({ f: (x) => div(x, add(1, abs(x))) as Tensor, df: softsignSlope }),
  {
    interval: increasing(() => softsignOp),
    relax: (xs, attrs, slope) => onFinite(softsign, sShaped(softsign, softsignSlope))(xs, attrs, slope),
    outward: outwardOf(
      {
        value: within((x) => enclosed.div(x, enclosed.add(1, abs(x))), -1, 1),
        slope: within(
          (x) => {
            const r = enclosed.div(1, enclosed.add(1, abs(x)))
            return enclosed.mul(r, r)
          },
          0,
          1,
        ),
        inflection: 0,
      },
      (l, u, parallel) => sShapedChoice(softsign, softsignSlope)(l, u, parallel),
      { ulps: COMPOSED },
      1,
    ),
  },
)
/**
 * x / (1 + abs x), elementwise.
 *
 * @example
 *   softsign(constant([-1, 3], [2])) // [-0.5, 0.75]
 *
 * @function
 */
export const softsign = unary(softsignOp, undefined)

const erfSlope: Function1 = (x) => mul(2 / Math.sqrt(Math.PI), exp(neg(mul(x, x)))) as Tensor

/** The error function, 2 / sqrt(pi) times the integral of e^-t^2 from 0 to x. */
export const erfOp: Op<undefined> = elementwise<undefined>(
  {
    name: 'erf',
    vjp: (ct, [x]) => [mul(ct, erfSlope(x))],
    interval: increasing(() => erfOp),
    relax: (xs, attrs, slope) => sShaped(erf, erfSlope)(xs, attrs, slope),
    outward: outwardOf(
      {
        value: (x) => about(erf(x), ULPS.erf, -1, 1),
        slope: (x) => {
          const square = enclosed.mul(x, x)
          return enclosed.mul(real(2 / Math.sqrt(Math.PI)), enclosed.exp(neg(square)))
        },
        inflection: 0,
      },
      (l, u, parallel) => sShapedChoice(erf, erfSlope)(l, u, parallel),
      // OpenCL allows 16.
      { ulps: 16 },
      roundUp(2 / Math.sqrt(Math.PI)),
    ),
  },
  Micro.erf,
  // Terms of one sign: 2 / sqrt(pi) e^-x^2 times the sum of x (2 x^2)^n / (1 3 5 .. (2 n + 1)).
  (x) => {
    if (!(Math.abs(x) < 6)) return Number.isNaN(x) ? x : Math.sign(x)
    let [sum, term] = [x, x]
    for (let n = 1; Math.abs(term) > 2 ** -60 * Math.abs(sum); n++) {
      term *= (2 * x * x) / (2 * n + 1)
      sum += term
    }
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum
  },
)
/**
 * The error function, elementwise: 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.
 *
 * @example
 *   erf(constant([0, 1], [2])) // [0, 0.8427]
 *
 * @function
 */
export const erf = unary(erfOp, undefined)
