import { count, counts, fraction, type Kind, nonnegative, oneOf, or, positive, whether } from '../core/kinds.ts'
import { choices } from '../loss/objective.ts'
import { type Adjustable, optimizers } from './settings.ts'

export const keysOf = <K extends string>(record: Readonly<Record<K, unknown>>) => Object.keys(record) as K[]

/** What each setting may be: an option of `train`, a configuration file and a checkpoint are read by it. What a setting means is in `recipe`. */
export const kinds: { readonly [K in keyof Adjustable]: Kind<Adjustable[K]> } = {
  epochs: count,
  batchSize: count,
  k: count,
  balance: or(fraction, 'adaptive'),
  lr: positive,
  l1: nonnegative,
  weightDecay: nonnegative,
  swa: whether,
  choice: oneOf('choice', keysOf(choices)),
  optimizer: oneOf('optimizer', keysOf(optimizers)),
  milestones: counts,
  attackRadius: positive,
  regularizer: nonnegative,
  smooth: nonnegative,
  smoothSamples: count,
  population: whether,
}
