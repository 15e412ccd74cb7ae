import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { openRegion } from '../../src/compile/region.ts'
import { evaluate } from '../../src/compile/run.ts'
import { key, uniform } from '../../src/core/key.ts'
import type { Apply, Norm, Operand, Tensor } from '../../src/core/tensor.ts'
import { crossEntropy, marginLoss } from '../../src/nn/criterion.ts'
import { conv, dense, flatten, type Named, relu, sequential } from '../../src/nn/layers.ts'
import { type Network, network } from '../../src/nn/networks.ts'
import { add, concat, constant, full, input, matmul, sum } from '../../src/ops/index.ts'
import { pgdFrom } from '../../src/robust/attack.ts'
import { intervalStep } from '../../src/robust/interval-attack.ts'
import { norms } from '../../src/robust/perturbation.ts'
import { type AttackOptions, type Outcome, search } from '../../src/robust/search.ts'
import { inside, witness } from '../../src/robust/witness.ts'
import { bindings, modelOf, run, stepOf } from '../loss/harness.ts'
import { right } from '../shared.ts'

const simd = right(await wasm({ threads: 1 })())
const N = 12
const net = network('tiny', sequential(conv(3, 3, 2, 1), relu, flatten, dense(8), relu, dense(4)), {
  input: [1, 5, 5],
  classes: 4,
})
const SIZE = 25
const parameters = Object.fromEntries(Object.entries(net.init(key(2))).map(([k, v]) => [k, v.map((x) => 3 * x)]))
const images = uniform(key(3), N * SIZE, -0.2, 1.2).map((v) => Math.min(1, Math.max(0, v)))

/** The classes that the network gives the images, so that an attack has something to break. */
const labels = await (async () => {
  const x = input('x', [N, 1, 5, 5])
  const bound = Object.fromEntries(
    Object.entries(net.parameters).map(([k, p]) => [k, constant(parameters[k], p.shape)]),
  )
  const [z] = await evaluate(reference())([net.apply(bound)(x)], new Map([[x, images]]))
  return Array.from({ length: N }, (_, i) => {
    const row = [...z.slice(4 * i, 4 * i + 4)]
    return row.indexOf(Math.max(...row))
  })
})()
const quarry = {
  indices: Array.from({ length: N }, (_, i) => i),
  pixels: (some: ArrayLike<number>) =>
    Float32Array.from(Array.from(some, (i) => [...images.subarray(i * SIZE, (i + 1) * SIZE)]).flat()),
  labels: (some: ArrayLike<number>) => Float32Array.from(some, (i) => labels[i]),
}

const attacked = async (
  attack: AttackOptions,
  {
    epsilon = 0.1,
    norm = 'linf' as Norm,
    batch = 5,
    of = net as Network,
    values = parameters as Named<Float32Array>,
    from = quarry,
  } = {},
): Promise<ReadonlyMap<number, Outcome>> => {
  const live = simd.stats().live
  const { region, close } = openRegion(simd)
  try {
    const buffers = Object.fromEntries(Object.entries(values).map(([k, v]) => [k, region.from(v)]))
    const { run: go } = await search(region)({ network: of, range: [0, 1], norm, attack, batch })
    return await go(buffers, from, epsilon)
  } finally {
    close()
    assert.is(simd.stats().live, live)
  }
}
const base: AttackOptions = { name: 'pgd', steps: 6, restarts: 2, stepSize: 0.4, seed: 1 }
const broken = (found: ReadonlyMap<number, Outcome>): readonly number[] =>
  [...found].flatMap(([i, { point }]) => (point === undefined ? [] : [i]))

// ---- balls in which an attack moves ----------------------------------------------------------------------------------

const [step, model] = [stepOf(N, net.input, 4), modelOf(net)]
const sizeOf = (d: readonly number[], norm: Norm): number =>
  norm === 'l2'
    ? Math.hypot(...d)
    : norm === 'l1'
      ? d.reduce((s, v) => s + Math.abs(v), 0)
      : Math.max(...d.map(Math.abs))

for (const norm of norms)
  test(`PGD in ${norm} stays in ball and range, uses the room it has, and raises its loss`, async () => {
    const target = { ...step, logits: model.logits, norm }
    for (const judge of [crossEntropy, marginLoss(50)]) {
      const start = constant(uniform(key(9), N * SIZE, -1, 1), step.inputs.shape)
      for (const from of [undefined, start])
        for (const epsilon of [0, 0.05, 0.6]) {
          const values = bindings(step, { inputs: images, labels, epsilon }, model, parameters)
          const attack = pgdFrom({ steps: 12, stepSize: 0.25 }, judge, from)(target)
          const loss = (x: Tensor) => sum(judge(model.logits(x), step.labels))
          const [moved, before, after] = await run([attack, loss(step.inputs), loss(attack)], values)
          for (let i = 0; i < N; i++) {
            const d = Array.from({ length: SIZE }, (_, j) => moved[i * SIZE + j] - images[i * SIZE + j])
            assert.ok(sizeOf(d, norm) <= epsilon * (1 + 1e-6) + 1e-12, `${norm} ${sizeOf(d, norm)} > ${epsilon}`)
          }
          assert.ok(moved.every((v) => v >= 0 && v <= 1))
          if (from === undefined) assert.ok(epsilon === 0 ? after[0] === before[0] : after[0] > before[0])
        }
    }
  })

