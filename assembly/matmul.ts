import { biasOf, finish, maskOf, reluOf, splatBias } from './epilogue'
import {
  address,
  All,
  fillRow,
  firstLanes,
  isFinite,
  isListed,
  Listed,
  madd,
  share,
  storePart,
  storeTransposed,
  sumLanes,
  word,
} from './lanes'
import { Matmul } from './words'

/**
 * out[b] = A[b] B[b]. Every element of the result is one chain of multiply-adds over k in ascending order (the dot
 * kernel: four such chains and a fixed tree), whoever computes it, so any partition into threads and blocks gives the
 * same bits.
 *
 * Blocks: 256 of k x 256 columns of B are packed as panels [k][8] (8 KB each, one stays in L1 while 64 rows of A pass
 * by); A is read in place, four rows at a time, or packed as [k][4] when it is stored transposed. The 4 x 8
 * micro-kernel holds its result in eight registers; more of them, or unrolling, makes V8 spill (measured).
 *
 * Steps of k at which all four rows of a packed panel of A are 0 are left out when B is finite: neurons that no image of
 * the batch activates, of which robust networks have many. The bits stay: a chain starts at +0, is never -0, and +-0
 * added to it changes nothing. (With fused multiply-adds a chain whose first product underflows is -0; then the sign of a
 * zero may depend on the partition.)
 */
const KC: i32 = 256
const NC: i32 = 256
const MC: i32 = 64
const PANELS: usize = <usize>(KC * NC * 4)
const ROWS: usize = <usize>(KC * MC * 4)
/** Of every panel of A how many steps it has, and which: byte offsets in a panel of B that is four columns wide. */
const STEPS: usize = <usize>((MC / 4) * (KC + 1) * 4)

/** A first look for zeros takes every so many steps. */
const GLANCE: i32 = 7

export function matmulScratch(_ip: usize): i32 {
  return <i32>(PANELS + ROWS + STEPS)
}

/** Row r of a 4 x 8 result: c0, c1 to the first `n` (1..8) columns at c. */
@inline
function storeRow(c: usize, n: i32, c0: v128, c1: v128): void {
  if (n == 8) {
    v128.store(c, c0)
    v128.store(c, c1, 16)
  } else if (n > 4) {
    v128.store(c, c0)
    storePart(c + 16, c1, n - 4)
  } else if (n == 4) {
    v128.store(c, c0)
  } else {
    storePart(c, c0, n)
  }
}

/**
 * C[m <= 4, n <= 8] (+)= A B over k steps. a0..a3: the rows of A, `as` bytes per step; b: 8 columns of B, `bs` bytes
 * per step. Rows past m repeat a valid one; columns past n hold whatever follows in memory; neither is stored.
 */
function kernel8(
  k: i32,
  a0: usize,
  a1: usize,
  a2: usize,
  a3: usize,
  as: usize,
  b: usize,
  bs: usize,
  c: usize,
  ldc: usize,
  m: i32,
  n: i32,
  first: bool,
): void {
  let c00 = f32x4.splat(0)
  let c01 = c00
  let c10 = c00
  let c11 = c00
  let c20 = c00
  let c21 = c00
  let c30 = c00
  let c31 = c00
  const r1 = c + (m > 1 ? ldc : 0)
  const r2 = r1 + (m > 2 ? ldc : 0)
  const r3 = r2 + (m > 3 ? ldc : 0)
  if (!first) {
    c00 = v128.load(c)
    c01 = v128.load(c, 16)
    c10 = v128.load(r1)
    c11 = v128.load(r1, 16)
    c20 = v128.load(r2)
    c21 = v128.load(r2, 16)
    c30 = v128.load(r3)
    c31 = v128.load(r3, 16)
  }
  for (; k > 0; k--) {
    const b0 = v128.load(b)
    const b1 = v128.load(b, 16)
    let a = v128.load32_splat(a0)
    c00 = madd(a, b0, c00)
    c01 = madd(a, b1, c01)
    a = v128.load32_splat(a1)
    c10 = madd(a, b0, c10)
    c11 = madd(a, b1, c11)
    a = v128.load32_splat(a2)
    c20 = madd(a, b0, c20)
    c21 = madd(a, b1, c21)
    a = v128.load32_splat(a3)
    c30 = madd(a, b0, c30)
    c31 = madd(a, b1, c31)
    a0 += as
    a1 += as
    a2 += as
    a3 += as
    b += bs
  }
  storeRow(c, n, c00, c01)
  if (m > 1) storeRow(r1, n, c10, c11)
  if (m > 2) storeRow(r2, n, c20, c21)
  if (m > 3) storeRow(r3, n, c30, c31)
}

