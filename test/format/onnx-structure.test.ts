import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { ibp } from '../../src/bounds/linear-bounds.ts'
import { evaluate } from '../../src/compile/run.ts'
import { interval } from '../../src/core/op.ts'
import { type Shape, size } from '../../src/core/shape.ts'
import { unpacked } from '../../src/data/gzip.ts'
import { decodeOnnx, parameterConstants } from '../../src/format/onnx/index.ts'
import { add, input, reshape, sub } from '../../src/ops/index.ts'
import { crown, symbolic } from '../../src/robust/bounds.ts'
import { left, right } from '../shared.ts'
import { type Case, deviation, draw, int64, type Line, modelOf, ort, run, runtime, tensor } from './onnx-models.ts'
import { STRUCTURE } from './onnx-structure-cases.ts'
import { bytesOf, field, floatAttribute, graphOf, wireNode, wireTensor } from './onnx-wire.ts'

const decode = (c: Case) => decodeOnnx(modelOf(c.shape, c.lines, c.initializers, { opset: c.opset ?? 13 }), 'file.onnx')
const refused = (expected: RegExp, c: Case): void => assert.match(left(decode(c)), expected)
const lines = (
  shape: Case['shape'],
  list: readonly Line[],
  initializers: Case['initializers'] = [],
  opset = 13,
): Case => ({
  shape,
  lines: list,
  initializers,
  opset,
})

// ---- bounds --------------------------------------------------------------------------------------------------------

/** What is refused: a product of two stacks that both depend on the input, under outward rounding. */
const LIMITS = /outward rounding of .*matmul\(\[[\d,]+\], \[[\d,]+\]\) is not supported/

test('every method bounds what is taken apart and put together, outward too', async () => {
  const margin = 0.25
  let [bounded, refusals] = [0, 0]
  for (const [name, c] of Object.entries(STRUCTURE)) {
    const model = right(decode(c))
    const x = input('x', [2, ...model.input.shape])
    const y = model.network(parameterConstants(model))(x)
    const flat = reshape(y, [2, size(y.shape.slice(1))])
    const boxes = new Map([[x, interval(sub(x, margin), add(x, margin))]])
    const centre = Float64Array.from(draw(x.shape, 3))
    for (const method of [ibp, symbolic, crown])
      for (const rounding of ['none', { outward: 'real' }, { outward: 'deployed' }] as const) {
        const values = (): ReturnType<ReturnType<typeof evaluate>> => {
          const { lower, upper } = method(flat, boxes, new Map(), rounding).output()
          return evaluate(reference())([lower, upper], new Map([[x, centre]]))
        }
        const result = await E.tryCatch(values, (cause) => cause as Error)
        if (E.isLeft(result)) {
          assert.match(result.left.message, LIMITS, `${name}: ${result.left.message}`)
          assert.ok(rounding !== 'none' && name.startsWith('MatMul of two values'), name)
          refusals++
          continue
        }
        const [lower, upper] = await result.right
        for (const seed of [4, 5, 6]) {
          const near = centre.map((v, i) => v + draw(x.shape, seed, -margin, margin)[i])
          const [at] = await evaluate(reference())([flat], new Map([[x, near]]))
          at.forEach((v, i) => {
            assert.ok(lower[i] <= v + 1e-9 && v - 1e-9 <= upper[i], `${name}: ${lower[i]} <= ${v} <= ${upper[i]}`)
          })
        }
        bounded++
      }
  }
  assert.ok(bounded > 550 && refusals <= 12, `${bounded} bounded, ${refusals} refused`)
})

test('choices of elements are bounded by what they choose, exactly', async () => {
  const model = right(decode(STRUCTURE['Slice backwards, from behind, over the end']))
  const x = input('x', [1, ...model.input.shape])
  const y = model.network(parameterConstants(model))(x)
  const flat = reshape(y, [1, size(y.shape)])
  const boxes = new Map([[x, interval(sub(x, 0.5), add(x, 0.5))]])
  const centre = Float64Array.from(draw(x.shape, 3))
  for (const method of [ibp, symbolic, crown]) {
    const { lower, upper } = method(flat, boxes, new Map(), 'none').output()
    const [l, u, v] = await evaluate(reference())([lower, upper, flat], new Map([[x, centre]]))
    assert.ok(v.every((at, i) => Math.abs(l[i] - at + 0.5) < 1e-12 && Math.abs(u[i] - at - 0.5) < 1e-12))
  }
})

