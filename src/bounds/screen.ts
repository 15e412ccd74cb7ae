import { interval, type Relax } from '../core/op.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import { add, full, greater, maximum, minimum, mul, select } from '../ops/index.ts'
import { isNonlinear } from './anatomy.ts'
import type { Boxes } from './ibp.ts'
import type { Context } from './rows.ts'

/**
 * Screening: which neurons need a row of their own. The screen of a node is one step of interval arithmetic, from what the relaxations
 * before it allow: h between its two lines over the box [l, u] of its operand, so for relu [slope l, u], not [0, u].
 *
 * It is never tighter than the method's own walk, so that what is stable by the screen is stable by the walk, and its relaxation, exact
 * with slope 0 or 1, is the same for either box: the method is not changed, only rows are saved. Proof. Let V(a) be what the walk gives as
 * lower bound of a . x for rows a at a node x, and say that V(a) = min of a . x over a set K (true at the input: K is its box, without
 * a ball). An affine op maps K and the rows consistently. At a relaxation h = f(x), with lines p x + q <= r x + s for all x of K (the
 * boxes l, u are V itself on unit rows, so they are the projections of K, or wider), the walk takes p where a coefficient is
 * positive and r where it is negative: that is the minimum of a . h over K' = {h : x in K, p x + q <= h <= r x + s}, a set again. The screen
 * is the minimum of a . h over the box around the lines, which contains K'. Hence screen <= walk. (Crown is not contained in [0, u]: with slope 1
 * its set reaches down to l. Boxes that were given, and balls, whose bound is the better of two, break the premise: no screen then.)
 */
export const screener = (boxes: Boxes, ctx: Context): ((x: Tensor) => Interval | undefined) => {
  const known = new Map<Tensor, Interval | undefined>()
  const make = (x: Tensor): Interval | undefined => {
    const box = boxes.get(x)
    if (box !== undefined) return box
    if (isNonlinear(x, ctx.boxed)) return betweenLines(x, ctx)
    const operands: (Operand | undefined)[] = x.inputs.map((i) => (ctx.boxed.has(i) ? screen(i) : i))
    return 'unsupported' in x.op.interval || operands.includes(undefined)
      ? undefined
      : x.op.interval(operands as readonly Operand[], x.attrs)
  }
  const screen = (x: Tensor): Interval | undefined => {
    const made = known.has(x) ? known.get(x) : make(x)
    known.set(x, made)
    return made
  }
  return screen
}

/** What lies between the lines of a relaxation over the boxes of its operands. */
const betweenLines = (x: Tensor, ctx: Context): Interval | undefined => {
  const rule = x.op.relax
  if (typeof rule !== 'function') return undefined
  const operands: readonly Operand[] = x.inputs.map((i) => (ctx.boxed.has(i) ? ctx.bounds(i) : i))
  const { lower, upper } = (rule as Relax<unknown>)(operands, x.attrs, ctx.slope(x))
  const end = (line: typeof lower, pick: typeof minimum): Tensor =>
    operands.reduce<Tensor>(
      (sofar, o, k) =>
        isInterval(o) ? add(sofar, pick(mul(line.slopes[k], o.lower), mul(line.slopes[k], o.upper))) : sofar,
      line.intercept ?? full(x.shape, 0),
    )
  return interval(end(lower, minimum), end(upper, maximum))
}

/** 1 where l < 0 < u, else 0; 0 where either is NaN, which stays what it is. */
export const unstable = ({ lower, upper }: Interval): Tensor => select(greater(0, lower), greater(upper, 0), 0)
