import { at, plus, type Rational, rational, refuse, root, type Vector, vector } from './exact.ts'
import { bits, nearest } from './fixed.ts'
import { type Attribute, type OnnxNode, readOnnx, type TensorData } from './onnx.ts'

/** The linear map of row i: sum over k from start[i] to start[i + 1] of constants[which[k]] x[index[k]]. */
export interface Matrix {
  readonly start: Int32Array
  readonly index: Int32Array
  readonly which: Int32Array
  readonly constants: Vector
  /** The same weights as integers in units of 2^-e: products with integers of at most 2^half add up to at most 2^53 along rows and columns. */
  readonly weight: Float64Array
  /** 4 index[k], and 2 more where the weight is negative: where the end of a box of four numbers an operand lies that the least sum takes. */
  readonly least: Int32Array
  readonly e: number
  readonly half: number
  /** By row, weights that are known to within a unit only. */
  readonly inexact: Float64Array
  /** Whether constants are themselves known to within 2^-128 only. */
  readonly isRoot: boolean
}

/** A value of the network, of `size` elements, as an exact function of values before it. */
export type Node = { readonly size: number } & (
  | { readonly kind: 'input' }
  /**
   * The matrix times the operands one after the other, and a bias. `terms`: those of the longest sum that float32 executions round; 0 where elements are only
   * rearranged.
   */
  | {
      readonly kind: 'affine'
      readonly from: readonly number[]
      readonly matrix: Matrix
      readonly bias?: Vector
      readonly terms: number
    }
  /** max(slope x, x), 0 <= slope < 1. */
  | { readonly kind: 'relu'; readonly from: readonly [number]; readonly slope: Rational }
  /** Element i is the largest of those from start[i] to start[i + 1] in index. */
  | { readonly kind: 'max'; readonly from: readonly [number]; readonly start: Int32Array; readonly index: Int32Array }
)

export interface Network {
  /** The input is node 0; operands come before what is made of them. */
  readonly nodes: readonly Node[]
  readonly output: number
  /** The node that an ONNX node's first output became, by its place in the file, where there is one. */
  readonly places: ReadonlyMap<number, number>
  /**
   * Why float32 executions of this network are not covered; absent where they are: in layers of a product and its bias, with what is exact or a maximum in between.
   * Other constants an implementation may fold into a product, and sums of products it may merge, so that more terms are rounded together.
   */
  readonly realOnly?: string
}

type Value = { readonly shape: readonly number[] } & ({ readonly constant: Vector } | { readonly node: number })

const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)
const stridesOf = (shape: readonly number[]): readonly number[] => shape.map((_, k) => sizeOf(shape.slice(k + 1)))
/** Elements of the largest value, and products of the largest layer: a few bytes of a file may ask for any number. */
const [LARGEST, MOST] = [2 ** 22, 2 ** 25]

const isExtent = (shape: readonly number[]): boolean =>
  shape.every((d) => Number.isSafeInteger(d) && d >= 0) && sizeOf(shape) <= LARGEST
/** Every index of a shape, in order: the same array each time, to be read at once. */
function* places(shape: readonly number[]): Generator<readonly number[]> {
  const at = shape.map(() => 0)
  for (let k = sizeOf(shape); k > 0; k--) {
    yield at
    for (let axis = shape.length - 1; axis >= 0 && ++at[axis] === shape[axis]; axis--) at[axis] = 0
  }
}
/** Where each element of a shape lies, given the offset of an index. */
const indexed = (shape: readonly number[], of: (place: readonly number[]) => number): Int32Array => {
  if (!isExtent(shape)) refuse(`a value of shape [${shape}]`)
  const found = new Int32Array(sizeOf(shape))
  let k = 0
  for (const place of places(shape)) found[k++] = of(place)
  return found
}
/** Elements of `from` repeated to `to`. */
const broadcast = (from: readonly number[], to: readonly number[]): Int32Array => {
  const strides = stridesOf(from)
  const skip = to.length - from.length
  if (skip < 0 || from.some((d, k) => d !== 1 && d !== to[k + skip])) refuse(`[${from}] does not broadcast to [${to}]`)
  return indexed(to, (p) => strides.reduce((o, s, k) => o + (from[k] === 1 ? 0 : s * p[k + skip]), 0))
}
const common = (a: readonly number[], b: readonly number[]): readonly number[] => {
  const rank = Math.max(a.length, b.length)
  const [p, q] = [a, b].map((s) => [...new Array<number>(rank - s.length).fill(1), ...s])
  return p.map((d, k) => (d === 1 ? q[k] : d))
}
const pickVector = (v: Vector, index: Int32Array): Vector => ({
  n: Array.from(index, (i) => (i < 0 ? 0n : v.n[i])),
  d: v.d,
})

