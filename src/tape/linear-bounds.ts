import { raise } from '../core/error.ts'
import { type Affine, interval, type Reduction, type Relax, type Slope } from '../core/op.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import {
  type Axes,
  absRowDot,
  add,
  addOp,
  broadcastOp,
  broadcastTo,
  type Conv,
  centre,
  concatOp,
  conv2dInput,
  conv2dOp,
  div,
  divOp,
  equal,
  full,
  iota,
  type Matmul,
  matmulOp,
  mul,
  mulOp,
  neg,
  negOp,
  pad,
  padOp,
  radius,
  reshape,
  reshapeOp,
  rowDot,
  sliceOp,
  splitMul,
  sub,
  subOp,
  sumTail,
  transpose,
  transposeLast,
  transposeOp,
  unfoldBy,
  zeros,
} from '../ops/index.ts'
import { type Boxes, propagate } from './ibp.ts'
import { order } from './tape.ts'

/**
 * Linear bounds by backward substitution (Fast-Lin, CROWN, DeepZ in reverse: method page, section 3).
 *
 * A walk starts with rows of coefficients over a node and carries them back to the input: through a linear op they go by its vjp,
 * through a nonlinear one by its relaxation, and what is constant collects in an offset. At the input box with centre c and radius r,
 * A x lies in A c +- |A| r. Coefficients are `[rows, n, ...shape]`; an extent of 1 in place of n means "the same for every image".
 */
export interface Method {
  /** Lower slopes of the relaxations. A map gives tensors (alpha-CROWN) for some nodes. */
  readonly slope: 'same' | 'adaptive' | 'zero' | ReadonlyMap<Tensor, Tensor>
  /** Pre-activation bounds: by interval propagation, or each by its own full backward walk. */
  readonly hidden: 'ibp' | 'own'
  /** Boxes of hidden nodes that are known already (the splits of a branch, bounds of an earlier run); they are taken as they are. */
  readonly given?: Boxes
}

/** Rows of coefficients of a linear functional of one node. `lower === upper` (one node) while nothing has told them apart. */
interface Rows {
  readonly lower: Tensor
  readonly upper: Tensor
  /** Set when rows are those of a convolution kept as patches: `[o, n, P, c, p, q]`, one window of the node for each of P places. */
  readonly patch?: Patch
}

interface Patch {
  /** Windows of the node's map (x) for a grid (y) of places. */
  readonly g: Conv
  /** Coefficients outside the map are 0 already. */
  readonly masked: boolean
}

/** Bounds of the rows: `[rows, n]`, or `[o, n, P]` for patches. */
interface Ends {
  readonly lower: Tensor
  readonly upper: Tensor
}

interface Context {
  readonly images: number
  /** Nodes that depend on a box. */
  readonly boxed: ReadonlySet<Tensor>
  /** The box of a node that a relaxation asks for. */
  readonly bounds: (x: Tensor) => Interval
  readonly slope: (x: Tensor) => Slope
}

const both = (rows: Rows, f: (a: Tensor) => Tensor): Rows => {
  const lower = f(rows.lower)
  return { ...rows, lower, upper: rows.upper === rows.lower ? lower : f(rows.upper) }
}

const plus = (a: Tensor | undefined, b: Tensor | undefined): Tensor | undefined => (a && b ? add(a, b) : (a ?? b))

/** True for a relaxation that is not linear given which operands are boxed. */
const isNonlinear = (x: Tensor, boxed: ReadonlySet<Tensor>): boolean => {
  const { relax } = x.op
  if (relax === 'linear') return false
  if (typeof relax === 'object' && 'bilinear' in relax) return x.inputs.filter((i) => boxed.has(i)).length > 1
  return !(x.op === divOp && !boxed.has(x.inputs[1]))
}

const dependents = (outputs: readonly Tensor[], boxes: Boxes): ReadonlySet<Tensor> => {
  const boxed = new Set<Tensor>(boxes.keys())
  for (const x of order(outputs)) if (x.inputs.some((i) => boxed.has(i))) boxed.add(x)
  return boxed
}

/** Nodes of a graph as the walks see them, inputs before users. */
export interface Anatomy {
  /** What depends on a box, the boxed nodes included. */
  readonly boxed: ReadonlySet<Tensor>
  /** Nodes whose box a relaxation asks for: the boxed operands of nonlinear ops. */
  readonly hidden: readonly Tensor[]
}

