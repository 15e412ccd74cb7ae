/** Exact arithmetic on numbers m 2^e, which floats are and sums and products of floats stay; and float32 executions made of it. */
export interface Dyadic {
  readonly m: bigint
  readonly e: number
}

const word = new DataView(new ArrayBuffer(8))

/** A finite double, exactly. */
export const exactly = (x: number): Dyadic => {
  if (!Number.isFinite(x)) throw new RangeError(`${x} is no number`)
  word.setFloat64(0, x)
  const bits = word.getBigUint64(0)
  const biased = Number((bits >> 52n) & 0x7ffn)
  const fraction = bits & 0xfffffffffffffn
  const m = biased === 0 ? fraction : fraction | (1n << 52n)
  return { m: x < 0 ? -m : m, e: Math.max(biased, 1) - 1075 }
}

export const plus = (a: Dyadic, b: Dyadic): Dyadic => {
  if (a.m === 0n) return b
  if (b.m === 0n) return a
  const e = Math.min(a.e, b.e)
  return { m: (a.m << BigInt(a.e - e)) + (b.m << BigInt(b.e - e)), e }
}
export const times = (a: Dyadic, b: Dyadic): Dyadic => ({ m: a.m * b.m, e: a.e + b.e })
export const minus = (a: Dyadic): Dyadic => ({ m: -a.m, e: a.e })
export const sign = (a: Dyadic): -1 | 0 | 1 => (a.m > 0n ? 1 : a.m < 0n ? -1 : 0)
/** a <= b for a double b, infinity included; false for NaN. */
export const isAtMost = (a: Dyadic, b: number): boolean =>
  Number.isFinite(b) ? sign(plus(a, exactly(-b))) <= 0 : b === Number.POSITIVE_INFINITY
export const isAtLeast = (a: Dyadic, b: number): boolean => isAtMost(minus(a), -b)

/** The nearest float32, ties to even, subnormals kept; infinity where it overflows. */
export const toFloat32 = ({ m, e }: Dyadic): number => {
  const negative = m < 0n
  let size = negative ? -m : m
  if (size === 0n) return 0
  const length = size.toString(2).length
  // Bits below the last place of the result: of 24, or down to 2^-149.
  const drop = Math.max(length - 24, -149 - e)
  let exponent = e
  if (drop > 0) {
    const shift = BigInt(drop)
    const rest = size & ((1n << shift) - 1n)
    const half = 1n << (shift - 1n)
    size >>= shift
    exponent += drop
    if (rest > half || (rest === half && (size & 1n) === 1n)) size += 1n
  }
  // At most 25 bits by now, so the double is exact; powers of two in two steps, as 2^-1074 is the least.
  const value = Number(size) * 2 ** Math.max(exponent, -1000) * 2 ** Math.min(0, exponent + 1000)
  return Math.fround(negative ? -value : value)
}

/** One layer: for each output, inputs with their weights, and a bias. */
export interface Layer {
  readonly outputs: readonly {
    readonly terms: readonly (readonly [weight: number, input: number])[]
    readonly bias: number
  }[]
}

/** Real values of the layers at a real (float32) point, ReLU between them. */
export const exactRun = (layers: readonly Layer[], x: readonly number[]): readonly Dyadic[] =>
  layers.reduce<readonly Dyadic[]>(
    (h, { outputs }, i) =>
      outputs.map(({ terms, bias }) => {
        const z = terms.reduce((s, [w, k]) => plus(s, times(exactly(w), h[k])), exactly(bias))
        return i === layers.length - 1 || sign(z) > 0 ? z : exactly(0)
      }),
    x.map(exactly),
  )

/** One float32 execution: products of each sum, and the bias, are added in random pairs, some steps fused. */
export const float32Run = (layers: readonly Layer[], x: readonly number[], next: () => number): readonly number[] => {
  const pick = (n: number) => Math.floor(next() * n)
  const sum = (terms: readonly (readonly [number, number])[], bias: number): number => {
    const fuses = next() < 0.5
    // A product waits unrounded until it is added, where it may be fused.
    const open: (number | readonly [number, number])[] = [bias, ...terms]
    const value = (t: number | readonly [number, number]) => (typeof t === 'number' ? t : Math.fround(t[0] * t[1]))
    while (open.length > 1) {
      const [a] = open.splice(pick(open.length), 1)
      const [b] = open.splice(next() < 0.3 ? open.length - 1 : pick(open.length), 1)
      if (fuses && typeof a !== 'number' && next() < 0.7) {
        const c = value(b)
        const [p, q] = a
        open.push(
          [p, q, c].every(Number.isFinite)
            ? toFloat32(plus(times(exactly(p), exactly(q)), exactly(c)))
            : Math.fround(p * q + c),
        )
      } else open.push(Math.fround(value(a) + value(b)))
    }
    return value(open[0])
  }
  return layers.reduce<readonly number[]>(
    (h, { outputs }, i) =>
      outputs.map(({ terms, bias }) => {
        const z = sum(
          terms.map(([w, k]) => [w, h[k]] as const),
          bias,
        )
        return i === layers.length - 1 ? z : Math.max(z, 0)
      }),
    x,
  )
}
