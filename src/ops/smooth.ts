import { Micro } from '../core/lowering.ts'
import { interval, lowerOf, type Op, type Outward, type Relax, upperOf } from '../core/op.ts'
import type { Interval, Operand, Tensor } from '../core/tensor.ts'
import { down, stepOut, up } from './directed.ts'
import {
  add,
  clamp,
  div,
  divideWhere,
  equal,
  greater,
  greaterEqual,
  maximum,
  minimum,
  mul,
  neg,
  select,
  sub,
} from './elementwise.ts'
import { elementwise, unary } from './maker.ts'
import { addUp, mulUp, near, subUp } from './outward.ts'
import { full, increasing } from './shape.ts'

/** A line over a box: its slope, and where it touches the function or cuts it, `(at, f(at))`. */
interface Touching {
  readonly slope: Tensor
  readonly at: Tensor
}

/** The lines below and above a function on a box. */
export type Choice = (l: Tensor, u: Tensor, parallel: boolean) => { readonly lower: Touching; readonly upper: Touching }

type F = (x: Tensor) => Tensor

// ---- which lines ---------------------------------------------------------------------------------------------------

/** Slope of the chord of f over [l, u]; the derivative where the box is a point, NaN where a bound is NaN. */
export const chordSlope = (f: F, df: F, l: Tensor, u: Tensor): Tensor =>
  divideWhere(greater(u, l), sub(f(u), f(l)), sub(u, l), df(maximum(l, u)))

/** A convex f lies between its tangent at the centre and its chord; a concave one the other way round. */
export const curvedChoice =
  (f: F, df: F, shape: 'convex' | 'concave'): Choice =>
  (l, u) => {
    const centre = mul(add(l, u), 0.5)
    const tangent = { slope: df(centre), at: centre }
    const chord = { slope: chordSlope(f, df, l, u), at: l }
    if (shape === 'convex') return { lower: tangent, upper: chord }
    // From an end where f is -inf (a logarithm at 0) no line rises.
    const rises = greater(f(l), Number.NEGATIVE_INFINITY)
    return { lower: { slope: select(rises, chord.slope, 0), at: l }, upper: tangent }
  }

/** Halvings of the search for the tangent of an S-shaped function; any number is sound, more is tighter. */
const TANGENT_STEPS = 12

/**
 * Upper line of an S-shaped f (increasing, convex below 0, concave above): the chord while it lies above f, else a tangent on the
 * concave side that passes above (l, f(l)): at the centre if that one does, else at the first point that does, found by bisection,
 * whose upper end is always sound. CROWN (arXiv:1811.00866), table 2, and the centre as auto_LiRPA has it: tighter on wide boxes.
 */
const sigmoidUpper = (f: F, df: F, l: Tensor, u: Tensor): Touching => {
  const slope = chordSlope(f, df, l, u)
  let low = maximum(l, 0)
  // The larger end is u, and NaN where either end is NaN.
  let high = maximum(maximum(l, u), 0)
  for (let i = 0; i < TANGENT_STEPS; i++) {
    const d = mul(add(low, high), 0.5)
    const above = greaterEqual(add(f(d), mul(df(d), sub(l, d))), f(l))
    ;[low, high] = [select(above, low, d), select(above, d, high)]
  }
  const concave = greaterEqual(l, 0)
  const centre = mul(add(l, u), 0.5)
  const point = select(maximum(concave, greater(centre, high)), centre, high)
  // Strictly greater: over an infinite width the slope of the chord is 0, and a tangent of slope 0 is no chord.
  const chord = select(concave, 0, maximum(greaterEqual(0, u), greater(df(u), slope)))
  // A NaN bound makes every comparison false, so the tangent is taken, at a NaN.
  return { slope: select(chord, slope, df(point)), at: select(chord, l, point) }
}

/**
 * S-shaped functions. `parallel`: both lines with the smaller end slope, DeepZ (Singh et al. 2018, theorem 3.2). Otherwise CROWN's lines;
 * the lower one is the upper one of -f(-x).
 */
export const sShapedChoice =
  (f: F, df: F): Choice =>
  (l, u, parallel) => {
    if (parallel) {
      const slope = minimum(df(l), df(u))
      return { lower: { slope, at: l }, upper: { slope, at: u } }
    }
    const mirrored = sigmoidUpper(
      (y) => neg(f(neg(y))),
      (y) => df(neg(y)),
      neg(u),
      neg(l),
    )
    return { lower: { slope: mirrored.slope, at: neg(mirrored.at) }, upper: sigmoidUpper(f, df, l, u) }
  }

