import * as E from 'fp-ts/lib/Either.js'
import { raise } from '../core/error.ts'
import type { ConvSizes, WindowSizes } from '../core/lowering.ts'
import { apply, node, type Op, unsupported } from '../core/op.ts'
import * as S from '../core/shape.ts'
import type { Conv, Join, Operand, Pair, Tensor, Window } from '../core/tensor.ts'
import { div, equal, mul, select } from './elementwise.ts'
import { bilinearInterval } from './linear.ts'
import { largestLines, max } from './reduce.ts'
import {
  type Axes,
  broadcastTo,
  full,
  increasing,
  liftReduced,
  reshape,
  stopGradient,
  sum,
  transpose,
} from './shape.ts'
import { constant, iota } from './source.ts'

export type { Conv } from '../core/tensor.ts'

const groupsOf = ({ groups = 1 }: Conv): number => groups

const pairwise = (f: (i: 0 | 1) => number): Pair => [f(0), f(1)]

/** Extent of the output of a sliding window with `pad` zeros before and `after` behind. */
const outputExtent = (x: Pair, w: Pair, win: Window, after: Pair): Pair =>
  pairwise((i) => Math.floor((x[i] + win.pad[i] + after[i] - win.dilation[i] * (w[i] - 1) - 1) / win.stride[i]) + 1)

/** The same rounded up: a last window may hang over what is padded, unless it would begin behind the map and the zeros before it. */
const overhanging = (x: Pair, w: Pair, win: Window, after: Pair): Pair =>
  pairwise((i) => {
    const places = Math.ceil((x[i] + win.pad[i] + after[i] - win.dilation[i] * (w[i] - 1) - 1) / win.stride[i]) + 1
    return (places - 1) * win.stride[i] >= x[i] + win.pad[i] ? places - 1 : places
  })

/** Offsets within one plane of x, w and y, one triple for every tap of the window that lies inside x. */
const taps = (g: Conv): Int32Array => {
  const offsets: number[] = []
  for (let i = 0; i < g.y[0]; i++)
    for (let j = 0; j < g.y[1]; j++)
      for (let p = 0; p < g.w[0]; p++) {
        const r = i * g.stride[0] - g.pad[0] + p * g.dilation[0]
        if (r < 0 || r >= g.x[0]) continue
        for (let q = 0; q < g.w[1]; q++) {
          const c = j * g.stride[1] - g.pad[1] + q * g.dilation[1]
          if (c >= 0 && c < g.x[1]) offsets.push(r * g.x[1] + c, p * g.w[1] + q, i * g.y[1] + j)
        }
      }
  return Int32Array.from(offsets)
}

/** Runs body on the first elements of the planes of x, w and y, for all images and for all channels that meet. */
const planes = (g: Conv, n: number, c: number, o: number, body: (x0: number, w0: number, y0: number) => void): void => {
  const [px, pw, py] = [S.size(g.x), S.size(g.w), S.size(g.y)]
  const [ins, outs] = [c / groupsOf(g), o / groupsOf(g)]
  for (let image = 0; image < n; image++)
    for (let out = 0; out < o; out++) {
      const first = image * c + Math.floor(out / outs) * ins
      for (let ch = 0; ch < ins; ch++) body((first + ch) * px, (out * ins + ch) * pw, (image * o + out) * py)
    }
}

/** Sizes of the windows of n images of c channels. */
const windowSizes = (g: Conv, N: number, C: number): WindowSizes => {
  const [[H, W], [KH, KW], [OH, OW]] = [g.x, g.w, g.y]
  const [[strideY, strideX], [padTop, padLeft], [dilationY, dilationX]] = [g.stride, g.pad, g.dilation]
  return { N, C, H, W, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY, dilationX }
}

const kernelOf = (kind: 'conv2d' | 'conv2dInput' | 'conv2dWeight', g: Conv, n: number, c: number, O: number) => {
  const sizes: ConvSizes = { ...windowSizes(g, n, c), O, groups: groupsOf(g) }
  return {
    kind: 'kernel',
    kernel: { kind, ...sizes },
    work: (n * c * O * S.size(g.w) * S.size(g.y)) / sizes.groups,
  } as const
}

const rank4 = (shapes: readonly S.Shape[]): E.Either<string, readonly S.Shape[]> =>
  shapes.every((s) => s.length === 4) ? E.right(shapes) : E.left('takes tensors of rank 4')

