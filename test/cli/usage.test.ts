import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { inFolder, json, mixtrain, refused } from './run.ts'

const wasm = ['--device', 'wasm']

test('help teaches: description, defaults, examples, exit codes', async () => {
  const top = await mixtrain(['--help'])
  assert.is(top.code, 0)
  for (const command of ['train', 'evaluate', 'bounds', 'verify', 'check', 'data', 'devices']) {
    assert.ok(top.out.includes(`  ${command} `), command)
    const { code, out, err } = await mixtrain([command, '--help'])
    assert.is(code, 0)
    assert.is(err, '')
    const description = out.split('\n\n')[1]
    assert.is((description.match(/\.(\s|$)/g) ?? []).length >= 2, true, description)
    for (const part of [
      '--device',
      '--threads',
      '--memory',
      '--fast-math',
      '--json',
      'default:',
      'Examples:',
      `$ mixtrain ${command}`,
    ])
      assert.ok(out.includes(part), `${command}: ${part}`)
    for (const line of out.split('\n').filter((l) => !l.includes('$ '))) assert.ok(line.length <= 120, line)
  }
  assert.match(top.out, /Exit code: 0 success, 1 failure, 2 wrong usage/)
  const version = await mixtrain(['--version'])
  assert.match(version.out, /^\d+\.\d+\.\d+\n$/)
})

test('without a command the help goes to standard error, exit code 2', async () => {
  const { code, out, err } = await mixtrain([])
  assert.is(code, 2)
  assert.is(out, '')
  assert.match(err, /Usage: mixtrain/)
})

test('unknown names name the nearest known one', async () => {
  await Promise.all([
    refused(['trian'], 2, '"trian"', 'the nearest is train'),
    refused(['train', '--epsilom', '1'], 2, 'the nearest is --epsilon'),
    refused(['--jsn'], 2, 'the nearest is --json'),
    refused(
      ['train', '--network', 'smal', '--loss', 'crown_ibp', '--device', 'wsam'],
      2,
      'no network "smal"; the nearest is small',
      'no loss "crown_ibp"; the nearest is crown-ibp',
      'no device "wsam"; the nearest is wasm',
    ),
    refused(['evaluate', 'm', '--epsilon', '0.1', '--method', 'simbolic'], 2, 'the nearest is symbolic'),
  ])
})

test('numbers that make no sense are refused, all at once', async () => {
  const wrong = { epsilon: '-0.1', epochs: '0', 'batch-size': '1.5', k: 'two', balance: '1.1', lr: '0', seed: '1e400' }
  await Promise.all([
    refused(
      ['train', ...Object.entries(wrong).flatMap(([name, value]) => [`--${name}`, value])],
      2,
      ...Object.entries(wrong).map(([name, value]) => new RegExp(`--${name}: expected .*not "${value}"`)),
    ),
    refused(
      ['train', '--limit', '0,5', '--threads', '0', '--memory=-1', '--output='],
      2,
      ...['--limit: expected TRAIN', '--threads: expected', '--memory: expected', '--output: expected'],
    ),
    ...['NaN', '1.01', '', 'Infinity', '1/0', '1/2/3', '0x1'].map((epsilon) =>
      refused(['evaluate', 'm', '--epsilon', epsilon], 2, '--epsilon: expected a radius from 0 to 1'),
    ),
  ])
})

test('what is missing or does not go together', async () => {
  await Promise.all([
    refused(['evaluate'], 2, "missing required argument 'MODEL'"),
    refused(['evaluate', 'm', 'n', '--epsilon', '0.1'], 2, 'takes 1 argument, but was given "n" besides'),
    refused(['evaluate', 'm', '--epsilon'], 2, 'argument missing'),
    refused(['evaluate', 'm', '--epsilon', '0.1', '--steps', '3'], 2, '--attack pgd'),
    refused(['evaluate', 'm', '--epsilon', '0.1', '--semantics', 'deployed'], 2, 'add --rounding outward'),
    refused(
      ['evaluate', 'm', '--epsilon', '0.1', '--rounding', 'none', '--certificate', 'c'],
      2,
      'leave --rounding none out',
    ),
    refused(['evaluate', 'm', '--epsilon', '0.1', '--norm', 'l2', '--certificate', 'c'], 2, 'leave --norm l2 out'),
    refused(['evaluate', 'm', '--epsilon', '0.1', '--method', 'alpha-crown', '--certificate', 'c'], 2, 'use crown'),
    refused(['check'], 2, "missing required argument 'CERTIFICATE'"),
    refused(['evaluate', 'm', '--epsilon', '0.1', '--attack', 'intervals'], 2, 'the nearest is interval'),
    refused(['evaluate', 'm', '--epsilon', '0.1', '--targeted'], 2, '--attack pgd'),
    refused(['evaluate', 'm', '--epsilon', '0.1', '--attack', 'ensemble', '--target-loss', 'ce'], 2, 'both losses'),
    refused(['evaluate', 'm', '--epsilon', '0.1', '--attack', 'fgsm', '--steps', '3'], 2, 'one step'),
    refused(['evaluate', 'm', '--epsilon', '0.1', '--alpha-steps', '3'], 2, 'alpha-crown'),
    refused(['bounds', 'm', '--index', '0', '--epsilon', '0.1', '--norm', 'l0'], 2, 'no norm "l0"'),
    refused(['bounds', 'm', '--epsilon', '0.1'], 2, 'needs --index'),
    refused(['bounds', 'm', '--epsilon', '0.1', '--index', '0,x'], 2, '--index: expected'),
    refused(['train', '--output', 'a', '--resume', 'b'], 2, 'leave --output out'),
  ])
})

