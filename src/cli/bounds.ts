import { pipe } from 'fp-ts/lib/function.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { Backend } from '../compile/backend.ts'
import { program } from '../compile/program.ts'
import { openRegion } from '../compile/region.ts'
import { doublesOf, type Epsilon, epsilonFor } from '../core/epsilon.ts'
import { raise, usage } from '../core/error.ts'
import { type Rounding, requireIeee } from '../core/rounding.ts'
import { type Shape, show as showShape } from '../core/shape.ts'
import type { Norm, Tensor } from '../core/tensor.ts'
import { classNameOf, type Dataset, labelsOf, nounOf, pixels } from '../data/dataset.ts'
import type { SavedModel } from '../format/model.ts'
import { input } from '../ops/index.ts'
import { type Bounder, layerBounds, rounded } from '../robust/bounds.ts'
import { type Fallback, firstThatFits } from '../robust/cheaper.ts'
import { ball } from '../robust/perturbation.ts'
import { rivals } from '../robust/specification.ts'
import { DEFAULT_MEMORY, PIXELS } from '../train/fit.ts'
import type { Command } from './command.ts'
import { fallingBack } from './fallback.ts'
import { bytesOf, loadModel, matching, modelFile, testFor, withDevice } from './open.ts'
import {
  alphaOption,
  ballFor,
  ballOf,
  boundOf,
  dataOption,
  epsilonOption,
  indices,
  MODEL_IS,
  methodOption,
  normOption,
  roundingOf,
  roundingOption,
  semanticsOption,
} from './options.ts'
import { json, roundingRecord, table } from './report.ts'
import { attempt } from './shell.ts'

const options = {
  data: dataOption,
  index: { flags: '--index <I,J,...>', about: 'test images, or rows, counted from 0 (required)', read: indices },
  epsilon: epsilonOption,
  norm: normOption,
  method: methodOption,
  alphaSteps: alphaOption,
  layers: { flags: '--layers', about: 'bounds of every layer too' },
  rounding: roundingOption,
  semantics: semanticsOption,
}

/** One row per image. */
interface Bounds {
  readonly label: readonly number[]
  readonly logits: readonly (readonly number[])[]
  readonly lower: readonly (readonly number[])[]
  readonly upper: readonly (readonly number[])[]
  /** Lower bounds of z_y - z_j, j != y ascending. */
  readonly margin: readonly (readonly number[])[]
  /** Of each image, if asked for. */
  readonly layers?: readonly (readonly Layer[])[]
}

/** Bounds of a layer for one image, row-major. */
interface Layer {
  readonly name: string
  readonly shape: Shape
  readonly lower: readonly number[]
  readonly upper: readonly number[]
}

interface Question {
  readonly model: SavedModel
  readonly data: Dataset
  readonly index: readonly number[]
  readonly epsilon: Epsilon
  readonly norm: Norm
  readonly method: Bounder
  readonly cheaper: Fallback
  readonly layers: boolean
  readonly rounding: Rounding
  readonly memory: number
}

/** Bounds the images one by one with one plan: the numbers of an image do not depend on which others are asked for. */
const boundImages =
  ({ model: { network, parameters }, data, index, epsilon, norm, method, cheaper, ...question }: Question) =>
  async (backend: Backend, progress: (done: number) => Promise<void>): Promise<Bounds> => {
    const { layers, rounding, memory } = question
    requireIeee(backend.name, rounding)
    const label = [...labelsOf(data, index)]
    const boundingBy = (method: Bounder) =>
      program(
        { parameters: network.inputs, x: [1, ...network.input], label: [1], epsilon: [] },
        ({ parameters, x, label, epsilon }) => {
          const apply = network.apply(parameters)
          const placeholder: Tensor = input('box', x.shape)
          const [logits, boxes] = [
            apply(placeholder),
            new Map([[placeholder, ball(x, epsilon, PIXELS, norm, rounding)]]),
          ]
          const bounded = rounded(method)(logits, boxes, rounding)
          return {
            value: apply(x),
            logits: bounded.output(),
            margin: bounded.rows(rivals(label, network.classes)).lower,
            layers: layers
              ? Object.fromEntries(
                  layerBounds(method)(logits, boxes, rounding).map(({ name, bounds }) => [name, bounds]),
                )
              : {},
          }
        },
      )
    const bounding = firstThatFits(method, cheaper, (method) => {
      const made = boundingBy(method(1))
      const needed = made.bytes(backend)
      return needed <= memory ? made : raise({ kind: 'memory', needed, budget: memory, what: 'bounding one image' })
    })
    const { region, close } = openRegion(backend)
    try {
      const bound = await bounding.on(region)
      bound.write({ parameters, epsilon: epsilonFor(epsilon, rounding) })
      const images: Awaited<ReturnType<typeof bound>>[] = []
      for (const [i, at] of index.entries()) {
        images.push(await bound({ x: pixels(data, [at]), label: label[i] }))
        await progress(i + 1)
      }
      const layersOf = (found: (typeof images)[number]): readonly Layer[] =>
        Object.entries(found.layers).map(([name, { lower, upper }]) => ({
          name,
          shape: bounding.outputs.layers[name].shape.slice(1),
          lower: [...lower],
          upper: [...upper],
        }))
      return {
        label,
        logits: images.map(({ value }) => [...value]),
        lower: images.map(({ logits }) => [...logits.lower]),
        upper: images.map(({ logits }) => [...logits.upper]),
        margin: images.map(({ margin }) => [...margin]),
        ...(layers ? { layers: images.map(layersOf) } : {}),
      }
    } finally {
      close()
    }
  }

