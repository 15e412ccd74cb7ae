import { mkdir, writeFile } from 'node:fs/promises'
import { cpus, loadavg, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import Table from 'cli-table3'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { count, name } from '../src/cli/options.ts'
import { show } from '../src/core/error.ts'
import {
  type Dispatch,
  type KernelRow,
  type Limits,
  measureBandwidth,
  measureDispatch,
  measureKernels,
  measurePeak,
} from './kernels.ts'
import { list, option } from './options.ts'
import { costCurves, draw, type Point } from './plot.ts'
import {
  measureStep,
  measureVerification,
  medianRow,
  mixtrain,
  parameterCount,
  type StepKind,
  type StepOptions,
  type StepRow,
  type Subject,
  stepKinds,
  subjectOf,
  type VerifyRow,
} from './steps.ts'

/**
 * The speed of everything, in one run: kernels and loops (best sample, in GF/s and as a share of the multiply-add peak of the
 * same run), whole training steps with the time and roofline of their phases, verification, dispatch, and cost curves.
 *
 *   npm run bench -- [--json] [--quick] [--threads 1,2] [--fast-math] [--only kernels|steps|verification|curves] [--match TEXT] [--time MS] [--rounds 3]
 *                    [--weights FILE] [--data FOLDER] [--images 100]
 *
 * Without `--weights` (safetensors of the small network) every step starts at initialization, where nearly all neurons are unstable; without
 * `--data` (MNIST files) it takes the embedded digits. `--images` test images are verified. Steps are
 * measured in interleaved rounds, `--time` milliseconds each in all; medians.
 *
 * Writes bench/results/bench.json (bench-PART.json with --only), and curves.svg when the curves were measured; nothing with --match.
 */
const { values: o } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    'fast-math': { type: 'boolean', default: false },
    threads: { type: 'string', default: [...new Set([1, cpus().length])].join(',') },
    only: { type: 'string' },
    match: { type: 'string' },
    time: { type: 'string' },
    rounds: { type: 'string' },
    weights: { type: 'string' },
    data: { type: 'string' },
    images: { type: 'string', default: '100' },
  },
})
const { json, quick, match, 'fast-math': fastMath } = o
const parts = ['kernels', 'steps', 'verification', 'curves'] as const
const part = o.only === undefined ? undefined : option('only', name('part', parts), o.only)
const cores = cpus().length
const threadCounts = list('threads', count, o.threads)
const time = option('time', count, o.time ?? (quick ? '60' : '400'))
const rounds = option('rounds', count, o.rounds ?? (quick ? '1' : '3'))
const images = option('images', count, o.images)

/** No colours, no rules between rows: a table that reads in a log. */
const PLAIN = { head: [], border: [], compact: true }

const wants = (name: (typeof parts)[number]): boolean => part === undefined || part === name
const say = (text: string) => {
  if (!json) console.log(text)
}
const progress = (text: string) => process.stderr.write(`${text}\n`)
const percent = (x: number): string => (Number.isNaN(x) ? '' : `${(100 * x).toFixed(0)} %`)

interface Results {
  readonly environment: Readonly<Record<string, unknown>>
  readonly limits: Limits & { readonly relaxedPeak: number }
  readonly dispatch: readonly (Dispatch & { readonly threads: number })[]
  readonly kernels: readonly KernelRow[]
  readonly steps: readonly StepRow[]
  readonly verification: readonly VerifyRow[]
  readonly curves: readonly Point[]
}

/** How many times faster the most threads are than one, by the clock on the wall. */
const gainsOf = (
  rows: readonly { readonly name: string; readonly threads: number; readonly milliseconds: number }[],
): string => {
  const most = Math.max(...threadCounts)
  const gains = rows
    .filter((r) => r.threads === 1)
    .flatMap((one) => {
      const many = rows.find((r) => r.name === one.name && r.threads === most)
      return many === undefined || most === 1
        ? []
        : [`${one.name} ${(one.milliseconds / many.milliseconds).toFixed(2)} x`]
    })
  return gains.length === 0 ? '' : `${most} threads against one, wall: ${gains.join(', ')}`
}

