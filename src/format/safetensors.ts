import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { z } from 'zod'
import { fileError, type MixtrainError, raise, usage } from '../core/error.ts'
import { problemOf } from '../core/problem.ts'
import { equals, type Shape, show, size } from '../core/shape.ts'

/** Named float32 arrays, each with `size(shape)` elements. */
export type Tensors = ReadonlyMap<string, { readonly shape: Shape; readonly data: Float32Array }>
/** Texts by name beside the tensors of a safetensors file. */
export type Metadata = Readonly<Record<string, string>>

/** A decoded file. `path` is only for messages. */
export interface Safetensors {
  readonly path: string
  readonly tensors: Tensors
  /** What is no floating-point tensor, such as a count of batches (I64): described, not read. */
  readonly others: ReadonlyMap<string, { readonly dtype: string; readonly shape: Shape }>
  readonly metadata: Metadata
}

/** The limit of the reference implementation. */
const MAX_HEADER = 100_000_000
const METADATA = '__metadata__'
const RESERVED = [METADATA, '__proto__']

/** The floating-point types that are read. */
const FLOATS = ['F32', 'F64', 'F16', 'BF16'] as const
type Float = (typeof FLOATS)[number]
const isFloat = (dtype: string): dtype is Float => (FLOATS as readonly string[]).includes(dtype)

/** Bits of an element of every type of the format. */
const BITS: Readonly<Record<string, number>> = {
  ...{ F64: 64, F32: 32, F16: 16, BF16: 16, F8_E4M3: 8, F8_E5M2: 8, F8_E8M0: 8, F6_E2M3: 6, F6_E3M2: 6, F4: 4 },
  ...{ C64: 64, I64: 64, I32: 32, I16: 16, I8: 8, U64: 64, U32: 32, U16: 16, U8: 8, BOOL: 8 },
}

/** A name from a file as a message shows it: quoted, control characters escaped, shortened. */
const quote = (name: string): string => JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name)

const byCodeUnits = (a: readonly [string, unknown], b: readonly [string, unknown]): number => (a[0] < b[0] ? -1 : 1)

const object = (members: readonly (readonly [string, string])[]): string =>
  `{${members.map(([name, json]) => `${JSON.stringify(name)}:${json}`).join(',')}}`

/**
 * Encodes tensors in the safetensors format (https://huggingface.co/docs/safetensors): a header length (uint64,
 * little-endian), a JSON header, the float32 data. The same tensors give the same bytes: names sorted by code units,
 * metadata too, no white space but what pads the header to a multiple of 8. Raises a usage error for a length that
 * does not fit its shape or a reserved name.
 *
 * @example
 *   encodeSafetensors(new Map([['w', { shape: [2], data: new Float32Array([1, 2]) }]])).length % 8 // 0
 */
export const encode = (tensors: Tensors, metadata: Metadata = {}): Uint8Array => {
  const entries = [...tensors].sort(byCodeUnits)
  const notes = Object.entries(metadata).sort(byCodeUnits)
  const reserved = [...entries, ...notes].find(([name]) => RESERVED.includes(name))
  if (reserved !== undefined) raise(usage(`safetensors: the name ${reserved[0]} is reserved`))
  const members = notes.length === 0 ? [] : [[METADATA, object(notes.map(([k, v]) => [k, JSON.stringify(v)]))] as const]
  let end = 0
  const described = entries.map(([name, { shape, data }]) => {
    if (data.length !== size(shape))
      raise(usage(`safetensors: ${quote(name)} ${show(shape)} has ${data.length} elements`))
    const start = end
    end += data.byteLength
    return [name, `{"dtype":"F32","shape":${JSON.stringify(shape)},"data_offsets":[${start},${end}]}`] as const
  })
  const json = new TextEncoder().encode(object([...members, ...described]))
  const start = 8 + Math.ceil(json.length / 8) * 8
  const out = new Uint8Array(start + end).fill(0x20, 8, start)
  new DataView(out.buffer).setBigUint64(0, BigInt(start - 8), true)
  out.set(json, 8)
  let at = start
  for (const [, { data }] of entries) {
    out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at)
    at += data.byteLength
  }
  return out
}

/**
 * Whether bytes begin as a safetensors file does: a header length that the format allows, then a JSON object. Protobuf would need a text with zero
 * bytes in its first field for that.
 */
export const isSafetensors = (bytes: Uint8Array): boolean =>
  bytes.length > 8 &&
  bytes[8] === 0x7b &&
  new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true) <= MAX_HEADER

const count = z.int().nonnegative()
const Entry = z.strictObject({ dtype: z.string(), shape: z.array(count), data_offsets: z.tuple([count, count]) })
const Notes = z.record(z.string(), z.string())

/**
 * What is wrong with a JSON text that JSON.parse does not tell: a key twice in one object, `__proto__`, or nesting
 * deeper than a header has (name, shape, extents), looked for before a hostile text is parsed. Text that is not JSON
 * is left to JSON.parse.
 */
