import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import * as E from 'fp-ts/lib/Either.js'
import { count, integer, radius, shard } from '../src/cli/options.ts'
import { MixtrainException, raise, usage } from '../src/core/error.ts'
import { fold, key } from '../src/core/key.ts'
import { unknownName } from '../src/core/names.ts'
import { type ObjectiveName, objectives } from '../src/loss/objective.ts'
import { list, note, option } from './options.ts'
import { draw } from './plot.ts'
import { readLines, replace } from './race-records.ts'
import { drawn, front, type Numbers, promoted, readSpaces, sizes, spaceOf, type Trial } from './tune-front.ts'
import { fronts } from './tune-plot.ts'

/**
 * The search for a recipe's numbers: what comes out is a front, ACC against VRA, for each loss. Trials are runs of `mixtrain train`, on cheap rungs first (successive
 * halving, arXiv:1502.07943): of those that trained for few epochs the better third trains anew for more. Held-out training images decide; test images are told.
 *
 *   npm run tune -- [--data FOLDER] [--epsilon 0.1] [--losses mixtrain,ibp,mtl-ibp] [--trials 18] [--rungs 3,9,27] [--eta 3] [--seed 0]
 *                   [--sampler random|tpe|nsga2] [--python FILE] [--space FILE] [--limit TRAIN,TEST] [--network small] [--jobs N] [--shard I/N]
 *                   [--name tune] [--results DIR] [--draw]
 *
 * --sampler: where the trials of the first rung are; random needs nothing, tpe and nsga2 need Optuna (`pip install optuna`) in the Python of --python.
 * --space: JSON, ranges by loss, in place of ours, such as {"ibp": {"lr": {"from": 1e-4, "to": 1e-2, "log": true}, "batchSize": [50, 100]}}.
 * --jobs: trainings at the same time, one thread each (all cores). --shard: the I-th of N independent parts of the trials, for a job array; halving is done within a part.
 * A search that was stopped goes on where it was, in the middle of a training too. --draw: table and figure of what is there, of all shards.
 *
 * Writes NAME.jsonl (NAME-I-of-N.jsonl), NAME.md and NAME.svg into bench/results/; the runs themselves go into build/tune/.
 */
const { values: given } = parseArgs({
  options: {
    data: { type: 'string' },
    epsilon: { type: 'string', default: '0.1' },
    network: { type: 'string', default: 'small' },
    losses: { type: 'string', default: 'mixtrain,ibp,mtl-ibp' },
    trials: { type: 'string', default: '18' },
    rungs: { type: 'string', default: '3,9,27' },
    eta: { type: 'string', default: '3' },
    seed: { type: 'string', default: '0' },
    sampler: { type: 'string', default: 'random' },
    python: { type: 'string', default: 'python3' },
    space: { type: 'string' },
    limit: { type: 'string' },
    jobs: { type: 'string', default: String(cpus().length) },
    shard: { type: 'string' },
    name: { type: 'string', default: 'tune' },
    results: { type: 'string' },
    draw: { type: 'boolean', default: false },
  },
})

const root = fileURLToPath(new URL('../../', import.meta.url))
const oneOf =
  <A extends string>(what: string, names: readonly A[]) =>
  (text: string): E.Either<string, A> =>
    E.fromNullable(unknownName(what, text, names))(names.find((n) => n === text))

const SAMPLERS = ['random', 'tpe', 'nsga2'] as const
const losses = list('losses', oneOf('loss', Object.keys(objectives) as ObjectiveName[]), given.losses)
const sampler = option('sampler', oneOf('sampler', SAMPLERS), given.sampler)
const rungs = list('rungs', count, given.rungs)
const seed = option('seed', integer, given.seed)
const total = option('trials', count, given.trials)
const eta = option('eta', count, given.eta)
const jobs = option('jobs', count, given.jobs)
option('epsilon', radius, given.epsilon)
const { index: part, of: parts } = option('shard', shard, given.shard ?? '1/1')

const folder = given.results ?? join(root, 'bench', 'results')
const runs = join(given.results ?? join(root, 'build'), 'tune', given.name)
const suffix = parts === 1 ? '' : `-${part}-of-${parts}`
const file = join(folder, `${given.name}${suffix}.jsonl`)
const settingsFile = join(folder, `${given.name}${suffix}-settings.json`)

const own: Readonly<Record<string, ReturnType<typeof spaceOf>>> = (() => {
  if (given.space === undefined) return {}
  const read = readSpaces(JSON.parse(readFileSync(given.space, 'utf8')))
  return E.isRight(read) ? read.right : raise(usage(`${given.space}: ${read.left}`))
})()
const space = (loss: ObjectiveName) => own[loss] ?? spaceOf(loss)

