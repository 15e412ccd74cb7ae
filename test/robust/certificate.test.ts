import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { doublesOf, type Epsilon, epsilonFor, readEpsilon } from '../../src/core/epsilon.ts'
import { nextDouble, roundDown, roundUp } from '../../src/core/rounding.ts'
import {
  type Certificate,
  claimsOf,
  decodeCertificate,
  encodeCertificate,
  stated,
  unproved,
} from '../../src/robust/certificate.ts'
import { left, right } from '../shared.ts'

const certificate: Certificate = {
  version: '0.1.0',
  model: { file: 'model.onnx', sha256: '0123456789abcdef'.repeat(4) },
  data: { source: 'digits', sha256: 'fedcba9876543210'.repeat(4) },
  epsilon: '8/255',
  box: [0, 1],
  method: 'symbolic',
  rounding: 'outward',
  semantics: 'deployed',
  count: 7,
  images: [
    { index: 0, label: 2, margins: [0.5, 1.25] },
    { index: 3, label: 0, margins: [1e-4, 20] },
    { index: 6, label: 1, margins: [3.0001, 0.0009] },
  ],
}

const read = async (json: string) => decodeCertificate(new TextEncoder().encode(json), 'c.json')()

test('a certificate is read as it was written', async () => {
  assert.equal(right(await read(await encodeCertificate(certificate))), certificate)
  const empty = { ...certificate, images: [], semantics: 'real' as const }
  assert.equal(right(await read(await encodeCertificate(empty))), empty)
})

