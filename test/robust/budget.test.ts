import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { plan } from '../../src/compile/plan.ts'
import { programOf } from '../../src/compile/program.ts'
import { openRegion } from '../../src/compile/region.ts'
import { MixtrainException } from '../../src/core/error.ts'
import * as O from '../../src/ops/index.ts'
import { budgetOf, costOf, OutOfTime } from '../../src/robust/budget.ts'
import { right } from '../shared.ts'

const simd = right(await wasm({ threads: 1 })())

const raisedBy = async (f: () => unknown): Promise<unknown> => {
  try {
    await f()
  } catch (e) {
    return e
  }
  return undefined
}

const product = () => {
  const [a, b] = [O.input('a', [8, 16]), O.input('b', [16, 4])]
  return programOf({ a, b }, { c: O.matmul(a, b) })
}

test('the work of a plan counts multiply-adds', () => {
  const { inputs, outputs } = product()
  assert.is(costOf(plan([outputs.c], [inputs.a, inputs.b]).instructions).work, 8 * 16 * 4)
})

test('what would end too late is not begun', async () => {
  const { region, close } = openRegion(simd)
  const budget = budgetOf(region, 2 ** 20)
  budget.start(Number.POSITIVE_INFINITY)
  const made = await budget.plan('a product', 10, product)
  made.write({ a: new Float32Array(128).fill(1), b: new Float32Array(64).fill(2) })
  budget.start(0)
  assert.instance(await raisedBy(() => made.run()), OutOfTime)
  assert.ok(Array.from((await made.read()).c).every((v) => v !== 32))
  assert.instance(await raisedBy(() => budget.plan('another', 10, product)), OutOfTime)
  budget.start(Number.POSITIVE_INFINITY)
  await made.run()
  assert.ok(Array.from((await made.read()).c).every((v) => v === 32))
  close()
})

test('before what may take long the caller is asked, and may end it', async () => {
  const { region, close } = openRegion(simd)
  const budget = budgetOf(region, 2 ** 20)
  let asked = 0
  budget.start(Number.POSITIVE_INFINITY, () => {
    asked++
    if (asked > 1) throw new RangeError('stop')
  })
  await budget.plan('a product', 10, product)
  assert.instance(await raisedBy(() => budget.plan('a product', 10, product)), RangeError)
  assert.is(asked, 2)
  close()
})

test('a plan beyond the memory is refused by what it needs', async () => {
  const { region, close } = openRegion(simd)
  const budget = budgetOf(region, 100)
  budget.start(Number.POSITIVE_INFINITY)
  const large = () => {
    const x = O.input('x', [64])
    return programOf({ x }, { y: O.matmul(O.mul(O.reshape(x, [8, 8]), 2), O.exp(O.reshape(x, [8, 8]))) })
  }
  const e = await raisedBy(() => budget.plan('a product', 10, large))
  assert.instance(e, MixtrainException)
  assert.match((e as Error).message, /a product needs .* MB, but the memory budget/)
  close()
  assert.is(simd.stats().live, 0)
})

test.run()
