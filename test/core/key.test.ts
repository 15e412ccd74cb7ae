import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import * as K from '../../src/core/key.ts'

/** Pearson's statistic of counts against a uniform distribution. */
const chiSquare = (counts: readonly number[]): number => {
  const expected = counts.reduce((a, b) => a + b, 0) / counts.length
  return counts.reduce((sum, c) => sum + (c - expected) ** 2 / expected, 0)
}

/** Bound of chiSquare with `categories - 1` degrees of freedom at about six standard deviations. */
const limit = (categories: number): number => categories - 1 + 6 * Math.sqrt(2 * (categories - 1)) + 12

const tally = (values: Iterable<number>, categories: number): readonly number[] => {
  const counts = new Array<number>(categories).fill(0)
  for (const v of values) counts[v]++
  return counts
}

const mean = (values: ArrayLike<number>): number => Array.from(values).reduce((a, b) => a + b, 0) / values.length

// https://github.com/DEShawResearch/random123/blob/main/tests/kat_vectors, threefry2x32 20
const KNOWN = [
  { counter: [0, 0], key: [0, 0], output: [0x6b200159, 0x99ba4efe] },
  { counter: [0xffffffff, 0xffffffff], key: [0xffffffff, 0xffffffff], output: [0x1cb996fc, 0xbb002be7] },
  { counter: [0x243f6a88, 0x85a308d3], key: [0x13198a2e, 0x03707344], output: [0xc4923a9c, 0x483df7a0] },
] as const

test('threefry2x32 gives the known answers of Random123', () => {
  for (const { counter, key, output } of KNOWN) assert.equal(K.threefry2x32(key, counter), output)
  assert.equal([...K.bits(K.key(0), 2)], [0x6b200159, 0x99ba4efe])
})

test('a seed is its high and low word', () => {
  assert.equal(K.key(7), [0, 7])
  assert.equal(K.key(-1), [0xffffffff, 0xffffffff])
  assert.equal(K.key(2 ** 40 + 5), [256, 5])
  for (const bad of [0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53])
    assert.throws(() => K.key(bad), /a seed must be an integer/)
})

test('the numbers of a key never change', () => {
  const key = K.fold(K.fold(K.key(42), 'layer'), 3)
  assert.equal(key, [2571075722, 1722854229])
  assert.equal([...K.permutation(key, 8)], [3, 4, 0, 5, 6, 2, 1, 7])
  assert.equal([...K.integers(key, 4, 1000)], [971, 149, 635, 362])
  assert.equal([...K.uniform(key, 3, -1, 1)], [0.5785931348800659, 0.3407827615737915, -0.06082332134246826])
  assert.equal([...K.normal(key, 3)], [0.8039829134941101, -0.07630464434623718, -0.07605935633182526])
})

test('a stream begins the same for every length', () => {
  const key = K.key(3)
  const long = K.bits(key, 101)
  for (let n = 0; n <= 101; n++) assert.equal(K.bits(key, n), long.slice(0, n))
})

test('uniform stays in [lo, hi), also where rounding would leave it', () => {
  const float = fc.float({ noNaN: true, noDefaultInfinity: true })
  fc.assert(
    fc.property(fc.integer(), float, float, (seed, a, b) => {
      const [lo, hi] = a < b ? [a, b] : [b, a]
      for (const v of K.uniform(K.key(seed), 20, lo, hi)) assert.ok(lo === hi ? v === lo : v >= lo && v < hi)
    }),
    { numRuns: 1000 },
  )
  for (const v of K.uniform(K.key(1), 1000, 1, 1 + 2 ** -23)) assert.is(v, 1)
  for (const v of K.uniform(K.key(1), 1000, -(2 ** -149), 0)) assert.is(v, -(2 ** -149))
  assert.throws(() => K.uniform(K.key(1), 1, 1, 0), /\[1, 0\) is not an interval/)
  assert.throws(() => K.uniform(K.key(1), 1, 0, Number.NaN), /not an interval/)
})

test('uniform is uniform', () => {
  const u = K.uniform(K.key(11), 100_000)
  assert.ok(Math.abs(mean(u) - 0.5) < 5 / Math.sqrt(12 * u.length))
  assert.ok(
    chiSquare(
      tally(
        u.map((x) => Math.floor(x * 64)),
        64,
      ),
    ) < limit(64),
  )
  const pairs = Array.from(
    { length: u.length / 2 },
    (_, i) => Math.floor(u[2 * i] * 8) * 8 + Math.floor(u[2 * i + 1] * 8),
  )
  assert.ok(chiSquare(tally(pairs, 64)) < limit(64))
})

test('integers are unbiased', () => {
  for (const below of [1, 2, 3, 10, 100])
    assert.ok(chiSquare(tally(K.integers(K.key(below), 30_000, below), below)) < limit(below))
  const below = 3 * 2 ** 30
  const thirds = K.integers(K.key(5), 30_000, below).map((v) => Math.floor(v / 2 ** 30))
  assert.ok(chiSquare(tally(thirds, 3)) < limit(3))
  assert.equal(K.integers(K.key(5), 4, 2 ** 32), K.bits(K.key(5), 4))
  assert.throws(() => K.integers(K.key(5), 4, 0), /the bound of random integers must be an integer from 1/)
})

