import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { dataOf } from '../ops/index.ts'
import { isLeaf } from './lower.ts'
import { overwrites } from './schedule.ts'
import { type Executed, touched, written } from './steps.ts'

// Where the values of a plan are: arguments, constants, and scratch in one arena, laid out by when values are needed last.

/** Where a value lives during a run. Offsets count elements. */
export type Slot =
  | { readonly at: 'arena'; readonly offset: number; readonly length: number }
  | { readonly at: 'constant'; readonly offset: number; readonly length: number }
  | { readonly at: 'input'; readonly index: number; readonly length: number }
  | { readonly at: 'output'; readonly index: number; readonly length: number }

const ALIGN = 64
const align = (n: number): number => Math.ceil(n / ALIGN) * ALIGN

/** What a layout depends on besides the steps. */
export interface Stored {
  readonly inputs: readonly Tensor[]
  readonly constants: readonly Tensor[]
  /** The value that a view is of. */
  readonly root: (x: Tensor) => Tensor
  /** Values that are outputs, by number. */
  readonly outputOf: ReadonlyMap<Tensor, number>
  /** Elements of a page of scratch: values that one page holds do not reach over the end of one. */
  readonly page: number
}

export interface Layout {
  readonly slots: readonly Slot[]
  readonly slotOf: (x: Tensor) => number
  /** All constants, one after the other. */
  readonly data: Float64Array
  /** Elements of scratch. */
  readonly arena: number
}

/** The constants one after the other, and where each begins: scalars sit together, arrays are aligned like scratch. */
const constantsOf = (nodes: readonly Tensor[]) => {
  let length = 0
  const at = nodes.map((x) => {
    const n = S.size(x.shape)
    const start = n > 1 ? align(length) : length
    length = start + n
    return start
  })
  const data = new Float64Array(length)
  nodes.forEach((x, i) => {
    data.set(dataOf(x) as Float64Array, at[i])
  })
  return { data, at }
}

/** Scratch by first fit over the free gaps. */
const scratch = (page: number) => {
  const gaps: { start: number; end: number }[] = [{ start: 0, end: Number.POSITIVE_INFINITY }]
  let length = 0
  /** Where n elements may begin from `start` on: at the next page if they fit one, but not the rest of this one. */
  const placed = (start: number, n: number): number => {
    const next = page === Number.POSITIVE_INFINITY ? start : (Math.floor(start / page) + 1) * page
    return n <= page && start + n > next ? next : start
  }
  return {
    length: () => length,
    take: (n: number): number => {
      const i = gaps.findIndex((g) => g.end - placed(g.start, n) >= n)
      const { start, end } = gaps[i]
      const at = placed(start, n)
      const left = [
        { start, end: at },
        { start: at + n, end },
      ]
      gaps.splice(i, 1, ...left.filter((g) => g.start < g.end))
      length = Math.max(length, at + n)
      return at
    },
    give: (start: number, n: number): void => {
      const i = gaps.findIndex((g) => g.start > start)
      gaps.splice(i, 0, { start, end: start + n })
      if (i + 1 < gaps.length && gaps[i].end === gaps[i + 1].start) gaps.splice(i, 2, { start, end: gaps[i + 1].end })
      if (i > 0 && gaps[i - 1].end === gaps[i].start)
        gaps.splice(i - 1, 2, { start: gaps[i - 1].start, end: gaps[i].end })
    },
  }
}

/** The values in scratch that no step after each one needs. */
const dyingAt = (steps: readonly Executed[], { root, outputOf }: Stored): readonly (readonly Tensor[])[] => {
  const last = new Map<Tensor, number>()
  steps.forEach((s, t) => {
    for (const x of touched(s, root)) last.set(x, t)
    for (const x of written(s)) if (!last.has(x)) last.set(x, t)
  })
  const within = new Set(steps.flatMap((s) => (s.kind === 'repeat' ? s.places.map((p) => p.value) : [])))
  const dying = steps.map(() => [] as Tensor[])
  for (const [x, t] of last) if (!isLeaf(x) && !outputOf.has(x) && !within.has(x)) dying[t].push(x)
  return dying
}

/** Slots for the values of steps. */
export const layout = (steps: readonly Executed[], stored: Stored): Layout => {
  const { inputs, constants, root, outputOf, page } = stored
  const slots: Slot[] = []
  const numbers = new Map<Tensor, number>()
  const add = (x: Tensor, slot: Slot) => numbers.set(x, slots.push(slot) - 1)
  const offsetOf = (x: Tensor) => (slots[numbers.get(x) as number] as { readonly offset: number }).offset
  inputs.forEach((x, index) => add(x, { at: 'input', index, length: S.size(x.shape) }))
  const { data, at } = constantsOf(constants)
  constants.forEach((x, i) => add(x, { at: 'constant', offset: at[i], length: S.size(x.shape) }))

  const arena = scratch(page)
  const dying = dyingAt(steps, stored)
  for (const [t, s] of steps.entries()) {
    if (s.kind === 'repeat')
      for (const { value, store, at: from } of s.places)
        add(value, { at: 'arena', offset: offsetOf(root(store)) + from, length: S.size(value.shape) })
    let inPlace: Tensor | undefined
    const outs = written(s)
    for (const out of outs) {
      if (numbers.has(out)) continue
      const length = S.size(out.shape)
      const index = outputOf.get(out)
      // What a loop stores on its way must not replace what it still reads.
      const isLast = s.kind !== 'loops' && out === s.out
      if (isLast && index === undefined) inPlace = dying[t].find((x) => !outs.includes(x) && overwrites(s, x, root))
      const reused = isLast && index === undefined && inPlace !== undefined
      if (index !== undefined) add(out, { at: 'output', index, length })
      else add(out, { at: 'arena', offset: reused ? offsetOf(inPlace as Tensor) : arena.take(align(length)), length })
    }
    for (const x of dying[t]) {
      const slot = slots[numbers.get(x) as number]
      if (slot.at === 'arena' && x !== inPlace) arena.give(slot.offset, align(slot.length))
    }
  }
  return { slots, slotOf: (x) => numbers.get(root(x)) as number, data, arena: arena.length() }
}
