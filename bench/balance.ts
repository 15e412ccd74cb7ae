import { appendFile, mkdir, writeFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import * as E from 'fp-ts/lib/Either.js'
import { count, fraction, integer, radius } from '../src/cli/options.ts'
import { pgdAttack } from '../src/doors/attacks.ts'
import { recipe } from '../src/doors/losses.ts'
import { device, fit, foldKey, key, methods, networks, verify } from '../src/index.ts'
import { evaluatedOf } from '../src/train/step.ts'
import { list, option } from './options.ts'
import { balanceFrontier, draw } from './plot.ts'
import { readLines, writeLines } from './race-records.ts'
import { dataOf } from './race-run.ts'

/**
 * Whether the adaptive balance earns its place: one MixTrain run for each fixed balance and one for the rule, same data, network, schedule
 * and seeds; ACC against VRA of the final models on test images.
 *
 *   npm run bench:balance -- [--data FOLDER] [--epsilon 0.1] [--epochs 12] [--train 3000] [--test 1000] [--seeds 0,1]
 *                            [--balance 0.1,0.3,0.5,0.67,0.8,0.9,adaptive] [--k 4] [--threads N] [--output bench/results/balance]
 *
 * Writes OUTPUT.jsonl, one line per epoch and one (`"epoch": "final"`) per finished run, and OUTPUT.svg. A run that the file has already,
 * under the same settings, is not trained again.
 */
const { values: o } = parseArgs({
  options: {
    data: { type: 'string' },
    epsilon: { type: 'string', default: '0.1' },
    epochs: { type: 'string', default: '12' },
    train: { type: 'string', default: '3000' },
    test: { type: 'string', default: '1000' },
    seeds: { type: 'string', default: '0' },
    balance: { type: 'string', default: '0.1,0.3,0.5,0.67,0.8,0.9,adaptive' },
    k: { type: 'string', default: '4' },
    threads: { type: 'string', default: String(Math.min(2, availableParallelism())) },
    output: { type: 'string', default: 'bench/results/balance' },
  },
})

/** A line of the file. ACC and VRA are fractions: of held-out training images, in the line `final` of test images. */
export interface BalanceRow {
  readonly run: string
  readonly settings: string
  readonly seed: number
  readonly epoch: number | 'final'
  /** Training time so far, without evaluation. */
  readonly seconds: number
  readonly balance: number
  readonly acc: number
  readonly era: number | null
  readonly vra: number
}

const epsilon = option('epsilon', radius, o.epsilon)
const [epochs, k, threads] = (['epochs', 'k', 'threads'] as const).map((name) => option(name, count, o[name]))
const balances = list(
  'balance',
  (text): E.Either<string, number | 'adaptive'> => (text === 'adaptive' ? E.right(text) : fraction(text)),
  o.balance,
)
const seeds = list('seeds', integer, o.seeds)
const path = `${o.output}.jsonl`

const rowsOf = (): readonly BalanceRow[] => readLines<BalanceRow>(path)

await mkdir(path.slice(0, path.lastIndexOf('/')), { recursive: true })
const { train, test } = await dataOf({
  folder: o.data,
  trainLimit: option('train', count, o.train),
  testLimit: option('test', count, o.test),
})
const settings = `${train.name} epsilon ${epsilon} epochs ${epochs} train ${train.count} test ${test.count} k ${k}`
const backend = await device({ device: 'wasm', threads })

for (const seed of seeds)
  for (const balance of balances) {
    const run = String(balance)
    const rows = rowsOf()
    const isOwn = (r: BalanceRow) => r.run === run && r.seed === seed && r.settings === settings
    if (rows.some((r) => isOwn(r) && r.epoch === 'final')) continue
    // What a run that was stopped has left is measured again.
    if (rows.some(isOwn))
      writeLines(
        path,
        rows.filter((r) => !isOwn(r)),
      )
    const keep = async (row: Omit<BalanceRow, 'run' | 'settings' | 'seed'>) => {
      await appendFile(path, `${JSON.stringify({ run, settings, seed, ...row })}\n`)
      process.stderr.write(
        `${run} seed ${seed} ${row.epoch}: balance ${row.balance.toFixed(3)} ACC ${row.acc.toFixed(4)} VRA ${row.vra.toFixed(4)}\n`,
      )
    }
    const network = networks.small({ input: train.shape, classes: train.classes })
    const {
      numbers,
      k: _,
      ...planned
    } = recipe('mixtrain', {
      epsilon,
      epochs,
      k,
      balance,
    })
    let seconds = 0
    let last: { readonly balance: number; readonly parameters: Readonly<Record<string, Float32Array>> } | undefined
    for await (const epoch of fit({ ...planned, data: { train }, network, epsilon, seed, attack: undefined })(
      backend,
    )) {
      seconds += epoch.seconds
      last = { balance: epoch.balance, parameters: evaluatedOf(planned.optimizer, epoch.checkpoint.state) }
      await keep({
        epoch: epoch.epoch,
        seconds,
        balance: epoch.balance,
        acc: epoch.acc,
        era: epoch.era,
        vra: epoch.vra,
      })
    }
    if (last === undefined) continue
    const { acc, era, vra } = await verify({
      network,
      parameters: last.parameters,
      data: test,
      epsilon,
      method: methods[numbers.method],
      attack: pgdAttack({ steps: 40, restarts: 1, seed: foldKey(key(seed), 'attack')[0] }),
    })(backend)
    await keep({ epoch: 'final', seconds, balance: last.balance, acc, era, vra })
  }
backend.dispose()

const finals = rowsOf().filter((r) => r.epoch === 'final' && r.settings === settings)
await writeFile(`${o.output}.svg`, await draw(balanceFrontier(finals, settings)))
for (const { run, seed, seconds, balance, acc, era, vra } of finals)
  console.log(
    [run, `seed ${seed}`, `${seconds.toFixed(0)} s`, `last balance ${balance.toFixed(3)}`]
      .concat([
        `ACC ${(100 * acc).toFixed(2)}`,
        `ERA ${(100 * Number(era)).toFixed(2)}`,
        `VRA ${(100 * vra).toFixed(2)}`,
      ])
      .join('\t'),
  )
