import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { compare, nearest, parseRational, plus, type Rational, times } from '../../src/core/rational.ts'
import type { Rounding } from '../../src/core/rounding.ts'
import type { Apply, Operand } from '../../src/core/tensor.ts'
import { decodeVnnlib, type ExactConstraint, type Property } from '../../src/format/vnnlib.ts'
import * as O from '../../src/ops/index.ts'
import { type PropertyOptions, verifyProperty } from '../../src/verify/branch-and-bound.ts'
import { type Subject, watching } from '../../src/verify/counterexample.ts'
import { counterexampleCheck } from '../../src/verify/counterexample-check.ts'
import { SEED } from '../ops/property.ts'
import { right } from '../shared.ts'

const DEPLOYED: Rounding = { outward: 'deployed' }
const REAL: Rounding = { outward: 'real' }

/** x W^T + b, layer by layer, with ReLUs between. */
const dense = (
  inputs: number,
  ...layers: readonly (readonly [readonly (readonly number[])[], readonly number[]])[]
): Subject => {
  const network: Apply = (x) =>
    layers.reduce((h, [w, b], i) => {
      const z = O.add(
        O.matmul(h as Operand, O.constant(w.flat(), [w.length, w[0].length]), { transB: true }),
        O.constant(b, [b.length]),
      ) as typeof x
      return i === layers.length - 1 ? z : O.relu(z)
    }, x)
  return { network, input: [inputs], outputs: layers[layers.length - 1][1].length }
}
const identity = dense(1, [[[1]], [0]])

const propertyOf = (assertions: string, inputs = 1, outputs = 1): Property => {
  const declare = (name: string, n: number) =>
    Array.from({ length: n }, (_, i) => `(declare-const ${name}_${i} Real)`).join('')
  return right(decodeVnnlib(`${declare('X', inputs)}${declare('Y', outputs)}${assertions}`, 'p'))
}
const verdictOf = async (subject: Subject, assertions: string, options: Partial<PropertyOptions> = {}, outputs = 1) => {
  const backend = right(await wasm({ threads: 1 })())
  try {
    const property = propertyOf(assertions, subject.input[0], outputs)
    return await verifyProperty({ ...watching(subject, property.watched), property, timeout: 2, ...options })(backend)
  } finally {
    backend.dispose()
  }
}

/** The value of an exact constraint's left side less its right side, by decimals. */
const slackOf = ({ indices, coefficients, bound }: ExactConstraint, y: readonly Rational[]): Rational =>
  indices.reduce((s, i, k) => plus(s, times({ numerator: coefficients[k], denominator: 1n }, y[i])), {
    numerator: -bound,
    denominator: 1n,
  } as Rational)
const number = (text: string): Rational => parseRational(text) as Rational

test('a box and a bound that only decimals tell apart: no point that the file does not have', async () => {
  const none = [
    '(assert (<= 0.3 X_0 0.4))(assert (<= Y_0 0.29999999999999999))',
    '(assert (<= 0.7 X_0 0.8))(assert (< Y_0 0.7))',
    '(assert (<= 0 X_0 1))(assert (<= Y_0 -1e-400))',
    '(assert (<= 1e-400 X_0 1))(assert (<= Y_0 0))',
    '(assert (< 0 X_0 1))(assert (<= Y_0 0))',
    '(assert (<= -9007199254740992 X_0 0))(assert (<= Y_0 -9007199254740993))',
    '(assert (<= 0 X_0 1))(assert (<= (* 1e30 Y_0) -1e-30))',
    '(assert (<= 0.1 X_0 0.1))(assert (< Y_0 0.1))',
  ]
  for (const text of none)
    for (const rounding of [REAL, DEPLOYED])
      assert.is.not((await verdictOf(identity, text, { rounding })).verdict, 'sat', text)
  assert.is(
    (await verdictOf(identity, '(assert (<= 0.30000000000000000001 X_0 0.3))(assert (<= Y_0 1))')).verdict,
    'unsat',
  )
})

test('points at the very end of a box, and between two doubles, are found and printed in full', async () => {
  const cases: readonly (readonly [string, RegExp | undefined])[] = [
    // The box is one number that is no double: it is the point.
    ['(assert (<= 0.1 X_0 0.1))(assert (<= Y_0 0.1))', /^0\.1$/],
    ['(assert (<= 0.1 X_0 0.1))(assert (>= Y_0 0.1))', /^0\.1$/],
    [
      '(assert (< 1 X_0 1.0000000000000002220446049250313080847263336181640625))(assert (> Y_0 1))',
      /^1\.00000000000000011/,
    ],
    ['(assert (<= -1 X_0 0.3))(assert (>= Y_0 0.29999999))', undefined],
    ['(assert (<= 0 X_0 5e-324))(assert (> Y_0 0))', undefined],
  ]
  for (const [text, decimal] of cases) {
    const { verdict, counterexample, reason } = await verdictOf(identity, text)
    assert.is(verdict, 'sat', `${text}: ${reason}`)
    const { x, y } = counterexample?.decimals ?? { x: [], y: [] }
    if (decimal !== undefined) assert.match(x[0], decimal)
    const [{ unsafe }] = propertyOf(text).cases
    for (const { exact } of unsafe[0]) {
      const side = compare(slackOf(exact, y.map(number)), number('0'))
      assert.ok(side < 0 || (side === 0 && !exact.strict), text)
    }
    // The network is the identity; a long output is rounded.
    assert.is(nearest(number(x[0])), nearest(number(y[0])))
  }
})

