import { ceiling, floor, refuse, type Vector } from './exact.ts'

// Integers of at most 2^53 in doubles, times a power of two: sums and products that stay within 2^53 are exact, as is scaling by powers of two, so that
// nothing here rounds but `Math.floor`, `Math.ceil` and `Math.round`, to the side that the caller pays for.

/** Numbers n_i 2^-e, n_i integers. */
export interface Fixed {
  readonly n: Float64Array
  readonly e: number
}
/** Intervals [lower_i, upper_i] 2^-e, integers of at most 2^VALUE in magnitude; `most` is the largest magnitude. */
export interface Box {
  readonly lower: Float64Array
  readonly upper: Float64Array
  readonly e: number
  readonly most: number
}
/** Bits of values, and of coefficients. */
const VALUE = 32
export const COEFFICIENT = 30
/** Units finer than this are not needed. */
const FINEST = 120

/** 2^k, exactly. */
export const two = (k: number): number => {
  if (Math.abs(k) > 900) refuse('numbers of too many magnitudes')
  let power = 1
  for (let i = Math.abs(k); i > 0; i--) power *= k < 0 ? 0.5 : 2
  return power
}
/** 2^-k for integers of at most 2^53 to be rounded by: by more than 100 places is as by 100. */
const finer = (k: number): number => two(-Math.min(k, 100))
/** The least b with x < 2^b, for an integer x >= 0. */
export const bits = (x: number): number => {
  let b = 0
  for (let power = 1; power <= x; power *= 2) b++
  return b
}
export const largest = (n: Float64Array): number => {
  let most = 0
  for (let i = 0; i < n.length; i++) {
    const x = Math.abs(n[i])
    if (x > most) most = x
  }
  return most
}

/** A box of integers of at most 2^53, rounded outward to VALUE bits. */
export const boxOf = (lower: Float64Array, upper: Float64Array, e: number): Box => {
  const most = Math.max(largest(lower), largest(upper))
  const r = Math.max(bits(most) - VALUE, e - FINEST)
  if (r <= 0) return { lower, upper, e, most }
  const f = finer(r)
  const [l, u] = [lower.map((x) => Math.floor(x * f)), upper.map((x) => Math.ceil(x * f))]
  return { lower: l, upper: u, e: e - r, most: Math.max(largest(l), largest(u)) }
}
/** A box in units of 2^-e that are no finer than its own, rounded outward. */
export const coarser = (box: Box, e: number): Box => {
  if (e >= box.e) return box
  const f = finer(box.e - e)
  return boxOf(
    box.lower.map((x) => Math.floor(x * f)),
    box.upper.map((x) => Math.ceil(x * f)),
    e,
  )
}
/** Sums of the elements of two boxes. */
export const plus = (a: Box, b: Box): Box => {
  const e = Math.min(a.e, b.e)
  const [p, q] = [coarser(a, e), coarser(b, e)]
  return boxOf(
    p.lower.map((x, i) => x + q.lower[i]),
    p.upper.map((x, i) => x + q.upper[i]),
    e,
  )
}
/** What two boxes have in common; empty where lower > upper. */
export const intersection = (a: Box, b: Box | undefined): Box => {
  if (b === undefined) return a
  // A multiple of the finer unit is exact, however large: what is left is no larger than the box in that unit, or empty.
  const [coarse, fine] = a.e < b.e ? [a, b] : [b, a]
  const f = two(fine.e - coarse.e)
  const lower = fine.lower.map((x, i) => Math.max(x, coarse.lower[i] * f))
  const upper = fine.upper.map((x, i) => Math.min(x, coarse.upper[i] * f))
  return boxOf(lower, upper, fine.e)
}
export const isVoid = ({ lower, upper }: Box): boolean => lower.some((l, i) => l > upper[i])

