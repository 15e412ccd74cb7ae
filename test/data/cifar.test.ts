import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decodeCifar } from '../../src/data/cifar.ts'
import { left, right } from '../shared.ts'

/** A record: the label, then byte j of its pixels is `pixel(j)`. */
const record = (label: number, pixel: (j: number) => number): Uint8Array =>
  Uint8Array.of(label, ...Uint8Array.from({ length: 3072 }, (_, j) => pixel(j)))
const file = (...records: readonly Uint8Array[]): Uint8Array => Uint8Array.from(records.flatMap((r) => [...r]))

test('records become labels and planes, batch after batch', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(fc.nat(9), { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 3 }),
      (labels) => {
        const batches = labels.map((batch, b) => ({
          path: `batch ${b}`,
          bytes: file(...batch.map((label, i) => record(label, (j) => (7 * b + 31 * i + j) % 256))),
        }))
        const d = right(decodeCifar(batches))
        assert.equal([...d.labels], labels.flat())
        assert.equal([d.name, d.shape, d.classes, d.count], ['cifar-10', [3, 32, 32], 10, labels.flat().length])
        let image = 0
        labels.forEach((batch, b) => {
          batch.forEach((_, i) => {
            for (const j of [0, 1023, 1024, 3071]) assert.is(d.inputs[3072 * image + j], (7 * b + 31 * i + j) % 256)
            image++
          })
        })
      },
    ),
    { numRuns: 20 },
  )
})

test('files that are not whole records, and labels above 9, are refused with their place', () => {
  const whole = file(
    record(1, () => 0),
    record(2, () => 0),
  )
  const decoded = (bytes: Uint8Array) => decodeCifar([{ path: 'data/x.bin', bytes }])
  assert.is(
    left(decoded(whole.subarray(0, 6145))),
    'data/x.bin (byte 3073): expected records of 3073 bytes (label, then planes of red, green and blue), found 6145 bytes: 1 records and 3072 bytes more',
  )
  assert.match(left(decoded(new Uint8Array())), /found 0 bytes/)
  whole[3073] = 10
  assert.is(left(decoded(whole)), 'data/x.bin (byte 3073): expected a label from 0 to 9, found 10 (image 1)')
})

test.run()
