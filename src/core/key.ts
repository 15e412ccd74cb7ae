import { raise, usage } from './error.ts'

/**
 * A splittable random key: 64 bits as two unsigned 32-bit words. It is a plain value that is never advanced: the same
 * key gives the same numbers, always, on every engine (integer arithmetic, + - * / and Math.sqrt only), and is stored
 * as two JSON numbers. Use a key for one thing; get further ones by `split` and `fold`.
 *
 * Generator: Threefry-2x32 with 20 rounds, a block cipher run on a counter (Salmon, Moraes, Dror, Shaw: "Parallel
 * random numbers: as easy as 1, 2, 3", SC 2011, doi 10.1145/2063384.2063405). Counter [i, DRAW] yields the words 2i
 * and 2i + 1 of a key's stream; `split` and `fold` encrypt counters with other second words, so their keys never
 * coincide with numbers drawn.
 */
export type Key = readonly [number, number]

const DRAW = 0
const SPLIT = 1
const INTEGER = 2
const TEXT = 3

const ROTATIONS = [
  [13, 15, 26, 6],
  [17, 29, 16, 24],
] as const

/** Encrypts the counter (c0, c1) with the key (k0, k1) into `out[at]` and `out[at + 1]`. */
const block = (k0: number, k1: number, c0: number, c1: number, out: Uint32Array, at: number): void => {
  let a = k0 | 0
  let b = k1 | 0
  let c = k0 ^ k1 ^ 0x1bd11bda
  let x = (c0 + a) | 0
  let y = (c1 + b) | 0
  for (let group = 1; group <= 5; group++) {
    for (const r of ROTATIONS[(group - 1) & 1]) {
      x = (x + y) | 0
      y = ((y << r) | (y >>> (32 - r))) ^ x
    }
    const first = a
    a = b
    b = c
    c = first
    x = (x + a) | 0
    y = (y + b + group) | 0
  }
  out[at] = x
  out[at + 1] = y
}

/** The bare cipher, Threefry-2x32-20: two words of counter to two words of output (Random123's known answers). */
export const threefry2x32 = (key: Key, counter: readonly [number, number]): Key => {
  const out = new Uint32Array(2)
  block(key[0], key[1], counter[0], counter[1], out, 0)
  return [out[0], out[1]]
}

const integer = (what: string, value: number, from: number, to: number): number =>
  Number.isSafeInteger(value) && value >= from && value <= to
    ? value
    : raise(usage(`${what} must be an integer from ${from} to ${to}, not ${value}`))

const safe = (what: string, value: number): number =>
  integer(what, value, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)

/** High and low word of a safe integer in two's complement. */
const words = (value: number): Key => [Math.floor(value / 2 ** 32) >>> 0, value >>> 0]

/**
 * The key of a seed, any safe integer: its high and low 32 bits. Raises a usage error for other numbers.
 *
 * @example
 *   const [first, second] = splitKey(key(7), 2)
 */
export const key = (seed: number): Key => words(safe('a seed', seed))

/**
 * n independent keys. `split(key, n)[i]` does not depend on n.
 *
 * @example
 *   splitKey(key(7), 3).length // 3
 */
export const split = (key: Key, n: number): readonly Key[] =>
  Array.from({ length: integer('a number of keys', n, 0, 2 ** 32 - 1) }, (_, i) => threefry2x32(key, [i, SPLIT]))

/**
 * The key that belongs to `data` under `key`: an epoch, an image index, the name of a layer. Keys of
 * different data are independent, those of a number and of its digits too. `data`: a safe integer or any string.
 *
 * @example
 *   const [shuffle, start] = [foldKey(key(7), 'shuffle'), foldKey(key(7), 'start')]
 */
export const fold = (key: Key, data: number | string): Key => {
  const absorb = (tag: number) => (k: Key, word: number) => threefry2x32(k, [word, tag])
  if (typeof data === 'number') return words(safe('a folded number', data)).reduce(absorb(INTEGER), key)
  let out = absorb(TEXT)(key, data.length)
  for (let i = 0; i < data.length; i++) out = absorb(TEXT)(out, data.charCodeAt(i))
  return out
}

/** n words, uniform on [0, 2^32). `bits(key, m)` is the beginning of `bits(key, n)` for m <= n. */
export const bits = (key: Key, n: number): Uint32Array => {
  const out = new Uint32Array(integer('a count', n, 0, 2 ** 32 - 2) + (n & 1))
  for (let i = 0; i < out.length; i += 2) block(key[0], key[1], i / 2, DRAW, out, i)
  return out.subarray(0, n)
}

/** The words of `bits`, one at a time, for draws that reject some. */
const stream = (key: Key): (() => number) => {
  const pair = new Uint32Array(2)
  let i = 0
  return () => {
    if (i % 2 === 0) block(key[0], key[1], i / 2, DRAW, pair, 0)
    return pair[i++ % 2]
  }
}

/** A uniform integer in [0, below): words past the last whole multiple of `below` are rejected, so there is no bias. */
const under = (next: () => number, below: number): number => {
  const limit = 2 ** 32 - (2 ** 32 % below)
  let word = next()
  while (word >= limit) word = next()
  return word % below
}

/** The largest float32 below the float32 x (finite). */
const before = (x: number): number => {
  const float = new Float32Array([x])
  const word = new Int32Array(float.buffer)
  if (x === 0) return -(2 ** -149)
  word[0] += x > 0 ? -1 : 1
  return float[0]
}

/**
 * n float32 numbers, uniform in [lo, hi): lo + (hi - lo) m 2^-24 for a 24-bit integer m, rounded to float32 and never
 * up to hi. lo and hi are taken as float32; lo = hi gives lo. Raises a usage error if they are not finite or lo > hi.
 *
 */
