import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { evaluate } from '../../src/compile/run.ts'
import { order } from '../../src/compile/tape.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { fold, key, uniform } from '../../src/core/key.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import { hidden } from '../../src/loss/region.ts'
import {
  type Built,
  conv,
  dense,
  flatten,
  type Initializer,
  ibpInit,
  initialize,
  kaimingInit,
  type Layer,
  relu,
  residual,
  sequential,
  uniformInit,
} from '../../src/nn/layers.ts'
import { cnn7, large, type Network, network, networks, resnet, small, type Task } from '../../src/nn/networks.ts'
import { add, constant, input, mean as meanOf, radius, reluOp } from '../../src/ops/index.ts'
import { ibp } from '../../src/robust/bounds.ts'
import { ball } from '../../src/robust/perturbation.ts'

const mnist: Task = { input: [1, 28, 28], classes: 10 }
const cifar: Task = { input: [3, 32, 32], classes: 10 }

const placeholders = (parameters: Built['parameters']) =>
  Object.fromEntries(Object.entries(parameters).map(([k, p]) => [k, input(k, p.shape)]))
const count = (net: Network): number => Object.values(net.parameters).reduce((n, p) => n + S.size(p.shape), 0)

/** ReLUs for one image, counted on the graph. */
const relus = (net: Network): number => {
  const logits = net.apply(placeholders(net.parameters))(input('x', [1, ...net.input]))
  assert.equal(logits.shape, [1, net.classes])
  return order([logits])
    .filter((x) => x.op === reluOp)
    .reduce((n, x) => n + S.size(x.shape), 0)
}

test('the networks of the paper have its numbers of parameters and ReLUs', () => {
  assert.is(count(small(mnist)), 166_406)
  assert.is(relus(small(mnist)), 4_804)
  assert.is(relus(large(mnist)), 48_064)
  assert.is(relus(small(cifar)), 6_244)
  assert.is(relus(large(cifar)), 62_464)
  assert.is(relus(resnet(cifar)), 39_912)
  assert.is(relus(resnet({ input: [3, 64, 64], classes: 200 })), 39_424)
  assert.equal(
    Object.keys(small(mnist).parameters),
    ['0', '2', '5', '7'].flatMap((i) => [`${i}.weight`, `${i}.bias`]),
  )
  for (const [name, make] of Object.entries(networks)) assert.is(make(mnist).name, name)
})

test('cnn7 has 5 convolutions and 2 products, and batch norm behind all but the last', () => {
  const { parameters } = cnn7(cifar)
  const [convolutions, products, norms] = [
    Object.values(parameters).filter((p) => p.shape.length === 4),
    Object.values(parameters).filter((p) => p.shape.length === 2),
    Object.keys(parameters).filter((k) => k.endsWith('.mean')),
  ]
  assert.equal([convolutions.length, products.length, norms.length], [5, 2, 6])
  assert.equal(
    products.map((p) => p.shape),
    [
      [512, 128 * 16 * 16],
      [10, 512],
    ],
  )
  // Counted by hand: 3x3 kernels with biases, two fc layers, scale and shift of 1024 channels.
  const kernels = 9 * (3 * 64 + 64 * 64 + 64 * 128 + 2 * 128 * 128) + 2 * 64 + 3 * 128
  const trained = Object.values(parameters).filter((p) => p.role !== 'statistic')
  assert.is(
    trained.reduce((n, p) => n + S.size(p.shape), 0),
    kernels + 32768 * 512 + 512 + 5120 + 10 + 2 * (2 * 64 + 3 * 128 + 512),
  )
})

test('a batch goes through as a batch, on tensors and on interval tensors', () => {
  for (const make of Object.values(networks)) {
    const net = make({ input: [3, 32, 32], classes: 7 })
    const apply = net.apply(placeholders(net.parameters))
    const x = input('x', [6, 3, 32, 32])
    assert.equal(apply(x).shape, [6, 7])
    const box = apply(ball(x, 0.1))
    assert.is(box._tag, 'Interval')
    assert.equal(
      [box.shape, box.lower.shape, box.upper.shape],
      [
        [6, 7],
        [6, 7],
        [6, 7],
      ],
    )
  }
})

