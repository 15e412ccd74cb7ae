import { apply } from './elementwise'
import { address, copyRow, fillRow, scatterRow, share, storeTransposed, word } from './lanes'
import { accumulate, accumulateRows, identity, total } from './reduce'
import { barrier } from './threads'
import { Header, Loop, LoopMode, Loops, Op, Stored, View } from './words'

/**
 * The fused loop. The last two dims, rows x columns, are cut into tiles of at most `length` elements; the program runs
 * op by op over a tile whose registers stay in the L1 cache, and a consumer stores the value (map) or reduces it
 * (inner, keep). An input that is contiguous over the tile is read in place, one that is constant is a 16-byte splat,
 * any other is expanded into a strip once and kept while its address stays the same. Outer dims vary fastest, so that
 * what is broadcast over them is expanded once a tile.
 *
 * The host hands loops over in normal form (src/compile/checked.ts): D >= 2, neighbouring dims merged where all
 * strides allow it, at least one dim reduced in the modes inner and keep.
 *
 * Reductions with fewer than 16 results are cut into at most 16 segments by the instruction alone, so bits do not
 * depend on the number of threads.
 *
 * Scratch of a thread: register table, per-input state, splats, then one strip per register and one for a row
 * accumulator.
 */
const REGISTERS: usize = 0
const AT: usize = 512
const KIND: usize = 576
const KEY: usize = 640
const KEPT: usize = 704
const SPLAT: usize = 768
const COUNTER: usize = 1024
const ACC: usize = 1152
const ROW: usize = 1216
/** The longest strip, and the shortest. */
const LONG: i32 = 4096
const SHORT: i32 = 256
/** Elements that stay in the L1 cache. */
const NEAR: i32 = 10240
/** Columns of a plain reduction over rows at a time. */
const PLAIN: i32 = 1024

const DIRECT: i32 = 0
const SCALAR: i32 = 1
const EXPAND: i32 = 2

/** Bytes before the first of several loops. */
const MEMBERS: usize = Loops.end << 2

const SEGMENTS: i32 = 16
const SEGMENTED: i64 = 65536

/** Bytes between strips: a line more than the longest strip, so that equal offsets fall on different cache sets. */
@inline
function strips(length: i32): usize {
  return ((<usize>length) << 2) + 64
}

// One instance serves one thread and one instruction at a time; these describe the instruction at hand.
let state: usize = 0
let depth: i32 = 0
let dims: usize = 0
let outStrides: usize = 0
let inputs: usize = 0
let inputBytes: usize = 0
let inputCount: i32 = 0
let ops: usize = 0
let opCount: i32 = 0
let outAt: usize = 0
/** Where the output begins; values stored on the way (op, slot), and their slots. */
let outBase: usize = 0
let stored: usize = 0
let storedEnd: usize = 0
let slotTable: usize = 0
let rows: i32 = 0
let cols: i32 = 0
let tileRows: i32 = 0
let tileCols: i32 = 0
let rowTiles: i32 = 0
let colTiles: i32 = 0
let strip0: usize = 0
let stripBytes: usize = 0

@inline
function dim(d: i32): i32 {
  return load<i32>(dims + ((<usize>d) << 2))
}

@inline
function outStride(d: i32): i32 {
  return load<i32>(outStrides + ((<usize>d) << 2))
}

@inline
function stride(i: i32, d: i32): i32 {
  return load<i32>(inputs + <usize>i * inputBytes + ((<usize>d) << 2), View.end << 2)
}

@inline
function at(i: i32): usize {
  return load<usize>(state + ((<usize>i) << 2), AT)
}

@inline
function strip(i: i32): usize {
  return strip0 + <usize>i * stripBytes
}

/** Bytes of the accumulator of one result: a row of at most `columns`, or 16 lanes. */
@inline
function accumulatorBytes(keep: bool, columns: i32): usize {
  return keep ? strips(min(columns, LONG)) : 64
}

