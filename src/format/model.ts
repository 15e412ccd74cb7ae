import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { z } from 'zod'
import { fileError, type MixtrainError, MixtrainException, raise, show, usage } from '../core/error.ts'
import { unknownName } from '../core/names.ts'
import { problemOf } from '../core/problem.ts'
import { type Shape, show as showShape } from '../core/shape.ts'
import { type Description, inputsOf, layerOf, type Named, type Normalization } from '../nn/layers.ts'
import { type Ending, type Network, network, networks, type Task } from '../nn/networks.ts'
import { input } from '../ops/index.ts'
import { decodeOnnx, encodeOnnx, type OnnxModel } from './onnx/index.ts'
import { decode, encode, expectTensors, isSafetensors, type Metadata } from './safetensors.ts'

/** How a model came about, for reports. */
export interface Provenance {
  /** l-inf radius it was trained for, in units of inputs from 0 to 1. */
  readonly epsilon: number
  readonly loss: string
  readonly seed: number
  /** `exact`: the same bits on every engine; `fast-math`: trained on a GPU, or with fused multiply-adds where the engine has them. */
  readonly arithmetic: 'exact' | 'fast-math'
  /** The images it was trained on: `digits`, or the path of a folder, and how many of its training images, from the first. Absent in models that do not tell. */
  readonly data?: { readonly source: string; readonly images: number } | undefined
  /** Micro-batches that each batch was cut into, which decide the bits. Absent: none. */
  readonly microBatches?: number | undefined
}

/** A network with its weights, as a file holds it. Inputs are pixels in [0, 1]; what the network normalizes, it does itself. */
export interface SavedModel {
  readonly network: Network
  readonly parameters: Named<Float32Array>
  /** Absent in models of other programs. */
  readonly provenance: Provenance | undefined
  /** What a user should know of the network, if it is not quite that of the file. */
  readonly note?: string
  /** The op at the end of the file that the network is without: what is said of it is said of its logits. */
  readonly ending?: Ending
}

/** Version of the metadata; a reader refuses later ones. */
const VERSION = 1

/** Whether a network is the one that its name stands for, so that the name is all that a file needs. */
const isNamed = ({ name, input, classes, normalization, description }: Network): boolean => {
  if (!Object.hasOwn(networks, name)) return false
  try {
    const known = networks[name as keyof typeof networks]({ input, classes, normalization })
    return JSON.stringify(known.description) === JSON.stringify(description)
  } catch (cause) {
    if (cause instanceof MixtrainException) return false
    throw cause
  }
}

/** Whether `encodeModel` can write a network: by a name of `networks`, or as the description of its layers. */
export const isDescribed = (network: Network): boolean => network.description !== undefined || isNamed(network)

const metadataOf = (model: SavedModel): Metadata => ({
  format: 'mixtrain',
  version: String(VERSION),
  network: model.network.name,
  ...(model.network.description === undefined || isNamed(model.network)
    ? {}
    : { layers: JSON.stringify(model.network.description) }),
  input: JSON.stringify(model.network.input),
  classes: String(model.network.classes),
  // The name that the first version of the format has for it.
  normalisation: model.network.normalization === undefined ? 'none' : JSON.stringify(model.network.normalization),
  ...(model.provenance === undefined
    ? {}
    : {
        epsilon: String(model.provenance.epsilon),
        loss: model.provenance.loss,
        seed: String(model.provenance.seed),
        arithmetic: model.provenance.arithmetic,
        ...(model.provenance.data === undefined ? {} : { data: JSON.stringify(model.provenance.data) }),
        ...(model.provenance.microBatches === undefined ? {} : { microBatches: String(model.provenance.microBatches) }),
      }),
})

const numeral = z
  .string()
  .max(30)
  .regex(/^-?\d+(\.\d+)?(e-?\d+)?$/, 'expected a number')
const number = numeral.transform(Number)
const extent = z.int().min(1).max(65536)

