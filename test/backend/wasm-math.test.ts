import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Backend } from '../../src/compile/backend.ts'
import { Micro } from '../../src/core/lowering.ts'
import { micro, open, random, runPlan, unaryPlan } from './wasm-programs.ts'

let b: Backend
test.before(async () => {
  b = await open({ threads: 1 })
})
test.after(() => b.dispose())

const evaluate = async (m: Micro, x: Float32Array): Promise<Float32Array> =>
  (await runPlan(b, unaryPlan(m, x.length), [x]))[0]

/** The distance from f32 `got` to f64 `exact` in units of the last place of `exact` (the subnormal spacing at least). */
const ulps = (got: number, exact: number): number => {
  if (Object.is(got, Math.fround(exact)) || (Number.isNaN(got) && Number.isNaN(exact))) return 0
  const spacing = 2 ** Math.max(-149, Math.floor(Math.log2(Math.abs(exact))) - 23)
  return Math.abs(got - exact) / spacing
}

const next = random(77)
/** Every exponent and sign, random mantissas; and a uniform grid over the interesting range. */
const everywhere = Float32Array.from(
  { length: 200_000 },
  (_, i) => (i & 1 ? -1 : 1) * (1 + next()) * 2 ** (((i >> 1) % 256) - 140),
)
const grid = (low: number, high: number) =>
  Float32Array.from({ length: 200_000 }, (_, i) => low + ((high - low) * i) / 200_000)

for (const [m, bound, low, high] of [
  [Micro.exp, 2, -104, 89],
  [Micro.log, 2, 0, 4],
  [Micro.tanh, 3, -10, 10],
  [Micro.sigmoid, 4, -104, 20],
  [Micro.erf, 3, -4.5, 4.5],
] as const)
  test(`${Micro[m]} is within ${bound} ulp`, async () => {
    for (const xs of [everywhere, grid(low, high), grid(-1, 1), grid(0.9, 1.1)]) {
      const got = await evaluate(m, xs)
      let worst = 0
      let where = 0
      got.forEach((v, i) => {
        const u = ulps(v, micro(m, xs[i], 0, 0))
        if (!(u <= worst)) {
          worst = u
          where = i
        }
      })
      assert.ok(worst <= bound, `${worst} ulp at ${xs[where]}: ${got[where]} instead of ${micro(m, xs[where], 0, 0)}`)
    }
  })

test('sin and cos are within 2^-23 where they are known', async () => {
  for (const m of [Micro.sin, Micro.cos])
    for (const xs of [everywhere, grid(-8192, 8192), grid(-10, 10), grid(1.57, 1.572)]) {
      const got = await evaluate(m, xs)
      got.forEach((v, i) => {
        const exact = micro(m, xs[i], 0, 0)
        assert.ok(
          Number.isNaN(exact) ? Number.isNaN(v) : Math.abs(v - exact) <= 2 ** -23,
          `${Micro[m]}(${xs[i]}) = ${v} instead of ${exact}`,
        )
      })
    }
})

test('special values are exact, in lanes and in tails', async () => {
  const cases: readonly (readonly [Micro, readonly (readonly [number, number])[]])[] = [
    [
      Micro.exp,
      [
        [Number.NEGATIVE_INFINITY, 0],
        [Infinity, Infinity],
        [0, 1],
        [-0, 1],
        [1e-45, 1],
        [1e30, Infinity],
        [-1e30, 0],
        [Number.NaN, Number.NaN],
      ],
    ],
    [
      Micro.log,
      [
        [0, -Infinity],
        [-0, -Infinity],
        [-1, Number.NaN],
        [-1e-45, Number.NaN],
        [-Infinity, Number.NaN],
        [Infinity, Infinity],
        [1, 0],
        [Number.NaN, Number.NaN],
      ],
    ],
    [
      Micro.tanh,
      [
        [-Infinity, -1],
        [Infinity, 1],
        [0, 0],
        [-0, -0],
        [20, 1],
        [-20, -1],
        [1e-45, 1.401298464324817e-45],
        [Number.NaN, Number.NaN],
      ],
    ],
    [
      Micro.sigmoid,
      [
        [-Infinity, 0],
        [Infinity, 1],
        [0, 0.5],
        [-0, 0.5],
        [100, 1],
        [-1e30, 0],
        [1e-45, 0.5],
        [Number.NaN, Number.NaN],
      ],
    ],
    [
      Micro.erf,
      [
        [-Infinity, -1],
        [Infinity, 1],
        [0, 0],
        [-0, -0],
        [4, 1],
        [-3e38, -1],
        [Number.NaN, Number.NaN],
      ],
    ],
    [
      Micro.floor,
      [
        [-0.25, -1],
        [-1e-45, -1],
        [-0, -0],
        [0.75, 0],
        [8388607.5, 8388607],
        [-3e38, -Math.fround(3e38)],
        [Infinity, Infinity],
        [Number.NaN, Number.NaN],
      ],
    ],
    [
      Micro.round,
      [
        [0.5, 0],
        [-0.5, -0],
        [1.5, 2],
        [2.5, 2],
        [-3.5, -4],
        [8388606.5, 8388606],
        [-Infinity, -Infinity],
        [Number.NaN, Number.NaN],
      ],
    ],
  ]
  for (const [m, pairs] of cases)
    for (let n = 1; n <= 17; n++) {
      const got = await evaluate(
        m,
        Float32Array.from({ length: n }, (_, i) => pairs[(i + n) % pairs.length][0]),
      )
      got.forEach((v, i) => {
        const [x, want] = pairs[(i + n) % pairs.length]
        assert.ok(Object.is(v, want), `${Micro[m]}(${x}) = ${v} instead of ${want}`)
      })
    }
})

test('exp and sigmoid do not decrease over a grid', async () => {
  for (const [m, low, high] of [
    [Micro.exp, -104, 89],
    [Micro.sigmoid, -104, 20],
  ] as const) {
    const got = await evaluate(m, grid(low, high))
    // Neighbours of the grid are many ulp apart in the result, far more than the error.
    for (let i = 1; i < got.length; i++) assert.ok(got[i] >= got[i - 1])
  }
})

test.run()
