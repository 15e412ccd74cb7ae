// Data of your own, here a table with two columns: features are bytes, 0 to 255 for 0 to 1, one row for each example.
import { adam, device, fit } from 'mixtrain'
import * as data from 'mixtrain/data'
import * as losses from 'mixtrain/losses'
import * as nn from 'mixtrain/nn'

// Points of the unit square; the class is whether a point lies above the diagonal.
const count = 1000
let state = 1
const inputs = Uint8Array.from({ length: 2 * count }, () => {
  state = (state * 48271) % 2147483647
  return state % 256
})
const labels = Uint8Array.from({ length: count }, (_, i) => Number(inputs[2 * i + 1] > inputs[2 * i]))
const train = data.dataset({ name: 'above the diagonal', inputs, labels, shape: [2, 1, 1], classes: 2 })

const { dense, flatten, relu, sequential } = nn
const net = nn.network('mlp', sequential(flatten, dense(16), relu, dense(2)), {
  input: train.shape,
  classes: train.classes,
})
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
epoch 10: ACC 0.96, VRA 0.74
epoch 20: ACC 0.98, VRA 0.79
epoch 30: ACC 0.98, VRA 0.85
*/
