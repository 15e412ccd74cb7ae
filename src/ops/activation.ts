import * as E from 'fp-ts/lib/Either.js'
import { raise } from '../core/error.ts'
import { Micro } from '../core/lowering.ts'
import { type Affine, apply, interval, lowerOf, type Op, type Relax, upperOf } from '../core/op.ts'
import { roundDown, roundUp } from '../core/rounding.ts'
import { type Interval, isInterval, type Join, type Operand, type Tensor } from '../core/tensor.ts'
import { down, stepOut, up } from './directed.ts'
import {
  abs,
  add,
  addOp,
  clamp,
  div,
  divideWhere,
  divOp,
  flat,
  greater,
  greaterEqual,
  maximum,
  minimum,
  mul,
  mulOp,
  neg,
  reciprocalInterval,
  relu,
  select,
  step,
  straddles,
  sub,
  subOp,
} from './elementwise.ts'
import { onFinite, type Smooth, sampled, sampledOutward } from './lines.ts'
import { type Arg, type Argument, broadcastShape, elementwise, operand, unary } from './maker.ts'
import { near as about, lifted, magnitude, real, subDown, subUp } from './outward.ts'
import { full, increasing, unbroadcast } from './shape.ts'
import {
  type Curve,
  curved,
  curvedChoice,
  exp,
  expOp,
  log,
  logOp,
  outwardOf,
  proved,
  sigmoid,
  sigmoidOp,
  sqrt,
  sShaped,
  sShapedChoice,
  tanh,
  tanhOp,
  ULPS,
} from './smooth.ts'

/**
 * Activations that networks in files have besides relu, leaky relu, sigmoid and tanh. All but erf run as what they expand to, so they are fused and
 * have the same bits on every runtime.
 */

type Function1 = (x: Tensor) => Tensor

