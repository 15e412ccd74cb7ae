import * as fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { dominates, drawn, front, promoted, readSpaces, sizes, spaceOf } from '../../bench/tune-front.ts'
import { key } from '../../src/core/key.ts'
import { type ObjectiveName, objectives } from '../../src/loss/objective.ts'

const SEED = 20261128
const points = fc.array(fc.record({ acc: fc.integer({ min: 0, max: 9 }), vra: fc.integer({ min: 0, max: 9 }) }), {
  maxLength: 12,
})

test('a front: no point of it is dominated, and everything outside is dominated by one of it', () => {
  fc.assert(
    fc.property(points, (all) => {
      const best = front(all)
      const outside = all.filter((p) => !best.includes(p))
      return (
        best.every((p) => !all.some((q) => dominates(q, p))) && outside.every((p) => best.some((q) => dominates(q, p)))
      )
    }),
    { seed: SEED },
  )
})

test('who goes on: as many as there are places, and nobody while one that dominates stays behind', () => {
  fc.assert(
    fc.property(points, fc.integer({ min: 0, max: 14 }), (all, n) => {
      const chosen = promoted(all, n)
      const behind = all.filter((p) => !chosen.includes(p))
      return (
        chosen.length === Math.min(n, all.length) &&
        new Set(chosen).size === chosen.length &&
        chosen.every((p) => !behind.some((q) => dominates(q, p)))
      )
    }),
    { seed: SEED },
  )
  assert.equal(
    promoted(
      [
        { acc: 0.9, vra: 0.1 },
        { acc: 0.8, vra: 0.7 },
        { acc: 0.2, vra: 0.8 },
      ],
      1,
    ),
    [{ acc: 0.8, vra: 0.7 }],
  )
})

test('halving leaves a share of those below, one at least', () => {
  assert.equal(sizes(18, 3, 3), [18, 6, 2])
  assert.equal(sizes(2, 3, 3), [2, 1, 1])
})

test('numbers by chance are in their ranges, depend on the key alone, and spread over them', () => {
  for (const loss of Object.keys(objectives) as ObjectiveName[]) {
    const space = spaceOf(loss)
    for (let seed = 0; seed < 50; seed++) {
      const numbers = drawn(space, key(seed))
      assert.equal(numbers, drawn(space, key(seed)))
      assert.equal(Object.keys(numbers), Object.keys(space))
      for (const [name, range] of Object.entries(space)) {
        const x = numbers[name]
        if (range === undefined || Array.isArray(range)) assert.ok(range?.includes(x), `${loss} ${name} ${x}`)
        else assert.ok(typeof x === 'number' && x >= range.from && x <= range.to, `${loss} ${name} ${x}`)
      }
    }
  }
  const ks = Array.from({ length: 400 }, (_, seed) => Number(drawn(spaceOf('mixtrain'), key(seed)).k))
  for (let k = 1; k <= 8; k++) assert.ok(ks.filter((x) => x === k).length > 25, `k = ${k}`)
  const low = Array.from({ length: 400 }, (_, seed) => Number(drawn(spaceOf('mtl-ibp'), key(seed)).balance))
  // Half of a logarithmic range lies below the geometric mean of its ends.
  const half = low.filter((x) => x < Math.sqrt(0.01 * 0.9)).length
  assert.ok(half > 160 && half < 240, String(half))
})

test('a space of a file: ranges and values; what is no number of a recipe, or no range, is refused by name', () => {
  const given = { ibp: { lr: { from: 1e-4, to: 1e-2, log: true }, batchSize: [50, 100] } }
  assert.equal(readSpaces(given), E.right(given))
  for (const [wrong, says] of [
    [{ ibp: { rate: [1] } }, /rate/],
    [{ ibp: { lr: { from: 2, to: 1 } } }, /from is above to/],
    [{ ibp: { lr: { from: 0, to: 1, log: true } } }, /above 0/],
    [{ ibp: { lr: [] } }, /lr/],
    [[1], /record/i],
  ] as const) {
    const read = readSpaces(wrong)
    assert.ok(E.isLeft(read) && says.test(read.left), JSON.stringify(read))
  }
})

test.run()
