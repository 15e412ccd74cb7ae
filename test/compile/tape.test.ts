import fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { plan } from '../../src/compile/plan.ts'
import { evaluate } from '../../src/compile/run.ts'
import { order, print, stage, substitute, tape } from '../../src/compile/tape.ts'
import { grad } from '../../src/compile/vjp.ts'
import { key } from '../../src/core/key.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { check } from '../ops/property.ts'
import { dags } from './dag.ts'

const host = (count: number): O.Host => ({ count, epoch: 0, progress: 0, epsilon: 0.1, balance: 0.5, key: key(count) })

test('order: every node once, after its inputs, nothing else', () =>
  check(100, dags(), ({ outputs }) => {
    const nodes = order(outputs)
    const at = new Map(nodes.map((x, i) => [x, i]))
    assert.is(at.size, nodes.length)
    for (const x of nodes) for (const i of x.inputs) assert.ok((at.get(i) as number) < (at.get(x) as number))
    const needed = new Set<Tensor>()
    const visit = (x: Tensor): void => {
      if (needed.has(x)) return
      needed.add(x)
      x.inputs.forEach(visit)
    }
    outputs.forEach(visit)
    assert.is(needed.size, nodes.length)
  }))

test('tape: a value computed twice is one node, whatever built it', () => {
  const x = O.input('x', [3])
  const twice = () => O.relu(O.add(O.mul(x, 2), O.constant([1, 2, 3], [3])))
  const { nodes, outputs } = tape([twice(), twice()])
  assert.is(outputs[0], outputs[1])
  assert.is(nodes.filter((n) => n.op === O.mulOp).length, 1)
  assert.is(nodes.length, 6)
})

test('tape: what differs in attributes, inputs or constants stays apart', () => {
  const x = O.input('x', [2, 3])
  const y = O.input('x', [2, 3])
  const apart: readonly (readonly [Tensor, Tensor])[] = [
    [O.relu(x), O.relu(y)],
    [O.sum(x, 0, true), O.sum(x, 1, true)],
    [O.scalar(0), O.scalar(-0)],
    [O.constant([1, 2], [2]), O.constant([1, 2], [1, 2])],
    [O.sub(x, y) as Tensor, O.sub(y, x) as Tensor],
    [O.constant(new Float64Array(100), [100]), O.constant(new Float64Array(100), [100])],
  ]
  for (const [a, b] of apart) {
    const { outputs } = tape([a, b])
    assert.is.not(outputs[0], outputs[1], `${a.op.name}(${a.shape})`)
  }
  const same = tape([O.scalar(Number.NaN), O.scalar(Number.NaN)])
  assert.is(same.outputs[0], same.outputs[1])
})

test('tape: dead nodes are not in it, composites are expanded', () => {
  const x = O.input('x', [2, 3])
  O.exp(x)
  const { nodes } = tape([O.logSumExp(O.leakyRelu(0.1)(x), 1)])
  assert.not.ok(nodes.some((n) => 'expand' in n.op.kernel))
  for (const [op, count] of [
    [O.logSumExpOp, 0],
    [O.expOp, 1],
    [O.maxOp, 1],
    [O.maximumOp, 1],
  ] as const)
    assert.is(nodes.filter((n) => n.op === op).length, count, op.name)
})

test('print: one line per value', () => {
  const x = O.input('x', [2, 3])
  const w = O.input('w', [3, 4])
  const y = O.relu(O.add(O.matmul(x, w), O.constant([1, -2, 0.5, 4, 0.25].slice(0, 4), [4])) as Tensor)
  assert.is(
    print(tape([O.sum(y, 1), y])),
    `%0 = input() {x} [2,3]
%1 = input() {w} [3,4]
%2 = matmul(%0, %1) {transA=false transB=false} [2,4]
%3 = constant() {1 -2 0.5 4} [4]
%4 = add(%2, %3) [2,4]
%5 = relu(%4) [2,4]
%6 = sum(%5) {axes=[1] keep=false} [2]
return %6, %5`,
  )
})