// ---- random attributes against onnxruntime -------------------------------------------------------------------------

const agree = (name: string, cases: fc.Arbitrary<Case>, runs = 60): void =>
  test(`${name}: random attributes`, () =>
    fc.assert(
      fc.asyncProperty(cases, async (c) => {
        const model = right(decode(c))
        const shape = (c.whole ? c.shape : [2, ...model.input.shape]) as Shape
        const data = draw(shape, 3)
        const n = c.whole ? 1 : 2
        const got = await run(model, n, data)
        if (ort === undefined) return
        const bytes = modelOf(c.shape, c.lines, c.initializers, { opset: c.opset ?? 13 })
        assert.ok(deviation(got, await runtime(bytes, 'x', shape, data)) < 1e-5)
      }),
      { numRuns: runs, seed: 5 },
    ))

const between = (min: number, max: number) => fc.integer({ min, max })
/** Extents of a value; the first is the batch, open or fixed. */
const extents = fc.tuple(fc.constantFrom<number | string>('N', 1, 3), between(1, 4), between(1, 5), between(2, 4))
const isOpen = (shape: Case['shape']) => shape[0] === 'N'
const axisOf = (shape: Case['shape']) => between(isOpen(shape) ? 1 : 0, shape.length - 1)

agree(
  'Slice',
  extents.chain((shape) =>
    fc
      .tuple(axisOf(shape), between(-6, 6), between(-6, 6), fc.constantFrom(1, 2, 3, -1, -2))
      .filter(([a, start, end, step]) => {
        const picked = Array.from({ length: shape[a] as number }, (_, i) => i)
        const d = picked.length
        const at = (v: number) => (v < 0 ? v + d : v)
        const [s, e] =
          step > 0
            ? [Math.max(0, at(start)), Math.min(d, at(end))]
            : [Math.min(d - 1, at(start)), Math.max(-1, at(end))]
        return step > 0 ? s < e : s > e && s >= 0
      })
      .map(([a, start, end, step]) => ({
        ...lines(
          shape,
          [['Slice', 'x s e a t', 'y']],
          [int64('s', [start]), int64('e', [end]), int64('a', [a]), int64('t', [step])],
        ),
        whole: !isOpen(shape),
      })),
  ),
)

agree(
  'Gather',
  extents.chain((shape) =>
    axisOf(shape).chain((a) =>
      fc
        .array(between(-(shape[a] as number), (shape[a] as number) - 1), { minLength: 1, maxLength: 6 })
        .map((index) => ({
          ...lines(shape, [['Gather', 'x i', 'y', { axis: a }]], [int64('i', index, [1, index.length])]),
          whole: !isOpen(shape),
        })),
    ),
  ),
)

agree(
  'Pad',
  extents.chain((shape) =>
    fc
      .tuple(fc.constantFrom('constant', 'edge', 'reflect'), fc.array(between(0, 2), { minLength: 8, maxLength: 8 }))
      .map(([mode, given]) => {
        const pads = given.map((p, i) => {
          const d = shape[i % 4]
          return d === 'N' ? 0 : mode === 'reflect' ? Math.min(p, (d as number) - 1) : p
        })
        return { ...lines(shape, [['Pad', 'x p', 'y', { mode }]], [int64('p', pads)]), whole: !isOpen(shape) }
      }),
  ),
)

