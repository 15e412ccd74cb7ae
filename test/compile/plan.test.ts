import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { encode } from '../../src/backend/wasm/words.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { type Plan, plan } from '../../src/compile/plan.ts'
import { compile } from '../../src/compile/run.ts'
import { order } from '../../src/compile/tape.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { adam } from '../../src/train/optimizer.ts'
import { check, numbers } from '../ops/property.ts'
import { right } from '../shared.ts'
import { dags, firstDifference, runPlan, SUMS } from './dag.ts'

let machine: Backend

test('wasm starts', async () => {
  machine = right(await wasm({ threads: 1 })())
})

const casesOf = (without: readonly string[] = []) =>
  dags(28, without).chain((dag) =>
    fc.tuple(fc.constant(dag), fc.tuple(...dag.inputs.map((x) => numbers(S.size(x.shape), -1.5, 1.5)))),
  )
const cases = casesOf()

/** What a plan of one instruction a value would need. */
const total = (p: Plan): number => p.calls.reduce((n, c) => n + Math.ceil(S.size(c.outShape) / 64) * 64, 0)

test('slots lie inside the arena, the constants and the arguments', () =>
  check(100, cases, ([{ inputs, outputs, text }]) => {
    for (const fuse of [true, false]) {
      const p = plan(outputs, inputs, { fuse })
      assert.ok(p.arena <= total(p), `${text}: ${p.arena} elements for values of ${total(p)}`)
      for (const slot of p.slots)
        switch (slot.at) {
          case 'arena':
            assert.is(slot.offset % 64, 0)
            assert.ok(slot.offset + slot.length <= p.arena)
            break
          case 'constant':
            assert.ok(slot.offset + slot.length <= p.constants.length)
            break
          case 'input':
            assert.is(slot.length, S.size(p.inputs[slot.index]))
            break
          case 'output':
            assert.is(slot.length, S.size(p.outputs[slot.index]))
            break
          default:
            slot satisfies never
        }
    }
  }))

test('a chain of kernels uses two buffers in turn, whatever its length', () => {
  const w = O.input('w', [8, 8])
  const chain = (n: number) => {
    let y: Tensor = w
    for (let i = 0; i < n; i++) y = O.matmul(y, w as Tensor)
    return plan([O.sum(y)], [w]).arena
  }
  assert.is(chain(3), 2 * 64)
  assert.is(chain(50), 2 * 64)
})

test('liveness: nothing in the arena is read after it was overwritten, or before it was written', () =>
  // What an earlier run left in the arena (NaN everywhere) must not matter.
  check(80, cases, async ([{ inputs, outputs, text }, data]) => {
    const args = data.map((d) => Float32Array.from(d))
    const p = plan(outputs, inputs)
    const first = await runPlan(machine, p, args)
    const x = O.input('x', [4096])
    const left = O.transpose(O.reshape(O.add(x, Number.NaN) as Tensor, [64, 64]) as Tensor, [1, 0])
    await runPlan(machine, plan([O.sum(O.matmul(left, left))], [x]), [new Float32Array(4096)])
    const second = await runPlan(machine, p, args)
    first.forEach((a, k) => assert.is(firstDifference(a, second[k]), -1, text))
  }))

test('liveness: values that share memory are those of a plan that computes each apart', () =>
  check(80, casesOf(SUMS), async ([{ inputs, outputs, nodes, text }, data]) => {
    const args = data.map((d) => Float32Array.from(d))
    const shared = await runPlan(machine, plan(outputs, inputs), args)
    // Every value an output: each has a buffer of its own.
    const apart = await runPlan(machine, plan([...outputs, ...nodes], inputs, { fuse: false }), args)
    shared.forEach((a, k) => assert.is(firstDifference(a, apart[k]), -1, text))
    for (const epilogue of [false, true]) {
      const several = await runPlan(machine, plan(outputs, inputs, { results: true, epilogue }), args)
      several.forEach((a, k) => assert.is(firstDifference(a, shared[k]), -1, text))
    }
  }))

/** Loops of a plan, those that run as one each for itself, and values that they store besides their own. */
const loopsOf = ({ instructions }: Plan): { readonly loops: number; readonly stored: number } => {
  const loops = instructions.flatMap((i) => (i.kind === 'loops' ? i.loops : i.kind === 'loop' ? [i] : []))
  return { loops: loops.length, stored: loops.reduce((n, l) => n + l.stored.length, 0) }
}

