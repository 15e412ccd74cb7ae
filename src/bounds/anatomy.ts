import { order } from '../compile/tape.ts'
import type { Tensor } from '../core/tensor.ts'
import { addOp, concatOp, divOp, mulOp, negOp, padOp, reshapeOp, sliceOp, subOp, transposeOp } from '../ops/index.ts'
import type { Boxes } from './ibp.ts'

/** True for a relaxation that is not linear given which operands are boxed. */
export const isNonlinear = (x: Tensor, boxed: ReadonlySet<Tensor>): boolean => {
  const { relax } = x.op
  if (relax === 'linear') return false
  if (typeof relax === 'object' && 'bilinear' in relax) return x.inputs.filter((i) => boxed.has(i)).length > 1
  return !(x.op === divOp && !boxed.has(x.inputs[1]))
}

export const dependents = (outputs: readonly Tensor[], boxes: Boxes): ReadonlySet<Tensor> => {
  const boxed = new Set<Tensor>(boxes.keys())
  for (const x of order(outputs)) if (x.inputs.some((i) => boxed.has(i))) boxed.add(x)
  return boxed
}

/** Nodes of a graph as the walks see them, inputs before users. */
export interface Anatomy {
  /** What depends on a box, the boxed nodes included. */
  readonly boxed: ReadonlySet<Tensor>
  /** Nodes whose box a relaxation asks for: the boxed operands of nonlinear ops. */
  readonly hidden: readonly Tensor[]
}

export const anatomy = (output: Tensor, boxes: Boxes): Anatomy => {
  const boxed = dependents([output], boxes)
  const nodes = order([output])
  const asked = new Set(
    nodes.filter((x) => !boxes.has(x) && boxed.has(x) && isNonlinear(x, boxed)).flatMap((x) => x.inputs),
  )
  return { boxed, hidden: nodes.filter((x) => asked.has(x) && boxed.has(x)) }
}

/** Products of what a box has with points: convolutions and matrix products, which mix elements. */
export const mixes = ({ op }: Tensor): boolean =>
  typeof op.relax === 'object' && 'bilinear' in op.relax && !SCALE.has(op)

const REARRANGE = new Set<unknown>([reshapeOp, transposeOp, sliceOp, padOp, concatOp])
export const SCALE = new Set<unknown>([addOp, subOp, negOp, mulOp, divOp])

/**
 * Nodes whose interval-propagated box is exact: each element is a linear function of inputs that are combined once. A walk would
 * find the same box at the cost of its rows. (0: a rescaled input element each; 1: one mixing op above that.)
 */
export const exactNodes = (nodes: readonly Tensor[], boxes: Boxes, boxed: ReadonlySet<Tensor>): ReadonlySet<Tensor> => {
  const level = new Map<Tensor, number>([...boxes.keys()].map((x) => [x, 0]))
  for (const x of nodes) {
    if (level.has(x) || !boxed.has(x)) continue
    const from = x.inputs.filter((i) => boxed.has(i))
    const l = level.get(from[0])
    if (from.length !== 1 || l === undefined || isNonlinear(x, boxed)) continue
    if (REARRANGE.has(x.op) || SCALE.has(x.op)) level.set(x, l)
    else if (l === 0) level.set(x, 1)
  }
  return new Set(level.keys())
}
