import { address, All, copyRow, isListed, Listed, madd, share, storeTransposed, storeUpTo, word } from './lanes'
import { barrier } from './threads'
import { Conv } from './words'

/**
 * conv2dWeight: w[o, c, p, q] = sum over n, i, j of y[n, o, i, j] x[n, c, i s - pad + p d, j s - pad + q d].
 *
 * For one image a product of matrices: columns (c, p, q) x positions (i, j) of x, which are read in place from planes
 * with zeros around them, times positions x output channels of y, transposed into panels of eight channels. A block is
 * four columns x eight channels; its sums run over the positions in ascending order, then over the images of a chunk.
 * Images are cut into at most 16 chunks by the shape alone; each has its own sums in shared scratch, added in ascending
 * order at the end.
 *
 * Where many output channels meet them, positions at which all four columns are 0 are left out if they are many; a sum is
 * never -0, so the bits stay (see matmul.ts).
 *
 * Zeros stand for padding, so an image whose y is not finite would make NaN of them: it goes the slow way (see exact).
 *
 * Scratch of a thread: planes; panels; byte offsets of the positions; of the columns; their ranges of rows; of every image
 * that is taken up how many positions are listed, and their byte offsets in the plane and in the panel.
 */

const CHANNELS: i32 = 8
const COLUMNS: i32 = 4
/** Bytes of the sums of a block. */
const BLOCK: usize = 128
/** Bytes of panels and of planes of one channel that stay in the L1 cache, and the most images they are of. */
const NEAR: i32 = 32768
const MOST: i32 = 4

@inline
function align(bytes: i32): i32 {
  return (bytes + 63) & ~63
}

@inline
function columnCount(ip: usize): i32 {
  return word(ip, Conv.C) * word(ip, Conv.KH) * word(ip, Conv.KW)
}

@inline
function columnBlocks(ip: usize): i32 {
  return (columnCount(ip) + COLUMNS - 1) / COLUMNS
}

@inline
function channelBlocks(ip: usize): i32 {
  return (word(ip, Conv.O) + CHANNELS - 1) / CHANNELS
}

@inline
function planeRows(ip: usize): i32 {
  return (word(ip, Conv.OH) - 1) * word(ip, Conv.strideY) + (word(ip, Conv.KH) - 1) * word(ip, Conv.dilationY) + 1
}

@inline
function planeCols(ip: usize): i32 {
  return (word(ip, Conv.OW) - 1) * word(ip, Conv.strideX) + (word(ip, Conv.KW) - 1) * word(ip, Conv.dilationX) + 1
}

@inline
function planeBytes(ip: usize): i32 {
  return align(word(ip, Conv.C) * planeRows(ip) * planeCols(ip) * 4)
}

@inline
function panelBytes(ip: usize): i32 {
  return align(channelBlocks(ip) * word(ip, Conv.OH) * word(ip, Conv.OW) * CHANNELS * 4)
}

/** Bytes of the sums of one chunk: [column block][channel block][4][8]. */
@inline
function chunkBytes(ip: usize): i32 {
  return channelBlocks(ip) * columnBlocks(ip) * <i32>BLOCK
}

@inline
function chunkCount(ip: usize): i32 {
  let n = 16
  while (n > 2 && n * chunkBytes(ip) > 1 << 25) n >>= 1
  return max(1, min(n, word(ip, Conv.N)))
}

/** Images whose sums are taken up together, so that a block is loaded and stored less often: as many as the L1 cache holds. */
@inline
function together(ip: usize): i32 {
  return max(1, min(MOST, NEAR / (panelBytes(ip) + planeRows(ip) * planeCols(ip) * 4)))
}

/** From how many blocks of channels looking for zeros pays; a first look takes every so many positions of the first image. */
const MANY: i32 = 3
const GLANCE: usize = 5

/** Bytes of the listed positions of one image, their number first. */
@inline
function listBytes(ip: usize): i32 {
  return align(4 + word(ip, Conv.OH) * word(ip, Conv.OW) * 8)
}

export function convWeightScratch(ip: usize): i32 {
  return (
    together(ip) * (planeBytes(ip) + panelBytes(ip) + listBytes(ip)) +
    align(word(ip, Conv.OH) * word(ip, Conv.OW) * 4) +
    align(columnBlocks(ip) * 16) +
    align(columnBlocks(ip) * 8)
  )
}

export function convWeightShared(ip: usize): i32 {
  return chunkBytes(ip) * chunkCount(ip)
}

