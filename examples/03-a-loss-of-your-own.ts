// A robust loss of your own: cross-entropy of the worst case by CROWN on 2 sampled images, mixed with that of the margin on the whole batch.
import {
  bounded,
  crossEntropy,
  crown,
  device,
  digits,
  fit,
  judged,
  layers,
  marginLoss,
  mix,
  natural,
  network,
  sampled,
  take,
  worstLogits,
} from 'mixtrain'

const mine = mix(0.7)(natural(marginLoss()), sampled(2)(judged(crossEntropy)(worstLogits(bounded(crown)))))

const { train } = await digits()
const mlp = network('mlp', layers.sequential(layers.flatten, layers.dense(20), layers.relu, layers.dense(10)), {
  input: [1, 28, 28],
  classes: 10,
})
for await (const { epoch, acc, vra } of fit({
  network: mlp,
  loss: mine,
  data: { train: take(1000)(train) },
  epsilon: 0.03,
  epochs: 2,
})(await device()))
  console.log(`epoch ${epoch + 1}: ACC ${acc}, VRA ${vra}`)

/* Prints:
epoch 1: ACC 0.33, VRA 0.14
epoch 2: ACC 0.42, VRA 0.25
*/
