import { type Augment, varied } from '../data/augment.ts'
import type { Variants } from '../data/dataset.ts'
import type { Loss, Schedule } from '../loss/loss.ts'
import { type ObjectiveName, objectives } from '../loss/objective.ts'
import { cosine, linear } from '../loss/schedule.ts'
import type { MethodName } from '../robust/bounds.ts'
import type { AttackOptions } from '../robust/metric.ts'
import { adaptive, type Balance, fixed } from './balance.ts'
import { adam, type Optimizer } from './optimizer.ts'

/** What a training run uses where it is not told otherwise. Shares are of the whole training. */
interface Numbers {
  readonly epochs: number
  readonly batchSize: number
  /** Images per batch that MixTrain's robust term is computed for. */
  readonly k: number
  /** Weight of the robust term: a number, or `adaptive` by the rule below. */
  readonly balance: number | 'adaptive'
  /** Adam's learning rate; it falls to 0 by half a cosine from this share on. */
  readonly lr: number
  readonly decayFrom: number
  /** The radius grows linearly from this share of the full one, until this share of the training. */
  readonly epsilonStart: number
  readonly epsilonUntil: number
  /** Each training image is moved by up to so many pixels and mirrored or not, anew in each step. */
  readonly crop: number
  readonly mirror: boolean
  /** The bound that VRA is measured with. */
  readonly method: MethodName
}

const DEFAULTS: Numbers = {
  epochs: 20,
  batchSize: 50,
  k: 4,
  balance: 2 / 3,
  lr: 2e-3,
  decayFrom: 0.4,
  epsilonStart: 0.1,
  epsilonUntil: 0.35,
  crop: 1,
  mirror: false,
  method: 'symbolic',
}

/** Where an objective differs from these. */
const BY_LOSS: Readonly<Record<ObjectiveName, Partial<Numbers>>> = {
  mixtrain: {},
  natural: { balance: 0 },
  pgd: { balance: 1 },
  ibp: { method: 'ibp' },
  'crown-ibp': { method: 'crown-ibp' },
  symbolic: {},
}

const ADAPTIVE = { start: 0.5, min: 0.1, max: 0.9, step: 0.05, tolerance: 0.01 }

/** The held-out images that each epoch is measured on: this share of the training images, at most so many. */
export const MONITOR = { share: 0.1, most: 500 }

type Adjustable = Pick<Numbers, 'epochs' | 'batchSize' | 'k' | 'balance' | 'lr'>

export type RecipeOptions = { readonly [N in keyof Adjustable]?: Adjustable[N] | undefined } & {
  /** Full l-inf radius in pixel units. */
  readonly epsilon: number
  /** The data set's own: what of its images may vary. */
  readonly variants?: Variants | undefined
}

/** A training run but for network and data: numbers for its record, and the functions that they stand for. */
export interface Recipe {
  readonly numbers: Numbers
  readonly loss: Loss
  readonly optimizer: Optimizer
  readonly epsilonSchedule: Schedule
  readonly balance: Balance
  readonly augment: Augment | undefined
  readonly epochs: number
  readonly batchSize: number
  readonly k: number
}

/** The numbers of a recipe: the objective's defaults under the options. */
export const numbersOf = (
  name: ObjectiveName,
  { epsilon: _, variants, ...given }: Partial<RecipeOptions> = {},
): Numbers => ({
  ...DEFAULTS,
  ...variants,
  ...BY_LOSS[name],
  ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
})

/** How an objective of that name is trained. */
export const recipe = (name: ObjectiveName, options: RecipeOptions): Recipe => {
  const numbers = numbersOf(name, options)
  const { epochs, batchSize, k, balance, lr, decayFrom, epsilonStart, epsilonUntil } = numbers
  const { epsilon } = options
  return {
    numbers,
    loss: objectives[name]({ k }),
    optimizer: adam({ lr: cosine(lr, 0, decayFrom) }),
    epsilonSchedule: linear(epsilonStart * epsilon, epsilon, 0, epsilonUntil),
    balance: balance === 'adaptive' ? adaptive(ADAPTIVE) : fixed(balance),
    augment: varied(numbers),
    epochs,
    batchSize,
    k,
  }
}

/** PGD from random points with the usual step: epsilon / 30 from 40 steps on, else 2.5 epsilon / steps. */
export const pgdAttack = ({
  steps,
  restarts,
  seed,
}: Pick<AttackOptions, 'steps' | 'restarts' | 'seed'>): AttackOptions => ({
  name: 'pgd',
  steps,
  restarts,
  stepSize: steps >= 40 ? 1 / 30 : 2.5 / steps,
  seed,
})

/** ERA after each epoch, of an attack whose points the reference backend does not check: a trend, not a result. */
export const MONITOR_ATTACK: AttackOptions = { ...pgdAttack({ steps: 10, restarts: 1, seed: 0 }), checked: false }
/** ERA of a report. */
export const REPORT_ATTACK = pgdAttack({ steps: 40, restarts: 1, seed: 0 })
