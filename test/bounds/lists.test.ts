import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { anatomy } from '../../src/bounds/anatomy.ts'
import { linearBounds, type Method } from '../../src/bounds/linear-bounds.ts'
import { screener, unstable } from '../../src/bounds/screen.ts'
import type { Backend, Data } from '../../src/compile/backend.ts'
import { plan } from '../../src/compile/plan.ts'
import { evaluate } from '../../src/compile/run.ts'
import { grad } from '../../src/compile/vjp.ts'
import type { Apply, Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { margins } from '../../src/robust/specification.ts'
import { runPlan } from '../compile/dag.ts'
import { right } from '../shared.ts'
import { boxAround, chain, conv, fc as dense, flatten, type Parameters, parameters, relu } from './networks.ts'

const backend = reference()
const threads: readonly Backend[] = [right(await wasm({ threads: 1 })()), right(await wasm({ threads: 3 })())]

const NETS: Readonly<Record<string, (p: Parameters) => Apply>> = {
  convolutions: (p) =>
    chain(
      conv(p, '1', 3, 3, { padding: 1 }),
      relu,
      conv(p, '2', 4, 3, { stride: 2, padding: 1 }),
      relu,
      conv(p, '3', 3, 2, { padding: [1, 0, 0, 1] }),
      relu,
      flatten,
      dense(p, '4', 6),
      relu,
      dense(p, '5', 3),
    ),
  'fully connected': (p) =>
    chain(
      flatten,
      dense(p, '1', 9),
      O.leakyRelu(0.1),
      dense(p, '2', 8),
      (x) => O.mul(x as Operand, p.get('scale', [8])) as typeof x,
      relu,
      dense(p, '3', 7),
      relu,
      dense(p, '4', 3),
    ),
  residual: (p) => (x) => {
    const a = chain(conv(p, 's', 3, 3, { padding: 1 }), relu)(x)
    const main = chain(conv(p, '1', 3, 3, { stride: 2, padding: 1 }), relu, conv(p, '2', 3, 3, { padding: 1 }))(a)
    const b = relu(O.add(main as Operand, conv(p, 'k', 3, 2, { stride: 2 })(a) as Operand) as typeof x)
    const c = relu(O.add(conv(p, '3', 3, 3, { padding: 1 })(b) as Operand, b as Operand) as typeof x)
    return chain(conv(p, '4', 2, 2), relu, flatten, dense(p, '5', 5), relu, dense(p, '6', 3))(c)
  },
  smooth: (p) =>
    chain(
      conv(p, '1', 2, 3),
      (x) => O.tanh(x),
      conv(p, '2', 2, 2),
      relu,
      flatten,
      dense(p, '3', 4),
      relu,
      dense(p, '4', 3),
    ),
}
const SLOPES = ['same', 'adaptive', 'zero'] as const
const SHAPE = [2, 1, 6, 6]

/** Margins, their gradient, a box of every hidden node and how many neurons the screen leaves open. */
const setting = (net: string, slope: Method['slope'], epsilon: number, seed: number) => {
  const p = parameters(seed)
  const { box, feeds } = boxAround(SHAPE, epsilon, seed + 5)
  const x: Tensor = O.input('x', SHAPE)
  const y = NETS[net](p)(x)
  const boxes = new Map([[x, box]])
  const { hidden, boxed } = anatomy(y, boxes)
  const spec = margins(O.constant([1, 2], [2]), 3)
  const weights = [...p.all().keys()]
  const of = (perRound: number) => {
    const bounded = linearBounds({ slope, hidden: 'own', perRound })(y, boxes)
    const { lower, upper } = bounded.rows(spec)
    const loss = O.sum(O.logSumExp(O.neg(lower), 0))
    const nodes = hidden.map((h) => bounded.node(h)).flatMap((b) => [b.lower, b.upper])
    return { bounded, outputs: [lower, upper, ...nodes], gradient: grad(loss, [...weights, ...feeds.keys()]) }
  }
  return { of, hidden, boxed, boxes, feeds: new Map([...feeds, ...p.all()]) }
}

const close = (a: Data, b: Data, room: number, what: string): void =>
  a.forEach((v, i) => {
    assert.ok(Math.abs(v - b[i]) <= room * (1 + Math.abs(b[i])), `${what}, element ${i}: ${v} and ${b[i]}`)
  })

test('listed rows give the bounds and gradients of all rows, for any length of a round, with no, some and all neurons unstable', async () => {
  const shares = new Set<string>()
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...Object.keys(NETS)),
      fc.constantFrom(...SLOPES),
      fc.constantFrom(0, 0.01, 0.1, 3),
      fc.constantFrom(7, 64, 4096),
      fc.nat(1000),
      async (net, slope, epsilon, perRound, seed) => {
        const { of, hidden, boxed, boxes, feeds } = setting(net, slope, epsilon, seed)
        const [whole, listed] = [of(0), of(perRound)]
        const ctx = { images: 2, boxed, bounds: whole.bounded.node, slope: () => slope }
        const open = O.sum(
          O.concat(
            hidden.map((h) =>
              O.reshape(unstable(screener(boxes, ctx)(h) ?? whole.bounded.node(h)), [
                2 * h.shape.slice(1).reduce((n, d) => n * d, 1),
              ]),
            ),
            0,
          ),
        )
        const all = [...whole.outputs, ...whole.gradient, open]
        const want = await evaluate(backend)(all, feeds)
        const have = await evaluate(backend)([...listed.outputs, ...listed.gradient], feeds)
        have.forEach((v, k) =>
          close(v, want[k], 1e-9, `${net}, ${slope}, epsilon ${epsilon}, round ${perRound}, output ${k}`),
        )
        const count = hidden.reduce((n, h) => n + 2 * h.shape.slice(1).reduce((m, d) => m * d, 1), 0)
        const [found] = want[all.length - 1]
        shares.add(found === 0 ? 'none' : found === count ? 'all' : 'some')
      },
    ),
    { numRuns: 9, seed: 7 },
  )
  assert.equal([...shares].sort(), ['all', 'none', 'some'])
})