const kernels = async (peak: number, relaxedPeak: number): Promise<readonly KernelRow[]> => {
  const rows: KernelRow[] = []
  for (const relaxed of relaxedPeak > 0 ? [false, true] : [false])
    for (const threads of threadCounts) {
      progress(`kernels, ${threads} thread${threads > 1 ? 's' : ''}${relaxed ? ', fast math' : ''}`)
      const options = { threads, relaxed, peak: relaxed ? relaxedPeak : peak, time: quick ? 20 : 100, only: match }
      rows.push(...(await measureKernels(options)))
    }
  const table = new Table({ style: PLAIN, head: ['kernel', 'threads', 'math', 'us', 'GF/s', 'of peak'] })
  for (const r of rows)
    table.push([
      r.kernel,
      r.threads,
      r.relaxed ? 'fast' : 'default',
      r.microseconds.toFixed(1),
      r.gflops.toFixed(1),
      percent(r.share),
    ])
  say(table.toString())
  const products = rows.filter((r) => !r.relaxed && r.kernel.startsWith('matmul'))
  const gains = gainsOf(
    products.map((r) => ({ name: r.kernel, threads: r.threads, milliseconds: r.microseconds / 1e3 })),
  )
  if (gains !== '') say(gains)
  return rows
}

const subject = await pipe(
  subjectOf(o.weights, o.data),
  TE.getOrElse((error): (() => Promise<Subject>) => {
    process.stderr.write(`${show(error)}\n`)
    process.exit(1)
  }),
)()

const SMALL = { network: 'small', epsilon: 0.3 } as const
const LARGE = { network: 'large', epsilon: 0.1 } as const
type Setting = Pick<StepOptions, 'network' | 'epsilon' | 'kind' | 'batch'>

const k = stepKinds
/** What `large` would need more than the memory or patience of a bench for is left out. */
const settings: readonly Setting[] = [
  ...[k.natural, k.pgd, k.ibp, k.crownIbp, k.mixtrain, k.symbolicOne, k.symbolic].map((kind) => ({
    ...SMALL,
    kind,
    batch: 50,
  })),
  { ...SMALL, kind: k.natural, batch: 100 },
  ...[k.natural, k.ibp, k.mixtrain, k.symbolicOne].map((kind) => ({ ...LARGE, kind, batch: 50 })),
]

/** In rounds, so that what else happens on the machine hits all steps alike; the last round profiles them too. */
const steps = async (limits: Limits): Promise<readonly StepRow[]> => {
  const wanted = threadCounts.flatMap((threads) =>
    settings
      .filter((s) => match === undefined || `${s.network} ${s.kind.name}`.includes(match))
      .map((s) => ({ ...s, threads })),
  )
  const measured: StepRow[][] = []
  for (let round = 1; round <= rounds; round++) {
    const rows: StepRow[] = []
    for (const s of wanted) {
      progress(`step ${s.network} ${s.kind.name}, ${s.threads} thread(s), round ${round} of ${rounds}`)
      const options = { ...s, ...subject, fastMath, time: time / rounds }
      rows.push(await measureStep(options, limits, round === rounds))
    }
    measured.push(rows)
  }
  const rows = wanted.map((_, i) => medianRow(measured.map((r) => r[i])))
  const table = new Table({
    style: PLAIN,
    head: ['network', 'step', 'batch', 'threads', 'ms', 'CPU ms', 'GF/s', 'of peak', 'ops', 'peak MB', 'bounds/s'],
  })
  for (const r of rows)
    table.push([
      r.network,
      r.step,
      r.batch,
      r.threads,
      r.milliseconds.toFixed(2),
      r.cpu.toFixed(2),
      Number.isNaN(r.gflops) ? '' : r.gflops.toFixed(1),
      percent(r.share),
      r.instructions,
      r.peakMB.toFixed(0),
      r.boundsPerSecond > 0 ? r.boundsPerSecond.toExponential(2) : '',
    ])
  say(table.toString())
  const gains = gainsOf(
    rows.map((r) => ({ name: `${r.network} ${r.step} ${r.batch}`, threads: r.threads, milliseconds: r.milliseconds })),
  )
  if (gains !== '') say(gains)
  const phases = new Table({
    style: PLAIN,
    head: ['network', 'step', 'batch', 'threads', 'phase', 'ms', 'of step', 'GF/s', 'of roofline'],
  })
  for (const r of rows) {
    const total = r.phases.reduce((n, p) => n + p.milliseconds, 0)
    for (const p of r.phases.filter((x) => x.milliseconds > 0.005 * total))
      phases.push([
        r.network,
        r.step,
        r.batch,
        r.threads,
        p.phase,
        p.milliseconds.toFixed(2),
        percent(p.milliseconds / total),
        p.gflops.toFixed(1),
        percent(p.roofline),
      ])
  }
  say(phases.toString())
  return rows
}

/** Radius of the verification table: that of the weights, if there are any, else one at which bounds at initialization mean something. */
const VERIFIED_AT = subject.weights === undefined ? 0.1 : SMALL.epsilon

