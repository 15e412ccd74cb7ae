import type { Op } from './op.ts'
import type { Shape } from './shape.ts'

/**
 * A node of an immutable computation graph. It owns no memory: a value exists only while a compiled plan runs.
 * `S` is the shape as the type checker knows it; `Tensor` alone means any shape.
 */
export interface Tensor<S extends Shape = Shape> {
  readonly _tag: 'Tensor'
  // biome-ignore lint/suspicious/noExplicitAny: a graph holds ops of every attribute type; the record ties the two together
  readonly op: Op<any>
  readonly attrs: unknown
  readonly inputs: readonly Tensor[]
  readonly shape: S
}

/**
 * An interval tensor: all real tensors x with lower <= x <= upper, elementwise. Two nodes of one shape, so that every transform
 * (run, differentiate, bound, print) treats a bound like any other value. lower > upper denotes the empty set; a NaN in either
 * bound says nothing is known, and no comparison with it succeeds.
 */
export interface Interval<S extends Shape = Shape> {
  readonly _tag: 'Interval'
  readonly lower: Tensor<S>
  readonly upper: Tensor<S>
  readonly shape: S
}

/** What a public op takes: a tensor, or an interval tensor for a sound enclosure of the same function. */
export type Operand<S extends Shape = Shape> = Tensor<S> | Interval<S>

export const isInterval = (x: Operand): x is Interval => x._tag === 'Interval'

/** The result kind of an op: an interval as soon as one operand is one. */
export type Join<T extends Operand, U extends Operand> = T extends Interval
  ? Interval
  : U extends Interval
    ? Interval
    : Tensor

/** A function that is the same code on tensors and on interval tensors: a network with its parameters bound. */
export type Apply = <T extends Operand>(x: T) => T
