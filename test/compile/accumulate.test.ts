import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { accumulate, either, rematerialize, suited } from '../../src/compile/accumulate.ts'
import type { Backend, Data } from '../../src/compile/backend.ts'
import { flat } from '../../src/compile/instruction.ts'
import { plan } from '../../src/compile/plan.ts'
import { grad } from '../../src/compile/vjp.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { generic } from '../bounds/networks.ts'
import { right } from '../shared.ts'
import { runPlan } from './dag.ts'

const backends: readonly Backend[] = [
  reference(),
  right(await wasm({ threads: 1 })()),
  right(await wasm({ threads: 3 })()),
]

/** Sums of what `per` items a round give, those with numbers of at least the count left out; and the same in one piece. */
const sums = (n: number, per: number, count: Tensor | number, x: Tensor, w: Tensor) => {
  const piece = (at: Tensor) => {
    const valid = O.greater(count, at) as Tensor
    const rows = O.gather(x, O.select(valid, at, 0) as Tensor)
    const y = O.tanh(O.matmul(rows, w))
    const kept = O.select(O.reshape(valid, [at.shape[0], 1]), y, 0) as Tensor
    return [O.scatterAdd(kept, at, n), O.sum(O.mul(kept, kept) as Tensor)]
  }
  const rounds = accumulate({ count, per, capacity: n }, (round) =>
    piece(O.add(O.mul(round, per), O.iota(per)) as Tensor),
  )
  const whole = piece(O.iota(n))
  return rounds.map((y, k) => either(y, whole[k]))
}

const close = (a: Data, b: Data, room: number, what: string): void =>
  a.forEach((v, i) => {
    assert.ok(Math.abs(v - b[i]) <= room * (1 + Math.abs(b[i])), `${what}, element ${i}: ${v} and ${b[i]}`)
  })

test('a sum over rounds, its gradient and the gradient of its gradient: any count, any size of a round, any backend', async () => {
  const [n, d] = [7, 5]
  const data = [generic(n * d, 3), generic(d * d, 4)]
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: n }), fc.integer({ min: 1, max: n + 2 }), async (count, per) => {
      const [x, w, c] = [O.input('x', [n, d]), O.input('w', [d, d]), O.input('count', [])] as readonly Tensor[]
      const derived = (rounds: boolean) => {
        const [rows, energy] = suited(sums(n, per, c, x, w), rounds)
        const loss = O.add(O.sum(O.mul(rows, O.constant(generic(n * d, 5), [n, d])) as Tensor), energy) as Tensor
        const first = grad(loss, [x, w])
        return [rows, energy, ...first, ...grad(O.sum(O.mul(first[1], first[1]) as Tensor), [x])]
      }
      const outputs = derived(true)
      const args = [...data, Float64Array.of(count)]
      const whole = await runPlan(backends[0], plan(derived(false), [x, w, c], { rounds: false }), args)
      const written = await runPlan(backends[0], plan(outputs, [x, w, c], { rounds: false }), args)
      written.forEach((v, k) => close(v, whole[k], 1e-12, `written out, output ${k}`))
      for (const b of backends) {
        const got = await runPlan(b, plan(outputs, [x, w, c], { epilogue: b.epilogue }), args)
        got.forEach((v, k) => close(v, whole[k], b.dtype === 'f64' ? 1e-12 : 1e-5, `${b.description}, output ${k}`))
      }
    }),
    { numRuns: 12, seed: 11 },
  )
})

test('what a round does not depend on is computed once, and a sum that nothing reads not at all', () => {
  const x = O.input('x', [40, 40]) as Tensor
  const square = O.matmul(x, x)
  const [used] = accumulate({ count: 3, per: 1, capacity: 3 }, (r) => [
    O.mul(square, r) as Tensor,
    O.matmul(square, O.mul(x, r) as Tensor),
  ])
  const { instructions } = plan([used], [x])
  const kinds = flat(instructions).map((i) => i.kind)
  // One product before the rounds, none within.
  assert.is(kinds.filter((k) => k === 'matmul').length, 1)
  assert.ok(kinds.indexOf('matmul') < kinds.indexOf('repeat'))
  assert.is(kinds.filter((k) => k === 'repeat').length, 1)
})

test('rounds nest, and each has its own memory', async () => {
  const x = O.input('x', [6, 4]) as Tensor
  const [total] = accumulate({ count: 3, per: 1, capacity: 3 }, (i) =>
    accumulate({ count: 2, per: 1, capacity: 2 }, (j) => {
      const row = O.gather(x, O.reshape(O.add(O.mul(i, 2), j), [1]) as Tensor)
      return [O.mul(row, O.add(i, 1)) as Tensor]
    }),
  )
  const data = generic(24, 9)
  const want = Float64Array.from({ length: 4 }, (_, k) =>
    [0, 1, 2, 3, 4, 5].reduce((s, r) => s + data[4 * r + k] * (Math.floor(r / 2) + 1), 0),
  )
  const [g] = grad(O.sum(total), [x])
  for (const b of backends) {
    const [v, d] = await runPlan(b, plan([total, g], [x]), [data])
    close(v, want, 1e-6, b.description)
    close(
      d,
      Float64Array.from({ length: 24 }, (_, i) => Math.floor(i / 8) + 1),
      0,
      b.description,
    )
  }
})

test('rematerialize: same values and gradients, less memory', async () => {
  const depth = 12
  const x = O.input('x', [64, 64]) as Tensor
  const deep = (y: Tensor): Tensor => Array.from({ length: depth }).reduce<Tensor>((z) => O.tanh(O.matmul(z, x)), y)
  const kept = O.sum(O.tanh(deep(deep(x))))
  const [first] = rematerialize(([y]) => [deep(y)], [x])
  const [second] = rematerialize(([y]) => [deep(y)], [first])
  const again = O.sum(O.tanh(second))
  const plans = [kept, again].map((loss) => plan([loss, ...grad(loss, [x])], [x]))
  assert.ok(plans[1].arena < 0.7 * plans[0].arena, `${plans[1].arena} against ${plans[0].arena}`)
  const data = [generic(64 * 64, 2, 0.3)]
  for (const b of backends) {
    const [p, q] = [await runPlan(b, plans[0], data), await runPlan(b, plans[1], data)]
    p.forEach((v, k) => close(q[k], v, b.dtype === 'f64' ? 1e-12 : 1e-5, `${b.description}, output ${k}`))
  }
})

test('the number of threads does not change a bit', async () => {
  const [n, d] = [300, 96]
  const [x, w, c] = [O.input('x', [n, d]), O.input('w', [d, d]), O.input('count', [])] as readonly Tensor[]
  const [rows, energy] = sums(n, 64, c, x, w)
  const outputs = [rows, ...grad(O.add(O.sum(rows), energy) as Tensor, [x, w])]
  const made = plan(outputs, [x, w, c], { epilogue: true })
  for (const count of [0, 1, 64, 65, 300, Number.NaN]) {
    const args = [generic(n * d, 3), generic(d * d, 4, 0.2), Float64Array.of(count)]
    const [one, three] = [await runPlan(backends[1], made, args), await runPlan(backends[2], made, args)]
    one.forEach((v, k) =>
      assert.ok(
        v.every((e, i) => Object.is(e, three[k][i])),
        `count ${count}, output ${k}`,
      ),
    )
  }
})

test('nothing is left behind', () => {
  for (const b of backends) {
    assert.is(b.stats().live, 0)
    b.dispose()
  }
})

test.run()
