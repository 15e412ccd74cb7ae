import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { pieces, startOf, type Walk } from '../../src/backend/webgpu/pages.ts'
import type { Backend } from '../../src/compile/backend.ts'
import type { Instruction } from '../../src/compile/instruction.ts'
import { plan, type Slot } from '../../src/compile/plan.ts'
import { Combine, LoopMode, Micro } from '../../src/core/lowering.ts'
import * as S from '../../src/core/shape.ts'
import { dags, JUMPS } from '../compile/dag.ts'
import { argmax, conv, convSizes, fill, matmul, rowsBy, windows } from './instructions.ts'
import { firstFar, type LoopSpec, loopOf, planOf, random, randomArray, runPlan, sameBits } from './wasm-programs.ts'
import { openOrSkip } from './webgpu-open.ts'

/** Storage in pages: what a device with small limits computes is what any other does. */

// ---- without an adapter ----------------------------------------------------------------------------------------------

const LENGTH = 64

/** Every element that a walk touches, point by point of an iteration. */
const touched = (w: Walk, from: readonly number[], extents: readonly number[], visit: (at: number) => void): void => {
  const point = (d: number, at: number): void => {
    if (d === extents.length) for (let i = 0; i < (w.run ?? 1); i++) visit(at + i)
    else for (let i = 0; i < extents[d]; i++) point(d + 1, at + (from[d] + i) * w.strides[d])
  }
  point(0, w.offset)
}

test('pieces cover an iteration once, and each operand of a piece lies on one page', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 4 }),
      fc.integer({ min: 1, max: 2 ** 30 }),
      fc.integer({ min: 2, max: 9 }),
      (extents, seed, bindings) => {
        const next = random(seed)
        const pick = (n: number) => Math.floor(next() * n)
        const walks = Array.from({ length: 1 + pick(4) }, (_, slot): Walk => {
          const strides = extents.map(() => pick(40) - (next() < 0.2 ? 20 : 0))
          const low = strides.reduce((s, x, d) => s + Math.min(0, x * (extents[d] - 1)), 0)
          return { slot, offset: pick(5) - low, strides, run: 1 + pick(3) }
        })
        const slots = walks.map(
          (_, index): Slot =>
            index % 2 ? { at: 'arena', offset: pick(200), length: 9999 } : { at: 'input', index, length: 9999 },
        )
        const found = pieces(extents, walks, { length: LENGTH, bindings, slots })
        const seen = new Map<string, number>()
        for (const p of found) {
          touched({ slot: 0, offset: 0, strides: extents.map((_, d) => 10 ** d) }, p.from, p.extents, (at) =>
            seen.set(`${at}`, (seen.get(`${at}`) ?? 0) + 1),
          )
          for (const w of walks) {
            const pages = new Set<number>()
            touched(w, p.from, p.extents, (at) => pages.add(Math.floor((startOf(slots[w.slot]) + at) / LENGTH)))
            assert.ok(p.torn || pages.size === 1)
            // Only a run can be torn: an element cannot.
            assert.ok(!p.torn || walks.some((x) => (x.run ?? 1) > 1))
          }
        }
        assert.is(seen.size, S.size(extents))
        assert.ok([...seen.values()].every((n) => n === 1))
      },
    ),
    { numRuns: 300, seed: 5 },
  )
})

test('a plan in pages: what fits a page does not reach over the end of one, and nothing overlaps that did not', () => {
  fc.assert(
    fc.property(dags(14, JUMPS), fc.constantFrom(64, 128, 256), (dag, page) => {
      const paged = plan(dag.outputs, dag.inputs, { page })
      const flat = plan(dag.outputs, dag.inputs)
      assert.equal(paged.instructions.length, flat.instructions.length)
      for (const s of paged.slots)
        if (s.at === 'arena' && s.length > 0 && s.length <= page)
          assert.is(Math.floor(s.offset / page), Math.floor((s.offset + s.length - 1) / page))
    }),
    { numRuns: 60, seed: 3 },
  )
})

// ---- with one --------------------------------------------------------------------------------------------------------

