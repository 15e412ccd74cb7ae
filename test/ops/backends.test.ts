import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { plan } from '../../src/compile/plan.ts'
import { vjp } from '../../src/compile/vjp.ts'
import { node } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { dags, firstDifference, JUMPS, runPlan, SUMS } from '../compile/dag.ts'
import { right } from '../shared.ts'
import { type Accuracy, entries } from './examples.ts'
import { suite } from './laws.ts'
import { check, numbers, type Spec, using, values } from './property.ts'

const makeWasm = (threads: number) => async (): Promise<Backend> => right(await wasm({ threads })())

suite('wasm', makeWasm(1), 2)

let one: Backend
let two: Backend
const oracle = reference()

test('wasm starts with one and with two threads', async () => {
  one = await makeWasm(1)()
  two = await makeWasm(2)()
  assert.is(one.dtype, 'f32')
  assert.is(two.threads, 2)
})

// ---- every op against the reference -----------------------------------------------------------------------------------

const U = 2 ** -24
const MOST = (2 - 2 ** -23) * 2 ** 127
const ETA = 2 ** -149
/** Distance between the f32 numbers round v. */
const ulp = (v: number): number => Math.max(ETA, 2 ** (Math.floor(Math.log2(Math.abs(v))) - 23))

/** The most that an f32 result may be off: of the value v with magnitudes m (the op on absolute values) and n terms. */
const allowed = (accuracy: Accuracy, v: number, m: number, n: number): number => {
  switch (accuracy.kind) {
    case 'exact':
      return 0
    case 'neighbour':
      return ulp(v)
    case 'ulp':
      return accuracy.ulps * ulp(v)
    case 'absolute':
      return accuracy.error * (1 + Math.abs(v))
    case 'sum':
      return ((n * U) / (1 - n * U)) * m + n * ETA
    case 'logSumExp':
      return (n + 10) * U + 4 * U * (Math.abs(v) + Math.log(Math.max(n, 1)))
    default:
      return accuracy satisfies never
  }
}

const f32 = (data: readonly Float64Array[]): readonly Float32Array[] => data.map((d) => Float32Array.from(d))
const f64 = (data: readonly Float32Array[]): readonly Float64Array[] => data.map((d) => Float64Array.from(d))

const compare = (accuracy: Accuracy, got: number, v: number, m: number, n: number): string | undefined => {
  const rounded = Math.fround(v)
  if (Object.is(got, rounded)) return undefined
  // The finite number next to infinity.
  if (accuracy.kind === 'neighbour' && Math.abs(v) === Number.MAX_VALUE && got === Math.sign(v) * MOST) return undefined
  const off = Math.abs(got - v)
  // A special value must be met exactly; results that round to infinity may fall short of it.
  const bound = allowed(accuracy, v, m, n)
  if (Number.isFinite(rounded) && off <= bound) return undefined
  return `${got} for ${v}: off by ${off}, allowed ${bound}`
}

for (const { op, examples, accuracy } of entries)
  test(`wasm ${op.name} is within its bound of the reference`, async () => {
    for (const e of examples) {
      const xs = e.inputs.map((s, i) => O.input(`x${i}`, s.shape))
      const y = node(op, xs, e.attrs)
      const n =
        'terms' in accuracy
          ? accuracy.terms(
              e.inputs.map((s) => s.shape),
              e.attrs,
              y.shape,
            )
          : 1
      await using(one, [y], xs, (fast) =>
        using(oracle, [y], xs, (slow) =>
          check(5, fc.tuple(...e.inputs.map(values)), async (data) => {
            const args = f32(data)
            const [got] = await fast(args)
            const [want] = await slow(f64(args))
            const [magnitude] =
              accuracy.kind === 'sum'
                ? await slow(f64(args).map((d, k) => (e.inputs[k].integer ? d : d.map(Math.abs))))
                : [want]
            assert.is(got.length, want.length)
            want.forEach((v, i) => {
              const wrong = compare(accuracy, got[i], v, magnitude[i], n)
              if (wrong !== undefined) throw new Error(`${e.label}: element ${i} is ${wrong}`)
            })
          }),
        ),
      )
    }
  })

test('wasm: gradients of every op agree with the reference', async () => {
  for (const { op, examples } of entries)
    for (const e of examples) {
      const xs = e.inputs.map((s, i) => O.input(`x${i}`, s.shape))
      const y = node(op, xs, e.attrs)
      const ct = O.input('ct', y.shape)
      const wrt = xs.filter((_, k) => !e.inputs[k].integer)
      const g = vjp([y], [ct], wrt)
      const spec: Spec = { shape: y.shape, low: -2, high: 2, box: false }
      await using(one, g, [...xs, ct], (fast) =>
        using(oracle, g, [...xs, ct], (slow) =>
          check(2, fc.tuple(...[...e.inputs, spec].map(values)), async (data) => {
            const args = f32(data)
            const got = await fast(args)
            const want = await slow(f64(args))
            want.forEach((w, k) => {
              w.forEach((v, i) => {
                assert.ok(
                  Math.abs(got[k][i] - v) <= 2e-5 * (1 + Math.abs(v) * 4),
                  `${op.name} ${e.label}: ${got[k][i]} for ${v}`,
                )
              })
            })
          }),
        ),
      )
    }
})

