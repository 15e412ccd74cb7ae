import { order } from '../compile/tape.ts'
import { exactly, gcd, type Rational } from '../core/rational.ts'
import * as S from '../core/shape.ts'
import type { Op, Tensor } from '../core/tensor.ts'
import { type ConstantAttrs, constantOp, mulOp } from '../ops/index.ts'

/** A tensor of rational numbers: numerators over one denominator > 0. */
export interface ExactTensor {
  readonly numerators: readonly bigint[]
  readonly denominator: bigint
  /** Elements that are infinite, with their signs; their numerators are 0. They may be compared, and nothing else. */
  readonly infinite?: ReadonlyMap<number, number>
}

/** What stops an exact evaluation. */
export class Inexact {
  constructor(readonly reason: string) {}
}
/** @throws Inexact, with the reason */
export const inexact = (reason: string): never => {
  throw new Inexact(reason)
}

/** Bits beyond which numbers are not followed. */
const MAX_BITS = 1 << 17

const lcm = (a: bigint, b: bigint): bigint => (a === b ? a : (a / gcd(a, b)) * b)

/** Rational numbers over their common denominator. */
export const exactTensor = (values: readonly Rational[]): ExactTensor => {
  const denominator = values.reduce((d, v) => (d % v.denominator === 0n ? d : lcm(d, v.denominator)), 1n)
  return { numerators: values.map((v) => v.numerator * (denominator / v.denominator)), denominator }
}

/** Doubles over a common power of two. */
export const exactDoubles = (values: ArrayLike<number>): ExactTensor => {
  const infinite = new Map<number, number>()
  const parts = Array.from(values, (v, i) => {
    if (Number.isNaN(v)) return inexact('it computes with NaN')
    if (Number.isFinite(v)) return exactly(v)
    infinite.set(i, Math.sign(v))
    return exactly(0)
  })
  const least = parts.reduce((e, [m, own]) => (m === 0n ? e : Math.min(e, own + trailing(m))), 0)
  return {
    numerators: parts.map(([m, e]) => (m === 0n ? 0n : e >= least ? m << BigInt(e - least) : m >> BigInt(least - e))),
    denominator: 1n << BigInt(-least),
    ...(infinite.size === 0 ? {} : { infinite }),
  }
}
const finite = (x: ExactTensor): ExactTensor => (x.infinite === undefined ? x : inexact('it computes with infinity'))
/** How many times 2 divides a mantissa that is not 0. */
const trailing = (m: bigint): number => {
  let n = 0
  for (let rest = m; (rest & 0xffn) === 0n; rest >>= 8n) n += 8
  for (let rest = m >> BigInt(n); (rest & 1n) === 0n; rest >>= 1n) n++
  return n
}

// ---- integers through kernels of doubles -------------------------------------------------------------------------------

/**
 * Signed digits of whole numbers in base 2^width, width a multiple of 4: planes of doubles, the least first. A plane of zeros is undefined.
 */
const planesOf = (values: readonly bigint[], width: number): readonly (Float64Array | undefined)[] => {
  const step = width / 4
  const planes: (Float64Array | undefined)[] = []
  values.forEach((v, i) => {
    if (v === 0n) return
    const text = v.toString(16)
    const start = v < 0n ? 1 : 0
    for (let end = text.length, k = 0; end > start; end -= step, k++) {
      const digit = Number.parseInt(text.slice(Math.max(start, end - step), end), 16)
      if (digit === 0) continue
      while (planes.length <= k) planes.push(undefined)
      planes[k] ??= new Float64Array(values.length)
      ;(planes[k] as Float64Array)[i] = start === 1 ? -digit : digit
    }
  })
  return planes
}

// biome-ignore lint/suspicious/noExplicitAny: records of every attribute type
type AnyOp = Op<any>

/** One run of the f64 kernel of a node. */
const kernelOf = ({ op, inputs, shape, attrs }: Pick<Tensor, 'op' | 'inputs' | 'shape' | 'attrs'>) => {
  const { kernel } = op as AnyOp
  if (!('reference' in kernel)) return inexact(`exact arithmetic of ${op.name} is not known`)
  const shapes = inputs.map((x) => x.shape)
  return (operands: readonly Float64Array[]): Float64Array => {
    const out = new Float64Array(S.size(shape))
    kernel.reference(out, operands, shapes, shape, attrs)
    return out
  }
}

/** Adds plane 2^shift to whole numbers. */
const accumulate = (total: bigint[], plane: Float64Array, shift: number): void => {
  const by = BigInt(shift)
  for (let i = 0; i < plane.length; i++) {
    const v = plane[i]
    if (v === 0) continue
    if (!Number.isSafeInteger(v)) inexact('a kernel is not exact on whole numbers')
    total[i] += BigInt(v) << by
  }
}

