/** Open subproblems in two orders: by bound, and by how near each is to a counterexample. */
export interface Queue<A> {
  readonly size: () => number
  readonly least: () => number
  readonly push: (bound: number, item: A, distance?: number) => void
  /** Takes the item of the least bound. */
  readonly pop: () => A | undefined
  /** Takes the item of the least distance. */
  readonly popNear: () => A | undefined
  /** Takes an item of a large bound: the last leaf of the heap. */
  readonly popEasy: () => A | undefined
}

interface Entry<A> {
  readonly bound: number
  readonly distance: number
  readonly item: A
  taken: boolean
}

/** A binary heap of what is not taken. */
const heapBy = <A>(key: (e: Entry<A>) => number) => {
  const heap: Entry<A>[] = []
  const swap = (i: number, j: number) => {
    ;[heap[i], heap[j]] = [heap[j], heap[i]]
  }
  const sink = (from: number) => {
    for (let i = from; ; ) {
      const [l, r] = [2 * i + 1, 2 * i + 2]
      let least = l < heap.length && key(heap[l]) < key(heap[i]) ? l : i
      if (r < heap.length && key(heap[r]) < key(heap[least])) least = r
      if (least === i) return
      swap(i, least)
      i = least
    }
  }
  const first = () => {
    swap(0, heap.length - 1)
    const entry = heap.pop()
    sink(0)
    return entry
  }
  /** Entries that the other order took away are dropped when they come to the top. */
  const settle = () => {
    while (heap.length > 0 && heap[0].taken) first()
  }
  return {
    length: () => heap.length,
    top: () => {
      settle()
      return heap[0] as Entry<A> | undefined
    },
    push: (e: Entry<A>) => {
      heap.push(e)
      for (let i = heap.length - 1; i > 0; ) {
        const parent = (i - 1) >> 1
        if (key(heap[parent]) <= key(heap[i])) return
        swap(i, parent)
        i = parent
      }
    },
    /** Forgets what is taken. A sorted list is a heap. */
    compact: () => {
      const kept = heap.filter((e) => !e.taken).sort((a, b) => key(a) - key(b))
      heap.length = 0
      for (const e of kept) heap.push(e)
    },
    last: () => {
      while (heap.length > 0 && heap[heap.length - 1].taken) heap.pop()
      return heap.pop()
    },
  }
}

/** So many entries that are taken may stay in a heap, beside as many as are open. */
const STALE = 1024

/** A bound that is NaN counts as -infinity, a distance that is none as infinity. */
export const queue = <A>(): Queue<A> => {
  const [byBound, byDistance] = [heapBy<A>((e) => e.bound), heapBy<A>((e) => e.distance)]
  let size = 0
  const take = (entry: Entry<A> | undefined): A | undefined => {
    if (entry === undefined) return undefined
    entry.taken = true
    size--
    return entry.item
  }
  return {
    size: () => size,
    least: () => byBound.top()?.bound ?? Number.POSITIVE_INFINITY,
    push: (bound, item, distance = Number.POSITIVE_INFINITY) => {
      const entry = {
        bound: Number.isNaN(bound) ? Number.NEGATIVE_INFINITY : bound,
        distance: Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance,
        item,
        taken: false,
      }
      byBound.push(entry)
      byDistance.push(entry)
      size++
      for (const heap of [byBound, byDistance]) if (heap.length() > 2 * size + STALE) heap.compact()
    },
    pop: () => take(byBound.top()),
    popNear: () => take(byDistance.top()),
    popEasy: () => take(byBound.last()),
  }
}
