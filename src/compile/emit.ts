import { raise } from '../core/error.ts'
import { Combine, type Kernel, LoopMode } from '../core/lowering.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import type { End, Instruction, LoopInstruction } from './instruction.ts'
import { allocate, type Loop, MAX_DIMS } from './loops.ts'
import type { Executed } from './steps.ts'

/** From steps to instructions: strides joined, registers given, tensors replaced by their slots. */

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

type SlotOf = (x: Tensor) => number

const workOf = (l: Loop): number => S.size(l.shape) * (l.program.length + 1)

const loopOf = (l: Loop, slot: SlotOf): LoopInstruction => {
  const axes = l.reduce?.axes ?? []
  const all = compress(
    l.shape.map((extent, i) => ({
      extent,
      reduced: axes.includes(i),
      strides: [l.outStrides[i], ...l.inputs.map((a) => a.strides[i])],
    })),
  )
  const kept = all.filter((d) => !d.reduced)
  const reduced = all.filter((d) => d.reduced)
  const tail = all[all.length - 1]
  const mode = reduced.length === 0 ? LoopMode.map : tail.reduced ? LoopMode.inner : LoopMode.keep
  const outer = compress(mode === LoopMode.keep ? kept.slice(0, -1) : kept)
  const ordered = [...outer, ...compress(reduced), ...(mode === LoopMode.keep ? [tail] : [])]
  const dims = ordered.length > 0 ? ordered : [{ extent: 1, reduced: false, strides: [1, ...l.inputs.map(() => 0)] }]
  if (dims.length > MAX_DIMS)
    raise({
      kind: 'unsupported',
      what: `a loop over ${dims.length} axes`,
      reason: `at most ${MAX_DIMS} remain after joining contiguous ones`,
    })
  return {
    kind: 'loop',
    work: workOf(l),
    mode,
    combine: l.reduce?.combine ?? Combine.sum,
    kept: mode === LoopMode.map ? dims.length : outer.length,
    dims: dims.map((d) => d.extent),
    out: { slot: slot(l.out), offset: l.outOffset, strides: dims.map((d) => d.strides[0]) },
    inputs: l.inputs.map((a, k) => ({
      slot: slot(a.base),
      offset: a.offset,
      strides: dims.map((d) => d.strides[k + 1]),
    })),
    ...allocate(l),
    stored: l.more.map((m) => ({ op: m.op, slot: slot(m.out) })),
  }
}

/** A kernel with its operands by name: those of the op in order, then the result. */
const kernelOf = (
  k: Kernel,
  work: number,
  inputs: readonly number[],
  out: number,
  end: End | undefined,
): Instruction => {
  const [first, second] = inputs
  switch (k.kind) {
    case 'matmul':
      return { ...k, work, a: first, b: second, out, end }
    case 'conv2d':
      return { ...k, kind: k.kind, work, x: first, w: second, y: out, end }
    case 'conv2dInput':
      return { ...k, kind: k.kind, work, y: first, w: second, x: out, end }
    case 'conv2dWeight':
      return { ...k, kind: k.kind, work, x: first, y: second, w: out, end }
    case 'unfold':
      return { ...k, kind: k.kind, work, x: first, windows: out }
    case 'fold':
      return { ...k, kind: k.kind, work, windows: first, x: out }
    case 'gather':
    case 'scatterAdd':
      return { ...k, work, x: first, index: second, out, offset: 0 }
    case 'scatterInto':
      return { ...k, work, x: first, index: second, out }
    case 'argmax':
    case 'compact':
      return { ...k, work, x: first, out }
    default:
      return k satisfies never
  }
}

const instructionOf = (s: Exclude<Executed, { readonly kind: 'repeat' | 'end' }>, slot: SlotOf): Instruction => {
  switch (s.kind) {
    case 'fill':
      return { kind: 'fill', work: s.n, out: slot(s.out), offset: 0, n: s.n, value: s.value }
    case 'kernel': {
      const { kernel, work } = s.lowering
      const inputs = s.inputs.map(slot)
      const end = s.epilogue && { bias: s.epilogue.bias ? inputs.at(-1) : undefined, relu: s.epilogue.relu }
      return kernelOf(kernel, work, inputs, slot(s.out), end)
    }
    case 'loop':
      return loopOf(s, slot)
    case 'loops':
      return {
        kind: 'loops',
        work: s.loops.reduce((n, l) => n + workOf(l), 0),
        loops: s.loops.map((l) => loopOf(l, slot)),
      }
    default:
      return s satisfies never
  }
}

/** The instructions of steps; those between a `repeat` and its `end` are its body. */
export const emit = (steps: readonly Executed[], slot: SlotOf): readonly Instruction[] => {
  const open: { readonly done: Instruction[]; readonly close: (body: readonly Instruction[]) => Instruction }[] = []
  let done: Instruction[] = []
  for (const s of steps) {
    if (s.kind === 'repeat') {
      const close = (body: readonly Instruction[]): Instruction => ({
        kind: 'repeat',
        work: 0,
        count: slot(s.count),
        per: s.per,
        most: s.most,
        round: slot(s.out),
        moving: s.places.map((p) => ({ slot: slot(p.value), store: slot(p.store), at: p.at, stride: p.stride })),
        body,
      })
      open.push({ done, close })
      done = []
    } else if (s.kind === 'end') {
      const around = open.pop() as (typeof open)[number]
      around.done.push(around.close(done))
      done = around.done
    } else done.push(instructionOf(s, slot))
  }
  return done
}
