import { type Shape, show, size } from '../core/shape.ts'
import type { Operand } from '../core/tensor.ts'
import {
  abs,
  add,
  averagePool2d,
  broadcastTo,
  conv2d,
  div,
  exp,
  full,
  leakyRelu,
  log,
  matmul,
  max,
  maximum,
  maxPool2d,
  mean,
  minimum,
  mul,
  neg,
  pad,
  relu,
  reshape,
  select,
  sigmoid,
  sqrt,
  sub,
  sum,
  tanh,
  transpose,
} from '../ops/index.ts'
import type { Extent, Floats, Handler, Ints, Site } from './onnx-site.ts'

/**
 * The ops of the ONNX standard that are read, opset 7 to 25 (https://onnx.ai/onnx/operators). A handler checks its node and
 * gives a step on operands that is right for every size of the batch. Integer tensors are shapes in the making and are
 * computed on the spot, the batch as the symbol 'N'.
 */

const extents = (v: Floats): readonly Extent[] => (v.batched ? ['N', ...v.probe.shape.slice(1)] : v.probe.shape)
const showExtents = (v: Floats): string => show(extents(v) as Shape)

const axis = (s: Site, a: number, rank: number, what = 'axis'): number =>
  Number.isInteger(a) && a >= -rank && a < rank
    ? a < 0
      ? a + rank
      : a
    : s.fail(`${what} ${a} is not an axis of a tensor of rank ${rank}`)

const axes = (s: Site, list: readonly number[], rank: number): readonly number[] => {
  const out = list.map((a) => axis(s, a, rank, 'axes:'))
  return new Set(out).size === out.length ? out.sort((a, b) => a - b) : s.fail(`axes [${list}] repeat an axis`)
}

/** Axes as an attribute (older opsets) or as input 1. */
const axesOf = (s: Site): readonly number[] | undefined => s.list('axes') ?? (s.has(1) ? s.numbers(1) : undefined)

// ---- elementwise ---------------------------------------------------------------------------------------------------

const unary =
  (f: (x: Operand) => Operand): Handler =>
  (s) =>
    s.emit([s.floats(0)], ([x]) => f(x))

/** The axes of two operands meet at the last one; the batch must meet the batch, or an extent of 1, or nothing. */
const checkBroadcast = (s: Site, a: Floats, b: Floats): void => {
  const clash = (x: Floats, y: Floats): boolean =>
    x.batched &&
    (y.batched
      ? y.probe.shape.length !== x.probe.shape.length
      : y.probe.shape.length > x.probe.shape.length ||
        (y.probe.shape.length === x.probe.shape.length && y.probe.shape[0] !== 1))
  if (clash(a, b) || clash(b, a))
    s.fail(`operands ${showExtents(a)} and ${showExtents(b)} do not leave the batch as the first axis`)
}

const binary =
  (f: (a: Operand, b: Operand) => Operand): Handler =>
  (s) => {
    if (s.arity !== 2) s.fail(`expected 2 inputs, found ${s.arity}`)
    const [a, b] = [s.floats(0), s.floats(1)]
    checkBroadcast(s, a, b)
    return s.emit([a, b], ([x, y]) => f(x, y))
  }

/** An op of any number of operands, folded from the left. */
const variadic =
  (f: (a: Operand, b: Operand) => Operand): Handler =>
  (s) =>
    Array.from({ length: Math.max(s.arity - 1, 0) }, (_, i) => s.floats(i + 1)).reduce((a, b) => {
      checkBroadcast(s, a, b)
      return s.emit([a, b], ([x, y]) => f(x, y))
    }, s.floats(0))

const identity: Handler = (s) => s.value(0)

/** Inference: the identity. */
const dropout: Handler = (s) => {
  s.float('ratio', 0.5)
  s.int('seed', 0)
  if (s.has(2) && s.flag(2)) s.fail('training_mode is true')
  return s.value(0)
}

