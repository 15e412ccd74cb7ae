import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Dataset, select, sharedImages, slice, take } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { inFolder, json, mixtrain, refused } from './run.ts'

const { train, test: held } = await digits()

/** A data set as MNIST's files have it. */
const idx = (folder: string, name: string, { inputs, labels, count }: Dataset): void => {
  const head = (magic: number, ...extents: readonly number[]) => {
    const bytes = new DataView(new ArrayBuffer(4 + 4 * extents.length))
    ;[magic, ...extents].forEach((v, i) => {
      bytes.setUint32(4 * i, v)
    })
    return new Uint8Array(bytes.buffer)
  }
  writeFileSync(
    join(folder, `${name}-images-idx3-ubyte`),
    Buffer.concat([head(0x803, count, 28, 28), Uint8Array.from(inputs)]),
  )
  writeFileSync(join(folder, `${name}-labels-idx1-ubyte`), Buffer.concat([head(0x801, count), Uint8Array.from(labels)]))
}

test('images of two sets that are the same are counted, whatever their order and labels', () => {
  const some = select([5, 900, 3])(train)
  assert.is(sharedImages(some, take(900)(train)), 2)
  assert.is(sharedImages({ ...some, labels: new Uint8Array(3) }, train), 3)
  assert.is(sharedImages(take(50)(held), train), 0)
  // All but one pixel.
  const other = { ...some, inputs: some.inputs.map((v, i) => (i === 784 + 400 ? v ^ 1 : v)) }
  assert.is(sharedImages(other, train), 2)
})

test(
  'a model names the images it was trained on: evaluate takes them by default, and says which test images it has seen',
  inFolder(async (folder) => {
    const data = join(folder, 'images')
    mkdirSync(data)
    idx(data, 'train', slice(0, 200)(train))
    // Three of the ten are training images; one of these only beyond --limit.
    idx(data, 't10k', select([...Array.from({ length: 7 }, (_, i) => 500 + i), 3, 4, 150])(train))
    const wasm = ['--device', 'wasm', '--threads', '1']
    const run = join(folder, 'run')
    const loss = ['--loss', 'natural', '--epochs', '1', '--limit', '120,10', '--epsilon', '2/255']
    await json(['train', '--data', data, ...loss, '--output', run, ...wasm])
    const model = join(run, 'model.safetensors')
    // The folder of a run is its model, and the radius is the one that the model names.
    const measured = await mixtrain(['evaluate', run, '--json', ...wasm])
    assert.is(measured.code, 0, measured.err)
    const said = JSON.parse(measured.out) as { count: number; model: string; epsilon: number }
    assert.equal([said.count, said.model, said.epsilon], [10, model, 2 / 255])
    assert.match(measured.err, `epsilon is ${2 / 255}, for which ${model} was trained`)
    assert.match(measured.err, /^2 of these 10 test images are among those that .*model\.safetensors was trained on/m)
    const onnx = await mixtrain(['evaluate', join(run, 'model.onnx'), '--epsilon', '0.01', ...wasm])
    assert.match(onnx.err, /^2 of these 10/m)
    // Others, and a part without any of them: nothing to say.
    for (const more of [
      ['--data', 'digits', '--limit', '20'],
      ['--limit', '7'],
    ]) {
      const { code, err } = await mixtrain(['evaluate', model, '--epsilon', '0.01', ...more, ...wasm])
      assert.is(code, 0, err)
      assert.not.match(err, /trained on/)
    }
    const bounded = await json(['bounds', run, '--index', '9', ...wasm])
    assert.equal([bounded.index, bounded.model, bounded.epsilon], [[9], model, 2 / 255])
    await refused(['bounds', run, '--index', '9', '--norm', 'l2'], 2, 'with --norm l2 add --epsilon')
    const radii = await json(['radius', run, '--limit', '2', '--steps', '2', ...wasm])
    assert.equal([radii.count, radii.model], [2, model])
    rmSync(data, { recursive: true })
    const gone = 'was trained on the images there: there is no such folder'
    await refused(['evaluate', model, '--epsilon', '0.01'], 1, data, gone, '--data')
    assert.is((await mixtrain(['evaluate', model, '--epsilon', '0.01', '--data', 'digits', '--limit', '5'])).code, 0)
  }),
)

test.run()
