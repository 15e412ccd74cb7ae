import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Data } from '../../src/compile/backend.ts'
import { evaluate } from '../../src/compile/run.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { key, uniform } from '../../src/core/key.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import { pixels, slice, take } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { decodeModel, encodeModel, encodeModelOnnx, type SavedModel } from '../../src/format/model.ts'
import { add, sampled } from '../../src/loss/loss.ts'
import { mixTrain, natural, robust, worstCase } from '../../src/loss/objective.ts'
import { crossEntropy } from '../../src/nn/criterion.ts'
import {
  batchNorm,
  conv,
  dense,
  flatten,
  type Layer,
  type Named,
  normalize,
  relu,
  residual,
  sequential,
} from '../../src/nn/layers.ts'
import { cnn7, type Network, network } from '../../src/nn/networks.ts'
import { constant, input } from '../../src/ops/index.ts'
import { boundsOf, ibp, methods, symbolic } from '../../src/robust/bounds.ts'
import { ball } from '../../src/robust/perturbation.ts'
import { rivals } from '../../src/robust/specification.ts'
import { fixed } from '../../src/train/balance.ts'
import { decodeCheckpoint, encodeCheckpoint, restore } from '../../src/train/checkpoint.ts'
import { type Checkpoint, type FitOptions, fit } from '../../src/train/fit.ts'
import { adam } from '../../src/train/optimizer.ts'
import { bindings, gradientCheck, host, modelOf, stepOf } from '../loss/harness.ts'
import { right } from '../shared.ts'

const N = 4
const normed: Layer = sequential(
  ...[conv(2, 3, 2, 1), batchNorm, relu, residual(sequential(conv(2, 3, 1, 1), batchNorm), conv(2, 1)), relu],
  ...[flatten, dense(5), batchNorm, relu, dense(3)],
)
const net = network('normed', normed, { input: [1, 6, 6], classes: 3 })
const images = Float64Array.from(uniform(key(6), N * 36, 0.05, 0.95))

const run = async (
  outputs: readonly Tensor[],
  feeds: ReadonlyMap<Tensor, Data> = new Map(),
): Promise<readonly Data[]> => {
  const backend = reference()
  const results = await evaluate(backend)(outputs, feeds)
  assert.is(backend.stats().live, 0)
  return results
}
/** Values that are neither 0 nor 1 anywhere, variances above 0. */
const random = ({ parameters }: Network, seed: number): Named<Float64Array> =>
  Object.fromEntries(
    Object.entries(parameters).map(([k, p], i) => {
      const n = p.shape.reduce((a, b) => a * b, 1)
      const [low, high] = k.endsWith('var') || k.endsWith('scale') ? [0.3, 1.7] : [-0.8, 0.8]
      return [k, Float64Array.from(uniform(key(seed + i), n, low, high))]
    }),
  )
const constants = ({ parameters }: Network, values: Named<ArrayLike<number>>): Named<Tensor> =>
  Object.fromEntries(Object.entries(parameters).map(([k, p]) => [k, constant(values[k], p.shape)]))
const near = (a: ArrayLike<number>, b: ArrayLike<number>, tolerance: number): void => {
  assert.is(a.length, b.length)
  for (let i = 0; i < a.length; i++)
    assert.ok(Math.abs(a[i] - b[i]) <= tolerance * (1 + Math.abs(b[i])), `${i}: ${a[i]} and ${b[i]}`)
}

test('on its own batch, a channel has mean shift and variance scale^2 v / (v + 1e-5)', async () => {
  const built = batchNorm([2, 3, 3])
  const x = constant(Array.from(uniform(key(1), N * 18, -2, 3)), [N, 2, 3, 3])
  const parameters = { scale: constant([0.5, -3], [2]), shift: constant([7, -1], [2]) }
  const observed = built.observe?.(parameters)(x) as { output: Tensor; statistics: Named<Tensor> }
  const [y, v] = await run([observed.output, observed.statistics.var])
  for (const [c, scale, shift] of [
    [0, 0.5, 7],
    [1, -3, -1],
  ]) {
    const values = [...y].filter((_, i) => Math.floor(i / 9) % 2 === c)
    const mean = values.reduce((a, b) => a + b) / values.length
    const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length
    near([mean, variance], [shift, (scale ** 2 * v[c]) / (v[c] + 1e-5)], 1e-12)
  }
})

