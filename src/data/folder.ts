import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { distance } from '../core/names.ts'
import { equals, show } from '../core/shape.ts'
import { decodeCifar } from './cifar.ts'
import type { Data, Dataset } from './dataset.ts'
import type { FileReader } from './files.ts'
import { type Idx, pair, readIdx } from './idx.ts'
import { loadImageFolder } from './image-folder.ts'
import { loadParquetPair } from './parquet-set.ts'
import { loadCsvPair } from './table-file.ts'
import { loadTinyImagenet } from './tiny-imagenet.ts'

/** How a data set lies in a folder, and how it is read. */
interface Recognizer<Part extends string> {
  readonly name: string
  /** What an error calls it that tells what there could be. Default: its first file. */
  readonly example?: string
  /** Whether a part alone means nothing: folders called train are everywhere. */
  readonly onlyWhole?: boolean
  /** The files (or folders) it consists of, each with the names it goes by; the first one present is taken. */
  readonly parts: Readonly<Record<Part, readonly string[]>>
  /** `found` has the path of every part in `folder`. */
  readonly load: (
    reader: FileReader,
    found: Readonly<Record<Part, string>>,
    folder: string,
  ) => TE.TaskEither<MixtrainError, Data>
  /** Its test images alone, where that is quicker. */
  readonly test?: (reader: FileReader, found: Readonly<Record<Part, string>>) => TE.TaskEither<MixtrainError, Dataset>
}

/**
 * MNIST and Fashion-MNIST use the same file names; the first ten training labels tell which one it is, and so its
 * licence.
 */
const KNOWN: Readonly<Record<string, Pick<Dataset, 'name' | 'licence' | 'variants'>>> = {
  '5041921314': {
    name: 'mnist',
    licence: 'CC BY-SA 3.0 (Yann LeCun, Corinna Cortes)',
    variants: { crop: 1, mirror: false },
  },
  '9003027255': { name: 'fashion-mnist', licence: 'MIT (Zalando SE)', variants: { crop: 1, mirror: true } },
}

const spellings = (stem: string, rank: number): readonly string[] =>
  [`${stem}-idx${rank}-ubyte`, `${stem}.idx${rank}-ubyte`].flatMap((name) => [name, `${name}.gz`])

const readFrom =
  (reader: FileReader) =>
  (path: string): TE.TaskEither<MixtrainError, Idx> =>
    pipe(
      reader.read(path),
      TE.chain((bytes) => readIdx(bytes, path)),
    )

const aboutOf = (trainLabels: Idx) => ({
  ...(KNOWN[trainLabels.data.subarray(0, 10).join('')] ?? { name: 'idx' }),
  classes: 10,
})

const idx: Recognizer<'trainImages' | 'trainLabels' | 'testImages' | 'testLabels'> = {
  name: 'MNIST or Fashion-MNIST',
  parts: {
    trainImages: spellings('train-images', 3),
    trainLabels: spellings('train-labels', 1),
    testImages: spellings('t10k-images', 3),
    testLabels: spellings('t10k-labels', 1),
  },
  test: (reader, found) =>
    pipe(
      TE.Do,
      TE.bind('trainLabels', () => readFrom(reader)(found.trainLabels)),
      TE.bind('testImages', () => readFrom(reader)(found.testImages)),
      TE.bind('testLabels', () => readFrom(reader)(found.testLabels)),
      TE.chainEitherK(({ trainLabels, testImages, testLabels }) => pair(aboutOf(trainLabels))(testImages, testLabels)),
    ),
  load: (reader, found) => {
    const read = readFrom(reader)
    return pipe(
      TE.Do,
      TE.bind('trainImages', () => read(found.trainImages)),
      TE.bind('trainLabels', () => read(found.trainLabels)),
      TE.bind('testImages', () => read(found.testImages)),
      TE.bind('testLabels', () => read(found.testLabels)),
      TE.chainEitherK(({ trainImages, trainLabels, testImages, testLabels }) => {
        const about = aboutOf(trainLabels)
        return pipe(
          E.Do,
          E.bind('train', () => pair(about)(trainImages, trainLabels)),
          E.bind('test', () => pair(about)(testImages, testLabels)),
          E.filterOrElse(
            ({ train, test }) => equals(train.shape, test.shape),
            ({ train, test }) =>
              fileError(
                testImages.path,
                `expected images ${show(train.shape)} as in ${trainImages.path}, found ${show(test.shape)}`,
                'bytes 8-15',
              ),
          ),
        )
      }),
    )
  },
}

