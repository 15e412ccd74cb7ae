import { order } from '../compile/tape.ts'
import { raise } from '../core/error.ts'
import { interval } from '../core/op.ts'
import * as S from '../core/shape.ts'
import type { Conv, Interval, Tensor } from '../core/tensor.ts'
import {
  add,
  broadcastTo,
  concat,
  equal,
  gather,
  iota,
  reshape,
  slice,
  sub,
  transpose,
  transposeLast,
} from '../ops/index.ts'
import { widened } from './executions.ts'
import { propagate } from './ibp.ts'
import { both, type Context, type Ends, plus, type Rows } from './rows.ts'
import { weightError } from './slack.ts'
import { walk } from './walk.ts'
import { type PatchCost, patchCost } from './windows.ts'

export type Terminal = (x: Tensor) => Interval | undefined

/** A node as base + shift, elementwise up to a reshape: point additions and reshapes need no walk. */
export interface Peeled {
  readonly base: Tensor
  /** `[n or 1, ...shape of the node]`. */
  readonly shift: Tensor | undefined
}

export const peel = (node: Tensor, ctx: Context, terminal: Terminal): Peeled => {
  let base = node
  let shift: Tensor | undefined
  while (terminal(base) === undefined) {
    const k = base.inputs.findIndex((i) => ctx.boxed.has(i))
    const other = base.inputs[1 - k]
    const peels =
      (base.op.linear === 'adds' || (base.op.linear === 'subtracts' && k === 0)) &&
      other !== undefined &&
      !ctx.boxed.has(other) &&
      S.equals(base.inputs[k].shape, base.shape)
    if (peels) {
      const term = broadcastTo(base.op.linear === 'adds' ? other : sub(0, other), [
        other.shape.length === base.shape.length ? other.shape[0] : 1,
        ...base.shape.slice(1),
      ])
      shift = plus(shift, reshape(term, [term.shape[0], ...node.shape.slice(1)]))
    } else if (!(base.op.linear === 'reshapes' && base.inputs[0].shape[0] === base.shape[0])) break
    base = base.inputs[peels ? k : 0]
  }
  return { base, shift }
}

/** Where the walk of a node begins, and with which rows: one for every element of the base. */
export interface Start {
  readonly root: Tensor
  /** Extents of the rows: all, or channels and places of patches. */
  readonly extents: readonly [number] | readonly [number, number]
  /** Rows for every image. */
  readonly all: Rows
  /** Coefficients of rows by number, of patches by channel: `[k] -> [k, ...]`. */
  readonly some: (index: Tensor) => Tensor
  readonly patch: Conv | undefined
  /** The most coefficients of one row on the way. */
  readonly largest: number
}

/** The weights of a product with points, as rows over its operand 0. */
const weightsOf = (x: Tensor, ctx: Context): Tensor | undefined =>
  x.inputs.slice(1).some((w) => ctx.boxed.has(w)) ? undefined : x.op.rows?.(x.inputs, x.shape, x.attrs)

const oneHot = (index: Tensor, count: number): Tensor =>
  equal(reshape(index, [index.shape[0], 1]), iota(count)) as Tensor

/** Patches pay where windows stay smaller than the map; a map whose rows would start as an identity matrix gains from any. */
const pays = (cost: PatchCost | undefined): cost is PatchCost =>
  cost !== undefined && (cost.patches < cost.dense || cost.dense === 0)

/** The most coefficients that a row of a node has on its way to the input. */
export const largestOf = (root: Tensor, { boxed }: Context): number =>
  order([root]).reduce((most, x) => (boxed.has(x) ? Math.max(most, S.size(x.shape.slice(1))) : most), 1)

/** The walk starts at the convolution or product below the biases, whose rows are the weights themselves, or else at an identity matrix. */
export const startOf = (base: Tensor, ctx: Context): Start => {
  const cost = patchCost(base, ctx.boxed)
  if (pays(cost)) {
    const places = S.size(base.shape.slice(2))
    const o = base.shape[1]
    const patched = (root: Tensor, g: Conv, w: Tensor, some: Start['some']): Start => {
      const a = reshape(w, [o, 1, 1, ...w.shape.slice(1)])
      const patch = { g, masked: false }
      const all: Rows = { lower: a, upper: a, patch }
      return { root, extents: [o, places], all, some, patch: g, largest: cost.largest }
    }
    const { windowed } = base.op
    const all = windowed && weightsOf(base, ctx)
    if (windowed !== undefined && all !== undefined) {
      const { groups: _, ...g } = windowed.geometry(base.attrs)
      return patched(base.inputs[0], g, all, (k) => gather(all, k))
    }
    const map = base.shape.slice(2) as [number, number]
    const g: Conv = { stride: [1, 1], pad: [0, 0], dilation: [1, 1], x: map, w: [1, 1], y: map }
    const eye = (k: Tensor) => reshape(oneHot(k, o), [k.shape[0], o, 1, 1])
    return patched(base, g, eye(iota(o)), eye)
  }
  const count = S.size(base.shape.slice(1))
  const whole = (root: Tensor, a: Tensor, some: Start['some']): Start => ({
    root,
    extents: [count],
    all: { lower: a, upper: a },
    some,
    patch: undefined,
    largest: largestOf(root, ctx),
  })
  const rows = base.op.windowed === undefined ? weightsOf(base, ctx) : undefined
  if (rows !== undefined)
    return whole(base.inputs[0], reshape(rows, [count, 1, ...rows.shape.slice(1)]), (k) => gather(rows, k))
  const shape = base.shape.slice(1)
  const eye = (k: Tensor) => reshape(oneHot(k, count), [k.shape[0], ...shape])
  return whole(base, reshape(eye(iota(count)), [count, 1, ...shape]), eye)
}

