import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Backend } from '../../src/compile/backend.ts'
import type { Instruction, LoopInstruction } from '../../src/compile/instruction.ts'
import { show } from '../../src/core/error.ts'
import { Combine, LoopMode, Micro } from '../../src/core/lowering.ts'
import {
  arity,
  firstFar,
  inexact,
  type LoopSpec,
  loopModel,
  loopOf,
  open,
  planOf,
  random,
  randomArray,
  runPlan,
  sameBits,
} from './wasm-programs.ts'

let one: Backend
let two: Backend
test.before(async () => {
  one = await open({ threads: 1 })
  two = await open({ threads: 2 })
})
test.after(() => {
  one.dispose()
  two.dispose()
})

const SPECIAL = [
  0,
  -0,
  1,
  -1,
  Number.NaN,
  Infinity,
  -Infinity,
  1e-45,
  -1e-45,
  1.1754942e-38,
  3.4e38,
  -3.4e38,
  0.5,
  -2.25,
  1e-20,
  16777217,
  7,
]

const micros = Object.values(Micro).filter((m): m is Micro => typeof m === 'number')

/** One operand walks, the others walk or repeat one element, by the bits of `scalars`. */
const oneOp = (m: Micro, n: number, scalars: number): LoopSpec => ({
  dims: [n],
  mode: LoopMode.map,
  combine: Combine.sum,
  kept: 1,
  out: { offset: 0, strides: [1] },
  inputs: Array.from({ length: arity(m) }, (_, i) => ({ offset: 0, strides: [(scalars >> i) & 1 ? 0 : 1] })),
  temporaries: 1,
  ops: [[m, arity(m), 0, Math.min(1, arity(m) - 1), Math.min(2, arity(m) - 1)]],
})

/** out = relu((a + b) a), a + b in slot 3 and (a + b) a in slot 4. */
const storing = (
  n: number,
  stored: readonly (readonly [number, number])[] = [
    [0, 3],
    [1, 4],
  ],
): LoopInstruction =>
  loopOf({
    dims: [n],
    mode: LoopMode.map,
    combine: Combine.sum,
    kept: 1,
    out: { offset: 0, strides: [1] },
    inputs: [
      { offset: 0, strides: [1] },
      { offset: 0, strides: [1] },
    ],
    temporaries: 1,
    ops: [
      [Micro.add, 2, 0, 1, 0],
      [Micro.mul, 2, 2, 0, 0],
      [Micro.relu, 2, 2, 0, 0],
    ],
    stored: stored.map(([op, slot]) => ({ op, slot })),
  })

test('a loop stores several values at n = 0..17 and beyond', async () => {
  const next = random(5)
  const special = (n: number) =>
    Float32Array.from({ length: Math.max(n, 1) }, () => SPECIAL[Math.floor(next() * SPECIAL.length)])
  for (const n of [...Array(18).keys(), 4099, 33333]) {
    const [a, b] = [special(n), special(n)]
    const sum = a.map((v, i) => v + b[i])
    const product = sum.map((v, i) => v * a[i])
    const want = [product.map((v) => Math.max(v, 0)), sum, product]
    const plan = planOf([storing(n)], [a.length, a.length], [n, n, n])
    for (const backend of [one, two]) {
      const got = await runPlan(backend, plan, [a, b])
      got.forEach((x, k) => assert.ok(sameBits(x, want[k].subarray(0, n)), `value ${k} of ${n}`))
    }
  }
})

/** The same loop with other slots: inputs from slot `i` on, the output and what is stored from slot `o` on. */
const moved = (loop: LoopInstruction, i: number, o: number): LoopInstruction => ({
  ...loop,
  out: { ...loop.out, slot: loop.out.slot - 2 + o },
  inputs: loop.inputs.map((v) => ({ ...v, slot: v.slot + i })),
  stored: loop.stored.map((s) => ({ ...s, slot: s.slot - 2 + o })),
})

