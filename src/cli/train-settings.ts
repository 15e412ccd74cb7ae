import { resolve } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { Device } from '../backend/device.ts'
import { fileError, type MixtrainError, usage } from '../core/error.ts'
import { sha256 } from '../core/hash.ts'
import { unknownName } from '../core/names.ts'
import { show as showShape } from '../core/shape.ts'
import { type Data, fingerprintOf, isImage, take } from '../data/dataset.ts'
import { files } from '../data/files.ts'
import { decodeModel, type SavedModel } from '../format/model.ts'
import type { Logits } from '../loss/loss.ts'
import { choices, frozen, type ObjectiveName, objectives } from '../loss/objective.ts'
import { type NetworkName, networks } from '../nn/networks.ts'
import type { Settings } from '../train/checkpoint.ts'
import type { Checkpoint } from '../train/fit.ts'
import { keysOf, kinds } from '../train/kinds.ts'
import { holdOut } from '../train/quick.ts'
import { numbersOf, recipe } from '../train/recipe.ts'
import { type Adjustable, adjustableNames, optimizers, standard } from '../train/settings.ts'
import { matching, modelFile, sourceOf } from './open.ts'
import {
  count,
  dataOption,
  integer,
  limits,
  name,
  type Option,
  optionOf,
  radius,
  type Switch,
  text,
  UNITS,
  type Values,
} from './options.ts'
import { VERSION } from './version.ts'

const networkNames = Object.keys(networks) as NetworkName[]
const lossNames = Object.keys(objectives) as ObjectiveName[]

/** The argument of the option of each setting, none for a switch, and what is said of it. */
const TOLD: { readonly [K in keyof Adjustable]: readonly [argument: string | undefined, about: string] } = {
  epochs: ['N', 'passes over the training images'],
  batchSize: ['N', 'images per step'],
  k: ['N', 'mixtrain: images per batch that the robust term bounds'],
  balance: ['B', 'weight of the robust term, from 0 to 1, or adaptive: it follows ACC and VRA on held-out images (default: adaptive)'],
  lr: ['RATE', 'highest learning rate of Adam'],
  l1: ['FACTOR', 'add so much times the sum of all |weights| to the loss (default: by loss, 0 to 1e-5)'],
  weightDecay: ['RATE', 'decoupled weight decay of Adam (default: 0; hydra 1e-4)'],
  swa: [undefined, 'the model is the mean of the weights over the last quarter of the training (stochastic weight averaging)'],
  choice: ['NAME', `mixtrain: which k images are bounded, ${keysOf(choices).join(', ')}`],
  optimizer: ['NAME', keysOf(optimizers).join(', ')],
  milestones: ['EPOCHS', 'the learning rate falls to a fifth after each of these epochs, such as 50,60 (default: half a cosine)'],
  attackRadius: ['F', 'pgd, mtl-ibp, cc-ibp, exp-ibp, distilled: radius of training attacks, times that of the ball'],
  regularizer: ['W', "weight of Fast-IBP's regularizers, which falls to 0 while epsilon grows (default: 0; fast-ibp 0.5)"],
  smooth: ['SIGMA', 'smooth the loss over the weights by normal noise of this standard deviation (default: 0, none)'],
  smoothSamples: ['N', 'draws of that noise in each step, which costs as many steps'],
  population: [undefined, 'bounds are taken with running means of the statistics of batch norm, in place of those of the batch'],
} // biome-ignore format: a table

/** An option of each setting. */
const chosen = Object.fromEntries(
  adjustableNames.map((key) => [key, optionOf<unknown>(key, kinds[key], standard[key], ...TOLD[key])]),
) as unknown as { readonly [K in keyof Adjustable]: Adjustable[K] extends boolean ? Switch : Option<Adjustable[K]> }

export const options = {
  data: { ...dataOption, about: dataOption.about.replace('those that the model was trained on, or digits', 'digits') },
  network: {
    flags: '--network <NAME>',
    about: `${networkNames.join(', ')} (default: small)`,
    read: name('network', networkNames),
  },
  loss: { flags: '--loss <NAME>', about: `${lossNames.join(', ')} (default: mixtrain)`, read: name('loss', lossNames) },
  epsilon: {
    flags: '--epsilon <E>',
    about: `l-inf radius to be robust in, 0.1 or 2/255, ${UNITS} (default: 0.1)`,
    read: radius,
  },
  ...chosen,
  microBatches: {
    flags: '--micro-batches <M>',
    about:
      'cut each batch into M parts with draws of their own, whose gradients are summed in one fixed order: the same bits for any number of MPI ranks (default: one piece)',
    read: count,
  },
  teacher: {
    flags: '--teacher <MODEL>',
    about: 'distilled: the trained network to learn from, as evaluate reads it',
    read: text,
  },
  init: {
    flags: '--init <MODEL>',
    about: 'begin with the network and the parameters of a trained model, as evaluate reads it',
    read: text,
  },
  seed: { flags: '--seed <N>', about: 'decides every random number (default: 0)', read: integer },
  limit: {
    flags: '--limit <TRAIN[,TEST]>',
    about: 'only the first so many training and test images, for quick trials (default: all)',
    read: limits,
  },
  output: { flags: '--output <DIR>', about: 'folder of the run (default: runs/ and the time)', read: text },
  resume: {
    flags: '--resume <DIR>',
    about:
      'go on with the run in this folder, under its settings; the result is the same as without the break. With a larger --epochs it gets more of them: schedules go on as those of the longer run',
    read: text,
  },
}

