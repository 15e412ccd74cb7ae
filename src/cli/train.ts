import { join, resolve } from 'node:path'
import process from 'node:process'
import * as E from 'fp-ts/lib/Either.js'
import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { type Device, failureOf, successor } from '../backend/device.ts'
import { onHost } from '../cluster/images.ts'
import { verifyOver } from '../cluster/spread.ts'
import { type MixtrainError, raise, show, usage } from '../core/error.ts'
import type { Data } from '../data/dataset.ts'
import { removeEmpty } from '../data/files.ts'
import { encodeModel, encodeModelOnnx, isDescribed, type SavedModel } from '../format/model.ts'
import type { Logits } from '../loss/loss.ts'
import { objectives } from '../loss/objective.ts'
import { type Network, networks } from '../nn/networks.ts'
import { methods } from '../robust/bounds.ts'
import { divergedAt, restore, type Settings, type StoredRun } from '../train/checkpoint.ts'
import { type Checkpoint, type Failure, fit } from '../train/fit.ts'
import { completed, taskOf } from '../train/quick.ts'
import { REPORT_ATTACK } from '../train/recipe.ts'
import { evaluatedOf } from '../train/step.ts'
import { verify } from '../train/verify.ts'
import type { Command } from './command.ts'
import { drawCurves } from './curves.ts'
import { bytesOf, loadData, withDevice } from './open.ts'
import type { common, Values } from './options.ts'
import { agreed, costLine, type Job, withJob } from './ranks.ts'
import { epochLine, json, reportOf, reportTable } from './report.ts'
import {
  claim,
  FILES,
  fresh,
  heal,
  keep,
  keepPart,
  type RunFolder,
  reclaim,
  shown,
  stored,
  unaltered,
  write,
} from './run-folder.ts'
import { attempt, get, Interrupted, type Shell, using } from './shell.ts'
import {
  asked,
  begun,
  byName,
  continued,
  cuttable,
  initialOf,
  limited,
  options,
  perEpochOf,
  recipeOf,
  settingsOn,
  stepsOf,
  takesShape,
  teacherOf,
  withData,
} from './train-settings.ts'

type Asked = Values<typeof options & typeof common>

interface Run {
  readonly settings: Settings
  readonly network: Network
  readonly data: Data
  readonly folder: RunFolder
  readonly device: Device
  readonly resume: Checkpoint | undefined
  readonly teacher: Logits | undefined
  readonly memory: number | undefined
  readonly json: boolean
  /** The job of several processes that this one is of. */
  readonly job: Job | undefined
}

/** What is left of the run, epoch by epoch. */
const epochsOf = (
  { settings, network, data, device, resume, memory, teacher, job }: Run,
  failed: (f: Failure) => Promise<void>,
  shell: Shell,
) => {
  const { numbers, k: _, init: __, ...planned } = recipeOf(settings, data, teacher)
  const perEpoch = perEpochOf(data, settings)
  return fit(
    completed({
      data,
      network,
      epsilon: settings.epsilon,
      seed: settings.seed,
      method: methods[numbers.method],
      ...planned,
      ...bytesOf(memory),
      resume,
      microBatches: settings.microBatches,
      ranks: job?.team,
      progress: ({ phase, epoch, done, total }) =>
        shell.progress(
          `epoch ${epoch + 1}/${settings.epochs} ${phase}`,
          done,
          total,
          // Evaluations are part of the time that each epoch takes.
          { done: epoch * perEpoch + (phase === 'training' ? done : perEpoch), total: settings.epochs * perEpoch },
        ),
      failed,
    }),
  )(device.backend)
}

/** The model that a run came to. */
const modelOf = ({ settings, network, data }: Run, { state }: Checkpoint): SavedModel => {
  const { epsilon, loss, seed } = settings
  // Fast math is what depends on the engine, and a GPU is one.
  const onGpu = settings.device === 'webgpu' || (settings.moved ?? []).some((m) => m.device === 'webgpu' && m.steps > 0)
  const arithmetic = onGpu ? 'fast-math' : settings.arithmetic
  return {
    network,
    parameters: evaluatedOf(recipeOf(settings, data).optimizer, state),
    provenance: {
      ...{ epsilon, loss, seed, arithmetic, microBatches: settings.microBatches },
      data: { source: settings.data, images: data.train.count },
    },
  }
}