/** What Optuna would try next, given what was measured. */
const asked = (loss: ObjectiveName, trial: number, known: readonly Trial[]): Numbers => {
  const query = {
    sampler,
    seed: seed * 100_003 + trial,
    space: space(loss),
    trials: known.map(({ numbers, acc, vra }) => ({ numbers, values: [acc, vra] })),
  }
  const script = join(root, 'tools', 'tune', 'optuna_ask.py')
  const { status, stdout, stderr, error } = spawnSync(given.python, [script], {
    input: JSON.stringify(query),
    encoding: 'utf8',
  })
  if (status === 0) return JSON.parse(stdout)
  const why = error?.message ?? stderr.trim().split('\n').at(-1)
  return raise(
    usage(
      `--sampler ${sampler}: ${why}; it needs a Python with Optuna (pip install optuna, then --python FILE), --sampler random does not`,
    ),
  )
}

/** Numbers of a trial that were settled before: a training goes on under them. */
const numbersOf = (run: string, next: () => Numbers): Numbers => {
  const path = join(runs, `${run}.json`)
  if (existsSync(path)) return JSON.parse(readFileSync(path, 'utf8')).numbers
  const numbers = next()
  replace(path, `${JSON.stringify({ numbers })}\n`)
  return numbers
}

/** Trainings end with the search, whose signal they get: each keeps its checkpoint. */
const stopped = new AbortController()
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)
  process.once(signal, () => {
    process.exitCode = code
    stopped.abort()
  })

/** One training as a process of its own, from where it was. */
const train = async (run: string, loss: ObjectiveName, epochs: number, numbers: Numbers): Promise<Trial['test']> => {
  const output = join(runs, run)
  const config = join(runs, `${run}-config.json`)
  const { data, epsilon, network, limit } = given
  writeFileSync(
    config,
    JSON.stringify({ loss, epochs, epsilon, network, seed, data, limit, ...numbers, threads: 1, device: 'wasm' }),
  )
  const main = join(root, 'dist', 'src', 'cli', 'main.js')
  const begun = existsSync(join(output, 'checkpoint.safetensors'))
  // A folder without a checkpoint has nothing to go on from.
  if (!begun) rmSync(output, { recursive: true, force: true })
  const args = begun ? ['--resume', output] : ['--config', config, '--output', output]
  return await new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, 'train', ...args, '--json'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      signal: stopped.signal,
    })
    let said = ''
    let report = ''
    child.stdout.on('data', (text) => {
      report += text
    })
    child.stderr.on('data', (text) => {
      said += text
    })
    child.on('error', (cause) => {
      // One that was told to stop writes its checkpoint first.
      if (!stopped.signal.aborted) reject(cause)
    })
    child.on('close', (code) => {
      if (code !== 0) return reject(new MixtrainException(usage(`${run}: ${said.trim().split('\n').at(-1)}`)))
      const { count: images, acc, era, vra } = JSON.parse(report)
      resolve({ count: images, acc, era, vra })
    })
  })
}

interface Epoch {
  readonly seconds: number
  readonly acc: number
  readonly vra: number
}

const measured = async (loss: ObjectiveName, trial: number, rung: number, numbers: Numbers): Promise<Trial> => {
  const run = `${loss}-${trial}-rung${rung}`
  const test = await train(run, loss, rungs[rung], numbers)
  const epochs = readLines<Epoch>(join(runs, run, 'log.jsonl'))
  const last = epochs[epochs.length - 1]
  const seconds = epochs.reduce((sum, e) => sum + e.seconds, 0)
  return { run, loss, trial, rung, epochs: rungs[rung], numbers, seconds, acc: last.acc, vra: last.vra, test }
}

/** Tasks, so many at a time; the first that fails ends those that have not begun. */
const pool = async (tasks: readonly (() => Promise<void>)[]): Promise<void> => {
  const queue = tasks.values()
  let failed: unknown
  const worker = async (): Promise<void> => {
    for (const task of queue) {
      if (failed !== undefined) return
      await task().catch((cause) => {
        failed ??= cause
      })
    }
  }
  await Promise.all(Array.from({ length: jobs }, worker))
  if (failed !== undefined) throw failed
}