/** A matrix from its rows, each an index of the operands and one of the constants after the other, and the length of the longest. */
const matrixOf = (
  rows: Iterable<readonly number[]>,
  constants: Vector,
  isRoot = false,
): { readonly matrix: Matrix; readonly longest: number } => {
  const [start, index, which] = [[0], [] as number[], [] as number[]]
  let longest = 0
  for (const row of rows) {
    for (let k = 0; k < row.length; k += 2) {
      index.push(row[k])
      which.push(row[k + 1])
    }
    longest = Math.max(longest, row.length / 2)
    start.push(index.length)
    if (index.length > MOST) refuse('a layer of the network is too large')
  }
  const columns = new Int32Array(index.reduce((m, i) => Math.max(m, i + 1), 0))
  for (const i of index) columns[i]++
  const most = columns.reduce((m, c) => Math.max(m, c), longest)
  if (most >= 2 ** 20) refuse(`a sum of ${most} terms`)
  const half = Math.floor((53 - bits(most)) / 3)
  const { n, e, exact } = nearest(constants, 53 - bits(most) - half)
  return {
    matrix: {
      start: Int32Array.from(start),
      index: Int32Array.from(index),
      which: Int32Array.from(which),
      constants,
      weight: Float64Array.from(which, (w) => n[w]),
      least: Int32Array.from(index, (i, k) => 4 * i + (n[which[k]] < 0 ? 2 : 0)),
      e,
      half,
      inexact: countsOf(start, which, isRoot ? () => true : exact.includes(false) ? (w) => !exact[w] : undefined),
      isRoot,
    },
    longest,
  }
}
/** By row, how many constants are of some kind. */
const countsOf = (
  start: readonly number[],
  which: readonly number[],
  isCounted: ((which: number) => boolean) | undefined,
): Float64Array => {
  const counts = new Float64Array(start.length - 1)
  if (isCounted === undefined) return counts
  for (let i = 0; i < counts.length; i++)
    for (let k = start[i]; k < start[i + 1]; k++) counts[i] += Number(isCounted(which[k]))
  return counts
}
const UNITS: Vector = { n: [1n, -1n], d: 1n }

class Builder {
  readonly nodes: Node[] = []
  readonly values = new Map<string, Value>()
  realOnly: string | undefined

  push(shape: readonly number[], node: Node): Value & { readonly node: number } {
    if (!isExtent(shape)) refuse(`a value of shape [${shape}]`)
    return { shape, node: this.nodes.push(node) - 1 }
  }
  value(name: string | undefined): Value {
    if (name === undefined) return refuse('a node lacks an operand')
    return this.values.get(name) ?? refuse(`the value "${name.slice(0, 60)}" is not defined before it is used`)
  }
  /** Integers known from the file. */
  integers(name: string): readonly number[] {
    const v = this.value(name)
    if (!('constant' in v) || v.constant.d !== 1n)
      return refuse(`"${name.slice(0, 60)}" must be integers known from the file`)
    return v.constant.n.map(Number)
  }
  constant(name: string): Vector & { readonly shape: readonly number[] } {
    const v = this.value(name)
    return 'constant' in v ? { ...v.constant, shape: v.shape } : refuse(`"${name.slice(0, 60)}" must be a constant`)
  }
  /** Elements of values, rearranged. */
  picked(shape: readonly number[], from: readonly Value[], index: Int32Array): Value {
    if (from.every((v) => 'constant' in v)) {
      const all = vector(from.flatMap((v) => ('constant' in v ? v.constant.n.map((_, i) => at(v.constant, i)) : [])))
      return { shape, constant: pickVector(all, index) }
    }
    const ids = from.map((v) => ('node' in v ? v.node : refuse('constants and computed values are not concatenated')))
    const rows = Array.from(index, (i) => (i < 0 ? [] : [i, 0]))
    return this.push(shape, {
      kind: 'affine',
      size: index.length,
      from: ids,
      matrix: matrixOf(rows, UNITS).matrix,
      terms: 0,
    })
  }
  spread(v: Value, shape: readonly number[]): Value {
    return `${v.shape}` === `${shape}` ? v : this.picked(shape, [v], broadcast(v.shape, shape))
  }
  /** Each element times a constant, and a bias. */
  diagonal(v: Value & { node: number }, factor: Vector, bias?: Vector, isRoot = false): Value & { node: number } {
    const size = sizeOf(v.shape)
    const rows = Array.from({ length: size }, (_, i) => [i, factor.n.length === 1 ? 0 : i])
    const { matrix } = matrixOf(rows, factor, isRoot)
    return this.push(v.shape, {
      kind: 'affine',
      size,
      from: [v.node],
      matrix,
      terms: bias === undefined ? 1 : 2,
      ...(bias === undefined ? {} : { bias }),
    })
  }
  shifted(v: Value & { node: number }, by: Vector): Value {
    // x + 0 is exact.
    if (by.n.every((n) => n === 0n)) return v
    const product = this.nodes[v.node]
    if (product.kind === 'affine' && product.terms > 0 && product.bias === undefined)
      return this.push(v.shape, { ...product, bias: by, terms: product.terms + 1 })
    this.only('it adds a constant that is no bias of a product')
    return this.diagonal(v, { n: [1n], d: 1n }, by)
  }
  scaled(v: Value & { node: number }, factor: Vector, isRoot = false): Value & { node: number } {
    this.only('it multiplies by constants')
    return this.diagonal(v, factor, undefined, isRoot)
  }
  only(reason: string): void {
    this.realOnly ??= reason
  }
}

