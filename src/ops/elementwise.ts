import * as E from 'fp-ts/lib/Either.js'
import { Micro } from '../core/lowering.ts'
import {
  type Affine,
  apply,
  interval,
  lowerOf,
  node,
  type Op,
  type Relax,
  type Slope,
  unsupported,
  upperOf,
} from '../core/op.ts'
import type * as S from '../core/shape.ts'
import { type Interval, isInterval, type Join, type Operand, type Tensor } from '../core/tensor.ts'
import { stepOut, up } from './directed.ts'
import { type Arg, type Argument, binary, broadcastShape, elementwise, operand, unary } from './maker.ts'
import { broadcastTo, full, increasing, unbroadcast } from './shape.ts'
import { scalar } from './source.ts'

// ---- relaxation makers -------------------------------------------------------------------------------------------

/** Constant bounds, for an op without useful slopes: the interval rule as two flat lines. */
const flat =
  <A>(op: () => Op<A>): Relax<A> =>
  (xs, attrs) => {
    const box = apply(op(), xs, attrs)
    const slopes = xs.map((x) => full(x.shape, 0))
    return { lower: { slopes, intercept: lowerOf(box) }, upper: { slopes, intercept: upperOf(box) } }
  }

/** 1 where l < 0 < u, else 0. */
const straddles = (l: Tensor, u: Tensor): Tensor => select(greater(0, l), greater(u, 0), 0)

/** a / b where mask is 1, with a gradient of 0 (never NaN) elsewhere, where `other` stands. */
const divideWhere = (mask: Tensor, a: Tensor, b: Tensor, other: Tensor): Tensor =>
  select(mask, div(a, select(mask, b, 1)), other)

/** The line through (p, f(p)) with a slope. */
const lineAt = (slope: Tensor, p: Tensor, fp: Tensor) => ({ slopes: [slope], intercept: sub(fp, mul(slope, p)) })

/** Slope of the chord of f over [l, u]; the derivative where the box is a point, NaN where a bound is NaN. */
const chordSlope = (f: (x: Tensor) => Tensor, df: (x: Tensor) => Tensor, l: Tensor, u: Tensor): Tensor =>
  divideWhere(greater(u, l), sub(f(u), f(l)), sub(u, l), df(maximum(l, u)))

/** A convex f lies between its tangent at the centre and its chord; a concave one the other way round. */
const curved =
  (f: (x: Tensor) => Tensor, df: (x: Tensor) => Tensor, shape: 'convex' | 'concave'): Relax<undefined> =>
  ([x]) => {
    const [l, u] = [lowerOf(x), upperOf(x)]
    const centre = mul(add(l, u), 0.5)
    const tangent = lineAt(df(centre), centre, f(centre))
    const end = f(l)
    const slope = chordSlope(f, df, l, u)
    // From an end where f is -inf (a logarithm at 0) no line rises.
    const chord = lineAt(shape === 'convex' ? slope : select(greater(end, Number.NEGATIVE_INFINITY), slope, 0), l, end)
    return shape === 'convex' ? { lower: tangent, upper: chord } : { lower: chord, upper: tangent }
  }

/** Halvings of the search for the tangent of an S-shaped function; any number is sound, more is tighter. */
const TANGENT_STEPS = 12

/**
 * Upper line of an S-shaped f (increasing, convex below 0, concave above): the chord while it lies above f, else a tangent on the
 * concave side that passes above (l, f(l)): at the centre if that one does, else at the first point that does, found by bisection,
 * whose upper end is always sound. CROWN (arXiv:1811.00866), table 2, and the centre as auto_LiRPA has it: tighter on wide boxes.
 */
const sigmoidUpper = (f: (x: Tensor) => Tensor, df: (x: Tensor) => Tensor, l: Tensor, u: Tensor) => {
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
  const s = select(chord, slope, df(point))
  const p = select(chord, l, point)
  return lineAt(s, p, f(p))
}

