import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { size } from '../../src/core/shape.ts'
import { decode, encode, expectTensors, type Tensors } from '../../src/format/safetensors.ts'
import { left, right, shared, skipped } from '../shared.ts'

const tensors = (record: Readonly<Record<string, readonly number[]>>): Tensors =>
  new Map(Object.entries(record).map(([name, data]) => [name, { shape: [data.length], data: Float32Array.from(data) }]))

/** A file with this header text and so many bytes of data; the length field can lie. */
const file = (header: string | Uint8Array, dataBytes = 0, length?: bigint): Uint8Array => {
  const json = typeof header === 'string' ? new TextEncoder().encode(header) : header
  const bytes = new Uint8Array(8 + json.length + dataBytes)
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(json.length), true)
  bytes.set(json, 8)
  return bytes
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

test('the bytes of a file', () => {
  const bytes = encode(
    new Map([
      ['b', { shape: [2, 1], data: Float32Array.of(1, -2) }],
      ['a', { shape: [], data: Float32Array.of(0.5) }],
    ]),
    { z: '1', format: 'mixtrain' },
  )
  const header =
    '{"__metadata__":{"format":"mixtrain","z":"1"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},' +
    '"b":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]}}'
  const padded = Math.ceil(header.length / 8) * 8
  assert.equal([...bytes.subarray(0, 8)], [padded, 0, 0, 0, 0, 0, 0, 0])
  assert.is(text(bytes.subarray(8, 8 + padded)), header.padEnd(padded, ' '))
  assert.equal([...bytes.subarray(8 + padded)], [0, 0, 0, 63, 0, 0, 128, 63, 0, 0, 0, 192])
  assert.is(text(encode(new Map()).subarray(8)), '{}      ')
})

const names = fc.string({ unit: 'binary', maxLength: 8 }).filter((n) => n !== '__proto__' && n !== '__metadata__')
const weights = fc
  .array(fc.nat(3), { maxLength: 3 })
  .chain((shape) =>
    fc
      .array(fc.float(), { minLength: size(shape), maxLength: size(shape) })
      .map((data) => ({ shape, data: Float32Array.from(data) })),
  )
const contents = fc.tuple(
  fc.array(fc.tuple(names, weights), { maxLength: 6 }).map((entries) => new Map(entries)),
  fc.dictionary(names, fc.string({ unit: 'binary' }), { maxKeys: 4 }),
)

test('decode after encode is the identity, for every order of the tensors and at every alignment', () => {
  fc.assert(
    fc.property(contents, fc.nat(7), ([given, metadata], shift) => {
      const bytes = encode(given, metadata)
      assert.is(bytes.length % 4, 0)
      assert.equal(encode(new Map([...given].reverse()), Object.fromEntries(Object.entries(metadata).reverse())), bytes)
      const shifted = new Uint8Array(bytes.length + 8)
      shifted.set(bytes, shift)
      const decoded = right(decode(shifted.subarray(shift, shift + bytes.length), 'f'))
      assert.equal({ ...decoded.metadata }, { ...metadata })
      assert.is(decoded.tensors.size, given.size)
      for (const [name, { shape, data }] of given) {
        assert.equal(decoded.tensors.get(name)?.shape, shape)
        assert.equal([...(decoded.tensors.get(name)?.data ?? [])], [...data])
      }
      assert.equal(encode(decoded.tensors, decoded.metadata), bytes)
    }),
    { numRuns: 500 },
  )
})

test('a Node Buffer decodes to arrays of its own', () => {
  const bytes = Buffer.from(encode(tensors({ a: [1, 2] })))
  const { tensors: decoded } = right(decode(bytes, 'f'))
  bytes.fill(0)
  assert.equal([...(decoded.get('a')?.data ?? [])], [1, 2])
})

test('encode refuses what it could not read back', () => {
  const a = { shape: [3], data: new Float32Array(2) }
  assert.throws(() => encode(new Map([['a', a]])), 'safetensors: "a" [3] has 2 elements')
  assert.throws(() => encode(tensors({ __metadata__: [1] })), 'safetensors: the name __metadata__ is reserved')
  assert.throws(() => encode(new Map([['__proto__', { shape: [], data: new Float32Array(1) }]])), /is reserved/)
})

