import { raise, usage } from '../core/error.ts'
import type { Key } from '../core/key.ts'
import { type Shape, show } from '../core/shape.ts'
import type { Apply, Tensor } from '../core/tensor.ts'
import {
  batchNorm,
  conv,
  type Description,
  dense,
  flatten,
  type Initializer,
  initialize,
  inputsOf,
  type Layer,
  type Named,
  type Normalization,
  normalize,
  observed,
  type Parameter,
  relu,
  residual,
  sequential,
} from './layers.ts'

/** A classifier of images `[c, h, w]`, as data: parameters are values handed in, never held. */
export interface Network {
  readonly name: string
  readonly input: Shape
  readonly classes: number
  /** What its first op does to the pixels; absent where it takes them as they are. */
  readonly normalization?: Normalization | undefined
  /** Its layers as data, the normalization apart; absent in a network that is not made of layers, or of one that has no description. */
  readonly description?: Description | undefined
  readonly parameters: Named<Parameter>
  /** The shapes of the parameters, as the inputs of a program: `program({ ...net.inputs, x: [1, ...net.input] }, ({ x, ...p }) => net.apply(p)(x))`. */
  readonly inputs: Named<Shape>
  readonly init: (key: Key) => Named<Float32Array>
  /** Logits `[n, classes]` of a batch `[n, c, h, w]`; on an interval tensor, interval logits. */
  readonly apply: (parameters: Named<Tensor>) => Apply
  /**
   * Statistics of a batch by name (parameters of role `statistic`), layer by layer, each measured on what the layers before make of the
   * batch with statistics of their own; `{}` in a network without batch norm.
   */
  readonly statistics: (parameters: Named<Tensor>) => (x: Tensor) => Named<Tensor>
}

/** What a network is for: inputs of a shape, and so many classes. */
export interface Task {
  readonly input: Shape
  readonly classes: number
  /** Default: pixels are taken as they are. */
  readonly normalization?: Normalization | undefined
}

/**
 * A network from its layers, for inputs of one shape, `[c, h, w]` or `[features]`, to logits `[n, classes]`.
 *
 * @throws usage for layers that do not give one logit for each class; shape errors of the layers.
 *
 * @example
 *   const mlp = network('mlp', sequential(flatten, dense(50), relu, dense(10)), { input: [1, 28, 28], classes: 10 })
 */
export const network = (
  name: string,
  layer: Layer,
  { input, classes, normalization }: Task,
  init?: Initializer,
): Network => {
  const built = layer(input)
  if (built.output.length !== 1 || built.output[0] !== classes)
    return raise(usage(`network ${name} gives ${show(built.output)} for ${show(input)}, expected [${classes}]`))
  const front: Apply = normalization === undefined ? (x) => x : normalize(normalization)(input).apply({})
  return {
    name,
    input,
    classes,
    ...(normalization === undefined ? {} : { normalization }),
    ...(built.description === undefined ? {} : { description: built.description }),
    parameters: built.parameters,
    inputs: inputsOf(built.parameters),
    init: (key) => initialize(key, built.parameters, init),
    apply: (parameters) => {
      const behind = built.apply(parameters)
      return (x) => behind(front(x))
    },
    statistics: (parameters) => {
      const behind = observed(built)(parameters)
      return (x) => behind(front(x)).statistics
    },
  }
}

/** conv 16,4,2,1 - conv 32,4,2,1 - fc 100: the paper's small network (MNIST 4,804 ReLUs, 166,406 parameters; CIFAR 6,244). */
export const small = (task: Task, init?: Initializer): Network =>
  network(
    'small',
    sequential(conv(16, 4, 2, 1), relu, conv(32, 4, 2, 1), relu, flatten, dense(100), relu, dense(task.classes)),
    task,
    init,
  )

/** conv 32,3,1,1 - 32,4,2,1 - 64,3,1,1 - 64,4,2,1 - fc 512 - fc 512: the paper's large network (ReLUs: MNIST 48,064, CIFAR 62,464). */
export const large = (task: Task, init?: Initializer): Network =>
  network(
    'large',
    sequential(
      ...[conv(32, 3, 1, 1), relu, conv(32, 4, 2, 1), relu, conv(64, 3, 1, 1), relu, conv(64, 4, 2, 1), relu],
      ...[flatten, dense(512), relu, dense(512), relu, dense(task.classes)],
    ),
    task,
    init,
  )

/** relu(body + skip): 4x4 and 2x2 windows of stride 2, or 3x3 and 1x1 ones. */
const block = (channels: number, stride: 1 | 2): Layer =>
  sequential(
    residual(
      sequential(stride === 2 ? conv(channels, 4, 2, 1) : conv(channels, 3, 1, 1), relu, conv(channels, 3, 1, 1)),
      stride === 2 ? conv(channels, 2, 2) : conv(channels, 1),
    ),
    relu,
  )

/** Images from this height on get the stem of the ImageNet network. */
const LARGE_IMAGE = 64

/**
 * The paper's residual networks, without batch norm: a stem, blocks 16 (stride 2), 16, 32 (stride 2), 64 (stride 2), one hidden fc. Stem
 * conv 16,3,1,1 and fc 1000 (CIFAR: 39,912 ReLUs), or from 64 pixels on conv 16,7,2,3 and fc 512 (ImageNet-200: 39,424 ReLUs).
 */
export const resnet = (task: Task, init?: Initializer): Network => {
  const wide = task.input[1] >= LARGE_IMAGE
  return network(
    'resnet',
    sequential(
      ...[wide ? conv(16, 7, 2, 3) : conv(16, 3, 1, 1), relu, block(16, 2), block(16, 1), block(32, 2), block(64, 2)],
      ...[flatten, dense(wide ? 512 : 1000), relu, dense(task.classes)],
    ),
    task,
    init,
  )
}

/**
 * conv 64,3,1,1 - 64,3,1,1 - 128,3,2,1 - 128,3,1,1 - 128,3,1,1 - fc 512, batch norm before each ReLU: what the field certifies now (CNN7
 * of arXiv:2102.06700, 2103.17268, 2305.13991).
 */
export const cnn7 = (task: Task, init?: Initializer): Network => {
  const stage = (channels: number, stride: number) => [conv(channels, 3, stride, 1), batchNorm, relu]
  return network(
    'cnn7',
    sequential(
      ...[stage(64, 1), stage(64, 1), stage(128, 2), stage(128, 1), stage(128, 1)].flat(),
      ...[flatten, dense(512), batchNorm, relu, dense(task.classes)],
    ),
    task,
    init,
  )
}

/** fc 100 - fc 100: for tables (inputs `[features]`), and for images as rows of pixels. */
const mlp = (task: Task, init?: Initializer): Network =>
  network('mlp', sequential(flatten, dense(100), relu, dense(100), relu, dense(task.classes)), task, init)

/** The networks by name. */
export const networks = { small, large, resnet, cnn7, mlp } as const
/** A name of `networks`: what `--network` takes. */
export type NetworkName = keyof typeof networks

/** Ops that a file may end in behind the logits, whose order they keep. */
export const ENDINGS = ['Softmax', 'LogSoftmax'] as const
export type Ending = (typeof ENDINGS)[number]