export const anatomy = (output: Tensor, boxes: Boxes): Anatomy => {
  const boxed = dependents([output], boxes)
  const nodes = order([output])
  const asked = new Set(
    nodes.filter((x) => !boxes.has(x) && boxed.has(x) && isNonlinear(x, boxed)).flatMap((x) => x.inputs),
  )
  return { boxed, hidden: nodes.filter((x) => asked.has(x) && boxed.has(x)) }
}

// ---- patches -------------------------------------------------------------------------------------------------------

/** A value of the node, at every place's window: `[n or 1, P, c, p, q]`, zero outside the map. */
const atPlaces = (v: Tensor, node: Tensor, { g }: Patch): Tensor => {
  const n = v.shape.length === 4 ? v.shape[0] : 1
  const windows = unfoldBy(broadcastTo(v, [n, ...node.shape.slice(1)]), g)
  const [, i, j, c, p, q] = windows.shape
  return reshape(windows, [n, i * j, c, p, q])
}

/** Zeroes coefficients outside the map, where a convolution above saw padding. */
const mask = (rows: Rows, node: Tensor): Rows => {
  const { patch } = rows
  if (patch === undefined || patch.masked) return rows
  const { g } = patch
  const inside = [0, 1].every((i) => g.pad[i] === 0 && (g.y[i] - 1) * g.stride[i] + g.w[i] <= g.x[i])
  const ones = () => atPlaces(full([1, ...node.shape.slice(1)], 1), node, patch)
  return { ...(inside ? rows : both(rows, (a) => mul(a, ones()))), patch: { g, masked: true } }
}

/** Rows of a convolution's output patches carried to its input. */
const patchThroughConv = (rows: Rows, conv: Tensor, input: Tensor): Rows => {
  const { g } = rows.patch as Patch
  const k = conv.attrs as Conv
  const grow = (i: 0 | 1) => (g.w[i] - 1) * k.stride[i] + k.w[i]
  const local: Conv = { stride: k.stride, pad: [0, 0], dilation: [1, 1], x: [grow(0), grow(1)], w: k.w, y: g.w }
  const through = both(mask(rows, conv), (a) => conv2dInput(a, conv.inputs[1], local))
  const wider: Conv = {
    ...g,
    stride: [g.stride[0] * k.stride[0], g.stride[1] * k.stride[1]],
    pad: [g.pad[0] * k.stride[0] + k.pad[0], g.pad[1] * k.stride[1] + k.pad[1]],
    x: [input.shape[2], input.shape[3]],
    w: local.x,
  }
  return { lower: through.lower, upper: through.upper, patch: { g: wider, masked: false } }
}

/** Two patches of one node brought to one window. */
const mergePatches = (a: Rows, b: Rows): Rows => {
  const [p, q] = [(a.patch as Patch).g, (b.patch as Patch).g]
  const before = [0, 1].map((i) => Math.max(p.pad[i], q.pad[i])) as [number, number]
  const size = [0, 1].map((i) => before[i] + Math.max(p.w[i] - p.pad[i], q.w[i] - q.pad[i])) as [number, number]
  const fit = (rows: Rows, g: Conv) =>
    both(rows, (x) => {
      const front = [0, 1].map((i) => before[i] - g.pad[i])
      const back = [0, 1].map((i) => size[i] - g.w[i] - front[i])
      return pad(x, [0, 0, 0, 0, ...front], [0, 0, 0, 0, ...back])
    })
  const [x, y] = [fit(a, p), fit(b, q)]
  const masked = (a.patch as Patch).masked && (b.patch as Patch).masked
  const sum = both(x, (l) => add(l, y.lower))
  return {
    lower: sum.lower,
    upper: x.upper === x.lower && y.upper === y.lower ? sum.lower : add(x.upper, y.upper),
    patch: { g: { ...p, pad: before, w: size }, masked },
  }
}

const SAME_MAP = new Set<unknown>([addOp, subOp, negOp, mulOp])