const doubles = new DataView(new ArrayBuffer(8))
/** A finite double times 2^1074, exactly. */
const scaled = (x: number): bigint => {
  doubles.setFloat64(0, x)
  const bits = doubles.getBigUint64(0)
  const [biased, fraction] = [Number((bits >> 52n) & 0x7ffn), bits & 0xfffffffffffffn]
  const size = biased === 0 ? fraction : (fraction | (1n << 52n)) << BigInt(biased - 1)
  return x < 0 ? -size : size
}

test('a witness is inside: between the ends bit for bit, and in norm by exact arithmetic', () => {
  const unit = fc.double({ min: 0, max: 1, noNaN: true })
  fc.assert(
    fc.property(
      fc.array(fc.tuple(unit.map(Math.fround), fc.double({ min: -2, max: 3, noNaN: true })), {
        minLength: 1,
        maxLength: 6,
      }),
      fc.oneof(unit, fc.constantFrom(0, 0.1, 0.3, 1e-9)),
      fc.constantFrom(...norms),
      (pairs, epsilon, norm) => {
        const image = pairs.map(([x]) => x)
        const at = inside(
          { image, epsilon, range: [0, 1], norm },
          pairs.map(([x, y]) => (norm === 'linf' ? y : x + (y - x) * 0.7)),
        )
        if (at === undefined) return epsilon < 1e-30 && norm !== 'linf'
        const ends = image.every((x, i) => at[i] >= Math.max(x - epsilon, 0) && at[i] <= Math.min(x + epsilon, 1))
        const d = image.map((x, i) => scaled(at[i]) - scaled(x))
        const e = scaled(epsilon)
        const size = d.reduce((s, v) => s + (norm === 'l2' ? v * v : v < 0n ? -v : v), 0n)
        return ends && (norm === 'linf' || size <= (norm === 'l2' ? e * e : e))
      },
    ),
    { seed: 1, numRuns: 2000 },
  )
  assert.is(inside({ image: [0.5], epsilon: 0.1, range: [0, 1], norm: 'linf' }, [Number.NaN]), undefined)
})

// ---- what counts as a violation ----------------------------------------------------------------------------------------

test('every point found is in its ball and classified wrongly in doubles', async () => {
  for (const norm of norms)
    for (const name of ['pgd', 'interval'] as const) {
      const epsilon = norm === 'linf' ? 0.1 : norm === 'l2' ? 0.5 : 1.5
      const found = await attacked({ ...base, name }, { norm, epsilon })
      assert.ok(broken(found).length > 0 && broken(found).length < N, `${norm} ${name}: ${broken(found).length}`)
      const judge = await witness(net, parameters)
      for (const i of broken(found)) {
        const { point, margin, strongest } = found.get(i) as Outcome
        const around = { image: quarry.pixels([i]), epsilon, range: [0, 1] as const, norm }
        assert.equal(await judge.check(around, labels[i], point as Float64Array), point)
        assert.ok(margin <= 0)
        assert.is(strongest, name)
      }
      judge.close()
    }
})

test('what only float32 gets wrong is no violation', async () => {
  // 2^22 swallows what is not a multiple of 1/2: in float32 the first logit of 0.2 is 0, in doubles 0.2.
  const rounding: Network = {
    name: 'rounding',
    input: [1],
    classes: 2,
    parameters: { one: { shape: [1, 1], fanIn: 1 } },
    inputs: { one: [1, 1] },
    statistics: () => () => ({}),
    init: () => ({}),
    apply:
      ({ one }) =>
      <T extends Operand>(x: T): T => {
        const coarse = add(add(matmul(x as Operand, one), 2 ** 22) as Operand, -(2 ** 22))
        return concat([coarse, add(matmul(x as Operand, full([1, 1], 0)) as Operand, 0.1)], 1) as unknown as T
      },
  }
  const from = { indices: [0], pixels: () => Float32Array.of(0.5), labels: () => Float32Array.of(0) }
  const options = { of: rounding, values: { one: Float32Array.of(1) }, from, batch: 1, epsilon: 0.3 }
  const pgd: AttackOptions = { ...base, name: 'fgsm', steps: 1, stepSize: 1, loss: 'margin' }
  assert.equal(broken(await attacked({ ...pgd, checked: false }, options)), [0])
  const found = await attacked(pgd, options)
  assert.equal(broken(found), [])
  assert.ok((found.get(0) as Outcome).margin <= 0)
})

