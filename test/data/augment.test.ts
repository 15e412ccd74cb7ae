import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fold, key } from '../../src/core/key.ts'
import { type Augment, crop, flip, varied } from '../../src/data/augment.ts'
import { recipe } from '../../src/train/recipe.ts'

const SHAPE = [2, 3, 4] as const
const SIZE = 24
const images = (count: number): Float32Array => Float32Array.from({ length: count * SIZE }, (_, i) => i + 1)
/** Pixel [c, y, x] of image i; 0 outside of it. */
const at = (pixels: Float32Array, i: number, c: number, y: number, x: number): number =>
  y < 0 || y >= 3 || x < 0 || x >= 4 ? 0 : pixels[i * SIZE + (c * 3 + y) * 4 + x]
/** Whether image i of `out` is `from(c, y, x)` everywhere. */
const is = (out: Float32Array, i: number, from: (c: number, y: number, x: number) => number): boolean =>
  [0, 1].every((c) => [0, 1, 2].every((y) => [0, 1, 2, 3].every((x) => at(out, i, c, y, x) === from(c, y, x))))

/** Which of the moves by up to 2, mirrored or not, an image underwent. */
const seen = (augment: Augment | undefined, seed: number, count = 200): ReadonlySet<string> => {
  const pixels = images(count)
  const out = augment?.(pixels, [...SHAPE], key(seed)) ?? pixels
  const found = new Set<string>()
  for (let i = 0; i < count; i++) {
    const all: string[] = []
    for (const mirror of [false, true])
      for (let dy = -2; dy <= 2; dy++)
        for (let dx = -2; dx <= 2; dx++)
          if (
            is(out, i, (c, y, x) => {
              const [sy, sx] = [y + dy, x + dx]
              return sx < 0 || sx > 3 ? 0 : at(pixels, i, c, sy, mirror ? 3 - sx : sx)
            })
          )
            all.push(`${mirror ? 'mirrored' : 'upright'} ${dy} ${dx}`)
    assert.is(all.length, 1, `image ${i}`)
    found.add(all[0])
  }
  return found
}

test('a crop moves each image, zeros entering; a flip mirrors it; all of them come up', () => {
  assert.equal(
    [...seen(crop(1), 3)].sort(),
    [-1, 0, 1].flatMap((y) => [-1, 0, 1].map((x) => `upright ${y} ${x}`)).sort(),
  )
  assert.equal([...seen(flip, 3)].sort(), ['mirrored 0 0', 'upright 0 0'])
})

test('variants are a function of the key, and leave their input alone', () => {
  fc.assert(
    fc.property(fc.integer(), fc.constantFrom(crop(2), flip), (seed, augment) => {
      const pixels = images(8)
      const out = augment(pixels, [...SHAPE], key(seed))
      assert.equal(augment(pixels, [...SHAPE], key(seed)), out)
      assert.equal(pixels, images(8))
      assert.equal(flip(flip(pixels, [...SHAPE], key(seed)), [...SHAPE], key(seed)), pixels)
    }),
    { numRuns: 30 },
  )
  const [a, b] = [0, 1].map((i) => crop(2)(images(50), [...SHAPE], fold(key(0), i)))
  assert.not.equal(a, b)
})

test('a recipe varies images as their data set says: photographs are mirrored, digits are not', () => {
  const of = (variants?: { readonly crop: number; readonly mirror: boolean }) =>
    seen(recipe('mixtrain', { epsilon: 0.1, variants }).augment, 1, 600)
  assert.is([...of({ crop: 2, mirror: true })].length, 50)
  assert.is([...of({ crop: 1, mirror: false })].length, 9)
  assert.equal([...of({ crop: 0, mirror: true })].sort(), ['mirrored 0 0', 'upright 0 0'])
  assert.equal([...of({ crop: 0, mirror: false })], ['upright 0 0'])
  assert.is(varied({ crop: 0, mirror: false }), undefined)
  assert.is([...of()].length, 9)
})

test.run()
