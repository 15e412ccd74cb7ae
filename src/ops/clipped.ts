import * as E from 'fp-ts/lib/Either.js'
import { type Affine, apply, interval, lowerOf, type Op, type Relax, upperOf } from '../core/op.ts'
import { type Interval, isInterval, type Join, type Operand, type Tensor } from '../core/tensor.ts'
import { enclosed } from './composed.ts'
import { down, stepOut, up } from './directed.ts'
import {
  add,
  clamp,
  divideWhere,
  flat,
  greater,
  greaterEqual,
  maximum,
  minimum,
  mul,
  select,
  step,
  straddles,
  sub,
} from './elementwise.ts'
import { type Arg, type Argument, broadcastShape, operand } from './maker.ts'
import { subDown, subUp } from './outward.ts'
import { full, increasing, unbroadcast } from './shape.ts'

/** Piecewise linear activations besides relu and leaky relu, and what is made of them. */

/** The ends of a box and where the limits cut it: all vertices of a clipped line. */
const vertices = (l: Tensor, u: Tensor, low: Tensor, high: Tensor): readonly Tensor[] => [
  l,
  u,
  clamp(low, l, u) as Tensor,
  clamp(high, l, u) as Tensor,
]

/**
 * Lines of x -> min(max(x, low), high) on [l, u]. Above, the chord from (l, f(l)) to the upper limit, or the flat line through f(u): whichever
 * is lower at the centre of the box; below the mirror image. f(x) - p x is linear between vertices, so the least and greatest
 * values there are the intercepts, for slopes as rounded as they may be.
 */
const clipLines =
  (rounding: 'none' | 'outward'): Relax<undefined> =>
  (xs, attrs, slope) => {
    const [x, low, high] = xs
    if (isInterval(low) || isInterval(high)) return flat(() => clipOp)(xs, attrs, slope)
    const [l, u] = [lowerOf(x), upperOf(x)]
    const [fl, fu] = [clip(l, low, high), clip(u, low, high)]
    const rise = sub(fu, fl) as Tensor
    const [top, bottom] = [minimum(u, high), maximum(l, low)] as readonly Tensor[]
    const [above, below] = [sub(top, l), sub(u, bottom)] as readonly Tensor[]
    const slopeOver = (width: Tensor, other: Tensor) =>
      clamp(divideWhere(greater(width, 0), rise, width, other), 0, 1) as Tensor
    const inside = mul(greaterEqual(l, low), greaterEqual(high, u)) as Tensor
    const chord = slopeOver(sub(u, l) as Tensor, inside)
    // Beyond both limits the ends lie on one side of what they would cut off.
    const [up1, low1] = [slopeOver(above, inside), slopeOver(below, inside)]
    const middle = mul(add(l, u), 0.5) as Tensor
    const rising = select(greaterEqual(high, middle), up1, 0) as Tensor
    const falling = select(greaterEqual(middle, low), low1, 0) as Tensor
    const cut = (at: Tensor): Tensor => mul(greater(at, l), greater(u, at)) as Tensor
    const own = (s: Tensor): Tensor => select(maximum(cut(low), cut(high)), s, chord) as Tensor
    const p =
      slope === 'same' ? chord : slope === 'adaptive' ? falling : own(slope === 'zero' ? full(l.shape, 0) : slope)
    const q = slope === 'same' ? chord : rising
    const points = vertices(l, u, low, high)
    const rest = (s: Tensor, end: 'below' | 'above'): Tensor => {
      const values = points.map((v) => {
        const f = clip(v, low, high)
        if (rounding === 'none') return sub(f, mul(s, v)) as Tensor
        return end === 'below' ? down(sub(f, up(mul(s, v)))) : up(sub(f, down(mul(s, v))))
      })
      return values.reduce((a, b) => (end === 'below' ? minimum(a, b) : maximum(a, b)))
    }
    const none = [full(low.shape, 0), full(high.shape, 0)]
    return {
      lower: { slopes: [p, ...none], intercept: rest(p, 'below') },
      upper: { slopes: [q, ...none], intercept: rest(q, 'above') },
    }
  }

/**
 * `clip(x, low, high)`: x limited to [low, high], limits that broadcast to x; infinite ones do not limit. Where low > high the result is high. ReLU6 is
 * `clip(x, 0, 6)`, hardtanh `clip(x, -1, 1)`, hard sigmoid a clip of an affine function. Value and bounds are exact.
 */
export const clipOp: Op<undefined> = {
  name: 'clip',
  shape: (shapes) =>
    E.Chain.chain(broadcastShape(shapes), (out) =>
      out.length === shapes[0].length && out.every((d, i) => d === shapes[0][i])
        ? E.right(out)
        : E.left('the limits must broadcast to the tensor that they limit'),
    ),
  vjp: (ct, [x, low, high], out) => {
    const over = greater(maximum(x, low), high)
    const within = sub(1, over)
    return [
      mul(ct, mul(greaterEqual(x, low), within)),
      unbroadcast(mul(ct, mul(greater(low, x), within)), out.shape, low.shape),
      unbroadcast(mul(ct, over), out.shape, high.shape),
    ]
  },
  interval: increasing(() => clipOp),
  relax: clipLines('none'),
  outward: { interval: 'exact', relax: clipLines('outward') },
  kernel: { expand: ([x, low, high]) => minimum(maximum(x, low), high) as Tensor },
}

/**
 * x limited to [low, high], elementwise; limits broadcast to x, infinite ones do not limit. Where low > high the result is high.
 *
 * @example
 *   clip(constant([-2, 0.5, 3], [3]), 0, 1) // [0, 0.5, 1]
 */