/**
 * S-shaped functions. `same`: both lines with the smaller end slope, DeepZ (Singh et al. 2018, theorem 3.2). Otherwise CROWN's lines;
 * the lower one is the upper one of -f(-x).
 */
const sShaped =
  (f: (x: Tensor) => Tensor, df: (x: Tensor) => Tensor): Relax<undefined> =>
  ([x], _, slope) => {
    const [l, u] = [lowerOf(x), upperOf(x)]
    if (slope === 'same') {
      const s = minimum(df(l), df(u))
      return { lower: lineAt(s, l, f(l)), upper: lineAt(s, u, f(u)) }
    }
    const mirrored = sigmoidUpper(
      (y) => neg(f(neg(y))),
      (y) => df(neg(y)),
      neg(u),
      neg(l),
    )
    return {
      lower: { slopes: mirrored.slopes, intercept: neg(mirrored.intercept) },
      upper: sigmoidUpper(f, df, l, u),
    }
  }

// ---- arithmetic --------------------------------------------------------------------------------------------------

/** Cotangents of two operands that were broadcast to the output. */
const sides = ([a, b]: readonly Tensor[], out: Tensor, da: Tensor, db: Tensor) => [
  unbroadcast(da, out.shape, a.shape),
  unbroadcast(db, out.shape, b.shape),
]

/** a + b. */
export const addOp: Op<undefined> = elementwise(
  {
    name: 'add',
    vjp: (ct, xs, out) => sides(xs, out, ct, ct),
    interval: increasing(() => addOp),
    relax: 'linear',
    outward: { interval: 'rounded' },
  },
  Micro.add,
  (a, b) => a + b,
)

/** a - b. Interval: [a.lower - b.upper, a.upper - b.lower]. */
export const subOp: Op<undefined> = elementwise(
  {
    name: 'sub',
    vjp: (ct, xs, out) => sides(xs, out, ct, neg(ct)),
    interval: ([a, b]) => interval(sub(lowerOf(a), upperOf(b)), sub(upperOf(a), lowerOf(b))),
    relax: 'linear',
    outward: { interval: 'rounded' },
  },
  Micro.sub,
  (a, b) => a - b,
)

/** -x. */
export const negOp: Op<undefined> = elementwise(
  {
    name: 'neg',
    vjp: (ct) => [neg(ct)],
    interval: ([x]) => interval(neg(upperOf(x)), neg(lowerOf(x))),
    relax: 'linear',
    outward: { interval: 'exact' },
  },
  Micro.neg,
  (a) => -a,
)

/** 0, and NaN where an end of x is NaN: added to what a comparison would otherwise make of it. */
export const poison = (x: Operand): Tensor =>
  isInterval(x) ? add(mul(0, step(x.lower)), mul(0, step(x.upper))) : full(x.shape, 0)

const extremes = (xs: readonly Tensor[]) =>
  interval(
    xs.reduce((a, b) => minimum(a, b)),
    xs.reduce((a, b) => maximum(a, b)),
  )

/**
 * a * b. A point factor p scales the ends, exchanged where p < 0; two boxes take the extreme corner products. Relaxation of two boxes:
 * McCormick, lower a.l b + b.l a - a.l b.l, upper a.u b + b.l a - a.u b.l.
 */
