import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { costLine } from '../../src/cli/ranks.ts'
import { launched } from '../../src/cluster/mpi.ts'
import { refused } from './run.ts'

// Trainings over ranks are tried in test/slow/ranks.slow.ts.

test('a launcher is known by its environment', () => {
  assert.equal(launched({}), undefined)
  assert.equal(launched({ OMPI_COMM_WORLD_SIZE: '4' }), { size: 4, launcher: 'mpirun' })
  // A batch script of a job with several tasks is one process; what srun starts in it is several.
  assert.equal(launched({ SLURM_NTASKS: '4', SLURM_PROCID: '0' }), undefined)
  const srun = { SLURM_NTASKS: '4', SLURM_PROCID: '0', SLURM_STEP_ID: '0', SLURM_STEP_NUM_TASKS: '2' }
  assert.equal(launched(srun), { size: 2, launcher: 'srun' })
})

test('what the sums of a run cost is said by step, and as a share', () => {
  const cost = () => ({ bytes: 5e6, seconds: 1, whole: 8, sums: 4 })
  assert.match(costLine({ size: 2, cost }), /2 ranks: 4 sums .* 1\.25 MB .* 250\.0 ms .* 13 % of the time/)
  const none = () => ({ bytes: 0, seconds: 0, whole: 0, sums: 0 })
  assert.match(costLine({ size: 2, cost: none }), /0 sums .* 0\.00 MB .* 0\.0 ms .* 0 %/)
})

test('what cannot be cut into micro-batches is refused', async () => {
  const small = ['train', '--limit', '60,10', '--epochs', '1', '--output', '/nowhere/at/all']
  await refused([...small, '--batch-size', '12', '--micro-batches', '5'], 2, '5 do not divide a batch of 12')
})

test.run()
