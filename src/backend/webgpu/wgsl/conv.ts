import type { WindowSizes } from '../../../core/lowering.ts'
import { type Finish, productKernels } from './product.ts'
import { type Kernel, type Operand, type Ref, type Target, unravel } from './wgsl.ts'

/** Sizes of a convolution, or of one group of its channels. */
interface Geometry extends WindowSizes {
  readonly O: number
}

/** Which of the three convolutions. */
export type ConvKind = 'conv2d' | 'conv2dInput' | 'conv2dWeight'

/** A convolution, a part of a larger one perhaps: images and filters then lie further apart than their sizes say. */
export interface Conv extends Geometry {
  readonly x: Operand
  readonly w: Operand
  readonly y: Operand
  /** Elements from one image of x and y, and from one filter of w, to the next. */
  readonly imageX: number
  readonly imageY: number
  readonly filter: number
  readonly finish: Finish
}

const body = (lines: readonly string[]): string => lines.map((s) => `  ${s}`).join('\n')

/** Splits `from` into one named index each, every one of them declared even where its extent is 1. */
const indices = (from: string, dims: readonly (readonly [string, number])[]): readonly string[] => [
  ...dims.filter(([, extent]) => extent === 1).map(([name]) => `let ${name} = 0;`),
  ...unravel(
    from,
    dims.map(([name, extent]) => ({ name, extent })),
  ),
]

/** Reads x at window position (c, p, q) of output pixel (n, i, j), 0 outside. */
const readWindow = (g: Conv, ref: Ref): readonly string[] => [
  `let h = oi * ${g.strideY} + p * ${g.dilationY} - ${g.padTop};`,
  `let w = oj * ${g.strideX} + q * ${g.dilationX} - ${g.padLeft};`,
  `if (h < 0 || h >= ${g.H} || w < 0 || w >= ${g.W}) { return 0.0; }`,
  `return ${ref.buffer}[${ref.base} + n * ${g.imageX} + (c * ${g.H} + h) * ${g.W} + w];`,
]

const pixels = (g: Geometry) =>
  [
    ['n', g.N],
    ['oi', g.OH],
    ['oj', g.OW],
  ] as const
const window = (g: Geometry, channels: 'c' | 'o') =>
  [
    [channels, channels === 'c' ? g.C : g.O],
    ['p', g.KH],
    ['q', g.KW],
  ] as const

/** y[o, (n, i, j)] = sum over (c, p, q) of w[o, (c, p, q)] x[(c, p, q), (n, i, j)]. */
const forward = (g: Conv, target: Target): readonly Kernel[] => {
  const plane = g.OH * g.OW
  return productKernels(
    {
      rows: g.O,
      cols: g.N * plane,
      depth: g.C * g.KH * g.KW,
      batch: 1,
      out: g.y,
      left: g.w,
      right: g.x,
      wide: false,
      a: { along: 'k', load: (ref) => `  return ${ref.buffer}[${ref.base} + i * ${g.filter} + k];` },
      b: {
        along: 'i',
        load: (ref) => body([...indices('i', pixels(g)), ...indices('k', window(g, 'c')), ...readWindow(g, ref)]),
      },
      place: ({ base }) => `  let at = ${base} + col / ${plane} * ${g.imageY} + row * ${plane} + col % ${plane};`,
      finish: g.finish,
    },
    target,
  )
}

/** w[o, (c, p, q)] = sum over (n, i, j) of y[o, (n, i, j)] x[(n, i, j), (c, p, q)]. */
const toWeight = (g: Conv, target: Target): readonly Kernel[] => {
  const plane = g.OH * g.OW
  return productKernels(
    {
      rows: g.O,
      cols: g.C * g.KH * g.KW,
      depth: g.N * plane,
      batch: 1,
      out: g.w,
      left: g.y,
      right: g.x,
      wide: false,
      a: {
        along: 'k',
        load: (ref) =>
          `  return ${ref.buffer}[${ref.base} + k / ${plane} * ${g.imageY} + i * ${plane} + k % ${plane}];`,
      },
      b: {
        along: 'k',
        load: (ref) => body([...indices('k', pixels(g)), ...indices('i', window(g, 'c')), ...readWindow(g, ref)]),
      },
      place: ({ base }) => `  let at = ${base} + row * ${g.filter} + col;`,
      finish: g.finish,
    },
    target,
  )
}

/**
 * One axis of the input gradient: x at h gets w[p] y[i] wherever h = i stride - pad + p dilation. Without dilation the pixels fall into
 * `stride` phases by h mod stride, and each phase meets only every stride-th p: no product with a zero between pixels is made.
 */
