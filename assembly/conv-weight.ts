import { packTile } from './conv-tile'
import { C, DILATION_X, DILATION_Y, H, KH, KW, N, O, OH, OW, PAD_LEFT, PAD_TOP, STRIDE_X, STRIDE_Y, W } from './conv-words'
import { address, madd, share, sumLanes, word } from './lanes'
import { barrier } from './threads'

/**
 * conv2dWeight: w[o, c, p, q] = sum over n, i, j of y[n, o, i, j] x[n, c, i s - pad + p d, j s - pad + q d].
 *
 * Lanes are images: a block of 2 output x 4 input channels (6 x 1 when there are fewer than three input channels) of
 * one tap runs over the positions whose partner lies inside x, on tiles of four images (conv-tile.ts). Image groups are
 * cut into at most 16 chunks by the shape alone; each chunk has its own accumulators of four lanes in shared scratch,
 * which a fixed tree folds at the end. (Larger blocks do not fit the registers together with the loads that V8 hoists.)
 */
const LANES: i32 = 4
const CELL: usize = 16

/** Whether blocks are 6 output channels x 1 input channel. */
@inline
function narrow(ip: usize): bool {
  return word(ip, C) < 3
}

@inline
function outBlocks(ip: usize): i32 {
  return narrow(ip) ? (word(ip, O) + 5) / 6 : (word(ip, O) + 1) >> 1
}

@inline
function inBlocks(ip: usize): i32 {
  return narrow(ip) ? word(ip, C) : (word(ip, C) + 3) >> 2
}

/** Bytes of the accumulators of one chunk: [input block][output block][tap][8] x 4 lanes. */
@inline
function chunkBytes(ip: usize): i32 {
  return outBlocks(ip) * inBlocks(ip) * word(ip, KH) * word(ip, KW) * 128
}

@inline
function chunkCount(ip: usize): i32 {
  let n = 16
  while (n > 2 && n * chunkBytes(ip) > 1 << 25) n >>= 1
  return max(1, min(n, (word(ip, N) + LANES - 1) / LANES))
}

/**
 * Cells between the positions of a tile: an odd number of cache lines, so that positions do not compete for a few sets.
 */
@inline
function cellsOf(channels: i32): i32 {
  return channels < 4 ? channels : (((channels + 3) >> 2) | 1) * 4
}

@inline
function tileBytes(channels: i32, plane: i32): i32 {
  return (cellsOf(channels) * plane + 16) * <i32>CELL
}

export function convWeightScratch(ip: usize): i32 {
  return tileBytes(word(ip, C), word(ip, H) * word(ip, W)) + tileBytes(word(ip, O), word(ip, OH) * word(ip, OW)) + 64
}

export function convWeightShared(ip: usize): i32 {
  return chunkBytes(ip) * chunkCount(ip)
}

/** The first i >= 0 with i * stride >= -offset. */
@inline
function firstInside(offset: i32, stride: i32): i32 {
  return offset >= 0 ? 0 : (stride - 1 - offset) / stride
}

/** One past the last i < n with i * stride + offset < extent. */
@inline
function endInside(offset: i32, stride: i32, extent: i32, n: i32): i32 {
  const room = extent - 1 - offset
  return room < 0 ? 0 : min(n, room / stride + 1)
}