/** Bytes of scratch for one thread. */
export function loopScratch(ip: usize): i32 {
  return <i32>(ROW + strips(LONG) * <usize>(word(ip, Loop.registers) + 1))
}

/** Bytes of scratch that all threads share: the partial results of a segmented reduction. */
export function loopShared(ip: usize): i32 {
  const mode = word(ip, Loop.mode)
  if (mode == LoopMode.map) return 0
  return SEGMENTS * SEGMENTS * <i32>accumulatorBytes(mode == LoopMode.keep, word(ip, Loop.end - 1 + word(ip, Loop.depth)))
}

/** Dims [from, to) of the odometer stand at item `index` of their row-major order; others are left alone. */
function seek(from: i32, to: i32, index: i32): void {
  for (let d = to - 1; d >= from; d--) {
    const n = dim(d)
    const next = index % n
    index = index / n
    const counter = state + ((<usize>d) << 2)
    const delta = next - load<i32>(counter, COUNTER)
    store<i32>(counter, next, COUNTER)
    if (delta) move(d, delta)
  }
}

@inline
function move(d: i32, delta: i32): void {
  outAt += (<usize>(outStride(d) * delta)) << 2
  for (let i = 0; i < inputCount; i++) {
    const p = state + ((<usize>i) << 2)
    store<usize>(p, load<usize>(p, AT) + ((<usize>(stride(i, d) * delta)) << 2), AT)
  }
}

/** Dims [from, to) step to their next item; true when they wrapped to the first. */
function advance(from: i32, to: i32): bool {
  for (let d = to - 1; d >= from; d--) {
    const counter = state + ((<usize>d) << 2)
    const next = load<i32>(counter, COUNTER) + 1
    if (next < dim(d)) {
      store<i32>(counter, next, COUNTER)
      move(d, 1)
      return false
    }
    store<i32>(counter, 0, COUNTER)
    move(d, 1 - next)
  }
  return true
}

function extent(from: i32, to: i32): i32 {
  let n = 1
  for (let d = from; d < to; d++) n *= dim(d)
  return n
}

@inline
function ceilDiv(a: i32, b: i32): i32 {
  return (a + b - 1) / b
}

/**
 * Runs the program on rows [r, r + nr) x columns [c, c + nc) into `dst`, or where it likes when dst is 0; returns
 * where.
 */
function evaluate(r: i32, nr: i32, c: i32, nc: i32, dst: usize): usize {
  const n = nr * nc
  for (let i = 0; i < inputCount; i++) {
    const p = state + ((<usize>i) << 2)
    const rowStride = stride(i, depth - 2)
    const colStride = stride(i, depth - 1)
    let src = load<usize>(p, AT) + ((<usize>(r * rowStride + c * colStride)) << 2)
    let step: usize = 16
    const kind = load<i32>(p, KIND)
    if (kind == SCALAR) {
      const splat = state + SPLAT + ((<usize>i) << 4)
      v128.store(splat, v128.load32_splat(src))
      src = splat
      step = 0
    } else if (kind == EXPAND) {
      const to = strip(i)
      if (load<usize>(p, KEY) != src || load<i32>(p, KEPT) < n) {
        store<usize>(p, src, KEY)
        store<i32>(p, n, KEPT)
        let row = to
        for (let k = 0; k < nr; k++) {
          copyRow(row, src, colStride, nc)
          src += (<usize>rowStride) << 2
          row += (<usize>nc) << 2
        }
      }
      src = to
    }
    const register = state + REGISTERS + ((<usize>i) << 3)
    store<usize>(register, src)
    store<usize>(register, step, 4)
  }
  if (opCount == 0) return load<usize>(state + REGISTERS)
  let op = ops
  let to: usize = 0
  let next = stored
  for (let k = 1; k <= opCount; k++) {
    const d = load<i32>(op, Op.dst << 2)
    to = k == opCount && dst != 0 ? dst : strip(d)
    if (next < storedEnd && load<i32>(next, Stored.op << 2) == k - 1) {
      to = load<usize>(slotTable + ((<usize>load<i32>(next, Stored.slot << 2)) << 2)) + (dst - outBase)
      next += Stored.end << 2
    }
    const a = state + REGISTERS + ((<usize>load<i32>(op, Op.a << 2)) << 3)
    const b = state + REGISTERS + ((<usize>load<i32>(op, Op.b << 2)) << 3)
    const e = state + REGISTERS + ((<usize>load<i32>(op, Op.c << 2)) << 3)
    apply(
      load<i32>(op, Op.micro << 2),
      to,
      load<usize>(a),
      load<usize>(a, 4),
      load<usize>(b),
      load<usize>(b, 4),
      load<usize>(e),
      load<usize>(e, 4),
      n,
    )
    // A program may reuse an input's register: what was expanded there is gone.
    if (d < inputCount) store<usize>(state + ((<usize>d) << 2), 0, KEY)
    const register = state + REGISTERS + ((<usize>d) << 3)
    store<usize>(register, to)
    store<usize>(register, 16, 4)
    op += Op.end << 2
  }
  return to
}

