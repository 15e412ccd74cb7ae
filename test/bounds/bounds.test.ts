import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import type { Boxes } from '../../src/bounds/ibp.ts'
import { linearBounds } from '../../src/bounds/linear-bounds.ts'
import { evaluate } from '../../src/compile/run.ts'
import { order } from '../../src/compile/tape.ts'
import { grad } from '../../src/compile/vjp.ts'
import type { MixtrainException } from '../../src/core/error.ts'
import { interval } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Apply, Interval, Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import {
  type Bounder,
  blend,
  boundsOf,
  crown,
  crownForward,
  crownIbp,
  forward,
  ibp,
  intersect,
  intersected,
  layerBounds,
  symbolic,
  zonotope,
} from '../../src/robust/bounds.ts'
import { margins } from '../../src/robust/specification.ts'
import { differences, SEED, using } from '../ops/property.ts'
import { boxAround, chain, conv, fc, flatten, type Parameters, parameters, relu, through } from './networks.ts'

const METHODS: Readonly<Record<string, Bounder>> = {
  ibp,
  symbolic,
  crown,
  'crown-ibp': crownIbp,
  zero: linearBounds({ slope: 'zero', hidden: 'own' }),
  intersect: intersect(symbolic, ibp),
  forward,
  zonotope,
  'crown-forward': crownForward,
}
const backend = reference()
const evaluated = (outputs: readonly Tensor[], feeds: ReadonlyMap<Tensor, Float64Array>) =>
  evaluate(backend)(outputs, feeds) as Promise<readonly Float64Array[]>

type Net = (p: Parameters) => Apply

const residual: Net = (p) => (x) => {
  const a = chain(conv(p, 'stem', 3, 3, { padding: 1 }), relu)(x)
  const main = chain(conv(p, 'b1', 3, 3, { stride: 2, padding: 1 }), relu, conv(p, 'b2', 3, 3, { padding: 1 }))(a)
  const skip = conv(p, 's', 3, 2, { stride: 2 })(a)
  const b = relu(O.add(main as Operand, skip as Operand) as typeof x)
  const c = relu(O.add(conv(p, 'c1', 3, 3, { padding: 1 })(b) as Operand, b as Operand) as typeof x)
  return chain(conv(p, 'd', 2, 2), relu, flatten, fc(p, 'f', 3))(c)
}

