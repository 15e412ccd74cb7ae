import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { interval } from '../../src/core/op.ts'
import type { Apply, Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { boundsOf, crown, crownIbp, ibp, intersect, symbolic } from '../../src/robust/bounds.ts'
import { random } from '../backend/wasm-programs.ts'
import { prepare } from '../ops/property.ts'
import { right } from '../shared.ts'
import {
  type Dyadic,
  exactly,
  float32Run,
  isAtLeast,
  isAtMost,
  type Layer,
  minus,
  plus,
  sign,
  times,
  toFloat32,
} from './dyadic.ts'
import { numberOf, reals } from './real.ts'

/** Networks with smooth functions, magnitudes and products of neurons: real values and float32 executions against outward bounds. */

const METHODS = { ibp, symbolic, crown, 'crown-ibp': crownIbp, intersect: intersect(symbolic, ibp) } as const
const SEMANTICS = ['real', 'deployed'] as const

const square = (x: Dyadic): Dyadic => times(x, x)
const magnitude = (x: Dyadic): Dyadic => (sign(x) < 0 ? minus(x) : x)
const clamped = (x: Dyadic): Dyadic =>
  sign(plus(x, exactly(2))) < 0 ? exactly(-2) : sign(plus(x, exactly(-2))) > 0 ? exactly(2) : x

/** Activations: as graphs, in real numbers, and by how many units in the last place an implementation may be off. */
const ACTIVATIONS: readonly {
  readonly name: string
  readonly graph: (x: Tensor) => Operand
  readonly exact: (x: Dyadic) => Dyadic
  readonly off: number
}[] = [
  { name: 'tanh', graph: (x) => O.tanh(x), exact: reals.tanh, off: 7 },
  { name: 'sigmoid', graph: (x) => O.sigmoid(x), exact: reals.sigmoid, off: 7 },
  { name: 'abs', graph: (x) => O.abs(x), exact: magnitude, off: 0 },
  { name: 'exp of at most 2', graph: (x) => O.exp(O.clamp(x, -2, 2)), exact: (x) => reals.exp(clamped(x)), off: 7 },
  { name: 'root of the magnitude', graph: (x) => O.sqrt(O.abs(x)), exact: (x) => reals.sqrt(magnitude(x)), off: 0 },
  { name: 'square', graph: (x) => O.mul(x, x), exact: square, off: 0 },
  { name: 'max and min with numbers', graph: (x) => O.clamp(x, -2, 2), exact: clamped, off: 0 },
]

/** The nearest float32 to a real value, moved by so many units in the last place. */
const rounded = (x: Dyadic, units: number): number => {
  const y = toFloat32(x)
  if (units === 0) return y
  return Math.fround(y + units * 2 ** Math.max(-149, Math.floor(Math.log2(Math.abs(numberOf(x)))) - 23))
}

const WIDTHS = [3, 5, 4, 3] as const

for (const { name, graph, exact, off } of ACTIVATIONS)
  test(`${name}: no real value and no float32 execution leaves outward bounds`, async () => {
    const next = random(43)
    const unit = () => 2 * next() - 1
    const backends: readonly Backend[] = [right(await wasm({ threads: 1 })()), reference()]
    const [lower, upper]: readonly Tensor[] = [O.input('l', [1, 3]), O.input('u', [1, 3])]
    const parameters = WIDTHS.slice(1).flatMap((n, i): readonly Tensor[] => [
      O.input(`w${i}`, [n, WIDTHS[i]]),
      O.input(`b${i}`, [n]),
    ])
    const layer = (x: Operand, i: number): Tensor =>
      O.add(O.matmul(x as Tensor, parameters[2 * i], { transB: true }), parameters[2 * i + 1])
    const network = ((x: Tensor) => layer(graph(layer(graph(layer(x, 0)) as Tensor, 1)) as Tensor, 2)) as Apply
    const kinds = SEMANTICS.flatMap((s) => Object.entries(METHODS).map(([m, method]) => ({ s, m, method })))
    const bounds = kinds.map(({ s, method }) =>
      boundsOf(method)(network, interval(lower, upper), { outward: s }).output(),
    )
    const outputs = bounds.flatMap((b) => [b.lower, b.upper])
    const prepared = await Promise.all(
      backends.map(async (b) => ({ dtype: b.dtype, ...(await prepare(b, outputs, [lower, upper, ...parameters])) })),
    )
    let [finite, all] = [0, 0]
    for (let run = 0; run < 40; run++) {
      const scale = run % 4 === 0 ? 2 ** Math.floor(10 * unit()) : 1
      const data = parameters.map(({ shape }) =>
        Float32Array.from(
          { length: shape.reduce((a, b) => a * b, 1) },
          () => scale * unit() * (run % 4 === 1 ? 2 ** Math.floor(6 * unit()) : 1),
        ),
      )
      const centre = Float32Array.from({ length: 3 }, unit)
      const radius = [0, 2 ** -20, 0.01, 0.3, 2][run % 5]
      const [l, u] = [centre.map((c) => c - radius * next()), centre.map((c) => c + radius * next())]
      const layers: readonly Layer[] = [0, 1, 2].map((i) => ({
        outputs: Array.from(data[2 * i + 1], (bias, j) => ({
          terms: Array.from({ length: WIDTHS[i] }, (_, k) => [data[2 * i][j * WIDTHS[i] + k], k] as const),
          bias,
        })),
      }))
      const values: (readonly (readonly [semantics: readonly string[], y: readonly Dyadic[]])[])[] = []
      for (let t = 0; t < 3; t++) {
        const x = Array.from(l, (v, i) => {
          const share = t === 0 ? Math.round(next()) : next()
          return Math.min(u[i], Math.max(v, Math.fround(v + share * (u[i] - v))))
        })
        const real = [0, 1, 2].reduce<readonly Dyadic[]>((h, i) => {
          const z = layers[i].outputs.map(({ terms, bias }) =>
            terms.reduce((s, [w, k]) => plus(s, times(exactly(w), h[k])), exactly(bias)),
          )
          // Numbers of 300 bits are near enough, and do not grow.
          return (i === 2 ? z : z.map(exact)).map((v) => {
            const drop = BigInt(Math.max(0, v.m.toString(2).length - 300))
            return { m: v.m >> drop, e: v.e + Number(drop) }
          })
        }, x.map(exactly))
        const executed = [0, 1, 2].reduce<readonly number[]>((h, i) => {
          const z = float32Run([layers[i]], h, next)
          return i === 2 ? z : z.map((v) => rounded(exact(exactly(v)), off === 0 ? 0 : Math.round(off * unit())))
        }, x)
        values.push([
          [['real', 'deployed'], real],
          [['deployed'], executed.map(exactly)],
        ])
      }
      for (const { dtype, run: bound } of prepared) {
        const got = await bound([l, u, ...data])
        kinds.forEach(({ s, m }, k) => {
          const [a, b] = [got[2 * k], got[2 * k + 1]]
          const where = `run ${run}, ${m}, ${s}, ${dtype}`
          all += a.length
          finite += [...a].filter((v, j) => Number.isFinite(v) && Number.isFinite(b[j])).length
          for (const [semantics, y] of values.flat())
            if (semantics.includes(s))
              y.forEach((v, j) => {
                assert.ok(Number.isNaN(a[j]) || isAtLeast(v, a[j]), `${where}: ${numberOf(v)} is below ${a[j]}`)
                assert.ok(Number.isNaN(b[j]) || isAtMost(v, b[j]), `${where}: ${numberOf(v)} is above ${b[j]}`)
              })
        })
      }
    }
    assert.ok(finite > 0.95 * all, `${finite} of ${all} bounds are finite`)
    for (const p of prepared) p.close()
    for (const b of backends) b.dispose()
  })

test.run()
