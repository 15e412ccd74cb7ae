import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import type { Backend, Data } from '../../src/compile/backend.ts'
import { compile, evaluate } from '../../src/compile/run.ts'
import { order, print, stage, tape } from '../../src/compile/tape.ts'
import { grad } from '../../src/compile/vjp.ts'
import { key } from '../../src/core/key.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import type { Loss, Model, Step } from '../../src/loss/loss.ts'
import { type Named, trainedOf } from '../../src/nn/layers.ts'
import type { Network } from '../../src/nn/networks.ts'
import { type Host, type InputAttrs, input, inputOp } from '../../src/ops/index.ts'

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

/** A network with placeholder parameters; given a step, with the statistics of its batch, as the trainer binds them. */
export const modelOf = (network: Network, step?: Step): Model => {
  const parameters: Named<Tensor> = Object.fromEntries(
    Object.entries(step === undefined ? network.parameters : trainedOf(network.parameters)).map(([k, p]) => [
      k,
      input(k, p.shape),
    ]),
  )
  const statistics = step === undefined ? {} : network.statistics(parameters)(step.inputs)
  return { logits: network.apply({ ...parameters, ...statistics }), parameters }
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

/**
 * Gradients of a loss by the model's parameters against central differences in f64, at every `stride`-th element; 1e-6 relative.
 */
export const gradientCheck = async (
  loss: Loss,
  step: Step,
  model: Model,
  values: ReadonlyMap<Tensor, Data>,
  h: Host,
  stride = 5,
): Promise<void> => {
  const [objective] = stage([loss(step)(model)]).resolve(h)
  const wrt = Object.values(model.parameters)
  const outputs = [objective, ...grad(objective, wrt)]
  const feeds = fedLeaves(outputs)
  const inputs = [...values.keys(), ...feeds]
  const backend = reference()
  const f = await compile(backend)([objective], inputs)
  const both = await compile(backend)(outputs, inputs)
  const given: Data[] = [...values.values(), ...feeds.map((x) => (x.attrs as InputAttrs).feed?.(h) as Data)]
  const args = given.map((d) => {
    const b = backend.alloc(d.length)
    backend.write(b, d)
    return b
  })
  const results = outputs.map((x) => backend.alloc(size(x)))
  both.run([...args, ...results])
  const value = (await backend.read(results[0]))[0]
  assert.ok(Number.isFinite(value) && value !== 0, `value ${value}`)
  let nonzero = 0
  for (const [m, parameter] of wrt.entries()) {
    const g = await backend.read(results[m + 1])
    const at = inputs.indexOf(parameter)
    for (let j = m % stride; j < g.length; j += stride) {
      assert.ok(Number.isFinite(g[j]))
      const delta = 1e-5
      const moved = async (by: number) => {
        const data = Float64Array.from(given[at])
        data[j] += by
        backend.write(args[at], data)
        f.run([...args, results[0]])
        return (await backend.read(results[0]))[0]
      }
      const numeric = ((await moved(delta)) - (await moved(-delta))) / (2 * delta)
      backend.write(args[at], given[at])
      nonzero += Number(g[j] !== 0)
      const name = Object.keys(model.parameters)[m]
      assert.ok(Math.abs(numeric - g[j]) <= 1e-6 * (1 + Math.abs(numeric)), `${name}[${j}]: ${numeric}, vjp ${g[j]}`)
    }
  }
  assert.ok(nonzero > 10, `${nonzero} gradients are not 0`)
  for (const b of [...args, ...results]) backend.free(b)
  assert.is(backend.stats().live, 0)
}

export const size = (x: Tensor): number => S.size(x.shape)
