import * as E from 'fp-ts/lib/Either.js'

/** Extents of a tensor, outermost axis first; `[]` is a scalar. */
export type Shape = readonly number[]

/**
 * Number of elements of a shape: the product of its extents.
 *
 * @example
 *   size([2, 3, 4]) // 24
 */
export const size = (shape: Shape): number => shape.reduce((n, d) => n * d, 1)

export const show = (shape: Shape): string => `[${shape.join(',')}]`

export const equals = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((d, i) => d === b[i])

/** Row-major strides in elements: `strides([2,3,4]) = [12,4,1]`. */
export const strides = (shape: Shape): readonly number[] => {
  const out = new Array<number>(shape.length)
  for (let i = shape.length - 1, s = 1; i >= 0; i--) {
    out[i] = s
    s *= shape[i]
  }
  return out
}

/** Numpy broadcasting, aligned at the last axis: extents agree, or one of them is 1 or absent. */
export const broadcast = (a: Shape, b: Shape): E.Either<string, Shape> => {
  const rank = Math.max(a.length, b.length)
  const out = new Array<number>(rank)
  for (let i = 1; i <= rank; i++) {
    const x = a[a.length - i] ?? 1
    const y = b[b.length - i] ?? 1
    if (x !== y && x !== 1 && y !== 1) return E.left(`extents ${x} and ${y} of axis -${i} do not broadcast`)
    out[rank - i] = x === 1 ? y : x
  }
  return E.right(out)
}

/** Strides that read a tensor of shape `from` as if it had the broadcast shape `to` (0 on repeated axes). */
export const broadcastStrides = (from: Shape, to: Shape): readonly number[] => {
  const own = strides(from)
  return to.map((d, i) => {
    const j = i - (to.length - from.length)
    return j < 0 || from[j] !== d || from[j] === 1 ? 0 : own[j]
  })
}

/** `axis` counted from the front, for `-rank <= axis < rank`. */
export const axisOf = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis)

/** The axes that `sumTo` must add up to go from shape `from` back to the shape `to` that was broadcast to it. */
export const broadcastAxes = (from: Shape, to: Shape): readonly number[] =>
  from.flatMap((d, i) => {
    const j = i - (from.length - to.length)
    return j < 0 || (to[j] === 1 && d !== 1) ? [i] : []
  })
