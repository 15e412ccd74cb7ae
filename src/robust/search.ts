import type { Buffer, Data } from '../compile/backend.ts'
import type { Region } from '../compile/region.ts'
import { compileIn } from '../compile/run.ts'
import { fold, key as keyOf, uniform } from '../core/key.ts'
import * as S from '../core/shape.ts'
import type { Norm, Tensor } from '../core/tensor.ts'
import { type Criterion, crossEntropy, logitOf } from '../nn/criterion.ts'
import type { Named } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { input, neg, sub } from '../ops/index.ts'
import { ascended, geometry, type Judge, margin } from './attack.ts'
import { intervalInsight } from './interval-attack.ts'
import type { Range } from './perturbation.ts'
import { type Around, witness } from './witness.ts'

export const attackNames = ['pgd', 'fgsm', 'interval', 'ensemble'] as const
export type AttackName = (typeof attackNames)[number]
/** What an attack raises: cross-entropy, or the margin of Carlini and Wagner. */
export const targetLosses = ['ce', 'margin'] as const
export type TargetLoss = (typeof targetLosses)[number]

export interface AttackOptions {
  readonly name: AttackName
  /** Of each gradient ascent. */
  readonly steps: number
  /** Starts per image. */
  readonly restarts: number
  /** As a share of epsilon. */
  readonly stepSize: number
  readonly seed: number
  /** Default: ce. */
  readonly loss?: TargetLoss
  /** Towards each other class in turn, by z_t - z_y (targeted, `classes - 1` ascents a start), instead of away from the label. Default: false. */
  readonly targeted?: boolean
  /** Whether a point counts only once the f64 reference backend agrees. Default: true. */
  readonly checked?: boolean
}

/** A search of one kind; an attack is some of these, one after the other, on the images still standing. */
export interface Stage {
  readonly label: string
  readonly kind: 'ascent' | 'interval'
  readonly loss: TargetLoss
  readonly targeted: boolean
  readonly steps: number
  readonly stepSize: number
  readonly restarts: number
  /** The first start; further ones are random. */
  readonly first: 'input' | 'random'
}

/** The searches of an attack; the ensemble takes FGSM, PGD by both losses and the interval attack. */
export const stagesOf = (o: AttackOptions): readonly Stage[] => {
  const { name, steps, stepSize, restarts, loss = 'ce', targeted = false } = o
  const own = { loss, targeted, steps, stepSize, restarts }
  const fgsm: Stage = { ...own, label: 'fgsm', kind: 'ascent', steps: 1, stepSize: 1, restarts: 1, first: 'input' }
  const pgd: Stage = { ...own, label: 'pgd', kind: 'ascent', first: 'random' }
  const interval: Stage = { ...own, label: 'interval', kind: 'interval', first: 'input' }
  switch (name) {
    case 'fgsm':
      return [fgsm]
    case 'pgd':
      return [pgd]
    case 'interval':
      return [interval]
    case 'ensemble':
      return [
        { ...fgsm, loss: 'ce' },
        { ...pgd, label: 'pgd ce', loss: 'ce' },
        { ...pgd, label: 'pgd margin', loss: 'margin' },
        { ...interval, label: 'interval ce', loss: 'ce' },
      ]
    default:
      return name satisfies never
  }
}

/** Half-widths that the interval attack tries round a point, in steps of its ascent, and at most this share of epsilon. */
const HALVES = [1, 3, 9, 15]
const WIDEST = 0.5
/** Rounds of ascent and look-around: in the first two starts, and in later ones. */
const roundsOf = (restart: number): number => (restart < 2 ? 3 : 1)

export interface SearchOptions {
  readonly network: Network
  readonly range: Range
  readonly norm: Norm
  readonly attack: AttackOptions
  /** Images at once. */
  readonly batch: number
}

const judges: Readonly<Record<TargetLoss, Criterion>> = { ce: crossEntropy, margin }

