import { type Augment, varied } from '../data/augment.ts'
import type { Variants } from '../data/dataset.ts'
import { add, complement, type Logits, type Loss, type Schedule, scale, withPopulation } from '../loss/loss.ts'
import { type ObjectiveName, objectives } from '../loss/objective.ts'
import { hidden, wholeBall } from '../loss/region.ts'
import { l1 as l1Norm, reluBalance, tightness } from '../loss/regularizer.ts'
import { cosine, linear, milestones, times } from '../loss/schedule.ts'
import { smoothed } from '../loss/smoothing.ts'
import { type Initializer, ibpInit, uniformInit } from '../nn/layers.ts'
import { usualStep } from '../robust/attack.ts'
import { ibp, type MethodName } from '../robust/bounds.ts'
import type { AttackOptions } from '../robust/metric.ts'
import { averaged } from './average.ts'
import { adaptive, type Balance, fixed, tightShare } from './balance.ts'
import { clipGradients, type Optimizer } from './optimizer.ts'
import { type Adjustable, type Adjusted, optimizers, standard } from './settings.ts'

/** What a training run uses where it is not told otherwise. Shares are of the whole training. */
export interface Numbers extends Adjustable {
  /** The share from which the learning rate falls. */
  readonly decayFrom: number
  /** The radius grows linearly from this share of the last one, until this share of the training; the last one is this multiple of epsilon. */
  readonly epsilonStart: number
  readonly epsilonUntil: number
  readonly epsilonFactor: number
  /** Radius of the small boxes of SABR and STAPS, as a share of the ball's. */
  readonly lambda: number
  /** Largest joint norm of the gradients; null: as they are. */
  readonly clip: number | null
  /** Distribution of the start values. */
  readonly init: 'uniform' | 'ibp'
  /** Each training image is moved by up to so many pixels and mirrored or not, anew in each step. */
  readonly crop: number
  readonly mirror: boolean
  /** The bound that VRA is measured with. */
  readonly method: MethodName
}

const DEFAULTS: Numbers = {
  ...standard,
  decayFrom: 0.4,
  epsilonStart: 0.1,
  epsilonUntil: 0.35,
  epsilonFactor: 1,
  lambda: 0.4,
  clip: null,
  init: 'uniform',
  crop: 1,
  mirror: false,
  method: 'symbolic',
}

/**
 * The setting that a radius belongs to in the literature: MNIST 0.3 and 0.1, CIFAR-10 8/255 and 2/255. Numbers of the papers are given in
 * this order.
 */
const setting = (epsilon: number): 0 | 1 | 2 | 3 => (epsilon > 0.2 ? 0 : epsilon > 0.05 ? 1 : epsilon > 0.02 ? 2 : 3)

/** On MNIST, methods that propagate intervals train on 0.4 for 0.3, and on 0.2 for 0.1 (1810.12715, 1906.06316, 2210.04871). */
const widened = (epsilon: number): number => [4 / 3, 2, 1, 1][setting(epsilon)]

type Differences = Partial<Numbers> | ((epsilon: number) => Partial<Numbers>)

/** Interval propagation as the papers train it: epsilon grows slowly from 0, and clipped gradients survive the wide bounds of the start. */
const intervals = (epsilon: number): Partial<Numbers> => ({
  lr: 1e-3,
  clip: 10,
  epsilonStart: 0,
  epsilonUntil: 0.5,
  decayFrom: 0.6,
  epsilonFactor: widened(epsilon),
  method: 'ibp',
})

/** Losses between an attack and interval propagation; `shares` of the bound and `l1` as 2305.13991 has them by setting. */
const expressive =
  (shares: readonly number[], l1: readonly number[]) =>
  (epsilon: number): Partial<Numbers> => ({
    ...intervals(epsilon),
    balance: shares[setting(epsilon)],
    l1: l1[setting(epsilon)],
    init: 'ibp',
    method: 'crown-ibp',
  })

const small = (epsilon: number): Partial<Numbers> => ({
  ...intervals(epsilon),
  lambda: [0.6, 0.4, 0.7, 0.1][setting(epsilon)],
  balance: 1,
  l1: 1e-6,
  init: 'ibp',
  method: 'crown-ibp',
})

/** Where an objective differs from these. */
const BY_LOSS: Readonly<Record<ObjectiveName, Differences>> = {
  mixtrain: { balance: 'adaptive' },
  // Intervals on all images are wide at the start, as in `intervals`.
  controlled: { balance: 'adaptive', clip: 10, epsilonStart: 0 },
  twofold: { balance: 'adaptive', clip: 10, epsilonStart: 0 },
  natural: { balance: 0 },
  pgd: { balance: 1 },
  trades: { balance: 1 },
  mart: { balance: 1 },
  ibp: (epsilon) => ({ ...intervals(epsilon), balance: 0.5 }),
  'fast-ibp': (epsilon) => ({ ...intervals(epsilon), balance: 1, init: 'ibp', regularizer: 0.5 }),
  'crown-ibp': (epsilon) => ({ ...intervals(epsilon), balance: 0.5, method: 'crown-ibp' }),
  'crown-ibp-fused': (epsilon) => ({ ...intervals(epsilon), balance: 0.5, method: 'crown-ibp' }),
  symbolic: {},
  'wong-kolter': { balance: 1 },
  hydra: {
    lr: 1e-3,
    decayFrom: 0,
    epsilonStart: 0,
    epsilonUntil: 0.25,
    epochs: 60,
    weightDecay: 1e-4,
    balance: 1,
    crop: 0,
  },
  sabr: small,
  taps: small,
  staps: small,
  'mtl-ibp': expressive([0.08, 0.01, 0.5, 0.004], [1e-6, 1e-5, 1e-7, 3e-6]),
  'cc-ibp': expressive([0.3, 0.1, 0.5, 0.01], [3e-6, 2e-6, 0, 3e-6]),
  'exp-ibp': expressive([0.5, 0.3, 0.5, 0.095], [1e-6, 1e-5, 0, 4e-6]),
  distilled: expressive([0.5, 0.5, 0.5, 0.5], [1e-6, 1e-6, 0, 1e-6]),
}

