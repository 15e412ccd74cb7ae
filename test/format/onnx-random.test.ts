import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decodeOnnx } from '../../src/format/onnx/index.ts'
import { right } from '../shared.ts'
import { type Case, deviation, draw, modelOf, ort, run, runtime, tensor } from './onnx-models.ts'

/** Ops with random attributes: what is read computes what onnxruntime computes. */
const compare = async (c: Case, tolerance = 1e-5): Promise<void> => {
  const bytes = modelOf(c.shape, c.lines, c.initializers, { opset: c.opset ?? 13 })
  const model = right(decodeOnnx(bytes, 'random'))
  const shape = [2, ...model.input.shape]
  const data = draw(shape, 3, ...(c.range ?? [-2, 2]))
  const got = await run(model, 2, data)
  if (ort === undefined) return
  const theirs = await runtime(bytes, 'x', shape, data)
  const far = deviation(got, theirs)
  assert.ok(far < tolerance, `deviation ${far}`)
}

/** A property of cases; onnxruntime says which of them exist. */
const agree = (name: string, cases: fc.Arbitrary<Case>, runs = 40): void =>
  test(`${name}: random attributes`, () =>
    fc.assert(
      fc.asyncProperty(cases, (c) => compare(c)),
      { numRuns: runs, seed: 11 },
    ))

const upTo = (max: number, min = 1) => fc.integer({ min, max })
const each = <A>(axes: number, of: fc.Arbitrary<A>) => fc.array(of, { minLength: axes, maxLength: axes })
const AUTO = ['SAME_UPPER', 'SAME_LOWER', 'VALID'] as const

/** Strides, dilations, pads or auto_pad of windows of one or two axes. */
const windows = (axes: number, dilated: boolean) =>
  fc.record({
    kernel_shape: each(axes, upTo(3)),
    strides: each(axes, upTo(3)),
    dilations: dilated ? each(axes, upTo(2)) : fc.constant(Array.from({ length: axes }, () => 1)),
    pads: each(2 * axes, upTo(2, 0)),
    auto: fc.option(fc.constantFrom(...AUTO), { nil: undefined }),
  })

const placed = (pads: readonly number[], auto: string | undefined) =>
  auto === undefined ? { pads } : { auto_pad: auto }

agree(
  'Conv',
  upTo(2).chain((axes) =>
    fc.tuple(windows(axes, true), upTo(3), upTo(2), upTo(2)).map(([w, group, ins, outs]): Case => {
      const { kernel_shape, pads, auto, strides } = w
      // onnxruntime has no dilations with SAME.
      const dilations = auto === undefined ? w.dilations : w.dilations.map(() => 1)
      return {
        shape: ['N', group * ins, ...[7, 8].slice(0, axes)],
        lines: [['Conv', 'x w c', 'y', { kernel_shape, strides, dilations, group, ...placed(pads, auto) }]],
        initializers: [tensor('w', [group * outs, ins, ...kernel_shape]), tensor('c', [group * outs])],
      }
    }),
  ),
)

for (const [op, dilated, counting] of [
  ['MaxPool', true, false],
  ['AveragePool', false, true],
] as const)
  agree(
    op,
    upTo(2).chain((axes) =>
      fc.tuple(windows(axes, dilated), upTo(1, 0), upTo(1, 0)).map(([w, ceil_mode, counted]): Case => {
        const { kernel_shape, auto } = w
        // onnxruntime refuses SAME where windows are smaller than strides: its padding would be negative.
        const strides = w.strides.map((v, i) => (auto === undefined ? v : Math.min(v, kernel_shape[i])))
        // Windows that lie in the padding alone have no value.
        const pads = w.pads.map((p, i) => Math.min(p, kernel_shape[i % axes] - 1))
        const dilations = auto === undefined && dilated ? { dilations: w.dilations } : {}
        const count = counting ? { count_include_pad: counted } : {}
        const given = { kernel_shape, strides, ceil_mode, ...dilations, ...count, ...placed(pads, auto) }
        return { shape: ['N', 2, ...[7, 8].slice(0, axes)], lines: [[op, 'x', 'y', given]] }
      }),
    ),
    60,
  )

agree(
  'ConvTranspose',
  upTo(2).chain((axes) =>
    fc
      .tuple(windows(axes, true), upTo(3), upTo(2), upTo(2), each(axes, upTo(2, 0)))
      .map(([w, group, ins, outs, extra]): Case => {
        const { kernel_shape, strides, auto } = w
        const dilations = auto === undefined ? w.dilations : w.dilations.map(() => 1)
        // Less than a stride, and something is left.
        const output_padding = extra.map((e, i) => Math.min(e, strides[i] - 1))
        const pads = w.pads.map((p, i) => Math.min(p, kernel_shape[i % axes] - 1))
        const more = auto === undefined ? { output_padding } : {}
        return {
          shape: ['N', group * ins, ...[4, 5].slice(0, axes)],
          lines: [
            [
              'ConvTranspose',
              'x w c',
              'y',
              { kernel_shape, strides, dilations, group, ...more, ...placed(pads, auto) },
            ],
          ],
          initializers: [tensor('w', [group * ins, outs, ...kernel_shape]), tensor('c', [group * outs])],
        }
      }),
  ),
)

const COORDINATES = ['asymmetric', 'half_pixel', 'pytorch_half_pixel', 'align_corners']
const NEAREST = ['round_prefer_floor', 'round_prefer_ceil', 'floor', 'ceil']
agree(
  'Resize',
  fc
    .tuple(
      fc.constantFrom(...COORDINATES),
      fc.constantFrom(...NEAREST),
      fc.constantFrom(0.5, 0.75, 1, 1.25, 2, 3),
      fc.constantFrom(0.5, 1, 1.5, 2),
    )
    .map(([coordinate_transformation_mode, nearest_mode, h, w]): Case => {
      return {
        shape: ['N', 2, 8, 6],
        lines: [['Resize', 'x - s', 'y', { mode: 'nearest', coordinate_transformation_mode, nearest_mode }]],
        initializers: [{ name: 's', shape: [4], data: Float32Array.of(1, 1, h, w) }],
      }
    }),
  60,
)

test.run()
