import * as E from 'fp-ts/lib/Either.js'
import { raise } from '../core/error.ts'
import { Micro } from '../core/lowering.ts'
import { type Affine, apply, interval, lowerOf, type Op, type Relax, upperOf } from '../core/op.ts'
import { isInterval, type Join, type Operand, type Tensor } from '../core/tensor.ts'
import { down, up } from './directed.ts'
import {
  abs,
  add,
  clamp,
  div,
  divideWhere,
  flat,
  greater,
  greaterEqual,
  maximum,
  minimum,
  mul,
  neg,
  reciprocalInterval,
  relu,
  select,
  step,
  straddles,
  sub,
} from './elementwise.ts'
import { onFinite, type Smooth, sampled } from './lines.ts'
import { type Arg, type Argument, broadcastShape, elementwise, operand, unary } from './maker.ts'
import { full, increasing, unbroadcast } from './shape.ts'
import { curved, exp, log, sigmoid, sqrt, sShaped, tanh } from './smooth.ts'

/**
 * Activations that networks in files have besides relu, leaky relu, sigmoid and tanh. All but erf run as what they expand to, so they are fused and
 * have the same bits on every runtime.
 */

type Function1 = (x: Tensor) => Tensor

/** A unary op that runs as the graph f, with derivative df. */
const smooth = <A>(
  name: string,
  make: (attrs: A) => { readonly f: Function1; readonly df: Function1 },
  rest: Pick<Op<A>, 'interval' | 'relax'> & Partial<Pick<Op<A>, 'domain' | 'outward'>>,
  check: (attrs: A) => string | undefined = () => undefined,
): Op<A> => ({
  name,
  shape: ([x], attrs) => {
    const wrong = check(attrs)
    return wrong === undefined ? E.right(x) : E.left(wrong)
  },
  vjp: (ct, [x], _, attrs) => [mul(ct, make(attrs).df(x))],
  kernel: { expand: ([x], attrs) => make(attrs).f(x) },
  ...rest,
})

// ---- piecewise linear ------------------------------------------------------------------------------------------------

/** The ends of a box and where the limits cut it: all vertices of a clipped line. */
const vertices = (l: Tensor, u: Tensor, low: Tensor, high: Tensor): readonly Tensor[] => [
  l,
  u,
  clamp(low, l, u) as Tensor,
  clamp(high, l, u) as Tensor,
]

/**
 * Lines of x -> min(max(x, low), high) on [l, u]. Above, the chord from (l, f(l)) to the upper limit, or the flat line through f(u): whichever
 * is lower at the centre of the box; below the mirror image. f(x) - p x is linear between vertices, so the least and greatest
 * values there are the intercepts, for slopes as rounded as they may be.
 */
const clipLines =
  (rounding: 'none' | 'outward'): Relax<undefined> =>
  (xs, attrs, slope) => {
    const [x, low, high] = xs
    if (isInterval(low) || isInterval(high)) return flat(() => clipOp)(xs, attrs, slope)
    const [l, u] = [lowerOf(x), upperOf(x)]
    const [fl, fu] = [clip(l, low, high), clip(u, low, high)]
    const rise = sub(fu, fl) as Tensor
    const [top, bottom] = [minimum(u, high), maximum(l, low)] as readonly Tensor[]
    const [above, below] = [sub(top, l), sub(u, bottom)] as readonly Tensor[]
    const slopeOver = (width: Tensor, other: Tensor) =>
      clamp(divideWhere(greater(width, 0), rise, width, other), 0, 1) as Tensor
    const inside = mul(greaterEqual(l, low), greaterEqual(high, u)) as Tensor
    const chord = slopeOver(sub(u, l) as Tensor, inside)
    // Beyond both limits the ends lie on one side of what they would cut off.
    const [up1, low1] = [slopeOver(above, inside), slopeOver(below, inside)]
    const middle = mul(add(l, u), 0.5) as Tensor
    const rising = select(greaterEqual(high, middle), up1, 0) as Tensor
    const falling = select(greaterEqual(middle, low), low1, 0) as Tensor
    const cut = (at: Tensor): Tensor => mul(greater(at, l), greater(u, at)) as Tensor
    const own = (s: Tensor): Tensor => select(maximum(cut(low), cut(high)), s, chord) as Tensor
    const p =
      slope === 'same' ? chord : slope === 'adaptive' ? falling : own(slope === 'zero' ? full(l.shape, 0) : slope)
    const q = slope === 'same' ? chord : rising
    const points = vertices(l, u, low, high)
    const rest = (s: Tensor, end: 'below' | 'above'): Tensor => {
      const values = points.map((v) => {
        const f = clip(v, low, high)
        if (rounding === 'none') return sub(f, mul(s, v)) as Tensor
        return end === 'below' ? down(sub(f, up(mul(s, v)))) : up(sub(f, down(mul(s, v))))
      })
      return values.reduce((a, b) => (end === 'below' ? minimum(a, b) : maximum(a, b)))
    }
    const none = [full(low.shape, 0), full(high.shape, 0)]
    return {
      lower: { slopes: [p, ...none], intercept: rest(p, 'below') },
      upper: { slopes: [q, ...none], intercept: rest(q, 'above') },
    }
  }