/** Of tight bounds: intervals first, which see many boxes in little time. */
const SHARE = { start: 0.2, min: 0.05, max: 0.95, step: 0.05, tolerance: 0.01 }
const ADAPTIVE = { start: 0.2, min: 0.05, max: 0.9, step: 0.05, tolerance: 0.01 }

/** The held-out images that each epoch is measured on: this share of the training images, at most so many. */
export const MONITOR = { share: 0.1, most: 500 }

/** What a recipe depends on: radius, epochs, batch size, and numbers that take the place of its own. */
export type RecipeOptions = Adjusted & {
  /** Full l-inf radius in units of inputs from 0 to 1. */
  readonly epsilon: number
  /** The data set's own: what of its images may vary. */
  readonly variants?: Variants | undefined
  /** What `distilled` learns from. */
  readonly teacher?: Logits | undefined
}

/** A training run but for network and data: numbers for its record, and the functions that they stand for. */
export interface Recipe {
  readonly numbers: Numbers
  readonly loss: Loss
  readonly optimizer: Optimizer
  readonly epsilonSchedule: Schedule
  readonly balance: Balance
  readonly share: Balance | undefined
  readonly augment: Augment | undefined
  readonly init: Initializer
  readonly epochs: number
  readonly batchSize: number
  readonly k: number
}

/** The numbers of a recipe: the objective's defaults for a radius (default: 0.1) under the options. */
export const numbersOf = (
  name: ObjectiveName,
  { epsilon = 0.1, variants, teacher: _, ...given }: Partial<RecipeOptions> = {},
): Numbers => {
  const own = BY_LOSS[name]
  return {
    ...DEFAULTS,
    ...variants,
    ...(typeof own === 'function' ? own(epsilon) : own),
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  }
}

const INITIALIZERS = { uniform: uniformInit, ibp: ibpInit } as const

/** What is left of the learning rate after a milestone. */
const FIFTH = 0.2

/** Share of the training from which SWA averages. */
const AVERAGE_FROM = 0.75

/**
 * How an objective of that name is trained.
 *
 * @example
 *   const { loss, optimizer } = recipe('mixtrain', { epsilon: 0.1, epochs: 20 })
 */
export const recipe = (name: ObjectiveName, options: RecipeOptions): Recipe => {
  const numbers = numbersOf(name, options)
  const { epochs, batchSize, k, balance, lr, decayFrom, epsilonStart, epsilonUntil, lambda, l1, weightDecay } = numbers
  const { choice, attackRadius, regularizer, smooth, smoothSamples } = numbers
  const full = Math.min(1, numbers.epsilonFactor * options.epsilon)
  const rate =
    numbers.milestones.length === 0 ? cosine(lr, 0, decayFrom) : milestones(lr, FIFTH, numbers.milestones, epochs)
  const plain = optimizers[numbers.optimizer]({ lr: rate, weightDecay })
  const optimizer = numbers.clip === null ? plain : clipGradients(numbers.clip)(plain)
  const ramp = linear(0, 1, 0, epsilonUntil)
  const { teacher } = options
  const objective = objectives[name]({ k, lambda, ramp, choice, attackRadius, regularizer, teacher })
  // Fast-IBP has its regularizers already.
  const warmUp = name === 'fast-ibp' ? 0 : regularizer
  const boxes = hidden(ibp)
  const warm = scale(times(warmUp, complement(ramp)))(add(tightness(boxes, wholeBall), reluBalance(boxes)))
  const terms = warmUp === 0 ? objective : add(objective, warm)
  const whole = numbers.population ? withPopulation(terms) : terms
  return {
    numbers,
    loss: add(smoothed(smooth, smoothSamples)(whole), scale(l1)(l1Norm)),
    optimizer: numbers.swa ? averaged(AVERAGE_FROM)(optimizer) : optimizer,
    epsilonSchedule: linear(epsilonStart * full, full, 0, epsilonUntil),
    balance: balance === 'adaptive' ? adaptive(ADAPTIVE) : fixed(balance),
    share: name === 'twofold' ? tightShare(SHARE) : undefined,
    augment: varied(numbers),
    init: INITIALIZERS[numbers.init],
    epochs,
    batchSize,
    k,
  }
}

/**
 * PGD from random points with the usual step (`usualStep`).
 *
 * @example
 *   pgdAttack({ steps: 40, restarts: 1, seed: 0 }).name // 'pgd'
 */
export const pgdAttack = ({
  steps,
  restarts,
  seed,
}: Pick<AttackOptions, 'steps' | 'restarts' | 'seed'>): AttackOptions => ({
  name: 'pgd',
  steps,
  restarts,
  stepSize: usualStep(steps),
  seed,
})

/** ERA after each epoch, of an attack whose points the reference backend does not check: a trend, not a result. */
export const MONITOR_ATTACK: AttackOptions = { ...pgdAttack({ steps: 10, restarts: 1, seed: 0 }), checked: false }
/** ERA of a report. */
export const REPORT_ATTACK = pgdAttack({ steps: 40, restarts: 1, seed: 0 })
