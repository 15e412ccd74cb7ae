import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { interval } from '../../src/core/op.ts'
import type { Apply, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { boundsOf, crown, ibp, symbolic } from '../../src/robust/bounds.ts'
import { random } from '../backend/wasm-programs.ts'
import { prepare } from '../ops/property.ts'
import { right } from '../shared.ts'
import { type Dyadic, exactly, isAtLeast, isAtMost, minus, plus, sign, times } from './dyadic.ts'
import { numberOf, quotient, reals } from './real.ts'

/** Products of two operands that both depend on the input, and a softmax in between and at the end: real values and float32 executions against outward bounds. */

const [TOKENS, WIDTH, CLASSES] = [3, 2, 3]
const METHODS = { ibp, symbolic, crown } as const
const SEMANTICS = ['real', 'deployed'] as const

/** What arithmetic an execution of the network is in. */
interface Arithmetic<A> {
  readonly dot: (a: readonly A[], b: readonly A[]) => A
  /** e^x / sum(e^x). */
  readonly softmax: (x: readonly A[]) => readonly A[]
}

const cut = (v: Dyadic): Dyadic => {
  const drop = BigInt(Math.max(0, v.m.toString(2).length - 300))
  return { m: v.m >> drop, e: v.e + Number(drop) }
}

const REAL: Arithmetic<Dyadic> = {
  dot: (a, b) => cut(a.reduce((s, x, i) => plus(s, times(x, b[i])), exactly(0))),
  softmax: (x) => {
    const m = x.reduce((a, b) => (sign(plus(a, minus(b))) >= 0 ? a : b))
    const e = x.map((v) => reals.exp(plus(v, minus(m))))
    const total = e.reduce(plus)
    return e.map((v) => cut(quotient(v, total)))
  },
}

const f32 = Math.fround
/** Sums in a random order; e^x off by up to 7 units in the last place. */
const float32 = (next: () => number): Arithmetic<number> => ({
  dot: (a, b) => {
    const open = a.map((x, i) => f32(x * b[i]))
    while (open.length > 1) {
      const [x] = open.splice(Math.floor(next() * open.length), 1)
      const [y] = open.splice(Math.floor(next() * open.length), 1)
      open.push(f32(x + y))
    }
    return open[0]
  },
  softmax: (x) => {
    const m = Math.max(...x)
    const e = x.map((v) => {
      const y = numberOf(reals.exp(exactly(f32(v - m))))
      return f32(y * (1 + (2 * next() - 1) * 7 * 2 ** -24))
    })
    const total = e.reduce((a, b) => f32(a + b))
    return e.map((v) => f32(v / total))
  },
})

const rowsOf = <A>(x: readonly A[], width: number): readonly (readonly A[])[] =>
  Array.from({ length: x.length / width }, (_, i) => x.slice(i * width, (i + 1) * width))
const columns = <A>(rows: readonly (readonly A[])[]): readonly (readonly A[])[] =>
  rows[0].map((_, k) => rows.map((r) => r[k]))

/** softmax(q k^T) v with q, k, v = x W, then classes and their softmax. */
const run = <A>(arithmetic: Arithmetic<A>, x: readonly A[], weights: readonly (readonly A[])[]): readonly A[] => {
  const product = (a: readonly (readonly A[])[], b: readonly (readonly A[])[]) =>
    a.map((row) => columns(b).map((c) => arithmetic.dot(row, c)))
  const [q, k, v] = weights.slice(0, 3).map((w) => product(rowsOf(x, WIDTH), rowsOf(w, WIDTH)))
  const shares = product(q, columns(k)).map(arithmetic.softmax)
  const mixed = product(shares, v).flat()
  return arithmetic.softmax(product([mixed], rowsOf(weights[3], CLASSES))[0])
}

test('attention: no real value and no float32 execution leaves outward bounds', async () => {
  const next = random(5)
  const unit = () => 2 * next() - 1
  const backends: readonly Backend[] = [right(await wasm({ threads: 1 })()), reference()]
  const shape = [1, TOKENS, WIDTH]
  const [lower, upper]: readonly Tensor[] = [O.input('l', shape), O.input('u', shape)]
  const parameters: readonly Tensor[] = [
    ...['q', 'k', 'v'].map((name): Tensor => O.input(name, [WIDTH, WIDTH])),
    O.input('classes', [TOKENS * WIDTH, CLASSES]),
  ]
  const network = ((x: Tensor) => {
    const [q, k, v] = parameters.slice(0, 3).map((w): Tensor => O.matmul(x, w))
    const mixed = O.matmul(O.softmax(O.matmul(q, k, { transB: true }) as Tensor, 2), v) as Tensor
    return O.softmax(O.matmul(O.reshape(mixed, [x.shape[0], TOKENS * WIDTH]) as Tensor, parameters[3]) as Tensor, 1)
  }) as Apply
  const kinds = SEMANTICS.flatMap((s) => Object.entries(METHODS).map(([m, method]) => ({ s, m, method })))
  const bounds = kinds.map(({ s, method }) =>
    boundsOf(method)(network, interval(lower, upper), { outward: s }).output(),
  )
  const outputs = bounds.flatMap((b) => [b.lower, b.upper])
  let [finite, all, narrow] = [0, 0, 0]
  for (const backend of backends) {
    const prepared = await prepare(backend, outputs, [lower, upper, ...parameters])
    for (let step = 0; step < 24; step++) {
      const scale = [1, 1, 2, 0.1][step % 4]
      const data = parameters.map((p) =>
        Float32Array.from({ length: p.shape.reduce((a, b) => a * b, 1) }, () => scale * unit()),
      )
      const radius = [0, 2 ** -22, 0.001, 0.05, 0.5][step % 5]
      const centre = Float32Array.from({ length: TOKENS * WIDTH }, unit)
      const [l, u] = [centre.map((c) => c - radius * next()), centre.map((c) => c + radius * next())]
      const got = await prepared.run([l, u, ...data])
      for (let t = 0; t < 3; t++) {
        const x = Array.from(l, (v, i) =>
          Math.min(u[i], Math.max(v, f32(v + (t === 0 ? Math.round(next()) : next()) * (u[i] - v)))),
        )
        const exact = run(
          REAL,
          x.map(exactly),
          data.map((d) => Array.from(d, exactly)),
        )
        const executed = run(
          float32(next),
          x,
          data.map((d) => [...d]),
        ).map(exactly)
        kinds.forEach(({ s, m }, k) => {
          const [a, b] = [got[2 * k], got[2 * k + 1]]
          all += a.length
          finite += [...a].filter((v, j) => Number.isFinite(v) && Number.isFinite(b[j])).length
          if (radius === 0) narrow = Math.max(narrow, ...[...a].map((v, j) => b[j] - v))
          for (const y of s === 'real' ? [exact] : [exact, executed])
            y.forEach((v, j) => {
              const where = `${backend.name}, ${m}, ${s}, radius ${radius}: ${numberOf(v)} and [${a[j]}, ${b[j]}]`
              assert.ok((Number.isNaN(a[j]) || isAtLeast(v, a[j])) && (Number.isNaN(b[j]) || isAtMost(v, b[j])), where)
            })
        })
      }
    }
    prepared.close()
    backend.dispose()
  }
  assert.ok(finite > 0.95 * all, `${finite} of ${all} bounds are finite`)
  assert.ok(narrow < 0.01, `bounds of a point are ${narrow} wide`)
})

test.run()
