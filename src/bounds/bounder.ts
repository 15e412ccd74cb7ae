import { order } from '../compile/tape.ts'
import { raise } from '../core/error.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import { addUp, broadcastTo, greaterEqual, mul, select, subDown } from '../ops/index.ts'
import { dependents, isNonlinear, leakOf } from './anatomy.ts'
import { withoutDefinitions } from './definitions.ts'
import { covering, outwardBox } from './executions.ts'
import type { Boxes } from './ibp.ts'
import type { Context, Ends, Rows } from './rows.ts'
import { specificationError } from './slack.ts'

/** Bounds of one output of a graph: of its elements, or of rows of a specification. */
export interface Bounded {
  /** `[n, ...shape]`, element by element; infinite where nothing is known. */
  readonly output: () => Interval
  /** `[rows, n]`: bounds of sum over the output of spec * output, spec `[rows, n, ...shape]`, merged before concretising. */
  readonly rows: (spec: Tensor) => Interval
  /**
   * Lower bounds of rows as functions of the boxed node: where `lower` is the bound `[rows, n]` over its box [l, u] and A the coefficients `[rows, n, ...shape]`, a row is at least
   * lower + sum_i |A_i| d_i(x) at every x of the box, d_i being how far x_i is from l_i where A_i > 0 and from u_i where A_i < 0. Bounds that are not linear in one node have none.
   */
  readonly lines?: (spec: Tensor) => { readonly lower: Tensor; readonly coefficients: Tensor } | undefined
  /** How it rounds, `none` where it does not say: a bound that rounds to nearest must not pass for another. */
  readonly rounding?: Rounding
  /** The box of any node on the way, as the method has it. */
  readonly node: (x: Tensor) => Interval
}

/**
 * A way to bound: an output as a function of boxed nodes -> bounds of it, of rows of it, of nodes on the way. Boxes of hidden nodes that are
 * `given` (by another method, by the splits of a branch) are taken as they are. Rounding is `none` unless said otherwise (core/rounding.ts).
 */
export type Bounder = (output: Tensor, boxes: Boxes, given?: Boxes, rounding?: Rounding) => Bounded

/** A way to bound graphs in which every op that has a definition for this purpose is replaced by it. */
export const defined =
  (bounder: Bounder): Bounder =>
  (output, boxes, given = new Map(), rounding = 'none') => {
    const to = withoutDefinitions(output, boxes)
    const bounds = bounder(to(output), boxes, new Map([...given].map(([x, box]) => [to(x), box])), rounding)
    return { ...bounds, node: (x) => bounds.node(to(x)) }
  }

/** The boxes, outward where their ends were rounded, and what depends on them. */
export const contextOf = (output: Tensor, given: Boxes, rounding: Rounding) => {
  if (rounding !== 'none' && [...given.values()].some((b) => b.ball !== undefined))
    return raise({ kind: 'unsupported', what: 'outward rounding of l2 and l1 balls', reason: 'it is proved for linf' })
  const boxes: Boxes =
    rounding === 'none' ? given : new Map([...given].map(([x, box]) => [x, outwardBox(box, rounding.outward)]))
  const boxed = dependents([output], boxes)
  const first = [...boxes.values()][0]
  if (first === undefined) return raise({ kind: 'shape', op: 'bounds', message: 'no node has a box' })
  if (!boxed.has(output))
    return raise({ kind: 'shape', op: 'bounds', message: 'the output does not depend on any box' })
  return { boxes, boxed, images: first.shape[0] }
}

/**
 * Bounds as an answer. On the way NaN stands for "not known", the value itself included: outside of a domain, or where an execution may have overflowed, it may be no
 * number, so that nothing that is computed from it may count as bounded. An answer says so by ends that claim nothing, -infinity and infinity, both where either is NaN.
 * In a network of ReLUs to nearest, whose values are numbers, each end says it for itself: a loss that asks for one would have to compute the other, too, for that alone.
 */
export const answer = ({ lower, upper }: Interval, together = true): Interval => {
  const [low, high] = [greaterEqual(lower, Number.NEGATIVE_INFINITY), greaterEqual(Number.POSITIVE_INFINITY, upper)]
  const both = together ? mul(low, high) : undefined
  return interval(
    select(both ?? low, lower, Number.NEGATIVE_INFINITY),
    select(both ?? high, upper, Number.POSITIVE_INFINITY),
  )
}

/** Whether nothing but ReLUs bends a graph. */
const isOfReLUs = (output: Tensor, { boxed }: Context): boolean =>
  order([output]).every((x) => !x.inputs.some((i) => boxed.has(i)) || !isNonlinear(x, boxed) || leakOf(x) !== undefined)

/** Bounds of rows of the output; under outward rounding a specification that float32 does not hold is enclosed, too. */
export const specified = (output: Tensor, ctx: Context, spec: Tensor, bound: (rows: Rows) => Ends): Interval => {
  const shape = [spec.shape[0], ctx.images]
  if (!S.equals(spec.shape.slice(2), output.shape.slice(1)))
    raise({
      kind: 'shape',
      op: 'bounds',
      message: `specification ${S.show(spec.shape)} for an output of shape ${S.show(output.shape)}`,
    })
  const [ends, error] = [bound({ lower: spec, upper: spec }), specificationError(output, spec, ctx.outward)]
  const { lower, upper } =
    error === undefined ? ends : { lower: subDown(ends.lower, error), upper: addUp(ends.upper, error) }
  return answer(
    interval(broadcastTo(lower, shape), broadcastTo(upper, shape)),
    ctx.outward !== undefined || !isOfReLUs(output, ctx),
  )
}

/** What covers rounding in this graph, if anything does, given sound boxes of its nodes. */
export const coveringOf = (
  output: Tensor,
  boxed: ReadonlySet<Tensor>,
  boxes: Boxes,
  given: Boxes,
  rounding: Rounding,
) =>
  rounding === 'none'
    ? undefined
    : (box: (x: Tensor) => Interval) =>
        covering(order([output]), boxed, (x) => boxes.has(x) || given.has(x), rounding.outward, box)
