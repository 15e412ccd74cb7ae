/**
 * Layers: functions of an input shape, the same on tensors and interval tensors, which `network` makes a network of.
 *
 * @module
 */

import { raise } from '../core/error.ts'
import { fold, type Key, normal, uniform } from '../core/key.ts'
import * as S from '../core/shape.ts'
import type { Apply, Operand, Tensor } from '../core/tensor.ts'
import {
  add,
  averagePool2d,
  broadcastTo,
  constant,
  conv2d,
  div,
  gelu as geluOp,
  leakyRelu as leakyReluOp,
  matmul,
  maxPool2d,
  mean,
  mul,
  pow,
  relu as reluOp,
  reshape,
  sigmoid as sigmoidOp,
  sqrt,
  sub,
  tanh as tanhOp,
} from '../ops/index.ts'

/** Named values, the shape of everything that belongs to parameters: tensors, arrays, gradients, optimizer state. */
export type Named<A> = Readonly<Record<string, A>>

/** A parameter: its shape, and the inputs that one output sums over. */
export interface Parameter {
  readonly shape: S.Shape
  readonly fanIn: number
  /** Start value of every element, where the initializer has no say: 1 for a scale. */
  readonly start?: number
  /** `statistic`: not trained, but measured on images (`Network.statistics`). */
  readonly role?: 'statistic'
}

/**
 * Whether a training changes the parameter: all but statistics of batch norm.
 *
 * @example
 *   isTrained({ shape: [3], fanIn: 1, role: 'statistic' }) // false
 */
export const isTrained = ({ role }: Parameter): boolean => role !== 'statistic'

/**
 * The parameters that an optimizer moves.
 *
 * @example
 *   Object.keys(trainedOf(batchNorm([4]).parameters)) // ['scale', 'shift']
 */
export const trainedOf = (parameters: Named<Parameter>): Named<Parameter> =>
  Object.fromEntries(Object.entries(parameters).filter(([, p]) => isTrained(p)))

/**
 * The shapes of parameters by name, as inputs of a program.
 *
 * @example
 *   inputsOf(dense(10)([784]).parameters) // { weight: [10, 784], bias: [10] }
 */
export const inputsOf = (parameters: Named<Pick<Parameter, 'shape'>>): Named<S.Shape> =>
  Object.fromEntries(Object.entries(parameters).map(([name, { shape }]) => [name, shape]))

/** What a layer makes of a batch, and the statistics that it measured on the way. */
export interface Observed {
  readonly output: Tensor
  readonly statistics: Named<Tensor>
}

/** A layer as data: what a file holds of a network, and what `layerOf` makes it of again. */
export type Description =
  | { readonly layer: 'relu' | 'sigmoid' | 'tanh' | 'gelu' | 'flatten' | 'batchNorm' | 'layerNorm' }
  | { readonly layer: 'leakyRelu'; readonly slope: number }
  | { readonly layer: 'dense'; readonly out: number }
  | {
      readonly layer: 'conv'
      readonly out: number
      readonly kernel: number
      readonly stride: number
      readonly padding: number
      readonly groups: number
    }
  | {
      readonly layer: 'maxPool' | 'averagePool'
      readonly size: number
      readonly stride: number
      readonly padding: number
    }
  | { readonly layer: 'normalize'; readonly mean: readonly number[]; readonly std: readonly number[] }
  | { readonly layer: 'sequential'; readonly layers: readonly Description[] }
  | { readonly layer: 'residual'; readonly body: Description; readonly skip: Description }

/** A layer for inputs of one shape (without the image axis). Parameter names are unique within the layer. */
export interface Built {
  readonly output: S.Shape
  /** The layer as data; absent in one that is a function of the user's own, and in what contains one. */
  readonly description?: Description | undefined
  readonly parameters: Named<Parameter>
  readonly apply: (parameters: Named<Tensor>) => Apply
  /** Measures the layer's statistics on a batch and applies them to it; absent where there are none. */
  readonly observe?: (parameters: Named<Tensor>) => (x: Tensor) => Observed
}