test(
  'files that are not there or not what they should be',
  inFolder(async (folder) => {
    const absent = join(folder, 'absent')
    await refused(['evaluate', absent, '--epsilon', '0.1'], 1, `${absent}: there is no such file or folder`)
    await refused(['train', '--data', absent], 1, `${absent}: there is no such folder`, 'digits')
    await refused(['evaluate', absent, '--epsilon', '8'], 2, 'not "8"', '8/255')
    await refused(['report', absent], 1, `${absent}: there is no such folder`)
    await refused(['report', folder], 1, `${folder}: there is no run in this folder`)
    // A folder of a run is its model; a name that is nearly one is told what was meant, and a folder that has none what it lacks.
    const model = join(folder, 'run', 'model.onnx')
    mkdirSync(join(folder, 'run'))
    writeFileSync(model, 'neither')
    await refused(
      ['evaluate', join(folder, 'run'), '--epsilon', '0.1'],
      1,
      `${model} (byte 7): expected a model, safetensors or ONNX`,
    )
    await refused(['verify', join(folder, 'run'), model], 1, model)
    mkdirSync(join(folder, 'begun'))
    await refused(['bounds', join(folder, 'begun'), '--index', '0'], 1, 'this folder is not that of a run')
    writeFileSync(join(folder, 'begun', 'checkpoint.safetensors'), '')
    await refused(['radius', join(folder, 'begun')], 1, 'is not finished', '--resume')
    await refused(['evaluate', model.replace('el.', '.'), '--epsilon', '0.1'], 1, `the nearest is ${model}`)
    const rows = join(folder, 'rows.csv')
    writeFileSync(
      rows,
      `a,b,label\n${Array.from({ length: 20 }, (_, i) => `${i},${i * i},${i % 2 ? 'odd' : 'even'}`).join('\n')}\n`,
    )
    await refused(['train', '--data', rows], 2, '--network small takes images', 'shape [2]', '--network mlp')
    await refused(['train', '--data', folder], 1, 'there is no data set here')
    await refused(['train', '--resume', absent], 1, `${absent}: there is no checkpoint.safetensors`)
    const junk = join(folder, 'junk')
    writeFileSync(junk, 'neither')
    await refused(
      ['train', ...wasm, '--limit', '100,5', '--output', junk],
      1,
      `${junk}: expected a folder, found a file`,
    )
    for (const name of ['junk', 'junk.onnx', 'junk.safetensors']) {
      writeFileSync(join(folder, name), 'neither')
      await refused(['evaluate', join(folder, name), '--epsilon', '0.1'], 1, `${join(folder, name)} (`)
    }
    await refused(['train', ...wasm, '--limit', '20,5', '--output', absent], 2, 'do not fill one batch')
    await refused(['train', ...wasm, '--limit', '100,5', '--memory', '0.5', '--output', absent], 1, 'memory budget')
    // Nothing was trained, so nothing is left.
    await refused(['train', '--resume', absent], 1, 'there is no checkpoint.safetensors')
  }),
)

test('with --json an error is the one document on standard output', async () => {
  const { code, out, err } = await mixtrain(['train', '--epsilon', '2', '--json'])
  assert.is(code, 2)
  const { error } = JSON.parse(out) as { readonly error: { readonly kind: string; readonly message: string } }
  assert.is(error.kind, 'usage')
  assert.ok(err.includes(error.message))
})

test('devices', async () => {
  const { auto, devices, wasm, versions, processors } = await json(['devices'])
  const list = devices as readonly { readonly name: string; readonly works: boolean; readonly about: string }[]
  assert.equal(
    list.map((d) => d.name),
    ['webgpu', 'wasm', 'reference'],
  )
  assert.ok(list.filter((d) => d.name !== 'webgpu').every((d) => d.works))
  assert.ok(list.some((d) => d.name === auto && d.works))
  assert.equal(Object.keys(wasm as object), ['simd', 'relaxedSimd', 'threads'])
  assert.ok((processors as number) >= 1)
  assert.ok('mixtrain' in (versions as object))
  const { code, out } = await mixtrain(['devices', '--device', 'reference'])
  assert.is(code, 0)
  assert.match(out, /reference\s+│ yes\s+│ this one/)
})

test.run()
