import * as E from 'fp-ts/lib/Either.js'
import { apply, node, type Op } from '../core/op.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Join, type Operand, type Tensor } from '../core/tensor.ts'
import { centre, centreRadius, radius } from './box.ts'
import { absMul } from './coefficients.ts'
import { add, mul } from './elementwise.ts'
import { abs } from './relu.ts'
import { broadcastTo, reshape, sum, transpose, transposeLast } from './shape.ts'

/** Which operands of a matrix product are transposed. */
export interface Matmul {
  readonly transA: boolean
  readonly transB: boolean
}

/** Extents [rows, columns] of a matrix after an optional transposition. */
const dims = (s: S.Shape, transposed: boolean): readonly [number, number] => {
  const [r, c] = s.slice(-2)
  return transposed ? [c, r] : [r, c]
}

/**
 * Interval rule of a bilinear op, centre-radius (Rump 1999): with A = a +- p and B = b +- q,
 * A B lies in a b +- (|a| q + p |b| + p q), a point having radius 0.
 */
export const bilinearInterval =
  (product: (a: Tensor, b: Tensor) => Tensor) =>
  (a: Operand, b: Operand): Interval => {
    const [ca, cb] = [centre(a), centre(b)]
    const c = product(ca, cb)
    if (!isInterval(b)) return centreRadius(c, product(radius(a), abs(cb)))
    if (!isInterval(a)) return centreRadius(c, product(abs(ca), radius(b)))
    return centreRadius(c, add(product(radius(a), abs(cb)), product(add(abs(ca), radius(a)), radius(b))))
  }

const leadOf = (s: S.Shape): S.Shape => s.slice(0, -2)

/**
 * Matrix product, `[..., m, k] [..., k, n] -> [..., m, n]`, of two matrices, of two stacks of as many, or of a stack and a matrix that each of
 * its members meets; `transA` reads a as `[..., k, m]`, `transB` reads b as `[..., n, k]`.
 */
export const matmulOp: Op<Matmul> = {
  name: 'matmul',
  shape: ([a, b], { transA, transB }) => {
    if (a.length < 2 || b.length < 2) return E.left('takes matrices or stacks of matrices')
    const stacks = [leadOf(a), leadOf(b)]
    if (a.length > 2 && b.length > 2 && !S.equals(stacks[0], stacks[1]))
      return E.left(`batch extents ${stacks.map(S.show).join(' and ')} differ`)
    const [m, k] = dims(a, transA)
    const [l, n] = dims(b, transB)
    return k === l ? E.right([...leadOf(a.length > 2 ? a : b), m, n]) : E.left(`inner dimensions ${k} and ${l} differ`)
  },
  vjp: (ct, [a, b], out, { transA, transB }) => {
    const da = () => (transA ? product(b, ct, transB, true) : product(ct, b, false, !transB))
    const db = () => (transB ? product(ct, a, true, transA) : product(a, ct, !transA, false))
    // With row axes in front (a bound walk) a matrix that a stack shares has no rows: it is a point.
    if (ct.shape.length > out.shape.length)
      return [a.shape.length > 2 || b.shape.length === 2 ? da() : undefined, b.shape.length > 2 ? db() : undefined]
    return [
      a.shape.length < b.shape.length ? sharedLeft(ct, b, transA, transB) : da(),
      b.shape.length < a.shape.length ? sharedRight(ct, a, transA, transB) : db(),
    ]
  },
  interval: ([a, b], attrs) => bilinearInterval((x, y) => node(matmulOp, [x, y], attrs))(a, b),
  relax: { bilinear: 'centred' },
  linear: 'products',
  // Of matrices only the rows of the left one may be images, of stacks the members.
  keepsImages: (inputs, out, { transA }, boxed) =>
    inputs.every((s, k) => !boxed[k] || s.length > 2 || (k === 0 && !transA && out.length === 2)),
  sharesImages: (inputs) => inputs.some((s) => s.length === 2),
  rows: ([, w], out, { transA, transB }) => (out.length === 2 && !transA ? (transB ? w : transposeLast(w)) : undefined),
  outward: {
    interval: 'product',
    live: (where, _, { transA }) =>
      where.shape.length === 2 && !transA ? reshape(sum(where, [1]), [where.shape[0], 1]) : undefined,
    terms: ([a, b], { transA, transB }) => {
      const [[m, k], n] = [dims(a, transA), dims(b, transB)[1]]
      // The adjoint sums over the extent of the result that the point brings: that of a stack that meets a stack may be either.
      return { result: k, adjoint: b.length === 2 ? n : a.length === 2 ? m : Math.max(m, n) }
    },
  },
  kernel: {
    reference: (out, [a, b], [sa, sb], outShape, { transA, transB }) => {
      const batch = S.size(leadOf(outShape))
      const [m, k] = dims(sa, transA)
      const n = dims(sb, transB)[1]
      // Rows of a and columns of b side by side in memory, so that each element is one dot product of neighbours.
      const rows = new Float64Array(m * k)
      const columns = new Float64Array(k * n)
      for (let s = 0; s < batch; s++) {
        const [atA, atB] = [sa.length > 2 ? s * m * k : 0, sb.length > 2 ? s * k * n : 0]
        for (let i = 0; i < m; i++)
          for (let l = 0; l < k; l++) rows[i * k + l] = a[atA + (transA ? l * m + i : i * k + l)]
        for (let j = 0; j < n; j++)
          for (let l = 0; l < k; l++) columns[j * k + l] = b[atB + (transB ? j * k + l : l * n + j)]
        for (let i = 0; i < m; i++) {
          const to = (s * m + i) * n
          let j = 0
          // Four sums at once keep the adder busy; each is still one sum in the order of l.
          for (; j + 4 <= n; j += 4) {
            let [d0, d1, d2, d3] = [0, 0, 0, 0]
            for (let l = 0, c = j * k; l < k; l++, c++) {
              const x = rows[i * k + l]
              d0 += x * columns[c]
              d1 += x * columns[c + k]
              d2 += x * columns[c + 2 * k]
              d3 += x * columns[c + 3 * k]
            }
            out[to + j] = d0
            out[to + j + 1] = d1
            out[to + j + 2] = d2
            out[to + j + 3] = d3
          }
          for (; j < n; j++) {
            let dot = 0
            for (let l = 0; l < k; l++) dot += rows[i * k + l] * columns[j * k + l]
            out[to + j] = dot
          }
        }
      }
    },
    lower: ([a, b], out, { transA, transB }) => {
      const batch = S.size(leadOf(out))
      const [m, k] = dims(a, transA)
      const n = dims(b, transB)[1]
      // Rows of all members of a stack that meet one matrix are the rows of one product.
      const joined = b.length === 2 && !transA
      const sizes = joined
        ? { m: batch * m, batch: 1, strideA: batch * m * k, strideB: k * n, strideOut: batch * m * n }
        : { m, batch, strideA: a.length > 2 ? m * k : 0, strideB: b.length > 2 ? k * n : 0, strideOut: m * n }
      return { kind: 'kernel', kernel: { kind: 'matmul', k, n, transA, transB, ...sizes }, work: batch * m * k * n }
    },
  },
}

