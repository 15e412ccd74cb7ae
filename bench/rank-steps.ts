import { spawnSync } from 'node:child_process'
import { cpus, hostname, loadavg } from 'node:os'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { device } from '../src/backend/device.ts'
import { count } from '../src/cli/options.ts'
import { launched, openMpi } from '../src/cluster/mpi.ts'
import { team } from '../src/cluster/team.ts'
import { openRegion, type Region } from '../src/compile/region.ts'
import { fold, key } from '../src/core/key.ts'
import * as S from '../src/core/shape.ts'
import { labelsOf, pixels, take } from '../src/data/dataset.ts'
import { digits } from '../src/data/digits.ts'
import type { Loss } from '../src/loss/loss.ts'
import { mixTrain, robust, worstCase } from '../src/loss/objective.ts'
import { crossEntropy } from '../src/nn/criterion.ts'
import { type NetworkName, networks } from '../src/nn/networks.ts'
import type { Host } from '../src/ops/index.ts'
import { ibp } from '../src/robust/bounds.ts'
import { PIXELS } from '../src/train/fit.ts'
import { microTrainer } from '../src/train/micro.ts'
import { adam } from '../src/train/optimizer.ts'
import { alone, type Ranks } from '../src/train/ranks.ts'
import { trainer } from '../src/train/step.ts'
import { list, note, option } from './options.ts'
import { median } from './statistics.ts'

/**
 * What micro-batches and ranks cost and bring, by steps of one network on one batch.
 *
 *   npm run bench:ranks -- [--network small] [--batch 100] [--micro 2] [--steps 24] [--rounds 5] [--only micro|ranks]
 *
 * micro: CPU milliseconds of a step in one piece and in M micro-batches, one process, one thread; pairs of steps that take turns, and the median of their ratios.
 * ranks: steps a second of one thread, of two threads and of two ranks of one thread (mpirun), processes that take turns; medians over rounds. Two ranks sum M micro-batches, as `train` does.
 */

const LOSSES: Readonly<Record<string, Loss>> = {
  'symbolic k=10': mixTrain({ k: 10, weight: 0.5 }),
  ibp: robust(ibp, worstCase(crossEntropy)),
}
const TASK = { input: [1, 28, 28], classes: 10, normalization: undefined } as const

interface Given {
  readonly network: NetworkName
  readonly batch: number
  readonly micro: number
  readonly steps: number
}

const host = (i: number): Host => ({
  ...{ count: i, epoch: 0, progress: 0.5, epsilon: 0.1, balance: 0.5, key: fold(key(2), i) },
})

/** Steps of the training that all that is measured goes on from. */
const BEFORE = 60

/** A batch of digits, and weights that were trained on it for a while: how many neurons are unstable, and with that the cost of symbolic bounds, depends on both. */
const subjectOf = async (region: Region, loss: Loss, { network: name, batch }: Given) => {
  const network = networks[name](TASK)
  const own = { network, loss, batchSize: batch, range: PIXELS }
  const first = take(batch)((await digits()).train)
  const all = [...Array(batch).keys()]
  const [inputs, labels] = [pixels(first, all), Float32Array.from(labelsOf(first, all))]
  const start = { parameters: network.init(fold(key(0), 'init')), slots: {} }
  const trained = await trainer(region)({ ...own, optimizer: adam({ lr: 1e-3 }) }, start)
  for (let i = 0; i < BEFORE; i++) await trained.step(inputs, labels, host(i))
  return { own, inputs, labels, start: await trained.state() }
}
type Subject = Awaited<ReturnType<typeof subjectOf>>

/** A step that can be run again and again: in one piece, or in micro-batches. It moves weights by next to nothing, so that every step costs the same. */
const stepper = async (
  region: Region,
  { own: about, inputs, labels, start: { parameters } }: Subject,
  o: Given,
  ranks: Ranks | undefined,
) => {
  const [own, start] = [
    { ...about, optimizer: adam({ lr: 1e-12 }) },
    { parameters, slots: {} },
  ]
  const size = S.size(TASK.input)
  if (ranks === undefined) {
    const whole = await trainer(region)(own, start)
    return (i: number) => whole.step(inputs, labels, host(i))
  }
  const n = o.batch / o.micro
  const parts = await microTrainer(region)({ ...own, microBatches: o.micro, ranks }, start)
  const batch = (m: number) => ({
    inputs: inputs.subarray(m * n * size, (m + 1) * n * size),
    labels: labels.subarray(m * n, (m + 1) * n),
  })
  return (i: number) => parts.step(batch, host(i))
}

/** Steps before those that count: the program is compiled, and compiled better. */
const WARM = 20

/** CPU milliseconds of this process since it began. */
const cpu = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

/** The parts in percent that micro-batches cost more, and both times. */
const overhead = async (loss: Loss, o: Given) => {
  const backend = await device({ device: 'wasm', threads: 1 })
  const { region, close } = openRegion(backend)
  try {
    const subject = await subjectOf(region, loss, o)
    const both = [await stepper(region, subject, o, undefined), await stepper(region, subject, o, alone)]
    const times: number[][] = []
    for (let i = 0; i < WARM + o.steps; i++) {
      const pair: number[] = []
      // Which is first takes turns, too.
      for (const which of i % 2 === 0 ? [0, 1] : [1, 0]) {
        await backend.sync()
        const begun = cpu()
        await both[which](i)
        await backend.sync()
        pair[which] = cpu() - begun
      }
      if (i >= WARM) times.push(pair)
    }
    const [whole, parts] = [0, 1].map((which) => median(times.map((pair) => pair[which])))
    return { whole, parts, more: 100 * (median(times.map(([a, b]) => b / a)) - 1) }
  } finally {
    close()
    backend.dispose()
  }
}

