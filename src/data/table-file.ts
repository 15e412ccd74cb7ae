import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { key } from '../core/key.ts'
import { type Shape, size } from '../core/shape.ts'
import { type Arrays, fromArrays } from './arrays.ts'
import { decodeCsv } from './csv.ts'
import { type Data, type Dataset, dataset, split } from './dataset.ts'
import type { FileReader } from './files.ts'
import { decodeNpy, type NumpyArray } from './npy.ts'
import { optionalPackage } from './optional.ts'
import { loadParquetFile } from './parquet-set.ts'
import { jointRanges, made, TEST_SHARE, tables } from './table-pair.ts'

const baseName = (path: string): string => path.split(/[/\\]/).at(-1) ?? path

const readCsv = (reader: FileReader, path: string) =>
  pipe(
    reader.read(path),
    TE.chainEitherK((bytes) => decodeCsv(new TextDecoder().decode(bytes), path)),
  )

/** A training and a test set as two CSV files; features are scaled by their range over both. */
export const loadCsvPair = (
  reader: FileReader,
  train: string,
  test: string,
  name: string,
): TE.TaskEither<MixtrainError, Data> =>
  pipe(
    TE.Do,
    TE.bind('own', () => readCsv(reader, train)),
    TE.bind('held', () => readCsv(reader, test)),
    TE.chainEitherK(({ own, held }) =>
      JSON.stringify(own.features) === JSON.stringify(held.features)
        ? made(train, () => tables(name, own, held))
        : E.left(
            fileError(
              test,
              `expected the columns ${own.features?.join(', ')} as in ${train}, found ${held.features?.join(', ')}`,
              'line 1',
            ),
          ),
    ),
  )

const loadCsv = (reader: FileReader, path: string): TE.TaskEither<MixtrainError, Data> =>
  pipe(
    readCsv(reader, path),
    TE.chainEitherK((table) =>
      made(path, () => {
        const all = fromArrays({ name: baseName(path), ...table })
        // The same rows in every run: what is held out must not depend on the seed of a training.
        const [test, train] = split(key(0), Math.max(1, Math.floor(all.count / TEST_SHARE)))(all)
        return { train, test }
      }),
    ),
  )

/** Where an archive of numpy has its arrays: as Keras names them, and as MedMNIST does. */
const NAMES = [
  { train: ['x_train', 'y_train'], test: ['x_test', 'y_test'] },
  { train: ['train_images', 'train_labels'], test: ['test_images', 'test_labels'] },
] as const

const CHANNELS = [1, 3, 4]

/** Examples of a shape, images with their channels first. */
const examplesOf = ({
  shape: [count, ...rest],
  data,
}: NumpyArray): { readonly count: number; readonly shape: Shape; readonly data: NumpyArray['data'] } => {
  if (rest.length === 2) return { count, shape: [1, ...rest], data }
  if (rest.length !== 3 || !CHANNELS.includes(rest[2]) || CHANNELS.includes(rest[0]))
    return { count, shape: rest, data }
  const [h, w, c] = rest
  const moved = data.slice()
  const n = h * w * c
  for (let i = 0; i < count; i++)
    for (let p = 0; p < h * w; p++) for (let k = 0; k < c; k++) moved[i * n + k * h * w + p] = data[i * n + p * c + k]
  return { count, shape: [c, h, w], data: moved }
}

