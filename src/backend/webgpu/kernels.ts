import { raise } from '../../core/error.ts'
import { Combine, LoopMode, Opcode } from '../../core/lowering.ts'
import { convLoops, finishLoop, foldLoops, unfoldLoops } from './loops.ts'
import { offsetIn, operandIn, type Pages, type Piece, pieces, startOf, type Walk } from './pages.ts'
import { convKernels, type Geometry } from './wgsl/conv.ts'
import {
  argmaxKernel,
  compactKernel,
  countKernel,
  emptyKernel,
  fillKernel,
  findKernel,
  foldWindowsKernel,
  gatherKernel,
  scatterAddKernel,
  unfoldKernel,
} from './wgsl/index.ts'
import { type Loop, loopKernels, type View } from './wgsl/loop.ts'
import { matmulKernels } from './wgsl/matmul.ts'
import type { Finish } from './wgsl/product.ts'
import type { Kernel, Target } from './wgsl/wgsl.ts'

/** Kernels of one instruction, no operand of which reaches over the end of a page. */
type Make = (target: Target) => readonly Kernel[]

const whole = (slot: number, length: number): Walk => ({ slot, offset: 0, strides: [], run: length })

/** The only piece of an iteration without axes. */
const ALL: Piece = { from: [], extents: [], torn: false }

const inOnePage = (a: Walk, b: Walk, pages: Pages): boolean => !pieces([], [a, b], pages)[0].torn

/** Words of the loop instruction, as assembly/opcode.ts lists them. */
const loopOf = (c: readonly number[]): Loop => {
  const [, , , depth, mode, combine, kept, nIn, nOps, , slot, offset] = c
  const at = 12 + 2 * depth
  return {
    mode,
    combine,
    kept: mode === LoopMode.map ? depth : kept,
    dims: c.slice(12, 12 + depth),
    out: { slot, offset, strides: c.slice(12 + depth, at) },
    inputs: Array.from({ length: nIn }, (_, i) => {
      const [s, o, ...strides] = c.slice(at + i * (2 + depth), at + (i + 1) * (2 + depth))
      return { slot: s, offset: o, strides }
    }),
    ops: c.slice(at + nIn * (2 + depth), at + nIn * (2 + depth) + nOps * 5),
  }
}

/** A loop in pieces: a reduction that is cut goes on from piece to piece. */
const loopsOf = (l: Loop, pages: Pages): readonly Loop[] => {
  const last = l.dims.length - 1
  const reduced = (d: number) => l.mode !== LoopMode.map && d >= l.kept && !(l.mode === LoopMode.keep && d === last)
  return pieces(l.dims, [l.out, ...l.inputs], pages).map((p) => {
    const at = (v: View): View => ({ ...v, offset: offsetIn(v, p) })
    return {
      ...l,
      dims: p.extents,
      out: at(l.out),
      inputs: l.inputs.map(at),
      accumulate: l.accumulate === true || p.from.some((f, d) => f > 0 && reduced(d)),
    }
  })
}

const makeLoop =
  (l: Loop, pages: Pages): Make =>
  (target) =>
    loopsOf(l, pages).flatMap((x) => loopKernels(x, target.nested()))

const makeAll =
  (loops: readonly Loop[], pages: Pages): Make =>
  (target) =>
    loops.flatMap((l) => makeLoop(l, pages)(target))

const makeFill =
  (out: View, dims: readonly number[], bits: number, pages: Pages): Make =>
  () =>
    dims.includes(0)
      ? []
      : pieces(dims, [out], pages).map((p) => fillKernel(operandIn(out, p), p.extents, out.strides, bits))

/** Words of an epilogue at `at`, as walks over axes whose bias runs along one of them. */
const epilogueOf = (c: readonly number[], at: number, strides: readonly number[]) => {
  const [bias = 0, relu = 0] = c.slice(at, at + 2)
  const walk: Walk | undefined = bias > 0 ? { slot: bias - 1, offset: 0, strides } : undefined
  return { bias: walk, relu: relu !== 0 }
}

