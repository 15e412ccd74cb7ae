import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { doublesOf, type Epsilon } from '../core/epsilon.ts'
import { fileError, type MixtrainError, raise, usage } from '../core/error.ts'
import { sha256 } from '../core/hash.ts'
import type { Rounding, Semantics } from '../core/rounding.ts'
import type { Norm } from '../core/tensor.ts'
import { type Dataset, hashOf, nounOf, pixels, take } from '../data/dataset.ts'
import { makeDirectory, writeAtomic } from '../data/files.ts'
import { unpacked } from '../data/gzip.ts'
import { decodeModel } from '../format/model.ts'
import type { MethodName } from '../robust/bounds.ts'
import { type Certificate, claimsOf, encodeCertificate, MAX_BYTES } from '../robust/certificate.ts'
import { type AttackName, type AttackOptions, attackNames, type TargetLoss, targetLosses } from '../robust/search.ts'
import { PIXELS } from '../train/fit.ts'
import { pgdAttack } from '../train/recipe.ts'
import { type Verified, type VerifiedBy, verify } from '../train/verify.ts'
import { imageProver, isFollowed, orRefusal } from '../verify/image-proof.ts'
import type { Pack } from '../verify/prove.ts'
import type { Command } from './command.ts'
import { type Falling, fallingBack } from './fallback.ts'
import { bytesOf, matching, modelFile, overlapNote, readNamed, testFor, withDevice } from './open.ts'
import {
  alphaOption,
  ballFor,
  ballOf,
  boundOf,
  count,
  dataOption,
  epsilonOption,
  integer,
  MODEL_IS,
  methodOption,
  name,
  normOption,
  positive,
  roundingOf,
  roundingOption,
  type Shard,
  semanticsOption,
  shards,
  text,
  UNITS,
} from './options.ts'
import { manifestOf, recorded, recordsReport, recordsTable } from './records.ts'
import { gradientNotes, json, reportOf, reportTable } from './report.ts'
import { attempt, get, type Shell } from './shell.ts'
import { type Point, pointOf, radii, sweepable, sweepReport, sweepTable } from './sweep.ts'
import { VERSION } from './version.ts'

const options = {
  data: dataOption,
  epsilon: {
    ...epsilonOption,
    about: `radius of the ball, 0.1 or 2/255, ${UNITS}; or FROM:TO:N, a curve of N radii, both ends included (default: the one that the model was trained for)`,
    read: radii,
  },
  norm: normOption,
  method: methodOption,
  alphaSteps: alphaOption,
  limit: { flags: '--limit <N>', about: 'only the first N test images (default: all)', read: count },
  batchSize: {
    flags: '--batch-size <N>',
    about: 'images at once, fewer if the memory is too small (default: 100)',
    read: count,
  },
  attack: {
    flags: '--attack <NAME>',
    about: `measure ERA under this attack: ${attackNames.join(', ')} (default: none, ERA is not measured)`,
    read: name('attack', attackNames),
  },
  targetLoss: {
    flags: '--target-loss <NAME>',
    about:
      'what the attack raises: ce, the cross-entropy, or margin, the largest other logit less that of the label (default: ce)',
    read: name('loss', targetLosses),
  },
  targeted: {
    flags: '--targeted',
    about: 'attack towards each other class in turn, by the difference of the two logits',
  },
  steps: { flags: '--steps <N>', about: 'steps of the attack (default: 40)', read: count },
  restarts: {
    flags: '--restarts <N>',
    about: 'starts per image (default: 1); those of pgd are random, interval and fgsm begin at the image',
    read: count,
  },
  seed: { flags: '--seed <N>', about: 'of the random starts (default: 0)', read: integer },
  complete: {
    flags: '--complete <S>',
    about:
      'decide each image that the method leaves open by branch and bound, for up to S seconds (default: they stay open)',
    read: positive,
  },
  rounding: roundingOption,
  semantics: semanticsOption,
  certificate: {
    flags: '--certificate <FILE>',
    about: 'write a certificate of the verified images, which check proves again; rounds outward',
    read: text,
  },
  proof: {
    flags: '--proof <DIR>',
    about:
      'write a proof of each verified image into this folder, which check replays in exact arithmetic; the model is an ONNX file; rounds outward',
    read: text,
  },
  perImage: {
    flags: '--per-image <FILE>',
    about: 'write a table, CSV, with label, verdicts and least margin bound of each image',
    read: text,
  },
  output: {
    flags: '--output <DIR>',
    about: 'write a record of each image into this folder as it is decided; a call that is repeated goes on there',
    read: text,
  },
  shard: {
    flags: '--shard <I/N>',
    about:
      'only every Nth image, from the Ith on; I-J/N: the shards from I to J, which share their start; merge puts the records of all shards together (needs --output)',
    read: shards,
  },
}

