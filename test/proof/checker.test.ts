import { createHash } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { key, uniform } from '../../src/core/key.ts'
import { decodeOnnx } from '../../src/format/onnx/index.ts'
import { known, lowerBound } from '../../src/proof/bounds.ts'
import { at, compare, exactly, type Rational, Refused, rational, type Vector, vector } from '../../src/proof/exact.ts'
import { check, type Header } from '../../src/proof/file.ts'
import { type Box, enclosed } from '../../src/proof/fixed.ts'
import { evaluate, networkOf } from '../../src/proof/network.ts'
import { isCounterexample, type Line, query } from '../../src/proof/proof.ts'
import { deviation, draw, int64, modelOf, type Line as Op, run, runtime, tensor } from '../format/onnx-models.ts'
import { right } from '../shared.ts'
import { followed, wholeChain } from './chain.ts'
import { fraction, oneInput, proofOf, property, refused, replayed } from './one-input.ts'

const number = ({ n, d }: Rational): number => Number((n << 60n) / d) / 2 ** 60
/** Inputs between two points, no neuron decided. */
const between = (lower: Vector, upper = lower) => ({ input: enclosed(lower, upper), signs: new Map() })
/** Whether element i of a box holds a value. */
const holds = ({ lower, upper, e }: Box, i: number, { n, d }: Rational): boolean =>
  BigInt(lower[i]) * d <= n << BigInt(e) && n << BigInt(e) <= BigInt(upper[i]) * d
// ---- reading networks ------------------------------------------------------------------------------------------------------------

interface Model {
  readonly name: string
  readonly shape: readonly number[]
  readonly lines: readonly Op[]
  readonly initializers?: Parameters<typeof modelOf>[2]
}
const MODELS: readonly Model[] = [
  {
    name: 'MatMul, Add, Relu, Gemm',
    shape: [1, 3],
    lines: [
      ['MatMul', 'x w', 'a'],
      ['Add', 'a b', 'c'],
      ['Relu', 'c', 'd'],
      ['Gemm', 'd v e', 'y', { transB: 1, alpha: 0.5, beta: 2 }],
    ],
    initializers: [tensor('w', [3, 4]), tensor('b', [4]), tensor('v', [2, 4], 5), tensor('e', [2], 6)],
  },
  {
    name: 'Conv with groups, pads and strides',
    shape: [1, 4, 6, 5],
    lines: [
      [
        'Conv',
        'x w b',
        'c',
        { kernel_shape: [3, 2], group: 2, pads: [1, 0, 2, 1], strides: [2, 1], dilations: [1, 2] },
      ],
      ['LeakyRelu', 'c', 'd', { alpha: 0.1 }],
      ['Flatten', 'd', 'y'],
    ],
    initializers: [tensor('w', [6, 2, 3, 2]), tensor('b', [6])],
  },
  {
    name: 'pools',
    shape: [1, 2, 6, 6],
    lines: [
      ['MaxPool', 'x', 'a', { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 0, 0] }],
      ['AveragePool', 'a', 'b', { kernel_shape: [2, 2], pads: [1, 0, 0, 1] }],
      ['Reshape', 'b s', 'y'],
    ],
    initializers: [int64('s', [0, -1])],
  },
  {
    name: 'BatchNormalization',
    shape: [1, 3, 2, 2],
    lines: [
      ['BatchNormalization', 'x g h m v', 'a'],
      ['Flatten', 'a', 'y'],
    ],
    initializers: [tensor('g', [3]), tensor('h', [3], 3), tensor('m', [3], 4), tensor('v', [3], 5, 0.1, 2)],
  },
  {
    name: 'residual, Sub and Mul by constants',
    shape: [1, 4],
    lines: [
      ['Sub', 'x c', 'a'],
      ['Mul', 'a f', 'b'],
      ['Gemm', 'b w', 'd'],
      ['Relu', 'd', 'e'],
      ['Add', 'e b', 'g'],
      ['Sub', 'h g', 'y'],
    ],
    initializers: [tensor('c', [4]), tensor('f', [1, 4], 3), tensor('w', [4, 4], 4), tensor('h', [4], 5)],
  },
  {
    name: 'Concat, Slice, Transpose, Pad',
    shape: [1, 2, 3],
    lines: [
      ['Transpose', 'x', 'a', { perm: [0, 2, 1] }],
      ['Slice', 'a from to axis', 'b'],
      ['Pad', 'b pads', 'c'],
      ['Concat', 'c a', 'd', { axis: 2 }],
      ['Flatten', 'd', 'y'],
    ],
    initializers: [int64('from', [0]), int64('to', [1]), int64('axis', [2]), int64('pads', [0, 0, 1, 0, 0, 0])],
  },
  {
    name: 'constants that are added and multiplied',
    shape: [1, 2],
    lines: [
      ['Add', 'p q', 'r'],
      ['Mul', 'r p', 's'],
      ['Div', 'x r', 'b'],
      ['Add', 'b s', 'y'],
    ],
    initializers: [tensor('p', [2], 3, 1, 2), tensor('q', [2], 4, 1, 2)],
  },
  {
    name: 'a matrix on the left',
    shape: [1, 3, 2],
    lines: [
      ['MatMul', 'w x', 'a'],
      ['Flatten', 'a', 'y'],
    ],
    initializers: [tensor('w', [4, 3])],
  },
]

