import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import {
  add,
  addOp,
  broadcastTo,
  type Conv,
  conv2dInput,
  conv2dOp,
  full,
  mul,
  mulOp,
  negOp,
  pad,
  reshape,
  subOp,
  unfoldBy,
} from '../ops/index.ts'
import { both, type Patch, type Rows } from './rows.ts'
import { order } from './tape.ts'

/** A value of the node, at every place's window: `[n or 1, P, c, p, q]`, zero outside the map. */
export const atPlaces = (v: Tensor, node: Tensor, { g }: Patch): Tensor => {
  const n = v.shape.length === 4 ? v.shape[0] : 1
  const windows = unfoldBy(broadcastTo(v, [n, ...node.shape.slice(1)]), g)
  const [, i, j, c, p, q] = windows.shape
  return reshape(windows, [n, i * j, c, p, q])
}

/** Zeroes coefficients outside the map, where a convolution above saw padding. */
export const mask = (rows: Rows, node: Tensor): Rows => {
  const { patch } = rows
  if (patch === undefined || patch.masked) return rows
  const { g } = patch
  const inside = [0, 1].every((i) => g.pad[i] === 0 && (g.y[i] - 1) * g.stride[i] + g.w[i] <= g.x[i])
  const ones = () => atPlaces(full([1, ...node.shape.slice(1)], 1), node, patch)
  return { ...(inside ? rows : both(rows, (a) => mul(a, ones()))), patch: { g, masked: true } }
}

/** Rows of a convolution's output patches carried to its input. */
export const patchThroughConv = (rows: Rows, conv: Tensor, input: Tensor): Rows => {
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

const SAME_MAP = new Set<unknown>([addOp, subOp, negOp, mulOp])

/** Window that a walk from `conv` sees at each map below it, if every op on the way keeps patches; else undefined. */
export const patchCost = (
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
