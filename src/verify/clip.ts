import { roundDown, roundUp } from '../core/rounding.ts'
import type { Box } from './goals.ts'

/**
 * What a linear bound says of a constraint c . y <= b within a box [l, u]: c . y - b is at least margin + sum_i |A_i| d_i(x), d_i being how far x_i is from l_i where
 * A_i > 0 and from u_i where A_i < 0 (`lines` of a bound). Coefficients stand at `from` in a larger array.
 */
export interface Line {
  readonly margin: number
  readonly coefficients: ArrayLike<number>
  readonly from: number
}

/** A sum of n non-negative doubles, products that were rounded, is off by less than this share: each of the n + 2 roundings by 2^-53. */
const shareOf = (n: number): number => Math.max(2 ** -40, n * 2 ** -50)
/** Looks at all lines: a line says more where another has moved the ends that it is least at. */
const ROUNDS = 2

/**
 * The part of a box in which all constraints may hold, undefined where none is (clipping by linear constraints, arXiv:2512.11087): where they hold |A_i| d_i <= -margin for
 * each i, since no term of the sum is negative. Ends that others have moved raise the margin before: by |A_i| times the way of the end at which the line is least.
 * Ends are float32 and rounded outward, so that no point is lost.
 */
export const clipped = ({ lower, upper }: Box, lines: readonly Line[]): Box | undefined => {
  const usable = lines.filter(({ margin }) => Number.isFinite(margin))
  if (usable.length === 0) return { lower, upper }
  const share = shareOf(lower.length)
  const [less, more] = [1 - share, 1 + share]
  const [low, high] = [lower.slice(), upper.slice()]
  for (let round = 0; round < Math.min(ROUNDS, usable.length); round++)
    for (const { margin, coefficients, from } of usable) {
      let gained = 0
      for (let i = 0; i < low.length; i++) {
        const a = coefficients[from + i]
        gained += a > 0 ? a * (low[i] - lower[i]) : a < 0 ? a * (high[i] - upper[i]) : 0
      }
      const lacking = (margin < 0 ? -margin * more : -margin) - gained * less
      if (lacking < 0) return undefined
      for (let i = 0; i < low.length; i++) {
        const a = coefficients[from + i]
        if (!(a > 0 || a < 0)) continue
        const far = (lacking / Math.abs(a)) * more
        if (!(far < high[i] - low[i])) continue
        if (a > 0) high[i] = Math.min(high[i], up(low[i] + far))
        else low[i] = Math.max(low[i], down(high[i] - far))
      }
    }
  return { lower: low, upper: high }
}

/** A float32 not below a sum of two that was rounded once, and one not above it. */
const up = (sum: number): number => roundUp(sum + Math.abs(sum) * 2 ** -52)
const down = (sum: number): number => roundDown(sum - Math.abs(sum) * 2 ** -52)

/** The least box around some. */
export const around = (boxes: readonly Box[]): Box =>
  boxes.reduce((a, b) => ({
    lower: a.lower.map((l, i) => Math.min(l, b.lower[i])),
    upper: a.upper.map((u, i) => Math.max(u, b.upper[i])),
  }))
