import { createHash } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { at, exactly, Refused, vector } from '../../src/proof/exact.ts'
import { check } from '../../src/proof/file.ts'
import { evaluate, networkOf } from '../../src/proof/network.ts'
import { modelOf } from '../format/onnx-models.ts'
import {
  bytesOf,
  field,
  floatAttribute,
  floats,
  graphOf,
  utf8,
  wire,
  wireNode,
  wireTensor,
} from '../format/onnx-wire.ts'

/** Why it is refused; undefined where it is not. Any other exception is raised. */
const reasonOf = async (answer: () => unknown): Promise<string | undefined> => {
  try {
    await answer()
    return undefined
  } catch (e) {
    if (e instanceof Refused) return e.message
    throw e
  }
}

// ---- proofs ------------------------------------------------------------------------------------------------------------------------

/** y = x: (3/4, 1/4) has label 0, and keeps it within less than 1/4. */
const network = modelOf(
  [1, 2],
  [['Gemm', 'x w b', 'y']],
  [
    { name: 'w', shape: [2, 2], data: Float32Array.of(1, 0, 0, 1) },
    { name: 'b', shape: [2], data: Float32Array.of(0, 0) },
  ],
)
const sha = (bytes: Uint8Array | string): string => createHash('sha256').update(bytes).digest('hex')
const image = {
  kind: 'image',
  pixels: Buffer.from(Float32Array.of(0.75, 0.25).buffer).toString('hex'),
  epsilon: '0.1',
  range: ['0', '1'],
  label: 0,
}
const proofOf = (claim: object, ...more: readonly string[]): string =>
  [
    JSON.stringify({ format: 'mixtrain-proof', version: 2, semantics: 'real', network: sha(network), claim }),
    ...more,
    '["leaf"]',
    '',
  ].join('\n')
const honest = proofOf(image)

test('a claim about no point, or about points other than the image, is refused: the network classifies it otherwise', async () => {
  const claims: readonly (readonly [claim: object, reason: RegExp])[] = [
    [{ ...image, label: 1 }, /leaf 1 does not refute/],
    [{ ...image, label: 1, epsilon: '-1' }, /radius is below 0/],
    [{ ...image, label: 1, epsilon: '-1/1000' }, /radius is below 0/],
    [{ ...image, label: 1, range: ['2', '3'] }, /pixel 0 .* outside of the range/],
    [{ ...image, label: 1, range: ['1', '0'] }, /pixel 0 .* outside of the range/],
    [{ ...image, range: ['0.8', '1'] }, /pixel 0 .* outside of the range/],
    [{ ...image, range: ['0.3', '1'] }, /pixel 1 .* outside of the range/],
  ]
  for (const [claim, reason] of claims)
    assert.match((await reasonOf(() => check(utf8(proofOf(claim)), { network }))) ?? 'accepted', reason)
  for (const claim of [image, { ...image, epsilon: '0' }, { ...image, range: ['0.25', '3/4'] }])
    assert.is(await reasonOf(() => check(utf8(proofOf(claim)), { network })), undefined)
})

