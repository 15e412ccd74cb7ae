import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Data } from '../../src/compile/backend.ts'
import { substitute } from '../../src/compile/tape.ts'
import { grad } from '../../src/compile/vjp.ts'
import { key } from '../../src/core/key.ts'
import { interval } from '../../src/core/op.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import { cut, latentLogits, linked } from '../../src/loss/latent.ts'
import { product } from '../../src/loss/loss.ts'
import { judged, robust, staps, taps, worstCase, worstLogits } from '../../src/loss/objective.ts'
import { bounded, wholeBall } from '../../src/loss/region.ts'
import { crossEntropy } from '../../src/nn/criterion.ts'
import { conv, dense, flatten, relu, residual, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { constant, input, reluOp, sum } from '../../src/ops/index.ts'
import { ibp } from '../../src/robust/bounds.ts'
import { modelOf, run } from './harness.ts'
import { attack, checkGradients, model, numbers, step, value, valuesAt } from './tiny.ts'

const near = (a: ArrayLike<number>, b: ArrayLike<number>, tolerance = 1e-12): void => {
  assert.is(a.length, b.length)
  for (let i = 0; i < a.length; i++)
    assert.ok(Math.abs(a[i] - b[i]) <= tolerance * (1 + Math.abs(b[i])), `${a[i]} and ${b[i]}`)
}

test('a linked point has the value of the point, and hands its gradient to the near faces', async () => {
  const z = constant([0, 0.25, 0.5, 0.875, 1, 3], [6])
  const [l, u] = [input('l', [6]), input('u', [6])]
  const box = new Map([
    [l, Float64Array.of(0, 0, 0, 0, 0, 3)],
    [u, Float64Array.of(1, 1, 1, 1, 1, 3)],
  ])
  const y = linked(z, interval(l, u), 0.5)
  const [values, dl, du] = await run([y, ...grad(sum(y), [l, u])], box)
  near(values, [0, 0.25, 0.5, 0.875, 1, 3])
  near(dl, [1, 0.5, 0, 0, 0, 0.5])
  near(du, [0, 0, 0, 0.75, 1, 0.5])
})

test('a cut lies where everything behind depends on it alone', async () => {
  const block = residual(sequential(conv(2, 3, 1, 1), relu, conv(2, 3, 1, 1)), conv(2, 1))
  const net = network('blocks', sequential(conv(2, 3), relu, block, relu, flatten, dense(4), relu, dense(3)), {
    input: [1, 5, 5],
    classes: 3,
  })
  const { logits, parameters } = modelOf(net)
  const shape = [2, 1, 5, 5]
  // Before the 2nd ReLU from the end: behind the sum of the block. Its inner ReLU cannot be had alone.
  const at = (layers: number) => cut(logits, shape, layers).latent
  assert.equal([at(0).op, at(0).shape], [reluOp, [2, 4]])
  assert.equal([at(1).op, at(1).shape], [reluOp, [2, 2, 3, 3]])
  assert.equal([at(2).op.name, at(2).shape], ['add', [2, 2, 3, 3]])
  assert.equal([at(3).op, at(3).shape], [reluOp, [2, 2, 3, 3]])
  assert.not.equal(at(3), at(1))
  assert.is(at(9).op.name, 'input')
  // Head, then tail, is the network.
  const start = net.init(key(3))
  const x = Float64Array.from({ length: 50 }, (_, i) => Math.sin(i) ** 2)
  const given: readonly (readonly [Tensor, Data])[] = Object.entries(parameters).map(([k, p]) => [p, start[k]])
  for (let layers = 0; layers < 6; layers++) {
    const { input: from, latent, output } = cut(logits, shape, layers)
    const z: Tensor = input('z', latent.shape)
    const [whole, point] = await run([output, latent], new Map([...given, [from, x]]))
    const [behind] = substitute([output], new Map([[latent, z]]))
    near((await run([behind], new Map([...given, [z, point]])))[0], whole)
  }
})

test('TAPS with a linear tail is IBP: its worst-case logits, and so the square of its loss', async () => {
  const tail = { layers: 0, steps: 1, stepSize: 2 }
  const [estimate, propagated] = [
    await numbers(latentLogits(tail, wholeBall)(step)(model)),
    await numbers(worstLogits(bounded(ibp))(step)(model)),
  ]
  near(estimate, propagated, 1e-12)
  near([await value(taps(tail))], [(await value(robust(ibp, worstCase(crossEntropy)))) ** 2])
})

test('TAPS estimates from below, is the loss of a point at epsilon 0, and STAPS with the whole box is TAPS', async () => {
  const upper = await numbers(worstLogits(bounded(ibp))(step)(model))
  for (const layers of [0, 1, 2])
    for (const estimate of ['margins', 'loss'] as const) {
      const latent = { layers, steps: 4, stepSize: 0.5, estimate }
      const logits = latentLogits(latent, wholeBall)
      const z = await numbers(logits(step)(model))
      const m =
        estimate === 'margins' ? z : z.map((v, i) => v - z[3 * Math.floor(i / 3) + [2, 0, 1][Math.floor(i / 3)]])
      m.forEach((v, i) => {
        assert.ok(v <= upper[i] + 1e-12, `${v} above ${upper[i]}`)
      })
      near(
        [await value(judged(crossEntropy)(logits), valuesAt(0))],
        [
          await value(
            judged(crossEntropy)((s) => (n) => n.logits(s.inputs)),
            valuesAt(0),
          ),
        ],
        1e-9,
      )
    }
  near([await value(staps({ lambda: 1, attack }))], [await value(taps())])
})

test('gradients of the product reach both parts: at the corners of the latent box they are derivatives', async () => {
  for (const layers of [0, 1, 2]) await checkGradients(taps({ layers, steps: 4, stepSize: 2 }))
  await checkGradients(
    product(
      robust(ibp, worstCase(crossEntropy)),
      judged(crossEntropy)(latentLogits({ layers: 1, steps: 4, stepSize: 2, estimate: 'loss' }, wholeBall)),
    ),
  )
})

test.run()
