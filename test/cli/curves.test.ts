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
  naturalLoss: 1,
  robustLoss: null,
  balance: 0.5,
  epsilon: 0.1,
  acc: 0.9,
  era: null,
  vra: 0.8,
})

test('the same run gives the same picture; a curve that was not measured is not drawn', async () => {
  const history = [0, 1, 2, 3].map(record)
  const svg = await drawCurves({ history, settings })
  assert.is(await drawCurves({ history: history.map((r) => ({ ...r, seconds: 9 })), settings }), svg)
  assert.match(svg, /^<svg [^>]*xmlns="http:\/\/www.w3.org\/2000\/svg"/)
  assert.ok(svg.includes('ACC 90.0 % correct') && svg.includes('VRA 80.0 % verified') && svg.includes('a&lt;b&gt;'))
  assert.not.match(svg, /ERA \d|NaN|undefined|<script/)
})

test('no epochs, one and many', async () => {
  for (const n of [0, 1, 130]) {
    const svg = await drawCurves({
      history: Array.from({ length: n }, (_, i) => record(i)),
      settings: { ...settings, epsilon: 0 },
    })
    assert.not.match(svg, /NaN|undefined/)
  }
})

test.run()