/** Copies one image into the planes, whose surroundings are zero already; what no tap reaches is left out. */
function packPlanes(ip: usize, planes: usize, x: usize): void {
  const rows = planeRows(ip)
  const cols = planeCols(ip)
  const height = word(ip, Conv.H)
  const width = word(ip, Conv.W)
  const top = word(ip, Conv.padTop)
  const left = word(ip, Conv.padLeft)
  const used = min(height, rows - top)
  const usedCols = min(width, cols - left)
  if (usedCols <= 0) return
  for (let c = 0; c < word(ip, Conv.C); c++) {
    let src = x + ((<usize>(c * height * width)) << 2)
    let dst = planes + ((<usize>((c * rows + top) * cols + left)) << 2)
    for (let i = 0; i < used; i++) {
      copyRow(dst, src, 1, usedCols)
      src += (<usize>width) << 2
      dst += (<usize>cols) << 2
    }
  }
}

/** y: [channels, positions] -> panels [channel block][position][8], zeros past the last channel; whether all are finite. */
function packPanels(panels: usize, y: usize, channels: i32, positions: i32): bool {
  const zero = f32x4.splat(0)
  const step = (<usize>positions) << 2
  let sum = zero
  for (let o = 0; o < channels; o += 4) {
    const n = channels - o
    let src = y + <usize>o * step
    let dst = panels + ((<usize>((o & ~7) * positions + (o & 4))) << 2)
    for (let p = positions; p > 0; p -= 4) {
      const v0 = v128.load(src)
      const v1 = n > 1 ? v128.load(src + step) : zero
      const v2 = n > 2 ? v128.load(src + step * 2) : zero
      const v3 = n > 3 ? v128.load(src + step * 3) : zero
      if (p >= 4) {
        sum = f32x4.add(sum, f32x4.mul(f32x4.add(f32x4.abs(v0), f32x4.abs(v1)), zero))
        sum = f32x4.add(sum, f32x4.mul(f32x4.add(f32x4.abs(v2), f32x4.abs(v3)), zero))
        storeTransposed(dst, 32, v0, v1, v2, v3)
      } else {
        for (let k = 0; k < p; k++) {
          const at = (<usize>k) << 2
          const a = load<f32>(src + at)
          const b = n > 1 ? load<f32>(src + step + at) : <f32>0
          const c = n > 2 ? load<f32>(src + step * 2 + at) : <f32>0
          const d = n > 3 ? load<f32>(src + step * 3 + at) : <f32>0
          const v = f32x4(a, b, c, d)
          sum = f32x4.add(sum, f32x4.mul(v, zero))
          v128.store(dst + (at << 3), v)
        }
      }
      src += 16
      dst += 128
    }
  }
  return !v128.any_true(f32x4.ne(sum, sum))
}

/**
 * sums[column][channel] (+)= x y over positions t..end of some images; x0..x3: the columns, neighbours: whether they
 * follow each other in memory; t: offsets of the positions, panel: at the first of them; planes and panels of an image
 * follow those of the last.
 * Listed: over the positions that t lists, those of the next image `lists` bytes on.
 */
