import { anatomy, isNonlinear } from '../bounds/anatomy.ts'
import type { Boxes } from '../bounds/ibp.ts'
import { linearBounds } from '../bounds/linear-bounds.ts'
import { programOf } from '../compile/program.ts'
import { order, rewrite, substitute } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import { add, concat, greater, input, neg, reshape, select, subRounded, sum, zeros } from '../ops/index.ts'
import { type Free, isRelu, leak } from '../robust/alpha-crown.ts'
import { boundedOutputOf, type Subject } from './counterexample.ts'
import { argumentsFor } from './root-bounds.ts'

/** What a graph depends on. */
export interface BatchOptions {
  readonly batch: number
  /** Of the bounds. */
  readonly rounding: Rounding
}

const FOREVER = 3e38
/** Multipliers move by as much as slopes do. */
const BETA_RATE = 1

/** The network with 0 added to each ReLU: the derivative of a bound with respect to such a 0 is the coefficient of the ReLU. */
const marked = (y: Tensor): { readonly y: Tensor; readonly marks: readonly Tensor[] } => {
  const marks: Tensor[] = []
  const [built] = rewrite([y], (n, inputs) => {
    const copy = inputs.every((i, k) => i === n.inputs[k]) ? n : { ...n, inputs }
    if (!isRelu(n)) return copy
    const mark = zeros(n.shape)
    marks.push(mark)
    return add(copy, mark) as Tensor
  })
  return { y: built, marks }
}

/**
 * The bound of a batch of branches. beta-CROWN (arXiv:2103.06624): where s z >= 0, c . y is at least c . y - beta s z for beta >= 0. The right
 * side is a linear functional of the outputs and of z, so its bound is an ordinary walk, from a network that has the split nodes
 * among its outputs.
 */
const graphOf = (subject: Subject, { batch, rounding }: BatchOptions, mark: boolean) => {
  const rows = 1
  const x = input('x', [batch, ...subject.input])
  const { y, marks } = mark ? marked(boundedOutputOf(subject, x)) : { y: boundedOutputOf(subject, x), marks: [] }
  const [lower, upper] = [input('lower', x.shape), input('upper', x.shape)]
  const boxes: Boxes = new Map([[x, interval(lower, upper)]])
  const { boxed, hidden: nodes } = anatomy(y, boxes)
  const relus = order([y]).filter((r) => isRelu(r) && boxed.has(r))
  const split = [...new Set(relus.map((r) => r.inputs[0]))]
  const sizes = split.map((z) => S.size(z.shape.slice(1)))
  const neurons = sizes.reduce((a, b) => a + b, 0)
  const named = (name: string) => nodes.map((h, i) => input(`${name}.${i}`, h.shape))
  const hidden = { lower: named('lower'), upper: named('upper') }
  const signs = input('signs', [batch, neurons])
  const [spec, bound] = [input('spec', [rows, batch, subject.outputs]), input('bound', [rows, batch])]
  const free: readonly Free[] = [
    ...relus.map((r) => ({ shape: [rows, ...r.shape], low: leak(r), high: 1 })),
    { shape: [rows, batch, neurons], low: 0, high: FOREVER, rate: BETA_RATE },
  ]
  const given: Boxes = new Map(nodes.map((h, i): [Tensor, Interval] => [h, interval(hidden.lower[i], hidden.upper[i])]))
  return {
    ...{ x, y, marks, relus, split, sizes, neurons, nodes, free },
    inputs: { lower, upper, hidden, signs, spec, bound },
    values: free.map(({ shape }, i) => input(`value.${i}`, shape)),
    /** Lower bounds of spec . y - bound, `[rows, n]`. */
    lowerOf: (values: readonly Tensor[]): Tensor => {
      const slope = new Map(relus.map((r, i) => [r, values[i]]))
      const outputs = concat([y, ...split.map((z, i) => reshape(z, [batch, sizes[i]]))], 1)
      // By choices, not by a product: they are exact, so that no bound of the coefficients is taken.
      const beta = values[relus.length]
      const coefficients = concat([spec, select(greater(signs, 0), neg(beta), select(greater(0, signs), beta, 0))], 2)
      const walk = linearBounds({ slope, hidden: 'own' })(outputs, boxes, given, rounding)
      return subRounded(walk.rows(coefficients).lower, bound, rounding)
    },
  }
}

/** The ascent of slopes and multipliers. */
export const ascentOf = (subject: Subject, options: BatchOptions) => {
  const { free, inputs, lowerOf } = graphOf(subject, options, false)
  return {
    free,
    inputs,
    graph: (values: readonly Tensor[]) => {
      const lower = lowerOf(values)
      return { objective: lower, outputs: { lower } }
    },
  }
}

/** Bounds, the point where each is least, the output there, what the rows of the conjunction are there, and the coefficients of the ReLUs. */
export const scoreOf = (subject: Subject, options: BatchOptions) => {
  const { inputs, values, lowerOf, marks, x, y } = graphOf(subject, options, true)
  const lower = lowerOf(values)
  const [l, u, slope, ...coefficients] = grad(sum(lower), [inputs.lower, inputs.upper, inputs.spec, ...marks])
  const point = select(greater(add(l, u), 0), inputs.lower, inputs.upper) as Tensor
  const [there] = substitute([y], new Map([[x, point]]))
  return programOf({ ...inputs, values }, { lower, point, there, slope, coefficients })
}

/** Bounds alone, for slopes and multipliers as they are. */
export const trialOf = (subject: Subject, options: BatchOptions) => {
  const { inputs, values, lowerOf } = graphOf(subject, options, false)
  return programOf({ ...inputs, values }, { lower: lowerOf(values) })
}

/** Where the neurons of a network are: those that nodes which ReLUs take have, numbered through, and their ReLUs. */
export interface Neurons {
  readonly count: number
  /** Of each node that ReLUs take: its elements, its first neuron and its place among the hidden nodes. */
  readonly split: readonly { readonly size: number; readonly first: number; readonly hidden: number }[]
  /** Of each ReLU: its elements, its leak, and which of those nodes it takes. */
  readonly relus: readonly { readonly size: number; readonly leak: number; readonly of: number }[]
  /** Elements of the hidden nodes. */
  readonly hidden: readonly number[]
}

/** The neurons of a network, and the tensors that its bounds are computed from. */
export const neuronsOf = (subject: Subject, options: BatchOptions) => {
  const { relus, split, sizes, neurons, nodes, inputs, values } = graphOf(subject, options, false)
  const sizeOf = (x: Tensor) => S.size(x.shape.slice(1))
  const layout: Neurons = {
    count: neurons,
    split: split.map((z, i) => ({
      size: sizes[i],
      first: sizes.slice(0, i).reduce((a, b) => a + b, 0),
      hidden: nodes.indexOf(z),
    })),
    relus: relus.map((r) => ({ size: sizeOf(r), leak: leak(r), of: split.indexOf(r.inputs[0]) })),
    hidden: nodes.map(sizeOf),
  }
  return { layout, inputs: { ...inputs, values } }
}

/** True for a network that ReLU splitting can split. */
export const hasRelus = (subject: Subject): boolean =>
  order([boundedOutputOf(subject, input('x', [1, ...subject.input]))]).some(isRelu)

/** Whether nothing but ReLUs bends the network, so that enough splits leave no relaxation. */
export const isPiecewise = (subject: Subject): boolean => {
  const { y, boxes } = argumentsFor(subject, 1)
  const { boxed } = anatomy(y, boxes)
  return order([y]).every((x) => !boxed.has(x) || boxes.has(x) || !isNonlinear(x, boxed) || isRelu(x))
}
