import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { dependents } from '../../src/bounds/anatomy.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { evaluate } from '../../src/compile/run.ts'
import { interval } from '../../src/core/op.ts'
import type { Rounding } from '../../src/core/rounding.ts'
import * as S from '../../src/core/shape.ts'
import type { Apply, Tensor } from '../../src/core/tensor.ts'
import { batchNorm } from '../../src/nn/layers.ts'
import * as O from '../../src/ops/index.ts'
import { boundsOf, crown, crownIbp, ibp, intersect, symbolic } from '../../src/robust/bounds.ts'
import { ball } from '../../src/robust/perturbation.ts'
import { random } from '../backend/wasm-programs.ts'
import { right } from '../shared.ts'
import { type Dyadic, exactly, isAtLeast, isAtMost, plus, times } from './dyadic.ts'
import { exactGraph, float32Graph } from './graphs.ts'

/** Networks of which parts do not depend on the input but are computed: random ones, and the kinds that files have. */

const METHODS = { ibp, symbolic, crown, 'crown-ibp': crownIbp, intersect: intersect(symbolic, ibp) } as const
const SEMANTICS = ['real', 'deployed'] as const

let backends: Readonly<Record<string, Backend>>
test.before(async () => {
  backends = { float32: right(await wasm({ threads: 1 })()), doubles: reference() }
})
test.after(() => {
  for (const b of Object.values(backends)) b.dispose()
})

type Next = () => number
/** Numbers of one kind: ordinary, of very different sizes, or large and nearly cancelling. */
const KINDS = ['ordinary', 'spread', 'large'] as const
const numbers = (kind: (typeof KINDS)[number], n: number, next: Next): Float32Array =>
  Float32Array.from({ length: n }, () => {
    const unit = 2 * next() - 1
    if (kind === 'ordinary') return unit
    if (kind === 'spread') return unit * 2 ** Math.floor(24 * next() - 12)
    return Math.round(4 * unit) * 2 ** (20 * Math.round(next())) + (next() < 0.5 ? unit : 0)
  })

/** What makes up a network: parameters of a kind, and what is computed of them. */
const builder = (kind: (typeof KINDS)[number], next: Next) => {
  const given = new Map<Tensor, Float32Array>()
  const leaf = (shape: S.Shape, data = numbers(kind, S.size(shape), next)): Tensor => {
    if (next() < 0.15)
      return O.constant(
        Array.from(data, (v) => v + 0.1),
        shape,
      )
    const x = O.input(`p${given.size}`, shape)
    given.set(x, data)
    return x
  }
  const among = <A>(choices: readonly (() => A)[]): A => choices[Math.floor(next() * choices.length)]()
  const positive = (shape: S.Shape): Tensor => {
    const size = leaf(
      shape,
      Float32Array.from({ length: S.size(shape) }, () => 0.5 + 2 * next()),
    )
    return next() < 0.5 ? size : (O.sqrt(O.add(size, Math.fround(1e-5)) as Tensor) as Tensor)
  }
  const computed = (shape: S.Shape, depth = 1 + Math.floor(3 * next())): Tensor => {
    if (depth === 0) return leaf(shape)
    const one = () => computed(shape, depth - 1)
    const rank = shape.length
    return among<Tensor>([
      () => O.add(one(), one()),
      () => O.sub(one(), one()),
      () => O.mul(one(), one()),
      () => O.mul(one(), leaf([])),
      () => O.div(one(), positive(shape)),
      () => O.neg(one()),
      () => O.sum(leaf([3, ...shape]), 0),
      () => O.mean(computed([3, ...shape], depth - 1), 0),
      () => O.reshape(computed([S.size(shape)], depth - 1), shape),
      () => O.broadcastTo(computed(rank === 0 ? [] : [1], depth - 1), shape),
      ...(rank === 2
        ? [
            () => O.matmul(computed([shape[0], 2], depth - 1), leaf([shape[1], 2]), { transB: true }),
            () => O.transpose(computed([shape[1], shape[0]], depth - 1), [1, 0]),
          ]
        : []),
      ...(rank > 0 && shape[0] > 1
        ? [() => O.concat([computed([1, ...shape.slice(1)], depth - 1), leaf([shape[0] - 1, ...shape.slice(1)])], 0)]
        : []),
    ])
  }
  return { given, leaf, among, positive, computed }
}

interface Case {
  readonly shape: S.Shape
  readonly network: Apply
  readonly given: ReadonlyMap<Tensor, Float32Array>
}