export const mulOp: Op<undefined> = elementwise(
  {
    name: 'mul',
    vjp: (ct, xs, out) => sides(xs, out, mul(ct, xs[1]), mul(ct, xs[0])),
    interval: ([a, b]) => {
      if (a === b) {
        const [p, q] = [mul(lowerOf(a), lowerOf(a)), mul(upperOf(a), upperOf(a))]
        return interval(select(straddles(lowerOf(a), upperOf(a)), 0, minimum(p, q)), maximum(p, q))
      }
      const corners = isInterval(a)
        ? isInterval(b)
          ? [mul(a.lower, b.lower), mul(a.lower, b.upper), mul(a.upper, b.lower), mul(a.upper, b.upper)]
          : [mul(a.lower, b), mul(a.upper, b)]
        : [mul(a, lowerOf(b)), mul(a, upperOf(b))]
      return extremes(corners)
    },
    relax: {
      bilinear: ([a, b]) => {
        const plane = (x: Tensor, y: Tensor) => ({ slopes: [y, x], intercept: neg(mul(x, y)) })
        return { lower: plane(lowerOf(a), lowerOf(b)), upper: plane(upperOf(a), lowerOf(b)) }
      },
    },
    outward: { interval: 'rounded' },
  },
  Micro.mul,
  (a, b) => a * b,
)

/** 1 / b of a box that does not contain 0; unbounded (-inf, inf) where it does. */
const reciprocal = (b: Operand): Operand => {
  if (!isInterval(b)) return div(1, b)
  const [p, q] = [div(1, b.upper), div(1, b.lower)]
  const clear = maximum(greater(b.lower, 0), greater(0, b.upper))
  const known = add(clear, poison(b))
  return interval(select(known, p, Number.NEGATIVE_INFINITY), select(known, q, Number.POSITIVE_INFINITY))
}

/** a / b. A box divisor that contains 0 gives (-inf, inf). */
export const divOp: Op<undefined> = elementwise(
  {
    name: 'div',
    vjp: (ct, xs, out) => sides(xs, out, div(ct, xs[1]), neg(div(mul(ct, out), xs[1]))),
    interval: ([a, b]) =>
      isInterval(b)
        ? (mul(a, reciprocal(b)) as ReturnType<typeof interval>)
        : extremes([div(lowerOf(a), b), div(upperOf(a), b)]),
    relax: (xs) => {
      const [, b] = xs
      if (isInterval(b)) return flat(() => divOp)(xs, undefined, 'same')
      const line = { slopes: [div(1, b), full(b.shape, 0)] }
      return { lower: line, upper: line }
    },
    domain: [undefined, 'nonzero'],
    outward: {
      interval: ([a, b]) => {
        if (!isInterval(b)) return stepOut(extremes([div(lowerOf(a), b), div(upperOf(a), b)]))
        // A quotient rounded once is at most any float that the exact quotient is at most.
        return stepOut(mul(a, stepOut(reciprocal(b) as Interval)) as Interval)
      },
    },
  },
  Micro.div,
  (a, b) => a / b,
)

export const add = binary(addOp)
export const sub = binary(subOp)
export const mul = binary(mulOp)
export const div = binary(divOp)
export const neg = unary(negOp, undefined)

// ---- order -------------------------------------------------------------------------------------------------------

/** An interval of 0s and 1s, NaN where an end of an operand is NaN: a comparison with it would look like a certain 0. */
const truth = ([a, b]: readonly Operand[], lower: Tensor, upper: Tensor) => {
  const nan = isInterval(a) ? (isInterval(b) ? add(poison(a), poison(b)) : poison(a)) : poison(b)
  return interval(add(lower, nan), add(upper, nan))
}

/** 1 where a > b, else 0 (also where either is NaN). Interval: 1 only if every pair is, 0 only if none is. */
export const greaterOp: Op<undefined> = elementwise(
  {
    name: 'greater',
    vjp: () => [undefined, undefined],
    interval: ([a, b]) => truth([a, b], greater(lowerOf(a), upperOf(b)), greater(upperOf(a), lowerOf(b))),
    relax: flat(() => greaterOp),
    outward: { interval: 'exact' },
  },
  Micro.greater,
  (a, b) => (a > b ? 1 : 0),
)

/** 1 where a >= b, else 0 (also where either is NaN). */
export const greaterEqualOp: Op<undefined> = elementwise(
  {
    name: 'greaterEqual',
    vjp: () => [undefined, undefined],
    interval: ([a, b]) => truth([a, b], greaterEqual(lowerOf(a), upperOf(b)), greaterEqual(upperOf(a), lowerOf(b))),
    relax: flat(() => greaterEqualOp),
    outward: { interval: 'exact' },
  },
  Micro.greaterEqual,
  (a, b) => (a >= b ? 1 : 0),
)