const verification = async (): Promise<readonly VerifyRow[]> => {
  const rows: VerifyRow[] = []
  for (const threads of threadCounts) rows.push(...(await measureVerification(subject, threads, VERIFIED_AT, images)))
  const table = new Table({
    style: PLAIN,
    head: [
      `verifying ${images} images, small at ${VERIFIED_AT}`,
      'threads',
      'ms',
      'CPU ms',
      'images/s',
      'VRA',
      'peak MB',
    ],
  })
  for (const r of rows)
    table.push([
      r.method,
      r.threads,
      r.milliseconds.toFixed(0),
      r.cpu.toFixed(0),
      r.imagesPerSecond.toFixed(0),
      percent(r.vra),
      r.peakMB.toFixed(0),
    ])
  say(table.toString())
  return rows
}

const curves = async (): Promise<readonly Point[]> => {
  const points: Point[] = []
  const point = async (
    curve: Point['curve'],
    at: number,
    kind: StepKind,
    rest: Omit<StepOptions, 'kind' | 'time' | keyof Subject>,
  ) => {
    progress(`curve ${curve} = ${at}, ${kind.name}`)
    const row = await measureStep({ ...rest, ...subject, kind, time: time / 2 })
    const step = curve === 'k' ? 'mixtrain' : kind.name
    points.push({ curve, step, at, milliseconds: curve === 'threads' ? row.milliseconds : row.cpu })
  }
  const cheap = [k.natural, k.ibp, k.mixtrain]
  for (const batch of quick ? [10, 50] : [10, 25, 50, 100, 200])
    for (const kind of [...cheap, k.crownIbp]) await point('batch', batch, kind, { ...SMALL, batch, threads: 1 })
  for (const s of [SMALL, LARGE])
    for (const kind of cheap)
      await point('parameters', parameterCount(s.network), kind, { ...s, batch: 50, threads: 1 })
  for (const n of quick ? [1, 5] : [1, 2, 5, 10, 20])
    await point('k', n, mixtrain(n), { ...SMALL, batch: 50, threads: 1 })
  for (const threads of Array.from({ length: cores }, (_, i) => i + 1))
    for (const kind of [...cheap, k.crownIbp]) await point('threads', threads, kind, { ...SMALL, batch: 100, threads })
  return points
}

const main = async () => {
  const [peak, fused] = [await measurePeak(false), await measurePeak(true)]
  // Engines compile the fused loop worse than the plain one at times; no core has a lower peak for it.
  const relaxedPeak = fused > 0 ? Math.max(peak, fused) : 0
  const limits = { peak, relaxedPeak, bandwidth: await measureBandwidth() }
  const environment = {
    date: new Date().toISOString(),
    machine: cpus()[0].model,
    cores,
    memoryGB: Math.round(totalmem() / 1e9),
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    load: loadavg(),
    fastMath,
  }
  say(`${environment.machine}, ${cores} cores, Node ${process.version}, load ${environment.load[0].toFixed(1)}`)
  say(
    `peak of one core ${peak.toFixed(1)} GF/s, with fused multiply-adds ${relaxedPeak > 0 ? relaxedPeak.toFixed(1) : '-'}; copy ${limits.bandwidth.map((b) => `${b.rate.toFixed(0)} (${b.bytes >= 2 ** 20 ? `${b.bytes / 2 ** 20} MiB` : `${b.bytes / 2 ** 10} KiB`})`).join(', ')} GB/s`,
  )
  const dispatch: (Dispatch & { readonly threads: number })[] = []
  for (const threads of threadCounts) {
    const d = await measureDispatch(threads)
    dispatch.push({ ...d, threads })
    say(`dispatch, ${threads} thread(s): ${d.perOp.toFixed(3)} us an op, ${d.perRun.toFixed(2)} us a run`)
  }
  const results: Results = {
    environment,
    limits,
    dispatch,
    kernels: wants('kernels') ? await kernels(peak, relaxedPeak) : [],
    steps: wants('steps') ? await steps(fastMath && relaxedPeak > 0 ? { ...limits, peak: relaxedPeak } : limits) : [],
    verification: wants('verification') && match === undefined ? await verification() : [],
    curves: wants('curves') ? await curves() : [],
  }
  if (json) console.log(JSON.stringify(results))
  // A few rows are for the eyes; they do not take the place of all.
  if (match !== undefined) return
  const folder = new URL('../../bench/results/', import.meta.url)
  await mkdir(folder, { recursive: true })
  const file = part === undefined ? 'bench.json' : `bench-${part}.json`
  await writeFile(new URL(file, folder), `${JSON.stringify(results, null, 1)}\n`)
  if (results.curves.length > 0) {
    const subtitle = `${environment.machine}, ${cores} cores, Node ${process.version}, ${environment.date.slice(0, 10)}`
    await writeFile(new URL('curves.svg', folder), await draw(costCurves(results.curves, subtitle)))
  }
  say('written to bench/results/')
}

await main()
