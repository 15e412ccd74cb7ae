import { isNonlinear } from '../../src/bounds/anatomy.ts'
import { type ForwardMethod, forwardBounds } from '../../src/bounds/forward-bounds.ts'
import { linearBounds, type Method } from '../../src/bounds/linear-bounds.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { type Affine, apply, node, type Reduction, type Relax, type Slope } from '../../src/core/op.ts'
import type { Rounding } from '../../src/core/rounding.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../../src/core/tensor.ts'
import { abs, absOp, add, centre, full, input, mul, neg, radius, sub, sum } from '../../src/ops/index.ts'
import { unbroadcast } from '../../src/ops/shape.ts'
import type { Entry, Example } from './examples.ts'

/** What the house says of one call of an op below and above it, in one form whatever its record has. */

/** A call of which some operands are boxes: the boxes, points of them, and the op at the points. */
export interface Call {
  readonly entry: Entry
  readonly example: Example
  /** Numbers of the operands that are boxes. */
  readonly set: readonly number[]
  readonly operands: readonly Operand[]
  readonly points: readonly Tensor[]
  readonly value: Tensor
}

/** An affine function of the boxed operands, the others held fixed. */
export interface AffineMap {
  /** What it is at the points, in the shape of the result, and the sum of the magnitudes that this is a sum of. */
  readonly value: Tensor
  readonly size: Tensor
  /** Coefficients `[...rows, ...result]` carried to each boxed operand, `[...rows, ...operand]`; undefined where the record has no rule for it. */
  readonly adjoint: (a: Tensor) => readonly (Tensor | undefined)[]
  /** Its value where the boxed operands are 0. */
  readonly offset: Tensor
}

/** below <= f <= above on the boxes; one map where f is affine itself. */
export interface Sandwich {
  readonly below: AffineMap
  readonly above: AffineMap
}

const total = (out: Tensor, parts: readonly Tensor[]): Tensor =>
  parts.reduce<Tensor>((a, b) => add(a, b) as Tensor, full(out.shape, 0))

const summed = (out: Tensor, parts: readonly Tensor[], of: Omit<AffineMap, 'value' | 'size'>): AffineMap => ({
  ...of,
  value: total(out, parts),
  size: total(
    out,
    parts.map((x) => abs(x) as Tensor),
  ),
})

/** The op itself, which is affine in the operands that are boxes; its adjoint is its vjp. */
const itself = ({ entry: { op }, example: { attrs }, set, points, value }: Call): Sandwich => {
  const zeros = points.map((x, k) => (set.includes(k) ? full(x.shape, 0) : x))
  const map: AffineMap = {
    value,
    size: abs(value) as Tensor,
    adjoint: (a) => {
      const all = op.vjp(a, points, value, attrs)
      return set.map((k) => all[k])
    },
    // The walk leaves the offset out where every operand is a box: there it is 0.
    offset: set.length === points.length ? full(value.shape, 0) : node(op, zeros, attrs),
  }
  return { below: map, above: map }
}

/** A product of two boxes at their centres c, with radii r: c_a b + a c_b - c_a c_b -+ r_a r_b. */
const centred = ({ entry: { op }, example: { attrs }, operands, points, value }: Call): Sandwich => {
  const product = (a: Tensor, b: Tensor) => node(op, [a, b], attrs)
  const [[a, b], c, r] = [points, operands.map(centre), operands.map(radius)]
  const [middle, reach] = [neg(product(c[0], c[1])) as Tensor, product(r[0], r[1])]
  const at = (offset: Tensor): AffineMap =>
    summed(value, [product(a, c[1]), product(c[0], b), offset], {
      adjoint: (rows) => op.vjp(rows, c, value, attrs),
      offset,
    })
  return { below: at(sub(middle, reach) as Tensor), above: at(add(middle, reach) as Tensor) }
}

/** Slopes and an intercept for each element of the result, or of the operand that a reduction takes away. */
const line = (call: Call, { slopes, intercept }: Affine): AffineMap => {
  const { entry, example, set, points, value } = call
  const { relax } = entry.op
  const reduction = typeof relax === 'object' && 'lift' in relax ? (relax as Reduction<unknown>) : undefined
  const term = (k: number): Tensor => {
    const product = mul(slopes[k], points[k]) as Tensor
    if (reduction === undefined) return product
    const { axes, keep } = example.attrs as { axes: readonly number[]; keep: boolean }
    return sum(product, axes, keep)
  }
  return summed(value, [...set.map(term), ...(intercept === undefined ? [] : [intercept])], {
    adjoint: (a) =>
      set.map((k) =>
        reduction === undefined
          ? unbroadcast(mul(a, slopes[k]) as Tensor, value.shape, points[k].shape)
          : (mul(reduction.lift(a, points, example.attrs), slopes[k]) as Tensor),
      ),
    offset: add(full(value.shape, 0), intercept ?? 0) as Tensor,
  })
}