/** The graphs of a search, each a function of the parameters and what is named here. */
export const searchGraphs = ({ network, range, norm, attack, batch }: SearchOptions) => {
  const names = Object.keys(network.parameters)
  const parameters = Object.fromEntries(names.map((k) => [k, input(k, network.parameters[k].shape)]))
  const logits = network.apply(parameters)
  const [inputs, points] = ['inputs', 'points'].map((name): Tensor => input(name, [batch, ...network.input]))
  const [labels, goals, halves] = ['labels', 'goals', 'halves'].map((name): Tensor => input(name, [batch]))
  const epsilon = input('epsilon', [])
  const target = { logits, inputs, labels, epsilon, range, norm }
  const given = [...names.map((k) => parameters[k]), inputs, labels, epsilon, points]
  /** z_t - z_y for the goals t. */
  const towards: Judge = (z, y) => sub(logitOf(z, goals), logitOf(z, y))
  const ascent = ({ loss, targeted, steps, stepSize }: Stage) => {
    const from = geometry(norm)(target).project(points)
    // The iterate of the least margin, whatever is raised: a violation on the way counts.
    const { points: x, state } = ascended({ steps, stepSize }, targeted ? towards : judges[loss], from, margin)(target)
    // NaN is no margin: it compares false with whatever would make it one.
    return { outputs: [x, neg(margin(logits(x), labels)), state], inputs: [...given, goals] }
  }
  const insight = () => {
    const { proved, next } = intervalInsight(network.classes)(target, points, halves)
    return { outputs: [next, proved, proved], inputs: [...given, halves] }
  }
  const stages = stagesOf(attack)
  return {
    stages: stages.map((stage) => ({ stage, ascent: ascent(stage) })),
    insight: stages.some((s) => s.kind === 'interval') ? insight() : undefined,
  }
}

/** Images to attack: by number, and what is known of them. */
export interface Quarry {
  readonly indices: readonly number[]
  readonly pixels: (indices: ArrayLike<number>) => Float32Array
  readonly labels: (indices: ArrayLike<number>) => Float32Array
  /** What the random starts of an image are keyed by. Default: its index. */
  readonly numberOf?: (index: number) => number
}

/** What came of an image. */
export interface Outcome {
  /** The stage that broke it, else the one that came closest, by the margin z_y - max of the others. */
  readonly strongest: string
  /** The least margin seen, of f32 points too that the reference did not confirm. */
  readonly margin: number
  /** A point of the ball that is classified wrongly, in doubles. */
  readonly point: Float64Array | undefined
  /** Whether some step had no gradient of the loss that was to be raised, as it underflowed to 0: it went by the margin's, or by none. */
  readonly gradient: Gradient
}

export const gradients = ['own', 'margin', 'none'] as const
export type Gradient = (typeof gradients)[number]

export interface Search {
  /** Attacks images; an image does not depend on the others. Progress counts ascents of a batch. */
  readonly run: (
    parameters: Named<Buffer>,
    quarry: Quarry,
    epsilon: number,
    progress?: (share: number) => void | Promise<void>,
  ) => Promise<ReadonlyMap<number, Outcome>>
}

/** An image under attack, and where the attack stands. */
interface Prey {
  readonly image: number
  /** What its random starts are keyed by. */
  readonly number: number
  readonly label: number
  readonly pixels: Float32Array
  point: Float32Array
  strongest: string
  margin: number
  found: Float64Array | undefined
  /** Index into `gradients`. */
  state: number
}