/** Judges the test images, by all ranks of a job. */
const judged = ({ settings, data, device, memory, job }: Run, model: SavedModel, shell: Shell) => {
  const asked = {
    ...model,
    data: data.test,
    epsilon: settings.epsilon,
    method: methods[recipeOf(settings, data).numbers.method],
    attack: REPORT_ATTACK,
    ...bytesOf(memory),
    progress: (done: number, total: number) => shell.progress('evaluating on test images', done, total),
  }
  return job === undefined ? verify(asked)(device.backend) : verifyOver(job.team, asked)(device.backend)
}

/** Writes what a finished run leaves: the model, its report on the test images, its curves. */
const conclude = async (run: Run, last: Checkpoint, shell: Shell): Promise<void> => {
  const { settings, network, data, folder, device } = run
  const { history } = last
  const { epsilon } = settings
  const { method } = recipeOf(settings, data).numbers
  const model = modelOf(run, last)
  const save = write(folder.path)
  if (isDescribed(network)) await get(save(FILES.model, encodeModel(model)))
  else shell.note(`There is no ${FILES.model}: the network comes from ONNX and has no description of its own`)
  const onnx = encodeModelOnnx(model)
  if (E.isRight(onnx)) await get(save(FILES.onnx, onnx.right))
  else shell.note(`There is no ${FILES.onnx}: ${show(onnx.left)}`)
  const start = performance.now()
  const verified = await judged(run, model, shell)
  shell.clear()
  const seconds = (performance.now() - start) / 1000
  const report = reportOf(
    {
      model: join(folder.path, isDescribed(network) ? FILES.model : FILES.onnx),
      count: data.test.count,
      epsilon,
      attack: REPORT_ATTACK,
      method,
      device,
      seconds,
    },
    verified,
  )
  await get(save(FILES.report, `${json({ ...report, settings })}\n`))
  await get(save(FILES.curves, drawCurves({ history, settings })))
  shell.print(
    run.json ? json({ ...report, settings, output: folder.path }) : reportTable(report, data.test, device, folder.path),
  )
}

/** `conclude`, on the device that takes over if this one fails. */
const concludeSomewhere = async (run: Run, last: Checkpoint, shell: Shell): Promise<void> => {
  const { backend } = run.device
  try {
    await conclude(run, last, shell)
  } catch (cause) {
    const error = failureOf(cause)
    const to = error && (await successor(backend))
    if (error === undefined || to === undefined) throw cause
    shell.clear()
    shell.note(`${show(error)}\nThe test images are evaluated on ${to.description}.`)
    await conclude({ ...run, device: { backend: to, reason: `${backend.name} failed after training` } }, last, shell)
  }
}

/** Raises a usage error for weights that are no numbers any more: further epochs would train nothing, and the last one that did is kept. */
const expectFinite = ({ state, history }: Checkpoint, { epochs, lr }: Settings): void => {
  const tensor = divergedAt(state)
  if (tensor !== undefined)
    raise(
      usage(
        `the training diverged in epoch ${history.length} of ${epochs}: ${tensor} holds NaN or infinity; the learning rate ${lr} is too high, or the loss has no bound here: begin anew with a smaller --lr`,
      ),
    )
}

/**
 * Trains, keeping every epoch, and concludes; whatever stops it, the user is told how to go on. When a GPU fails, the run goes on where
 * the device says that it may; otherwise what there is is kept within the epoch, and the run stops.
 */
