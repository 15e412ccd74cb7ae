import { join } from 'node:path'
import process from 'node:process'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { reference } from '../backend/reference.ts'
import { evaluate } from '../compile/run.ts'
import { fileError, type MixtrainError, usage } from '../core/error.ts'
import { sha256 } from '../core/hash.ts'
import { counted } from '../core/number.ts'
import { fromDouble, showExactly, showRounded } from '../core/rational.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import { files, GIVEN_UP, makeDirectory } from '../data/files.ts'
import { unpacked } from '../data/gzip.ts'
import { decodeModel } from '../format/model.ts'
import { decodeOnnx, type OnnxModel, parameterConstants } from '../format/onnx/index.ts'
import { isSafetensors } from '../format/safetensors.ts'
import {
  decodeVnnlib,
  type Model,
  type Property,
  showAssignment,
  showCounterexample,
  subjectOf,
  tensorProto,
  valuesOf,
} from '../format/vnnlib.ts'
import { constant, input } from '../ops/index.ts'
import { decimal, refuse } from '../proof/exact.ts'
import { type Header, queryOf } from '../proof/file.ts'
import { isCounterexample, type Line, type Query } from '../proof/proof.ts'
import { ADDRESSABLE, type Progress, SAFETY, type Verification, verifyProperty } from '../verify/branch-and-bound.ts'
import { outputOf, type Subject } from '../verify/counterexample.ts'
import type { Counterexample } from '../verify/counterexample-check.ts'
import { proofFile, prove } from '../verify/prove.ts'
import type { Command } from './command.ts'
import { bytesOf, modelFile, readNamed, withDevice } from './open.ts'
import {
  integer,
  natural,
  positive,
  repeated,
  replayOption,
  roundingOf,
  roundingOption,
  semanticsOption,
  text,
} from './options.ts'
import { onnxReplay } from './replay.ts'
import { json, roundingRecord } from './report.ts'
import { attempt, type Shell } from './shell.ts'

const TIMEOUT = 300

const networkOption = repeated({
  flags: '--network <NAME=FILE>',
  about: 'the file of a network that a VNN-LIB 2.0 property declares; once for each that is not equal to another',
  read: (value: string): E.Either<string, { readonly name: string; readonly file: string }> => {
    const at = value.indexOf('=')
    return at > 0 && at < value.length - 1
      ? E.right({ name: value.slice(0, at), file: value.slice(at + 1) })
      : E.left(`expected NAME=FILE, not ${JSON.stringify(value)}`)
  },
})

const options = {
  network: networkOption,
  timeout: {
    flags: '--timeout <S>',
    about: `seconds until the verdict is timeout (default: ${TIMEOUT})`,
    read: positive,
  },
  serialiseAssignments: {
    flags: '--serialise-assignments <FOLDER>',
    about: 'write a counterexample of a VNN-LIB 2.0 property there, a serialized ONNX tensor for each variable',
    read: text,
  },
  verbose: { flags: '--verbose', about: 'say which steps are taken, as they begin, on standard error' },
  seed: { flags: '--seed <N>', about: 'of the random starts of the attack (default: 0)', read: integer },
  restarts: {
    flags: '--restarts <N>',
    about: 'starts of the first attack on each conjunction; 0: no attack (default: 8)',
    read: natural,
  },
  proof: {
    flags: '--proof <FILE>',
    about:
      'after the verdict, and beside the time limit, write a proof of it that mixtrain check replays in exact arithmetic (docs/proof.md)',
    read: text,
  },
  replay: replayOption,
  rounding: { ...roundingOption, about: roundingOption.about.replace('default: none', 'default: outward') },
  semantics: semanticsOption,
}

const asSubject = (model: OnnxModel): Subject => ({
  network: model.network(parameterConstants(model)),
  input: model.input.shape,
  outputs: S.size(model.output.shape),
})