test('start values: uniform in +-1/sqrt(fanIn), or Kaiming with biases of 0; each parameter from its name', () => {
  const { parameters } = small(mnist)
  const fans: Readonly<Record<string, number>> = { '0': 16, '2': 256, '5': 1568, '7': 100 }
  const plain = initialize(key(1), parameters)
  const kaiming = initialize(key(1), parameters, kaimingInit)
  for (const [name, p] of Object.entries(parameters)) {
    const fan = fans[name.split('.')[0]]
    assert.is(p.fanIn, fan)
    for (const [values, bound] of [
      [plain[name], 1 / Math.sqrt(fan)],
      [kaiming[name], name.endsWith('bias') ? 0 : Math.sqrt(6 / fan)],
    ] as const) {
      assert.is(values.length, S.size(p.shape))
      assert.ok(values.every((v) => Math.abs(v) <= bound))
      if (values.length < 1000) continue
      // Variance bound^2 / 3, and the range is used to its ends.
      const variance = values.reduce((s, v) => s + v * v, 0) / values.length
      assert.ok(Math.abs(variance / (bound ** 2 / 3) - 1) < 0.1, `${name}: ${variance}`)
      assert.ok(Math.max(...values.slice(0, 1000)) > 0.9 * bound && Math.min(...values.slice(0, 1000)) < -0.9 * bound)
    }
    assert.equal(plain[name], uniformInit(fold(key(1), name), p))
  }
  assert.equal(initialize(key(1), parameters), plain)
  assert.equal(small(mnist).init(key(1)), plain)
  assert.not.equal(initialize(key(2), parameters)['0.weight'], plain['0.weight'])
  // A parameter keeps its start value in another network that has it by the same name.
  assert.equal(large({ ...mnist, input: [1, 28, 28] }).init(key(1))['0.bias'].length, 32)
})

test('Fast-IBP start values: variance 2 pi / fanIn^2, and interval widths of one size through layers where Kaiming explodes', async () => {
  const p = { shape: [64, 16, 5, 5], fanIn: 400 }
  const drawn = ibpInit(key(4), p)
  const [n, variance] = [drawn.length, (2 * Math.PI) / 400 ** 2]
  // 5 standard deviations of the mean and of the variance of normal numbers.
  assert.ok(Math.abs(drawn.reduce((s, v) => s + v, 0) / n) < 5 * Math.sqrt(variance / n))
  assert.ok(Math.abs(drawn.reduce((s, v) => s + v * v, 0) / n / variance - 1) < 5 * Math.sqrt(2 / n))
  assert.equal(ibpInit(key(4), { shape: [3], fanIn: 400 }), new Float32Array(3))

  const depth = 6
  const deep = sequential(...Array.from({ length: depth }, () => [dense(128), relu]).flat())([128])
  const parameters = Object.fromEntries(Object.entries(deep.parameters).map(([k, { shape }]) => [k, input(k, shape)]))
  const x = input('x', [2, 128])
  const around = (v: Tensor) => ball(v, 0.01)
  const boxes = hidden(
    ibp,
    (s) => () => around(s.inputs),
  )({
    inputs: x,
    labels: input('labels', [2]),
    classes: 128,
    epsilon: input('epsilon', []),
    range: [0, 1],
  })({ logits: deep.apply(parameters), parameters })
  const widths = async (init: Initializer) => {
    const start = initialize(key(9), deep.parameters, init)
    const feeds = new Map([
      [x, Float64Array.from(uniform(key(10), 256))],
      ...Object.entries(parameters).map(([k, v]) => [v, Float64Array.from(start[k])] as const),
    ])
    return (
      await values(
        boxes.map((b) => meanOf(radius(b))),
        feeds,
      )
    ).map(([r]) => r)
  }
  const [steady, exploding] = [await widths(ibpInit), await widths(kaimingInit)]
  assert.is(steady.length, depth)
  for (const r of steady) assert.ok(r > 0.5 * steady[0] && r < 2 * steady[0], `${steady}`)
  // E|w| = sqrt(6 / n) / 2: each layer widens sqrt(6 n) / 4 = 6.9 times.
  for (const [i, r] of exploding.slice(1).entries()) assert.ok(r > 4 * exploding[i], `${exploding}`)
})

const block: Layer = residual(sequential(conv(4, 3, 2, 1), relu, conv(4, 3, 1, 1)), conv(4, 2, 2))

const values = async (outputs: readonly Tensor[], feeds: ReadonlyMap<Tensor, Float64Array>) => {
  const backend = reference()
  const results = await evaluate(backend)(outputs, feeds)
  assert.is(backend.stats().live, 0)
  return results
}

test('a residual layer is body + skip, with parameters of both', async () => {
  const built = block([2, 8, 8])
  assert.equal(built.output, [4, 4, 4])
  assert.equal(Object.keys(built.parameters), [
    'body.0.weight',
    'body.0.bias',
    'body.2.weight',
    'body.2.bias',
    'skip.weight',
    'skip.bias',
  ])
  const start = initialize(key(3), built.parameters)
  const given = Object.fromEntries(Object.entries(built.parameters).map(([k, p]) => [k, constant(start[k], p.shape)]))
  const part = (prefix: string) =>
    Object.fromEntries(
      Object.entries(given).flatMap(([k, v]) => (k.startsWith(prefix) ? [[k.slice(prefix.length), v]] : [])),
    )
  const x = input('x', [2, 2, 8, 8])
  const body: Tensor = sequential(conv(4, 3, 2, 1), relu, conv(4, 3, 1, 1))([2, 8, 8]).apply(part('body.'))(x)
  const skip: Tensor = conv(4, 2, 2)([2, 8, 8]).apply(part('skip.'))(x)
  const [got, want] = await values(
    [built.apply(given)(x), add(body, skip)],
    new Map([[x, Float64Array.from(uniform(key(4), 256))]]),
  )
  assert.equal(got, want)
})