/**
 * `observe`, also of a layer without statistics.
 *
 * @example
 *   const seen = observed(sequential(flatten, dense(10))([1, 28, 28]))
 */
export const observed =
  ({ apply, observe }: Built) =>
  (parameters: Named<Tensor>): ((x: Tensor) => Observed) =>
    observe?.(parameters) ?? ((x) => ({ output: apply(parameters)(x), statistics: {} }))

/** A layer, given the shape of its input. */
export type Layer = (input: S.Shape) => Built

const plain =
  (description: Description, output: (input: S.Shape) => S.Shape, f: (output: S.Shape) => Apply): Layer =>
  (input) => {
    const out = output(input)
    return { output: out, description, parameters: {}, apply: () => f(out) }
  }

const elementwise = (description: Description, f: Apply): Layer =>
  plain(
    description,
    (s) => s,
    () => f,
  )

/** max(x, 0), elementwise: of inputs of any shape. */
export const relu: Layer = elementwise({ layer: 'relu' }, reluOp)
/**
 * x where it is positive, `slope` x elsewhere; slope in [0, 1).
 *
 * @example
 *   leakyRelu(0.1)([3]).output // [3]
 */
export const leakyRelu = (slope = 0.01): Layer => elementwise({ layer: 'leakyRelu', slope }, leakyReluOp(slope))
/** 1 / (1 + exp(-x)), elementwise: of inputs of any shape. */
export const sigmoid: Layer = elementwise({ layer: 'sigmoid' }, sigmoidOp)
/** The hyperbolic tangent of each element. */
export const tanh: Layer = elementwise({ layer: 'tanh' }, tanhOp)
/** x times the normal distribution function of x, elementwise: of inputs of any shape (arXiv:1606.08415). */
export const gelu: Layer = elementwise({ layer: 'gelu' }, geluOp('none'))

const pool = (layer: 'maxPool' | 'averagePool', size: number, stride: number, padding: number): Layer => {
  const f: Apply = (x) =>
    layer === 'maxPool'
      ? (maxPool2d(x as Operand, size, { stride, padding }) as unknown as typeof x)
      : (averagePool2d(x as Operand, size, { stride, padding }) as unknown as typeof x)
  return (input) => {
    if (input.length !== 3) return raise({ kind: 'shape', op: layer, message: `takes images, not ${S.show(input)}` })
    const extent = (d: number) => Math.floor((d + 2 * padding - size) / stride) + 1
    const [c, h, w] = input
    if (extent(h) < 1 || extent(w) < 1)
      return raise({ kind: 'shape', op: layer, message: `a ${size}x${size} window does not fit ${S.show(input)}` })
    return plain(
      { layer, size, stride, padding },
      () => [c, extent(h), extent(w)],
      () => f,
    )(input)
  }
}

/**
 * Maxima of square windows of each channel, `[c, h, w]`; padding has no part in them. The layer raises a shape error for inputs that are no images, or are smaller than a window.
 *
 * @example
 *   maxPool(2)([16, 8, 8]).output // [16, 4, 4]
 */
export const maxPool = (size: number, stride = size, padding = 0): Layer => pool('maxPool', size, stride, padding)
/**
 * Means of square windows of each channel, `[c, h, w]`; padding counts as 0. The layer raises a shape error for inputs that are no images, or are smaller than a window.
 *
 * @example
 *   averagePool(2)([16, 8, 8]).output // [16, 4, 4]
 */
export const averagePool = (size: number, stride = size, padding = 0): Layer =>
  pool('averagePool', size, stride, padding)

/** `[c, h, w] -> [c h w]`, row-major. */
export const flatten: Layer = plain(
  { layer: 'flatten' },
  (s) => [S.size(s)],
  ([d]) =>
    (x) =>
      reshape(x, [x.shape[0], d]),
)

