import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire'

/** Numbers that belong to one moment of a run, as TensorBoard shows them: by name, names with a common part before `/` in one group. */
export interface Moment {
  /** Where on the axis: epochs that are done. */
  readonly step: number
  /** Seconds since 1970. */
  readonly time: number
  /** A number that was not measured is left out. */
  readonly scalars: Readonly<Record<string, number | null>>
}

/** CRC32C (Castagnoli), reflected: the polynomial 0x1edc6f41 with its bits in reverse. */
const POLYNOMIAL = 0x82f63b78
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let c = byte
  for (let bit = 0; bit < 8; bit++) c = (c & 1) === 1 ? (c >>> 1) ^ POLYNOMIAL : c >>> 1
  return c
})

/** The checksum of iSCSI (RFC 3720, B.4), which TFRecord has too. */
export const crc32c = (bytes: Uint8Array): number => {
  let c = 0xffffffff
  for (const byte of bytes) c = TABLE[(c ^ byte) & 0xff] ^ (c >>> 8)
  return (c ^ 0xffffffff) >>> 0
}

/** A checksum of bytes that have checksums in them is weak: TFRecord turns its own by 15 bits and adds a constant. */
const masked = (bytes: Uint8Array): number => {
  const c = crc32c(bytes)
  return (((c >>> 15) | (c << 17)) + 0xa282ead8) >>> 0
}

/** A record of a TFRecord file: length (8 bytes), its checksum, the bytes, theirs; all of it little-endian. */
const framed = (bytes: Uint8Array): Uint8Array => {
  const frame = new Uint8Array(16 + bytes.length)
  const view = new DataView(frame.buffer)
  view.setBigUint64(0, BigInt(bytes.length), true)
  view.setUint32(8, masked(frame.subarray(0, 8)), true)
  frame.set(bytes, 12)
  view.setUint32(12 + bytes.length, masked(bytes), true)
  return frame
}

/** Fields of event.proto and summary.proto of TensorFlow. */
const EVENT = { time: 1, step: 2, version: 3, summary: 5 }
const SUMMARY = { value: 1 }
const VALUE = { tag: 1, simple: 2 }

const eventOf = ({ time, step, scalars }: Moment): Uint8Array => {
  const w = new BinaryWriter().tag(EVENT.time, WireType.Bit64).double(time).tag(EVENT.step, WireType.Varint).int64(step)
  w.tag(EVENT.summary, WireType.LengthDelimited).fork()
  for (const [tag, value] of Object.entries(scalars)) {
    if (value === null) continue
    w.tag(SUMMARY.value, WireType.LengthDelimited).fork()
    w.tag(VALUE.tag, WireType.LengthDelimited).string(tag).tag(VALUE.simple, WireType.Bit32).float(value).join()
  }
  return w.join().finish()
}

/** An event file of TensorBoard: a record of its version, then one for each moment. Values are rounded to float32, as the format has them. */
export const tfevents = (moments: readonly Moment[]): Uint8Array => {
  const version = new BinaryWriter()
    .tag(EVENT.time, WireType.Bit64)
    .double(moments[0]?.time ?? 0)
    .tag(EVENT.version, WireType.LengthDelimited)
    .string('brain.Event:2')
    .finish()
  const frames = [version, ...moments.map(eventOf)].map(framed)
  const file = new Uint8Array(frames.reduce((sum, f) => sum + f.length, 0))
  frames.reduce((at, f) => {
    file.set(f, at)
    return at + f.length
  }, 0)
  return file
}
