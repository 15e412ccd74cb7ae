import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { lock } from '../../src/cli/lock.ts'
import { left, right } from '../shared.ts'
import { inFolder, logged, main, mixtrain, type Running, refused, runtime, start } from './run.ts'

const training = [
  'train',
  '--device',
  'wasm',
  '--threads',
  '1',
  '--loss',
  'natural',
  '--limit',
  '60,5',
  '--batch-size',
  '20',
]

const take = (folder: string) => lock(join(folder, 'run.lock'), folder)
const holder = (folder: string) => JSON.parse(readFileSync(join(folder, 'run.lock'), 'utf8'))

test(
  'a lock is held by one, until it is given up',
  inFolder(async (folder) => {
    const held = right(take(folder))
    assert.match(
      left(take(folder)),
      new RegExp(`^${folder}: another run is writing to this folder \\(process ${process.pid}`),
    )
    held.release()
    held.release()
    assert.equal(readdirSync(folder), [])
    const again = right(take(folder))
    held.release()
    left(take(folder))
    again.release()
    assert.match(left(take(join(folder, 'absent'))), /run\.lock: there is no such file or folder/)
  }),
)

test(
  'a dead process holds nothing: a number that nobody has, or another process has now, a zombie of another boot, half a file',
  inFolder(async (folder) => {
    const path = join(folder, 'run.lock')
    const mine = right(take(folder))
    const living = holder(folder)
    mine.release()
    const gone = spawnSync(process.execPath, ['--version']).pid
    const id = () => ({ id: crypto.randomUUID() })
    const old = new Date(Date.now() - 3_600_000)
    for (const [content, mtime] of [
      [{ ...living, ...id(), pid: gone }],
      // The number was given to this process after its holder had died.
      [
        {
          ...living,
          ...id(),
          started: living.started === '' ? living.started : '1',
          pid: living.started === '' ? gone : process.pid,
        },
      ],
      [{ ...living, ...id(), space: 'another boot' }, old],
      ['{"id":', old],
      ['', old],
    ] as const) {
      writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
      if (mtime !== undefined) utimesSync(path, mtime, mtime)
      right(take(folder)).release()
      assert.equal(readdirSync(folder), [])
    }
    // What cannot be looked up here is alive while its file is young.
    for (const content of [JSON.stringify({ ...living, ...id(), space: 'elsewhere', host: 'node7' }), '{']) {
      writeFileSync(path, content)
      assert.match(left(take(folder)), content === '{' ? /remove .*run\.lock/ : /of node7, .* if it is gone, remove/)
    }
    // A process died while it replaced the lock of a dead one, and another while it replaced that.
    const chain = [0, 1, 2].map(() => ({ ...living, ...id(), pid: gone }))
    const names = chain.map((_, i) => [path, ...chain.slice(0, i).map((c) => c.id)].join('.'))
    chain.forEach((c, i) => {
      writeFileSync(names[i], JSON.stringify(c))
    })
    right(take(folder)).release()
    assert.equal(readdirSync(folder), [])
  }),
)

test(
  'of many processes that want the lock of a dead one at once, no two ever have it together',
  inFolder(async (folder) => {
    const living = (() => {
      const mine = right(take(folder))
      const content = holder(folder)
      mine.release()
      return content
    })()
    const gone = spawnSync(process.execPath, ['--version']).pid
    // Each takes the lock as often as it can for a while; under it, a file is made that must not be there.
    const program = `import { lock } from '${import.meta.resolve('../../src/cli/lock.js')}'
      import { closeSync, openSync, rmSync, writeFileSync } from 'node:fs'
      const [folder, stale] = ${JSON.stringify([folder, JSON.stringify({ ...living, pid: gone })])}
      let taken = 0
      for (const end = Date.now() + 1500; Date.now() < end; ) {
        const held = lock(folder + '/run.lock', folder)
        if (held._tag === 'Left') continue
        taken++
        closeSync(openSync(folder + '/critical', 'wx'))
        rmSync(folder + '/critical')
        // Every other time it goes as a killed process does, and leaves its lock: with another's number, as nobody else may write it.
        if (taken % 2 === 0) writeFileSync(folder + '/run.lock', JSON.stringify({ ...JSON.parse(stale), id: crypto.randomUUID() }))
        held.right.release()
      }
      console.log(taken)`
    const evaluate = 'Deno' in globalThis ? ['eval'] : ['--input-type=module', '-e']
    const ended = await Promise.all([0, 1, 2, 3].map(() => start([process.execPath, ...evaluate, program]).ended))
    for (const { code, err } of ended) assert.is(code, 0, err)
    assert.ok(ended.reduce((n, { out }) => n + Number(out), 0) > 4)
    right(take(folder)).release()
    assert.equal(readdirSync(folder), [])
  }),
)

