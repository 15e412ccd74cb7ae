import * as E from 'fp-ts/lib/Either.js'
import { raise } from '../core/error.ts'
import { type Affine, apply, interval, lowerOf, type Op, upperOf } from '../core/op.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import { centre } from './box.ts'
import {
  add,
  addOp,
  div,
  divOp,
  equal,
  greater,
  maximum,
  minimum,
  mul,
  mulOp,
  neg,
  select,
  sub,
  subOp,
} from './elementwise.ts'
import { addUp, centreAndReach, lifted, magnitude, majorant, mulUp, subDown, subUp } from './outward.ts'
import { max, oneHot } from './reduce.ts'
import { abs } from './relu.ts'
import {
  type Axes,
  broadcastTo,
  full,
  increasing,
  leading,
  liftReduced,
  normalize,
  reducedShape,
  reshape,
  stopGradient,
  sum,
  sumOp,
} from './shape.ts'
import { exp, expOp, log, logOp } from './smooth.ts'
import { iota } from './source.ts'

/**
 * The largest element along axes, which are kept, or 0 where it is infinite: inf - inf is no number. What only depends on differences of logits is
 * computed from logits less this shift: exact where they are close, however large they are. It counts as a constant, since nothing depends on it.
 */
export const shiftOf = (x: Tensor, axes: readonly number[]): Tensor => {
  const top = stopGradient(max(x, axes, true))
  return select(equal(abs(top), Number.POSITIVE_INFINITY), 0, top)
}

/** exp(x) / sum(exp(x)) along axes, of shifted values: 0 for -infinity, NaN where the largest element is infinite. */
export const normalized = (x: Tensor, axes: readonly number[]): Tensor => {
  const e = exp(sub(x, shiftOf(x, axes)))
  return div(e, sum(e, axes, true))
}

/** x - log(sum(exp(y))) along axes, as (x - m) - log(sum(exp(y - m))), m the shift of y. */
const relative = (x: Tensor, y: Tensor, axes: readonly number[]): Tensor => {
  const m = shiftOf(y, axes)
  return sub(sub(x, m), log(sum(exp(sub(y, m)), axes, true)))
}

// ---- enclosures ------------------------------------------------------------------------------------------------------

/** Of how many elements a reduction makes one. */
const counted = (x: Operand, axes: readonly number[]): number => S.size(axes.map((a) => x.shape[a]))

/** Encloses e^(x - m) and its sum over axes, which are kept, for the shift m of a tensor x. */
const enclosedShares = (x: Tensor, axes: readonly number[]) => {
  const m = shiftOf(x, axes)
  const shares = lifted(expOp, undefined)(lifted(subOp, undefined)(x, m))
  return { m, shares, total: lifted(sumOp, { axes, keep: true })(shares) }
}

/** Without the axes that were kept, unless they are to be. */
const flattened = (x: Tensor, { axes, keep }: Axes): Tensor =>
  keep
    ? x
    : reshape(
        x,
        x.shape.filter((_, i) => !axes.includes(i)),
      )

/** Encloses log(sum(exp(x))) = m + log(sum(exp(x - m))), which holds for every m. */
const enclosedSum = (x: Tensor, attrs: Axes): Interval => {
  const { m, total } = enclosedShares(x, attrs.axes)
  const { lower, upper } = lifted(addOp, undefined)(m, lifted(logOp, undefined)(total))
  return interval(flattened(lower, attrs), flattened(upper, attrs))
}

/** Widths of a box up to which the slope of a chord of e^x is that at the centre, and how far below the largest element an end may be for it to have one above 0. */
const [NARROW, FARTHEST] = [2 ** -10, 2 ** 60]

/**
 * The line above log(sum(exp(x))) within a box [l, u]: the logarithm is concave, so log(S) <= log(s) - 1 + S / s for every s > 0, and e^x is below its chord. s is what the chords add up to at
 * the centre, where the line is log(s). Slopes are those of the chords, divided by s, between 0 and 1 since no chord is steeper than the mean of e^l and e^u.
 * Ends are taken relative to a shift m, at which e^x neither overflows nor vanishes for the largest.
 */
const lineAbove = (l: Tensor, u: Tensor, { axes }: Axes) => {
  const m = shiftOf(u, axes)
  const [low, high] = [l, u].map((v) => maximum(sub(v, m), -FARTHEST) as Tensor)
  const [least, most] = [exp(low), exp(high)]
  const s = sum(mul(0.5, add(least, most)), axes, true) as Tensor
  const width = sub(high, low)
  const isChord = greater(width, NARROW)
  const chord = div(sub(most, least), select(isChord, width, 1))
  const steep = select(isChord, chord, exp(mul(0.5, add(low, high)) as Tensor)) as Tensor
  const slopes = select(greater(low, -FARTHEST), minimum(div(steep, s), 1), 0) as Tensor
  return { m, low, high, s, slopes }
}

