import { failureOf, successor } from '../backend/device.ts'
import type { Backend, Buffer } from '../compile/backend.ts'
import { openRegion, type Region } from '../compile/region.ts'
import { type MixtrainError, raise, usage } from '../core/error.ts'
import { fold, type Key, key as keyOf } from '../core/key.ts'
import type { Augment } from '../data/augment.ts'
import { batches, type Dataset, isImage, labelsOf, pixels, slice } from '../data/dataset.ts'
import type { Loss, Schedule } from '../loss/loss.ts'
import type { Named } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { type Host, imagesKey } from '../ops/index.ts'
import { type Bounder, ibp } from '../robust/bounds.ts'
import { type AttackOptions, type Evaluator, evaluator, type Images, rates } from '../robust/metric.ts'
import type { Range } from '../robust/perturbation.ts'
import type { Balance } from './balance.ts'
import { microTrainer } from './micro.ts'
import type { Optimizer } from './optimizer.ts'
import { alone, partOf, type Ranks } from './ranks.ts'
import type { Batches } from './statistics.ts'
import { emptySlots, type Snapshot, TOTAL, type Trainer, type TrainState, trainer } from './step.ts'

/** One epoch, as the log has it. ACC, ERA and VRA are fractions of the monitored images at the full epsilon. */
export interface EpochRecord {
  /** From 0. */
  readonly epoch: number
  /** Training time of this epoch, without its evaluation. */
  readonly seconds: number
  /** Mean of the whole loss over the epoch's steps; null in records of versions that did not keep it. */
  readonly loss: number | null
  /** Means of every named term over the steps that had it. */
  readonly terms: Named<number>
  /** The terms `natural` and `robust`; null where no step had the term. */
  readonly naturalLoss: number | null
  readonly robustLoss: number | null
  readonly balance: number
  /** The radius that the epoch ended with, in input units. */
  readonly epsilon: number
  readonly acc: number
  readonly era: number | null
  readonly vra: number
  /** VRA by interval bounds, and the share of tight bounds: where a run balances these too. */
  readonly cheapVra?: number | undefined
  readonly share?: number | undefined
}

/** Everything needed to go on: training from here gives the same bits as training that never stopped. */
export interface Checkpoint {
  readonly state: TrainState
  readonly history: readonly EpochRecord[]
  /** Absent between two epochs. */
  readonly within?: Within
}

/** Where a checkpoint within an epoch stands. */
export interface Within {
  /** Steps of the epoch that are done. */
  readonly steps: number
  /** `[sum, count]` of each loss term over these steps. */
  readonly terms: Named<Float32Array>
  /** Training time of these steps. */
  readonly seconds: number
}

/** A backend that failed in mid-training. */
export interface Failure {
  readonly error: MixtrainError
  readonly from: Backend
  /** Where training goes on; undefined where it ends here, with the error. */
  readonly to: Backend | undefined
  /** Steps of the run that were done. */
  readonly steps: number
  /** Steps that the checkpoint has behind it; those since are done again, with the same batches and the same keys. */
  readonly kept: number
  /** What training goes on from, or could. */
  readonly checkpoint: Checkpoint
}

/** Where a run is, for a progress bar. */
export interface Progress {
  readonly phase: 'training' | 'evaluating'
  readonly epoch: number
  readonly done: number
  readonly total: number
}

/** A step that is done, for `onStep`. */
export interface StepRecord {
  /** From 0. */
  readonly epoch: number
  /** Steps of the epoch, and of the run, that are done with this one. */
  readonly done: number
  readonly count: number
  /** The whole loss of the step's batch, before its update. */
  readonly loss: number
  readonly balance: number
  readonly epsilon: number
}

