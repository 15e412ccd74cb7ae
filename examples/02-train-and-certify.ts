// Trains a network by MixTrain, then asks of test images: right, right under attack, proved right in the whole ball?
import { device, digits, fit, layers, methods, mixTrain, network, pgdAttack, take, verify } from 'mixtrain'

const { train, test } = await digits()
const { dense, flatten, relu, sequential } = layers
const mlp = network('mlp', sequential(flatten, dense(30), relu, dense(10)), { input: [1, 28, 28], classes: 10 })
const backend = await device()

let parameters: Readonly<Record<string, Float32Array>> = {}
for await (const { checkpoint } of fit({
  network: mlp,
  data: { train: take(1000)(train) },
  loss: mixTrain({ k: 5 }),
  epsilon: 0.05,
  epochs: 3,
})(backend))
  parameters = checkpoint.state.parameters

const { acc, era, vra } = await verify({
  network: mlp,
  parameters,
  data: take(100)(test),
  epsilon: 0.05,
  method: methods.crown,
  attack: pgdAttack({ steps: 20, restarts: 1, seed: 0 }),
})(backend)
console.log(`ACC ${acc}, ERA ${era}, VRA ${vra} by CROWN on 100 test images`)

/* Prints:
ACC 0.79, ERA 0.59, VRA 0.5 by CROWN on 100 test images
*/
