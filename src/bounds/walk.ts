import { order } from '../compile/tape.ts'
import { raise } from '../core/error.ts'
import { counted } from '../core/number.ts'
import { type Affine, attributed, describe, interval, node, type Reduction, type Relax } from '../core/op.ts'
import { TO_NEAREST } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import {
  absMul,
  add,
  broadcastTo,
  centre,
  centreAndReach,
  div,
  full,
  mul,
  neg,
  radius,
  splitMul,
  sub,
  sumTail,
  sumTailInStages,
  zeros,
} from '../ops/index.ts'
import { isNonlinear, isSum, isTermwise, sharesImages } from './anatomy.ts'
import { concretize } from './concretize.ts'
import { both, type Context, type Ends, type Gathered, plus, type Rows } from './rows.ts'
import {
  addSlack,
  type Covered,
  centredSlack,
  concluded,
  concretizeCovered,
  errorOf,
  executionSlack,
  gather,
  linearSlack,
  mergeSlack,
  pointCovered,
  relaxationSlack,
  type Slack,
} from './slack.ts'
import { meeting, mergePatches, patchThrough } from './windows.ts'

const sumRows = (rows: Rows, x: Tensor, ctx: Context): Tensor => {
  const tail = rows.patch === undefined ? 2 : 3
  return ctx.outward === undefined ? sumTail(x, tail) : sumTailInStages(x, tail).value
}

/** What lower and upper rows contribute where the node's value is the point v. */
const pointEnds = (rows: Rows, node: Tensor, v: Tensor, ctx: Context): Ends => {
  const met = meeting(rows, node, v, ctx)
  const at = (a: Tensor) => sumRows(rows, mul(a, met), ctx)
  const lower = at(rows.lower)
  return { lower, upper: rows.upper === rows.lower ? lower : at(rows.upper) }
}

/** What a step of the walk gives: rows for each boxed operand, its share of the offset and, under outward rounding, its slack. */
interface Through {
  readonly to: readonly (Rows | undefined)[]
  readonly ends: Ends | undefined
  readonly slack: Slack | undefined
  /** What operands that are points contribute by themselves. */
  readonly points?: readonly Covered[]
}

const broadcastBox = ({ lower, upper }: Interval, shape: S.Shape): Interval =>
  interval(broadcastTo(lower, shape), broadcastTo(upper, shape))

/** Rows carried through a relaxation, one set for each boxed operand, and the intercepts' share of the offset. */
const throughRelaxation = (rows: Rows, x: Tensor, ctx: Context): Through => {
  const { relax: rule, outward } = x.op
  if (rule === 'linear' || 'unsupported' in rule)
    return raise({
      kind: 'unsupported',
      what: `linear bounds of ${describe(x)}`,
      reason: rule === 'linear' ? '' : rule.unsupported,
    })
  const reduction = typeof rule === 'object' && 'lift' in rule ? (rule as Reduction<unknown>) : undefined
  const made =
    typeof rule === 'object' && 'bilinear' in rule ? rule.bilinear : (reduction?.relax ?? (rule as Relax<unknown>))
  if (typeof made === 'object')
    return raise({ kind: 'unsupported', what: `linear bounds of ${describe(x)}`, reason: made.unsupported })
  if (ctx.outward !== undefined && outward?.relax === undefined && made !== 'centred')
    return raise({
      kind: 'unsupported',
      what: `outward rounding of linear bounds of ${describe(x)}`,
      reason: 'no lines of it are proved',
      instead: TO_NEAREST,
    })
  requireImages(x, ctx)
  if (made === 'centred') return throughCentres(rows, x, ctx)
  const operands: readonly Operand[] = x.inputs.map((i) =>
    ctx.boxed.has(i) ? ctx.bounds(i) : (ctx.outward?.point(i) ?? i),
  )
  const lines = typeof outward?.relax === 'function' && ctx.outward !== undefined ? outward.relax : made
  const { lower, upper } = lines(operands, x.attrs, ctx.slope(x))
  const lifted =
    reduction === undefined ? rows : both(rows, (a) => reduction.lift(perImage(a, x, ctx), x.inputs, x.attrs))
  const place = (v: Tensor) => meeting(rows, x, v, ctx)
  const carried = (k: number): Rows => {
    const [p, q] = [place(lower.slopes[k]), place(upper.slopes[k])]
    const same = lower.slopes[k] === upper.slopes[k]
    const l = splitMul(lifted.lower, p, same ? p : q)
    const u = same && rows.upper === rows.lower ? l : splitMul(lifted.upper, same ? p : q, p)
    return {
      lower: l,
      upper: u,
      ...(rows.patch && { patch: { ...rows.patch, masked: true } }),
    }
  }
  if (reduction === undefined) for (const i of x.inputs) if (ctx.boxed.has(i)) requireWhole(x, i)
  const to = x.inputs.map((i, k) => (ctx.boxed.has(i) ? carried(k) : undefined))
  // A point that is off is an operand like the others, and ends here.
  const points = operands.flatMap((box, k) =>
    isInterval(box) && !ctx.boxed.has(x.inputs[k])
      ? [concretizeCovered(carried(k), x, broadcastBox(box, x.shape))]
      : [],
  )
  const line = ({ intercept }: Affine) => (intercept === undefined ? full([], 0) : place(intercept))
  const zero = lower.intercept === undefined && upper.intercept === undefined
  const share = (a: Tensor, p: Affine, q: Affine) =>
    sumRows(rows, p === q ? mul(a, line(p)) : splitMul(a, line(p), line(q)), ctx)
  return {
    to,
    ends: zero ? undefined : { lower: share(rows.lower, lower, upper), upper: share(rows.upper, upper, lower) },
    slack: ctx.outward && relaxationSlack(rows, x, { lower, upper }, ctx, ctx.outward),
    points,
  }
}

