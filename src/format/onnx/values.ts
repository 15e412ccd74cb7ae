import type { Shape } from '../../core/shape.ts'
import type { Operand, Tensor } from '../../core/tensor.ts'
import type { TensorProto } from './proto.ts'

/** What makes a graph unusable; `place` is a node or a value. Caught where the file is decoded, never outside. */
export class Problem extends Error {
  constructor(
    override readonly message: string,
    readonly place?: string,
  ) {
    super(message)
  }
}

/** A name from a file as a message shows it: quoted, control characters escaped, shortened. */
export const quote = (name: string): string => JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name)

/** One extent of a shape that the file computes: a number, or the batch, whatever its size. */
export type Extent = number | 'N'

/** An integer tensor of rank 0 or 1, known when the file is read: shapes, axes, indices. */
export interface Ints {
  readonly kind: 'ints'
  readonly rank: 0 | 1
  readonly data: readonly Extent[]
}

export const ints = (data: readonly Extent[], rank: 0 | 1 = 1): Ints => ({ kind: 'ints', rank, data })

/** A float tensor: its place among the values of a run, and a node of its shape. A batched one has the batch as axis 0. */
export interface Floats {
  readonly kind: 'floats'
  readonly slot: number
  readonly batched: boolean
  readonly probe: Tensor
}

/** A tensor of the file, not yet asked for as floats or as integers. */
export interface Stored {
  readonly kind: 'stored'
  readonly proto: TensorProto
  readonly name: string
}

/** An output that is named but not computed. */
export interface Absent {
  readonly kind: 'absent'
  readonly reason: string
}

export type Value = Ints | Floats | Stored | Absent

export interface Parameter {
  readonly shape: Shape
  readonly data: Float32Array
}

/** What the import of an op sees of its node. Every accessor fails with a message that names the node. */
export interface NodeView {
  readonly opset: number
  readonly arity: number
  readonly fail: (message: string) => never
  /** Whether input i is given. */
  readonly has: (i: number) => boolean
  readonly floats: (i: number) => Floats
  readonly ints: (i: number) => Ints
  /** Integers without a batch extent among them. */
  readonly numbers: (i: number) => readonly number[]
  /** A float32 scalar known when the file is read. */
  readonly number: (i: number) => number
  readonly either: (i: number) => Ints | Floats
  readonly flag: (i: number) => boolean
  readonly value: (i: number) => Value
  readonly given: (name: string) => boolean
  readonly int: (name: string, otherwise: number) => number
  readonly float: (name: string, otherwise: number) => number
  readonly string: (name: string, otherwise: string) => string
  readonly list: (name: string) => readonly number[] | undefined
  readonly tensor: (name: string) => Value
  /** A value computed from others by `run`, which must not depend on the size of the batch. */
  readonly emit: (inputs: readonly Floats[], run: (xs: readonly Operand[]) => Operand) => Floats
}

export type Import = (site: NodeView) => Value