// ---- special values, lanes and tails ----------------------------------------------------------------------------------

const SPECIAL = [
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  -0,
  0,
  1,
  -1,
  2.5,
  -0.75,
  1e-40,
  -1e-40,
  3e38,
  -3e38,
  1.1754943508222875e-38,
  88.9,
  -87.5,
  -104,
  0.625,
].map(Math.fround)

test('wasm: elementwise ops at n = 0..17 on NaN, infinities, -0, subnormals and the largest numbers', async () => {
  const elementwise = entries.filter(({ op, examples: [e] }) => {
    if (!('lower' in op.kernel)) return false
    const shapes = e.inputs.map((x) => x.shape)
    return op.kernel.lower(shapes, shapes[0], e.attrs).kind === 'map'
  })
  assert.ok(elementwise.length >= 20)
  for (const { op, examples, accuracy } of elementwise) {
    const arity = examples[0].inputs.length
    for (let n = 0; n <= 17; n++) {
      const xs = Array.from({ length: arity }, (_, k) => O.input(`x${k}`, [n]))
      const y = node(op, xs, undefined)
      await using(one, [y], xs, (fast) =>
        using(oracle, [y], xs, async (slow) => {
          // All pairs meet: the second operand is shifted against the first.
          for (let shift = 0; shift < (n === 0 ? 1 : SPECIAL.length); shift++) {
            const at = (k: number, i: number) => SPECIAL[(i + shift + k * shift + k * k * n) % SPECIAL.length]
            const args = xs.map((_, k) => Float32Array.from({ length: n }, (_, i) => at(k, i)))
            const [got] = await fast(args)
            const [want] = await slow(f64(args))
            for (let i = 0; i < n; i++) {
              const wrong = compare(accuracy, got[i], want[i], 0, 1)
              if (wrong !== undefined)
                throw new Error(
                  `${op.name}(${args.map((a) => (Object.is(a[i], -0) ? '-0' : a[i]))}) at ${i} of ${n}: ${wrong}`,
                )
            }
          }
        }),
      )
    }
  }
})

test('wasm: reductions and kernels at n = 0..17 pass NaN on', async () => {
  for (let n = 1; n <= 17; n++) {
    const x = O.input('x', [3, n])
    const w = O.input('w', [n, 2])
    const outputs = [
      O.sum(x, 1),
      O.max(x, 1),
      O.max(x, 0),
      O.sum(x, 0),
      O.matmul(x as Tensor, w),
      O.argmax(x),
      O.logSumExp(x, 1),
    ]
    await using(one, outputs, [x, w], async (run) => {
      for (let at = 0; at < n; at++) {
        const data = new Float32Array(3 * n).fill(1)
        data[n + at] = Number.NaN
        const [s, m, mk, sk, product, index, lse] = await run([data, new Float32Array(2 * n)])
        assert.ok(Number.isNaN(s[1]) && s[0] === n && s[2] === n, `sum of ${n}, NaN at ${at}`)
        assert.ok(Number.isNaN(m[1]) && m[0] === 1 && m[2] === 1, `max of ${n}, NaN at ${at}`)
        mk.forEach((v, i) => assert.is(Number.isNaN(v), i === at))
        sk.forEach((v, i) => assert.is(Number.isNaN(v), i === at))
        // 0 times NaN is NaN: an infinite or unknown activation is never hidden by a zero weight.
        assert.ok(
          Number.isNaN(product[2]) && Number.isNaN(product[3]) && product[0] === 0,
          `matmul of ${n}, NaN at ${at}`,
        )
        assert.is(index[1], at)
        assert.ok(Number.isNaN(lse[1]) && !Number.isNaN(lse[0]))
      }
    })
  }
})

// ---- fusion and threads -----------------------------------------------------------------------------------------------

const sample = (inputs: readonly Tensor[]) => fc.tuple(...inputs.map((x) => numbers(S.size(x.shape), -1.5, 1.5)))

/** A graph and numbers for its inputs. */
const cases = (steps: number, without: readonly string[] = []) =>
  dags(steps, without).chain((dag) => fc.tuple(fc.constant(dag), sample(dag.inputs)))

test('random graphs: wasm agrees with the reference', () =>
  check(80, cases(16, JUMPS), async ([dag, data]) => {
    const args = f32(data)
    const got = await runPlan(one, plan(dag.outputs, dag.inputs), args)
    const want = await runPlan(oracle, plan(dag.outputs, dag.inputs), f64(args))
    const all = await runPlan(oracle, plan(dag.nodes, dag.inputs), f64(args))
    // Cancellation may bring down what rounding left of the largest value on the way.
    const scale = all.reduce((m, x) => Math.max(m, ...Array.from(x, Math.abs)), 1)
    if (!(scale < 1e30)) return
    want.forEach((w, k) => {
      w.forEach((v, i) => {
        if (!(Math.abs(got[k][i] - v) <= 1e-4 * scale))
          throw new Error(`${dag.text}: output ${k} element ${i} is ${got[k][i]}, the reference ${v}`)
      })
    })
  }))

