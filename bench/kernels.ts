import asc from 'assemblyscript/asc'
import { Bench } from 'tinybench'
import type { Backend } from '../src/compile/backend.ts'
import type { Instruction } from '../src/compile/instruction.ts'
import { Combine, LoopMode, Micro } from '../src/core/lowering.ts'
import { conv as convOf, convSizes, matmul as matmulOf } from '../test/backend/instructions.ts'
import { type LoopSpec, loopOf, open, planOf, randomArray, right } from '../test/backend/wasm-programs.ts'

/** Speed of the WASM machine, kernel by kernel. */

interface Case {
  readonly name: string
  readonly flops: number
  /** Instructions; slots are the inputs, the output, then the scratch. */
  readonly code: readonly Instruction[]
  readonly inputs: readonly number[]
  readonly output: number
  readonly scratch?: number
}

// ----------------------------------------------------------------------------------------------------------------- peak

/**
 * `sums` independent sums of products in registers, without any load: what limits them is the register allocator of the engine,
 * so the peak is the best of several shapes.
 */
const peakSource = (sums: number, factors: number, relaxed: boolean) => {
  const range = (n: number) => Array.from({ length: n }, (_, i) => i)
  const step = (s: string, w: string, x: string) =>
    relaxed ? `${s} = f32x4.relaxed_madd(${w}, ${x}, ${s})` : `${s} = f32x4.add(f32x4.mul(${w}, ${x}), ${s})`
  return `
export function peak(n: i32, seed: f32): f32 {
  let x0 = f32x4.splat(seed * 2.0)
  let x1 = f32x4.splat(seed * 3.0)
  ${range(factors)
    .map((i) => `const w${i} = f32x4.splat(seed + ${i}.0)`)
    .join('\n  ')}
  ${range(sums)
    .map((i) => `let s${i} = f32x4.splat(seed + ${i}.0)`)
    .join('\n  ')}
  for (let i = 0; i < n; i++) {
    ${range(sums)
      .map((i) => step(`s${i}`, `w${i >> 1}`, `x${i & 1}`))
      .join('\n    ')}
    const t = x0
    x0 = x1
    x1 = t
  }
  ${range(sums - 1)
    .map((i) => `s0 = f32x4.add(s0, s${i + 1})`)
    .join('\n  ')}
  return f32x4.extract_lane(s0, 0)
}`
}

const shapes = [
  [6, 3],
  [8, 4],
  [10, 5],
] as const

/** GF/s of one core, 0 when this engine has no relaxed SIMD. */
export const measurePeak = async (relaxed: boolean): Promise<number> => {
  const enable = relaxed ? ['simd', 'relaxed-simd'] : ['simd']
  let best = 0
  for (const [sums, factors] of shapes) {
    const source = peakSource(sums, factors, relaxed)
    const { binary, error } = await asc.compileString(source, { optimizeLevel: 3, runtime: 'stub', enable })
    if (binary === null || error) throw error ?? new Error('the peak loop does not compile')
    const bytes = new Uint8Array(binary)
    if (!WebAssembly.validate(bytes)) return 0
    const { instance } = await WebAssembly.instantiate(bytes, { env: { abort: () => undefined } })
    const peak = instance.exports.peak as (n: number, seed: number) => number
    const n = 1 << 18
    // Often enough that the engine has replaced its first, unoptimised code.
    for (let i = 0; i < 100; i++) {
      const t = performance.now()
      peak(n, 0.5)
      best = Math.max(best, (n * sums * 8) / (performance.now() - t) / 1e6)
    }
  }
  return best
}

// ---------------------------------------------------------------------------------------------------------------- cases

/** Enough work for all threads. */
const WIDE = 2 ** 30

const matmul = (m: number, k: number, n: number, transA = false, transB = false, batch = 1, b = 1, out = 2): Case => ({
  name: `matmul ${batch > 1 ? `${batch} x ` : ''}${m} x ${k} x ${n}${transA ? ' A^T' : ''}${transB ? ' B^T' : ''}`,
  flops: 2 * batch * m * k * n,
  code: [
    matmulOf(
      [0, b, out],
      { m, k, n, transA, transB, batch, strideA: m * k, strideB: k * n, strideOut: m * n },
      undefined,
      WIDE,
    ),
  ],
  inputs: [batch * m * k, batch * k * n],
  output: batch * m * n,
})

