import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { key } from '../../src/core/key.ts'
import type { Operand } from '../../src/core/tensor.ts'
import { decodeModel, encodeModel, encodeModelOnnx, type SavedModel } from '../../src/format/model.ts'
import { decode, encode } from '../../src/format/safetensors.ts'
import {
  averagePool,
  batchNorm,
  conv,
  type Description,
  dense,
  flatten,
  gelu,
  type Layer,
  layerNorm,
  leakyRelu,
  maxPool,
  normalize,
  relu,
  residual,
  sequential,
  showDescription,
  sigmoid,
  tanh,
} from '../../src/nn/layers.ts'
import { network, networks } from '../../src/nn/networks.ts'
import { mul } from '../../src/ops/index.ts'
import { left, right } from '../shared.ts'

const small = networks.small({ input: [1, 8, 8], classes: 3 })
const provenance = { epsilon: 0.1, loss: 'mixtrain', seed: -4, arithmetic: 'exact' } as const
const model: SavedModel = { network: small, parameters: small.init(key(0)), provenance }
const bytes = encodeModel(model)

test('what is encoded is decoded, and encodes to the same bytes', () => {
  for (const from of [model, { ...model, provenance: undefined }]) {
    const decoded = right(decodeModel(encodeModel(from), 'm'))
    assert.equal(decoded.parameters, from.parameters)
    assert.equal(decoded.provenance, from.provenance)
    assert.equal([decoded.network.name, decoded.network.input, decoded.network.classes], ['small', [1, 8, 8], 3])
    assert.equal(encodeModel(decoded), encodeModel(from))
  }
})

test('the metadata say what the model is', () => {
  assert.equal(right(decode(bytes, 'm')).metadata, {
    format: 'mixtrain',
    version: '1',
    network: 'small',
    input: '[1,8,8]',
    classes: '3',
    normalisation: 'none',
    epsilon: '0.1',
    loss: 'mixtrain',
    seed: '-4',
    arithmetic: 'exact',
  })
})

test('ONNX holds the same parameters and provenance', () => {
  const decoded = right(decodeModel(right(encodeModelOnnx(model)), 'm'))
  assert.equal(decoded.provenance, provenance)
  assert.equal([decoded.network.input, decoded.network.classes], [[1, 8, 8], 3])
  for (const [name, data] of Object.entries(model.parameters)) assert.equal(decoded.parameters[name], data, name)
})

const { tensors, metadata } = right(decode(bytes, 'm'))
const withMetadata = (change: Readonly<Record<string, string>>) =>
  decodeModel(encode(tensors, { ...metadata, ...change }), 'm')

