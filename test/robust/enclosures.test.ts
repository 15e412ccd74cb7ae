import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { covering } from '../../src/bounds/executions.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { evaluate } from '../../src/compile/run.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { interval, node } from '../../src/core/op.ts'
import type { Semantics } from '../../src/core/rounding.ts'
import * as S from '../../src/core/shape.ts'
import { isInterval, type Operand, type Tensor } from '../../src/core/tensor.ts'
import { networks } from '../../src/nn/networks.ts'
import * as O from '../../src/ops/index.ts'
import { boundsOf, crown, ibp, intersect, symbolic } from '../../src/robust/bounds.ts'
import { ball } from '../../src/robust/perturbation.ts'
import { margins, rivals } from '../../src/robust/specification.ts'
import { random } from '../backend/wasm-programs.ts'
import { entries } from '../ops/examples.ts'
import { right } from '../shared.ts'

const SEMANTICS = ['real', 'deployed'] as const
const METHODS = { ibp, symbolic, crown, intersect: intersect(symbolic, ibp) } as const

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

const enclosureOf = (x: Tensor, semantics: Semantics): Operand =>
  covering(
    [x],
    new Set(),
    () => false,
    semantics,
    () => {
      throw new Error('a point has no box')
    },
  ).point(x)

test('every op encloses its results for constants that are computed, or is refused by name', async () => {
  const next = random(17)
  const refused: string[] = []
  // What `up` and `down` give is a bound, the number that was computed.
  for (const { op, examples } of entries.filter(({ op }) => op.outward?.interval !== 'directed'))
    for (const example of examples.filter(({ inputs }) => inputs.every(({ shape }) => S.size(shape) > 0))) {
      const given = new Map<Tensor, Float32Array>()
      // Sums that float32 does not hold and doubles do: what is taken for exact is off.
      const operands = example.inputs.map(({ shape, low, high, integer }, k): Tensor => {
        const [a, b] = [O.input(`a${k}`, shape), O.input(`b${k}`, shape)]
        const size = S.size(shape)
        const large = Float32Array.from({ length: size }, () =>
          integer ? Math.floor(low + (high - low) * next()) : low + (high - low) * (0.01 + 0.98 * next()),
        )
        given.set(a, large)
        if (integer) return a
        given.set(
          b,
          large.map((v) => v * 2 ** -26 * (1 + next())),
        )
        return O.add(a, b)
      })
      const y = node(op, operands, example.attrs)
      const where = `${op.name} ${example.label}`
      try {
        for (const semantics of SEMANTICS) {
          const box = enclosureOf(y, semantics)
          const [lower, upper] = isInterval(box) ? [box.lower, box.upper] : [box, box]
          const [truth] = await evaluate(doubles)([y], given)
          for (const backend of [simd, doubles]) {
            const [l, u, executed] = await evaluate(backend)([lower, upper, y], given)
            truth.forEach((v, i) => {
              const room = 1e-13 * (1 + Math.abs(v))
              // An op that is not continuous may be enclosed by both of its values.
              assert.ok(l[i] <= v + room && v - room <= u[i], `${where}: [${l[i]}, ${u[i]}] without ${v}`)
              if (semantics === 'deployed')
                assert.ok(l[i] <= executed[i] && executed[i] <= u[i], `${where}: executed ${executed[i]}`)
            })
          }
        }
      } catch (e) {
        if (!(e instanceof MixtrainException)) throw e
        assert.is(e.error.kind, 'unsupported', where)
        assert.match(JSON.stringify(e.error), op.name, where)
        refused.push(op.name)
      }
    }
  const names = new Set(refused)
  for (const known of [
    'add',
    'sub',
    'mul',
    'div',
    'sqrt',
    'sum',
    'matmul',
    'conv2d',
    'max',
    'reshape',
    'concat',
    'exp',
  ])
    assert.not.ok(names.has(known), `${known} is refused`)
})

test('a claim that rounding of constants makes true is refused: 1/2 + ((2^60 - 1) - 2^60), on every device, by every method', async () => {
  const [c1, c2, c3, c4] = [2 ** 60, -1, 2 ** 60, 0.5].map((v) => O.input(`c${v}`, [1]))
  const given = new Map([c1, c2, c3, c4].map((c, i) => [c, Float32Array.of([2 ** 60, -1, 2 ** 60, 0.5][i])] as const))
  const x = O.constant([1], [1, 1]) as Tensor
  for (const backend of [simd, doubles])
    for (const outward of SEMANTICS)
      for (const [name, method] of Object.entries(METHODS)) {
        const network = (z: Operand) => O.add(O.add(O.mul(z, 0), c4), O.sub(O.add(c1, c2), c3)) as Tensor
        const bounds = boundsOf(method)(network as never, interval(x, x), { outward })
        const [[lower], [upper], [row]] = await evaluate(backend)(
          [bounds.output().lower, bounds.output().upper, bounds.rows(O.constant([1], [1, 1, 1])).lower],
          given,
        )
        assert.ok(lower <= -0.5 && row <= -0.5 && upper >= -0.5, `${backend.name}, ${outward}, ${name}: ${lower}`)
      }
})

