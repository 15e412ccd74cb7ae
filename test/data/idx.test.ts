import { constants, deflateRawSync, gzipSync } from 'node:zlib'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decodeIdx, type Idx, pair, readIdx } from '../../src/data/idx.ts'
import { left, right } from '../shared.ts'

const idx = (shape: readonly number[], data: ArrayLike<number>, type = 8): Uint8Array => {
  const bytes = new Uint8Array(4 + 4 * shape.length + data.length)
  bytes.set([0, 0, type, shape.length])
  const view = new DataView(bytes.buffer)
  for (const [i, d] of shape.entries()) view.setUint32(4 + 4 * i, d)
  bytes.set(data, 4 + 4 * shape.length)
  return bytes
}

const gzip = (bytes: Uint8Array): Uint8Array => new Uint8Array(gzipSync(bytes))
const concat = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((p) => [...p]))
const IMAGES = idx([3, 2, 2], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
const LABELS = idx([3], [7, 0, 9])

test('a file decodes plain and compressed', async () => {
  assert.equal(right(decodeIdx(IMAGES, 'a')), { path: 'a', shape: [3, 2, 2], data: IMAGES.subarray(16) })
  assert.is(right(decodeIdx(IMAGES, 'a')).data.buffer, IMAGES.buffer)
  assert.equal(right(await readIdx(IMAGES, 'a')()), right(decodeIdx(IMAGES, 'a')))
  assert.equal(right(await readIdx(gzip(IMAGES), 'a')()), right(decodeIdx(IMAGES, 'a')))
  const large = idx(
    [5000, 10, 10],
    Uint8Array.from({ length: 500_000 }, (_, i) => (i * i) % 251),
  )
  assert.equal(right(await readIdx(gzip(large), 'a')()).data, large.subarray(16))
})

test('a file inside a larger buffer decodes', async () => {
  for (const bytes of [IMAGES, gzip(IMAGES)]) {
    const padded = concat(new Uint8Array(5), bytes, new Uint8Array(3)).subarray(5, 5 + bytes.length)
    assert.equal(right(await readIdx(padded, 'a')()), right(decodeIdx(IMAGES, 'a')))
  }
})

const BAD: readonly (readonly [string, Uint8Array, string])[] = [
  ['empty', new Uint8Array(), 'f (byte 0): expected an IDX header of at least 4 bytes, found 0'],
  [
    'another magic',
    Uint8Array.of(0x50, 0x4b, 3, 4, 5),
    'f (bytes 0-1): expected the IDX magic 00 00 or the gzip magic 1f 8b, found 50 4b',
  ],
  [
    'float elements',
    idx([1], [0, 0, 0, 0], 13),
    'f (byte 2, element type): expected 08 (unsigned bytes), found 0d (float32)',
  ],
  ['no type', idx([1], [0], 0), 'f (byte 2, element type): expected 08 (unsigned bytes), found 00 (unknown)'],
  ['no dimensions', idx([], [0]), 'f (byte 3, number of dimensions): expected at least 1, found 0'],
  ['a short header', IMAGES.subarray(0, 15), 'f (byte 15): expected 16 bytes of header for 3 dimensions, found 15'],
  ['a zero extent', idx([3, 0, 2], []), 'f (bytes 8-11, dimension 1): expected at least 1, found 0'],
  [
    'a truncated file',
    IMAGES.subarray(0, 27),
    'f (byte 27): the file is truncated: [3,2,2] expects more, found 11 of 12 bytes after the header',
  ],
  [
    'claimed gigabytes',
    idx([60000, 280, 280], [1, 2, 3]),
    'f (byte 19): the file is truncated: [60000,280,280] expects more, found 3 of 4704000000 bytes after the header',
  ],
  [
    'absurd extents',
    idx([0xffffffff, 0xffffffff, 0xffffffff], []),
    'f (bytes 4-15, dimensions): [4294967295,4294967295,4294967295] elements are more than any file holds',
  ],
  [
    'trailing bytes',
    concat(IMAGES, Uint8Array.of(0, 0)),
    'f (byte 28): expected the end of the file after [3,2,2], found 2 more bytes',
  ],
]

for (const [name, bytes, message] of BAD)
  test(`refused: ${name}`, async () => {
    assert.is(left(decodeIdx(bytes, 'f')), message)
    assert.is(left(await readIdx(bytes, 'f')()), message)
    if (bytes.length <= 16 || name === 'a truncated file') assert.is(left(await readIdx(gzip(bytes), 'f')()), message)
  })

test('refused: damaged gzip data', async () => {
  const good = gzip(IMAGES)
  const damaged = /^f \(gzip\): the compressed data are damaged or truncated: /
  for (let n = 2; n < good.length; n++) assert.match(left(await readIdx(good.subarray(0, n), 'f')()), damaged)
  assert.match(left(await readIdx(good.with(good.length - 5, good[good.length - 5] ^ 1), 'f')()), damaged)
  assert.match(left(await readIdx(concat(gzip(IMAGES), Uint8Array.of(1, 2, 3)), 'f')()), /^f \(gzip/)
  assert.match(
    left(await readIdx(concat(gzip(IMAGES), gzip(LABELS)), 'f')()),
    /^f \((gzip|byte 28 after decompression)/,
  )
  assert.match(left(await readIdx(gzip(gzip(IMAGES)), 'f')()), /found 1f 8b/)
})

test('refused: more content than the header says', async () => {
  const message = 'f (byte 28 after decompression): expected 28 bytes of content, as its header says, found more'
  assert.is(left(await readIdx(gzip(concat(IMAGES, Uint8Array.of(0))), 'f')()), message)
})

/** A gzip file of `start` and then 1 GB of zeros (with a checksum that nobody should get to). */
const bomb = (start: Uint8Array): Uint8Array => {
  const options = { finishFlush: constants.Z_FULL_FLUSH, level: 9 }
  const megabyte = deflateRawSync(new Uint8Array(2 ** 20), options)
  const header = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3)
  return new Uint8Array(Buffer.concat([header, deflateRawSync(start, options), ...new Array(1024).fill(megabyte)]))
}

test('refused: a gzip bomb, without the memory it asks for', async () => {
  const files = [IMAGES, new Uint8Array(4), idx([2 ** 30], [])].map(bomb)
  const before = process.memoryUsage.rss()
  const [small, nothing, large] = await Promise.all(files.map((bytes) => readIdx(bytes, 'f')()))
  assert.match(left(small), /expected 28 bytes of content, as its header says, found more/)
  assert.match(left(nothing), /found 00 \(unknown\)/)
  assert.match(left(large), /^f \(gzip\): expected at most \d+ bytes of content, the header claims 1073741832$/)
  assert.ok(process.memoryUsage.rss() - before < 2 ** 27)
})

const digits = pair({ name: 'digits', classes: 10, licence: 'none' })
const decoded = (bytes: Uint8Array, path: string): Idx => right(decodeIdx(bytes, path))

test('images and labels make a data set', () => {
  const d = right(digits(decoded(IMAGES, 'i'), decoded(LABELS, 'l')))
  assert.equal(
    { ...d, inputs: [...d.inputs], labels: [...d.labels] },
    {
      name: 'digits',
      classes: 10,
      licence: 'none',
      shape: [1, 2, 2],
      count: 3,
      inputs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
      labels: [7, 0, 9],
    },
  )
})

test('images and labels that do not fit are refused', () => {
  const [images, labels] = [decoded(IMAGES, 'i'), decoded(LABELS, 'l')]
  const place = 'byte 3, number of dimensions'
  assert.is(
    left(digits(decoded(LABELS, 'i'), labels)),
    `i (${place}): expected images, magic 00 00 08 03 (3 dimensions), found magic 00 00 08 01`,
  )
  assert.is(
    left(digits(images, decoded(IMAGES, 'l'))),
    `l (${place}): expected labels, magic 00 00 08 01 (1 dimensions), found magic 00 00 08 03`,
  )
  assert.is(
    left(digits(images, decoded(idx([2], [1, 2]), 'l'))),
    'l (bytes 4-7): expected 3 labels, as many as i has images, found 2',
  )
  assert.is(
    left(digits(images, decoded(idx([3], [1, 10, 2]), 'l'))),
    'l (byte 9): expected a label from 0 to 9, found 10 (image 1)',
  )
})

/** Valid files with bits flipped, ends cut off, and pieces of other files spliced in. */
const mutant = (files: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> =>
  fc
    .tuple(
      fc.constantFrom(...files),
      fc.constantFrom(...files),
      fc.array(fc.tuple(fc.nat(), fc.nat(7)), { maxLength: 4 }),
      fc.option(fc.nat(), { freq: 2 }),
      fc.option(fc.tuple(fc.nat(), fc.nat()), { freq: 2 }),
    )
    .map(([file, other, flips, cut, splice]) => {
      const bytes = [...file]
      if (splice !== null)
        bytes.splice(splice[0] % bytes.length, splice[1] % 8, ...other.subarray(splice[1] % other.length))
      for (const [at, bit] of flips) bytes[at % bytes.length] ^= 1 << bit
      return Uint8Array.from(cut === null ? bytes : bytes.slice(0, cut % bytes.length))
    })

test('no damaged file crashes the decoder', () => {
  fc.assert(
    fc.property(mutant([IMAGES, LABELS, idx([1, 1, 1, 1], [5])]), (bytes) => {
      const result = decodeIdx(bytes, 'f')
      if (E.isRight(result)) assert.is(result.right.data.length, bytes.length - 4 - 4 * result.right.shape.length)
    }),
    { numRuns: 5000 },
  )
})

test('no damaged gzip file crashes the reader', async () => {
  const files = [gzip(IMAGES), gzip(LABELS), gzip(idx([9], new Uint8Array(9)))]
  await fc.assert(
    fc.asyncProperty(mutant(files), async (bytes) => {
      const result = await readIdx(bytes, 'f')()
      if (E.isRight(result)) assert.ok(result.right.data.length <= 100)
    }),
    { numRuns: 1500 },
  )
})

test.run()
