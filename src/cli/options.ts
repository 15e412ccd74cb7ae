import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import { getMonoid } from 'fp-ts/lib/ReadonlyArray.js'
import * as R from 'fp-ts/lib/Record.js'
import { type DeviceName, deviceNames } from '../backend/device.ts'
import { doublesOf, type Epsilon, readEpsilon } from '../core/epsilon.ts'
import { fileError, type MixtrainError, usage } from '../core/error.ts'
import * as K from '../core/kinds.ts'
import { unknownName } from '../core/names.ts'
import type { Rounding, Semantics } from '../core/rounding.ts'
import type { Norm } from '../core/tensor.ts'
import { alphaCrown } from '../robust/alpha-crown.ts'
import { ALPHA, type Bounder, type MethodName, methods } from '../robust/bounds.ts'
import { norms } from '../robust/perturbation.ts'

/** An option with an argument: how it is written, explained and read. */
export interface Option<A> {
  readonly flags: string
  readonly about: string
  /** A Left says what was expected. */
  readonly read: (text: string) => E.Either<string, A>
}

/** An option that may be written several times. */
export interface Repeated<A> extends Option<readonly A[]> {
  readonly repeated: (texts: readonly string[]) => E.Either<string, readonly A[]>
}

/** `option`, as often as one likes. */
export const repeated = <A>({ flags, about, read }: Option<A>): Repeated<A> => {
  const all = E.traverseArray(read)
  return { flags, about, read: (one) => all([one]), repeated: all }
}

/** An option without an argument. */
export interface Switch {
  readonly flags: string
  readonly about: string
}

// biome-ignore lint/suspicious/noExplicitAny: options of every type in one record
export type Options = Readonly<Record<string, Option<any> | Switch>>
export type Values<O extends Options> = {
  readonly [K in keyof O]: O[K] extends Option<infer A> ? A | undefined : boolean
}

const expected =
  (what: string) =>
  (text: string): E.Either<string, never> =>
    E.left(`expected ${what}, not ${K.quoted(text)}`)

export const text = (value: string): E.Either<string, string> =>
  value === '' ? expected('a name')(value) : E.right(value)
export const [count, integer, natural, positive, fraction] = [
  K.count,
  K.integer,
  K.natural,
  K.positive,
  K.fraction,
].map(({ read }) => read)

/** The option of a setting: `batchSize` is `--batch-size`. */
export const optionOf = <A>(
  key: string,
  { read }: K.Kind<A>,
  standard: A,
  argument: string | undefined,
  about: string,
): Option<A> | Switch => {
  const flag = `--${key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`
  if (argument === undefined) return { flags: flag, about }
  const told = about.includes('(default: ') ? about : `${about} (default: ${standard})`
  return { flags: `${flag} <${argument}>`, about: told, read }
}

/** What a radius is measured in. */
export const UNITS = "in units of inputs from 0 to 1: of pixels, or of each feature's range in a table"

/** A radius in [0, 1], also as a quotient: 0.1, 2/255. */
export const radius = (value: string): E.Either<string, number> => {
  const parts = value.split('/')
  const [a, b] = parts.map((p) => (K.decimal.test(p) ? Number(p) : Number.NaN))
  const x = parts.length === 1 ? a : parts.length === 2 ? a / b : Number.NaN
  return x >= 0 && x <= 1 ? E.right(x) : expected(`a radius from 0 to 1, such as 0.1 or 2/255, ${UNITS}`)(value)
}

/** A radius of any norm, up to the l1 distance between two images of a few million pixels. */
export const reach = (value: string): E.Either<string, Epsilon> => {
  const wide = K.numberIn('a radius from 0 on', (x) => x >= 0 && x <= 1e7).read(value)
  return pipe(
    E.isRight(wide) ? wide : radius(value),
    E.chain(() =>
      E.fromNullable(
        `expected a radius without a sign and with at most two digits of exponent, not ${K.quoted(value)}`,
      )(readEpsilon(value)),
    ),
  )
}

export const name = <A extends string>(what: string, known: readonly A[]) => K.oneOf(what, known).read

