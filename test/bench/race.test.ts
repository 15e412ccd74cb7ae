import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type FinalRecord, type Method, type RaceRecord, readLines, withRun } from '../../bench/race-records.ts'
import { adversarialBar, contenders, samplingBar, timeBar } from '../../bench/race-summary.ts'
import { inFolder, runtime, start } from '../cli/run.ts'
import { root } from '../shared.ts'

/** A run of epochs `[seconds, acc, era, vra]`. */
const run = (
  method: Method,
  k: number | null,
  seed: number,
  ...epochs: readonly (readonly [number, number, number, number])[]
): readonly RaceRecord[] =>
  epochs.map(([seconds, acc, era, vra], epoch) => ({
    run: `${method}-${k}-${seed}`,
    ...{ method, k, seed, epoch, seconds, acc, era, vra },
    ...{ network: 'small', data: 'digits', epsilon: 0.1, memoryMB: 1 },
  }))

test('the time bar: when each robust method first has the highest VRA of the whole batch, and its ACC but for 0.3 points', () => {
  const all = contenders([
    ...run('natural', null, 0, [1, 0.9, 0, 0], [2, 0.9, 0, 0]),
    ...run('symbolic', null, 0, [100, 0.9, 0.8, 0.5], [200, 0.9, 0.8, 0.7], [300, 0.9, 0.8, 0.6]),
    ...run('mixtrain', 1, 0, [4, 0.9, 0.8, 0.4], [8, 0.9, 0.8, 0.7]),
    ...run('mixtrain', 1, 1, [4, 0.9, 0.8, 0.71], [8, 0.9, 0.8, 0.7]),
    ...run('mixtrain', 2, 0, [5, 0.9, 0.8, 0.699], [10, 0.9, 0.8, 0.69]),
    ...run('ibp', null, 0, [2, 0.896, 0.8, 0.75], [4, 0.897, 0.8, 0.7]),
  ])
  const bar = timeBar(all)
  assert.equal([bar?.vra, bar?.acc, bar?.seconds], [0.7, 0.9, 200])
  assert.equal(
    bar?.rows.map((r) => [r.name, r.seconds, r.ratio]),
    [
      ['ibp', 4, 50],
      ['mixtrain k=1', 6, 200 / 6],
      ['mixtrain k=2', Number.POSITIVE_INFINITY, 0],
    ],
  )
  // Two epochs, each of 7.6 / 0.0035 natural ones, which take a second, against 6 s.
  assert.ok(Math.abs((bar?.rows[1].authors ?? 0) - (2 * 7.6) / 0.0035 / 6) < 1e-9)
  assert.is(bar?.rows[2].authors, 0)
  assert.equal(
    bar?.rows.map((r) => r.cheaper),
    [50, 25, 20],
  )
  assert.is(timeBar(contenders(run('mixtrain', 1, 0, [1, 1, 1, 1]))), undefined)
})

test('the adversarial bar: within a point of the last ACC and ERA, and what is verified then', () => {
  const all = contenders([
    ...run('pgd', null, 0, [50, 0.99, 0.99, 0], [90, 0.96, 0.92, 0.01]),
    ...run('mixtrain', 1, 0, [10, 0.95, 0.9, 0.7], [20, 0.95, 0.91, 0.8], [30, 0.96, 0.92, 0.9]),
    ...run('mixtrain', 2, 0, [10, 0.94, 0.95, 0.7], [20, 0.949, 0.95, 0.8]),
    ...run('mtl-ibp', null, 0, [9, 0.96, 0.92, 0.6]),
  ])
  const bar = adversarialBar(all)
  assert.equal([bar?.acc, bar?.era, bar?.vra, bar?.seconds], [0.96, 0.92, 0.01, 90])
  assert.equal(bar?.rows, [
    { name: 'mtl-ibp', seconds: 9, share: 0.1, vra: 0.6 },
    { name: 'mixtrain k=1', seconds: 20, share: 20 / 90, vra: 0.8 },
    { name: 'mixtrain k=2', seconds: Number.POSITIVE_INFINITY, share: Number.POSITIVE_INFINITY, vra: undefined },
  ])
})