/** Window that a walk from `conv` sees at each map below it, if every op on the way keeps patches; else undefined. */
const patchCost = (
  conv: Tensor,
  boxed: ReadonlySet<Tensor>,
): { readonly patches: number; readonly dense: number } | undefined => {
  // Height, width and strides of the window at each node.
  const windows = new Map<Tensor, readonly [number, number, number, number]>([[conv, [1, 1, 1, 1]]])
  let [patches, dense] = [0, 0]
  const places = S.size((conv.attrs as Conv).y)
  for (const x of [...order([conv])].reverse()) {
    const w = windows.get(x)
    if (w === undefined || !boxed.has(x)) continue
    if (x.shape.length !== 4) return undefined
    if (x.inputs.length === 0) continue
    let next = w
    if (x.op === conv2dOp) {
      const k = x.attrs as Conv
      if (boxed.has(x.inputs[1]) || k.dilation.some((d) => d !== 1)) return undefined
      next = [
        (w[0] - 1) * k.stride[0] + k.w[0],
        (w[1] - 1) * k.stride[1] + k.w[1],
        w[2] * k.stride[0],
        w[3] * k.stride[1],
      ]
      const taps = S.size(x.inputs[1].shape)
      patches += x === conv ? 0 : places * w[0] * w[1] * taps
      dense += places * S.size(k.y) * taps
    } else if (!SAME_MAP.has(x.op) && typeof x.op.relax !== 'function') return undefined
    for (const i of x.inputs) {
      if (!boxed.has(i)) continue
      if (x.op !== conv2dOp && !S.equals(i.shape, x.shape)) return undefined
      const old = windows.get(i)
      // Windows that move at different steps cannot be added.
      if (old !== undefined && (old[2] !== next[2] || old[3] !== next[3])) return undefined
      windows.set(i, [Math.max(old?.[0] ?? 0, next[0]), Math.max(old?.[1] ?? 0, next[1]), next[2], next[3]])
    }
  }
  return { patches, dense }
}

// ---- the walk ------------------------------------------------------------------------------------------------------

/** Coefficients times a value of the node, and with magnitudes. */
const dot = (rows: Rows, node: Tensor, a: Tensor, v: Tensor, product: (a: Tensor, v: Tensor) => Tensor): Tensor =>
  rows.patch === undefined ? product(a, v) : product(a, atPlaces(v, node, rows.patch))

const sumRows = (rows: Rows, x: Tensor): Tensor => sumTail(x, rows.patch === undefined ? 2 : 3)

/** What lower and upper rows contribute where the node's value is the point v. */
const pointEnds = (rows: Rows, node: Tensor, v: Tensor): Ends => {
  const at = (a: Tensor) => sumRows(rows, dot(rows, node, a, v, mul))
  const lower = at(rows.lower)
  return { lower, upper: rows.upper === rows.lower ? lower : at(rows.upper) }
}

/** A c - |A| r and A c + |A| r over the box of the node. */
const concretize = (rows: Rows, node: Tensor, box: Interval): Ends => {
  const [c, r] = [centre(box), radius(box)]
  const tail = rows.patch === undefined ? 2 : 3
  const value = (a: Tensor) => dot(rows, node, a, c, (x, v) => rowDot(x, v, tail))
  const spread = (a: Tensor) => dot(rows, node, a, r, (x, v) => absRowDot(x, v, tail))
  return { lower: sub(value(rows.lower), spread(rows.lower)), upper: add(value(rows.upper), spread(rows.upper)) }
}

/** Rows carried through a relaxation, one set for each boxed operand, and the intercepts' share of the offset. */
const throughRelaxation = (
  rows: Rows,
  x: Tensor,
  ctx: Context,
): { readonly to: readonly (Rows | undefined)[]; readonly ends: Ends | undefined } => {
  const { relax: rule } = x.op
  if (rule === 'linear' || 'unsupported' in rule)
    return raise({
      kind: 'unsupported',
      what: `linear bounds of ${x.op.name}`,
      reason: rule === 'linear' ? '' : rule.unsupported,
    })
  const reduction = typeof rule === 'object' && 'lift' in rule ? (rule as Reduction<unknown>) : undefined
  const made =
    typeof rule === 'object' && 'bilinear' in rule ? rule.bilinear : (reduction?.relax ?? (rule as Relax<unknown>))
  if (typeof made !== 'function')
    return raise({ kind: 'unsupported', what: `linear bounds of ${x.op.name}`, reason: made.unsupported })
  requireImages(x, ctx)
  const operands: readonly Operand[] = x.inputs.map((i) => (ctx.boxed.has(i) ? ctx.bounds(i) : i))
  const { lower, upper } = made(operands, x.attrs, ctx.slope(x))
  const lifted =
    reduction === undefined ? rows : both(rows, (a) => reduction.lift(perImage(a, x, ctx), x.inputs, x.attrs))
  const place = (v: Tensor) => (rows.patch === undefined ? v : atPlaces(v, x, rows.patch))
  const to = x.inputs.map((i, k): Rows | undefined => {
    if (!ctx.boxed.has(i)) return undefined
    const [p, q] = [place(lower.slopes[k]), place(upper.slopes[k])]
    const same = lower.slopes[k] === upper.slopes[k]
    const l = splitMul(lifted.lower, p, same ? p : q)
    const u = same && rows.upper === rows.lower ? l : splitMul(lifted.upper, same ? p : q, p)
    const narrow = (a: Tensor) => (reduction === undefined ? unbroadcastRows(a, x, i) : a)
    return {
      lower: narrow(l),
      upper: l === u ? narrow(l) : narrow(u),
      ...(rows.patch && { patch: { ...rows.patch, masked: true } }),
    }
  })
  const line = ({ intercept }: Affine) => place(intercept ?? full([], 0))
  const zero = lower.intercept === undefined && upper.intercept === undefined
  const share = (a: Tensor, p: Affine, q: Affine) =>
    sumRows(rows, p === q ? mul(a, line(p)) : splitMul(a, line(p), line(q)))
  return {
    to,
    ends: zero ? undefined : { lower: share(rows.lower, lower, upper), upper: share(rows.upper, upper, lower) },
  }
}

