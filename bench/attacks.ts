import { mkdirSync, writeFileSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import process from 'node:process'
import { parseArgs } from 'node:util'
import Table from 'cli-table3'
import * as E from 'fp-ts/lib/Either.js'
import { openDevice } from '../src/backend/device.ts'
import type { Backend } from '../src/compile/backend.ts'
import { openRegion } from '../src/compile/region.ts'
import { raise } from '../src/core/error.ts'
import { type Data, take } from '../src/data/dataset.ts'
import { digits } from '../src/data/digits.ts'
import { files } from '../src/data/files.ts'
import { loadFolder } from '../src/data/folder.ts'
import { decodeModel } from '../src/format/model.ts'
import { objectives } from '../src/loss/objective.ts'
import { networks } from '../src/nn/networks.ts'
import { ibp } from '../src/robust/bounds.ts'
import { evaluator } from '../src/robust/metric.ts'
import { type AttackOptions, search, type TargetLoss, targetLosses } from '../src/robust/search.ts'
import { imagesOf } from '../src/train/fit.ts'
import { fit, taskOf } from '../src/train/quick.ts'
import { MONITOR_ATTACK, pgdAttack, recipe } from '../src/train/recipe.ts'

/**
 * The claim of arXiv:1906.02282 on our own networks: the interval attack finds more violations than PGD with the same base attack, steps and restarts. Trains the small network by
 * adversarial training (`--loss pgd`) at each radius, then counts the violations that both attacks find among test images classified correctly, each point
 * re-run on the f64 reference backend. `--models` names networks that `train --loss pgd` saved, one for each radius, instead of training. Then PGD once more, with as many restarts as take at least as long (CPU time) as the interval attack took.
 *
 *   node dist/bench/attacks.js [--data FOLDER] [--epsilon 0.3,0.1] [--models FILE,FILE] [--train 12000] [--epochs 3] [--test 500] [--restarts 1,2] [--steps 40] [--seed 0]
 */
const { values: given } = parseArgs({
  options: {
    data: { type: 'string' },
    models: { type: 'string' },
    epsilon: { type: 'string', default: '0.3,0.1' },
    train: { type: 'string', default: '12000' },
    epochs: { type: 'string', default: '3' },
    test: { type: 'string', default: '500' },
    restarts: { type: 'string', default: '1,2' },
    steps: { type: 'string', default: '40' },
    seed: { type: 'string', default: '0' },
    output: { type: 'string', default: 'bench/results/attacks.json' },
  },
})
const numbers = (text: string): readonly number[] =>
  text.split(',').map((part) => {
    const x = Number(part)
    if (part.trim() === '' || !(x >= 0) || !Number.isFinite(x)) throw new Error(`expected numbers, not ${text}`)
    return x
  })
const [limit, epochs, count, steps, seed] = [given.train, given.epochs, given.test, given.steps, given.seed].map(
  (text) => numbers(text)[0],
)
/** Random restarts that PGD may take to fill the time. */
const MOST = 400

const load = async (): Promise<Data> => {
  if (given.data === undefined) return digits()
  const loaded = await loadFolder(files)(given.data)()
  return E.isLeft(loaded) ? raise(loaded.left) : loaded.right
}

interface Run {
  readonly attack: 'pgd' | 'interval'
  readonly loss: TargetLoss
  readonly steps: number
  readonly restarts: number
  /** Images classified correctly for which a checked violation was found. */
  readonly violations: number
  readonly cpuSeconds: number
}

interface Comparison {
  readonly loss: TargetLoss
  readonly restarts: number
  readonly pgd: Run
  readonly interval: Run
  /** Violations of the interval attack over those of PGD, less 1. */
  readonly gain: number
  /** PGD with as many restarts as take at least as long. */
  readonly pgdEqualTime: Run
  readonly gainEqualTime: number
}

/** Trains as `train --loss pgd` does. */
const train = async (backend: Backend, data: Data, epsilon: number) => {
  const numbersOfTraining = recipe('pgd', { epsilon, epochs, variants: data.train.variants })
  const begun = process.cpuUsage()
  const task = taskOf(data.train)
  let parameters: Readonly<Record<string, Float32Array>> = {}
  const options = {
    loss: objectives.pgd({ k: 1 }),
    data: { train: take(limit)(data.train) },
    epsilon,
    epochs,
    seed,
    method: ibp,
    attack: MONITOR_ATTACK,
    optimizer: numbersOfTraining.optimizer,
    epsilonSchedule: numbersOfTraining.epsilonSchedule,
    balance: numbersOfTraining.balance,
  }
  for await (const epoch of fit(options)(backend)) {
    parameters = epoch.checkpoint.state.parameters
    process.stderr.write(`epsilon ${epsilon} epoch ${epoch.epoch + 1}: ACC ${epoch.acc} ERA ${epoch.era}\n`)
  }
  const { user, system } = process.cpuUsage(begun)
  const settings = { loss: 'pgd', images: Math.min(limit, data.train.count), epochs, seed }
  return {
    network: networks.small(task),
    parameters,
    training: { ...settings, cpuSeconds: (user + system) / 1e6 },
  }
}

const saved = async (path: string) => {
  const bytes = await files.read(path)()
  const model = E.Chain.chain(bytes, (b) => decodeModel(b, path))
  if (E.isLeft(model)) return raise(model.left)
  const { network, parameters, provenance } = model.right
  return { network, parameters, training: { model: basename(path), ...provenance } }
}

const compareOn = async (backend: Backend, data: Data, epsilon: number, model: string | undefined) => {
  const { network, parameters, training } =
    model === undefined ? await train(backend, data, epsilon) : await saved(model)
  const test = take(count)(data.test)
  const images = imagesOf(test)
  const { region, close } = openRegion(backend)
  try {
    const buffers = Object.fromEntries(Object.keys(network.parameters).map((k) => [k, region.from(parameters[k])]))
    const judge = await evaluator(region)({
      network,
      range: [0, 1],
      method: ibp,
      attack: undefined,
      batchSize: 100,
      memory: 2 ** 30,
    })
    const { correct } = await judge.run(buffers, images, epsilon)
    const indices = [...correct.keys()].filter((i) => correct[i] === 1)
    const run = async (attack: AttackOptions): Promise<Run> => {
      const own = openRegion(backend)
      try {
        const searching = await search(own.region)({ network, range: [0, 1], norm: 'linf', attack, batch: 50 })
        const from = process.cpuUsage()
        const found = await searching.run(buffers, { indices, pixels: images.pixels, labels: images.labels }, epsilon)
        const { user, system } = process.cpuUsage(from)
        const result: Run = {
          attack: attack.name as 'pgd' | 'interval',
          loss: attack.loss ?? 'ce',
          steps: attack.steps,
          restarts: attack.restarts,
          violations: [...found.values()].filter((o) => o.point !== undefined).length,
          cpuSeconds: (user + system) / 1e6,
        }
        process.stderr.write(`epsilon ${epsilon} ${JSON.stringify(result)}\n`)
        return result
      } finally {
        own.close()
      }
    }
    const comparisons: Comparison[] = []
    for (const loss of targetLosses)
      for (const restarts of numbers(given.restarts)) {
        const base = { ...pgdAttack({ steps, restarts, seed }), loss }
        const pgd = await run(base)
        const interval = await run({ ...base, name: 'interval' })
        // Later restarts meet fewer images, so the first guess is too low: it grows until the time is filled.
        let longer = pgd
        for (let r = restarts; longer.cpuSeconds < interval.cpuSeconds && r < MOST; ) {
          r = Math.min(MOST, Math.max(r + 1, Math.ceil((1.2 * r * interval.cpuSeconds) / longer.cpuSeconds)))
          longer = await run({ ...base, restarts: r })
        }
        comparisons.push({
          loss,
          restarts,
          pgd,
          interval,
          gain: interval.violations / pgd.violations - 1,
          pgdEqualTime: longer,
          gainEqualTime: interval.violations / longer.violations - 1,
        })
      }
    return {
      epsilon,
      data: data.test.name,
      network: network.name,
      training,
      images: test.count,
      correct: indices.length,
      comparisons,
    }
  } finally {
    close()
  }
}

const opened = await openDevice({ device: 'wasm', threads: 1 })()
if (E.isLeft(opened)) raise(opened.left)
else {
  const { backend } = opened.right
  const data = await load()
  const nets: Awaited<ReturnType<typeof compareOn>>[] = []
  for (const [i, epsilon] of numbers(given.epsilon).entries())
    nets.push(await compareOn(backend, data, epsilon, given.models?.split(',')[i]))
  backend.dispose()
  mkdirSync(dirname(given.output), { recursive: true })
  writeFileSync(given.output, `${JSON.stringify({ node: process.version, threads: 1, nets }, null, 2)}\n`)
  const percent = (x: number) => `${x >= 0 ? '+' : ''}${(100 * x).toFixed(1)} %`
  const table = new Table({
    head: ['epsilon', 'loss', 'restarts', 'PGD', 'interval', 'gain', 'PGD, same time', 'gain', 'wins at equal time'],
    style: { head: [], border: [], compact: true },
  })
  for (const { epsilon, correct, comparisons } of nets)
    for (const c of comparisons)
      table.push([
        String(epsilon),
        c.loss,
        String(c.restarts),
        `${c.pgd.violations} of ${correct}`,
        `${c.interval.violations} (${c.interval.cpuSeconds.toFixed(0)} s)`,
        percent(c.gain),
        `${c.pgdEqualTime.violations} (${c.pgdEqualTime.restarts} restarts, ${c.pgdEqualTime.cpuSeconds.toFixed(0)} s)`,
        percent(c.gainEqualTime),
        c.gainEqualTime > 0 ? 'interval' : c.gainEqualTime < 0 ? 'PGD' : 'neither',
      ])
  process.stdout.write(`${table.toString()}\n`)
}