/** One configuration as a process of its own: seconds of a step, on standard output of rank 0. */
const child = async (name: string, threads: number, o: Given): Promise<void> => {
  const found = launched(process.env)
  const mpi = found === undefined ? undefined : await openMpi(found)
  const ranks = mpi && (await team(mpi, hostname()))
  const backend = await device({ device: 'wasm', threads })
  const { region, close } = openRegion(backend)
  const step = await stepper(region, await subjectOf(region, LOSSES[name], o), o, ranks)
  for (let i = 0; i < WARM; i++) await step(i)
  await backend.sync()
  const before = ranks?.cost()
  const begun = performance.now()
  for (let i = 0; i < o.steps; i++) await step(WARM + i)
  await backend.sync()
  const seconds = (performance.now() - begun) / 1000
  const after = ranks?.cost()
  close()
  backend.dispose()
  if (ranks === undefined || ranks.rank === 0)
    console.log(
      JSON.stringify({
        step: seconds / o.steps,
        ...(before && after
          ? { bytes: (after.bytes - before.bytes) / o.steps, waited: (after.seconds - before.seconds) / seconds }
          : {}),
      }),
    )
  mpi?.finalize()
}

interface Said {
  readonly step: number
  /** Bytes that a rank sends a step, and the share of time that it waits for sums. */
  readonly bytes?: number
  readonly waited?: number
}

const started = (name: string, threads: number, size: number, o: Given): Said => {
  const script = fileURLToPath(import.meta.url)
  const own = ['--child', name, '--threads', String(threads), '--network', o.network, '--batch', String(o.batch)]
  const argv = [script, ...own, '--micro', String(o.micro), '--steps', String(o.steps)]
  const [command, ...args] =
    size === 1
      ? [process.execPath, ...argv]
      : ['mpirun', '--allow-run-as-root', '--oversubscribe', '-n', String(size), process.execPath, ...argv]
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr ?? 'it cannot be started'}`)
  return JSON.parse(stdout) as Said
}

const { values } = parseArgs({
  options: {
    network: { type: 'string', default: 'small' },
    batch: { type: 'string', default: '100' },
    micro: { type: 'string', default: '2' },
    steps: { type: 'string', default: '24' },
    rounds: { type: 'string', default: '5' },
    only: { type: 'string' },
    loss: { type: 'string', default: Object.keys(LOSSES).join(',') },
    child: { type: 'string' },
    threads: { type: 'string', default: '1' },
  },
})
const given: Given = {
  network: values.network as NetworkName,
  batch: option('batch', count, values.batch),
  micro: option('micro', count, values.micro),
  steps: option('steps', count, values.steps),
}
const rounds = option('rounds', count, values.rounds)
const names = list(
  'loss',
  (text) =>
    Object.hasOwn(LOSSES, text)
      ? { _tag: 'Right', right: text }
      : { _tag: 'Left', left: `expected one of ${Object.keys(LOSSES)}` },
  values.loss,
)

if (values.child !== undefined) await child(values.child, option('threads', count, values.threads), given)
else {
  const load = () => loadavg()[0].toFixed(1)
  console.log(
    `${given.network}, batch ${given.batch}, ${given.micro} micro-batches; ${cpus().length} cores (${cpus()[0].model}), Node ${process.version}, load ${load()}\n`,
  )
  if (values.only !== 'ranks') {
    console.log('| loss | one piece, CPU ms | micro-batches, CPU ms | more |\n|---|---|---|---|')
    for (const name of names) {
      const { whole, parts, more } = await overhead(LOSSES[name], given)
      console.log(`| ${name} | ${whole.toFixed(1)} | ${parts.toFixed(1)} | ${more.toFixed(1)} % |`)
    }
    console.log('')
  }
  if (values.only !== 'micro') {
    console.log(
      '| loss | one thread, ms | two threads, ms | two ranks, ms | ranks : one thread | ranks : two threads | MB a rank sends a step | waits for sums |\n|---|---|---|---|---|---|---|---|',
    )
    for (const name of names) {
      const rows: (readonly Said[])[] = []
      for (let round = 0; round < rounds; round++) {
        rows.push([started(name, 1, 1, given), started(name, 2, 1, given), started(name, 1, 2, given)])
        note(`${name}, round ${round + 1} of ${rounds}, load ${load()}`)
      }
      const [one, two, ranks] = [0, 1, 2].map((i) => median(rows.map((row) => row[i].step)))
      const ratio = (i: number) => median(rows.map((row) => row[i].step / row[2].step)).toFixed(2)
      const cells = [one, two, ranks].map((s) => (1000 * s).toFixed(1))
      const [bytes, waited] = [median(rows.map((r) => r[2].bytes ?? 0)), median(rows.map((r) => r[2].waited ?? 0))]
      console.log(
        `| ${name} | ${cells.join(' | ')} | ${ratio(0)} | ${ratio(1)} | ${(bytes / 1e6).toFixed(2)} | ${(100 * waited).toFixed(1)} % |`,
      )
    }
    console.log(`\nload ${load()} at the end`)
  }
}