/** What a training is made of: network, loss, optimizer, data, and what is told in between. */
export interface FitOptions {
  readonly network: Network
  readonly loss: Loss
  readonly optimizer: Optimizer
  readonly train: Dataset
  /** Images that ACC, ERA and VRA of each epoch are measured on, and that the balance follows. Not images it trains on. */
  readonly monitor: Dataset
  /** Full l-inf radius in units of inputs from 0 to 1, and how training approaches it (default: at once). */
  readonly epsilon: number
  readonly epsilonSchedule?: Schedule
  readonly balance: Balance
  /** The share of tight bounds among robust terms; with it, each epoch is measured by interval bounds besides. */
  readonly share?: Balance | undefined
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
  /** Into how many micro-batches a batch is cut; it decides the bits. Default: 1, a batch is one piece. */
  readonly microBatches?: number | undefined
  /** Processes that share the micro-batches and the images to monitor; they do not change a bit. Default: this one. */
  readonly ranks?: Ranks | undefined
  readonly resume?: Checkpoint | undefined
  /** Where training begins, by the names of the network's parameters: to go on with a trained network. Default: `network.init` of the seed. */
  readonly parameters?: Named<Float32Array> | undefined
  /** Ends the stream with the signal's reason, an `AbortError` unless another is given, before the next step or batch of images. */
  readonly signal?: AbortSignal | undefined
  /** Told of every step. Its loss is read back, for which a GPU has to be waited for; a promise is waited for too. */
  readonly onStep?: ((step: StepRecord) => void | Promise<void>) | undefined
  /** A promise is waited for: a caller that awaits a timer lets other events through, and may stop the run by throwing. */
  readonly progress?: (p: Progress) => void | Promise<void>
  /** Told when a GPU fails, before training goes on elsewhere or ends. */
  readonly failed?: (f: Failure) => void | Promise<void>
  /** Steps between host copies of the state on a backend that may be lost. Default: as copies take less than 5 % of the time. */
  readonly snapshotEvery?: number | undefined
}

export const PIXELS: Range = [0, 1]
export const DEFAULT_MEMORY = 2 ** 31

/**
 * A data set as the evaluator asks for it.
 *
 * @example
 *   imagesOf(take(3)((await digits()).test)).count // 3
 */
export const imagesOf = (d: Dataset): Images => ({
  count: d.count,
  pixels: (indices) => pixels(d, indices),
  labels: (indices) => labelsOf(d, indices),
})

/** An epoch that is done, the device that ended it, and what training goes on from. */
export interface TrainedEpoch extends EpochRecord {
  readonly device: Backend['name']
  readonly checkpoint: Checkpoint
}

/** Whether a backend can be lost while nothing is wrong with the program: host copies of the state are worth their time there. */
const canBeLost = (backend: Backend): boolean => backend.name === 'webgpu' || backend.fallback !== undefined

/** Time from one copy to the next: so many times as long as a copy takes, and this long at least. */
const COPY_SHARE = 20
const COPY_PAUSE_MS = 500

/** Says after which steps a copy of the state is due. */
const pacer = (every: number | undefined) => {
  let due = performance.now() + COPY_PAUSE_MS
  return {
    isDue: (steps: number): boolean => (every === undefined ? performance.now() >= due : steps % every === 0),
    took: (ms: number): void => {
      due = performance.now() + Math.max(COPY_PAUSE_MS, COPY_SHARE * ms)
    },
  }
}

/** A run before its first step: random parameters, and slots that start at 0. */
const beginning = ({ network, optimizer, seed, parameters }: FitOptions): Checkpoint => ({
  state: {
    parameters: parameters ?? network.init(fold(keyOf(seed), 'init')),
    slots: emptySlots(optimizer, network.parameters),
  },
  history: [],
})

/** The images of a set in complete batches, in its own order, as they are. */
const inTurn = (set: Dataset, batchSize: number): Batches => ({
  count: Math.floor(set.count / batchSize),
  at: (i) =>
    pixels(
      set,
      Array.from({ length: batchSize }, (_, j) => i * batchSize + j),
    ),
})

/** A trainer that takes images of the training set by their numbers. */
type Loop = Omit<Trainer, 'step'> & {
  readonly advance: (indices: Uint32Array, host: Host) => Promise<void>
  /** Images that are normalized together. */
  readonly pieceSize: number
}

/** The trainer of a run, for batches in one piece or in micro-batches. */
const looped = async (region: Region, options: FitOptions, start: TrainState & Partial<Snapshot>): Promise<Loop> => {
  const { network, loss, optimizer, train, batchSize, range = PIXELS, memory = DEFAULT_MEMORY } = options
  const { microBatches = 1, ranks = alone, augment } = options
  const common = { network, loss, optimizer, batchSize, range, memory, watched: options.onStep !== undefined }
  const images = (indices: Uint32Array, key: Key) => {
    const plain = pixels(train, indices)
    const inputs =
      augment !== undefined && isImage(train.shape) ? augment(plain, train.shape, fold(key, 'augment')) : plain
    return { inputs, labels: labelsOf(train, indices) }
  }
  if (microBatches === 1) {
    if (ranks.size > 1) raise(usage(`${ranks.size} ranks share micro-batches: say how many there are`))
    const { step, ...rest } = await trainer(region)(common, start)
    const advance = async (indices: Uint32Array, host: Host) => {
      const { inputs, labels } = images(indices, host.key)
      await step(inputs, labels, host)
    }
    return { ...rest, advance, pieceSize: batchSize }
  }
  const { step, ...rest } = await microTrainer(region)({ ...common, microBatches, ranks }, start)
  const size = batchSize / microBatches
  const advance = (indices: Uint32Array, host: Host) =>
    step(
      (index) =>
        images(
          indices.subarray(index * size, (index + 1) * size),
          imagesKey({ key: host.key, micro: { index, of: microBatches } }),
        ),
      host,
    )
  return { ...rest, advance, pieceSize: size }
}

