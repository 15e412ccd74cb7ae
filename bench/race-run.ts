import { existsSync, readFileSync } from 'node:fs'
import { device } from '../src/backend/device.ts'
import { loadData, sourceOf } from '../src/cli/open.ts'
import { get } from '../src/cli/shell.ts'
import { VERSION } from '../src/cli/version.ts'
import { openRegion } from '../src/compile/region.ts'
import { raise, usage } from '../src/core/error.ts'
import { fold, key } from '../src/core/key.ts'
import { type Data, fingerprintOf, labelsOf, pixels, take } from '../src/data/dataset.ts'
import { add, scale } from '../src/loss/loss.ts'
import { objectives } from '../src/loss/objective.ts'
import { l1 } from '../src/loss/regularizer.ts'
import { linear } from '../src/loss/schedule.ts'
import { type Network, type NetworkName, networks } from '../src/nn/networks.ts'
import * as B from '../src/robust/bounds.ts'
import { fixed } from '../src/train/balance.ts'
import { decodeCheckpoint, encodeCheckpoint, type Settings as RunSettings, restore } from '../src/train/checkpoint.ts'
import { type Checkpoint, DEFAULT_MEMORY, type FitOptions, fit, PIXELS } from '../src/train/fit.ts'
import { clipGradients } from '../src/train/optimizer.ts'
import { taskOf } from '../src/train/quick.ts'
import { numbersOf, REPORT_ATTACK, recipe } from '../src/train/recipe.ts'
import { evaluatedOf, trainer } from '../src/train/step.ts'
import { verify } from '../src/train/verify.ts'
import { type FinalRecord, type Method, type RaceRecord, replace, type Settings } from './race-records.ts'

/** A method with its k and its seed. */
export interface Entry {
  readonly method: Method
  readonly k: number | null
  readonly seed: number
}

export const nameOf = ({ method, k, seed }: Entry): string => `${method}${k === null ? '' : `-k${k}`}-seed${seed}`

/** Largest joint norm of the gradients, for every method. */
const CLIP = 10

/** Images evaluated at once. */
const AT_ONCE = 100

/** The sound bound that every method is judged by: at every layer the tighter of symbolic intervals and interval arithmetic. */
export const verifier = B.intersect(B.symbolic, B.ibp)

const right = <A>(
  result:
    | { readonly _tag: 'Left'; readonly left: Parameters<typeof raise>[0] }
    | { readonly _tag: 'Right'; readonly right: A },
): A => (result._tag === 'Left' ? raise(result.left) : result.right)

/** Data files, or the embedded digits, and how many of their images are used. */
export interface Source {
  readonly folder: string | undefined
  readonly trainLimit: number
  readonly testLimit: number
}

export const dataOf = async ({ folder, trainLimit, testLimit }: Source): Promise<Data> => {
  const { train, test } = await get(loadData(sourceOf(folder)))
  return { train: take(trainLimit)(train), test: take(testLimit)(test) }
}

/** One run, as its thread gets it. */
export interface Job {
  readonly entry: Entry
  readonly settings: Settings
  readonly source: Source
  readonly budgetSeconds: number
  /** Where the run keeps its last epoch. */
  readonly checkpoint: string
  /** Rows of the run that are known from before. */
  readonly known: readonly RaceRecord[]
}

/** What the thread of a run says. */
export type Report =
  | { readonly kind: 'epoch'; readonly rows: readonly RaceRecord[] }
  | { readonly kind: 'note'; readonly text: string }
  | { readonly kind: 'final'; readonly final: FinalRecord }
  | { readonly kind: 'refused'; readonly message: string }

export interface RunOptions extends Omit<Job, 'entry' | 'source'> {
  readonly data: Data
  readonly epoch: (rows: readonly RaceRecord[]) => void
  readonly note: (text: string) => void
}

/**
 * Loss of the method, with the numbers that are the loss's own by its paper (its balance, lambda, L1, distribution of start values), changing in
 * step with epsilon; data, network, seeds, batches, optimizer and schedules are the same for all.
 */
const optionsOf = ({ method, k, seed }: Entry, settings: Settings, data: Data): FitOptions => {
  const { epsilon, epochs, batchSize, lr } = settings
  const {
    numbers,
    k: _,
    init: __,
    ...common
  } = recipe('mixtrain', { epsilon, epochs, batchSize, lr, variants: data.train.variants })
  const own = numbersOf(method, {
    epsilon,
    balance: method === 'mixtrain' || method === 'symbolic' ? settings.balance : undefined,
  })
  const ramp = linear(0, 1, 0, numbers.epsilonUntil)
  return {
    ...common,
    // From 0, and with gradients of a limited norm: otherwise intervals are so wide at the start that SABR's first steps leave a constant network.
    epsilonSchedule: linear(0, epsilon, 0, numbers.epsilonUntil),
    optimizer: clipGradients(CLIP)(common.optimizer),
    loss: add(objectives[method]({ k: k ?? batchSize, lambda: own.lambda, ramp }), scale(own.l1)(l1)),
    balance: fixed(typeof own.balance === 'number' ? own.balance : settings.balance),
    network: networks[settings.network as NetworkName](taskOf(data.train), recipe(method, { epsilon }).init),
    train: data.train,
    // No balance follows the monitored images, so they may be test images.
    monitor: take(settings.slice)(data.test),
    epsilon,
    seed,
    method: verifier,
    attack: { ...REPORT_ATTACK, checked: false },
    evaluationBatch: Math.min(AT_ONCE, settings.slice),
  }
}

