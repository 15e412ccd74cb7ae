import * as E from 'fp-ts/lib/Either.js'
import { Combine } from '../core/lowering.ts'
import { apply, lowerOf, node, type Op, unsupported, upperOf } from '../core/op.ts'
import * as S from '../core/shape.ts'
import type { Operand, Tensor } from '../core/tensor.ts'
import { add, div, equal, greaterEqual, mul, poison, select, sub } from './elementwise.ts'
import {
  type Axes,
  increasing,
  leavesImages,
  liftReduced,
  normalize,
  reducedShape,
  reduceReference,
  reshape,
  stopGradient,
  sum,
} from './shape.ts'
import { iota } from './source.ts'

/** Largest element over axes, NaN if any is NaN. Ties share the gradient evenly. */
export const maxOp: Op<Axes> = {
  name: 'max',
  exact: 'elements',
  shape: ([x], attrs) => reducedShape(x, attrs),
  vjp: (ct, [x], out, attrs) => {
    const winners = stopGradient(equal(x, liftReduced(out, x.shape, attrs)))
    const share = div(winners, sum(winners, attrs.axes, true))
    return [mul(liftReduced(ct, x.shape, attrs), share)]
  },
  interval: increasing(() => maxOp),
  nonnegative: ([x]) => x,
  relax: {
    relax: ([x], attrs) => largestLines(x, attrs),
    lift: (a, [x], attrs) => liftReduced(a, x.shape, attrs),
  },
  keepsImages: leavesImages,
  outward: { interval: 'exact', relax: 'selection' },
  kernel: {
    reference: reduceReference(Number.NEGATIVE_INFINITY, Math.max),
    lower: (_, __, { axes }) => ({ kind: 'reduce', combine: Combine.max, axes }),
  },
}

/**
 * Lines of a maximum. Lower: the element with the largest lower bound (a single one, the first). Upper: the same element where it dominates every
 * other (its lower bound is at least their upper bounds), else the constant max of the upper bounds. A mask leaves elements out.
 */
export const largestLines = (x: Operand, { axes, keep }: Axes, mask?: Tensor) => {
  const among = (end: Tensor): Tensor => (mask === undefined ? end : select(mask, end, Number.NEGATIVE_INFINITY))
  const [l, u] = [lowerOf(x), among(upperOf(x))]
  const best = firstMax(among(l), axes, mask)
  const others = max(select(best, Number.NEGATIVE_INFINITY, u), axes, true)
  const dominates = greaterEqual(sum(select(best, l, 0), axes, true), others)
  const top = max(u, axes, keep)
  // A NaN bound among the elements makes all slopes NaN: no comparison with it picked them.
  const unknown = mask === undefined ? poison(x) : select(mask, poison(x), 0)
  const nan = max(unknown, axes, true)
  return {
    lower: { slopes: [add(best, nan)] },
    upper: {
      slopes: [add(mul(best, dominates), nan)],
      intercept: select(reshape(dominates, top.shape), 0, top),
    },
  }
}

/** 1 at the first largest element along the reduced axes, 0 elsewhere; same shape as x. Masked elements are none. */
const firstMax = (x: Tensor, axes: readonly number[], mask?: Tensor): Tensor => {
  const n = S.size(axes.map((a) => x.shape[a]))
  const position = reshape(
    iota(n),
    x.shape.map((d, i) => (axes.includes(i) ? d : 1)),
  )
  const equals = equal(x, max(x, axes, true))
  const winners = mask === undefined ? equals : mul(equals, mask)
  return equal(min(select(winners, position, n), axes, true), position)
}

/**
 * The largest element over axes (default: all), NaN if any is NaN; `keep` keeps them with extent 1. Ties share the gradient evenly.
 *
 * @example
 *   max(constant([1, 5, 2, 3], [2, 2]), [1]) // [5, 3]
 */
export const max = <T extends Operand>(x: T, axes?: readonly number[] | number, keep = false): T =>
  apply(maxOp, [x], { axes: normalize(x.shape.length, axes), keep }) as T

/**
 * Smallest element over axes: -max(-x).
 *
 * @example
 *   min(constant([1, 5, 2, 3], [2, 2]), [1]) // [1, 2]
 */
export const min = <T extends Operand>(x: T, axes?: readonly number[] | number, keep = false): T =>
  sub(0, max(sub(0, x) as Operand, axes, keep)) as unknown as T

