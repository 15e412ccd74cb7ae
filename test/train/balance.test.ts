import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { adaptive, fixed, tightShare } from '../../src/train/balance.ts'

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

/** Two epochs alike, so that smoothing over two changes nothing, after two of the best. */
const after = (acc: number, vra: number, balance = 0.5, best = { acc: 0.9, vra: 0.6 }) =>
  adaptive(rule)([
    { ...best, balance },
    { ...best, balance },
    { acc, vra, balance },
    { acc, vra, balance },
  ])

test('adaptive moves towards the loss whose metric fell behind, and towards robustness where nothing is paid', () => {
  near(after(0.85, 0.6), 0.4)
  near(after(0.9, 0.5), 0.6)
  // Both fell: the one that fell further.
  near(after(0.8, 0.55), 0.4)
  near(after(0.85, 0.4), 0.6)
  // Nothing fell, or by less than half the tolerance.
  near(after(0.95, 0.7), 0.6)
  near(after(0.895, 0.6), 0.6)
  near(adaptive(rule)([{ acc: 0.1, vra: 0, balance: 0.5 }]), 0.6)
  // Between half the tolerance and the tolerance nothing moves.
  near(after(0.885, 0.6), 0.5)
  near(after(0.885, 0.585), 0.5)
  // The ends.
  near(after(0.9, 0.1, 0.8), 0.8)
  near(after(0.1, 0.6, 0.2), 0.2)
})

test('one bad epoch counts half', () => {
  const good = { acc: 0.9, vra: 0.6, balance: 0.5 }
  near(adaptive(rule)([good, good, { ...good, acc: 0.865 }]), 0.5)
  near(adaptive(rule)([good, good, { ...good, acc: 0.85 }]), 0.4)
})

test('the share of tight bounds follows what intervals prove and what tight bounds prove, whatever the balance does', () => {
  const good = { acc: 0.9, vra: 0.6, cheapVra: 0.5, balance: 0.3, share: 0.5 }
  const next = (last: Partial<typeof good>) =>
    tightShare(rule)([good, good, { ...good, ...last }, { ...good, ...last }])
  near(tightShare(rule)([]), rule.start)
  near(next({ cheapVra: 0.4 }), 0.4)
  near(next({ vra: 0.5 }), 0.6)
  near(next({}), 0.6)
  // ACC and the balance are the other conflict's.
  near(next({ acc: 0.1, balance: 0.9 }), 0.6)
  near(next({ cheapVra: Number.NaN }), 0.5)
  // Epochs of a run that did not measure intervals count by their VRA.
  near(tightShare(rule)([{ acc: 0.9, vra: 0.6, balance: 0.3 }]), rule.start + rule.step)
  check(histories, (h) => {
    const share = tightShare(rule)(h.map((e) => ({ ...e, cheapVra: e.acc, share: e.balance })))
    assert.is(share, adaptive(rule)(h))
  })
})

test('a NaN metric moves nothing', () => {
  for (const bad of [
    { acc: Number.NaN, vra: 0.5 },
    { acc: 0.5, vra: Number.NaN },
  ])
    near(adaptive(rule)([{ ...bad, balance: 0.4 }]), 0.4)
})

test.run()
