import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { evaluate } from '../../src/compile/run.ts'
import { bits, key } from '../../src/core/key.ts'
import { interval, unsupported } from '../../src/core/op.ts'
import { type Shape, size } from '../../src/core/shape.ts'
import type { Apply, Operand, Tensor } from '../../src/core/tensor.ts'
import { encodeModelOnnx } from '../../src/format/model.ts'
import { decodeOnnx, encodeOnnx, parameterConstants } from '../../src/format/onnx/index.ts'
import type { TensorData } from '../../src/format/onnx/proto.ts'
import { networks as trained } from '../../src/nn/networks.ts'
import {
  abs,
  add,
  averagePool2d,
  broadcastTo,
  clip,
  constant,
  conv2d,
  convTranspose2d,
  cos,
  custom,
  div,
  elu,
  erf,
  exp,
  floor,
  gather,
  gelu,
  hardSwish,
  input,
  leakyRelu,
  log,
  logSoftmax,
  matmul,
  max,
  maximum,
  maxPool2d,
  mean,
  minimum,
  mish,
  mul,
  neg,
  pad,
  pow,
  prelu,
  reciprocal,
  relu,
  reshape,
  round,
  scalar,
  sigmoid,
  sign,
  silu,
  sin,
  softmax,
  softplus,
  softsign,
  sqrt,
  stopGradient,
  sub,
  sum,
  tanh,
  transpose,
} from '../../src/ops/index.ts'
import { mnistTest, networks, weights } from '../golden.ts'
import { left, right, shared, skipped } from '../shared.ts'
import { OPS } from './onnx-cases.ts'
import {
  agrees,
  type Case,
  deviation,
  draw,
  FLOATS,
  int64,
  type Line,
  modelOf,
  ort,
  run,
  runtime,
  tensor,
} from './onnx-models.ts'
import { STRUCTURE } from './onnx-structure-cases.ts'
import { bytesOf, field, floats, typed, utf8, wire, wireNode, wireTensor } from './onnx-wire.ts'

// ---- real models ---------------------------------------------------------------------------------------------------

for (const [file, name] of [
  ['mixtrain_small_0.3', 'mixtrain_small_0.3'],
  ['mixtrain_small_0.3.dynreshape', 'mixtrain_small_0.3'],
  ['mlp_tanh', 'mlp_tanh'],
  ['mnistfc_256x2', 'mnistfc_256x2'],
  ['randconv_a', 'randconv_a'],
  ['resnet_s', 'resnet_s'],
] as const) {
  const path = shared(`models/${file}.onnx`)
  const w = weights(name)
  if (path === undefined || w === undefined) {
    skipped(`real model ${file}`, `shared/models/${file} is absent`)
    continue
  }
  const bytes = new Uint8Array(readFileSync(path))
  const indices = [0, 1, 2]

  test(`${file}: the logits of the safetensors network, and of onnxruntime`, async () => {
    const model = right(decodeOnnx(bytes, path))
    assert.equal(model.input, { name: 'input', shape: [1, 28, 28] })
    assert.equal(model.output, { name: 'logits', shape: [10] })
    const data = await mnistTest(indices)
    const x = input('x', [3, 1, 28, 28])
    const [want] = await evaluate(reference())(
      [networks[name.replace('.', '_')](w)(x) as Tensor],
      new Map([[x, Float64Array.from(data)]]),
    )
    const got = await run(model, 3, data)
    assert.ok(deviation(got, want) < 1e-12, `deviation ${deviation(got, want)}`)
    if (ort !== undefined) {
      const theirs = await runtime(bytes, 'input', [3, 1, 28, 28], data)
      assert.ok(deviation(got, theirs) < 1e-5, `onnxruntime: deviation ${deviation(got, theirs)}`)
    }
  })

  test(`${file}: written again, it is read as the same network`, async () => {
    const model = right(decodeOnnx(bytes, path))
    const x = input('x', [1, ...model.input.shape])
    const params = new Map([...model.parameters].map(([n, p]) => [n, input(n, p.shape)]))
    const again = right(
      encodeOnnx({
        name: file,
        input: x,
        output: model.network(params)(x),
        parameters: new Map(
          [...model.parameters].map(([n, p]) => [params.get(n) as Tensor, { name: n, data: p.data }]),
        ),
      }),
    )
    const second = right(decodeOnnx(again, 'again.onnx'))
    assert.equal([...second.parameters.keys()].sort(), [...model.parameters.keys()].sort())
    const data = await mnistTest(indices)
    assert.equal(await run(second, 3, data), await run(model, 3, data))
    if (ort !== undefined) {
      const theirs = await runtime(again, 'x', [3, 1, 28, 28], data)
      assert.equal(theirs, await runtime(bytes, 'input', [3, 1, 28, 28], data))
    }
  })

  test(`${file}: the same graph runs on interval tensors`, async () => {
    const model = right(decodeOnnx(bytes, path))
    const x = input('x', [1, 1, 28, 28])
    const net = model.network(parameterConstants(model))
    const box = net(interval(sub(x, 0.01), add(x, 0.01)))
    const data = await mnistTest([0])
    const [lower, upper, y] = await evaluate(reference())(
      [box.lower, box.upper, net(x)],
      new Map([[x, Float64Array.from(data)]]),
    )
    y.forEach((v, i) => {
      assert.ok(lower[i] <= v && v <= upper[i])
    })
  })
}

// ---- one op at a time ----------------------------------------------------------------------------------------------

const image = ['N', 2, 7, 6] as const
const w3 = tensor('w', [3, 2, 3, 2])
const bn = [tensor('s', [2], 3), tensor('b', [2], 4), tensor('m', [2], 5), tensor('v', [2], 6, 0.1, 2)]
const single = (op: string, given?: Line[3], range?: readonly [number, number]): Case => ({
  shape: image,
  lines: [[op, 'x', 'y', given]],
  ...(range === undefined ? {} : { range }),
})
const binaryCase = (op: string, other: TensorData): Case => ({
  shape: image,
  lines: [[op, `x ${other.name}`, 'y']],
  initializers: [other],
})
const convCase = (given: Line[3], inputs = 'x w'): Case => ({
  shape: image,
  lines: [['Conv', inputs, 'y', given]],
  initializers: [w3, tensor('c', [3], 9)],
})
const reshapeCase = (shape: readonly (number | string)[], target: readonly number[], given?: Line[3]): Case => ({
  shape,
  lines: [['Reshape', 'x t', 'y', given]],
  initializers: [int64('t', target)],
})

