import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Either } from 'fp-ts/lib/Either.js'
import { type MixtrainError, show } from '../src/core/error.ts'

/** The repository root: the nearest folder above this file that has a package.json (tests run from dist/test). */
export const root: string = (() => {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder)
  return folder
})()

/**
 * A file of the shared folder (MIXTRAIN_SHARED, or ../shared beside the repository), or undefined where it is absent.
 */
export const shared = (path: string): string | undefined => {
  const full = join(process.env.MIXTRAIN_SHARED ?? join(root, '..', 'shared'), path)
  return existsSync(full) ? full : undefined
}

/** Says on a line of standard output that a test is skipped and why (uvu leaves its own line of dots open). */
export const skipped = (name: string, reason: string): void => console.log(`\nSKIP ${name}: ${reason}`)

/** The value of a Right; a Left fails the test. */
export const right = <A>(result: Either<MixtrainError, A>): A => {
  if (result._tag === 'Left') throw new Error(show(result.left))
  return result.right
}

/** The message of a Left; a Right fails the test. */
export const left = (result: Either<MixtrainError, unknown>): string => {
  if (result._tag === 'Right') throw new Error('expected a Left')
  return show(result.left)
}
