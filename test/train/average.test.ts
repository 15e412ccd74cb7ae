import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { openRegion } from '../../src/compile/region.ts'
import { key, uniform } from '../../src/core/key.ts'
import { natural } from '../../src/loss/objective.ts'
import { crossEntropy } from '../../src/nn/criterion.ts'
import { batchNorm, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { averaged, averagingRate } from '../../src/train/average.ts'
import { adam, clipGradients } from '../../src/train/optimizer.ts'
import { evaluatedOf, trainer } from '../../src/train/step.ts'
import { host } from '../loss/harness.ts'

test('rates make a plain mean of everything since the start', () => {
  const total = 40
  for (const from of [0, 0.25, 0.5]) {
    let [mean, sum, n] = [0, 0, 0]
    for (let count = 0; count < total; count++) {
      const value = Math.sin(count)
      const rate = averagingRate(from)(host({ count, progress: count / total }))
      mean = (1 - rate) * mean + rate * value
      if (count < from * total) assert.is(rate, 1)
      else {
        sum += value
        n++
        assert.ok(Math.abs(mean - sum / n) < 1e-12)
      }
    }
  }
})

test('the average is evaluated, statistics are measured under it, and the steps are those without', async () => {
  const N = 4
  const net = network('tiny', sequential(flatten, dense(5), batchNorm, relu, dense(3)), {
    input: [1, 3, 3],
    classes: 3,
  })
  const start = { parameters: net.init(key(8)), slots: {} }
  const plain = clipGradients(1)(adam({ lr: 0.1 }))
  const swa = clipGradients(1)(averaged(0.5)(adam({ lr: 0.1 })))
  const { region, close } = openRegion(reference())
  try {
    const options = { network: net, loss: natural(crossEntropy), batchSize: N, range: [0, 1] as const }
    const [with_, without] = [
      await trainer(region)({ ...options, optimizer: swa }, start),
      await trainer(region)({ ...options, optimizer: plain }, start),
    ]
    const visited: Float32Array[] = []
    for (let count = 0; count < 6; count++) {
      const h = host({ count, progress: count / 6 })
      const inputs = uniform(key(count), N * 9)
      const labels = Float32Array.of(0, 1, 2, count % 3)
      await with_.step(inputs, labels, h)
      await without.step(inputs, labels, h)
      visited.push((await without.state()).parameters['1.weight'])
    }
    const state = await with_.state()
    assert.equal(state.parameters['1.weight'], visited[5])
    const average = evaluatedOf(swa, state)
    average['1.weight'].forEach((v, i) => {
      assert.ok(Math.abs(v - (visited[3][i] + visited[4][i] + visited[5][i]) / 3) < 1e-6)
    })
    assert.equal(evaluatedOf(plain, await without.state()), (await without.state()).parameters)
    const live = await region.backend.read(with_.parameters()['1.weight'])
    assert.equal(Float32Array.from(live), average['1.weight'])
    // One batch of ones: what reaches the batch norm is the sum of the weights and the bias, averaged.
    await with_.calibrate({ count: 1, at: () => new Float32Array(N * 9).fill(1) })
    const measured = evaluatedOf(swa, await with_.state())
    measured['2.mean'].forEach((v, i) => {
      const row = average['1.weight'].slice(9 * i, 9 * i + 9)
      assert.ok(Math.abs(v - row.reduce((s, w) => s + w, average['1.bias'][i])) < 1e-5)
    })
    assert.not.equal(average['1.weight'], state.parameters['1.weight'])
  } finally {
    close()
  }
})

test.run()
