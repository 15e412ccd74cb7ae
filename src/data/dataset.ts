import { raise, usage } from '../core/error.ts'
import { digest, digestOfPieces, hexadecimal, sha256 } from '../core/hash.ts'
import type { Key } from '../core/key.ts'
import * as K from '../core/key.ts'
import { type Shape, size } from '../core/shape.ts'
import type { Normalization } from '../nn/layers.ts'

/** Random variants of an image that keep its class: moved by up to `crop` pixels, mirrored left to right. */
export interface Variants {
  readonly crop: number
  readonly mirror: boolean
}

/**
 * Labelled images. Pixels are bytes, channel by channel, row by row; image i has the bytes [i c h w, (i+1) c h w) of
 * `inputs`.
 */
export interface Dataset {
  readonly name: string
  /** `[count, ...shape]`: bytes, 0 to 255 for 0 to 1, or numbers from 0 to 1 as they are */
  readonly inputs: Uint8Array | Float32Array
  /** [count], 0 .. classes - 1 */
  readonly labels: Uint8Array | Uint16Array
  /** [c, h, w] of one image, [features] of a row of a table */
  readonly shape: Shape
  readonly classes: number
  /** Names of the classes in their order, where they have some. */
  readonly classNames?: readonly string[]
  readonly count: number
  readonly licence?: string
  /** What the first op of a network for such images does to them; absent: nothing. */
  readonly normalization?: Normalization
  /** What training on such images varies; absent: nothing is known about them. */
  readonly variants?: Variants
}

/**
 * A class as people are told of it: its name, or its number where it has none.
 */
export const classNameOf = ({ classNames }: Pick<Dataset, 'classNames'>, label: number): string =>
  classNames?.[label] ?? String(label)

/** What one example of a data set is called where people read of it: a row of a table, or else an image. */
export const nounOf = ({ shape }: Pick<Dataset, 'shape'>): 'image' | 'row' => (shape.length === 1 ? 'row' : 'image')

/** What a data source gives: two sets of images of one shape and the same classes. */
export interface Data {
  readonly train: Dataset
  readonly test: Dataset
}

/** Pixels of one image: c h w. */
export const pixelsPerImage = (d: Dataset): number => size(d.shape)

/**
 * A data set of arrays in memory. Raises a usage error if their lengths disagree, a number is not from 0 to 1, a label is not below `classes` or names are not as many as these.
 *
 * @example
 *   const two = dataset({ name: 'two', shape: [1, 1, 2], classes: 2, inputs: new Uint8Array([0, 255, 255, 0]), labels: new Uint8Array([0, 1]) })
 *   two.count // 2
 */
export const dataset = (parts: Omit<Dataset, 'count'>): Dataset => {
  const count = parts.labels.length
  const expected = count * size(parts.shape)
  if (parts.inputs.length !== expected)
    raise(usage(`${parts.name}: ${count} images [${parts.shape}] need ${expected} pixels, not ${parts.inputs.length}`))
  if (parts.inputs instanceof Float32Array) {
    const outside = parts.inputs.findIndex((v) => !(v >= 0 && v <= 1))
    if (outside >= 0)
      raise(
        usage(
          `${parts.name}: input ${outside} is ${parts.inputs[outside]}, expected a number from 0 to 1 (fromArrays scales others)`,
        ),
      )
  }
  const wrong = parts.labels.findIndex((label) => label >= parts.classes)
  if (wrong >= 0)
    raise(usage(`${parts.name}: image ${wrong} has label ${parts.labels[wrong]} of ${parts.classes} classes`))
  if (parts.classNames !== undefined && parts.classNames.length !== parts.classes)
    raise(usage(`${parts.name}: ${parts.classes} classes have ${parts.classNames.length} names`))
  return { ...parts, count }
}

const inRange = (d: Dataset, index: number): number =>
  Number.isInteger(index) && index >= 0 && index < d.count
    ? index
    : raise(usage(`there is no image ${index} in ${d.name}: it has ${d.count}, counted from 0`))

/**
 * Images `from` (included) to `to` (excluded), as Array.prototype.slice; a view, nothing is copied.
 *
 * @example
 *   slice(100, 150)((await digits()).test).count // 50
 */
