import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { stage } from '../../src/compile/tape.ts'
import { fold, key } from '../../src/core/key.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import {
  add,
  alternate,
  always,
  bernoulli,
  complement,
  type Gate,
  gate,
  getMonoid,
  type Logits,
  type Loss,
  mix,
  mixLogits,
  named,
  sampled,
  scale,
  scheduled,
  type Weight,
  zero,
} from '../../src/loss/loss.ts'
import { constant, type Host, type InputAttrs, mean, mul, sum } from '../../src/ops/index.ts'
import { bindings, fedLeaves, host, printed, run, stepOf } from './harness.ts'

const N = 4
const D = 2
const SEED = 20181102
const step = stepOf(N, [D], 2)
const none = { logits: <T>(x: T) => x, parameters: {} }
const at = (inputs: ArrayLike<number>) =>
  bindings(step, { inputs: Float64Array.from(inputs), labels: new Float64Array(N), epsilon: 0 })

const check = <A>(arbitrary: fc.Arbitrary<A>, body: (a: A) => Promise<void>, runs = 40): Promise<void> =>
  fc.assert(fc.asyncProperty(arbitrary, body), { seed: SEED, numRuns: runs })

// Dyadic numbers: every value below is exact in f64, so laws hold with equality.
const dyadic = fc.integer({ min: -16, max: 16 }).map((i) => i / 8)
const share = fc.integer({ min: 0, max: 8 }).map((i) => i / 8)
const inputs = fc.array(dyadic, { minLength: N * D, maxLength: N * D })

/** A mean over the images of the step of a linear function of each. */
const leaf =
  (c: readonly number[]): Loss =>
  ({ inputs }) =>
  () =>
    mean(sum(mul(inputs, constant(c, [D])) as Tensor, 1))
const leaves = fc.array(dyadic, { minLength: D, maxLength: D }).map(leaf)
const weights = (numbers: fc.Arbitrary<number>): fc.Arbitrary<Weight> =>
  fc.oneof(
    numbers,
    numbers.map((v) => () => v),
  )

/** Losses of every combinator. */
const losses: fc.Arbitrary<Loss> = fc.letrec<{ readonly loss: Loss }>((tie) => ({
  loss: fc.oneof(
    { maxDepth: 3 },
    leaves,
    fc.constant(zero),
    fc.tuple(tie('loss'), tie('loss')).map(([x, y]) => add(x, y)),
    fc.tuple(weights(dyadic), tie('loss')).map(([w, x]) => scale(w)(x)),
    fc.tuple(weights(share), tie('loss'), tie('loss')).map(([a, x, y]) => mix(a)(x, y)),
    fc.tuple(fc.boolean(), tie('loss')).map(([open, x]) => gate(() => open)(x)),
    tie('loss').map(named('term')),
  ),
})).loss

/** 0/0: whatever keeps it in the graph is NaN. */
const poisonous: Loss =
  ({ inputs }) =>
  () =>
    mul(mean(inputs), Number.NaN) as Tensor

const value = async (loss: Loss, x: ArrayLike<number>, h: Host = host()): Promise<number> =>
  (await run([loss(step)(none)], at(x), h))[0][0]
const text = (loss: Loss, h?: Host): string => printed(loss, step, none, h)

const same = async (x: ArrayLike<number>, a: Loss, b: Loss): Promise<void> => {
  const [p, q] = [await value(a, x), await value(b, x)]
  assert.ok(p === q, `${p} and ${q}`)
}

test('add: associative and commutative in value, with a unit that adds no node', () =>
  check(fc.tuple(inputs, losses, losses, losses), async ([v, x, y, z]) => {
    const { concat, empty } = getMonoid()
    await same(v, concat(concat(x, y), z), concat(x, concat(y, z)))
    await same(v, add(x, y, z), add(z, x, y))
    assert.is(text(concat(empty, x)), text(x))
    assert.is(text(concat(x, empty)), text(x))
    assert.is(text(add(x)), text(x))
    assert.is(add(), zero)
  }))

