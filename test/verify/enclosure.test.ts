import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { compare, fromDouble, times } from '../../src/core/rational.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { enclosedInDoubles } from '../../src/verify/enclosure.ts'
import { evaluateExactly, exactDoubles } from '../../src/verify/exact.ts'
import { SEED } from '../ops/property.ts'
import { holds, valuesOf } from './enclosures.ts'

test('expansions of what is computed itself: exactly, and between doubles', () => {
  const x = O.input('x', [1, 2])
  const y = O.leakyRelu(0.5)(O.matmul(x, O.constant([1, -1, 1, 1], [2, 2]))) as Tensor
  const at = Float64Array.of(1, -2)
  const exact = valuesOf(evaluateExactly(y, new Map([[x, exactDoubles(at)]])))
  assert.equal(
    exact.map((v) => compare(times(v, fromDouble(-2)), fromDouble(1))),
    [0, 1],
  )
  holds(enclosedInDoubles(y, new Map([[x, { lower: at, upper: at }]])), exact)
})

test('a root lies between the squares of its ends, and no further apart than a few doubles', () => {
  const x = O.input('x', [1])
  fc.assert(
    fc.property(fc.double({ min: 1e-300, max: 1e300, noNaN: true }), (v) => {
      const at = Float64Array.of(v)
      const { lower, upper } = enclosedInDoubles(O.sqrt(x), new Map([[x, { lower: at, upper: at }]]))
      const [l, u] = [fromDouble(lower[0]), fromDouble(upper[0])]
      assert.ok(compare(times(l, l), fromDouble(v)) <= 0 && compare(fromDouble(v), times(u, u)) <= 0)
      assert.ok(upper[0] - lower[0] <= 8 * Number.EPSILON * upper[0])
    }),
    { seed: SEED, numRuns: 200 },
  )
})

test('a network with a batch norm: between doubles, exactly where its root is a rational number', () => {
  // sqrt(9/4) = 3/2: the exact value of the network with the root and of that with 3/2 in its place.
  const [x, w] = [O.input('x', [1, 3]), O.constant([0.1, -0.7, 1.3, 0.2, 0.9, -0.4], [2, 3])]
  const of = (root: Tensor) =>
    O.relu(O.div(O.sub(O.matmul(x, w, { transB: true }), O.constant([0.3, -0.1], [2])), root)) as Tensor
  const [rooted, known] = [of(O.sqrt(O.constant([2.25, 2.25], [2])) as Tensor), of(O.constant([1.5, 1.5], [2]))]
  fc.assert(
    fc.property(fc.array(fc.double({ min: -2, max: 2, noNaN: true }), { minLength: 3, maxLength: 3 }), (p) => {
      const at = Float64Array.from(p)
      const box = enclosedInDoubles(rooted, new Map([[x, { lower: at, upper: at }]]))
      holds(box, valuesOf(evaluateExactly(known, new Map([[x, exactDoubles(at)]]))))
      assert.ok(box.upper.every((u, i) => u - box.lower[i] < 1e-14))
    }),
    { seed: SEED, numRuns: 50 },
  )
})

test.run()
