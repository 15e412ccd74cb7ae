import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire'
import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError } from '../../core/error.ts'
import { Fault } from '../../core/fault.ts'

/**
 * The messages of onnx.proto that a feed-forward network is made of (https://onnx.ai/onnx/repo-docs/IR.html), read and written
 * on the wire. Reading allocates in proportion to the file: tensors stay views of its bytes, and the number of messages and
 * strings is limited.
 */
export interface Model {
  readonly irVersion: number
  readonly producer: string
  readonly opsets: readonly { readonly domain: string; readonly version: number }[]
  readonly metadata: readonly (readonly [string, string])[]
  /** Number of model-local functions. */
  readonly functions: number
  readonly graph: Graph | undefined
}

export interface Graph {
  readonly name: string
  readonly nodes: readonly Node[]
  readonly initializers: readonly TensorProto[]
  readonly inputs: readonly ValueInfo[]
  readonly outputs: readonly ValueInfo[]
  /** What the file says of values in between. */
  readonly values: readonly ValueInfo[]
  readonly sparse: number
}

export interface Node {
  readonly name: string
  readonly op: string
  readonly domain: string
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  readonly attributes: readonly Attribute[]
}

export enum AttributeType {
  float = 1,
  int = 2,
  string = 3,
  tensor = 4,
  graph = 5,
  floats = 6,
  ints = 7,
}

export interface Attribute {
  readonly name: string
  /** Where the file does not tell, the type of the value that is there; 0 where there is none. */
  readonly type: number
  readonly f: number
  /** Numbers beyond 2^53 are rounded: no attribute of a network needs them. */
  readonly i: number
  readonly s: string
  readonly t: TensorProto | undefined
  readonly floats: readonly number[]
  readonly ints: readonly number[]
}

export enum DataType {
  undefined = 0,
  float = 1,
  uint8 = 2,
  int8 = 3,
  uint16 = 4,
  int16 = 5,
  int32 = 6,
  int64 = 7,
  string = 8,
  bool = 9,
  float16 = 10,
  double = 11,
  uint32 = 12,
  uint64 = 13,
  bfloat16 = 16,
}

const DATA_TYPES = [
  ...['undefined', 'float32', 'uint8', 'int8', 'uint16', 'int16', 'int32', 'int64', 'string', 'bool', 'float16'],
  ...['float64', 'uint32', 'uint64', 'complex64', 'complex128', 'bfloat16', 'float8e4m3fn', 'float8e4m3fnuz'],
  ...['float8e5m2', 'float8e5m2fnuz', 'uint4', 'int4', 'float4e2m1'],
]
export const typeName = (type: number): string => DATA_TYPES[type] ?? `unknown type ${type}`

export interface TensorProto {
  readonly name: string
  readonly dims: readonly number[]
  readonly dataType: number
  readonly raw: Uint8Array | undefined
  /** Typed data as they stand in the file: pieces of floats of 4 or 8 bytes, or of varints. */
  readonly floats: readonly Uint8Array[]
  readonly ints: readonly Uint8Array[]
  readonly int32s: readonly Uint8Array[]
  readonly doubles: readonly Uint8Array[]
  readonly uint64s: readonly Uint8Array[]
  /** Data of a kind that no tensor of numbers has (strings, segments). */
  readonly other: string | undefined
  readonly external: boolean
}

interface ValueInfo {
  readonly name: string
  /** 0 where the value is no tensor or has no type. */
  readonly elemType: number
  /** A number, a symbol, or nothing known; undefined where the shape is absent. */
  readonly shape: readonly (number | string | undefined)[] | undefined
}

/** Messages, strings and list elements of one file; a real network has a few thousand. */
const MAX_PARTS = 1_000_000
/** A name, a string attribute, one metadata value. */
const MAX_STRING = 1 << 20

interface Context {
  readonly start: number
  parts: number
}

