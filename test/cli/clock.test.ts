import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { setTimeout as pause } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { inFolder, logged, main, runtime, start } from './run.ts'

const training = (output: string) => [
  ...['train', '--device', 'wasm', '--threads', '2', '--loss', 'natural', '--limit', '60,5', '--batch-size', '20'],
  ...['--epochs', '3', '--output', output],
]

const seconds = (run: string): readonly number[] =>
  readFileSync(join(run, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => (JSON.parse(line) as { seconds: number }).seconds)

test(
  'a clock that is set while a run computes, and a process that is stopped: the same bits, and times that passed',
  inFolder(async (folder) => {
    const [plain, jumping, stopped] = ['plain', 'jumping', 'stopped'].map((name) => join(folder, name))
    // Each look at the clock finds it set by a week, to and fro.
    const wrapper = join(folder, 'clock.mjs')
    writeFileSync(
      wrapper,
      `const now = Date.now
let looks = 0
Date.now = () => now() + (looks++ % 2 ? -1 : 1) * 6048e5
const Real = Date
globalThis.Date = class extends Real { constructor(...a) { super(...(a.length ? a : [Real.now()])) } }
await import(${JSON.stringify(pathToFileURL(main).href)})
`,
    )
    const sleeping = start([...runtime, main, ...training(stopped)])
    await logged(stopped, 1, sleeping)
    process.kill(sleeping.pid, 'SIGSTOP')
    const [a, b] = await Promise.all([
      start([...runtime, main, ...training(plain)]).ended,
      start([...runtime, wrapper, ...training(jumping)]).ended,
    ])
    await pause(100)
    process.kill(sleeping.pid, 'SIGCONT')
    const c = await sleeping.ended
    for (const { code, err } of [a, b, c]) assert.is(code, 0, err)
    for (const run of [jumping, stopped]) {
      assert.equal(readFileSync(join(run, 'model.safetensors')), readFileSync(join(plain, 'model.safetensors')))
      const times = seconds(run)
      assert.is(times.length, 3)
      assert.ok(
        times.every((s) => s > 0 && s < 3e5),
        `${times}`,
      )
    }
  }),
)

test.run()
