import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError, raise, usage } from '../core/error.ts'
import { key } from '../core/key.ts'
import { type Arrays, fromArrays } from './arrays.ts'
import { type Data, split } from './dataset.ts'
import type { FileReader } from './files.ts'
import { type Rows, readParquet } from './parquet.ts'
import { decodePictures, type Encoded } from './pictures.ts'
import { made, TEST_SHARE, tables } from './table-pair.ts'

const LABELS = ['label', 'labels', 'fine_label', 'class', 'target', 'y']

/** Bytes of a picture: as Hugging Face stores one, `{ bytes, path }`, or alone. */
const bytesOf = (cell: unknown): Uint8Array | undefined => {
  const bytes = typeof cell === 'object' && cell !== null && 'bytes' in cell ? cell.bytes : cell
  return bytes instanceof Uint8Array ? bytes : undefined
}

const isNumber = (cell: unknown): cell is number | bigint | boolean =>
  typeof cell === 'number' || typeof cell === 'bigint' || typeof cell === 'boolean'

/** Which columns are what, by the first row. */
const columnsOf = (rows: Rows['rows'], path: string) => {
  const [first] = rows
  if (first === undefined) return raise(usage(`${path}: there are no rows`))
  const names = Object.keys(first)
  const label =
    LABELS.find((name) => names.includes(name)) ??
    raise(usage(`${path}: expected a column called ${LABELS.join(', ')}, found ${names.join(', ')}`))
  const others = names.filter((name) => name !== label)
  return { label, picture: others.find((name) => bytesOf(first[name]) !== undefined), others }
}

const labelIn = (rows: Rows, i: number, column: string): number | string => {
  const cell = rows.rows[i][column]
  if (typeof cell === 'string') return cell
  return isNumber(cell) ? Number(cell) : raise(usage(`${rows.places[i]}: ${column} is ${cell}, expected a class`))
}

/** A table of numbers. */
const tableOf = (rows: Rows, path: string): Pick<Arrays, 'inputs' | 'labels'> => {
  const { label, others } = columnsOf(rows.rows, path)
  const inputs = rows.rows.map((row, i) =>
    others.map((name) => {
      const cell = row[name]
      return isNumber(cell) ? Number(cell) : raise(usage(`${rows.places[i]}: ${name} is ${cell}, expected a number`))
    }),
  )
  return { inputs, labels: rows.rows.map((_, i) => labelIn(rows, i, label)) }
}

/** Pictures with the classes of both parts. */
const picturesOf = (parts: readonly Rows[], path: string) => {
  const { label, picture } = columnsOf(parts[0].rows, path)
  const found = parts.map((rows) => rows.rows.map((_, i) => labelIn(rows, i, label)))
  const named = found.flat().some((l) => typeof l === 'string')
  const names = named ? [...new Set(found.flat().map(String))].sort() : parts[0].classNames(label)
  const numbers = found.map((labels) => labels.map((l) => (named ? (names?.indexOf(String(l)) ?? -1) : Number(l))))
  const highest = numbers.flat().reduce((a, b) => Math.max(a, b), 0)
  const encoded = parts.map((rows, p) =>
    rows.rows.map((row, i): Encoded => {
      const path = rows.places[i]
      const bytes = bytesOf(row[picture as string])
      const l = numbers[p][i]
      if (!Number.isInteger(l) || l < 0) raise(usage(`${path}: the label is ${l}, expected a class from 0 on`))
      const content = bytes === undefined ? TE.left(fileError(path, `${picture} holds no image`)) : TE.right(bytes)
      return { path, bytes: content, label: l }
    }),
  )
  const classes = Math.max(names?.length ?? 0, highest + 1)
  return { about: { classes, ...(names?.length === classes ? { classNames: names } : {}) }, encoded }
}

const isPictures = (rows: Rows, path: string): boolean => columnsOf(rows.rows, path).picture !== undefined

/** The training and the test set in Parquet files, one or more each: pictures (PNG or JPEG, as Hugging Face stores them) or a table of numbers, with a label. */
export const loadParquetPair = (
  reader: FileReader,
  { train, test, name }: { readonly train: readonly string[]; readonly test: readonly string[]; readonly name: string },
): TE.TaskEither<MixtrainError, Data> =>
  pipe(
    TE.Do,
    TE.bind('own', () => readParquet(reader, train)),
    TE.bind('held', () => readParquet(reader, test)),
    TE.chain(({ own, held }) =>
      pipe(
        TE.fromEither(
          made(train[0], () => {
            if (!isPictures(own, train[0]))
              return TE.of<MixtrainError, Data>(tables(name, tableOf(own, train[0]), tableOf(held, test[0])))
            const { about, encoded } = picturesOf([own, held], train[0])
            return decodePictures({ name, ...about })(encoded[0], encoded[1])
          }),
        ),
        TE.flatten,
      ),
    ),
  )

/** A data set in one Parquet file: a fifth of its rows, the same in every run, is the test set. */
export const loadParquetFile = (reader: FileReader, path: string, name: string): TE.TaskEither<MixtrainError, Data> =>
  pipe(
    readParquet(reader, [path]),
    TE.chain((rows) =>
      pipe(
        TE.fromEither(
          made(path, () => {
            if (!isPictures(rows, path))
              return TE.of<MixtrainError, Pick<Data, 'train'>>({ train: fromArrays({ name, ...tableOf(rows, path) }) })
            const { about, encoded } = picturesOf([rows], path)
            return decodePictures({ name, ...about })(encoded[0], [])
          }),
        ),
        TE.flatten,
      ),
    ),
    TE.chainEitherK(({ train: all }) =>
      made(path, () => {
        const [test, train] = split(key(0), Math.max(1, Math.floor(all.count / TEST_SHARE)))(all)
        return { train, test }
      }),
    ),
  )
