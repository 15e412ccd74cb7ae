/**
 * Terms that are added to a loss: norms of the weights, stability of ReLUs, tightness of interval bounds.
 *
 * @module
 */

import type { Tensor } from '../core/tensor.ts'
import {
  abs,
  add,
  centre,
  div,
  greater,
  maximum,
  mean,
  minimum,
  mul,
  neg,
  radius,
  relu,
  scalar,
  select,
  sub,
  sum,
  tanh,
} from '../ops/index.ts'
import type { Hidden, Loss, Model, Region } from './loss.ts'

/** Terms that are added to a loss: `add(loss, scale(1e-5)(l1))`. */

const total = (xs: readonly Tensor[]): Tensor => xs.reduce((a, b) => add(a, b), scalar(0))

/** Weights of linear layers; biases, scales and shifts are vectors. */
const weights = ({ parameters }: Model): readonly Tensor[] =>
  Object.values(parameters).filter((p) => p.shape.length > 1)

/**
 * L1: sum |w| over the weights of linear layers. arXiv:1809.03008 (section 3) adds it for sparse weights, arXiv:2210.04871 and 2305.13991 beside interval
 * propagation (`--l1`).
 */
export const l1: Loss = () => (model) => total(weights(model).map((w) => sum(abs(w))))

/**
 * L2: 1/2 sum w^2 over the weights of linear layers: `scale(d)(l2)` adds d w to their gradients, which Adam then rescales; `adam({ weightDecay: d })` does not
 * (arXiv:1711.05101).
 */
export const l2: Loss = () => (model) => mul(total(weights(model).map((w) => sum(mul(w, w)))), 0.5)

/**
 * ReLU stability (arXiv:1809.03008, section 3): mean over images of sum over hidden neurons of -tanh(1 + l u), which rewards bounds of one
 * sign. The bounds are those of the method that `hidden` names.
 *
 * @example
 *   const loss = scale(0.01)(regularizers.reluStability(hidden(ibp)))
 */
export const reluStability =
  (hidden: Hidden): Loss =>
  (step) =>
  (model) => {
    const { inputs, weights } = step
    const each = hidden(step)(model).map(({ lower, upper }) => {
      const neurons = tanh(add(1, mul(lower, upper)))
      if (weights === undefined) return sum(neurons)
      return sum(mul(weights, sum(neurons, [...neurons.shape.keys()].slice(1))))
    })
    return mul(neg(total(each)), 1 / inputs.shape[0])
  }

/** Where the regularisers of Fast-IBP stop to push: a ratio of 1/2. */
const TOLERANCE = 0.5

/** 0 for a ratio of at least the tolerance, rising to 1 at the ratio 0. */
const shortfall = (ratio: Tensor): Tensor => mul(relu(sub(TOLERANCE, ratio)), 1 / TOLERANCE)

const ratioOf = (a: Tensor, b: Tensor): Tensor => div(a, maximum(b, 1e-12))

const average = (xs: readonly Tensor[]): Tensor => mul(total(xs), 1 / Math.max(1, xs.length))

/**
 * Tightness regulariser of Fast-IBP's warm-up (arXiv:2103.17268): mean over hidden layers of max(0, t - r0 / r) / t, t = 1/2, r0 and r the mean
 * radii of the region and of the layer's pre-activation bounds. 0 as long as no layer widens the box more than twice.
 *
 * @example
 *   const loss = scale(0.5)(regularizers.tightness(hidden(ibp), wholeBall))
 */
export const tightness =
  (hidden: Hidden, region: Region): Loss =>
  (step) =>
  (model) => {
    const start = mean(radius(region(step)(model)))
    return average(hidden(step)(model).map((box) => shortfall(ratioOf(start, mean(radius(box))))))
  }

/**
 * ReLU balance regulariser of Fast-IBP's warm-up (arXiv:2103.17268): for each hidden layer, by the centres c of the bounds, the sums over
 * active (l > 0) and over inactive (u < 0) neurons of |c| and of (c - mean c)^2; with rho the smaller sum divided by the larger, the mean over
 * layers of (max(0, t - rho_c) + max(0, t - rho_v)) / (2 t), t = 1/2. 1 for a layer without active or without inactive neurons.
 *
 * @example
 *   const loss = scale(0.5)(regularizers.reluBalance(hidden(ibp)))
 */
export const reluBalance =
  (hidden: Hidden): Loss =>
  (step) =>
  (model) => {
    const balance = (a: Tensor, b: Tensor) => shortfall(ratioOf(minimum(a, b), maximum(a, b)))
    const each = hidden(step)(model).map((box) => {
      const c = centre(box)
      const [active, inactive] = [greater(box.lower, 0), greater(0, box.upper)]
      const deviation = sub(c, mean(c))
      const square = mul(deviation, deviation)
      const share = (v: Tensor, mask: Tensor) => mean(select(mask, v, 0))
      return mul(
        add(
          balance(share(c, active), neg(share(c, inactive))),
          balance(share(square, active), share(square, inactive)),
        ),
        0.5,
      )
    })
    return average(each)
  }
