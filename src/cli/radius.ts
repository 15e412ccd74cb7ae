import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { nounOf, take } from '../data/dataset.ts'
import { writeAtomic } from '../data/files.ts'
import { certifiedRadii } from '../train/radius.ts'
import type { Command } from './command.ts'
import { bytesOf, loadModel, matching, modelFile, testFor, withDevice } from './open.ts'
import {
  alphaOption,
  boundOf,
  count,
  dataOption,
  MODEL_IS,
  methodOption,
  normOption,
  positive,
  roundingOf,
  roundingOption,
  semanticsOption,
  text,
} from './options.ts'
import { json, percent, roundingRecord, table } from './report.ts'
import { attempt, get } from './shell.ts'

const options = {
  data: dataOption,
  norm: normOption,
  method: methodOption,
  alphaSteps: alphaOption,
  limit: { flags: '--limit <N>', about: 'only the first N test images (default: all)', read: count },
  most: { flags: '--most <E>', about: 'the radius that is tried first (default: 1)', read: positive },
  steps: { flags: '--steps <N>', about: 'halvings: radii are known up to most / 2^N (default: 12)', read: count },
  rounding: roundingOption,
  semantics: semanticsOption,
  csv: { flags: '--csv <FILE>', about: 'write number, label and radius of each image', read: text },
}

/** The value below which a share of sorted numbers lies. */
const quantile = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]

/** `mixtrain radius`: the largest certified radius of each image. */
export const radiusCommand: Command<typeof options, 'MODEL'> = {
  name: 'radius',
  summary: 'find the largest certified radius of each image',
  description:
    'Finds by bisection, for each test image, the largest radius within which it provably keeps its label by the bounds of a method. The radius of an image is itself certified; one that lies above it may be, too. Images that the model classifies wrongly have none.',
  takes: { MODEL: MODEL_IS },
  options,
  examples: [
    'mixtrain radius runs/first --limit 200',
    'mixtrain radius model.onnx --data mnist/ --method crown --csv radii.csv',
    'mixtrain radius model.onnx --norm l2 --most 4 --json',
  ],
  run: ({ MODEL }, o, shell) =>
    pipe(
      TE.Do,
      TE.bind('method', () => TE.fromEither(boundOf(o))),
      TE.bind('rounding', () => TE.fromEither(roundingOf(o))),
      TE.bind('path', () => modelFile(MODEL)),
      TE.bind('model', ({ path }) => loadModel(path)),
      TE.bind('all', ({ path, model }) => testFor(model, path, o.data)),
      TE.bind('test', ({ path, model, all }) => TE.fromEither(matching(model, path, all.test))),
      TE.chain(({ method, rounding, path, model, test }) =>
        withDevice(o)(({ backend }) =>
          attempt(() =>
            shell.interruptible(async () => {
              if (model.note !== undefined) shell.note(model.note)
              const data = o.limit === undefined ? test : take(o.limit)(test)
              const { norm = 'linf', most = 1, steps = 12 } = o
              const radius = await certifiedRadii({
                ...model,
                ...{ data, norm, most, steps, rounding, method: method.bound },
                ...bytesOf(o.memory),
                progress: (done, total) => shell.progress('bisecting', done, total),
              })(backend)
              shell.clear()
              if (o.csv !== undefined) {
                const lines = radius.map((r, i) => `${i},${data.labels[i]},${r ?? ''}`)
                await get(
                  writeAtomic(o.csv, new TextEncoder().encode(`${['image,label,radius', ...lines].join('\n')}\n`)),
                )
                shell.note(`the radius of each ${nounOf(data)} is in ${o.csv}`)
              }
              const right = radius.filter((r) => r !== null).sort((a, b) => a - b)
              const about = { model: path, count: data.count, method: method.name, norm, most, steps }
              const record = { ...about, ...roundingRecord(rounding), device: backend.name, radius }
              const summary = [0.9, 0.75, 0.5, 0.25, 0.1].map((share) => [
                `${100 * share} % of these within at least`,
                right.length === 0 ? '-' : quantile(right, 1 - share).toPrecision(4),
              ])
              shell.print(
                o.json
                  ? json(record)
                  : table([
                      [`${nounOf(data)}s`, `${data.count} of ${data.name}, test ${nounOf(data)}s`],
                      ['classified correctly', percent(right.length / data.count)],
                      ...summary,
                      ['bounds', `${method.name}, ${norm}, rounding ${record.rounding}`],
                    ]),
              )
            }),
          ),
        ),
      ),
    ),
}