for (const { name, shape, lines, initializers = [] } of MODELS)
  test(`${name}: the checker reads the network that the library reads`, async () => {
    const bytes = modelOf(shape, lines, initializers)
    const net = networkOf(bytes)
    const read = decodeOnnx(bytes, name)
    for (const seed of [1, 2, 3]) {
      const x = draw(shape, seed, -2, 2)
      const theirs = read._tag === 'Right' ? await run(read.right, 1, x) : await runtime(bytes, 'x', shape, x)
      const near = 1e-5
      const box = known(net, 'real', between(vector([...x].map(exactly))), 'interval').boxes[net.output]
      const middle = [...box.lower].map((l, i) => (l + box.upper[i]) / 2 ** (box.e + 1))
      assert.ok(deviation(middle, theirs) < near, `${middle} ${[...theirs]}`)
      assert.ok(
        box.lower.every((l, i) => (box.upper[i] - l) / 2 ** box.e < 1e-5),
        'a point has a narrow box',
      )
      if (name === 'BatchNormalization') continue
      const y = evaluate(net, vector([...x].map(exactly)))[net.output]
      assert.ok(
        deviation(
          y.n.map((_, i) => number(at(y, i))),
          theirs,
        ) < near,
      )
    }
  })

test('what is out of reach is refused with a reason', () => {
  const model =
    (lines: readonly Op[], initializers = MODELS[0].initializers) =>
    () =>
      networkOf(modelOf([1, 3], lines, initializers))
  assert.throws(model([['Sigmoid', 'x', 'y']]), /the op Sigmoid/)
  assert.throws(model([['Mul', 'x x', 'y']]), /a product of two computed values/)
  assert.throws(model([['Relu', 'nowhere', 'y']]), /not defined before it is used/)
})

test('damaged networks are refused, not crashed on', () => {
  for (const [m, { shape, lines, initializers = [] }] of MODELS.entries()) {
    const bytes = modelOf(shape, lines, initializers)
    for (let seed = 0; seed < 250; seed++) {
      const [count, cut, ...at] = uniform(key(250 * m + seed), 10, 0, 1)
      const damaged = bytes.slice(0, cut < 0.8 ? bytes.length : Math.floor(at[0] * bytes.length))
      for (let i = 0; i < 1 + Math.floor(3 * count); i++)
        damaged[Math.floor(at[2 * i] * damaged.length)] = Math.floor(256 * at[2 * i + 1])
      try {
        networkOf(damaged)
      } catch (e) {
        assert.ok(e instanceof Refused, `model ${m}, seed ${seed}: ${e}`)
      }
    }
  }
})

// ---- bounds ------------------------------------------------------------------------------------------------------------------------