/** Sums row coefficients over what operand i was repeated to, leaving rows and images alone. */
const unbroadcastRows = (a: Tensor, x: Tensor, i: Tensor): Tensor => {
  if (S.equals(x.shape, i.shape)) return a
  return raise({
    kind: 'unsupported',
    what: `linear bounds of ${describe(x)}`,
    reason: 'an interval operand is broadcast; broadcast it explicitly with broadcastTo',
  }) as Tensor
}

const merge = (a: Rows | undefined, b: Rows): Rows => {
  if (a === undefined) return b
  if (a.patch !== undefined) return mergePatches(a, b)
  const lower = add(a.lower, b.lower)
  return { lower, upper: a.upper === a.lower && b.upper === b.lower ? lower : add(a.upper, b.upper) }
}

/**
 * Bounds of rows of `root` by the walk; it ends at nodes whose box `terminal` knows.
 */
const walk = (root: Tensor, start: Rows, ctx: Context, terminal: (x: Tensor) => Interval | undefined): Ends => {
  const rowsOf = new Map<Tensor, Rows>([[root, start]])
  let offset: { readonly lower: Tensor | undefined; readonly upper: Tensor | undefined } = {
    lower: undefined,
    upper: undefined,
  }
  const collect = (ends: Ends | undefined) => {
    offset = { lower: plus(offset.lower, ends?.lower), upper: plus(offset.upper, ends?.upper) }
  }
  for (const x of [...order([root])].reverse()) {
    const rows = rowsOf.get(x)
    if (rows === undefined) continue
    const box = terminal(x)
    if (box !== undefined) {
      collect(concretize(rows, x, box))
      continue
    }
    if (!ctx.boxed.has(x)) {
      collect(pointEnds(rows, x, x))
      continue
    }
    const to = isNonlinear(x, ctx.boxed) ? nonlinear(rows, x, ctx, collect) : linear(rows, x, ctx, collect)
    x.inputs.forEach((i, k) => {
      const r = to[k]
      if (r !== undefined) rowsOf.set(i, merge(rowsOf.get(i), r))
    })
  }
  const zero = full([1, 1], 0)
  return { lower: offset.lower ?? zero, upper: offset.upper ?? zero }
}

/** Rows are per image, so each image of a node must depend on the same image of its boxed operands alone. */
const requireImages = (x: Tensor, ctx: Context): void => {
  const { axes, permutation, transA } = (x.attrs ?? {}) as Partial<Axes & Matmul & { permutation: readonly number[] }>
  const kept = [x, ...x.inputs.filter((i) => ctx.boxed.has(i))].every((i) => i.shape[0] === ctx.images)
  const moved =
    axes?.includes(0) ||
    (permutation !== undefined && permutation[0] !== 0) ||
    (x.op === matmulOp && x.shape.length === 2 && transA) ||
    (x.op === broadcastOp && x.shape.length !== x.inputs[0].shape.length)
  if (!kept || moved)
    raise({
      kind: 'unsupported',
      what: `linear bounds of ${describe(x)}`,
      reason: 'it mixes or moves the images of a batch, and bounds are taken per image',
    })
}