const execute = async (begun: Run, shell: Shell): Promise<void> => {
  const { folder, network, settings, resume } = begun
  const say = begun.json ? shell.note : shell.print
  let run = begun
  let last = resume
  const failed = async ({ error, from, to, steps, kept, checkpoint }: Failure): Promise<void> => {
    shell.clear()
    if (to === undefined) {
      await get(keepPart(folder.path, network, run.settings)(checkpoint))
      last = checkpoint
      return
    }
    const device: Device = { backend: to, reason: `${from.name} failed after ${steps} steps` }
    run = { ...run, device, settings: settingsOn(run.settings, device, { steps: kept, reason: show(error) }) }
    const repeated = steps === kept ? '' : `; ${steps - kept} of them are repeated`
    shell.note(`${show(error)}\nTraining goes on after these ${steps} steps on ${to.description}${repeated}.`)
  }
  try {
    if (begun.job !== undefined && !begun.job.writes) {
      for await (const { checkpoint } of epochsOf(run, failed, shell)) {
        expectFinite(checkpoint, settings)
        last = checkpoint
      }
      if (last !== undefined) await judged(run, modelOf(run, last), shell)
      return
    }
    if (resume !== undefined) await get(heal(folder.path, resume.history))
    for await (const epoch of epochsOf(run, failed, shell)) {
      shell.clear()
      expectFinite(epoch.checkpoint, settings)
      await get(keep(folder.path, network, run.settings)(epoch.checkpoint))
      last = epoch.checkpoint
      say(epochLine(epoch, settings.epochs, process.stdout.isTTY ? process.stdout.columns : undefined))
    }
    if (begun.job !== undefined) shell.note(costLine(begun.job.team))
    if (last !== undefined) await concludeSomewhere(run, last, shell)
  } catch (cause) {
    shell.clear()
    if (last === undefined) {
      folder.release()
      if (folder.made) await removeEmpty(folder.path)()
      throw cause instanceof Interrupted
        ? new Interrupted(cause.signal, 'Interrupted before the first epoch was finished: nothing was kept.')
        : cause
    }
    const hint = `go on with: mixtrain train --resume ${shown(folder.path)}`
    if (cause instanceof Interrupted)
      throw new Interrupted(
        cause.signal,
        `Interrupted after ${last.history.length} of ${settings.epochs} epochs; ${hint}`,
      )
    const part = last.within === undefined ? '' : ` and ${last.within.steps} steps`
    const elsewhere = run.settings.device === 'webgpu' ? ', with --device wasm to go on there' : ''
    shell.note(`Stopped after ${last.history.length} of ${settings.epochs} epochs${part}; ${hint}${elsewhere}`)
    throw cause
  }
}

