import { raise } from '../core/error.ts'
import { type Affine, node } from '../core/op.ts'
import { ETA } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import {
  abs,
  absMul,
  add,
  addDown,
  addOp,
  addUp,
  biasError,
  broadcastOp,
  type Conv,
  centreAndReach,
  concatOp,
  conv2dOp,
  divOp,
  errorOfCounted,
  errorOfSum,
  executionOf,
  full,
  greater,
  LARGE,
  type Matmul,
  magnitude,
  majorant,
  matmulOp,
  maximum,
  mul,
  mulOp,
  mulUp,
  negOp,
  padOp,
  probeOp,
  reshape,
  reshapeOp,
  roundingError,
  scalar,
  sliceOp,
  stopGradient,
  subDown,
  subOp,
  sum,
  sumOp,
  sumTailInStages,
  transposeOp,
  unfoldOp,
  within,
} from '../ops/index.ts'
import { biasOf, termsOf } from './ibp.ts'
import { atPlaces } from './patches.ts'
import { type Context, type Covering, describe, type Ends, type Gathered, type Rows } from './rows.ts'

/**
 * Backward walks that hold in spite of rounding.
 *
 * What a walk keeps true, for the lower bound of a functional (the upper one likewise), in exact arithmetic and for every execution that the
 * semantics names, v_x being its value of node x:
 *
 *     functional >= sum over the open nodes x of A_x . v_x + offset - error                                     (*)
 *
 * with the coefficients A_x as they were computed. So coefficients may be any floats, and every step from a node x to its operands has to add
 * to `error` at least what the step loses. All losses are linear in |A_x|, so each node has one vector of *slack* s_x >= 0, the same for
 * all rows, and the error grows by |A_x| . s_x; coefficients that underflow add a scalar. With |z| the largest magnitude in the box of z
 * (a sound one), u = U, g_n = gamma_n, h = ETA:
 *
 * 1. Product x = W z, A_z := fl(A_x W), m terms: |A_z - A_x W| <= g_m |A_x||W| + m h, so A_x W z >= A_z z - |A_x| g_m (|W||z|) - m h sum |z|.
 *    `deployed`: v_x = W z + d with |d| <= g_{n+1} |W||z| + (n + 1) h for n terms and a bias in any order: s_x += that. Of the n terms only those
 *    count whose |z| is not 0: where it is, every execution has z = 0, its product is 0, and adding 0 is exact (fused too).
 * 2. Point b added: the offset gains fl(A_x . b), products through k roundings each: s_x = g_k |b|. `deployed`: if x is a product and
 *    its bias, g_{n+1} |b| (the rest is in 1), else one rounding of x, u |x| + h.
 * 3. Point p multiplied: A_z = fl(A_x p), so s_x = u |x|, and h sum |z|; `deployed`: one rounding of x.
 * 4. Relaxation p z + t with slopes as computed and lines that hold exactly (`Outward.relax`): A_z = fl(A_x p) for each operand z, s_x = u |p||z|, where
 *    |p| <= 1 unless slopes may be steep; the offset gains a sum like that of 2: g_k |t|. Slopes of 0 and 1 lose nothing. `deployed`: what an execution of x may be off.
 * 5. Two rows meet at z: A_z = fl(A + A'), and |A_z - A - A'| <= u |A_z|: s_z = u |z| (additions do not underflow).
 * 6. Repetition (broadcast, overlapping windows) adds m coefficients up: g_m |x|. Sums repeat them, exactly; `deployed`: g_n sum |z|.
 *    Rearrangements are exact.
 * 7. The end at a box c +- r: A v >= fl(A . c) - |A|(r + g_k |c|).
 *
 * Errors are sums of non-negative terms and are taken by `majorant`, which has room for the h of each product in the sums of 2, 4 and 7; the offset is added downward (upward). An error of at most 2^100 means that
 * the terms of each of these sums, being errors over some g >= 2^-24, add up to at most 2^124: nothing overflowed. Otherwise the bound is NaN.
 */