/** acc[o][c] (+)= y[o] x[c] over ni x nj positions, o in 0..2, c in 0..4. */
function block24(
  acc: usize,
  first: bool,
  x: usize,
  xRow: usize,
  xCol: usize,
  y: usize,
  yRow: usize,
  yCol: usize,
  ni: i32,
  nj: i32,
): void {
  let s0 = f32x4.splat(0)
  let s1 = s0
  let s2 = s0
  let s3 = s0
  let s4 = s0
  let s5 = s0
  let s6 = s0
  let s7 = s0
  if (!first) {
    s0 = v128.load(acc)
    s1 = v128.load(acc, 16)
    s2 = v128.load(acc, 32)
    s3 = v128.load(acc, 48)
    s4 = v128.load(acc, 64)
    s5 = v128.load(acc, 80)
    s6 = v128.load(acc, 96)
    s7 = v128.load(acc, 112)
  }
  for (; ni > 0; ni--) {
    let xp = x
    let yp = y
    for (let j = nj; j > 0; j--) {
      const a = v128.load(yp)
      const b = v128.load(yp, 16)
      let v = v128.load(xp)
      s0 = madd(a, v, s0)
      s4 = madd(b, v, s4)
      v = v128.load(xp, 16)
      s1 = madd(a, v, s1)
      s5 = madd(b, v, s5)
      v = v128.load(xp, 32)
      s2 = madd(a, v, s2)
      s6 = madd(b, v, s6)
      v = v128.load(xp, 48)
      s3 = madd(a, v, s3)
      s7 = madd(b, v, s7)
      xp += xCol
      yp += yCol
    }
    x += xRow
    y += yRow
  }
  v128.store(acc, s0)
  v128.store(acc, s1, 16)
  v128.store(acc, s2, 32)
  v128.store(acc, s3, 48)
  v128.store(acc, s4, 64)
  v128.store(acc, s5, 80)
  v128.store(acc, s6, 96)
  v128.store(acc, s7, 112)
}

/** acc[o] (+)= y[o] x over ni x nj positions, o in 0..6. */
function block61(
  acc: usize,
  first: bool,
  x: usize,
  xRow: usize,
  xCol: usize,
  y: usize,
  yRow: usize,
  yCol: usize,
  ni: i32,
  nj: i32,
): void {
  let s0 = f32x4.splat(0)
  let s1 = s0
  let s2 = s0
  let s3 = s0
  let s4 = s0
  let s5 = s0
  if (!first) {
    s0 = v128.load(acc)
    s1 = v128.load(acc, 16)
    s2 = v128.load(acc, 32)
    s3 = v128.load(acc, 48)
    s4 = v128.load(acc, 64)
    s5 = v128.load(acc, 80)
  }
  for (; ni > 0; ni--) {
    let xp = x
    let yp = y
    for (let j = nj; j > 0; j--) {
      const v = v128.load(xp)
      s0 = madd(v128.load(yp), v, s0)
      s1 = madd(v128.load(yp, 16), v, s1)
      s2 = madd(v128.load(yp, 32), v, s2)
      s3 = madd(v128.load(yp, 48), v, s3)
      s4 = madd(v128.load(yp, 64), v, s4)
      s5 = madd(v128.load(yp, 80), v, s5)
      xp += xCol
      yp += yCol
    }
    x += xRow
    y += yRow
  }
  v128.store(acc, s0)
  v128.store(acc, s1, 16)
  v128.store(acc, s2, 32)
  v128.store(acc, s3, 48)
  v128.store(acc, s4, 64)
  v128.store(acc, s5, 80)
}

/** Output blocks [from, to) of all input blocks and taps for one packed image group. */
function convGroup(ip: usize, acc: usize, first: bool, xTile: usize, yTile: usize, from: i32, to: i32): void {
  const xCells = cellsOf(word(ip, C))
  const yCells = cellsOf(word(ip, O))
  const width = word(ip, W)
  const outWidth = word(ip, OW)
  const taps = word(ip, KH) * word(ip, KW)
  const sy = word(ip, STRIDE_Y)
  const sx = word(ip, STRIDE_X)
  const blocks = outBlocks(ip)
  const thin = narrow(ip)
  const xRow = <usize>(sy * width * xCells) * CELL
  const xCol = <usize>(sx * xCells) * CELL
  const yRow = <usize>(outWidth * yCells) * CELL
  const yCol = <usize>yCells * CELL
  for (let ci = 0; ci < inBlocks(ip); ci++) {
    for (let oi = from; oi < to; oi++) {
      let at = acc + <usize>((ci * blocks + oi) * taps) * 128
      for (let p = 0; p < word(ip, KH); p++) {
        const dy = p * word(ip, DILATION_Y) - word(ip, PAD_TOP)
        const i0 = firstInside(dy, sy)
        const ni = endInside(dy, sy, word(ip, H), word(ip, OH)) - i0
        for (let q = 0; q < word(ip, KW); q++) {
          const dx = q * word(ip, DILATION_X) - word(ip, PAD_LEFT)
          const j0 = firstInside(dx, sx)
          const nj = endInside(dx, sx, width, outWidth) - j0
          const xCell = ((i0 * sy + dy) * width + j0 * sx + dx) * xCells + (thin ? ci : ci * 4)
          const yCell = (i0 * outWidth + j0) * yCells + (thin ? oi * 6 : oi * 2)
          const x = xTile + <usize>xCell * CELL
          const y = yTile + <usize>yCell * CELL
          // No loop runs where ni or nj is not positive; the sums are stored all the same.
          if (thin) block61(at, first, x, xRow, xCol, y, yRow, yCol, ni, nj)
          else block24(at, first, x, xRow, xCol, y, yRow, yCol, ni, nj)
          at += 128
        }
      }
    }
  }
}