interface Phases {
  readonly count: number
  /** Pixels of one phase, at most; taps of the kernel that meet it, at most. */
  readonly pixels: number
  readonly taps: number
  /** Statements: pixel from (phase, step); tap and output index from (pixel, t), and whether they exist. */
  readonly pixel: (phase: string, step: string, pixel: string) => string
  readonly tap: (pixel: string, t: string, tap: string, out: string, valid: string) => readonly string[]
}

const phasesOf = (size: number, kernel: number, outs: number, stride: number, pad: number, dilation: number): Phases =>
  dilation === 1
    ? {
        count: stride,
        pixels: Math.ceil(size / stride),
        taps: Math.ceil(kernel / stride),
        pixel: (phase, step, pixel) => `let ${pixel} = ${step} * ${stride} + ${phase};`,
        tap: (pixel, t, tap, out, valid) => [
          `let ${tap} = (${pixel} + ${pad}) % ${stride} + ${t} * ${stride};`,
          `let ${out} = (${pixel} + ${pad}) / ${stride} - ${t};`,
          `let ${valid} = ${tap} < ${kernel} && ${out} >= 0 && ${out} < ${outs};`,
        ],
      }
    : {
        count: 1,
        pixels: size,
        taps: kernel,
        pixel: (_, step, pixel) => `let ${pixel} = ${step};`,
        tap: (pixel, t, tap, out, valid) => [
          `let ${tap} = ${t};`,
          `let ${out}_from = ${pixel} + ${pad} - ${t} * ${dilation};`,
          `let ${out} = ${out}_from / ${stride};`,
          `let ${valid} = ${out}_from >= 0 && ${out}_from % ${stride} == 0 && ${out} < ${outs};`,
        ],
      }

/** x[c, (n, h, w)] = sum over (o, p, q) of w[(o, p, q), c] y[(o, p, q), (n, h, w)], one product per phase of the pixels. */
const toInput = (g: Conv, target: Target): readonly Kernel[] => {
  const down = phasesOf(g.H, g.KH, g.OH, g.strideY, g.padTop, g.dilationY)
  const across = phasesOf(g.W, g.KW, g.OW, g.strideX, g.padLeft, g.dilationX)
  const taps = [
    ['o', g.O],
    ['u', down.taps],
    ['v', across.taps],
  ] as const
  const pixel = (from: string) => [
    ...indices(from, [
      ['n', g.N],
      ['hs', down.pixels],
      ['ws', across.pixels],
    ]),
    ...indices('z', [
      ['hp', down.count],
      ['wp', across.count],
    ]),
    down.pixel('hp', 'hs', 'h'),
    across.pixel('wp', 'ws', 'w'),
  ]
  return productKernels(
    {
      rows: g.C,
      cols: g.N * down.pixels * across.pixels,
      depth: g.O * down.taps * across.taps,
      batch: down.count * across.count,
      out: g.x,
      left: g.w,
      right: g.y,
      wide: false,
      a: {
        along: 'i',
        load: (ref) =>
          body([
            ...indices('z', [
              ['hp', down.count],
              ['wp', across.count],
            ]),
            ...indices('k', taps),
            // The phase alone decides the tap: any pixel of it will do.
            ...down.tap('hp', 'u', 'p', 'oi', 'in_y'),
            ...across.tap('wp', 'v', 'q', 'oj', 'in_x'),
            `if (p >= ${g.KH} || q >= ${g.KW}) { return 0.0; }`,
            `return ${ref.buffer}[${ref.base} + o * ${g.filter} + (i * ${g.KH} + p) * ${g.KW} + q];`,
          ]),
      },
      b: {
        along: 'i',
        load: (ref) =>
          body([
            ...pixel('i'),
            ...indices('k', taps),
            ...down.tap('h', 'u', 'p', 'oi', 'in_y'),
            ...across.tap('w', 'v', 'q', 'oj', 'in_x'),
            'if (!(in_y && in_x)) { return 0.0; }',
            `return ${ref.buffer}[${ref.base} + n * ${g.imageY} + (o * ${g.OH} + oi) * ${g.OW} + oj];`,
          ]),
      },
      place: ({ base }) =>
        body([
          ...pixel('col'),
          `if (h >= ${g.H} || w >= ${g.W}) { return; }`,
          `let at = ${base} + n * ${g.imageX} + (row * ${g.H} + h) * ${g.W} + w;`,
        ]),
      finish: g.finish,
    },
    target,
  )
}

/** The kernels of one of the three convolutions. */
export const convKernels = (kind: ConvKind, g: Conv, target: Target): readonly Kernel[] =>
  ({ conv2d: forward, conv2dInput: toInput, conv2dWeight: toWeight })[kind](g, target)
