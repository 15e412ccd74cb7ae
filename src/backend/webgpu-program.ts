import * as E from 'fp-ts/lib/Either.js'
import { deviceError, type MixtrainError } from '../core/error.ts'
import { LoopMode, Opcode } from '../core/lowering.ts'
import type { Plan, Slot } from '../tape/plan.ts'
import { prepare } from './wasm-program.ts'
import { element, elementwise, grid, type Kernel, MAX_GRID, type Scratch, type Target } from './wgsl.ts'
import { convKernels } from './wgsl-conv.ts'
import {
  argmaxKernel,
  compactKernel,
  fillKernel,
  foldWindowsKernel,
  gatherKernel,
  scatterAddKernel,
  unfoldKernel,
} from './wgsl-index.ts'
import { type Loop, loopKernels } from './wgsl-loop.ts'
import { prelude } from './wgsl-math.ts'
import { matmulKernels } from './wgsl-matmul.ts'

/** What a storage binding shows. Offsets and lengths count elements. */
export type Binding =
  | { readonly at: 'arena'; readonly offset: number; readonly length: number }
  | { readonly at: 'constant' }
  | { readonly at: 'argument'; readonly index: number }

export interface Dispatch {
  /** The whole shader: what a pipeline is made of, and known by. */
  readonly source: string
  readonly bindings: readonly Binding[]
  /** Where each operand begins in its binding, padded to whole uniforms. */
  readonly bases: readonly number[]
  readonly grid: readonly [number, number]
}

/** A plan as dispatches. */
export interface Program {
  readonly dispatches: readonly Dispatch[]
  /** Elements of scratch: the plan's arena and what its reductions add. */
  readonly arena: number
}

export interface ProgramLimits {
  /** Storage bindings of one dispatch. */
  readonly bindings: number
  /** Bytes of one storage binding. */
  readonly bindingBytes: number
  /** Whether products go through tiles in workgroup memory; the small ones never do. */
  readonly tiles: boolean
}

/** i32 numbers in a dispatch's uniform: one per operand, in vectors of four. */
export const BASES = 12
/** Multiply-adds up to which one invocation per result is as fast as a tile. */
const SMALL = 1 << 15
const ALIGN = 64
const align = (n: number): number => Math.ceil(n / ALIGN) * ALIGN

/** Words of the loop instruction, as assembly/opcode.ts lists them. */
const loopOf = (c: readonly number[]): Loop => {
  const [, , , depth, mode, combine, kept, nIn, nOps, , slot, offset] = c
  const at = 12 + 2 * depth
  return {
    mode,
    combine,
    kept: mode === LoopMode.map ? depth : kept,
    dims: c.slice(12, 12 + depth),
    out: { slot, offset, strides: c.slice(12 + depth, at) },
    inputs: Array.from({ length: nIn }, (_, i) => {
      const [s, o, ...strides] = c.slice(at + i * (2 + depth), at + (i + 1) * (2 + depth))
      return { slot: s, offset: o, strides }
    }),
    ops: c.slice(at + nIn * (2 + depth), at + nIn * (2 + depth) + nOps * 5),
  }
}