/** Searches a loss: the first rung where the sampler says, those above with what proved best below. */
const search = async (loss: ObjectiveName): Promise<void> => {
  const known = () => readLines<Trial>(file).filter((t) => t.loss === loss)
  // In the order of the trials: which of two equals goes on does not depend on which ended first.
  const at = (rung: number) =>
    known()
      .filter((t) => t.rung === rung)
      .toSorted((a, b) => a.trial - b.trial)
  const task = (trial: number, rung: number, numbers: () => Numbers) => async (): Promise<void> => {
    if (at(rung).some((t) => t.trial === trial)) return
    const run = `${loss}-${trial}-rung${rung}`
    const row = await measured(loss, trial, rung, numbersOf(run, numbers))
    // Whole lines, by one process: a search that is killed loses no trial that was measured.
    replace(file, [...readLines<Trial>(file), row].map((t) => `${JSON.stringify(t)}\n`).join(''))
    const [acc, vra] = [row.acc, row.vra].map((x) => (100 * x).toFixed(2))
    note(`${run}: ACC ${acc} %, VRA ${vra} % of held-out images, ${row.seconds.toFixed(0)} s`)
  }
  const mine = Array.from({ length: total }, (_, t) => t).filter((t) => t % parts === part - 1)
  const places = sizes(mine.length, rungs.length, eta)
  await pool(
    mine.map((t) =>
      task(t, 0, () =>
        sampler === 'random' ? drawn(space(loss), fold(fold(key(seed), loss), t)) : asked(loss, t, at(0)),
      ),
    ),
  )
  for (let rung = 1; rung < rungs.length; rung++)
    await pool(promoted(at(rung - 1), places[rung]).map(({ trial, numbers }) => task(trial, rung, () => numbers)))
}

/** Every shard's trials. */
const everything = (): readonly Trial[] =>
  existsSync(folder)
    ? readdirSync(folder)
        .filter((f) => f.startsWith(given.name) && /^(-\d+-of-\d+)?\.jsonl$/.test(f.slice(given.name.length)))
        .toSorted()
        .flatMap((f) => readLines<Trial>(join(folder, f)))
    : []

const percent = (x: number): string => (100 * x).toFixed(2)
const show = async (): Promise<void> => {
  const trials = everything()
  if (trials.length === 0) return raise(usage(`there is no search named ${given.name} in ${folder}`))
  const last = trials.filter((t) => t.rung === Math.max(...trials.filter((u) => u.loss === t.loss).map((u) => u.rung)))
  const rows = [...new Set(last.map((t) => t.loss))].flatMap((loss) =>
    front(last.filter((t) => t.loss === loss)).toSorted((a, b) => b.acc - a.acc),
  )
  const short = (v: Numbers[string]) => (typeof v === 'number' ? String(Number(v.toPrecision(3))) : String(v))
  const text = [
    `# Search: ${given.name}`,
    '',
    `${trials.length} trainings on one thread each, ${Math.round(trials.reduce((s, t) => s + t.seconds, 0))} s; ${cpus()[0].model}, ${new Date().toISOString().slice(0, 10)}. Settings: \`${given.name}*-settings.json\`.`,
    '',
    'The front of each loss: what no other trial of the last rung dominates on held-out training images.',
    '',
    '| loss | epochs | numbers | s | ACC, VRA % held out | ACC, ERA, VRA % of test images |',
    '|---|---|---|---|---|---|',
    ...rows.map(
      (t) =>
        `| ${t.loss} | ${t.epochs} | ${Object.entries(t.numbers)
          .map(([k, v]) => `${k} ${short(v)}`)
          .join(
            ', ',
          )} | ${t.seconds.toFixed(0)} | ${percent(t.acc)}, ${percent(t.vra)} | ${percent(t.test.acc)}, ${percent(t.test.era)}, ${percent(t.test.vra)} |`,
    ),
    '',
  ].join('\n')
  replace(join(folder, `${given.name}.md`), text)
  replace(join(folder, `${given.name}.svg`), await draw(fronts(last, `${last.length} trials, ${given.name}`)))
  console.log(text)
}

/** A search goes on only under what it began with. */
const settle = (): void => {
  const { draw: _, jobs: __, results: ___, python: ____, ...settings } = given
  const text = JSON.stringify(settings, null, 1)
  const before = existsSync(settingsFile) ? JSON.parse(readFileSync(settingsFile, 'utf8')) : settings
  const different = Object.keys({ ...before, ...settings }).filter(
    (k) => before[k] !== settings[k as keyof typeof settings],
  )
  if (different.length > 0)
    raise(usage(`${settingsFile} is of another search (${different.join(', ')}): give this one a --name`))
  replace(settingsFile, `${text}\n`)
}

try {
  if (!given.draw) {
    mkdirSync(runs, { recursive: true })
    settle()
    for (const loss of losses) await search(loss)
  }
  await show()
} catch (cause) {
  if (stopped.signal.aborted) process.exit()
  if (!(cause instanceof MixtrainException)) throw cause
  note(`tune: ${cause.message}`)
  process.exitCode ??= 1
}
