import * as E from 'fp-ts/lib/Either.js'
import { raise } from './error.ts'
import type { Lowering, ReferenceKernel } from './lowering.ts'
import type { Shape } from './shape.ts'
import { show } from './shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from './tensor.ts'

/** A rule that is missing on purpose, with the reason that an error message will give. */
export interface Unsupported {
  readonly unsupported: string
}
export const unsupported = (reason: string): Unsupported => ({ unsupported: reason })

/** sum over operands i of slopes[i] * x_i + intercept; each slope has the shape of its operand or broadcasts to it. */
export interface Affine {
  readonly slopes: readonly Tensor[]
  /** Absent where it is 0 everywhere. */
  readonly intercept?: Tensor | undefined
}

/**
 * The freedom left in a relaxation, which is all that tells the CROWN family apart: `same` takes parallel lines (symbolic intervals,
 * Fast-Lin, DeepZ), `adaptive` the line of smaller area (CROWN), `zero` the flat one; a tensor gives the lower slope itself
 * (alpha-CROWN).
 */
export type Slope = 'same' | 'adaptive' | 'zero' | Tensor

/** Two affine forms that sandwich an elementwise op on a box: lower(x) <= f(x) <= upper(x) for every x of the box. */
export type Relax<A> = (
  xs: readonly Operand[],
  attrs: A,
  slope: Slope,
) => { readonly lower: Affine; readonly upper: Affine }

/**
 * A relaxation of an op that reduces axes: slopes have the shape of the operand, and `lift` reshapes coefficients of the output
 * `[rows, n, ...out]` so that they broadcast against `[rows, n, ...operand]`.
 */
export interface Reduction<A> {
  readonly relax: Relax<A>
  readonly lift: (coefficients: Tensor, inputs: readonly Tensor[], attrs: A) => Tensor
}

/** Linear in each operand while the others are points; the relaxation, if any, is for several boxed operands. */
export interface Bilinear<A> {
  readonly bilinear: Relax<A> | Unsupported
}

/** How the op runs: natively, or by expansion into other ops. */
export type Kernel<A> =
  | {
      readonly reference: ReferenceKernel<A>
      readonly lower: (inputs: readonly Shape[], out: Shape, attrs: A) => Lowering
    }
  | { readonly expand: (inputs: readonly Tensor[], attrs: A) => Tensor }

/**
 * Everything there is to know about one op. The tape, the backends and the tests are generic over this record.
 *
 * - `vjp(ct, inputs, out)`: cotangents of the inputs, `undefined` where none flows. Rules of linear and bilinear ops accept a
 *   cotangent with extra leading axes and return them untouched: backward bound propagation is exactly this rule applied to
 *   coefficients `[rows, n, ...shape]`.
 * - `interval`: a sound enclosure, given at least one interval operand.
 * - `relax`: `linear` when the op is jointly linear in all operands, bilinear when it is linear in each with the others held
 *   fixed, else a relaxation.
 */
export interface Op<A> {
  readonly name: string
  readonly shape: (inputs: readonly Shape[], attrs: A) => E.Either<string, Shape>
  readonly vjp: (ct: Tensor, inputs: readonly Tensor[], out: Tensor, attrs: A) => readonly (Tensor | undefined)[]
  readonly interval: ((xs: readonly Operand[], attrs: A) => Interval) | Unsupported
  readonly relax: 'linear' | Bilinear<A> | Relax<A> | Reduction<A> | Unsupported
  readonly kernel: Kernel<A>
}

/** A graph node; raises a shape error that names the op and the shapes. */
export const node = <A>(op: Op<A>, inputs: readonly Tensor[], attrs: A): Tensor => {
  const shapes = inputs.map((x) => x.shape)
  const shape = op.shape(shapes, attrs)
  if (E.isLeft(shape))
    return raise({ kind: 'shape', op: `${op.name}(${shapes.map(show).join(', ')})`, message: shape.left })
  return { _tag: 'Tensor', op, attrs, inputs, shape: shape.right }
}

/** The op on tensors or interval tensors: an interval as soon as one operand is one. */
export const apply = <A>(op: Op<A>, operands: readonly Operand[], attrs: A): Operand => {
  if (!operands.some(isInterval)) return node(op, operands as readonly Tensor[], attrs)
  return 'unsupported' in op.interval
    ? raise({ kind: 'unsupported', what: `${op.name} of interval tensors`, reason: op.interval.unsupported })
    : op.interval(operands, attrs)
}

export const interval = (lower: Tensor, upper: Tensor): Interval =>
  lower.shape.length === upper.shape.length && lower.shape.every((d, i) => d === upper.shape[i])
    ? { _tag: 'Interval', lower, upper, shape: lower.shape }
    : raise({ kind: 'shape', op: 'interval', message: `lower is ${show(lower.shape)}, upper is ${show(upper.shape)}` })

/** The ends of an operand; a point is the interval whose ends are the same node. */
export const lowerOf = (x: Operand): Tensor => (isInterval(x) ? x.lower : x)
export const upperOf = (x: Operand): Tensor => (isInterval(x) ? x.upper : x)
