import { order } from '../compile/tape.ts'
import { interval } from '../core/op.ts'
import { nextDouble } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Op, type Operand, type Tensor } from '../core/tensor.ts'
import { type ConstantAttrs, constantOp, input } from '../ops/index.ts'
import { evaluatedBy, inexact, type Pause } from './exact.ts'

/** Numbers between two doubles each; the same array twice where they are known exactly. */
export interface Enclosure {
  readonly lower: Float64Array
  readonly upper: Float64Array
}

// biome-ignore lint/suspicious/noExplicitAny: records of every attribute type
type AnyOp = Op<any>

const previousDouble = (x: number): number => -nextDouble(-x)
const isPoint = ({ lower, upper }: Enclosure): boolean => lower === upper
const point = (x: Float64Array): Enclosure => ({ lower: x, upper: x })
const checked = (x: Enclosure): Enclosure =>
  x.lower.every(Number.isFinite) && (isPoint(x) || x.upper.every(Number.isFinite))
    ? x
    : inexact('an enclosure in doubles is not finite')

/** Ends that were rounded once, stepped to the double on the safe side. */
const stepped = (lower: Float64Array, upper: Float64Array): Enclosure => ({
  lower: lower.map(previousDouble),
  upper: upper.map(nextDouble),
})

/** One run of the f64 kernel of an op. */
const run = (
  { op, shape, attrs }: Pick<Tensor, 'op' | 'shape' | 'attrs'>,
  operands: readonly Float64Array[],
  shapes: readonly S.Shape[],
): Float64Array => {
  const { kernel } = op as AnyOp
  if (!('reference' in kernel)) return inexact(`no enclosure of ${op.name} in doubles is known`)
  const out = new Float64Array(S.size(shape))
  kernel.reference(out, operands, shapes, shape, attrs)
  return out
}
const shapesOf = (x: Tensor): readonly S.Shape[] => x.inputs.map((i) => i.shape)

/** The operands of a node, known. */
const knownOf = <A>(x: Tensor, operands: readonly A[]): ReadonlyMap<Tensor, A> =>
  new Map(x.inputs.map((i, k) => [i, operands[k]]))

/** The values of graphs in doubles, each op rounding to nearest. */
const nearest = (outputs: readonly Tensor[], given: ReadonlyMap<Tensor, Float64Array>): readonly Float64Array[] => {
  const values = new Map(given)
  for (const x of order(outputs, [...given.keys()])) {
    if (values.has(x)) continue
    const operands = x.inputs.map((i) => values.get(i) as Float64Array)
    const { kernel } = x.op as AnyOp
    values.set(
      x,
      x.op === constantOp
        ? Float64Array.from((x.attrs as ConstantAttrs).data)
        : 'expand' in kernel
          ? nearest([kernel.expand(x.inputs, x.attrs)], knownOf(x, operands))[0]
          : run(x, operands, shapesOf(x)),
    )
  }
  return outputs.map((y) => values.get(y) as Float64Array)
}

/** The ends of the interval rule of an op, to nearest; of an op on points, its result. */
const ends = (x: Tensor, operands: readonly Enclosure[]): Enclosure => {
  const op = x.op as AnyOp
  if (operands.every(isPoint))
    return point(
      nearest(
        [x],
        knownOf(
          x,
          operands.map(({ lower }) => lower),
        ),
      )[0],
    )
  if (typeof op.interval !== 'function') return inexact(`no enclosure of ${op.name} in doubles is known`)
  const given = new Map<Tensor, Float64Array>()
  const leaf = (name: string, shape: S.Shape, value: Float64Array): Tensor => {
    const made = input(name, shape)
    given.set(made, value)
    return made
  }
  const xs = x.inputs.map(
    ({ shape }, k): Operand =>
      isPoint(operands[k])
        ? leaf(`x.${k}`, shape, operands[k].lower)
        : interval(leaf(`lower.${k}`, shape, operands[k].lower), leaf(`upper.${k}`, shape, operands[k].upper)),
  )
  const box: Interval | Tensor = op.interval(xs, x.attrs)
  const [lower, upper] = nearest(isInterval(box) ? [box.lower, box.upper] : [box, box], given)
  return { lower, upper }
}

// ---- sums and products -------------------------------------------------------------------------------------------------

/** A share that covers whatever roundings make of a radius: sums of at most 2^20 terms are off by 2^-32, and a radius goes through a few of them. And what covers underflows. */
const [SHARE, FAINT, MOST] = [1 + 2 ** -20, 2 ** -1000, 2 ** 20]

const magnitude = ({ lower, upper }: Enclosure): Float64Array =>
  lower.map((l, i) => Math.max(Math.abs(l), Math.abs(upper[i])))