type Given = Omit<Values<typeof options>, 'teacher' | 'init'> & {
  readonly device: string | undefined
  readonly fastMath: boolean
}

/** What was asked for, as far as it was. */
export const asked = (o: Given): Partial<Settings> =>
  Object.fromEntries(
    Object.entries({
      data: o.data === undefined ? undefined : sourceOf(o.data),
      network: o.network,
      loss: o.loss,
      epsilon: o.epsilon,
      microBatches: o.microBatches === 1 ? undefined : o.microBatches,
      // A switch that was not written says nothing.
      ...Object.fromEntries(adjustableNames.map((k) => [k, o[k] === false ? undefined : o[k]])),
      seed: o.seed,
      trainLimit: o.limit?.train,
      testLimit: o.limit?.test,
      device: o.device === 'auto' ? undefined : o.device,
      arithmetic: o.fastMath ? 'fast-math' : undefined,
    }).filter(([, value]) => value !== undefined),
  )

/** The settings of a run before its data are loaded. */
type Wanted = Omit<Settings, 'dataSha256'> & { readonly dataSha256?: string }

/** The settings of a new run, but for the device, which is known when it is open. */
export const begun = (given: Partial<Settings>): Wanted => {
  const loss = (given.loss ?? 'mixtrain') as ObjectiveName
  const epsilon = given.epsilon ?? 0.1
  const { epochs, batchSize, k, balance, lr, l1, weightDecay, swa } = numbersOf(loss, { epsilon })
  return {
    mixtrain: VERSION,
    data: sourceOf(undefined),
    network: 'small',
    loss,
    epsilon,
    epochs,
    batchSize,
    k,
    balance,
    lr,
    l1,
    weightDecay,
    swa,
    seed: 0,
    trainLimit: null,
    testLimit: null,
    device: 'auto',
    arithmetic: 'exact',
    ...given,
  }
}

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)
const told = (x: unknown): string => (typeof x === 'object' ? JSON.stringify(x) : `${x}`)

/**
 * The settings of a stored run, unless something else is asked for: its schedules and its random numbers would not go on. From a GPU,
 * whose bits are not promised, a run may go on elsewhere. More epochs are no contradiction: `done` of them are behind it, and the settings tell.
 */
export const continued = (
  folder: string,
  settings: Settings,
  given: Partial<Settings>,
  done: number,
): E.Either<MixtrainError, Settings> => {
  const { device, epochs = settings.epochs, ...others } = given
  const longer = epochs > settings.epochs
  const wanted: Partial<Settings> = {
    ...others,
    ...(settings.device === 'webgpu' || device === undefined ? {} : { device }),
    ...(longer ? {} : { epochs }),
    mixtrain: VERSION,
  }
  const different = (Object.keys(wanted) as (keyof Settings)[]).filter((k) => !same(wanted[k], settings[k]))
  return different.length > 0
    ? E.left(
        usage(
          `the run in ${folder} cannot go on with other settings:\n${different
            .map((k) => `${k}: it has ${told(settings[k])}, asked for is ${told(wanted[k])}`)
            .join('\n')}`,
        ),
      )
    : E.right(
        longer
          ? { ...settings, epochs, extended: [...(settings.extended ?? []), { epochs: settings.epochs, done }] }
          : settings,
      )
}

/** The settings with the hash of the images; a stored run goes on with its own images only. */
export const withData = (
  folder: string | undefined,
  wanted: Wanted,
  data: Data,
): TE.TaskEither<MixtrainError, Settings> =>
  pipe(
    TE.fromTask(() => fingerprintOf(data)),
    TE.chain((dataSha256) =>
      wanted.dataSha256 === undefined || wanted.dataSha256 === dataSha256
        ? TE.right({ ...wanted, dataSha256 })
        : TE.left(
            fileError(
              wanted.data,
              `these are not the images that the run in ${folder} was trained on: they have another SHA-256, ${dataSha256}; the run has ${wanted.dataSha256}`,
            ),
          ),
    ),
  )

/** An error if the network is one of images and the data are rows of a table. */
export const takesShape = ({ network, data }: Settings, { train }: Data): E.Either<MixtrainError, void> =>
  network === 'mlp' || isImage(train.shape)
    ? E.right(undefined)
    : E.left(
        usage(
          `--network ${network} takes images, but ${data} has examples of shape ${showShape(train.shape)}: --network mlp takes any shape`,
        ),
      )

