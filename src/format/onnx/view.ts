import { MixtrainException, show as showError } from '../../core/error.ts'
import { Fault } from '../../core/fault.ts'
import { type Shape, show } from '../../core/shape.ts'
import type { Operand, Tensor } from '../../core/tensor.ts'
import { add, constant, input } from '../../ops/index.ts'
import { castTo } from './known.ts'
import { type Attribute, AttributeType, DataType, type Graph, type Node, type TensorProto, typeName } from './proto.ts'
import {
  doublesOf,
  elements,
  isFloat,
  knownOf,
  MAX_ELEMENTS,
  MAX_RANK,
  parameterOf,
  piecesOf,
  roundedParameterOf,
} from './tensor.ts'
import {
  type Batch,
  batched,
  type Extent,
  type Floats,
  type Known,
  type NodeView,
  type Parameter,
  quote,
  type Stored,
  type Value,
} from './values.ts'

/** Batch of the probes: shapes are worked out with a batch that no extent of a network equals by accident. */
export const PROBE = 7919
/** Numbers that are computed when a file is read, all of them together, and those of one float tensor. */
const MAX_KNOWN = 2 ** 22
const MAX_KNOWN_FLOATS = 2 ** 16

interface Step {
  readonly inputs: readonly number[]
  readonly output: number
  readonly run: (xs: readonly Operand[]) => Operand
  /** The node that it is of, as messages name it. */
  readonly place?: string
}

/** A network in the making: what the nodes so far have given. */
export interface Build {
  readonly graph: Graph
  readonly opset: number
  /** What the file has for the batch where it is the first axis: 1 where the input says so. */
  readonly batch: Extent
  /** Whether the graph is one of float64 numbers. */
  readonly double: boolean
  readonly values: Map<string, Value>
  readonly steps: Step[]
  readonly parameters: Map<string, Parameter & { readonly slot: number }>
  /** Stored tensors that are values of a run already. */
  readonly read: Map<string, Floats>
  slots: number
  known: number
}

export const define = (build: Build, name: string, value: Value, place: string): void => {
  if (build.values.has(name)) throw new Fault(`the name ${quote(name)} is defined twice`, place)
  build.values.set(name, value)
}

/** What `f` gives; a graph that cannot be built is a problem of this node. */
export const attempt = <A>(f: () => A, fail: (message: string) => never): A => {
  try {
    return f()
  } catch (cause) {
    if (cause instanceof MixtrainException) return fail(showError(cause.error).replaceAll(`${PROBE}`, 'N'))
    throw cause
  }
}

const spend = (build: Build, n: number, fail: (message: string) => never): void => {
  build.known += n
  if (!(build.known <= MAX_KNOWN))
    fail(`the graph computes more than ${MAX_KNOWN} numbers from its own tensors and shapes`)
}

// ---- values of a run -----------------------------------------------------------------------------------------------

/** The shape in the file of a value that has this shape in a run. */
const shapeInFile = (build: Build, probe: Shape, batch: Batch): readonly Extent[] => {
  if (batch === 'none') return probe
  if (batch === 'front') return probe.slice(1)
  return [batch === 'first' ? build.batch : 'N', ...probe.slice(1)]
}

/** Where the batch of a value is that is computed from others; those with a batch have it in the same place. */
const batchOf = (operands: readonly Floats[]): Batch => {
  const kinds = operands.map((o) => o.batch)
  return (['first', 'front', 'repeat'] as const).find((b) => kinds.includes(b)) ?? 'none'
}

const emit = (
  build: Build,
  fail: (message: string) => never,
  operands: readonly Floats[],
  run: (xs: readonly Operand[]) => Operand,
  more: Parameters<NodeView['emit']>[2],
): Floats => {
  const probe = attempt(() => run(operands.map((o) => o.probe)) as Tensor, fail)
  const batch = more?.batch ?? batchOf(operands)
  const moving = operands.some(batched)
  if (moving && probe.shape[0] !== PROBE) fail('it moves or merges the batch axis, which must stay the first')
  if (probe.shape.length > MAX_RANK + (batch === 'front' ? 1 : 0))
    fail(`a value of ${probe.shape.length} axes; at most ${MAX_RANK} are supported`)
  const perImage = elements(moving ? probe.shape.slice(1) : probe.shape)
  if (perImage > MAX_ELEMENTS || perImage < 1) fail(`a value of shape ${show(probe.shape)}`.replace(`${PROBE}`, 'N'))
  const slot = build.slots++
  build.steps.push({ inputs: operands.map((o) => o.slot), output: slot, run })
  const few = !moving && perImage <= MAX_KNOWN_FLOATS
  return {
    kind: 'floats',
    slot,
    batch,
    shape: shapeInFile(build, probe.shape, batch),
    probe,
    known: few ? more?.known : undefined,
  }
}