test('substitute replaces nodes by others', () => {
  const x = O.input('x', [2])
  const a = O.relu(x)
  const z = O.input('z', [2])
  const [y] = substitute([O.add(a, a) as Tensor], new Map([[a, z as Tensor]]))
  assert.equal(order([y]), [z, y])
})

const DEEP = 100_000

test('a graph of 100,000 nodes is ordered, differentiated, staged and planned without recursion', async () => {
  const x = O.input('x', [2])
  const half = O.scalar(0.5)
  let y: Tensor = x
  // An affine contraction to 1, with a view chain in it.
  for (let i = 0; i < DEEP / 2; i++) y = O.add(O.mul(y, half), half) as Tensor
  const loss = O.sum(y)
  assert.is(tape([loss]).nodes.length, DEEP + 3)
  assert.is(stage([loss]).resolve(host(0))[0], loss)
  const backend = reference()
  const [value, g] = await evaluate(backend)([loss, ...grad(loss, [x])], new Map([[x, Float64Array.of(3, -1)]]))
  assert.is(value[0], 2)
  assert.equal([...g], [0, 0])
  assert.is(backend.stats().live, 0)
})

test('a chain of 100,000 reshapes is planned without recursion', async () => {
  const x = O.input('x', [2])
  let y: Tensor = x
  for (let i = 0; i < DEEP; i++) y = O.reshape(y, i % 2 === 0 ? [2, 1] : [2]) as Tensor
  const p = plan([y], [x])
  assert.is(p.arena, 0)
  const [value] = await evaluate(reference())([O.stopGradient(y)], new Map([[x, Float64Array.of(3, -1)]]))
  assert.equal([...value], [3, -1])
})

test('stage: only the drawn branch reaches the plan, and the key lists the draws', () => {
  const x = O.input('x', [2])
  const even = O.choose((h) => h.count % 2, [O.exp(x), O.tanh(x)])
  // A choice inside a branch that is not drawn is not even looked at.
  const nested = O.choose(
    (h) => (h.count < 2 ? 0 : 1),
    [
      even,
      O.choose(() => {
        throw new Error('drawn')
      }, [x]),
    ],
  )
  const y = O.add(nested, even) as Tensor
  for (const count of [0, 1]) {
    const staging = stage([y])
    const outputs = staging.resolve(host(count))
    assert.is(staging.key(host(count)), `0,${count}`)
    const ops = tape(outputs).nodes.map((n) => n.op.name)
    assert.ok(ops.includes(count === 0 ? 'exp' : 'tanh'))
    assert.not.ok(ops.includes(count === 0 ? 'tanh' : 'exp'))
    assert.not.ok(ops.includes('choose'))
    assert.ok(plan(outputs, [x]).calls.every((c) => c.name !== 'choose'))
  }
  assert.throws(() => stage([y]).resolve(host(2)), /drawn/)
  assert.throws(() => plan([y], [x]), /undecided choice/)
  assert.throws(() => grad(O.sum(y), [x]), /undecided choice/)
  assert.throws(() => stage([O.choose(() => 2, [x, x])]).key(host(0)), /drew branch 2/)
})

test('stage: equal keys mean equal graphs', () =>
  check(50, fc.tuple(fc.nat(7), fc.nat(7)), ([p, q]) => {
    const x = O.input('x', [2])
    const bit = (k: number) => (h: O.Host) => (h.count >> k) & 1
    const inner = O.choose(bit(0), [O.exp(x), O.choose(bit(1), [O.tanh(x), x])])
    const y = O.mul(inner, O.choose(bit(2), [O.relu(x), inner])) as Tensor
    const { key, resolve } = stage([y])
    const text = (k: number) => print(tape(resolve(host(k))))
    // Different draws may still lead to one graph (a choice between equal branches), never the other way round.
    if (key(host(p)) === key(host(q))) assert.is(text(p), text(q))
  }))

test('a graph without choices is staged to itself', () =>
  check(20, dags(), ({ outputs }) => {
    const staging = stage(outputs)
    assert.is(staging.key(host(0)), '')
    staging.resolve(host(0)).forEach((x, i) => assert.is(x, outputs[i]))
  }))

test.run()
