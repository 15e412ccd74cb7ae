import { withoutDefinitions } from '../bounds/definitions.ts'
import type { Rational } from '../core/rational.ts'
import * as S from '../core/shape.ts'
import type { Apply, Operand, Tensor } from '../core/tensor.ts'
import { concat, max, mul, reshape, slice, sub, sum } from '../ops/index.ts'

/** sum of coefficients[k] y[indices[k]] <= bound, or < where strict, in whole numbers. */
export interface ExactConstraint {
  readonly indices: readonly number[]
  readonly coefficients: readonly bigint[]
  readonly bound: bigint
  readonly strict: boolean
}

/** coefficients . y <= bound. */
export interface Constraint {
  readonly coefficients: Float64Array
  readonly bound: number
  /** A double not below the bound that was meant: what a proof refutes. */
  readonly outward: number
  /** What was meant, up to a positive factor, where it is not what the doubles say: what a counterexample satisfies. */
  readonly exact?: ExactConstraint
}

/** A box of inputs, and what must not happen in it: every constraint of at least one conjunction. */
export interface UnsafeCase {
  /** The least and the greatest double of the box that was meant; crossed where it has none. */
  readonly lower: Float64Array
  readonly upper: Float64Array
  /** Encloses the box that was meant. */
  readonly outward: { readonly lower: Float64Array; readonly upper: Float64Array }
  /** A number of the box for each input whose box has no double. */
  readonly between?: ReadonlyMap<number, Rational>
  readonly unsafe: readonly (readonly Constraint[])[]
}

/** A property of a network: it holds iff no case has a counterexample. A decoded VNN-LIB file is one. */
export interface UnsafeProperty {
  readonly inputs: number
  /** What constraints are about: the outputs of the network, and what is watched besides (`watching`). */
  readonly outputs: number
  readonly cases: readonly UnsafeCase[]
}

/** A network as a property sees it: inputs in row-major order of `input`, outputs in that of its output. */
export interface Subject {
  /** `[n, ...input] -> [n, ...]`, its parameters bound. */
  readonly network: Apply
  readonly input: S.Shape
  readonly outputs: number
}

/** Outputs as `[n, outputs]`. */
export const outputOf = ({ network, outputs }: Subject, x: Tensor): Tensor => reshape(network(x), [x.shape[0], outputs])

/** The same for bounds: ops that are bounded as graphs of others are those, so that every node that a relaxation asks for is in view. */
export const boundedOutputOf = (subject: Subject, x: Tensor): Tensor => {
  const y = outputOf(subject, x)
  return withoutDefinitions(y)(y)
}

/** Runs of neighbours among variables: where each begins, and how many there are. */
const runsOf = (variables: readonly number[]): readonly { readonly first: number; readonly count: number }[] => {
  const starts = [...variables.keys()].filter((i) => i === 0 || variables[i] !== variables[i - 1] + 2)
  return starts.map((at, k) => ({ first: variables[at], count: (starts[k + 1] ?? variables.length) - at }))
}

/**
 * The network with more outputs: variables that constraints mention besides its own, input i as 2 i and output j as 2 j + 1. They are copies, so that a constraint on
 * inputs, or on inputs and outputs, is a linear functional of the outputs like any other.
 */
export const watching = (subject: Subject, watched: readonly number[]): Subject => {
  if (watched.length === 0) return subject
  const runs = runsOf(watched)
  const size = S.size(subject.input)
  const network: Apply = (x) => {
    const n = x.shape[0]
    const [inputs, outputs] = [
      reshape(x as Operand, [n, size]),
      reshape(subject.network(x) as Operand, [n, subject.outputs]),
    ]
    const copies = runs.map(({ first, count }) =>
      slice(first % 2 === 0 ? inputs : outputs, [0, first >> 1], [n, count]),
    )
    return concat([outputs, ...copies], 1) as typeof x
  }
  return { network, input: subject.input, outputs: subject.outputs + watched.length }
}

// ---- attack ----------------------------------------------------------------------------------------------------------

/** max over k of spec_k . y - bound_k, `[n]`: at most 0 where a conjunction holds. y `[n, m]`, spec `[rows, n, m]`, bound `[rows, n]`. */
export const violation = (y: Tensor, spec: Tensor, bound: Tensor): Tensor =>
  max(sub(sum(mul(spec, y), 2), bound) as Tensor, 0)
