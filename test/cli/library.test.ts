import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { evaluate } from '../../src/compile/run.ts'
import { take } from '../../src/data/dataset.ts'
import { crossEntropy, mix, natural, robust, sampled, worstCase } from '../../src/doors/losses.ts'
import {
  ball,
  constant,
  device,
  digits,
  fit,
  key,
  networks,
  reference,
  symbolic,
  verify,
  wasm,
} from '../../src/index.ts'
import { right } from '../shared.ts'

test('the example of the design: a network on tensors and on interval tensors', async () => {
  const { init, apply, parameters } = networks.small({ input: [1, 28, 28], classes: 10 })
  const params = Object.fromEntries(
    Object.entries(init(key(0))).map(([name, data]) => [name, constant(data, parameters[name].shape)]),
  )
  const x = constant(new Float32Array(2 * 784).fill(0.5), [2, 1, 28, 28])
  const logits = apply(params)(x)
  const bounds = apply(params)(ball(x, 0.01))
  assert.equal(
    [logits.shape, bounds.shape],
    [
      [2, 10],
      [2, 10],
    ],
  )
  const [z, lower, upper] = await evaluate(reference())([logits, bounds.lower, bounds.upper])
  assert.ok(z.every((v, i) => lower[i] < v && v < upper[i]))
})

test('the example of the design: training with defaults', async () => {
  const { train, test: held } = await digits()
  const data = { train: take(120)(train), test: take(10)(held) }
  const loss = mix(0.5)(natural(crossEntropy), sampled(1)(robust(symbolic, worstCase(crossEntropy))))
  const backend = right(await wasm({ threads: 1 })())
  const epochs: number[] = []
  for await (const epoch of fit({ loss, data, epsilon: 0.1, epochs: 2 })(backend)) {
    assert.ok(epoch.vra <= (epoch.era ?? 1) && (epoch.era ?? 0) <= epoch.acc)
    epochs.push(epoch.epoch)
    if (epochs.length === 2) {
      const network = networks.small({ input: data.train.shape, classes: 10 })
      const { parameters } = epoch.checkpoint.state
      const { acc, era, vra } = await verify({ network, parameters, data: data.test, epsilon: 0.01 })(backend)
      assert.ok(vra <= acc && era === null)
    }
  }
  assert.equal(epochs, [0, 1])
  assert.is(backend.stats().live, 0)
  backend.dispose()
})

test('a stream that is left at once frees what it took', async () => {
  const { train } = await digits()
  const backend = await device({ device: 'wasm', threads: 1 })
  for await (const _ of fit({ data: { train: take(60)(train) }, epsilon: 0.05 })(backend)) break
  assert.is(backend.stats().live, 0)
  backend.dispose()
})

test.run()
