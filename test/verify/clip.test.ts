import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { openRegion } from '../../src/compile/region.ts'
import { fold, key, uniform } from '../../src/core/key.ts'
import { compare, fromDouble, minus, plus, type Rational, times, ZERO } from '../../src/core/rational.ts'
import type { Rounding } from '../../src/core/rounding.ts'
import { budgetOf } from '../../src/robust/budget.ts'
import { around, clipped, type Line } from '../../src/verify/clip.ts'
import { goalsOf } from '../../src/verify/goals.ts'
import { inputBrancher, inputWays, splitCell } from '../../src/verify/input-splits.ts'
import { dense, run } from '../robust/exact.ts'
import { right } from '../shared.ts'
import { boxed, constraint, distance, subjectOf } from './verify-help.ts'

const rational = fromDouble
const less = (a: Rational, b: Rational) => plus(a, minus(b))

/** margin + sum |A_i| d_i(x), exactly. */
const lineAt = ({ margin, coefficients }: Line, box: { lower: Float32Array; upper: Float32Array }, x: Float32Array) =>
  x.reduce((sum, v, i) => {
    const a = coefficients[i]
    return plus(sum, times(rational(a), less(rational(v), rational(a > 0 ? box.lower[i] : box.upper[i]))))
  }, rational(margin))

const boxOf = (u: ArrayLike<number>, size: number, scale: number) => {
  const lower = Float32Array.from({ length: size }, (_, i) => scale * u[2 * i])
  const upper = lower.map((l, i) => Math.fround(l + Math.abs(scale * u[2 * i + 1])))
  return { lower, upper }
}

test('no point at which all lines may hold is clipped off, in exact arithmetic and up to the very end of a box', () => {
  let [inside, cut, empty] = [0, 0, 0]
  for (let seed = 0; seed < 300; seed++) {
    const size = 1 + (seed % 4)
    const u = uniform(fold(key(7), seed), 64, -1, 1)
    const box = boxOf(u, size, [1, 1e-3, 1e4][seed % 3])
    const lines = [0, 1, 2].map((k): Line => {
      const coefficients = Float32Array.from({ length: size }, (_, i) => (i === k + 1 ? 0 : u[10 + 4 * k + i] * 3))
      const reach = coefficients.reduce((n, a, i) => n + Math.abs(a) * (box.upper[i] - box.lower[i]), 0)
      return { margin: Math.fround(-reach * Math.abs(u[30 + k])), coefficients, from: 0 }
    })
    const found = clipped(box, lines)
    const holds = (x: Float32Array) => lines.every((l) => compare(lineAt(l, box, x), ZERO) <= 0)
    const within = (x: Float32Array) =>
      found !== undefined && x.every((v, i) => v >= found.lower[i] && v <= found.upper[i])
    for (let k = 0; k < 60; k++) {
      const w = uniform(fold(key(8), 100 * seed + k), size, 0, 1)
      const x = box.lower.map((l, i) => Math.min(box.upper[i], l + w[i] * w[i] * (box.upper[i] - l)))
      if (holds(x)) {
        inside++
        assert.ok(within(x), `seed ${seed}: ${x} is lost`)
      }
    }
    if (found === undefined) empty++
    else if (found.lower.some((l, i) => l > box.lower[i]) || found.upper.some((h, i) => h < box.upper[i])) cut++
  }
  assert.ok(inside > 1000 && cut > 100 && empty > 3, `${inside} points inside, ${cut} boxes cut, ${empty} empty`)
})

