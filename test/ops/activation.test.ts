import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { linearBounds } from '../../src/bounds/linear-bounds.ts'
import { evaluate } from '../../src/compile/run.ts'
import { apply, interval, node, type Op, type Relax, type Slope } from '../../src/core/op.ts'
import type { Interval, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { random } from '../backend/wasm-programs.ts'

const oracle = reference()
test.after(() => oracle.dispose())

const of = async (f: (x: Tensor) => Tensor, x: readonly number[]): Promise<readonly number[]> => {
  const t = O.input('x', [x.length]) as Tensor
  return [...(await evaluate(oracle)([f(t)], new Map([[t, Float64Array.from(x)]])))[0]]
}

/** Boxes of widths from 0.01 to 30, all over the place. */
const BOXES = 400
const boxes = (seed: number) => {
  const next = random(seed)
  const ends = Array.from({ length: BOXES }, () => {
    const centre = 12 * next() - 6
    const width = 0.01 * 3000 ** next()
    return [centre - width / 2, centre + width / 2]
  })
  return { l: ends.map(([l]) => l), u: ends.map(([, u]) => u) }
}

const SAMPLES = 600
/** Where a derivative of some function jumps. */
const KINKS = [-3, -1, 0, 0.5, 1, 3, 6]
const sampled = (l: number, u: number) => [
  ...Array.from({ length: SAMPLES + 1 }, (_, i) => l + ((u - l) * i) / SAMPLES),
  ...KINKS.filter((k) => l < k && k < u),
]

// biome-ignore lint/suspicious/noExplicitAny: records of every attribute type
type Any = Op<any>
interface Shape {
  readonly op: Any
  readonly attrs?: unknown
  readonly more?: readonly number[]
  /** How far, at most, a line stays away from the function where it is closest, for a box of width w: 0 for the lines that touch it. */
  readonly away: (w: number) => number
}

const touching = () => 1e-9
const parts = (curvature: number) => (w: number) => (curvature * w * w) / 1024 + 1e-9
const SHAPES: readonly Shape[] = [
  { op: O.clipOp, more: [0, 6], away: touching },
  { op: O.clipOp, more: [-1, 1], away: touching },
  { op: O.clipOp, more: [-1, Infinity], away: touching },
  { op: O.clipOp, more: [-Infinity, 0.5], away: touching },
  { op: O.preluOp, more: [0.25], away: touching },
  { op: O.preluOp, more: [-0.5], away: touching },
  { op: O.preluOp, more: [2], away: touching },
  { op: O.eluOp, attrs: { alpha: 1 }, away: touching },
  { op: O.softplusOp, away: touching },
  { op: O.geluOp, attrs: { approximate: 'none' }, away: parts(0.7979) },
  { op: O.geluOp, attrs: { approximate: 'tanh' }, away: parts(0.7979) },
  { op: O.siluOp, away: parts(0.5) },
  { op: O.mishOp, away: parts(0.6443) },
  { op: O.hardSwishOp, away: parts(0.33334) },
  { op: O.powOp, attrs: { exponent: 2 }, away: touching },
  { op: O.powOp, attrs: { exponent: 4 }, away: touching },
]
const SLOPES: readonly Slope[] = ['same', 'adaptive', 'zero']
/** S-shaped functions, whose tangents are found by bisection, and what has flat lines. */
const SOUND: readonly Shape[] = [
  ...SHAPES,
  ...[O.erfOp, O.softsignOp, O.sinOp, O.cosOp, O.floorOp, O.roundOp].map((op) => ({ op, away: () => Infinity })),
  { op: O.eluOp, attrs: { alpha: 1.75 }, away: () => Infinity },
  { op: O.powOp, attrs: { exponent: 3 }, away: () => Infinity },
]

const labelOf = ({ op, attrs, more }: Shape) => `${op.name} ${JSON.stringify(attrs ?? more ?? '')}`

for (const shape of SOUND)
  test(`${labelOf(shape)}: lines enclose it on a dense grid, and reach it; intervals are its range`, async () => {
    const { op, attrs, more = [], away } = shape
    const { l, u } = boxes(5)
    const [tl, tu] = [O.input('l', [BOXES]), O.input('u', [BOXES])] as readonly Tensor[]
    const points = more.map((v) => O.scalar(v))
    const box = apply(op, [interval(tl, tu), ...points], attrs) as Interval
    const lines = SLOPES.map((slope) => (op.relax as Relax<unknown>)([interval(tl, tu), ...points], attrs, slope))
    const zero = O.full([BOXES], 0)
    const outputs = lines.flatMap((e) =>
      [e.lower, e.upper].flatMap((line) => [O.broadcastTo(line.slopes[0], [BOXES]), line.intercept ?? zero]),
    )
    const feeds = new Map([
      [tl, Float64Array.from(l)],
      [tu, Float64Array.from(u)],
    ])
    const [low, high, ...found] = await evaluate(oracle)([box.lower, box.upper, ...outputs], feeds)
    for (let b = 0; b < BOXES; b++) {
      const xs = sampled(l[b], u[b])
      const f = await of((x) => node(op, [x, ...points], attrs), xs)
      const width = u[b] - l[b]
      const where = `box [${l[b]}, ${u[b]}]`
      const [least, most] = [Math.min(...f), Math.max(...f)]
      const scale = 1 + Math.max(Math.abs(least), Math.abs(most))
      assert.ok(low[b] <= least + 1e-9 * scale && high[b] >= most - 1e-9 * scale, `${where}: interval`)
      // The grid misses an extremum by what the function curves within a step.
      if (!['sin', 'cos'].includes(op.name) || width < 6)
        assert.ok(least - low[b] <= 2e-3 * scale && high[b] - most <= 2e-3 * scale, `${where}: the interval is wide`)
      SLOPES.forEach((slope, k) => {
        const [p, s, q, t] = found.slice(4 * k, 4 * k + 4).map((v) => v[b])
        const below = Math.min(...f.map((v, i) => v - (p * xs[i] + s)))
        const above = Math.min(...f.map((v, i) => q * xs[i] + t - v))
        assert.ok(below >= -1e-8 * scale && above >= -1e-8 * scale, `${where} ${slope}: ${below}, ${above}`)
        // A grid point is close to where a line touches.
        const room = away(width) + 1e-4 * scale * width
        assert.ok(slope === 'zero' || (below <= room && above <= room), `${where} ${slope}: away by ${below}, ${above}`)
      })
    }
  })

test('ReLU6 in a network: the bounds of crown are those of the best two lines, not of two relaxations', async () => {
  const x = O.input('x', [1, 1]) as Tensor
  const [l, u] = [O.input('l', [1, 1]), O.input('u', [1, 1])] as readonly Tensor[]
  const bounded = (f: (x: Tensor) => Tensor) => {
    // Minus half of x, so that the line of the upper bound matters.
    const y = O.sub(f(x), O.mul(0.5, x)) as Tensor
    return linearBounds({ slope: 'adaptive', hidden: 'own' })(y, new Map([[x, interval(l, u)]])).output()
  }
  const own = bounded((z) => O.clip(z, 0, 6))
  const two = bounded((z) => O.minimum(O.maximum(z, 0), 6) as Tensor)
  for (const [low, high] of [
    [-2, 8],
    [-9, 7],
    [-1, 5],
    [2, 9],
    [-4, -1],
    [7, 9],
  ]) {
    const feeds = new Map([
      [l, Float64Array.of(low)],
      [u, Float64Array.of(high)],
    ])
    const [a, b, c, d] = (await evaluate(oracle)([own.lower, own.upper, two.lower, two.upper], feeds)).map(([v]) => v)
    const xs = sampled(low, high)
    const f = xs.map((v) => Math.min(Math.max(v, 0), 6) - v / 2)
    assert.ok(a <= Math.min(...f) + 1e-12 && b >= Math.max(...f) - 1e-12)
    assert.ok(a >= c - 1e-12 && b <= d + 1e-12, `[${low}, ${high}]: [${a}, ${b}], by parts [${c}, ${d}]`)
  }
})

test('powers, and activations that are made of others', async () => {
  const xs = [-2.5, -1, -0.3, 0.2, 0.5, 1, 1.7, 3]
  const plus = xs.map(Math.abs)
  const check = async (f: (x: Tensor) => Tensor, g: (x: number) => number, at: readonly number[] = xs) =>
    (await of(f, at)).forEach((v, i) => {
      const want = g(at[i])
      assert.ok(Math.abs(v - want) <= 1e-12 * (1 + Math.abs(want)), `at ${at[i]}: ${v}, not ${want}`)
    })
  for (const n of [-3, -2, -1, 0, 1, 2, 3, 7, 12]) await check(O.pow(n), (x) => x ** n)
  for (const p of [0.5, -0.5, 1.5, 0.3, -2.2]) await check(O.pow(p), (x) => x ** p, plus)
  assert.ok((await of(O.pow(1.5), [-1])).every(Number.isNaN))
  assert.throws(() => O.pow(Number.NaN)(O.input('x', [1])), /exponent NaN is not a finite number/)
  await check(O.selu, (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)))
  await check(O.celu(0.5), (x) => Math.max(x, 0) + Math.min(0, 0.5 * Math.expm1(x / 0.5)))
  await check(O.thresholdedRelu(0.4), (x) => (x > 0.4 ? x : 0))
  await check(O.hardSigmoid(0.3, 0.6), (x) => Math.min(Math.max(0.3 * x + 0.6, 0), 1))
  await check(O.ceil, Math.ceil)
})

test('a threshold is bounded by intervals: what passes is above it', async () => {
  const [l, u] = [O.input('l', [3]), O.input('u', [3])] as readonly Tensor[]
  const box = O.thresholdedRelu(1)(interval(l, u))
  const feeds = new Map([
    [l, Float64Array.of(-2, 1.5, -3)],
    [u, Float64Array.of(2, 4, 0.5)],
  ])
  const [low, high] = await evaluate(oracle)([box.lower, box.upper], feeds)
  assert.equal([...low], [0, 1.5, 0])
  assert.equal([...high], [2, 4, 0])
})

test.run()
