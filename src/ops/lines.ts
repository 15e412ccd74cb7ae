import type { Affine, Relax, Slope } from '../core/op.ts'
import { lowerOf, upperOf } from '../core/op.ts'
import type { Tensor } from '../core/tensor.ts'
import { add, clamp, greater, mul, select, sub } from './elementwise.ts'
import { max, min } from './reduce.ts'
import { concat, full, reshape } from './shape.ts'
import { chordSlope } from './smooth.ts'
import { constant } from './source.ts'

/** A function of one variable with its derivative, and what is known of its second derivative. */
export interface Smooth {
  readonly f: (x: Tensor) => Tensor
  readonly df: (x: Tensor) => Tensor
  /** The most that |f''| is, where the derivative does not jump. */
  readonly curvature: number
  /** Where it jumps. */
  readonly kinks?: readonly number[]
}

/** Parts of a box between which a function is evaluated; more is tighter. */
const PARTS = 16

/**
 * Lines of a smooth function of any shape on a box of width w. For a line of slope p, f(x) - p x is evaluated at 17 points and the kinks; between
 * two neighbours it leaves what lies between their values by at most curvature (w / 16)^2 / 8, the error of linear interpolation. So every
 * slope has a sound intercept on either side. Of the chord, the tangents at the ends and the centre and the flat line, the one is taken that is
 * closest to f at the centre, which is the one that encloses the smallest area; for parallel lines (`same`), the chord.
 */
export const sampled =
  ({ f, df, curvature, kinks = [] }: Smooth): Relax<unknown> =>
  ([x], _, slope) => {
    const [l, u] = [lowerOf(x), upperOf(x)]
    const one = (v: Tensor): Tensor => reshape(v, [1, ...v.shape])
    const shares = (flip: boolean) =>
      constant(
        Array.from({ length: PARTS + 1 }, (_, i) => (flip ? PARTS - i : i) / PARTS),
        [PARTS + 1, ...x.shape.map(() => 1)],
      )
    // Exactly the ends at both ends, whatever rounding does between them.
    const inside = add(mul(l, shares(true)), mul(u, shares(false))) as Tensor
    const points = concat([inside, ...kinks.map((k) => one(clamp(full(l.shape, k), l, u) as Tensor))], 0)
    const values = f(points)
    const width = sub(u, l) as Tensor
    const between = mul(mul(width, width), curvature / (8 * PARTS * PARTS))
    const c = mul(add(l, u), 0.5) as Tensor
    const sound = (p: Tensor) => {
      const rest = sub(values, mul(p, points)) as Tensor
      const [below, above] = [sub(min(rest, 0), between) as Tensor, add(max(rest, 0), between) as Tensor]
      const at = mul(p, c) as Tensor
      return { p, below, above, low: add(at, below) as Tensor, high: add(at, above) as Tensor }
    }
    const chord = sound(chordSlope(f, df, l, u))
    const line = (p: Tensor, intercept: Tensor): Affine => ({ slopes: [p], intercept })
    if (slope === 'same') return { lower: line(chord.p, chord.below), upper: line(chord.p, chord.above) }
    const flat = sound(full(l.shape, 0))
    const candidates = [...[df(l), df(c), df(u)].map(sound), flat]
    const lower = lowerSlopes(slope, chord, candidates, flat, sound)
    const upper = candidates.reduce((best, next) => {
      const better = greater(best.high, next.high) as Tensor
      return {
        ...next,
        p: select(better, next.p, best.p),
        above: select(better, next.above, best.above),
        high: select(better, next.high, best.high),
      }
    }, chord)
    return { lower: line(lower.p, lower.below), upper: line(upper.p, upper.above) }
  }

interface Candidate {
  readonly p: Tensor
  readonly below: Tensor
  readonly low: Tensor
}

const lowerSlopes = (
  slope: Exclude<Slope, 'same'>,
  chord: Candidate,
  candidates: readonly Candidate[],
  flat: Candidate,
  sound: (p: Tensor) => Candidate,
): Candidate => {
  if (slope === 'zero') return flat
  if (slope !== 'adaptive') return sound(slope)
  return candidates.reduce<Candidate>((best, next) => {
    const better = greater(next.low, best.low) as Tensor
    return {
      p: select(better, next.p, best.p),
      below: select(better, next.below, best.below),
      low: select(better, next.low, best.low),
    }
  }, chord)
}

/**
 * Lines for increasing functions without limits at infinity: those of `rule` on finite boxes, elsewhere the flat ones through the ends, which are infinite or
 * unknown there.
 */
export const onFinite =
  (f: (x: Tensor) => Tensor, rule: Relax<undefined>): Relax<undefined> =>
  (xs, attrs, slope) => {
    const [l, u] = [lowerOf(xs[0]), upperOf(xs[0])]
    const finite = mul(greater(l, Number.NEGATIVE_INFINITY), greater(Number.POSITIVE_INFINITY, u)) as Tensor
    const { lower, upper } = rule(xs, attrs, slope)
    const on = (line: Affine, end: Tensor): Affine => ({
      slopes: [select(finite, line.slopes[0], 0) as Tensor],
      intercept: select(finite, line.intercept as Tensor, f(end)) as Tensor,
    })
    return { lower: on(lower, l), upper: on(upper, u) }
  }
