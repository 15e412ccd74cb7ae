import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { anatomy } from '../../src/bounds/anatomy.ts'
import { forwardBounds, forwardWhereWide } from '../../src/bounds/forward-bounds.ts'
import { evaluate } from '../../src/compile/run.ts'
import { interval } from '../../src/core/op.ts'
import { exactly } from '../../src/core/rational.ts'
import * as S from '../../src/core/shape.ts'
import type { Apply, Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { type Bounder, crown, forward, ibp, symbolic, zonotope } from '../../src/robust/bounds.ts'
import { evaluateExactly, exactDoubles } from '../../src/verify/exact.ts'
import { random } from '../backend/wasm-programs.ts'
import { prepare, SEED } from '../ops/property.ts'
import { right } from '../shared.ts'
import { boxAround, chain, conv, fc, flatten, type Parameters, parameters, relu } from './networks.ts'

/** Networks of one kind of kink and of what is linear. */
const NETS: Readonly<Record<string, (p: Parameters) => Apply>> = {
  convolutions: (p) =>
    chain(
      conv(p, '1', 3, 3, { padding: 1 }),
      relu,
      conv(p, '2', 4, 3, { stride: 2 }),
      relu,
      flatten,
      fc(p, '3', 6),
      relu,
      fc(p, '4', 3),
    ),
  residual: (p) => (x) => {
    const a = relu(conv(p, '1', 3, 3, { padding: 1 })(x))
    const main = conv(p, '3', 3, 3, { padding: 1 })(relu(conv(p, '2', 3, 3, { padding: 1 })(a)))
    const b = relu(O.sub(main as Operand, a as Operand) as typeof x)
    return chain(flatten, fc(p, '4', 5), relu, fc(p, '5', 3))(b)
  },
  'average pooling, scales, leaky relu': (p) => (x) => {
    const scaled = O.div(O.sub(x as Operand, p.get('m', [1, 2, 1, 1], 0.2)), O.add(1.5, p.get('d', [1, 2, 1, 1], 0.3)))
    const a = O.leakyRelu(0.2)(conv(p, '1', 2, 3, { padding: 1 })(scaled as typeof x))
    const b = O.averagePool2d(O.mul(a as Operand, p.get('s', [1, 2, 1, 1], 1)) as typeof x, 2)
    const c = O.transpose(O.leakyRelu(0.2)(conv(p, '2', 3, 2)(b)) as Operand, [0, 2, 3, 1]) as typeof x
    return chain(flatten, fc(p, '3', 4), (y) => O.abs(y), fc(p, '4', 3))(c)
  },
}
const SHAPE = [2, 2, 5, 5]
const SPEC = O.constant([1, -1, 0, 0.5, 0, -2], [2, 1, 3])

const ends = async (p: Parameters, y: Tensor, x: Tensor, bounders: readonly Bounder[], epsilon: number) => {
  const { box, feeds } = boxAround(SHAPE, epsilon, SEED + 3)
  const boxes = new Map([[x, box]])
  const outputs = bounders.flatMap((method) => {
    const bounded = method(y, boxes)
    const all = [...anatomy(y, boxes).hidden.map((h) => bounded.node(h)), bounded.output(), bounded.rows(SPEC)]
    return all.flatMap((b) => [b.lower, b.upper])
  })
  const got = await evaluate(reference())(outputs, new Map([...feeds, ...p.all()]))
  const each = got.length / bounders.length
  return bounders.map((_, i) => got.slice(i * each, (i + 1) * each))
}

for (const [name, net] of Object.entries(NETS)) {
  test(`${name}: forms with all symbols are the bounds of walks back with the same slopes`, async () => {
    for (const epsilon of [0.1]) {
      const p = parameters(SEED)
      const x: Tensor = O.input('x', SHAPE)
      const [forms, walks] = await ends(p, net(p)(x), x, [zonotope, symbolic], epsilon)
      let open = 0
      forms.forEach((end, i) => {
        end.forEach((v, j) => {
          // A screen leaves boxes of neurons whose sign it knows as they are: wider, and the lines are the same.
          const walked = walks[i][j]
          const other = walks[i % 2 === 0 ? i + 1 : i - 1][j]
          const isLast = i >= forms.length - 4
          if (!isLast && walked * other > 0) return
          open++
          assert.ok(
            Math.abs(v - walked) <= 1e-9 * (1 + Math.abs(v)),
            `${epsilon}, end ${i}, element ${j}: ${v}, ${walked}`,
          )
        })
      })
      assert.ok(open > 20, `${open} ends were compared`)
    }
  })

  test(`${name}: forms of the inputs are never wider than intervals, and those of small layers' symbols neither`, async () => {
    const p = parameters(SEED)
    const x: Tensor = O.input('x', SHAPE)
    const methods = [ibp, forward, forwardBounds({ symbols: 8 })]
    const [wide, ...others] = await ends(p, net(p)(x), x, methods, 0.1)
    for (const [k, got] of others.entries()) {
      let narrower = 0
      got.forEach((end, i) => {
        end.forEach((v, j) => {
          const room = 1e-9 * (1 + Math.abs(v))
          const inside = i % 2 === 0 ? v - wide[i][j] : wide[i][j] - v
          assert.ok(inside >= -room, `method ${k}, end ${i}, element ${j}: ${v}, intervals ${wide[i][j]}`)
          if (inside > 1e-3) narrower++
        })
      })
      assert.ok(narrower > 10, `${narrower} ends are narrower`)
    }
  })
}

/** A network of every kind of step that forms take, of weights that float32 holds: meeting branches, scales, quotients, products of boxes, largest elements. */
const mixed = (w: readonly Tensor[]): Apply => {
  const [w1, b1, w2, b2, w3, scale, divisor, w4] = w
  return (x) => {
    const a = O.relu(O.add(O.matmul(x as Operand, w1), b1))
    const b = O.add(O.matmul(O.mul(a, scale) as Operand, w2), b2)
    const c = O.relu(O.sub(O.div(b, divisor) as Operand, a) as Operand)
    const d = O.mul(c, O.matmul(a, w3) as Operand) as Operand
    const e = O.concat([O.abs(d), O.max(d, 1, true), O.maximum(b, -0.25)] as Operand[], 1) as Operand
    return O.matmul(e, w4) as typeof x
  }
}
const SIZES = [[3, 4], [4], [4, 4], [4], [4, 4], [1, 4], [1, 4], [9, 2]]

test('no exact value leaves outward forms, whatever the sizes of weights, on float32 and on doubles', async () => {
  const next = random(17)
  const unit = () => 2 * next() - 1
  const x: Tensor = O.input('x', [1, 3])
  const [l, u] = [O.input('l', [1, 3]), O.input('u', [1, 3])] as readonly Tensor[]
  const weights = SIZES.map((shape, k): Tensor => O.input(`w${k}`, shape))
  const y = mixed(weights)(x)
  const boxes = new Map([[x, interval(l, u)]])
  const methods: readonly Bounder[] = [forward, zonotope, forwardBounds({ symbols: 4 })]
  const bounds = methods.map((m) => m(y, boxes, undefined, { outward: 'real' }).output())
  const outputs = [...bounds, forward(y, boxes).output()].flatMap((b) => [b.lower, b.upper])
  const backends = [right(await wasm({ threads: 1 })()), reference()]
  const prepared = await Promise.all(backends.map((b) => prepare(b, outputs, [l, u, ...weights])))
  let [finite, bites] = [0, 0]
  for (let i = 0; i < 40; i++) {
    const size = [1, 1, 2 ** 12, 2 ** -70][i % 4]
    const data = weights.map(({ shape }, k) =>
      // Divisors stay away from 0; some numbers nearly cancel.
      Float64Array.from({ length: S.size(shape) }, (_, j) =>
        Math.fround(k === 6 ? 0.3 + next() : j % 3 === 1 ? 1 - 2 ** -22 * next() : size * unit()),
      ),
    )
    const radius = 2 ** -Math.floor(18 * next())
    const centre = Array.from({ length: 3 }, () => Math.fround(unit()))
    const lower = Float64Array.from(centre, (c) => Math.fround(c - radius))
    const upper = Float64Array.from(centre, (c) => Math.fround(c + radius))
    const points = Array.from({ length: 4 }, (_, t) =>
      Float64Array.from(lower, (v, j) =>
        Math.min(upper[j], Math.max(v, Math.fround(v + (t < 2 ? Math.round(next()) : next()) * (upper[j] - v)))),
      ),
    )
    const values = points.map((at) =>
      evaluateExactly(y, new Map([x, ...weights].map((t, k) => [t, exactDoubles([at, ...data][k])]))),
    )
    for (const { run } of prepared) {
      const got = await run([lower, upper, ...data])
      for (const { numerators, denominator } of values)
        got.forEach((ends, k) => {
          numerators.forEach((n, j) => {
            if (!Number.isFinite(ends[j])) return
            const [m, e] = exactly(ends[j])
            const [a, b] = e >= 0 ? [m << BigInt(e), 1n] : [m, 1n << BigInt(-e)]
            const beyond = k % 2 === 0 ? a * denominator > n * b : a * denominator < n * b
            if (k >= 2 * methods.length) bites += Number(beyond)
            else {
              finite++
              assert.not.ok(beyond, `network ${i}, end ${k}, element ${j}: ${ends[j]}`)
            }
          })
        })
    }
  }
  for (const { close } of prepared) close()
  for (const backend of backends) backend.dispose()
  assert.ok(finite > 2600, `${finite} ends are finite`)
  assert.ok(bites > 0, 'bounds rounded to nearest are left nowhere: the cases do not bite')
})

test('wide layers by forms, narrow ones by walks: no wider than either rule, and all sampled values inside', async () => {
  const p = parameters(SEED)
  const x: Tensor = O.input('x', SHAPE)
  const y = NETS.residual(p)(x)
  const { box, feeds, points } = boxAround(SHAPE, 0.1, SEED + 3)
  const boxes = new Map([[x, box]])
  const { hidden } = anatomy(y, boxes)
  const widths = [forwardWhereWide(crown, 0), forwardWhereWide(crown, 0.5), forwardWhereWide(crown, 100)]
  const found = widths.map((f) => f(y, boxes, 'none'))
  const outputs = found.flatMap((m) => hidden.flatMap((h) => [m.get(h)?.lower, m.get(h)?.upper] as readonly Tensor[]))
  const got = await evaluate(reference())(outputs, new Map([...feeds, ...p.all()]))
  const total = (k: number) =>
    hidden.reduce((sum, _, i) => {
      const [lower, upper] = [0, 1].map((side) => got[2 * (k * hidden.length + i) + side])
      return Array.from(upper).reduce((t, v, j) => t + v - lower[j], sum)
    }, 0)
  assert.ok(total(0) > total(1) && total(1) > total(2), [0, 1, 2].map(total).join(' '))
  for (const point of points(5)) {
    const values = await evaluate(reference())(hidden, new Map([[x, point], ...p.all()]))
    values.forEach((v, i) =>
      v.forEach((w, j) => {
        for (const k of widths.keys()) {
          const at = 2 * (k * hidden.length + i)
          assert.ok(got[at][j] <= w + 1e-9 && got[at + 1][j] >= w - 1e-9, `rule ${k}, node ${i}, element ${j}`)
        }
      }),
    )
  }
})

test.run()
