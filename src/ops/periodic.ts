import { Micro } from '../core/lowering.ts'
import { type Affine, interval, lowerOf, type Op, type Relax, upperOf } from '../core/op.ts'
import type { Interval, Operand, Tensor } from '../core/tensor.ts'
import { add, flat, greater, maximum, minimum, mul, neg, select, sub } from './elementwise.ts'
import { elementwise, unary } from './maker.ts'
import { increasing } from './shape.ts'
import { sShaped } from './smooth.ts'

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

export const floor = unary(floorOp, undefined)
export const round = unary(roundOp, undefined)

/** The least whole number that is at least x: -floor(-x). */
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
  },
  Micro.cos,
  known(Math.cos),
)

export const sin = unary(sinOp, undefined)
export const cos = unary(cosOp, undefined)