const CASES: Readonly<Record<string, Case>> = {
  'Conv plain': convCase({ kernel_shape: [3, 2] }),
  'Conv bias': convCase({ kernel_shape: [3, 2] }, 'x w c'),
  'Conv strides, dilations, asymmetric pads': convCase(
    { strides: [2, 1], dilations: [2, 1], pads: [1, 0, 2, 3] },
    'x w c',
  ),
  'Conv VALID': convCase({ auto_pad: 'VALID', strides: [2, 2] }),
  'Conv SAME_UPPER': convCase({ auto_pad: 'SAME_UPPER', strides: [2, 2] }),
  'Conv SAME_LOWER': convCase({ auto_pad: 'SAME_LOWER', strides: [1, 2] }),
  Gemm: { shape: ['N', 4], lines: [['Gemm', 'x w', 'y']], initializers: [tensor('w', [4, 3])] },
  'Gemm alpha beta transB': {
    shape: ['N', 4],
    lines: [['Gemm', 'x w c', 'y', { alpha: 0.5, beta: -2, transB: 1 }]],
    initializers: [tensor('w', [3, 4]), tensor('c', [1, 3])],
  },
  'Gemm scalar bias': {
    shape: ['N', 4],
    lines: [['Gemm', 'x w c', 'y']],
    initializers: [tensor('w', [4, 3]), tensor('c', [1])],
  },
  'Gemm of two parameters, transA': {
    shape: ['N', 4],
    lines: [
      ['Gemm', 'a w', 'p', { transA: 1 }],
      ['MatMul', 'x p', 'y'],
    ],
    initializers: [tensor('a', [2, 4]), tensor('w', [2, 3])],
  },
  'MatMul rank 2': { shape: ['N', 4], lines: [['MatMul', 'x w', 'y']], initializers: [tensor('w', [4, 3])] },
  'MatMul rank 4': { shape: image, lines: [['MatMul', 'x w', 'y']], initializers: [tensor('w', [6, 3])] },
  'Add channel bias': binaryCase('Add', tensor('b', [2, 1, 1])),
  'Add full': binaryCase('Add', tensor('b', [1, 2, 7, 6])),
  'Add scalar': binaryCase('Add', tensor('b', [])),
  'Add residual': {
    shape: image,
    lines: [
      ['Relu', 'x', 'r'],
      ['Add', 'x r', 'y'],
    ],
  },
  'Sub from a parameter': { shape: image, lines: [['Sub', 'b x', 'y']], initializers: [tensor('b', [6])] },
  Mul: binaryCase('Mul', tensor('b', [7, 1])),
  'Mul square': { shape: image, lines: [['Mul', 'x x', 'y']] },
  Div: binaryCase('Div', tensor('b', [1, 2, 1, 1], 3, 0.5, 2)),
  Relu: single('Relu'),
  LeakyRelu: single('LeakyRelu', { alpha: 0.125 }),
  'LeakyRelu default': single('LeakyRelu'),
  Sigmoid: single('Sigmoid'),
  Tanh: single('Tanh'),
  Neg: single('Neg'),
  Abs: single('Abs'),
  Exp: single('Exp'),
  Log: single('Log', {}, [0.1, 3]),
  Sqrt: single('Sqrt', {}, [0.1, 3]),
  Max: binaryCase('Max', tensor('b', [6])),
  'Min of three': {
    shape: image,
    lines: [['Min', 'x a b', 'y']],
    initializers: [tensor('a', [6]), tensor('b', [], 8)],
  },
  Flatten: single('Flatten'),
  'Flatten axis -3': single('Flatten', { axis: -3 }),
  'Flatten axis 2 over extent 1': { shape: ['N', 1, 3, 2], lines: [['Flatten', 'x', 'y', { axis: 2 }]] },
  'Reshape -1 first': reshapeCase(image, [-1, 84]),
  'Reshape 0 and -1': reshapeCase(image, [0, 0, -1]),
  'Reshape hard-coded 1': reshapeCase(image, [1, -1]),
  'Reshape hard-coded 1, all known': reshapeCase(['N', 12], [1, 3, 2, 2]),
  'Reshape by Shape': {
    shape: image,
    lines: [
      ['Shape', 'x', 's'],
      ['Constant', '', 'i', { value: int64('', [0], []) }],
      ['Gather', 's i', 'g', { axis: 0 }],
      ['Unsqueeze', 'g z', 'u'],
      ['Concat', 'u m', 't', { axis: 0 }],
      ['Reshape', 'x t', 'y'],
    ],
    initializers: [int64('z', [0]), int64('m', [-1])],
  },
  'Reshape by a slice of Shape': {
    shape: image,
    lines: [
      ['Shape', 'x', 's'],
      ['Slice', 's a b a', 'l'],
      ['Cast', 'l', 'k', { to: 7 }],
      ['Concat', 'k m', 't', { axis: -1 }],
      ['Reshape', 'x t', 'y'],
    ],
    initializers: [int64('a', [0]), int64('b', [2]), int64('m', [-1])],
  },
  'Reshape by squeezed Shape': {
    shape: image,
    lines: [
      ['Shape', 'x', 's'],
      ['Gather', 's i', 'g', { axis: 0 }],
      ['Squeeze', 'g z', 'q'],
      ['Unsqueeze', 'q z', 'u'],
      ['Concat', 'u m', 't', { axis: 0 }],
      ['Reshape', 'x t', 'y'],
    ],
    initializers: [int64('z', [0]), int64('i', [-4]), int64('m', [-1])],
  },
  'Shape of two axes': {
    opset: 15,
    shape: image,
    lines: [
      ['Shape', 'x', 's', { start: 0, end: -2 }],
      ['Concat', 's m', 't', { axis: 0 }],
      ['Reshape', 'x t', 'y'],
    ],
    initializers: [int64('m', [-1])],
  },
  Transpose: single('Transpose', { perm: [0, 2, 3, 1] }),
  'Transpose of a weight': {
    shape: ['N', 4],
    lines: [
      ['Transpose', 'w', 't'],
      ['MatMul', 'x t', 'y'],
    ],
    initializers: [tensor('w', [3, 4])],
  },
  'Squeeze input': { shape: ['N', 1, 3, 1], lines: [['Squeeze', 'x a', 'y']], initializers: [int64('a', [-1, 1])] },
  'Squeeze attribute': { opset: 11, shape: ['N', 1, 3], lines: [['Squeeze', 'x', 'y', { axes: [1] }]] },
  'Unsqueeze input': { shape: ['N', 3], lines: [['Unsqueeze', 'x a', 'y']], initializers: [int64('a', [1, -1])] },
  'Unsqueeze attribute': { opset: 11, shape: ['N', 3], lines: [['Unsqueeze', 'x', 'y', { axes: [1] }]] },
  BatchNormalization: {
    shape: image,
    lines: [['BatchNormalization', 'x s b m v', 'y', { epsilon: 0.01 }]],
    initializers: bn,
  },
  'BatchNormalization rank 2': {
    opset: 9,
    shape: ['N', 2],
    lines: [['BatchNormalization', 'x s b m v', 'y', { momentum: 0.5 }]],
    initializers: bn,
  },
  MaxPool: single('MaxPool', { kernel_shape: [2, 3] }),
  'MaxPool strides, pads': single('MaxPool', { kernel_shape: [3, 2], strides: [2, 2], pads: [1, 1, 2, 0] }),
  'MaxPool dilations': single('MaxPool', { kernel_shape: [2, 2], dilations: [2, 3] }),
  'MaxPool SAME_UPPER': single('MaxPool', { kernel_shape: [3, 3], strides: [2, 2], auto_pad: 'SAME_UPPER' }),
  AveragePool: single('AveragePool', { kernel_shape: [2, 3], strides: [2, 1] }),
  'AveragePool without padding': single('AveragePool', { kernel_shape: [3, 2], pads: [1, 0, 2, 1] }),
  'AveragePool with padding': single('AveragePool', { kernel_shape: [3, 2], pads: [1, 0, 2, 1], count_include_pad: 1 }),
  'AveragePool SAME_LOWER': single('AveragePool', { kernel_shape: [2, 2], strides: [2, 1], auto_pad: 'SAME_LOWER' }),
  GlobalAveragePool: single('GlobalAveragePool'),
  ReduceSum: { shape: image, lines: [['ReduceSum', 'x a', 'y', { keepdims: 0 }]], initializers: [int64('a', [-1, 1])] },
  ReduceMean: single('ReduceMean', { axes: [2, 3] }),
  ReduceMax: single('ReduceMax', { axes: [-1], keepdims: 0 }),
  'Pad zero': { shape: image, lines: [['Pad', 'x p', 'y']], initializers: [int64('p', [0, 1, 0, 2, 0, 0, 3, 1])] },
  'Pad value': {
    shape: image,
    lines: [['Pad', 'x p v', 'y', { mode: 'constant' }]],
    initializers: [int64('p', [0, 1, 0, 2, 0, 0, 3, 1]), tensor('v', [])],
  },
  'Pad attribute': { ...single('Pad', { pads: [0, 0, 1, 1, 0, 0, 0, 2], value: 0.5 }), opset: 10 },
  'Pad axes': {
    opset: 18,
    shape: image,
    lines: [['Pad', 'x p - a', 'y']],
    initializers: [int64('p', [1, 2, 0, 3]), int64('a', [-1, 2])],
  },
  'Constant float': {
    shape: ['N', 3],
    lines: [
      ['Constant', '', 'c', { value: tensor('', [3]) }],
      ['Add', 'x c', 'y'],
    ],
  },
  Identity: {
    shape: ['N', 3],
    lines: [
      ['Identity', 'w', 'v'],
      ['Identity', 'x', 'z'],
      ['Mul', 'z v', 'y'],
    ],
    initializers: [tensor('w', [3])],
  },
  Dropout: {
    shape: ['N', 3],
    lines: [
      ['Dropout', 'x r', 'd'],
      ['Neg', 'd', 'y'],
    ],
    initializers: [tensor('r', [], 1, 0.1, 0.2)],
  },
  'Dropout before opset 12': {
    opset: 10,
    shape: ['N', 3],
    lines: [
      ['Dropout', 'x', 'd m', { ratio: 0.25 }],
      ['Neg', 'd', 'y'],
    ],
  },
  Expand: { shape: ['N', 1, 3], lines: [['Expand', 'x s', 'y']], initializers: [int64('s', [4, 3])] },
  'Expand with the batch': {
    shape: ['N', 1, 3],
    lines: [['Expand', 'x s', 'y']],
    initializers: [int64('s', [1, 4, 1])],
  },
}

