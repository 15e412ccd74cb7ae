import { finish, maskOf, splatBias } from './epilogue'
import { copyRow, firstLanes, madd, share, storeUpTo, word } from './lanes'
import { Conv, Header, Opcode } from './words'

/**
 * conv2d and conv2dInput of one image at a time, lanes = positions: for few images, which would leave lanes of a tile
 * (conv.ts) empty, and for single channels, where packing tiles costs as much as the arithmetic.
 *
 * The image is copied into planes with zeros around it, in which the values that a tap shows to neighbouring output
 * positions are neighbours: [channel][row][column mod stride][column div stride]. A *pass* is a set of output positions
 * that see the same taps: all of them in conv2d, those congruent modulo the stride in conv2dInput. Its positions are
 * cut into quads of one row; its taps and input channels are a list of byte offsets, one for each step of the sum:
 *
 *   out[channel][quad] = sum over k of weight[channel][k] plane[quad + offset[k]]
 *
 * Zeros stand for padding, so a weight that is not finite would make NaN of them: those go by tiles.
 *
 * A thread's scratch: planes; of all passes: offsets of the steps, counts (steps, quads), quads (input offset, output
 * offset, positions).
 */

@inline
function isInput(ip: usize): bool {
  return word(ip, Header.opcode) == Opcode.conv2dInput
}

@inline
function align(bytes: i32): i32 {
  return (bytes + 63) & ~63
}

@inline
function ins(ip: usize): i32 {
  return isInput(ip) ? word(ip, Conv.O) : word(ip, Conv.C)
}

@inline
function outs(ip: usize): i32 {
  return isInput(ip) ? word(ip, Conv.C) : word(ip, Conv.O)
}

/** How far the last tap of an axis reaches back, in steps of the stride. */
@inline
function reach(taps: i32, dilation: i32, stride: i32): i32 {
  return ((taps - 1) * dilation) / stride
}

/** Rows of a plane. */
@inline
function planeRows(ip: usize): i32 {
  const s = word(ip, Conv.strideY)
  const last = (word(ip, Conv.KH) - 1) * word(ip, Conv.dilationY)
  return isInput(ip) ? (word(ip, Conv.padTop) + word(ip, Conv.H) - 1) / s + last / s + 1 : (word(ip, Conv.OH) - 1) * s + last + 1
}

/** Columns of one phase of a row. Quads read past the last position, hence the 8. */
@inline
function planeCols(ip: usize): i32 {
  const s = word(ip, Conv.strideX)
  const positions = isInput(ip) ? (word(ip, Conv.padLeft) + word(ip, Conv.W) - 1) / s + 1 : word(ip, Conv.OW)
  return positions + reach(word(ip, Conv.KW), word(ip, Conv.dilationX), s) + 8
}

@inline
function phases(ip: usize): i32 {
  return isInput(ip) ? 1 : word(ip, Conv.strideX)
}

@inline
function planeBytes(ip: usize): i32 {
  return align((ins(ip) * planeRows(ip) * phases(ip) * planeCols(ip) + 16) * 4)
}

@inline
function stepBytes(ip: usize): i32 {
  return align(ins(ip) * word(ip, Conv.KH) * word(ip, Conv.KW) * 4)
}

export function directScratch(ip: usize): i32 {
  const quads = isInput(ip) ? word(ip, Conv.H) * ((word(ip, Conv.W) >> 2) + word(ip, Conv.strideX)) : word(ip, Conv.OH) * ((word(ip, Conv.OW) + 3) >> 2)
  return planeBytes(ip) + stepBytes(ip) + align(passes(ip) * 8) + align(quads * QUAD)
}

/** Bytes of the packed weights. */
export function directShared(ip: usize): i32 {
  return align((outs(ip) + 3) * ins(ip) * word(ip, Conv.KH) * word(ip, Conv.KW) * 4)
}

// --------------------------------------------------------------------------------------------------------------
// tables

const QUAD: i32 = 12