/** A tensor of the file as a parameter; in a graph of float64 numbers as the sum of its pieces. */
const parameter = (build: Build, stored: Stored, fail: (message: string) => never): Floats => {
  const { name, proto } = stored
  const before = build.read.get(name)
  if (before !== undefined) return before
  const place = `tensor ${quote(name)}`
  const numbers = (): Known => knownOf(proto, place, (n) => spend(build, n, fail))
  const asDouble = build.double && proto.dataType === DataType.double
  const pieces = asDouble ? doublesOf(proto, place) : [parameterOf(proto, place)]
  const parts = pieces.map((p, i) =>
    addParameter(build, i === 0 && !build.parameters.has(name) ? name : `${name}.float64.${i}`, p, fail),
  )
  const known = elements(proto.dims) <= MAX_KNOWN_FLOATS ? numbers : undefined
  const value = { ...summed(build, parts, fail), known }
  build.read.set(name, value)
  return value
}

/** A tensor of the file under a Cast to float32, a parameter of its own where the tensor is one already. */
const rounded = (build: Build, { name, proto }: Stored, fail: (message: string) => never): Floats => {
  if (proto.dataType === DataType.float) return parameter(build, { kind: 'stored', name, proto }, fail)
  const key = `${name}.float32`
  const before = build.read.get(key)
  if (before !== undefined) return before
  const place = `tensor ${quote(name)}`
  const own = addParameter(build, build.parameters.has(name) ? key : name, roundedParameterOf(proto, place), fail)
  const few = elements(proto.dims) <= MAX_KNOWN_FLOATS
  const numbers = (): Known =>
    castTo(
      { fail, spend: (n) => spend(build, n, fail) },
      knownOf(proto, place, (n) => spend(build, n, fail)),
      DataType.float,
    )
  const value = { ...own, known: few ? numbers : undefined }
  build.read.set(key, value)
  return value
}

const addParameter = (build: Build, name: string, parameter: Parameter, fail: (message: string) => never): Floats => {
  if (build.parameters.has(name)) fail(`the name ${quote(name)} is defined twice`)
  const slot = build.slots++
  build.parameters.set(name, { ...parameter, slot })
  const { shape } = parameter
  return { kind: 'floats', slot, batch: 'none', shape, probe: input(name, shape) }
}

/** The sum from the smallest, so that a run in float32 rounds it to the largest, which is the float32 nearest to the number. */
const summed = (build: Build, parts: readonly Floats[], fail: (message: string) => never): Floats =>
  [...parts].reverse().reduce((a, b) => emit(build, fail, [a, b], ([x, y]) => add(x, y) as Operand, {}))

/** Known floats as a value of a run. */
const constantOf = (build: Build, x: Known, fail: (message: string) => never): Floats => {
  if (!x.exact) fail('a number that float arithmetic rounded is used as if it were exact')
  if (x.data.length === 0) fail(`a value of shape ${show(x.shape)}, without elements`)
  const pieces = piecesOf(x.data as readonly number[], 'a constant')
  const parts = pieces.map((data) => emit(build, fail, [], () => constant(data, x.shape), {}))
  return { ...summed(build, parts, fail), known: () => x }
}

// ---- what a node sees ----------------------------------------------------------------------------------------------

type Fail = (message: string) => never

const attributesOf = (n: Node, fail: Fail) => {
  const read = new Set<string>()
  const attributes = new Map<string, Attribute>()
  for (const a of n.attributes) {
    if (attributes.has(a.name)) fail(`attribute ${quote(a.name)} is given twice`)
    attributes.set(a.name, a)
  }
  const of = (name: string, type: AttributeType): Attribute | undefined => {
    read.add(name)
    const a = attributes.get(name)
    if (a !== undefined && a.type !== type)
      fail(
        `attribute ${name}: expected ${AttributeType[type]}, found ${a.type === 0 ? 'neither type nor value' : (AttributeType[a.type] ?? `type ${a.type}`)}`,
      )
    return a
  }
  const integer = (name: string, v: number): number =>
    Number.isSafeInteger(v) ? v : fail(`attribute ${name}: ${v} is out of range`)
  return {
    given: (name: string) => attributes.has(name),
    attribute: (name: string) => {
      read.add(name)
      return attributes.get(name)
    },
    int: (name: string, otherwise: number) => integer(name, of(name, AttributeType.int)?.i ?? otherwise),
    float: (name: string, otherwise: number) => of(name, AttributeType.float)?.f ?? otherwise,
    string: (name: string, otherwise: string) => of(name, AttributeType.string)?.s ?? otherwise,
    list: (name: string) => of(name, AttributeType.ints)?.ints.map((v) => integer(name, v)),
    ends: (name: string) => of(name, AttributeType.ints)?.ints,
    tensor: (name: string): Stored => {
      const t = of(name, AttributeType.tensor)?.t
      return t === undefined ? fail(`attribute ${name} is missing`) : { kind: 'stored', proto: t, name: n.outputs[0] }
    },
    unread: () => [...attributes.keys()].find((name) => !read.has(name)),
  }
}