for (const { name, shape, lines, initializers = [] } of MODELS)
  test(`${name}: exact values lie in the boxes, and functionals above their bounds`, () => {
    const net = networkOf(modelOf(shape, lines, initializers))
    const size = net.nodes[0].size
    const centre = draw(shape, 9)
    const box = between(
      vector([...centre].map((c) => exactly(c - 0.75))),
      vector([...centre].map((c) => exactly(c + 0.5))),
    )
    const regions = (['interval', 'crown'] as const).map((method) => known(net, 'real', box, method))
    const y = net.nodes[net.output].size
    const rows = [1, 2, 3].map((seed) => vector([...uniform(key(seed), y, -1, 1)].map(exactly)))
    const bounds = regions.map((region) =>
      rows.map((a) => lowerBound(net, region, new Map([[net.output, a]]), rational(0n))),
    )
    for (let seed = 0; seed < 40; seed++) {
      const t = seed < 2 ? new Float32Array(size).fill(seed) : uniform(key(seed), size, 0, 1)
      const point = vector(
        [...centre].map((c, i) => exactly(c - 0.75 + 1.25 * (seed % 2 === 0 ? Math.round(t[i]) : t[i]))),
      )
      // What the root of a batch normalization makes of a point is known as a narrow box.
      const there = known(net, 'real', between(point), 'interval').boxes
      for (const region of regions)
        for (const [k, { lower, upper, e }] of there.entries())
          for (const i of lower.keys()) {
            const f = 2 ** (e - region.boxes[k].e)
            assert.ok(region.boxes[k].lower[i] * f <= upper[i], `node ${k} at ${i}`)
            assert.ok(lower[i] <= region.boxes[k].upper[i] * f, `node ${k} at ${i}`)
          }
      if (name === 'BatchNormalization') continue
      const values = evaluate(net, point)
      for (const region of regions)
        for (const [k, v] of values.entries())
          for (const i of v.n.keys()) assert.ok(holds(region.boxes[k], i, at(v, i)), `node ${k} at ${i}`)
      for (const [r, a] of rows.entries()) {
        const v = values[net.output]
        const value = rational(
          a.n.reduce((sum, c, i) => sum + c * v.n[i], 0n),
          a.d * v.d,
        )
        for (const b of bounds) assert.ok(compare(b[r], value) <= 0)
      }
    }
  })

// ---- proofs against exact optima ----------------------------------------------------------------------------------------------------

test('true claims are proved, claims that are false by a hair are not, and their points are counterexamples', async () => {
  let proved = 0
  for (let seed = 1; seed <= 25; seed++) {
    const { bytes, least, most } = oneInput(seed, seed % 2 === 0 ? [6] : [5, 4])
    const gap = rational(1n, 1000n)
    const above = rational(most.v.n * gap.d + gap.n * most.v.d, most.v.d * gap.d)
    const truth = query(bytes, property(`(>= Y_0 ${fraction(above)})`), 'real')
    const lines = await proofOf(truth)
    const outcome = await replayed(truth, lines)
    if (!refused(outcome)) {
      assert.is(outcome.verdict, 'unsat')
      proved++
      // The same tree proves nothing about the property that holds at one point only.
      for (const claim of [`(>= Y_0 ${fraction(most.v)})`, `(<= Y_0 ${fraction(least.v)})`])
        assert.ok(refused(await replayed(query(bytes, property(claim), 'real'), lines)), `seed ${seed}: ${claim}`)
    }
    for (const [claim, { x }, holds] of [
      [`(>= Y_0 ${fraction(most.v)})`, most, true],
      [`(> Y_0 ${fraction(most.v)})`, most, false],
      [`(<= Y_0 ${fraction(least.v)})`, least, true],
      [`(< Y_0 ${fraction(least.v)})`, least, false],
    ] as const) {
      const q = query(bytes, property(claim), 'real')
      assert.is(isCounterexample(q, [x]), holds, claim)
      const point = await replayed(q, [['point', [fraction(x)]]])
      assert.is(refused(point) ? 'refused' : point.verdict, holds ? 'sat' : 'refused')
      assert.ok(refused(await replayed(q, [['point', ['1000001/1000000']]])), 'a point outside of the box')
    }
  }
  assert.ok(proved >= 20, `${proved} of 25 proved`)
})

const PROOFS = await Promise.all(
  Array.from({ length: 12 }, async (_, i) => {
    const { bytes, most } = oneInput(101 + i, i % 2 === 0 ? [6] : [4, 4])
    const above = rational(most.v.n * 64n + most.v.d, most.v.d * 64n)
    const claim = (r: Rational) =>
      query(bytes, property(`(or (>= Y_0 ${fraction(r)}) (and (<= Y_0 -1000) (>= Y_0 -900)))`), 'real')
    return { truth: claim(above), lie: claim(most.v), lines: await proofOf(claim(above)) }
  }),
)