type Rule = (b: Builder, node: OnnxNode, attribute: (name: string) => Attribute) => Value

/** What an attribute holds of the type that is expected of it, or nothing where it is not given. */
const held = <K extends keyof Attribute>(a: Attribute, kind: K): Attribute[K] | undefined =>
  Object.keys(a).length > 0 && a[kind] === undefined
    ? refuse('an attribute has another type than the op gives it')
    : a[kind]
const ints = (a: Attribute, otherwise: readonly number[]): readonly number[] =>
  held(a, 'ints')?.map(Number) ?? otherwise
const int = (a: Attribute, otherwise: number): number => Number(held(a, 'i') ?? otherwise)
const word = (a: Attribute): string => held(a, 's') ?? ''
const single = (a: Attribute, otherwise: Rational): Rational => {
  const f = held(a, 'f')
  return f === undefined ? otherwise : at(f, 0)
}
/** Whether an attribute that is 0 or 1 is 1: a runtime may take another number for either. */
const flag = (a: Attribute): boolean => {
  const i = int(a, 0)
  return i === 0 || i === 1 ? i === 1 : refuse(`an attribute that is 0 or 1 is ${i}`)
}
const axisOf = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis)
const isNode = (v: Value): v is Value & { node: number } => 'node' in v
const needsNode = (v: Value): Value & { node: number } => (isNode(v) ? v : refuse('a layer of constants alone'))

/** x + sign y, elementwise. */
const added =
  (sign: 1n | -1n): Rule =>
  (b, { inputs }) => {
    const [x, y] = [0, 1].map((k) => b.value(inputs[k]))
    const shape = common(x.shape, y.shape)
    const [p, q] = [b.spread(x, shape), b.spread(y, shape)]
    const signed = (v: Vector): Vector => ({ n: v.n.map((c) => sign * c), d: v.d })
    if (isNode(p) && isNode(q)) {
      b.only('it adds computed values')
      const size = sizeOf(shape)
      const rows = Array.from({ length: size }, (_, i) => [i, 0, size + i, sign === 1n ? 0 : 1])
      const { matrix, longest } = matrixOf(rows, UNITS)
      return b.push(shape, { kind: 'affine', size, from: [p.node, q.node], matrix, terms: longest })
    }
    if (isNode(p)) return b.shifted(p, signed((q as { constant: Vector }).constant))
    if (isNode(q))
      return b.shifted(sign === 1n ? q : b.scaled(q, { n: [-1n], d: 1n }), (p as { constant: Vector }).constant)
    b.only('it adds constants')
    const [c, e] = [(p as { constant: Vector }).constant, (q as { constant: Vector }).constant]
    return { shape, constant: vector(c.n.map((_, i) => rational(c.n[i] * e.d + sign * e.n[i] * c.d, c.d * e.d))) }
  }
/** x y or x / y with a constant y. */
const multiplied =
  (inverse: boolean): Rule =>
  (b, { inputs }) => {
    const [x, y] = [0, 1].map((k) => b.value(inputs[k]))
    const shape = common(x.shape, y.shape)
    const [p, q] = [b.spread(x, shape), b.spread(y, shape)]
    if (isNode(p) && isNode(q)) return refuse('a product of two computed values')
    if (inverse && isNode(q)) return refuse('a division by a computed value')
    const of = (v: Value): Vector => (v as { constant: Vector }).constant
    const turned = (v: Vector): Vector =>
      inverse
        ? vector(
            v.n.map((n) => (n === 0n ? refuse('a division by 0') : n < 0n ? rational(-v.d, -n) : rational(v.d, n))),
          )
        : v
    if (isNode(p)) return b.scaled(p, turned(of(q)))
    if (isNode(q)) return b.scaled(q, of(p))
    b.only('it multiplies constants')
    const [c, e] = [of(p), turned(of(q))]
    return { shape, constant: { n: c.n.map((n, i) => n * e.n[i]), d: c.d * e.d } }
  }