/** The line above as it is computed. e^y / s - a y is convex in y, so it is greatest at an end: that holds whatever the slope a. */
const computedAbove = (x: Operand, attrs: Axes): Affine => {
  const { m, low, high, s, slopes } = lineAbove(lowerOf(x), upperOf(x), attrs)
  const end = (y: Tensor) => sub(div(exp(y), s), mul(slopes, y))
  const rest = sum(maximum(end(low), end(high)), attrs.axes, true)
  const shifted = sub(m, mul(m, sum(slopes, attrs.axes, true)))
  const intercept = add(add(shifted, sub(log(s), 1)), rest) as Tensor
  return { slopes: [slopes], intercept: flattened(intercept, attrs) }
}

/** The same as a theorem: for slopes and s as they were computed, the intercept is rounded up. */
const provedAbove = (x: Operand, attrs: Axes): Affine => {
  const [l, u] = [lowerOf(x), upperOf(x)]
  const { m, s, slopes } = lineAbove(l, u, attrs)
  const over = broadcastTo(s, x.shape)
  const end = (y: Interval): Tensor =>
    lifted(subOp, undefined)(
      lifted(divOp, undefined)(lifted(expOp, undefined)(y), over),
      lifted(mulOp, undefined)(slopes, y),
    ).upper
  // Ends farther below than that have slope 0, where e^y / s is larger at what takes their place.
  const ends = [l, u].map((v) => {
    const y = lifted(subOp, undefined)(v, m)
    return end(interval(maximum(y.lower, -FARTHEST) as Tensor, maximum(y.upper, -FARTHEST) as Tensor))
  })
  const highest = maximum(ends[0], ends[1])
  const added = (v: Tensor): Interval => lifted(sumOp, { axes: attrs.axes, keep: true })(interval(v, v))
  const rest = added(highest).upper
  const shifted = lifted(subOp, undefined)(m, lifted(mulOp, undefined)(m, added(slopes))).upper
  const intercept = addUp(addUp(shifted, subUp(lifted(logOp, undefined)(s).upper, full([], 1))), rest)
  return { slopes: [slopes], intercept: flattened(intercept, attrs) }
}

/**
 * Lines of f(x) = log(sum(exp(x))) as a theorem. f is convex, so f(x) >= f(c) + p . (x - c) for the softmax p of any point c. For slopes s as they were
 * computed that is f(c) - s . c + s . x + (p - s) . (x - c), the last of which is at least -|p - s| . r where |x - c| <= r. Above: `lineAbove`.
 */
const sumLines = (x: Operand, attrs: Axes): { readonly lower: Affine; readonly upper: Affine } => {
  const box = interval(lowerOf(x), upperOf(x))
  const { c, r } = centreAndReach(box)
  const soft = normalized(c, attrs.axes)
  const { shares: e, total } = enclosedShares(c, attrs.axes)
  const p = lifted(divOp, undefined)(e, broadcast(total, c.shape))
  const off = maximum(subUp(p.upper, soft), subUp(soft, p.lower)) as Tensor
  const added = (v: Tensor): Tensor => lifted(sumOp, attrs)(interval(v, v)).upper
  const lost = addUp(added(mulUp(soft, c)), added(mulUp(off, r)))
  return {
    lower: { slopes: [soft], intercept: subDown(enclosedSum(c, attrs).lower, lost) },
    upper: provedAbove(x, attrs),
  }
}

const broadcast = ({ lower, upper }: Interval, shape: S.Shape): Interval =>
  interval(broadcastTo(lower, shape), broadcastTo(upper, shape))

/**
 * log(sum(exp(x))) over axes, shifted by the maximum so that nothing overflows. `[n, k] -> [n]` for axis 1. -inf where all elements are, inf where one is.
 * Gradient: the softmax. Relaxation (convex in x): lower, the tangent at the centre c, softmax(c) . (x - c) + lse(c); upper, chords of e^x under a
 * tangent of the logarithm.
 */
