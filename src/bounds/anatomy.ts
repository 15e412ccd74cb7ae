import { order } from '../compile/tape.ts'
import * as S from '../core/shape.ts'
import type { Linear, Tensor } from '../core/tensor.ts'
import type { Boxes } from './ibp.ts'

/** True for a relaxation that is not linear given which operands are boxed. */
export const isNonlinear = (x: Tensor, boxed: ReadonlySet<Tensor>): boolean => {
  const { relax } = x.op
  if (relax === 'linear') return false
  if (typeof relax === 'object' && 'bilinear' in relax) return x.inputs.filter((i) => boxed.has(i)).length > 1
  return !(x.op.linear === 'divides' && !boxed.has(x.inputs[1]))
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
  typeof op.relax === 'object' && 'bilinear' in op.relax && op.linear !== 'multiplies'

/** What works element by element, and so leaves an element where it is. */
const TERMWISE: readonly Linear[] = ['same', 'adds', 'subtracts', 'multiplies', 'divides']
export const isTermwise = ({ op: { linear } }: Tensor): boolean => linear !== undefined && TERMWISE.includes(linear)

/** What puts each element in one place at most: it rearranges rows without adding any up. */
export const isRearrangement = ({ op: { linear } }: Tensor): boolean =>
  linear === 'same' || linear === 'reshapes' || linear === 'moves'

/** The sum or difference of two. */
export const isSum = ({ op: { linear } }: Tensor): boolean => linear === 'adds' || linear === 'subtracts'

/** How many products an element of a node and of its adjoint sums, for an op that says so. */
export const countsOf = (x: Tensor): { readonly result: number; readonly adjoint: number } | undefined =>
  x.op.outward?.terms?.(
    x.inputs.map((i) => i.shape),
    x.attrs,
  )

/** The slope a of x -> max(x, a x); undefined for another op. */
export const leakOf = (x: Tensor): number | undefined => x.op.leak?.(x.attrs)

/**
 * The only boxed operand of an elementwise curve such as e^x: the interval rule on its box is as tight as any walk through lines of the curve, which lie outside of it at both ends. Undefined for
 * other nodes, and for a ReLU, of whose operand a screen may know no more than the sign.
 */
export const underCurve = (x: Tensor, boxed: ReadonlySet<Tensor>): Tensor | undefined => {
  if (typeof x.op.relax !== 'function' || leakOf(x) !== undefined || !isNonlinear(x, boxed)) return undefined
  const [z, another] = x.inputs.filter((i) => boxed.has(i))
  return another === undefined && z !== undefined && z.shape.join() === x.shape.join() ? z : undefined
}

/** What puts elements in other places, once or several times, and makes none that was not there but 0. */
const isMoved = (x: Tensor): boolean => isRearrangement(x) || x.op.linear === 'repeats'

/**
 * The node whose elements x shows in other places, where it has no more of them: a window of a map repeats its elements, and each needs one row, not one for every window that it is in. Undefined
 * where nothing but the shape changes, which a walk looks through by itself, or where x leaves elements out.
 */
export const movedFrom = (x: Tensor, boxed: ReadonlySet<Tensor>, isEnd: (x: Tensor) => boolean): Tensor | undefined => {
  const per = (y: Tensor): number => S.size(y.shape) / Math.max(1, y.shape[0])
  let [z, moves] = [x, false]
  while (
    !isEnd(z) &&
    isMoved(z) &&
    z.inputs.length === 1 &&
    z.inputs[0].shape[0] === z.shape[0] &&
    per(z.inputs[0]) <= per(z)
  ) {
    moves ||= z.op.linear !== 'reshapes' && z.op.linear !== 'same'
    z = z.inputs[0]
  }
  return moves && boxed.has(z) ? z : undefined
}

/** Whether the vjp takes coefficients of one image for all. */
export const sharesImages = (x: Tensor): boolean => x.op.sharesImages?.(x.inputs.map((i) => i.shape)) ?? false

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
    if (isRearrangement(x) || isTermwise(x)) level.set(x, l)
    else if (l === 0) level.set(x, 1)
  }
  return new Set(level.keys())
}
