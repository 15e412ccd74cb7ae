import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend, Data } from '../../src/compile/backend.ts'
import { compile } from '../../src/compile/run.ts'
import { grad } from '../../src/compile/vjp.ts'
import { interval } from '../../src/core/op.ts'
import type { Apply, Operand, Tensor } from '../../src/core/tensor.ts'
import { fusedCrossEntropy } from '../../src/loss/fusion.ts'
import { worstCase } from '../../src/loss/objective.ts'
import { bounded } from '../../src/loss/region.ts'
import { boostedCrossEntropy, correct, crossEntropy, divergence, marginLoss } from '../../src/nn/criterion.ts'
import * as O from '../../src/ops/index.ts'
import { crown, crownIbp, ibp, symbolic } from '../../src/robust/bounds.ts'
import { openOrSkip } from '../backend/webgpu-open.ts'
import { right } from '../shared.ts'
import { run, stepOf } from './harness.ts'

/** What depends on differences of logits alone, on every backend: for logits with a large common part, and with infinite ones. */

const backends: Backend[] = [reference(), right(await wasm({ threads: 1 })())]
const gpu = await openOrSkip('losses of shifted logits on WebGPU')
if (gpu !== undefined) backends.push(gpu)
test.after(() => {
  for (const b of backends) b.dispose()
})

const { POSITIVE_INFINITY: INF, NaN: NAN } = Number
/** The largest float32. */
const LARGEST = (2 - 2 ** -23) * 2 ** 127
const [N, K] = [3, 4]
const z = O.input('z', [N, K])
const other = O.input('other', [N, K])
const y = O.input('y', [N])
const direction = O.input('direction', [N, K])

/** A function of logits, its gradient, and the gradient of that along a direction. */
const threefold = (f: Tensor): readonly Tensor[] => {
  const [g] = grad(O.sum(f), [z])
  const [h] = grad(O.sum(O.mul(g, direction) as Tensor), [z])
  return [f, g, h]
}
const weighted = (x: Tensor) => O.sum(O.mul(x, other) as Tensor, 1)
const outputs = [
  crossEntropy(z, y),
  marginLoss(9)(z, y),
  boostedCrossEntropy(z, y),
  divergence(z, other),
  divergence(other, z),
  weighted(O.softmax(z)),
  weighted(O.logSoftmax(z)),
].flatMap(threefold)

const dyadic = fc.array(fc.integer({ min: -32, max: 32 }), { minLength: N * K, maxLength: N * K })
const eighths = dyadic.map((xs) => xs.map((i) => i / 8))
const labels = fc.array(fc.integer({ min: 0, max: K - 1 }), { minLength: N, maxLength: N })

test('losses of z and of z + c are the same bits, and so are their first and second derivatives', async () => {
  for (const backend of backends) {
    const inputs = [z, other, y, direction]
    const f = await compile(backend)(outputs, inputs)
    const buffers = [...inputs, ...outputs].map((x) => backend.alloc(x.shape.reduce((a, b) => a * b, 1)))
    const at = async (args: readonly ArrayLike<number>[]): Promise<readonly Data[]> => {
      const data = args.map((a) => (backend.dtype === 'f64' ? Float64Array.from(a) : Float32Array.from(a)))
      data.forEach((d, i) => backend.write(buffers[i], d))
      f.run(buffers)
      const results: Data[] = []
      for (const b of buffers.slice(inputs.length)) results.push((await backend.read(b)).slice())
      return results
    }
    // Sums of eighths and of whole numbers up to 2^20 are exact in float32.
    const shifts = fc.array(fc.constantFrom(0, 1, -7, 1000, -65536, 2 ** 20 - 8, -(2 ** 20) + 8), {
      minLength: N,
      maxLength: N,
    })
    await fc.assert(
      fc.asyncProperty(eighths, eighths, labels, eighths, shifts, async (a, b, l, d, c) => {
        const shifted = a.map((v, i) => v + c[Math.floor(i / K)])
        const [p, q] = [await at([a, b, l, d]), await at([shifted, b, l, d])]
        p.forEach((x, k) => {
          x.forEach((v, i) => {
            assert.ok(Number.isFinite(v), `${backend.name}: output ${k} is ${v}`)
            assert.ok(v === q[k][i], `${backend.name}: output ${k}, element ${i}: ${v}, shifted ${q[k][i]}`)
          })
        })
      }),
      { seed: 20181102, numRuns: 25 },
    )
    for (const b of buffers) backend.free(b)
    f.release()
  }
})

