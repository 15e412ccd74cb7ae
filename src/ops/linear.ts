import * as E from 'fp-ts/lib/Either.js'
import { Opcode } from '../core/lowering.ts'
import { apply, node, type Op, unsupported } from '../core/op.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Join, type Operand, type Tensor } from '../core/tensor.ts'
import { abs, absMul, add, centre, centreRadius, mul, radius } from './elementwise.ts'
import { reshape, sum, transpose, transposeLast } from './shape.ts'

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

/**
 * Matrix product of two matrices or of two stacks of as many: `[m, k] [k, n] -> [m, n]`, `[b, m, k] [b, k, n] -> [b, m, n]`;
 * `transA` reads a as `[k, m]`, `transB` reads b as `[n, k]`.
 */
export const matmulOp: Op<Matmul> = {
  name: 'matmul',
  shape: ([a, b], { transA, transB }) => {
    if (a.length !== b.length || (a.length !== 2 && a.length !== 3))
      return E.left('takes two matrices or two stacks of matrices')
    if (a.length === 3 && a[0] !== b[0]) return E.left(`batch extents ${a[0]} and ${b[0]} differ`)
    const [m, k] = dims(a, transA)
    const [l, n] = dims(b, transB)
    return k === l ? E.right([...a.slice(0, -2), m, n]) : E.left(`inner dimensions ${k} and ${l} differ`)
  },
  vjp: (ct, [a, b], _, { transA, transB }) => {
    const da = () => (transA ? transposeLast(product(ct, b, false, !transB)) : product(ct, b, false, !transB))
    const db = () => (transB ? transposeLast(product(a, ct, !transA, false)) : product(a, ct, !transA, false))
    // With row axes in front (a bound walk), only the boxed left operand is asked for; product() carries them.
    if (ct.shape.length > a.shape.length) return [da(), undefined]
    return [transA ? product(b, ct, transB, true) : da(), transB ? product(ct, a, true, transA) : db()]
  },
  interval: ([a, b], attrs) => bilinearInterval((x, y) => node(matmulOp, [x, y], attrs))(a, b),
  relax: { bilinear: unsupported('both operands are intervals, and their product has no linear bounds here') },
  outward: {
    interval: 'product',
    terms: ([a, b], { transA, transB }) => ({ result: dims(a, transA)[1], adjoint: dims(b, transB)[1] }),
  },
  kernel: {
    reference: (out, [a, b], [sa, sb], _, { transA, transB }) => {
      const batch = sa.length === 3 ? sa[0] : 1
      const [m, k] = dims(sa, transA)
      const n = dims(sb, transB)[1]
      // Rows of a and columns of b side by side in memory, so that each element is one dot product of neighbours.
      const rows = new Float64Array(m * k)
      const columns = new Float64Array(k * n)
      for (let s = 0; s < batch; s++) {
        for (let i = 0; i < m; i++)
          for (let l = 0; l < k; l++) rows[i * k + l] = a[s * m * k + (transA ? l * m + i : i * k + l)]
        for (let j = 0; j < n; j++)
          for (let l = 0; l < k; l++) columns[j * k + l] = b[s * k * n + (transB ? j * k + l : l * n + j)]
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
    lower: ([a, b], _, { transA, transB }) => {
      const batch = a.length === 3 ? a[0] : 1
      const [m, k] = dims(a, transA)
      const n = dims(b, transB)[1]
      return {
        kind: 'kernel',
        opcode: Opcode.matmul,
        ints: [m, k, n, Number(transA), Number(transB), batch, m * k, k * n, m * n],
        work: batch * m * k * n,
      }
    },
  },
}

/** matmulOp with leading axes of `a` folded into its rows, or (for stacks) carried past the batch axis. */
const product = <T extends Operand, U extends Operand>(a: T, b: U, transA: boolean, transB: boolean): Join<T, U> => {
  const [ra, rb] = [a.shape.length, b.shape.length]
  const run = (x: Operand, y: Operand, t = transA) => apply(matmulOp, [x, y], { transA: t, transB }) as Join<T, U>
  if (rb === 2 && ra > 2 && !transA) {
    const lead = a.shape.slice(0, -1)
    const flat = run(reshape(a as Operand, [S.size(lead), a.shape[ra - 1]]), b)
    return reshape(flat, [...lead, flat.shape[1]])
  }
  if (rb === 2 && ra > 2) return product(transposeLast(a), b, false, transB)
  if (rb === 3 && ra > 3) {
    // [...lead, b, m, k] -> [b, lead * m, k]: the batch axis must come first
    const x = transA ? transposeLast(a) : a
    const lead = x.shape.slice(0, -3)
    const [batch, m, k] = x.shape.slice(-3)
    const flat = run(
      reshape(transpose(reshape(x as Operand, [S.size(lead), batch, m, k]), [1, 0, 2, 3]), [
        batch,
        S.size(lead) * m,
        k,
      ]),
      b,
      false,
    )
    const n = flat.shape[2]
    const back = transpose(reshape(flat as Operand, [batch, S.size(lead), m, n]), [1, 0, 2, 3])
    return reshape(back, [...lead, batch, m, n]) as Join<T, U>
  }
  return run(a, b)
}

type Matrix<M extends number, N extends number> = Tensor<readonly [M, N]>

/**
 * Matrix product, `[..., m, k] [k, n] -> [..., m, n]` (leading axes of `a` are rows) or `[b, m, k] [b, k, n] -> [b, m, n]`.
 * Interval operands give the centre-radius enclosure; both may be intervals.
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
  return product(a, b, options.transA ?? false, options.transB ?? false)
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
