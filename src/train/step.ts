import { suited } from '../compile/accumulate.ts'
import type { Buffer, Data } from '../compile/backend.ts'
import type { Region } from '../compile/region.ts'
import { type Compiled, compileIn, compilePlanIn, planFor } from '../compile/run.ts'
import { order, stage } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import type { Loss } from '../loss/loss.ts'
import { isTrained, type Named, type Parameter, trainedOf } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { add, concat, feed, type Host, input, mul, probe, probeName, reshape, scalar } from '../ops/index.ts'
import type { Range } from '../robust/perturbation.ts'
import type { Optimizer, Slots } from './optimizer.ts'
import {
  evaluatedIn,
  type Feed,
  feedsIn,
  feedsOf,
  fittingStep,
  inOrder,
  requireParameters,
  stateOf,
  type TrainState,
} from './resident.ts'
import { type Batches, summed } from './statistics.ts'

export type { TrainState } from './resident.ts'

/** The slots of an optimizer before its first step: 0. */
export const emptySlots = (optimizer: Optimizer, parameters: Named<Parameter>): Slots<Float32Array> => {
  const trained = Object.entries(trainedOf(parameters))
  const zeros = () => Object.fromEntries(trained.map(([k, { shape }]) => [k, new Float32Array(S.size(shape))]))
  return Object.fromEntries(optimizer.slots.map((s) => [s, zeros()]))
}

/** The parameters of a state as they are evaluated and saved, statistics among them. */
export const evaluatedOf = ({ evaluated }: Optimizer, { parameters, slots }: TrainState): Named<Float32Array> =>
  evaluated === undefined ? parameters : { ...parameters, ...slots[evaluated] }

/** A state between two steps of an epoch. */
export interface Snapshot extends TrainState {
  /** `[sum, count]` of each named loss term since the means were last asked for. */
  readonly terms: Named<Float32Array>
}

/** A training step made ready on a backend; it owns the state while it trains. */
export interface Trainer {
  /** Enqueues one update on a batch: inputs `[batch, ...shape]`, labels `[batch]`. */
  readonly step: (inputs: Data, labels: Data, host: Host) => Promise<void>
  /**
   * Sets the network's statistics to the mean, over batches `[batch, ...shape]` in their order, of each batch's own: what an evaluation
   * of the parameters as they are now needs. Nothing happens in a network without statistics.
   */
  readonly calibrate: (batches: Batches) => Promise<void>
  /** Means of the named loss terms, and of the whole loss as `total`, since the last call, over the steps in which each took part. */
  readonly terms: () => Promise<Named<number>>
  /** The loss of the last step; NaN unless the trainer was asked to watch it. */
  readonly loss: () => Promise<number>
  readonly state: () => Promise<TrainState>
  readonly snapshot: () => Promise<Snapshot>
  /** The live buffers of the parameters to evaluate, statistics among them, in the order of the network's parameters; valid until the next step. */
  readonly parameters: () => Named<Buffer>
  /** Plans compiled so far: one for each combination of the host's choices that came up. */
  readonly variants: () => number
  readonly scratchBytes: () => number
}

export interface TrainerOptions {
  readonly network: Network
  readonly loss: Loss
  readonly optimizer: Optimizer
  readonly batchSize: number
  readonly range: Range
  /**
   * Scratch bytes that a step may take: where its plan would take more, nothing is kept that can be computed again, and then the images of its robust
   * terms are taken in parts, the smallest power of two that fits. No limit by default, and none on backends that cannot repeat part of a plan.
   */
  readonly memory?: number | undefined
  /** Whether `loss` is asked for. */
  readonly watched?: boolean
}

/** The name of the whole loss among the terms. */
export const TOTAL = 'total'

/** The epsilon of the step as a scalar that follows the host. */
export const epsilonFeed = (): Tensor => feed('epsilon', [], (h) => Float32Array.of(h.epsilon))

/** Weight of a batch's statistics in the running means of the population. */
export const MOMENTUM = 0.1

interface Variant {
  readonly compiled: Compiled
  readonly feeds: readonly Feed[]
}

/**
 * (state, batch) -> state as one run of one plan: loss, gradients, update and running means of the loss terms. The graph is built
 * once; a plan is made for each combination of choices (gates, weights that are exactly 0) when it first comes up. Two banks of
 * state buffers take turns, so that no output ever is an input.
 */
