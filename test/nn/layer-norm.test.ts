import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend, Data } from '../../src/compile/backend.ts'
import { evaluate } from '../../src/compile/run.ts'
import { grad } from '../../src/compile/vjp.ts'
import { key, uniform } from '../../src/core/key.ts'
import type { Rounding } from '../../src/core/rounding.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import { decodeModel, encodeModel, encodeModelOnnx } from '../../src/format/model.ts'
import { dense, flatten, layerNorm, type Named, relu, sequential } from '../../src/nn/layers.ts'
import { type Network, network } from '../../src/nn/networks.ts'
import { constant, input, mul, sum } from '../../src/ops/index.ts'
import { boundsOf, type MethodName, methods } from '../../src/robust/bounds.ts'
import { ball } from '../../src/robust/perturbation.ts'
import { right } from '../shared.ts'

const normed = sequential(layerNorm, flatten, dense(12), layerNorm, relu, dense(3))
const net = network('normed', normed, { input: [1, 3, 4], classes: 3 })
const image = uniform(key(3), 12, 0.1, 0.9)
/** Scales and shifts that are neither 1 nor 0. */
const parameters: Named<Float32Array> = Object.fromEntries(
  Object.entries(net.init(key(1))).map(([name, v], i) => {
    const [low, high] = name.endsWith('scale') ? [0.5, 1.5] : [-0.6, 0.6]
    return [name, uniform(key(20 + i), v.length, low, high)]
  }),
)
const constants = ({ parameters: shapes }: Network, values: Named<ArrayLike<number>>): Named<Tensor> =>
  Object.fromEntries(Object.entries(shapes).map(([k, p]) => [k, constant(values[k], p.shape)]))
const run = (outputs: readonly Tensor[], backend = reference()): Promise<readonly Data[]> => evaluate(backend)(outputs)
const near = (a: ArrayLike<number>, b: ArrayLike<number>, tolerance: number): void => {
  assert.is(a.length, b.length)
  for (let i = 0; i < a.length; i++) assert.ok(Math.abs(a[i] - b[i]) <= tolerance, `${i}: ${a[i]} and ${b[i]}`)
}

test('an example has mean and variance of its own; scale and shift are of the shape of the input', async () => {
  const { apply, parameters: p, output } = layerNorm([2, 2])
  assert.equal(output, [2, 2])
  assert.equal([p.scale.shape, p.shift.shape, p.scale.start, p.shift.start], [[2, 2], [2, 2], 1, 0])
  const [scale, shift] = [
    [1, -2, 0.5, 3],
    [0, 1, 2, -1],
  ]
  const x = [1, 2, 3, 6, -4, 0, 0.5, 10]
  const [y] = await run([
    apply({ scale: constant(scale, [2, 2]), shift: constant(shift, [2, 2]) })(constant(x, [2, 2, 2])),
  ])
  const expected = [x.slice(0, 4), x.slice(4)].flatMap((row) => {
    const mean = row.reduce((a, b) => a + b) / 4
    const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / 4
    return row.map((v, i) => ((v - mean) / Math.sqrt(variance + Math.fround(1e-5))) * scale[i] + shift[i])
  })
  near(y, expected, 1e-6)
})

test('gradients through mean and variance are those of differences, also where all elements are equal', async () => {
  const { apply } = layerNorm([4])
  const [x, scale, shift] = [input('x', [1, 4]), input('scale', [4]), input('shift', [4])]
  const value = sum(mul(apply({ scale, shift })(x), constant([0.3, -1, 0.8, 0.5], [1, 4])))
  const gradients = grad(value, [x, scale, shift])
  for (const point of [
    [0.3, -0.2, 0.9, 0.5],
    [0.25, 0.25, 0.25, 0.25],
  ]) {
    const at = [point, [1, -0.5, 2, 0.7], [0.1, 0.2, 0.3, 0.4]].map((v) => Float64Array.from(v))
    const fed = (values: readonly Float64Array[]) =>
      new Map<Tensor, Data>([x, scale, shift].map((t, i) => [t, values[i]]))
    const found = await evaluate(reference())(gradients, fed(at))
    const h = 1e-6
    for (const [i, v] of at.entries())
      for (const k of v.keys()) {
        const moved = async (by: number) => {
          const values = at.map((w, j) => w.map((e, l) => (j === i && l === k ? e + by : e)))
          return (await evaluate(reference())([value], fed(values)))[0][0]
        }
        const difference = ((await moved(h)) - (await moved(-h))) / (2 * h)
        assert.ok(Math.abs(found[i][k] - difference) <= 1e-4 * (1 + Math.abs(difference)), `${i} ${k}`)
      }
  }
})

test('bounds enclose what the network computes, under every rounding', async () => {
  const epsilon = 0.03
  const at = (values: ArrayLike<number>) => net.apply(constants(net, parameters))(constant(values, [1, 1, 3, 4]))
  const samples = Array.from({ length: 40 }, (_, i) => {
    const moves = uniform(key(100 + i), 12, -epsilon, epsilon)
    return image.map((v, j) => v + (i % 2 === 0 ? moves[j] : Math.sign(moves[j]) * epsilon))
  })
  const answers = await run(samples.map(at))
  const machine = right(await wasm({ threads: 1 })())
  const enclosed = async (name: MethodName, rounding: Rounding, backend: Backend): Promise<number> => {
    const box = ball(constant(image, [1, 1, 3, 4]), epsilon)
    const { lower, upper } = boundsOf(methods[name])(net.apply(constants(net, parameters)), box, rounding).output()
    const [l, u] = await run([lower, upper], backend)
    const slack = rounding === 'none' ? 1e-5 : 0
    for (const y of answers)
      for (let i = 0; i < 3; i++)
        assert.ok(
          l[i] - slack <= y[i] && y[i] <= u[i] + slack,
          `${name} ${backend.name}: ${y[i]} in [${l[i]}, ${u[i]}]`,
        )
    return u[0] - l[0]
  }
  const plain = await Promise.all(
    (['ibp', 'crown-ibp', 'crown'] as const).map((name) => enclosed(name, 'none', machine)),
  )
  // Intervals forget that a variance is that of the same numbers: where it may be 0, they are of no use.
  assert.ok(100 * plain[2] < Math.min(plain[0], plain[1]), plain.join(' '))
  // Outward bounds are finite: nothing but the cut at 0 keeps that of a variance above it.
  for (const name of ['ibp', 'crown-ibp', 'crown'] as const)
    for (const outward of ['real', 'deployed'] as const)
      assert.ok(Number.isFinite(await enclosed(name, { outward }, reference())), `${name} ${outward}`)
  machine.dispose()
})

test('it is saved as a layer and exported as ops that every reader of ONNX has', async () => {
  const saved = { network: net, parameters, provenance: undefined }
  const read = right(decodeModel(encodeModel(saved), 'normed.safetensors'))
  assert.equal(read.network.description, net.description)
  assert.equal(read.parameters, parameters)
  const onnx = right(decodeModel(right(encodeModelOnnx(saved)), 'normed.onnx'))
  const x = input('x', [1, 1, 3, 4])
  const feeds = new Map<Tensor, Data>([[x, image]])
  const [ours, theirs] = await evaluate(reference())(
    [net.apply(constants(net, parameters))(x), onnx.network.apply(constants(onnx.network, onnx.parameters))(x)],
    feeds,
  )
  near(ours, theirs, 1e-12)
})

test.run()
