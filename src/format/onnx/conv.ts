import { equals, show } from '../../core/shape.ts'
import type { Operand, Tensor } from '../../core/tensor.ts'
import { add, addOp, type Conv, conv2d, conv2dOp, convTranspose2d, reshape, reshapeOp } from '../../ops/index.ts'
import { showExtents } from './axes.ts'
import { batched, type Floats, type Import, type NodeView } from './values.ts'
import { type Export, type Fuse, refuse, type Writer } from './writer.ts'

/**
 * A value `[N, c, h, w]`, or `[N, c, l]`, which is taken as a map of one row: every op of windows is one of two axes here.
 */
export interface Maps {
  readonly floats: Floats
  /** [height, width]. */
  readonly extents: Pair
  /** How many axes the windows have in the file. */
  readonly axes: 1 | 2
}

export const mapsOf = (s: NodeView): Maps => {
  const floats = s.floats(0)
  const { shape } = floats.probe
  if (floats.batch !== 'first' || (shape.length !== 3 && shape.length !== 4))
    return s.fail(
      `expected maps [N,c,h,w] or [N,c,l], found ${showExtents(floats)}: windows of 1 or 2 axes are supported`,
    )
  const [h, w] = shape.slice(2)
  return { floats, extents: shape.length === 4 ? [h, w] : [1, h], axes: shape.length === 4 ? 2 : 1 }
}

/** `[a, b, l]` as `[a, b, 1, l]`; maps stay. */
export const asMaps = <T extends Operand>(x: T): T =>
  x.shape.length === 3 ? reshape(x, [x.shape[0], x.shape[1], 1, x.shape[2]]) : x

/** The way back. */
export const asGiven = (y: Operand, { axes }: Maps): Operand =>
  axes === 1 ? reshape(y, [y.shape[0], y.shape[1], y.shape[3]]) : y

export type Pair = readonly [number, number]
type Sides = readonly [number, number, number, number]

export interface Geometry {
  readonly stride: Pair
  readonly dilation: Pair
  /** Top, left, bottom, right, as in ONNX. */
  readonly padding: Sides
}

/** A list of the file with a number for each axis of a window, as [vertical, horizontal]; `other` for an axis that the file has not. */
export const pairOf = (s: NodeView, name: string, list: readonly number[], axes: 1 | 2, least = 1, other = 1): Pair => {
  if (list.length !== axes || !list.every((d) => d >= least))
    return s.fail(
      `attribute ${name}: expected ${axes} ${axes === 1 ? 'number' : 'numbers'} >= ${least}, found [${list}]`,
    )
  return axes === 1 ? [other, list[0]] : (list as unknown as Pair)
}

/** Pads of the file as [top, left, bottom, right]. */
const padsOf = (s: NodeView, axes: 1 | 2): Sides => {
  const pads = s.list('pads') ?? Array.from({ length: 2 * axes }, () => 0)
  if (pads.length !== 2 * axes || !pads.every((p) => p >= 0))
    s.fail(`attribute pads: expected ${2 * axes} numbers >= 0, found [${pads}]`)
  return axes === 1 ? [0, pads[0], 0, pads[1]] : (pads as unknown as Sides)
}

/** `total` zeros on two sides; of an odd number the last goes behind (SAME_UPPER) or before (SAME_LOWER). */
const shared = (total: Pair, upper: boolean): Sides => {
  const [less, more] = [total.map((t) => Math.floor(t / 2)), total.map((t) => Math.ceil(t / 2))]
  const [before, behind] = upper ? [less, more] : [more, less]
  return [before[0], before[1], behind[0], behind[1]]
}

/** What auto_pad says: NOTSET where it is not given. */
const autoPad = (s: NodeView, pads: Sides): 'NOTSET' | 'VALID' | 'SAME_UPPER' | 'SAME_LOWER' => {
  const auto = s.string('auto_pad', 'NOTSET')
  if (auto === '' || auto === 'NOTSET') return 'NOTSET'
  if (auto !== 'VALID' && auto !== 'SAME_UPPER' && auto !== 'SAME_LOWER')
    return s.fail(`attribute auto_pad: ${JSON.stringify(auto.slice(0, 80))} is not supported`)
  return pads.some((p) => p !== 0) ? s.fail(`attributes pads and auto_pad ${auto} exclude each other`) : auto
}

