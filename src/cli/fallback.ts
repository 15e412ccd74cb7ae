import type { MethodName } from '../robust/bounds.ts'
import { type Cheaper, cheaperThan, type Fallback } from '../robust/cheaper.ts'
import { DEFAULT_MEMORY } from '../train/fit.ts'
import { bytesOf } from './open.ts'
import type { Shell } from './shell.ts'

/** Cheaper ways than a method, and which of them was taken at last, if the method did not fit. */
export interface Falling extends Fallback {
  readonly taken: () => Cheaper | undefined
}

/** What a command takes where a method does not fit its --memory, which it notes. */
export const fallingBack = (
  method: MethodName,
  megabytes: number | undefined,
  { note }: Pick<Shell, 'note'>,
): Falling => {
  let taken: Cheaper | undefined
  return {
    ways: cheaperThan(method, bytesOf(megabytes).memory ?? DEFAULT_MEMORY),
    told: (way, why) => {
      // The radii of a curve all take the same.
      if (taken?.name !== way.name) note(`${why}: bounds are those of ${way.name}`)
      taken = way
    },
    taken: () => taken,
  }
}
