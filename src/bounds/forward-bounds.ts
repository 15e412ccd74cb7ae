import { order } from '../compile/tape.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import {
  abs,
  add,
  addUp,
  errorOfSum,
  intersection,
  majorant,
  maximum,
  minimum,
  mul,
  reshape,
  roundingError,
  sub,
  subDown,
  sum,
  sumTailInStages,
} from '../ops/index.ts'
import { anatomy, isNonlinear } from './anatomy.ts'
import { answer, type Bounder, contextOf, coveringOf, defined, specified } from './bounder.ts'
import { withoutDefinitions } from './definitions.ts'
import { type Form, formsOf } from './forward.ts'
import type { Boxes } from './ibp.ts'
import type { Context, Covering, Ends, Rows } from './rows.ts'
import { errorOf } from './slack.ts'
import { walk } from './walk.ts'

/** How many symbols forms have, and how their boxes are made. */
export interface ForwardMethod {
  /** A relaxation of at most so many elements gets a symbol for each of them; 0, which is the default, none, infinity all: a zonotope. */
  readonly symbols?: number
  /** Whether boxes are intersected with the interval rules of the ops; they are unless this is false. */
  readonly intersected?: boolean
}

/** Sums over a node of rows `[rows, n or 1, ...shape]` times columns `[symbols, n, ...shape]`: `[symbols, rows, n]`, each product of them through so many roundings. */
const met = (rows: Tensor, columns: Tensor) => {
  const [symbols, ...shape] = columns.shape
  const [count, ...rest] = rows.shape
  return sumTailInStages(mul(reshape(columns, [symbols, 1, ...shape]), reshape(rows, [1, count, ...rest])) as Tensor, 3)
}

/**
 * What the columns of the nodes that a walk ended at make of its rows, `[rows, n]`: at least the sum over symbols of |sum over the nodes of A G|, and what rounding made of that. Nodes share symbols, so
 * their products are added first.
 */
const spreadOf = (ends: ReadonlyMap<Tensor, Rows>, form: (x: Tensor) => Form, cover: Covering | undefined): Tensor => {
  const bySource = new Map<Tensor, Tensor>()
  let [lost, symbols]: [Tensor | undefined, number] = [undefined, 0]
  const loses = (error: Tensor) => {
    lost = lost === undefined ? error : addUp(lost, error)
  }
  for (const [x, rows] of ends) {
    const { columns, spread } = form(x)
    for (const [source, g] of columns) {
      const { value, depth } = met(rows.lower, g)
      const before = bySource.get(source)
      const both = before === undefined ? value : (add(before, value) as Tensor)
      bySource.set(source, both)
      if (cover === undefined || spread === undefined) continue
      const own = errorOf(rows, x, { vector: errorOfSum(spread, depth + 1), scalar: undefined }) as Ends
      loses(own.lower)
      if (before !== undefined) loses(roundingError(majorant(sum(abs(both), [0]) as Tensor, both.shape[0])))
    }
  }
  const sizes = [...bySource.values()].map((v) => {
    symbols += v.shape[0]
    return sum(abs(v), [0]) as Tensor
  })
  if (cover === undefined) return sizes.reduce((a, b) => add(a, b) as Tensor)
  const whole = majorant(sizes.reduce(addUp), symbols + 1)
  return lost === undefined ? whole : addUp(whole, lost)
}

/**
 * Linear bounds pushed forward (bounds/forward.ts): columns for each input of the box, and for each element of a relaxation that is small enough, in place of a walk back for each neuron: cheap where
 * there are few inputs. `{ symbols: Infinity, intersected: false }` is DeepZ (NeurIPS 2018), whose bounds are those of `symbolic`; without symbols of relaxations, which
 * is the default, bounds are wider than that and never wider than `ibp`. Every op with an interval rule is taken: what has no lines is its box.
 *
 * @example
 *   const method = forwardBounds({ symbols: 64 })
 */
export const forwardBounds = ({ symbols = 0, intersected = true }: ForwardMethod = {}): Bounder =>
  defined((output, around, given = new Map(), rounding = 'none') => {
    const { boxes, boxed, images } = contextOf(output, around, rounding)
    const covers = coveringOf(output, boxed, boxes, given, rounding)
    const { box, form } = formsOf(order([output]), { boxes, given, boxed, images, covers }, { symbols, intersected })
    const ctx: Context = { images, boxed, bounds: box, slope: () => 'same', outward: covers?.(box) }
    const isEnd = (x: Tensor) => boxes.has(x) || (boxed.has(x) && isNonlinear(x, boxed))
    /** Rows meet the forms of the last nonlinear nodes: those of the interval go by a walk from the output, as in interval propagation. */
    const ofRows = (rows: Rows): Ends => {
      const { met: ends, ...rest } = walk(output, rows, ctx, (x) => (isEnd(x) ? form(x).rest : undefined))
      const formed = new Map([...ends].filter(([x]) => form(x).columns.size > 0))
      const spread = formed.size === 0 ? undefined : spreadOf(formed, form, ctx.outward)
      const pushed = spread === undefined ? rest : outside(rest, spread, ctx)
      if (!intersected) return pushed
      const byBoxes = walk(output, rows, ctx, (x) => (isEnd(x) ? box(x) : undefined))
      return { lower: maximum(pushed.lower, byBoxes.lower), upper: minimum(pushed.upper, byBoxes.upper) }
    }
    return {
      output: () => answer(box(output)),
      rows: (spec) => specified(output, ctx, spec, ofRows),
      node: box,
      rounding,
    }
  })

const outside = ({ lower, upper }: Ends, by: Tensor, { outward }: Context): Ends =>
  outward === undefined
    ? { lower: sub(lower, by) as Tensor, upper: add(upper, by) as Tensor }
    : { lower: subDown(lower, by), upper: addUp(upper, by) }

/**
 * Boxes of all hidden nodes, inputs before users: where a node has more than `most` elements for each input of the boxes by forms alone, elsewhere by `method`, too, given the boxes before; each
 * intersected with interval propagation from those.
 *
 * @example
 *   const x = input('x', [1, 2])
 *   const box = ball(constant([0.5, 0.2], [1, 2]), 0.1)
 *   const boxes = forwardWhereWide(crown, 64)(relu(sub(x, 0.4)), new Map([[x, box]]), 'none')
 */
export const forwardWhereWide =
  (method: Bounder, most: number) =>
  (output: Tensor, around: Boxes, rounding: Rounding): Boxes => {
    const to = withoutDefinitions(output, around)
    const [top, hidden] = [to(output), anatomy(output, around).hidden]
    const { boxes, boxed, images } = contextOf(top, around, rounding)
    const inputs = [...boxes.keys()].reduce((n, x) => n + S.size(x.shape.slice(1)), 0)
    const wanted = new Set(anatomy(top, boxes).hidden)
    const isNarrow = (x: Tensor) => wanted.has(x) && S.size(x.shape.slice(1)) <= most * inputs
    const known = new Map<Tensor, Interval>()
    const refine = (x: Tensor, box: Interval): Interval => {
      const own = isNarrow(x) ? intersection(box, method(x, around, new Map(known), rounding).node(x)) : box
      if (wanted.has(x)) known.set(x, own)
      return own
    }
    const covers = coveringOf(top, boxed, boxes, new Map(), rounding)
    const context = { boxes, given: new Map(), boxed, images, covers, refine }
    const { box } = formsOf(order([top]), context, { symbols: 0, intersected: true })
    return new Map(hidden.map((h) => [h, box(to(h))]))
  }
