/** An exact rational number: numerator / denominator, the denominator positive. */
export interface Rational {
  readonly numerator: bigint
  readonly denominator: bigint
}

export const ZERO: Rational = { numerator: 0n, denominator: 1n }
export const ONE: Rational = { numerator: 1n, denominator: 1n }

export const gcd = (a: bigint, b: bigint): bigint => {
  let [x, y] = [a < 0n ? -a : a, b < 0n ? -b : b]
  while (y !== 0n) [x, y] = [y, x % y]
  return x
}

/** a / b, b != 0. */
export const ratio = (a: bigint, b: bigint): Rational => {
  if (b === 1n || a === 0n) return a === 0n ? ZERO : { numerator: a, denominator: 1n }
  const d = b < 0n ? -gcd(a, b) : gcd(a, b)
  return { numerator: a / d, denominator: b / d }
}

export const plus = (a: Rational, b: Rational): Rational => {
  if (a.numerator === 0n) return b
  if (b.numerator === 0n) return a
  return a.denominator === b.denominator
    ? ratio(a.numerator + b.numerator, a.denominator)
    : ratio(a.numerator * b.denominator + b.numerator * a.denominator, a.denominator * b.denominator)
}
export const minus = (a: Rational): Rational => ({ numerator: -a.numerator, denominator: a.denominator })
export const times = (a: Rational, b: Rational): Rational =>
  ratio(a.numerator * b.numerator, a.denominator * b.denominator)
/** a / b, b != 0. */
export const over = (a: Rational, b: Rational): Rational =>
  ratio(a.numerator * b.denominator, a.denominator * b.numerator)

/** The sign of a - b. */
export const compare = (a: Rational, b: Rational): -1 | 0 | 1 => {
  const [x, y] =
    a.denominator === b.denominator
      ? [a.numerator, b.numerator]
      : [a.numerator * b.denominator, b.numerator * a.denominator]
  return x < y ? -1 : x > y ? 1 : 0
}

const double = new DataView(new ArrayBuffer(8))

/** A finite double as mantissa 2^exponent; the mantissa has at most 53 bits. */
export const exactly = (x: number): readonly [mantissa: bigint, exponent: number] => {
  double.setFloat64(0, x)
  const bits = double.getBigUint64(0)
  const biased = Number((bits >> 52n) & 0x7ffn)
  const fraction = bits & 0xfffffffffffffn
  const mantissa = biased === 0 ? fraction : fraction | (1n << 52n)
  return [x < 0 ? -mantissa : mantissa, Math.max(biased, 1) - 1075]
}

/** The value of a finite double. */
export const fromDouble = (x: number): Rational => {
  if (Number.isSafeInteger(x)) return { numerator: BigInt(x), denominator: 1n }
  let [m, e] = exactly(x)
  if (e >= 0) return { numerator: m << BigInt(e), denominator: 1n }
  const low = BigInt.asUintN(64, m & -m)
  const shift = Math.min(-e, low.toString(2).length - 1)
  m >>= BigInt(shift)
  e += shift
  return { numerator: m, denominator: 1n << BigInt(-e) }
}

const bitLength = (a: bigint): number => (a === 0n ? 0 : (a < 0n ? -a : a).toString(16).length * 4)

/** floor(a / b) for b > 0. */
const floorDiv = (a: bigint, b: bigint): bigint => {
  const q = a / b
  return a % b < 0n ? q - 1n : q
}

/** The greatest double that is not above a; -infinity below the finite ones, the greatest finite one above them. */
export const below = (a: Rational): number => {
  const { numerator: n, denominator: d } = a
  if (n === 0n) return 0
  if (d === 1n && n <= 9007199254740991n && n >= -9007199254740991n) return Number(n)
  // floor(a 2^s) with 53 to 58 bits, or fewer where a is subnormal.
  const s = Math.min(1074, 56 - (bitLength(n) - bitLength(d)))
  const scaled = s >= 0 ? floorDiv(n << BigInt(s), d) : floorDiv(n, d << BigInt(-s))
  const size = scaled < 0n ? -scaled : scaled
  const extra = Math.max(0, size.toString(2).length - 53)
  const mantissa = scaled >> BigInt(extra)
  const exponent = extra - s
  if (exponent > 971) return n > 0n ? Number.MAX_VALUE : Number.NEGATIVE_INFINITY
  // Both factors are powers of two in the range of doubles, and the product is exact.
  const value = Number(mantissa) * 2 ** Math.max(exponent, -1000) * 2 ** Math.min(0, exponent + 1000)
  return value === Number.NEGATIVE_INFINITY ? value : value + 0
}
/** The least double that is not below a. */
export const above = (a: Rational): number => -below(minus(a)) + 0

