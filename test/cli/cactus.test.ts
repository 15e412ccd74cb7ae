import * as fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { cactusOf, drawCactus } from '../../src/cli/cactus.ts'
import type { Outcome } from '../../src/cli/instances.ts'

const outcome = (family: string, verdict: string, seconds: number, expected?: 'sat' | 'unsat'): Outcome => ({
  onnx: 'a',
  vnnlib: 'b',
  family,
  timeout: undefined,
  limit: 60,
  verdict,
  expected,
  seconds,
  cpu: undefined,
  memory: undefined,
  subproblems: undefined,
  reason: '',
})

test('what is decided and not wrong counts, in order of seconds, for each family and for all', () => {
  const lines = cactusOf([
    outcome('f', 'sat', 3),
    outcome('g', 'unsat', 1, 'unsat'),
    outcome('f', 'unsat', 0.5, 'sat'),
    outcome('f', 'timeout', 60),
    outcome('f', 'sat', 2),
  ])
  assert.equal(lines, [
    { name: 'all', seconds: [1, 2, 3] },
    { name: 'f', seconds: [2, 3] },
    { name: 'g', seconds: [1] },
  ])
})

test('the picture is of finite numbers, has a line for each family that decided something, and escapes names', () => {
  const some = fc.record({
    family: fc.constantFrom('a', 'b<c>', '"&'),
    verdict: fc.constantFrom('sat', 'unsat', 'timeout', 'crash'),
    seconds: fc.double({ min: 0, max: 1e4, noNaN: true }),
  })
  fc.assert(
    fc.property(fc.array(some, { maxLength: 30 }), (all) => {
      const outcomes = all.map(({ family, verdict, seconds }) => outcome(family, verdict, seconds))
      const svg = drawCactus(outcomes)
      assert.not.match(svg, /NaN|Infinity|undefined|<c>/)
      const lines = cactusOf(outcomes).filter(({ seconds }) => seconds.length > 0)
      assert.is([...svg.matchAll(/fill="none"/g)].length, lines.length)
      assert.is(svg, drawCactus(outcomes))
    }),
  )
})

test.run()
