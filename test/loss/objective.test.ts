import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { key } from '../../src/core/key.ts'
import { complement, type Loss, mix, mixLogits, scale, scheduled } from '../../src/loss/loss.ts'
import {
  attacked,
  ccIbp,
  choices,
  controlledMixTrain,
  distilled,
  featureDistilled,
  frozen,
  judged,
  mixTrain,
  natural,
  objectives,
  robust,
  staps,
  taps,
  verifiable,
  worstCase,
  worstLogits,
} from '../../src/loss/objective.ts'
import { bounded } from '../../src/loss/region.ts'
import { crossEntropy } from '../../src/nn/criterion.ts'
import { constant } from '../../src/ops/index.ts'
import { pgd } from '../../src/robust/attack.ts'
import { type Bounder, blend, boundsOf, crown, crownIbp, ibp, intersect, symbolic } from '../../src/robust/bounds.ts'
import { ball } from '../../src/robust/perturbation.ts'
import { margins } from '../../src/robust/specification.ts'
import { run } from './harness.ts'
import {
  CLASSES,
  checkGradients,
  images,
  LABELS,
  model,
  N,
  net,
  numbers,
  parameters,
  step,
  value,
  values,
  valuesAt,
} from './tiny.ts'

/** Their gradients go to the faces of a box near a point, by definition; at a corner that is the derivative. */
const LINKED: Readonly<Record<string, Loss>> = {
  taps: taps({ steps: 3, stepSize: 2 }),
  staps: staps({ steps: 3, stepSize: 2 }),
}

const teacher = frozen(net, net.init(key(77)))

for (const [name, objective] of Object.entries(objectives))
  test(`objective ${name}: finite, gradients agree with central differences`, () =>
    checkGradients(LINKED[name] ?? objective({ k: 2, teacher })))

test('distillation: at 1 interval propagation, at 0 the divergence, which is 0 for a teacher like oneself on a point', async () => {
  const a = { attack: pgd({ steps: 2, stepSize: 1, start: 'input' }, crossEntropy) }
  const bound = robust(ibp, worstCase(crossEntropy))
  assert.is(await value(distilled(teacher, { a: 1, ...a })), await value(bound))
  assert.ok((await value(distilled(teacher, { a: 0, ...a }))) > 0)
  const own = frozen(net, parameters)
  assert.ok(Math.abs(await value(distilled(own, { a: 0, ...a }), valuesAt(0))) < 1e-12)
  assert.ok((await value(distilled(own, { a: 0, ...a }))) > 0)
})

test('distillation of features: CC-IBP and a distance that is 0 for a teacher like oneself on a point', async () => {
  const attack = pgd({ steps: 2, stepSize: 1, start: 'input' }, crossEntropy)
  const of = (values: typeof parameters) => () =>
    net.apply(
      Object.fromEntries(Object.entries(net.parameters).map(([k, { shape }]) => [k, constant(values[k], shape)])),
    )
  const other = Object.fromEntries(Object.entries(parameters).map(([k, v]) => [k, v.map((x) => x + 0.25)]))
  const loss = (teacherParameters: typeof parameters, weight: number) =>
    featureDistilled(of(teacherParameters), { a: 0.3, attack, weight })
  const plain = await value(ccIbp({ a: 0.3, attack }))
  assert.ok(Math.abs((await value(loss(other, 0))) - plain) < 1e-12)
  assert.ok((await value(loss(other, 5))) > plain + 1e-3)
  const point = valuesAt(0)
  assert.ok(
    Math.abs((await value(loss(parameters, 5), point)) - (await value(ccIbp({ a: 0.3, attack }), point))) < 1e-12,
  )
  await checkGradients(loss(other, 5))
})

test('MixTrain on chosen images: on as many as there are it is the whole batch, however they are chosen', async () => {
  const whole = await value(verifiable(symbolic, 0.4))
  for (const choice of ['random', 'stratified', 'hardest'] as const)
    assert.ok(Math.abs((await value(mixTrain({ k: N, weight: 0.4, choice }))) - whole) < 1e-12, choice)
  assert.ok(Math.abs((await value(controlledMixTrain({ k: N, weight: 0.4 }))) - whole) < 1e-12)
  const on = async (choice: keyof typeof choices) => value(mixTrain({ k: 1, weight: 1, choice }))
  assert.ok((await on('hardest')) > whole - 1)
  assert.ok(Number.isFinite(await on('importance')))
  assert.equal(Object.keys(choices), ['random', 'stratified', 'hardest', 'importance'])
})

test('compositions of the field: gradients agree with central differences', async () => {
  const attack = pgd({ steps: 3, stepSize: 0.5, start: 'random' }, crossEntropy)
  // CC-IBP, MTL-IBP, IBP with its schedule, CROWN-IBP met with IBP.
  await checkGradients(judged(crossEntropy)(mixLogits(0.3)(attacked(attack), worstLogits(bounded(ibp)))))
  await checkGradients(mix(0.3)(judged(crossEntropy)(attacked(attack)), robust(ibp, worstCase(crossEntropy))))
  await checkGradients(
    scheduled(
      ({ balance }) => 1 - balance,
      (kappa) => mix(complement(kappa))(natural(crossEntropy), scale(2)(robust(ibp, worstCase(crossEntropy)))),
    ),
  )
  await checkGradients(verifiable(intersect(crown, ibp)))
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

test('worst-case logits are 0 at the label and bound the loss of every point of the box', async () => {
  for (const method of [ibp, crownIbp, symbolic, crown]) {
    const worst = await numbers(worstLogits(bounded(method))(step)(model))
    LABELS.forEach((y, i) => {
      assert.is(Math.abs(worst[i * CLASSES + y]), 0)
    })
    const [bound] = await numbers(robust(method, worstCase(crossEntropy))(step)(model))
    const clean = natural(crossEntropy)(step)(model)
    const moved = (s: number) =>
      images.map((v, i) => Math.min(1, Math.max(0, v + 0.07 * (Math.sin(i * 7.3 + s) > 0 ? 1 : -1))))
    for (let s = 0; s < 12; s++) {
      const [reached] = (await run([clean], new Map([...values, [step.inputs, moved(s)]])))[0]
      assert.ok(reached <= bound, `${reached} > ${bound}`)
    }
  }
})

test.run()
