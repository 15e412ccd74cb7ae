import Table from 'cli-table3'
import * as E from 'fp-ts/lib/Either.js'
import type { Backend } from '../src/backend/backend.ts'
import { openRegion } from '../src/backend/region.ts'
import { webgpu } from '../src/backend/webgpu.ts'
import { raise, show } from '../src/core/error.ts'
import { fold, key } from '../src/core/key.ts'
import { Opcode } from '../src/core/lowering.ts'
import { labelsOf, pixels } from '../src/data/dataset.ts'
import { digits } from '../src/data/digits.ts'
import { crossEntropy } from '../src/loss/criterion.ts'
import type { Loss } from '../src/loss/loss.ts'
import * as L from '../src/loss/objective.ts'
import { type NetworkName, networks } from '../src/nn/networks.ts'
import * as B from '../src/robust/bounds.ts'
import { adam } from '../src/train/optimizer.ts'
import { trainer } from '../src/train/step.ts'
import { planOf, randomArray } from '../test/backend/wasm-programs.ts'

/**
 * Speed of the WebGPU backend: products and convolutions in GF/s (one multiply-add = 2), training steps in milliseconds.
 *
 *   node dist/bench/gpu.js [--json] [--software] [--time MS]
 *
 * Runs on a real GPU; a software adapter is only measured with --software, and then on toy sizes.
 */

interface Row {
  readonly what: string
  readonly milliseconds: number
  /** Absent where the work is not one kernel. */
  readonly gigaflops?: number
}

const has = (name: string): boolean => process.argv.includes(name)
const json = has('--json')
const software = has('--software')
const patience = Number(process.argv[process.argv.indexOf('--time') + 1]) || 300

/** Milliseconds of one call: as many as fit the time are enqueued before the clock stops, so that waiting for the device is shared. */
const measure = async (backend: Backend, once: () => unknown): Promise<number> => {
  const timed = async (n: number): Promise<number> => {
    const begun = performance.now()
    for (let i = 0; i < n; i++) await once()
    await backend.sync()
    return performance.now() - begun
  }
  await timed(1)
  let n = 1
  let took = await timed(n)
  while (took < patience / 2 && n < 4096) {
    n *= 2
    took = await timed(n)
  }
  return Math.min(took, await timed(n)) / n
}

const kernel = async (
  backend: Backend,
  what: string,
  words: readonly number[],
  sizes: readonly number[],
  flops: number,
): Promise<Row> => {
  const inputs = sizes.slice(0, -1)
  const plan = planOf([words], inputs, sizes.slice(-1))
  const compiled = await backend.compile(plan)()
  if (E.isLeft(compiled)) return raise(compiled.left)
  const buffers = sizes.map((n, i) => {
    const b = backend.alloc(n)
    if (i < inputs.length) backend.write(b, randomArray(n, i + 1))
    return b
  })
  const milliseconds = await measure(backend, () => backend.run(compiled.right, buffers))
  for (const b of buffers) backend.free(b)
  backend.release(compiled.right)
  return { what, milliseconds, gigaflops: flops / milliseconds / 1e6 }
}

const matmul = (backend: Backend, m: number, k: number, n: number, tA = 0, tB = 0): Promise<Row> =>
  kernel(
    backend,
    `matmul ${m} x ${k} x ${n}${tA ? ', a transposed' : ''}${tB ? ', b transposed' : ''}`,
    [Opcode.matmul, 15, 1, 0, 1, 2, m, k, n, tA, tB, 1, 0, 0, 0],
    [m * k, k * n, m * n],
    2 * m * k * n,
  )

