import { address, fillRow, loadStrided, madd, share, storePart, sumLanes, word } from './lanes'
import { Conv } from './words'

/**
 * Convolutions with channels in groups, depthwise ones above all: a group has few channels, so that there is little to share between
 * output channels, and planes are taken one by one. A tap adds a scaled row to a row, four neighbours at a time.
 *
 * Every element is one chain over its taps in a fixed order, (channel, p, q), whoever computes it. What lies outside a plane is
 * left out, so a NaN weight never meets padding.
 */

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
  const sy = word(ip, Conv.strideY)
  const sx = word(ip, Conv.strideX)
  const top = p * word(ip, Conv.dilationY) - word(ip, Conv.padTop)
  const left = q * word(ip, Conv.dilationX) - word(ip, Conv.padLeft)
  const last = lastInside(top, sy, word(ip, Conv.H), word(ip, Conv.OH))
  const j = firstInside(left, sx)
  const n = lastInside(left, sx, word(ip, Conv.W), word(ip, Conv.OW)) - j
  if (n <= 0) return
  for (let i = firstInside(top, sy); i < last; i++) {
    const xs = x + ((<usize>((i * sy + top) * word(ip, Conv.W) + j * sx + left)) << 2)
    const ys = y + ((<usize>(i * word(ip, Conv.OW) + j)) << 2)
    if (input) addScaled(xs, sx, ys, 1, n, a)
    else addScaled(ys, 1, xs, sx, n, a)
  }
}

/** y[n, o] = sum over the channels of the group of x[n, c] * w[o, c]. Parallel over the planes of y. */
export function groupConv(ip: usize, slots: usize, id: i32, count: i32): void {
  planes(ip, address(ip, Conv.a, slots), address(ip, Conv.b, slots), address(ip, Conv.out, slots), id, count, false)
}

/** Its adjoint to x. Parallel over the planes of x. */
export function groupConvInput(ip: usize, slots: usize, id: i32, count: i32): void {
  planes(ip, address(ip, Conv.out, slots), address(ip, Conv.b, slots), address(ip, Conv.a, slots), id, count, true)
}

@inline
function planes(ip: usize, x: usize, w: usize, y: usize, id: i32, count: i32, input: bool): void {
  const groups = word(ip, Conv.end)
  const channels = word(ip, Conv.C)
  const outs = word(ip, Conv.O)
  const ins = channels / groups
  const own = outs / groups
  const taps = word(ip, Conv.KH) * word(ip, Conv.KW)
  const planeX = word(ip, Conv.H) * word(ip, Conv.W)
  const planeY = word(ip, Conv.OH) * word(ip, Conv.OW)
  const each = input ? channels : outs
  const among = input ? ins : own
  const met = input ? own : ins
  const plane = input ? planeX : planeY
  const written = input ? x : y
  const units = word(ip, Conv.N) * each
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
      for (let p = 0; p < word(ip, Conv.KH); p++) {
        for (let q = 0; q < word(ip, Conv.KW); q++) {
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
  const x = address(ip, Conv.a, slots)
  const y = address(ip, Conv.b, slots)
  let out = address(ip, Conv.out, slots)
  const ins = word(ip, Conv.C) / word(ip, Conv.end)
  const own = word(ip, Conv.O) / word(ip, Conv.end)
  const sy = word(ip, Conv.strideY)
  const sx = word(ip, Conv.strideX)
  const units = word(ip, Conv.O) * ins
  const first = share(units, id, count)
  const last = share(units, id + 1, count)
  out += (<usize>(first * word(ip, Conv.KH) * word(ip, Conv.KW))) << 2
  for (let u = first; u < last; u++) {
    const o = u / ins
    const c = (o / own) * ins + (u - o * ins)
    for (let p = 0; p < word(ip, Conv.KH); p++) {
      const top = p * word(ip, Conv.dilationY) - word(ip, Conv.padTop)
      const end = lastInside(top, sy, word(ip, Conv.H), word(ip, Conv.OH))
      for (let q = 0; q < word(ip, Conv.KW); q++) {
        const left = q * word(ip, Conv.dilationX) - word(ip, Conv.padLeft)
        const j = firstInside(left, sx)
        const n = lastInside(left, sx, word(ip, Conv.W), word(ip, Conv.OW)) - j
        let sums = f32x4.splat(0)
        if (n > 0) {
          for (let image = 0; image < word(ip, Conv.N); image++) {
            const planeX = x + ((<usize>((image * word(ip, Conv.C) + c) * word(ip, Conv.H) * word(ip, Conv.W))) << 2)
            const planeY = y + ((<usize>((image * word(ip, Conv.O) + o) * word(ip, Conv.OH) * word(ip, Conv.OW))) << 2)
            for (let i = firstInside(top, sy); i < end; i++) {
              const xs = planeX + ((<usize>((i * sy + top) * word(ip, Conv.W) + j * sx + left)) << 2)
              sums = dot(sums, xs, sx, planeY + ((<usize>(i * word(ip, Conv.OW) + j)) << 2), n)
            }
          }
        }
        store<f32>(out, sumLanes(sums))
        out += 4
      }
    }
  }
}
