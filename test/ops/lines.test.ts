import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend, Data } from '../../src/compile/backend.ts'
import { evaluate } from '../../src/compile/run.ts'
import { interval, type Op, type Relax, type Slope } from '../../src/core/op.ts'
import { isInterval, type Operand, type Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { random } from '../backend/wasm-programs.ts'
import { type Dyadic, exactly, isAtLeast, isAtMost, minus, plus, sign, times } from '../robust/dyadic.ts'
import { composed, reals } from '../robust/real.ts'
import { right } from '../shared.ts'

/** Lines and intervals of outward bounds against real arithmetic, on float32 and on doubles, and what they may be off against units in the last place. */

let backends: readonly Backend[]
test.before(async () => {
  backends = [right(await wasm({ threads: 1 })()), reference()]
})
test.after(() => {
  for (const b of backends) b.dispose()
})

type Next = () => number
const unit = (next: Next) => 2 * next() - 1

/** Ends of boxes: ordinary, large, around a number, tiny, subnormal, wide apart; points and neighbours among them. */
const boxes = (count: number, next: Next, low: number, high: number) => {
  const limit = (v: number) => Math.fround(Math.min(high, Math.max(low, v)))
  const ends = Array.from({ length: count }, (_, i) => {
    const size =
      [4, 90, 1, 2 ** -20, 2 ** -60, 2 ** -140, 2 ** -149, 2 ** 40][i % 8] *
      (i % 16 === 0 ? 1 : 2 ** Math.floor(3 * unit(next)))
    const a = limit(low >= 0 ? size * next() : size * unit(next))
    const width = [0, 2 ** -23 * Math.abs(a), 0.01 * size, size, 2 ** -149, 100][Math.floor(6 * next())]
    const b = limit(a + width * (i % 3 === 0 ? 1 : next()))
    return a <= b ? [a, b] : [b, a]
  })
  return { lower: Float32Array.from(ends, ([a]) => a), upper: Float32Array.from(ends, ([, b]) => b) }
}

/** float32 numbers of [l, u]: the ends, numbers between, neighbours of the ends, 0. */
const inside = (l: number, u: number, next: Next): readonly number[] =>
  [
    l,
    u,
    0,
    l + (u - l) / 2,
    l + next() * (u - l),
    l + next() ** 4 * (u - l),
    u - next() ** 4 * (u - l),
    l + 2 ** -149,
    u - 2 ** -149,
  ]
    .map(Math.fround)
    .filter((v) => v >= l && v <= u)

const linesOf = (op: Op<unknown>, xs: readonly Operand[], slope: Slope, attrs: unknown = undefined) =>
  (op.outward?.relax === 'selection' ? (op.relax as Relax<unknown>) : (op.outward?.relax as Relax<unknown>))(
    xs,
    attrs,
    slope,
  )

const COUNT = 800

/** A function of one variable: its op, what it is in real numbers, where it is looked at, and for lines between samples the most that |f''| is. */
interface Case {
  readonly name: string
  readonly op: Op<unknown>
  readonly attrs?: unknown
  readonly exact: (x: Dyadic) => Dyadic
  readonly domain: readonly [number, number]
  readonly curvature?: number
}
const WIDE = [-(2 ** 60), 2 ** 60] as const
// biome-ignore lint/suspicious/noExplicitAny: records of every attribute type
const one = (name: string, op: Op<any>, exact: Case['exact'], domain: Case['domain'], attrs?: unknown): Case => ({
  name,
  op,
  exact,
  domain,
  attrs,
})
const CASES: readonly Case[] = [
  one('exp', O.expOp, reals.exp, [-120, 88]),
  one('log', O.logOp, reals.log, [2 ** -149, 2 ** 60]),
  one('sqrt', O.sqrtOp, reals.sqrt, [0, 2 ** 60]),
  one('sigmoid', O.sigmoidOp, reals.sigmoid, WIDE),
  one('tanh', O.tanhOp, reals.tanh, WIDE),
  one('erf', O.erfOp, composed.erf, WIDE),
  one('softplus', O.softplusOp, composed.softplus, WIDE),
  one('softsign', O.softsignOp, composed.softsign, WIDE),
  one('elu', O.eluOp, composed.elu(1), WIDE, { alpha: 1 }),
  one('elu of a small alpha', O.eluOp, composed.elu(0.3), WIDE, { alpha: 0.3 }),
  one('elu of a large alpha', O.eluOp, composed.elu(1.6732632423543772), WIDE, { alpha: 1.6732632423543772 }),
  ...[2, 3, 4, 7].map((n) => one(`power ${n}`, O.powOp, composed.power(n), [-(2 ** 15), 2 ** 15], { exponent: n })),
  one('reciprocal', O.reciprocalOp, composed.reciprocal, [2 ** -60, 2 ** 60]),
  one('reciprocal below 0', O.reciprocalOp, composed.reciprocal, [-(2 ** 60), -(2 ** -60)]),
  { ...one('gelu', O.geluOp, composed.gelu, WIDE, { approximate: 'none' }), curvature: 0.8 },
  { ...one('gelu by tanh', O.geluOp, composed.tanhGelu, WIDE, { approximate: 'tanh' }), curvature: 0.8 },
  { ...one('silu', O.siluOp, composed.silu, WIDE), curvature: 0.5 },
  { ...one('mish', O.mishOp, composed.mish, WIDE), curvature: 0.65 },
  { ...one('hardSwish', O.hardSwishOp, composed.hardSwish, WIDE), curvature: 0.34 },
  // Between 17 points.
  { ...one('sin', O.sinOp, composed.sin, [-8192, 8192]), curvature: 4 },
  { ...one('cos', O.cosOp, composed.cos, [-8192, 8192]), curvature: 4 },
]

for (const { name, op, attrs, exact, domain, curvature } of CASES)
  test(`${name}: lines and intervals hold in real arithmetic on every box, and are near`, async () => {
    const next = random(29)
    const { lower, upper } = boxes(COUNT, next, ...domain)
    const [l, u] = [O.input('l', [COUNT]), O.input('u', [COUNT])] as readonly Tensor[]
    const box = interval(l, u)
    const enclosed = O.enclose(op, [box], attrs, 'real')
    const slopes = ['same', 'adaptive', 'zero'] as const
    const lines = slopes.map((s) => linesOf(op, [box], s, attrs))
    const outputs = [
      enclosed.lower,
      enclosed.upper,
      ...lines.flatMap((line) => [line.lower, line.upper].flatMap((f) => [f.slopes[0], f.intercept as Tensor])),
    ]
    const seen = Array.from(lower, (a, i) => inside(a, upper[i], next))
    const known = seen.map((points) => points.map((x) => exact(exactly(x))))
    for (const backend of backends) {
      const got = await evaluate(backend)(
        outputs,
        new Map([
          [l, lower],
          [u, upper],
        ]),
      )
      let [claims, close] = [0, 0]
      for (let i = 0; i < COUNT; i++) {
        const [points, values] = [seen[i], known[i]]
        const where = `${name} on [${lower[i]}, ${upper[i]}], ${backend.dtype}`
        values.forEach((v, k) => {
          assert.ok(
            !(isAtMost(v, got[0][i]) && !isAtLeast(v, got[0][i])) &&
              !(isAtLeast(v, got[1][i]) && !isAtMost(v, got[1][i])),
            `${where}: interval at ${points[k]}`,
          )
        })
        slopes.forEach((slope, s) => {
          const [p, t, q, r] = [0, 1, 2, 3].map((k) => got[2 + 4 * s + k][i])
          if (![p, t, q, r].every(Number.isFinite)) return
          claims++
          const gaps = values.map((v, k) => {
            const x = exactly(points[k])
            const below = plus(v, minus(plus(times(exactly(p), x), exactly(t))))
            const over = plus(plus(times(exactly(q), x), exactly(r)), minus(v))
            assert.ok(sign(below) >= 0, `${where}, ${slope}: below at ${points[k]}`)
            assert.ok(sign(over) >= 0, `${where}, ${slope}: above at ${points[k]}`)
            return over
          })
          // Somewhere the line above is near: within rounding of the numbers at hand, and what samples leave open.
          const size = Math.max(...points.map((x) => Math.abs(q * x)), Math.abs(r))
          const width = Math.min(upper[i] - lower[i], curvature === 4 ? 6.3 : 12)
          const open =
            curvature === undefined
              ? 0
              : (1.1 * curvature * (width / 32) ** 2) / 8 + (width > 6 ? 0.1 : 0) + (curvature === 4 ? 2 ** -18 : 0)
          if (gaps.some((g) => isAtMost(g, 2 ** -19 * size + open + 2 ** -70))) close++
        })
      }
      // Not all are: the slope of a logarithm at the least floats, and the intercept of an exponential at the largest, are no floats.
      assert.ok(claims > 2.2 * COUNT, `${claims} lines are finite`)
      assert.ok(close > 0.6 * claims, `${close} of ${claims} lines touch`)
    }
  })

for (const [name, op, f] of [
  ['sin', O.sinOp, Math.sin],
  ['cos', O.cosOp, Math.cos],
] as const)
  test(`${name}: lines and intervals hold on every box where it is known, and are near`, async () => {
    const next = random(41)
    const { lower, upper } = boxes(4 * COUNT, next, -8192, 8192)
    // Boxes that end next to a crest, a trough or a zero, far out too.
    for (let i = 0; i < COUNT; i++) {
      const at = Math.round((i % 2 === 0 ? 10 : 5000) * unit(next)) * (Math.PI / 2)
      const end = Math.fround(at + (i % 3) * unit(next) * 2 ** -18 * Math.max(1, Math.abs(at)))
      const other = Math.fround(end - next() * [2 ** -10, 0.5, 3][i % 3])
      ;[lower[4 * i], upper[4 * i]] = i % 4 < 2 ? [other, end] : [-end, -other]
    }
    const [l, u] = [O.input('l', [4 * COUNT]), O.input('u', [4 * COUNT])] as readonly Tensor[]
    const box = interval(l, u)
    const enclosed = O.enclose(op, [box], undefined, 'real')
    const slopes = ['same', 'adaptive'] as const
    const lines = slopes.map((s) => linesOf(op as Op<unknown>, [box], s))
    const outputs = [
      enclosed.lower,
      enclosed.upper,
      ...lines.flatMap((line) => [line.lower, line.upper].flatMap((g) => [g.slopes[0], g.intercept as Tensor])),
    ]
    const feeds = new Map([
      [l, lower],
      [u, upper],
    ])
    for (const backend of backends) {
      const got = await evaluate(backend)(outputs, feeds)
      for (let i = 0; i < 4 * COUNT; i++) {
        const [a, b] = [lower[i], upper[i]]
        const crests = [...Array(8).keys()].map((k) => Math.fround((Math.ceil(a / (Math.PI / 2)) + k) * (Math.PI / 2)))
        const points = [...inside(a, b, next), ...crests.filter((x) => x >= a && x <= b)]
        const where = `${name} on [${a}, ${b}], ${backend.dtype}`
        let [over, below] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]
        // Doubles are wrong by less than the bounds leave.
        for (const x of points) {
          const v = f(x)
          assert.ok(got[0][i] <= v && v <= got[1][i], `${where}: interval at ${x}`)
          slopes.forEach((slope, s) => {
            const [p, t, q, r] = [0, 1, 2, 3].map((k) => got[2 + 4 * s + k][i])
            assert.ok(p * x + t <= v, `${where}, ${slope}: below at ${x}`)
            assert.ok(v <= q * x + r, `${where}, ${slope}: above at ${x}`)
            over = Math.min(over, q * x + r - v)
            below = Math.min(below, v - p * x - t)
          })
        }
        const size = Math.max(Math.abs(a), Math.abs(b), 1)
        const wide = Math.min(1, (b - a) ** 2)
        assert.ok(got[1][i] - got[0][i] <= b - a + 2 ** -17, `${where}: ${got[1][i] - got[0][i]} wide`)
        assert.ok(Math.min(over, below) <= wide / 128 + 2 ** -20 * size, `${where}: ${over} and ${below} away`)
      }
    }
    assert.throws(() => O.enclose(op, [box], undefined, 'deployed'), /nothing is assumed/)
  })

