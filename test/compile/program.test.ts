import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { fitted, program, programOf } from '../../src/compile/program.ts'
import { openRegion } from '../../src/compile/region.ts'
import { banksIn, sharedIn } from '../../src/compile/running.ts'
import { grad } from '../../src/compile/vjp.ts'
import { interval } from '../../src/core/op.ts'
import { add, input, matmul, mul, relu, sub, sum } from '../../src/ops/index.ts'
import { right } from '../shared.ts'

const backends = async () => [reference(), right(await wasm({ threads: 1 })())] as const

const affine = program({ net: { w: [2, 2], b: [2] }, x: [1, 2], epsilon: [] }, ({ net, x, epsilon }) => {
  const box = interval(sub(x, epsilon), add(x, epsilon))
  const y = relu(add(matmul(x, net.w), net.b))
  return { y, box: relu(add(matmul(box, net.w), net.b)), parts: [sum(y), x] }
})
const values = { net: { w: [1, -1, 1, 1], b: [0, 0.25] }, x: [0.5, 0.25], epsilon: 0.125 }

test('once: names in, names out, intervals by their ends', async () => {
  for (const backend of await backends()) {
    const { y, box, parts } = await affine.once(backend, values)
    assert.equal([...y], [0.75, 0])
    assert.equal(
      [[...box.lower], [...box.upper]],
      [
        [0.5, 0],
        [1, 0.25],
      ],
    )
    assert.equal(
      parts.map((p) => [...p]),
      [[0.75], [0.5, 0.25]],
    )
    assert.is(backend.stats().live, 0, 'everything is freed')
    backend.dispose()
  }
})

test('inputs stay until they are given again, buffers stay their owners', async () => {
  for (const backend of await backends()) {
    const { region, close } = openRegion(backend)
    const f = await affine.on(region)
    f.write({ net: values.net, epsilon: 0 })
    assert.equal([...(await f({ x: [1, 0] })).y], [1, 0])
    assert.equal([...(await f({ x: [0, 1] })).y], [1, 1.25])
    assert.equal([...(await f({ net: { b: [0, 0] } })).y], [1, 1], 'one input of a nested record')
    const shared = region.from(Float32Array.of(0, 0, 0, 0))
    assert.equal([...(await f({ net: { w: shared } })).y], [0, 0])
    backend.write(shared, Float32Array.of(0, 2, 0, 2))
    f.run()
    assert.equal([...(await backend.read(f.buffers.y))], [0, 2], 'the buffer is read in place')
    close()
    assert.is(backend.stats().live, 0)
    backend.dispose()
  }
})

test('outputs of one program are inputs of another, and gradients are graphs as any', async () => {
  for (const backend of await backends()) {
    const { region, close } = openRegion(backend)
    const step = await program({ w: [2], x: [2], rate: [] }, ({ w, x, rate }) => {
      const [g] = grad(sum(mul(mul(w, x), mul(w, x))), [w])
      return { next: sub(w, mul(rate, g)) }
    }).on(region)
    const square = await program({ w: [2] }, ({ w }) => ({ square: mul(w, w) })).on(region)
    step.run({ w: [1, 2], x: [1, 0.5], rate: 0.25 })
    assert.equal([...(await square({ w: step.buffers.next })).square], [0.25, 3.0625])
    close()
    backend.dispose()
  }
})

test('wrong arguments are refused by name', async () => {
  const backend = reference()
  const { region, close } = openRegion(backend)
  const f = await affine.on(region)
  // biome-ignore lint/suspicious/noExplicitAny: what the types refuse is tried at run time, too
  const loose = f as any
  await f({ x: [0, 0] }).then(
    () => assert.unreachable(),
    (e: Error) => assert.match(e.message, /net\.w, net\.b, epsilon was never given/),
  )
  assert.throws(() => loose.write({ net: { w: [1, 2] } }), /net\.w: expected 4 numbers \(\[2,2\]\), found 2/)
  assert.throws(() => loose.write({ net: { weight: 1 } }), /net\.weight: is no input; the inputs are w, b/)
  assert.throws(() => loose.write({ x: 'a string' }), /x: expected/)
  assert.throws(() => loose.write({ toString: [1] }), /toString: is no input/)
  close()
})

