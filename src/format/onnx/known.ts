import * as E from 'fp-ts/lib/Either.js'
import { broadcast, broadcastStrides, type Shape, show, size, strides } from '../../core/shape.ts'
import { DataType, typeName } from './proto.ts'
import { isFloat } from './tensor.ts'
import type { Extent, Known, NodeView } from './values.ts'

/**
 * The evaluator of what is known when the file is read: integers, booleans, and the few floats of scalars and scales. Integers are
 * exact or refused. Every result takes its room from what a file may fill (`spend`).
 */

type Spender = Pick<NodeView, 'fail' | 'spend'>

export const known = (
  data: readonly Extent[],
  shape: Shape = [data.length],
  type: DataType = DataType.int64,
  exact = true,
): Known => ({ kind: 'known', type, shape, data, exact })

/** Elements that a run of indices names: `start`, `start + step`, ... */
export interface Run {
  readonly start: number
  readonly step: number
  readonly count: number
}

export const countOfRuns = (runs: readonly Run[]): number => runs.reduce((n, r) => n + r.count, 0)

/** Indices as runs, each as long as can be. */
export const runsOf = (indices: readonly number[]): readonly Run[] => {
  const runs: Run[] = []
  for (let i = 0; i < indices.length; ) {
    const step = i + 1 < indices.length ? indices[i + 1] - indices[i] : 1
    let count = 1
    while (i + count < indices.length && indices[i + count] - indices[i + count - 1] === step) count++
    // A step up of two elements that goes nowhere else is no run: the second may begin a longer one.
    if (count === 2 && step !== 1 && step !== 0) count = 1
    runs.push({ start: indices[i], step: count === 1 ? 1 : step, count })
    i += count
  }
  return runs
}

const indicesOf = (runs: readonly Run[]): readonly number[] =>
  runs.flatMap(({ start, step, count }) => Array.from({ length: count }, (_, i) => start + i * step))

export const withShape = (x: Known, shape: Shape): Known => ({ ...x, shape })

/** The elements that strided walks over `shape` name. */
const gathered = (s: Spender, x: Known, shape: Shape, steps: readonly number[]): Known => {
  s.spend(size(shape))
  const own = strides(shape)
  const at = (i: number): number =>
    own.reduce((offset, stride, d) => offset + (Math.floor(i / stride) % shape[d]) * steps[d], 0)
  return { ...x, shape, data: Array.from({ length: size(shape) }, (_, i) => x.data[at(i)]) }
}

export const transposed = (s: Spender, x: Known, permutation: readonly number[]): Known => {
  const steps = strides(x.shape)
  return gathered(
    s,
    x,
    permutation.map((p) => x.shape[p]),
    permutation.map((p) => steps[p]),
  )
}

export const expanded = (s: Spender, x: Known, shape: Shape): Known =>
  gathered(s, x, shape, broadcastStrides(x.shape, shape))

export const taken = (s: Spender, x: Known, axis: number, runs: readonly Run[]): Known => {
  const count = countOfRuns(runs)
  const shape = x.shape.map((d, i) => (i === axis ? count : d))
  s.spend(size(shape) + count)
  const [before, after] = [size(x.shape.slice(0, axis)), size(x.shape.slice(axis + 1))]
  const indices = indicesOf(runs)
  const data: Extent[] = []
  for (let b = 0; b < before; b++)
    for (const i of indices) for (let a = 0; a < after; a++) data.push(x.data[(b * x.shape[axis] + i) * after + a])
  return { ...x, shape, data }
}

export const concatenated = (s: Spender, xs: readonly Known[], axis: number): Known => {
  const shape = xs[0].shape.map((d, i) => (i === axis ? xs.reduce((n, x) => n + x.shape[axis], 0) : d))
  s.spend(size(shape))
  const before = size(shape.slice(0, axis))
  const pieces = xs.map((x) => size(x.shape.slice(axis)))
  const data: Extent[] = []
  for (let b = 0; b < before; b++)
    xs.forEach((x, k) => {
      for (let i = 0; i < pieces[k]; i++) data.push(x.data[b * pieces[k] + i])
    })
  return { ...xs[0], shape, data, exact: xs.every((x) => x.exact), off: Math.max(...xs.map(offOf)) }
}

/** f on every element of operands that broadcast. */
export const mapped = (
  s: Spender,
  xs: readonly Known[],
  type: DataType,
  f: (...v: readonly Extent[]) => Extent,
): Known => {
  const shape = xs.reduce<Shape>(
    (a, x) =>
      E.getOrElseW((): Shape => s.fail(`shapes ${show(a)} and ${show(x.shape)} do not broadcast`))(
        broadcast(a, x.shape),
      ),
    [],
  )
  const columns = xs.map((x) => (show(x.shape) === show(shape) ? x.data : expanded(s, x, shape).data))
  s.spend(size(shape))
  const data = Array.from({ length: size(shape) }, (_, i) => f(...columns.map((c) => c[i])))
  return known(
    data,
    shape,
    type,
    xs.every((x) => x.exact),
  )
}

