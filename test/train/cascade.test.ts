import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { remaining, unanimous } from '../../src/train/cascade.ts'

/** A classifier of whole numbers: `left` up to `last`, then `right`; over the ball of radius E it is proved where it is constant. */
interface Threshold {
  readonly last: number
  readonly left: number
  readonly right: number
}
const SIZE = 30
const E = 3
const points = Array.from({ length: SIZE }, (_, x) => x)
const near = (x: number): readonly number[] => points.filter((p) => Math.abs(p - x) <= E)
const classOf = ({ last, left, right }: Threshold, x: number): number => (x <= last ? left : right)
const proves = (f: Threshold, x: number): boolean => near(x).every((p) => classOf(f, p) === classOf(f, x))
/** What the cascade answers. */
const answer = (fs: readonly Threshold[], x: number): number | undefined => {
  const first = fs.find((f) => proves(f, x))
  return first && classOf(first, x)
}
const judge = (fs: readonly Threshold[], labels: readonly number[]) =>
  fs.map((f) => ({
    correct: Uint8Array.from(points, (x) => Number(classOf(f, x) === labels[x])),
    verified: Uint8Array.from(points, (x) => Number(classOf(f, x) === labels[x] && proves(f, x))),
  }))

const label = fc.integer({ min: 0, max: 2 })
const networks = fc.array(fc.record({ last: fc.integer({ min: 0, max: SIZE }), left: label, right: label }), {
  minLength: 1,
  maxLength: 4,
})

test('a unanimous image is answered rightly, and no point of its ball is answered wrongly', () => {
  let seen = 0
  fc.assert(
    fc.property(networks, fc.array(label, { minLength: SIZE, maxLength: SIZE }), (fs, labels) => {
      const verdict = unanimous(judge(fs, labels))
      for (const x of points.filter((p) => verdict[p] === 1)) {
        seen++
        assert.is(answer(fs, x), labels[x])
        for (const p of near(x)) assert.ok([labels[x], undefined].includes(answer(fs, p)))
      }
    }),
    { seed: 1805, numRuns: 300 },
  )
  assert.ok(seen > 100)
})

test('an image that the first network to prove anything proves rightly may be answered wrongly next to it', () => {
  const cascade = [
    { last: 10, left: 0, right: 1 },
    { last: 0, left: 0, right: 0 },
  ]
  // At 12 the first network says 1 without proof, the second proves 0; at 14 the first proves 1.
  assert.is(answer(cascade, 12), 0)
  assert.is(answer(cascade, 14), 1)
  assert.ok(near(12).includes(14))
  assert.is(unanimous(judge(cascade, Array(SIZE).fill(0)))[12], 0)
})

test('what remains for the next network: the images that none verifies', () => {
  const verdicts = (verified: readonly number[]) => ({
    correct: Uint8Array.from(verified, () => 1),
    verified: Uint8Array.from(verified),
  })
  assert.equal(remaining([verdicts([1, 0, 0, 1])]), [1, 2])
  assert.equal(remaining([verdicts([1, 0, 0, 1]), verdicts([0, 0, 1, 0])]), [1])
  assert.equal(unanimous([verdicts([1, 0, 0, 1]), verdicts([0, 0, 1, 0])]), Uint8Array.of(1, 0, 1, 1))
})

test.run()