interface Asked {
  readonly attack: AttackName | undefined
  readonly targetLoss: TargetLoss | undefined
  readonly targeted: boolean
  readonly steps: number | undefined
  readonly restarts: number | undefined
  readonly seed: number | undefined
}

const attackOf = (asked: Asked): E.Either<MixtrainError, AttackOptions | undefined> => {
  const { attack, targetLoss, targeted, steps, restarts, seed } = asked
  if (attack === undefined)
    return !targeted && [steps, restarts, seed, targetLoss].every((x) => x === undefined)
      ? E.right(undefined)
      : E.left(usage('--steps, --restarts, --seed, --target-loss and --targeted are about an attack: add --attack pgd'))
  return attack === 'ensemble' && targetLoss !== undefined
    ? E.left(usage('the ensemble attacks with both losses: leave --target-loss out'))
    : attack === 'fgsm' && [steps, restarts].some((x) => x !== undefined && x !== 1)
      ? E.left(usage('fgsm is one step from the image: leave --steps and --restarts out'))
      : E.right({
          ...pgdAttack({ steps: steps ?? 40, restarts: restarts ?? 1, seed: seed ?? 0 }),
          ...(attack === 'fgsm' ? { steps: 1, stepSize: 1 } : {}),
          name: attack,
          loss: targetLoss ?? 'ce',
          targeted,
        })
}

/** Whether a certificate was asked for that cannot be. */
const certifiable = (
  {
    certificate,
    complete,
    proof,
  }: {
    readonly certificate: string | undefined
    readonly complete: number | undefined
    readonly proof: string | undefined
  },
  rounding: Rounding,
  norm: Norm,
  method: MethodName,
): E.Either<MixtrainError, void> => {
  if (proof !== undefined && rounding === 'none')
    return E.left(usage('a proof is found where bounds round outward: leave --rounding none out'))
  if (proof !== undefined && norm !== 'linf')
    return E.left(usage(`a proof is about the linf ball: leave --norm ${norm} out`))
  if (certificate === undefined) return E.right(undefined)
  if (rounding === 'none') return E.left(usage('a certificate rounds outward: leave --rounding none out'))
  if (norm !== 'linf') return E.left(usage(`a certificate is about the linf ball: leave --norm ${norm} out`))
  if (complete !== undefined)
    return E.left(usage('the splits of branch and bound are not in a certificate: leave --complete out'))
  return method === 'alpha-crown'
    ? E.left(usage('the slopes of alpha-crown are not in a certificate, so that check could not find them: use crown'))
    : E.right(undefined)
}

/** Whether the options about records go together. */
const recordable = ({
  output,
  shard,
  certificate,
  perImage,
}: {
  readonly output: string | undefined
  readonly shard: readonly Shard[] | undefined
  readonly perImage: string | undefined
  readonly certificate: string | undefined
}): E.Either<MixtrainError, void> =>
  shard !== undefined && output === undefined
    ? E.left(usage('--shard writes records that are merged later: add --output DIR, the same folder for all shards'))
    : output !== undefined && (certificate !== undefined || perImage !== undefined)
      ? E.left(usage('records are neither certificate nor table: leave --output or the other out'))
      : E.right(undefined)