/**
 * x W^T + b, W `[out, in]` (PyTorch's layout), x `[n, in]`. The layer raises a shape error for inputs that are no vectors: flatten first.
 *
 * @example
 *   dense(10)([784]).output // [10]
 */
export const dense =
  (out: number): Layer =>
  (input) =>
    input.length === 1
      ? {
          output: [out],
          description: { layer: 'dense', out },
          parameters: {
            weight: { shape: [out, input[0]], fanIn: input[0] },
            bias: { shape: [out], fanIn: input[0] },
          },
          apply:
            ({ weight, bias }) =>
            (x) =>
              add(matmul(x as Operand, weight, { transB: true }), bias) as unknown as typeof x,
        }
      : raise({ kind: 'shape', op: 'dense', message: `takes vectors, not ${S.show(input)}; flatten first` })

/**
 * Convolution of square kernels with bias, x `[n, c, h, w]`, weights `[out, c / groups, k, k]`. Channels in groups see their own output channels
 * alone; as many groups as channels: depthwise. The layer raises a shape error for inputs that are no images, a kernel that does not fit and groups that do not divide the channels.
 *
 * @example
 *   conv(16, 4, 2, 1)([1, 28, 28]).output // [16, 14, 14]
 */
export const conv =
  (out: number, kernel: number, stride = 1, padding = 0, groups = 1): Layer =>
  (input) => {
    if (input.length !== 3) return raise({ kind: 'shape', op: 'conv', message: `takes images, not ${S.show(input)}` })
    const [c, h, w] = input
    const extent = (d: number) => Math.floor((d + 2 * padding - kernel) / stride) + 1
    if (extent(h) < 1 || extent(w) < 1)
      return raise({ kind: 'shape', op: 'conv', message: `a ${kernel}x${kernel} kernel does not fit ${S.show(input)}` })
    if (!(Number.isInteger(groups) && groups >= 1 && c % groups === 0 && out % groups === 0))
      return raise({ kind: 'shape', op: 'conv', message: `${groups} groups do not divide ${c} and ${out} channels` })
    const fanIn = (c / groups) * kernel * kernel
    return {
      output: [out, extent(h), extent(w)],
      description: { layer: 'conv', out, kernel, stride, padding, groups },
      parameters: { weight: { shape: [out, c / groups, kernel, kernel], fanIn }, bias: { shape: [out], fanIn } },
      apply:
        ({ weight, bias }) =>
        (x) =>
          add(
            conv2d(x as Operand, weight, { stride, padding, groups }),
            reshape(bias, [out, 1, 1]),
          ) as unknown as typeof x,
    }
  }

/** Added to a variance before its root (the default of PyTorch and ONNX): 1e-5 as a float32, so that the network is one on every device. */
const VARIANCE_FLOOR = Math.fround(1e-5)

/** Per channel: `[c]` as it meets `[n, c, h, w]`, or `[d]` as it meets `[n, d]`. */
const perChannel = (v: Tensor, rank: number): Tensor =>
  reshape(v, [v.shape[0], ...Array.from({ length: rank - 1 }, () => 1)])

/**
 * Batch normalization (arXiv:1502.03167), per channel: x gamma / sqrt(var + 1e-5) + (beta - mean gamma / sqrt(var + 1e-5)), an affine op with
 * `mean` and `var` as parameters that are not trained. Within a training step they are those of the *clean* batch, for every pass of the step
 * (clean, attacked, interval), and gradients flow through them; otherwise those over the training set. var is the biased variance.
 */
