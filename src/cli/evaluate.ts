import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type MixtrainError, usage } from '../core/error.ts'
import { take } from '../data/dataset.ts'
import { methods } from '../robust/bounds.ts'
import type { AttackOptions } from '../robust/metric.ts'
import { pgdAttack } from '../train/recipe.ts'
import { verify } from '../train/verify.ts'
import type { Command } from './command.ts'
import { bytesOf, loadData, loadModel, matching, sourceOf, withDevice } from './open.ts'
import { count, dataOption, integer, methodOption, name, radius, roundingOption } from './options.ts'
import { json, reportOf, reportTable } from './report.ts'
import { attempt } from './shell.ts'

const options = {
  data: dataOption,
  epsilon: { flags: '--epsilon <E>', about: 'l-inf radius in pixel units, 0.1 or 2/255 (required)', read: radius },
  method: methodOption,
  limit: { flags: '--limit <N>', about: 'only the first N test images (default: all)', read: count },
  batchSize: {
    flags: '--batch-size <N>',
    about: 'images at once, fewer if the memory is too small (default: 100)',
    read: count,
  },
  attack: {
    flags: '--attack <pgd>',
    about: 'measure ERA under this attack (default: none, ERA is not measured)',
    read: (value: string) =>
      value === 'interval'
        ? E.left('the interval attack is not part of this version; pgd is')
        : name('attack', ['pgd'] as const)(value),
  },
  steps: { flags: '--steps <N>', about: 'steps of the attack (default: 40)', read: count },
  restarts: { flags: '--restarts <N>', about: 'random starts per image (default: 1)', read: count },
  seed: { flags: '--seed <N>', about: 'of the random starts (default: 0)', read: integer },
  rounding: roundingOption,
}

interface Asked {
  readonly attack: 'pgd' | undefined
  readonly steps: number | undefined
  readonly restarts: number | undefined
  readonly seed: number | undefined
}

const attackOf = ({ attack, steps, restarts, seed }: Asked): E.Either<MixtrainError, AttackOptions | undefined> =>
  attack === undefined
    ? [steps, restarts, seed].every((x) => x === undefined)
      ? E.right(undefined)
      : E.left(usage('--steps, --restarts and --seed are about an attack: add --attack pgd'))
    : E.right(pgdAttack({ steps: steps ?? 40, restarts: restarts ?? 1, seed: seed ?? 0 }))

/** `mixtrain evaluate`: ACC, ERA and VRA of a model on test images. */
export const evaluateCommand: Command<typeof options, 'MODEL'> = {
  name: 'evaluate',
  summary: 'measure ACC, ERA and VRA of a model',
  description:
    'Measures a model on test images: ACC, how many it classifies correctly; ERA, how many of those an attack within epsilon does not break; VRA, how many provably keep their label everywhere within epsilon. For every image verified implies robust implies correct.',
  takes: { MODEL: 'model.safetensors of a run, or an ONNX file' },
  options,
  examples: [
    'mixtrain evaluate runs/first/model.safetensors --epsilon 0.1',
    'mixtrain evaluate model.onnx --data mnist/ --epsilon 0.3 --method crown --limit 1000',
    'mixtrain evaluate model.safetensors --epsilon 0.1 --attack pgd --steps 100 --restarts 5 --json',
  ],
  run: ({ MODEL }, o, shell) => {
    const { epsilon, method = 'symbolic' } = o
    if (epsilon === undefined) return TE.left(usage('evaluate needs --epsilon, a radius in pixel units such as 0.1'))
    return pipe(
      TE.Do,
      TE.bind('attack', () => TE.fromEither(attackOf(o))),
      TE.bind('model', () => loadModel(MODEL)),
      TE.bind('all', () => loadData(sourceOf(o.data))),
      TE.bind('test', ({ model, all }) => TE.fromEither(matching(model, MODEL, all.test))),
      TE.chain(({ attack, model, test }) =>
        withDevice(o)((device) =>
          attempt(() =>
            shell.interruptible(async () => {
              const data = o.limit === undefined ? test : take(o.limit)(test)
              const begun = performance.now()
              const verified = await verify({
                ...model,
                data,
                epsilon,
                method: methods[method],
                attack,
                ...(o.batchSize === undefined ? {} : { batchSize: o.batchSize }),
                ...bytesOf(o.memory),
                progress: (done, total) => shell.progress('evaluating', done, total),
              })(device.backend)
              shell.clear()
              const seconds = (performance.now() - begun) / 1000
              const report = reportOf(
                { model: MODEL, count: data.count, epsilon, attack, method, device, seconds },
                verified,
              )
              if (verified.refuted > 0)
                shell.note(
                  `${verified.refuted} images were verified and yet broken by the attack; they count as not verified`,
                )
              shell.print(o.json ? json(report) : reportTable(report, `${data.name}, test images`, device))
            }),
          ),
        ),
      ),
    )
  },
}
