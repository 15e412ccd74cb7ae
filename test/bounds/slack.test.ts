import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { covering } from '../../src/bounds/executions.ts'
import type { Context } from '../../src/bounds/rows.ts'
import { addSlack, concretizeCovered, errorOf, executionSlack } from '../../src/bounds/slack.ts'
import { through } from '../../src/bounds/walk.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { compile, evaluate } from '../../src/compile/run.ts'
import { order } from '../../src/compile/tape.ts'
import { interval, type Relax, type Slope } from '../../src/core/op.ts'
import type { Semantics } from '../../src/core/rounding.ts'
import * as S from '../../src/core/shape.ts'
import type { Interval, Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { crown } from '../../src/robust/bounds.ts'
import { random } from '../backend/wasm-programs.ts'
import { type Dyadic, exactly, float32Run, minus, plus, sign, times } from '../robust/dyadic.ts'
import { composed, numberOf, quotient, reals } from '../robust/real.ts'
import { right } from '../shared.ts'

/**
 * Each lemma of bounds/slack.ts by itself: what one step of a walk loses, in exact arithmetic, against the error that it owns up to.
 */
interface Lemma {
  /** Of the boxed operand and of the points, without the image axis for the operand. */
  readonly z: S.Shape
  readonly points: readonly S.Shape[]
  readonly node: (z: Tensor, points: readonly Tensor[]) => Tensor
  readonly exact: (z: readonly Dyadic[], points: readonly Float32Array[]) => readonly Dyadic[]
  readonly slopes?: readonly Slope[]
  /** Executions that the semantics covers, if there is more than rounding the exact value. */
  readonly execute?: (z: readonly number[], points: readonly Float32Array[], next: () => number) => readonly number[]
  /** Real arithmetic alone, where nothing is assumed of executions. */
  readonly only?: Semantics
  /** False where a step loses nothing. */
  readonly loses?: boolean
}

const dot = (a: readonly Dyadic[], b: readonly Dyadic[]): Dyadic =>
  a.reduce((s, x, i) => plus(s, times(x, b[i])), exactly(0))
const all = (x: ArrayLike<number>): readonly Dyadic[] => Array.from(x, exactly)
const positive = (x: Dyadic): Dyadic => (sign(x) > 0 ? x : exactly(0))

const product = (n: number, m: number): Lemma => ({
  z: [n],
  points: [[m, n]],
  node: (z, [w]) => O.matmul(z, w, { transB: true }),
  exact: (z, [w]) => Array.from({ length: m }, (_, j) => dot(z, all(w.subarray(j * n, (j + 1) * n)))),
  execute: (z, [w], next) =>
    float32Run(
      [
        {
          outputs: Array.from({ length: m }, (_, j) => ({
            terms: z.map((_, k) => [w[j * n + k], k] as const),
            bias: 0,
          })),
        },
      ],
      z,
      next,
    ),
})

/** A function whose implementations may be off by 8 units in the last place. */
function smooth(name: 'exp' | 'tanh' | 'sigmoid'): Lemma {
  return {
    z: [7],
    points: [],
    // Some of the numbers below are too large for e^x.
    node: (z) => (name === 'exp' ? O.exp(O.minimum(z, 3) as Tensor) : name === 'tanh' ? O.tanh(z) : O.sigmoid(z)),
    exact: (z) => z.map((v) => reals[name](name === 'exp' && sign(plus(v, exactly(-3))) > 0 ? exactly(3) : v)),
    slopes: ['same', 'adaptive'],
    execute: (z, _, next) =>
      z.map((v) => {
        const y = numberOf(reals[name](exactly(name === 'exp' ? Math.min(3, v) : v)))
        const unit = 2 ** Math.max(-149, Math.floor(Math.log2(Math.abs(y))) - 23)
        return Math.fround(y + (Math.floor(15 * next()) - 7) * unit)
      }),
  }
}

type Next = () => number
/** A float32 implementation of a function of real numbers that is off by up to so many units in the last place. */
const off =
  (f: (x: Dyadic) => Dyadic, units: number) =>
  (x: number, next: Next): number => {
    const y = numberOf(f(exactly(x)))
    const unit = 2 ** Math.max(-149, Math.floor(Math.log2(Math.abs(y))) - 23)
    return Math.fround(y + (Math.floor((2 * units + 1) * next()) - units) * unit)
  }
const [expOff, logOff, tanhOff, sigmoidOff, erfOff] = [
  off(reals.exp, 7),
  off(reals.log, 7),
  off(reals.tanh, 7),
  off(reals.sigmoid, 7),
  off(composed.erf, 15),
]
const f32 = Math.fround
const softplusRun = (x: number, next: Next): number => {
  const naive = logOff(f32(1 + expOff(Math.min(x, 80), next)), next)
  return x > 80 ? x : next() < 0.5 ? naive : f32(Math.max(x, 0) + logOff(f32(1 + expOff(-Math.abs(x), next)), next))
}

/** A function of one variable that implementations compose of others, as they write it; of numbers up to 32 in size. */
const limited = (x: number): number => Math.min(32, Math.max(-32, x))
const written = (
  node: (z: Tensor) => Tensor,
  exact: (x: Dyadic) => Dyadic,
  run: (x: number, next: Next) => number,
): Lemma => ({
  z: [7],
  points: [],
  node: (z) => node(O.clamp(z, -32, 32) as Tensor),
  exact: (z) => z.map((v) => exact(exactly32(v))),
  slopes: ['same', 'adaptive'],
  execute: (z, _, next) => z.map((v) => run(limited(v), next)),
})
const exactly32 = (v: Dyadic): Dyadic =>
  sign(plus(v, exactly(-32))) > 0 ? exactly(32) : sign(plus(v, exactly(32))) < 0 ? exactly(-32) : v

const WRITTEN: Readonly<Record<string, Lemma>> = {
  softplus: written((z) => O.softplus(z), composed.softplus, softplusRun),
  softsign: written(
    (z) => O.softsign(z),
    composed.softsign,
    (x) => f32(x / f32(1 + Math.abs(x))),
  ),
  elu: written(
    (z) => O.elu(1.5)(z),
    composed.elu(1.5),
    (x, next) => (x > 0 ? x : f32(1.5 * f32(expOff(x, next) - 1))),
  ),
  gelu: written(
    (z) => O.gelu('none')(z),
    composed.gelu,
    (x, next) => f32(f32(0.5 * x) * f32(1 + erfOff(f32(x * f32(Math.SQRT1_2)), next))),
  ),
  'gelu by tanh': written(
    (z) => O.gelu('tanh')(z),
    composed.tanhGelu,
    (x, next) => {
      const cubed = f32(f32(0.044715) * f32(x * f32(x * x)))
      return f32(f32(0.5 * x) * f32(1 + tanhOff(f32(f32(Math.sqrt(2 / Math.PI)) * f32(x + cubed)), next)))
    },
  ),
  silu: written(
    (z) => O.silu(z),
    composed.silu,
    (x, next) => f32(x * sigmoidOff(x, next)),
  ),
  mish: written(
    (z) => O.mish(z),
    composed.mish,
    (x, next) => f32(x * tanhOff(softplusRun(x, next), next)),
  ),
  hardSwish: written(
    (z) => O.hardSwish(z),
    composed.hardSwish,
    (x) => f32(x * Math.min(1, Math.max(0, f32(f32(x * f32(1 / 6)) + 0.5)))),
  ),
  erf: written((z) => O.erf(z), composed.erf, erfOff),
  cube: written((z) => O.pow(3)(z), composed.power(3), off(composed.power(3), 15)),
  'power by multiplications': written(
    (z) => O.pow(5)(z),
    composed.power(5),
    (x) => [x, x, x, x].reduce((p, y) => f32(p * y), x),
  ),
  'prelu of slopes below and above 1': {
    z: [7],
    points: [[7]],
    node: (z, [b]) => O.prelu(z, b) as Tensor,
    exact: (z, [b]) => z.map((v, i) => (sign(v) >= 0 ? v : times(exactly(b[i]), v))),
    slopes: ['same', 'adaptive', 'zero'],
    execute: (z, [b]) => z.map((v, i) => (v >= 0 ? v : f32(b[i] * v))),
  },
  'log-sum-exp': {
    z: [3, 5],
    points: [],
    node: (z) => O.logSumExp(O.clamp(z, -32, 32) as Tensor, 2),
    exact: (z) =>
      [0, 5, 10].map((at) =>
        reals.log(
          z
            .slice(at, at + 5)
            .map((v) => reals.exp(exactly32(v)))
            .reduce(plus),
        ),
      ),
    execute: (z, _, next) =>
      [0, 5, 10].map((at) => {
        const x = z.slice(at, at + 5).map(limited)
        const m = next() < 0.5 ? Math.max(...x) : 0
        const shares = x.map((v) => expOff(f32(v - m), next))
        return f32(
          m +
            logOff(
              shares.reduce((a, b) => f32(a + b)),
              next,
            ),
        )
      }),
  },
}

/** Weights and operands of every element of a transposed convolution of 2 channels of 2 x 3 to 3 of 3 x 5, windows of 2 x 3, stride [1, 2], padding [0, 1]. */
const transposedTerms = (w: Float32Array): readonly (readonly (readonly [number, number])[])[] =>
  Array.from({ length: 3 * 3 * 5 }, (_, e) => {
    const [o, row, col] = [Math.floor(e / 15), Math.floor(e / 5) % 3, e % 5]
    const terms: (readonly [number, number])[] = []
    for (let c = 0; c < 2; c++)
      for (let i = 0; i < 2; i++)
        for (let j = 0; j < 3; j++) {
          const [p, q] = [row - i, col + 1 - 2 * j]
          if (p >= 0 && p < 2 && q >= 0 && q < 3) terms.push([w[((c * 3 + o) * 2 + p) * 3 + q], (c * 2 + i) * 3 + j])
        }
    return terms
  })

const LEMMAS: Readonly<Record<string, Lemma>> = {
  'product, many to one': product(12, 1),
  'product, few to many': product(2, 12),
  'product over the last axis of tokens': {
    z: [3, 4],
    points: [[4, 2]],
    node: (z, [w]) => O.matmul(z, w) as Tensor,
    exact: (z, [w]) =>
      [0, 4, 8].flatMap((at) =>
        [0, 1].map((j) => dot(z.slice(at, at + 4), all([0, 1, 2, 3].map((k) => w[2 * k + j])))),
      ),
    execute: (z, [w], next) =>
      float32Run(
        [
          {
            outputs: [0, 4, 8].flatMap((at) =>
              [0, 1].map((j) => ({ terms: [0, 1, 2, 3].map((k) => [w[2 * k + j], at + k] as const), bias: 0 })),
            ),
          },
        ],
        z,
        next,
      ),
  },
  'product with a matrix on the left': {
    z: [4, 2],
    points: [[3, 4]],
    node: (z, [w]) => O.matmul(w, z) as Tensor,
    exact: (z, [w]) =>
      [0, 1, 2].flatMap((i) =>
        [0, 1].map((t) =>
          dot(
            all(w.subarray(4 * i, 4 * i + 4)),
            [0, 1, 2, 3].map((k) => z[2 * k + t]),
          ),
        ),
      ),
    execute: (z, [w], next) =>
      float32Run(
        [
          {
            outputs: [0, 1, 2].flatMap((i) =>
              [0, 1].map((t) => ({ terms: [0, 1, 2, 3].map((k) => [w[4 * i + k], 2 * k + t] as const), bias: 0 })),
            ),
          },
        ],
        z,
        next,
      ),
  },
  'point added': {
    z: [12],
    points: [[12]],
    node: (z, [b]) => O.add(z, b),
    exact: (z, [b]) => z.map((v, i) => plus(v, exactly(b[i]))),
  },
  'point subtracted from': {
    z: [3, 4],
    points: [[4]],
    node: (z, [b]) => O.sub(b, z) as Tensor,
    exact: (z, [b]) => z.map((v, i) => plus(exactly(b[i % 4]), minus(v))),
  },
  'point multiplied': {
    z: [5],
    points: [[5]],
    node: (z, [p]) => O.mul(z, p),
    exact: (z, [p]) => z.map((v, i) => times(v, exactly(p[i]))),
  },
  relu: {
    z: [7],
    points: [],
    node: (z) => O.relu(z),
    exact: (z) => z.map(positive),
    slopes: ['same', 'adaptive', 'zero'],
  },
  'leaky relu': {
    z: [7],
    points: [],
    node: (z) => O.leakyRelu(0.09375)(z),
    exact: (z) => z.map((v) => (sign(v) > 0 ? v : times(v, exactly(0.09375)))),
    slopes: ['same', 'adaptive', 'zero'],
  },
  ...Object.fromEntries((['tanh', 'sigmoid', 'exp'] as const).map((name) => [name, smooth(name)])),
  sine: {
    z: [7],
    points: [],
    // Doubles are wrong by 2^-53, which the kernel's error covers.
    node: (z) => O.sin(O.minimum(O.maximum(z, -64), 64) as Tensor),
    exact: (z) => z.map((v) => exactly(Math.sin(Math.max(-64, Math.min(64, numberOf(v)))))),
    slopes: ['same', 'adaptive'],
    only: 'real',
    loses: false,
  },
  'root of a positive number': {
    z: [7],
    points: [],
    node: (z) => O.sqrt(O.add(O.abs(z), 2 ** -10) as Tensor),
    exact: (z) => z.map((v) => reals.sqrt(plus(sign(v) < 0 ? minus(v) : v, exactly(2 ** -10)))),
    slopes: ['same', 'adaptive'],
    execute: (z) => z.map((v) => Math.fround(Math.sqrt(Math.fround(Math.abs(v) + 2 ** -10)))),
  },
  magnitude: {
    z: [7],
    points: [],
    node: (z) => O.abs(z),
    exact: (z) => z.map((v) => (sign(v) < 0 ? minus(v) : v)),
    slopes: ['same', 'adaptive', 'zero'],
  },
  'larger of a box and a point': {
    z: [7],
    points: [[7]],
    node: (z, [b]) => O.maximum(b, z) as Tensor,
    exact: (z, [b]) => z.map((v, i) => (sign(plus(v, minus(exactly(b[i])))) > 0 ? v : exactly(b[i]))),
    slopes: ['same', 'adaptive', 'zero'],
  },
  'smaller of a box and a point': {
    z: [7],
    points: [[7]],
    node: (z, [b]) => O.minimum(z, b) as Tensor,
    exact: (z, [b]) => z.map((v, i) => (sign(plus(v, minus(exactly(b[i])))) < 0 ? v : exactly(b[i]))),
    slopes: ['same', 'adaptive', 'zero'],
  },
  'point divided by a box': {
    z: [7],
    points: [[7]],
    node: (z, [b]) => O.div(b, O.add(O.abs(z), 1) as Tensor) as Tensor,
    exact: (z, [b]) => z.map((v, i) => quotient(exactly(b[i]), plus(sign(v) < 0 ? minus(v) : v, exactly(1)))),
    execute: (z, [b]) => z.map((v, i) => Math.fround(b[i] / Math.fround(Math.abs(v) + 1))),
  },
  'transposed convolution': {
    z: [2, 2, 3],
    points: [[2, 3, 2, 3]],
    node: (z, [w]) => O.convTranspose2d(z, w, { stride: [1, 2], padding: [0, 1] }),
    exact: (z, [w]) =>
      transposedTerms(w).map((terms) => terms.reduce((s, [a, k]) => plus(s, times(exactly(a), z[k])), exactly(0))),
    execute: (z, [w], next) =>
      float32Run([{ outputs: transposedTerms(w).map((terms) => ({ terms, bias: 0 })) }], z, next),
  },
  clip: {
    z: [7],
    points: [[], []],
    node: (z, [low, high]) => O.clip(z, low, high),
    exact: (z, [[low], [high]]) => {
      const larger = (a: Dyadic, b: Dyadic) => (sign(plus(a, minus(b))) >= 0 ? a : b)
      return z.map((v) => minus(larger(minus(larger(v, exactly(low))), exactly(-high))))
    },
    slopes: ['same', 'adaptive', 'zero'],
  },
  'largest of windows': {
    z: [2, 5],
    points: [],
    node: (z) => O.max(z, 2),
    exact: (z) => [0, 5].map((at) => z.slice(at, at + 5).reduce((a, b) => (sign(plus(a, minus(b))) >= 0 ? a : b))),
  },
  sum: {
    z: [3, 6],
    points: [],
    node: (z) => O.sum(z, 2),
    exact: (z) => [0, 6, 12].map((at) => z.slice(at, at + 6).reduce(plus)),
    execute: (z, _, next) =>
      float32Run(
        [
          {
            outputs: [0, 6, 12].map((at) => ({ terms: [0, 1, 2, 3, 4, 5].map((k) => [1, at + k] as const), bias: 0 })),
          },
        ],
        z,
        next,
      ),
  },
  repetition: {
    z: [3, 1],
    points: [],
    node: (z) => O.broadcastTo(z, [1, 3, 8]),
    exact: (z) => z.flatMap((v) => Array.from({ length: 8 }, () => v)),
    execute: (z) => z.flatMap((v) => Array.from({ length: 8 }, () => v)),
  },
  windows: {
    z: [1, 3, 3],
    points: [],
    node: (z) => O.unfold(z, 2),
    exact: (z) => [0, 1, 3, 4].flatMap((at) => [0, 1, 3, 4].map((k) => z[at + k])),
    execute: (z) => [0, 1, 3, 4].flatMap((at) => [0, 1, 3, 4].map((k) => z[at + k])),
  },
  ...WRITTEN,
  rearrangement: {
    z: [2, 3],
    points: [],
    node: (z) => O.neg(O.pad(O.transpose(O.reshape(z, [1, 3, 2]), [0, 2, 1]), [0, 1, 0], [0, 0, 0])),
    exact: (z) => [exactly(0), exactly(0), exactly(0), z[0], z[2], z[4], z[1], z[3], z[5]].map(minus),
    execute: (z) => [0, 0, 0, z[0], z[2], z[4], z[1], z[3], z[5]].map((v) => -v),
    loses: false,
  },
}

const ROWS = 3

/** A backend's function of the lemma: from the box, coefficients and points to what the step gives. */
const prepare = async (backend: Backend, lemma: Lemma, semantics: Semantics, slope: Slope) => {
  const z = O.input('z', [1, ...lemma.z]) as Tensor
  const [l, u] = [O.input('l', z.shape), O.input('u', z.shape)] as readonly Tensor[]
  const points = lemma.points.map((s, i): Tensor => O.input(`p${i}`, s))
  const x = lemma.node(z, points)
  const a = O.input('a', [ROWS, ...x.shape]) as Tensor
  const boxes = new Map<Tensor, Interval>([[z, interval(l, u)]])
  const box = (y: Tensor): Interval => {
    const known = boxes.get(y)
    if (known !== undefined) return known
    const { executed } = cover.results(
      y,
      y.inputs.map((i) => (i.inputs.length === 0 && i !== z ? i : box(i))),
    )
    boxes.set(y, executed)
    return executed
  }
  const boxed = new Set<Tensor>([z])
  const chain: Tensor[] = []
  for (let y = x; y !== z; y = y.inputs.find((i) => !points.includes(i)) as Tensor) {
    boxed.add(y)
    chain.push(y)
  }
  const cover = covering(order([x]), boxed, (y) => y === z, semantics, box)
  const ctx: Context = { images: 1, boxed, bounds: box, slope: () => slope, outward: cover }
  let rows = { lower: a, upper: a }
  const parts: Tensor[] = []
  for (const y of chain) {
    const step = through(rows, y, ctx)
    const zero = O.full([ROWS, 1], 0)
    const error = errorOf(rows, y, addSlack(step.slack, executionSlack(y, cover)))
    parts.push(
      ...[step.ends?.lower, step.ends?.upper, error?.lower, error?.upper].map((t) =>
        O.broadcastTo(t ?? zero, [ROWS, 1]),
      ),
    )
    rows = step.to.find((r) => r !== undefined) as typeof rows
  }
  const outputs = [rows.lower, rows.upper, ...parts]
  const inputs = [l, u, a, ...points]
  const f = await compile(backend)(outputs, inputs)
  const buffers = [...inputs, ...outputs].map((t) => backend.alloc(S.size(t.shape)))
  return {
    coefficients: S.size(x.shape),
    run: async (data: readonly Float32Array[]) => {
      data.forEach((d, i) => {
        backend.write(buffers[i], d)
      })
      f.run(buffers)
      const out: ArrayLike<number>[] = []
      for (const b of buffers.slice(inputs.length)) out.push(await backend.read(b))
      return out
    },
    close: () => {
      for (const b of buffers) backend.free(b)
      f.release()
    },
  }
}

/** Numbers that round badly: of all sizes, or one large and many just above half of its last place, which all round one way. */
const KINDS = ['ordinary', 'spread', 'drift', 'tiny'] as const
const numbers = (kind: (typeof KINDS)[number], n: number, next: () => number): Float32Array => {
  const unit = () => 2 * next() - 1
  const large = Math.floor(n * next())
  return Float32Array.from({ length: n }, (_, i) => {
    if (kind === 'ordinary') return unit()
    if (kind === 'spread') return unit() * 2 ** Math.floor(30 * next() - 15)
    if (kind === 'tiny') return unit() * 2 ** -Math.floor(50 + 90 * next())
    return i === large ? 1 : 2 ** -24 * (1 + 2 ** -10 * (1 + Math.floor(4 * next())))
  })
}

const RUNS = 60

for (const [name, lemma] of Object.entries(LEMMAS))
  test(`${name}: what a step loses is within the error that it adds`, async () => {
    const next = random(7)
    const backends = [right(await wasm({ threads: 1 })()), reference()]
    let [lost, overran] = [0, 0]
    for (const semantics of lemma.only === undefined ? (['real', 'deployed'] as const) : [lemma.only])
      for (const slope of lemma.slopes ?? ['adaptive'])
        for (const backend of backends) {
          const f = await prepare(backend, lemma, semantics, slope)
          for (let run = 0; run < RUNS; run++) {
            const kind = KINDS[run % KINDS.length]
            const n = S.size(lemma.z)
            const one = numbers(kind, n, next)
            const other =
              run % 3 === 0 ? one : one.map((v) => Math.fround(v + (2 * next() - 1) * Math.abs(v) * 2 ** -(run % 9)))
            const flip = kind !== 'drift' && run % 2 === 0
            const [p, q] = [one, other].map((x) => x.map((v, i) => (flip && i % 3 === 0 ? -v : v)))
            const [lower, upper] = [p.map((v, i) => Math.min(v, q[i])), p.map((v, i) => Math.max(v, q[i]))]
            // A box that a ReLU is unstable on.
            if (run % 4 === 1) lower.forEach((v, i) => (lower[i] = Math.min(v, -upper[i] * next())))
            // Terms that are 0 in every execution.
            if (run % 5 === 2)
              for (const end of [lower, upper]) end.forEach((v, i) => end.fill(i % 3 > 0 ? 0 : v, i, i + 1))
            const a = numbers(kind === 'drift' && lemma.execute ? 'ordinary' : kind, ROWS * f.coefficients, next)
            // A single coefficient, so that only executions lose.
            if (run % 5 === 0) a.forEach((_, i) => (a[i] = Number(i % (f.coefficients + 1) === 0)))
            const points = lemma.points.map((s) =>
              kind === 'drift' ? numbers('ordinary', S.size(s), next).fill(1) : numbers(kind, S.size(s), next),
            )
            const [low, high, ...parts] = (await f.run([lower, upper, a, ...points])).map(all)
            for (let t = 0; t < 3; t++) {
              const z = Array.from(lower, (l, i) => {
                const share = t < 2 ? Math.round(next()) : next()
                return Math.min(upper[i], Math.max(l, Math.fround(l + share * (upper[i] - l))))
              })
              const values = [lemma.exact(all(z), points)]
              if (semantics === 'deployed') {
                const executed = lemma.execute?.(z, points, next)
                values.push(executed === undefined ? values[0] : all(executed))
              }
              for (const v of values)
                for (let r = 0; r < ROWS; r++) {
                  const m = f.coefficients
                  const truth = dot(all(a.subarray(r * m, (r + 1) * m)), v)
                  const gained = (side: 0 | 1) =>
                    parts.reduce((s, part, k) => (k % 4 === side ? plus(s, part[r]) : s), exactly(0))
                  const error = (side: 0 | 1) =>
                    parts.reduce((s, part, k) => (k % 4 === 2 + side ? plus(s, part[r]) : s), exactly(0))
                  const value = (rows: readonly Dyadic[], side: 0 | 1) =>
                    plus(dot(rows.slice(r * n, (r + 1) * n), all(z)), gained(side))
                  const below = plus(value(low, 0), minus(truth))
                  const above = plus(truth, minus(value(high, 1)))
                  for (const [side, loss] of [below, above].entries()) {
                    if (sign(loss) > 0) lost++
                    if (sign(plus(loss, minus(error(side as 0 | 1)))) > 0) overran++
                  }
                }
            }
          }
          f.close()
        }
    for (const b of backends) b.dispose()
    assert.is(overran, 0)
    // The test can fail: without the error terms it would.
    assert.is(lost > 0, lemma.loses ?? true, `${lost} losses`)
  })

test('bounds through products of two boxes and a softmax hold of values in doubles, where those to nearest do not', async () => {
  const next = random(61)
  const [tokens, width, images] = [5, 4, 16]
  const simd = right(await wasm({ threads: 1 })())
  const exact = reference()
  const [l, u] = ['l', 'u'].map((name) => O.input(name, [images, tokens, width])) as readonly Tensor[]
  const x = O.input('x', [images, tokens, width])
  let [missed, checked] = [0, 0]
  for (const scale of [0.25, 1, 4]) {
    const weights = () =>
      O.constant(
        Float32Array.from({ length: width * width }, () => scale * (2 * next() - 1)),
        [width, width],
      )
    const [q, k, v] = [weights(), weights(), weights()].map((w) => O.matmul(x as Operand, w) as Tensor)
    const attention = O.softmax(O.matmul(q, O.transpose(k, [0, 2, 1]) as Tensor) as Tensor, 2)
    const y = O.reshape(O.matmul(attention, v) as Tensor, [images, tokens * width])
    const boxes = new Map([[x, interval(l, u)]])
    const outward = crown(y, boxes, undefined, { outward: 'real' }).output()
    const nearest = crown(y, boxes, undefined, 'none').output()
    for (const radius of [0, 2 ** -12, 2 ** -4]) {
      const size = images * tokens * width
      const lower = Float32Array.from({ length: size }, () => 2 * next() - 1)
      const upper = lower.map((a) => a + radius)
      const given = new Map([
        [l, lower],
        [u, upper],
      ])
      const ends = await evaluate(simd)([outward.lower, outward.upper, nearest.lower, nearest.upper], given)
      for (let t = 0; t < 4; t++) {
        const at = Float32Array.from(lower, (a, i) =>
          Math.max(a, Math.min(upper[i], a + (t < 2 ? t : next()) * radius)),
        )
        const [value] = await evaluate(exact)([y], new Map([[x, at]]))
        for (let i = 0; i < value.length; i++) {
          checked++
          assert.ok(
            ends[0][i] <= value[i] && value[i] <= ends[1][i],
            `${value[i]} outside of [${ends[0][i]}, ${ends[1][i]}]`,
          )
          if (!(ends[2][i] <= value[i] && value[i] <= ends[3][i])) missed++
          if (radius === 0)
            assert.ok(ends[1][i] - ends[0][i] < 2 ** -8 * (1 + scale ** 3), `${ends[1][i] - ends[0][i]} wide`)
        }
      }
    }
  }
  assert.ok(missed > 0.02 * checked, `${missed} of ${checked}`)
  simd.dispose()
  exact.dispose()
})

test('lines of a ReLU hold exactly, with the slopes and intercepts as they were computed', async () => {
  const next = random(23)
  const n = 4000
  const [l, u] = [O.input('l', [n]), O.input('u', [n])] as readonly Tensor[]
  for (const backend of [right(await wasm({ threads: 1 })()), reference()]) {
    for (const [op, leak] of [
      [O.reluOp, 0],
      [O.leakyReluOp, 0.09375],
    ] as const) {
      const relax = op.outward?.relax as Relax<{ readonly slope: number } | undefined>
      const { lower, upper } = relax([interval(l, u)], { slope: leak }, 'adaptive')
      const outputs = [lower.slopes[0], upper.slopes[0], upper.intercept as Tensor]
      const size = () => (1 - 2 * next()) * 2 ** Math.floor(40 * next() - 20)
      const lows = Float32Array.from({ length: n }, size)
      const highs = lows.map((v) => Math.max(v, Math.fround(next() < 0.8 ? size() : v + Math.abs(v) * next())))
      const given = new Map([
        [l, lows],
        [u, highs],
      ])
      const [p, s, t] = (await evaluate(backend)(outputs, given)).map(all)
      const f = (v: number) => (v > 0 ? exactly(v) : times(exactly(v), exactly(leak)))
      for (let i = 0; i < n; i++)
        for (const v of [lows[i], highs[i], ...(lows[i] < 0 && highs[i] > 0 ? [0] : [])]) {
          const z = exactly(v)
          assert.ok(sign(plus(f(v), minus(times(p[i], z)))) >= 0, `below [${lows[i]}, ${highs[i]}]`)
          assert.ok(sign(plus(plus(times(s[i], z), t[i]), minus(f(v)))) >= 0, `above [${lows[i]}, ${highs[i]}]`)
        }
    }
    backend.dispose()
  }
})

test('lines of a clip hold exactly, with the slopes and intercepts as they were computed', async () => {
  const next = random(29)
  const n = 4000
  const [l, u, low, high] = ['l', 'u', 'low', 'high'].map((name): Tensor => O.input(name, [n]))
  for (const backend of [right(await wasm({ threads: 1 })()), reference()]) {
    for (const slope of ['same', 'adaptive', 'zero'] as const) {
      const relax = O.clipOp.outward?.relax as Relax<undefined>
      const { lower, upper } = relax([interval(l, u), low, high], undefined, slope)
      const outputs = [lower.slopes[0], lower.intercept, upper.slopes[0], upper.intercept] as readonly Tensor[]
      const size = () => (1 - 2 * next()) * 2 ** Math.floor(40 * next() - 20)
      const sorted = () => [Float32Array.from({ length: n }, size), Float32Array.from({ length: n }, size)]
      const order = ([a, b]: readonly Float32Array[]) => [
        a.map((v, i) => Math.min(v, b[i])),
        a.map((v, i) => Math.max(v, b[i])),
      ]
      const [[ls, us], [lows, highs]] = [order(sorted()), order(sorted())]
      const given = new Map([l, u, low, high].map((t, i) => [t, [ls, us, lows, highs][i]]))
      const [p, s, q, t] = (await evaluate(backend)(outputs, given)).map(all)
      const inside = (v: number, i: number) => Math.min(Math.max(v, ls[i]), us[i])
      for (let i = 0; i < n; i++)
        for (const v of [ls[i], us[i], inside(lows[i], i), inside(highs[i], i)]) {
          const [z, f] = [exactly(v), exactly(Math.min(Math.max(v, lows[i]), highs[i]))]
          const where = `${slope} [${ls[i]}, ${us[i]}], limits [${lows[i]}, ${highs[i]}]`
          assert.ok(sign(plus(f, minus(plus(times(p[i], z), s[i])))) >= 0, `below ${where}`)
          assert.ok(sign(plus(plus(times(q[i], z), t[i]), minus(f))) >= 0, `above ${where}`)
          assert.ok(Math.abs(Number(p[i].m) * 2 ** p[i].e) <= 1 && Math.abs(Number(q[i].m) * 2 ** q[i].e) <= 1)
        }
    }
    backend.dispose()
  }
})

test('the end of a walk at a box is within its error', async () => {
  const next = random(11)
  for (const backend of [right(await wasm({ threads: 1 })()), reference()]) {
    const [n, shape] = [12, [1, 3, 4]]
    const [l, u, z, a] = [O.input('l', shape), O.input('u', shape), O.input('z', shape), O.input('a', [ROWS, ...shape])]
    const { value, error } = concretizeCovered({ lower: a as Tensor, upper: a as Tensor }, z, interval(l, u))
    const outputs = [value?.lower, value?.upper, error.lower, error.upper] as readonly Tensor[]
    const f = await compile(backend)(outputs, [l, u, a])
    const buffers = [l, u, a, ...outputs].map((t) => backend.alloc(S.size(t.shape)))
    let lost = 0
    for (let run = 0; run < 300; run++) {
      const kind = KINDS[run % KINDS.length]
      const lower = numbers(kind, n, next)
      const upper = lower.map((v) => (run % 3 === 0 ? v : Math.fround(v + Math.abs(v) * next() * 2 ** -(run % 20))))
      const rows = numbers(run % 2 === 0 ? kind : 'ordinary', ROWS * n, next)
      for (const [i, d] of [lower, upper, rows].entries()) backend.write(buffers[i], d)
      f.run(buffers)
      const out: (readonly Dyadic[])[] = []
      for (const b of buffers.slice(3)) out.push(all(await backend.read(b)))
      for (let r = 0; r < ROWS; r++) {
        const row = rows.subarray(r * n, (r + 1) * n)
        const least = dot(all(row), all(lower.map((v, i) => (row[i] > 0 ? v : upper[i]))))
        const most = dot(all(row), all(upper.map((v, i) => (row[i] > 0 ? v : lower[i]))))
        const [below, above] = [plus(out[0][r], minus(least)), plus(most, minus(out[1][r]))]
        if (sign(below) > 0) lost++
        assert.ok(sign(plus(below, minus(out[2][r]))) <= 0, `${kind} ${run}: lower`)
        assert.ok(sign(plus(above, minus(out[3][r]))) <= 0, `${kind} ${run}: upper`)
      }
    }
    assert.ok(lost > 0)
    for (const b of buffers) backend.free(b)
    f.release()
    backend.dispose()
  }
})

test.run()
