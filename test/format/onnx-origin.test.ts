import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { order, print, tape } from '../../src/compile/tape.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { interval, node, withOrigin } from '../../src/core/op.ts'
import type { Op, Tensor } from '../../src/core/tensor.ts'
import { decodeOnnx, parameterConstants } from '../../src/format/onnx/index.ts'
import * as O from '../../src/ops/index.ts'
import { boundsOf, crown, ibp, symbolic } from '../../src/robust/bounds.ts'
import { right } from '../shared.ts'
import { modelOf, tensor } from './onnx-models.ts'

/** Nodes of a graph that was read from a file say where they are from, and nothing else changes. */

const refusal = (f: () => unknown): string => {
  try {
    f()
  } catch (e) {
    if (e instanceof MixtrainException) return e.message
    throw e
  }
  return assert.unreachable('it was not refused') as never
}

test('a refusal of bounds names the node of the file, its op, what was found and the way out', () => {
  const wide = 80_001
  const model = right(
    decodeOnnx(
      modelOf([1, wide], [['MatMul', 'x w', 'y']], [{ name: 'w', shape: [wide, 2], data: new Float32Array(2 * wide) }]),
      'wide.onnx',
    ),
  )
  const network = model.network(parameterConstants(model))
  const x = O.input('x', [1, wide]) as Tensor
  for (const method of [ibp, symbolic, crown])
    for (const outward of ['real', 'deployed'] as const) {
      const said = refusal(() => boundsOf(method)(network, interval(x, x), { outward }).output())
      assert.match(said, /matmul\(\[1,80001\], \[80001,2\]\) of node 0 "n0" \(MatMul\)/)
      assert.match(said, /sum of 8000\d terms.*hold up to 80000/)
    }
})

test('ops without a proved rule are refused by their node, with what may be done instead', () => {
  const model = right(
    decodeOnnx(
      modelOf(
        ['N', 3],
        [
          ['Gelu', 'x', 'z', { approximate: 'tanh' }],
          ['Add', 'z b', 'y'],
        ],
        [tensor('b', [3])],
        { opset: 20 },
      ),
      'g.onnx',
    ),
  )
  const network = model.network(parameterConstants(model))
  const bounded = (change: (op: Op<unknown>) => Op<unknown>) => {
    const x = O.input('x', [1, 3]) as Tensor
    const y = order([network(x)]).find(({ op }) => op === O.geluOp) as Tensor
    const z: Tensor = { ...y, op: change(y.op) }
    return refusal(() =>
      boundsOf(crown)(
        ((v: Tensor) => ({ ...z, inputs: [v] })) as never,
        interval(O.sub(x, 1) as Tensor, O.add(x, 1) as Tensor),
        { outward: 'real' },
      ).output(),
    )
  }
  const said = bounded(({ outward: _, ...op }) => op)
  assert.match(said, /gelu\(\[1,3\]\) \{approximate=tanh\} of node 0 "n0" \(Gelu\)/)
  assert.match(said, /no (lines|error bound) of it (are|is) proved; .*--rounding none/)
})

test('an origin changes neither operands, nor leaves, nor what is computed', () => {
  const [x, b]: readonly Tensor[] = [O.input('x', [2]), O.input('b', [2])]
  const y = O.relu(O.add(O.mul(x, b), O.mul(x, b)) as Tensor)
  const named = withOrigin(y, new Set([x]), 'node 7')
  assert.is(print(tape([named])), print(tape([y])))
  const all = order([named])
  assert.ok(all.includes(x) && all.includes(b))
  assert.ok(all.every((t) => (t.inputs.length === 0) === (t.origin === undefined)))
  assert.is(all.length, order([y]).length)
  // The first name stays.
  assert.is(withOrigin(node(O.negOp, [named], undefined), new Set(), 'node 8').inputs[0].origin, 'node 7')
})

test.run()