/** Rates of images that ranks judge a part of each: the same as if one judged all. */
const spread = async (
  measuring: Evaluator,
  ranks: Ranks,
  parameters: Named<Buffer>,
  monitor: Dataset,
  epsilon: number,
  progress: (done: number, of: number) => void | Promise<void> = () => undefined,
): Promise<{ readonly acc: number; readonly era: number | null; readonly vra: number }> => {
  const [from, to] = partOf(monitor.count, ranks)
  const part = { ...imagesOf(slice(from, to)(monitor)), numberOf: (i: number) => from + i }
  const verdicts =
    to > from ? await measuring.run(parameters, part, epsilon, (done) => progress(done, part.count)) : undefined
  if (ranks.size === 1 && verdicts !== undefined) return rates(verdicts)
  const count = (xs: Uint8Array = new Uint8Array()): number => xs.reduce((n, x) => n + x, 0)
  const own = [verdicts?.correct, verdicts?.robust, verdicts?.verified].map((xs) => count(xs))
  const attacked = verdicts !== undefined && verdicts.robust !== undefined
  const [correct, robust, verified, some] = await ranks.total(Float64Array.of(...own, Number(attacked)))
  return {
    acc: correct / monitor.count,
    era: some > 0 ? robust / monitor.count : null,
    vra: verified / monitor.count,
  }
}

/** Follows a run from outside: where to go on when its backend fails. */
interface Follower {
  readonly keep: (checkpoint: Checkpoint) => void
  readonly stepped: (steps: number) => void
}

/** The rest of a run on one backend. */
const trainOn = (options: FitOptions) =>
  async function* (
    backend: Backend,
    from: Checkpoint,
    { keep, stepped }: Follower,
  ): AsyncGenerator<TrainedEpoch, void, undefined> {
    const { network, train, monitor, epsilon, epochs, batchSize, range = PIXELS, memory = DEFAULT_MEMORY } = options
    const ranks = options.ranks ?? alone
    const report = async (p: Progress): Promise<void> => {
      await options.progress?.(p)
      options.signal?.throwIfAborted()
    }
    const perEpoch = Math.floor(train.count / batchSize)
    const root = keyOf(options.seed)
    const copies = canBeLost(backend) ? pacer(options.snapshotEvery) : undefined
    const { region, close } = openRegion(backend)
    try {
      const start = from.within === undefined ? from.state : { ...from.state, terms: from.within.terms }
      const loop = await looped(region, options, start)
      const measuring = await evaluator(region)({
        network,
        range,
        method: options.method,
        attack: options.attack,
        batchSize: options.evaluationBatch ?? 100,
        memory,
      })
      const cheap =
        options.share &&
        (await evaluator(region)({
          ...{ network, range, method: ibp, attack: undefined, memory },
          batchSize: options.evaluationBatch ?? 100,
        }))
      let { history } = from
      for (let epoch = history.length; epoch < epochs; epoch++) {
        const balance = options.balance(history)
        const share = options.share?.(history)
        const order = batches(train.count, batchSize, fold(fold(root, 'epoch'), epoch))
        const hostAt = (i: number): Host => {
          const count = epoch * perEpoch + i
          const bare = {
            count,
            epoch,
            progress: count / (epochs * perEpoch),
            epsilon,
            balance,
            ...(share === undefined ? {} : { share }),
            key: fold(fold(root, 'step'), count),
          }
          return { ...bare, epsilon: options.epsilonSchedule?.(bare) ?? epsilon }
        }
        const within = epoch === from.history.length ? from.within : undefined
        const begun = performance.now()
        const elapsed = () => (within?.seconds ?? 0) + (performance.now() - begun) / 1000
        for (const [i, indices] of order.entries()) {
          if (i < (within?.steps ?? 0)) continue
          const host = hostAt(i)
          await loop.advance(indices, host)
          stepped(host.count + 1)
          if (options.onStep !== undefined) {
            const { balance: weight, epsilon: radius } = host
            const at = { epoch, done: i + 1, count: host.count + 1, balance: weight, epsilon: radius }
            await options.onStep({ ...at, loss: await loop.loss() })
          }
          if (copies?.isDue(i + 1) || (copies !== undefined && i + 1 === perEpoch)) {
            await backend.sync()
            const copying = performance.now()
            const { terms, ...state }: Snapshot = await loop.snapshot()
            // A copy, like an epoch, counts once nothing that went wrong before it can still become known.
            await backend.sync()
            copies.took(performance.now() - copying)
            keep({ state, history, within: { steps: i + 1, terms, seconds: elapsed() } })
          }
          await report({ phase: 'training', epoch, done: i + 1, total: order.length })
        }
        await backend.sync()
        const seconds = elapsed()
        const terms = await loop.terms()
        await loop.calibrate(inTurn(train, loop.pieceSize))
        const { acc, era, vra } = await spread(measuring, ranks, loop.parameters(), monitor, epsilon, (done, of) =>
          report({ phase: 'evaluating', epoch, done, total: of }),
        )
        const intervals = cheap && (await spread(cheap, ranks, loop.parameters(), monitor, epsilon))
        const { [TOTAL]: total, ...named } = terms
        const record: EpochRecord = {
          epoch,
          seconds,
          loss: total ?? null,
          terms: named,
          naturalLoss: terms.natural ?? null,
          robustLoss: terms.robust ?? null,
          balance,
          epsilon: hostAt(order.length - 1).epsilon,
          acc,
          era,
          vra,
          ...(intervals === undefined ? {} : { cheapVra: intervals.vra, share }),
        }
        history = [...history, record]
        const checkpoint = { state: await loop.state(), history }
        if (copies !== undefined) await backend.sync()
        keep(checkpoint)
        yield { ...record, device: backend.name, checkpoint }
      }
    } finally {
      close()
    }
  }