/** Products of x `[..., m, k]` and a constant `[k, n]`, or of a constant `[m, k]` and x `[..., k, n]`. */
const product = (b: Builder, x: Value & { node: number }, w: TensorData, right: boolean): Value & { node: number } => {
  if (w.shape.length !== 2) refuse('a product with a constant that is no matrix')
  const vectorial = x.shape.length === 1
  const shape = vectorial ? (right ? [1, ...x.shape] : [...x.shape, 1]) : x.shape
  const [m, k] = shape.slice(-2)
  const lead = sizeOf(shape.slice(0, -2))
  const [p, q] = w.shape
  if ((right ? k : m) !== (right ? p : q)) refuse(`a product of [${shape}] and [${w.shape}]`)
  const [rows, columns] = right ? [m, q] : [p, k]
  function* each() {
    for (let l = 0; l < lead; l++)
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < columns; j++) {
          const row: number[] = []
          if (right) for (let t = 0; t < k; t++) row.push(l * m * k + i * k + t, t * q + j)
          else for (let t = 0; t < m; t++) row.push(l * m * k + t * k + j, i * q + t)
          yield row
        }
  }
  const out = [...shape.slice(0, -2), ...(vectorial ? [rows * columns] : [rows, columns])]
  const { matrix, longest } = matrixOf(each(), w)
  return b.push(out, { kind: 'affine', size: sizeOf(out), from: [x.node], matrix, terms: longest })
}

interface Windows {
  readonly shape: readonly number[]
  /** For each place of the output map the taps that lie inside: where in the input map, and which tap. */
  readonly taps: readonly (readonly (readonly [at: number, tap: number])[])[]
  readonly padded: readonly number[]
}
/** The windows of a pool or convolution on maps of any number of axes. */
const windowsOf = (
  map: readonly number[],
  kernel: readonly number[],
  attribute: (name: string) => Attribute,
): Windows => {
  const rank = map.length
  if (!['NOTSET', ''].includes(word(attribute('auto_pad')))) refuse('auto_pad')
  if (flag(attribute('ceil_mode'))) refuse('ceil_mode')
  const [strides, dilations] = ['strides', 'dilations'].map((name) => ints(attribute(name), new Array(rank).fill(1)))
  const pads = ints(attribute('pads'), new Array(2 * rank).fill(0))
  if ([...strides, ...dilations].some((d) => d < 1) || pads.some((d) => d < 0))
    refuse('strides or dilations below 1, or pads below 0')
  if (kernel.length !== rank || strides.length !== rank || dilations.length !== rank || pads.length !== 2 * rank)
    refuse('a window of another rank')
  const shape = map.map(
    (d, k) => Math.floor((d + pads[k] + pads[rank + k] - dilations[k] * (kernel[k] - 1) - 1) / strides[k]) + 1,
  )
  if (!isExtent(shape) || !isExtent(kernel) || sizeOf(shape) * sizeOf(kernel) > MOST)
    refuse('windows that are too many')
  const within = stridesOf(map)
  const taps = Array.from(places(shape), (p) => {
    const found: (readonly [number, number])[] = []
    let tap = 0
    for (const t of places(kernel)) {
      const q = p.map((o, k) => o * strides[k] - pads[k] + t[k] * dilations[k])
      if (q.every((x, k) => x >= 0 && x < map[k])) found.push([q.reduce((o, x, k) => o + x * within[k], 0), tap])
      tap++
    }
    return found
  })
  return { shape, taps, padded: pads }
}

const conv: Rule = (b, { inputs }, attribute) => {
  const x = needsNode(b.value(inputs[0]))
  const w = b.constant(inputs[1])
  const [n, channels, ...map] = x.shape
  const [outs, ins, ...kernel] = w.shape
  const group = int(attribute('group'), 1)
  if (`${ints(attribute('kernel_shape'), kernel)}` !== `${kernel}`)
    refuse('a convolution whose kernel has another shape')
  if (n !== 1 || ins * group !== channels || outs % group !== 0)
    refuse('a convolution of a batch, or of other channels')
  const { shape, taps } = windowsOf(map, kernel, attribute)
  const [area, window] = [sizeOf(map), sizeOf(kernel)]
  function* rows() {
    for (let o = 0; o < outs; o++)
      for (const place of taps) {
        const first = Math.floor(o / (outs / group)) * ins
        const row: number[] = []
        for (let c = 0; c < ins; c++)
          for (const [p, t] of place) row.push((first + c) * area + p, (o * ins + c) * window + t)
        yield row
      }
  }
  const out = [1, outs, ...shape]
  const { matrix, longest } = matrixOf(rows(), w)
  const y = b.push(out, { kind: 'affine', size: sizeOf(out), from: [x.node], matrix, terms: longest })
  if (!inputs[2]) return y
  const channel = indexed(out, (p) => p[1])
  return b.shifted(y, pickVector(b.constant(inputs[2]), channel))
}

