import { existsSync, readFileSync, rmSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { loadData, sourceOf } from '../src/cli/open.ts'
import { get } from '../src/cli/shell.ts'
import { VERSION } from '../src/cli/version.ts'
import { MixtrainException, raise, usage } from '../src/core/error.ts'
import { take } from '../src/data/dataset.ts'
import { networks } from '../src/nn/networks.ts'
import { numbersOf, REPORT_ATTACK } from '../src/train/recipe.ts'
import { draw } from './plot.ts'
import { accAgainstVra, againstK, vraAgainstTime } from './race-plot.ts'
import {
  type Environment,
  type FinalRecord,
  METHODS,
  type Method,
  type RaceRecord,
  readLines,
  replace,
  type Settings,
  withRun,
  writeLines,
} from './race-records.ts'
import { type Entry, nameOf, runEntry } from './race-run.ts'
import { summary } from './race-summary.ts'

/**
 * The race: every method on the same data, network, seeds and schedules; ACC, ERA and VRA on a fixed slice of test images after each
 * epoch, then of the last model on all of them.
 *
 *   npm run race -- --data FOLDER [--quick] [--network small] [--epsilon 0.1] [--epochs N] [--batch-size N] [--limit TRAIN,TEST]
 *                   [--methods natural,mixtrain,...] [--ks 1,2,5,10] [--seeds 0,1,2] [--single symbolic] [--slice 1000]
 *                   [--budget SECONDS] [--threads N] [--name race] [--results DIR] [--fresh] [--draw]
 *
 * --quick: the embedded digits, one seed, minutes. --single: methods that run with the first seed only. --budget: seconds of training
 * after which a run ends with its epoch. --fresh: forget what is there; otherwise a race that was stopped goes on. --draw: no training,
 * only table and figures from what is there.
 *
 * Writes NAME.jsonl, NAME-final.jsonl, NAME-environment.json, NAME.md and three figures into bench/results/; checkpoints go into build/race/.
 */
const { values: given } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    fresh: { type: 'boolean', default: false },
    draw: { type: 'boolean', default: false },
    data: { type: 'string' },
    network: { type: 'string', default: 'small' },
    epsilon: { type: 'string', default: '0.1' },
    epochs: { type: 'string' },
    'batch-size': { type: 'string', default: '50' },
    limit: { type: 'string' },
    methods: { type: 'string' },
    ks: { type: 'string', default: '1,2,5,10' },
    seeds: { type: 'string' },
    single: { type: 'string', default: 'natural,symbolic' },
    slice: { type: 'string', default: '1000' },
    budget: { type: 'string' },
    threads: { type: 'string' },
    name: { type: 'string' },
    results: { type: 'string' },
  },
})

const root = fileURLToPath(new URL('../../', import.meta.url))
const note = (text: string): void => {
  process.stderr.write(`${text}\n`)
}

const numbers = (text: string): readonly number[] => text.split(',').map(Number)
const whole = (name: string, text: string): number =>
  Number.isSafeInteger(Number(text)) && Number(text) >= 1
    ? Number(text)
    : raise(usage(`--${name}: expected a whole number from 1, not ${JSON.stringify(text)}`))
const radius = (text: string): number => {
  const [a, b = 1] = text.split('/').map(Number)
  return a / b > 0 && a / b <= 1
    ? a / b
    : raise(usage(`--epsilon: expected a radius such as 0.1 or 2/255, not ${text}`))
}

/** What runs, in this order: cheap methods first, all of the first seed before the others, the whole batch last. */
const entries = (methods: readonly Method[], seeds: readonly number[], single: readonly string[]): readonly Entry[] => {
  const order = [...methods].sort((a, b) => Number(a === 'symbolic') - Number(b === 'symbolic'))
  return seeds.flatMap((seed, i) =>
    order
      .filter((method) => i === 0 || !single.includes(method))
      .flatMap((method): readonly Entry[] =>
        method === 'mixtrain' ? numbers(given.ks).map((k) => ({ method, k, seed })) : [{ method, k: null, seed }],
      ),
  )
}

