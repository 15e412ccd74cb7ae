import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { evaluate } from '../../src/compile/run.ts'
import { node } from '../../src/core/op.ts'
import { compare, fromDouble, nearest, parseRational, type Rational, ratio } from '../../src/core/rational.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { type ExactTensor, evaluateExactly, exactDoubles, exactTensor, Inexact } from '../../src/verify/exact.ts'
import { entries } from '../ops/examples.ts'
import { SEED } from '../ops/property.ts'
import { exactRun } from '../robust/dyadic.ts'

const valuesOf = ({ numerators, denominator }: ExactTensor): readonly Rational[] =>
  numerators.map((n) => ratio(n, denominator))

/** Names of ops that exact arithmetic must know, however the registry grows. */
const KNOWN = [
  'add',
  'sub',
  'mul',
  'div',
  'neg',
  'abs',
  'sign',
  'step',
  'minimum',
  'maximum',
  'greater',
  'greaterEqual',
  'equal',
  'select',
  'relu',
  'leakyRelu',
  'matmul',
  'conv2d',
  'unfold',
  'maxOfWindows',
  'reshape',
  'transpose',
  'broadcast',
  'sum',
  'pad',
  'slice',
  'concat',
  'stopGradient',
  'probe',
  'max',
]

const seen = new Set<string>()
for (const { op, examples } of entries)
  for (const { label, inputs, attrs } of examples) {
    const given = inputs.map(({ shape }, i) => O.input(`x${i}`, shape))
    const y = node(op, given, attrs)
    const at = (data: readonly Float64Array[], scale = 1) =>
      new Map(given.map((x, i) => [x, exactDoubles(data[i].map((v) => scale * v))]))
    const known = (() => {
      try {
        evaluateExactly(y, at(inputs.map(({ shape }) => new Float64Array(S.size(shape)).fill(1))))
        return true
      } catch (e) {
        if (e instanceof Inexact) return false
        throw e
      }
    })()
    if (!known) continue
    seen.add(op.name)
    /** Whole numbers and halves, some equal and some 0, for which every kernel but that of a quotient is exact in doubles. */
    const data = fc.tuple(
      ...inputs.map(({ shape, low, high }) =>
        fc
          .array(fc.integer({ min: Math.ceil(2 * low), max: Math.floor(2 * high) }), {
            minLength: S.size(shape),
            maxLength: S.size(shape),
          })
          .map((a) => Float64Array.from(a, (v) => (low > 0 || high < 0 ? v / 2 || 1 : v / 2))),
      ),
    )
    test(`exact arithmetic of ${op.name} ${label} is its kernel on small numbers, and scales without rounding`, async () => {
      await fc.assert(
        fc.asyncProperty(data, async (some) => {
          const [f64] = await evaluate(reference())([y], new Map(given.map((x, i) => [x, some[i]])))
          const exact = valuesOf(evaluateExactly(y, at(some)))
          // What is composed of other ops, or has a slope that is rounded to be one, may round on the way, and need not be homogeneous.
          const free = 'expand' in op.kernel || op.name === 'leakyRelu' || op.name === 'prelu'
          exact.forEach((v, i) => {
            if (free) assert.ok(Math.abs(nearest(v) - f64[i]) <= 1e-14 * Math.max(1, Math.abs(f64[i])))
            else assert.is(nearest(v), f64[i] + 0)
          })
          // Operands times 2^300: each result times 2^0, 2^300 or 2^600, to the last digit.
          const scaled = valuesOf(evaluateExactly(y, at(some, 2 ** 300)))
          const degrees = [0, 300, 600].filter((e) =>
            scaled.every((v, i) => compare(v, ratio(exact[i].numerator << BigInt(e), exact[i].denominator)) === 0),
          )
          assert.ok(degrees.length > 0 || free, 'it does not scale')
        }),
        { seed: SEED, numRuns: 15 },
      )
    })
  }

test('what is exact stays exact', () => {
  assert.equal(
    KNOWN.filter((name) => !seen.has(name)),
    [],
  )
})

