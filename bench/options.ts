import * as E from 'fp-ts/lib/Either.js'
import type { Option } from '../src/cli/options.ts'

/** What is said on the way, on standard error. */
export const note = (text: string): void => {
  process.stderr.write(`${text}\n`)
}

/** The value of `--name`, read as the command line of mixtrain reads it; ends the process with what was expected. */
export const option = <A>(name: string, read: Option<A>['read'], text: string): A => {
  const value = read(text)
  if (E.isRight(value)) return value.right
  note(`--${name}: ${value.left}`)
  process.exit(1)
}

/** Values with commas between them. */
export const list = <A>(name: string, read: Option<A>['read'], text: string): readonly A[] =>
  text.split(',').map((part) => option(name, read, part))
