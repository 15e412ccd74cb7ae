import type { Shape } from '../../core/shape.ts'
import type { Operand, Tensor } from '../../core/tensor.ts'
import type { Attribute, DataType, TensorProto } from './proto.ts'

/** A name from a file as a message shows it: quoted, control characters escaped, shortened. */
export const quote = (name: string): string => JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name)

/** One extent of a shape that the file computes: a number, or the batch, whatever its size. */
export type Extent = number | 'N'

/** A tensor whose numbers are known when the file is read: shapes, axes, indices, masks, scalars. */
export interface Known {
  readonly kind: 'known'
  readonly type: DataType
  readonly shape: Shape
  /** In row-major order; a boolean is 0 or 1. */
  readonly data: readonly Extent[]
  /** False where float arithmetic rounded on the way: what a runtime computes, but not what the graph means in real numbers. */
  readonly exact: boolean
  /** How far each element may be from what it is in real numbers, where it is not exact. Absent: nothing is known of it. */
  readonly off?: number | undefined
}

/**
 * Where the batch of a run stands in a value. `none`: the value does not depend on the input. `repeat`: neither does it, and it has
 * an axis of extent 1 first that stands for the batch. `first`: the batch is the first axis, for which the file has `N`, or 1. `front`: the batch is
 * an axis in front of all axes that the file knows.
 */
export type Batch = 'none' | 'repeat' | 'first' | 'front'

/** A float tensor: its place among the values of a run, and a node of its shape. */
export interface Floats {
  readonly kind: 'floats'
  readonly slot: number
  readonly batch: Batch
  /** Its shape in the file. */
  readonly shape: readonly Extent[]
  /** A node of its shape in a run, with a batch of `PROBE`. */
  readonly probe: Tensor
  /** Its numbers, where they follow from the file alone and are few. */
  readonly known?: (() => Known | undefined) | undefined
}

/** A tensor of the file, not yet asked for as floats or as integers. */
export interface Stored {
  readonly kind: 'stored'
  readonly proto: TensorProto
  readonly name: string
}

/** An output that is named but not computed. */
interface Absent {
  readonly kind: 'absent'
  readonly reason: string
}

/** Several outputs of one node. */
export interface Outputs {
  readonly kind: 'outputs'
  readonly values: readonly (Floats | Known)[]
}

export type Value = Known | Floats | Stored | Absent

export interface Parameter {
  readonly shape: Shape
  readonly data: Float32Array
}

/** What the import of an op sees of its node. Every accessor fails with a message that names the node. */
export interface NodeView {
  readonly opset: number
  readonly arity: number
  /** How many outputs the node lists, named or not. */
  readonly results: number
  /** What the file has for the batch where it is the first axis of a value: 1 where the input says so. */
  readonly batch: Extent
  readonly fail: (message: string) => never
  /** Whether input i is given. */
  readonly has: (i: number) => boolean
  readonly value: (i: number) => Value
  readonly floats: (i: number) => Floats
  /** Numbers that are known when the file is read. */
  readonly known: (i: number) => Known
  /** Integers without a batch extent among them, of rank 0 or 1. */
  readonly numbers: (i: number) => readonly number[]
  /** A number that the file gives exactly. */
  readonly number: (i: number) => number
  /** Integers and booleans as what they are, floats as values of a run. */
  readonly either: (i: number) => Known | Floats
  readonly flag: (i: number) => boolean
  /** A tensor of an attribute as known numbers. */
  readonly constant: (t: TensorProto) => Known
  /** Whether the graph is one of float64 numbers. */
  readonly double: boolean
  /** A stored tensor as a parameter, its numbers rounded to float32. */
  readonly rounded: (stored: Stored) => Floats
  /** Makes room for n more known numbers, of which a file has a limited number. */
  readonly spend: (n: number) => void
  readonly given: (name: string) => boolean
  readonly attribute: (name: string) => Attribute | undefined
  readonly int: (name: string, otherwise: number) => number
  readonly float: (name: string, otherwise: number) => number
  readonly string: (name: string, otherwise: string) => string
  readonly list: (name: string) => readonly number[] | undefined
  /** A list of places that are cut to an axis: the largest integer there is says "to the end", and need not be held exactly. */
  readonly ends: (name: string) => readonly number[] | undefined
  readonly tensor: (name: string) => Stored
  /**
   * A value computed from others by `run`, which must not depend on the size of the batch. The result has the batch where the operands
   * have it, or where `batch` says.
   */
  readonly emit: (
    inputs: readonly Floats[],
    run: (xs: readonly Operand[]) => Operand,
    more?: { readonly batch?: Batch; readonly known?: (() => Known | undefined) | undefined },
  ) => Floats
}

export type Import = (node: NodeView) => Value | Outputs

/** Whether a value depends on the input of the network. */
export const batched = (v: Floats): boolean => v.batch === 'first' || v.batch === 'front'