agree(
  'MatMul',
  fc
    .tuple(fc.constantFrom<number | string>('N', 1, 2), between(0, 2), between(0, 2), fc.boolean(), between(1, 3))
    .map(([first, stack, other, fromLeft, k]): Case => {
      // Stacks of 2 or 1 meet whatever they are.
      const x = [first, ...[2, 1].slice(0, stack), 3, 4] as (number | string)[]
      const own = [2, 1].slice(2 - other).map((d) => Math.min(d, stack === 0 ? 1 : 2))
      const lead = stack >= own.length ? own : own.map(() => 1)
      const w = fromLeft ? [...lead, k, 3] : [...lead, 4, k]
      return {
        ...lines(x, [fromLeft ? ['MatMul', 'w x', 'y'] : ['MatMul', 'x w', 'y']], [tensor('w', w)]),
        whole: first !== 'N',
      }
    }),
)

agree(
  'Concat and Split',
  extents.chain((shape) =>
    axisOf(shape).map((a): Case => {
      const d = shape[a] as number
      return {
        ...lines(
          shape,
          [
            ['Concat', 'x x', 'c', { axis: a }],
            ['Split', 'c s', 'p q', { axis: a }],
            ['Concat', 'q p', 'y', { axis: a - 4 }],
          ],
          [int64('s', [2 * d - 1, 1])],
        ),
        whole: !isOpen(shape),
      }
    }),
  ),
)

// ---- element types -------------------------------------------------------------------------------------------------

const doubles = (...v: readonly number[]) => new Uint8Array(Float64Array.from(v).buffer)
const words = (...v: readonly number[]) => new Uint8Array(Uint16Array.from(v).buffer)
const [FLOAT, DOUBLE, HALF, BFLOAT, INT32, BOOL] = [1, 11, 10, 16, 6, 9]
/** y = x * w of a graph whose ends are of a type. */
const product = (type: number, ...tensors: readonly Uint8Array[]) =>
  graphOf(type, wireNode('Mul', ['x', 'w'], ['y']), ...tensors)
/** y = x * Cast(w). */
const cast = (to: number, ...tensors: readonly Uint8Array[]) =>
  graphOf(
    FLOAT,
    wireNode(
      'Cast',
      ['w'],
      ['v'],
      field(5, bytesOf(field(1, new TextEncoder().encode('to')), field(3, to), field(20, 2))),
    ),
    wireNode('Mul', ['x', 'v'], ['y']),
    ...tensors,
  )
const of = async (bytes: Uint8Array, ...x: readonly number[]) => [
  ...(await run(right(decodeOnnx(bytes, 'file.onnx')), 1, Float64Array.from(x))),
]

test('weights of other types under a Cast are the float32 numbers that a Cast makes', async () => {
  const f = Math.fround
  const stored: readonly (readonly [number, Uint8Array, readonly number[]])[] = [
    [DOUBLE, field(9, doubles(0.1, -3)), [f(0.1), -3]],
    [DOUBLE, field(10, doubles(0.1, -3)), [f(0.1), -3]],
    [HALF, field(9, words(0x3555, 0xc000)), [0.333251953125, -2]],
    [HALF, field(9, words(0x0001, 0x7bff)), [2 ** -24, 65504]],
    [BFLOAT, field(9, words(0x3eab, 0xc000)), [0.333984375, -2]],
    [INT32, field(9, new Uint8Array(Int32Array.of(7, -9).buffer)), [7, -9]],
    [INT32, field(9, new Uint8Array(Int32Array.of(2 ** 24 + 1, 3).buffer)), [2 ** 24, 3]],
    [BOOL, field(9, Uint8Array.of(1, 0)), [1, 0]],
    [2, field(9, Uint8Array.of(200, 3)), [200, 3]],
    [3, field(9, Uint8Array.of(200, 3)), [-56, 3]],
    [5, field(9, words(0xffff, 5)), [-1, 5]],
    [4, field(9, words(0xffff, 5)), [65535, 5]],
  ]
  for (const [type, data, want] of stored) {
    const bytes = cast(FLOAT, wireTensor('w', [2], type, data))
    assert.equal(await of(bytes, 1, 1), want)
    if (ort !== undefined) assert.equal([...(await runtime(bytes, 'x', [1, 2], Float32Array.of(1, 1)))], want)
  }
})