test('what reads the same values becomes one loop, unless something else stands between', async () => {
  const [p, g, m, v] = ['p', 'g', 'm', 'v'].map((k): Tensor => O.input(k, [300]))
  const { parameters, state } = adam({ lr: 0.1 }).update({ p }, { p: g }, { first: { p: m }, second: { p: v } })
  const update = [parameters.p, state.first.p, state.second.p]
  const rates = order(update).filter((x) => x.op === O.inputOp && ![p, g, m, v].includes(x))
  const inputs = [p, g, m, v, ...rates]
  const apart = plan(update, inputs)
  const joint = plan(update, inputs, { results: true })
  assert.equal(loopsOf(joint), { loops: loopsOf(apart).loops - 2, stored: 2 })
  const data = inputs.map((x) => Float32Array.from({ length: S.size(x.shape) }, (_, i) => 0.25 + (i % 7)))
  const want = await runPlan(machine, apart, data)
  const got = await runPlan(machine, joint, data)
  got.forEach((a, k) => assert.is(firstDifference(a, want[k]), -1))

  // exp(x) and a value of a sum over it read x both, but the second needs the first whole.
  const x = O.input('x', [40])
  const e = O.exp(x)
  const share = O.div(e, O.sum(e)) as Tensor
  assert.is(loopsOf(plan([e, share], [x], { results: true })).stored, 0)
  // Two operands that repeat in different ways would cut what each loop walks in one piece.
  const [wide, rows, columns] = [
    [30, 40, 50],
    [30, 1, 1],
    [40, 1],
  ].map((d, i): Tensor => O.input(`r${i}`, d))
  const scaled = [O.mul(wide, rows), O.mul(wide, columns)] as Tensor[]
  assert.is(loopsOf(plan(scaled, [wide, rows, columns], { results: true })).loops, 2)
  assert.is(loopsOf(plan([scaled[0], O.exp(wide)], [wide, rows], { results: true })).loops, 1)
  // A value read by three loops is not recomputed where it is heavy, and is where it is light.
  const users = (y: Tensor) => [O.sum(y), O.max(y), O.mean(y)]
  const count = (y: Tensor) => loopsOf(plan(users(y), [x])).loops
  assert.is(count(O.exp(x)) - count(O.relu(x)), 1)
})

test('a loop joins an earlier one across a kernel, and stores only what is read', async () => {
  const [x, w] = ['x', 'w'].map((k): Tensor => O.input(k, [8, 8]))
  // Ends of an interval layer, as the next one reads them: the centre's product stands between centre and radius.
  const [lower, upper] = [O.exp(x), O.sqrt(x)]
  const centre = O.matmul(O.mul(O.add(upper, lower), 0.5), w)
  const radius = O.matmul(O.mul(O.sub(upper, lower), 0.5), w)
  const outputs = [O.sub(centre, radius), O.add(centre, radius)] as Tensor[]
  const apart = plan(outputs, [x, w])
  const joint = plan(outputs, [x, w], { results: true })
  assert.equal(loopsOf(apart), { loops: 6, stored: 0 })
  assert.equal(loopsOf(joint), { loops: 2, stored: 2 })
  const data = [1, 2].map((k) => Float32Array.from({ length: 64 }, (_, i) => 0.5 + ((i * k) % 7)))
  const want = await runPlan(machine, apart, data)
  const got = await runPlan(machine, joint, data)
  got.forEach((a, k) => assert.is(firstDifference(a, want[k]), -1))
})

test('updates of all parameters are one instruction, but what reads another update is none', async () => {
  const shapes = [[300], [4, 7], [1], [], [0], [2, 3, 5]]
  const [p, g, m, v] = ['p', 'g', 'm', 'v'].map((k) =>
    Object.fromEntries(shapes.map((d, i): [string, Tensor] => [`${i}`, O.input(`${k}${i}`, d)])),
  )
  // Gradients are computed by the plan as well.
  const gradients = Object.fromEntries(Object.entries(g).map(([k, x]) => [k, O.tanh(O.mul(x, O.sum(x)))]))
  const { parameters, state } = adam({ lr: 0.1 }).update(p, gradients as typeof g, { first: m, second: v })
  const update = [parameters, state.first, state.second].flatMap((x) => Object.values(x))
  const rates = order(update).filter((x) => x.op === O.inputOp && (x.attrs as O.InputAttrs).feed !== undefined)
  const inputs = [...[p, g, m, v].flatMap((x) => Object.values(x)), ...rates]
  const kinds = ({ instructions }: Plan) => instructions.map((i) => i.kind)
  const data = inputs.map((x, k) => Float32Array.from({ length: S.size(x.shape) }, (_, i) => 0.25 + ((i + k) % 7)))
  const apart = plan(update, inputs)
  const joint = plan(update, inputs, { results: true })
  assert.not(kinds(apart).includes('loops'))
  assert.is(kinds(joint).filter((k) => k === 'loops').length, 1)
  assert.is(kinds(joint).at(-1), 'loops')
  // One loop for each parameter that has elements.
  assert.is(loopsOf(joint).loops - kinds(joint).filter((k) => k === 'loop').length, shapes.length - 1)
  const want = await runPlan(machine, apart, data)
  const got = await runPlan(machine, joint, data)
  got.forEach((a, k) => assert.is(firstDifference(a, want[k]), -1))

  // The mean of two outputs waits for both.
  const [a, b] = [O.exp(p[0]), O.sqrt(p[0])]
  const next = plan([a, b, O.sum(O.add(O.relu(a), O.tanh(b)))], [p[0]], { results: true })
  assert.not(kinds(next).includes('loops'))
})