export const batchNorm: Layer = (input) => {
  const [c] = input
  const rank = input.length
  const one = (start: number): Parameter => ({ shape: [c], fanIn: 1, start })
  const apply =
    ({ scale, shift, mean: m, var: v }: Named<Tensor>): Apply =>
    (x) => {
      const slope = div(scale, sqrt(add(v, VARIANCE_FLOOR)))
      const scaled = mul(x as Operand, perChannel(slope, rank))
      return add(scaled, perChannel(sub(shift, mul(m, slope)), rank)) as unknown as typeof x
    }
  return {
    output: input,
    description: { layer: 'batchNorm' },
    parameters: {
      scale: one(1),
      shift: one(0),
      mean: { ...one(0), role: 'statistic' },
      var: { ...one(1), role: 'statistic' },
    },
    apply,
    observe: (parameters) => (x) => {
      const axes = [...x.shape.keys()].filter((a) => a !== 1)
      const m = mean(x, axes)
      const d = sub(x, perChannel(m, rank))
      const statistics = { mean: m, var: mean(mul(d, d), axes) }
      return { output: apply({ ...parameters, ...statistics })(x), statistics }
    },
  }
}

/**
 * Layer normalization (arXiv:1607.06450) over all axes of an example, PyTorch's `LayerNorm(input)`: (x - mean) / sqrt(var + 1e-5) gamma + beta with mean and
 * biased variance of the example itself and gamma, beta of the shape of the input, so that nothing is measured on other images and training and evaluation are
 * one function. All bounds take it; intervals are of no use where the variance of a box may be 0, since they forget that what is divided and what divides it are of the same
 * example: train it by `crown` or `symbolic`.
 */
export const layerNorm: Layer = (input) => {
  const axes = input.map((_, i) => i + 1)
  const one = (start: number): Parameter => ({ shape: input, fanIn: 1, start })
  return {
    output: input,
    description: { layer: 'layerNorm' },
    parameters: { scale: one(1), shift: one(0) },
    apply:
      ({ scale, shift }) =>
      (x) => {
        // Repeated explicitly, which walks ask of operands that depend on the image.
        const repeated = (y: Operand) => broadcastTo(y, x.shape)
        const centred = sub(x as Operand, repeated(mean(x as Operand, axes, true)))
        // Cut at 0, below which it never is: its bounds may be, and the constant that is added would not lift them above 0.
        const variance = reluOp(mean(pow(2)(centred) as Operand, axes, true)) as Operand
        // A product with the reciprocal: its linear bounds are half as wide as those of the quotient.
        const factor = div(1, sqrt(add(variance, VARIANCE_FLOOR)) as Operand) as Operand
        return add(mul(mul(centred, repeated(factor)) as Operand, scale), shift) as unknown as typeof x
      },
  }
}

/** Mean and standard deviation of the pixels of a data set, one number per channel, pixels in [0, 1]. */
export interface Normalization {
  readonly mean: readonly number[]
  readonly std: readonly number[]
}

/**
 * (x - mean) / std per channel, as an affine op of its own in front of a network: x f + s with f = 1 / std and s = -mean / std rounded to
 * float32, as a model file has them. The layer raises a shape error unless each channel has a finite mean and a deviation above 0. Epsilon and boxes stay in pixels, and bounds through it are exact. Folded into a convolution with zero padding it would be another function at the border, where 0 stands for the mean.
 *
 * @example
 *   const net = sequential(normalize({ mean: [0.5], std: [0.25] }), flatten, dense(10))
 */
export const normalize =
  ({ mean: m, std }: Normalization): Layer =>
  (input) => {
    const channels = input[0]
    if (m.length !== channels || std.length !== channels || !std.every((s) => s > 0) || !m.every(Number.isFinite))
      return raise({
        kind: 'shape',
        op: 'normalize',
        message: `takes a finite mean and a std above 0 for each of ${channels} channels, not ${S.show(m)} and ${S.show(std)}`,
      })
    const rank = input.length
    const channel = (values: readonly number[]) => perChannel(constant(values.map(Math.fround), [channels]), rank)
    return {
      output: input,
      description: { layer: 'normalize', mean: m, std },
      parameters: {},
      apply: () => (x) =>
        add(
          mul(x as Operand, channel(std.map((s) => 1 / s))),
          channel(m.map((v, i) => -v / std[i])),
        ) as unknown as typeof x,
    }
  }

