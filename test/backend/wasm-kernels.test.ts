import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Backend } from '../../src/compile/backend.ts'
import type { Instruction } from '../../src/compile/instruction.ts'
import type { ConvSizes } from '../../src/core/lowering.ts'
import { argmax, conv, fill, matmul, rowsBy, windows } from './instructions.ts'
import { firstFar, open, planOf, random, randomArray, runPlan, sameBits } from './wasm-programs.ts'

let one: Backend
let two: Backend
let three: Backend
test.before(async () => {
  one = await open({ threads: 1 })
  two = await open({ threads: 2 })
  three = await open({ threads: 3 })
})
test.after(() => {
  for (const b of [one, two, three]) b.dispose()
})

/** Runs on 1, 2 and 3 threads, insists on equal bits, returns the result. */
const everywhere = async (
  code: readonly Instruction[],
  inputs: readonly Float32Array[],
  outSize: number,
): Promise<Float32Array> => {
  const plan = planOf(
    code,
    inputs.map((x) => x.length),
    [outSize],
  )
  const [a] = await runPlan(one, plan, inputs)
  const [b] = await runPlan(two, plan, inputs)
  const [c] = await runPlan(three, plan, inputs)
  assert.ok(sameBits(a, b), 'one thread and two differ')
  assert.ok(sameBits(a, c), 'one thread and three differ')
  return a
}

// --------------------------------------------------------------------------------------------------------------- matmul

const matmulModel = (
  a: Float32Array,
  b: Float32Array,
  m: number,
  k: number,
  n: number,
  tA: boolean,
  tB: boolean,
  batch: number,
  sa: number,
  sb: number,
): Float64Array => {
  const out = new Float64Array(batch * m * n)
  for (let e = 0; e < batch; e++)
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++) {
        let s = 0
        for (let p = 0; p < k; p++)
          s += a[e * sa + (tA ? p * m + i : i * k + p)] * b[e * sb + (tB ? j * k + p : p * n + j)]
        out[(e * m + i) * n + j] = s
      }
  return out
}

const side = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 90 }))
test('matmul: any shape, transposition and batch', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        m: side,
        k: fc.oneof(side, fc.integer({ min: 250, max: 600 })),
        n: fc.oneof(side, fc.constantFrom(300)),
        tA: fc.boolean(),
        tB: fc.boolean(),
        batch: fc.constantFrom(1, 1, 2, 5),
        shareA: fc.boolean(),
        shareB: fc.boolean(),
      }),
      async ({ m, k, n, tA, tB, batch, shareA, shareB }) => {
        const sa = shareA ? 0 : m * k
        const sb = shareB ? 0 : k * n
        const a = randomArray(shareA ? m * k : batch * m * k, m + 1)
        const b = randomArray(shareB ? k * n : batch * k * n, n + 2)
        const strides = { strideA: sa, strideB: sb, strideOut: m * n }
        const code = [matmul([0, 1, 2], { m, k, n, transA: tA, transB: tB, batch, ...strides })]
        const got = await everywhere(code, [a, b], batch * m * n)
        const far = firstFar(got, matmulModel(a, b, m, k, n, tA, tB, batch, sa, sb), 2e-5)
        assert.is(far, -1, `element ${far}`)
      },
    ),
    { numRuns: 150, seed: 1 },
  )
})

test('matmul: NaN and infinity reach exactly their row and column', async () => {
  const [m, k, n] = [6, 9, 11]
  for (const [tA, tB] of [
    [false, false],
    [false, true],
    [true, false],
    [true, true],
  ]) {
    const a = randomArray(m * k, 1)
    const b = randomArray(k * n, 2)
    a[tA ? 2 * m + 5 : 5 * k + 2] = Number.NaN
    const got = await everywhere([matmul([0, 1, 2], { m, k, n, transA: tA, transB: tB })], [a, b], m * n)
    got.forEach((v, i) => assert.is(Number.isNaN(v), Math.floor(i / n) === 5))
  }
})

test('matmul: k = 0 is zero', async () => {
  const got = await everywhere(
    [matmul([0, 1, 2], { m: 3, k: 0, n: 5 })],
    [new Float32Array(1), new Float32Array(1)],
    15,
  )
  assert.ok(sameBits(got, new Float32Array(15)))
})

// ---------------------------------------------------------------------------------------------------------- convolutions

