import { gzipSync } from 'node:zlib'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fileError } from '../../src/core/error.ts'
import { type FileReader, files } from '../../src/data/files.ts'
import { loadFolder } from '../../src/data/folder.ts'
import { left, right, shared, skipped } from '../shared.ts'

/** A folder `data` in memory. */
const memory = (content: Readonly<Record<string, Uint8Array>>): FileReader => ({
  read: (path) => {
    const bytes = content[path.replace('data/', '')]
    return bytes === undefined ? TE.left(fileError(path, 'absent')) : TE.right(bytes)
  },
  list: (path) =>
    path.startsWith('data') ? TE.right(Object.keys(content).sort()) : TE.left(fileError(path, 'absent')),
})

const images = (n: number, h = 2, w = 3): Uint8Array =>
  Uint8Array.from([0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, h, 0, 0, 0, w, ...new Uint8Array(n * h * w).map((_, i) => i)])
const labels = (...values: readonly number[]): Uint8Array =>
  Uint8Array.of(0, 0, 8, 1, 0, 0, 0, values.length, ...values)

const MNIST = [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
const FASHION = [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
const folder = (train: readonly number[]) => ({
  'train-images-idx3-ubyte': images(train.length),
  'train-labels-idx1-ubyte': labels(...train),
  't10k-images-idx3-ubyte': images(2),
  't10k-labels-idx1-ubyte': labels(3, 4),
})

test('MNIST and Fashion-MNIST are told apart by their labels', async () => {
  const mnist = right(await loadFolder(memory(folder(MNIST)))('data')())
  assert.equal([...mnist.train.labels], MNIST)
  assert.equal([...mnist.test.labels], [3, 4])
  assert.equal(mnist.test.inputs, images(2).subarray(16))
  assert.equal([mnist.train.name, mnist.train.shape, mnist.train.classes], ['mnist', [1, 2, 3], 10])
  assert.is(mnist.test.licence, 'CC BY-SA 3.0 (Yann LeCun, Corinna Cortes)')
  const fashion = right(await loadFolder(memory(folder(FASHION)))('data/')())
  assert.equal([fashion.test.name, fashion.test.licence], ['fashion-mnist', 'MIT (Zalando SE)'])
  const other = right(await loadFolder(memory(folder([1, 2, 3])))('data')())
  assert.equal([other.test.name, other.test.licence], ['idx', undefined])
})

test('the spellings of the official names are known, compressed or not', async () => {
  const loaded = await loadFolder(
    memory({
      'train-images.idx3-ubyte': images(1),
      'train-labels.idx1-ubyte.gz': new Uint8Array(gzipSync(labels(6))),
      't10k-images-idx3-ubyte.gz': new Uint8Array(gzipSync(images(1))),
      't10k-labels-idx1-ubyte': labels(8),
      'README.md': new Uint8Array(),
    }),
  )('data')()
  assert.equal([...right(loaded).train.labels, ...right(loaded).test.labels], [6, 8])
})

test('missing files are named, with the nearest one', async () => {
  const { 't10k-labels-idx1-ubyte': found, ...rest } = folder(MNIST)
  assert.is(
    left(await loadFolder(memory({ ...rest, 't10k-labels-idx1-ubyte.zip': found }))('data')()),
    'data: expected the files of a data set. For MNIST or Fashion-MNIST there is no t10k-labels-idx1-ubyte or ' +
      't10k-labels-idx1-ubyte.gz or t10k-labels.idx1-ubyte or t10k-labels.idx1-ubyte.gz ' +
      '(the nearest file is "t10k-labels-idx1-ubyte.zip")',
  )
  const message = left(await loadFolder(memory({ 'cat.jpg': found }))('data')())
  for (const stem of ['train-images-idx3', 'train-labels-idx1', 't10k-images-idx3', 't10k-labels-idx1'])
    assert.ok(message.includes(`${stem}-ubyte or ${stem}-ubyte.gz`))
  for (const text of ['no data_batch_1.bin; data_batch_2.bin', 'For Tiny-ImageNet there is no train; val; wnids.txt'])
    assert.ok(message.includes(text), message)
  assert.not.ok(message.includes('cat.jpg'))
  assert.is(left(await loadFolder(memory({}))('elsewhere')()), 'elsewhere: absent')
})

test('a label file under the name of an image file is refused', async () => {
  const content = { ...folder(MNIST), 't10k-images-idx3-ubyte': labels(1, 2) }
  assert.match(
    left(await loadFolder(memory(content))('data')()),
    /^data\/t10k-images-idx3-ubyte \(byte 3, number of dimensions\): expected images/,
  )
})

test('test images of another size are refused', async () => {
  const content = { ...folder(MNIST), 't10k-images-idx3-ubyte': images(2, 3, 3) }
  assert.is(
    left(await loadFolder(memory(content))('data')()),
    'data/t10k-images-idx3-ubyte (bytes 8-15): ' +
      'expected images [1,2,3] as in data/train-images-idx3-ubyte, found [1,3,3]',
  )
})

test('CIFAR-10 lies in five batches and one for tests', async () => {
  const batch = (...labels: readonly number[]) =>
    Uint8Array.from(labels.flatMap((label) => [label, ...new Uint8Array(3072)]))
  const content = {
    ...Object.fromEntries([1, 2, 3, 4, 5].map((i) => [`data_batch_${i}.bin`, batch(i, i + 1)])),
    'test_batch.bin': batch(7),
    'batches.meta.txt': new Uint8Array(),
  }
  const { train, test } = right(await loadFolder(memory(content))('data')())
  assert.equal([...train.labels], [1, 2, 2, 3, 3, 4, 4, 5, 5, 6])
  assert.equal([...test.labels], [7])
  const { 'data_batch_3.bin': _, ...rest } = content as Record<string, Uint8Array>
  assert.is(
    left(await loadFolder(memory(rest))('data')()),
    'data: expected the files of a data set. For CIFAR-10 (binary version) there is no data_batch_3.bin ' +
      '(the nearest file is "data_batch_1.bin")',
  )
  assert.match(
    left(await loadFolder(memory({ ...content, 'data_batch_2.bin': batch(1).subarray(1) }))('data')()),
    /^data\/data_batch_2.bin \(byte 0\): expected records of 3073 bytes/,
  )
})

test('the official MNIST files load', async () => {
  const path = shared('data/mnist')
  if (path === undefined) return skipped('the official MNIST files load', 'shared/data/mnist is absent')
  const { train, test } = right(await loadFolder(files)(path)())
  assert.equal([train.name, train.count, test.count, train.shape], ['mnist', 60000, 10000, [1, 28, 28]])
  assert.equal([...test.labels.subarray(0, 10)], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9])
  assert.is(test.labels.filter((l) => l === 1).length, 1135)
})

test.run()
