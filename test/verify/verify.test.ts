import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { openRegion } from '../../src/compile/region.ts'
import { evaluate } from '../../src/compile/run.ts'
import { rewrite } from '../../src/compile/tape.ts'
import { show } from '../../src/core/error.ts'
import { fold, key, uniform } from '../../src/core/key.ts'
import { type Rounding, roundDown, roundUp } from '../../src/core/rounding.ts'
import * as S from '../../src/core/shape.ts'
import type { Apply, Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { budgetOf, OutOfTime } from '../../src/robust/budget.ts'
import { splitBranch } from '../../src/verify/branch.ts'
import { type Progress, verifyProperty } from '../../src/verify/branch-and-bound.ts'
import type { UnsafeCase } from '../../src/verify/counterexample.ts'
import { meets } from '../../src/verify/exact-constraint.ts'
import { goalExtent, goalsOf, grained, mixed } from '../../src/verify/goals.ts'
import { inputBrancher, inputWays, splitCell } from '../../src/verify/input-splits.ts'
import { queue } from '../../src/verify/queue.ts'
import { reluBrancher } from '../../src/verify/relu-splits.ts'
import { chain, conv, fc, flatten, generic, type Parameters, relu } from '../bounds/networks.ts'
import { dense, exactMinimum, run } from '../robust/exact.ts'
import { right, skipped } from '../shared.ts'
import { boxed, constraint, distance, instances, judged, mnistfc, propertyOf, subjectOf } from './verify-help.ts'

const simd = right(await wasm({ threads: 2 })())

// ---- known verdicts -----------------------------------------------------------------------------------------------------

const known = instances()
if (known === undefined) skipped('VNN-COMP instances', '../shared is absent')
else
  for (const { property, verdict } of known)
    test(`${property}: ${verdict}`, async () => {
      const result = await verifyProperty({ ...mnistfc(), property: propertyOf(property), timeout: 60 })(simd)
      assert.is(result.verdict, verdict)
      assert.is(simd.stats().live, 0)
    })

// ---- against exact enumeration ------------------------------------------------------------------------------------------

const UNIT = [
  [-1, -0.8],
  [0.9, 1],
] as const

for (const split of ['inputs', 'relus'] as const)
  test(`two inputs, split at ${split}: verdicts agree with the enumeration of activation patterns`, async () => {
    let searched = 0
    for (let seed = 1; seed <= 5; seed++) {
      const net = dense(seed, seed % 2 === 0 ? [2, 6, 6, 3] : [2, 5, 5, 5, 3], seed === 5 ? 0.125 : 0)
      // One constraint, and a conjunction of two, as in ACAS Xu.
      for (const rows of [
        [[1, -1, 0]],
        [
          [1, -1, 0],
          [0.5, 0, -1],
        ],
      ]) {
        const at0 = exactMinimum(
          net,
          UNIT[0],
          UNIT[1],
          rows.map((coefficients) => ({ coefficients, bound: 0 })),
        )
        for (const gap of [-0.2, -0.02, 0.02, 0.2]) {
          const conjunction = rows.map((r) => constraint(r, at0 + gap))
          const result = await judged(simd, net, [boxed(UNIT[0], UNIT[1], [conjunction])], { split, batchSize: 16 })
          assert.is(result.verdict, gap < 0 ? 'unsat' : 'sat', `seed ${seed}, ${rows.length} rows, gap ${gap}`)
          if (gap < 0) assert.ok(result.lower <= -gap + 1e-5, `lower bound ${result.lower} of ${-gap}`)
          searched += Number(result.bounded > 2)
        }
      }
    }
    assert.ok(searched >= 5, `only ${searched} properties needed a search`)
  })

test('a search that ends while a batch is out says no more than is proved', async () => {
  const net = dense(3, [2, 8, 8, 3])
  const [lower, upper] = [
    [-1, -1],
    [1, 1],
  ]
  const least = exactMinimum(net, lower, upper, [{ coefficients: [1, -1, 0], bound: 0 }])
  const cases = [boxed(lower, upper, [[constraint([1, -1, 0], least - 0.001)]])]
  for (const split of ['inputs', 'relus'] as const) {
    let known = 0
    for (let calls = 1, done = false; !done; calls++) {
      let left = calls
      const result = await verifyProperty({
        ...subjectOf(net),
        property: { inputs: 2, outputs: 3, cases },
        split,
        restarts: 0,
        batchSize: 1,
        // Called before each run of a plan: the time is up there.
        progress: () => {
          if (--left === 0) throw new OutOfTime('what comes next')
        },
      })(simd)
      done = left > 0
      if (result.verdict !== 'timeout') continue
      assert.ok(result.lower <= 0.001 + 1e-6, `${split}, ended at ${calls}: lower bound ${result.lower}`)
      known += Number(Number.isFinite(result.lower))
    }
    assert.ok(known > 4, `${split}: ${known} searches ended with a bound`)
  }
})

test('without the attack, branch and bound finds the counterexamples itself', async () => {
  for (let seed = 1; seed <= 4; seed++) {
    const net = dense(seed, [2, 6, 6, 2])
    const rows = [{ coefficients: [1, -1], bound: 0 }]
    const least = exactMinimum(net, UNIT[0], UNIT[1], rows)
    const cases = [boxed(UNIT[0], UNIT[1], [[constraint([1, -1], least + 0.02)]])]
    for (const split of ['inputs', 'relus'] as const)
      assert.is((await judged(simd, net, cases, { restarts: 0, split })).verdict, 'sat', `seed ${seed}, ${split}`)
  }
})

test('three and four inputs: nothing sampled contradicts a verdict, and both ways of splitting agree', async () => {
  const seen = new Set<string>()
  for (let seed = 10; seed < 16; seed++) {
    const inputs = 3 + (seed % 2)
    const net = dense(seed, [inputs, 6, 5, 3])
    const [lower, upper] = [Array<number>(inputs).fill(-0.6), Array<number>(inputs).fill(0.7)]
    const points = Array.from({ length: 4000 }, (_, k) =>
      generic(inputs, seed + 13 * k).map((v) => 0.05 + 0.65 * (k % 3 === 0 ? Math.sign(v) : v)),
    )
    const values = points.map((x) => distance([constraint([1, -1, 0], 0)], run(net, x)))
    const least = Math.min(...values)
    for (const gap of [-0.3, -0.05, 0.05]) {
      const cases = [boxed(lower, upper, [[constraint([1, -1, 0], least + gap)], [constraint([0, 0, 1], -50)]])]
      const verdicts: string[] = []
      for (const split of ['inputs', 'relus'] as const) {
        const result = await judged(simd, net, cases, { split })
        verdicts.push(result.verdict)
        if (result.verdict === 'unsat') assert.ok(gap < 0)
      }
      assert.is(verdicts[0], verdicts[1])
      if (gap > 0) assert.is(verdicts[0], 'sat')
      seen.add(verdicts[0])
    }
  }
  assert.equal([...seen].sort(), ['sat', 'unsat'])
})

test('several boxes and conjunctions: one counterexample anywhere is enough', async () => {
  const net = dense(3, [2, 6, 4, 3])
  const boxes = [
    [
      [-1, -1],
      [-0.2, 0],
    ],
    [
      [0.1, 0],
      [1, 1],
    ],
  ]
  const c = [1, 0, -1]
  const least = boxes.map(([l, u]) => exactMinimum(net, l, u, [{ coefficients: c, bound: 0 }]))
  const far = constraint([0, 1, 0], -1000)
  const cases = (bounds: readonly number[]) =>
    boxes.map(([l, u], i) => boxed(l, u, [[far], [constraint(c, bounds[i])], [far, constraint(c, 1000)]]))
  assert.is((await judged(simd, net, cases([least[0] - 0.05, least[1] - 0.05]))).verdict, 'unsat')
  assert.is((await judged(simd, net, cases([least[0] - 0.05, least[1] + 0.05]))).verdict, 'sat')
  assert.is((await judged(simd, net, cases([least[0] + 0.05, least[1] - 0.05]))).verdict, 'sat')
})

const NETS: Readonly<Record<string, (p: Parameters) => Apply>> = {
  convolutions: (p) =>
    chain(conv(p, '1', 3, 3, { padding: 1 }), relu, conv(p, '2', 3, 2, { stride: 2 }), relu, flatten, fc(p, '3', 3)),
  residual: (p) => (x) => {
    const a = chain(conv(p, '1', 2, 3, { padding: 1 }), relu)(x)
    const b = relu(O.add(conv(p, '2', 2, 3, { padding: 1 })(a) as Operand, a as Operand) as typeof x)
    return chain(flatten, fc(p, '3', 3))(b)
  },
  tanh: (p) => chain(flatten, fc(p, '1', 4), (x) => O.tanh(x), fc(p, '2', 3)),
  affine: (p) => chain(flatten, fc(p, '1', 3)),
}

for (const [name, build] of Object.entries(NETS))
  test(`${name}: there is one threshold at which the verdict turns, however the box is split`, async () => {
    const shape = [1, 4, 4]
    const fixed: Parameters = {
      get: (key, s, scale = 1) =>
        O.constant(Float32Array.from(generic(S.size(s), key.charCodeAt(0) + key.length, scale)), s),
      all: () => new Map(),
    }
    const subject = { network: build(fixed), input: shape, outputs: 3 }
    const centre = generic(16, 9)
    const [lower, upper] = [[...centre.map((v) => v - 0.15)], [...centre.map((v) => v + 0.15)]]
    // What cannot be rounded outward is refused, unless rounding to nearest is asked for.
    const rounding: Rounding = name === 'tanh' ? 'none' : { outward: 'deployed' }
    const verdictAt = async (bound: number) => {
      const cases = [boxed(lower, upper, [[constraint([1, -1, 0], bound)]])]
      const property = { inputs: 16, outputs: 3, cases }
      const both: string[] = []
      for (const split of ['inputs', 'relus'] as const)
        both.push((await verifyProperty({ ...subject, property, split, rounding, timeout: 20 })(simd)).verdict)
      assert.is(both[0], both[1])
      return both[0]
    }
    let [low, high] = [-8, 8]
    for (let i = 0; i < 6; i++) {
      const middle = (low + high) / 2
      const verdict = await verdictAt(middle)
      assert.ok(verdict === 'sat' || verdict === 'unsat', `${verdict} at ${middle}`)
      if (verdict === 'sat') high = middle
      else low = middle
    }
    assert.ok(low > -8 && high < 8)
  })

// ---- parts --------------------------------------------------------------------------------------------------------------

const REAL = { outward: 'real' } as const
const goalOf = (c: UnsafeCase, outputs: number) =>
  goalsOf(
    c,
    0,
    goalExtent(Math.max(...c.unsafe.map((u) => u.length)), c.unsafe.length),
    new Float64Array(outputs),
    REAL,
  )[0]

test('halves of inputs cover their cell and share no more than a face', async () => {
  const { region, close } = openRegion(simd)
  const net = dense(4, [3, 8, 8, 2])
  const c = boxed([-1, 0, 0.25], [1, 0, 0.75], [[constraint([1, -1], 0)]])
  const budget = budgetOf(region, 2 ** 30)
  const extent = { rows: 1, conjunctions: 1 }
  const brancher = await inputBrancher(budget)(
    subjectOf(net),
    { extent, clips: true, rounding: REAL },
    inputWays(subjectOf(net), 2 ** 30, 4)[0],
    4,
  )
  const [cell] = await brancher.bound([brancher.root(goalOf(c, 2))])
  const { box } = cell
  // An input without width is never halved.
  assert.equal([...cell.next].sort(), [0, 2])
  const volume = (b: typeof box) => (b.upper[0] - b.lower[0]) * (b.upper[2] - b.lower[2])
  let parts: readonly (typeof cell)[] = [cell]
  for (const count of [2, 4, 8]) {
    parts = parts.flatMap(splitCell)
    assert.is(parts.length, count)
    assert.is(
      parts.reduce((v, p) => v + volume(p.box), 0),
      volume(box),
    )
    for (let k = 0; k < 200; k++) {
      const x = generic(3, k)
      const at = box.lower.map((l, i) => Math.fround(l + (box.upper[i] - l) * (0.5 + 0.5 * x[i])))
      assert.ok(parts.some((p) => at.every((v, i) => v >= p.box.lower[i] && v <= p.box.upper[i])))
    }
    const bounded: (typeof cell)[] = []
    for (let i = 0; i < parts.length; i += 4) bounded.push(...(await brancher.bound(parts.slice(i, i + 4))))
    for (const p of bounded) assert.ok(p.lower >= cell.lower)
    parts = bounded
  }
  // Down to neighbours in float32, where there is nothing to halve any more.
  const thin = { lower: Float32Array.of(1, 0, 0), upper: Float32Array.of(1 + 2 ** -23, 0, 0) }
  const [last] = await brancher.bound([{ ...brancher.root(goalOf(c, 2)), box: thin }])
  assert.is(splitCell(last).length, 0)
  close()
})

test('all rows of a box and a mean of each conjunction are bounded together, and hold on its points', async () => {
  const { region, close } = openRegion(simd)
  const budget = budgetOf(region, 2 ** 30)
  const extent = { rows: 3, conjunctions: 2 }
  for (let seed = 1; seed <= 4; seed++) {
    // Layers of the last one are wide for two inputs: they are bounded by forms pushed forward.
    const net = dense(seed, seed === 4 ? [2, 140, 130, 3] : [2, 6, 6, 3])
    const c = boxed(
      [-0.5, -0.5],
      [0.5, 0.4],
      [
        [constraint([1, -1, 0], 0.25), constraint([0.5, 0, -1], -0.1), constraint([0, 1, 1], 0)],
        [constraint([-1, 0, 0.125], 0)],
      ],
    )
    const options = { extent, clips: true, rounding: REAL }
    for (const way of inputWays(subjectOf(net), 2 ** 20, 4)) {
      const brancher = await inputBrancher(budget)(subjectOf(net), options, way, 2)
      let cells = await brancher.bound([brancher.root(goalOf(c, 3))])
      for (let round = 0; round < 3; round++) {
        for (let k = 0; k < 500; k++) {
          const u = generic(2, seed + 31 * k)
          const x = [-0.5 + 0.5 * (u[0] + 1), -0.5 + 0.45 * (u[1] + 1)].map(Math.fround)
          const y = run(net, x)
          for (const cell of cells) {
            if (x.some((v, i) => v < cell.box.lower[i] || v > cell.box.upper[i])) continue
            c.unsafe.forEach((u, g) => {
              assert.ok(
                cell.margins[g] <= distance(u, y) + 1e-12,
                `${way.name}: ${cell.margins[g]} > ${distance(u, y)}`,
              )
            })
          }
        }
        const halves = cells.flatMap(splitCell)
        cells = []
        for (let i = 0; i < halves.length; i += 2) cells = [...cells, ...(await brancher.bound(halves.slice(i, i + 2)))]
      }
    }
  }
  close()
})

test('splits of neurons give each sign to one part; bounds of parts hold on their points and never fall', async () => {
  const { region, close } = openRegion(simd)
  const budget = budgetOf(region, 2 ** 30)
  for (let seed = 1; seed <= 3; seed++) {
    const net = dense(seed, [3, 6, 5, 2])
    const options = { batch: 8, rounding: REAL, steps: 10, lr: 0.2, candidates: 3 }
    const brancher = await reluBrancher(region, budget)(subjectOf(net), options)
    // One constraint, and one of which the second is implied.
    const rows = [constraint([1, -1], 0), ...(seed === 2 ? [constraint([2, -2], 1)] : [])]
    const c = boxed([-1, -1, -1], [1, 1, 1], [rows])
    // Wide boxes for the hidden neurons: sound, and every neuron unstable.
    const wide = [6, 5].map((n) => new Float32Array(n).fill(20))
    const hidden = { lower: wide.map((w) => w.map((v) => -v)), upper: wide }
    const slopes = [new Float32Array(6).fill(0.5), new Float32Array(5).fill(0.5)]
    const weights = Float64Array.from(rows, () => 1 / rows.length)
    const [root] = await brancher.bound([brancher.root(goalOf(c, 2), 0, hidden, slopes, weights)])
    const parts = splitBranch(root)
    assert.equal(
      parts.map((p) => p.splits),
      [0, 1].map((sign) => [2 * root.next[0] + sign]),
    )
    const bounded = await brancher.bound(parts)
    const deeper = await brancher.bound(bounded.flatMap(splitBranch))
    assert.is(deeper.length, 4)
    for (const p of deeper) assert.is(p.splits.length, 2)
    const hiddenAt = (x: ArrayLike<number>) => {
      const first = run({ ...net, layers: net.layers.slice(0, 1) }, x)
      return [...first, ...run({ ...net, layers: net.layers.slice(0, 2) }, x)]
    }
    for (const p of [...bounded, ...deeper]) assert.ok(p.lower >= root.lower)
    for (let k = 0; k < 3000; k++) {
      const x = generic(3, seed + 7 * k)
      const z = hiddenAt(x)
      const value = distance(c.unsafe[0], run(net, x))
      const own = (p: (typeof bounded)[number]) =>
        p.splits.every((s) => ((s & 1) === 1 ? z[s >> 1] >= 0 : z[s >> 1] <= 0))
      assert.ok(bounded.some(own) && deeper.some(own))
      for (const p of [root, ...bounded, ...deeper])
        if (own(p)) assert.ok(p.lower <= value + 1e-12, `bound ${p.lower} above ${value}`)
    }
  }
  close()
})

test('means of rows are exact, and their weights are non-negative with sum 1', () => {
  for (let k = 0; k < 300; k++) {
    const count = 1 + (k % 7)
    const u = generic(count, 5 * k).map((v) => Math.abs(v))
    const total = u.reduce((a, b) => a + b, 0)
    const weights = grained(u.map((v) => v / total))
    assert.is(
      weights.reduce((a, b) => a + b, 0),
      1,
    )
    for (const w of weights) assert.ok(w >= 0 && Number.isInteger(w * 128))
    const conjunction = {
      rows: Array.from({ length: count }, (_, r) =>
        Float32Array.from(generic(4, k + 17 * r), (v) => Math.round(v * 4096) / 512),
      ),
      bounds: Float32Array.from(generic(count, k + 3)),
      tolerance: new Float32Array(count),
      near: 0,
      dyadic: true,
    }
    const { row, bound } = mixed(conjunction, weights)
    // Multiples of 2^-16: BigInt arithmetic is exact.
    for (let j = 0; j < 4; j++) {
      const exact = conjunction.rows.reduce((s, r, i) => s + BigInt(weights[i] * 128) * BigInt(r[j] * 512), 0n)
      assert.is(BigInt(row[j] * 65536), exact)
    }
    // Bounds are float32, so 2^-149 is their grain; 2^-60 will do for those drawn here.
    const grain = 2 ** 60
    const least = conjunction.bounds.reduce((s, b, i) => s + BigInt(weights[i] * 128) * BigInt(b * grain), 0n)
    assert.ok(BigInt(bound * grain) * 128n >= least)
  }
})

test('the queue gives the least first, NaN before all', () => {
  const q = queue<number>()
  const bounds = [...generic(200, 3), Number.NaN, Number.POSITIVE_INFINITY]
  for (const [i, b] of bounds.entries()) q.push(b, i)
  assert.is(q.size(), 202)
  const easy = [q.popEasy(), q.popEasy()] as number[]
  const out = Array.from({ length: 200 }, () => {
    const least = q.least()
    const item = q.pop() as number
    assert.is(least, Number.isNaN(bounds[item]) ? Number.NEGATIVE_INFINITY : bounds[item])
    return item
  })
  assert.is(q.pop(), undefined)
  const order = out.map((i) => (Number.isNaN(bounds[i]) ? Number.NEGATIVE_INFINITY : bounds[i]))
  assert.equal(
    order,
    [...order].sort((a, b) => a - b),
  )
  assert.is(new Set([...easy, ...out]).size, 202)
})

test('constraints are decided exactly, and float32 rounds outward', () => {
  // 1 + 2^-53 - 1 is lost in doubles.
  const c = constraint([1, 1, -1], 0)
  assert.is(meets(c, [1, 2 ** -53, 1]), false)
  assert.is(meets(c, [1, -(2 ** -53), 1]), true)
  assert.is(meets(c, [1, 0, 1]), true)
  assert.is(meets(constraint([0.1], 0.01), [0.1]), false)
  assert.is(meets(constraint([1], -1e-320), [-1e-320]), true)
  assert.is(meets(constraint([1], 5), [Number.NaN]), false)
  assert.is(meets(constraint([1, 0], 5), [2, Number.POSITIVE_INFINITY]), true)
  assert.is(meets(constraint([-1], 5), [Number.POSITIVE_INFINITY]), false)
  for (const x of [0.1, -0.1, 1e-46, -1e-46, 0, 1 / 3, 1e30, 3, -(2 ** -149)]) {
    const [l, u] = [roundDown(x), roundUp(x)]
    assert.ok(l <= x && u >= x && Math.fround(l) === l && Math.fround(u) === u)
    if (Math.fround(x) === x) assert.ok(l === x && u === x)
    else assert.ok(Math.fround((l + u) / 2) === l || Math.fround((l + u) / 2) === u)
  }
})

// ---- ends ---------------------------------------------------------------------------------------------------------------

/**
 * sum_i relu(w_i x) - relu(-w_i x) - w_i x is 0 everywhere, which shows only on the tens of thousands of parts into which the planes w_i x = 0 cut the
 * box: more splits than there is time for.
 */
const hard = (idle = 0) => {
  const [inputs, planes, shift] = [6 + idle, 30, 64]
  const w = Array.from({ length: planes }, (_, i) =>
    Float32Array.from([...generic(6, 11 * i, 0.3), ...Array<number>(idle).fill(0)]),
  )
  const total = w[0].map((_, k) => w.reduce((s, row) => s + row[k], 0))
  const net = {
    leak: 0,
    layers: [
      {
        w: [...w, ...w.map((row) => row.map((v) => -v)), total],
        b: Float32Array.from({ length: 2 * planes + 1 }, (_, i) => (i === 2 * planes ? shift : 0)),
      },
      {
        w: [Float32Array.from({ length: 2 * planes + 1 }, (_, i) => (i < planes ? 1 : -1))],
        b: Float32Array.of(shift),
      },
    ],
  }
  return { net, cases: [boxed(Array(inputs).fill(-1), Array(inputs).fill(1), [[constraint([1], -0.01)]])] }
}

test('a time-out is honoured, and bounds are anytime', async () => {
  const { net, cases } = hard()
  for (const split of ['inputs', 'relus'] as const) {
    const none = await judged(simd, net, cases, { timeout: 0, split })
    assert.is(none.verdict, 'timeout')
    assert.is(none.lower, Number.NEGATIVE_INFINITY)
    const seen: Progress[] = []
    const begun = performance.now()
    const result = await judged(simd, net, cases, { timeout: 1.5, split, progress: (p) => void seen.push(p) })
    assert.is(result.verdict, 'timeout')
    assert.ok(performance.now() - begun < 6000, `${performance.now() - begun} ms`)
    const lowers = seen.filter((p) => p.phase === 'search').map((p) => p.lower)
    assert.ok(lowers.length > 1)
    lowers.forEach((l, i) => {
      assert.ok(i === 0 || l >= lowers[i - 1], `${l} after ${lowers[i - 1]}`)
    })
    assert.ok(result.lower >= lowers[lowers.length - 1] && result.lower <= 0)
  }
  assert.is(simd.stats().live, 0)
})

test('a full queue is unknown, with the reason', async () => {
  // Boxes of many inputs that matter to nothing: the plan of one and a few that wait are all that fits.
  const { net, cases } = hard(600)
  const result = await judged(simd, net, cases, { memory: 1_000_000, split: 'inputs', restarts: 0 })
  assert.is(result.verdict, 'unknown')
  assert.match(String(result.reason), /queue/)
})

/** A network of ReLUs whose lines are not proved. */
const unproved = (net: ReturnType<typeof dense>) => {
  const { network, ...rest } = subjectOf(net)
  const { outward: _, ...op } = O.reluOp
  const marked = ((x: Tensor) =>
    rewrite([network(x)], (n, inputs) =>
      inputs.length === 0 ? n : { ...n, inputs, ...(n.op === O.reluOp ? { op } : {}) },
    )[0]) as Apply
  return { ...rest, network: marked }
}

test('a network whose bounds are refused is attacked first; else it is unknown, and rounding to nearest named where it would go on', async () => {
  const subject = unproved(dense(2, [2, 5, 2]))
  const at = (bound: number) => ({
    inputs: 2,
    outputs: 2,
    cases: [boxed(UNIT[0], UNIT[1], [[constraint([1, 0], bound)]])],
  })
  assert.is((await verifyProperty({ ...subject, property: at(1000) })(simd)).verdict, 'sat')
  const open = await verifyProperty({ ...subject, property: at(-1000) })(simd)
  assert.is(open.verdict, 'unknown')
  assert.is(open.lower, Number.NEGATIVE_INFINITY)
  assert.match(String(open.reason), /outward rounding of relu.*--rounding none/)
  assert.is((await verifyProperty({ ...subject, property: at(-1000), rounding: 'none' })(simd)).verdict, 'unsat')
})

/** softmax(q k^T) v of three tokens, then ReLUs: both kinds of split meet products, exponentials and a sum's logarithm. */
const attention = (seed: number) => {
  const weights = (k: number, n: number, m: number) =>
    O.constant(Array.from(uniform(fold(key(seed), k), n * m, -1.5, 1.5), Math.fround), [n, m])
  const network = ((x: Tensor) => {
    const tokens = O.reshape(x, [x.shape[0], 3, 2]) as Tensor
    const [q, k, v] = [0, 1, 2].map((i): Tensor => O.matmul(tokens, weights(i, 2, 2)))
    const mixed = O.matmul(O.softmax(O.matmul(q, k, { transB: true }) as Tensor, 2), v) as Tensor
    const hidden = O.relu(O.matmul(O.reshape(mixed, [x.shape[0], 6]) as Tensor, weights(3, 6, 8))) as Tensor
    return O.matmul(hidden, weights(4, 8, 2))
  }) as Apply
  return { network, input: [6], outputs: 2 }
}

for (const split of ['inputs', 'relus'] as const)
  test(`attention, split at ${split}: what a point attains is never refuted, what lies below all of them is`, async () => {
    // Splits of ReLUs leave exponentials and products as they are, so that boxes are to be small.
    const reach = split === 'inputs' ? 0.1 : 0.01
    for (let seed = 1; seed <= 2; seed++) {
      const subject = attention(seed)
      const centre = Array.from(uniform(fold(key(seed), 9), 6, -1, 1))
      const [lower, upper] = [-reach, reach].map((r) => centre.map((c) => Math.fround(c + r)))
      // Corners, and points between.
      const points = Array.from({ length: 512 }, (_, i) => {
        const u = uniform(fold(key(seed), 100 + i), 6, 0, 1)
        return lower.map((l, j) => l + (i % 2 === 0 ? Math.round(u[j]) : u[j]) * (upper[j] - l))
      })
      const x: Tensor = O.input('x', [points.length, 6])
      const [y] = await evaluate(reference())([subject.network(x)], new Map([[x, Float64Array.from(points.flat())]]))
      const least = Math.min(...points.map((_, i) => y[2 * i] - y[2 * i + 1]))
      for (const gap of [-0.05, 1e-5]) {
        const property = { inputs: 6, outputs: 2, cases: [boxed(lower, upper, [[constraint([1, -1], least + gap)]])] }
        const { verdict, lower: bound } = await verifyProperty({
          ...subject,
          property,
          split,
          restarts: 0,
          timeout: gap < 0 ? 20 : 0.3,
        })(simd)
        assert.ok(
          gap < 0 ? verdict === 'unsat' : verdict !== 'unsat',
          `seed ${seed}, gap ${gap}: ${verdict} at ${bound}`,
        )
      }
    }
  })

test('whatever the memory, an answer within it', async () => {
  const net = dense(5, [6, 40, 40, 30, 3])
  const [lower, upper] = [Array<number>(6).fill(-0.2), Array<number>(6).fill(0.2)]
  const cases = [
    boxed(lower, upper, [[constraint([1, -1, 0], -30)], [constraint([0, 1, 0], -40), constraint([0, 0, 1], 0)]]),
  ]
  for (const split of ['inputs', 'relus'] as const)
    for (const memory of [1e4, 4e4, 8e4, 2e5, 1e7]) {
      const { verdict, reason } = await judged(simd, net, cases, { memory, split, timeout: 10 })
      // Too little for anything is told; all else decides this one.
      assert.ok(memory < 5e4 ? verdict !== 'sat' : verdict === 'unsat', `${split}, ${memory}: ${verdict} ${reason}`)
      if (verdict === 'unknown') assert.match(String(reason), /memory/)
    }
})

test('NaN and infinity are never unsat', async () => {
  const net = dense(1, [2, 4, 4, 2])
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
    const broken = {
      ...net,
      layers: net.layers.map((l, i) =>
        i === 1 ? { ...l, b: Float32Array.from(l.b, (v, j) => (j === 2 ? bad : v)) } : l,
      ),
    }
    for (const split of ['inputs', 'relus'] as const) {
      const cases = [boxed(UNIT[0], UNIT[1], [[constraint([1, -1], -1000)]])]
      const { verdict } = await judged(simd, broken, cases, { split, timeout: 0.3 })
      assert.ok(verdict === 'unknown' || verdict === 'timeout', `${bad}: ${verdict}`)
    }
  }
})

