import type { Slope } from '../core/op.ts'
import type { Semantics } from '../core/rounding.ts'
import type { Interval, Operand, Tensor } from '../core/tensor.ts'
import { add, type Conv } from '../ops/index.ts'

/** Rows of coefficients of a linear functional of one node. `lower === upper` (one node) while nothing has told them apart. */
export interface Rows {
  readonly lower: Tensor
  readonly upper: Tensor
  /** Set when rows are those of a convolution kept as patches: `[o, n, P, c, p, q]`, one window of the node for each of P places. */
  readonly patch?: Patch
}

export interface Patch {
  /** Windows of the node's map (x) for a grid (y) of places. */
  readonly g: Conv
  /** Coefficients outside the map are 0 already. */
  readonly masked: boolean
}

/** Bounds of the rows: `[rows, n]`, or `[o, n, P]` for patches. */
export interface Ends {
  readonly lower: Tensor
  readonly upper: Tensor
}

/** Ends as far as they are known: what has been added up so far. */
export interface Gathered {
  readonly lower?: Tensor | undefined
  readonly upper?: Tensor | undefined
}

/** What every walk of one graph shares. */
export interface Context {
  readonly images: number
  /** Set in walks of listed rows: their axis of images counts the items of a list instead. */
  readonly list?: List | undefined
  /** Nodes that depend on a box. */
  readonly boxed: ReadonlySet<Tensor>
  /** The box of a node that a relaxation asks for. */
  readonly bounds: (x: Tensor) => Interval
  readonly slope: (x: Tensor) => Slope
  /** Set under outward rounding. */
  readonly outward?: Covering | undefined
}

/** What is needed in order to cover rounding: that of a walk (bounds/slack.ts), of points and of executions (bounds/executions.ts). */
export interface Covering {
  readonly semantics: Semantics
  /** A sound box of any node that depends on a box, by whatever means. */
  readonly box: (x: Tensor) => Interval
  /** What a node that depends on no box stands for: itself where it is exact, else an enclosure. */
  readonly point: (x: Tensor) => Operand
  /** By how much that may differ from the point as it is computed; undefined where it is exact. */
  readonly off: (x: Tensor) => Tensor | undefined
  /** Whether a node is computed together with the op that uses it, so that its own executions are not looked at. */
  readonly isPart: (x: Tensor) => boolean
  /** By how much an execution of a node, with all that is part of it, may differ from its real value for the same heads; undefined for none. */
  readonly error: (x: Tensor) => Tensor | undefined
  /**
   * Boxes of a node: of its exact results, given boxes of its operands (exact ones of those that are part of it), and of its executions.
   */
  readonly results: (
    x: Tensor,
    operands: readonly Operand[],
  ) => { readonly exact: Interval; readonly executed: Interval }
}

/** Rows of several images one after the other: which image each is of, and where its patch lies. */
interface List {
  readonly length: number
  /** Numbers of images and of places, `[length]`; places of patches alone. */
  readonly image: Tensor
  readonly place: Tensor | undefined
}

export const both = (rows: Rows, f: (a: Tensor) => Tensor): Rows => {
  const lower = f(rows.lower)
  return { ...rows, lower, upper: rows.upper === rows.lower ? lower : f(rows.upper) }
}

export const plus = (a: Tensor | undefined, b: Tensor | undefined): Tensor | undefined =>
  a && b ? add(a, b) : (a ?? b)