/** What is done to the sums of a piece, whose share of the summed axis begins at `from` and ends where all ends or not. */
const finishOf = (
  { bias, relu }: { readonly bias: Walk | undefined; readonly relu: boolean },
  along: 'row' | 'col',
  p: Piece,
  summed: number,
  all: readonly number[],
): Finish => {
  const last = p.from[summed] + p.extents[summed] === all[summed]
  return {
    bias: bias !== undefined && last ? { operand: operandIn(bias, p), along } : undefined,
    relu: relu && last,
    accumulate: p.from[summed] > 0,
  }
}

const makeMatmul = (c: readonly number[], pages: Pages): Make => {
  const [a, b, out, m, k, n, transA, transB, batch, strideA, strideB, strideOut] = c.slice(3)
  const axes = [batch, m, n, k]
  const end = epilogueOf(c, 15, [0, 0, 1, 0])
  const walks: readonly Walk[] = [
    { slot: out, offset: 0, strides: [strideOut, n, 1, 0] },
    { slot: a, offset: 0, strides: [strideA, transA ? 1 : k, 0, transA ? m : 1] },
    { slot: b, offset: 0, strides: [strideB, 0, transB ? k : 1, transB ? 1 : n] },
    ...(end.bias === undefined ? [] : [end.bias]),
  ]
  const aligned = walks.every((w) => startOf(pages.slots[w.slot]) % 4 === 0)
  return (target) =>
    pieces(axes, walks, pages).flatMap((p) => {
      const [z, rows, cols, depth] = p.extents
      const [to, left, right] = walks.map((w) => operandIn(w, p))
      return matmulKernels(
        {
          ...{ a: left, b: right, out: to, m: rows, k: depth, n: cols, batch: z, strideA, strideB, strideOut },
          ...{ transA: transA !== 0, transB: transB !== 0 },
          ...{ leadA: transA ? m : k, leadB: transB ? k : n, leadOut: n },
          finish: finishOf(end, 'col', p, 3, axes),
        },
        aligned,
        target.nested(),
      )
    })
}

const geometryOf = (words: readonly number[]): Geometry => {
  const [N, C, H, W, O, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY, dilationX] = words
  return { N, C, H, W, O, KH, KW, OH, OW, strideY, strideX, padTop, padLeft, dilationY, dilationX }
}

/** The group of channels that a convolution is of. */
interface Group {
  readonly index: number
  readonly count: number
}

/**
 * Images, output channels and input channels of a convolution, or of one group of its channels; the one that is summed over can be cut too.
 */
const makeConv = (c: readonly number[], opcode: Opcode, pages: Pages, group: Group = { index: 0, count: 1 }): Make => {
  const [a, b, out] = c.slice(3)
  const all = geometryOf(c.slice(6))
  const g = { ...all, C: all.C / group.count, O: all.O / group.count }
  const [imageX, imageY, filter] = [all.C * g.H * g.W, all.O * g.OH * g.OW, g.C * g.KH * g.KW]
  const walk = (slot: number, strides: readonly number[], run: number, share: number): Walk => ({
    ...{ slot, offset: group.index * share, strides, run },
  })
  const at = (xs: number, ws: number, ys: number) => ({
    x: walk(xs, [imageX, 0, g.H * g.W], g.H * g.W, g.C * g.H * g.W),
    w: walk(ws, [0, filter, g.KH * g.KW], g.KH * g.KW, g.O * filter),
    y: walk(ys, [imageY, g.OH * g.OW, 0], g.OH * g.OW, g.O * g.OH * g.OW),
  })
  const [end, summed, { x, w, y }] =
    opcode === Opcode.conv2d
      ? ([epilogueOf(c, 21, [0, 1, 0]), 2, at(a, b, out)] as const)
      : opcode === Opcode.conv2dInput
        ? ([epilogueOf(c, 21, [0, 0, 1]), 1, at(out, b, a)] as const)
        : ([epilogueOf([], 21, []), 0, at(a, out, b)] as const)
  const axes = [g.N, g.O, g.C]
  const walks = [x, w, y, ...(end.bias === undefined ? [] : [end.bias])]
  return (target) =>
    pieces(axes, walks, pages).flatMap((p) => {
      const [N, O, C] = p.extents
      const finish = finishOf(end, 'row', p, summed, axes)
      const part = {
        ...{ ...g, N, O, C, imageX, imageY, filter, finish },
        ...{ x: operandIn(x, p), w: operandIn(w, p), y: operandIn(y, p) },
      }
      if (!p.torn) return convKernels(opcode, part, target.nested())
      // One channel of an image is longer than a page, or lies over the end of one.
      const { result, loops } = convLoops(opcode, part)
      const begin = finish.accumulate ? [] : makeFill(result.view, result.dims, 0, pages)(target)
      const last = finishLoop(result, finish)
      return [...begin, ...makeAll([...loops, ...(last === undefined ? [] : [last])], pages)(target)]
    })
}

