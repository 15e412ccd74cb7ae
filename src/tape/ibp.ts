import { raise } from '../core/error.ts'
import { interval } from '../core/op.ts'
import type { Rounding, Semantics } from '../core/rounding.ts'
import type { Interval, Operand, Tensor } from '../core/tensor.ts'
import { isInterval } from '../core/tensor.ts'
import {
  addOp,
  addUp,
  biasError,
  type ConstantAttrs,
  constantOp,
  enclose,
  leakyReluOp,
  reshapeOp,
  subDown,
  subOp,
} from '../ops/index.ts'
import { order } from './tape.ts'

/** What is known of some nodes: each lies in the interval given. */
export type Boxes = ReadonlyMap<Tensor, Interval>

/**
 * Interval bound propagation (arXiv:1810.12715): the graph evaluated in interval arithmetic, op by op. Given boxes of some nodes,
 * returns what each node lies in; nodes that depend on no box stay points. `refine` may tighten a node's box as it is reached.
 *
 * Under outward rounding a box encloses what `rounding` names, by induction over the graph: the rule of each op encloses its results, exact or
 * as executed, for all operands in their boxes (ops/outward.ts).
 */
export const propagate = (
  outputs: readonly Tensor[],
  boxes: Boxes,
  refine: (x: Tensor, box: Interval) => Interval = (_, box) => box,
  rounding: Rounding = 'none',
): ReadonlyMap<Tensor, Operand> => {
  const known = new Map<Tensor, Operand>(boxes)
  for (const x of order(outputs)) {
    if (known.has(x)) continue
    const operands = x.inputs.map((i) => known.get(i) as Operand)
    known.set(x, operands.some(isInterval) ? refine(x, intervalOf(x, operands, rounding)) : x)
  }
  return known
}

/** The interval rule of one node. */
export const intervalOf = (x: Tensor, operands: readonly Operand[], rounding: Rounding): Interval => {
  if (rounding !== 'none') return outwardOf(x, operands, rounding.outward)
  return 'unsupported' in x.op.interval
    ? raise({ kind: 'unsupported', what: `${x.op.name} of interval tensors`, reason: x.op.interval.unsupported })
    : x.op.interval(operands, x.attrs)
}

/** A bias: the point that a node adds to a product of `terms` terms, which an execution may sum in one go, in any order. */
export interface Bias {
  readonly value: Tensor
  readonly terms: number
}

/** The bias that a node adds, given which of its inputs are boxed. */
export const biasOf = (x: Tensor, isBoxed: (i: Tensor) => boolean): Bias | undefined => {
  if (x.op !== addOp && x.op !== subOp) return undefined
  const k = x.inputs.findIndex((i) => !isBoxed(i))
  if (k < 0) return undefined
  let from = x.inputs[1 - k]
  while (from.op === reshapeOp) from = from.inputs[0]
  const terms = termsOf(from)?.result
  return terms === undefined ? undefined : { value: x.inputs[k], terms }
}

/** How many products an element of a node and of its adjoint sums. */
export const termsOf = (x: Tensor): { readonly result: number; readonly adjoint: number } | undefined =>
  x.op.outward?.terms?.(
    x.inputs.map((i) => i.shape),
    x.attrs,
  )

const outwardOf = (x: Tensor, operands: readonly Operand[], semantics: Semantics): Interval => {
  const bias = semantics === 'deployed' ? biasOf(x, (i) => isInterval(operands[x.inputs.indexOf(i)])) : undefined
  if (bias === undefined) return enclose(x.op, operands, x.attrs, semantics)
  const { lower, upper } = enclose(x.op, operands, x.attrs, 'real')
  const error = biasError(bias.value, bias.terms)
  return interval(subDown(lower, error), addUp(upper, error))
}

/** Constants that were looked at: every bound of a network asks again. */
const exactInFloat32 = new WeakSet<object>()

/** A constant that float32 does not hold is another number on every device: no bound of the network means anything exact. */
export const requireFloat32 = (x: Tensor): void => {
  const data = x.op === constantOp ? (x.attrs as ConstantAttrs).data : undefined
  if (data !== undefined && exactInFloat32.has(data)) return
  const numbers =
    x.op === constantOp
      ? (x.attrs as ConstantAttrs).data
      : x.op === leakyReluOp
        ? [(x.attrs as { readonly slope: number }).slope]
        : []
  const wrong = numbers.find((v) => Math.fround(v) !== v && !Number.isNaN(v))
  if (wrong !== undefined)
    raise({
      kind: 'unsupported',
      what: `outward rounding of a network with the constant ${wrong}`,
      reason: 'float32 does not hold it; round it (Math.fround) to say which network is meant',
    })
  if (data !== undefined) exactInFloat32.add(data)
}
