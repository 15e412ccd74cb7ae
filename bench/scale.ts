import { spawn } from 'node:child_process'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { device } from '../src/backend/device.ts'
import { loadData, sourceOf } from '../src/cli/open.ts'
import { get } from '../src/cli/shell.ts'
import type { Backend } from '../src/compile/backend.ts'
import { openRegion } from '../src/compile/region.ts'
import { MixtrainException, raise, usage } from '../src/core/error.ts'
import { fold, key } from '../src/core/key.ts'
import * as S from '../src/core/shape.ts'
import { batches, type Data, labelsOf, pixels } from '../src/data/dataset.ts'
import type { Loss } from '../src/loss/loss.ts'
import * as L from '../src/loss/objective.ts'
import { crossEntropy } from '../src/nn/criterion.ts'
import { type Network, type NetworkName, networks } from '../src/nn/networks.ts'
import { PIXELS } from '../src/train/fit.ts'
import { adam } from '../src/train/optimizer.ts'
import { taskOf } from '../src/train/quick.ts'
import { trainer } from '../src/train/step.ts'
import { note } from './options.ts'
import { replace } from './race-records.ts'
import * as ranks from './ranks.ts'
import { median } from './statistics.ts'

/**
 * The networks that earlier verifiable training was too dear for, trained by MixTrain for a few steps: loss, steps a second and memory,
 * beside what a step of symbolic training on the whole batch would need (planned bytes; time measured where the plan fits and that is expected to
 * take no more than --patience seconds, otherwise extrapolated from k).
 *
 *   npm run scale -- --cifar DIR --tiny DIR [--only NAME,...] [--steps 20] [--batch-size 50] [--k 1] [--threads N] [--memory MB]
 *                    [--patience 120] [--results DIR]
 *
 *   npm run scale -- --ranks        what training over 8 to 1,024 ranks would bring (ranks.ts)
 *
 * Each network runs in a process of its own, so that its peak memory is its own. Writes bench/results/scale.json.
 */
const { values: given } = parseArgs({
  options: {
    cifar: { type: 'string' },
    tiny: { type: 'string' },
    only: { type: 'string' },
    steps: { type: 'string', default: '20' },
    'batch-size': { type: 'string', default: '50' },
    k: { type: 'string', default: '1' },
    threads: { type: 'string' },
    memory: { type: 'string', default: '4000' },
    patience: { type: 'string', default: '120' },
    results: { type: 'string' },
    /** What more ranks would bring (ranks.ts); `--probe` is one of two ranks that measure. */
    ranks: { type: 'boolean', default: false },
    probe: { type: 'boolean', default: false },
    micro: { type: 'string', default: '8' },
    latency: { type: 'string' },
    bandwidth: { type: 'string' },
    /** Runs one network here and prints its record. */
    one: { type: 'string' },
  },
})

interface Setting {
  readonly network: NetworkName
  readonly data: 'cifar' | 'tiny'
  readonly epsilon: number
}

const settings: Readonly<Record<string, Setting>> = {
  'cifar-small': { network: 'small', data: 'cifar', epsilon: 2 / 255 },
  'cifar-large': { network: 'large', data: 'cifar', epsilon: 2 / 255 },
  'cifar-resnet': { network: 'resnet', data: 'cifar', epsilon: 2 / 255 },
  'imagenet-resnet': { network: 'resnet', data: 'tiny', epsilon: 1.785 / 255 },
}

/** What was measured of one network. */
interface ScaleRecord {
  readonly name: string
  readonly network: string
  readonly data: string
  readonly epsilon: number
  readonly batch: number
  readonly k: number
  readonly steps: number
  readonly threads: number
  readonly parameters: number
  /** Of each step, before its update: mean cross-entropy, and that on worst-case logits of the k images. */
  readonly natural: readonly number[]
  readonly robust: readonly number[]
  /** (1 - balance) natural + balance robust, median of the first and of the last quarter of the steps (one hard image among the k outweighs many). */
  readonly firstLoss: number
  readonly lastLoss: number
  /** Medians, seconds. */
  readonly stepSeconds: number
  readonly naturalStepSeconds: number
  readonly plannedMB: number
  readonly backendPeakMB: number
  readonly rssMB: number
  readonly wholeBatch: { readonly plannedMB: number; readonly stepSeconds: number; readonly how: string }
}

const BALANCE = 0.5