test('a proof has one text: what two readers might read differently is refused', async () => {
  const respelled: readonly (readonly [what: string, text: string | Uint8Array])[] = [
    ['a radius twice', honest.replace('"epsilon":"0.1"', '"epsilon":"0.9","epsilon":"0.1"')],
    ['a radius twice, once escaped', honest.replace('"epsilon":"0.1"', '"\\u0065psilon":"0.9","epsilon":"0.1"')],
    ['semantics twice', honest.replace('"semantics":"real"', '"semantics":"deployed","semantics":"real"')],
    ['a claim twice', honest.replace('"claim":', '"claim":{"kind":"property"},"claim":')],
    ['an escaped name', honest.replace('"epsilon"', '"\\u0065psilon"')],
    ['spaces', honest.replace('"semantics":', '"semantics": ')],
    ['CRLF', honest.replaceAll('\n', '\r\n')],
    ['a byte order mark', `\ufeff${honest}`],
    ['0.0', honest.replace('"label":0', '"label":0.0')],
    ['-0', honest.replace('"label":0', '"label":-0')],
    ['0e5', honest.replace('"label":0', '"label":0e5')],
    ['a number below doubles', honest.replace('"label":0', '"label":1e-999')],
    ['2.0', honest.replace('"version":2', '"version":2.0')],
    ['another order', honest.replace('"version":2,"semantics":"real"', '"semantics":"real","version":2')],
    ['a member that nothing checks', honest.replace('"version":2', '"version":2,"covers":"all"')],
    ['a member of the claim that nothing checks', honest.replace('"label":0', '"label":0,"covers":"all"')],
    ['__proto__', honest.replace('"label":0', '"label":0,"__proto__":{}')],
    ['a member of a leaf twice', honest.replace('["leaf"]', '["leaf",{"slope":"same","slope":"adaptive"}]')],
    ['a blank line', `${honest}\n`],
    ['twice, packed', Buffer.concat([gzipSync(honest), gzipSync(honest)])],
    ['packed, and more', Buffer.concat([gzipSync(honest), utf8('more')])],
    ['packed twice', gzipSync(gzipSync(honest))],
  ]
  for (const [what, text] of respelled) {
    const bytes = typeof text === 'string' ? utf8(text) : new Uint8Array(text)
    assert.ok((await reasonOf(() => check(bytes, { network }))) !== undefined, what)
  }
  for (const bytes of [utf8(honest), new Uint8Array(gzipSync(honest))])
    assert.is((await check(bytes, { network })).verdict, 'unsat')
})

test('a property that adds up nothing, or has a comment that ends where readers differ, is refused, not crashed on', async () => {
  for (const [term, reason] of [
    ['(+)', /a \+ of nothing/],
    ['(-)', /a - of nothing/],
    ['(*)', /a \* of nothing/],
    ['1 ; a comment\r', /carriage return/],
  ] as const) {
    const property = `(declare-const X_0 Real)(assert (<= ${term} 0))`
    const proof = proofOf({ kind: 'property', property: sha(property) })
    const files = { network, property: utf8(property) }
    assert.match((await reasonOf(() => check(utf8(proof), files))) ?? 'accepted', reason)
  }
})

// ---- networks ----------------------------------------------------------------------------------------------------------------------

const raw = (...values: readonly number[]): Uint8Array => field(9, floats(...values))
const matrix = wireTensor('w', [2, 2], 1, raw(1, 2, 3, 4))
const bias = wireTensor('b', [2], 1, raw(3, 5))
const float = (value: number): Uint8Array => Uint8Array.from([2 * 8 + 5, ...floats(value)])
const attribute = (name: string, ...parts: readonly Uint8Array[]): Uint8Array =>
  field(5, bytesOf(field(1, utf8(name)), ...parts))
const gemm = (...more: readonly Uint8Array[]): Uint8Array => wireNode('Gemm', ['x', 'w', 'b'], ['y'], ...more)
const layer = (...more: readonly Uint8Array[]): Uint8Array => wire(gemm(...more), matrix, bias)
const int64s = (name: string, ...values: readonly number[]): Uint8Array =>
  wireTensor(name, [values.length], 7, ...values.map((v) => field(7, v)))
const [FLOAT, INT, INTS] = [1, 2, 7].map((type) => field(20, type))

/** What the checker makes of (1, 10). */
const outputsOf = (bytes: Uint8Array): readonly number[] => {
  const net = networkOf(bytes)
  const y = evaluate(net, vector([1, 10].map(exactly)))[net.output]
  return y.n.map((_, i) => Number(at(y, i).n) / Number(at(y, i).d))
}

