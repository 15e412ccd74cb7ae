import { interval } from '../core/op.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import { dataOf, maximum } from '../ops/index.ts'

/**
 * What is not negative by construction. An outward bound of a sum of squares, of a mean of ReLUs, begins a rounding below 0, and a root of that is no number; yet no
 * square, no sum, product or quotient of numbers that are not negative is negative, in real arithmetic and in every execution: rounding is monotone and keeps 0, and
 * the sums that executions multiply out (bounds/executions.ts) have terms that are products of such numbers.
 */
export interface Signs {
  /** A box of x without what lies below 0, where x is never negative. NaN stays NaN. */
  readonly withoutNegative: (x: Tensor, box: Interval) => Interval
  /** The operands of a node, those that must not be negative without what construction excludes. */
  readonly inDomain: (x: Tensor, operands: readonly Operand[]) => readonly Operand[]
}

/** Signs of the nodes of a graph, of which those that have a box are told. */
export const signs = (isBoxed: (x: Tensor) => boolean): Signs => {
  const known = new Map<Tensor, boolean>()
  const decided = (x: Tensor): boolean => {
    const { op, inputs, attrs } = x
    const data = dataOf(x)
    if (data !== undefined) return data.every((v) => v >= 0)
    // A value times itself. Points are not values: (a - b)^2 may be computed as a^2 - 2 a b + b^2.
    if (op.linear === 'multiplies' && inputs[0] === inputs[1] && isBoxed(inputs[0])) return true
    if (op.nonnegative === 'always') return true
    const operands = inputs.map(neverNegative)
    if (op.nonnegative !== undefined) return op.nonnegative(operands, attrs)
    const keeps = op.linear !== undefined && op.linear !== 'subtracts' && op.linear !== 'same'
    return keeps && inputs.length > 0 && operands.every((o) => o)
  }
  const neverNegative = (x: Tensor): boolean => {
    const is = known.get(x) ?? decided(x)
    known.set(x, is)
    return is
  }
  const withoutNegative = (x: Tensor, box: Interval): Interval =>
    neverNegative(x) ? interval(maximum(box.lower, 0) as Tensor, box.upper) : box
  return {
    withoutNegative,
    inDomain: (x, operands) =>
      x.op.domain === undefined
        ? operands
        : operands.map((o, k) =>
            x.op.domain?.[k] === 'nonnegative' && isInterval(o) ? withoutNegative(x.inputs[k], o) : o,
          ),
  }
}