const check = (holds: boolean, message: () => string, shape: S.Shape): E.Either<string, S.Shape> =>
  holds ? E.right(shape) : E.left(message())

/** Whether a tensor's last two extents are those given. */
const fits = (s: S.Shape, extents: Pair): boolean => s[s.length - 2] === extents[0] && s[s.length - 1] === extents[1]

const isGrouping = (groups: number, outs: number): boolean =>
  Number.isInteger(groups) && groups >= 1 && outs % groups === 0

/**
 * y = x * w: `[n, c, h, w], [o, c / groups, p, q] -> [n, o, i, j]`, cross-correlation as every framework has it. With groups, output channel
 * k sees the channels of group floor(k groups / o) alone.
 */
export const conv2dOp: Op<Conv> = {
  name: 'conv2d',
  shape: (shapes, g) =>
    E.Chain.chain(rank4(shapes), ([x, w]) => {
      const groups = groupsOf(g)
      if (x[1] !== w[1] * groups)
        return E.left(
          `the input has ${x[1]} channels, the weights expect ${groups === 1 ? w[1] : `${groups} groups of ${w[1]}`}`,
        )
      if (!isGrouping(groups, w[0])) return E.left(`${w[0]} output channels cannot be dealt to ${groups} groups`)
      return check(
        fits(x, g.x) && fits(w, g.w),
        () => `expected maps of ${g.x[0]}x${g.x[1]} and windows of ${g.w[0]}x${g.w[1]}`,
        [x[0], w[0], ...g.y],
      )
    }),
  vjp: (ct, [x, w], out, g) =>
    ct.shape.length > out.shape.length
      ? [conv2dInput(ct, w, g), undefined]
      : [conv2dInput(ct, w, g), node(conv2dWeightOp, [x, ct], g)],
  interval: ([x, w], g) => bilinearInterval((a, b) => node(conv2dOp, [a, b], g))(x, w),
  relax: { bilinear: unsupported('both operands are intervals, and their product has no linear bounds here') },
  linear: 'products',
  sharesImages: () => true,
  rows: ([, w], _, g) => ungrouped(w, g),
  windowed: { geometry: (g) => g, adjoint: (a, w, local) => conv2dInput(a, w, local) },
  outward: {
    interval: 'product',
    // Without groups every output channel counts the same terms.
    live: (where, [, w], g) => node(conv2dOp, [where, full([groupsOf(g) === 1 ? 1 : w[0], ...w.slice(1)], 1)], g),
    // With groups an element of the result sums the channels of its group, and one of x meets the output channels of its group.
    terms: ([, [o, c, p, q]], g) => {
      // Windows that reach one element of x: along an axis every stride-th tap, where taps are neighbours.
      const reach = (taps: number, i: 0 | 1) => (g.dilation[i] === 1 ? Math.ceil(taps / g.stride[i]) : taps)
      return { result: c * p * q, adjoint: (o / groupsOf(g)) * reach(p, 0) * reach(q, 1) }
    },
  },
  kernel: {
    reference: (out, [x, w], [sx, sw], _, g) => {
      out.fill(0)
      const t = taps(g)
      planes(g, sx[0], sx[1], sw[0], (x0, w0, y0) => {
        for (let k = 0; k < t.length; k += 3) out[y0 + t[k + 2]] += x[x0 + t[k]] * w[w0 + t[k + 1]]
      })
    },
    lower: ([x, w], _, g) => kernelOf('conv2d', g, x[0], x[1], w[0]),
  },
}