/** 1 where a = b, else 0. Interval: 1 for certain only between equal points, 0 for certain where the boxes are disjoint. */
export const equalOp: Op<undefined> = elementwise(
  {
    name: 'equal',
    vjp: () => [undefined, undefined],
    interval: ([a, b]) => {
      const thin = mul(equal(lowerOf(a), upperOf(a)), equal(lowerOf(b), upperOf(b)))
      const meet = mul(greaterEqual(upperOf(a), lowerOf(b)), greaterEqual(upperOf(b), lowerOf(a)))
      return truth([a, b], mul(thin, equal(lowerOf(a), lowerOf(b))), meet)
    },
    relax: flat(() => equalOp),
    outward: { interval: 'exact' },
  },
  Micro.equal,
  (a, b) => (a === b ? 1 : 0),
)

export const greater = binary(greaterOp)
export const greaterEqual = binary(greaterEqualOp)
export const equal = binary(equalOp)

/**
 * `select(c, a, b)`: a where c is not 0, b where it is, NaN where c is NaN. An interval condition that contains 0 and more gives
 * the hull of both.
 */
export const selectOp: Op<undefined> = elementwise(
  {
    name: 'select',
    vjp: (ct, [c, a, b], out) => [
      undefined,
      unbroadcast(select(c, ct, 0), out.shape, a.shape),
      unbroadcast(select(c, 0, ct), out.shape, b.shape),
    ],
    interval: ([c, a, b]) => {
      if (!isInterval(c)) return interval(select(c, lowerOf(a), lowerOf(b)), select(c, upperOf(a), upperOf(b)))
      const always = add(maximum(greater(c.lower, 0), greater(0, c.upper)), poison(c))
      const never = mul(equal(c.lower, 0), equal(c.upper, 0))
      const end = (x: Tensor, y: Tensor, both: Tensor) => select(always, x, select(never, y, both))
      return interval(
        end(lowerOf(a), lowerOf(b), minimum(lowerOf(a), lowerOf(b))),
        end(upperOf(a), upperOf(b), maximum(upperOf(a), upperOf(b))),
      )
    },
    relax: (xs) => {
      const [c, a, b] = xs
      if (isInterval(c)) return flat(() => selectOp)(xs, undefined, 'same')
      const shape = E.getOrElse<string, S.Shape>(() => c.shape)(broadcastShape(xs.map((x) => x.shape)))
      // Branches are given at the full shape, so that a point branch can go into the intercept.
      const point = (x: Operand) => (isInterval(x) ? scalar(0) : broadcastTo(x, shape))
      const line = {
        slopes: [full(c.shape, 0), select(c, 1, 0), select(c, 0, 1)],
        intercept: select(c, point(a), point(b)),
      }
      return { lower: line, upper: line }
    },
    outward: { interval: 'exact' },
  },
  Micro.select,
  (c, a, b) => (Number.isNaN(c) ? Number.NaN : c !== 0 ? a : b),
)

export const select = <C extends Argument, T extends Argument, U extends Argument>(
  c: C,
  a: T,
  b: U,
): Join<Arg<C>, Join<Arg<T>, Arg<U>>> =>
  apply(selectOp, [operand(c), operand(a), operand(b)], undefined) as Join<Arg<C>, Join<Arg<T>, Arg<U>>>