type CifarPart = 'batch1' | 'batch2' | 'batch3' | 'batch4' | 'batch5' | 'test'
const decodedCifar = (
  reader: FileReader,
  found: Readonly<Record<CifarPart, string>>,
  parts: readonly CifarPart[],
): TE.TaskEither<MixtrainError, Dataset> =>
  pipe(
    parts,
    TE.traverseSeqArray((part) =>
      pipe(
        reader.read(found[part]),
        TE.map((bytes) => ({ path: found[part], bytes })),
      ),
    ),
    TE.chainEitherK(decodeCifar),
  )
const cifar: Recognizer<CifarPart> = {
  name: 'CIFAR-10 (binary version)',
  parts: {
    batch1: ['data_batch_1.bin'],
    batch2: ['data_batch_2.bin'],
    batch3: ['data_batch_3.bin'],
    batch4: ['data_batch_4.bin'],
    batch5: ['data_batch_5.bin'],
    test: ['test_batch.bin'],
  },
  test: (reader, found) => decodedCifar(reader, found, ['test']),
  load: (reader, found) =>
    pipe(
      TE.Do,
      TE.bind('train', () => decodedCifar(reader, found, ['batch1', 'batch2', 'batch3', 'batch4', 'batch5'])),
      TE.bind('test', () => decodedCifar(reader, found, ['test'])),
    ),
}

const tinyImagenet: Recognizer<'train' | 'val' | 'wnids'> = {
  name: 'Tiny-ImageNet',
  parts: { train: ['train'], val: ['val'], wnids: ['wnids.txt'] },
  load: (reader, _, folder) => loadTinyImagenet(reader, folder),
}

const lastOf = (folder: string): string => folder.split(/[/\\]/).at(-1) ?? folder

const csv: Recognizer<'train' | 'test'> = {
  name: 'a pair of tables',
  parts: { train: ['train.csv'], test: ['test.csv'] },
  load: (reader, { train, test }, folder) => loadCsvPair(reader, train, test, lastOf(folder)),
}

const imageFolder: Recognizer<'train' | 'test'> = {
  name: 'a folder of images',
  example: 'train/CLASS/*.png (or .jpg) and test/CLASS/*.png',
  onlyWhole: true,
  parts: { train: ['train'], test: ['test'] },
  load: (reader, _, folder) => loadImageFolder(reader, folder, lastOf(folder)),
}

/** Files of one part of a Hugging Face data set, or the only file of a part. */
const isShard =
  (part: 'train' | 'test') =>
  (name: string): boolean =>
    new RegExp(`^${part}(-\\d+-of-\\d+)?\\.parquet$`).test(name)

/** A Parquet data set, if there is one in a folder: its parts have any number of files. */
const parquetIn = (folder: string, entries: readonly string[]): Found | undefined => {
  const [train, test] = (['train', 'test'] as const).map((part) =>
    entries
      .filter(isShard(part))
      .sort()
      .map((name) => `${folder}/${name}`),
  )
  if (train.length === 0 || test.length === 0) return undefined
  const recognizer: Recognizer<string> = {
    name: 'Parquet',
    parts: {},
    load: (reader, _, at) => loadParquetPair(reader, { train, test, name: lastOf(at) }),
  }
  return { folder, recognizer, parts: {}, whole: true, entries }
}

const RECOGNIZERS: readonly Recognizer<string>[] = [idx, cifar, tinyImagenet, csv, imageFolder]

/** The entry whose name is nearest to one of `names` (Levenshtein), if it is near at all. */
const nearest = (names: readonly string[], entries: readonly string[]): string | undefined =>
  entries
    .map((entry) => ({ entry, far: Math.min(...names.map((name) => distance(name, entry) / name.length)) }))
    .filter(({ far }) => far < 0.5)
    .sort((a, b) => a.far - b.far)[0]?.entry

/** What is missing of a data set, by the first of the names that each part goes by. */
const explain = ({ parts }: Recognizer<string>, entries: readonly string[]): string => {
  const known = Object.values(parts).flat()
  const others = entries.filter((entry) => !known.includes(entry))
  return Object.values(parts)
    .filter((names) => !names.some((name) => entries.includes(name)))
    .map((names) => {
      const near = nearest(names, others)
      const packed = names.includes(`${names[0]}.gz`) ? ' (or .gz)' : ''
      return `${names[0]}${packed}${near === undefined ? '' : ` (the nearest file is ${JSON.stringify(near)})`}`
    })
    .join('; ')
}

/** A data set that some or all files are in a folder of. */
interface Found {
  readonly folder: string
  readonly recognizer: Recognizer<string>
  readonly parts: Readonly<Record<string, string>>
  readonly whole: boolean
  /** Names of the entries of the folder. */
  readonly entries: readonly string[]
}