const ALL = { ...CASES, ...OPS, ...STRUCTURE }
for (const [name, c] of Object.entries(ALL)) agrees(name, c)

test('every op that is read has a case', async () => {
  const { IMPORTS } = await import('../../src/format/onnx/ops.ts')
  const all = Object.values(ALL)
  const covered = new Set(all.flatMap(({ lines }) => lines.map(([op]) => op)))
  assert.equal(
    Object.keys(IMPORTS).filter((op) => !covered.has(op)),
    [],
  )
})

test('batch normalization computes what the deployed kernel computes, bit for bit', async () => {
  if (ort === undefined) return skipped('batch normalization bit for bit', 'onnxruntime-web is not installed')
  const { shape, lines, initializers } = CASES.BatchNormalization
  const bytes = modelOf(shape, lines, initializers, {})
  const data = draw([2, 2, 7, 6], 3)
  const theirs = await runtime(bytes, 'x', [2, 2, 7, 6], data)
  const f = Math.fround
  const [s, b, m, v] = bn.map((t) => t.data as Float32Array)
  const mine = data.map((x, i) => {
    const c = Math.floor(i / 42) % 2
    const factor = f(f(1 / f(Math.sqrt(f(v[c] + f(0.01))))) * s[c])
    return f(f(x * factor) + f(b[c] - f(m[c] * factor)))
  })
  assert.equal(mine, theirs)
})

// ---- export --------------------------------------------------------------------------------------------------------

const value = (name: string, shape: Shape, seed: number) => ({ node: input(name, shape), data: draw(shape, seed) })

/** Exports f of x, reads it back and compares both, and onnxruntime. */
const roundTrip = async (
  shape: Shape,
  f: (x: Tensor, p: (name: string, shape: Shape) => Tensor) => Operand,
  ops: readonly string[],
  // Constants of the graph that float32 does not hold are rounded.
  tolerance = 1e-12,
): Promise<void> => {
  const x = input('image', [1, ...shape])
  const given = new Map<Tensor, { name: string; data: Float32Array }>()
  const output = f(x, (name, s) => {
    const { node, data } = value(name, s, given.size + 10)
    given.set(node, { name, data })
    return node
  }) as Tensor
  const bytes = right(encodeOnnx({ name: 'net', input: x, output, parameters: given }))
  assert.equal(right(encodeOnnx({ name: 'net', input: x, output, parameters: given })), bytes)
  const text = new TextDecoder().decode(bytes)
  for (const op of ops) assert.ok(text.includes(op), `expected a node ${op}`)
  const model = right(decodeOnnx(bytes, 'net.onnx'))
  const data = draw([1, ...shape], 3)
  const [want] = await evaluate(reference())(
    [output],
    new Map<Tensor, Float64Array>([
      [x, Float64Array.from(data)],
      ...[...given].map(([t, { data: d }]) => [t, Float64Array.from(d)] as const),
    ]),
  )
  const got = await run(model, 1, data)
  assert.ok(deviation(got, want) < tolerance, `deviation ${deviation(got, want)}`)
  const three = draw([3, ...shape], 4)
  const batch = await run(model, 3, three)
  if (ort === undefined) return
  const theirs = await runtime(bytes, 'image', [3, ...shape], three)
  assert.ok(deviation(batch, theirs) < 1e-5, `onnxruntime: deviation ${deviation(batch, theirs)}`)
}

test('export: a convolution network with batch normalization, a residual and a normalized input', async () => {
  await roundTrip(
    [2, 8, 8],
    (x, p) => {
      const conv = (
        y: Operand,
        name: string,
        o: number,
        stride: number,
        padding: 0 | readonly [number, number, number, number],
      ) =>
        add(
          conv2d(y, p(`${name}.w`, [o, y.shape[1], 3, 3]), { stride, padding }),
          reshape(p(`${name}.b`, [o]), [o, 1, 1]),
        ) as Tensor
      const norm = (y: Operand) => {
        const c = y.shape[1]
        const lift = (name: string) => reshape(p(name, [c]), [c, 1, 1])
        const spread = sqrt(add(abs(lift('bn.var')), 0.0078125))
        return add(mul(div(sub(y, lift('bn.mean')), spread), lift('bn.scale')), lift('bn.shift')) as Tensor
      }
      const a = relu(
        norm(conv(div(sub(x, constant([0.5, 0.375], [2, 1, 1])), 0.25) as Tensor, 'c1', 3, 2, [1, 0, 1, 1])),
      )
      const b = relu(add(conv(a, 'c2', 3, 1, [1, 1, 1, 1]), a)) as Tensor
      const flat = reshape(b, [1, size(b.shape)])
      const hidden = relu(
        add(matmul(flat as Operand, p('f1.w', [5, flat.shape[1]]), { transB: true }), p('f1.b', [5])),
      ) as Tensor
      return add(matmul(hidden as Operand, p('f2.w', [5, 4]), {}), p('f2.b', [4]))
    },
    ['Conv', 'Gemm', 'Flatten', 'Sqrt', 'Relu'],
  )
})

