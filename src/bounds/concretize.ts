import type { Ball, Interval, Tensor } from '../core/tensor.ts'
import {
  abs,
  absRowDot,
  add,
  centre,
  equal,
  greater,
  max,
  maximum,
  minimum,
  mul,
  radius,
  rowDot,
  select,
  splitMul,
  sqrt,
  sub,
  sum,
} from '../ops/index.ts'
import type { Context, Ends, Rows } from './rows.ts'
import { meeting } from './windows.ts'

/** Axes of rows and images, in front of the axes of the node. */
const leading = (rows: Rows): number => (rows.patch === undefined ? 2 : 3)

/** A c - |A| r and A c + |A| r over the box of the node; the tighter of this and the ball's where the box has a ball. */
export const concretize = (rows: Rows, node: Tensor, box: Interval, ctx: Context): Ends => {
  const [c, r] = [centre(box), radius(box)]
  const value = (a: Tensor) => rowDot(a, meeting(rows, node, c, ctx), leading(rows))
  const spread = (a: Tensor) => absRowDot(a, meeting(rows, node, r, ctx), leading(rows))
  const ends = { lower: sub(value(rows.lower), spread(rows.lower)), upper: add(value(rows.upper), spread(rows.upper)) }
  if (box.ball === undefined) return ends
  const round = concretizeBall(rows, node, box, box.ball, ctx)
  return { lower: maximum(ends.lower, round.lower), upper: minimum(ends.upper, round.upper) }
}

/**
 * Over a ball A x lies in A c +- ||A r||, in the dual norm: l2 for an l2 ball, the largest magnitude for an l1 ball (docs/method.md, section 3). Where the box
 * ends at the centre a coordinate moves one way only, and coefficients that point out of the box are dropped: for the largest A x the negative ones where
 * c is the lower end.
 */
const concretizeBall = (
  rows: Rows,
  node: Tensor,
  box: Interval,
  { norm, centre: c, radius: r }: Ball,
  ctx: Context,
): Ends => {
  const tail = leading(rows)
  const value = (a: Tensor) => rowDot(a, meeting(rows, node, c, ctx), tail)
  const [up, down] = [mul(greater(box.upper, c), r), mul(greater(c, box.lower), r)].map((v) =>
    meeting(rows, node, v, ctx),
  )
  const dual = (v: Tensor): Tensor => {
    const axes = [...v.shape.keys()].slice(tail)
    return norm === 'l2' ? root(sum(mul(v, v), axes)) : max(abs(v), axes)
  }
  return {
    lower: sub(value(rows.lower), dual(splitMul(rows.lower, down, up))),
    upper: add(value(rows.upper), dual(splitMul(rows.upper, up, down))),
  }
}

/** Square root with a gradient of 0 at 0. */
const root = (x: Tensor): Tensor => {
  const none = equal(x, 0)
  return select(none, 0, sqrt(select(none, 1, x)))
}
