import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend, Data } from '../../src/compile/backend.ts'
import { compile, evaluate } from '../../src/compile/run.ts'
import { interval } from '../../src/core/op.ts'
import type { Rounding } from '../../src/core/rounding.ts'
import * as S from '../../src/core/shape.ts'
import type { Apply, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { boundsOf, crown, crownIbp, forward, ibp, symbolic, zonotope } from '../../src/robust/bounds.ts'
import { random } from '../backend/wasm-programs.ts'
import { right } from '../shared.ts'
import { exactly, exactRun, float32Run, isAtLeast, isAtMost, type Layer, minus, plus } from './dyadic.ts'

const METHODS = {
  ibp,
  symbolic,
  crown,
  'crown-ibp': crownIbp,
  forward,
  zonotope,
} as const
const SEMANTICS = ['real', 'deployed'] as const

let simd: Backend
let doubles: Backend
test.before(async () => {
  simd = right(await wasm({ threads: 1 })())
  doubles = reference()
})
test.after(() => {
  simd.dispose()
  doubles.dispose()
})

// ---- networks as graphs and as lists of terms ---------------------------------------------------------------------------

interface Architecture {
  readonly input: S.Shape
  /** Shapes of weights and biases, in turns. */
  readonly shapes: readonly S.Shape[]
  readonly network: (parameters: readonly Tensor[]) => Apply
  readonly layers: (parameters: readonly Float32Array[]) => readonly Layer[]
}

const dense = (w: Float32Array, b: Float32Array, from: number): Layer => ({
  outputs: Array.from(b, (bias, j) => ({
    terms: Array.from({ length: from }, (_, k) => [w[j * from + k], k] as const),
    bias,
  })),
})

/** A convolution of [c, h, h] by windows of k x k; taps outside the map are no terms. */
const windows = (
  w: Float32Array,
  b: Float32Array,
  c: number,
  h: number,
  k: number,
  stride: number,
  pad: number,
): Layer => {
  const y = Math.floor((h + 2 * pad - k) / stride) + 1
  return {
    outputs: Array.from({ length: b.length * y * y }, (_, at) => {
      const [o, i, j] = [Math.floor(at / (y * y)), Math.floor(at / y) % y, at % y]
      const terms: (readonly [number, number])[] = []
      for (let ch = 0; ch < c; ch++)
        for (let p = 0; p < k; p++)
          for (let q = 0; q < k; q++) {
            const [r, s] = [i * stride - pad + p, j * stride - pad + q]
            if (r >= 0 && r < h && s >= 0 && s < h)
              terms.push([w[((o * c + ch) * k + p) * k + q], (ch * h + r) * h + s])
          }
      return { terms, bias: b[o] }
    }),
  }
}

const affine = (x: Tensor, w: Tensor, b: Tensor): Tensor => O.add(O.matmul(x, w, { transB: true }), b)

const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  dense: {
    input: [3],
    shapes: [[5, 3], [5], [4, 5], [4], [3, 4], [3]],
    network:
      ([w1, b1, w2, b2, w3, b3]) =>
      (x) =>
        affine(O.relu(affine(O.relu(affine(x as Tensor, w1, b1)), w2, b2)), w3, b3) as typeof x,
    layers: ([w1, b1, w2, b2, w3, b3]) => [dense(w1, b1, 3), dense(w2, b2, 5), dense(w3, b3, 4)],
  },
  windows: {
    input: [1, 4, 4],
    shapes: [[2, 1, 3, 3], [2], [2, 2, 2, 2], [2], [3, 8], [3]],
    network: ([w1, b1, w2, b2, w3, b3]) => {
      const channels = (b: Tensor) => O.reshape(b, [2, 1, 1])
      return (x) => {
        const h = O.relu(O.add(O.conv2d(x as Tensor, w1, { padding: 1 }), channels(b1)))
        const g = O.relu(O.add(O.conv2d(h, w2, { stride: 2 }), channels(b2)))
        return affine(O.reshape(g, [g.shape[0], 8]), w3, b3) as typeof x
      }
    },
    layers: ([w1, b1, w2, b2, w3, b3]) => [
      windows(w1, b1, 1, 4, 3, 1, 1),
      windows(w2, b2, 2, 4, 2, 2, 0),
      dense(w3, b3, 8),
    ],
  },
}