test('several loops as one: each as alone, whatever their sizes, for any number of threads', async () => {
  const three = await open({ threads: 3 })
  const sizes = [1, 33333, 16, 0, 4099, 17]
  const input = sizes.flatMap((n, k) => [randomArray(n, 2 * k + 1), randomArray(n, 2 * k + 2)])
  const ins = input.length
  const members = sizes.map((n, k) => moved(storing(n), 2 * k, ins + 3 * k))
  const lengths = sizes.flatMap((n) => [n, n, n])
  const planned = (instructions: readonly Instruction[]) =>
    planOf(
      instructions,
      input.map((x) => x.length),
      lengths,
    )
  const want = await runPlan(one, planned(members), input)
  assert.ok(want[3].some((v) => v > 0))
  for (const work of [1, 1 << 20]) {
    const plan = planned([{ kind: 'loops', work, loops: members }])
    for (const backend of [one, two, three]) {
      const got = await runPlan(backend, plan, input)
      got.forEach((x, k) => assert.ok(sameBits(x, want[k]), `value ${k}, ${backend.threads} threads`))
    }
  }
  three.dispose()
})

test('several loops as one are refused unless they are apart', async () => {
  const refused = async (loops: readonly LoopInstruction[], why: RegExp) => {
    const e = await one.compile(planOf([{ kind: 'loops', work: 1, loops }], [8, 8, 8, 8], [8, 8, 8, 8, 8, 8]))()
    assert.match(E.isLeft(e) ? show(e.left) : 'accepted', why)
  }
  const first = moved(storing(8), 0, 4)
  await refused([first, moved(storing(8), 2, 5)], /loop 0 touches what another writes/)
  await refused([first, moved(storing(8), 3, 7)], /loop 1 touches what another writes/)
  await refused([first, moved(storing(9), 2, 7)], /which has 8/)
  await refused([], /there is none/)
  const reducing = loopOf({
    dims: [2, 4],
    mode: LoopMode.inner,
    combine: Combine.sum,
    kept: 1,
    out: { offset: 0, strides: [1, 0] },
    inputs: [{ offset: 0, strides: [4, 1] }],
    temporaries: 0,
    ops: [],
  })
  await refused([reducing], /not all are loops that map/)
})

test('a loop that stores several values is refused where that cannot be', async () => {
  const refused = async (loop: LoopInstruction, why: RegExp) => {
    const e = await one.compile(planOf([loop], [8, 8], [8, 8, 8]))()
    assert.match(E.isLeft(e) ? show(e.left) : 'accepted', why)
  }
  await refused(storing(8, [[0, 1]]), /over its input/)
  await refused(
    storing(8, [
      [1, 3],
      [0, 4],
    ]),
    /ascending/,
  )
  await refused(storing(8, [[2, 3]]), /ascending/)
  await refused(storing(8, [[0, 9]]), /no slot 9/)
  await refused(storing(9), /elements 0..8/)
  const plain = storing(8)
  await refused({ ...plain, out: { ...plain.out, strides: [2] } }, /not in order|elements/)
})

for (const m of micros.filter((x) => !inexact.includes(x))) {
  test(`${Micro[m]} is exact on special values at n = 0..17`, async () => {
    const next = random(7 + m)
    for (let n = 0; n <= 17; n++) {
      for (let scalars = 0; scalars < 1 << arity(m); scalars++) {
        const spec = oneOp(m, n, scalars)
        const inputs = spec.inputs.map(() =>
          Float32Array.from({ length: Math.max(n, 1) }, () => SPECIAL[Math.floor(next() * SPECIAL.length)]),
        )
        const expected = new Float64Array(n)
        loopModel(spec, inputs, expected)
        const [got] = await runPlan(
          one,
          planOf(
            [loopOf(spec)],
            inputs.map((x) => x.length),
            [n],
          ),
          inputs,
        )
        assert.ok(
          sameBits(got, Float32Array.from(expected)),
          `n = ${n}, scalars ${scalars}: ${inputs.map((x) => [...x].join(' ')).join(' | ')} -> ${[...got].join(' ')} instead of ${[...expected].join(' ')}`,
        )
      }
    }
  })
  test(`${Micro[m]} is exact on all pairs of special values`, async () => {
    const k = SPECIAL.length
    const n = k * k
    const spec = oneOp(m, n, 0)
    const inputs = [
      (i: number) => SPECIAL[i % k],
      (i: number) => SPECIAL[Math.floor(i / k)],
      (i: number) => SPECIAL[(i * 7) % k],
    ]
      .slice(0, arity(m))
      .map((g) => Float32Array.from({ length: n }, (_, i) => g(i)))
    const expected = new Float64Array(n)
    loopModel(spec, inputs, expected)
    const [got] = await runPlan(
      one,
      planOf(
        [loopOf(spec)],
        inputs.map((x) => x.length),
        [n],
      ),
      inputs,
    )
    assert.ok(sameBits(got, Float32Array.from(expected)))
  })
}

