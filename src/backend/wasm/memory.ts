/** A byte range [start, start + size) of linear memory. */
interface Range {
  readonly start: number
  readonly size: number
}

/** Byte addresses in a linear memory that can grow. */
export interface Allocator {
  /** The address of `bytes` free bytes at a multiple of `align`, or undefined when memory is exhausted. */
  readonly take: (bytes: number, align?: number) => number | undefined
  /** @throws when nothing is allocated at this address. */
  readonly give: (start: number) => void
}

const LINE = 64

/** The least multiple of `unit` that is not below `n`. */
export const roundUp = (n: number, unit: number): number => Math.ceil(n / unit) * unit

/**
 * First fit over free ranges in order of address; neighbours are joined when they come free. `grow(end)` makes memory reach
 * byte `end` and returns where it ends now, or undefined. Kernels read up to 28 bytes past an operand: the last `LINE` bytes stay free.
 */
export const allocator = (from: number, end: number, grow: (end: number) => number | undefined): Allocator => {
  const free: Range[] = [{ start: from, size: end - LINE - from }]
  const taken = new Map<number, Range>()
  let limit = end - LINE

  const release = ({ start, size }: Range): void => {
    const i = free.findIndex((f) => f.start > start)
    const at = i < 0 ? free.length : i
    const before = free[at - 1]
    const after = free[at]
    const joinsBefore = before !== undefined && before.start + before.size === start
    const joinsAfter = after !== undefined && start + size === after.start
    const first = joinsBefore ? before.start : start
    const last = joinsAfter ? after.start + after.size : start + size
    free.splice(at - (joinsBefore ? 1 : 0), (joinsBefore ? 1 : 0) + (joinsAfter ? 1 : 0), {
      start: first,
      size: last - first,
    })
  }

  const fit = (size: number, align: number): number | undefined => {
    for (const [i, range] of free.entries()) {
      const start = roundUp(range.start, align)
      const rest = range.start + range.size - start - size
      if (rest < 0) continue
      free.splice(
        i,
        1,
        ...[
          { start: range.start, size: start - range.start },
          { start: start + size, size: rest },
        ].filter((f) => f.size > 0),
      )
      taken.set(start, { start, size })
      return start
    }
    return undefined
  }

  return {
    take: (bytes, align = LINE) => {
      const size = Math.max(LINE, roundUp(bytes, LINE))
      const found = fit(size, align)
      if (found !== undefined) return found
      const last = free[free.length - 1]
      const open = last !== undefined && last.start + last.size === limit ? last.start : limit
      const grown = grow(roundUp(open, align) + size + LINE)
      if (grown === undefined) return undefined
      release({ start: limit, size: grown - LINE - limit })
      limit = grown - LINE
      return fit(size, align)
    },
    give: (start) => {
      const range = taken.get(start)
      if (range === undefined) throw new RangeError(`no block at address ${start}`)
      taken.delete(start)
      release(range)
    },
  }
}

/** A linear memory that can grow, as words and as numbers, and what of it is free. */
export interface LinearMemory {
  readonly heap: Allocator
  /** Views of the whole memory: they are others once it has grown. */
  readonly i32: () => Int32Array
  readonly f32: () => Float32Array
}

/** Bytes of a page of memory. */
export const PAGE = 65536

/** A memory of at most so many pages, free from `base` on. */
export const linearMemory = (memory: WebAssembly.Memory, pages: number, base: number): LinearMemory => {
  let i32 = new Int32Array(memory.buffer)
  let f32 = new Float32Array(memory.buffer)
  const grow = (end: number): number | undefined => {
    const have = memory.buffer.byteLength / PAGE
    const need = Math.ceil(end / PAGE)
    if (need > pages) return undefined
    const generous = Math.min(pages, Math.max(need, have + (have >> 3)))
    for (const to of [generous, need]) {
      try {
        memory.grow(to - have)
      } catch {
        continue
      }
      // Growth detaches the views of an unshared memory.
      i32 = new Int32Array(memory.buffer)
      f32 = new Float32Array(memory.buffer)
      return memory.buffer.byteLength
    }
    return undefined
  }
  const heap = allocator(roundUp(base, 256), memory.buffer.byteLength, grow)
  return { heap, i32: () => i32, f32: () => f32 }
}
