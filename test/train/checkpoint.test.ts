import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { key } from '../../src/core/key.ts'
import { decode, encode } from '../../src/format/safetensors.ts'
import { conv, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { decodeCheckpoint, encodeCheckpoint, restore, type Settings } from '../../src/train/checkpoint.ts'
import type { Checkpoint, EpochRecord } from '../../src/train/fit.ts'
import { left, right } from '../shared.ts'

const net = network('tiny', sequential(conv(2, 3), relu, flatten, dense(3)), { input: [1, 4, 4], classes: 3 })
const settings: Settings = {
  mixtrain: '0.1.0',
  data: 'digits',
  dataSha256: '0123456789abcdef'.repeat(4),
  network: 'tiny',
  loss: 'mixtrain',
  epsilon: 0.1,
  epochs: 4,
  batchSize: 50,
  k: 2,
  balance: 'adaptive',
  lr: 1e-3,
  seed: -7,
  trainLimit: null,
  testLimit: 20,
  device: 'wasm',
  arithmetic: 'exact',
}
const record = (epoch: number): EpochRecord => ({
  epoch,
  seconds: 1.25,
  loss: 0.7,
  terms: { natural: 0.1 + 0.2, own: 2 },
  naturalLoss: 0.1 + 0.2,
  robustLoss: null,
  balance: 2 / 3,
  epsilon: 0.1,
  acc: 1 / 3,
  era: null,
  vra: 0,
})
const checkpoint: Checkpoint = {
  state: { parameters: net.init(key(1)), slots: { first: net.init(key(2)), second: net.init(key(3)) } },
  history: [record(0), record(1)],
}
const bytes = await encodeCheckpoint(net, checkpoint, settings)
const decoded = (b: Uint8Array) => decodeCheckpoint(b, 'c')()

test('what is encoded is decoded, to the bit, and encodes to the same bytes', async () => {
  const stored = right(await decoded(bytes))
  assert.equal(stored.settings, settings)
  const restored = right(restore(stored, net, ['first', 'second']))
  assert.equal(restored, checkpoint)
  assert.equal(await encodeCheckpoint(net, restored, stored.settings), bytes)
})

test('a history keeps only the fields of the log', async () => {
  const extended = { ...record(0), checkpoint } as EpochRecord
  const stored = right(await decoded(await encodeCheckpoint(net, { ...checkpoint, history: [extended] }, settings)))
  assert.equal(stored.history, [record(0)])
})

test('tensors of another network or optimizer are refused', async () => {
  const stored = right(await decoded(bytes))
  assert.match(left(restore(stored, net, ['first'])), /tensor "slot.second.0.bias" is not expected/)
  assert.match(left(restore(stored, net, ['first', 'second', 'third'])), /"slot.third.0.bias" \[2\] is missing/)
  const other = network('tiny', sequential(conv(3, 3), relu, flatten, dense(3)), { input: [1, 4, 4], classes: 3 })
  assert.match(
    left(restore(stored, other, ['first', 'second'])),
    /"parameter.0.bias": expected shape \[3\], found \[2\]/,
  )
})

const { tensors, metadata } = right(decode(bytes, 'c'))

/** The file with other metadata, and its own hash of them, as the format has it: taken with zeros in its place. */
const withMetadata = async (change: Readonly<Record<string, string | undefined>>) => {
  const changed = (sha256: string) =>
    encode(
      tensors,
      Object.fromEntries(
        Object.entries({ ...metadata, sha256, ...change }).filter((e): e is [string, string] => e[1] !== undefined),
      ),
    )
  const hash = createHash('sha256')
    .update(changed('0'.repeat(64)))
    .digest('hex')
  return decoded(changed(hash))
}

test('metadata that are missing or wrong are errors that say where', async () => {
  const history = (change: object) => JSON.stringify([{ ...record(0), ...change }])
  const cases: readonly (readonly [Readonly<Record<string, string | undefined>>, RegExp])[] = [
    [{ format: 'mixtrain' }, /not a checkpoint/],
    [{ format: undefined }, /not a checkpoint/],
    [{ version: '1' }, /expected version 2, found "1"/],
    [{ settings: undefined }, /settings is missing/],
    [{ settings: '{' }, /expected JSON in settings/],
    [{ settings: JSON.stringify({ ...settings, epsilon: 2 }) }, /settings\.epsilon/],
    [{ settings: JSON.stringify({ ...settings, more: 1 }) }, /more/],
    [{ settings: JSON.stringify({ ...settings, dataSha256: 'no' }) }, /settings\.dataSha256/],
    [{ settings: `${JSON.stringify(settings).slice(0, -1)},"__proto__":{}}` }, /__proto__/],
    [{ history: '7' }, /history: /],
    [{ history: history({ epoch: 1 }) }, /expected the epochs 0, 1, 2/],
    [{ history: history({ acc: 1.5 }) }, /history\.0\.acc/],
    [{ history: history({ vra: null }) }, /history\.0\.vra/],
    [{ history: history({ more: 0 }) }, /history\.0/],
  ]
  for (const [change, says] of cases) {
    const message = left(await withMetadata(change))
    assert.match(message, says)
    assert.match(message, /^c \(metadata\): /)
  }
})

test('a file of which any bit, byte or length is not as it was written is refused', async () => {
  const changed = fc.oneof(
    fc
      .tuple(fc.nat(bytes.length - 1), fc.nat(7))
      .map(([at, bit]) => bytes.map((b, i) => (i === at ? b ^ (1 << bit) : b))),
    fc.nat(bytes.length - 1).map((length) => bytes.subarray(0, length)),
    fc.uint8Array({ minLength: 1, maxLength: 9 }).map((more) => Uint8Array.from([...bytes, ...more])),
  )
  await fc.assert(
    fc.asyncProperty(changed, async (damaged) => {
      left(await decoded(damaged))
    }),
    { numRuns: 1000, seed: 1 },
  )
  // Edits that leave everything else as it was, of each kind that a person would make.
  // One character a byte: what TextDecoder calls latin1 is windows-1252.
  const text = Buffer.from(bytes).toString('latin1')
  const edited = (from: string, to: string) => {
    assert.ok(text.includes(from), from)
    return Uint8Array.from(text.replace(from, to), (c) => c.charCodeAt(0))
  }
  const { sha256 } = metadata
  const nan = Uint8Array.from(bytes)
  nan.set(new Uint8Array(Float32Array.of(Number.NaN).buffer), nan.length - 4)
  for (const damaged of [
    edited('\\"epsilon\\":0.1', '\\"epsilon\\":0.2'),
    edited('\\"seed\\":-7', '\\"seed\\":-6'),
    edited(
      sha256,
      sha256.replace(/^./, (c) => (c === '0' ? '1' : '0')),
    ),
    edited(`"sha256":"${sha256}"`, `"sha256":"${sha256.slice(0, -1)}"`.padEnd(sha256.length + 11)),
    nan,
  ])
    assert.match(left(await decoded(damaged)), /^c \(sha256\): the checkpoint was changed since it was written/)
})

test('weights that are no numbers are refused, and so is what the optimizer keeps, sealed as they may be', async () => {
  const { parameters, slots } = checkpoint.state
  const spoilt = <A extends Readonly<Record<string, Float32Array>>>(values: A, bad: number) =>
    Object.fromEntries(Object.entries(values).map(([k, v]) => [k, Float32Array.from(v, (x, i) => (i === 1 ? bad : x))]))
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY])
    for (const [place, state] of [
      ['parameter', { parameters: spoilt(parameters, bad), slots }],
      // An infinite second moment stops Adam without a word.
      ['slot\\.second', { parameters, slots: { ...slots, second: spoilt(slots.second, bad) } }],
    ] as const) {
      const stored = right(await decoded(await encodeCheckpoint(net, { ...checkpoint, state }, settings)))
      assert.match(
        left(restore(stored, net, ['first', 'second'])),
        new RegExp(`^c \\(${place}\\.0\\.\\w+\\): it holds NaN or infinity`),
      )
    }
})

test.run()
