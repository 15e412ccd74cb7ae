import { order } from '../../compile/tape.ts'
import { raise } from '../../core/error.ts'
import { Fault } from '../../core/fault.ts'
import { withOrigin } from '../../core/op.ts'
import { equals, type Shape, show, size } from '../../core/shape.ts'
import { isInterval, type Operand, type Tensor } from '../../core/tensor.ts'
import { input } from '../../ops/index.ts'
import { asOutput } from './axes.ts'
import { IMPORTS } from './ops.ts'
import { DataType, type Graph, type Node, type TensorProto, typeName } from './proto.ts'
import { elements, MAX_ELEMENTS, MAX_RANK } from './tensor.ts'
import { type Batch, batched, type Extent, type Floats, type Parameter, quote, type Value } from './values.ts'
import { attempt, type Build, define, PROBE, viewOf } from './view.ts'

const fail = (message: string, place?: string): never => {
  throw new Fault(message, place)
}

const nodePlace = (n: Node, index: number): string =>
  `node ${index}${n.name === '' ? '' : ` ${quote(n.name)}`} (${quote(n.op).slice(1, -1)})`

/** Whether a graph input or output of this type holds numbers that a network of real numbers can stand for. */
const readable = (type: number): boolean => type === DataType.float || type === DataType.double

type Dim = number | string | undefined
const isNumber = (d: Dim): d is number => typeof d === 'number' && d >= 0
const showDim = (d: Dim): string => (typeof d === 'string' ? quote(d) : `${d ?? 'unknown'}`)

/** What a run feeds, and what the file calls it. */
interface Entry {
  readonly shape: Shape
  readonly place: Batch
  readonly batch: Extent
}

/**
 * How the batch is found in the declared shape of the input:
 *
 * - the first of several axes is open (a name, -1, nothing) and the others are numbers: it is the batch, of any size, and must stay the
 *   first axis of all that depends on it;
 * - the first of several axes is 1: it is a batch of one image, which runs generalise. Whatever does something else with that axis
 *   (reduces it, moves it, multiplies over it) sees the shape of the file, with the batch of the run in front;
 * - all extents are numbers and the first is larger, or there is only one axis: the whole tensor is one image, and the batch of a run is
 *   put in front of its axes. A batch of 12 in the file is thus an image of 12 rows, which the graph may mix as it likes;
 * - the first is a larger number and one of the others is open: the same, at an extent of 1 of the open axis.
 *
 * Nothing else is guessed.
 */
const entryOf = ({ name, elemType, shape }: Graph['inputs'][number]): Entry => {
  const place = `graph input ${quote(name)}`
  if (!readable(elemType)) return fail(`expected a float32 tensor, found ${typeName(elemType)}`, place)
  if (shape === undefined) return fail('it has no shape', place)
  if (shape.length < 1 || shape.length > MAX_RANK)
    return fail(`expected 1 to ${MAX_RANK} axes, found ${shape.length}`, place)
  if (shape[0] === 0) fail('extent 0 is 0, an empty batch: give the batch a name, or -1, or make it 1', place)
  const number = (d: Dim, i: number): number =>
    isNumber(d) && Number.isSafeInteger(d) && d >= 1
      ? d
      : fail(`extent ${i} must be a number >= 1, not ${showDim(d)}: only the batch, the first axis, may be open`, place)
  const sized = (extents: Shape): Shape =>
    elements(extents) > MAX_ELEMENTS ? fail(`the shape ${show(extents)} is too large`, place) : extents
  const [first, ...rest] = shape
  const open = !isNumber(first)
  if (rest.length > 0 && (open || first === 1))
    return { shape: sized(rest.map((d, i) => number(d, i + 1))), place: 'first', batch: open ? 'N' : 1 }
  const elsewhere = rest.filter((d) => !isNumber(d)).length === 1
  return {
    shape: sized(shape.map((d, i) => (elsewhere && !isNumber(d) ? 1 : number(d, i)))),
    place: 'front',
    batch: 1,
  }
}

/**
 * An initializer that is listed among the inputs, as files of IR version 3 have it, is what its input says: two declarations that contradict each other are two networks,
 * and a runtime that lets a caller replace the tensor goes by the other.
 */
