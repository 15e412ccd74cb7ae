import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { type Shape, size } from '../core/shape.ts'

/** An array of numpy; 64-bit integers become doubles, which are exact up to 2^53. */
export interface NumpyArray {
  readonly shape: Shape
  readonly data:
    | Float64Array
    | Float32Array
    | Uint8Array
    | Int8Array
    | Uint16Array
    | Int16Array
    | Uint32Array
    | Int32Array
}

type Reader = { readonly bytes: number; readonly read: (view: DataView, at: number, little: boolean) => number }
const READERS: Readonly<Record<string, Reader & { readonly make: (n: number) => NumpyArray['data'] }>> = {
  b1: { bytes: 1, read: (v, at) => v.getUint8(at), make: (n) => new Uint8Array(n) },
  u1: { bytes: 1, read: (v, at) => v.getUint8(at), make: (n) => new Uint8Array(n) },
  i1: { bytes: 1, read: (v, at) => v.getInt8(at), make: (n) => new Int8Array(n) },
  u2: { bytes: 2, read: (v, at, l) => v.getUint16(at, l), make: (n) => new Uint16Array(n) },
  i2: { bytes: 2, read: (v, at, l) => v.getInt16(at, l), make: (n) => new Int16Array(n) },
  u4: { bytes: 4, read: (v, at, l) => v.getUint32(at, l), make: (n) => new Uint32Array(n) },
  i4: { bytes: 4, read: (v, at, l) => v.getInt32(at, l), make: (n) => new Int32Array(n) },
  u8: { bytes: 8, read: (v, at, l) => Number(v.getBigUint64(at, l)), make: (n) => new Float64Array(n) },
  i8: { bytes: 8, read: (v, at, l) => Number(v.getBigInt64(at, l)), make: (n) => new Float64Array(n) },
  f4: { bytes: 4, read: (v, at, l) => v.getFloat32(at, l), make: (n) => new Float32Array(n) },
  f8: { bytes: 8, read: (v, at, l) => v.getFloat64(at, l), make: (n) => new Float64Array(n) },
}

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]

/** Position in row-major order of element i in column-major order. */
const transposed = (shape: Shape): ((i: number) => number) => {
  const strides = shape.map((_, k) => size(shape.slice(k + 1)))
  return (i) => {
    let [rest, at] = [i, 0]
    for (const [k, extent] of shape.entries()) {
      at += (rest % extent) * strides[k]
      rest = Math.floor(rest / extent)
    }
    return at
  }
}

/**
 * Reads an array that `numpy.save` wrote, format versions 1 to 3: integers and floats of 8 to 64 bits, bool, either byte order, either memory order. Errors:
 * another file, objects and other types, content that is too short or too long.
 *
 * @example
 *   const { shape } = orThrow(decodeNpy(await readFile('x.npy'), 'x.npy'))
 */
export const decodeNpy = (bytes: Uint8Array, path: string): E.Either<MixtrainError, NumpyArray> => {
  const left = (message: string, place?: string) => E.left(fileError(path, message, place))
  if (bytes.length < 12 || MAGIC.some((b, i) => bytes[i] !== b))
    return left('expected an array of numpy (.npy)', 'bytes 0-5')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const wide = bytes[6] >= 2
  const [length, begin] = wide ? [view.getUint32(8, true), 12] : [view.getUint16(8, true), 10]
  const start = begin + length
  if (bytes[6] < 1 || bytes[6] > 3 || start > bytes.length)
    return left(`format version ${bytes[6]} with a header of ${length} bytes`, 'header')
  const header = new TextDecoder().decode(bytes.subarray(begin, start))
  const [, order, type] = /'descr':\s*'([<>|=])(\w\d+)'/.exec(header) ?? []
  const [, fortran] = /'fortran_order':\s*(True|False)/.exec(header) ?? []
  const [, extents] = /'shape':\s*\(([\d,\s]*)\)/.exec(header) ?? []
  if (fortran === undefined || extents === undefined)
    return left(`expected descr, fortran_order and shape, found ${header.trim().slice(0, 80)}`, 'header')
  const reader = type === undefined ? undefined : READERS[type]
  if (reader === undefined)
    return left(
      `numbers of type ${/'descr':\s*([^,]*(?:,\s*[^']*)?)/.exec(header)?.[1]?.trim() ?? '?'} are not read; save integers or floats`,
      'header',
    )
  const shape = extents
    .split(',')
    .map((s) => s.trim())
    .filter((s) => s !== '')
    .map(Number)
  const count = size(shape)
  if (!Number.isSafeInteger(count) || bytes.length - start !== count * reader.bytes)
    return left(
      `expected ${count} numbers of ${reader.bytes} bytes for shape [${shape}], found ${bytes.length - start} bytes`,
      `byte ${start}`,
    )
  const data = reader.make(count)
  const place = fortran === 'True' ? transposed(shape) : (i: number) => i
  for (let i = 0; i < count; i++) data[place(i)] = reader.read(view, start + i * reader.bytes, order !== '>')
  return E.right({ shape, data })
}