/** A saved model is safetensors, or ONNX with any shape of output. */
const modelOf = (bytes: Uint8Array, path: string): E.Either<MixtrainError, Model> => {
  const decoded = (output: string) => pipe(decodeOnnx(bytes, path, { output }), E.map(asSubject))
  return isSafetensors(bytes)
    ? pipe(
        decodeModel(bytes, path),
        E.map(({ network, parameters }) => ({
          network: network.apply(
            Object.fromEntries(
              Object.entries(network.parameters).map(([k, { shape }]) => [k, constant(parameters[k], shape)]),
            ),
          ),
          input: network.input,
          outputs: network.classes,
          hidden: () => E.left(fileError(path, 'hidden nodes have names in ONNX files only')),
        })),
      )
    : pipe(
        decodeOnnx(bytes, path),
        E.map((model) => {
          const { logits } = model
          return {
            ...asSubject(model),
            hidden: decoded,
            ...(logits === undefined ? {} : { logits: () => decoded(logits.name) }),
          }
        }),
      )
}
/** A file, unpacked if it is gzipped. */
const contentOf = (path: string, limit: AbortSignal): TE.TaskEither<MixtrainError, Uint8Array> =>
  pipe(
    readNamed(path, limit),
    TE.chain((bytes) => unpacked(bytes, path)),
  )
/** A network and the bytes of its file. */
interface Loaded {
  readonly model: Model
  readonly bytes: Uint8Array
}
const loadNetwork = (path: string, limit: AbortSignal): TE.TaskEither<MixtrainError, Loaded> =>
  pipe(
    contentOf(path, limit),
    TE.chainEitherK((bytes) =>
      pipe(
        modelOf(bytes, path),
        E.map((model) => ({ model, bytes })),
      ),
    ),
  )

/** What onnxruntime takes, whatever it runs, MB. */
const REPLAY_MB = 64

/** What replays counterexamples, if that is wanted; an error where it must be there and is not. */
const replayOf = (
  wanted: 'prefer' | 'require' | 'off',
  property: Property,
  loaded: ReadonlyMap<string, Loaded>,
  memory = Number.POSITIVE_INFINITY,
): E.Either<MixtrainError, ReturnType<typeof onnxReplay>> => {
  const none = (reason: string) => E.right<MixtrainError, ReturnType<typeof onnxReplay>>(E.left(reason))
  if (wanted === 'off') return none('--replay off')
  const needed = REPLAY_MB + [...loaded.values()].reduce((n, { bytes }) => n + (4 * bytes.length) / 2 ** 20, 0)
  if (needed > memory && wanted === 'prefer') return none(`onnxruntime takes ${Math.ceil(needed)} MB (--memory)`)
  const bytes = new Map([...loaded].map(([name, l]) => [name, l.bytes]))
  const found = onnxReplay(property, bytes, wanted === 'require')
  return wanted === 'require' && E.isLeft(found)
    ? E.left(usage(`--replay require: ${found.left}: npm install onnxruntime-node`))
    : E.right(found)
}

/** The files of the networks of a property, by name; `model` is that of a property with one network. */
const filesOf = (
  property: Property,
  model: string,
  given: readonly { readonly name: string; readonly file: string }[],
): E.Either<MixtrainError, ReadonlyMap<string, string>> => {
  const wanted = property.networks.filter((n) => n.like?.kind !== 'equal').map((n) => n.name)
  if (model !== '')
    return wanted.length === 1
      ? E.right(new Map([[wanted[0], model]]))
      : E.left(usage(`the property declares ${wanted.join(', ')}: give each a file by --network NAME=FILE`))
  const found = new Map(given.map(({ name, file }) => [name, file]))
  if (found.size < given.length) return E.left(usage('--network: a network is given two files'))
  // A 1.0 property does not name its network.
  if (property.version === 1 && found.size === 1) return E.right(new Map([['', given[0].file]]))
  const missing = wanted.filter((n) => !found.has(n))
  const unknown = [...found.keys()].filter((n) => !wanted.includes(n))
  return missing.length > 0
    ? E.left(usage(`the property declares the network ${missing[0]}: add --network ${missing[0]}=FILE`))
    : unknown.length > 0
      ? E.left(
          usage(
            `--network: the property needs no file for ${JSON.stringify(unknown[0])}, only for ${wanted.join(', ')}`,
          ),
        )
      : E.right(found)
}

