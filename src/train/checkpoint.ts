import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { z } from 'zod'
import { fileError, type MixtrainError } from '../core/error.ts'
import { sha256 } from '../core/hash.ts'
import type { Kind } from '../core/kinds.ts'
import { problemOf } from '../core/problem.ts'
import type { Shape } from '../core/shape.ts'
import { decode, encode, expectTensors, type Safetensors } from '../format/safetensors.ts'
import { type Named, type Parameter, trainedOf } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import type { Checkpoint, EpochRecord, Within } from './fit.ts'
import { kinds } from './kinds.ts'
import type { TrainState } from './resident.ts'
import { type Adjustable, type Adjusted, adjustableNames } from './settings.ts'

const fraction = z.number().min(0).max(1)
const natural = z.int().nonnegative()
const positive = z.int().min(1)

/** Everything that decides the bits of a run: a run goes on only under the settings that it began with. */
export type Settings = Pick<Adjustable, 'epochs' | 'batchSize' | 'k' | 'balance' | 'lr'> &
  Adjusted & {
    /** Version of this package. */
    readonly mixtrain: string
    /** `digits`, or the absolute path of a folder. */
    readonly data: string
    /** `fingerprintOf` the images, as far as they are used: a path may hold others tomorrow. */
    readonly dataSha256: string
    readonly network: string
    readonly loss: string
    /** l-inf radius in units of inputs from 0 to 1. */
    readonly epsilon: number
    /** Micro-batches that a batch is cut into. Absent: it is one piece. */
    readonly microBatches?: number | undefined
    /** The model that the loss `distilled` learns from, by path and SHA-256. */
    readonly teacher?: { readonly file: string; readonly sha256: string } | undefined
    /** The model that training began with, by path and SHA-256; its network is that of the run. */
    readonly init?: { readonly file: string; readonly sha256: string } | undefined
    /** Plans of fewer epochs that the run had before, and how many were done when it was given more. */
    readonly extended?: readonly { readonly epochs: number; readonly done: number }[] | undefined
    readonly seed: number
    /** Only so many of the first images; null is all. */
    readonly trainLimit: number | null
    readonly testLimit: number | null
    readonly device: string
    readonly arithmetic: 'exact' | 'fast-math'
    /** The device that takes over when this one fails; present where `--device auto` took a GPU. */
    readonly fallback?: 'wasm' | undefined
    /** The devices that did the first steps of the run, if another one went on. */
    readonly moved?: readonly { readonly device: string; readonly steps: number; readonly reason: string }[] | undefined
  }

const heldBy = <A>({ holds, expected }: Kind<A>): z.ZodType<A> => z.custom<A>(holds, `expected ${expected}`)
/** Every adjustable number, where there is one. */
const chosen = Object.fromEntries(adjustableNames.map((name) => [name, heldBy<unknown>(kinds[name]).optional()])) as {
  readonly [K in keyof Adjustable]: z.ZodOptional<z.ZodType<Adjustable[K]>>
}

/** What a file has to hold to be such settings. Private, and the type written out: declarations that need zod would bring its types to every user. */
const settingsSchema = z.strictObject({
  mixtrain: z.string(),
  data: z.string(),
  dataSha256: z.string().regex(/^[0-9a-f]{64}$/, 'expected a SHA-256 in hexadecimal'),
  network: z.string(),
  loss: z.string(),
  epsilon: fraction,
  microBatches: positive.optional(),
  ...chosen,
  epochs: heldBy(kinds.epochs),
  batchSize: heldBy(kinds.batchSize),
  k: heldBy(kinds.k),
  balance: heldBy(kinds.balance),
  lr: heldBy(kinds.lr),
  teacher: z.strictObject({ file: z.string(), sha256: z.string() }).optional(),
  init: z.strictObject({ file: z.string(), sha256: z.string() }).optional(),
  extended: z.array(z.strictObject({ epochs: positive, done: natural })).optional(),
  seed: z.int(),
  trainLimit: positive.nullable(),
  testLimit: positive.nullable(),
  device: z.string(),
  arithmetic: z.enum(['exact', 'fast-math']),
  fallback: z.literal('wasm').optional(),
  moved: z.array(z.strictObject({ device: z.string(), steps: natural, reason: z.string() })).optional(),
}) satisfies z.ZodType<Settings>

const loss = z.number().nullable()
const Epoch = z.strictObject({
  epoch: natural,
  seconds: z.number().min(0),
  // Absent in checkpoints of version 0.1.
  loss: loss.default(null),
  // JSON has null for NaN.
  terms: z
    .record(
      z.string(),
      z
        .number()
        .nullable()
        .transform((v) => v ?? Number.NaN),
    )
    .default({}),
  naturalLoss: loss,
  robustLoss: loss,
  balance: fraction,
  epsilon: fraction,
  acc: fraction,
  era: fraction.nullable(),
  vra: fraction,
  cheapVra: fraction.optional(),
  share: fraction.optional(),
})