/** Values of PyTorch 1.13 (`cross_entropy` and its gradient, float64), those of infinite and huge logits by hand: its gradient is softmax - 1 at the label. */
const KNOWN: readonly (readonly [readonly number[], number, number, readonly number[]])[] = [
  [[1e8, 1e8], 0, Math.LN2, [-0.5, 0.5]],
  [[1000002, 999999], 0, 0.04858735157374206, [-0.04742587317756678, 0.04742587317756678]],
  [[1000, 990], 0, 4.539889921686465e-5, [-4.539786870243442e-5, 4.539786870243442e-5]],
  [[1000, 990], 1, 10.000045398899218, [0.9999546021312976, -0.9999546021312976]],
  [[-1e6, -1e6, -1e6], 2, 1.0986122886681098, [1 / 3, 1 / 3, -2 / 3]],
  [[1e8, 1e8, 0], 2, 1e8 + Math.LN2, [0.5, 0.5, -1]],
  [[-INF, 1, 2], 2, 0.3132616875182229, [0, 0.2689414213699951, -0.2689414213699951]],
  [[-INF, 5, -INF], 1, 0, [0, 0, 0]],
  // The label at -infinity, among others there too: the gradient of the limit.
  [[-INF, 1, 2], 0, INF, [-1, 0.2689414213699951, 0.7310585786300049]],
  [[-INF, -INF, 1], 0, INF, [-1, 0, 1]],
  [[-INF, 1, -INF], 0, INF, [-1, 1, 0]],
  // Differences that float32 does not hold, or that would round away what the others differ by.
  [[LARGEST, -LARGEST, 0], 0, 0, [0, 0, 0]],
  [[LARGEST, -LARGEST, 0], 1, 2 * LARGEST, [1, -1, 0]],
  [[LARGEST, -LARGEST, 0], 2, LARGEST, [1, 0, -1]],
  [[LARGEST, LARGEST, -LARGEST], 1, Math.LN2, [0.5, -0.5, 0]],
  [[LARGEST, LARGEST, -LARGEST], 2, 2 * LARGEST, [0.5, 0.5, -1]],
  [[0, 1, -1e8], 2, 1e8 + 1.3132616875182228, [0.2689414213699951, 0.7310585786300049, -1]],
  [[0, 1, -130], 2, 131.31326168751824, [0.2689414213699951, 0.7310585786300049, -1]],
]

test('cross-entropy and its gradient have the known values', async () => {
  for (const backend of backends)
    for (const [row, label, loss, gradient] of KNOWN) {
      const x = O.input('x', [1, row.length])
      const ce = crossEntropy(x, O.constant([label], [1]))
      const [v, g] = await run([ce, ...grad(O.sum(ce), [x])], new Map([[x, typed(backend, row)]]), undefined, backend)
      const near = (a: number, b: number) =>
        // What float32 does not hold is infinite there.
        Object.is(a, backend.dtype === 'f64' ? b : Math.fround(b)) ||
        Math.abs(a - b) <= (backend.dtype === 'f64' ? 1e-12 : 1e-6) * (1 + Math.abs(b))
      // log(1 + s) in float32 has the absolute error of 1 + s.
      assert.ok(near(v[0], loss), `${backend.name} [${row}] ${label}: ${v[0]}`)
      gradient.forEach((want, i) => assert.ok(near(g[i], want), `${backend.name} [${row}] ${label}: gradient ${g}`))
    }
})

test('second derivatives of cross-entropy are those of the softmax, for logits of any size', async () => {
  for (const backend of backends)
    for (const [row, label] of KNOWN) {
      const x = O.input('x', [1, row.length])
      const along = row.map((_, i) => (i === label ? 1 : i - 2.5))
      const [g] = grad(O.sum(crossEntropy(x, O.constant([label], [1]))), [x])
      const [h] = await run(
        grad(O.sum(O.mul(g, O.constant(along, [1, row.length])) as Tensor), [x]),
        new Map([[x, typed(backend, row)]]),
        undefined,
        backend,
      )
      const top = Math.max(...row)
      const shares = row.map((v) => Math.exp(v - top))
      const p = shares.map((v) => v / shares.reduce((a, b) => a + b))
      const mean = p.reduce((m, v, i) => m + v * along[i], 0)
      p.forEach((v, i) => {
        const want = v * (along[i] - mean)
        assert.ok(Math.abs(h[i] - want) < 2e-6, `${backend.name} [${row}] ${label}: ${h}, element ${i} is ${want}`)
      })
    }
})

const typed = (backend: Backend, v: readonly number[]): Data =>
  backend.dtype === 'f64' ? Float64Array.from(v) : Float32Array.from(v)

