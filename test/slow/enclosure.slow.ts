import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { node } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { type Enclosure, enclosedInDoubles } from '../../src/verify/enclosure.ts'
import { evaluateExactly, exactDoubles, Inexact } from '../../src/verify/exact.ts'
import { entries } from '../ops/examples.ts'
import { SEED } from '../ops/property.ts'
import { holds, valuesOf } from '../verify/enclosures.ts'

/** Undefined where an evaluation knows no rule, or a number is not finite. */
const ifKnown = <A>(f: () => A): A | undefined => {
  try {
    return f()
  } catch (e) {
    if (e instanceof Inexact) return undefined
    throw e
  }
}

const seen = new Set<string>()
for (const { op, examples } of entries)
  for (const { label, inputs, attrs } of examples) {
    const given = inputs.map(({ shape }, i) => O.input(`x${i}`, shape))
    const y = node(op, given, attrs)
    const enclosed = (boxes: readonly Enclosure[]) =>
      ifKnown(() => enclosedInDoubles(y, new Map(given.map((x, i): [Tensor, Enclosure] => [x, boxes[i]]))))
    const exact = (data: readonly Float64Array[]) =>
      ifKnown(() => valuesOf(evaluateExactly(y, new Map(given.map((x, i) => [x, exactDoubles(data[i])])))))
    const ones = inputs.map(({ shape }) => new Float64Array(S.size(shape)).fill(1))
    if (exact(ones) === undefined || enclosed(ones.map((x) => ({ lower: x, upper: x }))) === undefined) continue
    seen.add(op.name)
    // Doubles of all sizes, and how far each may be off; a part of them, or of the operands, are points.
    const some = fc.tuple(
      ...inputs.map(({ shape, low, high }) =>
        fc.record({
          at: fc.array(fc.double({ min: low, max: high, noNaN: true }), {
            minLength: S.size(shape),
            maxLength: S.size(shape),
          }),
          off: fc.oneof(
            fc.constant(0),
            fc.array(fc.constantFrom(0, 2 ** -60, 1e-9, 0.3), { minLength: S.size(shape), maxLength: S.size(shape) }),
          ),
          end: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), {
            minLength: S.size(shape),
            maxLength: S.size(shape),
          }),
        }),
      ),
    )
    test(`the enclosure of ${op.name} ${label} in doubles holds its exact value at points of the boxes`, () => {
      fc.assert(
        fc.property(some, (operands) => {
          const boxes = operands.map(({ at, off }): Enclosure => {
            const lower = Float64Array.from(at)
            return off === 0 ? { lower, upper: lower } : { lower, upper: lower.map((v, i) => v + off[i]) }
          })
          const box = enclosed(boxes)
          if (box === undefined) return
          // An end, the other, and a point between.
          for (const share of [() => 0, () => 1, undefined]) {
            const points = boxes.map(({ lower, upper }, k) =>
              lower.map((l, i) => Math.min(upper[i], l + (share?.() ?? operands[k].end[i]) * (upper[i] - l))),
            )
            const values = exact(points)
            if (values !== undefined) holds(box, values)
          }
        }),
        { seed: SEED, numRuns: 5 },
      )
    })
  }

test('what networks are made of has enclosures in doubles', () => {
  const wanted = [
    'add',
    'sub',
    'mul',
    'div',
    'matmul',
    'conv2d',
    'relu',
    'leakyRelu',
    'maxOfWindows',
    'reshape',
    'sum',
    'concat',
  ]
  assert.equal(
    wanted.filter((name) => !seen.has(name)),
    [],
  )
})

test.run()