for (const [name, make] of Object.entries(trained))
  test(`export: ${name} as it is trained, with its normalization`, async () => {
    const shape = name === 'small' || name === 'large' ? [1, 28, 28] : [3, 32, 32]
    const normalization = { mean: shape[0] === 1 ? [0.25] : [0.485, 0.456, 0.406], std: Array(shape[0]).fill(0.225) }
    const network = make({ input: shape, classes: 10, normalization })
    // Statistics of batch norm, too, are numbers like others here: a variance is not negative.
    const parameters = Object.fromEntries(
      Object.entries(network.init(key(3))).map(([k, p], i) => [
        k,
        p.length > 512 ? p : p.map((v, j) => v + 0.25 + 0.125 * Math.sin(i + j)),
      ]),
    )
    const bytes = right(encodeModelOnnx({ network, parameters, provenance: undefined }))
    const model = right(decodeOnnx(bytes, 'net.onnx'))
    const data = draw([2, ...shape], 5)
    const backend = right(await wasm({ threads: 1 })())
    const x = input('x', [2, ...shape])
    const logits = async (apply: Apply): Promise<ArrayLike<number>> =>
      (await evaluate(backend)([apply(x)], new Map([[x, data]])))[0]
    const constants = Object.fromEntries(
      Object.entries(parameters).map(([k, p]) => [k, constant(p, network.parameters[k].shape)]),
    )
    const want = await logits(network.apply(constants))
    assert.ok(deviation(await logits(model.network(parameterConstants(model))), want) < 1e-4)
    if (ort !== undefined)
      assert.ok(deviation(await runtime(bytes, 'input', [2, ...shape], data), want) < 1e-4, 'onnxruntime')
    backend.dispose()
  })

test('export: a product over the last axis of tokens and of maps', async () => {
  await roundTrip([5, 3], (x, p) => relu(matmul(x, p('w', [3, 4]))), ['MatMul'])
  await roundTrip([5, 2, 3], (x, p) => matmul(x, p('w', [4, 3]), { transB: true }), ['Transpose', 'MatMul'])
})

test('export: pools', async () => {
  await roundTrip([2, 8, 8], (x) => averagePool2d(maxPool2d(x, 2), 3, { stride: 1, padding: 1 }), [
    'MaxPool',
    'AveragePool',
  ])
  await roundTrip([2, 7, 8], (x) => maxPool2d(x, [3, 2], { stride: 2, padding: [1, 0, 2, 1] }), ['MaxPool', 'pads'])
  await roundTrip([2, 8, 8], (x) => mean(maxPool2d(x, [3, 2], { stride: 2, dilation: [2, 1] }), [2, 3]), [
    'MaxPool',
    'ReduceSum',
  ])
})

test('export: every op that has a rule', async () => {
  await roundTrip(
    [3, 4],
    (x, p) => {
      const positive = add(abs(x), 0.5) as Tensor
      const pieces: readonly Operand[] = [
        leakyRelu(0.25)(x),
        sigmoid(x),
        tanh(x),
        neg(x),
        exp(x),
        log(positive),
        sqrt(positive),
        maximum(x, 0.25) as Operand,
        minimum(p('low', [4]), x) as Operand,
        stopGradient(x),
        clip(x, -0.5, 0.75),
        clip(x, 0, Infinity),
        prelu(x, p('slopes', [3, 1])),
        elu(1.5)(x),
        softplus(x),
        softsign(x),
        erf(x),
        sin(x),
        cos(x),
        floor(x),
        round(x),
        sign(x),
        reciprocal(positive),
        broadcastTo(sum(x, 2, true), [1, 3, 4]),
        broadcastTo(max(x, [1, 2], true), [1, 3, 4]),
        reshape(transpose(x, [0, 2, 1]), [1, 3, 4]),
        broadcastTo(p('wide', [1, 4]), [1, 3, 4]),
      ]
      const total = pieces.reduce((a, b) => add(a, b) as Operand)
      return reshape(pad(total, [0, 1, 0], [0, 0, 2]), [1, 24])
    },
    ['LeakyRelu', 'Sigmoid', 'Expand', 'Pad', 'Transpose', 'ReduceMax', 'Identity', 'Clip', 'PRelu', 'Erf', 'Floor'],
  )
})

test('export: transposed and grouped convolutions, softmax, pools that leave the padding out', async () => {
  await roundTrip(
    [4, 5, 6],
    (x, p) => {
      const a = conv2d(x, p('a', [6, 2, 3, 3]), { groups: 2, padding: 1 }) as Tensor
      const pooled = averagePool2d(a, 3, { stride: 2, padding: 1, countPadding: false })
      const larger = convTranspose2d(pooled, p('b', [6, 1, 3, 2]), {
        stride: 2,
        padding: 1,
        outputPadding: 1,
        groups: 3,
      })
      return add(softmax(larger, 1), logSoftmax(larger, 3)) as Tensor
    },
    ['Conv', 'ConvTranspose', 'AveragePool', 'Softmax', 'LogSoftmax'],
  )
  await roundTrip([2, 7, 6], (x) => maxPool2d(x, 3, { stride: 2, ceil: true }), ['MaxPool'])
})

test('export: an op without a rule of its own is written as what it is made of', async () => {
  await roundTrip(
    [3, 4],
    (x, p) => {
      const made = [
        gelu()(x),
        gelu('tanh')(x),
        silu(x),
        mish(x),
        hardSwish(x),
        pow(3)(x),
        pow(-2)(add(abs(x), 1) as Tensor),
      ]
      const total = made.reduce((a, b) => add(a, b) as Tensor)
      return mul(total, pow(2)(p('w', [4]))) as Tensor
    },
    ['Erf', 'Tanh', 'Sigmoid', 'Clip', 'Reciprocal'],
    1e-7,
  )
  await roundTrip([4], (x) => gelu()(x), ['Identity'], 1e-7)
})

test('export: an op of one that has the name of another is written as what it is', async () => {
  const [rule, none] = [unsupported('it is a test'), () => []]
  const twice = custom({ name: 'relu', forward: ([x]) => add(x, x), vjp: none, interval: rule, relax: rule })
  await roundTrip([4], (x) => mul(twice(x), 3) as Tensor, ['Add', 'Mul'])
})