test('10,000 mutated proofs: no false claim is ever accepted', async () => {
  const texts = fc.constantFrom('0', '-1', '1', '1/3', '-1/1000000', '7', '1e9', '0.5', '-0.5')
  const numbers = fc.constantFrom(0, -1, 1, 1 / 3, -1e-6, 7, 1e9, 0.5, -0.5, 2 ** -40, 1e-300)
  const line: fc.Arbitrary<unknown> = fc.oneof(
    fc.constantFrom(['interval'], ['crown'], ['leaf']),
    fc.tuple(
      fc.constant('crown'),
      fc.dictionary(
        fc.constantFrom('1', '3'),
        fc.array(
          fc.dictionary(
            fc.constantFrom('1', '3'),
            fc.array(fc.tuple(fc.integer({ min: 0, max: 6 }), fc.integer({ min: -1, max: 5000 })), { maxLength: 3 }),
          ),
          { minLength: 1, maxLength: 2 },
        ),
      ),
    ),
    fc.tuple(fc.constant('x'), fc.integer({ min: -1, max: 1 }), numbers),
    fc.tuple(fc.constant('z'), fc.integer({ min: 0, max: 5 }), fc.integer({ min: -1, max: 6 })),
    fc.tuple(
      fc.constant('leaf'),
      fc.record({ rows: fc.array(numbers, { maxLength: 2 }), slope: fc.constantFrom('same', 'adaptive', 'other') }),
    ),
    fc.tuple(
      fc.constant('leaf'),
      fc.record({
        slopes: fc.dictionary(
          fc.constantFrom('1', '3'),
          fc.array(fc.tuple(fc.integer({ min: 0, max: 6 }), fc.integer({ min: -1, max: 5000 })), { maxLength: 3 }),
        ),
      }),
    ),
    fc.tuple(
      fc.constant('leaf'),
      fc.record({
        signs: fc.dictionary(
          fc.constantFrom('1', '3'),
          fc.array(fc.tuple(fc.integer({ min: 0, max: 6 }), numbers), { maxLength: 3 }),
        ),
      }),
    ),
    fc.tuple(fc.constant('point'), fc.array(texts, { minLength: 1, maxLength: 1 })),
    fc.jsonValue(),
  )
  let accepted = 0
  await fc.assert(
    fc.asyncProperty(
      fc.nat(PROOFS.length - 1),
      fc.array(fc.tuple(fc.constantFrom('insert', 'drop', 'replace', 'swap'), fc.nat(), line), {
        minLength: 1,
        maxLength: 3,
      }),
      async (which, edits) => {
        const { truth, lie, lines } = PROOFS[which]
        const mutated = [...lines] as unknown[]
        for (const [kind, where, new_] of edits) {
          const i = where % (mutated.length + 1)
          if (kind === 'insert') mutated.splice(i, 0, new_)
          if (kind === 'drop') mutated.splice(i, 1)
          if (kind === 'replace') mutated.splice(i, 1, new_)
          if (kind === 'swap') mutated.splice(i, 2, ...mutated.slice(i, i + 2).reverse())
        }
        const wrong = await replayed(lie, mutated as Line[])
        assert.ok(refused(wrong) || wrong.verdict === 'sat', JSON.stringify(mutated))
        const outcome = await replayed(truth, mutated as Line[])
        // Another tree may prove the same; a point never does.
        if (!refused(outcome)) assert.is(outcome.verdict, 'unsat')
        accepted += refused(outcome) ? 0 : 1
      },
    ),
    { numRuns: 5000, seed: 5 },
  )
  assert.ok(accepted > 0, 'some mutations change nothing that matters')
})

test('from the search to the check: what is decided is proved, what is false never is (1,000 networks: npm run test:slow)', async () => {
  const backend = right(await wasm({ threads: 1 })())
  let decided = 0
  for (let seed = 2001; seed <= 2003; seed++) decided += Number(await wholeChain(backend, seed))
  assert.is(decided, 3)
})

test('a search that splits ReLUs is followed leaf by leaf, also where values are reshaped after them', async () => {
  const backend = right(await wasm({ threads: 1 })())
  let most = 0
  for (const seed of [1, 2, 3]) {
    const [search, proof] = await followed(backend, seed)
    // Slopes are written with fewer bits, which a bound just above 0 may not survive.
    assert.ok(Math.abs(proof - search) <= 1, `seed ${seed}: ${search} leaves, ${proof} in the proof`)
    most = Math.max(most, search)
  }
  assert.ok(most > 4, `${most} leaves at most`)
})

// ---- executions --------------------------------------------------------------------------------------------------------------------

