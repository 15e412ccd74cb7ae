import { firstLanes, sumLanes, storePart } from './lanes'
import { Combine } from './words'

/**
 * Accumulators of reductions. A scalar result is carried by 16 lanes (64 bytes): element e of a strip goes to lane e %
 * 16, the last few to the first lanes, and `total` folds them by one fixed tree. A row result is carried by as many f32
 * as it is long.
 */

@inline
function combine4(combine: i32, a: v128, b: v128): v128 {
  if (combine == Combine.max) return f32x4.max(a, b)
  if (combine == Combine.min) return f32x4.min(a, b)
  return f32x4.add(a, b)
}

/** The neutral element of a combination. */
export function identity(combine: i32): v128 {
  if (combine == Combine.max) return f32x4.splat(-Infinity)
  if (combine == Combine.min) return f32x4.splat(Infinity)
  return f32x4.splat(0)
}

@inline
function strip(combine: i32, acc: usize, x: usize, n: i32): void {
  let a0 = v128.load(acc)
  let a1 = v128.load(acc, 16)
  let a2 = v128.load(acc, 32)
  let a3 = v128.load(acc, 48)
  const fast = x + ((<usize>(n & ~15)) << 2)
  while (x < fast) {
    a0 = combine4(combine, a0, v128.load(x))
    a1 = combine4(combine, a1, v128.load(x, 16))
    a2 = combine4(combine, a2, v128.load(x, 32))
    a3 = combine4(combine, a3, v128.load(x, 48))
    x += 64
  }
  const end = fast + ((<usize>(n & 12)) << 2)
  while (x < end) {
    a0 = combine4(combine, a0, v128.load(x))
    x += 16
  }
  if (n & 3) a1 = combine4(combine, a1, v128.bitselect(v128.load(x), identity(combine), firstLanes(n & 3)))
  v128.store(acc, a0)
  v128.store(acc, a1, 16)
  v128.store(acc, a2, 32)
  v128.store(acc, a3, 48)
}

/** acc (16 lanes) = acc combined with x[0..n). */
export function accumulate(combine: i32, acc: usize, x: usize, n: i32): void {
  if (combine == Combine.sum) strip(Combine.sum, acc, x, n)
  else if (combine == Combine.max) strip(Combine.max, acc, x, n)
  else strip(Combine.min, acc, x, n)
}

/** The scalar that 16 lanes stand for. */
export function total(combine: i32, acc: usize): f32 {
  const v = combine4(
    combine,
    combine4(combine, v128.load(acc), v128.load(acc, 16)),
    combine4(combine, v128.load(acc, 32), v128.load(acc, 48)),
  )
  if (combine == Combine.sum) return sumLanes(v)
  const h = combine4(combine, v, v128.shuffle<f32>(v, v, 2, 3, 0, 1))
  return f32x4.extract_lane(combine4(combine, h, v128.shuffle<f32>(h, h, 1, 0, 3, 2)), 0)
}

/** Narrow rows: a few columns stay in registers while all rows pass. */
@inline
function narrow(combine: i32, acc: usize, x: usize, step: usize, rows: i32, n: i32): void {
  let left = n
  for (; left >= 16; left -= 16) {
    let a0 = v128.load(acc)
    let a1 = v128.load(acc, 16)
    let a2 = v128.load(acc, 32)
    let a3 = v128.load(acc, 48)
    let p = x
    for (let r = 0; r < rows; r++) {
      a0 = combine4(combine, a0, v128.load(p))
      a1 = combine4(combine, a1, v128.load(p, 16))
      a2 = combine4(combine, a2, v128.load(p, 32))
      a3 = combine4(combine, a3, v128.load(p, 48))
      p += step
    }
    v128.store(acc, a0)
    v128.store(acc, a1, 16)
    v128.store(acc, a2, 32)
    v128.store(acc, a3, 48)
    acc += 64
    x += 64
  }
  for (; left > 0; left -= 4) {
    let a0 = v128.load(acc)
    let p = x
    for (let r = 0; r < rows; r++) {
      a0 = combine4(combine, a0, v128.load(p))
      p += step
    }
    if (left >= 4) v128.store(acc, a0)
    else storePart(acc, a0, left)
    acc += 16
    x += 16
  }
}

/** Wide rows: four at a time pass through the accumulator, so that memory is read in long runs. */
@inline
function wide(combine: i32, acc: usize, x: usize, step: usize, rows: i32, n: i32): void {
  const end = acc + ((<usize>(n & ~3)) << 2)
  for (; rows >= 4; rows -= 4) {
    let p = x
    let q = x + step * 2
    for (let a = acc; a < end; a += 16) {
      let v = combine4(combine, v128.load(a), v128.load(p))
      v = combine4(combine, v, v128.load(p + step))
      v = combine4(combine, v, v128.load(q))
      v = combine4(combine, v, v128.load(q + step))
      v128.store(a, v)
      p += 16
      q += 16
    }
    x += step << 2
  }
  for (; rows > 0; rows--) {
    let p = x
    for (let a = acc; a < end; a += 16) {
      v128.store(a, combine4(combine, v128.load(a), v128.load(p)))
      p += 16
    }
    x += step
  }
}

@inline
function columns(combine: i32, acc: usize, x: usize, step: usize, rows: i32, n: i32): void {
  if (n >= 128 && step > 0) {
    wide(combine, acc, x, step, rows, n)
    const done = (<usize>(n & ~3)) << 2
    narrow(combine, acc + done, x + done, step, rows, n & 3)
  } else {
    narrow(combine, acc, x, step, rows, n)
  }
}

/** acc[0..n) = acc combined with each of the rows x[r, 0..n), rows `step` bytes apart, in ascending order. */
export function accumulateRows(combine: i32, acc: usize, x: usize, step: usize, rows: i32, n: i32): void {
  if (combine == Combine.sum) columns(Combine.sum, acc, x, step, rows, n)
  else if (combine == Combine.max) columns(Combine.max, acc, x, step, rows, n)
  else columns(Combine.min, acc, x, step, rows, n)
}