/** Passes of the instruction; pass (ry, rx) of conv2dInput has the positions of that residue modulo the strides. */
@inline
function passes(ip: usize): i32 {
  return isInput(ip) ? word(ip, Conv.strideY) * word(ip, Conv.strideX) : 1
}

/** Writes the byte offsets of a pass's steps, in the order (channel, p, q); how many there are. */
function stepTable(ip: usize, table: usize, pass: i32): i32 {
  const sy = word(ip, Conv.strideY)
  const sx = word(ip, Conv.strideX)
  const rows = planeRows(ip)
  const cols = planeCols(ip)
  const kh = word(ip, Conv.KH)
  const kw = word(ip, Conv.KW)
  const back = reach(kh, word(ip, Conv.dilationY), sy)
  const left = reach(kw, word(ip, Conv.dilationX), sx)
  let n = 0
  for (let c = 0; c < ins(ip); c++) {
    for (let p = 0; p < kh; p++) {
      const y = p * word(ip, Conv.dilationY)
      for (let q = 0; q < kw; q++) {
        const x = q * word(ip, Conv.dilationX)
        if (!inPass(ip, pass, y, x)) continue
        const at = isInput(ip)
          ? (c * rows + back - y / sy) * cols + left - x / sx
          : ((c * rows + y) * sx + (x % sx)) * cols + x / sx
        store<i32>(table + ((<usize>n) << 2), at * 4)
        n++
      }
    }
  }
  return n
}

/** Whether the tap at distance (y, x) belongs to the pass. */
@inline
function inPass(ip: usize, pass: i32, y: i32, x: i32): bool {
  if (!isInput(ip)) return true
  const sx = word(ip, Conv.strideX)
  return y % word(ip, Conv.strideY) == pass / sx && x % sx == pass % sx
}

@inline
function tapInPass(ip: usize, pass: i32, tap: i32): bool {
  const kw = word(ip, Conv.KW)
  return inPass(ip, pass, (tap / kw) * word(ip, Conv.dilationY), (tap % kw) * word(ip, Conv.dilationX))
}

/** Writes the quads of a pass; how many there are. */
function quadTable(ip: usize, table: usize, pass: i32): i32 {
  const sx = word(ip, Conv.strideX)
  const sy = word(ip, Conv.strideY)
  const cols = planeCols(ip)
  let at = table
  if (!isInput(ip)) {
    const width = word(ip, Conv.OW)
    for (let i = 0; i < word(ip, Conv.OH); i++) {
      for (let j = 0; j < width; j += 4) {
        store<i32>(at, (i * sy * sx * cols + j) * 4)
        store<i32>(at, (i * width + j) * 4, 4)
        store<i32>(at, min(4, width - j), 8)
        at += QUAD
      }
    }
  } else {
    const ry = pass / sx
    const rx = pass % sx
    const top = word(ip, Conv.padTop)
    const left = word(ip, Conv.padLeft)
    const t1 = top + word(ip, Conv.H) > ry ? (top + word(ip, Conv.H) - 1 - ry) / sy : -1
    const u0 = left > rx ? (left - rx + sx - 1) / sx : 0
    const u1 = left + word(ip, Conv.W) > rx ? (left + word(ip, Conv.W) - 1 - rx) / sx : -1
    for (let t = top > ry ? (top - ry + sy - 1) / sy : 0; t <= t1; t++) {
      for (let u = u0; u <= u1; u += 4) {
        store<i32>(at, (t * cols + u) * 4)
        store<i32>(at, ((t * sy + ry - top) * word(ip, Conv.W) + u * sx + rx - left) * 4, 4)
        store<i32>(at, min(4, u1 + 1 - u), 8)
        at += QUAD
      }
    }
  }
  return <i32>(at - table) / QUAD
}

/**
 * Weights of all passes: [pass][block of four output channels][step][4], left-over channels (one or two) alone; the
 * share of one thread.
 */