const kernelsOf = (c: readonly number[], slots: readonly Slot[], target: Target): readonly Kernel[] => {
  const words = c.slice(3)
  const { scratch } = target
  switch (c[0] as Opcode) {
    case Opcode.halt:
      return []
    case Opcode.loop:
      return loopKernels(loopOf(c), scratch)
    case Opcode.fill: {
      const [slot, offset, n, bits] = words
      return n === 0 ? [] : [fillKernel({ slot, offset }, n, bits)]
    }
    case Opcode.matmul: {
      const [a, b, out, m, k, n, transA, transB, batch, strideA, strideB, strideOut] = words
      const aligned = [a, b, out].every((s) => {
        const slot = slots[s]
        return slot.at === 'input' || slot.at === 'output' || slot.offset % 4 === 0
      })
      return matmulKernels(
        { a, b, out, m, k, n, transA: transA !== 0, transB: transB !== 0, batch, strideA, strideB, strideOut },
        aligned,
        target,
      )
    }
    case Opcode.conv2d:
    case Opcode.conv2dInput:
    case Opcode.conv2dWeight: {
      const [N, C, H, W, O, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY, dilationX] = words.slice(3)
      return convKernels(
        c[0],
        words,
        { N, C, H, W, O, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY, dilationX },
        target,
      )
    }
    case Opcode.gather:
      return [gatherKernel(words)]
    case Opcode.scatterAdd:
      return [scatterAddKernel(words)]
    case Opcode.argmax:
      return [argmaxKernel(words)]
    case Opcode.compact:
      return [compactKernel(words)]
    case Opcode.unfold:
      return [unfoldKernel(words)]
    case Opcode.fold:
      return [foldWindowsKernel(words)]
    default:
      return []
  }
}

/** Which buffer a slot lies in: the arena, the constants, or an argument. */
const home = (slot: Slot, inputs: number): string | number =>
  slot.at === 'arena' || slot.at === 'constant' ? slot.at : slot.at === 'input' ? slot.index : inputs + slot.index

/**
 * Copies surplus resident inputs into scratch, so that no dispatch binds more buffers than a device has bindings for. (Two views of
 * one buffer cannot be bound side by side when they overlap, so what lies in one buffer shares a binding.)
 */
const spill = (
  k: Kernel,
  slots: readonly Slot[],
  inputs: number,
  bindings: number,
  scratch: Scratch,
): readonly Kernel[] => {
  const homes = [...new Set(k.operands.map((o) => home(slots[o.slot], inputs)))]
  const surplus = homes.length - bindings + (homes.includes('arena') ? 0 : 1)
  if (homes.length <= bindings) return [k]
  const moved = new Map<number, number>()
  const copies = [...new Set(k.operands.slice(1).map((o) => o.slot))]
    .filter((s) => slots[s].at === 'input')
    .sort((a, b) => slots[a].length - slots[b].length)
    .slice(0, surplus)
    .map((from) => {
      const n = slots[from].length
      const to = scratch(n)
      moved.set(from, to)
      return elementwise(
        n,
        [
          { slot: to, offset: 0 },
          { slot: from, offset: 0 },
        ],
        ([y, x]) => `  ${element(y, 'e')} = ${element(x, 'e')};`,
      )
    })
  return [...copies, { ...k, operands: k.operands.map((o) => ({ ...o, slot: moved.get(o.slot) ?? o.slot })) }]
}

/**
 * The parts of the arena that a dispatch binds: all of it where one binding holds it, else as few disjoint windows around the operands
 * as will do. Undefined when an operand alone is too long.
 */
const windowsOf = (k: Kernel, slots: readonly Slot[], arena: number, most: number): readonly Binding[] | undefined => {
  const spans = k.operands.flatMap((o) => {
    const s = slots[o.slot]
    return s.at === 'arena' ? [{ start: s.offset, end: s.offset + align(s.length) }] : []
  })
  if (spans.length === 0) return []
  if (arena <= most) return [{ at: 'arena', offset: 0, length: arena }]
  const windows: { start: number; end: number }[] = []
  for (const s of spans.sort((a, b) => a.start - b.start || a.end - b.end)) {
    const last = windows[windows.length - 1]
    if (last !== undefined && (s.start < last.end || s.end - last.start <= most)) last.end = Math.max(last.end, s.end)
    else windows.push({ ...s })
  }
  return windows.every((w) => w.end - w.start <= most)
    ? windows.map((w) => ({ at: 'arena', offset: w.start, length: w.end - w.start }))
    : undefined
}

