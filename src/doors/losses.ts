/**
 * `mixtrain/losses`: the algebra of losses (arXiv:1811.02625 and its field). A loss is a function `step -> model -> scalar graph`; combinators take losses
 * and give losses, and `objectives` has every loss of the command line by name.
 *
 * @example
 *   import * as losses from 'mixtrain/losses'
 *   const mine = losses.mix(0.7)(losses.natural(losses.crossEntropy), losses.robust(crown, losses.worstCase(losses.crossEntropy)))
 *
 * @module
 */

export { controlled, hardest, importance, type Scores, scored, stratified } from '../loss/choice.ts'
export { fusedCrossEntropy } from '../loss/fusion.ts'
export { type Latent, latentLogits } from '../loss/latent.ts'
export {
  add,
  alternate,
  always,
  type Bounds,
  bernoulli,
  type Gate,
  gate,
  geometric,
  getMonoid,
  type Hidden,
  type Inputs,
  type Logits,
  type Loss,
  type Model,
  mix,
  mixBounds,
  mixLogits,
  named,
  product,
  type Region,
  type Schedule,
  type Step,
  sampled,
  scale,
  scheduled,
  type Weight,
  withPopulation,
  zero,
} from '../loss/loss.ts'
export {
  adversarial,
  attacked,
  balance,
  type ChoiceName,
  type CrownIbp,
  ccIbp,
  choices,
  controlledMixTrain,
  crownIbp,
  type Distilled,
  distilled,
  type Expressive,
  expIbp,
  farStep,
  fastIbp,
  featureDistilled,
  forward,
  frozen,
  hydra,
  judged,
  type MixTrain,
  madry,
  mart,
  mixTrain,
  mtlIbp,
  natural,
  type ObjectiveName,
  type ObjectiveOptions,
  objectives,
  robust,
  type Sabr,
  sabr,
  staps,
  taps,
  trades,
  twofold,
  verifiable,
  wongKolter,
  worstCase,
  worstLogits,
} from '../loss/objective.ts'
export { at, bounded, clean, hidden, perturbed, smallBox, wholeBall } from '../loss/region.ts'
export * as regularizers from '../loss/regularizer.ts'
export * as schedules from '../loss/schedule.ts'
export { smoothed } from '../loss/smoothing.ts'
export { boostedCrossEntropy, type Criterion, correct, crossEntropy, divergence, marginLoss } from '../nn/criterion.ts'
export {
  type Adaptive,
  adaptive as adaptiveBalance,
  type Balance,
  type EpochMetrics,
  fixed as fixedBalance,
  tightShare,
} from '../train/balance.ts'
export { type Numbers, type Recipe, type RecipeOptions, recipe } from '../train/recipe.ts'
export type { Adjustable, Adjusted } from '../train/settings.ts'
