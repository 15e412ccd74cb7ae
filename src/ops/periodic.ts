import { Micro } from '../core/lowering.ts'
import { type Affine, interval, lowerOf, type Op, type Relax, upperOf } from '../core/op.ts'
import type { Interval, Operand, Tensor } from '../core/tensor.ts'
import { down, up } from './directed.ts'
import { add, clamp, equal, flat, greater, maximum, minimum, mul, neg, select, sub } from './elementwise.ts'
import { elementwise, unary } from './maker.ts'
import { max, min } from './reduce.ts'
import { abs } from './relu.ts'
import { increasing, slice } from './shape.ts'
import { sShaped } from './smooth.ts'
import { constant } from './source.ts'

/** Sine and cosine, and rounding to whole numbers, which finds their periods. */

/** Rounding is piecewise constant: no gradient, and lines that are flat. */
const whole = (name: string, micro: Micro, f: (x: number) => number): Op<undefined> => {
  const op: Op<undefined> = elementwise(
    {
      name,
      vjp: () => [undefined],
      interval: increasing(() => op),
      relax: flat(() => op),
      outward: { interval: 'exact', relax: 'selection' },
    },
    micro,
    f,
  )
  return op
}

/** The greatest whole number that is at most x. */
export const floorOp = whole('floor', Micro.floor, Math.floor)

/** The nearest whole number, halves to the even one. */
export const roundOp = whole('round', Micro.round, (x) => {
  const low = Math.floor(x)
  if (!(x - low >= 0.5)) return low === 0 && x < 0 ? -0 : low
  return x - low > 0.5 || low % 2 !== 0 ? (low === -1 ? -0 : low + 1) : low
})

/**
 * The largest integer that is at most x, elementwise; its derivative is 0.
 *
 * @example
 *   floor(constant([-1.5, 2.7], [2])) // [-2, 2]
 *
 * @function
 */
export const floor = unary(floorOp, undefined)
/**
 * The nearest integer, elementwise, halves to the even one; its derivative is 0.
 *
 * @example
 *   round(constant([0.5, 1.5, 2.7], [3])) // [0, 2, 3]
 *
 * @function
 */
export const round = unary(roundOp, undefined)

/**
 * The least whole number that is at least x, elementwise: -floor(-x).
 *
 * @example
 *   ceil(constant([-1.5, 2.2], [2])) // [-1, 3]
 */
export const ceil = <T extends Operand>(x: T): T => neg(floor(neg(x) as Operand)) as T

const TURN = 2 * Math.PI

/** 1 where [l, u] contains `phase` plus a whole number of turns, else 0. */
const contains = (l: Tensor, u: Tensor, phase: number): Tensor => {
  const turns = (x: Tensor) => floor(mul(sub(x, phase), 1 / TURN) as Tensor)
  return greater(turns(u), turns(l)) as Tensor
}

/**
 * Interval rule of a wave with its crest at `crest`, its trough half a turn on. A crest that rounding takes to be outside is so close to an end that
 * the value there lacks less than a rounding to 1: the error is that of the phase, squared.
 */
const waveInterval = (op: () => Op<undefined>, crest: number) => {
  const f = (x: Tensor) => unary(op(), undefined)(x)
  return ([x]: readonly Operand[]): Interval => {
    const [l, u] = [lowerOf(x), upperOf(x)]
    const [p, q] = [f(l), f(u)]
    // NaN where an end is beyond what is known.
    const unknown = mul(0, add(p, q))
    return interval(
      add(select(contains(l, u, crest + Math.PI), -1, minimum(p, q)), unknown) as Tensor,
      add(select(contains(l, u, crest), 1, maximum(p, q)), unknown) as Tensor,
    )
  }
}

/**
 * Lines of sin(x + shift). A box no wider than half a turn lies between two zeros of the same kind of curvature on either side of the one next to
 * its centre, k pi: there (-1)^k sin is convex before and concave behind, as the lines of S-shaped functions want it. A wider box has flat ones.
 */
