import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { openRegion } from '../../src/compile/region.ts'
import { evaluate } from '../../src/compile/run.ts'
import { grad } from '../../src/compile/vjp.ts'
import { interval } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Apply, Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { alphaCrown, ascending, relaxation } from '../../src/robust/alpha-crown.ts'
import { boundsOf, crown } from '../../src/robust/bounds.ts'
import { budgetOf } from '../../src/robust/budget.ts'
import { margins } from '../../src/robust/specification.ts'
import { boxAround, chain, conv, fc, flatten, type Parameters, parameters, relu } from '../bounds/networks.ts'
import { right, shared, skipped } from '../shared.ts'
import { mnistfc, propertyOf } from './verify-help.ts'

const simd = right(await wasm({ threads: 2 })())
const oracle = reference()

const NETS: Readonly<Record<string, (p: Parameters) => Apply>> = {
  dense: (p) => chain(flatten, fc(p, '1', 7), relu, fc(p, '2', 6), relu, fc(p, '3', 5), relu, fc(p, '4', 3)),
  'leaky relu': (p) => chain(flatten, fc(p, '1', 7), O.leakyRelu(0.1), fc(p, '2', 6), O.leakyRelu(0.3), fc(p, '4', 3)),
  convolutions: (p) =>
    chain(
      conv(p, '1', 3, 3, { padding: 1 }),
      relu,
      conv(p, '2', 3, 2, { stride: 2 }),
      relu,
      flatten,
      fc(p, '3', 5),
      relu,
      fc(p, '4', 3),
    ),
  residual: (p) => (x) => {
    const a = chain(conv(p, '1', 2, 3, { padding: 1 }), relu)(x)
    const b = relu(O.add(conv(p, '2', 2, 3, { padding: 1 })(a) as Operand, a as Operand) as typeof x)
    return chain(flatten, fc(p, '3', 3))(b)
  },
  tanh: (p) => chain(flatten, fc(p, '1', 5), (x) => O.tanh(x), fc(p, '2', 3)),
}
const SHAPE = [2, 1, 4, 4]

for (const [name, build] of Object.entries(NETS))
  test(`${name}: never looser than CROWN, tighter with more steps, and sound for sampled points`, async () => {
    let [gain, tightest] = [0, 0]
    for (const seed of [1, 2]) {
      const p = parameters(seed)
      const net = build(p)
      const { box, feeds, points } = boxAround(SHAPE, 0.4, seed)
      const spec = margins(O.constant([0, 2], [2]), 3)
      const bounds = [
        boundsOf(crown)(net, box),
        ...[0, 2, 8].map((steps) => boundsOf(alphaCrown({ steps, lr: 0.2 }))(net, box)),
      ].map((b) => ({ rows: b.rows(spec), output: b.output() }))
      const ends = bounds.flatMap(({ rows, output }) => [rows.lower, rows.upper, output.lower, output.upper])
      const all = new Map([...feeds, ...p.all()])
      const values = await evaluate(oracle)(ends, all)
      const at = (method: number, end: number) => values[4 * method + end]
      for (let m = 1; m < bounds.length; m++)
        for (const end of [0, 1, 2, 3])
          at(m, end).forEach((v, i) => {
            const sign = end % 2 === 0 ? 1 : -1
            assert.ok(
              sign * (v - at(m - 1, end)[i]) >= -1e-12,
              `end ${end}, method ${m}: ${v} after ${at(m - 1, end)[i]}`,
            )
            if (m === 1) assert.ok(Math.abs(v - at(0, end)[i]) < 1e-12)
            if (m === 3) gain += sign * (v - at(0, end)[i])
          })
      const x: Tensor = O.input('x', SHAPE)
      const logits = net(x)
      const reached = O.transpose(O.sum(O.mul(spec, O.reshape(logits, [1, 2, 3])), 2) as Tensor, [0, 1])
      for (const point of points(200)) {
        const [y, margin] = await evaluate(oracle)([logits, reached], new Map([...p.all(), [x, point]]))
        margin.forEach((v, i) => {
          assert.ok(at(3, 0)[i] <= v + 1e-9 && at(3, 1)[i] >= v - 1e-9)
        })
        y.forEach((v, i) => {
          assert.ok(at(3, 2)[i] <= v + 1e-9 && at(3, 3)[i] >= v - 1e-9)
        })
        tightest++
      }
    }
    assert.is(tightest, 400)
    // Without a ReLU there is nothing to choose.
    assert.is(gain > 1e-9, name !== 'tanh', `${gain}`)
  })