const nets: Readonly<Record<string, (kind: (typeof KINDS)[number], next: Next) => Case>> = {
  'random chains': (kind, next) => {
    const { given, among, computed, positive } = builder(kind, next)
    const step = (): ((h: Tensor) => Tensor) =>
      among<(h: Tensor) => Tensor>([
        () => {
          const m = 1 + Math.floor(3 * next())
          const cache = new Map<number, Tensor>()
          return (h) => {
            const w = cache.get(h.shape[1]) ?? computed([m, h.shape[1]])
            cache.set(h.shape[1], w)
            return O.matmul(h, w, { transB: true })
          }
        },
        () =>
          fixed(
            (h) => computed(h.shape.slice(1)),
            (h, c) => O.add(h, c),
          ),
        () =>
          fixed(
            (h) => computed(h.shape.slice(1)),
            (h, c) => O.sub(c, h),
          ),
        () =>
          fixed(
            (h) => computed(h.shape.slice(1)),
            (h, c) => O.mul(h, c),
          ),
        () =>
          fixed(
            (h) => positive(h.shape.slice(1)),
            (h, c) => O.div(h, c),
          ),
        () =>
          fixed(
            (h) => computed([1, 2, ...h.shape.slice(2)]),
            (h, c) => O.concat([h, c], 1),
          ),
        () => (h) => O.relu(h),
        () => (h) => O.relu(O.neg(h)),
        () => O.leakyRelu(0.1),
        () => (h) => O.add(h, O.relu(h)),
        () => (h) => O.sub(O.mul(h, 0.3), h),
        () => (h) => O.pad(O.reshape(O.reshape(h, [1, 1, h.shape[1]]), h.shape), [0, 1], [0, 0]),
        () => (h) => O.add(h, O.broadcastTo(O.mean(h, 1, true), h.shape)),
      ])
    const fixed = (make: (h: Tensor) => Tensor, use: (h: Tensor, c: Tensor) => Tensor) => {
      let c: Tensor | undefined
      return (h: Tensor) => {
        c ??= make(h)
        return use(h, c)
      }
    }
    const steps = Array.from({ length: 3 + Math.floor(4 * next()) }, step)
    const cache: Tensor[] = []
    return {
      shape: [1, 3],
      given,
      network: ((x: Tensor) => {
        const h = steps.reduce((v, f) => f(v), x)
        cache[0] ??= computed([2, h.shape[1]], 1)
        cache[1] ??= computed([2])
        return O.add(O.matmul(h, cache[0], { transB: true }), cache[1])
      }) as Apply,
    }
  },
  'Gemm with alpha and beta': (kind, next) => {
    const { given, leaf } = builder(kind, next)
    const [n, m] = [2 + Math.floor(10 * next()), 3]
    const [w, c, v, d] = [leaf([m, n]), leaf([m]), leaf([2, m]), leaf([1, 2])]
    const [alpha, beta] = [Math.fround(next()), next() < 0.3 ? 1 : Math.fround(2 * next() - 1)]
    const gemm = (x: Tensor, a: Tensor, b: Tensor) =>
      O.add(O.mul(O.matmul(x, a, { transB: true }), alpha), beta === 1 ? b : O.mul(b, beta)) as Tensor
    return { shape: [1, n], given, network: ((x: Tensor) => gemm(O.relu(gemm(x, w, c)), v, d)) as Apply }
  },
  'batch norm behind convolutions': (kind, next) => {
    const { given, leaf, positive } = builder('ordinary', next)
    const [c, h] = [2, 3]
    const parameters = {
      scale: leaf([c]),
      shift: leaf([c]),
      mean: leaf([c], numbers(kind, c, next)),
      var: positive([c]),
    }
    const [w, b, v, d] = [leaf([c, 1, 2, 2]), leaf([c]), leaf([2, 8]), leaf([2])]
    const [lift, before] = [(p: Tensor) => O.reshape(p, [c, 1, 1]), next() < 0.5]
    const std = O.constant([0.2023], [1, 1, 1])
    return {
      shape: [1, 1, h, h],
      given,
      network: ((x: Tensor) => {
        const z = before ? O.sub(O.div(x, std), O.div(O.constant([0.4914], [1, 1, 1]), std)) : x
        const conv = O.add(O.conv2d(z as Tensor, w, {}), lift(b))
        const factor = O.mul(O.div(1, O.sqrt(O.add(parameters.var, Math.fround(1e-5)))), parameters.scale) as Tensor
        const shift = O.sub(parameters.shift, O.mul(parameters.mean, factor)) as Tensor
        const normal =
          next() < 0.5
            ? batchNorm([c, 2, 2]).apply(parameters)(conv)
            : O.add(O.mul(conv, lift(factor)) as Tensor, lift(shift))
        return O.add(O.matmul(O.reshape(O.relu(normal), [1, 8]), v, { transB: true }), d)
      }) as Apply,
    }
  },
}

const RUNS = Number(process.env.MIXTRAIN_GRAPHS ?? 20)
const SPEC = [0.1, -0.7, 1, -1]

