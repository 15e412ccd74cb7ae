import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { show } from '../core/shape.ts'
import { type Dataset, dataset } from './dataset.ts'
import { inflate, isGzip } from './gzip.ts'

/**
 * An array of bytes from an IDX file (the format of MNIST: magic 0 0 type rank, extents as big-endian uint32,
 * elements).
 */
export interface Idx {
  readonly path: string
  readonly shape: readonly number[]
  readonly data: Uint8Array
}

const UBYTE = 0x08
const TYPES: Readonly<Record<number, string>> = {
  9: 'int8',
  11: 'int16',
  12: 'int32',
  13: 'float32',
  14: 'float64',
}

const hex = (bytes: Uint8Array): string => Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join(' ')
const magic = (rank: number): string => hex(Uint8Array.of(0, 0, UBYTE, rank))

/** Extents, and the length in bytes of the whole file that they call for. */
const header = (
  bytes: Uint8Array,
  path: string,
): E.Either<MixtrainError, { shape: readonly number[]; length: number }> => {
  const left = (place: string, message: string) => E.left(fileError(path, message, place))
  if (bytes.length < 4)
    return left(`byte ${bytes.length}`, `expected an IDX header of at least 4 bytes, found ${bytes.length}`)
  if (bytes[0] !== 0 || bytes[1] !== 0)
    return left('bytes 0-1', `expected the IDX magic 00 00 or the gzip magic 1f 8b, found ${hex(bytes.subarray(0, 2))}`)
  if (bytes[2] !== UBYTE)
    return left(
      'byte 2, element type',
      `expected 08 (unsigned bytes), found ${hex(bytes.subarray(2, 3))} (${TYPES[bytes[2]] ?? 'unknown'})`,
    )
  const rank = bytes[3]
  if (rank === 0) return left('byte 3, number of dimensions', 'expected at least 1, found 0')
  const start = 4 + 4 * rank
  if (bytes.length < start)
    return left(
      `byte ${bytes.length}`,
      `expected ${start} bytes of header for ${rank} dimensions, found ${bytes.length}`,
    )
  const view = new DataView(bytes.buffer, bytes.byteOffset, start)
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i))
  const zero = shape.indexOf(0)
  if (zero >= 0) return left(`bytes ${4 + 4 * zero}-${7 + 4 * zero}, dimension ${zero}`, 'expected at least 1, found 0')
  const length = start + shape.reduce((n, d) => n * d, 1)
  return Number.isSafeInteger(length)
    ? E.right({ shape, length })
    : left(`bytes 4-${start - 1}, dimensions`, `${show(shape)} elements are more than any file holds`)
}

/**
 * Decodes an IDX file of unsigned bytes; `data` is a view of `bytes`, nothing is allocated. Errors name the place in
 * the file: another magic or element type, no dimensions, a zero or absurd extent, too few bytes, too many.
 */
export const decodeIdx = (bytes: Uint8Array, path: string): E.Either<MixtrainError, Idx> =>
  pipe(
    header(bytes, path),
    E.chain(({ shape, length }) => {
      const start = 4 + 4 * shape.length
      const found = `${bytes.length - start} of ${length - start} bytes`
      return bytes.length === length
        ? E.right({ path, shape, data: bytes.subarray(start) })
        : E.left(
            bytes.length < length
              ? fileError(
                  path,
                  `the file is truncated: ${show(shape)} expects more, found ${found} after the header`,
                  `byte ${bytes.length}`,
                )
              : fileError(
                  path,
                  `expected the end of the file after ${show(shape)}, found ${bytes.length - length} more bytes`,
                  `byte ${length}`,
                ),
          )
    }),
  )

/** `decodeIdx` of a file that may be compressed (seen by its first two bytes); places then count decompressed bytes. */
export const readIdx = (bytes: Uint8Array, path: string): TE.TaskEither<MixtrainError, Idx> =>
  pipe(
    isGzip(bytes)
      ? inflate(bytes, path, (head) =>
          pipe(
            header(head, path),
            E.map((h) => h.length),
          ),
        )
      : TE.right<MixtrainError, Uint8Array>(bytes),
    TE.chainEitherK((content) => decodeIdx(content, path)),
  )

const ranked =
  (rank: number, what: string) =>
  (idx: Idx): E.Either<MixtrainError, Idx> =>
    idx.shape.length === rank
      ? E.right(idx)
      : E.left(
          fileError(
            idx.path,
            `expected ${what}, magic ${magic(rank)} (${rank} dimensions), found magic ${magic(idx.shape.length)}`,
            'byte 3, number of dimensions',
          ),
        )

/**
 * Pairs greyscale images [n, h, w] with their labels [n]. Errors: other ranks, counts that differ, a label not below
 * `classes`.
 */
export const pair =
  (about: Pick<Dataset, 'name' | 'classes' | 'licence' | 'variants'>) =>
  (images: Idx, labels: Idx): E.Either<MixtrainError, Dataset> =>
    pipe(
      ranked(3, 'images')(images),
      E.chain(() => ranked(1, 'labels')(labels)),
      E.chain(() => {
        const [n, h, w] = images.shape
        if (labels.shape[0] !== n)
          return E.left(
            fileError(
              labels.path,
              `expected ${n} labels, as many as ${images.path} has images, found ${labels.shape[0]}`,
              'bytes 4-7',
            ),
          )
        const wrong = labels.data.findIndex((label) => label >= about.classes)
        return wrong < 0
          ? E.right(dataset({ ...about, inputs: images.data, labels: labels.data, shape: [1, h, w] }))
          : E.left(
              fileError(
                labels.path,
                `expected a label from 0 to ${about.classes - 1}, found ${labels.data[wrong]} (image ${wrong})`,
                `byte ${8 + wrong}`,
              ),
            )
      }),
    )
