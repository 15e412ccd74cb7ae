import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { plan } from '../../src/compile/plan.ts'
import { Combine, LoopMode, Micro } from '../../src/core/lowering.ts'
import * as S from '../../src/core/shape.ts'
import { dags, JUMPS, runPlan as runGraph } from '../compile/dag.ts'
import { entries } from '../ops/examples.ts'
import { check, numbers } from '../ops/property.ts'
import { argmax, between, conv, convSizes, fill, matmul, rowsBy, windows } from './instructions.ts'
import { gradientsOf, valuesOf } from './portable.ts'
import {
  arity,
  firstFar,
  type LoopSpec,
  loopModel,
  loopOf,
  micro,
  planOf,
  random,
  randomArray,
  runPlan,
  sameBits,
} from './wasm-programs.ts'
import { openOrSkip } from './webgpu-open.ts'

/** Every kernel of the WebGPU backend against a model in JavaScript; shapes are tiny, for software adapters run this. */

const rowMajor = (dims: readonly number[]): number[] => dims.map((_, d) => dims.slice(d + 1).reduce((a, b) => a * b, 1))
const micros = Object.values(Micro).filter((m): m is Micro => typeof m === 'number')

test('every scalar function has a place in the tests', () => {
  assert.ok(micros.length >= 23)
})

