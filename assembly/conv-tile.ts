import { storePart, storeTransposed } from './lanes'

/**
 * Tiles of eight images: [position][channel][8], so that channels, and along a row positions, follow each other and a
 * multiply-add serves eight images. Missing images of the last group are lanes of zeros.
 */
export const LANES: i32 = 8
/** Bytes of one (position, channel). */
export const CELL: usize = 32

/** x: [images <= 8][channels][plane] -> tile positions [p0, p1). */
export function packTile(tile: usize, x: usize, images: i32, channels: i32, plane: i32, p0: i32, p1: i32): void {
  const image = (<usize>(channels * plane)) << 2
  const step = <usize>channels * CELL
  const zero = f32x4.splat(0)
  for (let c = 0; c < channels; c++) {
    const src0 = x + ((<usize>(c * plane)) << 2)
    const dst0 = tile + <usize>c * CELL
    for (let h = 0; h < LANES; h += 4) {
      const n = images - h
      for (let p = p0; p < p1; p += 4) {
        const src = src0 + <usize>h * image + ((<usize>p) << 2)
        const dst = dst0 + <usize>p * step + ((<usize>h) << 2)
        const v0 = n > 0 ? v128.load(src) : zero
        const v1 = n > 1 ? v128.load(src + image) : zero
        const v2 = n > 2 ? v128.load(src + image * 2) : zero
        const v3 = n > 3 ? v128.load(src + image * 3) : zero
        if (p + 4 <= p1) {
          storeTransposed(dst, step, v0, v1, v2, v3)
        } else {
          const t0 = v128.shuffle<f32>(v0, v1, 0, 4, 1, 5)
          const t1 = v128.shuffle<f32>(v0, v1, 2, 6, 3, 7)
          const t2 = v128.shuffle<f32>(v2, v3, 0, 4, 1, 5)
          const t3 = v128.shuffle<f32>(v2, v3, 2, 6, 3, 7)
          v128.store(dst, v128.shuffle<f32>(t0, t2, 0, 1, 4, 5))
          if (p + 1 < p1) v128.store(dst + step, v128.shuffle<f32>(t0, t2, 2, 3, 6, 7))
          if (p + 2 < p1) v128.store(dst + step * 2, v128.shuffle<f32>(t1, t3, 0, 1, 4, 5))
        }
      }
    }
  }
}

/** The way back for positions [p0, p1): tile with `cells` channels per position -> x: [images <= 8][channels][plane]. */
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
  const step = <usize>cells * CELL
  for (let c = 0; c < channels; c++) {
    for (let h = 0; h < images; h += 4) {
      const n = min(4, images - h)
      for (let p = p0; p < p1; p += 4) {
        const src = tile + <usize>c * CELL + <usize>p * step + ((<usize>h) << 2)
        const dst = x + <usize>h * image + ((<usize>(c * plane + p)) << 2)
        // Past the last position the load repeats it, and the lane is not stored.
        const v0 = v128.load(src)
        const v1 = v128.load(src + (p + 1 < p1 ? step : 0))
        const v2 = v128.load(src + (p + 2 < p1 ? step * 2 : 0))
        const v3 = v128.load(src + (p + 3 < p1 ? step * 3 : 0))
        if (n == 4 && p + 4 <= p1) {
          storeTransposed(dst, image, v0, v1, v2, v3)
        } else {
          const t0 = v128.shuffle<f32>(v0, v1, 0, 4, 1, 5)
          const t1 = v128.shuffle<f32>(v0, v1, 2, 6, 3, 7)
          const t2 = v128.shuffle<f32>(v2, v3, 0, 4, 1, 5)
          const t3 = v128.shuffle<f32>(v2, v3, 2, 6, 3, 7)
          part(dst, v128.shuffle<f32>(t0, t2, 0, 1, 4, 5), p1 - p)
          if (n > 1) part(dst + image, v128.shuffle<f32>(t0, t2, 2, 3, 6, 7), p1 - p)
          if (n > 2) part(dst + image * 2, v128.shuffle<f32>(t1, t3, 0, 1, 4, 5), p1 - p)
          if (n > 3) part(dst + image * 3, v128.shuffle<f32>(t1, t3, 2, 3, 6, 7), p1 - p)
        }
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function part(dst: usize, v: v128, n: i32): void {
  if (n >= 4) v128.store(dst, v)
  else storePart(dst, v, n)
}