const storedAs = async ({ method, k, seed }: Entry, s: Settings, data: Data): Promise<RunSettings> => ({
  mixtrain: VERSION,
  data: s.data,
  dataSha256: await fingerprintOf(data),
  network: s.network,
  loss: method,
  epsilon: s.epsilon,
  epochs: s.epochs,
  batchSize: s.batchSize,
  k: k ?? s.batchSize,
  balance: s.balance,
  lr: s.lr,
  seed,
  trainLimit: s.trainImages,
  testLimit: s.testImages,
  device: 'wasm',
  arithmetic: 'exact',
})

const resumed = async (
  path: string,
  wanted: RunSettings,
  network: Network,
  slots: readonly string[],
): Promise<Checkpoint | undefined> => {
  if (!existsSync(path)) return undefined
  const run = await get(decodeCheckpoint(readFileSync(path), path))
  const different = (Object.keys(wanted) as (keyof RunSettings)[]).filter((name) => run.settings[name] !== wanted[name])
  if (different.length > 0)
    raise(usage(`${path} is of another race (${different.join(', ')}): finish that one, or begin anew with --fresh`))
  return right(restore(run, network, slots))
}

/** Peak bytes of a backend that trains and does nothing else: a step while the loss still blends its terms, and one with the last of them. */
export const stepMemory = async (options: FitOptions, threads: number): Promise<number> => {
  const backend = await device({ device: 'wasm', threads })
  const { region, close } = openRegion(backend)
  try {
    const { network, loss, optimizer, batchSize, train, epsilon, range = PIXELS, memory = DEFAULT_MEMORY } = options
    const parameters = network.init(fold(key(options.seed), 'init'))
    const loop = await trainer(region)(
      { network, loss, optimizer, batchSize, range, memory },
      { parameters, slots: {} },
    )
    const indices = Array.from({ length: batchSize }, (_, i) => i)
    const host = { count: 0, epoch: 0, epsilon, balance: options.balance([]), key: key(0) }
    for (const progress of [0.1, 1])
      await loop.step(pixels(train, indices), labelsOf(train, indices), { ...host, progress })
    await backend.sync()
    return backend.stats().peak
  } finally {
    close()
    backend.dispose()
  }
}

/** Trains what is left of a run within its budget, then measures it on all test images. */
export const runEntry = async (entry: Entry, o: RunOptions): Promise<FinalRecord> => {
  const { settings, data, budgetSeconds } = o
  const run = nameOf(entry)
  const options = optionsOf(entry, settings, data)
  const stored = await storedAs(entry, settings, data)
  let last = await resumed(o.checkpoint, stored, options.network, options.optimizer.slots)
  const about = {
    run,
    method: entry.method,
    k: entry.k,
    network: settings.network,
    data: settings.data,
    epsilon: settings.epsilon,
    seed: entry.seed,
  }
  // A row that was written before its checkpoint is trained, and written, again.
  let rows = o.known.slice(0, last?.history.length ?? 0)
  const spent = () => rows.at(-1)?.seconds ?? 0
  const isOver = () => rows.length >= settings.epochs || spent() >= budgetSeconds
  if (last !== undefined && rows.length < last.history.length)
    raise(usage(`the rows of ${run} are gone, but not its checkpoint ${o.checkpoint}: begin anew with --fresh`))
  if (rows.length > 0) o.note(`${run} goes on after ${rows.length} epochs`)
  const memoryMB = rows[0]?.memoryMB ?? (await stepMemory(options, settings.threads)) / 1e6
  const backend = await device({ device: 'wasm', threads: settings.threads })
  try {
    if (!isOver())
      for await (const epoch of fit({ ...options, resume: last })(backend)) {
        const { acc, era, vra } = epoch
        rows = [
          ...rows,
          {
            ...about,
            epoch: epoch.epoch,
            seconds: spent() + epoch.seconds,
            acc,
            era: era ?? Number.NaN,
            vra,
            memoryMB,
          },
        ]
        o.epoch(rows)
        last = epoch.checkpoint
        replace(o.checkpoint, await encodeCheckpoint(options.network, last, stored))
        o.note(
          `${run}  epoch ${epoch.epoch + 1}/${settings.epochs}  ACC ${(100 * acc).toFixed(2)}  ERA ${(100 * (era ?? 0)).toFixed(2)}  VRA ${(100 * vra).toFixed(2)}  ${spent().toFixed(1)} s`,
        )
        if (isOver()) break
      }
    if (last === undefined) return raise(usage(`${run} has no epoch`))
    const { acc, era, vra } = await verify({
      network: options.network,
      parameters: evaluatedOf(options.optimizer, last.state),
      data: data.test,
      epsilon: settings.epsilon,
      method: verifier,
      attack: REPORT_ATTACK,
      batchSize: Math.min(AT_ONCE, data.test.count),
    })(backend)
    return {
      ...about,
      epochs: rows.length,
      ended: rows.length >= settings.epochs ? 'epochs' : 'budget',
      seconds: spent(),
      images: data.test.count,
      acc,
      era: era ?? Number.NaN,
      vra,
    }
  } finally {
    backend.dispose()
  }
}