test('export: parameters that are constants, computed weights, an output that is the input', async () => {
  await roundTrip([4], (x, p) => matmul(x as Operand, mul(p('w', [4, 3]), scalar(2)) as Operand, {}), ['Gemm', 'Mul'])
  await roundTrip([4], (x, p) => add(matmul(x as Operand, p('w', [4, 3]), {}), neg(p('b', [3]))), ['Gemm', 'Neg'])
  await roundTrip([4], (x) => x, ['Identity'])
})

test('export: what cannot be written is named', () => {
  const x = input('x', [1, 4])
  const encode = (output: Tensor, parameters = new Map<Tensor, { name: string; data: Float32Array }>()) =>
    left(encodeOnnx({ name: 'net', input: x, output, parameters }))
  assert.is(
    encode(gather(x, constant([0], [1]))),
    'exporting gather([1,4], [1]) to ONNX is not supported: there is no rule for this op',
  )
  assert.match(encode(add(x, input('w', [4])) as Tensor), /input\(\).*neither the input nor a parameter/)
  assert.match(encode(reshape(x, [4, 1])), /merges the batch axis/)
  assert.match(encode(sum(x)), /reduces the batch axis/)
  assert.match(encode(transpose(x, [1, 0])), /moves the batch axis/)
  assert.match(encode(constant([1], [1, 1])), /does not depend on the input/)
  assert.match(encode(matmul(x as Operand, x as Operand, { transB: true }) as Tensor), /depends on the input/)
  assert.match(encode(add(x, constant([1, 2], [2, 1])) as Tensor), /batch as the first axis/)
  const w = input('w', [4])
  assert.match(encode(add(x, w) as Tensor, new Map([[w, { name: 'w', data: new Float32Array(3) }]])), /has 3 elements/)
  assert.match(
    encode(add(x, w) as Tensor, new Map([[w, { name: 'x', data: new Float32Array(4) }]])),
    /"x" is empty or used twice/,
  )
})

test('export: metadata come back, whatever the order', () => {
  const x = input('x', [1, 2])
  const encode = (metadata: Readonly<Record<string, string>>) =>
    right(encodeOnnx({ name: 'n', input: x, output: relu(x), parameters: new Map(), metadata }))
  const bytes = encode({ b: 'zwei', a: 'eins' })
  assert.equal(encode({ a: 'eins', b: 'zwei' }), bytes)
  const model = right(decodeOnnx(bytes, 'f'))
  assert.equal({ ...model.metadata }, { a: 'eins', b: 'zwei' })
  assert.is(model.producer, 'mixtrain')
  assert.is(model.opset, 13)
})

// ---- what is refused -----------------------------------------------------------------------------------------------

const refused = (expected: RegExp, bytes: Uint8Array): void => {
  const message = left(decodeOnnx(bytes, 'file.onnx'))
  assert.match(message, /^file\.onnx \(/)
  assert.match(message, expected)
}
const one = (shape: readonly (number | string)[], line: Line, initializers: readonly TensorData[] = [], opset = 13) =>
  modelOf(shape, [line], initializers, { opset })

test('attributes and ops that are not supported are named with their node', () => {
  refused(/node 0 "n0" \(Det\)\): the op "Det" is not supported/, one(['N', 3], ['Det', 'x', 'y']))
  refused(
    /\(Conv\)\): attribute group: 3 does not divide 2 channels and 3 output channels/,
    one(image, ['Conv', 'x w', 'y', { group: 3 }], [tensor('w', [3, 1, 3, 3])]),
  )
  refused(
    /\(Conv\)\): input 1 \[2,2,3,3\] has weights for 2 groups of 2 channels, the input has 2/,
    one(image, ['Conv', 'x w', 'y', { group: 2 }], [tensor('w', [2, 2, 3, 3])]),
  )
  refused(/attribute auto_pad: "SAME" is not supported/, one(image, ['Conv', 'x w', 'y', { auto_pad: 'SAME' }], [w3]))
  refused(/exclude each other/, one(image, ['Conv', 'x w', 'y', { auto_pad: 'VALID', pads: [1, 1, 1, 1] }], [w3]))
  refused(/attribute kernel_shape: \[2,2\]/, one(image, ['Conv', 'x w', 'y', { kernel_shape: [2, 2] }], [w3]))
  refused(
    /attribute strides: expected 2 numbers >= 1, found \[0,1\]/,
    one(image, ['Conv', 'x w', 'y', { strides: [0, 1] }], [w3]),
  )
  refused(/attribute pads: expected 4 numbers >= 0/, one(image, ['Conv', 'x w', 'y', { pads: [-1, 0, 0, 0] }], [w3]))
  refused(
    /input 1 \[2,3,1,1\] has weights for 3 channels, the input has 2/,
    one(image, ['Conv', 'x w', 'y'], [tensor('w', [2, 3, 1, 1])]),
  )
  refused(/does not fit/, one(image, ['Conv', 'x w', 'y'], [tensor('w', [2, 2, 9, 1])]))
  refused(
    /must be less than the window/,
    one(image, ['MaxPool', 'x', 'y', { kernel_shape: [2, 2], pads: [2, 0, 0, 0] }]),
  )
  refused(/attribute "foo" is not supported/, one(['N', 3], ['Relu', 'x', 'y', { foo: 1 }]))
  refused(/attribute axis: expected int, found ints/, one(image, ['Flatten', 'x', 'y', { axis: [1] }]))
  refused(
    /attribute mode: "mirror"/,
    one(image, ['Pad', 'x p', 'y', { mode: 'mirror' }], [int64('p', [0, 0, 1, 1, 0, 0, 1, 1])]),
  )
  refused(/attribute training_mode/, one(image, ['BatchNormalization', 'x s b m v', 'y', { training_mode: 1 }], bn))
  refused(
    /attribute alpha: expected a finite number, found NaN/,
    one(['N', 3], ['LeakyRelu', 'x', 'y', { alpha: Number.NaN }]),
  )
  refused(/attribute alpha: expected a number > 0, found -1/, one(['N', 3], ['Celu', 'x', 'y', { alpha: -1 }]))
  refused(
    /input 1 must be a parameter that broadcasts to \[N,3\], found \[2\]/,
    one(['N', 3], ['PRelu', 'x a', 'y'], [tensor('a', [2])]),
  )
  refused(/input 1 must be one number, found 2/, one(['N', 3], ['Pow', 'x a', 'y'], [int64('a', [1, 2])]))
  refused(
    /attribute approximate: expected "none" or "tanh", found "fast"/,
    one(['N', 3], ['Gelu', 'x', 'y', { approximate: 'fast' }], [], 20),
  )
  refused(/opset 6 is not supported; 7 to 25 are/, one(['N', 3], ['Relu', 'x', 'y'], [], 6))
})