const leaky: Handler = (s) => {
  const alpha = s.float('alpha', Math.fround(0.01))
  if (!(alpha >= 0 && alpha < 1)) s.fail(`attribute alpha: ${alpha} is not in [0, 1)`)
  return s.emit([s.floats(0)], ([x]) => leakyRelu(alpha)(x))
}

// ---- affine --------------------------------------------------------------------------------------------------------

/** `x` as a matrix product wants it: the batch in rows. */
const matrix = (s: Site, i: number): Floats => {
  const v = s.floats(i)
  return v.probe.shape.length === 2 ? v : s.fail(`input ${i} must be a matrix, found ${showExtents(v)}`)
}

/** alpha A B + beta C with optional transpositions; `[N, k] [k, m] -> [N, m]`, C broadcast. */
const gemm: Handler = (s) => {
  const [a, b] = [matrix(s, 0), matrix(s, 1)]
  const [alpha, beta] = [s.float('alpha', 1), s.float('beta', 1)]
  const [transA, transB] = [s.int('transA', 0) !== 0, s.int('transB', 0) !== 0]
  if (b.batched) s.fail('input 1 depends on the network input; only a parameter is supported')
  if (a.batched && transA) s.fail('attribute transA: it moves the batch axis')
  const scaled = (x: Operand, factor: number): Operand => (factor === 1 ? x : (mul(x, factor) as Operand))
  const product = ([x, w]: readonly Operand[]): Operand => scaled(matmul(x, w, { transA, transB }), alpha)
  if (!s.has(2)) return s.emit([a, b], product)
  const c = s.floats(2)
  if (c.probe.shape.length > 2) s.fail(`input 2 must be at most a matrix, found ${showExtents(c)}`)
  if (a.batched) checkBroadcast(s, a, c)
  const rows = a.probe.shape[transA ? 1 : 0]
  const columns = b.probe.shape[transB ? 0 : 1]
  const fits = c.probe.shape.every((d, i) => d === 1 || d === [rows, columns][i + 2 - c.probe.shape.length])
  if (!fits) s.fail(`input 2 ${showExtents(c)} does not broadcast to [${a.batched ? 'N' : rows},${columns}]`)
  return s.emit([a, b, c], ([x, w, y]) => add(product([x, w]), scaled(y, beta)) as Operand)
}

/** Product over the last axis with a matrix: `[N, ..., k] [k, m] -> [N, ..., m]`. */
const matMul: Handler = (s) => {
  const [a, b] = [s.floats(0), s.floats(1)]
  if (b.batched) s.fail('input 1 depends on the network input; only a parameter is supported')
  if (b.probe.shape.length !== 2 || a.probe.shape.length < 2)
    s.fail(`expected a tensor of rank >= 2 and a matrix, found ${showExtents(a)} and ${showExtents(b)}`)
  return s.emit([a, b], ([x, w]) => matmul(x, w, {}))
}

/** A value `[N, c, h, w]`. */
const images = (s: Site): Floats => {
  const v = s.floats(0)
  return v.probe.shape.length === 4 && v.batched
    ? v
    : s.fail(`expected images [N,c,h,w], found ${showExtents(v)}: only 2-dimensional windows are supported`)
}

type Pair = readonly [number, number]
type Sides = readonly [number, number, number, number]

interface Geometry {
  readonly stride: Pair
  readonly dilation: Pair
  /** Top, left, bottom, right, as in ONNX. */
  readonly padding: Sides
}

