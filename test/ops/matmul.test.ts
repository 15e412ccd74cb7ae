import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { evaluate } from '../../src/compile/run.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { interval } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { methods } from '../../src/robust/bounds.ts'
import { generic } from '../bounds/networks.ts'
import { right } from '../shared.ts'

let simd: Backend
const doubles = reference()
test.before(async () => {
  simd = right(await wasm({ threads: 2 })())
})
test.after(() => simd.dispose())

/** numpy's matmul: shape and values. */
const numpy = (a: S.Shape, b: S.Shape, x: Float32Array, y: Float32Array) => {
  const p = a.length === 1 ? [1, a[0]] : a
  const q = b.length === 1 ? [b[0], 1] : b
  const [la, lb] = [p.slice(0, -2), q.slice(0, -2)]
  const rank = Math.max(la.length, lb.length)
  const extent = (s: S.Shape, d: number) => s[d - rank + s.length] ?? 1
  const lead = Array.from({ length: rank }, (_, d) => (extent(la, d) === 1 ? extent(lb, d) : extent(la, d)))
  const [m, k, n] = [p[p.length - 2], p[p.length - 1], q[q.length - 1]]
  const values: number[] = []
  for (let s = 0; s < S.size(lead); s++) {
    const index = lead.map((_, d) => Math.floor(s / S.size(lead.slice(d + 1))) % lead[d])
    const at = (l: S.Shape) =>
      index.reduce((sum, v, d) => (extent(l, d) === 1 ? sum : sum + v * S.size(l.slice(d - rank + l.length + 1))), 0)
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++)
        values.push(
          Array.from({ length: k }, (_, l) => x[(at(la) * m + i) * k + l] * y[(at(lb) * k + l) * n + j]).reduce(
            (u, v) => u + v,
            0,
          ),
        )
  }
  const shape = [...lead, ...(a.length === 1 ? [] : [m]), ...(b.length === 1 ? [] : [n])]
  return { shape, values }
}

const FORMS: readonly (readonly [S.Shape, S.Shape])[] = [
  [
    [2, 3],
    [3, 4],
  ],
  [
    [5, 2, 3],
    [3, 4],
  ],
  [
    [2, 5, 2, 3],
    [3, 4],
  ],
  [
    [4, 3],
    [5, 3, 2],
  ],
  [
    [4, 3],
    [2, 2, 3, 2],
  ],
  [
    [5, 2, 3],
    [1, 3, 4],
  ],
  [
    [1, 2, 3],
    [5, 3, 4],
  ],
  [
    [5, 2, 3],
    [5, 3, 4],
  ],
  [
    [2, 1, 2, 3],
    [5, 3, 4],
  ],
  [
    [5, 2, 3],
    [2, 1, 3, 4],
  ],
  [
    [2, 5, 2, 3],
    [1, 1, 3, 4],
  ],
  [
    [1, 1, 1, 2, 3],
    [5, 3, 4],
  ],
  [[3], [3, 4]],
  [[3], [5, 3, 4]],
  [[5, 3], [3]],
  [[2, 5, 3], [3]],
  [[3], [3]],
  [
    [0, 2, 3],
    [3, 4],
  ],
  [
    [2, 3],
    [0, 3, 4],
  ],
]

for (const [a, b] of FORMS)
  test(`${S.show(a)} times ${S.show(b)} is what numpy has, and so are transposed operands`, async () => {
    const [x, y] = [a, b].map((s, i) => Float32Array.from(generic(S.size(s), 3 + i)))
    const { shape, values } = numpy(a, b, x, y)
    const turned = (s: S.Shape, v: Float32Array, t: boolean): Tensor => {
      const plain = O.constant([...v], s) as Tensor
      return t ? O.transposeLast(plain) : plain
    }
    for (const transA of a.length > 1 ? [false, true] : [false])
      for (const transB of b.length > 1 ? [false, true] : [false]) {
        const z = O.matmul(turned(a, x, transA), turned(b, y, transB), { transA, transB })
        assert.equal(z.shape, shape)
        for (const backend of [simd, doubles]) {
          const [got] = await evaluate(backend)([z])
          values.forEach((v, i) => {
            assert.ok(Math.abs(got[i] - v) < 1e-5, `${backend.dtype}: ${got[i]} for ${v}`)
          })
        }
      }
  })

test('extents that do not agree are refused with the shapes', () => {
  for (const [a, b, message] of [
    [[2, 3], [4, 5], /inner dimensions 3 and 4 differ/],
    [[2, 2, 3], [3, 3, 5], /batch extents \[2\] and \[3\] differ/],
    [[3], [4], /inner dimensions 3 and 4 differ/],
  ] as const)
    assert.throws(
      () => O.matmul(O.input('a', a) as Tensor, O.input('b', b) as Tensor, {}),
      (e: unknown) => e instanceof MixtrainException && message.test(e.message),
    )
})