const LAYER_COLUMNS = ['layer', 'shape', 'least lower', 'greatest upper', 'mean width', 'widest', 'contain 0']

/** A row about a layer: how wide its boxes are, and how many of them a ReLU would find unstable. */
const statistics = ({ name, shape, lower, upper }: Layer): readonly string[] => {
  const width = upper.map((u, i) => u - lower[i])
  const most = (xs: readonly number[]) => xs.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
  const straddling = lower.filter((l, i) => l < 0 && upper[i] > 0).length
  return [
    name,
    showShape(shape),
    ...[-most(lower.map((l) => -l)), most(upper), width.reduce((a, b) => a + b, 0) / width.length, most(width)].map(
      (v) => v.toFixed(4),
    ),
    `${straddling} of ${lower.length}`,
  ]
}

const readable = (data: Dataset, index: readonly number[], b: Bounds): string =>
  index
    .map((at, i) => {
      const others = b.logits[i].map((_, j) => j).filter((j) => j !== b.label[i])
      const verified = b.margin[i].every((m) => m > 0 && m < Number.POSITIVE_INFINITY)
      const nameOf = (j: number) => (data.classNames === undefined ? `${j}` : `${j} ${classNameOf(data, j)}`)
      const rows = b.logits[i].map((z, j) => [
        `${nameOf(j)}${j === b.label[i] ? ' (label)' : ''}`,
        ...[b.lower[i][j], z, b.upper[i][j]].map((v) => v.toFixed(4)),
        j === b.label[i] ? '' : b.margin[i][others.indexOf(j)].toFixed(4),
      ])
      const logits = table(rows, ['class', 'lower', 'logit', 'upper', 'margin >='])
      const widths = b.layers === undefined ? '' : `\n${table(b.layers[i].map(statistics), LAYER_COLUMNS)}`
      return `${nounOf(data)} ${at}: ${verified ? 'verified' : 'not verified'}\n${logits}${widths}`
    })
    .join('\n\n')

/** `mixtrain bounds`: bounds of logits and margins over balls round test images. */
export const boundsCommand: Command<typeof options, 'MODEL'> = {
  name: 'bounds',
  summary: 'bound logits and margins of single images',
  description:
    'Bounds the logits of a model, and its margins z_y - z_j for the label y, over the ball of radius epsilon round test images, cut to [0, 1]. An image is verified if every lower bound of a margin is above 0.',
  takes: { MODEL: MODEL_IS },
  options,
  examples: [
    'mixtrain bounds runs/first --index 0',
    'mixtrain bounds model.onnx --data mnist/ --index 0,1,2 --epsilon 2/255 --method crown --json',
    'mixtrain bounds model.onnx --index 0 --epsilon 0.5 --norm l2 --layers',
  ],
  run: ({ MODEL }, o, shell) => {
    const { index, layers } = o
    if (index === undefined) return TE.left(usage('bounds needs --index, numbers of test images such as 0,1,2'))
    return pipe(
      TE.Do,
      TE.bind('asked', () => TE.fromEither(ballOf(o))),
      TE.bind('method', () => TE.fromEither(boundOf(o))),
      TE.bind('rounding', () => TE.fromEither(roundingOf(o))),
      TE.bind('path', () => modelFile(MODEL)),
      TE.bind('model', ({ path }) => loadModel(path)),
      TE.bind('radius', ({ asked, model, path }) => TE.fromEither(ballFor(asked, model.provenance?.epsilon, path))),
      TE.bind('all', ({ path, model }) => testFor(model, path, o.data)),
      TE.bind('data', ({ path, model, all }) => TE.fromEither(matching(model, path, all.test))),
      TE.chain(
        ({
          radius: {
            ball: { epsilon, norm },
            note,
          },
          method,
          rounding,
          path,
          model,
          data,
        }) =>
          withDevice(o)(({ backend }) =>
            attempt(() =>
              shell.interruptible(async () => {
                for (const said of [model.note, note]) if (said !== undefined) shell.note(said)
                const budget = { memory: DEFAULT_MEMORY, ...bytesOf(o.memory) }
                const cheaper = fallingBack(method.name, o.memory, shell)
                const subject = { model, data, index, epsilon, norm, method: method.bound, cheaper }
                const question = { ...subject, layers, rounding, ...budget }
                const bounds = await boundImages(question)(backend, (done) =>
                  shell.progress('bounding', done, index.length),
                )
                shell.clear()
                const round = { epsilon: doublesOf(epsilon).nearest, ...(norm === 'linf' ? {} : { norm }) }
                const about = {
                  model: path,
                  method: cheaper.taken()?.method ?? method.name,
                  ...roundingRecord(rounding),
                  ...round,
                  device: backend.name,
                  index,
                }
                shell.print(
                  o.json
                    ? json({ ...about, ...(data.classNames && { classes: data.classNames }), ...bounds })
                    : readable(data, index, bounds),
                )
              }),
            ),
          ),
      ),
    )
  },
}
