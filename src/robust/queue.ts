/** Open subproblems, the least bound first. */
export interface Queue<A> {
  readonly size: () => number
  readonly least: () => number
  readonly push: (bound: number, item: A) => void
  /** Takes the item of the least bound. */
  readonly pop: () => A | undefined
  /** Takes an item of a large bound: the last leaf of the heap. */
  readonly popEasy: () => A | undefined
}

/** A binary heap. A bound that is NaN counts as -infinity. */
export const queue = <A>(): Queue<A> => {
  const heap: { readonly bound: number; readonly item: A }[] = []
  const swap = (i: number, j: number) => {
    ;[heap[i], heap[j]] = [heap[j], heap[i]]
  }
  const sink = (from: number) => {
    for (let i = from; ; ) {
      const [l, r] = [2 * i + 1, 2 * i + 2]
      let least = l < heap.length && heap[l].bound < heap[i].bound ? l : i
      if (r < heap.length && heap[r].bound < heap[least].bound) least = r
      if (least === i) return
      swap(i, least)
      i = least
    }
  }
  return {
    size: () => heap.length,
    least: () => heap[0]?.bound ?? Number.POSITIVE_INFINITY,
    push: (bound, item) => {
      heap.push({ bound: Number.isNaN(bound) ? Number.NEGATIVE_INFINITY : bound, item })
      for (let i = heap.length - 1; i > 0; ) {
        const parent = (i - 1) >> 1
        if (heap[parent].bound <= heap[i].bound) return
        swap(i, parent)
        i = parent
      }
    },
    pop: () => {
      if (heap.length === 0) return undefined
      swap(0, heap.length - 1)
      const last = heap.pop()
      sink(0)
      return last?.item
    },
    popEasy: () => heap.pop()?.item,
  }
}