const header = (bindings: number, wide: boolean): string =>
  `${Array.from({ length: bindings }, (_, i) => `@group(0) @binding(${i}) var<storage, read_write> b${i}: array<${wide ? 'vec4<f32>' : 'f32'}>;`).join('\n')}
struct Bases { v: array<vec4<i32>, ${BASES / 4}> }
@group(1) @binding(0) var<uniform> bases: Bases;
`

/** Binds a kernel's operands; undefined when an operand, or all of them, need more than the bindings hold. */
const link = (
  k: Kernel,
  slots: readonly Slot[],
  inputs: number,
  arena: number,
  limits: ProgramLimits,
): Dispatch | undefined => {
  const windows = windowsOf(k, slots, arena, Math.floor(limits.bindingBytes / 4 / ALIGN) * ALIGN)
  if (windows === undefined) return undefined
  const bindings: Binding[] = []
  const keys: string[] = []
  const places = k.operands.map((o) => {
    const slot = slots[o.slot]
    const where = home(slot, inputs)
    const binding: Binding =
      slot.at === 'arena'
        ? (windows.find(
            (w) => w.at === 'arena' && slot.offset >= w.offset && slot.offset < w.offset + w.length,
          ) as Binding)
        : typeof where === 'number'
          ? { at: 'argument', index: where }
          : { at: 'constant' }
    const key = binding.at === 'arena' ? `arena ${binding.offset}` : `${where}`
    if (!keys.includes(key)) {
      keys.push(key)
      bindings.push(binding)
    }
    const start =
      slot.at === 'arena' && binding.at === 'arena'
        ? slot.offset - binding.offset
        : slot.at === 'constant'
          ? slot.offset
          : 0
    return { binding: keys.indexOf(key), base: start + o.offset }
  })
  if (bindings.length > limits.bindings) return undefined
  const refs = places.map(({ binding }, i) => ({ buffer: `b${binding}`, base: `bases.v[${i >> 2}].${'xyzw'[i & 3]}` }))
  return {
    source: header(bindings.length, k.wide) + prelude + k.code(refs),
    bindings,
    bases: Array.from({ length: BASES }, (_, i) => (i < places.length ? places[i].base / (k.wide ? 4 : 1) : 0)),
    grid: grid(k.groups),
  }
}

/** The dispatches of a plan, in order, after checking that each of its instructions is well-formed and stays inside its slots. */
export const programOf = (plan: Plan, limits: ProgramLimits): E.Either<MixtrainError, Program> => {
  const code = prepare(plan)
  if (typeof code === 'string') return E.left(deviceError('webgpu', `malformed program: ${code}`))
  const slots = [...plan.slots]
  const start = align(plan.arena)
  let arena = start
  const linkable: Kernel[] = []
  for (let at = 0; at < code.length; at += code[at + 1]) {
    const words = Array.from(code.subarray(at, at + code[at + 1]))
    // Scratch of one instruction: the next one uses the same.
    let used = start
    const scratch: Scratch = (length) => {
      const slot = slots.push({ at: 'arena', offset: used, length }) - 1
      used += align(length)
      arena = Math.max(arena, used)
      return slot
    }
    for (const k of kernelsOf(words, slots, { scratch, direct: limits.tiles ? SMALL : Number.POSITIVE_INFINITY }))
      if (k.groups > 0) linkable.push(...spill(k, slots, plan.inputs.length, limits.bindings, scratch))
  }
  const dispatches: Dispatch[] = []
  for (const k of linkable) {
    const d = link(k, slots, plan.inputs.length, arena, limits)
    if (d === undefined || d.grid[1] > MAX_GRID) {
      const needed = Math.max(...k.operands.map((o) => slots[o.slot].length)) * 4
      return E.left({
        kind: 'memory',
        needed: Math.max(needed, arena * 4),
        budget: limits.bindingBytes,
        what: 'one operation on this GPU',
      })
    }
    dispatches.push(d)
  }
  return E.right({ dispatches, arena })
}