/** Whole numbers from 0, with commas between. */
export const indices = (value: string): E.Either<string, readonly number[]> =>
  /^\d{1,9}(,\d{1,9})*$/.test(value)
    ? E.right(value.split(',').map(Number))
    : expected('image numbers counted from 0, such as 0,1,2')(value)

/** `TRAIN[,TEST]`. */
export const limits = (value: string): E.Either<string, { readonly train: number; readonly test: number | null }> => {
  const parts = value.split(',').map(count)
  return parts.length <= 2 && parts.every(E.isRight)
    ? E.right({
        train: (parts[0] as E.Right<number>).right,
        test: (parts[1] as E.Right<number> | undefined)?.right ?? null,
      })
    : expected('TRAIN or TRAIN,TEST, such as 200,50')(value)
}

/** One of several parts of a work that do not depend on each other. */
export interface Shard {
  readonly index: number
  readonly of: number
}

/** `I/N`, I from 1 to N. */
export const shard = (value: string): E.Either<string, Shard> => {
  const [, index, of] = /^(\d{1,6})\/(\d{1,6})$/.exec(value) ?? []
  return Number(index) >= 1 && Number(index) <= Number(of)
    ? E.right({ index: Number(index), of: Number(of) })
    : E.left(`expected I/N with I from 1 to N, such as 2/8, not ${JSON.stringify(value)}`)
}

/** `I/N`, or `I-J/N` for the shards from I to J. */
export const shards = (value: string): E.Either<string, readonly Shard[]> => {
  const [, first, last, of] = /^(\d{1,6})-(\d{1,6})\/(\d{1,6})$/.exec(value) ?? []
  if (first === undefined) return E.map((one: Shard) => [one])(shard(value))
  const [from, to] = [Number(first), Number(last)]
  return from >= 1 && from <= to && to <= Number(of)
    ? E.right(Array.from({ length: to - from + 1 }, (_, i) => ({ index: from + i, of: Number(of) })))
    : E.left(`expected I-J/N with I, J from 1 to N in order, such as 1-4/8, not ${JSON.stringify(value)}`)
}

const allDevices = [...new Set([...deviceNames, 'webgpu'])] as readonly (DeviceName | 'webgpu')[]

/** What the argument MODEL is. */
export const MODEL_IS = 'the folder of a run, its model.safetensors, or an ONNX file'

/** What every command takes. */
export const common = {
  device: {
    flags: '--device <NAME>',
    about: `where to compute: ${allDevices.join(', ')} (default: auto, the fastest that works)`,
    read: name('device', allDevices),
  },
  threads: {
    flags: '--threads <N>',
    about:
      'most threads of the wasm device, fewer while other programs have the processors; results do not depend on it (default: what machine and quota give, at most 8)',
    read: K.numberIn('a whole number from 1 to 64', (x) => Number.isInteger(x) && x >= 1 && x <= 64).read,
  },
  memory: {
    flags: '--memory <MB>',
    about:
      'scratch memory that one run of a plan may take: images are bounded, and trained on, in parts (default: 2048)',
    read: positive,
  },
  fastMath: {
    flags: '--fast-math',
    about: 'fused multiply-adds where the engine has them: faster, but bits then depend on the engine',
  },
  config: {
    flags: '--config <FILE>',
    about:
      'options as a JSON object, such as {"epsilon": "8/255", "epochs": 30, "swa": true}; what the command line says wins',
    read: text,
  },
  json: { flags: '--json', about: 'standard output is one JSON document; progress goes to standard error' },
} as const satisfies Options

export const dataOption = {
  flags: '--data <digits|PATH>',
  about:
    'images: the embedded digits, a folder with the official files of MNIST, Fashion-MNIST, CIFAR-10 (binary) or Tiny-ImageNet, with train.csv and test.csv, with images in train/CLASS and test/CLASS, or with Parquet files of Hugging Face; or a table FILE.csv or FILE.parquet with a column of labels, or FILE.npz with x_train, y_train, x_test, y_test (default: those that the model was trained on, or digits)',
  read: text,
}

export const methodNames = Object.keys(methods) as readonly MethodName[]
export const methodOption = {
  flags: '--method <NAME>',
  about: `how to bound: ${methodNames.join(', ')} (default: symbolic)`,
  read: name('method', methodNames),
}

