import * as E from 'fp-ts/lib/Either.js'
import { broadcast, equals, size } from '../../core/shape.ts'
import type { Operand, Tensor } from '../../core/tensor.ts'
import { add, addOp, broadcastTo, type Matmul, matmul, matmulOp, mul, transposeLast } from '../../ops/index.ts'
import { aligned, inFront, permuted, showExtents, toShape } from './axes.ts'
import { combined } from './elementwise.ts'
import { batched, type Floats, type Import, type NodeView } from './values.ts'
import { type Export, type Fuse, refuse, type Writer } from './writer.ts'

/** Matrix products. */

const matrix = (s: NodeView, i: number): Floats => {
  const v = s.floats(i)
  return v.shape.length === 2 ? v : s.fail(`input ${i} must be a matrix, found ${showExtents(v)}`)
}

/** alpha A B + beta C with optional transpositions; `[N, k] [k, m] -> [N, m]`, C broadcast. */
const gemm: Import = (s) => {
  const [a, b] = [matrix(s, 0), matrix(s, 1)]
  const [alpha, beta] = [s.float('alpha', 1), s.float('beta', 1)]
  const [transA, transB] = [s.int('transA', 0) !== 0, s.int('transB', 0) !== 0]
  const scaled = (x: Floats, factor: number): Floats =>
    factor === 1 ? x : s.emit([x], ([v]) => mul(v, factor) as Operand)
  const turned = (x: Floats, turn: boolean): Floats => (turn ? permuted(s, x, [1, 0]) : x)
  // A transposition is a flag of the product where it does not touch the batch.
  const plain = !batched(b) && (!batched(a) || (a.batch === 'first' && !transA))
  const product = scaled(
    plain
      ? s.emit([a, b], ([x, w]) => matmul(x, w, { transA, transB }))
      : multiplied(s, turned(a, transA), turned(b, transB)),
    alpha,
  )
  if (!s.has(2)) return product
  const c = s.floats(2)
  if (c.shape.length > 2) s.fail(`input 2 must be at most a matrix, found ${showExtents(c)}`)
  const fits = c.shape.every((d, i) => d === 1 || d === product.shape[i + 2 - c.shape.length])
  if (!fits) s.fail(`input 2 ${showExtents(c)} does not broadcast to ${showExtents(product)}`)
  return combined(s, [product, scaled(c, beta)], (x, y) => add(x, y) as Operand)
}

/** numpy's matmul: matrices over the last two axes, axes before them broadcast, vectors as a row or a column. */
const matMul: Import = (s) => multiplied(s, s.floats(0), s.floats(1))

const multiplied = (s: NodeView, a: Floats, b: Floats): Floats => {
  const [ra, rb] = [a.shape.length, b.shape.length]
  if (ra === 0 || rb === 0) s.fail(`expected tensors of rank >= 1, found ${showExtents(a)} and ${showExtents(b)}`)
  const inner = [a.shape[ra - 1], b.shape[Math.max(0, rb - 2)]]
  // Products over an open batch are refused where it would have to move.
  if (!inner.includes('N') && inner[0] !== inner[1])
    s.fail(`inner dimensions of ${showExtents(a)} and ${showExtents(b)} differ`)
  if (ra === 1) return dropAxis(s, multiplied(s, toShape(s, a, [1, ...a.shape]), b), -2)
  if (rb === 1) return dropAxis(s, multiplied(s, a, toShape(s, b, [...b.shape, 1])), -1)
  return s.emit(meeting(s, a, b), ([x, y]) => productOf(x, y))
}

/** Two stacks of matrices whose stacks meet in a run as they do in the file; rows of the batch may stay the rows of one matrix. */
const meeting = (s: NodeView, a: Floats, b: Floats): readonly Floats[] => {
  if (Math.max(a.shape.length, b.shape.length) > 2) return aligned(s, [a, b])
  return batched(b) ? [a, b].map((v) => inFront(s, v, 'multiplies over')) : [a, b]
}

/** The product of stacks; a stack of several parameters is repeated for each image, so that it moves no axis of the other operand. */
const productOf = (x: Operand, y: Operand): Operand => {
  const [p, q] = [x, y].map((v) => v.shape.slice(0, -2))
  const stack = broadcast(p, q)
  if (size(p) === 1 || size(q) === 1 || E.isLeft(stack)) return matmul(x, y, {})
  const spread = (v: Operand): Operand => broadcastTo(v, [...stack.right, ...v.shape.slice(-2)])
  return matmul(spread(x), spread(y), {})
}

/** The value without an axis of extent 1, counted from the last. */
const dropAxis = (s: NodeView, v: Floats, at: number): Floats =>
  toShape(
    s,
    v,
    v.shape.filter((_, i) => i !== v.shape.length + at),
  )

export const imports: Readonly<Record<string, Import>> = { Gemm: gemm, MatMul: matMul }

/** A matrix product, with its bias where there is one, as the node that computes `result`. */
const writeGemm = (result: Tensor, x: Tensor, w: Writer, bias: readonly Tensor[] = []): void => {
  const [a, b] = x.inputs
  if (w.moving(b)) refuse(x, 'its second operand depends on the input')
  const { transA, transB } = x.attrs as Matmul
  if (transA && w.moving(a)) refuse(x, 'it moves the batch axis')
  w.emit(result, 'Gemm', [a, b, ...bias].map(w.ref), {
    alpha: { float: 1 },
    beta: { float: 1 },
    ...(transA ? { transA: { int: 1 } } : {}),
    ...(transB ? { transB: { int: 1 } } : {}),
  })
}

/** A product that is used for nothing but a sum with a bias: one Gemm with its third input. */
const fuseBias: Fuse = (x, { moving, uses }) => {
  if (x.op !== addOp) return undefined
  const [product, bias] = x.inputs
  const fits =
    product.op === matmulOp &&
    product.shape.length === 2 &&
    uses(product) === 1 &&
    moving(product) &&
    !moving(bias) &&
    equals(bias.shape, [product.shape[1]])
  return fits ? { absorbs: [product], write: (w) => writeGemm(x, product, w, [bias]) } : undefined
}

/** A product with a stack in it: MatMul, of operands that are transposed before. */
const writeMatMul = (x: Tensor, w: Writer): void => {
  const { transA, transB } = x.attrs as Matmul
  if (x.inputs.some((i) => w.moving(i) && i.shape.length === 2)) refuse(x, 'it moves or merges the batch axis')
  const names = x.inputs.map((i, k) => {
    if (!(k === 0 ? transA : transB)) return w.ref(i)
    const turned = transposeLast(i)
    w.emit(turned, 'Transpose', [w.ref(i)], { perm: { ints: (turned.attrs as Permuted).permutation } })
    return w.ref(turned)
  })
  w.emit(x, 'MatMul', names)
}
type Permuted = { readonly permutation: readonly number[] }

export const exports: Readonly<Record<string, Export>> = {
  matmul: (x, w) => (x.shape.length === 2 ? writeGemm(x, x, w) : writeMatMul(x, w)),
}
export const fusions: readonly Fuse[] = [fuseBias]
