import { apply, interval, lowerOf, type Op, upperOf } from '../core/op.ts'
import { roundDown, roundUp } from '../core/rounding.ts'
import type { Interval, Operand, Tensor } from '../core/tensor.ts'
import { clip } from './clipped.ts'
import { COMPOSED, type Enclosure, enclosed, type Function1, ofOperand, smooth } from './composed.ts'
import { add, clamp, div, greater, maximum, minimum, mul, neg, select, sub } from './elementwise.ts'
import { erf, erfOp, softplus, softplusOp } from './increasing.ts'
import { type Smooth, sampled, sampledOutward } from './lines.ts'
import { unary } from './maker.ts'
import { lifted, real } from './outward.ts'
import { exp, sigmoid, tanh } from './smooth.ts'

/** Activations with one valley: they fall to their least value and rise from there. */

interface Valley extends Smooth {
  /** Where the function is least, and a number just below what it is there: it falls before and rises behind. */
  readonly at: number
  readonly least: number
  /** Encloses it, and what is known of it far out (ops/lines.ts). */
  readonly value: Enclosure
  readonly reach: number
}

/** The place of the least value is known to this. */
const NEAR = 2 ** -10

/** Encloses a function that falls and rises: its ends, and the least value where that may be inside. */
const valleyRange =
  ({ value, at, least }: Valley) =>
  (x: Operand): Interval => {
    const [l, u] = [lowerOf(x), upperOf(x)]
    const [p, q] = [value(l), value(u)]
    const inside = mul(greater(roundUp(at + NEAR), l), greater(u, roundDown(at - NEAR)))
    return interval(
      select(inside, roundDown(least), minimum(p.lower, q.lower)) as Tensor,
      maximum(p.upper, q.upper) as Tensor,
    )
  }

/** Interval and lines of a function that falls to its least value and rises from there. */
const valley = <A>(name: string, make: (attrs: A) => Valley, check?: (attrs: A) => string | undefined): Op<A> => {
  const op: Op<A> = smooth(
    name,
    make,
    {
      interval: ([x], attrs) => {
        const { at, least } = make(attrs)
        const [l, u] = [lowerOf(x), upperOf(x)]
        const [p, q] = [l, u].map((end) => apply(op, [end], attrs) as Tensor)
        return interval(select(mul(greater(at, l), greater(u, at)), least, minimum(p, q)) as Tensor, maximum(p, q))
      },
      relax: (xs, attrs, slope) => sampled(make(attrs))(xs, attrs, slope),
      outward: {
        interval: ([x], attrs) => valleyRange(make(attrs))(x),
        relax: (xs, attrs, slope) => sampledOutward(make(attrs), valleyRange(make(attrs)))(xs, attrs, slope),
        steep: true,
        ulps: COMPOSED,
        scale: ofOperand,
      },
    },
    check,
  )
  return op
}

/**
 * Beyond 6 all four of these are concave, less than 0 on the left and less than x on the right:
 *
 * - x Phi(x): f'' = (2 - x^2) phi(x) < 0 for |x| > sqrt 2.
 * - x s(x), s the sigmoid: f'' = s (1 - s) (2 - x tanh(x / 2)) < 0 for |x| >= 3, where x tanh(x / 2) >= 2.71 increases.
 * - x s(2 q), q = c (x + 0.044715 x^3), as f(-x) = f(x) - x it is enough to look at x >= 3. With h = s(-2 q), f = x - x h and (x h)'' =
 *   h (1 - h) (-4 q' + x (4 q'^2 (1 - 2 h) - 2 q'')), where q' >= 1.76, 1 - 2 h > 0.99 and 4 q' + 2 x q'' < 3.96 x q'^2.
 * - x tanh(log(1 + e^x)) = x n / (n + 2), n = e^2x + 2 e^x, r = 1 / (n + 2): on the right x - f = 2 x r and (2 x r)'' = 2 r^2 (-2 n' + x (2 n'^2 r - n'')),
 *   where n' <= 2.1 e^2x, 2 n'^2 r >= 7.9 e^2x, n'' <= 4.1 e^2x; on the left f'' = 2 r^2 (2 n' + x (n'' - 2 n'^2 r)), where n' <= 2.04 e^x, n'' >= 2 e^x and 2 n'^2 r <= 0.08 e^x.
 *
 * f(x) < 0 for x < 0 and f(x) < x for x > 0, since the second factor of each lies in (0, 1).
 */
const REACH = 6

/** Beyond it an exponential of the argument is 1 or nothing to the function; keeps powers of it finite. */
const FAR = 20
const near: Function1 = (x) => clamp(x, -FAR, FAR) as Tensor

const ROOT = Math.sqrt(2 / Math.PI)

