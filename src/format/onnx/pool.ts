import type { Operand, Tensor } from '../../core/tensor.ts'
import { averagePool2d, type Conv, maxPool2d, unfoldOp } from '../../ops/index.ts'
import { after, asGiven, asMaps, type Geometry, geometry, mapsOf, type Pair, pairOf } from './conv.ts'
import type { Import, NodeView } from './values.ts'
import { between, type Fuse } from './writer.ts'

/** Windows of a pool; with SAME their number is that of the strides, whatever ceil_mode says. */
interface Windows extends Geometry {
  readonly ceil: boolean
}

const pool =
  (step: (s: NodeView, kernel: Pair, options: Windows) => (x: Operand) => Operand): Import =>
  (s) => {
    const maps = mapsOf(s)
    const given = s.list('kernel_shape') ?? s.fail('attribute kernel_shape is missing')
    const kernel = pairOf(s, 'kernel_shape', given, maps.axes)
    const ceil = s.int('ceil_mode', 0) !== 0 && !s.string('auto_pad', 'NOTSET').startsWith('SAME')
    const options = { ...geometry(s, maps, kernel), ceil }
    if (
      options.dilation.some((d, i) => d !== 1 && kernel[i] !== 1) &&
      s.string('auto_pad', 'NOTSET').startsWith('SAME')
    )
      s.fail(
        `attribute auto_pad: with dilations the standard and onnxruntime pad differently; write the pads that are meant`,
      )
    if (options.padding.some((p, i) => p >= kernel[i % 2]))
      s.fail(`attribute pads: [${options.padding}] must be less than the window [${given}]`)
    const run = step(s, kernel, options)
    return s.emit([maps.floats], ([v]) => asGiven(run(asMaps(v)), maps))
  }

const maxPool = pool((s, kernel, options) => {
  s.int('storage_order', 0)
  return (x) => maxPool2d(x, kernel, options)
})

/** By default padding does not count among the elements of a mean. */
const averagePool = pool((s, kernel, options) => {
  const countPadding = s.int('count_include_pad', 0) !== 0
  return (x) => averagePool2d(x, kernel, { ...options, countPadding })
})

export const imports: Readonly<Record<string, Import>> = { AveragePool: averagePool, MaxPool: maxPool }

/** Ops of a pool below its result, more than any way of building one has. */
const DEPTH = 8

/** How often nodes have y as an operand: a count of elements that is only a part of a pool goes with it. */
const usesWithin = (nodes: readonly Tensor[], y: Tensor): number =>
  nodes.reduce((n, x) => n + x.inputs.filter((i) => i === y).length, 0)

/** The windows that x is made of by steps on a first operand. */
const windowsBelow = (x: Tensor): Tensor | undefined => {
  let at: Tensor | undefined = x
  for (let i = 0; i < DEPTH && at !== undefined && at.op !== unfoldOp; i++) at = at.inputs[0]
  return at?.op === unfoldOp ? at : undefined
}

/**
 * A graph that is node by node what the pools of the library build of the windows found in it, whatever that is: one MaxPool or
 * AveragePool.
 */
const fusePool: Fuse = (x, { moving, uses }) => {
  const windows = x.shape.length === 4 ? windowsBelow(x) : undefined
  if (windows === undefined || !moving(windows)) return undefined
  const g = windows.attrs as Conv
  const padding = [...g.pad, ...after(g)] as unknown as Geometry['padding']
  if (padding.some((p, i) => p >= g.w[i % 2])) return undefined
  const [image] = windows.inputs
  const options = { stride: g.stride, dilation: g.dilation, padding }
  const kinds = [
    ['MaxPool', () => maxPool2d(image, g.w, options), { dilations: { ints: g.dilation } }],
    ['AveragePool', () => averagePool2d(image, g.w, options), { count_include_pad: { int: 1 } }],
    [
      'AveragePool',
      () => averagePool2d(image, g.w, { ...options, countPadding: false }),
      { count_include_pad: { int: 0 } },
    ],
  ] as const
  for (const [op, build, more] of kinds) {
    if (op === 'AveragePool' && g.dilation.some((d) => d !== 1)) continue
    const inside = between(x, build(), image)
    if (inside === undefined || inside.some((y) => moving(y) && uses(y) !== 1)) continue
    return {
      absorbs: inside.filter((y) => moving(y) || usesWithin([x, ...inside], y) === uses(y)),
      write: (w) =>
        w.emit(x, op, [w.ref(image)], {
          ...more,
          kernel_shape: { ints: g.w },
          pads: { ints: padding },
          strides: { ints: g.stride },
        }),
    }
  }
  return undefined
}

export const fusions: readonly Fuse[] = [fusePool]