export function convWeight(ip: usize, slots: usize, id: i32, count: i32, scratch: usize, shared: usize): void {
  const x = address(ip, 3, slots)
  const y = address(ip, 4, slots)
  const out = address(ip, 5, slots)
  const n = word(ip, N)
  const ins = word(ip, C)
  const outs = word(ip, O)
  const xPlane = word(ip, H) * word(ip, W)
  const yPlane = word(ip, OH) * word(ip, OW)
  const xTile = scratch
  const yTile = scratch + <usize>((tileBytes(ins, xPlane) + 63) & ~63)
  const groups = (n + LANES - 1) / LANES
  const chunks = chunkCount(ip)
  const bytes = <usize>chunkBytes(ip)
  const blocks = outBlocks(ip)
  // With fewer chunks than threads the output blocks of a chunk are shared out as well.
  const parts = min(blocks, (count + chunks - 1) / chunks)
  // Blocks reach into cells without a channel; what stands there is dropped, but must not be subnormal, which is slow.
  memory.fill(scratch, 0, <usize>convWeightScratch(ip))
  const last = share(chunks * parts, id + 1, count)
  for (let item = share(chunks * parts, id, count); item < last; item++) {
    const chunk = item / parts
    const part = item - chunk * parts
    const acc = shared + <usize>chunk * bytes
    const g0 = share(groups, chunk, chunks)
    const g1 = share(groups, chunk + 1, chunks)
    for (let g = g0; g < max(g1, g0 + 1); g++) {
      const images = max(0, min(LANES, n - g * LANES))
      packTile(xTile, x + ((<usize>(g * LANES * ins * xPlane)) << 2), images, ins, xPlane, cellsOf(ins), LANES)
      packTile(yTile, y + ((<usize>(g * LANES * outs * yPlane)) << 2), images, outs, yPlane, cellsOf(outs), LANES)
      convGroup(ip, acc, g == g0, xTile, yTile, share(blocks, part, parts), share(blocks, part + 1, parts))
    }
  }
  barrier(count)
  const taps = word(ip, KH) * word(ip, KW)
  const end = share(outs, id + 1, count)
  for (let o = share(outs, id, count); o < end; o++) {
    for (let c = 0; c < ins; c++) {
      const place = narrow(ip)
        ? ((c * blocks + o / 6) * taps) * 8 + (o % 6)
        : (((c >> 2) * blocks + (o >> 1)) * taps) * 8 + (o & 1) * 4 + (c & 3)
      for (let t = 0; t < taps; t++) {
        const acc = shared + ((<usize>(place + t * 8)) << 4)
        let sum = v128.load(acc)
        for (let k = 1; k < chunks; k++) sum = f32x4.add(sum, v128.load(acc + <usize>k * bytes))
        store<f32>(out + ((<usize>((o * ins + c) * taps + t)) << 2), sumLanes(sum))
      }
    }
  }
}
