import type { ConvInstruction, End, Instruction, LoopInstruction } from '../../compile/instruction.ts'
import { bitsOf } from '../../core/number.ts'

/**
 * The words of the WASM machine: the only file that knows them. A program is a flat sequence of i32 words; every instruction begins with
 * a header, then come the fields of its layout, then what its length leaves room for. assembly/words.ts is made from the tables here
 * (tools/words.js), so that the machine reads what is written here by construction.
 */

export enum Opcode {
  /** End of program. */
  halt = 0,
  loop = 1,
  fill = 2,
  matmul = 3,
  conv2d = 4,
  conv2dInput = 5,
  conv2dWeight = 6,
  gather = 7,
  scatterAdd = 8,
  argmax = 9,
  unfold = 10,
  fold = 11,
  /** The instructions up to the matching `end` are its body. */
  repeat = 12,
  end = 13,
  compact = 14,
  scatterInto = 15,
  loops = 16,
  /** The three convolutions with channels in groups. */
  groupConv2d = 17,
  groupConv2dInput = 18,
  groupConv2dWeight = 19,
}

const WINDOWS = ['KH', 'KW', 'OH', 'OW', 'strideY', 'strideX', 'padTop', 'padLeft', 'dilationY', 'dilationX'] as const

/** First words of every instruction; `length` is in words and counts these. */
const HEADER = ['opcode', 'length', 'work'] as const

/** Fields of the instructions, one word each, behind the header; operands are slots. What follows them, if anything, begins at `end`. */
const LAYOUTS = {
  /** Then the extents of the dims, the strides of the output, `View`s of the inputs, `Op`s, `Stored` values. */
  Loop: ['depth', 'mode', 'combine', 'kept', 'inputs', 'ops', 'registers', 'out', 'offset'],
  /** Then the loops, each a whole instruction. */
  Loops: [],
  Fill: ['out', 'offset', 'n', 'bits'],
  /** Then perhaps an `Epilogue`. */
  Matmul: ['a', 'b', 'out', 'm', 'k', 'n', 'transA', 'transB', 'batch', 'strideA', 'strideB', 'strideOut'],
  /** Two operands and the result of each of the three convolutions. Then perhaps an `Epilogue`, or the number of groups. */
  Conv: ['a', 'b', 'out', 'N', 'C', 'H', 'W', 'O', ...WINDOWS],
  /** Then, for `scatterInto`, the offset. */
  Rows: ['x', 'index', 'out', 'n', 'rows', 'd'],
  Argmax: ['x', 'out', 'outer', 'axis', 'inner'],
  Windows: ['a', 'out', 'N', 'C', 'H', 'W', ...WINDOWS],
  /** Then the slots that move (`Moving`). */
  Repeat: ['count', 'per', 'most', 'round'],
  /** Then the extents of the dims. */
  Compact: ['x', 'out', 'n', 'rank'],
} as const

/** Words of what stands behind the fields of an instruction. */
const PARTS = {
  /** `bias`: the slot of a bias plus 1, or 0. */
  Epilogue: ['bias', 'relu'],
  /** Then a stride for each dim. */
  View: ['slot', 'offset'],
  /** Unused operands are register 0. */
  Op: ['micro', 'dst', 'a', 'b', 'c'],
  Stored: ['op', 'slot'],
  Moving: ['slot', 'store', 'at', 'stride'],
} as const

type Layouts = typeof LAYOUTS
type Fields<L extends keyof Layouts> = Readonly<Record<Layouts[L][number], number>>

/** Every layout and part with the place of each of its words, and where what follows begins: what assembly/words.ts lists. */
export const placesOf = (): Readonly<Record<string, readonly (readonly [string, number])[]>> => {
  const from = (first: number, names: readonly string[]) =>
    [...names, 'end'].map((name, i) => [name, first + i] as const)
  const all: readonly (readonly [string, readonly (readonly [string, number])[]])[] = [
    ['Header', from(0, HEADER)],
    ...Object.entries(LAYOUTS).map(([name, fields]) => [name, from(HEADER.length, fields)] as const),
    ...Object.entries(PARTS).map(([name, fields]) => [name, from(0, fields)] as const),
  ]
  return Object.fromEntries(all)
}

const MAX_WORK = 2 ** 31 - 1

/** Appends header and fields; `rest` appends what follows them. */
const write = <L extends keyof Layouts>(
  code: number[],
  opcode: Opcode,
  work: number,
  layout: L,
  fields: Fields<L>,
  rest?: () => void,
): void => {
  const start = code.length
  const names: readonly Layouts[L][number][] = LAYOUTS[layout]
  code.push(opcode, 0, Math.min(work, MAX_WORK))
  for (const name of names) code.push(fields[name])
  rest?.()
  code[start + 1] = code.length - start
}