test('the negative of a term is not computed to be added', async () => {
  const special = [
    0,
    -0,
    1,
    -1,
    1e-45,
    Number.MAX_VALUE,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    Number.NaN,
  ]
  const n = special.length
  const [x, y] = ['x', 'y'].map((k): Tensor => O.input(k, [n * n]))
  const negative = O.neg(y)
  const data = [special.flatMap((a) => special.map(() => a)), special.flatMap(() => special)].map((a) =>
    Float32Array.from(a),
  )
  const operations = ({ instructions: [first] }: Plan) => (first.kind === 'loop' ? first.ops.length : 0)
  const sums = [O.add(x, negative), O.add(negative, x)] as Tensor[]
  for (const sum of sums) {
    assert.is(operations(plan([sum], [x, y])), 1)
    const [got] = await runPlan(machine, plan([sum], [x, y]), data)
    got.forEach((v, i) => assert.ok(Object.is(v, Math.fround(data[0][i] - data[1][i]))))
  }
})

test('bytes are known before a run and are what a run uses', async () => {
  for (const make of [async () => reference(), async () => right(await wasm({ threads: 1 })())]) {
    const backend = await make()
    const x = O.input('x', [64, 300])
    const y = O.tanh(O.matmul(O.tanh(x as Tensor), O.tanh(x as Tensor), { transB: true }))
    const outputs = [O.sum(y)]
    const before = backend.stats()
    assert.is(before.live, 0)
    const f = await compile(backend)(outputs, [x])
    const bytes = backend.dtype === 'f64' ? 8 : 4
    if (backend.name === 'wasm') assert.ok(f.scratchBytes >= plan(outputs, [x]).arena * 4)
    const buffers = [backend.alloc(64 * 300), backend.alloc(1)]
    assert.is(backend.stats().live, 2)
    assert.is(backend.stats().bytes, before.bytes + (64 * 300 + 1) * bytes)
    f.run(buffers)
    await backend.sync()
    const { peak } = backend.stats()
    // Besides arguments and scratch there is the program itself.
    const p = plan(outputs, [x])
    const program = 2 * encode(p.instructions).byteLength + 4 * (p.slots.length + p.constants.length) + 256
    assert.ok(peak <= f.scratchBytes + (64 * 300 + 1) * bytes + program, `${backend.name}: peak ${peak}`)
    for (const b of buffers) backend.free(b)
    f.release()
    assert.is(backend.stats().live, 0)
    assert.is(backend.stats().bytes, before.bytes)
    assert.throws(() => backend.free(buffers[0]), /not live/)
    backend.dispose()
  }
})

test('an input that is not an argument is refused by name', () => {
  const [x, y] = [O.input('x', [2]), O.input('weights', [2])]
  assert.throws(() => plan([O.add(x, y) as Tensor], [x]), /input 'weights' unbound/)
})

test('outputs may be inputs, constants, views of one value, and the same value twice', async () => {
  const x = O.input('x', [2, 3])
  const y = O.relu(x)
  const outputs = [x, O.constant([7, 8], [2]), y, y, O.reshape(y as Tensor, [6]), O.transpose(y, [1, 0]), O.scalar(4)]
  const data = Float32Array.of(1, -2, 3, -4, 5, -6)
  for (const fuse of [true, false]) {
    const got = await runPlan(machine, plan(outputs as readonly Tensor[], [x], { fuse }), [data])
    const r = [1, 0, 3, 0, 5, 0]
    assert.equal(
      got.map((g) => [...g]),
      [[...data], [7, 8], r, r, r, [1, 0, 0, 5, 3, 0], [4]],
    )
  }
})

test('no buffer is left', () => {
  assert.is(machine.stats().live, 0)
  machine.dispose()
})

test.run()
