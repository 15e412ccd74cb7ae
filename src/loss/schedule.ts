/**
 * Numbers that change while a training goes on: learning rates, radii, weights. A schedule is a pure function of where the host stands.
 *
 * @module
 */

import type { Schedule, Weight } from './loss.ts'

/**
 * Always the same number.
 *
 * @example
 *   const lr = schedules.constant(0.001)
 */
export const constant =
  (value: number): Schedule =>
  () =>
    value

/**
 * From `start` to `end` while progress runs through [from, to], constant outside; all in shares of the training, 0..1.
 *
 * @example
 *   const epsilon = schedules.linear(0, 0.1, 0, 0.5)
 */
export const linear =
  (start: number, end: number, from = 0, to = 1): Schedule =>
  ({ progress }) =>
    start + (end - start) * Math.min(1, Math.max(0, (progress - from) / Math.max(to - from, Number.EPSILON)))

/**
 * cos(pi x) for x in [0, 1] by its Taylor series round 1/2, exact to 1e-14: engines differ in Math.cos, and a schedule must not.
 *
 * @example
 *   schedules.cosPi(0.5) // 0
 */
export const cosPi = (x: number): number => {
  const t = Math.PI * (0.5 - x)
  let [term, sum] = [t, t]
  for (let k = 1; k <= 12; k++) {
    term *= (-t * t) / (2 * k * (2 * k + 1))
    sum += term
  }
  return sum
}

/**
 * Half a cosine from `start` down to `end` (arXiv:1608.03983), over the share [from, 1] of the training.
 *
 * @example
 *   const lr = schedules.cosine(0.001, 0, 0.5)
 */
export const cosine =
  (start: number, end = 0, from = 0): Schedule =>
  ({ progress }) =>
    end + ((start - end) * (1 + cosPi(Math.min(1, Math.max(0, (progress - from) / (1 - from)))))) / 2

/**
 * `value` times `factor` for each of the given shares of the training that is passed.
 *
 * @example
 *   const lr = schedules.steps(0.001, 0.2, [0.5, 0.8])
 */
export const steps =
  (value: number, factor: number, at: readonly number[]): Schedule =>
  ({ progress }) =>
    at.filter((p) => progress >= p).reduce((v) => v * factor, value)

/**
 * Milestones: `value` times `factor` for each of the epochs `at` that has begun, of `epochs`. The recipes of interval propagation cut the learning rate to a fifth at two of them
 * (arXiv:2305.13991, appendix; CTBench, arXiv:2406.04848).
 *
 * @example
 *   const lr = schedules.milestones(0.001, 0.2, [50, 60], 70)
 */
export const milestones = (value: number, factor: number, at: readonly number[], epochs: number): Schedule =>
  // Progress is a quotient: at the beginning of an epoch it may round to just below it.
  steps(
    value,
    factor,
    at.map((epoch) => epoch / epochs - 1e-9),
  )

/**
 * a b: a number for two numbers, else a schedule.
 *
 * @example
 *   const weight = schedules.times(schedules.linear(0, 1, 0, 0.5), 0.3)
 */
export function times(a: Schedule, b: Weight): Schedule
export function times(a: Weight, b: Weight): Weight
export function times(a: Weight, b: Weight): Weight {
  if (typeof a === 'number' && typeof b === 'number') return a * b
  const [p, q] = [a, b].map((w) => (typeof w === 'number' ? constant(w) : w))
  return (h) => p(h) * q(h)
}

/**
 * The robust weight of HYDRA's MixTrain over the epochs e of E: min(most, start factor^floor(max(e - T, 0) / d)), T = E / 4, d = E / 12. With the paper's
 * E = 60: 0.1 for 15 epochs (while epsilon grows), then 2.5 times as much every 5, at most 50 (arXiv:2002.10509).
 *
 * @example
 *   const weight = schedules.hydraWeight()
 */
export const hydraWeight =
  ({ start = 0.1, factor = 2.5, most = 50 } = {}): Schedule =>
  ({ progress }) => {
    // Progress is a quotient: at the beginning of an epoch it may round to just below it.
    const times = Math.floor(Math.max(progress - 1 / 4, 0) * 12 + 1e-9)
    let weight = start
    for (let i = 0; i < times; i++) weight *= factor
    return Math.min(most, weight)
  }
