import { MixtrainException, raise, show as showError } from '../../core/error.ts'
import { equals, type Shape, show, size } from '../../core/shape.ts'
import type { Operand, Tensor } from '../../core/tensor.ts'
import { input } from '../../ops/index.ts'
import { order } from '../../tape/tape.ts'
import { IMPORTS } from './ops.ts'
import {
  type Attribute,
  AttributeType,
  DataType,
  type Graph,
  type Node,
  type TensorProto,
  typeName,
  varints,
} from './proto.ts'
import {
  type Floats,
  type Ints,
  type NodeView,
  type Parameter,
  Problem,
  quote,
  type Stored,
  type Value,
} from './values.ts'

interface Step {
  readonly inputs: readonly number[]
  readonly output: number
  readonly run: (xs: readonly Operand[]) => Operand
}

/** Batch of the probes: shapes are worked out with a batch that no extent of a network equals by accident. */
export const PROBE = 7919
/** Elements of one value per image, and of one tensor of the file. */
const MAX_ELEMENTS = 2 ** 31
const MAX_RANK = 8
/** Length of a computed shape; Concat could double it at every node. */
const MAX_INTS = 1024

const elements = (dims: readonly number[]): number => dims.reduce((n, d) => (n > MAX_ELEMENTS ? n : n * d), 1)

/** Checks the shape of a tensor of the file: its element count. */
const countOf = ({ dims }: TensorProto, place: string): number => {
  if (dims.length > MAX_RANK) throw new Problem(`${dims.length} axes; at most ${MAX_RANK} are read`, place)
  if (!dims.every((d) => Number.isSafeInteger(d) && d >= 0))
    throw new Problem(`the shape ${show(dims)} is not valid`, place)
  const n = elements(dims)
  if (n > MAX_ELEMENTS) throw new Problem(`the shape ${show(dims)} has more elements than any file holds`, place)
  return n
}

const bytesOf = (
  t: TensorProto,
  typed: readonly Uint8Array[],
  width: number,
  n: number,
  place: string,
): Uint8Array | undefined => {
  if (t.external) throw new Problem('its data lie in another file (external data), which is not opened', place)
  if (t.other !== undefined) throw new Problem(`it holds ${t.other}`, place)
  if (t.raw === undefined) return undefined
  if (typed.length > 0) throw new Problem('it has raw data and typed data', place)
  if (t.raw.length !== width * n)
    throw new Problem(`expected ${width * n} bytes of data for shape ${show(t.dims)}, found ${t.raw.length}`, place)
  return t.raw
}

const parameterOf = (t: TensorProto, place: string): Parameter => {
  if (t.dataType !== DataType.float) throw new Problem(`expected float32 data, found ${typeName(t.dataType)}`, place)
  const n = countOf(t, place)
  if (n === 0) throw new Problem(`the shape ${show(t.dims)} has no elements`, place)
  const raw = bytesOf(t, t.floats, 4, n, place)
  const pieces = raw === undefined ? t.floats : [raw]
  const length = pieces.reduce((m, p) => m + p.length, 0)
  if (length !== 4 * n)
    throw new Problem(`expected ${n} elements for shape ${show(t.dims)}, found ${length / 4}`, place)
  const data = new Float32Array(n)
  const bytes = new Uint8Array(data.buffer)
  let at = 0
  for (const p of pieces) {
    bytes.set(p, at)
    at += p.length
  }
  return { shape: t.dims, data }
}

const intsOf = (t: TensorProto, place: string): Ints => {
  const [width, typed] = t.dataType === DataType.int64 ? [8, t.ints] : [4, t.int32s]
  if (t.dataType !== DataType.int64 && t.dataType !== DataType.int32)
    throw new Problem(`expected int64 data, found ${typeName(t.dataType)}`, place)
  const n = countOf(t, place)
  if (t.dims.length > 1) throw new Problem(`integers of rank ${t.dims.length}; 0 or 1 was expected`, place)
  if (n > MAX_INTS) throw new Problem(`${n} integers; at most ${MAX_INTS} are read`, place)
  const raw = bytesOf(t, typed, width, n, place)
  const view = raw && new DataView(raw.buffer, raw.byteOffset, raw.byteLength)
  const data =
    view === undefined
      ? varints(typed, n)
      : Array.from({ length: n }, (_, i) =>
          width === 8 ? Number(view.getBigInt64(8 * i, true)) : view.getInt32(4 * i, true),
        )
  if (data.length !== n)
    throw new Problem(`expected ${n} integers for shape ${show(t.dims)}, found another number`, place)
  return { kind: 'ints', rank: t.dims.length as 0 | 1, data }
}

