import { raise } from '../core/error.ts'
import { Combine, LoopMode, Opcode } from '../core/lowering.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { allocate, type Loop, MAX_DIMS } from './loops.ts'
import type { Executed } from './steps.ts'

interface Dim {
  readonly extent: number
  readonly reduced: boolean
  /** Strides of the output, then of each input. */
  readonly strides: readonly number[]
}

/** Drops unit dims and joins neighbours that every operand walks through contiguously. */
const compress = (dims: readonly Dim[]): readonly Dim[] => {
  const joined: Dim[] = []
  for (const d of dims.filter((x) => x.extent !== 1)) {
    const p = joined[joined.length - 1]
    const joins = p !== undefined && p.reduced === d.reduced && p.strides.every((s, i) => s === d.strides[i] * d.extent)
    if (joins) joined[joined.length - 1] = { ...d, extent: p.extent * d.extent }
    else joined.push(d)
  }
  return joined
}

const MAX_WORK = 2 ** 31 - 1

const workOf = (l: Loop): number => S.size(l.shape) * (l.program.length + 1)

export const encode = (s: Executed, slot: (x: Tensor) => number, code: number[]): void => {
  const emit = (opcode: Opcode, work: number, words: readonly number[]) =>
    code.push(opcode, words.length + 3, Math.min(work, MAX_WORK), ...words)
  switch (s.kind) {
    case 'fill':
      emit(Opcode.fill, s.n, [slot(s.out), 0, s.n, new Int32Array(Float32Array.of(s.value).buffer)[0]])
      break
    case 'kernel': {
      const { opcode, ints, work } = s.lowering
      const { bias, relu } = s.epilogue ?? { bias: false, relu: false }
      const operands = s.inputs.map(slot)
      const added = bias ? (operands.pop() as number) + 1 : 0
      emit(opcode, work, [...operands, slot(s.out), ...ints, ...(s.epilogue ? [added, Number(relu)] : [])])
      break
    }
    case 'loop': {
      const axes = s.reduce?.axes ?? []
      const all = compress(
        s.shape.map((extent, i) => ({
          extent,
          reduced: axes.includes(i),
          strides: [s.outStrides[i], ...s.inputs.map((a) => a.strides[i])],
        })),
      )
      const kept = all.filter((d) => !d.reduced)
      const reduced = all.filter((d) => d.reduced)
      const tail = all[all.length - 1]
      const mode = reduced.length === 0 ? LoopMode.map : tail.reduced ? LoopMode.inner : LoopMode.keep
      const outer = compress(mode === LoopMode.keep ? kept.slice(0, -1) : kept)
      const ordered = [...outer, ...compress(reduced), ...(mode === LoopMode.keep ? [tail] : [])]
      const dims =
        ordered.length > 0 ? ordered : [{ extent: 1, reduced: false, strides: [1, ...s.inputs.map(() => 0)] }]
      if (dims.length > MAX_DIMS)
        raise({
          kind: 'unsupported',
          what: `a loop over ${dims.length} axes`,
          reason: `at most ${MAX_DIMS} remain after joining contiguous ones`,
        })
      const { ops, registers } = allocate(s)
      emit(Opcode.loop, workOf(s), [
        dims.length,
        mode,
        s.reduce?.combine ?? Combine.sum,
        mode === LoopMode.map ? dims.length : outer.length,
        s.inputs.length,
        s.program.length,
        registers,
        slot(s.out),
        s.outOffset,
        ...dims.map((d) => d.extent),
        ...dims.map((d) => d.strides[0]),
        ...s.inputs.flatMap((a, k) => [slot(a.base), a.offset, ...dims.map((d) => d.strides[k + 1])]),
        ...ops.flatMap((p) => [p.micro, p.dst, p.args[0], p.args[1] ?? 0, p.args[2] ?? 0]),
        ...s.more.flatMap((m) => [m.op, slot(m.out)]),
      ])
      break
    }
    case 'loops': {
      const members: number[] = []
      for (const l of s.loops) encode(l, slot, members)
      emit(
        Opcode.loops,
        s.loops.reduce((n, l) => n + workOf(l), 0),
        members,
      )
      break
    }
    case 'repeat':
      emit(Opcode.repeat, 0, [
        slot(s.count),
        s.per,
        s.most,
        slot(s.out),
        ...s.places.flatMap((p) => [slot(p.value), slot(p.store), p.at, p.stride]),
      ])
      break
    case 'end':
      emit(Opcode.end, 0, [])
      break
    default:
      s satisfies never
  }
}
