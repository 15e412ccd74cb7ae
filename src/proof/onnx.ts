import { ieee, refuse, type Vector } from './exact.ts'

// The few messages of ONNX's protobuf that a feed-forward network needs, read field by field.

export interface TensorData extends Vector {
  readonly shape: readonly number[]
}
export interface Attribute {
  readonly f?: Vector
  readonly i?: bigint
  readonly s?: string
  readonly t?: TensorData
  readonly ints?: readonly bigint[]
}
export interface OnnxNode {
  readonly type: string
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  readonly attributes: ReadonlyMap<string, Attribute>
}
export interface OnnxGraph {
  readonly nodes: readonly OnnxNode[]
  readonly constants: ReadonlyMap<string, TensorData>
  /** Names and dimensions; 0 where a dimension is free. */
  readonly inputs: readonly { readonly name: string; readonly shape: readonly number[] }[]
  readonly outputs: readonly string[]
  readonly opset: number
}

type Field = { readonly varint: bigint } | { readonly bytes: Uint8Array }

/** The fields of a message, by number, in order. */
const fields = (bytes: Uint8Array): ReadonlyMap<number, readonly Field[]> => {
  const found = new Map<number, Field[]>()
  let at = 0
  const varint = (): bigint => {
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (at >= bytes.length) refuse('the network file is truncated')
      const byte = bytes[at++]
      value |= BigInt(byte & 127) << shift
      if (byte < 128) return BigInt.asUintN(64, value)
    }
    return refuse('the network file is damaged: a number is too long')
  }
  const take = (length: number): Uint8Array => {
    if (length > bytes.length - at) refuse('the network file is truncated')
    at += length
    return bytes.subarray(at - length, at)
  }
  while (at < bytes.length) {
    const tag = Number(varint())
    const wire = tag & 7
    const field: Field =
      wire === 0
        ? { varint: varint() }
        : wire === 2
          ? { bytes: take(Number(varint())) }
          : wire === 5
            ? { bytes: take(4) }
            : wire === 1
              ? { bytes: take(8) }
              : refuse('the network file is damaged: unknown wire type')
    const all = found.get(tag >>> 3)
    if (all === undefined) found.set(tag >>> 3, [field])
    else all.push(field)
  }
  return found
}
type Message = ReadonlyMap<number, readonly Field[]>

const text = (bytes: Uint8Array): string => {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return refuse('the network file is damaged: a name is no text')
  }
}
const bytesOf = (m: Message, field: number): readonly Uint8Array[] =>
  (m.get(field) ?? []).map((f) => ('bytes' in f ? f.bytes : refuse('the network file is damaged: bytes expected')))
/** A field that a message has at most once: readers differ in which of two they take, or make one of both. */
const only = (m: Message, field: number): readonly Field[] => {
  const all = m.get(field) ?? []
  return all.length > 1 ? refuse(`the network file is damaged: field ${field} of a message stands there twice`) : all
}
const partOf = (m: Message, field: number): Uint8Array | undefined =>
  only(m, field).length === 0 ? undefined : bytesOf(m, field)[0]
const stringOf = (m: Message, field: number): string => text(partOf(m, field) ?? new Uint8Array())
const integerOf = (m: Message, field: number): bigint | undefined => {
  const [f] = only(m, field)
  if (f === undefined) return undefined
  return 'varint' in f ? BigInt.asIntN(64, f.varint) : refuse('the network file is damaged: an integer expected')
}
/** Integers of a repeated field, packed or not. */
const integersOf = (m: Message, field: number): readonly bigint[] =>
  (m.get(field) ?? []).flatMap((f) => {
    if ('varint' in f) return [BigInt.asIntN(64, f.varint)]
    const packed: bigint[] = []
    let [value, shift] = [0n, 0n]
    for (const byte of f.bytes) {
      value |= BigInt(byte & 127) << shift
      shift += 7n
      if (byte < 128) {
        packed.push(BigInt.asIntN(64, value))
        value = 0n
        shift = 0n
      }
    }
    return shift === 0n ? packed : refuse('the network file is truncated')
  })
const joined = (parts: readonly Uint8Array[]): Uint8Array => {
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

/** The fields of a tensor that hold numbers of a type each; `raw` holds those of any. */
const TYPED = [4, 5, 6, 7, 10, 11]
const RAW = 9

/** Widths of the element types that are read: float, float16, double; int64 and int32 as integers. */
const FLOATS: Readonly<Record<number, readonly [width: number, field: number]>> = { 1: [4, 4], 10: [2, 0], 11: [8, 10] }

const tensorOf = (bytes: Uint8Array): TensorData => {
  const m = fields(bytes)
  const shape = integersOf(m, 1).map(Number)
  const size = shape.reduce((a, b) => a * b, 1)
  const type = Number(integerOf(m, 2) ?? 0n)
  if (shape.some((d) => d < 0)) refuse(`a tensor of shape [${shape}]`)
  if (m.has(13) || (integerOf(m, 14) ?? 0n) !== 0n) refuse('a tensor lies in another file')
  if (m.has(3)) refuse('a tensor is a segment of another')
  const raw = partOf(m, RAW) ?? new Uint8Array()
  if (m.has(RAW) && TYPED.some((field) => m.has(field))) refuse('a tensor holds numbers in two ways')
  const whole = (bytes: Uint8Array, width: number): Uint8Array =>
    bytes.length % width === 0 ? bytes : refuse(`a tensor of ${width}-byte numbers holds ${bytes.length} bytes`)
  const read = (): Vector => {
    if (type in FLOATS) {
      const [width, field] = FLOATS[type]
      return ieee(whole(raw.length > 0 ? raw : joined(bytesOf(m, field)), width), width)
    }
    if (type !== 6 && type !== 7) return refuse(`a tensor has element type ${type}`)
    if (raw.length === 0) return { n: integersOf(m, type === 7 ? 7 : 5), d: 1n }
    const width = type === 7 ? 8 : 4
    const view = new DataView(whole(raw, width).buffer, raw.byteOffset, raw.byteLength)
    const n = Array.from({ length: raw.length / width }, (_, i) =>
      type === 7 ? view.getBigInt64(i * 8, true) : BigInt(view.getInt32(i * 4, true)),
    )
    return { n, d: 1n }
  }
  const value = read()
  if (value.n.length !== size) refuse(`a tensor of shape [${shape}] holds ${value.n.length} numbers`)
  return { ...value, shape }
}

/** By the type that an attribute says it has: its field, and where it is kept. */
const KINDS = { 1: 2, 2: 3, 3: 4, 4: 5, 7: 8 } as const
const isKind = (type: number): type is keyof typeof KINDS => Object.hasOwn(KINDS, type)
/** Fields of an attribute that hold values: f, i, s, t, g, floats, ints, strings, tensors, graphs. */
const VALUES = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]

