import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { ibp, linearBounds } from '../../src/bounds/linear-bounds.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { evaluate } from '../../src/compile/run.ts'
import { vjp } from '../../src/compile/vjp.ts'
import { key } from '../../src/core/key.ts'
import type { Rounding } from '../../src/core/rounding.ts'
import * as S from '../../src/core/shape.ts'
import type { Apply, Operand, Tensor } from '../../src/core/tensor.ts'
import { conv, dense, flatten, initialize, relu, sequential } from '../../src/nn/layers.ts'
import * as O from '../../src/ops/index.ts'
import { boxAround, generic } from '../bounds/networks.ts'
import { right } from '../shared.ts'

const oracle = reference()
let fast: Backend
test.before(async () => {
  fast = right(await wasm({ threads: 1 })())
})
test.after(() => {
  fast.dispose()
  oracle.dispose()
})

const close = (a: ArrayLike<number>, b: ArrayLike<number>, tolerance: number, what: string): void => {
  assert.is(a.length, b.length)
  for (let i = 0; i < a.length; i++)
    assert.ok(Math.abs(a[i] - b[i]) <= tolerance * (1 + Math.abs(b[i])), `${what}: element ${i}, ${a[i]} and ${b[i]}`)
}

// ---- groups ----------------------------------------------------------------------------------------------------------

const small = fc.integer({ min: 1, max: 3 })
const geometries = fc.record({
  groups: fc.integer({ min: 2, max: 4 }),
  ins: small,
  outs: small,
  stride: fc.tuple(small, small),
  padding: fc.tuple(...[0, 1, 2, 3].map(() => fc.integer({ min: 0, max: 2 }))),
  dilation: fc.tuple(fc.integer({ min: 1, max: 2 }), fc.integer({ min: 1, max: 2 })),
})

test('channels in groups: values and gradients are those of the whole weights with zeros between groups', () =>
  fc.assert(
    fc.asyncProperty(geometries, async ({ groups, ins, outs, stride, padding, dilation }) => {
      const options = { stride, padding: padding as unknown as readonly [number, number, number, number], dilation }
      const x = O.input('x', [2, groups * ins, 7, 8]) as Tensor
      const w = O.input('w', [groups * outs, ins, 3, 2]) as Tensor
      const y = O.conv2d(x, w, { ...options, groups })
      const ct = O.input('ct', y.shape) as Tensor
      const whole = O.conv2d(x, O.ungrouped(w, y.attrs as O.Conv), options)
      const outputs = [y, whole].flatMap((z) => [z, ...vjp([z], [ct], [x, w])])
      const feeds = new Map([x, w, ct].map((t, i) => [t, generic(S.size(t.shape), 3 + i)]))
      for (const backend of [oracle, fast]) {
        const narrow = new Map([...feeds].map(([t, d]) => [t, backend === fast ? Float32Array.from(d) : d]))
        const got = await evaluate(backend)(outputs, narrow)
        for (const k of [0, 1, 2]) close(got[k], got[k + 3], backend === fast ? 1e-5 : 1e-12, `result ${k}`)
      }
    }),
    { numRuns: 25, seed: 7 },
  ))

/** Two convolutions with channels in groups and a depthwise one, with the weights given or filled up with zeros. */
const separable = (whole: boolean) => {
  const [a, b, c] = [
    [O.input('a', [4, 2, 3, 3]), { stride: 2, padding: 1, groups: 2 }],
    [O.input('b', [4, 1, 3, 3]), { padding: 1, groups: 4 }],
    [O.input('c', [6, 2, 2, 2]), { groups: 2 }],
  ] as readonly (readonly [Tensor, O.ConvOptions & { readonly groups: number }])[]
  const layer = ([w, options]: typeof a): Apply => {
    const { groups, ...rest } = options
    return (x) =>
      O.relu(
        whole ? O.conv2d(x as Operand, O.ungrouped(w, { groups } as O.Conv), rest) : O.conv2d(x as Operand, w, options),
      ) as typeof x
  }
  const out = O.input('out', [6 * 9, 3]) as Tensor
  const network: Apply = (x) => {
    const y = [a, b, c].reduce((z, l) => layer(l)(z), x)
    return O.matmul(O.reshape(y, [y.shape[0], 54]) as Operand, out) as typeof x
  }
  return { network, weights: [a[0], b[0], c[0], out] }
}

test('channels in groups: bounds of every method are those of the whole weights, rounded outward or not', async () => {
  const shape = [2, 4, 8, 8]
  const { box, feeds, points } = boxAround(shape, 0.05, 11)
  const ends = async (
    whole: boolean,
    bounder: ReturnType<typeof linearBounds>,
    rounding: Rounding,
    backend: Backend,
  ) => {
    const { network, weights } = separable(whole)
    const x = O.input('x', shape) as Tensor
    const bounds = bounder(network(x), new Map([[x, box]]), undefined, rounding).output()
    const all = new Map([...feeds, ...weights.map((w, i) => [w, generic(S.size(w.shape), 90 + i, 0.5)] as const)])
    const f32 = new Map([...all].map(([t, d]) => [t, Float32Array.from(d)]))
    const inside = points(6).map((p) => Float32Array.from(p))
    const outputs = [bounds.lower, bounds.upper]
    const values: ArrayLike<number>[] = []
    for (const p of inside) values.push(...(await evaluate(backend)([network(x)], new Map([...f32, [x, p]]))))
    return { bounds: await evaluate(backend)(outputs, f32), values }
  }
  for (const rounding of ['none', { outward: 'real' }, { outward: 'deployed' }] as const)
    for (const bounder of [
      ibp,
      linearBounds({ slope: 'adaptive', hidden: 'own' }),
      linearBounds({ slope: 'same', hidden: 'ibp' }),
    ])
      for (const backend of [oracle, fast]) {
        const grouped = await ends(false, bounder, rounding, backend)
        const whole = await ends(true, bounder, rounding, backend)
        for (const k of [0, 1]) close(grouped.bounds[k], whole.bounds[k], 2e-4, `${JSON.stringify(rounding)} end ${k}`)
        for (const v of grouped.values)
          for (let i = 0; i < v.length; i++) {
            const slack = rounding === 'none' ? 1e-4 : 0
            assert.ok(v[i] >= grouped.bounds[0][i] - slack && v[i] <= grouped.bounds[1][i] + slack)
          }
      }
})

test('a depthwise layer has a filter for each channel, and the fan-in of one', () => {
  const built = sequential(conv(6, 3, 1, 1, 3), relu, flatten, dense(2))([3, 5, 5])
  assert.equal(built.parameters['0.weight'].shape, [6, 1, 3, 3])
  assert.is(built.parameters['0.weight'].fanIn, 9)
  const start = initialize(key(1), built.parameters)
  assert.ok(Math.max(...start['0.weight'].map(Math.abs)) > 0.3)
  assert.throws(() => conv(6, 3, 1, 1, 4)([3, 5, 5]), /4 groups do not divide 3 and 6 channels/)
  assert.throws(
    () => O.conv2d(O.input('x', [1, 4, 5, 5]), O.input('w', [3, 2, 3, 3]), { groups: 2 }),
    /3 output channels cannot be dealt to 2 groups/,
  )
  assert.throws(
    () => O.conv2d(O.input('x', [1, 3, 5, 5]), O.input('w', [3, 2, 3, 3]), { groups: 2 }),
    /the weights expect 2 groups of 2/,
  )
})

test.run()