export function packDirect(ip: usize, to: usize, w: usize, id: i32, count: i32): void {
  const adjoint = isInput(ip)
  const taps = word(ip, Conv.KH) * word(ip, Conv.KW)
  const n = outs(ip)
  const cells = (n & 3) == 3 ? n + 1 : n
  const outStep = adjoint ? taps : ins(ip) * taps
  const inStep = (<usize>(adjoint ? n * taps : taps)) << 2
  const first = share(cells, id, count)
  const last = share(cells, id + 1, count)
  let base = to
  for (let pass = 0; pass < passes(ip); pass++) {
    let own = 0
    for (let t = 0; t < taps; t++) if (tapInPass(ip, pass, t)) own++
    const steps = own * ins(ip)
    let at = 0
    for (let t = 0; t < taps; t++) {
      if (!tapInPass(ip, pass, t)) continue
      for (let o = first; o < last; o++) {
        const wide = o < (cells & ~3)
        const cell: usize = wide ? 16 : 4
        let dst = base + ((<usize>((wide ? o & ~3 : o) * steps + (wide ? o & 3 : 0))) << 2) + <usize>at * cell
        let src = w + ((<usize>(o * outStep + t)) << 2)
        for (let c = ins(ip); c > 0; c--) {
          store<f32>(dst, o < n ? load<f32>(src) : 0)
          dst += <usize>own * cell
          src += inStep
        }
      }
      at++
    }
    base += (<usize>(cells * steps)) << 2
  }
}