interface Geometry {
  readonly N: number
  readonly C: number
  readonly H: number
  readonly W: number
  readonly O: number
  readonly KH: number
  readonly KW: number
  readonly OH: number
  readonly OW: number
  readonly sy: number
  readonly sx: number
  readonly top: number
  readonly left: number
  readonly dy: number
  readonly dx: number
  readonly groups?: number
}

const sizesOf = (g: Geometry): ConvSizes => ({
  ...g,
  strideY: g.sy,
  strideX: g.sx,
  padTop: g.top,
  padLeft: g.left,
  dilationY: g.dy,
  dilationX: g.dx,
  groups: g.groups ?? 1,
})

/** Calls back with the flat indices of x, w and y of every product of a convolution. */
const products = (g: Geometry, visit: (x: number, w: number, y: number) => void): void => {
  const groups = g.groups ?? 1
  const ins = g.C / groups
  for (let n = 0; n < g.N; n++)
    for (let o = 0; o < g.O; o++)
      for (let i = 0; i < g.OH; i++)
        for (let j = 0; j < g.OW; j++)
          for (let c = 0; c < ins; c++)
            for (let p = 0; p < g.KH; p++)
              for (let q = 0; q < g.KW; q++) {
                const y = i * g.sy - g.top + p * g.dy
                const x = j * g.sx - g.left + q * g.dx
                if (y < 0 || y >= g.H || x < 0 || x >= g.W) continue
                const channel = Math.floor(o / (g.O / groups)) * ins + c
                visit(
                  ((n * g.C + channel) * g.H + y) * g.W + x,
                  ((o * ins + c) * g.KH + p) * g.KW + q,
                  ((n * g.O + o) * g.OH + i) * g.OW + j,
                )
              }
}

const sizes = (g: Geometry) => ({
  x: g.N * g.C * g.H * g.W,
  w: (g.O * g.C * g.KH * g.KW) / (g.groups ?? 1),
  y: g.N * g.O * g.OH * g.OW,
})

const checkConvolutions = async (g: Geometry, seed: number): Promise<void> => {
  const size = sizes(g)
  const x = randomArray(size.x, seed)
  const w = randomArray(size.w, seed + 1)
  const y = randomArray(size.y, seed + 2)
  const expected = { x: new Float64Array(size.x), w: new Float64Array(size.w), y: new Float64Array(size.y) }
  products(g, (xi, wi, yi) => {
    expected.y[yi] += x[xi] * w[wi]
    expected.x[xi] += y[yi] * w[wi]
    expected.w[wi] += x[xi] * y[yi]
  })
  const forward = await everywhere([conv('conv2d', [0, 1, 2], sizesOf(g))], [x, w], size.y)
  assert.is(firstFar(forward, expected.y, 1e-4), -1, `conv2d ${JSON.stringify(g)}`)
  const input = await everywhere([conv('conv2dInput', [0, 1, 2], sizesOf(g))], [y, w], size.x)
  assert.is(firstFar(input, expected.x, 1e-4), -1, `conv2dInput ${JSON.stringify(g)}`)
  const weight = await everywhere([conv('conv2dWeight', [0, 1, 2], sizesOf(g))], [x, y], size.w)
  assert.is(firstFar(weight, expected.w, 1e-4), -1, `conv2dWeight ${JSON.stringify(g)}`)
}

const small = fc.integer({ min: 1, max: 4 })
const geometries = fc
  .record({
    N: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 15, max: 35 })),
    C: fc.integer({ min: 1, max: 9 }),
    H: fc.integer({ min: 1, max: 9 }),
    W: fc.integer({ min: 1, max: 9 }),
    O: fc.integer({ min: 1, max: 9 }),
    KH: small,
    KW: small,
    sy: fc.integer({ min: 1, max: 3 }),
    sx: fc.integer({ min: 1, max: 3 }),
    top: fc.integer({ min: 0, max: 3 }),
    left: fc.integer({ min: 0, max: 3 }),
    bottom: fc.integer({ min: 0, max: 3 }),
    right: fc.integer({ min: 0, max: 3 }),
    dy: fc.integer({ min: 1, max: 2 }),
    dx: fc.integer({ min: 1, max: 2 }),
  })
  .map((r) => ({
    ...r,
    OH: Math.floor((r.H + r.top + r.bottom - (r.KH - 1) * r.dy - 1) / r.sy) + 1,
    OW: Math.floor((r.W + r.left + r.right - (r.KW - 1) * r.dx - 1) / r.sx) + 1,
  }))
  .filter(({ OH, OW }) => OH > 0 && OW > 0)

