import { raise } from '../core/error.ts'
import type { Interval, Operand, Tensor } from '../core/tensor.ts'
import { isInterval } from '../core/tensor.ts'
import { order } from './tape.ts'

/** What is known of some nodes: each lies in the interval given. */
export type Boxes = ReadonlyMap<Tensor, Interval>

/**
 * Interval bound propagation (arXiv:1810.12715): the graph evaluated in interval arithmetic, op by op. Given boxes of some nodes,
 * returns what each node lies in; nodes that depend on no box stay points. `refine` may tighten a node's box as it is reached.
 */
export const propagate = (
  outputs: readonly Tensor[],
  boxes: Boxes,
  refine: (x: Tensor, box: Interval) => Interval = (_, box) => box,
): ReadonlyMap<Tensor, Operand> => {
  const known = new Map<Tensor, Operand>(boxes)
  for (const x of order(outputs)) {
    if (known.has(x)) continue
    const operands = x.inputs.map((i) => known.get(i) as Operand)
    known.set(x, operands.some(isInterval) ? refine(x, intervalOf(x, operands)) : x)
  }
  return known
}

/** The interval rule of one node. */
const intervalOf = (x: Tensor, operands: readonly Operand[]): Interval =>
  'unsupported' in x.op.interval
    ? raise({ kind: 'unsupported', what: `${x.op.name} of interval tensors`, reason: x.op.interval.unsupported })
    : x.op.interval(operands, x.attrs)
