import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { inFolder, json, mixtrain, refused } from './run.ts'

const quick = ['--device', 'wasm', '--threads', '1', '--limit', '110,6', '--epsilon', '0.02', '--seed', '5']

test(
  'what goes with a loss is an option: it changes the run, is kept in its settings, and a resumed run must agree',
  inFolder(async (folder) => {
    const options = [
      ...[
        '--choice',
        'importance',
        '--optimizer',
        'radam',
        '--milestones',
        '1',
        '--smooth',
        '0.01',
        '--smooth-samples',
        '2',
      ],
      ...['--regularizer', '0.25', '--attack-radius', '1.5', '--k', '2'],
    ]
    const run = join(folder, 'run')
    const { settings } = await json(['train', ...quick, ...options, '--epochs', '2', '--output', run])
    const kept = settings as Record<string, unknown>
    const { choice, optimizer, milestones, smooth, smoothSamples, regularizer, attackRadius } = kept
    assert.equal(
      { choice, optimizer, milestones, smooth, smoothSamples, regularizer, attackRadius },
      {
        choice: 'importance',
        optimizer: 'radam',
        milestones: [1],
        smooth: 0.01,
        smoothSamples: 2,
        regularizer: 0.25,
        attackRadius: 1.5,
      },
    )
    const again = await mixtrain(['train', '--resume', run, '--milestones', '1'])
    assert.is(again.code, 0, again.err)
    await refused(['train', '--resume', run, '--milestones', '2'], 2, 'milestones: it has [1], asked for is [2]')
    await refused(['train', ...quick, '--milestones', '3,2'], 2, 'ascending whole numbers')
    await refused(['train', ...quick, '--choice', 'easiest'], 2, 'hardest')
  }),
)

test(
  'both conflicts balanced: the log has what intervals prove and the share of tight bounds, and a run broken off goes on alike',
  inFolder(async (folder) => {
    const [whole, part] = ['whole', 'part'].map((name) => join(folder, name))
    const common = ['train', ...quick, '--loss', 'twofold', '--k', '2']
    await json([...common, '--epochs', '2', '--output', whole])
    const log = (run: string) =>
      readFileSync(join(run, 'log.jsonl'), 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => ({ ...JSON.parse(line), seconds: 0 }))
    for (const { vra, cheapVra, share } of log(whole))
      assert.ok(cheapVra >= 0 && cheapVra <= 1 && vra <= 1 && share >= 0.05 && share <= 0.95)
    await json([...common, '--epochs', '2', '--output', part, '--population'])
    assert.equal(log(part), log(whole))
    const again = await mixtrain(['train', '--resume', whole])
    assert.is(again.code, 0, again.err)
    assert.is(log(whole).length, 2)
  }),
)

test(
  'distillation takes its teacher from a file, keeps its hash, and goes on with no other',
  inFolder(async (folder) => {
    const teacher = join(folder, 'teacher')
    await json(['train', ...quick, '--loss', 'natural', '--epochs', '1', '--output', teacher])
    const model = join(teacher, 'model.safetensors')
    const run = join(folder, 'run')
    const { settings } = await json([
      'train',
      ...quick,
      '--loss',
      'distilled',
      '--teacher',
      model,
      '--epochs',
      '2',
      '--output',
      run,
    ])
    assert.match((settings as { teacher: { sha256: string } }).teacher.sha256, /^[0-9a-f]{64}$/)
    const log = readFileSync(join(run, 'log.jsonl'), 'utf8').trimEnd().split('\n')
    for (const line of log) assert.ok(Number.isFinite(JSON.parse(line).robustLoss))
    await refused(['train', ...quick, '--loss', 'distilled'], 2, '--teacher')
    await refused(['train', ...quick, '--teacher', model], 2, 'distilled')
    const onnx = join(teacher, 'model.onnx')
    await refused(['train', '--resume', run, '--teacher', onnx], 1, 'not the teacher of the run')
  }),
)

test.run()
