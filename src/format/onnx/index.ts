import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { fileError, type MixtrainError } from '../../core/error.ts'
import { Fault } from '../../core/fault.ts'
import type { Shape } from '../../core/shape.ts'
import type { Operand, Tensor } from '../../core/tensor.ts'
import { constant } from '../../ops/index.ts'
import { type Imported, importGraph } from './import.ts'
import { DataType, type Graph, type Model, readModel } from './proto.ts'
import { quote } from './values.ts'

export { encodeOnnx, type OnnxExport } from './export.ts'

/** A network read from an ONNX file. `path` is only for messages. */
export interface OnnxModel {
  readonly path: string
  /** Shapes without the batch: `[c, h, w]` or `[features]`. */
  readonly input: { readonly name: string; readonly shape: Shape }
  readonly output: { readonly name: string; readonly shape: Shape }
  /** Where the graph ends in a Softmax or LogSoftmax of classes: what it is of. Ask for it by `OnnxOptions.output`; its order is that of the output. */
  readonly logits?: { readonly op: 'Softmax' | 'LogSoftmax'; readonly name: string }
  /** Every float tensor of the file that the network reads, initializer or Constant, by name. */
  readonly parameters: ReadonlyMap<string, { readonly shape: Shape; readonly data: Float32Array }>
  /**
   * The function of the graph, `[n, ...input.shape] -> [n, ...output.shape]` for every n, on tensors and interval tensors. The
   * parameters are nodes: constants (`parameterConstants`), or inputs to be fed or trained. Raises a usage error where one is
   * missing, a shape error where one has another shape.
   */
  readonly network: (params: ReadonlyMap<string, Tensor>) => <T extends Operand>(x: T) => T
  readonly metadata: Readonly<Record<string, string>>
  readonly producer: string
  readonly opset: number
}

/** What is read of an ONNX file. */
export interface OnnxOptions {
  /** The output of a node, by its name in the file, that is asked for instead of the output of the graph. */
  readonly output?: string | undefined
}

/** The operand of a softmax over the only axis of an image that the graph ends in. */
const logitsOf = (graph: Graph, { output }: Imported): OnnxModel['logits'] => {
  if (output.shape.length !== 1) return undefined
  let name = graph.outputs[0].name
  for (;;) {
    const last = graph.nodes.find((n) => n.outputs.includes(name))
    if (last === undefined || !['', 'ai.onnx'].includes(last.domain)) return undefined
    if (last.op === 'Softmax' || last.op === 'LogSoftmax') {
      const axis = last.attributes.find((a) => a.name === 'axis')?.i
      return axis === 0 ? undefined : { op: last.op, name: last.inputs[0] }
    }
    if (last.op !== 'Identity') return undefined
    name = last.inputs[0]
  }
}

/** The least and the greatest opset that is read. */
export const OPSETS = [7, 25] as const

const checked = (model: Model, path: string, output: string | undefined): E.Either<MixtrainError, OnnxModel> => {
  const left = (message: string, place?: string) => E.left(fileError(path, message, place))
  if (model.irVersion < 3) return left(`expected an IR version >= 3, found ${model.irVersion}`, 'model')
  if (model.graph === undefined) return left('the model has no graph', 'model')
  if (model.functions > 0) return left('model-local functions are not supported', 'model')
  const standard = model.opsets.filter(({ domain }) => domain === '' || domain === 'ai.onnx')
  // Some exporters list the standard under both of its names, or twice.
  const versions = [...new Set(standard.map(({ version }) => version))]
  if (versions.length !== 1)
    return left(
      `expected one version of the standard opset, found ${versions.length === 0 ? 'none' : versions.join(' and ')}`,
      'opset import',
    )
  const [version] = versions
  if (!(version >= OPSETS[0] && version <= OPSETS[1]))
    return left(`opset ${version} is not supported; ${OPSETS[0]} to ${OPSETS[1]} are`, 'opset import')
  const keys = new Set<string>()
  for (const [key] of model.metadata) {
    if (keys.has(key)) return left(`the key ${quote(key)} occurs twice`, 'metadata')
    keys.add(key)
  }
  const graph =
    output === undefined
      ? model.graph
      : { ...model.graph, outputs: [{ name: output, elemType: DataType.undefined, shape: undefined }] }
  return E.tryCatch(
    () => {
      const imported = importGraph(graph, version)
      const logits = logitsOf(graph, imported)
      return {
        path,
        ...imported,
        ...(logits === undefined ? {} : { logits }),
        metadata: Object.fromEntries(model.metadata),
        producer: model.producer,
        opset: version,
      }
    },
    (cause) => {
      if (cause instanceof Fault) return fileError(path, cause.message, cause.place)
      throw cause
    },
  )
}

/**
 * Decodes an ONNX file (https://onnx.ai): a feed-forward network of float32 tensors with one input and one output, in the ops of
 * the standard that ops.ts lists, opset 7 to 25. Nothing in the file is trusted: what is truncated, out of order, defined
 * twice or not at all, of the wrong type, shape or length, too large, or stored in other files is an error that names the
 * byte, or the node with its op and attribute.
 *
 * The network takes any number of images, `[n, ...input.shape]`. An input `[N, ...]` or `[1, ...]` has the batch first; any other
 * (`[2]`, `[12, 8]`) is one image as a whole, and the batch is put in front of its axes (see `entryOf`). A graph that mixes the
 * images of an open batch, moves it or computes with its size is refused. What depends on the file alone is computed when it is read
 * where it is exact (integers, shapes, masks); float arithmetic on parameters stays in the graph.
 *
 * A graph of float64 numbers is read as the same function of real numbers: weights that float32 does not hold become sums of float32
 * tensors. A Cast to float32 rounds as every runtime does, and its result is the weight.
 *
 * @example
 *   const { network, input, output } = orThrow(decodeOnnx(await readFile('model.onnx'), 'model.onnx'))
 */
export const decodeOnnx = (
  bytes: Uint8Array,
  path: string,
  { output }: OnnxOptions = {},
): E.Either<MixtrainError, OnnxModel> =>
  pipe(
    readModel(bytes, path),
    E.chain((model) => checked(model, path, output)),
  )

/**
 * The parameters of a model as constants, by name, each in its shape in the file.
 *
 * @example
 *   const values = parameterConstants(orThrow(decodeOnnx(await readFile('model.onnx'), 'model.onnx')))
 */
export const parameterConstants = (model: Pick<OnnxModel, 'parameters'>): ReadonlyMap<string, Tensor> =>
  new Map([...model.parameters].map(([name, { data, shape }]) => [name, constant(data, shape)]))