export const logSumExpOp: Op<Axes> = {
  name: 'logSumExp',
  shape: ([x], attrs) => reducedShape(x, attrs),
  vjp: (ct, [x], _, attrs) => [mul(liftReduced(ct, x.shape, attrs), normalized(x, attrs.axes))],
  interval: increasing(() => logSumExpOp),
  relax: {
    relax: ([x], attrs) => {
      const c = centre(x)
      const soft = normalized(c, attrs.axes)
      const value = logSumExp(c, attrs.axes, attrs.keep)
      return {
        lower: { slopes: [soft], intercept: sub(value, sum(mul(soft, c), attrs.axes, attrs.keep)) },
        upper: computedAbove(x, attrs),
      }
    },
    lift: (a, [x], attrs) => liftReduced(a, x.shape, attrs),
    collect: (sizes, { axes, keep }) => majorant(sum(sizes, axes, keep), counted(sizes, axes)),
  },
  outward: {
    interval: ([x], attrs) => interval(enclosedSum(lowerOf(x), attrs).lower, enclosedSum(upperOf(x), attrs).upper),
    relax: ([x], attrs) => sumLines(x, attrs),
    // Differences from the largest element are rounded, e^x is off by 8 units, a sum of n by n - 1 roundings: less than 64 + 4 n of them, of the size of the operands.
    ulps: 32,
    scale: ([x], box, { axes, keep }) => {
      const size = maximum(maximum(magnitude(box), 1), max(magnitude(x), axes, keep))
      return mul(size, 1 + counted(x, axes) / 16) as Tensor
    },
  },
  kernel: {
    expand: ([x], attrs) => {
      const m = shiftOf(x, attrs.axes)
      const s = log(sum(exp(sub(x, m)), attrs.axes, attrs.keep))
      return add(s, reshape(m, s.shape))
    },
  },
}

/**
 * log(sum of e^x) over axes (default: all), without overflow; `keep` keeps them with extent 1.
 *
 * @example
 *   logSumExp(constant([0, 0], [2])) // [0.6931]
 */
export const logSumExp = <T extends Operand>(x: T, axes?: readonly number[] | number, keep = false): T =>
  apply(logSumExpOp, [x], { axes: normalize(x.shape.length, axes), keep }) as T

/**
 * x - log(sum(exp(x))) along an axis: logarithms of probabilities, the same for x and x + c. Interval: each end is the element's own end less the log-sum-exp of
 * the other ends. Linear bounds are those of the difference as it is written here. Under outward rounding so is all of it: executions that subtract the largest element first and then the
 * logarithm round once more, each time less than what is allowed for the log-sum-exp.
 */
export const logSoftmaxOp: Op<{ readonly axis: number }> = {
  name: 'logSoftmax',
  shape: ([x], { axis }) =>
    Number.isInteger(axis) && axis >= 0 && axis < x.length
      ? E.right(x)
      : E.left(`axis ${axis} is not an axis of a tensor of rank ${x.length}`),
  vjp: (ct, [x], out, { axis }) => {
    const total = sum(ct, axis + leading(ct, out.shape).length, true)
    return [sub(ct, mul(total, normalized(x, [axis])))]
  },
  interval: ([x], { axis }) => {
    const [l, u] = [lowerOf(x), upperOf(x)]
    return interval(relative(l, u, [axis]), relative(u, l, [axis]))
  },
  relax: { definition: ([x], { axis }) => sub(x, broadcastTo(logSumExp(x, axis, true), x.shape)) },
  kernel: { expand: ([x], { axis }) => relative(x, x, [axis]) },
}

/**
 * x - logSumExp(x): logarithms of probabilities along an axis.
 *
 * @example
 *   logSoftmax(constant([0, 0], [1, 2])) // [-0.6931, -0.6931]
 */
export const logSoftmax = <T extends Operand>(x: T, axis = -1): T =>
  apply(logSoftmaxOp, [x], { axis: S.axisOf(axis, x.shape.length) }) as T

/** Pairs of elements along an axis that are compared one by one for the interval of a softmax; more are bounded by their sums. */
const MAX_PAIRS = 2 ** 20

/** [lower, upper] of the share of each element: 1 / (1 + sum over the others of exp(u_j - l_i)), and the other way round. */
const shares = (l: Tensor, u: Tensor, axis: number): readonly Tensor[] => {
  const k = l.shape[axis]
  const row = (x: Tensor): Tensor => reshape(x, [...x.shape.slice(0, axis + 1), 1, ...x.shape.slice(axis + 1)])
  const column = (x: Tensor): Tensor => reshape(x, [...x.shape.slice(0, axis), 1, ...x.shape.slice(axis)])
  const behind = l.shape.slice(axis + 1).map(() => 1)
  const self = equal(reshape(iota(k), [k, 1, ...behind]), reshape(iota(k), [1, k, ...behind]))
  const end = (own: Tensor, others: Tensor): Tensor => {
    const odds = select(self, 0, exp(sub(column(others), row(own))))
    return div(1, add(1, sum(odds, axis + 1))) as Tensor
  }
  // inf - inf is not known.
  return [end(l, u), end(u, l)]
}

/**
 * Probabilities along an axis, exp(x) / sum(exp(x)), the same for x and x + c. Interval: the share of an element at its lower end and of all
 * others at their upper ends, and the other way round, which is exact. Linear bounds are those of exp(logSoftmax(x)).
 */
