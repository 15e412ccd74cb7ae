import { raise } from '../core/error.ts'
import { type Affine, apply, interval, lowerOf, type Op, type Relax, upperOf } from '../core/op.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import { aboveZero, enclosed, type Function1, smooth } from './composed.ts'
import { stepOut } from './directed.ts'
import { add, div, greater, maximum, minimum, mul, neg, reciprocalInterval, select, straddles } from './elementwise.ts'
import { onFinite } from './lines.ts'
import { unary } from './maker.ts'
import { magnitude } from './outward.ts'
import { abs } from './relu.ts'
import { curved, curvedChoice, exp, log, proved, sqrt, sShaped, sShapedChoice } from './smooth.ts'

/** Powers and reciprocals. */

const power = (x: Tensor, n: number): Tensor => {
  if (n === 1) return x
  const half = power(x, n >> 1)
  const square = mul(half, half) as Tensor
  return n % 2 === 0 ? square : (mul(square, x) as Tensor)
}

/** -x^n is convex below 0 and concave above. */
const oddLines =
  (n: number, df: Function1): Relax<undefined> =>
  (xs, attrs, slope) => {
    const turned: Function1 = (x) => neg(power(x, n))
    const { lower, upper } = sShaped(turned, (x) => neg(df(x)))(xs, attrs, slope)
    return { lower: opposite(upper), upper: opposite(lower) }
  }

/** Encloses x^n, of the magnitude and with the sign of x. */
const powerAbout = (x: Tensor, n: number): Interval => {
  const raised = (m: number): Interval => {
    if (m === 1) return interval(abs(x), abs(x))
    const half = raised(m >> 1)
    const square = enclosed.mul(half, half)
    return m % 2 === 0 ? square : enclosed.mul(square, abs(x))
  }
  const { lower, upper } = raised(n)
  const size = interval(maximum(lower, 0) as Tensor, upper)
  return n % 2 === 0 ? size : aboveZero(x, size, neg(size))
}

/** Even powers are convex; the negative of an odd one is convex below 0 and concave above. */
const powerOutward = (n: number): Relax<unknown> => {
  const slopeOf = (x: Tensor): Interval => enclosed.mul(n, n === 2 ? x : powerAbout(x, n - 1))
  const df: Function1 = (x) => mul(n, power(x, n - 1)) as Tensor
  const everywhere = { least: Number.NEGATIVE_INFINITY }
  if (n % 2 === 0)
    return proved(
      { value: (x) => powerAbout(x, n), slope: slopeOf, inflection: Number.POSITIVE_INFINITY },
      curvedChoice((x) => power(x, n), df, 'convex'),
      everywhere,
    )
  const turned = proved(
    { value: (x) => neg(powerAbout(x, n)), slope: (x) => neg(slopeOf(x)), inflection: 0 },
    sShapedChoice(
      (x) => neg(power(x, n)),
      (x) => neg(df(x)),
    ),
    everywhere,
  )
  return (xs, attrs, slope) => {
    const { lower, upper } = turned(xs, attrs, slope)
    return { lower: opposite(upper), upper: opposite(lower) }
  }
}

/** The line of -f for one of f. */
const opposite = ({ slopes: [s], intercept }: Affine): Affine => ({
  slopes: [neg(s)],
  intercept: neg(intercept as Tensor),
})

/** x^n for a whole number n >= 2, by multiplications. Even powers are convex; odd ones are concave below 0 and convex above. */
export const powOp: Op<{ readonly exponent: number }> = smooth(
  'pow',
  ({ exponent: n }) => ({ f: (x) => power(x, n), df: (x) => mul(n, power(x, n - 1)) as Tensor }),
  {
    interval: ([x], { exponent: n }) => {
      const [l, u] = [lowerOf(x), upperOf(x)]
      const [p, q] = [power(l, n), power(u, n)]
      return n % 2 === 1 ? interval(p, q) : interval(select(straddles(l, u), 0, minimum(p, q)) as Tensor, maximum(p, q))
    },
    relax: (xs, { exponent: n }, slope) => {
      const df: Function1 = (x) => mul(n, power(x, n - 1)) as Tensor
      const f: Function1 = (x) => power(x, n)
      if (n % 2 === 0) return curved(f, df, 'convex')(xs, undefined, slope)
      return onFinite(f, oddLines(n, df))(xs, undefined, slope)
    },
    nonnegative: (_, { exponent }) => exponent % 2 === 0,
    outward: {
      interval: ([x], { exponent: n }) => {
        const [l, u] = [lowerOf(x), upperOf(x)]
        const [p, q] = [powerAbout(l, n), powerAbout(u, n)]
        if (n % 2 === 1) return interval(p.lower, q.upper)
        const least = select(straddles(l, u), 0, minimum(p.lower, q.lower)) as Tensor
        return interval(maximum(least, 0) as Tensor, maximum(p.upper, q.upper) as Tensor)
      },
      relax: (xs, { exponent }, slope) => powerOutward(exponent)(xs, undefined, slope),
      steep: true,
      ulps: 16,
      // By multiplications up to n - 1 roundings, by logarithms 16 units (OpenCL).
      scale: (_, box, { exponent }) => mul(magnitude(box), Math.max(1, exponent / 32)) as Tensor,
    },
  },
  ({ exponent }) =>
    Number.isInteger(exponent) && exponent >= 2 && exponent <= 1024
      ? undefined
      : `exponent ${exponent} must be a whole number from 2 to 1024`,
)

