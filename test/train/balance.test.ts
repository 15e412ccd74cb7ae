import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { adaptive, type EpochMetrics, fixed } from '../../src/train/balance.ts'

const rule = { start: 0.5, min: 0.2, max: 0.8, step: 0.1, tolerance: 0.02 }
const fraction = fc.double({ min: 0, max: 1, noNaN: true })
const histories = fc.array(
  fc.record({ acc: fraction, vra: fraction, balance: fc.double({ min: 0.2, max: 0.8, noNaN: true }) }),
  { maxLength: 8 },
)
const check = <A>(arbitrary: fc.Arbitrary<A>, body: (a: A) => void): void =>
  fc.assert(fc.property(arbitrary, body), { seed: 20181102, numRuns: 200 })
const near = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-12, `${a} and ${b}`)

test('fixed is fixed', () =>
  check(histories, (h) => {
    assert.is(fixed(0.3)(h), 0.3)
  }))

test('adaptive: a pure function of the history, inside its bounds, at most a step from the last balance', () =>
  check(histories, (h) => {
    const frozen = JSON.stringify(h)
    const next = adaptive(rule)(h)
    assert.is(adaptive(rule)(h), next)
    assert.is(JSON.stringify(h), frozen)
    assert.ok(next >= rule.min && next <= rule.max)
    const last = h[h.length - 1]
    if (last === undefined) assert.is(next, rule.start)
    else assert.ok(Math.abs(next - last.balance) <= rule.step + 1e-12)
  }))

test('adaptive moves towards the loss whose metric fell behind', () => {
  const best: EpochMetrics = { acc: 0.9, vra: 0.6, balance: 0.5 }
  const after = (acc: number, vra: number) => adaptive(rule)([best, { acc, vra, balance: 0.5 }])
  near(after(0.85, 0.6), 0.4)
  near(after(0.9, 0.5), 0.6)
  // Both fell: the one that fell further.
  near(after(0.8, 0.55), 0.4)
  near(after(0.85, 0.4), 0.6)
  // Within the tolerance nothing moves.
  near(after(0.89, 0.59), 0.5)
  near(after(0.95, 0.7), 0.5)
  near(
    adaptive(rule)([
      { ...best, balance: 0.8 },
      { acc: 0.9, vra: 0.1, balance: 0.8 },
    ]),
    0.8,
  )
  near(
    adaptive(rule)([
      { ...best, balance: 0.2 },
      { acc: 0.1, vra: 0.6, balance: 0.2 },
    ]),
    0.2,
  )
})

test('a NaN metric moves nothing', () => {
  for (const bad of [
    { acc: Number.NaN, vra: 0.5 },
    { acc: 0.5, vra: Number.NaN },
  ])
    near(adaptive(rule)([{ ...bad, balance: 0.4 }]), 0.4)
})

test.run()