test('where float32 has no number of the box, deployed says why', async () => {
  const { verdict, reason } = await verdictOf(identity, '(assert (<= 0.1 X_0 0.1))(assert (<= Y_0 0.5))', {
    rounding: DEPLOYED,
  })
  assert.is(verdict, 'unknown')
  assert.match(reason as string, /input 0 has no float32 number/)
})

test('sums that cancel: real arithmetic and executions are different', async () => {
  // relu(2^60 x + 1) - relu(2^60 x) is 1 in real arithmetic, 0 in float32 and float64.
  const net = dense(
    1,
    [
      [[2 ** 60], [2 ** 60]],
      [1, 0],
    ],
    [[[1, -1]], [0]],
  )
  const low = '(assert (<= 1 X_0 2))(assert (<= Y_0 0.5))'
  const high = '(assert (<= 1 X_0 2))(assert (>= Y_0 0.5))'
  assert.is.not((await verdictOf(net, low)).verdict, 'sat')
  const { verdict, counterexample } = await verdictOf(net, low, { rounding: DEPLOYED })
  assert.equal([verdict, counterexample?.decimals.y], ['sat', ['0']])
  assert.is.not((await verdictOf(net, high, { rounding: DEPLOYED })).verdict, 'sat')
  const points = await counterexampleCheck(net, REAL)
  const [c] = propertyOf(low).cases
  assert.is(await points.check(c, [1.5]), undefined)
  assert.match(points.doubt() as string, /a counterexample in float64, but not in real arithmetic/)
  assert.is(points.doubt(), undefined)
  points.close()
})

test('an output just at its bound is judged exactly, on networks of any weights', async () => {
  const float = fc.float({ noNaN: true, noDefaultInfinity: true, min: Math.fround(-1e3), max: Math.fround(1e3) })
  const many = (n: number) => fc.array(float, { minLength: n, maxLength: n })
  await fc.assert(
    fc.asyncProperty(many(2), many(6), many(3), many(3), many(1), async (x, w, b, v, c) => {
      const pair = (i: number) => w.slice(2 * i, 2 * i + 2)
      const net = dense(2, [[pair(0), pair(1), pair(2)], b], [[v], c])
      // The exact value of the output at x.
      const value = Array.from({ length: 3 }, (_, j) => {
        const z = [...pair(j).map((a, i) => times(exact(a), exact(x[i]))), exact(b[j])].reduce(plus)
        return z.numerator > 0n ? times(z, exact(v[j])) : exact(0)
      }).reduce(plus, exact(c[0]))
      const points = await counterexampleCheck(net, REAL)
      try {
        const at = async (strict: boolean, by: bigint) => {
          const bound = value.numerator * 2n ** 400n + by * value.denominator
          const constraint = {
            coefficients: Float64Array.of(1),
            bound: Number(value.numerator) / Number(value.denominator),
            outward: Number.POSITIVE_INFINITY,
            exact: { indices: [0], coefficients: [value.denominator * 2n ** 400n], bound, strict },
          }
          const ends = Float64Array.from(x)
          const found = await points.check(
            { lower: ends, upper: ends, outward: { lower: ends, upper: ends }, unsafe: [[constraint]] },
            x,
          )
          return found !== undefined
        }
        assert.equal(
          [await at(false, 0n), await at(true, 0n), await at(true, 1n), await at(false, -1n)],
          [true, false, true, false],
        )
      } finally {
        points.close()
      }
    }),
    { seed: SEED, numRuns: 40 },
  )
})
const exact = (v: number): Rational => {
  // A float32 number is a whole multiple of 2^-149.
  return { numerator: BigInt(v * 2 ** 100 * 2 ** 49), denominator: 2n ** 149n }
}

test('constraints on several inputs are part of what is proved and of what is found', async () => {
  // y = x0 + x1 on the unit square; with x0 - x1 >= 0.5 it is at least 0.5, with x0 = 2 x1 at most 1.5.
  const net = dense(2, [[[1, 1]], [0]])
  const square = '(assert (<= 0 X_0 1))(assert (<= 0 X_1 1))'
  const cases = [
    ['(assert (>= (- X_0 X_1) 0.5))(assert (<= Y_0 0.49))', 'unsat'],
    ['(assert (>= (- X_0 X_1) 0.5))(assert (<= Y_0 0.51))', 'sat'],
    ['(assert (<= (- X_0 X_1) -2))(assert (<= Y_0 5))', 'unsat'],
    ['(assert (>= Y_0 (+ X_0 X_1 0.01)))', 'unsat'],
    ['(assert (<= Y_0 (* 1.5 X_0)))(assert (>= X_0 0.9))', 'sat'],
  ] as const
  for (const [text, expected] of cases) {
    const { verdict, counterexample } = await verdictOf(net, square + text)
    assert.is(verdict, expected, text)
    if (counterexample === undefined) continue
    const [a, b] = counterexample.decimals.x.map(number)
    assert.is(compare(plus(a, b), number(counterexample.decimals.y[0])), 0)
  }
})

test.run()
