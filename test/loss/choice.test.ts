import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Data } from '../../src/compile/backend.ts'
import { fold, key } from '../../src/core/key.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import { controlled, hardest, importance, type Scores, scored, stratified } from '../../src/loss/choice.ts'
import { add, type Loss, type Model, picked, type Step, sampled, scale } from '../../src/loss/loss.ts'
import { forward, natural, robust, worstCase } from '../../src/loss/objective.ts'
import { meanInParts, meanOver } from '../../src/loss/parts.ts'
import { smoothed } from '../../src/loss/smoothing.ts'
import { crossEntropy } from '../../src/nn/criterion.ts'
import { dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { type Host, type InputAttrs, input, mul, sum } from '../../src/ops/index.ts'
import { ibp, symbolic } from '../../src/robust/bounds.ts'
import { bindings, fedLeaves, gradientCheck, host, modelOf, printed, run, stepOf } from './harness.ts'

const N = 4
const step = stepOf(N, [1], 3)
const none: Model = { logits: (x) => x, parameters: {} }

/** Means over images: of the input, and of the input times the label. */
const plain: Loss = (s) => () => meanOver(s, sum(s.inputs, 1))
const labelled: Loss = (s) => () => meanOver(s, mul(sum(s.inputs, 1), s.labels) as Tensor)
const values: Scores = (s) => () => sum(s.inputs, 1)

const dyadic = fc.array(
  fc.integer({ min: -16, max: 16 }).map((i) => i / 8),
  { minLength: N, maxLength: N },
)
const classes = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: N, maxLength: N })
const check = <A>(arbitrary: fc.Arbitrary<A>, body: (a: A) => Promise<void>, runs = 25): Promise<void> =>
  fc.assert(fc.asyncProperty(arbitrary, body), { seed: 20181102, numRuns: runs })
const at = (x: readonly number[], y: readonly number[] = [0, 1, 2, 0]) =>
  bindings(step, { inputs: Float64Array.from(x), labels: y, epsilon: 0 })
const value = async (loss: Loss, given: ReadonlyMap<Tensor, Data>, h?: Host) =>
  (await run([loss(step)(none)], given, h))[0][0]
const named = (graph: Tensor, name: string): Tensor =>
  fedLeaves([graph]).find((x) => (x.attrs as InputAttrs).name === name) as Tensor

test('hardest(k) is the loss on the k images of the largest scores; from n on it is the loss', () =>
  check(fc.tuple(dyadic, classes), async ([x, y]) => {
    for (const loss of [plain, labelled]) {
      const ranked = x.map((v, i) => [v, i] as const).sort(([a, i], [b, j]) => b - a || i - j)
      for (const k of [1, 2, 3]) {
        const chosen = ranked.slice(0, k).map(([, i]) => (loss === plain ? x[i] : x[i] * y[i]))
        const want = chosen.reduce((a, b) => a + b) / k
        const got = await value(hardest(k, values)(loss), at(x, y))
        assert.ok(Math.abs(got - want) < 1e-12, `${got}, wanted ${want}`)
      }
      for (const k of [N, N + 2]) assert.is(printed(hardest(k, values)(loss), step, none), printed(loss, step, none))
    }
    assert.ok((await value(hardest(2, values)(plain), at(x))) >= (await value(plain, at(x))) - 1e-12)
  }))

test('hardest: an image whose score is NaN is among the hardest, and no image is taken twice', async () => {
  const scores: Scores = (s) => () => s.labels
  const got = await value(hardest(2, scores)(plain), at([1, 2, 4, 8], [Number.NaN, 5, 7, Number.NaN]))
  assert.is(got, 4.5)
})

test('the mean of stratified(k) over all its places is the loss on the whole batch, and classes keep their shares', () =>
  check(
    fc.tuple(dyadic, classes, fc.integer({ min: 0, max: 999 })),
    async ([x, y, seed]) => {
      const h = host({ key: key(seed) })
      for (const k of [1, 2, 3]) {
        const loss = add(plain, labelled)
        const graph = stratified(k)(loss)(step)(none)
        const places = named(graph, 'stratified')
        let total = 0
        for (let r = 0; r < N; r++) {
          const chosen = Float64Array.from({ length: k }, (_, j) => Math.floor((j * N + r) / k))
          total += (await run([graph], new Map([...at(x, y), [places, chosen]]), h))[0][0]
        }
        assert.ok(Math.abs(total / N - (await value(loss, at(x, y)))) < 1e-12)
      }
      // Two of each of two classes: a draw of two always has one of each.
      const one: Loss = (s) => () => sum(s.labels)
      assert.is(await value(stratified(2)(one), at(x, [1, 0, 1, 0]), h), 1)
    },
    15,
  ))