const History = z
  .array(Epoch)
  .refine((history) => history.every(({ epoch }, i) => epoch === i), 'expected the epochs 0, 1, 2, ...')

/** A checkpoint within an epoch: `Within`, with the names of its tensors instead of their content. */
export interface Part {
  readonly steps: number
  readonly seconds: number
  readonly terms: readonly string[]
}
const partSchema = z.strictObject({
  steps: natural,
  seconds: z.number().min(0),
  terms: z.array(z.string()),
}) satisfies z.ZodType<Part>

/** A decoded checkpoint whose tensors still have to be matched with a network. */
export interface StoredRun {
  readonly settings: Settings
  readonly history: readonly EpochRecord[]
  readonly part: Part | undefined
  readonly file: Safetensors
}

const VERSION = '2'
const SEAL = 'sha256'
const UNSEALED = '0'.repeat(64)
const PARAMETER = 'parameter'
const SLOT = 'slot'
const TERM = 'term'

const shapesOf = (parameters: Named<Parameter>): Named<Shape> =>
  Object.fromEntries(Object.entries(parameters).map(([name, p]) => [name, p.shape]))

const partOf = ({ steps, seconds, terms }: Within): Part => ({ steps, seconds, terms: Object.keys(terms) })

/** A record of the log: exactly these fields, in this order. */
export const logged = (r: EpochRecord): EpochRecord => ({
  epoch: r.epoch,
  seconds: r.seconds,
  loss: r.loss,
  terms: r.terms,
  naturalLoss: r.naturalLoss,
  robustLoss: r.robustLoss,
  balance: r.balance,
  epsilon: r.epsilon,
  acc: r.acc,
  era: r.era,
  vra: r.vra,
  ...(r.cheapVra === undefined ? {} : { cheapVra: r.cheapVra }),
  ...(r.share === undefined ? {} : { share: r.share }),
})

/** Where the hash of a file stands in it, as its header spells it; nowhere if it spells it otherwise. Quotes within a text are escaped there. */
const sealAt = (bytes: Uint8Array, hash: string): number | undefined => {
  const end = 8 + new DataView(bytes.buffer, bytes.byteOffset, 8).getUint32(0, true)
  const at = new TextDecoder('latin1').decode(bytes.subarray(0, end)).indexOf(`"${SEAL}":"${hash}"`)
  return at < 0 ? undefined : at + SEAL.length + 4
}

const ascii = new TextEncoder()

/** A file with its hash in it: that of the same bytes with 64 zeros instead. */
const sealed = async (bytes: Uint8Array): Promise<Uint8Array> => {
  bytes.set(ascii.encode(await sha256(bytes)), sealAt(bytes, UNSEALED))
  return bytes
}

/** Whether every bit of a file is as it was sealed. */
const isWhole = async (bytes: Uint8Array, hash: string): Promise<boolean> => {
  const at = sealAt(bytes, hash)
  if (at === undefined) return false
  const copy = Uint8Array.from(bytes)
  copy.set(ascii.encode(UNSEALED), at)
  return (await sha256(copy)) === hash
}

/**
 * A run after an epoch, as one safetensors file: tensors `parameter.NAME` (statistics among them) and `slot.SLOT.NAME` (the optimizer's state), history and
 * settings as JSON in the metadata. Within an epoch, `term.NAME` ([sum, count] of a loss term) and `within` in the metadata come with them. `sha256` in the metadata is the hash of the file, taken with zeros in its own place.
 *
 * @example
 *   await writeFile('checkpoint.safetensors', await encodeCheckpoint(network, checkpoint, settings))
 */
export const encodeCheckpoint = (
  network: Network,
  { state, history, within }: Checkpoint,
  settings: Settings,
): Promise<Uint8Array> => {
  const under = (prefix: string, values: Named<Float32Array>, parameters: Named<Parameter>) =>
    Object.entries(shapesOf(parameters)).map(
      ([name, shape]) => [`${prefix}.${name}`, { shape, data: values[name] }] as const,
    )
  const trained = trainedOf(network.parameters)
  const file = encode(
    new Map([
      ...under(PARAMETER, state.parameters, network.parameters),
      ...Object.entries(state.slots).flatMap(([slot, values]) => under(`${SLOT}.${slot}`, values, trained)),
      ...Object.entries(within?.terms ?? {}).map(([name, data]) => [`${TERM}.${name}`, { shape: [2], data }] as const),
    ]),
    {
      format: 'mixtrain-checkpoint',
      version: VERSION,
      history: JSON.stringify(history.map(logged)),
      settings: JSON.stringify(settings),
      [SEAL]: UNSEALED,
      ...(within === undefined ? {} : { within: JSON.stringify(partOf(within)) }),
    },
  )
  return sealed(file)
}