/**
 * `clip(x, low, high)`: x limited to [low, high], limits that broadcast to x; infinite ones do not limit. Where low > high the result is high. ReLU6 is
 * `clip(x, 0, 6)`, hardtanh `clip(x, -1, 1)`, hard sigmoid a clip of an affine function. Value and bounds are exact.
 */
export const clipOp: Op<undefined> = {
  name: 'clip',
  shape: (shapes) =>
    E.Chain.chain(broadcastShape(shapes), (out) =>
      out.length === shapes[0].length && out.every((d, i) => d === shapes[0][i])
        ? E.right(out)
        : E.left('the limits must broadcast to the tensor that they limit'),
    ),
  vjp: (ct, [x, low, high], out) => {
    const over = greater(maximum(x, low), high)
    const within = sub(1, over)
    return [
      mul(ct, mul(greaterEqual(x, low), within)),
      unbroadcast(mul(ct, mul(greater(low, x), within)), out.shape, low.shape),
      unbroadcast(mul(ct, over), out.shape, high.shape),
    ]
  },
  interval: increasing(() => clipOp),
  relax: clipLines('none'),
  outward: { interval: 'exact', relax: clipLines('outward') },
  kernel: { expand: ([x, low, high]) => minimum(maximum(x, low), high) as Tensor },
}

export const clip = <T extends Argument>(x: T, low: Argument, high: Argument): Arg<T> =>
  apply(clipOp, [operand(x), operand(low), operand(high)], undefined) as Arg<T>

/** Lines of x -> x where x >= 0, a x below, for any number a: convex up to 1, concave beyond. */
const preluLines: Relax<undefined> = (xs, attrs, slope) => {
  const [x, a] = xs
  if (isInterval(a)) return flat(() => preluOp)(xs, attrs, slope)
  const [l, u] = [lowerOf(x), upperOf(x)]
  const unstable = straddles(l, u)
  const stable = select(step(maximum(l, u)), 1, a) as Tensor
  const chord = divideWhere(unstable, sub(u, mul(a, l)) as Tensor, sub(u, l), stable)
  const start = select(unstable, sub(u, mul(chord, u)), 0) as Tensor
  const own: Tensor =
    slope === 'same'
      ? chord
      : select(
          unstable,
          slope === 'adaptive' ? select(greater(add(l, u), 0), 1, a) : slope === 'zero' ? a : slope,
          stable,
        )
  const convex = greaterEqual(1, a) as Tensor
  const line = (isChord: Tensor): Affine => ({
    slopes: [select(isChord, chord, own), full(a.shape, 0)],
    intercept: select(isChord, start, 0),
  })
  return { lower: line(sub(1, convex) as Tensor), upper: line(convex) }
}

/**
 * `prelu(x, a)`: x where x >= 0, a x below; a is a parameter that broadcasts to x (a slope per channel: `[c, 1, 1]`), any number. Leaky relu is
 * `leakyRelu(a)`, whose kink branches are split at.
 */
