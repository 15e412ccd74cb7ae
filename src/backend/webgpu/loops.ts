import type { RegisterOp, WindowInstruction } from '../../compile/instruction.ts'
import { Combine, LoopMode, Micro, type WindowSizes } from '../../core/lowering.ts'
import type { Conv, ConvKind } from './wgsl/conv.ts'
import type { Loop, View } from './wgsl/loop.ts'
import type { Finish } from './wgsl/product.ts'

/**
 * Convolutions and windows as loops, one for each position of the kernel: slower than kernels of their own, but a loop can be cut anywhere. For the
 * few planes that are longer than a page, or lie over the end of one.
 */

/** Outputs of one axis that see the input through kernel position p, and the first input seen. */
interface Overlap {
  readonly first: number
  readonly count: number
  readonly seen: number
}

const overlap = (size: number, outs: number, stride: number, pad: number, shift: number): Overlap => {
  const first = Math.max(0, Math.ceil((pad - shift) / stride))
  const last = Math.min(outs - 1, Math.floor((size - 1 + pad - shift) / stride))
  return { first, count: Math.max(0, last - first + 1), seen: first * stride - pad + shift }
}

interface Position {
  readonly p: number
  readonly q: number
  readonly y: Overlap
  readonly x: Overlap
}

/** The positions of the kernel that some output sees the input through, in ascending order. */
const positions = (g: WindowSizes): readonly Position[] =>
  Array.from({ length: g.KH * g.KW }, (_, i) => {
    const [p, q] = [Math.floor(i / g.KW), i % g.KW]
    return {
      ...{ p, q },
      y: overlap(g.H, g.OH, g.strideY, g.padTop, p * g.dilationY),
      x: overlap(g.W, g.OW, g.strideX, g.padLeft, q * g.dilationX),
    }
  }).filter(({ x, y }) => x.count > 0 && y.count > 0)

/** The result of a convolution: its dims (images, channels, places), and how a bias lies along them. */
export interface Result {
  readonly view: View
  readonly dims: readonly number[]
  readonly bias: readonly number[]
}

/** Loops that add a convolution to its result. */
export const convLoops = (kind: ConvKind, g: Conv): { readonly result: Result; readonly loops: readonly Loop[] } => {
  const [plane, outs, taps] = [g.H * g.W, g.OH * g.OW, g.KH * g.KW]
  const loops = positions(g).map(({ p, q, y, x }): Loop => {
    /** Over images, output channels, input channels, output rows and columns. */
    const extents = [g.N, g.O, g.C, y.count, x.count]
    const views = {
      x: {
        slot: g.x.slot,
        offset: g.x.offset + y.seen * g.W + x.seen,
        strides: [g.imageX, 0, plane, g.strideY * g.W, g.strideX],
      },
      w: { slot: g.w.slot, offset: g.w.offset + p * g.KW + q, strides: [0, g.filter, taps, 0, 0] },
      y: { slot: g.y.slot, offset: g.y.offset + y.first * g.OW + x.first, strides: [g.imageY, outs, 0, g.OW, 1] },
    }
    const [out, inputs, order, kept] =
      kind === 'conv2d'
        ? [views.y, [views.x, views.w], [0, 1, 3, 4, 2], 4]
        : kind === 'conv2dInput'
          ? [views.x, [views.y, views.w], [0, 2, 3, 4, 1], 4]
          : [views.w, [views.x, views.y], [1, 2, 0, 3, 4], 2]
    const along = (v: View): View => ({ ...v, strides: order.map((d) => v.strides[d]) })
    return {
      ...{ mode: LoopMode.inner, combine: Combine.sum, kept, accumulate: true },
      ...{ dims: order.map((d) => extents[d]), out: along(out), inputs: inputs.map(along) },
      ops: [{ micro: Micro.mul, dst: 2, args: [0, 1] }],
    }
  })
  const result: Result =
    kind === 'conv2d'
      ? { view: { ...g.y, strides: [g.imageY, outs, 1] }, dims: [g.N, g.O, outs], bias: [0, 1, 0] }
      : kind === 'conv2dInput'
        ? { view: { ...g.x, strides: [g.imageX, plane, 1] }, dims: [g.N, g.C, plane], bias: [0, 1, 0] }
        : { view: { ...g.w, strides: [g.filter, taps, 1] }, dims: [g.O, g.C, taps], bias: [0, 0, 0] }
  return { result, loops }
}

/** The loop that adds the bias and applies relu in place, if there is either. */
export const finishLoop = ({ view, dims, bias }: Result, { bias: added, relu }: Finish): Loop | undefined => {
  const inputs = [view, ...(added === undefined ? [] : [{ ...added.operand, strides: bias }])]
  const sum = inputs.length
  const ops: readonly RegisterOp[] = [
    ...(added === undefined ? [] : [{ micro: Micro.add, dst: sum, args: [0, 1] }]),
    ...(relu ? [{ micro: Micro.relu, dst: sum, args: [added === undefined ? 0 : sum] }] : []),
  ]
  return ops.length === 0
    ? undefined
    : { mode: LoopMode.map, combine: Combine.sum, kept: dims.length, dims, out: view, inputs, ops }
}

/** Views of an image and of its windows at one position of the kernel, over images, channels, output rows and columns. */
const windowViews = ({ x: image, windows, ...g }: WindowInstruction) => {
  const cell = g.C * g.KH * g.KW
  return positions(g).map(({ p, q, y, x }) => ({
    dims: [g.N, g.C, y.count, x.count],
    image: {
      slot: image,
      offset: y.seen * g.W + x.seen,
      strides: [g.C * g.H * g.W, g.H * g.W, g.strideY * g.W, g.strideX],
    },
    windows: {
      slot: windows,
      offset: (y.first * g.OW + x.first) * cell + p * g.KW + q,
      strides: [g.OH * g.OW * cell, g.KH * g.KW, g.OW * cell, cell],
    },
  }))
}

const mapped = { mode: LoopMode.map, combine: Combine.sum, kept: 4 } as const

/** Loops that copy an image into its windows, which are 0 already. */
export const unfoldLoops = (i: WindowInstruction): readonly Loop[] =>
  windowViews(i).map(({ dims, image, windows }) => ({
    ...{ ...mapped, dims, out: windows, inputs: [image], ops: [] },
  }))

/** Loops that add windows to their image, which is 0 already. */
export const foldLoops = (i: WindowInstruction): readonly Loop[] =>
  windowViews(i).map(({ dims, image, windows }) => ({
    ...{ ...mapped, dims, out: image, inputs: [image, windows], ops: [{ micro: Micro.add, dst: 2, args: [0, 1] }] },
  }))
