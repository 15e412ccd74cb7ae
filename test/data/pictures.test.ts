import { encode } from 'fast-png'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fileError } from '../../src/core/error.ts'
import type { FileReader } from '../../src/data/files.ts'
import { loadFolder } from '../../src/data/folder.ts'
import { loadTableFile } from '../../src/data/table-file.ts'
import { left, right } from '../shared.ts'
import { jpeg } from './jpeg-fixture.ts'

// Image folders and Parquet files, made here: what is read is what was written, and what cannot be read says why.

/** A tree of files in memory. */
const tree = (content: Readonly<Record<string, Uint8Array>>): FileReader => ({
  read: (path) =>
    content[path] === undefined ? TE.left(fileError(path, 'absent')) : TE.right(Uint8Array.from(content[path])),
  list: (path) => {
    const inside = Object.keys(content).filter((name) => name.startsWith(`${path}/`))
    const names = new Set(inside.map((name) => name.slice(path.length + 1).split('/')[0]))
    return names.size === 0 ? TE.left(fileError(path, 'no such folder')) : TE.right([...names])
  },
})

type Sample = readonly number[]
/** A PNG of one row of pixels for each sample. */
const png = (rows: readonly Sample[], channels = 1, depth: 8 | 16 = 8): Uint8Array => {
  const flat = rows.flat()
  const data = depth === 16 ? Uint16Array.from(flat) : Uint8Array.from(flat)
  return encode({ width: rows[0].length / channels, height: rows.length, data, channels, depth })
}
const GREY = [
  [0, 50, 100],
  [150, 200, 255],
]

test('a folder of grey images: a class for each sub-folder by name, the classes in turn, pixels as they were written', async () => {
  const files = {
    'd/train/cat/b.png': png(GREY),
    'd/train/cat/a.png': png([
      [1, 2, 3],
      [4, 5, 6],
    ]),
    'd/train/.DS_Store': new Uint8Array(3),
    'd/train/cat/notes.txt': new Uint8Array(3),
    'd/train/bird/z.png': png([
      [9, 9, 9],
      [9, 9, 9],
    ]),
    // 16 bits: the upper eight are read.
    'd/test/cat/t.png': png(
      [
        [0x1234, 0xff00, 0],
        [255, 256, 512],
      ],
      1,
      16,
    ),
  }
  const { train, test: held } = right(await loadFolder(tree(files))('d')())
  assert.equal([train.name, train.shape, train.classes, train.count], ['d', [1, 2, 3], 2, 3])
  // bird comes before cat.
  assert.equal(
    [train.classNames, held.classNames],
    [
      ['bird', 'cat'],
      ['bird', 'cat'],
    ],
  )
  assert.equal([...train.labels, ...held.labels], [0, 1, 1, 1])
  assert.equal(
    [...train.inputs],
    [9, 9, 9, 9, 9, 9, 1, 2, 3, 4, 5, 6, ...GREY.flat()].map((v) => v),
  )
  assert.equal([...held.inputs], [0x12, 0xff, 0, 0, 1, 2])
})

test('colours come channel by channel; PNG and JPEG may stand beside each other', async () => {
  const files = {
    'd/train/a/1.png': png([[1, 2, 3, 4, 5, 6]], 3),
    'd/train/b/1.png': png([[7, 7]], 1),
    'd/test/a/1.png': png([[10, 20, 30, 255, 40, 50, 60, 255]], 4),
  }
  const { train, test: held } = right(await loadFolder(tree(files))('d')())
  assert.equal(train.shape, [3, 1, 2])
  assert.equal([...train.inputs], [1, 4, 2, 5, 3, 6, 7, 7, 7, 7, 7, 7])
  assert.equal([...held.inputs], [10, 40, 20, 50, 30, 60])
  const block = new Array(8).fill(new Array(8).fill(64))
  const mixed = right(
    await loadFolder(
      tree({
        'm/train/a/1.jpg': jpeg(8, 8, [[64]]),
        'm/train/b/1.png': png(block),
        'm/test/b/1.JPEG': jpeg(8, 8, [[200]]),
      }),
    )('m')(),
  )
  assert.equal(mixed.train.shape, [1, 8, 8])
  assert.equal([...new Set(mixed.train.inputs), ...new Set(mixed.test.inputs)], [64, 200])
})

