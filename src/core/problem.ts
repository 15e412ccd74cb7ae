import type { z } from 'zod'

/** A text of a file, cut where it goes on for long. */
const quote = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}...` : text)

/** What stands at a path of a document. */
const at = (input: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>(
    (value, key) =>
      typeof value === 'object' && value !== null ? (value as Readonly<Record<PropertyKey, unknown>>)[key] : undefined,
    input,
  )

/** A value of a document in a few words. */
const told = (value: unknown): string => {
  if (value === undefined) return 'nothing'
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (typeof value === 'object' && value !== null) return 'an object'
  return typeof value === 'string' ? quote(value) : String(value)
}

const NAMES: Readonly<Record<string, string>> = {
  array: 'an array',
  boolean: 'true or false',
  int: 'a whole number',
  number: 'a number',
  object: 'an object',
  record: 'an object',
  string: 'a text',
  tuple: 'an array',
}

/** `at least 1`, `3 elements or more`; `origin` is what is counted. */
const limit = (origin: string, bound: string, size: unknown, inclusive: boolean): string => {
  if (origin === 'string') return `a text of ${bound} ${size} characters`
  if (origin === 'array') return `an array of ${bound} ${size}`
  if (inclusive) return `${NAMES[origin] ?? 'a number'} of ${bound} ${size}`
  return `${NAMES[origin] ?? 'a number'} ${bound === 'at least' ? 'above' : 'below'} ${size}`
}

/** What an issue expects, without its place. */
const expected = (issue: z.core.$ZodIssue): string => {
  // A schema's own message says it better.
  if (issue.message.startsWith('expected ')) return issue.message.slice('expected '.length)
  switch (issue.code) {
    case 'invalid_type':
      return NAMES[issue.expected] ?? issue.expected
    case 'invalid_value':
      return issue.values.map((v) => JSON.stringify(v)).join(' or ')
    case 'too_small':
      return limit(issue.origin, 'at least', issue.minimum, issue.inclusive === true)
    case 'too_big':
      return limit(issue.origin, 'at most', issue.maximum, issue.inclusive === true)
    case 'unrecognized_keys':
      return `no member ${issue.keys.map((key) => quote(key)).join(', ')}`
    case 'invalid_union':
      return [...new Set(issue.errors.flatMap(([first]) => (first === undefined ? [] : [expected(first)])))].join(
        ' or ',
      )
    default:
      return 'another value'
  }
}

/**
 * The first thing that is wrong with a document, in the words of all other errors: `expected a number, found "2"`. `place` is the path to it, its names and
 * numbers joined by dots; absent: the document itself.
 */
export const problemOf = (
  error: z.ZodError,
  input: unknown,
): { readonly place: string | undefined; readonly message: string } => {
  const [issue] = error.issues
  const found = issue.code === 'unrecognized_keys' ? '' : `, found ${told(at(input, issue.path))}`
  return {
    place: issue.path.length === 0 ? undefined : issue.path.map(String).join('.'),
    message: `expected ${expected(issue)}${found}`,
  }
}
