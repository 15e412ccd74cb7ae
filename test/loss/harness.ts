import type { Backend, Data } from '../../src/backend/backend.ts'
import { reference } from '../../src/backend/reference.ts'
import { key } from '../../src/core/key.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import type { Loss, Model, Step } from '../../src/loss/loss.ts'
import type { Named } from '../../src/nn/layers.ts'
import type { Network } from '../../src/nn/networks.ts'
import { type Host, type InputAttrs, input, inputOp } from '../../src/ops/index.ts'
import { evaluate } from '../../src/tape/run.ts'
import { order, print, stage, tape } from '../../src/tape/tape.ts'

export const host = (over: Partial<Host> = {}): Host => ({
  count: 0,
  epoch: 0,
  progress: 0,
  epsilon: 0.125,
  balance: 0.5,
  key: key(1),
  ...over,
})

/** Leaves that the host feeds. */
export const fedLeaves = (outputs: readonly Tensor[]): readonly Tensor[] =>
  order(outputs).filter((x) => x.op === inputOp && (x.attrs as InputAttrs).feed !== undefined)

/** Graphs staged and run once, feeds drawn from the host. */
export const run = async (
  outputs: readonly Tensor[],
  values: ReadonlyMap<Tensor, Data>,
  h: Host = host(),
  backend: Backend = reference(),
): Promise<readonly Data[]> => {
  const staged = stage(outputs).resolve(h)
  const fed = fedLeaves(staged).map((x) => [x, (x.attrs as InputAttrs).feed?.(h) as Data] as const)
  const live = backend.stats().live
  const results = await evaluate(backend)(staged, new Map([...fed, ...values]))
  if (backend.stats().live !== live) throw new Error('buffers are left')
  return results
}

/** A step on a placeholder batch of n inputs. */
export const stepOf = (n: number, shape: S.Shape, classes: number): Step => ({
  inputs: input('inputs', [n, ...shape]),
  labels: input('labels', [n]),
  classes,
  epsilon: input('epsilon', []),
  range: [0, 1],
})

/** A network with placeholder parameters. */
export const modelOf = (network: Network): Model => {
  const parameters: Named<Tensor> = Object.fromEntries(
    Object.entries(network.parameters).map(([k, p]) => [k, input(k, p.shape)]),
  )
  return { logits: network.apply(parameters), parameters }
}

/** What is bound where a step and a model are run. */
export const bindings = (
  step: Step,
  values: { readonly inputs: Data; readonly labels: ArrayLike<number>; readonly epsilon: number },
  model?: Model,
  parameters: Named<Data> = {},
): ReadonlyMap<Tensor, Data> =>
  new Map([
    [step.inputs, values.inputs],
    [step.labels, Float64Array.from(values.labels)],
    [step.epsilon, Float64Array.of(values.epsilon)],
    ...Object.entries(model?.parameters ?? {}).map(([k, x]) => [x, parameters[k]] as const),
  ])

/** The tape of a loss as the host stages it, as text. */
export const printed = (loss: Loss, step: Step, model: Model, h: Host = host()): string =>
  print(tape(stage([loss(step)(model)]).resolve(h)))

export const size = (x: Tensor): number => S.size(x.shape)