test('scale: an action of the numbers, and a homomorphism of add', () =>
  check(fc.tuple(inputs, losses, losses, weights(dyadic), weights(dyadic)), async ([v, x, y, a, b]) => {
    const product: Weight = (h) => (typeof a === 'number' ? a : a(h)) * (typeof b === 'number' ? b : b(h))
    await same(v, scale(a)(scale(b)(x)), scale(product)(x))
    await same(v, scale(a)(add(x, y)), add(scale(a)(x), scale(a)(y)))
    assert.is(text(scale(1)(x)), text(x))
    if (typeof a === 'number') assert.is(text(scale(a)(zero)), text(zero))
  }))

test('scale(0) drops its loss from the graph, NaN and all, as a number and as a schedule', async () => {
  const x = leaf([1, 2])
  for (const nothing of [0, -0, () => 0] as readonly Weight[]) {
    assert.is(text(scale(nothing)(poisonous)), text(zero))
    assert.is(await value(add(x, scale(nothing)(poisonous)), [1, 2, 3, 4, 5, 6, 7, 8]), 14)
  }
  assert.is(text(scale(0)(x)), text(zero))
  assert.ok(!text(scale(() => 0)(x)).includes('inputs'))
})

test('mix: idempotent, mirrored by the complement, between its ends', () =>
  check(fc.tuple(inputs, losses, losses, weights(share)), async ([v, x, y, a]) => {
    await same(v, mix(a)(x, x), x)
    await same(v, mix(a)(x, y), mix(complement(a))(y, x))
    const [p, q, m] = [await value(x, v), await value(y, v), await value(mix(a)(x, y), v)]
    assert.ok(Math.min(p, q) <= m && m <= Math.max(p, q))
    const w = typeof a === 'number' ? a : a(host())
    assert.is(m, (1 - w) * p + w * q)
  }))

test('mix: the ends are projections, even where the dropped loss is NaN', () =>
  check(fc.tuple(inputs, losses), async ([v, x]) => {
    for (const [lower, upper] of [
      [0, 1],
      [() => 0, () => 1],
    ] as readonly (readonly [Weight, Weight])[]) {
      assert.is(text(mix(lower)(x, poisonous)), text(x))
      assert.is(text(mix(upper)(poisonous, x)), text(x))
      await same(v, mix(lower)(x, poisonous), x)
      await same(v, mix(upper)(poisonous, x), x)
    }
    assert.ok(Number.isNaN(await value(mix(0.5)(x, poisonous), v)))
  }))

test('mix is not associative', async () => {
  const [x, y, z] = [leaf([1, 0]), leaf([0, 1]), leaf([2, 0])]
  const v = [1, 0, 1, 0, 1, 0, 1, 0]
  assert.is.not(await value(mix(0.5)(mix(0.5)(x, y), z), v), await value(mix(0.5)(x, mix(0.5)(y, z)), v))
})

test('a schedule is read anew in every step, without another graph', async () => {
  const kappa = ({ progress }: Host) => 1 - progress
  const x = scheduled(kappa, (k) => mix(complement(k))(leaf([8, 0]), leaf([0, 8])))
  const graph = x(step)(none)
  const v = [1, 0, 1, 0, 1, 0, 1, 0]
  for (const progress of [0, 0.25, 0.5, 0.75])
    assert.is((await run([graph], at(v), host({ progress })))[0][0], 8 * (1 - progress))
  const { key: variant } = stage([graph])
  assert.is(variant(host({ progress: 0.25 })), variant(host({ progress: 0.5 })))
  assert.is.not(variant(host({ progress: 0.25 })), variant(host({ progress: 0 })))
})

// ---- gates -----------------------------------------------------------------------------------------------------------

const open = (g: Gate, seeds: number): number =>
  Array.from({ length: seeds }, (_, i) => Number(g(host({ key: fold(key(7), i) })))).reduce((a, b) => a + b)