function block<T>(
  sums: usize,
  first: bool,
  images: i32,
  x0: usize,
  x1: usize,
  x2: usize,
  x3: usize,
  neighbours: bool,
  planes: usize,
  t: usize,
  end: usize,
  lists: usize,
  panel: usize,
  panels: usize,
): void {
  let a0 = f32x4.splat(0)
  let a1 = a0
  let b0 = a0
  let b1 = a0
  let c0 = a0
  let c1 = a0
  let d0 = a0
  let d1 = a0
  if (!first) {
    a0 = v128.load(sums)
    a1 = v128.load(sums, 16)
    b0 = v128.load(sums, 32)
    b1 = v128.load(sums, 48)
    c0 = v128.load(sums, 64)
    c1 = v128.load(sums, 80)
    d0 = v128.load(sums, 96)
    d1 = v128.load(sums, 112)
  }
  for (; images > 0; images--) {
    let y = panel
    let s = t
    if (isListed<T>()) {
      s = t + 4
      end = s + (<usize>load<i32>(t) << 3)
    }
    if (neighbours) {
      for (; s < end; s += isListed<T>() ? 8 : 4) {
        const x = x0 + load<usize>(s)
        if (isListed<T>()) y = panel + load<usize>(s, 4)
        const y0 = v128.load(y)
        const y1 = v128.load(y, 16)
        let v = v128.load32_splat(x)
        a0 = madd(v, y0, a0)
        a1 = madd(v, y1, a1)
        v = v128.load32_splat(x, 4)
        b0 = madd(v, y0, b0)
        b1 = madd(v, y1, b1)
        v = v128.load32_splat(x, 8)
        c0 = madd(v, y0, c0)
        c1 = madd(v, y1, c1)
        v = v128.load32_splat(x, 12)
        d0 = madd(v, y0, d0)
        d1 = madd(v, y1, d1)
        if (!isListed<T>()) y += 32
      }
    } else {
      for (; s < end; s += isListed<T>() ? 8 : 4) {
        const at = load<usize>(s)
        if (isListed<T>()) y = panel + load<usize>(s, 4)
        const y0 = v128.load(y)
        const y1 = v128.load(y, 16)
        let v = v128.load32_splat(x0 + at)
        a0 = madd(v, y0, a0)
        a1 = madd(v, y1, a1)
        v = v128.load32_splat(x1 + at)
        b0 = madd(v, y0, b0)
        b1 = madd(v, y1, b1)
        v = v128.load32_splat(x2 + at)
        c0 = madd(v, y0, c0)
        c1 = madd(v, y1, c1)
        v = v128.load32_splat(x3 + at)
        d0 = madd(v, y0, d0)
        d1 = madd(v, y1, d1)
        if (!isListed<T>()) y += 32
      }
    }
    x0 += planes
    x1 += planes
    x2 += planes
    x3 += planes
    if (isListed<T>()) t += lists
    panel += panels
  }
  v128.store(sums, a0)
  v128.store(sums, a1, 16)
  v128.store(sums, b0, 32)
  v128.store(sums, b1, 48)
  v128.store(sums, c0, 64)
  v128.store(sums, c1, 80)
  v128.store(sums, d0, 96)
  v128.store(sums, d1, 112)
}

/** The values of four columns at one position. */
@inline
function valuesAt(x0: usize, x1: usize, x2: usize, x3: usize, neighbours: bool, at: usize): v128 {
  if (neighbours) return v128.load(x0 + at)
  let v = v128.load32_zero(x0 + at)
  v = v128.load32_lane(x1 + at, v, 1)
  v = v128.load32_lane(x2 + at, v, 2)
  return v128.load32_lane(x3 + at, v, 3)
}

/** Of every `GLANCE`th of the positions t..end, whether at least an eighth has all columns 0 (NaN is not). */
function hasZeros(x0: usize, x1: usize, x2: usize, x3: usize, neighbours: bool, t: usize, end: usize): bool {
  const zero = f32x4.splat(0)
  let filled = 0
  let n = 0
  for (let s = t; s < end; s += GLANCE * 4) {
    n++
    filled += i32(v128.any_true(f32x4.ne(valuesAt(x0, x1, x2, x3, neighbours, load<usize>(s)), zero)))
  }
  return filled <= (n * 7) >> 3
}

/** Lists the positions t..end of an image at which a column is not 0. */
function listPositions(
  list: usize,
  x0: usize,
  x1: usize,
  x2: usize,
  x3: usize,
  neighbours: bool,
  t: usize,
  end: usize,
): void {
  const zero = f32x4.splat(0)
  let n = 0
  let to = list + 4
  for (let s = t; s < end; s += 4) {
    const at = load<usize>(s)
    store<usize>(to, at)
    store<usize>(to, (s - t) << 3, 4)
    const keeps = i32(v128.any_true(f32x4.ne(valuesAt(x0, x1, x2, x3, neighbours, at), zero)))
    n += keeps
    to += <usize>keeps << 3
  }
  store<i32>(list, n)
}

/** The same of one image where it lies, padding left out: columns and channels from the ones given on. */
function exact(ip: usize, sums: usize, x: usize, y: usize, column: i32, channel: i32): void {
  const taps = word(ip, Conv.KH) * word(ip, Conv.KW)
  const height = word(ip, Conv.H)
  const width = word(ip, Conv.W)
  for (let k = 0; k < COLUMNS && column + k < columnCount(ip); k++) {
    const tap = (column + k) % taps
    const plane = x + ((<usize>(((column + k) / taps) * height * width)) << 2)
    const dy = (tap / word(ip, Conv.KW)) * word(ip, Conv.dilationY) - word(ip, Conv.padTop)
    const dx = (tap % word(ip, Conv.KW)) * word(ip, Conv.dilationX) - word(ip, Conv.padLeft)
    for (let o = 0; o < CHANNELS && channel + o < word(ip, Conv.O); o++) {
      let from = y + ((<usize>((channel + o) * word(ip, Conv.OH) * word(ip, Conv.OW))) << 2)
      const to = sums + ((<usize>(k * CHANNELS + o)) << 2)
      let sum = load<f32>(to)
      for (let i = 0; i < word(ip, Conv.OH); i++) {
        const r = i * word(ip, Conv.strideY) + dy
        for (let j = 0; j < word(ip, Conv.OW); j++) {
          const c = j * word(ip, Conv.strideX) + dx
          if (r >= 0 && r < height && c >= 0 && c < width) {
            sum += load<f32>(plane + ((<usize>(r * width + c)) << 2)) * load<f32>(from)
          }
          from += 4
        }
      }
      store<f32>(to, sum)
    }
  }
}