/** The window of Conv and the pools: strides, dilations, and pads given or worked out by auto_pad. */
export const geometry = (s: NodeView, { extents, axes }: Maps, kernel: Pair): Geometry => {
  const pair = (name: string): Pair => pairOf(s, name, s.list(name) ?? Array.from({ length: axes }, () => 1), axes)
  const [stride, dilation] = [pair('strides'), pair('dilations')]
  const padding = padsOf(s, axes)
  const auto = autoPad(s, padding)
  if (auto === 'NOTSET' || auto === 'VALID') return { stride, dilation, padding }
  // As many outputs as strides fit the input, rounded up.
  const total = (i: 0 | 1) =>
    Math.max(0, (Math.ceil(extents[i] / stride[i]) - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - extents[i])
  return { stride, dilation, padding: shared([total(0), total(1)], auto === 'SAME_UPPER') }
}

/** Weights `[a, b, p, q]` or `[a, b, l]` of a convolution of maps, and the window that they are of. */
const weightsOf = (s: NodeView, maps: Maps) => {
  const weights = s.floats(1)
  const { shape } = weights.probe
  if (batched(weights) || shape.length !== maps.axes + 2)
    s.fail(`input 1 must be a parameter [o,c,${maps.axes === 1 ? 'l' : 'p,q'}], found ${showExtents(weights)}`)
  const declared = s.list('kernel_shape')
  if (declared !== undefined && `${declared}` !== `${shape.slice(2)}`)
    s.fail(`attribute kernel_shape: [${declared}], but the weights are ${show(shape)}`)
  const kernel: Pair = maps.axes === 1 ? [1, shape[2]] : [shape[2], shape[3]]
  return { weights, kernel }
}

/** What `run` makes of maps and weights, with input 2 as a bias per channel where there is one. */
const withBias = (
  s: NodeView,
  maps: Maps,
  weights: Floats,
  channels: number,
  run: (x: Operand, w: Operand) => Operand,
): Floats => {
  const product = (x: Operand, w: Operand) => run(asMaps(x), asMaps(w))
  if (!s.has(2)) return s.emit([maps.floats, weights], ([x, w]) => asGiven(product(x, w), maps))
  const bias = s.floats(2)
  if (batched(bias) || bias.probe.shape.length !== 1 || bias.probe.shape[0] !== channels)
    s.fail(`input 2 must be a parameter [${channels}], found ${showExtents(bias)}`)
  return s.emit([maps.floats, weights, bias], ([x, w, b]) =>
    asGiven(add(product(x, w), reshape(b, [channels, 1, 1])) as Operand, maps),
  )
}

/** How many groups the channels of a convolution are in. */
const groupsOf = (s: NodeView, channels: number, outs: number): number => {
  const groups = s.int('group', 1)
  return groups >= 1 && channels % groups === 0 && outs % groups === 0
    ? groups
    : s.fail(`attribute group: ${groups} does not divide ${channels} channels and ${outs} output channels`)
}

/** Cross-correlation `[N, c, h, w] * [o, c / group, p, q] + [o]`, or of rows `[N, c, l] * [o, c / group, k] + [o]`. */
const conv: Import = (s) => {
  const maps = mapsOf(s)
  const { weights, kernel } = weightsOf(s, maps)
  const [channels, [outs, own]] = [maps.floats.probe.shape[1], weights.probe.shape]
  const groups = groupsOf(s, channels, outs)
  if (own * groups !== channels)
    s.fail(
      `input 1 ${showExtents(weights)} has weights for ${groups === 1 ? '' : `${groups} groups of `}${own} channels, the input has ${channels}`,
    )
  const options = geometry(s, maps, kernel)
  return withBias(s, maps, weights, outs, (x, w) => conv2d(x, w, { ...options, groups }))
}

/** Pads that give an output of the extents that `output_shape` asks for: all of them if auto_pad is SAME, otherwise in front. */
const padsFor = (wanted: Pair, whole: Pair, upper: boolean): { readonly padding: Sides; readonly extra: Pair } => {
  const total = (i: 0 | 1): number => Math.max(0, whole[i] - wanted[i])
  // The standard counts what SAME_UPPER has too much at the end.
  return {
    padding: shared([total(0), total(1)], upper),
    extra: [Math.max(0, wanted[0] - whole[0]), Math.max(0, wanted[1] - whole[1])],
  }
}

/** Transposed convolution `[N, c, h, w], [c, o / group, p, q] + [o]`, or of rows. */
const transposed: Import = (s) => {
  const maps = mapsOf(s)
  const { weights, kernel } = weightsOf(s, maps)
  const [channels, [ins, own]] = [maps.floats.probe.shape[1], weights.probe.shape]
  const groups = s.int('group', 1)
  if (ins !== channels || groups < 1 || channels % groups !== 0)
    s.fail(`input 1 ${showExtents(weights)} with ${groups} groups does not fit an input of ${channels} channels`)
  const ones = Array.from({ length: maps.axes }, () => 1)
  const [stride, dilation] = ['strides', 'dilations'].map((n) => pairOf(s, n, s.list(n) ?? ones, maps.axes))
  const none = ones.map(() => 0)
  const extra = pairOf(s, 'output_padding', s.list('output_padding') ?? none, maps.axes, 0, 0)
  const pads = padsOf(s, maps.axes)
  const auto = autoPad(s, pads)
  const shape = s.list('output_shape')
  const whole = ([0, 1] as const).map(
    (i) => stride[i] * (maps.extents[i] - 1) + dilation[i] * (kernel[i] - 1) + 1 + extra[i],
  ) as unknown as Pair
  const same = auto === 'SAME_UPPER' || auto === 'SAME_LOWER'
  const wanted =
    shape !== undefined
      ? pairOf(s, 'output_shape', shape.slice(-maps.axes), maps.axes)
      : same
        ? ([maps.extents[0] * stride[0], maps.extents[1] * stride[1]] as const)
        : undefined
  const { padding, extra: more } =
    wanted === undefined ? { padding: pads, extra: [0, 0] as const } : padsFor(wanted, whole, auto === 'SAME_UPPER')
  // A shape that is asked for may be larger than what windows reach; SAME leaves it at that.
  const outputPadding: Pair = shape === undefined ? extra : [extra[0] + more[0], extra[1] + more[1]]
  const options = { stride, dilation, padding, outputPadding, groups }
  return withBias(s, maps, weights, own * groups, (x, w) => convTranspose2d(x, w, options))
}

export const imports: Readonly<Record<string, Import>> = { Conv: conv, ConvTranspose: transposed }

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
    group: { int: g.groups ?? 1 },
    kernel_shape: { ints: g.w },
    pads: { ints: [...g.pad, ...after(g)] },
    strides: { ints: g.stride },
  })
}

