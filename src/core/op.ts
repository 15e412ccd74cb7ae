import * as E from 'fp-ts/lib/Either.js'
import { MixtrainException, raise } from './error.ts'
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

/**
 * A rule that an op does not have, with the reason that whoever needs it is told.
 *
 * @example
 *   unsupported('heaviside has no lines').unsupported // 'heaviside has no lines'
 */
export const unsupported = (reason: string): Unsupported => ({ unsupported: reason })

/** A graph node; raises a shape error that names the op and the shapes. */
export const node = <A>(op: Op<A>, inputs: readonly Tensor[], attrs: A): Tensor => {
  const shapes = inputs.map((x) => x.shape)
  const shape = op.shape(shapes, attrs)
  if (E.isLeft(shape))
    return raise({ kind: 'shape', op: `${op.name}(${shapes.map(show).join(', ')})`, message: shape.left })
  return { _tag: 'Tensor', op, attrs, inputs, shape: shape.right }
}

/** An op with the shapes of its operands, its plain attributes and, where a file has a name for the node, that: `matmul([1,2], [2,3]) of node 4 "fc" (MatMul)`. */
export const describe = (x: Tensor): string => {
  const attributes = Object.entries(x.attrs ?? {}).filter(([, v]) => typeof v === 'number' || typeof v === 'string')
  return [
    `${x.op.name}(${x.inputs.map((y) => show(y.shape)).join(', ')})`,
    ...(attributes.length === 0 ? [] : [`{${attributes.map(([k, v]) => `${k}=${v}`).join(' ')}}`]),
    ...(x.origin === undefined ? [] : [`of ${x.origin}`]),
  ].join(' ')
}

/** What `f` gives; where it is refused and the message does not say for which node yet, it says so. */
export const attributed = <A>(x: Tensor, f: () => A): A => {
  try {
    return f()
  } catch (e) {
    if (!(e instanceof MixtrainException) || e.error.kind !== 'unsupported' || e.error.what.includes(describe(x)))
      throw e
    return raise({ ...e.error, what: `${e.error.what} in ${describe(x)}` })
  }
}

/** A graph over some operands in which every node that is none of them says where it is from; leaves, which are shared, do not. */
export const withOrigin = (root: Tensor, operands: ReadonlySet<Tensor>, origin: string): Tensor => {
  const image = new Map<Tensor, Tensor>()
  const stack = [root]
  while (stack.length > 0) {
    const x = stack[stack.length - 1]
    const missing = image.has(x) || operands.has(x) ? [] : x.inputs.filter((i) => !image.has(i))
    if (missing.length > 0) {
      stack.push(...missing)
      continue
    }
    stack.pop()
    if (image.has(x)) continue
    const isKept = operands.has(x) || x.inputs.length === 0
    image.set(x, isKept ? x : { ...x, inputs: x.inputs.map((i) => image.get(i) as Tensor), origin: x.origin ?? origin })
  }
  return image.get(root) as Tensor
}

/** The op on tensors or interval tensors: an interval as soon as one operand is one. */
export const apply = <A>(op: Op<A>, operands: readonly Operand[], attrs: A): Operand => {
  if (!operands.some(isInterval)) return node(op, operands as readonly Tensor[], attrs)
  return 'unsupported' in op.interval
    ? raise({ kind: 'unsupported', what: `${op.name} of interval tensors`, reason: op.interval.unsupported })
    : op.interval(operands, attrs)
}

/**
 * The interval tensor with these ends, which must have one shape; that lower <= upper holds is the caller's promise. `ball` makes one round a tensor.
 *
 * @throws shape where they have not.
 *
 * @example
 *   interval(constant([0, 1], [2]), constant([1, 3], [2])).shape // [2]
 */
export const interval = (lower: Tensor, upper: Tensor): Interval =>
  lower.shape.length === upper.shape.length && lower.shape.every((d, i) => d === upper.shape[i])
    ? { _tag: 'Interval', lower, upper, shape: lower.shape }
    : raise({ kind: 'shape', op: 'interval', message: `lower is ${show(lower.shape)}, upper is ${show(upper.shape)}` })

/** The ends of an operand; a point is the interval whose ends are the same node. */
export const lowerOf = (x: Operand): Tensor => (isInterval(x) ? x.lower : x)
export const upperOf = (x: Operand): Tensor => (isInterval(x) ? x.upper : x)