const NETS: Readonly<Record<string, Net>> = {
  'conv-relu-conv-relu-fc-relu-fc': (p) =>
    chain(
      conv(p, '1', 3, 3, { padding: 1 }),
      relu,
      conv(p, '2', 4, 3, { stride: 2, padding: 1 }),
      relu,
      flatten,
      fc(p, '3', 6),
      relu,
      fc(p, '4', 3),
    ),
  residual,
  'max-pool': (p) =>
    chain(
      conv(p, '1', 3, 3),
      relu,
      (x) => O.maxPool2d(x, 2),
      conv(p, '2', 3, 2),
      (x) => O.maxPool2d(x, 2, { stride: 1, padding: 1 }),
      flatten,
      fc(p, '3', 4),
      relu,
      fc(p, '4', 3),
    ),
  'average-pool': (p) =>
    chain(
      conv(p, '1', 3, 3),
      relu,
      (x) => O.averagePool2d(x, 2, { padding: 1, countPadding: false }),
      conv(p, '2', 3, 2),
      relu,
      (x) => O.averagePool2d(x, 2),
      flatten,
      fc(p, '3', 3),
    ),
  'smooth and piecewise': (p) =>
    chain(
      conv(p, '1', 2, 3),
      (x) => O.tanh(x),
      conv(p, '2', 2, 2),
      (x) => O.sigmoid(x),
      flatten,
      fc(p, '3', 5),
      O.leakyRelu(0.1),
      fc(p, '4', 5),
      (x) => O.abs(x),
      fc(p, '5', 4),
      (x) => O.logSoftmax(x),
    ),
  'normalized, batch norm, concatenation, leaky relu': (p) => (x) => {
    const per = (name: string, scale: number): Tensor => p.get(name, [1, 2, 1, 1], scale)
    const normalized = O.div(O.sub(x as Operand, per('mean', 0.2)), O.add(1.5, per('deviation', 0.3)) as Tensor)
    const a = O.leakyRelu(0.2)(conv(p, '1', 2, 3, { padding: 1 })(normalized as typeof x))
    const b = relu(O.add(O.mul(conv(p, '2', 2, 1)(a) as Operand, per('scale', 1)), per('shift', 0.2)) as typeof x)
    const c = O.concat([a as Operand, b as Operand], 1) as typeof x
    const d = (y: typeof x) => O.averagePool2d(y, 2)
    return chain(conv(p, '3', 3, 2, { stride: 2 }), (y) => O.sigmoid(y), d as Apply, flatten, fc(p, '4', 3))(c)
  },
  'tokens, mixed along both axes': (p) => (x) => {
    const tokens = O.reshape(x, [x.shape[0], 12, 6]) as Operand
    const a = O.relu(O.add(O.matmul(tokens, p.get('1.w', [6, 4], 0.6)), p.get('1.b', [4], 0.2)) as Operand)
    const b = O.relu(O.add(O.matmul(p.get('2.w', [5, 12], 0.4), a), p.get('2.b', [5, 1], 0.2)) as Operand)
    const c = O.matmul(p.get('3.w', [1, 4, 3], 0.7), O.transpose(b, [0, 2, 1]), { transA: true })
    const maps = O.reshape(c as Operand, [x.shape[0], 3, 5, 1])
    const d = O.relu(O.matmul(O.transpose(maps, [0, 2, 3, 1]), p.get('4.w', [2, 3], 0.8), { transB: true }))
    return fc(p, '5', 3)(flatten(d as typeof x))
  },
  attention: (p) => (x) => {
    const tokens = O.reshape(x, [x.shape[0], 8, 9]) as Operand
    const heads = (name: string): Operand => {
      const y = O.matmul(tokens, p.get(`${name}.w`, [9, 4], 0.5)) as Operand
      return O.transpose(O.reshape(y, [x.shape[0], 8, 2, 2]), [0, 2, 1, 3])
    }
    const scores = O.mul(O.matmul(heads('q'), heads('k'), { transB: true }), Math.SQRT1_2) as Operand
    const weights = O.exp(O.logSoftmax(scores))
    const mixed = O.transpose(O.matmul(weights, heads('v')), [0, 2, 1, 3])
    const out = O.relu(O.matmul(O.reshape(mixed, [x.shape[0], 8, 4]), p.get('o.w', [4, 3], 0.6)) as Operand)
    return fc(p, 'f', 3)(flatten(out as typeof x))
  },
  'clamped, scaled, multiplied': (p) =>
    chain(
      flatten,
      fc(p, '1', 5),
      (x) => O.clamp(x, -0.5, 0.7),
      fc(p, '2', 4),
      (x) => O.mul(relu(x) as Operand, x as Operand) as typeof x,
      (x) => O.div(x as Operand, p.get('scale', [1, 4]) as Tensor) as typeof x,
      (x) => O.exp(O.mul(x as Operand, 0.1) as Operand) as typeof x,
      fc(p, '3', 3),
    ),
}

const SHAPE = [2, 2, 6, 6]

const assertInside = (l: ArrayLike<number>, u: ArrayLike<number>, v: ArrayLike<number>, what: string): void => {
  assert.is(l.length, v.length, what)
  for (let i = 0; i < v.length; i++) {
    const room = 1e-10 * (1 + Math.abs(v[i]))
    if (!(l[i] <= v[i] + room && u[i] >= v[i] - room))
      throw new Error(`${what}: element ${i}: ${v[i]} is not in [${l[i]}, ${u[i]}]`)
  }
}

// ---- soundness --------------------------------------------------------------------------------------------------------

for (const [name, net] of Object.entries(NETS))
  for (const [method, bound] of Object.entries(METHODS))
    test(`${name}, ${method}: bounds of the output, of margins and of every node contain sampled values`, async () => {
      for (const epsilon of [0.02, 0.3]) {
        const p = parameters(SEED)
        const { box, feeds, points } = boxAround(SHAPE, epsilon, SEED + 5)
        const x: Tensor = O.input('x', SHAPE)
        const y = net(p)(x)
        const bounded = bound(y, new Map([[x, box]]))
        const nodes = order([y]).filter((v) => order([v]).includes(x))
        const out = bounded.output()
        const labels = O.constant([1, 2], [2])
        const spec = margins(labels, 3 === y.shape[1] ? 3 : y.shape[1])
        const rows = bounded.rows(spec)
        const boxes = nodes.map((v) => bounded.node(v))
        boxes.forEach((b, i) => assert.equal(b.shape, nodes[i].shape, nodes[i].op.name))
        assert.equal(out.shape, y.shape)
        const all = [out, rows, ...boxes]
        const got = await evaluated(
          all.flatMap((b) => [b.lower, b.upper]),
          new Map([...feeds, ...p.all()]),
        )
        const margin = O.sum(O.mul(spec, y) as Tensor, 2)
        await using(backend, [y, margin, ...nodes], [x, ...p.all().keys()], async (run) => {
          for (const point of points(8)) {
            const values = await run([point, ...p.all().values()])
            values.forEach((v, i) => {
              const where =
                i === 0 ? 'output' : i === 1 ? 'margins' : `${nodes[i - 2].op.name} ${S.show(nodes[i - 2].shape)}`
              assertInside(got[2 * i], got[2 * i + 1], v, `epsilon ${epsilon}, ${where}`)
            })
          }
        })
        // Not vacuous: the bounds are finite.
        assert.ok(got[0].every(Number.isFinite) && got[1].every(Number.isFinite))
      }
    })

