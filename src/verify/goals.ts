import { raise } from '../core/error.ts'
import { type Rounding, roundDown, roundUp } from '../core/rounding.ts'
import type { Constraint, UnsafeCase } from './counterexample.ts'

/** A box in float32. */
export interface Box {
  readonly lower: Float32Array
  readonly upper: Float32Array
}

/** A conjunction of constraints c . y <= b as float32 rows; it is refuted where a row's bound c . y - b exceeds its tolerance. */
export interface Conjunction {
  /** Coefficients, `[outputs]` each, and what they are compared with. */
  readonly rows: readonly Float32Array[]
  readonly bounds: Float32Array
  /** What a lower bound must exceed: 0 where bounds round outward. */
  readonly tolerance: Float32Array
  /** How far above 0 a point computed to nearest may be and still be worth an exact look. */
  readonly near: number
  /** Whether every coefficient is a multiple of 2^-9 below 2^7, so that means of rows are exact (`mixed`). */
  readonly dyadic: boolean
}

/** A box and conjunctions of which none may hold in it: a case of a property, or some conjunctions of one with many. */
export interface Goal {
  /** The case, and its number. */
  readonly of: UnsafeCase
  readonly at: number
  readonly box: Box
  readonly conjunctions: readonly Conjunction[]
}

/** Rows of the largest conjunction, and conjunctions of the largest goal: what plans are made for. */
export interface Extent {
  readonly rows: number
  readonly conjunctions: number
}

/** Rows that one goal may have, if it has more than one conjunction. */
const ROWS = 64

/**
 * How far above 0 a bound that rounds to nearest must be to count, as a share of |bound| + sum |c_i y_i| at the centre of the box: a margin
 * against errors, not a proof that they are smaller. Bounds that round outward need none.
 */
export const SAFETY = 1e-5

const isDyadic = (x: number): boolean => Math.abs(x) < 2 ** 7 && Number.isInteger(x * 2 ** 9)

const conjunctionOf = (all: readonly Constraint[], centre: ArrayLike<number>, rounding: Rounding): Conjunction => {
  const close = Float32Array.from(
    all,
    ({ coefficients, bound }) =>
      SAFETY * coefficients.reduce((n, a, i) => n + Math.abs(a * centre[i]), Math.abs(bound)),
  )
  const rows = all.map(({ coefficients }) => Float32Array.from(coefficients))
  const bounds = Float32Array.from(all, ({ outward }) => roundUp(outward))
  return {
    rows,
    bounds,
    tolerance: rounding === 'none' ? close : new Float32Array(all.length),
    near: Math.max(0, ...close),
    dyadic: rows.every((r) => r.every(isDyadic)),
  }
}

/** The goals of a case: few conjunctions share one box, many are taken in parts. `centre` is the output at the centre of the box. */
export const goalsOf = (
  c: UnsafeCase,
  at: number,
  { rows, conjunctions: most }: Extent,
  centre: ArrayLike<number>,
  rounding: Rounding,
): readonly Goal[] => {
  const box = {
    lower: Float32Array.from(c.outward.lower, roundDown),
    upper: Float32Array.from(c.outward.upper, roundUp),
  }
  const conjunctions = c.unsafe.map((u) => conjunctionOf(u, centre, rounding))
  const each = Math.max(1, Math.min(most, Math.floor(ROWS / rows)))
  return Array.from({ length: Math.ceil(conjunctions.length / each) }, (_, i) => ({
    of: c,
    at,
    box,
    conjunctions: conjunctions.slice(i * each, (i + 1) * each),
  }))
}

/** The extent of goals of cases that have at most so many constraints in a conjunction and conjunctions in a case. */
export const goalExtent = (rows: number, conjunctions: number): Extent => ({
  rows,
  conjunctions: Math.max(1, Math.min(conjunctions, Math.floor(ROWS / rows))),
})

/** Rows of bounds are float32 numbers: other coefficients would make another property. */
export const requireFloat32 = ({ unsafe }: UnsafeCase): void => {
  const wrong = unsafe.flat().flatMap(({ coefficients }) => [...coefficients].filter((a) => Math.fround(a) !== a))[0]
  if (wrong !== undefined)
    raise({
      kind: 'unsupported',
      what: `outward rounding of a constraint with the coefficient ${wrong}`,
      reason: 'float32 does not hold it',
    })
}

// ---- weights on the simplex ------------------------------------------------------------------------------------------

/** Weights are multiples of 1 / GRAIN. */
const GRAIN = 128

/**
 * Weights >= 0 with sum 1, near those given, as multiples of 1 / GRAIN. A mean of rows c_k . y - b_k with such weights is at most the largest of them, so a bound
 * of it above 0 refutes the conjunction: duality, and exact for any weights.
 */
export const grained = (weights: ArrayLike<number>): Float64Array => {
  const parts = Float64Array.from(weights, (w) => (w > 0 ? Math.floor(GRAIN * w) : 0))
  const rest = Array.from(weights, (w, k) => GRAIN * w - parts[k])
  const order = rest.map((_, k) => k).sort((i, j) => rest[j] - rest[i] || i - j)
  for (let missing = GRAIN - parts.reduce((a, b) => a + b, 0), i = 0; missing > 0; missing--, i++)
    parts[order[i % order.length]]++
  return parts.map((p) => p / GRAIN)
}

/**
 * The mean of a conjunction's rows with grained weights. Coefficients are multiples of 2^-9 below 2^7 (`dyadic`), so the mean's are multiples of 2^-16 below 2^7: 23 bits,
 * exact in float32 and on the way there. The bound is a sum in doubles, rounded up by more than its error.
 */
export const mixed = ({ rows, bounds }: Conjunction, weights: Float64Array): { row: Float32Array; bound: number } => {
  const row = new Float32Array(rows[0].length)
  for (let j = 0; j < row.length; j++) {
    let sum = 0
    for (let k = 0; k < rows.length; k++) sum += weights[k] * rows[k][j]
    row[j] = sum
  }
  let [bound, size] = [0, 0]
  for (let k = 0; k < rows.length; k++) {
    bound += weights[k] * bounds[k]
    size += Math.abs(weights[k] * bounds[k])
  }
  return { row, bound: roundUp(bound + size * (rows.length + 1) * 2 ** -52) }
}

/** Weights of the next attempt: those of rows that are larger where the bound is least grow (mirror ascent), `gains` being the rows' own values there. */
export const raised = (weights: Float64Array, gains: ArrayLike<number>, rate: number): Float64Array => {
  const mean = weights.reduce((s, w, k) => s + w * gains[k], 0)
  const spread = Math.max(...Array.from(gains, (g) => Math.abs(g - mean)))
  if (!(spread > 0) || !Number.isFinite(spread)) return weights
  const moved = weights.map(
    (w, k) => Math.max(w, 0.5 / GRAIN / weights.length) * Math.exp((rate * (gains[k] - mean)) / spread),
  )
  const total = moved.reduce((a, b) => a + b, 0)
  return moved.map((w) => w / total)
}