/** Adjoint of conv2d to x: `[n, o, i, j], [o, c / groups, p, q] -> [n, c, h, w]`. */
export const conv2dInputOp: Op<Conv> = {
  name: 'conv2dInput',
  shape: (shapes, g) =>
    E.Chain.chain(rank4(shapes), ([y, w]) =>
      check(
        y[1] === w[0] && isGrouping(groupsOf(g), w[0]) && fits(y, g.y) && fits(w, g.w),
        () => `expected ${w[0]} channels of ${g.y[0]}x${g.y[1]} and windows of ${g.w[0]}x${g.w[1]}`,
        [y[0], w[1] * groupsOf(g), ...g.x],
      ),
    ),
  vjp: (ct, [y, w], out, g) => {
    if (ct.shape.length > out.shape.length) return [overImages(ct, 3, (x) => node(conv2dOp, [x, w], g)), undefined]
    return [node(conv2dOp, [ct, w], g), node(conv2dWeightOp, [ct, y], g)]
  },
  interval: ([y, w], g) => bilinearInterval((a, b) => node(conv2dInputOp, [a, b], g))(y, w),
  relax: { bilinear: unsupported('both operands are intervals, and their product has no linear bounds here') },
  linear: 'products',
  outward: {
    interval: 'product',
    terms: ([, [o, c, p, q]], g) => {
      // An element of the map sums the windows that reach it, of the output channels of its group.
      const reach = (taps: number, i: 0 | 1) => (g.dilation[i] === 1 ? Math.ceil(taps / g.stride[i]) : taps)
      return { result: (o / groupsOf(g)) * reach(p, 0) * reach(q, 1), adjoint: c * p * q }
    },
  },
  kernel: {
    reference: (out, [y, w], [sy, sw], _, g) => {
      out.fill(0)
      const t = taps(g)
      planes(g, sy[0], sw[1] * groupsOf(g), sw[0], (x0, w0, y0) => {
        for (let k = 0; k < t.length; k += 3) out[x0 + t[k]] += y[y0 + t[k + 2]] * w[w0 + t[k + 1]]
      })
    },
    lower: ([y, w], _, g) => kernelOf('conv2dInput', g, y[0], w[1] * groupsOf(g), w[0]),
  },
}

/** Adjoint of conv2d to w: `[n, c, h, w], [n, o, i, j] -> [o, c / groups, p, q]`. */
export const conv2dWeightOp: Op<Conv> = {
  name: 'conv2dWeight',
  shape: (shapes, g) =>
    E.Chain.chain(rank4(shapes), ([x, y]) =>
      check(
        x[0] === y[0] && isGrouping(groupsOf(g), y[1]) && x[1] % groupsOf(g) === 0 && fits(x, g.x) && fits(y, g.y),
        () => `expected as many maps of ${g.x[0]}x${g.x[1]} as of ${g.y[0]}x${g.y[1]}`,
        [y[1], x[1] / groupsOf(g), ...g.w],
      ),
    ),
  vjp: (ct, [x, y], out, g) =>
    ct.shape.length > out.shape.length
      ? raise({
          kind: 'unsupported',
          what: 'bounds through conv2dWeight',
          reason: 'it sums over the images of a batch',
        })
      : [node(conv2dInputOp, [y, ct], g), node(conv2dOp, [x, ct], g)],
  interval: ([x, y], g) => bilinearInterval((a, b) => node(conv2dWeightOp, [a, b], g))(x, y),
  relax: unsupported('it sums over the images of a batch, and bounds are taken per image'),
  kernel: {
    reference: (out, [x, y], [sx, sy], _, g) => {
      out.fill(0)
      const t = taps(g)
      planes(g, sx[0], sx[1], sy[1], (x0, w0, y0) => {
        for (let k = 0; k < t.length; k += 3) out[w0 + t[k + 1]] += x[x0 + t[k]] * y[y0 + t[k + 2]]
      })
    },
    lower: ([x, y], _, g) => kernelOf('conv2dWeight', g, x[0], x[1], y[1]),
  },
}

/**
 * The weights of one group as they are without groups, `[o, c / groups, p, q] -> [o, c, p, q]`: 0 where an output channel does not see a channel.
 */
export const ungrouped = (w: Tensor, { groups = 1 }: Conv): Tensor => {
  if (groups === 1) return w
  const [o, c, ...window] = w.shape
  const same = equal(reshape(iota(groups), [groups, 1, 1, 1, 1, 1]), reshape(iota(groups), [groups, 1, 1, 1]))
  const own = reshape(w, [groups, o / groups, 1, c, ...window])
  return reshape(select(same, own, 0) as Tensor, [o, groups * c, ...window])
}

/** Calls f on `[all leading axes, ...last `tail` axes]` and restores the leading axes. */
const overImages = <T extends Operand>(x: T, tail: number, f: (x: T) => T): T => {
  const lead = x.shape.slice(0, x.shape.length - tail)
  const y = f(reshape(x, [S.size(lead), ...x.shape.slice(lead.length)]))
  return reshape(y, [...lead, ...y.shape.slice(1)])
}

/** Adjoint to x for a cotangent with any leading axes: `[...lead, o, i, j] -> [...lead, c, h, w]`. */
export const conv2dInput = (ct: Tensor, w: Tensor, g: Conv): Tensor =>
  overImages(ct, 3, (y) => node(conv2dInputOp, [y, w], g))