/** Reads the instruction and decides the tiles. */
function begin(ip: usize, slots: usize, scratch: usize): void {
  state = scratch
  depth = word(ip, Loop.depth)
  inputCount = word(ip, Loop.inputs)
  opCount = word(ip, Loop.ops)
  outBase = address(ip, Loop.out, slots) + ((<usize>word(ip, Loop.offset)) << 2)
  outAt = outBase
  dims = ip + (Loop.end << 2)
  outStrides = dims + ((<usize>depth) << 2)
  inputs = outStrides + ((<usize>depth) << 2)
  inputBytes = (<usize>(View.end + depth)) << 2
  ops = inputs + <usize>inputCount * inputBytes
  stored = ops + <usize>opCount * (Op.end << 2)
  storedEnd = ip + ((<usize>word(ip, Header.length)) << 2)
  slotTable = slots
  rows = dim(depth - 2)
  cols = dim(depth - 1)
  for (let d = 0; d < depth; d++) store<i32>(state + ((<usize>d) << 2), 0, COUNTER)

  // Strips are as long as lets those that are in use, and what is read beside them, stay in the L1 cache: a call for each
  // operation and strip costs as much as some hundred elements. Long ones also hold what is broadcast over the outer dims
  // whole, so that it is expanded once.
  let live = word(ip, Loop.registers) - inputCount
  for (let i = 0; i < inputCount; i++) if (stride(i, depth - 1) != 0) live++
  let length = LONG
  while (length > SHORT && live * length > NEAR) length >>= 1
  if (cols > length / 2) {
    tileRows = 1
    const count = ceilDiv(cols, length)
    tileCols = min(length, (ceilDiv(cols, count) + 3) & ~3)
  } else {
    tileCols = max(cols, 1)
    tileRows = min(max(rows, 1), length / tileCols)
  }
  strip0 = state + ROW + strips(LONG)
  stripBytes = strips(length)

  for (let i = 0; i < inputCount; i++) {
    const input = inputs + <usize>i * inputBytes
    const p = state + ((<usize>i) << 2)
    store<usize>(p, load<usize>(slots + ((<usize>load<i32>(input, View.slot << 2)) << 2)) + ((<usize>load<i32>(input, View.offset << 2)) << 2), AT)
    store<usize>(p, 0, KEY)
    const rowStride = stride(i, depth - 2)
    const colStride = stride(i, depth - 1)
    let kind = EXPAND
    if (colStride == 1 && (tileRows == 1 || rowStride == cols)) kind = DIRECT
    else if (colStride == 0 && (tileRows == 1 || rowStride == 0) && opCount > 0) kind = SCALAR
    store<i32>(p, kind, KIND)
  }
}