/** Over one denominator. */
const aligned = (xs: readonly ExactTensor[]): readonly ExactTensor[] => {
  const denominator = xs.reduce((d, x) => lcm(d, x.denominator), 1n)
  return xs.map((x) => {
    const factor = denominator / x.denominator
    return factor === 1n ? x : { ...x, numerators: x.numerators.map((v) => v * factor), denominator }
  })
}

/** Called between parts of a long computation; it may throw. */
export type Pause = () => void

/**
 * A linear op: on digits below 2^width its kernel adds up whole numbers that stay below 2^53, so it is exact, in whatever order.
 */
const linear = (x: Tensor, operands: readonly ExactTensor[], pause: Pause): ExactTensor => {
  const run = kernelOf(x)
  const xs = aligned(operands.map(finite))
  const terms = xs.reduce((n, { numerators }) => n + numerators.length, 1)
  const width = 4 * Math.floor((52 - Math.ceil(Math.log2(terms + 1))) / 4)
  const planes = xs.map(({ numerators }) => planesOf(numerators, width))
  const total = new Array<bigint>(S.size(x.shape)).fill(0n)
  const zeros = xs.map(({ numerators }) => new Float64Array(numerators.length))
  for (let k = 0; k < Math.max(...planes.map((p) => p.length)); k++) {
    if (planes.every((p) => p[k] === undefined)) continue
    pause()
    accumulate(total, run(planes.map((p, i) => p[k] ?? zeros[i])), k * width)
  }
  return { numerators: total, denominator: xs[0].denominator }
}

/** A bilinear op of `terms` products each: digits of both operands below 2^width, so that sums of their products stay below 2^53. */
const bilinear = (
  x: Pick<Tensor, 'op' | 'inputs' | 'shape' | 'attrs'>,
  [a, b]: readonly ExactTensor[],
  terms: number,
  pause: Pause,
): ExactTensor => {
  const run = kernelOf(x)
  const width = 4 * Math.floor((52 - Math.ceil(Math.log2(terms + 1))) / 8)
  const [left, right] = [planesOf(finite(a).numerators, width), planesOf(finite(b).numerators, width)]
  const total = new Array<bigint>(S.size(x.shape)).fill(0n)
  left.forEach((p, i) => {
    right.forEach((q, j) => {
      if (p === undefined || q === undefined) return
      pause()
      accumulate(total, run([p, q]), (i + j) * width)
    })
  })
  return { numerators: total, denominator: a.denominator * b.denominator }
}

/**
 * An op that only looks at order and signs: it runs on the ranks of the elements, by an odd increasing function into small whole numbers.
 */
const ranked = (x: Tensor, operands: readonly ExactTensor[], decides: boolean): ExactTensor => {
  const run = kernelOf(x)
  const xs = aligned(operands)
  const size = (v: bigint) => (v < 0n ? -v : v)
  const sizes = new Set<bigint>()
  for (const { numerators } of xs) for (const v of numerators) if (v !== 0n) sizes.add(size(v))
  const sorted = [0n, ...[...sizes].sort((p, q) => (p < q ? -1 : 1))]
  const rank = new Map(sorted.map((v, i) => [v, i]))
  const top = sorted.length
  const result = run(
    xs.map(({ numerators, infinite }) =>
      Float64Array.from(numerators, (v, i) => {
        const end = infinite?.get(i)
        return end === undefined ? (v < 0n ? -1 : 1) * (rank.get(size(v)) as number) + 0 : end * top
      }),
    ),
  )
  if (decides) return { numerators: Array.from(result, BigInt), denominator: 1n }
  const infinite = new Map<number, number>()
  result.forEach((r, i) => {
    if (Math.abs(r) === top) infinite.set(i, Math.sign(r))
  })
  return {
    numerators: Array.from(result, (r) => (Math.abs(r) === top ? 0n : r < 0 ? -sorted[-r] : sorted[r])),
    denominator: xs[0].denominator,
    ...(infinite.size === 0 ? {} : { infinite }),
  }
}

/** 1 / b: over the least common multiple of the numerators. */
const inverse = (x: ExactTensor): ExactTensor => {
  const { numerators, denominator } = finite(x)
  if (numerators.includes(0n)) return inexact('it divides by 0')
  const common = [...new Set(numerators.map((v) => (v < 0n ? -v : v)))].reduce((d, v) => {
    const next = lcm(d, v)
    return next >> BigInt(MAX_BITS) === 0n ? next : inexact('its quotients have no common denominator of bearable size')
  }, 1n)
  return { numerators: numerators.map((v) => denominator * (common / v)), denominator: common }
}