test('infinite logits: as in PyTorch, and a class at -infinity is never chosen', async () => {
  for (const backend of backends) {
    const x: Tensor = O.input('x', [5, 3])
    const l = O.input('l', [5])
    const rows = [
      [-INF, 1, 2],
      [-INF, 3, 2],
      [-INF, -INF, -INF],
      [INF, 0, 1],
      [0, NAN, -INF],
    ]
    const values = new Map([
      [x, typed(backend, rows.flat())],
      [l, typed(backend, [2, 1, 0, 0, 0])],
    ])
    const [lse, soft, logSoft, right, ce, boosted] = await run(
      [O.logSumExp(x, 1), O.softmax(x), O.logSoftmax(x), correct(x, l), crossEntropy(x, l), boostedCrossEntropy(x, l)],
      values,
      undefined,
      backend,
    )
    const same = (got: ArrayLike<number>, want: readonly number[]) =>
      want.forEach((w, i) => {
        const off = Math.abs(got[i] - w) <= 1e-6 * Math.abs(w)
        assert.ok(Object.is(got[i], w) || off, `${backend.name}: ${[...Array.from(got)]}, wanted ${want}`)
      })
    same(lse, [2.313261687518223, 3.313261687518223, -INF, INF, NAN])
    same(right, [1, 1, 0, 1, 0])
    same(ce.subarray(0, 2), [0.3132616875182229, 0.3132616875182229])
    assert.ok(Number.isNaN(ce[4]), 'a NaN is not lost')
    same(soft.subarray(0, 6), [0, 0.2689414213699951, 0.7310585786300049, 0, 0.7310585786300049, 0.2689414213699951])
    same(logSoft.subarray(0, 3), [-INF, -1.3132616875182228, -0.3132616875182228])
    assert.ok(boosted[0] > 0 && Number.isFinite(boosted[0]))
  }
})

test('where all classes but one are at -infinity, boosted cross-entropy is 0 or infinite, and its derivatives are finite', async () => {
  const x = O.input('x', [4, 3])
  const l = O.constant([0, 2, 1, 0], [4])
  const f = boostedCrossEntropy(x, l)
  const [g] = grad(O.sum(f), [x])
  const [h] = grad(O.sum(O.mul(g, O.constant([1, 2, 4], [1, 3])) as Tensor), [x])
  const rows = [
    [5, -INF, -INF],
    [-INF, -INF, 1e20],
    [0, -INF, -INF],
    [-INF, 3, -INF],
  ]
  for (const backend of backends) {
    const values = new Map([[x, typed(backend, rows.flat())]])
    const [value, slopes, second] = await run([f, g, h], values, undefined, backend)
    assert.equal([...value], [0, 0, INF, INF], backend.name)
    // The label has all of the probability, or none, and then the rival has it: once in either logarithm.
    assert.equal([...slopes].map(Math.abs), [0, 0, 0, 0, 0, 0, 2, 1, 0, 1, 2, 0], backend.name)
    assert.ok(second.every(Number.isFinite), `${backend.name}: ${second}`)
  }
})

test('a class at -infinity takes no part in divergences, margins and their gradients', async () => {
  for (const backend of backends) {
    const [p, q] = [O.input('p', [1, 3]), O.input('q', [1, 3])]
    const l = O.constant([1], [1])
    const f = [divergence(p, q), marginLoss()(q, l), boostedCrossEntropy(q, l)]
    const graphs = f.flatMap((x) => [x, ...grad(O.sum(x), [p, q])])
    const at = (a: readonly number[], b: readonly number[]) =>
      run(
        graphs,
        new Map([
          [p, typed(backend, a)],
          [q, typed(backend, b)],
        ]),
        undefined,
        backend,
      )
    const masked = await at([-INF, 1, 2], [-INF, 0, 3])
    masked.forEach((x) => x.forEach((v) => assert.ok(Number.isFinite(v), `${backend.name}: ${x}`)))
    const [m] = await run(
      [divergence(p, q)],
      new Map([
        [p, typed(backend, [-1e4, 1, 2])],
        [q, typed(backend, [-1e4, 0, 3])],
      ]),
      undefined,
      backend,
    )
    assert.ok(Math.abs(masked[0][0] - m[0]) < 1e-6)
    assert.is((await at([0, 1, 2], [-INF, 0, 3]))[0][0], INF)
  }
})