/** max of two boxes as a + relu(b - a), with relu's lines. */
const maxRelax: Relax<undefined> = ([a, b], _, slope) => {
  const { lower, upper } = reluLines(sub(lowerOf(b), upperOf(a)), sub(upperOf(b), lowerOf(a)), 0, slope)
  const split = (s: Tensor) => [isInterval(a) ? sub(1, s) : full(a.shape, 0), isInterval(b) ? s : full(b.shape, 0)]
  const constant = (s: Tensor, t: Tensor | undefined) => {
    const pa = isInterval(a) ? undefined : mul(sub(1, s), a)
    const pb = isInterval(b) ? undefined : mul(s, b)
    return [pa, pb, t].reduce((x, y) => (x && y ? add(x, y) : (x ?? y)))
  }
  const [ls, us] = [lower.slopes[0], upper.slopes[0]]
  return {
    lower: { slopes: split(ls), intercept: constant(ls, lower.intercept) },
    upper: { slopes: split(us), intercept: constant(us, upper.intercept) },
  }
}

/** The larger of a and b, NaN if either is NaN. At a tie the gradient goes to a. */
export const maximumOp: Op<undefined> = elementwise(
  {
    name: 'maximum',
    vjp: (ct, xs, out) => {
      const first = greaterEqual(xs[0], xs[1])
      return sides(xs, out, select(first, ct, 0), select(first, 0, ct))
    },
    interval: increasing(() => maximumOp),
    relax: maxRelax,
    outward: { interval: 'exact' },
  },
  Micro.max,
  (a, b) => Math.max(a, b),
)

/** The smaller of a and b, NaN if either is NaN. At a tie the gradient goes to a. */
export const minimumOp: Op<undefined> = elementwise(
  {
    name: 'minimum',
    vjp: (ct, xs, out) => {
      const first = greaterEqual(xs[1], xs[0])
      return sides(xs, out, select(first, ct, 0), select(first, 0, ct))
    },
    interval: increasing(() => minimumOp),
    relax: ([a, b], attrs, slope) => {
      const { lower, upper } = maxRelax([neg(a), neg(b)], attrs, slope)
      const turn = (line: Affine) => ({ slopes: line.slopes, intercept: line.intercept && neg(line.intercept) })
      return { lower: turn(upper), upper: turn(lower) }
    },
    outward: { interval: 'exact' },
  },
  Micro.min,
  (a, b) => Math.min(a, b),
)

export const maximum = binary(maximumOp)
export const minimum = binary(minimumOp)

/** x limited to [low, high]. */
export const clamp = <T extends Operand>(x: T, low: Argument, high: Argument): T => minimum(maximum(x, low), high) as T

// ---- piecewise linear --------------------------------------------------------------------------------------------

/**
 * Lines of x -> max(x, a x), 0 <= a < 1, on [l, u]. Unstable neurons (l < 0 < u): upper chord, slope s = (u - a l) / (u - l); lower
 * line through 0 of slope s (`same`), 1 if u > -l else a (`adaptive`), a (`zero`) or as given. Stable ones: exact, both.
 */
const reluLines = (l: Tensor, u: Tensor, a: number, slope: Slope) => {
  const unstable = straddles(l, u)
  // max(l, u) is u, and NaN if either is NaN: then slope and bounds are NaN, never "verified".
  const stable = add(a, mul(1 - a, step(maximum(l, u))))
  const chord = divideWhere(unstable, sub(u, mul(a, l)), sub(u, l), stable)
  const intercept = select(unstable, sub(u, mul(chord, u)), 0)
  const line =
    slope === 'same'
      ? chord
      : select(
          unstable,
          slope === 'adaptive' ? add(a, mul(1 - a, step(add(l, u)))) : slope === 'zero' ? a : slope,
          stable,
        )
  return { lower: { slopes: [line], intercept: undefined }, upper: { slopes: [chord], intercept } }
}

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
    vjp: (ct, [x]) => [mul(ct, step(x))],
    interval: increasing(() => reluOp),
    relax: ([x], _, slope) => reluLines(lowerOf(x), upperOf(x), 0, slope),
    outward: {
      interval: 'exact',
      relax: ([x], _, slope) => reluOutward(lowerOf(x), upperOf(x), 0, slope),
    },
  },
  Micro.relu,
  (a) => Math.max(a, 0),
)