export const search =
  (region: Region) =>
  async (options: SearchOptions): Promise<Search> => {
    const { backend } = region
    const { network, range, norm, attack, batch } = options
    const graphs = searchGraphs(options)
    const compiled = await Promise.all(
      graphs.stages.map(async ({ stage, ascent }) => ({
        stage,
        ascent: await compileIn(region)(ascent.outputs, ascent.inputs),
      })),
    )
    const insight = graphs.insight && (await compileIn(region)(graphs.insight.outputs, graphs.insight.inputs))
    const names = Object.keys(network.parameters)
    const size = S.size(network.input)
    const [inputs, points, moved] = [0, 1, 2].map(() => region.alloc(batch * size))
    const [labels, extra, answer, states] = [0, 1, 2, 3].map(() => region.alloc(batch))
    const scale = region.alloc(1)

    /** One run of a graph on up to `batch` images: where they go, and a number about each. */
    const step = async (
      run: (args: readonly Buffer[]) => void,
      resident: readonly Buffer[],
      some: readonly Prey[],
      numbers: (p: Prey) => number,
    ): Promise<readonly Data[]> => {
      for (let i = 0; i < batch; i++) {
        const p = some[i % some.length]
        backend.write(inputs, p.pixels, i * size)
        backend.write(points, p.point, i * size)
      }
      const filled = (f: (p: Prey) => number) =>
        Float32Array.from({ length: batch }, (_, i) => f(some[i % some.length]))
      backend.write(
        labels,
        filled((p) => p.label),
      )
      backend.write(extra, filled(numbers))
      run([...resident, inputs, labels, scale, points, extra, moved, answer, states])
      return [await backend.read(moved), await backend.read(answer), await backend.read(states)]
    }

    return {
      run: async (parameters, quarry, epsilon, progress = () => undefined) => {
        backend.write(scale, Float32Array.of(epsilon))
        const resident = names.map((k) => parameters[k])
        const values: Record<string, Data> = {}
        for (const k of names) values[k] = await backend.read(parameters[k])
        const check = attack.checked === false ? undefined : await witness(network, values)
        const prey = quarry.indices.map((image): Prey => {
          const pixels = quarry.pixels([image])
          const [label] = quarry.labels([image])
          return {
            image,
            number: quarry.numberOf?.(image) ?? image,
            label,
            pixels,
            point: pixels,
            strongest: '',
            margin: Number.POSITIVE_INFINITY,
            found: undefined,
            state: 0,
          }
        })
        const standing = (some: readonly Prey[]) => some.filter((p) => p.found === undefined)
        const batches = async (some: readonly Prey[], f: (part: readonly Prey[]) => Promise<void>) => {
          for (let at = 0; at < some.length; at += batch) {
            await f(some.slice(at, at + batch))
            await progress(done / total)
          }
        }
        const total = compiled.reduce((n, { stage }) => n + stage.restarts, 0)
        let done = 0

        const ascend = async ({ stage, ascent }: (typeof compiled)[number], some: readonly Prey[], goal: number) => {
          await batches(some, async (part) => {
            const [to, margins, state] = await step(
              ascent.run,
              resident,
              part,
              (p) => (p.label + goal) % network.classes,
            )
            for (const [i, p] of part.entries()) {
              p.point = Float32Array.from(to.subarray(i * size, (i + 1) * size))
              p.state = Math.max(p.state, state[i])
              const left = margins[i]
              if (left < p.margin) [p.margin, p.strongest] = [left, stage.label]
              if (left > 0) continue
              const around: Around = { image: p.pixels, epsilon, range, norm }
              p.found = check === undefined ? Float64Array.from(p.point) : await check.check(around, p.label, p.point)
              if (p.found !== undefined) [p.margin, p.strongest] = [left, stage.label]
            }
          })
          return standing(some)
        }

        /** Looks round each point, in wider and wider boxes, and sends it where the bounds point. */
        const lookAround = async (stage: Stage, some: readonly Prey[]) => {
          const widths = HALVES.map((k) => Math.min(k * stage.stepSize, WIDEST) * epsilon)
          let left = some
          for (const [k, h] of widths.entries()) {
            if (left.length === 0 || (k > 0 && h === widths[k - 1])) return
            const further: Prey[] = []
            await batches(left, async (part) => {
              const [to, proved] = await step(
                (insight as (typeof compiled)[number]['ascent']).run,
                resident,
                part,
                () => h,
              )
              for (const [i, p] of part.entries())
                if (proved[i] === 1) further.push(p)
                else p.point = Float32Array.from(to.subarray(i * size, (i + 1) * size))
            })
            left = further
          }
        }

        try {
          for (const one of compiled) {
            const { stage } = one
            for (let r = 0; r < stage.restarts; r++) {
              for (let goal = 1; goal < (stage.targeted ? network.classes : 2); goal++) {
                let some = standing(prey)
                for (const p of some)
                  p.point =
                    r === 0 && stage.first === 'input'
                      ? p.pixels
                      : randomStart(
                          p.pixels,
                          epsilon,
                          uniform(fold(fold(keyOf(attack.seed), r), p.number), size, -1, 1),
                        )
                if (stage.kind === 'interval')
                  for (let round = 0; round < roundsOf(r) && some.length > 0; round++) {
                    some = await ascend(one, some, goal)
                    await lookAround(stage, some)
                  }
                await ascend(one, some, goal)
              }
              done++
              await progress(done / total)
            }
          }
        } finally {
          check?.close()
        }
        return new Map(
          prey.map(
            (p) =>
              [
                p.image,
                { strongest: p.strongest, margin: p.margin, point: p.found, gradient: gradients[p.state] ?? 'none' },
              ] as const,
          ),
        )
      },
    }
  }

/** x + epsilon z in float32, z uniform in [-1, 1): a point of the box, for l2 and l1 one that is projected to the ball. */
const randomStart = (x: Float32Array, epsilon: number, z: Float32Array): Float32Array => {
  const e = Math.fround(epsilon)
  return z.map((v, i) => x[i] + Math.fround(e * v))
}
