import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { zipSync } from 'fflate'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { MixtrainException } from '../../src/core/error.ts'
import { fromArrays } from '../../src/data/arrays.ts'
import { decodeCsv } from '../../src/data/csv.ts'
import { fingerprintOf, hashOf, pixels, select, sharedImages, take } from '../../src/data/dataset.ts'
import { files } from '../../src/data/files.ts'
import { loadFolder } from '../../src/data/folder.ts'
import { decodeNpy } from '../../src/data/npy.ts'
import { loadTableFile } from '../../src/data/table-file.ts'
import { inFolder } from '../cli/run.ts'
import { left, right } from '../shared.ts'

const fails = (f: () => unknown, says: RegExp) => {
  try {
    f()
  } catch (cause) {
    if (!(cause instanceof MixtrainException)) throw cause
    assert.match(cause.message, says)
    return
  }
  throw new Error(`nothing was raised, expected ${says}`)
}

test('numbers of any scale become shares of the range of their feature; names of classes are sorted', () => {
  const rows = [
    [1, -10, 5],
    [3, 30, 5],
    [2, 0, 5],
  ]
  const d = fromArrays({ name: 't', inputs: rows, labels: ['b', 'a', 'b'] })
  assert.equal([...d.inputs], [0, 0, 0, 1, 1, 0, 0.5, 0.25, 0])
  assert.equal([d.shape, d.classes, d.count, [...d.labels], d.classNames], [[3], 2, 3, [1, 0, 1], ['a', 'b']])
  assert.equal(d.ranges, [
    [1, 3],
    [-10, 30],
    [5, 5],
  ])
  assert.equal([...pixels(d, [2, 0])], [0.5, 0.25, 0, 0, 0, 0])
  assert.equal([...select([1])(d).inputs], [1, 1, 0])
  assert.equal([...take(1)(d).inputs], [0, 0, 0])
  // A test set takes the ranges of its training set.
  const held = { name: 'h', inputs: [[5, 10, 5]], labels: ['a'], ranges: d.ranges, classNames: d.classNames }
  fails(() => fromArrays(held), /example 0 has 5 at 0, outside its range from 1 to 3/)
  assert.equal([...fromArrays({ ...held, clip: true }).inputs], [1, 0.5, 0])
  // Images have one range.
  const image = fromArrays({ name: 'i', inputs: [0, 1, 2, 4, 8, 8, 8, 8], labels: [0, 4], shape: [1, 2, 2] })
  assert.equal([[...image.inputs], image.classes], [[0, 0.125, 0.25, 0.5, 1, 1, 1, 1], 5])
})

test('what cannot be a data set is refused with its place', () => {
  const of = (given: object) => () => fromArrays({ name: 't', inputs: [[1, 2]], labels: [0], ...given })
  fails(of({ inputs: [[1, 2], [3]], labels: [0, 1] }), /row 1 has 1 numbers, the first has 2/)
  fails(of({ inputs: [[1, Number.NaN]] }), /example 0 has NaN at 1/)
  fails(of({ labels: [0.5] }), /label 0 is 0.5/)
  fails(of({ labels: ['c'], classNames: ['a', 'b'] }), /label 0, c, is none of a, b/)
  fails(of({ classes: 3, classNames: ['a', 'b'], labels: ['a'] }), /3 classes have 2 names/)
  fails(of({ inputs: [1, 2, 3], shape: [2] }), /1 examples \[2\] need 2 numbers, not 3/)
  fails(of({ ranges: [3, 1] }), /from a number up, not from 3 to 1/)
  fails(of({ labels: [] }), /there are no examples/)
})

test('hashes and overlaps follow the numbers', async () => {
  const [a, b] = [0.25, 0.5].map((v) =>
    fromArrays({
      name: 't',
      inputs: [
        [0, 0],
        [1, v],
        [1, 1],
      ],
      labels: [0, 1, 1],
    }),
  )
  assert.not.equal(await hashOf(a), await hashOf(b))
  assert.not.equal(await fingerprintOf({ train: a, test: a }), await fingerprintOf({ train: b, test: a }))
  assert.is(sharedImages(a, b), 2)
})

test('CSV: quotes, separators, names, labels; errors name line and column', () => {
  const table = right(decodeCsv('\uFEFFsize;"the ""label""";kind\r\n1;2;"a;b"\r\n\r\n3;4.5e1;c\r\n', 'x.csv'))
  assert.equal(table, {
    inputs: [
      [1, 2],
      [3, 45],
    ],
    labels: ['a;b', 'c'],
    features: ['size', 'the "label"'],
  })
  assert.equal(right(decodeCsv('1,2,0\n3,4,1', 'x.csv')), {
    inputs: [
      [1, 2],
      [3, 4],
    ],
    labels: [0, 1],
    features: undefined,
  })
  // A column called label wins over the last; one may be named.
  assert.equal(right(decodeCsv('label,a\n7,1\n2,3', 'x.csv')).labels, [7, 2])
  assert.equal(right(decodeCsv('a,b,c\n1,2,3', 'x.csv', { label: 'b' })).inputs, [[1, 3]])
  const wrong = (text: string, options = {}) => left(decodeCsv(text, 'x.csv', options))
  for (const [text, place, message] of [
    ['a,label\n1,0\nx,1', 'line 3', 'expected a number in column a, found "x"'],
    ['a,label\n1,0,2', 'line 2', 'expected 2 cells as in the first line, found 3'],
    ['a,label\n"1,0', 'line 2', 'quote that is never closed'],
    ['a,label', undefined, 'there are no rows below'],
    ['', undefined, 'no rows'],
    ['a\n1', 'line 1', 'at least one of numbers'],
  ] as const) {
    const error = wrong(text)
    assert.ok(error.startsWith(`x.csv${place === undefined ? '' : ` (${place})`}: `) && error.includes(message), error)
  }
  const unknown = wrong('a,b\n1,2', { label: 'c' })
  assert.ok(unknown.includes('there is no column "c"; the first line has a, b'))
})