export const slice =
  (from: number, to?: number) =>
  (d: Dataset): Dataset => {
    const labels = d.labels.subarray(from, to)
    const start = (labels.byteOffset - d.labels.byteOffset) / d.labels.BYTES_PER_ELEMENT
    const n = pixelsPerImage(d)
    return { ...d, labels, count: labels.length, inputs: d.inputs.subarray(start * n, (start + labels.length) * n) }
  }

/**
 * The first n images, or all if there are fewer. Raises a usage error unless n is a non-negative integer.
 *
 * @example
 *   take(100)((await digits()).train).count // 100
 */
export const take = (n: number): ((d: Dataset) => Dataset) =>
  Number.isSafeInteger(n) && n >= 0
    ? slice(0, n)
    : raise(usage(`a number of images must be a non-negative integer, not ${n}`))

/**
 * The images at `indices`, in that order, copied. Raises a usage error for an index out of range.
 *
 * @example
 *   select([0, 2, 4])((await digits()).test).count // 3
 */
export const select =
  (indices: ArrayLike<number>) =>
  (d: Dataset): Dataset => {
    const n = pixelsPerImage(d)
    const count = indices.length
    const inputs = d.inputs instanceof Uint8Array ? new Uint8Array(count * n) : new Float32Array(count * n)
    const labels = d.labels instanceof Uint8Array ? new Uint8Array(count) : new Uint16Array(count)
    for (let i = 0; i < count; i++) {
      const at = inRange(d, indices[i])
      inputs.set(d.inputs.subarray(at * n, (at + 1) * n), i * n)
      labels[i] = d.labels[at]
    }
    return { ...d, inputs, labels, count }
  }

const INTENSITY = Float32Array.from({ length: 256 }, (_, byte) => byte / 255)

/**
 * Inputs of a network, [indices.length, c, h, w]: float32(pixel / 255) of bytes, numbers as they are. Raises a usage error for an index out of
 * range.
 *
 * @example
 *   pixels((await digits()).test, [0, 1]).length // 1568
 */
export const pixels = (d: Dataset, indices: ArrayLike<number>): Float32Array => {
  const n = pixelsPerImage(d)
  const out = new Float32Array(indices.length * n)
  const { inputs } = d
  for (let i = 0; i < indices.length; i++) {
    const at = inRange(d, indices[i]) * n
    if (inputs instanceof Float32Array) {
      out.set(inputs.subarray(at, at + n), i * n)
      continue
    }
    for (let j = 0; j < n; j++) out[i * n + j] = INTENSITY[inputs[at + j]]
  }
  return out
}

/**
 * Labels as float32, [indices.length]. Raises a usage error for an index out of range.
 *
 * @example
 *   labelsOf((await digits()).test, [0, 1]) // [3, 4]
 */
export const labelsOf = (d: Dataset, indices: ArrayLike<number>): Float32Array =>
  Float32Array.from(indices, (index) => d.labels[inRange(d, index)])

/**
 * The indices 0 .. count-1, shuffled and cut into batches. A last batch that is not full is dropped, so that every
 * batch has the same shape (none is left if batchSize > count), or kept on request. Raises a usage error for a batch size that is no positive integer.
 *
 * @example
 *   batches(5, 2, key(1)).map((batch) => batch.length) // [2, 2]
 */
export const batches = (
  count: number,
  batchSize: number,
  key: Key,
  rest: 'drop' | 'keep' = 'drop',
): readonly Uint32Array[] => {
  if (!Number.isSafeInteger(batchSize) || batchSize < 1)
    raise(usage(`a batch size must be a positive integer, not ${batchSize}`))
  const order = K.permutation(key, count)
  const length = rest === 'drop' ? Math.floor(count / batchSize) : Math.ceil(count / batchSize)
  return Array.from({ length }, (_, i) => order.subarray(i * batchSize, (i + 1) * batchSize))
}

/**
 * Two disjoint random parts of a data set: `count` images, and all others. Raises a usage error for a count that is no whole number from 0 to that of the set.
 *
 * @example
 *   const [monitored, others] = split(key(1), 500)((await digits()).train)
 *   [monitored.count, others.count] // [500, 7500]
 */