/** Branch and bound splits boxes, and GPUs round in their own ways: as for `verify`, auto is wasm. */
const completable = ({
  complete,
  norm,
}: {
  readonly complete: number | undefined
  readonly norm: Norm | undefined
}): E.Either<MixtrainError, void> =>
  complete === undefined || norm === undefined || norm === 'linf'
    ? E.right(undefined)
    : E.left(usage(`--complete splits the boxes of the linf ball: leave --norm ${norm} out`))

type Prover = Awaited<ReturnType<typeof imageProver>>

/** Proofs of images are small and many. */
const packedAtOnce: Pack = async (parts) => {
  const all: Uint8Array[] = []
  for await (const part of parts) all.push(part)
  return gzipSync(Buffer.concat(all))
}

const proverOf = async (path: string, bytes: Uint8Array, semantics: Semantics): Promise<Prover> => {
  const prover = await orRefusal(() => imageProver(bytes, semantics, packedAtOnce))
  return 'refused' in prover
    ? raise(
        fileError(path, `${prover.refused}; a proof is about an ONNX file, such as the model.onnx of a run`, '--proof'),
      )
    : prover
}

/** Writes `image-NUMBER.proof.gz` for each verified image as it is found; `close` says how many, and what to say of those without a proof. */
const proofsInto = async (
  folder: string,
  prover: Prover,
  { data, epsilon, method }: { readonly data: Dataset; readonly epsilon: Epsilon; readonly method: () => MethodName },
  shell: Shell,
) => {
  await get(makeDirectory(folder))
  const failed: string[] = []
  const noun = nounOf(data)
  let [count, total] = [0, 0]
  return {
    found: async (i: number, { margins, trees }: VerifiedBy): Promise<void> => {
      const claim = {
        pixels: pixels(data, [i]),
        label: data.labels[i],
        epsilon: epsilon.written,
        range: [`${PIXELS[0]}`, `${PIXELS[1]}`] as const,
      }
      const name = method()
      const bounds = isFollowed(name) ? { method: name, margins } : undefined
      const proof = await orRefusal(() => prover(claim, { bounds, trees }))
      count++
      if ('refused' in proof) failed.push(`${noun} ${i}: ${proof.refused}`)
      else {
        total += proof.length
        await get(writeAtomic(join(folder, `image-${i}.proof.gz`), proof))
      }
    },
    close: (): string | undefined => {
      shell.note(`${count - failed.length} verified ${noun}s are proved in ${folder}, ${total} bytes`)
      return failed.length === 0
        ? undefined
        : `${failed.length} of ${count} verified ${noun}s have no proof (${failed.slice(0, 3).join('; ')})`
    },
  }
}

/** Verdicts by image as CSV; robust is empty where nothing attacked, and the margin is the least bound of z_y - z_j that the method gave. */
const perImageOf = ({ labels, classes }: Dataset, { correct, robust, verified, margins }: Verified): string => {
  const least = (i: number) =>
    margins.subarray(i * (classes - 1), (i + 1) * (classes - 1)).reduce((a, b) => Math.min(a, b))
  const rows = Array.from(correct, (c, i) => [i, labels[i], c, robust?.[i] ?? '', verified[i], least(i)].join(','))
  return `${['image,label,correct,robust,verified,margin', ...rows].join('\n')}\n`
}

