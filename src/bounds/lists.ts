import { accumulate } from '../compile/accumulate.ts'
import { order } from '../compile/tape.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import {
  add,
  broadcastTo,
  compact,
  gather,
  greater,
  iota,
  mul,
  reshape,
  scatterAdd,
  select,
  slice,
  sum,
} from '../ops/index.ts'
import { isNonlinear, sharesImages } from './anatomy.ts'
import type { Context, Rows } from './rows.ts'
import { finished, type Peeled, type Start, type Terminal } from './starts.ts'
import { walk } from './walk.ts'

/**
 * Walks of listed rows: of all rows of all images only those that a mask names, one list of them, a round of so many at a time
 * (compile/accumulate.ts). Work follows the number of rows listed, memory the length of a round.
 */

/** Whether rows of a list, whose axis of images is not that of the graph, can be carried from where it starts. */
export const listable = ({ root }: Start, ctx: Context, terminal: Terminal): boolean =>
  order([root]).every(
    (x) =>
      !ctx.boxed.has(x) ||
      terminal(x) !== undefined ||
      (isNonlinear(x, ctx.boxed) ? typeof x.op.relax === 'function' : sharesImages(x)),
  )

/** Coefficients of one node that a round has: enough for large products, few enough to stay near the processor. */
const ROUND = 2 ** 17
/** And so many rounds at least, if all rows are listed: what is not full of the last one is lost. */
const ROUNDS = 16
/** Rows that the products of a round need to be fast, whatever they take; and rows of any round. */
const WIDE = 32
const [FEWEST, MOST] = [16, 4096]

/** Rows of a round. */
export const roundOf = ({ largest, extents }: Start, ctx: Context): number => {
  const total = ctx.images * S.size(extents)
  const most = Math.min(Math.max(WIDE, ROUND / largest), total / ROUNDS)
  const least = Math.min(MOST, Math.max(FEWEST, 2 ** Math.floor(Math.log2(most))))
  // Up to a quarter more, where the last round of all rows is fuller.
  const lengths = [...Array((least >> 4) + 1).keys()].map((k) => least + 4 * k)
  const empty = (n: number) => Math.ceil(total / n) * n - total
  return lengths.reduce((best, n) => (empty(n) < empty(best) ? n : best))
}

/** Elements of all rows at once where they are most. */
export const elementsOf = ({ largest, extents }: Start, ctx: Context): number => ctx.images * S.size(extents) * largest

/** Bounds of the elements of a node that the mask `[n, ...shape]` names, 0 elsewhere, by rounds of `per` rows. */
export const boundListed = (
  node: Tensor,
  peeled: Peeled,
  start: Start,
  ctx: Context,
  terminal: Terminal,
  mask: Tensor,
  per: number,
): Interval => {
  const extents = [ctx.images, ...start.extents]
  const total = S.size(extents)
  const lists = compact(reshape(mask, extents))
  const coordinates = extents.map((_, k) => reshape(slice(lists, [k, 0], [1, total]), [total]))
  const count = sum(mask)
  const length = Math.min(per, total)
  const [lower, upper] = accumulate({ count, per: length, capacity: total, keeps: true }, (round) => {
    const position = add(mul(round, length), iota(length)) as Tensor
    const valid = greater(count, position) as Tensor
    const item: Tensor = select(valid, position, 0)
    const at = coordinates.map((c) => gather(c, item))
    const [image, index, place] = at
    const a = start.some(index)
    const shaped = reshape(a, [1, length, ...(start.patch ? [1] : []), ...a.shape.slice(1)])
    const rows: Rows = {
      lower: shaped,
      upper: shaped,
      ...(start.patch && { patch: { g: start.patch, masked: false } }),
    }
    const ends = walk(start.root, rows, { ...ctx, list: { length, image, place } }, terminal)
    const element = at.slice(1).reduce<Tensor>((sofar, c, k) => add(mul(sofar, extents[k + 1]), c), image)
    const placed = (x: Tensor) => {
      const flat = reshape(broadcastTo(x, [1, length, ...(start.patch ? [1] : [])]), [length])
      return scatterAdd(select(valid, flat, 0) as Tensor, element, total)
    }
    return [placed(ends.lower), placed(ends.upper)]
  })
  return finished(node, peeled, ctx, lower, upper)
}