export interface WindowOptions {
  readonly stride?: number | Pair
  /** Zeros before and after: one number, [vertical, horizontal], or [top, left, bottom, right]. */
  readonly padding?: number | Pair | readonly [number, number, number, number]
  readonly dilation?: number | Pair
}

/** Stride, padding and dilation of pooling windows. */
export interface PoolOptions extends WindowOptions {
  /**
   * Whether the number of windows is rounded up: the last one may hang over the padded map. What hangs over has no part in a maximum or a
   * mean. A window that would begin behind the map and the padding before it is none (as PyTorch and ONNX have it).
   */
  readonly ceil?: boolean
}

const pairOf = (v: number | Pair | undefined, other: number): Pair =>
  v === undefined ? [other, other] : typeof v === 'number' ? [v, v] : v

/** Window and the zeros after the last row and column. */
const windowOf = (
  op: string,
  { stride, padding = 0, dilation }: WindowOptions,
): { readonly win: Window; readonly after: Pair } => {
  const p =
    typeof padding === 'number'
      ? [padding, padding, padding, padding]
      : padding.length === 2
        ? [...padding, ...padding]
        : padding
  const win: Window = { stride: pairOf(stride, 1), pad: [p[0], p[1]], dilation: pairOf(dilation, 1) }
  if (
    ![...win.stride, ...win.dilation].every((v) => Number.isInteger(v) && v >= 1) ||
    !p.every((v) => Number.isInteger(v) && v >= 0)
  )
    return raise({
      kind: 'shape',
      op,
      message: `stride [${win.stride}] and dilation [${win.dilation}] must be >= 1, padding [${p}] >= 0, all integers`,
    })
  return { win, after: [p[2], p[3]] }
}

const geometry = (op: string, x: S.Shape, w: Pair, options: PoolOptions): Conv => {
  const { win, after } = windowOf(op, options)
  const extent: Pair = [x[x.length - 2], x[x.length - 1]]
  const y = options.ceil ? overhanging(extent, w, win, after) : outputExtent(extent, w, win, after)
  return y[0] > 0 && y[1] > 0
    ? { ...win, x: extent, w, y }
    : raise({
        kind: 'shape',
        op,
        message: `a window of ${w[0]}x${w[1]} does not fit an input of ${extent[0]}x${extent[1]}`,
      })
}

/** Stride, padding, dilation and groups of a convolution. */
export interface ConvOptions extends WindowOptions {
  /** Channels in so many groups, each with its own output channels (AlexNet, ResNeXt); as many as channels: depthwise (MobileNet). */
  readonly groups?: number
}

/**
 * Convolution `[n, c, h, w], [o, c / groups, p, q] -> [n, o, i, j]` with i = floor((h + pads - dilation (p - 1) - 1) / stride) + 1.
 * Operands may be intervals (centre-radius enclosure). Raises a shape error where channels do not fit.
 *
 * `conv2d(x, w, { groups: 3 })`, x `[n, 3, h, w]`, w `[6, 1, 3, 3]`: a depthwise convolution with two filters for each channel.
 *
 * @example
 *   conv2d(constant([1, 2, 3, 4], [1, 1, 2, 2]), constant([1, 1, 1, 1], [1, 1, 2, 2])) // [10]
 */
export const conv2d = <T extends Operand, U extends Operand>(
  x: T,
  w: U,
  { groups = 1, ...options }: ConvOptions = {},
): Join<T, U> => {
  if (x.shape.length !== 4 || w.shape.length !== 4)
    return raise({
      kind: 'shape',
      op: `conv2d(${S.show(x.shape)}, ${S.show(w.shape)})`,
      message: 'takes [n, c, h, w] and [o, c / groups, p, q]',
    })
  const g = geometry('conv2d', x.shape, [w.shape[2], w.shape[3]], options)
  return apply(conv2dOp, [x, w], groups === 1 ? g : { ...g, groups }) as Join<T, U>
}

// ---- windows -------------------------------------------------------------------------------------------------------

const windowKernel = (kind: 'unfold' | 'fold', g: Conv, n: number, c: number) =>
  ({
    kind: 'kernel',
    kernel: { kind, ...windowSizes(g, n, c) },
    work: n * c * S.size(g.w) * S.size(g.y),
  }) as const

