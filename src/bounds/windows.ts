import { order } from '../compile/tape.ts'
import * as S from '../core/shape.ts'
import type { Conv, Tensor, Windowed } from '../core/tensor.ts'
import { add, broadcastTo, full, gather, mul, pad, reshape, unfoldBy } from '../ops/index.ts'
import { isTermwise } from './anatomy.ts'
import { both, type Context, type Patch, type Rows } from './rows.ts'

/** A value of the node at every place's window: `[n or 1, P, c, p, q]`, zero outside the map. */
export const atPlaces = (v: Tensor, node: Tensor, { g }: Patch): Tensor => {
  const n = v.shape.length === 4 ? v.shape[0] : 1
  const windows = unfoldBy(broadcastTo(v, [n, ...node.shape.slice(1)]), g)
  const [, i, j, c, p, q] = windows.shape
  return reshape(windows, [n, i * j, c, p, q])
}

/** A value of the node, `[n, ...shape]` or broadcast to it, as rows of coefficients meet it: at their windows, for their images. */
export const meeting = (rows: Rows, node: Tensor, v: Tensor, { images, list }: Context): Tensor => {
  const { patch } = rows
  if (patch === undefined) {
    const varies = images > 1 && v.shape.length === node.shape.length && v.shape[0] === images
    return list !== undefined && varies ? gather(v, list.image) : v
  }
  const placed = atPlaces(v, node, patch)
  if (list?.place === undefined) return placed
  const [n, places, ...window] = placed.shape
  const at = n > 1 ? (add(mul(list.image, places), list.place) as Tensor) : list.place
  return reshape(gather(reshape(placed, [n * places, ...window]), at), [list.length, 1, ...window])
}

/** Zeroes coefficients outside the map, where a convolution above saw padding. */
const mask = (rows: Rows, node: Tensor, ctx: Context): Rows => {
  const { patch } = rows
  if (patch === undefined || patch.masked) return rows
  const { g } = patch
  const inside = [0, 1].every((i) => g.pad[i] === 0 && (g.y[i] - 1) * g.stride[i] + g.w[i] <= g.x[i])
  const ones = () => meeting(rows, node, full([1, ...node.shape.slice(1)], 1), ctx)
  return { ...(inside ? rows : both(rows, (a) => mul(a, ones()))), patch: { g, masked: true } }
}

/** Rows of windows of the result of a windowed op carried to its operand 0. */
export const patchThrough = (rows: Rows, x: Tensor, { geometry, adjoint }: Windowed<unknown>, ctx: Context): Rows => {
  const { g } = rows.patch as Patch
  const k = geometry(x.attrs)
  const [input, weights] = x.inputs
  const grow = (i: 0 | 1) => (g.w[i] - 1) * k.stride[i] + k.w[i]
  const local: Conv = { ...k, pad: [0, 0], dilation: [1, 1], x: [grow(0), grow(1)], y: g.w }
  const through = both(mask(rows, x, ctx), (a) => adjoint(a, weights, local))
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
export const mergePatches = (a: Rows, b: Rows): Rows => {
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

/** Ops that keep a map as it is, element by element. */
const keepsMap = (x: Tensor): boolean => isTermwise(x) || typeof x.op.relax === 'function'

/** What rows of a map cost, in multiply-adds for each of its channels, and the most coefficients of one row. */
export interface PatchCost {
  readonly patches: number
  readonly dense: number
  readonly largest: number
}

/** Costs of a walk from the map `root` with windows that grow, if every op on the way keeps patches; else undefined. */
export const patchCost = (root: Tensor, boxed: ReadonlySet<Tensor>): PatchCost | undefined => {
  if (root.shape.length !== 4) return undefined
  // Height, width and strides of the window at each node.
  const windows = new Map<Tensor, readonly [number, number, number, number]>([[root, [1, 1, 1, 1]]])
  let [patches, dense, largest] = [0, 0, 0]
  const places = S.size(root.shape.slice(2))
  for (const x of [...order([root])].reverse()) {
    const w = windows.get(x)
    if (w === undefined || !boxed.has(x)) continue
    if (x.shape.length !== 4) return undefined
    largest = Math.max(largest, x.shape[1] * w[0] * w[1])
    if (x.inputs.length === 0) continue
    let next = w
    const { windowed } = x.op
    if (windowed !== undefined) {
      const k = windowed.geometry(x.attrs)
      if (boxed.has(x.inputs[1]) || k.dilation.some((d) => d !== 1)) return undefined
      next = [
        (w[0] - 1) * k.stride[0] + k.w[0],
        (w[1] - 1) * k.stride[1] + k.w[1],
        w[2] * k.stride[0],
        w[3] * k.stride[1],
      ]
      const taps = S.size(x.inputs[1].shape)
      patches += x === root ? 0 : places * w[0] * w[1] * taps
      dense += places * S.size(k.y) * taps
    } else if (!keepsMap(x)) return undefined
    for (const i of x.inputs) {
      if (!boxed.has(i)) continue
      if (windowed === undefined && !S.equals(i.shape, x.shape)) return undefined
      const old = windows.get(i)
      // Windows that move at different steps cannot be added.
      if (old !== undefined && (old[2] !== next[2] || old[3] !== next[3])) return undefined
      windows.set(i, [Math.max(old?.[0] ?? 0, next[0]), Math.max(old?.[1] ?? 0, next[1]), next[2], next[3]])
    }
  }
  return { patches, dense, largest }
}
