import { raise } from '../core/error.ts'
import { equals, show } from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { add, full, zeros } from '../ops/index.ts'
import { order } from './tape.ts'

/** `vjp`, undefined where nothing flows. */
export const cotangents = (
  outputs: readonly Tensor[],
  cts: readonly Tensor[],
  wrt: readonly Tensor[],
): readonly (Tensor | undefined)[] => {
  // What one node depends on carries no cotangent of it: the steps of an attack before this one are not looked at.
  const nodes = order(outputs, wrt.length === 1 ? wrt : [])
  // Only nodes on a path from `wrt` carry a cotangent.
  const active = new Set<Tensor>(wrt)
  for (const x of nodes) if (x.inputs.some((i) => active.has(i))) active.add(x)
  const known = new Map<Tensor, Tensor>()
  const accumulate = (x: Tensor, ct: Tensor) => {
    const sofar = known.get(x)
    known.set(x, sofar === undefined ? ct : add(sofar, ct))
  }
  outputs.forEach((y, i) => {
    if (!equals(y.shape, cts[i].shape))
      raise({
        kind: 'shape',
        op: 'vjp',
        message: `cotangent ${show(cts[i].shape)} for an output of shape ${show(y.shape)}`,
      })
    if (active.has(y)) accumulate(y, cts[i])
  })
  for (let i = nodes.length - 1; i >= 0; i--) {
    const x = nodes[i]
    const ct = known.get(x)
    if (ct === undefined || x.inputs.length === 0) continue
    if (!x.inputs.some((y) => active.has(y))) continue
    x.op.vjp(ct, x.inputs, x, x.attrs).forEach((c, k) => {
      if (c !== undefined && active.has(x.inputs[k])) accumulate(x.inputs[k], c)
    })
  }
  return wrt.map((x) => known.get(x))
}

/**
 * Vector-Jacobian products: for outputs y and cotangents ct, the gradients of sum(ct * y) with respect to `wrt`, as nodes, each in the shape of its node; a cotangent has that of its output. Cotangents
 * are added in reverse order of the graph, so the result is deterministic. Reverse mode on a graph of graphs: a vjp of a vjp is
 * the same function applied again.
 *
 * @example
 *   const x = input('x', [2])
 *   const [cotangent] = vjp([mul(x, x)], [constant([1, 1], [2])], [x])
 */
export const vjp = (outputs: readonly Tensor[], cts: readonly Tensor[], wrt: readonly Tensor[]): readonly Tensor[] =>
  cotangents(outputs, cts, wrt).map((ct, k) => ct ?? zeros(wrt[k].shape))

/**
 * Gradients of a scalar with respect to `wrt`, each in the shape of its node.
 *
 * @throws shape for a loss that is no scalar; unsupported for an op without a derivative.
 *
 * @example
 *   const x = input('x', [2])
 *   const [slope] = grad(sum(mul(x, x)), [x])
 */
export const grad = (loss: Tensor, wrt: readonly Tensor[]): readonly Tensor[] =>
  loss.shape.length === 0
    ? vjp([loss], [full([], 1)], wrt)
    : raise({ kind: 'shape', op: 'grad', message: `takes a scalar, not ${show(loss.shape)}` })