/** All methods' bounds of the outputs, and of the first output less the others, in one plan. */
const prepare = async (backend: Backend, a: Architecture, rounding: Rounding) => {
  const shape = [1, ...a.input]
  const [lower, upper] = [O.input('lower', shape), O.input('upper', shape)] as readonly Tensor[]
  const parameters = a.shapes.map((s, i): Tensor => O.input(`p${i}`, s))
  const spec = O.constant([1, -1, 0, 1, 0, -1], [2, 1, 3])
  const outputs = Object.values(METHODS).flatMap((method) => {
    const bounded = boundsOf(method)(a.network(parameters), interval(lower, upper), rounding)
    const [out, rows] = [bounded.output(), bounded.rows(spec)]
    return [out.lower, out.upper, rows.lower, rows.upper]
  })
  const f = await compile(backend)(outputs, [lower, upper, ...parameters])
  const buffers = [lower, upper, ...parameters, ...outputs].map((x) => backend.alloc(S.size(x.shape)))
  const given = 2 + parameters.length
  return {
    run: async (data: readonly Float32Array[]): Promise<Readonly<Record<string, readonly Data[]>>> => {
      data.forEach((d, i) => {
        backend.write(buffers[i], d)
      })
      f.run(buffers)
      const all: Data[] = []
      for (const b of buffers.slice(given)) all.push((await backend.read(b)).slice())
      return Object.fromEntries(Object.keys(METHODS).map((name, i) => [name, all.slice(4 * i, 4 * i + 4)]))
    },
    close: () => {
      for (const b of buffers) backend.free(b)
      f.release()
    },
  }
}

// ---- numbers that are hard on float32 -----------------------------------------------------------------------------------

type Next = () => number

/** Weights of one kind: ordinary, of very different sizes, nearly cancelling in pairs, or mostly subnormal. */
const KINDS = ['ordinary', 'spread', 'cancelling', 'tiny'] as const
const numbers = (kind: (typeof KINDS)[number], n: number, next: Next): Float32Array => {
  const out = new Float32Array(n)
  const unit = () => 2 * next() - 1
  for (let i = 0; i < n; i++) {
    if (kind === 'ordinary') out[i] = unit()
    else if (kind === 'spread') out[i] = unit() * 2 ** Math.floor(40 * next() - 20)
    else if (kind === 'tiny') out[i] = unit() * 2 ** -Math.floor(60 + 90 * next())
    else out[i] = i % 2 === 1 && next() < 0.8 ? -out[i - 1] * (1 + 2 ** -20 * unit()) : unit() * 1000
  }
  return out
}

interface Case {
  readonly data: readonly Float32Array[]
  readonly points: readonly (readonly number[])[]
  readonly layers: readonly Layer[]
}

const caseOf = (a: Architecture, kind: (typeof KINDS)[number], next: Next): Case => {
  const size = S.size(a.input)
  const centre = numbers(kind === 'tiny' && next() < 0.5 ? 'ordinary' : kind, size, next)
  const radius = next() < 0.2 ? 0 : 2 ** -Math.floor(20 * next())
  const reach = centre.map((c) => Math.abs(c) * radius * next())
  const [lower, upper] = [centre.map((c, i) => c - reach[i]), centre.map((c, i) => c + reach[i])]
  const parameters = a.shapes.map((s) => numbers(kind, S.size(s), next))
  const points = Array.from({ length: 4 }, (_, t) =>
    Array.from(lower, (l, i) => {
      const share = t < 2 ? Math.round(next()) : next()
      return Math.min(upper[i], Math.max(l, Math.fround(l + share * (upper[i] - l))))
    }),
  )
  return { data: [lower, upper, ...parameters], points, layers: a.layers(parameters) }
}

/** How many of the true values lie outside the bounds: outputs, then the two differences. NaN bounds claim nothing. */
const violations = (bounds: readonly Data[], y: readonly ReturnType<typeof exactly>[]): number => {
  const [lower, upper, below, above] = bounds
  const outside = (l: number, v: ReturnType<typeof exactly>, u: number) =>
    Number((!Number.isNaN(l) && !isAtLeast(v, l)) || (!Number.isNaN(u) && !isAtMost(v, u)))
  const single = y.reduce((n, v, i) => n + outside(lower[i], v, upper[i]), 0)
  return [1, 2].reduce((n, j) => n + outside(below[j - 1], plus(y[0], minus(y[j])), above[j - 1]), single)
}

const NETWORKS = { dense: 700, windows: 120 } as const

for (const [name, a] of Object.entries(ARCHITECTURES))
  test(`${name}: no exact value and no float32 execution leaves outward bounds, on float32 and on doubles`, async () => {
    const next = random(41)
    const prepared = await Promise.all(
      [simd, doubles].flatMap((b) => SEMANTICS.map((s) => prepare(b, a, { outward: s }))),
    )
    const nearest = await prepare(simd, a, 'none')
    const [caught, finite, all] = [{ real: 0, deployed: 0 }, { n: 0 }, { n: 0 }]
    try {
      for (let i = 0; i < NETWORKS[name as keyof typeof NETWORKS]; i++) {
        const kind = KINDS[i % KINDS.length]
        const { data, points, layers } = caseOf(a, kind, next)
        const outward = []
        for (const p of prepared) outward.push(await p.run(data))
        const plain = await nearest.run(data)
        for (const x of points) {
          const real = exactRun(layers, x)
          const executed = Array.from({ length: 2 }, () => float32Run(layers, x, next))
          for (const [method, bounds] of Object.entries(plain)) {
            caught.real += violations(bounds, real)
            for (const y of executed)
              if (y.every(Number.isFinite)) caught.deployed += violations(bounds, y.map(exactly))
            outward.forEach((o, k) => {
              const where = `${kind} network ${i}, ${method}, ${k < 2 ? 'float32' : 'doubles'}, ${SEMANTICS[k % 2]}`
              assert.is(violations(o[method], real), 0, `${where}: exact`)
              all.n += o[method][0].length
              finite.n += [...o[method][0]].filter(Number.isFinite).length
              if (SEMANTICS[k % 2] === 'real') return
              for (const y of executed) {
                // An execution that overflows has no bounds.
                if (y.every(Number.isFinite)) assert.is(violations(o[method], y.map(exactly)), 0, `${where}: executed`)
                else assert.not.ok([...o[method][0]].every(Number.isFinite), `${where}: overflow`)
              }
            })
          }
        }
      }
    } finally {
      for (const p of [...prepared, nearest]) p.close()
    }
    // The cases bite: bounds rounded to nearest are left, by exact values and by executions.
    assert.ok(caught.real > 20 && caught.deployed > 100, JSON.stringify(caught))
    assert.ok(finite.n > 0.95 * all.n, `${finite.n} of ${all.n} bounds are finite`)
  })

