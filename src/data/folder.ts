import { distance } from 'fastest-levenshtein'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { equals, show } from '../core/shape.ts'
import { decodeCifar } from './cifar.ts'
import type { Data, Dataset } from './dataset.ts'
import type { FileReader } from './files.ts'
import { type Idx, pair, readIdx } from './idx.ts'
import { loadTinyImagenet } from './tiny-imagenet.ts'

/** How a data set lies in a folder, and how it is read. */
interface Recogniser<Part extends string> {
  readonly name: string
  /** The files (or folders) it consists of, each with the names it goes by; the first one present is taken. */
  readonly parts: Readonly<Record<Part, readonly string[]>>
  /** `found` has the path of every part in `folder`. */
  readonly load: (
    reader: FileReader,
    found: Readonly<Record<Part, string>>,
    folder: string,
  ) => TE.TaskEither<MixtrainError, Data>
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

const idx: Recogniser<'trainImages' | 'trainLabels' | 'testImages' | 'testLabels'> = {
  name: 'MNIST or Fashion-MNIST',
  parts: {
    trainImages: spellings('train-images', 3),
    trainLabels: spellings('train-labels', 1),
    testImages: spellings('t10k-images', 3),
    testLabels: spellings('t10k-labels', 1),
  },
  load: (reader, found) => {
    const read = (path: string): TE.TaskEither<MixtrainError, Idx> =>
      pipe(
        reader.read(path),
        TE.chain((bytes) => readIdx(bytes, path)),
      )
    return pipe(
      TE.Do,
      TE.bind('trainImages', () => read(found.trainImages)),
      TE.bind('trainLabels', () => read(found.trainLabels)),
      TE.bind('testImages', () => read(found.testImages)),
      TE.bind('testLabels', () => read(found.testLabels)),
      TE.chainEitherK(({ trainImages, trainLabels, testImages, testLabels }) => {
        const about = { ...(KNOWN[trainLabels.data.subarray(0, 10).join('')] ?? { name: 'idx' }), classes: 10 }
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
const cifar: Recogniser<CifarPart> = {
  name: 'CIFAR-10 (binary version)',
  parts: {
    batch1: ['data_batch_1.bin'],
    batch2: ['data_batch_2.bin'],
    batch3: ['data_batch_3.bin'],
    batch4: ['data_batch_4.bin'],
    batch5: ['data_batch_5.bin'],
    test: ['test_batch.bin'],
  },
  load: (reader, found) => {
    const decoded = (parts: readonly CifarPart[]) =>
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
    return pipe(
      TE.Do,
      TE.bind('train', () => decoded(['batch1', 'batch2', 'batch3', 'batch4', 'batch5'])),
      TE.bind('test', () => decoded(['test'])),
    )
  },
}

const tinyImagenet: Recogniser<'train' | 'val' | 'wnids'> = {
  name: 'Tiny-ImageNet',
  parts: { train: ['train'], val: ['val'], wnids: ['wnids.txt'] },
  load: (reader, _, folder) => loadTinyImagenet(reader, folder),
}

const RECOGNISERS: readonly Recogniser<string>[] = [idx, cifar, tinyImagenet]

/** The entry whose name is nearest to one of `names` (Levenshtein), if it is near at all. */
const nearest = (names: readonly string[], entries: readonly string[]): string | undefined =>
  entries
    .map((entry) => ({ entry, far: Math.min(...names.map((name) => distance(name, entry) / name.length)) }))
    .filter(({ far }) => far < 0.5)
    .sort((a, b) => a.far - b.far)[0]?.entry

const explain = (recogniser: Recogniser<string>, entries: readonly string[]): string =>
  Object.values(recogniser.parts)
    .filter((names) => !names.some((name) => entries.includes(name)))
    .map((names) => {
      const near = nearest(names, entries)
      return `${names.join(' or ')}${near === undefined ? '' : ` (the nearest file is ${JSON.stringify(near)})`}`
    })
    .join('; ')

/**
 * Loads a data set from a folder that holds its official files: MNIST and Fashion-MNIST (IDX, plain or gzip), CIFAR-10 (binary
 * version), Tiny-ImageNet. Errors: a folder that cannot be read, no data set in it (the message says which files were looked for,
 * of the sets that some are there of, or of all), every error of the files.
 */
export const loadFolder =
  (reader: FileReader) =>
  (path: string): TE.TaskEither<MixtrainError, Data> =>
    pipe(
      reader.list(path),
      TE.chain((entries) => {
        const folder = path.replace(/[/\\]+$/, '')
        const attempts = RECOGNISERS.map((recogniser) => {
          const found = Object.entries(recogniser.parts).flatMap(([part, names]) => {
            const name = names.find((n) => entries.includes(n))
            return name === undefined ? [] : [[part, `${folder}/${name}`]]
          })
          return { recogniser, found, missing: Object.keys(recogniser.parts).length - found.length }
        })
        const complete = attempts.find((attempt) => attempt.missing === 0)
        if (complete !== undefined) return complete.recogniser.load(reader, Object.fromEntries(complete.found), folder)
        const begun = attempts.filter((attempt) => attempt.found.length > 0)
        return TE.left(
          fileError(
            path,
            `expected the files of a data set. ${(begun.length > 0 ? begun : attempts)
              .map((a) => `For ${a.recogniser.name} there is no ${explain(a.recogniser, entries)}`)
              .join('. ')}`,
          ),
        )
      }),
    )