/** The data sets of which something is in a folder. */
const foundIn = (folder: string, entries: readonly string[]): readonly Found[] => {
  const parquet = parquetIn(folder, entries)
  const known = RECOGNIZERS.map((recognizer) => {
    const parts = Object.entries(recognizer.parts).flatMap(([part, names]) => {
      const name = names.find((n) => entries.includes(n))
      return name === undefined ? [] : [[part, `${folder}/${name}`] as const]
    })
    const whole = parts.length === Object.keys(recognizer.parts).length
    return { folder, recognizer, parts: Object.fromEntries(parts), whole, entries }
  }).filter(({ parts, whole, recognizer }) => (recognizer.onlyWhole ? whole : Object.keys(parts).length > 0))
  return parquet === undefined ? known : [...known, parquet]
}

/** How far below a folder its data set may lie (torchvision: MNIST/raw), and how many entries of one are looked into. */
const [DEPTH, WIDTH] = [2, 200]

/** The data sets in the folders below, or in parts of one. */
const foundBelow = async (
  reader: FileReader,
  folder: string,
  entries: readonly string[],
  depth: number,
): Promise<readonly Found[]> => {
  const found: Found[] = []
  for (const name of entries.filter((n) => !n.startsWith('.')).slice(0, WIDTH)) {
    const path = `${folder}/${name}`
    const inner = await reader.list(path)()
    if (E.isLeft(inner)) continue
    const here = foundIn(path, inner.right)
    found.push(...here)
    if (here.length === 0 && depth > 1) found.push(...(await foundBelow(reader, path, inner.right, depth - 1)))
  }
  return found
}

const missing = ({ recognizer, entries, folder }: Found, top: string): string =>
  `for ${recognizer.name} there is no ${explain(recognizer, entries)}${folder === top ? '' : ` in ${folder}`}`

/** CIFAR-10 as pickles, which only Python reads. */
const isPickled = (entries: readonly string[]): boolean =>
  entries.includes('cifar-10-batches-py') || (entries.includes('data_batch_1') && entries.includes('batches.meta'))

/** Why there is no data set to load. */
const nothing = (top: string, entries: readonly string[], found: readonly Found[]): string => {
  const whole = found.filter((f) => f.whole)
  if (whole.length > 1) return `there are several data sets, name one: ${whole.map(({ folder }) => folder).join(', ')}`
  const own = found.filter(({ folder }) => folder === top)
  if (found.length > 0)
    return `the data set is not whole: ${(own.length > 0 ? own : found).map((f) => missing(f, top)).join('; ')}`
  return isPickled(entries)
    ? 'this is the Python version of CIFAR-10; the binary version is read (mixtrain data cifar-10 DIR fetches it)'
    : `there is no data set here, nor ${DEPTH} levels below: ${RECOGNIZERS.map(({ name, parts, example }) => `${name} has ${example ?? Object.values(parts)[0][0]}`).join(', ')}, Parquet has train.parquet and test.parquet, or the files of Hugging Face`
}

/** The only whole data set in a folder or below. */
const chosenIn = (reader: FileReader, path: string): TE.TaskEither<MixtrainError, Found> =>
  pipe(
    reader.list(path),
    TE.chain((entries) => async () => {
      const top = path.replace(/(?<=.)[/\\]+$/, '')
      const here = foundIn(top, entries)
      const own = here.find((f) => f.whole)
      const found = own === undefined ? [...here, ...(await foundBelow(reader, top, entries, DEPTH))] : [own]
      const [chosen, ...others] = found.filter((f) => f.whole)
      return chosen === undefined || others.length > 0
        ? E.left(fileError(path, nothing(top, entries, found)))
        : E.right(chosen)
    }),
  )

/**
 * Loads a data set from a folder that holds its official files: MNIST and Fashion-MNIST (IDX, plain or gzip), CIFAR-10 (binary
 * version), Tiny-ImageNet, `train.csv` and `test.csv`, images in `train/CLASS` and `test/CLASS`, or Parquet files as Hugging Face names them; or from the only one of the folders up to two levels below that does, as torchvision lays them out. Errors: a folder
 * that cannot be read, no data set, parts of one (the message says what is missing, and where), several (it names their folders), every
 * error of the files.
 *
 * @example
 *   const { train, test } = await orThrow(loadFolder(files)(folder))
 */
export const loadFolder =
  (reader: FileReader) =>
  (path: string): TE.TaskEither<MixtrainError, Data> =>
    pipe(
      chosenIn(reader, path),
      TE.chain(({ recognizer, parts, folder }) => recognizer.load(reader, parts, folder)),
    )

/** The test images of `loadFolder`; the training images are not read where they lie in files of their own. */
export const loadTestImages =
  (reader: FileReader) =>
  (path: string): TE.TaskEither<MixtrainError, Dataset> =>
    pipe(
      chosenIn(reader, path),
      TE.chain(
        ({ recognizer: { load, test }, parts, folder }) =>
          test?.(reader, parts) ??
          pipe(
            load(reader, parts, folder),
            TE.map((data) => data.test),
          ),
      ),
    )
