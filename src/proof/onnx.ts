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
const stringOf = (m: Message, field: number): string => text(bytesOf(m, field).at(-1) ?? new Uint8Array())
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
    return packed
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

/** Widths of the element types that are read: float, float16, double; int64 and int32 as integers. */
const FLOATS: Readonly<Record<number, readonly [width: number, field: number]>> = { 1: [4, 4], 10: [2, 0], 11: [8, 10] }

const tensorOf = (bytes: Uint8Array): TensorData => {
  const m = fields(bytes)
  const shape = integersOf(m, 1).map(Number)
  const size = shape.reduce((a, b) => a * b, 1)
  const type = Number(integersOf(m, 2).at(-1) ?? 0n)
  if (m.has(13) || (integersOf(m, 14).at(-1) ?? 0n) !== 0n) refuse('a tensor lies in another file')
  const raw = joined(bytesOf(m, 9))
  const read = (): Vector => {
    if (type in FLOATS) {
      const [width, field] = FLOATS[type]
      return ieee(raw.length > 0 ? raw : joined(bytesOf(m, field)), width)
    }
    if (type !== 6 && type !== 7) return refuse(`a tensor has element type ${type}`)
    if (raw.length === 0) return { n: integersOf(m, type === 7 ? 7 : 5), d: 1n }
    const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength)
    const width = type === 7 ? 8 : 4
    const n = Array.from({ length: Math.floor(raw.length / width) }, (_, i) =>
      type === 7 ? view.getBigInt64(i * 8, true) : BigInt(view.getInt32(i * 4, true)),
    )
    return { n, d: 1n }
  }
  const value = read()
  if (value.n.length !== size) refuse(`a tensor of shape [${shape}] holds ${value.n.length} numbers`)
  return { ...value, shape }
}

const attributeOf = (m: Message): Attribute => {
  const [f] = bytesOf(m, 2)
  const [t] = bytesOf(m, 5)
  return {
    ...(f === undefined ? {} : { f: ieee(f, 4) }),
    ...(m.has(3) ? { i: integersOf(m, 3).at(-1) as bigint } : {}),
    ...(m.has(4) ? { s: stringOf(m, 4) } : {}),
    ...(t === undefined ? {} : { t: tensorOf(t) }),
    ...(m.has(8) ? { ints: integersOf(m, 8) } : {}),
  }
}

/** The graph of an ONNX file. */
export const readOnnx = (bytes: Uint8Array): OnnxGraph => {
  const model = fields(bytes)
  const [graphBytes] = bytesOf(model, 7)
  if (graphBytes === undefined) return refuse('the network file holds no graph')
  const graph = fields(graphBytes)
  const opsets = bytesOf(model, 8).map(fields)
  const opset = opsets
    .filter((m) => ['', 'ai.onnx'].includes(stringOf(m, 1)))
    .map((m) => Number(integersOf(m, 2).at(-1)))
  const nodes = bytesOf(graph, 1)
    .map(fields)
    .map((m) => ({
      type: stringOf(m, 4),
      inputs: bytesOf(m, 1).map(text),
      outputs: bytesOf(m, 2).map(text),
      attributes: new Map(
        bytesOf(m, 5)
          .map(fields)
          .map((a) => [stringOf(a, 1), attributeOf(a)]),
      ),
      domain: stringOf(m, 7),
    }))
  const foreign = nodes.find(({ domain }) => !['', 'ai.onnx'].includes(domain))
  if (foreign !== undefined) refuse(`the op ${foreign.type} is of another domain`)
  const constants = new Map(bytesOf(graph, 5).map((t) => [stringOf(fields(t), 8), tensorOf(t)]))
  const inputs = bytesOf(graph, 11)
    .map(fields)
    .map((m) => {
      const tensor = fields(
        bytesOf(fields(bytesOf(m, 2)[0] ?? refuse('an input has no type')), 1)[0] ?? refuse('an input is no tensor'),
      )
      const dims = bytesOf(fields(bytesOf(tensor, 2)[0] ?? refuse('an input has no shape')), 1).map(fields)
      const shape = dims.map((d) => Math.max(0, Number(integersOf(d, 1).at(-1) ?? 0n)))
      return { name: stringOf(m, 1), shape }
    })
    .filter(({ name }) => !constants.has(name))
  const outputs = bytesOf(graph, 12).map((b) => stringOf(fields(b), 1))
  return { nodes, constants, inputs, outputs, opset: Math.max(...opset, 0) }
}