export const softmaxOp: Op<{ readonly axis: number }> = {
  name: 'softmax',
  shape: logSoftmaxOp.shape,
  vjp: (ct, [x], out, { axis }) => {
    const p = normalized(x, [axis])
    const total = sum(mul(ct, p), axis + leading(ct, out.shape).length, true)
    return [mul(p, sub(ct, total))]
  },
  interval: ([x], { axis }) => {
    const [l, u] = [lowerOf(x), upperOf(x)]
    if (S.size(x.shape) * x.shape[axis] <= MAX_PAIRS) {
      const [lower, upper] = shares(l, u, axis)
      return interval(lower, upper)
    }
    // The least share of the sum is at most 1.
    return interval(exp(relative(l, u, [axis])), minimum(exp(relative(u, l, [axis])), 1) as Tensor)
  },
  relax: { definition: ([x], { axis }) => exp(logSoftmax(x, axis)) },
  kernel: { expand: ([x], { axis }) => normalized(x, [axis]) },
}

/**
 * Probabilities along an axis.
 *
 * @example
 *   softmax(constant([0, 0], [1, 2])) // [0.5, 0.5]
 */
export const softmax = <T extends Operand>(x: T, axis = -1): T =>
  apply(softmaxOp, [x], { axis: S.axisOf(axis, x.shape.length) }) as T

// ---- cross-entropy ---------------------------------------------------------------------------------------------------

/**
 * The logits of the given classes: `[n, k], [n] -> [n]`, or `[n, 1]` with `keep`. Chosen, not multiplied by a mask: a class that is switched off by -infinity
 * would make every sum NaN (-inf * 0).
 */
export const logitOf = <T extends Operand>(logits: T, labels: Tensor, keep = false): T =>
  sum(select(oneHot(labels, logits.shape[1]), logits, 0) as Operand, 1, keep) as T

/** Below the largest logit by more than this a probability is 0 in float32, and nothing beside the others in float64. */
const FAR = 128

/** log(1 + sum over j != y of e^(z_j - z_y)): as bounds see it, in which the label's own term is 1 at both ends of a box. */
const relativeToLabel = (z: Operand, y: Tensor): Operand => {
  const difference = sub(z, broadcastTo(logitOf(z, y, true), z.shape))
  return logSumExp(select(oneHot(y, z.shape[1]), 0, difference) as Operand, 1)
}

/**
 * Logits from which the loss is computed, `[n, k]`, and what it is more than their log-sum-exp, `[n, 1]`: differences from the label's logit, which is 0. Where the
 * label's probability is 0 beside the others, it is left out and they are taken from the largest logit: differences from the label's would round away what the
 * others differ by, or be infinite.
 */
const differences = (z: Tensor, y: Tensor): { readonly logits: Tensor; readonly more: Tensor } => {
  const [own, top] = [logitOf(z, y, true), shiftOf(z, [1])]
  const far = greater(sub(top, own), FAR)
  const from = broadcastTo(select(far, top, own), z.shape)
  const mine = select(far, Number.NEGATIVE_INFINITY, 0)
  return {
    logits: select(oneHot(y, z.shape[1]), mine, sub(z, from)),
    more: select(far, sub(top, own), 0),
  }
}

const ofLabels = (y: Operand): Tensor =>
  isInterval(y)
    ? raise({ kind: 'unsupported', what: 'crossEntropy of interval labels', reason: 'a label is a number of a class' })
    : y

/**
 * log(sum_j e^(z_j - z_y)) of logits and labels, `[n, k], [n] -> [n]` (nn/criterion.ts says what it is of infinite ones). Gradient: the softmax for the other
 * classes, and for the label minus their sum, which is exact to rounding where its probability is nearly 1.
 */
export const crossEntropyOp: Op<undefined> = {
  name: 'crossEntropy',
  shape: ([z, y]) =>
    z.length === 2 && y.length === 1 && z[0] === y[0] && z[1] > 0
      ? E.right(y)
      : E.left('takes logits [n, k], k > 0, and labels [n]'),
  vjp: (ct, [z, y]) => {
    const hot = oneHot(y, z.shape[1])
    const each = select(hot, 0, mul(reshape(ct, [z.shape[0], 1]), normalized(differences(z, y).logits, [1])))
    return [select(hot, neg(sum(each, 1, true)), each), undefined]
  },
  interval: ([z, y]) => {
    const box = relativeToLabel(z, ofLabels(y))
    return interval(lowerOf(box), upperOf(box))
  },
  relax: { definition: ([z, y]) => relativeToLabel(z, y) as Tensor },
  kernel: {
    expand: ([z, y]) => {
      const { logits, more } = differences(z, y)
      return add(logSumExp(logits, 1), reshape(more, y.shape))
    },
  },
}