function countTiles(): void {
  rowTiles = ceilDiv(rows, tileRows)
  colTiles = ceilDiv(cols, tileCols)
}

export function loop(ip: usize, slots: usize, id: i32, count: i32, scratch: usize, shared: usize): void {
  begin(ip, slots, scratch)
  if (word(ip, Loop.mode) != LoopMode.map) {
    reduceLoop(ip, id, count, shared)
    return
  }
  if (opCount == 0 && inputCount == 1) {
    const j = transposedDim()
    if (j >= 0) {
      transposeLoop(j, id, count)
      return
    }
  }
  const units = mapUnits()
  mapTiles(share(units, id, count), share(units, id + 1, count))
}

/** Several loops of mode map: their tiles, one loop after the other, are shared as those of one. */
export function loops(ip: usize, slots: usize, id: i32, count: i32, scratch: usize): void {
  const end = ip + ((<usize>word(ip, Header.length)) << 2)
  let first = 0
  let last = i32.MAX_VALUE
  if (count > 1) {
    let total = 0
    for (let at = ip + MEMBERS; at < end; at += (<usize>word(at, Header.length)) << 2) {
      begin(at, slots, scratch)
      total += mapUnits()
    }
    first = share(total, id, count)
    last = share(total, id + 1, count)
  }
  for (let at = ip + MEMBERS; at < end; at += (<usize>word(at, Header.length)) << 2) {
    begin(at, slots, scratch)
    const units = mapUnits()
    mapTiles(max(first, 0), min(last, units))
    first -= units
    last -= units
  }
}

/** Bytes of scratch for one thread. */
export function loopsScratch(ip: usize): i32 {
  const end = ip + ((<usize>word(ip, Header.length)) << 2)
  let most = 0
  for (let at = ip + MEMBERS; at < end; at += (<usize>word(at, Header.length)) << 2) most = max(most, loopScratch(at))
  return most
}

// ---------------------------------------------------------------------------------------------------------------- map

/** Tiles of the loop at hand. */
function mapUnits(): i32 {
  countTiles()
  return extent(0, depth - 2) * rowTiles * colTiles
}

/** Tiles [first, last) of the loop at hand. */
function mapTiles(first: i32, last: i32): void {
  if (first >= last) return
  const outer = extent(0, depth - 2)
  const rowStride = outStride(depth - 2)
  const colStride = outStride(depth - 1)
  const direct = (colStride == 1 || cols == 1) && (tileRows == 1 || rowStride == cols)
  let tile = first / outer
  seek(0, depth - 2, first % outer)
  for (let unit = first; unit < last; unit++) {
    const r = (tile / colTiles) * tileRows
    const c = (tile % colTiles) * tileCols
    const nr = min(tileRows, rows - r)
    const nc = min(tileCols, cols - c)
    const dst = outAt + ((<usize>(r * rowStride + c * colStride)) << 2)
    if (opCount == 0) {
      copyTile(dst, r, nr, c, nc)
    } else {
      const value = evaluate(r, nr, c, nc, direct ? dst : 0)
      if (!direct) {
        for (let k = 0; k < nr; k++) {
          scatterRow(dst + ((<usize>(k * rowStride)) << 2), colStride, value + ((<usize>(k * nc)) << 2), nc)
        }
      }
    }
    if (advance(0, depth - 2)) tile++
  }
}

