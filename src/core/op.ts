import * as E from 'fp-ts/lib/Either.js'
import { raise } from './error.ts'
import { show } from './shape.ts'
import { type Interval, isInterval, type Op, type Operand, type Tensor, type Unsupported } from './tensor.ts'

export type {
  Affine,
  Bilinear,
  Conv,
  Definition,
  Domain,
  Kernel,
  Linear,
  Op,
  Outward,
  Reduction,
  Relax,
  Rounds,
  Slope,
  Unsupported,
} from './tensor.ts'

export const unsupported = (reason: string): Unsupported => ({ unsupported: reason })

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
