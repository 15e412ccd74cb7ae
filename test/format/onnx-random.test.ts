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

test.run()
