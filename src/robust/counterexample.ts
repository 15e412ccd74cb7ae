import type { Region } from '../backend/region.ts'
import { fold, type Key, uniform } from '../core/key.ts'
import type { Rational } from '../core/rational.ts'
import * as S from '../core/shape.ts'
import type { Apply, Operand, Tensor } from '../core/tensor.ts'
import { concat, div, input, max, maximum, mul, neg, reshape, slice, sub, sum } from '../ops/index.ts'
import { compileIn } from '../tape/run.ts'
import { pgdFrom } from './attack.ts'

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

/** An attack on boxes, many at once. All arrays are row-major, `images` first; spec `[rows, images, outputs]`, bound `[rows, images]`. */
export interface Attacker {
  readonly images: number
  readonly rows: number
  /** `start` in [-1, 1], relative to the box. Points and how far each is from a violation (at most 0: it is one, in this arithmetic). */
  readonly run: (
    box: { readonly centre: Float32Array; readonly radius: Float32Array },
    goal: { readonly spec: Float32Array; readonly bound: Float32Array },
    start: Float32Array,
  ) => Promise<{ readonly x: ArrayLike<number>; readonly violation: ArrayLike<number> }>
}

const ANYWHERE = [-3e38, 3e38] as const

/**
 * PGD on the margin of the unsafe conjunctions (arXiv:1706.06083, with the loss of 1608.04644): signed steps of 0.15 radii, then of 0.02, `steps` of
 * each, projected to the box.
 */
export const attacker =
  (region: Region) =>
  async (subject: Subject, images: number, rows: number, steps: number): Promise<Attacker> => {
    const { backend } = region
    const shape = [images, ...subject.input]
    const [centre, radius, start] = ['centre', 'radius', 'start'].map((name): Tensor => input(name, shape))
    const [spec, bound] = [input('spec', [rows, images, subject.outputs]), input('bound', [rows, images])]
    const closeness = (y: Tensor) => neg(violation(y, spec, bound))
    const target = {
      logits: ((x: Tensor) => outputOf(subject, x)) as Apply,
      inputs: centre,
      labels: centre,
      epsilon: radius,
      range: ANYWHERE,
    }
    const near = pgdFrom({ steps, stepSize: 0.15, fallback: null }, closeness, start)(target)
    const again = div(sub(near, centre), maximum(radius, 1e-30)) as Tensor
    const x = pgdFrom({ steps, stepSize: 0.02, fallback: null }, closeness, again)(target)
    const results = [x, violation(outputOf(subject, x), spec, bound)]
    const given = [centre, radius, start, spec, bound]
    const { run } = await compileIn(region)(results, given)
    const buffers = given.map((t) => region.alloc(S.size(t.shape)))
    const out = results.map((t) => region.alloc(S.size(t.shape)))
    return {
      images,
      rows,
      run: async (box, goal, from) => {
        for (const [i, data] of [box.centre, box.radius, from, goal.spec, goal.bound].entries())
          backend.write(buffers[i], data)
        run([...buffers, ...out])
        return { x: await backend.read(out[0]), violation: await backend.read(out[1]) }
      },
    }
  }

/** Starts of one run: the centre for images whose restart is 0, uniform in the box for others. */
export const starts = (key: Key, restart: (image: number) => number, images: number, size: number): Float32Array => {
  const out = new Float32Array(images * size)
  for (let i = 0; i < images; i++)
    if (restart(i) > 0) out.set(uniform(fold(fold(key, restart(i)), i), size, -1, 1), i * size)
  return out
}
