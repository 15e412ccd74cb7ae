import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { Bench } from 'tinybench'
import { device } from '../src/backend/device.ts'
import type { Backend, Buffer } from '../src/compile/backend.ts'
import { flat, type Instruction } from '../src/compile/instruction.ts'
import type { Plan } from '../src/compile/plan.ts'
import { openRegion } from '../src/compile/region.ts'
import type { MixtrainError } from '../src/core/error.ts'
import { fold, key } from '../src/core/key.ts'
import type { Rounding } from '../src/core/rounding.ts'
import * as S from '../src/core/shape.ts'
import { type Data, labelsOf, pixels } from '../src/data/dataset.ts'
import { digits } from '../src/data/digits.ts'
import { files } from '../src/data/files.ts'
import { loadFolder } from '../src/data/folder.ts'
import { decode, expectTensors } from '../src/format/safetensors.ts'
import { type Loss, sampled } from '../src/loss/loss.ts'
import * as L from '../src/loss/objective.ts'
import { crossEntropy } from '../src/nn/criterion.ts'
import type { Named } from '../src/nn/layers.ts'
import { type NetworkName, networks } from '../src/nn/networks.ts'
import type { Host } from '../src/ops/index.ts'
import * as B from '../src/robust/bounds.ts'
import { evaluator, rates } from '../src/robust/metric.ts'
import { adam } from '../src/train/optimizer.ts'
import { trainer } from '../src/train/step.ts'
import { bandwidthAt, type Limits } from './kernels.ts'
import { now, profile } from './profile.ts'
import { median } from './statistics.ts'

const only = (method: B.Bounder) => L.robust(method, L.worstCase(crossEntropy))

export interface StepKind {
  readonly name: string
  readonly loss: Loss
  /** Images of a batch whose bounds are computed. */
  readonly bounded: (batch: number) => number
}

const all = (batch: number): number => batch
const none = (): number => 0

export const mixtrain = (k: number): StepKind => ({
  name: `mixtrain k=${k}`,
  loss: L.mixTrain({ k, weight: 0.5 }),
  bounded: () => k,
})

/** One optimizer update each, by the loss named; the robust ones without a natural term but for MixTrain. */
export const stepKinds = {
  natural: { name: 'natural', loss: L.natural(crossEntropy), bounded: none },
  pgd: { name: 'pgd-40', loss: L.adversarial(40), bounded: none },
  ibp: { name: 'ibp', loss: only(B.ibp), bounded: all },
  crownIbp: { name: 'crown-ibp', loss: only(B.crownIbp), bounded: all },
  /** Its share of the bound at MNIST 0.1 (arXiv:2305.13991), one long step of an attack. */
  mtlIbp: { name: 'mtl-ibp', loss: L.mtlIbp({ a: 0.08 }), bounded: all },
  mixtrain: mixtrain(1),
  symbolicOne: { name: 'symbolic k=1', loss: sampled(1)(only(B.symbolic)), bounded: () => 1 },
  symbolic: { name: 'symbolic', loss: only(B.symbolic), bounded: all },
} as const satisfies Readonly<Record<string, StepKind>>

/** What is trained and verified: how many neurons are unstable, and with that the cost of symbolic bounds, depends on both. */
export interface Subject {
  readonly data: Data
  /** Weights of `small`. Absent: at initialization. */
  readonly weights: Named<Float32Array> | undefined
}

/** MNIST files of a folder (absent: the embedded digits), weights of `small` from a safetensors file. */
export const subjectOf = (
  weights: string | undefined,
  folder: string | undefined,
): TE.TaskEither<MixtrainError, Subject> =>
  pipe(
    TE.Do,
    TE.bind('data', () => (folder === undefined ? TE.fromTask(digits) : loadFolder(files)(folder))),
    TE.bind('weights', () => {
      if (weights === undefined) return TE.right(undefined)
      const { parameters } = networks.small({ input: [1, 28, 28], classes: 10 })
      const shapes = Object.fromEntries(Object.entries(parameters).map(([k, p]) => [k, p.shape]))
      return pipe(
        files.read(weights),
        TE.chainEitherK((bytes) => decode(bytes, weights)),
        TE.chainEitherK((file) => expectTensors(file, shapes)),
        TE.map((tensors) => Object.fromEntries([...tensors].map(([name, t]) => [name, t.data]))),
      )
    }),
  )

/** Start values of a network: the subject's weights for `small`, if there are any. */
const parametersOf = (name: NetworkName, { weights }: Subject): Named<Float32Array> =>
  name === 'small' && weights !== undefined ? weights : networks[name]({ input: [1, 28, 28], classes: 10 }).init(key(0))