/** Windows of x, zero outside it: `[n, c, h, w] -> [n, i, j, c, p, q]`. */
export const unfoldOp: Op<Conv> = {
  name: 'unfold',
  shape: ([x], g) =>
    check(x.length === 4 && x[2] === g.x[0] && x[3] === g.x[1], () => 'takes a tensor of rank 4', [
      x[0],
      ...g.y,
      x[1],
      ...g.w,
    ]),
  vjp: (ct, [x], out, g) => {
    const lead = ct.shape.slice(0, ct.shape.length - out.shape.length)
    const images = reshape(ct, [S.size(lead) * x.shape[0], ...out.shape.slice(1)])
    return [reshape(node(foldOp, [images], g), [...lead, ...x.shape])]
  },
  interval: increasing(() => unfoldOp),
  relax: 'linear',
  linear: 'repeats',
  outward: { interval: 'exact', terms: (_, g) => ({ result: 1, adjoint: S.size(g.w) }) },
  kernel: {
    reference: (out, [x], [[n, c]], _, g) => {
      out.fill(0)
      eachWindow(g, n, c, (i, j) => {
        out[j] = x[i]
      })
    },
    lower: ([x], _, g) => windowKernel('unfold', g, x[0], x[1]),
  },
}

/** Adjoint of unfold: windows added up where they overlap, `[n, i, j, c, p, q] -> [n, c, h, w]`. */
export const foldOp: Op<Conv> = {
  name: 'fold',
  shape: ([x], g) =>
    check(
      x.length === 6 && S.equals(x.slice(1, 3), g.y) && S.equals(x.slice(4), g.w),
      () => 'takes windows of rank 6',
      [x[0], x[3], ...g.x],
    ),
  vjp: (ct, [x], out, g) => {
    const lead = ct.shape.slice(0, ct.shape.length - out.shape.length)
    const images = reshape(ct, [S.size(lead) * out.shape[0], ...out.shape.slice(1)])
    return [reshape(node(unfoldOp, [images], g), [...lead, ...x.shape])]
  },
  interval: increasing(() => foldOp),
  relax: 'linear',
  kernel: {
    reference: (out, [x], _, [n, c], g) => {
      out.fill(0)
      eachWindow(g, n, c, (i, j) => {
        out[i] += x[j]
      })
    },
    lower: ([x], _, g) => windowKernel('fold', g, x[0], x[3]),
  },
}

/** Calls f(index in x, index in the windows) for every tap inside x. */
const eachWindow = (g: Conv, n: number, c: number, f: (x: number, window: number) => void): void => {
  const [px, pw, py] = [S.size(g.x), S.size(g.w), S.size(g.y)]
  const t = taps(g)
  for (let image = 0; image < n; image++)
    for (let ch = 0; ch < c; ch++)
      for (let k = 0; k < t.length; k += 3)
        f((image * c + ch) * px + t[k], ((image * py + t[k + 2]) * c + ch) * pw + t[k + 1])
}

export const unfold = <T extends Operand>(x: T, size: number | Pair, options: PoolOptions = {}): T => {
  const w = pairOf(size, 1)
  return apply(unfoldOp, [x], geometry('unfold', x.shape, w, options)) as T
}

/** unfold with a geometry at hand (the patches of a bound walk). */
export const unfoldBy = (x: Tensor, g: Conv): Tensor => node(unfoldOp, [x], g)

/** Windows brought to `[n, c, i, j, p q]`. */
const windowsBy = <T extends Operand>(x: T, g: Conv): T => {
  const u = apply(unfoldOp, [x], g) as T
  const [n, i, j, c, p, q] = u.shape
  return reshape(transpose(u, [0, 3, 1, 2, 4, 5]), [n, c, i, j, p * q])
}

/** Whether tap p of window i lies inside the map along an axis. */
const inside = (g: Conv, d: 0 | 1, i: number, p: number): boolean => {
  const at = i * g.stride[d] - g.pad[d] + p * g.dilation[d]
  return at >= 0 && at < g.x[d]
}

/** The first window along an axis that has no tap inside the map. */
const emptyWindow = (g: Conv, d: 0 | 1): number | undefined => {
  const last = g.y[d] - 1
  // Taps that are neighbours miss the map before its first row or behind its last one.
  if (g.dilation[d] === 1) return g.w[d] - 1 < g.pad[d] ? 0 : last * g.stride[d] - g.pad[d] >= g.x[d] ? last : undefined
  const empty = (i: number) => !Array.from({ length: g.w[d] }, (_, p) => inside(g, d, i, p)).includes(true)
  return Array.from({ length: g.y[d] }, (_, i) => i).find(empty)
}

