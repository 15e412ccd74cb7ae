import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import process from 'node:process'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { adaptive, type Pacing, steady } from '../src/backend/wasm/pace.ts'
import { wasm } from '../src/backend/wasm/wasm.ts'
import { count, positive } from '../src/cli/options.ts'
import { get } from '../src/cli/shell.ts'
import type { Backend } from '../src/compile/backend.ts'
import { openRegion } from '../src/compile/region.ts'
import { fold, key } from '../src/core/key.ts'
import { batches, type Dataset, labelsOf, pixels } from '../src/data/dataset.ts'
import { digits } from '../src/data/digits.ts'
import { networks } from '../src/nn/networks.ts'
import { PIXELS } from '../src/train/fit.ts'
import { adam } from '../src/train/optimizer.ts'
import { taskOf } from '../src/train/quick.ts'
import { trainer } from '../src/train/step.ts'
import { option } from './options.ts'
import { median } from './statistics.ts'
import { stepKinds } from './steps.ts'

/**
 * Training steps (network small, batch 100, interval bounds) under defined loads, on one thread, on as many as there are cores and on
 * twice as many, both with and without lowering them. Prints, for each load, time as a multiple of one thread's: the median of interleaved
 * rounds, and all rounds together, trials of other numbers of threads included. A ratio means something only where nothing else runs.
 *
 *   npm run bench:busy -- [--rounds 20] [--seconds 0.5] [--only LOAD,...]
 */
const { values: given } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    seconds: { type: 'string', default: '0.5' },
    only: { type: 'string' },
    /** Measures here and prints a record. */
    one: { type: 'boolean', default: false },
    /** Computes on so many threads until it is killed. */
    spin: { type: 'string' },
  },
})

const here = fileURLToPath(import.meta.url)
const cores = availableParallelism()

/** A function that takes one step of training. */
const stepper = async (backend: Backend, data: Dataset): Promise<() => Promise<void>> => {
  const { region } = openRegion(backend)
  const network = networks.small(taskOf(data))
  const loop = await trainer(region)(
    { network, loss: stepKinds.ibp.loss, optimizer: adam({ lr: 5e-4 }), batchSize: 100, range: PIXELS },
    { parameters: network.init(fold(key(0), 'init')), slots: {} },
  )
  const [batch] = batches(data.count, 100, key(0))
  const [x, y] = [pixels(data, batch), labelsOf(data, batch)]
  let n = 0
  return async () => {
    await loop.step(x, y, { count: n, epoch: 0, progress: 0.5, epsilon: 0.1, balance: 0.5, key: fold(key(1), n) })
    n++
  }
}

interface Way {
  readonly name: string
  readonly threads: number
  readonly pace: Pacing
}

const ways: readonly Way[] = [
  { name: '1 thread', threads: 1, pace: steady },
  ...[cores, 2 * cores]
    .filter((threads) => threads > 1)
    .flatMap((threads) => [
      { name: `${threads} threads`, threads, pace: adaptive },
      { name: `${threads} threads, steady`, threads, pace: steady },
    ]),
]

/** Seconds of the same steps in each round, by way. */
type Times = Readonly<Record<string, readonly number[]>>

const measured = async (rounds: number, seconds: number): Promise<Times> => {
  const { train } = await digits()
  const opened = []
  for (const { name, threads, pace } of ways) {
    const told = (text: string) => process.stderr.write(`${name}: ${text}\n`)
    const step = await stepper(await get(wasm({ threads, pace, told })), train)
    await step()
    opened.push({ name, step, times: [] as number[] })
  }
  const timed = async (step: () => Promise<void>, steps: number): Promise<number> => {
    const begun = performance.now()
    for (let i = 0; i < steps; i++) await step()
    return (performance.now() - begun) / 1e3
  }
  const steps = Math.max(1, Math.round((seconds * 4) / (await timed(opened[0].step, 4))))
  for (let r = 0; r < rounds; r++)
    for (let i = 0; i < opened.length; i++) {
      // Another one begins each round.
      const { step, times } = opened[(i + r) % opened.length]
      times.push(await timed(step, steps))
    }
  return Object.fromEntries(opened.map(({ name, times }) => [name, times]))
}

// ---- loads -----------------------------------------------------------------------------------------------------------