test('no walk is looser than the screen', async () => {
  for (const net of Object.keys(NETS))
    for (const slope of SLOPES)
      for (const epsilon of [0.05, 0.5]) {
        const { of, hidden, boxed, boxes, feeds } = setting(net, slope, epsilon, 3)
        const { node } = of(0).bounded
        const screen = screener(boxes, { images: 2, boxed, bounds: node, slope: () => slope })
        const pairs = hidden.flatMap((h) => {
          const box = screen(h)
          return box === undefined ? [] : [node(h).lower, box.lower, box.upper, node(h).upper]
        })
        assert.ok(pairs.length >= 4)
        const got = await evaluate(backend)(pairs, feeds)
        for (let k = 0; k < got.length; k += 2)
          got[k].forEach((v, i) => {
            assert.ok(
              v >= got[k + 1][i] - 1e-10 * (1 + Math.abs(v)),
              `${net}, ${slope}, ${epsilon}: ${v} and ${got[k + 1][i]}`,
            )
          })
      }
})

test('one plan: the same bits for any number of threads, the bounds of the other form where rounds cannot be repeated', async () => {
  const { of, feeds } = setting('convolutions', 'same', 0.1, 21)
  const { outputs, gradient } = of(5)
  const [inputs, data] = [[...feeds.keys()], [...feeds.values()]]
  const made = plan([...outputs, ...gradient], inputs, { epilogue: true })
  const [one, three] = [await runPlan(threads[0], made, data), await runPlan(threads[1], made, data)]
  one.forEach((v, k) =>
    assert.ok(
      v.every((e, i) => Object.is(e, three[k][i])),
      `output ${k}`,
    ),
  )
  const exact = await evaluate(backend)(of(0).outputs, feeds)
  outputs.forEach((_, k) => close(one[k], exact[k], 1e-4, `output ${k}`))
  const written = await runPlan(backend, plan(outputs, inputs, { rounds: false }), data)
  written.forEach((v, k) => close(v, exact[k], 1e-12, `written out, output ${k}`))
})

test('a NaN in the box verifies nothing', async () => {
  const { of, feeds } = setting('convolutions', 'same', 0.01, 2)
  const [lower] = of(3).outputs
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const [[k, v], ...rest] = feeds
    const broken = v.map((e, i) => (i === 12 ? bad : e))
    for (const b of [backend, threads[0]]) {
      const [got] = await evaluate(b)([lower], new Map([[k, broken], ...rest]))
      // Row y of the first image's own label is 0 by construction.
      for (const j of [0, 2]) assert.not(got[2 * j] > 0 && got[2 * j] < Number.POSITIVE_INFINITY, `${b.name}: ${got}`)
    }
  }
})

test('nothing is left behind', () => {
  for (const b of [backend, ...threads]) {
    assert.is(b.stats().live, 0)
    b.dispose()
  }
})

test.run()
