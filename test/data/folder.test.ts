import { gzipSync } from 'node:zlib'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fileError } from '../../src/core/error.ts'
import { type FileReader, files } from '../../src/data/files.ts'
import { loadFolder, loadTestImages } from '../../src/data/folder.ts'
import { left, right, shared, skipped } from '../shared.ts'

/** A folder `data` in memory. */
const memory = (content: Readonly<Record<string, Uint8Array>>): FileReader => ({
  read: (path) => {
    const bytes = content[path.replace('data/', '')]
    return bytes === undefined ? TE.left(fileError(path, 'absent')) : TE.right(bytes)
  },
  list: (path) => (/^data\/?$/.test(path) ? TE.right(Object.keys(content).sort()) : TE.left(fileError(path, 'absent'))),
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

test('test images alone are those of the whole, and training images are not read for them', async () => {
  const whole = right(await loadFolder(memory(folder(MNIST)))('data')())
  const read: string[] = []
  const watched: FileReader = {
    ...memory(folder(MNIST)),
    read: (path) => {
      read.push(path)
      return memory(folder(MNIST)).read(path)
    },
  }
  assert.equal(right(await loadTestImages(watched)('data')()), whole.test)
  assert.not(read.includes('data/train-images-idx3-ubyte'), `${read}`)
  const { 'train-images-idx3-ubyte': _, ...rest } = folder(MNIST)
  assert.match(left(await loadTestImages(memory(rest))('data')()), /not whole.*train-images/)
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
    'data: the data set is not whole: for MNIST or Fashion-MNIST there is no t10k-labels-idx1-ubyte (or .gz) ' +
      '(the nearest file is "t10k-labels-idx1-ubyte.zip")',
  )
  assert.is(
    left(await loadFolder(memory({ 'cat.jpg': found }))('data')()),
    'data: there is no data set here, nor 2 levels below: MNIST or Fashion-MNIST has train-images-idx3-ubyte, ' +
      'CIFAR-10 (binary version) has data_batch_1.bin, Tiny-ImageNet has train, a pair of tables has train.csv, a folder of images has train/CLASS/*.png (or .jpg) and test/CLASS/*.png, Parquet has train.parquet and test.parquet, or the files of Hugging Face',
  )
  const pickled = { 'batches.meta': found, data_batch_1: found, test_batch: found }
  assert.match(
    left(await loadFolder(memory(pickled))('data')()),
    /Python version of CIFAR-10; the binary version is read/,
  )
  assert.is(left(await loadFolder(memory({}))('elsewhere')()), 'elsewhere: absent')
})

/** Folders in memory: each path of a file lists as its parts. */
const tree = (content: Readonly<Record<string, Uint8Array>>): FileReader => ({
  read: (path) => (content[path] === undefined ? TE.left(fileError(path, 'absent')) : TE.right(content[path])),
  list: (given) => {
    const path = given.replace(/\/$/, '')
    const under = Object.keys(content).filter((name) => name.startsWith(`${path}/`))
    const names = [...new Set(under.map((name) => name.slice(path.length + 1).split('/')[0]))].sort()
    return names.length > 0 ? TE.right(names) : TE.left(fileError(path, 'absent'))
  },
})
const at = (path: string, files: Readonly<Record<string, Uint8Array>>) =>
  Object.fromEntries(Object.entries(files).map(([name, bytes]) => [`${path}/${name}`, bytes]))
const batch = (...labels: readonly number[]) =>
  Uint8Array.from(labels.flatMap((label) => [label, ...new Uint8Array(3072)]))
const cifar = {
  ...Object.fromEntries([1, 2, 3, 4, 5].map((i) => [`data_batch_${i}.bin`, batch(i, i + 1)])),
  'test_batch.bin': batch(7),
  'batches.meta.txt': new Uint8Array(),
}

test('the one data set up to two levels below a folder is taken, as torchvision lays them out', async () => {
  const mnist = at('data/MNIST/raw', folder(MNIST))
  const more = { 'data/README': new Uint8Array(), 'data/.cache/raw/data_batch_1.bin': new Uint8Array() }
  for (const path of ['data', 'data/', 'data/MNIST', 'data/MNIST/raw'])
    assert.is(right(await loadFolder(tree({ ...mnist, ...more }))(path)()).test.name, 'mnist')
  const colors = at('data/cifar-10-batches-bin', cifar)
  for (const path of ['data', 'data/cifar-10-batches-bin'])
    assert.is(right(await loadFolder(tree(colors))(path)()).test.name, 'cifar-10')
  const clothes = at('data/FashionMNIST/raw', folder(FASHION))
  assert.is(
    left(await loadFolder(tree({ ...mnist, ...colors, ...clothes }))('data')()),
    'data: there are several data sets, name one: data/FashionMNIST/raw, data/MNIST/raw, data/cifar-10-batches-bin',
  )
  assert.is(right(await loadFolder(tree({ ...mnist, ...clothes }))('data/FashionMNIST')()).test.name, 'fashion-mnist')
  // Deeper ones are not looked for; of a part, what is missing is told with its folder.
  assert.match(
    left(await loadFolder(tree(at('data/a/b/c', folder(MNIST))))('data')()),
    /no data set here, nor 2 levels/,
  )
  const { 'train-labels-idx1-ubyte': _, ...part } = folder(MNIST)
  assert.is(
    left(await loadFolder(tree(at('data/MNIST/raw', part)))('data')()),
    'data: the data set is not whole: for MNIST or Fashion-MNIST there is no train-labels-idx1-ubyte (or .gz) in data/MNIST/raw',
  )
  // One that is whole is taken where another is begun.
  assert.is(right(await loadFolder(tree({ ...at('data/old', part), ...colors }))('data')()).test.name, 'cifar-10')
  const beside = at('data', { ...part, ...at('whole', folder(FASHION)) })
  assert.is(right(await loadFolder(tree(beside))('data')()).test.name, 'fashion-mnist')
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
  const content = cifar
  const { train, test } = right(await loadFolder(memory(content))('data')())
  assert.equal([...train.labels], [1, 2, 2, 3, 3, 4, 4, 5, 5, 6])
  assert.equal([...test.labels], [7])
  const { 'data_batch_3.bin': _, ...rest } = content as Record<string, Uint8Array>
  assert.is(
    left(await loadFolder(memory(rest))('data')()),
    'data: the data set is not whole: for CIFAR-10 (binary version) there is no data_batch_3.bin',
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