/** One field of a message: its number, wire type and the reader placed at its value. */
interface Field {
  readonly number: number
  readonly bytes: () => Uint8Array
  readonly string: () => string
  readonly int: () => number
  readonly float: () => number
  /** A repeated number: one value, or several packed. */
  readonly ints: (into: number[]) => void
  readonly floats: (into: number[]) => void
  /** A repeated number left on the wire. */
  readonly pieces: (into: Uint8Array[], wire: WireType) => void
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Calls `visit` on every field of a message; fields that it leaves unread are skipped. */
const eachField = (ctx: Context, bytes: Uint8Array, what: string, visit: (field: Field) => void): void => {
  const reader = new BinaryReader(bytes)
  let at = 0
  const place = () => `byte ${bytes.byteOffset - ctx.start + at}, ${what}`
  const fail = (message: string): never => {
    throw new Fault(message, place())
  }
  const spend = (n: number): void => {
    ctx.parts += n
    if (ctx.parts > MAX_PARTS) fail(`the file has more than ${MAX_PARTS} parts`)
  }
  spend(1)
  try {
    while (reader.pos < reader.len) {
      at = reader.pos
      const [number, wire] = reader.tag()
      const begin = reader.pos
      const expect = (expected: WireType): void => {
        if (wire !== expected) fail(`field ${number} has wire type ${wire}, expected ${expected}`)
      }
      const field: Field = {
        number,
        bytes: () => {
          expect(WireType.LengthDelimited)
          return reader.bytes()
        },
        string: () => {
          spend(1)
          const raw = field.bytes()
          if (raw.length > MAX_STRING) fail(`a string of ${raw.length} bytes; at most ${MAX_STRING} are read`)
          return utf8.decode(raw)
        },
        int: () => {
          expect(WireType.Varint)
          return Number(reader.int64())
        },
        float: () => {
          expect(WireType.Bit32)
          return reader.float()
        },
        ints: (into) => {
          if (wire === WireType.LengthDelimited) {
            const packed = new BinaryReader(reader.bytes())
            for (spend(packed.len); packed.pos < packed.len; ) into.push(Number(packed.int64()))
          } else {
            spend(1)
            into.push(field.int())
          }
        },
        floats: (into) => {
          if (wire === WireType.LengthDelimited) {
            const packed = new BinaryReader(reader.bytes())
            for (spend(packed.len / 4); packed.pos < packed.len; ) into.push(packed.float())
          } else {
            spend(1)
            into.push(field.float())
          }
        },
        pieces: (into, single) => {
          if (wire === WireType.LengthDelimited) {
            into.push(reader.bytes())
          } else {
            expect(single)
            into.push(reader.skip(wire))
          }
          spend(1)
        },
      }
      visit(field)
      if (reader.pos === begin) reader.skip(wire, number)
    }
  } catch (cause) {
    if (cause instanceof Fault) throw cause
    fail(`the file is truncated or damaged (${cause instanceof Error ? cause.message : String(cause)})`)
  }
}

const metadataEntry = (ctx: Context, bytes: Uint8Array): readonly [string, string] => {
  let [key, value] = ['', '']
  eachField(ctx, bytes, 'metadata', (f) => {
    if (f.number === 1) key = f.string()
    else if (f.number === 2) value = f.string()
  })
  return [key, value]
}

const tensorProto = (ctx: Context, bytes: Uint8Array, what: string): TensorProto => {
  const dims: number[] = []
  const [floats, ints, int32s, doubles, uint64s]: Uint8Array[][] = [[], [], [], [], []]
  let [name, dataType, external] = ['', 0, false]
  let raw: Uint8Array | undefined
  let other: string | undefined
  eachField(ctx, bytes, what, (f) => {
    if (f.number === 1) f.ints(dims)
    else if (f.number === 2) dataType = f.int()
    else if (f.number === 3) other = 'a segment'
    else if (f.number === 4) f.pieces(floats, WireType.Bit32)
    else if (f.number === 5) f.pieces(int32s, WireType.Varint)
    else if (f.number === 6) other = 'strings'
    else if (f.number === 7) f.pieces(ints, WireType.Varint)
    else if (f.number === 8) name = f.string()
    else if (f.number === 9) raw = f.bytes()
    else if (f.number === 10) f.pieces(doubles, WireType.Bit64)
    else if (f.number === 11) f.pieces(uint64s, WireType.Varint)
    else if (f.number === 13) external = true
    else if (f.number === 14) external = external || f.int() !== 0
  })
  return { name, dims, dataType, raw, floats, ints, int32s, doubles, uint64s, other, external }
}

/** The types of the fields that hold a value of an attribute: files of the first versions do not say the type. */
const VALUE_TYPES: Readonly<Record<number, AttributeType>> = { 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 8: 7 }

const attribute = (ctx: Context, bytes: Uint8Array, what: string): Attribute => {
  const [floats, ints]: number[][] = [[], []]
  let [name, type, f, i, s] = ['', 0, 0, 0, '']
  let t: TensorProto | undefined
  let found = 0
  eachField(ctx, bytes, what, (field) => {
    found ||= VALUE_TYPES[field.number] ?? 0
    if (field.number === 1) name = field.string()
    else if (field.number === 2) f = field.float()
    else if (field.number === 3) i = field.int()
    else if (field.number === 4) s = field.string()
    else if (field.number === 5) t = tensorProto(ctx, field.bytes(), `${what}, tensor`)
    else if (field.number === 7) field.floats(floats)
    else if (field.number === 8) field.ints(ints)
    else if (field.number === 20) type = field.int()
  })
  return { name, type: type || found, f, i, s, t, floats, ints }
}

const node = (ctx: Context, bytes: Uint8Array, what: string): Node => {
  const [inputs, outputs]: string[][] = [[], []]
  const attributes: Attribute[] = []
  let [name, op, domain] = ['', '', '']
  eachField(ctx, bytes, what, (f) => {
    if (f.number === 1) inputs.push(f.string())
    else if (f.number === 2) outputs.push(f.string())
    else if (f.number === 3) name = f.string()
    else if (f.number === 4) op = f.string()
    else if (f.number === 5) attributes.push(attribute(ctx, f.bytes(), `${what}, attribute ${attributes.length}`))
    else if (f.number === 7) domain = f.string()
  })
  return { name, op, domain, inputs, outputs, attributes }
}

const dimension = (ctx: Context, bytes: Uint8Array, what: string): number | string | undefined => {
  let value: number | string | undefined
  eachField(ctx, bytes, what, (f) => {
    if (f.number === 1) value = f.int()
    else if (f.number === 2) value = f.string()
  })
  return value
}

const valueInfo = (ctx: Context, bytes: Uint8Array, what: string): ValueInfo => {
  let [name, elemType] = ['', 0]
  let shape: (number | string | undefined)[] | undefined
  eachField(ctx, bytes, what, (f) => {
    if (f.number === 1) name = f.string()
    else if (f.number === 2)
      eachField(ctx, f.bytes(), `${what}, type`, (g) => {
        if (g.number !== 1) return
        eachField(ctx, g.bytes(), `${what}, type`, (h) => {
          if (h.number === 1) elemType = h.int()
          else if (h.number === 2) {
            const dims: (number | string | undefined)[] = []
            eachField(ctx, h.bytes(), `${what}, shape`, (d) => {
              if (d.number === 1) dims.push(dimension(ctx, d.bytes(), `${what}, shape`))
            })
            shape = dims
          }
        })
      })
  })
  return { name, elemType, shape }
}

const graph = (ctx: Context, bytes: Uint8Array): Graph => {
  const nodes: Node[] = []
  const initializers: TensorProto[] = []
  const [inputs, outputs, values]: ValueInfo[][] = [[], [], []]
  let [name, sparse] = ['', 0]
  eachField(ctx, bytes, 'graph', (f) => {
    if (f.number === 1) nodes.push(node(ctx, f.bytes(), `node ${nodes.length}`))
    else if (f.number === 2) name = f.string()
    else if (f.number === 5) initializers.push(tensorProto(ctx, f.bytes(), `initializer ${initializers.length}`))
    else if (f.number === 11) inputs.push(valueInfo(ctx, f.bytes(), `graph input ${inputs.length}`))
    else if (f.number === 12) outputs.push(valueInfo(ctx, f.bytes(), `graph output ${outputs.length}`))
    else if (f.number === 13) values.push(valueInfo(ctx, f.bytes(), `value ${values.length}`))
    else if (f.number === 15) sparse++
  })
  return { name, nodes, initializers, inputs, outputs, values, sparse }
}

/** A model as it stands in the file. Errors name the byte and the message. */
export const readModel = (bytes: Uint8Array, path: string): E.Either<MixtrainError, Model> =>
  E.tryCatch(
    () => {
      const ctx: Context = { start: bytes.byteOffset, parts: 0 }
      const opsets: { domain: string; version: number }[] = []
      const metadata: (readonly [string, string])[] = []
      let [irVersion, functions, producer] = [0, 0, '']
      let main: Graph | undefined
      eachField(ctx, bytes, 'model', (f) => {
        if (f.number === 1) irVersion = f.int()
        else if (f.number === 2) producer = f.string()
        else if (f.number === 7) {
          if (main !== undefined) throw new Fault('the model has two graphs', 'model')
          main = graph(ctx, f.bytes())
        } else if (f.number === 8) {
          let [domain, version] = ['', 0]
          eachField(ctx, f.bytes(), 'opset import', (o) => {
            if (o.number === 1) domain = o.string()
            else if (o.number === 2) version = o.int()
          })
          opsets.push({ domain, version })
        } else if (f.number === 14) metadata.push(metadataEntry(ctx, f.bytes()))
        else if (f.number === 25) functions++
      })
      return { irVersion, producer, opsets, metadata, functions, graph: main }
    },
    (cause) =>
      cause instanceof Fault
        ? fileError(path, cause.message, cause.place)
        : fileError(path, `not an ONNX model: ${String(cause)}`),
  )

/** Varints of a typed field, at most `limit`. */
export const varints = (pieces: readonly Uint8Array[], limit: number): readonly number[] => {
  const out: number[] = []
  for (const piece of pieces) {
    const reader = new BinaryReader(piece)
    while (reader.pos < reader.len && out.length <= limit) out.push(Number(reader.int64()))
  }
  return out
}

// ---- writing -------------------------------------------------------------------------------------------------------

/** What is written: the fields that a model made here needs, in the order of their numbers, so that equal models are equal bytes. */
export interface TensorData {
  readonly name: string
  readonly shape: readonly number[]
  readonly data: Float32Array | readonly bigint[]
}

export type AttributeValue =
  | { readonly int: number }
  | { readonly float: number }
  | { readonly ints: readonly number[] }
  | { readonly string: string }
  | { readonly tensor: TensorData }

export interface NodeData {
  readonly name: string
  readonly op: string
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  readonly attributes?: Readonly<Record<string, AttributeValue>>
}

export interface ModelData {
  readonly name: string
  readonly opset: number
  readonly irVersion: number
  readonly nodes: readonly NodeData[]
  readonly initializers: readonly TensorData[]
  readonly input: { readonly name: string; readonly shape: readonly (number | string)[] }
  /** Without a shape, its rank is left open. */
  readonly output: { readonly name: string; readonly shape?: readonly (number | string)[] }
  readonly metadata?: Readonly<Record<string, string>>
}

type Write = (w: BinaryWriter) => void
const message = (w: BinaryWriter, field: number, write: Write): void => {
  w.tag(field, WireType.LengthDelimited).fork()
  write(w)
  w.join()
}
const text = (w: BinaryWriter, field: number, value: string): void => {
  w.tag(field, WireType.LengthDelimited).string(value)
}
const integer = (w: BinaryWriter, field: number, value: number): void => {
  w.tag(field, WireType.Varint).int64(value)
}

const tensorData =
  ({ name, shape, data }: TensorData): Write =>
  (w) => {
    if (shape.length > 0)
      message(w, 1, () => {
        for (const d of shape) w.int64(d)
      })
    const floats = data instanceof Float32Array
    integer(w, 2, floats ? DataType.float : DataType.int64)
    text(w, 8, name)
    const raw = new Uint8Array(data.length * (floats ? 4 : 8))
    const view = new DataView(raw.buffer)
    if (floats) for (let i = 0; i < data.length; i++) view.setFloat32(4 * i, data[i], true)
    else
      data.forEach((v, i) => {
        view.setBigInt64(8 * i, v, true)
      })
    w.tag(9, WireType.LengthDelimited).bytes(raw)
  }

const attributeData =
  (name: string, value: AttributeValue): Write =>
  (w) => {
    text(w, 1, name)
    if ('float' in value) {
      w.tag(2, WireType.Bit32).float(value.float)
      integer(w, 20, AttributeType.float)
    } else if ('int' in value) {
      integer(w, 3, value.int)
      integer(w, 20, AttributeType.int)
    } else if ('string' in value) {
      text(w, 4, value.string)
      integer(w, 20, AttributeType.string)
    } else if ('tensor' in value) {
      message(w, 5, tensorData(value.tensor))
      integer(w, 20, AttributeType.tensor)
    } else {
      for (const i of value.ints) integer(w, 8, i)
      integer(w, 20, AttributeType.ints)
    }
  }

const nodeData =
  ({ name, op, inputs, outputs, attributes = {} }: NodeData): Write =>
  (w) => {
    for (const i of inputs) text(w, 1, i)
    for (const o of outputs) text(w, 2, o)
    text(w, 3, name)
    text(w, 4, op)
    for (const [key, value] of Object.entries(attributes)) message(w, 5, attributeData(key, value))
  }

const valueData =
  ({ name, shape }: ModelData['output']): Write =>
  (w) => {
    text(w, 1, name)
    message(w, 2, () =>
      message(w, 1, () => {
        integer(w, 1, DataType.float)
        if (shape === undefined) return
        message(w, 2, () => {
          for (const d of shape)
            message(w, 1, () => {
              if (typeof d === 'number') integer(w, 1, d)
              else text(w, 2, d)
            })
        })
      }),
    )
  }

/** The bytes of a model: fields in a fixed order, metadata sorted by code units. */
export const writeModel = (model: ModelData): Uint8Array => {
  const w = new BinaryWriter()
  integer(w, 1, model.irVersion)
  text(w, 2, 'mixtrain')
  message(w, 7, () => {
    for (const n of model.nodes) message(w, 1, nodeData(n))
    text(w, 2, model.name)
    for (const t of model.initializers) message(w, 5, tensorData(t))
    message(w, 11, valueData(model.input))
    message(w, 12, valueData(model.output))
  })
  message(w, 8, () => {
    text(w, 1, '')
    integer(w, 2, model.opset)
  })
  for (const [key, value] of Object.entries(model.metadata ?? {}).sort((a, b) => (a[0] < b[0] ? -1 : 1)))
    message(w, 14, () => {
      text(w, 1, key)
      text(w, 2, value)
    })
  return w.finish()
}
