import type { TensorData } from '../../src/format/onnx/proto.ts'
import { type Case, int64, type Line, tensor } from './onnx-models.ts'

/** One case and more of every op of the families whose values are compared with onnxruntime's. */

const image = ['N', 2, 7, 6] as const
const row = ['N', 4, 9] as const

const one = (op: string, given?: Line[3], range?: readonly [number, number], opset = 13): Case => ({
  shape: image,
  lines: [[op, 'x', 'y', given]],
  opset,
  ...(range === undefined ? {} : { range }),
})
const wide = [-9, 9] as const
const number = (name: string, value: number): TensorData => ({ name, shape: [], data: Float32Array.of(value) })
const floats = (name: string, values: readonly number[]): TensorData => ({
  name,
  shape: [values.length],
  data: Float32Array.from(values),
})
const several = (op: string): Case => ({
  shape: image,
  lines: [[op, 'x a b', 'y']],
  initializers: [tensor('a', [6]), tensor('b', [2, 1, 1], 8)],
})
const powerOf = (exponent: number, range?: readonly [number, number]): Case => ({
  shape: image,
  lines: [['Pow', 'x p', 'y']],
  initializers: [number('p', exponent)],
  ...(range === undefined ? {} : { range }),
})

const activations: Readonly<Record<string, Case>> = {
  'Clip of two limits': {
    shape: image,
    lines: [['Clip', 'x l h', 'y']],
    initializers: [number('l', -0.5), number('h', 0.75)],
  },
  'Clip below': { shape: image, lines: [['Clip', 'x l', 'y']], initializers: [number('l', -0.5)] },
  'Clip above': { shape: image, lines: [['Clip', 'x - h', 'y']], initializers: [number('h', 0.25)] },
  'Clip of nothing': { shape: image, lines: [['Clip', 'x', 'y']] },
  'Clip by attributes': one('Clip', { min: -1, max: 0.5 }, undefined, 10),
  'Clip by one attribute': one('Clip', { max: 6 }, wide, 6 + 1),
  'Clip where the limits cross': {
    shape: image,
    lines: [['Clip', 'x l h', 'y']],
    initializers: [number('l', 0.5), number('h', -0.25)],
  },
  Elu: one('Elu', { alpha: 0.5 }),
  'Elu, steep': one('Elu', { alpha: 1.75 }),
  'Elu, negative': one('Elu', { alpha: -0.5 }),
  'Elu default': one('Elu'),
  Selu: one('Selu'),
  'Selu of its own': one('Selu', { alpha: 0.5, gamma: 2 }),
  Celu: one('Celu', { alpha: 0.5 }),
  'Celu default': one('Celu'),
  'PRelu per channel': {
    shape: image,
    lines: [['PRelu', 'x a', 'y']],
    initializers: [tensor('a', [2, 1, 1], 3, -1, 3)],
  },
  'PRelu of one': { shape: image, lines: [['PRelu', 'x a', 'y']], initializers: [tensor('a', [1], 3, -1, 3)] },
  'PRelu of a batch of one': {
    shape: image,
    lines: [['PRelu', 'x a', 'y']],
    initializers: [tensor('a', [1, 2, 1, 6])],
  },
  'LeakyRelu beyond 1': one('LeakyRelu', { alpha: 1.5 }),
  'LeakyRelu, falling': one('LeakyRelu', { alpha: -0.5 }),
  Gelu: one('Gelu', {}, wide, 20),
  'Gelu by tanh': one('Gelu', { approximate: 'tanh' }, wide, 20),
  Softplus: one('Softplus', {}, [-40, 40]),
  Softsign: one('Softsign', {}, wide),
  HardSigmoid: one('HardSigmoid', {}, wide),
  'HardSigmoid of its own': one('HardSigmoid', { alpha: 0.5, beta: 0.25 }, wide),
  HardSwish: one('HardSwish', {}, wide, 14),
  Mish: one('Mish', {}, wide, 18),
  ThresholdedRelu: one('ThresholdedRelu', { alpha: 0.4 }),
  'ThresholdedRelu, negative': one('ThresholdedRelu', { alpha: -0.4 }),
  Erf: one('Erf', {}, [-5, 5]),
  Sin: one('Sin', {}, [-100, 100]),
  Cos: one('Cos', {}, [-100, 100]),
  Sign: one('Sign'),
  Floor: one('Floor', {}, wide),
  Ceil: one('Ceil', {}, wide),
  Round: one('Round', {}, wide),
  Reciprocal: one('Reciprocal', {}, [0.2, 3]),
}

