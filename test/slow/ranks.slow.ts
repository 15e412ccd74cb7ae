import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { inFolder, logged, main, runtime, start } from '../cli/run.ts'
import { skipped } from '../shared.ts'
import { ended, hashOf, MPI, missing, processOf, ranks, train } from './mpi.ts'

/** What a run says of the test images, but for where and how long. */
const reportOf = (folder: string) => {
  const {
    model: _,
    seconds: __,
    threads: ___,
    ...report
  } = JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8')) as Record<string, unknown>
  return report
}

if (missing !== undefined) skipped('training over MPI ranks', missing)
else {
  // k = 4 of 6 micro-batches: two of them bound nothing. IBP clips its gradients; hydra has a gate; pgd starts at random.
  for (const [name, ...options] of [
    ['mixtrain', '--k', '4', '--smooth', '0.01'],
    ['ibp'],
    ['pgd'],
    ['hydra', '--k', '5'],
    ['mixtrain', '--k', '4', '--choice', 'importance'],
  ])
    test(
      `1, 2, 3 and 4 ranks of 1 and 2 threads train the same bits by ${[name, ...options].join(' ')}`,
      inFolder(async (folder) => {
        const given = ['--loss', name, '--epochs', '1', '--micro-batches', '6', ...options]
        const one = join(folder, 'one')
        await ended([...runtime, main, ...train(one, 2, ...given)])
        for (const [n, threads] of name === 'mixtrain' && options.includes('--smooth')
          ? [
              [2, 1],
              [3, 2],
              [4, 1],
            ]
          : [[3, 1]]) {
          const several = join(folder, `${n}`)
          await ended(ranks(n, train(several, threads, ...given)))
          assert.is(hashOf(several), hashOf(one), `${n} ranks`)
          assert.equal(readdirSync(several).sort(), readdirSync(one).sort())
          assert.equal(reportOf(several), reportOf(one), `${n} ranks`)
        }
        // Another number of micro-batches has other bits: the comparison could fail.
        if (options.includes('--smooth')) {
          const other = join(folder, 'other')
          await ended([
            ...runtime,
            main,
            ...train(other, 2, '--loss', name, '--epochs', '1', '--micro-batches', '4', ...options),
          ])
          assert.is.not(hashOf(other), hashOf(one))
        }
      }),
    )

  test(
    'a rank that is killed or stopped ends the job with a message, and another number of ranks goes on to the same bits',
    inFolder(async (folder) => {
      const given = ['--epochs', '3', '--micro-batches', '4', '--k', '2']
      const [one, broken] = [join(folder, 'one'), join(folder, 'broken')]
      await ended([...runtime, main, ...train(one, 1, ...given)])
      /** Sends a signal to a rank once an epoch is logged. */
      const struck = async (argv: readonly string[], lines: number, rank: number, signal: 'SIGKILL' | 'SIGSTOP') => {
        const running = start(argv)
        await logged(broken, lines, running)
        const victim = processOf(running.pid, rank)
        assert.ok(victim !== undefined, `rank ${rank} is not there`)
        const begun = performance.now()
        process.kill(victim as number, signal)
        const e = await running.ended
        assert.ok((performance.now() - begun) / 1000 < 60)
        assert.is.not(e.code, 0, e.err)
        assert.ok(e.err.includes(hostname()), e.err)
        return e.err
      }
      const killed = await struck(ranks(2, train(broken, 1, ...given)), 1, 1, 'SIGKILL')
      assert.match(killed, /process rank 1 .*(Killed|signal 9)/s)
      assert.ok(!existsSync(join(broken, 'model.safetensors')), 'it was over before a rank was killed')
      const resume = ['train', '--resume', broken, '--threads', '1']
      const stopped = await struck(ranks(3, resume, 'MIXTRAIN_RANK_PATIENCE=4'), 2, 2, 'SIGSTOP')
      assert.match(stopped, /rank 2 on .* did not answer for 4 seconds/)
      assert.ok(!existsSync(join(broken, 'model.safetensors')), 'it was over before a rank was stopped')
      await ended(ranks(4, resume))
      assert.is(hashOf(broken), hashOf(one))
    }),
  )

  test(
    'ranks that differ, and ranks without micro-batches, are refused by name',
    inFolder(async (folder) => {
      const argv = (seed: string) => [
        ...runtime,
        main,
        ...train(join(folder, 'run'), 1, '--epochs', '1', '--micro-batches', '2', '--seed', seed),
      ]
      const differs = await start(['mpirun', ...MPI, '-n', '1', ...argv('3'), ':', '-n', '1', ...argv('4')]).ended
      assert.is.not(differs.code, 0)
      assert.match(differs.err, /rank 1 on .* has other settings than rank 0 on/)
      const plain = await start(ranks(2, train(join(folder, 'run'), 1, '--epochs', '1'))).ended
      assert.is.not(plain.code, 0)
      assert.match(plain.err, /add --micro-batches M/)
      const few = await start(ranks(3, train(join(folder, 'run'), 1, '--epochs', '1', '--micro-batches', '2'))).ended
      assert.is.not(few.code, 0)
      assert.match(few.err, /2 micro-batches are not enough for 3 ranks/)
    }),
  )
}