test(
  "one run per folder: of two that begin, or go on, at once, one is refused by name; a killed one is in nobody's way",
  inFolder(async (folder) => {
    const run = join(folder, 'run')
    const both = async (argv: readonly string[]) => {
      const ended = await Promise.all(
        [1, 2].map((seed) => mixtrain([...argv, ...(argv.includes('--output') ? ['--seed', `${seed}`] : [])])),
      )
      const [good, bad] = [...ended].sort((a, b) => Number(a.code) - Number(b.code))
      assert.is(good.code, 0, good.err)
      return bad
    }
    const bad = await both([...training, '--epochs', '12', '--output', run])
    assert.is(bad.code, 1)
    assert.match(
      bad.err,
      /another run is writing to this folder \(process \d+, since|there is a run in this folder already/,
    )
    assert.is(readFileSync(join(run, 'log.jsonl'), 'utf8').trimEnd().split('\n').length, 12)

    const held: Running = start([...runtime, main, ...training, '--epochs', '2000', '--output', join(folder, 'long')])
    await logged(join(folder, 'long'), 1, held)
    const about = [join(folder, 'long'), `another run is writing to this folder (process ${held.pid}, since`]
    await refused(['train', '--resume', join(folder, 'long')], 1, ...about)
    await refused([...training, '--output', join(folder, 'long')], 1, ...about)
    held.kill('SIGKILL')
    await held.ended
    assert.ok(readdirSync(join(folder, 'long')).includes('run.lock'))
    await refused([...training, '--output', join(folder, 'long')], 1, 'there is a run in this folder already')
    await refused(['train', '--resume', join(folder, 'long'), '--epochs', '3'], 2, 'epochs: it has 2000')
    assert.not.ok(readdirSync(join(folder, 'long')).includes('run.lock'))

    // Killed before its first epoch was finished: the folder can be used again.
    const early = join(folder, 'early')
    mkdirSync(early)
    for (const name of ['checkpoint.safetensors', 'run.lock'])
      writeFileSync(join(early, `${name}.${crypto.randomUUID()}.tmp`), 'half')
    const { code, err } = await mixtrain([...training, '--epochs', '1', '--output', early])
    assert.is(code, 0, err)
    assert.not.ok(readdirSync(early).some((name) => name.endsWith('.tmp') || name.startsWith('run.lock')))
  }),
)

test(
  'a run goes on with its own images only, wherever they lie: other pixels, labels or numbers of them are refused by name',
  inFolder(async (folder) => {
    const data = join(folder, 'data')
    mkdirSync(data)
    const write = (part: string, n: number, pixel: (i: number) => number, label: (i: number) => number) => {
      const extents = (...shape: readonly number[]) => shape.flatMap((d) => [0, 0, d >> 8, d & 255])
      writeFileSync(
        join(data, `${part}-images-idx3-ubyte`),
        Uint8Array.from([0, 0, 8, 3, ...extents(n, 28, 28), ...Array.from({ length: n * 784 }, (_, i) => pixel(i))]),
      )
      writeFileSync(
        join(data, `${part}-labels-idx1-ubyte`),
        Uint8Array.from([0, 0, 8, 1, ...extents(n), ...Array.from({ length: n }, (_, i) => label(i))]),
      )
    }
    const pixel = (i: number) => (i * 7919) % 251
    const label = (i: number) => i % 10
    const original = () => {
      write('train', 60, pixel, label)
      write('t10k', 10, pixel, label)
    }
    original()
    const run = join(folder, 'run')
    const { code, err } = await mixtrain([
      ...['train', '--data', data, '--device', 'wasm', '--threads', '1', '--loss', 'natural', '--epochs', '1'],
      ...['--batch-size', '20', '--output', run],
    ])
    assert.is(code, 0, err)
    const other = () => refused(['train', '--resume', run], 1, data, 'not the images that the run in', 'SHA-256')
    write('train', 60, (i) => pixel(i) ^ Number(i === 47039), label)
    await other()
    original()
    write('t10k', 10, pixel, (i) => (i === 9 ? 8 : label(i)))
    await other()
    original()
    write('train', 61, pixel, label)
    await other()
    original()
    assert.is((await mixtrain(['train', '--resume', run])).code, 0)
    rmSync(data, { recursive: true })
    await refused(['train', '--resume', run], 1, data, 'there is no such folder')
  }),
)

test.run()