/** Lower bounds of sum w x + b at the point x = (1, ..., 1), by each method. */
const certified = async (
  backend: Backend,
  rounding: Rounding,
  w: readonly number[],
  b: number,
): Promise<readonly number[]> => {
  const x = O.constant(Array(w.length).fill(1), [1, w.length]) as Tensor
  const outputs = Object.values(METHODS).map((method) => {
    const network = ((z: Tensor) => affine(O.relu(z), O.constant(w, [1, w.length]), O.constant([b], [1]))) as Apply
    return boundsOf(method)(network, interval(x, x), rounding).rows(O.constant([1], [1, 1, 1])).lower
  })
  return (await evaluate(backend)(outputs)).map(([lower]) => lower)
}

test('a false claim that float32 bounds certify is refused: large weights that cancel', async () => {
  // 2^25 - 1 is 2^25 in float32, so that in some orders the sum of -1/2 comes out as 1/2.
  const orders = [
    [2 ** 25, -1, -(2 ** 25)],
    [-1, 2 ** 25, -(2 ** 25)],
    [-(2 ** 25), -1, 2 ** 25],
  ]
  let fooled = 0
  for (const w of orders) {
    fooled += (await certified(simd, 'none', w, 0.5)).filter((lower) => lower > 0).length
    for (const backend of [simd, doubles])
      for (const outward of SEMANTICS)
        for (const lower of await certified(backend, { outward }, w, 0.5)) assert.ok(lower <= -0.5, `${w}: ${lower}`)
  }
  assert.ok(fooled >= 4, `${fooled} false certificates`)
})

test('a claim that is true of real numbers and false of some order of float32 sums is real, not deployed', async () => {
  const [w, b] = [[2 ** 25, 1, -(2 ** 25)], -0.5]
  const next = random(3)
  const layer: Layer = { outputs: [{ terms: w.map((v, k) => [v, k] as const), bias: b }] }
  const executions = Array.from({ length: 50 }, () => float32Run([layer], [1, 1, 1], next)[0])
  assert.ok(executions.some((y) => y <= 0) && executions.some((y) => y > 0))
  for (const lower of await certified(doubles, { outward: 'real' }, w, b)) assert.ok(lower <= 0.5)
  for (const backend of [simd, doubles])
    for (const lower of await certified(backend, { outward: 'deployed' }, w, b))
      assert.ok(lower <= Math.min(...executions))
})

test('executions of transposed convolutions are sums, too', async () => {
  const w = [2 ** 25, 1, -(2 ** 25)]
  const x = O.constant([1, 1, 1], [1, 3, 1, 1])
  // 2^25 + 1 is 2^25 in float32: the sum of 1/2 may come out as -1/2.
  const network = ((z: Tensor) => O.sub(O.convTranspose2d(O.relu(z), O.constant(w, [3, 1, 1, 1])), 0.5)) as Apply
  for (const backend of [simd, doubles])
    for (const [name, method] of Object.entries(METHODS)) {
      const bounded = boundsOf(method)(network, interval(x, x), { outward: 'deployed' })
      const [[lower], [row]] = await evaluate(backend)([
        bounded.output().lower,
        bounded.rows(O.constant([1], [1, 1, 1, 1, 1])).lower,
      ])
      assert.ok(lower <= -0.5 && row <= -0.5, `${name}: ${lower}, ${row}`)
    }
})

test('nothing is claimed where a sum may overflow', async () => {
  const w = [2 ** 127, 2 ** 127, -(2 ** 127)]
  const layer: Layer = { outputs: [{ terms: w.map((v, k) => [v, k] as const), bias: 1 }] }
  const next = random(5)
  const executions = Array.from({ length: 50 }, () => float32Run([layer], [1, 1, 1], next)[0])
  assert.ok(executions.some((y) => !Number.isFinite(y)))
  for (const backend of [simd, doubles])
    for (const outward of SEMANTICS)
      for (const lower of await certified(backend, { outward }, w, 1)) assert.is(lower, Number.NEGATIVE_INFINITY)
})

test.run()