/**
 * Mean over axes: the sum divided by the count, which is one rounding; 1 / n would be another.
 *
 * @example
 *   mean(constant([1, 2, 3, 4], [2, 2]), [1]) // [1.5, 3.5]
 */
export const mean = <T extends Operand>(x: T, axes?: readonly number[] | number, keep = false): T => {
  const n = S.size(normalize(x.shape.length, axes).map((a) => x.shape[a]))
  return div(sum(x, axes, keep), n) as unknown as T
}

/** Index of the first largest element along an axis, as a float: `[n, k] -> [n]`. NaN counts as largest. */
export const argmaxOp: Op<{ readonly axis: number }> = {
  name: 'argmax',
  shape: ([x], { axis }) =>
    axis >= 0 && axis < x.length && x[axis] > 0
      ? E.right(x.filter((_, i) => i !== axis))
      : E.left(`axis ${axis} is not a non-empty axis of the tensor`),
  vjp: () => [undefined],
  interval: unsupported(
    'the index of the largest element of an interval tensor is not one number; compare margins instead',
  ),
  relax: unsupported('an index has no useful linear bounds; compare margins instead'),
  kernel: {
    reference: (out, [x], [shape], _, { axis }) => {
      const inner = S.size(shape.slice(axis + 1))
      const n = shape[axis]
      for (let i = 0; i < out.length; i++) {
        const start = Math.floor(i / inner) * n * inner + (i % inner)
        let best = 0
        for (let j = 1; j < n && !Number.isNaN(x[start + best * inner]); j++)
          if (!(x[start + j * inner] <= x[start + best * inner])) best = j
        out[i] = best
      }
    },
    lower: ([x], out, { axis }) => ({
      kind: 'kernel',
      kernel: { kind: 'argmax', outer: S.size(x.slice(0, axis)), axis: x[axis], inner: S.size(x.slice(axis + 1)) },
      work: S.size(x) + S.size(out),
    }),
  },
}

/** Elements up to which every index is an f32. */
const COUNTABLE = 2 ** 24

/**
 * Coordinates of the elements that are not 0, in row-major order: `[d0, .., dk] -> [k + 1, n]`, n = all elements, 0 behind the last. How
 * many there are is the sum of a mask. NaN is not 0.
 */
export const compactOp: Op<undefined> = {
  name: 'compact',
  shape: ([x]) =>
    x.length > 0 && S.size(x) <= COUNTABLE
      ? E.right([x.length, S.size(x)])
      : E.left(`takes at least one axis and at most ${COUNTABLE} elements`),
  vjp: () => [undefined],
  interval: unsupported('which elements of an interval tensor are not 0 is not known'),
  relax: unsupported('an index has no useful linear bounds'),
  kernel: {
    reference: (out, [x], [shape]) => {
      out.fill(0)
      let found = 0
      x.forEach((v, i) => {
        if (v === 0) return
        let rest = i
        for (let d = shape.length - 1; d >= 0; d--) {
          out[d * x.length + found] = rest % shape[d]
          rest = Math.floor(rest / shape[d])
        }
        found++
      })
    },
    lower: ([x], out) => ({
      kind: 'kernel',
      kernel: { kind: 'compact', dims: x },
      work: S.size(out),
    }),
  },
}

/**
 * Coordinates of the elements that are not 0, in row-major order, then 0: `[d0, .., dk] -> [k + 1, n]`, n = all elements. NaN is not 0. Walks over unstable neurons only are
 * made of it.
 *
 * @example
 *   compact(constant([0, 1, 0, 1], [4])) // [1, 3, 0, 0]
 */
export const compact = (x: Tensor): Tensor => node(compactOp, [x], undefined)

/**
 * The index of the first largest element along an axis, as a float: `[n, k] -> [n]`. NaN counts as largest. It has no derivative and no linear bounds.
 *
 * @example
 *   argmax(constant([1, 5, 2], [1, 3])) // [1]
 */
export const argmax = (x: Tensor, axis = -1): Tensor => node(argmaxOp, [x], { axis: S.axisOf(axis, x.shape.length) })

/**
 * 1 at the index, 0 elsewhere: `[n] -> [n, count]`. To choose by it, use `select`: a product with it makes NaN of an infinity.
 *
 * @example
 *   oneHot(constant([1, 0], [2]), 3) // [0, 1, 0, 1, 0, 0]
 */
export const oneHot = (index: Tensor, count: number): Tensor =>
  equal(reshape(index, [index.shape[0], 1]), iota(count)) as Tensor