/** The same for at most 4 columns. */
function kernel4(
  k: i32,
  a0: usize,
  a1: usize,
  a2: usize,
  a3: usize,
  as: usize,
  b: usize,
  bs: usize,
  c: usize,
  ldc: usize,
  m: i32,
  n: i32,
  first: bool,
): void {
  let c0 = f32x4.splat(0)
  let c1 = c0
  let c2 = c0
  let c3 = c0
  const r1 = c + (m > 1 ? ldc : 0)
  const r2 = r1 + (m > 2 ? ldc : 0)
  const r3 = r2 + (m > 3 ? ldc : 0)
  if (!first) {
    c0 = v128.load(c)
    c1 = v128.load(r1)
    c2 = v128.load(r2)
    c3 = v128.load(r3)
  }
  for (; k > 0; k--) {
    const b0 = v128.load(b)
    c0 = madd(v128.load32_splat(a0), b0, c0)
    c1 = madd(v128.load32_splat(a1), b0, c1)
    c2 = madd(v128.load32_splat(a2), b0, c2)
    c3 = madd(v128.load32_splat(a3), b0, c3)
    a0 += as
    a1 += as
    a2 += as
    a3 += as
    b += bs
  }
  storeRow(c, n, c0, c0)
  if (m > 1) storeRow(r1, n, c1, c1)
  if (m > 2) storeRow(r2, n, c2, c2)
  if (m > 3) storeRow(r3, n, c3, c3)
}

/** The 4 x 8 kernel on a packed panel of A, [k][4]: one pointer instead of four. Listed: on the steps that `list` names, the panel having no others. */
function kernelPacked<T>(
  k: i32,
  a: usize,
  list: usize,
  b: usize,
  c: usize,
  ldc: usize,
  m: i32,
  n: i32,
  first: bool,
): void {
  let c00 = f32x4.splat(0)
  let c01 = c00
  let c10 = c00
  let c11 = c00
  let c20 = c00
  let c21 = c00
  let c30 = c00
  let c31 = c00
  const r1 = c + (m > 1 ? ldc : 0)
  const r2 = r1 + (m > 2 ? ldc : 0)
  const r3 = r2 + (m > 3 ? ldc : 0)
  if (!first) {
    c00 = v128.load(c)
    c01 = v128.load(c, 16)
    c10 = v128.load(r1)
    c11 = v128.load(r1, 16)
    c20 = v128.load(r2)
    c21 = v128.load(r2, 16)
    c30 = v128.load(r3)
    c31 = v128.load(r3, 16)
  }
  for (; k > 0; k--) {
    const at = isListed<T>() ? b + (<usize>load<u32>(list) << 1) : b
    const b0 = v128.load(at)
    const b1 = v128.load(at, 16)
    let x = v128.load32_splat(a)
    c00 = madd(x, b0, c00)
    c01 = madd(x, b1, c01)
    x = v128.load32_splat(a, 4)
    c10 = madd(x, b0, c10)
    c11 = madd(x, b1, c11)
    x = v128.load32_splat(a, 8)
    c20 = madd(x, b0, c20)
    c21 = madd(x, b1, c21)
    x = v128.load32_splat(a, 12)
    c30 = madd(x, b0, c30)
    c31 = madd(x, b1, c31)
    a += 16
    if (isListed<T>()) list += 4
    else b += 32
  }
  storeRow(c, n, c00, c01)
  if (m > 1) storeRow(r1, n, c10, c11)
  if (m > 2) storeRow(r2, n, c20, c21)
  if (m > 3) storeRow(r3, n, c30, c31)
}

/** The listed steps for at most 4 columns. */
function kernelListed4(k: i32, a: usize, list: usize, b: usize, c: usize, ldc: usize, m: i32, n: i32, first: bool): void {
  let c0 = f32x4.splat(0)
  let c1 = c0
  let c2 = c0
  let c3 = c0
  const r1 = c + (m > 1 ? ldc : 0)
  const r2 = r1 + (m > 2 ? ldc : 0)
  const r3 = r2 + (m > 3 ? ldc : 0)
  if (!first) {
    c0 = v128.load(c)
    c1 = v128.load(r1)
    c2 = v128.load(r2)
    c3 = v128.load(r3)
  }
  for (; k > 0; k--) {
    const b0 = v128.load(b + <usize>load<u32>(list))
    c0 = madd(v128.load32_splat(a), b0, c0)
    c1 = madd(v128.load32_splat(a, 4), b0, c1)
    c2 = madd(v128.load32_splat(a, 8), b0, c2)
    c3 = madd(v128.load32_splat(a, 12), b0, c3)
    a += 16
    list += 4
  }
  storeRow(c, n, c0, c0)
  if (m > 1) storeRow(r1, n, c1, c1)
  if (m > 2) storeRow(r2, n, c2, c2)
  if (m > 3) storeRow(r3, n, c3, c3)
}