/** The radius of an interval layer: A |B|, |B| computed anew as in a training step. */
const radius = (m: number, k: number, n: number): Case => {
  const operand: LoopSpec = {
    dims: [k * n],
    mode: LoopMode.map,
    combine: Combine.sum,
    kept: 1,
    out: { slot: 3, offset: 0, strides: [1] },
    inputs: [{ slot: 1, offset: 0, strides: [1] }],
    temporaries: 1,
    ops: [[Micro.abs, 1, 0, 0, 0]],
  }
  const of = matmul(m, k, n, false, false, 1, 3)
  return {
    ...of,
    name: `matmul ${m} x ${k} x ${n} |B|`,
    code: [loopOf(operand, WIDE), ...of.code],
    scratch: k * n,
  }
}

interface Geometry {
  readonly N: number
  readonly C: number
  readonly H: number
  readonly O: number
  readonly K: number
  readonly OH: number
  readonly s: number
  readonly p: number
}

const taps = (g: Geometry): number => {
  let n = 0
  for (let i = 0; i < g.OH; i++)
    for (let p = 0; p < g.K; p++) {
      const y = i * g.s - g.p + p
      if (y >= 0 && y < g.H) n++
    }
  return n * n
}

const conv = (kind: 'conv2d' | 'conv2dInput' | 'conv2dWeight', g: Geometry): Case => {
  const { N, C, H, O, K, OH, s, p } = g
  const x = N * C * H * H
  const w = O * C * K * K
  const y = N * O * OH * OH
  const [a, b, out] = kind === 'conv2d' ? [x, w, y] : kind === 'conv2dInput' ? [y, w, x] : [x, y, w]
  return {
    name: `${kind} ${N} x [${C},${H},${H}] * [${O},${C},${K},${K}] s${s} p${p}`,
    flops: 2 * N * C * O * taps(g),
    code: [convOf(kind, [0, 1, 2], convSizes([N, C, H, H, O, K, K, OH, OH, s, s, p, p, 1, 1]), undefined, WIDE)],
    inputs: [a, b],
    output: out,
  }
}

const ones = (dims: readonly number[]): number[] => dims.map((_, d) => dims.slice(d + 1).reduce((a, b) => a * b, 1))
const size = (dims: readonly number[], strides: readonly number[]): number =>
  dims.reduce((n, d, i) => n + (d - 1) * strides[i], 1)

const loop = (
  name: string,
  dims: readonly number[],
  inputs: readonly (readonly number[])[],
  ops: LoopSpec['ops'],
  rest: Partial<LoopSpec> = {},
  outStrides = ones(dims),
): Case => {
  const spec: LoopSpec = {
    dims,
    mode: LoopMode.map,
    combine: Combine.sum,
    kept: dims.length,
    out: { offset: 0, strides: outStrides },
    inputs: inputs.map((strides) => ({ offset: 0, strides })),
    temporaries: 3,
    ops,
    ...rest,
  }
  const elements = dims.reduce((a, b) => a * b, 1)
  return {
    name: `loop ${name} [${dims.join(',')}]`,
    flops: elements * (ops.length + (spec.mode === LoopMode.map ? 0 : 1)),
    code: [loopOf(spec, WIDE)],
    inputs: inputs.map((strides) => size(dims, strides)),
    output: size(dims, outStrides),
  }
}

const mid: Geometry = { N: 500, C: 16, H: 14, O: 32, K: 4, OH: 7, s: 2, p: 1 }
const first: Geometry = { N: 500, C: 1, H: 28, O: 16, K: 4, OH: 14, s: 2, p: 1 }
const bare: Geometry = { N: 500, C: 1, H: 10, O: 16, K: 4, OH: 4, s: 2, p: 0 }

const pointwise: Geometry = { N: 64, C: 64, H: 14, O: 64, K: 1, OH: 14, s: 1, p: 0 }
const shortcut: Geometry = { N: 64, C: 16, H: 32, O: 32, K: 1, OH: 16, s: 2, p: 0 }
const thin: Geometry = { N: 512, C: 1, H: 28, O: 32, K: 3, OH: 28, s: 1, p: 1 }