export const trainer =
  (region: Region) =>
  async (
    { network, loss, optimizer, batchSize, range, memory = Number.POSITIVE_INFINITY, watched = false }: TrainerOptions,
    start: TrainState & Partial<Snapshot>,
  ): Promise<Trainer> => {
    const { backend } = region
    const names = Object.keys(trainedOf(network.parameters))
    const statisticNames = Object.keys(network.parameters).filter((k) => !isTrained(network.parameters[k]))
    const inputs = input('inputs', [batchSize, ...network.input])
    const labels = input('labels', [batchSize])
    const parameterOf = Object.fromEntries(names.map((k) => [k, input(k, network.parameters[k].shape)]))
    const slotOf = Object.fromEntries(
      optimizer.slots.map((s) => [
        s,
        Object.fromEntries(names.map((k) => [k, input(`${s}.${k}`, network.parameters[k].shape)])),
      ]),
    )
    // Every pass of a step uses the statistics of its clean batch; gradients flow through them.
    const statistics = network.statistics(parameterOf)(inputs)
    // Means over the steps so far, for losses that ask for them.
    const populationOf = Object.fromEntries(
      statisticNames.map((k) => [k, input(`population.${k}`, network.parameters[k].shape)]),
    )
    const population =
      statisticNames.length === 0 ? {} : { population: network.apply({ ...parameterOf, ...populationOf }) }
    const objectiveIn = (parts: number) =>
      probe(
        TOTAL,
        loss({ inputs, labels, classes: network.classes, epsilon: epsilonFeed(), range, parts })({
          logits: network.apply({ ...parameterOf, ...statistics }),
          parameters: parameterOf,
          ...population,
        }),
      )
    const objective = objectiveIn(1)
    const populationNodes = Object.values(populationOf)
    const isRunning = order([objective]).some((x) => populationNodes.includes(x))
    const running = isRunning
      ? statisticNames.map((k) => add(mul(1 - MOMENTUM, populationOf[k]), mul(MOMENTUM, statistics[k])))
      : []
    const termNames = [...new Set(order([objective]).flatMap((x) => probeName(x) ?? []))]
    const termOf = Object.fromEntries(termNames.map((t) => [t, input(`term.${t}`, [2])]))

    const flat = <A>(parameters: Named<A>, slots: Slots<A>, terms: Named<A>): readonly A[] => [
      ...names.map((k) => parameters[k]),
      ...optimizer.slots.flatMap((s) => names.map((k) => slots[s][k])),
      ...termNames.map((t) => terms[t]),
    ]
    const stateNodes = flat(parameterOf, slotOf, termOf)
    const initial = flat<Data>(
      start.parameters,
      { ...emptySlots(optimizer, network.parameters), ...start.slots },
      Object.fromEntries(termNames.map((t) => [t, start.terms?.[t] ?? new Float32Array(2)])),
    )
    requireParameters(network, start.parameters)
    let [front, back] = [initial.map((d) => region.from(d)), initial.map((d) => region.alloc(d.length))]
    let statisticBuffers = statisticNames.map((k) => region.from(start.parameters[k]))
    let statisticSpares = running.map((x) => region.alloc(S.size(x.shape)))
    const [inputBuffer, labelBuffer] = [region.alloc(S.size(inputs.shape)), region.alloc(batchSize)]
    const lossBuffers = watched ? [region.alloc(1)] : []
    const staging = stage([objective])
    const variants = new Map<string, Variant>()

    const stepOf = (resolved: Tensor, keep: boolean) => {
      // Before it is differentiated: the backward pass of either form is the backward pass of the other, but at its own cost.
      const [staged] = suited([resolved], backend.rounds ?? false)
      const gradients = grad(
        staged,
        names.map((k) => parameterOf[k]),
      )
      const updated = optimizer.update(parameterOf, Object.fromEntries(names.map((k, i) => [k, gradients[i]])), slotOf)
      const probes = order([staged]).filter((x) => probeName(x) !== undefined)
      const counted = (t: string) =>
        probes
          .filter((p) => probeName(p) === t)
          .reduce<Tensor>((sum, p) => add(sum, concat([reshape(p, [1]), reshape(scalar(1), [1])], 0)), termOf[t])
      const terms = Object.fromEntries(termNames.map((t) => [t, counted(t)]))
      const outputs = [...flat(updated.parameters, updated.state, terms), ...running, ...(watched ? [staged] : [])]
      const feedNodes = feedsIn(outputs)
      const given = [...stateNodes, inputs, labels, ...(isRunning ? populationNodes : []), ...feedNodes]
      return { plan: planFor(backend, keep)(outputs, given), feedNodes }
    }
    const fitting = (host: Host) => {
      const whole = staging.resolve(host)[0]
      return fittingStep(backend, { memory, images: batchSize }, (parts, keep) =>
        stepOf(parts === 1 ? whole : stage([objectiveIn(parts)]).resolve(host)[0], keep),
      )
    }
    const build = async (host: Host): Promise<Variant> => {
      const { plan, feedNodes } = fitting(host)
      return {
        compiled: await compilePlanIn(region)(plan),
        feeds: feedsOf(region, feedNodes),
      }
    }

    const copied = (buffers: readonly Buffer[]): Promise<readonly Float32Array[]> =>
      Promise.all(buffers.map(async (b) => Float32Array.from(await backend.read(b))))
    const stateSize = names.length * (1 + optimizer.slots.length)
    const stateIn = async (data: readonly Float32Array[]): Promise<TrainState> => {
      const own = await copied(statisticBuffers)
      return stateOf(network, optimizer, names, data, Object.fromEntries(statisticNames.map((k, i) => [k, own[i]])))
    }
    /** Live buffers of the parameters that an evaluation takes. */
    const evaluated = () => evaluatedIn(optimizer, names, front)
    let measuring: Promise<Compiled> | undefined
    const measure = (): Promise<Compiled> => {
      measuring ??= compileIn(region)(
        statisticNames.map((k) => statistics[k]),
        [...names.map((k) => parameterOf[k]), inputs],
      )
      return measuring
    }

    return {
      step: async (x, y, host) => {
        const key = staging.key(host)
        const variant = variants.get(key) ?? (await build(host))
        variants.set(key, variant)
        backend.write(inputBuffer, x)
        backend.write(labelBuffer, y)
        for (const { draw, buffer } of variant.feeds) backend.write(buffer, draw(host))
        const given = [...front, inputBuffer, labelBuffer, ...(isRunning ? statisticBuffers : [])]
        variant.compiled.run([
          ...given,
          ...variant.feeds.map((f) => f.buffer),
          ...back,
          ...statisticSpares,
          ...lossBuffers,
        ])
        ;[front, back] = [back, front]
        if (isRunning) [statisticBuffers, statisticSpares] = [statisticSpares, statisticBuffers]
      },
      calibrate: async (batches) => {
        if (statisticNames.length === 0) return
        const compiled = await measure()
        const { count } = batches
        const sums = await summed(backend, compiled, evaluated(), inputBuffer, statisticBuffers, batches, [0, count])
        statisticBuffers.forEach((b, i) => {
          backend.write(
            b,
            Float32Array.from(sums[i], (v) => v / count),
          )
        })
      },
      terms: async () => {
        const at = front.length - termNames.length
        const means: Record<string, number> = {}
        for (const [i, t] of termNames.entries()) {
          const [sum, count] = await backend.read(front[at + i])
          backend.write(front[at + i], new Float32Array(2))
          if (count > 0) means[t] = sum / count
        }
        return means
      },
      loss: async () => (watched ? (await backend.read(lossBuffers[0]))[0] : Number.NaN),
      state: async () => stateIn(await copied(front.slice(0, stateSize))),
      snapshot: async () => {
        const data = await copied(front)
        return {
          ...(await stateIn(data)),
          terms: Object.fromEntries(termNames.map((t, i) => [t, data[stateSize + i]])),
        }
      },
      parameters: () =>
        inOrder(
          network,
          Object.fromEntries([
            ...evaluated().map((b, i) => [names[i], b] as const),
            ...statisticNames.map((k, i) => [k, statisticBuffers[i]] as const),
          ]),
        ),
      variants: () => variants.size,
      scratchBytes: () => Math.max(0, ...[...variants.values()].map((v) => v.compiled.scratchBytes)),
    }
  }