/**
 * Decodes what `encodeCheckpoint` wrote, but for the tensors (`restore`). A file of which any bit was changed since, and metadata that are not as
 * expected, are errors that say so.
 *
 * @example
 *   const run = await orThrow(decodeCheckpoint(await readFile('checkpoint.safetensors'), 'checkpoint.safetensors'))
 */
export const decodeCheckpoint = (bytes: Uint8Array, path: string): TE.TaskEither<MixtrainError, StoredRun> => {
  const left = (message: string) => E.left(fileError(path, message, 'metadata'))
  const parse = <A>(schema: z.ZodType<A>, name: string, text: string | undefined): E.Either<MixtrainError, A> => {
    if (text === undefined) return left(`${name} is missing`)
    return pipe(
      E.tryCatch(
        () => JSON.parse(text) as unknown,
        () => fileError(path, `expected JSON in ${name}`, 'metadata'),
      ),
      E.chain((json) => {
        const parsed = schema.safeParse(json)
        if (parsed.success) return E.right(parsed.data)
        const { place, message } = problemOf(parsed.error, json)
        return left(`${name}${place === undefined ? '' : `.${place}`}: ${message}`)
      }),
    )
  }
  const identified = pipe(
    decode(bytes, path),
    E.chainFirst(({ metadata }): E.Either<MixtrainError, unknown> => {
      if (metadata.format !== 'mixtrain-checkpoint') return left('these are tensors, but not a checkpoint of mixtrain')
      return metadata.version === VERSION
        ? E.right(undefined)
        : left(
            `expected version ${VERSION}, found ${JSON.stringify(metadata.version)}: another version of mixtrain wrote it`,
          )
    }),
  )
  const understood = (file: Safetensors): E.Either<MixtrainError, StoredRun> =>
    pipe(
      E.Do,
      E.bind('settings', () => parse<Settings>(settingsSchema, 'settings', file.metadata.settings)),
      E.bind('history', () => parse(History, 'history', file.metadata.history)),
      E.bind('part', () =>
        file.metadata.within === undefined
          ? E.right(undefined)
          : parse<Part>(partSchema, 'within', file.metadata.within),
      ),
      E.bind('file', () => E.right(file)),
    )
  return pipe(
    TE.fromEither(identified),
    TE.chain((file) => async () => {
      const hash = file.metadata[SEAL] ?? ''
      return (await isWhole(bytes, hash))
        ? understood(file)
        : E.left(fileError(path, 'the checkpoint was changed since it was written: it has another hash', SEAL))
    }),
  )
}

/**
 * The first tensor of a state that holds NaN or infinity, as a checkpoint names it: a weight, or what the optimizer keeps. With an infinite second moment
 * Adam's steps are 0, so that a run would go on without learning anything.
 */
export const divergedAt = ({ parameters, slots }: TrainState): string | undefined =>
  [
    ...Object.entries(parameters).map(([name, data]) => [`${PARAMETER}.${name}`, data] as const),
    ...Object.entries(slots).flatMap(([slot, values]) =>
      Object.entries(values).map(([name, data]) => [`${SLOT}.${slot}.${name}`, data] as const),
    ),
  ].find(([, data]) => !data.every(Number.isFinite))?.[0]

/**
 * The checkpoint of a stored run, if its tensors are those of the network and the optimizer's slots; a file error names the one that is missing, too many or of another shape.
 *
 * @example
 *   const checkpoint = orThrow(restoreCheckpoint(stored, network, ['m', 'v']))
 */
export const restore = (
  { file, history, part }: StoredRun,
  network: Network,
  slots: readonly string[],
): E.Either<MixtrainError, Checkpoint> => {
  const trained = trainedOf(network.parameters)
  const under = (prefix: string, parameters: Named<Parameter>) =>
    Object.fromEntries(Object.entries(shapesOf(parameters)).map(([name, shape]) => [`${prefix}.${name}`, shape]))
  return pipe(
    expectTensors(
      file,
      Object.assign(
        under(PARAMETER, network.parameters),
        ...slots.map((slot) => under(`${SLOT}.${slot}`, trained)),
        Object.fromEntries((part?.terms ?? []).map((name) => [`${TERM}.${name}`, [2]])),
      ),
    ),
    E.map((tensors) => {
      const values = (prefix: string, names: readonly string[]): Named<Float32Array> =>
        Object.fromEntries(names.map((name) => [name, tensors.get(`${prefix}.${name}`)?.data ?? new Float32Array()]))
      return {
        state: {
          parameters: values(PARAMETER, Object.keys(network.parameters)),
          slots: Object.fromEntries(slots.map((slot) => [slot, values(`${SLOT}.${slot}`, Object.keys(trained))])),
        },
        history,
        ...(part === undefined
          ? {}
          : { within: { steps: part.steps, terms: values(TERM, part.terms), seconds: part.seconds } }),
      }
    }),
    E.filterOrElse(
      ({ state }) => divergedAt(state) === undefined,
      ({ state }) => fileError(file.path, 'it holds NaN or infinity: the training had diverged', divergedAt(state)),
    ),
  )
}
