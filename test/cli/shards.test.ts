import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { outcomeHeader } from '../../src/cli/instances.ts'
import { decodeShard, encodeManifest, encodeRecords, type Record as ImageRecord } from '../../src/cluster/records.ts'
import { key } from '../../src/core/key.ts'
import { encodeModel } from '../../src/format/model.ts'
import { networks } from '../../src/nn/networks.ts'
import { inFolder, json, main, refused, runtime, start } from './run.ts'

const network = networks.small({ input: [1, 28, 28], classes: 10 })
const save = (folder: string): string => {
  const path = join(folder, 'model.safetensors')
  writeFileSync(path, encodeModel({ network, parameters: network.init(key(3)), provenance: undefined }))
  return path
}

const COUNT = 61
const asked = (model: string): readonly string[] => [
  ...['evaluate', model, '--epsilon', '0.002', '--limit', String(COUNT), '--device', 'wasm', '--threads', '1'],
  ...['--attack', 'pgd', '--steps', '3', '--restarts', '2', '--seed', '5', '--complete', '20'],
]
const FIELDS = ['count', 'epsilon', 'acc', 'era', 'vra', 'attack', 'method', 'complete', 'rounding'] as const
const shown = (r: Record<string, unknown>) => Object.fromEntries(FIELDS.map((f) => [f, r[f]]))

const shardAt = (records: string, name: string) => join(records, name)
const decoded = async (path: string) => {
  const shard = await decodeShard(readFileSync(path), path)
  if (E.isLeft(shard)) throw new Error(JSON.stringify(shard.left))
  return shard.right
}

test(
  'shards that were killed, torn and repeated merge to what one run says; what was edited, is missing or differs is refused',
  inFolder(async (folder) => {
    const model = save(folder)
    const records = join(folder, 'records')
    const whole = await json(asked(model))
    for (const index of [1, 3])
      await json([...asked(model), '--shard', `${index}/3`, '--output', records, '--batch-size', '9'])
    await refused(['merge', records], 1, 'of 3 shards, 1 are missing: 2')

    // Shard 2 is killed once it has records, twice.
    const path = shardAt(records, 'shard-2-of-3.jsonl')
    const again = [...asked(model), '--shard', '2/3', '--output', records, '--batch-size', '1', '--json']
    for (const lines of [2, 9]) {
      const running = start([...runtime, main, ...again])
      let over = false
      void running.ended.then(() => {
        over = true
      })
      while (!over && !(existsSync(path) && readFileSync(path, 'utf8').split('\n').length > lines))
        await new Promise((resolve) => setTimeout(resolve, 2))
      running.kill('SIGKILL')
      assert.is((await running.ended).code, 'SIGKILL', 'it was over before it could be killed')
    }
    const survived = (await decoded(path)).records
    assert.ok(survived.length >= 8 && survived.length < 20, `${survived.length}`)
    writeFileSync(path, `${readFileSync(path, 'utf8')}{"image":4,"lab`)
    await refused(['merge', records], 1, 'shard-2-of-3.jsonl', 'was not finished')
    await json(again.slice(0, -1))
    const finished = (await decoded(path)).records
    assert.equal(finished.slice(0, survived.length), survived)
    assert.equal(
      [...finished.map((r) => r.image)].sort((a, b) => a - b),
      Array.from({ length: 20 }, (_, i) => 1 + 3 * i),
    )

    const merged = await json(['merge', records])
    assert.equal(shown(merged), shown(whole))
    assert.is(merged.shards, 3)
    const [from, to] = merged.robustAccuracy as readonly [number, number]
    assert.is(from, merged.vra)
    assert.is(to, from + (merged.open as number) / COUNT)
    // A network of random weights: some are right and some proved, or nothing would have been compared.
    assert.ok((whole.acc as number) > 0 && from > 0, JSON.stringify(whole))

    // One call that has all of them, the first of which was begun, writes the same.
    const together = join(folder, 'together')
    await json([...asked(model), '--shard', '1/3', '--output', together])
    const all = await json([...asked(model), '--shard', '1-3/3', '--output', together])
    assert.is(all.shard, '1-3/3')
    assert.equal(shown(all), shown(whole))
    for (const name of readdirSync(records)) {
      const ordered = async (at: string) =>
        [...(await decoded(join(at, name))).records].sort((a, b) => a.image - b.image)
      assert.equal(await ordered(together), await ordered(records))
    }

    // Proved again; and a record that was edited and sealed anew is found out.
    const audit = await json(['merge', records, '--audit', '5', '--key', '9'])
    assert.equal(audit.audit, { images: 5, key: 9 })
    const shard = await decoded(path)
    const lie = (r: ImageRecord): ImageRecord =>
      r.correct === 0 ? { ...r, correct: 1, robust: 1, verified: 1, bounded: 1 } : r
    const head = await encodeManifest(shard.manifest)
    const lies = await encodeRecords(shard.records.map(lie), head.seal)
    const text = readFileSync(path, 'utf8')
    writeFileSync(path, head.text + lies.text)
    assert.ok(((await json(['merge', records])).vra as number) > from)
    await refused(
      ['merge', records, '--audit', '61', '--key', '9'],
      1,
      'correct is recorded as 1, and was found to be 0',
    )

    // What is not as it was written.
    const lines = text.split('\n')
    for (const [edited, says] of [
      [text.replace(/"correct":0/, '"correct":1'), 'was edited'],
      [[...lines.slice(0, 3), ...lines.slice(4)].join('\n'), 'taken away'],
      [lines.slice(0, -3).join('\n'), /was not finished/],
      [`${lines.slice(0, -2).join('\n')}\n`, '1 of its images are not decided yet'],
      [text.replace('"seed":5', '"seed":6'), 'line 2'],
    ] as const) {
      writeFileSync(path, edited)
      await refused(['merge', records], 1, 'shard-2-of-3.jsonl', says)
    }
    writeFileSync(path, text)
    renameSync(shardAt(records, 'shard-1-of-3.jsonl'), join(folder, 'kept'))
    writeFileSync(shardAt(records, 'shard-9-of-9.jsonl'), text)
    await refused(['merge', records], 1, 'is shard 2, too')
    rmSync(shardAt(records, 'shard-9-of-9.jsonl'))
    const other = asked(model).map((a) => (a === '0.002' ? '0.003' : a))
    await json([...other, '--shard', '1/3', '--output', records])
    await refused(['merge', records], 1, 'differs', 'setting epsilon: "0.003" and "0.002"')
    await refused([...asked(model), '--shard', '1/3', '--output', records], 1, 'begun otherwise', 'setting epsilon')
    assert.equal(
      readdirSync(records).filter((name) => !/^shard-\d-of-3\.jsonl$/.test(name)),
      [],
    )
  }),
)

