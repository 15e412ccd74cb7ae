import type { LoopInstruction, RegisterOp } from '../../../compile/instruction.ts'
import { LoopMode } from '../../../core/lowering.ts'
import { combine, micro, neutral } from './math.ts'
import {
  type Axis,
  address,
  element,
  elementwise,
  entry,
  type Kernel,
  LANES,
  NOTHING,
  type Operand,
  product,
  type Ref,
  type Target,
  unravel,
} from './wgsl.ts'

export interface View extends Operand {
  /** One per dim. */
  readonly strides: readonly number[]
}

/** A loop, or a part of one: its operands may say which elements of them are touched. */
export interface Loop extends Pick<LoopInstruction, 'mode' | 'combine' | 'kept' | 'dims'> {
  readonly out: View
  readonly inputs: readonly View[]
  readonly ops: readonly RegisterOp[]
  /** A reduction that goes on: its results are combined with those that are there. */
  readonly accumulate?: boolean
}

/** A view as an operand that says what is touched. */
const seen = (v: View, dims: readonly number[]): Operand => {
  if (dims.includes(0)) return { slot: v.slot, offset: v.offset, range: NOTHING }
  const spans = v.strides.map((s, d) => (dims[d] - 1) * s)
  const sum = (f: (x: number) => number) => spans.reduce((t, x) => t + f(x), v.offset)
  return { slot: v.slot, offset: v.offset, range: [sum((x) => Math.min(x, 0)), sum((x) => Math.max(x, 0))] }
}

/** The statements of the fused program on loaded inputs x0, x1, ...; the last name is its value. Each result has a name of its own. */
const program = (l: Loop): { readonly lines: readonly string[]; readonly value: string } => {
  const names = l.inputs.map((_, i) => `x${i}`)
  const lines: string[] = []
  let value = names[0]
  for (const [i, { micro: m, dst, args }] of l.ops.entries()) {
    const [a, b, c] = args.map((k) => names[k])
    value = `v${i}`
    lines.push(`let ${value} = ${micro(m, a, b, c)};`)
    names[dst] = value
  }
  return { lines, value }
}

const indent = (lines: readonly string[], by: string): string => lines.map((s) => by + s).join('\n')

/** A loop without reduction: one invocation per element, the last dim along neighbouring invocations. */
const mapKernel = (l: Loop): Kernel => {
  const axes = l.dims.map((extent, i): Axis => ({ name: `i${i}`, extent }))
  const { lines, value } = program(l)
  return elementwise(
    product(l.dims),
    [l.out, ...l.inputs].map((v) => seen(v, l.dims)),
    ([out, ...refs]) => {
      const loads = l.inputs.map((v, i) => `let x${i} = ${element(refs[i], address('0', axes, v.strides))};`)
      const store = `${element(out, address('0', axes, l.out.strides))} = ${value};`
      return indent([...unravel('e', axes), ...loads, ...lines, store], '  ')
    },
  )
}

interface Split {
  /** Invocations that share one output: a power of two. */
  readonly lanes: number
  /** Parts of a reduction that are summed by a second dispatch. */
  readonly segments: number
}

/** Workgroups below which a GPU idles, and how many of them a long reduction is cut into. */
const FEW = 32
const SEGMENTS = 64

/**
 * How many invocations work on an output. Reductions over contiguous elements take as many as leave each a few elements; where
 * neighbouring outputs are contiguous instead, few invocations per output keep the accesses of a workgroup together.
 */
const splitOf = (outputs: number, length: number, columns: boolean, room: number): Split => {
  const most = columns ? (outputs >= 64 ? 16 : LANES) : LANES
  const enough = (lanes: number) => (columns ? outputs * lanes >= 1 << 15 : length <= lanes * 8)
  let lanes = 1
  while (lanes < most && length >= lanes * 16 && !enough(lanes)) lanes *= 2
  const groups = Math.ceil((outputs * lanes) / LANES)
  const each = length / lanes
  const segments = groups < FEW && each >= 256 ? Math.min(SEGMENTS, Math.ceil(each / 64)) : 1
  return { lanes, segments: outputs * segments <= room ? segments : 1 }
}

