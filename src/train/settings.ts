import { count, counts, fraction, type Kind, nonnegative, oneOf, or, positive, whether } from '../core/kinds.ts'
import { type ChoiceName, choices } from '../loss/objective.ts'
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

/** A number of a recipe, and all that a command line, its help, a configuration file and a checkpoint need to know of it. */
export interface Setting<A> {
  readonly kind: Kind<A>
  /** What it is where neither the person nor the objective says so. */
  readonly standard: A
  /** How the argument of its option is called; an option without one is a switch. */
  readonly argument: string | undefined
  readonly about: string
}

const keysOf = <K extends string>(record: Readonly<Record<K, unknown>>) => Object.keys(record) as K[]
const setting = <A>(kind: Kind<A>, standard: A, argument: string | undefined, about: string): Setting<A> => ({
  kind,
  standard,
  argument,
  about,
})

/**
 * The settings, one line each. From here come the options of `train` and their help, the numbers of a recipe where nobody chose, what a checkpoint keeps and how it is
 * checked, and what `tune` may search. What a setting means is in `recipe`.
 */
export const adjustable: { readonly [K in keyof Adjustable]: Setting<Adjustable[K]> } = {
  epochs: setting(count, 20, 'N', 'passes over the training images'),
  batchSize: setting(count, 50, 'N', 'images per step'),
  k: setting(count, 4, 'N', 'mixtrain: images per batch that the robust term bounds'),
  balance: setting(or(fraction, 'adaptive'), 2 / 3, 'B', 'weight of the robust term, from 0 to 1, or adaptive: it follows ACC and VRA on held-out images (default: adaptive)'),
  lr: setting(positive, 2e-3, 'RATE', 'highest learning rate of Adam'),
  l1: setting(nonnegative, 0, 'FACTOR', 'add so much times the sum of all |weights| to the loss (default: by loss, 0 to 1e-5)'),
  weightDecay: setting(nonnegative, 0, 'RATE', 'decoupled weight decay of Adam (default: 0; hydra 1e-4)'),
  swa: setting(whether, false, undefined, 'the model is the mean of the weights over the last quarter of the training (stochastic weight averaging)'),
  choice: setting(oneOf('choice', keysOf(choices)), 'random', 'NAME', `mixtrain: which k images are bounded, ${keysOf(choices).join(', ')}`),
  optimizer: setting(oneOf('optimizer', keysOf(optimizers)), 'adam', 'NAME', keysOf(optimizers).join(', ')),
  milestones: setting(counts, [], 'EPOCHS', 'the learning rate falls to a fifth after each of these epochs, such as 50,60 (default: half a cosine)'),
  attackRadius: setting(positive, 1, 'F', 'pgd, mtl-ibp, cc-ibp, exp-ibp, distilled: radius of training attacks, times that of the ball'),
  regularizer: setting(nonnegative, 0, 'W', "weight of Fast-IBP's regularizers, which falls to 0 while epsilon grows (default: 0; fast-ibp 0.5)"),
  smooth: setting(nonnegative, 0, 'SIGMA', 'smooth the loss over the weights by normal noise of this standard deviation (default: 0, none)'),
  smoothSamples: setting(count, 2, 'N', 'draws of that noise in each step, which costs as many steps'),
  population: setting(whether, false, undefined, 'bounds are taken with running means of the statistics of batch norm, in place of those of the batch'),
} // biome-ignore format: a table

export const adjustableNames = Object.keys(adjustable) as readonly (keyof Adjustable)[]

/** What nobody chose. */
export const standard = Object.fromEntries(
  adjustableNames.map((name) => [name, adjustable[name].standard]),
) as unknown as Adjustable