const entry = (shape: string, from: number | string, to: number | string, dtype = 'F32'): string =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${from},${to}]}`

const BAD: readonly (readonly [string, Uint8Array, string | RegExp])[] = [
  ['an empty file', new Uint8Array(), 'f (byte 0): expected 8 bytes of header length, found 0'],
  ['a file of 7 bytes', new Uint8Array(7), 'f (byte 7): expected 8 bytes of header length, found 7'],
  [
    'a header longer than the file',
    file('{}', 0, 3n),
    'f (byte 10): the file is truncated: expected 3 bytes of header, found 2',
  ],
  [
    'a header of gigabytes',
    file('{}', 0, 2n ** 33n),
    'f (bytes 0-7, header length): expected a header of at most 100000000 bytes, found a length of 8589934592',
  ],
  [
    'a header of 2^64 - 1 bytes',
    file('{}', 0, 2n ** 64n - 1n),
    /^f \(bytes 0-7, header length\): .* found a length of 18446744073709551615$/,
  ],
  ['no header', file(''), 'f (byte 8): expected { at the beginning of the header, found ""'],
  [
    'bytes that are not UTF-8',
    file(Uint8Array.of(0x7b, 0xff, 0x7d)),
    'f (bytes 8-10, header): expected UTF-8, found other bytes',
  ],
  ['text that is not JSON', file('{"a":}'), /^f \(bytes 8-13, header\): expected JSON: "SyntaxError/],
  ['an open string', file('{"a'), /expected JSON/],
  ['an open escape', file('{"\\'), /expected JSON/],
  ['an escape that is none', file('{"\\x":1}'), /expected JSON/],
  ['text after the object', file('{}x'), /expected JSON/],
  ['a closing bracket too many', file('{}]"a":1'), /expected JSON/],
  ['an array', file('[]'), 'f (byte 8): expected { at the beginning of the header, found "["'],
  ['white space before the object', file(' {}'), 'f (byte 8): expected { at the beginning of the header, found " "'],
  ['a byte order mark', file('\ufeff{}'), 'f (byte 8): expected { at the beginning of the header, found "\ufeff"'],
  ['null', file('null'), 'f (byte 8): expected { at the beginning of the header, found "n"'],
  [
    'a name twice',
    file(`{"a":${entry('[1]', 0, 4)},"a":${entry('[1]', 0, 4)}}`, 4),
    'f (header): the key "a" occurs twice',
  ],
  ['a name twice, once escaped', file('{"a\\"":1, "\\u0061\\u0022" : 2}'), 'f (header): the key "a\\"" occurs twice'],
  ['a field twice', file('{"a":{"shape":[1],"dtype":"F32","shape":[2]}}'), 'f (header): the key "shape" occurs twice'],
  ['metadata twice', file('{"__metadata__":{"k":"1","k":"2"}}'), 'f (header): the key "k" occurs twice'],
  ['a prototype', file(`{"__proto__":${entry('[1]', 0, 4)}}`, 4), 'f (header): the key "__proto__" is not allowed'],
  [
    'a prototype in the metadata',
    file('{"__metadata__":{"\\u005f_proto__":"x"}}'),
    'f (header): the key "__proto__" is not allowed',
  ],
  ['deep nesting', file(`{"a":${'['.repeat(100_000)}`), 'f (header): the header is nested deeper than 3 levels'],
  [
    'a number in the metadata',
    file('{"__metadata__":{"epoch":3}}'),
    /^f \(__metadata__\): expected strings, .* at "epoch"/,
  ],
  ['metadata that are no object', file('{"__metadata__":"x"}'), /^f \(__metadata__\): expected strings/],
  ['metadata null', file('{"__metadata__":null}'), /^f \(__metadata__\): expected strings/],
  [
    'a number for a tensor',
    file('{"a":3}'),
    /^f \(tensor "a"\): expected dtype, shape and data_offsets, found something else/,
  ],
  ['no dtype', file('{"a":{"shape":[1],"data_offsets":[0,4]}}', 4), /^f \(tensor "a"\): .* at "dtype"/],
  [
    'one offset',
    file('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4]}}', 4),
    /^f \(tensor "a"\): .* at "data_offsets/,
  ],
  [
    'another field',
    file('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}', 4),
    /^f \(tensor "a"\): .*"x"/,
  ],
  [
    'an unknown dtype',
    file(`{"a":${entry('[1]', 0, 4, 'F31')}}`, 4),
    'f (tensor "a"): expected a dtype of the format, found the unknown "F31"',
  ],
  ...(
    [
      ['F64', 8],
      ['F16', 2],
      ['BF16', 2],
      ['I64', 8],
      ['BOOL', 1],
    ] as const
  ).map(
    ([dtype, bytes]) =>
      [
        `a length that does not fit the dtype ${dtype}`,
        file(`{"a":${entry('[3]', 0, 4, dtype)}}`, 4),
        `f (tensor "a"): expected ${3 * bytes} bytes for shape [3], found 4 (data_offsets [0,4])`,
      ] as const,
  ),
  [
    'elements of four bits that do not fill bytes',
    file(`{"a":${entry('[3]', 0, 2, 'F4')}}`, 2),
    'f (tensor "a"): F4 elements [3] do not fill whole bytes',
  ],
  ['a negative extent', file(`{"a":${entry('[-1]', 0, 4)}}`, 4), /^f \(tensor "a"\): .* at "shape.0"/],
  ['half an extent', file(`{"a":${entry('[2,0.5]', 0, 4)}}`, 4), /^f \(tensor "a"\): .* at "shape.1"/],
  ['an unsafe extent', file(`{"a":${entry('[9007199254740993]', 0, 4)}}`, 4), /^f \(tensor "a"\): .* at "shape.0"/],
  ['an infinite extent', file(`{"a":${entry('[1e999]', 0, 4)}}`, 4), /^f \(tensor "a"\): .* at "shape.0"/],
  [
    'a shape that overflows',
    file(`{"a":${entry('[4294967296,4294967296]', 0, 4)}}`, 4),
    'f (tensor "a"): the shape has more elements than any file holds',
  ],
  [
    'a shape of gigabytes',
    file(`{"a":${entry('[1000000000]', 0, 4000000000)}}`, 4),
    'f (tensor "a"): data_offsets [0,4000000000] go past the 4 bytes of data in the file',
  ],
  [
    'offsets that run backwards',
    file(`{"a":${entry('[1]', 4, 0)}}`, 4),
    'f (tensor "a"): data_offsets [4,0] run backwards',
  ],
  ['a negative offset', file(`{"a":${entry('[1]', -4, 0)}}`, 4), /^f \(tensor "a"\): .* at "data_offsets.0"/],
  [
    'a length that does not fit the shape',
    file(`{"a":${entry('[3]', 0, 8)}}`, 8),
    'f (tensor "a"): expected 12 bytes for shape [3], found 8 (data_offsets [0,8])',
  ],
  [
    'tensors that overlap',
    file(`{"a":${entry('[2]', 0, 8)},"b":${entry('[2]', 4, 12)}}`, 12),
    'f (tensor "b"): data_offsets [4,12] overlap the tensor before',
  ],
  [
    'a gap between tensors',
    file(`{"b":${entry('[1]', 8, 12)},"a":${entry('[1]', 0, 4)}}`, 12),
    'f (tensor "b"): 4 bytes before data_offsets [8,12] belong to no tensor',
  ],
  [
    'bytes after the last tensor',
    file(`{"a":${entry('[1]', 0, 4)}}`, 6),
    'f (data byte 4): expected the end of the file after the last tensor, found 2 more bytes',
  ],
]

for (const [name, bytes, message] of BAD)
  test(`refused: ${name}`, () => {
    const found = left(decode(bytes, 'f'))
    if (typeof message === 'string') assert.is(found, message)
    else assert.match(found, message)
  })

/** A file of one tensor of this type. */
const one = (dtype: string, n: number, data: Uint8Array): Uint8Array => {
  const head = file(`{"w":${entry(`[${n}]`, 0, data.length, dtype)}}`)
  return Uint8Array.from([...head, ...data])
}
const weightsOf = (bytes: Uint8Array) => [...(right(decode(bytes, 'f')).tensors.get('w')?.data ?? [])]

test('every float16 and bfloat16 is read as the number that it is', () => {
  const words = Uint16Array.from({ length: 65536 }, (_, i) => i)
  const halves = weightsOf(one('F16', 65536, new Uint8Array(words.buffer)))
  const brains = weightsOf(one('BF16', 65536, new Uint8Array(words.buffer)))
  const bits = new DataView(new ArrayBuffer(4))
  for (let i = 0; i < 65536; i++) {
    bits.setUint32(0, i * 65536)
    assert.ok(Object.is(brains[i], bits.getFloat32(0)), `bfloat16 ${i}`)
    // IEEE 754 binary16: its exponent, moved to that of binary32; a subnormal number is a multiple of 2^-24.
    const [sign, exponent, fraction] = [i >> 15, (i >> 10) & 31, i & 1023]
    if (exponent === 0) {
      assert.ok(Object.is(halves[i], (sign === 1 ? -fraction : fraction) / 16777216), `float16 ${i}`)
      continue
    }
    bits.setUint32(0, ((sign << 31) | ((exponent === 31 ? 255 : exponent + 112) << 23) | (fraction << 13)) >>> 0)
    assert.ok(Object.is(halves[i], bits.getFloat32(0)), `float16 ${i}`)
  }
})

test('float64 is read where float32 holds it, to the bit, and refused by element where not', () => {
  const wide = (...values: readonly number[]) =>
    one('F64', values.length, new Uint8Array(Float64Array.from(values).buffer))
  fc.assert(
    fc.property(fc.array(fc.float({ noNaN: true }), { minLength: 1 }), (values) => {
      assert.equal(weightsOf(wide(...values)), values)
    }),
  )
  const special = [-0, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 2 ** -149, Number.NaN]
  assert.ok(weightsOf(wide(...special)).every((x, i) => Object.is(x, special[i])))
  for (const value of [0.1, 1 + 2 ** -30, 1e300, 2 ** -150, 16777217])
    assert.is(
      left(decode(wide(1, value), 'f')),
      `f (tensor "w"): element 1 is ${value}, which float32 does not hold: save the tensors as F32`,
    )
})

test('what is no floating-point tensor is described and left out: the count of batches that PyTorch saves', () => {
  const count = new Uint8Array(BigInt64Array.of(7n).buffer)
  const header = `{"bn.num_batches_tracked":${entry('[]', 0, 8, 'I64')},"bn.weight":${entry('[2]', 8, 16)},"m":${entry('[2,4]', 16, 20, 'F4')}}`
  const bytes = Uint8Array.from([
    ...file(header),
    ...count,
    ...new Uint8Array(Float32Array.of(1.5, -2).buffer),
    1,
    2,
    3,
    4,
  ])
  const decoded = right(decode(bytes, 'f'))
  assert.equal([...decoded.tensors.keys()], ['bn.weight'])
  assert.equal([...(decoded.tensors.get('bn.weight')?.data ?? [])], [1.5, -2])
  assert.equal(Object.fromEntries(decoded.others), {
    'bn.num_batches_tracked': { dtype: 'I64', shape: [] },
    m: { dtype: 'F4', shape: [2, 4] },
  })
  assert.is(
    left(expectTensors(decoded, { 'bn.weight': [2], m: [2, 4] })),
    'f: tensor "m": expected F32, F64, F16, BF16, found F4; tensor "bn.num_batches_tracked" is not expected',
  )
})

test('files in another order, unpadded, with empty tensors and odd names are read', () => {
  const own = `{ "constructor":${entry('[1]', 4, 8)},"":${entry('[0,5]', 4, 4)}`
  const odd = `${own}, "toString" : ${entry('[1,1]', 0, 4)} } `
  const decoded = right(decode(file(odd, 8), 'f'))
  assert.equal([...decoded.tensors.keys()], ['toString', '', 'constructor'])
  assert.equal(decoded.tensors.get('')?.shape, [0, 5])
  assert.equal({ ...decoded.metadata }, {})
})

test('expected tensors: all differences in one message', () => {
  const decoded = right(decode(encode(tensors({ a: [1, 2], b: [3], toString: [4] })), 'm.safetensors'))
  assert.is(right(expectTensors(decoded, { a: [2], b: [1], toString: [1] })), decoded.tensors)
  assert.is(
    left(expectTensors(decoded, { a: [2], b: [1, 1], c: [7, 8] })),
    'm.safetensors: tensor "b": expected shape [1,1], found [1]; tensor "c" [7,8] is missing; ' +
      'tensor "toString" is not expected',
  )
})

test('no damaged file crashes the decoder or makes it allocate more than the file has', () => {
  const good = [
    encode(tensors({ a: [1, 2], 'b.weight': [3], c: [] }), { note: 'x' }),
    encode(tensors({ a: [1, 2, 3] })),
    file(`{"b":${entry('[2,1]', 4, 12)},"a":${entry('[1]', 0, 4)}}`, 12),
  ]
  const pieces = [
    '"a"',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '-',
    '.',
    '1e9',
    '4294967296',
    '"',
    '\\',
    'null',
    '"__metadata__":{}',
  ]
  fc.assert(
    fc.property(
      fc.constantFrom(...good),
      fc.array(fc.tuple(fc.nat(), fc.nat(7)), { maxLength: 3 }),
      fc.array(fc.tuple(fc.nat(), fc.nat(9), fc.constantFrom(...pieces)), { maxLength: 2 }),
      fc.option(fc.nat(), { freq: 3 }),
      fc.boolean(),
      (source, flips, splices, cut, honest) => {
        const bytes = [...source]
        let header = bytes[0]
        for (const [at, gone, piece] of splices) {
          const start = 8 + (at % header)
          const removed = bytes.splice(start, Math.min(gone, header + 8 - start), ...new TextEncoder().encode(piece))
          header += piece.length - removed.length
          if (honest) bytes[0] = header
        }
        for (const [at, bit] of flips) bytes[at % bytes.length] ^= 1 << bit
        const damaged = Uint8Array.from(cut === null ? bytes : bytes.slice(0, cut % bytes.length))
        const result = decode(damaged, 'f')
        if (E.isRight(result)) {
          const total = [...result.right.tensors.values()].reduce((n, t) => n + t.data.byteLength, 0)
          assert.ok(total < damaged.length)
        }
      },
    ),
    { numRuns: 10_000 },
  )
})

test('random headers are refused or read', () => {
  const json = fc.jsonValue({ maxDepth: 3 }).map((value) => JSON.stringify(value))
  const wild = fc.dictionary(
    fc.string({ maxLength: 3 }),
    fc.record({
      dtype: fc.constantFrom('F32', 'F16', 'I64'),
      shape: fc.array(fc.integer({ min: -1, max: 3 }), { maxLength: 3 }),
      data_offsets: fc.array(fc.integer({ min: -4, max: 40 }), { minLength: 1, maxLength: 3 }),
    }),
  )
  fc.assert(
    fc.property(
      fc.oneof(
        json,
        fc.string(),
        wild.map((w) => JSON.stringify(w)),
      ),
      fc.nat(40),
      (header, n) => {
        const result = decode(file(header, n), 'f')
        if (E.isRight(result))
          assert.is(
            n,
            Object.values(JSON.parse(header) as Record<string, { data_offsets?: readonly number[] }>).reduce(
              (m, { data_offsets: [from, to] = [0, 0] }) => m + to - from,
              0,
            ),
          )
      },
    ),
    { numRuns: 5000 },
  )
})

test('the real models are read', () => {
  const shapes = {
    '1.weight': [40, 784],
    '1.bias': [40],
    '3.weight': [30, 40],
    '3.bias': [30],
    '5.weight': [10, 30],
    '5.bias': [10],
  }
  for (const [name, count] of [
    ['mixtrain_small_0.3', 8],
    ['mlp_tanh', 6],
    ['mnistfc_256x2', 6],
    ['randconv_a', 8],
    ['resnet_s', 16],
  ] as const) {
    const path = shared(`models/${name}.safetensors`)
    if (path === undefined) {
      skipped('the real models are read', `shared/models/${name}.safetensors is absent`)
      continue
    }
    const decoded = right(decode(readFileSync(path), path))
    assert.is(decoded.tensors.size, count)
    assert.is(decoded.metadata.format, 'pt')
    for (const { shape, data } of decoded.tensors.values()) {
      assert.is(data.length, size(shape))
      assert.ok(data.every((x) => Math.abs(x) < 10))
    }
    const again = right(decode(encode(decoded.tensors, decoded.metadata), path))
    for (const [tensor, { data }] of decoded.tensors) assert.equal(again.tensors.get(tensor)?.data, data)
    if (name === 'mlp_tanh') assert.ok(E.isRight(expectTensors(decoded, shapes)))
  }
})

test.run()
