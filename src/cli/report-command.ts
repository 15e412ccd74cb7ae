import { stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import process from 'node:process'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { Device } from '../backend/device.ts'
import { fileError, type MixtrainError, raise, usage } from '../core/error.ts'
import { take } from '../data/dataset.ts'
import { exists, files, makeDirectory, writeAtomic } from '../data/files.ts'
import { type MethodName, methods } from '../robust/bounds.ts'
import { logged } from '../train/checkpoint.ts'
import type { EpochRecord } from '../train/fit.ts'
import { pgdAttack } from '../train/recipe.ts'
import type { Command } from './command.ts'
import { measured } from './html/measure.ts'
import { pageOf, type ReportedRun } from './html/page.ts'
import { bytesOf, loadModel, matching, testFor, withDevice } from './open.ts'
import { count, text } from './options.ts'
import { FILES, stored } from './run-folder.ts'
import { attempt, get, type Shell } from './shell.ts'
import { type Moment, tfevents } from './tfevents.ts'
import { VERSION } from './version.ts'

const options = {
  output: {
    flags: '--output <FILE>',
    about: 'the page (default: report.html, or none where logs are asked for)',
    read: text,
  },
  limit: {
    flags: '--limit <N>',
    about: 'measure each model on the first N test images (default: 200)',
    read: count,
  },
  steps: { flags: '--steps <N>', about: 'steps of the attack, PGD (default: 40)', read: count },
  pictures: { flags: '--pictures <N>', about: 'images shown of each run (default: 12)', read: count },
  csv: { flags: '--csv <FILE>', about: 'write the logs of all runs as one table', read: text },
  tfevents: {
    flags: '--tfevents <DIR>',
    about: 'write the logs for TensorBoard: an event file in DIR/RUN for each run',
    read: text,
  },
}
type Given = Parameters<Command<typeof options, 'RUN'>['run']>[1]

/** What a finished run says of itself, as far as it is needed here. */
interface Final {
  readonly acc: number
  readonly era: number | null
  readonly vra: number
  readonly count: number
  readonly method: MethodName
}

const finalOf = (path: string, bytes: Uint8Array): E.Either<MixtrainError, Final> =>
  pipe(
    E.tryCatch(
      () => JSON.parse(new TextDecoder().decode(bytes)) as Partial<Final>,
      () => fileError(path, 'expected the report of a run as JSON'),
    ),
    E.filterOrElse(
      (r): r is Final =>
        [r.acc, r.vra, r.count].every((v) => typeof v === 'number') &&
        (r.era === null || typeof r.era === 'number') &&
        Object.hasOwn(methods, String(r.method)),
      () => fileError(path, 'expected acc, era, vra, count and method, as train writes them'),
    ),
  )

/** A run as its folder has it, and where its model is, if it has one. */
interface Opened {
  readonly run: Omit<ReportedRun, 'measured'>
  readonly data: string
  readonly epsilon: number
  readonly model: string | undefined
  readonly method: MethodName | undefined
}

/** Reads what the folder of a run says of it. */
const opened = async (folder: string): Promise<Opened> => {
  if (!(await get(exists(folder)))) return raise(fileError(folder, 'there is no such folder'))
  if (!(await get(exists(join(folder, FILES.checkpoint)))))
    return raise(fileError(folder, `there is no run in this folder: no ${FILES.checkpoint}`))
  const { settings, history } = await get(stored(folder))
  const name = basename(resolve(folder))
  const path = join(folder, FILES.report)
  const final = (await get(exists(path)))
    ? await get(
        pipe(
          files.read(path),
          TE.chainEitherK((bytes) => finalOf(path, bytes)),
        ),
      )
    : null
  const file = (await get(exists(join(folder, FILES.model)))) ? FILES.model : FILES.onnx
  const model = (await get(exists(join(folder, file)))) ? join(folder, file) : undefined
  return {
    run: { name, history, settings: { ...settings }, final },
    ...{ data: settings.data, epsilon: settings.epsilon, model, method: final?.method },
  }
}

/** A run, measured where it has a model. */
const reported = async (
  { run, data: source, epsilon, model: path, method }: Opened,
  o: Given,
  shell: Shell,
  device: Device,
): Promise<ReportedRun> => {
  if (path === undefined || method === undefined) return { ...run, measured: undefined }
  const model = await get(loadModel(path))
  const all = await get(testFor(model, path, source))
  const data = take(o.limit ?? 200)(await get(TE.fromEither(matching(model, path, all.test))))
  const result = await measured({
    ...{ model, data, epsilon, method, pictures: o.pictures ?? 12 },
    attack: pgdAttack({ steps: o.steps ?? 40, restarts: 1, seed: 0 }),
    ...bytesOf(o.memory),
    progress: (done, total) => shell.progress(`measuring ${run.name}`, done, total),
  })(device.backend)
  shell.clear()
  return { ...run, measured: result }
}

/** Logs of runs as CSV, a line for each epoch. */
const csvOf = (runs: readonly Pick<ReportedRun, 'name' | 'history'>[]): string => {
  const terms = [...new Set(runs.flatMap(({ history }) => history.flatMap((r) => Object.keys(r.terms))))].sort()
  const columns = ['epoch', 'seconds', 'loss', 'balance', 'epsilon', 'acc', 'era', 'vra'] as const
  const quoted = (cell: string) => (/[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell)
  const row = (name: string, r: EpochRecord) => [
    quoted(name),
    ...columns.map((c) => String(logged(r)[c] ?? '')),
    ...terms.map((t) => String(r.terms[t] ?? '')),
  ]
  const head = ['run', ...columns, ...terms.map((t) => `term.${t}`)].map(quoted)
  return `${[head, ...runs.flatMap(({ name, history }) => history.map((r) => row(name, r)))].map((r) => r.join(',')).join('\n')}\n`
}

/** The name that an event file must contain; always the same, so that a file that is written again takes the place of the former. */
const EVENTS = 'events.out.tfevents.mixtrain'

/**
 * A log as TensorBoard takes it. A log has durations and no times of day: they are counted back from when training ended, so that its relative axis is
 * training time. What the finished run measured on its test images stands at the last epoch.
 */
export const momentsOf = (
  { history, final }: Pick<ReportedRun, 'history' | 'final'>,
  ended: number,
): readonly Moment[] => {
  const total = history.reduce((sum, { seconds }) => sum + seconds, 0)
  let elapsed = 0
  return history.map((r, i) => {
    elapsed += r.seconds
    const last = i === history.length - 1 && final !== null
    return {
      step: r.epoch + 1,
      time: ended - total + elapsed,
      scalars: {
        'held-out/ACC': r.acc,
        'held-out/ERA': r.era,
        'held-out/VRA': r.vra,
        'loss/whole': r.loss,
        ...Object.fromEntries(Object.entries(r.terms).map(([name, v]) => [`loss/${name}`, v])),
        'schedule/balance': r.balance,
        'schedule/epsilon': r.epsilon,
        ...(last ? { 'test/ACC': final.acc, 'test/ERA': final.era, 'test/VRA': final.vra } : {}),
      },
    }
  })
}

const writeEvents = async (folder: string, run: Omit<ReportedRun, 'measured'>, source: string): Promise<void> => {
  const { mtimeMs } = await stat(join(source, FILES.checkpoint))
  await get(makeDirectory(join(folder, run.name)))
  await get(writeAtomic(join(folder, run.name, EVENTS), tfevents(momentsOf(run, mtimeMs / 1000))))
}

/** Writes the logs that are asked for, and says where they are. */
const exported = async (runs: readonly Opened[], folders: readonly string[], o: Given): Promise<readonly string[]> => {
  const logs = runs.map(({ run }) => run)
  if (o.csv !== undefined) await get(writeAtomic(o.csv, new TextEncoder().encode(csvOf(logs))))
  if (o.tfevents !== undefined) for (const [i, run] of logs.entries()) await writeEvents(o.tfevents, run, folders[i])
  return [o.csv, o.tfevents].filter((path) => path !== undefined)
}

/** Measures the models and writes the page. */
const writePage = async (
  found: readonly Opened[],
  output: string,
  o: Given,
  shell: Shell,
  device: Device,
): Promise<void> => {
  const runs: ReportedRun[] = []
  for (const one of found) runs.push(await reported(one, o, shell, device))
  const made = `mixtrain ${VERSION}, ${device.backend.description}, Node ${process.version}, ${process.platform} ${process.arch}, ${new Date().toISOString().slice(0, 16).replace('T', ' ')} UTC`
  await get(writeAtomic(output, new TextEncoder().encode(pageOf(runs, made))))
  shell.print(
    o.json
      ? JSON.stringify({ output, runs: runs.map(({ name, measured: m }) => ({ name, measured: m !== undefined })) })
      : `${runs.length === 1 ? 'the run is' : `${runs.length} runs are`} in ${output}`,
  )
}

/** `mixtrain report`: runs as one page. */
export const reportCommand: Command<typeof options, 'RUN'> = {
  name: 'report',
  summary: 'show runs as one HTML page',
  description:
    'Writes one HTML page that needs nothing else: curves of all runs over each other, VRA over epsilon, and for each run ACC, ERA and VRA by class, the confusion under attack, images that the attack broke, images nearest to the border, settings and environment. Models are measured anew, on the first test images of the data that they were trained with. With --csv or --tfevents and without --output only the logs are written, at once.',
  takes: { RUN: 'folders of runs' },
  rest: true,
  options,
  examples: [
    'mixtrain report runs/first',
    'mixtrain report runs/* --limit 500 --output compared.html',
    'mixtrain report runs/first runs/second --csv logs.csv',
    'mixtrain report runs/* --tfevents tensorboard/',
  ],
  run: ({ RUN }, o, shell, more) => {
    const folders = [RUN, ...more]
    const names = folders.map((f) => basename(resolve(f)))
    if (new Set(names).size < names.length) return TE.left(usage(`two runs have the same name: ${names.join(', ')}`))
    // Logs are there already: alone they need neither a device nor a measurement.
    const page = o.output ?? (o.csv === undefined && o.tfevents === undefined ? 'report.html' : undefined)
    return pipe(
      attempt(async () => {
        const runs: Opened[] = []
        for (const folder of folders) runs.push(await opened(folder))
        return { runs, written: await exported(runs, folders, o) }
      }),
      TE.chain(({ runs, written }) =>
        page === undefined
          ? TE.fromIO(() =>
              shell.print(o.json ? JSON.stringify({ logs: written }) : `the logs are in ${written.join(' and ')}`),
            )
          : withDevice(o)((device) =>
              attempt(() => shell.interruptible(() => writePage(runs, page, o, shell, device))),
            ),
      ),
    )
  },
}