export interface Slack {
  /** Broadcasts against the node: `[n or 1, ...x]`. */
  readonly vector: Tensor | undefined
  /** Per image, `[n]` or `[]`. */
  readonly scalar: Tensor | undefined
}

const NONE: Slack = { vector: undefined, scalar: undefined }

const more = (a: Tensor | undefined, b: Tensor | undefined): Tensor | undefined => (a && b ? addUp(a, b) : (a ?? b))
const both = (a: Slack, b: Slack): Slack => ({ vector: more(a.vector, b.vector), scalar: more(a.scalar, b.scalar) })

/** What two steps lose together. */
export const addSlack = (a: Slack = NONE, b: Slack = NONE): Slack => both(a, b)

/** Rows times a value, taken in stages: the sums, and through how many roundings. */
const dot = (rows: Rows, x: Tensor, v: Tensor, product: (a: Tensor, v: Tensor) => Tensor) => {
  const { tail, depth } = sizes(rows)
  const placed = rows.patch === undefined ? v : atPlaces(v, x, rows.patch)
  const at = (a: Tensor) => sumTailInStages(product(a, placed), tail).value
  const lower = at(rows.lower)
  return { lower, upper: rows.upper === rows.lower ? lower : at(rows.upper), depth }
}

/** Axes in front of the node's, and roundings that each product of a row's sum over the node goes through. */
const sizes = (rows: Rows) => {
  const tail = rows.patch === undefined ? 2 : 3
  const { depth } = sumTailInStages(rows.lower, tail)
  return { tail, depth: depth + 1 }
}

/** sum over j of the largest |z_j|, `[n]`. */
const norm = (z: Tensor, cover: Covering): Tensor => {
  const m = magnitude(cover.box(z))
  const axes = [...m.shape.keys()].slice(1)
  const total = axes.length === 0 ? m : sum(m, axes)
  return majorant(total, Math.max(1, S.size(m.shape.slice(1))))
}

const vectorOf = (vector: Tensor | undefined): Slack => ({ vector, scalar: undefined })
const scalarOf = (scalar: Tensor | undefined): Slack => ({ vector: undefined, scalar })

/** What coefficients of z, each a sum of m products, lose to underflow. */
const faint = (z: Tensor, m: number, cover: Covering): Slack =>
  scalarOf(mulUp(norm(z, cover), Math.max(m * ETA, 2 ** -120)))
/** One rounding of the node itself, where executions are covered. */
const rounded = (x: Tensor, { semantics, box }: Covering): Slack =>
  semantics === 'real' ? NONE : vectorOf(executionOf(x.op, magnitude(box(x))))

/** 2. A point that the offset gains. */
const pointSlack = (rows: Rows, v: Tensor): Slack => vectorOf(errorOfSum(abs(v), sizes(rows).depth))

/** 1. |W||z| of a product, NaN where its terms could overflow. */
const reachOf = (x: Tensor, z: Tensor, { box }: Covering, terms: number): Tensor => {
  const sizes = x.inputs.map((i) => (i === z ? magnitude(box(i)) : abs(i)))
  const sums = majorant(node(x.op, sizes, x.attrs), terms)
  return within(sums, LARGE, sums)
}

/** 1. How many terms of each sum of a product are not 0 in some execution, `[n, 1]` or `[n, 1, h, w]`; at most `terms`. */
const liveTerms = (x: Tensor, z: Tensor, { box }: Covering, terms: number): Tensor => {
  const [, w] = x.inputs
  const live = greater(magnitude(box(z)), 0) as Tensor
  if (x.op === conv2dOp) {
    // Without groups every output channel counts the same terms.
    const outs = (x.attrs as Conv).groups === undefined ? 1 : w.shape[0]
    return node(x.op, [live, full([outs, ...w.shape.slice(1)], 1)], x.attrs)
  }
  const each = x.op === matmulOp && x.shape.length === 2 && !(x.attrs as Matmul).transA
  return each ? reshape(sum(live, [1]), [live.shape[0], 1]) : scalar(terms)
}