test('what chooses by order returns doubles of any size as they are, infinities of constants aside', async () => {
  const wide = fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), { minLength: 12, maxLength: 12 })
  const [a, b] = [O.input('a', [2, 6]), O.input('b', [2, 6])]
  const floor = O.select(O.greater(a, b), a, Number.NEGATIVE_INFINITY)
  const graphs: readonly Tensor[] = [
    O.relu(a),
    O.abs(a),
    O.maximum(a, O.neg(b)),
    O.minimum(a, b),
    O.max(a, 1),
    O.select(O.greaterEqual(a, b), a, b),
    O.sign(a),
    O.equal(a, b),
    O.maximum(O.max(floor, [1], true), -5) as Tensor,
  ]
  await fc.assert(
    fc.asyncProperty(wide, wide, async (p, q) => {
      for (const y of graphs) {
        const feeds = new Map([
          [a, Float64Array.from(p)],
          [b, Float64Array.from(q)],
        ])
        const [f64] = await evaluate(reference())([y], feeds)
        const exact = evaluateExactly(y, new Map([...feeds].map(([x, v]) => [x, exactDoubles(v)])))
        valuesOf(exact).forEach((v, i) => {
          assert.is(compare(v, fromDouble(f64[i])), 0)
        })
      }
    }),
    { seed: SEED, numRuns: 50 },
  )
})

test('a dense network of float32 weights of all sizes, against exact sums one by one', () => {
  const float = fc.float({ noNaN: true, noDefaultInfinity: true })
  const many = (n: number) => fc.array(float, { minLength: n, maxLength: n })
  fc.assert(
    fc.property(many(4), many(20), many(5), many(15), many(3), (x, w, b, v, c) => {
      const layer = (weights: readonly number[], bias: readonly number[]) => ({
        outputs: bias.map((own, j) => ({
          terms: Array.from(
            { length: weights.length / bias.length },
            (_, i) => [weights[j * (weights.length / bias.length) + i], i] as const,
          ),
          bias: own,
        })),
      })
      const dyadics = exactRun([layer(w, b), layer(v, c)], x)
      const dense = (h: Tensor, weights: readonly number[], bias: readonly number[]) =>
        O.add(
          O.matmul(h, O.constant(weights, [bias.length, weights.length / bias.length]), { transB: true }),
          O.constant(bias, [bias.length]),
        ) as Tensor
      const input = O.input('x', [1, 4])
      const y = dense(O.relu(dense(input, w, b)), v, c)
      const exact = valuesOf(evaluateExactly(y, new Map([[input, exactDoubles(x)]])))
      dyadics.forEach(({ m, e }, i) => {
        const { numerator, denominator } = exact[i]
        // m 2^e against numerator / denominator.
        assert.is(
          e >= 0 ? (m << BigInt(e)) * denominator : m * denominator,
          e >= 0 ? numerator : numerator << BigInt(-e),
        )
      })
    }),
    { seed: SEED, numRuns: 100 },
  )
})

test('rational points, quotients by constants, and what has no exact value', () => {
  const x = O.input('x', [1, 2])
  const third = exactTensor([ratio(1n, 3n), parseRational('0.1') as Rational])
  const y = O.div(O.sub(x, O.constant([0.5, 0.25], [2])), O.constant([3, -0.5], [2])) as Tensor
  assert.equal(valuesOf(evaluateExactly(y, new Map([[x, third]]))), [ratio(-1n, 18n), ratio(3n, 10n)])
  const fails = (graph: Tensor, pattern: RegExp) =>
    assert.throws(
      () => evaluateExactly(graph, new Map([[x, third]])),
      (e: unknown) => e instanceof Inexact && pattern.test(e.reason),
    )
  fails(O.exp(x), /exact arithmetic of exp is not known/)
  fails(O.sqrt(x), /sqrt/)
  fails(O.div(1, O.sub(x, x)) as Tensor, /divides by 0/)
  fails(O.add(x, Number.POSITIVE_INFINITY) as Tensor, /infinity/)
  fails(O.maximum(x, Number.NaN) as Tensor, /NaN/)
  fails(O.maximum(x, Number.POSITIVE_INFINITY) as Tensor, /infinity/)
})

test.run()
