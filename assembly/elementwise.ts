import { madd, storePart } from './lanes'
import { cos4, erf4, exp4, log4, sigmoid4, sin4, tanh4 } from './math'
import { Micro } from './words'

/**
 * The scalar functions of a loop on strips. An operand is a pointer and a step in bytes per four elements: 16 walks a
 * strip, 0 repeats one group of four (a scalar that the caller has splatted to 16 bytes). The strip is contiguous at
 * dst. The last n % 4 elements run through the same lanes, so NaN, signed zeros and subnormals fare alike everywhere.
 */

/** The next number above: one more in the bits of what is positive, one less in those of what is negative. */
@inline
function above(a: v128): v128 {
  // -0 + 0 = 0, whose neighbour has the bits 1.
  const bits = f32x4.add(a, f32x4.splat(0))
  const moved = i32x4.add(bits, v128.or(i32x4.shr_s(bits, 31), i32x4.splat(1)))
  return v128.bitselect(moved, a, f32x4.lt(a, f32x4.splat(Infinity)))
}

/** f(a). */
@inline
function lanes1(micro: i32, a: v128): v128 {
  if (micro == Micro.neg) return f32x4.neg(a)
  if (micro == Micro.abs) return f32x4.abs(a)
  if (micro == Micro.sign) {
    const zero = f32x4.splat(0)
    const up = v128.and(f32x4.gt(a, zero), f32x4.splat(1))
    const down = v128.and(f32x4.lt(a, zero), f32x4.splat(-1))
    return v128.or(v128.or(up, down), f32x4.ne(a, a))
  }
  if (micro == Micro.step) {
    return v128.or(v128.and(f32x4.gt(a, f32x4.splat(0)), f32x4.splat(1)), f32x4.ne(a, a))
  }
  // Clearing where a <= 0 keeps NaN (no comparison holds) and turns -0 into +0, in two instructions instead of max's
  // seven.
  if (micro == Micro.relu) return v128.andnot(a, f32x4.le(a, f32x4.splat(0)))
  if (micro == Micro.sqrt) return f32x4.sqrt(a)
  if (micro == Micro.up) return above(a)
  if (micro == Micro.down) return f32x4.neg(above(f32x4.neg(a)))
  if (micro == Micro.exp) return exp4(a)
  if (micro == Micro.log) return log4(a)
  if (micro == Micro.tanh) return tanh4(a)
  if (micro == Micro.sigmoid) return sigmoid4(a)
  if (micro == Micro.erf) return erf4(a)
  if (micro == Micro.sin) return sin4(a)
  if (micro == Micro.cos) return cos4(a)
  if (micro == Micro.floor) return f32x4.floor(a)
  if (micro == Micro.round) return f32x4.nearest(a)
  return a
}

/** f(a, b). */
@inline
function lanes2(micro: i32, a: v128, b: v128): v128 {
  if (micro == Micro.add) return f32x4.add(a, b)
  if (micro == Micro.sub) return f32x4.sub(a, b)
  if (micro == Micro.mul) return f32x4.mul(a, b)
  if (micro == Micro.div) return f32x4.div(a, b)
  if (micro == Micro.min) return f32x4.min(a, b)
  if (micro == Micro.max) return f32x4.max(a, b)
  if (micro == Micro.greater) return v128.and(f32x4.gt(a, b), f32x4.splat(1))
  if (micro == Micro.greaterEqual) return v128.and(f32x4.ge(a, b), f32x4.splat(1))
  if (micro == Micro.equal) return v128.and(f32x4.eq(a, b), f32x4.splat(1))
  return f32x4.mul(f32x4.abs(a), b)
}

/** f(a, b, c). */
@inline
function lanes3(micro: i32, a: v128, b: v128, c: v128): v128 {
  if (micro == Micro.select) {
    const taken = v128.bitselect(c, b, f32x4.eq(a, f32x4.splat(0)))
    return v128.or(taken, f32x4.ne(a, a))
  }
  if (micro == Micro.splitMul) return f32x4.mul(a, v128.bitselect(b, c, f32x4.gt(a, f32x4.splat(0))))
  return madd(a, b, c)
}