/** 1 for the elements of windows inside the map, 0 for the padding, `[i, j, p q]`. */
const insideMask = (g: Conv): Tensor => {
  const along = (d: 0 | 1, shape: S.Shape): Tensor =>
    constant(
      Array.from({ length: g.y[d] * g.w[d] }, (_, k) => Number(inside(g, d, Math.floor(k / g.w[d]), k % g.w[d]))),
      shape,
    )
  const mask = mul(along(0, [g.y[0], 1, g.w[0], 1]), along(1, [1, g.y[1], 1, g.w[1]]))
  return reshape(mask, [...g.y, S.size(g.w)])
}

/**
 * Largest element of each window of those inside the map, `[n, c, i, j, p q] -> [n, c, i, j]`: padding has no part in value, gradient or bound,
 * whatever the map holds. NaN if any element inside is NaN; ties share the gradient evenly.
 */
export const maxOfWindowsOp: Op<Conv & Axes> = {
  name: 'maxOfWindows',
  shape: ([x], g) => {
    if (!S.equals(x.slice(2), [...g.y, S.size(g.w)])) return E.left(`takes [n, c, ${g.y}, ${S.size(g.w)}]`)
    const d = ([0, 1] as const).find((i) => emptyWindow(g, i) !== undefined)
    return d === undefined
      ? E.right(x.slice(0, 4))
      : E.left(
          `window ${emptyWindow(g, d)} along axis ${d + 2} lies in the padding alone and has no maximum: windows ${S.show(g.w)} with stride [${g.stride}], padding [${g.pad}], dilation [${g.dilation}] on ${S.show(g.x)}`,
        )
  },
  vjp: (ct, [x], out, g) => {
    const winners = stopGradient(mul(equal(x, liftReduced(out, x.shape, g)), insideMask(g)))
    return [mul(liftReduced(ct, x.shape, g), div(winners, sum(winners, 4, true)))]
  },
  interval: increasing(() => maxOfWindowsOp),
  relax: {
    relax: ([x], g) => largestLines(x, g, insideMask(g)),
    lift: (a, [x], g) => liftReduced(a, x.shape, g),
  },
  outward: { interval: 'exact', relax: 'selection' },
  kernel: { expand: ([x], g) => max(select(insideMask(g), x, Number.NEGATIVE_INFINITY), 4) },
}

/**
 * Maximum over windows, `[n, c, h, w] -> [n, c, i, j]`; the stride defaults to the window. Padding is left out of the windows, so it never
 * wins. @throws shape for a window that lies in the padding alone.
 *
 * @example
 *   maxPool2d(constant([1, 2, 3, 4], [1, 1, 2, 2]), 2) // [4]
 */
export const maxPool2d = <T extends Operand>(x: T, size: number | Pair, options: PoolOptions = {}): T => {
  const w = pairOf(size, 1)
  const g = geometry('maxPool2d', x.shape, w, { stride: w, ...options })
  const taken = windowsBy(x, g)
  const reaches = ([0, 1] as const).some((d) => !inside(g, d, 0, 0) || !inside(g, d, g.y[d] - 1, g.w[d] - 1))
  return (reaches ? apply(maxOfWindowsOp, [taken], { ...g, axes: [4], keep: false }) : max(taken, 4)) as T
}

/**
 * Mean over windows, `[n, c, h, w] -> [n, c, i, j]`; the stride defaults to the window. `countPadding`: zeros of the padding count, otherwise the
 * mean is over what lies inside the map. @throws shape for a window that lies in the padding alone, where it does not count.
 *
 * @example
 *   averagePool2d(constant([1, 2, 3, 4], [1, 1, 2, 2]), 2) // [2.5]
 */