/** v -+ (radius + n U size), n U size being what a sum of n terms whose magnitudes add up to `size` is off by: gamma_n <= 2 n U for n <= 2^20. */
const around = (v: Float64Array, n: number, size: Float64Array, radius?: Float64Array): Enclosure => {
  if (n > MOST) return inexact('a sum has too many terms for an enclosure in doubles')
  const reach = size.map((m, i) => ((radius?.[i] ?? 0) + n * 2 ** -52 * m) * SHARE + FAINT)
  return stepped(
    v.map((x, i) => x - reach[i]),
    v.map((x, i) => x + reach[i]),
  )
}

/** A sum of elements: it adds ends up. */
const summed = (x: Tensor, [a]: readonly Enclosure[]): Enclosure => {
  const shapes = shapesOf(x)
  const n = S.size(x.inputs[0].shape) / Math.max(1, S.size(x.shape))
  const size = run(x, [magnitude(a)], shapes)
  const lower = around(run(x, [a.lower], shapes), n, size).lower
  return { lower, upper: around(run(x, [a.upper], shapes), n, size).upper }
}

/** A centre, and a radius that covers the box whatever rounding made of the centre. */
const centred = (x: Enclosure): { readonly c: Float64Array; readonly r?: Float64Array } => {
  if (isPoint(x)) return { c: x.lower }
  const c = x.lower.map((l, i) => 0.5 * l + 0.5 * x.upper[i])
  return { c, r: c.map((v, i) => Math.max(0, nextDouble(x.upper[i] - v), nextDouble(v - x.lower[i]))) }
}
const sizes = (x: Float64Array): Float64Array => x.map(Math.abs)
const plus = (a: Float64Array, b: Float64Array | undefined): Float64Array =>
  b === undefined ? a : a.map((v, i) => v + b[i])

/**
 * Sums of n products of c +- r and C +- R: with |x - c| <= r and |y - C| <= R each term x y differs from c C by at most r (|C| + R) + |c| R, and the kernel's sum of the c C by n U sum |c||C|. All
 * of these are sums of products of what is not negative, by the same kernel.
 */
const multiplied = (x: Tensor, [a, b]: readonly Enclosure[], n: number): Enclosure => {
  const shapes = shapesOf(x)
  const apply = (p: Float64Array, q: Float64Array) => run(x, [p, q], shapes)
  const [{ c, r }, { c: d, r: s }] = [centred(a), centred(b)]
  const [one, two] = [r && apply(r, plus(sizes(d), s)), s && apply(sizes(c), s)]
  const radius = one === undefined ? two : plus(one, two)
  return around(apply(c, d), n + 2, apply(sizes(c), sizes(d)), radius)
}

/** Quotients: the ends are among those of the ends, each rounded once. */
const divided = (x: Tensor, [a, b]: readonly Enclosure[]): Enclosure => {
  if (b.lower.some((l, i) => !(l > 0 || b.upper[i] < 0))) return inexact('it divides by what may be 0')
  const all = [a.lower, a.upper].flatMap((p) => [b.lower, b.upper].map((q) => run(x, [p, q], shapesOf(x))))
  const end = (choose: (...of: number[]) => number) => all[0].map((_, i) => choose(...all.map((v) => v[i])))
  return stepped(end(Math.min), end(Math.max))
}

// ---- graphs ------------------------------------------------------------------------------------------------------------

const enclosedNode = (x: Tensor, operands: readonly Enclosure[], pause: Pause): Enclosure => {
  const op = x.op as AnyOp
  const rule = op.outward?.interval
  if (rule === 'exact') return ends(x, operands)
  // An expansion is a graph over the operands, which are known.
  if ('expand' in op.kernel) return enclosedGraph(op.kernel.expand(x.inputs, x.attrs), knownOf(x, operands), pause)
  if (op.exact === 'quotient') return divided(x, operands)
  if (rule === 'sum') return summed(x, operands)
  if (rule === 'product' && op.outward?.terms !== undefined)
    return multiplied(x, operands, op.outward.terms(shapesOf(x), x.attrs).result)
  if (rule === 'rounded' || op.exact === 'root') {
    const { lower, upper } = ends(x, operands)
    return stepped(lower, upper)
  }
  return inexact(`no enclosure of ${op.name} in doubles is known`)
}

const enclosedGraph = (output: Tensor, known: ReadonlyMap<Tensor, Enclosure>, pause: Pause): Enclosure =>
  evaluatedBy(
    output,
    known,
    pause,
    (data) => checked(point(Float64Array.from(data))),
    (x, operands) => checked(enclosedNode(x, operands, pause)),
  )

/**
 * Doubles between which each element of a graph lies in real arithmetic, for operands between doubles: intervals that round outward, products by centre and radius. Where exact arithmetic has
 * no numbers for a network (the root in a batch norm) or too long ones, these are 2^-29 times as wide as bounds in float32. `pause` is called between ops; it may throw.
 * @throws Inexact where an op has no rule here, or something is not finite.
 */
export const enclosedInDoubles = (
  output: Tensor,
  given: ReadonlyMap<Tensor, Enclosure>,
  pause: Pause = () => undefined,
): Enclosure => enclosedGraph(output, given, pause)