export const clip = <T extends Argument>(x: T, low: Argument, high: Argument): Arg<T> =>
  apply(clipOp, [operand(x), operand(low), operand(high)], undefined) as Arg<T>

/** Lines of x -> x where x >= 0, a x below, for any number a: convex up to 1, concave beyond. */
const preluLines: Relax<undefined> = (xs, attrs, slope) => {
  const [x, a] = xs
  if (isInterval(a)) return flat(() => preluOp)(xs, attrs, slope)
  const [l, u] = [lowerOf(x), upperOf(x)]
  const unstable = straddles(l, u)
  const stable = select(step(maximum(l, u)), 1, a) as Tensor
  const chord = divideWhere(unstable, sub(u, mul(a, l)) as Tensor, sub(u, l), stable)
  const start = select(unstable, sub(u, mul(chord, u)), 0) as Tensor
  const own: Tensor =
    slope === 'same'
      ? chord
      : select(
          unstable,
          slope === 'adaptive' ? select(greater(add(l, u), 0), 1, a) : slope === 'zero' ? a : slope,
          stable,
        )
  const convex = greaterEqual(1, a) as Tensor
  const line = (isChord: Tensor): Affine => ({
    slopes: [select(isChord, chord, own), full(a.shape, 0)],
    intercept: select(isChord, start, 0),
  })
  return { lower: line(sub(1, convex) as Tensor), upper: line(convex) }
}

/**
 * The same as a theorem: for every number a of a box f(x) - p x is linear between the ends of x and 0, and linear in a, so its extremes are at the
 * corners, which are computed outward. An x that is a point has no slope, which nobody would multiply it with.
 */
const preluOutward: Relax<undefined> = (xs, attrs, slope) => {
  const [x, a] = xs
  const [l, u] = [lowerOf(x), upperOf(x)]
  const lines = preluLines([x, lowerOf(a)], attrs, slope)
  const zero = clamp(full(l.shape, 0), l, u) as Tensor
  const least: Tensor[] = []
  const most: Tensor[] = []
  const [p, q] = isInterval(x) ? [lines.lower.slopes[0], lines.upper.slopes[0]] : [full(l.shape, 0), full(l.shape, 0)]
  for (const v of [l, zero, u])
    for (const end of isInterval(a) ? [a.lower, a.upper] : [a]) {
      const product = mul(end, v)
      const own = greaterEqual(v, 0)
      least.push(subDown(select(own, v, down(product)) as Tensor, up(mul(p, v))))
      most.push(subUp(select(own, v, up(product)) as Tensor, down(mul(q, v))))
    }
  const none = full(a.shape, 0)
  return {
    lower: { slopes: [p, none], intercept: least.reduce((s, t) => minimum(s, t)) },
    upper: { slopes: [q, none], intercept: most.reduce((s, t) => maximum(s, t)) },
  }
}

/**
 * `prelu(x, a)`: x where x >= 0, a x below; a is a parameter that broadcasts to x (a slope per channel: `[c, 1, 1]`), any number. Leaky relu is
 * `leakyRelu(a)`, whose kink branches are split at.
 */
export const preluOp: Op<undefined> = {
  name: 'prelu',
  shape: clipOp.shape,
  vjp: (ct, [x, a], out) => [
    mul(ct, select(greaterEqual(x, 0), 1, a)),
    unbroadcast(mul(ct, minimum(x, 0)), out.shape, a.shape),
  ],
  interval: ([x, a]) => {
    const part = mul(minimum(x, 0), a) as Operand
    if (isInterval(a)) return add(maximum(x, 0), part) as ReturnType<typeof interval>
    const [p, q] = [prelu(lowerOf(x), a), prelu(upperOf(x), a)]
    // With a negative slope the least value of a box round 0 is there.
    const least = select(mul(straddles(lowerOf(x), upperOf(x)), greater(0, a)), 0, minimum(p, q)) as Tensor
    return interval(least, maximum(p, q))
  },
  relax: preluLines,
  outward: {
    interval: (xs, attrs) => {
      const [x, a] = xs
      if (isInterval(a)) return enclosed.add(maximum(x, 0), enclosed.mul(minimum(x, 0), a))
      if (isInterval(x))
        return stepOut((preluOp.interval as (xs: readonly Operand[], attrs: undefined) => Interval)(xs, attrs))
      const y = prelu(x, a)
      return stepOut(interval(y, y))
    },
    relax: preluOutward,
    steep: true,
  },
  kernel: { expand: ([x, a]) => select(greaterEqual(x, 0), x, mul(a, x)) as Tensor },
}

/**
 * x where x >= 0, a x below; a broadcasts to x (a slope per channel: `[c, 1, 1]`), any number (arXiv:1502.01852).
 *
 * @example
 *   prelu(constant([-2, 3], [2]), constant([0.25], [1])) // [-0.5, 3]
 */
export const prelu = <T extends Operand, U extends Operand>(x: T, a: U): Join<T, U> =>
  apply(preluOp, [x, a], undefined) as Join<T, U>

/**
 * x where x > alpha, else 0. It jumps: bounds are those of intervals.
 *
 * @example
 *   thresholdedRelu(1)(constant([0.5, 2], [2])) // [0, 2]
 */
export const thresholdedRelu =
  (alpha = 1) =>
  <T extends Operand>(x: T): T =>
    select(greater(x, alpha) as Operand, maximum(x, alpha) as Operand, 0) as T

/**
 * clip(alpha x + beta, 0, 1).
 *
 * @example
 *   hardSigmoid()(constant([-3, 0, 1], [3])) // [0, 0.5, 0.7]
 */
export const hardSigmoid =
  (alpha = 0.2, beta = 0.5) =>
  <T extends Operand>(x: T): T =>
    clip(add(mul(x, alpha), beta) as Operand, 0, 1) as T