/** Bounds of every element of a node, as an interval of its shape, from those of its base, `[n, elements]`. */
export const finished = (node: Tensor, { shift }: Peeled, ctx: Context, lower: Tensor, upper: Tensor): Interval => {
  const shape = [ctx.images, ...node.shape.slice(1)]
  const end = (x: Tensor) => {
    const shaped = reshape(x, shape)
    return shift === undefined ? shaped : (add(shaped, shift) as Tensor)
  }
  return interval(end(lower), end(upper))
}

/** How the rows of one node are parted: what one walk holds is shared by no other. */
export interface Parts {
  /** Coefficients that the rows of one walk may have for one node, of all images. */
  readonly coefficients: number
  /** Most walks, whose graphs are all planned; where more were needed the bounds are refused. Default: no limit. */
  readonly walks?: number
}

/** Bytes of a number, at least. */
const NUMBER = 4

/**
 * Ends, `[rows, ...shape]`, by walks of some of the rows, each of up to `largest` coefficients for one node.
 * @throws memory where that would be too many walks.
 */
export const inParts = (
  rows: Rows,
  largest: number,
  parting: Parts | undefined,
  shape: S.Shape,
  of: (rows: Rows) => Ends,
): Ends => {
  const count = rows.lower.shape[0]
  if (parting === undefined) return of(rows)
  const { coefficients, walks = count } = parting
  const per = Math.max(1, Math.floor(coefficients / largest))
  if (per >= count) return of(rows)
  if (per * walks < count) {
    const [needed, budget] = [Math.ceil(count / walks) * largest, coefficients].map((n) => n * NUMBER)
    return raise({ kind: 'memory', needed, budget, what: `bounding ${count} elements in ${walks} parts` })
  }
  const parts = Array.from({ length: Math.ceil(count / per) }, (_, i): Ends => {
    const [from, size] = [i * per, Math.min(per, count - i * per)]
    const some = both(rows, (a) => slice(a, [from, ...a.shape.slice(1).map(() => 0)], [size, ...a.shape.slice(1)]))
    const { lower, upper } = of(some)
    const whole = (x: Tensor) => broadcastTo(x, [size, ...shape])
    return { lower: whole(lower), upper: whole(upper) }
  })
  return {
    lower: concat(
      parts.map((p) => p.lower),
      0,
    ),
    upper: concat(
      parts.map((p) => p.upper),
      0,
    ),
  }
}

/** Bounds of every element of a hidden node, as an interval of its shape: by one walk, or by several. */
export const boundNode = (node: Tensor, ctx: Context, terminal: Terminal, parting?: Parts): Interval => {
  const peeled = peel(node, ctx, terminal)
  const end = terminal(peeled.base)
  if (end !== undefined) return shifted(node, peeled, ctx, end.lower, end.upper, 'value')
  const { root, extents, all, largest } = startOf(peeled.base, ctx)
  const [, ...each] = extents
  const ends = inParts(all, ctx.images * S.size(each) * largest, parting, [ctx.images, ...each], (some) =>
    walk(root, some, ctx, terminal, root !== peeled.base),
  )
  const [n, [rows, places]] = [ctx.images, extents]
  const back = (x: Tensor) =>
    places === undefined
      ? transposeLast(broadcastTo(x, [rows, n]))
      : transpose(broadcastTo(x, [rows, n, places]), [1, 0, 2])
  return shifted(node, peeled, ctx, back(ends.lower), back(ends.upper), root === peeled.base ? 'exact' : 'product')
}

/**
 * `finished` or, under outward rounding, the box of the node by the interval rules of the points added on the way from its base. What was bounded is the value of the base,
 * or its exact results; these by rows that are the weights of a product, which may be off, where the walk began below it.
 */
const shifted = (
  node: Tensor,
  peeled: Peeled,
  ctx: Context,
  lower: Tensor,
  upper: Tensor,
  kind: 'value' | 'exact' | 'product',
): Interval => {
  const { base } = peeled
  const cover = ctx.outward
  if (cover === undefined) return finished(node, peeled, ctx, lower, upper)
  const shape = [ctx.images, ...base.shape.slice(1)]
  const found = interval(reshape(lower, shape), reshape(upper, shape))
  if (kind === 'value') return propagate([node], new Map([[base, found]]), undefined, () => cover).get(node) as Interval
  const exact = widened(found, kind === 'product' ? weightError(base, base.inputs[0], cover) : undefined)
  const executed = widened(exact, cover.error(base))
  if (node === base) return executed
  const boxes = new Map([[base, cover.isPart(base) ? exact : executed]])
  return propagate([node], boxes, undefined, () => cover).get(node) as Interval
}
