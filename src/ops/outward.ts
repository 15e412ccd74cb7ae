import { raise } from '../core/error.ts'
import { interval, lowerOf, node, type Op, upperOf } from '../core/op.ts'
import {
  FAINT,
  gamma,
  growth,
  type Rounding,
  roundDown,
  roundUp,
  type Semantics,
  TO_NEAREST,
} from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import { centre } from './box.ts'
import { down, stepOut, up } from './directed.ts'
import { add, greaterEqual, maximum, minimum, mul, select, sub } from './elementwise.ts'
import { type Argument, operand } from './maker.ts'
import { abs } from './relu.ts'

/**
 * Interval rules that hold in spite of rounding, as graphs. Every sum and product in them is rounded to nearest by the backend and
 * then stepped to the neighbour on the safe side, so that no claim is made about the rounding of a whole expression. Numbers that the graphs
 * hold are float32 numbers: the same graph is as sound in doubles, where roundings are finer.
 */

export const addUp = (a: Tensor, b: Argument): Tensor => up(add(a, b) as Tensor)
export const addDown = (a: Tensor, b: Tensor): Tensor => down(add(a, b))
export const subUp = (a: Tensor, b: Tensor): Tensor => up(sub(a, b))
export const subDown = (a: Tensor, b: Tensor): Tensor => down(sub(a, b))
/** a - b, never above it where rounding is outward. */
export const subRounded = (a: Tensor, b: Tensor, rounding: Rounding): Tensor =>
  rounding === 'none' ? (sub(a, b) as Tensor) : subDown(a, b)
export const mulUp = (a: Tensor, b: Argument): Tensor => up(mul(a, b) as Tensor)

/** The largest |x| of a box, elementwise; exact. */
export const magnitude = (x: Operand): Tensor => (isInterval(x) ? maximum(abs(x.lower), abs(x.upper)) : abs(x))

/** x, or FAINT if that is more. */
export const notFaint = (x: Tensor): Tensor => maximum(x, FAINT) as Tensor

/**
 * At least gamma_n x + N ETA for x >= 0 and N <= 2^40: max(up(x gamma(n)), FAINT). gamma(n) is by 1.5 % more than gamma_n, which is worth 2^-87 once the product is
 * FAINT or more; below it, FAINT itself is as much more (proofs/Bounds.v: errorOfSum_above).
 */
export const errorOfSum = (x: Tensor, n: number, times = 1): Tensor => notFaint(mulUp(x, roundUp(times * gamma(n))))

/**
 * At least the sum M of N <= 2^20 products of non-negative numbers that was computed as m, none of them through more than n roundings, and by
 * 2^22 ETA more: max(up(m growth(n)), FAINT). |m - M| <= gamma_n M + N ETA gives M <= (m + N ETA) / (1 - gamma_n), and growth(n) is by 2^-24 more
 * than that quotient, which is worth 2^-104 once the product is FAINT or more; below it, FAINT itself is as much more (proofs/Bounds.v: majorant_above).
 */
export const majorant = (m: Tensor, n: number): Tensor => notFaint(mulUp(m, growth(n)))

/** x where y <= limit, else NaN: what may have overflowed on the way is not known. */
export const within = (y: Tensor, limit: number, x: Tensor): Tensor => select(greaterEqual(limit, y), x, Number.NaN)

/** A centre, and a radius that covers the box whatever rounding made of the centre. */
export const centreAndReach = (x: Interval): { readonly c: Tensor; readonly r: Tensor } => {
  const c = centre(x)
  return { c, r: notFaint(maximum(subUp(x.upper, c), subUp(c, x.lower))) }
}

/** Sums of numbers whose magnitudes add up to this do not overflow, in any order. */
export const LARGE = 2 ** 124

/**
 * Products x W of a box x = c +- r with a box W = C +- Q, n terms each, k = gamma_{n+1}; a point has no radius. The kernel computes c C as
 * V with |V - c C| <= k |c||C| + n ETA, and x W - c C = (x - c) W + c (W - C), so x W lies in V +- R for
 * R >= (r + k |c|)(|C| + Q) + |c| Q + n ETA. `deployed`: an execution differs from x W by at most k (|c| + r)(|C| + Q) + n ETA more, so
 * R >= ((1 + k) r + 2 k |c|)(|C| + Q) + |c| Q + 2 n ETA. The products with |C| + Q and Q are themselves computed; `majorant` takes them, and has
 * room for each ETA.
 *
 * R >= k (|c| + r)(|C| + Q) and k > 2^-24, so where R <= 2^100 the terms of any of these sums add up to at most 2^124, and nothing overflowed.
 * Elsewhere the result is NaN. For a point W: proofs/Bounds.v, product_real and product_deployed; proofs/Sum.v, no_overflow.
 */
const product = <A>(op: Op<A>, [a, b]: readonly Operand[], attrs: A, n: number, semantics: Semantics): Interval => {
  const [x, w] = isInterval(a) || !isInterval(b) ? [a, b] : [b, a]
  const apply = (v: Tensor, u: Tensor) => node(op, x === a ? [v, u] : [u, v], attrs)
  const [{ c, r }, { c: weight, r: width }] = [x, w].map((v) =>
    isInterval(v) ? centreAndReach(v) : { c: v, r: undefined },
  )
  const own = errorOfSum(abs(c), n + 1, semantics === 'real' ? 1 : 2)
  const reach = r === undefined ? own : addUp(semantics === 'real' ? r : mulUp(r, roundUp(1 + gamma(n + 1))), own)
  const one = majorant(apply(reach, width === undefined ? abs(weight) : addUp(abs(weight), width)), n)
  const spread = width === undefined ? one : addUp(one, majorant(apply(abs(c), width), n))
  const radius = within(spread, 2 ** 100, spread)
  const value = apply(c, weight)
  return interval(subDown(value, radius), addUp(value, radius))
}

