import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { anatomy } from '../../src/bounds/anatomy.ts'
import { evaluate } from '../../src/compile/run.ts'
import { grad } from '../../src/compile/vjp.ts'
import { fold, key } from '../../src/core/key.ts'
import type { Apply, Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { ibp, intersect, layerBounds, symbolic } from '../../src/robust/bounds.ts'
import { margins } from '../../src/robust/specification.ts'
import { dual } from '../../src/robust/wong-kolter.ts'
import { boxAround, chain, conv, fc, flatten, type Parameters, parameters, relu } from '../bounds/networks.ts'
import { differences, SEED, using } from '../ops/property.ts'

const backend = reference()
const evaluated = (outputs: readonly Tensor[], feeds: ReadonlyMap<Tensor, Float64Array>) =>
  evaluate(backend)(outputs, feeds) as Promise<readonly Float64Array[]>

const NETS: Readonly<Record<string, (p: Parameters) => Apply>> = {
  'convolutions, average pool': (p) =>
    chain(
      conv(p, '1', 3, 3, { padding: 1 }),
      relu,
      (x) => O.averagePool2d(x, 2),
      conv(p, '2', 3, 2),
      relu,
      flatten,
      fc(p, '3', 5),
      relu,
      fc(p, '4', 3),
    ),
  'residual, normalized, leaky': (p) => (x) => {
    const scaled = O.div(O.sub(x as Operand, 0.1) as Operand, O.add(1.2, p.get('s', [1, 2, 1, 1], 0.2)) as Tensor)
    const a = relu(conv(p, '1', 2, 3, { padding: 1 })(scaled as typeof x))
    const b = O.add(conv(p, '2', 2, 3, { padding: 1 })(a) as Operand, a as Operand) as typeof x
    return chain(O.leakyRelu(0.2), flatten, fc(p, '3', 6), relu, fc(p, '4', 3))(b)
  },
}
const SHAPE = [2, 2, 4, 4]
const built = (net: (p: Parameters) => Apply, epsilon: number) => {
  const p = parameters(SEED)
  const { box, feeds } = boxAround(SHAPE, epsilon, SEED + 5)
  const x: Tensor = O.input('x', SHAPE)
  return { p, y: net(p)(x), boxes: new Map([[x, box]]), feeds: new Map([...feeds, ...p.all()]) }
}

for (const [name, net] of Object.entries(NETS))
  test(`${name}: the dual is symbolic, at every layer and for margins, to 1e-9`, async () => {
    for (const epsilon of [0.03, 0.3]) {
      const { y, boxes, feeds } = built(net, epsilon)
      const spec = margins(O.constant([1, 2], [2]), 3)
      const both = [symbolic, dual()].flatMap((m) => [
        ...layerBounds(m)(y, boxes).map((l) => l.bounds),
        m(y, boxes).rows(spec),
      ])
      const got = await evaluated(
        both.flatMap((b) => [b.lower, b.upper]),
        feeds,
      )
      const half = got.length / 2
      for (let k = 0; k < half; k++)
        got[k].forEach((v, i) => assert.ok(Math.abs(v - got[k + half][i]) < 1e-9, `${k}: ${v} ${got[k + half][i]}`))
    }
  })

test('given the same pre-activation bounds, of another method, the dual is symbolic too', async () => {
  const { y, boxes, feeds } = built(NETS['convolutions, average pool'], 0.2)
  const outer = intersect(symbolic, ibp)(y, boxes)
  const known = new Map(anatomy(y, boxes).hidden.map((h) => [h, outer.node(h)]))
  const [a, b] = [symbolic, dual()].map((m) => m(y, boxes, known).output())
  const [al, au, bl, bu] = await evaluated([a.lower, a.upper, b.lower, b.upper], feeds)
  al.forEach((v, i) => assert.ok(Math.abs(v - bl[i]) < 1e-9 && Math.abs(au[i] - bu[i]) < 1e-9))
})

test('projections: unbiased, with the variance of the estimator, and better with more of them', async () => {
  // One linear layer: the radius is an l1 norm of the estimator alone.
  const x: Tensor = O.input('x', [1, 40])
  const p = parameters(SEED)
  const y = fc(p, '1', 24)(x)
  const { box, feeds } = boxAround([1, 40], 0.2, SEED)
  const all = new Map([...feeds, ...p.all()])
  const width = ({ lower, upper }: { readonly lower: Tensor; readonly upper: Tensor }) => O.sub(upper, lower) as Tensor
  const [truth] = await evaluated([width(symbolic(y, new Map([[x, box]])).output())], all)
  for (const k of [3, 10, 50]) {
    const draws = 60
    const graphs = Array.from({ length: draws }, (_, i) =>
      width(dual({ projections: k, key: fold(key(SEED), i) })(y, new Map([[x, box]])).output()),
    )
    const ratios = (await evaluated(graphs, all)).map((w) => w.map((v, i) => v / truth[i]))
    // Neurons of one draw share it; draws are independent.
    const means = ratios.map((r) => r.reduce((s, v) => s + v, 0) / r.length)
    const average = means.reduce((s, v) => s + v, 0) / draws
    const spread = Math.sqrt(means.reduce((s, v) => s + (v - average) ** 2, 0) / (draws - 1) / draws)
    assert.ok(Math.abs(average - 1) < 4 * spread, `k ${k}: ${average} +- ${spread}`)
    const variance = Math.cos(Math.PI / (2 * k)) ** (2 * k) / Math.cos(Math.PI / k) ** k - 1
    const squares = ratios.flatMap((r) => [...r]).reduce((s, v) => s + (v - 1) ** 2, 0) / (draws * 24)
    // Heavy tails: the sample variance itself varies by some tens of per cent.
    assert.ok(squares < 2.5 * variance && squares > variance / 2.5, `k ${k}: variance ${squares}, expected ${variance}`)
  }
})

test('projections: a network with ReLUs comes out about as wide as by the dual', async () => {
  const { y, boxes, feeds } = built(NETS['convolutions, average pool'], 0.1)
  const spec = margins(O.constant([1, 2], [2]), 3)
  const rows = [dual(), ...[1, 2, 3, 4].map((i) => dual({ projections: 200, key: key(i) }))].map((m) =>
    m(y, boxes).rows(spec),
  )
  const got = await evaluated(
    rows.map((r) => O.sub(r.upper, r.lower) as Tensor),
    feeds,
  )
  const total = got.map((w) => w.reduce((s, v) => s + v, 0))
  // 1.6 / sqrt(200) = 11 % for one norm; a sum of some, over four draws, deviates less.
  const average = (total[1] + total[2] + total[3] + total[4]) / 4
  assert.ok(Math.abs(average / total[0] - 1) < 0.15, `${average / total[0]}`)
  assert.throws(() => dual({ projections: 2 })(y, boxes), /from 3/)
})

test('gradients of the dual, exact and projected', async () => {
  for (const method of [dual(), dual({ projections: 5, key: key(7) })]) {
    const { p, y, boxes, feeds } = built(NETS['residual, normalized, leaky'], 0.07)
    const { lower } = method(y, boxes).rows(margins(O.constant([0, 2], [2]), 3))
    const loss = O.sum(O.logSumExp(O.neg(lower), 0))
    const args = [...feeds.keys()]
    const data = [...feeds.values()]
    assert.ok(p.all().size > 0)
    await using(backend, [loss], args, (value) =>
      using(backend, grad(loss, args), args, (gradient) =>
        differences(value, gradient, data, [...args.keys()], 1e-6, 1e-5, (k, j) =>
          [0, data[k].length >> 1].includes(j),
        ),
      ),
    )
  }
})

test('what has no dual says so', () => {
  const { y, boxes } = built((p) => chain((x) => O.tanh(x), flatten, fc(p, '1', 2)), 0.1)
  assert.throws(() => dual()(y, boxes), /the dual of tanh/)
  assert.is(backend.stats().live, 0)
})

test.run()
