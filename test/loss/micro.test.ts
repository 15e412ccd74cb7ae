import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fold, key } from '../../src/core/key.ts'
import { type Loss, type Step, sampled } from '../../src/loss/loss.ts'
import { meanOver } from '../../src/loss/parts.ts'
import { host, run, stepOf } from './harness.ts'

const labelled: Loss = (step) => () => meanOver(step, step.labels)
const none = {
  logits: () => {
    throw new Error('unused')
  },
  parameters: {},
}

/** The digits of a number to base 4: which images were taken how often, where image i counts 4^i. */
const taken = (sum: number, n: number): readonly number[] =>
  Array.from({ length: n }, (_, i) => Math.floor(sum / 4 ** i) % 4)

for (const [M, n, k] of [
  [1, 6, 4],
  [2, 3, 3],
  [3, 2, 4],
  [4, 2, 2],
  [3, 2, 1],
  [5, 2, 10],
  [6, 1, 5],
] as const)
  test(`sampled(${k}) over ${M} micro-batches of ${n} is the mean over ${k} different images of the batch, all alike`, async () => {
    const step: Step = { ...stepOf(n, [1], 2), ...(M === 1 ? {} : { microBatches: M }) }
    const graph = sampled(k)(labelled)(step)(none as never)
    const STEPS = 240
    const counts = new Array<number>(M * n).fill(0)
    for (let count = 0; count < STEPS; count++) {
      let sum = 0
      for (let index = 0; index < M; index++) {
        const labels = Float64Array.from({ length: n }, (_, i) => 4 ** (index * n + i))
        const h = host({ count, key: fold(key(3), count), ...(M === 1 ? {} : { micro: { index, of: M } }) })
        const [value] = await run([graph], new Map([[step.labels, labels]]), h)
        sum += value[0]
      }
      const each = taken(Math.round((sum * k) / M), M * n)
      assert.is(
        each.reduce((a, b) => a + b, 0),
        k,
        `${each}`,
      )
      assert.ok(
        each.every((c) => c <= 1),
        `${each}`,
      )
      each.forEach((c, i) => {
        counts[i] += c
      })
    }
    // Each image is taken with probability k / (M n): 4.5 standard deviations.
    const p = k / (M * n)
    for (const c of counts) assert.ok(Math.abs(c - p * STEPS) <= 4.5 * Math.sqrt(STEPS * p * (1 - p)), `${counts}`)
  })

test.run()
