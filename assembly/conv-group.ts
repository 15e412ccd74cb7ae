import { C, DILATION_X, DILATION_Y, H, KH, KW, N, O, OH, OW, PAD_LEFT, PAD_TOP, STRIDE_X, STRIDE_Y, W } from './conv-words'
import { address, fillRow, loadStrided, madd, share, storePart, sumLanes, word } from './lanes'

/**
 * Convolutions with channels in groups, depthwise ones above all: a group has few channels, so that there is little to share between
 * output channels, and planes are taken one by one. A tap adds a scaled row to a row, four neighbours at a time.
 *
 * Every element is one chain over its taps in a fixed order, (channel, p, q), whoever computes it. What lies outside a plane is
 * left out, so a NaN weight never meets padding.
 */
const GROUPS: i32 = 21

/** The first and the last + 1 of `count` output places whose tap at `offset` falls inside an extent. */
@inline
function firstInside(offset: i32, stride: i32): i32 {
  return offset >= 0 ? 0 : (stride - 1 - offset) / stride
}

@inline
function lastInside(offset: i32, stride: i32, extent: i32, count: i32): i32 {
  return extent <= offset ? 0 : min(count, (extent - 1 - offset) / stride + 1)
}

/** dst[k sd] += a src[k ss] for k < n; steps in elements. */
function addScaled(dst: usize, sd: i32, src: usize, ss: i32, n: i32, a: v128): void {
  if (sd == 1) {
    const end = dst + ((<usize>(n & ~3)) << 2)
    const step = (<usize>ss) << 2
    if (ss == 1) {
      while (dst < end) {
        v128.store(dst, madd(a, v128.load(src), v128.load(dst)))
        dst += 16
        src += 16
      }
      if (n & 3) storePart(dst, madd(a, v128.load(src), v128.load(dst)), n & 3)
      return
    }
    while (dst < end) {
      v128.store(dst, madd(a, loadStrided(src, step), v128.load(dst)))
      dst += 16
      src += step << 2
    }
    n &= 3
  }
  while (n > 0) {
    v128.store32_lane(dst, madd(a, v128.load32_zero(src), v128.load32_zero(dst)), 0)
    dst += (<usize>sd) << 2
    src += (<usize>ss) << 2
    n--
  }
}

/** sums + a[k sa] b[k] for k < n, four lanes of partial sums. */
function dot(sums: v128, a: usize, sa: i32, b: usize, n: i32): v128 {
  const step = (<usize>sa) << 2
  while (n >= 4) {
    sums = madd(sa == 1 ? v128.load(a) : loadStrided(a, step), v128.load(b), sums)
    a += step << 2
    b += 16
    n -= 4
  }
  for (let k = 0; k < n; k++) {
    sums = madd(v128.load32_zero(a), v128.load32_zero(b), sums)
    a += step
    b += 4
  }
  return sums
}

/** Adds what one input plane and one output plane share through their weights to either, or gives the gradient of one weight. */
function tap(ip: usize, x: usize, y: usize, p: i32, q: i32, a: v128, input: bool): void {
  const sy = word(ip, STRIDE_Y)
  const sx = word(ip, STRIDE_X)
  const top = p * word(ip, DILATION_Y) - word(ip, PAD_TOP)
  const left = q * word(ip, DILATION_X) - word(ip, PAD_LEFT)
  const last = lastInside(top, sy, word(ip, H), word(ip, OH))
  const j = firstInside(left, sx)
  const n = lastInside(left, sx, word(ip, W), word(ip, OW)) - j
  if (n <= 0) return
  for (let i = firstInside(top, sy); i < last; i++) {
    const xs = x + ((<usize>((i * sy + top) * word(ip, W) + j * sx + left)) << 2)
    const ys = y + ((<usize>(i * word(ip, OW) + j)) << 2)
    if (input) addScaled(xs, sx, ys, 1, n, a)
    else addScaled(ys, 1, xs, sx, n, a)
  }
}

/** y[n, o] = sum over the channels of the group of x[n, c] * w[o, c]. Parallel over the planes of y. */
export function groupConv(ip: usize, slots: usize, id: i32, count: i32): void {
  planes(ip, address(ip, 3, slots), address(ip, 4, slots), address(ip, 5, slots), id, count, false)
}