/** Of every `by`th step of a panel of A, whether at least an eighth is all 0 (NaN is not). */
function hasZeros(a: usize, k: i32, by: i32): bool {
  const zero = f32x4.splat(0)
  let filled = 0
  let n = 0
  for (; k > 0; k -= by) {
    n++
    filled += i32(v128.any_true(f32x4.ne(v128.load(a), zero)))
    a += (<usize>by) << 4
  }
  return filled <= (n * 7) >> 3
}

/** Moves the steps of a panel of A that are not all 0 together, lists them, and returns how many they are. */
function compress(a: usize, k: i32, list: usize): i32 {
  const zero = f32x4.splat(0)
  const from = a
  let to = a
  for (let p = 0; p < k; p++) {
    const v = v128.load(a)
    v128.store(to, v)
    store<i32>(list, p << 4)
    const keeps = <usize>v128.any_true(f32x4.ne(v, zero))
    to += keeps << 4
    list += keeps << 2
    a += 16
  }
  return <i32>((to - from) >> 4)
}

/** Panels [k][8] (the last [k][4] when at most 4 columns are left) of B[k0.., j0..]; ld in elements. */
function packB(dst: usize, b: usize, ld: i32, trans: bool, k: i32, n: i32): void {
  const step = (<usize>ld) << 2
  for (let j = 0; j < n; j += 8) {
    const left = n - j
    const width = left > 4 ? 8 : 4
    const bytes = (<usize>width) << 2
    if (!trans) {
      let src = b + ((<usize>j) << 2)
      for (let p = 0; p < k; p++) {
        v128.store(dst, v128.load(src))
        if (width == 8) v128.store(dst, v128.load(src, 16), 16)
        src += step
        dst += bytes
      }
    } else {
      for (let h = 0; h < width; h += 4) {
        packTransposed(dst + ((<usize>h) << 2), bytes, b + <usize>(j + h) * step, step, min(4, left - h), k)
      }
      dst += <usize>k * bytes
    }
  }
}

/** dst[p][0..4) = src[0..4)[p] for p in 0..k, `bytes` between the p; rows past m repeat the last one. */
function packTransposed(dst: usize, bytes: usize, src: usize, step: usize, m: i32, k: i32): void {
  if (m <= 0) return
  const s1 = src + (m > 1 ? step : 0)
  const s2 = s1 + (m > 2 ? step : 0)
  const s3 = s2 + (m > 3 ? step : 0)
  let p = 0
  let at: usize = 0
  for (; p + 4 <= k; p += 4) {
    storeTransposed(dst, bytes, v128.load(src + at), v128.load(s1 + at), v128.load(s2 + at), v128.load(s3 + at))
    dst += bytes << 2
    at += 16
  }
  for (; p < k; p++) {
    store<f32>(dst, load<f32>(src + at))
    store<f32>(dst, load<f32>(s1 + at), 4)
    store<f32>(dst, load<f32>(s2 + at), 8)
    store<f32>(dst, load<f32>(s3 + at), 12)
    dst += bytes
    at += 4
  }
}

/** Panels [k][4] of the transposed A: [k, m] -> rows i0..i0+m; columns past m hold what follows in memory. */
function packA(dst: usize, a: usize, ld: i32, m: i32, k: i32): void {
  const step = (<usize>ld) << 2
  for (let i = 0; i < m; i += 4) {
    let src = a + ((<usize>i) << 2)
    for (let p = 0; p < k; p++) {
      v128.store(dst, v128.load(src))
      src += step
      dst += 16
    }
  }
}

