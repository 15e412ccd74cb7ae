import type { Op } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import type { Spec } from './property.ts'

/** One call of an op: operands with their domains, and attributes. */
export interface Example {
  readonly label: string
  readonly inputs: readonly Spec[]
  readonly attrs: unknown
  /** Sets of boxed operands for which the bound walk must succeed; for others it may refuse, but never be wrong. */
  readonly walks: readonly (readonly number[])[]
}

/** How far f32 backends may be from the f64 reference on the same (f32) inputs. */
export type Accuracy =
  /** The f64 result rounded to f32, bit by bit. */
  | { readonly kind: 'exact' }
  /** A step to the next number, which is finer in f64: the numbers next to the result, or the finite ones next to infinity. */
  | { readonly kind: 'neighbour' }
  /** Units in the last place of the result. */
  | { readonly kind: 'ulp'; readonly ulps: number }
  /** An absolute error, times 1 + |result|: of a sum that cancels. */
  | { readonly kind: 'absolute'; readonly error: number }
  /** gamma_n times the same op on magnitudes, n terms in any order. */
  | { readonly kind: 'sum'; readonly terms: (shapes: readonly S.Shape[], attrs: unknown, out: S.Shape) => number }
  /** log(sum(exp)): (n + 10) u + 4 u (|result| + log n). */
  | { readonly kind: 'logSumExp'; readonly terms: (shapes: readonly S.Shape[], attrs: unknown, out: S.Shape) => number }

export interface Entry {
  // biome-ignore lint/suspicious/noExplicitAny: records of every attribute type
  readonly op: Op<any>
  readonly examples: readonly Example[]
  /** Calls that must raise: shapes of the inputs, attributes. */
  readonly wrong: readonly { readonly shapes: readonly S.Shape[]; readonly attrs?: unknown }[]
  readonly accuracy: Accuracy
  /** Rounding of [x, x] -> [f(x), f(x)] in units in the last place of f64; 0 where not said. */
  readonly thinUlps?: number
}

const spec =
  (low: number, high: number, box = true) =>
  (...shape: number[]): Spec => ({ shape, low, high, box })
const real = spec(-3, 3)
const point = spec(-3, 3, false)
const positive = spec(0.3, 4)
const negative = spec(-4, -0.5)
/** Whole numbers in [0, n). */
const index = (n: number, shape: readonly number[], box = false): Spec => ({
  shape,
  low: 0,
  high: n,
  integer: true,
  box,
})

const example = (inputs: readonly Spec[], walks: readonly (readonly number[])[] = [], attrs?: unknown): Example => ({
  label: `${inputs.map((i) => S.show(i.shape)).join(' ')}${attrs === undefined ? '' : ` ${JSON.stringify(attrs)}`}`,
  inputs,
  attrs,
  walks,
})

/** An example with the attributes that a public function computes. */
const call = (
  f: (...xs: Tensor[]) => Tensor,
  inputs: readonly Spec[],
  walks: readonly (readonly number[])[] = [],
): Example => example(inputs, walks, f(...inputs.map((s, i) => O.input(`x${i}`, s.shape))).attrs)

type Maker = (...shape: number[]) => Spec
const unary = (of: Maker): readonly Example[] => [
  example([of(2, 3)], [[0]]),
  example([of()]),
  example([of(1, 5, 1)], [[0]]),
  example([of(17)], [[0]]),
  example([of(0, 3)]),
]
const binary = (a: Maker, b: Maker, both: boolean): readonly Example[] => [
  example([a(2, 3), b(2, 3)], both ? [[0], [1], [0, 1]] : [[0], [1]]),
  example([a(2, 1, 3), b(4, 1)]),
  example([a(2, 3), b(3)], [[0]]),
  example([a(), b(3, 2)], [[1]]),
  example([a(2, 3), b()], [[0]]),
  example([a(1, 3), b(2, 1)]),
  example([a(5), b(5)]),
  example([a(0, 3), b(3)]),
]
const doNotBroadcast = [
  {
    shapes: [
      [2, 3],
      [2, 4],
    ],
  },
  {
    shapes: [
      [2, 3],
      [3, 2],
    ],
  },
]
const exact: Accuracy = { kind: 'exact' }
const absolute = (error: number): Accuracy => ({ kind: 'absolute', error })
const ulp = (ulps: number): Accuracy => ({ kind: 'ulp', ulps })
const unaryEntry = (op: Op<undefined>, accuracy: Accuracy, of: Maker = real, walks = true): Entry => ({
  op,
  examples: walks ? unary(of) : unary(of).map((e) => ({ ...e, walks: [] })),
  wrong: [],
  accuracy,
})
const binaryEntry = (op: Op<undefined>, both: boolean, b: Maker = real): Entry => ({
  op,
  examples: binary(real, b, both),
  wrong: doNotBroadcast,
  accuracy: exact,
})

