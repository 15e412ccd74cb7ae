import { raise } from '../core/error.ts'
import { fold, type Key, uniform } from '../core/key.ts'
import * as S from '../core/shape.ts'
import type { Apply, Operand, Tensor } from '../core/tensor.ts'
import { add, conv2d, matmul, relu as reluOp, reshape } from '../ops/index.ts'

/** Named values, the shape of everything that belongs to parameters: tensors, arrays, gradients, optimizer state. */
export type Named<A> = Readonly<Record<string, A>>

/** A parameter: its shape, and the inputs that one output sums over. */
export interface Parameter {
  readonly shape: S.Shape
  readonly fanIn: number
}

/** A layer for inputs of one shape (without the image axis). Parameter names are unique within the layer. */
export interface Built {
  readonly output: S.Shape
  readonly parameters: Named<Parameter>
  readonly apply: (parameters: Named<Tensor>) => Apply
}

/** A layer, given the shape of its input. */
export type Layer = (input: S.Shape) => Built

const plain =
  (output: (input: S.Shape) => S.Shape, f: (output: S.Shape) => Apply): Layer =>
  (input) => {
    const out = output(input)
    return { output: out, parameters: {}, apply: () => f(out) }
  }

export const relu: Layer = plain(
  (s) => s,
  () => reluOp,
)

/** `[c, h, w] -> [c h w]`, row-major. */
export const flatten: Layer = plain(
  (s) => [S.size(s)],
  ([d]) =>
    (x) =>
      reshape(x, [x.shape[0], d]),
)

/** x W^T + b, W `[out, in]` (PyTorch's layout), x `[n, in]`. */
export const dense =
  (out: number): Layer =>
  (input) =>
    input.length === 1
      ? {
          output: [out],
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

/** Convolution of square kernels with bias, x `[n, c, h, w]`, weights `[out, c, k, k]`. */
export const conv =
  (out: number, kernel: number, stride = 1, padding = 0): Layer =>
  (input) => {
    if (input.length !== 3) return raise({ kind: 'shape', op: 'conv', message: `takes images, not ${S.show(input)}` })
    const [c, h, w] = input
    const extent = (d: number) => Math.floor((d + 2 * padding - kernel) / stride) + 1
    if (extent(h) < 1 || extent(w) < 1)
      return raise({ kind: 'shape', op: 'conv', message: `a ${kernel}x${kernel} kernel does not fit ${S.show(input)}` })
    const fanIn = c * kernel * kernel
    return {
      output: [out, extent(h), extent(w)],
      parameters: { weight: { shape: [out, c, kernel, kernel], fanIn }, bias: { shape: [out], fanIn } },
      apply:
        ({ weight, bias }) =>
        (x) =>
          add(conv2d(x as Operand, weight, { stride, padding }), reshape(bias, [out, 1, 1])) as unknown as typeof x,
    }
  }

const prefixed = <A>(prefix: string, named: Named<A>): Named<A> =>
  Object.fromEntries(Object.entries(named).map(([k, v]) => [`${prefix}.${k}`, v]))

const under = <A>(prefix: string, named: Named<A>): Named<A> =>
  Object.fromEntries(
    Object.entries(named).flatMap(([k, v]) => (k.startsWith(`${prefix}.`) ? [[k.slice(prefix.length + 1), v]] : [])),
  )

/** Layers one after the other; parameters are named `index.name`. */
export const sequential =
  (...layers: readonly Layer[]): Layer =>
  (input) => {
    const built: Built[] = []
    for (const layer of layers) built.push(layer(built[built.length - 1]?.output ?? input))
    return {
      output: built[built.length - 1]?.output ?? input,
      parameters: Object.assign({}, ...built.map((b, i) => prefixed(String(i), b.parameters))) as Named<Parameter>,
      apply: (parameters) => {
        const fs = built.map((b, i) => b.apply(under(String(i), parameters)))
        return (x) => fs.reduce((y, f) => f(y), x)
      },
    }
  }

/** body(x) + skip(x); the shapes agree. Parameters are named `body.` and `skip.`. */
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
      parameters: { ...prefixed('body', b.parameters), ...prefixed('skip', s.parameters) },
      apply: (parameters) => {
        const [f, g] = [b.apply(under('body', parameters)), s.apply(under('skip', parameters))]
        return (x) => add(f(x) as Operand, g(x) as Operand) as unknown as typeof x
      },
    }
  }

/** Draws a parameter's start value. */
export type Initialiser = (key: Key, parameter: Parameter) => Float32Array

/** Uniform in +-1/sqrt(fanIn): the default of PyTorch for linear and convolutional layers, weights and biases alike. */
export const uniformInit: Initialiser = (key, { shape, fanIn }) => {
  const bound = 1 / Math.sqrt(fanIn)
  return uniform(key, S.size(shape), -bound, bound)
}

/** Kaiming uniform for ReLU (arXiv:1502.01852): +-sqrt(6/fanIn) for weights, 0 for biases. */
export const kaimingInit: Initialiser = (key, { shape, fanIn }) => {
  const bound = Math.sqrt(6 / fanIn)
  return shape.length === 1 ? new Float32Array(shape[0]) : uniform(key, S.size(shape), -bound, bound)
}

/** Start values of all parameters, each from its own name's randomness. */
export const initialise = (
  key: Key,
  parameters: Named<Parameter>,
  init: Initialiser = uniformInit,
): Named<Float32Array> =>
  Object.fromEntries(Object.entries(parameters).map(([name, p]) => [name, init(fold(key, name), p)]))
