import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { key } from '../../src/core/key.ts'
import {
  batches,
  type Dataset,
  dataset,
  labelsOf,
  pixels,
  pixelsPerImage,
  select,
  slice,
  split,
  take,
} from '../../src/data/dataset.ts'

/** Image i has the pixels 4i .. 4i + 3 (modulo 256) and the label i mod 7. */
const example = (count: number): Dataset =>
  dataset({
    name: 'example',
    inputs: Uint8Array.from({ length: 4 * count }, (_, i) => i % 256),
    labels: Uint16Array.from({ length: count }, (_, i) => i % 7),
    shape: [1, 2, 2],
    classes: 7,
    licence: 'none',
  })

const ids = (d: Dataset): readonly number[] => Array.from({ length: d.count }, (_, i) => d.inputs[4 * i] / 4)

test('a data set must fit together', () => {
  const parts = {
    name: 'x',
    inputs: new Uint8Array(8),
    labels: Uint8Array.of(0, 1),
    shape: [1, 2, 2],
    classes: 2,
  } as const
  assert.is(dataset(parts).count, 2)
  assert.is(pixelsPerImage(dataset(parts)), 4)
  assert.throws(() => dataset({ ...parts, shape: [1, 2, 3] }), 'x: 2 images [1,2,3] need 12 pixels, not 8')
  assert.throws(() => dataset({ ...parts, classes: 1 }), 'x: image 1 has label 1 of 1 classes')
})

test('take, slice and select keep images and labels together', () => {
  const d = example(20)
  assert.equal(ids(take(3)(d)), [0, 1, 2])
  assert.is(take(100)(d).count, 20)
  assert.is(take(0)(d).inputs.length, 0)
  assert.equal(ids(slice(18)(d)), [18, 19])
  assert.equal([...slice(5, 9)(d).labels], [5, 6, 0, 1])
  assert.equal([...slice(1, 3)(slice(5, 9)(d)).labels], [6, 0])
  assert.equal(ids(select([7, 3, 3])(d)), [7, 3, 3])
  assert.equal([...select([7, 3, 3])(slice(5)(d)).labels], [5, 1, 1])
  assert.ok(select([1])(d).labels instanceof Uint16Array)
  assert.is(select([1])(d).licence, 'none')
  assert.throws(() => select([20])(d), 'there is no image 20 in example: it has 20, counted from 0')
  assert.throws(() => pixels(d, [-1]), /there is no image -1/)
  assert.throws(() => labelsOf(d, [0.5]), /there is no image 0.5/)
  assert.throws(() => take(1.5), 'a number of images must be a non-negative integer, not 1.5')
})

test('pixels are float32(byte / 255)', () => {
  const d = example(64)
  const all = pixels(
    d,
    Uint32Array.from({ length: 64 }, (_, i) => i),
  )
  for (let byte = 0; byte < 256; byte++) assert.is(all[byte], Math.fround(byte / 255))
  assert.equal(
    pixels(d, [2, 0]),
    Float32Array.from([8, 9, 10, 11, 0, 1, 2, 3], (x) => x / 255),
  )
  assert.equal(labelsOf(d, [8, 6]), Float32Array.of(1, 6))
})

test('batches hold every index once', () => {
  fc.assert(
    fc.property(fc.nat(300), fc.integer({ min: 1, max: 50 }), fc.integer(), (count, size, seed) => {
      const kept = batches(count, size, key(seed), 'keep')
      assert.equal(
        kept.flatMap((b) => [...b]).sort((a, b) => a - b),
        Array.from({ length: count }, (_, i) => i),
      )
      assert.ok(kept.slice(0, -1).every((b) => b.length === size))
      const full = batches(count, size, key(seed))
      assert.is(full.length, Math.floor(count / size))
      assert.equal(full, kept.slice(0, full.length))
    }),
    { numRuns: 200 },
  )
  assert.not.equal(batches(100, 10, key(0)), batches(100, 10, key(1)))
  assert.throws(() => batches(10, 0, key(0)), 'a batch size must be a positive integer, not 0')
})

test('split gives two disjoint parts', () => {
  const [a, b] = split(key(1), 12)(example(40))
  assert.is(a.count, 12)
  assert.equal(
    [...ids(a), ...ids(b)].sort((x, y) => x - y),
    ids(example(40)),
  )
  assert.equal(
    [...b.labels],
    ids(b).map((i) => i % 7),
  )
  assert.throws(() => split(key(1), 41)(example(40)), 'cannot split 41 of 40 images off')
})

test.run()