/** Bias and relu on rows x columns of C, while it is in the cache. */
function finishBlock(c: usize, cs: usize, rows: i32, cols: i32, bias: usize, relu: bool): void {
  const mask = maskOf(relu)
  const none = splatBias(0)
  const whole = (<usize>(cols & ~3)) << 2
  const r = cols & 3
  for (let i = 0; i < rows; i++) {
    for (let at: usize = 0; at < whole; at += 16) {
      v128.store(c + at, finish(v128.load(c + at), bias ? v128.load(bias + at) : none, mask))
    }
    if (r) storePart(c + whole, finish(v128.load(c + whole), bias ? v128.load(bias + whole) : none, mask), r)
    c += cs
  }
}

/** Rows [i0, i1) x columns [j0, j1) of C = A B; bias: of the columns, or 0. */
function gemm(
  a: usize,
  lda: i32,
  transA: bool,
  b: usize,
  ldb: i32,
  transB: bool,
  c: usize,
  ldc: i32,
  i0: i32,
  i1: i32,
  j0: i32,
  j1: i32,
  k: i32,
  panels: usize,
  bias: usize,
  relu: bool,
): void {
  const rowPanels = panels + PANELS
  const counts = rowPanels + ROWS
  const lists = counts + <usize>MC
  const cs = (<usize>ldc) << 2
  const finishes = bias != 0 || relu
  if (k == 0) {
    for (let i = i0; i < i1; i++) fillRow(c + <usize>i * cs + ((<usize>j0) << 2), f32x4.splat(0), j1 - j0)
    const at = (<usize>j0) << 2
    finishBlock(c + <usize>i0 * cs + at, cs, i1 - i0, j1 - j0, bias ? bias + at : 0, relu)
  }
  // One pointer instead of four in the kernel repays the packing of A unless B is narrow.
  const packsA = transA || j1 - j0 >= 48
  // Few rows do not repay the packing of B when it can be read in place.
  const inPlace = !transB && i1 - i0 < 8
  for (let jc = j0; jc < j1; jc += NC) {
    const nc = min(NC, j1 - jc)
    for (let kc = 0; kc < k; kc += KC) {
      const kn = min(KC, k - kc)
      const bAt = b + ((<usize>(transB ? jc * ldb + kc : kc * ldb + jc)) << 2)
      if (!inPlace) packB(panels, bAt, ldb, transB, kn, nc)
      // Whether B is finite here; looked at when a panel of A would leave steps out.
      let finite = -1
      for (let ic = i0; ic < i1; ic += MC) {
        const mc = min(MC, i1 - ic)
        const aAt = a + ((<usize>(transA ? kc * lda + ic : ic * lda + kc)) << 2)
        if (transA) {
          packA(rowPanels, aAt, lda, mc, kn)
        } else if (packsA) {
          for (let i = 0; i < mc; i += 4) {
            const row = aAt + ((<usize>(i * lda)) << 2)
            packTransposed(rowPanels + ((<usize>(i * kn)) << 2), 16, row, (<usize>lda) << 2, min(4, mc - i), kn)
          }
        }
        if (packsA && !inPlace) {
          for (let i = 0; i < mc; i += 4) {
            const row = rowPanels + ((<usize>(i * kn)) << 2)
            let steps = kn
            if (finite != 0 && hasZeros(row, kn, GLANCE) && hasZeros(row, kn, 1)) {
              if (finite < 0) finite = i32(isFinite(panels, ((nc + 3) & ~3) * kn))
              if (finite > 0) steps = compress(row, kn, lists + <usize>(i * KC))
            }
            store<i32>(counts + <usize>i, steps)
          }
        }
        for (let j = 0; j < nc; j += 8) {
          const n = min(8, nc - j)
          const panel = inPlace ? bAt + ((<usize>j) << 2) : panels + ((<usize>(j * kn)) << 2)
          const bs: usize = inPlace ? (<usize>ldb) << 2 : n > 4 ? 32 : 16
          for (let i = 0; i < mc; i += 4) {
            const m = min(4, mc - i)
            const out = c + <usize>(ic + i) * cs + ((<usize>(jc + j)) << 2)
            if (packsA && !inPlace) {
              const steps = load<i32>(counts + <usize>i)
              if (steps < kn) {
                const row = rowPanels + ((<usize>(i * kn)) << 2)
                const list = lists + <usize>(i * KC)
                if (n > 4) kernelPacked<Listed>(steps, row, list, panel, out, cs, m, n, kc == 0)
                else kernelListed4(steps, row, list, panel, out, cs, m, n, kc == 0)
                continue
              }
            }
            if (packsA && n > 4 && !inPlace) {
              kernelPacked<All>(kn, rowPanels + ((<usize>(i * kn)) << 2), 0, panel, out, cs, m, n, kc == 0)
              continue
            }
            const step: usize = packsA ? 4 : (<usize>lda) << 2
            const a0 = packsA ? rowPanels + ((<usize>(i * kn)) << 2) : aAt + ((<usize>(i * lda)) << 2)
            const a1 = a0 + (m > 1 ? step : 0)
            const a2 = a1 + (m > 2 ? step : 0)
            const a3 = a2 + (m > 3 ? step : 0)
            const as: usize = packsA ? 16 : 4
            if (n > 4) kernel8(kn, a0, a1, a2, a3, as, panel, bs, out, cs, m, n, kc == 0)
            else kernel4(kn, a0, a1, a2, a3, as, panel, bs, out, cs, m, n, kc == 0)
          }
        }
        if (finishes && kc + KC >= k) {
          const at = (<usize>jc) << 2
          finishBlock(c + <usize>ic * cs + at, cs, mc, nc, bias ? bias + at : 0, relu)
        }
      }
    }
  }
}