/** Whether a run can be cut into micro-batches. */
export const cuttable = ({
  microBatches,
  batchSize,
}: Pick<Settings, 'microBatches' | 'batchSize'>): E.Either<MixtrainError, void> =>
  microBatches === undefined
    ? E.right(undefined)
    : batchSize % microBatches !== 0
      ? E.left(usage(`--micro-batches: ${microBatches} do not divide a batch of ${batchSize} images`))
      : E.right(undefined)

/** Steps of an epoch. */
export const perEpochOf = ({ train }: Data, { batchSize }: Settings): number =>
  Math.floor(holdOut(train).train.count / batchSize)

/** Steps of a run that a checkpoint has behind it. */
export const stepsOf = ({ history, within }: Checkpoint, data: Data, settings: Settings): number =>
  history.length * perEpochOf(data, settings) + (within?.steps ?? 0)

/** The settings as they are on a device: a stored run that another one began tells so. */
export const settingsOn = (
  { fallback: _, ...settings }: Settings,
  { backend }: Device,
  before?: { readonly steps: number; readonly reason: string },
): Settings => ({
  ...settings,
  device: backend.name,
  ...(backend.fallback === undefined ? {} : { fallback: 'wasm' }),
  ...(before === undefined || settings.device === backend.name
    ? {}
    : { moved: [...(settings.moved ?? []), { device: settings.device, ...before }] }),
})

export const limited = (
  { train, test }: Data,
  { trainLimit, testLimit }: Pick<Settings, 'trainLimit' | 'testLimit'>,
): Data => ({
  train: trainLimit === null ? train : take(trainLimit)(train),
  test: testLimit === null ? test : take(testLimit)(test),
})

/** One of `known` by its name, which a file may have got wrong. */
export const byName = <A>(what: string, key: string, known: Readonly<Record<string, A>>): E.Either<MixtrainError, A> =>
  Object.hasOwn(known, key) ? E.right(known[key]) : E.left(usage(unknownName(what, key, Object.keys(known))))

/** The recipe of these settings. */
export const recipeOf = ({ loss, epsilon, ...settings }: Settings, { train }: Data, teacher?: Logits) =>
  recipe(loss as ObjectiveName, {
    ...Object.fromEntries(adjustableNames.map((k) => [k, settings[k]])),
    epsilon,
    variants: train.variants,
    teacher,
  })

/** A model that a run depends on, and how its settings name it: a run goes on with the same one only. */
export interface Origin {
  readonly model: SavedModel
  readonly settings: { readonly file: string; readonly sha256: string }
}

/** Reads a model that a run depends on; `before` is what a stored run has of it, `what` its part in the message. */
const originOf = (
  file: string,
  before: Origin['settings'] | undefined,
  what: string,
  data: Data,
): TE.TaskEither<MixtrainError, Origin> =>
  pipe(
    files.read(file),
    TE.bindTo('bytes'),
    TE.bind('sha256', ({ bytes }) => TE.fromTask(() => sha256(bytes))),
    TE.chainFirstEitherK(({ sha256: found }) =>
      before === undefined || before.sha256 === found
        ? E.right(undefined)
        : E.left(
            fileError(
              file,
              `this is not the ${what} of the run: it has another SHA-256, ${found}; the run has ${before.sha256}`,
            ),
          ),
    ),
    TE.bind('model', ({ bytes }) => TE.fromEither(decodeModel(bytes, file))),
    TE.chainFirstEitherK(({ model }) => matching(model, file, data.train)),
    TE.map(({ model, sha256: found }) => ({ model, settings: { file: resolve(file), sha256: found } })),
  )

/** What the loss `distilled` learns from. undefined for other losses, which have none. */
export const teacherOf = (
  path: string | undefined,
  { loss, teacher }: Pick<Settings, 'loss' | 'teacher'>,
  data: Data,
): TE.TaskEither<MixtrainError, { readonly logits: Logits; readonly settings: Origin['settings'] } | undefined> => {
  const file = path ?? teacher?.file
  if (loss !== 'distilled')
    return path === undefined
      ? TE.right(undefined)
      : TE.left(usage(`--teacher is for the loss distilled, not for ${loss}: leave it out, or add --loss distilled`))
  if (file === undefined)
    return TE.left(usage('the loss distilled learns from a trained network: name its file with --teacher'))
  return pipe(
    modelFile(file),
    TE.chain((found) => originOf(found, teacher, 'teacher', data)),
    TE.map(({ model, settings }) => ({ logits: frozen(model.network, model.parameters), settings })),
  )
}

/** The model that a run begins with, if it is to begin with one: its network is the run's. */
export const initialOf = (
  path: string | undefined,
  { init }: Pick<Settings, 'init'>,
  isStored: boolean,
  data: Data,
): TE.TaskEither<MixtrainError, Origin | undefined> => {
  const named = path ?? init?.file
  return named === undefined
    ? TE.right(undefined)
    : pipe(
        modelFile(named),
        TE.filterOrElse(
          (file) => !isStored || path === undefined || resolve(file) === init?.file,
          () => usage(`the run began ${init === undefined ? 'at random' : `with ${init.file}`}: leave --init out`),
        ),
        TE.chain((file) => originOf(file, init, 'model that was the beginning', data)),
      )
}
