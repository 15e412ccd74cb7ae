import type * as E from 'fp-ts/lib/Either.js'
import type { Lowering, ReferenceKernel } from './lowering.ts'
import type { Shape } from './shape.ts'

/**
 * A node of an immutable computation graph. It owns no memory: a value exists only while a compiled plan runs.
 * `S` is the shape as the type checker knows it; `Tensor` alone means any shape.
 */
export interface Tensor<S extends Shape = Shape> {
  readonly _tag: 'Tensor'
  // biome-ignore lint/suspicious/noExplicitAny: a graph holds ops of every attribute type; the record ties the two together
  readonly op: Op<any>
  readonly attrs: unknown
  readonly inputs: readonly Tensor[]
  readonly shape: S
  /** What a file calls the node that this one is of, for messages: it changes neither values nor plans. */
  readonly origin?: string
}

/**
 * An interval tensor: all real tensors x with lower <= x <= upper, elementwise. Two nodes of one shape, so that every transform
 * (run, differentiate, bound, print) treats a bound like any other value. lower > upper denotes the empty set; a NaN in either
 * bound says nothing is known, and no comparison with it succeeds.
 */
export interface Interval<S extends Shape = Shape> {
  readonly _tag: 'Interval'
  readonly lower: Tensor<S>
  readonly upper: Tensor<S>
  readonly shape: S
  /** A ball that its tensors lie in besides. Who does not know about it sees the interval, which is sound; ops give results without one. */
  readonly ball?: Ball
}

/** The norms of balls: largest magnitude, root of the sum of squares, sum of magnitudes, over all elements of an image. */
export type Norm = 'linf' | 'l2' | 'l1'

/** Each image x with || (x - centre) / radius || <= 1; the radius is positive and broadcasts to the centre. */
export interface Ball {
  readonly norm: Exclude<Norm, 'linf'>
  readonly centre: Tensor
  readonly radius: Tensor
}

/** What a public op takes: a tensor, or an interval tensor for a sound enclosure of the same function. */
export type Operand<S extends Shape = Shape> = Tensor<S> | Interval<S>

/**
 * Whether an operand is an interval tensor, two nodes of one shape, and not a tensor.
 *
 * @example
 *   isInterval(ball(constant([0.5], [1]), 0.1)) // true
 */
export const isInterval = (x: Operand): x is Interval => x._tag === 'Interval'

/** The result kind of an op: an interval as soon as one operand is one. */
export type Join<T extends Operand, U extends Operand> = T extends Interval
  ? Interval
  : U extends Interval
    ? Interval
    : Tensor

/** A function that is the same code on tensors and on interval tensors: a network with its parameters bound. */
export type Apply = <T extends Operand>(x: T) => T

// ---- the op record, which tensors refer to and which is made of them ------------------------------------------------

/** A rule that is missing on purpose, with the reason that an error message will give. */
export interface Unsupported {
  readonly unsupported: string
}

/**
 * sum of slopes[i] * x_i over the operands i that are intervals, plus the intercept, which has all that points contribute; each slope has the shape of its operand or
 * broadcasts to it. Slopes of points are not looked at.
 */
export interface Affine {
  readonly slopes: readonly Tensor[]
  /** Absent where it is 0 everywhere. */
  readonly intercept?: Tensor | undefined
}

/**
 * The freedom left in a relaxation, which is all that tells the CROWN family apart: `same` takes parallel lines (symbolic intervals,
 * Fast-Lin, DeepZ), `adaptive` the line of smaller area (CROWN), `zero` the flat one; a tensor gives the lower slope itself
 * (alpha-CROWN).
 */
export type Slope = 'same' | 'adaptive' | 'zero' | Tensor

/** Two affine forms that sandwich an elementwise op on a box: lower(x) <= f(x) <= upper(x) for every x of the box. */
export type Relax<A> = (
  xs: readonly Operand[],
  attrs: A,
  slope: Slope,
) => { readonly lower: Affine; readonly upper: Affine }

/**
 * A relaxation of an op that reduces axes: slopes have the shape of the operand, and `lift` reshapes coefficients of the output
 * `[rows, n, ...out]` so that they broadcast against `[rows, n, ...operand]`.
 */
export interface Reduction<A> {
  readonly relax: Relax<A>
  readonly lift: (coefficients: Tensor, inputs: readonly Tensor[], attrs: A) => Tensor
  /** Adds non-negative numbers of the operand's shape up to the output's. Absent: no slope is but 0 or 1. */
  readonly collect?: (sizes: Tensor, attrs: A) => Tensor
}

