import * as E from 'fp-ts/lib/Either.js'
import { Micro } from '../core/lowering.ts'
import { type Affine, apply, interval, lowerOf, type Op, type Relax, type Slope, upperOf } from '../core/op.ts'
import type * as S from '../core/shape.ts'
import { type Interval, isInterval, type Join, type Operand, type Tensor } from '../core/tensor.ts'
import { down, stepOut, up } from './directed.ts'
import { type Arg, type Argument, binary, broadcastShape, elementwise, operand, unary } from './maker.ts'
import { broadcastTo, full, increasing, unbroadcast } from './shape.ts'
import { scalar } from './source.ts'

// ---- relaxation makers -------------------------------------------------------------------------------------------

/** Constant bounds, for an op without useful slopes: the interval rule as two flat lines. */
export const flat =
  <A>(op: () => Op<A>): Relax<A> =>
  (xs, attrs) =>
    flatLines(xs, apply(op(), xs, attrs))

const flatLines = (xs: readonly Operand[], box: Operand) => {
  const slopes = xs.map((x) => full(x.shape, 0))
  return { lower: { slopes, intercept: lowerOf(box) }, upper: { slopes, intercept: upperOf(box) } }
}

/** 1 where l < 0 < u, else 0. */
export const straddles = (l: Tensor, u: Tensor): Tensor => select(greater(0, l), greater(u, 0), 0)

/** a / b where mask is 1, with a gradient of 0 (never NaN) elsewhere, where `other` stands. */
export const divideWhere = (mask: Tensor, a: Tensor, b: Tensor, other: Tensor): Tensor =>
  select(mask, div(a, select(mask, b, 1)), other)

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
    linear: 'adds',
    sharesImages: () => true,
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
    linear: 'subtracts',
    sharesImages: () => true,
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
    linear: 'same',
    sharesImages: () => true,
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
    linear: 'multiplies',
    sharesImages: () => true,
    outward: {
      interval: 'rounded',
      // McCormick's planes hold whatever the ends are; of their intercepts -x y one is taken downward, one upward.
      relax: ([a, b]) => {
        const plane = (x: Tensor, y: Tensor, round: (z: Tensor) => Tensor) => ({
          slopes: [y, x],
          intercept: round(neg(mul(x, y))),
        })
        return { lower: plane(lowerOf(a), lowerOf(b), down), upper: plane(upperOf(a), lowerOf(b), up) }
      },
      steep: true,
    },
  },
  Micro.mul,
  (a, b) => a * b,
)

/** 1 / b of a box that does not contain 0; unbounded (-inf, inf) where it does. */
export const reciprocalInterval = (b: Operand): Operand => {
  if (!isInterval(b)) return div(1, b)
  const [p, q] = [div(1, b.upper), div(1, b.lower)]
  const clear = maximum(greater(b.lower, 0), greater(0, b.upper))
  const known = add(clear, poison(b))
  return interval(select(known, p, Number.NEGATIVE_INFINITY), select(known, q, Number.POSITIVE_INFINITY))
}

/** Encloses exact quotients: what is rounded once is at most any float that the exact value is at most. */
const quotients = ([a, b]: readonly Operand[]): Interval =>
  isInterval(b)
    ? stepOut(mul(a, stepOut(reciprocalInterval(b) as Interval)) as Interval)
    : stepOut(extremes([div(lowerOf(a), b), div(upperOf(a), b)]))

/** a / b. A box divisor that contains 0 gives (-inf, inf). */
export const divOp: Op<undefined> = elementwise(
  {
    name: 'div',
    exact: 'quotient',
    vjp: (ct, xs, out) => sides(xs, out, div(ct, xs[1]), neg(div(mul(ct, out), xs[1]))),
    interval: ([a, b]) =>
      isInterval(b)
        ? (mul(a, reciprocalInterval(b)) as ReturnType<typeof interval>)
        : extremes([div(lowerOf(a), b), div(upperOf(a), b)]),
    relax: (xs) => {
      const [, b] = xs
      if (isInterval(b)) return flat(() => divOp)(xs, undefined, 'same')
      const line = { slopes: [div(1, b), full(b.shape, 0)] }
      return { lower: line, upper: line }
    },
    domain: [undefined, 'nonzero'],
    linear: 'divides',
    sharesImages: () => true,
    outward: { interval: (xs) => quotients(xs), relax: (xs) => flatLines(xs, quotients(xs)) },
  },
  Micro.div,
  (a, b) => a / b,
)