test('bernoulli(p) opens in a share p of the steps, by the step key alone', () => {
  const n = 4000
  for (const p of [0.1, 0.5, 0.8]) {
    // 5 standard deviations
    assert.ok(Math.abs(open(bernoulli(p), n) / n - p) < 5 * Math.sqrt((p * (1 - p)) / n), `p = ${p}`)
    for (let i = 0; i < 20; i++) {
      const h = host({ key: fold(key(9), i) })
      assert.is(bernoulli(p)(h), bernoulli(p)(host({ ...h, count: 5, epoch: 3, balance: 1 })))
    }
  }
  assert.is(open(bernoulli(0), 200), 0)
  assert.is(open(bernoulli(1), 200), 200)
})

test('alternate(open, period): the last steps of every period', () => {
  const pattern = (g: Gate) => Array.from({ length: 10 }, (_, count) => Number(g(host({ count }))))
  assert.equal(pattern(alternate(3, 5)), [0, 0, 1, 1, 1, 0, 0, 1, 1, 1])
  assert.equal(pattern(alternate(1)), [0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
  assert.equal(pattern(alternate(0, 2)), Array(10).fill(0))
  assert.equal(pattern(alternate(2, 2)), Array(10).fill(1))
})

test('gate: open it is the loss, shut it is zero and costs nothing; always adds no node', async () => {
  const x = leaf([1, 2])
  const alternating = gate(alternate(1, 2))
  assert.is(text(gate(always)(x)), text(x))
  assert.is(gate(always)(x)(step)(none).op, x(step)(none).op)
  assert.is(text(alternating(x), host({ count: 1 })), text(x))
  assert.is(text(alternating(poisonous), host({ count: 0 })), text(zero))
  const graph = add(x, alternating(poisonous))(step)(none)
  assert.is((await run([graph], at([1, 2, 3, 4, 5, 6, 7, 8]), host({ count: 2 })))[0][0], 14)
  assert.ok(Number.isNaN((await run([graph], at([1, 2, 3, 4, 5, 6, 7, 8]), host({ count: 3 })))[0][0]))
  // Choices behind a shut gate are not drawn.
  const nested = gate(alternate(1, 2))(
    scale((h) => {
      if (h.count % 2 === 0) throw new Error('drawn behind a shut gate')
      return 2
    })(x),
  )
  assert.is(text(nested, host({ count: 0 })), text(zero))
  assert.is(await value(nested, [1, 2, 3, 4, 5, 6, 7, 8], host({ count: 1 })), 28)
})

// ---- sampling --------------------------------------------------------------------------------------------------------

/** A mean over images of the inputs times a weight that depends on the label. */
const labelled: Loss =
  ({ inputs, labels }) =>
  () =>
    mean(mul(sum(inputs, 1), labels) as Tensor)

const drawOf = (x: Tensor): ((h: Host) => Float32Array) => {
  const [leaf] = fedLeaves([x])
  return (leaf.attrs as InputAttrs).feed as (h: Host) => Float32Array
}

const subsets = (n: number, k: number): readonly (readonly number[])[] =>
  k === 0 ? [[]] : n < k ? [] : [...subsets(n - 1, k), ...subsets(n - 1, k - 1).map((s) => [...s, n - 1])]

test('sampled(n) and more is the identity on a batch of n', () =>
  check(losses, async (x) => {
    assert.is(text(sampled(N)(x)), text(x))
    assert.is(text(sampled(N + 3)(x)), text(x))
  }))

test('the mean of sampled(k) over all subsets is the loss on the whole batch', () =>
  check(
    fc.tuple(inputs, fc.array(dyadic, { minLength: N, maxLength: N }), leaves),
    async ([v, y, x]) => {
      const values = new Map([...at(v), [step.labels, Float64Array.from(y)]])
      const loss = add(labelled, x)
      const [whole] = (await run([loss(step)(none)], values))[0]
      for (const k of [1, 2, 3]) {
        const graph = sampled(k)(loss)(step)(none)
        const [index] = fedLeaves([graph])
        const draws = subsets(N, k)
        let total = 0
        for (const s of draws) total += (await run([graph], new Map([...values, [index, Float64Array.from(s)]])))[0][0]
        assert.ok(Math.abs(total / draws.length - whole) < 1e-12 * (1 + Math.abs(whole)))
      }
    },
    10,
  ))

test('sampled draws k different images by the step key, all of them equally often', () => {
  const draw = drawOf(sampled(2)(leaf([1, 1]))(step)(none))
  const counts = new Array<number>(N).fill(0)
  const n = 3000
  for (let i = 0; i < n; i++) {
    const h = host({ key: fold(key(3), i) })
    const drawn = draw(h)
    assert.is(drawn.length, 2)
    assert.is.not(drawn[0], drawn[1])
    assert.equal(draw({ ...h, count: 8, balance: 0 }), drawn)
    for (const j of drawn) counts[j]++
  }
  for (const c of counts) assert.ok(Math.abs(c / n - 0.5) < 5 * Math.sqrt(0.25 / n), `${counts}`)
})

test('with replacement: k may exceed the batch, images repeat, each draw is uniform', async () => {
  const k = 6
  const x = sampled(k, 'with replacement')(leaf([1, 1]))(step)(none)
  const draw = drawOf(x)
  const counts = new Array<number>(N).fill(0)
  const n = 1500
  for (let i = 0; i < n; i++) {
    const drawn = draw(host({ key: fold(key(4), i) }))
    assert.is(drawn.length, k)
    for (const j of drawn) counts[j]++
  }
  for (const c of counts) assert.ok(Math.abs(c / (n * k) - 1 / N) < 5 * Math.sqrt(0.1875 / (n * k)), `${counts}`)
  const [index] = fedLeaves([x])
  const [got] = await run([x], new Map([...at([1, 0, 2, 0, 4, 0, 8, 0]), [index, Float64Array.of(3, 3, 3, 0, 0, 1)]]))
  assert.ok(Math.abs(got[0] - (3 * 8 + 2 + 2) / 6) < 1e-12)
  // sampled(1) of either kind has the whole batch as its mean.
  const one = sampled(1, 'with replacement')(leaf([1, 1]))(step)(none)
  let total = 0
  for (let i = 0; i < N; i++)
    total += (
      await run([one], new Map([...at([1, 0, 2, 0, 4, 0, 8, 0]), [fedLeaves([one])[0], Float64Array.of(i)]]))
    )[0][0]
  assert.is(total, 15)
})

// ---- logits ----------------------------------------------------------------------------------------------------------

test('mixLogits mixes elementwise, and its ends are projections', () =>
  check(fc.tuple(inputs, weights(share)), async ([v, a]) => {
    const x: Logits = (s) => () => s.inputs
    const y: Logits = (s) => () => mul(s.inputs, constant([2, -1], [D])) as Tensor
    const nan: Logits = (s) => () => mul(s.inputs, Number.NaN) as Tensor
    const w = typeof a === 'number' ? a : a(host())
    const [got] = await run([mixLogits(a)(x, y)(step)(none)], at(v))
    v.forEach((p, i) => {
      assert.ok(got[i] === (1 - w) * p + w * p * (i % 2 === 0 ? 2 : -1))
    })
    for (const [lower, upper] of [
      [0, 1],
      [() => 0, () => 1],
    ] as readonly (readonly [Weight, Weight])[]) {
      assert.ok([...(await run([mixLogits(lower)(x, nan)(step)(none)], at(v)))[0]].every((p, i) => p === v[i]))
      assert.ok([...(await run([mixLogits(upper)(nan, x)(step)(none)], at(v)))[0]].every((p, i) => p === v[i]))
    }
  }))

test('named reports a value and changes none', () =>
  check(fc.tuple(inputs, losses), async ([v, x]) => {
    await same(v, named('a')(x), x)
    assert.is(text(named('a')(zero)), text(zero))
  }))

test.run()