const gpu = await openOrSkip('WebGPU kernels')
if (gpu !== undefined) {
  const tiled = (await openOrSkip('WebGPU tiles', { tiles: true })) as Backend
  test.after(() => {
    gpu.dispose()
    tiled.dispose()
  })

  // ---- scalar functions ----------------------------------------------------------------------------------------------
  const SPECIAL = [
    ...[0, -0, 1, -1, Number.NaN, Infinity, -Infinity, 1e-45, -1e-45, 1.1754942e-38, -1.1754942e-38, 3.4e38, -3.4e38],
    ...[0.5, -2.25, 1e-20, 16777217, 7, 88.7, -88.7, 0.624, 0.626, 9.5, -103.5],
  ].map(Math.fround)
  /** Works on the bits: exact whatever a device makes of NaN, infinities and subnormals. */
  const exact = new Set([
    ...[Micro.min, Micro.max, Micro.neg, Micro.abs, Micro.sign, Micro.step, Micro.relu],
    ...[Micro.greater, Micro.greaterEqual, Micro.equal, Micro.select, Micro.floor, Micro.round],
  ])
  const TINY = 2 ** -126
  const same = (m: Micro, got: number, a: number, b: number, c: number): boolean => {
    const want = micro(m, a, b, c)
    if (exact.has(m)) return Object.is(got, Math.fround(want))
    if (Number.isNaN(want)) return Number.isNaN(got)
    // Subnormals may count as zero, on the way in and on the way out.
    const flush = (x: number) => (Math.abs(x) < TINY ? 0 : x)
    const wants = [want, micro(m, flush(a), b, c), micro(m, a, flush(b), c), micro(m, flush(a), flush(b), flush(c))]
    if (m === Micro.mulAdd) wants.push(Math.fround(a * b + c))
    if (m === Micro.splitMul) wants.push(flush(a) * (a > 0 ? b : c))
    if (m === Micro.div && (Math.abs(b) > 2 ** 126 || Math.abs(b) < TINY)) return true
    return wants.some((w) =>
      Number.isNaN(w)
        ? Number.isNaN(got)
        : !Number.isFinite(Math.fround(w))
          ? got === Math.fround(w)
          : Math.abs(got - w) <= Math.max(4e-6 * Math.abs(w), 2 * TINY),
    )
  }

  const mapOf = (m: Micro, n: number): LoopSpec => ({
    dims: [n],
    mode: LoopMode.map,
    combine: Combine.sum,
    kept: 1,
    out: { offset: 0, strides: [1] },
    inputs: Array.from({ length: arity(m) }, () => ({ offset: 0, strides: [1] })),
    temporaries: 1,
    ops: [[m, arity(m), 0, Math.min(1, arity(m) - 1), Math.min(2, arity(m) - 1)]],
  })

  for (const m of micros)
    test(`${Micro[m]} on all pairs of special values`, async () => {
      const k = SPECIAL.length
      const n = k * k
      const columns = [(i: number) => i % k, (i: number) => Math.floor(i / k), (i: number) => (i * 7 + 3) % k]
      const inputs = columns.map((g) => Float32Array.from({ length: n }, (_, i) => SPECIAL[g(i)]))
      const used = inputs.slice(0, arity(m))
      const [got] = await runPlan(
        gpu,
        planOf(
          [loopOf(mapOf(m, n))],
          used.map((x) => x.length),
          [n],
        ),
        used,
      )
      for (let i = 0; i < n; i++) {
        const [a, b, c] = [0, 1, 2].map((j) => inputs[Math.min(j, used.length - 1)][i])
        assert.ok(
          same(m, got[i], a, b, c),
          `${Micro[m]}(${used.map((x) => x[i]).join(', ')}) = ${got[i]}, not ${micro(m, a, b, c)}`,
        )
      }
    })

  test('exp, log, tanh, sigmoid and erf are good to some units in the last place', async () => {
    const n = 4001
    const x = Float32Array.from({ length: n }, (_, i) => (i - 2000) / 25)
    for (const m of [Micro.exp, Micro.log, Micro.tanh, Micro.sigmoid, Micro.erf]) {
      const [got] = await runPlan(gpu, planOf([loopOf(mapOf(m, n))], [n], [n]), [x])
      x.forEach((v, i) => {
        const want = micro(m, v, 0, 0)
        const far = got[i] === want ? 0 : Math.abs(got[i] - want) / Math.max(Math.abs(want), TINY)
        assert.ok(Number.isNaN(want) ? Number.isNaN(got[i]) : far < 2e-6, `${Micro[m]}(${v}) = ${got[i]}, not ${want}`)
      })
    }
  })

  test('sin and cos are good to 2^-22, and NaN beyond 8192', async () => {
    const n = 4003
    const x = Float32Array.from({ length: n }, (_, i) => (i < 2000 ? (i - 1000) / 50 : (i - 3000) * 8.3))
    for (const m of [Micro.sin, Micro.cos]) {
      const [got] = await runPlan(gpu, planOf([loopOf(mapOf(m, n))], [n], [n]), [x])
      x.forEach((v, i) => {
        const want = micro(m, v, 0, 0)
        assert.ok(
          Number.isNaN(want) ? Number.isNaN(got[i]) : Math.abs(got[i] - want) < 2 ** -22,
          `${Micro[m]}(${v}) = ${got[i]}, not ${want}`,
        )
      })
    }
  })

  test('n = 0..17: nothing is written past the end, NaN is kept in every place', async () => {
    const inputs = Array.from({ length: 18 }, (_, n) => randomArray(Math.max(n, 1), n + 1).fill(Number.NaN, n - 1, n))
    const code = inputs.map((_, n) => {
      // One input and one output slot per n.
      return between(loopOf(mapOf(Micro.relu, n)), 18 + n, n)
    })
    const got = await runPlan(
      gpu,
      planOf(
        code,
        inputs.map((x) => x.length),
        inputs.map((_, n) => n + 3),
      ),
      inputs,
    )
    got.forEach((y, n) => {
      const want = Float32Array.from({ length: n + 3 }, (_, i) => (i < n ? Math.max(inputs[n][i], 0) : Number.NaN))
      assert.ok(sameBits(y, want), `n = ${n}`)
    })
  })

  // ---- loops ---------------------------------------------------------------------------------------------------------
  const loopArbitrary = fc.record({
    dims: fc.array(fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 17 })), {
      minLength: 1,
      maxLength: 5,
    }),
    mode: fc.constantFrom(LoopMode.map, LoopMode.map, LoopMode.inner, LoopMode.keep),
    combine: fc.constantFrom(Combine.sum, Combine.max, Combine.min),
    nIn: fc.integer({ min: 1, max: 4 }),
    nOps: fc.integer({ min: 0, max: 6 }),
    seed: fc.integer({ min: 1, max: 1 << 30 }),
  })

  test('random loops agree with the model', async () => {
    await fc.assert(
      fc.asyncProperty(loopArbitrary, async ({ dims, mode, combine, nIn, nOps, seed }) => {
        fc.pre(S.size(dims) <= 5000 && (mode !== LoopMode.keep || dims.length >= 2))
        const next = random(seed)
        const pick = (n: number) => Math.floor(next() * n)
        const D = dims.length
        const kept = mode === LoopMode.map ? D : mode === LoopMode.inner ? pick(D) : pick(D - 1)
        const isKept = (d: number) => mode === LoopMode.map || d < kept || (mode === LoopMode.keep && d === D - 1)
        const views = Array.from({ length: nIn }, () => {
          const order = next() < 0.6 ? dims.map((_, d) => d) : dims.map((_, d) => d).reverse()
          const repeated = dims.map(() => next() < 0.25)
          const strides = dims.map(() => 0)
          let s = 1
          for (const d of order.reverse()) {
            if (repeated[d]) continue
            strides[d] = s
            s *= dims[d]
          }
          const offset = pick(4)
          return { offset, strides, size: s + offset }
        })
        const keptDims = dims.filter((_, d) => isKept(d))
        const outStrides = rowMajor(keptDims)
        let at = 0
        const out = { offset: 2, strides: dims.map((_, d) => (isKept(d) ? outStrides[at++] : 0)) }
        const usable = micros.filter((m) => exact.has(m) || [Micro.add, Micro.sub, Micro.mul, Micro.mulAdd].includes(m))
        const ops = Array.from({ length: nOps }, (_, i): [number, number, number, number, number] => {
          const from = () => pick(nIn + Math.min(i, 2))
          return [usable[pick(usable.length)], nIn + (i % 2), from(), from(), from()]
        })
        const spec: LoopSpec = { dims, mode, combine, kept, out, inputs: views, temporaries: 2, ops }
        const inputs = views.map((v, i) => randomArray(v.size, seed + i))
        const want = new Float64Array(S.size(keptDims) + 3).fill(Number.NaN)
        loopModel(spec, inputs, want)
        const [got] = await runPlan(
          gpu,
          planOf(
            [loopOf(spec)],
            inputs.map((x) => x.length),
            [want.length],
          ),
          inputs,
        )
        const far = firstFar(got, want, 1e-4)
        assert.is(far, -1, `element ${far}: ${got[far]} instead of ${want[far]}`)
      }),
      { numRuns: 60, seed: 11 },
    )
  })

  for (const [name, dims, mode, kept] of [
    ['nothing', [3, 0], LoopMode.inner, 1],
    ['one row', [1, 17], LoopMode.inner, 0],
    ['short rows', [37, 9], LoopMode.inner, 1],
    ['long rows', [3, 1500], LoopMode.inner, 1],
    ['everything, in segments', [300, 301], LoopMode.inner, 0],
    ['rows in segments', [2, 41, 1000], LoopMode.inner, 1],
    ['columns', [70, 33], LoopMode.keep, 0],
    ['columns of blocks', [3, 40, 65], LoopMode.keep, 1],
    ['columns in segments', [9000, 10], LoopMode.keep, 0],
  ] as const)
    test(`reductions over ${name}`, async () => {
      const n = S.size(dims)
      const strides = rowMajor(dims)
      const isKept = (d: number) => d < kept || (mode === LoopMode.keep && d === dims.length - 1)
      const keptDims = dims.filter((_, d) => isKept(d))
      const keptStrides = rowMajor(keptDims)
      let at = 0
      const out = { offset: 0, strides: dims.map((_, d) => (isKept(d) ? keptStrides[at++] : 0)) }
      for (const combine of [Combine.sum, Combine.max, Combine.min]) {
        const spec: LoopSpec = {
          ...{ dims, mode, combine, kept, out, temporaries: 0, ops: [] },
          inputs: [{ offset: 0, strides }],
        }
        const x = randomArray(Math.max(n, 1), 5)
        const size = S.size(keptDims)
        const neutral = combine === Combine.sum ? 0 : combine === Combine.max ? -Infinity : Infinity
        const want = new Float64Array(size).fill(neutral)
        loopModel(spec, [x], want)
        const plan = planOf([loopOf(spec)], [x.length], [size])
        const [got] = await runPlan(gpu, plan, [x])
        const far = firstFar(got, want, combine === Combine.sum ? 1e-4 : 0)
        assert.is(far, -1, `element ${far}: ${got[far]} instead of ${want[far]}`)
        if (n === 0) continue
        const [again] = await runPlan(gpu, plan, [x.fill(Number.NaN, n - 1)])
        assert.ok(Number.isNaN(again[size - 1]), 'NaN is lost')
      }
    })

  // ---- products ------------------------------------------------------------------------------------------------------
  const checkMatmul = async (
    b: Backend,
    m: number,
    k: number,
    n: number,
    tA: number,
    tB: number,
    batch = 1,
    shared = false,
    finished = false,
  ) => {
    const [sa, sb] = [m * k, shared ? 0 : k * n]
    const x = randomArray(Math.max(1, batch * m * k), m + 1)
    const y = randomArray(Math.max(1, shared ? k * n : batch * k * n), n + 2)
    const want = new Float64Array(batch * m * n)
    for (let e = 0; e < batch; e++)
      for (let i = 0; i < m; i++)
        for (let j = 0; j < n; j++)
          for (let p = 0; p < k; p++)
            want[(e * m + i) * n + j] +=
              x[e * sa + (tA ? p * m + i : i * k + p)] * y[e * sb + (tB ? j * k + p : p * n + j)]
    const bias = randomArray(n, 9)
    if (finished)
      want.forEach((v, i) => {
        want[i] = Math.max(v + bias[i % n], 0)
      })
    const transposed = { transA: tA === 1, transB: tB === 1 }
    const sizes = { m, k, n, ...transposed, batch, strideA: sa, strideB: sb, strideOut: m * n }
    const code = [matmul([0, 1, 3], sizes, finished ? { bias: 2, relu: true } : undefined)]
    const [got] = await runPlan(b, planOf(code, [x.length, y.length, n], [want.length]), [x, y, bias])
    const far = firstFar(got, want, 1e-4)
    assert.is(far, -1, `${[m, k, n, tA, tB, batch]}: element ${far} is ${got[far]}, not ${want[far]}`)
  }
  const TRANSPOSITIONS = [
    [0, 0],
    [0, 1],
    [1, 0],
    [1, 1],
  ] as const

  test('matmul without tiles: shapes, transpositions, batches', async () => {
    for (const [tA, tB] of TRANSPOSITIONS)
      for (const [m, k, n] of [
        [1, 1, 1],
        [3, 0, 5],
        [5, 7, 3],
        [17, 33, 20],
        [2, 300, 9],
      ])
        await checkMatmul(gpu, m, k, n, tA, tB, m === 5 ? 3 : 1, tA === 1)
  })
  for (const [tA, tB] of TRANSPOSITIONS)
    test(`matmul by tiles, transposed ${tA} ${tB}: edges, four at a time, batches`, async () => {
      await checkMatmul(tiled, 33, 47, 37, tA, tB)
      await checkMatmul(tiled, 36, 20, 68, tA, tB, 2, tA === 1)
    })
  test('matmul by tiles: a long k is split', async () => {
    await checkMatmul(tiled, 5, 20001, 7, 0, 0)
    await checkMatmul(tiled, 8, 20000, 36, 0, 1, 2, false, true)
  })
  test('matmul by long tiles: few rows, few columns', async () => {
    await checkMatmul(tiled, 7, 40, 200, 0, 0)
    await checkMatmul(tiled, 200, 40, 7, 0, 1)
    await checkMatmul(tiled, 21, 40, 70, 1, 0)
    await checkMatmul(tiled, 70, 40, 21, 1, 1)
  })
  test('matmul by large tiles', async () => {
    await checkMatmul(tiled, 68, 9, 72, 0, 0, 128)
  })
  test('matmul adds a bias and applies relu itself: without tiles, by blocks, by tiles, four at a time', async () => {
    await checkMatmul(gpu, 5, 7, 3, 0, 0, 1, false, true)
    await checkMatmul(gpu, 33, 47, 37, 0, 1, 1, false, true)
    await checkMatmul(tiled, 33, 47, 37, 0, 0, 1, false, true)
    await checkMatmul(tiled, 36, 40, 68, 1, 1, 2, true, true)
  })
  test('matmul: NaN reaches exactly its row', async () => {
    const [m, k, n] = [34, 40, 35]
    const a = randomArray(m * k, 1)
    a[5 * k + 2] = Number.NaN
    for (const b of [gpu, tiled]) {
      const code = [matmul([0, 1, 2], { m, k, n })]
      const [got] = await runPlan(b, planOf(code, [m * k, k * n], [m * n]), [a, randomArray(k * n, 2)])
      got.forEach((v, i) => {
        assert.is(Number.isNaN(v), Math.floor(i / n) === 5)
      })
    }
  })

  // ---- convolutions and windows --------------------------------------------------------------------------------------
  type Geometry = readonly [
    N: number,
    C: number,
    H: number,
    W: number,
    O: number,
    KH: number,
    KW: number,
    OH: number,
    OW: number,
    sy: number,
    sx: number,
    top: number,
    left: number,
    dy: number,
    dx: number,
  ]
  /** Calls back with the flat indices of x, w, y and the window of every product of a convolution. */
  const products = (g: Geometry, visit: (x: number, w: number, y: number, window: number) => void): void => {
    const [N, C, H, W, O, KH, KW, OH, OW, sy, sx, top, left, dy, dx] = g
    for (let n = 0; n < N; n++)
      for (let o = 0; o < O; o++)
        for (let i = 0; i < OH; i++)
          for (let j = 0; j < OW; j++)
            for (let c = 0; c < C; c++)
              for (let p = 0; p < KH; p++)
                for (let q = 0; q < KW; q++) {
                  const [y, x] = [i * sy - top + p * dy, j * sx - left + q * dx]
                  if (y < 0 || y >= H || x < 0 || x >= W) continue
                  const window = ((((n * OH + i) * OW + j) * C + c) * KH + p) * KW + q
                  visit(
                    ((n * C + c) * H + y) * W + x,
                    ((o * C + c) * KH + p) * KW + q,
                    ((n * O + o) * OH + i) * OW + j,
                    window,
                  )
                }
  }
  const checkConvolutions = async (b: Backend, g: Geometry): Promise<void> => {
    const [N, C, H, W, O, KH, KW, OH, OW] = g
    const [xs, ws, ys] = [N * C * H * W, O * C * KH * KW, N * O * OH * OW]
    const [x, w, y, bias] = [randomArray(xs, 1), randomArray(ws, 2), randomArray(ys, 3), randomArray(O + C, 4)]
    const want = [new Float64Array(ys), new Float64Array(xs), new Float64Array(ws)]
    products(g, (xi, wi, yi) => {
      want[0][yi] += x[xi] * w[wi]
      want[1][xi] += y[yi] * w[wi]
      want[2][wi] += x[xi] * y[yi]
    })
    // With a bias for each channel, and with relu.
    want[0].forEach((v, i) => {
      want[0][i] = Math.max(v + bias[Math.floor(i / (OH * OW)) % O], 0)
    })
    want[1].forEach((v, i) => {
      want[1][i] = v + bias[Math.floor(i / (H * W)) % C]
    })
    const code = [
      conv('conv2d', [0, 1, 4], convSizes(g), { bias: 3, relu: true }),
      conv('conv2dInput', [2, 1, 5], convSizes(g), { bias: 3, relu: false }),
      conv('conv2dWeight', [0, 2, 6], convSizes(g)),
    ]
    const got = await runPlan(b, planOf(code, [xs, ws, ys, O + C], [ys, xs, ws]), [x, w, y, bias])
    got.forEach((r, i) => {
      const far = firstFar(r, want[i], 1e-4)
      assert.is(
        far,
        -1,
        `${['conv2d', 'conv2dInput', 'conv2dWeight'][i]} ${g}: element ${far} is ${r[far]}, not ${want[i][far]}`,
      )
    })
  }
  const geometries: readonly Geometry[] = [
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1],
    [2, 3, 8, 7, 4, 4, 3, 4, 4, 2, 2, 1, 1, 1, 1],
    [2, 2, 9, 9, 3, 3, 3, 3, 4, 3, 2, 0, 1, 1, 1],
    [1, 2, 7, 8, 3, 3, 2, 3, 6, 2, 1, 2, 1, 2, 2],
    [3, 1, 5, 6, 2, 2, 4, 2, 1, 3, 3, 0, 0, 1, 1],
  ]
  test('convolutions without tiles', async () => {
    for (const g of geometries) await checkConvolutions(gpu, g)
  })
  test('convolutions by tiles', async () => {
    await checkConvolutions(tiled, [5, 3, 14, 13, 17, 4, 4, 7, 6, 2, 2, 1, 1, 1, 1])
  })

  test('unfold and fold', async () => {
    for (const g of geometries) {
      const [N, C, H, W, , KH, KW, OH, OW] = g
      const [xs, us] = [N * C * H * W, N * OH * OW * C * KH * KW]
      const [x, u] = [randomArray(xs, 1), randomArray(us, 2)]
      const want = [new Float64Array(us), new Float64Array(xs)]
      products(g.map((v, i) => (i === 4 ? 1 : v)) as unknown as Geometry, (xi, _w, _y, window) => {
        want[0][window] = x[xi]
        want[1][xi] += u[window]
      })
      const code = [windows('unfold', 0, 2, convSizes(g)), windows('fold', 1, 3, convSizes(g))]
      const got = await runPlan(gpu, planOf(code, [xs, us], [us, xs]), [x, u])
      got.forEach((r, i) => {
        assert.is(firstFar(r, want[i], i * 1e-5), -1, `${g}`)
      })
    }
  })

  // ---- rows and fills ------------------------------------------------------------------------------------------------
  test('gather and scatterAdd: indices that name no row give NaN, or nothing', async () => {
    const [rows, d] = [4, 3]
    const index = Float32Array.of(2, 0, -0, 3, 2, -1, 4, Number.NaN, Infinity, 1)
    const n = index.length
    const [x, y] = [randomArray(rows * d, 1), randomArray(n * d, 2)]
    const want = [new Float64Array(n * d).fill(Number.NaN), new Float64Array(rows * d)]
    index.forEach((r, i) => {
      if (!(r >= 0 && r < rows)) return
      for (let j = 0; j < d; j++) {
        want[0][i * d + j] = x[r * d + j]
        want[1][r * d + j] += y[i * d + j]
      }
    })
    const code = [rowsBy('gather', [0, 2, 3], { n, rows, d }), rowsBy('scatterAdd', [1, 2, 4], { n, rows, d })]
    const got = await runPlan(gpu, planOf(code, [rows * d, n * d, n], [n * d, rows * d]), [x, y, index])
    assert.ok(sameBits(got[0], want[0]))
    assert.is(firstFar(got[1], want[1], 1e-6), -1)
  })

  test('argmax: the first of the largest, NaN before all', async () => {
    const [outer, axis, inner] = [5, 7, 3]
    const x = randomArray(outer * axis * inner, 9).map((v, i) => (i % 13 === 5 ? Number.NaN : Math.round(v * 3)))
    const want = Float32Array.from({ length: outer * inner }, (_, e) => {
      const row = Array.from({ length: axis }, (_v, j) => x[(Math.floor(e / inner) * axis + j) * inner + (e % inner)])
      const broken = row.findIndex(Number.isNaN)
      return broken >= 0 ? broken : row.indexOf(Math.max(...row))
    })
    const [got] = await runPlan(gpu, planOf([argmax(0, 1, outer, axis, inner)], [x.length], [want.length]), [x])
    assert.ok(sameBits(got, want))
  })

  test('fill: any bits', async () => {
    const values = [0, -0, 1.5, -Infinity, Number.NaN]
    const code = values.map((v, i) => fill(0, i * 3, 2, v))
    const [got] = await runPlan(gpu, planOf(code, [], [15]), [])
    const want = values.flatMap((v) => [v, v, Number.NaN])
    assert.ok(sameBits(got, want), `${got}`)
  })

  // ---- the registry --------------------------------------------------------------------------------------------------
  for (const entry of entries) {
    test(`op ${entry.op.name} agrees with the reference`, async () => {
      assert.equal(await valuesOf(gpu, entry), [])
      assert.is(gpu.stats().live, 0)
    })
    test(`gradients of op ${entry.op.name} agree with the reference`, async () => {
      assert.equal(await gradientsOf(gpu, entry), [])
      assert.is(gpu.stats().live, 0)
    })
  }

  test('random graphs, fused as plans fuse them, agree with the reference', () =>
    check(
      12,
      dags(12, JUMPS).chain((dag) =>
        fc.tuple(fc.constant(dag), fc.tuple(...dag.inputs.map((x) => numbers(S.size(x.shape), -1.5, 1.5)))),
      ),
      async ([dag, data]) => {
        const oracle = reference()
        const exact = data.map((d) => Float64Array.from(Float32Array.from(d)))
        const all = await runGraph(oracle, plan(dag.nodes, dag.inputs), exact)
        const scale = all.reduce((m, x) => Math.max(m, ...Array.from(x, Math.abs)), 1)
        if (!(scale < 1e30)) return
        const want = await runGraph(oracle, plan(dag.outputs, dag.inputs), exact)
        const got = await runGraph(
          gpu,
          plan(dag.outputs, dag.inputs),
          data.map((d) => Float32Array.from(d)),
        )
        want.forEach((w, k) => {
          w.forEach((v, i) => {
            if (!(Math.abs(got[k][i] - v) <= 1e-4 * scale))
              throw new Error(`${dag.text}: output ${k} element ${i} is ${got[k][i]}, the reference ${v}`)
          })
        })
      },
    ))
}

test.run()
