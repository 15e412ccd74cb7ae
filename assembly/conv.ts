import { packTile, unpackTile } from './conv-tile'
import { direct, directScratch, directShared, packDirect } from './conv-direct'
import { biasOf, finish, maskOf, reluOf, splatBias } from './epilogue'
import { address, All, isFinite, isListed, Listed, madd, share, word } from './lanes'
import { barrier } from './threads'
import { Conv, Header, Opcode } from './words'

/**
 * Convolutions without im2col: an indirect matrix product on tiles of eight images, [position][channel][8]
 * (conv-tile.ts). Forward and input-adjoint are one algorithm, "for every output position, sum over the taps that fall
 * inside the other plane", told apart by two small tables:
 *
 *   row table, per output row:    n, then n x (byte offset of the input row, byte offset of the weight row)
 *   column table, per output col: n, then n x (byte offset of the first input column, of its weights, steps)
 *
 * A run of taps whose input cells and weights both follow each other is one entry; a step is one input channel of one
 * tap. Padding has no entry, so a NaN weight never meets it. Weights are packed [block][p][q'][input channel][4 output
 * channels], q' an order of the columns in which the taps of one output column are neighbours (for stride s: q mod s,
 * then descending).
 *
 * Each output element is one chain over (p, q', channel), whoever computes it.
 *
 * Cells that are 0 in all images of a tile are left out where they are many and the weights are finite; a chain is never
 * -0, so the bits stay (see matmul.ts). The tile then holds the others alone; `list` has the offset of their weights, and
 * `starts` for every cell how many of the others come before it.
 *
 * Where tiles do not pay, images go one by one instead (conv-direct.ts): all of them where few channels
 * meet large maps, else those of a last group that would leave most lanes empty.
 */

/** Images in a tile, and bytes of one channel of one position there. */
const LANES: i32 = 8
/** The most images of a last group that are cheaper one by one (measured: one costs a third of a tile). */
const MAX_REST: i32 = 2
const CELL: usize = 32
/** A first look for zeros takes every so many cells. */
const GLANCE: i32 = 7

@inline
function isInput(ip: usize): bool {
  return word(ip, Header.opcode) == Opcode.conv2dInput
}

/** Cells per output position: four channels to a block, one or two left-over channels on their own. */
@inline
function outCells(channels: i32): i32 {
  return (channels & 3) == 3 ? channels + 1 : channels
}

@inline
function align(bytes: i32): i32 {
  return (bytes + 63) & ~63
}

// --------------------------------------------------------------------------------------------------------------
// scratch

@inline
function rowBytes(ip: usize): i32 {
  return 4 + word(ip, Conv.KH) * 8
}

@inline
function colBytes(ip: usize): i32 {
  return 4 + word(ip, Conv.KW) * 12
}

@inline
function inTileBytes(ip: usize): i32 {
  return align((inCells(ip) + 8) * <i32>CELL)
}

@inline
function outTileBytes(ip: usize): i32 {
  if (isInput(ip)) return align((outCells(word(ip, Conv.C)) * word(ip, Conv.H) * word(ip, Conv.W) + 8) * <i32>CELL)
  return align((outCells(word(ip, Conv.O)) * word(ip, Conv.OH) * word(ip, Conv.OW) + 8) * <i32>CELL)
}

@inline
function outHeight(ip: usize): i32 {
  return isInput(ip) ? word(ip, Conv.H) : word(ip, Conv.OH)
}

@inline
function outWidth(ip: usize): i32 {
  return isInput(ip) ? word(ip, Conv.W) : word(ip, Conv.OW)
}

@inline
function inCells(ip: usize): i32 {
  return isInput(ip) ? word(ip, Conv.O) * word(ip, Conv.OH) * word(ip, Conv.OW) : word(ip, Conv.C) * word(ip, Conv.H) * word(ip, Conv.W)
}

/** Bytes of `list` and of `starts`. */
@inline
function listBytes(ip: usize): i32 {
  return align((inCells(ip) + 1) * 4)
}

