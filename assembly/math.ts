/**
 * exp, log, tanh and sigmoid on four lanes, from IEEE operations alone, so that every engine computes the same bits.
 * Bounds were measured against f64 on a dense grid (test/backend/wasm-math.test.ts):
 *
 *   exp      2 ulp (results below 2^-126: 2 ulp of the subnormal spacing)    exp(-inf) = 0, exp(inf) = inf
 *   log      2 ulp                                                            log(+-0) = -inf, log(x < 0) = NaN, log(inf) = inf
 *   tanh     3 ulp                                                            tanh(+-inf) = +-1, tanh(-0) = -0
 *   sigmoid  4 ulp                                                            sigmoid(-inf) = 0, sigmoid(inf) = 1
 *
 * NaN gives NaN everywhere. The polynomials are those of Cephes (Moshier) for binary32.
 */

/** e^x = 2^k e^r, k = round(x / ln 2), |r| <= ln 2 / 2; ln 2 in two parts so that k * ln2High is exact. */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  // Outside these the result is 0 or inf anyway; f32x4.min and max hand NaN on.
  const y = f32x4.max(f32x4.min(x, f32x4.splat(89.0)), f32x4.splat(-104.0))
  const k = f32x4.nearest(f32x4.mul(y, f32x4.splat(1.44269504088896341)))
  let r = f32x4.sub(y, f32x4.mul(k, f32x4.splat(0.693359375)))
  r = f32x4.sub(r, f32x4.mul(k, f32x4.splat(-2.12194440e-4)))
  let p = f32x4.splat(1.9875691500e-4)
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.3981999507e-3))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(5.0000001201e-1))
  p = f32x4.add(f32x4.add(f32x4.mul(f32x4.mul(r, r), p), r), f32x4.splat(1.0))
  // 2^k as 2^(k >> 1) * 2^(k - (k >> 1)): k reaches from -150 to 128, outside the exponents of one f32.
  const i = i32x4.trunc_sat_f32x4_s(k)
  const half = i32x4.shr_s(i, 1)
  const one = i32x4.splat(127)
  p = f32x4.mul(p, i32x4.shl(i32x4.add(half, one), 23))
  return f32x4.mul(p, i32x4.shl(i32x4.add(i32x4.sub(i, half), one), 23))
}

/** log x = k ln 2 + log m, m in [sqrt 1/2, sqrt 2). */
// @ts-ignore: decorator
@inline
export function log4(x: v128): v128 {
  // Subnormals are scaled by 2^25 first.
  const tiny = f32x4.lt(x, f32x4.splat(1.17549435e-38))
  const y = v128.bitselect(f32x4.mul(x, f32x4.splat(33554432.0)), x, tiny)
  // k so that y = m 2^k: subtracting the bits of sqrt(1/2) puts the border there.
  const bits = i32x4.sub(y, i32x4.splat(0x3f3504f3))
  const k = f32x4.sub(
    f32x4.convert_i32x4_s(i32x4.shr_s(bits, 23)),
    v128.and(tiny, f32x4.splat(25.0)),
  )
  const m = i32x4.add(v128.and(bits, i32x4.splat(0x007fffff)), i32x4.splat(0x3f3504f3))
  const r = f32x4.sub(m, f32x4.splat(1.0))
  const z = f32x4.mul(r, r)
  let p = f32x4.splat(7.0376836292e-2)
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(-1.1514610310e-1))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.1676998740e-1))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(-1.2420140846e-1))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.4249322787e-1))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(-1.6668057665e-1))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(2.0000714765e-1))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(-2.4999993993e-1))
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(3.3333331174e-1))
  p = f32x4.mul(f32x4.mul(p, r), z)
  // log m = r - z/2 + p; the small part of k ln 2 joins the small terms.
  p = f32x4.add(p, f32x4.mul(k, f32x4.splat(-2.12194440e-4)))
  p = f32x4.sub(p, f32x4.mul(z, f32x4.splat(0.5)))
  let v = f32x4.add(f32x4.add(r, p), f32x4.mul(k, f32x4.splat(0.693359375)))
  v = v128.bitselect(f32x4.splat(-Infinity), v, f32x4.eq(x, f32x4.splat(0.0)))
  v = v128.bitselect(x, v, f32x4.eq(x, f32x4.splat(Infinity)))
  // Negative: NaN; NaN stays NaN (all bits set is a NaN).
  return v128.or(v, v128.not(f32x4.ge(x, f32x4.splat(0.0))))
}

/** tanh x = x + x^3 P(x^2) for |x| < 0.625, else 1 - 2 / (e^2|x| + 1) with the sign of x. */
// @ts-ignore: decorator
@inline
export function tanh4(x: v128): v128 {
  const sign = v128.and(x, i32x4.splat(0x80000000))
  const a = f32x4.abs(x)
  const z = f32x4.mul(x, x)
  let p = f32x4.splat(-5.70498872745e-3)
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(2.06390887954e-2))
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(-5.37397155531e-2))
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(1.33314422036e-1))
  p = f32x4.add(f32x4.mul(p, z), f32x4.splat(-3.33332819422e-1))
  const near = f32x4.add(f32x4.mul(f32x4.mul(p, z), x), x)
  const e = exp4(f32x4.add(a, a))
  const far = f32x4.sub(f32x4.splat(1.0), f32x4.div(f32x4.splat(2.0), f32x4.add(e, f32x4.splat(1.0))))
  // The sign is put back on all results: near(-0) = -0 + 0 would lose it.
  const v = v128.bitselect(near, far, f32x4.lt(a, f32x4.splat(0.625)))
  return v128.or(f32x4.abs(v), sign)
}

/** sigmoid x = (x >= 0 ? 1 : e) / (1 + e), e = e^-|x|: no overflow, small results keep their relative precision. */
// @ts-ignore: decorator
@inline
export function sigmoid4(x: v128): v128 {
  const one = f32x4.splat(1.0)
  const e = exp4(f32x4.neg(f32x4.abs(x)))
  const top = v128.bitselect(one, e, f32x4.ge(x, f32x4.splat(0.0)))
  return f32x4.div(top, f32x4.add(one, e))
}
