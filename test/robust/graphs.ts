import { order } from '../../src/compile/tape.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { type Dyadic, exactly, minus, plus, sign, times, toFloat32 } from './dyadic.ts'

/**
 * Graphs in exact arithmetic, and float32 executions of them: blocks of linear ops multiplied out, or not, their terms added and their factors
 * multiplied in random orders, some steps fused.
 */

// ---- exact ---------------------------------------------------------------------------------------------------------------

/** A real number between two dyadic ones, equal but for quotients and roots. */
export interface Real {
  readonly low: Dyadic
  readonly high: Dyadic
}

const thin = (x: Dyadic): Real => ({ low: x, high: x })
export const real = (x: number): Real => thin(exactly(x))
const least = (xs: readonly Dyadic[]): Dyadic => xs.reduce((a, b) => (sign(plus(a, minus(b))) <= 0 ? a : b))
const most = (xs: readonly Dyadic[]): Dyadic => minus(least(xs.map(minus)))
const sum = (a: Real, b: Real): Real =>
  a.low === a.high && b.low === b.high
    ? thin(plus(a.low, b.low))
    : { low: plus(a.low, b.low), high: plus(a.high, b.high) }
const negative = (a: Real): Real => (a.low === a.high ? thin(minus(a.low)) : { low: minus(a.high), high: minus(a.low) })
const product = (a: Real, b: Real): Real => {
  if (a.low === a.high && b.low === b.high) return thin(times(a.low, b.low))
  const corners = [times(a.low, b.low), times(a.low, b.high), times(a.high, b.low), times(a.high, b.high)]
  return { low: least(corners), high: most(corners) }
}

const BITS = 300
/** Of two integers, downwards. */
const divide = (p: bigint, q: bigint): bigint => (p % q !== 0n && p < 0n !== q < 0n ? p / q - 1n : p / q)
const reciprocal = (b: Real): Real => {
  if (sign(b.low) !== sign(b.high) || sign(b.low) === 0) throw new RangeError('division by 0')
  const down = ({ m, e }: Dyadic): Dyadic => {
    const k = BITS + m.toString(2).length
    return { m: divide(1n << BigInt(k), m), e: -k - e }
  }
  return { low: down(b.high), high: minus(down(minus(b.low))) }
}
const root = (a: Real): Real => {
  const down = ({ m, e }: Dyadic, up: bigint): Dyadic => {
    if (m < 0n) throw new RangeError('root of a negative number')
    const odd = BigInt(e & 1)
    const scaled = (m << odd) << BigInt(2 * BITS)
    // Newton's iteration from above ends at the root, downwards.
    let r = 1n << BigInt((scaled.toString(2).length >> 1) + 1)
    for (let next = r; ; r = next) {
      next = (r + scaled / r) >> 1n
      if (next >= r) break
    }
    return { m: r + up, e: (e - Number(odd)) / 2 - BITS }
  }
  return { low: down(a.low, 0n), high: down(a.high, 1n) }
}

/** Where each element of a rearrangement comes from: operand and element, undefined for a 0. */
const sources = (x: Tensor): readonly (readonly [operand: number, element: number] | undefined)[] => {
  const kernel = x.op.kernel
  if (!('reference' in kernel) || 'rounds' in kernel) throw new Error(`${x.op.name} is no rearrangement`)
  const shapes = x.inputs.map((i) => i.shape)
  const starts = shapes.map((_, k) => shapes.slice(0, k).reduce((n, s) => n + S.size(s), 1))
  const ids = shapes.map((s, k) => Float64Array.from({ length: S.size(s) }, (_, i) => starts[k] + i))
  const out = new Float64Array(S.size(x.shape))
  kernel.reference(out, ids, shapes, x.shape, x.attrs)
  return Array.from(out, (id) => {
    if (id === 0) return undefined
    const k = starts.findLastIndex((s) => s <= id)
    return [k, id - starts[k]] as const
  })
}

/** The elements of both operands that meet in an elementwise op. */
const pairs = (x: Tensor): readonly (readonly [number, number])[] => {
  const own = S.strides(x.shape)
  const [a, b] = x.inputs.map((i) => S.broadcastStrides(i.shape, x.shape))
  const at = (strides: readonly number[], e: number) =>
    strides.reduce((o, s, d) => o + s * (Math.floor(e / own[d]) % x.shape[d]), 0)
  return Array.from({ length: S.size(x.shape) }, (_, e) => [at(a, e), at(b, e)] as const)
}

