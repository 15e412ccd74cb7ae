import { order } from '../compile/tape.ts'
import { describe, interval, node } from '../core/op.ts'
import { gamma, roundDown, roundUp, type Semantics } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import {
  addUp,
  constant,
  dataOf,
  divOp,
  enclose,
  errorOfSum,
  executionOf,
  greater,
  LARGE,
  magnitude,
  majorant,
  maximum,
  mulUp,
  notFaint,
  scalar,
  subDown,
  subUp,
  within,
  zeros,
} from '../ops/index.ts'
import { countsOf } from './anatomy.ts'
import type { Covering } from './rows.ts'

/**
 * What a value may be that was computed, and how kernels may share the work.
 *
 * *Points.* A node that depends on no box is a point, but only a leaf is known exactly: an input, a constant that float32 holds. What is computed
 * from leaves (sums and products of parameters, the factor of a batch norm) has an enclosure: of its real value and, for `deployed`, of every value that an
 * implementation may use in its place, each op rounded as its record says, or not at all (folded in higher precision). So has a constant that
 * float32 does not hold: it lies between its neighbours. Ops whose rule is `exact` lose nothing: a transposed weight is a point.
 *
 * *Executions.* Ops that are linear in each operand (`Op.linear`) make up *blocks*: a node belongs to the block of the op that uses it if that
 * is the only one, both are of this kind with at most one operand of each product boxed, and no product or sum is below another one. What is below a
 * block are its heads: values that are computed as such, once. Multiplied out, the top of a block is a sum of terms, each a product of a head with
 * constants or of constants alone. `deployed` covers every execution of the block that computes this sum:
 *
 * - terms are added in any order and nesting, products before or after sums, fused or not: a bias behind a product, a scale, a reshape,
 *   a padding may start the accumulation, or be added to any part of it, as may beta C of Gemm;
 * - a constant factor (alpha, the slope of a batch norm, the reciprocal of a divisor) is multiplied to the head, to the weights, to the sum, or split into
 *   its own factors, and so is folded a batch norm into the convolution before it, or computed as (x - mean) f + bias;
 * - a shift or a scale before a product is folded into its weights and bias.
 *
 * Not covered: products merged with products, and constants that are folded to subnormal or infinite numbers.
 *
 * Lemma. Let each term t of such an execution meet at most k_t roundings. Then it differs from the real value of the block, for the values that its heads and
 * constants have in this execution, by at most sum of gamma_{k_t} |t| <= 1.02 U sum of k_t |t|, and by what underflows (docs/method.md, section 6).
 * (`block_gamma` in proofs/Blocks.v; that partitions of a sum add no more roundings: `partitioned`, `additions`.)
 * By induction `termsOf` finds M >= sum of |t|, E >= sum of k_t |t|, a number m of terms and N >= every k_t. A term meets at most m - 1 additions in a sum of m
 * terms, whatever their order, and all of these are in its k_t:
 *
 * 1. A head or a constant leaf: M is the largest magnitude, E = 0, m = 1.
 * 2. a + b: M = M_a + M_b, m = m_a + m_b, E = E_a + m_b M_a + E_b + m_a M_b.
 * 3. a b: a factor's own roundings, one of the product, and (m_a - 1)(m_b - 1) additions if both are multiplied out: M = M_a M_b, m = m_a m_b,
 *    E = E_a M_b + M_a E_b + (1 + (m_a - 1)(m_b - 1)) M.
 * 4. a / b: b is computed as such. Its reciprocal may be rounded, or its factors divide one by one: two roundings, and those of b.
 * 5. A product over n terms, or a sum, which is a product with ones: as 3. with m = n m_a m_b and at most n m_a m_b roundings more, of which those of terms that
 *    are 0 in every execution need not be counted: adding 0 is exact, fused too.
 * 6. Rearrangements rearrange, repetition repeats, exactly.
 *
 * E is kept at FAINT or more behind each product, so that 1.02 U E is more than 2^40 times the loss of an underflow there, through whatever factors it goes on. Where
 * M <= 2^124 no sum overflows; elsewhere the error is NaN.
 */
interface Terms {
  /** M and E, which broadcast to the node: `[n or 1, ...x]`; E is absent where it is 0. */
  readonly size: Tensor
  readonly weighted: Tensor | undefined
  /** m. */
  readonly count: number
  /** N. */
  readonly roundings: number
}

/** Whether a node is a sum of terms of its operands: products of two boxed operands are values of their own. */
const expands = (x: Tensor, boxed: ReadonlySet<Tensor>): boolean => {
  switch (x.op.linear) {
    case undefined:
      return false
    case 'multiplies':
    case 'products':
      return x.inputs.filter((i) => boxed.has(i)).length < 2
    case 'divides':
      return !boxed.has(x.inputs[1])
    default:
      return true
  }
}