/**
 * Linear in each operand while the others are points; the relaxation, if any, is for two boxed operands. `centred`: with centres c and radii r, a b lies in
 * c_a b + a c_b - c_a c_b +- r_a r_b, since (a - c_a)(b - c_b) is at most r_a r_b: the product of two zonotopes, whose rows are those of the vjp at the centres.
 */
export interface Bilinear<A> {
  readonly bilinear: Relax<A> | 'centred' | Unsupported
}

/** An op whose linear bounds are those of a graph of other ops that computes the same. */
export interface Definition<A> {
  readonly definition: (inputs: readonly Tensor[], attrs: A) => Tensor
}

/**
 * A sub-graph that is run round after round (compile/accumulate.ts). It refers to what surrounds it through placeholders only, so it is
 * planned on its own.
 */
export interface Rounds {
  /** Items of one round; ceil(count / per) rounds are run, `most` at most. */
  readonly per: number
  readonly most: number
  /** Placeholder of the number of the round, a scalar. */
  readonly round: Tensor
  /** Placeholders of the op's operands after the first, which is the count. */
  readonly captured: readonly Tensor[]
  readonly outputs: readonly Tensor[]
  /** Whether another sum over the same rounds may read values that this one had, where memory allows, instead of computing them again. */
  readonly keeps: boolean
  /** Values of the body that are left behind for every round, behind the sums (compile/keep.ts). */
  readonly kept?: readonly Tensor[]
  /** Placeholders of values that the last operand, a sum with the same rounds, has kept, and where the first round's begins. */
  readonly stored?: readonly { readonly placeholder: Tensor; readonly at: number }[]
}

/**
 * What makes the bounds of an op sound in spite of rounding (core/rounding.ts). An op without it is refused under outward rounding.
 */
export interface Outward<A> {
  /**
   * `exact`: the ends of the interval rule, and the op on points, are computed without any rounding. `rounded`: the op rounds its exact result
   * once, and so do the ends of the interval rule. `sum`: it adds elements up in any order. `product`: it sums products in any order, as many
   * as `terms` says. `directed`: its result is a bound, which is the number that was computed. Otherwise a rule of its own, for an op that rounds
   * its exact result once.
   */
  readonly interval:
    | 'exact'
    | 'directed'
    | 'rounded'
    | 'sum'
    | 'product'
    | ((xs: readonly Operand[], attrs: A) => Interval)
  /**
   * Lines that hold in real arithmetic for the slopes as they were computed. `selection`: those of `relax` do, and its slopes are 0 and 1.
   */
  readonly relax?: Relax<A> | 'selection'
  /** Whether the slopes may leave [-1, 1]. */
  readonly steep?: boolean
  /** By how many units in the last place an execution may differ from the exact result; absent: it is rounded correctly. */
  readonly ulps?: number
  /** `unknown`: no bound of what executions are off is assumed, so that `deployed` refuses the op. */
  readonly executions?: 'unknown'
  /**
   * The size whose units in the last place these are, where it is not that of the result: an implementation may take a difference on the way
   * (log(1 + e^x), x (1 + erf x) / 2), whose error is not small beside a small result. Of operands and of the exact result.
   */
  readonly scale?: (xs: readonly Operand[], result: Interval, attrs: A) => Tensor
  /** Of a product: how many products each element of the result sums, and each element of its adjoint to operand 0. */
  readonly terms?: (inputs: readonly Shape[], attrs: A) => { readonly result: number; readonly adjoint: number }
  /**
   * Of an op that sums products of two operands: how many products of each sum are not 0 in some execution, `[n, 1, ...]`, given where operand 0 may differ from 0
   * (ones and zeros, `[n, ...]`); absent or undefined: all.
   */
  readonly live?: (where: Tensor, inputs: readonly Shape[], attrs: A) => Tensor | undefined
}

/** Two numbers of an image: of its rows and of its columns. */
export type Pair = readonly [number, number]

/** How a window slides over a map: [vertical, horizontal] steps, zeros in front and distance of taps. */
export interface Window {
  readonly stride: Pair
  readonly pad: Pair
  readonly dilation: Pair
}

/** Geometry of a convolution: the window, and the extents that its adjoints cannot derive. */
export interface Conv extends Window {
  /** [height, width] of x, of w and of y. */
  readonly x: Pair
  readonly w: Pair
  readonly y: Pair
  /** Channels in so many groups, each of which meets its own share of the output channels alone; 1 where it is not said. */
  readonly groups?: number
}

/**
 * What an op that is linear in each operand (a quotient in its dividend alone) does with elements: leaves them in place but for their signs, keeps their order under another
 * shape, puts each in one place at most, in several, adds or subtracts two, multiplies two, divides one by another, adds elements up, or sums products.
 * An implementation may run it in one kernel with neighbours of its kind (bounds/executions.ts).
 */
