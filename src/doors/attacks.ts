/**
 * `mixtrain/attacks`: points of a ball that a network classifies differently. An `Attack` is a graph, which losses train on; `search` runs attacks with restarts
 * against given images, which ERA counts.
 *
 * @example
 *   import * as attacks from 'mixtrain/attacks'
 *   const pgd = attacks.pgd({ steps: 10, stepSize: attacks.usualStep(10), start: 'random' }, crossEntropy)
 *
 * @module
 */

export { type Attack, fgsm, type Pgd, pgd, type Target, usualStep, wider } from '../robust/attack.ts'
export { type IntervalStep, intervalStep } from '../robust/interval-attack.ts'
export {
  type Attacked,
  type AttackName,
  type AttackOptions,
  attackNames,
  type Gradient,
  gradients,
  type Outcome,
  type Search,
  type SearchOptions,
  search,
  type TargetLoss,
  targetLosses,
} from '../robust/search.ts'
export { pgdAttack } from '../train/recipe.ts'