/** The ranges of the integer types. */
const RANGES: { readonly [type: number]: readonly [number, number] } = {
  // Numbers hold these exactly, and what lies beyond may have been another integer in the file.
  [DataType.int64]: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  [DataType.uint64]: [0, Number.MAX_SAFE_INTEGER],
  [DataType.int32]: [-(2 ** 31), 2 ** 31 - 1],
  [DataType.uint32]: [0, 2 ** 32 - 1],
  [DataType.int16]: [-(2 ** 15), 2 ** 15 - 1],
  [DataType.uint16]: [0, 2 ** 16 - 1],
  [DataType.int8]: [-128, 127],
  [DataType.uint8]: [0, 255],
  [DataType.bool]: [0, 1],
}

/** An integer of a type, or a failure: what a runtime does where it leaves the range is not a matter of the graph. */
export const within = (s: Spender, type: DataType, v: number): number => {
  const [low, high] = RANGES[type] ?? s.fail(`${typeName(type)} is not a type of integers`)
  return v >= low && v <= high ? v : s.fail(`the integer ${v} leaves what ${typeName(type)} holds exactly`)
}

const offOf = ({ exact, off = Number.POSITIVE_INFINITY }: Known): number => (exact ? 0 : off)

const unsettled = (s: Spender): never =>
  s.fail(
    'it chooses by a number that float arithmetic rounded, and in real arithmetic may choose otherwise: store in the file what is meant',
  )

/**
 * Numbers that choose: they are compared, become integers or indices. Where float arithmetic rounded them, the numbers that they stand for may choose
 * otherwise, and an enclosure of the values says nothing about which are chosen.
 */
export const settled = (s: Spender, x: Known): Known => (x.exact ? x : unsettled(s))

const onlyNumbers =
  (s: Spender, f: (a: number, b: number) => number) =>
  (a: Extent, b: Extent = 0): number =>
    a === 'N' || b === 'N' ? s.fail('integers here must not depend on the size of the batch') : f(a, b)

export type Operation =
  | 'add'
  | 'sub'
  | 'mul'
  | 'div'
  | 'mod'
  | 'min'
  | 'max'
  | 'neg'
  | 'abs'
  | 'floor'
  | 'ceil'
  | 'round'
  | 'pow'
  | 'sqrt'

/** Operations on integers; a division truncates. */
const ON_INTS: Readonly<Record<Operation, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => Math.trunc(a / b),
  mod: (a, b) => a - Math.floor(a / b) * b,
  min: Math.min,
  max: Math.max,
  neg: (a) => -a,
  abs: Math.abs,
  floor: (a) => a,
  ceil: (a) => a,
  round: (a) => a,
  pow: (a, b) => a ** b,
  sqrt: Math.sqrt,
}
const ON_FLOATS: Readonly<Record<Operation, (a: number, b: number) => number>> = {
  ...ON_INTS,
  div: (a, b) => a / b,
  floor: Math.floor,
  ceil: Math.ceil,
  // To even, as the standard has it.
  round: (a) => (Math.abs(a - Math.trunc(a)) === 0.5 ? 2 * Math.round(a / 2) : Math.round(a)),
}

/** Whether `v` is what the operation gives in real numbers, for operands that are float32 numbers; products of two are exact in float64. */
const isExact = (op: Operation, a: number, b: number, v: number): boolean => {
  if (op === 'mul') return v === a * b
  // What is checked by a product must be a factor that leaves it exact.
  if (op === 'div') return Math.fround(v) === v && v * b === a
  if (op === 'sqrt') return Math.fround(v) === v && v * v === a
  // The sum of float64 numbers and what it leaves (Knuth's TwoSum).
  const c = op === 'sub' ? -b : b
  if (op === 'add' || op === 'sub') return v === a + c && a - (v - (v - a)) + (c - (v - a)) === 0
  // The others give an operand, or an integer near it.
  return op !== 'pow' && op !== 'mod'
}

/** What the batch is after an operation that leaves it as it is; undefined where it does not. */
const unmoved = (op: Operation, a: Extent, b: Extent | undefined): Extent | undefined => {
  if (a === 'N' && ((b === 0 && (op === 'add' || op === 'sub')) || (b === 1 && (op === 'mul' || op === 'div'))))
    return a
  if (b === 'N' && ((a === 0 && op === 'add') || (a === 1 && op === 'mul'))) return b
  // A batch has at least one image.
  if (op === 'max' && (a === 1 || a === 0 || b === 1 || b === 0)) return 'N'
  return undefined
}

