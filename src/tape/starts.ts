import { interval } from '../core/op.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import {
  add,
  addOp,
  broadcastTo,
  type Conv,
  conv2dOp,
  equal,
  iota,
  type Matmul,
  matmulOp,
  reshape,
  reshapeOp,
  sub,
  subOp,
  transpose,
  transposeLast,
} from '../ops/index.ts'
import { patchCost } from './patches.ts'
import { type Context, plus, type Rows } from './rows.ts'
import { walk } from './walk.ts'

/**
 * Bounds of every element of a hidden node by one walk, as an interval of its shape. The walk starts at the convolution or
 * product below the biases, whose rows are the weights themselves, instead of at an identity matrix.
 */
export const boundNode = (node: Tensor, ctx: Context, terminal: (x: Tensor) => Interval | undefined): Interval => {
  const n = ctx.images
  const shape = [n, ...node.shape.slice(1)]
  // Peel point additions and reshapes: the node is base + shift, elementwise up to a reshape.
  let base = node
  let shift: Tensor | undefined
  while (terminal(base) === undefined) {
    const k = base.inputs.findIndex((i) => ctx.boxed.has(i))
    const other = base.inputs[1 - k]
    const peels =
      (base.op === addOp || (base.op === subOp && k === 0)) &&
      other !== undefined &&
      !ctx.boxed.has(other) &&
      S.equals(base.inputs[k].shape, base.shape)
    if (peels) {
      const term = broadcastTo(base.op === addOp ? other : sub(0, other), [
        other.shape.length === base.shape.length ? other.shape[0] : 1,
        ...base.shape.slice(1),
      ])
      shift = plus(shift, reshape(term, [term.shape[0], ...node.shape.slice(1)]))
    } else if (!(base.op === reshapeOp && base.inputs[0].shape[0] === base.shape[0])) break
    base = base.inputs[peels ? k : 0]
  }
  const shifted = (x: Tensor) => (shift === undefined ? x : add(x, shift))
  const finish = (lower: Tensor, upper: Tensor) =>
    interval(broadcastTo(shifted(lower), shape), broadcastTo(shifted(upper), shape))

  const end = terminal(base)
  if (end !== undefined) return finish(reshape(end.lower, shape), reshape(end.upper, shape))
  if (base.op === conv2dOp && !ctx.boxed.has(base.inputs[1])) {
    const cost = patchCost(base, ctx.boxed)
    if (cost !== undefined && (cost.patches < cost.dense || cost.dense === 0)) {
      const [input, w] = base.inputs
      const [o, c, p, q] = w.shape
      const a = reshape(w, [o, 1, 1, c, p, q])
      const rows: Rows = { lower: a, upper: a, patch: { g: base.attrs as Conv, masked: false } }
      const ends = walk(input, rows, ctx, terminal)
      const back = (x: Tensor) => {
        const places = S.size((base.attrs as Conv).y)
        return reshape(transpose(broadcastTo(x, [o, n, places]), [1, 0, 2]), shape)
      }
      return finish(back(ends.lower), back(ends.upper))
    }
  }
  const count = S.size(node.shape.slice(1))
  const back = (x: Tensor) => reshape(transposeLast(broadcastTo(x, [count, n])), shape)
  const attrs = base.attrs as Matmul
  if (base.op === matmulOp && base.shape.length === 2 && !ctx.boxed.has(base.inputs[1]) && !attrs.transA) {
    const w = attrs.transB ? base.inputs[1] : transposeLast(base.inputs[1])
    const a = reshape(w, [count, 1, w.shape[1]])
    const ends = walk(base.inputs[0], { lower: a, upper: a }, ctx, terminal)
    return finish(back(ends.lower), back(ends.upper))
  }
  const ends = walk(base, identity(base), ctx, terminal)
  return finish(back(ends.lower), back(ends.upper))
}

/** One row for every element of the node. */
const identity = (x: Tensor): Rows => {
  const count = S.size(x.shape.slice(1))
  const eye = equal(reshape(iota(count), [count, 1]), iota(count))
  const a = reshape(eye, [count, 1, ...x.shape.slice(1)])
  return { lower: a, upper: a }
}