test('an accumulation that starts with the bias, behind alpha of Gemm, a reshape or a batch norm, is a deployed execution', async () => {
  const n = 64
  const x = O.constant(Array(n).fill(1), [1, n]) as Tensor
  const w = O.constant(Array(n).fill(1.75), [1, n])
  const large = 2 ** 24
  // Each product is 0.875 behind the scale: added to 2^24 one by one, all of them are lost.
  const layers: Readonly<Record<string, (z: Tensor) => Tensor>> = {
    Gemm: (z) => O.add(O.mul(O.matmul(z, w, { transB: true }), 0.5), O.mul(O.constant([2 * large], [1]), 0.5)),
    reshaped: (z) =>
      O.reshape(O.add(O.reshape(O.matmul(z, O.mul(w, 0.5) as Tensor, { transB: true }), [1, 1, 1]), large), [1, 1]),
    normal: (z) =>
      O.add(
        O.mul(O.add(O.matmul(z, w, { transB: true }), O.constant([2 * large], [1])), O.constant([0.5], [1])),
        O.sub(1, O.constant([1], [1])),
      ),
    padded: (z) =>
      O.add(O.mul(O.pad(O.matmul(z, w, { transB: true }), [0, 0], [0, 1]), 0.5), O.constant([large, 0], [2])),
  }
  let lost = large
  for (let i = 0; i < n; i++) lost = Math.fround(lost + 0.875)
  for (const [layer, f] of Object.entries(layers))
    for (const [name, method] of Object.entries(METHODS)) {
      const behind = (z: Tensor) => O.sub(O.relu(f(z)), large) as Tensor
      for (const backend of [simd, doubles])
        for (const outward of SEMANTICS) {
          const { lower, upper } = boundsOf(method)(behind as never, interval(x, x), { outward }).output()
          const [l, u] = await evaluate(backend)([lower, upper])
          assert.ok(l[0] <= 56 && 56 <= u[0], `${layer}, ${name}: exactly`)
          if (outward === 'deployed') assert.ok(l[0] <= lost - large, `${layer}, ${name}: ${l[0]}`)
        }
    }
})

test('boxes, balls and specifications of numbers that float32 does not hold are enclosed, in whatever op they stand', async () => {
  const one = O.constant([1], [1, 1])
  const [tenth, most] = [O.constant([0.1], [1, 1]), O.constant([0.7], [1, 1])]
  for (const backend of [simd, doubles])
    for (const outward of SEMANTICS)
      for (const [name, method] of Object.entries(METHODS)) {
        const bounds = (f: (x: Tensor) => Tensor, low: Tensor, high: Tensor) =>
          boundsOf(method)(f as never, interval(low, high), { outward })
        const same = bounds(O.relu, tenth, most).output()
        const moved = bounds(O.relu, O.sub(tenth, 0.05) as Tensor, O.add(most, 0.05) as Tensor).output()
        const round = ball(O.add(tenth, 0.1) as Tensor, 0.1, [0.15, 0.25], 'linf', { outward })
        const cut = boundsOf(method)(O.relu, round, { outward }).output()
        const row = bounds(O.relu, one, one).rows(O.constant([0.1], [1, 1, 1]))
        const clamped = bounds((x) => O.clamp(x, 0.3, 0.6), tenth, most).output()
        const meant = [
          [same, 0.1, 0.7],
          [moved, 0.05, 0.75],
          [cut, 0.15, 0.25],
          [row, 0.1, 0.1],
          [clamped, 0.3, 0.6],
        ] as const
        const found = await evaluate(backend)(meant.flatMap(([b]) => [b.lower, b.upper]))
        meant.forEach(([, low, high], i) => {
          const [[l], [u]] = [found[2 * i], found[2 * i + 1]]
          assert.ok(l <= low && high <= u, `${backend.name}, ${outward}, ${name} ${i}: [${l}, ${u}]`)
          // Lines of a choice between numbers are wider than their box.
          if (i < 4) assert.ok(l > low - 0.2 && u < high + 0.2, `${name} ${i}: [${l}, ${u}] is wide`)
        })
      }
})

test('rows of margins are exact: no bound of them is taken', () => {
  for (const spec of [margins, rivals].map((f) => f(O.input('label', [3]), 4)))
    for (const semantics of SEMANTICS) assert.is(enclosureOf(spec, semantics), spec)
})

test("networks of the product's own making have outward bounds: normalization, batch norm, average pools", async () => {
  const normalization = { mean: [0.4914, 0.4822, 0.4465], std: [0.2023, 0.1994, 0.201] }
  for (const network of [
    networks.small({ input: [3, 8, 8], classes: 3, normalization }),
    networks.cnn7({ input: [3, 8, 8], classes: 3 }),
  ]) {
    const next = random(3)
    const parameters = Object.entries(network.parameters).map(
      ([k, { shape, start }]) =>
        [
          k,
          O.input(k, shape),
          Float32Array.from({ length: S.size(shape) }, () => start ?? (next() - 0.5) / 8),
        ] as const,
    )
    const apply = network.apply(Object.fromEntries(parameters.map(([k, p]) => [k, p])))
    const x = O.input('x', [1, 3, 8, 8]) as Tensor
    const box = ball(x, 1 / 255, [0, 1], 'linf', { outward: 'deployed' })
    const bounds = boundsOf(ibp)(apply, box, { outward: 'deployed' }).output()
    const image = Float32Array.from({ length: 192 }, () => next())
    const given = new Map<Tensor, Float32Array>([...parameters.map(([, p, v]) => [p, v] as const), [x, image]])
    const [lower, value, upper] = await evaluate(simd)([bounds.lower, apply(x), bounds.upper], given)
    for (let i = 0; i < 3; i++) assert.ok(lower[i] <= value[i] && value[i] <= upper[i], `${network.name}: ${lower[i]}`)
  }
})

test.run()