/** A dispatch of its own for every group. */
const makeGroups = (c: readonly number[], opcode: Opcode, pages: Pages): Make => {
  const count = c[21]
  const plain = c.slice(0, 21)
  const makes = Array.from({ length: count }, (_, index) => makeConv(plain, opcode, pages, { index, count }))
  return (target) => makes.flatMap((make) => make(target))
}

const makeWindows = (c: readonly number[], pages: Pages): Make => {
  const [a, out, ...sizes] = c.slice(3)
  const [N, C, H, W, KH, KW, OH, OW] = sizes
  const image = N * C * H * W
  const windows = N * OH * OW * C * KH * KW
  const unfold = c[0] === Opcode.unfold
  const [from, to] = unfold ? [image, windows] : [windows, image]
  const [x, y] = [whole(a, from), whole(out, to)]
  if (inOnePage(x, y, pages))
    return () => [(unfold ? unfoldKernel : foldWindowsKernel)(operandIn(x, ALL), operandIn(y, ALL), sizes)]
  const fill = makeFill({ slot: out, offset: 0, strides: [1] }, [to], 0, pages)
  const loops = makeAll(unfold ? unfoldLoops(a, out, sizes) : foldLoops(a, out, sizes), pages)
  return (target) => [...fill(target), ...loops(target)]
}

const makeGather = (c: readonly number[], pages: Pages): Make => {
  const [x, index, out, n, rows, d] = c.slice(3)
  const length = rows * d
  // The rows named are not known: x is read page by page.
  return () =>
    pieces([length], [{ slot: x, offset: 0, strides: [1] }], pages).flatMap((shown) => {
      const [low, high] = [shown.from[0], shown.from[0] + shown.extents[0]]
      const walks: readonly Walk[] = [
        { slot: out, offset: 0, strides: [d, 1] },
        { slot: index, offset: 0, strides: [1, 0] },
        { slot: x, offset: low, strides: [0, 0], run: high - low },
      ]
      return pieces([n, d], walks, pages).map((p) => {
        const [to, at, from] = walks.map((w) => operandIn(w, p))
        const [count, columns] = p.extents
        const part = { n: count, d: columns, rows, width: d, column: p.from[1] }
        return gatherKernel({ out: to, x: from, index: at, ...part, shown: [low, high] })
      })
    })
}

const makeScatterAdd = (c: readonly number[], pages: Pages): Make => {
  const [x, index, out, n, rows, d] = c.slice(3)
  const walks: readonly Walk[] = [
    { slot: out, offset: 0, strides: [d, 1, 0] },
    { slot: x, offset: 0, strides: [0, 1, d] },
    { slot: index, offset: 0, strides: [0, 0, 1] },
  ]
  return () =>
    pieces([rows, d, n], walks, pages).map((p) => {
      const [to, from, at] = walks.map((w) => operandIn(w, p))
      const [count, columns, added] = p.extents
      const part = { n: added, d: columns, rows, count, width: d, row: p.from[0], accumulate: p.from[2] > 0 }
      return scatterAddKernel({ out: to, x: from, index: at, ...part })
    })
}

/** The largest value first, then where it is. */
const makeArgmax = (c: readonly number[], pages: Pages): Make => {
  const [x, out, outer, axis, inner] = c.slice(3)
  const [from, to] = [whole(x, outer * axis * inner), whole(out, outer * inner)]
  if (inOnePage(from, to, pages))
    return () => [argmaxKernel(operandIn(to, ALL), operandIn(from, ALL), outer, axis, inner)]
  return (target) => {
    const best = target.scratch(outer * inner)
    const largest: Loop = {
      mode: LoopMode.inner,
      combine: Combine.max,
      kept: 2,
      dims: [outer, inner, axis],
      out: { slot: best, offset: 0, strides: [inner, 1, 0] },
      inputs: [{ slot: x, offset: 0, strides: [axis * inner, 1, inner] }],
      ops: [],
    }
    const walks: readonly Walk[] = [
      { slot: out, offset: 0, strides: [inner, 0, 1] },
      { slot: x, offset: 0, strides: [axis * inner, inner, 1] },
      { slot: best, offset: 0, strides: [inner, 0, 1] },
    ]
    return [
      ...makeLoop(largest, pages)(target),
      ...pieces([outer, axis, inner], walks, pages).map((p) => {
        const [place, values, known] = walks.map((w) => operandIn(w, p))
        const [o, j, i] = p.extents
        const part = { dims: [o, j, i], strides: [axis * inner, inner], first: p.from[1] } as const
        return findKernel({ out: place, x: values, best: known, ...part })
      }),
    ]
  }
}