test('convolutions: any geometry', async () => {
  await fc.assert(
    fc.asyncProperty(geometries, (g) => checkConvolutions(g, g.N * 31 + g.C)),
    { numRuns: 120, seed: 3 },
  )
})

test('convolutions of channels in groups: any geometry', async () => {
  await fc.assert(
    fc.asyncProperty(geometries, small, small, small, (g, groups, ins, outs) =>
      checkConvolutions({ ...g, groups, C: groups * ins, O: groups * outs, W: 2 * g.W, OW: g.OW }, g.N * 31 + g.C),
    ),
    { numRuns: 120, seed: 5 },
  )
})

test('convolutions of the paper networks', async () => {
  const base = { KH: 4, KW: 4, sy: 2, sx: 2, dy: 1, dx: 1 }
  await checkConvolutions({ ...base, N: 19, C: 16, H: 14, W: 14, O: 32, OH: 7, OW: 7, top: 1, left: 1 }, 5)
  await checkConvolutions({ ...base, N: 19, C: 1, H: 28, W: 28, O: 16, OH: 14, OW: 14, top: 1, left: 1 }, 6)
  await checkConvolutions({ ...base, N: 9, C: 1, H: 10, W: 10, O: 16, OH: 4, OW: 4, top: 0, left: 0 }, 7)
  await checkConvolutions(
    { N: 3, C: 3, H: 16, W: 16, O: 8, KH: 3, KW: 3, OH: 16, OW: 16, sy: 1, sx: 1, top: 1, left: 1, dy: 1, dx: 1 },
    8,
  )
})

const meetsNoPadding = async (more: { readonly groups?: number }): Promise<void> => {
  const g: Geometry = {
    ...more,
    N: 2,
    C: 2,
    H: 5,
    W: 6,
    O: 3,
    KH: 3,
    KW: 3,
    OH: 5,
    OW: 6,
    sy: 1,
    sx: 1,
    top: 1,
    left: 1,
    dy: 1,
    dx: 1,
  }
  const size = sizes(g)
  const x = randomArray(size.x, 1)
  const w = randomArray(size.w, 2)
  const y = randomArray(size.y, 3)
  const bad = ((1 * g.C + 0) * g.KH + 0) * g.KW + 0
  w[bad] = Number.NaN
  const hitY = new Set<number>()
  const hitX = new Set<number>()
  products(g, (xi, wi, yi) => {
    if (wi !== bad) return
    hitY.add(yi)
    hitX.add(xi)
  })
  const forward = await everywhere([conv('conv2d', [0, 1, 2], sizesOf(g))], [x, w], size.y)
  forward.forEach((v, i) => assert.is(Number.isNaN(v), hitY.has(i)))
  const input = await everywhere([conv('conv2dInput', [0, 1, 2], sizesOf(g))], [y, w], size.x)
  input.forEach((v, i) => assert.is(Number.isNaN(v), hitX.has(i)))
  x[7] = Infinity
  y[3] = Number.NaN
  const expected = new Float64Array(size.w)
  products(g, (xi, wi, yi) => {
    expected[wi] += x[xi] * y[yi]
  })
  const weight = await everywhere([conv('conv2dWeight', [0, 1, 2], sizesOf(g))], [x, y], size.w)
  assert.is(firstFar(weight, expected, 1e-5), -1)
}

test('convolutions: a NaN weight meets no padding', async () => {
  await meetsNoPadding({})
  await meetsNoPadding({ groups: 1 })
})

// -------------------------------------------------------------------------------------------------- gathers and windows

