import type { ChoiceName } from '../loss/objective.ts'
import { adam, radam } from './optimizer.ts'

export const optimizers = { adam, radam } as const

/** The numbers of a recipe that a person may choose: a setting of `train` each. */
export interface Adjustable {
  readonly epochs: number
  readonly batchSize: number
  /** Images per batch that MixTrain's robust term is computed for. */
  readonly k: number
  /** Weight of the robust term, from 0 to 1, or `adaptive`: it follows both conflicts (`train/balance.ts`). */
  readonly balance: number | 'adaptive'
  /** Adam's learning rate; it falls to 0 by half a cosine from `decayFrom` on. */
  readonly lr: number
  /** Factor of the sum of all |w|, which is added to the loss. */
  readonly l1: number
  /** Decoupled weight decay of Adam. */
  readonly weightDecay: number
  /** Whether the mean of the parameters over the last quarter of the training is the model (SWA). */
  readonly swa: boolean
  /** Which images of a batch MixTrain bounds. */
  readonly choice: ChoiceName
  readonly optimizer: keyof typeof optimizers
  /** Epochs from which the learning rate is a fifth of what it was, in place of half a cosine. */
  readonly milestones: readonly number[]
  /** Radius of training attacks, as a factor of that of the ball. */
  readonly attackRadius: number
  /** Weight of Fast-IBP's regularizers at the start; it falls to 0 while epsilon grows. */
  readonly regularizer: number
  /** Standard deviation of the noise that smooths the loss over the parameters. */
  readonly smooth: number
  /** Draws of that noise. */
  readonly smoothSamples: number
  /** Whether bounds are taken with the statistics of the population (batch norm). */
  readonly population: boolean
}
/** Some of them. */
export type Adjusted = { readonly [K in keyof Adjustable]?: Adjustable[K] | undefined }

/** What nobody chose: neither a person nor the objective. Their kinds are in `train/kinds.ts`, the texts of their options in `cli/train-settings.ts`: no bundle of the library needs those. */
export const standard: Adjustable = {
  epochs: 20,
  batchSize: 50,
  k: 4,
  balance: 2 / 3,
  lr: 2e-3,
  l1: 0,
  weightDecay: 0,
  swa: false,
  choice: 'random',
  optimizer: 'adam',
  milestones: [],
  attackRadius: 1,
  regularizer: 0,
  smooth: 0,
  smoothSamples: 2,
  population: false,
}

export const adjustableNames = Object.keys(standard) as readonly (keyof Adjustable)[]