@inline
function strip1(micro: i32, dst: usize, a: usize, sa: usize, n: i32): void {
  const end = dst + ((<usize>(n & ~3)) << 2)
  if (sa == 16) {
    const fast = dst + ((<usize>(n & ~15)) << 2)
    while (dst < fast) {
      const v0 = lanes1(micro, v128.load(a))
      const v1 = lanes1(micro, v128.load(a, 16))
      const v2 = lanes1(micro, v128.load(a, 32))
      const v3 = lanes1(micro, v128.load(a, 48))
      v128.store(dst, v0)
      v128.store(dst, v1, 16)
      v128.store(dst, v2, 32)
      v128.store(dst, v3, 48)
      dst += 64
      a += 64
    }
  }
  while (dst < end) {
    v128.store(dst, lanes1(micro, v128.load(a)))
    dst += 16
    a += sa
  }
  if (n & 3) storePart(dst, lanes1(micro, v128.load(a)), n & 3)
}

/** The same for functions whose code is long. */
@inline
function heavy1(micro: i32, dst: usize, a: usize, sa: usize, n: i32): void {
  const end = dst + ((<usize>(n & ~3)) << 2)
  while (dst < end) {
    v128.store(dst, lanes1(micro, v128.load(a)))
    dst += 16
    a += sa
  }
  if (n & 3) storePart(dst, lanes1(micro, v128.load(a)), n & 3)
}

@inline
function strip2(micro: i32, dst: usize, a: usize, sa: usize, b: usize, sb: usize, n: i32): void {
  const end = dst + ((<usize>(n & ~3)) << 2)
  const fast = dst + ((<usize>(n & ~15)) << 2)
  if (sa == 16 && sb == 16) {
    while (dst < fast) {
      const v0 = lanes2(micro, v128.load(a), v128.load(b))
      const v1 = lanes2(micro, v128.load(a, 16), v128.load(b, 16))
      const v2 = lanes2(micro, v128.load(a, 32), v128.load(b, 32))
      const v3 = lanes2(micro, v128.load(a, 48), v128.load(b, 48))
      v128.store(dst, v0)
      v128.store(dst, v1, 16)
      v128.store(dst, v2, 32)
      v128.store(dst, v3, 48)
      dst += 64
      a += 64
      b += 64
    }
  } else if (sa == 16) {
    const x = v128.load(b)
    while (dst < fast) {
      const v0 = lanes2(micro, v128.load(a), x)
      const v1 = lanes2(micro, v128.load(a, 16), x)
      const v2 = lanes2(micro, v128.load(a, 32), x)
      const v3 = lanes2(micro, v128.load(a, 48), x)
      v128.store(dst, v0)
      v128.store(dst, v1, 16)
      v128.store(dst, v2, 32)
      v128.store(dst, v3, 48)
      dst += 64
      a += 64
    }
  } else if (sb == 16) {
    const x = v128.load(a)
    while (dst < fast) {
      const v0 = lanes2(micro, x, v128.load(b))
      const v1 = lanes2(micro, x, v128.load(b, 16))
      const v2 = lanes2(micro, x, v128.load(b, 32))
      const v3 = lanes2(micro, x, v128.load(b, 48))
      v128.store(dst, v0)
      v128.store(dst, v1, 16)
      v128.store(dst, v2, 32)
      v128.store(dst, v3, 48)
      dst += 64
      b += 64
    }
  }
  while (dst < end) {
    v128.store(dst, lanes2(micro, v128.load(a), v128.load(b)))
    dst += 16
    a += sa
    b += sb
  }
  if (n & 3) storePart(dst, lanes2(micro, v128.load(a), v128.load(b)), n & 3)
}