/** The pairs of elements whose products each element of a product or a sum adds up; a sum has no second element. */
const terms = (x: Tensor): readonly (readonly (readonly [number, number | undefined])[])[] => {
  const out: (readonly [number, number | undefined])[][] = Array.from({ length: S.size(x.shape) }, () => [])
  if (x.op === O.sumOp) {
    const { axes } = x.attrs as O.Axes
    const shape = x.inputs[0].shape
    const kept = S.strides(shape.map((d, i) => (axes.includes(i) ? 1 : d)))
    const strides = S.strides(shape)
    for (let i = 0; i < S.size(shape); i++)
      out[shape.reduce((o, d, a) => o + (axes.includes(a) ? 0 : (Math.floor(i / strides[a]) % d) * kept[a]), 0)].push([
        i,
        undefined,
      ])
    return out
  }
  const [a, b] = x.inputs.map((i) => i.shape)
  if (x.op === O.matmulOp) {
    const { transA, transB } = x.attrs as O.Matmul
    const [m, n] = x.shape.slice(-2)
    const k = transA ? a[a.length - 2] : a[a.length - 1]
    for (let s = 0; s < S.size(x.shape.slice(0, -2)); s++)
      for (let i = 0; i < m; i++)
        for (let j = 0; j < n; j++)
          for (let l = 0; l < k; l++)
            out[(s * m + i) * n + j].push([
              s * m * k + (transA ? l * m + i : i * k + l),
              s * k * n + (transB ? j * k + l : l * n + j),
            ])
    return out
  }
  const g = x.attrs as O.Conv
  const windows = sources(O.unfoldBy(x.inputs[0], g))
  const per = a[1] * S.size(g.w)
  const places = S.size(g.y)
  for (let n = 0; n < a[0]; n++)
    for (let o = 0; o < b[0]; o++)
      for (let p = 0; p < places; p++)
        for (let t = 0; t < per; t++) {
          const from = windows[(n * places + p) * per + t]
          if (from !== undefined) out[(n * b[0] + o) * places + p].push([from[1], o * per + t])
        }
  return out
}

const isElementwise = (x: Tensor) => ['adds', 'subtracts', 'multiplies', 'divides'].includes(x.op.linear ?? '')
const layouts = new WeakMap<Tensor, unknown>()
const once = <A>(x: Tensor, f: (x: Tensor) => A): A => {
  const known = layouts.get(x) ?? f(x)
  layouts.set(x, known)
  return known as A
}
const layoutOf = {
  moves: (x: Tensor) => once(x, sources),
  pairs: (x: Tensor) => once(x, pairs),
  terms: (x: Tensor) => once(x, terms),
}

/** Real values of all nodes, given those of the inputs. */
export const exactGraph = (outputs: readonly Tensor[], given: ReadonlyMap<Tensor, ArrayLike<number>>) => {
  const known = new Map<Tensor, readonly Real[]>()
  const evaluate = (x: Tensor): readonly Real[] => {
    const from = given.get(x)
    if (from !== undefined) return Array.from(from, real)
    if (x.op === O.constantOp) return Array.from((x.attrs as O.ConstantAttrs).data, real)
    const xs = x.inputs.map((i) => known.get(i) as readonly Real[])
    if (isElementwise(x))
      return layoutOf.pairs(x).map(([i, j]) => {
        const [p, q] = [xs[0][i], xs[1][j]]
        switch (x.op.linear) {
          case 'adds':
            return sum(p, q)
          case 'subtracts':
            return sum(p, negative(q))
          default:
            return product(p, x.op.linear === 'multiplies' ? q : reciprocal(q))
        }
      })
    switch (x.op.linear) {
      case 'same':
        return x.op === O.negOp ? xs[0].map(negative) : xs[0]
      case 'reshapes':
      case 'moves':
      case 'repeats':
        return layoutOf.moves(x).map((at) => (at === undefined ? real(0) : xs[at[0]][at[1]]))
      case 'sums':
      case 'products':
        return layoutOf
          .terms(x)
          .map((ts) =>
            ts.map(([i, j]) => (j === undefined ? xs[0][i] : product(xs[0][i], xs[1][j]))).reduce(sum, real(0)),
          )
    }
    const positive = (v: Real) => ({ low: most([v.low, exactly(0)]), high: most([v.high, exactly(0)]) })
    if (x.op === O.reluOp) return xs[0].map(positive)
    if (x.op === O.absOp) return xs[0].map((v) => sum(positive(v), positive(negative(v))))
    if (x.op === O.sqrtOp) return xs[0].map(root)
    if (x.op === O.leakyReluOp) {
      const slope = real((x.attrs as { readonly slope: number }).slope)
      return xs[0].map((v) => sum(positive(v), negative(product(slope, positive(negative(v))))))
    }
    throw new Error(`no exact ${x.op.name}`)
  }
  for (const x of order(outputs)) known.set(x, evaluate(x))
  return known
}

// ---- executions ------------------------------------------------------------------------------------------------------------

/** A number, or terms that are still to be added up, each by its factors. */
type Open = number | readonly (readonly number[])[]
const f = Math.fround

