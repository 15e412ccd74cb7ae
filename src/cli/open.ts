import { basename, dirname, join, resolve } from 'node:path'
import process from 'node:process'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Device, type DeviceName, deviceNames, openDevice } from '../backend/device.ts'
import { deviceError, fileError, type MixtrainError, usage } from '../core/error.ts'
import { distance, nearest } from '../core/names.ts'
import * as S from '../core/shape.ts'
import { type Data, type Dataset, nounOf, sharedImages, take } from '../data/dataset.ts'
import { digits } from '../data/digits.ts'
import { exists, type FileReader, files } from '../data/files.ts'
import { loadFolder, loadTestImages } from '../data/folder.ts'
import { unpacked } from '../data/gzip.ts'
import { isTableFile, loadTableFile } from '../data/table-file.ts'
import { decodeModel, type SavedModel } from '../format/model.ts'
import { FILES, shown } from './run-folder.ts'
import { attempt, isTerminal, using } from './shell.ts'

export const DIGITS = 'digits'

/** What `--data` names: `digits`, or the absolute path of a folder or file. */
export const sourceOf = (name: string | undefined): string =>
  name === undefined || name === DIGITS ? DIGITS : resolve(name)

/** What is at a source, by how a file and a folder are read; where there is nothing, the error tells about `digits`. */
const loadedFrom = <A>(
  source: string,
  of: {
    readonly digits: () => Promise<A>
    readonly file: (path: string) => TE.TaskEither<MixtrainError, A>
    readonly folder: (path: string) => TE.TaskEither<MixtrainError, A>
  },
): TE.TaskEither<MixtrainError, A> =>
  source === DIGITS
    ? attempt(of.digits)
    : pipe(
        exists(source),
        TE.filterOrElse(
          (there) => there,
          (): MixtrainError => ({
            kind: 'file',
            path: source,
            message: `there is no such ${isTableFile(source) ? 'file' : 'folder'}; the embedded images are called ${DIGITS}`,
          }),
        ),
        TE.chain(() => (isTableFile(source) ? of.file(source) : of.folder(source))),
      )

/** Loads the images of a source. */
export const loadData = (source: string, reader: FileReader = files): TE.TaskEither<MixtrainError, Data> =>
  loadedFrom(source, { digits: async () => digits(), file: loadTableFile(reader), folder: loadFolder(reader) })

/** Loads the test images of a source, and no more than has to be read for them. */
export const loadTest = (source: string, reader: FileReader = files): TE.TaskEither<MixtrainError, Dataset> => {
  const testOf = ({ test }: Data): Dataset => test
  return loadedFrom(source, {
    digits: async () => testOf(await digits()),
    file: (path) => pipe(loadTableFile(reader)(path), TE.map(testOf)),
    folder: loadTestImages(reader),
  })
}

/** The test images that were asked for, or else those that the model names, or else the digits; and where they are. */
export const testFor = (
  { provenance }: SavedModel,
  path: string,
  asked: string | undefined,
): TE.TaskEither<MixtrainError, { readonly test: Dataset; readonly source: string }> => {
  const source = asked === undefined ? (provenance?.data?.source ?? DIGITS) : sourceOf(asked)
  return pipe(
    loadTest(source),
    TE.map((test) => ({ test, source })),
    TE.mapLeft((error) =>
      asked === undefined && error.kind === 'file' && error.path === source
        ? { ...error, message: `${path} was trained on the images there: ${error.message}; others are named by --data` }
        : error,
    ),
  )
}

/** What a user should know of test images that the model was trained on; undefined where there are none, or the model does not tell. */
export const overlapNote = (
  { provenance }: SavedModel,
  path: string,
  test: Dataset,
): TE.TaskEither<MixtrainError, string | undefined> => {
  const trained = provenance?.data
  if (trained === undefined) return TE.right(undefined)
  return pipe(
    loadData(trained.source),
    TE.map((data) => {
      const shared = sharedImages(test, take(trained.images)(data.train))
      return shared === 0
        ? undefined
        : `${shared} of these ${test.count} test ${nounOf(test)}s are among those that ${path} was trained on: ACC, ERA and VRA of them say nothing about others`
    }),
    // The images it was trained on may be gone: nothing can be said then.
    TE.orElse(() => TE.right<MixtrainError, string | undefined>(undefined)),
  )
}