export const preluOp: Op<undefined> = {
  name: 'prelu',
  shape: clipOp.shape,
  vjp: (ct, [x, a], out) => [
    mul(ct, select(greaterEqual(x, 0), 1, a)),
    unbroadcast(mul(ct, minimum(x, 0)), out.shape, a.shape),
  ],
  interval: ([x, a]) => {
    const part = mul(minimum(x, 0), a) as Operand
    if (isInterval(a)) return add(maximum(x, 0), part) as ReturnType<typeof interval>
    const [p, q] = [prelu(lowerOf(x), a), prelu(upperOf(x), a)]
    // With a negative slope the least value of a box round 0 is there.
    const least = select(mul(straddles(lowerOf(x), upperOf(x)), greater(0, a)), 0, minimum(p, q)) as Tensor
    return interval(least, maximum(p, q))
  },
  relax: preluLines,
  kernel: { expand: ([x, a]) => select(greaterEqual(x, 0), x, mul(a, x)) as Tensor },
}

export const prelu = <T extends Operand, U extends Operand>(x: T, a: U): Join<T, U> =>
  apply(preluOp, [x, a], undefined) as Join<T, U>

// ---- increasing --------------------------------------------------------------------------------------------------------

/** `elu(alpha)(x)`, alpha >= 0: x above 0, alpha (e^x - 1) below. Convex for alpha <= 1, else convex below 0 and linear above (SELU). */
export const eluOp: Op<{ readonly alpha: number }> = smooth(
  'elu',
  ({ alpha }) => ({
    f: (x) => select(greater(x, 0), x, mul(alpha, sub(exp(minimum(x, 0)), 1))) as Tensor,
    df: (x) => select(greater(x, 0), 1, mul(alpha, exp(minimum(x, 0)))) as Tensor,
  }),
  {
    interval: increasing(() => eluOp),
    relax: (xs, { alpha }, slope) => {
      const df: Function1 = (x) => select(greater(x, 0), 1, mul(alpha, exp(minimum(x, 0)))) as Tensor
      const f = elu(alpha) as Function1
      const rule = alpha <= 1 ? curved(f, df, 'convex') : onFinite(f, sShaped(f, df))
      return rule(xs, undefined, slope)
    },
  },
  ({ alpha }) => (alpha >= 0 && Number.isFinite(alpha) ? undefined : `alpha ${alpha} must be a number >= 0`),
)
export const elu =
  (alpha = 1) =>
  <T extends Operand>(x: T): T =>
    apply(eluOp, [x], { alpha }) as T

/** `selu(x)`, scale times elu, arXiv:1706.02515. */
export const selu = <T extends Operand>(x: T): T => mul(1.0507009873554805, elu(1.6732632423543772)(x)) as T

/** `celu(alpha)(x)`, alpha > 0: x above 0, alpha (e^(x / alpha) - 1) below. arXiv:1704.07483. */
export const celu =
  (alpha = 1) =>
  <T extends Operand>(x: T): T =>
    (alpha === 1 ? elu(1)(x) : mul(alpha, elu(1)(div(x, alpha) as Operand))) as T

/** log(1 + e^x), convex; without overflow. */
export const softplusOp: Op<undefined> = smooth(
  'softplus',
  () => ({ f: (x) => add(relu(x), log(add(1, exp(neg(abs(x)))))) as Tensor, df: (x) => sigmoid(x) }),
  {
    interval: increasing(() => softplusOp),
    relax: (xs, attrs, slope) => curved(softplus, sigmoid, 'convex')(xs, attrs, slope),
  },
)
export const softplus = unary(softplusOp, undefined)

/** x / (1 + |x|). */
export const softsignOp: Op<undefined> = smooth(
  'softsign',
  () => {
    const df: Function1 = (x) => {
      const r = div(1, add(1, abs(x)))
      return mul(r, r) as Tensor
    }
    return { f: (x) => div(x, add(1, abs(x))) as Tensor, df }
  },
  {
    interval: increasing(() => softsignOp),
    relax: (xs, attrs, slope) => {
      const df: Function1 = (x) => {
        const r = div(1, add(1, abs(x)))
        return mul(r, r) as Tensor
      }
      return onFinite(softsign, sShaped(softsign, df))(xs, attrs, slope)
    },
  },
)
export const softsign = unary(softsignOp, undefined)

const erfSlope: Function1 = (x) => mul(2 / Math.sqrt(Math.PI), exp(neg(mul(x, x)))) as Tensor

