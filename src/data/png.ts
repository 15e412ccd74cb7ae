import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import type { Picture } from './jpeg.ts'
import { optionalPackage } from './optional.ts'

/** What is used of `fast-png`. */
interface Decoded {
  readonly width: number
  readonly height: number
  /** Rows of pixels of one number for each channel, of a palette for each pixel. */
  readonly data: Uint8Array | Uint8ClampedArray | Uint16Array
  readonly depth: number
  /** Grey, grey and alpha, colours, colours and alpha. */
  readonly channels: number
  readonly palette?: readonly (readonly number[])[]
  readonly transparency?: ArrayLike<number>
}
interface Png {
  readonly decode: (bytes: Uint8Array, options?: { readonly checkCrc: boolean }) => Decoded
}

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]

/** Pixels as red, green, blue and 255, or why not. */
const picture = (png: Decoded, path: string): E.Either<MixtrainError, Picture> => {
  const { width, height, data, depth, channels, palette, transparency } = png
  const left = (message: string) => E.left(fileError(path, message))
  if (depth !== 8 && depth !== 16) return left(`expected 8 or 16 bits a sample, found ${depth}: convert it`)
  const transparent = () => left('some pixels are transparent, and so have no colour: put the image on a ground')
  if (transparency !== undefined) return transparent()
  const out = new Uint8ClampedArray(4 * width * height)
  const byte = (i: number): number => (depth === 16 ? data[i] >> 8 : data[i])
  for (let p = 0; p < width * height; p++) {
    const from = p * channels
    const colour =
      palette !== undefined
        ? palette[data[p]]
        : channels < 3
          ? [byte(from), byte(from), byte(from)]
          : [byte(from), byte(from + 1), byte(from + 2)]
    if (colour === undefined) return left(`pixel ${p} names a colour that the palette does not have`)
    const alpha = palette !== undefined ? (colour[3] ?? 255) : channels % 2 === 0 ? byte(from + channels - 1) : 255
    if (alpha !== 255) return transparent()
    out.set([colour[0], colour[1], colour[2], 255], 4 * p)
  }
  return E.right({ width, height, data: out })
}

/** A decoder of PNG files; greyscale becomes red = green = blue, 16 bits the upper 8. Errors: the package that decodes is not installed; damaged data, transparency, fewer than 8 bits. */
export const pngDecoder: TE.TaskEither<
  MixtrainError,
  (bytes: Uint8Array, path: string) => E.Either<MixtrainError, Picture>
> = pipe(
  optionalPackage<Png>('fast-png', 'reading PNG'),
  TE.map(({ decode }) => (bytes, path) => {
    if (SIGNATURE.some((b, i) => bytes[i] !== b))
      return E.left(fileError(path, 'expected a PNG image: another signature', 'bytes 0-7'))
    return pipe(
      E.tryCatch(
        () => decode(bytes, { checkCrc: true }),
        (cause) =>
          fileError(path, `expected a PNG image: damaged data (${cause instanceof Error ? cause.message : cause})`),
      ),
      E.chain((decoded) => picture(decoded, path)),
    )
  }),
)
