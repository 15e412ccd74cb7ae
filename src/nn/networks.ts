import { raise, usage } from '../core/error.ts'
import type { Key } from '../core/key.ts'
import { type Shape, show } from '../core/shape.ts'
import type { Apply, Tensor } from '../core/tensor.ts'
import {
  conv,
  dense,
  flatten,
  type Initialiser,
  initialise,
  type Layer,
  type Named,
  type Parameter,
  relu,
  sequential,
} from './layers.ts'

/** A classifier of images `[c, h, w]`, as data: parameters are values handed in, never held. */
export interface Network {
  readonly name: string
  readonly input: Shape
  readonly classes: number
  readonly parameters: Named<Parameter>
  readonly init: (key: Key) => Named<Float32Array>
  /** Logits `[n, classes]` of a batch `[n, c, h, w]`; on an interval tensor, interval logits. */
  readonly apply: (parameters: Named<Tensor>) => Apply
}

export interface Task {
  readonly input: Shape
  readonly classes: number
}

/** A network from its layers, for inputs of one shape. */
export const network = (name: string, layer: Layer, { input, classes }: Task, init?: Initialiser): Network => {
  const built = layer(input)
  if (built.output.length !== 1 || built.output[0] !== classes)
    return raise(usage(`network ${name} gives ${show(built.output)} for ${show(input)}, expected [${classes}]`))
  return {
    name,
    input,
    classes,
    parameters: built.parameters,
    init: (key) => initialise(key, built.parameters, init),
    apply: built.apply,
  }
}

/** conv 16,4,2,1 - conv 32,4,2,1 - fc 100: the paper's small network (MNIST 4,804 ReLUs, 166,406 parameters; CIFAR 6,244). */
export const small = (task: Task): Network =>
  network(
    'small',
    sequential(conv(16, 4, 2, 1), relu, conv(32, 4, 2, 1), relu, flatten, dense(100), relu, dense(task.classes)),
    task,
  )

/** conv 32,3,1,1 - 32,4,2,1 - 64,3,1,1 - 64,4,2,1 - fc 512 - fc 512: the paper's large network (MNIST 48,064 ReLUs). */
export const large = (task: Task): Network =>
  network(
    'large',
    sequential(
      ...[conv(32, 3, 1, 1), relu, conv(32, 4, 2, 1), relu, conv(64, 3, 1, 1), relu, conv(64, 4, 2, 1), relu],
      ...[flatten, dense(512), relu, dense(512), relu, dense(task.classes)],
    ),
    task,
  )

/** The networks by name. */
export const networks = { small, large } as const
export type NetworkName = keyof typeof networks