/** 1 where x > 0, else 0; NaN for NaN. */
export const stepOp: Op<undefined> = elementwise(
  {
    name: 'step',
    vjp: () => [undefined],
    interval: increasing(() => stepOp),
    relax: flat(() => stepOp),
    outward: { interval: 'exact' },
  },
  Micro.step,
  (a) => (Number.isNaN(a) ? a : a > 0 ? 1 : 0),
)

/** -1, 0 or 1; NaN for NaN. */
export const signOp: Op<undefined> = elementwise(
  {
    name: 'sign',
    vjp: () => [undefined],
    interval: increasing(() => signOp),
    relax: flat(() => signOp),
    outward: { interval: 'exact' },
  },
  Micro.sign,
  (a) => (Number.isNaN(a) ? a : a > 0 ? 1 : a < 0 ? -1 : 0),
)

/** |x|. The gradient at 0 is 0. */
export const absOp: Op<undefined> = elementwise(
  {
    name: 'abs',
    vjp: (ct, [x]) => [mul(ct, sign(x))],
    interval: ([x]) => {
      const [p, q] = [abs(lowerOf(x)), abs(upperOf(x))]
      return interval(select(straddles(lowerOf(x), upperOf(x)), 0, minimum(p, q)), maximum(p, q))
    },
    relax: ([x], _, slope) => {
      const [l, u] = [lowerOf(x), upperOf(x)]
      const unstable = straddles(l, u)
      const stable = sign(add(l, u))
      const chord = divideWhere(unstable, add(u, l), sub(u, l), stable)
      const line = slope === 'same' ? chord : slope === 'zero' ? select(unstable, 0, stable) : stable
      return {
        lower: { slopes: [line] },
        upper: { slopes: [chord], intercept: select(unstable, sub(u, mul(chord, u)), 0) },
      }
    },
    outward: { interval: 'exact' },
  },
  Micro.abs,
  (a) => Math.abs(a),
)

export const relu = unary(reluOp, undefined)
export const step = unary(stepOp, undefined)
export const sign = unary(signOp, undefined)
export const abs = unary(absOp, undefined)

/** max(x, slope x), 0 <= slope < 1. Runs as its expansion; relaxed as one piece. */
export const leakyReluOp: Op<{ readonly slope: number }> = {
  name: 'leakyRelu',
  shape: ([x], { slope }) => (slope >= 0 && slope < 1 ? E.right(x) : E.left(`slope ${slope} must lie in [0, 1)`)),
  vjp: (ct, [x], _, { slope }) => [mul(ct, add(slope, mul(1 - slope, step(x))))],
  interval: increasing(() => leakyReluOp),
  relax: ([x], { slope: a }, slope) => reluLines(lowerOf(x), upperOf(x), a, slope),
  outward: {
    interval: 'rounded',
    relax: ([x], { slope: a }, slope) => reluOutward(lowerOf(x), upperOf(x), a, slope),
  },
  kernel: { expand: ([x], { slope }) => maximum(x, mul(slope, x)) },
}
export const leakyRelu =
  (slope: number) =>
  <T extends Operand>(x: T): T =>
    apply(leakyReluOp, [x], { slope }) as T

// ---- smooth ------------------------------------------------------------------------------------------------------