/** `[..., m, n]` as one matrix, its rows one stack after the other; transposed, `[n, ... m]`. */
const rowsOf = (x: Tensor): Tensor => reshape(x, [S.size(x.shape.slice(0, -1)), x.shape[x.shape.length - 1]])

/** Cotangent of a matrix b that all members of a stack a meet: one product over the rows of all of them. */
const sharedRight = (ct: Tensor, a: Tensor, transA: boolean, transB: boolean): Tensor => {
  const [x, y] = [rowsOf(transA ? transposeLast(a) : a), rowsOf(ct)]
  return transB ? product(y, x, true, false) : product(x, y, true, false)
}

/** Cotangent of a matrix a that meets all members of a stack b: one product over the columns of all of them. */
const sharedLeft = (ct: Tensor, b: Tensor, transA: boolean, transB: boolean): Tensor => {
  const [x, y] = [rowsOf(transposeLast(ct)), rowsOf(transB ? b : transposeLast(b))]
  return transA ? product(y, x, true, false) : product(x, y, true, false)
}

/** matmulOp of operands of any ranks of 2 and more: leading axes are broadcast, and those that one operand has beyond a stack are rows. */
const product = <T extends Operand, U extends Operand>(a: T, b: U, transA: boolean, transB: boolean): Join<T, U> => {
  const run = (x: Operand, y: Operand, s = transA, t = transB) => apply(matmulOp, [x, y], { transA: s, transB: t })
  const [p, q] = [leadOf(a.shape), leadOf(b.shape)]
  if (p.length === 0 || q.length === 0 || S.equals(p, q)) return run(a, b) as Join<T, U>
  const behind = (s: S.Shape, of: S.Shape) => S.equals(s, of.slice(of.length - s.length))
  if (behind(p, q)) return transposeLast(product(b, a, !transB, !transA)) as unknown as Join<T, U>
  if (behind(q, p)) {
    // [...lead, ...stack, m, k] -> [stack, lead m, k]: the axes of the stack must come first.
    const x = transA ? transposeLast(a as Operand) : (a as Operand)
    const [count, lead] = [S.size(q), p.slice(0, p.length - q.length)]
    const [m, k] = x.shape.slice(-2)
    const rows = S.size(lead)
    const first = reshape(transpose(reshape(x, [rows, count, m, k]), [1, 0, 2, 3]), [count, rows * m, k])
    const flat = run(first, reshape(b as Operand, [count, ...b.shape.slice(-2)]), false)
    const n = flat.shape[2]
    const back = transpose(reshape(flat, [count, rows, m, n]), [1, 0, 2, 3])
    return reshape(back, [...p, m, n]) as Join<T, U>
  }
  // An operand that is one matrix under axes of extent 1 needs no copies.
  const bare = <V extends Operand>(x: V, lead: S.Shape, other: S.Shape): V =>
    S.size(lead) === 1 && lead.length <= other.length ? (reshape(x as Operand, x.shape.slice(-2)) as V) : x
  const [x, y] = [bare(a, p, q), bare(b, q, p)]
  if (x !== a || y !== b) return product(x, y, transA, transB)
  const lead = S.broadcast(p, q)
  // Where they do not agree, the op says so.
  const spread = <V extends Operand>(v: V): V =>
    E.isLeft(lead) ? v : broadcastTo(v, [...lead.right, ...v.shape.slice(-2)])
  return run(spread(a), spread(b)) as Join<T, U>
}

