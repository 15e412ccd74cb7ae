import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import {
  above,
  below,
  compare,
  fromDouble,
  minus,
  nearest,
  over,
  parseRational,
  plus,
  type Rational,
  ratio,
  showExactly,
  showRounded,
  times,
} from '../../src/core/rational.ts'
import { nextDouble } from '../../src/core/rounding.ts'

const double = fc.double({ noNaN: true, noDefaultInfinity: true }).map((x) => x + 0)
const rational = fc
  .tuple(fc.bigInt({ min: -(2n ** 200n), max: 2n ** 200n }), fc.bigInt({ min: 1n, max: 2n ** 200n }))
  .map(([n, d]) => ratio(n, d))
const number = (text: string): Rational => parseRational(text) as Rational

test('every double is itself, from its bits and from its digits', () => {
  fc.assert(
    fc.property(double, (x) => {
      const exact = fromDouble(x)
      assert.equal([below(exact), above(exact), nearest(exact)], [x, x, x])
      assert.is(nearest(number(String(x))), x)
      assert.is(compare(number(showExactly(exact) as string), exact), 0)
    }),
    { numRuns: 2000 },
  )
})

test('below and above are neighbours that enclose a number, nearest is the nearer one', () => {
  fc.assert(
    fc.property(rational, fc.integer({ min: -1100, max: 1000 }), (a, e) => {
      const v = times(a, e < 0 ? { numerator: 1n, denominator: 1n << BigInt(-e) } : ratio(1n << BigInt(e), 1n))
      const [l, u] = [below(v), above(v)]
      if (l > Number.NEGATIVE_INFINITY) assert.ok(compare(fromDouble(l), v) <= 0)
      if (u < Number.POSITIVE_INFINITY) assert.ok(compare(fromDouble(u), v) >= 0)
      assert.ok(l === u || nextDouble(l) === u)
      const near = nearest(v)
      assert.ok(near === l || near === u)
      if (!Number.isFinite(l) || !Number.isFinite(u)) return
      const [down, up] = [plus(v, minus(fromDouble(l))), plus(fromDouble(u), minus(v))]
      if (compare(down, up) !== 0) assert.is(near, compare(down, up) < 0 ? l : u)
    }),
    { numRuns: 2000 },
  )
})

test('halves go to the even double', () => {
  const half = plus(fromDouble(1), ratio(1n, 2n ** 53n))
  assert.is(nearest(half), 1)
  assert.is(nearest(plus(half, ratio(1n, 2n ** 52n))), 1 + 2 ** -51)
  assert.is(nearest(ratio(1n, 2n ** 1075n)), 0)
  assert.is(nearest(ratio(3n, 2n ** 1075n)), 2 ** -1073)
})

test('the ends of the doubles', () => {
  const huge = number('1e400')
  assert.equal([below(huge), above(huge)], [Number.MAX_VALUE, Number.POSITIVE_INFINITY])
  assert.equal([below(minus(huge)), above(minus(huge))], [Number.NEGATIVE_INFINITY, -Number.MAX_VALUE])
  const tiny = number('1e-400')
  assert.equal([below(tiny), above(tiny)], [0, Number.MIN_VALUE])
  assert.equal([below(minus(tiny)), above(minus(tiny))], [-Number.MIN_VALUE, 0])
  // Between the greatest double and 2^1024.
  const last = plus(fromDouble(Number.MAX_VALUE), ratio(1n, 3n))
  assert.equal([below(last), above(last)], [Number.MAX_VALUE, Number.POSITIVE_INFINITY])
  assert.equal([below(minus(last)), above(minus(last))], [Number.NEGATIVE_INFINITY, -Number.MAX_VALUE])
})

test('numbers as files spell them', () => {
  assert.equal(number('-1.50e-1'), { numerator: -3n, denominator: 20n })
  assert.equal(number('+.5'), { numerator: 1n, denominator: 2n })
  assert.equal(number('1e3'), { numerator: 1000n, denominator: 1n })
  assert.equal(number('-0x1.8p-1'), { numerator: -3n, denominator: 4n })
  assert.equal(number('0x10'), { numerator: 16n, denominator: 1n })
  assert.equal(number('-0'), { numerator: 0n, denominator: 1n })
  for (const text of ['', '.', '-', 'e5', '1e', '1.2.3', 'NaN', 'Infinity', '0x', '1e99999', '1_000', '1'.repeat(3000)])
    assert.is(parseRational(text), undefined)
  assert.is(showExactly(ratio(1n, 3n)), undefined)
  assert.is(showExactly(fromDouble(0.1)), '0.1000000000000000055511151231257827021181583404541015625')
  assert.is(showExactly(over(ratio(-7n, 1n), ratio(40n, 1n))), '-0.175')
})

test('rounded decimals stay on their side', () => {
  fc.assert(
    fc.property(rational, fc.integer({ min: 1, max: 40 }), (a, digits) => {
      const [down, up] = [number(showRounded(a, digits, 'down')), number(showRounded(a, digits, 'up'))]
      assert.ok(compare(down, a) <= 0 && compare(a, up) <= 0)
      // Within a unit of the digit before the last.
      const size = a.numerator < 0n ? minus(a) : a
      const unit = times(size, number(`1e${2 - digits}`))
      assert.ok(compare(plus(up, minus(down)), plus(unit, unit)) <= 0)
    }),
  )
  assert.is(showRounded(ratio(2n, 3n), 4, 'down'), '0.6666')
  assert.is(showRounded(ratio(-2n, 3n), 4, 'down'), '-0.6667')
  assert.is(showRounded(ratio(123456n, 1n), 2, 'down').length, 6)
})

test.run()