/**
 * a + b, elementwise, shapes broadcast as in NumPy. Of intervals, lower and upper ends are added.
 *
 * @example
 *   add(constant([1, 2], [2]), 10) // [11, 12]
 *
 * @function
 */
export const add = binary(addOp)
/**
 * a - b, elementwise, shapes broadcast as in NumPy.
 *
 * @example
 *   sub(constant([1, 2], [2]), 10) // [-9, -8]
 *
 * @function
 */
export const sub = binary(subOp)
/**
 * a b, elementwise, shapes broadcast as in NumPy. Of two intervals: the hull of the four products of ends.
 *
 * @example
 *   mul(constant([1, 2], [2]), 10) // [10, 20]
 *
 * @function
 */
export const mul = binary(mulOp)
/**
 * a / b, elementwise, shapes broadcast. An interval divisor that contains 0 gives (-inf, inf).
 *
 * @example
 *   div(constant([6, 9], [2]), constant([2, 3], [2])) // [3, 3]
 *
 * @function
 */
export const div = binary(divOp)
/**
 * -x, elementwise; the ends of an interval change places.
 *
 * @example
 *   neg(constant([1, -2], [2])) // [-1, 2]
 *
 * @function
 */
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
    exact: 'decisions',
    vjp: () => [undefined, undefined],
    interval: ([a, b]) => truth([a, b], greater(lowerOf(a), upperOf(b)), greater(upperOf(a), lowerOf(b))),
    relax: flat(() => greaterOp),
    outward: { interval: 'exact', relax: 'selection' },
  },
  Micro.greater,
  (a, b) => (a > b ? 1 : 0),
)

/** 1 where a >= b, else 0 (also where either is NaN). */
export const greaterEqualOp: Op<undefined> = elementwise(
  {
    name: 'greaterEqual',
    exact: 'decisions',
    vjp: () => [undefined, undefined],
    interval: ([a, b]) => truth([a, b], greaterEqual(lowerOf(a), upperOf(b)), greaterEqual(upperOf(a), lowerOf(b))),
    relax: flat(() => greaterEqualOp),
    outward: { interval: 'exact', relax: 'selection' },
  },
  Micro.greaterEqual,
  (a, b) => (a >= b ? 1 : 0),
)

/** 1 where a = b, else 0. Interval: 1 for certain only between equal points, 0 for certain where the boxes are disjoint. */
export const equalOp: Op<undefined> = elementwise(
  {
    name: 'equal',
    exact: 'decisions',
    vjp: () => [undefined, undefined],
    interval: ([a, b]) => {
      const thin = mul(equal(lowerOf(a), upperOf(a)), equal(lowerOf(b), upperOf(b)))
      const meet = mul(greaterEqual(upperOf(a), lowerOf(b)), greaterEqual(upperOf(b), lowerOf(a)))
      return truth([a, b], mul(thin, equal(lowerOf(a), lowerOf(b))), meet)
    },
    relax: flat(() => equalOp),
    outward: { interval: 'exact', relax: 'selection' },
  },
  Micro.equal,
  (a, b) => (a === b ? 1 : 0),
)

/**
 * 1 where a > b, else 0 (also where either is NaN), elementwise, shapes broadcast; its derivative is 0.
 *
 * @example
 *   greater(constant([1, 3], [2]), 2) // [0, 1]
 *
 * @function
 */
export const greater = binary(greaterOp)
/**
 * 1 where a >= b, else 0 (also where either is NaN), elementwise, shapes broadcast; its derivative is 0.
 *
 * @example
 *   greaterEqual(constant([1, 2], [2]), 2) // [0, 1]
 *
 * @function
 */