/** 1. By how much an execution of a product with a bias may differ from it, but for the share of the bias itself. */
export const executionError = (x: Tensor, z: Tensor, cover: Covering): Tensor | undefined => {
  const terms = termsOf(x)?.result
  if (cover.semantics === 'real' || terms === undefined) return undefined
  return errorOfCounted(reachOf(x, z, cover, terms), add(liveTerms(x, z, cover, terms), 1) as Tensor)
}

const REARRANGE = new Set<unknown>([negOp, reshapeOp, transposeOp, sliceOp, padOp, concatOp, probeOp])

/** The slack of an op that is linear in its boxed operands; `point` is what the offset gains from the others. */
export const linearSlack = (rows: Rows, x: Tensor, point: Tensor | undefined, ctx: Context, cover: Covering): Slack => {
  const gained = point === undefined ? NONE : pointSlack(rows, point)
  const z = x.inputs.find((i) => ctx.boxed.has(i)) as Tensor
  const terms = termsOf(x)
  if (terms !== undefined) {
    const lost = vectorOf(errorOfSum(reachOf(x, z, cover, terms.result), terms.adjoint))
    return both(both(lost, vectorOf(executionError(x, z, cover))), faint(z, terms.adjoint, cover))
  }
  if (REARRANGE.has(x.op)) return gained
  if (x.op === addOp || x.op === subOp) {
    const bias = cover.semantics === 'deployed' ? biasOf(x, (i) => ctx.boxed.has(i)) : undefined
    return both(gained, bias === undefined ? rounded(x, cover) : vectorOf(biasError(bias.value, bias.terms)))
  }
  if (x.op === mulOp || x.op === divOp) {
    // Rows of windows divide by multiplying with 1 / p: two roundings, of which the first may underflow.
    const scaled = addUp(errorOfSum(magnitude(cover.box(x)), 2), mulUp(magnitude(cover.box(z)), 2 ** -120))
    return both(both(vectorOf(scaled), faint(z, 1, cover)), rounded(x, cover))
  }
  if (x.op === sumOp) {
    const n = S.size(z.shape) / S.size(x.shape)
    const total = () => errorOfSum(majorant(node(x.op, [magnitude(cover.box(z))], x.attrs), n), n)
    return cover.semantics === 'real' ? NONE : vectorOf(total())
  }
  const repeats =
    x.op === broadcastOp
      ? S.size(x.shape) / S.size(z.shape)
      : x.op === unfoldOp
        ? S.size((x.attrs as Conv).w)
        : undefined
  if (repeats === undefined)
    return raise({
      kind: 'unsupported',
      what: `outward rounding of linear bounds of ${describe(x)}`,
      reason: 'no error bound of it is proved',
    })
  return vectorOf(errorOfSum(magnitude(cover.box(x)), repeats))
}

/** The slack of a relaxation. */
export const relaxationSlack = (
  rows: Rows,
  x: Tensor,
  lines: { readonly lower: Affine; readonly upper: Affine },
  ctx: Context,
  cover: Covering,
): Slack => {
  const intercepts = [lines.lower, lines.upper].flatMap(({ intercept }) => (intercept ? [abs(intercept)] : []))
  const point = intercepts.length === 0 ? undefined : intercepts.reduce((a, b) => maximum(a, b))
  const gained = point === undefined ? NONE : pointSlack(rows, point)
  const own = x.op.outward?.interval === 'exact' ? NONE : rounded(x, cover)
  if (x.op.outward?.relax === 'selection') return both(gained, own)
  const size = (z: Tensor, k: number): Tensor => {
    const [p, q] = [lines.lower.slopes[k], lines.upper.slopes[k]]
    const most = p === q ? abs(p) : maximum(abs(p), abs(q))
    return x.op.outward?.steep ? mulUp(magnitude(cover.box(z)), most) : magnitude(cover.box(z))
  }
  return x.inputs.reduce<Slack>(
    (sum, z, k) => (ctx.boxed.has(z) ? both(sum, both(vectorOf(roundingError(size(z, k))), faint(z, 1, cover))) : sum),
    both(gained, own),
  )
}

