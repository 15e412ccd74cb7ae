// A property decided by branch and bound: does the class of a digit stay the same in a whole ball? unsat: no point of the ball breaks it.
import { constant, device, fit, robustness, verifyProperty } from 'mixtrain'
import * as data from 'mixtrain/data'
import * as losses from 'mixtrain/losses'
import * as nn from 'mixtrain/nn'

const { train, test } = await data.digits()
const mlp = nn.network('mlp', nn.sequential(nn.flatten, nn.dense(20), nn.relu, nn.dense(10)), {
  input: [1, 28, 28],
  classes: 10,
})
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

const weights = Object.fromEntries(
  Object.entries(mlp.inputs).map(([name, shape]) => [name, constant(parameters[name], shape)]),
)
const subject = { network: mlp.apply(weights), input: mlp.input, outputs: mlp.classes }
for (const epsilon of [0.02, 0.3]) {
  const property = robustness(data.pixels(test, [0]), test.labels[0], mlp.classes, epsilon, [0, 1])
  const { verdict } = await verifyProperty({ ...subject, property, timeout: 60 })(backend)
  console.log(`within ${epsilon} of a ${test.labels[0]}: ${verdict}`)
}

/* Prints:
within 0.02 of a 3: unsat
within 0.3 of a 3: sat
*/