/** Binary places that rationals need in units of 2^-e for the largest of them to have so many bits. */
const placesOf = (n: readonly bigint[], d: bigint, most: number): number => {
  const top = n.reduce((m, x) => (x > m ? x : -x > m ? -x : m), 0n)
  return top === 0n ? 0 : Math.min(FINEST, most - 1 - (top.toString(2).length - d.toString(2).length + 1))
}
/** n / 2^-e. */
const inUnits = (n: bigint, d: bigint, e: number): readonly [n: bigint, d: bigint] =>
  e >= 0 ? [n << BigInt(e), d] : [n, d << BigInt(-e)]
/** Exact rationals, enclosed; in units of 2^-e, where that is given. */
export const enclosed = ({ n, d }: Vector, above: Vector = { n, d }): Box => {
  const e = Math.min(placesOf(n, d, VALUE), placesOf(above.n, above.d, VALUE))
  return boxOf(
    Float64Array.from(n, (x) => Number(floor(...inUnits(x, d, e)))),
    Float64Array.from(above.n, (x) => Number(ceiling(...inUnits(x, above.d, e)))),
    e,
  )
}
/** Exact rationals to so many bits of the largest, each off by less than a unit; whether each is exact. */
export const nearest = ({ n, d }: Vector, most: number): Fixed & { readonly exact: readonly boolean[] } => {
  const e = placesOf(n, d, most)
  const parts = n.map((x) => inUnits(x, d, e))
  return {
    n: Float64Array.from(parts, ([p, q]) => Number(floor(2n * p + q, 2n * q))),
    e,
    exact: parts.map(([p, q]) => p % q === 0n),
  }
}

/** Coefficients of at most `most` bits: rounded where they are longer, `changed` of them, by half a unit at most. */
export const shortened = ({ n, e }: Fixed, most: number): Fixed & { readonly changed: number } => {
  const r = bits(largest(n)) - most
  if (r <= 0) return { n, e, changed: 0 }
  const f = finer(r)
  let changed = 0
  const short = new Float64Array(n.length)
  for (let i = 0; i < n.length; i++) {
    if (n[i] === 0) continue
    const exact = n[i] * f
    short[i] = Math.round(exact)
    if (short[i] !== exact) changed++
  }
  return { n: short, e: e - r, changed }
}

const HALF = 2 ** 15
/**
 * The least of a . v over lower <= v <= upper, exactly, where a has at most COEFFICIENT bits: its halves are multiplied apart, 32 products of at most 2^15 2^32
 * at a time, so that sums stay within 2^53.
 */
export const leastOf = (a: Float64Array, lower: Float64Array, upper: Float64Array): bigint => {
  let [total, high, low, terms] = [0n, 0, 0, 0]
  for (let i = 0; i < a.length; i++) {
    const c = a[i]
    const v = c > 0 ? lower[i] : upper[i]
    if (c === 0 || v === 0) continue
    const h = Math.round(c / HALF)
    high += h * v
    low += (c - h * HALF) * v
    if (++terms === 32) {
      total += BigInt(high) * 32768n + BigInt(low)
      ;[high, low, terms] = [0, 0, 0]
    }
  }
  return total + BigInt(high) * 32768n + BigInt(low)
}

const THIRD = 2 ** 18
/** The sum of products c v, exactly, |c| <= 2^COEFFICIENT and |v| <= 2^53: thirds of v are multiplied apart, 16 products of at most 2^30 2^18 at a time. */
export class Products {
  private total = 0n
  private readonly sums = [0, 0, 0]
  private terms = 0
  add(c: number, v: number): void {
    const high = Math.floor(v / (THIRD * THIRD))
    const rest = v - high * (THIRD * THIRD)
    const middle = Math.floor(rest / THIRD)
    this.sums[0] += c * high
    this.sums[1] += c * middle
    this.sums[2] += c * (rest - middle * THIRD)
    if (++this.terms === 16) this.flush()
  }
  private flush(): void {
    const [high, middle, low] = this.sums
    this.total += (BigInt(high) << 36n) + (BigInt(middle) << 18n) + BigInt(low)
    this.sums.fill(0)
    this.terms = 0
  }
  sum(): bigint {
    this.flush()
    return this.total
  }
}