/** `mixtrain evaluate`: ACC, ERA and VRA of a model on test images. */
export const evaluateCommand: Command<typeof options, 'MODEL'> = {
  name: 'evaluate',
  summary: 'measure ACC, ERA and VRA of a model',
  description:
    'Measures a model on test images, or rows of a table: ACC, how many it classifies correctly; ERA, how many of those an attack within epsilon does not break; VRA, how many provably keep their label everywhere within epsilon, by the bounds of a method and, with --complete, by branch and bound on what these leave open. For every image verified implies robust implies correct.',
  takes: { MODEL: MODEL_IS },
  options,
  examples: [
    'mixtrain evaluate runs/first',
    'mixtrain evaluate model.onnx --data mnist/ --epsilon 0.3 --method crown --limit 1000',
    'mixtrain evaluate model.safetensors --epsilon 0.02:0.2:10 --attack pgd --limit 500',
    'mixtrain evaluate model.safetensors --epsilon 0.1 --attack pgd --steps 100 --restarts 5 --json',
    'mixtrain evaluate model.onnx --epsilon 0.3 --attack interval --target-loss margin --restarts 3',
    'mixtrain evaluate model.onnx --epsilon 1.5 --norm l2 --method intersect --attack pgd',
    'mixtrain evaluate model.onnx --data mnist/ --epsilon 0.1 --attack pgd --complete 10 --rounding outward',
    'mixtrain evaluate model.onnx --epsilon 8/255 --certificate certificate.json --semantics deployed',
    'mixtrain evaluate model.onnx --data mnist/ --epsilon 0.1 --limit 100 --complete 10 --proof proofs/',
  ],
  run: ({ MODEL }, o, shell) => {
    return pipe(
      TE.Do,
      // The largest radius of a curve says whether all are radii of the norm.
      TE.bind('asked', () => TE.fromEither(ballOf({ epsilon: o.epsilon?.at(-1), norm: o.norm }))),
      TE.chainFirst(() => {
        const { certificate, proof, perImage, output, shard } = o
        return TE.fromEither(sweepable(o.epsilon, { certificate, proof, 'per-image': perImage, output, shard }))
      }),
      TE.bind('method', () => TE.fromEither(boundOf(o))),
      TE.bind('attack', () => TE.fromEither(attackOf(o))),
      TE.bind('rounding', () =>
        TE.fromEither(roundingOf(o, o.certificate === undefined && o.proof === undefined ? 'none' : 'outward')),
      ),
      TE.chainFirst(({ rounding, asked, method }) => TE.fromEither(certifiable(o, rounding, asked.norm, method.name))),
      TE.chainFirst(() => TE.fromEither(completable(o))),
      TE.chainFirst(() => TE.fromEither(recordable(o))),
      TE.bind('path', () => modelFile(MODEL, o.proof === undefined ? 'safetensors' : 'onnx')),
      TE.bind('bytes', ({ path }) => readNamed(path)),
      TE.bind('model', ({ path, bytes }) =>
        pipe(
          unpacked(bytes, path),
          TE.chainEitherK((content) => decodeModel(content, path)),
        ),
      ),
      TE.bind('radius', ({ asked, model, path }) => TE.fromEither(ballFor(asked, model.provenance?.epsilon, path))),
      TE.bind('all', ({ path, model }) => testFor(model, path, o.data)),
      TE.bind('test', ({ path, model, all }) => TE.fromEither(matching(model, path, all.test))),
      // One of the shards says it: the others need not read the training images.
      TE.bind('overlap', ({ path, model, test }) =>
        o.shard !== undefined && o.shard[0].index > 1
          ? TE.right(undefined)
          : overlapNote(model, path, o.limit === undefined ? test : take(o.limit)(test)),
      ),
      TE.chain(({ radius: { ball, note }, method, attack, rounding, path, bytes, model, all, test, overlap }) =>
        withDevice(o)((device) =>
          attempt(() =>
            shell.interruptible(async () => {
              for (const said of [model.note, note, overlap]) if (said !== undefined) shell.note(said)
              const data = o.limit === undefined ? test : take(o.limit)(test)
              const semantics = rounding === 'none' ? 'real' : rounding.outward
              // Shards are put together: all of them bound by the method that their manifests name.
              const cheaper: Falling | undefined =
                o.output === undefined ? fallingBack(method.name, o.memory, shell) : undefined
              const taken = (): MethodName => cheaper?.taken()?.method ?? method.name
              // What the checker does not read is refused before anything is computed.
              const proofs =
                o.proof === undefined
                  ? undefined
                  : await proofsInto(
                      o.proof,
                      await proverOf(path, bytes, semantics),
                      { data, epsilon: ball.epsilon, method: taken },
                      shell,
                    )
              const begun = performance.now()
              const asked = {
                ...model,
                data,
                norm: ball.norm,
                epsilon: ball.epsilon,
                method: method.bound,
                cheaper,
                rounding,
                attack,
                complete: o.complete,
                found: proofs?.found,
                ...(o.batchSize === undefined ? {} : { batchSize: o.batchSize }),
                ...bytesOf(o.memory),
                progress: (done: number, total: number, what: string) => shell.progress(what, done, total),
              }
              if (o.output !== undefined) {
                const parts = o.shard ?? [{ index: 1, of: 1 }]
                const manifest = await manifestOf(
                  { file: path, bytes, source: o.data ?? all.source, data, shard: parts[0] },
                  { ...o, attack, method: method.name, rounding, ...ball },
                  device,
                )
                const manifests = parts.map((shard) => ({ ...manifest, shard }))
                const records = await recorded(o.output, manifests, asked, shell, device.backend)
                shell.clear()
                const report = recordsReport(manifests, o.output, records)
                const where = `${data.name}, shard ${report.shard}`
                const unproved = proofs?.close()
                shell.print(o.json ? json(report) : recordsTable(report, where, nounOf(data)))
                if (unproved !== undefined) raise(usage(unproved))
                return
              }
              const about = (seconds: number) => ({
                model: path,
                count: data.count,
                epsilon: doublesOf(ball.epsilon).nearest,
                norm: ball.norm,
                attack,
                method: taken(),
                complete: o.complete,
                rounding,
                device,
                seconds,
              })
              const epsilons = o.epsilon ?? []
              if (epsilons.length > 1) {
                const curve: Point[] = []
                let last: Verified | undefined
                for (const [i, epsilon] of epsilons.entries()) {
                  const progress = (done: number, total: number) =>
                    shell.progress('evaluating', i * total + done, epsilons.length * total)
                  last = await verify({ ...asked, epsilon, progress })(device.backend)
                  curve.push(pointOf(epsilon, last))
                }
                shell.clear()
                const report = reportOf(about((performance.now() - begun) / 1000), last as Verified)
                shell.print(o.json ? json(sweepReport(report, curve)) : sweepTable(curve, report, data))
                return
              }
              const verified = await verify(asked)(device.backend)
              shell.clear()
              if (o.perImage !== undefined) {
                await get(writeAtomic(o.perImage, new TextEncoder().encode(perImageOf(data, verified))))
                shell.note(`the verdict of each ${nounOf(data)} is in ${o.perImage}`)
              }
              const seconds = (performance.now() - begun) / 1000
              const report = reportOf(about(seconds), verified)
              for (const line of gradientNotes(verified.withoutGradient, nounOf(data))) shell.note(line)
              if (verified.refuted > 0)
                shell.note(
                  `${verified.refuted} ${nounOf(data)}s were verified and yet broken by the attack; they count as not verified`,
                )
              if (o.certificate !== undefined && rounding !== 'none') {
                const certificate: Certificate = {
                  version: VERSION,
                  model: { file: path, sha256: await sha256(bytes) },
                  data: { source: o.data ?? all.source, sha256: await hashOf(test) },
                  epsilon: ball.epsilon.written,
                  box: PIXELS,
                  method: taken(),
                  rounding: 'outward',
                  semantics: rounding.outward,
                  ending: model.ending,
                  count: data.count,
                  images: claimsOf(verified.margins, data.labels, data.classes, verified.verified),
                }
                const written = new TextEncoder().encode(await encodeCertificate(certificate))
                if (written.length > MAX_BYTES)
                  raise(
                    usage(
                      `the certificate would be longer than ${MAX_BYTES} bytes: certify fewer ${nounOf(data)}s by --limit`,
                    ),
                  )
                await get(writeAtomic(o.certificate, written))
                shell.note(`${certificate.images.length} verified ${nounOf(data)}s are certified in ${o.certificate}`)
              }
              const unproved = proofs?.close()
              shell.print(o.json ? json(report) : reportTable(report, data, device))
              if (unproved !== undefined) raise(usage(unproved))
            }),
          ),
        ),
      ),
    )
  },
}
