import type {
  ArgmaxInstruction,
  CompactInstruction,
  ConvInstruction,
  End,
  Instruction,
  MatmulInstruction,
  RowInstruction,
  WindowInstruction,
} from '../../compile/instruction.ts'
import { raise } from '../../core/error.ts'
import { Combine, LoopMode } from '../../core/lowering.ts'
import { convLoops, finishLoop, foldLoops, unfoldLoops } from './loops.ts'
import { offsetIn, operandIn, type Pages, type Piece, pieces, startOf, type Walk } from './pages.ts'
import { convKernels } from './wgsl/conv.ts'
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
import { type Kernel, product, type Target } from './wgsl/wgsl.ts'

/** Kernels of one instruction, no operand of which reaches over the end of a page. */
type Make = (target: Target) => readonly Kernel[]

const whole = (slot: number, length: number): Walk => ({ slot, offset: 0, strides: [], run: length })

/** The only piece of an iteration without axes. */
const ALL: Piece = { from: [], extents: [], torn: false }

const inOnePage = (a: Walk, b: Walk, pages: Pages): boolean => !pieces([], [a, b], pages)[0].torn

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
  (out: View, dims: readonly number[], value: number, pages: Pages): Make =>
  () =>
    dims.includes(0)
      ? []
      : pieces(dims, [out], pages).map((p) => fillKernel(operandIn(out, p), p.extents, out.strides, value))

/** An epilogue whose bias is a walk over axes, along one of them. */
const epilogueOf = (end: End | undefined, strides: readonly number[]) => ({
  bias: end?.bias === undefined ? undefined : { slot: end.bias, offset: 0, strides },
  relu: end?.relu ?? false,
})

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

const makeMatmul = (i: MatmulInstruction, pages: Pages): Make => {
  const { m, k, n, transA, transB, strideA, strideB, strideOut } = i
  const axes = [i.batch, m, n, k]
  const end = epilogueOf(i.end, [0, 0, 1, 0])
  const walks: readonly Walk[] = [
    { slot: i.out, offset: 0, strides: [strideOut, n, 1, 0] },
    { slot: i.a, offset: 0, strides: [strideA, transA ? 1 : k, 0, transA ? m : 1] },
    { slot: i.b, offset: 0, strides: [strideB, 0, transB ? k : 1, transB ? 1 : n] },
    ...(end.bias === undefined ? [] : [end.bias]),
  ]
  const aligned = walks.every((w) => startOf(pages.slots[w.slot]) % 4 === 0)
  return (target) =>
    pieces(axes, walks, pages).flatMap((p) => {
      const [z, rows, cols, depth] = p.extents
      const [to, left, right] = walks.map((w) => operandIn(w, p))
      return matmulKernels(
        {
          ...i,
          a: left,
          b: right,
          out: to,
          m: rows,
          k: depth,
          n: cols,
          batch: z,
          leadA: transA ? m : k,
          leadB: transB ? k : n,
          leadOut: n,
          finish: finishOf(end, 'col', p, 3, axes),
        },
        aligned,
        target.nested(),
      )
    })
}

/** Of the axes images, output channels, input channels: which one each convolution sums over, and along which its bias runs. */
const CONV_AXES = {
  conv2d: { summed: 2, bias: [0, 1, 0] },
  conv2dInput: { summed: 1, bias: [0, 0, 1] },
  conv2dWeight: { summed: 0, bias: [0, 0, 0] },
} as const

/**
 * Images, output channels and input channels of one group of channels of a convolution; the one that is summed over can be cut too.
 */