export const averagePool2d = <T extends Operand>(
  x: T,
  size: number | Pair,
  { countPadding = true, ...options }: PoolOptions & { readonly countPadding?: boolean } = {},
): T => {
  const w = pairOf(size, 1)
  const all = { stride: w, ...options }
  const g = geometry('averagePool2d', x.shape, w, all)
  const { after } = windowOf('averagePool2d', all)
  const total = sum(windowsBy(x, g), 4)
  // A map of ones for what counts, over which the same windows lie.
  const counted: Conv = countPadding ? { ...g, pad: [0, 0], x: pairwise((d) => g.pad[d] + g.x[d] + after[d]) } : g
  const reaches = ([0, 1] as const).some(
    (d) => !inside(counted, d, 0, 0) || !inside(counted, d, g.y[d] - 1, g.w[d] - 1),
  )
  if (!reaches) return div(total, S.size(w)) as unknown as T
  const empty = ([0, 1] as const).find((d) => emptyWindow(counted, d) !== undefined)
  if (empty !== undefined)
    return raise({
      kind: 'shape',
      op: `averagePool2d(${S.show(x.shape)})`,
      message: `window ${emptyWindow(counted, empty)} along axis ${empty + 2} lies in the padding alone and has no mean: windows ${S.show(w)} with stride [${g.stride}], padding [${g.pad}]`,
    })
  return div(total, sum(windowsBy(full([1, 1, ...counted.x], 1), counted), 4)) as unknown as T
}

// ---- transposed ------------------------------------------------------------------------------------------------------

/** Stride, padding, dilation and groups of a transposed convolution: those of the convolution that it is the adjoint of. */
export interface TransposedOptions extends ConvOptions {
  /** Rows and columns more behind the last, which the forward convolution would not reach. */
  readonly outputPadding?: number | Pair
}

/**
 * Transposed convolution `[n, c, i, j], [c, o / groups, p, q] -> [n, o, h, w]`, the adjoint of `conv2d` from maps of h = stride (i - 1) + dilation (p - 1) +
 * 1 + outputPadding - pads rows. Operands may be intervals. Raises a shape error where channels do not fit, or nothing is left of the map.
 *
 * @example
 *   convTranspose2d(constant([2], [1, 1, 1, 1]), constant([1, 2, 3, 4], [1, 1, 2, 2])) // [2, 4, 6, 8]
 */
export const convTranspose2d = <T extends Operand, U extends Operand>(
  x: T,
  w: U,
  { groups = 1, outputPadding = 0, ...options }: TransposedOptions = {},
): Join<T, U> => {
  const op = `convTranspose2d(${S.show(x.shape)}, ${S.show(w.shape)})`
  if (x.shape.length !== 4 || w.shape.length !== 4)
    return raise({ kind: 'shape', op, message: 'takes [n, c, i, j] and [c, o / groups, p, q]' })
  const { win, after } = windowOf(op, options)
  const extra = pairOf(outputPadding, 0)
  const [y, taps]: readonly Pair[] = [
    [x.shape[2], x.shape[3]],
    [w.shape[2], w.shape[3]],
  ]
  const map = pairwise(
    (i) => win.stride[i] * (y[i] - 1) + win.dilation[i] * (taps[i] - 1) + 1 + extra[i] - win.pad[i] - after[i],
  )
  if (!(map[0] > 0 && map[1] > 0) || !extra.every((v) => Number.isInteger(v) && v >= 0))
    return raise({
      kind: 'shape',
      op,
      message: `padding [${[...win.pad, ...after]}] and outputPadding [${extra}] leave a map of ${map[0]}x${map[1]}`,
    })
  const g: Conv = { ...win, x: map, w: taps, y, ...(groups === 1 ? {} : { groups }) }
  return apply(conv2dInputOp, [x, w], g) as Join<T, U>
}

/**
 * Every row and column repeated: `[n, c, h, w] -> [n, c, h a, w b]` for factors [a, b], the nearest neighbour of an enlarged map. Raises a shape error for what is no map, or no whole factors from 1.
 *
 * @example
 *   upsample2d(constant([1, 2], [1, 1, 1, 2]), [1, 2]) // [1, 1, 2, 2]
 */
export const upsample2d = <T extends Operand>(x: T, factor: number | Pair): T => {
  const [a, b] = pairOf(factor, 1)
  if (x.shape.length !== 4 || ![a, b].every((v) => Number.isInteger(v) && v >= 1))
    return raise({
      kind: 'shape',
      op: `upsample2d(${S.show(x.shape)})`,
      message: `takes [n, c, h, w] and whole factors >= 1, not [${[a, b]}]`,
    })
  const [n, c, h, w] = x.shape
  return reshape(broadcastTo(reshape(x, [n, c, h, 1, w, 1]), [n, c, h, a, w, b]), [n, c, h * a, w * b])
}