/** 5. The slack of a node at which rows meet. */
export const mergeSlack = (z: Tensor, cover: Covering): Slack => vectorOf(roundingError(magnitude(cover.box(z))))

/** Bounds of a part of the functional, and by how much rounding may have moved them. */
export interface Covered {
  readonly value: Ends | undefined
  readonly error: Ends
}

const perRow = (rows: Rows, perImage: Tensor): Tensor =>
  perImage.shape.length === 0 ? perImage : reshape(perImage, [1, perImage.shape[0], ...(rows.patch ? [1] : [])])

/** |A| . s + scalar for lower and upper rows: what a node adds to the errors. */
export const errorOf = (rows: Rows, x: Tensor, { vector, scalar: constant }: Slack): Ends | undefined => {
  const shared = constant && perRow(rows, constant)
  if (vector === undefined) return shared && { lower: shared, upper: shared }
  const { lower, upper, depth } = dot(rows, x, vector, absMul)
  const total = (m: Tensor) => {
    const error = majorant(m, depth)
    // No slope is chosen for the sake of rounding: what is lost to it stays out of gradients.
    return stopGradient(shared === undefined ? error : addUp(error, shared))
  }
  const own = total(lower)
  return { lower: own, upper: upper === lower ? own : total(upper) }
}

/** A . v for a point v. */
export const pointValue = (rows: Rows, x: Tensor, v: Tensor): Ends => {
  const { lower, upper } = dot(rows, x, v, mul)
  return { lower, upper }
}

/** 2. The same with what it loses, for a node that is a point. */
export const pointCovered = (rows: Rows, x: Tensor): Covered => ({
  value: pointValue(rows, x, x),
  error: errorOf(rows, x, pointSlack(rows, x)) as Ends,
})

/** 7. The end of a walk at the box of x, where `slack` is still owed. */
export const concretizeCovered = (rows: Rows, x: Tensor, box: Interval, slack: Slack = NONE): Covered => {
  const { c, r } = centreAndReach(box)
  const reach = addUp(r, errorOfSum(abs(c), sizes(rows).depth))
  const spread = dot(rows, x, slack.vector === undefined ? reach : addUp(reach, slack.vector), absMul)
  const shared = slack.scalar && perRow(rows, slack.scalar)
  const total = (m: Tensor) => {
    const error = majorant(m, spread.depth)
    return shared === undefined ? error : addUp(error, shared)
  }
  const lower = total(spread.lower)
  return {
    value: pointValue(rows, x, c),
    error: { lower, upper: spread.upper === spread.lower ? lower : total(spread.upper) },
  }
}

/** (*) read off when no node is open any more. */
export const settled = (offset: Gathered, error: Gathered): Ends => {
  const zero = scalar(0)
  const end = (value: Tensor | undefined, e: Tensor | undefined, step: (a: Tensor, b: Tensor) => Tensor) =>
    within(e ?? zero, 2 ** 100, step(value ?? zero, e ?? zero))
  return { lower: end(offset.lower, error.lower, subDown), upper: end(offset.upper, error.upper, addUp) }
}

/** Offsets are added outward, errors upward. */
export const gather = (a: Gathered, b: Gathered | undefined, kind: 'offset' | 'error'): Gathered => {
  const sum = (p: Tensor | undefined, q: Tensor | undefined, f: (a: Tensor, b: Tensor) => Tensor) =>
    p && q ? f(p, q) : (p ?? q)
  return {
    lower: sum(a.lower, b?.lower, kind === 'offset' ? addDown : addUp),
    upper: sum(a.upper, b?.upper, addUp),
  }
}