const kindOf = (f: () => unknown): string => {
  try {
    f()
    return 'no error'
  } catch (e) {
    return e instanceof MixtrainException ? `${e.error.kind}: ${e.message}` : String(e)
  }
}

test('layers that do not fit say what they were given', () => {
  assert.is(
    kindOf(() => dense(3)([1, 4, 4])),
    'shape: dense: takes vectors, not [1,4,4]; flatten first',
  )
  assert.is(
    kindOf(() => conv(3, 3)([16])),
    'shape: conv: takes images, not [16]',
  )
  assert.is(
    kindOf(() => conv(3, 5)([1, 4, 4])),
    'shape: conv: a 5x5 kernel does not fit [1,4,4]',
  )
  assert.is(
    kindOf(() => residual(conv(4, 3), conv(4, 1))([1, 4, 4])),
    'shape: residual: body gives [4,2,2], skip [4,4,4]',
  )
  assert.is(
    kindOf(() => network('odd', sequential(flatten, dense(3)), { input: [1, 2, 2], classes: 4 })),
    'usage: network odd gives [3] for [1,2,2], expected [4]',
  )
  assert.match(
    kindOf(() => small({ input: [1, 1, 1], classes: 2 })),
    /^shape: conv/,
  )
})

test('conv extents agree with the graph, and sequential() is the identity', () => {
  for (const [k, stride, padding] of [
    [3, 1, 1],
    [4, 2, 1],
    [2, 2, 0],
    [5, 3, 2],
    [1, 1, 0],
  ]) {
    const built = conv(3, k, stride, padding)([2, 9, 7])
    const y: Tensor = built.apply(placeholders(built.parameters))(input('x', [4, 2, 9, 7]))
    assert.equal(y.shape, [4, ...built.output])
  }
  const identity = sequential()([2, 3])
  const x: Tensor = input('x', [5, 2, 3])
  assert.equal(identity.output, [2, 3])
  assert.is(identity.apply({})(x), x)
})

test('networks on interval tensors contain the outputs of sampled points, and are exact on points', async () => {
  const layers: Readonly<Record<string, Layer>> = {
    convolutional: sequential(conv(3, 3, 2, 1), relu, conv(4, 2), relu, flatten, dense(6), relu, dense(4)),
    residual: sequential(block, relu, residual(conv(4, 3, 1, 1), conv(4, 1)), relu, flatten, dense(4)),
    dense: sequential(flatten, dense(12), relu, dense(8), relu, dense(4)),
  }
  const N = 3
  for (const [name, layer] of Object.entries(layers)) {
    const net = network(name, layer, { input: [2, 8, 8], classes: 4 })
    const start = net.init(key(6))
    const apply = net.apply(
      Object.fromEntries(Object.entries(net.parameters).map(([k, p]) => [k, constant(start[k], p.shape)])),
    )
    const [x, epsilon] = [input('x', [N, 2, 8, 8]), input('epsilon', [])]
    const box = apply(ball(x, epsilon))
    const y = apply(x)
    const centre = Float64Array.from(uniform(key(7), N * 128))
    const bound = (e: number) =>
      values(
        [box.lower, box.upper],
        new Map<Tensor, Float64Array>([
          [x, centre],
          [epsilon, Float64Array.of(e)],
        ]),
      )
    const [l, u] = await bound(0.1)
    for (let s = 0; s < 30; s++) {
      const noise = uniform(fold(key(8), s), centre.length, -0.1, 0.1)
      // Every third sample is a corner.
      const moved = centre.map((v, i) =>
        Math.min(1, Math.max(0, v + (s % 3 === 0 ? 0.1 * Math.sign(noise[i]) : noise[i]))),
      )
      const [z] = await values([y], new Map([[x, moved]]))
      z.forEach((v, i) => {
        assert.ok(l[i] <= v + 1e-12 && v <= u[i] + 1e-12, `${name}: ${v} outside [${l[i]}, ${u[i]}]`)
      })
    }
    const [[pl, pu], [z]] = [await bound(0), await values([y], new Map([[x, centre]]))]
    z.forEach((v, i) => {
      assert.ok(Math.abs(pl[i] - v) < 1e-12 && Math.abs(pu[i] - v) < 1e-12)
    })
  }
})

test.run()