/**
 * Trains, one epoch per iteration: a fold of `step` over shuffled batches (the incomplete last one is left out), then the metrics. The
 * stream is lazy and can be left at any time; memory is freed when it ends, however it ends. One seed decides every bit.
 *
 * A backend that fails in mid-training (a lost GPU, no memory) hands over to its `fallback`, if it has one: training goes on from the last
 * host copy of the state, and repeats the steps since, whose batches and keys are functions of the seed and the count. Without one the
 * stream ends with the error. `failed` is told either way, with a checkpoint.
 * @throws usage errors for options that cannot work; backend errors.
 */
export const fit = (options: FitOptions) =>
  async function* (backend: Backend): AsyncGenerator<TrainedEpoch, void, undefined> {
    const { train, monitor, epsilon, batchSize, resume, snapshotEvery } = options
    const perEpoch = Math.floor(train.count / batchSize)
    if (perEpoch < 1)
      raise(
        usage(
          `${train.count} training images do not fill one batch of ${batchSize}; it may have ${train.count} at most`,
        ),
      )
    if (!(epsilon >= 0 && epsilon <= 1)) raise(usage(`epsilon must lie in [0, 1]; got ${epsilon}`))
    if (monitor.count < 1) raise(usage('there are no images to monitor'))
    if (snapshotEvery !== undefined && !(Number.isInteger(snapshotEvery) && snapshotEvery >= 1))
      raise(usage(`snapshotEvery must be a positive integer, not ${snapshotEvery}`))
    if (resume !== undefined && options.parameters !== undefined)
      raise(usage('a checkpoint has parameters already: leave resume or parameters out'))
    options.signal?.throwIfAborted()
    if ((resume?.within?.steps ?? 0) > perEpoch)
      raise(usage(`the checkpoint is ${resume?.within?.steps} steps into an epoch, which has ${perEpoch}`))
    let last = resume ?? beginning(options)
    const stepsOf = ({ history, within }: Checkpoint) => history.length * perEpoch + (within?.steps ?? 0)
    let steps = stepsOf(last)
    const follower: Follower = {
      keep: (checkpoint) => {
        last = checkpoint
      },
      stepped: (count) => {
        steps = count
      },
    }
    for (let current = backend; ; ) {
      try {
        return yield* trainOn(options)(current, last, follower)
      } catch (cause) {
        const error = failureOf(cause)
        if (error === undefined || !canBeLost(current)) throw cause
        const to = await successor(current)
        await options.failed?.({ error, from: current, to, steps, kept: stepsOf(last), checkpoint: last })
        if (to === undefined) throw cause
        current = to
      }
    }
  }