const describe = (x: Tensor): string => `${x.op.name}(${x.inputs.map((y) => S.show(y.shape)).join(', ')})`

const nonlinear = (rows: Rows, x: Tensor, ctx: Context, collect: (e: Ends | undefined) => void) => {
  const { to, ends } = throughRelaxation(rows, x, ctx)
  collect(ends)
  return to
}

/** Rows through an op that is linear in its boxed operands; point operands go into the offset. */
const linear = (rows: Rows, x: Tensor, ctx: Context, collect: (e: Ends) => void): readonly (Rows | undefined)[] => {
  requireImages(x, ctx)
  const isBoxed = x.inputs.map((i) => ctx.boxed.has(i))
  if (x.op.relax === 'linear' && isBoxed.includes(false)) {
    // The value of the op with its boxed operands at 0.
    const point = x.op === addOp || x.op === subOp ? pointTerm(x, isBoxed) : rebuilt(x, isBoxed)
    collect(pointEnds(rows, x, point))
  }
  if (rows.patch !== undefined && x.op === conv2dOp) return [patchThroughConv(rows, x, x.inputs[0]), undefined]
  if (rows.patch !== undefined && (x.op === mulOp || x.op === divOp)) {
    const k = isBoxed.indexOf(true)
    const other = x.inputs[1 - k]
    const factor = atPlaces(x.op === mulOp ? other : div(1, other), x, rows.patch)
    const scaled = both(rows, (a) => mul(a, factor))
    const out: Rows = { ...scaled, patch: { ...rows.patch, masked: true } }
    return k === 0 ? [out, undefined] : [undefined, out]
  }
  if (x.op === reshapeOp)
    return [both(rows, (a) => reshape(a, [...a.shape.slice(0, 2), ...x.inputs[0].shape.slice(1)]))]
  if (SCALE.has(x.op)) x.inputs.forEach((i, k) => isBoxed[k] && unbroadcastRows(rows.lower, x, i))
  if (x.op === addOp || x.op === subOp)
    return isBoxed.map((is, k) => (is ? (x.op === subOp && k === 1 ? both(rows, neg) : rows) : undefined))
  const ct = (a: Tensor) => x.op.vjp(perImage(a, x, ctx), x.inputs, x, x.attrs)
  const lower = ct(rows.lower)
  const upper = rows.upper === rows.lower ? lower : ct(rows.upper)
  return x.inputs.map((_, k) => {
    const [l, u] = [lower[k], upper[k]]
    if (!isBoxed[k]) return undefined
    return l !== undefined && u !== undefined
      ? { ...rows, lower: l, upper: u }
      : raise({
          kind: 'unsupported',
          what: `linear bounds of ${describe(x)}`,
          reason: `operand ${k} is an interval, and rows of coefficients are known for operand 0 only`,
        })
  })
}

/** Ops whose vjp takes coefficients with one image in place of n (a product of stacks does not). */
const IMAGE_FREE = new Set<unknown>([addOp, subOp, negOp, mulOp, matmulOp, conv2dOp, transposeOp])

const perImage = (a: Tensor, x: Tensor, ctx: Context): Tensor =>
  IMAGE_FREE.has(x.op) && !(x.op === matmulOp && x.shape.length === 3)
    ? a
    : broadcastTo(a, [a.shape[0], ctx.images, ...a.shape.slice(2)])

const pointTerm = (x: Tensor, isBoxed: readonly boolean[]): Tensor => {
  const k = isBoxed.indexOf(false)
  return x.op === subOp && k === 1 ? sub(0, x.inputs[1]) : x.inputs[k]
}

const rebuilt = (x: Tensor, isBoxed: readonly boolean[]): Tensor => ({
  ...x,
  inputs: x.inputs.map((i, k) => (isBoxed[k] ? zeros(i.shape) : i)),
})

// ---- starting rows -------------------------------------------------------------------------------------------------

/**
 * Bounds of every element of a hidden node by one walk, as an interval of its shape. The walk starts at the convolution or
 * product below the biases, whose rows are the weights themselves, instead of at an identity matrix.
 */