// ---- exact functions of one and of two operands ---------------------------------------------------------------------

const larger = (a: Dyadic, b: Dyadic): Dyadic => (sign(plus(a, minus(b))) >= 0 ? a : b)
const EXACT: Readonly<
  Record<string, { readonly op: Op<undefined>; readonly f: (a: Dyadic, b: Dyadic) => Dyadic; readonly unary?: true }>
> = {
  abs: { op: O.absOp, f: (a) => larger(a, minus(a)), unary: true },
  sign: { op: O.signOp, f: (a) => exactly(sign(a)), unary: true },
  step: { op: O.stepOp, f: (a) => exactly(sign(a) > 0 ? 1 : 0), unary: true },
  maximum: { op: O.maximumOp, f: larger },
  minimum: { op: O.minimumOp, f: (a, b) => minus(larger(minus(a), minus(b))) },
  mul: { op: O.mulOp, f: times },
  greater: { op: O.greaterOp, f: (a, b) => exactly(sign(plus(a, minus(b))) > 0 ? 1 : 0) },
  greaterEqual: { op: O.greaterEqualOp, f: (a, b) => exactly(sign(plus(a, minus(b))) >= 0 ? 1 : 0) },
  equal: { op: O.equalOp, f: (a, b) => exactly(sign(plus(a, minus(b))) === 0 ? 1 : 0) },
}

