import { readFileSync } from 'node:fs'
import * as E from 'fp-ts/lib/Either.js'
import type { Operand, Tensor } from '../src/core/tensor.ts'
import { readIdx } from '../src/data/idx.ts'
import { decode } from '../src/format/safetensors.ts'
import { add, constant, conv2d, matmul, relu, reshape, tanh } from '../src/ops/index.ts'
import { right, shared } from './shared.ts'

/** One method's bounds of five images, as the public tools gave them. */
export interface GoldenBounds {
  readonly lb: readonly (readonly number[])[]
  readonly ub: readonly (readonly number[])[]
  readonly margin_lb?: readonly (readonly number[])[]
}

export interface Golden {
  readonly labels: readonly number[]
  readonly mnist_test_indices: readonly number[]
  readonly results: readonly {
    readonly dtype: 'float32' | 'float64'
    readonly eps: number
    readonly methods: Readonly<Record<string, GoldenBounds>>
  }[]
  readonly logits_float64: readonly (readonly number[])[]
}

export const golden = (name: string): Golden | undefined => {
  const path = shared(`golden/${name}.json`)
  return path === undefined ? undefined : (JSON.parse(readFileSync(path, 'utf8')) as Golden)
}

/** MNIST test images as the golden values have them: float32(pixel / 255), `[k, 1, 28, 28]`. */
export const mnistTest = async (indices: readonly number[]): Promise<Float32Array> => {
  const path = shared('data/mnist/t10k-images-idx3-ubyte.gz') as string
  const { data } = right(await readIdx(new Uint8Array(readFileSync(path)), path)())
  return Float32Array.from(indices.flatMap((i) => [...data.subarray(i * 784, (i + 1) * 784)].map((p) => p / 255)))
}

/** Weights of a network of ../shared/models as constants. */
export const weights = (name: string): ((key: string) => Tensor) | undefined => {
  const path = shared(`models/${name}.safetensors`)
  if (path === undefined) return undefined
  const file = decode(new Uint8Array(readFileSync(path)), path)
  if (E.isLeft(file)) throw new Error(JSON.stringify(file.left))
  const { tensors } = file.right
  return (key) => {
    const t = tensors.get(key)
    if (t === undefined) throw new Error(`no tensor ${key}`)
    return constant(t.data, t.shape)
  }
}

type Net = <T extends Operand>(x: T) => T
type Layer = <T extends Operand>(x: T) => T
const chain =
  (...layers: readonly Layer[]): Net =>
  (x) =>
    layers.reduce((y, f) => f(y), x)

const conv =
  (w: (k: string) => Tensor, name: string, stride: number, padding: number): Layer =>
  (x) => {
    const b = w(`${name}.bias`)
    return add(
      conv2d(x, w(`${name}.weight`), { stride, padding }),
      reshape(b, [b.shape[0], 1, 1]),
    ) as unknown as typeof x
  }
const fc =
  (w: (k: string) => Tensor, name: string): Layer =>
  (x) =>
    add(matmul(x as Operand, w(`${name}.weight`), { transB: true }), w(`${name}.bias`)) as unknown as typeof x
const flatten: Layer = (x) => reshape(x, [x.shape[0], x.shape.slice(1).reduce((a, b) => a * b, 1)])

/** The networks of ../shared/models, built from their descriptions. */
export const networks: Readonly<Record<string, (w: (k: string) => Tensor) => Net>> = {
  randconv_a: (w) => chain(conv(w, '0', 2, 1), relu, conv(w, '2', 2, 0), relu, flatten, fc(w, '5'), relu, fc(w, '7')),
  mixtrain_small_0_3: (w) =>
    chain(conv(w, '0', 2, 1), relu, conv(w, '2', 2, 1), relu, flatten, fc(w, '5'), relu, fc(w, '7')),
  mnistfc_256x2: (w) => chain(flatten, fc(w, '1'), relu, fc(w, '3'), relu, fc(w, '5')),
  mlp_tanh: (w) => chain(flatten, fc(w, '1'), tanh, fc(w, '3'), tanh, fc(w, '5')),
  resnet_s: (w) => (x) => {
    const a = chain(conv(w, 'conv1', 2, 1), relu)(x)
    const b = relu(
      add(chain(conv(w, 'b1c1', 2, 1), relu, conv(w, 'b1c2', 1, 1))(a) as Operand, conv(w, 'b1s', 2, 0)(a) as Operand),
    ) as typeof x
    const c = relu(
      add(chain(conv(w, 'b2c1', 1, 1), relu, conv(w, 'b2c2', 1, 1))(b) as Operand, b as Operand),
    ) as typeof x
    return chain(flatten, fc(w, 'fc1'), relu, fc(w, 'fc2'))(c)
  },
}
