import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { radii } from '../../src/cli/sweep.ts'
import { doublesOf } from '../../src/core/epsilon.ts'
import { key } from '../../src/core/key.ts'
import { writeAtomic } from '../../src/data/files.ts'
import { encodeModel } from '../../src/format/model.ts'
import { dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { right } from '../shared.ts'
import { inFolder, json, mixtrain } from './run.ts'

// Curves over epsilon: exact radii, and at each of them what the evaluation of that radius alone says.

test('radii of a curve are equal steps, exactly, from one end to the other', () => {
  const read = radii('0.02:0.2:10')
  assert.is(read._tag, 'Right')
  if (read._tag === 'Left') return
  assert.equal(
    read.right.map((e) => doublesOf(e).nearest),
    [0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2],
  )
  assert.equal([read.right[0].written, read.right[9].written], ['0.02', '0.2'])
  const thirds = radii('0:1/255:4')
  assert.equal(thirds._tag === 'Right' && thirds.right.map((e) => doublesOf(e).nearest), [0, 1 / 765, 2 / 765, 1 / 255])
  for (const wrong of ['0.1:0.2', '0.1:0.2:1', '0.1:0.2:101', '0.2:0.1:3', '0.1:0.1:2', 'a:0.2:3', '0:1:2:3', '0:1:-2'])
    assert.is(radii(wrong)._tag, 'Left', wrong)
})

test(
  'a curve has at each radius what the evaluation of that radius has; what is about one radius is refused',
  inFolder(async (folder) => {
    const layers = sequential(flatten, dense(12), relu, dense(10))
    const mlp = network('curve', layers, { input: [1, 28, 28], classes: 10 })
    const model = `${folder}/model.safetensors`
    right(
      await writeAtomic(model, encodeModel({ network: mlp, parameters: mlp.init(key(3)), provenance: undefined }))(),
    )
    const common = ['--method', 'crown', '--data', 'digits', '--limit', '30', '--attack', 'pgd', '--steps', '5']
    const at = (epsilon: string) =>
      json(['evaluate', model, '--epsilon', epsilon, ...common, '--device', 'reference']) as Promise<
        Record<string, unknown>
      >
    const whole = (await at('0:0.02:3')) as { curve: readonly Record<string, number>[]; count: number }
    assert.is(whole.count, 30)
    assert.equal(
      whole.curve.map(({ epsilon }) => epsilon),
      [0, 0.01, 0.02],
    )
    const { acc, era, vra, epsilon } = await at('0.01')
    assert.equal(whole.curve[1], { epsilon, acc, era, vra })
    // Larger balls hold more counterexamples.
    assert.ok(whole.curve.every((p, i) => i === 0 || p.vra <= whole.curve[i - 1].vra))
    assert.is(whole.curve[0].vra, whole.curve[0].acc)
    const refused = await mixtrain(['evaluate', model, '--epsilon', '0:0.02:3', '--per-image', 'x.csv'])
    assert.is(refused.code, 2)
    assert.match(refused.err, /measures a curve: leave --per-image out/)
  }),
)

test.run()
