import { substitute } from '../compile/tape.ts'
import { fold, normal } from '../core/key.ts'
import * as S from '../core/shape.ts'
import { add as addNodes, feed, mul, neg } from '../ops/index.ts'
import type { Loss, Weight } from './loss.ts'

/**
 * Gaussian loss smoothing (arXiv:2403.07095, section 4): (1 / m) sum_i L(w + sigma z_i), z_i standard normal over all parameters, sigma >= 0 in units of weights: an estimate, by m draws, of the loss
 * L_sigma(w) = E L(w + sigma z), which is smooth even where the bound in L is not, and its gradient the mean of gradients at perturbed weights (RGS in the paper). Draws
 * come in pairs z, -z, so that what is linear in the weights does not vary. What else is random in the loss is drawn once for all. At sigma = 0 it is the loss. A step
 * costs as much as m steps of the loss.
 *
 * @example
 *   const loss = smoothed(0.01)(natural(crossEntropy))
 */
export const smoothed =
  (sigma: Weight, samples = 2, name = 'smoothed') =>
  (loss: Loss): Loss =>
  (step) =>
  (model) => {
    const value = loss(step)(model)
    if (sigma === 0) return value
    const width = typeof sigma === 'number' ? sigma : feed(`${name}.sigma`, [], (h) => Float32Array.of(sigma(h)))
    const draws = Array.from({ length: Math.ceil(samples / 2) }, (_, i) =>
      Object.entries(model.parameters).map(([k, p]) => {
        const label = `${name}.${i}.${k}`
        return [
          p,
          mul(
            width,
            feed(label, p.shape, (h) => normal(fold(h.key, label), S.size(p.shape))),
          ),
        ] as const
      }),
    )
    const moved = Array.from({ length: samples }, (_, i) => {
      const noise = draws[i >> 1].map(([p, z]) => [p, addNodes(p, i % 2 === 0 ? z : neg(z))] as const)
      return substitute([value], new Map(noise))[0]
    })
    return mul(
      moved.reduce((a, b) => addNodes(a, b)),
      1 / samples,
    )
  }