/** Its adjoint to x. Parallel over the planes of x. */
export function groupConvInput(ip: usize, slots: usize, id: i32, count: i32): void {
  planes(ip, address(ip, 5, slots), address(ip, 4, slots), address(ip, 3, slots), id, count, true)
}

@inline
function planes(ip: usize, x: usize, w: usize, y: usize, id: i32, count: i32, input: bool): void {
  const groups = word(ip, GROUPS)
  const channels = word(ip, C)
  const outs = word(ip, O)
  const ins = channels / groups
  const own = outs / groups
  const taps = word(ip, KH) * word(ip, KW)
  const planeX = word(ip, H) * word(ip, W)
  const planeY = word(ip, OH) * word(ip, OW)
  const each = input ? channels : outs
  const among = input ? ins : own
  const met = input ? own : ins
  const plane = input ? planeX : planeY
  const written = input ? x : y
  const units = word(ip, N) * each
  const last = share(units, id + 1, count)
  for (let u = share(units, id, count); u < last; u++) {
    const image = u / each
    const channel = u - image * each
    const group = channel / among
    const target = written + ((<usize>(u * plane)) << 2)
    fillRow(target, f32x4.splat(0), plane)
    for (let k = 0; k < met; k++) {
      const c = input ? channel : group * ins + k
      const o = input ? group * own + k : channel
      let at = w + ((<usize>((o * ins + (c - group * ins)) * taps)) << 2)
      const source = input
        ? y + ((<usize>((image * outs + o) * planeY)) << 2)
        : x + ((<usize>((image * channels + c) * planeX)) << 2)
      for (let p = 0; p < word(ip, KH); p++) {
        for (let q = 0; q < word(ip, KW); q++) {
          const a = v128.load32_splat(at)
          at += 4
          if (input) tap(ip, target, source, p, q, a, true)
          else tap(ip, source, target, p, q, a, false)
        }
      }
    }
  }
}

/** Its adjoint to w: for every weight a sum over images and places. Parallel over pairs of an output channel and a channel of its group. */
export function groupConvWeight(ip: usize, slots: usize, id: i32, count: i32): void {
  const x = address(ip, 3, slots)
  const y = address(ip, 4, slots)
  let out = address(ip, 5, slots)
  const ins = word(ip, C) / word(ip, GROUPS)
  const own = word(ip, O) / word(ip, GROUPS)
  const sy = word(ip, STRIDE_Y)
  const sx = word(ip, STRIDE_X)
  const units = word(ip, O) * ins
  const first = share(units, id, count)
  const last = share(units, id + 1, count)
  out += (<usize>(first * word(ip, KH) * word(ip, KW))) << 2
  for (let u = first; u < last; u++) {
    const o = u / ins
    const c = (o / own) * ins + (u - o * ins)
    for (let p = 0; p < word(ip, KH); p++) {
      const top = p * word(ip, DILATION_Y) - word(ip, PAD_TOP)
      const end = lastInside(top, sy, word(ip, H), word(ip, OH))
      for (let q = 0; q < word(ip, KW); q++) {
        const left = q * word(ip, DILATION_X) - word(ip, PAD_LEFT)
        const j = firstInside(left, sx)
        const n = lastInside(left, sx, word(ip, W), word(ip, OW)) - j
        let sums = f32x4.splat(0)
        if (n > 0) {
          for (let image = 0; image < word(ip, N); image++) {
            const planeX = x + ((<usize>((image * word(ip, C) + c) * word(ip, H) * word(ip, W))) << 2)
            const planeY = y + ((<usize>((image * word(ip, O) + o) * word(ip, OH) * word(ip, OW))) << 2)
            for (let i = firstInside(top, sy); i < end; i++) {
              const xs = planeX + ((<usize>((i * sy + top) * word(ip, W) + j * sx + left)) << 2)
              sums = dot(sums, xs, sx, planeY + ((<usize>(i * word(ip, OW) + j)) << 2), n)
            }
          }
        }
        store<f32>(out, sumLanes(sums))
        out += 4
      }
    }
  }
}
