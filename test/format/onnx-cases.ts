import { type Case, tensor } from './onnx-models.ts'

/** One case and more of every op of the families whose values are compared with onnxruntime's. */

const image = ['N', 2, 7, 6] as const
const row = ['N', 4, 9] as const

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
}
