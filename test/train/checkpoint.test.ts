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
const bytes = encodeCheckpoint(net, checkpoint, settings)

test('what is encoded is decoded, to the bit, and encodes to the same bytes', () => {
  const stored = right(decodeCheckpoint(bytes, 'c'))
  assert.equal(stored.settings, settings)
  const restored = right(restore(stored, net, ['first', 'second']))
  assert.equal(restored, checkpoint)
  assert.equal(encodeCheckpoint(net, restored, stored.settings), bytes)
})

test('a history keeps only the fields of the log', () => {
  const extended = { ...record(0), checkpoint } as EpochRecord
  const stored = right(decodeCheckpoint(encodeCheckpoint(net, { ...checkpoint, history: [extended] }, settings), 'c'))
  assert.equal(stored.history, [record(0)])
})

test('tensors of another network or optimizer are refused', () => {
  const stored = right(decodeCheckpoint(bytes, 'c'))
  assert.match(left(restore(stored, net, ['first'])), /tensor "slot.second.0.bias" is not expected/)
  assert.match(left(restore(stored, net, ['first', 'second', 'third'])), /"slot.third.0.bias" \[2\] is missing/)
  const other = network('tiny', sequential(conv(3, 3), relu, flatten, dense(3)), { input: [1, 4, 4], classes: 3 })
  assert.match(
    left(restore(stored, other, ['first', 'second'])),
    /"parameter.0.bias": expected shape \[3\], found \[2\]/,
  )
})

const { tensors, metadata } = right(decode(bytes, 'c'))
const withMetadata = (change: Readonly<Record<string, string | undefined>>) =>
  decodeCheckpoint(
    encode(
      tensors,
      Object.fromEntries(
        Object.entries({ ...metadata, ...change }).filter((e): e is [string, string] => e[1] !== undefined),
      ),
    ),
    'c',
  )

test('metadata that are missing or wrong are errors that say where', () => {
  const history = (change: object) => JSON.stringify([{ ...record(0), ...change }])
  const cases: readonly (readonly [Readonly<Record<string, string | undefined>>, RegExp])[] = [
    [{ format: 'mixtrain' }, /not a checkpoint/],
    [{ format: undefined }, /not a checkpoint/],
    [{ version: '2' }, /expected version 1, found "2"/],
    [{ settings: undefined }, /settings is missing/],
    [{ settings: '{' }, /expected JSON in settings/],
    [{ settings: JSON.stringify({ ...settings, epsilon: 2 }) }, /settings\.epsilon/],
    [{ settings: JSON.stringify({ ...settings, more: 1 }) }, /more/],
    [{ settings: `${JSON.stringify(settings).slice(0, -1)},"__proto__":{}}` }, /__proto__/],
    [{ history: '7' }, /history: /],
    [{ history: history({ epoch: 1 }) }, /expected the epochs 0, 1, 2/],
    [{ history: history({ acc: 1.5 }) }, /history\.0\.acc/],
    [{ history: history({ vra: null }) }, /history\.0\.vra/],
    [{ history: history({ more: 0 }) }, /history\.0/],
  ]
  for (const [change, says] of cases) {
    const message = left(withMetadata(change))
    assert.match(message, says)
    assert.match(message, /^c \(metadata\): /)
  }
})

test('damaged bytes are an error or a checkpoint, never an exception', () => {
  fc.assert(
    fc.property(
      fc.nat(bytes.length - 1),
      fc.integer({ min: 1, max: 255 }),
      fc.nat(bytes.length),
      (at, flip, length) => {
        const damaged = Uint8Array.from(bytes)
        damaged[at] ^= flip
        for (const b of [damaged, bytes.subarray(0, length)]) {
          const decoded = decodeCheckpoint(b, 'c')
          if (decoded._tag === 'Right') restore(decoded.right, net, ['first', 'second'])
        }
      },
    ),
    { numRuns: 300 },
  )
})

test.run()