const prefixed = <A>(prefix: string, named: Named<A>): Named<A> =>
  Object.fromEntries(Object.entries(named).map(([k, v]) => [`${prefix}.${k}`, v]))

const under = <A>(prefix: string, named: Named<A>): Named<A> =>
  Object.fromEntries(
    Object.entries(named).flatMap(([k, v]) => (k.startsWith(`${prefix}.`) ? [[k.slice(prefix.length + 1), v]] : [])),
  )

/**
 * Layers one after the other; parameters are named `index.name`.
 *
 * @example
 *   sequential(flatten, dense(50), relu, dense(10))([1, 28, 28]).output // [10]
 */
export const sequential =
  (...layers: readonly Layer[]): Layer =>
  (input) => {
    const built: Built[] = []
    for (const layer of layers) built.push(layer(built[built.length - 1]?.output ?? input))
    const descriptions = built.map(({ description }) => description)
    return {
      output: built[built.length - 1]?.output ?? input,
      description: descriptions.every((d) => d !== undefined)
        ? { layer: 'sequential', layers: descriptions }
        : undefined,
      parameters: Object.assign({}, ...built.map((b, i) => prefixed(String(i), b.parameters))) as Named<Parameter>,
      apply: (parameters) => {
        const fs = built.map((b, i) => b.apply(under(String(i), parameters)))
        return (x) => fs.reduce((y, f) => f(y), x)
      },
      ...(built.some((b) => b.observe)
        ? {
            observe: (parameters: Named<Tensor>) => {
              const fs = built.map((b, i) => observed(b)(under(String(i), parameters)))
              return (x: Tensor) =>
                fs.reduce<Observed>(
                  ({ output, statistics }, f, i) => {
                    const next = f(output)
                    return {
                      output: next.output,
                      statistics: { ...statistics, ...prefixed(String(i), next.statistics) },
                    }
                  },
                  { output: x, statistics: {} },
                )
            },
          }
        : {}),
    }
  }

/**
 * body(x) + skip(x); the shapes agree, or the layer raises a shape error. Parameters are named `body.` and `skip.`.
 *
 * @example
 *   residual(sequential(dense(8), relu, dense(4)), sequential())([4]).output // [4]
 */
export const residual =
  (body: Layer, skip: Layer): Layer =>
  (input) => {
    const [b, s] = [body(input), skip(input)]
    if (!S.equals(b.output, s.output))
      return raise({
        kind: 'shape',
        op: 'residual',
        message: `body gives ${S.show(b.output)}, skip ${S.show(s.output)}`,
      })
    return {
      output: b.output,
      description: b.description && s.description && { layer: 'residual', body: b.description, skip: s.description },
      parameters: { ...prefixed('body', b.parameters), ...prefixed('skip', s.parameters) },
      apply: (parameters) => {
        const [f, g] = [b.apply(under('body', parameters)), s.apply(under('skip', parameters))]
        return (x) => add(f(x) as Operand, g(x) as Operand) as unknown as typeof x
      },
      ...(b.observe || s.observe
        ? {
            observe: (parameters: Named<Tensor>) => {
              const [f, g] = [observed(b)(under('body', parameters)), observed(s)(under('skip', parameters))]
              return (x: Tensor) => {
                const [p, q] = [f(x), g(x)]
                return {
                  output: add(p.output, q.output),
                  statistics: { ...prefixed('body', p.statistics), ...prefixed('skip', q.statistics) },
                }
              }
            },
          }
        : {}),
    }
  }

/**
 * The layer of a description. Raises what the layers raise for numbers that make none.
 *
 * @example
 *   layerOf({ layer: 'dense', out: 10 })([784]).output // [10]
 */