/** Rows of a product of two boxes: those of either factor at the centre of the other, and a radius. */
const throughCentres = (rows: Rows, x: Tensor, ctx: Context): Through => {
  const boxes = x.inputs.map(ctx.bounds)
  const centres = boxes.map((b) => (ctx.outward === undefined ? centre(b) : centreAndReach(b).c))
  const ct = (a: Tensor) => x.op.vjp(perImage(a, x, ctx), centres, x, x.attrs)
  const lower = ct(rows.lower)
  const upper = rows.upper === rows.lower ? lower : ct(rows.upper)
  const own = node(x.op, centres, x.attrs)
  const value = meeting(rows, x, own, ctx)
  // What the radii make, and all that rounds, is slack under outward rounding.
  const spread = ctx.outward === undefined ? meeting(rows, x, node(x.op, boxes.map(radius), x.attrs), ctx) : undefined
  const end = (a: Tensor, part: (a: Tensor, b: Tensor) => Tensor): Tensor => {
    const point = neg(sumRows(rows, mul(a, value), ctx))
    return spread === undefined ? point : part(point, sumRows(rows, absMul(a, spread), ctx))
  }
  return {
    to: x.inputs.map((_, k) => {
      const [l, u] = [lower[k], upper[k]]
      return l === undefined || u === undefined ? cannotWalk(x, k) : { ...rows, lower: l, upper: u }
    }),
    ends: { lower: end(rows.lower, sub), upper: end(rows.upper, add) },
    slack: ctx.outward && centredSlack(rows, x, boxes, own),
  }
}

const cannotWalk = (x: Tensor, operand: number): never =>
  raise({
    kind: 'unsupported',
    what: `linear bounds of ${describe(x)}`,
    reason: `operand ${operand} is an interval, and its rule has no rows of coefficients for that operand`,
  })

/** Refuses an operand of an elementwise op that is repeated: rows over the result are not rows over it. */
const requireWhole = (x: Tensor, i: Tensor): void => {
  if (!S.equals(x.shape, i.shape))
    raise({
      kind: 'unsupported',
      what: `linear bounds of ${describe(x)}`,
      reason: 'an interval operand is broadcast; broadcast it explicitly with broadcastTo',
    })
}