export const uniform = (key: Key, n: number, lo = 0, hi = 1): Float32Array => {
  const from = Math.fround(lo)
  const to = Math.fround(hi)
  if (!(Number.isFinite(from) && Number.isFinite(to) && from <= to))
    raise(usage(`uniform: [${lo}, ${hi}) is not an interval`))
  const last = from < to ? before(to) : to
  const scale = (to - from) * 2 ** -24
  const draws = bits(key, n)
  const out = new Float32Array(n)
  for (let i = 0; i < n; i++) out[i] = Math.min(from + (draws[i] >>> 8) * scale, last)
  return out
}

/** n integers, uniform on [0, below), for 1 <= below <= 2^32. */
export const integers = (key: Key, n: number, below: number): Uint32Array => {
  integer('the bound of random integers', below, 1, 2 ** 32)
  const next = stream(key)
  return new Uint32Array(integer('a count', n, 0, 2 ** 32 - 1)).map(() => under(next, below))
}

/**
 * k of the numbers 0 .. n-1 without replacement, in random order (the first k steps of the Fisher-Yates shuffle):
 * every ordered k-tuple is equally likely, and `choose(key, n, k)` is the beginning of `permutation(key, n)`.
 */
export const choose = (key: Key, n: number, k: number): Uint32Array => {
  const order = new Uint32Array(integer('a count', n, 0, 2 ** 32 - 1)).map((_, i) => i)
  integer(`a choice of ${n}`, k, 0, n)
  const next = stream(key)
  for (let i = 0; i < k; i++) {
    const j = i + under(next, n - i)
    const chosen = order[j]
    order[j] = order[i]
    order[i] = chosen
  }
  return order.slice(0, k)
}

/** A uniform permutation of 0 .. n-1 (Fisher-Yates). */
export const permutation = (key: Key, n: number): Uint32Array => choose(key, n, n)

/** True with probability p in [0, 1], to 53 bits: never for 0, always for 1. */
export const bernoulli = (key: Key, p: number): boolean => {
  if (!(p >= 0 && p <= 1)) raise(usage(`a probability must be in [0, 1], not ${p}`))
  const [a, b] = bits(key, 2)
  return ((a >>> 5) * 2 ** 26 + (b >>> 6)) * 2 ** -53 < p
}

/**
 * n float32 numbers from the standard normal distribution: `quantile` at the 52-bit midpoints (m + 1/2) 2^-52, so |z|
 * < 8.3.
 */
export const normal = (key: Key, n: number): Float32Array => {
  const draws = bits(key, 2 * n)
  const out = new Float32Array(n)
  for (let i = 0; i < n; i++)
    out[i] = quantile(((draws[2 * i] >>> 6) * 2 ** 26 + (draws[2 * i + 1] >>> 6) + 0.5) * 2 ** -52)
  return out
}

/**
 * Natural logarithm on [2^-1022, 1] to 3e-16 relative: x = m 2^e with m in [0.7, 1.42), ln m = 2 artanh s, s =
 * (m-1)/(m+1).
 */
const ln = (x: number): number => {
  let m = x
  let e = 0
  for (; m < Math.SQRT1_2; e--) m *= 2
  const s = (m - 1) / (m + 1)
  let series = 0
  for (let k = 23; k >= 1; k -= 2) series = series * s * s + 1 / k
  return e * Math.LN2 + 2 * s * series
}

/** Horner's rule, highest power first. */
const polynomial = (coefficients: readonly number[], x: number): number =>
  coefficients.reduce((sum, c) => sum * x + c, 0)

/**
 * Inverse of the standard normal distribution function at p in (0, 1), to a relative accuracy of 1e-15 (Wichura,
 * algorithm AS 241, PPND16, Applied Statistics 37(3), 1988: three rational approximations of degree 7), by
 * deterministic arithmetic alone.
 */
export const quantile = (p: number): number => {
  const q = p - 0.5
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q
    return (q * polynomial(CENTRE[0], r)) / polynomial(CENTRE[1], r)
  }
  const r = Math.sqrt(-ln(q < 0 ? p : 1 - p))
  const [numerator, denominator, shift] = r <= 5 ? MIDDLE : TAIL
  return (Math.sign(q) * polynomial(numerator, r - shift)) / polynomial(denominator, r - shift)
}

const CENTRE = [
  [
    2509.0809287301227, 33430.57558358813, 67265.7709270087, 45921.95393154987, 13731.69376550946, 1971.5909503065513,
    133.14166789178438, 3.3871328727963665,
  ],
  [
    5226.495278852546, 28729.085735721943, 39307.89580009271, 21213.794301586597, 5394.196021424751, 687.1870074920579,
    42.31333070160091, 1,
  ],
] as const

const MIDDLE = [
  [
    0.0007745450142783414, 0.022723844989269184, 0.2417807251774506, 1.2704582524523684, 3.6478483247632045,
    5.769497221460691, 4.630337846156546, 1.4234371107496835,
  ],
  [
    1.0507500716444169e-9, 0.0005475938084995345, 0.015198666563616457, 0.14810397642748008, 0.6897673349851,
    1.6763848301838038, 2.053191626637759, 1,
  ],
  1.6,
] as const

const TAIL = [
  [
    2.0103343992922881e-7, 2.7115555687434876e-5, 0.0012426609473880784, 0.026532189526576124, 0.29656057182850487,
    1.7848265399172913, 5.463784911164114, 6.657904643501103,
  ],
  [
    2.0442631033899397e-15, 1.421511758316446e-7, 1.8463183175100548e-5, 0.0007868691311456133, 0.014875361290850615,
    0.1369298809227358, 0.599832206555888, 1,
  ],
  5,
] as const