test('gather and scatterAdd', async () => {
  const next = random(9)
  for (const [rows, n, d] of [
    [1, 1, 1],
    [7, 23, 5],
    [40, 13, 64],
    [3, 200, 17],
  ]) {
    const x = randomArray(rows * d, 1)
    const index = Float32Array.from({ length: n }, () => Math.floor(next() * rows))
    const got = await everywhere([rowsBy('gather', [0, 1, 2], { n, rows, d })], [x, index], n * d)
    const expected = Float32Array.from({ length: n * d }, (_, i) => x[index[Math.floor(i / d)] * d + (i % d)])
    assert.ok(sameBits(got, expected))
    const ct = randomArray(n * d, 2)
    const sums = new Float32Array(rows * d)
    ct.forEach((v, i) => {
      sums[index[Math.floor(i / d)] * d + (i % d)] += v
    })
    assert.ok(
      sameBits(await everywhere([rowsBy('scatterAdd', [0, 1, 2], { n, rows, d })], [ct, index], rows * d), sums),
    )
  }
})

test('gather: an index out of range gives NaN, scatterAdd drops it', async () => {
  const index = Float32Array.of(1, -1, 2, Number.NaN, 3e9)
  const got = await everywhere(
    [rowsBy('gather', [0, 1, 2], { n: 5, rows: 2, d: 2 })],
    [Float32Array.of(1, 2, 3, 4), index],
    10,
  )
  assert.equal([...got], [3, 4, ...Array(8).fill(Number.NaN)])
  const sum = await everywhere(
    [rowsBy('scatterAdd', [0, 1, 2], { n: 5, rows: 2, d: 1 })],
    [Float32Array.of(1, 2, 4, 8, 16), index],
    2,
  )
  assert.equal([...sum], [0, 1])
})

test('argmax: the first of the largest, NaN above all', async () => {
  const next = random(4)
  for (const [outer, axis, inner] of [
    [1, 1, 1],
    [5, 10, 1],
    [3, 7, 4],
    [2, 300, 3],
  ]) {
    const x = Float32Array.from({ length: outer * axis * inner }, () =>
      next() < 0.1 ? Number.NaN : Math.floor(next() * 6) - 3,
    )
    const expected = Float32Array.from({ length: outer * inner }, (_, u) => {
      const at = (j: number) => x[(Math.floor(u / inner) * axis + j) * inner + (u % inner)]
      let best = 0
      for (let j = 1; j < axis && !Number.isNaN(at(best)); j++) if (Number.isNaN(at(j)) || at(j) > at(best)) best = j
      return best
    })
    assert.ok(sameBits(await everywhere([argmax(0, 1, outer, axis, inner)], [x], outer * inner), expected))
  }
})

test('unfold and fold are adjoint views of padding-free windows', async () => {
  const geometries: readonly Geometry[] = [
    { N: 2, C: 3, H: 6, W: 5, O: 0, KH: 3, KW: 2, OH: 4, OW: 6, sy: 2, sx: 1, top: 1, left: 1, dy: 1, dx: 1 },
    { N: 1, C: 2, H: 7, W: 7, O: 0, KH: 2, KW: 2, OH: 3, OW: 3, sy: 2, sx: 2, top: 0, left: 0, dy: 2, dx: 1 },
  ]
  for (const g of geometries) {
    const size = g.N * g.OH * g.OW * g.C * g.KH * g.KW
    const x = randomArray(g.N * g.C * g.H * g.W, 1)
    const ct = randomArray(size, 2)
    const unfolded = new Float32Array(size)
    const folded = new Float32Array(x.length)
    let at = 0
    for (let n = 0; n < g.N; n++)
      for (let i = 0; i < g.OH; i++)
        for (let j = 0; j < g.OW; j++)
          for (let c = 0; c < g.C; c++)
            for (let p = 0; p < g.KH; p++)
              for (let q = 0; q < g.KW; q++, at++) {
                const y = i * g.sy - g.top + p * g.dy
                const z = j * g.sx - g.left + q * g.dx
                if (y < 0 || y >= g.H || z < 0 || z >= g.W) continue
                const xi = ((n * g.C + c) * g.H + y) * g.W + z
                unfolded[at] = x[xi]
                folded[xi] += ct[at]
              }
    assert.ok(sameBits(await everywhere([windows('unfold', 0, 1, sizesOf(g))], [x], size), unfolded))
    assert.ok(sameBits(await everywhere([windows('fold', 0, 1, sizesOf(g))], [ct], x.length), folded))
  }
})

test('fill', async () => {
  const got = await everywhere([fill(1, 2, 9, -2.5)], [new Float32Array(1)], 13)
  assert.equal([...got], [Number.NaN, Number.NaN, ...Array(9).fill(-2.5), Number.NaN, Number.NaN])
})

test.run()
