import type { Slot } from '../../compile/plan.ts'
import { NOTHING, type Operand } from './wgsl/wgsl.ts'

/**
 * Storage in pages. What WebGPU calls a buffer or a binding may be shorter than the scratch of a run or than one tensor, so every store (the
 * arena, the constants, each argument) is a row of buffers of one length, and a dispatch sees whole pages. Work that would touch more of an
 * operand than one page is cut into pieces that do not (`pieces`); the planner keeps values off the boundaries where it can (`plan`, `page`).
 */
export interface Pages {
  /** Elements of a page: a multiple of 64 (256 bytes). */
  readonly length: number
  /** Storage bindings of one dispatch. */
  readonly bindings: number
  readonly slots: readonly Slot[]
}

/** A multiple of 64 elements, so that a page begins where a binding may. */
const GRAIN = 64
/** Room for nine copied operands of one element each. */
const SHORTEST = 16 * GRAIN

/** The longest page that fits a binding and a buffer of so many bytes. */
export const pageLength = (bytes: number): number =>
  Math.max(SHORTEST, Math.min(2 ** 30, Math.floor(bytes / 4 / GRAIN) * GRAIN))

/** Which store a slot lies in; arguments are known by their number. */
export const storeOf = (slot: Slot): string =>
  slot.at === 'arena' || slot.at === 'constant' ? slot.at : `${slot.at} ${slot.index}`

/** Where a slot begins in its store. */
export const startOf = (slot: Slot): number => (slot.at === 'arena' || slot.at === 'constant' ? slot.offset : 0)

/** How an operand is walked through: one stride per axis, and so many elements behind each other at each point. */
export interface Walk {
  readonly slot: number
  readonly offset: number
  readonly strides: readonly number[]
  readonly run?: number
}

/** A part of an iteration: where it begins on each axis, and how far it goes. */
export interface Piece {
  readonly from: readonly number[]
  readonly extents: readonly number[]
  /** An operand reaches over the end of a page even at a single point. */
  readonly torn: boolean
}

/** First and last element of its store that a walk touches in a piece. */
const reach = (w: Walk, { slots }: Pages, from: readonly number[], extents: readonly number[]) => {
  let low = startOf(slots[w.slot]) + w.offset
  let high = low + (w.run ?? 1) - 1
  w.strides.forEach((s, d) => {
    const span = s * (extents[d] - 1)
    low += from[d] * s + Math.min(0, span)
    high += from[d] * s + Math.max(0, span)
  })
  return { low, high }
}

/** The axis along which a walk goes furthest; -1 if it stands still. */
const longest = (w: Walk, extents: readonly number[]): number => {
  const spans = w.strides.map((s, d) => Math.abs(s) * (extents[d] - 1))
  const most = Math.max(0, ...spans)
  return most === 0 ? -1 : spans.indexOf(most)
}

interface Cut {
  readonly axis: number
  /** Elements of the axis before the cut. */
  readonly at: number
}

/** Where to cut a piece; undefined when it is good as it is, `torn` when no cut helps. */
const cutOf = (
  walks: readonly Walk[],
  pages: Pages,
  from: readonly number[],
  extents: readonly number[],
): Cut | 'torn' | undefined => {
  const { length, bindings, slots } = pages
  const reaches = walks.map((w) => reach(w, pages, from, extents))
  let torn = false
  for (const [i, w] of walks.entries()) {
    const { low, high } = reaches[i]
    const boundary = (Math.floor(low / length) + 1) * length
    if (high < boundary) continue
    const axis = longest(w, extents)
    if (axis < 0) {
      torn = true
      continue
    }
    const stride = w.strides[axis]
    const extent = extents[axis]
    const rest = high - low - Math.abs(stride) * (extent - 1)
    // As many whole steps as end before the boundary; a few fewer where that keeps vec4s and tiles whole.
    const fitting = stride < 0 ? extent >> 1 : Math.floor((boundary - 1 - low - rest) / stride) + 1
    const round = fitting >= 4 * GRAIN ? fitting - (fitting % GRAIN) : fitting >= 16 ? fitting - (fitting % 4) : fitting
    return { axis, at: Math.min(Math.max(round, 1), extent - 1) }
  }
  if (torn) return 'torn'
  const seen = new Set(walks.map((w, i) => `${storeOf(slots[w.slot])} ${Math.floor(reaches[i].low / length)}`))
  if (seen.size <= bindings) return undefined
  // Surplus operands will be copied side by side into one page of scratch (webgpu-program.ts): they must fit it together.
  const copied = reaches.reduce((n, { low, high }) => n + Math.ceil((high - low + 1) / GRAIN) * GRAIN, 0)
  if (copied <= length) return undefined
  const [widest] = walks.map((w, i) => ({ w, span: reaches[i].high - reaches[i].low })).sort((a, b) => b.span - a.span)
  const axis = longest(widest.w, extents)
  return axis < 0 ? undefined : { axis, at: extents[axis] >> 1 }
}

/**
 * The pieces of an iteration over `extents` in which no operand reaches over the end of a page, in ascending order along every axis: what a
 * reduction accumulates comes in order.
 */
export const pieces = (extents: readonly number[], walks: readonly Walk[], pages: Pages): readonly Piece[] => {
  const done: Piece[] = []
  if (extents.includes(0)) return [{ from: extents.map(() => 0), extents, torn: false }]
  const todo: { from: readonly number[]; extents: readonly number[] }[] = [{ from: extents.map(() => 0), extents }]
  for (let p = todo.pop(); p !== undefined; p = todo.pop()) {
    const cut = cutOf(walks, pages, p.from, p.extents)
    if (cut === undefined || cut === 'torn') {
      done.push({ ...p, torn: cut === 'torn' })
      continue
    }
    const { axis, at } = cut
    const { from, extents: all } = p
    todo.push({
      from: from.map((f, d) => (d === axis ? f + at : f)),
      extents: all.map((n, d) => (d === axis ? n - at : n)),
    })
    todo.push({ from, extents: all.map((n, d) => (d === axis ? at : n)) })
  }
  return done
}

/** Where a piece's walk begins in its slot. */
export const offsetIn = (w: Walk, { from }: Piece): number => w.strides.reduce((o, s, d) => o + s * from[d], w.offset)

/** The operand that a kernel on a piece reads or writes through a walk. */
export const operandIn = (w: Walk, piece: Piece): Operand => {
  const offset = offsetIn(w, piece)
  if (piece.extents.includes(0)) return { slot: w.slot, offset, range: NOTHING }
  const spans = w.strides.map((s, d) => s * (piece.extents[d] - 1))
  return {
    slot: w.slot,
    offset,
    range: [
      spans.reduce((t, x) => t + Math.min(x, 0), offset),
      spans.reduce((t, x) => t + Math.max(x, 0), offset) + (w.run ?? 1) - 1,
    ],
  }
}

/** Elements of each page of a store of so many, the last one perhaps empty: an operand without elements may begin at the end. */
export const pagesIn = (length: number, page: number): readonly number[] =>
  Array.from({ length: Math.floor(length / page) + 1 }, (_, i) => Math.min(page, length - i * page))