const matmuls: readonly Example[] = [
  [false, false],
  [false, true],
  [true, false],
  [true, true],
].flatMap(([transA, transB]) => {
  const a = transA ? [3, 2] : [2, 3]
  const b = transB ? [4, 3] : [3, 4]
  const walks = transA ? [] : [[0]]
  return [
    example([real(...a), real(...b)], walks, { transA, transB }),
    example([real(2, ...a), real(2, ...b)], [[0], [1], [0, 1]], { transA, transB }),
    example([real(2, ...a), real(...b)], [[0]], { transA, transB }),
    example([real(...a), real(2, ...b)], [[1]], { transA, transB }),
    example([real(2, 2, ...a), real(...b)], [[0]], { transA, transB }),
    example([real(...a), real(2, 1, ...b)], [[1]], { transA, transB }),
    example([real(2, 2, ...a), real(2, 2, ...b)], [[0], [1], [0, 1]], { transA, transB }),
  ]
})

const windows: readonly O.WindowOptions[] = [
  {},
  { stride: 2, padding: 1 },
  { stride: [1, 2], padding: [0, 1, 2, 0] },
  { dilation: [2, 1], padding: [1, 0] },
]
const convs = windows.map((w) => call((x, y) => O.conv2d(x, y, w), [real(2, 2, 4, 5), real(3, 2, 2, 3)], [[0]]))
const geometry = (e: Example): O.Conv => e.attrs as O.Conv
/** Channels in groups: two of two, and as many as channels. */
const grouped = windows.flatMap((w) => [
  call((x, y) => O.conv2d(x, y, { ...w, groups: 2 }), [real(2, 4, 4, 5), real(6, 2, 2, 3)], [[0]]),
  call((x, y) => O.conv2d(x, y, { ...w, groups: 3 }), [real(2, 3, 4, 5), real(3, 1, 2, 3)], [[0]]),
])
const convOut = (e: Example): Spec => real(2, e.inputs[1].shape[0], ...geometry(e).y)
const grids = windows.map((w) => call((x) => O.unfold(x, [2, 3], w), [real(2, 2, 4, 5)], [[0]]))
const conv: O.Conv = geometry(convs[0])

const inner = (shapes: readonly S.Shape[], attrs: unknown): number => {
  const { transA } = attrs as O.Matmul
  return shapes[0][shapes[0].length - (transA ? 2 : 1)]
}
const reduced = ([x]: readonly S.Shape[], attrs: unknown): number => S.size((attrs as O.Axes).axes.map((a) => x[a]))
const taps = (_: readonly S.Shape[], attrs: unknown): number => S.size((attrs as O.Conv).w)

const reductions = (walkable: boolean): readonly Example[] => [
  example([real(2, 3, 4)], walkable ? [[0]] : [], { axes: [1], keep: false }),
  example([real(2, 3, 4)], walkable ? [[0]] : [], { axes: [1, 2], keep: false }),
  example([real(2, 3, 4)], walkable ? [[0]] : [], { axes: [2], keep: true }),
  example([real(2, 1, 3)], walkable ? [[0]] : [], { axes: [1], keep: false }),
  example([real(3, 4)], [], { axes: [0], keep: false }),
  example([real(3, 4)], [], { axes: [0, 1], keep: true }),
  example([real(7)], [], { axes: [0], keep: false }),
]
/** Windows that reach over the border: stride, padding on two or four sides, dilation. */
const pooled = (
  [
    [{ stride: 2, padding: 1 }, [4, 5]],
    [{ stride: [1, 2], padding: [0, 1, 1, 0] }, [4, 5]],
    [{ dilation: [2, 1], padding: [1, 0] }, [4, 5]],
    [{ dilation: 2, padding: 1 }, [3, 3]],
  ] as const
).map(([options, [h, w]]) => {
  const g = O.unfold(O.input('x', [2, 2, h, w]) as Tensor, 2, options).attrs as O.Conv
  return { ...g, axes: [4], keep: false }
})
const wrongAxes = [
  { shapes: [[2, 3]], attrs: { axes: [2], keep: false } },
  { shapes: [[2, 3]], attrs: { axes: [-1], keep: false } },
  { shapes: [[2, 3]], attrs: { axes: [0.5], keep: true } },
  { shapes: [[2, 3]], attrs: { axes: [1, 1], keep: false } },
]