/** One dispatch of a reduction: results go to `out`, one per output, or one per output and segment where there are several. */
const reduceKernel = (l: Loop, { lanes, segments }: Split, target: View): Kernel => {
  const depth = l.dims.length
  const isKept = (d: number) => d < l.kept || (l.mode === LoopMode.keep && d === depth - 1)
  const axes = l.dims.map((extent, i): Axis => ({ name: `i${i}`, extent }))
  const keptAxes = axes.filter((_, d) => isKept(d))
  const reducedAxes = axes.filter((_, d) => !isKept(d))
  const only = (strides: readonly number[], which: (d: number) => boolean) => strides.filter((_, d) => which(d))
  const reduced = (d: number) => !isKept(d)
  const outputs = product(keptAxes.map((a) => a.extent))
  const length = product(reducedAxes.map((a) => a.extent))
  const perGroup = LANES / lanes
  const blocks = Math.ceil(outputs / perGroup)
  const groups = blocks * segments
  const columns = l.mode === LoopMode.keep
  const { lines, value } = program(l)
  const moves = l.inputs.map((v) => reducedAxes.some((a, i) => a.extent !== 1 && only(v.strides, reduced)[i] !== 0))
  const part = Math.ceil(length / segments)
  // Lanes of one output lie `apart` in the workgroup.
  const apart = columns ? perGroup : 1
  const tree: string[] = []
  for (let h = lanes / 2; h >= 1; h /= 2) {
    const sum = combine(l.combine, 'shared_sum[lane]', `shared_sum[lane + ${h * apart}]`)
    tree.push(`if (y < ${h}) { shared_sum[lane] = ${sum}; }`, 'workgroupBarrier();')
  }
  return {
    operands: [segments === 1 ? seen(target, l.dims) : target, ...l.inputs.map((v) => seen(v, l.dims))],
    groups,
    wide: false,
    code: ([out, ...refs]) => {
      const starts = l.inputs.map((v, i) => `let k${i} = ${address(refs[i].base, keptAxes, only(v.strides, isKept))};`)
      const still = l.inputs.flatMap((_, i) => (moves[i] ? [] : [`let x${i} = ${refs[i].buffer}[k${i}];`]))
      const loads = l.inputs.flatMap((v, i) =>
        moves[i] ? [`let x${i} = ${refs[i].buffer}[${address(`k${i}`, reducedAxes, only(v.strides, reduced))}];`] : [],
      )
      const where =
        segments === 1
          ? element(out, address('0', keptAxes, only(target.strides, isKept)))
          : element(out, `segment * ${outputs} + o`)
      const sum = lanes === 1 ? 'sum' : 'shared_sum[lane]'
      const result = l.accumulate && segments === 1 ? combine(l.combine, where, sum) : sum
      const store = `if (o < ${outputs} && segment < ${segments} && y == 0) { ${where} = ${result}; }`
      return `${lanes === 1 ? '' : `var<workgroup> shared_sum: array<f32, ${LANES}>;\n`}${entry(LANES)}
  let block = group % ${blocks};
  let segment = group / ${blocks};
  let x = lane ${columns ? '%' : '/'} ${columns ? perGroup : lanes};
  let y = lane ${columns ? '/' : '%'} ${columns ? perGroup : lanes};
  let o = block * ${perGroup} + x;
${indent(unravel('o', keptAxes), '  ')}
  var sum = ${neutral(l.combine)};
  if (o < ${outputs} && segment < ${segments}) {
${indent([...starts, ...still], '    ')}
    let end = ${segments === 1 ? `${length}` : `min(${length}, (segment + 1) * ${part})`};
    for (var r = segment * ${part} + y; r < end; r += ${lanes}) {
${indent([...unravel('r', reducedAxes), ...loads, ...lines], '      ')}
      sum = ${combine(l.combine, 'sum', value)};
    }
  }
${lanes === 1 ? '' : `  shared_sum[lane] = sum;\n  workgroupBarrier();\n${indent(tree, '  ')}\n`}  ${store}
}`
    },
  }
}

/** The kernels of a loop; none when it has no element. */
export const loopKernels = (l: Loop, { scratch, room }: Target): readonly Kernel[] => {
  if (l.mode === LoopMode.map) return product(l.dims) === 0 ? [] : [mapKernel(l)]
  const depth = l.dims.length
  const kept = l.dims.filter((_, d) => d < l.kept || (l.mode === LoopMode.keep && d === depth - 1))
  const outputs = product(kept)
  const length = product(l.dims) / (outputs || 1)
  if (outputs === 0) return []
  const split = splitOf(outputs, length, l.mode === LoopMode.keep, room)
  if (split.segments === 1) return [reduceKernel(l, split, l.out)]
  const partial: View = { slot: scratch(outputs * split.segments), offset: 0, strides: [] }
  const keptStrides = l.out.strides.filter((_, d) => d < l.kept || (l.mode === LoopMode.keep && d === depth - 1))
  return [
    reduceKernel(l, split, partial),
    foldKernel(partial, split.segments, kept, { ...l.out, strides: keptStrides }, l),
  ]
}

/** out = the combination of `count` partial results, each a row-major block of `dims`. */
const foldKernel = (
  partial: Operand,
  count: number,
  dims: readonly number[],
  out: View,
  { combine: how, accumulate }: Loop,
): Kernel => {
  const axes = dims.map((extent, i): Axis => ({ name: `i${i}`, extent }))
  const n = product(dims)
  return elementwise(n, [seen(out, dims), partial], ([to, from]: readonly Ref[]) => {
    const target = element(to, address('0', axes, out.strides))
    return indent(
      [
        ...unravel('e', axes),
        `var sum = ${element(from, 'e')};`,
        `for (var s = 1; s < ${count}; s++) { sum = ${combine(how, 'sum', element(from, `s * ${n} + e`))}; }`,
        `${target} = ${accumulate ? combine(how, target, 'sum') : 'sum'};`,
      ],
      '  ',
    )
  })
}
