import type { Backend } from '../backend/backend.ts'
import { openRegion } from '../backend/region.ts'
import { raise, usage } from '../core/error.ts'
import { fold, key as keyOf } from '../core/key.ts'
import type { Augment } from '../data/augment.ts'
import { batches, type Dataset, labelsOf, pixels } from '../data/dataset.ts'
import type { Loss, Schedule } from '../loss/loss.ts'
import type { Network } from '../nn/networks.ts'
import type { Host } from '../ops/index.ts'
import type { Bounder } from '../robust/bounds.ts'
import { type AttackOptions, evaluator, type Images, rates } from '../robust/metric.ts'
import type { Range } from '../robust/perturbation.ts'
import type { Balance } from './balance.ts'
import type { Optimizer } from './optimizer.ts'
import { type TrainState, trainer } from './step.ts'

/** One epoch, as the log has it. ACC, ERA and VRA are fractions of the monitored images at the full epsilon. */
export interface EpochRecord {
  /** From 0. */
  readonly epoch: number
  /** Training time of this epoch, without its evaluation. */
  readonly seconds: number
  /** Means over the epoch's steps; null where no step had the term. */
  readonly naturalLoss: number | null
  readonly robustLoss: number | null
  readonly balance: number
  /** The radius that the epoch ended with, in input units. */
  readonly epsilon: number
  readonly acc: number
  readonly era: number | null
  readonly vra: number
}

/** Everything needed to go on: training from here gives the same bits as training that never stopped. */
export interface Checkpoint {
  readonly state: TrainState
  readonly history: readonly EpochRecord[]
}

/** Where a run is, for a progress bar. */
export interface Progress {
  readonly phase: 'training' | 'evaluating'
  readonly epoch: number
  readonly done: number
  readonly total: number
}

export interface FitOptions {
  readonly network: Network
  readonly loss: Loss
  readonly optimizer: Optimizer
  readonly train: Dataset
  /** Images that ACC, ERA and VRA of each epoch are measured on, and that the balance follows. Not images it trains on. */
  readonly monitor: Dataset
  /** Full l-inf radius in pixel units, and how training approaches it (default: at once). */
  readonly epsilon: number
  readonly epsilonSchedule?: Schedule
  readonly balance: Balance
  readonly range?: Range
  readonly epochs: number
  readonly batchSize: number
  readonly seed: number
  readonly method: Bounder
  readonly attack?: AttackOptions | undefined
  /** Images evaluated at once. */
  readonly evaluationBatch?: number
  /** Scratch bytes that one run may take. */
  readonly memory?: number
  /** Random variants of each batch, drawn by the step's key. */
  readonly augment?: Augment | undefined
  readonly resume?: Checkpoint | undefined
  /** A promise is waited for: a caller that awaits a timer lets other events through, and may stop the run by throwing. */
  readonly progress?: (p: Progress) => void | Promise<void>
}

export const PIXELS: Range = [0, 1]
export const DEFAULT_MEMORY = 2 * 2 ** 30

/** A data set as the evaluator asks for it. */
export const imagesOf = (d: Dataset): Images => ({
  count: d.count,
  pixels: (indices) => pixels(d, indices),
  labels: (indices) => labelsOf(d, indices),
})

/**
 * Trains, one epoch per iteration: a fold of `step` over shuffled batches (the incomplete last one is left out), then the metrics. The
 * stream is lazy and can be left at any time; memory is freed when it ends, however it ends. One seed decides every bit.
 * @throws usage errors for options that cannot work; backend errors.
 */
export const fit = (options: FitOptions) =>
  async function* (
    backend: Backend,
  ): AsyncGenerator<EpochRecord & { readonly checkpoint: Checkpoint }, void, undefined> {
    const {
      network,
      train,
      monitor,
      epsilon,
      epochs,
      batchSize,
      seed,
      range = PIXELS,
      memory = DEFAULT_MEMORY,
    } = options
    const report = options.progress ?? (() => undefined)
    const perEpoch = Math.floor(train.count / batchSize)
    if (perEpoch < 1) raise(usage(`${train.count} training images do not fill one batch of ${batchSize}`))
    if (!(epsilon >= 0 && epsilon <= 1)) raise(usage(`epsilon must lie in [0, 1], in pixel units; got ${epsilon}`))
    if (monitor.count < 1) raise(usage('there are no images to monitor'))
    const root = keyOf(seed)
    const { region, close } = openRegion(backend)
    try {
      const start = options.resume?.state ?? { parameters: network.init(fold(root, 'init')), slots: {} }
      const loop = await trainer(region)(
        { network, loss: options.loss, optimizer: options.optimizer, batchSize, range },
        start,
      )
      const judge = await evaluator(region)({
        network,
        range,
        method: options.method,
        attack: options.attack,
        batchSize: options.evaluationBatch ?? 100,
        memory,
      })
      let history = options.resume?.history ?? []
      for (let epoch = history.length; epoch < epochs; epoch++) {
        const balance = options.balance(history)
        const order = batches(train.count, batchSize, fold(fold(root, 'epoch'), epoch))
        const begun = performance.now()
        let last = epsilon
        for (const [i, indices] of order.entries()) {
          const count = epoch * perEpoch + i
          const bare = {
            count,
            epoch,
            progress: count / (epochs * perEpoch),
            epsilon,
            balance,
            key: fold(fold(root, 'step'), count),
          }
          const host: Host = { ...bare, epsilon: options.epsilonSchedule?.(bare) ?? epsilon }
          last = host.epsilon
          const images = pixels(train, indices)
          const varied = options.augment?.(images, train.shape, fold(host.key, 'augment')) ?? images
          await loop.step(varied, labelsOf(train, indices), host)
          await report({ phase: 'training', epoch, done: i + 1, total: order.length })
        }
        await backend.sync()
        const seconds = (performance.now() - begun) / 1000
        const terms = await loop.terms()
        const verdicts = await judge.run(loop.parameters(), imagesOf(monitor), epsilon, (done) =>
          report({ phase: 'evaluating', epoch, done, total: monitor.count }),
        )
        const { acc, era, vra } = rates(verdicts)
        const record: EpochRecord = {
          epoch,
          seconds,
          naturalLoss: terms.natural ?? null,
          robustLoss: terms.robust ?? null,
          balance,
          epsilon: last,
          acc,
          era,
          vra,
        }
        history = [...history, record]
        yield { ...record, checkpoint: { state: await loop.state(), history } }
      }
    } finally {
      close()
    }
  }
