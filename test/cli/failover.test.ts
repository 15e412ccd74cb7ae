import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openGpu } from '../../src/backend/webgpu/adapter.ts'
import { show } from '../../src/core/error.ts'
import { root, skipped } from '../shared.ts'
import { type Ended, inFolder, json, main, runtime, start } from './run.ts'

/**
 * The command line on a GPU that goes away: a software adapter under another name, whose device is destroyed when it gets its fifth shader.
 * (A software adapter takes half a minute to compile all shaders of the small network: test/train/failover.test.ts is about later failures.)
 */
const STUB = `
const { create } = await import(${JSON.stringify(pathToFileURL(join(root, 'node_modules/webgpu/index.js')).href)})
const gpu = create([])
const requestAdapter = async (options) => {
  const adapter = await gpu.requestAdapter(options)
  const requestDevice = async (descriptor) => {
    const device = await adapter.requestDevice(descriptor)
    const create = device.createShaderModule.bind(device)
    let shaders = 0
    const createShaderModule = (of) => {
      if (++shaders === 5) device.destroy()
      return create(of)
    }
    Object.defineProperty(device, 'createShaderModule', { value: createShaderModule })
    return device
  }
  return { info: { description: 'a GPU of this test' }, limits: adapter.limits, requestDevice }
}
Object.defineProperty(globalThis, 'navigator', { value: { gpu: { requestAdapter } }, configurable: true })
`

const few = [
  '--limit',
  '40,3',
  '--epochs',
  '2',
  '--loss',
  'ibp',
  '--epsilon',
  '0.02',
  '--batch-size',
  '6',
  '--seed',
  '3',
]
const probe = await openGpu('any')
if (E.isLeft(probe)) skipped('a GPU lost under the command line', show(probe.left))
else if (!existsSync(join(root, 'node_modules/webgpu/index.js')))
  skipped('a GPU lost under the command line', 'the package webgpu is absent')
else {
  probe.right.device.destroy()

  const onStub = (folder: string, args: readonly string[]): Promise<Ended> => {
    const preload = join(folder, 'stub.mjs')
    writeFileSync(preload, STUB)
    return start([...runtime, '--import', pathToFileURL(preload).href, main, ...args]).ended
  }
  const reportIn = (run: string) =>
    JSON.parse(readFileSync(join(run, 'report.json'), 'utf8')) as {
      readonly device: string
      readonly settings: { readonly device: string; readonly moved: readonly Record<string, unknown>[] }
    }

  test(
    'on auto a run goes on on WASM, says so once, and its report says so too',
    inFolder(async (folder) => {
      const run = join(folder, 'run')
      const { code, out, err } = await onStub(folder, ['train', ...few, '--threads', '1', '--output', run])
      assert.is(code, 0, err)
      assert.match(err, /device webgpu: .*\nTraining goes on after these 0 steps on WebAssembly SIMD, 1 thread\./)
      assert.is(err.split('Training goes on').length, 2)
      assert.match(out, /webgpu failed after 0 steps/)
      const { device, settings } = reportIn(run)
      assert.is(device, 'wasm')
      assert.is(settings.device, 'wasm')
      assert.is(settings.moved.length, 1)
      assert.is(settings.moved[0].device, 'webgpu')
      assert.match(String(settings.moved[0].reason), 'device webgpu')
      const known = join(folder, 'known')
      await json(['train', ...few, '--device', 'wasm', '--output', known])
      assert.is(settings.moved[0].steps, 0)
      for (const name of ['model.safetensors', 'model.onnx'])
        assert.ok(readFileSync(join(run, name)).equals(readFileSync(join(known, name))), name)
    }),
  )

  test(
    'by name a run stops with a checkpoint, which goes on on another device',
    inFolder(async (folder) => {
      const run = join(folder, 'run')
      const { code, out, err } = await onStub(folder, ['train', ...few, '--device', 'webgpu', '--output', run])
      assert.is(code, 1, err)
      assert.is(out, '')
      assert.match(err, /Stopped after 0 of 2 epochs.*; go on with: mixtrain train --resume .*run, with --device wasm/)
      assert.match(err, /mixtrain: device webgpu: /)
      const report = await json(['train', '--resume', run, '--device', 'wasm'])
      assert.is(report.device, 'wasm')
      const { moved } = reportIn(run).settings
      assert.equal(
        moved.map((m) => m.device),
        ['webgpu'],
      )
    }),
  )
}

test.run()