test('statistics are measured layer by layer, each on what its own batch makes of the layers before', async () => {
  const values = random(net, 20)
  const given = constants(net, values)
  const x = constant(images, [N, 1, 6, 6])
  const statistics = net.statistics(given)(x)
  assert.equal(
    Object.keys(statistics).sort(),
    Object.keys(net.parameters)
      .filter((k) => net.parameters[k].role === 'statistic')
      .sort(),
  )
  // The last batch norm by hand, on a network cut before it.
  const cut = sequential(
    ...[conv(2, 3, 2, 1), batchNorm, relu, residual(sequential(conv(2, 3, 1, 1), batchNorm), conv(2, 1)), relu],
    ...[flatten, dense(5)],
  )([1, 6, 6])
  const [z, m, v] = await run([cut.apply({ ...given, ...statistics })(x), statistics['7.mean'], statistics['7.var']])
  for (let j = 0; j < 5; j++) {
    const column = Array.from({ length: N }, (_, i) => z[i * 5 + j])
    const mean = column.reduce((a, b) => a + b) / N
    near([m[j], v[j]], [mean, column.reduce((a, b) => a + (b - mean) ** 2, 0) / N], 1e-12)
  }
})

test('gradients flow through the clean batch statistics, also of attacked and interval passes', async () => {
  const step = stepOf(N, net.input, 3)
  const model = modelOf(net, step)
  const values = bindings(step, { inputs: images, labels: [2, 0, 1, 1], epsilon: 0.03 }, model, random(net, 40))
  const loss = add(
    natural(crossEntropy),
    sampled(2)(robust(symbolic, worstCase(crossEntropy))),
    robust(ibp, worstCase(crossEntropy)),
  )
  await gradientCheck(loss, step, model, values, host(), 3)
})

test('bounds through batch norm are those of the network with its scales folded into the weights', async () => {
  const layers = (norm: Layer): Layer =>
    sequential(...[conv(2, 3, 2, 1), norm, relu, conv(3, 2), norm, relu, flatten, dense(5), norm, relu, dense(3)])
  const task = { input: [1, 6, 6], classes: 3 }
  const identity: Layer = sequential()
  const [with_, folded] = [network('with', layers(batchNorm), task), network('folded', layers(identity), task)]
  const values = random(with_, 60)
  const merged = Object.fromEntries(
    Object.keys(folded.parameters).map((k) => {
      const [layer, kind] = k.split('.')
      const norm = `${Number(layer) + 1}`
      if (values[`${norm}.scale`] === undefined) return [k, values[k]]
      const slope = values[`${norm}.scale`].map((s, c) => s / Math.sqrt(values[`${norm}.var`][c] + 1e-5))
      const inner = values[k].length / slope.length
      return [
        k,
        kind === 'weight'
          ? values[k].map((w, i) => w * slope[Math.floor(i / inner)])
          : values[k].map((b, c) => (b - values[`${norm}.mean`][c]) * slope[c] + values[`${norm}.shift`][c]),
      ]
    }),
  )
  const x = constant(images, [N, 1, 6, 6])
  const spec = rivals(constant([2, 0, 1, 1], [N]), 3)
  for (const method of Object.values(methods)) {
    const ends = [with_.apply(constants(with_, values)), folded.apply(constants(folded, merged))].flatMap((f) => {
      const { lower, upper } = boundsOf(method)(f, ball(x, 0.05)).rows(spec)
      return [lower, upper]
    })
    const [l, u, fl, fu] = await run(ends)
    near(l, fl, 1e-9)
    near(u, fu, 1e-9)
  }
})

const data = await digits()
const image = network(
  'tiny',
  sequential(conv(4, 4, 4), batchNorm, relu, flatten, dense(16), batchNorm, relu, dense(10)),
  { input: [1, 28, 28], classes: 10, normalization: { mean: [0.13], std: [0.31] } },
)
const options: FitOptions = {
  network: image,
  loss: mixTrain({ k: 2 }),
  optimizer: adam({ lr: 5e-3 }),
  train: take(70)(data.train),
  monitor: slice(200, 220)(data.train),
  epsilon: 0.02,
  balance: fixed(0.3),
  epochs: 2,
  batchSize: 20,
  seed: 4,
  method: symbolic,
}
const simd = right(await wasm({ threads: 1 })())
const two = right(await wasm({ threads: 2 })())
const train = async (over: Partial<FitOptions> = {}, backend = simd): Promise<readonly Checkpoint[]> => {
  const checkpoints: Checkpoint[] = []
  for await (const { checkpoint } of fit({ ...options, ...over })(backend)) checkpoints.push(checkpoint)
  assert.is(backend.stats().live, 0)
  return checkpoints
}
const whole = await train()
const { parameters } = whole[1].state

