import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { key, uniform } from '../../src/core/key.ts'
import { correct, crossEntropy, marginLoss } from '../../src/nn/criterion.ts'
import { constant, input } from '../../src/ops/index.ts'
import { run } from '../loss/harness.ts'

const [N, K] = [6, 4]
const logits = [...uniform(key(1), N * K, -3, 3)]
const labels = [0, 1, 2, 3, 0, 2]
const rows = Array.from({ length: N }, (_, i) => logits.slice(i * K, (i + 1) * K))
const z = input('z', [N, K])
const y = constant(labels, [N])
const on = async (x: ReturnType<typeof crossEntropy>, values: readonly number[] = logits) => [
  ...(await run([x], new Map([[z, Float64Array.from(values)]])))[0],
]

test('crossEntropy, marginLoss and correct agree with their formulas', async () => {
  const ce = await on(crossEntropy(z, y))
  const cw = await on(marginLoss()(z, y))
  const confident = await on(marginLoss(0.5)(z, y))
  const right = await on(correct(z, y))
  rows.forEach((row, i) => {
    const own = row[labels[i]]
    const rival = Math.max(...row.filter((_, j) => j !== labels[i]))
    assert.ok(Math.abs(ce[i] - (Math.log(row.reduce((s, v) => s + Math.exp(v), 0)) - own)) < 1e-12)
    assert.ok(Math.abs(cw[i] - Math.max(rival - own, 0)) < 1e-12)
    assert.ok(Math.abs(confident[i] - Math.max(rival - own, -0.5)) < 1e-12)
    assert.is(right[i], Number(own > rival))
  })
})

test('crossEntropy does not overflow', async () => {
  const ce = await on(
    crossEntropy(z, y),
    logits.map((v) => v * 1e4),
  )
  assert.ok(ce.every((v) => Number.isFinite(v) && v >= 0))
})

test('a tie is not correct, nor is anything with a NaN', async () => {
  const tied = [...logits]
  tied[0] = tied[1] = 9
  assert.is((await on(correct(z, y), tied))[0], 0)
  for (let j = 0; j < K; j++) {
    const broken = [...logits]
    broken[0] = 50
    broken[j] = Number.NaN
    assert.is.not((await on(correct(z, y), broken))[0], 1)
  }
})

test.run()