const gemm: Rule = (b, { inputs }, attribute) => {
  const [alpha, beta] = ['alpha', 'beta'].map((name) => single(attribute(name), rational(1n)))
  const flip = (v: Value): Value =>
    b.picked(
      [v.shape[1], v.shape[0]],
      [v],
      indexed([v.shape[1], v.shape[0]], ([i, j]) => j * v.shape[1] + i),
    )
  const [x, w] = [0, 1].map((k) => {
    const v = b.value(inputs[k])
    return flag(attribute(k === 0 ? 'transA' : 'transB')) ? flip(v) : v
  })
  if (alpha.n !== alpha.d || beta.n !== beta.d) b.only('a Gemm has alpha or beta')
  const [point, node] = isNode(x) ? [w, x] : [x, needsNode(w)]
  const c = 'constant' in point ? point.constant : refuse('a product of two computed values')
  const scaled = { n: c.n.map((e) => e * alpha.n), d: c.d * alpha.d, shape: point.shape }
  const y = product(b, node as Value & { node: number }, scaled, isNode(x))
  if (!inputs[2]) return y
  const bias = b.constant(inputs[2])
  const spread = pickVector(bias, broadcast(bias.shape, y.shape))
  return b.shifted(y, { n: spread.n.map((e) => e * beta.n), d: spread.d * beta.d })
}

const matmul: Rule = (b, { inputs }) => {
  const [x, y] = [0, 1].map((k) => b.value(inputs[k]))
  if (isNode(x) && isNode(y)) return refuse('a product of two computed values')
  if (isNode(x)) return product(b, x, b.constant(inputs[1]), true)
  return product(b, needsNode(y), b.constant(inputs[0]), false)
}

const relu =
  (leaky: boolean): Rule =>
  (b, { inputs }, attribute) => {
    const x = needsNode(b.value(inputs[0]))
    const slope = leaky ? single(attribute('alpha'), rational(10737418n, 2n ** 30n)) : rational(0n)
    if (slope.n < 0n || slope.n >= slope.d) refuse('a LeakyRelu whose slope is not in [0, 1)')
    return b.push(x.shape, { kind: 'relu', size: sizeOf(x.shape), from: [x.node], slope })
  }

const maxPool: Rule = (b, { inputs, outputs }, attribute) => {
  if (outputs.length > 1) refuse('the indices of a MaxPool')
  const x = needsNode(b.value(inputs[0]))
  const [n, channels, ...map] = x.shape
  const { shape, taps } = windowsOf(map, ints(attribute('kernel_shape'), []), attribute)
  const [start, index] = [[0], [] as number[]]
  for (let c = 0; c < n * channels; c++)
    for (const place of taps) {
      if (place.length === 0) refuse('a MaxPool with a window outside of the map')
      for (const [p] of place) index.push(c * sizeOf(map) + p)
      start.push(index.length)
    }
  return b.push([n, channels, ...shape], {
    kind: 'max',
    size: start.length - 1,
    from: [x.node],
    start: Int32Array.from(start),
    index: Int32Array.from(index),
  })
}

const averagePool: Rule = (b, { inputs }, attribute) => {
  const x = needsNode(b.value(inputs[0]))
  const [n, channels, ...map] = x.shape
  const kernel = ints(attribute('kernel_shape'), [])
  const { shape, taps, padded } = windowsOf(map, kernel, attribute)
  const whole = flag(attribute('count_include_pad')) || padded.every((p) => p === 0)
  const counts = taps.map((place) => BigInt(whole ? sizeOf(kernel) : place.length))
  const shares = vector(counts.map((c) => (c === 0n ? refuse('an AveragePool with an empty window') : rational(1n, c))))
  function* rows() {
    for (let c = 0; c < n * channels; c++)
      for (const [k, place] of taps.entries()) yield place.flatMap(([p]) => [c * sizeOf(map) + p, k])
  }
  const { matrix, longest } = matrixOf(rows(), shares)
  // The sum is divided, or its terms are.
  return b.push([n, channels, ...shape], {
    kind: 'affine',
    size: matrix.start.length - 1,
    from: [x.node],
    matrix,
    terms: longest + 1,
  })
}

/** Binary places of the factor of a batch normalization, which is a root. */
const PLACES = 128n