const merge = (a: Rows | undefined, b: Rows): Rows => {
  if (a === undefined) return b
  if (a.patch !== undefined) return mergePatches(a, b)
  const lower = add(a.lower, b.lower)
  return { lower, upper: a.upper === a.lower && b.upper === b.lower ? lower : add(a.upper, b.upper) }
}

/** One step of the walk, from a node to its boxed operands. */
export const through = (rows: Rows, x: Tensor, ctx: Context): Through =>
  isNonlinear(x, ctx.boxed) ? throughRelaxation(rows, x, ctx) : linear(rows, x, ctx)

/** Bounds of the rows, and the coefficients with which the walk came to each node that it ended at. */
interface Walked extends Ends {
  readonly met: ReadonlyMap<Tensor, Rows>
}

/**
 * Bounds of rows of `root` by the walk; it ends at nodes whose box `terminal` knows. Where executions are covered, those of the root are unless it is no
 * value: `isValue` false bounds its exact results.
 */
export const walk = (
  root: Tensor,
  start: Rows,
  ctx: Context,
  terminal: (x: Tensor) => Interval | undefined,
  isValue = true,
): Walked => {
  const cover = ctx.outward
  const nodes = order([root])
  const rowsOf = new Map<Tensor, Rows>([[root, start]])
  const owed = new Map<Tensor, Slack>()
  const met = new Map<Tensor, Rows>()
  let [offset, error]: Gathered[] = [{}, {}]
  const collect = (value: Ends | undefined, lost?: Gathered) => {
    if (cover === undefined) offset = plusEnds(offset, value)
    else [offset, error] = [gather(offset, value, 'offset'), gather(error, lost, 'error')]
  }
  for (const x of [...nodes].reverse()) {
    const rows = rowsOf.get(x)
    if (rows === undefined) continue
    const box = terminal(x)
    if (box !== undefined || !ctx.boxed.has(x)) {
      if (box !== undefined) met.set(x, rows)
      if (cover === undefined) collect(box === undefined ? pointEnds(rows, x, x, ctx) : concretize(rows, x, box, ctx))
      else {
        const end = box === undefined ? pointCovered(rows, x, cover) : concretizeCovered(rows, x, box, owed.get(x))
        collect(end.value, end.error)
      }
      continue
    }
    const { to, ends, slack, points = [] } = attributed(x, () => through(rows, x, ctx))
    collect(ends)
    for (const { value, error } of points) collect(value, error)
    if (cover !== undefined) {
      const executed = x === root && !isValue ? undefined : executionSlack(x, cover)
      const due = addSlack(addSlack(slack, executed), owed.get(x))
      const heir = heirOf(x, nodes, ctx)
      if (heir === undefined) collect(undefined, errorOf(rows, x, due))
      else owed.set(heir, due)
    }
    x.inputs.forEach((i, k) => {
      const r = to[k]
      if (r === undefined) return
      const before = rowsOf.get(i)
      const merged = merge(before, r)
      rowsOf.set(i, merged)
      if (before !== undefined && cover !== undefined && ctx.boxed.has(i))
        collect(undefined, errorOf(merged, i, mergeSlack(i, cover)))
    })
  }
  if (cover !== undefined) return { ...concluded(offset, error), met }
  const zero = full([1, 1], 0)
  return { lower: offset.lower ?? zero, upper: offset.upper ?? zero, met }
}

const plusEnds = (a: Gathered, b: Ends | undefined): Gathered => ({
  lower: plus(a.lower, b?.lower),
  upper: plus(a.upper, b?.upper),
})

/** The operand that has exactly the rows of x: that of an addition of a point, if nothing else uses it. It takes on the slack of x. */
const heirOf = (x: Tensor, nodes: readonly Tensor[], ctx: Context): Tensor | undefined => {
  if (!isSum(x)) return undefined
  const [z, another] = x.inputs.filter((i) => ctx.boxed.has(i))
  return another === undefined && nodes.every((y) => y === x || !y.inputs.includes(z)) ? z : undefined
}