/**
 * Sums of n elements of a box. An end is computed as L with |L - sum l| <= gamma_n sum |l|; an execution of a sum of x differs from it by as much
 * again. Additions do not underflow. Nothing overflows where the magnitudes add up to at most 2^124.
 */
const summed = <A>(op: Op<A>, x: Operand, attrs: A, semantics: Semantics): Interval => {
  const [lower, upper, m] = [lowerOf(x), upperOf(x), magnitude(x)].map((end) => node(op, [end], attrs))
  const n = S.size(lower.shape) === 0 ? 0 : S.size(x.shape) / S.size(lower.shape)
  const total = majorant(m, n)
  const error = errorOfSum(within(total, LARGE, total), n, semantics === 'real' ? 1 : 2)
  return interval(subDown(lower, error), addUp(upper, error))
}

/** One rounding of results up to `size`: U size, and what an underflow costs. */
export const roundingError = (size: Tensor): Tensor => errorOfSum(size, 1)

/**
 * What executions of an op differ from its exact results, which lie in `box`: a unit in the last place of y is at most max(2 U |y|, ETA). NaN where
 * they could overflow.
 */
export const executionOf = <A>(op: Op<A>, xs: readonly Operand[], box: Interval, attrs: A): Tensor => {
  if (op.outward?.executions === 'unknown')
    return raise({
      kind: 'unsupported',
      what: `outward rounding of executions of ${op.name}`,
      reason: 'nothing is assumed of how others compute it',
      instead: '--semantics real is proved',
    })
  const size = op.outward?.scale?.(xs, box, attrs) ?? magnitude(box)
  return errorOfSum(within(size, LARGE, size), 2 * (op.outward?.ulps ?? 0.5))
}

/**
 * What lies within so many units in the last place of v, that is the exact value y that v was computed for: |v - y| <= 2 N U |y| + N ETA, so
 * |v - y| <= 2 N U |v| (1 + 2^-16) + 2 N ETA for N <= 64, which `errorOfSum` has room for. No further than `low` and `high`, which y keeps.
 */
export const near = (v: Tensor, ulps: number, low?: number, high?: number): Interval => {
  const error = errorOfSum(abs(v), 2 * ulps)
  const [l, u] = [subDown(v, error), addUp(v, error)]
  return interval(low === undefined ? l : maximum(l, low), high === undefined ? u : minimum(u, high))
}

/** What encloses the exact results of an op, widened by what an execution may be off. */
const executed = <A>(op: Op<A>, xs: readonly Operand[], attrs: A, box: Interval, semantics: Semantics): Interval => {
  if (semantics === 'real') return box
  const error = executionOf(op, xs, box, attrs)
  return interval(subDown(box.lower, error), addUp(box.upper, error))
}

/**
 * The enclosure of an op under outward rounding: of its exact results for all operands in their boxes, points included, and for `deployed` of its
 * executions as well, in which it rounds as `Outward` says, or not at all. `name` is what a message calls the op. @throws unsupported where no rule is proved.
 */
export const enclose = <A>(
  op: Op<A>,
  xs: readonly Operand[],
  attrs: A,
  semantics: Semantics,
  name = op.name,
): Interval => {
  const rule = op.outward?.interval
  if ('unsupported' in op.interval)
    return raise({ kind: 'unsupported', what: `intervals of ${name}`, reason: op.interval.unsupported })
  if (rule === undefined)
    return raise({
      kind: 'unsupported',
      what: `outward rounding of ${name}`,
      reason: 'no error bound of it is proved',
      instead: TO_NEAREST,
    })
  if (typeof rule === 'function') return executed(op, xs, attrs, rule(xs, attrs), semantics)
  switch (rule) {
    case 'exact':
    case 'directed':
      return op.interval(xs, attrs)
    case 'rounded':
      return executed(op, xs, attrs, stepOut(op.interval(xs, attrs)), semantics)
    case 'sum':
      return summed(op, xs[0], attrs, semantics)
    case 'product':
      return product(op, xs, attrs, termsOf(op, xs, attrs), semantics)
    default:
      return rule satisfies never
  }
}

/** Terms of each element of a product. */
const termsOf = <A>(op: Op<A>, xs: readonly Operand[], attrs: A): number =>
  op.outward?.terms?.(
    xs.map((x) => x.shape),
    attrs,
  ).result ?? 0

/** An op in interval arithmetic that holds in real arithmetic: functions that are composed of ops are enclosed op by op. */
export const lifted =
  <A>(op: Op<A>, attrs: A) =>
  (...xs: readonly Argument[]): Interval =>
    enclose(op, xs.map(operand), attrs, 'real')

/** A real number: itself, or the float32 numbers round it. */
export const real = (x: number): Operand =>
  Math.fround(x) === x ? operand(x) : interval(operand(roundDown(x)) as Tensor, operand(roundUp(x)) as Tensor)