const sumsUp = ({ op }: Tensor): boolean => op.linear === 'sums' || op.linear === 'products'

/** Enclosures of points: the node itself where it is exact. */
const enclosures = (semantics: Semantics): ((x: Tensor) => Operand) => {
  const known = new Map<Tensor, Operand>()
  const make = (x: Tensor): Operand => {
    const rule = x.op.outward?.interval
    const data = dataOf(x)
    if (data !== undefined) return constantBetween(x, data)
    if (x.inputs.length === 0 || rule === 'directed') return x
    const operands = x.inputs.map((i) => known.get(i) as Operand)
    return rule === 'exact' && !operands.some(isInterval) ? x : enclose(x.op, operands, x.attrs, semantics, describe(x))
  }
  return (root) => {
    if (!known.has(root)) for (const x of order([root])) if (!known.has(x)) known.set(x, make(x))
    return known.get(root) as Operand
  }
}

/** Constants that were looked at: every bound of a network asks again. */
const heldByFloat32 = new WeakSet<Float64Array>()

/** A constant, or the float32 numbers round it. */
const constantBetween = (x: Tensor, data: Float64Array): Operand => {
  const { shape } = x
  if (!heldByFloat32.has(data)) {
    if (!data.every((v) => Math.fround(v) === v || Number.isNaN(v)))
      return interval(constant(data.map(roundDown), shape), constant(data.map(roundUp), shape))
    heldByFloat32.add(data)
  }
  return x
}

/** The box that an interval, whose ends a user may have computed, stands for: outward where they were rounded. */
export const outwardBox = (box: Interval, semantics: Semantics): Interval => {
  const point = enclosures(semantics)
  const [l, u] = [point(box.lower), point(box.upper)]
  return isInterval(l) || isInterval(u) ? interval(isInterval(l) ? l.lower : l, isInterval(u) ? u.upper : u) : box
}

/** Nodes that may be computed together with the one op that uses them. */
const partsOf = (
  nodes: readonly Tensor[],
  boxed: ReadonlySet<Tensor>,
  isHead: (x: Tensor) => boolean,
): ReadonlySet<Tensor> => {
  const users = new Map<Tensor, number>()
  for (const x of nodes) for (const i of x.inputs) users.set(i, (users.get(i) ?? 0) + 1)
  const parts = new Set<Tensor>()
  const summing = new Set<Tensor>()
  for (const x of nodes) {
    if (!boxed.has(x) || !expands(x, boxed)) continue
    for (const i of x.inputs)
      if (boxed.has(i) && !isHead(i) && users.get(i) === 1 && expands(i, boxed) && !(sumsUp(x) && summing.has(i)))
        parts.add(i)
    if (sumsUp(x) || x.inputs.some((i) => parts.has(i) && summing.has(i))) summing.add(x)
  }
  return parts
}

const more = (a: Tensor | undefined, b: Tensor | undefined): Tensor | undefined => (a && b ? addUp(a, b) : (a ?? b))
const times = (x: Tensor, n: number): Tensor => (n === 1 ? x : mulUp(x, n))
/** x, and NaN where sums of terms of that size could overflow. */
const sound = (size: Tensor, x = size): Tensor => within(size, LARGE, x)

/** A box, and by so much more on either side. */
export const widened = ({ lower, upper }: Interval, error: Tensor | undefined): Interval =>
  error === undefined ? interval(lower, upper) : interval(subDown(lower, error), addUp(upper, error))

/**
 * How many terms of each sum of a product of two operands of these sizes are not 0 in some execution, `[n, 1]` or `[n, 1, h, w]`; at most n. Of what z
 * is multiplied with, all are counted.
 */
const liveTerms = (x: Tensor, sizes: readonly Tensor[], n: number): Tensor =>
  x.op.outward?.live?.(
    greater(sizes[0], 0),
    sizes.map((s) => s.shape),
    x.attrs,
  ) ?? scalar(n)

/**
 * What covers the points and the executions of a graph.
 * @param isHead nodes whose box is given: they are values of their own
 * @param box a sound box of any node that depends on a box
 */
