import { raise, usage } from '../core/error.ts'
import { type Shape, show, size } from '../core/shape.ts'
import { type Dataset, dataset } from './dataset.ts'

/** From where to where a feature goes: what 0 and 1 stand for. */
export type FeatureRange = readonly [from: number, to: number]

/** What `fromArrays` is given. */
export interface Arrays {
  readonly name: string
  /** A row for each example, or all numbers one after the other with `shape`. */
  readonly inputs: readonly (readonly number[])[] | ArrayLike<number>
  /** A label for each example: a class from 0 on, or its name. */
  readonly labels: ArrayLike<number | string>
  /** Of one example. Default: `[features]`, as rows have them. */
  readonly shape?: Shape
  /** Names of the classes in their order. Default: of labels that are names, all there are, sorted. */
  readonly classNames?: readonly string[] | undefined
  /** Number of classes. Default: one more than the greatest label, or as many as there are names. */
  readonly classes?: number
  /** One range for all features, or one for each. Default: from the least to the greatest value, of each feature of a table, of all numbers otherwise. */
  readonly ranges?: FeatureRange | readonly FeatureRange[] | undefined
  /** Whether values outside their range are taken for its nearer end, in place of an error. */
  readonly clip?: boolean
}

/** A data set whose inputs were scaled: `x = from + u (to - from)` of the range of each feature, u from 0 to 1. */
export interface Scaled extends Dataset {
  readonly inputs: Float32Array
  readonly ranges: readonly FeatureRange[]
}

const isRange = (r: FeatureRange | readonly FeatureRange[]): r is FeatureRange => typeof r[0] === 'number'

const isRows = (inputs: Arrays['inputs']): inputs is readonly (readonly number[])[] =>
  Array.isArray(inputs) && Array.isArray(inputs[0])

/** Least and greatest of every `stride`-th number from `start`. */
const spanOf = (values: ArrayLike<number>, start: number, stride: number): FeatureRange => {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
  for (let i = start; i < values.length; i += stride) {
    if (values[i] < low) low = values[i]
    if (values[i] > high) high = values[i]
  }
  return [low, high]
}

/** Rows as one array; every row has as many numbers as the first. */
const flattened = (name: string, rows: readonly (readonly number[])[]): Float64Array => {
  const n = rows[0].length
  const wrong = rows.findIndex((row) => row.length !== n)
  if (wrong >= 0) raise(usage(`${name}: row ${wrong} has ${rows[wrong].length} numbers, the first has ${n}`))
  const flat = new Float64Array(rows.length * n)
  for (const [i, row] of rows.entries()) flat.set(row, i * n)
  return flat
}

/** Labels as numbers, and the names of the classes if they have any. */
const classesOf = (name: string, labels: Arrays['labels'], given: readonly string[] | undefined) => {
  const all = Array.from(labels)
  if (given === undefined && all.every((label) => typeof label === 'number'))
    return { numbers: all, classNames: undefined }
  const classNames = given ?? [...new Set(all.map(String))].sort()
  const places = new Map(classNames.map((label, i) => [label, i]))
  const numbers = all.map(
    (label, i) =>
      places.get(String(label)) ?? raise(usage(`${name}: label ${i}, ${label}, is none of ${classNames.join(', ')}`)),
  )
  return { numbers, classNames }
}

/**
 * A data set of numbers of any scale, such as a table. Features are scaled to [0, 1] by their ranges, and epsilon is a share of these: a radius of 0.05 is a
 * twentieth of every feature's range, so that ranges of one's own say how far each feature may move. A test set takes the ranges and class names of
 * its training set: `fromArrays({ ...test, ranges: train.ranges, classNames: train.classNames })`.
 *
 * @throws usage errors: no examples, numbers that do not fill the shape, NaN or infinity, values outside given ranges (unless `clip`), labels that are no class.
 * @example
 *   const train = fromArrays({ name: 'iris', inputs: [[5.1, 3.5, 1.4, 0.2], [7, 3.2, 4.7, 1.4]], labels: ['setosa', 'versicolor'] })
 */
export const fromArrays = (given: Arrays): Scaled => {
  const { name, inputs, labels, clip = false } = given
  const count = labels.length
  if (count === 0 || inputs.length === 0) return raise(usage(`${name}: there are no examples`))
  const values = isRows(inputs) ? flattened(name, inputs) : (inputs as ArrayLike<number>)
  const shape = given.shape ?? [values.length / count]
  const n = size(shape)
  if (values.length !== count * n)
    return raise(usage(`${name}: ${count} examples ${show(shape)} need ${count * n} numbers, not ${values.length}`))
  for (let i = 0; i < values.length; i++)
    if (!Number.isFinite(values[i]))
      raise(usage(`${name}: example ${Math.floor(i / n)} has ${values[i]} at ${i % n}, expected a finite number`))

  const perFeature = shape.length === 1
  const { ranges: own } = given
  const ranges: readonly FeatureRange[] =
    own === undefined
      ? perFeature
        ? Array.from({ length: n }, (_, j) => spanOf(values, j, n))
        : [spanOf(values, 0, 1)]
      : isRange(own)
        ? [own]
        : own
  if (ranges.length !== 1 && ranges.length !== n)
    raise(usage(`${name}: expected one range, or ${n} of them, not ${ranges.length}`))
  const wrong = ranges.find(([from, to]) => !(Number.isFinite(from) && Number.isFinite(to) && from <= to))
  if (wrong !== undefined) raise(usage(`${name}: a range goes from a number up, not from ${wrong[0]} to ${wrong[1]}`))

  const scaled = new Float32Array(values.length)
  for (let i = 0; i < values.length; i++) {
    const [from, to] = ranges[ranges.length === 1 ? 0 : i % n]
    const v = clip ? Math.min(Math.max(values[i], from), to) : values[i]
    if (!(v >= from && v <= to))
      raise(
        usage(
          `${name}: example ${Math.floor(i / n)} has ${v} at ${i % n}, outside its range from ${from} to ${to}; clip takes the nearer end`,
        ),
      )
    // A feature that never changes says nothing: it is 0.
    scaled[i] = to > from ? (v - from) / (to - from) : 0
  }

  const { numbers, classNames } = classesOf(name, labels, given.classNames)
  const classes = given.classes ?? classNames?.length ?? numbers.reduce((m, v) => Math.max(m, v), 0) + 1
  const bad = numbers.findIndex((label) => !(Number.isInteger(label) && label >= 0 && label < classes && label < 65536))
  if (bad >= 0)
    raise(usage(`${name}: label ${bad} is ${numbers[bad]}, expected a whole number from 0 to ${classes - 1}`))
  const made = dataset({
    name,
    inputs: scaled,
    labels: classes <= 256 ? Uint8Array.from(numbers) : Uint16Array.from(numbers),
    shape,
    classes,
    // Nothing that varies them keeps their class, as far as anybody knows.
    variants: { crop: 0, mirror: false },
    ...(classNames === undefined ? {} : { classNames }),
  })
  return { ...made, inputs: scaled, ranges }
}
