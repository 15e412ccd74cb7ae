import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { evaluate } from '../../src/compile/run.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { bits, key, uniform } from '../../src/core/key.ts'
import { dataset, pixels, take } from '../../src/data/dataset.ts'
import { conv, dense, flatten, type Named, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { constant, input } from '../../src/ops/index.ts'
import { ibp } from '../../src/robust/bounds.ts'
import { type Verified, type VerifyOptions, verify } from '../../src/train/verify.ts'
import { robustness } from '../../src/verify/robustness.ts'
import { right } from '../shared.ts'

const simd = right(await wasm({ threads: 1 })())
const net = network('tiny', sequential(conv(4, 3, 2, 1), relu, flatten, dense(6), relu, dense(3)), {
  input: [1, 6, 6],
  classes: 3,
})
const parameters: Named<Float32Array> = Object.fromEntries(
  Object.entries(net.init(key(12))).map(([k, v]) => [k, Float32Array.from(v, (x) => 3 * x)]),
)
const COUNT = 40
const EPSILON = 0.05
const CORNERS = 300

/** The class that the network gives to each point, in doubles. */
const classOf = async (points: ArrayLike<number>): Promise<readonly number[]> => {
  const n = points.length / 36
  const x = input('x', [n, 1, 6, 6])
  const constants = Object.fromEntries(
    Object.entries(net.parameters).map(([k, p]) => [k, constant(parameters[k], p.shape)]),
  )
  const [z] = await evaluate(reference())([net.apply(constants)(x)], new Map([[x, Float64Array.from(points)]]))
  return Array.from({ length: n }, (_, i) => {
    const row = [...z.slice(3 * i, 3 * i + 3)]
    return row.indexOf(Math.max(...row))
  })
}
const inputs = Uint8Array.from(bits(key(5), COUNT * 36), (b) => b >>> 24)
const images = { name: 'noise', inputs, shape: [1, 6, 6], classes: 3 } as const
const labels = await classOf([...inputs].map((b) => Math.fround(b / 255)))
const data = dataset({ ...images, labels: Uint8Array.from(labels, (y, i) => (i % 8 === 7 ? (y + 1) % 3 : y)) })
const judge = (over: Partial<VerifyOptions> = {}): Promise<Verified> =>
  verify({ network: net, parameters, data, epsilon: EPSILON, method: ibp, ...over })(simd)
const attack = { name: 'pgd', steps: 3, restarts: 1, stepSize: 0.5, seed: 3 } as const
const among = (xs: Uint8Array): readonly number[] => [...xs.keys()].filter((i) => xs[i] === 1)

test('complete: every image that the method leaves open is decided, and no point of its ball says otherwise', async () => {
  const before = await judge()
  assert.is(before.decided, undefined)
  for (const rounding of ['none', { outward: 'real' }] as const) {
    const after = await judge({ complete: 60, rounding })
    const { decided, verified, correct } = after
    assert.ok(decided !== undefined && decided.unsat > 0 && decided.sat > 0, JSON.stringify(decided))
    assert.equal([decided.unknown, decided.timeout], [0, 0])
    assert.is(after.acc, before.acc)
    assert.is(among(verified).length, among(correct).length - decided.sat)
    assert.ok(among(before.verified).every((i) => verified[i] === 1))
    assert.ok(among(verified).every((i) => correct[i] === 1))
    for (const i of among(verified)) {
      const p = pixels(data, [i])
      const signs = uniform(key(i), CORNERS * 36)
      const corners = Float64Array.from(signs, (s, j) =>
        Math.min(1, Math.max(0, p[j % 36] + (s < 0.5 ? -EPSILON : EPSILON))),
      )
      for (const y of await classOf(corners)) assert.is(y, data.labels[i], `image ${i}`)
    }
  }
})

test('complete: counterexamples break what a weak attack did not, and verdicts repeat', async () => {
  const [weak, both] = [await judge({ attack }), await judge({ attack, complete: 60 })]
  assert.ok(weak.robust !== undefined && both.robust !== undefined && both.decided !== undefined)
  assert.ok(both.decided.sat > 0, 'PGD of three steps misses something')
  assert.is(among(both.robust).length, among(weak.robust).length - both.decided.sat)
  assert.equal(both.verified, both.robust)
  assert.ok((weak.era as number) > (both.era as number) && both.era === both.vra && weak.vra < both.vra)
  assert.equal(both.verified, (await judge({ complete: 60 })).verified)
})

test('complete: without time nothing is claimed; other norms are refused', async () => {
  const [plain, hurried] = [await judge(), await judge({ complete: 1e-9 })]
  assert.equal(hurried.verified, plain.verified)
  assert.equal([hurried.decided?.unsat, hurried.decided?.unknown], [0, 0])
  try {
    await judge({ complete: 1, norm: 'l2', data: take(1)(data) })
    assert.unreachable()
  } catch (e) {
    assert.ok(e instanceof MixtrainException && e.error.kind === 'unsupported')
  }
})

test('a range without an image is refused: nothing of it lies in the ball, and all of that would be verified', async () => {
  for (const range of [
    [0, 0.5],
    [0.5, 1],
    [2, 3],
    [1, 0],
    [Number.NaN, 1],
  ] as const) {
    const e = await judge({ range, data: take(2)(data) }).catch((cause: unknown) => cause)
    assert.ok(e instanceof MixtrainException && /^range: image 0 of noise has .* is not from/.test(e.message), `${e}`)
  }
  assert.is((await judge({ range: [-1, 2], data: take(2)(data) })).verified.length, 2)
})

test('robustness: ends of the box lie in the exact ball, outward ends enclose it', () => {
  const ps = Float32Array.from(uniform(key(9), 400))
  for (const epsilon of [0, 0.1, 2 / 255, 1e-9]) {
    const { cases, inputs: n, outputs } = robustness(ps, 2, 4, epsilon, [0, 1])
    assert.equal([n, outputs, cases.length], [400, 4, 1])
    const [{ lower, upper, outward, unsafe }] = cases
    assert.equal(
      unsafe.map(([{ coefficients, bound }, ...more]) => [...coefficients, bound, more.length]),
      [
        [-1, 0, 1, 0, 0, 0],
        [0, -1, 1, 0, 0, 0],
        [0, 0, 1, -1, 0, 0],
      ],
    )
    // Exactly, as multiples of 2^-1074.
    const exact = (x: number): bigint => {
      let [m, exponent] = [x, 0]
      while (!Number.isInteger(m)) {
        m *= 2
        exponent++
      }
      return BigInt(m) << BigInt(1074 - exponent)
    }
    ps.forEach((p, i) => {
      const [least, most] = [exact(p) - exact(epsilon), exact(p) + exact(epsilon)]
      const [low, high] = [least < 0n ? 0n : least, most > exact(1) ? exact(1) : most]
      assert.ok(exact(outward.lower[i]) <= low && low <= exact(lower[i]))
      assert.ok(exact(upper[i]) <= high && high <= exact(outward.upper[i]))
      assert.ok(lower[i] <= p && p <= upper[i])
    })
  }
})

test.run()
