import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { key } from '../../src/core/key.ts'
import { encodeModel } from '../../src/format/model.ts'
import { networks } from '../../src/nn/networks.ts'
import { root, skipped } from '../shared.ts'
import { inFolder, main, runtime, start } from './run.ts'

const quick = ['--limit', '60,5', '--epochs', '1', '--batch-size', '20', '--loss', 'natural', '--threads', '1']
const training = ['train', '--device', 'wasm', ...quick]

/** Runs a line of the shell in which `"$@"` is `mixtrain ARGS`. */
const sh = (line: string, args: readonly string[], env: Readonly<Record<string, string>> = {}) =>
  spawnSync('sh', ['-c', line, 'sh', ...runtime, main, ...args], { encoding: 'utf8', env: { ...process.env, ...env } })

test(
  'a full disk on standard output is a message and a failure, of every command',
  inFolder(async (folder) => {
    if (!existsSync('/dev/full')) return skipped('a full disk on standard output', 'there is no /dev/full')
    const model = join(folder, 'model.safetensors')
    const network = networks.small({ input: [1, 28, 28], classes: 10 })
    writeFileSync(model, encodeModel({ network, parameters: network.init(key(0)), provenance: undefined }))
    const wasm = ['--device', 'wasm', '--threads', '1']
    const certificate = join(folder, 'c.json')
    const evaluation = ['evaluate', model, '--epsilon', '0.001', '--method', 'ibp', '--limit', '2', ...wasm]
    for (const args of [
      ['--version'],
      ['--help'],
      ['verify', '--help'],
      ['devices', '--json'],
      [...evaluation, '--certificate', certificate],
      [...evaluation, '--json'],
      ['check', certificate],
      ['bounds', model, '--index', '0', '--epsilon', '0.01', '--method', 'ibp', ...wasm],
      ['evaluate', join(folder, 'absent'), '--epsilon', '0.1', '--json'],
      [...training, '--output', join(folder, 'run')],
    ]) {
      const { status, stderr } = sh('"$@" > /dev/full', args)
      assert.is(status, 1, args.join(' '))
      assert.match(stderr, /mixtrain: standard output: no space left on the disk\n$/, args.join(' '))
      assert.not.match(stderr, /\n\s+at |defect/)
    }
    // What was kept before is whole, and the folder is free.
    assert.equal(readdirSync(join(folder, 'run')), ['checkpoint.safetensors', 'log.jsonl'])
    const deno = join(root, 'node_modules/@deno/linux-x64-glibc/deno')
    if (existsSync(deno)) {
      const foreign = [deno, 'run', '-A', '--node-modules-dir=manual', main, '--help']
      const full = spawnSync('sh', ['-c', '"$@" > /dev/full', 'sh', ...foreign], { encoding: 'utf8', cwd: root })
      assert.equal([full.status, full.stderr], [1, 'mixtrain: standard output: no space left on the disk\n'])
    } else skipped('the same in Deno', 'the package @deno/linux-x64-glibc is absent')
    // Progress that nobody can read is no failure.
    const { status, stdout } = sh('"$@" 2> /dev/full', [...evaluation, '--certificate', certificate, '--json'])
    assert.is(status, 0)
    assert.is(JSON.parse(stdout).count, 2)
  }),
)

