import { joinedAs } from '../../core/arrays.ts'
import { Fault } from '../../core/fault.ts'
import { show } from '../../core/shape.ts'
import { DataType, type TensorProto, typeName, varints } from './proto.ts'
import type { Known, Parameter } from './values.ts'

/** Tensors of the file as numbers. */

/** Elements of one value per image, and of one tensor of the file. */
export const MAX_ELEMENTS = 2 ** 31
export const MAX_RANK = 8

export const elements = (dims: readonly number[]): number => dims.reduce((n, d) => (n > MAX_ELEMENTS ? n : n * d), 1)

/** Checks the shape of a tensor of the file: its element count. */
const countOf = ({ dims }: TensorProto, place: string): number => {
  if (dims.length > MAX_RANK) throw new Fault(`${dims.length} axes; at most ${MAX_RANK} are read`, place)
  if (!dims.every((d) => Number.isSafeInteger(d) && d >= 0))
    throw new Fault(`the shape ${show(dims)} is not valid`, place)
  const n = elements(dims)
  if (n > MAX_ELEMENTS) throw new Fault(`the shape ${show(dims)} has more elements than any file holds`, place)
  return n
}

/** How the numbers of a type are stored: their width in raw data, how to read one there, and the field that may hold them typed. */
interface Storage {
  readonly width: number
  readonly read: (view: DataView, at: number) => number
  readonly field: 'floats' | 'doubles' | 'ints' | 'int32s' | 'uint64s'
  /** A number from the typed field, where that holds bits. */
  readonly bits?: (v: number) => number
}

const float32OfBits = (bits: number): number => {
  const view = new DataView(new ArrayBuffer(4))
  view.setUint32(0, bits)
  return view.getFloat32(0)
}
const bfloat16 = (bits: number): number => float32OfBits((bits & 0xffff) * 65536)
/** Sign, 5 bits of exponent with bias 15, 10 bits of fraction. */
const float16 = (bits: number): number => {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023]
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15))
}

const STORAGE: { readonly [type: number]: Storage } = {
  [DataType.float]: { width: 4, read: (v, i) => v.getFloat32(i, true), field: 'floats' },
  [DataType.double]: { width: 8, read: (v, i) => v.getFloat64(i, true), field: 'doubles' },
  [DataType.float16]: { width: 2, read: (v, i) => float16(v.getUint16(i, true)), field: 'int32s', bits: float16 },
  [DataType.bfloat16]: { width: 2, read: (v, i) => bfloat16(v.getUint16(i, true)), field: 'int32s', bits: bfloat16 },
  [DataType.int64]: { width: 8, read: (v, i) => Number(v.getBigInt64(i, true)), field: 'ints' },
  [DataType.uint64]: {
    width: 8,
    read: (v, i) => Number(v.getBigUint64(i, true)),
    field: 'uint64s',
    bits: (v) => (v < 0 ? v + 2 ** 64 : v),
  },
  [DataType.int32]: { width: 4, read: (v, i) => v.getInt32(i, true), field: 'int32s' },
  [DataType.uint32]: { width: 4, read: (v, i) => v.getUint32(i, true), field: 'uint64s' },
  [DataType.int16]: { width: 2, read: (v, i) => v.getInt16(i, true), field: 'int32s' },
  [DataType.uint16]: { width: 2, read: (v, i) => v.getUint16(i, true), field: 'int32s' },
  [DataType.int8]: { width: 1, read: (v, i) => v.getInt8(i), field: 'int32s' },
  [DataType.uint8]: { width: 1, read: (v, i) => v.getUint8(i), field: 'int32s' },
  [DataType.bool]: {
    width: 1,
    read: (v, i) => Number(v.getUint8(i) !== 0),
    field: 'int32s',
    bits: (v) => Number(v !== 0),
  },
}

const FLOATS: readonly number[] = [DataType.float, DataType.double, DataType.float16, DataType.bfloat16]
export const isFloat = (type: number): boolean => FLOATS.includes(type)

/** What the typed fields are called in messages. */
const FIELDS = { floats: 'float32', doubles: 'float64', ints: 'int64', int32s: 'int32', uint64s: 'uint64' } as const