/** One float32 execution of dense layers: each sum in a random order, some products fused, the bias anywhere. */
const executed = (
  model: { readonly w: Float32Array; readonly b: Float32Array; readonly ins: number; readonly outs: number }[],
  x: Float32Array,
  seed: number,
): Float32Array =>
  model.reduce((h, { w, b, ins, outs }, l) => {
    const z = Float32Array.from({ length: outs }, (_, j) => {
      const order = [...uniform(key(seed * 1000 + l * 100 + j), ins + 1, 0, 1)]
        .map((r, i) => [r, i] as const)
        .sort((p, q) => p[0] - q[0])
      return order.reduce((sum, [r, i]) => {
        if (i === ins) return Math.fround(sum + b[j])
        // Products of two float32 numbers are exact in doubles; so is most of the sum, and rounding twice is within the model's slack.
        return r < 0.5
          ? Math.fround(h[i] * w[i * outs + j] + sum)
          : Math.fround(Math.fround(h[i] * w[i * outs + j]) + sum)
      }, 0)
    })
    return l === model.length - 1 ? z : z.map((v) => Math.max(0, v))
  }, x)

test('deployed: executions in any order lie in the boxes, and cancellation that float32 loses is seen', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const widths = [3, 8, 6, 2]
    const scale = 10 ** (seed % 5)
    const layers = widths.slice(1).map((outs, l) => ({
      w: draw([widths[l], outs], seed + l, -scale, scale),
      b: draw([outs], seed + l + 50, -scale, scale),
      ins: widths[l],
      outs,
    }))
    const lines = layers.flatMap((_, l): Op[] => [
      ['Gemm', `${l === 0 ? 'x' : `h${l - 1}`} w${l} b${l}`, l === layers.length - 1 ? 'y' : `z${l}`],
      ...(l === layers.length - 1 ? [] : [['Relu', `z${l}`, `h${l}`] as Op]),
    ])
    const initializers = layers.flatMap(({ w, b, ins, outs }, l) => [
      { name: `w${l}`, shape: [ins, outs], data: w },
      { name: `b${l}`, shape: [outs], data: b },
    ])
    const net = networkOf(modelOf([1, 3], lines, initializers))
    const centre = draw([3], seed + 7)
    const ends = between(
      vector([...centre].map((c) => exactly(Math.fround(c - 0.01)))),
      vector([...centre].map((c) => exactly(Math.fround(c + 0.01)))),
    )
    const box = known(net, 'deployed', ends, 'crown').boxes[net.output]
    const real = known(net, 'real', ends, 'crown').boxes[net.output]
    const f = 2 ** (real.e - box.e)
    assert.ok(box.lower.every((l, i) => l * f <= real.lower[i] && real.upper[i] <= box.upper[i] * f))
    for (let k = 0; k < 30; k++) {
      const x = Float32Array.from(centre, (c, i) => Math.fround(c + 0.0099 * uniform(key(k * 3 + i), 1, -1, 1)[0]))
      for (const [i, v] of executed(layers, x, seed * 40 + k).entries()) {
        assert.ok(holds(box, i, exactly(v)), `seed ${seed}, run ${k}`)
      }
    }
  }
  // 2^24 + 1 is 2^24 in float32.
  const big = modelOf(
    [1, 1],
    [
      ['Gemm', 'x w b', 'h'],
      ['Gemm', 'h v', 'y'],
    ],
    [
      { name: 'w', shape: [1, 2], data: Float32Array.of(2 ** 24, 1) },
      { name: 'b', shape: [2], data: Float32Array.of(0, 0) },
      { name: 'v', shape: [2, 1], data: Float32Array.of(1, 1) },
    ],
  )
  const point = vector([rational(1n)])
  const net = networkOf(big)
  const box = known(net, 'deployed', between(point), 'interval').boxes[net.output]
  assert.ok(box.lower[0] <= 2 ** (24 + box.e) && box.upper[0] >= (2 ** 24 + 2) * 2 ** box.e)
})