/** One float32 execution, all nodes; `boxed` are those that depend on the box. */
export const float32Graph = (
  outputs: readonly Tensor[],
  given: ReadonlyMap<Tensor, ArrayLike<number>>,
  boxed: ReadonlySet<Tensor>,
  next: () => number,
): readonly (readonly number[])[] => {
  const nodes = order(outputs)
  const uses = new Map<Tensor, number>()
  for (const x of nodes) for (const i of x.inputs) uses.set(i, (uses.get(i) ?? 0) + 1)
  const pick = (n: number) => Math.floor(next() * n)
  /** How open an execution keeps its blocks, and how it adds. */
  const [folds, fuses, chains] = [next(), next() < 0.5 ? 0.7 : 0, next() < 0.5]

  /** Factors multiplied in random order until so many are left. */
  const reduced = (factors: readonly number[], to: number): readonly number[] => {
    const open = [...factors]
    while (open.length > to) {
      const [a] = open.splice(pick(open.length), 1)
      const [b] = open.splice(pick(open.length), 1)
      open.push(f(a * b))
    }
    return open
  }
  const settled = (v: Open): number => {
    if (typeof v === 'number') return v
    if (v.length === 0) return 0
    const open: (number | readonly number[])[] = v.map((t) => reduced(t, 2))
    const rounded = (t: number | readonly number[]) => (typeof t === 'number' ? t : reduced(t, 1)[0])
    if (chains && next() < 0.5) open.sort((a, b) => Math.abs(rounded(b)) - Math.abs(rounded(a)))
    while (open.length > 1) {
      const [a] = chains ? open.splice(1, 1) : open.splice(pick(open.length), 1)
      const [b] = chains ? open.splice(0, 1) : open.splice(pick(open.length), 1)
      const c = rounded(b)
      const fused = typeof a !== 'number' && a.length === 2 && next() < fuses
      const sum =
        fused && [...a, c].every(Number.isFinite)
          ? toFloat32(plus(times(exactly(a[0]), exactly(a[1])), exactly(c)))
          : f(rounded(a) + c)
      open.unshift(sum)
    }
    return rounded(open[0])
  }
  const termsOf = (v: Open): readonly (readonly number[])[] => (typeof v === 'number' ? [[v]] : v)
  const crossed = (a: Open, b: Open): Open => termsOf(a).flatMap((p) => termsOf(b).map((q) => [...p, ...q]))
  const negated = (v: Open): Open => (typeof v === 'number' ? -v : v.map(([a, ...rest]) => [-a, ...rest]))

  const sums = new Map<Tensor, boolean>()
  const isSum = (x: Tensor) => ['sums', 'products'].includes(x.op.linear ?? '')
  const known = new Map<Tensor, readonly Open[]>()
  const operand = (x: Tensor, i: Tensor): readonly Open[] => {
    const v = known.get(i) as readonly Open[]
    const single = !boxed.has(i) || uses.get(i) === 1
    const open = single && !(isSum(x) && sums.get(i)) && next() < folds
    return open && v.every((t) => typeof t === 'number' || t.length <= 100) ? v : v.map(settled)
  }
  for (const x of nodes) {
    sums.set(x, isSum(x) || (x.op.linear !== undefined && x.inputs.some((i) => sums.get(i))))
    const from = given.get(x)
    const leaf = x.op === O.constantOp ? (x.attrs as O.ConstantAttrs).data : from
    if (leaf !== undefined) {
      known.set(x, Array.from(leaf, f))
      continue
    }
    const kind = x.op.linear
    const both = x.inputs.filter((i) => boxed.has(i)).length > 1
    const closed = kind === undefined || ((kind === 'multiplies' || kind === 'products') && both)
    const xs = x.inputs.map((i) => (closed ? (known.get(i) as readonly Open[]).map(settled) : operand(x, i)))
    let value: readonly Open[]
    switch (kind) {
      case 'adds':
      case 'subtracts':
        value = layoutOf
          .pairs(x)
          .map(([i, j]) => [...termsOf(xs[0][i]), ...termsOf(kind === 'subtracts' ? negated(xs[1][j]) : xs[1][j])])
        break
      case 'multiplies':
        value = layoutOf.pairs(x).map(([i, j]) => crossed(xs[0][i], xs[1][j]))
        break
      case 'divides': {
        const inverts = next() < 0.5
        value = layoutOf.pairs(x).map(([i, j]) => {
          const d = settled(xs[1][j])
          return inverts ? crossed(xs[0][i], f(1 / d)) : f(settled(xs[0][i]) / d)
        })
        break
      }
      case 'sums':
      case 'products':
        value = layoutOf
          .terms(x)
          .map((ts) => ts.flatMap(([i, j]) => termsOf(j === undefined ? xs[0][i] : crossed(xs[0][i], xs[1][j]))))
        break
      case 'reshapes':
      case 'moves':
      case 'repeats':
        value = layoutOf.moves(x).map((at) => (at === undefined ? 0 : xs[at[0]][at[1]]))
        break
      case 'same':
        value = x.op === O.negOp ? xs[0].map(negated) : xs[0]
        break
      default:
        value = (xs[0] as readonly number[]).map((v) => {
          if (x.op === O.reluOp) return Math.max(v, 0)
          if (x.op === O.absOp) return Math.abs(v)
          if (x.op === O.sqrtOp) return f(Math.sqrt(v))
          if (x.op === O.leakyReluOp) return v > 0 ? v : f((x.attrs as { readonly slope: number }).slope * v)
          throw new Error(`no execution of ${x.op.name}`)
        })
    }
    // What several ops use is computed once.
    known.set(x, boxed.has(x) && (uses.get(x) ?? 0) !== 1 ? value.map(settled) : value)
  }
  return outputs.map((x) => (known.get(x) as readonly Open[]).map(settled))
}