/** The lines through the points chosen, in the arithmetic at hand. */
const through =
  (f: F, choice: Choice): Relax<undefined> =>
  ([x], _, slope) => {
    const { lower, upper } = choice(lowerOf(x), upperOf(x), slope === 'same')
    const line = ({ slope: p, at }: Touching) => ({ slopes: [p], intercept: sub(f(at), mul(p, at)) })
    return { lower: line(lower), upper: line(upper) }
  }

/** Lines of a convex or concave function with derivative df: `curved(exp, exp, 'convex')`. Not proved of what rounding makes of them. */
export const curved = (f: F, df: F, shape: 'convex' | 'concave'): Relax<undefined> =>
  through(f, curvedChoice(f, df, shape))
/** Lines of an increasing function with derivative df that is convex below 0 and concave above. Not proved of what rounding makes of them. */
export const sShaped = (f: F, df: F): Relax<undefined> => through(f, sShapedChoice(f, df))

// ---- lines that are proved -----------------------------------------------------------------------------------------

/** What a proof needs to know of a differentiable function h. */
export interface Curve {
  /** Encloses h(x). */
  readonly value: (x: Tensor) => Interval
  /** Encloses h'(x). */
  readonly slope: (x: Tensor) => Interval
  /** h is convex up to here and concave from here on: -inf, 0 or inf. */
  readonly inflection: number
}

/** -h(-x): its upper lines are the lower ones of h. */
const mirror = ({ value, slope, inflection }: Curve): Curve => ({
  value: (x) => {
    const { lower, upper } = value(neg(x))
    return interval(neg(upper), neg(lower))
  },
  slope: (x) => slope(neg(x)),
  inflection: -inflection,
})

/**
 * At least h(x) - p x for every real x of [l, u], whatever number p is: the intercept of a line of that slope above h. c says where the line may touch.
 *
 * Let k be the inflection. Up to k, h(x) - p x is convex, so it is largest at an end, l or b = min(u, k). From a = max(l, k) on h is concave and
 * lies below its tangent at any point t of [a, u]:
 *
 *     h(x) - p x <= h(t) - p t + (h'(t) - p)(x - t) <= h(t) - p t + max(0, h'(t) - p)(u - t) + max(0, p - h'(t))(t - a),
 *
 * where t is c or the nearest point to it, or u. h and h' are enclosed at floats, and every operation here is rounded upward, so the result is a theorem
 * for the p and the ends at hand, however p and c were found. It is tight to what the enclosures allow if p is the slope of a chord, and h'(t) is at
 * least p at the end u, or if p is computed as h'(c). A NaN, or an infinite end, gives NaN or infinity.
 */
const above = ({ value, slope, inflection: k }: Curve, p: Tensor, c: Tensor, l: Tensor, u: Tensor): Tensor => {
  const rise = (x: Tensor): Tensor => subUp(value(x).upper, down(mul(p, x)))
  const ends = (b: Tensor): Tensor => maximum(rise(l), rise(b))
  const touching = (a: Tensor, t = clamp(c, a, u)): Tensor => {
    const d = slope(t)
    const over = (gap: Tensor, from: Tensor, to: Tensor): Tensor =>
      select(greater(to, from), mulUp(maximum(gap, 0), subUp(to, from)), 0)
    return addUp(rise(t), addUp(over(subUp(d.upper, p), t, u), over(subUp(p, d.lower), a, t)))
  }
  if (k === Number.POSITIVE_INFINITY) return ends(u)
  if (k === Number.NEGATIVE_INFINITY) return touching(l)
  const from = maximum(l, k)
  // A chord is steeper than h behind k where it is nearest, and touches at u alone.
  const [left, right] = [ends(minimum(u, k)), minimum(touching(from), touching(from, maximum(u, from)))]
  return select(greater(k, l), select(greater(u, k), maximum(left, right), left), right)
}

/** Slopes that a function has at all. */
export interface Slopes {
  readonly least?: number
  readonly most?: number
}