test('a permutation has every number once, and choose is its beginning', () => {
  fc.assert(
    fc.property(fc.integer(), fc.nat(200), fc.nat(200), (seed, n, k) => {
      const p = K.permutation(K.key(seed), n)
      assert.equal(
        [...p].sort((a, b) => a - b),
        Array.from({ length: n }, (_, i) => i),
      )
      assert.equal(K.choose(K.key(seed), n, Math.min(k, n)), p.slice(0, Math.min(k, n)))
    }),
    { numRuns: 300 },
  )
  assert.throws(() => K.choose(K.key(0), 3, 4), 'a choice of 3 must be an integer from 0 to 3, not 4')
})

test('every permutation and every choice is as likely', () => {
  const keys = K.split(K.key(9), 24_000)
  const code = (digits: Iterable<number>) => [...digits].reduce((c, d) => c * 4 + d, 0)
  const orders = tally(
    keys.map((k) => code(K.permutation(k, 4))),
    256,
  ).filter((c) => c > 0)
  assert.is(orders.length, 24)
  assert.ok(chiSquare(orders) < limit(24))
  const choices = tally(
    keys.map((k) => code(K.choose(k, 4, 2))),
    16,
  ).filter((c) => c > 0)
  assert.is(choices.length, 12)
  assert.ok(chiSquare(choices) < limit(12))
})

test('bernoulli has its probability', () => {
  const keys = K.split(K.key(13), 20_000)
  for (const p of [0, 0.01, 0.5, 0.8, 1]) {
    const hits = keys.filter((k) => K.bernoulli(k, p)).length
    assert.ok(Math.abs(hits - keys.length * p) <= 5 * Math.sqrt(keys.length * p * (1 - p)))
  }
  for (const p of [-0.1, 1.1, Number.NaN]) assert.throws(() => K.bernoulli(K.key(0), p), /a probability must be in/)
})

// Computed with mpmath at 60 digits: the root x of erfc(-x / sqrt 2) / 2 = p.
const QUANTILES = [
  [1.1102230246251565e-16, -8.209536151601387],
  [1e-12, -7.034483825301132],
  [1e-6, -4.753424308822899],
  [0.001, -3.0902323061678136],
  [0.02425, -1.972961051311885],
  [0.07499, -1.4396021182393162],
  [0.0750001, -1.4395307645017297],
  [0.25, -0.6744897501960817],
  [0.4999, -0.00025066283008800747],
  [0.6, 0.2533471031357997],
  [0.9, 1.2815515655446006],
  [0.975, 1.9599639845400538],
  [0.999999, 4.753424308817087],
  [0.9999999999999999, 8.209536151601387],
] as const

test('the normal quantile is accurate, odd and increasing', () => {
  for (const [p, x] of QUANTILES) assert.ok(Math.abs(K.quantile(p) - x) <= 1e-15 * Math.abs(x), `quantile(${p})`)
  assert.is(K.quantile(0.5), 0)
  let previous = Number.NEGATIVE_INFINITY
  for (let i = 1; i < 4096; i++) {
    const x = K.quantile(i / 4096)
    assert.ok(x > previous)
    assert.is(K.quantile(1 - i / 4096), -x)
    previous = x
  }
})

test('normal is normal', () => {
  const z = K.normal(K.key(17), 100_000)
  const moment = (k: number) => mean(z.map((x) => x ** k))
  const bound = (variance: number) => 5 * Math.sqrt(variance / z.length)
  assert.ok(Math.abs(moment(1)) < bound(1))
  assert.ok(Math.abs(moment(2) - 1) < bound(2))
  assert.ok(Math.abs(moment(3)) < bound(15))
  assert.ok(Math.abs(moment(4) - 3) < bound(96))
  const edges = Array.from({ length: 31 }, (_, i) => K.quantile((i + 1) / 32))
  assert.ok(
    chiSquare(
      tally(
        z.map((x) => edges.filter((e) => e <= x).length),
        32,
      ),
    ) < limit(32),
  )
})

test('children are different from each other, from their parent and from what it draws', () => {
  const parent = K.key(21)
  const derived = [
    parent,
    ...K.split(parent, 5000),
    ...Array.from({ length: 5000 }, (_, i) => K.fold(parent, i - 2500)),
    ...Array.from({ length: 5000 }, (_, i) => K.fold(parent, String(i))),
    ...['', 'a', 'b', 'ab', 'ba', '\u0000', 'a\u0000'].map((s) => K.fold(parent, s)),
    ...Array.from({ length: 5000 }, (_, i) => [...K.bits(parent, 10_000).subarray(2 * i, 2 * i + 2)]),
  ]
  assert.is(new Set(derived.map((k) => k.join())).size, derived.length)
  assert.equal(K.split(parent, 3), K.split(parent, 7).slice(0, 3))
  assert.throws(() => K.fold(parent, 0.5), /a folded number must be an integer/)
})

test('streams of children do not correlate', () => {
  const n = 20_000
  const keys = [...K.split(K.key(23), 4), K.fold(K.key(23), 0), K.fold(K.key(23), 1), K.key(23), K.key(24)]
  const streams = keys.map((k) => K.uniform(k, n).map((u) => (u - 0.5) * Math.sqrt(12)))
  for (let i = 0; i < streams.length; i++)
    for (let j = 0; j < i; j++)
      assert.ok(Math.abs(mean(streams[i].map((u, t) => u * streams[j][t]))) < 5 / Math.sqrt(n), `streams ${i}, ${j}`)
  const first = K.split(K.key(29), 20_000).map((k) => K.bits(k, 1)[0] >>> 26)
  assert.ok(chiSquare(tally(first, 64)) < limit(64))
})

test.run()
