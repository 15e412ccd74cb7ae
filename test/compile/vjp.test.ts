import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { evaluate } from '../../src/compile/run.ts'
import { substitute } from '../../src/compile/tape.ts'
import { grad, vjp } from '../../src/compile/vjp.ts'
import { unsupported } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { check, numbers } from '../ops/property.ts'
import { dags } from './dag.ts'

const evaluated = async (outputs: readonly Tensor[], feeds: ReadonlyMap<Tensor, Float64Array>) => {
  const backend = reference()
  const result = await evaluate(backend)(outputs, feeds)
  assert.is(backend.stats().live, 0)
  return result
}

const close = (a: ArrayLike<number>, b: ArrayLike<number>, what: string, tolerance = 1e-9): void => {
  assert.is(a.length, b.length, what)
  const scale = Array.from(a, Math.abs).reduce((m, x) => (Number.isFinite(x) ? Math.max(m, x) : m), 1)
  for (let i = 0; i < a.length; i++)
    if (!(Object.is(a[i], b[i]) || a[i] === b[i] || Math.abs(a[i] - b[i]) <= tolerance * scale))
      throw new Error(`${what}: element ${i}: ${a[i]} and ${b[i]}`)
}

const cases = dags(14).chain((dag) =>
  fc.tuple(
    fc.constant(dag),
    fc.tuple(...dag.inputs.map((x) => numbers(S.size(x.shape), -1.5, 1.5))),
    fc.tuple(...dag.outputs.map((x) => numbers(S.size(x.shape), -1, 1))),
    fc.tuple(...dag.outputs.map((x) => numbers(S.size(x.shape), -1, 1))),
  ),
)

test('vjp is linear in the cotangents', () =>
  check(40, cases, async ([{ inputs, outputs, text }, data, p, q]) => {
    const cts = [0, 1].map((k) => outputs.map((y, i) => O.input(`ct${k}.${i}`, y.shape)))
    const sum = cts[0].map((a, i) => O.add(O.mul(a, 2), cts[1][i]) as Tensor)
    const [a, b, c] = [vjp(outputs, cts[0], inputs), vjp(outputs, cts[1], inputs), vjp(outputs, sum, inputs)]
    const feeds = new Map<Tensor, Float64Array>([
      ...inputs.map((x, i) => [x, data[i]] as const),
      ...cts[0].map((x, i) => [x, p[i]] as const),
      ...cts[1].map((x, i) => [x, q[i]] as const),
    ])
    const got = await evaluated([...c, ...a.map((x, i) => O.add(O.mul(x, 2), b[i]) as Tensor)], feeds)
    inputs.forEach((_, i) => close(got[i], got[i + inputs.length], text))
  }))

test('vjp of a composition is the composition of the vjps', () =>
  check(40, cases, async ([{ inputs, outputs, text }, data, p]) => {
    // g o f, with g cut off f by placeholders.
    const g = (ys: readonly Tensor[]) =>
      O.sum(
        O.tanh(
          O.mul(
            ys.map((y) => O.sum(O.tanh(y))).reduce((a, b) => O.add(a, b) as Tensor),
            0.7,
          ) as Tensor,
        ),
      )
    const holes = outputs.map((y, i) => O.input(`y${i}`, y.shape))
    const whole = grad(g(outputs), inputs)
    const upper = grad(g(holes), holes)
    const cts = substitute(upper, new Map(holes.map((h, i) => [h as Tensor, outputs[i]])))
    const chained = vjp(outputs, cts, inputs)
    const got = await evaluated([...whole, ...chained], new Map(inputs.map((x, i) => [x as Tensor, data[i]])))
    assert.is(p.length, outputs.length)
    inputs.forEach((_, i) => close(got[i], got[i + inputs.length], text))
  }))

test('a cotangent of another shape is refused, a gradient needs a scalar', () => {
  const x = O.input('x', [2])
  assert.throws(() => vjp([x], [O.scalar(1)], [x]), /vjp: cotangent \[\] for an output of shape \[2\]/)
  assert.throws(() => grad(x, [x]), /grad: takes a scalar, not \[2\]/)
})

test('an input that the output does not depend on has gradient 0', async () => {
  const [x, y] = [O.input('x', [2]), O.input('y', [3])]
  const [g] = grad(O.sum(x), [y])
  assert.equal([...(await evaluated([g], new Map()))[0]], [0, 0, 0])
})

test('the gradient of an intermediate value is that of a placeholder in its place', async () => {
  const x = O.input('x', [3])
  const y = O.tanh(x)
  const loss = O.sum(O.mul(y, O.mul(y, x)) as Tensor)
  const [gy, gx] = await evaluated(grad(loss, [y, x]), new Map([[x as Tensor, Float64Array.of(0.3, -1, 2)]]))
  const t = [0.3, -1, 2].map(Math.tanh)
  close(
    gy,
    t.map((v, i) => 2 * v * [0.3, -1, 2][i]),
    'to y',
  )
  close(
    gx,
    t.map((v, i) => v * v + 2 * v * [0.3, -1, 2][i] * (1 - v * v)),
    'to x',
  )
})

test('the gradient of a custom op is the declared one', async () => {
  const heaviside = O.custom({
    name: 'heaviside',
    forward: ([a]) => O.step(a),
    vjp: (ct, [a]) => [O.mul(ct, O.add(a, 10)) as Tensor],
    interval: unsupported('it is a straight-through estimator'),
    relax: unsupported('it is a straight-through estimator'),
  })
  const x = O.input('x', [3])
  const y = heaviside(x as Tensor)
  const [value, g] = await evaluated(
    [y, ...grad(O.sum(O.mul(y, O.constant([1, 2, 3], [3])) as Tensor), [x])],
    new Map([[x as Tensor, Float64Array.of(1, -2, 3)]]),
  )
  assert.equal([...value], [1, 0, 1])
  assert.equal([...g], [11, 16, 39])
})

test('stopGradient: same value, no gradient, on a part of the graph only', async () => {
  const x = O.input('x', [2])
  const y = O.mul(O.stopGradient(x), x) as Tensor
  const [value, g, none] = await evaluated(
    [y, ...grad(O.sum(y), [x]), ...grad(O.sum(O.stopGradient(O.mul(x, x) as Tensor)), [x])],
    new Map([[x as Tensor, Float64Array.of(3, -2)]]),
  )
  assert.equal([...value], [9, 4])
  assert.equal([...g], [3, -2])
  assert.equal([...none], [0, 0])
})

test.run()