/** A unary op that runs as the graph f, with derivative df. */
const smooth = <A>(
  name: string,
  make: (attrs: A) => { readonly f: Function1; readonly df: Function1 },
  rest: Pick<Op<A>, 'interval' | 'relax'> & Partial<Pick<Op<A>, 'domain' | 'nonnegative' | 'outward'>>,
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

// ---- enclosures --------------------------------------------------------------------------------------------------------

/** Functions in interval arithmetic that holds in real arithmetic: what follows is composed of them, and enclosed step by step. */
const enclosed = {
  add: lifted(addOp, undefined),
  sub: lifted(subOp, undefined),
  mul: lifted(mulOp, undefined),
  div: lifted(divOp, undefined),
  exp: lifted(expOp, undefined),
  log: lifted(logOp, undefined),
  tanh: lifted(tanhOp, undefined),
  sigmoid: lifted(sigmoidOp, undefined),
} as const

type Enclosure = (x: Tensor) => Interval

/** An enclosure cut off where a function does not go. */
const within =
  (f: Enclosure, low: Argument, high: Argument): Enclosure =>
  (x) => {
    const { lower, upper } = f(x)
    return interval(maximum(lower, low) as Tensor, minimum(upper, high) as Tensor)
  }

/** A function that is one thing above 0 and another elsewhere. */
const aboveZero = (x: Tensor, above: Operand, elsewhere: Operand): Interval => {
  const is = greater(x, 0)
  return interval(
    select(is, lowerOf(above), lowerOf(elsewhere)) as Tensor,
    select(is, upperOf(above), upperOf(elsewhere)) as Tensor,
  )
}

/**
 * What is assumed of implementations of functions that are composed of several: each step rounds, exp, log, tanh, sigmoid and erf are off by as much as
 * they may be by themselves (ops/smooth.ts), and the sum of all that is at most 32 units in the last place of the size that a function says.
 */
const COMPOSED = 32
/** Sizes: of the operand, and of a number that a result is a difference from. */
const ofOperand = ([x]: readonly Operand[], box: Interval): Tensor => maximum(magnitude(x), magnitude(box)) as Tensor
const atLeast =
  (size: number) =>
  (_: readonly Operand[], box: Interval): Tensor =>
    maximum(magnitude(box), roundUp(size)) as Tensor

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

/**
 * x limited to [low, high], elementwise; limits broadcast to x, infinite ones do not limit. Where low > high the result is high.
 *
 * @example
 *   clip(constant([-2, 0.5, 3], [3]), 0, 1) // [0, 0.5, 1]
 */
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
 * The same as a theorem: for every number a of a box f(x) - p x is linear between the ends of x and 0, and linear in a, so its extremes are at the
 * corners, which are computed outward. An x that is a point has no slope, which nobody would multiply it with.
 */
const preluOutward: Relax<undefined> = (xs, attrs, slope) => {
  const [x, a] = xs
  const [l, u] = [lowerOf(x), upperOf(x)]
  const lines = preluLines([x, lowerOf(a)], attrs, slope)
  const zero = clamp(full(l.shape, 0), l, u) as Tensor
  const least: Tensor[] = []
  const most: Tensor[] = []
  const [p, q] = isInterval(x) ? [lines.lower.slopes[0], lines.upper.slopes[0]] : [full(l.shape, 0), full(l.shape, 0)]
  for (const v of [l, zero, u])
    for (const end of isInterval(a) ? [a.lower, a.upper] : [a]) {
      const product = mul(end, v)
      const own = greaterEqual(v, 0)
      least.push(subDown(select(own, v, down(product)) as Tensor, up(mul(p, v))))
      most.push(subUp(select(own, v, up(product)) as Tensor, down(mul(q, v))))
    }
  const none = full(a.shape, 0)
  return {
    lower: { slopes: [p, none], intercept: least.reduce((s, t) => minimum(s, t)) },
    upper: { slopes: [q, none], intercept: most.reduce((s, t) => maximum(s, t)) },
  }
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
  outward: {
    interval: (xs, attrs) => {
      const [x, a] = xs
      if (isInterval(a)) return enclosed.add(maximum(x, 0), enclosed.mul(minimum(x, 0), a))
      if (isInterval(x))
        return stepOut((preluOp.interval as (xs: readonly Operand[], attrs: undefined) => Interval)(xs, attrs))
      const y = prelu(x, a)
      return stepOut(interval(y, y))
    },
    relax: preluOutward,
    steep: true,
  },
  kernel: { expand: ([x, a]) => select(greaterEqual(x, 0), x, mul(a, x)) as Tensor },
}

/**
 * x where x >= 0, a x below; a broadcasts to x (a slope per channel: `[c, 1, 1]`), any number (arXiv:1502.01852).
 *
 * @example
 *   prelu(constant([-2, 3], [2]), constant([0.25], [1])) // [-0.5, 3]
 */
export const prelu = <T extends Operand, U extends Operand>(x: T, a: U): Join<T, U> =>
  apply(preluOp, [x, a], undefined) as Join<T, U>

// ---- increasing --------------------------------------------------------------------------------------------------------

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
 * x above 0, alpha (e^x - 1) below, alpha >= 0 (arXiv:1511.07289).
 *
 * @example
 *   elu()(constant([-1, 2], [2])) // [-0.6321, 2]
 */
export const elu =
  (alpha = 1) =>
  <T extends Operand>(x: T): T =>
    apply(eluOp, [x], { alpha }) as T

/**
 * `selu(x)`, scale times elu, arXiv:1706.02515.
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
 * The error function 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.
 *
 * @example
 *   erf(constant([0, 1], [2])) // [0, 0.8427]
 *
 * @function
 */
export const erf = unary(erfOp, undefined)

// ---- with one valley ---------------------------------------------------------------------------------------------------

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
 * as e^(exponent log x), NaN below 0.
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

/**
 * x where x > alpha, else 0. It jumps: bounds are those of intervals.
 *
 * @example
 *   thresholdedRelu(1)(constant([0.5, 2], [2])) // [0, 2]
 */
export const thresholdedRelu =
  (alpha = 1) =>
  <T extends Operand>(x: T): T =>
    select(greater(x, alpha) as Operand, maximum(x, alpha) as Operand, 0) as T

/**
 * clip(alpha x + beta, 0, 1).
 *
 * @example
 *   hardSigmoid()(constant([-3, 0, 1], [3])) // [0, 0.5, 0.7]
 */
export const hardSigmoid =
  (alpha = 0.2, beta = 0.5) =>
  <T extends Operand>(x: T): T =>
    clip(add(mul(x, alpha), beta) as Operand, 0, 1) as T