test('a graph of float64 numbers is the function of real numbers that it says', async () => {
  const weights = [0.1, 1 / 3]
  const bytes = product(DOUBLE, wireTensor('w', [2], DOUBLE, field(9, doubles(...weights))))
  // The reference backend computes in float64, where the sum of the pieces is the weight.
  assert.equal(await of(bytes, 1, 1), weights)
  const model = right(decodeOnnx(bytes, 'f'))
  assert.equal(model.parameters.get('w')?.data, Float32Array.from(weights))
  const whole = right(decodeOnnx(product(DOUBLE, wireTensor('w', [2], DOUBLE, field(9, doubles(0.5, 3)))), 'f'))
  assert.equal([...whole.parameters.keys()], ['w'])
  const tiny = product(DOUBLE, wireTensor('w', [2], DOUBLE, field(9, doubles(1e-300, 1))))
  assert.match(left(decodeOnnx(tiny, 'f')), /tensor "w"\): some of its float64 numbers are no sum of float32 numbers/)
  // Headers of float64 around weights of float32.
  const mixed = product(DOUBLE, wireTensor('w', [2], FLOAT, field(9, new Uint8Array(Float32Array.of(2, 3).buffer))))
  assert.equal(await of(mixed, 1, 1), [2, 3])
})

test('a Cast rounds float64 constants that were moved before it', async () => {
  const to = field(5, bytesOf(field(1, new TextEncoder().encode('to')), field(3, FLOAT), field(20, 2)))
  const behind = (op: string, inputs: readonly string[], shape: readonly number[], w: readonly number[]) =>
    graphOf(
      DOUBLE,
      wireNode(op, inputs, ['m']),
      wireNode('Cast', ['m'], ['v'], to),
      wireNode('Mul', ['x', 'v'], ['y']),
      wireTensor('w', shape, DOUBLE, field(9, doubles(...w))),
      wireTensor('s', [1], 7, field(9, new Uint8Array(BigInt64Array.of(2n).buffer))),
    )
  const moved = behind('Reshape', ['w', 's'], [1, 2], [0.1, 1 / 3])
  assert.equal(await of(moved, 1, 1), [Math.fround(0.1), Math.fround(1 / 3)])
  assert.equal(await of(behind('Reshape', ['w', 's'], [1, 2], [0.5, 3]), 1, 1), [0.5, 3])
  const computed = behind('Sqrt', ['w'], [2], [0.1, 1 / 3])
  assert.match(left(decodeOnnx(computed, 'f')), /it rounds float64 numbers to float32 that the graph computes/)
})

test('weights of another type without a Cast are refused with advice', () => {
  const half = product(FLOAT, wireTensor('w', [2], HALF, field(9, words(0x3555, 0xc000))))
  assert.match(left(decodeOnnx(half, 'f')), /tensor "w"\): expected float32 data, found float16: a Cast/)
  assert.match(left(decodeOnnx(product(HALF), 'f')), /graph input "x"\): expected a float32 tensor, found float16/)
  const double = product(FLOAT, wireTensor('w', [2], FLOAT, field(10, doubles(1, 2))))
  assert.match(left(decodeOnnx(double, 'f')), /it holds float64 data, but its type is float32/)
  const to = cast(HALF, wireTensor('w', [2], DOUBLE, field(9, doubles(1, 2))))
  assert.match(left(decodeOnnx(to, 'f')), /\(Cast\)\): attribute to: float16 is not supported/)
})

test('value_floats are a parameter; strings are refused by name', async () => {
  const list = (v: readonly number[]) => bytesOf(field(1, new TextEncoder().encode('value_floats')), floatAttribute(v))
  const bytes = graphOf(
    FLOAT,
    wireNode('Constant', [], ['c'], field(5, list([0.5, -2]))),
    wireNode('Mul', ['x', 'c'], ['y']),
  )
  assert.equal(await of(bytes, 3, 3), [1.5, -6])
  refused(
    /\(Constant\)\): attribute value_string is not supported/,
    lines(
      ['N', 2],
      [
        ['Constant', '', 'c', { value_string: 'a' }],
        ['Mul', 'x c', 'y'],
      ],
    ),
  )
})

