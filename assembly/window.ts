import { address, fillRow, share, word } from './lanes'
import { Windows } from './words'

/**
 * Sliding windows, x: [N, C, H, W] and windows: [N, OH, OW, C, KH, KW]. Only positions inside x are touched: `unfold`
 * leaves zeros outside, `fold` drops what lies there.
 *
 * The instruction: [3] a, [4] out, [5] N, C, H, W, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY,
 * dilationX.
 */
@inline
function copyPlane(ip: usize, x: usize, windows: usize, n: i32, c: i32, i: i32, j: i32, fold: bool): void {
  const C = word(ip, Windows.C)
  const H = word(ip, Windows.H)
  const W = word(ip, Windows.W)
  const KH = word(ip, Windows.KH)
  const KW = word(ip, Windows.KW)
  const y0 = i * word(ip, Windows.strideY) - word(ip, Windows.padTop)
  const x0 = j * word(ip, Windows.strideX) - word(ip, Windows.padLeft)
  const dy = word(ip, Windows.dilationY)
  const dx = word(ip, Windows.dilationX)
  const plane = x + ((<usize>((n * C + c) * H * W)) << 2)
  let at = windows + ((<usize>((((n * word(ip, Windows.OH) + i) * word(ip, Windows.OW) + j) * C + c) * KH * KW)) << 2)
  // Rows of the window are contiguous pieces of rows of x.
  const whole = dx == 1 && x0 >= 0 && x0 + KW <= W
  for (let p = 0; p < KH; p++) {
    const y = y0 + p * dy
    const row = plane + ((<usize>(y * W)) << 2)
    if (whole) {
      if (y >= 0 && y < H) copyRun(row + ((<usize>x0) << 2), at, KW, fold)
      else if (!fold) fillRow(at, f32x4.splat(0), KW)
      at += (<usize>KW) << 2
      continue
    }
    for (let q = 0; q < KW; q++) {
      const z = x0 + q * dx
      const inside = y >= 0 && y < H && z >= 0 && z < W
      if (fold) {
        if (inside) {
          const to = row + ((<usize>z) << 2)
          store<f32>(to, load<f32>(to) + load<f32>(at))
        }
      } else {
        store<f32>(at, inside ? load<f32>(row + ((<usize>z) << 2)) : 0)
      }
      at += 4
    }
  }
}

/** n neighbours of x copied to a window, or added to from one. */
@inline
function copyRun(x: usize, window: usize, n: i32, fold: bool): void {
  let q = 0
  for (; q + 4 <= n; q += 4) {
    const at = (<usize>q) << 2
    if (fold) v128.store(x + at, f32x4.add(v128.load(x + at), v128.load(window + at)))
    else v128.store(window + at, v128.load(x + at))
  }
  for (; q < n; q++) {
    const at = (<usize>q) << 2
    if (fold) store<f32>(x + at, load<f32>(x + at) + load<f32>(window + at))
    else store<f32>(window + at, load<f32>(x + at))
  }
}

/** windows[n, i, j, c, p, q] = x[n, c, i strideY - padTop + p dilationY, j strideX - padLeft + q dilationX]. */
export function unfold(ip: usize, slots: usize, id: i32, count: i32): void {
  const x = address(ip, Windows.a, slots)
  const out = address(ip, Windows.out, slots)
  const OH = word(ip, Windows.OH)
  const OW = word(ip, Windows.OW)
  const units = word(ip, Windows.N) * OH * OW
  const last = share(units, id + 1, count)
  for (let u = share(units, id, count); u < last; u++) {
    const n = u / (OH * OW)
    const i = (u / OW) % OH
    for (let c = 0; c < word(ip, Windows.C); c++) copyPlane(ip, x, out, n, c, i, u % OW, false)
  }
}

/** x[n, c, y, z] = sum of the windows that show it, in ascending (i, j, p, q). Parallel over the planes (n, c). */
export function fold(ip: usize, slots: usize, id: i32, count: i32): void {
  const windows = address(ip, Windows.a, slots)
  const out = address(ip, Windows.out, slots)
  const C = word(ip, Windows.C)
  const plane = word(ip, Windows.H) * word(ip, Windows.W)
  const units = word(ip, Windows.N) * C
  const last = share(units, id + 1, count)
  for (let u = share(units, id, count); u < last; u++) {
    fillRow(out + ((<usize>(u * plane)) << 2), f32x4.splat(0), plane)
    const n = u / C
    for (let i = 0; i < word(ip, Windows.OH); i++) {
      for (let j = 0; j < word(ip, Windows.OW); j++) copyPlane(ip, out, windows, n, u - n * C, i, j, true)
    }
  }
}
