// Trains a network by MixTrain, then asks of test images: right, right under attack, proved right in the whole ball?
import { device, fit, verify } from 'mixtrain'
import * as attacks from 'mixtrain/attacks'
import * as bounds from 'mixtrain/bounds'
import * as data from 'mixtrain/data'
import * as losses from 'mixtrain/losses'
import * as nn from 'mixtrain/nn'

const { train, test } = await data.digits()
const { dense, flatten, relu, sequential } = nn
const mlp = nn.network('mlp', sequential(flatten, dense(30), relu, dense(10)), { input: [1, 28, 28], classes: 10 })
const backend = await device()

let parameters: Readonly<Record<string, Float32Array>> = {}
for await (const { checkpoint } of fit({
  network: mlp,
  data: { train: data.take(1000)(train) },
  loss: losses.mixTrain({ k: 5 }),
  epsilon: 0.05,
  epochs: 3,
})(backend))
  parameters = checkpoint.state.parameters

const { acc, era, vra } = await verify({
  network: mlp,
  parameters,
  data: data.take(100)(test),
  epsilon: 0.05,
  method: bounds.methods.crown,
  attack: attacks.pgdAttack({ steps: 20, restarts: 1, seed: 0 }),
})(backend)
console.log(`ACC ${acc}, ERA ${era}, VRA ${vra} by CROWN on 100 test images`)

/* Prints:
ACC 0.79, ERA 0.59, VRA 0.5 by CROWN on 100 test images
*/
