import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { key } from '../../src/core/key.ts'
import { slice, take } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { frozen, type ObjectiveName, objectives } from '../../src/loss/objective.ts'
import { batchNorm, conv, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { methods } from '../../src/robust/bounds.ts'
import { fit } from '../../src/train/fit.ts'
import { numbersOf, recipe } from '../../src/train/recipe.ts'
import { host, modelOf, printed, stepOf } from '../loss/harness.ts'
import { right } from '../shared.ts'

const names = Object.keys(objectives) as ObjectiveName[]
const settings = [0.3, 0.1, 8 / 255, 2 / 255]

test('every objective has a recipe whose epsilon grows to the full radius or beyond, and stays', () => {
  for (const name of names)
    for (const epsilon of settings) {
      const { numbers, epsilonSchedule, balance } = recipe(name, { epsilon })
      const at = (progress: number) => epsilonSchedule(host({ progress }))
      assert.ok(at(0) <= at(0.2) && at(0.2) <= at(1) && at(0.6) === at(1), name)
      assert.ok(at(1) >= epsilon && at(1) <= 2 * epsilon, name)
      assert.ok(balance([]) >= 0 && balance([]) <= 1)
      assert.ok(Object.hasOwn(methods, numbers.method))
    }
})

test('options win over the recipe, and the recipe over the defaults', () => {
  assert.is(numbersOf('hydra').weightDecay, 1e-4)
  assert.is(numbersOf('hydra', { weightDecay: 0 }).weightDecay, 0)
  assert.is(numbersOf('mtl-ibp', { epsilon: 0.3 }).balance, 0.08)
  assert.is(numbersOf('mtl-ibp', { epsilon: 2 / 255, balance: 0.5, lr: undefined }).balance, 0.5)
  assert.equal(recipe('mixtrain', { epsilon: 0.1, swa: true }).optimizer.slots, ['first', 'second', 'average'])
  assert.equal(recipe('mixtrain', { epsilon: 0.1 }).optimizer.slots, ['first', 'second'])
})

test('an optimizer, milestones, noise and regularizers by number', () => {
  const of = (options: Parameters<typeof recipe>[1]) => recipe('mixtrain', options)
  const plain = of({ epsilon: 0.1 })
  const other = of({ epsilon: 0.1, optimizer: 'radam', milestones: [2, 3], epochs: 4, smooth: 0.01, regularizer: 0.25 })
  assert.equal(other.numbers.milestones, [2, 3])
  assert.equal([other.numbers.optimizer, plain.numbers.optimizer], ['radam', 'adam'])
  assert.is(numbersOf('fast-ibp').regularizer, 0.5)
  assert.is(numbersOf('fast-ibp', { regularizer: 0 }).regularizer, 0)
  const step = stepOf(4, [1, 4, 4], 10)
  const tiny = network('tiny', sequential(flatten, dense(4), relu, dense(10)), { input: [1, 4, 4], classes: 10 })
  const text = (r: typeof plain) => printed(r.loss, step, modelOf(tiny), host())
  assert.ok(text(other).includes('smoothed.0.') && !text(plain).includes('smoothed'))
  assert.ok(text(of({ epsilon: 0.1, regularizer: 0.25 })).length > text(plain).length)
})

test('every objective trains a network with batch norm by its recipe: finite, and one of its terms falls', async () => {
  const data = await digits()
  const net = network(
    'tiny',
    sequential(conv(4, 4, 4), batchNorm, relu, flatten, dense(16), batchNorm, relu, dense(10)),
    { input: [1, 28, 28], classes: 10 },
  )
  const simd = right(await wasm({ threads: 1 })())
  for (const name of names) {
    const {
      numbers,
      k: _,
      init: __,
      ...planned
    } = recipe(name, {
      ...{ epsilon: 0.01, epochs: 2, batchSize: 20, lr: 5e-3 },
      teacher: frozen(net, net.init(key(9))),
    })
    const terms: { readonly natural: number | null; readonly robust: number | null }[] = []
    for await (const { naturalLoss, robustLoss, checkpoint } of fit({
      ...planned,
      network: net,
      train: take(160)(data.train),
      monitor: slice(300, 310)(data.train),
      epsilon: 0.01,
      seed: 1,
      method: methods.ibp,
    })(simd)) {
      terms.push({ natural: naturalLoss, robust: robustLoss })
      for (const p of Object.values(checkpoint.state.parameters)) assert.ok(p.every(Number.isFinite), name)
    }
    const given = terms.flatMap(({ natural, robust }) => [natural, robust].filter((v) => v !== null))
    assert.ok(given.length > 0 && given.every(Number.isFinite), name)
    const fell = (['natural', 'robust'] as const).some((t) => Number(terms[1][t]) < Number(terms[0][t]))
    assert.ok(fell, `${name}: ${JSON.stringify(terms)}`)
  }
  assert.is(simd.stats().live, 0)
  simd.dispose()
})

test.run()