/** Stacks whose images come first, with and without axes that are broadcast. */
const BATCHED: readonly (readonly [S.Shape, S.Shape])[] = [
  [
    [2, 2, 2, 3],
    [2, 2, 3, 2],
  ],
  [
    [2, 2, 1, 2, 3],
    [2, 2, 2, 3, 2],
  ],
  [
    [2, 1, 2, 3],
    [2, 2, 3, 2],
  ],
  [
    [1, 2, 1, 2, 3],
    [1, 3, 2],
  ],
  [
    [1, 2, 3],
    [1, 2, 3, 2],
  ],
  [
    [1, 1, 2, 2, 3],
    [1, 2, 1, 3, 2],
  ],
]

for (const [a, b] of BATCHED)
  test(`${S.show(a)} times ${S.show(b)}, one or both boxed: every method has bounds under every rounding, and they hold`, async () => {
    const [n, inputs] = [a[0], 3]
    const [p, q] = [S.size(a) / n, S.size(b) / n]
    const x: Tensor = O.input('x', [n, inputs])
    const w = O.constant(generic(inputs * (p + q), 5), [inputs, p + q]) as Tensor
    const h = O.relu(O.matmul(x, w))
    const [left, right] = [O.slice(h, [0, 0], [n, p]), O.slice(h, [0, p], [n, q])]
    const points = [a, b].map((s, i) => O.constant(generic(S.size(s), 6 + i), s) as Tensor)
    for (const boxed of [[0, 1], [0], [1]]) {
      const [u, v] = [left, right].map((z, k) => (boxed.includes(k) ? (O.reshape(z, [a, b][k]) as Tensor) : points[k]))
      const product = O.matmul(u, v)
      const y = O.reshape(product, [n, S.size(product.shape) / n]) as Tensor
      const [c, r] = [generic(n * inputs, 9), 0.125]
      const box = interval(
        O.constant(
          Array.from(c, (z) => Math.fround(z - r)),
          x.shape,
        ),
        O.constant(
          Array.from(c, (z) => Math.fround(z + r)),
          x.shape,
        ),
      )
      const at = [-1, 0.25].map((t) =>
        Float64Array.from(c, (z, i) => Math.fround(z) + 0.99 * r * (i % 2 === 0 ? t : -t)),
      )
      const values: ArrayLike<number>[] = []
      for (const z of at) values.push((await evaluate(doubles)([y], new Map([[x, z]])))[0])
      const real = { outward: 'real' } as const
      const cases = [
        ...(boxed.length > 1 ? Object.keys(methods) : ['ibp', 'crown-ibp']).map((name) => [name, 'none'] as const),
        ...(boxed.length > 1 ? (['crown-ibp', 'symbolic'] as const).map((name) => [name, real] as const) : []),
        ['crown-ibp', { outward: 'deployed' }] as const,
      ]
      const bounds = cases.map(([name, rounding]) =>
        methods[name as keyof typeof methods](y, new Map([[x, box]]), undefined, rounding).output(),
      )
      const ends = await evaluate(doubles)(bounds.flatMap(({ lower, upper }) => [lower, upper]))
      cases.forEach(([name], k) => {
        const [l, g] = [ends[2 * k], ends[2 * k + 1]]
        for (const v of values)
          Array.from(v).forEach((z, i) => {
            assert.ok(l[i] <= z + 1e-12 && z - 1e-12 <= g[i], `${name}: ${z} is not in [${l[i]}, ${g[i]}]`)
          })
        // Far from all numbers, too.
        assert.ok(
          [...l].every((z, i) => g[i] - z < 12),
          `${name}: [${l}], [${g}]`,
        )
      })
    }
  })

test('an operand without the axis of the batch is named, with the batch that it does not have', () => {
  const x: Tensor = O.input('x', [1, 6])
  const y = O.matmul(O.reshape(x, [1, 2, 3]) as Tensor, O.reshape(O.relu(x), [3, 2]) as Tensor)
  assert.throws(
    () => methods['crown-ibp'](y, new Map([[x, interval(O.full([1, 6], -1), O.full([1, 6], 1))]])).output(),
    (e: unknown) =>
      e instanceof MixtrainException &&
      e.message.includes('operand 1, [3,2], does not begin with the axis of the batch, which has 1 image,'),
  )
})

test('what mixes the images of a batch has no bounds, and the reason names the product', () => {
  const x: Tensor = O.input('x', [3, 3])
  const w = O.constant(generic(9, 1), [3, 3]) as Tensor
  const box = interval(O.full([3, 3], -1), O.full([3, 3], 1))
  for (const y of [O.matmul(w, x), O.matmul(x, w, { transA: true })])
    for (const name of ['symbolic', 'crown', 'crown-ibp'] as const)
      assert.throws(
        () => methods[name](y, new Map([[x, box]])).output(),
        (e: unknown) =>
          e instanceof MixtrainException && /matmul\(\[3,3\], \[3,3\]\).*mixes or moves the images/.test(e.message),
      )
})

test.run()
