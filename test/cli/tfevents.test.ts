import { BinaryReader, WireType } from '@bufbuild/protobuf/wire'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { momentsOf } from '../../src/cli/report-command.ts'
import { crc32c, tfevents } from '../../src/cli/tfevents.ts'
import type { EpochRecord } from '../../src/train/fit.ts'

/** Bit by bit, as RFC 3720 defines it. */
const slowly = (bytes: Uint8Array): number => {
  let c = 0xffffffff
  for (const byte of bytes) {
    c ^= byte
    for (let i = 0; i < 8; i++) c = (c >>> 1) ^ (c & 1 ? 0x82f63b78 : 0)
  }
  return ~c >>> 0
}
const unmasked = (stored: number): number => {
  const c = (stored - 0xa282ead8) >>> 0
  return ((c >>> 17) | (c << 15)) >>> 0
}

type Field = string | number | Uint8Array
/** The fields of a message, by number. */
const fieldsOf = (bytes: Uint8Array, doubles: readonly number[] = []): ReadonlyMap<number, readonly Field[]> => {
  const reader = new BinaryReader(bytes)
  const fields = new Map<number, readonly Field[]>()
  while (reader.pos < reader.len) {
    const [no, wire] = reader.tag()
    const read = (): Field => {
      if (wire === WireType.Bit64) return doubles.includes(no) ? reader.double() : Number(reader.fixed64())
      if (wire === WireType.Bit32) return reader.float()
      return wire === WireType.Varint ? Number(reader.int64()) : reader.bytes()
    }
    fields.set(no, [...(fields.get(no) ?? []), read()])
  }
  return fields
}
/** The records of a TFRecord file, whose checksums are those of their bytes. */
const recordsOf = (file: Uint8Array): readonly Uint8Array[] => {
  const view = new DataView(file.buffer, file.byteOffset)
  const records: Uint8Array[] = []
  for (let at = 0; at < file.length; ) {
    const length = Number(view.getBigUint64(at, true))
    const bytes = file.subarray(at + 12, at + 12 + length)
    assert.is(unmasked(view.getUint32(at + 8, true)), slowly(file.subarray(at, at + 8)))
    assert.is(unmasked(view.getUint32(at + 12 + length, true)), slowly(bytes))
    records.push(bytes)
    at += 16 + length
  }
  return records
}
const text = (bytes: Field) => new TextDecoder().decode(bytes as Uint8Array)

test('the checksum gives the values of RFC 3720', () => {
  assert.is(crc32c(new TextEncoder().encode('123456789')), 0xe3069283)
  assert.is(crc32c(new Uint8Array(32)), 0x8a9136aa)
  assert.is(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43)
  assert.is(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e)
})

const record: EpochRecord = {
  ...{ epoch: 0, seconds: 4, loss: 0.5, terms: { robust: 2.25 }, naturalLoss: null, robustLoss: 2.25 },
  ...{ balance: 0.5, epsilon: 0.1, acc: 0.75, era: null, vra: 0.25 },
}

test('an event file says its version, then every number of every epoch; what was not measured is not in it', () => {
  const history = [record, { ...record, epoch: 1, seconds: 6, vra: 0.375, era: 0.5 }]
  const moments = momentsOf({ history, final: { acc: 0.875, era: null, vra: 0.5, method: 'ibp' } as never }, 1000)
  const [version, ...events] = recordsOf(tfevents(moments)).map((bytes) => fieldsOf(bytes, [1]))
  assert.is(text((version.get(3) as readonly Field[])[0]), 'brain.Event:2')
  const read = events.map((event) => ({
    time: event.get(1),
    step: event.get(2),
    scalars: Object.fromEntries(
      (fieldsOf((event.get(5) as readonly Uint8Array[])[0]).get(1) as readonly Uint8Array[]).map((value) => {
        const fields = fieldsOf(value)
        return [text((fields.get(1) as readonly Field[])[0]), (fields.get(2) as readonly Field[])[0]]
      }),
    ),
  }))
  const common = { 'loss/whole': 0.5, 'loss/robust': 2.25, 'schedule/balance': 0.5 }
  const epsilon = Math.fround(0.1)
  assert.equal(read, [
    {
      ...{ time: [994], step: [1] },
      scalars: { 'held-out/ACC': 0.75, 'held-out/VRA': 0.25, ...common, 'schedule/epsilon': epsilon },
    },
    {
      ...{ time: [1000], step: [2] },
      scalars: {
        ...{ 'held-out/ACC': 0.75, 'held-out/ERA': 0.5, 'held-out/VRA': 0.375 },
        ...common,
        ...{ 'schedule/epsilon': epsilon, 'test/ACC': 0.875, 'test/VRA': 0.5 },
      },
    },
  ])
})

test('a run without an epoch is a file without events', () => {
  assert.is(recordsOf(tfevents(momentsOf({ history: [], final: null }, 1000))).length, 1)
})

test.run()
