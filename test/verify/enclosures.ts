import * as assert from 'uvu/assert'
import { compare, fromDouble, type Rational, ratio } from '../../src/core/rational.ts'
import type { Enclosure } from '../../src/verify/enclosure.ts'
import type { ExactTensor } from '../../src/verify/exact.ts'

export const valuesOf = ({ numerators, denominator }: ExactTensor): readonly Rational[] =>
  numerators.map((n) => ratio(n, denominator))

export const holds = ({ lower, upper }: Enclosure, values: readonly Rational[]): void =>
  values.forEach((v, i) => {
    assert.ok(compare(fromDouble(lower[i]), v) <= 0, `element ${i} is below ${lower[i]}`)
    assert.ok(compare(v, fromDouble(upper[i])) <= 0, `element ${i} is above ${upper[i]}`)
  })
