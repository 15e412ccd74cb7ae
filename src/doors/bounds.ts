/**
 * `mixtrain/bounds`: methods that bound what a network does on a ball, their combinations, specifications and certificates. A method is a `Bounder`, a value
 * that the functions of the root door take: `verify({ method: bounds.crown, ... })`.
 *
 * @example
 *   import * as bounds from 'mixtrain/bounds'
 *   const mine = bounds.intersect(bounds.crown, bounds.symbolic)
 *
 * @module
 */

export { type ForwardMethod, forwardBounds, forwardWhereWide } from '../bounds/forward-bounds.ts'
export type { Boxes } from '../bounds/ibp.ts'
export { type Bounded, linearBounds, type Method } from '../bounds/linear-bounds.ts'
export type { Parts } from '../bounds/starts.ts'
export { interval } from '../core/op.ts'
export type { Rounding, Semantics } from '../core/rounding.ts'
export type { Ball, Interval, Norm } from '../core/tensor.ts'
export { centre, hull, intersection, radius } from '../ops/index.ts'
export { type AlphaOptions, alphaCrown } from '../robust/alpha-crown.ts'
export {
  type Bounder,
  blend,
  boundsOf,
  crown,
  crownForward,
  crownIbp,
  forward,
  ibp,
  intersect,
  type LayerBounds,
  layerBounds,
  type MethodName,
  methods,
  symbolic,
  zonotope,
} from '../robust/bounds.ts'
export {
  type Certificate,
  type Claim,
  claimsOf,
  decodeCertificate,
  encodeCertificate,
  unproved,
} from '../robust/certificate.ts'
export { type Cheaper, cheaperThan, type Fallback } from '../robust/cheaper.ts'
export { ball, norms, type Range } from '../robust/perturbation.ts'
export { margins, rivals, type Specification } from '../robust/specification.ts'
export { dual, type Projected } from '../robust/wong-kolter.ts'