test('the batch must stay the first axis', () => {
  const reshapeOf = (target: readonly number[], shape: readonly (number | string)[] = image) =>
    one(shape, ['Reshape', 'x t', 'y'], [int64('t', target)])
  refused(/mixes the images of a batch/, reshapeOf([-1, 42]))
  refused(/mixes the images of a batch/, reshapeOf([-1, 0, 3]))
  refused(/must stay the first/, reshapeOf([2, 42]))
  refused(/must stay the first/, reshapeOf([-1]))
  refused(/do not fill the shape/, reshapeOf([0, 5]))
  refused(/is not valid/, reshapeOf([0, -2]))
  refused(/is not valid/, reshapeOf([0, -1, -1]))
  refused(/copies axis 4/, reshapeOf([0, 2, 7, 6, 0]))
  refused(/moves the batch axis/, one(image, ['Transpose', 'x', 'y']))
  refused(/removes the batch axis/, one(['N', 3], ['Squeeze', 'x a', 'y'], [int64('a', [0])]))
  refused(/takes parts of the batch axis/, one(['N', 3], ['Gather', 'x a', 'y'], [int64('a', [0])]))
  refused(/takes parts of the batch axis/, one(['N', 3], ['Slice', 'x a b', 'y'], [int64('a', [0]), int64('b', [1])]))
  refused(/something beside the batch/, one(['N', 3], ['Concat', 'x x', 'y', { axis: 0 }]))
  refused(/splits the batch axis/, one(['N', 3], ['Split', 'x', 'y', { axis: 0 }]))
  refused(/repeats the batch axis/, one(['N', 3], ['Tile', 'x r', 'y'], [int64('r', [2, 1])]))
  refused(/multiplies over the batch axis/, one(['N', 3], ['MatMul', 'w x', 'y'], [tensor('w', [2, 1])]))
  refused(/before the batch/, one(['N', 3], ['Unsqueeze', 'x a', 'y'], [int64('a', [0])]))
  refused(/merges the batch axis/, one(image, ['Flatten', 'x', 'y', { axis: 2 }]))
  refused(/merges the batch axis/, one(image, ['Flatten', 'x', 'y', { axis: 0 }]))
  refused(/batch as the first axis/, one(['N', 3], ['Add', 'x b', 'y'], [tensor('b', [2, 3])]))
  refused(/batch as the first axis/, one(['N', 3], ['Add', 'x b', 'y'], [tensor('b', [1, 2, 3])]))
  refused(/reduces the batch axis/, one(['N', 3], ['ReduceMax', 'x', 'y']))
  refused(/pads the batch axis/, one(['N', 3], ['Pad', 'x p', 'y'], [int64('p', [1, 0, 0, 0])]))
  refused(/repeats the batch/, one(['N', 3], ['Expand', 'x s', 'y'], [int64('s', [5, 3])]))
  refused(
    /moves or merges the batch axis/,
    modelOf(
      ['N', 3],
      [
        ['Shape', 'x', 's'],
        ['Gather', 's i', 't'],
        ['Reshape', 'x t', 'y'],
      ],
      [int64('i', [1, 0])],
    ),
  )
})

test('inputs and outputs', () => {
  refused(/extent 1 must be a number >= 1, not "M"/, one(['N', 'M'], ['Relu', 'x', 'y']))
  refused(/extent 1 must be a number >= 1, not -3/, one(['N', -3], ['Relu', 'x', 'y']))
  refused(/extent 0 must be a number >= 1, not "N"/, one(['N'], ['Relu', 'x', 'y']))
  refused(/an empty batch: give the batch a name/, one([0, 3], ['Relu', 'x', 'y']))
  refused(/extent 1 must be a number >= 1/, one([1, 'M'], ['Relu', 'x', 'y']))
  refused(/too large/, one(['N', 2 ** 40, 2 ** 40], ['Relu', 'x', 'y']))
  refused(
    /the file says \[N,4\], but the graph computes \[N,3\]/,
    modelOf(['N', 3], [['Relu', 'x', 'y']], [], { output: { name: 'y', shape: ['N', 4] } }),
  )
  refused(/no node computes it/, modelOf(['N', 3], [['Relu', 'x', 'z']]))
  refused(/does not depend on the input/, modelOf(['N', 3], [['Relu', 'w', 'y']], [tensor('w', [3])]))
  refused(/does not depend on the input/, modelOf(['N', 3], [['Shape', 'x', 'y']]))
})

test('names: missing, twice, in a circle', () => {
  refused(/input "w" is not defined/, one(['N', 3], ['Add', 'x w', 'y']))
  refused(/input 1 is missing/, one(['N', 3], ['Gemm', 'x', 'y']))
  refused(
    /in order, without cycles/,
    modelOf(
      ['N', 3],
      [
        ['Add', 'x b', 'a'],
        ['Relu', 'a', 'b'],
        ['Relu', 'b', 'y'],
      ],
    ),
  )
  refused(/in order, without cycles/, modelOf(['N', 3], [['Add', 'x y', 'y']]))
  refused(
    /the name "y" is defined twice/,
    modelOf(
      ['N', 3],
      [
        ['Relu', 'x', 'y'],
        ['Neg', 'x', 'y'],
      ],
    ),
  )
  refused(
    /the name "x" is defined twice/,
    modelOf(
      ['N', 3],
      [
        ['Relu', 'x', 'x'],
        ['Neg', 'x', 'y'],
      ],
    ),
  )
  refused(/the name "w" is defined twice/, one(['N', 3], ['Add', 'x w', 'y'], [tensor('w', [3]), tensor('w', [3])]))
  refused(
    /only the first output of Dropout/,
    modelOf(
      ['N', 3],
      [
        ['Dropout', 'x', 'd m'],
        ['Add', 'x m', 'y'],
      ],
    ),
  )
  refused(
    /attribute "axis" is given twice/,
    wire(
      wireNode(
        'Flatten',
        ['x'],
        ['y'],
        field(5, bytesOf(field(1, utf8('axis')), field(3, 1))),
        field(5, bytesOf(field(1, utf8('axis')), field(3, 1))),
      ),
    ),
  )
})