const inputsOf = (build: Build, n: Node, fail: Fail) => {
  const has = (i: number): boolean => (n.inputs[i] ?? '') !== ''
  const value = (i: number): Value => {
    if (!has(i)) return fail(`input ${i} is missing`)
    const name = n.inputs[i]
    const v = build.values.get(name)
    if (v === undefined)
      return fail(
        build.graph.nodes.some((other) => other.outputs.includes(name))
          ? `input ${quote(name)} is computed by this node or a later one: nodes must be in order, without cycles`
          : `input ${quote(name)} is not defined`,
      )
    return v.kind === 'absent' ? fail(`input ${quote(name)}: ${v.reason}`) : v
  }
  const stored = ({ proto, name }: Stored): Known =>
    knownOf(proto, `tensor ${quote(name)}`, (m) => spend(build, m, fail))
  const floats = (i: number): Floats => {
    const v = value(i)
    if (v.kind === 'floats') return v
    if (v.kind === 'stored') return parameter(build, v, fail)
    if (v.kind === 'known' && isFloat(v.type)) return constantOf(build, v, fail)
    return fail(`input ${i} is an integer tensor, expected float32`)
  }
  const known = (i: number): Known => {
    const v = value(i)
    if (v.kind === 'known') return v
    const k = v.kind === 'stored' ? stored(v) : v.kind === 'floats' ? v.known?.() : undefined
    return (
      k ??
      fail(
        `input ${i} must be known when the file is read: stored in it, or computed from what is stored and from shapes`,
      )
    )
  }
  const numbers = (i: number): readonly number[] => {
    const { type, shape, data } = known(i)
    if (isFloat(type) || type === DataType.bool) fail(`input ${i}: expected int64 data, found ${typeName(type)}`)
    if (shape.length > 1) fail(`input ${i}: integers of rank ${shape.length}; 0 or 1 was expected`)
    return data.map((d) => (d === 'N' ? fail(`input ${i} must not depend on the size of the batch`) : d))
  }
  return {
    has,
    value,
    floats,
    known,
    numbers,
    constant: (proto: TensorProto): Known => stored({ kind: 'stored', proto, name: n.outputs[0] ?? '' }),
    rounded: (v: Stored): Floats => rounded(build, v, fail),
    either: (i: number): Known | Floats => {
      const v = value(i)
      // A number that arithmetic rounded may shape the network, but is none of its numbers.
      if (v.kind === 'known' && (!isFloat(v.type) || !v.exact)) return v
      return v.kind === 'stored' && !isFloat(v.proto.dataType) ? known(i) : floats(i)
    },
    number: (i: number): number => {
      const { data, exact } = known(i)
      if (data.length !== 1) fail(`input ${i} must be one number, found ${data.length}`)
      if (!exact) fail(`input ${i} is a number that float arithmetic rounded: store it in the file`)
      const [v] = data
      if (v === 'N') return fail(`input ${i} must not depend on the size of the batch`)
      return Object.is(Math.fround(v), v) ? v : fail(`input ${i} is ${v}, which float32 does not hold`)
    },
    flag: (i: number): boolean => {
      const { type, data } = known(i)
      return type === DataType.bool && data.length === 1 ? data[0] !== 0 : fail(`input ${i} must be one known boolean`)
    },
  }
}

/** What the import of a node sees; `unread` is an attribute that it did not ask for. */
export const viewOf = (
  build: Build,
  n: Node,
  place: string,
): NodeView & { readonly unread: () => string | undefined } => {
  const fail = (message: string): never => {
    throw new Fault(message, place)
  }
  return {
    opset: build.opset,
    batch: build.batch,
    double: build.double,
    arity: n.inputs.length,
    results: n.outputs.length,
    fail,
    spend: (m) => spend(build, m, fail),
    ...attributesOf(n, fail),
    ...inputsOf(build, n, fail),
    emit: (operands, run, more) => emit(build, fail, operands, run, more),
  }
}
