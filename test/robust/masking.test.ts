import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { grad } from '../../src/compile/vjp.ts'
import { key, uniform } from '../../src/core/key.ts'
import * as S from '../../src/core/shape.ts'
import type { Norm, Tensor } from '../../src/core/tensor.ts'
import { type Dataset, pixels } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { encodeModel } from '../../src/format/model.ts'
import { type Criterion, crossEntropy, divergence } from '../../src/nn/criterion.ts'
import { dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { type Network, network, networks } from '../../src/nn/networks.ts'
import * as O from '../../src/ops/index.ts'
import { fgsm, geometry, margin, pgd, slopeOf, wider } from '../../src/robust/attack.ts'
import { ibp } from '../../src/robust/bounds.ts'
import type { AttackName, TargetLoss } from '../../src/robust/search.ts'
import { pgdAttack } from '../../src/train/recipe.ts'
import { verify } from '../../src/train/verify.ts'
import { inFolder, json, mixtrain } from '../cli/run.ts'
import { bindings, host, modelOf, run, stepOf } from '../loss/harness.ts'
import { right } from '../shared.ts'

/** Gradient masking by large logits: an attack that raises cross-entropy must do as well as one whose gradient does not underflow. */

const backends: readonly Backend[] = [reference(), right(await wasm({ threads: 1 })())]
const [, simd] = backends
test.after(() => {
  for (const b of backends) b.dispose()
})

const [N, CLASSES] = [6, 4]
const net = network('tiny', sequential(flatten, dense(12), relu, dense(CLASSES)), {
  input: [1, 4, 4],
  classes: CLASSES,
})
const [step, model] = [stepOf(N, net.input, CLASSES), modelOf(net)]
const start = net.init(key(2))
/** The last layer times a factor: the same decisions. */
const scaled = (factor: number) =>
  Object.fromEntries(Object.entries(start).map(([k, v]) => [k, k.startsWith('3') ? v.map((x) => factor * x) : v]))
const images = uniform(key(3), N * S.size(net.input), 0, 1)
const labels = [0, 1, 2, 3, 0, 1]
const target = { ...step, logits: model.logits }

const valuesOf = (factor: number) => bindings(step, { inputs: images, labels, epsilon: 0.25 }, model, scaled(factor))

test('the last layer is the one that is scaled', () => {
  assert.is(Object.keys(start).filter((k) => k.startsWith('3')).length, 2)
})

test('a step of PGD and of FGSM is that of the judge where its gradient is not 0, bit for bit', async () => {
  const criteria: readonly Criterion[] = [crossEntropy, (z) => divergence(O.stopGradient(O.mul(z, 0.5) as Tensor), z)]
  for (const backend of backends)
    for (const norm of ['linf', 'l2', 'l1'] as const)
      for (const judge of criteria) {
        const plain = (t: number): Tensor => {
          const { project, ascend } = geometry(norm)({ ...step })
          let x: Tensor = step.inputs
          for (let k = 0; k < t; k++) {
            const at = O.stopGradient(x)
            const [g] = grad(O.sum(judge(model.logits(at), step.labels)), [at])
            x = project(ascend(at, g, O.mul(step.epsilon, t === 1 ? 1 : 0.5) as Tensor))
          }
          return x
        }
        const to = { ...target, norm }
        const pairs = [fgsm(judge)(to), plain(1), pgd({ steps: 3, stepSize: 0.5, start: 'input' }, judge)(to), plain(3)]
        const [a, b, c, d] = await run(pairs, valuesOf(1), host(), backend)
        assert.equal([...a], [...b])
        assert.equal([...c], [...d])
      }
})

test('where the gradient underflows, each image alone goes by that of the margin', async () => {
  for (const backend of backends) {
    const z = model.logits(step.inputs)
    const slope = slopeOf(crossEntropy, margin, [step.inputs, z, step.labels])
    const outputs = [
      slope.state,
      slope.gradient,
      ...[crossEntropy, margin].map((j) => grad(O.sum(j(z, step.labels)), [step.inputs])[0]),
      slopeOf(crossEntropy, null, [step.inputs, z, step.labels]).state,
    ]
    const states = new Set<number>()
    for (const factor of [1, 300, 1e6]) {
      const [state, gradient, own, other, alone] = await run(outputs, valuesOf(factor), host(), backend)
      const size = images.length / N
      for (let i = 0; i < N; i++) {
        states.add(state[i])
        const part = (v: ArrayLike<number>) => Array.from(v).slice(i * size, (i + 1) * size)
        const signs = (v: ArrayLike<number>) => part(v).map(Math.sign)
        if (state[i] === 0) {
          assert.equal(signs(gradient), signs(own))
          assert.is(alone[i], 0)
        } else {
          assert.ok(part(own).every((v) => v === 0))
          assert.equal(part(gradient), part(other))
          assert.is(alone[i], 2)
        }
      }
    }
    assert.equal([...states].sort(), [0, 1], 'some images of some scale have a gradient, and some have none')
  }
})

test('a wider attack is the attack in a ball of another radius', async () => {
  const attack = pgd({ steps: 3, stepSize: 0.5, start: 'random' }, crossEntropy)
  const at = (epsilon: number) => bindings(step, { inputs: images, labels, epsilon }, model, scaled(1))
  const [wide] = await run([wider(2)(attack)(target)], at(0.125), host(), simd)
  const [plain] = await run([attack(target)], at(0.25), host(), simd)
  assert.equal([...wide], [...plain])
  assert.is(wider(1)(attack), attack)
})

test('a network without any gradient is told apart', async () => {
  const dead = Object.fromEntries(Object.entries(start).map(([k, v]) => [k, v.map(() => 0)]))
  const { state } = slopeOf(crossEntropy, margin, [step.inputs, model.logits(step.inputs), step.labels])
  const values = bindings(step, { inputs: images, labels, epsilon: 0.25 }, model, dead)
  assert.equal([...(await run([state], values, host(), simd))[0]], Array(N).fill(2))
})

test('a gradient that the network would let underflow is scaled on its way, and keeps its direction', async () => {
  // Cross-entropy's gradient at the logits is some 1e-38 or less here; weights of 1e-3 bring it below every float32.
  const x = O.input('x', [1, 2])
  const w = O.constant([1e-3, -2e-3, 0, 0], [2, 2])
  const z = O.add(O.matmul(x as Tensor, w, { transB: true }), O.constant([100, 0], [2])) as Tensor
  const slope = slopeOf(crossEntropy, margin, [x, z, O.constant([0], [1])])
  const [g, state] = await run([slope.gradient, slope.state], new Map([[x, Float32Array.of(0.5, 0.5)]]), host(), simd)
  assert.equal([...g].map(Math.sign), [-1, 1])
  assert.is(state[0], 0)
})

/** Class means of the first digits as a linear network, times a factor. */
const meansOf = (
  train: Dataset,
  factor: number,
): { readonly network: Network; readonly parameters: Readonly<Record<string, Float32Array>> } => {
  const linear = network('means', sequential(flatten, dense(10)), { input: [1, 28, 28], classes: 10 })
  const [count, d] = [2000, 784]
  const data = pixels(
    train,
    Array.from({ length: count }, (_, i) => i),
  )
  const [sums, counts] = [new Float64Array(10 * d), new Float64Array(10)]
  for (let i = 0; i < count; i++) {
    const label = train.labels[i]
    counts[label]++
    for (let j = 0; j < d; j++) sums[label * d + j] += data[i * d + j]
  }
  const mean = sums.map((v, i) => v / counts[Math.floor(i / d)])
  const norm = (c: number) => mean.subarray(c * d, (c + 1) * d).reduce((s, v) => s + v * v, 0)
  const [weight, bias] = Object.keys(linear.parameters)
  return {
    network: linear,
    parameters: {
      [weight]: Float32Array.from(mean, (v) => factor * v),
      [bias]: Float32Array.from({ length: 10 }, (_, c) => (-factor * norm(c)) / 2),
    },
  }
}

test('ERA does not depend on the scale of logits: cross-entropy breaks what the margin breaks', async () => {
  const { train, test: data } = await digits()
  const some = { ...data, count: 60, labels: data.labels.subarray(0, 60) }
  const era = async (factor: number, name: AttackName, loss: TargetLoss, norm: Norm = 'linf') => {
    const attack = {
      ...pgdAttack({ steps: 12, restarts: 1, seed: 0 }),
      name,
      loss,
      ...(name === 'fgsm' ? { steps: 1, stepSize: 1 } : {}),
    }
    const epsilon = { linf: 0.1, l2: 1.5, l1: 20 }[norm]
    return verify({ ...meansOf(train, factor), data: some, epsilon, method: ibp, norm, attack })(simd)
  }
  for (const [name, norm] of [
    ['pgd', 'linf'],
    ['pgd', 'l2'],
    ['pgd', 'l1'],
    ['fgsm', 'linf'],
    ['interval', 'linf'],
  ] as const) {
    const [small, large, byMargin] = [
      await era(1, name, 'ce', norm),
      await era(1e4, name, 'ce', norm),
      await era(1e4, name, 'margin', norm),
    ]
    assert.ok(
      Math.abs(Number(large.era) - Number(byMargin.era)) <= 1 / 60,
      `${name} ${norm}: ${large.era}, margin ${byMargin.era}`,
    )
    assert.ok(Number(large.era) <= Number(small.era) + 1 / 60 && Number(large.era) < Number(large.acc))
    assert.ok((large.withoutGradient?.margin ?? 0) > 10, `${name}: ${large.withoutGradient?.margin}`)
    assert.equal(byMargin.withoutGradient, { margin: 0, none: 0 })
  }
})

test(
  'evaluate says at how many images cross-entropy had no gradient',
  inFolder(async (folder) => {
    const path = join(folder, 'model.safetensors')
    const small = networks.small({ input: [1, 28, 28], classes: 10 })
    const parameters = Object.fromEntries(
      Object.entries(small.init(key(3))).map(([k, v], i, all) => [k, i < all.length - 2 ? v : v.map((x) => x * 1e6)]),
    )
    writeFileSync(path, encodeModel({ network: small, parameters, provenance: undefined }))
    const args = [
      'evaluate',
      path,
      '--epsilon',
      '0.05',
      '--limit',
      '40',
      '--attack',
      'pgd',
      '--steps',
      '4',
      '--method',
      'ibp',
      '--device',
      'wasm',
    ]
    const { err, code } = await mixtrain(args)
    assert.is(code, 0, err)
    const found = /gradient of cross-entropy was 0 .* at (\d+) images/.exec(err)
    assert.ok(found !== null, err)
    const { attack } = (await json(args)) as {
      readonly attack: { readonly withoutGradient: { readonly margin: number } }
    }
    assert.is(attack.withoutGradient.margin, Number(found?.[1]))
    const plain = await mixtrain([...args, '--target-loss', 'margin'])
    assert.not.match(plain.err, 'gradient')
  }),
)

test.run()