// ---- the interval attack and the ensemble ------------------------------------------------------------------------------

test('on a linear network the interval gradient points to the worst corner, and a box is proved iff none is in it', async () => {
  const w = uniform(key(4), 3 * 6, -1, 1)
  const bias = uniform(key(5), 3, -0.5, 0.5)
  const logits = ((x: Tensor) => add(matmul(x, constant(w, [6, 3])), constant(bias, [3]))) as unknown as Apply
  const count = 8
  const x = uniform(key(6), count * 6)
  const classes = Array.from({ length: count }, (_, i) => i % 3)
  const [inputs, labelsOf, halves] = [input('x', [count, 6]), input('y', [count]), input('h', [count])]
  const target = { logits, inputs, labels: labelsOf, epsilon: constant([0.2], []), range: [0, 1] as const }
  const { proved, next } = intervalStep(3)(target, inputs, halves)
  const small = 0.05
  const [flags, corner] = await evaluate(reference())(
    [proved, next],
    new Map<Tensor, Float32Array>([
      [inputs, x],
      [labelsOf, Float32Array.from(classes)],
      [halves, new Float32Array(count).fill(small)],
    ]),
  )
  for (let i = 0; i < count; i++) {
    const y = classes[i]
    const least = [0, 1, 2]
      .filter((j) => j !== y)
      .map((j) => {
        const a = Array.from({ length: 6 }, (_, k) => w[3 * k + y] - w[3 * k + j])
        const value = a.reduce((s, v, k) => {
          const xk = x[6 * i + k]
          return s + v * (v > 0 ? Math.max(0, xk - small) : Math.min(1, xk + small))
        }, bias[y] - bias[j])
        return { a, value }
      })
      .sort((p, q) => p.value - q.value)[0]
    assert.is(flags[i], Number(least.value > 0))
    least.a.forEach((v, k) => {
      const xk = x[6 * i + k]
      const want = v > 0 ? Math.max(0, xk - 0.2) : Math.min(1, xk + 0.2)
      assert.ok(Math.abs(corner[6 * i + k] - want) < 1e-12)
    })
  }
})

test('the ensemble breaks what each of its searches breaks, and names the strongest; an image does not depend on the others', async () => {
  const options = { epsilon: 0.07 }
  const all = await attacked({ ...base, name: 'ensemble' }, options)
  for (const alone of [
    { ...base, name: 'fgsm', steps: 1, stepSize: 1, restarts: 1 },
    base,
    { ...base, loss: 'margin' },
    { ...base, name: 'interval' },
  ] as const)
    for (const i of broken(await attacked(alone, options))) assert.ok(broken(all).includes(i), `${alone.name} ${i}`)
  const names = new Set(['fgsm', 'pgd ce', 'pgd margin', 'interval ce'])
  for (const { strongest } of all.values()) assert.ok(names.has(strongest), strongest)
  assert.ok(new Set([...all.values()].map((o) => o.strongest)).size > 1)
  const verdicts = (found: ReadonlyMap<number, Outcome>) =>
    [...found].map(([i, { strongest, point }]) => [i, strongest, point !== undefined])
  assert.equal(verdicts(await attacked({ ...base, name: 'ensemble' }, { ...options, batch: N })), verdicts(all))
  const some = await attacked({ ...base, name: 'ensemble' }, { ...options, from: { ...quarry, indices: [7, 2] } })
  assert.equal([some.get(7), some.get(2)], [all.get(7), all.get(2)])
})

test('an image keeps the best of its iterates: more steps of one size never leave a larger margin', async () => {
  const after = async (steps: number) => attacked({ ...base, restarts: 1, steps, checked: false }, { epsilon: 0.03 })
  const [few, more] = [await after(2), await after(7)]
  for (const [i, { margin }] of few) assert.ok((more.get(i) as Outcome).margin <= margin + 1e-6, `image ${i}`)
})

test('targeted: every other class is tried', async () => {
  const found = await attacked({ ...base, restarts: 1, targeted: true }, { epsilon: 0.12 })
  assert.ok(broken(found).length > 0)
  // One ascent a class: at least as many are broken as by the worst single class from the same start.
  assert.ok(
    broken(found).length >= broken(await attacked({ ...base, restarts: 1, steps: 0 }, { epsilon: 0.12 })).length,
  )
})

test('no buffer is left', () => {
  assert.is(simd.stats().live, 0)
  simd.dispose()
})

test.run()
