import { raise, usage } from '../core/error.ts'
import { type Data, type Dataset, slice } from '../data/dataset.ts'
import { networks, type Task } from '../nn/networks.ts'
import { methods } from '../robust/bounds.ts'
import { type FitOptions, fit as fitFully } from './fit.ts'
import { MONITOR, MONITOR_ATTACK, recipe } from './recipe.ts'

/**
 * What a network for a data set has to be like.
 *
 * @example
 *   taskOf((await digits()).train).input // [1, 28, 28]
 */
export const taskOf = ({ shape: input, classes, normalization }: Dataset): Task => ({ input, classes, normalization })

/**
 * Images to train on, and those at the end of a set that are never trained on: at most 500, a tenth. Raises a usage error for a set of less than two.
 *
 * @example
 *   const { train, monitor } = holdOut((await digits()).train)
 *   [train.count, monitor.count] // [7500, 500]
 */
export const holdOut = (train: Dataset): { readonly train: Dataset; readonly monitor: Dataset } => {
  const count = Math.max(1, Math.min(MONITOR.most, Math.floor(train.count * MONITOR.share)))
  if (train.count < 2) raise(usage(`${train.count} training images are too few: one at least is held out`))
  return { train: slice(0, train.count - count)(train), monitor: slice(train.count - count)(train) }
}

/** The least that training needs, and anything of `FitOptions` to override. */
export interface QuickOptions extends Partial<FitOptions> {
  /** Training images; the last of them are held out to measure each epoch on. */
  readonly data: Pick<Data, 'train'>
  /** Full l-inf radius in units of inputs from 0 to 1. */
  readonly epsilon: number
}

/** All options, the missing ones as the recipe of MixTrain has them: small network, symbolic bounds, seed 0. */
export const completed = ({ data, ...given }: QuickOptions): FitOptions => {
  const {
    numbers,
    k: _,
    init: __,
    ...rest
  } = recipe('mixtrain', {
    epsilon: given.epsilon,
    epochs: given.epochs,
    variants: data.train.variants,
  })
  return {
    // Made only where none is given: it takes images, a network of one's own whatever it likes.
    network: given.network ?? networks.small(taskOf(data.train)),
    ...holdOut(data.train),
    seed: 0,
    method: methods[numbers.method],
    attack: MONITOR_ATTACK,
    ...rest,
    ...given,
  }
}

/**
 * Trains, one epoch per iteration, on a backend: `for await (const epoch of fit({ loss, data, epsilon: 0.1 })(await device()))`.
 * Each epoch has its metrics (ACC, ERA and VRA as fractions of held-out training images) and a checkpoint with the parameters.
 * @throws usage errors for options that cannot work; backend errors.
 *
 * @example
 *   const { train } = await digits()
 *   const options = { data: { train: take(500)(train) }, loss: mixTrain({ k: 2 }), epsilon: 0.1, epochs: 1 }
 *   for await (const { epoch, vra } of fit(options)(await device())) console.log(epoch, vra)
 */
export const fit = (options: QuickOptions) => fitFully(completed(options))