test('bounds of cross-entropy and log-probabilities enclose them for logits with a large common part', async () => {
  const [inputs, k] = [3, 4]
  const x = O.input('x', [2, inputs])
  const [l, u] = [O.input('l', [2, inputs]), O.input('u', [2, inputs])]
  const w = O.constant([1, -1, 0.5, 0.25, 0.5, -2, 1, 1, -0.5, 0.75, -1, 0.25], [inputs, k])
  const shift = O.constant([4096, 4096, 4096, 4096], [k])
  const graph = (large: boolean) => {
    const h = O.relu(O.matmul(x as Tensor, w))
    return large ? (O.add(h, shift) as Tensor) : h
  }
  const of = [(v: Tensor) => crossEntropy(v, O.constant([0, 3], [2])), (v: Tensor) => O.logSoftmax(v)]
  const box = new Map([[x, interval(l, u)]])
  const from = [-0.5, 0.25, 0, 0.5, -1, 0.125]
  const values = new Map([
    [x, Float64Array.from(from, (v) => v + 0.0625)],
    [l, Float64Array.from(from)],
    [u, Float64Array.from(from, (v) => v + 0.25)],
  ])
  for (const method of [ibp, crown, symbolic, crownIbp])
    for (const f of of) {
      const [small, large] = [f(graph(false)), f(graph(true))]
      const [a, b] = [method(small, box).output(), method(large, box).output()]
      const [v, al, au, bl, bu] = await run([small, a.lower, a.upper, b.lower, b.upper], values)
      v.forEach((t, i) => {
        assert.ok(al[i] <= t && t <= au[i], `${t} in [${al[i]}, ${au[i]}]`)
        assert.ok(Math.abs(al[i] - bl[i]) < 1e-9 && Math.abs(au[i] - bu[i]) < 1e-9)
      })
    }
  // Interval propagation of cross-entropy is exact: the label's own exponential is 1 at both ends.
  const [lower, upper] = [O.input('a', [1, 2]), O.input('b', [1, 2])]
  const logits = O.input('logits', [1, 2])
  const exact = ibp(crossEntropy(logits, O.constant([0], [1])), new Map([[logits, interval(lower, upper)]])).output()
  const [p, q] = await run(
    [exact.lower, exact.upper],
    new Map([
      [lower, Float64Array.of(0, 1)],
      [upper, Float64Array.of(1, 2)],
    ]),
  )
  assert.ok(Math.abs(p[0] - Math.log(1 + Math.exp(0))) < 1e-12 && Math.abs(q[0] - Math.log(1 + Math.exp(2))) < 1e-12)
})

test('worst-case losses of margins are finite where a margin is large', async () => {
  const step = stepOf(1, [1], 3)
  const margins = O.constant([1e8, -1e8], [2, 1])
  const loss = worstCase(crossEntropy)(() => () => () => interval(margins, margins))(step)({
    logits: (v) => v,
    parameters: {},
  })
  const values = new Map<Tensor, Data>([
    [step.inputs, Float64Array.of(0)],
    [step.labels, Float64Array.of(1)],
    [step.epsilon, Float64Array.of(0)],
  ])
  for (const backend of backends) assert.is((await run([loss], values, undefined, backend))[0][0], 1e8)
})

test('the fused loss is that of worst-case margins where logits are huge, and so is its gradient', async () => {
  const step = stepOf(1, [2], 3)
  const w = O.input('w', [2, 3])
  const logits = (<T extends Operand>(v: T) => O.matmul(O.relu(v as Tensor), w)) as unknown as Apply
  const model = { logits, parameters: { w } }
  const losses = [fusedCrossEntropy(), worstCase(crossEntropy)(bounded(ibp))].map((loss) => loss(step)(model))
  for (const backend of backends)
    for (const scale of [1e8, 1e30, 1e38])
      for (const epsilon of [0, 0.1]) {
        const values = new Map([
          [step.inputs, typed(backend, [0.5, 0.7])],
          [step.labels, typed(backend, [1])],
          [step.epsilon, typed(backend, [epsilon])],
          [w, typed(backend, [scale, -scale, 0, 0.5 * scale, 0.25 * scale, -0.75 * scale])],
        ])
        const [fused, worst, g, h] = await run(
          [...losses, ...losses.flatMap((loss) => grad(loss, [w]))],
          values,
          undefined,
          backend,
        )
        assert.ok(Math.abs(fused[0] / worst[0] - 1) < 1e-6, `${backend.name} ${scale}: ${fused[0]}, ${worst[0]}`)
        g.forEach((v, i) => assert.ok(Math.abs(v - h[i]) < 1e-5, `${backend.name} ${scale}, ${epsilon}: ${g}; ${h}`))
      }
})

test.run()