const TrainedOn = z.strictObject({ source: z.string().min(1), images: z.int().min(1) })

const Provenance = z.object({
  epsilon: number.pipe(z.number().min(0).max(1)),
  loss: z.string().max(100),
  seed: number.pipe(z.int()),
  arithmetic: z.enum(['exact', 'fast-math']),
  microBatches: number.pipe(z.int().min(1)).optional(),
  data: z
    .string()
    .max(10_000)
    .transform((text, context) => {
      const data = E.tryCatch(
        () => TrainedOn.parse(JSON.parse(text)),
        () => 'expected the source and the number of images as JSON',
      )
      if (E.isRight(data)) return data.right
      context.addIssue({ code: 'custom', message: data.left })
      return z.NEVER
    })
    .optional(),
})

const perChannel = z.array(z.number()).max(1024)
const Normalized = z.strictObject({ mean: perChannel, std: perChannel })

/** `normalisation` of the metadata: `none`, or `{"mean":[...],"std":[...]}` with one number per channel. */
const normalization = z
  .string()
  .max(100_000)
  .transform((text, context): Normalization | undefined => {
    if (text === 'none') return undefined
    try {
      const parsed = Normalized.safeParse(JSON.parse(text))
      if (parsed.success) return parsed.data
    } catch {
      // Not JSON: the same message as for other JSON.
    }
    context.addIssue({ code: 'custom', message: 'expected none, or mean and std per channel as JSON' })
    return z.NEVER
  })

const some = z.int().min(0).max(65536)
const Layers: z.ZodType<Description> = z.lazy(() =>
  z.discriminatedUnion('layer', [
    z.strictObject({ layer: z.enum(['relu', 'sigmoid', 'tanh', 'gelu', 'flatten', 'batchNorm', 'layerNorm']) }),
    z.strictObject({ layer: z.literal('leakyRelu'), slope: z.number().min(0).lt(1) }),
    z.strictObject({ layer: z.literal('dense'), out: extent }),
    z.strictObject({
      ...{ layer: z.literal('conv'), out: extent, kernel: extent, stride: extent, padding: some, groups: extent },
    }),
    z.strictObject({ layer: z.enum(['maxPool', 'averagePool']), size: extent, stride: extent, padding: some }),
    z.strictObject({ layer: z.literal('normalize'), mean: perChannel, std: perChannel }),
    z.strictObject({ layer: z.literal('sequential'), layers: z.array(Layers).max(10_000) }),
    z.strictObject({ layer: z.literal('residual'), body: Layers, skip: Layers }),
  ]),
)

/** How deep brackets are nested: a reader of a file must not recurse as far as the file says. */
const depthOf = (text: string): number => {
  let [depth, most] = [0, 0]
  for (const c of text) {
    if (c === '{' || c === '[') most = Math.max(most, ++depth)
    else if (c === '}' || c === ']') depth--
  }
  return most
}
const DEEPEST = 100

/** The layer `normalize` was written with an s. */
const formerly = (name: string, value: unknown): unknown =>
  name === 'layer' && value === 'normalise' ? 'normalize' : value

/** Layers as JSON. */
const layers = z
  .string()
  .max(1_000_000)
  .transform((text, context): Description => {
    try {
      const parsed = depthOf(text) > DEEPEST ? undefined : Layers.safeParse(JSON.parse(text, formerly))
      if (parsed?.success) return parsed.data
    } catch {
      // Not JSON: the same message as for other JSON.
    }
    context.addIssue({ code: 'custom', message: 'expected the description of a layer as JSON' })
    return z.NEVER
  })

const About = z.object({
  format: z.literal('mixtrain'),
  version: number.pipe(z.int().min(1).max(VERSION)),
  network: z.string().max(1000),
  layers: layers.optional(),
  input: z
    .string()
    .max(100)
    .regex(/^\[\d+(,\d+)*\]$/, 'expected a shape')
    .transform((text) => JSON.parse(text) as number[])
    .pipe(z.array(extent).max(4)),
  classes: number.pipe(z.int().min(2).max(65536)),
  normalisation: normalization,
})