test('an opset that is listed twice is one; two versions are named', () => {
  const relu = graphOf(FLOAT, wireNode('Relu', ['x'], ['y']))
  const named = field(8, bytesOf(field(1, new TextEncoder().encode('ai.onnx')), field(2, 13)))
  assert.ok(E.isRight(decodeOnnx(bytesOf(relu, field(8, field(2, 13))), 'f')))
  assert.ok(E.isRight(decodeOnnx(bytesOf(relu, named), 'f')))
  assert.match(left(decodeOnnx(bytesOf(relu, field(8, field(2, 12))), 'f')), /found 13 and 12/)
})

test('an attribute without a type has that of its value; what has another, or none, is not taken for 0', () => {
  const utf8 = new TextEncoder()
  const bent = (...value: readonly Uint8Array[]) =>
    decodeOnnx(
      graphOf(FLOAT, wireNode('LeakyRelu', ['x'], ['y'], field(5, bytesOf(field(1, utf8.encode('alpha')), ...value)))),
      'f',
    )
  const float = bytesOf(Uint8Array.of(2 * 8 + 5), new Uint8Array(Float32Array.of(0.5).buffer))
  assert.ok(E.isRight(bent(float)))
  assert.ok(E.isRight(bent(float, field(20, 1))))
  assert.match(left(bent(field(3, 2))), /attribute alpha: expected float, found int/)
  assert.match(left(bent(floatAttribute([0.5]))), /attribute alpha: expected float, found floats/)
  assert.match(left(bent()), /attribute alpha: expected float, found neither type nor value/)
})

// ---- what is refused -----------------------------------------------------------------------------------------------

test('batch normalization in training mode is refused, with what to do', () => {
  const bn = [...['s', 'b', 'm'].map((n, i) => tensor(n, [2], 3 + i)), tensor('v', [2], 6, 0.1, 2)]
  const training = (outputs: string, opset: number, given: Line[3] = {}) =>
    lines(
      ['N', 2, 3],
      [
        ['BatchNormalization', 'x s b m v', outputs, given],
        ['Relu', 'y0', 'y'],
      ],
      bn,
      opset,
    )
  for (const opset of [7, 9, 12, 13])
    refused(/node 0 "n0" \(BatchNormalization\)\): 5 outputs .* in evaluation mode/, training('y0 a b1 c d', opset))
  refused(/3 outputs where inference has one/, training('y0 a b1', 14))
  refused(/attribute training_mode: expected 0, found 1: .*evaluation mode/, training('y0', 15, { training_mode: 1 }))
  refused(/attribute training_mode/, training('y0 a b1', 15, { training_mode: 1 }))
  assert.ok(E.isRight(decode(training('y0', 15, { training_mode: 0 }))))
})

test('integers are exact or refused', () => {
  const shaped = (op: string, a: readonly number[], b: readonly number[]): Case =>
    lines(
      ['N', 6],
      [
        [op, 'a b', 'c'],
        ['Reshape', 'x c', 'y'],
      ],
      [int64('a', a), int64('b', b)],
    )
  refused(/node 0 "n0" \(Div\)\): a division of integers by 0/, shaped('Div', [2, 6], [0, 1]))
  refused(/\(Mul\)\): the integer .* leaves what int64 holds exactly/, shaped('Mul', [2 ** 40, 6], [2 ** 40, 1]))
  refused(/\(Add\)\): shapes \[2\] and \[3\] do not broadcast/, shaped('Add', [1, 2], [1, 2, 3]))
  refused(
    /\(Add\)\): input 1 is an integer tensor, expected float32: a Cast/,
    lines(['N', 2], [['Add', 'x i', 'y']], [int64('i', [1, 2])]),
  )
  refused(
    /integers here must not depend on the size of the batch/,
    lines(
      ['N', 2],
      [
        ['Shape', 'x', 's'],
        ['Mul', 's s', 't'],
        ['Reshape', 'x t', 'y'],
      ],
    ),
  )
})