for (const [name, { op, f, unary }] of Object.entries(EXACT))
  test(`${name}: lines hold in real arithmetic, of boxes and of a box and a point`, async () => {
    const next = random(31)
    const [one, two] = [boxes(COUNT, next, -(2 ** 50), 2 ** 50), boxes(COUNT, next, -(2 ** 50), 2 ** 50)]
    // Operands that overlap, and are equal.
    two.lower.forEach((_, i) => {
      if (i % 3 === 0) [two.lower[i], two.upper[i]] = [one.lower[i], one.upper[i]]
    })
    const [la, ua, lb, ub] = ['la', 'ua', 'lb', 'ub'].map((n): Tensor => O.input(n, [COUNT]))
    const feeds = new Map([
      [la, one.lower],
      [ua, one.upper],
      [lb, two.lower],
      [ub, two.upper],
    ])
    const [a, b] = [interval(la, ua), interval(lb, ub)]
    const calls: readonly (readonly Operand[])[] = unary
      ? [[a]]
      : name === 'mul'
        ? [[a, b]]
        : [
            [a, b],
            [la, b],
            [a, lb],
          ]
    for (const xs of calls)
      for (const slope of ['same', 'adaptive', 'zero'] as const) {
        const { lower, upper } = linesOf(op as Op<unknown>, xs, slope)
        const zero = O.full([COUNT], 0)
        const outputs = [lower, upper].flatMap((line) => [
          ...xs.map((x, k) => (isInterval(x) ? O.broadcastTo(line.slopes[k], [COUNT]) : zero)),
          line.intercept === undefined ? zero : O.broadcastTo(line.intercept, [COUNT]),
        ])
        for (const backend of backends) {
          const got = await evaluate(backend)(outputs, feeds)
          const n = xs.length + 1
          const ends = [one, two]
            .slice(0, xs.length)
            .map(({ lower: p, upper: q }, k) => ({ p, q: isInterval(xs[k]) ? q : p }))
          for (let i = 0; i < COUNT; i++) {
            const corner = ends.map(({ p, q }) => inside(p[i], q[i], next).map(exactly))
            const pairs = corner[0].flatMap((x) => (corner[1] ?? [exactly(0)]).map((y) => [x, y] as const))
            const line = (at: number, point: readonly Dyadic[]): Dyadic =>
              xs.reduce((s, _, k) => plus(s, times(exactly(got[at + k][i]), point[k])), exactly(got[at + xs.length][i]))
            for (const point of pairs) {
              const v = f(...point)
              const where = `${slope}, ${ends.map(({ p, q }) => `[${p[i]}, ${q[i]}]`)}, ${backend.dtype}`
              assert.ok(sign(plus(v, minus(line(0, point)))) >= 0, `below on ${where}`)
              assert.ok(sign(plus(line(n, point), minus(v))) >= 0, `above on ${where}`)
            }
          }
        }
      }
  })

