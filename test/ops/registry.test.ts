import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { registry } from '../../src/ops/index.ts'
import { suite } from './laws.ts'

suite('reference', async () => reference())

test('what is linear in an operand and bounded outward says how its executions sum', () => {
  // Without a kind its execution would count as one rounding (bounds/executions.ts).
  const silent = registry.filter(
    ({ relax, outward, linear }) =>
      (relax === 'linear' || (typeof relax === 'object' && 'bilinear' in relax)) &&
      outward !== undefined &&
      linear === undefined,
  )
  assert.equal(
    silent.map(({ name }) => name),
    [],
  )
})

test.run()