test('one compiled update, run many times, is the unrolled graph', async () => {
  const p = parameters(3)
  const net = NETS.convolutions(p)
  const { box, feeds } = boxAround(SHAPE, 0.4, 3)
  const x: Tensor = O.input('x', SHAPE)
  const spec = margins(O.constant([1, 2], [2]), 3)
  const graph = relaxation(net(x), new Map([[x, box]]), spec)
  const all = new Map([...feeds, ...p.all()])
  const steps = 5
  const [unrolled, ...start] = await evaluate(oracle)(
    [alphaCrown({ steps, lr: 0.1 })(net(x), new Map([[x, box]])).rows(spec).lower, ...graph.start],
    all,
  )
  const { region, close } = openRegion(oracle)
  const inputs = [...all.keys()]
  const loop = await ascending(region, budgetOf(region, 2 ** 30))('an ascent', 0, () => ({
    free: graph.slopes.map((s) => ({ ...s, high: 1 })),
    inputs,
    graph: (values) => {
      const { lower } = graph.bound(values)
      return { objective: lower, outputs: [lower] }
    },
  }))
  loop.write([...all.values()])
  const best = new Float64Array(unrolled.length).fill(Number.NEGATIVE_INFINITY)
  for (const again of [0, 1]) {
    loop.start(start)
    for (let t = 0; t <= steps; t++) {
      await loop.run(0.1)
      ;(await oracle.read(loop.buffers[0])).forEach((v, i) => {
        best[i] = Math.max(best[i], v)
      })
    }
    best.forEach((v, i) => {
      assert.ok(Math.abs(v - unrolled[i]) < 1e-9, `run ${again}: ${v} against ${unrolled[i]}`)
    })
  }
  const values = await loop.values()
  graph.slopes.forEach(({ shape, low }, i) => {
    assert.is(values[i].length, S.size(shape))
    assert.ok(values[i].every((v) => v >= low && v <= 1))
  })
  close()
})

test('bounds have gradients with respect to the box, through the bounds alone', async () => {
  const p = parameters(4)
  const { box, feeds } = boxAround(SHAPE, 0.3, 4)
  const spec = margins(O.constant([1, 2], [2]), 3)
  // With updates, the slopes depend on the box too: a share that is left out.
  for (const [steps, tolerance] of [
    [0, 1e-4],
    [2, 0.05],
  ]) {
    const total = O.sum(boundsOf(alphaCrown({ steps, lr: 0.1 }))(NETS.dense(p), box).rows(spec).lower) as Tensor
    const at = async (h: number) => {
      const moved = [...feeds].map(([t, d]) => [t, d.map((v) => (t === box.lower ? v - h : v + h))] as const)
      return (await evaluate(oracle)([total], new Map([...moved, ...p.all()])))[0][0]
    }
    const ends = await evaluate(oracle)(grad(total, [box.lower, box.upper]), new Map([...feeds, ...p.all()]))
    const [gl, gu] = ends.map((g) => Array.from(g).reduce((s, v) => s + v, 0))
    const expected = gu - gl
    const measured = ((await at(1e-6)) - (await at(-1e-6))) / 2e-6
    // A larger box has lower bounds.
    assert.ok(expected < 0)
    assert.ok(Math.abs(measured - expected) < tolerance * Math.abs(expected), `${measured} against ${expected}`)
  }
})

if (shared('vnnlib/prop_13_0.03.vnnlib') === undefined) skipped('alpha-CROWN on prop_13_0.03', '../shared is absent')
else
  test('prop_13_0.03: 20 steps reach -0.201, from -1.370 of CROWN', async () => {
    const { network, input } = mnistfc()
    const [c] = propertyOf('prop_13_0.03.vnnlib').cases
    const shape = [1, ...input]
    const box = interval(O.constant(c.lower, shape), O.constant(c.upper, shape))
    const spec = O.constant(
      c.unsafe.flatMap(([k]) => [...k.coefficients]),
      [c.unsafe.length, 1, 10],
    )
    const least = async (method: typeof crown) =>
      Math.min(...(await evaluate(simd)([boundsOf(method)(network, box).rows(spec).lower]))[0])
    const [before, after] = [await least(crown), await least(alphaCrown({ steps: 20, lr: 0.1 }))]
    assert.ok(Math.abs(before + 1.37) < 1e-3, `${before}`)
    assert.ok(after >= -0.201, `${after}`)
  })

test('no buffer is left', () => {
  assert.is(simd.stats().live + oracle.stats().live, 0)
  simd.dispose()
})

test.run()
