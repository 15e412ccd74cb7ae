import * as E from 'fp-ts/lib/Either.js'
import { order } from '../../compile/tape.ts'
import { type MixtrainError, MixtrainException, raise, usage } from '../../core/error.ts'
import { type Shape, show, size } from '../../core/shape.ts'
import type { Tensor } from '../../core/tensor.ts'
import { dataOf, inputNameOf, registry } from '../../ops/index.ts'
import { EXPORTS, FUSIONS } from './ops.ts'
import { type NodeData, type TensorData, writeModel } from './proto.ts'
import { type Facts, type Fused, refuse, type Writer } from './writer.ts'

/** A network to be written: its graph, traced on an input `[n, ...]` of any batch n. */
export interface OnnxExport {
  readonly name: string
  readonly input: Tensor
  readonly output: Tensor
  /** Name and values of the nodes that stand for parameters; those that the output does not need are left out. */
  readonly parameters: ReadonlyMap<Tensor, { readonly name: string; readonly data: ArrayLike<number> }>
  readonly metadata?: Readonly<Record<string, string>>
}

/** The first opset with axes of ReduceSum and Squeeze as inputs; every runtime since 2020 has it. */
const OPSET = 13
const IR_VERSION = 8
/** Constants of at most this many elements are written once however often they occur. */
const SMALL = 64

const factsOf = (graph: readonly Tensor[], { input, output, parameters }: Omit<OnnxExport, 'name'>): Facts => {
  const uses = new Map<Tensor, number>([[output, 1]])
  for (const x of graph) for (const i of x.inputs) uses.set(i, (uses.get(i) ?? 0) + 1)
  const known = new Map<Tensor, boolean>([[input, true]])
  const moving = (x: Tensor): boolean => {
    const is = known.get(x) ?? x.inputs.some(moving)
    known.set(x, is)
    return is
  }
  // In the order of the graph, so that a deep one does not recurse.
  graph.forEach(moving)
  return {
    moving,
    uses: (x) => uses.get(x) ?? 0,
    isParameter: (x) => parameters.has(x),
    batch: input.shape[0],
  }
}

/** What each node is written as: alone, as part of another, or with others as a part of it. */
const fusionsOf = (graph: readonly Tensor[], facts: Facts) => {
  const fused = new Map<Tensor, Fused>()
  const absorbed = new Set<Tensor>()
  for (const x of graph) {
    const found = FUSIONS.reduce<Fused | undefined>((f, fuse) => f ?? fuse(x, facts), undefined)
    if (found === undefined) continue
    fused.set(x, found)
    for (const y of found.absorbs) absorbed.add(y)
  }
  return { fused, absorbed }
}

/** Names that no two values of a file share. */
const namesOf = () => {
  const taken = new Set<string>()
  const claim = (name: string): string => {
    if (name === '' || taken.has(name))
      raise(usage(`ONNX export: the name ${JSON.stringify(name)} is empty or used twice`))
    taken.add(name)
    return name
  }
  const fresh = (stem: string): string => {
    let name = stem
    while (taken.has(name)) name += '_'
    return claim(name)
  }
  return { claim, fresh }
}

/** The tensors that a file stores, those that are small once however often they occur. */
const storeOf = (fresh: (stem: string) => string) => {
  const initializers: TensorData[] = []
  const known = new Map<string, string>()
  const store = (shape: Shape, data: Float32Array | readonly bigint[], stem: string): string => {
    const key =
      data.length <= SMALL ? `${stem}${show(shape)}${[...data].map((v) => (Object.is(v, -0) ? '-0' : v))}` : ''
    const before = known.get(key)
    if (key !== '' && before !== undefined) return before
    const name = fresh(`${stem}.${known.size}`)
    known.set(key === '' ? name : key, name)
    initializers.push({ name, shape, data })
    return name
  }
  return { initializers, store }
}

const parameterData = (x: Tensor, { name, data }: { name: string; data: ArrayLike<number> }): TensorData => {
  if (data.length !== size(x.shape))
    raise(usage(`ONNX export: parameter ${JSON.stringify(name)} ${show(x.shape)} has ${data.length} elements`))
  return { name, shape: x.shape, data: Float32Array.from(data) }
}