test(
  'tables of benchmark merge where each instance of the list is there once',
  inFolder(async (folder) => {
    const tables = join(folder, 'tables')
    const list = join(folder, 'list.csv')
    writeFileSync(list, 'a.onnx,p.vnnlib,9\na.onnx,q.vnnlib,9\nb.onnx,p.vnnlib,9\n')
    mkdirSync(tables)
    const line = (onnx: string, vnnlib: string, verdict: string) => `,${onnx},${vnnlib},9,${verdict},,1.00,1.00,90,3,\n`
    const [one, two] = [join(tables, '1.csv'), join(tables, '2.csv')]
    writeFileSync(one, outcomeHeader + line('a.onnx', 'p.vnnlib', 'sat') + line('b.onnx', 'p.vnnlib', 'unsat'))
    writeFileSync(two, outcomeHeader)
    await refused(['merge', tables, '--list', list], 1, '1 have no outcome, a.onnx q.vnnlib first')
    writeFileSync(two, outcomeHeader + line('a.onnx', 'q.vnnlib', 'timeout'))
    const { tallies } = await json(['merge', tables, '--list', list])
    assert.match(JSON.stringify(tallies), '"instances":3,"sat":1,"unsat":1,"timeout":1')
    writeFileSync(two, outcomeHeader + line('a.onnx', 'q.vnnlib', 'timeout') + line('a.onnx', 'p.vnnlib', 'sat'))
    await refused(['merge', tables, '--list', list], 1, 'is in', '1.csv, too')
    writeFileSync(two, outcomeHeader + line('c.onnx', 'q.vnnlib', 'timeout'))
    await refused(['merge', tables, '--list', list], 1, 'c.onnx q.vnnlib is not in')
  }),
)

test('what does not go together is refused', async () => {
  await refused(['evaluate', 'm.onnx', '--epsilon', '0.1', '--shard', '1/3'], 2, 'add --output')
  await refused(['evaluate', 'm.onnx', '--epsilon', '0.1', '--shard', '4/3', '--output', 'x'], 2, 'I from 1 to N')
  await refused(['evaluate', 'm.onnx', '--epsilon', '0.1', '--shard', '3-2/4', '--output', 'x'], 2, 'in order')
  await refused(['evaluate', 'm.onnx', '--epsilon', '0.1', '--shard', '3-5/4', '--output', 'x'], 2, 'in order')
  await refused(['merge', '/nowhere', '--key', '3'], 1, '/nowhere')
})

test.run()
