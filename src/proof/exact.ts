// Exact numbers: nothing in this folder computes with floats. It imports nothing from the rest of src (docs/proof.md).

/** Raised for a file that cannot be read, a query outside of what is checked, or a proof that does not hold. */
export class Refused extends Error {
  override readonly name = 'Refused'
}
export const refuse = (reason: string): never => {
  throw new Refused(reason)
}

/** The rational n / d, d > 0. */
export interface Rational {
  readonly n: bigint
  readonly d: bigint
}
/** Rationals n_i / d with one denominator d > 0. */
export interface Vector {
  readonly n: readonly bigint[]
  readonly d: bigint
}

const absolute = (x: bigint): bigint => (x < 0n ? -x : x)
/** Quotients rounded to the integer below and above, for d > 0. */
export const floor = (n: bigint, d: bigint): bigint => n / d - (n % d < 0n ? 1n : 0n)
export const ceiling = (n: bigint, d: bigint): bigint => -floor(-n, d)

const gcd = (a: bigint, b: bigint): bigint => {
  let [x, y] = [absolute(a), absolute(b)]
  while (y !== 0n) [x, y] = [y, x % y]
  return x
}
const lcm = (a: bigint, b: bigint): bigint => (a === b || a % b === 0n ? a : b % a === 0n ? b : (a / gcd(a, b)) * b)

export const rational = (n: bigint, d = 1n): Rational => ({ n, d })
export const add = (a: Rational, b: Rational): Rational => rational(a.n * b.d + b.n * a.d, a.d * b.d)
export const negative = ({ n, d }: Rational): Rational => rational(-n, d)
export const times = (a: Rational, b: Rational): Rational => rational(a.n * b.n, a.d * b.d)
export const compare = (a: Rational, b: Rational): number => {
  const difference = a.n * b.d - b.n * a.d
  return difference < 0n ? -1 : difference > 0n ? 1 : 0
}

const MOST = 1n << 65536n
/** Rationals over their least common denominator. */
export const vector = (xs: readonly Rational[]): Vector => {
  const d = xs.reduce((m, x) => {
    const both = lcm(m, x.d)
    return both > MOST ? refuse('numbers without a common denominator of less than 2^65536') : both
  }, 1n)
  return { n: xs.map((x) => x.n * (d / x.d)), d }
}
export const at = (v: Vector, i: number): Rational => rational(v.n[i], v.d)
export const zeros = (length: number): Vector => ({ n: new Array<bigint>(length).fill(0n), d: 1n })
/** Two vectors over one denominator. */
const together = (a: Vector, b: Vector): readonly [readonly bigint[], readonly bigint[], bigint] => {
  if (a.d === b.d) return [a.n, b.n, a.d]
  const d = lcm(a.d, b.d)
  const [p, q] = [d / a.d, d / b.d]
  return [p === 1n ? a.n : a.n.map((x) => x * p), q === 1n ? b.n : b.n.map((x) => x * q), d]
}
export const plus = (a: Vector, b: Vector): Vector => {
  const [p, q, d] = together(a, b)
  return { n: p.map((x, i) => x + q[i]), d }
}

const DECIMAL = /^([+-]?)(\d*)\.?(\d*)(?:[eE]([+-]?\d{1,3}))?$/
/** A decimal such as -1.5e-3, or a quotient of two such as 8/255. */
export const decimal = (text: string): Rational => {
  if (text.length > 3000) refuse('a number of more than 3,000 characters')
  const quotient = text.split('/')
  if (quotient.length === 2) {
    const [p, q] = quotient.map(decimal)
    if (q.n <= 0n) refuse(`"${text}" is no number`)
    return rational(p.n * q.d, p.d * q.n)
  }
  const [, sign = '', whole = '', part = '', exponent = '0'] = DECIMAL.exec(text) ?? []
  if (whole + part === '') refuse(`"${text.slice(0, 40)}" is no number`)
  const [digits, tens] = [BigInt(sign + whole + part), BigInt(exponent) - BigInt(part.length)]
  return tens >= 0n ? rational(digits * 10n ** tens) : rational(digits, 10n ** -tens)
}

/** Float numbers of a format with `mantissa` stored bits and an exponent bias, given by their bits. */
const floats = (bits: readonly bigint[], mantissa: bigint, exponents: bigint): Vector => {
  const bias = (1n << (exponents - 1n)) - 1n
  const parts = bits.map((b) => {
    const e = (b >> mantissa) & ((1n << exponents) - 1n)
    const m = b & ((1n << mantissa) - 1n)
    if (e === (1n << exponents) - 1n) refuse('a constant is infinite or NaN')
    const value = e === 0n ? m : m | (1n << mantissa)
    return { value: b >> (mantissa + exponents) === 1n ? -value : value, power: (e === 0n ? 1n : e) - bias - mantissa }
  })
  const low = parts.reduce((m, { value, power }) => (value === 0n || power > m ? m : power), 0n)
  return { n: parts.map(({ value, power }) => (value === 0n ? 0n : value << (power - low))), d: 1n << -low }
}
/** The exact values of little-endian IEEE numbers of 2, 4 or 8 bytes. */
export const ieee = (bytes: Uint8Array, width: number): Vector => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const bits = Array.from({ length: Math.floor(bytes.length / width) }, (_, i) => {
    if (width === 8) return view.getBigUint64(i * 8, true)
    return BigInt(width === 4 ? view.getUint32(i * 4, true) : view.getUint16(i * 2, true))
  })
  const [mantissa, exponents] = { 2: [10n, 5n], 4: [23n, 8n], 8: [52n, 11n] }[width] ?? refuse('no such float')
  return floats(bits, mantissa, exponents)
}

/** The exact value of a double. */
export const exactly = (x: number): Rational => {
  if (!Number.isFinite(x)) refuse(`${x} is no number`)
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, x, true)
  return at(ieee(new Uint8Array(view.buffer), 8), 0)
}

/** The integer square root, rounded down. */
export const root = (n: bigint): bigint => {
  if (n < 2n) return n
  let x = 1n << BigInt((n.toString(2).length + 1) >> 1)
  for (;;) {
    const y = (x + n / x) >> 1n
    if (y >= x) return x
    x = y
  }
}
