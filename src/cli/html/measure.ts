import type { Backend } from '../../compile/backend.ts'
import { program } from '../../compile/program.ts'
import { openRegion } from '../../compile/region.ts'
import { counted } from '../../core/number.ts'
import { classNameOf, type Dataset, labelsOf, nounOf, pixels } from '../../data/dataset.ts'
import type { SavedModel } from '../../format/model.ts'
import { type MethodName, methods } from '../../robust/bounds.ts'
import { evaluator } from '../../robust/metric.ts'
import { type AttackOptions, search } from '../../robust/search.ts'
import { DEFAULT_MEMORY, imagesOf, PIXELS } from '../../train/fit.ts'
import type { Measured } from './page.ts'
import { bitmap, change, isPicture } from './picture.ts'

export interface MeasureOptions {
  readonly model: SavedModel
  readonly data: Dataset
  readonly epsilon: number
  readonly method: MethodName
  readonly attack: AttackOptions
  /** Pictures of broken images, and of those nearest to the border. */
  readonly pictures: number
  readonly memory?: number
  readonly progress: (done: number, total: number) => void | Promise<void>
}

/** Multiples of epsilon that VRA is measured at. */
const RADII = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2]
const BATCH = 40

/** Measures what a report shows of a model; everything about an image is a function of the model and the image. */
export const measured =
  ({ model, data, epsilon, method, attack, pictures, memory = DEFAULT_MEMORY, progress }: MeasureOptions) =>
  async (backend: Backend): Promise<Measured> => {
    const { network, parameters } = model
    const parametersOf = Object.keys(network.parameters)
    const { count, classes: classCount, shape } = data
    const { region, close } = openRegion(backend)
    const total = RADII.length + 1
    try {
      const judge = await evaluator(region)({
        ...{ network, range: PIXELS, method: methods[method], attack: undefined, batchSize: BATCH, memory },
      })
      const resident = Object.fromEntries(parametersOf.map((k) => [k, region.from(parameters[k])]))
      const images = imagesOf(data)
      const radii: Measured['radii'][number][] = []
      let at = await judge.run(resident, images, epsilon)
      for (const [i, share] of RADII.entries()) {
        const radius = share * epsilon
        const verdicts = share === 1 ? at : await judge.run(resident, images, radius)
        if (share === 1) at = verdicts
        const rate = (xs: Uint8Array) => xs.reduce((n, x) => n + x, 0) / count
        radii.push({
          epsilon: Number(radius.toPrecision(4)),
          acc: rate(verdicts.correct),
          vra: rate(verdicts.verified),
        })
        await progress(i + 1, total)
      }

      const standing = [...at.correct.keys()].filter((i) => at.correct[i] === 1)
      const hunt = await search(region)({ network, range: PIXELS, norm: 'linf', attack, batch: judge.chunk })
      const outcomes = await hunt.run(resident, { ...images, indices: standing }, epsilon)
      await progress(total, total)

      // What the model says of each image, or of what the attack made of it.
      const classified = program({ parameters: network.inputs, x: [1, ...network.input] }, (of) => ({
        logits: network.apply(of.parameters)(of.x),
      }))
      const ask = await classified.on(region)
      ask.write({ parameters: resident })
      const said = async (x: Float32Array): Promise<number> => {
        const { logits } = await ask({ x })
        return Array.from(logits).reduce((best, v, j) => (v > logits[best] ? j : best), 0)
      }
      const labels = labelsOf(data, [...Array(count).keys()])
      const confusion = Array.from({ length: classCount }, () => new Array<number>(classCount).fill(0))
      const classes = Array.from({ length: classCount }, () => ({ count: 0, correct: 0, robust: 0, verified: 0 }))
      const broken: Measured['broken'][number][] = []
      const from = (i: number) => pixels(data, [i])
      for (let i = 0; i < count; i++) {
        const found = outcomes.get(i)?.point
        const becomes = await said(found === undefined ? from(i) : Float32Array.from(found))
        confusion[labels[i]][becomes]++
        const own = classes[labels[i]]
        own.count++
        own.correct += at.correct[i]
        own.robust += Number(at.correct[i] === 1 && found === undefined)
        own.verified += Number(at.verified[i] === 1 && found === undefined)
        if (found !== undefined && isPicture(shape) && broken.length < pictures) {
          const all = [from(i), change(from(i), found, epsilon), found].map((v) => bitmap(v, shape))
          broken.push({ image: i, label: labels[i], becomes, pictures: [all[0], all[1], all[2]] })
        }
      }
      const rows = classCount - 1
      const least = (i: number) =>
        at.margins.subarray(i * rows, (i + 1) * rows).reduce((m, v) => Math.min(m, v), Infinity)
      const nearest = standing
        .map((image) => ({ image, margin: least(image) }))
        .filter(({ margin }) => Number.isFinite(margin))
        .sort((a, b) => Math.abs(a.margin) - Math.abs(b.margin))
        .slice(0, pictures)
        .map(({ image, margin }) => ({
          ...{ image, margin, label: labels[image] },
          picture: isPicture(shape) ? bitmap(from(image), shape) : undefined,
        }))
      const told = `${attack.name}, ${attack.steps} steps, ${counted(attack.restarts, 'start')}, seed ${attack.seed}`
      const names = classes.map((_, i) => classNameOf(data, i))
      return {
        data: data.name,
        noun: nounOf(data),
        count,
        epsilon,
        method,
        attack: told,
        names,
        classes,
        confusion,
        radii,
        nearest,
        broken,
      }
    } finally {
      close()
    }
  }
