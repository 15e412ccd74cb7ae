import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { roundDown, roundUp, upwards } from '../../src/core/rounding.ts'
import {
  type Certificate,
  claimsOf,
  decodeCertificate,
  encodeCertificate,
  stated,
  unproved,
} from '../../src/robust/certificate.ts'
import { right } from '../shared.ts'

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

const read = async (json: string) => decodeCertificate(json, 'c.json')()

test('a certificate is read as it was written', async () => {
  assert.equal(right(await read(await encodeCertificate(certificate))), certificate)
  const empty = { ...certificate, images: [], semantics: 'real' as const }
  assert.equal(right(await read(await encodeCertificate(empty))), empty)
})

test('no mutation of a certificate is read as another content', async () => {
  const json = await encodeCertificate(certificate)
  const place = fc.nat(json.length - 1)
  const letter = fc.constantFrom(...'0123456789abcdef.,:"[]{}- e/\\n')
  const mutation = fc.oneof(
    fc.tuple(place, letter).map(([i, c]) => json.slice(0, i) + c + json.slice(i + 1)),
    fc.tuple(place, letter).map(([i, c]) => json.slice(0, i) + c + json.slice(i)),
    fc.tuple(place, fc.integer({ min: 1, max: 30 })).map(([i, n]) => json.slice(0, i) + json.slice(i + n)),
    fc.tuple(place, place, place).map(([i, j, k]) => {
      const [from, to] = [Math.min(i, j), Math.max(i, j)]
      return json.slice(0, k) + json.slice(from, to) + json.slice(k)
    }),
    // A margin raised, a label changed, a claim dropped, in a document that is otherwise whole.
    fc
      .tuple(fc.constantFrom('0.5', '20', '"symbolic"', '"8/255"', '"deployed"', '7'), fc.integer({ min: 1, max: 99 }))
      .map(([was, n]) => json.replace(was, was.startsWith('"') ? `"${n}"` : String(n))),
  )
  let refused = 0
  await fc.assert(
    fc.asyncProperty(mutation, async (text) => {
      const result = await read(text)
      if (E.isLeft(result)) {
        refused++
        assert.is(result.left.kind, 'file')
      } else assert.equal(result.right, certificate)
    }),
    { numRuns: 3000, seed: 3 },
  )
  assert.ok(refused > 2500, `${refused}`)
})

test('what is not certified is told by its place', async () => {
  const json = await encodeCertificate(certificate)
  for (const [from, to, place] of [
    ['"symbolic"', '"magic"', 'method'],
    ['"deployed"', '"real"', 'sha256'],
    ['"outward"', '"none"', 'rounding'],
    ['"count"', '"number"', 'count'],
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
  const claims = claimsOf(bounds, [2, 0, 1, 0, 1], 3)
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
