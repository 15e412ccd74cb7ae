import * as E from 'fp-ts/lib/Either.js'
import { wasm } from '../src/backend/wasm/wasm.ts'
import { openGpu } from '../src/backend/webgpu/adapter.ts'
import { webgpu } from '../src/backend/webgpu/webgpu.ts'
import type { Backend } from '../src/compile/backend.ts'
import type { Instruction } from '../src/compile/instruction.ts'
import { openRegion } from '../src/compile/region.ts'
import { type MixtrainError, raise, show } from '../src/core/error.ts'
import { fold, key } from '../src/core/key.ts'
import { type NetworkName, networks } from '../src/nn/networks.ts'
import { adam } from '../src/train/optimizer.ts'
import { trainer } from '../src/train/step.ts'
import { conv, convSizes, matmul } from '../test/backend/instructions.ts'
import { planOf, randomArray } from '../test/backend/wasm-programs.ts'
import { type StepKind, stepKinds } from './steps.ts'

/**
 * Speed of one backend on the works named, as one line of JSON on standard output; tools/bench-gpu.js runs it, and the peers beside it.
 *
 *   node dist/bench/gpu.js webgpu|wasm MILLISECONDS WORK...
 *
 *   peak                                    multiply-adds in registers: what the device's arithmetic can do
 *   gemm N                                  two N x N matrices
 *   conv N C H O K S                        a convolution, K x K with stride S and padding 1; convInput, convWeight its adjoints
 *   step NETWORK LOSS BATCH                 a training step with its Adam update
 *
 * Without works it only says what the adapter is.
 */

interface Sample {
  readonly milliseconds: number
  /** 1e9 operations a second, a multiply-add counting as two; absent where the work is not one kernel. */
  readonly gigaflops?: number
}

const [, , name, patienceText, ...works] = process.argv
const patience = Number(patienceText)

const opened = <A>(e: E.Either<MixtrainError, A>): A => (E.isLeft(e) ? raise(e.left) : e.right)

/** Milliseconds of one call: as many as fit the time are enqueued before the clock stops, so that waiting for the device is shared. */
const measure = async (sync: () => Promise<unknown>, once: () => unknown): Promise<number> => {
  const timed = async (n: number): Promise<number> => {
    const begun = performance.now()
    for (let i = 0; i < n; i++) await once()
    await sync()
    return performance.now() - begun
  }
  await timed(1)
  let n = 1
  let took = await timed(n)
  while (took < patience / 2 && n < 4096) {
    n *= 2
    took = await timed(n)
  }
  return took > 4 * patience ? took / n : Math.min(took, await timed(n)) / n
}

/** Eight independent chains of vec4 multiply-adds in each invocation: nothing but arithmetic. */
const peak = async (device: GPUDevice, software: boolean): Promise<Sample> => {
  const [groups, rounds, chains] = software ? [4, 64, 8] : [8192, 2048, 8]
  const each = (f: (i: number) => string) => Array.from({ length: chains }, (_, i) => f(i)).join('\n')
  const code = `@group(0) @binding(0) var<storage, read_write> out: array<vec4<f32>>;
@compute @workgroup_size(256) fn main(@builtin(global_invocation_id) at: vec3<u32>) {
  let m = vec4<f32>(0.999, 0.998, 0.997, 0.996);
  let b = vec4<f32>(f32(at.x) * 1e-9);
${each((i) => `  var c${i} = vec4<f32>(${i}.0);`)}
  for (var r = 0; r < ${rounds}; r++) {
${each((i) => `    c${i} = fma(c${i}, m, b);`)}
  }
  out[at.x] = ${Array.from({ length: chains }, (_, i) => `c${i}`).join(' + ')};
}`
  const pipeline = await device.createComputePipelineAsync({
    layout: 'auto',
    compute: { module: device.createShaderModule({ code }) },
  })
  const buffer = device.createBuffer({ size: groups * 256 * 16, usage: 0x80 })
  const bound = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [{ binding: 0, resource: { buffer } }],
  })
  const milliseconds = await measure(
    () => device.queue.onSubmittedWorkDone(),
    () => {
      const encoder = device.createCommandEncoder()
      const pass = encoder.beginComputePass()
      pass.setPipeline(pipeline)
      pass.setBindGroup(0, bound)
      pass.dispatchWorkgroups(groups)
      pass.end()
      device.queue.submit([encoder.finish()])
    },
  )
  buffer.destroy()
  return { milliseconds, gigaflops: (groups * 256 * rounds * chains * 8) / milliseconds / 1e6 }
}

