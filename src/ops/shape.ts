import * as E from 'fp-ts/lib/Either.js'
import { raise } from '../core/error.ts'
import { Combine } from '../core/lowering.ts'
import { apply, interval, lowerOf, node, type Op, unsupported, upperOf } from '../core/op.ts'
import * as S from '../core/shape.ts'
import { isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import { scalar } from './source.ts'

/** Interval rule of an op that is non-decreasing in every operand: apply it to the lower ends, then to the upper ends. */
export const increasing =
  <A>(op: () => Op<A>) =>
  (xs: readonly Operand[], attrs: A) =>
    interval(node(op(), xs.map(lowerOf), attrs), node(op(), xs.map(upperOf), attrs))

/** The axes that a cotangent carries in front of those of the output: the row axes of a backward bound walk. */
export const leading = (ct: Tensor, out: S.Shape): readonly number[] => ct.shape.slice(0, ct.shape.length - out.length)

/** Calls `f(offset of output, offset of input)` for every element of `shape`, with any strides on both sides. */
const walk = (shape: S.Shape, a: readonly number[], b: readonly number[], f: (i: number, j: number) => void): void => {
  const rank = shape.length
  if (S.size(shape) === 0) return
  const index = new Array<number>(rank).fill(0)
  let i = 0
  let j = 0
  for (;;) {
    f(i, j)
    let d = rank - 1
    for (; d >= 0; d--) {
      i += a[d]
      j += b[d]
      if (++index[d] < shape[d]) break
      i -= a[d] * shape[d]
      j -= b[d] * shape[d]
      index[d] = 0
    }
    if (d < 0) return
  }
}

const copyView =
  (offset: number, strides: readonly number[]) =>
  (out: Float64Array, x: Float64Array, shape: S.Shape): void =>
    walk(shape, S.strides(shape), strides, (i, j) => {
      out[i] = x[offset + j]
    })

/** The same elements in row-major order under another shape. `[2, 6] -> [3, 4]`. */
export const reshapeOp: Op<{ readonly shape: S.Shape }> = {
  name: 'reshape',
  shape: ([x], { shape }) =>
    S.size(x) === S.size(shape)
      ? E.right(shape)
      : E.left(`${S.size(x)} elements do not fill ${S.show(shape)} of ${S.size(shape)}`),
  vjp: (ct, [x], out) => {
    const lead = leading(ct, out.shape)
    // Rows of a bound may have another number of images: one for all of a batch, or the items of a list.
    const images = ct.shape[lead.length]
    const alike = lead.length === 0 || images === out.shape[0]
    return [reshape(ct, alike ? [...lead, ...x.shape] : [...lead, images, ...x.shape.slice(1)])]
  },
  interval: increasing(() => reshapeOp),
  relax: 'linear',
  linear: 'reshapes',
  sharesImages: () => true,
  outward: { interval: 'exact' },
  kernel: { reference: (out, [x]) => out.set(x), lower: () => ({ kind: 'alias' }) },
}

/**
 * The elements in the same order under another shape of the same size.
 *
 * @example
 *   reshape(constant([1, 2, 3, 4], [4]), [2, 2]).shape // [2, 2]
 */
export function reshape<const Sh extends S.Shape>(x: Tensor, shape: Sh): Tensor<Sh>
export function reshape<T extends Operand>(x: T, shape: S.Shape): T
export function reshape(x: Operand, shape: S.Shape): Operand {
  return S.equals(x.shape, shape) ? x : apply(reshapeOp, [x], { shape })
}

/** Axes in another order: axis d of the output is axis `permutation[d]` of the input. */
export const transposeOp: Op<{ readonly permutation: readonly number[] }> = {
  name: 'transpose',
  shape: ([x], { permutation }) =>
    [...permutation].sort((a, b) => a - b).every((p, i) => p === i) && permutation.length === x.length
      ? E.right(permutation.map((p) => x[p]))
      : E.left(`[${permutation}] is not a permutation of ${x.length} axes`),
  vjp: (ct, _, out, { permutation }) => {
    const lead = leading(ct, out.shape).length
    const inverse = permutation.map((_, d) => permutation.indexOf(d))
    return [transpose(ct, [...Array(lead).keys(), ...inverse.map((d) => d + lead)])]
  },
  interval: increasing(() => transposeOp),
  relax: 'linear',
  linear: 'moves',
  keepsImages: (_, __, { permutation }) => permutation[0] === 0,
  sharesImages: () => true,
  outward: { interval: 'exact' },
  kernel: {
    reference: (out, [x], [shape], outShape, { permutation }) => {
      const s = S.strides(shape)
      copyView(
        0,
        permutation.map((p) => s[p]),
      )(out, x, outShape)
    },
    lower: ([shape], _, { permutation }) => {
      const s = S.strides(shape)
      return { kind: 'view', offset: 0, strides: permutation.map((p) => s[p]) }
    },
  },
}

/**
 * x with its axes in the order of the permutation.
 *
 * @example
 *   transpose(constant([1, 2, 3, 4], [2, 2]), [1, 0]) // [1, 3, 2, 4]
 */
export const transpose = <T extends Operand>(x: T, permutation: readonly number[]): T =>
  (permutation.every((p, i) => p === i) ? x : apply(transposeOp, [x], { permutation })) as T

/** The last two axes exchanged. */
export const transposeLast = <T extends Operand>(x: T): T => {
  const r = x.shape.length
  return transpose(x, [...Array(r - 2).keys(), r - 1, r - 2])
}

/** The input repeated along new or unit axes until it has the given shape (numpy alignment, at the last axis). */
export const broadcastOp: Op<{ readonly shape: S.Shape }> = {
  name: 'broadcast',
  shape: ([x], { shape }) => {
    const both = S.broadcast(x, shape)
    return E.isRight(both) && S.equals(both.right, shape)
      ? E.right(shape)
      : E.left(`cannot be repeated to ${S.show(shape)}`)
  },
  vjp: (ct, [x], out) => [unbroadcast(ct, out.shape, x.shape)],
  interval: increasing(() => broadcastOp),
  relax: 'linear',
  linear: 'repeats',
  keepsImages: ([x], out) => x.length === out.length,
  outward: {
    interval: 'exact',
    terms: ([x], { shape }) => ({ result: 1, adjoint: S.size(shape) / S.size(x) }),
  },
  kernel: {
    reference: (out, [x], [shape], outShape) => copyView(0, S.broadcastStrides(shape, outShape))(out, x, outShape),
    lower: ([shape], out) => ({ kind: 'view', offset: 0, strides: S.broadcastStrides(shape, out) }),
  },
}

/**
 * x repeated to a shape, as NumPy broadcasts; the shape itself gives x back.
 *
 * @example
 *   broadcastTo(constant([1, 2], [2]), [2, 2]) // [1, 2, 1, 2]
 */
export const broadcastTo = <T extends Operand>(x: T, shape: S.Shape): T =>
  (S.equals(x.shape, shape) ? x : apply(broadcastOp, [x], { shape })) as T

export interface Axes {
  /** Counted from the front, ascending. */
  readonly axes: readonly number[]
  readonly keep: boolean
}

/** Whether a reduction leaves the axis of images alone. */
export const leavesImages = (_: readonly S.Shape[], __: S.Shape, { axes }: Axes): boolean => !axes.includes(0)

export const reducedShape = (x: S.Shape, { axes, keep }: Axes): E.Either<string, S.Shape> =>
  axes.every((a, i) => Number.isInteger(a) && a >= 0 && a < x.length && axes.indexOf(a) === i)
    ? E.right(keep ? x.map((d, i) => (axes.includes(i) ? 1 : d)) : x.filter((_, i) => !axes.includes(i)))
    : E.left(`axes [${axes}] are not different axes of a tensor of rank ${x.length}`)

/** Reads a reduction's output at every element of its input: stride 0 along the reduced axes. */
const reducedStrides = (x: S.Shape, axes: readonly number[]): readonly number[] => {
  const kept = S.strides(x.map((d, i) => (axes.includes(i) ? 1 : d)))
  return x.map((_, i) => (axes.includes(i) ? 0 : kept[i]))
}

export const reduceReference =
  (start: number, combine: (a: number, b: number) => number) =>
  (out: Float64Array, [x]: readonly Float64Array[], [shape]: readonly S.Shape[], _: S.Shape, { axes }: Axes): void => {
    out.fill(start)
    walk(shape, reducedStrides(shape, axes), S.strides(shape), (i, j) => {
      out[i] = combine(out[i], x[j])
    })
  }

/** `[...lead, ...out of a reduction]` with the reduced axes put back as extent 1, so that it broadcasts against `[...lead, ...x]`. */
export const liftReduced = (ct: Tensor, x: S.Shape, { axes, keep }: Axes): Tensor => {
  const lead = ct.shape.slice(0, ct.shape.length - (keep ? x.length : x.length - axes.length))
  return reshape(ct, [...lead, ...x.map((d, i) => (axes.includes(i) ? 1 : d))])
}

/** Sum over axes. `[n, k] -> [n]` for axis 1. */
export const sumOp: Op<Axes> = {
  name: 'sum',
  shape: ([x], attrs) => reducedShape(x, attrs),
  vjp: (ct, [x], out, attrs) => {
    return [broadcastTo(liftReduced(ct, x.shape, attrs), [...leading(ct, out.shape), ...x.shape])]
  },
  interval: increasing(() => sumOp),
  relax: 'linear',
  linear: 'sums',
  keepsImages: leavesImages,
  outward: { interval: 'sum' },
  kernel: {
    reference: reduceReference(0, (a, b) => a + b),
    lower: (_, __, { axes }) => ({ kind: 'reduce', combine: Combine.sum, axes }),
  },
}

/** Axes as the records have them: counted from the front, ascending; all axes when none are given. */
export const normalize = (rank: number, axes: readonly number[] | number | undefined): readonly number[] =>
  axes === undefined
    ? [...Array(rank).keys()]
    : [axes]
        .flat()
        .map((a) => S.axisOf(a, rank))
        .sort((a, b) => a - b)

/**
 * The sum over axes (default: all); `keep` keeps them with extent 1.
 *
 * @example
 *   sum(constant([1, 2, 3, 4], [2, 2]), [1]) // [3, 7]
 */
export const sum = <T extends Operand>(x: T, axes?: readonly number[] | number, keep = false): T => {
  const attrs = { axes: normalize(x.shape.length, axes), keep }
  return (attrs.axes.length === 0 ? x : apply(sumOp, [x], attrs)) as T
}

/**
 * Adjoint of broadcasting: sums a cotangent `[...lead, ...out]` over what was repeated, giving `[...lead, ...x]`.
 * The leading row axes are never summed.
 */
export const unbroadcast = (ct: Tensor, out: S.Shape, x: S.Shape): Tensor => {
  if (S.equals(out, x)) return ct
  const lead = ct.shape.slice(0, ct.shape.length - out.length)
  const axes = S.broadcastAxes(out, x).map((a) => a + lead.length)
  return reshape(sum(ct, axes), [...lead, ...x])
}

/** `before` and `after` zeros on each axis. */
export const padOp: Op<{ readonly before: readonly number[]; readonly after: readonly number[] }> = {
  name: 'pad',
  shape: ([x], { before, after }) =>
    before.length === x.length &&
    after.length === x.length &&
    [...before, ...after].every((p) => Number.isInteger(p) && p >= 0)
      ? E.right(x.map((d, i) => before[i] + d + after[i]))
      : E.left(`before [${before}] and after [${after}] must give one count >= 0 for each of ${x.length} axes`),
  vjp: (ct, [x], out, { before }) => {
    const lead = leading(ct, out.shape)
    return [slice(ct, [...lead.map(() => 0), ...before], [...lead, ...x.shape])]
  },
  interval: increasing(() => padOp),
  relax: 'linear',
  linear: 'moves',
  outward: { interval: 'exact' },
  kernel: {
    reference: (out, [x], [shape], outShape, { before }) => {
      const s = S.strides(outShape)
      const start = before.reduce((o, b, i) => o + b * s[i], 0)
      out.fill(0)
      walk(shape, s, S.strides(shape), (i, j) => {
        out[start + i] = x[j]
      })
    },
    lower: (_, out, { before }) => {
      const s = S.strides(out)
      return { kind: 'place', fill: 0, offsets: [before.reduce((o, b, i) => o + b * s[i], 0)] }
    },
  },
}

/**
 * x with zeros around: so many before and after on each axis.
 *
 * @example
 *   pad(constant([1, 2], [2]), [1], [2]) // [0, 1, 2, 0, 0]
 */
export const pad = <T extends Operand>(x: T, before: readonly number[], after: readonly number[]): T =>
  ([...before, ...after].every((p) => p === 0) ? x : apply(padOp, [x], { before, after })) as T

/** The block of extents `sizes` that begins at `starts`. */
export const sliceOp: Op<{ readonly starts: readonly number[]; readonly sizes: readonly number[] }> = {
  name: 'slice',
  shape: ([x], { starts, sizes }) =>
    starts.length === x.length &&
    sizes.length === x.length &&
    x.every(
      (d, i) =>
        Number.isInteger(starts[i]) &&
        Number.isInteger(sizes[i]) &&
        starts[i] >= 0 &&
        sizes[i] >= 0 &&
        starts[i] + sizes[i] <= d,
    )
      ? E.right(sizes)
      : E.left(`starts [${starts}] and sizes [${sizes}] leave the tensor`),
  vjp: (ct, [x], out, { starts, sizes }) => {
    const lead = leading(ct, out.shape).map(() => 0)
    return [pad(ct, [...lead, ...starts], [...lead, ...x.shape.map((d, i) => d - starts[i] - sizes[i])])]
  },
  interval: increasing(() => sliceOp),
  relax: 'linear',
  linear: 'moves',
  outward: { interval: 'exact' },
  kernel: {
    reference: (out, [x], [shape], outShape, { starts }) => {
      const s = S.strides(shape)
      copyView(
        starts.reduce((o, b, i) => o + b * s[i], 0),
        s,
      )(out, x, outShape)
    },
    lower: ([shape], _, { starts }) => {
      const s = S.strides(shape)
      return { kind: 'view', offset: starts.reduce((o, b, i) => o + b * s[i], 0), strides: s }
    },
  },
}

/**
 * The part of x that begins at `starts` and has the extents `sizes`, one number of each for an axis; a shape error where it leaves x.
 *
 * @example
 *   slice(constant([1, 2, 3, 4], [4]), [1], [2]) // [2, 3]
 */
export const slice = <T extends Operand>(x: T, starts: readonly number[], sizes: readonly number[]): T =>
  (S.equals(x.shape, sizes) ? x : apply(sliceOp, [x], { starts, sizes })) as T

/** Tensors one after the other along `axis`; other extents agree. */
export const concatOp: Op<{ readonly axis: number }> = {
  name: 'concat',
  shape: (xs, { axis }) =>
    xs.length > 0 &&
    axis >= 0 &&
    axis < xs[0].length &&
    xs.every((x) => x.length === xs[0].length && x.every((d, i) => i === axis || d === xs[0][i]))
      ? E.right(xs[0].map((d, i) => (i === axis ? xs.reduce((n, x) => n + x[i], 0) : d)))
      : E.left(`extents besides axis ${axis} must agree`),
  vjp: (ct, xs, out, { axis }) => {
    const lead = leading(ct, out.shape)
    let at = 0
    return xs.map((x) => {
      const starts = [...lead.map(() => 0), ...x.shape.map((_, i) => (i === axis ? at : 0))]
      at += x.shape[axis]
      return slice(ct, starts, [...lead, ...x.shape])
    })
  },
  interval: increasing(() => concatOp),
  relax: 'linear',
  linear: 'moves',
  outward: { interval: 'exact' },
  kernel: {
    reference: (out, xs, shapes, outShape, { axis }) => {
      const s = S.strides(outShape)
      let at = 0
      xs.forEach((x, k) => {
        const start = at * s[axis]
        at += shapes[k][axis]
        walk(shapes[k], s, S.strides(shapes[k]), (i, j) => {
          out[start + i] = x[j]
        })
      })
    },
    lower: (shapes, out, { axis }) => {
      const s = S.strides(out)
      let at = 0
      const offsets = shapes.map((x) => {
        const offset = at * s[axis]
        at += x[axis]
        return offset
      })
      return { kind: 'place', fill: undefined, offsets }
    },
  },
}

/**
 * Operands behind each other along an axis; the other extents must agree.
 *
 * @example
 *   concat([constant([1, 2], [2]), constant([3], [1])], 0) // [1, 2, 3]
 */
export function concat(xs: readonly Tensor[], axis: number): Tensor
export function concat<T extends Operand>(xs: readonly T[], axis: number): T
export function concat(xs: readonly Operand[], axis: number): Operand {
  return xs.length === 1 ? xs[0] : apply(concatOp, xs, { axis: S.axisOf(axis, xs[0].shape.length) })
}

/** An index must be known: a table read at an uncertain row could give any row. */
const certain = (op: string, index: Operand): Tensor =>
  isInterval(index)
    ? raise({ kind: 'unsupported', what: `${op} at an interval index`, reason: 'the rows it names are not known' })
    : index

const rowSize = (shape: S.Shape): number => S.size(shape.slice(1))

/** Rows of `x` chosen by `index`: `[r, ...d], [k] -> [k, ...d]`; an index outside 0..r-1 gives rows of NaN. */
export const gatherOp: Op<undefined> = {
  name: 'gather',
  shape: ([x, index]) =>
    x.length >= 1 && index.length === 1 ? E.right([index[0], ...x.slice(1)]) : E.left('takes [r, ...d] and [k]'),
  vjp: (ct, [x, index]) => [node(scatterAddOp, [ct, index], { rows: x.shape[0] }), undefined],
  interval: ([x, index]) => {
    const at = certain('gather', index)
    return interval(gather(lowerOf(x), at), gather(upperOf(x), at))
  },
  relax: unsupported('it mixes the images of a batch, and bounds are taken per image'),
  outward: { interval: 'exact' },
  kernel: {
    reference: (out, [x, index], [shape]) => {
      const d = rowSize(shape)
      index.forEach((r, i) => {
        if (r >= 0 && r < shape[0]) out.set(x.subarray(r * d, (r + 1) * d), i * d)
        else out.fill(Number.NaN, i * d, (i + 1) * d)
      })
    },
    lower: ([x, index], out) => ({
      kind: 'kernel',
      kernel: { kind: 'gather', n: index[0], rows: x[0], d: rowSize(x) },
      work: S.size(out),
    }),
  },
}

/** Adjoint of `gather`: `[k, ...d], [k] -> [r, ...d]`, rows with the same index added in order. */
export const scatterAddOp: Op<{ readonly rows: number }> = {
  name: 'scatterAdd',
  shape: ([x, index], { rows }) =>
    x.length >= 1 && index.length === 1 && index[0] === x[0]
      ? E.right([rows, ...x.slice(1)])
      : E.left('takes [k, ...d] and [k]'),
  vjp: (ct, [, index]) => [gather(ct, index), undefined],
  interval: ([x, index], attrs) => {
    const at = certain('scatterAdd', index)
    return interval(node(scatterAddOp, [lowerOf(x), at], attrs), node(scatterAddOp, [upperOf(x), at], attrs))
  },
  relax: unsupported('it mixes the images of a batch, and bounds are taken per image'),
  kernel: {
    reference: (out, [x, index], [shape], outShape) => {
      const d = rowSize(shape)
      out.fill(0)
      index.forEach((r, i) => {
        if (r >= 0 && r < outShape[0]) for (let j = 0; j < d; j++) out[r * d + j] += x[i * d + j]
      })
    },
    lower: ([x], out, { rows }) => ({
      kind: 'kernel',
      kernel: { kind: 'scatterAdd', n: x[0], rows, d: rowSize(x) },
      work: S.size(x) + S.size(out),
    }),
  },
}

/**
 * Rows of x chosen by index: `[r, ...d], [k] -> [k, ...d]`; an index outside 0..r-1 gives a row of NaN.
 *
 * @example
 *   gather(constant([1, 2, 3, 4], [2, 2]), constant([1, 0], [2])) // [3, 4, 1, 2]
 */
export const gather = <T extends Operand>(x: T, index: Tensor): T => apply(gatherOp, [x, index], undefined) as T

/**
 * `[k, ...d], [k] -> [rows, ...d]`: rows with the same index added in order, those without one dropped.
 *
 * @example
 *   scatterAdd(constant([1, 2, 3], [3, 1]), constant([0, 1, 0], [3]), 2) // [4, 2]
 */
export const scatterAdd = (x: Tensor, index: Tensor, rows: number): Tensor => node(scatterAddOp, [x, index], { rows })

/** The value with no gradient: vjp treats it as a constant. */
export const stopGradientOp: Op<undefined> = {
  name: 'stopGradient',
  exact: 'elements',
  shape: ([x]) => E.right(x),
  vjp: () => [undefined],
  interval: increasing(() => stopGradientOp),
  relax: ([x]) => {
    const slopes = [onesLike(lowerOf(x))]
    return { lower: { slopes }, upper: { slopes } }
  },
  outward: { interval: 'exact', relax: 'selection' },
  kernel: { reference: (out, [x]) => out.set(x), lower: () => ({ kind: 'alias' }) },
}

/**
 * x itself, in its shape, with derivative 0.
 *
 * @example
 *   stopGradient(constant([1, 2], [2])) // [1, 2]
 */
export const stopGradient = <T extends Operand>(x: T): T => apply(stopGradientOp, [x], undefined) as T

/** The value under a name that a run reports (a loss term, a norm). */
export const probeOp: Op<{ readonly name: string }> = {
  name: 'probe',
  shape: ([x]) => E.right(x),
  vjp: (ct) => [ct],
  interval: increasing(() => probeOp),
  relax: 'linear',
  linear: 'same',
  outward: { interval: 'exact' },
  kernel: { reference: (out, [x]) => out.set(x), lower: () => ({ kind: 'alias' }) },
}

/**
 * x itself, in its shape, under a name that a run reports (a loss term, a norm).
 *
 * @example
 *   probe('hidden', constant([1, 2], [2])) // [1, 2]
 */
export const probe = <T extends Operand>(name: string, x: T): T => apply(probeOp, [x], { name }) as T

/** The name under which a run reports the node; undefined for what is no probe. */
export const probeName = (x: Tensor): string | undefined =>
  x.op === probeOp ? (x.attrs as { readonly name: string }).name : undefined

/**
 * A tensor of one value in every place of a shape.
 *
 * @example
 *   full([2, 2], 7) // [7, 7, 7, 7]
 */
export const full = (shape: S.Shape, value: number): Tensor => broadcastTo(scalar(value), shape)
/**
 * A tensor of zeros of a shape.
 *
 * @example
 *   zeros([2]) // [0, 0]
 */
export const zeros = (shape: S.Shape): Tensor => full(shape, 0)
const onesLike = (x: Tensor): Tensor => full(x.shape, 1)