export const split =
  (key: Key, count: number) =>
  (d: Dataset): readonly [Dataset, Dataset] => {
    const order = K.permutation(key, d.count)
    if (!(Number.isInteger(count) && count >= 0 && count <= d.count))
      raise(usage(`cannot split ${count} of ${d.count} images off`))
    return [select(order.subarray(0, count))(d), select(order.subarray(count))(d)]
  }

/** Whether a shape is that of an image, [c, h, w] with more than one pixel: what may be moved and mirrored. */
export const isImage = (shape: Shape): shape is readonly [number, number, number] =>
  shape.length === 3 && shape[1] * shape[2] > 1

/** The memory of inputs: bytes as they are, or float32, low byte first. */
const bytesOf = ({ inputs }: Pick<Dataset, 'inputs'>): Uint8Array =>
  inputs instanceof Uint8Array ? inputs : new Uint8Array(inputs.buffer, inputs.byteOffset, inputs.byteLength)

/** FNV-1a of some bytes of an image, evenly spaced: equal images have equal ones. */
const sketch = (bytes: Uint8Array, from: number, n: number): number => {
  const stride = Math.max(1, Math.floor(n / 256))
  let hash = 0x811c9dc5
  for (let i = from; i < from + n; i += stride) hash = Math.imul(hash ^ bytes[i], 0x01000193)
  return hash
}

/**
 * How many images of `a` are also in `b`, byte for byte, whatever their labels; 0 where their shapes differ.
 *
 * @example
 *   const { train, test } = await digits()
 *   sharedImages(train, test) // 0
 */
export const sharedImages = (a: Dataset, b: Dataset): number => {
  if (pixelsPerImage(a) !== pixelsPerImage(b) || a.inputs.BYTES_PER_ELEMENT !== b.inputs.BYTES_PER_ELEMENT) return 0
  const n = pixelsPerImage(a) * a.inputs.BYTES_PER_ELEMENT
  const [own, others] = [bytesOf(a), bytesOf(b)]
  const wanted = new Map<number, number[]>()
  for (let i = 0; i < a.count; i++) {
    const key = sketch(own, i * n, n)
    wanted.set(key, [...(wanted.get(key) ?? []), i])
  }
  const found = new Set<number>()
  const equal = (i: number, j: number): boolean => {
    for (let k = 0; k < n; k++) if (own[i * n + k] !== others[j * n + k]) return false
    return true
  }
  for (let j = 0; j < b.count; j++)
    for (const i of wanted.get(sketch(others, j * n, n)) ?? []) if (!found.has(i) && equal(i, j)) found.add(i)
  return found.size
}

/** Labels as 16-bit numbers, low byte first. */
const labelBytes = (labels: Dataset['labels']): Uint8Array =>
  Uint8Array.from({ length: 2 * labels.length }, (_, i) => (labels[i >> 1] >> (8 * (i & 1))) & 255)

/**
 * SHA-256 of all that training takes from the images of both sets: pixels, labels, shape, classes, normalization, variants.
 *
 * @example
 *   const name = await fingerprintOf(await digits())
 */
export const fingerprintOf = async ({ train, test }: Data): Promise<string> => {
  const about = async ({ count, shape, classes, normalization, variants, labels, ...d }: Dataset) =>
    JSON.stringify([
      ...[count, shape, classes, normalization?.mean, normalization?.std, variants?.crop, variants?.mirror],
      hexadecimal(await digestOfPieces(bytesOf(d))),
      hexadecimal(await digest(labelBytes(labels))),
    ])
  return sha256(new TextEncoder().encode(`${await about(train)}\n${await about(test)}`))
}

/**
 * SHA-256 of what the images are: a line with their number, shape and classes, the pixels, and the labels as 16-bit numbers, low byte first.
 *
 * @example
 *   const sha256 = await hashOf((await digits()).test)
 */
export const hashOf = ({ count, shape, classes, labels, ...d }: Dataset): Promise<string> => {
  const inputs = bytesOf(d)
  const head = new TextEncoder().encode(`${count} [${shape}] ${classes}\n`)
  const bytes = new Uint8Array(head.length + inputs.length + 2 * labels.length)
  bytes.set(head)
  bytes.set(inputs, head.length)
  bytes.set(labelBytes(labels), head.length + inputs.length)
  return sha256(bytes)
}
