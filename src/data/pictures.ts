import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import type * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { type Data, type Dataset, dataset } from './dataset.ts'
import { jpegDecoder, type Picture } from './jpeg.ts'
import { pngDecoder } from './png.ts'

/** A picture that is to be decoded: its bytes, and the path or place that errors name. */
export interface Encoded {
  readonly path: string
  readonly bytes: TE.TaskEither<MixtrainError, Uint8Array>
  readonly label: number
}

const isGrey = ({ data }: Picture): boolean => {
  for (let i = 0; i < data.length; i += 4) if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) return false
  return true
}

/** Decodes by what the first bytes say; a decoder is loaded once it is needed. */
const decoder = () => {
  const kept: Partial<Record<'png' | 'jpeg', ReturnType<typeof pngDecoder>>> = {}
  return async ({ path, bytes }: Encoded): Promise<E.Either<MixtrainError, Picture>> => {
    const read = await bytes()
    if (E.isLeft(read)) return read
    const [first, second] = read.right
    const kind = first === 0x89 ? 'png' : first === 0xff && second === 0xd8 ? 'jpeg' : undefined
    if (kind === undefined) return E.left(fileError(path, 'expected a PNG or JPEG image', 'bytes 0-1'))
    kept[kind] ??= (kind === 'png' ? pngDecoder : jpegDecoder)()
    return pipe(
      await kept[kind],
      E.chain((decode) => decode(read.right, path)),
    )
  }
}

/** One picture with its channels: red, green, blue, each row by row, or grey alone. */
const planes = ({ data, width, height }: Picture, channels: number, into: Uint8Array): void => {
  const plane = width * height
  for (let c = 0; c < channels; c++) for (let p = 0; p < plane; p++) into[c * plane + p] = data[4 * p + c]
}

/** Bytes of decoded images at most: they are held in memory. */
const MOST = 2 ** 32

/**
 * Training and test set of encoded pictures, all of one size; [1, h, w] where every picture is grey, else [3, h, w]. Errors: damaged pictures, another size (it names the
 * picture, and the size of the first), more than memory should hold.
 */
export const decodePictures =
  (about: Pick<Dataset, 'name' | 'classes' | 'classNames'>) =>
  (train: readonly Encoded[], test: readonly Encoded[]): TE.TaskEither<MixtrainError, Data> =>
  async () => {
    const decode = decoder()
    const all = [...train, ...test]
    let size: readonly [width: number, height: number] | undefined
    let inputs = new Uint8Array(0)
    let grey = true
    for (const [i, one] of all.entries()) {
      const decoded = await decode(one)
      if (E.isLeft(decoded)) return decoded
      const { width, height } = decoded.right
      if (size === undefined) {
        size = [width, height]
        const bytes = all.length * 3 * width * height
        if (bytes > MOST)
          return E.left(
            fileError(one.path, `${all.length} images of ${width} x ${height} pixels are more than memory holds`),
          )
        inputs = new Uint8Array(bytes)
      }
      if (width !== size[0] || height !== size[1])
        return E.left(
          fileError(
            one.path,
            `expected an image of ${size[0]} x ${size[1]} pixels, as ${all[0].path} is, found ${width} x ${height}: bring all to one size`,
          ),
        )
      const n = 3 * width * height
      planes(decoded.right, 3, inputs.subarray(i * n, (i + 1) * n))
      grey &&= isGrey(decoded.right)
    }
    if (size === undefined) return E.left(fileError(about.name, 'expected images, found none'))
    const [width, height] = size
    const plane = width * height
    const channels = grey ? 1 : 3
    // Grey pictures keep the first of their three equal planes.
    if (grey) for (let i = 0; i < all.length; i++) inputs.copyWithin(i * plane, 3 * i * plane, (3 * i + 1) * plane)
    const n = channels * plane
    const part = (from: number, some: readonly Encoded[]): Dataset =>
      dataset({
        ...about,
        shape: [channels, height, width],
        inputs: inputs.slice(from * n, (from + some.length) * n),
        labels: Uint16Array.from(some, ({ label }) => label),
        // Nothing that varies them keeps their class, as far as anybody knows.
        variants: { crop: 0, mirror: false },
      })
    return E.right({ train: part(0, train), test: part(train.length, test) })
  }
