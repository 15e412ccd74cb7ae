import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fold, key, uniform } from '../../src/core/key.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import { crossEntropy } from '../../src/loss/criterion.ts'
import { complement, type Loss, mix, mixLogits, scale, scheduled } from '../../src/loss/loss.ts'
import {
  attacked,
  bounded,
  judged,
  natural,
  objectives,
  robust,
  verifiable,
  worstCase,
  worstLogits,
} from '../../src/loss/objective.ts'
import { conv, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { constant } from '../../src/ops/index.ts'
import { pgd } from '../../src/robust/attack.ts'
import { type Bounder, blend, boundsOf, crown, crownIbp, ibp, intersect, symbolic } from '../../src/robust/bounds.ts'
import { ball } from '../../src/robust/perturbation.ts'
import { margins } from '../../src/robust/specification.ts'
import { bindings, gradientCheck, host, modelOf, run, stepOf } from './harness.ts'

const N = 3
const CLASSES = 3
const net = network('tiny', sequential(conv(2, 3, 2, 1), relu, flatten, dense(5), relu, dense(CLASSES)), {
  input: [1, 6, 6],
  classes: CLASSES,
})
// Generic numbers: on dyadic ones, coefficients of bounds cancel onto kinks.
const parameters = Object.fromEntries(
  Object.entries(net.init(key(5))).map(([k, v]) => [k, Float64Array.from(v, (x) => 2.3 * x)]),
)
const step = stepOf(N, net.input, CLASSES)
const model = modelOf(net)
const images = Float64Array.from(uniform(key(6), N * 36, 0.05, 0.95))
const values = bindings(step, { inputs: images, labels: [2, 0, 1], epsilon: 0.07 }, model, parameters)
const h = host({ balance: 0.4, key: fold(key(11), 3) })

const check = (loss: Loss): Promise<void> => gradientCheck(loss, step, model, values, h)

for (const [name, objective] of Object.entries(objectives))
  test(`objective ${name}: finite, gradients agree with central differences`, () => check(objective({ k: 2 })))

test('compositions of the field: gradients agree with central differences', async () => {
  const attack = pgd({ steps: 3, stepSize: 0.5, start: 'random' }, crossEntropy)
  // CC-IBP, MTL-IBP, IBP with its schedule, CROWN-IBP met with IBP.
  await check(judged(crossEntropy)(mixLogits(0.3)(attacked(attack), worstLogits(bounded(ibp)))))
  await check(mix(0.3)(judged(crossEntropy)(attacked(attack)), robust(ibp, worstCase(crossEntropy))))
  await check(
    scheduled(
      ({ balance }) => 1 - balance,
      (kappa) => mix(complement(kappa))(natural(crossEntropy), scale(2)(robust(ibp, worstCase(crossEntropy)))),
    ),
  )
  await check(verifiable(intersect(crown, ibp)))
})

// ---- bounds ----------------------------------------------------------------------------------------------------------

/** Lower and upper bounds of logits and of margins, one after the other. */
const boundsBy = async (
  method: Bounder,
): Promise<{ readonly lower: readonly number[]; readonly upper: readonly number[] }> => {
  const bounded = boundsOf(method)(model.logits, ball(step.inputs, step.epsilon))
  const parts = [bounded.output(), bounded.rows(margins(step.labels, CLASSES))]
  const results = await run(
    parts.flatMap((p) => [p.lower, p.upper]),
    values,
  )
  return { lower: [...results[0], ...results[2]], upper: [...results[1], ...results[3]] }
}

test('intersect with interval bounds is never wider than these, blend lies between its bounds', async () => {
  const methods = [ibp, crownIbp, crown, symbolic]
  for (const a of methods)
    for (const b of methods) {
      const [p, q, both, half] = [
        await boundsBy(a),
        await boundsBy(b),
        await boundsBy(intersect(a, b)),
        await boundsBy(blend(0.25)(a, b)),
      ]
      p.lower.forEach((_, i) => {
        for (const [m, r] of [[a, p] as const, [b, q] as const])
          if (m === ibp) assert.ok(both.lower[i] >= r.lower[i] - 1e-12 && both.upper[i] <= r.upper[i] + 1e-12)
        assert.ok(Math.abs(half.lower[i] - (0.75 * p.lower[i] + 0.25 * q.lower[i])) < 1e-12)
        assert.ok(Math.abs(half.upper[i] - (0.75 * p.upper[i] + 0.25 * q.upper[i])) < 1e-12)
        assert.ok(half.lower[i] <= Math.max(p.lower[i], q.lower[i]) + 1e-12)
        assert.ok(half.lower[i] >= Math.min(p.lower[i], q.lower[i]) - 1e-12)
      })
    }
})

test('blend takes a scalar node for beta', async () => {
  const [p, q] = [await boundsBy(ibp), await boundsBy(crown)]
  const byNode = await boundsBy(blend(constant([0.5], []))(ibp, crown))
  byNode.lower.forEach((l, i) => {
    assert.ok(Math.abs(l - (p.lower[i] + q.lower[i]) / 2) < 1e-12)
  })
})

/** A graph's value, one number per element. */
const numbers = async (x: Tensor): Promise<readonly number[]> => [...(await run([x], values))[0]]

test('worst-case logits are 0 at the label and bound the loss of every point of the box', async () => {
  for (const method of [ibp, crownIbp, symbolic, crown]) {
    const worst = await numbers(worstLogits(bounded(method))(step)(model))
    ;[2, 0, 1].forEach((y, i) => {
      assert.is(Math.abs(worst[i * CLASSES + y]), 0)
    })
    const [bound] = await numbers(robust(method, worstCase(crossEntropy))(step)(model))
    const clean = natural(crossEntropy)(step)(model)
    const box = (s: number) =>
      images.map((v, i) => Math.min(1, Math.max(0, v + 0.07 * (Math.sin(i * 7.3 + s) > 0 ? 1 : -1))))
    for (let s = 0; s < 12; s++) {
      const [reached] = (await run([clean], new Map([...values, [step.inputs, box(s)]])))[0]
      assert.ok(reached <= bound, `${reached} > ${bound}`)
    }
  }
})

test.run()
