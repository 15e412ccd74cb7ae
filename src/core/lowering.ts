import type { Shape } from './shape.ts'

/**
 * The scalar functions of a loop. Semantics are IEEE 754 binary32 round-to-nearest; NaN operands give NaN except in
 * comparisons (0 or 1) and in the operand that `select` does not take.
 */
export enum Micro {
  add = 0,
  sub = 1,
  mul = 2,
  div = 3,
  /** NaN-propagating minimum and maximum (f32x4.min / max), -0 < +0. */
  min = 4,
  max = 5,
  neg = 6,
  abs = 7,
  /** -1, 0, 1; NaN for NaN; sign(+-0) = 0. */
  sign = 8,
  /** 1 where x > 0, 0 where x <= 0, NaN for NaN. */
  step = 9,
  /** max(x, 0). */
  relu = 10,
  sqrt = 11,
  exp = 12,
  log = 13,
  tanh = 14,
  sigmoid = 15,
  /** Comparisons give 1 or 0 (0 when an operand is NaN). */
  greater = 16,
  greaterEqual = 17,
  equal = 18,
  /** a = condition, b = then, c = else: b if a != 0, c if a == 0, NaN if a is NaN. */
  select = 19,
  /** Sign-split product: max(a, 0) * b + min(a, 0) * c, computed as a * (a > 0 ? b : c). */
  splitMul = 20,
  /** a * b + c, two roundings unless the module is the fast-math one. */
  mulAdd = 21,
  /** |a| * b. */
  absMul = 22,
  /** The next number above and below, as IEEE 754 nextUp and nextDown: NaN stays, up(inf) = inf, up(-inf) = the least finite. */
  up = 23,
  down = 24,
  /** The error function, 2 / sqrt(pi) times the integral of e^-t^2 from 0 to x. */
  erf = 25,
  /** NaN beyond 8192, where a float32 says little about a phase. */
  sin = 26,
  cos = 27,
  /** The nearest integer below, and the nearest of all, ties to even; what is no finite number stays. */
  floor = 28,
  round = 29,
}

/** What a loop does with its values: stores each, or reduces the last axes, or those between the kept ones and the last. */
export enum LoopMode {
  map = 0,
  inner = 1,
  keep = 2,
}

/** How a reduction takes two values together. */
export enum Combine {
  sum = 0,
  max = 1,
  min = 2,
}

/** out[b] = A[b] B[b], A: [m, k] (or [k, m] where `transA`), B: [k, n] (or [n, k] where `transB`), out: [m, n], row-major. */
export interface MatmulSizes {
  readonly m: number
  readonly k: number
  readonly n: number
  readonly transA: boolean
  readonly transB: boolean
  readonly batch: number
  /** Elements from one product of the batch to the next; 0 shares the operand. */
  readonly strideA: number
  readonly strideB: number
  readonly strideOut: number
}

/** Sliding windows, x: [N, C, H, W] -> [N, OH, OW, C, KH, KW], zero outside. */
export interface WindowSizes {
  readonly N: number
  readonly C: number
  readonly H: number
  readonly W: number
  readonly KH: number
  readonly KW: number
  readonly OH: number
  readonly OW: number
  readonly strideY: number
  readonly strideX: number
  readonly padTop: number
  readonly padLeft: number
  readonly dilationY: number
  readonly dilationX: number
}

/**
 * A convolution, x: [N, C, H, W], w: [O, C / groups, KH, KW], y: [N, O, OH, OW]:
 * y[n,o,i,j] = sum over c,p,q of x[n, c, i*strideY - padTop + p*dilationY, j*strideX - padLeft + q*dilationX] w[o,c,p,q], x being 0 outside
 * its range, c over the channels of the group of o. OH, OW are given (rows and columns of x that no window reaches get adjoint 0).
 */
export interface ConvSizes extends WindowSizes {
  readonly O: number
  /** A divisor of C and of O. */
  readonly groups: number
}

/** n rows of d elements each, numbered among `rows`. */
export interface RowSizes {
  readonly n: number
  readonly rows: number
  readonly d: number
}

/** A kernel of its own, and its sizes; operands in the order of the op's inputs. */
export type Kernel =
  | ({ readonly kind: 'matmul' } & MatmulSizes)
  /** y = x * w from x and w, its adjoint to x from y and w, its adjoint to w from x and y. */
  | ({ readonly kind: 'conv2d' | 'conv2dInput' | 'conv2dWeight' } & ConvSizes)
  /** Windows of x; the adjoint of that. */
  | ({ readonly kind: 'unfold' | 'fold' } & WindowSizes)
  /** out[i, :] = x[index[i], :], i < n, of x: [rows, d]; index holds integers as f32. */
  | ({ readonly kind: 'gather' } & RowSizes)
  /** out[r, :] = sum of x[i, :], x: [n, d], over ascending i with index[i] = r, out: [rows, d]. */
  | ({ readonly kind: 'scatterAdd' } & RowSizes)
  /** `scatterAdd` added to what out holds from element `offset` on. */
  | ({ readonly kind: 'scatterInto'; readonly offset: number } & RowSizes)
  /** out[o, i] = the first j with the largest x[o, j, i] (NaN counts as largest). */
  | { readonly kind: 'argmax'; readonly outer: number; readonly axis: number; readonly inner: number }
  /** Coordinates of the elements of x: [...dims] that are not 0 (NaN is not), row-major, 0 behind the last: [dims, all elements]. */
  | { readonly kind: 'compact'; readonly dims: readonly number[] }

/**
 * What an op asks of a fast backend, in terms that fuse: most ops are a scalar function, a strided view or a reduction, and a
 * chain of those is one loop (compile/plan.ts); the rest name a kernel.
 */
export type Lowering =
  /** The output has the bytes of input 0 under another shape. */
  | { readonly kind: 'alias' }
  /** out = micro(inputs...) elementwise, inputs broadcast to the shape of the output. */
  | { readonly kind: 'map'; readonly micro: Micro }
  /** out = combine of input 0 over `axes` (removed from the shape, or kept as 1). */
  | { readonly kind: 'reduce'; readonly combine: Combine; readonly axes: readonly number[] }
  /** out[i] = x[offset + sum of i_d strides_d], one stride per axis of the output. */
  | { readonly kind: 'view'; readonly offset: number; readonly strides: readonly number[] }
  /** out = fill everywhere, then each input written at its offset with the strides of the output (pad, concat). */
  | { readonly kind: 'place'; readonly fill: number | undefined; readonly offsets: readonly number[] }
  /** A kernel of its own; `work` in multiply-adds. */
  | { readonly kind: 'kernel'; readonly kernel: Kernel; readonly work: number }

/** The same for what only a plan can lower: a body and how often it runs. */
export type PlanLowering = Lowering | { readonly kind: 'rounds' }

export const map = (micro: Micro): Lowering => ({ kind: 'map', micro })

/** f64 evaluation on plain arrays, one call per op: the oracle that every other backend is tested against. */
export type ReferenceKernel<A> = (
  out: Float64Array,
  inputs: readonly Float64Array[],
  shapes: readonly Shape[],
  outShape: Shape,
  attrs: A,
) => void
