import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { twentySteps } from '../backend/portable.ts'
import { open as openWasm } from '../backend/wasm-programs.ts'
import { openOrSkip } from '../backend/webgpu-open.ts'

const gpu = await openOrSkip('twenty steps on WebGPU')
if (gpu !== undefined)
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

test.run()