const gpu = await openOrSkip('WebGPU in pages')
if (gpu !== undefined) {
  const small = { bindingBytes: 4096, bindings: 4, groups: 3 }
  const narrow = (await openOrSkip('WebGPU in pages', { limits: small })) as Backend
  const tiled = (await openOrSkip('WebGPU in pages', { limits: small, tiles: true })) as Backend
  test.after(() => {
    for (const b of [gpu, narrow, tiled]) b.dispose()
  })

  /** The same program with and without small limits; sums may be cut, all else is the same bits. */
  const same = async (
    instruction: Instruction,
    inputs: readonly Float32Array[],
    outputs: readonly number[],
    tolerance = 0,
    b: Backend = narrow,
  ): Promise<void> => {
    const program = planOf(
      [instruction],
      inputs.map((x) => x.length),
      outputs,
    )
    const want = await runPlan(gpu, program, inputs)
    const got = await runPlan(b, program, inputs)
    want.forEach((w, k) => {
      if (tolerance === 0) assert.ok(sameBits(got[k], w), `output ${k}`)
      else assert.is(firstFar(got[k], w, tolerance), -1, `output ${k}`)
    })
  }

  test('buffers longer than a page: written and read in any part', async () => {
    const x = randomArray(5000, 1)
    const b = narrow.alloc(5000)
    narrow.write(b, x)
    narrow.write(b, Float32Array.of(7, 8, 9), 1023)
    const want = Float32Array.from(x)
    want.set([7, 8, 9], 1023)
    assert.equal(await narrow.read(b), want)
    assert.equal(await narrow.read(b, 1000, 3100), want.slice(1000, 4100))
    assert.equal(narrow.stats(), { ...narrow.stats(), live: 1, bytes: 20000 })
    narrow.free(b)
  })

  test('loops: eight long inputs on four bindings, columns, transposition, every reduction', async () => {
    const n = 1500
    const eight: LoopSpec = {
      ...{ dims: [n], mode: LoopMode.map, combine: Combine.sum, kept: 1, out: { offset: 0, strides: [1] } },
      inputs: Array.from({ length: 8 }, (_, i) => ({ offset: i, strides: [1] })),
      temporaries: 1,
      ops: Array.from({ length: 7 }, (_, i) => [Micro.add, 8, i === 0 ? 0 : 8, i + 1, 0] as const),
    }
    await same(
      loopOf(eight),
      Array.from({ length: 8 }, (_, i) => randomArray(n + i, i + 1)),
      [n],
    )
    const [r, c] = [70, 45]
    const turned: LoopSpec = {
      ...{ dims: [c, r], mode: LoopMode.map, combine: Combine.sum, kept: 2, out: { offset: 0, strides: [r, 1] } },
      ...{ inputs: [{ offset: 0, strides: [1, c] }], temporaries: 0, ops: [] },
    }
    await same(loopOf(turned), [randomArray(r * c, 3)], [r * c])
    for (const [mode, kept, strides, size] of [
      [LoopMode.inner, 1, [1, 0], r],
      [LoopMode.inner, 0, [0, 0], 1],
      [LoopMode.keep, 0, [0, 1], c],
    ] as const)
      for (const combine of [Combine.sum, Combine.max]) {
        const spec: LoopSpec = {
          ...{ dims: [r, c], mode, combine, kept, out: { offset: 0, strides } },
          ...{ inputs: [{ offset: 0, strides: [c, 1] }], temporaries: 0, ops: [] },
        }
        await same(loopOf(spec), [randomArray(r * c, 4)], [size], combine === Combine.sum ? 1e-5 : 0)
      }
  })

  test('products: rows, columns and a long k in pieces, with and without tiles, bias and relu at the end', async () => {
    const [m, k, n] = [33, 130, 36]
    const bias = randomArray(n, 3)
    for (const [tA, tB, b] of [
      [0, 0, narrow],
      [1, 1, narrow],
      [0, 1, tiled],
      [1, 0, tiled],
    ] as const)
      await same(
        matmul([0, 1, 3], { m, k, n, transA: tA === 1, transB: tB === 1 }, { bias: 2, relu: true }),
        [randomArray(m * k, 1), randomArray(k * n, 2), bias],
        [m * n],
        1e-4,
        b,
      )
    await same(
      matmul([0, 1, 2], { m: 7, k: 20, n: 30, batch: 9, strideA: 140, strideOut: 210 }),
      [randomArray(9 * 140, 1), randomArray(600, 2)],
      [9 * 210],
      1e-4,
    )
  })

  test('convolutions: images, channels and, where one plane is longer than a page, its rows in pieces', async () => {
    for (const [g, b] of [
      [[3, 5, 9, 9, 7, 4, 4, 4, 4, 2, 2, 1, 1, 1, 1], narrow],
      [[1, 2, 34, 35, 2, 3, 3, 34, 35, 1, 1, 1, 1, 1, 1], narrow],
      [[1, 1, 40, 33, 2, 3, 2, 10, 16, 4, 2, 1, 0, 2, 1], tiled],
    ] as const) {
      const [N, C, H, W, O, KH, KW, OH, OW] = g
      const [xs, ws, ys] = [N * C * H * W, O * C * KH * KW, N * O * OH * OW]
      const [x, w, y] = [randomArray(xs, 1), randomArray(ws, 2), randomArray(ys, 3)]
      await same(
        conv('conv2d', [0, 1, 3], convSizes(g), { bias: 2, relu: true }),
        [x, w, randomArray(O, 4)],
        [ys],
        1e-4,
        b,
      )
      await same(
        conv('conv2dInput', [0, 1, 3], convSizes(g), { bias: 2, relu: true }),
        [y, w, randomArray(C, 5)],
        [xs],
        1e-4,
        b,
      )
      await same(conv('conv2dWeight', [0, 1, 2], convSizes(g)), [x, y], [ws], 1e-4, b)
    }
  })

  test('windows, rows, places and fills in pieces', async () => {
    const g = convSizes([2, 2, 24, 25, 1, 3, 3, 12, 13, 2, 2, 1, 1, 1, 1])
    const [image, size] = [2 * 2 * 24 * 25, 2 * 12 * 13 * 2 * 9]
    await same(windows('unfold', 0, 1, g), [randomArray(image, 1)], [size])
    await same(windows('fold', 0, 1, g), [randomArray(size, 2)], [image], 1e-5)
    const [rows, d, n] = [130, 21, 90]
    const index = Float32Array.from({ length: n }, (_, i) => (i % 17 === 3 ? Number.NaN : (i * 37) % (rows + 3)))
    await same(rowsBy('gather', [0, 1, 2], { n, rows, d }), [randomArray(rows * d, 1), index], [n * d])
    await same(rowsBy('scatterAdd', [0, 1, 2], { n, rows, d }), [randomArray(n * d, 1), index], [rows * d])
    const x = randomArray(3 * 110 * 9, 6).map((v, i) => (i % 601 === 5 ? Number.NaN : Math.round(v * 20)))
    await same(argmax(0, 1, 3, 110, 9), [x], [27])
    const sparse = randomArray(2000, 7).map((v, i) => (i % 7 < 5 ? 0 : v))
    await same({ kind: 'compact', work: 1, x: 0, out: 1, dims: [40, 50] }, [sparse], [4000])
    await same(fill(0, 2, 2500, Math.fround(Math.PI)), [], [2600])
  })
}

test.run()
