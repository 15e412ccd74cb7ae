/**
 * exp, log, tanh, sigmoid, erf, sin and cos on four lanes, from IEEE operations alone, so that every engine computes the same bits.
 * Bounds were measured against f64 (test/backend/wasm-math.test.ts):
 *
 *   exp      2 ulp (of the subnormal spacing below 2^-126)    exp(-inf) = 0, exp(inf) = inf
 *   log      2 ulp                                             log(+-0) = -inf, log(x < 0) = NaN, log(inf) = inf
 *   tanh     3 ulp                                             tanh(+-inf) = +-1, tanh(-0) = -0
 *   sigmoid  4 ulp                                             sigmoid(-inf) = 0, sigmoid(inf) = 1
 *   erf      3 ulp                                             erf(+-inf) = +-1, erf(-0) = -0
 *   sin, cos 2^-23 (absolute, |x| <= 8192)                     NaN beyond
 *
 * NaN gives NaN everywhere. The polynomials are those of Cephes (Moshier) for binary32; those of erf are Juffa's.
 *
 * Constants live in memory: V8 builds a v128 constant anew with four instructions wherever one is used, a splat load is
 * one.
 */

// Largest and smallest argument, log2 e, 1.5 * 2^23, ln 2 in two parts (k times the first is exact), 1, then P: 5 ..
// 10.
const EXP = memory.data<f32>([
  89.0, -104.0, 1.44269504088896341, 12582912.0, 0.693359375, -2.1219444e-4, 1.0, 1.98756915e-4, 1.3981999507e-3,
  8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
])
// The smallest normal number, 2^25, 25, 1, infinity, 1/2, ln 2 in two parts, then P.
const LOG = memory.data<f32>([
  1.17549435e-38, 33554432.0, 25.0, 1.0, Infinity, 0.5, 0.693359375, -2.1219444e-4, 7.0376836292e-2, -1.151461031e-1,
  1.167699874e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1,
  3.3333331174e-1,
])
// 5/8, 1, 2, then P.
const TANH = memory.data<f32>([
  0.625, 1.0, 2.0, -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1,
])

// Where the second polynomial begins, 1, then Q in |x| and x^2, then P.
const ERF = memory.data<f32>([
  0.927734375, 1.0, -1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1,
  -1.28717512e-1, -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1,
])
// 2 / pi, 1.5 * 2^23, pi / 2 in three parts (k times the first two is exact), 8192, 1, 1/2, then P of sin and of cos.
const SIN = memory.data<f32>([
  0.63661977236758134, 12582912.0, 1.5703125, 4.837512969970703125e-4, 7.54978995489188e-8, 8192.0, 1.0, 0.5,
  -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1, 2.443315711809948e-5, -1.388731625493765e-3,
  4.166664568298827e-2,
])

/** Entry i of a table in all lanes. */
@inline
function at(table: usize, i: usize): v128 {
  return v128.load32_splat(table + (i << 2))
}

/** p x + entry i: one step of Horner's rule. */
@inline
function horner(p: v128, x: v128, table: usize, i: usize): v128 {
  return f32x4.add(f32x4.mul(p, x), at(table, i))
}