/** The window of Conv and the pools: strides, dilations, and pads given or worked out by auto_pad. */
const geometry = (s: Site, x: Shape, kernel: Pair): Geometry => {
  const pair = (name: string): Pair => {
    const v = s.list(name) ?? [1, 1]
    return v.length === 2 && v.every((d) => d >= 1)
      ? (v as unknown as Pair)
      : s.fail(`attribute ${name}: expected 2 numbers >= 1, found [${v}]`)
  }
  const [stride, dilation] = [pair('strides'), pair('dilations')]
  const auto = s.string('auto_pad', 'NOTSET')
  const pads = s.list('pads') ?? [0, 0, 0, 0]
  if (pads.length !== 4 || !pads.every((p) => p >= 0))
    s.fail(`attribute pads: expected 4 numbers >= 0, found [${pads}]`)
  if (auto === 'NOTSET' || auto === '') return { stride, dilation, padding: pads as unknown as Sides }
  if (pads.some((p) => p !== 0)) s.fail(`attributes pads and auto_pad ${auto} exclude each other`)
  if (auto === 'VALID') return { stride, dilation, padding: [0, 0, 0, 0] }
  if (auto !== 'SAME_UPPER' && auto !== 'SAME_LOWER')
    return s.fail(`attribute auto_pad: ${JSON.stringify(auto.slice(0, 80))} is not supported`)
  // As many outputs as strides fit the input, rounded up; an odd zero goes behind (UPPER) or before (LOWER).
  const total = ([0, 1] as const).map((i) =>
    Math.max(0, (Math.ceil(x[i + 2] / stride[i]) - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - x[i + 2]),
  )
  const less = total.map((t) => Math.floor(t / 2))
  const more = total.map((t) => Math.ceil(t / 2))
  const [before, behind] = auto === 'SAME_UPPER' ? [less, more] : [more, less]
  return { stride, dilation, padding: [before[0], before[1], behind[0], behind[1]] }
}

/** Cross-correlation `[N, c, h, w] * [o, c, p, q] + [o]`. */
const conv: Handler = (s) => {
  const [x, w] = [images(s), s.floats(1)]
  if (w.batched || w.probe.shape.length !== 4) s.fail(`input 1 must be a parameter [o,c,p,q], found ${showExtents(w)}`)
  const group = s.int('group', 1)
  if (group !== 1) s.fail(`attribute group: expected 1, found ${group}`)
  const kernel = w.probe.shape.slice(2) as unknown as Pair
  const declared = s.list('kernel_shape')
  if (declared !== undefined && `${declared}` !== `${kernel}`)
    s.fail(`attribute kernel_shape: [${declared}], but the weights are ${show(w.probe.shape)}`)
  const options = geometry(s, x.probe.shape, kernel)
  if (!s.has(2)) return s.emit([x, w], ([a, b]) => conv2d(a, b, options))
  const bias = s.floats(2)
  const channels = w.probe.shape[0]
  if (bias.batched || bias.probe.shape.length !== 1 || bias.probe.shape[0] !== channels)
    s.fail(`input 2 must be a parameter [${channels}], found ${showExtents(bias)}`)
  return s.emit([x, w, bias], ([a, b, c]) => add(conv2d(a, b, options), reshape(c, [channels, 1, 1])) as Operand)
}

/**
 * Inference: y = x s + t with s = (1 / sqrt(var + epsilon)) scale and t = bias - mean s, rounded after each of these operations:
 * what onnxruntime's CPU kernel computes where it does not merge the op into a convolution before it (which is a different
 * float network). `[N, c, ...]` with parameters `[c]`.
 */
const batchNormalization: Handler = (s) => {
  const x = s.floats(0)
  const epsilon = s.float('epsilon', Math.fround(1e-5))
  s.float('momentum', 0.9)
  if (s.int('training_mode', 0) !== 0) s.fail('attribute training_mode: only inference is supported')
  if (s.int('spatial', 1) !== 1) s.fail('attribute spatial: only 1 is supported')
  if (!x.batched || x.probe.shape.length < 2) s.fail(`expected [N,c,...], found ${showExtents(x)}`)
  if (!(epsilon >= 0 && Number.isFinite(epsilon))) s.fail(`attribute epsilon: ${epsilon} is not a number >= 0`)
  const channels = x.probe.shape[1]
  const parameters = [1, 2, 3, 4].map((i) => {
    const p = s.floats(i)
    return !p.batched && p.probe.shape.length === 1 && p.probe.shape[0] === channels
      ? p
      : s.fail(`input ${i} must be a parameter [${channels}], found ${showExtents(p)}`)
  })
  const lifted = [channels, ...x.probe.shape.slice(2).map(() => 1)]
  return s.emit([x, ...parameters], ([v, scale, bias, average, variance]) => {
    const factor = mul(div(1, sqrt(add(variance, epsilon)) as Operand), scale) as Operand
    const shift = sub(bias, mul(average, factor) as Operand) as Operand
    return add(mul(v, reshape(factor, lifted)) as Operand, reshape(shift, lifted)) as Operand
  })
}

// ---- pools ---------------------------------------------------------------------------------------------------------

const pool =
  (step: (s: Site, kernel: Pair, options: Geometry) => (x: Operand) => Operand): Handler =>
  (s) => {
    const x = images(s)
    const kernel = s.list('kernel_shape') ?? s.fail('attribute kernel_shape is missing')
    if (kernel.length !== 2 || !kernel.every((k) => k >= 1))
      s.fail(`attribute kernel_shape: expected 2 numbers >= 1, found [${kernel}]`)
    if (s.int('ceil_mode', 0) !== 0) s.fail('attribute ceil_mode: only 0 is supported')
    const options = geometry(s, x.probe.shape, kernel as unknown as Pair)
    if (options.padding.some((p, i) => p >= kernel[i % 2]))
      s.fail(`attribute pads: [${options.padding}] must be less than the window [${kernel}]`)
    const run = step(s, kernel as unknown as Pair, options)
    return s.emit([x], ([v]) => run(v))
  }

const maxPool = pool((s, kernel, options) => {
  s.int('storage_order', 0)
  return (x) => maxPool2d(x, kernel, options)
})

/** By default padding does not count among the elements of a mean. */
const averagePool = pool((s, kernel, options) => {
  const countPadding = s.int('count_include_pad', 0) !== 0
  if (!countPadding && options.dilation.some((d) => d !== 1) && options.padding.some((p) => p !== 0))
    s.fail('attribute dilations: only 1 is supported with pads that do not count')
  const padded = options.padding.some((p) => p !== 0)
  return (x) => averagePool2d(x, kernel, { ...options, countPadding: countPadding || !padded })
})

const globalAveragePool: Handler = (s) => {
  const x = s.floats(0)
  if (!x.batched || x.probe.shape.length < 3) s.fail(`expected [N,c,...], found ${showExtents(x)}`)
  const over = [...x.probe.shape.keys()].slice(2)
  return s.emit([x], ([v]) => mean(v, over, true))
}

/** Sum, mean or maximum over axes, never over the batch. */
const reduce =
  (f: (x: Operand, axes: readonly number[], keep: boolean) => Operand): Handler =>
  (s) => {
    const x = s.floats(0)
    const rank = x.probe.shape.length
    const keep = s.int('keepdims', 1) !== 0
    const given = axesOf(s) ?? []
    const idle = s.int('noop_with_empty_axes', 0) !== 0
    const over = given.length === 0 && !idle ? [...x.probe.shape.keys()] : axes(s, given, rank)
    if (x.batched && over.includes(0)) s.fail('it reduces the batch axis')
    return over.length === 0 ? x : s.emit([x], ([v]) => f(v, over, keep))
  }

// ---- shape ---------------------------------------------------------------------------------------------------------

/** `x` under a new shape; a batched one keeps the batch in front of `target`. */
const reshaped = (s: Site, x: Floats, target: Shape): Floats =>
  s.emit([x], ([v]) => reshape(v, x.batched ? [v.shape[0], ...target] : target))

/** Fills in -1 so that the elements agree. */
const resolve = (s: Site, from: Shape, target: Shape, showTarget: string): Shape => {
  const open = target.indexOf(-1)
  if (target.some((d) => d < -1) || (target.indexOf(-1, open + 1) > 0 && open >= 0))
    return s.fail(`the shape ${showTarget} is not valid`)
  const known = size(target.filter((d) => d !== -1))
  const total = size(from)
  if (open >= 0 ? known === 0 || total % known !== 0 : known !== total)
    return s.fail(`${total} elements${from.length > 0 ? ` of ${show(from)}` : ''} do not fill the shape ${showTarget}`)
  return target.map((d) => (d === -1 ? total / known : d))
}

/**
 * Reshape. A batched value keeps its batch: the first extent of the target may be the batch itself (computed by Shape), 0, -1
 * where the others account for one whole image, or 1 where the file was made for one image.
 */
const reshapeTo: Handler = (s) => {
  const x = s.floats(0)
  const target = s.ints(1).data
  const allowZero = s.int('allowzero', 0) !== 0
  const shown = show(target as Shape)
  if (target.length > 8) s.fail(`a shape of ${target.length} axes; at most 8 are supported`)
  const shape = target.map((d, i) => {
    if (d !== 0) return d
    if (allowZero) return s.fail('attribute allowzero: an extent of 0 is not supported')
    return extents(x)[i] ?? s.fail(`the shape ${shown} copies axis ${i}, which ${showExtents(x)} has not`)
  })
  const rest = (shape.slice(x.batched ? 1 : 0) as readonly Extent[]).map((d) =>
    d === 'N' ? s.fail(`the shape ${shown} moves or merges the batch axis, which must stay the first`) : d,
  )
  if (!x.batched) return reshaped(s, x, resolve(s, x.probe.shape, rest, shown))
  const [batch] = shape
  const image = x.probe.shape.slice(1)
  if (shape.length < 2 || (batch !== 'N' && batch !== -1 && batch !== 1))
    s.fail(`the shape ${shown} moves or merges the batch axis, which must stay the first`)
  if (batch === -1 && (rest.includes(-1) || size(rest) !== size(image)))
    s.fail(`the shape ${shown} of a value ${showExtents(x)} mixes the images of a batch`)
  return reshaped(s, x, resolve(s, image, rest, shown))
}

const flatten: Handler = (s) => {
  const x = s.floats(0)
  const rank = x.probe.shape.length
  const given = s.int('axis', 1)
  const at = given === rank ? rank : axis(s, given, rank)
  const [before, behind] = [x.probe.shape.slice(0, at), x.probe.shape.slice(at)]
  if (!x.batched) return reshaped(s, x, [size(before), size(behind)])
  if (at === 0 || size(before.slice(1)) !== 1)
    s.fail(`attribute axis: ${given} merges the batch axis of ${showExtents(x)} with others`)
  return reshaped(s, x, [size(behind)])
}

const transposeTo: Handler = (s) => {
  const x = s.floats(0)
  const rank = x.probe.shape.length
  const permutation = s.list('perm') ?? [...x.probe.shape.keys()].reverse()
  if (x.batched && permutation[0] !== 0) s.fail(`attribute perm: [${permutation}] moves the batch axis`)
  if (permutation.length !== rank) s.fail(`attribute perm: [${permutation}] is not a permutation of ${rank} axes`)
  return s.emit([x], ([v]) => transpose(v, permutation))
}

const asList = (s: Site, v: Ints, rank: 0 | 1): Ints =>
  rank === 1 || v.data.length === 1 ? { ...v, rank } : s.fail('only one integer can lose its axis')

const squeeze: Handler = (s) => {
  const v = s.either(0)
  const list = axesOf(s)
  if (v.kind === 'ints') {
    if (v.rank !== 1 || (list ?? [0]).length !== 1) return s.fail('integers have one axis at most')
    axes(s, list ?? [0], 1)
    return asList(s, v, 0)
  }
  const shape = v.probe.shape
  const out = list === undefined ? [...shape.keys()].filter((i) => shape[i] === 1) : axes(s, list, shape.length)
  if (v.batched && out.includes(0)) s.fail('it removes the batch axis')
  if (out.some((i) => shape[i] !== 1)) s.fail(`axes [${out}] of ${showExtents(v)} are not all 1`)
  const kept = shape.filter((_, i) => !out.includes(i))
  return reshaped(s, v, v.batched ? kept.slice(1) : kept)
}

const unsqueeze: Handler = (s) => {
  const v = s.either(0)
  const list = axesOf(s) ?? s.fail('axes are missing')
  if (v.kind === 'ints') {
    if (v.rank !== 0 || list.length !== 1) return s.fail('integers have one axis at most')
    axes(s, list, 1)
    return asList(s, v, 1)
  }
  const rank = v.probe.shape.length + list.length
  if (rank > 8) s.fail(`a value of ${rank} axes; at most 8 are supported`)
  const at = axes(s, list, rank)
  if (v.batched && at.includes(0)) s.fail('it puts an axis before the batch')
  const old = [...v.probe.shape]
  const shape = Array.from({ length: rank }, (_, i) => (at.includes(i) ? 1 : (old.shift() as number)))
  return reshaped(s, v, v.batched ? shape.slice(1) : shape)
}

const expand: Handler = (s) => {
  const x = s.floats(0)
  const target = s.ints(1).data
  if (x.batched && target.length > x.probe.shape.length) s.fail('it puts an axis before the batch')
  const missing = Math.max(0, x.probe.shape.length - target.length)
  const wanted = [...x.probe.shape.slice(0, missing), ...target]
  const shape = wanted.map((d, i) => {
    const own = x.probe.shape[i - (wanted.length - x.probe.shape.length)] ?? 1
    if (x.batched && i === 0) return d === 'N' || d === 1 || i < missing ? 1 : s.fail(`it repeats the batch ${d} times`)
    if (d === 'N' || d < 1 || (d !== 1 && own !== 1 && d !== own))
      return s.fail(`${showExtents(x)} does not broadcast to ${show(target as Shape)}`)
    return d === 1 ? own : d
  })
  return s.emit([x], ([v]) => broadcastTo(v, x.batched ? [v.shape[0], ...shape.slice(1)] : shape))
}

/** Constant padding; pads, value and axes are attributes before opset 11, inputs since. */
const padding: Handler = (s) => {
  const x = s.floats(0)
  const rank = x.probe.shape.length
  const mode = s.string('mode', 'constant')
  if (mode !== 'constant') s.fail(`attribute mode: ${JSON.stringify(mode.slice(0, 80))} is not supported`)
  const pads = s.list('pads') ?? s.numbers(1)
  const value = s.has(2) ? s.number(2) : s.float('value', 0)
  const over = s.has(3) ? s.numbers(3).map((a) => axis(s, a, rank, 'axes:')) : [...x.probe.shape.keys()]
  if (pads.length !== 2 * over.length || new Set(over).size !== over.length)
    s.fail(`pads: expected ${2 * over.length} numbers, one axis each, found [${pads}]`)
  if (!pads.every((p) => Number.isSafeInteger(p) && p >= 0)) s.fail(`pads: [${pads}] must be >= 0`)
  if (!Number.isFinite(value)) s.fail(`the value ${value} is not finite`)
  const side = (from: number) => x.probe.shape.map((_, i) => (over.includes(i) ? pads[from + over.indexOf(i)] : 0))
  const [before, after] = [side(0), side(over.length)]
  if (x.batched && (before[0] !== 0 || after[0] !== 0)) s.fail('it pads the batch axis')
  if (value === 0 || [...before, ...after].every((p) => p === 0)) return s.emit([x], ([v]) => pad(v, before, after))
  const skip = x.batched ? 1 : 0
  const inside = (shape: Shape) => pad(full(shape.slice(skip), 1), before.slice(skip), after.slice(skip))
  return s.emit([x], ([v]) => add(pad(v, before, after), select(inside(v.shape), 0, value)) as Operand)
}

// ---- shapes in the making ------------------------------------------------------------------------------------------

const ints = (data: readonly Extent[], rank: 0 | 1 = 1): Ints => ({ kind: 'ints', rank, data })

const constant: Handler = (s) => {
  if (s.given('value_int')) return ints([s.int('value_int', 0)], 0)
  if (s.given('value_ints')) return ints(s.list('value_ints') ?? [])
  for (const name of ['value_float', 'value_floats', 'value_string', 'value_strings', 'sparse_value'])
    if (s.given(name)) s.fail(`attribute ${name} is not supported`)
  return s.tensor('value')
}

/** The shape of a value, its batch as the symbol 'N'. */
const shapeOf: Handler = (s) => {
  const all = extents(s.floats(0))
  const bound = (name: string, otherwise: number): number => {
    const v = s.int(name, otherwise)
    return Math.min(Math.max(v < 0 ? v + all.length : v, 0), all.length)
  }
  return ints(all.slice(bound('start', 0), bound('end', all.length)))
}

const gather: Handler = (s) => {
  const data = s.either(0)
  if (data.kind !== 'ints' || data.rank !== 1) return s.fail('only elements of a shape are gathered')
  axis(s, s.int('axis', 0), 1)
  const at = s.ints(1)
  return ints(
    s.numbers(1).map((i) => data.data[axis(s, i, data.data.length, 'index')]),
    at.rank,
  )
}

const concat: Handler = (s) => {
  axis(s, s.int('axis', 0), 1)
  const parts = Array.from({ length: s.arity }, (_, i) => {
    const v = s.either(i)
    return v.kind === 'ints' && v.rank === 1 ? v.data : s.fail('only shapes are concatenated')
  })
  if (parts.reduce((n, p) => n + p.length, 0) > 64) s.fail('a shape of more than 64 extents')
  return ints(parts.flat())
}

const slice: Handler = (s) => {
  const data = s.either(0)
  if (data.kind !== 'ints' || data.rank !== 1) return s.fail('only shapes are sliced')
  const one = (name: string, i: number, otherwise: number): number => {
    const v = s.list(name) ?? (s.has(i) ? s.numbers(i) : [otherwise])
    return v.length === 1 ? v[0] : s.fail(`${name}: expected one number, found [${v}]`)
  }
  const n = data.data.length
  const bound = (v: number) => Math.min(Math.max(v < 0 ? v + n : v, 0), n)
  axis(s, one('axes', 3, 0), 1)
  if (one('steps', 4, 1) !== 1) s.fail('steps: only 1 is supported')
  return ints(data.data.slice(bound(one('starts', 1, 0)), bound(one('ends', 2, n))))
}

/** Integers to integers, float32 to float32: the identity. */
const cast: Handler = (s) => {
  const to = s.int('to', 0)
  const v = s.either(0)
  return to === (v.kind === 'ints' ? 7 : 1) || (v.kind === 'ints' && to === 6)
    ? v
    : s.fail(`attribute to: type ${to} is not supported`)
}

export const HANDLERS: Readonly<Record<string, Handler>> = {
  Abs: unary(abs),
  Add: binary((a, b) => add(a, b) as Operand),
  AveragePool: averagePool,
  BatchNormalization: batchNormalization,
  Cast: cast,
  Concat: concat,
  Constant: constant,
  Conv: conv,
  Div: binary((a, b) => div(a, b) as Operand),
  Dropout: dropout,
  Exp: unary(exp),
  Expand: expand,
  Flatten: flatten,
  Gather: gather,
  Gemm: gemm,
  GlobalAveragePool: globalAveragePool,
  Identity: identity,
  LeakyRelu: leaky,
  Log: unary(log),
  MatMul: matMul,
  Max: variadic((a, b) => maximum(a, b) as Operand),
  MaxPool: maxPool,
  Min: variadic((a, b) => minimum(a, b) as Operand),
  Mul: binary((a, b) => mul(a, b) as Operand),
  Neg: unary(neg),
  Pad: padding,
  ReduceMax: reduce(max),
  ReduceMean: reduce(mean),
  ReduceSum: reduce(sum),
  Relu: unary(relu),
  Reshape: reshapeTo,
  Shape: shapeOf,
  Sigmoid: unary(sigmoid),
  Slice: slice,
  Sqrt: unary(sqrt),
  Squeeze: squeeze,
  Sub: binary((a, b) => sub(a, b) as Operand),
  Tanh: unary(tanh),
  Transpose: transposeTo,
  Unsqueeze: unsqueeze,
}
