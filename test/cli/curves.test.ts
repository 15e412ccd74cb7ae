import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { drawCurves, spread } from '../../src/cli/curves.ts'
import type { EpochRecord } from '../../src/train/fit.ts'

test('labels keep their distance, their order and their panel', () => {
  const places = fc.array(fc.double({ min: 0, max: 100, noNaN: true }), { minLength: 1, maxLength: 5 })
  fc.assert(
    fc.property(places, (wanted) => {
      const placed = spread(wanted, 10, 0, 100)
      const order = wanted.map((_, i) => i).sort((a, b) => placed[a] - placed[b])
      order.forEach((i, at) => {
        assert.ok(placed[i] >= 0 && placed[i] <= 100)
        if (at > 0) assert.ok(placed[i] - placed[order[at - 1]] >= 10 - 1e-9 && wanted[i] >= wanted[order[at - 1]])
      })
    }),
  )
  assert.equal(spread([20, 50, 80], 10, 0, 100), [20, 50, 80])
})

const settings = { network: 'small', loss: 'mixtrain', epsilon: 0.1, data: '/somewhere/a<b>', seed: 3, epochs: 4 }
const record = (epoch: number): EpochRecord => ({
  epoch,
  seconds: epoch,
  loss: 1,
  terms: {},
  naturalLoss: 1,
  robustLoss: null,
  balance: 0.5,
  epsilon: 0.1,
  acc: 0.9,
  era: null,
  vra: 0.8,
})

test('the same run gives the same picture; a curve that was not measured is not drawn', () => {
  const history = [0, 1, 2, 3].map(record)
  const svg = drawCurves({ history, settings })
  assert.is(drawCurves({ history: history.map((r) => ({ ...r, seconds: 9 })), settings }), svg)
  assert.match(svg, /^<svg [^>]*xmlns="http:\/\/www.w3.org\/2000\/svg"/)
  assert.ok(svg.includes('ACC 90.0 % correct') && svg.includes('VRA 80.0 % verified') && svg.includes('a&lt;b&gt;'))
  assert.not.match(svg, /ERA \d|NaN|undefined|<script/)
})

test('no epochs, one and many', () => {
  for (const n of [0, 1, 130]) {
    const svg = drawCurves({
      history: Array.from({ length: n }, (_, i) => record(i)),
      settings: { ...settings, epsilon: 0 },
    })
    assert.not.match(svg, /NaN|undefined/)
  }
})

test('a value stands where its axis says, and the last one that was measured is told', () => {
  // Epochs 1 to 3 at x = 53, 333, 613; 100 % at y = 82, 0 % at y = 382.
  const era = [0.25, 0.5, null]
  const svg = drawCurves({ history: [0, 1, 2].map((i) => ({ ...record(i), era: era[i] })), settings })
  assert.ok(svg.includes('d="M53,307L333,232"') && svg.includes('ERA 50.0 % unbroken'))
  assert.ok(svg.includes('d="M53,112L333,112L613,112"'))
})

test('any name of a folder gives well-formed XML', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (data) => {
      const svg = drawCurves({ history: [record(0)], settings: { ...settings, data } })
      // What is left without the tags that the picture is made of has neither `<` nor a bare `&`.
      const tags = /<\/?(svg|title|rect|text|path|circle)( [a-zA-Z-]+="[^"<]*")*\/?>/g
      assert.not.match(svg.replace(tags, ''), /<|&(?!(amp|lt|gt|quot);)/)
      assert.not.ok([...svg].some((c) => (c < ' ' && !'\t\n\r'.includes(c)) || c === '\uFFFE' || c === '\uFFFF'))
    }),
  )
})

test.run()
