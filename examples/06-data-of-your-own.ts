// Data of your own, here a table with two columns of different scales: features are scaled by their ranges, and epsilon is a share of these.
import { adam, device, fit } from 'mixtrain'
import * as data from 'mixtrain/data'
import * as losses from 'mixtrain/losses'
import * as nn from 'mixtrain/nn'

// A length from 0 to 2 m and a weight from 0 to 100 kg; the class is whether the weight is above 50 kg for each meter.
let state = 1
const random = () => {
  state = (state * 48271) % 2147483647
  return state / 2147483647
}
const inputs = Array.from({ length: 1000 }, () => [2 * random(), 100 * random()])
const labels = inputs.map(([length, weight]) => (weight > 50 * length ? 'heavy' : 'light'))
const train = data.fromArrays({
  ...{ name: 'heavy or light', inputs, labels },
  ranges: [
    [0, 2],
    [0, 100],
  ],
})

// An epsilon of 0.05 is 0.1 m and 5 kg.
const { dense, relu, sequential } = nn
const net = nn.network('mlp', sequential(dense(16), relu, dense(2)), { input: train.shape, classes: train.classes })
for await (const { epoch, acc, vra } of fit({
  network: net,
  data: { train },
  loss: losses.mixTrain({ k: 10 }),
  epsilon: 0.05,
  optimizer: adam({ lr: 0.01 }),
  epochs: 30,
})(await device()))
  if (epoch % 10 === 9) console.log(`epoch ${epoch + 1}: ACC ${acc}, VRA ${vra}`)

/* Prints:
epoch 10: ACC 0.99, VRA 0.84
epoch 20: ACC 0.96, VRA 0.82
epoch 30: ACC 0.96, VRA 0.8
*/
