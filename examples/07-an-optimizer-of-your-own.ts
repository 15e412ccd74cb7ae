// An optimizer of your own: Lion (arXiv:2302.06675), which moves each weight by the sign of a mixture of momentum and gradient.
import {
  add,
  crossEntropy,
  device,
  digits,
  fit,
  layers,
  mul,
  natural,
  network,
  type Optimizer,
  sign,
  sub,
  type Tensor,
  take,
} from 'mixtrain'

const lion = (rate: number, beta1 = 0.9, beta2 = 0.99): Optimizer => ({
  slots: ['momentum'],
  update: (parameters, gradients, { momentum }) => {
    const each = (f: (name: string) => Tensor) =>
      Object.fromEntries(Object.keys(gradients).map((name) => [name, f(name)]))
    const blend = (beta: number, name: string) =>
      add(mul(beta, momentum[name]), mul(1 - beta, gradients[name])) as Tensor
    return {
      parameters: each((name) => sub(parameters[name], mul(rate, sign(blend(beta1, name)))) as Tensor),
      state: { momentum: each((name) => blend(beta2, name)) },
    }
  },
})

const { train } = await digits()
const mlp = network('mlp', layers.sequential(layers.flatten, layers.dense(20), layers.relu, layers.dense(10)), {
  input: [1, 28, 28],
  classes: 10,
})
const options = {
  network: mlp,
  data: { train: take(1000)(train) },
  loss: natural(crossEntropy),
  optimizer: lion(0.001),
  epsilon: 0.01,
  epochs: 3,
}
for await (const { epoch, acc } of fit(options)(await device())) console.log(`epoch ${epoch + 1}: ACC ${acc}`)

/* Prints:
epoch 1: ACC 0.43
epoch 2: ACC 0.61
epoch 3: ACC 0.76
*/
