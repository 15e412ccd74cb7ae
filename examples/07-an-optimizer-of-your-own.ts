// An optimizer of your own: Lion (arXiv:2302.06675), which moves each weight by the sign of a mixture of momentum and gradient.
import { add, device, fit, mul, type Optimizer, sign, sub, type Tensor } from 'mixtrain'
import * as data from 'mixtrain/data'
import * as losses from 'mixtrain/losses'
import * as nn from 'mixtrain/nn'

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

const { train } = await data.digits()
const mlp = nn.network('mlp', nn.sequential(nn.flatten, nn.dense(20), nn.relu, nn.dense(10)), {
  input: [1, 28, 28],
  classes: 10,
})
const options = {
  network: mlp,
  data: { train: data.take(1000)(train) },
  loss: losses.natural(losses.crossEntropy),
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