/** The bytes of a tensor: raw, or pieces of its typed field. */
const contentOf = (t: TensorProto, { width, field }: Storage, n: number, place: string) => {
  if (t.external) throw new Fault('its data lie in another file (external data), which is not opened', place)
  if (t.other !== undefined) throw new Fault(`it holds ${t.other}`, place)
  const filled = (Object.keys(FIELDS) as (keyof typeof FIELDS)[]).filter((f) => t[f].length > 0)
  const astray = filled.find((f) => f !== field)
  if (astray !== undefined)
    throw new Fault(`it holds ${FIELDS[astray]} data, but its type is ${typeName(t.dataType)}`, place)
  if (t.raw === undefined) return { typed: t[field] }
  if (filled.length > 0) throw new Fault('it has raw data and typed data', place)
  if (t.raw.length !== width * n)
    throw new Fault(`expected ${width * n} bytes of data for shape ${show(t.dims)}, found ${t.raw.length}`, place)
  return { raw: t.raw }
}

/** Bytes of floats, raw or typed, one after the other. */
const floatBytes = (t: TensorProto, width: 4 | 8, storage: Storage, n: number, place: string): Uint8Array => {
  const { raw, typed = [] } = contentOf(t, storage, n, place)
  if (raw !== undefined) return raw
  const length = typed.reduce((m, p) => m + p.length, 0)
  if (length !== width * n)
    throw new Fault(`expected ${n} elements for shape ${show(t.dims)}, found ${length / width}`, place)
  return joinedAs(Uint8Array, typed)
}

/** The numbers of a tensor of any numeric type, in their order; `limit` elements at most. */
const numbersOf = (t: TensorProto, place: string): ArrayLike<number> => {
  const storage = STORAGE[t.dataType]
  if (storage === undefined) throw new Fault(`expected numbers, found ${typeName(t.dataType)}`, place)
  const n = countOf(t, place)
  const { width, read, field, bits } = storage
  const list = (bytes: Uint8Array) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    return Float64Array.from({ length: n }, (_, i) => read(view, width * i))
  }
  if (field === 'floats' || field === 'doubles') return list(floatBytes(t, width as 4 | 8, storage, n, place))
  const { raw, typed = [] } = contentOf(t, storage, n, place)
  if (raw !== undefined) return list(raw)
  const data = varints(typed, n)
  if (data.length !== n)
    throw new Fault(`expected ${n} integers for shape ${show(t.dims)}, found another number`, place)
  return bits === undefined ? data : data.map(bits)
}

/** A tensor of the file as numbers that are known; who asks makes room for them. */
export const knownOf = (t: TensorProto, place: string, spend: (n: number) => void): Known => {
  spend(countOf(t, place))
  return { kind: 'known', type: t.dataType, shape: t.dims, data: Array.from(numbersOf(t, place)), exact: true }
}

const filled = (t: TensorProto, place: string): number => {
  const n = countOf(t, place)
  if (n === 0) throw new Fault(`the shape ${show(t.dims)} has no elements`, place)
  return n
}

/** A float32 tensor of the file, as it is. */
export const parameterOf = (t: TensorProto, place: string): Parameter => {
  if (t.dataType !== DataType.float)
    throw new Fault(
      `expected float32 data, found ${typeName(t.dataType)}: a Cast to float32 after it makes it a parameter`,
      place,
    )
  const n = filled(t, place)
  const data = new Float32Array(n)
  new Uint8Array(data.buffer).set(floatBytes(t, 4, STORAGE[DataType.float], n, place))
  return { shape: t.dims, data }
}

/** What a Cast to float32 makes of a tensor of the file: each number rounded to nearest. */
export const roundedParameterOf = (t: TensorProto, place: string): Parameter => {
  if (t.dataType === DataType.float) return parameterOf(t, place)
  filled(t, place)
  return { shape: t.dims, data: Float32Array.from(numbersOf(t, place)) }
}

/**
 * Numbers as a sum of float32 numbers, the largest first: one where float32 holds them, at most three otherwise. The sum is exact in real
 * numbers. Numbers of more than 2^127 or with bits below 2^-149 have none.
 */
export const piecesOf = (numbers: ArrayLike<number>, place: string): readonly Float32Array[] => {
  let rest = numbers
  const pieces: Float32Array[] = []
  while (pieces.length < 3) {
    const piece = Float32Array.from(rest)
    pieces.push(piece)
    // What is left is exact: a piece is the float32 nearest to it.
    const left = Float64Array.from(piece, (d, i) => (Object.is(rest[i], d) ? 0 : rest[i] - d))
    if (left.every((v) => v === 0)) return pieces
    rest = left
  }
  throw new Fault('some of its float64 numbers are no sum of float32 numbers: store it as float32', place)
}

/** A float64 tensor of the file as float32 tensors whose sum it is. */
export const doublesOf = (t: TensorProto, place: string): readonly Parameter[] => {
  filled(t, place)
  return piecesOf(numbersOf(t, place), place).map((data) => ({ shape: t.dims, data }))
}
