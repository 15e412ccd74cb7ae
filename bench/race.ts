import { existsSync, readFileSync, rmSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import * as E from 'fp-ts/lib/Either.js'
import { count, fraction, integer, positive, radius } from '../src/cli/options.ts'
import { VERSION } from '../src/cli/version.ts'
import { MixtrainException, raise, usage } from '../src/core/error.ts'
import { networks } from '../src/nn/networks.ts'
import { numbersOf, REPORT_ATTACK } from '../src/train/recipe.ts'
import { list, note, option } from './options.ts'
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
import { dataOf, type Entry, type Job, nameOf, type Report } from './race-run.ts'
import { share, summary } from './race-summary.ts'

/**
 * The race: every method on the same data, network, seeds and schedules; ACC, ERA and VRA on a fixed slice of test images after each
 * epoch, then of the last model on all of them.
 *
 *   npm run race -- --data FOLDER [--quick] [--network small] [--epsilon 0.1] [--balance 0.6667] [--epochs N] [--batch-size N]
 *                   [--limit TRAIN,TEST] [--methods natural,mixtrain,...] [--ks 1,2,5,10] [--seeds 0,1,2] [--single symbolic] [--slice 1000]
 *                   [--budget SECONDS] [--jobs N] [--threads N] [--name race] [--results DIR] [--fresh] [--draw]
 *
 * --quick: the embedded digits, one seed, minutes. --balance: weight of the robust term of MixTrain and
 * of the whole batch. --single: methods that run with the first seed only. --budget: seconds of training
 * after which a run ends with its epoch. --jobs: runs at the same time, each with --threads threads (all cores shared out). --fresh: forget
 * what is there; otherwise a race that was stopped goes on. --draw: no training, only table and figures from what is there.
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
    balance: { type: 'string' },
    epochs: { type: 'string' },
    'batch-size': { type: 'string', default: '50' },
    limit: { type: 'string' },
    methods: { type: 'string' },
    ks: { type: 'string', default: '1,2,5,10' },
    seeds: { type: 'string' },
    single: { type: 'string', default: 'natural,symbolic' },
    slice: { type: 'string', default: '1000' },
    budget: { type: 'string' },
    jobs: { type: 'string', default: '1' },
    threads: { type: 'string' },
    name: { type: 'string' },
    results: { type: 'string' },
  },
})

const root = fileURLToPath(new URL('../../', import.meta.url))

const method = (text: string): E.Either<string, Method> =>
  E.fromNullable(`there is no ${text}; there are ${METHODS.join(', ')}`)(METHODS.find((m) => m === text))

/** What a step costs beside a natural one, roughly: long runs come first, so that jobs end together. */
const COST: Readonly<Record<Method, number>> = {
  natural: 1,
  ibp: 2,
  mixtrain: 3,
  sabr: 6,
  'mtl-ibp': 7,
  'crown-ibp': 14,
  pgd: 26,
  symbolic: 54,
}

/** What runs, in this order: all of the first seed before the others, long runs first. */
const entries = (methods: readonly Method[], seeds: readonly number[], single: readonly string[]): readonly Entry[] => {
  const order = [...methods].sort((a, b) => COST[b] - COST[a])
  const ks = list('ks', count, given.ks)
  return seeds.flatMap((seed, i) =>
    order
      .filter((method) => i === 0 || !single.includes(method))
      .flatMap((method): readonly Entry[] =>
        method === 'mixtrain'
          ? ks.toSorted((a, b) => b - a).map((k) => ({ method, k, seed }))
          : [{ method, k: null, seed }],
      ),
  )
}

/** One run in a thread of its own; resolves to its measures on the whole test set. */
const run = (job: Job, epoch: (rows: readonly RaceRecord[]) => void): Promise<FinalRecord> =>
  new Promise((resolve, reject) => {
    const worker = new Worker(new URL('race-job.js', import.meta.url), { workerData: job })
    worker.on('message', (report: Report) => {
      if (report.kind === 'epoch') epoch(report.rows)
      else if (report.kind === 'note') note(report.text)
      else if (report.kind === 'final') resolve(report.final)
      else reject(new MixtrainException(usage(report.message)))
    })
    worker.on('error', reject)
    worker.on('exit', () => reject(new Error(`${nameOf(job.entry)} ended without a result`)))
  })

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
const environmentOf = (): Environment | undefined =>
  existsSync(files.environment) ? JSON.parse(readFileSync(files.environment, 'utf8')) : undefined

/** Trains and measures what is not there yet. */
const race = async (): Promise<void> => {
  if (given.data === undefined && !quick)
    raise(
      usage("the full race needs MNIST's files: --data FOLDER (mixtrain data mnist FOLDER fetches them), or --quick"),
    )
  if (!Object.hasOwn(networks, given.network)) raise(usage(`--network: there is no ${given.network}`))
  const methods = given.methods === undefined ? METHODS : list('methods', method, given.methods)
  const seeds = list('seeds', integer, given.seeds ?? (quick ? '0' : '0,1,2'))
  const runs = entries(methods, seeds, list('single', method, given.single))
  const [trainLimit, testLimit = 10_000] = list('limit', count, given.limit ?? (quick ? '2000,2000' : '60000,10000'))
  const jobs = option('jobs', count, given.jobs)
  const threads = option(
    'threads',
    count,
    given.threads ?? String(Math.max(1, Math.min(8, Math.floor(cpus().length / jobs)))),
  )
  const budgetSeconds = option('budget', positive, given.budget ?? (quick ? '600' : String(4 * 3600)))
  const source = { folder: given.data, trainLimit, testLimit }
  const { train, test } = await dataOf(source)
  const standard = numbersOf('mixtrain')
  const settings: Settings = {
    network: given.network,
    data: train.name,
    epsilon: option('epsilon', radius, given.epsilon),
    epochs: option('epochs', count, given.epochs ?? (quick ? '8' : '20')),
    batchSize: option('batch-size', count, given['batch-size']),
    lr: standard.lr,
    balance: given.balance === undefined ? 2 / 3 : option('balance', fraction, given.balance),
    trainImages: train.count,
    testImages: test.count,
    slice: Math.min(option('slice', count, given.slice), test.count),
    verifier:
      'symbolic intervals, at every layer intersected with interval arithmetic, boxes cut to [0, 1], rounding none',
    attack: `PGD, ${REPORT_ATTACK.steps} steps, ${REPORT_ATTACK.restarts} random start`,
    threads,
    jobs,
  }

  if (given.fresh)
    for (const path of [...Object.values(files), checkpoints]) rmSync(path, { recursive: true, force: true })
  const before = environmentOf()
  const different = Object.entries(settings).filter(([key, value]) => before && before[key as keyof Settings] !== value)
  if (different.length > 0)
    raise(
      usage(
        `${files.environment} is of another race (${different.map(([key]) => key).join(', ')}): finish that one, give this one a --name, or begin anew with --fresh`,
      ),
    )
  const environment: Environment = {
    date: before?.date ?? new Date().toISOString(),
    machine: cpus()[0].model,
    cores: cpus().length,
    memoryGB: Math.round(totalmem() / 1e9),
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    mixtrain: VERSION,
    ...settings,
    budgetSeconds,
    command: `npm run race${process.argv.length > 2 ? ` -- ${process.argv.slice(2).join(' ')}` : ''}`,
  }
  replace(files.environment, `${JSON.stringify(environment, null, 1)}\n`)

  const finals = readLines<FinalRecord>(files.finals)
  const done = (entry: Entry) =>
    finals.some((f) => f.run === nameOf(entry) && (f.ended === 'epochs' || f.seconds >= budgetSeconds))
  const queue = runs.filter((entry) => !done(entry)).values()
  const stopped = new AbortController()
  const work = async (): Promise<void> => {
    for (const entry of queue) {
      if (stopped.signal.aborted) return
      const own = nameOf(entry)
      const known = readLines<RaceRecord>(files.rows).filter((r) => r.run === own)
      const checkpoint = join(checkpoints, `${own}.safetensors`)
      const final = await run({ entry, settings, source, budgetSeconds, checkpoint, known }, (rows) =>
        writeLines(files.rows, withRun(readLines<RaceRecord>(files.rows), own, rows)),
      )
      writeLines(files.finals, withRun(readLines<FinalRecord>(files.finals), own, [final]))
    }
  }
  // A run that fails ends the race, but not the runs beside it.
  const ends = await Promise.allSettled(
    Array.from({ length: jobs }, () =>
      work().catch((cause) => {
        stopped.abort()
        throw cause
      }),
    ),
  )
  const failed = ends.find((end) => end.status === 'rejected')
  if (failed !== undefined) throw failed.reason
}

/** Table and figures from what is there. */
const show = async (): Promise<void> => {
  const rows = readLines<RaceRecord>(files.rows)
  const e = environmentOf()
  if (rows.length === 0 || e === undefined) return raise(usage(`there is no race in ${files.rows}`))
  const text = summary(rows, readLines<FinalRecord>(files.finals), e)
  replace(files.summary, text)
  console.log(text)
  const subtitle = `${e.data}, ${e.network}, epsilon ${Number(e.epsilon.toPrecision(3))}; ${e.machine}, ${share(e)}, ${e.date.slice(0, 10)}`
  replace(join(folder, `${name}-time.svg`), await draw(vraAgainstTime(rows, subtitle)))
  replace(join(folder, `${name}-frontier.svg`), await draw(accAgainstVra(rows, e.slice, subtitle)))
  if (rows.some((r) => r.method === 'mixtrain'))
    replace(join(folder, `${name}-k.svg`), await draw(againstK(rows, e.batchSize, subtitle)))
  note(`written to ${folder}: ${name}.jsonl, ${name}-final.jsonl, ${name}-environment.json, ${name}.md and figures`)
}

try {
  if (!given.draw) await race()
  await show()
} catch (cause) {
  if (!(cause instanceof MixtrainException)) throw cause
  note(`race: ${cause.message}`)
  process.exitCode = 1
}