test('thin boxes: every method gives the value', async () => {
  for (const [name, net] of Object.entries(NETS)) {
    const p = parameters(SEED)
    const x: Tensor = O.input('x', SHAPE)
    const y = net(p)(x)
    const [point] = boxAround(SHAPE, 0.1, SEED).points(1)
    const feeds = new Map([[x, point], ...p.all()])
    for (const [method, bound] of Object.entries(METHODS)) {
      const b = boundsOf(bound)(net(p), interval(x, x)).output()
      const [l, u, v] = await evaluated([b.lower, b.upper, y], feeds)
      v.forEach((w, i) => {
        for (const end of [l[i], u[i]])
          assert.ok(Math.abs(end - w) <= 1e-9 * (1 + Math.abs(w)), `${name} ${method}: ${end} for ${w}`)
      })
    }
  }
})

test('rows in parts make the bounds that all of them make at once', async () => {
  for (const [name, net] of Object.entries(NETS)) {
    const p = parameters(SEED)
    const { box, feeds } = boxAround(SHAPE, 0.05, SEED + 5)
    const x: Tensor = O.input('x', SHAPE)
    const y = net(p)(x)
    const spec = margins(O.constant([1, 2], [2]), y.shape[1])
    const [whole, parts] = [undefined, { coefficients: 1000 }].map((parts) => {
      const method = linearBounds({ slope: 'adaptive', hidden: 'own', ...(parts && { parts }) })
      const bounded = method(y, new Map([[x, box]]), undefined, { outward: 'deployed' })
      return [bounded.output(), bounded.rows(spec)].flatMap(({ lower, upper }) => [lower, upper])
    })
    const values = await evaluated([...whole, ...parts], new Map([...feeds, ...p.all()]))
    whole.forEach((_, i) =>
      values[i].forEach((v, k) => {
        const w = values[whole.length + i][k]
        assert.ok(Math.abs(v - w) <= 1e-12 * (1 + Math.abs(v)), `${name}: ${w}, not ${v}`)
      }),
    )
  }
})

test('rows that would need too many parts are refused as too large', () => {
  const p = parameters(SEED)
  const { box } = boxAround(SHAPE, 0.05, SEED)
  const x: Tensor = O.input('x', SHAPE)
  const method = linearBounds({ slope: 'adaptive', hidden: 'own', parts: { coefficients: 1, walks: 2 } })
  assert.throws(
    () => method(NETS['max-pool'](p)(x), new Map([[x, box]])).output(),
    (e: MixtrainException) => e.error.kind === 'memory' && e.error.needed > e.error.budget,
  )
})

test('an element that many windows show has one row, and one box', async () => {
  const p = parameters(SEED)
  const shape = [1, 2, 8, 8]
  const { box, feeds } = boxAround(shape, 0.05, SEED)
  const x: Tensor = O.input('x', shape)
  const h = O.relu(conv(p, '1', 2, 3, { padding: 1 })(x) as Operand) as Tensor
  const y = conv(p, '2', 2, 3)(O.maxPool2d(h, 5, { stride: 1, padding: 2 })) as Tensor
  const bounded = crown(y, new Map([[x, box]]))
  const windows = order([y]).find(({ op }) => op.name === 'unfold') as Tensor
  const [own, shown, out] = [bounded.node(h), bounded.node(windows), bounded.output()]
  const wanted = O.maxPool2d(interval(own.lower, own.upper) as unknown as Tensor, 5, { stride: 1, padding: 2 })
  assert.equal(windows.shape, [1, 8, 8, 2, 5, 5])
  const graph = order([shown.lower, shown.upper])
  // Rows for each window would be 3,200 by as many and more.
  assert.ok(
    graph.every((v) => S.size(v.shape) < 2 ** 20),
    `${Math.max(...graph.map((v) => S.size(v.shape)))} elements`,
  )
  const pooled = bounded.node(order([y]).find(({ op }) => op.name === 'maxOfWindows')?.inputs[0] as Tensor)
  const most = O.max(pooled.upper)
  const [l, u, top, largest] = await evaluated(
    [out.lower, out.upper, most, O.max((wanted as unknown as Interval).upper)],
    new Map([...feeds, ...p.all()]),
  )
  assert.ok(l.every((v, i) => v < u[i]))
  assert.is(top[0], largest[0])
})