const main = async (): Promise<void> => {
  const { quick } = given
  const name = given.name ?? (quick ? 'race-quick' : 'race')
  const folder = given.results ?? join(root, 'bench', 'results')
  const checkpoints = join(given.results ?? join(root, 'build'), 'race', name)
  const files = {
    rows: join(folder, `${name}.jsonl`),
    finals: join(folder, `${name}-final.jsonl`),
    environment: join(folder, `${name}-environment.json`),
    summary: join(folder, `${name}.md`),
  }
  if (given.data === undefined && !quick && !given.draw)
    raise(
      usage("the full race needs MNIST's files: --data FOLDER (mixtrain data mnist FOLDER fetches them), or --quick"),
    )
  if (!Object.hasOwn(networks, given.network)) raise(usage(`--network: there is no ${given.network}`))
  const methods = (given.methods?.split(',') ?? METHODS) as readonly Method[]
  const unknown = methods.find((m) => !METHODS.includes(m))
  if (unknown !== undefined) raise(usage(`--methods: there is no ${unknown}; there are ${METHODS.join(', ')}`))
  const command = `npm run race${process.argv.length > 2 ? ` -- ${process.argv.slice(2).join(' ')}` : ''}`

  if (given.fresh && !given.draw)
    for (const path of [...Object.values(files), checkpoints]) rmSync(path, { recursive: true, force: true })

  const [trainLimit, testLimit = 10_000] = numbers(given.limit ?? (quick ? '2000,2000' : '60000,10000'))
  const loaded = await get(loadData(sourceOf(given.data)))
  const data = { train: take(trainLimit)(loaded.train), test: take(testLimit)(loaded.test) }
  const standard = numbersOf('mixtrain')
  const settings: Settings = {
    network: given.network,
    data: data.train.name,
    epsilon: radius(given.epsilon),
    epochs: whole('epochs', given.epochs ?? (quick ? '8' : '20')),
    batchSize: whole('batch-size', given['batch-size']),
    lr: standard.lr,
    balance: typeof standard.balance === 'number' ? standard.balance : 2 / 3,
    trainImages: data.train.count,
    testImages: data.test.count,
    slice: Math.min(whole('slice', given.slice), data.test.count),
    verifier:
      'symbolic intervals, at every layer intersected with interval arithmetic, boxes cut to [0, 1], rounding none',
    attack: `PGD, ${REPORT_ATTACK.steps} steps, ${REPORT_ATTACK.restarts} random start`,
    threads: whole('threads', given.threads ?? String(Math.min(8, cpus().length))),
  }
  const now: Environment = {
    date: new Date().toISOString(),
    machine: cpus()[0].model,
    cores: cpus().length,
    memoryGB: Math.round(totalmem() / 1e9),
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    mixtrain: VERSION,
    ...settings,
    budgetSeconds: Number(given.budget ?? (quick ? 600 : 4 * 3600)),
    command,
  }

  const environment: Environment =
    given.draw && existsSync(files.environment) ? JSON.parse(readFileSync(files.environment, 'utf8')) : now

  if (!given.draw) {
    replace(files.environment, `${JSON.stringify(environment, null, 1)}\n`)
    for (const entry of entries(methods, numbers(given.seeds ?? (quick ? '0' : '0,1,2')), given.single.split(','))) {
      const run = nameOf(entry)
      const finals = readLines<FinalRecord>(files.finals)
      if (finals.some((f) => f.run === run && (f.ended === 'epochs' || f.seconds >= environment.budgetSeconds)))
        continue
      const final = await runEntry(entry, {
        settings,
        data,
        budgetSeconds: environment.budgetSeconds,
        checkpoint: join(checkpoints, `${run}.safetensors`),
        known: readLines<RaceRecord>(files.rows).filter((r) => r.run === run),
        epoch: (rows) => writeLines(files.rows, withRun(readLines<RaceRecord>(files.rows), run, rows)),
        note,
      })
      writeLines(files.finals, withRun(finals, run, [final]))
    }
  }

  const rows = readLines<RaceRecord>(files.rows)
  if (rows.length === 0) raise(usage(`there is nothing in ${files.rows}`))
  const text = summary(rows, readLines<FinalRecord>(files.finals), environment)
  replace(files.summary, text)
  console.log(text)
  const e = environment
  const subtitle = `${e.data}, ${e.network}, epsilon ${Number(e.epsilon.toPrecision(3))}; ${e.machine}, ${e.threads} threads, ${e.date.slice(0, 10)}`
  replace(join(folder, `${name}-time.svg`), await draw(vraAgainstTime(rows, subtitle)))
  replace(join(folder, `${name}-frontier.svg`), await draw(accAgainstVra(rows, subtitle)))
  if (rows.some((r) => r.method === 'mixtrain'))
    replace(join(folder, `${name}-k.svg`), await draw(againstK(rows, settings.batchSize, subtitle)))
  note(`written to ${folder}: ${name}.jsonl, ${name}-final.jsonl, ${name}-environment.json, ${name}.md and figures`)
}

try {
  await main()
} catch (cause) {
  if (!(cause instanceof MixtrainException)) throw cause
  note(`race: ${cause.message}`)
  process.exitCode = 1
}
