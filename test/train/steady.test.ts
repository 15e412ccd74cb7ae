import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { openRegion } from '../../src/compile/region.ts'
import { fold, key } from '../../src/core/key.ts'
import { labelsOf, pixels } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { alternate } from '../../src/loss/loss.ts'
import { mixTrain } from '../../src/loss/objective.ts'
import { networks } from '../../src/nn/networks.ts'
import type { Host } from '../../src/ops/index.ts'
import { adam } from '../../src/train/optimizer.ts'
import { trainer } from '../../src/train/step.ts'
import { open } from '../backend/wasm-programs.ts'
import { skipped } from '../shared.ts'

const test = suite('steady state')

/** A full garbage collection, where the engine lets one ask for it. */
const collector = async (): Promise<(() => void) | undefined> => {
  if ('Deno' in globalThis) return undefined
  try {
    const [v8, vm] = await Promise.all([import('node:v8'), import('node:vm')])
    v8.setFlagsFromString('--expose-gc')
    return vm.runInNewContext('gc') as () => void
  } catch {
    return undefined
  }
}

const STEPS = 1000
const WARM = 100

const collect = await collector()
if (collect === undefined) skipped('the collected heap', 'this engine offers no garbage collection on demand')
test(`${STEPS} training steps leave the memory of the machine and the collected heap as they were`, async () => {
  const backend = await open({ threads: 1 })
  const { region, close } = openRegion(backend)
  const network = networks.small({ input: [1, 28, 28], classes: 10 })
  const { train } = await digits()
  const batch = Array.from({ length: 4 }, (_, i) => i)
  const [x, y] = [pixels(train, batch), labelsOf(train, batch)]
  const run = await trainer(region)(
    {
      network,
      loss: mixTrain({ k: 1, weight: 0.5, gate: alternate(1, 2) }),
      optimizer: adam({ lr: 1e-4 }),
      batchSize: 4,
      range: [0, 1],
    },
    { parameters: network.init(key(0)), slots: {} },
  )
  const steps = async (from: number, to: number) => {
    for (let count = from; count < to; count++) {
      const host: Host = { count, epoch: 0, progress: 0, epsilon: 0.1, balance: 0.5, key: fold(key(1), count) }
      await run.step(x, y, host)
      if (count % 50 === 0) await run.terms()
    }
    await backend.sync()
    for (let i = 0; i < 4; i++) {
      collect?.()
      await new Promise((resolve) => setImmediate(resolve))
    }
    const { heapUsed, external, arrayBuffers } = process.memoryUsage()
    return { ...backend.stats(), heapUsed, outside: external + arrayBuffers }
  }
  const before = await steps(0, WARM)
  const after = await steps(WARM, WARM + STEPS)
  assert.is(after.live, before.live)
  assert.is(after.bytes, before.bytes)
  assert.is(after.peak, before.peak)
  // What a collector leaves varies by some tens of kilobytes; a step that kept its feeds alone would add megabytes.
  if (collect !== undefined) {
    assert.ok(after.heapUsed - before.heapUsed < 300e3, `the heap grew by ${after.heapUsed - before.heapUsed} bytes`)
    assert.ok(after.outside - before.outside < 300e3, `memory outside it by ${after.outside - before.outside} bytes`)
  }
  close()
  backend.dispose()
})

test.run()
