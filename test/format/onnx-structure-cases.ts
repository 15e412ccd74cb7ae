import { type Case, int64, type Line, tensor } from './onnx-models.ts'

/** Files that take tensors apart and put them together, constants that are computed when a file is read, and all forms of a batch. */

const image = ['N', 2, 7, 6] as const
const of = (
  shape: Case['shape'],
  lines: readonly Line[],
  initializers: Case['initializers'] = [],
  opset = 13,
): Case => ({
  shape,
  lines,
  initializers,
  opset,
})
const whole = (c: Case): Case => ({ ...c, whole: true })
const ends = 2 ** 53

export const STRUCTURE: Readonly<Record<string, Case>> = {
  // ---- apart and together ----
  'Concat of feature maps': of(image, [
    ['Relu', 'x', 'a'],
    ['Neg', 'x', 'b'],
    ['Concat', 'a x b', 'y', { axis: 1 }],
  ]),
  'Concat along the last axis': of(image, [
    ['Relu', 'x', 'a'],
    ['Concat', 'a x', 'y', { axis: -1 }],
  ]),
  'Concat with a parameter, hard-coded batch': of(
    [1, 2, 3],
    [['Concat', 'x p', 'y', { axis: 1 }]],
    [tensor('p', [1, 4, 3])],
  ),
  'Concat over the batch axis of one image': whole(
    of(
      [1, 3],
      [
        ['Neg', 'x', 'a'],
        ['Concat', 'a x p', 'y', { axis: 0 }],
      ],
      [tensor('p', [2, 3])],
    ),
  ),
  'Concat of parameters': of(
    ['N', 4],
    [
      ['Concat', 'a b', 'w', { axis: 1 }],
      ['MatMul', 'x w', 'y'],
    ],
    [tensor('a', [4, 2]), tensor('b', [4, 3])],
  ),
  Slice: of(image, [['Slice', 'x s e a', 'y']], [int64('s', [1, 2]), int64('e', [2, ends]), int64('a', [1, 3])]),
  'Slice with steps': of(
    image,
    [['Slice', 'x s e a t', 'y']],
    [int64('s', [1, 0]), int64('e', [6, ends]), int64('a', [-2, -1]), int64('t', [2, 3])],
  ),
  'Slice backwards, from behind, over the end': of(
    image,
    [['Slice', 'x s e a t', 'y']],
    [int64('s', [-1, 100]), int64('e', [-100, -6]), int64('a', [2, 3]), int64('t', [-2, -1])],
  ),
  'Slice without axes': of(image, [['Slice', 'x s e', 'y']], [int64('s', [0, 1, -3]), int64('e', [ends, 2, -1])]),
  'Slice before opset 10': of(image, [['Slice', 'x', 'y', { starts: [1, -4], ends: [2, 100], axes: [1, 2] }]], [], 9),
  'Slice of one image of a batch of one': whole(
    of([1, 3], [['Slice', 'x s e', 'y']], [int64('s', [0]), int64('e', [1])]),
  ),
  'Split into equal parts': of(image, [
    ['Split', 'x', 'a b', { axis: 3 }],
    ['Sub', 'b a', 'y'],
  ]),
  'Split by sizes': of(
    image,
    [
      ['Split', 'x s', 'a b c', { axis: 2 }],
      ['Concat', 'c b a', 'y', { axis: 2 }],
    ],
    [int64('s', [1, 4, 2])],
  ),
  'Split before opset 13': of(
    image,
    [
      ['Split', 'x', 'a b', { axis: -2, split: [5, 2] }],
      ['Concat', 'b a', 'y', { axis: 2 }],
    ],
    [],
    11,
  ),
  'Split by number, the last part smaller': of(
    image,
    [
      ['Split', 'x', 'a b c', { axis: 2, num_outputs: 3 }],
      ['Concat', 'c a b', 'y', { axis: 2 }],
    ],
    [],
    18,
  ),
  'Gather of a row': of(image, [['Gather', 'x i', 'y', { axis: 2 }]], [int64('i', [-2], [])]),
  'Gather of a table': of(image, [['Gather', 'x i', 'y', { axis: 3 }]], [int64('i', [5, 0, 2, 4, 3, 2], [2, 3])]),
  'Gather of a parameter': of(
    ['N', 4],
    [
      ['Gather', 'w i', 'v', { axis: 1 }],
      ['MatMul', 'x v', 'y'],
    ],
    [tensor('w', [4, 5]), int64('i', [3, 3, 0])],
  ),
  GatherElements: whole(
    of([1, 3, 4], [['GatherElements', 'x i', 'y', { axis: 2 }]], [int64('i', [0, 3, 1, 1, 2, 0], [1, 3, 2])]),
  ),
  GatherND: whole(of([1, 3, 4], [['GatherND', 'x i', 'y']], [int64('i', [0, 2, 0, 0, 0, 1], [3, 2])])),
  'ScatterND into a value': whole(
    of([1, 3, 4], [['ScatterND', 'x i u', 'y']], [int64('i', [0, 2, 0, 0], [2, 2]), tensor('u', [2, 4])]),
  ),
  'ScatterND of a value': whole(
    of([2, 4], [['ScatterND', 'p i x', 'y']], [tensor('p', [3, 4]), int64('i', [2, 0], [2, 1])]),
  ),
  Tile: of(['N', 1, 2, 3], [['Tile', 'x r', 'y']], [int64('r', [1, 3, 1, 2])]),
  'Pad by torch, opset 11': of(
    image,
    [
      ['Constant', '', 'p', { value: int64('', [1, 2, 0, 1]) }],
      ['Shape', 'x', 'xs'],
      ['Size', 'xs', 'rank'],
      ['Mul', 'rank two', 'all'],
      ['Sub', 'all four', 'missing'],
      ['Unsqueeze', 'missing z', 'list'],
      ['ConstantOfShape', 'list', 'zeros', { value: int64('', [0]) }],
      ['Concat', 'p zeros', 'pads', { axis: 0 }],
      ['Reshape', 'pads pairs', 'rows'],
      ['Slice', 'rows m1 low z m1', 'turned'],
      ['Transpose', 'turned', 'columns', { perm: [1, 0] }],
      ['Reshape', 'columns m1', 'flat'],
      ['Cast', 'flat', 'ints', { to: 7 }],
      ['Pad', 'x ints v', 'y', { mode: 'constant' }],
    ],
    [
      int64('two', [2], []),
      int64('four', [4], []),
      int64('z', [0]),
      int64('m1', [-1]),
      int64('low', [-ends]),
      int64('pairs', [-1, 2]),
      tensor('v', [], 1, 0.25, 0.5),
    ],
  ),
  'Pad by less than nothing': of(image, [['Pad', 'x p', 'y']], [int64('p', [0, 0, -1, 2, 0, 1, -2, -1])]),
  'Pad reflect': of(image, [['Pad', 'x p', 'y', { mode: 'reflect' }]], [int64('p', [0, 0, 2, 1, 0, 0, 1, 3])]),
  'Pad edge': of(image, [['Pad', 'x p', 'y', { mode: 'edge' }]], [int64('p', [0, 1, 2, 0, 0, 0, 1, 3])]),
  'Pad wrap': of(image, [['Pad', 'x p', 'y', { mode: 'wrap' }]], [int64('p', [0, 0, 2, 1, 0, 0, 1, 3])], 19),
  'Reshape allowzero': of(['N', 6], [['Reshape', 'x t', 'y', { allowzero: 1 }]], [int64('t', [-1, 6])], 14),

  // ---- what is known when the file is read ----
  'Constant value_float': {
    ...of(
      ['N', 3],
      [
        ['Constant', '', 'c', { value_float: 0.375 }],
        ['Mul', 'x c', 'y'],
      ],
    ),
  },
  'Constant value_ints': of(
    ['N', 6],
    [
      ['Constant', '', 't', { value_ints: [0, 2, 3] }],
      ['Reshape', 'x t', 'y'],
    ],
  ),
  'Cast of an integer': of(
    ['N', 3],
    [
      ['Cast', 'i', 'f', { to: 1 }],
      ['Add', 'x f', 'y'],
    ],
    [int64('i', [3, -2, 7])],
  ),
  'a shape by arithmetic': of(
    image,
    [
      ['Shape', 'x', 's'],
      ['Gather', 's i1', 'c'],
      ['Gather', 's i2', 'h'],
      ['Gather', 's i3', 'w'],
      ['Mul', 'c h', 'ch'],
      ['Mul', 'ch w', 'chw'],
      ['Div', 'chw two', 'half'],
      ['Add', 'half zero', 'kept'],
      ['Max', 'kept one', 'more'],
      ['Min', 'more many', 'less'],
      ['Mod', 'less many', 'mod'],
      ['Neg', 'mod', 'minus'],
      ['Abs', 'minus', 'plus'],
      ['Unsqueeze', 'plus z', 'list'],
      ['Concat', 'm1 list two1', 'pre', { axis: 0 }],
      ['Equal', 'pre m1', 'open'],
      ['Where', 'open zero1 pre', 't'],
      ['Reshape', 'x t', 'y'],
    ],
    [
      ...[1, 2, 3].map((i) => int64(`i${i}`, [i], [])),
      int64('two', [2], []),
      int64('zero', [0], []),
      int64('one', [1], []),
      int64('many', [1000], []),
      int64('z', [0]),
      int64('zero1', [0]),
      int64('two1', [2]),
      int64('m1', [-1]),
    ],
  ),
  'a shape by floats': of(
    ['N', 1, 5],
    [
      ['Shape', 'x', 's'],
      ['Gather', 's i', 'w'],
      ['Cast', 'w', 'f', { to: 1 }],
      ['Mul', 'f scale', 'scaled'],
      ['Floor', 'scaled', 'low'],
      ['Ceil', 'low', 'up'],
      ['Round', 'up', 'whole'],
      ['Cast', 'whole', 'n', { to: 7 }],
      ['Unsqueeze', 'n z', 'list'],
      ['Concat', 'ones list five', 't', { axis: 0 }],
      ['Expand', 'x t', 'y'],
    ],
    [int64('i', [2], []), tensor('scale', [], 1, 1.2, 1.35), int64('z', [0]), int64('ones', [1]), int64('five', [5])],
  ),
  'ConstantOfShape beside the batch': of(
    ['N', 2, 3],
    [
      ['Shape', 'x', 's'],
      ['Gather', 's z', 'n'],
      ['Concat', 'n rest', 't', { axis: 0 }],
      ['ConstantOfShape', 't', 'c', { value: tensor('', [1]) }],
      ['Add', 'c p', 'q'],
      ['Concat', 'q x', 'y', { axis: 1 }],
    ],
    [int64('z', [0]), int64('rest', [1, 3]), tensor('p', [1, 1, 3])],
  ),
  'Expand to the batch': of(
    ['N', 2, 3],
    [
      ['Shape', 'x', 's'],
      ['Slice', 's z one', 'n'],
      ['Concat', 'n rest', 't', { axis: 0 }],
      ['Expand', 'p t', 'q'],
      ['Concat', 'x q', 'y', { axis: 2 }],
    ],
    [int64('z', [0]), int64('one', [1]), int64('rest', [2, 4]), tensor('p', [1, 2, 1])],
  ),
  'indices by Range, OneHot and comparisons': of(
    ['N', 6],
    [
      ['Range', 'zero six two', 'even'],
      ['Gather', 'x even', 'a', { axis: 1 }],
      ['OneHot', 'even six onoff', 'hot', { axis: -1 }],
      ['Cast', 'hot', 'm', { to: 1 }],
      ['MatMul', 'a m', 'spread'],
      ['Range', 'zero six one', 'all'],
      ['Less', 'all four', 'low'],
      ['GreaterOrEqual', 'all two', 'high'],
      ['And', 'low high', 'between'],
      ['Not', 'between', 'outside'],
      ['LessOrEqual', 'all two', 'q'],
      ['Greater', 'all four', 'r'],
      ['Or', 'q r', 'u'],
      ['Xor', 'u outside', 'v'],
      ['Where', 'v spread x', 'w'],
      ['ArgMax', 'all', 'last', { axis: 0 }],
      ['ArgMin', 'all', 'first', { axis: 0 }],
      ['Concat', 'last first', 'both', { axis: 0 }],
      ['Gather', 'x both', 'g', { axis: 1 }],
      ['NonZero', 'between', 'hits'],
      ['Squeeze', 'hits z', 'places'],
      ['Gather', 'x places', 'k', { axis: 1 }],
      ['ReduceProd', 'both1', 'p', { keepdims: 1 }],
      ['Concat', 'm1 p', 't', { axis: 0 }],
      ['Concat', 'w g k', 'c', { axis: 1 }],
      ['Reshape', 'c t', 'y'],
    ],
    [
      ...(
        [
          ['zero', 0],
          ['six', 6],
          ['two', 2],
          ['one', 1],
          ['four', 4],
        ] as const
      ).map(([n, v]) => int64(n, [v], [])),
      int64('onoff', [0, 1]),
      int64('z', [0]),
      int64('m1', [-1]),
      int64('both1', [2, 5]),
    ],
  ),
  'ScatterND and GatherND of indices': of(
    ['N', 5],
    [
      ['ScatterND', 'base at new', 'i'],
      ['GatherND', 'i two', 'j'],
      ['GatherElements', 'i perm', 'k', { axis: 0 }],
      ['Concat', 'j k', 'l', { axis: 0 }],
      ['Tile', 'l twice', 'm'],
      ['Gather', 'x m', 'y', { axis: 1 }],
    ],
    [
      int64('base', [0, 1, 2, 3]),
      int64('at', [2, 0], [2, 1]),
      int64('new', [4, 3]),
      int64('two', [1, 2], [2, 1]),
      int64('perm', [3, 3, 0, 1]),
      int64('twice', [2]),
    ],
  ),
  'Where of a mask': of(
    ['N', 4],
    [
      ['Greater', 'i two', 'c'],
      ['Where', 'c x p', 'y'],
    ],
    [int64('i', [1, 3, 2, 9]), int64('two', [2], []), tensor('p', [1, 4])],
  ),
  'Sum of three': of(['N', 3], [['Sum', 'x x p', 'y']], [tensor('p', [3])]),
  'Sum of one': of(
    ['N', 3],
    [
      ['Relu', 'x', 'r'],
      ['Sum', 'r', 'y'],
    ],
  ),

  // ---- matrix products ----
  'MatMul, parameter on the left': of(['N', 3, 5], [['MatMul', 'w x', 'y']], [tensor('w', [4, 3])]),
  'MatMul, parameter on the left, rank 4': of(['N', 2, 3, 5], [['MatMul', 'w x', 'y']], [tensor('w', [1, 1, 4, 3])]),
  'MatMul with a vector': of(['N', 2, 5], [['MatMul', 'x v', 'y']], [tensor('v', [5])]),
  'MatMul of a vector': of(['N', 3, 5], [['MatMul', 'v x', 'y']], [tensor('v', [3])]),
  'MatMul with a stack of one': of(['N', 3, 5], [['MatMul', 'x w', 'y']], [tensor('w', [1, 5, 2])]),
  'MatMul with a stack': of(['N', 3, 4, 5], [['MatMul', 'x w', 'y']], [tensor('w', [3, 5, 2])]),
  'MatMul with a stack on the left, broadcast': of(['N', 1, 4, 5], [['MatMul', 'w x', 'y']], [tensor('w', [3, 2, 4])]),
  'MatMul with a stack in front of the batch of one': whole(
    of([1, 4, 5], [['MatMul', 'x w', 'y']], [tensor('w', [3, 5, 2])]),
  ),
  'MatMul over the batch axis of one image': whole(of([1, 4], [['MatMul', 'w x', 'y']], [tensor('w', [3, 1])])),
  'MatMul of two values': of(
    ['N', 2, 3, 4],
    [
      ['Transpose', 'x', 't', { perm: [0, 1, 3, 2] }],
      ['MatMul', 'x t', 'y'],
    ],
  ),
  'MatMul of two values, broadcast': of(
    ['N', 2, 3, 4],
    [
      ['ReduceSum', 'x a', 'r', { keepdims: 1 }],
      ['Transpose', 'r', 't', { perm: [0, 1, 3, 2] }],
      ['MatMul', 'x t', 'y'],
    ],
    [int64('a', [1])],
  ),
  'Gemm transA of one image': whole(
    of(
      [1, 4],
      [['Gemm', 'x w c', 'y', { transA: 1, alpha: 0.5, beta: 2 }]],
      [tensor('w', [1, 3]), tensor('c', [4, 1])],
    ),
  ),
  'Gemm of a parameter and an image': whole(
    of([4, 2], [['Gemm', 'w x', 'y', { transA: 1, transB: 0 }]], [tensor('w', [4, 3])]),
  ),
  'Gemm of a parameter and an image, transB': whole(
    of([4, 2], [['Gemm', 'w x', 'y', { transB: 1 }]], [tensor('w', [3, 2])]),
  ),

  // ---- the batch ----
  'no batch axis': whole(
    of(
      [5],
      [
        ['MatMul', 'x w', 'h'],
        ['Add', 'h b', 'a'],
        ['Relu', 'a', 'r'],
        ['MatMul', 'v r', 'y'],
      ],
      [tensor('w', [5, 4]), tensor('b', [4]), tensor('v', [3, 4])],
    ),
  ),
  'no batch axis, a number': whole(of([4], [['ReduceSum', 'x a', 'y', { keepdims: 0 }]], [int64('a', [0])])),
  'no batch axis, an axis added and removed': whole(
    of(
      [4],
      [
        ['Unsqueeze', 'x z', 'row'],
        ['Gemm', 'row w b', 'h', { transB: 1 }],
        ['Squeeze', 'h z', 's'],
        ['Concat', 's x', 'y', { axis: 0 }],
      ],
      [int64('z', [0]), tensor('w', [3, 4]), tensor('b', [3])],
    ),
  ),
  'a batch of twelve, mixed': whole(
    of(
      [12, 3],
      [
        ['Gemm', 'x w b', 'h'],
        ['Relu', 'h', 'r'],
        ['Split', 'r', 'p q', { axis: 0 }],
        ['Sub', 'q p', 'd'],
        ['ReduceMax', 'd', 'm', { axes: [0], keepdims: 0 }],
        ['Transpose', 'd', 't', { perm: [1, 0] }],
        ['Reshape', 't flat', 'f'],
        ['Concat', 'm f', 'y', { axis: 0 }],
      ],
      [tensor('w', [3, 4]), tensor('b', [4]), int64('flat', [-1])],
    ),
  ),
  'images in a batch of three': whole(
    of(
      [3, 2, 6, 5],
      [
        ['Conv', 'x w c', 'a', { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }],
        ['BatchNormalization', 'a s b m v', 'n'],
        ['MaxPool', 'n', 'p', { kernel_shape: [2, 2], strides: [2, 2] }],
        ['Flatten', 'p', 'f', { axis: 1 }],
        ['Gemm', 'f g', 'y'],
      ],
      [
        tensor('w', [2, 2, 3, 3]),
        tensor('c', [2]),
        ...['s', 'b', 'm'].map((n, i) => tensor(n, [2], 3 + i)),
        tensor('v', [2], 6, 0.1, 2),
        tensor('g', [12, 2]),
      ],
    ),
  ),
  'a batch of one, reduced and moved': whole(
    of(
      [1, 3, 4],
      [
        ['Transpose', 'x', 't', { perm: [1, 0, 2] }],
        ['ReduceMean', 't', 'm', { axes: [0], keepdims: 1 }],
        ['Add', 't m', 'a'],
        ['Squeeze', 'a one', 's'],
        ['Pad', 's p', 'q'],
        ['Reshape', 'q shape', 'y'],
      ],
      [int64('one', [1]), int64('p', [1, 0, 0, 2]), int64('shape', [2, 2, 6])],
    ),
  ),
  'a batch of one, broadcast against more rows': whole(
    of(
      [1, 3],
      [
        ['Add', 'x p', 'a'],
        ['Expand', 'x e', 'b'],
        ['Max', 'a b', 'y'],
      ],
      [tensor('p', [2, 3]), int64('e', [2, 3])],
    ),
  ),
  'a batch of one, Flatten at 0 and 2': whole(
    of(
      [1, 3, 4],
      [
        ['Flatten', 'x', 'f', { axis: 2 }],
        ['Flatten', 'f', 'y', { axis: 0 }],
      ],
    ),
  ),
  'a batch of one, Transpose without perm': whole(of([1, 3, 4], [['Transpose', 'x', 'y']])),
  'a batch of one, Unsqueeze in front': whole(of([1, 3], [['Unsqueeze', 'x a', 'y']], [int64('a', [0])])),
  'a batch of one, tiled': whole(of([1, 3], [['Tile', 'x r', 'y']], [int64('r', [2, 2])])),
  'a batch of -1': of([-1, 3], [['Relu', 'x', 'y']]),
}