/** A convolution that is used for nothing but a sum with a bias per channel: one Conv with its third input. */
const fuseBias: Fuse = (x, { moving, uses, isParameter }) => {
  if (x.op !== addOp) return undefined
  const [product, lifted] = x.inputs
  const fits =
    product.op === conv2dOp &&
    lifted.op === reshapeOp &&
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

/** The adjoint of a convolution; rows and columns that no window reaches are its output padding. */
const writeTransposed: Export = (x, w) => {
  const g = x.attrs as Conv
  if (w.moving(x.inputs[1])) refuse(x, 'its second operand depends on the input')
  const behind = ([0, 1] as const).map(
    (i) => g.stride[i] * (g.y[i] - 1) + g.dilation[i] * (g.w[i] - 1) + 1 - g.pad[i] - g.x[i],
  )
  w.emit(x, 'ConvTranspose', x.inputs.map(w.ref), {
    dilations: { ints: g.dilation },
    group: { int: g.groups ?? 1 },
    kernel_shape: { ints: g.w },
    output_padding: { ints: behind.map((b) => Math.max(0, -b)) },
    pads: { ints: [...g.pad, ...behind.map((b) => Math.max(0, b))] },
    strides: { ints: g.stride },
  })
}

export const exports: Readonly<Record<string, Export>> = {
  conv2d: (x, w) => writeConv(x, x, w),
  conv2dInput: writeTransposed,
}
export const fusions: readonly Fuse[] = [fuseBias]