/** Whether a cell meets so many weights that looking for zeros is cheap: at least 8 blocks of them. */
@inline
function mayList(ip: usize): bool {
  const outs = isInput(ip) ? word(ip, Conv.C) : word(ip, Conv.O)
  const taps = (word(ip, Conv.KH) * word(ip, Conv.KW)) / (isInput(ip) ? 1 : word(ip, Conv.strideY) * word(ip, Conv.strideX))
  return (outCells(outs) & 3) == 0 && (outCells(outs) >> 2) * taps >= 8
}

/** How many of the images go by tiles, when all weights are finite. */
@inline
function tiledImages(ip: usize): i32 {
  const n = word(ip, Conv.N)
  const rest = n % LANES
  if (!isInput(ip) && word(ip, Conv.C) < 3 && word(ip, Conv.OH) * word(ip, Conv.OW) >= 64) return 0
  return rest <= MAX_REST ? n - rest : n
}

/** Scratch of one thread: the two tables, the order of the columns, groups of columns, an input and an output tile, `list`, `starts`. */
export function convScratch(ip: usize): i32 {
  return (
    align(outHeight(ip) * rowBytes(ip)) +
    align(outWidth(ip) * colBytes(ip)) +
    align(word(ip, Conv.KW) * 4) +
    align(outWidth(ip) * 12 + 4) +
    inTileBytes(ip) +
    outTileBytes(ip) +
    2 * listBytes(ip) +
    directScratch(ip)
  )
}

/** Shared: the packed weights of tiles, then those of single images. */
export function convShared(ip: usize): i32 {
  return tileWeights(ip) + directShared(ip)
}

@inline
function tileWeights(ip: usize): i32 {
  return align((word(ip, Conv.O) + 4) * (word(ip, Conv.C) + 4) * word(ip, Conv.KH) * word(ip, Conv.KW) * 4)
}

// ---------------------------------------------------------------------------------------------------------------
// tables

/** order[q] = place of weight column q; columns congruent modulo the stride are neighbours, descending. */
function columnOrder(ip: usize, order: usize): void {
  const n = word(ip, Conv.KW)
  const s = isInput(ip) ? word(ip, Conv.strideX) : 0
  let at = 0
  if (s == 0) {
    for (let q = 0; q < n; q++) store<i32>(order + ((<usize>q) << 2), q)
    return
  }
  for (let r = 0; r < min(s, n); r++) {
    for (let q = r + ((n - 1 - r) / s) * s; q >= 0; q -= s) store<i32>(order + ((<usize>q) << 2), at++)
  }
}

/**
 * The index on the other plane that tap k connects to output index i along one axis, -1 when there is none:
 * conv2d i stride - pad + k dilation, conv2dInput (i + pad - k dilation) / stride.
 */
@inline
function partner(adjoint: bool, i: i32, k: i32, stride: i32, pad: i32, dilation: i32, extent: i32): i32 {
  let at: i32
  if (adjoint) {
    at = i + pad - k * dilation
    if (at < 0 || at % stride != 0) return -1
    at = at / stride
  } else {
    at = i * stride - pad + k * dilation
  }
  return at >= 0 && at < extent ? at : -1
}

function rowTable(ip: usize, table: usize): void {
  const adjoint = isInput(ip)
  const channels = adjoint ? word(ip, Conv.O) : word(ip, Conv.C)
  const height = adjoint ? word(ip, Conv.OH) : word(ip, Conv.H)
  const width = adjoint ? word(ip, Conv.OW) : word(ip, Conv.W)
  for (let i = 0; i < outHeight(ip); i++) {
    let entry = table + 4
    let n = 0
    for (let p = 0; p < word(ip, Conv.KH); p++) {
      const y = partner(adjoint, i, p, word(ip, Conv.strideY), word(ip, Conv.padTop), word(ip, Conv.dilationY), height)
      if (y < 0) continue
      store<i32>(entry, y * width * channels * <i32>CELL)
      store<i32>(entry, p * word(ip, Conv.KW) * channels * 4, 4)
      entry += 8
      n++
    }
    store<i32>(table, n)
    table += rowBytes(ip)
  }
}

/**
 * Entries of one output column, in ascending order of q', neighbours joined. Weight offsets are for one lane (4 bytes a
 * step).
 */
