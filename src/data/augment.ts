import { fold, integers, type Key } from '../core/key.ts'
import type { Variants } from './dataset.ts'

/** Random variants of images `[n, c, h, w]` (row-major), a pure function of a key. */
export type Augment = (pixels: Float32Array, shape: readonly [number, number, number], key: Key) => Float32Array

/**
 * Each image moved by up to `by` pixels in both directions, zeros entering: the usual random crop of the padded image.
 *
 * @example
 *   const augment = crop(4)
 */
export const crop =
  (by: number): Augment =>
  (pixels, [c, h, w], key) => {
    const out = new Float32Array(pixels.length)
    const count = pixels.length / (c * h * w)
    const moves = integers(fold(key, 'crop'), 2 * count, 2 * by + 1)
    for (let i = 0; i < count; i++) {
      const [dy, dx] = [moves[2 * i] - by, moves[2 * i + 1] - by]
      const [x0, x1] = [Math.max(0, -dx), Math.min(w, w - dx)]
      for (let plane = i * c; plane < (i + 1) * c; plane++)
        for (let y = Math.max(0, -dy); y < Math.min(h, h - dy); y++) {
          const from = (plane * h + y + dy) * w + dx
          out.set(pixels.subarray(from + x0, from + x1), (plane * h + y) * w + x0)
        }
    }
    return out
  }

/** Each image mirrored left to right with probability 1/2. */
export const flip: Augment = (pixels, [c, h, w], key) => {
  const out = Float32Array.from(pixels)
  const count = pixels.length / (c * h * w)
  const coins = integers(fold(key, 'flip'), count, 2)
  for (let i = 0; i < count; i++)
    if (coins[i] === 1)
      for (let row = i * c * h; row < (i + 1) * c * h; row++) out.subarray(row * w, (row + 1) * w).reverse()
  return out
}

/**
 * One after the other.
 *
 * @example
 *   const augment = compose(crop(4), flip)
 */
export const compose =
  (...augments: readonly Augment[]): Augment =>
  (pixels, shape, key) =>
    augments.reduce((p, f, i) => f(p, shape, fold(key, i)), pixels)

/**
 * The variants that keep the class of an image, drawn at random; undefined if there are none but the image itself.
 *
 * @example
 *   const augment = varied({ crop: 4, mirror: true })
 */
export const varied = ({ crop: by, mirror }: Variants): Augment | undefined =>
  by > 0 ? (mirror ? compose(flip, crop(by)) : crop(by)) : mirror ? flip : undefined
