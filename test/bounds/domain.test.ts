import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { evaluate } from '../../src/compile/run.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { type Domain, interval, node, type Op } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { methods } from '../../src/robust/bounds.ts'
import { entries } from '../ops/examples.ts'
import { using } from '../ops/property.ts'
import { right } from '../shared.ts'
import { boxAround, fc, generic, parameters } from './networks.ts'

const backend = reference()
const machine = right(await wasm({ threads: 1 })())
test.after(() => machine.dispose())

/** Ops with a domain, and the operand that has one. */
const cases = O.registry.flatMap((op) =>
  (op.domain ?? []).flatMap((domain, k) => (domain === undefined ? [] : [{ op, k, domain }])),
) as readonly { readonly op: Op<unknown>; readonly k: number; readonly domain: Domain }[]

/** The op with x as operand k; other operands are points. */
const at = (op: Op<unknown>, k: number, x: Tensor): Tensor => {
  const point = O.constant([0.7, -1.2, 2.1, 0.4], [1, 4]) as Tensor
  return node(op, op.domain?.map((_, i) => (i === k ? x : point)) ?? [], undefined)
}

/** Values in (0, inf) for every input, which a line below a ReLU or a product does not know. */
const POSITIVE: Readonly<Record<string, (h: Tensor, p: ReturnType<typeof parameters>) => Tensor>> = {
  'a ReLU and a number': (h) => O.add(O.relu(h), 0.05) as Tensor,
  'a maximum with a number': (h) => O.maximum(h, 0.02) as Tensor,
  'magnitudes and a number': (h) => O.add(O.abs(h), 0.01) as Tensor,
  'a square and a number': (h) => O.add(O.mul(h, h), 0.01) as Tensor,
  'an exponential': (h) => O.exp(h),
  'a sigmoid, scaled': (h) => O.mul(O.sigmoid(h), 0.5) as Tensor,
  'positive sums of ReLUs': (h, p) => O.add(O.matmul(O.relu(h), O.abs(p.get('v', [4, 4]))), 0.03) as Tensor,
  'another root': (h) => O.add(O.sqrt(O.relu(h)), 0.1) as Tensor,
  'two layers': (h, p) => O.add(O.relu(fc(p, 'm', 4)(O.relu(h))), 0.05) as Tensor,
}

const SHAPE = [2, 3]
const drawn = boxAround(SHAPE, 0.8, 5)
const network = (inner: (h: Tensor, p: ReturnType<typeof parameters>) => Tensor, op: Op<unknown>, k: number) => {
  const p = parameters(19)
  const x: Tensor = O.input('x', SHAPE)
  const inside = inner(fc(p, '1', 4)(x), p)
  const y = fc(p, '2', 3)(at(op, k, inside))
  return { p, x, inside, y }
}

for (const { op, k, domain } of cases) {
  for (const [name, inner] of Object.entries(POSITIVE))
    test(`${op.name}, operand ${k}, of ${name}: every method has finite bounds, and they hold`, async () => {
      const { p, x, y } = network(inner, op, k)
      for (const [method, bound] of Object.entries(methods)) {
        const out = bound(y, new Map([[x, drawn.box]])).output()
        const [l, u] = await evaluate(backend)([out.lower, out.upper], new Map([...drawn.feeds, ...p.all()]))
        assert.ok([...l, ...u].every(Number.isFinite), `${method}: [${l}], [${u}]`)
        await using(backend, [y], [x, ...p.all().keys()], async (run) => {
          for (const point of drawn.points(12)) {
            const [v] = await run([point, ...p.all().values()])
            v.forEach((w, i) => {
              assert.ok(l[i] <= w + 1e-9 && w - 1e-9 <= u[i], `${method}: ${w} is not in [${l[i]}, ${u[i]}]`)
            })
          }
        })
      }
    })

  test(`${op.name}, operand ${k}: no bound is finite where the interval leaves the domain`, async () => {
    const { p, x, y } = network((h) => O.sub(O.relu(h), 0.2) as Tensor, op, k)
    for (const [method, bound] of Object.entries(methods)) {
      const out = bound(y, new Map([[x, drawn.box]])).output()
      const [l, u] = await evaluate(backend)([out.lower, out.upper], new Map([...drawn.feeds, ...p.all()]))
      assert.ok(![...l, ...u].some(Number.isFinite), `${method}: [${l}], [${u}]`)
    }
  })

  test(`${op.name}, operand ${k}: a number inside its domain, none outside`, async () => {
    const values = [...generic(40, 3, 20), 0]
    const x = O.constant(values, [values.length, 1]) as Tensor
    const [y] = await evaluate(backend)([at(op, k, O.broadcastTo(x, [values.length, 4]))])
    values.forEach((v, i) => {
      const inside = domain === 'nonnegative' ? v > 0 : v !== 0
      for (let j = 0; j < 4; j++)
        assert.is(Number.isFinite(y[4 * i + j]), inside || (v === 0 && op.name === 'sqrt'), `${v}`)
    })
  })
}