/** Whether the file format has the op of a node. One of a user's own that has the name of another is another op. */
const isKnown = ({ op }: Tensor): boolean => Object.hasOwn(EXPORTS, op.name) && registry.includes(op)

/** The nodes of one network, written in the order of its graph. */
const translate = (model: Omit<OnnxExport, 'name' | 'metadata'>) => {
  const { input, output, parameters } = model
  const graph = order([output])
  const facts = factsOf(graph, model)
  if (!facts.moving(output)) refuse(output, 'the output does not depend on the input')

  const { claim, fresh } = namesOf()
  const { initializers, store } = storeOf(fresh)
  const names = new Map([[input, claim(inputNameOf(input) as string)]])
  // Parameters keep their names; everything else gives way to them.
  for (const x of graph) {
    const p = parameters.get(x)
    if (p === undefined) continue
    names.set(x, claim(p.name))
    initializers.push(parameterData(x, p))
  }
  const outputName = fresh('output')

  const nodes: NodeData[] = []
  const ref = (x: Tensor): string => {
    const known = names.get(x)
    if (known !== undefined) return known
    const data = dataOf(x)
    if (data === undefined) return refuse(x, 'it is neither the input nor a parameter of the network')
    const name = store(x.shape, Float32Array.from(data), 'constant')
    names.set(x, name)
    return name
  }
  const writer: Writer = {
    ...facts,
    ref,
    ints: (values) => store([values.length], values.map(BigInt), 'shape'),
    emit: (x, op, inputs, attributes = {}) => {
      const name = `${op}.${nodes.length}`
      const result = x === output ? outputName : fresh(name)
      names.set(x, result)
      nodes.push({ name, op, inputs, outputs: [result], attributes })
    },
  }
  const { fused, absorbed } = fusionsOf(graph, facts)
  const write = (x: Tensor): void => {
    const found = fused.get(x)
    if (found !== undefined) found.write(writer)
    else if (isKnown(x)) EXPORTS[x.op.name](x, writer)
    else if ('expand' in x.op.kernel) writeParts(x, x.op.kernel.expand(x.inputs, x.attrs))
    else refuse(x, 'there is no rule for this op')
  }
  /** An op without a rule as the ops that it is made of. */
  const writeParts = (x: Tensor, made: Tensor): void => {
    for (const y of order([made])) if (y.inputs.length > 0 && !names.has(y)) write(y)
    names.set(x, ref(made))
  }
  for (const x of graph) if (x.inputs.length > 0 && !absorbed.has(x) && !parameters.has(x)) write(x)
  if (names.get(output) !== outputName)
    nodes.push({ name: `Identity.${nodes.length}`, op: 'Identity', inputs: [ref(output)], outputs: [outputName] })
  return { nodes, initializers, input: ref(input), output: outputName }
}

/**
 * Encodes a network as an ONNX model (opset 13, IR version 8, batch `N`): `output` as a function of `input`, every op as the ONNX op
 * of the same meaning, a product and its bias as one Gemm or Conv. Parameters and constants are rounded to float32. The same
 * network gives the same bytes. What `decodeOnnx` makes of them computes the same numbers. Errors: an op without a rule, one that
 * does not keep the batch as the first axis, a leaf that is not among the parameters, a name used twice.
 *
 * @example
 *   const x = input('x', [1, 2])
 *   const bytes = orThrow(encodeOnnx({ name: 'relu', input: x, output: relu(x), parameters: new Map() }))
 */
export const encodeOnnx = (model: OnnxExport): E.Either<MixtrainError, Uint8Array> =>
  E.tryCatch(
    () => {
      const { input, output, name, metadata } = model
      if (inputNameOf(input) === undefined || input.shape.length < 2)
        raise(
          usage(
            `ONNX export: the input must be an input node of shape [n, ...], not ${input.op.name} ${show(input.shape)}`,
          ),
        )
      const { nodes, initializers, ...ends } = translate(model)
      return writeModel({
        name,
        opset: OPSET,
        irVersion: IR_VERSION,
        nodes,
        initializers,
        input: { name: ends.input, shape: ['N', ...input.shape.slice(1)] },
        output: { name: ends.output, shape: ['N', ...output.shape.slice(1)] },
        ...(metadata === undefined ? {} : { metadata }),
      })
    },
    (cause) => {
      if (cause instanceof MixtrainException) return cause.error
      throw cause
    },
  )
