import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decode } from '../../src/format/safetensors.ts'
import { right, root, skipped } from '../shared.ts'
import { inFolder, json, logged, main, mixtrain, refused, runtime, start } from './run.ts'

const wasm = ['--device', 'wasm']
const small = [...wasm, '--limit', '170,12', '--epochs', '3', '--epsilon', '0.02', '--seed', '5']
const FILES = ['checkpoint.safetensors', 'curves.svg', 'log.jsonl', 'model.onnx', 'model.safetensors', 'report.json']
const LOG = [
  'epoch',
  'seconds',
  'loss',
  'terms',
  'naturalLoss',
  'robustLoss',
  'balance',
  'epsilon',
  'acc',
  'era',
  'vra',
]

interface Epoch {
  readonly epoch: number
  readonly seconds: number
  readonly acc: number
  readonly era: number
  readonly vra: number
}
const logOf = (folder: string): readonly Epoch[] =>
  readFileSync(join(folder, 'log.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Epoch)
const timeless = (folder: string) => logOf(folder).map((e) => ({ ...e, seconds: 0 }))
const bytes = (folder: string, name: string) => readFileSync(join(folder, name))

const same = (a: string, b: string) => {
  for (const name of ['model.safetensors', 'model.onnx'])
    assert.ok(bytes(a, name).equals(bytes(b, name)), `${name} of ${a} and ${b} differ`)
  assert.equal(timeless(a), timeless(b))
  assert.is(bytes(a, 'curves.svg').toString(), bytes(b, 'curves.svg').toString())
}

test(
  'a run, the same run killed and resumed, and the same in Deno: the same bits, for any number of threads',
  inFolder(async (folder) => {
    const [whole, broken, other] = ['whole', 'broken', 'deno'].map((name) => join(folder, name))
    const report = await json(['train', ...small, '--output', whole, '--threads', '1'])

    assert.equal(readdirSync(whole).sort(), FILES)
    const log = logOf(whole)
    assert.equal(
      log.map((e) => e.epoch),
      [0, 1, 2],
    )
    for (const e of log) {
      assert.equal(Object.keys(e), LOG)
      assert.ok(0 <= e.vra && e.vra <= e.era && e.era <= e.acc && e.acc <= 1)
    }
    const { output, ...record } = report
    assert.is(output, whole)
    assert.equal(JSON.parse(bytes(whole, 'report.json').toString()), record)
    const { model, count, epsilon, acc, era, vra, attack, method, rounding, device, threads, settings } = record
    assert.equal(
      { model, count, epsilon, method, rounding, device, threads },
      {
        model: join(whole, 'model.safetensors'),
        count: 12,
        epsilon: 0.02,
        method: 'symbolic',
        rounding: 'none',
        device: 'wasm',
        threads: 1,
      },
    )
    assert.ok((vra as number) <= (era as number) && (era as number) <= (acc as number))
    assert.equal(attack, {
      ...{ name: 'pgd', steps: 40, restarts: 1, stepSize: 0.02 / 30, seed: 0 },
      ...{ loss: 'ce', targeted: false },
    })
    assert.is((settings as { seed: number }).seed, 5)
    const again = await json([
      'evaluate',
      model as string,
      '--epsilon',
      '0.02',
      '--limit',
      '12',
      '--attack',
      'pgd',
      ...wasm,
    ])
    assert.equal([again.acc, again.era, again.vra], [acc, era, vra])
    const svg = bytes(whole, 'curves.svg').toString()
    for (const text of ['<svg', 'small network', 'mixtrain', 'epsilon 0.02', 'ACC', 'ERA', 'VRA', 'balance'])
      assert.ok(svg.includes(text), text)

    const killed = start([...runtime, main, 'train', ...small, '--output', broken, '--threads', '2'])
    await logged(broken, 1, killed)
    killed.kill('SIGKILL')
    assert.is((await killed.ended).code, 'SIGKILL')
    const journal = join(broken, 'log.jsonl')
    const full = readFileSync(journal, 'utf8')
    writeFileSync(journal, `{"epoch":${full.split('\n').length - 1},"sec`, { flag: 'a' })
    writeFileSync(join(broken, `model.safetensors.${crypto.randomUUID()}.tmp`), 'half of it')
    await refused(
      ['train', '--resume', broken, '--epochs', '2', '--seed', '6'],
      2,
      ...['cannot go on with other settings', 'epochs: it has 3, asked for is 2', 'seed: it has 5, asked for is 6'],
    )
    await refused(['train', ...small, '--output', broken], 1, 'a run in this folder already', `--resume ${broken}`)
    const torn = readFileSync(journal)
    // What the log tells of an epoch is what the checkpoint has of it; nothing is overwritten that somebody else wrote.
    for (const edited of [
      full.replace(/"vra":[^,}]+/, '"vra":1'),
      `${full}${full}`,
      `\n${full}`,
      full.replace('\n', ' \n'),
      'note of mine\n',
    ]) {
      writeFileSync(journal, edited)
      await refused(['train', '--resume', broken], 1, 'log.jsonl', 'line ', 'the log was edited')
      assert.is(readFileSync(journal, 'utf8'), edited)
    }
    writeFileSync(journal, torn)
    await json(['train', '--resume', broken, '--seed', '5', '--threads', '2'])
    assert.equal(readdirSync(broken).sort(), FILES)
    same(whole, broken)

    // A finished run has nothing left to train; its results are made again.
    await json(['train', '--resume', broken, '--threads', '1'])
    same(whole, broken)

    const deno = join(root, 'node_modules/@deno/linux-x64-glibc/deno')
    if (!existsSync(deno)) return skipped('the same bits in Deno', 'the package @deno/linux-x64-glibc is absent')
    const foreign = start(
      [deno, 'run', '-A', '--node-modules-dir=manual', main, 'train', ...small, '--output', other],
      root,
    )
    const { code, err } = await foreign.ended
    assert.is(code, 0, err)
    same(whole, other)
  }),
)

test(
  'Ctrl-C, SIGTERM and SIGHUP end a run with the code of the signal; it says how to go on and leaves whole files only',
  inFolder(async (folder) => {
    for (const [signal, expected] of [
      ['SIGINT', 130],
      ['SIGTERM', 143],
      ['SIGHUP', 129],
    ] as const) {
      const run = join(folder, signal)
      const interrupted = start([
        ...[...runtime, main, 'train', ...wasm, '--threads', '1', '--limit', '600,20', '--epochs', '50'],
        ...['--loss', 'natural', '--output', run],
      ])
      await logged(run, 1, interrupted)
      assert.ok(readdirSync(run).includes('run.lock'))
      interrupted.kill(signal)
      const { code, out, err } = await interrupted.ended
      assert.is(code, expected, err)
      assert.match(out, /^epoch {2}1\/50 {2}loss \d/)
      assert.match(err, /Interrupted after \d+ of 50 epochs; go on with: mixtrain train --resume /)
      assert.is(logOf(run).length, Number(/after (\d+)/.exec(err)?.[1]))
      assert.equal(readdirSync(run).sort(), ['checkpoint.safetensors', 'log.jsonl'])
    }
  }),
)

test(
  'a full disk ends a run with a message; what was there stays',
  inFolder(async (folder) => {
    const run = join(folder, 'run')
    const quick = [...wasm, '--threads', '1', '--loss', 'natural', '--limit', '120,5', '--epochs', '1']
    await json(['train', ...quick, '--output', run])
    const before = bytes(run, 'model.safetensors')
    const limited = ['sh', '-c', `trap '' XFSZ && ulimit -f 100 && exec "$0" "$@"`, ...runtime, main]
    const resumed = await start([...limited, 'train', '--resume', run, '--threads', '1']).ended
    assert.is(resumed.code, 1, resumed.err)
    assert.match(resumed.err, /model\.safetensors: the file is larger than allowed/)
    assert.match(resumed.err, /go on with: mixtrain train --resume/)
    assert.not.match(resumed.err, /\n\s+at .*\.[jt]s:\d|defect/)
    assert.equal(readdirSync(run).sort(), FILES)
    assert.ok(before.equals(bytes(run, 'model.safetensors')))
    const fresh = await start([...limited, 'train', ...quick, '--output', join(folder, 'other')]).ended
    assert.is(fresh.code, 1)
    assert.match(fresh.err, /checkpoint\.safetensors: the file is larger than allowed/)
    assert.equal(readdirSync(folder), ['run'])
  }),
)

test(
  'without --output a run gets a folder of its own; a damaged checkpoint is refused',
  inFolder(async (folder) => {
    const { code, out, err } = await mixtrain(
      [
        'train',
        ...wasm,
        '--loss',
        'ibp',
        '--limit',
        '60,5',
        '--epochs',
        '1',
        '--batch-size',
        '20',
        '--balance',
        '0.25',
      ],
      folder,
    )
    assert.is(code, 0, err)
    // Beside busy programs, the one note is that of fewer threads.
    assert.is(err.replace(/^.*on with \d+ threads?\b.*\n/gm, ''), '')
    const [run] = readdirSync(join(folder, 'runs'))
    assert.match(run, /^\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d$/)
    for (const text of [
      'ACC',
      'ERA',
      'VRA',
      'ibp bounds, epsilon 0.1',
      'boxes cut to [0, 1]',
      'rounding none',
      'PGD, 40 steps',
      'digits, test images',
      `runs/${run}`,
    ])
      assert.ok(out.includes(text), text)
    const [epoch] = logOf(join(folder, 'runs', run)) as unknown as readonly { readonly balance: number }[]
    assert.is(epoch.balance, 0.25)
    const path = join(folder, 'runs', run, 'checkpoint.safetensors')
    const good = readFileSync(path).toString('latin1')
    for (const [from, to, says] of [
      ['\\"vra\\":', '\\"vrb\\":', 'was changed since it was written'],
      ['\\"seed\\":0', '\\"seed\\":1', 'was changed since it was written'],
      ['\\"epsilon\\":0.1', '\\"epsilon\\":0.2', 'was changed since it was written'],
      ['mixtrain-checkpoint', 'mixtrain-checkpoinx', 'not a checkpoint'],
      ['parameter.0.bias', 'parameter.0.bxas', 'was changed since it was written'],
    ]) {
      assert.ok(good.includes(from), from)
      writeFileSync(path, good.replace(from, to), 'latin1')
      await refused(['train', '--resume', join(folder, 'runs', run)], 1, path, says)
    }
    mkdirSync(join(folder, 'empty'))
    await refused(['train', '--resume', join(folder, 'empty')], 1, 'there is no checkpoint.safetensors')
  }),
)

test(
  'averaged weights: the model is the average, also of a run that was resumed, under the options that it began with',
  inFolder(async (folder) => {
    const [whole, broken] = ['whole', 'broken'].map((name) => join(folder, name))
    const given = ['--loss', 'sabr', '--swa', '--l1', '1e-5', '--weight-decay', '1e-3', '--threads', '1']
    const { settings, method } = await json(['train', ...small, ...given, '--output', whole])
    const { swa, l1, weightDecay, loss } = settings as Record<string, unknown>
    assert.equal([swa, l1, weightDecay, loss, method], [true, 1e-5, 1e-3, 'sabr', 'crown-ibp'])
    const tensors = (name: string) => right(decode(bytes(whole, name), name)).tensors
    const [model, checkpoint] = [tensors('model.safetensors'), tensors('checkpoint.safetensors')]
    for (const [name, { data }] of model) {
      assert.equal(data, checkpoint.get(`slot.average.${name}`)?.data)
      assert.not.equal(data, checkpoint.get(`parameter.${name}`)?.data)
    }
    const killed = start([...runtime, main, 'train', ...small, ...given, '--output', broken])
    await logged(broken, 1, killed)
    killed.kill('SIGKILL')
    await killed.ended
    await refused(['train', '--resume', broken, '--l1', '0'], 2, 'l1: it has 0.00001, asked for is 0')
    await json(['train', '--resume', broken])
    same(whole, broken)
  }),
)

test.run()
