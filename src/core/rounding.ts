import { raise } from './error.ts'

/**
 * What an outward-rounded bound is a bound of.
 *
 * - `real`: the network in real arithmetic, at every real point of the box.
 * - `deployed`: also every float32 execution of it, round to nearest (IEEE 754), in which each layer, a product with the scales, shifts and biases round it
 *   (batch norm, alpha and beta of Gemm), is summed in any order, fused or not, its constants folded or not (bounds/executions.ts), and every other op is rounded once, but for
 *   exp, log, tanh and sigmoid, which are within 8 units in the last place, erf and powers, within 16, and functions
 *   composed of them, within 32 of the size that the op names: of 1 for softplus, of alpha for elu, of the operand for gelu, silu, mish, hardSwish and the log-sum-exp (`Outward.scale`).
 *   Not covered: Winograd or FFT convolutions, TF32, f16 and bf16 arithmetic, subnormals flushed to zero, constants folded to subnormal numbers.
 */
export type Semantics = 'real' | 'deployed'

/**
 * How the arithmetic of a bound is rounded. `none`: to nearest, so that the bound may be wrong by what rounding adds up to. Outward: every
 * rounding is covered, so that the bound is a theorem about what `outward` names.
 */
export type Rounding = 'none' | { readonly outward: Semantics }

/** What may be done where bounds of an op are refused under outward rounding. */
export const TO_NEAREST = 'bounds that round to nearest (--rounding none) do without, and prove nothing'

/** Unit roundoff of float32: |fl(x) - x| <= U |x| and <= U |fl(x)|, where nothing underflows. */
const U = 2 ** -24
/** The least positive float32. A product that underflows is off by at most half of it; a sum is exact there. */
export const ETA = 2 ** -149
/** The greatest finite float32. */
export const MOST = (2 - 2 ** -23) * 2 ** 127

const single = new Float32Array(1)
const singleBits = new Int32Array(single.buffer)

/** The float32 just above a finite float32. */
const above = (x: number): number => {
  if (x === 0) return ETA
  single[0] = x
  singleBits[0] += x > 0 ? 1 : -1
  return single[0]
}

/** The least float32 that is not below x. */
export const roundUp = (x: number): number => {
  const y = Math.fround(x)
  return y < x ? (y === Number.NEGATIVE_INFINITY ? -MOST : above(y)) : y
}
/** The greatest float32 that is not above x. */
export const roundDown = (x: number): number => -roundUp(-x)

const double = new Float64Array(1)
const doubleBits = new BigInt64Array(double.buffer)

/** The next double above, as IEEE 754 nextUp: NaN and infinity stay, that of -infinity is the least finite number. */
export const nextDouble = (x: number): number => {
  if (Number.isNaN(x) || x === Number.POSITIVE_INFINITY) return x
  if (x === 0) return Number.MIN_VALUE
  double[0] = x
  doubleBits[0] += x > 0 ? 1n : -1n
  return double[0]
}

/** Most terms of one sum that the constants below are good for. */
const TERMS = 80_000

/**
 * gamma_n = n U / (1 - n U) as a float32 not below it, for n <= 80,000: 1.02 n U, since n U <= 0.0048.
 *
 * A sum of n products a_i b_i, in any order and with any of the steps fused, is sum of a_i b_i (1 + t_i) + e with |t_i| <= gamma_n and
 * |e| <= n ETA: no product meets more than n roundings, and each underflow costs at most ETA / 2 (docs/method.md, section 6; proofs/Sum.v: sum_gamma).
 * @throws unsupported for longer sums.
 */
export const gamma = (n: number): number =>
  n <= TERMS
    ? roundUp(1.02 * n * U)
    : raise({
        kind: 'unsupported',
        what: `outward rounding of a sum of ${n} terms`,
        reason: `the error bounds hold up to ${TERMS}`,
      })

/** 1 / (1 - gamma_n) as a float32 not below it, and by 2^-24 more. With g = n U it is (1 - g) / (1 - 2 g) <= 1 + 1.01 g < 1 + gamma(n). */
export const growth = (n: number): number => roundUp(1 + gamma(n + 1))

/**
 * The floor of computed error bounds, 2^-80. It stands for all that underflows on the way, and keeps subnormal numbers, which processors are
 * slow at, out of the products that errors go through.
 */
export const FAINT = 2 ** -80

/**
 * Raises unless a device rounds as IEEE 754 says, on which everything here rests. WGSL may flush subnormals to zero and divide with an error of
 * 2.5 ulp, and may assume that there is no NaN.
 */
export const requireIeee = (device: string, rounding: Rounding): void => {
  if (rounding !== 'none' && device === 'webgpu')
    raise({
      kind: 'unsupported',
      what: 'outward rounding on webgpu',
      reason: 'its arithmetic is not that of IEEE 754; the wasm and reference devices round outward',
    })
}
