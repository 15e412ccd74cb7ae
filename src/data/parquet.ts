import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import type { FileReader } from './files.ts'
import { optionalPackage } from './optional.ts'

/** What is used of `hyparquet`. */
interface Buffered {
  readonly byteLength: number
  readonly slice: (from: number, to?: number) => ArrayBuffer
}
interface Metadata {
  readonly key_value_metadata?: readonly { readonly key: string; readonly value?: string }[]
}
interface Parquet {
  readonly parquetMetadataAsync: (file: Buffered) => Promise<Metadata>
  readonly parquetReadObjects: (options: {
    readonly file: Buffered
    readonly metadata: Metadata
    readonly utf8: boolean
    readonly compressors?: unknown
  }) => Promise<readonly Readonly<Record<string, unknown>>[]>
}

const hyparquet = optionalPackage<Parquet>('hyparquet', 'reading Parquet')

/** The rows of one or more Parquet files, and the names of the classes if Hugging Face's metadata have them. */
export interface Rows {
  readonly rows: readonly Readonly<Record<string, unknown>>[]
  /** The file of each row, and its number there. */
  readonly places: readonly string[]
  readonly classNames: (column: string) => readonly string[] | undefined
}

/** `info.features.COLUMN.names` of the metadata that Hugging Face's `datasets` writes. */
const namesIn = ({ key_value_metadata = [] }: Metadata, column: string): readonly string[] | undefined => {
  const text = key_value_metadata.find(({ key }) => key === 'huggingface')?.value
  try {
    const names = JSON.parse(text ?? '{}')?.info?.features?.[column]?.names
    return Array.isArray(names) && names.every((n) => typeof n === 'string') ? names : undefined
  } catch {
    return undefined
  }
}

const readOne = ({ parquetMetadataAsync, parquetReadObjects }: Parquet, path: string, bytes: Uint8Array) =>
  TE.tryCatch(
    async () => {
      const { buffer, byteOffset, byteLength } = Uint8Array.from(bytes)
      const file: Buffered = {
        byteLength,
        slice: (from, to) => buffer.slice(byteOffset + from, byteOffset + (to ?? byteLength)),
      }
      const metadata = await parquetMetadataAsync(file)
      // The package of further codecs is asked for only where it is there: snappy is in hyparquet.
      const more = await optionalPackage<{ readonly compressors: unknown }>('hyparquet-compressors', 'Parquet codecs')()
      const compressors = E.isRight(more) ? { compressors: more.right.compressors } : {}
      return { metadata, rows: await parquetReadObjects({ file, metadata, utf8: false, ...compressors }) }
    },
    (cause) => {
      const why = cause instanceof Error ? cause.message : String(cause)
      const codec = /compression codec/i.test(why)
        ? '; for other codecs than snappy: npm install hyparquet-compressors'
        : ''
      return fileError(path, `expected a Parquet file: ${why}${codec}`)
    },
  )

/** Reads Parquet files one after the other. Errors: the package is not installed, a damaged file, a codec that is not known. */
export const readParquet = (reader: FileReader, paths: readonly string[]): TE.TaskEither<MixtrainError, Rows> =>
  pipe(
    hyparquet,
    TE.chain((library) =>
      pipe(
        paths,
        TE.traverseSeqArray((path) =>
          pipe(
            reader.read(path),
            TE.chain((bytes) => readOne(library, path, bytes)),
            TE.map((read) => ({ ...read, path })),
          ),
        ),
      ),
    ),
    TE.map((files) => ({
      rows: files.flatMap(({ rows }) => rows),
      places: files.flatMap(({ rows, path }) => rows.map((_, i) => `${path}, row ${i}`)),
      classNames: (column) => (files.length === 0 ? undefined : namesIn(files[0].metadata, column)),
    })),
  )