const gelus: Readonly<Record<'none' | 'tanh', Valley>> = {
  none: {
    f: (x) => mul(mul(0.5, x), add(1, erf(mul(x, Math.SQRT1_2) as Tensor))) as Tensor,
    df: (x) => {
      const cdf = mul(0.5, add(1, erf(mul(x, Math.SQRT1_2) as Tensor)))
      const density = mul(ROOT / 2, exp(mul(-0.5, mul(x, x)) as Tensor))
      return add(cdf, mul(x, density)) as Tensor
    },
    curvature: 0.7979,
    reach: REACH,
    value: (x) => {
      const cdf = enclosed.add(1, lifted(erfOp, undefined)(enclosed.mul(x, real(Math.SQRT1_2))))
      return enclosed.mul(mul(0.5, x), cdf)
    },
    at: -0.7517915130054444,
    least: -0.1699712075,
  },
  tanh: {
    f: (x) => mul(mul(0.5, x), add(1, tanh(mul(ROOT, add(x, mul(0.044715, mul(x, mul(x, x))))) as Tensor))) as Tensor,
    df: (x) => {
      const y = near(x)
      const t = tanh(mul(ROOT, add(y, mul(0.044715, mul(y, mul(y, y))))) as Tensor)
      const inner = mul(ROOT, add(1, mul(3 * 0.044715, mul(y, y))))
      return add(mul(0.5, add(1, t)), mul(mul(mul(0.5, y), sub(1, mul(t, t))), inner)) as Tensor
    },
    curvature: 0.7979,
    reach: REACH,
    value: (x) => {
      const cube = enclosed.mul(x, enclosed.mul(x, x))
      const inner = enclosed.mul(real(ROOT), enclosed.add(x, enclosed.mul(real(0.044715), cube)))
      return enclosed.mul(mul(0.5, x), enclosed.add(1, enclosed.tanh(inner)))
    },
    at: -0.7524614066473527,
    least: -0.1700407506,
  },
}

/** x Phi(x), arXiv:1606.08415: by the error function, or its approximation by tanh. */
export const geluOp: Op<{ readonly approximate: 'none' | 'tanh' }> = valley(
  'gelu',
  ({ approximate }) => gelus[approximate],
  ({ approximate }) =>
    approximate in gelus ? undefined : `approximate ${JSON.stringify(approximate)} must be "none" or "tanh"`,
)
/**
 * x times the normal distribution function of x, or its approximation by tanh (arXiv:1606.08415).
 *
 * @example
 *   gelu()(constant([-1, 0, 1], [3])) // [-0.1587, 0, 0.8413]
 */
export const gelu =
  (approximate: 'none' | 'tanh' = 'none') =>
  <T extends Operand>(x: T): T =>
    apply(geluOp, [x], { approximate }) as T

/** x sigmoid(x), also called swish, arXiv:1710.05941. */
export const siluOp: Op<undefined> = valley('silu', () => ({
  f: (x) => mul(x, sigmoid(x)) as Tensor,
  df: (x) => mul(sigmoid(x), add(1, mul(x, sigmoid(neg(x))))) as Tensor,
  curvature: 0.5,
  reach: REACH,
  value: (x) => enclosed.mul(x, enclosed.sigmoid(x)),
  at: -1.278464542761074,
  least: -0.2784645428,
}))
/**
 * x / (1 + e^-x), elementwise (swish, arXiv:1710.05941).
 *
 * @example
 *   silu(constant([-1, 0, 1], [3])) // [-0.2689, 0, 0.7311]
 *
 * @function
 */
export const silu = unary(siluOp, undefined)

/** x clip(x / 6 + 1 / 2, 0, 1), arXiv:1905.02244. */
export const hardSwishOp: Op<undefined> = valley('hardSwish', () => {
  // x / 6 is one rounding; x times the number next to 1 / 6 would be another function.
  const gate: Function1 = (x) => clip(add(div(x, 6), 0.5) as Tensor, 0, 1)
  return {
    f: (x) => mul(x, gate(x)) as Tensor,
    df: (x) => add(gate(x), mul(mul(greater(x, -3), greater(3, x)), div(x, 6))) as Tensor,
    // Beyond 3 it is its asymptote.
    reach: 3,
    value: (x) => enclosed.mul(x, clip(enclosed.add(enclosed.div(x, 6), 0.5), 0, 1)),
    curvature: 0.33334,
    kinks: [-3, 3],
    at: -1.5,
    least: -0.3750001,
  }
})
/**
 * x max(0, min(1, x / 6 + 1 / 2)), elementwise (arXiv:1905.02244).
 *
 * @example
 *   hardSwish(constant([-4, 0, 3], [3])) // [0, 0, 3]
 *
 * @function
 */
export const hardSwish = unary(hardSwishOp, undefined)

/** x tanh(log(1 + e^x)), arXiv:1908.08681. */
export const mishOp: Op<undefined> = valley('mish', () => ({
  f: (x) => mul(x, tanh(softplus(x))) as Tensor,
  df: (x) => {
    const t = tanh(softplus(x))
    return add(t, mul(mul(near(x), sigmoid(x)), sub(1, mul(t, t)))) as Tensor
  },
  curvature: 0.6443,
  reach: REACH,
  value: (x) => enclosed.mul(x, enclosed.tanh(lifted(softplusOp, undefined)(x))),
  at: -1.192431217806879,
  least: -0.3088434131,
}))
/**
 * x tanh(log(1 + e^x)), elementwise (arXiv:1908.08681).
 *
 * @example
 *   mish(constant([-1, 0, 1], [3])) // [-0.3034, 0, 0.8651]
 *
 * @function
 */
export const mish = unary(mishOp, undefined)