test('a network file that readers take differently is refused by the checker', async () => {
  const files: readonly (readonly [what: string, bytes: Uint8Array])[] = [
    ['two graphs', bytesOf(layer(), field(7, wireNode('Relu', ['x'], ['y'])))],
    ['two values of alpha', layer(attribute('alpha', float(2), float(3), FLOAT))],
    ['two attributes alpha', layer(attribute('alpha', float(2), FLOAT), attribute('alpha', float(3), FLOAT))],
    ['alpha of another type', layer(attribute('alpha', field(3, 2), INT))],
    ['alpha of another type than it says', layer(attribute('alpha', float(2), field(3, 2), INT))],
    ['alpha as a list', layer(attribute('alpha', floatAttribute([2])))],
    ['alpha of no value', layer(attribute('alpha'))],
    ['transB, a float', layer(attribute('transB', float(1), FLOAT))],
    ['transB twice', layer(attribute('transB', field(3, 1), field(3, 0), INT))],
    ['transB 2, which some take for 1', layer(attribute('transB', field(3, 2), INT))],
    ['an attribute that Gemm has not', layer(attribute('gamma', float(2), FLOAT))],
    ['raw data twice', wire(gemm(), matrix, wireTensor('b', [2], 1, raw(3, 5), raw(4, 6)))],
    ['raw data in halves', wire(gemm(), matrix, wireTensor('b', [2], 1, raw(3), raw(5)))],
    ['raw and typed data', wire(gemm(), matrix, wireTensor('b', [2], 1, raw(3, 5), field(4, floats(4, 6))))],
    ['a byte too much', wire(gemm(), matrix, wireTensor('b', [2], 1, field(9, bytesOf(floats(3, 5), utf8('x')))))],
    ['a segment', wire(gemm(), matrix, wireTensor('b', [2], 1, field(3, field(2, 1)), raw(3, 5)))],
    ['a type twice', wire(gemm(), matrix, wireTensor('b', [2], 11, field(2, 1), raw(3, 5)))],
    ['a constant twice', wire(gemm(), matrix, bias, wireTensor('b', [2], 1, raw(4, 6)))],
    ['an op twice', wire(wireNode('Relu', ['x'], ['y'], field(4, utf8('Identity'))))],
    ['a domain twice', layer(field(7, utf8('other')), field(7, utf8('')))],
    ['two versions of the operators', bytesOf(layer(), field(8, field(2, 20)))],
    ['a version twice', bytesOf(layer(), field(8, bytesOf(field(2, 12), field(2, 13))))],
    ['functions of its own', bytesOf(layer(), field(25, field(1, utf8('Gemm'))))],
    ['sparse constants', wire(gemm(), matrix, bias, field(15, field(2, 1)))],
    ['an input of float16', graphOf(10, gemm(), matrix, bias)],
    ['an input of int64', graphOf(7, gemm(), matrix, bias)],
    [
      'a padding of named axes',
      wire(wireNode('Pad', ['x', 'p', '', 'axes'], ['y']), int64s('p', 0, 1, 0, 1), int64s('axes', 1, 0)),
    ],
    [
      'a normalization with a factor for each feature',
      wire(
        wireNode('BatchNormalization', ['x', 'b', 'b', 'b', 'b'], ['y'], attribute('spatial', field(3, 0), INT)),
        bias,
      ),
    ],
    [
      'a normalization of too few channels',
      wire(wireNode('BatchNormalization', ['x', 's', 's', 's', 's'], ['y']), wireTensor('s', [1], 1, raw(1))),
    ],
    ['an axis beyond', wire(wireNode('Flatten', ['x'], ['y'], attribute('axis', field(3, 5), INT)))],
    ['indices as axes', wire(wireNode('Transpose', ['x'], ['y'], attribute('perm', field(3, 1), INTS)))],
  ]
  for (const [what, bytes] of files) assert.ok((await reasonOf(() => outputsOf(bytes))) !== undefined, what)
})

test('what a writer leaves out is 0, as ONNX has it, and no default of the op', () => {
  assert.equal(outputsOf(layer()), [34, 47])
  assert.equal(outputsOf(layer(attribute('alpha', FLOAT))), [3, 5])
  assert.equal(outputsOf(layer(attribute('transB', INT))), [34, 47])
  assert.equal(outputsOf(layer(attribute('transB', field(3, 1), INT))), [24, 48])
  assert.equal(outputsOf(layer(attribute('alpha', float(2)))), [65, 89])
})

test.run()