test('a number that float arithmetic rounded is none of the network', () => {
  const padded = (scale: Float32Array): Case =>
    lines(
      ['N', 2],
      [
        ['Mul', 'a b', 'v'],
        ['Pad', 'x p v', 'y'],
      ],
      [
        { name: 'a', shape: [], data: scale },
        { name: 'b', shape: [], data: Float32Array.of(3) },
        int64('p', [0, 1, 0, 1]),
      ],
    )
  assert.ok(E.isRight(decode(padded(Float32Array.of(0.25)))))
  refused(/input 2 is a number that float arithmetic rounded: store it in the file/, padded(Float32Array.of(0.1)))
})

test('a number that float arithmetic rounded chooses nothing: in real arithmetic it may choose otherwise', () => {
  // (2^60 - 1) - 2^60 is -1, and 0 in floats.
  const float = (name: string, ...v: number[]) => ({ name, shape: [v.length], data: Float32Array.from(v) })
  const chosen = (
    q: number,
    nodes: Parameters<typeof lines>[1],
    ...more: NonNullable<Case['initializers']>[number][]
  ): Case =>
    lines(
      ['N', 1],
      [['Add', 'big one', 'p'], ['Sub', 'p big', 'q'], ...nodes, ['Gather', 'options i', 'r'], ['Add', 'x r', 'y']],
      [float('big', q), float('one', -1), float('options', 10, 20), ...more],
    )
  const index = ['Cast', 'g', 'i', { to: 7 }] as const
  const cases: Readonly<Record<string, Parameters<typeof lines>[1]>> = {
    Cast: [['Cast', 'q', 'i', { to: 7 }]],
    'Cast, floor': [
      ['Floor', 'q', 'f'],
      ['Cast', 'f', 'i', { to: 7 }],
    ],
    'Cast, boolean': [['Cast', 'q', 'g', { to: 9 }], index],
    Greater: [['Greater', 'q half', 'g'], index],
    Less: [['Less', 'half q', 'g'], index],
    Equal: [['Equal', 'q half', 'g'], index],
    ArgMax: [
      ['Add', 'q options', 'v'],
      ['ArgMax', 'v', 'i', { axis: 0 }],
    ],
    ArgMin: [
      ['Sub', 'options q', 'v'],
      ['ArgMin', 'v', 'i', { axis: 0 }],
    ],
    NonZero: [
      ['NonZero', 'q', 'n'],
      ['Size', 'n', 'i'],
    ],
    Range: [
      ['Reshape', 'q scalar', 's'],
      ['Range', 's to by', 'a'],
      ['Size', 'a', 'i'],
    ],
  }
  for (const [name, nodes] of Object.entries(cases)) {
    const more = [
      float('half', -0.5),
      { name: 'to', shape: [], data: Float32Array.of(0) },
      { name: 'by', shape: [], data: Float32Array.of(1) },
      int64('scalar', []),
    ]
    const op = new RegExp(`\\(${name.split(',')[0]}\\)\\): it chooses by a number that float arithmetic rounded`)
    refused(op, chosen(2 ** 60, nodes, ...more))
    assert.ok(E.isRight(decode(chosen(1, nodes, ...more))), name)
  }
})

