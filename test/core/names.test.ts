import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { distance, nearest } from '../../src/core/names.ts'

test('Levenshtein distances of the literature', () => {
  assert.is(distance('kitten', 'sitting'), 3)
  assert.is(distance('flaw', 'lawn'), 2)
  assert.is(distance('', 'abc'), 3)
  assert.is(distance('mixtrain', 'mixtrain'), 0)
})

test('the distance is a metric, and no more than the edits that were made', () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 6 })
  fc.assert(
    fc.property(word, word, word, (a, b, c) => {
      assert.is(distance(a, b), distance(b, a))
      assert.is(distance(a, b) === 0, a === b)
      assert.ok(distance(a, c) <= distance(a, b) + distance(b, c))
      assert.ok(distance(a, b) >= Math.abs(a.length - b.length))
    }),
  )
  const edit = fc.record({ at: fc.nat(), cut: fc.boolean(), put: fc.constantFrom('', 'a', 'x') })
  fc.assert(
    fc.property(word, fc.array(edit, { maxLength: 4 }), (a, edits) => {
      const b = edits.reduce((text, { at, cut, put }) => {
        const i = at % (text.length + 1)
        return text.slice(0, i) + put + text.slice(cut ? i + 1 : i)
      }, a)
      assert.ok(distance(a, b) <= edits.length)
    }),
  )
})

test('the nearest name, whatever its case', () => {
  assert.is(nearest('SMAL', ['large', 'small']), 'small')
  assert.is(nearest('small', []), undefined)
})

test.run()
