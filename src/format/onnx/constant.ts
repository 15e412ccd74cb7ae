import { type Shape, show, size } from '../../core/shape.ts'
import { constant as constantNode } from '../../ops/index.ts'
import { axes, axesOf, axis, spread } from './axes.ts'
import { castTo, known, settled, within } from './known.ts'
import { AttributeType, DataType, typeName } from './proto.ts'
import { isFloat } from './tensor.ts'
import type { Extent, Floats, Import, Known, NodeView } from './values.ts'

/** Constants, shapes, and what is computed from them when the file is read. */

const constant: Import = (s) => {
  const list = (data: readonly number[], type: DataType, scalar: boolean): Known => {
    s.spend(data.length)
    return known(data, scalar ? [] : [data.length], type)
  }
  if (s.given('value_int')) return list([s.int('value_int', 0)], DataType.int64, true)
  if (s.given('value_ints')) return list(s.list('value_ints') ?? [], DataType.int64, false)
  if (s.given('value_float')) return list([s.float('value_float', 0)], DataType.float, true)
  if (s.given('value_floats')) {
    const a = s.attribute('value_floats')
    return a?.type === AttributeType.floats || a?.type === 0
      ? list(a.floats, DataType.float, false)
      : s.fail('attribute value_floats: expected floats')
  }
  for (const name of ['value_string', 'value_strings', 'sparse_value'])
    if (s.given(name)) s.fail(`attribute ${name} is not supported: a network of numbers has no use for it`)
  return s.tensor('value')
}

/** The extents that a shape input gives: numbers, and the batch. */
export const shapeFrom = (s: NodeView, i: number): readonly Extent[] => {
  const { data, shape, type } = s.known(i)
  if (isFloat(type)) s.fail(`input ${i}: expected int64 data, found ${typeName(type)}`)
  if (shape.length !== 1) s.fail(`input ${i}: a shape is a list, not ${show(shape)}`)
  return data.length > 8 ? s.fail(`a shape of ${data.length} axes; at most 8 are supported`) : data
}

/** One number everywhere; the shape may begin with the batch. */
const constantOfShape: Import = (s) => {
  const shape = shapeFrom(s, 0)
  const a = s.attribute('value')
  const one = (): Known => {
    if (a === undefined) return known([0], [1], DataType.float)
    if (a.t === undefined) return s.fail('attribute value: expected a tensor')
    return s.constant(a.t)
  }
  const { data, type } = one()
  if (data.length !== 1) s.fail(`attribute value: expected one number, found ${data.length}`)
  const scalar = known(data, [], type)
  if (!isFloat(type)) return spread(s, scalar, shape)
  if (shape.some((d) => d === 0))
    return known(
      [],
      shape.map((d) => (d === 'N' ? 1 : d)),
      type,
    )
  const value = data[0] as number
  return spread(
    s,
    s.emit([], () => constantNode([value], []), { known: () => scalar }),
    shape,
  )
}

/** The shape of a value, its batch as the symbol 'N' where it is open. */
const shapeOf: Import = (s) => {
  const all = s.either(0).shape
  const bound = (name: string, otherwise: number): number => {
    const v = s.int(name, otherwise)
    return Math.min(Math.max(v < 0 ? v + all.length : v, 0), all.length)
  }
  return known(all.slice(bound('start', 0), bound('end', all.length)))
}

const sizeOf: Import = (s) => {
  const shape: readonly Extent[] = s.either(0).shape
  const total = size(shape.flatMap((d) => (d === 'N' ? [] : [d])))
  const open = shape.includes('N')
  if (open && total !== 1) s.fail(`the size of ${show(shape as Shape)} depends on the size of the batch`)
  return known([open ? 'N' : total], [])
}

const range: Import = (s) => {
  const [a, b, d] = [0, 1, 2].map((i) => settled(s, s.known(i)))
  const [start, limit, delta] = [a, b, d].map(({ data: [v], shape }) =>
    size(shape) === 1 && typeof v === 'number' ? v : s.fail('its inputs must be single numbers without the batch'),
  )
  if (delta === 0) s.fail('input 2: a step of 0')
  const count = Math.max(0, Math.ceil((limit - start) / delta))
  s.spend(count)
  const exact = [start, limit, delta].every(Number.isSafeInteger)
  return known(
    Array.from({ length: count }, (_, i) => start + i * delta),
    [count],
    a.type,
    exact,
  )
}

/** What is cast to: not to the floats of 16 bits, whose rounding no bound here knows. */
const CASTS: readonly number[] = [
  ...[DataType.float, DataType.double, DataType.int64, DataType.int32, DataType.int16, DataType.int8],
  ...[DataType.uint64, DataType.uint32, DataType.uint16, DataType.uint8, DataType.bool],
]

/** What a Cast to float32 makes of float64 numbers that depend on no input. */
const roundedConstant = (s: NodeView, x: Floats): Known | Floats => {
  const numbers = x.known?.()
  return numbers === undefined || !numbers.exact
    ? s.fail(
        'it rounds float64 numbers to float32 that the graph computes, or that are too many to be read here: put it right behind the tensor',
      )
    : numbers.data.every((v) => v !== 'N' && Math.fround(v) === v)
      ? x
      : castTo(s, numbers, DataType.float)
}