test('division by a box: lines hold in real arithmetic', async () => {
  const next = random(37)
  const { lower, upper } = boxes(COUNT, next, 2 ** -20, 2 ** 20)
  const numerator = Float32Array.from({ length: COUNT }, () => 8 * unit(next))
  const [a, l, u] = ['a', 'l', 'u'].map((n): Tensor => O.input(n, [COUNT]))
  for (const flip of [1, -1]) {
    const [from, to] = flip === 1 ? [l, u] : [O.neg(u), O.neg(l)]
    const lines = linesOf(O.divOp as Op<unknown>, [a, interval(from, to)], 'adaptive')
    const outputs = [lines.lower, lines.upper].flatMap((f) => [
      O.broadcastTo(f.slopes[1], [COUNT]),
      f.intercept as Tensor,
    ])
    for (const backend of backends) {
      const got: readonly Data[] = await evaluate(backend)(
        outputs,
        new Map([
          [a, numerator],
          [l, lower],
          [u, upper],
        ]),
      )
      for (let i = 0; i < COUNT; i++)
        for (const x of inside(lower[i], upper[i], next)) {
          const y = exactly(flip * x)
          const line = (k: number) => plus(times(exactly(got[k][i]), y), exactly(got[k + 1][i]))
          // a / y between two lines is a between their products with y, the other way round where y < 0.
          const gap = (k: number) => flip * sign(plus(exactly(numerator[i]), minus(times(line(k), y))))
          assert.ok(gap(0) >= 0, `below on [${lower[i]}, ${upper[i]}]`)
          assert.ok(gap(2) <= 0, `above on [${lower[i]}, ${upper[i]}]`)
        }
    }
  }
})

