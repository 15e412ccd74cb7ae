import { raise } from '../core/error.ts'
import { type Affine, describe, node } from '../core/op.ts'
import { ETA, TO_NEAREST } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Tensor } from '../core/tensor.ts'
import {
  abs,
  absMul,
  addDown,
  addUp,
  broadcastTo,
  centreAndReach,
  divOp,
  enclose,
  errorOfSum,
  hull,
  LARGE,
  magnitude,
  majorant,
  maximum,
  mul,
  mulUp,
  reshape,
  roundingError,
  scalar,
  stopGradient,
  subDown,
  subUp,
  sum,
  sumTailInStages,
  within,
  zeros,
} from '../ops/index.ts'
import { countsOf, isRearrangement, isSum } from './anatomy.ts'
import type { Context, Covering, Ends, Gathered, Rows } from './rows.ts'
import { atPlaces } from './windows.ts'

/**
 * Backward walks that hold in spite of rounding (proofs/Walk.v, for points that are known exactly).
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
 * 1. Product x = W z, A_z := fl(A_x V), m terms, V the weights as they are computed, |W - V| <= D (0 for leaves): |A_z - A_x V| <= g_m |A_x||V| + m h, so
 *    A_x W z >= A_z z - |A_x|(g_m |V||z| + D|z|) - m h sum |z|.
 * 2. Point b added, c as it is computed, |b - c| <= d: the offset gains fl(A_x . c), products through k roundings each: s_x = g_k |c| + d.
 * 3. Point p multiplied, q as it is computed, |p - q| <= d: A_z = fl(A_x q), so s_x = u |q z| + d |z|, and h sum |z|. A divisor likewise, with its reciprocal.
 * 4. Relaxation p z + t with slopes as computed and lines that hold exactly (`Outward.relax`): A_z = fl(A_x p) for each operand z, s_x = u |p||z|, where
 *    |p| <= 1 unless slopes may be steep; the offset gains a sum like that of 2: g_k |t|. Slopes of 0 and 1 lose nothing. A point that is off is such an operand, too.
 * 5. Two rows meet at z: A_z = fl(A + A'), and |A_z - A - A'| <= u |A_z|: s_z = u |z| (additions do not underflow).
 * 6. Repetition (broadcast, overlapping windows) adds m coefficients up: g_m |x|. Sums repeat them, and rearrangements move them, exactly.
 * 7. The end at a box c +- r: A v >= fl(A . c) - |A|(r + g_k |c|).
 * 8. `deployed`: a node that is a value of its own is executed, v_x = x + e with |e| <= s_x by the lemma of bounds/executions.ts. What is part of another node
 *    has no value of its own, only the exact one, and nothing is owed for it.
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

/** sum over j of the largest |z_j|, `[n]`, from these `[n, ...z]`. */
const norm = (m: Tensor): Tensor => {
  const axes = [...m.shape.keys()].slice(1)
  const total = axes.length === 0 ? m : sum(m, axes)
  return majorant(total, Math.max(1, S.size(m.shape.slice(1))))
}

const vectorOf = (vector: Tensor | undefined): Slack => ({ vector, scalar: undefined })
const scalarOf = (scalar: Tensor | undefined): Slack => ({ vector: undefined, scalar })

/** What coefficients of z, each a sum of m products, lose to underflow. */
const faint = (size: Tensor, m: number): Slack => scalarOf(mulUp(norm(size), Math.max(m * ETA, 2 ** -120)))

/** The largest magnitude that a point, as it is computed or as it is meant, may have. */
const sizeOf = (p: Tensor, { point }: Covering): Tensor => {
  const e = point(p)
  return isInterval(e) ? maximum(abs(p), magnitude(e)) : abs(p)
}

/** 2. A point that the offset gains, by how much it may be off included. */
const pointSlack = (rows: Rows, v: Tensor, off?: Tensor): Slack => {
  const summed = errorOfSum(abs(v), sizes(rows).depth)
  return vectorOf(off === undefined ? summed : addUp(summed, off))
}

/** By how much the value of an op with its boxed operands at 0 may be off. */
const pointOff = (x: Tensor, ctx: Context, cover: Covering): Tensor | undefined => {
  const offs = x.inputs.map((i) => (ctx.boxed.has(i) ? undefined : cover.off(i)))
  if (offs.every((off) => off === undefined)) return undefined
  return isSum(x)
    ? offs.find((off) => off !== undefined)
    : node(
        x.op,
        offs.map((off, k) => off ?? zeros(x.inputs[k].shape)),
        x.attrs,
      )
}

/** 1. |W||z| of a product, NaN where its terms could overflow. */
const reachOf = (x: Tensor, z: Tensor, cover: Covering, terms: number): Tensor => {
  const sizes = x.inputs.map((i) => (i === z ? magnitude(cover.box(i)) : sizeOf(i, cover)))
  const sums = majorant(node(x.op, sizes, x.attrs), terms)
  return within(sums, LARGE, sums)
}

/** 1. |dW||z| of a product: what its weights may be off costs; undefined where they are exact. */
export const weightError = (x: Tensor, z: Tensor, cover: Covering): Tensor | undefined => {
  const offs = x.inputs.map((i) => (i === z ? magnitude(cover.box(i)) : cover.off(i)))
  return offs.includes(undefined)
    ? undefined
    : majorant(node(x.op, offs as readonly Tensor[], x.attrs), countsOf(x)?.result as number)
}