/** Boxes of finite numbers: across 0, at its sides, points, and so wide that sums and products of them overflow. */
const FINITE: readonly (readonly [number, number])[] = [
  [-1, 2],
  [0, 1],
  [-3, -0.25],
  [0, 0],
  [-(2 ** 127), 2 ** 127],
]

for (const { op, examples } of entries)
  test(`${op.name}: no bound of finite boxes is NaN, whatever the method and the rounding`, async () => {
    if ('unsupported' in op.interval) return
    const e =
      examples.find((x) => x.walks.length > 0 && x.inputs.every(({ shape }) => S.size(shape) > 0)) ??
      examples.find((x) => x.inputs.every(({ shape }) => S.size(shape) > 0))
    if (e === undefined) return
    const set = [...e.inputs.keys()].filter((k) => e.inputs[k].box)
    const ends: Tensor[] = []
    const said: string[] = []
    for (const [low, high] of FINITE) {
      const xs = e.inputs.map(
        ({ shape, integer, low: from }, k): Tensor =>
          set.includes(k)
            ? O.input(`x${k}`, shape)
            : (O.constant(
                integer ? new Float64Array(S.size(shape)) : generic(S.size(shape), k, from),
                shape,
              ) as Tensor),
      )
      const y = node(op, xs, e.attrs)
      const boxes = new Map(set.map((k) => [xs[k], interval(O.full(xs[k].shape, low), O.full(xs[k].shape, high))]))
      for (const [method, rounding] of [
        ['ibp', 'none'],
        ['ibp', { outward: 'deployed' }],
        ['crown-ibp', 'none'],
        ['crown-ibp', { outward: 'real' }],
        ['symbolic', { outward: 'deployed' }],
      ] as const)
        try {
          const { lower, upper } = methods[method](y, boxes, undefined, rounding).output()
          ends.push(lower, upper)
          said.push(`${method}, ${JSON.stringify(rounding)}, [${low}, ${high}]`)
        } catch (cause) {
          // A refusal is an answer.
          if (!(cause instanceof MixtrainException)) throw cause
        }
    }
    const found = await evaluate(backend)(ends)
    said.forEach((what, i) => {
      const [l, u] = [found[2 * i], found[2 * i + 1]]
      l.forEach((v, j) => {
        assert.ok(v <= u[j], `${what}: [${v}, ${u[j]}]`)
      })
    })
  })

test('what is computed from no number is not bounded: clipping a logarithm of less than 0 claims nothing', async () => {
  const x: Tensor = O.input('x', [1, 2])
  const boxes = new Map([[x, interval(O.constant([-1, 0.5], [1, 2]), O.constant([1, 1], [1, 2]))]])
  for (const f of [
    (v: Tensor) => O.clamp(O.log(v), -1, 1),
    (v: Tensor) => O.minimum(O.sqrt(v), 3) as Tensor,
    (v: Tensor) => O.sigmoid(O.pow(1.5)(v)),
  ])
    for (const [method, bound] of Object.entries(methods))
      for (const rounding of ['none', { outward: 'real' }, { outward: 'deployed' }] as const) {
        const { lower, upper } = bound(f(x), boxes, undefined, rounding).output()
        const [l, u] = await evaluate(backend)([lower, upper])
        assert.equal([l[0], u[0]], [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY], method)
      }
})

test('roots and logarithms at the end of their domain: a root of [0, 0] is a number, a logarithm has its upper bound', async () => {
  const x: Tensor = O.input('x', [1, 2])
  // The second is never active.
  const h = O.relu(O.add(x, O.constant([0, -5], [2])) as Operand) as Tensor
  const boxes = (l: Tensor, u: Tensor) =>
    new Map([[x, { _tag: 'Interval', lower: l, upper: u, shape: [1, 2] } as const]])
  const [l, u] = [O.constant([-1, -1], [1, 2]), O.constant([1, 1], [1, 2])]
  for (const [method, bound] of Object.entries(methods)) {
    const root = bound(O.sqrt(h), boxes(l, u)).output()
    const [a, b] = await evaluate(backend)([root.lower, root.upper])
    assert.ok([...a, ...b].every(Number.isFinite), `${method}: [${a}], [${b}]`)
    assert.ok(a[0] <= 0 && b[0] >= 1 && a[1] <= 0 && b[1] >= 0, method)
    const log = bound(O.log(h), boxes(l, u)).output()
    const [c, d] = await evaluate(backend)([log.lower, log.upper])
    assert.ok(!(c[0] > Number.NEGATIVE_INFINITY) && !(d[0] < 0), `${method}: log [${c}], [${d}]`)
  }
})