/** The copy program: input rows go straight to output rows. */
function copyTile(dst: usize, r: i32, nr: i32, c: i32, nc: i32): void {
  const rowStride = stride(0, depth - 2)
  const colStride = stride(0, depth - 1)
  const outRow = outStride(depth - 2)
  const outCol = outStride(depth - 1)
  let src = at(0) + ((<usize>(r * rowStride + c * colStride)) << 2)
  if (colStride == 1 && outCol == 1 && rowStride == nc && outRow == nc) {
    copyRow(dst, src, 1, nr * nc)
    return
  }
  for (let k = 0; k < nr; k++) {
    if (outCol == 1) {
      copyRow(dst, src, colStride, nc)
    } else {
      let from = src
      let to = dst
      for (let j = 0; j < nc; j++) {
        store<f32>(to, load<f32>(from))
        from += (<usize>colStride) << 2
        to += (<usize>outCol) << 2
      }
    }
    src += (<usize>rowStride) << 2
    dst += (<usize>outRow) << 2
  }
}

// ----------------------------------------------------------------------------------------------------------
// transposition

/** The dim along which a copied input is contiguous while the output is contiguous along the last one; -1 if none. */
function transposedDim(): i32 {
  if (outStride(depth - 1) != 1 || cols < 4) return -1
  const s = stride(0, depth - 1)
  if (s == 0 || s == 1) return -1
  for (let d = 0; d < depth - 1; d++) if (stride(0, d) == 1 && dim(d) >= 4) return d
  return -1
}

/** out[.., j, .., i] = x[.., i, .., j] in blocks of 32 x 32, four by four. */
function transposeLoop(j: i32, id: i32, count: i32): void {
  const nj = dim(j)
  const blocks = ceilDiv(nj, 32)
  const units = extent(0, j) * extent(j + 1, depth - 1) * blocks
  const last = share(units, id + 1, count)
  const across = (<usize>stride(0, depth - 1)) << 2
  const down = (<usize>outStride(j)) << 2
  for (let unit = share(units, id, count); unit < last; unit++) {
    const j0 = (unit % blocks) * 32
    const j1 = min(j0 + 32, nj)
    const outer = unit / blocks
    const inner = extent(j + 1, depth - 1)
    seek(0, j, outer / inner)
    seek(j + 1, depth - 1, outer % inner)
    for (let i0 = 0; i0 < cols; i0 += 32) {
      const i1 = min(i0 + 32, cols)
      for (let y = j0; y < j1; y += 4) {
        let i = i0
        let src = at(0) + <usize>i * across + ((<usize>y) << 2)
        let dst = outAt + <usize>y * down + ((<usize>i) << 2)
        if (y + 4 <= j1) {
          for (; i + 4 <= i1; i += 4) {
            storeTransposed(
              dst,
              down,
              v128.load(src),
              v128.load(src + across),
              v128.load(src + across * 2),
              v128.load(src + across * 3),
            )
            src += across << 2
            dst += 16
          }
        }
        for (; i < i1; i++) {
          for (let k = 0; k < min(4, j1 - y); k++) {
            store<f32>(dst + <usize>k * down, load<f32>(src + ((<usize>k) << 2)))
          }
          src += across
          dst += 4
        }
      }
    }
  }
}

// -----------------------------------------------------------------------------------------------------------
// reductions