test('the sampling bar: after as many epochs as all have, within the spread over seeds', () => {
  const last = (vra: number) => [1, 1, 1, vra] as const
  const records = [
    ...run('symbolic', null, 0, last(0.5), last(0.8)),
    ...run('mixtrain', 1, 0, last(0.5), last(0.5), last(0.9)),
    ...run('mixtrain', 1, 1, last(0.5), last(0.6), last(0.9)),
    ...run('mixtrain', 5, 0, last(0.5), last(0.75)),
    ...run('mixtrain', 5, 1, last(0.5), last(0.79)),
    ...run('mixtrain', 10, 0, last(0.5), last(0.82)),
    ...run('mixtrain', 10, 1, last(0.5), last(0.8)),
  ]
  const bar = samplingBar(contenders(records))
  assert.equal([bar?.epochs, bar?.vra, bar?.smallest], [2, 0.8, 5])
  assert.equal(
    bar?.rows.map((r) => [r.k, r.holds]),
    [
      [1, false],
      [5, true],
      [10, true],
    ],
  )
  // One seed of everything has no spread, and decides nothing.
  const single = samplingBar(contenders(records.filter((r) => r.seed === 0)))
  assert.ok(single?.rows.every((r) => r.holds === undefined && r.spread === undefined))
  assert.is(single?.smallest, undefined)
})

test('the rows of a run take the place that they had', () => {
  const [a, b, c] = ['a', 'b', 'c'].map((name) => ({ run: name, x: 0 }))
  const b2 = { run: 'b', x: 1 }
  assert.equal(withRun([a, b, b, c], 'b', [b2]), [a, b2, c])
  assert.equal(withRun([a], 'c', [c, c]), [a, c, c])
  assert.equal(withRun([a, b], 'b', []), [a])
})

const KEYS = [
  'run',
  'method',
  'k',
  'network',
  'data',
  'epsilon',
  'seed',
  'epoch',
  'seconds',
  'acc',
  'era',
  'vra',
  'memoryMB',
]

/** Runs that race at the same time stand in the order in which they were first heard of. */
const byRun = <A extends { readonly run: string }>(rows: readonly A[]): readonly A[] =>
  [...rows].sort((a, b) => a.run.localeCompare(b.run))

test(
  'a race that was stopped goes on to the same rows',
  inFolder(async (folder) => {
    const race = async (results: string, ...more: readonly string[]) => {
      const options = ['--quick', '--limit', '40,6', '--batch-size', '20', '--epochs', '2', '--slice', '4', '--ks', '1']
      const command = [...runtime, join(root, 'dist/bench/race.js'), ...options, '--threads', '1', '--jobs', '2']
      const ended = await start([...command, '--methods', 'ibp,mixtrain', '--results', results, ...more]).ended
      assert.is(ended.code, 0, ended.err)
      return byRun(readLines<RaceRecord>(join(results, 'race-quick.jsonl')))
    }
    const unbroken = join(folder, 'a')
    const rows = await race(unbroken)
    assert.equal(
      rows.map((r) => [r.method, r.k, r.epoch]),
      [
        ['ibp', null, 0],
        ['ibp', null, 1],
        ['mixtrain', 1, 0],
        ['mixtrain', 1, 1],
      ],
    )
    for (const row of rows) {
      assert.equal(Object.keys(row), KEYS)
      assert.ok(row.vra <= row.era && row.era <= row.acc && row.seconds > 0 && row.memoryMB > 0)
    }
    assert.ok(rows[1].seconds > rows[0].seconds)
    const broken = join(folder, 'b')
    const half = await race(broken, '--budget', '1e-9')
    assert.equal(
      half.map((r) => r.epoch),
      [0, 0],
    )
    // A row whose checkpoint was not written any more is not believed.
    appendFileSync(
      join(broken, 'race-quick.jsonl'),
      `${JSON.stringify({ ...half[1], epoch: 1, vra: 1, era: 1, acc: 1 })}\n`,
    )
    const bare = ({ seconds: _, ...row }: RaceRecord) => row
    assert.equal((await race(broken)).map(bare), rows.map(bare))
    const finals = (name: string) =>
      byRun(readLines<FinalRecord>(join(name, 'race-quick-final.jsonl'))).map(({ seconds: _, ...rest }) => rest)
    assert.equal(finals(broken), finals(unbroken))
    assert.equal(
      finals(broken).map((r) => [r.ended, r.images]),
      [
        ['epochs', 6],
        ['epochs', 6],
      ],
    )
    for (const file of ['race-quick-time.svg', 'race-quick-frontier.svg', 'race-quick-k.svg'])
      assert.ok(readFileSync(join(broken, file), 'utf8').startsWith('<svg'))
    assert.ok(existsSync(join(broken, 'race-quick-environment.json')))
  }),
)

test.run()