test('a point of a box, and a tie that no split can decide', async () => {
  const net = dense(2, [2, 5, 2])
  const x = [0.25, -0.5]
  const y = run(net, x)
  const at = (bound: number) => [boxed(x, x, [[constraint([1, 0], bound)]])]
  assert.is((await judged(simd, net, at(y[0] + 0.001))).verdict, 'sat')
  assert.is((await judged(simd, net, at(y[0] - 0.001))).verdict, 'unsat')
  const tie = await judged(simd, net, at(y[0] - 1e-12), { timeout: 0.5 })
  assert.is(tie.verdict, 'unknown')
  assert.match(String(tie.reason), /undecided/)
  // A case that stays open does not hide the counterexample of a later one.
  const later = [...at(y[0] - 1e-12), boxed(UNIT[0], UNIT[1], [[constraint([1, 0], 1000)]])]
  assert.is((await judged(simd, net, later, { timeout: 5, restarts: 0 })).verdict, 'sat')
})

test('verdicts do not depend on the batch, the seed or the device', async () => {
  const net = dense(6, [2, 6, 6, 2])
  const least = exactMinimum(net, UNIT[0], UNIT[1], [{ coefficients: [1, -1], bound: 0 }])
  for (const gap of [-0.03, 0.03]) {
    const cases = [boxed(UNIT[0], UNIT[1], [[constraint([1, -1], least + gap)]])]
    for (const split of ['inputs', 'relus'] as const)
      for (const [batchSize, seed] of [
        [2, 1],
        [64, 2],
      ])
        assert.is((await judged(simd, net, cases, { batchSize, seed, split })).verdict, gap < 0 ? 'unsat' : 'sat')
    const f64 = reference()
    assert.is((await judged(f64, net, cases, { batchSize: 4 })).verdict, gap < 0 ? 'unsat' : 'sat')
    assert.is(f64.stats().live, 0)
  }
})

test('a property about another network is refused', async () => {
  const net = dense(1, [2, 4, 2])
  const wrong = { inputs: 3, outputs: 2, cases: [] }
  try {
    await verifyProperty({ ...subjectOf(net), property: wrong })(simd)
    assert.unreachable()
  } catch (e) {
    assert.match(show((e as { error: never }).error), /3 inputs/)
  }
})

test('no buffer is left', () => {
  assert.is(simd.stats().live, 0)
  simd.dispose()
})

test.run()