const makeCompact = (c: readonly number[], pages: Pages): Make => {
  const [x, out, n, , ...dims] = c.slice(3)
  const [from, to] = [whole(x, n), whole(out, n * dims.length)]
  const rows = dims.map((_, k) => k)
  if (inOnePage(from, to, pages)) {
    const all = { n, first: 0, dims, rows, apart: n, shown: [0, n], counter: undefined } as const
    return () => [compactKernel({ out: operandIn(to, ALL), x: operandIn(from, ALL), ...all })]
  }
  return (target) => {
    const counter: Walk = { slot: target.scratch(1), offset: 0, strides: [0] }
    const along = (w: Walk) => pieces([n], [w, counter], pages).map((p) => ({ p, at: operandIn(w, p) }))
    const sum = { slot: counter.slot, offset: 0 }
    const parts = rows.flatMap((k) =>
      along({ slot: out, offset: k * n, strides: [1] }).map(({ p, at }) => ({
        ...{ k, at, low: p.from[0], size: p.extents[0] },
      })),
    )
    return [
      fillKernel(sum, [1], [0], 0),
      ...along({ slot: x, offset: 0, strides: [1] }).flatMap(({ p, at }) => [
        ...parts.map((o) =>
          compactKernel({
            ...{ out: o.at, x: at, n: p.extents[0], first: p.from[0], dims, rows: [o.k], apart: 0 },
            ...{ shown: [o.low, o.low + o.size], counter: sum },
          }),
        ),
        countKernel(sum, at, p.extents[0]),
      ]),
      ...parts.map((o) => emptyKernel(o.at, sum, o.size, o.low)),
    ]
  }
}

/** The kernels of one instruction. */
export const kernelsOf = (c: readonly number[], pages: Pages, target: Target): readonly Kernel[] => {
  const opcode: Opcode = c[0]
  switch (opcode) {
    case Opcode.halt:
      return []
    case Opcode.loop:
      return makeLoop(loopOf(c), pages)(target)
    case Opcode.fill: {
      const [slot, offset, n, bits] = c.slice(3)
      return makeFill({ slot, offset, strides: [1] }, [n], bits, pages)(target)
    }
    case Opcode.matmul:
      return makeMatmul(c, pages)(target)
    case Opcode.conv2d:
    case Opcode.conv2dInput:
    case Opcode.conv2dWeight:
      return makeConv(c, opcode, pages)(target)
    case Opcode.groupConv2d:
      return makeGroups(c, Opcode.conv2d, pages)(target)
    case Opcode.groupConv2dInput:
      return makeGroups(c, Opcode.conv2dInput, pages)(target)
    case Opcode.groupConv2dWeight:
      return makeGroups(c, Opcode.conv2dWeight, pages)(target)
    case Opcode.gather:
      return makeGather(c, pages)(target)
    case Opcode.scatterAdd:
      return makeScatterAdd(c, pages)(target)
    case Opcode.argmax:
      return makeArgmax(c, pages)(target)
    case Opcode.compact:
      return makeCompact(c, pages)(target)
    case Opcode.unfold:
    case Opcode.fold:
      return makeWindows(c, pages)(target)
    case Opcode.repeat:
    case Opcode.end:
    case Opcode.scatterInto:
      return raise({
        kind: 'unsupported',
        what: 'a repeated part of a plan',
        reason: 'on WebGPU every round is written out',
      })
    case Opcode.loops:
      return raise({
        kind: 'unsupported',
        what: 'several loops as one',
        reason: 'on WebGPU each loop is a dispatch',
      })
    default:
      return opcode satisfies never
  }
}