/** The error function, 2 / sqrt(pi) times the integral of e^-t^2 from 0 to x. */
export const erfOp: Op<undefined> = elementwise(
  {
    name: 'erf',
    vjp: (ct, [x]) => [mul(ct, erfSlope(x))],
    interval: increasing(() => erfOp),
    relax: (xs, attrs, slope) => sShaped(erf, erfSlope)(xs, attrs, slope),
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
export const erf = unary(erfOp, undefined)

// ---- with one valley ---------------------------------------------------------------------------------------------------

interface Valley extends Smooth {
  /** Where the function is least, and a number just below what it is there: it falls before and rises behind. */
  readonly at: number
  readonly least: number
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
    },
    check,
  )
  return op
}

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
export const gelu =
  (approximate: 'none' | 'tanh' = 'none') =>
  <T extends Operand>(x: T): T =>
    apply(geluOp, [x], { approximate }) as T

/** x sigmoid(x), also called swish, arXiv:1710.05941. */
export const siluOp: Op<undefined> = valley('silu', () => ({
  f: (x) => mul(x, sigmoid(x)) as Tensor,
  df: (x) => mul(sigmoid(x), add(1, mul(x, sigmoid(neg(x))))) as Tensor,
  curvature: 0.5,
  at: -1.278464542761074,
  least: -0.2784645428,
}))
export const silu = unary(siluOp, undefined)

/** x clip(x / 6 + 1 / 2, 0, 1), arXiv:1905.02244. */
export const hardSwishOp: Op<undefined> = valley('hardSwish', () => {
  const gate: Function1 = (x) => clip(add(mul(x, 1 / 6), 0.5) as Tensor, 0, 1)
  return {
    f: (x) => mul(x, gate(x)) as Tensor,
    df: (x) => add(gate(x), mul(mul(greater(x, -3), greater(3, x)), mul(x, 1 / 6))) as Tensor,
    curvature: 0.33334,
    kinks: [-3, 3],
    at: -1.5,
    least: -0.3750001,
  }
})
export const hardSwish = unary(hardSwishOp, undefined)

/** x tanh(log(1 + e^x)), arXiv:1908.08681. */
export const mishOp: Op<undefined> = valley('mish', () => ({
  f: (x) => mul(x, tanh(softplus(x))) as Tensor,
  df: (x) => {
    const t = tanh(softplus(x))
    return add(t, mul(mul(near(x), sigmoid(x)), sub(1, mul(t, t)))) as Tensor
  },
  curvature: 0.6443,
  at: -1.192431217806879,
  least: -0.3088434131,
}))
export const mish = unary(mishOp, undefined)

// ---- powers ------------------------------------------------------------------------------------------------------------

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
    const turn = ({ slopes: [s], intercept }: Affine): Affine => ({
      slopes: [neg(s)],
      intercept: neg(intercept as Tensor),
    })
    return { lower: turn(upper), upper: turn(lower) }
  }

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
  },
  ({ exponent }) =>
    Number.isInteger(exponent) && exponent >= 2 && exponent <= 1024
      ? undefined
      : `exponent ${exponent} must be a whole number from 2 to 1024`,
)

/**
 * `pow(exponent)(x)`: x to a constant power. Whole numbers by multiplications (negative ones as a reciprocal), 1/2 and -1/2 by the root, any other
 * as e^(exponent log x), NaN below 0.
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

/** 1 / x: convex above 0, concave below. A box that contains 0 gives (-inf, inf). */
export const reciprocalOp: Op<undefined> = smooth(
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
  },
)
export const reciprocal = unary(reciprocalOp, undefined)

/** x where x > alpha, else 0. It jumps: bounds are those of intervals. */
export const thresholdedRelu =
  (alpha = 1) =>
  <T extends Operand>(x: T): T =>
    select(greater(x, alpha) as Operand, maximum(x, alpha) as Operand, 0) as T

/** clip(alpha x + beta, 0, 1). */
export const hardSigmoid =
  (alpha = 0.2, beta = 0.5) =>
  <T extends Operand>(x: T): T =>
    clip(add(mul(x, alpha), beta) as Operand, 0, 1) as T