/**
 * Two stacks with the leading axes of their product, so that what is first stays first: bounds are taken per image, and an op that moves the axis of images has none.
 * An operand that is one matrix for a batch of several is that matrix, and is not copied.
 */
const aligned = (a: Operand, b: Operand): readonly [Operand, Operand] => {
  const leads = [leadOf(a.shape), leadOf(b.shape)]
  const lead = S.broadcast(leads[0], leads[1])
  if (leads.some((l) => l.length === 0) || S.equals(leads[0], leads[1]) || E.isLeft(lead)) return [a, b]
  const to = lead.right
  const spread = (x: Operand): Operand => {
    const [own, matrix] = [leadOf(x.shape), x.shape.slice(-2)]
    if (S.equals(own, to)) return x
    if (S.size(own) === 1 && to[0] > 1) return reshape(x, matrix)
    const ranked = own.length === to.length ? x : reshape(x, [...to.slice(own.length).map(() => 1), ...x.shape])
    return broadcastTo(ranked, [...to, ...matrix])
  }
  return [spread(a), spread(b)]
}

/** A matrix whose extents the compiler knows, so that it refuses products that do not fit. */
export type Matrix<M extends number, N extends number> = Tensor<readonly [M, N]>

/**
 * Matrix product `[..., m, k] [..., k, n] -> [..., m, n]`, leading axes broadcast as numpy has it; a vector `[k]` on the left is a row, on the
 * right a column, and its axis is left out of the result. Interval operands give the centre-radius enclosure; both may be intervals.
 * @throws shape where inner or leading extents do not agree
 *
 * @example
 *   matmul(constant([1, 2, 3, 4], [2, 2]), constant([1, 1], [2, 1])) // [3, 7]
 */
export function matmul<const M extends number, const K extends number, const N extends number>(
  a: Matrix<M, K>,
  b: Matrix<NoInfer<K>, N>,
): Matrix<M, N>
export function matmul<T extends Operand, U extends Operand>(
  a: number extends T['shape']['length'] ? T : never,
  b: U,
  options?: Partial<Matmul>,
): Join<T, U>
export function matmul<T extends Operand, U extends Operand>(a: T, b: U, options: Partial<Matmul>): Join<T, U>
export function matmul(a: Operand, b: Operand, options: Partial<Matmul> = {}): Operand {
  const [left, right] = [a.shape.length === 1, b.shape.length === 1]
  const [x, y] = aligned(left ? reshape(a, [1, a.shape[0]]) : a, right ? reshape(b, [b.shape[0], 1]) : b)
  const out = product(x, y, !left && (options.transA ?? false), !right && (options.transB ?? false))
  const kept = out.shape.filter(
    (_, i) => !(left && i === out.shape.length - 2) && !(right && i === out.shape.length - 1),
  )
  return reshape(out, kept)
}

/** Sum over all axes from `from` on: `[rows, n, ...d] -> [rows, n]`. */
export const sumTail = (x: Tensor, from = 2): Tensor => {
  const axes = [...x.shape.keys()].slice(from)
  return axes.length === 0 ? x : sum(x, axes)
}
/** Coefficients times values, `[rows, n, ...d]`, `[n, ...d]` -> `[rows, n]`. */
export const rowDot = (a: Tensor, c: Tensor, from = 2): Tensor => sumTail(mul(a, c), from)
/** The same with magnitudes of the coefficients: sum of |a| r. */
export const absRowDot = (a: Tensor, r: Tensor, from = 2): Tensor => sumTail(absMul(a, r), from)

/**
 * Sum over all axes from `from` on in two stages, inner axes first, and how many additions an element goes through at most: fewer than
 * in one sum of all, so that less must be allowed for their rounding.
 */
export const sumTailInStages = (x: Tensor, from: number): { readonly value: Tensor; readonly depth: number } => {
  const tail = x.shape.slice(from)
  const depthAt = (cut: number) => S.size(tail.slice(0, cut)) + S.size(tail.slice(cut))
  const cuts = tail.map((_, cut) => cut).slice(1)
  const cut = cuts.reduce((a, b) => (depthAt(b) < depthAt(a) ? b : a), cuts[0] ?? tail.length)
  return { value: sumTail(sumTail(x, from + cut), from), depth: cut === tail.length ? S.size(tail) : depthAt(cut) }
}
