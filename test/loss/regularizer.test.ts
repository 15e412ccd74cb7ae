import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { order } from '../../src/compile/tape.ts'
import { interval } from '../../src/core/op.ts'
import { add, type Hidden, scale } from '../../src/loss/loss.ts'
import { natural } from '../../src/loss/objective.ts'
import { hidden, wholeBall } from '../../src/loss/region.ts'
import { l1, l2, reluBalance, reluStability, tightness } from '../../src/loss/regularizer.ts'
import { crossEntropy } from '../../src/nn/criterion.ts'
import { constant, reluOp } from '../../src/ops/index.ts'
import { ibp, symbolic } from '../../src/robust/bounds.ts'
import { run } from './harness.ts'
import { checkGradients, model, N, parameters, step, value, values } from './tiny.ts'

const near = (a: number, b: number): void => assert.ok(Math.abs(a - b) <= 1e-12 * (1 + Math.abs(b)), `${a} and ${b}`)
const known =
  (lower: readonly number[], upper: readonly number[]): Hidden =>
  () =>
  () => [interval(constant(lower, [1, lower.length]), constant(upper, [1, upper.length]))]

test('l1 and l2 are of the weights, not of the biases', async () => {
  const weights = Object.entries(parameters).flatMap(([k, v]) => (k.endsWith('weight') ? [...v] : []))
  near(
    await value(l1),
    weights.reduce((s, w) => s + Math.abs(w), 0),
  )
  near(await value(l2), weights.reduce((s, w) => s + w * w, 0) / 2)
  await checkGradients(add(natural(crossEntropy), scale(0.01)(l1), scale(0.1)(l2)))
})

test('hidden bounds: one box for each ReLU, those of the method', async () => {
  for (const method of [ibp, symbolic]) {
    const boxes = hidden(method)(step)(model)
    assert.equal(
      boxes.map((b) => b.shape),
      [
        [N, 2, 3, 3],
        [N, 5],
      ],
    )
    const preactivations = order([model.logits(step.inputs)])
      .filter((x) => x.op === reluOp)
      .map((x) => x.inputs[0])
    for (const [i, z] of preactivations.entries()) {
      const [l, v, u] = await run([boxes[i].lower, z, boxes[i].upper], values)
      assert.ok(v.every((x, j) => l[j] < x && x < u[j]))
    }
  }
})

test('ReLU stability: -tanh(1 + l u) of each neuron, summed, by the mean over images', async () => {
  const [lower, upper] = [
    [-1, 0.5, -3],
    [2, 1, -2],
  ]
  const expected = -lower.reduce((s, l, i) => s + Math.tanh(1 + l * upper[i]), 0) / N
  near(await value(reluStability(known(lower, upper))), expected)
  await checkGradients(add(natural(crossEntropy), scale(0.1)(reluStability(hidden(ibp)))))
})

test('tightness: 0 up to twice the width of the region, 1 - 2 r0 / r beyond, by the mean over layers', async () => {
  const of = (r: number) =>
    value(tightness(known([-r, -r], [r, r]), () => () => interval(constant([-1], [1]), constant([1], [1]))))
  near(await of(0.5), 0)
  near(await of(2), 0)
  near(await of(4), 0.5)
  near(await of(8), 0.75)
})

test('ReLU balance: 0 for layers as active as inactive, 1 where one side is missing', async () => {
  near(await value(reluBalance(known([0.5, -1.5], [1.5, -0.5]))), 0)
  near(await value(reluBalance(known([0.5, 1], [1.5, 2]))), 1)
  near(await value(reluBalance(known([-2, -1], [-1, -0.5]))), 1)
  // Centres 1 and -4: ratio 1/4 of the sums, and of the squared deviations 2.5^2 both: (1/2 + 0) / 2.
  near(await value(reluBalance(known([0.5, -5], [1.5, -3]))), 0.25)
  const boxes = hidden(ibp)
  await checkGradients(add(natural(crossEntropy), tightness(boxes, wholeBall), reluBalance(boxes)))
})

test.run()