/** A value spelled in another way that JSON.parse, or a lenient reader, takes for the same. */
const respellings: readonly ((json: string) => string)[] = [
  (s) => JSON.stringify(JSON.parse(s)),
  (s) => `${JSON.stringify(JSON.parse(s), null, 2)}\n`,
  (s) => s.replaceAll('\n', '\r\n'),
  (s) => s.replace('\n', '\n\t'),
  (s) => s.trimEnd(),
  (s) => `${s}\n`,
  (s) => `${s} `,
  (s) => `\uFEFF${s}`,
  (s) => s.replace('"count": 7', '"count": 7.0'),
  (s) => s.replace('"count": 7', '"count": 0.7e1'),
  (s) => s.replace('[0.5,1.25]', '[5e-1,1.25]'),
  (s) => s.replace('[0.5,1.25]', '[0.5,1.2500000000000000001]'),
  (s) => s.replace('[0.5,1.25]', '[0.50,1.25]'),
  (s) => s.replace('"box": [0,1]', '"box": [-0,1]'),
  (s) => s.replace('"method"', '"m\\u0065thod"'),
  (s) => s.replace('"digits"', '"d\\u0069gits"'),
  (s) => s.replace('8/255', '8\\/255'),
  // The last of two members counts for JSON.parse, the first for others.
  (s) => s.replace('"epsilon":', '"epsilon": "0.9",\n  "epsilon":'),
  (s) => s.replace('"semantics":', '"semantics": "real", "semantics":'),
  (s) => s.replace('"margins":', '"margins":[99,99],"margins":'),
  (s) => s.replace('"images":', '"images": [{"index":1,"label":4,"margins":[99,99]}],\n  "images":'),
  (s) => s.replace('"sha256": "', `"sha256": "${'0'.repeat(64)}",\n  "sha256": "`),
  (s) => s.replace('"__proto__"', '""').replace('"images":', '"__proto__": {}, "images":'),
  // The members in another order, the lists cut in other places.
  (s) => s.replace(/( {2}"epsilon": .*\n)( {2}"box": .*\n)/, '$2$1'),
  (s) => s.replace('"index":0,"label":2', '"label":2,"index":0'),
  (s) => s.replace(/"covers": (\[.*\]),/, (_, l) => `"covers": ${JSON.stringify(JSON.parse(l).join(',').split(','))},`),
  (s) => s.replace(/"excludes": (\[.*\]),/, (_, l) => `"excludes": ["${JSON.parse(l).join(',')}"],`),
  (s) => s.replace(/"covers": \[/, '"covers": ["", '),
]

test('a certificate has one text: no other spelling of the same content is read', async () => {
  const json = await encodeCertificate(certificate)
  for (const respell of respellings) {
    const text = respell(json)
    assert.is.not(text, json, String(respell))
    left(await read(text))
  }
  const bytes = new TextEncoder().encode(json)
  assert.match(left(await decodeCertificate(Uint8Array.from([...bytes, 0xff]), 'c.json')()), /not JSON in UTF-8/)
  assert.match(left(await read(json.replace('[0.5,1.25]', '[0.50,1.25]'))), /^c\.json \(line 16\): .* was edited/)
})

test('no edit of a certificate is read: thousands of them, in bytes, in words and in respelled words', async () => {
  const json = await encodeCertificate(certificate)
  const place = fc.nat(json.length - 1)
  const letter = fc.constantFrom(...'0123456789abcdefEu.,:"[]{}- +/\\\n\t')
  const edit = fc.oneof(
    fc.tuple(place, letter).map(
      ([i, c]) =>
        (s: string) =>
          s.slice(0, i) + c + s.slice(i + 1),
    ),
    fc.tuple(place, letter).map(
      ([i, c]) =>
        (s: string) =>
          s.slice(0, i) + c + s.slice(i),
    ),
    fc.tuple(place, fc.integer({ min: 1, max: 30 })).map(
      ([i, n]) =>
        (s: string) =>
          s.slice(0, i) + s.slice(i + n),
    ),
    fc.tuple(place, place, place).map(([i, j, k]) => (s: string) => {
      const [from, to] = [Math.min(i, j), Math.max(i, j)]
      return s.slice(0, k) + s.slice(from, to) + s.slice(k)
    }),
    fc
      .tuple(fc.constantFrom('0.5', '20', '"symbolic"', '"8/255"', '"deployed"', '7'), fc.integer({ min: 1, max: 99 }))
      .map(
        ([was, n]) =>
          (s: string) =>
            s.replace(was, was.startsWith('"') ? `"${n}"` : String(n)),
      ),
    // A whole line, with its member, twice, or moved.
    fc.tuple(fc.nat(19), fc.nat(19)).map(([i, j]) => (s: string) => {
      const lines = s.split('\n')
      return lines.toSpliced(j, 0, lines[i] ?? '').join('\n')
    }),
    fc.constantFrom(...respellings),
  )
  let refused = 0
  await fc.assert(
    fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 3 }), async (edits) => {
      const text = edits.reduce((s, f) => {
        try {
          return f(s)
        } catch {
          return s
        }
      }, json)
      const result = await read(text)
      assert.is(E.isRight(result), text === json)
      refused += Number(E.isLeft(result))
      if (E.isLeft(result)) assert.is(result.left.kind, 'file')
    }),
    { numRuns: 6000, seed: 3 },
  )
  assert.ok(refused > 5500, `${refused}`)
})

test('what is not certified is told by its place', async () => {
  const json = await encodeCertificate(certificate)
  for (const [from, to, place] of [
    ['"symbolic"', '"magic"', 'method'],
    ['"deployed"', '"real"', 'sha256'],
    ['"outward"', '"none"', 'rounding'],
    ['"count"', '"number"', 'count'],
    [`"version": "${certificate.version}"`, '"version": "9, epsilon 0.9"', 'version'],
    [`"version": "${certificate.version}"`, `"version": "${certificate.version}\\nepsilon: 0.9"`, 'version'],
    ['"label":2', '"label":-2', 'images.0.label'],
    ['[0.5,', '[-0.5,', 'images.0.margins.0'],
    ['[0.5,', '[0.25,', 'sha256'],
  ] as const) {
    const result = await read(json.replace(from, to))
    assert.ok(E.isLeft(result) && result.left.kind === 'file')
    assert.is(result.left.place, place)
  }
  const notJson = await read('{')
  assert.ok(E.isLeft(notJson))
})