const boundNode = (node: Tensor, ctx: Context, terminal: (x: Tensor) => Interval | undefined): Interval => {
  const n = ctx.images
  const shape = [n, ...node.shape.slice(1)]
  // Peel point additions and reshapes: the node is base + shift, elementwise up to a reshape.
  let base = node
  let shift: Tensor | undefined
  while (terminal(base) === undefined) {
    const k = base.inputs.findIndex((i) => ctx.boxed.has(i))
    const other = base.inputs[1 - k]
    const peels =
      (base.op === addOp || (base.op === subOp && k === 0)) &&
      other !== undefined &&
      !ctx.boxed.has(other) &&
      S.equals(base.inputs[k].shape, base.shape)
    if (peels) {
      const term = broadcastTo(base.op === addOp ? other : sub(0, other), [
        other.shape.length === base.shape.length ? other.shape[0] : 1,
        ...base.shape.slice(1),
      ])
      shift = plus(shift, reshape(term, [term.shape[0], ...node.shape.slice(1)]))
    } else if (!(base.op === reshapeOp && base.inputs[0].shape[0] === base.shape[0])) break
    base = base.inputs[peels ? k : 0]
  }
  const shifted = (x: Tensor) => (shift === undefined ? x : add(x, shift))
  const finish = (lower: Tensor, upper: Tensor) =>
    interval(broadcastTo(shifted(lower), shape), broadcastTo(shifted(upper), shape))

  const end = terminal(base)
  if (end !== undefined) return finish(reshape(end.lower, shape), reshape(end.upper, shape))
  if (base.op === conv2dOp && !ctx.boxed.has(base.inputs[1])) {
    const cost = patchCost(base, ctx.boxed)
    if (cost !== undefined && cost.patches < cost.dense) {
      const [input, w] = base.inputs
      const [o, c, p, q] = w.shape
      const a = reshape(w, [o, 1, 1, c, p, q])
      const rows: Rows = { lower: a, upper: a, patch: { g: base.attrs as Conv, masked: false } }
      const ends = walk(input, rows, ctx, terminal)
      const back = (x: Tensor) => {
        const places = S.size((base.attrs as Conv).y)
        return reshape(transpose(broadcastTo(x, [o, n, places]), [1, 0, 2]), shape)
      }
      return finish(back(ends.lower), back(ends.upper))
    }
  }
  const count = S.size(node.shape.slice(1))
  const back = (x: Tensor) => reshape(transposeLast(broadcastTo(x, [count, n])), shape)
  const attrs = base.attrs as Matmul
  if (base.op === matmulOp && base.shape.length === 2 && !ctx.boxed.has(base.inputs[1]) && !attrs.transA) {
    const w = attrs.transB ? base.inputs[1] : transposeLast(base.inputs[1])
    const a = reshape(w, [count, 1, w.shape[1]])
    const ends = walk(base.inputs[0], { lower: a, upper: a }, ctx, terminal)
    return finish(back(ends.lower), back(ends.upper))
  }
  const ends = walk(base, identity(base), ctx, terminal)
  return finish(back(ends.lower), back(ends.upper))
}

/** One row for every element of the node. */
const identity = (x: Tensor): Rows => {
  const count = S.size(x.shape.slice(1))
  const eye = equal(reshape(iota(count), [count, 1]), iota(count))
  const a = reshape(eye, [count, 1, ...x.shape.slice(1)])
  return { lower: a, upper: a }
}

// ---- exact intervals -----------------------------------------------------------------------------------------------

const REARRANGE = new Set<unknown>([reshapeOp, transposeOp, sliceOp, padOp, concatOp])
const SCALE = new Set<unknown>([addOp, subOp, negOp, mulOp, divOp])

/**
 * Nodes whose interval-propagated box is exact: each element is a linear function of inputs that are combined once. A walk would
 * find the same box at the cost of its rows. (0: a rescaled input element each; 1: one mixing op above that.)
 */
const exactNodes = (nodes: readonly Tensor[], boxes: Boxes, boxed: ReadonlySet<Tensor>): ReadonlySet<Tensor> => {
  const level = new Map<Tensor, number>([...boxes.keys()].map((x) => [x, 0]))
  for (const x of nodes) {
    if (level.has(x) || !boxed.has(x)) continue
    const from = x.inputs.filter((i) => boxed.has(i))
    const l = level.get(from[0])
    if (from.length !== 1 || l === undefined || isNonlinear(x, boxed)) continue
    if (REARRANGE.has(x.op) || SCALE.has(x.op)) level.set(x, l)
    else if (l === 0) level.set(x, 1)
  }
  return new Set(level.keys())
}

// ---- the methods ---------------------------------------------------------------------------------------------------