// ---- gradients of bounds ------------------------------------------------------------------------------------------------

const DIFFERENTIATED: Readonly<Record<string, readonly string[]>> = {
  'conv-relu-conv-relu-fc-relu-fc': [...Object.keys(METHODS), 'blend'],
  residual: ['ibp', 'symbolic', 'crown-ibp', 'blend'],
  'max-pool': ['ibp', 'symbolic', 'crown-ibp'],
  'smooth and piecewise': ['ibp', 'symbolic', 'crown', 'crown-ibp'],
}
const MIXED: Readonly<Record<string, Bounder>> = {
  ...METHODS,
  blend: blend(0.3)(ibp, crownIbp),
}

for (const [name, names] of Object.entries(DIFFERENTIATED))
  for (const method of names) {
    const bound = MIXED[method]
    test(`${name}, ${method}: the gradient of a robust loss agrees with central differences`, async () => {
      const p = parameters(SEED)
      const { box, feeds } = boxAround(SHAPE, 0.07, SEED + 9)
      const net = NETS[name](p)
      const x: Tensor = O.input('x', SHAPE)
      const classes = net(x).shape[1]
      const { lower } = boundsOf(bound)(net, box).rows(margins(O.constant([0, 2], [2]), classes))
      // Cross-entropy of the worst case.
      const loss = O.sum(O.logSumExp(O.neg(lower), 0))
      const args = [...feeds.keys(), ...p.all().keys()]
      const data = [...feeds.values(), ...p.all().values()]
      const wrt = [...args.keys()]
      await using(backend, [loss], args, (value) =>
        using(backend, grad(loss, args), args, (gradient) =>
          // First, middle and last element of every parameter and of the box.
          differences(value, gradient, data, wrt, 1e-6, 1e-5, (k, j) => [0, data[k].length >> 1].includes(j)),
        ),
      )
    })
  }

// ---- patches ------------------------------------------------------------------------------------------------------------

/** Networks as functions of what stands between two convolutions: nothing, or something that makes rows dense. */
const PATCHED: Readonly<Record<string, (p: Parameters, gap: Apply) => Apply>> = {
  'stride 1, padding 1': (p, gap) =>
    chain(
      conv(p, '1', 2, 3, { padding: 1 }),
      relu,
      gap,
      conv(p, '2', 3, 3, { padding: 1 }),
      relu,
      gap,
      conv(p, '3', 2, 3, { padding: 1 }),
    ),
  'strides 2 and 1': (p, gap) =>
    chain(
      conv(p, '1', 2, 3, { stride: 2, padding: 1 }),
      relu,
      gap,
      conv(p, '2', 3, 2, { padding: 1 }),
      relu,
      gap,
      conv(p, '3', 2, 2, { stride: 2 }),
    ),
  'stride by axis, asymmetric padding': (p, gap) =>
    chain(
      conv(p, '1', 2, 3, { stride: [1, 2], padding: [2, 0, 1, 1] }),
      relu,
      gap,
      conv(p, '2', 3, 2, { stride: [2, 1], padding: [0, 1, 1, 0] }),
      relu,
      gap,
      conv(p, '3', 2, 2, { padding: [1, 0, 0, 1] }),
    ),
  'no relu between': (p, gap) =>
    chain(
      conv(p, '1', 2, 3, { padding: 1 }),
      gap,
      conv(p, '2', 3, 3, { padding: 1 }),
      relu,
      gap,
      conv(p, '3', 2, 2),
      gap,
      conv(p, '4', 2, 2, { padding: 1 }),
    ),
  'all padding': (p, gap) =>
    chain(
      conv(p, '1', 2, 2, { padding: 2 }),
      relu,
      gap,
      conv(p, '2', 2, 2, { padding: 2 }),
      relu,
      gap,
      conv(p, '3', 2, 3, { stride: 3, padding: 2 }),
    ),
  'tanh, abs and maximum': (p, gap) =>
    chain(
      conv(p, '1', 2, 3),
      (x) => O.tanh(x),
      gap,
      conv(p, '2', 3, 2, { padding: 1 }),
      (x) => O.maximum(x as Operand, -0.1) as typeof x,
      gap,
      conv(p, '3', 3, 2),
      (x) => O.abs(x),
      gap,
      conv(p, '4', 2, 2, { padding: 1 }),
    ),
  residual: (p, gap) => (x) => {
    const a = chain(conv(p, 's', 3, 3, { padding: 1 }), relu)(x)
    const main = chain(
      gap,
      conv(p, '1', 3, 3, { stride: 2, padding: 1 }),
      relu,
      gap,
      conv(p, '2', 3, 3, { padding: 1 }),
    )(a)
    const b = relu(O.add(main as Operand, chain(gap, conv(p, 'k', 3, 2, { stride: 2 }))(a) as Operand) as typeof x)
    const c = relu(O.sub(chain(gap, conv(p, '3', 3, 3, { padding: 1 }))(b) as Operand, b as Operand) as typeof x)
    return chain(gap, conv(p, '4', 2, 2, { padding: 1 }))(c)
  },
  'residual with branches of unequal strides': (p, gap) => (x) => {
    const a = chain(conv(p, 's', 2, 2), relu)(x)
    const one = chain(gap, conv(p, '1', 2, 2))(a)
    const two = chain(gap, conv(p, '2', 2, 2, { stride: 2, padding: [0, 0, 1, 1] }))(a)
    const b = relu(O.add(one as Operand, two as Operand) as typeof x)
    return chain(gap, conv(p, '3', 2, 2, { padding: 1 }), relu, gap, conv(p, '4', 2, 2, { padding: 1 }))(b)
  },
  'biases and factors of every pixel': (p, gap) => {
    const pixelwise =
      (name: string): Apply =>
      (x) => {
        const shape = x.shape.slice(1)
        const shifted = O.sub(x as Operand, p.get(`${name}.shift`, shape, 0.3))
        const scaled = O.mul(p.get(`${name}.scale`, [1, ...shape]), shifted)
        const divided = O.div(scaled, O.add(1.5, p.get(`${name}.divisor`, shape)) as Tensor)
        return O.neg(O.sub(p.get(`${name}.from`, [2, ...shape], 0.2), divided) as Operand) as typeof x
      }
    return chain(
      conv(p, '1', 2, 3, { padding: 1 }),
      pixelwise('a'),
      relu,
      gap,
      pixelwise('b'),
      conv(p, '2', 2, 2, { padding: 1 }),
      relu,
      gap,
      conv(p, '3', 2, 2, { stride: 2 }),
    )
  },
}