test('the statistics of a finished epoch are means over complete training batches in their order', async () => {
  const names = Object.keys(parameters).filter((k) => image.parameters[k].role === 'statistic')
  const x = input('x', [20, 1, 28, 28])
  const measured = image.statistics(constants(image, parameters))(x)
  const sums = names.map((k) => parameters[k].map(() => 0))
  for (let b = 0; b < 3; b++) {
    const indices = Array.from({ length: 20 }, (_, i) => 20 * b + i)
    const values = await run(
      names.map((k) => measured[k]),
      new Map([[x, pixels(data.train, indices)]]),
    )
    values.forEach((v, i) => {
      v.forEach((s, j) => {
        sums[i][j] += s / 3
      })
    })
  }
  names.forEach((k, i) => {
    near(parameters[k], sums[i], 2e-5)
  })
  assert.not.equal(parameters['1.mean'], new Float32Array(4))
})

test('the same bits for every number of threads, and from a stored checkpoint', async () => {
  const states = (cs: readonly Checkpoint[]) => cs.map((c) => c.state)
  assert.equal(states(await train({}, two)), states(whole))
  const settings = {
    ...{
      mixtrain: '0',
      data: 'digits',
      dataSha256: '0123456789abcdef'.repeat(4),
      network: 'tiny',
      loss: 'mixtrain',
      epsilon: 0.02,
      epochs: 2,
      batchSize: 20,
      k: 2,
    },
    ...{
      balance: 0.3,
      lr: 5e-3,
      seed: 4,
      trainLimit: null,
      testLimit: null,
      device: 'wasm',
      arithmetic: 'exact' as const,
    },
  }
  const stored = right(await decodeCheckpoint(await encodeCheckpoint(image, whole[0], settings), 'c')())
  const resume = right(restore(stored, image, options.optimizer.slots))
  assert.equal(resume.state, whole[0].state)
  assert.equal(states(await train({ resume })), states(whole.slice(1)))
})

test('saved models hold statistics and normalization, and ONNX computes the same logits', async () => {
  const named = cnn7({ input: [1, 8, 8], classes: 3, normalization: { mean: [0.4], std: [0.2] } })
  const start = Object.fromEntries(
    Object.entries(random(named, 90)).map(([k, v]) => [k, Float32Array.from(v, (x) => x / 8)]),
  )
  const model: SavedModel = { network: named, parameters: start, provenance: undefined }
  const own = right(decodeModel(encodeModel(model), 'm'))
  assert.equal(own.network.normalization, named.normalization)
  assert.equal(own.parameters, start)
  const foreign = right(decodeModel(right(encodeModelOnnx(model)), 'm'))
  const x = constant(Array.from(uniform(key(3), 2 * 64)), [2, 1, 8, 8])
  const [a, b, c] = await run([model, own, foreign].map((m) => m.network.apply(constants(m.network, m.parameters))(x)))
  assert.equal(a, b)
  near(c, a, 1e-9)
  assert.ok(Math.abs(a[0]) > 1e-6)
})

test('normalization takes pixels: the box is scaled, and what does not fit is refused', async () => {
  const layer = normalize({ mean: [0.5, 0.25], std: [0.5, 0.125] })([2, 1, 1]).apply({})
  const x = constant([0.5, 0.5], [1, 2, 1, 1])
  const box = layer(ball(x, 0.25))
  const [y, l, u] = await run([layer(x), box.lower, box.upper])
  assert.equal(
    [[...y], [...l], [...u]],
    [
      [0, 2],
      [-0.5, 0],
      [0.5, 4],
    ],
  )
  for (const bad of [
    { mean: [0.5], std: [1] },
    { mean: [0, 0], std: [1, 0] },
    { mean: [0, Number.NaN], std: [1, 1] },
  ])
    assert.throws(
      () => normalize(bad)([2, 1, 1]),
      (e: unknown) => e instanceof MixtrainException && e.error.kind === 'shape',
    )
})

test('no buffer is left', () => {
  for (const backend of [simd, two]) {
    assert.is(backend.stats().live, 0)
    backend.dispose()
  }
})

test.run()