const flagOf = (t: TensorProto, place: string): boolean => {
  if (t.dataType !== DataType.bool || countOf(t, place) !== 1)
    throw new Problem(`expected one boolean, found ${typeName(t.dataType)} ${show(t.dims)}`, place)
  const raw = bytesOf(t, t.int32s, 1, 1, place)
  return (raw === undefined ? varints(t.int32s, 1) : [...raw])[0] !== 0
}

const nodePlace = (n: Node, index: number): string =>
  `node ${n.name === '' ? index : quote(n.name)} (${quote(n.op).slice(1, -1)})`

const shapeOfInput = ({ name, elemType, shape }: Graph['inputs'][number]): Shape => {
  const place = `graph input ${quote(name)}`
  if (elemType !== DataType.float) throw new Problem(`expected a float32 tensor, found ${typeName(elemType)}`, place)
  if (shape === undefined) throw new Problem('it has no shape', place)
  const [batch, ...rest] = shape
  if (shape.length < 2 || shape.length > MAX_RANK)
    throw new Problem(`expected a batch axis and 1 to ${MAX_RANK - 1} more, found ${shape.length} axes`, place)
  if (typeof batch === 'number' && batch !== 1)
    throw new Problem(`the first axis must be the batch, of any size or 1, but it is ${batch}`, place)
  const extents = rest.map((d, i) =>
    typeof d === 'number' && Number.isSafeInteger(d) && d >= 1
      ? d
      : raiseProblem(
          `extent ${i + 1} must be a number >= 1, not ${typeof d === 'string' ? quote(d) : (d ?? 'unknown')}`,
          place,
        ),
  )
  if (elements(extents) > MAX_ELEMENTS) throw new Problem(`the shape ${show(extents)} is too large`, place)
  return extents
}

const raiseProblem = (message: string, place?: string): never => {
  throw new Problem(message, place)
}

/** The nodes that the output needs, in the order of the file. */
const needed = (nodes: readonly Node[], output: string): readonly boolean[] => {
  const wanted = new Set([output])
  const result = nodes.map(() => false)
  for (let i = nodes.length - 1; i >= 0; i--) {
    result[i] = nodes[i].outputs.some((o) => o !== '' && wanted.has(o))
    if (result[i]) for (const x of nodes[i].inputs) wanted.add(x)
  }
  return result
}

/** A graph as a network: what it reads, and the function that it computes. */
export interface Imported {
  readonly input: { readonly name: string; readonly shape: Shape }
  readonly output: { readonly name: string; readonly shape: Shape }
  readonly parameters: ReadonlyMap<string, Parameter>
  readonly network: (params: ReadonlyMap<string, Tensor>) => <T extends Operand>(x: T) => T
}

/**
 * Works out the shapes of a graph and turns every node into a step on operands. Shapes are found by building the graph once
 * on a batch of `PROBE` images: nodes own no memory, and what builds for that batch builds for every batch, since no extent
 * but the first of a batched value may depend on it. Throws a Problem.
 */
