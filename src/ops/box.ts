import { interval, lowerOf, upperOf } from '../core/op.ts'
import { isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import { add, maximum, minimum, mul, sub } from './elementwise.ts'
import { full } from './shape.ts'

/** Interval tensors: centre and radius, hull, intersection. */

/**
 * (lower + upper) / 2, elementwise: `[...] -> [...]`; a tensor is its own centre.
 *
 * @example
 *   centre(ball(constant([0.5], [1]), 0.25)) // [0.5]
 */
export const centre = (x: Operand): Tensor => (isInterval(x) ? mul(add(x.lower, x.upper), 0.5) : x)
/**
 * (upper - lower) / 2, elementwise: `[...] -> [...]`; 0 of a tensor.
 *
 * @example
 *   radius(ball(constant([0.5], [1]), 0.25)) // [0.25]
 */
export const radius = (x: Operand): Tensor => (isInterval(x) ? mul(sub(x.upper, x.lower), 0.5) : full(x.shape, 0))
/** The interval [c - r, c + r]. */
export const centreRadius = (c: Tensor, r: Tensor) => interval(sub(c, r), add(c, r))
/**
 * The smallest interval that contains both, elementwise: the least of the lower ends, the greatest of the upper; shapes broadcast.
 *
 * @example
 *   hull(constant([0, 5], [2]), constant([1, 2], [2])) // { lower: [0, 2], upper: [1, 5] }
 */
export const hull = (a: Operand, b: Operand) =>
  interval(minimum(lowerOf(a), lowerOf(b)), maximum(upperOf(a), upperOf(b)))
/**
 * What both contain, elementwise, shapes broadcast; empty (lower > upper) where they are disjoint.
 *
 * @example
 *   intersection(interval(constant([0], [1]), constant([2], [1])), interval(constant([1], [1]), constant([3], [1]))) // { lower: [1], upper: [2] }
 */
export const intersection = (a: Operand, b: Operand) =>
  interval(maximum(lowerOf(a), lowerOf(b)), minimum(upperOf(a), upperOf(b)))
