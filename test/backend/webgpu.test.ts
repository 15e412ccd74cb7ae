import * as E from 'fp-ts/lib/Either.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { deviceNames, openDevice } from '../../src/backend/device.ts'
import { openGpu } from '../../src/backend/webgpu/adapter.ts'
import { wrongResult } from '../../src/backend/webgpu/check.ts'
import { programOf } from '../../src/backend/webgpu/program.ts'
import { type WebGpuOptions, webgpu } from '../../src/backend/webgpu/webgpu.ts'
import { cutOf, pieceSize, TILES } from '../../src/backend/webgpu/wgsl/tile.ts'
import { grid } from '../../src/backend/webgpu/wgsl/wgsl.ts'
import { linearBounds } from '../../src/bounds/linear-bounds.ts'
import type { Backend } from '../../src/compile/backend.ts'
import type { Plan } from '../../src/compile/plan.ts'
import { openRegion } from '../../src/compile/region.ts'
import { evaluate } from '../../src/compile/run.ts'
import { MixtrainException, show } from '../../src/core/error.ts'
import { fold, key } from '../../src/core/key.ts'
import { Combine, LoopMode, Micro } from '../../src/core/lowering.ts'
import { interval } from '../../src/core/op.ts'
import { labelsOf, pixels } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { mixTrain } from '../../src/loss/objective.ts'
import { conv, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { add, constant, input, maximum, minimum, sub } from '../../src/ops/index.ts'
import { type Bounder, boundsOf, crown, crownIbp, ibp, symbolic } from '../../src/robust/bounds.ts'
import { margins } from '../../src/robust/specification.ts'
import { adam } from '../../src/train/optimizer.ts'
import { trainer } from '../../src/train/step.ts'
import { golden, mnistTest, networks, weights } from '../golden.ts'
import { left, right, skipped } from '../shared.ts'
import { between, fill } from './instructions.ts'
import { twentySteps } from './portable.ts'
import { type LoopSpec, loopOf, open as openWasm, planOf, randomArray, runPlan } from './wasm-programs.ts'
import { openOrSkip } from './webgpu-open.ts'

/** out = sum of `inputs` inputs of n elements each: every one in a buffer of its own. */
const sumOf = (inputs: number, n: number): LoopSpec => ({
  dims: [n],
  mode: LoopMode.map,
  combine: Combine.sum,
  kept: 1,
  out: { offset: 0, strides: [1] },
  inputs: Array.from({ length: inputs }, () => ({ offset: 0, strides: [1] })),
  temporaries: 1,
  ops: Array.from({ length: inputs }, (_, i) => [Micro.add, inputs, i, i === 0 ? i : inputs, 0]),
})
const LIMITS = { bindings: 8, bindingBytes: 2 ** 27, groups: 65535, tiles: false }

/** A plan whose arena has three values of n elements: x -> a -> b -> c = a + b -> out. */
const arenaPlan = (n: number): Plan => {
  const at = (i: number) => i * Math.ceil(n / 64) * 64
  // a + a, then that + b: twice the first plus the second.
  const loop = (out: number, a: number, b: number) => between(loopOf(sumOf(2, n)), out, a, b)
  return planOf(
    [loop(2, 0, 0), loop(3, 2, 0), loop(4, 2, 3), loop(1, 4, 2)],
    [n],
    [n],
    [0, 1, 2].map((i) => ({ at: 'arena' as const, offset: at(i), length: n })),
  )
}

// ---- without an adapter ----------------------------------------------------------------------------------------------

test('webgpu is a device by name', () => {
  assert.ok(deviceNames.includes('webgpu'))
})

test('an adapter that is refused is an error value; auto then says why it took WASM', async () => {
  const real = await webgpu({ accept: 'real' })()
  const auto = right(await openDevice()())
  if (E.isLeft(real)) {
    assert.is(real.left.kind, 'device')
    assert.is(auto.backend.name, 'wasm')
    assert.is(auto.backend.fallback, undefined)
    assert.match(auto.reason, 'no WebGPU: ')
    assert.match(show(real.left), auto.reason.slice('no WebGPU: '.length).split(';')[0])
  } else {
    assert.is(auto.backend.name, 'webgpu')
    assert.ok(auto.backend.fallback)
    real.right.dispose()
  }
  auto.backend.dispose()
})

test('a dispatch binds every buffer once, and never more than eight', () => {
  const { dispatches } = right(programOf(planOf([loopOf(sumOf(8, 5))], Array(8).fill(5), [5]), LIMITS))
  // Nine buffers: two inputs move into the arena, which takes a binding itself.
  assert.is(dispatches.length, 3)
  for (const d of dispatches) {
    assert.ok(d.bindings.length <= 8)
    assert.is(new Set(d.bindings.map((b) => JSON.stringify(b))).size, d.bindings.length)
    assert.not.match(d.source, 'storage, read>')
  }
})

test('an arena that is longer than a binding comes in pages: each is bound once, operands begin in it', () => {
  const [n, page] = [1000, 1024]
  const limits = { ...LIMITS, bindingBytes: page * 4 }
  const { dispatches, arena } = right(programOf(arenaPlan(n), limits))
  assert.is(arena, 3 * 1024)
  assert.equal(
    dispatches.map((d) => d.bindings.map((b) => (b.at === 'argument' ? `argument ${b.index}` : `${b.at} ${b.page}`))),
    [
      ['arena 0', 'argument 0'],
      ['arena 1', 'arena 0', 'argument 0'],
      ['arena 2', 'arena 0', 'arena 1'],
      ['argument 1', 'arena 2', 'arena 0'],
    ],
  )
  // Values that reach over the end of a page are worked on in pieces.
  const torn = right(programOf(arenaPlan(3000), limits)).dispatches
  assert.ok(torn.length > 8)
  for (const d of torn) {
    assert.is(new Set(d.bindings.map((b) => JSON.stringify(b))).size, d.bindings.length)
    assert.ok(d.bases.every((b) => b < page))
  }
})

test('workgroups keep to what every device has: 256 invocations, 16 KiB of memory', () => {
  for (const t of TILES) {
    assert.is(t.ty * t.tx, 256)
    for (const [a, b] of [
      ['k', 'k'],
      ['i', 'i'],
    ] as const)
      assert.ok((pieceSize(t, t.ty * t.down, a) + pieceSize(t, t.tx * t.across, b)) * 16 <= 16384, JSON.stringify(t))
  }
})

test('tiles by shape: large for large products, k shared where few results meet a long one', () => {
  const cut = (rows: number, cols: number, depth: number, most?: number) => {
    const { tile, parts } = cutOf({ rows, cols, depth, batch: 1 }, most)
    return { height: tile.ty * tile.down, width: tile.tx * tile.across, parts }
  }
  assert.equal(cut(4096, 4096, 4096), { height: 128, width: 128, parts: 1 })
  assert.equal(cut(64, 65536, 576), { height: 64, width: 256, parts: 1 })
  assert.ok(cut(10, 65536, 512).height <= 16)
  assert.ok(cut(100, 100, 100000).parts >= 16)
  assert.is(cut(100, 100, 100000, 4).parts, 4)
  assert.is(cut(1000, 1000, 60).parts, 1)
})

test('two instructions of one shape share a shader, wherever their operands lie', () => {
  const { dispatches } = right(programOf(arenaPlan(70), LIMITS))
  assert.is(dispatches[1].source === dispatches[2].source, false)
  const twice = right(programOf(planOf([loopOf(sumOf(2, 7)), loopOf(sumOf(2, 7))], [7, 7], [7]), LIMITS))
  assert.is(twice.dispatches[0].source, twice.dispatches[1].source)
})

test('a grid of more than 65535 workgroups gets further dims', () => {
  const n = 65536 * 256
  const [d] = right(programOf(planOf([loopOf(sumOf(1, n))], [n], [n]), LIMITS)).dispatches
  assert.ok(d.grid[0] <= 65535 && d.grid[0] * d.grid[1] * 256 >= n)
  assert.equal(grid(1, 65535), [1, 1, 1])
  const [x, y, z] = grid(1000, 10) ?? [0, 0, 0]
  assert.ok(Math.max(x, y, z) <= 10 && x * y * z >= 1000)
  assert.is(grid(1001, 10), undefined)
})

test('a malformed program is an error value', () => {
  assert.match(left(programOf(planOf([fill(7, 0, 1, 0)], [1], [1]), LIMITS)), 'malformed program')
})

// ---- with one --------------------------------------------------------------------------------------------------------

const gpu = await openOrSkip('the WebGPU backend')
if (gpu === undefined)
  test('webgpu asked for by name where there is none is an error value', async () => {
    assert.match(left(await openDevice({ device: 'webgpu' })()), 'device webgpu: ')
  })
else {
  test.after(() => gpu.dispose())

  const message = async (f: () => unknown): Promise<string> => {
    try {
      await f()
      return 'no error'
    } catch (e) {
      return e instanceof MixtrainException ? `${e.error.kind}: ${e.message}` : `not ours: ${e}`
    }
  }

  test('a known result comes back right', async () => {
    assert.is(await wrongResult(gpu), undefined)
    const byName = right(await openDevice({ device: 'webgpu' })())
    assert.is(byName.backend.name, 'webgpu')
    assert.is(byName.reason, 'asked for by name')
    assert.is(byName.backend.fallback, undefined)
    byName.backend.dispose()
  })

  test('buffers: written, read in part, freed once', async () => {
    const b = gpu.alloc(10)
    gpu.write(b, Float64Array.of(1, 2, 3), 4)
    gpu.write(b, new Float32Array(0), 10)
    assert.equal([...(await gpu.read(b, 3, 5))], [0, 1, 2, 3, 0])
    assert.is((await gpu.read(b, 10)).length, 0)
    assert.equal(gpu.stats(), { ...gpu.stats(), live: 1, bytes: 40 })
    assert.match(await message(() => gpu.write(b, new Float32Array(3), 8)), 'elements 8..11')
    assert.match(await message(() => gpu.read(b, -1, 2)), 'elements -1..1')
    gpu.free(b)
    assert.match(await message(() => gpu.free(b)), 'freed already')
    assert.match(await message(() => gpu.read(b)), 'freed already')
    assert.match(await message(() => gpu.write({ id: 1, length: 3 }, new Float32Array(3))), 'another backend')
    assert.is(gpu.stats().live, 0)
  })

  test('what does not fit is a memory error', async () => {
    assert.match(await message(() => gpu.alloc(2 ** 40)), 'memory: a buffer needs')
    const huge = planOf([loopOf(sumOf(1, 4))], [4], [4], [{ at: 'arena', offset: 0, length: 2 ** 36 }])
    const e = await gpu.compile(huge)()
    assert.ok(E.isLeft(e) && e.left.kind === 'memory')
    assert.is(await wrongResult(gpu), undefined)
  })

  test('an arena in one page and in several gives the same', async () => {
    const n = 3000
    const x = randomArray(n, 3)
    const want = x.map((v) => 29 * v)
    const narrow = right(await webgpu({ limits: { bindingBytes: 4096 } })())
    for (const b of [gpu, narrow]) {
      const [got] = await runPlan(b, arenaPlan(n), [x])
      assert.ok(
        got.every((v, i) => Math.abs(v - want[i]) < 1e-4),
        `${got.slice(0, 3)} not ${want.slice(0, 3)}`,
      )
    }
    narrow.dispose()
  })

  test('eight inputs in eight buffers, and one buffer for all inputs', async () => {
    const plan = planOf([loopOf(sumOf(8, 5))], Array(8).fill(5), [5])
    const inputs = Array.from({ length: 8 }, (_, i) => new Float32Array(5).fill(2 ** i))
    // The first input counts twice.
    assert.equal([...(await runPlan(gpu, plan, inputs))[0]], Array(5).fill(256))
    const e = right(await gpu.compile(plan)())
    const [one, out] = [gpu.alloc(5), gpu.alloc(5)]
    gpu.write(one, new Float32Array(5).fill(3))
    gpu.run(e, [...Array(8).fill(one), out])
    assert.equal([...(await gpu.read(out))], Array(5).fill(27))
    assert.match(await message(() => gpu.run(e, [...Array(8).fill(one), one])), 'given twice')
    assert.match(await message(() => gpu.run(e, [one])), '1 arguments given, 9 wanted')
    gpu.release(e)
    assert.match(await message(() => gpu.run(e, [])), 'was released')
    for (const b of [one, out]) gpu.free(b)
  })

  test('a shader that the device refuses is an error value, and the next one works', async () => {
    // A register that no op has written yet: a name that the shader does not declare.
    const spec: LoopSpec = { ...sumOf(1, 4), temporaries: 2, ops: [[Micro.add, 1, 0, 2, 0]] }
    const e = await gpu.compile(planOf([loopOf(spec)], [4], [4]))()
    assert.match(left(e), 'a shader was refused')
    assert.is(await wrongResult(gpu), undefined)
  })

  /** Counts the buffers of a device that are made and destroyed. */
  const counted = (device: GPUDevice) => {
    let alive = 0
    const create = device.createBuffer.bind(device)
    Object.defineProperty(device, 'createBuffer', {
      value: (d: GPUBufferDescriptor) => {
        const b = create(d)
        alive++
        const destroy = b.destroy.bind(b)
        Object.defineProperty(b, 'destroy', {
          value: () => {
            alive--
            destroy()
          },
        })
        return b
      },
    })
    return () => alive
  }
  const onOwnDevice = async (
    options: WebGpuOptions = {},
  ): Promise<{ readonly device: GPUDevice; readonly backend: Backend }> => {
    const { device } = right(await openGpu('any'))
    return { device, backend: right(await webgpu({ ...options, device })()) }
  }

  test('1,000 runs leave the number of buffers and the statistics as they were', async () => {
    const { device, backend } = await onOwnDevice()
    const alive = counted(device)
    const plan = arenaPlan(8)
    const e = right(await backend.compile(plan)())
    const banks = [0, 1, 2, 3, 4, 5].map(() => backend.alloc(8))
    backend.write(banks[0], new Float32Array(8).fill(1))
    await backend.sync()
    const [before, stats] = [alive(), backend.stats()]
    for (let i = 0; i < 1000; i++) {
      backend.run(e, [banks[0], banks[1 + (i % 5)]])
      if (i % 100 === 99) await backend.sync()
    }
    await backend.sync()
    assert.is(alive(), before)
    assert.equal(backend.stats(), stats)
    assert.equal([...(await backend.read(banks[3]))], Array(8).fill(29))
    for (let i = 0; i < 20; i++) await runPlan(backend, plan, [new Float32Array(8)])
    assert.is(alive(), before)
    for (const b of banks) backend.free(b)
    backend.release(e)
    assert.is(backend.stats().live, 0)
    backend.dispose()
    backend.dispose()
    assert.is(alive(), 0)
    device.destroy()
  })

  test('a training step is one encoder and one submit, reads nothing back and makes nothing new', async () => {
    const { device, backend } = await onOwnDevice()
    const { region, close } = openRegion(backend)
    const net = network('tiny', sequential(conv(2, 4, 4), relu, flatten, dense(10)), {
      input: [1, 28, 28],
      classes: 10,
    })
    const run = await trainer(region)(
      { network: net, loss: mixTrain({ k: 1 }), optimizer: adam({ lr: 1e-3 }), batchSize: 2, range: [0, 1] },
      { parameters: net.init(key(0)), slots: {} },
    )
    const { train } = await digits()
    const step = (count: number) =>
      run.step(pixels(train, [count, count + 1]), labelsOf(train, [count, count + 1]), {
        ...{ count, epoch: 0, progress: 0, epsilon: 0.1, balance: 0.5, key: fold(key(1), count) },
      })
    // Two banks of parameters take turns: the second step is the last that makes bind groups.
    await step(0)
    await step(1)
    const calls: string[] = []
    const spied = (on: object, name: string) => {
      const own = (on as Record<string, (...x: unknown[]) => unknown>)[name].bind(on)
      Object.defineProperty(on, name, {
        value: (...x: unknown[]) => {
          calls.push(name)
          return own(...x)
        },
      })
    }
    spied(device.queue, 'submit')
    for (const name of ['createCommandEncoder', 'createBuffer', 'createBindGroup', 'createComputePipelineAsync'])
      spied(device, name)
    for (let count = 2; count < 6; count++) {
      await step(count)
      assert.equal(calls.splice(0), ['createCommandEncoder', 'submit'])
    }
    await run.terms()
    assert.ok(calls.includes('createBuffer'), 'a read is seen')
    close()
    backend.dispose()
    device.destroy()
  })

  test('a device lost in mid-run is an error value, now and ever after', async () => {
    const { device, backend } = await onOwnDevice()
    const e = right(await backend.compile(arenaPlan(8))())
    const [x, y] = [backend.alloc(8), backend.alloc(8)]
    for (let i = 0; i < 50; i++) backend.run(e, [x, y])
    const reading = message(() => backend.read(y))
    device.destroy()
    backend.run(e, [x, y])
    assert.match(await reading, /^device: device webgpu: /)
    assert.match(await message(() => backend.sync()), 'the device was lost')
    assert.match(await message(() => backend.run(e, [x, y])), 'the device was lost')
    assert.match(await message(() => backend.alloc(1)), 'the device was lost')
    assert.match(left(await backend.compile(arenaPlan(8))()), 'the device was lost')
    backend.free(x)
    backend.release(e)
    backend.dispose()
    assert.match(await message(() => backend.read(y)), 'disposed')
  })

  test('an error that nobody waited for is reported once, by a later call', async () => {
    const { device, backend } = await onOwnDevice()
    // A buffer without any usage is refused by every device.
    device.createBuffer({ size: 4, usage: 0 })
    let said = 'no error'
    for (let i = 0; i < 50 && said === 'no error'; i++) {
      said = await message(() => backend.sync())
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    assert.match(said, /^device: device webgpu: /)
    assert.is(await wrongResult(backend), undefined)
    backend.dispose()
    device.destroy()
  })

  // ---- bounds and training -------------------------------------------------------------------------------------------
  const methods: Readonly<Record<string, Bounder>> = {
    ibp,
    crown_ibp_adaptive: crownIbp,
    crown_adaptive: crown,
    crown_same_slope: symbolic,
    crown_zero_lb: linearBounds({ slope: 'zero', hidden: 'own' }),
  }
  const [g, w] = [golden('randconv_a'), weights('randconv_a')]
  if (g === undefined || w === undefined) skipped('golden bounds on WebGPU', 'shared/golden is absent')
  else {
    const [{ eps, methods: known }] = g.results.filter((r) => r.dtype === 'float64')
    for (const [name, method] of Object.entries(methods))
      test(`golden randconv_a ${name}: within 2e-3 of the width`, async () => {
        const x = input('x', [5, 1, 28, 28])
        const bounded = boundsOf(method)(
          networks.randconv_a(w),
          interval(maximum(sub(x, eps), 0), minimum(add(x, eps), 1)),
        )
        const logits = bounded.output()
        const rows = bounded.rows(margins(constant(g.labels, [5]), 10))
        const images = await mnistTest(g.mnist_test_indices)
        const [lb, ub] = await evaluate(gpu)([logits.lower, logits.upper, rows.lower], new Map([[x, images]]))
        const want = known[name]
        for (let i = 0; i < 5; i++)
          for (let j = 0; j < 10; j++) {
            const width = want.ub[i][j] - want.lb[i][j]
            const far = Math.max(Math.abs(lb[i * 10 + j] - want.lb[i][j]), Math.abs(ub[i * 10 + j] - want.ub[i][j]))
            assert.ok(far < 2e-3 * width, `image ${i}, logit ${j}: off by ${far / width} of the width`)
          }
        assert.is(gpu.stats().live, 0)
      })
  }

  // In Node all twenty are a slow test: SwiftShader takes two minutes for them.
  const steps = 'Deno' in globalThis ? 20 : 3
  test(`${steps} MixTrain steps of the small network give the losses of WASM`, async () => {
    const wasm = await openWasm({ threads: 1 })
    const [a, b] = [await twentySteps(gpu, steps), await twentySteps(wasm, steps)]
    assert.equal([gpu.stats().live, wasm.stats().live], [0, 0])
    wasm.dispose()
    assert.is(a.length, 2 * steps)
    a.forEach((v, i) => {
      assert.ok(Math.abs(v - b[i]) < 1e-3 * Math.max(1, b[i]), `loss ${i}: ${v} on WebGPU, ${b[i]} on WASM`)
    })
  })
}

test.run()