/** 3. What a factor, or a divisor, may be off costs: |z||dp|, undefined where it is exact. */
const factorError = (x: Tensor, z: Tensor, p: Tensor, cover: Covering): Tensor | undefined => {
  const off = cover.off(p)
  if (off === undefined) return undefined
  const size = magnitude(cover.box(z))
  if (x.op.linear === 'multiplies') return mulUp(size, off)
  const near = hull(p, cover.point(p))
  const { lower, upper } = enclose(divOp, [scalar(1), near], undefined, 'real')
  return mulUp(size, subUp(upper, lower))
}

/** The slack of an op that is linear in its boxed operands; `point` is what the offset gains from the others. */
export const linearSlack = (rows: Rows, x: Tensor, point: Tensor | undefined, ctx: Context, cover: Covering): Slack => {
  const gained = point === undefined ? NONE : pointSlack(rows, point, pointOff(x, ctx, cover))
  const z = x.inputs.find((i) => ctx.boxed.has(i)) as Tensor
  const terms = countsOf(x)
  const { linear } = x.op
  if (terms !== undefined && linear !== 'repeats') {
    const lost = vectorOf(errorOfSum(reachOf(x, z, cover, terms.result), terms.adjoint))
    return both(both(lost, vectorOf(weightError(x, z, cover))), faint(magnitude(cover.box(z)), terms.adjoint))
  }
  if (isRearrangement(x) || isSum(x)) return gained
  if (linear === 'multiplies' || linear === 'divides') {
    const p = x.inputs[1 - x.inputs.indexOf(z)]
    const off = factorError(x, z, p, cover)
    // |z||p| for the point as it is computed, which the box of x does not know if it is off.
    const size = off === undefined ? magnitude(cover.box(x)) : addUp(magnitude(cover.box(x)), off)
    // Rows of windows divide by multiplying with 1 / p: two roundings, of which the first may underflow.
    const scaled = addUp(errorOfSum(size, 2), mulUp(magnitude(cover.box(z)), 2 ** -120))
    return both(both(vectorOf(scaled), vectorOf(off)), faint(magnitude(cover.box(z)), 1))
  }
  if (linear === 'sums') return NONE
  if (terms === undefined)
    return raise({
      kind: 'unsupported',
      what: `outward rounding of linear bounds of ${describe(x)}`,
      reason: 'no error bound of it is proved',
      instead: TO_NEAREST,
    })
  return vectorOf(errorOfSum(magnitude(cover.box(x)), terms.adjoint))
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
  if (x.op.outward?.relax === 'selection') return gained
  const { relax } = x.op
  const collect = typeof relax === 'object' && 'lift' in relax ? relax.collect : undefined
  const collected = (size: Tensor): Tensor => (collect === undefined ? size : collect(size, x.attrs))
  return x.inputs.reduce((lost, z, k) => {
    const boxed = ctx.boxed.has(z)
    if (!boxed && !isInterval(cover.point(z))) return lost
    const most = boxed ? magnitude(cover.box(z)) : broadcastTo(sizeOf(z, cover), x.shape)
    const [p, q] = [lines.lower.slopes[k], lines.upper.slopes[k]]
    const slope = p === q ? abs(p) : maximum(abs(p), abs(q))
    const size = x.op.outward?.steep ? mulUp(most, slope) : most
    return both(lost, both(vectorOf(collected(roundingError(size))), faint(most, 1)))
  }, gained)
}

/**
 * 9. A product x = a b of two boxes, c_a, c_b their centres and r_a, r_b their radii as they are computed: (a - c_a)(b - c_b) is at most |r_a||r_b|, so x is
 * c_a b + a c_b - c_a c_b but for that, and the rows of a and b are those of two products with points (1). The point c_a c_b, as it is computed, is taken off the offset (2).
 */
export const centredSlack = (rows: Rows, x: Tensor, boxes: readonly Interval[], value: Tensor): Slack => {
  const { result, adjoint } = countsOf(x) as { readonly result: number; readonly adjoint: number }
  const product = (sizes: readonly Tensor[]): Tensor => majorant(node(x.op, sizes, x.attrs), result)
  const reach = product(boxes.map(magnitude))
  const sizes = within(reach, LARGE, reach)
  const lost = both(vectorOf(errorOfSum(sizes, adjoint, 2)), vectorOf(product(boxes.map((b) => centreAndReach(b).r))))
  const small = boxes.map((b) => faint(magnitude(b), adjoint)).reduce(both)
  return both(both(lost, small), pointSlack(rows, value, errorOfSum(sizes, result)))
}

/** 8. By how much executions of a node may differ, for one that is a value of its own. */
export const executionSlack = (x: Tensor, cover: Covering): Slack =>
  vectorOf(cover.isPart(x) ? undefined : cover.error(x))

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
const pointValue = (rows: Rows, x: Tensor, v: Tensor): Ends => {
  const { lower, upper } = dot(rows, x, v, mul)
  return { lower, upper }
}

/** 2. The same with what it loses, for a node that is a point. */
export const pointCovered = (rows: Rows, x: Tensor, cover: Covering): Covered => ({
  value: pointValue(rows, x, x),
  error: errorOf(rows, x, pointSlack(rows, x, cover.off(x))) as Ends,
})

/** |dA||y| for rows A of the output y that may be off, `[rows, n]`; undefined where they are exact. */
export const specificationError = (y: Tensor, spec: Tensor, cover: Covering | undefined): Tensor | undefined => {
  const off = cover?.off(spec)
  if (cover === undefined || off === undefined) return undefined
  const vector = magnitude(cover.box(y))
  return (errorOf({ lower: off, upper: off }, y, { vector, scalar: undefined }) as Ends).lower
}

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
export const concluded = (offset: Gathered, error: Gathered): Ends => {
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
