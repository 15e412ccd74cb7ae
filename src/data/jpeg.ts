import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import { optionalPackage } from './optional.ts'

/** An image: for each pixel, row by row, red, green, blue and 255. */
export interface Picture {
  readonly width: number
  readonly height: number
  readonly data: Uint8ClampedArray
}

/** libjpeg-turbo as WASM: its pixels are those of every tool that stands on libjpeg, and it reads files where a page cannot. */
const turbo = optionalPackage<{ readonly decode: (bytes: Uint8Array) => Picture }>('@cwasm/jpeg-turbo', 'reading JPEG')

/**
 * A decoder of JPEG files (Node and Deno); greyscale becomes red = green = blue. Errors: the package that decodes is not installed; damaged or
 * truncated data.
 */
export const jpegDecoder: TE.TaskEither<
  MixtrainError,
  (bytes: Uint8Array, path: string) => E.Either<MixtrainError, Picture>
> = pipe(
  turbo,
  TE.map(({ decode }) => (bytes, path) => {
    const damaged = (place: string) =>
      E.left(fileError(path, 'expected a JPEG image: damaged or truncated data', place))
    // Start and end of image; the decoder would leave its memory in disorder without the first.
    if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return damaged('bytes 0-1')
    try {
      return E.right(decode(bytes))
    } catch {
      return damaged(`${bytes.length} bytes`)
    }
  }),
)
