import { order } from '../compile/tape.ts'
import { raise } from '../core/error.ts'
import { attributed, describe } from '../core/op.ts'
import type { Interval, Operand, Tensor } from '../core/tensor.ts'
import { isInterval } from '../core/tensor.ts'
import type { Covering } from './rows.ts'
import { signs } from './sign.ts'

/** What is known of some nodes: each lies in the interval given. */
export type Boxes = ReadonlyMap<Tensor, Interval>

/**
 * Interval bound propagation (arXiv:1810.12715): the graph evaluated in interval arithmetic, op by op. Given boxes of some nodes,
 * returns what each node lies in; nodes that depend on no box stay points. `refine` may tighten a node's box as it is reached.
 *
 * Under outward rounding (`covers` makes what covers it, given the boxes found so far) a box encloses what `rounding` names, by induction over the graph:
 * the rule of each op encloses its results for all operands in their boxes, points in their enclosures (ops/outward.ts), and where executions are covered what a
 * node is computed together with is exact until then (bounds/executions.ts).
 */
export const propagate = (
  outputs: readonly Tensor[],
  boxes: Boxes,
  refine: (x: Tensor, box: Interval) => Interval = (_, box) => box,
  covers?: (box: (x: Tensor) => Interval) => Covering,
): ReadonlyMap<Tensor, Operand> => {
  const known = new Map<Tensor, Operand>(boxes)
  const exact = new Map<Tensor, Interval>()
  const cover = covers?.((x) => known.get(x) as Interval)
  const { inDomain } = signs((x) => isInterval(known.get(x) as Operand))
  const operand = (i: Tensor): Operand => {
    const box = known.get(i) as Operand
    return cover === undefined ? box : isInterval(box) ? (exact.get(i) ?? box) : cover.point(i)
  }
  for (const x of order(outputs)) {
    if (known.has(x)) continue
    if (!x.inputs.some((i) => isInterval(known.get(i) as Operand))) known.set(x, x)
    else if (cover === undefined) known.set(x, refine(x, intervalOf(x, x.inputs.map(operand))))
    else {
      const operands = inDomain(x, x.inputs.map(operand))
      const results = attributed(x, () => cover.results(x, operands))
      if (cover.isPart(x)) exact.set(x, results.exact)
      known.set(x, refine(x, results.executed))
    }
  }
  return known
}

/** The interval rule of one node. */
const intervalOf = (x: Tensor, operands: readonly Operand[]): Interval =>
  'unsupported' in x.op.interval
    ? raise({ kind: 'unsupported', what: `intervals of ${describe(x)}`, reason: x.op.interval.unsupported })
    : x.op.interval(operands, x.attrs)

/** The box of a node from those of its operands, points as they are: of its executions, too, where these are covered. */
export const resultOf = (x: Tensor, operands: readonly Operand[], cover: Covering | undefined): Interval =>
  cover === undefined
    ? intervalOf(x, operands)
    : cover.results(
        x,
        operands.map((o) => (isInterval(o) ? o : cover.point(o))),
      ).executed
