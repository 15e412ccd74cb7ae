import { raise, usage } from './error.ts'
import { above, below, fromDouble, nearest, over, parseRational, type Rational } from './rational.ts'
import { type Rounding, roundUp } from './rounding.ts'

/** A radius in input units that is meant exactly: the decimal or quotient that was written, 0.1 or 8/255, or a double. */
export interface Epsilon {
  readonly written: string
  readonly exact: Rational
}

/** A decimal >= 0 without a sign, and with at most two digits of exponent. */
const PART = /^(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?$/i

/** The radius that a text writes, a decimal >= 0 or a quotient of two such as 8/255; undefined for any other text. */
export const readEpsilon = (written: string): Epsilon | undefined => {
  const parts = written.split('/').map((p) => (PART.test(p) ? parseRational(p) : undefined))
  const [a, b] = parts
  if (a === undefined || parts.length > 2 || parts.includes(undefined) || b?.numerator === 0n) return undefined
  const exact = b === undefined ? a : over(a, b)
  return Number.isFinite(above(exact)) && Number.isFinite(roundUp(above(exact))) ? { written, exact } : undefined
}

/** @throws a usage error for a number that is no radius. */
const epsilonOf = (epsilon: Epsilon | number): Epsilon => {
  if (typeof epsilon !== 'number') return epsilon
  return epsilon >= 0 && Number.isFinite(roundUp(epsilon))
    ? { written: String(epsilon), exact: fromDouble(epsilon) }
    : raise(usage(`epsilon: expected a finite radius from 0 on, not ${epsilon}`))
}

/** The doubles round it: the greatest not above, the nearest, and the least not below. */
export const doublesOf = (
  epsilon: Epsilon | number,
): { readonly below: number; readonly nearest: number; readonly above: number } => {
  const { exact } = epsilonOf(epsilon)
  return { below: below(exact), nearest: nearest(exact), above: above(exact) }
}

/**
 * What a graph is given for it: the nearest double, which the reference device takes as it is and devices of float32 round once more, or, where
 * bounds round outward, the least float32 that is not below it, the same on every device.
 */
export const epsilonFor = (epsilon: Epsilon | number, rounding: Rounding): number => {
  const { nearest, above } = doublesOf(epsilon)
  return rounding === 'none' ? nearest : roundUp(above)
}
