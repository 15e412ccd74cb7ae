import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Backend } from '../../src/compile/backend.ts'
import type { Instruction } from '../../src/compile/instruction.ts'
import { plan } from '../../src/compile/plan.ts'
import { grad } from '../../src/compile/vjp.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import { add, conv2d, conv2dInput, input, matmul, mul, relu, reshape, step, sum } from '../../src/ops/index.ts'
import { open, randomArray, right } from './wasm-programs.ts'

const test = suite('biases and relu by the kernel itself')

interface Case {
  readonly name: string
  readonly inputs: readonly Tensor[]
  readonly outputs: readonly Tensor[]
  /** Instructions with an epilogue that are expected. */
  readonly finished: number
}

const conv = (n: number, c: number, o: number, rectified: boolean, gradients: boolean): Case => {
  const [x, w, b] = [input('x', [n, c, 9, 9]), input('w', [o, c, 3, 3]), input('b', [o])]
  const before = add(conv2d(x, w, { stride: 2, padding: 1 }), reshape(b, [o, 1, 1])) as Tensor
  const y = rectified ? relu(before) : before
  const loss = sum(mul(y, y))
  return {
    name: `conv ${n} x ${c} -> ${o}${rectified ? ', relu' : ''}${gradients ? ', gradients' : ''}`,
    inputs: [x, w, b],
    outputs: gradients ? [loss, ...grad(loss, [x, w, b])] : [y],
    finished: 1,
  }
}

const product = (m: number, k: number, n: number, rectified: boolean, transB: boolean): Case => {
  const [x, w, b] = [input('x', [m, k]), input('w', transB ? [n, k] : [k, n]), input('b', [n])]
  const before = add(b, matmul(x as Tensor, w as Tensor, { transB })) as Tensor
  return {
    name: `matmul ${m} x ${k} x ${n}${transB ? ' B^T' : ''}${rectified ? ', relu' : ''}`,
    inputs: [x, w, b],
    outputs: [rectified ? relu(before) : before],
    finished: 1,
  }
}

const adjoint = (n: number): Case => {
  const [y, w, b] = [input('y', [n, 5, 4, 4]), input('w', [5, 3, 3, 3]), input('b', [3])]
  const g = { stride: [2, 2], pad: [1, 1], dilation: [1, 1], x: [8, 8], w: [3, 3], y: [4, 4] } as const
  return {
    name: `conv2dInput ${n}`,
    inputs: [y, w, b],
    outputs: [relu(add(conv2dInput(y, w, g), reshape(b, [3, 1, 1])) as Tensor)],
    finished: 1,
  }
}

/** The sum is needed elsewhere, so that relu (or all of it) stays outside. */
const shared = (): readonly Case[] => {
  const [x, w, b] = [input('x', [3, 4]), input('w', [4, 5]), input('b', [5])]
  const [z, wide] = [matmul(x as Tensor, w as Tensor, {}), input('wide', [3, 5])]
  const before = add(z, b) as Tensor
  return [
    { name: 'sum kept', inputs: [x, w, b], outputs: [before, relu(before)], finished: 1 },
    { name: 'product kept', inputs: [x, w, b], outputs: [z, relu(before)], finished: 0 },
    { name: 'a whole matrix added', inputs: [x, w, wide], outputs: [add(z, wide) as Tensor], finished: 0 },
    { name: 'sum used twice', inputs: [x, w, b], outputs: [mul(relu(before), before) as Tensor], finished: 1 },
    { name: 'step of the sum', inputs: [x, w, b], outputs: [mul(relu(before), step(before)) as Tensor], finished: 1 },
    { name: 'relu alone', inputs: [x, w], outputs: [relu(z)], finished: 1 },
    { name: 'two biases', inputs: [x, w, b], outputs: [add(before, mul(b, 2)) as Tensor], finished: 1 },
    { name: 'a bias behind the relu', inputs: [x, w, b], outputs: [relu(add(relu(before), b) as Tensor)], finished: 1 },
  ]
}

/** Two steps of an ascent: the tape reads each derivative of relu before the relu that the kernel stores instead. */
const ascent = (): Case => {
  const [x, w, b, m] = [input('x', [3, 4]), input('w', [4, 5]), input('b', [5]), input('m', [3, 5])]
  const at = (z: Tensor) => add(matmul(z, w as Tensor, {}), b) as Tensor
  const first = at(x)
  const slope = mul(step(first), m) as Tensor
  const second = at(add(x, matmul(slope, w as Tensor, { transB: true })) as Tensor)
  return {
    name: 'steps of an ascent',
    inputs: [x, w, b, m],
    outputs: [mul(step(second), m) as Tensor, relu(first), relu(second)],
    finished: 2,
  }
}

const cases: readonly Case[] = [
  ...[1, 2, 8, 9, 11].flatMap((n) => [
    conv(n, 2, 5, true, false),
    conv(n, 4, 7, false, false),
    conv(n, 1, 4, true, true),
  ]),
  conv(9, 4, 6, true, true),
  ...[1, 3, 50].flatMap((m) => [product(m, 7, 10, true, true), product(m, 300, 21, false, false)]),
  product(5, 6, 1, true, false),
  ...[1, 8, 10].map(adjoint),
  ...shared(),
  ascent(),
]

/** Values with every kind of zero and what is not finite; the weights stay finite but in a few cases. */
const data = (x: Tensor, seed: number, wild: boolean): Float32Array => {
  const d = randomArray(S.size(x.shape), seed)
  d[0] = -0
  if (wild) {
    d[d.length >> 1] = Number.NaN
    d[d.length - 1] = Number.POSITIVE_INFINITY
  }
  return d
}

const run = async (b: Backend, c: Case, epilogue: boolean, wild: boolean): Promise<readonly Uint32Array[]> => {
  // Loops that are joined, too, must find what kernels finished.
  const p = plan(c.outputs, c.inputs, { epilogue, results: epilogue })
  const e = right(await b.compile(p)())
  const ins = c.inputs.map((x, i) => {
    const buffer = b.alloc(S.size(x.shape))
    b.write(buffer, data(x, i + 1, wild))
    return buffer
  })
  const outs = c.outputs.map((x) => b.alloc(S.size(x.shape)))
  b.run(e, [...ins, ...outs])
  const results: Uint32Array[] = []
  for (const o of outs) {
    const values = (await b.read(o)) as Float32Array
    // One NaN for all: which bits a NaN has is not laid down.
    results.push(new Uint32Array(values.map((v) => (Number.isNaN(v) ? Number.NaN : v)).buffer))
  }
  for (const x of [...ins, ...outs]) b.free(x)
  b.release(e)
  return results
}

const isFinished = (i: Instruction): boolean => 'end' in i && i.end !== undefined

const finished = (c: Case): number =>
  plan(c.outputs, c.inputs, { epilogue: true }).instructions.filter(isFinished).length

for (const c of cases) {
  test(`${c.name}: the bits of separate loops, on one thread and three`, async () => {
    assert.is(finished(c), c.finished)
    const [one, three] = [await open({ threads: 1 }), await open({ threads: 3 })]
    for (const wild of [false, true]) {
      const expected = await run(one, c, false, wild)
      assert.equal(await run(one, c, true, wild), expected)
      assert.equal(await run(three, c, true, wild), expected)
    }
    one.dispose()
    three.dispose()
  })
}

test('without the option no instruction is finished by its kernel', () => {
  const { instructions } = plan(cases[0].outputs, cases[0].inputs)
  assert.not(instructions.some(isFinished))
})

test.run()
