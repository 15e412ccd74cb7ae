import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { accumulate, rematerialize } from '../../src/compile/accumulate.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { flat } from '../../src/compile/instruction.ts'
import { type Plan, plan } from '../../src/compile/plan.ts'
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

const [N, D] = [7, 20]
const [x, v, w, count] = [[N, D], [D, D], [D, 3], []].map((s, k) => O.input(`${k}`, s)) as readonly Tensor[]
const data = [generic(N * D, 3), generic(D * D, 4), generic(D * 3, 5)]

/** Sums of two layers of the rows that rounds of `per` list, and of a product that two of them share. */
const sums = (per: number, rows: Tensor, keeps: boolean) =>
  accumulate({ count, per, capacity: N, keeps }, (round) => {
    const at = O.add(O.mul(round, per), O.iota(per)) as Tensor
    const valid = O.greater(count, at) as Tensor
    const first = O.matmul(O.gather(rows, O.select(valid, at, 0) as Tensor), v)
    const y = O.tanh(O.matmul(O.add(O.relu(first), 0.5) as Tensor, w))
    const listed = O.select(O.reshape(valid, [per, 1]), y, 0) as Tensor
    return [O.scatterAdd(listed, at, N), O.sum(O.mul(listed, listed) as Tensor)]
  })

const energy = (parts: readonly Tensor[]): Tensor =>
  parts.map((y) => O.sum(O.mul(y, y) as Tensor)).reduce((a, b) => O.add(a, b) as Tensor)

const forms: Readonly<Record<string, (per: number) => readonly Tensor[]>> = {
  'a sum and its gradient': (per) => {
    const parts = sums(per, x, true)
    return [...parts, ...grad(energy(parts), [x, v, w])]
  },
  'the gradient of its gradient': (per) => {
    const [first] = grad(energy(sums(per, x, true)), [x])
    return [first, ...grad(O.sum(O.mul(first, first) as Tensor), [v, w])]
  },
  'a sum within a sum': (per) => {
    const [outer] = rematerialize(([rows]) => [energy(sums(per, O.tanh(rows) as Tensor, true))], [x])
    return [outer, ...grad(outer, [x, v, w])]
  },
}

const products = ({ instructions }: Plan): number => flat(instructions).filter((i) => i.kind === 'matmul').length

test('what a sum keeps has the bits of what would be computed again: any count, any round, any backend, any threads', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...Object.keys(forms)),
      fc.nat(N),
      fc.integer({ min: 1, max: N + 1 }),
      async (name, listed, per) => {
        const outputs = forms[name](per)
        for (const b of backends) {
          const of = (keep: boolean) =>
            plan(outputs, [x, v, w, count], { keep, epilogue: b.epilogue, results: b.results })
          const [kept, again] = [of(true), of(false)]
          assert.ok(products(kept) < products(again), `${name}: ${products(kept)} products, ${products(again)} without`)
          assert.ok(kept.arena > again.arena)
          const args = [...data, Float64Array.of(listed)]
          const [have, want] = [await runPlan(b, kept, args), await runPlan(b, again, args)]
          have.forEach((y, k) =>
            assert.ok(
              y.every((e, i) => Object.is(e, want[k][i])),
              `${name} on ${b.description}, ${listed} items in rounds of ${per}, output ${k}`,
            ),
          )
        }
      },
    ),
    { numRuns: 14, seed: 5 },
  )
})

test('a sum keeps only where it was asked to, and no more than 128 MiB', () => {
  const gradient = (keeps: boolean, wide: number) => {
    const rows = O.input('rows', [2 ** 16, D])
    const wider = O.input('wider', [D, wide])
    const [y] = accumulate({ count: 2 ** 16, per: 64, capacity: 2 ** 16, keeps }, (round) => {
      const at = O.add(O.mul(round, 64), O.iota(64)) as Tensor
      return [O.sum(O.tanh(O.matmul(O.gather(rows, at), wider)) as Tensor)]
    })
    return (keep: boolean) => plan([y, ...grad(y, [wider])], [rows, wider], { keep })
  }
  const few = gradient(true, 8)
  assert.is(products(few(true)) + 1, products(few(false)))
  assert.is.not(few(true).arena, few(false).arena)
  for (const same of [gradient(false, 8), gradient(true, 1024)])
    assert.equal(same(true).instructions, same(false).instructions)
})

test('nothing is left behind', () => {
  for (const b of backends) {
    assert.is(b.stats().live, 0)
    b.dispose()
  }
})

test.run()
