import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decode } from '../../src/format/safetensors.ts'
import { right } from '../shared.ts'
import { inFolder, json, mixtrain, refused } from './run.ts'

const small = ['--device', 'wasm', '--threads', '1', '--limit', '120,10', '--epsilon', '0.02']
const logOf = (folder: string) =>
  readFileSync(join(folder, 'log.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { readonly epoch: number; readonly loss: number })
const weights = (folder: string) => {
  const { tensors } = right(decode(readFileSync(join(folder, 'model.safetensors')), 'model.safetensors'))
  return [...tensors].map(([name, { data }]) => [name, [...data]] as const)
}

test(
  'a finished run gets more epochs, and its settings say that it had fewer',
  inFolder(async (folder) => {
    const [short, long] = [join(folder, 'short'), join(folder, 'long')]
    await json(['train', ...small, '--epochs', '1', '--output', short])
    const first = logOf(short)
    const { settings } = await json(['train', '--resume', short, '--epochs', '2'])
    const { epochs, extended } = settings as { epochs: number; extended: unknown }
    assert.equal([epochs, extended], [2, [{ epochs: 1, done: 1 }]])
    assert.equal(
      logOf(short).map(({ epoch }) => epoch),
      [0, 1],
    )
    assert.is(logOf(short)[0].loss, first[0].loss)
    // Its first epoch had the schedule of a run of one: it is not the run of two from the start, and does not say so.
    await json(['train', ...small, '--epochs', '2', '--output', long])
    assert.not.equal(weights(short), weights(long))
    await refused(['train', '--resume', short, '--epochs', '1'], 2, 'epochs: it has 2, asked for is 1')
    // Weights that overflow: no epoch of theirs is kept, and none is reported as a result.
    const lost = join(folder, 'lost')
    await refused(['train', ...small, '--epochs', '1', '--lr', '1e38', '--output', lost], 2, 'diverged in epoch 1 of 1')
    assert.not(existsSync(lost))
  }),
)

test(
  'a run begins with a trained model, of its own format or ONNX, and goes on with the same one only',
  inFolder(async (folder) => {
    const [first, still, onnx] = ['first', 'still', 'onnx'].map((name) => join(folder, name))
    await json(['train', ...small, '--epochs', '1', '--output', first])
    const model = join(first, 'model.safetensors')
    // A step of next to nothing leaves the weights where they were: those of the model, not of the seed.
    const tiny = ['--epochs', '1', '--lr', '1e-12', '--l1', '0']
    await json(['train', ...small, ...tiny, '--init', model, '--output', still])
    const [before, after] = [weights(first), weights(still)]
    const moved = after.flatMap(([, values], i) => values.map((v, j) => Math.abs(v - before[i][1][j])))
    assert.ok(moved.every((v) => v < 1e-6))
    await refused(['train', ...small, '--init', model, '--network', 'large'], 2, '--init has a network, small')
    await refused(['train', '--resume', first, '--init', model], 2, 'the run began at random')

    const network = join(folder, 'model.onnx')
    writeFileSync(network, readFileSync(join(first, 'model.onnx')))
    const { code, err } = await mixtrain(['train', ...small, '--epochs', '1', '--init', network, '--output', onnx])
    assert.is(code, 0, err)
    assert.match(err, /There is no model\.safetensors: the network comes from ONNX/)
    assert.ok(existsSync(join(onnx, 'model.onnx')) && !existsSync(join(onnx, 'model.safetensors')))
    const { settings } = await json(['train', '--resume', onnx, '--epochs', '2'])
    assert.is((settings as { network: string }).network, 'onnx')
    writeFileSync(network, readFileSync(join(still, 'model.onnx')))
    await refused(['train', '--resume', onnx, '--epochs', '3'], 1, 'not the model that was the beginning of the run')
  }),
)

test(
  'options come from a JSON file; the command line wins, and what is no option is refused by name',
  inFolder(async (folder) => {
    const file = join(folder, 'settings.json')
    const output = join(folder, 'run')
    writeFileSync(
      file,
      JSON.stringify({ limit: [120, 10], 'batch-size': 40, epochs: 3, epsilon: '2/255', swa: true, device: 'wasm' }),
    )
    const { settings } = await json(['train', '--config', file, '--epochs', '1', '--output', output])
    const { epochs, batchSize, epsilon, swa, trainLimit } = settings as Record<string, unknown>
    assert.equal([epochs, batchSize, epsilon, swa, trainLimit], [1, 40, 2 / 255, true, 120])
    writeFileSync(file, JSON.stringify({ epoch: 1, epochs: { a: 1 }, swa: 'yes' }))
    await refused(
      ['train', '--config', file],
      1,
      `${file}: there is no option "epoch"; the nearest is epochs`,
      'epochs: expected a text, a number or a list of these',
      'swa: expected true or false',
    )
    writeFileSync(file, '{"epochs": "many"}')
    await refused(['train', '--config', file], 2, '--epochs: expected a whole number from 1')
    writeFileSync(file, 'epochs: 3')
    await refused(['train', '--config', file], 1, 'expected JSON')
    writeFileSync(file, '[]')
    await refused(['train', '--config', file], 1, 'expected a JSON object')
  }),
)

test.run()
