import type { Backend, Buffer } from '../compile/backend.ts'
import type { Plan } from '../compile/plan.ts'
import type { Region } from '../compile/region.ts'
import { planBytes } from '../compile/run.ts'
import { order } from '../compile/tape.ts'
import { raise, usage } from '../core/error.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import type { Named } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { feedOf, type Host } from '../ops/index.ts'
import type { Optimizer, Slots } from './optimizer.ts'

/** Everything that training changes, as plain data: what a checkpoint holds. */
export interface TrainState {
  readonly parameters: Named<Float32Array>
  readonly slots: Slots<Float32Array>
}

// What a step of whole batches and one of micro-batches have in common: the plan that fits, what is drawn for it, and the state as it lies in buffers.

/**
 * What is made of the largest plan that fits the budget, in bytes: whole with products kept, whole without, then in 2, 4, ... parts of its images. A backend that cannot repeat part of a
 * plan takes the whole.
 * @throws a memory error if one image at a time does not fit
 */
export const fittingStep = <M extends { readonly plan: Plan }>(
  backend: Backend,
  { memory, images }: { readonly memory: number; readonly images: number },
  make: (parts: number, keep: boolean) => M,
): M => {
  const limit = backend.rounds ? memory : Number.POSITIVE_INFINITY
  let [made, parts] = [make(1, true), 1]
  if (planBytes(backend, made.plan) > limit) made = make(1, false)
  while (planBytes(backend, made.plan) > limit) {
    if (parts >= images) {
      const what = 'a training step with one image at a time'
      return raise({ kind: 'memory', needed: planBytes(backend, made.plan), budget: limit, what })
    }
    parts *= 2
    made = make(parts, false)
  }
  return made
}

/** The nodes of a graph whose values are drawn anew for each run. */
export const feedsIn = (outputs: readonly Tensor[]): readonly Tensor[] =>
  order(outputs).filter((x) => feedOf(x) !== undefined)

/** A drawn value and its place. */
export interface Feed {
  readonly draw: (host: Host) => Float32Array
  readonly buffer: Buffer
}

export const feedsOf = (region: Region, nodes: readonly Tensor[]): readonly Feed[] =>
  nodes.map((x) => ({
    draw: feedOf(x) as (host: Host) => Float32Array,
    buffer: region.alloc(S.size(x.shape)),
  }))

/** Whether a state has the parameters of a network. @throws usage where it has not */
export const requireParameters = ({ name, parameters }: Network, start: Named<Float32Array>): void => {
  for (const [k, { shape }] of Object.entries(parameters))
    if (start[k]?.length !== S.size(shape))
      raise(usage(`parameter ${k} of network ${name} must have ${S.size(shape)} elements`))
}

/** Names in the order of the network's parameters. */
export const inOrder = <A>(network: Network, named: Named<A>): Named<A> =>
  Object.fromEntries(Object.keys(network.parameters).map((k) => [k, named[k]]))

/** The state of trained parameters `names`: their values, then each slot's, then the statistics by name. */
export const stateOf = (
  network: Network,
  { slots }: Pick<Optimizer, 'slots'>,
  names: readonly string[],
  data: readonly Float32Array[],
  statistics: Named<Float32Array>,
): TrainState => {
  const at = (i: number) => Object.fromEntries(names.map((k, j) => [k, data[i * names.length + j]]))
  return {
    parameters: inOrder(network, { ...at(0), ...statistics }),
    slots: Object.fromEntries(slots.map((s, i) => [s, at(i + 1)])),
  }
}

/** Of buffers that lie as `stateOf` reads them, those of the parameters that an evaluation takes. */
export const evaluatedIn = (
  { evaluated, slots }: Optimizer,
  names: readonly string[],
  buffers: readonly Buffer[],
): readonly Buffer[] => {
  const from = names.length * (evaluated === undefined ? 0 : 1 + slots.indexOf(evaluated))
  return buffers.slice(from, from + names.length)
}
