import { equals } from '../../core/shape.ts'
import type { Operand, Tensor } from '../../core/tensor.ts'
import { add, type Matmul, matmul, mul, transposeLast } from '../../ops/index.ts'
import { checkBroadcast, showExtents } from './axes.ts'
import type { Floats, Import, NodeView } from './values.ts'
import { type Export, type Fuse, refuse, type Writer } from './writer.ts'

/** `x` as a matrix product wants it: the batch in rows. */
const matrix = (s: NodeView, i: number): Floats => {
  const v = s.floats(i)
  return v.probe.shape.length === 2 ? v : s.fail(`input ${i} must be a matrix, found ${showExtents(v)}`)
}

/** alpha A B + beta C with optional transpositions; `[N, k] [k, m] -> [N, m]`, C broadcast. */
const gemm: Import = (s) => {
  const [a, b] = [matrix(s, 0), matrix(s, 1)]
  const [alpha, beta] = [s.float('alpha', 1), s.float('beta', 1)]
  const [transA, transB] = [s.int('transA', 0) !== 0, s.int('transB', 0) !== 0]
  if (b.batched) s.fail('input 1 depends on the network input; only a parameter is supported')
  if (a.batched && transA) s.fail('attribute transA: it moves the batch axis')
  const scaled = (x: Operand, factor: number): Operand => (factor === 1 ? x : (mul(x, factor) as Operand))
  const product = ([x, w]: readonly Operand[]): Operand => scaled(matmul(x, w, { transA, transB }), alpha)
  if (!s.has(2)) return s.emit([a, b], product)
  const c = s.floats(2)
  if (c.probe.shape.length > 2) s.fail(`input 2 must be at most a matrix, found ${showExtents(c)}`)
  if (a.batched) checkBroadcast(s, a, c)
  const rows = a.probe.shape[transA ? 1 : 0]
  const columns = b.probe.shape[transB ? 0 : 1]
  const fits = c.probe.shape.every((d, i) => d === 1 || d === [rows, columns][i + 2 - c.probe.shape.length])
  if (!fits) s.fail(`input 2 ${showExtents(c)} does not broadcast to [${a.batched ? 'N' : rows},${columns}]`)
  return s.emit([a, b, c], ([x, w, y]) => add(product([x, w]), scaled(y, beta)) as Operand)
}

/** Product over the last axis with a matrix: `[N, ..., k] [k, m] -> [N, ..., m]`. */
const matMul: Import = (s) => {
  const [a, b] = [s.floats(0), s.floats(1)]
  if (b.batched) s.fail('input 1 depends on the network input; only a parameter is supported')
  if (b.probe.shape.length !== 2 || a.probe.shape.length < 2)
    s.fail(`expected a tensor of rank >= 2 and a matrix, found ${showExtents(a)} and ${showExtents(b)}`)
  return s.emit([a, b], ([x, w]) => matmul(x, w, {}))
}

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
  if (x.op.name !== 'add') return undefined
  const [product, bias] = x.inputs
  const fits =
    product.op.name === 'matmul' &&
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
