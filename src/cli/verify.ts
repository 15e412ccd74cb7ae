import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import * as S from '../core/shape.ts'
import { files } from '../data/files.ts'
import { unpacked } from '../data/gzip.ts'
import { decodeModel } from '../format/model.ts'
import { decodeOnnx, parameterConstants } from '../format/onnx/index.ts'
import { isSafetensors } from '../format/safetensors.ts'
import { decodeVnnlib, type Property, showCounterexample } from '../format/vnnlib.ts'
import { constant } from '../ops/index.ts'
import { type Progress, SAFETY, type Verification, verifyProperty } from '../robust/branch-and-bound.ts'
import type { Subject } from '../robust/counterexample.ts'
import type { Command } from './command.ts'
import { bytesOf, withDevice } from './open.ts'
import { integer, positive, roundingOf, roundingOption, semanticsOption } from './options.ts'
import { json, roundingRecord } from './report.ts'
import { attempt, type Shell } from './shell.ts'

const TIMEOUT = 300

const options = {
  timeout: {
    flags: '--timeout <S>',
    about: `seconds until the verdict is timeout (default: ${TIMEOUT})`,
    read: positive,
  },
  seed: { flags: '--seed <N>', about: 'of the random starts of the attack (default: 0)', read: integer },
  rounding: { ...roundingOption, about: roundingOption.about.replace('default: none', 'default: outward') },
  semantics: semanticsOption,
}

/** A saved model is safetensors, or ONNX with any shape of output. */
const subjectOf = (bytes: Uint8Array, path: string): E.Either<MixtrainError, Subject> =>
  isSafetensors(bytes)
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
        })),
      )
    : pipe(
        decodeOnnx(bytes, path),
        E.map((model) => ({
          network: model.network(parameterConstants(model)),
          input: model.input.shape,
          outputs: S.size(model.output.shape),
        })),
      )

/** The property, if it is about networks of this kind. */
const fitting = (subject: Subject, path: string, property: Property): E.Either<MixtrainError, Property> => {
  const { inputs, outputs } = property
  const size = S.size(subject.input)
  return inputs === size && outputs === subject.outputs
    ? E.right(property)
    : E.left(
        fileError(
          path,
          `the property has ${inputs} inputs and ${outputs} outputs, but the network ${size} and ${subject.outputs}`,
        ),
      )
}

const show = (shell: Shell) => async (p: Progress) => {
  if (p.phase === 'attack') return shell.progress('attacking', p.bounded, p.bounded + p.open)
  if (p.phase === 'bounds') return shell.progress('bounding', p.bounded, p.bounded + p.open)
  return shell.progress(`splitting, lower bound ${p.lower.toPrecision(2)}`, p.bounded, p.bounded + p.open)
}

/** JSON has no infinity. */
const finite = (x: number): number | null => (Number.isFinite(x) ? x : null)

const inWords = ({ verdict, bounded, lower, seconds, reason }: Verification): string =>
  [
    `${bounded} subproblem${bounded === 1 ? '' : 's'} bounded in ${seconds.toFixed(1)} s`,
    ...(verdict === 'sat' || !Number.isFinite(lower) ? [] : [`lower bound ${lower.toPrecision(4)}`]),
    ...(reason === undefined ? [] : [reason]),
  ].join('; ')

/** `mixtrain verify`: decides a VNN-LIB property of a network. */
export const verifyCommand: Command<typeof options, 'MODEL' | 'PROPERTY'> = {
  name: 'verify',
  summary: 'decide a VNN-LIB property of a network',
  description: `Looks for a counterexample of a property, and proves that there is none by branch and bound. The first line on standard output is the verdict: unsat (the property holds), sat (then the counterexample follows), unknown or timeout. A counterexample lies in the box and was checked in float64. Bounds round outward: unsat is a theorem about the network in real arithmetic or, with --semantics deployed, also about its float32 executions. With --rounding none they round to nearest, and unsat means that they exceed what is needed by a share of ${SAFETY}, which is no proof. GPUs round in their own ways, so --device auto is wasm here. Exit code 0 whatever the verdict.`,
  takes: { MODEL: 'an ONNX file, or model.safetensors of a run; also gzipped', PROPERTY: 'a VNN-LIB file' },
  options,
  examples: [
    'mixtrain verify network.onnx property.vnnlib',
    'mixtrain verify network.onnx property.vnnlib --timeout 60 --threads 2 --json',
  ],
  run: ({ MODEL, PROPERTY }, o, shell) => {
    const { timeout = TIMEOUT, seed = 0 } = o
    const begun = performance.now()
    return pipe(
      TE.Do,
      TE.bind('subject', () =>
        pipe(
          files.read(MODEL),
          TE.chain((bytes) => unpacked(bytes, MODEL)),
          TE.chainEitherK((bytes) => subjectOf(bytes, MODEL)),
        ),
      ),
      TE.bind('property', ({ subject }) =>
        pipe(
          files.read(PROPERTY),
          TE.chain((bytes) => unpacked(bytes, PROPERTY)),
          TE.chainEitherK((bytes) => decodeVnnlib(new TextDecoder().decode(bytes), PROPERTY)),
          TE.chainEitherK((property) => fitting(subject, PROPERTY, property)),
        ),
      ),
      TE.bind('rounding', () => TE.fromEither(roundingOf(o, 'outward'))),
      TE.chain(({ subject, property, rounding }) =>
        withDevice({ ...o, device: o.device === undefined || o.device === 'auto' ? 'wasm' : o.device })(({ backend }) =>
          attempt(() =>
            shell.interruptible(async () => {
              if (rounding === 'none') shell.note('bounds round to nearest: an unsat is not a proof about real numbers')
              const result = await verifyProperty({
                ...subject,
                property,
                rounding,
                timeout: Math.max(0, timeout - (performance.now() - begun) / 1000),
                seed,
                progress: show(shell),
                ...bytesOf(o.memory),
              })(backend)
              shell.clear()
              const { verdict, counterexample, lower, bounded, reason } = result
              const seconds = (performance.now() - begun) / 1000
              if (!o.json) {
                shell.print(verdict)
                if (counterexample !== undefined) shell.print(showCounterexample(counterexample.x, counterexample.y))
                return shell.note(inWords(result))
              }
              const { name: device, threads } = backend
              const about = {
                model: MODEL,
                property: PROPERTY,
                ...roundingRecord(rounding),
                ...(rounding === 'none' ? { safety: SAFETY } : {}),
                device,
                threads,
                seed,
              }
              const point = counterexample && { x: [...counterexample.x], y: [...counterexample.y] }
              return shell.print(
                json({
                  ...about,
                  verdict,
                  counterexample: point ?? null,
                  lower: finite(lower),
                  subproblems: bounded,
                  timeout,
                  seconds,
                  reason: reason ?? null,
                }),
              )
            }),
          ),
        ),
      ),
    )
  },
}
