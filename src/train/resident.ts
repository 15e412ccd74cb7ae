import type { Backend, Buffer, Data } from '../compile/backend.ts'
import { type Graphs, leavesOf } from '../compile/named.ts'
import type { Region } from '../compile/region.ts'
import { banksIn } from '../compile/running.ts'
import { order } from '../compile/tape.ts'
import { raise, usage } from '../core/error.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import type { Loss } from '../loss/loss.ts'
import { isTrained, type Named, type Parameter, trainedOf } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { feed, feedOf, type Host, input, probe, probeName } from '../ops/index.ts'
import type { Range } from '../robust/perturbation.ts'
import { mapNamed, type Optimizer, type Slots } from './optimizer.ts'

// What a step of whole batches and one of micro-batches have in common: the graph of the loss, the plan that fits, what is drawn for it, and the state as it lies in buffers.

/** Everything that training changes, as plain data: what a checkpoint holds. */
export interface TrainState {
  readonly parameters: Named<Float32Array>
  readonly slots: Slots<Float32Array>
}

/** What a checkpoint holds of what is known of a training. */
export const stateOf = ({ parameters, slots }: TrainState): TrainState => ({ parameters, slots })

/** The slots of an optimizer before its first step: 0. */
export const emptySlots = (optimizer: Optimizer, parameters: Named<Parameter>): Slots<Float32Array> =>
  Object.fromEntries(
    optimizer.slots.map((s) => [s, mapNamed(trainedOf(parameters), ({ shape }) => new Float32Array(S.size(shape)))]),
  )

// ---- the graph ---------------------------------------------------------------------------------------------------------

/** The name of the whole loss among the terms. */
export const TOTAL = 'total'

/** The epsilon of the step as a scalar that follows the host. */
const epsilonFeed = (): Tensor => feed('epsilon', [], (h) => Float32Array.of(h.epsilon))

/** What a step is made of. */
export interface Learning {
  readonly network: Network
  readonly loss: Loss
  readonly optimizer: Optimizer
  readonly range: Range
}

/** The inputs of the graph of a step of `images` images, and its loss. */
export const lossGraph = ({ network, loss, optimizer, range }: Learning, images: number, microBatches?: number) => {
  const shapes = mapNamed(network.parameters, ({ shape }) => shape)
  const trained = mapNamed(trainedOf(network.parameters), ({ shape }) => shape)
  const statisticShapes = Object.fromEntries(Object.entries(shapes).filter(([k]) => !isTrained(network.parameters[k])))
  const named = (some: Named<S.Shape>, prefix = '') =>
    mapNamed(some, (shape, k): Tensor => input(`${prefix}${k}`, shape))
  const parameters = named(trained)
  // Means over the steps so far, for losses that ask for them.
  const population = named(statisticShapes, 'population.')
  const [inputs, labels] = [input('inputs', [images, ...network.input]), input('labels', [images])]
  // Every pass of a step uses the statistics of its clean batch; gradients flow through them.
  const statistics = network.statistics(parameters)(inputs)
  const hasStatistics = Object.keys(population).length > 0
  return {
    ...{ parameters, population, inputs, labels, hasStatistics },
    statistics: mapNamed(population, (_, k) => statistics[k]),
    slots: Object.fromEntries(optimizer.slots.map((s) => [s, named(trained, `${s}.`)])) as Slots<Tensor>,
    /** The loss, with the images of its robust terms in so many parts. */
    objective: (parts: number): Tensor =>
      probe(
        TOTAL,
        loss({
          ...{ inputs, labels, classes: network.classes, epsilon: epsilonFeed(), range, parts },
          ...(microBatches === undefined ? {} : { microBatches }),
        })({
          logits: network.apply({ ...parameters, ...statistics }),
          parameters,
          ...(hasStatistics ? { population: network.apply({ ...parameters, ...population }) } : {}),
        }),
      ),
    /** Whether some graphs ask for means over the steps so far. */
    asksFor: (outputs: readonly Tensor[]): boolean => {
      const all = Object.values(population)
      return order(outputs).some((x) => all.includes(x))
    },
  }
}