test('deployed: a sum is off by as many roundings as it has terms that are not 0, however long it is', () => {
  /** 1 and live - 1 times 2^-24, then neurons that are 0 whatever the input; float32 takes 1 + 2^-24 for 1. */
  const widthOf = (live: number, dead: number): number => {
    const size = live + dead
    const of = (f: (i: number) => number) => Float32Array.from({ length: size }, (_, i) => f(i))
    const net = networkOf(
      modelOf(
        [1, 1],
        [
          ['Gemm', 'x w b', 'z'],
          ['Relu', 'z', 'h'],
          ['Gemm', 'h v c', 'y'],
        ],
        [
          { name: 'w', shape: [1, size], data: of((i) => (i === 0 ? 1 : i < live ? 2 ** -24 : 1)) },
          { name: 'b', shape: [size], data: of((i) => (i < live ? 0 : -5)) },
          { name: 'v', shape: [size, 1], data: of(() => 1) },
          { name: 'c', shape: [1], data: Float32Array.of(2 ** -24) },
        ],
      ),
    )
    const box = known(net, 'deployed', between(vector([rational(1n)])), 'interval').boxes[net.output]
    const ascending = 1
    const descending = 1 + live * 2 ** -24
    assert.ok(holds(box, 0, exactly(ascending)) && holds(box, 0, exactly(descending)), `${live} of ${size} terms`)
    return (box.upper[0] - box.lower[0]) / 2 ** box.e
  }
  for (const live of [1, 2, 3, 8, 40]) {
    const width = widthOf(live, 0)
    for (const dead of [1, 30, 1000]) {
      const wider = widthOf(live, dead) - width
      assert.ok(wider < width / 2, `${live} terms, ${dead} that are 0: ${wider} more than ${width}`)
    }
  }
})

test('deployed: what is not covered is refused', () => {
  // Batch normalization, residual sums and factors, constants that are added.
  for (const k of [3, 4, 6]) {
    const { shape, lines, initializers } = MODELS[k]
    const net = networkOf(modelOf(shape, lines, initializers))
    const point = vector([...draw(shape, 1)].map(exactly))
    assert.throws(() => known(net, 'deployed', between(point), 'interval'), /float32 executions are not covered/)
  }
})

// ---- files -------------------------------------------------------------------------------------------------------------------------

const sha = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex')
const fileOf = (header: Header, lines: readonly Line[]) =>
  [header, ...lines].map((l) => `${JSON.stringify(l)}\n`).join('')
const bytesOf = (text: string) => new TextEncoder().encode(text)

/** The first line of a proof about a network and a property, both as they are. */
const headerOf = (network: Uint8Array, text: string): Header => ({
  format: 'mixtrain-proof',
  version: 2,
  semantics: 'real',
  network: sha(network),
  claim: { kind: 'property', property: sha(text) },
})

test('a proof is about the bytes of its files, packed or not', async () => {
  const { bytes, most } = oneInput(3, [6])
  const text = property(`(>= Y_0 ${fraction(rational(most.v.n + most.v.d, most.v.d))})`)
  const lines = await proofOf(query(bytes, text, 'real'))
  const header = headerOf(bytes, text)
  const proof = bytesOf(fileOf(header, lines))
  const files = { network: bytes, property: bytesOf(text) }
  for (const packed of [proof, new Uint8Array(gzipSync(proof))])
    assert.is((await check(packed, files)).verdict, 'unsat')
  const packedNetwork = new Uint8Array(gzipSync(bytes))
  assert.is(
    (
      await check(bytesOf(fileOf({ ...header, network: sha(packedNetwork) }, lines)), {
        ...files,
        network: packedNetwork,
      })
    ).verdict,
    'unsat',
  )

  const fails = async (promise: Promise<unknown>, message: RegExp) => {
    const e = await promise.then(
      () => undefined,
      (x: unknown) => x,
    )
    assert.ok(e instanceof Refused, `${e}`)
    assert.match((e as Error).message, message)
  }
  await fails(check(proof, { ...files, property: bytesOf(`${text} `) }), /another property/)
  await fails(check(proof, { network: bytes.slice(0, -1), property: files.property }), /another network/)
  await fails(check(proof, { network: bytes }), /not given/)
  await fails(check(proof.subarray(0, -1), files), /truncated/)
  await fails(check(bytesOf(fileOf(header, [...lines, ['leaf']])), files), /goes on after its end/)
  await fails(check(bytesOf(fileOf(header, lines.slice(0, -1))), files), /ends before its tree does/)
  await fails(check(new Uint8Array(gzipSync(proof)).subarray(0, 40), files), /damaged|truncated/)
  await fails(check(bytesOf(''), files), /empty/)
  await fails(check(bytesOf('{"format":"other"}\n'), files), /no proof/)
})