/** Where a network needs another input than [2, 2, 4, 6]. */
const SHAPES: Readonly<Record<string, S.Shape>> = { 'residual with branches of unequal strides': [2, 2, 4, 4] }

for (const [name, net] of Object.entries(PATCHED))
  for (const [method, bound] of Object.entries({ symbolic, crown }))
    test(`patches, ${name}, ${method}: windows and dense rows give the same bounds`, async () => {
      const shape = SHAPES[name] ?? [2, 2, 4, 6]
      const { box, feeds, points } = boxAround(shape, 0.1, SEED + 3)
      const build = (gap: Apply) => {
        const p = parameters(SEED)
        const x: Tensor = O.input('x', shape)
        const y = chain(net(p, gap), flatten, fc(p, 'last', 3))(x)
        const bounded = bound(y, new Map([[x, box]]))
        // The pre-activations, whose walks are those that may keep windows.
        const hidden = order([y]).filter((v) => v.shape.length === 4 && v.inputs[0]?.op === O.conv2dOp)
        return { p, x, y, boxes: [bounded.output(), ...hidden.map((v) => bounded.node(v))] }
      }
      const [a, b] = [build((x) => x), build(through)]
      const ends = (boxes: readonly Interval[]) => boxes.flatMap((i) => [i.lower, i.upper])
      assert.ok(
        order(ends(a.boxes)).some((v) => v.op === O.unfoldOp),
        'no rows were kept as windows',
      )
      assert.not.ok(
        order(ends(b.boxes)).some((v) => v.op === O.unfoldOp),
        'rows were kept as windows',
      )
      const got = await evaluated(ends(a.boxes), new Map([...feeds, ...a.p.all()]))
      const want = await evaluated(ends(b.boxes), new Map([...feeds, ...b.p.all()]))
      for (const point of points(4)) {
        const [v] = await evaluated([a.y], new Map([[a.x, point], ...a.p.all()]))
        assertInside(got[0], got[1], v, 'output with windows')
        assertInside(want[0], want[1], v, 'output with dense rows')
      }
      want.forEach((w, k) => {
        w.forEach((v, i) =>
          assert.ok(
            Math.abs(got[k][i] - v) <= 1e-10 * (1 + Math.abs(v)),
            `value ${k} element ${i}: ${got[k][i]}, dense ${v}`,
          ),
        )
      })
    })

// ---- symbolic intervals, forward ----------------------------------------------------------------------------------------

/** A zonotope c + sum of generators (docs/method.md, section 3): pushed forward, one fresh error row for each unstable ReLU. */
interface Zonotope {
  readonly centre: readonly number[]
  readonly generators: readonly (readonly number[])[]
}