/**
 * x . y over k elements: four chains (element e in chain e % 4) and the fixed tree of sumLanes. Two rows against four.
 */
function dots(
  x0: usize,
  x1: usize,
  y: usize,
  step: usize,
  k: i32,
  out0: usize,
  out1: usize,
  outStep: usize,
): void {
  let s00 = f32x4.splat(0)
  let s01 = s00
  let s02 = s00
  let s03 = s00
  let s10 = s00
  let s11 = s00
  let s12 = s00
  let s13 = s00
  let y1 = y + step
  let y2 = y1 + step
  let y3 = y2 + step
  for (; k >= 4; k -= 4) {
    const a = v128.load(x0)
    const b = v128.load(x1)
    let v = v128.load(y)
    s00 = madd(a, v, s00)
    s10 = madd(b, v, s10)
    v = v128.load(y1)
    s01 = madd(a, v, s01)
    s11 = madd(b, v, s11)
    v = v128.load(y2)
    s02 = madd(a, v, s02)
    s12 = madd(b, v, s12)
    v = v128.load(y3)
    s03 = madd(a, v, s03)
    s13 = madd(b, v, s13)
    x0 += 16
    x1 += 16
    y += 16
    y1 += 16
    y2 += 16
    y3 += 16
  }
  if (k > 0) {
    const mask = firstLanes(k)
    const a = v128.and(v128.load(x0), mask)
    const b = v128.and(v128.load(x1), mask)
    let v = v128.and(v128.load(y), mask)
    s00 = madd(a, v, s00)
    s10 = madd(b, v, s10)
    v = v128.and(v128.load(y1), mask)
    s01 = madd(a, v, s01)
    s11 = madd(b, v, s11)
    v = v128.and(v128.load(y2), mask)
    s02 = madd(a, v, s02)
    s12 = madd(b, v, s12)
    v = v128.and(v128.load(y3), mask)
    s03 = madd(a, v, s03)
    s13 = madd(b, v, s13)
  }
  store<f32>(out0, sumLanes(s00))
  store<f32>(out0 + outStep, sumLanes(s01))
  store<f32>(out0 + outStep * 2, sumLanes(s02))
  store<f32>(out0 + outStep * 3, sumLanes(s03))
  store<f32>(out1, sumLanes(s10))
  store<f32>(out1 + outStep, sumLanes(s11))
  store<f32>(out1 + outStep * 2, sumLanes(s12))
  store<f32>(out1 + outStep * 3, sumLanes(s13))
}

/** One such dot product. */
function dot(x: usize, y: usize, k: i32): f32 {
  let s = f32x4.splat(0)
  for (; k >= 4; k -= 4) {
    s = madd(v128.load(x), v128.load(y), s)
    x += 16
    y += 16
  }
  if (k > 0) {
    const mask = firstLanes(k)
    s = madd(v128.and(v128.load(x), mask), v128.and(v128.load(y), mask), s)
  }
  return sumLanes(s)
}

