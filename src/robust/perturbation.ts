import { outwardBox } from '../bounds/executions.ts'
import { type Epsilon, epsilonFor } from '../core/epsilon.ts'
import { raise, usage } from '../core/error.ts'
import { interval } from '../core/op.ts'
import { type Rounding, roundDown, roundUp } from '../core/rounding.ts'
import type { Interval, Norm, Tensor } from '../core/tensor.ts'
import { add, down, maximum, minimum, scalar, sub, up } from '../ops/index.ts'

/** Range of valid inputs, [lowest, highest]; pixels are [0, 1]. */
export type Range = readonly [number, number]

/** The norms by name. */
export const norms = ['linf', 'l2', 'l1'] as const satisfies readonly Norm[]

/**
 * The ball of radius epsilon (input units) round x in a norm over all elements of an image, cut to the valid range: for l-inf lower = max(x - epsilon, low),
 * upper = min(x + epsilon, high); for l2 and l1 the same box and, within it, ||z - x|| <= epsilon, which linear bounds and the first layer of `ibp` use by the
 * dual norm. `range: null` does not cut. Epsilon is a number, a scalar node (so that a schedule does not recompile) or a tensor that broadcasts to x: limits
 * of each pixel, and for l2 and l1 the semi-axes of an ellipsoid or its l1 counterpart.
 * Under outward rounding, for l-inf only, the ends step outward, and so do a number, the ends of the range and constants that float32 does not hold; an input must have been rounded up.
 *
 * @throws usage for a norm that is none of `norms`; unsupported for outward rounding of another norm than linf.
 *
 * @example
 *   ball(constant([0.5, 0.05], [2]), 0.1) // { lower: [0.4, 0], upper: [0.6, 0.15] }
 */
export const ball = (
  x: Tensor,
  epsilon: Tensor | Epsilon | number,
  range: Range | null = [0, 1],
  norm: Norm = 'linf',
  rounding: Rounding = 'none',
): Interval => {
  const outward = rounding !== 'none'
  const radius = typeof epsilon === 'object' && '_tag' in epsilon ? epsilon : scalar(epsilonFor(epsilon, rounding))
  const [centre, reach] = [x, radius].map((v) =>
    outward ? outwardBox(interval(v, v), rounding.outward) : interval(v, v),
  )
  const [low, high] = [sub(centre.lower, reach.upper), add(centre.upper, reach.upper)]
  const [l, u] = outward ? [down(low), up(high)] : [low, high]
  // A device of float32 would round an end such as 0.1 into the range.
  const [least, most] = range === null || !outward ? (range ?? []) : [roundDown(range[0]), roundUp(range[1])]
  const box = least === undefined || most === undefined ? interval(l, u) : interval(maximum(l, least), minimum(u, most))
  if (norm === 'linf') return box
  if (outward)
    return raise({ kind: 'unsupported', what: `outward rounding of ${norm} balls`, reason: 'it is proved for linf' })
  if (!norms.includes(norm)) return raise(usage(`no norm ${JSON.stringify(norm)}; there are ${norms.join(', ')}`))
  return { ...box, ball: { norm, centre: x, radius } }
}