export const greaterEqual = binary(greaterEqualOp)
/**
 * 1 where a = b, else 0, elementwise, shapes broadcast; its derivative is 0.
 *
 * @example
 *   equal(constant([1, 2], [2]), 2) // [0, 1]
 *
 * @function
 */
export const equal = binary(equalOp)

/**
 * `select(c, a, b)`: a where c is not 0, b where it is, NaN where c is NaN. An interval condition that contains 0 and more gives
 * the hull of both.
 */
export const selectOp: Op<undefined> = elementwise(
  {
    name: 'select',
    exact: 'elements',
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
    outward: { interval: 'exact', relax: 'selection' },
  },
  Micro.select,
  (c, a, b) => (Number.isNaN(c) ? Number.NaN : c !== 0 ? a : b),
)

/**
 * a where c is not 0, b where it is, NaN where c is NaN, elementwise, shapes broadcast; the condition has no derivative. An interval condition that contains 0 and more gives the hull
 * of both.
 *
 * @example
 *   select(constant([1, 0], [2]), constant([1, 2], [2]), constant([3, 4], [2])) // [1, 4]
 */
export const select = <C extends Argument, T extends Argument, U extends Argument>(
  c: C,
  a: T,
  b: U,
): Join<Arg<C>, Join<Arg<T>, Arg<U>>> =>
  apply(selectOp, [operand(c), operand(a), operand(b)], undefined) as Join<Arg<C>, Join<Arg<T>, Arg<U>>>

/** (1 - s) a + s b + t, where a point among a and b goes into the intercept, rounded to one side. */
const between =
  ([a, b]: readonly Operand[], round: (x: Tensor) => Tensor) =>
  (s: Tensor, t: Tensor | undefined): Affine => {
    const rest = sub(1, s) as Tensor
    const parts = [
      t,
      isInterval(a) ? undefined : round(mul(rest, a)),
      isInterval(b) ? undefined : round(mul(s, b)),
    ].filter((x) => x !== undefined)
    return {
      slopes: [isInterval(a) ? rest : full(a.shape, 0), isInterval(b) ? s : full(b.shape, 0)],
      intercept: parts.length === 0 ? undefined : parts.reduce((x, y) => round(add(x, y))),
    }
  }

/**
 * Lines of x -> max(x, a x), 0 <= a < 1, on [l, u]. Unstable neurons (l < 0 < u): upper chord, slope s = (u - a l) / (u - l); lower
 * line through 0 of slope s (`same`), 1 if u > -l else a (`adaptive`), a (`zero`) or as given. Stable ones: exact, both.
 */