/** Rows are per image, so each image of a node must depend on the same image of its boxed operands alone. */
const requireImages = (x: Tensor, ctx: Context): void => {
  const { inputs, shape, attrs } = x
  const isBoxed = inputs.map((i) => ctx.boxed.has(i))
  const lost = inputs.findIndex((i, k) => isBoxed[k] && i.shape[0] !== ctx.images)
  const moved =
    x.op.keepsImages?.(
      inputs.map((i) => i.shape),
      shape,
      attrs,
      isBoxed,
    ) === false
  if (lost >= 0 || moved || shape[0] !== ctx.images)
    raise({
      kind: 'unsupported',
      what: `linear bounds of ${describe(x)}`,
      reason:
        lost >= 0
          ? `operand ${lost}, ${S.show(inputs[lost].shape)}, does not begin with the axis of the batch, which has ${counted(ctx.images, 'image')}, and bounds are taken per image`
          : 'it mixes or moves the images of a batch, and bounds are taken per image',
    })
}

/** Rows through an op that is linear in its boxed operands; point operands go into the offset. */
const linear = (rows: Rows, x: Tensor, ctx: Context): Through => {
  requireImages(x, ctx)
  const isBoxed = x.inputs.map((i) => ctx.boxed.has(i))
  // The value of the op with its boxed operands at 0.
  const point =
    x.op.relax === 'linear' && isBoxed.includes(false)
      ? isSum(x)
        ? pointTerm(x, isBoxed)
        : rebuilt(x, isBoxed)
      : undefined
  return {
    to: linearRows(rows, x, isBoxed, ctx),
    ends: point && pointEnds(rows, x, point, ctx),
    slack: ctx.outward && linearSlack(rows, x, point, ctx, ctx.outward),
  }
}

const linearRows = (
  rows: Rows,
  x: Tensor,
  isBoxed: readonly boolean[],
  ctx: Context,
): readonly (Rows | undefined)[] => {
  const { linear: kind, windowed } = x.op
  if (rows.patch !== undefined && windowed !== undefined) return [patchThrough(rows, x, windowed, ctx), undefined]
  if ((rows.patch !== undefined || ctx.list !== undefined) && (kind === 'multiplies' || kind === 'divides')) {
    const k = isBoxed.indexOf(true)
    requireWhole(x, x.inputs[k])
    const other = x.inputs[1 - k]
    const factor = meeting(rows, x, kind === 'multiplies' ? other : div(1, other), ctx)
    const scaled = both(rows, (a) => mul(a, factor))
    const out: Rows = rows.patch === undefined ? scaled : { ...scaled, patch: { ...rows.patch, masked: true } }
    return k === 0 ? [out, undefined] : [undefined, out]
  }
  if (isTermwise(x)) x.inputs.forEach((i, k) => isBoxed[k] && requireWhole(x, i))
  // A vjp would sum over windows what the point's cotangent is, which nobody asks for.
  if (isSum(x))
    return isBoxed.map((is, k) => (is ? (kind === 'subtracts' && k === 1 ? both(rows, neg) : rows) : undefined))
  const ct = (a: Tensor) => x.op.vjp(perImage(a, x, ctx), x.inputs, x, x.attrs)
  const lower = ct(rows.lower)
  const upper = rows.upper === rows.lower ? lower : ct(rows.upper)
  return x.inputs.map((_, k) => {
    const [l, u] = [lower[k], upper[k]]
    if (!isBoxed[k]) return undefined
    return l !== undefined && u !== undefined ? { ...rows, lower: l, upper: u } : cannotWalk(x, k)
  })
}

/** Coefficients for every image or item, where the vjp does not take those of one for all. */
const perImage = (a: Tensor, x: Tensor, ctx: Context): Tensor =>
  sharesImages(x) ? a : broadcastTo(a, [a.shape[0], ctx.list?.length ?? ctx.images, ...a.shape.slice(2)])

const pointTerm = (x: Tensor, isBoxed: readonly boolean[]): Tensor => {
  const k = isBoxed.indexOf(false)
  return x.op.linear === 'subtracts' && k === 1 ? sub(0, x.inputs[1]) : x.inputs[k]
}

const rebuilt = (x: Tensor, isBoxed: readonly boolean[]): Tensor => ({
  ...x,
  inputs: x.inputs.map((i, k) => (isBoxed[k] ? zeros(i.shape) : i)),
})
