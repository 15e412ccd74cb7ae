import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend, Data } from '../../src/compile/backend.ts'
import { openRegion } from '../../src/compile/region.ts'
import { grad } from '../../src/compile/vjp.ts'
import { fold, key, uniform } from '../../src/core/key.ts'
import { crossEntropy, marginLoss } from '../../src/nn/criterion.ts'
import { conv, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { sum } from '../../src/ops/index.ts'
import { type Attack, fgsm, noise, pgd, pgdFrom } from '../../src/robust/attack.ts'
import { ibp } from '../../src/robust/bounds.ts'
import { evaluator, rates } from '../../src/robust/metric.ts'
import { bindings, host, modelOf, run, stepOf } from '../loss/harness.ts'
import { right, skipped } from '../shared.ts'
import { released } from './released.ts'

const N = 5
const net = network('tiny', sequential(conv(3, 3, 2, 1), relu, flatten, dense(4)), { input: [1, 5, 5], classes: 4 })
const [step, model] = [stepOf(N, net.input, 4), modelOf(net)]
const parameters = Object.fromEntries(Object.entries(net.init(key(2))).map(([k, v]) => [k, v.map((x) => 2 * x)]))
// Pixels at the ends of the range too.
const images = uniform(key(3), N * 25, -0.3, 1.3).map((v) => Math.min(1, Math.max(0, v)))
const labels = [0, 1, 2, 3, 0]
const simd = right(await wasm({ threads: 1 })())
const target = { ...step, logits: model.logits }

const attacked = async (attack: Attack, epsilon: number, backend: Backend = simd, h = host()): Promise<Data> => {
  const values = bindings(step, { inputs: images, labels, epsilon }, model, parameters)
  return (await run([attack(target)], values, h, backend))[0]
}

test('PGD stays in the ball and in the pixel range, bit for bit', async () => {
  const attacks = [
    pgd({ steps: 7, stepSize: 0.3, start: 'random' }, crossEntropy),
    pgd({ steps: 3, stepSize: 2, start: 'input' }, marginLoss(50)),
    pgd({ steps: 0, stepSize: 1, start: 'random' }, crossEntropy),
    fgsm(crossEntropy),
  ]
  for (const backend of [simd, reference()]) {
    const round = backend.dtype === 'f32' ? Math.fround : (v: number) => v
    for (const attack of attacks)
      for (const epsilon of [0.1, 0.3, 1, 1e-7]) {
        const e = round(epsilon)
        const moved = await attacked(attack, epsilon, backend)
        images.forEach((x, i) => {
          const [l, u] = [Math.max(round(x - e), 0), Math.min(round(x + e), 1)]
          assert.ok(moved[i] >= l && moved[i] <= u, `${moved[i]} outside [${l}, ${u}]`)
        })
      }
  }
})

test('an epsilon of 0 returns the input', async () => {
  for (const start of ['random', 'input'] as const)
    for (const backend of [simd, reference()]) {
      const moved = await attacked(pgd({ steps: 4, stepSize: 0.5, start }, crossEntropy), 0, backend)
      assert.ok(moved.every((v, i) => v === images[i]))
    }
})

test('FGSM is one step of epsilon along the sign of the gradient, projected', async () => {
  const epsilon = 0.125
  const values = bindings(step, { inputs: images, labels, epsilon }, model, parameters)
  const [g] = await run(grad(sum(crossEntropy(model.logits(step.inputs), step.labels)), [step.inputs]), values)
  const moved = await attacked(fgsm(crossEntropy), epsilon, reference())
  images.forEach((x, i) => {
    assert.is(moved[i], Math.min(1, Math.max(0, x + epsilon * Math.sign(g[i]))))
  })
})

test('attacks raise the loss that they are given', async () => {
  const epsilon = 0.2
  const loss = crossEntropy(model.logits(step.inputs), step.labels)
  const values = bindings(step, { inputs: images, labels, epsilon }, model, parameters)
  const [before] = await run([loss], values)
  const moved = await attacked(pgd({ steps: 20, stepSize: 0.1, start: 'input' }, crossEntropy), epsilon, reference())
  const [after] = await run([loss], new Map([...values, [step.inputs, moved]]))
  before.forEach((v, i) => {
    assert.ok(after[i] > v)
  })
})

test('a start is decided by the step key and the name of the draw', async () => {
  const attack = pgd({ steps: 2, stepSize: 0.1, start: 'random' }, crossEntropy)
  const under = (seed: number) => attacked(attack, 0.3, simd, host({ key: key(seed) }))
  assert.equal(await under(1), await under(1))
  assert.is.not((await under(1)).join(), (await under(2)).join())
  const draws = async (name: string) => (await run([noise(name, [8])], new Map()))[0]
  assert.is.not((await draws('a')).join(), (await draws('b')).join())
  assert.ok((await draws('a')).every((v) => v >= -1 && v < 1))
  // `pgdFrom` with a point of one's own begins there.
  const corner = pgdFrom({ steps: 0, stepSize: 1 }, crossEntropy, noise('a', step.inputs.shape))
  const z = uniform(fold(host().key, 'a'), N * 25, -1, 1)
  const moved = await attacked(corner, 0.3, reference())
  images.forEach((x, i) => {
    assert.ok(Math.abs(moved[i] - Math.min(1, Math.max(0, x + 0.3 * z[i]))) < 1e-12)
  })
})

const trained = await released()
if (trained === undefined) skipped('PGD on the released network', '../shared is absent')
else
  test('released network: more restarts and more steps never leave a higher accuracy', async () => {
    const { region, close } = openRegion(simd)
    const count = 60
    const buffers = Object.fromEntries(Object.entries(trained.parameters).map(([k, v]) => [k, region.from(v)]))
    const under = async (steps: number, restarts: number, seed = 1) => {
      const judge = await evaluator(region)({
        network: trained.network,
        range: [0, 1],
        method: ibp,
        attack: { name: 'pgd', steps, restarts, stepSize: 2.5 / Math.max(steps, 1), seed },
        batchSize: count,
        memory: 2 ** 30,
      })
      return judge.run(buffers, trained.images(count), 0.3)
    }
    // Each restart is drawn by its number: with more of them, the first ones are the same, so image by image.
    const byRestarts = [await under(5, 1), await under(5, 2), await under(5, 4)]
    for (let r = 1; r < byRestarts.length; r++)
      byRestarts[r].robust?.forEach((still, i) => {
        assert.ok(still <= (byRestarts[r - 1].robust?.[i] ?? 0))
      })
    const bySteps = [rates(await under(0, 1)).era, rates(await under(1, 1)).era, rates(await under(20, 1)).era]
    assert.ok(Number(bySteps[0]) >= Number(bySteps[1]) && Number(bySteps[1]) >= Number(bySteps[2]), `${bySteps}`)
    assert.ok(Number(bySteps[2]) < Number(bySteps[0]))
    assert.equal((await under(5, 1)).robust, byRestarts[0].robust)
    close()
  })

test('no buffer is left', () => {
  assert.is(simd.stats().live, 0)
  simd.dispose()
})

test.run()