const batchNorm: Rule = (b, { inputs, outputs }, attribute) => {
  if (outputs.length > 1 || flag(attribute('training_mode'))) refuse('a BatchNormalization in training mode')
  const x = needsNode(b.value(inputs[0]))
  const [scale, bias, mean, variance] = inputs.slice(1, 5).map((name) => b.constant(name))
  const epsilon = single(attribute('epsilon'), at(ieee32(1e-5), 0))
  if ([scale, bias, mean, variance].some(({ n }) => n.length !== x.shape[1]))
    refuse('a BatchNormalization with other than one number for each channel')
  const factors = scale.n.map((s, c) => {
    const v = rational(variance.n[c] * epsilon.d + epsilon.n * variance.d, variance.d * epsilon.d)
    if (v.n <= 0n) refuse('a BatchNormalization with a variance that is not positive')
    // |scale| / sqrt(v) = sqrt(scale^2 d / n), rounded down to 2^-PLACES.
    const r = root((s * s * v.d * (1n << (2n * PLACES))) / (scale.d * scale.d * v.n))
    return rational(s < 0n ? -r : r, 1n << PLACES)
  })
  const channel = indexed(x.shape, (p) => p[1])
  const spread = (rs: readonly Rational[]): Vector => pickVector(vector(rs), channel)
  const centered = needsNode(b.shifted(x, spread(factors.map((_, c) => rational(-mean.n[c], mean.d)))))
  return b.shifted(b.scaled(centered, spread(factors), true), spread(factors.map((_, c) => at(bias, c))))
}
/** The float32 nearest to a number that stands in a standard. */
const ieee32 = (x: number): Vector => {
  const f = Math.fround(x)
  const scale = 2 ** 60
  return { n: [BigInt(f * scale)], d: BigInt(scale) }
}

/** An op that only rearranges one value: its shape, and where each element comes from. */
const rearranged =
  (
    of: (
      b: Builder,
      x: Value,
      node: OnnxNode,
      attribute: (name: string) => Attribute,
    ) => readonly [shape: readonly number[], index?: Int32Array],
  ): Rule =>
  (b, node, attribute) => {
    const x = b.value(node.inputs[0])
    const [shape, index] = of(b, x, node, attribute)
    if (index === undefined && sizeOf(shape) !== sizeOf(x.shape)) refuse(`[${x.shape}] is no [${shape}]`)
    return index === undefined ? { ...x, shape } : b.picked(shape, [x], index)
  }