test('files made to exhaust whoever reads them are refused, in little memory', async () => {
  const { bytes, most } = oneInput(3, [6])
  const text = property(`(>= Y_0 ${fraction(rational(most.v.n + most.v.d, most.v.d))})`)
  const header = headerOf(bytes, text)
  const about = (property: string, ...lines: readonly string[]) => {
    const first = JSON.stringify({ ...header, claim: { kind: 'property', property: sha(property) } })
    return check(gzipSync([first, ...lines, ''].join('\n')), { network: bytes, property: bytesOf(property) })
  }
  const many = 200_000
  const cases: readonly (readonly [what: string, answer: () => Promise<unknown>, reason: RegExp])[] = [
    ['a long line', () => about(text, `["leaf"${' '.repeat(2 ** 25)}]`), /more than 16777216 characters/],
    ['a deep line', () => about(text, `${'['.repeat(many)}${']'.repeat(many)}`), /nested too deeply/],
    ['a deep index', () => about(text, `["z",${'['.repeat(many)}${']'.repeat(many)},0]`), /nested too deeply/],
    ['a number beyond doubles', () => about(text, '["x",0,1e999]'), /is written/],
    ['a split far away', () => about(text, '["x",0,1e+300]'), /split at 1e\+300/],
    ['a point of too many digits', () => about(text, `["point",["${'9'.repeat(5000)}"]]`), /3,000 characters/],
    ['an exponent', () => about(text, '["point",["1e999999999"]]'), /no number/],
    [
      'endless splits',
      () => about(text, ...new Array<string>(50_000).fill('["x",0,0.5]')),
      /does not refute|too deep|ends before/,
    ],
    ['no text', () => check(Uint8Array.of(0xff, 0xfe, 10), { network: bytes }), /no text/],
    [
      'a nested property',
      () => about(`${text}(assert ${'(or '.repeat(many)}${')'.repeat(many)})`, '["leaf"]'),
      /nested/,
    ],
    [
      'a property with too many cases',
      () => about(`${text}(assert (and ${'(or (<= Y_0 1) (<= Y_0 2)) '.repeat(60)}))`, '["leaf"]'),
      /too many cases/,
    ],
  ]
  for (const [what, answer, reason] of cases) {
    const e = await answer().then(
      () => 'accepted',
      (x: unknown) => x,
    )
    assert.ok(e instanceof Refused, `${what}: ${e}`)
    assert.match((e as Error).message, reason, what)
  }
})

test('a classified image: exact radius, range, label', async () => {
  const bytes = modelOf(
    [1, 2],
    [['Gemm', 'x w b', 'y']],
    [
      { name: 'w', shape: [2, 2], data: Float32Array.of(1, 0, 0, 1) },
      { name: 'b', shape: [2], data: Float32Array.of(0, 0) },
    ],
  )
  const pixels = (xs: readonly number[]) =>
    Array.from(new Uint8Array(Float32Array.from(xs).buffer), (b) => b.toString(16).padStart(2, '0')).join('')
  const proof = (epsilon: string, label = 0, image = [0.75, 0.25]) =>
    bytesOf(
      fileOf(
        {
          format: 'mixtrain-proof',
          version: 2,
          semantics: 'real',
          network: sha(bytes),
          claim: { kind: 'image', pixels: pixels(image), epsilon, range: ['0', '1'], label },
        },
        [['leaf']],
      ),
    )
  assert.is((await check(proof('0.24'), { network: bytes })).leaves, 1)
  // The margin is 0.5 - 2 epsilon, and 0 is not above 0: a quarter is too much by nothing at all.
  for (const wrong of [proof('0.25'), proof('1/4'), proof('0.1', 1), proof('0.3')])
    assert.ok(
      await check(wrong, { network: bytes }).then(
        () => false,
        (e) => e instanceof Refused,
      ),
    )
  assert.is((await check(proof('24999999/100000000'), { network: bytes })).verdict, 'unsat')
  // The range cuts the ball.
  assert.is(
    (await check(proof('0.3', 0, [1, 0.625]), { network: bytes }).catch((e: Error) => ({ verdict: e.message })))
      .verdict,
    'leaf 1 does not refute case 1 of 1',
  )
})

test('whatever a stranger writes is refused, not crashed on', async () => {
  const { truth } = PROOFS[0]
  await fc.assert(
    fc.asyncProperty(fc.array(fc.jsonValue(), { maxLength: 4 }), async (lines) => {
      const outcome = await replayed(truth, lines as unknown as Line[])
      assert.ok(refused(outcome))
    }),
    { numRuns: 500, seed: 7 },
  )
})

test.run()
