import type { Affine, Relax, Slope } from '../core/op.ts'
import { lowerOf, upperOf } from '../core/op.ts'
import { roundUp } from '../core/rounding.ts'
import type { Interval, Operand, Tensor } from '../core/tensor.ts'
import { down, up } from './directed.ts'
import { add, clamp, greater, maximum, minimum, mul, select, sub } from './elementwise.ts'
import { addUp, mulUp, subDown, subUp } from './outward.ts'
import { max, min } from './reduce.ts'
import { abs } from './relu.ts'
import { concat, full, reshape, slice } from './shape.ts'
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
    return chosen(sound, chord, [df(l), df(c), df(u)], slope)
  }

/**
 * Of lines that are sound for any slope the one that is closest to f at the centre, which encloses the smallest area; for parallel ones (`same`) the chord.
 */
const chosen = (
  sound: (p: Tensor) => Candidate,
  chord: Candidate,
  tangents: readonly Tensor[],
  slope: Slope,
): { readonly lower: Affine; readonly upper: Affine } => {
  const line = (p: Tensor, intercept: Tensor): Affine => ({ slopes: [p], intercept })
  if (slope === 'same') return { lower: line(chord.p, chord.below), upper: line(chord.p, chord.above) }
  const flat = sound(full(chord.p.shape, 0))
  const candidates = [...tangents.map(sound), flat]
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

/** A slope, the intercepts of its lines below and above, and what these are at the centre. */
interface Candidate {
  readonly p: Tensor
  readonly below: Tensor
  readonly above: Tensor
  readonly low: Tensor
  readonly high: Tensor
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
      ...next,
      p: select(better, next.p, best.p),
      below: select(better, next.below, best.below),
      low: select(better, next.low, best.low),
    }
  }, chord)
}

// ---- the same as a theorem -------------------------------------------------------------------------------------------

/** What a proof needs to know of a function with a second derivative where it does not kink. */
export interface Enclosed extends Smooth {
  /** Encloses f at floats. */
  readonly value: (x: Tensor) => Interval
  /**
   * What is known beyond -reach and reach: f is concave there, below 0 on the left and below x on the right. Absent: nothing is, and the
   * samples reach from end to end.
   */
  readonly reach?: number
}

/** Parts of a box between which an enclosed function is evaluated. */
const FINE_PARTS = 32

/**
 * Lines that hold in real arithmetic, whatever number the slope p is: f(x) - p x is enclosed at points of the box, computed outward, and between two of them it leaves
 * what lies between their values by at most curvature gap^2 / 8, the error of linear interpolation (f'' - 0 is that of f - p x). Any two neighbours cover what is between them, so
 * the points cover the box wherever rounding moved them, and the gap is bounded from above. On a part beyond `reach` f(x) - p x is concave, hence at least what it is at one of the
 * part's ends, and at most what the asymptote less p x is at one of them. What is known of f on the box (`range`) bounds f(x) - p x, too. A NaN or an infinite end gives NaN.
 */
export const sampledOutward =
  ({ value, f, df, curvature, kinks = [], reach }: Enclosed, range: (x: Operand) => Interval): Relax<unknown> =>
  ([x], _, slope) => {
    const [l, u] = [lowerOf(x), upperOf(x)]
    const [from, to]: readonly Tensor[] =
      reach === undefined ? [l, u] : [minimum(maximum(l, -reach), u), maximum(minimum(u, reach), l)]
    const one = (v: Tensor): Tensor => reshape(v, [1, ...v.shape])
    const share = (flip: boolean) =>
      constant(
        Array.from({ length: FINE_PARTS + 1 }, (_, i) => (flip ? FINE_PARTS - i : i) / FINE_PARTS),
        [FINE_PARTS + 1, ...l.shape.map(() => 1)],
      )
    const inside = clamp(add(mul(from, share(true)), mul(to, share(false))) as Tensor, from, to)
    const corners = kinks.map((k) => one(clamp(full(l.shape, k), l, u) as Tensor))
    const tails = reach === undefined ? [] : [l, from, to, u]
    const points = concat([inside, ...corners, ...tails.map(one)], 0)
    const values = value(points)
    // Above, the tails have their asymptotes: 0, and x.
    const high =
      reach === undefined
        ? values.upper
        : concat(
            [
              sliceFirst(values.upper, FINE_PARTS + 1 + kinks.length),
              ...tails.map((v, i) => {
                const own = value(v).upper
                return one(
                  (i < 2
                    ? select(greater(-reach, l), maximum(own, 0), own)
                    : select(greater(u, reach), maximum(own, v), own)) as Tensor,
                )
              }),
            ],
            0,
          )
    // A point is off by at most three roundings of numbers up to the larger end, so a gap is by at most six.
    const gap = addUp(
      mulUp(subUp(to, from), 1 / FINE_PARTS),
      maximum(mulUp(maximum(abs(from), abs(to)), 2 ** -20), 2 ** -60),
    )
    const between = mulUp(mulUp(gap, gap), roundUp(curvature / 8))
    const box = range(x)
    const c = clamp(mul(add(l, u), 0.5), l, u) as Tensor
    const sound = (p: Tensor): Candidate => {
      const slopes = mul(p, points) as Tensor
      const ends = [l, u].map((end) => mul(p, end) as Tensor)
      const below = maximum(
        subDown(min(subDown(values.lower, up(slopes)), 0), between),
        subDown(box.lower, maximum(up(ends[0]), up(ends[1]))),
      ) as Tensor
      const above = minimum(
        addUp(max(subUp(high, down(slopes)), 0), between),
        subUp(box.upper, minimum(down(ends[0]), down(ends[1]))),
      ) as Tensor
      const at = mul(p, c) as Tensor
      return { p, below, above, low: add(at, below) as Tensor, high: add(at, above) as Tensor }
    }
    return chosen(sound, sound(chordSlope(f, df, l, u)), [df(l), df(c), df(u)], slope)
  }

const sliceFirst = (x: Tensor, n: number): Tensor =>
  slice(
    x,
    x.shape.map(() => 0),
    [n, ...x.shape.slice(1)],
  )

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