/** An array as numpy.save writes it. */
const npy = (descr: string, shape: readonly number[], content: Uint8Array, fortran = false): Uint8Array => {
  const extents = `${shape.join(', ')}${shape.length === 1 ? ',' : ''}`
  const text = `{'descr': '${descr}', 'fortran_order': ${fortran ? 'True' : 'False'}, 'shape': (${extents}), }`
  const padded = `${text.padEnd(128 - 10 - 1)}\n`
  const head = new Uint8Array(10 + padded.length)
  head.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length & 255, padded.length >> 8])
  head.set(new TextEncoder().encode(padded), 10)
  return Buffer.concat([head, content])
}
const memory = (a: ArrayBufferView): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength)

test('.npy: types, byte orders and memory orders; damage is an error', () => {
  const doubles = right(decodeNpy(npy('<f8', [2, 3], memory(Float64Array.of(1, 2, 3, 4, 5, 6))), 'a.npy'))
  assert.equal(
    [doubles.shape, [...doubles.data]],
    [
      [2, 3],
      [1, 2, 3, 4, 5, 6],
    ],
  )
  const columns = right(decodeNpy(npy('<f8', [2, 3], memory(Float64Array.of(1, 4, 2, 5, 3, 6)), true), 'a.npy'))
  assert.equal([...columns.data], [1, 2, 3, 4, 5, 6])
  assert.equal([...right(decodeNpy(npy('>i2', [2], Uint8Array.of(1, 0, 255, 255)), 'a.npy')).data], [256, -1])
  assert.equal([...right(decodeNpy(npy('<i8', [2], memory(BigInt64Array.of(-5n, 7n))), 'a.npy')).data], [-5, 7])
  assert.equal(right(decodeNpy(npy('|u1', [], Uint8Array.of(9)), 'a.npy')).shape, [])
  for (const [bytes, says] of [
    [npy('|O', [1], Uint8Array.of(1)), 'are not read'],
    [npy('<c8', [1], new Uint8Array(8)), 'are not read'],
    [npy('<f4', [3], new Uint8Array(8)), 'expected 3 numbers of 4 bytes for shape [3], found 8 bytes'],
    [new Uint8Array(40), 'expected an array of numpy'],
    [npy('<f4', [3], new Uint8Array(12)).subarray(0, 40), 'header'],
  ] as const) {
    const error = left(decodeNpy(bytes, 'a.npy'))
    assert.ok(error.includes(says), error)
  }
})

test(
  'files: one table with a fifth held out, a pair of tables, an archive of numpy with channels last',
  inFolder(async (folder) => {
    const rows = Array.from({ length: 20 }, (_, i) => `${i},${i * i},${i < 10 ? 'low' : 'high'}`)
    writeFileSync(join(folder, 'one.csv'), ['a,b,class', ...rows].join('\n'))
    const one = right(await loadTableFile(files)(join(folder, 'one.csv'))())
    assert.equal([one.train.count, one.test.count, one.train.shape, one.train.classes], [16, 4, [2], 2])
    assert.is(sharedImages(one.test, one.train), 0)

    writeFileSync(join(folder, 'train.csv'), ['a,b,class', ...rows.slice(0, 18)].join('\n'))
    writeFileSync(join(folder, 'test.csv'), ['a,b,class', ...rows.slice(18)].join('\n'))
    const { train, test: held } = right(await loadFolder(files)(folder)())
    assert.equal([train.count, held.count, held.classes], [18, 2, 2])
    // The greatest values are in the test set: ranges are those of both.
    assert.equal([...held.inputs.slice(2)], [1, 1])
    writeFileSync(join(folder, 'test.csv'), 'a,c,class\n1,2,low')
    const other = left(await loadFolder(files)(folder)())
    assert.ok(other.includes('expected the columns a, b as in'))

    const images = Uint8Array.from({ length: 2 * 2 * 2 * 3 }, (_, i) => i)
    const archive = (labels: number) =>
      zipSync({
        'x_train.npy': npy('|u1', [2, 2, 2, 3], images),
        'y_train.npy': npy('<i8', [labels, 1], memory(new BigInt64Array(labels).fill(1n))),
        'x_test.npy': npy('|u1', [1, 2, 2, 3], images.slice(12)),
        'y_test.npy': npy('<i8', [1], memory(BigInt64Array.of(2n))),
      })
    writeFileSync(join(folder, 'some.npz'), archive(2))
    const npz = right(await loadTableFile(files)(join(folder, 'some.npz'))())
    assert.equal([npz.train.shape, npz.train.classes, npz.train.count, npz.test.count], [[3, 2, 2], 3, 2, 1])
    assert.equal([...npz.train.inputs.slice(0, 12)], [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11])
    writeFileSync(join(folder, 'some.npz'), archive(3))
    const uneven = left(await loadTableFile(files)(join(folder, 'some.npz'))())
    assert.ok(uneven.includes('x_train has 2 examples, y_train 3'))
    writeFileSync(join(folder, 'some.npz'), 'no archive')
    const damaged = left(await loadTableFile(files)(join(folder, 'some.npz'))())
    assert.ok(damaged.includes('damaged or no ZIP'))
  }),
)

test.run()
