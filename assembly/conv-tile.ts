import { storeTransposed, storeUpTo } from './lanes'

/**
 * Tiles of a few images: [position][cell][lanes], lane = image, cell = channel, so that channels, and along a row
 * positions, follow each other and one multiply-add serves four images. Missing images of the last group are lanes of
 * zeros.
 */

/** Positions that are transposed together, so that what they touch of the tile stays in the L1 cache. */
const BLOCK: i32 = 16

/** x: [images <= lanes][channels][plane] -> tile of all positions, `cells` (>= channels) apart; lanes is 4 or 8. */
export function packTile(tile: usize, x: usize, images: i32, channels: i32, plane: i32, cells: i32, lanes: i32): void {
  const image = (<usize>(channels * plane)) << 2
  const cell = (<usize>lanes) << 2
  const step = <usize>cells * cell
  const zero = f32x4.splat(0)
  for (let block = 0; block < plane; block += BLOCK) {
    const end = min(plane, block + BLOCK)
    for (let c = 0; c < channels; c++) {
      for (let h = 0; h < lanes; h += 4) {
        const n = images - h
        let src = x + <usize>h * image + ((<usize>(c * plane + block)) << 2)
        let dst = tile + <usize>c * cell + <usize>block * step + ((<usize>h) << 2)
        for (let p = block; p < end; p += 4) {
          const v0 = n > 0 ? v128.load(src) : zero
          const v1 = n > 1 ? v128.load(src + image) : zero
          const v2 = n > 2 ? v128.load(src + image * 2) : zero
          const v3 = n > 3 ? v128.load(src + image * 3) : zero
          if (p + 4 <= end) {
            storeTransposed(dst, step, v0, v1, v2, v3)
          } else {
            const t0 = v128.shuffle<f32>(v0, v1, 0, 4, 1, 5)
            const t1 = v128.shuffle<f32>(v0, v1, 2, 6, 3, 7)
            const t2 = v128.shuffle<f32>(v2, v3, 0, 4, 1, 5)
            const t3 = v128.shuffle<f32>(v2, v3, 2, 6, 3, 7)
            v128.store(dst, v128.shuffle<f32>(t0, t2, 0, 1, 4, 5))
            if (p + 1 < end) v128.store(dst + step, v128.shuffle<f32>(t0, t2, 2, 3, 6, 7))
            if (p + 2 < end) v128.store(dst + step * 2, v128.shuffle<f32>(t1, t3, 0, 1, 4, 5))
          }
          src += 16
          dst += step << 2
        }
      }
    }
  }
}

/** The way back for positions [p0, p1) of a tile of eight lanes: -> x: [images <= 8][channels][plane]. */
export function unpackTile(
  x: usize,
  tile: usize,
  cells: i32,
  images: i32,
  channels: i32,
  plane: i32,
  p0: i32,
  p1: i32,
): void {
  const image = (<usize>(channels * plane)) << 2
  const step = <usize>cells * 32
  for (let block = p0; block < p1; block += BLOCK) {
    const end = min(p1, block + BLOCK)
    for (let c = 0; c < channels; c++) {
      for (let h = 0; h < images; h += 4) {
        const n = min(4, images - h)
        for (let p = block; p < end; p += 4) {
          const src = tile + <usize>c * 32 + <usize>p * step + ((<usize>h) << 2)
          const dst = x + <usize>h * image + ((<usize>(c * plane + p)) << 2)
          // Past the last position the load repeats the first, and the lane is not stored.
          const v0 = v128.load(src)
          const v1 = v128.load(src + (p + 1 < end ? step : 0))
          const v2 = v128.load(src + (p + 2 < end ? step * 2 : 0))
          const v3 = v128.load(src + (p + 3 < end ? step * 3 : 0))
          if (n == 4 && p + 4 <= end) {
            storeTransposed(dst, image, v0, v1, v2, v3)
          } else {
            const t0 = v128.shuffle<f32>(v0, v1, 0, 4, 1, 5)
            const t1 = v128.shuffle<f32>(v0, v1, 2, 6, 3, 7)
            const t2 = v128.shuffle<f32>(v2, v3, 0, 4, 1, 5)
            const t3 = v128.shuffle<f32>(v2, v3, 2, 6, 3, 7)
            storeUpTo(dst, v128.shuffle<f32>(t0, t2, 0, 1, 4, 5), end - p)
            if (n > 1) storeUpTo(dst + image, v128.shuffle<f32>(t0, t2, 2, 3, 6, 7), end - p)
            if (n > 2) storeUpTo(dst + image * 2, v128.shuffle<f32>(t1, t3, 0, 1, 4, 5), end - p)
            if (n > 3) storeUpTo(dst + image * 3, v128.shuffle<f32>(t1, t3, 2, 3, 6, 7), end - p)
          }
        }
      }
    }
  }
}