@inline
function strip3(
  micro: i32,
  dst: usize,
  a: usize,
  sa: usize,
  b: usize,
  sb: usize,
  c: usize,
  sc: usize,
  n: i32,
): void {
  const end = dst + ((<usize>(n & ~3)) << 2)
  const fast = dst + ((<usize>(n & ~7)) << 2)
  while (dst < fast) {
    const v0 = lanes3(micro, v128.load(a), v128.load(b), v128.load(c))
    const v1 = lanes3(micro, v128.load(a + sa), v128.load(b + sb), v128.load(c + sc))
    v128.store(dst, v0)
    v128.store(dst, v1, 16)
    dst += 32
    a += sa << 1
    b += sb << 1
    c += sc << 1
  }
  while (dst < end) {
    v128.store(dst, lanes3(micro, v128.load(a), v128.load(b), v128.load(c)))
    dst += 16
    a += sa
    b += sb
    c += sc
  }
  if (n & 3) storePart(dst, lanes3(micro, v128.load(a), v128.load(b), v128.load(c)), n & 3)
}

/** dst[0..n) = micro(a, b, c). dst may be one of the operands when that operand walks (step 16). */
export function apply(
  micro: i32,
  dst: usize,
  a: usize,
  sa: usize,
  b: usize,
  sb: usize,
  c: usize,
  sc: usize,
  n: i32,
): void {
  switch (micro) {
    case Micro.add:
      strip2(Micro.add, dst, a, sa, b, sb, n)
      break
    case Micro.sub:
      strip2(Micro.sub, dst, a, sa, b, sb, n)
      break
    case Micro.mul:
      strip2(Micro.mul, dst, a, sa, b, sb, n)
      break
    case Micro.div:
      strip2(Micro.div, dst, a, sa, b, sb, n)
      break
    case Micro.min:
      strip2(Micro.min, dst, a, sa, b, sb, n)
      break
    case Micro.max:
      strip2(Micro.max, dst, a, sa, b, sb, n)
      break
    case Micro.neg:
      strip1(Micro.neg, dst, a, sa, n)
      break
    case Micro.abs:
      strip1(Micro.abs, dst, a, sa, n)
      break
    case Micro.sign:
      strip1(Micro.sign, dst, a, sa, n)
      break
    case Micro.step:
      strip1(Micro.step, dst, a, sa, n)
      break
    case Micro.relu:
      strip1(Micro.relu, dst, a, sa, n)
      break
    case Micro.sqrt:
      strip1(Micro.sqrt, dst, a, sa, n)
      break
    case Micro.exp:
      heavy1(Micro.exp, dst, a, sa, n)
      break
    case Micro.log:
      heavy1(Micro.log, dst, a, sa, n)
      break
    case Micro.tanh:
      heavy1(Micro.tanh, dst, a, sa, n)
      break
    case Micro.sigmoid:
      heavy1(Micro.sigmoid, dst, a, sa, n)
      break
    case Micro.erf:
      heavy1(Micro.erf, dst, a, sa, n)
      break
    case Micro.sin:
      heavy1(Micro.sin, dst, a, sa, n)
      break
    case Micro.cos:
      heavy1(Micro.cos, dst, a, sa, n)
      break
    case Micro.floor:
      strip1(Micro.floor, dst, a, sa, n)
      break
    case Micro.round:
      strip1(Micro.round, dst, a, sa, n)
      break
    case Micro.up:
      strip1(Micro.up, dst, a, sa, n)
      break
    case Micro.down:
      strip1(Micro.down, dst, a, sa, n)
      break
    case Micro.greater:
      strip2(Micro.greater, dst, a, sa, b, sb, n)
      break
    case Micro.greaterEqual:
      strip2(Micro.greaterEqual, dst, a, sa, b, sb, n)
      break
    case Micro.equal:
      strip2(Micro.equal, dst, a, sa, b, sb, n)
      break
    case Micro.select:
      strip3(Micro.select, dst, a, sa, b, sb, c, sc, n)
      break
    case Micro.splitMul:
      strip3(Micro.splitMul, dst, a, sa, b, sb, c, sc, n)
      break
    case Micro.mulAdd:
      strip3(Micro.mulAdd, dst, a, sa, b, sb, c, sc, n)
      break
    case Micro.absMul:
      strip2(Micro.absMul, dst, a, sa, b, sb, n)
      break
    default:
      unreachable()
  }
}