test('stratified draws its places by the step key, each equally often', () => {
  const graph = stratified(2)(plain)(step)(none)
  const draw = (named(graph, 'stratified').attrs as InputAttrs).feed as (h: Host) => Float32Array
  const counts = new Array<number>(N).fill(0)
  const n = 2000
  for (let i = 0; i < n; i++) for (const p of draw(host({ key: fold(key(5), i) }))) counts[p]++
  for (const c of counts) assert.ok(Math.abs(c / n - 0.5) < 5 * Math.sqrt(0.25 / n), `${counts}`)
})

test('importance(k): the mean over all draws is the loss on the whole batch, whatever the scores are', () =>
  check(
    fc.tuple(dyadic, classes, fc.constantFrom([1, 1, 2, 4], [0, 0, 8, 0], [4, 2, 0, 2], [0, 0, 0, 0], [1, 5, 1, 1])),
    async ([x, y, s]) => {
      const own = input('own', [N])
      const given: Scores = () => () => own
      const loss = add(plain, labelled)
      for (const k of [1, 2]) {
        const graph = importance(k, given)(loss)(step)(none)
        const draws = named(graph, 'importance')
        // Probabilities are multiples of 1/16: so many equal parts of each stratum see each image as often as it is due.
        const parts = 16
        let total = 0
        for (let r = 0; r < parts; r++) {
          const u = Float64Array.from({ length: k }, (_, j) => (j + (r + 0.5) / parts) / k)
          total += (await run([graph], new Map([...at(x, y), [own, Float64Array.from(s)], [draws, u]])))[0][0]
        }
        const whole = await value(loss, at(x, y))
        assert.ok(Math.abs(total / parts - whole) < 1e-9 * (1 + Math.abs(whole)), `${total / parts}, ${whole}`)
      }
    },
  ))

test('importance by the loss itself has no variance as u goes to 0', async () => {
  const x = [1, 2, 4, 8]
  for (let seed = 0; seed < 6; seed++) {
    const got = await value(importance(1, values, { u: 1e-9 })(plain), at(x), host({ key: key(seed) }))
    assert.ok(Math.abs(got - 3.75) < 1e-6, `${got}`)
  }
})

test('controlled(k): the mean over all subsets is the dear loss, without variance where both agree', () =>
  check(
    fc.tuple(dyadic, classes, fc.constantFrom(0, 0.5, 1, 2)),
    async ([x, y, beta]) => {
      const graph = controlled(2, beta)(labelled, plain)(step)(none)
      const [index] = fedLeaves([graph])
      const subsets = [
        [0, 1],
        [0, 2],
        [0, 3],
        [1, 2],
        [1, 3],
        [2, 3],
      ]
      let total = 0
      for (const s of subsets)
        total += (await run([graph], new Map([...at(x, y), [index, Float64Array.from(s)]])))[0][0]
      assert.ok(Math.abs(total / 6 - (await value(labelled, at(x, y)))) < 1e-12)
      for (let seed = 0; seed < 3; seed++)
        assert.is(await value(controlled(2)(plain, plain), at(x), host({ key: key(seed) })), await value(plain, at(x)))
      assert.is(printed(controlled(2, 0)(labelled, plain), step, none), printed(sampled(2)(labelled), step, none))
    },
    10,
  ))

test('weights go into every mean over images, in one piece and in parts, and through further choices', () =>
  check(
    fc.tuple(dyadic, dyadic),
    async ([x, w]) => {
      const weights = input('weights', [N])
      const weighted: Step = { ...step, weights }
      const given = new Map([...at(x), [weights, Float64Array.from(w)]])
      const want = x.reduce((a, v, i) => a + v * w[i], 0) / N
      const each = (s: Step) => sum(s.inputs, 1) as Tensor
      for (const parts of [1, 2, 3, 4]) {
        const [got] = await run([meanInParts(each, { ...weighted, parts })], given)
        assert.ok(Math.abs(got[0] - want) < 1e-12)
      }
      const index = input('index', [2])
      const [got] = await run(
        [plain(picked(weighted, index))(none)],
        new Map([...given, [index, Float64Array.of(3, 1)]]),
      )
      assert.ok(Math.abs(got[0] - (x[3] * w[3] + x[1] * w[1]) / 2) < 1e-12)
    },
    10,
  ))