/** out[i xo + j yo] = x[i] . y[j] for i in 0..p, j in [j0, j1): both operands contiguous along k. */
function allDots(
  x: usize,
  ldx: i32,
  p: i32,
  y: usize,
  ldy: i32,
  j0: i32,
  j1: i32,
  k: i32,
  out: usize,
  xo: i32,
  yo: i32,
): void {
  const xs = (<usize>ldx) << 2
  const ys = (<usize>ldy) << 2
  const xOut = (<usize>xo) << 2
  const yOut = (<usize>yo) << 2
  let j = j0
  for (; j + 4 <= j1; j += 4) {
    for (let i = 0; i < p; i += 2) {
      const more: usize = i + 1 < p ? 1 : 0
      const to = out + <usize>i * xOut + <usize>j * yOut
      const from = x + <usize>i * xs
      dots(from, from + more * xs, y + <usize>j * ys, ys, k, to, to + more * xOut, yOut)
    }
  }
  for (; j < j1; j++) {
    for (let i = 0; i < p; i++) {
      store<f32>(out + <usize>i * xOut + <usize>j * yOut, dot(x + <usize>i * xs, y + <usize>j * ys, k))
    }
  }
}

/**
 * Into how many column ranges the result is cut when `count` threads share it (the rest of the threads cut rows): the
 * one that makes the largest share cheapest, packing included (8 multiply-adds' time per packed element).
 */
function columnRanges(m: i32, n: i32, count: i32, transA: bool): i32 {
  let best = 1
  let least: i64 = i64.MAX_VALUE
  for (let tc = 1; tc <= count; tc++) {
    const tr = count / tc
    const rows: i64 = ((m + tr * 4 - 1) / (tr * 4)) * 4
    const cols: i64 = ((n + tc * 8 - 1) / (tc * 8)) * 8
    const cost = rows * cols + cols * 8 + (transA ? rows * 8 : 0)
    if (cost < least) {
      least = cost
      best = tc
    }
  }
  return best
}

/** A share that starts and ends at multiples of `unit`. */
@inline
function border(total: i32, unit: i32, id: i32, count: i32): i32 {
  return min(total, share((total + unit - 1) / unit, id, count) * unit)
}

export function matmul(ip: usize, slots: usize, id: i32, count: i32, scratch: usize): void {
  const a = address(ip, Matmul.a, slots)
  const b = address(ip, Matmul.b, slots)
  const out = address(ip, Matmul.out, slots)
  let m = word(ip, Matmul.m)
  const k = word(ip, Matmul.k)
  const n = word(ip, Matmul.n)
  const transA = word(ip, Matmul.transA) != 0
  const transB = word(ip, Matmul.transB) != 0
  let batch = word(ip, Matmul.batch)
  const strideA = word(ip, Matmul.strideA)
  const strideB = word(ip, Matmul.strideB)
  const strideOut = word(ip, Matmul.strideOut)
  // Rows of all batches against one B are one product.
  if (batch > 1 && strideB == 0 && !transA && strideA == m * k && strideOut == m * n) {
    m *= batch
    batch = 1
  }
  const bias = biasOf(ip, Matmul.end, slots)
  const relu = reluOf(ip, Matmul.end)
  const whole = batch >= count
  const first = whole ? share(batch, id, count) : 0
  const last = whole ? share(batch, id + 1, count) : batch
  const me = whole ? 0 : id
  const all = whole ? 1 : count
  const lda = transA ? m : k
  const ldb = transB ? k : n
  for (let e = first; e < last; e++) {
    const x = a + ((<usize>(e * strideA)) << 2)
    const y = b + ((<usize>(e * strideB)) << 2)
    const to = out + ((<usize>(e * strideOut)) << 2)
    if (transB && !transA && m < 8) {
      const from = border(n, 4, me, all)
      const end = border(n, 4, me + 1, all)
      allDots(x, k, m, y, k, from, end, k, to, n, 1)
      if (bias != 0 || relu) {
        const at = (<usize>from) << 2
        finishBlock(to + at, (<usize>n) << 2, m, end - from, bias ? bias + at : 0, relu)
      }
    } else if (n == 1 && !transA) {
      const from = border(m, 4, me, all)
      const end = border(m, 4, me + 1, all)
      allDots(y, k, 1, x, k, from, end, k, to, 1, 1)
      if (bias != 0 || relu) finishBlock(to + ((<usize>from) << 2), 4, end - from, 1, bias, relu)
    } else {
      const tc = columnRanges(m, n, all, transA)
      const tr = all / tc
      if (me >= tc * tr) continue
      const row = me / tc
      const col = me % tc
      gemm(
        x,
        lda,
        transA,
        y,
        ldb,
        transB,
        to,
        n,
        border(m, 4, row, tr),
        border(m, 4, row + 1, tr),
        border(n, 8, col, tc),
        border(n, 8, col + 1, tc),
        k,
        scratch,
        bias,
        relu,
      )
    }
  }
}