const rowMajor = (dims: readonly number[]): number[] => dims.map((_, d) => dims.slice(d + 1).reduce((a, b) => a * b, 1))

/** A random view of the index space: a permuted, broadcast or padded layout per input. */
const loopArbitrary = fc
  .record({
    dims: fc.array(
      fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 40 }), fc.constantFrom(64, 300, 1100)),
      { minLength: 1, maxLength: 5 },
    ),
    mode: fc.constantFrom(LoopMode.map, LoopMode.inner, LoopMode.keep),
    combine: fc.constantFrom(Combine.sum, Combine.max, Combine.min),
    nIn: fc.integer({ min: 1, max: 4 }),
    nOps: fc.integer({ min: 0, max: 9 }),
    seed: fc.integer({ min: 1, max: 1 << 30 }),
  })
  .filter((r) => r.dims.reduce((a, b) => a * b, 1) <= 60000 && (r.mode !== LoopMode.keep || r.dims.length >= 2))

type Random = typeof loopArbitrary extends fc.Arbitrary<infer A> ? A : never

const specOf = ({
  dims,
  mode,
  combine,
  nIn,
  nOps,
  seed,
}: Random): { readonly spec: LoopSpec; readonly sizes: readonly number[]; readonly outSize: number } => {
  const next = random(seed)
  const pick = (n: number) => Math.floor(next() * n)
  const D = dims.length
  const kept = mode === LoopMode.map ? D : mode === LoopMode.inner ? pick(D) : pick(D - 1)
  const isKept = (d: number) => mode === LoopMode.map || d < kept || (mode === LoopMode.keep && d === D - 1)
  const shuffled = (xs: readonly number[]) =>
    xs
      .map((x) => [next(), x])
      .sort((a, b) => a[0] - b[0])
      .map((x) => x[1])
  const layout = (order: readonly number[], used: (d: number) => boolean, gap: number) => {
    const strides = dims.map(() => 0)
    let s = 1
    for (const d of [...order].reverse()) {
      if (!used(d)) continue
      strides[d] = s
      s = s * dims[d] + gap
    }
    return { strides, size: s + 4 }
  }
  const natural = dims.map((_, d) => d)
  const ins = Array.from({ length: nIn }, () => {
    const order = next() < 0.7 ? natural : shuffled(natural)
    const broadcast = dims.map(() => next() < 0.25)
    const offset = pick(4)
    const l = layout(order, (d) => !broadcast[d], next() < 0.7 ? 0 : pick(3))
    return { offset, strides: l.strides, size: l.size + offset }
  })
  const outOrder = mode === LoopMode.map && next() < 0.3 ? shuffled(natural) : natural
  const out = layout(outOrder, isKept, mode === LoopMode.keep || next() < 0.7 ? 0 : 2)
  const temporaries = nOps === 0 ? 0 : 1 + pick(3)
  const exact = [
    Micro.add,
    Micro.sub,
    Micro.mul,
    Micro.min,
    Micro.max,
    Micro.neg,
    Micro.abs,
    Micro.sign,
    Micro.step,
    Micro.relu,
    Micro.greater,
    Micro.select,
    Micro.splitMul,
    Micro.mulAdd,
    Micro.absMul,
  ]
  const written = new Set(natural.slice(0, 0))
  const ops = Array.from({ length: nOps }, (): [number, number, number, number, number] => {
    const readable = () => {
      const all = [...ins.keys(), ...written]
      return all[pick(all.length)]
    }
    const args = [readable(), readable(), readable()]
    const dst = next() < 0.15 ? pick(nIn) : nIn + pick(temporaries)
    written.add(dst)
    return [exact[pick(exact.length)], dst, args[0], args[1], args[2]]
  })
  return {
    spec: { dims, mode, combine, kept, out: { offset: 0, strides: out.strides }, inputs: ins, temporaries, ops },
    sizes: ins.map((x) => x.size),
    outSize: out.size,
  }
}