/** One entry for every record of the registry. */
export const entries: readonly Entry[] = [
  binaryEntry(O.addOp, true),
  binaryEntry(O.subOp, true),
  binaryEntry(O.mulOp, true),
  {
    ...binaryEntry(O.divOp, true, positive),
    examples: [...binary(real, positive, true), example([real(2, 3), negative(2, 3)], [[0], [1], [0, 1]])],
    thinUlps: 2,
  },
  unaryEntry(O.negOp, exact),
  unaryEntry(O.absOp, exact),
  unaryEntry(O.signOp, exact),
  unaryEntry(O.stepOp, exact),
  binaryEntry(O.minimumOp, true),
  binaryEntry(O.maximumOp, true),
  binaryEntry(O.greaterOp, true),
  binaryEntry(O.greaterEqualOp, true),
  {
    ...binaryEntry(O.equalOp, true),
    examples: [
      ...binary(real, real, true),
      example([index(3, [2, 3], true), index(3, [2, 3], true)], [[0], [1], [0, 1]]),
    ],
  },
  {
    op: O.selectOp,
    examples: [
      example([index(2, [2, 3], true), real(2, 3), real(2, 3)], [[1], [2], [1, 2], [0], [0, 1, 2]]),
      example([index(2, [2, 1]), real(2, 3), real(3)], [[1]]),
      example([index(2, [], true), real(2, 3), real()], [[1]]),
      example([real(2, 3), real(2, 3), point(2, 3)], [[0], [1], [0, 1]]),
      example([index(2, [3]), point(1), real(4, 3)], [[2]]),
    ],
    wrong: [{ shapes: [[2], [3], [3]] }, { shapes: [[2], [2], [3]] }],
    accuracy: exact,
  },
  unaryEntry(O.reluOp, exact),
  {
    op: O.leakyReluOp,
    examples: [0, 0.125, 0.5].flatMap((slope) => [
      example([real(2, 3)], [[0]], { slope }),
      example([real()], [], { slope }),
      example([real(17)], [[0]], { slope }),
    ]),
    wrong: [-0.1, 1, Number.NaN].map((slope) => ({ shapes: [[2]], attrs: { slope } })),
    accuracy: exact,
  },
  unaryEntry(O.sigmoidOp, ulp(4)),
  unaryEntry(O.tanhOp, ulp(3)),
  unaryEntry(O.expOp, ulp(2)),
  unaryEntry(O.logOp, ulp(2), positive),
  unaryEntry(O.sqrtOp, exact, positive),
  {
    op: O.clipOp,
    examples: [
      example([real(2, 3), point(), spec(3.5, 5, false)()], [[0]]),
      example([real(17), spec(-1, -0.5, false)(), spec(0.5, 1, false)()], [[0]]),
      example([real(2, 3, 2), spec(-2, 0)(3, 1), spec(0.25, 2)(3, 1)], [[0]]),
      example([real(), spec(-1, 0, false)(), spec(0, 1, false)()]),
      example([real(0, 3), point(), point()]),
    ],
    wrong: [{ shapes: [[2], [2, 2], []] }, { shapes: [[2, 3], [2], []] }],
    accuracy: exact,
  },
  {
    op: O.preluOp,
    examples: [
      example([real(2, 3), spec(-2, 3, false)(3)], [[0]]),
      example([real(2, 3, 2), real(3, 1)], [[0]]),
      example([real(17), spec(0, 1, false)()], [[0]]),
      example([real(5), spec(-1, -0.25, false)(5)], [[0]]),
      example([real(0, 3), point()]),
    ],
    wrong: [{ shapes: [[2], [3]] }, { shapes: [[2], [2, 2]] }],
    accuracy: exact,
  },
  {
    op: O.eluOp,
    examples: [0.25, 1, 1.75].flatMap((alpha) => unary(real).map((e) => example(e.inputs, e.walks, { alpha }))),
    wrong: [-1, Number.NaN, Infinity].map((alpha) => ({ shapes: [[2]], attrs: { alpha } })),
    accuracy: absolute(2 ** -22),
  },
  unaryEntry(O.softplusOp, absolute(2 ** -21)),
  unaryEntry(O.softsignOp, ulp(2)),
  unaryEntry(O.erfOp, ulp(3)),
  {
    op: O.geluOp,
    examples: (['none', 'tanh'] as const).flatMap((approximate) =>
      unary(real).map((e) => example(e.inputs, e.walks, { approximate })),
    ),
    wrong: [{ shapes: [[2]], attrs: { approximate: 'fast' } }],
    accuracy: absolute(2 ** -21),
  },
  unaryEntry(O.siluOp, absolute(2 ** -21)),
  unaryEntry(O.hardSwishOp, absolute(2 ** -21), spec(-5, 5)),
  unaryEntry(O.mishOp, absolute(2 ** -20)),
  {
    op: O.powOp,
    examples: [2, 3, 4, 5].flatMap((exponent) => unary(real).map((e) => example(e.inputs, e.walks, { exponent }))),
    wrong: [1, -2, 2.5, Number.NaN].map((exponent) => ({ shapes: [[2]], attrs: { exponent } })),
    accuracy: ulp(4),
  },
  {
    ...unaryEntry(O.reciprocalOp, exact, positive),
    examples: [...unary(positive), ...unary(negative)],
  },
  unaryEntry(O.sinOp, absolute(2 ** -22), spec(-9, 9)),
  unaryEntry(O.cosOp, absolute(2 ** -22), spec(-9, 9)),
  unaryEntry(O.floorOp, exact),
  unaryEntry(O.roundOp, exact),
  unaryEntry(O.upOp, { kind: 'neighbour' }, real, false),
  unaryEntry(O.downOp, { kind: 'neighbour' }, real, false),
  {
    op: O.splitMulOp,
    examples: [
      example([point(4, 2, 3), point(2, 3), point(2, 3)]),
      example([point(4, 1, 3), point(2, 3), point(3)]),
      example([point(3), point(2, 3), point()]),
      example([point(2, 3), point(2, 3), point(2, 3)]),
    ],
    wrong: [
      {
        shapes: [
          [2, 3],
          [2, 4],
          [2, 4],
        ],
      },
    ],
    accuracy: exact,
  },
  {
    op: O.absMulOp,
    examples: [
      example([point(4, 2, 3), spec(0, 2, false)(2, 3)]),
      example([point(4, 1, 3), spec(0, 2, false)(2, 3)]),
      example([point(3), spec(0, 2, false)()]),
    ],
    wrong: [
      {
        shapes: [
          [2, 3],
          [2, 4],
        ],
      },
    ],
    accuracy: exact,
  },
  {
    op: O.matmulOp,
    examples: [...matmuls, example([real(1, 1), real(1, 1)], [[0]], { transA: false, transB: false })],
    wrong: [
      {
        shapes: [
          [32, 784],
          [100, 10],
        ],
        attrs: { transA: false, transB: false },
      },
      {
        shapes: [
          [2, 3],
          [3, 4],
        ],
        attrs: { transA: true, transB: false },
      },
      {
        shapes: [
          [2, 3, 4],
          [3, 4, 5],
        ],
        attrs: { transA: false, transB: false },
      },
      {
        shapes: [
          [2, 3, 4],
          [5, 6],
        ],
        attrs: { transA: false, transB: false },
      },
      {
        shapes: [
          [3, 4],
          [2, 4, 4],
        ],
        attrs: { transA: true, transB: false },
      },
      {
        shapes: [
          [2, 3, 4],
          [2, 2, 4, 5],
        ],
        attrs: { transA: false, transB: false },
      },
      { shapes: [[3], [3, 4]], attrs: { transA: false, transB: false } },
    ],
    accuracy: { kind: 'sum', terms: inner },
  },
  {
    op: O.conv2dOp,
    examples: [...convs, ...grouped, call((x, w) => O.conv2d(x, w), [real(1, 1, 3, 3), real(1, 1, 3, 3)], [[0]])],
    wrong: [
      // As many channels as the groups have together, and outputs for each of them.
      {
        shapes: [
          [2, 2, 4, 5],
          [4, 2, 2, 3],
        ],
        attrs: { ...conv, groups: 2 },
      },
      {
        shapes: [
          [2, 4, 4, 5],
          [3, 2, 2, 3],
        ],
        attrs: { ...conv, groups: 2 },
      },
      {
        shapes: [
          [2, 3, 4, 5],
          [3, 2, 2, 3],
        ],
        attrs: conv,
      },
      {
        shapes: [
          [3, 4, 5],
          [3, 2, 2, 3],
        ],
        attrs: conv,
      },
      {
        shapes: [
          [2, 2, 5, 5],
          [3, 2, 2, 3],
        ],
        attrs: conv,
      },
      {
        shapes: [
          [2, 2, 4, 5],
          [3, 2, 2, 2],
        ],
        attrs: conv,
      },
    ],
    accuracy: { kind: 'sum', terms: ([, w], attrs) => w[1] * taps([], attrs) },
  },
  {
    op: O.conv2dInputOp,
    examples: [...convs, ...grouped].map((e) => example([convOut(e), e.inputs[1]], [[0]], e.attrs)),
    wrong: [
      {
        shapes: [
          [2, 4, 3, 3],
          [3, 2, 2, 3],
        ],
        attrs: conv,
      },
      {
        shapes: [
          [2, 3, 4, 4],
          [3, 2, 2, 3],
        ],
        attrs: conv,
      },
      {
        shapes: [
          [2, 3, 3, 3],
          [3, 2, 2, 2],
        ],
        attrs: conv,
      },
    ],
    accuracy: { kind: 'sum', terms: ([, w], attrs) => w[0] * taps([], attrs) },
  },
  {
    op: O.conv2dWeightOp,
    examples: [...convs, ...grouped].map((e) => example([e.inputs[0], convOut(e)], [], e.attrs)),
    wrong: [
      {
        shapes: [
          [2, 2, 4, 5],
          [3, 3, 3, 3],
        ],
        attrs: conv,
      },
      {
        shapes: [
          [2, 2, 4, 5],
          [2, 3, 2, 3],
        ],
        attrs: conv,
      },
      {
        shapes: [
          [2, 2, 5, 5],
          [2, 3, 3, 3],
        ],
        attrs: conv,
      },
    ],
    accuracy: { kind: 'sum', terms: ([x], attrs) => x[0] * S.size((attrs as O.Conv).y) },
  },
  {
    op: O.unfoldOp,
    examples: grids,
    wrong: [
      { shapes: [[2, 2, 5, 5]], attrs: geometry(grids[0]) },
      { shapes: [[2, 4, 5]], attrs: geometry(grids[0]) },
    ],
    accuracy: exact,
  },
  {
    op: O.foldOp,
    examples: grids.map((e) => example([real(2, ...geometry(e).y, 2, ...geometry(e).w)], [[0]], e.attrs)),
    wrong: [
      { shapes: [[2, 2, 4, 5]], attrs: geometry(grids[0]) },
      { shapes: [[2, 3, 3, 2, 3, 3]], attrs: geometry(grids[0]) },
    ],
    accuracy: { kind: 'sum', terms: taps },
  },
  {
    op: O.reshapeOp,
    examples: [
      example([real(2, 6)], [[0]], { shape: [2, 3, 2] }),
      example([real(2, 6)], [], { shape: [3, 4] }),
      example([real(2, 1, 3)], [[0]], { shape: [2, 3] }),
      example([real()], [], { shape: [1, 1] }),
    ],
    wrong: [{ shapes: [[2, 3]], attrs: { shape: [4, 2] } }],
    accuracy: exact,
  },
  {
    op: O.transposeOp,
    examples: [
      example([real(2, 3, 4)], [[0]], { permutation: [0, 2, 1] }),
      example([real(2, 3)], [], { permutation: [1, 0] }),
      example([real(3, 3)], [], { permutation: [1, 0] }),
      example([real(2, 1, 3, 2)], [], { permutation: [3, 1, 0, 2] }),
    ],
    wrong: [
      { shapes: [[2, 3]], attrs: { permutation: [0, 2] } },
      { shapes: [[2, 3]], attrs: { permutation: [0, 0] } },
      { shapes: [[2, 3]], attrs: { permutation: [0] } },
    ],
    accuracy: exact,
  },
  {
    op: O.broadcastOp,
    examples: [
      example([real(2, 1, 3)], [[0]], { shape: [2, 4, 3] }),
      example([real(3)], [], { shape: [2, 3] }),
      example([real()], [], { shape: [2, 3] }),
      example([real(1, 3)], [], { shape: [3, 3] }),
      example([real(2, 3)], [], { shape: [2, 2, 3] }),
    ],
    wrong: [
      { shapes: [[2, 3]], attrs: { shape: [2, 4] } },
      { shapes: [[2, 3]], attrs: { shape: [3] } },
      { shapes: [[2, 3]], attrs: { shape: [2, 1] } },
    ],
    accuracy: exact,
  },
  {
    op: O.sumOp,
    examples: [...reductions(true), example([real(2, 0)], [], { axes: [1], keep: false })],
    wrong: wrongAxes,
    accuracy: { kind: 'sum', terms: reduced },
  },
  {
    op: O.padOp,
    examples: [
      example([real(2, 3)], [[0]], { before: [0, 1], after: [0, 2] }),
      example([real(2, 3)], [], { before: [1, 0], after: [0, 1] }),
      example([real(2, 2, 3)], [[0]], { before: [0, 1, 0], after: [0, 0, 2] }),
    ],
    wrong: [
      { shapes: [[2, 3]], attrs: { before: [1], after: [1] } },
      { shapes: [[2, 3]], attrs: { before: [0, -1], after: [0, 0] } },
    ],
    accuracy: exact,
  },
  {
    op: O.sliceOp,
    examples: [
      example([real(2, 5)], [[0]], { starts: [0, 1], sizes: [2, 3] }),
      example([real(3, 4)], [], { starts: [1, 0], sizes: [2, 4] }),
      example([real(2, 3, 4)], [[0]], { starts: [0, 2, 1], sizes: [2, 1, 2] }),
    ],
    wrong: [
      { shapes: [[2, 3]], attrs: { starts: [0, 2], sizes: [2, 2] } },
      { shapes: [[2, 3]], attrs: { starts: [-1, 0], sizes: [2, 2] } },
      { shapes: [[2, 3]], attrs: { starts: [0], sizes: [2] } },
    ],
    accuracy: exact,
  },
  {
    op: O.concatOp,
    examples: [
      example([real(2, 3), real(2, 1)], [[0], [1], [0, 1]], { axis: 1 }),
      example([real(2, 3), real(1, 3), real(2, 3)], [], { axis: 0 }),
      example([real(2, 2, 3), real(2, 1, 3)], [[0], [0, 1]], { axis: 1 }),
      example([real(2, 3)], [[0]], { axis: 1 }),
    ],
    wrong: [
      {
        shapes: [
          [2, 3],
          [3, 3],
        ],
        attrs: { axis: 1 },
      },
      {
        shapes: [
          [2, 3],
          [2, 3],
        ],
        attrs: { axis: 2 },
      },
      { shapes: [[2, 3], [3]], attrs: { axis: 0 } },
    ],
    accuracy: exact,
  },
  {
    op: O.gatherOp,
    examples: [
      example([real(4, 3), index(4, [5])]),
      example([real(4), index(4, [2])]),
      example([real(3, 2, 2), index(3, [1])]),
    ],
    wrong: [
      {
        shapes: [
          [4, 3],
          [2, 2],
        ],
      },
      { shapes: [[], [2]] },
    ],
    accuracy: exact,
  },
  {
    op: O.scatterAddOp,
    examples: [
      example([real(5, 3), index(4, [5])], [], { rows: 4 }),
      example([real(2), index(3, [2])], [], { rows: 3 }),
      example([real(6, 2), index(2, [6])], [], { rows: 2 }),
    ],
    wrong: [
      { shapes: [[4, 3], [3]], attrs: { rows: 4 } },
      {
        shapes: [
          [4, 3],
          [4, 1],
        ],
        attrs: { rows: 4 },
      },
    ],
    accuracy: { kind: 'sum', terms: ([x]) => x[0] },
  },
  unaryEntry(O.stopGradientOp, exact),
  { op: O.probeOp, examples: [example([real(2, 3)], [[0]], { name: 'loss' })], wrong: [], accuracy: exact },
  {
    op: O.maxOp,
    examples: reductions(true),
    wrong: wrongAxes,
    accuracy: exact,
  },
  {
    op: O.maxOfWindowsOp,
    examples: pooled.map((attrs) => example([real(2, 2, ...attrs.y, S.size(attrs.w))], [[0]], attrs)),
    wrong: [
      { shapes: [[2, 2, 3, 3, 6]], attrs: { ...pooled[0], y: [3, 2] } },
      // The first window, the last window, a window between two rows.
      {
        shapes: [[1, 1, 5, 3, 4]],
        attrs: { ...pooled[0], x: [2, 2], w: [2, 2], y: [5, 3], pad: [2, 1], stride: [1, 1] },
      },
      {
        shapes: [[1, 1, 2, 4, 4]],
        attrs: { ...pooled[0], x: [2, 2], w: [2, 2], y: [2, 4], pad: [0, 0], stride: [1, 1] },
      },
      {
        shapes: [[1, 1, 1, 1, 4]],
        attrs: { ...pooled[0], x: [1, 3], w: [2, 2], y: [1, 1], pad: [1, 0], stride: [1, 1], dilation: [2, 1] },
      },
    ],
    accuracy: exact,
  },
  {
    op: O.argmaxOp,
    examples: [
      example([point(2, 5)], [], { axis: 1 }),
      example([point(3, 2, 4)], [], { axis: 1 }),
      example([point(6)], [], { axis: 0 }),
      example([index(2, [3, 7])], [], { axis: 1 }),
    ],
    wrong: [
      { shapes: [[2, 3]], attrs: { axis: 2 } },
      { shapes: [[2, 3]], attrs: { axis: -1 } },
      { shapes: [[2, 0]], attrs: { axis: 1 } },
    ],
    accuracy: exact,
  },
  {
    op: O.compactOp,
    examples: [
      example([index(2, [7])]),
      example([index(2, [3, 5])]),
      example([index(3, [2, 1, 4])]),
      example([index(1, [6])]),
    ],
    wrong: [
      { shapes: [[]], attrs: undefined },
      { shapes: [[5000, 5000]], attrs: undefined },
    ],
    accuracy: exact,
  },
  {
    op: O.logSumExpOp,
    examples: reductions(true),
    wrong: wrongAxes,
    accuracy: { kind: 'logSumExp', terms: reduced },
  },
  {
    op: O.logSoftmaxOp,
    examples: [
      example([real(2, 5)], [[0]], { axis: 1 }),
      example([real(2, 3, 4)], [[0]], { axis: 1 }),
      example([real(3, 4)], [], { axis: 0 }),
      example([real(6)], [], { axis: 0 }),
      example([real(2, 1)], [[0]], { axis: 1 }),
    ],
    wrong: [
      { shapes: [[2, 3]], attrs: { axis: 2 } },
      { shapes: [[2, 3]], attrs: { axis: -1 } },
      { shapes: [[2, 3]], attrs: { axis: 0.5 } },
    ],
    accuracy: { kind: 'logSumExp', terms: ([x], attrs) => x[(attrs as { axis: number }).axis] },
  },
  {
    op: O.softmaxOp,
    examples: [
      example([real(2, 5)], [[0]], { axis: 1 }),
      example([real(2, 3, 4)], [[0]], { axis: 1 }),
      example([real(2, 3, 4)], [[0]], { axis: 2 }),
      example([real(3, 4)], [], { axis: 0 }),
      example([real(6)], [], { axis: 0 }),
      example([real(2, 1)], [[0]], { axis: 1 }),
    ],
    wrong: [
      { shapes: [[2, 3]], attrs: { axis: 2 } },
      { shapes: [[2, 3]], attrs: { axis: 0.5 } },
    ],
    accuracy: ulp(24),
    thinUlps: 16,
  },
  {
    op: O.crossEntropyOp,
    examples: [
      example([real(3, 4), index(4, [3])], [[0]]),
      example([real(2, 1), index(1, [2])], [[0]]),
      example([spec(-90, 90)(4, 3), index(3, [4])], [[0]]),
    ],
    wrong: [
      { shapes: [[2, 3], [3]] },
      {
        shapes: [
          [2, 3],
          [2, 1],
        ],
      },
      { shapes: [[2, 0], [2]] },
    ],
    accuracy: { kind: 'logSumExp', terms: ([x]) => x[1] },
  },
]
