import type { Shape } from '../../core/shape.ts'

/** Whether values of this shape can be shown: [1, h, w] or [3, h, w]. */
export const isPicture = (shape: Shape): shape is readonly [1 | 3, number, number] =>
  shape.length === 3 && (shape[0] === 1 || shape[0] === 3) && shape[1] * shape[2] > 1

/** An image of numbers from 0 to 1, channels first, as a data URI of a bitmap (BMP, 24 bits, rows from below). */
export const bitmap = (
  values: ArrayLike<number>,
  [channels, height, width]: readonly [1 | 3, number, number],
): string => {
  const stride = Math.ceil((3 * width) / 4) * 4
  const bytes = new Uint8Array(54 + stride * height)
  const view = new DataView(bytes.buffer)
  bytes.set([0x42, 0x4d])
  view.setUint32(2, bytes.length, true)
  view.setUint32(10, 54, true)
  view.setUint32(14, 40, true)
  view.setInt32(18, width, true)
  view.setInt32(22, height, true)
  view.setUint16(26, 1, true)
  view.setUint16(28, 24, true)
  const plane = height * width
  const byte = (v: number) => Math.round(255 * Math.min(Math.max(v, 0), 1))
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const at = 54 + (height - 1 - y) * stride + 3 * x
      for (let c = 0; c < 3; c++) bytes[at + c] = byte(values[(channels === 1 ? 0 : 2 - c) * plane + y * width + x])
    }
  return `data:image/bmp;base64,${btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(''))}`
}

/** The change from one image to another, grey where there is none, at full contrast for `most`. */
export const change = (from: ArrayLike<number>, to: ArrayLike<number>, most: number): Float64Array =>
  Float64Array.from(from, (v, i) => 0.5 + (to[i] - v) / (2 * (most || 1)))