export const reluLines = (l: Tensor, u: Tensor, a: number, slope: Slope) => {
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

/** max of two boxes as a + relu(b - a), with relu's lines. */
const maxRelax: Relax<undefined> = ([a, b], _, slope) => {
  const { lower, upper } = reluLines(sub(lowerOf(b), upperOf(a)), sub(upperOf(b), lowerOf(a)), 0, slope)
  const line = between([a, b], (x) => x)
  return { lower: line(lower.slopes[0], lower.intercept), upper: line(upper.slopes[0], upper.intercept) }
}

/**
 * The same as a theorem: relu(d) lies between s d and q d + t on the box of d = b - a, which is rounded outward, for s and q in [0, 1] and t >= -q l, t >= (1 - q) u.
 * Slopes are brought to multiples of the unit of numbers in [1, 2), so that 1 - s is exact: a + s (b - a) = (1 - s) a + s b.
 */
const maxOutward: Relax<undefined> = ([a, b], _, slope) => {
  const [l, u] = [down(sub(lowerOf(b), upperOf(a))), up(sub(upperOf(b), lowerOf(a)))]
  const lines = reluLines(l, u, 0, slope)
  const unstable = straddles(l, u)
  const stable = step(maximum(l, u))
  const coarse = ([s]: readonly Tensor[]): Tensor => select(unstable, sub(add(clamp(s, 0, 1), 1), 1), stable)
  const q = coarse(lines.upper.slopes)
  const s = lines.lower.slopes[0] === lines.upper.slopes[0] ? q : coarse(lines.lower.slopes)
  const intercept = select(unstable, maximum(up(mul(q, neg(l))), up(mul(sub(1, q), u))), 0)
  return { lower: between([a, b], down)(s, undefined), upper: between([a, b], up)(q, intercept) }
}

/** Lines of -f(-x) for lines of f. */
const negated =
  (rule: Relax<undefined>): Relax<undefined> =>
  (xs, attrs, slope) => {
    const { lower, upper } = rule(
      xs.map((x) => neg(x)),
      attrs,
      slope,
    )
    const turn = (line: Affine) => ({ slopes: line.slopes, intercept: line.intercept && neg(line.intercept) })
    return { lower: turn(upper), upper: turn(lower) }
  }

/** The larger of a and b, NaN if either is NaN. At a tie the gradient goes to a. */
export const maximumOp: Op<undefined> = elementwise(
  {
    name: 'maximum',
    exact: 'elements',
    nonnegative: ([a, b]) => a || b,
    vjp: (ct, xs, out) => {
      const first = greaterEqual(xs[0], xs[1])
      return sides(xs, out, select(first, ct, 0), select(first, 0, ct))
    },
    interval: increasing(() => maximumOp),
    relax: maxRelax,
    outward: { interval: 'exact', relax: maxOutward },
  },
  Micro.max,
  (a, b) => Math.max(a, b),
)

/** The smaller of a and b, NaN if either is NaN. At a tie the gradient goes to a. */
export const minimumOp: Op<undefined> = elementwise(
  {
    name: 'minimum',
    exact: 'elements',
    nonnegative: ([a, b]) => a && b,
    vjp: (ct, xs, out) => {
      const first = greaterEqual(xs[1], xs[0])
      return sides(xs, out, select(first, ct, 0), select(first, 0, ct))
    },
    interval: increasing(() => minimumOp),
    relax: negated(maxRelax),
    outward: { interval: 'exact', relax: negated(maxOutward) },
  },
  Micro.min,
  (a, b) => Math.min(a, b),
)

/**
 * The larger of a and b, elementwise, shapes broadcast; NaN if either is NaN. At a tie the gradient goes to a.
 *
 * @example
 *   maximum(constant([1, 5], [2]), 3) // [3, 5]
 *
 * @function
 */
export const maximum = binary(maximumOp)
/**
 * The smaller of a and b, elementwise, shapes broadcast; NaN if either is NaN. At a tie the gradient goes to a.
 *
 * @example
 *   minimum(constant([1, 5], [2]), 3) // [1, 3]
 *
 * @function
 */
export const minimum = binary(minimumOp)

/**
 * x limited to [low, high].
 *
 * @example
 *   clamp(constant([-2, 0.5, 3], [3]), 0, 1) // [0, 0.5, 1]
 */
export const clamp = <T extends Operand>(x: T, low: Argument, high: Argument): T => minimum(maximum(x, low), high) as T

// ---- thresholds ---------------------------------------------------------------------------------------------------------

/** 1 where x > 0, else 0; NaN for NaN. */
export const stepOp: Op<undefined> = elementwise(
  {
    name: 'step',
    exact: 'decisions',
    vjp: () => [undefined],
    interval: increasing(() => stepOp),
    relax: flat(() => stepOp),
    outward: { interval: 'exact', relax: 'selection' },
  },
  Micro.step,
  (a) => (Number.isNaN(a) ? a : a > 0 ? 1 : 0),
)

/** -1, 0 or 1; NaN for NaN. */
export const signOp: Op<undefined> = elementwise(
  {
    name: 'sign',
    exact: 'decisions',
    vjp: () => [undefined],
    interval: increasing(() => signOp),
    relax: flat(() => signOp),
    outward: { interval: 'exact', relax: 'selection' },
  },
  Micro.sign,
  (a) => (Number.isNaN(a) ? a : a > 0 ? 1 : a < 0 ? -1 : 0),
)

export const step = unary(stepOp, undefined)

/**
 * -1, 0 or 1, elementwise, NaN for NaN; its derivative is 0.
 *
 * @example
 *   sign(constant([-2, 0, 3], [3])) // [-1, 0, 1]
 *
 * @function
 */
export const sign = unary(signOp, undefined)