const ends = ({ centre, generators }: Zonotope) =>
  centre.map((c, j) => {
    const r = generators.reduce((s, g) => s + Math.abs(g[j]), 0)
    return [c - r, c + r] as const
  })

const affine =
  (w: readonly (readonly number[])[], b: readonly number[]) =>
  ({ centre, generators }: Zonotope): Zonotope => {
    const times = (v: readonly number[]) => w.map((row) => row.reduce((s, x, j) => s + x * v[j], 0))
    return { centre: times(centre).map((c, i) => c + b[i]), generators: generators.map(times) }
  }

const forwardRelu = (z: Zonotope): Zonotope => {
  const lines = ends(z).map(([l, u]) => (u <= 0 ? [0, 0] : l >= 0 ? [1, 0] : [u / (u - l), (-l * u) / (2 * (u - l))]))
  return {
    centre: z.centre.map((c, j) => lines[j][0] * c + lines[j][1]),
    generators: [
      ...z.generators.map((g) => g.map((v, j) => lines[j][0] * v)),
      ...lines.flatMap(([, mu], j) => (mu > 0 ? [z.centre.map((_, i) => (i === j ? mu : 0))] : [])),
    ],
  }
}

/** The matrix and the offset of an affine part of a network, read off it. */
const matrixOf = async (f: Apply, shape: S.Shape, p: Parameters) => {
  const n = S.size(shape)
  const x: Tensor = O.input('x', [n + 1, ...shape])
  const y = flatten(f(x))
  const basis = Float64Array.from({ length: (n + 1) * n }, (_, i) => (Math.floor(i / n) === i % n ? 1 : 0))
  const [v] = await evaluated([y], new Map([[x, basis], ...p.all()]))
  const m = y.shape[1]
  const b = Array.from(v.subarray(n * m))
  return { m, b, w: b.map((c, i) => Array.from({ length: n }, (_, j) => v[j * m + i] - c)) }
}

test('symbolic equals a zonotope pushed forward, and intervals on the first layer', async () => {
  const p = parameters(SEED)
  const first = conv(p, '1', 3, 3, { padding: 1 })
  const second = chain(conv(p, '2', 4, 3, { stride: 2, padding: [1, 0, 0, 1] }))
  const third = chain(flatten, fc(p, '3', 7))
  const last = fc(p, '4', 4)
  const net = chain(first, relu, second, relu, third, relu, last)
  const { box, feeds } = boxAround(SHAPE, 0.15, SEED + 11)
  const x: Tensor = O.input('x', SHAPE)
  const layers = [first(x)]
  for (const f of [second, third, last]) layers.push(f(relu(layers[layers.length - 1])))
  const bounded = symbolic(layers[3], new Map([[x, box]]))
  const simple = ibp(layers[3], new Map([[x, box]]))
  const boxes = layers.map((v) => bounded.node(v))
  const got = await evaluated(
    [...boxes.flatMap((b) => [b.lower, b.upper]), simple.node(layers[0]).lower, simple.node(layers[0]).upper],
    new Map([...feeds, ...p.all()]),
  )
  got[0].forEach((v, i) => assert.ok(Math.abs(v - got[8][i]) <= 1e-12 && Math.abs(got[1][i] - got[9][i]) <= 1e-12))
  const [lower, upper] = [...feeds.values()]
  const shape = SHAPE.slice(1)
  const n = S.size(shape)
  let unstable = 0
  for (let image = 0; image < SHAPE[0]; image++) {
    const [l, u] = [lower, upper].map((v) => Array.from(v.subarray(image * n, (image + 1) * n)))
    let z: Zonotope = {
      centre: l.map((v, i) => (v + u[i]) / 2),
      generators: l.map((v, i) => l.map((_, j) => (i === j ? (u[i] - v) / 2 : 0))),
    }
    let from: S.Shape = shape
    for (const [k, f] of [first, second, third, last].entries()) {
      const { m, w, b } = await matrixOf(f, from, p)
      z = affine(w, b)(z)
      ends(z).forEach(([a, c], i) => {
        const at = image * m + i
        for (const [have, want] of [
          [got[2 * k][at], a],
          [got[2 * k + 1][at], c],
        ])
          assert.ok(
            Math.abs(have - want) <= 1e-9 * (1 + Math.abs(want)),
            `layer ${k} image ${image} neuron ${i}: ${have}, forward ${want}`,
          )
        if (a < 0 && c > 0) unstable++
      })
      z = forwardRelu(z)
      from = layers[k].shape.slice(1)
    }
  }
  assert.ok(unstable > 20, `${unstable} unstable neurons`)
  assert.equal(net(x).shape, [2, 4])
})