/** e^x = 2^k e^r, k = round(x / ln 2), |r| <= ln 2 / 2. */
@inline
export function exp4(x: v128): v128 {
  // Outside these the result is 0 or inf anyway. pmin(a, b) = b < a ? b : a hands on a NaN in its first operand.
  const y = f32x4.pmax(f32x4.pmin(x, at(EXP, 0)), at(EXP, 1))
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
  const shifted = f32x4.add(f32x4.mul(y, at(EXP, 2)), at(EXP, 3))
  const k = f32x4.sub(shifted, at(EXP, 3))
  let r = f32x4.sub(y, f32x4.mul(k, at(EXP, 4)))
  r = f32x4.sub(r, f32x4.mul(k, at(EXP, 5)))
  let p = at(EXP, 7)
  p = horner(p, r, EXP, 8)
  p = horner(p, r, EXP, 9)
  p = horner(p, r, EXP, 10)
  p = horner(p, r, EXP, 11)
  p = horner(p, r, EXP, 12)
  p = f32x4.add(f32x4.add(f32x4.mul(f32x4.mul(r, r), p), r), at(EXP, 6))
  // 2^k as 2^(k >> 1) * 2^(k - (k >> 1)): k reaches from -150 to 128, beyond the exponents of one f32.
  const i = i32x4.sub(shifted, at(EXP, 3))
  const half = i32x4.shr_s(i, 1)
  const one = at(EXP, 6)
  p = f32x4.mul(p, i32x4.add(i32x4.shl(half, 23), one))
  return f32x4.mul(p, i32x4.add(i32x4.shl(i32x4.sub(i, half), 23), one))
}

/** log x = k ln 2 + log m, m in [sqrt 1/2, sqrt 2). */
@inline
export function log4(x: v128): v128 {
  // Subnormals are scaled by 2^25 first.
  const tiny = f32x4.lt(x, at(LOG, 0))
  const y = v128.bitselect(f32x4.mul(x, at(LOG, 1)), x, tiny)
  // k so that y = m 2^k: subtracting the bits of sqrt 1/2 puts the border there.
  const border = i32x4.splat(0x3f3504f3)
  const bits = i32x4.sub(y, border)
  const k = f32x4.sub(f32x4.convert_i32x4_s(i32x4.shr_s(bits, 23)), v128.and(tiny, at(LOG, 2)))
  const m = i32x4.add(v128.and(bits, i32x4.splat(0x007fffff)), border)
  const r = f32x4.sub(m, at(LOG, 3))
  const z = f32x4.mul(r, r)
  let p = at(LOG, 8)
  p = horner(p, r, LOG, 9)
  p = horner(p, r, LOG, 10)
  p = horner(p, r, LOG, 11)
  p = horner(p, r, LOG, 12)
  p = horner(p, r, LOG, 13)
  p = horner(p, r, LOG, 14)
  p = horner(p, r, LOG, 15)
  p = horner(p, r, LOG, 16)
  p = f32x4.mul(f32x4.mul(p, r), z)
  // log m = r - z/2 + p; the small part of k ln 2 joins the small terms.
  p = f32x4.add(p, f32x4.mul(k, at(LOG, 7)))
  p = f32x4.sub(p, f32x4.mul(z, at(LOG, 5)))
  let v = f32x4.add(f32x4.add(r, p), f32x4.mul(k, at(LOG, 6)))
  v = v128.bitselect(x, v, f32x4.eq(x, at(LOG, 4)))
  v = v128.bitselect(f32x4.neg(at(LOG, 4)), v, f32x4.eq(x, f32x4.splat(0.0)))
  // Where x >= 0 does not hold (negative or NaN) all bits are set, which is a NaN.
  return v128.or(v, v128.not(f32x4.ge(x, f32x4.splat(0.0))))
}

/** tanh x = x + x^3 P(x^2) for |x| < 5/8, else 1 - 2 / (e^2|x| + 1) with the sign of x. */
@inline
export function tanh4(x: v128): v128 {
  const a = f32x4.abs(x)
  const z = f32x4.mul(x, x)
  let p = at(TANH, 3)
  p = horner(p, z, TANH, 4)
  p = horner(p, z, TANH, 5)
  p = horner(p, z, TANH, 6)
  p = horner(p, z, TANH, 7)
  const near = f32x4.add(f32x4.mul(f32x4.mul(p, z), a), a)
  const e = exp4(f32x4.add(a, a))
  const far = f32x4.sub(at(TANH, 1), f32x4.div(at(TANH, 2), f32x4.add(e, at(TANH, 1))))
  // Computed for |x|; the sign comes back last, and with it that of -0.
  const v = v128.bitselect(near, far, f32x4.lt(a, at(TANH, 0)))
  return v128.or(v, v128.xor(x, a))
}

