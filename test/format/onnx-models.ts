import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { evaluate } from '../../src/compile/run.ts'
import { key, uniform } from '../../src/core/key.ts'
import { type Shape, size } from '../../src/core/shape.ts'
import { decodeOnnx, type OnnxModel, parameterConstants } from '../../src/format/onnx/index.ts'
import {
  type AttributeValue,
  type ModelData,
  type NodeData,
  type TensorData,
  writeModel,
} from '../../src/format/onnx/proto.ts'
import { input } from '../../src/ops/index.ts'
import { right, skipped } from '../shared.ts'

/** Models made of lines of nodes, and what the reference backend and onnxruntime make of them. */

export const ort = await import('onnxruntime-web').catch(() => undefined)
if (ort === undefined) skipped('comparison with onnxruntime', 'onnxruntime-web is not installed')
else ort.env.wasm.numThreads = 1

/** What onnxruntime makes of a model. */
export const runtime = async (
  bytes: Uint8Array,
  name: string,
  shape: Shape,
  data: Float32Array,
): Promise<Float32Array> => {
  if (ort === undefined) throw new Error('onnxruntime is absent')
  const session = await ort.InferenceSession.create(bytes, { graphOptimizationLevel: 'disabled', logSeverityLevel: 3 })
  try {
    const result = await session.run({ [name]: new ort.Tensor('float32', data, shape) })
    return result[session.outputNames[0]].data as Float32Array
  } finally {
    await session.release()
  }
}

/** What the reference backend makes of a decoded model, in f64. */
export const run = async (model: OnnxModel, n: number, data: ArrayLike<number>): Promise<Float64Array> => {
  const x = input('x', [n, ...model.input.shape])
  const [y] = await evaluate(reference())(
    [model.network(parameterConstants(model))(x)],
    new Map([[x, Float64Array.from(data)]]),
  )
  return y as Float64Array
}

/** Largest |a - b| over max(1, |b|); lengths agree. */
export const deviation = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  assert.is(a.length, b.length)
  let worst = 0
  for (let i = 0; i < a.length; i++) {
    if (Object.is(a[i], b[i])) continue
    const d = Math.abs(a[i] - b[i]) / Math.max(1, Math.abs(b[i]))
    worst = d <= worst ? worst : Number.isNaN(d) ? Number.POSITIVE_INFINITY : d
  }
  return worst
}

export const draw = (shape: Shape, seed = 1, low = -1, high = 1): Float32Array =>
  uniform(key(seed), size(shape), low, high)
export const tensor = (name: string, shape: Shape, seed = 2, low = -1, high = 1): TensorData => ({
  name,
  shape,
  data: draw(shape, seed, low, high),
})
export const int64 = (name: string, values: readonly number[], shape: Shape = [values.length]): TensorData => ({
  name,
  shape,
  data: values.map(BigInt),
})
export const attributes = (
  given: Readonly<Record<string, number | string | readonly number[] | TensorData>>,
): Readonly<Record<string, AttributeValue>> =>
  Object.fromEntries(
    Object.entries(given).map(([k, v]): [string, AttributeValue] => [
      k,
      typeof v === 'number'
        ? FLOATS.includes(k)
          ? { float: v }
          : { int: v }
        : typeof v === 'string'
          ? { string: v }
          : 'data' in v
            ? { tensor: v }
            : { ints: v },
    ]),
  )
export const FLOATS = ['alpha', 'beta', 'gamma', 'min', 'max', 'epsilon', 'momentum', 'ratio', 'value', 'value_float']

export type Line = readonly [
  op: string,
  inputs: string,
  outputs: string,
  attributes?: Parameters<typeof attributes>[0] | undefined,
]

/** A model from lines of nodes; names are separated by blanks, `-` stands for no input. The input is `x`, the output `y`. */
export const modelOf = (
  shape: readonly (number | string)[],
  lines: readonly Line[],
  initializers: readonly TensorData[] = [],
  more: Partial<ModelData> = {},
): Uint8Array =>
  writeModel({
    name: 'test',
    opset: 13,
    irVersion: 8,
    nodes: lines.map(
      ([op, inputs, outputs, given], i): NodeData => ({
        name: `n${i}`,
        op,
        inputs: inputs === '' ? [] : inputs.split(' ').map((s) => (s === '-' ? '' : s)),
        outputs: outputs.split(' '),
        attributes: attributes(given ?? {}),
      }),
    ),
    initializers,
    input: { name: 'x', shape },
    output: { name: 'y' },
    ...more,
  })

/** A model of a few nodes, whose values onnxruntime has, too. */
export interface Case {
  readonly shape: readonly (number | string)[]
  readonly lines: readonly Line[]
  readonly initializers?: readonly TensorData[]
  readonly opset?: number
  readonly range?: readonly [number, number]
  /** The file has no open batch: onnxruntime takes what is one image here, in the file's own shape. */
  readonly whole?: boolean
}

/** A test: what is read of the file computes what onnxruntime computes, for batches of one and three, image by image. */
export const agrees = (name: string, c: Case): void => {
  const bytes = modelOf(c.shape, c.lines, c.initializers, { opset: c.opset ?? 13 })
  const model = () => right(decodeOnnx(bytes, name))
  test(`${name} agrees with onnxruntime, with and without a batch of 1`, async () => {
    const { input: x, output } = model()
    const one = c.whole === true || name.includes('hard-coded')
    for (const n of one ? [1] : [1, 3]) {
      const data = draw([n, ...x.shape], n, ...(c.range ?? [-2, 2]))
      const got = await run(model(), n, data)
      assert.is(got.length, n * size(output.shape))
      assert.ok(got.every(Number.isFinite))
      if (ort === undefined) continue
      const theirs = await runtime(bytes, 'x', c.whole ? (c.shape as Shape) : [n, ...x.shape], data)
      assert.ok(deviation(got, theirs) < 1e-5, `deviation ${deviation(got, theirs)}`)
    }
    // Every image of a batch is the network of that image alone.
    const two = draw([2, ...x.shape], 5, ...(c.range ?? [-2, 2]))
    const [whole, first, second] = await Promise.all([
      run(model(), 2, two),
      run(model(), 1, two.subarray(0, size(x.shape))),
      run(model(), 1, two.subarray(size(x.shape))),
    ])
    assert.equal([...whole], [...first, ...second])
  })
}