const disguised = (json: string): string | undefined => {
  const seen: Set<string>[] = []
  for (let i = 0; i < json.length; i++) {
    const c = json[i]
    if (c === '{' || c === '[') {
      if (seen.push(new Set()) > 3) return 'the header is nested deeper than 3 levels'
    } else if (c === '}' || c === ']') seen.pop()
    else if (c === '"') {
      const start = i
      for (i++; i < json.length && json[i] !== '"'; i++) if (json[i] === '\\') i++
      const text = json.slice(start, i + 1)
      while (/\s/.test(json[i + 1])) i++
      if (json[i + 1] !== ':') continue
      const name: string = JSON.parse(text)
      if (name === '__proto__') return 'the key "__proto__" is not allowed'
      if (seen.at(-1)?.has(name)) return `the key ${quote(name)} occurs twice`
      seen.at(-1)?.add(name)
    }
  }
  return undefined
}

interface Header {
  readonly metadata: Metadata
  readonly entries: readonly (readonly [name: string, entry: unknown])[]
  /** Where the data begin in the file. */
  readonly start: number
}

const header = (bytes: Uint8Array, path: string): E.Either<MixtrainError, Header> => {
  const left = (message: string, place?: string) => E.left(fileError(path, message, place))
  if (bytes.length < 8) return left(`expected 8 bytes of header length, found ${bytes.length}`, `byte ${bytes.length}`)
  const length = new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true)
  if (length > MAX_HEADER)
    return left(
      `expected a header of at most ${MAX_HEADER} bytes, found a length of ${length}`,
      'bytes 0-7, header length',
    )
  const start = 8 + Number(length)
  if (start > bytes.length)
    return left(
      `the file is truncated: expected ${length} bytes of header, found ${bytes.length - 8}`,
      `byte ${bytes.length}`,
    )
  const json = E.tryCatch(
    () => new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes.subarray(8, start)),
    () => fileError(path, 'expected UTF-8, found other bytes', `bytes 8-${start - 1}, header`),
  )
  if (E.isLeft(json)) return json
  if (!json.right.startsWith('{'))
    return left(`expected { at the beginning of the header, found ${quote(json.right.slice(0, 1))}`, 'byte 8')
  const parsed = E.tryCatch(
    () => disguised(json.right) ?? (JSON.parse(json.right) as Record<string, unknown>),
    (cause) => fileError(path, `expected JSON: ${quote(String(cause))}`, `bytes 8-${start - 1}, header`),
  )
  if (E.isLeft(parsed)) return parsed
  if (typeof parsed.right === 'string') return left(parsed.right, 'header')
  const { [METADATA]: notes = {}, ...entries } = parsed.right
  const metadata = Notes.safeParse(notes)
  return metadata.success
    ? E.right({ metadata: metadata.data, entries: Object.entries(entries), start })
    : left(`expected strings, found something else${at(metadata.error, notes)}`, METADATA)
}

/** The first problem of a header. */
const at = (error: z.ZodError, input: unknown): string => {
  const { place, message } = problemOf(error, input)
  return `${place === undefined ? '' : ` at ${quote(place)}`} (${message})`
}

interface Extent {
  readonly name: string
  readonly dtype: string
  readonly shape: Shape
  readonly from: number
  readonly to: number
}

/** A tensor that was read, or one that was not. */
type Read = { readonly name: string; readonly shape: Shape } & (
  | { readonly data: Float32Array }
  | { readonly dtype: string }
)

const extent = (path: string, available: number, name: string, raw: unknown): E.Either<MixtrainError, Extent> => {
  const left = (message: string) => E.left(fileError(path, message, `tensor ${quote(name)}`))
  const entry = Entry.safeParse(raw)
  if (!entry.success) return left(`expected dtype, shape and data_offsets, found something else${at(entry.error, raw)}`)
  const { dtype, shape, data_offsets } = entry.data
  const [from, to] = data_offsets
  if (!Object.hasOwn(BITS, dtype)) return left(`expected a dtype of the format, found the unknown ${quote(dtype)}`)
  const most = Number.MAX_SAFE_INTEGER / 64
  const length = (BITS[dtype] / 8) * shape.reduce((n, d) => (d === 0 || n * d <= most ? n * d : Number.NaN), 1)
  if (Number.isNaN(length)) return left('the shape has more elements than any file holds')
  if (!Number.isInteger(length)) return left(`${dtype} elements ${show(shape)} do not fill whole bytes`)
  if (from > to) return left(`data_offsets [${from},${to}] run backwards`)
  if (to > available) return left(`data_offsets [${from},${to}] go past the ${available} bytes of data in the file`)
  if (to - from !== length)
    return left(`expected ${length} bytes for shape ${show(shape)}, found ${to - from} (data_offsets [${from},${to}])`)
  return E.right({ name, dtype, shape, from, to })
}

/** The float16 with these bits (IEEE 754 binary16), which float32 holds exactly. */
const half = (bits: number): number => {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023]
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15))
}