/** Numbers that are 0 somewhere in the box, and never less: their outward bounds begin below 0 by a rounding. */
const NEVER_NEGATIVE: Readonly<Record<string, (h: Tensor) => Tensor>> = {
  'a sum of squares': (h) => O.sum(O.mul(h, h), [1], true),
  'a mean of squares': (h) => O.mean(O.pow(2)(h), 1, true) as Tensor,
  'a ReLU and 0': (h) => O.add(O.relu(h), 0) as Tensor,
  'a multiple of a ReLU': (h) => O.mul(O.relu(h), 3) as Tensor,
  'a product with positive weights': (h) => O.matmul(O.relu(h), O.constant([1, 2, 0.5, 0.1], [4, 1])) as Tensor,
  'a quotient': (h) => O.div(O.abs(h), 3) as Tensor,
  'the larger of two': (h) => O.mul(O.maximum(h, O.abs(O.neg(h))), 0.7) as Tensor,
}
/** Numbers that may be negative, though parts of them are not. */
const OF_ANY_SIGN: Readonly<Record<string, (h: Tensor) => Tensor>> = {
  'a difference': (h) => O.sub(O.relu(h), O.relu(O.neg(h))) as Tensor,
  'a negative multiple': (h) => O.mul(O.relu(h), -0.1) as Tensor,
  'a product of two': (h) => O.mul(h, O.add(h, 0.1)) as Tensor,
  'a ReLU and less than 0': (h) => O.add(O.relu(h), -1e-6) as Tensor,
  'the smaller of two': (h) => O.minimum(h, O.abs(h)) as Tensor,
  'a product with weights of both signs': (h) => O.matmul(O.relu(h), O.constant([1, -2, 0.5, 0.1], [4, 1])) as Tensor,
}

for (const outward of ['real', 'deployed'] as const)
  test(`roots of what is never negative have outward bounds (${outward}), and roots of what may be have none`, async () => {
    const [low, high] = [generic(8, 5).map((v) => -Math.abs(v) / 2), generic(8, 6).map((v) => Math.abs(v) / 2)].map(
      (ends) => Float64Array.from(ends, Math.fround),
    )
    const points = Array.from({ length: 20 }, (_, k) =>
      Float64Array.from(generic(8, 7 + k), (v, i) => (k === 0 ? 0 : v < 0 ? -v * low[i] : v * high[i])),
    )
    const bounded = async (inner: (h: Tensor) => Tensor, bound: (typeof methods)[keyof typeof methods]) => {
      const [x, from, to] = ['x', 'l', 'u'].map((name): Tensor => O.input(name, [2, 4]))
      const y = O.sqrt(inner(x)) as Tensor
      const out = bound(y, new Map([[x, interval(from, to)]]), undefined, { outward }).output()
      const feeds = new Map([[from, Float32Array.from(low)] as const, [to, Float32Array.from(high)] as const])
      const [l, u] = await evaluate(machine)([out.lower, out.upper], feeds)
      return { x, y, l, u }
    }
    for (const [method, bound] of Object.entries({ ibp: methods.ibp, symbolic: methods.symbolic })) {
      for (const [name, inner] of Object.entries(NEVER_NEGATIVE)) {
        const { x, y, l, u } = await bounded(inner, bound)
        assert.ok([...l, ...u].every(Number.isFinite), `${name}, ${method}: [${l}], [${u}]`)
        await using(backend, [y], [x], async (run) => {
          for (const point of points) {
            const [v] = await run([point])
            v.forEach((w, i) => {
              assert.ok(l[i] <= w && w <= u[i], `${name}, ${method}: ${w} is not in [${l[i]}, ${u[i]}]`)
            })
          }
        })
      }
      // The walk takes the box that interval propagation has.
      for (const [name, inner] of Object.entries(method === 'ibp' ? OF_ANY_SIGN : {})) {
        const { l } = await bounded(inner, bound)
        assert.ok(!l.some(Number.isFinite), `${name}, ${method}: [${l}]`)
      }
    }
  })

test('an op that says that it is never negative is not', async () => {
  const signed = O.registry.filter((op) => op.nonnegative !== undefined)
  assert.ok(signed.length >= 7)
  for (const op of signed as readonly Op<unknown>[]) {
    const attrs = { exponent: 4, axes: [1], keep: false }
    const rule = op.nonnegative
    for (const signs of [
      [false, false],
      [true, false],
      [true, true],
    ]) {
      const says = rule === 'always' || rule?.(signs, attrs) === true
      const operands = signs.map((positive, k) => {
        const values = [...generic(24, 3 + k, 5), 0, -0]
        return O.constant(positive ? values.map(Math.abs) : values, [2, 13]) as Tensor
      })
      const arity = ['maximum', 'minimum'].includes(op.name) ? 2 : 1
      const [y] = await evaluate(backend)([node(op, operands.slice(0, arity), attrs)])
      if (says) assert.ok(![...y].some((v) => v < 0), op.name)
    }
  }
})

test.run()