const firstIssue = (error: z.ZodError, input: unknown): string => {
  const { place, message } = problemOf(error, input)
  return place === undefined ? message : `${place}: ${message}`
}

const built = (
  name: string,
  description: Description | undefined,
  task: Task,
  path: string,
): E.Either<MixtrainError, Network> => {
  if (description === undefined && !Object.hasOwn(networks, name))
    return E.left(fileError(path, unknownName('network', name, Object.keys(networks)), 'metadata'))
  try {
    return E.right(
      description === undefined
        ? networks[name as keyof typeof networks](task)
        : network(name, layerOf(description), task),
    )
  } catch (cause) {
    if (cause instanceof MixtrainException) return E.left(fileError(path, show(cause.error), 'metadata'))
    throw cause
  }
}

const shapesOf = (network: Network): Named<Shape> =>
  Object.fromEntries(Object.entries(network.parameters).map(([name, p]) => [name, p.shape]))

/**
 * A model as safetensors: its parameters by name, and what it is in the metadata. The same model gives the same bytes. A network of one's own is written as
 * the description of its layers. Raises a usage error for one that has none, such as a network from ONNX: nothing could read it back.
 *
 * @example
 *   await writeFile('model.safetensors', encodeModel(model))
 */
export const encodeModel = (model: SavedModel): Uint8Array => {
  if (!isDescribed(model.network))
    raise(
      usage(
        `network ${model.network.name} is not made of layers that have a description, so its file could not be read back: encodeModelOnnx writes it as ONNX`,
      ),
    )
  return encode(
    new Map(
      Object.entries(shapesOf(model.network)).map(([name, shape]) => [name, { shape, data: model.parameters[name] }]),
    ),
    metadataOf(model),
  )
}

/** Decodes what `encodeModel` wrote. Metadata, names and shapes are checked; nothing in the file is trusted. */
const decodeSafetensors = (bytes: Uint8Array, path: string): E.Either<MixtrainError, SavedModel> =>
  pipe(
    E.Do,
    E.bind('file', () => decode(bytes, path)),
    E.bind('about', ({ file }) => {
      if (file.metadata.format !== 'mixtrain')
        return E.left(fileError(path, 'these are tensors, but not a model that mixtrain saved', 'metadata'))
      const about = About.safeParse(file.metadata)
      if (!about.success) return E.left(fileError(path, firstIssue(about.error, file.metadata), 'metadata'))
      const { normalisation: normalization, ...rest } = about.data
      return E.right({ ...rest, normalization })
    }),
    E.bind('provenance', ({ file }): E.Either<MixtrainError, Provenance | undefined> => {
      if (!Object.keys(Provenance.shape).some((k) => Object.hasOwn(file.metadata, k))) return E.right(undefined)
      const parsed = Provenance.safeParse(file.metadata)
      return parsed.success
        ? E.right(parsed.data)
        : E.left(fileError(path, firstIssue(parsed.error, file.metadata), 'metadata'))
    }),
    E.bind('network', ({ about }) => built(about.network, about.layers, about, path)),
    E.bind('tensors', ({ file, network }) => expectTensors(file, shapesOf(network))),
    E.map(({ network, tensors, provenance }) => ({
      network,
      parameters: Object.fromEntries([...tensors].map(([name, { data }]) => [name, data])),
      provenance,
    })),
  )

/** A network read from ONNX as one of ours: its parameters are the tensors of the file. */
const networkOf = (model: OnnxModel): Network => ({
  name: 'onnx',
  input: model.input.shape,
  classes: model.output.shape[0],
  parameters: Object.fromEntries(
    [...model.parameters].map(([name, { shape }]) => [name, { shape, fanIn: Math.max(1, ...shape.slice(1)) }]),
  ),
  inputs: inputsOf(Object.fromEntries(model.parameters)),
  init: () => Object.fromEntries([...model.parameters].map(([name, { data }]) => [name, data])),
  apply: (parameters) => model.network(new Map(Object.entries(parameters))),
  statistics: () => () => ({}),
})