// ---- on a network ----------------------------------------------------------------------------------------------------

const net = network('tiny', sequential(flatten, dense(5), relu, dense(3)), { input: [4], classes: 3 })
const [batch, model] = [stepOf(N, net.input, 3), modelOf(net)]
const parameters = net.init(key(2))
const given = bindings(
  batch,
  { inputs: Float64Array.from({ length: 16 }, (_, i) => ((i * 7) % 16) / 16), labels: [0, 1, 2, 1], epsilon: 0.0625 },
  model,
  parameters,
)
const hard = robust(symbolic, worstCase(crossEntropy))
const easy = robust(ibp, worstCase(crossEntropy))

test('losses on chosen images have the gradients that differences say', async () => {
  const by = scored(crossEntropy)(forward)
  for (const loss of [hardest(2, by)(hard), stratified(2)(hard), controlled(2)(hard, easy), smoothed(0.05, 3)(hard)])
    await gradientCheck(loss, batch, model, given, host(), 1)
  // Scores and probabilities are constants to the gradient, so this one is compared with the loss under its weights.
  const graph = importance(2, by)(natural(crossEntropy))(batch)(model)
  const [v] = await run([graph], given)
  assert.ok(Number.isFinite(v[0]) && v[0] > 0)
})

// ---- smoothing -------------------------------------------------------------------------------------------------------

test('smoothed: at 0 the loss, linear losses exactly, squares by sigma^2 z^2; the noise is normal', async () => {
  const [a, b] = [input('a', [2]), input('b', [3])]
  const two: Model = { logits: (x) => x, parameters: { a, b } }
  const linear: Loss = () => (m) => sum(mul(m.parameters.a, 3)) as Tensor
  const square: Loss = () => (m) => sum(mul(m.parameters.b, m.parameters.b) as Tensor)
  const bound = new Map<Tensor, Data>([
    ...at([0, 0, 0, 0]),
    [a, Float64Array.of(0.5, -2)],
    [b, Float64Array.of(1, 0.25, -1)],
  ])
  const on = async (loss: Loss, noise?: Data) => {
    const graph = loss(step)(two)
    const fed = fedLeaves([graph]).map((x) => [x, noise?.subarray(0, x.shape[0]) as Data] as const)
    return (await run([graph], noise === undefined ? bound : new Map([...bound, ...fed])))[0][0]
  }
  assert.is(printed(smoothed(0)(square), step, two), printed(square, step, two))
  for (const samples of [2, 4]) assert.is(await on(smoothed(0.5, samples)(linear)), -4.5)
  const z = Float64Array.of(1, -0.5, 2)
  const extra = 0.25 * (1 + 0.25 + 4)
  assert.is(await on(smoothed(0.5, 2)(square), z), 2.0625 + extra)
  assert.is(
    (await on(
      smoothed(() => 0.5, 4)((s) => (m) => square(s)(m)),
      undefined,
    )) > 0,
    true,
  )
  assert.is(await on(smoothed(0.5, 1)(linear), z), -4.5 + 3 * 0.5 * 0.5)
  const [leaf] = fedLeaves([smoothed(1)(square)(step)(two)])
  const draw = (leaf.attrs as InputAttrs).feed as (h: Host) => Float32Array
  const drawn = Array.from({ length: 700 }, (_, i) => [...draw(host({ key: fold(key(8), i) }))]).flat()
  const [mean, variance] = [
    drawn.reduce((s, v) => s + v, 0) / drawn.length,
    drawn.reduce((s, v) => s + v * v, 0) / drawn.length,
  ]
  assert.ok(Math.abs(mean) < 5 / Math.sqrt(drawn.length) && Math.abs(variance - 1) < 5 * Math.sqrt(2 / drawn.length))
})

test('smoothed: scaling and adding losses commute with it', async () => {
  const values = async (loss: Loss) => (await run([loss(batch)(model)], given))[0][0]
  const both = await values(smoothed(0.1)(add(hard, scale(0.5)(easy))))
  const apart = await values(add(smoothed(0.1)(hard), scale(0.5)(smoothed(0.1)(easy))))
  assert.ok(Math.abs(both - apart) < 1e-12)
})

test.run()