export const importGraph = (graph: Graph, opset: number): Imported => {
  if (graph.sparse > 0) throw new Problem('sparse initializers are not supported', 'graph')
  const values = new Map<string, Value>()
  const define = (name: string, value: Value, place: string): void => {
    if (values.has(name)) throw new Problem(`the name ${quote(name)} is defined twice`, place)
    values.set(name, value)
  }
  for (const proto of graph.initializers)
    define(proto.name, { kind: 'stored', proto, name: proto.name }, `initializer ${quote(proto.name)}`)
  // Files of IR version 3 list the initializers among the inputs.
  const inputs = graph.inputs.filter(({ name }) => values.get(name)?.kind !== 'stored')
  if (inputs.length !== 1)
    throw new Problem(`expected one input besides the initializers, found ${inputs.length}`, 'graph')
  if (graph.outputs.length !== 1) throw new Problem(`expected one output, found ${graph.outputs.length}`, 'graph')
  const inputShape = shapeOfInput(inputs[0])

  let slots = 0
  const steps: Step[] = []
  const parameters = new Map<string, Parameter & { readonly floats: Floats }>()
  const x: Floats = {
    kind: 'floats',
    slot: slots++,
    batched: true,
    probe: input(inputs[0].name, [PROBE, ...inputShape]),
  }
  define(inputs[0].name, x, `graph input ${quote(inputs[0].name)}`)

  const parameter = ({ name, proto }: Stored): Floats => {
    const known = parameters.get(name)
    if (known !== undefined) return known.floats
    const read = parameterOf(proto, `tensor ${quote(name)}`)
    const floats: Floats = { kind: 'floats', slot: slots++, batched: false, probe: input(name, read.shape) }
    parameters.set(name, { ...read, floats })
    return floats
  }

  const used = needed(graph.nodes, graph.outputs[0].name)
  const definedLater = (name: string): boolean => graph.nodes.some((n) => n.outputs.includes(name))

  const site = (n: Node, place: string): NodeView & { readonly unread: () => string | undefined } => {
    const fail = (message: string): never => raiseProblem(message, place)
    const read = new Set<string>()
    const attributes = new Map<string, Attribute>()
    for (const a of n.attributes) {
      if (attributes.has(a.name)) fail(`attribute ${quote(a.name)} is given twice`)
      attributes.set(a.name, a)
    }
    const attribute = (name: string, type: AttributeType): Attribute | undefined => {
      read.add(name)
      const a = attributes.get(name)
      if (a !== undefined && a.type !== 0 && a.type !== type)
        fail(`attribute ${name}: expected ${AttributeType[type]}, found ${AttributeType[a.type] ?? `type ${a.type}`}`)
      return a
    }
    const integer = (name: string, v: number): number =>
      Number.isSafeInteger(v) ? v : fail(`attribute ${name}: ${v} is out of range`)
    const has = (i: number): boolean => (n.inputs[i] ?? '') !== ''
    const value = (i: number): Value => {
      if (!has(i)) return fail(`input ${i} is missing`)
      const name = n.inputs[i]
      const v = values.get(name)
      if (v === undefined)
        return fail(
          definedLater(name)
            ? `input ${quote(name)} is computed by this node or a later one: nodes must be in order, without cycles`
            : `input ${quote(name)} is not defined`,
        )
      return v.kind === 'absent' ? fail(`input ${quote(name)}: ${v.reason}`) : v
    }
    const floats = (i: number): Floats => {
      const v = value(i)
      if (v.kind === 'floats') return v
      return v.kind === 'stored' ? parameter(v) : fail(`input ${i} is an integer tensor, expected float32`)
    }
    const ints = (i: number): Ints => {
      const v = value(i)
      if (v.kind === 'ints') return v
      return v.kind === 'stored'
        ? intsOf(v.proto, `tensor ${quote(v.name)}`)
        : fail(`input ${i} must be integers known when the file is read`)
    }
    return {
      opset,
      arity: n.inputs.length,
      fail,
      has,
      value,
      floats,
      ints,
      numbers: (i) =>
        ints(i).data.map((d) => (d === 'N' ? fail(`input ${i} must not depend on the size of the batch`) : d)),
      number: (i) => {
        const v = value(i)
        if (v.kind !== 'stored') return fail(`input ${i} must be a number stored in the file`)
        const { data } = parameterOf(v.proto, `tensor ${quote(v.name)}`)
        return data.length === 1 ? data[0] : fail(`input ${i} must be one number, found ${data.length}`)
      },
      either: (i) => {
        const v = value(i)
        if (v.kind !== 'stored') return v as Ints | Floats
        return v.proto.dataType === DataType.float ? parameter(v) : ints(i)
      },
      flag: (i) => {
        const v = value(i)
        return v.kind === 'stored'
          ? flagOf(v.proto, `tensor ${quote(v.name)}`)
          : fail(`input ${i} must be a stored boolean`)
      },
      given: (name) => attributes.has(name),
      int: (name, otherwise) => integer(name, attribute(name, AttributeType.int)?.i ?? otherwise),
      float: (name, otherwise) => attribute(name, AttributeType.float)?.f ?? otherwise,
      string: (name, otherwise) => attribute(name, AttributeType.string)?.s ?? otherwise,
      list: (name) => attribute(name, AttributeType.ints)?.ints.map((v) => integer(name, v)),
      tensor: (name) => {
        const t = attribute(name, AttributeType.tensor)?.t
        return t === undefined ? fail(`attribute ${name} is missing`) : { kind: 'stored', proto: t, name: n.outputs[0] }
      },
      emit: (operands, run) => {
        const probe = attempt(() => run(operands.map((o) => o.probe)) as Tensor, fail)
        const batched = operands.some((o) => o.batched)
        if (batched && probe.shape[0] !== PROBE) fail('it moves or merges the batch axis, which must stay the first')
        if (probe.shape.length > MAX_RANK)
          fail(`a value of ${probe.shape.length} axes; at most ${MAX_RANK} are supported`)
        const perImage = elements(batched ? probe.shape.slice(1) : probe.shape)
        if (perImage > MAX_ELEMENTS || perImage < 1)
          fail(`a value of shape ${show(probe.shape)}`.replace(`${PROBE}`, 'N'))
        const slot = slots++
        steps.push({ inputs: operands.map((o) => o.slot), output: slot, run })
        return { kind: 'floats', slot, batched, probe }
      },
      unread: () => [...attributes.keys()].find((name) => !read.has(name)),
    }
  }

  graph.nodes.forEach((n, index) => {
    const place = nodePlace(n, index)
    const results = n.outputs.filter((o) => o !== '')
    if (!used[index]) {
      for (const o of results) define(o, { kind: 'absent', reason: 'it is not computed' }, place)
      return
    }
    const handler = ['', 'ai.onnx'].includes(n.domain) && Object.hasOwn(IMPORTS, n.op) ? IMPORTS[n.op] : undefined
    if (handler === undefined)
      throw new Problem(
        `the op ${quote(n.op)}${n.domain === '' ? '' : ` of domain ${quote(n.domain)}`} is not supported`,
        place,
      )
    const here = site(n, place)
    if ((n.outputs[0] ?? '') === '') throw new Problem('its first output has no name', place)
    const value = attempt(() => handler(here), here.fail)
    const unread = here.unread()
    if (unread !== undefined) throw new Problem(`attribute ${quote(unread)} is not supported`, place)
    results.forEach((o, i) => {
      define(o, i === 0 ? value : { kind: 'absent', reason: `only the first output of ${n.op} is supported` }, place)
    })
  })

  const { name, elemType, shape } = graph.outputs[0]
  const place = `graph output ${quote(name)}`
  const result = values.get(name)
  if (result === undefined) throw new Problem('no node computes it', place)
  if (result.kind !== 'floats' || !result.batched) throw new Problem('it does not depend on the input', place)
  if (elemType !== DataType.undefined && elemType !== DataType.float)
    throw new Problem(`expected a float32 tensor, found ${typeName(elemType)}`, place)
  const outputShape = result.probe.shape.slice(1)
  if (shape !== undefined) {
    const [batch, ...rest] = shape
    const agrees =
      rest.length === outputShape.length &&
      rest.every((d, i) => typeof d !== 'number' || d === outputShape[i]) &&
      (typeof batch !== 'number' || batch === 1)
    if (!agrees)
      throw new Problem(
        `the file says ${show(shape.map((d) => d ?? '?') as number[])}, but the graph computes ${show(['N', ...outputShape] as number[])}`,
        place,
      )
  }
  const large = order([result.probe]).find((y) => size(y.shape) > PROBE * MAX_ELEMENTS)
  if (large !== undefined) throw new Problem(`it needs a value of more than ${MAX_ELEMENTS} elements an image`, place)

  const wanted = [...parameters].map(([key, { shape: s, floats }]) => ({ key, shape: s, slot: floats.slot }))
  return {
    input: { name: inputs[0].name, shape: inputShape },
    output: { name, shape: outputShape },
    parameters: new Map([...parameters].map(([key, { shape: s, data }]) => [key, { shape: s, data }])),
    network: (params) => {
      const given = wanted.map(({ key, shape: s, slot }) => {
        const t = params.get(key)
        if (t === undefined)
          return raise({ kind: 'usage', message: `the network has a parameter ${quote(key)}, which is not given` })
        return equals(t.shape, s)
          ? ([slot, t] as const)
          : raise({
              kind: 'shape',
              op: `parameter ${quote(key)}`,
              message: `expected ${show(s)}, found ${show(t.shape)}`,
            })
      })
      return <T extends Operand>(operand: T): T => {
        if (operand.shape.length < 1 || !equals(operand.shape.slice(1), inputShape))
          return raise({
            kind: 'shape',
            op: `network(${show(operand.shape)})`,
            message: `takes ${show(['n', ...inputShape] as unknown as number[])}`,
          })
        const run = new Array<Operand>(slots)
        run[x.slot] = operand
        for (const [slot, t] of given) run[slot] = t
        for (const s of steps) run[s.output] = s.run(s.inputs.map((i) => run[i]))
        return run[result.slot] as T
      }
    },
  }
}

/** What `f` gives; a graph that cannot be built is a problem of this node. */
const attempt = <A>(f: () => A, fail: (message: string) => never): A => {
  try {
    return f()
  } catch (cause) {
    if (cause instanceof MixtrainException) return fail(showError(cause.error).replaceAll(`${PROBE}`, 'N'))
    throw cause
  }
}
