import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { bits, key } from '../../src/core/key.ts'
import { inFolder, json, main, runtime, start } from '../cli/run.ts'

const KILLS = 20
const EPOCHS = 30
const training = [
  ...['train', '--device', 'wasm', '--threads', '1', '--limit', '170,12', '--epsilon', '0.02', '--seed', '5'],
  ...['--epochs', `${EPOCHS}`, '--loss', 'ibp', '--batch-size', '20'],
]

test(
  `a run that is killed ${KILLS} times, at moments of no choice, ends with the bits of one that never was`,
  inFolder(async (folder) => {
    const [whole, broken] = [join(folder, 'whole'), join(folder, 'broken')]
    const begun = performance.now()
    await json([...training, '--output', whole])
    const length = performance.now() - begun
    const random = bits(key(7), KILLS)
    for (let i = 0; i < KILLS; i++) {
      const resumable = existsSync(join(broken, 'checkpoint.safetensors'))
      const run = start([
        ...runtime,
        main,
        ...(resumable ? ['train', '--resume', broken] : [...training, '--output', broken]),
      ])
      await Promise.race([run.ended, new Promise((resolve) => setTimeout(resolve, (random[i] / 2 ** 32) * length))])
      run.kill('SIGKILL')
      const { code, err } = await run.ended
      assert.ok(code === 'SIGKILL' || code === 0, err)
    }
    await json(['train', '--resume', broken])
    assert.equal(readdirSync(broken).sort(), readdirSync(whole).sort())
    const log = (run: string) =>
      readFileSync(join(run, 'log.jsonl'), 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => ({ ...JSON.parse(line), seconds: 0 }))
    assert.is(log(broken).length, EPOCHS)
    assert.equal(log(broken), log(whole))
    for (const name of ['model.safetensors', 'model.onnx'])
      assert.ok(readFileSync(join(whole, name)).equals(readFileSync(join(broken, name))), name)
  }),
)

test.run()
