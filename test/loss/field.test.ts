import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { order, stage } from '../../src/compile/tape.ts'
import { fusedCrossEntropy } from '../../src/loss/fusion.ts'
import { add, bernoulli, geometric, type Logits, type Loss, product, type Schedule } from '../../src/loss/loss.ts'
import {
  adversarial,
  attacked,
  ccIbp,
  crownIbp,
  expIbp,
  fastIbp,
  forward,
  hydra,
  judged,
  madry,
  mart,
  mixTrain,
  mtlIbp,
  natural,
  objectives,
  robust,
  sabr,
  staps,
  taps,
  trades,
  verifiable,
  wongKolter,
  worstCase,
  worstLogits,
} from '../../src/loss/objective.ts'
import { bounded, hidden, perturbed, smallBox, wholeBall } from '../../src/loss/region.ts'
import { reluBalance, tightness } from '../../src/loss/regularizer.ts'
import { hydraWeight } from '../../src/loss/schedule.ts'
import { boostedCrossEntropy, crossEntropy, divergence } from '../../src/nn/criterion.ts'
import { constant, type InputAttrs, probeOp } from '../../src/ops/index.ts'
import * as B from '../../src/robust/bounds.ts'
import { dual } from '../../src/robust/wong-kolter.ts'
import { fedLeaves, host, printed, run } from './harness.ts'
import { attack, CLASSES, checkGradients, h, images, model, N, numbers, step, value, values, valuesAt } from './tiny.ts'

const near = (a: number, b: number, tolerance = 1e-12): void =>
  assert.ok(Math.abs(a - b) <= tolerance * (1 + Math.abs(b)), `${a} and ${b}`)
const same = async (a: Loss, b: Loss, given = values): Promise<void> =>
  near(await value(a, given), await value(b, given))
const text = (loss: Loss): string => printed(loss, step, model, h)

const ibpLoss = robust(B.ibp, worstCase(crossEntropy))
const underAttack = adversarial(3, attack)

test('MTL-, CC- and EXP-IBP: adversarial training at a = 0, IBP at a = 1, as numbers and as schedules', async () => {
  for (const loss of [mtlIbp, ccIbp, expIbp])
    for (const [a, end] of [
      [0, underAttack],
      [1, ibpLoss],
    ] as const) {
      await same(loss({ a, attack }), end)
      await same(loss({ a: () => a, attack }), end)
      // What is dropped is not computed.
      assert.is(text(loss({ a: () => a, attack })).length, text(loss({ a, attack })).length)
    }
})

test('EXP-IBP is a geometric mean, MTL-IBP an arithmetic one, and CC-IBP at most MTL-IBP', async () => {
  const [x, y] = [await value(underAttack), await value(ibpLoss)]
  for (const a of [0.1, 0.5, 0.8]) {
    near(await value(mtlIbp({ a, attack })), (1 - a) * x + a * y)
    near(await value(expIbp({ a, attack })), x ** (1 - a) * y ** a)
    near(await value(expIbp({ a: () => a, attack })), x ** (1 - a) * y ** a, 1e-6)
    // Cross-entropy is convex in the logits.
    assert.ok((await value(ccIbp({ a, attack }))) <= (await value(mtlIbp({ a, attack }))) + 1e-12)
  }
})