/** A name is taken for a misspelled one if at most so many letters are wrong. */
const SLIPS = 3

/** What a user may have meant by the name of a file that cannot be read: the file of the nearest name beside it. */
const meantBy = (path: string): TE.TaskEither<MixtrainError, string> =>
  pipe(
    files.list(dirname(path)),
    TE.map((entries) => {
      const near = nearest(basename(path), entries)
      return near === undefined || near === basename(path) || distance(near, basename(path)) > SLIPS
        ? ''
        : `; the nearest is ${join(dirname(path), near)}`
    }),
    TE.orElse(() => TE.right<MixtrainError, string>('')),
  )

/** The models of a run, the one that is meant first: a proof is about an ONNX file. */
const MODELS = { safetensors: [FILES.model, FILES.onnx], onnx: [FILES.onnx, FILES.model] } as const

/** The file of a model that a command line names: itself, or the model of the run whose folder it is. */
export const modelFile = (
  path: string,
  format: keyof typeof MODELS = 'safetensors',
): TE.TaskEither<MixtrainError, string> =>
  pipe(
    files.list(path),
    TE.foldW(
      // No folder; whether it is a file turns out where it is read.
      () => TE.right<MixtrainError, string>(path),
      (entries) => {
        const model = MODELS[format].find((name) => entries.includes(name))
        return model !== undefined
          ? TE.right(join(path, model))
          : TE.left(
              fileError(
                path,
                entries.includes(FILES.checkpoint)
                  ? `the run of this folder is not finished, so that it has no model: train --resume ${shown(path)} goes on with it`
                  : `this folder is not that of a run: it has no ${FILES.model} and no ${FILES.onnx}`,
              ),
            )
      },
    ),
  )

/** A file that a command line names; an error tells what else there is. */
export const readNamed = (path: string, signal?: AbortSignal): TE.TaskEither<MixtrainError, Uint8Array> =>
  pipe(
    files.read(path, signal),
    TE.orElse((error) =>
      error.kind === 'file' && !signal?.aborted
        ? pipe(
            meantBy(path),
            TE.chain((meant) => TE.left<MixtrainError, Uint8Array>({ ...error, message: `${error.message}${meant}` })),
          )
        : TE.left(error),
    ),
  )

export const loadModel = (path: string): TE.TaskEither<MixtrainError, SavedModel> =>
  pipe(
    readNamed(path),
    TE.chain((bytes) => unpacked(bytes, path)),
    TE.chainEitherK((bytes) => decodeModel(bytes, path)),
  )

/** The images, if they are what the model takes. */
export const matching = (model: SavedModel, path: string, data: Dataset): E.Either<MixtrainError, Dataset> => {
  const { input, classes } = model.network
  return S.size(input) === S.size(data.shape) && classes === data.classes
    ? E.right(data)
    : E.left(
        usage(
          `${path} takes inputs ${S.show(input)} of ${classes} classes, but the ${nounOf(data)}s of ${data.name} are ${S.show(data.shape)} of ${data.classes} classes`,
        ),
      )
}

export interface Machine {
  readonly device: string | undefined
  readonly threads: number | undefined
  readonly fastMath: boolean
  /** Whether WASM takes over from a GPU that fails in mid-training. Default: on `auto`. */
  readonly fallback?: boolean | undefined
}

const isAvailable = (name: string): name is DeviceName => (deviceNames as readonly string[]).includes(name)

/** A note of the device; it takes the line of a progress bar, which is drawn again below. */
const told = (text: string): void => {
  process.stderr.write(`${isTerminal(process.stderr) ? '\r\x1b[2K' : ''}${text}\n`)
}

/** Opens the device for `use` and closes it, however that ends. */
export const withDevice =
  ({ device = 'auto', threads, fastMath, fallback }: Machine) =>
  <A>(use: (device: Device) => TE.TaskEither<MixtrainError, A>): TE.TaskEither<MixtrainError, A> =>
    isAvailable(device)
      ? using(openDevice({ device, threads, fastMath, fallback, told }), use, ({ backend }) => backend.dispose())
      : TE.left(deviceError(device, 'this version has no such device'))

/** A budget in bytes from megabytes. */
export const bytesOf = (megabytes: number | undefined): { readonly memory?: number } =>
  megabytes === undefined ? {} : { memory: megabytes * 2 ** 20 }