export const epsilonOption = {
  flags: '--epsilon <E>',
  about: `radius of the ball, 0.1 or 2/255, ${UNITS} (default: the one that the model was trained for)`,
  read: reach,
}
export const normOption = {
  flags: '--norm <NAME>',
  about: `norm of the ball over all pixels or features: ${norms.join(', ')} (default: linf)`,
  read: name('norm', norms),
}
export const alphaOption = {
  flags: '--alpha-steps <N>',
  about: `alpha-crown: updates of the slopes (default: ${ALPHA.steps})`,
  read: count,
}

/** The ball that the options name, without a radius where they name none. */
export const ballOf = ({
  epsilon,
  norm = 'linf',
}: {
  readonly epsilon: Epsilon | undefined
  readonly norm: Norm | undefined
}): E.Either<MixtrainError, { readonly epsilon: Epsilon | undefined; readonly norm: Norm }> => {
  const nearest = epsilon === undefined ? 0 : doublesOf(epsilon).nearest
  return norm === 'linf' && nearest > 1
    ? E.left(
        usage(
          `--epsilon: expected a radius from 0 to 1, not "${nearest}"${nearest <= 255 ? `; of pixels from 0 to 255 it is ${nearest}/255` : ''}; for --norm l2 and l1 it may be larger`,
        ),
      )
    : E.right({ epsilon, norm })
}

/** The ball, with the radius that the model at `path` was trained for where the options name none, and what to say of it then. */
export const ballFor = (
  { epsilon, norm }: { readonly epsilon: Epsilon | undefined; readonly norm: Norm },
  trained: number | undefined,
  path: string,
): E.Either<
  MixtrainError,
  { readonly ball: { readonly epsilon: Epsilon; readonly norm: Norm }; readonly note?: string }
> => {
  if (epsilon !== undefined) return E.right({ ball: { epsilon, norm } })
  const own = norm === 'linf' && trained !== undefined && trained > 0 ? readEpsilon(String(trained)) : undefined
  return own === undefined
    ? E.left(
        usage(
          norm === 'linf'
            ? `${path} does not say what radius it was trained for: add --epsilon, such as 0.1`
            : `models are trained for a radius of the norm linf: with --norm ${norm} add --epsilon, such as 1.5`,
        ),
      )
    : E.right({
        ball: { epsilon: own, norm },
        note: `epsilon is ${own.written}, for which ${path} was trained; --epsilon names another`,
      })
}

/** The method that the options name. */
export const boundOf = ({
  method = 'symbolic',
  alphaSteps,
}: {
  readonly method: MethodName | undefined
  readonly alphaSteps: number | undefined
}): E.Either<MixtrainError, { readonly name: MethodName; readonly bound: Bounder }> =>
  alphaSteps === undefined
    ? E.right({ name: method, bound: methods[method] })
    : method === 'alpha-crown'
      ? E.right({ name: method, bound: alphaCrown({ ...ALPHA, steps: alphaSteps }) })
      : E.left(usage(`--alpha-steps is about the method alpha-crown, not ${method}`))

export const roundingOption = {
  flags: '--rounding <none|outward>',
  about: 'none: bounds round to nearest; outward: rounding is covered, bounds are theorems (default: none)',
  read: name('rounding policy', ['none', 'outward'] as const),
}
export const semanticsOption = {
  flags: '--semantics <real|deployed>',
  about:
    'what outward bounds hold for: real arithmetic, or deployed: also every float32 execution, sums in any order, fused or not (default: real)',
  read: name('semantics', ['real', 'deployed'] as const),
}

export const replayOption = {
  flags: '--replay <prefer|require|off>',
  about:
    'where onnxruntime-node or onnxruntime-web is installed, counterexamples are replayed by it: what it confirms is preferred, or is the only sat (default: prefer)',
  read: name('replay', ['prefer', 'require', 'off'] as const),
}