test('a reader that goes away is no failure and no message', async () => {
  const child = spawn(runtime[0], [...runtime.slice(1), main, '--help'], { stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.destroy()
  let err = ''
  child.stderr.setEncoding('utf8').on('data', (part: string) => {
    err += part
  })
  const code = await new Promise((resolve) => child.on('close', resolve))
  assert.equal([code, err], [0, ''])
})

test(
  'a disk that refuses is told by what it refuses: read-only, full, no permission, a name too long, a file for a folder',
  inFolder(async (folder) => {
    const refused = (err: string, says: string) => {
      assert.ok(err.includes(says), err)
      assert.not.match(err, /\n\s+at |defect/)
    }
    for (const [output, says] of [
      [join(folder, 'n'.repeat(300)), 'the name is too long'],
      ['/dev/null/x', '/dev/null/x: expected a folder, found a file'],
    ])
      refused((await start([...runtime, main, ...training, '--output', output]).ended).err, says)
    if (existsSync('/proc/self')) {
      // Node's own way to make a folder and those above it never ends here.
      const { code, err } = await start([...runtime, main, ...training, '--output', '/proc/mixtrain/run']).ended
      assert.is(code, 1)
      refused(err, '/proc/mixtrain')
    }
    // A disk of one's own, in a name space of one's own.
    const mounted = (options: string, args: readonly string[]) =>
      spawnSync(
        'unshare',
        [
          ...['-rm', 'sh', '-c', `mount -t tmpfs -o ${options} none "$1" && shift && exec "$@"`, 'sh', folder],
          ...[...runtime, main, ...args],
        ],
        { encoding: 'utf8' },
      )
    if (spawnSync('unshare', ['-rm', 'mount', '-t', 'tmpfs', 'none', folder]).status !== 0)
      return skipped('a read-only and a full disk', 'this user may not mount one')
    const at = (name: string) => join(folder, name)
    for (const output of [at('run'), at('a/b/run')]) {
      const { status, stderr } = mounted('ro', [...training, '--output', output])
      assert.is(status, 1)
      refused(stderr, `${output}: the file system is read-only`)
    }
    refused(mounted('ro', ['data', 'mnist', at('mnist')]).stderr, `${at('mnist')}: the file system is read-only`)
    refused(mounted('size=200k', [...training, '--output', at('run')]).stderr, 'no space left on the disk')
    refused(mounted('mode=000,uid=0', ['train', '--resume', at('run')]).stderr, at('run'))
  }),
)

test(
  'on a machine without Vulkan, or with drivers that do not do, nothing native reaches the screen',
  inFolder(async (folder) => {
    if (process.platform !== 'linux') return skipped('native warnings', 'drivers are named by files on Linux only')
    for (const [i, drivers] of [join(folder, 'absent.json'), join(folder, 'broken.json')].entries()) {
      if (i === 1) writeFileSync(drivers, JSON.stringify({ file_format_version: '1.0.0', ICD: { library_path: main } }))
      const env = { VK_ICD_FILENAMES: drivers, VK_DRIVER_FILES: drivers }
      const run = sh('"$@"', ['train', ...quick, '--output', join(folder, `run${i}`)], env)
      assert.equal([run.status, run.stderr], [0, ''])
      const asked = sh('"$@"', ['devices', '--device', 'webgpu'], env)
      assert.equal([asked.status, asked.stderr], [0, ''])
      const named = sh('"$@"', ['train', ...quick, '--device', 'webgpu'], env)
      assert.is(named.status, 1)
      assert.match(named.stderr, /^mixtrain: device webgpu: [^\n]*\n$/)
    }
  }),
)

test('a driver that looks for a session where there is none says nothing on the screen', () => {
  if (process.platform !== 'linux') return skipped('a session of Wayland', 'drivers look for one on Linux only')
  for (const XDG_RUNTIME_DIR of ['', 'nowhere']) {
    const { status, stderr } = sh('"$@"', ['devices', '--device', 'webgpu'], { XDG_RUNTIME_DIR })
    assert.equal([status, stderr], [0, ''])
  }
})

test('a pipe that does not end is the end of the time limit; one that ends is read', async () => {
  if (process.platform === 'win32' || 'Deno' in globalThis || 'Bun' in globalThis)
    return skipped('pipes without an end', 'Node alone reads pipes without a thread that waits')
  const piped = (writes: string, args: readonly string[]) =>
    start(['bash', '-c', `"$@" <(${writes} 2>/dev/null)`, 'bash', ...runtime, main, 'verify', ...args]).ended
  const late = await piped('sleep 9', ['absent.onnx', '--timeout', '1'])
  assert.equal([late.code, late.out], [0, 'timeout\n'])
  assert.match(late.err, /^\/dev\/fd\/\d+: it did not end in time\n$/)
  const json = await piped('head -c 9 /dev/zero; sleep 9', ['absent.onnx', '--timeout', '1', '--json'])
  assert.is(JSON.parse(json.out).verdict, 'timeout')
  const standard = await piped('sleep 9', ['--network', 'f=absent.onnx', '--timeout', '1'])
  assert.is(standard.out, 'timed-out\n')
  const whole = await piped('echo nothing', ['absent.onnx', '--timeout', '300'])
  assert.is(whole.code, 1)
  assert.match(whole.err, /\/dev\/fd\/\d+ \(line 1.*expected/)
})

test.run()