export interface StepOptions extends Subject {
  readonly network: 'small' | 'large'
  readonly kind: StepKind
  readonly batch: number
  readonly epsilon: number
  readonly threads: number
  readonly fastMath?: boolean
  /** Milliseconds to measure for. */
  readonly time: number
}

/** The instructions of one family within a step. */
export interface Phase {
  readonly phase: string
  readonly milliseconds: number
  readonly gflops: number
  /** Time that arithmetic at the peak, or the bytes at the bandwidth of the memory that holds them, would take at least; whichever is more, of the time taken; above 1 where kernels leave much out that is 0. */
  readonly roofline: number
}

export interface StepRow {
  readonly network: string
  readonly step: string
  readonly batch: number
  readonly threads: number
  readonly fastMath: boolean
  /** Medians: the clock on the wall, and the CPU time of this process, which others do not move. */
  readonly milliseconds: number
  readonly cpu: number
  readonly gflops: number
  /** Of the multiply-add peak of as many cores, by CPU time. */
  readonly share: number
  readonly instructions: number
  readonly scratchMB: number
  readonly peakMB: number
  /** Bounds of hidden neurons and margins, a second. */
  readonly boundsPerSecond: number
  readonly phases: readonly Phase[]
}

/** Products and convolutions. */
const isDense = (kind: Instruction['kind']): boolean => kind === 'matmul' || kind.startsWith('conv2d')

/** Multiply-adds of the products and convolutions (NaN where rounds are counted by values), and how many instructions there are. */
const content = (plan: Plan): { readonly work: number; readonly instructions: number } => {
  const all = flat(plan.instructions)
  const dense = all.filter((i) => isDense(i.kind))
  const counted = all.every((i) => i.kind !== 'repeat')
  return { work: counted ? dense.reduce((n, i) => n + i.work, 0) : Number.NaN, instructions: all.length }
}

const phasesOf = async (
  backend: Backend,
  plan: Plan,
  args: readonly Buffer[],
  limits: Limits,
): Promise<readonly Phase[]> => {
  const rows = await profile(backend, 3)(plan, args)
  const nameOf = (r: (typeof rows)[number]) => `${r.kind}${r.inRound ? ', one round' : ''}`
  const names = [...new Set(rows.map(nameOf))]
  return names
    .map((phase) => {
      const own = rows.filter((r) => nameOf(r) === phase)
      const total = (f: (r: (typeof rows)[number]) => number) => own.reduce((n, r) => n + f(r), 0)
      const milliseconds = total((r) => r.milliseconds)
      const flops = (r: (typeof rows)[number]) => (isDense(r.kind) ? 2 * r.work : r.work)
      const least = total(
        (r) => Math.max(flops(r) / limits.peak, r.bytes / bandwidthAt(limits, r.bytes)) / backend.threads / 1e6,
      )
      return { phase, milliseconds, gflops: total(flops) / milliseconds / 1e6, roofline: least / milliseconds }
    })
    .filter((p) => p.milliseconds > 0)
    .sort((a, b) => b.milliseconds - a.milliseconds)
}

/** Hidden neurons of the paper's networks on 28 x 28 images. */
const NEURONS: Readonly<Record<StepOptions['network'], number>> = { small: 4804, large: 48064 }
const MARGINS = 9