/** Copies one image into the planes, whose surroundings are zero already. */
function packPlanes(ip: usize, planes: usize, x: usize): void {
  const rows = planeRows(ip)
  const cols = planeCols(ip)
  const adjoint = isInput(ip)
  const height = adjoint ? word(ip, Conv.OH) : word(ip, Conv.H)
  const width = adjoint ? word(ip, Conv.OW) : word(ip, Conv.W)
  const s = phases(ip)
  const top = adjoint ? reach(word(ip, Conv.KH), word(ip, Conv.dilationY), word(ip, Conv.strideY)) : word(ip, Conv.padTop)
  const left = adjoint ? reach(word(ip, Conv.KW), word(ip, Conv.dilationX), word(ip, Conv.strideX)) : word(ip, Conv.padLeft)
  // What no tap reaches is left out.
  const used = min(height, rows - top)
  const room = s * (cols - 4)
  const usedCols = min(width, room - left)
  const mask = firstLanes(usedCols & 3)
  for (let c = 0; c < ins(ip); c++) {
    let src = x + ((<usize>(c * height * width)) << 2)
    for (let y = 0; y < used; y++) {
      const row = planes + ((<usize>((c * rows + y + top) * s * cols)) << 2)
      if (s == 1) {
        let dst = row + ((<usize>left) << 2)
        const end = src + ((<usize>(usedCols & ~3)) << 2)
        let at = src
        while (at < end) {
          v128.store(dst, v128.load(at))
          at += 16
          dst += 16
        }
        if (usedCols & 3) v128.store(dst, v128.and(v128.load(at), mask))
      } else {
        for (let f = 0; f < s; f++) {
          // Columns of x that are congruent to f - left modulo s, from the first on.
          const first = (((f - left) % s) + s) % s
          if (first < usedCols) {
            copyRow(
              row + ((<usize>(f * cols + (first + left) / s)) << 2),
              src + ((<usize>first) << 2),
              s,
              (usedCols - first + s - 1) / s,
            )
          }
        }
      }
      src += (<usize>width) << 2
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------
// kernels

/** `n` lanes of a result to memory, `step` bytes apart, after bias and relu. */
@inline
function put(to: usize, v: v128, n: i32, step: usize, bias: v128, mask: v128): void {
  const r = finish(v, bias, mask)
  if (step == 4) {
    storeUpTo(to, r, n)
  } else {
    v128.store32_lane(to, r, 0)
    if (n > 1) v128.store32_lane(to + step, r, 1)
    if (n > 2) v128.store32_lane(to + step * 2, r, 2)
    if (n > 3) v128.store32_lane(to + step * 3, r, 3)
  }
}

/** Four output channels x pairs of quads [from, to) of a pass; `m` channels are stored. */
function four(
  planes: usize,
  steps: usize,
  k: i32,
  w: usize,
  quads: usize,
  end: usize,
  out: usize,
  plane: usize,
  step: usize,
  m: i32,
  bias: usize,
  relu: bool,
): void {
  const stepsEnd = steps + ((<usize>k) << 2)
  for (; quads < end; quads += 24) {
    const more = quads + 12 < end
    const x0 = planes + load<usize>(quads)
    const x1 = more ? planes + load<usize>(quads, 12) : x0
    let a0 = f32x4.splat(0)
    let a1 = a0
    let b0 = a0
    let b1 = a0
    let c0 = a0
    let c1 = a0
    let d0 = a0
    let d1 = a0
    let wp = w
    for (let s = steps; s < stepsEnd; s += 4) {
      const at = load<usize>(s)
      const p = v128.load(x0 + at)
      const q = v128.load(x1 + at)
      let v = v128.load32_splat(wp)
      a0 = madd(v, p, a0)
      a1 = madd(v, q, a1)
      v = v128.load32_splat(wp, 4)
      b0 = madd(v, p, b0)
      b1 = madd(v, q, b1)
      v = v128.load32_splat(wp, 8)
      c0 = madd(v, p, c0)
      c1 = madd(v, q, c1)
      v = v128.load32_splat(wp, 12)
      d0 = madd(v, p, d0)
      d1 = madd(v, q, d1)
      wp += 16
    }
    const mask = maskOf(relu)
    const v0 = splatBias(bias)
    const v1 = bias ? v128.load32_splat(bias, 4) : v0
    const v2 = bias ? v128.load32_splat(bias, 8) : v0
    const v3 = bias ? v128.load32_splat(bias, 12) : v0
    let to = out + load<usize>(quads, 4)
    let n = load<i32>(quads, 8)
    put(to, a0, n, step, v0, mask)
    put(to + plane, b0, n, step, v1, mask)
    put(to + plane * 2, c0, n, step, v2, mask)
    if (m > 3) put(to + plane * 3, d0, n, step, v3, mask)
    if (more) {
      to = out + load<usize>(quads, 16)
      n = load<i32>(quads, 20)
      put(to, a1, n, step, v0, mask)
      put(to + plane, b1, n, step, v1, mask)
      put(to + plane * 2, c1, n, step, v2, mask)
      if (m > 3) put(to + plane * 3, d1, n, step, v3, mask)
    }
  }
}

/** One output channel x six quads at a time. */
function single(
  planes: usize,
  steps: usize,
  k: i32,
  w: usize,
  quads: usize,
  end: usize,
  out: usize,
  step: usize,
  bias: usize,
  relu: bool,
): void {
  const stepsEnd = steps + ((<usize>k) << 2)
  while (quads < end) {
    const n = min(6, <i32>(end - quads) / QUAD)
    const x0 = planes + load<usize>(quads)
    const x1 = n > 1 ? planes + load<usize>(quads, 12) : x0
    const x2 = n > 2 ? planes + load<usize>(quads, 24) : x0
    const x3 = n > 3 ? planes + load<usize>(quads, 36) : x0
    const x4 = n > 4 ? planes + load<usize>(quads, 48) : x0
    const x5 = n > 5 ? planes + load<usize>(quads, 60) : x0
    let a0 = f32x4.splat(0)
    let a1 = a0
    let a2 = a0
    let a3 = a0
    let a4 = a0
    let a5 = a0
    let wp = w
    for (let s = steps; s < stepsEnd; s += 4) {
      const at = load<usize>(s)
      const v = v128.load32_splat(wp)
      a0 = madd(v, v128.load(x0 + at), a0)
      a1 = madd(v, v128.load(x1 + at), a1)
      a2 = madd(v, v128.load(x2 + at), a2)
      a3 = madd(v, v128.load(x3 + at), a3)
      a4 = madd(v, v128.load(x4 + at), a4)
      a5 = madd(v, v128.load(x5 + at), a5)
      wp += 4
    }
    const mask = maskOf(relu)
    const v0 = splatBias(bias)
    put(out + load<usize>(quads, 4), a0, load<i32>(quads, 8), step, v0, mask)
    if (n > 1) put(out + load<usize>(quads, 16), a1, load<i32>(quads, 20), step, v0, mask)
    if (n > 2) put(out + load<usize>(quads, 28), a2, load<i32>(quads, 32), step, v0, mask)
    if (n > 3) put(out + load<usize>(quads, 40), a3, load<i32>(quads, 44), step, v0, mask)
    if (n > 4) put(out + load<usize>(quads, 52), a4, load<i32>(quads, 56), step, v0, mask)
    if (n > 5) put(out + load<usize>(quads, 64), a5, load<i32>(quads, 68), step, v0, mask)
    quads += <usize>(n * QUAD)
  }
}

/**
 * Images [first, last) of the instruction: the share of thread `id`. Few images are cut into bands of quads as well.
 * bias: address of one value for each output channel, or 0.
 */
export function direct(
  ip: usize,
  x: usize,
  out: usize,
  first: i32,
  last: i32,
  id: i32,
  count: i32,
  scratch: usize,
  weights: usize,
  bias: usize,
  relu: bool,
): void {
  const images = last - first
  const adjoint = isInput(ip)
  const n = outs(ip)
  const inImage = <usize>(ins(ip) * (adjoint ? word(ip, Conv.OH) * word(ip, Conv.OW) : word(ip, Conv.H) * word(ip, Conv.W))) << 2
  const plane = <usize>(adjoint ? word(ip, Conv.H) * word(ip, Conv.W) : word(ip, Conv.OH) * word(ip, Conv.OW)) << 2
  const step: usize = adjoint ? (<usize>word(ip, Conv.strideX)) << 2 : 4
  const planes = scratch
  const steps = planes + <usize>planeBytes(ip)
  const counts = steps + <usize>stepBytes(ip)
  const quads = counts + <usize>align(passes(ip) * 8)
  const bands = images >= 4 * count ? 1 : 4 * count
  const from = share(images * bands, id, count)
  const to = share(images * bands, id + 1, count)
  if (from >= to) return
  memory.fill(planes, 0, <usize>planeBytes(ip))
  const all = passes(ip)
  const cells = (n & 3) == 3 ? n + 1 : n
  let step0 = steps
  let quad0 = quads
  for (let pass = 0; pass < all; pass++) {
    const k = stepTable(ip, step0, pass)
    const count = quadTable(ip, quad0, pass)
    const at = counts + ((<usize>pass) << 3)
    store<i32>(at, k)
    store<i32>(at, count, 4)
    step0 += (<usize>k) << 2
    quad0 += <usize>(count * QUAD)
  }
  let packed = -1
  for (let item = from; item < to; item++) {
    const image = item / bands
    const band = item - image * bands
    if (packed != image) packPlanes(ip, planes, x + <usize>(first + image) * inImage)
    packed = image
    let w = weights
    step0 = steps
    quad0 = quads
    for (let pass = 0; pass < all; pass++) {
      const k = load<i32>(counts + ((<usize>pass) << 3))
      const quadCount = load<i32>(counts + ((<usize>pass) << 3), 4)
      // Six quads fill both kernels; bands begin at multiples.
      const groups = (quadCount + 5) / 6
      const begin = quad0 + <usize>(share(groups, band, bands) * 6 * QUAD)
      const end = quad0 + <usize>(min(quadCount, share(groups, band + 1, bands) * 6) * QUAD)
      let result = out + <usize>((first + image) * n) * plane
      for (let o = 0; o < cells; ) {
        const b: usize = bias ? bias + ((<usize>o) << 2) : 0
        const channels = o + 4 <= cells ? 4 : 1
        if (channels == 4) four(planes, step0, k, w, begin, end, result, plane, step, min(4, n - o), b, relu)
        else single(planes, step0, k, w, begin, end, result, step, b, relu)
        w += (<usize>(channels * k)) << 2
        result += <usize>channels * plane
        o += channels
      }
      step0 += (<usize>k) << 2
      quad0 += <usize>(quadCount * QUAD)
    }
  }
}