/**
 * Writes the byte offsets of the positions and of the columns within the planes (left-over columns repeat the first), and
 * for each block of columns the first and the end of the rows of y that any of them takes to a row of x.
 */
function writeTables(ip: usize, positions: usize, columns: usize, ranges: usize): void {
  const rows = planeRows(ip)
  const cols = planeCols(ip)
  for (let i = 0; i < word(ip, Conv.OH); i++) {
    for (let j = 0; j < word(ip, Conv.OW); j++) {
      store<i32>(positions, (i * word(ip, Conv.strideY) * cols + j * word(ip, Conv.strideX)) << 2)
      positions += 4
    }
  }
  const taps = word(ip, Conv.KH) * word(ip, Conv.KW)
  for (let k = 0; k < columnBlocks(ip) * COLUMNS; k++) {
    const tap = k % taps
    const p = (tap / word(ip, Conv.KW)) * word(ip, Conv.dilationY)
    const q = (tap % word(ip, Conv.KW)) * word(ip, Conv.dilationX)
    store<i32>(columns, k < columnCount(ip) ? (((k / taps) * rows + p) * cols + q) << 2 : 0)
    columns += 4
    const dy = p - word(ip, Conv.padTop)
    const from = dy >= 0 ? 0 : (word(ip, Conv.strideY) - 1 - dy) / word(ip, Conv.strideY)
    const room = word(ip, Conv.H) - 1 - dy
    const to = room < 0 ? 0 : min(word(ip, Conv.OH), room / word(ip, Conv.strideY) + 1)
    const first = (k & 3) == 0
    store<i32>(ranges, first ? from : min(from, load<i32>(ranges)))
    store<i32>(ranges, first ? to : max(to, load<i32>(ranges, 4)), 4)
    if ((k & 3) == 3) ranges += 8
  }
}

