import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { select, take } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { mixTrain } from '../../src/loss/objective.ts'
import { dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { crown } from '../../src/robust/bounds.ts'
import { fit } from '../../src/train/quick.ts'
import { certifiedRadii } from '../../src/train/radius.ts'
import { verify } from '../../src/train/verify.ts'
import { right } from '../shared.ts'

const data = await digits()
const backend = right(await wasm({ threads: 1 })())
const mlp = network('mlp', sequential(flatten, dense(20), relu, dense(10)), { input: [1, 28, 28], classes: 10 })
const options = { network: mlp, data: { train: take(1000)(data.train) }, loss: mixTrain({ k: 5 }), epsilon: 0.03 }
let parameters = {}
for await (const { checkpoint } of fit({ ...options, epochs: 3 })(backend)) parameters = checkpoint.state.parameters

test('each radius is certified, the next one that was tried is not; a wrong image has none', async () => {
  const some = take(30)(data.test)
  const given = { network: mlp, parameters, data: some, method: crown }
  const radii = await certifiedRadii({ ...given, most: 0.25, steps: 6 })(backend)
  const clean = await verify({ ...given, epsilon: 0 })(backend)
  assert.ok(radii.some((r) => r !== null && r > 0.01) && radii.some((r) => r === null))
  for (const [i, r] of radii.entries()) {
    assert.is(r === null, clean.correct[i] === 0, `image ${i}`)
    if (r === null) continue
    const alone = { ...given, data: select([i])(some) }
    if (r > 0) assert.is((await verify({ ...alone, epsilon: r })(backend)).vra, 1, `image ${i} within ${r}`)
    if (r < 0.25)
      assert.is((await verify({ ...alone, epsilon: r + 0.25 / 64 })(backend)).vra, 0, `image ${i} beyond ${r}`)
  }
  // An image does not depend on the others, nor on how many go at once.
  assert.equal(await certifiedRadii({ ...given, most: 0.25, steps: 6, batchSize: 8 })(backend), radii)
  // All of a radius that is certified at once.
  const least = await certifiedRadii({ ...given, most: 1e-6, steps: 2 })(backend)
  assert.ok(least.includes(Math.fround(1e-6)))
  assert.is(backend.stats().live, 0)
})

test('outward rounding certifies no more, and the l2 ball goes further than the box within it', async () => {
  const given = { network: mlp, parameters, data: take(8)(data.test), steps: 8 }
  const [plain, outward, l2] = [
    await certifiedRadii(given)(backend),
    await certifiedRadii({ ...given, rounding: { outward: 'real' } })(backend),
    await certifiedRadii({ ...given, norm: 'l2' })(backend),
  ]
  for (const [i, r] of plain.entries()) {
    assert.ok(Number(outward[i]) <= Number(r))
    assert.ok(Number(l2[i]) >= Number(r))
  }
  assert.ok(outward.some((r) => Number(r) > 0))
  assert.match((await certifiedRadii({ ...given, most: 0 })(backend).catch((e) => e)).message, /positive number, not 0/)
})

test.run()