/** sigmoid x = (x >= 0 ? 1 : e) / (1 + e), e = e^-|x|: no overflow, small results keep their relative precision. */
@inline
export function sigmoid4(x: v128): v128 {
  const one = at(EXP, 6)
  const e = exp4(f32x4.neg(f32x4.abs(x)))
  const top = v128.bitselect(one, e, f32x4.ge(x, f32x4.splat(0.0)))
  return f32x4.div(top, f32x4.add(one, e))
}

/** erf x = x + x P(x^2) for |x| below 0.93, else 1 - e^(-|x| + |x| Q(|x|)) with the sign of x. */
@inline
export function erf4(x: v128): v128 {
  const a = f32x4.abs(x)
  const z = f32x4.mul(x, x)
  let p = at(ERF, 9)
  p = horner(p, z, ERF, 10)
  p = horner(p, z, ERF, 11)
  p = horner(p, z, ERF, 12)
  p = horner(p, z, ERF, 13)
  p = horner(p, z, ERF, 14)
  const near = f32x4.add(f32x4.mul(p, a), a)
  let q = f32x4.add(f32x4.mul(at(ERF, 2), a), at(ERF, 3))
  const u = f32x4.add(f32x4.mul(at(ERF, 4), a), at(ERF, 5))
  q = f32x4.add(f32x4.mul(q, z), u)
  q = horner(q, a, ERF, 6)
  q = horner(q, a, ERF, 7)
  q = horner(q, a, ERF, 8)
  const far = f32x4.sub(at(ERF, 1), exp4(f32x4.sub(f32x4.mul(q, a), a)))
  // Beyond 4 the result is 1, and powers could overflow with different signs.
  const one = v128.bitselect(at(ERF, 1), far, f32x4.gt(a, f32x4.splat(4)))
  const v = v128.bitselect(one, near, f32x4.gt(a, at(ERF, 0)))
  return v128.or(v, v128.xor(x, a))
}

/** sin(x + quarter pi / 2): x = k pi / 2 + r, |r| <= pi / 4, and sin or cos of r with the sign of the quadrant. */
@inline
function quadrant4(x: v128, quarter: i32): v128 {
  const shifted = f32x4.add(f32x4.mul(x, at(SIN, 0)), at(SIN, 1))
  const k = f32x4.sub(shifted, at(SIN, 1))
  let r = f32x4.sub(x, f32x4.mul(k, at(SIN, 2)))
  r = f32x4.sub(r, f32x4.mul(k, at(SIN, 3)))
  r = f32x4.sub(r, f32x4.mul(k, at(SIN, 4)))
  const z = f32x4.mul(r, r)
  let s = at(SIN, 8)
  s = horner(s, z, SIN, 9)
  s = horner(s, z, SIN, 10)
  s = f32x4.add(f32x4.mul(f32x4.mul(s, z), r), r)
  let c = at(SIN, 11)
  c = horner(c, z, SIN, 12)
  c = horner(c, z, SIN, 13)
  c = f32x4.add(f32x4.sub(f32x4.mul(f32x4.mul(c, z), z), f32x4.mul(z, at(SIN, 7))), at(SIN, 6))
  const q = i32x4.add(i32x4.sub(shifted, at(SIN, 1)), i32x4.splat(quarter))
  const odd = i32x4.shr_s(i32x4.shl(q, 31), 31)
  const sign = i32x4.shl(i32x4.shr_s(q, 1), 31)
  const v = v128.xor(v128.bitselect(c, s, odd), sign)
  // Where |x| <= 8192 does not hold all bits are set, which is a NaN.
  return v128.or(v, v128.not(f32x4.le(f32x4.abs(x), at(SIN, 5))))
}

@inline
export function sin4(x: v128): v128 {
  return quadrant4(x, 0)
}

@inline
export function cos4(x: v128): v128 {
  return quadrant4(x, 1)
}