/** The rounding that the options name. */
export const roundingOf = (
  {
    rounding,
    semantics,
  }: { readonly rounding: 'none' | 'outward' | undefined; readonly semantics: Semantics | undefined },
  otherwise: 'none' | 'outward' = 'none',
): E.Either<MixtrainError, Rounding> =>
  (rounding ?? otherwise) === 'outward'
    ? E.right({ outward: semantics ?? 'real' })
    : semantics === undefined
      ? E.right('none')
      : E.left(usage('--semantics says what outward bounds hold for: add --rounding outward'))

/** `--batch-size <N>` is `batchSize` in a record. */
const long = (flags: string): string => flags.split(' ')[0]
const keyOf = (flags: string): string =>
  long(flags)
    .slice(2)
    .replace(/-(\w)/g, (_, c: string) => c.toUpperCase())

/** An option of a configuration file as it would be written on a command line. */
const written = (value: unknown, isRepeated: boolean): E.Either<string, unknown> => {
  const one = (v: unknown): v is string | number => typeof v === 'string' || typeof v === 'number'
  if (one(value)) return E.right(isRepeated ? [String(value)] : String(value))
  if (Array.isArray(value) && value.length > 0 && value.every(one))
    return E.right(isRepeated ? value.map(String) : value.join(','))
  return E.left(`expected a text, a number or a list of these, not ${K.quoted(JSON.stringify(value))}`)
}

/**
 * What a configuration file says, as options that were written: its members are named as the options are, `batch-size` or `batchSize`. An error for every
 * member that is no option, or has a value that none can have.
 */
export const configured = (
  options: Options,
  path: string,
  content: string,
): E.Either<MixtrainError, Readonly<Record<string, unknown>>> =>
  pipe(
    E.tryCatch(
      () => JSON.parse(content) as unknown,
      (cause) => fileError(path, `expected JSON: ${cause instanceof Error ? cause.message : cause}`),
    ),
    E.filterOrElse(
      (json): json is Record<string, unknown> => typeof json === 'object' && json !== null && !Array.isArray(json),
      () => fileError(path, 'expected a JSON object with options, such as {"epochs": 30}'),
    ),
    E.chain((json) => {
      const known = new Map(
        Object.values(options)
          .filter(({ flags }) => keyOf(flags) !== 'config')
          .map((option) => [keyOf(option.flags), option]),
      )
      const read = Object.entries(json).map(([name, value]): E.Either<string, readonly [string, unknown]> => {
        const key = keyOf(`--${name}`)
        const option = known.get(key)
        if (option === undefined)
          return E.left(
            unknownName(
              'option',
              name,
              [...known.values()].map(({ flags }) => long(flags).slice(2)),
            ),
          )
        const said =
          'read' in option
            ? written(value, 'repeated' in option)
            : typeof value === 'boolean'
              ? E.right(value)
              : E.left(`expected true or false, not ${K.quoted(JSON.stringify(value))}`)
        return pipe(
          said,
          E.bimap(
            (message) => `${name}: ${message}`,
            (v) => [key, v] as const,
          ),
        )
      })
      const wrong = read.filter(E.isLeft).map(({ left }) => left)
      return wrong.length > 0
        ? E.left(fileError(path, wrong.join('\n')))
        : E.right(Object.fromEntries(read.filter(E.isRight).map(({ right }) => right)))
    }),
  )

/** Reads all options that were written; the error lists everything that is wrong with them. */
export const readOptions = <O extends Options>(
  options: O,
  raw: Readonly<Record<string, unknown>>,
): E.Either<MixtrainError, Values<O>> => {
  const read = (option: Option<unknown> | Switch): E.Either<readonly string[], unknown> => {
    const value = raw[keyOf(option.flags)]
    if (!('read' in option)) return E.right(value === true)
    return value === undefined
      ? E.right(undefined)
      : E.mapLeft((message: string) => [`${long(option.flags)}: ${message}`])(
          'repeated' in option
            ? (option as Repeated<unknown>).repeated(value as readonly string[])
            : option.read(String(value)),
        )
  }
  return pipe(
    options,
    R.traverse(E.getApplicativeValidation(getMonoid<string>()))(read),
    E.bimap(
      (messages) => usage(messages.join('\n')),
      (values) => values as Values<O>,
    ),
  )
}