test('tensors of the file', () => {
  const sum2 = wireNode('Add', ['x', 'w'], ['y'])
  const good = right(decodeOnnx(wire(sum2, wireTensor('w', [2], 1, field(9, floats(1, 2)))), 'f'))
  // Listed among the inputs, as files of IR version 3 have it: what agrees is read, what does not is refused with both declarations.
  const stored = wireTensor('w', [2], 1, field(9, floats(1, 2)))
  const listed = (...infos: readonly Uint8Array[]) => wire(sum2, stored, ...infos.map((i) => field(11, i)))
  for (const shape of [[2], ['n']]) assert.ok(E.isRight(decodeOnnx(listed(typed('w', shape)), 'f')))
  refused(
    /graph input "w".*the file says \[3\], but the initializer of that name is float32 \[2\]/,
    listed(typed('w', [3])),
  )
  refused(/graph input "w".*the file says \[2,1\], but/, listed(typed('w', [2, 1])))
  refused(/graph input "w".*the file says \["n",2\], but/, listed(typed('w', ['n', 2])))
  refused(
    /graph input "w".*the file says float64, but the initializer of that name is float32 \[2\]/,
    listed(typed('w', [2], 11)),
  )
  refused(/graph input "w".*listed twice/, listed(typed('w', [2]), typed('w', [2])))
  refused(/graph input "x".*listed twice/, listed(typed('x', ['N', 2])))
  assert.equal(good.parameters.get('w')?.data, Float32Array.of(1, 2))
  // What the file says of values in between: what agrees, or says nothing, is read.
  const nodes = [
    wireNode('Relu', ['x'], ['h']),
    wireNode('Shape', ['h'], ['s']),
    wireNode('Reshape', ['h', 's'], ['r']),
  ]
  const said = (...infos: readonly Uint8Array[]) =>
    wire(...nodes, wireNode('Add', ['r', 'w'], ['y']), stored, ...infos.map((i) => field(13, i)))
  const fine = [
    typed('h', ['N', 2]),
    typed('h', [1, 2]),
    typed('h', [0, 0]),
    typed('h', ['n', 'm'], 11),
    typed('w', [2], 11),
  ]
  for (const info of [...fine, typed('s', [2], 7), typed('elsewhere', [5])])
    assert.ok(E.isRight(decodeOnnx(said(info), 'f')))
  refused(/value "h"\): the file says \[1,3\], but the graph computes \[N,2\]/, said(typed('h', [1, 3])))
  refused(/value "h"\): the file says \[1,2,1\], but/, said(typed('h', [1, 2, 1])))
  refused(/value "h"\): the file says \[\], but/, said(typed('h', [])))
  for (const type of [7, 10, 9])
    refused(/value "h"\): the file says .*, but the graph computes float32/, said(typed('h', ['N', 2], type)))
  refused(/value "s"\): the file says float32, but the graph computes int64/, said(typed('s', [2], 1)))
  refused(/value "s"\): the file says \[3\], but/, said(typed('s', [3], 7)))
  refused(/value "h"\): the file says \[1,3\], but/, said(typed('h', [1, 2]), typed('h', [1, 3])))
  const packed = right(decodeOnnx(wire(sum2, wireTensor('w', [2], 1, field(4, floats(1, 2)))), 'f'))
  assert.equal(packed.parameters.get('w')?.data, Float32Array.of(1, 2))
  const single4 = (v: number) => bytesOf(Uint8Array.of(4 * 8 + 5), floats(v))
  const loose = right(decodeOnnx(wire(sum2, wireTensor('w', [2], 1, single4(1), single4(2))), 'f'))
  assert.equal(loose.parameters.get('w')?.data, Float32Array.of(1, 2))
  refused(
    /tensor "w"\): expected 8 bytes of data for shape \[2\], found 12/,
    wire(sum2, wireTensor('w', [2], 1, field(9, floats(1, 2, 3)))),
  )
  refused(/expected 2 elements for shape \[2\], found 1/, wire(sum2, wireTensor('w', [2], 1, field(4, floats(1)))))
  refused(
    /raw data and typed data/,
    wire(sum2, wireTensor('w', [2], 1, field(4, floats(1, 2)), field(9, floats(1, 2)))),
  )
  refused(/expected float32 data, found float64/, wire(sum2, wireTensor('w', [2], 11, field(9, new Uint8Array(16)))))
  refused(/expected float32 data, found float16/, wire(sum2, wireTensor('w', [2], 10, field(9, new Uint8Array(4)))))
  refused(
    /expected int64 data|integer tensor, expected float32|expected float32/,
    wire(sum2, wireTensor('w', [2], 7, field(9, new Uint8Array(16)))),
  )
  refused(
    /external data/,
    wire(
      sum2,
      wireTensor(
        'w',
        [2],
        1,
        field(13, bytesOf(field(1, utf8('location')), field(2, utf8('/etc/passwd')))),
        field(14, 1),
      ),
    ),
  )
  refused(/more elements than any file holds/, wire(sum2, wireTensor('w', [2 ** 30, 2 ** 30], 1)))
  refused(/expected 1073741824 elements.*found 0/, wire(sum2, wireTensor('w', [2 ** 30], 1)))
  refused(/no elements/, wire(sum2, wireTensor('w', [0], 1)))
  const minus = Uint8Array.of(8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1)
  refused(/shape \[-1\] is not valid/, wire(sum2, field(5, bytesOf(minus, field(2, 1), field(8, utf8('w'))))))
  refused(/it holds float64 data/, wire(sum2, wireTensor('w', [2], 1, field(10, new Uint8Array(16)))))
  refused(/9 axes; at most 8/, wire(sum2, wireTensor('w', [1, 1, 1, 1, 1, 1, 1, 1, 2], 1, field(9, floats(1, 2)))))
  const unpackedShape = wire(wireNode('Reshape', ['x', 't'], ['y']), wireTensor('t', [2], 7, field(7, 0), field(7, 2)))
  assert.ok(E.isRight(decodeOnnx(unpackedShape, 'f')))
  const narrow = wire(wireNode('Reshape', ['x', 't'], ['y']), wireTensor('t', [2], 6, field(5, Uint8Array.of(0, 2))))
  assert.ok(E.isRight(decodeOnnx(narrow, 'f')))
  refused(/expected 2 integers/, wire(wireNode('Reshape', ['x', 't'], ['y']), wireTensor('t', [2], 7, field(7, 1))))
  refused(
    /expected int64 data, found float32/,
    wire(wireNode('Reshape', ['x', 't'], ['y']), wireTensor('t', [2], 1, field(9, floats(0, 2)))),
  )
})

test('bytes that are no model', () => {
  refused(/truncated or damaged/, utf8('{"not": "onnx"}'))
  refused(/byte \d+, node 0\): .*truncated/, wire(field(1, Uint8Array.of(10, 99, 1))))
  refused(/byte \d+, .*wire type/, wire(field(1, Uint8Array.of(8, 1))))
  refused(/damaged/, wire(wireNode('Relu', ['x'], ['y'], field(3, Uint8Array.of(0xff, 0xfe)))))
  refused(/IR version/, new Uint8Array())
  refused(/no graph/, bytesOf(field(1, 8), field(8, field(2, 13))))
  refused(/two graphs/, bytesOf(wire(), wire()))
  refused(
    /one version of the standard opset, found 13 and 14/,
    bytesOf(wire(wireNode('Relu', ['x'], ['y'])), field(8, field(2, 14))),
  )
  refused(/one version of the standard opset, found none/, bytesOf(field(1, 8), field(7, new Uint8Array())))
  refused(/functions are not supported/, bytesOf(wire(wireNode('Relu', ['x'], ['y'])), field(25, new Uint8Array())))
  refused(/op "Relu" of domain "com.acme"/, wire(wireNode('Relu', ['x'], ['y'], field(7, utf8('com.acme')))))
  refused(
    /key "a" occurs twice/,
    bytesOf(wire(wireNode('Relu', ['x'], ['y'])), field(14, field(1, utf8('a'))), field(14, field(1, utf8('a')))),
  )
})

