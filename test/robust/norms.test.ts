import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { evaluate } from '../../src/compile/run.ts'
import { grad } from '../../src/compile/vjp.ts'
import type { Apply, Norm, Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { alphaCrown } from '../../src/robust/alpha-crown.ts'
import {
  type Bounder,
  blend,
  boundsOf,
  crown,
  crownIbp,
  ibp,
  intersect,
  layerBounds,
  symbolic,
} from '../../src/robust/bounds.ts'
import { ball } from '../../src/robust/perturbation.ts'
import { margins } from '../../src/robust/specification.ts'
import { chain, conv, fc, flatten, generic, type Parameters, parameters, relu } from '../bounds/networks.ts'
import { differences, SEED, using } from '../ops/property.ts'

const METHODS: Readonly<Record<string, Bounder>> = {
  ibp,
  symbolic,
  crown,
  'crown-ibp': crownIbp,
  'alpha-crown': alphaCrown({ steps: 2, lr: 0.25 }),
  intersect: intersect(symbolic, ibp),
  blend: blend(0.5)(ibp, crownIbp),
}
const BALLS = ['l2', 'l1'] as const
const backend = reference()
const evaluated = (outputs: readonly Tensor[], feeds: ReadonlyMap<Tensor, Float64Array>) =>
  evaluate(backend)(outputs, feeds) as Promise<readonly Float64Array[]>

const NETS: Readonly<Record<string, (p: Parameters) => Apply>> = {
  dense: (p) => chain(flatten, fc(p, '1', 8), relu, fc(p, '2', 6), relu, fc(p, '3', 3)),
  'normalized, conv, max pool, residual': (p) => (x) => {
    const centred = O.div(O.sub(x as Operand, 0.4), O.add(0.5, p.get('deviation', [1, 2, 1, 1], 0.1)) as Tensor)
    const a = relu(conv(p, '1', 3, 3, { padding: 1 })(centred as typeof x))
    const b = relu(O.add(conv(p, '2', 3, 3, { padding: 1 })(a) as Operand, a as Operand) as typeof x)
    return chain(conv(p, '3', 3, 2, { stride: 2 }), (y) => O.maxPool2d(y, 2, { stride: 1 }), flatten, fc(p, '4', 3))(b)
  },
  'tanh, average pool, leaky relu': (p) =>
    chain(
      conv(p, '1', 3, 3),
      (x) => O.tanh(x),
      (x) => O.averagePool2d(x, 2),
      conv(p, '2', 3, 1),
      O.leakyRelu(0.1),
      flatten,
      fc(p, '3', 3),
    ),
}
const SHAPE = [2, 2, 4, 4]
const SIZE = 32

/** Two images in [0, 1], some pixels at its ends. */
const images = generic(2 * SIZE, SEED).map((v) => Math.min(1, Math.max(0, 0.5 + 0.8 * v)))

const length = (d: ArrayLike<number>, norm: Norm): number =>
  Array.from(d).reduce(
    (s, v) => (norm === 'l2' ? Math.hypot(s, v) : norm === 'l1' ? s + Math.abs(v) : Math.max(s, Math.abs(v))),
    0,
  )

/** Images on the ball and in [0, 1]: dense and sparse directions, the given ones first. */
const points = (
  norm: Norm,
  epsilon: number,
  count: number,
  along: readonly Float64Array[] = [],
): readonly Float64Array[] =>
  Array.from({ length: count + along.length }, (_, k) => {
    const draw = along[k] ?? generic(2 * SIZE, SEED + 31 * k).map((v) => (k % 3 === 0 && Math.abs(v) < 0.9 ? 0 : v))
    return images.map((x, i) => {
      const own = draw.subarray(i < SIZE ? 0 : SIZE, i < SIZE ? SIZE : 2 * SIZE)
      return Math.min(1, Math.max(0, x + (draw[i] * epsilon) / Math.max(length(own, norm), 1e-300)))
    })
  })

for (const norm of BALLS)
  for (const [name, net] of Object.entries(NETS))
    test(`${norm}, ${name}: every method bounds what points of the ball reach, and no layer is wider than its box makes it`, async () => {
      const epsilon = norm === 'l2' ? 0.4 : 0.9
      const p = parameters(SEED)
      const x: Tensor = O.input('x', SHAPE)
      const y = net(p)(x)
      const spec = margins(O.constant([1, 2], [2]), 3)
      const feeds = new Map([[x, images], ...p.all()])
      const direction = grad(O.sum(O.slice(y, [0, 0], [2, 1])), [x])
      const along = await evaluated(direction, feeds)
      const margin = O.sum(O.mul(spec, y) as Tensor, 2)
      for (const [method, bound] of Object.entries(METHODS)) {
        const z: Tensor = O.input('z', SHAPE)
        const w = net(p)(z)
        const [round, square] = [ball(x, epsilon, [0, 1], norm), ball(x, epsilon)].map((b) => new Map([[z, b]]))
        const layers = layerBounds(bound)(w, round)
        const all = [...layers.map((l) => l.bounds), bound(w, round).rows(spec)]
        const got = await evaluated(
          all.flatMap((b) => [b.lower, b.upper]),
          feeds,
        )
        const inBoxes = layerBounds(bound)(w, square)
        const wide = await evaluated(
          inBoxes.flatMap((l) => [l.bounds.lower, l.bounds.upper]),
          feeds,
        )
        if (method === 'ibp' || method === 'blend')
          wide.forEach((v, k) => {
            v.forEach((e, i) =>
              assert.ok(k % 2 === 0 ? got[k][i] >= e - 1e-12 : got[k][i] <= e + 1e-12, `${method} ${k}`),
            )
          })
        const nodes = layers.map((l) => l.node)
        await using(backend, [...nodes, O.sum(O.mul(spec, w) as Tensor, 2)], [z, ...p.all().keys()], async (run) => {
          for (const point of points(norm, epsilon, 12, [along[0], along[0].map((v) => -v)])) {
            const values = await run([point, ...p.all().values()])
            values.forEach((v, k) => {
              v.forEach((e, i) => {
                assert.ok(
                  got[2 * k][i] <= e + 1e-10 && e <= got[2 * k + 1][i] + 1e-10,
                  `${method}, ${layers[k]?.name ?? 'margin'}: ${e}`,
                )
              })
            })
          }
        })
        assert.ok(margin.shape.length === 2 && got.every((v) => v.every(Number.isFinite)))
      }
    })

test('a linear functional over an uncut ball: the dual norm, reached at the point that the norm names', async () => {
  const x: Tensor = O.input('x', [1, SIZE])
  const p = parameters(SEED)
  const a = generic(SIZE, 5)
  const y = O.matmul(x, O.constant(a, [SIZE, 1]))
  const value = a.reduce((s, v, i) => s + v * images[i], 0)
  for (const [norm, dual] of [
    ['l2', length(a, 'l2')],
    ['l1', length(a, 'linf')],
    ['linf', length(a, 'l1')],
  ] as const)
    for (const bound of [ibp, symbolic, crownIbp]) {
      const z: Tensor = O.input('z', [1, SIZE])
      const w = O.matmul(z, O.constant(a, [SIZE, 1]))
      const b = bound(w, new Map([[z, ball(x, 0.3, null, norm)]])).output()
      const [l, u] = await evaluated([b.lower, b.upper], new Map([[x, images.slice(0, SIZE)], ...p.all()]))
      assert.ok(Math.abs(u[0] - (value + 0.3 * dual)) < 1e-12, `${norm} ${u[0]}`)
      assert.ok(Math.abs(l[0] - (value - 0.3 * dual)) < 1e-12, `${norm} ${l[0]}`)
    }
  assert.is(y.shape[1], 1)
})

test('where the range ends at the centre, coordinates that cannot move do not count', async () => {
  // Black pixels only get lighter, white ones only darker: the functional can only fall.
  const x: Tensor = O.input('x', [1, 4])
  const z: Tensor = O.input('z', [1, 4])
  const w = O.matmul(z, O.constant([-1, -2, 2, 1], [4, 1]))
  for (const norm of BALLS) {
    const b = symbolic(w, new Map([[z, ball(x, 0.25, [0, 1], norm)]])).output()
    const [l, u] = await evaluated([b.lower, b.upper], new Map([[x, Float64Array.of(0, 0, 1, 1)]]))
    assert.is(u[0], 3)
    assert.ok(Math.abs(l[0] - (3 - 0.25 * (norm === 'l2' ? Math.sqrt(10) : 2))) < 1e-12, `${l[0]}`)
  }
})

test('limits of each pixel: a tensor of radii, for boxes and for ellipsoids', async () => {
  const radii = generic(SIZE, 8).map((v) => 0.05 * (1.1 + v))
  const [x, r]: Tensor[] = [O.input('x', [1, SIZE]), O.input('r', [1, SIZE])]
  const a = generic(SIZE, 9)
  const feeds = new Map([
    [x, images.slice(0, SIZE)],
    [r, radii],
  ])
  const value = a.reduce((s, v, i) => s + v * images[i], 0)
  const scaled = a.map((v, i) => v * radii[i])
  for (const [norm, dual] of [
    ['linf', 'l1'],
    ['l2', 'l2'],
    ['l1', 'linf'],
  ] as const) {
    const b = boundsOf(symbolic)(
      ((z: Operand) => O.matmul(z, O.constant(a, [SIZE, 1]))) as unknown as Apply,
      ball(x, r, null, norm),
    ).output()
    const [u] = await evaluated([b.upper], feeds)
    assert.ok(Math.abs(u[0] - value - length(scaled, dual)) < 1e-12)
  }
})

test('bounds over balls have gradients, rows of zeros included', async () => {
  for (const norm of BALLS)
    for (const bound of [ibp, symbolic, crownIbp]) {
      const p = parameters(SEED)
      const [x, e]: Tensor[] = [O.input('x', [2, 6]), O.input('e', [])]
      const net = chain(fc(p, '1', 5), relu, fc(p, '2', 3))
      const { lower } = boundsOf(bound)(net, ball(x, e, null, norm)).rows(margins(O.constant([0, 2], [2]), 3))
      // The margin of a class with itself is a row of zeros, whose norm has no derivative but 0.
      const loss = O.sum(O.logSumExp(O.neg(lower), 0))
      const args = [x, e, ...p.all().keys()]
      const data = [generic(12, 3), Float64Array.of(0.2), ...p.all().values()]
      await using(backend, [loss], args, (value) =>
        using(backend, grad(loss, args), args, (gradient) =>
          differences(value, gradient, data, [...args.keys()], 1e-6, 1e-5, (k, j) =>
            [0, data[k].length >> 1].includes(j),
          ),
        ),
      )
    }
})

test('no norm but these, and no buffer is left', () => {
  const x: Tensor = O.input('x', [1, 2])
  assert.throws(() => ball(x, 1, [0, 1], 'l3' as Norm), /no norm "l3"; there are linf, l2, l1/)
  assert.is(backend.stats().live, 0)
})

test.run()
