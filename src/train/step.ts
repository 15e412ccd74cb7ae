import { suited } from '../compile/accumulate.ts'
import type { Buffer, Data } from '../compile/backend.ts'
import { programOf } from '../compile/program.ts'
import type { Region } from '../compile/region.ts'
import { sharedIn } from '../compile/running.ts'
import { order, stage } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import type { Tensor } from '../core/tensor.ts'
import type { Named } from '../nn/layers.ts'
import { add, concat, type Host, input, mul, probeName, reshape, scalar } from '../ops/index.ts'
import { mapNamed, type Optimizer } from './optimizer.ts'
import {
  drawn,
  feedsIn,
  fittingStep,
  type Learning,
  lossGraph,
  residentIn,
  stateOf,
  type TrainState,
  termsIn,
} from './resident.ts'
import { type Batches, summingIn } from './statistics.ts'

export { emptySlots, TOTAL, type TrainState } from './resident.ts'

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

export interface TrainerOptions extends Learning {
  readonly batchSize: number
  /**
   * Scratch bytes that a step may take: where its plan would take more, nothing is kept that can be computed again, and then the images of its robust
   * terms are taken in parts, the smallest power of two that fits. No limit by default, and none on backends that cannot repeat part of a plan.
   */
  readonly memory?: number | undefined
  /** Whether `loss` is asked for. */
  readonly watched?: boolean
}

/** Weight of a batch's statistics in the running means of the population. */
export const MOMENTUM = 0.1

/** The graph of a step: how its loss terms are counted, and which means it needs over the steps so far. */
const stepGraph = (options: TrainerOptions) => {
  const graph = lossGraph(options, options.batchSize)
  const { population, statistics } = graph
  const objective = graph.objective(1)
  /** Means over the steps so far, where the loss asks for them. */
  const averaged: Named<Tensor> = graph.asksFor([objective]) ? population : {}
  return {
    ...{ ...graph, whole: objective, averaged },
    next: mapNamed(averaged, (p, k): Tensor => add(mul(1 - MOMENTUM, p), mul(MOMENTUM, statistics[k]))),
    /** `[sum, count]` of each term. */
    terms: Object.fromEntries(termsIn(objective).map((t) => [t, input(`term.${t}`, [2]) as Tensor])),
  }
}

/** (state, batch) -> state for a loss whose choices are made. */
const stepProgram = (
  { parameters, slots, terms, inputs, labels, averaged, next }: ReturnType<typeof stepGraph>,
  { optimizer, watched = false }: TrainerOptions,
  loss: Tensor,
  keep: boolean,
) => {
  const names = Object.keys(parameters)
  const gradients = grad(loss, Object.values(parameters))
  const updated = optimizer.update(parameters, Object.fromEntries(names.map((k, i) => [k, gradients[i]])), slots)
  const probes = order([loss]).filter((x) => probeName(x) !== undefined)
  const counted = (term: Tensor, t: string) =>
    probes
      .filter((p) => probeName(p) === t)
      .reduce<Tensor>((sum, p) => add(sum, concat([reshape(p, [1]), reshape(scalar(1), [1])], 0)), term)
  const state = {
    parameters: mapNamed(parameters, (_, k) => updated.parameters[k]),
    slots: mapNamed(slots, (own, s) => mapNamed(own, (_, k) => updated.state[s][k])),
    terms: mapNamed(terms, counted),
  }
  const outputs = { state, population: next, loss: watched ? [loss] : [] }
  const given = { state: { parameters, slots, terms }, inputs, labels, population: averaged }
  return programOf({ ...given, feeds: feedsIn(outputs) }, outputs, keep)
}

/**
 * (state, batch) -> state as one run of one program: loss, gradients, update and running means of the loss terms. The graph is built
 * once; a program is made for each combination of choices (gates, weights that are exactly 0) when it first comes up. Two banks of
 * state take turns, so that no output ever is an input.
 */
export const trainer =
  (region: Region) =>
  async (options: TrainerOptions, start: TrainState & Partial<Snapshot>): Promise<Trainer> => {
    const { batchSize, memory = Number.POSITIVE_INFINITY, watched = false } = options
    const { backend } = region
    const graph = stepGraph(options)
    const resident = residentIn(region, options, graph, graph.terms, start)
    const { trained, statistics } = resident
    const summing = summingIn(region, graph, resident)
    const batch = sharedIn(region, { inputs: graph.inputs, labels: graph.labels })
    const loss = watched ? [region.alloc(1)] : []
    const staging = stage([graph.whole])
    const variantFor = async (host: Host) => {
      const whole = staging.resolve(host)[0]
      const made = fittingStep(backend, { memory, images: batchSize }, (parts, keep) => {
        const resolved = parts === 1 ? whole : stage([graph.objective(parts)]).resolve(host)[0]
        // Before it is differentiated: the backward pass of either form is the backward pass of the other, but at its own cost.
        return stepProgram(graph, options, suited([resolved], backend.rounds ?? false)[0], keep)
      })
      return { feeds: made.inputs.feeds, running: await made.on(region) }
    }
    const variants = new Map<string, Awaited<ReturnType<typeof variantFor>>>()
    const averagedIn = (buffers: Named<Buffer>) => mapNamed(graph.averaged, (_, k) => buffers[k])

    return {
      step: async (inputs, labels, host) => {
        const key = staging.key(host)
        const variant = variants.get(key) ?? (await variantFor(host))
        variants.set(key, variant)
        batch.write({ inputs, labels })
        const population = averagedIn(statistics.front())
        variant.running.run(
          { state: trained.front(), ...batch.buffers, population, feeds: drawn(variant.feeds, host) },
          { state: trained.back(), population: averagedIn(statistics.back()), loss },
        )
        trained.turn()
        if (Object.keys(population).length > 0) statistics.turn()
      },
      calibrate: async (batches) => {
        if (!graph.hasStatistics) return
        const sums = await summing(batches, [0, batches.count])
        statistics.write(mapNamed(sums, (sum) => Float32Array.from(sum, (v) => v / batches.count)))
      },
      terms: async () => {
        const means: Record<string, number> = {}
        for (const [t, buffer] of Object.entries(trained.front().terms)) {
          const [sum, count] = await backend.read(buffer)
          backend.write(buffer, new Float32Array(2))
          if (count > 0) means[t] = sum / count
        }
        return means
      },
      loss: async () => (watched ? (await backend.read(loss[0]))[0] : Number.NaN),
      state: async () => stateOf(await resident.read()),
      snapshot: resident.read,
      parameters: resident.parameters,
      variants: () => variants.size,
      scratchBytes: () => Math.max(0, ...[...variants.values()].map((v) => v.running.scratchBytes)),
    }
  }