const assertFusedAsUnfused = async (
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  data: readonly Float64Array[],
  what: string,
) => {
  const args = f32(data)
  const fused = await runPlan(one, plan(outputs, inputs), args)
  const plain = await runPlan(one, plan(outputs, inputs, { fuse: false }), args)
  fused.forEach((f, k) => {
    const i = firstDifference(f, plain[k])
    if (i >= 0) throw new Error(`${what}: output ${k} element ${i}: fused ${f[i]}, unfused ${plain[k][i]}`)
  })
}

test('random graphs: fused and unfused programs give the same bits', () =>
  check(150, cases(28, SUMS), ([dag, data]) => assertFusedAsUnfused(dag.outputs, dag.inputs, data, dag.text)))

test('sums of fused expressions over axes that every operand walks through contiguously give the same bits', () => {
  const inputs = [
    [4, 3, 5],
    [3, 5],
    [4, 3, 1],
  ].map((s, i) => O.input(`x${i}`, s))
  const [x, row, column] = inputs as readonly Tensor[]
  const outputs = [
    O.sum(O.mul(x, O.tanh(x)) as Tensor),
    O.sum(O.relu(O.add(x, 0.25) as Tensor), [1, 2]),
    O.sum(O.relu(x), 0),
    O.sum(O.mul(x, row) as Tensor, [1, 2]),
    O.sum(O.mul(x, column) as Tensor, 2),
    O.sum(O.absMul(x, row), [1, 2], true),
    O.sum(O.splitMul(x, row, O.neg(row)), [1, 2]),
    O.sum(O.transpose(x, [2, 0, 1]), 0),
  ]
  return check(10, sample(inputs), (data) => assertFusedAsUnfused(outputs, inputs, data, 'sums'))
})

test('random graphs: where fusion changes the order of a sum, results differ by rounding alone', () =>
  check(100, cases(20, JUMPS), async ([dag, data]) => {
    const args = f32(data)
    const all = await runPlan(oracle, plan(dag.nodes, dag.inputs), f64(args))
    const scale = all.reduce((m, x) => Math.max(m, ...Array.from(x, Math.abs)), 1)
    if (!(scale < 1e30)) return
    const fused = await runPlan(one, plan(dag.outputs, dag.inputs), args)
    const plain = await runPlan(one, plan(dag.outputs, dag.inputs, { fuse: false }), args)
    fused.forEach((f, k) => {
      f.forEach((v, i) => assert.ok(Math.abs(v - plain[k][i]) <= 1e-4 * scale, `${dag.text}: ${v}, ${plain[k][i]}`))
    })
  }))

test('random graphs: one and two threads give the same bits', () =>
  check(60, cases(28), async ([dag, data]) => {
    const args = f32(data)
    const p = plan(dag.outputs, dag.inputs)
    const [a, b] = [await runPlan(one, p, args), await runPlan(two, p, args)]
    a.forEach((x, k) => assert.is(firstDifference(x, b[k]), -1, dag.text))
  }))

test('large kernels: one and two threads, fused and unfused give the same bits', async () => {
  const x = O.input('x', [4, 3, 20, 20])
  const w = O.input('w', [8, 3, 4, 4])
  const v = O.input('v', [37, 8 * 10 * 10])
  const y = O.relu(O.conv2d(x, w, { stride: 2, padding: 1 }))
  const z = O.matmul(O.reshape(y, [4, 800]) as Tensor, v, { transB: true })
  const loss = O.sum(O.logSumExp(z, 1))
  const outputs = [
    z,
    ...vjp([loss], [O.scalar(1)], [x, w, v]),
    O.sum(O.mul(x, x) as Tensor, [0, 2, 3]),
    O.max(v, 0),
    O.tanh(x),
  ]
  const inputs = [x, w, v]
  await check(2, sample(inputs), async (data) => {
    const args = f32(data)
    const fused = plan(outputs, inputs)
    const base = await runPlan(one, fused, args)
    for (const other of [
      await runPlan(two, fused, args),
      await runPlan(one, plan(outputs, inputs, { fuse: false }), args),
      await runPlan(two, plan(outputs, inputs, { fuse: false }), args),
    ])
      base.forEach((b, k) => assert.is(firstDifference(b, other[k]), -1, `output ${k}`))
    const want = await runPlan(oracle, fused, f64(args))
    base.forEach((b, k) => {
      const scale = Math.max(...want[k].map(Math.abs))
      b.forEach((g, i) =>
        assert.ok(Math.abs(g - want[k][i]) <= 1e-4 * scale, `output ${k} element ${i}: ${g} for ${want[k][i]}`),
      )
    })
  })
})

test('no buffer is left on any backend', () => {
  for (const b of [one, two, oracle]) {
    assert.is(b.stats().live, 0)
    b.dispose()
  }
})

test.run()
