// A robust loss of your own: cross-entropy of the worst case by CROWN on 2 sampled images, mixed with that of the margin on the whole batch.
import { device, fit } from 'mixtrain'
import * as bounds from 'mixtrain/bounds'
import * as data from 'mixtrain/data'
import * as losses from 'mixtrain/losses'
import * as nn from 'mixtrain/nn'

const mine = losses.mix(0.7)(
  losses.natural(losses.marginLoss()),
  losses.sampled(2)(losses.judged(losses.crossEntropy)(losses.worstLogits(losses.bounded(bounds.crown)))),
)

const { train } = await data.digits()
const mlp = nn.network('mlp', nn.sequential(nn.flatten, nn.dense(20), nn.relu, nn.dense(10)), {
  input: [1, 28, 28],
  classes: 10,
})
for await (const { epoch, acc, vra } of fit({
  network: mlp,
  loss: mine,
  data: { train: data.take(1000)(train) },
  epsilon: 0.03,
  epochs: 2,
})(await device()))
  console.log(`epoch ${epoch + 1}: ACC ${acc}, VRA ${vra}`)

/* Prints:
epoch 1: ACC 0.33, VRA 0.14
epoch 2: ACC 0.42, VRA 0.25
*/