/** Lowest terms: powers of two that all numerators share go. */
const reduced = (x: ExactTensor): ExactTensor => {
  const { numerators, denominator } = x
  if (denominator === 1n) return x
  // The lowest bit that is set anywhere.
  const together = numerators.reduce((m, v) => m | v, denominator)
  const shift = BigInt(trailing(together))
  return shift === 0n ? x : { ...x, numerators: numerators.map((v) => v >> shift), denominator: denominator >> shift }
}

const evaluateNode = (x: Tensor, operands: readonly ExactTensor[], pause: Pause): ExactTensor => {
  const op = x.op as AnyOp
  if ('expand' in op.kernel) {
    // An expansion is a graph over the operands, which are known.
    const known = new Map(x.inputs.map((i, k) => [i, operands[k]]))
    return evaluateGraph(op.kernel.expand(x.inputs, x.attrs), known, pause)
  }
  if (op.exact === 'elements' || op.exact === 'decisions') return ranked(x, operands, op.exact === 'decisions')
  if (op.exact === 'quotient')
    return bilinear({ ...x, op: mulOp as AnyOp }, [operands[0], inverse(operands[1])], 1, pause)
  const rule = op.outward?.interval
  if (op.relax === 'linear' && (rule === 'exact' || rule === 'sum' || rule === 'rounded'))
    return linear(x, operands, pause)
  if (typeof op.relax === 'object' && 'bilinear' in op.relax) {
    const shapes = x.inputs.map((i) => i.shape)
    if (rule === 'rounded') return bilinear(x, operands, 1, pause)
    if (rule === 'product' && op.outward?.terms !== undefined)
      return bilinear(x, operands, op.outward.terms(shapes, x.attrs).result, pause)
  }
  return inexact(`exact arithmetic of ${op.name} is not known`)
}

/**
 * The value of a graph in some arithmetic, node by node from what is known; values go when nothing needs them any more. `pause` is called before each node; it may throw.
 * @throws Inexact for a leaf that is neither known nor a constant
 */
export const evaluatedBy = <A>(
  output: Tensor,
  known: ReadonlyMap<Tensor, A>,
  pause: Pause,
  constant: (data: ConstantAttrs['data']) => A,
  node: (x: Tensor, operands: readonly A[]) => A,
): A => {
  const values = new Map(known)
  const nodes = order([output], [...known.keys()])
  const lastUse = new Map<Tensor, number>()
  nodes.forEach((x, t) => {
    for (const i of x.inputs) lastUse.set(i, t)
  })
  const made = (x: Tensor): A => {
    if (x.op === constantOp) return constant((x.attrs as ConstantAttrs).data)
    if (x.inputs.length === 0) return inexact(`the value of ${x.op.name} is not known`)
    return node(
      x,
      x.inputs.map((i) => values.get(i) as A),
    )
  }
  nodes.forEach((x, t) => {
    if (!values.has(x)) {
      pause()
      values.set(x, made(x))
    }
    for (const i of x.inputs) if (lastUse.get(i) === t) values.delete(i)
  })
  return values.get(output) as A
}

const evaluateGraph = (output: Tensor, known: ReadonlyMap<Tensor, ExactTensor>, pause: Pause): ExactTensor =>
  evaluatedBy(output, known, pause, exactDoubles, (x, operands) => reduced(evaluateNode(x, operands, pause)))

/**
 * The value of a graph in exact rational arithmetic, for ops that keep rational numbers rational: sums, products, quotients, and what chooses by order, which makes
 * piecewise linear networks. Nothing is approximated: numbers are cut into digits that the f64 kernels of the ops add and multiply without rounding. `pause` is called between runs of kernels; it may throw.
 * @throws Inexact where an op has no exact arithmetic (exp, sqrt) or a number is not finite.
 */
export const evaluateExactly = (
  output: Tensor,
  given: ReadonlyMap<Tensor, ExactTensor>,
  pause: () => void = () => undefined,
): ExactTensor => finite(evaluateGraph(output, given, pause))

/** Multiplications that one pass over digits of a graph takes, about. */
export const multiplicationsOf = (output: Tensor): number =>
  order([output]).reduce((n, x) => {
    const op = x.op as AnyOp
    const terms =
      op.outward?.interval === 'product' && op.outward.terms !== undefined
        ? op.outward.terms(
            x.inputs.map((i) => i.shape),
            x.attrs,
          ).result
        : 1
    return n + terms * S.size(x.shape)
  }, 0)