test('random loops agree with the model, and two threads with one bit by bit', async () => {
  await fc.assert(
    fc.asyncProperty(loopArbitrary, async (r) => {
      const { spec, sizes, outSize } = specOf(r)
      const inputs = sizes.map((n, i) => randomArray(n, r.seed + i))
      const expected = new Float64Array(outSize).fill(Number.NaN)
      loopModel(spec, inputs, expected)
      const plan = planOf([loopOf(spec)], sizes, [outSize])
      const [a] = await runPlan(one, plan, inputs)
      const [b] = await runPlan(two, plan, inputs)
      assert.ok(sameBits(a, b), 'one thread and two differ')
      const exact = spec.mode === LoopMode.map || spec.combine !== Combine.sum
      const far = firstFar(a, expected, exact ? 0 : 1e-4)
      assert.is(far, -1, `element ${far}: ${a[far]} instead of ${expected[far]}`)
    }),
    { numRuns: 600, seed: 5 },
  )
})

for (const [name, dims, mode, kept] of [
  ['a sum of everything', [300, 1001], LoopMode.inner, 0],
  ['few long rows', [3, 77, 1000], LoopMode.inner, 1],
  ['long columns', [20000, 10], LoopMode.keep, 0],
  ['few wide columns', [64, 2100], LoopMode.keep, 0],
] as const)
  test(`a segmented reduction: ${name}`, async () => {
    const n = dims.reduce((x, y) => x * y, 1)
    const strides = rowMajor(dims)
    const isKept = (d: number) => d < kept || (mode === LoopMode.keep && d === dims.length - 1)
    const out = mode === LoopMode.keep ? [0, 1] : strides.map((s, d) => (isKept(d) ? s / strides[kept - 1] : 0))
    const outSize = dims.reduce((x, y, d) => (isKept(d) ? x * y : x), 1)
    for (const combine of [Combine.sum, Combine.max, Combine.min]) {
      const spec: LoopSpec = {
        dims,
        mode,
        combine,
        kept,
        out: { offset: 0, strides: out },
        inputs: [{ offset: 0, strides }],
        temporaries: 0,
        ops: [],
      }
      const x = randomArray(n, 11)
      const expected = new Float64Array(outSize)
      loopModel(spec, [x], expected)
      const plan = planOf([loopOf(spec)], [n], [outSize])
      const [a] = await runPlan(one, plan, [x])
      const [b] = await runPlan(two, plan, [x])
      assert.ok(sameBits(a, b))
      assert.is(firstFar(a, expected, combine === Combine.sum ? 1e-3 : 0), -1)
      const withNaN = x.slice()
      withNaN[n - 1] = Number.NaN
      const [c] = await runPlan(two, plan, [withNaN])
      assert.ok(Number.isNaN(c[outSize - 1]), 'NaN is lost')
    }
  })

test('transposed copies are exact', async () => {
  for (const dims of [
    [5, 4],
    [33, 70],
    [3, 37, 41],
    [2, 5, 64, 9],
  ]) {
    const n = dims.reduce((x, y) => x * y, 1)
    const D = dims.length
    const inDims = [...dims.slice(0, D - 2), dims[D - 1], dims[D - 2]]
    const s = rowMajor(inDims)
    const strides = [...s.slice(0, D - 2), s[D - 1], s[D - 2]]
    const spec: LoopSpec = {
      dims,
      mode: LoopMode.map,
      combine: Combine.sum,
      kept: D,
      out: { offset: 0, strides: rowMajor(dims) },
      inputs: [{ offset: 0, strides }],
      temporaries: 0,
      ops: [],
    }
    const x = randomArray(n, 3)
    const expected = new Float64Array(n)
    loopModel(spec, [x], expected)
    const plan = planOf([loopOf(spec)], [n], [n])
    for (const b of [one, two]) assert.ok(sameBits((await runPlan(b, plan, [x]))[0], expected))
  }
})

test.run()