const bare = (code: number[], opcode: Opcode): void => {
  code.push(opcode, HEADER.length, 0)
}

const writeLoop = (code: number[], l: LoopInstruction): void => {
  const fields = {
    depth: l.dims.length,
    mode: l.mode,
    combine: l.combine,
    kept: l.kept,
    inputs: l.inputs.length,
    ops: l.ops.length,
    registers: l.registers,
    out: l.out.slot,
    offset: l.out.offset,
  }
  write(code, Opcode.loop, l.work, 'Loop', fields, () => {
    code.push(...l.dims, ...l.out.strides)
    for (const v of l.inputs) code.push(v.slot, v.offset, ...v.strides)
    for (const { micro, dst, args } of l.ops) code.push(micro, dst, args[0], args[1] ?? 0, args[2] ?? 0)
    for (const s of l.stored) code.push(s.op, s.slot)
  })
}

const writeEnd = (code: number[], end: End | undefined) => (): void => {
  if (end !== undefined) code.push(end.bias === undefined ? 0 : end.bias + 1, Number(end.relu))
}

const CONVOLUTIONS = {
  conv2d: { opcode: Opcode.conv2d, grouped: Opcode.groupConv2d, operands: ['x', 'w', 'y'] },
  conv2dInput: { opcode: Opcode.conv2dInput, grouped: Opcode.groupConv2dInput, operands: ['y', 'w', 'x'] },
  conv2dWeight: { opcode: Opcode.conv2dWeight, grouped: Opcode.groupConv2dWeight, operands: ['x', 'y', 'w'] },
} as const

const writeConv = (code: number[], i: ConvInstruction): void => {
  const { opcode, grouped, operands } = CONVOLUTIONS[i.kind]
  const [a, b, out] = operands.map((name) => i[name])
  const fields = { ...i, a, b, out }
  if (i.groups === 1) write(code, opcode, i.work, 'Conv', fields, writeEnd(code, i.end))
  else write(code, grouped, i.work, 'Conv', fields, () => code.push(i.groups))
}

/** The other instructions. */
const writeRest = (code: number[], i: Exclude<Instruction, LoopInstruction | ConvInstruction>): void => {
  switch (i.kind) {
    case 'loops':
      write(code, Opcode.loops, i.work, 'Loops', {}, () => {
        for (const l of i.loops) writeLoop(code, l)
      })
      break
    case 'fill':
      write(code, Opcode.fill, i.work, 'Fill', { ...i, bits: bitsOf(i.value) })
      break
    case 'matmul': {
      const fields = { ...i, transA: Number(i.transA), transB: Number(i.transB) }
      write(code, Opcode.matmul, i.work, 'Matmul', fields, writeEnd(code, i.end))
      break
    }
    case 'gather':
    case 'scatterAdd':
      write(code, Opcode[i.kind], i.work, 'Rows', i)
      break
    case 'scatterInto':
      write(code, Opcode.scatterInto, i.work, 'Rows', i, () => code.push(i.offset))
      break
    case 'argmax':
      write(code, Opcode.argmax, i.work, 'Argmax', i)
      break
    case 'unfold':
      write(code, Opcode.unfold, i.work, 'Windows', { ...i, a: i.x, out: i.windows })
      break
    case 'fold':
      write(code, Opcode.fold, i.work, 'Windows', { ...i, a: i.windows, out: i.x })
      break
    case 'compact': {
      const fields = { ...i, n: i.dims.reduce((size, d) => size * d, 1), rank: i.dims.length }
      write(code, Opcode.compact, i.work, 'Compact', fields, () => code.push(...i.dims))
      break
    }
    case 'repeat':
      write(code, Opcode.repeat, i.work, 'Repeat', i, () => {
        for (const m of i.moving) code.push(m.slot, m.store, m.at, m.stride)
      })
      for (const inner of i.body) writeOne(code, inner)
      bare(code, Opcode.end)
      break
    default:
      i satisfies never
  }
}

const writeOne = (code: number[], i: Instruction): void => {
  switch (i.kind) {
    case 'loop':
      writeLoop(code, i)
      break
    case 'conv2d':
    case 'conv2dInput':
    case 'conv2dWeight':
      writeConv(code, i)
      break
    default:
      writeRest(code, i)
  }
}

/** A program for the machine. */
export const encode = (instructions: readonly Instruction[]): Int32Array => {
  const code: number[] = []
  for (const i of instructions) writeOne(code, i)
  bare(code, Opcode.halt)
  return new Int32Array(code)
}
