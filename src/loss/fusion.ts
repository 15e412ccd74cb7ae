import { interval } from '../core/op.ts'
import type { Tensor } from '../core/tensor.ts'
import {
  add,
  broadcastTo,
  exp,
  greater,
  input,
  log,
  logitOf,
  max,
  maximum,
  mul,
  neg,
  reshape,
  select,
  stopGradient,
  sub,
  sum,
} from '../ops/index.ts'
import { crownIbp, ibp } from '../robust/bounds.ts'
import { rivals, worstCaseLogits } from '../robust/specification.ts'
import { boundedLogits, type Loss, type Region } from './loss.ts'
import { meanOver } from './parts.ts'
import { wholeBall } from './region.ts'

/** Least argument of the logarithm: sums of exponentials are above it, but for rounding. */
const LEAST = 1e-30

/**
 * CROWN-IBP with loss fusion (arXiv:2002.12920): cross-entropy as part of the network, mean over images of an upper bound of
 * log sum_j exp(z_j - z_y) by one backward row per image instead of classes - 1. Each exponential lies below its chord over the interval-propagated
 * box of z_j - z_y (merged into the last layer), pre-activation bounds are by interval propagation, and log is increasing. The largest upper
 * bound is taken out of the exponentials, which therefore never overflow.
 *
 * @example
 *   const loss = mix(0.5)(natural(crossEntropy), fusedCrossEntropy())
 */
export const fusedCrossEntropy =
  (region: Region = wholeBall): Loss =>
  (step) =>
  (model) => {
    const box = region(step)(model)
    const x: Tensor = input('x', box.shape)
    const z = boundedLogits(step, model)(x)
    const [n, k] = z.shape
    const { labels } = step
    const margins = ibp(z, new Map([[x, box]])).rows(rivals(labels, k))
    const [low, high] = [worstCaseLogits(margins.upper, labels), worstCaseLogits(margins.lower, labels)]
    const top = stopGradient(max(high, 1, true))
    const own = logitOf(z, labels, true)
    const shifted = sub(sub(z, broadcastTo(own, [n, k])), top) as Tensor
    const total = sum(exp(shifted), 1, true)
    const given = new Map([[shifted, interval(sub(low, top), sub(high, top))]])
    const bound = crownIbp(total, new Map([[x, box]]), given).output().upper
    // No sum is less than that of the lower ends: where logits are so large that their differences are rounded away, a bound that says so is none.
    const floor = sum(exp(sub(low, top)), 1, true)
    const sound = select(greater(mul(floor, 0.5), bound), floor, bound)
    // The label's own exponential is part of every sum.
    const least = maximum(exp(neg(top)), LEAST)
    return meanOver(step, reshape(add(log(maximum(sound, least)), top), [n]))
  }