export type Linear =
  | 'same'
  | 'reshapes'
  | 'moves'
  | 'repeats'
  | 'adds'
  | 'subtracts'
  | 'multiplies'
  | 'divides'
  | 'sums'
  | 'products'

/**
 * An op that sums products of operand 0 with weights, operand 1, over windows of a map, `[n, c, h, w]` with `[o, ...]`: rows of coefficients over its result may be
 * kept as one window for each place (bounds/windows.ts).
 */
export interface Windowed<A> {
  readonly geometry: (attrs: A) => Conv
  /** Coefficients of windows of the result carried to windows of operand 0, for the geometry of one window. */
  readonly adjoint: (coefficients: Tensor, weights: Tensor, local: Conv) => Tensor
}

/**
 * Where an operand has to lie: `nonnegative` includes 0, where the op may be infinite. On a box that reaches outside the op has no bounds (they
 * are NaN or infinite), so its operand's box is worth tightening: linear bounds intersect it with interval propagation.
 */
export type Domain = 'nonnegative' | 'nonzero'

/** How the op runs: natively, by expansion into other ops, or round after round. */
export type Kernel<A> =
  | {
      readonly reference: ReferenceKernel<A>
      readonly lower: (inputs: readonly Shape[], out: Shape, attrs: A) => Lowering
    }
  | { readonly expand: (inputs: readonly Tensor[], attrs: A) => Tensor }
  | { readonly reference: ReferenceKernel<A>; readonly rounds: (attrs: A) => Rounds }

/**
 * Everything there is to know about one op. The tape, the backends and the tests are generic over this record.
 *
 * - `vjp(ct, inputs, out)`: cotangents of the inputs, `undefined` where none flows. Rules of linear and bilinear ops accept a
 *   cotangent with extra leading axes and return them untouched: backward bound propagation is exactly this rule applied to
 *   coefficients `[rows, n, ...shape]`.
 * - `interval`: a sound enclosure, given at least one interval operand.
 * - `relax`: `linear` when the op is jointly linear in all operands, bilinear when it is linear in each with the others held
 *   fixed, else a relaxation, or the definition in other ops.
 */
export interface Op<A> {
  readonly name: string
  readonly shape: (inputs: readonly Shape[], attrs: A) => E.Either<string, Shape>
  readonly vjp: (ct: Tensor, inputs: readonly Tensor[], out: Tensor, attrs: A) => readonly (Tensor | undefined)[]
  readonly interval: ((xs: readonly Operand[], attrs: A) => Interval) | Unsupported
  readonly relax: 'linear' | Bilinear<A> | Relax<A> | Reduction<A> | Definition<A> | Unsupported
  readonly kernel: Kernel<A>
  /** Domains of the operands that have one; absent: the op is a number everywhere. */
  readonly domain?: readonly (Domain | undefined)[]
  /**
   * Whether no result is negative, of whatever implementation, given of which operands that holds. Absent: sums, products, quotients and what moves elements keep it
   * (`linear`), nothing else has it.
   */
  readonly nonnegative?: 'always' | ((operands: readonly boolean[], attrs: A) => boolean)
  readonly outward?: Outward<A>
  /**
   * What exact arithmetic does with an op that is not linear. `elements`: each result is 0, an element of an operand or its negative, chosen by order and signs alone, so
   * that the op commutes with every odd increasing function. `decisions`: each result is -1, 0 or 1, and no such function of the operands changes it. `quotient`: the exact
   * quotient of its two operands. `root`: the square root of its operand, which no rational number may be.
   */
  readonly exact?: 'elements' | 'decisions' | 'quotient' | 'root'
  /** Absent: not linear in any operand, or a value of its own whatever its neighbours are. */
  readonly linear?: Linear
  /** Whether an image of its result depends on the same image alone of the operands that have a box; absent: it does. */
  readonly keepsImages?: (inputs: readonly Shape[], out: Shape, attrs: A, boxed: readonly boolean[]) => boolean
  /** Whether the vjp takes coefficients `[rows, 1, ...]`, one image in place of n, where all images have the same; absent: it does not. */
  readonly sharesImages?: (inputs: readonly Shape[]) => boolean
  /**
   * Of a product of operand 0 with weights that are points: its coefficients over an image of operand 0, a row for each element of the result (for each channel, where it is
   * `windowed`), `[rows, ...]`; undefined where they differ from image to image.
   */
  readonly rows?: (inputs: readonly Tensor[], out: Shape, attrs: A) => Tensor | undefined
  readonly windowed?: Windowed<A>
  /** Of x -> max(x, a x), 0 <= a < 1: the slope a. Its lower line where it is open is a choice in [a, 1], and it may be split at 0. */
  readonly leak?: (attrs: A) => number
}