export const OPS: Readonly<Record<string, Case>> = {
  'Conv in groups': {
    shape: image,
    lines: [['Conv', 'x w c', 'y', { group: 2, kernel_shape: [3, 2], strides: [2, 1], pads: [1, 0, 2, 1] }]],
    initializers: [tensor('w', [4, 1, 3, 2]), tensor('c', [4])],
  },
  'Conv depthwise, dilated': {
    shape: image,
    lines: [['Conv', 'x w', 'y', { group: 2, dilations: [2, 1], pads: [0, 1, 1, 1] }]],
    initializers: [tensor('w', [2, 1, 2, 3])],
  },
  'Conv of rows': {
    shape: row,
    lines: [['Conv', 'x w c', 'y', { kernel_shape: [3], strides: [2], pads: [1, 2], dilations: [2] }]],
    initializers: [tensor('w', [3, 4, 3]), tensor('c', [3])],
  },
  'Conv of rows in groups, SAME_UPPER': {
    shape: row,
    lines: [['Conv', 'x w', 'y', { group: 2, strides: [2], auto_pad: 'SAME_UPPER' }]],
    initializers: [tensor('w', [6, 2, 4])],
  },
  'MaxPool of rows': { shape: row, lines: [['MaxPool', 'x', 'y', { kernel_shape: [3], strides: [2], pads: [1, 1] }]] },
  'AveragePool of rows': { shape: row, lines: [['AveragePool', 'x', 'y', { kernel_shape: [4], pads: [2, 1] }]] },
  ...activations,
  GlobalMaxPool: one('GlobalMaxPool'),
  ...Object.fromEntries(
    ['ReduceL1', 'ReduceL2', 'ReduceLogSumExp', 'ReduceMax', 'ReduceMean', 'ReduceMin', 'ReduceSumSquare'].flatMap(
      (op) => [
        [`${op} of the last axes`, one(op, { axes: [2, -1], keepdims: 0 })],
        [`${op} of channels`, one(op, { axes: [-3] })],
      ],
    ),
  ),
  ReduceLogSum: one('ReduceLogSum', { axes: [1] }, [0.2, 3]),
  'ReduceMin with axes as an input': {
    opset: 18,
    shape: image,
    lines: [['ReduceMin', 'x a', 'y', { keepdims: 0 }]],
    initializers: [int64('a', [1, -1])],
  },
  'ReduceMean of no axes': {
    opset: 18,
    shape: image,
    lines: [['ReduceMean', 'x', 'y', { noop_with_empty_axes: 1 }]],
  },
  'Sum of three': several('Sum'),
  'Mean of three': several('Mean'),
  'Sum of one': { shape: image, lines: [['Sum', 'x', 'y']] },
  'Pow 2': powerOf(2),
  'Pow 3': powerOf(3),
  'Pow -1': powerOf(-1, [0.3, 2]),
  'Pow -2': powerOf(-2, [-2, -0.5]),
  'Pow 0': powerOf(0),
  'Pow 1/2': powerOf(0.5, [0.1, 3]),
  'Pow 2.5': powerOf(2.5, [0.1, 3]),
  'Pow with an integer': { shape: image, lines: [['Pow', 'x p', 'y']], initializers: [int64('p', [3], [])] },
  Softmax: { shape: ['N', 5], lines: [['Softmax', 'x', 'y']] },
  'Softmax of channels': one('Softmax', { axis: 1 }),
  'Softmax before opset 13': one('Softmax', { axis: 2 }, undefined, 11),
  'Softmax before opset 13, by default': one('Softmax', {}, undefined, 11),
  LayerNormalization: {
    opset: 17,
    shape: image,
    lines: [['LayerNormalization', 'x s b', 'y', { epsilon: 0.01 }]],
    initializers: [tensor('s', [image[3] as number]), tensor('b', [image[3] as number])],
  },
  'LayerNormalization of images, without bias': {
    opset: 17,
    shape: image,
    lines: [['LayerNormalization', 'x s', 'y', { axis: 1 }]],
    initializers: [tensor('s', image.slice(1) as number[])],
  },
  LogSoftmax: one('LogSoftmax', { axis: -2 }, wide),
  'MaxPool rounded up': one('MaxPool', { kernel_shape: [2, 3], strides: [2, 2], ceil_mode: 1 }),
  'MaxPool rounded up where it makes no difference': one('MaxPool', {
    kernel_shape: [2, 2],
    strides: [1, 2],
    ceil_mode: 1,
  }),
  'MaxPool rounded up, a window less': one('MaxPool', {
    kernel_shape: [2, 2],
    strides: [3, 3],
    pads: [0, 0, 1, 1],
    ceil_mode: 1,
  }),
  'AveragePool rounded up': one('AveragePool', { kernel_shape: [2, 3], strides: [2, 2], ceil_mode: 1 }),
  ConvTranspose: {
    shape: image,
    lines: [['ConvTranspose', 'x w c', 'y', { strides: [2, 3], pads: [1, 0, 0, 1], output_padding: [1, 2], group: 2 }]],
    initializers: [tensor('w', [2, 3, 3, 4]), tensor('c', [6])],
  },
  'ConvTranspose of rows': {
    shape: row,
    lines: [['ConvTranspose', 'x w', 'y', { strides: [2], dilations: [2] }]],
    initializers: [tensor('w', [4, 2, 3])],
  },
  'ConvTranspose SAME_UPPER': {
    shape: image,
    lines: [['ConvTranspose', 'x w', 'y', { strides: [2, 2], auto_pad: 'SAME_UPPER' }]],
    initializers: [tensor('w', [2, 3, 3, 3])],
  },
  'ConvTranspose SAME_LOWER': {
    shape: image,
    lines: [['ConvTranspose', 'x w', 'y', { strides: [2, 2], auto_pad: 'SAME_LOWER' }]],
    initializers: [tensor('w', [2, 3, 3, 3])],
  },
  'ConvTranspose to a shape': {
    shape: image,
    lines: [['ConvTranspose', 'x w', 'y', { strides: [2, 2], output_shape: [14, 12] }]],
    initializers: [tensor('w', [2, 3, 3, 3])],
  },
  'Upsample by whole factors': {
    opset: 9,
    shape: image,
    lines: [['Upsample', 'x s', 'y', { mode: 'nearest' }]],
    initializers: [floats('s', [1, 1, 2, 3])],
  },
  'Resize by whole factors': {
    shape: image,
    lines: [['Resize', 'x - s', 'y', { mode: 'nearest' }]],
    initializers: [floats('s', [1, 1, 2, 2])],
  },
  'Resize before opset 11': {
    opset: 10,
    shape: image,
    lines: [['Resize', 'x s', 'y', { mode: 'nearest' }]],
    initializers: [floats('s', [1, 1, 1.5, 0.5])],
  },
  'Resize to hard-coded sizes': {
    shape: ['N', 2, 7, 6],
    lines: [
      [
        'Resize',
        'x - - t',
        'y',
        { mode: 'nearest', coordinate_transformation_mode: 'asymmetric', nearest_mode: 'floor' },
      ],
    ],
    initializers: [int64('t', [1, 2, 5, 9])],
  },
}