test('one line cuts exactly to where it is 0, rounded outward; what is no number cuts nothing', () => {
  const box = { lower: Float32Array.of(-1, 0), upper: Float32Array.of(1, 4) }
  const line = (margin: number, ...a: number[]) => ({ margin, coefficients: Float32Array.from(a), from: 0 })
  const ends = (lines: readonly Line[]) => {
    const found = clipped(box, lines)
    return found && [...found.lower, ...found.upper].map((v) => Number(v.toFixed(5)))
  }
  assert.equal(ends([line(-1, 2, -0.5)]), [-1, 2, -0.5, 4])
  for (let seed = 1; seed < 50; seed++) {
    const l = line(Math.fround(-1 / seed), Math.fround(0.9 + seed / 7), 0)
    const end = (clipped(box, [l]) as { upper: Float32Array }).upper[0]
    const at = (x: number) => compare(lineAt(l, box, Float32Array.of(x, 0)), ZERO)
    assert.ok(at(end) >= 0 && at(end * (1 - Math.sign(end) * 2 ** -21)) < 0)
  }
  assert.equal(
    ends([line(Number.NaN, 2, 1), line(Number.NEGATIVE_INFINITY, 5, 5), line(-1, Number.NaN, 0)]),
    [-1, 0, 1, 4],
  )
  assert.is(ends([line(0.5, 1, 1)]), undefined)
  // Neither refutes it alone: the first keeps x_0 below -0.5, the second above 0.
  assert.is(ends([line(-1, 2, 0), line(-1, -1, 0)]), undefined)
  const both = [Float32Array.of(-1, 1), Float32Array.of(0, -2)].map((v) => ({ lower: v, upper: v.map((x) => x + 1) }))
  assert.equal(around(both), { lower: Float32Array.of(-1, -2), upper: Float32Array.of(1, 2) })
})

for (const rounding of ['none', { outward: 'real' }, { outward: 'deployed' }] satisfies Rounding[])
  test(`boxes clipped by constraints keep every counterexample, rounding ${JSON.stringify(rounding)}`, async () => {
    const { region, close } = openRegion(right(await wasm({ threads: 1 })()))
    const budget = budgetOf(region, 2 ** 30)
    let [kept, gone] = [0, 0]
    for (let seed = 1; seed <= 4; seed++) {
      const net = dense(seed, [3, 8, 6, 3])
      const [lower, upper] = [
        [-1, -0.75, 0.25],
        [1, 0.5, 0.75],
      ]
      const points = Array.from({ length: 400 }, (_, k) => {
        const u = uniform(fold(key(seed), k), 3, 0, 1)
        return lower.map((l, i) => Math.fround(l + u[i] * (upper[i] - l)))
      })
      const outputs = points.map((x) => run(net, x))
      // Bounds that about one in ten of the points are below.
      const least = (c: number[]) =>
        outputs.map((y) => c.reduce((s, a, j) => s + a * y[j], 0)).sort((a, b) => a - b)[40]
      const rows = [
        [1, -1, 0],
        [0.5, 0, -1],
        [0, 1, 1],
      ]
      const [p, q, r] = rows.map((c) => constraint(c, least(c)))
      const c = boxed(lower, upper, [[p, constraint(rows[1], least(rows[1]) + 2)], [p, q], [r]])
      const extent = { rows: 2, conjunctions: 3 }
      const [goal] = goalsOf(c, 0, extent, new Float64Array(3), rounding)
      for (const way of inputWays(subjectOf(net), 2 ** 20, 4).slice(0, 2)) {
        const brancher = await inputBrancher(budget)(subjectOf(net), { extent, rounding, clips: true }, way, 4)
        let cells = await brancher.bound([brancher.root(goal)])
        for (let round = 0; round < 4; round++) {
          const open = cells.filter(({ lower }) => !(lower > 0))
          points.forEach((x, k) => {
            const inCell = open.some(({ box }) => x.every((v, i) => v >= box.lower[i] && v <= box.upper[i]))
            if (c.unsafe.some((u) => distance(u, outputs[k]) < -1e-6)) {
              kept++
              assert.ok(inCell, `${way.name}, seed ${seed}, round ${round}: ${x} is lost`)
            } else gone += Number(!inCell)
          })
          const halves = open.flatMap(splitCell)
          cells = []
          for (let i = 0; i < halves.length; i += 4)
            cells = [...cells, ...(await brancher.bound(halves.slice(i, i + 4)))]
        }
      }
    }
    assert.ok(kept > 300 && gone > 300, `${kept} counterexamples kept, ${gone} other points gone`)
    close()
  })

test.run()