export function convWeight(ip: usize, slots: usize, id: i32, count: i32, scratch: usize, shared: usize): void {
  const x = address(ip, Conv.a, slots)
  const y = address(ip, Conv.b, slots)
  const out = address(ip, Conv.out, slots)
  const n = word(ip, Conv.N)
  const outs = word(ip, Conv.O)
  const area = word(ip, Conv.OH) * word(ip, Conv.OW)
  const xImage = (<usize>(word(ip, Conv.C) * word(ip, Conv.H) * word(ip, Conv.W))) << 2
  const yImage = (<usize>(outs * area)) << 2
  const images = together(ip)
  const planes = <usize>planeBytes(ip)
  const panels = <usize>panelBytes(ip)
  const panel0 = scratch + <usize>images * planes
  const positions = panel0 + <usize>images * panels
  const columns = positions + <usize>align(area * 4)
  const ranges = columns + <usize>align(columnBlocks(ip) * 16)
  const list = ranges + <usize>align(columnBlocks(ip) * 8)
  const lists = <usize>listBytes(ip)
  const chunks = chunkCount(ip)
  const bytes = <usize>chunkBytes(ip)
  const across = channelBlocks(ip)
  const blocks = columnBlocks(ip)
  // With fewer chunks than threads the column blocks of a chunk are shared out as well.
  const parts = min(blocks, (count + chunks - 1) / chunks)
  const last = share(chunks * parts, id + 1, count)
  const begin = share(chunks * parts, id, count)
  if (begin < last) {
    memory.fill(scratch, 0, <usize>images * (planes + panels))
    writeTables(ip, positions, columns, ranges)
  }
  for (let item = begin; item < last; item++) {
    const chunk = item / parts
    const part = item - chunk * parts
    const start = share(n, chunk, chunks)
    const stop = share(n, chunk + 1, chunks)
    const to = share(blocks, part + 1, parts)
    for (let e = start; e < stop; e += images) {
      const group = min(images, stop - e)
      let finite = true
      for (let k = 0; k < group; k++) {
        packPlanes(ip, scratch + <usize>k * planes, x + <usize>(e + k) * xImage)
        if (!packPanels(panel0 + <usize>k * panels, y + <usize>(e + k) * yImage, outs, area)) finite = false
      }
      let sums = shared + <usize>chunk * bytes + <usize>(share(blocks, part, parts) * across) * BLOCK
      for (let k = share(blocks, part, parts); k < to; k++) {
        const offset = columns + ((<usize>k) << 4)
        const range = ranges + ((<usize>k) << 3)
        const from = load<i32>(range) * word(ip, Conv.OW)
        const end = max(from, load<i32>(range, 4) * word(ip, Conv.OW))
        const x0 = scratch + load<usize>(offset)
        const x1 = scratch + load<usize>(offset, 4)
        const x2 = scratch + load<usize>(offset, 8)
        const x3 = scratch + load<usize>(offset, 12)
        const t = positions + ((<usize>from) << 2)
        const until = positions + ((<usize>end) << 2)
        const neighbours = x1 == x0 + 4 && x2 == x0 + 8 && x3 == x0 + 12
        const listed = finite && across >= MANY && hasZeros(x0, x1, x2, x3, neighbours, t, until)
        if (listed) {
          for (let g = 0; g < group; g++) {
            const p = <usize>g * planes
            listPositions(list + <usize>g * lists, x0 + p, x1 + p, x2 + p, x3 + p, neighbours, t, until)
          }
        }
        for (let o = 0; o < across; o++) {
          const panel = panel0 + ((<usize>(o * area + from)) << 5)
          if (listed) {
            block<Listed>(sums, e == start, group, x0, x1, x2, x3, neighbours, planes, list, 0, lists, panel, panels)
          } else if (finite) {
            block<All>(sums, e == start, group, x0, x1, x2, x3, neighbours, planes, t, until, 0, panel, panels)
          } else {
            if (e == start) memory.fill(sums, 0, BLOCK)
            for (let g = e; g < e + group; g++) {
              exact(ip, sums, x + <usize>g * xImage, y + <usize>g * yImage, k * COLUMNS, o * CHANNELS)
            }
          }
          sums += BLOCK
        }
      }
    }
  }
  barrier(count)
  const end = share(blocks * across, id + 1, count)
  for (let b = share(blocks * across, id, count); b < end; b++) {
    addChunks(ip, shared + <usize>b * BLOCK, n > 0 ? chunks : 0, bytes, out, (b / across) * COLUMNS, (b % across) * CHANNELS)
  }
}

/** Adds the sums of a block over the chunks and stores them in the order of the weights. */
function addChunks(ip: usize, sums: usize, chunks: i32, bytes: usize, out: usize, column: i32, channel: i32): void {
  const total = columnCount(ip)
  const cols = total - column
  const step = (<usize>total) << 2
  for (let h: usize = 0; h < 2; h++) {
    let a = f32x4.splat(0)
    let b = a
    let c = a
    let d = a
    let from = sums + (h << 4)
    for (let k = 0; k < chunks; k++) {
      a = f32x4.add(a, v128.load(from))
      b = f32x4.add(b, v128.load(from, 32))
      c = f32x4.add(c, v128.load(from, 64))
      d = f32x4.add(d, v128.load(from, 96))
      from += bytes
    }
    const left = word(ip, Conv.O) - channel - (<i32>h << 2)
    const to = out + <usize>(channel + (<i32>h << 2)) * step + ((<usize>column) << 2)
    if (left >= 4 && cols >= 4) {
      storeTransposed(to, step, a, b, c, d)
      continue
    }
    const t0 = v128.shuffle<f32>(a, b, 0, 4, 1, 5)
    const t1 = v128.shuffle<f32>(a, b, 2, 6, 3, 7)
    const t2 = v128.shuffle<f32>(c, d, 0, 4, 1, 5)
    const t3 = v128.shuffle<f32>(c, d, 2, 6, 3, 7)
    if (left > 0) storeUpTo(to, v128.shuffle<f32>(t0, t2, 0, 1, 4, 5), cols)
    if (left > 1) storeUpTo(to + step, v128.shuffle<f32>(t0, t2, 2, 3, 6, 7), cols)
    if (left > 2) storeUpTo(to + step * 2, v128.shuffle<f32>(t1, t3, 0, 1, 4, 5), cols)
    if (left > 3) storeUpTo(to + step * 3, v128.shuffle<f32>(t1, t3, 2, 3, 6, 7), cols)
  }
}