/** The double nearest to a, ties to even; infinite beyond the finite ones. */
export const nearest = (a: Rational): number => {
  const [low, high] = [below(a), above(a)]
  if (low === high) return low
  if (!Number.isFinite(low) || !Number.isFinite(high)) return a.numerator < 0n ? low : high
  const side = compare(plus(fromDouble(low), fromDouble(high)), times(a, { numerator: 2n, denominator: 1n }))
  if (side !== 0) return side > 0 ? low : high
  double.setFloat64(0, low)
  return (double.getUint32(4) & 1) === 0 ? low : high
}

// ---- decimals --------------------------------------------------------------------------------------------------------

const DECIMAL = /^([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,6}))?$/
const HEX = /^([+-]?)0[xX]([\da-fA-F]*)(?:\.([\da-fA-F]*))?(?:[pP]([+-]?\d{1,6}))?$/

/** The longest mantissa and the largest exponent that are read. */
const MAX_DIGITS = 2000
const MAX_EXPONENT = 5000

/** Powers of ten that occur again and again. */
const tens: bigint[] = [1n]
const ten = (n: number): bigint => {
  if (n > 400) return 10n ** BigInt(n)
  while (tens.length <= n) tens.push(tens[tens.length - 1] * 10n)
  return tens[n]
}

/**
 * The exact value of a decimal such as `-1.5e-3`, or of a hexadecimal such as `0x1.8p-3`. Undefined for any other text, and for a number of more than
 * `MAX_DIGITS` digits or with an exponent beyond `MAX_EXPONENT`.
 */
export const parseRational = (text: string): Rational | undefined => {
  if (text.length > MAX_DIGITS) return undefined
  const match = DECIMAL.exec(text)
  const parts = match ?? HEX.exec(text)
  if (parts === null) return undefined
  const [, sign, whole, fraction = '', power = '0'] = parts
  if (whole === '' && fraction === '') return undefined
  const exponent = Number(power)
  if (Math.abs(exponent) > MAX_EXPONENT) return undefined
  if (match === null) {
    const digits = BigInt(`0x0${whole}${fraction}`)
    const shift = exponent - 4 * fraction.length
    const value = sign === '-' ? -digits : digits
    return shift >= 0 ? { numerator: value << BigInt(shift), denominator: 1n } : ratio(value, 1n << BigInt(-shift))
  }
  const trimmed = fraction.replace(/0+$/, '')
  const digits = BigInt(whole + trimmed)
  if (digits === 0n) return ZERO
  const shift = exponent - trimmed.length
  const value = sign === '-' ? -digits : digits
  return shift >= 0 ? { numerator: value * ten(shift), denominator: 1n } : ratio(value, ten(-shift))
}

/** How often a prime divides n > 0, and what is left. */
const factored = (n: bigint, prime: bigint): readonly [number, bigint] => {
  let [count, rest] = [0, n]
  for (; rest % prime === 0n; count++) rest /= prime
  return [count, rest]
}

/** digits 10^-places as a text. */
const spelled = (digits: bigint, places: number): string => {
  const negative = digits < 0n
  const text = (negative ? -digits : digits).toString().padStart(places + 1, '0')
  const [whole, part] = [text.slice(0, text.length - places), text.slice(text.length - places).replace(/0+$/, '')]
  return `${negative ? '-' : ''}${whole}${part === '' ? '' : `.${part}`}`
}

/**
 * The decimal that is exactly a, without an exponent: `0.1000000000000000055511151231257827021181583404541015625` for the double 0.1. Undefined where there is none
 * (1/3), or none of at most `places` digits after the point.
 */
export const showExactly = ({ numerator, denominator }: Rational, places = 1200): string | undefined => {
  const twos = denominator.toString(2).length - denominator.toString(2).replace(/0+$/, '').length
  const [fives, rest] = factored(denominator >> BigInt(twos), 5n)
  const needed = Math.max(twos, fives)
  if (rest !== 1n || needed > places) return undefined
  return spelled(numerator * 2n ** BigInt(needed - twos) * 5n ** BigInt(needed - fives), needed)
}

/** a rounded down or up to so many significant digits, as a decimal: never on the other side of a. */
export const showRounded = (a: Rational, digits: number, side: 'down' | 'up'): string => {
  if (a.numerator === 0n) return '0'
  if (side === 'up') {
    const text = showRounded(minus(a), digits, 'down')
    return text.startsWith('-') ? text.slice(1) : text === '0' ? '0' : `-${text}`
  }
  const size = Math.ceil((bitLength(a.numerator) - bitLength(a.denominator)) * Math.log10(2))
  const places = digits - size
  if (places <= 0) return spelled(floorDiv(a.numerator, a.denominator * ten(-places)) * ten(-places), 0)
  return spelled(floorDiv(a.numerator * ten(places), a.denominator), places)
}
