import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type Dataset, take } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { files } from '../../src/data/files.ts'
import { loadFolder } from '../../src/data/folder.ts'
import { right, shared, skipped } from '../shared.ts'

/** One string per image: its label, then its pixels. */
const images = (d: Dataset): readonly string[] =>
  Array.from(d.labels, (label, i) => label + Buffer.from(d.inputs.subarray(784 * i, 784 * (i + 1))).toString('latin1'))

test('8,000 digits to train and 2,000 to test, with their licence', async () => {
  const { train, test } = await digits()
  assert.equal([train.count, test.count, train.shape, train.classes], [8000, 2000, [1, 28, 28], 10])
  assert.is(test.licence, 'CC BY-SA 3.0 (Yann LeCun, Corinna Cortes)')
  assert.is(new Set([...images(train), ...images(test)]).size, 10000)
  for (const d of [train, test])
    for (let label = 0; label < 10; label++) {
      const share = d.labels.filter((l) => l === label).length / d.count
      assert.ok(share > 0.07 && share < 0.13, `label ${label}: ${share}`)
    }
})

test('the split is always the same', async () => {
  const [a, b] = [await digits(), await digits()]
  assert.equal(a, b)
  assert.equal([...take(16)(a.train).labels], [8, 8, 0, 4, 4, 4, 0, 8, 9, 7, 0, 8, 6, 8, 5, 4])
  assert.equal([...take(16)(a.test).labels], [3, 4, 4, 8, 6, 5, 0, 1, 7, 4, 8, 4, 4, 0, 0, 0])
})

test('they are the first 10,000 training images of MNIST', async () => {
  const path = shared('data/mnist')
  if (path === undefined)
    return skipped('they are the first 10,000 training images of MNIST', 'shared/data/mnist is absent')
  const official = right(await loadFolder(files)(path)())
  const { train, test } = await digits()
  const embedded = [...images(train), ...images(test)].sort()
  assert.equal(embedded, [...images(take(10000)(official.train))].sort())
  const tests = new Set(images(official.test))
  assert.not.ok(embedded.some((image) => tests.has(image)))
})

test.run()
