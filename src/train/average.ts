import type { Schedule } from '../loss/loss.ts'
import { add, feed, mul, sub } from '../ops/index.ts'
import type { Optimizer } from './optimizer.ts'

/** 1 / (1 + steps since the share `from` of the training): the weight of the newest of so many equal ones; 1 before. */
export const averagingRate =
  (from: number): Schedule =>
  ({ count, progress }) =>
    progress <= from ? 1 : 1 / (1 + Math.floor(count * (1 - from / progress) + 1e-6))

/**
 * Stochastic weight averaging (arXiv:1803.05407, algorithm 1, averaging after every step), as a transform of an optimizer: a further slot holds
 * theta_swa <- (n theta_swa + theta) / (n + 1), n the steps since the share `from` of the training, hence the mean of the parameters after each of them
 * (before, the parameters themselves), and is what is evaluated and saved. The steps taken do not change. In a
 * network with batch norm, statistics are measured under the average.
 *
 * @example
 *   const optimizer = averaged(0.75)(adam({ lr: 0.001 }))
 */
export const averaged =
  (from: number) =>
  (optimizer: Optimizer): Optimizer => ({
    slots: [...optimizer.slots, 'average'],
    evaluated: 'average',
    update: (parameters, gradients, { average, ...slots }) => {
      const next = optimizer.update(parameters, gradients, slots)
      const rate = feed('averaging', [], (h) => Float32Array.of(averagingRate(from)(h)))
      const kept = sub(1, rate)
      return {
        parameters: next.parameters,
        state: {
          ...next.state,
          average: Object.fromEntries(
            Object.entries(next.parameters).map(([k, p]) => [k, add(mul(kept, average[k]), mul(rate, p))]),
          ),
        },
      }
    },
  })