/** Bounds of one output of a graph: of its elements, or of rows of a specification. */
export interface Bounded {
  /** `[n, ...shape]`, element by element. */
  readonly output: () => Interval
  /** `[rows, n]`: bounds of sum over the output of spec * output, spec `[rows, n, ...shape]`, merged before concretising. */
  readonly rows: (spec: Tensor) => Interval
  /** The box of any node on the way, as the method has it. */
  readonly node: (x: Tensor) => Interval
}

const contextOf = (output: Tensor, boxes: Boxes) => {
  const boxed = dependents([output], boxes)
  const first = [...boxes.values()][0]
  if (first === undefined) return raise({ kind: 'shape', op: 'bounds', message: 'no node has a box' })
  if (!boxed.has(output))
    return raise({ kind: 'shape', op: 'bounds', message: 'the output does not depend on any box' })
  return { boxed, images: first.shape[0] }
}

const specified = (output: Tensor, images: number, spec: Tensor, bound: (rows: Rows) => Ends): Interval => {
  const ends = bound({ lower: spec, upper: spec })
  const shape = [spec.shape[0], images]
  if (!S.equals(spec.shape.slice(2), output.shape.slice(1)))
    raise({
      kind: 'shape',
      op: 'bounds',
      message: `specification ${S.show(spec.shape)} for an output of shape ${S.show(output.shape)}`,
    })
  return interval(broadcastTo(ends.lower, shape), broadcastTo(ends.upper, shape))
}

/** A relaxation is never asked for when the walk ends at every nonlinear node. */
const never = (): never =>
  raise({ kind: 'unsupported', what: 'relaxing in interval propagation', reason: 'the walk ends at nonlinear ops' })

/**
 * Interval bound propagation. Rows are merged into the linear ops after the last nonlinear one before they meet a box
 * (arXiv:1810.12715, section 3): margins are tighter than differences of logit bounds.
 */
export const ibp = (output: Tensor, boxes: Boxes): Bounded => {
  const { boxed, images } = contextOf(output, boxes)
  const known = propagate([output], boxes)
  const box = (x: Tensor) => known.get(x) as Interval
  const terminal = (x: Tensor) => (boxes.has(x) || (boxed.has(x) && isNonlinear(x, boxed)) ? box(x) : undefined)
  const ctx: Context = { images, boxed, bounds: box, slope: never }
  return {
    output: () => box(output),
    rows: (spec) => specified(output, images, spec, (rows) => walk(output, rows, ctx, terminal)),
    node: box,
  }
}

/**
 * The CROWN family (arXiv:1811.00866, 1804.10829, 1906.06316). `{ slope: 'same', hidden: 'own' }` is the symbolic interval of MixTrain,
 * `{ slope: 'adaptive', hidden: 'own' }` CROWN, `{ slope: 'adaptive', hidden: 'ibp' }` CROWN-IBP.
 */
export const linearBounds =
  (method: Method) =>
  (output: Tensor, boxes: Boxes): Bounded => {
    const { boxed, images } = contextOf(output, boxes)
    const nodes = order([output])
    const exact = exactNodes(nodes, boxes, boxed)
    const byInterval = method.hidden === 'ibp' ? propagate([output], boxes) : propagate([...exact], boxes)
    const known = new Map<Tensor, Interval>()
    const terminal = (x: Tensor) => boxes.get(x)
    const bounds = (x: Tensor): Interval => {
      const seen = known.get(x)
      if (seen !== undefined) return seen
      const given = method.given?.get(x) ?? byInterval.get(x)
      const box = given !== undefined && isInterval(given) ? given : boundNode(x, ctx, terminal)
      known.set(x, box)
      return box
    }
    const slope = (x: Tensor): Slope =>
      typeof method.slope === 'string' ? method.slope : (method.slope.get(x) ?? 'adaptive')
    const ctx: Context = { images, boxed, bounds, slope }
    // Boxes are asked for in the order of the graph, so that a deep network does not recurse.
    const settle = () => {
      for (const x of nodes)
        if (boxed.has(x) && isNonlinear(x, boxed)) for (const i of x.inputs) if (boxed.has(i)) bounds(i)
    }
    return {
      output: () => {
        settle()
        return boundNode(output, ctx, terminal)
      },
      rows: (spec) => {
        settle()
        return specified(output, images, spec, (rows) => walk(output, rows, ctx, terminal))
      },
      node: (x) => {
        settle()
        return bounds(x)
      },
    }
  }