/** e^x. */
export const expOp: Op<undefined> = elementwise(
  {
    name: 'exp',
    vjp: (ct, _, out) => [mul(ct, out)],
    interval: increasing(() => expOp),
    relax: (xs, attrs, slope) => curved(exp, exp, 'convex')(xs, attrs, slope),
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
    relax: (xs, attrs, slope) => curved(log, (x) => div(1, x), 'concave')(xs, attrs, slope),
    domain: ['nonnegative'],
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
    vjp: (ct, _, out) => [div(mul(ct, 0.5), out)],
    interval: increasing(() => sqrtOp),
    relax: (xs, attrs, slope) => curved(sqrt, rootSlope, 'concave')(xs, attrs, slope),
    domain: ['nonnegative'],
    outward: { interval: 'rounded' },
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
    relax: (xs, attrs, slope) => sShaped(sigmoid, (x) => mul(sigmoid(x), sigmoid(neg(x))))(xs, attrs, slope),
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
    relax: (xs, attrs, slope) => {
      const derivative = (x: Tensor) => {
        const y = tanh(x)
        return sub(1, mul(y, y))
      }
      return sShaped(tanh, derivative)(xs, attrs, slope)
    },
  },
  Micro.tanh,
  (a) => Math.tanh(a),
)

export const exp = unary(expOp, undefined)
export const log = unary(logOp, undefined)
export const sqrt = unary(sqrtOp, undefined)
export const sigmoid = unary(sigmoidOp, undefined)
export const tanh = unary(tanhOp, undefined)

// ---- products of the bound walk ------------------------------------------------------------------------------------

/**
 * Sign-split product max(a, 0) p + min(a, 0) q: coefficient a of a neuron meets the line p where it is positive and q where it is
 * negative. One pass over a, which has a row axis in front of p and q.
 */
export const splitMulOp: Op<undefined> = elementwise(
  {
    name: 'splitMul',
    vjp: (ct, [a, p, q], out) => [
      unbroadcast(splitMulSlope(ct, a, p, q), out.shape, a.shape),
      unbroadcast(mul(ct, relu(a)), out.shape, p.shape),
      unbroadcast(mul(ct, minimum(a, 0)), out.shape, q.shape),
    ],
    interval: unsupported('it is made of coefficients, which are points'),
    relax: unsupported('it is made of coefficients, which are points'),
  },
  Micro.splitMul,
  (a, p, q) => a * (a > 0 ? p : q),
)
const splitMulSlope = (ct: Tensor, a: Tensor, p: Tensor, q: Tensor): Tensor => mul(ct, select(greater(a, 0), p, q))

export const splitMul = (a: Tensor, p: Tensor, q: Tensor): Tensor =>
  p === q ? mul(a, p) : node(splitMulOp, [a, p, q], undefined)

/** |a| r: what a coefficient a adds to a radius r >= 0. */
export const absMulOp: Op<undefined> = elementwise(
  {
    name: 'absMul',
    vjp: (ct, [a, r], out) => [
      unbroadcast(mul(ct, mul(sign(a), r)), out.shape, a.shape),
      unbroadcast(mul(ct, abs(a)), out.shape, r.shape),
    ],
    interval: unsupported('it is made of coefficients, which are points'),
    relax: unsupported('it is made of coefficients, which are points'),
  },
  Micro.absMul,
  (a, r) => Math.abs(a) * r,
)
export const absMul = (a: Tensor, r: Tensor): Tensor => node(absMulOp, [a, r], undefined)

// ---- interval tensors ----------------------------------------------------------------------------------------------

/** (lower + upper) / 2. */
export const centre = (x: Operand): Tensor => (isInterval(x) ? mul(add(x.lower, x.upper), 0.5) : x)
/** (upper - lower) / 2. */
export const radius = (x: Operand): Tensor => (isInterval(x) ? mul(sub(x.upper, x.lower), 0.5) : full(x.shape, 0))
/** The interval [c - r, c + r]. */
export const centreRadius = (c: Tensor, r: Tensor) => interval(sub(c, r), add(c, r))
/** The smallest interval that contains both. */
export const hull = (a: Operand, b: Operand) =>
  interval(minimum(lowerOf(a), lowerOf(b)), maximum(upperOf(a), upperOf(b)))
/** What both contain; empty (lower > upper) where they are disjoint. */
export const intersection = (a: Operand, b: Operand) =>
  interval(maximum(lowerOf(a), lowerOf(b)), minimum(upperOf(a), upperOf(b)))