/** The elements of a tensor as float32: exactly those of the file, or undefined and the first that float32 does not hold. */
const widened = (bytes: Uint8Array, dtype: Float): { readonly data: Float32Array; readonly inexact?: number } => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  switch (dtype) {
    case 'F32': {
      const data = new Float32Array(bytes.length / 4)
      new Uint8Array(data.buffer).set(bytes)
      return { data }
    }
    case 'F16':
      return { data: Float32Array.from({ length: bytes.length / 2 }, (_, i) => half(view.getUint16(2 * i, true))) }
    case 'BF16': {
      const data = new Float32Array(bytes.length / 2)
      const words = new Uint32Array(data.buffer)
      for (let i = 0; i < words.length; i++) words[i] = view.getUint16(2 * i, true) << 16
      return { data }
    }
    case 'F64': {
      const data = new Float32Array(bytes.length / 8)
      for (let i = 0; i < data.length; i++) {
        const value = view.getFloat64(8 * i, true)
        data[i] = value
        if (!Object.is(data[i], value)) return { data, inexact: i }
      }
      return { data }
    }
    default:
      return dtype satisfies never
  }
}

/**
 * Decodes the floating-point tensors of a safetensors file as float32: F32, F16 and BF16, which it holds exactly, and F64 as far as it does (a
 * number that it does not hold is an error: rounded weights would be another network). Other tensors are described in `others`. Nothing in the
 * file is trusted: a header that is too long, not UTF-8 or not JSON, a key that occurs twice, metadata other than strings, an unknown dtype, a
 * shape that is negative, fractional or too big, offsets that leave the file, overlap, leave gaps or do not fit the shape are errors that
 * name the place. Only data that are there are allocated for.
 *
 * @example
 *   const bytes = encodeSafetensors(new Map([['w', { shape: [2], data: new Float32Array([1, 2]) }]]))
 *   orThrow(decodeSafetensors(bytes, 'w.safetensors')).tensors.get('w')?.shape // [2]
 */
export const decode = (bytes: Uint8Array, path: string): E.Either<MixtrainError, Safetensors> =>
  pipe(
    header(bytes, path),
    E.chain(({ metadata, entries, start }) =>
      pipe(
        entries,
        E.traverseArray(([name, raw]) => extent(path, bytes.length - start, name, raw)),
        E.chain((extents) => gapless(path, extents, bytes.length - start)),
        E.chain(
          E.traverseArray(({ name, dtype, shape, from, to }): E.Either<MixtrainError, Read> => {
            if (!isFloat(dtype)) return E.right({ name, shape, dtype })
            const content = bytes.subarray(start + from, start + to)
            const { data, inexact } = widened(content, dtype)
            if (inexact === undefined) return E.right({ name, shape, data })
            const value = new DataView(content.buffer, content.byteOffset).getFloat64(8 * inexact, true)
            return E.left(
              fileError(
                path,
                `element ${inexact} is ${value}, which float32 does not hold: save the tensors as F32`,
                `tensor ${quote(name)}`,
              ),
            )
          }),
        ),
        E.map((read) => ({
          path,
          metadata,
          tensors: new Map(read.flatMap((t) => ('data' in t ? [[t.name, { shape: t.shape, data: t.data }]] : []))),
          others: new Map(read.flatMap((t) => ('dtype' in t ? [[t.name, { shape: t.shape, dtype: t.dtype }]] : []))),
        })),
      ),
    ),
  )

/** The extents in the order of the file, if they cover its data exactly once. */
const gapless = (
  path: string,
  extents: readonly Extent[],
  available: number,
): E.Either<MixtrainError, readonly Extent[]> => {
  const ordered = [...extents].sort((a, b) => a.from - b.from || a.to - b.to)
  let end = 0
  for (const { name, from, to } of ordered) {
    if (from !== end)
      return E.left(
        fileError(
          path,
          from < end
            ? `data_offsets [${from},${to}] overlap the tensor before`
            : `${from - end} bytes before data_offsets [${from},${to}] belong to no tensor`,
          `tensor ${quote(name)}`,
        ),
      )
    end = to
  }
  return end === available
    ? E.right(ordered)
    : E.left(
        fileError(
          path,
          `expected the end of the file after the last tensor, found ${available - end} more bytes`,
          `data byte ${end}`,
        ),
      )
}

/**
 * The tensors of a file if they have exactly the expected names and shapes; the error lists all that are missing,
 * different or too many.
 */
export const expectTensors = (
  file: Safetensors,
  expected: Readonly<Record<string, Shape>>,
): E.Either<MixtrainError, Tensors> => {
  const { tensors, others } = file
  const wanted = Object.entries(expected).flatMap(([name, shape]) => {
    const found = tensors.get(name)
    const other = others.get(name)
    if (other !== undefined) return [`tensor ${quote(name)}: expected ${FLOATS.join(', ')}, found ${other.dtype}`]
    if (found === undefined) return [`tensor ${quote(name)} ${show(shape)} is missing`]
    return equals(found.shape, shape)
      ? []
      : [`tensor ${quote(name)}: expected shape ${show(shape)}, found ${show(found.shape)}`]
  })
  const extra = [...tensors.keys(), ...others.keys()]
    .filter((name) => !Object.hasOwn(expected, name))
    .map((name) => `tensor ${quote(name)} is not expected`)
  const problems = [...wanted, ...extra]
  return problems.length === 0 ? E.right(tensors) : E.left(fileError(file.path, problems.join('; ')))
}
