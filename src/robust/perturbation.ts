import { interval } from '../core/op.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import { add, maximum, minimum, sub } from '../ops/index.ts'

/** Range of valid inputs, [lowest, highest]; pixels are [0, 1]. */
export type Range = readonly [number, number]

/**
 * The l-inf ball of radius epsilon (input units) round x, cut to the valid range: lower = max(x - epsilon, low),
 * upper = min(x + epsilon, high). `range: undefined` does not cut. Epsilon may be a scalar node, so that a schedule does not
 * recompile.
 */
export const ball = (x: Tensor, epsilon: Tensor | number, range: Range | undefined = [0, 1]): Interval => {
  const [l, u] = [sub(x, epsilon), add(x, epsilon)] as [Tensor, Tensor]
  return range === undefined ? interval(l, u) : interval(maximum(l, range[0]), minimum(u, range[1]))
}