test('files that ask for much more than they hold are refused at once', () => {
  const start = process.cpuUsage()
  refused(
    /more than 1000000 parts/,
    field(
      7,
      new Uint8Array(2_200_000).map((_, i) => (i % 2 === 0 ? 10 : 0)),
    ),
  )
  refused(/a string of 1100000 bytes/, wire(wireNode('x'.repeat(1_100_000), ['x'], ['y'])))
  const double = Array.from({ length: 40 }, (_, i): Line => ['Concat', `s${i} s${i}`, `s${i + 1}`, { axis: 0 }])
  refused(
    /computes more than \d+ numbers/,
    modelOf(['N', 3], [['Shape', 'x', 's0'], ...double, ['Reshape', 'x s40', 'y']]),
  )
  refused(/value of shape \[N,/, one(image, ['Pad', 'x p', 'y'], [int64('p', [0, 0, 0, 0, 0, 0, 2 ** 30, 2 ** 30])]))
  refused(
    /more than \d+ elements an image/,
    one(['N', 1, 100000, 1], ['MaxPool', 'x', 'y', { kernel_shape: [50000, 1] }]),
  )
  refused(/a value of shape \[N,/, one(['N', 1, 3], ['Expand', 'x s', 'y'], [int64('s', [2 ** 50, 3])]))
  const wide = Array.from(
    { length: 20000 },
    (_, i): Line => ['Relu', i === 0 ? 'x' : `r${i - 1}`, i === 19999 ? 'y' : `r${i}`],
  )
  assert.ok(E.isRight(decodeOnnx(modelOf(['N', 3], wide, [], { output: { name: 'y', shape: ['N', 3] } }), 'deep')))
  assert.ok(process.cpuUsage(start).user < 5e6, 'more than 5 seconds of computing')
})

test('damaged files are refused or read as a network of their own, never more', () => {
  const files = Object.values(ALL).map((c) => modelOf(c.shape, c.lines, c.initializers, { opset: c.opset ?? 13 }))
  const real = ['randconv_a', 'resnet_s', 'mixtrain_small_0.3.dynreshape'].flatMap((name) => {
    const path = shared(`models/${name}.onnx`)
    return path === undefined ? [] : [new Uint8Array(readFileSync(path))]
  })
  let accepted = 0
  const check = (bytes: Uint8Array): void => {
    const result = decodeOnnx(bytes, 'f')
    if (E.isLeft(result)) return
    accepted++
    const model = result.right
    const total = [...model.parameters.values()].reduce((n, { data }) => n + data.byteLength, 0)
    assert.ok(total <= bytes.length)
    const params = new Map([...model.parameters].map(([name, { shape }]) => [name, input(name, shape)]))
    assert.equal(model.network(params)(input('x', [2, ...model.input.shape])).shape, [2, ...model.output.shape])
  }
  const damage = fc.array(
    fc.tuple(fc.constantFrom('set', 'flip', 'cut', 'insert', 'drop', 'copy'), fc.nat(), fc.nat(255)),
    {
      minLength: 1,
      maxLength: 4,
    },
  )
  const apply = (
    bytes: Uint8Array,
    steps: readonly (readonly [string, number, number])[],
    header: number,
  ): Uint8Array =>
    steps.reduce((b, [how, where, v]) => {
      if (b.length === 0) return b
      // Weights are most of a real file; damage where the structure is.
      const at = where % Math.min(b.length, header)
      if (how === 'cut') return b.slice(0, at)
      if (how === 'insert') return bytesOf2(b.subarray(0, at), Uint8Array.of(v), b.subarray(at))
      if (how === 'drop') return bytesOf2(b.subarray(0, at), b.subarray(at + 1 + (v % 16)))
      if (how === 'copy') return bytesOf2(b.subarray(0, at), b.subarray(Math.max(0, at - (v % 64)), at), b.subarray(at))
      const out = b.slice()
      out[at] = how === 'set' ? v : out[at] ^ (1 << (v & 7))
      return out
    }, bytes)
  const bytesOf2 = (...parts: readonly Uint8Array[]): Uint8Array => {
    const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0))
    let at = 0
    for (const p of parts) {
      out.set(p, at)
      at += p.length
    }
    return out
  }
  fc.assert(
    fc.property(fc.nat(files.length - 1), damage, (i, steps) =>
      check(apply(files[i], steps, Number.POSITIVE_INFINITY)),
    ),
    { numRuns: 8000 },
  )
  if (real.length === 0) skipped('damaged real models', 'shared/models is absent')
  else
    fc.assert(
      fc.property(fc.nat(real.length - 1), damage, (i, steps) => check(apply(real[i], steps, 2000))),
      { numRuns: 1000 },
    )
  assert.ok(accepted > 100, `${accepted} damaged files were still models`)
})

test('hostile numbers in attributes and shapes are refused or mean what they say', () => {
  const numbers = [0, 1, -1, 2, 3, -2, 7, 84, 7919, 65536, -(2 ** 31), 2 ** 31, 2 ** 40, 2 ** 53, -(2 ** 62), 2 ** 62]
  const all = Object.values(ALL)
  const pick = fc.tuple(fc.nat(), fc.nat(), fc.constantFrom(...numbers))
  let accepted = 0
  fc.assert(
    fc.property(fc.constantFrom(...all), fc.array(pick, { minLength: 1, maxLength: 3 }), (c, steps) => {
      const lines = c.lines.map(([op, i, o, a]): [string, string, string, Record<string, unknown>] => [
        op,
        i,
        o,
        { ...a },
      ])
      const stored = (c.initializers ?? []).map((t) => ({ ...t, shape: [...t.shape], data: t.data }))
      const lists: (readonly [{ [key: string]: unknown }, string])[] = [
        ...lines.flatMap(([, , , a]) => Object.keys(a).map((k) => [a, k] as const)),
        ...stored.map((t) => [t as { [key: string]: unknown }, 'data'] as const),
      ]
      for (const [which, where, v] of steps) {
        if (lists.length === 0) return
        const [owner, k] = lists[which % lists.length]
        const old = owner[k]
        if (typeof old === 'number' && !FLOATS.includes(k)) owner[k] = v
        else if (Array.isArray(old) && old.length > 0)
          owner[k] = old.map((d, i) => (i === where % old.length ? (typeof d === 'bigint' ? BigInt(v) : v) : d))
      }
      const bytes = modelOf(c.shape, lines as unknown as readonly Line[], stored as unknown as readonly TensorData[], {
        opset: c.opset ?? 13,
      })
      const result = decodeOnnx(bytes, 'f')
      if (E.isLeft(result)) return
      accepted++
      const { network, input: x, output, parameters } = result.right
      const params = new Map([...parameters].map(([name, { shape }]) => [name, input(name, shape)]))
      for (const n of [1, 2]) assert.equal(network(params)(input('x', [n, ...x.shape])).shape, [n, ...output.shape])
    }),
    { numRuns: 4000 },
  )
  assert.ok(accepted > 100)
})

test('random bytes are refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (noise) => {
      assert.ok(E.isLeft(decodeOnnx(noise, 'f')))
    }),
    { numRuns: 3000 },
  )
  assert.ok(E.isLeft(decodeOnnx(new Uint8Array(bits(key(1), 1000).buffer), 'f')))
})

test('a network asks for its parameters and its input by shape', () => {
  const model = right(decodeOnnx(one(['N', 4], ['Gemm', 'x w', 'y'], [tensor('w', [4, 3])]), 'f'))
  assert.throws(() => model.network(new Map()), /parameter "w", which is not given/)
  assert.throws(() => model.network(new Map([['w', input('w', [3, 4])]])), /expected \[4,3\], found \[3,4\]/)
  assert.throws(() => model.network(parameterConstants(model))(input('x', [2, 5])), /takes \[n,4\]/)
})

test.run()
