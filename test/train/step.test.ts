import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { accumulateOp } from '../../src/compile/accumulate.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { openRegion, type Region } from '../../src/compile/region.ts'
import { order } from '../../src/compile/tape.ts'
import { grad } from '../../src/compile/vjp.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { fold, key, uniform } from '../../src/core/key.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import { add, alternate, gate, type Loss, mix, sampled, scale, withPopulation } from '../../src/loss/loss.ts'
import { madry, natural, robust, worstCase } from '../../src/loss/objective.ts'
import { bounded, perturbed, smallBox } from '../../src/loss/region.ts'
import { crossEntropy } from '../../src/nn/criterion.ts'
import { batchNorm, conv, dense, flatten, isTrained, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { type Host, input } from '../../src/ops/index.ts'
import { crown, ibp, symbolic } from '../../src/robust/bounds.ts'
import { adam, type Optimizer, sgd } from '../../src/train/optimizer.ts'
import { type Trainer, trainer } from '../../src/train/step.ts'
import { bindings, host, modelOf, printed, run, stepOf } from '../loss/harness.ts'
import { right } from '../shared.ts'

const N = 4
const net = network('tiny', sequential(conv(2, 3, 2, 1), relu, flatten, dense(5), relu, dense(3)), {
  input: [1, 6, 6],
  classes: 3,
})
const start = { parameters: net.init(key(8)), slots: {} }
const batch = (i: number) => ({
  inputs: uniform(fold(key(9), i), N * 36),
  labels: Float32Array.from({ length: N }, (_, j) => (i + j) % 3),
})
const at = (count: number, over: Partial<Host> = {}) =>
  host({ count, key: fold(key(1), count), epsilon: 0.05, ...over })
const both: Loss = add(natural(crossEntropy), gate(alternate(1, 3))(robust(ibp, worstCase(crossEntropy))))
const options = (loss: Loss, optimizer: Optimizer = sgd({ lr: 0.125 })) =>
  ({ network: net, loss, optimizer, batchSize: N, range: [0, 1] }) as const

const simd = right(await wasm({ threads: 1 })())

/** A region that ends with the test, and leaves no buffer. */
const within = async (region: ReturnType<typeof openRegion>, use: (r: Region) => Promise<void>): Promise<void> => {
  const { backend } = region.region
  try {
    await use(region.region)
  } finally {
    region.close()
    assert.is(backend.stats().live, 0)
  }
}

const [step, model] = [stepOf(N, net.input, 3), modelOf(net)]
/** Value of a loss at some parameters, and its gradients. */
const direct = async (loss: Loss, parameters: Readonly<Record<string, ArrayLike<number>>>, i: number, h: Host) => {
  const { inputs, labels } = batch(i)
  const values = bindings(step, { inputs, labels, epsilon: Math.fround(h.epsilon) }, model, {
    ...Object.fromEntries(Object.entries(parameters).map(([k, v]) => [k, Float64Array.from(v)])),
  })
  const objective = loss(step)(model)
  const wrt = Object.values(model.parameters)
  const [value] = await run([objective], values, h)
  const gradients = await run(grad(objective, wrt), values, h)
  return { value: value[0], gradients: Object.fromEntries(Object.keys(parameters).map((k, j) => [k, gradients[j]])) }
}

test('a step that must need less memory takes images in parts: same update, and an error that says what one image takes', async () => {
  const data = batch(0)
  for (const method of [symbolic, crown]) {
    const loss = mix(0.5)(natural(crossEntropy), robust(method, worstCase(crossEntropy)))
    const stepped = async (backend: Backend, memory?: number) => {
      const { region, close } = openRegion(backend)
      try {
        const loop = await trainer(region)({ ...options(loss), memory }, start)
        await loop.step(data.inputs, data.labels, at(0))
        return { state: await loop.state(), terms: await loop.terms(), bytes: loop.scratchBytes() }
      } finally {
        close()
        assert.is(backend.stats().live, 0)
      }
    }
    const whole = await stepped(reference())
    const sizes = new Set<number>()
    for (let budget = 2 ** 17; ; budget *= 0.7) {
      const parted = await stepped(simd, budget).catch((e: MixtrainException) => e)
      if (parted instanceof MixtrainException) {
        assert.is(parted.error.kind, 'memory')
        assert.match(parted.message, /one image at a time/)
        break
      }
      sizes.add(parted.bytes)
      for (const [k, v] of Object.entries(parted.state.parameters))
        v.forEach((w, j) => {
          const want = whole.state.parameters[k][j]
          assert.ok(Math.abs(w - want) <= 1e-6 * (1 + Math.abs(want)), `${k}[${j}]: ${w} in parts, ${want} at once`)
        })
      assert.ok(Math.abs(parted.terms.robust - whole.terms.robust) < 1e-5)
    }
    assert.ok(sizes.size > 1, `${[...sizes]} bytes`)
  }
})

test('parts of a mean over images are added up to it, whatever their number; values with draws of their own stay whole', async () => {
  const { inputs, labels } = batch(3)
  const values = bindings(step, { inputs, labels, epsilon: 0.05 }, model, start.parameters)
  const losses = [
    robust(symbolic, worstCase(crossEntropy)),
    robust(crown, worstCase(crossEntropy)),
    worstCase(crossEntropy)(bounded(ibp, smallBox(0.4, perturbed(madry(2))))),
  ]
  for (const [k, loss] of losses.entries()) {
    const wrt = Object.values(model.parameters)
    const of = (parts: number) => {
      const value = loss({ ...step, parts })(model)
      return [value, ...grad(value, wrt)]
    }
    const want = await run(of(1), values, at(0))
    for (const parts of [2, 3, 4, 9]) {
      const outputs = of(parts)
      assert.is(
        order(outputs).some((x) => x.op === accumulateOp),
        k < 2,
      )
      const have = await run(outputs, values, at(0))
      have.forEach((v, o) =>
        v.forEach((w, j) => assert.ok(Math.abs(w - want[o][j]) <= 1e-12 * (1 + Math.abs(w)), `${parts} parts, ${o}`)),
      )
    }
  }
})

test('two steps are two updates by hand', () =>
  within(openRegion(reference()), async (region) => {
    const loss = mix(0.25)(natural(crossEntropy), sampled(2)(robust(ibp, worstCase(crossEntropy))))
    const loop = await trainer(region)(options(loss, sgd({ lr: 0.125, momentum: 0.5 })), start)
    let p: Record<string, number[]> = Object.fromEntries(Object.entries(start.parameters).map(([k, v]) => [k, [...v]]))
    const velocity = Object.fromEntries(Object.entries(p).map(([k, v]) => [k, v.map(() => 0)]))
    for (let i = 0; i < 2; i++) {
      const { inputs, labels } = batch(i)
      await loop.step(inputs, labels, at(i))
      const { gradients } = await direct(loss, p, i, at(i))
      p = Object.fromEntries(
        Object.entries(p).map(([k, values]) => [
          k,
          values.map((v, j) => {
            velocity[k][j] = 0.5 * velocity[k][j] + gradients[k][j]
            return v - 0.125 * velocity[k][j]
          }),
        ]),
      )
    }
    const state = await loop.state()
    assert.equal(Object.keys(state.parameters), Object.keys(net.parameters))
    assert.equal(Object.keys(state.slots), ['velocity'])
    for (const k of Object.keys(p)) {
      p[k].forEach((v, j) => {
        assert.ok(Math.abs(v - state.parameters[k][j]) <= 1e-6 * Math.abs(v) + 1e-9, `${k}[${j}]`)
        assert.ok(Math.abs(velocity[k][j] - state.slots.velocity[k][j]) <= 1e-6 * Math.abs(velocity[k][j]) + 1e-9)
      })
      const live = await region.backend.read(loop.parameters()[k])
      assert.equal([...Float32Array.from(live)], [...state.parameters[k]])
    }
  }))

test('training that goes on from a state is training that never stopped', () =>
  within(openRegion(simd), async (region) => {
    const made = (state: Parameters<ReturnType<typeof trainer>>[1]) =>
      trainer(region)(options(both, adam({ lr: 0.01 })), state)
    const steps = async (loop: Trainer, from: number, to: number) => {
      for (let i = from; i < to; i++) await loop.step(batch(i).inputs, batch(i).labels, at(i))
      return loop.state()
    }
    const whole = await steps(await made(start), 0, 6)
    const half = await steps(await made(start), 0, 3)
    assert.equal(await steps(await made(half), 3, 6), whole)
  }))

test('one update of all parameters at once is that of each by itself, bit by bit, for any number of threads', async () => {
  const after = async (backend: Backend) => {
    const { region, close } = openRegion(backend)
    const loop = await trainer(region)(options(both, adam({ lr: 0.01 })), start)
    for (let i = 0; i < 4; i++) await loop.step(batch(i).inputs, batch(i).labels, at(i))
    const state = await loop.state()
    close()
    return state
  }
  const want = await after({ ...simd, results: false })
  assert.equal(await after(simd), want)
  for (const threads of [2, 3]) {
    const more = right(await wasm({ threads })())
    assert.equal(await after(more), want)
    more.dispose()
  }
})

test('one plan for each combination of choices, however many steps', () =>
  within(openRegion(simd), async (region) => {
    const weight = ({ balance }: Host) => balance
    const loss = add(
      mix(weight)(natural(crossEntropy), robust(ibp, worstCase(crossEntropy))),
      gate(alternate(1, 2))(scale(0.5)(natural(crossEntropy))),
    )
    const loop = await trainer(region)(options(loss), start)
    assert.is(loop.variants(), 0)
    const seen: number[] = []
    for (const [i, balance] of [0.5, 0.5, 0.25, 0.75, 0, 0, 0.5].entries()) {
      await loop.step(batch(i).inputs, batch(i).labels, at(i, { balance, epsilon: 0.01 * i }))
      seen.push(loop.variants())
    }
    // Gate shut and open at an inner balance, then both at the end 0.
    assert.equal(seen, [1, 2, 2, 2, 3, 4, 4])
    assert.ok(loop.scratchBytes() > 0)
  }))

test('terms are means over the steps in which they took part, and start anew when read', () =>
  within(openRegion(reference()), async (region) => {
    const loop = await trainer(region)(options(both, sgd({ lr: 0 })), start)
    const h = (i: number) => at(i)
    for (let i = 0; i < 6; i++) await loop.step(batch(i).inputs, batch(i).labels, h(i))
    const value = async (loss: Loss, steps: readonly number[]) => {
      const values: number[] = []
      for (const i of steps) values.push((await direct(loss, start.parameters, i, h(i))).value)
      return values.reduce((a, b) => a + b) / values.length
    }
    const terms = await loop.terms()
    assert.equal(Object.keys(terms).sort(), ['natural', 'robust', 'total'])
    assert.ok(Math.abs(terms.natural - (await value(natural(crossEntropy), [0, 1, 2, 3, 4, 5]))) < 1e-9)
    assert.ok(Math.abs(terms.robust - (await value(robust(ibp, worstCase(crossEntropy)), [2, 5]))) < 1e-9)
    assert.equal(await loop.terms(), {})
    await loop.step(batch(0).inputs, batch(0).labels, h(0))
    assert.equal(Object.keys(await loop.terms()).sort(), ['natural', 'total'])
  }))

test('population statistics: bounds with running means of the batches before, clean terms with those of the batch', async () => {
  const layers = sequential(conv(2, 3, 2, 1), batchNorm, relu, flatten, dense(3))
  const normed = network('normed', layers, { input: [1, 6, 6], classes: 3 })
  const statistics = Object.keys(normed.parameters).filter((k) => !isTrained(normed.parameters[k]))
  const begin = { parameters: normed.init(key(3)), slots: {} }
  const bound = robust(ibp, worstCase(crossEntropy))
  const trained = async (loss: Loss) => {
    const { region, close } = openRegion(reference())
    try {
      // Parameters stand still, so that the statistics of each batch are known.
      const loop = await trainer(region)({ ...options(loss, sgd({ lr: 0 })), network: normed }, begin)
      for (let i = 0; i < 3; i++) await loop.step(batch(i).inputs, batch(i).labels, at(i))
      const [{ parameters }, terms] = [await loop.state(), await loop.terms()]
      await loop.calibrate({ count: 1, at: () => batch(0).inputs })
      return { parameters, terms, calibrated: (await loop.state()).parameters }
    } finally {
      close()
    }
  }
  const [plain, population] = [await trained(bound), await trained(withPopulation(bound))]
  const own = Object.fromEntries(Object.entries(normed.parameters).map(([k, { shape }]) => [k, input(k, shape)]))
  const x = input('x', [N, 1, 6, 6])
  const values = new Map<Tensor, Float64Array>(
    Object.entries(own).map(([k, t]) => [t, Float64Array.from(begin.parameters[k])]),
  )
  const measured: (readonly ArrayLike<number>[])[] = []
  for (let i = 0; i < 3; i++) {
    const graphs = normed.statistics(own)(x)
    measured.push(
      await run(
        statistics.map((k) => graphs[k]),
        new Map([...values, [x, Float64Array.from(batch(i).inputs)]]),
      ),
    )
  }
  statistics.forEach((k, j) => {
    assert.equal([...plain.parameters[k]], [...begin.parameters[k]])
    const want = begin.parameters[k].map((v, c) => measured.reduce((s, m) => 0.9 * s + 0.1 * m[j][c], v))
    want.forEach((v, c) =>
      assert.ok(Math.abs(population.parameters[k][c] - v) < 1e-6 * (1 + Math.abs(v)), `${k}: ${v}`),
    )
    assert.equal([...population.calibrated[k]], [...plain.calibrated[k]])
  })
  assert.is.not(population.terms.robust, plain.terms.robust)
  assert.ok(Number.isFinite(population.terms.robust))
  // Without batch norm it is the loss.
  assert.is(printed(withPopulation(bound), step, model), printed(bound, step, model))
})

test('parameters that do not fit the network are a usage error', () =>
  within(openRegion(simd), async (region) => {
    for (const parameters of [{ ...start.parameters, '0.bias': new Float32Array(3) }, {}])
      try {
        await trainer(region)(options(both), { parameters, slots: {} })
        assert.unreachable('no error')
      } catch (e) {
        assert.ok(e instanceof MixtrainException && e.error.kind === 'usage', String(e))
      }
  }))

test('no buffer is left', () => {
  assert.is(simd.stats().live, 0)
  simd.dispose()
})

test.run()