/** An operation as the graph has it: exact on integers; on floats rounded to float32, which `exact` then tells. */
export const computed = (s: Spender, op: Operation, xs: readonly Known[]): Known => {
  const [{ type }] = xs
  if (xs.some((x) => x.type !== type)) s.fail(`operands of types ${xs.map((x) => typeName(x.type)).join(' and ')}`)
  if (!isFloat(type)) {
    const run = onlyNumbers(s, (a, b) =>
      (op === 'div' || op === 'mod') && b === 0
        ? s.fail('a division of integers by 0')
        : within(s, type, ON_INTS[op](within(s, type, a), within(s, type, b))),
    )
    return mapped(s, xs, type, (a, b) => (a === 'N' || b === 'N' ? (unmoved(op, a, b) ?? run(a, b)) : run(a, b)))
  }
  const [offA, offB = 0] = xs.map(offOf)
  const given = offA === 0 && offB === 0
  let [exact, off] = [true, 0]
  const result = mapped(
    s,
    xs,
    type,
    onlyNumbers(s, (a, b) => {
      const v = ON_FLOATS[op](a, b)
      const rounded = type === DataType.double ? v : Math.fround(v)
      const own =
        isExact(op, a, b, rounded) && Math.fround(a) === a && Math.fround(b) === b
          ? 0
          : Math.abs(rounded) * 2 ** -23 + 2 ** -149
      const carried = given ? 0 : offAfter(op, [a, b], [offA, offB])
      exact &&= own === 0 && carried === 0
      off = Math.max(off, own + carried)
      return rounded
    }),
  )
  // Twice what is summed up covers the roundings of the summing.
  return { ...result, exact, off: Number.isNaN(off) ? Number.POSITIVE_INFINITY : 2 * off }
}

/** How far a result may be from what it is of operands as far off as they may be; a step that gives one integer for all of them is exact again. */
const offAfter = (op: Operation, [a, b]: readonly number[], [offA, offB]: readonly number[]): number => {
  if (op === 'add' || op === 'sub' || op === 'min' || op === 'max') return offA + offB
  if (op === 'neg' || op === 'abs') return offA
  if (op === 'mul') return Math.abs(a) * offB + Math.abs(b) * offA + offA * offB
  if (op === 'floor' || op === 'ceil' || op === 'round') {
    const f = ON_FLOATS[op]
    return f(a - 2 * offA, 0) === f(a + 2 * offA, 0) ? 0 : offA + 1
  }
  // |a/b - a'/b'| <= (|a - a'| + |a/b| |b - b'|) / |b'|
  if (op === 'div' && Math.abs(b) > 2 * offB) return (2 * (offA + Math.abs(a / b) * offB)) / (Math.abs(b) - offB)
  return Number.POSITIVE_INFINITY
}

export type Comparison = 'equal' | 'less' | 'greater' | 'lessEqual' | 'greaterEqual' | 'and' | 'or' | 'xor'

const COMPARE: Readonly<Record<Comparison, (a: number, b: number) => boolean>> = {
  equal: (a, b) => a === b,
  less: (a, b) => a < b,
  greater: (a, b) => a > b,
  lessEqual: (a, b) => a <= b,
  greaterEqual: (a, b) => a >= b,
  and: (a, b) => a !== 0 && b !== 0,
  or: (a, b) => a !== 0 || b !== 0,
  xor: (a, b) => (a !== 0) !== (b !== 0),
}

/** A comparison; the batch is some number >= 1, which settles those with numbers below. */
export const compared = (s: Spender, op: Comparison, a: Known, b: Known): Known => {
  const held = (x: Known, v: number) => (isFloat(x.type) ? v : within(s, x.type, v))
  const off = 2 * (offOf(a) + offOf(b))
  const run = onlyNumbers(s, (x, y) =>
    off === 0 || Math.abs(x - y) > off ? Number(COMPARE[op](held(a, x), held(b, y))) : unsettled(s),
  )
  const sides = [a, b].map((x) => ({ ...x, exact: true }))
  return mapped(s, sides, DataType.bool, (x, y) => {
    if (x === 'N' && y === 'N') return Number(COMPARE[op](1, 1))
    if (x === 'N' && typeof y === 'number' && y < 1) return Number(COMPARE[op](1, y))
    if (y === 'N' && typeof x === 'number' && x < 1) return Number(COMPARE[op](x, 1))
    return run(x, y)
  })
}

/** A Cast: to float32 or float64 rounded to nearest, to integers truncated, to booleans "is not 0". */
export const castTo = (s: Spender, x: Known, type: DataType): Known => {
  if (type === DataType.bool) return mapped(s, [settled(s, x)], type, (v) => (v === 'N' ? 1 : Number(v !== 0)))
  if (isFloat(type)) {
    if (type !== DataType.float && type !== DataType.double) s.fail(`attribute to: ${typeName(type)} is not supported`)
    const held = (v: number) => (isFloat(x.type) ? v : within(s, x.type, v))
    const run = onlyNumbers(s, (v) => (type === DataType.float ? Math.fround(held(v)) : held(v)))
    return mapped(s, [x], type, (v) => run(v))
  }
  if (RANGES[type] === undefined) s.fail(`attribute to: ${typeName(type)} is not supported`)
  const off = 2 * offOf(x)
  const whole = (v: number): number => {
    if (off > 0 && Math.trunc(v - off) !== Math.trunc(v + off)) unsettled(s)
    // Ends of slices are often the largest integer there is; it only ever says "to the end".
    if (x.type === DataType.int64 && type === DataType.int64) return v
    return within(s, type, Math.trunc(v))
  }
  return mapped(s, [{ ...x, exact: true }], type, (v) => (v === 'N' ? v : whole(v)))
}
