// Training that is watched step by step, stopped by a signal, and gone on with from the parameters that it had.
import { device, fit } from 'mixtrain'
import * as data from 'mixtrain/data'
import * as losses from 'mixtrain/losses'
import * as nn from 'mixtrain/nn'

const { train } = await data.digits()
const { dense, flatten, relu, sequential } = nn
const network = nn.network('mlp', sequential(flatten, dense(20), relu, dense(10)), { input: [1, 28, 28], classes: 10 })
const options = { network, data: { train: data.take(500)(train) }, loss: losses.mixTrain({ k: 2 }), epsilon: 0.02 }
const backend = await device()

const controller = new AbortController()
let parameters: Readonly<Record<string, Float32Array>> | undefined
let seen = 0
try {
  for await (const { checkpoint } of fit({
    ...options,
    epochs: 5,
    signal: controller.signal,
    onStep: ({ count, loss }) => {
      seen = count
      if (count % 10 === 0) console.log(`step ${count}: loss ${loss.toFixed(3)}`)
      if (count === 20) controller.abort()
    },
  })(backend))
    parameters = checkpoint.state.parameters
} catch (error) {
  console.log(`${(error as Error).name} after ${seen} steps`)
}

const more = { ...options, epochs: 1 }
for await (const { loss } of fit({ ...more, parameters })(backend))
  console.log(`one epoch more: loss ${loss?.toFixed(3)}`)

/* Prints:
step 10: loss 2.194
step 20: loss 1.799
AbortError after 20 steps
one epoch more: loss 1.842
*/