/** The lines chosen, with intercepts for which they hold in real arithmetic. Slopes are kept in [0, most]: where f rounds, a chord may not. */
export const proved =
  (curve: Curve, choice: Choice, { least = 0, most = Number.POSITIVE_INFINITY }: Slopes = {}): Relax<unknown> =>
  ([x], _, slope) => {
    const [l, u] = [lowerOf(x), upperOf(x)]
    const { lower, upper } = choice(l, u, slope === 'same')
    const kept = (p: Tensor): Tensor => clamp(p, least, most)
    const high = kept(upper.slope)
    const low = lower.slope === upper.slope ? high : kept(lower.slope)
    return {
      lower: { slopes: [low], intercept: neg(above(mirror(curve), low, neg(lower.at), neg(u), neg(l))) },
      upper: { slopes: [high], intercept: above(curve, high, upper.at, l, u) },
    }
  }

/** Outward bounds of an increasing function. */
export const outwardOf = (
  curve: Curve,
  choice: Choice,
  facts: Pick<Outward<unknown>, 'ulps' | 'scale'>,
  most?: number,
) => ({
  ...facts,
  interval: ([x]: readonly Operand[]) => interval(curve.value(lowerOf(x)).lower, curve.value(upperOf(x)).upper),
  relax: proved(curve, choice, most === undefined ? {} : { most }),
  steep: true,
})

// ---- functions -----------------------------------------------------------------------------------------------------

/**
 * Units in the last place by which our kernels may be off (assembly/math.ts; doubles are nearer): tested at every float32 (test/slow/math.slow.ts): 0.990, 0.829,
 * 1.330 and 2.402 units are the most there are.
 * Quotients of such values, and their products, are off by a unit more each.
 */
export const ULPS = { exp: 2, log: 2, tanh: 3, sigmoid: 4, erf: 4 } as const

/**
 * What is assumed of other implementations: exp, log, tanh and sigmoid within 8 units in the last place. OpenCL allows 3, 3 and 5 of the first three, CUDA
 * documents 2, 1 and 2; a sigmoid as 1 / (1 + e^-x) with an e^x of 3 is within 8.
 */
const ASSUMED = { ulps: 8 } as const

const choices = {
  exp: curvedChoice(
    (x) => exp(x),
    (x) => exp(x),
    'convex',
  ),
  log: curvedChoice(
    (x) => log(x),
    (x) => div(1, x),
    'concave',
  ),
  sqrt: curvedChoice(
    (x) => sqrt(x),
    (x) => rootSlope(x),
    'concave',
  ),
  sigmoid: sShapedChoice(
    (x) => sigmoid(x),
    (x) => sigmoidSlope(x),
  ),
  tanh: sShapedChoice(
    (x) => tanh(x),
    (x) => {
      const y = tanh(x)
      return sub(1, mul(y, y))
    },
  ),
} as const

const sigmoidSlope = (x: Tensor): Tensor => mul(sigmoid(x), sigmoid(neg(x)))

const curves = {
  exp: {
    value: (x) => near(exp(x), ULPS.exp, 0),
    slope: (x) => near(exp(x), ULPS.exp, 0),
    inflection: Number.POSITIVE_INFINITY,
  },
  log: {
    value: (x) => near(log(x), ULPS.log),
    slope: (x) => {
      const d = div(1, x)
      return interval(maximum(down(d), 0), up(d))
    },
    inflection: Number.NEGATIVE_INFINITY,
  },
  sqrt: {
    value: (x) => {
      const { lower, upper } = stepOut(interval(sqrt(x), sqrt(x)))
      return interval(maximum(lower, 0), upper)
    },
    // 1 / (2 sqrt(x)), which is infinite at 0.
    slope: (x) => {
      const { lower, upper } = near(div(0.5, sqrt(x)), 2, 0)
      const end = equal(x, 0)
      return interval(select(end, 0, lower), select(end, Number.POSITIVE_INFINITY, upper))
    },
    inflection: Number.NEGATIVE_INFINITY,
  },
  sigmoid: {
    value: (x) => near(sigmoid(x), ULPS.sigmoid, 0, 1),
    // s(x) s(-x): the units of both, of at most twice the relative size each, and one of the product.
    slope: (x) => near(sigmoidSlope(x), 2 * ULPS.sigmoid + 2, 0, 0.25),
    inflection: 0,
  },
  tanh: {
    value: (x) => near(tanh(x), ULPS.tanh, -1, 1),
    // 4 s(2x) s(-2x), where 1 - tanh(x)^2 cancels.
    slope: (x) => near(mul(4, sigmoidSlope(mul(2, x))), 2 * ULPS.sigmoid + 2, 0, 1),
    inflection: 0,
  },
} as const satisfies Readonly<Record<string, Curve>>