const reshape = rearranged((b, { shape }, { inputs }, attribute) => {
  if (flag(attribute('allowzero'))) refuse('allowzero')
  const wanted = b.integers(inputs[1])
  if (wanted.some((d) => d < -1)) refuse(`the shape [${wanted}]`)
  const filled = wanted.map((d, k) => (d === 0 ? shape[k] : d))
  const rest = sizeOf(shape) / sizeOf(filled.filter((d) => d >= 0))
  return [filled.map((d) => (d < 0 ? rest : d))]
})
const flatten = rearranged((_, { shape }, __, attribute) => {
  const axis = axisOf(int(attribute('axis'), 1), shape.length)
  if (axis < 0 || axis > shape.length) refuse(`axis ${axis} of a value of ${shape.length} axes`)
  return [[sizeOf(shape.slice(0, axis)), sizeOf(shape.slice(axis))]]
})
const transpose = rearranged((_, { shape }, __, attribute) => {
  const order = ints(
    attribute('perm'),
    shape.map((___, k) => shape.length - 1 - k),
  )
  if (`${[...order].sort((p, q) => p - q)}` !== `${shape.map((_, k) => k)}`) refuse(`the permutation [${order}]`)
  const strides = stridesOf(shape)
  const out = order.map((k) => shape[k])
  return [out, indexed(out, (p) => order.reduce((o, k, j) => o + strides[k] * p[j], 0))]
})
const axesGiven = (
  b: Builder,
  { inputs }: OnnxNode,
  attribute: (name: string) => Attribute,
): readonly number[] | undefined => (inputs[1] ? b.integers(inputs[1]) : held(attribute('axes'), 'ints')?.map(Number))
const squeeze = rearranged((b, { shape }, node, attribute) => {
  const axes = axesGiven(b, node, attribute)?.map((a) => axisOf(a, shape.length))
  return [shape.filter((d, k) => (axes === undefined ? d !== 1 : !axes.includes(k)))]
})
const unsqueeze = rearranged((b, { shape }, node, attribute) => {
  const given = axesGiven(b, node, attribute) ?? []
  const axes = given.map((a) => axisOf(a, shape.length + given.length))
  const rest = [...shape]
  return [
    Array.from({ length: shape.length + given.length }, (_, k) => (axes.includes(k) ? 1 : (rest.shift() as number))),
  ]
})
const slice = rearranged((b, { shape }, node, attribute) => {
  const given = (k: number, name: string) =>
    node.inputs[k] ? b.integers(node.inputs[k]) : held(attribute(name), 'ints')?.map(Number)
  const [starts, ends] = [given(1, 'starts') ?? [], given(2, 'ends') ?? []]
  const axes = (given(3, 'axes') ?? starts.map((_, k) => k)).map((a) => axisOf(a, shape.length))
  const steps = given(4, 'steps') ?? starts.map(() => 1)
  if (steps.some((s) => s < 1)) refuse('a Slice with a step that is not positive')
  const clamp = (x: number, d: number) => Math.min(d, Math.max(0, x < 0 ? x + d : x))
  const from = shape.map((d, k) => (axes.includes(k) ? clamp(starts[axes.indexOf(k)], d) : 0))
  const step = shape.map((_, k) => (axes.includes(k) ? steps[axes.indexOf(k)] : 1))
  const to = shape.map((d, k) => (axes.includes(k) ? clamp(ends[axes.indexOf(k)], d) : d))
  const out = shape.map((_, k) => Math.max(0, Math.ceil((to[k] - from[k]) / step[k])))
  const strides = stridesOf(shape)
  return [out, indexed(out, (p) => p.reduce((o, x, k) => o + strides[k] * (from[k] + x * step[k]), 0))]
})
const pad = rearranged((b, { shape }, node, attribute) => {
  if (!['constant', ''].includes(word(attribute('mode')))) refuse('a Pad that is not constant')
  if (node.inputs[3]) refuse('a Pad of some axes')
  const pads = node.inputs[1] ? b.integers(node.inputs[1]) : ints(attribute('pads'), [])
  const value = node.inputs[2] ? b.constant(node.inputs[2]).n[0] : single(attribute('value'), rational(0n)).n
  if (value !== 0n || pads.length !== 2 * shape.length) refuse('a Pad with a value that is not 0')
  const out = shape.map((d, k) => d + pads[k] + pads[shape.length + k])
  const strides = stridesOf(shape)
  return [
    out,
    indexed(out, (p) =>
      p.every((x, k) => x >= pads[k] && x < pads[k] + shape[k])
        ? p.reduce((o, x, k) => o + strides[k] * (x - pads[k]), 0)
        : -1,
    ),
  ]
})
const concat: Rule = (b, { inputs }, attribute) => {
  const parts = inputs.map((name) => b.value(name))
  if (parts.length === 0) return refuse('a Concat of nothing')
  const axis = axisOf(int(attribute('axis'), 0), parts[0].shape.length)
  const others = ({ shape }: Value) => `${shape.map((d, k) => (k === axis ? 0 : d))}`
  if (!(axis in parts[0].shape) || parts.some((p) => others(p) !== others(parts[0])))
    return refuse('a Concat of values that do not fit')
  const shape = parts[0].shape.map((d, k) => (k === axis ? parts.reduce((n, p) => n + p.shape[k], 0) : d))
  const offsets = parts.map((_, k) => parts.slice(0, k).reduce((n, p) => n + sizeOf(p.shape), 0))
  const index = indexed(shape, (place) => {
    let [k, along] = [0, place[axis]]
    while (along >= parts[k].shape[axis]) along -= parts[k++].shape[axis]
    const strides = stridesOf(parts[k].shape)
    return offsets[k] + place.reduce((o, x, j) => o + strides[j] * (j === axis ? along : x), 0)
  })
  return b.picked(shape, parts, index)
}
const constantNode: Rule = (_, __, attribute) => {
  const t = held(attribute('value'), 't') ?? refuse('a Constant without a tensor')
  return { shape: t.shape, constant: t }
}

const RULES: Readonly<Record<string, Rule>> = {
  Add: added(1n),
  Sub: added(-1n),
  Mul: multiplied(false),
  Div: multiplied(true), // biome-ignore format: a table
  Gemm: gemm,
  MatMul: matmul,
  Conv: conv,
  BatchNormalization: batchNorm, // biome-ignore format: a table
  Relu: relu(false),
  LeakyRelu: relu(true),
  MaxPool: maxPool,
  AveragePool: averagePool, // biome-ignore format: a table
  Reshape: reshape,
  Flatten: flatten,
  Transpose: transpose,
  Squeeze: squeeze,
  Unsqueeze: unsqueeze, // biome-ignore format: a table
  Slice: slice,
  Pad: pad,
  Concat: concat,
  Constant: constantNode, // biome-ignore format: a table
  Identity: rearranged((_, { shape }) => [shape]),
  Dropout: rearranged((_, { shape }, { inputs }) => (inputs[2] ? refuse('a Dropout that may train') : [shape])),
}

/** Attributes that change nothing of what is read: of training, of indices, which are refused. */
const IDLE = ['momentum', 'ratio', 'seed', 'storage_order']