/** What bounds hold for: what the element type of the property asks, unless it does not say. */
const roundingFor = (property: Property, o: Parameters<typeof roundingOf>[0]): E.Either<MixtrainError, Rounding> => {
  const own = property.type === undefined ? undefined : property.type === 'real' ? 'real' : 'deployed'
  if (own === undefined || o.rounding === 'none') return roundingOf(o, 'outward')
  return own === 'deployed' && o.semantics === 'real'
    ? E.left(
        usage(
          `the property is about ${property.type} numbers, which --semantics ${own} is about; declare real to prove less`,
        ),
      )
    : roundingOf({ ...o, semantics: o.semantics ?? own }, 'outward')
}

const show = (shell: Shell) => async (p: Progress) => {
  if (p.phase === 'attack') return shell.progress('attacking', p.bounded, p.bounded + p.open)
  if (p.phase === 'bounds') return shell.progress('bounding', p.bounded, p.bounded + p.open)
  return shell.progress(`splitting, lower bound ${p.lower.toPrecision(2)}`, p.bounded, p.bounded + p.open)
}

/** CPU seconds of this process and the most memory that it had, MB; null where the runtime does not say. */
const resources = (): { readonly cpu: number | null; readonly peak: number | null } => {
  try {
    const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage()
    return { cpu: (userCPUTime + systemCPUTime) / 1e6, peak: maxRSS > 0 ? maxRSS / 1024 : null }
  } catch {
    return { cpu: null, peak: null }
  }
}

/** A counterexample with the outputs of another network, of the same order: in doubles. */
const reported = async (whole: Subject, found: Counterexample): Promise<Counterexample> => {
  const backend = reference()
  const x = input('x', [1, ...whole.input])
  const [y] = await evaluate(backend)([outputOf(whole, x)], new Map([[x, found.x]]))
  backend.dispose()
  return {
    ...found,
    y: Float64Array.from(y),
    decimals: { x: found.decimals.x, y: Array.from(y, (v) => showExactly(fromDouble(v)) as string) },
  }
}

/** JSON has no infinity. */
const finite = (x: number): number | null => (Number.isFinite(x) ? x : null)

/** What a replay made of a counterexample, with its outputs; null where there was none. */
const replayedRecord = (replayed: Counterexample['replayed'], outputs: number) =>
  replayed === undefined
    ? null
    : {
        by: replayed.by,
        confirmed: replayed.confirmed,
        y: replayed.y === undefined ? null : Array.from(replayed.y).slice(0, outputs),
      }

const inWords = ({ verdict, bounded, lower, seconds, reason }: Verification): string =>
  [
    `${counted(bounded, 'subproblem')} bounded in ${seconds.toFixed(1)} s`,
    ...(verdict === 'sat' || !Number.isFinite(lower)
      ? []
      : [
          lower > 0 && lower < 2 ** -100
            ? 'lower bound above 0'
            : `lower bound ${showRounded(fromDouble(lower), 4, 'down')}`,
        ]),
    ...(reason === undefined ? [] : [reason]),
  ].join('; ')

/** Writes each tensor of a counterexample to a file of its own. */
const serialise = (
  property: Property,
  decimals: NonNullable<Verification['counterexample']>['decimals'],
  folder: string,
): TE.TaskEither<MixtrainError, void> =>
  pipe(
    makeDirectory(folder),
    TE.chain(() =>
      TE.traverseArray(({ tensor, shape, values }: ReturnType<typeof valuesOf>[number]) =>
        files.write(join(folder, `${tensor.name}.pb`), tensorProto(tensor.name, property.type, shape, values)),
      )(valuesOf(property, decimals)),
    ),
    TE.map(() => undefined),
  )

