import { fold, key, uniform } from '../../src/core/key.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import type { Loss } from '../../src/loss/loss.ts'
import { crossEntropy } from '../../src/nn/criterion.ts'
import { conv, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import type { Host } from '../../src/ops/index.ts'
import { pgd } from '../../src/robust/attack.ts'
import { bindings, gradientCheck, host, modelOf, run, stepOf } from './harness.ts'

/** A network that the reference backend runs in no time, with everything that a loss is taken of. */
export const N = 3
export const CLASSES = 3
export const EPSILON = 0.07
export const LABELS = [2, 0, 1]
export const net = network('tiny', sequential(conv(2, 3, 2, 1), relu, flatten, dense(5), relu, dense(CLASSES)), {
  input: [1, 6, 6],
  classes: CLASSES,
})
// Generic numbers: on dyadic ones, coefficients of bounds cancel onto kinks.
export const parameters = Object.fromEntries(
  Object.entries(net.init(key(5))).map(([k, v]) => [k, Float64Array.from(v, (x) => 2.3 * x)]),
)
export const step = stepOf(N, net.input, CLASSES)
export const model = modelOf(net)
export const images = Float64Array.from(uniform(key(6), N * 36, 0.05, 0.95))
export const valuesAt = (epsilon: number) =>
  bindings(step, { inputs: images, labels: LABELS, epsilon }, model, parameters)
export const values = valuesAt(EPSILON)
export const h: Host = host({ balance: 0.4, key: fold(key(11), 3) })

/** An attack of a few steps. */
export const attack = pgd({ steps: 3, stepSize: 0.5, start: 'random' }, crossEntropy)

/** A graph's value, one number per element. */
export const numbers = async (x: Tensor, given = values, at: Host = h): Promise<readonly number[]> => [
  ...(await run([x], given, at))[0],
]
export const value = async (loss: Loss, given = values, at: Host = h): Promise<number> =>
  (await numbers(loss(step)(model), given, at))[0]

export const checkGradients = (loss: Loss): Promise<void> => gradientCheck(loss, step, model, values, h)