export const covering = (
  nodes: readonly Tensor[],
  boxed: ReadonlySet<Tensor>,
  isHead: (x: Tensor) => boolean,
  semantics: Semantics,
  box: (x: Tensor) => Interval,
): Covering => {
  const point = enclosures(semantics)
  const parts = semantics === 'deployed' ? partsOf(nodes, boxed, isHead) : new Set<Tensor>()
  const enclosed = (x: Tensor): Operand => (boxed.has(x) ? box(x) : point(x))
  const head = (x: Tensor): Terms => ({ size: magnitude(enclosed(x)), weighted: undefined, count: 1, roundings: 0 })

  const summing = new Map<Tensor, boolean>()
  const hasSum = (x: Tensor): boolean => {
    const found = summing.get(x) ?? (sumsUp(x) || (expands(x, boxed) && x.inputs.some(hasSum)))
    summing.set(x, found)
    return found
  }
  /** What operand i brings into x. Constants may be computed anew wherever they are used. */
  const operandOf = (x: Tensor, i: Tensor): Terms => {
    const joins = boxed.has(i) ? parts.has(i) : isInterval(point(i)) && expands(i, boxed) && !(sumsUp(x) && hasSum(i))
    return joins ? termsOf(i) : head(i)
  }
  const known = new Map<Tensor, Terms>()
  const termsOf = (x: Tensor): Terms => {
    const terms = known.get(x) ?? multipliedOut(x)
    known.set(x, terms)
    return terms
  }
  const multipliedOut = (x: Tensor): Terms => {
    const own = x.inputs.map((i) => operandOf(x, i))
    const [a, b] = own
    const sizes = own.map((t) => t.size)
    switch (x.op.linear) {
      case 'same':
        return a
      case 'reshapes':
      case 'moves':
      case 'repeats': {
        const moved = (ts: readonly Tensor[]) => node(x.op, ts, x.attrs)
        return {
          size: moved(sizes),
          weighted: own.some((t) => t.weighted) ? moved(own.map((t) => t.weighted ?? zeros(t.size.shape))) : undefined,
          count: Math.max(...own.map((t) => t.count)),
          roundings: Math.max(...own.map((t) => t.roundings)),
        }
      }
      case 'adds':
      case 'subtracts':
        return {
          size: addUp(a.size, b.size),
          weighted: more(more(a.weighted, times(a.size, b.count)), more(b.weighted, times(b.size, a.count))),
          count: a.count + b.count,
          roundings: Math.max(a.roundings + b.count, b.roundings + a.count),
        }
      case 'multiplies': {
        const size = mulUp(a.size, b.size)
        const [p, q] = [a.weighted && mulUp(a.weighted, b.size), b.weighted && mulUp(a.size, b.weighted)]
        const extra = 1 + (a.count - 1) * (b.count - 1)
        return {
          size,
          weighted: notFaint(more(more(p, q), times(sound(size), extra)) as Tensor),
          count: a.count * b.count,
          roundings: a.roundings + b.roundings + extra,
        }
      }
      case 'divides': {
        const reciprocal = magnitude(enclose(divOp, [scalar(1), enclosed(x.inputs[1])], undefined, 'real'))
        const size = mulUp(a.size, reciprocal)
        const extra = b.roundings + 2
        return {
          size,
          weighted: notFaint(more(a.weighted && mulUp(a.weighted, reciprocal), times(sound(size), extra)) as Tensor),
          count: a.count,
          roundings: a.roundings + extra,
        }
      }
      default: {
        const n = countsOf(x)?.result ?? S.size(x.inputs[0].shape) / Math.max(1, S.size(x.shape))
        const apply = (ts: readonly Tensor[]) => majorant(node(x.op, ts, x.attrs), n)
        const size = apply(sizes)
        const shares = own.map(
          (t, k) => t.weighted && apply(sizes.map((s, j) => (j === k ? (t.weighted as Tensor) : s))),
        )
        const each = own.reduce((m, t) => m * t.count, 1)
        const counted = mulUp(sound(size), mulUp(liveTerms(x, sizes, n), each))
        return {
          size,
          weighted: notFaint(shares.reduce<Tensor>((s, t) => more(s, t) as Tensor, counted)),
          count: n * each,
          roundings: own.reduce((k, t) => k + t.roundings, n * each),
        }
      }
    }
  }

  const error = (x: Tensor): Tensor | undefined => {
    if (semantics === 'real') return undefined
    // A product of two boxed operands is a value of its own, and a sum of terms.
    if (!expands(x, boxed) && !sumsUp(x))
      return x.op.outward?.interval === 'exact' ? undefined : executionOf(x.op, x.inputs.map(enclosed), box(x), x.attrs)
    const { size, weighted, roundings } = termsOf(x)
    // Refuses sums that are longer than gamma is good for.
    gamma(roundings)
    return weighted && errorOfSum(sound(size, weighted), 1)
  }

  return {
    semantics,
    box,
    point,
    off: (x) => {
      const e = point(x)
      return isInterval(e) ? maximum(subUp(e.upper, x), subUp(x, e.lower)) : undefined
    },
    isPart: (x) => parts.has(x),
    error,
    results: (x, operands) => {
      const before = enclose(x.op, operands, x.attrs, expands(x, boxed) ? 'real' : semantics, describe(x))
      return { exact: before, executed: expands(x, boxed) ? widened(before, error(x)) : before }
    },
  }
}