function columnTable(ip: usize, table: usize, order: usize): void {
  const adjoint = isInput(ip)
  const channels = adjoint ? word(ip, Conv.O) : word(ip, Conv.C)
  const width = adjoint ? word(ip, Conv.OW) : word(ip, Conv.W)
  const taps = word(ip, Conv.KW)
  for (let j = 0; j < outWidth(ip); j++) {
    let entry = table + 4
    let n = 0
    let lastX = -2
    let lastQ = -2
    for (let at = 0; at < taps; at++) {
      let q = 0
      while (load<i32>(order + ((<usize>q) << 2)) != at) q++
      const x = partner(adjoint, j, q, word(ip, Conv.strideX), word(ip, Conv.padLeft), word(ip, Conv.dilationX), width)
      if (x < 0) continue
      if (x == lastX + 1 && at == lastQ + 1) {
        store<i32>(entry - 12, load<i32>(entry - 12, 8) + channels, 8)
      } else {
        store<i32>(entry, x * channels * <i32>CELL)
        store<i32>(entry, at * channels * 4, 4)
        store<i32>(entry, channels, 8)
        entry += 12
        n++
      }
      lastX = x
      lastQ = at
    }
    store<i32>(table, n)
    table += colBytes(ip)
  }
}

/**
 * Groups of up to three output columns with equal weights whose inputs are equally far apart, for channels that stand
 * alone: n, then n x (first column, members, bytes between their inputs). Members are `distance` columns apart.
 */
function columnGroups(ip: usize, groups: usize, table: usize, distance: i32): void {
  const width = outWidth(ip)
  const bytes = colBytes(ip)
  let at = groups
  for (let r = 0; r < min(distance, width); r++) {
    let j = r
    while (j < width) {
      let members = 1
      let step = 0
      while (members < 3 && j + members * distance < width) {
        const d = shift(table + <usize>(j * bytes), table + <usize>((j + members * distance) * bytes))
        if (d < 0 || (members > 1 && d != step * members)) break
        if (members == 1) step = d
        members++
      }
      store<i32>(at, j)
      store<i32>(at, members, 4)
      store<i32>(at, step, 8)
      at += 12
      j += members * distance
    }
  }
  store<i32>(at, -1)
}

/** By how many bytes the inputs of column b follow those of column a, their weights being the same; -1 otherwise. */
function shift(a: usize, b: usize): i32 {
  const n = load<i32>(a)
  if (n == 0 || n != load<i32>(b)) return -1
  const d = load<i32>(b, 4) - load<i32>(a, 4)
  for (let i = 0; i < n; i++) {
    if (load<i32>(b, 4) - load<i32>(a, 4) != d) return -1
    if (load<i32>(b, 8) != load<i32>(a, 8) || load<i32>(b, 12) != load<i32>(a, 12)) return -1
    a += 12
    b += 12
  }
  return d
}

/**
 * w: [O, C, KH, KW] -> blocks [p][q'][input channel][4], then single channels [p][q'][input channel]; share of one
 * thread.
 */