/** Two hosts by their network: namespaces with an address each and a link between them; undefined where that is not allowed. */
const twoHosts = (folder: string) => {
  const id = `mx${process.pid % 10000}`
  const ip = (...args: readonly string[]) => spawnSync('ip', args, { encoding: 'utf8' })
  const names = [1, 2].map((i) => `${id}-${i}`)
  const stop = () => {
    for (const name of names)
      for (const pid of ip('netns', 'pids', name).stdout.split('\n').filter(Boolean))
        process.kill(Number(pid), 'SIGKILL')
  }
  const end = () => {
    stop()
    for (const name of names) ip('netns', 'del', name)
  }
  const steps = [
    ...names.map((name) => ['netns', 'add', name]),
    ['link', 'add', 'mx1', 'netns', names[0], 'type', 'veth', 'peer', 'name', 'mx2', 'netns', names[1]],
    ...names.flatMap((name, i) => [
      ['-n', name, 'link', 'set', 'lo', 'up'],
      ['-n', name, 'addr', 'add', `10.99.7.${i + 1}/24`, 'dev', `mx${i + 1}`],
      ['-n', name, 'link', 'set', `mx${i + 1}`, 'up'],
    ]),
  ]
  for (const step of steps) {
    const { status } = ip(...step)
    if (status === 0) continue
    end()
    return undefined
  }
  // What mpirun starts its daemon on the other host with, in place of ssh.
  const agent = join(folder, 'agent')
  writeFileSync(agent, `#!/bin/bash\nhost=$1; shift\nexec ip netns exec ${id}-\${host##*.} bash -c "$*"\n`, {
    mode: 0o755,
  })
  const mpirun = (args: readonly string[], ...env: readonly string[]) => [
    ...['ip', 'netns', 'exec', names[0], 'mpirun', '--allow-run-as-root', '--mca', 'plm_rsh_agent', agent],
    ...['--mca', 'btl', 'self,tcp', '--mca', 'btl_tcp_if_include', '10.99.7.0/24'],
    ...['--mca', 'oob_tcp_if_include', '10.99.7.0/24', '--host', '10.99.7.1:1,10.99.7.2:1'],
    ...[...env.flatMap((e) => ['-x', e]), '-n', '2', ...runtime, main, ...args],
  ]
  return { mpirun, cut: () => ip('-n', names[0], 'link', 'set', 'mx1', 'down'), stop, end }
}

if (missing === undefined)
  test(
    'hosts that are apart train the same bits by TCP, and a link that is cut ends training with a message',
    inFolder(async (folder) => {
      const hosts = twoHosts(folder)
      if (hosts === undefined) {
        skipped('training over network namespaces', 'they cannot be made here')
        return
      }
      try {
        const given = ['--epochs', '4', '--micro-batches', '4', '--k', '2']
        const [one, apart, cut] = ['one', 'apart', 'cut'].map((name) => join(folder, name))
        await ended([...runtime, main, ...train(one, 1, ...given)])
        await ended(hosts.mpirun(train(apart, 1, ...given)))
        assert.is(hashOf(apart), hashOf(one))
        const said = join(folder, 'stderr')
        const argv = hosts.mpirun(train(cut, 1, ...given), 'MIXTRAIN_RANK_PATIENCE=5')
        const running = start(['bash', '-c', 'exec "$@" 2> "$0"', said, ...argv])
        await logged(cut, 1, running)
        const begun = performance.now()
        hosts.cut()
        // Each rank says whom it lost, and ends, and so does mpirun, which would wait for a daemon that it cannot reach.
        const over = () =>
          readdirSync('/proc').every((pid) => {
            try {
              const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
              return !(argv.includes(cut) && argv.includes(main) && argv[0] === runtime[0])
            } catch {
              return true
            }
          })
        const late = setTimeout(() => running.kill('SIGKILL'), 60_000)
        const { code } = await running.ended
        clearTimeout(late)
        assert.ok((performance.now() - begun) / 1000 < 60, 'mpirun was still there after a minute')
        assert.is.not(code, 0)
        while (!over() && performance.now() - begun < 60_000) await new Promise((resolve) => setTimeout(resolve, 50))
        assert.ok(over(), 'a rank was still there after a minute')
        assert.match(readFileSync(said, 'utf8'), /rank 0 of 2 on .*rank 1 on .* did not answer for 5 seconds/)
        hosts.stop()
        assert.ok(!existsSync(join(cut, 'model.safetensors')), 'it was over before the link was cut')
        await ended([...runtime, main, 'train', '--resume', cut])
        assert.is(hashOf(cut), hashOf(one))
      } finally {
        hosts.end()
      }
    }),
  )

test.run()
