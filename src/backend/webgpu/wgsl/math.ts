import { Combine, Micro } from '../../../core/lowering.ts'

/**
 * The scalar functions of core/lowering.ts in WGSL.
 *
 * WGSL lets an implementation assume that no NaN or infinity occurs, and flush subnormals. What is guaranteed all the same:
 *
 * - Comparisons, min, max, relu, sign, step, select, neg, abs, floor, round, up and down work on the bits of their operands as integers: they are exact
 *   for every operand, NaN, infinities, signed zeros and subnormals included. A NaN never gets lost in them.
 * - sqrt, exp, log, tanh, sigmoid, erf, sin and cos test for NaN, infinities and arguments outside their domain on the bits.
 * - add, sub, mul, div and what is built of them (mulAdd, splitMul, absMul) are the device's: rounded correctly (div: 2.5 ulp
 *   for divisors in 2^-126 .. 2^126), perhaps fused; subnormal results may be 0. That they hand on NaN and infinity is IEEE 754 and what every
 *   GPU at hand does, but no promise of WGSL.
 * - exp, log, tanh, sigmoid, erf, sin, cos: the polynomials of assembly/math.ts, some 4 ulp, more where a compiler reassociates.
 */
export const prelude = `
var<private> nan_bits: u32 = 0x7fc00000u;
var<private> inf_bits: u32 = 0x7f800000u;
fn quiet() -> f32 { return bitcast<f32>(nan_bits); }
fn infinite() -> f32 { return bitcast<f32>(inf_bits); }
fn negative(x: f32) -> f32 { return bitcast<f32>(bitcast<u32>(x) ^ 0x80000000u); }
fn magnitude(x: f32) -> u32 { return bitcast<u32>(x) & 0x7fffffffu; }
fn absolute(x: f32) -> f32 { return bitcast<f32>(magnitude(x)); }
fn broken(x: f32) -> bool { return magnitude(x) > 0x7f800000u; }
fn positive(x: f32) -> bool { return bitcast<i32>(x) > 0 && !broken(x); }
fn rank(x: f32) -> i32 { let m = bitcast<i32>(magnitude(x)); return select(m, -m, bitcast<i32>(x) < 0); }
fn total(x: f32) -> i32 { let b = bitcast<i32>(x); return b ^ ((b >> 31u) & 0x7fffffff); }
fn comparable(a: f32, b: f32) -> bool { return !broken(a) && !broken(b); }
fn greater(a: f32, b: f32) -> f32 { return select(0.0, 1.0, comparable(a, b) && rank(a) > rank(b)); }
fn greater_equal(a: f32, b: f32) -> f32 { return select(0.0, 1.0, comparable(a, b) && rank(a) >= rank(b)); }
fn equal(a: f32, b: f32) -> f32 { return select(0.0, 1.0, comparable(a, b) && rank(a) == rank(b)); }
fn maximum(a: f32, b: f32) -> f32 { return select(select(b, a, broken(a) || (total(a) > total(b))), b, broken(b)); }
fn minimum(a: f32, b: f32) -> f32 { return select(select(b, a, broken(a) || (total(a) < total(b))), b, broken(b)); }
fn relu(x: f32) -> f32 { return select(0.0, x, bitcast<i32>(x) > 0 || broken(x)); }
fn relu4(v: vec4<f32>) -> vec4<f32> { return vec4<f32>(relu(v.x), relu(v.y), relu(v.z), relu(v.w)); }
fn step_of(x: f32) -> f32 { return select(select(0.0, 1.0, positive(x)), x, broken(x)); }
fn sign_of(x: f32) -> f32 {
  let s = select(select(-1.0, 1.0, bitcast<i32>(x) > 0), 0.0, magnitude(x) == 0u);
  return select(s, x, broken(x));
}
fn choose(c: f32, a: f32, b: f32) -> f32 { return select(select(a, b, magnitude(c) == 0u), c, broken(c)); }
fn root(x: f32) -> f32 {
  let r = select(sqrt(x), x, magnitude(x) == 0u || magnitude(x) >= 0x7f800000u);
  return select(r, quiet(), bitcast<i32>(x) < 0 && magnitude(x) != 0u);
}
fn above(x: f32) -> f32 {
  let b = bitcast<i32>(x);
  let moved = select(b + select(1, -1, b < 0), 1, magnitude(x) == 0u);
  return select(bitcast<f32>(moved), x, broken(x) || bitcast<u32>(x) == 0x7f800000u);
}
fn power_of_two(i: i32) -> f32 { return bitcast<f32>((i + 127) << 23u); }
fn exponential(x: f32) -> f32 {
  let y = clamp(select(x, 0.0, broken(x)), -104.0, 89.0);
  let k = round(y * 1.44269504);
  let r = (y - k * 0.693359375) + k * 2.12194440e-4;
  var p = 1.9875691500e-4;
  p = p * r + 1.3981999507e-3;
  p = p * r + 8.3334519073e-3;
  p = p * r + 4.1665795894e-2;
  p = p * r + 1.6666665459e-1;
  p = p * r + 5.0000001201e-1;
  p = p * (r * r) + r + 1.0;
  let i = i32(k);
  let half = i >> 1u;
  let v = p * power_of_two(half) * power_of_two(i - half);
  return select(select(v, infinite(), positive(x) && rank(x) > 0x42b17217), x, broken(x));
}
fn logarithm(x: f32) -> f32 {
  let m = magnitude(x);
  // Subnormals may be flushed by arithmetic: their fraction is read as an integer.
  let tiny = m < 0x00800000u;
  let b = bitcast<i32>(select(x, f32(m), tiny)) - 0x3f3504f3;
  let k = f32(b >> 23u) - select(0.0, 149.0, tiny);
  let r = bitcast<f32>((b & 0x007fffff) + 0x3f3504f3) - 1.0;
  let z = r * r;
  var p = 7.0376836292e-2;
  p = p * r - 1.1514610310e-1;
  p = p * r + 1.1676998740e-1;
  p = p * r - 1.2420140846e-1;
  p = p * r + 1.4249322787e-1;
  p = p * r - 1.6668057665e-1;
  p = p * r + 2.0000714765e-1;
  p = p * r - 2.4999993993e-1;
  p = p * r + 3.3333331174e-1;
  p = p * r * z - k * 2.12194440e-4 - z * 0.5;
  let v = (r + p) + k * 0.693359375;
  let special = select(select(v, x, m >= 0x7f800000u), negative(infinite()), m == 0u);
  return select(special, quiet(), bitcast<i32>(x) < 0 && m != 0u);
}
fn with_sign(m: f32, x: f32) -> f32 { return bitcast<f32>(magnitude(m) | (bitcast<u32>(x) & 0x80000000u)); }
fn hyperbolic(x: f32) -> f32 {
  // tanh is 1 in binary32 from 9.02 on.
  let a = select(10.0, absolute(x), magnitude(x) < 0x41200000u);
  let z = a * a;
  var p = -5.70498872745e-3;
  p = p * z + 2.06390887954e-2;
  p = p * z - 5.37397155531e-2;
  p = p * z + 1.33314422036e-1;
  p = p * z - 3.33332819422e-1;
  let near = p * z * a + a;
  let far = 1.0 - 2.0 / (exponential(a + a) + 1.0);
  let v = select(select(far, near, a < 0.625), a, magnitude(a) < 0x39800000u);
  return select(with_sign(v, x), x, broken(x));
}
fn logistic(x: f32) -> f32 {
  let e = exponential(negative(absolute(x)));
  let v = select(1.0, e, bitcast<i32>(x) < 0) / (1.0 + e);
  return select(v, x, broken(x));
}
fn error_function(x: f32) -> f32 {
  // erf is 1 in binary32 from 3.93 on.
  let a = select(4.0, absolute(x), magnitude(x) < 0x40800000u);
  let z = a * a;
  var p = -5.96761703e-4;
  p = p * z + 4.99119423e-3;
  p = p * z - 2.67681349e-2;
  p = p * z + 1.12819925e-1;
  p = p * z - 3.76125336e-1;
  p = p * z + 1.28379166e-1;
  let near = p * a + a;
  let u = -3.88396438e-3 * a + 2.42546219e-2;
  var q = -1.72853470e-5 * a + 3.83197126e-4;
  q = q * z + u;
  q = q * a - 1.06777877e-1;
  q = q * a - 6.34846687e-1;
  q = q * a - 1.28717512e-1;
  let far = 1.0 - exponential(q * a - a);
  let v = select(near, far, a > 0.927734375);
  return select(with_sign(v, x), x, broken(x) || magnitude(x) < 0x00800000u);
}
fn wave(x: f32, quarter: i32) -> f32 {
  let known = magnitude(x) <= 0x46000000u;
  let y = select(0.0, x, known);
  let k = round(y * 0.6366197724);
  let r = ((y - k * 1.5703125) - k * 4.837512969970703125e-4) - k * 7.54978995489188e-8;
  let z = r * r;
  var s = -1.9515295891e-4;
  s = s * z + 8.3321608736e-3;
  s = s * z - 1.6666654611e-1;
  s = s * z * r + r;
  var c = 2.443315711809948e-5;
  c = c * z - 1.388731625493765e-3;
  c = c * z + 4.166664568298827e-2;
  c = c * z * z - z * 0.5 + 1.0;
  let q = i32(k) + quarter;
  let v = select(s, c, (q & 1) != 0);
  return select(quiet(), select(v, negative(v), (q & 2) != 0), known);
}
fn floor_of(x: f32) -> f32 {
  let m = magnitude(x);
  let small = select(0.0, select(0.0, -1.0, m != 0u), bitcast<i32>(x) < 0);
  let v = select(floor(x), select(small, x, m == 0u), m < 0x3f800000u);
  return select(v, x, m >= 0x4b000000u);
}
fn round_of(x: f32) -> f32 {
  return select(select(with_sign(round(x), x), with_sign(0.0, x), magnitude(x) <= 0x3f000000u), x, magnitude(x) >= 0x4b000000u);
}
`

