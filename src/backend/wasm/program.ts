import { normal } from '../../compile/checked.ts'
import type { Plan } from '../../compile/plan.ts'
import { elements, type Held, type HeldProgram, type Holdings } from '../holdings.ts'
import { type LinearMemory, roundUp } from './memory.ts'
import { encode } from './words.ts'

/** A resident block, at an address of the memory. */
export interface Block extends Held {
  readonly address: number
}

/** A program in memory: its code, its table of slots and its constants. */
export interface Program extends HeldProgram {
  readonly code: number
  /** Bytes of all three, one block at `code`. */
  readonly size: number
  readonly slots: number
  readonly wide: number
  readonly plan: Pick<Plan, 'slots'>
  /** Slot table entry (as an index into 32-bit memory) and argument number of every slot that is an argument. */
  readonly entries: Int32Array
  readonly lengths: Int32Array
}

/** Where the parts of a program are. */
interface Placed {
  readonly address: number
  readonly bytes: number
  readonly slots: number
  readonly entries: readonly number[]
}

/** Writes a plan to memory; the bytes that it takes where there are not so many. */
export const place = ({ heap, i32, f32 }: LinearMemory, plan: Plan): Placed | { readonly size: number } => {
  const code = encode(normal(plan.instructions))
  const slotsAt = roundUp(code.length * 4, 64)
  const constantsAt = slotsAt + roundUp(plan.slots.length * 4, 64)
  const bytes = constantsAt + plan.constants.length * 4
  const address = heap.take(bytes, 256)
  if (address === undefined) return { size: bytes }
  i32().set(code, address >>> 2)
  f32().set(plan.constants, (address + constantsAt) >>> 2)
  const table = (address + slotsAt) >>> 2
  const entries: number[] = []
  plan.slots.forEach((slot, i) => {
    if (slot.at === 'constant') i32()[table + i] = address + constantsAt + slot.offset * 4
    else if (slot.at === 'input') entries.push(table + i, slot.index)
    else if (slot.at === 'output') entries.push(table + i, plan.inputs.length + slot.index)
  })
  return { address, bytes, slots: address + slotsAt, entries }
}

/** The program of a plan that was written. */
export const programAt = (
  { address, bytes: size, slots, entries }: Placed,
  plan: Plan,
  own: Pick<Program, 'id' | 'bytes' | 'wide'>,
): Program => ({
  ...own,
  ...{ code: address, size, slots },
  plan: { slots: plan.slots },
  entries: Int32Array.from(entries),
  inputs: plan.inputs.length,
  lengths: Int32Array.from([...plan.inputs, ...plan.outputs], elements),
})

/** Writes the addresses of arguments into a program's table. */
export const bindArguments = (memory: LinearMemory, { entries }: Program, args: readonly Block[]): void => {
  const i32 = memory.i32()
  for (let i = 0; i < entries.length; i += 2) i32[entries[i]] = args[entries[i + 1]].address
}

/** What all programs share, since they run one after the other: the arena of values, and the scratch of kernels. */
export const scratchIn = (memory: LinearMemory, books: Holdings<Block, Program>, threads: number) => {
  const { heap } = memory
  let arena = { address: 0, bytes: 0 }
  let scratch = { address: 0, perThread: 0, shared: 0, bytes: 0 }
  /** Writes the addresses of arena slots into a program's table. */
  const bind = (p: Program): void => {
    const i32 = memory.i32()
    p.plan.slots.forEach((slot, i) => {
      if (slot.at === 'arena') i32[(p.slots >>> 2) + i] = arena.address + slot.offset * 4
    })
  }
  /** Exchanges a block for a longer one, its content not kept; the old length again when memory does not suffice. */
  const exchange = (old: { readonly address: number; readonly bytes: number }, needed: number) => {
    if (old.bytes > 0) heap.give(old.address)
    const address = heap.take(needed, 256)
    if (address !== undefined) {
      books.note(0, needed - old.bytes)
      return { address, bytes: needed }
    }
    return { address: old.bytes > 0 ? (heap.take(old.bytes, 256) ?? 0) : 0, bytes: old.bytes }
  }
  return {
    bind,
    /** Makes the arena at least so long; false when memory does not suffice. */
    growArena: (needed: number): boolean => {
      if (needed <= arena.bytes) return true
      arena = exchange(arena, needed)
      for (const p of books.programs.values()) bind(p)
      return arena.bytes >= needed
    },
    growScratch: (perThread: number, shared: number): boolean => {
      if (perThread <= scratch.perThread && shared <= scratch.shared) return true
      const next = { perThread: Math.max(perThread, scratch.perThread), shared: Math.max(shared, scratch.shared) }
      const needed = next.perThread * threads + next.shared
      const block = exchange(scratch, needed)
      const grown = block.bytes >= needed
      scratch = grown ? { ...next, ...block } : { ...scratch, ...block }
      return grown
    },
    /** Where the scratch of kernels is, and how much of it each thread has. */
    place: () => [scratch.address, scratch.perThread] as const,
  }
}