test('a stated margin leaves room below the bound; only proved margins are claims', () => {
  fc.assert(
    fc.property(fc.double({ min: -1e4, max: 1e4, noNaN: true }), (bound) => {
      const margin = stated(bound)
      assert.ok(
        margin <= bound - 2 ** -12 * (1 + Math.abs(bound)) + 1e-11 && margin > bound - 4e-4 * (1 + Math.abs(bound)),
      )
    }),
  )
  const bounds = [0.5, 0.2, 0.5, 1e-4, Number.NaN, 3, Number.POSITIVE_INFINITY, 3, 1, 1]
  const claims = claimsOf(bounds, [2, 0, 1, 0, 1], 3, [1, 1, 1, 1, 1])
  assert.equal(claimsOf(bounds, [2, 0, 1, 0, 1], 3, [0, 1, 1, 1, 1]), claims.slice(1))
  assert.equal(
    claims.map(({ index, label }) => [index, label]),
    [
      [0, 2],
      [4, 1],
    ],
  )
  assert.equal(unproved(claims, [0.5, 0.2, 1, 1], 3), [])
  assert.equal(unproved(claims, [0.5, 0.19, 1, 1], 3), [claims[0]])
  assert.equal(unproved(claims, [0.5, 0.2, Number.NaN, 1], 3), [claims[1]])
  assert.equal(unproved(claims, [0.5, 0.2, 1], 3), [claims[1]])
})

/** The least float32 not below what a text writes, NaN where it writes no radius. */
const upwards = (written: string): number => {
  const epsilon = readEpsilon(written)
  return epsilon === undefined ? Number.NaN : epsilonFor(epsilon, { outward: 'real' })
}

test('a radius as written gives the nearest double, the doubles round it, and the least float32 not below it, exactly', () => {
  for (const [text, below, nearest, above] of [
    ['0.1', 0.09999999999999999, 0.1, 0.1],
    ['8/255', 8 / 255, 8 / 255, nextDouble(8 / 255)],
    ['0.5', 0.5, 0.5, 0.5],
  ] as const) {
    const epsilon = readEpsilon(text) as Epsilon
    assert.equal(doublesOf(epsilon), { below, nearest, above }, text)
    assert.is(epsilonFor(epsilon, 'none'), nearest)
  }
  // A number is meant as the double that it is.
  assert.equal(doublesOf(0.1), { below: 0.1, nearest: 0.1, above: 0.1 })
  assert.is(epsilonFor(0.1, { outward: 'deployed' }), roundUp(0.1))
  for (const wrong of [-1, Number.NaN, Number.POSITIVE_INFINITY]) assert.throws(() => epsilonFor(wrong, 'none'))
})

test('the least float32 not below a written number, exactly', () => {
  for (const [text, value] of [
    ['0.5', 0.5],
    ['0', 0],
    ['1e-60', 2 ** -149],
    ['.1', roundUp(0.1)],
    ['1/3', roundUp(1 / 3)],
    ['2e-1/4E1', roundUp(0.005)],
  ] as const)
    assert.is(upwards(text), value, text)
  // Numbers so near to a float32 that doubles do not tell them apart.
  assert.is(upwards(`0.5${'0'.repeat(30)}1`), 0.5 + 2 ** -24)
  assert.is(upwards(`0.4${'9'.repeat(30)}`), 0.5)
  for (const text of ['', '.', '-1', '1/0', '1/2/3', 'x', 'NaN', '1e999', '0x1'])
    assert.ok(Number.isNaN(upwards(text)), text)
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 4e6 }), fc.integer({ min: 1, max: 4e6 }), (a, b) => {
      const x = upwards(`${a}/${b}`)
      // a / b is far from a tie of doubles, so that the quotient decides.
      assert.ok(x === roundUp(a / b) || x === roundDown(a / b))
      assert.ok(BigInt(a) * 2n ** 60n <= BigInt(x * 2 ** 60) * BigInt(b) || a === 0)
    }),
  )
})

test.run()