/** The WGSL expression of a scalar function. */
export const micro = (m: Micro, a: string, b: string, c: string): string => {
  switch (m) {
    case Micro.add:
      return `${a} + ${b}`
    case Micro.sub:
      return `${a} - ${b}`
    case Micro.mul:
      return `${a} * ${b}`
    case Micro.div:
      return `${a} / ${b}`
    case Micro.min:
      return `minimum(${a}, ${b})`
    case Micro.max:
      return `maximum(${a}, ${b})`
    case Micro.neg:
      return `negative(${a})`
    case Micro.abs:
      return `absolute(${a})`
    case Micro.sign:
      return `sign_of(${a})`
    case Micro.step:
      return `step_of(${a})`
    case Micro.relu:
      return `relu(${a})`
    case Micro.sqrt:
      return `root(${a})`
    case Micro.exp:
      return `exponential(${a})`
    case Micro.log:
      return `logarithm(${a})`
    case Micro.tanh:
      return `hyperbolic(${a})`
    case Micro.sigmoid:
      return `logistic(${a})`
    case Micro.greater:
      return `greater(${a}, ${b})`
    case Micro.greaterEqual:
      return `greater_equal(${a}, ${b})`
    case Micro.equal:
      return `equal(${a}, ${b})`
    case Micro.select:
      return `choose(${a}, ${b}, ${c})`
    case Micro.splitMul:
      return `${a} * select(${c}, ${b}, positive(${a}))`
    case Micro.mulAdd:
      return `${a} * ${b} + ${c}`
    case Micro.absMul:
      return `absolute(${a}) * ${b}`
    case Micro.erf:
      return `error_function(${a})`
    case Micro.sin:
      return `wave(${a}, 0)`
    case Micro.cos:
      return `wave(${a}, 1)`
    case Micro.floor:
      return `floor_of(${a})`
    case Micro.round:
      return `round_of(${a})`
    case Micro.up:
      return `above(${a})`
    case Micro.down:
      return `negative(above(negative(${a})))`
    default:
      return m satisfies never
  }
}

export const combine = (how: Combine, a: string, b: string): string =>
  how === Combine.sum ? `${a} + ${b}` : how === Combine.max ? `maximum(${a}, ${b})` : `minimum(${a}, ${b})`

/** The neutral element of a combination; infinity comes from a variable, as WGSL has no constant for it. */
export const neutral = (how: Combine): string =>
  how === Combine.sum ? '0.0' : how === Combine.max ? 'negative(infinite())' : 'infinite()'