/** e^x. */
export const expOp: Op<undefined> = elementwise(
  {
    name: 'exp',
    vjp: (ct, _, out) => [mul(ct, out)],
    interval: increasing(() => expOp),
    relax: through((x) => exp(x), choices.exp),
    outward: outwardOf(curves.exp, choices.exp, ASSUMED),
  },
  Micro.exp,
  (a) => Math.exp(a),
)

/** Natural logarithm; NaN below 0. */
export const logOp: Op<undefined> = elementwise(
  {
    name: 'log',
    vjp: (ct, [x]) => [div(ct, x)],
    interval: increasing(() => logOp),
    relax: through((x) => log(x), choices.log),
    domain: ['nonnegative'],
    outward: outwardOf(curves.log, choices.log, ASSUMED),
  },
  Micro.log,
  (a) => Math.log(a),
)

/** The derivative of the root, and 0 where it has none: a line through (0, 0) alone, where the box is no more. */
const rootSlope = (x: Tensor): Tensor => {
  const root = sqrt(x)
  return divideWhere(greater(root, 0), full(x.shape, 0.5), root, full(x.shape, 0))
}

/** Square root; NaN below 0. */
export const sqrtOp: Op<undefined> = elementwise(
  {
    name: 'sqrt',
    exact: 'root',
    vjp: (ct, _, out) => [div(mul(ct, 0.5), out)],
    interval: increasing(() => sqrtOp),
    relax: through((x) => sqrt(x), choices.sqrt),
    nonnegative: 'always',
    domain: ['nonnegative'],
    // IEEE 754 rounds roots correctly.
    outward: outwardOf(curves.sqrt, choices.sqrt, {}),
  },
  Micro.sqrt,
  (a) => Math.sqrt(a),
)

/** 1 / (1 + e^-x). */
export const sigmoidOp: Op<undefined> = elementwise(
  {
    name: 'sigmoid',
    vjp: (ct, _, out) => [mul(ct, mul(out, sub(1, out)))],
    interval: increasing(() => sigmoidOp),
    relax: through((x) => sigmoid(x), choices.sigmoid),
    outward: outwardOf(curves.sigmoid, choices.sigmoid, ASSUMED, 0.25),
  },
  Micro.sigmoid,
  (a) => 1 / (1 + Math.exp(-a)),
)

/** Hyperbolic tangent. */
export const tanhOp: Op<undefined> = elementwise(
  {
    name: 'tanh',
    vjp: (ct, _, out) => [mul(ct, sub(1, mul(out, out)))],
    interval: increasing(() => tanhOp),
    relax: through((x) => tanh(x), choices.tanh),
    outward: outwardOf(curves.tanh, choices.tanh, ASSUMED, 1),
  },
  Micro.tanh,
  (a) => Math.tanh(a),
)

/**
 * e to the power x, elementwise.
 *
 * @example
 *   exp(constant([0, 1], [2])) // [1, 2.7183]
 *
 * @function
 */
export const exp = unary(expOp, undefined)
/**
 * The natural logarithm, elementwise; NaN below 0, -infinity at 0.
 *
 * @example
 *   log(constant([1, 2], [2])) // [0, 0.6931]
 *
 * @function
 */
export const log = unary(logOp, undefined)
/**
 * The square root, elementwise; NaN below 0.
 *
 * @example
 *   sqrt(constant([4, 9], [2])) // [2, 3]
 *
 * @function
 */
export const sqrt = unary(sqrtOp, undefined)
/**
 * 1 / (1 + e^-x), elementwise.
 *
 * @example
 *   sigmoid(constant([0, 2], [2])) // [0.5, 0.8808]
 *
 * @function
 */
export const sigmoid = unary(sigmoidOp, undefined)
/**
 * The hyperbolic tangent, elementwise.
 *
 * @example
 *   tanh(constant([0, 1], [2])) // [0, 0.7616]
 *
 * @function
 */
export const tanh = unary(tanhOp, undefined)
