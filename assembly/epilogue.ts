import { word } from './lanes'
import { Epilogue, Header } from './words'

/**
 * What a product or convolution does to its result before it is stored: out = sum + bias or its relu, the same
 * roundings as the loop that it saves. Two optional words at `at` of the instruction: slot of the bias plus 1 (0: none),
 * and whether relu follows.
 */

/** Address of the bias, 0 when there is none. */
export function biasOf(ip: usize, at: i32, slots: usize): usize {
  if (word(ip, Header.length) <= at || word(ip, at + Epilogue.bias) == 0) return 0
  return load<usize>(slots + ((<usize>(word(ip, at + Epilogue.bias) - 1)) << 2))
}

/** Whether relu follows. */
export function reluOf(ip: usize, at: i32): bool {
  return word(ip, Header.length) > at && word(ip, at + Epilogue.relu) != 0
}

// What follows is asked for when the sums are complete: held in registers during a sum, it would push sums to memory.

/** One bias for all lanes; without one -0, which changes nothing (0 would turn -0 into 0). */
@inline
export function splatBias(bias: usize): v128 {
  return bias ? v128.load32_splat(bias) : f32x4.splat(-0.0)
}

/** All ones for relu; without it nothing. */
@inline
export function maskOf(relu: bool): v128 {
  return i32x4.splat(relu ? -1 : 0)
}

/** As relu of elementwise.ts: what is <= 0 is cleared, NaN stays; max would take seven instructions. */
@inline
export function finish(v: v128, bias: v128, mask: v128): v128 {
  const r = f32x4.add(v, bias)
  return v128.andnot(r, v128.and(f32x4.le(r, f32x4.splat(0)), mask))
}
