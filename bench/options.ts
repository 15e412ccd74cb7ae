import * as E from 'fp-ts/lib/Either.js'
import type { Option } from '../src/cli/options.ts'
import { raise, usage } from '../src/core/error.ts'

/** The value of `--name`, read as the command line of mixtrain reads it; throws a usage error that says what was expected. */
export const option = <A>(name: string, read: Option<A>['read'], text: string): A => {
  const value = read(text)
  return E.isRight(value) ? value.right : raise(usage(`--${name}: ${value.left}`))
}

/** Values with commas between them. */
export const list = <A>(name: string, read: Option<A>['read'], text: string): readonly A[] =>
  text.split(',').map((part) => option(name, read, part))