const waveLines =
  (op: () => Op<undefined>, shift: number): Relax<undefined> =>
  (xs, attrs, slope) => {
    const [x] = xs
    const [l, u] = [lowerOf(x), upperOf(x)]
    const wide = flat(op)(xs, attrs, slope)
    const narrow = greater(Math.PI, sub(u, l)) as Tensor
    const k = round(mul(add(mul(add(l, u), 0.5), shift), 1 / Math.PI) as Tensor)
    const zero = sub(mul(k, Math.PI), shift) as Tensor
    const odd = sub(k, mul(2, floor(mul(k, 0.5) as Tensor))) as Tensor
    // In a wide box the lines are not used; they are taken of a point there.
    const [a, b] = [l, u].map((end) => select(narrow, sub(end, zero), mul(0, end)) as Tensor)
    const lines = sShaped(sin, cos)([interval(a, b)], attrs, slope)
    const [down, up] = [lines.lower, lines.upper]
    const place = (own: Affine, mirrored: Affine, other: Affine): Affine => {
      const s = select(odd, neg(mirrored.slopes[0]), own.slopes[0]) as Tensor
      const t = select(odd, neg(mirrored.intercept as Tensor), own.intercept as Tensor) as Tensor
      return {
        slopes: [select(narrow, s, other.slopes[0]) as Tensor],
        intercept: select(narrow, sub(t, mul(s, zero)), other.intercept as Tensor) as Tensor,
      }
    }
    return { lower: place(down, up, wide.lower), upper: place(up, down, wide.upper) }
  }

// ---- rounded outward -------------------------------------------------------------------------------------------------

/** Our kernels are off by at most 2^-23 (test/slow/math.slow.ts); doubles are nearer. */
const OFF = 2 ** -22
/** How far below 1 a wave may be at an end of a box if rounding takes the crest next to it to be outside. */
const MISSED = 2 ** -19

/** Encloses a wave at numbers of the arithmetic at hand. */
const waveAt = (op: () => Op<undefined>, x: Tensor): Interval => {
  const v = unary(op(), undefined)(x)
  return interval(maximum(down(sub(v, OFF) as Tensor), -1) as Tensor, minimum(up(add(v, OFF) as Tensor), 1) as Tensor)
}

/**
 * The interval rule of a wave, as a theorem. Over a box without crest the wave is largest at an end. A crest c of the box counts where floor((x - phase) / turn) differs between
 * the ends. For |x| <= 8192, beyond which values are NaN, float32 computes that quotient to 2.2e-4 turns: half a spacing of 8192 in x - phase, and three roundings of
 * numbers up to 1305. So if no difference is seen an end lies within 2 pi 2.2e-4 = 1.4e-3 of c, where the wave is at least 1 - 1.4e-3^2 / 2 > 1 - MISSED. A difference that is none
 * in truth makes the box wider. Troughs likewise.
 */
const waveOutward =
  (op: () => Op<undefined>, crest: number) =>
  ([x]: readonly Operand[]): Interval => {
    const [l, u] = [lowerOf(x), upperOf(x)]
    const [p, q] = [waveAt(op, l), waveAt(op, u)]
    const unknown = mul(0, add(p.lower, q.lower))
    const [low, high] = [minimum(p.lower, q.lower), maximum(p.upper, q.upper)]
    const missed = (x: Tensor, of: (x: Tensor) => Tensor) => clamp(of(x), -1, 1)
    return interval(
      add(
        select(
          contains(l, u, crest + Math.PI),
          -1,
          missed(low, (v) => down(sub(v, MISSED) as Tensor)),
        ),
        unknown,
      ) as Tensor,
      add(
        select(
          contains(l, u, crest),
          1,
          missed(high, (v) => up(add(v, MISSED) as Tensor)),
        ),
        unknown,
      ) as Tensor,
    )
  }

/** Parts of a box between which a wave is evaluated for its intercepts. */
const PARTS = 16

/**
 * Lines of a wave with the slopes of `relax`, and intercepts that hold in real arithmetic for the slopes p as they were computed. Points x_0 = l, ..., x_16 = u are
 * evaluated, wherever rounding puts those in between. A real x of [l, u] lies between two that follow each other, at a distance g, and there
 *
 *     f(x) - p x <= max over both of (f(x_i) - p x_i) + g^2 / 8,
 *
 * the error of linear interpolation, since |f''| <= 1. Values are enclosed, and every operation is rounded upward. That costs (w / 16)^2 / 8 on a box of width w, a 256th of what lies between
 * a chord and a curve of curvature 1. Lines below are those above -f. Flat lines (wide boxes) do not need to be worse than the interval.
 */