/** Leaves of the largest proof that is written. */
const LEAVES = 1_000_000

/** What a proof is about: one network of an ONNX file, and the property's text. Refused where the checker does not read them, before anything is searched. */
const claimed = (
  model: string,
  path: string,
  rounding: Rounding,
): TE.TaskEither<MixtrainError, { readonly header: Header; readonly query: Query }> =>
  rounding === 'none'
    ? TE.left(usage('--proof needs bounds that round outward'))
    : pipe(
        TE.Do,
        TE.bind('network', () => files.read(model)),
        TE.bind('property', () => files.read(path)),
        TE.chain(({ network, property }) =>
          TE.tryCatch(
            async () => {
              const header: Header = {
                format: 'mixtrain-proof',
                version: 2,
                semantics: rounding.outward,
                network: await sha256(network),
                claim: { kind: 'property', property: await sha256(property) },
              }
              return { header, query: await queryOf(header, { network, property }) }
            },
            (e) => usage(`--proof: ${e instanceof Error ? e.message : e}`),
          ),
        ),
      )

/** Writes the proof of a verdict; where none is found, that is an error: the file is not there. */
const proofOf = (
  { header, query }: { readonly header: Header; readonly query: Query },
  { verdict, counterexample, trees }: Verification,
  path: string,
): TE.TaskEither<MixtrainError, string> => {
  async function* point(): AsyncGenerator<Line> {
    if (counterexample !== undefined) yield ['point', counterexample.decimals.x]
  }
  return verdict !== 'unsat' && verdict !== 'sat'
    ? TE.right('no proof is written of an open verdict')
    : pipe(
        TE.tryCatch(
          async () => {
            const lines = verdict === 'sat' ? point() : prove(query, { leaves: LEAVES, trees })
            if (verdict === 'sat' && query.semantics !== 'real')
              return refuse('a point says nothing about executions in exact arithmetic (--semantics real)')
            if (verdict === 'sat' && !isCounterexample(query, (counterexample?.decimals.x ?? []).map(decimal)))
              return refuse('the point is none in exact arithmetic')
            return proofFile(header, lines)
          },
          (e) => usage(`no proof of the verdict ${verdict} was found: ${e instanceof Error ? e.message : e}`),
        ),
        TE.chain((bytes) => TE.map(() => `${path}: a proof of ${bytes.length} bytes`)(files.write(path, bytes))),
      )
}