/** Measures one kind of step, on a backend of its own. `limits`: tell the share of the peak; `profiled`: and the phases. */
export const measureStep = async (
  { network: name, kind, batch, epsilon, threads, fastMath = false, time, ...subject }: StepOptions,
  limits?: Limits,
  profiled = false,
): Promise<StepRow> => {
  const real = await device({ device: 'wasm', threads, fastMath })
  let plan: Plan | undefined
  let args: readonly Buffer[] = []
  const backend: Backend = {
    ...real,
    compile: (p) => {
      plan = p
      return real.compile(p)
    },
    run: (e, buffers) => {
      args = buffers
      real.run(e, buffers)
    },
  }
  const network = networks[name]({ input: [1, 28, 28], classes: 10 })
  const { train } = subject.data
  const indices = Array.from({ length: batch }, (_, i) => i % train.count)
  const [x, y] = [pixels(train, indices), labelsOf(train, indices)]
  const { region, close } = openRegion(backend)
  const run = await trainer(region)(
    { network, loss: kind.loss, optimizer: adam({ lr: 1e-4 }), batchSize: batch, range: [0, 1] },
    { parameters: parametersOf(name, subject), slots: {} },
  )
  let count = 0
  const cpu: number[] = []
  const used = () => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1e3
  }
  const once = async () => {
    const host: Host = { count, epoch: 0, progress: 0, epsilon, balance: 0.5, key: fold(key(1), count++) }
    const begun = used()
    await run.step(x, y, host)
    await backend.sync()
    cpu.push(used() - begun)
  }
  await once()
  cpu.length = 0
  const bench = new Bench({ time, iterations: 3, warmup: false })
  bench.add(kind.name, once)
  const [{ result }] = await bench.run()
  if (result.state !== 'completed' || plan === undefined) throw new Error(`${kind.name} did not complete`)
  const { work, instructions } = content(plan)
  const busy = median(cpu)
  const row: StepRow = {
    network: name,
    step: kind.name,
    batch,
    threads,
    fastMath,
    milliseconds: result.latency.p50,
    cpu: busy,
    gflops: (2 * work) / result.latency.p50 / 1e6,
    share: limits === undefined ? Number.NaN : (2 * work) / busy / 1e6 / limits.peak,
    instructions,
    scratchMB: run.scratchBytes() / 1e6,
    peakMB: backend.stats().peak / 1e6,
    boundsPerSecond: (kind.bounded(batch) * (NEURONS[name] + MARGINS) * 1e3) / result.latency.p50,
    phases: limits === undefined || !profiled ? [] : await phasesOf(real, plan, args, limits),
  }
  close()
  real.dispose()
  return row
}

/** Of interleaved measurements of one step the medians of the times; phases and counts of the last. */
export const medianRow = (rows: readonly StepRow[]): StepRow => {
  const last = rows[rows.length - 1]
  const of = (f: (r: StepRow) => number) => median(rows.map(f))
  return {
    ...last,
    milliseconds: of((r) => r.milliseconds),
    cpu: of((r) => r.cpu),
    gflops: of((r) => r.gflops),
    share: of((r) => r.share),
    boundsPerSecond: of((r) => r.boundsPerSecond),
  }
}

export interface VerifyRow {
  readonly method: string
  readonly images: number
  readonly threads: number
  readonly milliseconds: number
  readonly cpu: number
  readonly imagesPerSecond: number
  readonly vra: number
  readonly peakMB: number
}

/** Verifying test images with `small`. */
export const measureVerification = async (
  subject: Subject,
  threads: number,
  epsilon: number,
  images: number,
): Promise<readonly VerifyRow[]> => {
  const network = networks.small({ input: [1, 28, 28], classes: 10 })
  const { test } = subject.data
  const rows: VerifyRow[] = []
  const questions = [
    // alpha-CROWN takes seconds an image.
    ...Object.entries(B.methods)
      .filter(([name]) => name !== 'alpha-crown')
      .map(([name, method]) => ({ name, method, rounding: 'none' as Rounding })),
    // What it costs that bounds are theorems, to be compared with the same method above.
    ...(
      [
        ['ibp', B.ibp],
        ['symbolic', B.symbolic],
      ] as const
    ).flatMap(([name, method]) =>
      (['real', 'deployed'] as const).map((outward) => ({
        name: `${name}, outward (${outward})`,
        method,
        rounding: { outward },
      })),
    ),
  ]
  for (const { name, method, rounding } of questions) {
    const backend = await device({ device: 'wasm', threads })
    const { region, close } = openRegion(backend)
    const e = await evaluator(region)({
      network,
      range: [0, 1],
      method,
      attack: undefined,
      rounding,
      batchSize: Math.min(100, images),
      memory: 2 ** 31,
    })
    const parameters = Object.fromEntries(
      Object.entries(parametersOf('small', subject)).map(([k, d]) => [k, region.from(d)]),
    )
    const set = {
      count: images,
      pixels: (i: ArrayLike<number>) => pixels(test, i),
      labels: (i: ArrayLike<number>) => labelsOf(test, i),
    }
    await e.run(parameters, set, epsilon)
    const [wall, busy] = [performance.now(), now(backend)]
    const verdicts = await e.run(parameters, set, epsilon)
    const milliseconds = performance.now() - wall
    rows.push({
      method: name,
      images,
      threads,
      milliseconds,
      cpu: now(backend) - busy,
      imagesPerSecond: (images * 1e3) / milliseconds,
      vra: rates(verdicts).vra,
      peakMB: backend.stats().peak / 1e6,
    })
    close()
    backend.dispose()
  }
  return rows
}

/** Trainable numbers of a network. */
export const parameterCount = (name: NetworkName): number =>
  Object.values(networks[name]({ input: [1, 28, 28], classes: 10 }).parameters).reduce((n, p) => n + S.size(p.shape), 0)
