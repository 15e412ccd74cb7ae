import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { constant, cosine, cosPi, linear, milestones, steps, times } from '../../src/loss/schedule.ts'
import { host } from './harness.ts'

const grid = Array.from({ length: 1001 }, (_, i) => i / 1000)
const at = (progress: number) => host({ progress })

test('cosPi agrees with cos(pi x) to 1e-13, is exact at the ends and falls', () => {
  for (const x of grid) assert.ok(Math.abs(cosPi(x) - Math.cos(Math.PI * x)) < 1e-13, `x = ${x}`)
  assert.ok(Math.abs(cosPi(0) - 1) < 1e-14 && Math.abs(cosPi(1) + 1) < 1e-14)
  assert.is(cosPi(0.5), 0)
  for (let i = 1; i < grid.length; i++) assert.ok(cosPi(grid[i]) < cosPi(grid[i - 1]) + 1e-15)
})

test('linear: constant outside [from, to], straight inside, a step where from = to', () => {
  const s = linear(1, 3, 0.25, 0.75)
  assert.equal(
    [0, 0.25, 0.5, 0.75, 1].map((p) => s(at(p))),
    [1, 1, 2, 3, 3],
  )
  for (const p of grid) assert.ok(s(at(p)) >= 1 && s(at(p)) <= 3)
  const jump = linear(0, 1, 0.5, 0.5)
  assert.equal(
    [0, 0.5, 0.51].map((p) => jump(at(p))),
    [0, 0, 1],
  )
  assert.equal(
    [0, 0.5, 1].map((p) => linear(2, 0)(at(p))),
    [2, 1, 0],
  )
})

test('cosine: from start to end, never rising, held before its share', () => {
  const s = cosine(0.1, 0.01, 0.5)
  assert.ok(Math.abs(s(at(0)) - 0.1) < 1e-15 && Math.abs(s(at(0.5)) - 0.1) < 1e-15 && Math.abs(s(at(1)) - 0.01) < 1e-15)
  assert.ok(Math.abs(s(at(0.75)) - 0.055) < 1e-15)
  for (let i = 1; i < grid.length; i++) assert.ok(s(at(grid[i])) <= s(at(grid[i - 1])) + 1e-17)
})

test('milestones: a factor from each epoch on, whatever the quotient of its progress rounds to', () => {
  for (const epochs of [3, 7, 70]) {
    const s = milestones(1, 0.2, [1, 2], epochs)
    const each = Array.from({ length: epochs }, (_, e) => s(at((e * 17) / (epochs * 17))))
    assert.equal(each.slice(0, 3), [1, 0.2, 0.2 * 0.2])
  }
})

test('steps, times and constant', () => {
  const s = steps(1, 0.5, [0.25, 0.5])
  assert.equal(
    [0, 0.25, 0.3, 0.5, 0.9].map((p) => s(at(p))),
    [1, 0.5, 0.5, 0.25, 0.25],
  )
  for (let i = 1; i < grid.length; i++) assert.ok(s(at(grid[i])) <= s(at(grid[i - 1])))
  assert.is(times(constant(3), s)(at(0.3)), 1.5)
  assert.is(times(s, 3)(at(0.3)), 1.5)
  assert.is(times(3, 0.5), 1.5)
})

test.run()