/** Takes plans and computes nothing: what a plan would need. */
const planner = (): { readonly backend: Backend; readonly bytes: () => number } => {
  let arena = 0
  let id = 0
  const backend: Backend = {
    name: 'wasm',
    dtype: 'f32',
    description: 'plans only',
    threads: 1,
    epilogue: true,
    rounds: true,
    alloc: (length) => ({ id: id++, length }),
    free: () => undefined,
    write: () => undefined,
    read: async (buffer) => new Float32Array(buffer.length),
    compile: (plan) => {
      arena = Math.max(arena, plan.arena * 4)
      return TE.right({ id: id++, bytes: plan.arena * 4 })
    },
    release: () => undefined,
    run: () => undefined,
    sync: async () => undefined,
    stats: () => ({ live: 0, bytes: 0, peak: 0 }),
    dispose: () => undefined,
  }
  return { backend, bytes: () => arena }
}

interface Steps {
  readonly seconds: readonly number[]
  readonly natural: readonly number[]
  readonly robust: readonly number[]
}

/** Trains for some steps on one backend. */
const steps = async (
  backend: Backend,
  told: (text: string) => void,
  {
    data,
    network,
    loss,
    epsilon,
    batch,
    count,
  }: { data: Data; network: Network; loss: Loss; epsilon: number; batch: number; count: number },
): Promise<Steps> => {
  const { region, close } = openRegion(backend)
  try {
    const loop = await trainer(region)(
      { network, loss, optimizer: adam({ lr: 5e-4 }), batchSize: batch, range: PIXELS },
      { parameters: network.init(fold(key(0), 'init')), slots: {} },
    )
    const order = batches(data.train.count, batch, fold(key(0), 'order'))
    const [seconds, natural, robust]: [number[], number[], number[]] = [[], [], []]
    for (let i = 0; i < count; i++) {
      const [x, y] = [pixels(data.train, order[i % order.length]), labelsOf(data.train, order[i % order.length])]
      const host = { count: i, epoch: 0, progress: 0.5, epsilon, balance: BALANCE, key: fold(key(1), i) }
      const begun = performance.now()
      await loop.step(x, y, host)
      await backend.sync()
      seconds.push((performance.now() - begun) / 1e3)
      const terms = await loop.terms()
      natural.push(terms.natural ?? Number.NaN)
      robust.push(terms.robust ?? Number.NaN)
      told(
        `step ${i + 1}/${count}: natural ${natural[i].toFixed(4)}, robust ${robust[i].toFixed(4)}, ${seconds[i].toFixed(2)} s`,
      )
    }
    return { seconds, natural, robust }
  } finally {
    close()
  }
}

/** Bytes of the arena of a training step, as planned. */
const planned = async (network: Network, data: Data, loss: Loss, batch: number, epsilon: number): Promise<number> => {
  const { backend, bytes } = planner()
  await steps(backend, () => undefined, { data, network, loss, epsilon, batch, count: 1 })
  return bytes()
}

const one = async (name: string): Promise<ScaleRecord> => {
  const { network: networkName, data: source, epsilon } = settings[name]
  const folder = given[source] ?? raise(usage(`--${source} DIR is needed for ${name}`))
  const data = await get(loadData(sourceOf(folder)))
  const network = networks[networkName](taskOf(data.train))
  const [batch, k, count] = [Number(given['batch-size']), Number(given.k), Number(given.steps)]
  const budget = Number(given.memory) * 1e6
  const threads = Number(given.threads ?? Math.min(8, cpus().length))
  const loss = L.mixTrain({ k })
  const whole = L.objectives.symbolic()
  const common = { data, network, epsilon, batch }
  const plannedBytes = await planned(network, data, loss, batch, epsilon)
  if (plannedBytes > budget) raise({ kind: 'memory', needed: plannedBytes, budget, what: `a step of ${name}` })
  const backend = await device({ device: 'wasm', threads })
  try {
    const trained = await steps(backend, note, { ...common, loss, count })
    const { peak } = backend.stats()
    const natural = await steps(backend, note, { ...common, loss: L.natural(crossEntropy), count: 4 })
    // The first run of a plan is also its first touch of memory.
    const [stepSeconds, naturalStepSeconds] = [median(trained.seconds.slice(1)), median(natural.seconds.slice(1))]
    const rss = process.resourceUsage().maxRSS * 1024
    const total = trained.natural.map((n, i) => (1 - BALANCE) * n + BALANCE * trained.robust[i])
    const quarter = Math.max(1, Math.floor(count / 4))
    const wholeBytes = await planned(network, data, whole, batch, epsilon)
    const expected = naturalStepSeconds + (batch / k) * (stepSeconds - naturalStepSeconds)
    const measured =
      wholeBytes <= budget && expected <= Number(given.patience)
        ? median((await steps(backend, note, { ...common, loss: whole, count: 2 })).seconds)
        : undefined
    return {
      name,
      network: networkName,
      data: data.train.name,
      epsilon,
      batch,
      k,
      steps: count,
      threads,
      parameters: Object.values(network.parameters).reduce((n, p) => n + S.size(p.shape), 0),
      natural: trained.natural,
      robust: trained.robust,
      firstLoss: median(total.slice(0, quarter)),
      lastLoss: median(total.slice(-quarter)),
      stepSeconds,
      naturalStepSeconds,
      plannedMB: plannedBytes / 1e6,
      backendPeakMB: peak / 1e6,
      rssMB: rss / 1e6,
      wholeBatch: {
        plannedMB: wholeBytes / 1e6,
        stepSeconds: measured ?? expected,
        how: measured !== undefined ? 'measured' : `extrapolated: natural step + batch / k times what k = ${k} adds`,
      },
    }
  } finally {
    backend.dispose()
  }
}