const cases: readonly Case[] = [
  matmul(256, 256, 256),
  matmul(512, 512, 512),
  matmul(1024, 1024, 1024),
  matmul(500, 100, 1568),
  matmul(500, 1568, 100, false, true),
  matmul(100, 500, 1568, true, false),
  matmul(50, 1568, 100),
  matmul(500, 100, 10),
  matmul(1, 1568, 100),
  matmul(1, 1568, 100, false, true),
  matmul(9, 10, 100, false, false, 50),
  radius(50, 1568, 100),
  radius(500, 1568, 100),
  conv('conv2dInput', mid),
  conv('conv2dInput', { ...mid, N: 5000 }),
  conv('conv2dInput', first),
  conv('conv2dInput', bare),
  conv('conv2d', { ...mid, N: 50 }),
  conv('conv2d', mid),
  conv('conv2d', { ...first, N: 50 }),
  conv('conv2d', first),
  conv('conv2dWeight', mid),
  conv('conv2dWeight', { ...mid, N: 50 }),
  conv('conv2dWeight', first),
  conv('conv2d', { ...mid, N: 1 }),
  conv('conv2d', { ...mid, N: 9 }),
  conv('conv2dInput', { ...mid, N: 1 }),
  conv('conv2d', thin),
  conv('conv2dInput', thin),
  conv('conv2dWeight', thin),
  conv('conv2d', { ...bare, N: 1568 }),
  conv('conv2dInput', { N: 500, C: 3, H: 32, O: 16, K: 4, OH: 16, s: 2, p: 1 }),
  conv('conv2d', { N: 16, C: 64, H: 32, O: 64, K: 3, OH: 32, s: 1, p: 1 }),
  ...(['conv2d', 'conv2dInput', 'conv2dWeight'] as const).flatMap((o) => [conv(o, pointwise), conv(o, shortcut)]),
  loop(
    'rows * slope',
    [500, 3136],
    [
      [3136, 1],
      [0, 1],
    ],
    [[Micro.mul, 2, 0, 1, 0]],
  ),
  loop(
    'splitMul rows',
    [500, 3136],
    [
      [3136, 1],
      [0, 1],
      [0, 1],
    ],
    [[Micro.splitMul, 3, 0, 1, 2]],
  ),
  loop(
    'bias add',
    [500, 32, 49],
    [
      [1568, 49, 1],
      [0, 1, 0],
    ],
    [[Micro.add, 2, 0, 1, 0]],
  ),
  loop(
    'bias add relu',
    [500, 16, 196],
    [
      [3136, 196, 1],
      [0, 1, 0],
    ],
    [
      [Micro.add, 2, 0, 1, 0],
      [Micro.relu, 2, 2, 0, 0],
    ],
  ),
  loop('sum rows', [500, 3136], [[3136, 1]], [], { mode: LoopMode.keep, kept: 0 }, [0, 1]),
  loop(
    'sum rows of product',
    [500, 3136],
    [
      [3136, 1],
      [0, 1],
    ],
    [[Micro.mul, 2, 0, 1, 0]],
    { mode: LoopMode.keep, kept: 0 },
    [0, 1],
  ),
  loop(
    'dot of trailing dims',
    [500, 1568],
    [
      [1568, 1],
      [0, 1],
    ],
    [[Micro.mul, 2, 0, 1, 0]],
    { mode: LoopMode.inner, kept: 1 },
    [1, 0],
  ),
  loop(
    'dot with a channel bias',
    [500, 32, 49],
    [
      [1568, 49, 1],
      [0, 1, 0],
    ],
    [[Micro.mul, 2, 0, 1, 0]],
    { mode: LoopMode.inner, kept: 1 },
    [1, 0, 0],
  ),
  loop('sum short rows', [50000, 10], [[10, 1]], [], { mode: LoopMode.inner, kept: 1 }, [1, 0]),
  loop('bias gradient', [32, 500, 49], [[49, 1568, 1]], [], { mode: LoopMode.inner, kept: 1 }, [1, 0, 0]),
  loop('copy', [500, 3136], [[3136, 1]], []),
  loop('transpose', [1568, 500], [[1, 1568]], []),
  loop(
    'relaxation, 8 ops',
    [50, 3136],
    [
      [3136, 1],
      [3136, 1],
    ],
    [
      [Micro.relu, 2, 0, 0, 0],
      [Micro.relu, 3, 1, 0, 0],
      [Micro.sub, 4, 1, 0, 0],
      [Micro.div, 4, 3, 4, 0],
      [Micro.step, 2, 0, 0, 0],
      [Micro.sub, 3, 3, 2, 0],
      [Micro.mul, 4, 4, 3, 0],
      [Micro.max, 4, 4, 2, 0],
    ],
  ),
  loop('exp', [500, 1000], [[1000, 1]], [[Micro.exp, 1, 0, 0, 0]]),
  loop('tanh', [500, 1000], [[1000, 1]], [[Micro.tanh, 1, 0, 0, 0]]),
  loop('tiny', [8], [[1], [1]], [[Micro.add, 2, 0, 1, 0]]),
]

// ------------------------------------------------------------------------------------------------------------------ run

export interface KernelRow {
  readonly kernel: string
  readonly threads: number
  readonly relaxed: boolean
  readonly microseconds: number
  /** 10^9 operations a second, one multiply-add being two. */
  readonly gflops: number
  /** Of the multiply-add peak of as many cores. */
  readonly share: number
}