/** The rule of the record that gives lines for boxes, to nearest. */
const rule = ({ entry, operands }: Call): Relax<unknown> | undefined => {
  const { relax } = entry.op
  if (typeof relax === 'function') return relax
  if (relax === 'linear' || 'unsupported' in relax || 'definition' in relax) return undefined
  if (!('bilinear' in relax)) return relax.relax
  return typeof relax.bilinear === 'function' && operands.every(isInterval) ? relax.bilinear : undefined
}

const sandwiched = (call: Call, lines: Relax<unknown>, slope: Slope): Sandwich => {
  const { lower, upper } = lines(call.operands, call.example.attrs, slope)
  return { below: line(call, lower), above: line(call, upper) }
}

/** Whether the op is affine in the operands that are boxes. */
const isAffine = ({ set, points, value }: Call): boolean => !isNonlinear(value, new Set(set.map((k) => points[k])))

const SLOPES = ['same', 'adaptive', 'zero'] as const

/**
 * What the record says below and above the call, by name: the op where it is affine, its product of boxes at their centres, its lines for each choice of slopes, for slopes of
 * one's own (`alpha`, in [least, 1]), and under outward rounding.
 */
export const sandwiches = (call: Call, alpha: Tensor): readonly (readonly [string, Sandwich])[] => {
  const { entry, set } = call
  const { relax, outward } = entry.op
  const bilinear = typeof relax === 'object' && 'bilinear' in relax
  if (relax === 'linear' || (bilinear && set.length === 1)) return [['affine', itself(call)]]
  if (bilinear && relax.bilinear === 'centred') return [['centred', centred(call)]]
  const lines = rule(call)
  if (lines === undefined) return []
  const proved = typeof outward?.relax === 'function' ? outward.relax : undefined
  return [
    ...(isAffine(call) ? [['affine', itself(call)] as const] : []),
    ...SLOPES.map((slope) => [slope, sandwiched(call, lines, slope)] as const),
    ...(leastSlope(call) === undefined ? [] : [['own', sandwiched(call, lines, alpha)] as const]),
    ...(proved === undefined
      ? []
      : SLOPES.map((slope) => [`outward ${slope}`, sandwiched(call, proved, slope)] as const)),
  ]
}

/** The least lower slope of one's own for which lines are sound, for an op that takes one. */
export const leastSlope = ({ entry: { op }, example }: Call): number | undefined =>
  op.leak?.(example.attrs) ?? (op === absOp ? 0 : undefined)

const METHODS: readonly (readonly [Method, Rounding])[] = [
  [{ slope: 'same', hidden: 'own' }, 'none'],
  [{ slope: 'adaptive', hidden: 'ibp' }, 'none'],
  [{ slope: 'zero', hidden: 'own' }, 'none'],
  [{ slope: 'adaptive', hidden: 'own' }, { outward: 'real' }],
]

const FORWARD: readonly (readonly [ForwardMethod, Rounding])[] = [
  [{ symbols: 4, intersected: false }, 'none'],
  [{ intersected: false }, { outward: 'real' }],
]

/** No choice of lines is left where the op is affine. */
const AFFINE = [METHODS[0], METHODS[3]]

/** Boxes of the result: of the interval rule and of walks; a walk to nearest that refuses says why. */
export const boxesOf = (call: Call) => {
  const { entry, example, set, operands, points } = call
  const { op } = entry
  const own =
    'unsupported' in op.interval ? [] : [['interval', apply(op, operands, example.attrs) as Interval] as const]
  const heads = operands.map((x, k) => (isInterval(x) ? input(`head${k}`, x.shape) : points[k]))
  const f = node(op, heads, example.attrs)
  const around = new Map(set.map((k) => [heads[k], operands[k] as Interval]))
  return [
    ...own,
    ...(isAffine(call) ? AFFINE : METHODS).flatMap(
      ([method, rounding]): readonly (readonly [string, Interval | MixtrainException])[] => {
        const name = `walk ${JSON.stringify(method)}, ${JSON.stringify(rounding)}`
        try {
          return [[name, linearBounds(method)(f, around, new Map(), rounding).output()]]
        } catch (error) {
          if (!(error instanceof MixtrainException)) throw error
          // What is not proved is refused under outward rounding, of any op.
          return rounding === 'none' ? [[name, error]] : []
        }
      },
    ),
    ...FORWARD.flatMap(([method, rounding]): readonly (readonly [string, Interval | MixtrainException])[] => {
      try {
        const bounds = forwardBounds(method)(f, around, new Map(), rounding)
        return [[`pushed forward ${JSON.stringify(method)}, ${JSON.stringify(rounding)}`, bounds.output()]]
      } catch (error) {
        if (!(error instanceof MixtrainException)) throw error
        return []
      }
    }),
  ]
}
