import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import type { Data } from './dataset.ts'
import type { FileReader } from './files.ts'
import { interleaved } from './interleaved.ts'
import { decodePictures, type Encoded } from './pictures.ts'

const isPicture = (name: string): boolean => /\.(png|jpe?g)$/i.test(name) && !name.startsWith('.')
const isShown = (name: string): boolean => !name.startsWith('.')

interface Listed {
  readonly classNames: readonly string[]
  readonly train: readonly Encoded[]
  readonly test: readonly Encoded[]
}

/** The pictures of a class folder, sorted by name: no order of a file system decides. */
const picturesOf = (reader: FileReader, folder: string, label: number): TE.TaskEither<MixtrainError, Encoded[]> =>
  pipe(
    reader.list(folder),
    TE.map((names) =>
      [...names]
        .filter(isPicture)
        .sort()
        .map((name) => ({ path: `${folder}/${name}`, bytes: reader.read(`${folder}/${name}`), label })),
    ),
    TE.filterOrElse(
      (pictures) => pictures.length > 0,
      () => fileError(folder, 'expected the PNG and JPEG files of a class, found none'),
    ),
  )

const listed = (reader: FileReader, folder: string): TE.TaskEither<MixtrainError, Listed> => {
  const classesIn = (part: string) =>
    pipe(
      reader.list(`${folder}/${part}`),
      TE.map((names) => [...names].filter((name) => isShown(name) && !isPicture(name)).sort()),
    )
  const all = (part: string, classNames: readonly string[], known: readonly string[]) =>
    pipe(
      classNames,
      TE.traverseSeqArray((name) => picturesOf(reader, `${folder}/${part}/${name}`, known.indexOf(name))),
      TE.map(interleaved),
    )
  return pipe(
    TE.Do,
    TE.bind('classNames', () => classesIn('train')),
    TE.filterOrElse(
      ({ classNames }) => classNames.length > 1,
      ({ classNames }) =>
        fileError(`${folder}/train`, `expected a folder for each class, two or more, found ${classNames.length}`),
    ),
    TE.bind('tested', () => classesIn('test')),
    TE.chainFirstEitherK(({ classNames, tested }) => {
      const other = tested.find((name) => !classNames.includes(name))
      return other === undefined
        ? E.right(undefined)
        : E.left(fileError(`${folder}/test/${other}`, `expected a class of ${folder}/train: ${classNames.join(', ')}`))
    }),
    TE.bind('train', ({ classNames }) => all('train', classNames, classNames)),
    TE.bind('test', ({ classNames, tested }) => all('test', tested, classNames)),
  )
}

/**
 * Images as torchvision's `ImageFolder` and Keras have them: `train/CLASS/*.png` and `test/CLASS/*.png` (or `.jpg`), classes numbered in the order of their names. All of
 * one size. Errors: no classes, a class without images or of the test set alone, every error of `decodePictures`.
 */
export const loadImageFolder = (reader: FileReader, folder: string, name: string): TE.TaskEither<MixtrainError, Data> =>
  pipe(
    listed(reader, folder),
    TE.chain(({ classNames, train, test }) =>
      decodePictures({ name, classes: classNames.length, classNames })(train, test),
    ),
  )
