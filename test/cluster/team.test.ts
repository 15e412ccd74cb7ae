import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { team } from '../../src/cluster/team.ts'
import { loopback } from '../train/loopback.ts'

const PATIENCE = 0.6
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

test('a rank that does not come is named, and one that comes after the job was stopped for a while is not', async () => {
  const both = await Promise.all(loopback(2).map((mpi, rank) => team(mpi, `host${rank}`, PATIENCE)))
  const [first, second] = both
  const one = Float64Array.of(1)
  const waits = first.total(one)
  await pause(10)
  // All of the job stands still for twice as long as a rank is waited for.
  for (const begun = performance.now(); performance.now() - begun < 2000 * PATIENCE; );
  await pause(10)
  assert.equal([...(await second.total(one)), ...(await waits)], [2, 2])

  const begun = performance.now()
  await first.total(one).then(
    () => assert.unreachable('the other did not come'),
    (e) => assert.match(JSON.stringify(e.error), /rank 1 on host1 did not answer for 0.6 seconds/),
  )
  assert.ok(performance.now() - begun >= 1000 * PATIENCE)
})

test.run()
