import { spawnSync } from 'node:child_process'
import { appendFileSync, copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { fold, key, uniform } from '../../src/core/key.ts'
import { inFolder, logged, main, runtime, start } from '../cli/run.ts'
import { skipped } from '../shared.ts'
import { ended, hashOf, MPI, missing, processOf, ranks, train } from './mpi.ts'

/** How often a rank is killed: rank 0 of two, 1 of three, 0 of two, ...; at a random moment after the start, or after the next epoch, in so many seconds. */
const [KILLS, AFTER_START, AFTER_EPOCH] = [20, 2, 0.3]
const GIVEN = ['--epochs', '30', '--micro-batches', '4', '--k', '2']
const packageFolder = join(dirname(main), '../../..')

if (missing !== undefined) skipped('faults of MPI ranks', missing)
else {
  test(
    'twenty kills of ranks at random moments: each ends the job, and what is left goes on to the same bits',
    inFolder(async (folder) => {
      const [one, broken] = [join(folder, 'one'), join(folder, 'broken')]
      await ended([...runtime, main, ...train(one, 1, ...GIVEN)])
      const epochs = () =>
        existsSync(join(broken, 'log.jsonl'))
          ? readFileSync(join(broken, 'log.jsonl'), 'utf8').split('\n').length - 1
          : 0
      const hasCheckpoint = () => existsSync(join(broken, 'checkpoint.safetensors'))
      let [killed, midway] = [0, 0]
      for (let i = 0; i < KILLS && !existsSync(join(broken, 'model.safetensors')); i++) {
        const [size, rank, before] = [2 + (i % 2), i % 4 === 3 ? 2 : i % 2, epochs()]
        // A run that was killed before its first checkpoint left nothing to go on from.
        if (!hasCheckpoint()) rmSync(broken, { recursive: true, force: true })
        const running = start(
          ranks(size, hasCheckpoint() ? ['train', '--resume', broken, '--threads', '1'] : train(broken, 1, ...GIVEN)),
        )
        let over = false
        void running.ended.then(() => {
          over = true
        })
        const isMidway = i % 4 !== 0
        if (isMidway) await logged(broken, before + 1, running)
        const [moment] = uniform(fold(key(7), i), 1)
        await new Promise((resolve) => setTimeout(resolve, 1000 * moment * (isMidway ? AFTER_EPOCH : AFTER_START)))
        const victim = over ? undefined : processOf(running.pid, rank)
        const struck = performance.now()
        if (victim !== undefined) process.kill(victim, 'SIGKILL')
        else running.kill('SIGKILL')
        const { code, err } = await running.ended
        assert.ok((performance.now() - struck) / 1000 < 60, `${i}: it took more than a minute to end`)
        if (victim === undefined || code === 0) continue
        killed++
        midway += Number(isMidway)
        assert.match(err, /signal 9|Killed/, `${i}: ${err}`)
        assert.ok(err.includes(hostname()), `${i}: ${err}`)
      }
      assert.ok(killed >= 10 && midway >= 5, `${killed} were killed, ${midway} of them in the middle`)
      if (!existsSync(join(broken, 'model.safetensors')))
        await ended(ranks(2, ['train', '--resume', broken, '--threads', '1']))
      assert.is(hashOf(broken), hashOf(one), `after ${killed} kills`)
    }),
  )

  test(
    'a rank with another version of the program is refused by name',
    inFolder(async (folder) => {
      // This package, with a line more in one module.
      const other = join(folder, 'other')
      mkdirSync(other)
      copyFileSync(join(packageFolder, 'package.json'), join(other, 'package.json'))
      symlinkSync(join(packageFolder, 'node_modules'), join(other, 'node_modules'))
      cpSync(join(packageFolder, 'dist/src'), join(other, 'dist/src'), { recursive: true })
      appendFileSync(join(other, 'dist/src/train/average.js'), '\n// another version\n')
      const given = train(join(folder, 'run'), 1, '--epochs', '1', '--micro-batches', '2')
      const argv = (program: string) => [...runtime, program, ...given]
      const { code, err } = await start([
        ...['mpirun', ...MPI, '-n', '1', ...argv(main)],
        ...[':', '-n', '1', ...argv(join(other, 'dist/src/cli/main.js'))],
      ]).ended
      assert.is.not(code, 0)
      assert.match(err, /rank 1 on .* has other code than rank 0 on/)
      assert.ok(err.includes(hostname()))
    }),
  )

  test(
    'a full disk at rank 0 ends the job with a message, and the last checkpoint is whole',
    inFolder(async (folder) => {
      const [small, one] = [join(folder, 'small'), join(folder, 'one')]
      mkdirSync(small)
      // Room for one checkpoint of 2 MB, but not for the next one beside it.
      const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'none', small]).status === 0
      if (!mounted) return skipped('a full disk', 'nothing can be mounted here')
      try {
        const run = join(small, 'run')
        const given = ['--epochs', '4', '--micro-batches', '4', '--k', '2']
        await ended([...runtime, main, ...train(one, 1, ...given)])
        const filling = start(ranks(2, train(run, 1, ...given)))
        const { code, err } = await filling.ended
        assert.is.not(code, 0, err)
        assert.match(err, /rank 0 of 2 on .*no space left/s)
        assert.ok(err.includes(hostname()))
        assert.is(spawnSync('mount', ['-o', 'remount,size=64m', small]).status, 0)
        if (existsSync(join(run, 'checkpoint.safetensors'))) await ended(ranks(2, ['train', '--resume', run]))
        else assert.unreachable(`no checkpoint was written: ${err}`)
        assert.is(hashOf(run), hashOf(one))
      } finally {
        spawnSync('umount', ['-l', small])
      }
    }),
  )
}

test.run()
