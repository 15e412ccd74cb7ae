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