test('files that are no model of a known network are refused', () => {
  const cases: readonly (readonly [Readonly<Record<string, string>>, RegExp])[] = [
    [{ format: 'pt' }, /not a model that mixtrain saved/],
    [{ version: '2' }, /version/],
    [{ network: 'smaller' }, /no network "smaller"; the nearest is small/],
    [{ network: 'toString' }, /no network "toString"/],
    [{ input: '[1,8]' }, /takes images, not \[1,8\]/],
    [{ input: '[1,2,2]' }, /does not fit/],
    [{ input: '[1,8,8' }, /expected a shape/],
    [{ input: '[1,0,8]' }, /input/],
    [{ input: '[1,12,12]' }, /expected shape/],
    [{ classes: '1' }, /classes/],
    [{ classes: '4' }, /expected shape \[4/],
    [{ classes: '1e9' }, /classes/],
    [{ normalisation: 'mean' }, /normalisation/],
    [{ epsilon: '1.5' }, /epsilon/],
    [{ seed: '0.5' }, /seed/],
    [{ arithmetic: 'fast' }, /arithmetic/],
  ]
  for (const [change, says] of cases) assert.match(left(withMetadata(change)), says)
  const plain = encode(new Map())
  assert.match(left(decodeModel(plain, 'm')), /not a model/)
  const other = network('small', sequential(conv(2, 3), relu, flatten, dense(3)), { input: [1, 8, 8], classes: 3 })
  const written = right(decode(encodeModel({ ...model, network: other, parameters: other.init(key(0)) }), 'm'))
  assert.match(left(decodeModel(encode(written.tensors, metadata), 'm')), /missing|expected shape/)
})

test('content tells the formats apart, not the name', () => {
  const onnx = right(encodeModelOnnx(model))
  assert.is(right(decodeModel(onnx, 'whatever')).network.name, 'onnx')
  assert.is(right(decodeModel(bytes, 'whatever')).network.name, 'small')
  // A name tells nothing: the same bytes are the same model under every one.
  assert.is(right(decodeModel(onnx, 'm.safetensors')).network.name, 'onnx')
  assert.is(right(decodeModel(bytes, 'm.onnx')).network.name, 'small')
  for (const nothing of [new Uint8Array(), Uint8Array.of(0, 1, 2)]) {
    for (const name of ['m.safetensors', 'm.onnx', 'm'])
      assert.match(left(decodeModel(nothing, name)), /expected a model, safetensors or ONNX, found \d bytes/)
  }
})

test("a network of one's own is written as its layers, read back, printed, and exported", () => {
  const own = network(
    'mine',
    sequential(
      residual(sequential(conv(3, 3, 1, 1), batchNorm, leakyRelu(0.1), conv(1, 3, 1, 1)), sequential()),
      maxPool(2),
      averagePool(2),
      flatten,
      dense(8),
      gelu,
      dense(6),
      tanh,
      dense(5),
      layerNorm,
      sigmoid,
      dense(4),
      relu,
      dense(3),
    ),
    { input: [1, 8, 8], classes: 3, normalization: { mean: [0.25], std: [0.5] } },
  )
  const saved: SavedModel = { network: own, parameters: own.init(key(5)), provenance: undefined }
  const bytes = encodeModel(saved)
  const read = right(decodeModel(bytes, 'mine.safetensors'))
  assert.equal(read.network.description, own.description)
  assert.equal(read.parameters, saved.parameters)
  assert.equal(encodeModel(read), bytes)
  assert.is(
    showDescription(own.description as Description),
    '(conv 3,3,1,1 - batchNorm - leakyRelu 0.1 - conv 1,3,1,1) + (identity) - maxPool 2,2,0 - averagePool 2,2,0 - flatten - dense 8 - gelu - dense 6 - tanh - dense 5 - layerNorm - sigmoid - dense 4 - relu - dense 3',
  )
  // Named networks are still their name alone; another network of such a name is not taken for it.
  const { metadata } = right(decode(encodeModel(model), 'm'))
  assert.not.ok('layers' in metadata)
  const impostor = network('small', sequential(flatten, dense(10)), { input: [1, 28, 28], classes: 10 })
  const kept = { network: impostor, parameters: impostor.init(key(1)), provenance: undefined }
  assert.equal(right(decodeModel(encodeModel(kept), 'm')).parameters, kept.parameters)
})

test('a network without a description is refused by encodeModel, in words, and written as ONNX', () => {
  const square: Layer = (input) => ({
    output: input,
    parameters: {},
    apply: () => (x) => mul(x as Operand, x as Operand) as never,
  })
  const own = network('squares', sequential(flatten, dense(4), square, dense(2)), { input: [2], classes: 2 })
  const saved: SavedModel = { network: own, parameters: own.init(key(5)), provenance: undefined }
  assert.throws(() => encodeModel(saved), /network squares is not made of layers that have a description/)
  assert.is(right(decodeModel(right(encodeModelOnnx(saved)), 'm.onnx')).network.classes, 2)
})

test('the layer normalize is read in its older spelling, too', () => {
  const layers = sequential(normalize({ mean: [0.25], std: [0.5] }), flatten, dense(2))
  const own = network('mine', layers, { input: [1, 2, 2], classes: 2 })
  const file = right(decode(encodeModel({ network: own, parameters: own.init(key(5)), provenance: undefined }), 'm'))
  const older = { ...file.metadata, layers: file.metadata.layers.replace('"normalize"', '"normalise"') }
  assert.not.equal(older, file.metadata)
  const read = right(decodeModel(encode(file.tensors, older), 'm'))
  assert.equal(read.network.description, own.description)
})

test('layers of a file are not trusted', () => {
  const own = network('mine', sequential(flatten, dense(2)), { input: [3], classes: 2 })
  const file = right(decode(encodeModel({ network: own, parameters: own.init(key(5)), provenance: undefined }), 'm'))
  const with_ = (layers: string) => left(decodeModel(encode(file.tensors, { ...file.metadata, layers }), 'm'))
  const deep = `${'{"layer":"sequential","layers":['.repeat(5000)}${']}'.repeat(5000)}`
  for (const layers of ['x', '[]', deep, '{"layer":"dense","out":-1}', '{"layer":"exec"}', '{"layer":"relu","more":1}'])
    assert.match(with_(layers), /layers: expected the description of a layer as JSON/)
  assert.match(with_('{"layer":"dense","out":3}'), /network mine gives \[3\] for \[3\], expected \[2\]/)
  assert.match(with_('{"layer":"dense","out":2}'), /metadata|tensor/)
})

test.run()
