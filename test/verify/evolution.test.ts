import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { key } from '../../src/core/key.ts'
import { evolve } from '../../src/verify/evolution.ts'
import type { AttackTarget } from '../../src/verify/property-attack.ts'

/** A box of five inputs, the last of them fixed, as a target. */
const target = (conjunction: number): AttackTarget => {
  const box = { lower: Float32Array.of(-1, 0, -2, 0.5, 0.25), upper: Float32Array.of(1, 1, 2, 1, 0.25) }
  const goal = { box } as AttackTarget['goal']
  return { goal, conjunction, box, start: box.lower }
}

/** A needle of about a 10^-9th of the box beside a wide hollow whose floor is above 0: gradients of most points lead into the hollow. */
const NEEDLE = [0.7, 0.2, -1.1, 0.9, 0.25]
const needle = (x: ArrayLike<number>) => Math.max(...NEEDLE.map((c, i) => Math.abs(x[i] - c))) - 0.01
const hollow = (x: ArrayLike<number>) => 0.05 + 0.5 * Math.hypot(x[0] + 0.5, x[1] - 0.5, x[2] - 1)
const landscape = (x: ArrayLike<number>) => Math.min(needle(x), hollow(x))

test('points evolve into a needle that random ones do not find, inside the box, the same with the same key', async () => {
  const searched = async (seed: number) => {
    const lost: number[] = []
    let looks = 0
    await evolve(
      {
        look: async (targets) => {
          looks += targets.length
          for (const { start, box } of targets) assert.ok(start.every((v, i) => v >= box.lower[i] && v <= box.upper[i]))
          return targets.map((t) => ({ target: t, x: t.start, violation: landscape(t.start) }))
        },
      },
      [target(0), target(1)],
      key(seed),
      () => false,
      async (best) => {
        assert.equal(
          best.map((b) => b.target.conjunction),
          [0, 1],
        )
        lost.push(Math.min(...best.map((b) => b.violation)))
      },
    )
    assert.ok(
      lost.every((v, g) => g === 0 || v <= lost[g - 1]),
      'the best is kept',
    )
    return { looks, lost }
  }
  const all = await Promise.all([1, 2, 3, 4, 5].map(searched))
  assert.ok(all.filter(({ lost }) => lost[lost.length - 1] <= 0).length >= 4, JSON.stringify(all.map((a) => a.lost)))
  assert.ok(all.every(({ looks, lost }) => lost[0] > 0 && looks <= 16 * 4096))
  assert.equal(all[0], await searched(1))
})

test('it ends when it is late, and with what hears of it', async () => {
  let generations = 0
  const look = async (targets: readonly AttackTarget[]) => {
    generations++
    return targets.map((t) => ({ target: t, x: t.start, violation: 1 }))
  }
  await evolve(
    { look },
    [target(0)],
    key(1),
    () => generations >= 3,
    async () => undefined,
  )
  assert.is(generations, 3)
  const stop = new Error('found')
  try {
    await evolve(
      { look },
      [target(0)],
      key(1),
      () => false,
      async () => Promise.reject(stop),
    )
    assert.unreachable()
  } catch (e) {
    assert.is(e, stop)
  }
  assert.is(generations, 4)
})

test.run()
