import { type Dyadic, exactly } from './dyadic.ts'

/**
 * Functions of real numbers to 2^-300 and better, by series in whole numbers: what bounds of exp, log, erf, sine and their kin are held to.
 */
const P = 400n
const ONE = 1n << P

/** A dyadic number of at least 2^-400 in the last place, in units of 2^-P. */
const fixed = ({ m, e }: Dyadic): bigint =>
  e + Number(P) >= 0 ? m << BigInt(e + Number(P)) : m >> BigInt(-e - Number(P))
const dyadic = (x: bigint): Dyadic => ({ m: x, e: -Number(P) })
const product = (a: bigint, b: bigint): bigint => (a * b) >> P

/** e^x of x >= 0 in units of 2^-P. */
const exponential = (x: bigint): bigint => {
  // e^x = (e^r)^(2^s), r below 2^-10.
  let s = 0n
  while (x >> s > ONE >> 10n) s++
  const r = x >> s
  let [sum, term] = [ONE, ONE]
  for (let n = 1n; term > 0n; n++) {
    term = product(term, r) / n
    sum += term
  }
  for (let i = 0n; i < s; i++) sum = product(sum, sum)
  return sum
}

/** Beyond which e^-x is nothing here, and e^x no float. */
const FAR = 200n << P

/** 2 artanh(z) for |z| <= 1/3. */
const twiceArtanh = (z: bigint): bigint => {
  const square = product(z, z)
  let [sum, power] = [0n, z]
  for (let n = 1n; power !== 0n && power !== -1n; n += 2n) {
    sum += power / n
    power = product(power, square)
  }
  return 2n * sum
}
const LN2 = twiceArtanh(ONE / 3n)

const root = (x: bigint): bigint => {
  if (x === 0n) return 0n
  let y = 1n << BigInt((x.toString(2).length + 1) >> 1)
  for (;;) {
    const next = (y + x / y) >> 1n
    if (next >= y) return y
    y = next
  }
}

/** arctan(1 / n). */
const arctan = (n: bigint): bigint => {
  let [sum, power] = [0n, ONE / n]
  for (let k = 0n; power > 0n; k++) {
    sum += (k % 2n === 0n ? power : -power) / (2n * k + 1n)
    power /= n * n
  }
  return sum
}
/** Machin's formula. */
const PI = 4n * (4n * arctan(5n) - arctan(239n))

/** Sine and cosine of a number of units, after turns are taken off. */
const wave = (x: bigint, first: 0n | 1n): bigint => {
  const r = x % (2n * PI)
  const square = product(r, r)
  let [sum, term] = [0n, first === 1n ? r : ONE]
  for (let n = first; term !== 0n && term !== -1n; n += 2n) {
    sum += term
    term = -product(term, square) / ((n + 1n) * (n + 2n))
  }
  return sum
}

/** x (1 + z) / 2 in units. */
const gated = (x: bigint, z: bigint): bigint => product(x, ONE + z) >> 1n

const erf = (x: bigint): bigint => {
  const size = x < 0n ? -x : x
  // 1 - erf(15) is below 2^-328.
  if (size > 15n * ONE) return x < 0n ? -ONE : ONE
  const square = product(size, size)
  let [sum, term] = [0n, size]
  for (let n = 1n; term > 0n; n++) {
    sum += term
    term = (2n * product(term, square)) / (2n * n + 1n)
  }
  const scale = (2n * ONE * ONE) / root(PI << P)
  const value = (product(product(scale, sum), ONE) * ONE) / exponential(square)
  return x < 0n ? -value : value
}

const units = (f: (x: bigint) => bigint) => (x: Dyadic) => dyadic(f(fixed(x)))
const tanhOf = (z: bigint): bigint => fixed(reals.tanh(dyadic(z)))
const sigmoidOf = (z: bigint): bigint => fixed(reals.sigmoid(dyadic(z)))
const softplusOf = (z: bigint): bigint => {
  const e = z < -FAR || z > FAR ? 0n : (ONE * ONE) / exponential(z < 0n ? -z : z)
  return (z > 0n ? z : 0n) + fixed(reals.log(dyadic(ONE + e)))
}

/** More of them, of numbers up to 2^60. */
export const composed = {
  erf: units(erf),
  sin: units((z) => wave(z, 1n)),
  cos: units((z) => wave(z, 0n)),
  softplus: units(softplusOf),
  softsign: units((z) => (z << P) / (ONE + (z < 0n ? -z : z))),
  silu: units((z) => product(z, sigmoidOf(z))),
  mish: units((z) => product(z, tanhOf(softplusOf(z)))),
  gelu: units((z) => gated(z, erf((z << P) / root(2n << (2n * P))))),
  tanhGelu: units((z) => {
    const cubed = product(z, product(z, z))
    return gated(z, tanhOf(product(root((2n * ONE * ONE * ONE) / PI), z + (44715n * cubed) / 1000000n)))
  }),
  hardSwish: units((z) => {
    const gate = z / 6n + (ONE >> 1n)
    return product(z, gate < 0n ? 0n : gate > ONE ? ONE : gate)
  }),
  elu: (alpha: number) => {
    const a = fixed(exactly(alpha))
    return units((z) => (z > 0n ? z : product(a, fixed(reals.exp(dyadic(z))) - ONE)))
  },
  power:
    (n: number) =>
    ({ m, e }: Dyadic): Dyadic => ({ m: m ** BigInt(n), e: e * n }),
  reciprocal: ({ m, e }: Dyadic): Dyadic => ({ m: (1n << (2n * P)) / m, e: -2 * Number(P) - e }),
} as const

/** Of numbers where these functions are finite. */
export const reals = {
  exp: (x: Dyadic): Dyadic => {
    const z = fixed(x)
    if (z < -FAR) return exactly(0)
    const y = exponential(z < 0n ? -z : z)
    return dyadic(z < 0n ? (ONE << P) / y : y)
  },
  log: ({ m, e }: Dyadic): Dyadic => {
    const n = m.toString(2).length - 1
    // x = c 2^(e + n), c in [1, 2).
    const c = (m << P) >> BigInt(n)
    return dyadic(BigInt(e + n) * LN2 + twiceArtanh(((c - ONE) << P) / (c + ONE)))
  },
  sqrt: (x: Dyadic): Dyadic => dyadic(root(fixed(x) << P)),
  sigmoid: (x: Dyadic): Dyadic => {
    const z = fixed(x)
    if (z > FAR || z < -FAR) return exactly(z > 0n ? 1 : 0)
    const y = exponential(z < 0n ? -z : z)
    return dyadic(((z > 0n ? y : ONE) << P) / (y + ONE))
  },
  tanh: (x: Dyadic): Dyadic => {
    const z = fixed(x)
    if (z > FAR || z < -FAR) return exactly(z > 0n ? 1 : -1)
    const y = exponential(2n * (z < 0n ? -z : z))
    const t = ((y - ONE) << P) / (y + ONE)
    return dyadic(z < 0n ? -t : t)
  },
} as const
export type Real = keyof typeof reals

/** a / b, to 2^-400 of a. */
export const quotient = (a: Dyadic, b: Dyadic): Dyadic => ({ m: (a.m << P) / b.m, e: a.e - Number(P) - b.e })

/** The nearest double. */
export const numberOf = ({ m, e }: Dyadic): number => {
  const drop = Math.max(0, m.toString(2).length - 64)
  const top = e + drop
  return Number(m >> BigInt(drop)) * 2 ** Math.max(top, -1000) * 2 ** Math.min(0, top + 1000)
}