/** `mixtrain verify`: decides a VNN-LIB property of a network. */
export const verifyCommand: Command<typeof options, 'MODEL' | 'PROPERTY'> = {
  name: 'verify',
  summary: 'decide a VNN-LIB property of a network',
  description: `Looks for a counterexample of a property, and proves that there is none by branch and bound. The first line on standard output is the verdict: unsat (the property holds), sat (then the counterexample follows), unknown or timeout. Numbers of the property are read exactly; a counterexample lies in its box and was confirmed in exact arithmetic, by outward bounds of the point or, with --semantics deployed, by a float32 execution. Bounds round outward: unsat is a theorem about the network in real arithmetic or, with --semantics deployed, also about its float32 executions. With --rounding none they round to nearest, and unsat means that they exceed what is needed by a share of ${SAFETY}, which is no proof. GPUs round in their own ways, so --device auto is wasm here. Networks whose bounds cannot be rounded so are attacked all the same. Nothing is begun that would end after the time limit, by what it is estimated to cost. The interface of the VNN-LIB standard is mixtrain verify PROPERTY --network NAME=FILE: networks have names, the element type real or float32 of the property chooses the semantics, and the last verdict is timed-out. Files may be gzipped. Exit code 0 whatever the verdict.`,
  takes: {
    MODEL:
      'an ONNX file, or the folder of a run, or its model.safetensors, gzipped or not; with --network the property, and nothing follows',
    PROPERTY: 'a VNN-LIB file, 1.0 or 2.0',
  },
  optional: ['PROPERTY'],
  options,
  examples: [
    'mixtrain verify network.onnx property.vnnlib',
    'mixtrain verify network.onnx property.vnnlib --timeout 60 --threads 2 --json',
    'mixtrain verify property.vnnlib --network f=network.onnx --timeout 60',
  ],
  run: (args, o, shell) => {
    const { timeout = TIMEOUT, seed = 0, network = [] } = o
    const { begun } = shell
    const standard = network.length > 0
    if (standard && args.PROPERTY !== '')
      return TE.left(usage('verify takes a model and a property, or a property and --network NAME=FILE'))
    if (!standard && args.PROPERTY === '')
      return TE.left(
        usage("missing required argument 'PROPERTY'; or name the files of its networks by --network NAME=FILE"),
      )
    const [MODEL, PROPERTY] = standard ? ['', args.MODEL] : [args.MODEL, args.PROPERTY]
    const limit = AbortSignal.timeout(Math.max(0, Math.round(1000 * timeout - (performance.now() - begun))))
    /** A pipe that does not end in time is the end of the time. */
    const unread = (error: MixtrainError): TE.TaskEither<MixtrainError, undefined> => {
      if (!(limit.aborted && error.kind === 'file' && error.message === GIVEN_UP)) return TE.left(error)
      const [verdict, reason] = [standard ? 'timed-out' : 'timeout', `${error.path}: ${error.message}`]
      const seconds = (performance.now() - begun) / 1000
      const none = { counterexample: null, lower: null, subproblems: 0 }
      shell.print(
        o.json ? json({ model: MODEL, property: PROPERTY, seed, verdict, ...none, timeout, seconds, reason }) : verdict,
      )
      if (!o.json) shell.note(reason)
      return TE.right(undefined)
    }
    return pipe(
      TE.Do,
      TE.bind('property', () =>
        pipe(
          contentOf(PROPERTY, limit),
          TE.chainEitherK((bytes) => decodeVnnlib(new TextDecoder().decode(bytes), PROPERTY)),
        ),
      ),
      TE.bind('models', ({ property }) =>
        pipe(
          TE.fromEither(filesOf(property, MODEL, network)),
          TE.chain((named) =>
            TE.traverseSeqArray(([name, path]: readonly [string, string]) =>
              TE.map((file: string) => [name, file] as const)(
                modelFile(path, o.proof === undefined ? 'safetensors' : 'onnx'),
              ),
            )([...named]),
          ),
          TE.map((found) => new Map(found)),
        ),
      ),
      TE.bind('rounding', ({ property }) => TE.fromEither(roundingFor(property, o))),
      TE.bind('question', ({ property, models, rounding }) =>
        pipe(
          [...models],
          TE.traverseArray(([name, file]) => TE.map((l: Loaded) => [name, l] as const)(loadNetwork(file, limit))),
          TE.chainEitherK((loaded) =>
            pipe(
              E.Do,
              E.bind('subject', () =>
                subjectOf(property, new Map(loaded.map(([name, { model }]) => [name, model])), PROPERTY, {
                  inReals: rounding === 'none' || rounding.outward === 'real',
                }),
              ),
              E.bind('replay', () => replayOf(o.replay ?? 'prefer', property, new Map(loaded), o.memory)),
            ),
          ),
        ),
      ),
      TE.bind('claim', ({ models, rounding }) =>
        o.proof === undefined
          ? TE.right(undefined)
          : models.size !== 1
            ? TE.left(usage('--proof is about one network'))
            : claimed([...models.values()][0], PROPERTY, rounding),
      ),
      TE.bind(
        'result',
        ({
          question: {
            subject: { whole, ...subject },
            replay,
          },
          property,
          rounding,
        }) =>
          withDevice({ ...o, device: o.device === undefined || o.device === 'auto' ? 'wasm' : o.device })(
            ({ backend }) =>
              attempt(() =>
                shell.interruptible(async () => {
                  if (backend.name === 'wasm' && (o.memory ?? 0) > ADDRESSABLE / 2 ** 20)
                    shell.note(
                      `WebAssembly addresses 4 GB: of --memory ${o.memory} MB, ${Math.floor(ADDRESSABLE / 2 ** 20)} MB are used`,
                    )
                  if (rounding === 'none')
                    shell.note('bounds round to nearest: an unsat is not a proof about real numbers')
                  if (o.verbose && E.isLeft(replay)) shell.note(`counterexamples are not replayed: ${replay.left}`)
                  const result = await verifyProperty({
                    ...subject,
                    property,
                    rounding,
                    timeout: Math.max(0, timeout - (performance.now() - begun) / 1000),
                    seed,
                    trace: o.proof !== undefined,
                    replay: E.isRight(replay) ? replay.right : undefined,
                    ...(o.restarts === undefined ? {} : { restarts: o.restarts }),
                    progress: show(shell),
                    ...(o.verbose ? { said: (step: string) => shell.note(step) } : {}),
                    ...bytesOf(o.memory),
                  })(backend)
                  shell.clear()
                  if (E.isRight(replay)) await replay.right.close()
                  const { counterexample } = result
                  return {
                    ...result,
                    ...(counterexample === undefined || whole.network === subject.network
                      ? {}
                      : { counterexample: await reported(whole, counterexample) }),
                    device: backend.name,
                    threads: backend.threads,
                  }
                }),
              ),
          ),
      ),
      TE.chainFirst(({ property, result: { counterexample } }) =>
        o.serialiseAssignments === undefined || counterexample === undefined
          ? TE.right(undefined)
          : serialise(property, counterexample.decimals, o.serialiseAssignments),
      ),
      TE.chainFirstIOK(({ property, models, rounding, result }) => () => {
        const { counterexample, lower, bounded, reason, device, threads } = result
        const verdict = standard && result.verdict === 'timeout' ? 'timed-out' : result.verdict
        const seconds = (performance.now() - begun) / 1000
        // Behind the outputs come copies of what constraints mention besides.
        const own = property.outputs - property.watched.length
        const decimals = counterexample && {
          x: counterexample.decimals.x,
          y: counterexample.decimals.y.slice(0, own),
        }
        if (!o.json) {
          shell.print(verdict)
          if (decimals !== undefined && o.serialiseAssignments === undefined)
            shell.print(property.version === 1 ? showCounterexample(decimals) : showAssignment(property, decimals))
          return shell.note(inWords(result))
        }
        const point = counterexample && {
          x: [...counterexample.x],
          y: [...counterexample.y].slice(0, own),
          decimals,
          replayed: replayedRecord(counterexample.replayed, own),
        }
        return shell.print(
          json({
            model: standard ? Object.fromEntries(models) : [...models.values()][0],
            property: PROPERTY,
            ...roundingRecord(rounding),
            ...(rounding === 'none' ? { safety: SAFETY } : {}),
            device,
            threads,
            seed,
            verdict,
            counterexample: point ?? null,
            lower: finite(lower),
            subproblems: bounded,
            timeout,
            seconds,
            ...resources(),
            reason: reason ?? null,
          }),
        )
      }),
      TE.chain(({ claim, result }) =>
        claim === undefined || o.proof === undefined
          ? TE.right(undefined)
          : TE.map((said: string) => shell.note(said))(proofOf(claim, result, o.proof)),
      ),
      TE.map(() => undefined),
      TE.orElse(unread),
    )
  },
}
