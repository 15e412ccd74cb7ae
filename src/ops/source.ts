import * as E from 'fp-ts/lib/Either.js'
import { raise } from '../core/error.ts'
import { fold, type Key } from '../core/key.ts'
import { node, type Op, unsupported } from '../core/op.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'

/** What the host knows at the start of a training step: the arguments of every draw and feed. */
export interface Host {
  /** Steps taken so far, counted over all epochs. */
  readonly count: number
  readonly epoch: number
  /** Progress through the whole training in [0, 1). */
  readonly progress: number
  /** l-inf radius in input units. */
  readonly epsilon: number
  /** Weight in [0, 1] of the robust term, as the dynamic balance of this epoch has it. */
  readonly balance: number
  /** Of the robust terms, the weight in [0, 1] of tight bounds, where a run balances these too. */
  readonly share?: number
  /** Randomness of this step alone; every use folds its own name into it. */
  readonly key: Key
  /** Which micro-batch of the step this is, and of how many; absent where the batch is one piece. */
  readonly micro?: { readonly index: number; readonly of: number }
  /** By the name of a choice (`BatchChoice`), its images that fall to this micro-batch. */
  readonly chosen?: Readonly<Record<string, Chosen>>
}

/** Images of a batch, as a micro-batch gets them: `[some, ...shape]`, `[some]`, `[some]`. */
export interface Chosen {
  readonly inputs: Float32Array
  readonly labels: Float32Array
  /** Of each image in means, next to 1. */
  readonly factors: Float32Array
}

/**
 * A choice among all images of a batch that is cut into micro-batches: it is made before any of these is differentiated, of numbers that each of them computes of its own images. Choices of one
 * name choose the same images.
 */
export interface BatchChoice {
  readonly name: string
  /** How many images. */
  readonly k: number
  /** What images are chosen by: a number for each image of a micro-batch, `[n]`. */
  readonly scores: Tensor
  /** k images of the batch, by their numbers in it, from the scores of all, and a factor for each (default: 1). */
  readonly pick: (scores: Float32Array, host: Host) => Picked
}

/** What a choice came to. */
export interface Picked {
  readonly images: readonly number[]
  readonly factors?: readonly number[]
}

/** Randomness of the images at hand: of the step, or of a micro-batch of it, so that it does not depend on who computes which. */
export const imagesKey = ({ key, micro }: Pick<Host, 'key' | 'micro'>): Key =>
  micro === undefined ? key : fold(fold(key, 'micro'), micro.index)

export interface InputAttrs {
  readonly name: string
  readonly shape: S.Shape
  /** A feed: the value is drawn from the host's state at each run, so that a schedule never recompiles. */
  readonly feed?: (host: Host) => Float32Array
  /** The choice that a feed has its images of. */
  readonly choice?: BatchChoice
}

const leafKernel = {
  reference: () => raise({ kind: 'unsupported', what: 'running a leaf', reason: 'leaves are bound, not computed' }),
  lower: () => ({ kind: 'alias' }) as const,
}

/** How a feed draws its value; undefined for every other node. */
export const feedOf = (x: Tensor): ((host: Host) => Float32Array) | undefined =>
  x.op === inputOp ? (x.attrs as InputAttrs).feed : undefined

/** Whether a value is given as it is: neither computed nor drawn. */
export const isGiven = (x: Tensor): boolean => x.op === inputOp && feedOf(x) === undefined

/** The choice whose images a feed gives; undefined for every other node. */
export const choiceOf = (x: Tensor): BatchChoice | undefined =>
  x.op === inputOp ? (x.attrs as InputAttrs).choice : undefined

/** What a value given at run time is called; undefined for every other node. */
export const inputNameOf = (x: Tensor): string | undefined =>
  x.op === inputOp ? (x.attrs as InputAttrs).name : undefined

/** A value given at run time. Two inputs are the same only if they are the same node. */
export const inputOp: Op<InputAttrs> = {
  name: 'input',
  shape: (_, { shape }) => E.right(shape),
  vjp: () => [],
  interval: unsupported('a leaf has no operands'),
  relax: unsupported('a leaf has no operands'),
  kernel: leafKernel,
}

export interface ConstantAttrs {
  readonly shape: S.Shape
  readonly data: Float64Array
}

