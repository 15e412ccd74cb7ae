import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { z } from 'zod'
import { problemOf } from '../../src/core/problem.ts'

const Document = z.strictObject({
  name: z.string().min(2).max(4),
  count: z.int().min(1),
  share: z.number().positive().max(1),
  kind: z.enum(['real', 'deployed']),
  sizes: z.array(z.number()).min(1),
  balance: z.union([z.number(), z.literal('adaptive')]),
  hash: z.string().regex(/^[0-9a-f]+$/, 'expected hexadecimal digits'),
  inner: z.strictObject({ flags: z.array(z.boolean()) }),
})
const fine = {
  ...{ name: 'abc', count: 1, share: 0.5, kind: 'real', sizes: [1], balance: 'adaptive', hash: '0f' },
  inner: { flags: [true] },
}

const cases: readonly (readonly [change: unknown, place: string | undefined, message: string])[] = [
  [{ name: 3 }, 'name', 'expected a text, found 3'],
  [{ name: 'a' }, 'name', 'expected a text of at least 2 characters, found "a"'],
  [{ name: 'abcde' }, 'name', 'expected a text of at most 4 characters, found "abcde"'],
  [{ count: undefined }, 'count', 'expected a number, found nothing'],
  [{ count: 1.5 }, 'count', 'expected a whole number, found 1.5'],
  [{ count: 0 }, 'count', 'expected a number of at least 1, found 0'],
  [{ share: 0 }, 'share', 'expected a number above 0, found 0'],
  [{ share: null }, 'share', 'expected a number, found null'],
  [{ kind: 'both' }, 'kind', 'expected "real" or "deployed", found "both"'],
  [{ sizes: [] }, 'sizes', 'expected an array of at least 1, found an array of 0'],
  [{ sizes: { a: 1 } }, 'sizes', 'expected an array, found an object'],
  [{ balance: 'none' }, 'balance', 'expected a number or "adaptive", found "none"'],
  [{ hash: 'xyz' }, 'hash', 'expected hexadecimal digits, found "xyz"'],
  [{ inner: { flags: [true, 'no'] } }, 'inner.flags.1', 'expected true or false, found "no"'],
  [{ inner: { flags: [], more: 1 } }, 'inner', 'expected no member "more"'],
  [{ other: 1 }, undefined, 'expected no member "other"'],
]

for (const [change, place, message] of cases)
  test(message, () => {
    const input = { ...fine, ...(change as object) }
    const result = Document.safeParse(input)
    assert.not.ok(result.success)
    if (!result.success) assert.equal(problemOf(result.error, input), { place, message })
  })

test('what is right has no problem, and another document is one as a whole', () => {
  assert.ok(Document.safeParse(fine).success)
  const result = Document.safeParse('text')
  if (!result.success)
    assert.equal(problemOf(result.error, 'text'), { place: undefined, message: 'expected an object, found "text"' })
})

test('a long text is cut', () => {
  const result = z.number().safeParse('x'.repeat(1000))
  if (!result.success) assert.ok(problemOf(result.error, 'x'.repeat(1000)).message.length < 120)
})

test.run()
