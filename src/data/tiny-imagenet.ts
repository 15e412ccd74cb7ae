import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as O from 'fp-ts/lib/Option.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { dataOf, fingerprint, openCache, room, seal } from './cache.ts'
import type { Data } from './dataset.ts'
import type { FileReader } from './files.ts'
import { interleaved } from './interleaved.ts'
import { jpegDecoder } from './jpeg.ts'

/** A JPEG file and the number of its class. */
interface Labelled {
  readonly path: string
  readonly label: number
}

interface Listing {
  readonly classes: number
  readonly train: readonly Labelled[]
  readonly test: readonly Labelled[]
  /** Changes with the names and labels of the files (not with the bytes of an image that keeps its name). */
  readonly source: string
}

/** The file of decoded images, beside the official ones. */
export const CACHE = 'mixtrain-images.cache'

const SHAPE = [3, 64, 64] as const
const ABOUT = {
  name: 'tiny-imagenet',
  shape: [...SHAPE] as [number, number, number],
  normalization: { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] },
  variants: { crop: 4, mirror: true },
}

const linesOf = (bytes: Uint8Array): readonly string[] =>
  new TextDecoder()
    .decode(bytes)
    .split('\n')
    .map((line) => line.trimEnd())

const isJpeg = (name: string): boolean => /\.jpe?g$/i.test(name)

/** The classes of wnids.txt, one WordNet id in a line, sorted: a class has the number that a folder of class folders gives it. */
const classesOf = (path: string, bytes: Uint8Array): E.Either<MixtrainError, readonly string[]> => {
  const lines = linesOf(bytes)
  const ids = lines.filter((line) => line !== '')
  const wrong = lines.findIndex((line) => line !== '' && !/^n\d{8}$/.test(line))
  if (wrong >= 0)
    return E.left(
      fileError(
        path,
        `expected a WordNet id such as n01443537, found ${JSON.stringify(lines[wrong].slice(0, 40))}`,
        `line ${wrong + 1}`,
      ),
    )
  const twice = lines.findIndex((line, i) => line !== '' && lines.indexOf(line) !== i)
  if (twice >= 0)
    return E.left(fileError(path, `expected each class once, found ${lines[twice]} again`, `line ${twice + 1}`))
  return ids.length > 0 && ids.length <= 256
    ? E.right([...ids].sort())
    : E.left(fileError(path, `expected 200 classes (1 to 256), found ${ids.length}`))
}

/** val_annotations.txt: name of the image, class and a box, between tabs. */
const annotated =
  (folder: string, classes: readonly string[]) =>
  (path: string, bytes: Uint8Array): E.Either<MixtrainError, readonly Labelled[]> => {
    const images: Labelled[] = []
    for (const [i, line] of linesOf(bytes).entries()) {
      if (line === '') continue
      const [name, id] = line.split('\t')
      const label = classes.indexOf(id)
      // A name with a slash could lead out of the folder.
      if (!isJpeg(name) || /[/\\]/.test(name) || label < 0)
        return E.left(
          fileError(
            path,
            `expected the name of a JPEG file and a class of wnids.txt, found ${JSON.stringify(line.slice(0, 60))}`,
            `line ${i + 1}`,
          ),
        )
      images.push({ path: `${folder}/${name}`, label })
    }
    return images.length > 0 ? E.right(images) : E.left(fileError(path, 'expected a line for each image, found none'))
  }

const listing = (reader: FileReader, folder: string): TE.TaskEither<MixtrainError, Listing> => {
  const read = <A>(name: string, decode: (path: string, bytes: Uint8Array) => E.Either<MixtrainError, A>) =>
    pipe(
      reader.read(`${folder}/${name}`),
      TE.chainEitherK((bytes) => decode(`${folder}/${name}`, bytes)),
    )
  return pipe(
    TE.Do,
    TE.bind('ids', () => read('wnids.txt', classesOf)),
    TE.bind('byClass', ({ ids }) =>
      TE.traverseSeqArray((id: string) => {
        const path = `${folder}/train/${id}/images`
        return pipe(
          reader.list(path),
          TE.map((names) => names.filter(isJpeg).map((name) => ({ path: `${path}/${name}`, label: ids.indexOf(id) }))),
          TE.filterOrElse(
            (images) => images.length > 0,
            () => fileError(path, `expected the JPEG files of class ${id}, found none`),
          ),
        )
      })(ids),
    ),
    TE.bind('test', ({ ids }) => read('val/val_annotations.txt', annotated(`${folder}/val/images`, ids))),
    TE.chain(({ ids, byClass, test }) => async () => {
      const train = interleaved(byClass)
      const texts = [...train, ...test].map(({ path, label }) => `${label} ${path.slice(folder.length)}`)
      return E.right({ classes: ids.length, train, test, source: await fingerprint(texts) })
    }),
  )
}

/** Decodes every image, and keeps the result where the reader can write (elsewhere it is decoded again the next time). */
const decoded =
  (reader: FileReader, cache: string) =>
  ({ classes, train, test, source }: Listing): TE.TaskEither<MixtrainError, Data> =>
  async () => {
    const decoder = await jpegDecoder()
    if (E.isLeft(decoder)) return decoder
    const decode = decoder.right
    const space = room({ ...ABOUT, source, classes, train: train.length, test: test.length })
    const [, height, width] = SHAPE
    const plane = height * width
    for (const [files, into] of [
      [train, space.train],
      [test, space.test],
    ] as const)
      for (const [i, { path, label }] of files.entries()) {
        const picture = pipe(
          await reader.read(path)(),
          E.chain((bytes) => decode(bytes, path)),
        )
        if (E.isLeft(picture)) return picture
        const { data, width: w, height: h } = picture.right
        if (w !== width || h !== height)
          return E.left(fileError(path, `expected an image of ${width} x ${height} pixels, found ${w} x ${h}`))
        into.labels[i] = label
        for (let c = 0, at = i * 3 * plane; c < 3; c++)
          for (let p = c; p < 4 * plane; p += 4) into.inputs[at++] = data[p]
      }
    await seal(space.bytes)
    await reader.write?.(cache, space.bytes)()
    return E.right(dataOf(space))
  }

/**
 * Tiny-ImageNet from its official folder (train/ID/images, val/images with val_annotations.txt, wnids.txt): [3, 64, 64], the validation
 * images as test set. Classes are numbered in the order of their WordNet ids. The JPEG files are decoded once, into a file beside them
 * (12,289 bytes an image, 1.35 GB for all 110,000), which is made anew when the names of those files change or a bit of its own does.
 * Errors: files missing, a line that is not as expected, damaged images, images of another size.
 */
export const loadTinyImagenet = (reader: FileReader, folder: string): TE.TaskEither<MixtrainError, Data> => {
  const cache = `${folder}/${CACHE}`
  return pipe(
    listing(reader, folder),
    TE.chain((list) =>
      pipe(
        reader.read(cache),
        TE.chain((bytes) => TE.fromTask(() => openCache(bytes, list.source))),
        TE.orElse(() => TE.right<MixtrainError, O.Option<Data>>(O.none)),
        TE.chain(O.match(() => decoded(reader, cache)(list), TE.right)),
      ),
    ),
  )
}