for (const [name, make] of Object.entries(nets))
  test(`${name}: no exact value and no execution of a block leaves outward bounds`, async () => {
    const next = random(Number(process.env.MIXTRAIN_SEED ?? 5))
    const caught = { none: 0, real: 0 }
    let [finite, all] = [0, 0]
    for (let run = 0; run < RUNS; run++) {
      const kind = KINDS[run % KINDS.length]
      const { shape, network, given } = make(kind, next)
      const x = O.input('x', shape) as Tensor
      const y = network(x)
      const boxed = dependents([y], new Map([[x, interval(x, x)]]))
      const size = S.size(shape)
      const centre = numbers(kind === 'large' ? 'ordinary' : kind, size, next)
      const reach = next() < 0.3 ? 0 : 2 ** -Math.floor(12 * next())
      const [lower, upper] = [-1, 1].map((s) => centre.map((c) => c + s * reach * next()))
      lower.forEach((l, i) => (lower[i] = Math.min(l, upper[i])))
      const ends = [O.input('lower', shape), O.input('upper', shape)] as readonly Tensor[]
      const spec = O.constant(SPEC, [2, 1, 2])
      const data = new Map([...given, [ends[0], lower], [ends[1], upper]])
      const wanted: {
        readonly where: string
        readonly deployed: boolean | undefined
        readonly bounds: readonly Tensor[]
      }[] = []
      const methods = Object.entries(METHODS)
      for (const k of [0, 1])
        for (const semantics of [...SEMANTICS, undefined]) {
          const [method, bounder] = methods[(2 * run + k) % methods.length]
          const rounding: Rounding = semantics === undefined ? 'none' : { outward: semantics }
          const bounded = boundsOf(bounder)(network, interval(ends[0], ends[1]), rounding)
          const [out, rows] = [bounded.output(), bounded.rows(spec)]
          wanted.push({
            where: `${method}, ${semantics}`,
            deployed: semantics && semantics === 'deployed',
            bounds: [out.lower, out.upper, rows.lower, rows.upper],
          })
        }
      const outputs = wanted.flatMap((w) => w.bounds)
      const found: Record<string, readonly ArrayLike<number>[]> = {}
      for (const [device, b] of Object.entries(backends)) found[device] = await evaluate(b)(outputs, data)
      for (let t = 0; t < 4; t++) {
        const point = Float32Array.from(lower, (l, i) => {
          const share = t < 2 ? Math.round(next()) : next()
          return Math.min(upper[i], Math.max(l, Math.fround(l + share * (upper[i] - l))))
        })
        const at = new Map([...given, [x, point]])
        const exact = exactGraph([y], at).get(y) as readonly { readonly low: Dyadic; readonly high: Dyadic }[]
        const executed = Array.from({ length: 4 }, () => float32Graph([y], at, boxed, next)[0]).filter((v) =>
          v.every(Number.isFinite),
        )
        const values = [
          { real: true, low: exact.map((v) => v.low), high: exact.map((v) => v.high) },
          ...executed.map((v) => ({ real: false, low: v.map(exactly), high: v.map(exactly) })),
        ]
        for (const [device, results] of Object.entries(found))
          wanted.forEach(({ where, deployed }, k) => {
            const [ol, ou, rl, ru] = results.slice(4 * k, 4 * k + 4)
            finite += [...Array.from(ol), ...Array.from(ru)].filter(Number.isFinite).length
            all += 4
            for (const v of values) {
              if (!v.real && deployed === false) continue
              const inside = (l: number, a: Dyadic, b: Dyadic, u: number) =>
                (Number.isNaN(l) || isAtLeast(b, l)) && (Number.isNaN(u) || isAtMost(a, u))
              const combine = (r: number, p: readonly Dyadic[], q: readonly Dyadic[]) =>
                [0, 1].reduce(
                  (s, j) => plus(s, times(exactly(SPEC[2 * r + j]), SPEC[2 * r + j] > 0 ? p[j] : q[j])),
                  exactly(0),
                )
              const ok = [0, 1].every(
                (j) =>
                  inside(ol[j], v.low[j], v.high[j], ou[j]) &&
                  inside(rl[j], combine(j, v.low, v.high), combine(j, v.high, v.low), ru[j]),
              )
              if (deployed === undefined) caught[v.real ? 'real' : 'none'] += Number(!ok)
              else assert.ok(ok, `${name} ${run} (${kind}), ${device}, ${where}, ${v.real ? 'exact' : 'executed'}`)
            }
          })
      }
    }
    // The cases bite: bounds rounded to nearest are left.
    assert.ok(caught.real > 10 && caught.none > 10, JSON.stringify(caught))
    assert.ok(finite > 0.9 * all, `${finite} of ${all} bounds are finite`)
  })

test('a ball under outward rounding has every point of the range, also where float32 does not hold its ends', async () => {
  const x = O.input('x', [2])
  const image = Float32Array.of(0.25, 0.75)
  for (const range of [
    [0.1, 0.9],
    [1 / 7, 6 / 7],
    [-0.3, 0.8],
    [0, 1],
  ] as const)
    for (const epsilon of [0.3, 0.1])
      for (const [device, backend] of Object.entries(backends))
        for (const outward of SEMANTICS) {
          const { lower, upper } = ball(x, epsilon, range, 'linf', { outward })
          const [low, high] = await evaluate(backend)([lower, upper], new Map([[x, image]]))
          for (const i of [0, 1]) {
            const ends = [-epsilon, epsilon].map((e) => plus(exactly(image[i]), exactly(e)))
            const what = `${device}, ${outward}: ${epsilon} in [${range}]`
            assert.ok(low[i] <= range[0] || isAtLeast(ends[0], low[i]), what)
            assert.ok(high[i] >= range[1] || isAtMost(ends[1], high[i]), what)
          }
        }
})

test.run()