test('what cannot be taken is named: node, op, what was found', () => {
  refused(
    /node 0 "n0" \(Gather\)\): index 5 is not an axis/,
    lines(['N', 3], [['Gather', 'x i', 'y', { axis: 1 }]], [int64('i', [5])]),
  )
  refused(
    /\(Split\)\): the parts \[1,1\] do not make up the extent 3/,
    lines(['N', 3], [['Split', 'x s', 'y b', { axis: 1 }]], [int64('s', [1, 1])]),
  )
  refused(/\(Split\)\): 3 does not split into 2 equal parts/, lines(['N', 3], [['Split', 'x', 'y b', { axis: 1 }]]))
  refused(
    /\(Slice\)\): it leaves no elements/,
    lines(['N', 3], [['Slice', 'x s e a', 'y']], [int64('s', [2]), int64('e', [1]), int64('a', [1])]),
  )
  refused(
    /\(Slice\)\): steps: 0/,
    lines(
      ['N', 3],
      [['Slice', 'x s e a t', 'y']],
      ['s', 'e', 'a', 't'].map((n, i) => int64(n, [[0], [1], [1], [0]][i])),
    ),
  )
  refused(
    /\(Concat\)\): values \[N,3\], \[1\] of different ranks/,
    lines(['N', 3], [['Concat', 'x p', 'y', { axis: 1 }]], [tensor('p', [1])]),
  )
  refused(/\(Where\)\): input 0 must be known when the file is read/, lines(['N', 3], [['Where', 'x x x', 'y']]))
  refused(
    /\(Equal\)\): input 0 must be known/,
    lines(
      ['N', 3],
      [
        ['Equal', 'x x', 'e'],
        ['Where', 'e x x', 'y'],
      ],
    ),
  )
  refused(
    /\(ConstantOfShape\)\): a shape of 9 axes/,
    lines(
      ['N', 3],
      [
        ['ConstantOfShape', 's', 'c'],
        ['Add', 'x c', 'y'],
      ],
      [int64('s', Array(9).fill(1))],
    ),
  )
  refused(
    /\(MatMul\)\): inner dimensions of \[N,3\] and \[4,2\] differ/,
    lines(['N', 3], [['MatMul', 'x w', 'y']], [tensor('w', [4, 2])]),
  )
  refused(
    /\(ScatterND\)\): attribute reduction/,
    lines([1, 3], [['ScatterND', 'x i u', 'y', { reduction: 'add' }]], [int64('i', [0], [1, 1]), tensor('u', [1, 3])]),
  )
})

test('an integer that numbers do not hold exactly is refused, and one that only says "to the end" is not', () => {
  const text = (a: bigint, b: bigint): Case =>
    lines(
      ['N', 1],
      [
        ['Sub', 'a b', 'c'],
        ['Cast', 'c', 'd', { to: FLOAT }],
        ['Add', 'x d', 'y'],
      ],
      [
        { name: 'a', shape: [1], data: [a] },
        { name: 'b', shape: [1], data: [b] },
      ],
    )
  // Read as numbers both are 2^53, and their difference would be 0.
  refused(/\(Sub\)\): the integer 9007199254740992 leaves what int64 holds exactly/, text(2n ** 53n + 1n, 2n ** 53n))
  assert.ok(E.isRight(decode(text(2n ** 53n - 1n, 2n ** 52n))))
  for (const to of [FLOAT, DOUBLE])
    refused(
      /\(Cast\)\): the integer 9007199254740992 leaves/,
      lines(
        ['N', 1],
        [
          ['Cast', 'a', 'd', { to }],
          ['Cast', 'd', 'e', { to: FLOAT }],
          ['Add', 'x e', 'y'],
        ],
        [{ name: 'a', shape: [1], data: [2n ** 53n + 1n] }],
      ),
    )
  // torch ends a slice at the largest integer.
  const sliced = lines(['N', 4], [['Slice', 'x', 'y', { starts: [1], ends: [2 ** 62], axes: [1] }]], [], 9)
  assert.equal(right(decode(sliced)).output, { ...right(decode(sliced)).output, shape: [3] })
})