const checkStored = ({ name, elemType, shape }: Graph['inputs'][number], { dataType, dims }: TensorProto): void => {
  const place = `graph input ${quote(name)}`
  const stored = `the initializer of that name is ${typeName(dataType)} ${show(dims)}`
  if (elemType !== DataType.undefined && elemType !== dataType)
    fail(`the file says ${typeName(elemType)}, but ${stored}`, place)
  if (shape === undefined) return
  if (shape.length !== dims.length || !shape.every((d, i) => !isNumber(d) || d === dims[i]))
    fail(`the file says [${shape.map(showDim).join(',')}], but ${stored}`, place)
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

/** Gives the outputs of a node their values. */
const importNode = (build: Build, n: Node, index: number, wanted: boolean): void => {
  const place = nodePlace(n, index)
  const set = (name: string, value: Value): void => {
    if (name !== '') define(build, name, value, place)
  }
  if (!wanted) {
    for (const o of n.outputs) set(o, { kind: 'absent', reason: 'it is not computed' })
    return
  }
  const domain = n.domain === '' ? '' : ` of domain ${quote(n.domain)}`
  if (!['', 'ai.onnx'].includes(n.domain) || !Object.hasOwn(IMPORTS, n.op))
    fail(`the op ${quote(n.op)}${domain} is not supported`, place)
  const view = viewOf(build, n, place)
  const from = build.steps.length
  const value = attempt(() => IMPORTS[n.op](view), view.fail)
  build.steps.push(...build.steps.splice(from).map((s) => ({ ...s, place })))
  const unread = view.unread()
  if (unread !== undefined) fail(`attribute ${quote(unread)} is not supported`, place)
  const values = value.kind === 'outputs' ? value.values : [value]
  if (value.kind !== 'outputs' && (n.outputs[0] ?? '') === '') fail('its first output has no name', place)
  n.outputs.forEach((o, i) => {
    const only =
      value.kind === 'outputs' ? `${n.op} has ${values.length}` : `only the first output of ${n.op} is supported`
    set(o, values[i] ?? { kind: 'absent', reason: only })
  })
}

/** Whether the file's shape of the output is the one that was computed; what is open agrees with all. */
const checkOutput = ({ name, elemType, shape }: Graph['outputs'][number], result: Floats): void => {
  const place = `graph output ${quote(name)}`
  if (elemType !== DataType.undefined && !readable(elemType))
    fail(`expected a float32 tensor, found ${typeName(elemType)}`, place)
  if (shape === undefined) return
  const agrees = (d: Dim, i: number): boolean =>
    !isNumber(d) || (result.shape[i] === 'N' ? d === 1 : d === result.shape[i])
  if (shape.length !== result.shape.length || !shape.every(agrees))
    fail(
      `the file says ${show(shape.map((d) => d ?? '?') as number[])}, but the graph computes ${show(result.shape as Shape)}`,
      place,
    )
}

/**
 * A value in between is what the file says of it (`value_info`): a runtime that goes by the declared shape or type runs another network. Extents that are
 * open there, or 0 as older exporters write them, say nothing, nor does a number for an open batch. Either type of floats stands for real numbers. Initializers
 * are what they are: exporters of benchmarks list them with types and shapes of their own.
 */
const checkValue = ({ name, elemType, shape }: Graph['values'][number], found: Value | undefined): void => {
  const place = `value ${quote(name)}`
  if (found?.kind !== 'floats' && found?.kind !== 'known') return
  const type: DataType = found.kind === 'known' ? found.type : DataType.float
  const own: readonly Extent[] = found.shape
  if (elemType !== DataType.undefined && elemType !== type && !(readable(elemType) && readable(type)))
    fail(`the file says ${typeName(elemType)}, but the graph computes ${typeName(type)}`, place)
  const agrees = (d: Dim, i: number): boolean => !isNumber(d) || d === 0 || own[i] === 'N' || d === own[i]
  if (shape !== undefined && (shape.length !== own.length || !shape.every(agrees)))
    fail(`the file says [${shape.map(showDim).join(',')}], but the graph computes ${show(own as Shape)}`, place)
}

const endsOf = (x: Operand): readonly Tensor[] => (isInterval(x) ? [x.lower, x.upper] : [x])

const networkOf = (build: Build, x: Floats, result: Floats, inputShape: Shape): Imported['network'] => {
  const { steps, slots } = build
  const wanted = [...build.parameters].map(([key, { shape, slot }]) => ({ key, shape, slot }))
  return (params) => {
    const given = wanted.map(({ key, shape, slot }) => {
      const t = params.get(key)
      if (t === undefined)
        return raise({ kind: 'usage', message: `the network has a parameter ${quote(key)}, which is not given` })
      return equals(t.shape, shape)
        ? ([slot, t] as const)
        : raise({
            kind: 'shape',
            op: `parameter ${quote(key)}`,
            message: `expected ${show(shape)}, found ${show(t.shape)}`,
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
      for (const { inputs, output, run: step, place } of steps) {
        const operands = inputs.map((i) => run[i])
        const made = step(operands)
        run[output] =
          place === undefined || isInterval(made) ? made : withOrigin(made, new Set(operands.flatMap(endsOf)), place)
      }
      return run[result.slot] as T
    }
  }
}

/**
 * Works out the shapes of a graph and turns every node into a step on operands. Shapes are found by building the graph once
 * on a batch of `PROBE` images: nodes own no memory, and what builds for that batch builds for every batch, since no extent
 * but the first of a batched value may depend on it. Throws a Fault.
 */
export const importGraph = (graph: Graph, opset: number): Imported => {
  if (graph.sparse > 0) fail('sparse initializers are not supported', 'graph')
  // Files of IR version 3 list the initializers among the inputs.
  const stored = new Map(graph.initializers.map((proto) => [proto.name, proto]))
  const twice = graph.inputs.find(({ name }, i) => graph.inputs.findIndex((other) => other.name === name) < i)
  if (twice !== undefined) fail('it is listed twice', `graph input ${quote(twice.name)}`)
  for (const declared of graph.inputs) {
    const proto = stored.get(declared.name)
    if (proto !== undefined) checkStored(declared, proto)
  }
  const inputs = graph.inputs.filter(({ name }) => !stored.has(name))
  if (inputs.length !== 1) fail(`expected one input besides the initializers, found ${inputs.length}`, 'graph')
  if (graph.outputs.length !== 1) fail(`expected one output, found ${graph.outputs.length}`, 'graph')
  const [{ name, elemType }] = inputs
  const entry = entryOf(inputs[0])
  const build: Build = {
    graph,
    opset,
    batch: entry.batch,
    double: elemType === DataType.double,
    values: new Map(),
    steps: [],
    parameters: new Map(),
    read: new Map(),
    slots: 1,
    known: 0,
  }
  for (const proto of graph.initializers)
    define(build, proto.name, { kind: 'stored', proto, name: proto.name }, `initializer ${quote(proto.name)}`)
  const x: Floats = {
    kind: 'floats',
    slot: 0,
    batch: entry.place,
    shape: entry.place === 'first' ? [entry.batch, ...entry.shape] : entry.shape,
    probe: input(name, [PROBE, ...entry.shape]),
  }
  define(build, name, x, `graph input ${quote(name)}`)

  const used = needed(graph.nodes, graph.outputs[0].name)
  graph.nodes.forEach((n, index) => importNode(build, n, index, used[index]))

  const place = `graph output ${quote(graph.outputs[0].name)}`
  const found = build.values.get(graph.outputs[0].name)
  if (found === undefined) return fail('no node computes it', place)
  if (found.kind !== 'floats' || !batched(found)) return fail('it does not depend on the input', place)
  checkOutput(graph.outputs[0], found)
  for (const declared of graph.values) checkValue(declared, build.values.get(declared.name))
  const result = asOutput(viewOf(build, EMPTY, place), found)
  const large = order([result.probe]).find((y) => size(y.shape) > PROBE * MAX_ELEMENTS)
  if (large !== undefined) fail(`it needs a value of more than ${MAX_ELEMENTS} elements an image`, place)
  return {
    input: { name, shape: entry.shape },
    output: { name: graph.outputs[0].name, shape: result.probe.shape.slice(1) },
    parameters: new Map([...build.parameters].map(([key, { shape, data }]) => [key, { shape, data }])),
    network: networkOf(build, x, result, entry.shape),
  }
}

/** The place of the output as a node without inputs. */
const EMPTY: Node = { name: '', op: '', domain: '', inputs: [], outputs: [], attributes: [] }
