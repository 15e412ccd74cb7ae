import type { Backend, Buffer, Data } from '../compile/backend.ts'
import { program } from '../compile/program.ts'
import type { Region } from '../compile/region.ts'
import { fold, key as keyOf, uniform } from '../core/key.ts'
import * as S from '../core/shape.ts'
import type { Norm } from '../core/tensor.ts'
import { type Criterion, crossEntropy } from '../nn/criterion.ts'
import type { Named } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { logitOf, neg, sub } from '../ops/index.ts'
import { ascendedOnce, bestOf, geometry, margin } from './attack.ts'
import { intervalStep } from './interval-attack.ts'
import type { Range } from './perturbation.ts'
import { type Around, witness } from './witness.ts'

/** The attacks that `search` and `mixtrain evaluate --attack` know. */
export const attackNames = ['pgd', 'fgsm', 'interval', 'ensemble'] as const
/** One of `attackNames`. */
export type AttackName = (typeof attackNames)[number]
/** What an attack raises: cross-entropy, or the margin of Carlini and Wagner. */
export const targetLosses = ['ce', 'margin'] as const
/** One of `targetLosses`. */
export type TargetLoss = (typeof targetLosses)[number]

/** What an attack of an evaluation is: its name, steps and restarts, what it raises, and the seed of its random starts. */
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
const stagesOf = (o: AttackOptions): readonly Stage[] => {
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

/** What is attacked, in which ball, and how. */
export interface SearchOptions {
  readonly network: Network
  readonly range: Range
  readonly norm: Norm
  readonly attack: AttackOptions
  /** Images at once. */
  readonly batch: number
}

const criteria: Readonly<Record<TargetLoss, Criterion>> = { ce: crossEntropy, margin }

/** The programs of a search of a batch of images, from the points where they stand. */
export interface SearchPrograms {
  readonly options: SearchOptions
  readonly stages: readonly { readonly stage: Stage; readonly ascent: ReturnType<typeof ascentPrograms> }[]
  readonly lookAround: ReturnType<typeof aroundProgram> | undefined
  /** Bytes of scratch of the largest. */
  readonly bytes: (backend: Backend) => number
}

const inputsOf = ({ network, batch }: SearchOptions) => ({
  parameters: network.inputs,
  inputs: [batch, ...network.input],
  labels: [batch],
  epsilon: [],
  points: [batch, ...network.input],
})

/**
 * Ascents towards a goal, a class for each image, where the stage is targeted. A program of one step, which is run as often as there are steps, so that planning does not grow with them;
 * then where each image ends: the iterate of the least margin, whatever is raised, as a violation on the way counts.
 */
const ascentPrograms = (options: SearchOptions, { loss, targeted, stepSize }: Stage) => {
  const { network, range, norm, batch } = options
  const shapes = {
    ...inputsOf(options),
    goals: [batch],
    state: [batch],
    best: [batch, ...network.input],
    score: [batch],
  }
  const step = program(shapes, ({ parameters, inputs, labels, epsilon, goals, points, state, best, score }) => {
    const target = { logits: network.apply(parameters), inputs, labels, epsilon, range, norm }
    /** z_t - z_y for the goals t. */
    const towards: Criterion = (z, y) => sub(logitOf(z, goals), logitOf(z, y))
    const raised = targeted ? towards : criteria[loss]
    const { best: kept, ...next } = ascendedOnce(
      { stepSize },
      raised,
      margin,
    )(target, {
      ...{ points, state },
      best: { points: best, score },
    })
    return { ...next, best: kept?.points ?? points, score: kept?.score ?? score }
  })
  const { parameters: ofNetwork, inputs: images, labels: classes, epsilon: radius } = shapes
  const begin = program({ inputs: images, epsilon: radius, points: images }, ({ inputs, epsilon, points }) => ({
    points: geometry(norm)({ inputs, epsilon, range }).project(points),
  }))
  const end = program(
    { parameters: ofNetwork, labels: classes, points: images, state: [batch], best: images, score: [batch] },
    ({ parameters, labels, points, state, best, score }) => {
      const z = network.apply(parameters)(points)
      const last = bestOf(margin, z, labels, { points, state, best: { points: best, score } })
      // NaN is no margin: it compares false with whatever would make it one.
      return { points: last.points, margin: neg(last.score) }
    },
  )
  return { begin, step, end }
}

/** Ascents on a device: from points, for labels and goals, to the points where each image ends, z_y - max of the others there, and whose gradient it went by. */
const ascentsOn = async (region: Region, { begin, step, end }: ReturnType<typeof ascentPrograms>, steps: number) => {
  const [first, further, last] = [await begin.on(region), await step.on(region), await end.on(region)]
  const { backend } = region
  const { state, score } = step.inputs
  const fresh = { state: new Float32Array(S.size(state)), score: new Float32Array(S.size(score)).fill(-Infinity) }
  return {
    /** What stays the same from batch to batch. */
    write: (fixed: { readonly parameters: Named<Buffer>; readonly epsilon: number }) => {
      first.write({ epsilon: fixed.epsilon })
      further.write(fixed)
      last.write({ parameters: fixed.parameters })
    },
    run: async (at: { readonly [name in 'inputs' | 'points' | 'labels' | 'goals']: Float32Array }) => {
      first.run({ inputs: at.inputs, points: at.points })
      const { points } = first.buffers
      further.repeat(steps, { ...fresh, inputs: at.inputs, labels: at.labels, goals: at.goals, points, best: points })
      const { buffers } = further
      const found = await last({ ...buffers, labels: at.labels })
      return { ...found, state: await backend.read(buffers.state) }
    },
  }
}

/** What bounds of a box round each point say: whether it holds no counterexample, and where the bounds point otherwise. */
const aroundProgram = (options: SearchOptions) => {
  const { network, range, norm, batch } = options
  return program(
    { ...inputsOf(options), halves: [batch] },
    ({ parameters, inputs, labels, epsilon, points, halves }) => {
      const target = { logits: network.apply(parameters), inputs, labels, epsilon, range, norm }
      const { proved, next } = intervalStep(network.classes)(target, points, halves)
      return { points: next, proved }
    },
  )
}

export const searchPrograms = (options: SearchOptions): SearchPrograms => {
  const stages = stagesOf(options.attack).map((stage) => ({ stage, ascent: ascentPrograms(options, stage) }))
  const lookAround = stages.some(({ stage }) => stage.kind === 'interval') ? aroundProgram(options) : undefined
  return {
    options,
    stages,
    lookAround,
    bytes: (backend) =>
      Math.max(...stages.map(({ ascent }) => ascent.step.bytes(backend)), lookAround?.bytes(backend) ?? 0),
  }
}

/** Images to attack: by number, and what is known of them. */
export interface Attacked {
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

/** The names of `Gradient`. */
export const gradients = ['own', 'margin', 'none'] as const
/** What a gradient is taken of: a loss, or a margin where the loss's gradient is 0 in floats. */
export type Gradient = (typeof gradients)[number]

/** An attack of a network, compiled for a batch size: what it is run by. */
export interface Search {
  /** Attacks images; an image does not depend on the others. Progress counts ascents of a batch. */
  readonly run: (
    parameters: Named<Buffer>,
    attacked: Attacked,
    epsilon: number,
    progress?: (share: number) => void | Promise<void>,
  ) => Promise<ReadonlyMap<number, Outcome>>
}

/** An image under attack, and where the attack stands. */
interface Attempt {
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

/** `search` of programs at hand. */
export const searchOf =
  (region: Region) =>
  async ({ options, stages, lookAround: around }: SearchPrograms): Promise<Search> => {
    const { backend } = region
    const { network, range, norm, attack, batch } = options
    const ascents = await Promise.all(
      stages.map(async ({ stage, ascent }) => ({ stage, ascend: await ascentsOn(region, ascent, stage.steps) })),
    )
    const look = await around?.on(region)
    const names = Object.keys(network.parameters)
    const size = S.size(network.input)

    /** The images of a batch, which is filled up with its own; `numbers` are one more for each. */
    const filled = (some: readonly Attempt[]) => {
      const each = Array.from({ length: batch }, (_, i) => some[i % some.length])
      const rows = (of: (a: Attempt) => Float32Array) => {
        const all = new Float32Array(batch * size)
        each.forEach((a, i) => {
          all.set(of(a), i * size)
        })
        return all
      }
      return {
        inputs: rows((a) => a.pixels),
        points: rows((a) => a.point),
        labels: Float32Array.from(each, (a) => a.label),
        numbers: (of: (a: Attempt) => number) => Float32Array.from(each, of),
      }
    }

    return {
      run: async (parameters, attacked, epsilon, progress = () => undefined) => {
        const fixed = { parameters, epsilon: Math.fround(epsilon) }
        for (const { ascend } of ascents) ascend.write(fixed)
        look?.write(fixed)
        const values: Record<string, Data> = {}
        for (const k of names) values[k] = await backend.read(parameters[k])
        const check = attack.checked === false ? undefined : await witness(network, values)
        const attempts = attacked.indices.map((image): Attempt => {
          const pixels = attacked.pixels([image])
          const [label] = attacked.labels([image])
          return {
            image,
            number: attacked.numberOf?.(image) ?? image,
            label,
            pixels,
            point: pixels,
            strongest: '',
            margin: Number.POSITIVE_INFINITY,
            found: undefined,
            state: 0,
          }
        })
        const standing = (some: readonly Attempt[]) => some.filter((p) => p.found === undefined)
        const batches = async (some: readonly Attempt[], f: (part: readonly Attempt[]) => Promise<void>) => {
          for (let at = 0; at < some.length; at += batch) {
            await f(some.slice(at, at + batch))
            await progress(done / total)
          }
        }
        const total = ascents.reduce((n, { stage }) => n + stage.restarts, 0)
        let done = 0

        const ascend = async (one: (typeof ascents)[number], some: readonly Attempt[], goal: number) => {
          await batches(some, async (part) => {
            const { numbers, ...at } = filled(part)
            const goals = numbers((p) => (p.label + goal) % network.classes)
            const { points: to, margin: margins, state } = await one.ascend.run({ ...at, goals })
            for (const [i, p] of part.entries()) {
              p.point = Float32Array.from(to.subarray(i * size, (i + 1) * size))
              p.state = Math.max(p.state, state[i])
              const left = margins[i]
              if (left < p.margin) [p.margin, p.strongest] = [left, one.stage.label]
              if (left > 0) continue
              const around: Around = { image: p.pixels, epsilon, range, norm }
              p.found = check === undefined ? Float64Array.from(p.point) : await check.check(around, p.label, p.point)
              if (p.found !== undefined) [p.margin, p.strongest] = [left, one.stage.label]
            }
          })
          return standing(some)
        }

        /** Looks round each point, in wider and wider boxes, and sends it where the bounds point. */
        const lookAround = async (stage: Stage, see: NonNullable<typeof look>, some: readonly Attempt[]) => {
          const widths = HALVES.map((k) => Math.min(k * stage.stepSize, WIDEST) * epsilon)
          let left = some
          for (const [k, h] of widths.entries()) {
            if (left.length === 0 || (k > 0 && h === widths[k - 1])) return
            const further: Attempt[] = []
            await batches(left, async (part) => {
              const { numbers, ...at } = filled(part)
              const { points: to, proved } = await see({ ...at, halves: numbers(() => h) })
              for (const [i, p] of part.entries())
                if (proved[i] === 1) further.push(p)
                else p.point = Float32Array.from(to.subarray(i * size, (i + 1) * size))
            })
            left = further
          }
        }

        try {
          for (const one of ascents) {
            const { stage } = one
            for (let r = 0; r < stage.restarts; r++) {
              for (let goal = 1; goal < (stage.targeted ? network.classes : 2); goal++) {
                let some = standing(attempts)
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
                    if (look !== undefined) await lookAround(stage, look, some)
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
          attempts.map(
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

/**
 * An attack, compiled for batches of images.
 *
 * @example
 *   const network = networks.mlp({ input: [1, 2, 2], classes: 3 })
 *   const ascents = pgdAttack({ steps: 10, restarts: 2, seed: 0 })
 *   const { region, close } = openRegion(reference())
 *   const attack = await search(region)({ network, range: [0, 1], norm: 'linf', attack: ascents, batch: 1 })
 *   close()
 */
export const search =
  (region: Region) =>
  (options: SearchOptions): Promise<Search> =>
    searchOf(region)(searchPrograms(options))

/** x + epsilon z in float32, z uniform in [-1, 1): a point of the box, for l2 and l1 one that is projected to the ball. */
const randomStart = (x: Float32Array, epsilon: number, z: Float32Array): Float32Array => {
  const e = Math.fround(epsilon)
  return z.map((v, i) => x[i] + Math.fround(e * v))
}