/** Trains in the folder that is opened when all else is ready; `before` is the run that it goes on with. */
const trained = (
  o: Asked,
  open: TE.TaskEither<MixtrainError, RunFolder>,
  shell: Shell,
  job: Job | undefined,
  before?: StoredRun,
): TE.TaskEither<MixtrainError, void> =>
  pipe(
    TE.Do,
    TE.bind('wanted', () =>
      TE.fromEither(
        before === undefined
          ? E.right(begun(asked(o)))
          : continued(o.resume ?? '', before.settings, asked(o), before.history.length),
      ),
    ),
    TE.bind('objective', ({ wanted }) => TE.fromEither(byName('loss', wanted.loss, objectives))),
    TE.bind('data', ({ wanted }) =>
      pipe(
        loadData(wanted.data),
        TE.map((data) => limited(data, wanted)),
      ),
    ),
    TE.bind('taught', ({ wanted, data }) => teacherOf(o.teacher, wanted, data)),
    TE.bind('initial', ({ wanted, data }) => initialOf(o.init, wanted, before !== undefined, data)),
    TE.chainFirst(({ initial }) =>
      initial === undefined || o.network === undefined || o.network === initial.model.network.name
        ? TE.right(undefined)
        : TE.left(usage(`--init has a network, ${initial.model.network.name}: leave --network ${o.network} out`)),
    ),
    TE.bind('settings', ({ wanted, data, taught, initial }) => {
      const began = initial && { init: initial.settings, network: initial.model.network.name }
      return withData(o.resume, { ...wanted, ...(taught && { teacher: taught.settings }), ...began }, data)
    }),
    TE.chainFirst(({ settings }) => TE.fromEither(cuttable(settings))),
    TE.chainFirst(({ settings }) => agreed(job, settings, before)),
    TE.chain(({ data, ...others }) =>
      pipe(
        job === undefined ? TE.right(data) : attempt(() => onHost(job.team, data)),
        TE.map((data) => ({ ...others, data })),
      ),
    ),
    TE.chainFirst(({ settings, data, initial }) =>
      TE.fromEither(initial === undefined ? takesShape(settings, data) : E.right(undefined)),
    ),
    TE.bind('network', ({ settings, data, initial }) =>
      initial === undefined
        ? pipe(
            TE.fromEither(byName('network', settings.network, networks)),
            TE.chain((build) => attempt(async () => build(taskOf(data.train), recipeOf(settings, data).init))),
          )
        : TE.right({ ...initial.model.network, init: () => initial.model.parameters }),
    ),
    TE.bind('checkpoint', ({ settings, data, network }) =>
      TE.fromEither(
        before === undefined ? E.right(undefined) : restore(before, network, recipeOf(settings, data).optimizer.slots),
      ),
    ),
    TE.chain(({ settings, data, network, checkpoint, taught }) =>
      withDevice({
        device: o.device === undefined || o.device === 'auto' ? settings.device : o.device,
        threads: o.threads,
        fastMath: settings.arithmetic === 'fast-math',
        // Ranks compute alike to the last bit, and none goes on elsewhere by itself.
        fallback:
          job !== undefined
            ? false
            : o.device === 'webgpu' || before === undefined
              ? undefined
              : settings.fallback !== undefined,
      })((device) => {
        const moved = checkpoint && {
          steps: stepsOf(checkpoint, data, settings),
          reason: 'resumed on another device',
        }
        const run = {
          settings: settingsOn(settings, device, moved),
          network,
          data,
          device,
          resume: checkpoint,
          teacher: taught?.logits,
          job,
        }
        return using(
          open,
          (folder) =>
            attempt(() =>
              shell.interruptible(() => execute({ ...run, folder, memory: o.memory, json: o.json }, shell)),
            ),
          ({ release }) => release(),
        )
      }),
    ),
  )

/** `mixtrain train`: trains a network and reports how robust it is. */
export const trainCommand: Command<typeof options, never> = {
  name: 'train',
  summary: 'train a verifiably robust network',
  description:
    'Trains a classifier of images to keep its label within an l-inf ball of radius epsilon, by MixTrain (arXiv:1811.02625) unless another loss is named, and measures it on test images. The run folder gets the model (safetensors and ONNX), a log, a report, a chart, and a checkpoint after every epoch.',
  takes: {},
  options,
  examples: [
    'mixtrain train',
    'mixtrain train --limit 500,100 --epochs 2 --output runs/trial',
    'mixtrain train --data mnist/ --network large --epsilon 0.3 --seed 1',
    'mixtrain train --resume runs/trial',
    'mixtrain train --resume runs/trial --epochs 10',
    'mixtrain train --init model.onnx --loss crown-ibp --epochs 5',
    'mixtrain train --config settings.json --seed 2',
    'mpirun -n 4 mixtrain train --batch-size 100 --micro-batches 4',
  ],
  run: (_, o, shell) => {
    const { output, resume } = o
    if (output !== undefined && resume !== undefined && resolve(output) !== resolve(resume))
      return TE.left(usage('a resumed run stays in its folder: leave --output out'))
    return withJob(shell, (job, own) => {
      if (job !== undefined && !job.writes) {
        // The folder is rank 0's.
        const none = TE.right<MixtrainError, RunFolder>({
          path: output ?? resume ?? '',
          made: false,
          release: () => undefined,
        })
        return resume === undefined
          ? trained(o, none, own, job)
          : pipe(
              stored(resume),
              TE.chain((before) => trained(o, none, own, job, before)),
            )
      }
      if (resume === undefined) return trained(o, output === undefined ? fresh(new Date()) : claim(output), own, job)
      return using(
        reclaim(resume),
        (folder) =>
          pipe(
            stored(resume),
            TE.chainFirst(({ history }) => unaltered(resume, history)),
            TE.chain((before) => trained(o, TE.right(folder), own, job, before)),
          ),
        ({ release }) => release(),
      )
    })
  },
}