/** Two sets from four arrays: bytes stay bytes, other numbers are scaled unless they lie in [0, 1]. */
const arraysOf = (name: string, arrays: { readonly [K in 'x' | 'y' | 'tx' | 'ty']: NumpyArray }): Data => {
  const [train, test] = [examplesOf(arrays.x), examplesOf(arrays.tx)]
  const labels = [...arrays.y.data, ...arrays.ty.data]
  const classes = 1 + labels.reduce((m, label) => Math.max(m, label), 0)
  if (train.data instanceof Uint8Array && test.data instanceof Uint8Array) {
    const bytes = ({ data, shape }: typeof train, { data: of }: NumpyArray): Dataset =>
      dataset({ name, inputs: Uint8Array.from(data), labels: Uint16Array.from(of), shape, classes })
    return { train: bytes(train, arrays.y), test: bytes(test, arrays.ty) }
  }
  const alone = ({ data, shape }: typeof train, { data: of }: NumpyArray, ranges?: Arrays['ranges']) =>
    fromArrays({ name, inputs: data, labels: of, shape, classes, ranges })
  const joint = jointRanges(alone(train, arrays.y).ranges, alone(test, arrays.ty).ranges)
  const ranges: Arrays['ranges'] = joint.every(([from, to]) => from >= 0 && to <= 1) ? [0, 1] : joint
  return { train: alone(train, arrays.y, ranges), test: alone(test, arrays.ty, ranges) }
}

/** What is used of `fflate`. */
interface Zip {
  readonly unzipSync: (bytes: Uint8Array) => Readonly<Record<string, Uint8Array>>
}
const zip = optionalPackage<Zip>('fflate', 'reading .npz')

const loadNpz = (reader: FileReader, path: string): TE.TaskEither<MixtrainError, Data> =>
  pipe(
    TE.Do,
    TE.bind('bytes', () => reader.read(path)),
    TE.bind('unpack', () => zip),
    TE.bind('entries', ({ bytes, unpack }) =>
      TE.fromEither(
        E.tryCatch(
          () => unpack.unzipSync(bytes),
          () => fileError(path, 'expected an archive of numpy (.npz): damaged or no ZIP'),
        ),
      ),
    ),
    TE.chainEitherK(({ entries }) => {
      const has = (name: string) => Object.hasOwn(entries, `${name}.npy`)
      const names = NAMES.find(({ train, test }) => [...train, ...test].every(has))
      if (names === undefined)
        return E.left(
          fileError(
            path,
            `expected arrays x_train, y_train, x_test and y_test, or train_images, train_labels, test_images and test_labels; found ${Object.keys(entries).join(', ')}`,
          ),
        )
      const array = (name: string) => decodeNpy(entries[`${name}.npy`], `${path}/${name}.npy`)
      return pipe(
        E.Do,
        E.bind('x', () => array(names.train[0])),
        E.bind('y', () => array(names.train[1])),
        E.bind('tx', () => array(names.test[0])),
        E.bind('ty', () => array(names.test[1])),
        E.chain((arrays) => {
          const mismatch = [
            { ...arrays, inputs: arrays.x, labels: arrays.y, names: names.train },
            { ...arrays, inputs: arrays.tx, labels: arrays.ty, names: names.test },
          ].find(({ inputs, labels }) => inputs.shape[0] !== size(labels.shape))
          return mismatch === undefined
            ? made(path, () => arraysOf(baseName(path), arrays))
            : E.left(
                fileError(
                  path,
                  `${mismatch.names[0]} has ${mismatch.inputs.shape[0]} examples, ${mismatch.names[1]} ${size(mismatch.labels.shape)}`,
                ),
              )
        }),
      )
    }),
  )

/** Whether a path names a data set in one file. */
export const isTableFile = (path: string): boolean => /\.(csv|tsv|npz|parquet)$/i.test(path)

/**
 * Loads a data set from one file: a CSV table or a Parquet file, of which a fifth, the same in every run, is the test set; or an archive of numpy with
 * `x_train`, `y_train`, `x_test`, `y_test` (or MedMNIST's names). Bytes are pixels; other numbers are scaled by their ranges (`fromArrays`). Errors: a file that
 * cannot be read, of another kind, or that lacks one of these; those of the formats, with line and column.
 *
 * @example
 *   const { train, test } = await orThrow(loadTableFile(files)(path))
 */
export const loadTableFile =
  (reader: FileReader) =>
  (path: string): TE.TaskEither<MixtrainError, Data> =>
    /\.npz$/i.test(path)
      ? loadNpz(reader, path)
      : /\.parquet$/i.test(path)
        ? loadParquetFile(reader, path, baseName(path))
        : loadCsv(reader, path)