function packWeights(ip: usize, to: usize, w: usize, order: usize, id: i32, count: i32): void {
  const adjoint = isInput(ip)
  const outs = adjoint ? word(ip, Conv.C) : word(ip, Conv.O)
  const ins = adjoint ? word(ip, Conv.O) : word(ip, Conv.C)
  const taps = word(ip, Conv.KH) * word(ip, Conv.KW)
  const outStep = adjoint ? taps : ins * taps
  const inStep = adjoint ? outs * taps : taps
  const cells = outCells(outs)
  const last = share(cells, id + 1, count)
  for (let o = share(cells, id, count); o < last; o++) {
    const wide = o < (cells & ~3)
    const block = to + ((<usize>((wide ? o & ~3 : o) * ins * taps)) << 2)
    const lane: usize = wide ? (<usize>(o & 3)) << 2 : 0
    const step: usize = wide ? 16 : 4
    for (let p = 0; p < word(ip, Conv.KH); p++) {
      for (let q = 0; q < word(ip, Conv.KW); q++) {
        const place = p * word(ip, Conv.KW) + load<i32>(order + ((<usize>q) << 2))
        let dst = block + <usize>(place * ins) * step + lane
        let src = w + ((<usize>(o * outStep + p * word(ip, Conv.KW) + q)) << 2)
        for (let i = 0; i < ins; i++) {
          store<f32>(dst, o < outs ? load<f32>(src) : 0)
          dst += step
          src += (<usize>inStep) << 2
        }
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------
// kernels

/**
 * Four output channels x eight images of one position. x: input tile, w: block of weights. Listed: of a tile of listed
 * cells, `list` and `starts` as above.
 */
function four<T>(
  x: usize,
  list: usize,
  starts: usize,
  row: usize,
  col: usize,
  w: usize,
  out: usize,
  bias: usize,
  relu: bool,
): void {
  let a0 = f32x4.splat(0)
  let a1 = a0
  let b0 = a0
  let b1 = a0
  let c0 = a0
  let c1 = a0
  let d0 = a0
  let d1 = a0
  const cols = col + 4 + <usize>load<i32>(col) * 12
  for (let n = load<i32>(row); n > 0; n--) {
    const rowAt = load<usize>(row, 4)
    const wr = w + (load<usize>(row, 8) << 2)
    for (let e = col + 4; e < cols; e += 12) {
      const at = rowAt + load<usize>(e)
      let xp = x + at
      let wp = wr + (load<usize>(e, 4) << 2)
      let k = load<i32>(e, 8)
      let lp = list
      if (isListed<T>()) {
        const from = load<usize>(starts + (at >> 3))
        k = load<i32>(starts + (at >> 3) + (<usize>k << 2)) - <i32>from
        xp = x + (from << 5)
        lp += from << 2
        wp -= at >> 1
      }
      for (; k > 0; k--) {
        const x0 = v128.load(xp)
        const x1 = v128.load(xp, 16)
        const we = isListed<T>() ? wp + load<usize>(lp) : wp
        let v = v128.load32_splat(we)
        a0 = madd(v, x0, a0)
        a1 = madd(v, x1, a1)
        v = v128.load32_splat(we, 4)
        b0 = madd(v, x0, b0)
        b1 = madd(v, x1, b1)
        v = v128.load32_splat(we, 8)
        c0 = madd(v, x0, c0)
        c1 = madd(v, x1, c1)
        v = v128.load32_splat(we, 12)
        d0 = madd(v, x0, d0)
        d1 = madd(v, x1, d1)
        xp += CELL
        if (isListed<T>()) lp += 4
        else wp += 16
      }
    }
    row += 8
  }
  const mask = maskOf(relu)
  let v = splatBias(bias)
  v128.store(out, finish(a0, v, mask))
  v128.store(out, finish(a1, v, mask), 16)
  if (bias) v = v128.load32_splat(bias, 4)
  v128.store(out, finish(b0, v, mask), 32)
  v128.store(out, finish(b1, v, mask), 48)
  if (bias) v = v128.load32_splat(bias, 8)
  v128.store(out, finish(c0, v, mask), 64)
  v128.store(out, finish(c1, v, mask), 80)
  if (bias) v = v128.load32_splat(bias, 12)
  v128.store(out, finish(d0, v, mask), 96)
  v128.store(out, finish(d1, v, mask), 112)
}

/** Of every `by`th cell of a tile, whether at least an eighth is 0 everywhere (NaN is not). */
function hasZeros(tile: usize, cells: i32, by: i32): bool {
  const zero = f32x4.splat(0)
  let filled = 0
  let n = 0
  for (; cells > 0; cells -= by) {
    n++
    filled += i32(v128.any_true(v128.or(f32x4.ne(v128.load(tile), zero), f32x4.ne(v128.load(tile, 16), zero))))
    tile += <usize>by * CELL
  }
  return filled <= (n * 7) >> 3
}

/** Moves those cells together; `list` and `starts` as above. */
function listCells(tile: usize, cells: i32, list: usize, starts: usize): void {
  const zero = f32x4.splat(0)
  let to = tile
  let n = 0
  for (let cell = 0; cell < cells; cell++) {
    const v0 = v128.load(tile)
    const v1 = v128.load(tile, 16)
    v128.store(to, v0)
    v128.store(to, v1, 16)
    store<i32>(list + ((<usize>n) << 2), cell << 4)
    store<i32>(starts + ((<usize>cell) << 2), n)
    const keeps = i32(v128.any_true(v128.or(f32x4.ne(v0, zero), f32x4.ne(v1, zero))))
    n += keeps
    to += <usize>keeps * CELL
    tile += CELL
  }
  store<i32>(starts + ((<usize>cells) << 2), n)
}

/**
 * One output channel x eight images of up to three positions whose inputs are `apart` bytes apart. (Four do not fit: V8
 * hoists all loads of an iteration, and a sum that is spilled has the latency of memory in its chain.)
 */
function single(
  x: usize,
  row: usize,
  col: usize,
  w: usize,
  out: usize,
  members: i32,
  apart: usize,
  outStep: usize,
  bias: usize,
  relu: bool,
): void {
  let a0 = f32x4.splat(0)
  let a1 = a0
  let b0 = a0
  let b1 = a0
  let c0 = a0
  let c1 = a0
  const second: usize = members > 1 ? apart : 0
  const third: usize = members > 2 ? apart : 0
  const cols = col + 4 + <usize>load<i32>(col) * 12
  for (let n = load<i32>(row); n > 0; n--) {
    const xr = x + load<usize>(row, 4)
    const wr = w + load<usize>(row, 8)
    for (let e = col + 4; e < cols; e += 12) {
      let xa = xr + load<usize>(e)
      let xb = xa + second
      let xc = xb + third
      let wp = wr + load<usize>(e, 4)
      for (let k = load<i32>(e, 8); k > 0; k--) {
        const v = v128.load32_splat(wp)
        a0 = madd(v, v128.load(xa), a0)
        a1 = madd(v, v128.load(xa, 16), a1)
        b0 = madd(v, v128.load(xb), b0)
        b1 = madd(v, v128.load(xb, 16), b1)
        c0 = madd(v, v128.load(xc), c0)
        c1 = madd(v, v128.load(xc, 16), c1)
        xa += CELL
        xb += CELL
        xc += CELL
        wp += 4
      }
    }
    row += 8
  }
  const mask = maskOf(relu)
  const v = splatBias(bias)
  v128.store(out, finish(a0, v, mask))
  v128.store(out, finish(a1, v, mask), 16)
  if (members > 1) {
    out += outStep
    v128.store(out, finish(b0, v, mask))
    v128.store(out, finish(b1, v, mask), 16)
  }
  if (members > 2) {
    out += outStep
    v128.store(out, finish(c0, v, mask))
    v128.store(out, finish(c1, v, mask), 16)
  }
}

// ---------------------------------------------------------------------------------------------------- conv2d,
// conv2dInput

export function conv(ip: usize, slots: usize, id: i32, count: i32, scratch: usize, shared: usize): void {
  const adjoint = isInput(ip)
  const x = address(ip, Conv.a, slots)
  const w = address(ip, Conv.b, slots)
  const out = address(ip, Conv.out, slots)
  const n = word(ip, Conv.N)
  const ins = adjoint ? word(ip, Conv.O) : word(ip, Conv.C)
  const outs = adjoint ? word(ip, Conv.C) : word(ip, Conv.O)
  const inPlane = adjoint ? word(ip, Conv.OH) * word(ip, Conv.OW) : word(ip, Conv.H) * word(ip, Conv.W)
  const height = outHeight(ip)
  const width = outWidth(ip)
  const distance = adjoint ? word(ip, Conv.strideX) : 1

  const rowsAt = scratch
  const colsAt = rowsAt + <usize>align(height * rowBytes(ip))
  const order = colsAt + <usize>align(width * colBytes(ip))
  const groups = order + <usize>align(word(ip, Conv.KW) * 4)
  const inTile = groups + <usize>align(width * 12 + 4)
  const outTile = inTile + <usize>inTileBytes(ip)
  const list = outTile + <usize>outTileBytes(ip)
  const starts = list + <usize>listBytes(ip)
  const single = starts + <usize>listBytes(ip)
  const singleWeights = shared + <usize>tileWeights(ip)
  const bias = biasOf(ip, Conv.end, slots)
  const relu = reluOf(ip, Conv.end)
  const lists = mayList(ip)
  let tiled = tiledImages(ip)
  const finite = (tiled < n || lists) && isFinite(w, word(ip, Conv.O) * word(ip, Conv.C) * word(ip, Conv.KH) * word(ip, Conv.KW))
  if (!finite) tiled = n
  if (tiled > 0) {
    columnOrder(ip, order)
    packWeights(ip, shared, w, order, id, count)
    rowTable(ip, rowsAt)
    columnTable(ip, colsAt, order)
    columnGroups(ip, groups, colsAt, distance)
  }
  if (tiled < n) packDirect(ip, singleWeights, w, id, count)
  barrier(count)
  if (tiled < n) direct(ip, x, out, tiled, n, id, count, single, singleWeights, bias, relu)

  // Output rows of all image groups are dealt to the threads; a group in which two shares meet is packed by both.
  const end = share(((tiled + LANES - 1) / LANES) * height, id + 1, count)
  for (let at = share(((tiled + LANES - 1) / LANES) * height, id, count); at < end; ) {
    const g = at / height
    const from = at - g * height
    const to = min(height, end - g * height)
    const images = min(LANES, n - g * LANES)
    packTile(inTile, x + ((<usize>(g * LANES * ins * inPlane)) << 2), images, ins, inPlane, ins, LANES)
    const all = ins * inPlane
    const listed = lists && finite && hasZeros(inTile, all, GLANCE) && hasZeros(inTile, all, 1)
    if (listed) listCells(inTile, all, list, starts)
    for (let i = from; i < to; i++) {
      const row = rowsAt + <usize>(i * rowBytes(ip))
      const outRow = outTile + <usize>(i * width * outCells(outs)) * CELL
      if (listed) listedRow(ip, outs, ins, width, row, colsAt, inTile, list, starts, outRow, shared, bias, relu)
      else convRow(ip, outs, ins, width, row, colsAt, groups, distance, inTile, outRow, shared, bias, relu)
    }
    const result = out + ((<usize>(g * LANES * outs * height * width)) << 2)
    unpackTile(result, outTile, outCells(outs), images, outs, height * width, from * width, to * width)
    at += to - from
  }
}

/** All channels of an output row, of a tile of listed cells. */
function listedRow(
  ip: usize,
  outs: i32,
  ins: i32,
  width: i32,
  row: usize,
  colsAt: usize,
  inTile: usize,
  list: usize,
  starts: usize,
  outRow: usize,
  weights: usize,
  bias: usize,
  relu: bool,
): void {
  const cells = outCells(outs)
  const perChannel = (<usize>(ins * word(ip, Conv.KH) * word(ip, Conv.KW))) << 2
  for (let o = 0; o < cells; o += 4) {
    const b: usize = bias ? bias + ((<usize>o) << 2) : 0
    let to = outRow + <usize>o * CELL
    let col = colsAt
    for (let j = 0; j < width; j++) {
      four<Listed>(inTile, list, starts, row, col, weights + <usize>o * perChannel, to, b, relu)
      col += <usize>colBytes(ip)
      to += <usize>cells * CELL
    }
  }
}

/** The same of a whole tile. */
function convRow(
  ip: usize,
  outs: i32,
  ins: i32,
  width: i32,
  row: usize,
  colsAt: usize,
  groups: usize,
  distance: i32,
  inTile: usize,
  outRow: usize,
  weights: usize,
  bias: usize,
  relu: bool,
): void {
  const cells = outCells(outs)
  const step = <usize>cells * CELL
  const perChannel = (<usize>(ins * word(ip, Conv.KH) * word(ip, Conv.KW))) << 2
  const bytes = <usize>colBytes(ip)
  let o = 0
  for (; o + 4 <= cells; o += 4) {
    const w = weights + <usize>o * perChannel
    const b: usize = bias ? bias + ((<usize>o) << 2) : 0
    let to = outRow + <usize>o * CELL
    let col = colsAt
    for (let j = 0; j < width; j++) {
      four<All>(inTile, 0, 0, row, col, w, to, b, relu)
      col += bytes
      to += step
    }
  }
  for (; o < cells; o++) {
    const w = weights + <usize>o * perChannel
    for (let g = groups; load<i32>(g) >= 0; g += 12) {
      const j = load<i32>(g)
      single(
        inTile,
        row,
        colsAt + <usize>j * bytes,
        w,
        outRow + <usize>j * step + <usize>o * CELL,
        load<i32>(g, 4),
        load<usize>(g, 8),
        step * <usize>distance,
        bias ? bias + ((<usize>o) << 2) : 0,
        relu,
      )
    }
  }
}