/** The three convolutions of one layer: kernel x kernel, stride, padding 1. */
const convolutions = async (
  backend: Backend,
  [N, C, H, O, kernelSize, stride]: readonly [number, number, number, number, number, number],
): Promise<readonly Row[]> => {
  const out = Math.floor((H + 2 - kernelSize) / stride) + 1
  const geometry = [N, C, H, H, O, kernelSize, kernelSize, out, out, stride, stride, 1, 1, 1, 1]
  const [x, w, y] = [N * C * H * H, O * C * kernelSize * kernelSize, N * O * out * out]
  const rows: Row[] = []
  for (const [opcode, sizes] of [
    [Opcode.conv2d, [x, w, y]],
    [Opcode.conv2dInput, [y, w, x]],
    [Opcode.conv2dWeight, [x, y, w]],
  ] as const)
    rows.push(
      await kernel(
        backend,
        `${Opcode[opcode]} ${N} x ${C} x ${H} x ${H} -> ${O}, ${kernelSize} x ${kernelSize}, stride ${stride}`,
        [opcode, 21, 1, 0, 1, 2, ...geometry],
        sizes,
        2 * y * C * kernelSize * kernelSize,
      ),
    )
  return rows
}

const losses: Readonly<Record<string, Loss>> = {
  natural: L.natural(crossEntropy),
  ibp: L.robust(B.ibp, L.worstCase(crossEntropy)),
  'mixtrain k=1': L.mixTrain({ k: 1, weight: 0.5 }),
}

const step = async (backend: Backend, name: NetworkName, loss: string, batch: number): Promise<Row> => {
  const network = networks[name]({ input: [1, 28, 28], classes: 10 })
  const { train } = await digits()
  const indices = Array.from({ length: batch }, (_, i) => i)
  const [x, y] = [pixels(train, indices), labelsOf(train, indices)]
  const { region, close } = openRegion(backend)
  try {
    const t = await trainer(region)(
      { network, loss: losses[loss], optimizer: adam({ lr: 1e-4 }), batchSize: batch, range: [0, 1] },
      { parameters: network.init(key(0)), slots: {} },
    )
    let count = 0
    const milliseconds = await measure(backend, () =>
      t.step(x, y, { count, epoch: 0, progress: 0, epsilon: 0.1, balance: 0.5, key: fold(key(1), count++) }),
    )
    return { what: `training step, ${name}, ${loss}, batch ${batch}`, milliseconds }
  } finally {
    close()
  }
}

const measurements = (backend: Backend): readonly (() => Promise<readonly Row[]>)[] => {
  const one = (f: () => Promise<Row>) => async () => [await f()]
  return software
    ? [
        one(() => matmul(backend, 64, 64, 64)),
        () => convolutions(backend, [2, 4, 14, 8, 4, 2]),
        one(() => step(backend, 'small', 'natural', 4)),
      ]
    : [
        ...[256, 512, 1024, 2048, 4096].map((n) => one(() => matmul(backend, n, n, n))),
        ...[
          [1, 0],
          [0, 1],
          [1, 1],
        ].map(([tA, tB]) => one(() => matmul(backend, 1024, 1024, 1024, tA, tB))),
        one(() => matmul(backend, 100, 1568, 100)),
        () => convolutions(backend, [1000, 16, 14, 32, 4, 2]),
        () => convolutions(backend, [500, 32, 28, 32, 4, 2]),
        () => convolutions(backend, [500, 64, 14, 64, 3, 1]),
        ...[50, 200, 1000].flatMap((batch) =>
          Object.keys(losses).map((l) => one(() => step(backend, 'small', l, batch))),
        ),
        ...[50, 200].flatMap((batch) => ['natural', 'ibp'].map((l) => one(() => step(backend, 'large', l, batch)))),
      ]
}

const main = async (): Promise<void> => {
  const opened = await webgpu({ accept: software ? 'any' : 'real', tiles: true })()
  if (E.isLeft(opened)) {
    const reason = show(opened.left)
    console.log(
      json
        ? JSON.stringify({ skipped: reason })
        : `SKIP the GPU benchmark: ${reason} (--software measures it all the same)`,
    )
    return
  }
  const backend = opened.right
  const rows: Row[] = []
  for (const measurement of measurements(backend)) rows.push(...(await measurement()))
  if (json) console.log(JSON.stringify({ device: backend.description, rows }, null, 2))
  else {
    const table = new Table({ head: ['', 'ms', 'GF/s'] })
    for (const r of rows) table.push([r.what, r.milliseconds.toFixed(3), r.gigaflops?.toFixed(1) ?? ''])
    console.log(backend.description)
    console.log(table.toString())
  }
  backend.dispose()
}

await main()
