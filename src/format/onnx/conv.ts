import { equals, type Shape, show } from '../../core/shape.ts'
import type { Operand, Tensor } from '../../core/tensor.ts'
import { add, type Conv, conv2d, reshape } from '../../ops/index.ts'
import { showExtents } from './axes.ts'
import type { Floats, Import, NodeView } from './values.ts'
import { type Export, type Fuse, refuse, type Writer } from './writer.ts'

/** A value `[N, c, h, w]`. */
export const images = (s: NodeView): Floats => {
  const v = s.floats(0)
  return v.probe.shape.length === 4 && v.batched
    ? v
    : s.fail(`expected images [N,c,h,w], found ${showExtents(v)}: only 2-dimensional windows are supported`)
}

export type Pair = readonly [number, number]
type Sides = readonly [number, number, number, number]

export interface Geometry {
  readonly stride: Pair
  readonly dilation: Pair
  /** Top, left, bottom, right, as in ONNX. */
  readonly padding: Sides
}

/** The window of Conv and the pools: strides, dilations, and pads given or worked out by auto_pad. */
export const geometry = (s: NodeView, x: Shape, kernel: Pair): Geometry => {
  const pair = (name: string): Pair => {
    const v = s.list(name) ?? [1, 1]
    return v.length === 2 && v.every((d) => d >= 1)
      ? (v as unknown as Pair)
      : s.fail(`attribute ${name}: expected 2 numbers >= 1, found [${v}]`)
  }
  const [stride, dilation] = [pair('strides'), pair('dilations')]
  const auto = s.string('auto_pad', 'NOTSET')
  const pads = s.list('pads') ?? [0, 0, 0, 0]
  if (pads.length !== 4 || !pads.every((p) => p >= 0))
    s.fail(`attribute pads: expected 4 numbers >= 0, found [${pads}]`)
  if (auto === 'NOTSET' || auto === '') return { stride, dilation, padding: pads as unknown as Sides }
  if (pads.some((p) => p !== 0)) s.fail(`attributes pads and auto_pad ${auto} exclude each other`)
  if (auto === 'VALID') return { stride, dilation, padding: [0, 0, 0, 0] }
  if (auto !== 'SAME_UPPER' && auto !== 'SAME_LOWER')
    return s.fail(`attribute auto_pad: ${JSON.stringify(auto.slice(0, 80))} is not supported`)
  // As many outputs as strides fit the input, rounded up; an odd zero goes behind (UPPER) or before (LOWER).
  const total = ([0, 1] as const).map((i) =>
    Math.max(0, (Math.ceil(x[i + 2] / stride[i]) - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - x[i + 2]),
  )
  const less = total.map((t) => Math.floor(t / 2))
  const more = total.map((t) => Math.ceil(t / 2))
  const [before, behind] = auto === 'SAME_UPPER' ? [less, more] : [more, less]
  return { stride, dilation, padding: [before[0], before[1], behind[0], behind[1]] }
}

/** Cross-correlation `[N, c, h, w] * [o, c, p, q] + [o]`. */
const conv: Import = (s) => {
  const [x, w] = [images(s), s.floats(1)]
  if (w.batched || w.probe.shape.length !== 4) s.fail(`input 1 must be a parameter [o,c,p,q], found ${showExtents(w)}`)
  const group = s.int('group', 1)
  if (group !== 1) s.fail(`attribute group: expected 1, found ${group}`)
  const kernel = w.probe.shape.slice(2) as unknown as Pair
  const declared = s.list('kernel_shape')
  if (declared !== undefined && `${declared}` !== `${kernel}`)
    s.fail(`attribute kernel_shape: [${declared}], but the weights are ${show(w.probe.shape)}`)
  const options = geometry(s, x.probe.shape, kernel)
  if (!s.has(2)) return s.emit([x, w], ([a, b]) => conv2d(a, b, options))
  const bias = s.floats(2)
  const channels = w.probe.shape[0]
  if (bias.batched || bias.probe.shape.length !== 1 || bias.probe.shape[0] !== channels)
    s.fail(`input 2 must be a parameter [${channels}], found ${showExtents(bias)}`)
  return s.emit([x, w, bias], ([a, b, c]) => add(conv2d(a, b, options), reshape(c, [channels, 1, 1])) as Operand)
}

export const imports: Readonly<Record<string, Import>> = { Conv: conv }

/** Zeros after the last row and column that give a window its outputs: no more than needed. */
export const after = (g: Conv): Pair => {
  const need = (i: 0 | 1) =>
    Math.max(0, (g.y[i] - 1) * g.stride[i] + g.dilation[i] * (g.w[i] - 1) + 1 - g.x[i] - g.pad[i])
  return [need(0), need(1)]
}

/** A convolution, with its bias where there is one, as the node that computes `result`. */
const writeConv = (result: Tensor, x: Tensor, w: Writer, bias: readonly Tensor[] = []): void => {
  const g = x.attrs as Conv
  if (w.moving(x.inputs[1])) refuse(x, 'its second operand depends on the input')
  w.emit(result, 'Conv', [...x.inputs, ...bias].map(w.ref), {
    dilations: { ints: g.dilation },
    group: { int: 1 },
    kernel_shape: { ints: g.w },
    pads: { ints: [...g.pad, ...after(g)] },
    strides: { ints: g.stride },
  })
}

/** A convolution that is used for nothing but a sum with a bias per channel: one Conv with its third input. */
const fuseBias: Fuse = (x, { moving, uses, isParameter }) => {
  if (x.op.name !== 'add') return undefined
  const [product, lifted] = x.inputs
  const fits =
    product.op.name === 'conv2d' &&
    lifted.op.name === 'reshape' &&
    lifted.inputs[0].shape.length === 1 &&
    equals(lifted.shape, [product.shape[1], 1, 1]) &&
    uses(product) === 1 &&
    moving(product) &&
    !moving(lifted) &&
    !isParameter(lifted)
  if (!fits) return undefined
  return {
    absorbs: uses(lifted) === 1 ? [product, lifted] : [product],
    write: (w) => writeConv(x, product, w, [lifted.inputs[0]]),
  }
}

export const exports: Readonly<Record<string, Export>> = { conv2d: (x, w) => writeConv(x, x, w) }
export const fusions: readonly Fuse[] = [fuseBias]