test('what is wrong with a folder of images is said with the name of the file', async () => {
  const good = { 'd/train/a/1.png': png(GREY), 'd/train/b/1.png': png(GREY), 'd/test/a/1.png': png(GREY) }
  const broken = Uint8Array.from(png(GREY))
  broken[45] ^= 1
  const cases: readonly (readonly [Readonly<Record<string, Uint8Array>>, RegExp])[] = [
    [
      { 'd/train/b/2.png': png([[1, 2]]) },
      /b\/2\.png: expected an image of 3 x 2 pixels, as d\/train\/a\/1\.png is, found 2 x 1/,
    ],
    [{ 'd/train/b/2.png': broken }, /b\/2\.png: expected a PNG image: damaged data/],
    [{ 'd/train/b/2.png': new Uint8Array(9) }, /b\/2\.png \(bytes 0-1\): expected a PNG or JPEG image/],
    [{ 'd/test/c/1.png': png(GREY) }, /d\/test\/c: expected a class of d\/train: a, b/],
    [{ 'd/train/c/notes.txt': new Uint8Array(1) }, /d\/train\/c: expected the PNG and JPEG files of a class/],
    [{ 'd/train/b/2.png': png([[1, 9, 2, 255, 3, 255]], 2) }, /b\/2\.png: some pixels are transparent/],
  ]
  for (const [more, expected] of cases)
    assert.match(left(await loadFolder(tree({ ...good, ...more }))('d')()), expected)
  assert.match(
    left(await loadFolder(tree({ 'd/train/a/1.png': png(GREY), 'd/test/a/1.png': png(GREY) }))('d')()),
    /expected a folder for each class, two or more, found 1/,
  )
})

// ---- Parquet ---------------------------------------------------------------------------------------------------------

type Column = Parameters<typeof parquetWriteBuffer>[0]['columnData'][number]
const parquet = (columnData: readonly Column[], features?: unknown): Uint8Array =>
  new Uint8Array(
    parquetWriteBuffer({
      columnData: [...columnData],
      ...(features === undefined
        ? {}
        : { kvMetadata: [{ key: 'huggingface', value: JSON.stringify({ info: { features } }) }] }),
    }),
  )

test('a table in a Parquet file is what the same table is as CSV', async () => {
  const [a, b] = [
    [0.5, 1.5, 2.5, 3.5, 4.5],
    [10, 20, 10, 20, 10],
  ]
  const label = [0n, 1n, 0n, 1n, 1n]
  const file = parquet([
    { name: 'a', data: a, type: 'DOUBLE' },
    { name: 'b', data: b, type: 'INT32' },
    { name: 'label', data: label, type: 'INT64' },
  ])
  const csv = ['a,b,label', ...a.map((v, i) => `${v},${b[i]},${label[i]}`)].join('\n')
  const reader = tree({ 't.parquet': file, 't.csv': new TextEncoder().encode(csv) })
  const [own, other] = [
    right(await loadTableFile(reader)('t.parquet')()),
    right(await loadTableFile(reader)('t.csv')()),
  ]
  for (const part of ['train', 'test'] as const) {
    assert.equal([...own[part].inputs], [...other[part].inputs])
    assert.equal([...own[part].labels], [...other[part].labels])
  }
})

test('the files of a Hugging Face data set: shards in order, pictures in their column, classes by its metadata', async () => {
  const pictures = (values: readonly number[]) => values.map((v) => png([[v, v]]))
  const shard = (values: readonly number[], labels: readonly number[]) =>
    parquet(
      [
        { name: 'image', data: pictures(values), type: 'BYTE_ARRAY' },
        { name: 'label', data: labels.map(BigInt), type: 'INT64' },
      ],
      { label: { names: ['no', 'yes', 'maybe'], _type: 'ClassLabel' } },
    )
  const reader = tree({
    'hf/README.md': new Uint8Array(1),
    'hf/data/train-00001-of-00002.parquet': shard([3], [1]),
    'hf/data/train-00000-of-00002.parquet': shard([1, 2], [0, 1]),
    'hf/data/test-00000-of-00001.parquet': shard([4], [0]),
  })
  const { train, test: held } = right(await loadFolder(reader)('hf')())
  assert.equal([train.shape, train.classes, [...train.labels]], [[1, 1, 2], 3, [0, 1, 1]])
  assert.equal(held.classNames, ['no', 'yes', 'maybe'])
  assert.equal(
    [[...train.inputs], [...held.inputs]],
    [
      [1, 1, 2, 2, 3, 3],
      [4, 4],
    ],
  )
})

test('Parquet files that are damaged, have no label, or a cell that is no number, are named with the place', async () => {
  const numbers: Column = { name: 'a', data: [1, 2, 3, 4, 5], type: 'INT32' }
  const reader = tree({
    'none.parquet': parquet([numbers]),
    'text.parquet': parquet([
      { name: 'a', data: ['1', 'x', '2', '3', '4'], type: 'STRING' },
      { name: 'y', data: [0, 1, 0, 1, 0], type: 'INT32' },
    ]),
    'damaged.parquet': parquet([numbers]).subarray(0, 40),
  })
  const message = async (path: string) => left(await loadTableFile(reader)(path)())
  assert.match(await message('none.parquet'), /none\.parquet: expected a column called label, .*found a/)
  assert.match(await message('text.parquet'), /text\.parquet, row 0: a is 1, expected a number/)
  assert.match(await message('damaged.parquet'), /damaged\.parquet: expected a Parquet file/)
})

test.run()
