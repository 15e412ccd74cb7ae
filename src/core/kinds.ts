import * as E from 'fp-ts/lib/Either.js'
import { unknownName } from './names.ts'

/** A kind of value that a person may set: on a command line, in a file. */
export interface Kind<A> {
  /** What is expected, `a whole number from 1`. */
  readonly expected: string
  /** Reads a text; a Left says what was expected. */
  readonly read: (text: string) => E.Either<string, A>
  readonly holds: (value: unknown) => value is A
}

/** A text for a message, cut where it goes on for long. */
export const quoted = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}...` : text)

/** A decimal number: no hexadecimal, no name, no space. */
export const decimal = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i

/** `read` finds undefined where a text has no such value. */
const kind = <A>(
  expected: string,
  read: (text: string) => A | undefined,
  holds: (value: unknown) => value is A,
): Kind<A> => ({
  expected,
  read: (text) => E.fromNullable(`expected ${expected}, not ${quoted(text)}`)(read(text)),
  holds,
})

/** Numbers of which something holds. */
export const numberIn = (expected: string, holds: (x: number) => boolean): Kind<number> =>
  kind(
    expected,
    (text) => (decimal.test(text) && holds(Number(text)) ? Number(text) : undefined),
    (x): x is number => typeof x === 'number' && holds(x),
  )

export const count = numberIn('a whole number from 1', (x) => Number.isSafeInteger(x) && x >= 1)
export const integer = numberIn('a whole number', Number.isSafeInteger)
export const natural = numberIn('a whole number from 0', (x) => Number.isSafeInteger(x) && x >= 0)
export const positive = numberIn('a number above 0', (x) => x > 0 && Number.isFinite(x))
export const nonnegative = numberIn('a number from 0', (x) => x >= 0 && Number.isFinite(x))
export const fraction = numberIn('a number from 0 to 1', (x) => x >= 0 && x <= 1)

/** Values of a kind, or one word. */
export const or = <A, W extends string>({ expected, read, holds }: Kind<A>, word: W): Kind<A | W> =>
  kind<A | W>(
    `${expected} or ${word}`,
    (text) => (text === word ? word : E.getOrElseW(() => undefined)(read(text))),
    (x): x is A | W => x === word || holds(x),
  )

/** One of these names; `what` they are of. */
export const oneOf = <A extends string>(what: string, known: readonly A[]): Kind<A> => {
  const holds = (x: unknown): x is A => known.includes(x as A)
  return {
    expected: known.join(' or '),
    read: (text) => (holds(text) ? E.right(text) : E.left(unknownName(what, text, known))),
    holds,
  }
}

const areCounts = (x: unknown): x is readonly number[] =>
  Array.isArray(x) && x.every((n, i) => count.holds(n) && n > (i === 0 ? 0 : x[i - 1]))

/** Whole numbers from 1, ascending, with commas between. */
export const counts: Kind<readonly number[]> = kind(
  'ascending whole numbers from 1, such as 50,60',
  (text) => {
    const numbers = text.split(',').map((part) => E.getOrElse(() => Number.NaN)(count.read(part)))
    return areCounts(numbers) ? numbers : undefined
  },
  areCounts,
)

/** Said or not: an option without an argument. */
export const whether: Kind<boolean> = kind(
  'true or false',
  (text) => (text === 'true' || text === 'false' ? text === 'true' : undefined),
  (x): x is boolean => typeof x === 'boolean',
)