/** The numbers of a constant; undefined for every other node. */
export const dataOf = (x: Tensor): Float64Array | undefined =>
  x.op === constantOp ? (x.attrs as ConstantAttrs).data : undefined

/** A value known when the graph is built. */
export const constantOp: Op<ConstantAttrs> = {
  name: 'constant',
  shape: (_, { shape }) => E.right(shape),
  vjp: () => [],
  interval: unsupported('a leaf has no operands'),
  relax: unsupported('a leaf has no operands'),
  kernel: leafKernel,
}

export interface ChooseAttrs {
  /** Index of the branch, decided by the host before the step is compiled. */
  readonly draw: (host: Host) => number
}

/**
 * A decision of the host (a gate, a schedule at its end): one of several graphs of the same shape. `stage` replaces it by the
 * branch drawn before anything is differentiated or planned, so a branch not taken costs nothing.
 */
export const chooseOp: Op<ChooseAttrs> = {
  name: 'choose',
  shape: (inputs) =>
    inputs.length > 0 && inputs.every((s) => S.equals(s, inputs[0]))
      ? E.right(inputs[0])
      : E.left('all branches must have one shape'),
  vjp: () =>
    raise({ kind: 'unsupported', what: 'differentiating an undecided choice', reason: 'stage the graph first' }),
  interval: unsupported('stage the graph first'),
  relax: unsupported('stage the graph first'),
  kernel: leafKernel,
}

/**
 * `input('x', [n, 784])`: a leaf whose value is an argument of the compiled plan.
 *
 * @example
 *   const x = input('x', [1, 784])
 */
export const input = <const Sh extends S.Shape>(name: string, shape: Sh): Tensor<Sh> =>
  node(inputOp, [], { name, shape }) as Tensor<Sh>

/**
 * A leaf of a shape whose value the host draws for every step: epsilon, loss weights, sampled indices, random starts.
 *
 * @example
 *   const noise = feed('noise', [2], () => new Float32Array([0.1, -0.1]))
 */
export const feed = <const Sh extends S.Shape>(
  name: string,
  shape: Sh,
  draw: (host: Host) => Float32Array,
): Tensor<Sh> => node(inputOp, [], { name, shape, feed: draw }) as Tensor<Sh>

/** What a micro-batch gets of a choice: a leaf that is fed from the host's `chosen`. */
export const chosen = (choice: BatchChoice, what: keyof Chosen, shape: S.Shape): Tensor => {
  const { name } = choice
  const draw = (host: Host): Float32Array =>
    host.chosen?.[name]?.[what] ??
    raise({
      kind: 'unsupported',
      what: `the choice ${name} over micro-batches`,
      reason: 'it is made of the whole batch, by a trainer of micro-batches',
    })
  return node(inputOp, [], { name: `${name}.${what}`, shape, feed: draw, choice })
}

/** One of `branches`, by the host's decision; branches are given as nodes and only the one drawn is ever compiled. */
export const choose = (draw: (host: Host) => number, branches: readonly Tensor[]): Tensor =>
  node(chooseOp, branches, { draw })

/**
 * `constant([1, 2, 3, 4], [2, 2])`: row-major data.
 *
 * @throws shape where there are not as many numbers as the shape has elements
 *
 * @example
 *   constant([1, 2, 3, 4], [2, 2]) // [1, 2, 3, 4]
 */
export const constant = <const Sh extends S.Shape>(data: ArrayLike<number>, shape: Sh): Tensor<Sh> =>
  data.length === S.size(shape)
    ? (node(constantOp, [], { shape, data: Float64Array.from(data) }) as Tensor<Sh>)
    : raise({
        kind: 'shape',
        op: 'constant',
        message: `${data.length} numbers do not fill shape ${S.show(shape)} of ${S.size(shape)}`,
      })

/**
 * A constant of shape [].
 *
 * @example
 *   scalar(3) // [3]
 */
export const scalar = (value: number): Tensor<readonly []> => constant([value], [])

/**
 * `first`, first + 1, ..., first + n - 1 as `[n]`.
 *
 * @example
 *   iota(3) // [0, 1, 2]
 */
export const iota = (n: number, first = 0): Tensor<readonly [number]> =>
  constant(
    Float64Array.from({ length: n }, (_, i) => first + i),
    [n],
  )