export const layerOf = (d: Description): Layer => {
  switch (d.layer) {
    case 'relu':
      return relu
    case 'sigmoid':
      return sigmoid
    case 'tanh':
      return tanh
    case 'gelu':
      return gelu
    case 'flatten':
      return flatten
    case 'batchNorm':
      return batchNorm
    case 'layerNorm':
      return layerNorm
    case 'leakyRelu':
      return leakyRelu(d.slope)
    case 'dense':
      return dense(d.out)
    case 'conv':
      return conv(d.out, d.kernel, d.stride, d.padding, d.groups)
    case 'maxPool':
      return maxPool(d.size, d.stride, d.padding)
    case 'averagePool':
      return averagePool(d.size, d.stride, d.padding)
    case 'normalize':
      return normalize(d)
    case 'sequential':
      return sequential(...d.layers.map(layerOf))
    case 'residual':
      return residual(layerOf(d.body), layerOf(d.skip))
    default:
      return d satisfies never
  }
}

/**
 * A description for people: `conv 16,4,2,1 - relu - flatten - dense 10`; convolutions as out, kernel, stride, padding (and groups).
 *
 * @example
 *   showDescription({ layer: 'dense', out: 10 }) // 'dense 10'
 */
export const showDescription = (d: Description): string => {
  switch (d.layer) {
    case 'leakyRelu':
      return `leakyRelu ${d.slope}`
    case 'dense':
      return `dense ${d.out}`
    case 'conv':
      return `conv ${[d.out, d.kernel, d.stride, d.padding, ...(d.groups === 1 ? [] : [d.groups])].join(',')}`
    case 'maxPool':
    case 'averagePool':
      return `${d.layer} ${[d.size, d.stride, d.padding].join(',')}`
    case 'sequential':
      return d.layers.length === 0 ? 'identity' : d.layers.map(showDescription).join(' - ')
    case 'residual':
      return `(${showDescription(d.body)}) + (${showDescription(d.skip)})`
    default:
      return d.layer
  }
}

/** Draws a parameter's start value. */
export type Initializer = (key: Key, parameter: Parameter) => Float32Array

/** Uniform in +-1/sqrt(fanIn): the default of PyTorch for linear and convolutional layers, weights and biases alike. */
export const uniformInit: Initializer = (key, { shape, fanIn }) => {
  const bound = 1 / Math.sqrt(fanIn)
  return uniform(key, S.size(shape), -bound, bound)
}

/** Kaiming uniform for ReLU (arXiv:1502.01852): +-sqrt(6/fanIn) for weights, 0 for biases. */
export const kaimingInit: Initializer = (key, { shape, fanIn }) => {
  const bound = Math.sqrt(6 / fanIn)
  return shape.length === 1 ? new Float32Array(shape[0]) : uniform(key, S.size(shape), -bound, bound)
}

/**
 * Normal weights of standard deviation sqrt(2 pi) / fanIn, hence E|w| = 2 / fanIn, biases 0 (the IBP initialization of Fast-IBP, arXiv:2103.17268): a linear layer doubles
 * the mean width of interval bounds and a ReLU halves it, so that it stays the same from layer to layer, where the usual initializers make it explode with the
 * root of the fan-in.
 */
export const ibpInit: Initializer = (key, { shape, fanIn }) =>
  shape.length === 1
    ? new Float32Array(shape[0])
    : normal(key, S.size(shape)).map((v) => (v * Math.sqrt(2 * Math.PI)) / fanIn)

/**
 * Start values of all parameters, each from its own name's randomness, or its `start`.
 *
 * @example
 *   initialize(key(1), dense(10)([784]).parameters).weight.length // 7840
 */
export const initialize = (
  key: Key,
  parameters: Named<Parameter>,
  init: Initializer = uniformInit,
): Named<Float32Array> =>
  Object.fromEntries(
    Object.entries(parameters).map(([name, p]) => [
      name,
      p.start === undefined ? init(fold(key, name), p) : new Float32Array(S.size(p.shape)).fill(p.start),
    ]),
  )