// ---- intersect and blend ------------------------------------------------------------------------------------------------

test('intersect and blend obey their laws', async () => {
  const p = parameters(SEED)
  const { box, feeds, points } = boxAround(SHAPE, 0.2, SEED + 13)
  const net = NETS['conv-relu-conv-relu-fc-relu-fc'](p)
  const x: Tensor = O.input('x', SHAPE)
  const beta = O.input('beta', [])
  const variants: Readonly<Record<string, Bounder>> = {
    a: ibp,
    b: symbolic,
    'a n b': intersect(ibp, symbolic),
    'b n a': intersect(symbolic, ibp),
    'a n a': intersect(ibp, ibp),
    'b n b': intersect(symbolic, symbolic),
    'a given': (output, boxes) => ibp(output, boxes, intersected(ibp, symbolic)(output, boxes)),
    'b given': (output, boxes) => symbolic(output, boxes, intersected(ibp, symbolic)(output, boxes)),
    'blend 0': blend(0)(ibp, symbolic),
    'blend 1': blend(1)(ibp, symbolic),
    'blend 0.3': blend(0.3)(ibp, symbolic),
    'blend node': blend(beta)(ibp, symbolic),
    'blend 0.7 turned': blend(0.7)(symbolic, ibp),
    'blend same': blend(0.3)(ibp, ibp),
  }
  const spec = margins(O.constant([0, 2], [2]), 3)
  const names = Object.keys(variants)
  const boxes = names.flatMap((k) => {
    const bounded = variants[k](net(x), new Map([[x, box]]))
    return [bounded.output(), bounded.rows(spec)]
  })
  const got = await evaluated(
    boxes.flatMap((b) => [b.lower, b.upper]),
    new Map([...feeds, ...p.all(), [beta as Tensor, Float64Array.of(0.3)]]),
  )
  const [y] = [net(x)]
  const values = await Promise.all(points(4).map((q) => evaluated([y], new Map([[x, q], ...p.all()]))))
  for (const part of [0, 1]) {
    const of = (k: string) => {
      const i = 2 * (2 * names.indexOf(k) + part)
      return [got[i], got[i + 1]]
    }
    const same = (k: string, m: string) =>
      of(k).forEach((v, e) =>
        v.forEach((a, i) => assert.ok(Math.abs(a - of(m)[e][i]) <= 1e-12 * (1 + Math.abs(a)), `${k} = ${m}`)),
      )
    same('a n b', 'b n a')
    same('a n a', 'a')
    same('b n b', 'b')
    same('blend 0', 'a')
    same('blend 1', 'b')
    same('blend 0.3', 'blend 0.7 turned')
    same('blend 0.3', 'blend node')
    same('blend same', 'a')
    const [[al, au], [bl, bu], [il, iu], [ml, mu]] = ['a', 'b', 'a n b', 'blend 0.3'].map(of)
    const [[gl, gu], [hl, hu]] = ['a given', 'b given'].map(of)
    il.forEach((v, i) => {
      assert.is(v, Math.max(gl[i], hl[i]))
      assert.is(iu[i], Math.min(gu[i], hu[i]))
      // Interval arithmetic is isotone: smaller hidden boxes never widen it.
      assert.ok(v >= al[i] - 1e-12 && iu[i] <= au[i] + 1e-12)
      assert.ok(ml[i] <= Math.max(al[i], bl[i]) + 1e-12 && mu[i] >= Math.min(au[i], bu[i]) - 1e-12)
    })
    // At every layer: more than the intersection of what the two say of the output.
    assert.ok(il.some((v, i) => v > Math.max(al[i], bl[i]) + 1e-6))
    if (part === 0) for (const [v] of values) assertInside(il, iu, v, 'intersect')
  }
})

test('the boxes of intersect at hidden nodes are those of both methods, each given the ones before', async () => {
  const p = parameters(SEED)
  const { box, feeds } = boxAround(SHAPE, 0.2, SEED + 13)
  const x: Tensor = O.input('x', SHAPE)
  const y = NETS.residual(p)(x)
  const boxes: Boxes = new Map([[x, box]])
  const both = layerBounds(intersect(ibp, symbolic))(y, boxes)
  assert.equal(
    both.map((b) => b.name),
    ['relu1.input', 'relu2.input', 'relu3.input', 'relu4.input', 'relu5.input', 'output'],
  )
  const known = intersected(symbolic, ibp)(y, boxes)
  const before = (node: Tensor) => new Map([...known].filter(([h]) => h !== node && order([node]).includes(h)))
  const parts = both.map(({ node }) =>
    [ibp, symbolic].map((m) => m(node, boxes, before(node)).output()).flatMap((b) => [b.lower, b.upper]),
  )
  const got = await evaluated(
    [...both.flatMap(({ bounds }) => [bounds.lower, bounds.upper]), ...parts.flat()],
    new Map([...feeds, ...p.all()]),
  )
  both.forEach(({ name, node, bounds }, k) => {
    assert.equal(bounds.shape, node.shape)
    const [l, u] = [got[2 * k], got[2 * k + 1]]
    const [al, au, bl, bu] = got.slice(2 * both.length + 4 * k)
    l.forEach((v, i) => {
      assert.is(v, Math.max(al[i], bl[i]), name)
      assert.is(u[i], Math.min(au[i], bu[i]), name)
    })
  })
})

