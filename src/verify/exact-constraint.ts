import { exactly } from '../core/rational.ts'
import type { Constraint, ExactConstraint } from './counterexample.ts'
import { type ExactTensor, exactDoubles } from './exact.ts'

/** The constraint that was meant, in whole numbers. Undefined where a double is not finite. */
const exactOf = ({ coefficients, bound, exact }: Constraint): ExactConstraint | undefined => {
  if (exact !== undefined) return exact
  const indices = [...coefficients.keys()].filter((i) => coefficients[i] !== 0)
  if (!Number.isFinite(bound) || !indices.every((i) => Number.isFinite(coefficients[i]))) return undefined
  const parts = [...indices.map((i) => exactly(coefficients[i])), exactly(bound)]
  const least = Math.min(...parts.map(([, e]) => e))
  const whole = parts.map(([m, e]) => m << BigInt(e - least))
  return { indices, coefficients: whole.slice(0, -1), bound: whole[whole.length - 1], strict: false }
}

/** The sign of coefficients . y - bound. */
const sideOf = (
  { indices, coefficients, bound }: ExactConstraint,
  { numerators, denominator }: ExactTensor,
): number => {
  const total = indices.reduce((sum, i, k) => sum + coefficients[k] * numerators[i], -bound * denominator)
  return total < 0n ? -1 : total > 0n ? 1 : 0
}

/** True iff the constraint that was meant holds of these numbers, in exact arithmetic. */
export const meetsExactly = (c: Constraint, y: ExactTensor): boolean => {
  const exact = exactOf(c)
  if (exact === undefined) return c.bound === Number.POSITIVE_INFINITY
  const side = sideOf(exact, y)
  return side < 0 || (side === 0 && !exact.strict)
}

/** `meetsExactly` for doubles; false for what is not finite. */
export const meets = (c: Constraint, y: ArrayLike<number>): boolean => {
  const used = exactOf(c)?.indices ?? []
  if (!used.every((i) => Number.isFinite(y[i]))) return false
  return meetsExactly(c, exactDoubles(Array.from(y, (v) => (Number.isFinite(v) ? v : 0))))
}

/** What a constraint can be at most, and at least, where each y lies between two doubles: whether it holds, or fails, for all of them. */
export const decidedBy = (c: Constraint, lower: ExactTensor, upper: ExactTensor): boolean | undefined => {
  const exact = exactOf(c)
  if (exact === undefined) return undefined
  const { indices, coefficients, bound, strict } = exact
  const end = (high: boolean): bigint =>
    indices.reduce(
      (sum, i, k) => sum + coefficients[k] * (coefficients[k] > 0n === high ? upper : lower).numerators[i],
      -bound * lower.denominator,
    )
  const [most, least] = [end(true), end(false)]
  if (most < 0n || (most === 0n && !strict)) return true
  return least > 0n || (least === 0n && strict) ? false : undefined
}
