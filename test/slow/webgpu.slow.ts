import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openRegion } from '../../src/compile/region.ts'
import { fold, key } from '../../src/core/key.ts'
import { labelsOf, pixels } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { mixTrain } from '../../src/loss/objective.ts'
import { dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { adam } from '../../src/train/optimizer.ts'
import { trainer } from '../../src/train/step.ts'
import { twentySteps } from '../backend/portable.ts'
import { open as openWasm } from '../backend/wasm-programs.ts'
import { openOrSkip } from '../backend/webgpu-open.ts'

const gpu = await openOrSkip('twenty steps on WebGPU')
if (gpu !== undefined) {
  test('1,000 training steps leave buffers and bytes as they were', async () => {
    const { region, close } = openRegion(gpu)
    const tiny = network('tiny', sequential(flatten, dense(8), relu, dense(10)), { input: [1, 28, 28], classes: 10 })
    const { train } = await digits()
    const [x, y] = [pixels(train, [0, 1]), labelsOf(train, [0, 1])]
    const run = await trainer(region)(
      { network: tiny, loss: mixTrain({ k: 1 }), optimizer: adam({ lr: 1e-3 }), batchSize: 2, range: [0, 1] },
      { parameters: tiny.init(key(0)), slots: {} },
    )
    const steps = async (from: number, to: number) => {
      for (let count = from; count < to; count++) {
        const host = { count, epoch: 0, progress: 0, epsilon: 0.1, balance: 0.5, key: fold(key(1), count) }
        await run.step(x, y, host)
        if (count % 50 === 0) await run.terms()
      }
      await gpu.sync()
      return gpu.stats()
    }
    const before = await steps(0, 100)
    assert.equal(await steps(100, 1100), before)
    const { natural } = await run.terms()
    assert.ok(natural < 0.1, `it trained: ${natural}`)
    close()
  })

  test('twenty MixTrain steps of the small network give the losses of WASM to 1e-3', async () => {
    const wasm = await openWasm({ threads: 1 })
    const [a, b] = [await twentySteps(gpu), await twentySteps(wasm)]
    assert.equal([gpu.stats().live, wasm.stats().live], [0, 0])
    for (const backend of [gpu, wasm]) backend.dispose()
    assert.is(a.length, 40)
    a.forEach((v, i) => {
      assert.ok(Math.abs(v - b[i]) < 1e-3 * Math.max(1, b[i]), `loss ${i}: ${v} on WebGPU, ${b[i]} on WASM`)
    })
  })
}

test.run()