// ---- what has no bounds says so -------------------------------------------------------------------------------------------

const refuses = (f: (x: Tensor) => Tensor, shape: S.Shape, message: RegExp, more: Boxes = new Map()): void => {
  const x: Tensor = O.input('x', shape)
  assert.throws(() => symbolic(f(x), new Map([[x, interval(x, x)], ...more])).output(), message)
}

test('rows are per image: what mixes or moves images is refused, not bounded wrongly', () => {
  const images = /mixes or moves the images/
  refuses((x) => O.transpose(x, [1, 0]), [3, 3], images)
  refuses((x) => O.sum(x, 0), [3, 3], images)
  refuses((x) => O.slice(x, [1, 0], [2, 3]), [3, 3], images)
  refuses((x) => O.concat([x, x], 0), [3, 3], images)
  refuses((x) => O.reshape(x, [6, 2]) as Tensor, [3, 4], images)
  refuses((x) => O.max(x, 0), [3, 3], images)
  refuses((x) => O.broadcastTo(x, [3, 3, 3]), [3, 3], images)
  refuses((x) => O.matmul(x, O.full([3, 3], 1), { transA: true }), [3, 3], images)
  refuses((x) => O.matmul(O.full([3, 3], 1), x), [3, 3], images)
  refuses((x) => O.conv2d(O.full([3, 3, 4, 4], 1), x), [3, 3, 2, 2], /conv2d/)
  refuses((x) => O.matmul(x, x), [3, 3], images)
  refuses((x) => O.add(x, O.full([3, 3], 1)) as Tensor, [3, 1], /broadcast it explicitly/)
  refuses((x) => O.div(x, O.full([3, 3], 1)) as Tensor, [3, 1], /broadcast it explicitly/)
  refuses((x) => O.gather(x, O.iota(3)), [3, 3], /gather/)
  const x: Tensor = O.input('x', [2])
  assert.throws(() => symbolic(x, new Map()), /no node has a box/)
  assert.throws(
    () => symbolic(O.relu(O.input('y', [2]) as Tensor), new Map([[x, interval(x, x)]])),
    /does not depend on any box/,
  )
})

test('a box of a value on the way is where the walk ends', async () => {
  const p = parameters(SEED)
  for (const make of [
    (x: Tensor) => O.relu(x),
    (x: Tensor) => O.reshape(O.relu(x), [2, 3, 4]) as Tensor,
    (x: Tensor) => O.add(O.relu(x), 1) as Tensor,
  ])
    for (const after of [
      (h: Tensor) => O.reshape(h, [2, 12]) as Tensor,
      (h: Tensor) => fc(p, 'f', 2)(O.reshape(h, [2, 12]) as Tensor),
    ]) {
      const x: Tensor = O.input('x', [2, 12])
      const h = make(x)
      const y = after(h)
      const { box, feeds, points } = boxAround(h.shape, 0.3, SEED)
      const hole: Tensor = O.input('h', h.shape)
      for (const boxes of [
        new Map([[h, box]]),
        new Map([
          [x, interval(x, x)],
          [h, box],
        ]),
      ])
        for (const [method, bound] of Object.entries(METHODS)) {
          const b = bound(y, boxes).output()
          const all = new Map([...feeds, ...p.all(), [x, new Float64Array(24).fill(0.25)] as const])
          const [l, u] = await evaluated([b.lower, b.upper], all)
          for (const point of points(3)) {
            const [v] = await evaluated([after(hole)], new Map([[hole, point], ...p.all()]))
            assertInside(l, u, v, `${method}, a box of ${h.op.name}`)
          }
        }
    }
})

test('an index that is an interval is refused', () => {
  const x = O.input('x', [3])
  const index: Operand = O.step(interval(x, x))
  assert.throws(() => O.gather(O.iota(4) as Tensor, index as unknown as Tensor), /gather/)
})

test('no buffer is left', () => {
  assert.is(backend.stats().live, 0)
})

test.run()
