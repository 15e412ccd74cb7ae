/**
 * A batch is M micro-batches, each with a loss and a gradient of its own; the batch's is their mean. They are added in one fixed binary tree over 0 .. M - 1, whoever computes which: the
 * sum of lo .. hi is that of lo .. mid plus that of mid .. hi, mid = floor((lo + hi) / 2), each addition rounded to float32. So one process and several have the same bits.
 */

/** Numbers of one micro-batch: its gradient and whatever else is a sum over them. */
export type Leaf = (micro: number) => Promise<Float32Array>

/** Arrays that go to another rank, and those that the other's go into, of the same lengths. */
export interface Swapped {
  readonly own: readonly Float32Array[]
  readonly other: readonly Float32Array[]
}

/** Processes that train one network together: each has all of its state, and takes a part of the micro-batches. */
export interface Ranks {
  readonly rank: number
  readonly size: number
  /** The tree's sum over all micro-batches, on every rank; `leaf` is asked for this rank's own, ascending. */
  readonly sum: (count: number, leaf: Leaf) => Promise<Float32Array>
  /**
   * The same from sums of nodes: `partial` is asked for the largest ones that are this rank's own, ascending. Neither what it gives nor the result is kept: memory of
   * gradients that is new in each step costs more than to send them.
   */
  readonly reduce: (count: number, partial: (span: Span) => Promise<Float32Array>) => Promise<Float32Array>
  /**
   * Two ranks, whose parts are the two halves of the tree, give each other their sums, from where they lie to where they go: `partial` is asked for this rank's, which is also
   * what this comes to, and `arrays` where it lies and where the other's goes. Absent where there are not two.
   */
  readonly swap?:
    | (<A>(count: number, partial: (half: Span) => Promise<A>, arrays: (own: A) => Swapped) => Promise<A>)
    | undefined
  /** Sums of whole numbers over ranks, which are exact. */
  readonly total: (counts: Float64Array) => Promise<Float64Array>
}

/** The part `[from, to)` of `count` things that a rank takes. */
export const partOf = (count: number, { rank, size }: Pick<Ranks, 'rank' | 'size'>): readonly [number, number] => [
  Math.floor((rank * count) / size),
  Math.floor(((rank + 1) * count) / size),
]

/** A node of the tree: the sum of the micro-batches `[lo, hi)`. */
export type Span = readonly [lo: number, hi: number]

const middle = ([lo, hi]: Span): number => Math.floor((lo + hi) / 2)

/** The largest nodes of the tree over `[0, count)` that lie within a part, ascending. */
export const spansOf = (count: number, [from, to]: readonly [number, number]): readonly Span[] => {
  const within = ([lo, hi]: Span): readonly Span[] => {
    if (hi <= from || to <= lo) return []
    if (from <= lo && hi <= to) return [[lo, hi]]
    const mid = middle([lo, hi])
    return [...within([lo, mid]), ...within([mid, hi])]
  }
  return within([0, count])
}

/** a + b element by element, in the memory of a. */
export const added = (a: Float32Array, b: Float32Array): Float32Array => {
  for (let i = 0; i < a.length; i++) a[i] += b[i]
  return a
}

/** The sum of a node from leaves, by `add`, which may take over the memory of what it is given. */
export const summedOver = async <A>(
  span: Span,
  leaf: (micro: number) => Promise<A>,
  add: (left: A, right: A) => A,
): Promise<A> => {
  const [lo, hi] = span
  if (hi - lo === 1) return leaf(lo)
  const mid = middle(span)
  const left = await summedOver([lo, mid], leaf, add)
  return add(left, await summedOver([mid, hi], leaf, add))
}

/** The sum of a node from leaves; their memory is taken over. */
export const sumOf = (span: Span, leaf: Leaf): Promise<Float32Array> => summedOver(span, leaf, added)

/** The sum over `[0, count)` from those of some nodes that cover it, as `spansOf` the parts of all ranks gives them; their memory is taken over. */
export const joined = (count: number, known: readonly (readonly [Span, Float32Array])[]): Float32Array => {
  const at = new Map(known.map(([[lo, hi], x]) => [`${lo}-${hi}`, x]))
  const of = (span: Span): Float32Array => {
    const [lo, hi] = span
    const there = at.get(`${lo}-${hi}`)
    if (there !== undefined) return there
    const mid = middle(span)
    return added(of([lo, mid]), of([mid, hi]))
  }
  return of([0, count])
}

/** One process. */
export const alone: Ranks = {
  rank: 0,
  size: 1,
  sum: (count, leaf) => sumOf([0, count], leaf),
  reduce: (count, partial) => partial([0, count]),
  total: async (counts) => counts,
}