const makeGroup = (i: ConvInstruction, group: number, pages: Pages): Make => {
  const g = { ...i, C: i.C / i.groups, O: i.O / i.groups }
  const [imageX, imageY, filter] = [i.C * g.H * g.W, i.O * g.OH * g.OW, g.C * g.KH * g.KW]
  const walk = (slot: number, strides: readonly number[], run: number, share: number): Walk => ({
    slot,
    offset: group * share,
    strides,
    run,
  })
  const x = walk(i.x, [imageX, 0, g.H * g.W], g.H * g.W, g.C * g.H * g.W)
  const w = walk(i.w, [0, filter, g.KH * g.KW], g.KH * g.KW, g.O * filter)
  const y = walk(i.y, [imageY, g.OH * g.OW, 0], g.OH * g.OW, g.O * g.OH * g.OW)
  const { summed, bias } = CONV_AXES[i.kind]
  const end = epilogueOf(i.end, bias)
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
      if (!p.torn) return convKernels(i.kind, part, target.nested())
      // One channel of an image is longer than a page, or lies over the end of one.
      const { result, loops } = convLoops(i.kind, part)
      const begin = finish.accumulate ? [] : makeFill(result.view, result.dims, 0, pages)(target)
      const last = finishLoop(result, finish)
      return [...begin, ...makeAll([...loops, ...(last === undefined ? [] : [last])], pages)(target)]
    })
}

/** A dispatch of its own for every group. */
const makeConv = (i: ConvInstruction, pages: Pages): Make => {
  const makes = Array.from({ length: i.groups }, (_, group) => makeGroup(i, group, pages))
  return (target) => makes.flatMap((make) => make(target))
}

const makeWindows = (i: WindowInstruction, pages: Pages): Make => {
  const image = whole(i.x, i.N * i.C * i.H * i.W)
  const windows = whole(i.windows, i.N * i.OH * i.OW * i.C * i.KH * i.KW)
  const [from, to, kernel, byLoops] =
    i.kind === 'unfold' ? [image, windows, unfoldKernel, unfoldLoops] : [windows, image, foldWindowsKernel, foldLoops]
  if (inOnePage(from, to, pages)) return () => [kernel(operandIn(from, ALL), operandIn(to, ALL), i)]
  const fill = makeFill({ slot: to.slot, offset: 0, strides: [1] }, [to.run ?? 1], 0, pages)
  const loops = makeAll(byLoops(i), pages)
  return (target) => [...fill(target), ...loops(target)]
}

const makeGather = ({ x, index, out, n, rows, d }: RowInstruction, pages: Pages): Make => {
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

const makeScatterAdd = ({ x, index, out, n, rows, d }: RowInstruction, pages: Pages): Make => {
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
const makeArgmax = ({ x, out, outer, axis, inner }: ArgmaxInstruction, pages: Pages): Make => {
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

const makeCompact = ({ x, out, dims }: CompactInstruction, pages: Pages): Make => {
  const n = product(dims)
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
export const kernelsOf = (i: Instruction, pages: Pages, target: Target): readonly Kernel[] => {
  switch (i.kind) {
    case 'loop':
      return makeLoop(i, pages)(target)
    case 'fill':
      return makeFill({ slot: i.out, offset: i.offset, strides: [1] }, [i.n], i.value, pages)(target)
    case 'matmul':
      return makeMatmul(i, pages)(target)
    case 'conv2d':
    case 'conv2dInput':
    case 'conv2dWeight':
      return makeConv(i, pages)(target)
    case 'gather':
      return makeGather(i, pages)(target)
    case 'scatterAdd':
      return makeScatterAdd(i, pages)(target)
    case 'argmax':
      return makeArgmax(i, pages)(target)
    case 'compact':
      return makeCompact(i, pages)(target)
    case 'unfold':
    case 'fold':
      return makeWindows(i, pages)(target)
    case 'repeat':
    case 'scatterInto':
      return raise({
        kind: 'unsupported',
        what: 'a repeated part of a plan',
        reason: 'on WebGPU every round is written out',
      })
    case 'loops':
      return raise({
        kind: 'unsupported',
        what: 'several loops as one',
        reason: 'on WebGPU each loop is a dispatch',
      })
    default:
      return i satisfies never
  }
}