test('repeat: outputs are the inputs of the next time by their names, and what was given stays', async () => {
  // x <- 2 x + y, y <- x; z has the name of no input, w another shape.
  const step = program({ x: [2], y: [2], w: [3] }, ({ x, y, w }) => ({
    ...{ y: mul(x, 1), x: add(mul(x, 2), y), z: sub(x, y) },
    w: sum(w),
  }))
  for (const backend of await backends()) {
    const { region, close } = openRegion(backend)
    const f = await step.on(region)
    const x = region.from(Float32Array.of(1, 0))
    for (const times of [1, 2, 3, 8]) {
      f.repeat(times, { x, y: [1, 1], w: [1, 2, 3] })
      let [a, b, c] = [
        [1, 0],
        [1, 1],
        [0, 0],
      ]
      for (let i = 0; i < times; i++) [a, b, c] = [a.map((v, k) => 2 * v + b[k]), a, a.map((v, k) => v - b[k])]
      for (const [buffer, expected] of [
        [f.buffers.x, a],
        [f.buffers.y, b],
        [f.buffers.z, c],
        [f.buffers.w, [6]],
        [x, [1, 0]],
      ] as const)
        assert.equal([...(await backend.read(buffer))], expected, `${times} times`)
    }
    // The next call begins with what is given, not with what is left.
    const { x: once } = await f({})
    assert.equal([...once], [3, 1])
    close()
    assert.is(backend.stats().live, 0)
    backend.dispose()
  }
})

test('a graph that is there is a program, too: inputs in arrays, outputs where they are told to go, this once', async () => {
  const [x, y, box] = [input('x', [2]), input('y', [2]), interval(input('l', [2]), input('u', [2]))]
  const step = programOf({ xs: [x, y], box }, { next: [add(x, y), x], box: relu(box), same: x })
  for (const backend of await backends()) {
    const { region, close } = openRegion(backend)
    const f = await step.on(region)
    const elsewhere = region.alloc(2)
    const given = { xs: [[1, 2], Float32Array.of(3, 4)], box: { lower: [-1, 1], upper: [1, 2] } }
    f.run(given, { next: [elsewhere] })
    assert.equal([...(await backend.read(elsewhere))], [4, 6])
    const { next, box: found, same } = await f.read()
    assert.equal(
      [[...next[1]], [...same]],
      [
        [1, 2],
        [1, 2],
      ],
    )
    assert.equal(
      [[...found.lower], [...found.upper]],
      [
        [0, 1],
        [1, 2],
      ],
    )
    assert.equal([...(await f()).next[0]], [4, 6], 'in its own buffer again')
    assert.throws(() => f.run({}, { next: [region.alloc(3)] }), /next\.0: expected 2 numbers/)
    assert.throws(
      () =>
        f.run({
          xs: [
            [0, 0],
            [0, 0],
            [0, 0],
          ],
        } as never),
      /xs\.2: is no input/,
    )
    close()
    assert.is(backend.stats().live, 0)
    backend.dispose()
  }
})

test('banks take turns, and shared buffers are read by every program that was given them', async () => {
  const [w, rate, x] = [input('w', [2]), input('rate', []), input('x', [2])]
  const step = programOf({ state: { w }, x, rate }, { state: { w: sub(w, mul(rate, x)) } })
  const square = programOf({ w, x }, { y: mul(w, x) })
  for (const backend of await backends()) {
    const { region, close } = openRegion(backend)
    const [f, g] = [await step.on(region), await square.on(region)]
    const [bank, shared] = [banksIn(region, { w }), sharedIn(region, { x })]
    f.write(shared.buffers)
    g.write(shared.buffers)
    bank.write({ w: [8, 8] })
    shared.write({ x: [1, 2] })
    for (let i = 0; i < 3; i++) {
      f.run({ rate: 2, state: bank.front() }, { state: bank.back() })
      bank.turn()
    }
    assert.equal([...(await bank.read()).w], [2, -4])
    assert.equal([...(await g(bank.front())).y], [2, -8])
    close()
    assert.is(backend.stats().live, 0)
    backend.dispose()
  }
})

test('fitted: the largest number of images within a budget', async () => {
  const backend = right(await wasm({ threads: 1 })())
  const of = (n: number) => program({ x: [n, 64], w: [64, 64] }, ({ x, w }) => ({ y: matmul(relu(matmul(x, w)), w) }))
  const budget = of(10).bytes(backend)
  const { n, program: made } = fitted(backend, { wanted: 100, budget, what: 'one image' }, of)
  assert.ok(made.bytes(backend) <= budget && of(n + 1).bytes(backend) > budget, `${n} images`)
  assert.throws(() => fitted(backend, { wanted: 4, budget: 1, what: 'one image' }, of), /one image needs/)
  backend.dispose()
})

test.run()