/**
 * Cast. Its rounding is part of the network: a float64 or float16 tensor of the file, an integer, a number computed from shapes becomes
 * the float32 nearest to it, in every runtime the same, and that number is the parameter, in a graph of float64 numbers also where other ops moved it before. Of values that depend on the input, a Cast to
 * float32 or float64 is the identity, as it is in real numbers.
 */
const cast: Import = (s) => {
  const to = s.int('to', 0)
  s.int('saturate', 1)
  if (!CASTS.includes(to)) s.fail(`attribute to: ${typeName(to)} is not supported`)
  const v = s.value(0)
  if (v.kind === 'stored' && to === DataType.float && isFloat(v.proto.dataType)) return s.rounded(v)
  const x = s.either(0)
  if (x.kind === 'known') return castTo(s, x, to)
  if (to === DataType.float && x.batch === 'none' && s.double) return roundedConstant(s, x)
  if (to === DataType.float || to === DataType.double) return x
  const numbers = x.known?.()
  return numbers === undefined
    ? s.fail(`attribute to: a value that depends on the input as ${typeName(to)} is not supported`)
    : castTo(s, numbers, to)
}

const identity: Import = (s) => s.value(0)

// ---- reductions and choices of known numbers -------------------------------------------------------------------------

/** Lines of known numbers along one axis, and what f makes of each. */
const alongAxis = (s: NodeView, x: Known, at: number, keep: boolean, f: (line: readonly number[]) => number): Known => {
  const { shape } = x
  const [before, extent, after] = [size(shape.slice(0, at)), shape[at], size(shape.slice(at + 1))]
  s.spend(before * after + extent)
  const data = Array.from({ length: before * after }, (_, i) => {
    const from = Math.floor(i / after) * extent * after + (i % after)
    const line = Array.from({ length: extent }, (_, k) => x.data[from + k * after])
    return f(line.map((v) => (v === 'N' ? s.fail('it depends on the size of the batch') : v)))
  })
  const rest: Shape = shape.flatMap((d, i) => (i !== at ? [d] : keep ? [1] : []))
  return known(data, rest, x.type, x.exact)
}

const extreme =
  (better: (a: number, b: number) => boolean): Import =>
  (s) => {
    const x = settled(s, s.known(0))
    const at = axis(s, s.int('axis', 0), x.shape.length)
    const [keep, last] = [s.int('keepdims', 1) !== 0, s.int('select_last_index', 0) !== 0]
    const pick = (line: readonly number[]): number =>
      line.reduce((best, v, i) => (better(v, line[best]) || (last && v === line[best]) ? i : best), 0)
    if (x.shape[at] < 1) s.fail('it has no elements')
    return { ...alongAxis(s, x, at, keep, pick), type: DataType.int64 }
  }

/** The product of known integers, as exporters compute the size of a shape. */
const product: Import = (s) => {
  const x = s.known(0)
  const rank = x.shape.length
  const over = axes(s, axesOf(s) ?? [...x.shape.keys()], rank)
  const keep = s.int('keepdims', 1) !== 0
  s.int('noop_with_empty_axes', 0)
  if (isFloat(x.type)) s.fail('a product of floats is not supported')
  return [...over]
    .reverse()
    .reduce<Known>((v, a) => alongAxis(s, v, a, keep, (line) => line.reduce((p, q) => within(s, x.type, p * q), 1)), x)
}

/** Along a new axis, `on` where the index says so and `off` elsewhere. */
const oneHot: Import = (s) => {
  const [indices, depths, values] = [settled(s, s.known(0)), settled(s, s.known(1)), s.known(2)]
  const rank = indices.shape.length
  const at = axis(s, s.int('axis', -1), rank + 1)
  const [depth] = depths.data
  if (typeof depth !== 'number' || !(depth >= 1)) return s.fail(`input 1: a depth of ${depth}`)
  if (values.data.length !== 2) s.fail(`input 2: expected two numbers, found ${values.data.length}`)
  const shape = [...indices.shape.slice(0, at), depth, ...indices.shape.slice(at)]
  const after = size(indices.shape.slice(at))
  s.spend(size(shape))
  const data = Array.from({ length: size(shape) }, (_, i) => {
    const index = indices.data[Math.floor(i / (depth * after)) * after + (i % after)]
    if (typeof index !== 'number') return s.fail('input 0 must not depend on the batch')
    return values.data[(index < 0 ? index + depth : index) === Math.floor(i / after) % depth ? 1 : 0]
  })
  return known(data, shape, values.type, values.exact)
}

/** Where known numbers are not 0: one row of indices for each axis. */
const nonZero: Import = (s) => {
  const x = settled(s, s.known(0))
  const hits = [...x.data.keys()].filter((i) => x.data[i] !== 0)
  s.spend(hits.length * x.shape.length)
  const steps = x.shape.map((_, d) => size(x.shape.slice(d + 1)))
  const data = steps.flatMap((step, d) => hits.map((i) => Math.floor(i / step) % x.shape[d]))
  return known(data, [x.shape.length, hits.length])
}

export const imports: Readonly<Record<string, Import>> = {
  ArgMax: extreme((a, b) => a > b),
  ArgMin: extreme((a, b) => a < b),
  Cast: cast,
  Constant: constant,
  ConstantOfShape: constantOfShape,
  Identity: identity,
  NonZero: nonZero,
  OneHot: oneHot,
  Range: range,
  ReduceProd: product,
  Shape: shapeOf,
  Size: sizeOf,
}
