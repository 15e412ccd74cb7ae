/**
 * Helpers on 128-bit lanes and on the words of an instruction. A v128 holds four f32. Loads may read up to 28 bytes
 * past the end of an operand (the allocator keeps that many bytes of memory behind every block); stores never write
 * past it.
 */

/** Word `i` of the instruction at `ip`. */
@inline
export function word(ip: usize, i: i32): i32 {
  return load<i32>(ip + ((<usize>i) << 2))
}

/** Address of the slot named by word `i` of the instruction at `ip`. */
@inline
export function address(ip: usize, i: i32, slots: usize): usize {
  return load<usize>(slots + ((<usize>word(ip, i)) << 2))
}

/** First item of share `id` when `total` items are dealt to `count` threads in contiguous ranges. */
@inline
export function share(total: i32, id: i32, count: i32): i32 {
  return <i32>((<i64>total * <i64>id) / <i64>count)
}

/** a * b + c: two roundings, or one where the relaxed module fuses them. */
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c)
  return f32x4.add(f32x4.mul(a, b), c)
}

/** The lowest `r` (1, 2 or 3) lanes of `v` to memory. */
@inline
export function storePart(dst: usize, v: v128, r: i32): void {
  if (r & 2) {
    v128.store64_lane(dst, v, 0)
    if (r & 1) v128.store32_lane(dst, v, 2, 8)
  } else {
    v128.store32_lane(dst, v, 0)
  }
}

/** The lowest min(r, 4) lanes of `v` to memory, r >= 1. */
@inline
export function storeUpTo(dst: usize, v: v128, r: i32): void {
  if (r >= 4) v128.store(dst, v)
  else storePart(dst, v, r)
}

/**
 * Type arguments that tell two kernels of one source apart, that of all steps and that of the steps which a list names: their
 * sizes are constants while it is compiled, so neither kernel has a branch of the other.
 */
export type All = u8
export type Listed = u32

@inline
export function isListed<T>(): bool {
  return sizeof<T>() == sizeof<Listed>()
}

/** All ones in the lowest `r` (0..4) lanes. */
@inline
export function firstLanes(r: i32): v128 {
  return i32x4.lt_s(i32x4(0, 1, 2, 3), i32x4.splat(r))
}

/** (l0 + l2) + (l1 + l3): the fixed tree of every sum over lanes. */
@inline
export function sumLanes(v: v128): f32 {
  const h = f32x4.add(v, v128.shuffle<f32>(v, v, 2, 3, 0, 1))
  return f32x4.extract_lane(h, 0) + f32x4.extract_lane(h, 1)
}

/** Stores the 4 x 4 transpose of the rows v0..v3 at dst, one row every `step` bytes. */
@inline
export function storeTransposed(dst: usize, step: usize, v0: v128, v1: v128, v2: v128, v3: v128): void {
  const t0 = v128.shuffle<f32>(v0, v1, 0, 4, 1, 5)
  const t1 = v128.shuffle<f32>(v0, v1, 2, 6, 3, 7)
  const t2 = v128.shuffle<f32>(v2, v3, 0, 4, 1, 5)
  const t3 = v128.shuffle<f32>(v2, v3, 2, 6, 3, 7)
  v128.store(dst, v128.shuffle<f32>(t0, t2, 0, 1, 4, 5))
  v128.store(dst + step, v128.shuffle<f32>(t0, t2, 2, 3, 6, 7))
  v128.store(dst + step * 2, v128.shuffle<f32>(t1, t3, 0, 1, 4, 5))
  v128.store(dst + step * 3, v128.shuffle<f32>(t1, t3, 2, 3, 6, 7))
}

/** Four f32 that lie `step` bytes apart. */
@inline
export function loadStrided(src: usize, step: usize): v128 {
  let v = v128.load32_zero(src)
  v = v128.load32_lane(src + step, v, 1)
  v = v128.load32_lane(src + step * 2, v, 2)
  return v128.load32_lane(src + step * 3, v, 3)
}

/** dst[0..n) = src[0], src[stride], src[2 stride] ...; `stride` in elements, dst contiguous. */
export function copyRow(dst: usize, src: usize, stride: i32, n: i32): void {
  const end = dst + ((<usize>(n & ~3)) << 2)
  const r = n & 3
  if (stride == 1) {
    while (dst < end) {
      v128.store(dst, v128.load(src))
      dst += 16
      src += 16
    }
    if (r) storePart(dst, v128.load(src), r)
  } else if (stride == 0) {
    const v = v128.load32_splat(src)
    while (dst < end) {
      v128.store(dst, v)
      dst += 16
    }
    if (r) storePart(dst, v, r)
  } else {
    const step = (<usize>stride) << 2
    while (dst < end) {
      v128.store(dst, loadStrided(src, step))
      dst += 16
      src += step << 2
    }
    for (let i = 0; i < r; i++) {
      store<f32>(dst, load<f32>(src))
      dst += 4
      src += step
    }
  }
}

/** dst[0], dst[stride], ... = src[0..n). */
export function scatterRow(dst: usize, stride: i32, src: usize, n: i32): void {
  if (stride == 1) {
    copyRow(dst, src, 1, n)
    return
  }
  const step = (<usize>stride) << 2
  for (let i = 0; i < n; i++) {
    store<f32>(dst, load<f32>(src))
    dst += step
    src += 4
  }
}

/** dst[0..n) = v in every lane. */
export function fillRow(dst: usize, v: v128, n: i32): void {
  const end = dst + ((<usize>(n & ~3)) << 2)
  while (dst < end) {
    v128.store(dst, v)
    dst += 16
  }
  if (n & 3) storePart(dst, v, n & 3)
}

/** Whether all of x[0..n) is finite. */
export function isFinite(x: usize, n: i32): bool {
  const zero = f32x4.splat(0)
  let sum = zero
  for (; n >= 4; n -= 4) {
    sum = f32x4.add(sum, f32x4.mul(v128.load(x), zero))
    x += 16
  }
  if (n > 0) sum = f32x4.add(sum, f32x4.mul(v128.and(v128.load(x), firstLanes(n)), zero))
  return !v128.any_true(f32x4.ne(sum, sum))
}