export interface KernelOptions {
  readonly threads: number
  readonly relaxed: boolean
  /** Of `measurePeak`. */
  readonly peak: number
  /** Milliseconds for each kernel. */
  readonly time: number
  /** Only kernels whose name contains this. */
  readonly only?: string | undefined
}

const measure = async (b: Backend, c: Case, time: number): Promise<number> => {
  const extra = c.scratch === undefined ? [] : [{ at: 'arena', offset: 0, length: c.scratch } as const]
  const e = right(await b.compile(planOf(c.code, c.inputs, [c.output], extra))())
  const args = c.inputs.map((n, i) => {
    const buffer = b.alloc(n)
    b.write(buffer, randomArray(n, i + 1))
    return buffer
  })
  const out = b.alloc(c.output)
  const bench = new Bench({ time, warmupTime: time / 5, iterations: 5, warmupIterations: 2 })
  bench.add(c.name, () => b.run(e, [...args, out]))
  await bench.run()
  for (const x of [...args, out]) b.free(x)
  b.release(e)
  const { result } = bench.tasks[0]
  if (!('latency' in result)) throw new Error(`${c.name} did not run`)
  // The best sample: other processes on the machine make the median say more about them.
  return result.latency.min * 1e3
}

export const measureKernels = async ({
  threads,
  relaxed,
  peak,
  time,
  only,
}: KernelOptions): Promise<readonly KernelRow[]> => {
  const b = await open({ threads, fastMath: relaxed })
  const rows: KernelRow[] = []
  for (const c of cases.filter((x) => only === undefined || x.name.includes(only))) {
    const microseconds = await measure(b, c, time)
    const gflops = c.flops / microseconds / 1e3
    rows.push({ kernel: c.name, threads, relaxed, microseconds, gflops, share: gflops / peak / threads })
  }
  b.dispose()
  return rows
}

export interface Limits {
  /** GF/s of multiply-adds on one core. */
  readonly peak: number
  /** GB/s of a copy, both directions counted, of so many bytes read and written again and again: caches hold the smaller ones. */
  readonly bandwidth: readonly { readonly bytes: number; readonly rate: number }[]
}

/** GB/s at which an instruction that touches so many bytes, run again and again, can read and write them. */
export const bandwidthAt = ({ bandwidth }: Pick<Limits, 'bandwidth'>, bytes: number): number =>
  (bandwidth.find((b) => b.bytes >= bytes) ?? bandwidth[bandwidth.length - 1]).rate

export interface Dispatch {
  /** Microseconds for each instruction of a long program of tiny ones. */
  readonly perOp: number
  /** Microseconds for running an empty program: what a step pays in JavaScript. */
  readonly perRun: number
}

/** Copies of 256 KiB to 64 MiB. */
export const measureBandwidth = async (): Promise<Limits['bandwidth']> => {
  const b = await open({ threads: 1 })
  const rows: { readonly bytes: number; readonly rate: number }[] = []
  for (let bytes = 2 ** 18; bytes <= 2 ** 26; bytes *= 4) {
    const n = bytes / 8
    const microseconds = await measure(b, loop('copy', [n], [[1]], []), 60)
    rows.push({ bytes, rate: bytes / microseconds / 1e3 })
  }
  b.dispose()
  return rows
}

export const measureDispatch = async (threads: number): Promise<Dispatch> => {
  const b = await open({ threads })
  const buffers = [b.alloc(8), b.alloc(8), b.alloc(8)]
  const tiny = loopOf(
    {
      dims: [8],
      mode: LoopMode.map,
      combine: Combine.sum,
      kept: 1,
      out: { offset: 0, strides: [1] },
      inputs: [0, 1].map(() => ({ offset: 0, strides: [1] })),
      temporaries: 1,
      ops: [[Micro.add, 2, 0, 1, 0]],
    },
    8,
  )
  const best = async (instructions: number): Promise<number> => {
    const code = Array.from({ length: instructions }, () => tiny)
    const e = right(await b.compile(planOf(code, [8, 8], [8]))())
    const bench = new Bench({ time: 50, warmupTime: 20 })
    bench.add('run', () => b.run(e, buffers))
    await bench.run()
    b.release(e)
    const { result } = bench.tasks[0]
    return 'latency' in result ? result.latency.min * 1e3 : Number.NaN
  }
  const [empty, long] = [await best(0), await best(1000)]
  b.dispose()
  return { perOp: (long - empty) / 1000, perRun: empty }
}