/** Runs one network in a process of its own. */
const apart = (name: string): Promise<ScaleRecord | string> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), ...process.argv.slice(2), '--one', name], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let out = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text
    })
    child.on('error', reject)
    child.on('close', (code) => resolve(code === 0 ? JSON.parse(out) : `ended with ${code}`))
  })

const main = async (): Promise<void> => {
  if (given.probe) return ranks.probe()
  if (given.ranks) {
    const number = (text: string | undefined) => (text === undefined ? undefined : Number(text))
    const steps = given.steps === '20' ? 3 : Number(given.steps)
    const { latency, bandwidth } = given
    return ranks.main({
      micro: Number(given.micro),
      steps,
      only: given.only?.split(','),
      latency: number(latency),
      bandwidth: number(bandwidth),
    })
  }
  if (given.one !== undefined) {
    console.log(JSON.stringify(await one(given.one)))
    return
  }
  const asked =
    given.only?.split(',') ?? Object.keys(settings).filter((name) => given[settings[name].data] !== undefined)
  const unknown = asked.find((name) => !Object.hasOwn(settings, name))
  if (unknown !== undefined)
    raise(usage(`--only: there is no ${unknown}; there are ${Object.keys(settings).join(', ')}`))
  if (asked.length === 0)
    raise(usage('--cifar DIR and --tiny DIR say where the data are (mixtrain data cifar-10 DIR fetches them)'))
  const records: ScaleRecord[] = []
  const failures: string[] = []
  for (const name of asked) {
    process.stderr.write(`${name}\n`)
    const result = await apart(name)
    if (typeof result === 'string') failures.push(`${name}: ${result}`)
    else records.push(result)
  }
  const environment = {
    date: new Date().toISOString(),
    machine: cpus()[0].model,
    cores: cpus().length,
    memoryGB: Math.round(totalmem() / 1e9),
    node: process.version,
    command: `npm run scale -- ${process.argv.slice(2).join(' ')}`,
  }
  const folder = given.results ?? fileURLToPath(new URL('../../bench/results/', import.meta.url))
  replace(join(folder, 'scale.json'), `${JSON.stringify({ environment, records, failures }, null, 1)}\n`)
  const head = [
    'network',
    'k',
    'loss, first -> last',
    'steps/s',
    'planned MB',
    'peak MB (process)',
    'whole batch: planned MB',
    's a step',
    'how',
  ]
  const rows = records.map((r) => [
    `${r.name}, epsilon ${Number((r.epsilon * 255).toPrecision(4))}/255`,
    String(r.k),
    `${r.firstLoss.toFixed(3)} -> ${r.lastLoss.toFixed(3)}`,
    (1 / r.stepSeconds).toPrecision(3),
    r.plannedMB.toFixed(0),
    `${r.backendPeakMB.toFixed(0)} (${r.rssMB.toFixed(0)})`,
    r.wholeBatch.plannedMB.toFixed(0),
    r.wholeBatch.stepSeconds.toPrecision(3),
    r.wholeBatch.how,
  ])
  console.log([head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n'))
  for (const failure of failures) console.log(failure)
  if (failures.length > 0) process.exitCode = 1
}

try {
  await main()
} catch (cause) {
  if (!(cause instanceof MixtrainException)) throw cause
  process.stderr.write(`scale: ${cause.message}\n`)
  process.exitCode = 1
}