/** The value of an attribute: in the field of the type that it says, 0 or empty where a writer left that out; else in the one that is there. */
const attributeOf = (m: Message): Attribute => {
  const there = VALUES.filter((field) => m.has(field))
  const said = Number(integerOf(m, 20) ?? 0n)
  const type = said === 0 ? Number(Object.keys(KINDS).find((k) => KINDS[Number(k) as 1] === there[0])) : said
  if (!isKind(type)) return refuse('an attribute of a kind that is not read')
  if (there.some((field) => field !== KINDS[type]))
    return refuse('an attribute has a value of another type than it says')
  switch (type) {
    case 1:
      return { f: ieee(partOf(m, 2) ?? new Uint8Array(4), 4) }
    case 2:
      return { i: integerOf(m, 3) ?? 0n }
    case 3:
      return { s: stringOf(m, 4) }
    case 4:
      return { t: tensorOf(partOf(m, 5) ?? refuse('an attribute lacks its tensor')) }
    default:
      return { ints: integersOf(m, 8) }
  }
}

/** A map of what has a name; of two of one name readers take one or the other. */
const byName = <A>(what: string, entries: readonly (readonly [string, A])[]): ReadonlyMap<string, A> => {
  const map = new Map<string, A>()
  for (const [name, a] of entries) {
    if (map.has(name)) refuse(`there are two ${what} "${name.slice(0, 60)}"`)
    map.set(name, a)
  }
  return map
}

/** The version of the operators. */
const opsetOf = (model: Message): number => {
  const versions = bytesOf(model, 8)
    .map(fields)
    .filter((m) => ['', 'ai.onnx'].includes(stringOf(m, 1)))
    .map((m) => Number(integerOf(m, 2) ?? 0n))
  return new Set(versions).size > 1
    ? refuse(`the operators have the versions ${versions.join(' and ')}`)
    : (versions[0] ?? 0)
}

/** Element types of an input: float, double. */
const REALS = [1, 11]

/** The graph of an ONNX file. */
export const readOnnx = (bytes: Uint8Array): OnnxGraph => {
  const model = fields(bytes)
  const graph = fields(partOf(model, 7) ?? refuse('the network file holds no graph'))
  // Functions of the file may stand for ops of the standard.
  if (model.has(25)) refuse('the network file defines functions')
  if (graph.has(15)) refuse('the network has sparse constants')
  const nodes = bytesOf(graph, 1)
    .map(fields)
    .map((m) => ({
      type: stringOf(m, 4),
      inputs: bytesOf(m, 1).map(text),
      outputs: bytesOf(m, 2).map(text),
      attributes: byName(
        'attributes',
        bytesOf(m, 5)
          .map(fields)
          .map((a) => [stringOf(a, 1), attributeOf(a)]),
      ),
      domain: stringOf(m, 7),
    }))
  const foreign = nodes.find(({ domain }) => !['', 'ai.onnx'].includes(domain))
  if (foreign !== undefined) refuse(`the op ${foreign.type} is of another domain`)
  const constants = byName(
    'constants',
    bytesOf(graph, 5).map((t) => [stringOf(fields(t), 8), tensorOf(t)]),
  )
  const inputs = bytesOf(graph, 11)
    .map(fields)
    .map((m) => {
      const type = fields(partOf(m, 2) ?? refuse('an input has no type'))
      const tensor = fields(partOf(type, 1) ?? refuse('an input is no tensor'))
      const dims = bytesOf(fields(partOf(tensor, 2) ?? refuse('an input has no shape')), 1).map(fields)
      const shape = dims.map((d) => Math.max(0, Number(integerOf(d, 1) ?? 0n)))
      return { name: stringOf(m, 1), shape, type: Number(integerOf(tensor, 1) ?? 0n) }
    })
    .filter(({ name }) => !constants.has(name))
  const odd = inputs.find(({ type }) => !REALS.includes(type))
  if (odd !== undefined) refuse(`an input has element type ${odd.type}`)
  const outputs = bytesOf(graph, 12).map((b) => stringOf(fields(b), 1))
  return { nodes, constants, inputs, outputs, opset: opsetOf(model) }
}