/** A classifier, without a softmax at its end: probabilities have the order of the logits, whose bounds are tighter and margins are differences. */
const beforeSoftmax = (
  model: OnnxModel,
  bytes: Uint8Array,
  path: string,
): E.Either<MixtrainError, { readonly model: OnnxModel } & Pick<SavedModel, 'note' | 'ending'>> =>
  model.logits === undefined
    ? E.right({ model })
    : pipe(
        decodeOnnx(bytes, path, { output: model.logits.name }),
        E.map((before) => ({
          model: before,
          ...(model.logits === undefined ? {} : { ending: model.logits.op }),
          note: `${path} ends in ${model.logits?.op}, which keeps the order of the classes: what follows is about the logits before it, and verdicts are the same (a float32 softmax may round two probabilities to one number)`,
        })),
      )

/** How a file of ONNX begins, as every exporter writes it: field 1, the version of the representation. */
const ONNX_START = 0x08

const decodeForeign = (bytes: Uint8Array, path: string): E.Either<MixtrainError, SavedModel> =>
  pipe(
    decodeOnnx(bytes, path),
    E.mapLeft((error) =>
      error.kind === 'file' && bytes[0] !== ONNX_START
        ? { ...error, message: `this is neither safetensors nor ONNX (read as ONNX: ${error.message})` }
        : error,
    ),
    E.chain((model) => beforeSoftmax(model, bytes, path)),
    E.filterOrElse(
      ({ model: { output } }) => output.shape.length === 1 && output.shape[0] >= 2,
      ({ model: { output } }) =>
        fileError(path, `expected logits [classes], found ${showShape(output.shape)}`, `output ${output.name}`),
    ),
    E.map(({ model, note, ending }) => ({
      network: networkOf(model),
      parameters: Object.fromEntries([...model.parameters].map(([name, { data }]) => [name, data])),
      provenance: Provenance.safeParse(model.metadata).data,
      ...(note === undefined ? {} : { note }),
      ...(ending === undefined ? {} : { ending }),
    })),
  )

/**
 * The model as ONNX, for other programs; its metadata say what `encodeModel`'s do. Errors: those of `encodeOnnx`, such as an op that ONNX has no rule for.
 *
 * @example
 *   await writeFile('model.onnx', orThrow(encodeModelOnnx(model)))
 */
export const encodeModelOnnx = (model: SavedModel): E.Either<MixtrainError, Uint8Array> => {
  const x = input('input', [1, ...model.network.input])
  const nodes = Object.entries(shapesOf(model.network)).map(([name, shape]) => ({ name, node: input(name, shape) }))
  return encodeOnnx({
    name: `mixtrain-${model.network.name}`,
    input: x,
    output: model.network.apply(Object.fromEntries(nodes.map(({ name, node }) => [name, node])))(x),
    parameters: new Map(nodes.map(({ name, node }) => [node, { name, data: model.parameters[name] }])),
    metadata: metadataOf(model),
  })
}

/**
 * Decodes a saved model, safetensors or ONNX, which its content alone tells apart: the same bytes are the same model under every name. Errors:
 * those of the formats; safetensors that are no model; a network that is not known (the nearest is named); tensors that are missing, too
 * many or of other shapes.
 *
 * @example
 *   const { network, parameters } = orThrow(decodeModel(await readFile('model.onnx'), 'model.onnx'))
 */
export const decodeModel = (bytes: Uint8Array, path: string): E.Either<MixtrainError, SavedModel> =>
  bytes.length <= 8
    ? E.left(
        fileError(path, `expected a model, safetensors or ONNX, found ${bytes.length} bytes`, `byte ${bytes.length}`),
      )
    : isSafetensors(bytes)
      ? decodeSafetensors(bytes, path)
      : decodeForeign(bytes, path)