function reduceLoop(ip: usize, id: i32, count: i32, shared: usize): void {
  const keep = word(ip, Loop.mode) == LoopMode.keep
  const combine = word(ip, Loop.combine)
  const split = min(word(ip, Loop.kept), depth - 2)
  // Mode inner with only the last dim reduced: every row of a tile is a result of its own.
  const rowResults = !keep && word(ip, Loop.kept) >= depth - 1
  // Rows that lie in memory as they are reduced need no strip: longer tiles keep the accumulators in registers.
  const plain = keep && opCount == 0 && stride(0, depth - 1) == 1
  if (plain) {
    tileCols = min(cols, PLAIN)
    tileRows = min(max(rows, 1), 64)
  }
  countTiles()
  const keptOuter = extent(0, split)
  const keptTiles = keep ? colTiles : rowResults ? rowTiles : 1
  const steps = extent(split, depth - 2) * (keep ? rowTiles : rowResults ? colTiles : rowTiles * colTiles)
  const units = keptOuter * keptTiles
  const elements = <i64>extent(0, depth - 2) * <i64>rows * <i64>cols
  const segments = units < SEGMENTS && elements >= SEGMENTED ? max(1, min(SEGMENTS, steps)) : 1
  const accBytes = accumulatorBytes(keep, cols)
  const local = state + (keep ? ROW : ACC)
  const neutral = identity(combine)
  const last = share(units * segments, id + 1, count)
  for (let item = share(units * segments, id, count); item < last; item++) {
    const unit = item / segments
    const segment = item % segments
    const keptTile = unit / keptOuter
    const acc = segments > 1 ? shared + <usize>item * accBytes : local
    seek(0, split, unit % keptOuter)
    if (rowResults && colTiles <= 1) {
      rowTotals(combine, keptTile * tileRows, neutral)
      continue
    }
    const keptCols = min(tileCols, cols - keptTile * tileCols)
    fillRow(acc, neutral, keep ? keptCols : 16)
    const end = share(steps, segment + 1, segments)
    const outer = extent(split, depth - 2)
    const start = share(steps, segment, segments)
    if (start < end) {
      seek(split, depth - 2, start % outer)
      let tile = start / outer
      for (let step = start; step < end; step++) {
        const r = (rowResults ? keptTile : keep ? tile : tile / colTiles) * tileRows
        const c = (rowResults ? tile : keep ? keptTile : tile % colTiles) * tileCols
        const nr = min(tileRows, rows - r)
        const nc = min(tileCols, cols - c)
        if (plain) {
          const rowStride = stride(0, depth - 2)
          accumulateRows(combine, acc, at(0) + ((<usize>(r * rowStride + c)) << 2), (<usize>rowStride) << 2, nr, nc)
        } else {
          const value = evaluate(r, nr, c, nc, 0)
          if (keep) accumulateRows(combine, acc, value, (<usize>nc) << 2, nr, nc)
          else accumulate(combine, acc, value, nr * nc)
        }
        if (advance(split, depth - 2)) tile++
      }
      seek(split, depth - 2, 0)
    }
    if (segments == 1) finish(keep, combine, acc, keptTile, keptCols, rowResults)
  }
  if (segments == 1) return
  barrier(count)
  const lastUnit = share(units, id + 1, count)
  for (let unit = share(units, id, count); unit < lastUnit; unit++) {
    const keptTile = unit / keptOuter
    const keptCols = min(tileCols, cols - keptTile * tileCols)
    seek(0, split, unit % keptOuter)
    const acc = shared + <usize>(unit * segments) * accBytes
    accumulateRows(combine, acc, acc + accBytes, accBytes, segments - 1, keep ? keptCols : 16)
    finish(keep, combine, acc, keptTile, keptCols, rowResults)
  }
}

/** One result per row, from row r on. */
function rowTotals(combine: i32, r: i32, neutral: v128): void {
  const nr = min(tileRows, rows - r)
  const value = cols > 0 ? evaluate(r, nr, 0, cols, 0) : 0
  const acc = state + ACC
  const step = (<usize>outStride(depth - 2)) << 2
  let dst = outAt + <usize>r * step
  for (let k = 0; k < nr; k++) {
    fillRow(acc, neutral, 16)
    accumulate(combine, acc, value + ((<usize>(k * cols)) << 2), cols)
    store<f32>(dst, total(combine, acc))
    dst += step
  }
}

function finish(keep: bool, combine: i32, acc: usize, keptTile: i32, keptCols: i32, rowResults: bool): void {
  if (keep) {
    const colStride = outStride(depth - 1)
    scatterRow(outAt + ((<usize>(keptTile * tileCols * colStride)) << 2), colStride, acc, keptCols)
  } else {
    const r = rowResults ? keptTile * tileRows : 0
    store<f32>(outAt + ((<usize>(r * outStride(depth - 2))) << 2), total(combine, acc))
  }
}