const kernel = async (
  backend: Backend,
  instruction: Instruction,
  sizes: readonly number[],
  flops: number,
): Promise<Sample> => {
  const inputs = sizes.slice(0, -1)
  const compiled = opened(await backend.compile(planOf([instruction], inputs, sizes.slice(-1)))())
  const buffers = sizes.map((n, i) => {
    const b = backend.alloc(n)
    if (i < inputs.length) backend.write(b, randomArray(n, i + 1))
    return b
  })
  const milliseconds = await measure(backend.sync, () => backend.run(compiled, buffers))
  for (const b of buffers) backend.free(b)
  backend.release(compiled)
  return { milliseconds, gigaflops: flops / milliseconds / 1e6 }
}

/** Enough work for the WASM machine to use all threads. */
const WIDE = 2 ** 30

const gemm = (backend: Backend, n: number): Promise<Sample> =>
  kernel(backend, matmul([0, 1, 2], { m: n, k: n, n }, undefined, WIDE), [n * n, n * n, n * n], 2 * n ** 3)

const convolution = (backend: Backend, which: string, given: readonly number[]): Promise<Sample> => {
  const [N, C, H, O, K, S] = given
  const out = Math.floor((H + 2 - K) / S) + 1
  const sizes = convSizes([N, C, H, H, O, K, K, out, out, S, S, 1, 1, 1, 1])
  const [x, w, y] = [N * C * H * H, O * C * K * K, N * O * out * out]
  const [kind, operands] =
    which === 'conv'
      ? (['conv2d', [x, w, y]] as const)
      : which === 'convInput'
        ? (['conv2dInput', [y, w, x]] as const)
        : (['conv2dWeight', [x, y, w]] as const)
  return kernel(backend, conv(kind, [0, 1, 2], sizes, undefined, WIDE), operands, 2 * y * C * K * K)
}

const losses: Readonly<Record<string, StepKind>> = {
  natural: stepKinds.natural,
  ibp: stepKinds.ibp,
  'crown-ibp': stepKinds.crownIbp,
  symbolic: stepKinds.symbolic,
  mixtrain: stepKinds.mixtrain,
}

const step = async (backend: Backend, networkName: NetworkName, loss: string, batch: number): Promise<Sample> => {
  const coloured = networkName === 'cnn7' || networkName === 'resnet'
  const input = coloured ? [3, 32, 32] : [1, 28, 28]
  const network = networks[networkName]({ input, classes: 10 })
  const x = randomArray(batch * input.reduce((a, b) => a * b, 1), 7).map((v) => Math.abs(v) % 1)
  const y = Float32Array.from({ length: batch }, (_, i) => i % 10)
  const { region, close } = openRegion(backend)
  try {
    const t = await trainer(region)(
      { network, loss: losses[loss].loss, optimizer: adam({ lr: 1e-4 }), batchSize: batch, range: [0, 1] },
      { parameters: network.init(key(0)), slots: {} },
    )
    let count = 0
    const milliseconds = await measure(backend.sync, () =>
      t.step(x, y, { count, epoch: 0, progress: 0, epsilon: 2 / 255, balance: 0.5, key: fold(key(1), count++) }),
    )
    return { milliseconds }
  } finally {
    close()
  }
}

const main = async (): Promise<void> => {
  const gpu = name === 'webgpu' ? opened(await openGpu('any')) : undefined
  const backend =
    gpu === undefined ? opened(await wasm({})()) : opened(await webgpu({ device: gpu.device, tiles: true })())
  const result: Record<string, Sample | { readonly error: string }> = {}
  for (const work of works) {
    const [what, ...rest] = work.split(' ')
    process.stderr.write(`${name}: ${work}\n`)
    try {
      if (what === 'peak') {
        if (gpu !== undefined) result[work] = await peak(gpu.device, gpu.software)
      } else if (what === 'gemm') result[work] = await gemm(backend, Number(rest[0]))
      else if (what === 'step') result[work] = await step(backend, rest[0] as NetworkName, rest[1], Number(rest[2]))
      else result[work] = await convolution(backend, what, rest.map(Number))
    } catch (e) {
      result[work] = { error: (e instanceof Error ? e.message : String(e)).slice(0, 200) }
    }
  }
  const version = gpu === undefined ? backend.description : `WebGPU on ${gpu.description}`
  console.log(JSON.stringify({ version, software: gpu?.software ?? false, works: result }))
  backend.dispose()
  gpu?.device.destroy()
}

main().catch((e) => {
  console.log(
    JSON.stringify({ error: e?.error === undefined ? String(e?.message ?? e) : show(e.error as MixtrainError) }),
  )
})
