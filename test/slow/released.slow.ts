import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { json } from '../cli/run.ts'
import { shared, skipped } from '../shared.ts'

const data = shared('data/mnist')
const [plain, reshaped] = ['', '.dynreshape'].map((s) => shared(`models/mixtrain_small_0.3${s}.onnx`))

interface Measured {
  readonly count: number
  readonly acc: number
  readonly era: number | null
  readonly vra: number
}

/** The first 1000 MNIST test images at 0.3. */
const measured = async (model: string, ...more: readonly string[]): Promise<Measured> => {
  const common = ['--data', data as string, '--limit', '1000', '--epsilon', '0.3', '--device', 'wasm', '--threads', '2']
  return (await json(['evaluate', model, ...common, ...more])) as unknown as Measured
}

if (data === undefined || plain === undefined || reshaped === undefined)
  skipped('the released network, 1000 images', '../shared is absent')
else {
  for (const [model, flatten] of [
    [plain, 'Flatten'],
    [reshaped, 'a computed Reshape'],
  ])
    for (const [method, vra] of [
      ['symbolic', 0.601],
      ['crown-ibp', 0.579],
      ['crown', 0.653],
    ] as const)
      test(`released network with ${flatten}: ${method} verifies ${100 * vra} % of 1000 images at 0.3`, async () => {
        const found = await measured(model, '--method', method)
        assert.is(found.count, 1000)
        assert.ok(Math.abs(found.vra - vra) <= 0.002, `${found.vra}`)
      })

  test('released network: PGD-40 leaves at most 86.3 %, and bounds and attack agree image by image', async () => {
    const found = await measured(plain, '--method', 'intersect', '--attack', 'pgd', '--steps', '40')
    assert.ok(found.era !== null && found.era <= 0.863, `${found.era}`)
    assert.ok(found.vra <= found.era && found.era <= found.acc)
    // At every layer the tighter of symbolic and interval bounds: more than symbolic alone.
    assert.ok(found.vra > 0.603, `${found.vra}`)
  })
}

test.run()