/**
 * `pow(exponent)(x)`: x to a constant power. Whole numbers by multiplications (negative ones as a reciprocal), 1/2 and -1/2 by the root, any other
 * as e^(exponent log x), NaN below 0. Raises a shape error for an exponent that is no finite number.
 *
 * @example
 *   pow(3)(constant([2, -1], [2])) // [8, -1]
 */
export const pow =
  (exponent: number) =>
  <T extends Operand>(x: T): T => {
    if (!Number.isFinite(exponent))
      return raise({ kind: 'shape', op: 'pow', message: `the exponent ${exponent} is not a finite number` })
    if (exponent === 0) return add(mul(x, 0), 1) as T
    if (exponent < 0) return reciprocal(pow(-exponent)(x))
    if (exponent === 1) return x
    if (exponent === 0.5) return sqrt(x)
    return Number.isInteger(exponent)
      ? (apply(powOp, [x], { exponent }) as T)
      : (exp(mul(log(x), exponent) as Operand) as T)
  }

const quotientBox = (x: Operand): Interval => {
  const box = reciprocalInterval(x)
  return stepOut(isInterval(box) ? box : interval(box, box))
}

/** Where x > 0, 1 / x is convex; elsewhere it is -1 / -x. */
const reciprocalOutward: Relax<unknown> = ([x], attrs, slope) => {
  const [l, u] = [lowerOf(x), upperOf(x)]
  const { lower, upper } = quotientBox(x)
  const positive = greater(l, 0) as Tensor
  const known = maximum(positive, greater(0, u)) as Tensor
  const pick = (a: Tensor, b: Tensor): Tensor => select(known, select(positive, a, b), 1) as Tensor
  const f: Function1 = (y) => div(1, y) as Tensor
  const rule = proved(
    {
      value: (y) => quotientBox(interval(y, y)),
      slope: (y) => {
        const r = quotientBox(interval(y, y))
        return neg(enclosed.mul(r, r))
      },
      inflection: Number.POSITIVE_INFINITY,
    },
    curvedChoice(f, (y) => neg(div(1, mul(y, y))) as Tensor, 'convex'),
    { least: Number.NEGATIVE_INFINITY, most: 0 },
  )
  const lines = rule([interval(pick(l, neg(u)), pick(u, neg(l)))], attrs, slope)
  const own = (a: Affine, mirrored: Affine, end: Tensor): Affine => ({
    slopes: [select(known, select(positive, a.slopes[0], mirrored.slopes[0]), 0) as Tensor],
    intercept: select(known, select(positive, a.intercept as Tensor, neg(mirrored.intercept as Tensor)), end) as Tensor,
  })
  return { lower: own(lines.lower, lines.upper, lower), upper: own(lines.upper, lines.lower, upper) }
}

/** 1 / x: convex above 0, concave below. A box that contains 0 gives (-inf, inf). */
export const reciprocalOp: Op<undefined> = smooth<undefined>(
  'reciprocal',
  () => ({
    f: (x) => div(1, x) as Tensor,
    df: (x) => {
      const r = div(1, x)
      return neg(mul(r, r)) as Tensor
    },
  }),
  {
    interval: ([x]) => reciprocalInterval(x) as ReturnType<typeof interval>,
    relax: ([x], attrs, slope) => {
      const [l, u] = [lowerOf(x), upperOf(x)]
      const { lower, upper } = reciprocalInterval(x) as ReturnType<typeof interval>
      const positive = greater(l, 0) as Tensor
      const known = maximum(positive, greater(0, u)) as Tensor
      // Where the box contains 0, any other stands in its place and the ends are what they are.
      const [a, b] = [select(known, l, 1), select(known, u, 1)] as readonly Tensor[]
      const [f, df]: readonly Function1[] = [(y) => div(1, y) as Tensor, (y) => neg(div(1, mul(y, y))) as Tensor]
      const lines = curved(f, df, 'convex')([interval(a, b)], attrs as undefined, slope)
      const pick = (own: Affine, other: Affine, end: Tensor): Affine => ({
        slopes: [select(known, select(positive, own.slopes[0], other.slopes[0]), mul(0, end)) as Tensor],
        intercept: select(known, select(positive, own.intercept as Tensor, other.intercept as Tensor), end) as Tensor,
      })
      return { lower: pick(lines.lower, lines.upper, lower), upper: pick(lines.upper, lines.lower, upper) }
    },
    domain: ['nonzero'],
    outward: { interval: ([x]) => quotientBox(x), relax: reciprocalOutward, steep: true },
  },
)
/**
 * 1 / x, elementwise; bounds are infinite where an interval has 0 inside.
 *
 * @example
 *   reciprocal(constant([2, 4], [2])) // [0.5, 0.25]
 *
 * @function
 */
export const reciprocal = unary(reciprocalOp, undefined)