test('geometric: idempotent, mirrored by the complement; product is a product', () =>
  fc.assert(
    fc.asyncProperty(
      fc.double({ min: 0.01, max: 9, noNaN: true }),
      fc.double({ min: 0.01, max: 9, noNaN: true }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      async (p, q, a) => {
        const [x, y] = [p, q].map(
          (v): Loss =>
            () =>
            () =>
              constant([v], []),
        )
        near(await value(geometric(a)(x, x)), p)
        near(await value(geometric(a)(x, y)), await value(geometric(1 - a)(y, x)))
        near(await value(product(x, y)), p * q)
      },
    ),
    { seed: 2305, numRuns: 40 },
  ))

test('SABR: IBP at lambda = 1, the attack at lambda = 0, and never more than IBP on the whole ball', async () => {
  await same(sabr({ lambda: 1, attack }), ibpLoss)
  await same(sabr({ lambda: 0, attack }), underAttack)
  const whole = await value(ibpLoss)
  for (const lambda of [0.1, 0.4, 0.9]) assert.ok((await value(sabr({ lambda, attack }))) < whole)
})

test('the small box lies inside the ball and has its radius', async () => {
  const inputs = perturbed(attack)
  const ball = wholeBall(step)(model)
  for (const lambda of [0, 0.3, 0.7, 1]) {
    const box = smallBox(lambda, inputs)(step)(model)
    const [l, u, low, high] = await run([box.lower, box.upper, ball.lower, ball.upper], values, h)
    l.forEach((_, i) => {
      assert.ok(low[i] - 1e-12 <= l[i] && l[i] <= u[i] && u[i] <= high[i] + 1e-12)
      assert.ok(u[i] - l[i] <= 2 * lambda * 0.07 + 1e-12)
    })
  }
})

test('CROWN-IBP: IBP at beta = 0, the walk at beta = 1, between them inside; fused or not', async () => {
  const walk = verifiable(B.crownIbp)
  assert.is(text(crownIbp({ beta: 0 })), text(verifiable(B.ibp)))
  assert.is(text(crownIbp({ beta: 0, fused: true })), text(verifiable(B.ibp)))
  assert.is(text(crownIbp({ beta: 1 })), text(walk))
  await same(crownIbp({ beta: () => 0.25 }), verifiable(B.blend(0.25)(B.ibp, B.crownIbp)))
})

test('loss fusion bounds the loss of every point of the box, and is the loss on a point', async () => {
  near(await value(fusedCrossEntropy(), valuesAt(0)), await value(natural(crossEntropy), valuesAt(0)), 1e-9)
  const bound = await value(fusedCrossEntropy())
  assert.ok(bound >= (await value(underAttack)) - 1e-12)
  const plain = natural(crossEntropy)(step)(model)
  for (let s = 0; s < 10; s++) {
    const moved = images.map((v, i) => Math.min(1, Math.max(0, v + 0.07 * (Math.sin(i * 5.1 + s) > 0 ? 1 : -1))))
    const [reached] = await numbers(plain, new Map([...values, [step.inputs, moved]]))
    assert.ok(reached <= bound + 1e-12)
  }
  await checkGradients(fusedCrossEntropy())
})

test('TRADES: natural at beta = 0 and at epsilon = 0; its attack raises the divergence', async () => {
  assert.is(text(trades({ beta: 0 })), text(natural(crossEntropy)))
  await same(trades({ steps: 2 }), natural(crossEntropy), valuesAt(0))
  const clean = await value(natural(crossEntropy))
  const after = (steps: number) => value(trades({ beta: 1, steps })).then((v) => v - clean)
  assert.ok((await after(10)) > 0)
  assert.ok((await after(10)) >= 0.999 * (await after(1)))
})

test('MART: boosted cross-entropy under attack at lambda = 0, and on clean images at epsilon = 0', async () => {
  const boosted = (logits: Logits) => judged(boostedCrossEntropy)(logits)
  await same(mart({ lambda: 0, steps: 10 }), boosted(attacked(madry(10))))
  await same(mart({ steps: 2 }), boosted(forward), valuesAt(0))
})
test('boosted cross-entropy and divergence are their formulas, and finite where probabilities are 0', async () => {
  const z = [1, 2, -1, 0.5, 0.25, 3, -2, 0, 0.125]
  const [logits, labels] = [constant(z, [N, CLASSES]), constant([0, 2, 1], [N])]
  const soft = (row: readonly number[]) => {
    const e = row.map(Math.exp)
    return e.map((v) => v / e.reduce((a, b) => a + b))
  }
  const rows = [0, 1, 2].map((i) => z.slice(3 * i, 3 * i + 3))
  const boosted = await numbers(boostedCrossEntropy(logits, labels))
  rows.forEach((row, i) => {
    const p = soft(row)
    const y = [0, 2, 1][i]
    near(boosted[i], -Math.log(p[y]) - Math.log(1 - Math.max(...p.filter((_, j) => j !== y))))
  })
  const q = constant([0, 0, 0, 1, 1, 2, 3, 2, 1], [N, CLASSES])
  const kl = await numbers(divergence(logits, q))
  rows.forEach((row, i) => {
    const [p, r] = [
      soft(row),
      soft(
        [
          [0, 0, 0],
          [1, 1, 2],
          [3, 2, 1],
        ][i],
      ),
    ]
    near(
      kl[i],
      p.reduce((s, v, j) => s + v * Math.log(v / r[j]), 0),
    )
  })
  assert.ok((await numbers(divergence(logits, logits))).every((v) => v === 0))
  const sure = constant([0, 800, -800, 800, 0, 0, 0, 0, 800], [N, CLASSES])
  assert.ok((await numbers(boostedCrossEntropy(sure, labels))).every(Number.isFinite))
})

test('terms that share an attack share its graph', () => {
  for (const name of ['mart', 'staps', 'sabr', 'cc-ibp'] as const) {
    const draws = fedLeaves(stage([objectives[name]({ k: 2 })(step)(model)]).resolve(h)).filter(
      (x) => (x.attrs as InputAttrs).name === 'pgd',
    )
    assert.is(draws.length, 1, name)
  }
})

test('MixTrain with k = n is verifiable training, at balance 1 Wong-Kolter, and with its gate shut the natural part', async () => {
  const all = mixTrain({ k: N })
  assert.is(text(all), text(verifiable(B.symbolic)))
  await same(mixTrain({ k: N, weight: 1 }), wongKolter())
  const shut = mixTrain({ k: 2, weight: 0.3, gate: () => false })
  near(await value(shut), 0.7 * (await value(natural(crossEntropy))))
  assert.ok(!text(shut).includes('epsilon'), 'no bound is computed behind a shut gate')
})

test('HYDRA: natural at weight 0, else in a share 0.8 of the steps w mean CE(m) on top, over k images drawn with replacement', async () => {
  assert.is(text(hydra({ k: 2, weight: 0 })), text(natural(crossEntropy)))
  const clean = await value(natural(crossEntropy))
  const each = await numbers(crossEntropy(worstLogits(bounded(B.symbolic))(step)(model), step.labels))
  const loss = hydra({ k: 2 })
  const seen = new Set<boolean>()
  for (let i = 0; i < 30; i++) {
    // Half of the training: three twelfths after the ramp.
    const at = { ...h, key: [i, 7] as const, progress: 0.5 }
    const [drawn] = fedLeaves(stage([loss(step)(model)]).resolve(at)).filter((x) => x.shape[0] === 2)
    const open = drawn !== undefined
    assert.is(open, bernoulli(0.8)(at))
    const indices = [...((drawn?.attrs as InputAttrs | undefined)?.feed?.(at) ?? [])]
    const mean = indices.reduce((s, j) => s + each[j], 0) / 2
    near(await value(loss, values, at), clean + 0.1 * 2.5 ** 3 * mean)
    seen.add(open)
  }
  assert.equal(seen, new Set([true, false]))
})

/** Values of the named terms of a loss. */
const terms = async (loss: Loss): Promise<Readonly<Record<string, number>>> => {
  const probes = order(stage([loss(step)(model)]).resolve(h)).filter((x) => x.op === probeOp)
  const found = await run(probes, values, h)
  return Object.fromEntries(probes.map((x, i) => [(x.attrs as { readonly name: string }).name, found[i][0]]))
}

test('logs: MART as a whole, TRADES its divergence without beta, MixTrain and HYDRA their bound without a weight', async () => {
  const marted = await terms(mart({ lambda: 3, steps: 2 }))
  assert.equal(Object.keys(marted), ['robust'])
  near(marted.robust, await value(mart({ lambda: 3, steps: 2 })))
  assert.ok(marted.robust > (await value(mart({ lambda: 0, steps: 2 }))))
  const clean = await value(natural(crossEntropy))
  const traded = await terms(trades({ beta: 5, steps: 2 }))
  near(traded.natural, clean)
  near(clean + 5 * traded.robust, await value(trades({ beta: 5, steps: 2 })))
  const open = mixTrain({ k: N, weight: 0.25 })
  const mixed = await terms(open)
  near(mixed.robust, await value(wongKolter()))
  near(0.75 * mixed.natural + 0.25 * mixed.robust, await value(open))
})

test('STAPS at lambda = 1 is TAPS', () => same(staps({ lambda: 1, steps: 2 }), taps({ steps: 2 })))

test('Fast-IBP: lambda times its regularisers on top of IBP, 1/2 at the start and 0 from half of the training on', async () => {
  const boxes = hidden(B.ibp)
  const extra = await value(add(tightness(boxes, wholeBall), reluBalance(boxes)))
  assert.ok(extra > 0)
  for (const [progress, lambda] of [
    [0, 0.5],
    [0.25, 0.25],
    [0.5, 0],
    [1, 0],
  ]) {
    const at = { ...h, progress }
    near(await value(fastIbp(), values, at), (await value(verifiable(B.ibp), values, at)) + lambda * extra)
  }
  await same(objectives['fast-ibp']({ k: 2 }), fastIbp())
})

test('Wong-Kolter by its dual is Wong-Kolter by symbolic intervals; an estimate by projections is near, with gradients', async () => {
  await same(wongKolter(dual()), wongKolter())
  await checkGradients(wongKolter(dual()))
  const [exact, estimate] = [
    await value(wongKolter()),
    await value(wongKolter(dual({ projections: 2000, key: [3, 4] }))),
  ]
  near(estimate, exact, 0.1)
})

test('the weight of HYDRA: 0.1 for a quarter, then 2.5 times as much every twelfth, at most 50', () => {
  const weight: Schedule = hydraWeight()
  for (let e = 0; e < 60; e++) {
    let expected = 0.1
    for (let i = 0; i < Math.floor(Math.max(e - 15, 0) / 5); i++) expected *= 2.5
    near(weight(host({ progress: e / 60 })), Math.min(50, expected))
  }
  assert.is(weight(host({ progress: 0.999 })), 50)
})

test("objectives that warm up: clean alone at ramp 0, the paper's end at ramp 1", async () => {
  const at = (ramp: number) => ({ k: 2, ramp: () => ramp })
  const plain = text(natural(crossEntropy))
  assert.is(text(objectives.ibp(at(0))), plain)
  assert.is(text(objectives['crown-ibp'](at(0))), plain)
  await same(objectives.ibp(at(1)), verifiable(B.ibp))
  await same(objectives['crown-ibp'](at(1)), verifiable(B.ibp))
  await same(objectives['crown-ibp-fused'](at(1)), verifiable(B.ibp))
  await same(objectives['fast-ibp'](at(1)), verifiable(B.ibp))
  await same(fastIbp({ warmUp: 0 }), verifiable(B.ibp))
})

test.run()