/** The network of an ONNX file, exactly, for one input. A free or batch first axis of the input is 1. */
export const networkOf = (bytes: Uint8Array): Network => {
  const graph = readOnnx(bytes)
  // Before, sums broadcast otherwise, and a batch normalization trained unless it was told not to.
  if (graph.opset < 7) refuse(`version ${graph.opset} of the operators`)
  const b = new Builder()
  for (const [name, t] of graph.constants) b.values.set(name, { shape: t.shape, constant: t })
  if (graph.inputs.length !== 1 || graph.outputs.length !== 1) refuse('a network with several inputs or outputs')
  const [{ name, shape: declared }] = graph.inputs
  const shape = declared.map((d, k) =>
    d === 0 && k === 0 ? 1 : d === 0 ? refuse('an input with a free axis that is not the first') : d,
  )
  b.values.set(name, b.push(shape, { kind: 'input', size: sizeOf(shape) }))
  const placed = new Map<number, number>()
  for (const [k, node] of graph.nodes.entries()) {
    const rule = Object.hasOwn(RULES, node.type)
      ? RULES[node.type]
      : refuse(`the op ${node.type} is not among those that are checked`)
    const read = new Set(IDLE)
    const value = rule(b, node, (attribute) => {
      read.add(attribute)
      return node.attributes.get(attribute) ?? {}
    })
    const unread = [...node.attributes.keys()].find((attribute) => !read.has(attribute))
    if (unread !== undefined) refuse(`the attribute ${unread.slice(0, 40)} of ${node.type}`)
    if (node.outputs[0] === undefined || b.values.has(node.outputs[0]))
      refuse('a node whose output has no name of its own')
    b.values.set(node.outputs[0], value)
    if (isNode(value)) placed.set(k, value.node)
  }
  const output = needsNode(b.value(graph.outputs[0])).node
  return { ...needed(b.nodes, output, placed), ...(b.realOnly === undefined ? {} : { realOnly: b.realOnly }) }
}

/** The input and what the output is made of, numbered anew: a product whose bias was joined to it is not. */
const needed = (
  nodes: readonly Node[],
  output: number,
  places: ReadonlyMap<number, number>,
): Pick<Network, 'nodes' | 'output' | 'places'> => {
  const isNeeded = nodes.map((_, k) => k === 0 || k === output)
  for (let k = output; k >= 0; k--) {
    const node = nodes[k]
    if (isNeeded[k] && node.kind !== 'input') for (const i of node.from) isNeeded[i] = true
  }
  const kept = [...nodes.keys()].filter((k) => isNeeded[k])
  const now = new Map(kept.map((k, i) => [k, i]))
  const renamed = (k: number) => now.get(k) as number
  return {
    nodes: kept.map((k) => {
      const node = nodes[k]
      return node.kind === 'input' ? node : ({ ...node, from: node.from.map(renamed) } as Node)
    }),
    output: renamed(output),
    places: new Map([...places].filter(([, k]) => now.has(k)).map(([place, k]) => [place, renamed(k)])),
  }
}

/** The exact value of every node at a point. @throws where a factor is known only to within an error. */
export const evaluate = ({ nodes }: Network, point: Vector): readonly Vector[] => {
  const values: Vector[] = []
  for (const node of nodes) values.push(exactly(node, values, point))
  return values
}
const exactly = (node: Node, values: readonly Vector[], point: Vector): Vector => {
  if (node.kind === 'input')
    return point.n.length === node.size ? point : refuse(`a point of ${point.n.length} numbers for ${node.size} inputs`)
  const [x] = node.from.map((k) => values[k])
  switch (node.kind) {
    case 'affine': {
      const { matrix, bias } = node
      if (matrix.isRoot) return refuse('the point of a network with a BatchNormalization, whose factor is a root')
      const all = node.from.length === 1 ? x : vector(node.from.flatMap((k) => elements(values[k])))
      const y = { n: product1(matrix, all.n), d: all.d * matrix.constants.d }
      return bias === undefined ? y : plus(y, bias)
    }
    case 'relu':
      return { n: x.n.map((n) => (n >= 0n ? n * node.slope.d : n * node.slope.n)), d: x.d * node.slope.d }
    case 'max':
      return { n: Array.from({ length: node.size }, (_, i) => maximum(node, i, x.n)), d: x.d }
    default:
      return node satisfies never
  }
}
const elements = (v: Vector): readonly Rational[] => v.n.map((_, i) => at(v, i))
/** The rows of a matrix times numbers. */
const product1 = ({ start, index, which, constants }: Matrix, x: readonly bigint[]): readonly bigint[] =>
  Array.from({ length: start.length - 1 }, (_, i) => {
    let total = 0n
    for (let k = start[i]; k < start[i + 1]; k++) total += constants.n[which[k]] * x[index[k]]
    return total
  })
const maximum = (
  { start, index }: { readonly start: Int32Array; readonly index: Int32Array },
  i: number,
  x: readonly bigint[],
): bigint => {
  let most = x[index[start[i]]]
  for (let k = start[i] + 1; k < start[i + 1]; k++) if (x[index[k]] > most) most = x[index[k]]
  return most
}