const waveLinesOutward =
  (op: () => Op<undefined>, crest: number, relax: Relax<undefined>): Relax<undefined> =>
  (xs, attrs, slope) => {
    const [x] = xs
    const [l, u] = [lowerOf(x), upperOf(x)]
    const chosen = relax(xs, attrs, slope)
    const box = waveOutward(op, crest)(xs)
    const shares = (flip: boolean) =>
      constant(
        Array.from({ length: PARTS + 1 }, (_, i) => (flip ? PARTS - i : i) / PARTS),
        [PARTS + 1, ...l.shape.map(() => 1)],
      )
    const points = add(mul(l, shares(true)), mul(u, shares(false))) as Tensor
    const values = waveAt(op, points)
    const size = [PARTS, ...l.shape]
    const at = (from: number) => slice(points, [from, ...l.shape.map(() => 0)], size)
    const gap = up(max(abs(sub(at(1), at(0))), 0) as Tensor)
    const between = up(mul(up(mul(gap, gap) as Tensor), 1 / 8) as Tensor)
    const kept = (p: Tensor) => clamp(p, -1, 1) as Tensor
    const p = kept(chosen.upper.slopes[0])
    const q = chosen.lower.slopes[0] === chosen.upper.slopes[0] ? p : kept(chosen.lower.slopes[0])
    const above = up(add(max(up(sub(values.upper, down(mul(p, points) as Tensor)) as Tensor), 0), between) as Tensor)
    const below = down(sub(min(down(sub(values.lower, up(mul(q, points) as Tensor)) as Tensor), 0), between) as Tensor)
    return {
      lower: { slopes: [q], intercept: select(equal(q, 0), maximum(below, box.lower), below) as Tensor },
      upper: { slopes: [p], intercept: select(equal(p, 0), minimum(above, box.upper), above) as Tensor },
    }
  }

/** What is known of a wave under outward rounding. Other implementations may reduce large angles badly: nothing is assumed of them. */
const waveOutwardOf = (op: () => Op<undefined>, crest: number, relax: Relax<undefined>) => ({
  interval: waveOutward(op, crest),
  relax: waveLinesOutward(op, crest, relax),
  executions: 'unknown' as const,
})

/** Beyond it a float32 says little about a phase, and reductions to a period by it nothing: not a number on any device. */
const FARTHEST = 8192
const known = (f: (x: number) => number) => (x: number) => (Math.abs(x) <= FARTHEST ? f(x) : Number.NaN)

/** Sine of radians; NaN beyond 8192. */
export const sinOp: Op<undefined> = elementwise(
  {
    name: 'sin',
    vjp: (ct, [x]) => [mul(ct, cos(x))],
    interval: waveInterval(() => sinOp, Math.PI / 2),
    relax: waveLines(() => sinOp, 0),
    outward: waveOutwardOf(
      () => sinOp,
      Math.PI / 2,
      (...xs) => waveLines(() => sinOp, 0)(...xs),
    ),
  },
  Micro.sin,
  known(Math.sin),
)

/** Cosine of radians; NaN beyond 8192. */
export const cosOp: Op<undefined> = elementwise(
  {
    name: 'cos',
    vjp: (ct, [x]) => [neg(mul(ct, sin(x)))],
    interval: waveInterval(() => cosOp, 0),
    relax: waveLines(() => cosOp, Math.PI / 2),
    outward: waveOutwardOf(
      () => cosOp,
      0,
      (...xs) => waveLines(() => cosOp, Math.PI / 2)(...xs),
    ),
  },
  Micro.cos,
  known(Math.cos),
)

/**
 * The sine of x in radians, elementwise; NaN beyond 8192.
 *
 * @example
 *   sin(constant([0, 1.5707963267948966], [2])) // [0, 1]
 *
 * @function
 */
export const sin = unary(sinOp, undefined)
/**
 * The cosine of x in radians, elementwise; NaN beyond 8192.
 *
 * @example
 *   cos(constant([0, 3.141592653589793], [2])) // [1, -1]
 *
 * @function
 */
export const cos = unary(cosOp, undefined)