/** The names of the terms of a loss. */
export const termsIn = (objective: Tensor): readonly string[] => [
  ...new Set(order([objective]).flatMap((x) => probeName(x) ?? [])),
]

/** The nodes of a graph whose values are drawn anew for each run. */
export const feedsIn = (outputs: Graphs): readonly Tensor[] =>
  order(leavesOf(outputs).map(([, x]) => x)).filter((x) => feedOf(x) !== undefined)

/** What they draw. */
export const drawn = (feeds: readonly Tensor[], host: Host): readonly Float32Array[] =>
  feeds.map((x) => (feedOf(x) as (host: Host) => Float32Array)(host))

/**
 * The largest program that fits the budget, in bytes: whole with products kept, whole without, then in 2, 4, ... parts of its images. A backend that cannot repeat part of a
 * plan takes the whole.
 * @throws a memory error if one image at a time does not fit
 */
export const fittingStep = <P extends { readonly bytes: (backend: Backend) => number }>(
  backend: Backend,
  { memory, images }: { readonly memory: number; readonly images: number },
  make: (parts: number, keep: boolean) => P,
): P => {
  const limit = backend.rounds ? memory : Number.POSITIVE_INFINITY
  let [made, parts] = [make(1, true), 1]
  if (made.bytes(backend) > limit) made = make(1, false)
  while (made.bytes(backend) > limit) {
    if (parts >= images) {
      const what = 'a training step with one image at a time'
      return raise({ kind: 'memory', needed: made.bytes(backend), budget: limit, what })
    }
    parts *= 2
    made = make(parts, false)
  }
  return made
}

// ---- the state ---------------------------------------------------------------------------------------------------------

const floats = (named: Named<Data>): Named<Float32Array> => mapNamed(named, (data) => Float32Array.from(data))

/** The state of a training in a region: parameters, slots and loss terms, and the network's statistics. */
export const residentIn = (
  region: Region,
  { network, optimizer }: Pick<Learning, 'network' | 'optimizer'>,
  graph: Pick<ReturnType<typeof lossGraph>, 'parameters' | 'slots' | 'population'>,
  terms: Named<Tensor>,
  start: TrainState & { readonly terms?: Named<Float32Array> },
) => {
  const { parameters, slots, population } = graph
  for (const [k, { shape }] of Object.entries(network.parameters))
    if (start.parameters[k]?.length !== S.size(shape))
      raise(usage(`parameter ${k} of network ${network.name} must have ${S.size(shape)} elements`))
  const [trained, statistics] = [banksIn(region, { parameters, slots, terms }), banksIn(region, population)]
  const initial = { ...emptySlots(optimizer, network.parameters), ...start.slots }
  trained.write({
    parameters: mapNamed(parameters, (_, k) => start.parameters[k]),
    slots: mapNamed(slots, (own, s) => mapNamed(own, (_, k) => initial[s][k])),
    terms: mapNamed(terms, ({ shape }, t) => start.terms?.[t] ?? new Float32Array(S.size(shape))),
  })
  statistics.write(mapNamed(population, (_, k) => start.parameters[k]))
  /** In the order of the network's parameters. */
  const inOrder = <A>(named: Named<A>): Named<A> => mapNamed(network.parameters, (_, k) => named[k])
  /** The parameters that an evaluation takes, but for the statistics. */
  const evaluated = (): Named<Buffer> => {
    const front = trained.front()
    return optimizer.evaluated === undefined ? front.parameters : front.slots[optimizer.evaluated]
  }
  return {
    trained,
    statistics,
    evaluated,
    parameters: (): Named<Buffer> => inOrder({ ...evaluated(), ...statistics.front() }),
    read: async (): Promise<TrainState & { readonly terms: Named<Float32Array> }> => {
      const [state, own] = await Promise.all([trained.read(), statistics.read()])
      return {
        parameters: inOrder(floats({ ...state.parameters, ...own })),
        slots: mapNamed(state.slots, floats),
        terms: floats(state.terms),
      }
    },
  }
}