test('where runtimes choose different elements for one file, it is refused', () => {
  const maps = ['N', 2, 4, 5] as const
  const scales = (...by: readonly number[]) => ({ name: 's', shape: [4], data: Float32Array.of(1, 1, ...by) })
  const resize = (by: readonly number[], given: Line[3], opset = 13) =>
    lines(maps, [['Resize', opset < 11 ? 'x s' : 'x  s', 'y', given]], [scales(...by)], opset)
  const half = { coordinate_transformation_mode: 'half_pixel', nearest_mode: 'floor' }
  // (1 + 1/2) / 0.6 - 1/2 is 2 in float32, and less than 2 for the float32 next to 0.6.
  refused(/element 1 of axis 3 is nearest to 2 in float32 and to 1 in exact arithmetic/, resize([0.5, 0.6], half))
  assert.ok(E.isRight(decode(resize([0.5, 0.4], half))))
  assert.ok(E.isRight(decode(resize([2, 1.5], half))))
  // onnxruntime rounds up where a map becomes smaller, the standard says nothing.
  refused(/before opset 11 runtimes choose elements of smaller maps differently/, resize([0.5, 0.6], {}, 10))
  assert.ok(E.isRight(decode(resize([0.5, 1], {}, 10))))
  const pool = (dilations: readonly number[]) =>
    lines(maps, [['MaxPool', 'x', 'y', { kernel_shape: [2, 2], auto_pad: 'SAME_UPPER', dilations }]], [], 13)
  refused(
    /\(MaxPool\)\): attribute auto_pad: with dilations the standard and onnxruntime pad differently/,
    pool([1, 2]),
  )
  assert.ok(E.isRight(decode(pool([1, 1]))))
})

// ---- gzip ----------------------------------------------------------------------------------------------------------

test('all members of a gzip file are its content', async () => {
  const random = (n: number, seed: number) => Uint8Array.from({ length: n }, (_, i) => (i * seed + (i >> 3)) % 251)
  const joined = (...parts: readonly Uint8Array[]) => Uint8Array.from(parts.flatMap((p) => [...p]))
  const gzip = (b: Uint8Array, level = 6) => new Uint8Array(gzipSync(b, { level }))
  const content = async (b: Uint8Array) => right(await unpacked(b, 'a.gz')())
  const [a, b] = [random(5000, 7), random(700, 13)]
  assert.equal(await content(joined(gzip(a), gzip(b))), joined(a, b))
  assert.equal(await content(joined(gzip(a), gzip(new Uint8Array()), gzip(b, 0), gzip(a))), joined(a, b, a))
  // What looks like a member but lies within one is none: stored bytes, a gzip file in a gzip file, hundreds of beginnings.
  const nested = gzip(b)
  assert.equal(await content(gzip(nested, 0)), nested)
  const beginnings = joined(...Array.from({ length: 200 }, () => Uint8Array.of(0x1f, 0x8b, 8, 0, 1, 2, 3)))
  assert.equal(await content(gzip(beginnings, 0)), beginnings)
  const failure = async (bytes: Uint8Array) => left(await unpacked(bytes, 'a.gz')())
  assert.match(await failure(joined(gzip(a), gzip(b).subarray(0, 60))), /damaged or truncated/)
  const flipped = joined(gzip(a), gzip(b))
  flipped[flipped.length - 6] ^= 1
  assert.match(await failure(flipped), /damaged or truncated/)
  const zeros = gzip(new Uint8Array(40_000_000))
  assert.match(await failure(joined(zeros, zeros)), /at most 67108864 bytes of content are read of so small a file/)
})

test('a gzipped file is unpacked by its content; what is too much or damaged is refused', async () => {
  const c = STRUCTURE.Slice
  const bytes = modelOf(c.shape, c.lines, c.initializers)
  const packed = new Uint8Array(gzipSync(bytes))
  assert.equal(right(await unpacked(packed, 'model.onnx')()), bytes)
  assert.equal(right(await unpacked(bytes, 'model.onnx.gz')()), bytes)
  assert.ok(E.isLeft(await unpacked(packed.subarray(0, packed.length - 9), 'a.gz')()))
  assert.match(
    left(await unpacked(packed.subarray(0, 10), 'a.gz')()),
    /a\.gz \(gzip\): the compressed data are truncated/,
  )
  const bomb = new Uint8Array(gzipSync(new Uint8Array(100_000_000)))
  assert.match(left(await unpacked(bomb, 'bomb.gz')()), /at most \d+ bytes .* unpack it first/)
  const liar = packed.slice()
  new DataView(liar.buffer).setUint32(liar.length - 4, 5, true)
  assert.ok(E.isLeft(await unpacked(liar, 'liar.gz')()))
})

test.run()