interface Load {
  readonly name: string
  /** Starts it; what to put in front of the measuring process, and how to end it. A string says why it cannot be had here. */
  readonly begin: () => { readonly prefix?: readonly string[]; readonly end: () => void | Promise<void> } | string
}

/** Processes beside the one that measures. */
const beside = (name: string, commands: readonly (readonly string[])[]): Load => ({
  name,
  begin: () => {
    const children = commands.map((args) => spawn(process.execPath, args, { stdio: 'ignore' }))
    return { end: () => children.forEach((c: ChildProcess) => c.kill('SIGKILL')) }
  },
})

const busy = (n: number): Load => beside(`busy-${n}`, Array(n).fill(['-e', 'for (;;);']))

const spinning = (n: number): Load =>
  beside(
    `spinning-${n}x${cores}`,
    Array.from({ length: n }, () => [here, '--spin', String(cores)]),
  )

const onOneCore: Load = {
  name: 'one-core',
  begin: () =>
    spawnSync('taskset', ['-c', '0', 'true']).status === 0
      ? { prefix: ['taskset', '-c', '0'], end: () => undefined }
      : 'there is no taskset here',
}

/** A control group of its own with so many cores. */
const quotaOf = (grant: number): Load => ({
  name: `quota-${grant}`,
  begin: () => {
    const second = existsSync('/sys/fs/cgroup/cgroup.controllers')
    const group = `/sys/fs/cgroup/${second ? '' : 'cpu/'}mixtrain-bench-${process.pid}`
    try {
      mkdirSync(group)
      if (second) writeFileSync(`${group}/cpu.max`, `${grant * 1e5} 100000`)
      else writeFileSync(`${group}/cpu.cfs_quota_us`, String(grant * 1e5))
    } catch (cause) {
      if (existsSync(group)) rmdirSync(group)
      return `no control group can be made here: ${cause instanceof Error ? cause.message : cause}`
    }
    return {
      prefix: ['sh', '-c', `echo $$ > ${group}/cgroup.procs && exec "$@"`, 'sh'],
      end: async () => {
        // A group is removed once its last process has been waited for.
        await pause(500)
        rmdirSync(group)
      },
    }
  },
})

const loads: readonly Load[] = [
  { name: 'quiet', begin: () => ({ end: () => undefined }) },
  busy(cores),
  busy(4 * cores),
  spinning(1),
  spinning(4),
  quotaOf(cores - 0.5),
  onOneCore,
]

const total = (x: readonly number[]): number => x.reduce((a, b) => a + b, 0)

const lines = (times: Times): readonly string[] => {
  const base = times[ways[0].name]
  return Object.entries(times).map(([name, own]) => {
    const ratio = median(own.map((t, i) => t / base[i]))
    return `  ${name.padEnd(20)} median ${ratio.toFixed(2)}   all ${(total(own) / total(base)).toFixed(2)}`
  })
}

/** What a process of this file prints. */
const printed = (argv: readonly string[]): Promise<string> =>
  new Promise((resolve, reject) => {
    const child = spawn(argv[0], argv.slice(1), { stdio: ['ignore', 'pipe', 'inherit'] })
    let out = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text
    })
    child.on('error', reject)
    child.on('close', (code) => (code === 0 ? resolve(out) : reject(new Error(`${argv.join(' ')} ended with ${code}`))))
  })

const rounds = option('rounds', count, given.rounds)
const seconds = option('seconds', positive, given.seconds)
if (given.spin !== undefined) {
  const { train } = await digits()
  const step = await stepper(await get(wasm({ threads: option('spin', count, given.spin), pace: steady })), train)
  for (;;) await step()
} else if (given.one) {
  process.stdout.write(JSON.stringify(await measured(rounds, seconds)))
  process.exit(0)
} else
  for (const { name, begin } of loads.filter((l) => given.only?.split(',').includes(l.name) ?? true)) {
    const load = begin()
    if (typeof load === 'string') {
      process.stdout.write(`${name}: skipped, ${load}\n`)
      continue
    }
    try {
      const self = [process.execPath, here, '--one', '--rounds', String(rounds), '--seconds', String(seconds)]
      const out = await printed([...(load.prefix ?? []), ...self])
      process.stdout.write(`${name}, ${cores} cores; time as a multiple of one thread's\n`)
      process.stdout.write(`${lines(JSON.parse(out) as Times).join('\n')}\n`)
    } finally {
      await load.end()
    }
  }