test('log-sum-exp: no sum of exponentials leaves its lines, however wide and far apart the boxes; in small boxes the lines are near each other', async () => {
  const next = random(11)
  const op = O.logSumExpOp
  const { relax } = op.outward as { readonly relax: Relax<unknown> }
  let near = 0
  for (const backend of backends)
    for (const count of [1, 2, 5]) {
      const rows = 48
      const [l, u]: readonly Tensor[] = [O.input('l', [rows, count]), O.input('u', [rows, count])]
      const attrs = { axes: [1], keep: count === 2 }
      const { lower, upper } = relax([interval(l, u)], attrs, 'adaptive')
      const nearest = (op.relax as { readonly relax: Relax<unknown> }).relax([interval(l, u)], attrs, 'adaptive').upper
      const all = [lower, upper, nearest].flatMap(({ slopes, intercept }) => [slopes[0], intercept as Tensor])
      for (let round = 0; round < 3; round++) {
        const box = boxes(rows * count, next, -1e4, 1e4)
        const small = round === 2
        if (small) box.upper.set(box.lower.map((v) => Math.fround(v + 0.02)))
        const got = await evaluate(backend)(
          all,
          new Map([
            [l, box.lower],
            [u, box.upper],
          ]),
        ) // prettier-ignore
        for (let r = 0; r < rows; r++) {
          const at = (k: number, j: number) => got[2 * k][r * count + j]
          const own = (v: ArrayLike<number>) => Array.from({ length: count }, (_, j) => v[r * count + j])
          const points = [own(box.lower), own(box.upper)].concat(
            Array.from({ length: 4 }, (_, t) =>
              own(box.lower).map((v, j) => {
                const some = inside(v, box.upper[r * count + j], next)
                return t < 2
                  ? [v, box.upper[r * count + j]][Math.floor(2 * next())]
                  : some[Math.floor(some.length * next())]
              }),
            ),
          )
          for (const x of points) {
            // Relative to the largest element, as e^x of it would be huge.
            const top = Math.max(...x)
            const shifted = x.map((v) => plus(exactly(v), minus(exactly(top))))
            const total = shifted.map((v) => reals.exp(v)).reduce(plus)
            const line = (k: number): Dyadic =>
              x.reduce(
                (s, v, j) => plus(s, times(exactly(at(k, j)), exactly(v))),
                plus(exactly(got[2 * k + 1][r]), minus(exactly(top))),
              )
            const [below, above] = [reals.exp(line(0)), reals.exp(line(1))]
            const where = `${backend.name}: ${x} in [${own(box.lower)}], [${own(box.upper)}]`
            assert.ok(sign(plus(total, minus(below))) >= 0, `${where} below its line`)
            assert.ok(sign(plus(above, minus(total))) >= 0, `${where} above its line`)
            for (let j = 0; j < count; j++) assert.ok(at(1, j) >= 0 && at(1, j) <= 1, `${where}: slope ${at(1, j)}`)
          }
          if (!small || own(box.lower).some((v) => Math.abs(v) > 8)) continue
          const centre = own(box.lower).map((v) => v + 0.01)
          const line = (k: number) => centre.reduce((s, v, j) => s + at(k, j) * v, got[2 * k + 1][r])
          // Chords of e^x are above it by at most width^2 / 8 of it.
          assert.ok(
            line(1) - line(0) < 1e-4 && Math.abs(line(2) - line(1)) < 1e-4,
            `${line(0)}, ${line(1)}, ${line(2)}`,
          )
          near++
        }
      }
    }
  assert.ok(near > 50, `${near} small boxes`)
})

test.run()
