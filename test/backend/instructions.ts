import type { End, Instruction, LoopInstruction } from '../../src/compile/instruction.ts'
import type { ConvSizes, MatmulSizes, RowSizes, WindowSizes } from '../../src/core/lowering.ts'

/** Instructions by hand, their slots in the order of the operands: what is read, then the result. */

/** Work that makes an instruction shared by all threads, or not. */
export const WIDE = 1 << 20

type Slots = readonly [number, number, number]

export const matmul = (
  [a, b, out]: Slots,
  sizes: Pick<MatmulSizes, 'm' | 'k' | 'n'> & Partial<MatmulSizes>,
  end?: End,
  work = WIDE,
): Instruction => {
  const one = { transA: false, transB: false, batch: 1, strideA: 0, strideB: 0, strideOut: 0 }
  return { kind: 'matmul', work, a, b, out, ...one, ...sizes, end }
}

export const conv = (
  kind: 'conv2d' | 'conv2dInput' | 'conv2dWeight',
  [a, b, out]: Slots,
  sizes: ConvSizes,
  end?: End,
  work = WIDE,
): Instruction => {
  const operands = {
    conv2d: { x: a, w: b, y: out },
    conv2dInput: { y: a, w: b, x: out },
    conv2dWeight: { x: a, y: b, w: out },
  }
  return { ...sizes, kind, work, ...operands[kind], end }
}

/** Sizes of a convolution as a row of numbers: N, C, H, W, O, KH, KW, OH, OW, strides, padding above and to the left, dilations. */
export const convSizes = (row: readonly number[], groups = 1): ConvSizes => {
  const [N, C, H, W, O, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY, dilationX] = row
  return {
    ...{ N, C, H, W, O, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY, dilationX },
    groups,
  }
}

export const windows = (kind: 'unfold' | 'fold', from: number, to: number, sizes: WindowSizes): Instruction => ({
  ...sizes,
  kind,
  work: WIDE,
  ...(kind === 'unfold' ? { x: from, windows: to } : { windows: from, x: to }),
})

export const rowsBy = (kind: 'gather' | 'scatterAdd', [x, index, out]: Slots, sizes: RowSizes): Instruction => ({
  ...sizes,
  kind,
  work: WIDE,
  x,
  index,
  out,
  offset: 0,
})

export const argmax = (x: number, out: number, outer: number, axis: number, inner: number): Instruction => ({
  kind: 'argmax',
  work: WIDE,
  x,
  out,
  outer,
  axis,
  inner,
})

export const fill = (out: number, offset: number, n: number, value: number, work = WIDE): Instruction => ({
  kind: 'fill',
  work,
  out,
  offset,
  n,
  value,
})

/** The same loop between other slots. */
export const between = (loop: LoopInstruction, out: number, ...inputs: readonly number[]): LoopInstruction => ({
  ...loop,
  out: { ...loop.out, slot: out },
  inputs: loop.inputs.map((v, i) => ({ ...v, slot: inputs[i] })),
})
