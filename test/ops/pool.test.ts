import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { evaluate } from '../../src/compile/run.ts'
import { grad } from '../../src/compile/vjp.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { interval } from '../../src/core/op.ts'
import type { Rounding } from '../../src/core/rounding.ts'
import type { Apply, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { boundsOf, methods } from '../../src/robust/bounds.ts'
import { right } from '../shared.ts'
import { check, numbers } from './property.ts'

interface Pool {
  readonly map: readonly [number, number]
  readonly window: readonly [number, number]
  readonly stride: readonly [number, number]
  readonly dilation: readonly [number, number]
  readonly padding: readonly [number, number, number, number]
}

const pair = (min: number, max: number) => fc.tuple(fc.integer({ min, max }), fc.integer({ min, max }))
/** Pools of maps of up to 5x5 with padding on each side of its own. */
const pools: fc.Arbitrary<Pool> = fc.record({
  map: pair(1, 5),
  window: pair(1, 3),
  stride: pair(1, 3),
  dilation: pair(1, 2),
  padding: fc.tuple(pair(0, 3), pair(0, 3)).map(([[a, b], [c, d]]) => [a, b, c, d] as const),
})

/** The elements of the map in each window, row by row; undefined where no window fits. */
const windowsOf = ({ map, window, stride, dilation, padding }: Pool): readonly (readonly number[])[] | undefined => {
  const out = ([0, 1] as const).map(
    (d) => Math.floor((map[d] + padding[d] + padding[d + 2] - dilation[d] * (window[d] - 1) - 1) / stride[d]) + 1,
  )
  if (out.some((n) => n < 1)) return undefined
  return Array.from({ length: out[0] * out[1] }, (_, k) => {
    const [i, j] = [Math.floor(k / out[1]), k % out[1]]
    const inside: number[] = []
    for (let p = 0; p < window[0]; p++)
      for (let q = 0; q < window[1]; q++) {
        const [r, c] = [i * stride[0] - padding[0] + p * dilation[0], j * stride[1] - padding[1] + q * dilation[1]]
        if (r >= 0 && r < map[0] && c >= 0 && c < map[1]) inside.push(r * map[1] + c)
      }
    return inside
  })
}

const pooled = (pool: Pool) => (x: Tensor) => O.maxPool2d(x, pool.window, pool)

let simd: Backend
const doubles = reference()
test.before(async () => {
  simd = right(await wasm({ threads: 1 })())
})
test.after(() => simd.dispose())

test('max pooling with any padding, stride and dilation: values and gradients are those of the elements inside', () =>
  check(60, fc.tuple(pools, numbers(25, -9, -1)), async ([pool, data]) => {
    const windows = windowsOf(pool)
    if (windows === undefined || windows.some((w) => w.length === 0)) return fc.pre(false)
    const [h, w] = pool.map
    // Distinct, all below 0, some of them huge: no padding may win.
    const values = Float32Array.from({ length: h * w }, (_, i) => (data[i] - i / 64) * (i % 4 === 0 ? 2 ** 120 : 1))
    const x: Tensor = O.input('x', [1, 1, h, w])
    const y = pooled(pool)(x)
    const weights = windows.map((_, k) => k + 1)
    const loss = O.sum(O.mul(y, O.constant(weights, y.shape)) as Tensor)
    for (const backend of [simd, doubles]) {
      const [v, g] = await evaluate(backend)([y, ...grad(loss, [x])], new Map([[x, values]]))
      const gradient = new Float64Array(h * w)
      windows.forEach((inside, k) => {
        const best = inside.reduce((a, b) => (values[b] > values[a] ? b : a))
        assert.is(v[k], values[best])
        gradient[best] += weights[k]
      })
      assert.equal([...g], [...gradient])
    }
  }))

test('a window in the padding alone is refused by name', () =>
  check(60, pools, (pool) => {
    const windows = windowsOf(pool)
    if (windows === undefined || windows.every((w) => w.length > 0)) return fc.pre(false)
    const x: Tensor = O.input('x', [2, 3, ...pool.map])
    let message = ''
    try {
      pooled(pool)(x)
    } catch (e) {
      if (!(e instanceof MixtrainException)) throw e
      message = e.message
    }
    assert.match(message, /maxOfWindows/)
    assert.match(message, /lies in the padding alone/)
    assert.match(message, `padding [${pool.padding.slice(0, 2)}]`)
  }))

test('bounds of padded pools by every method and rounding are finite, hold, and are the box of the maxima where nothing precedes', () =>
  check(12, fc.tuple(pools, numbers(25, -3, 3), numbers(25, 0, 2)), async ([pool, data, widths]) => {
    const windows = windowsOf(pool)
    if (windows === undefined || windows.some((w) => w.length === 0)) return fc.pre(false)
    const [h, w] = pool.map
    const n = h * w
    const lower = Float32Array.from({ length: n }, (_, i) => Math.fround(data[i] - 4))
    const upper = lower.map((v, i) => Math.fround(v + (i % 3 === 0 ? 0 : widths[i])))
    const [l, u] = [O.constant(lower, [1, 1, h, w]), O.constant(upper, [1, 1, h, w])] as readonly Tensor[]
    const network = ((x: Tensor) => O.reshape(pooled(pool)(x), [1, windows.length])) as Apply
    const spec = O.constant(
      windows.map((_, k) => (k % 2 === 0 ? 1 : -0.5)),
      [1, 1, windows.length],
    )
    const roundings: readonly Rounding[] = ['none', { outward: 'real' }, { outward: 'deployed' }]
    for (const rounding of roundings)
      for (const [name, method] of Object.entries(methods)) {
        if (name === 'alpha-crown') continue
        const bounded = boundsOf(method)(network, interval(l, u), rounding)
        const [out, rows] = [bounded.output(), bounded.rows(spec)]
        for (const backend of rounding === 'none' ? [simd, doubles] : [simd]) {
          const [a, b, c, d] = await evaluate(backend)([out.lower, out.upper, rows.lower, rows.upper])
          const where = `${name}, ${JSON.stringify(rounding)}`
          for (const at of [lower, upper, lower.map((v, i) => (i % 2 === 0 ? v : upper[i]))]) {
            const values = windows.map((inside) => Math.max(...inside.map((i) => at[i])))
            const total = values.reduce((s, v, k) => s + (k % 2 === 0 ? v : -0.5 * v), 0)
            const room = rounding === 'none' ? 1e-4 : 0
            values.forEach((v, k) => {
              assert.ok(a[k] - room <= v && v <= b[k] + room, `${where}: ${v} is not in [${a[k]}, ${b[k]}]`)
            })
            assert.ok(c[0] - room <= total && total <= d[0] + room, `${where}: ${total} is not in [${c[0]}, ${d[0]}]`)
          }
          windows.forEach((inside, k) => {
            if (name !== 'ibp') return
            assert.is(a[k], Math.max(...inside.map((i) => lower[i])), where)
            assert.is(b[k], Math.max(...inside.map((i) => upper[i])), where)
          })
        }
      }
  }))

test.run()
