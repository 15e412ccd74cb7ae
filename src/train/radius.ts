import type { Backend } from '../compile/backend.ts'
import { program } from '../compile/program.ts'
import { openRegion } from '../compile/region.ts'
import { raise, usage } from '../core/error.ts'
import { type Rounding, requireIeee } from '../core/rounding.ts'
import type { Norm } from '../core/tensor.ts'
import { type Dataset, labelsOf, pixels } from '../data/dataset.ts'
import { correct } from '../nn/criterion.ts'
import type { Named } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { type Bounder, boundsOf, symbolic } from '../robust/bounds.ts'
import { inChunks } from '../robust/metric.ts'
import { ball, type Range } from '../robust/perturbation.ts'
import { rivals } from '../robust/specification.ts'
import { DEFAULT_MEMORY, PIXELS } from './fit.ts'

/** Whose certified radii are looked for, by which method and how finely. */
export interface RadiusOptions {
  readonly network: Network
  readonly parameters: Named<Float32Array>
  readonly data: Dataset
  /** Default: symbolic. */
  readonly method?: Bounder
  /** Default: linf. */
  readonly norm?: Norm
  /** The radius that is tried first. Default: 1, all of an l-inf range of pixels. */
  readonly most?: number
  /** Halvings: radii are known up to `most / 2^steps`. Default: 12. */
  readonly steps?: number
  readonly range?: Range
  /** Of the bounds. Default: none. */
  readonly rounding?: Rounding
  /** Images at once, fewer if the memory is too small. Default: 100. */
  readonly batchSize?: number
  /** Scratch bytes that one run may take. */
  readonly memory?: number
  readonly progress?: (done: number, total: number) => void | Promise<void>
}

/**
 * For each image the largest radius that bisection finds certified: every image of the ball of that radius has the label, by the bounds of the method. 0 where no
 * radius that was tried is; null where the image itself is classified wrongly. Whoever finds a larger radius certified contradicts nothing: bounds need not
 * grow with the ball, and a radius is one of `most k / 2^steps` as float32.
 *
 * @throws usage errors for a `most` that is no positive number; memory and backend errors.
 *
 * @example
 *   const radii = await certifiedRadii({ network, parameters, data: test, method: crown })(await device())
 */
export const certifiedRadii =
  (options: RadiusOptions) =>
  async (backend: Backend): Promise<readonly (number | null)[]> => {
    const { network, parameters, data, method = symbolic, norm = 'linf', most = 1, steps = 12 } = options
    const { range = PIXELS, rounding = 'none', batchSize = 100, memory = DEFAULT_MEMORY } = options
    if (!(most > 0 && Number.isFinite(most))) raise(usage(`the largest radius must be a positive number, not ${most}`))
    requireIeee(backend.name, rounding)
    const rows = network.classes - 1
    // A radius for each image.
    const bounding = (n: number) =>
      program(
        {
          parameters: network.inputs,
          x: [n, ...network.input],
          label: [n],
          radius: [n, ...network.input.map(() => 1)],
        },
        ({ parameters: given, x, label, radius }) => {
          const logits = network.apply(given)
          const margins = boundsOf(method)(logits, ball(x, radius, range, norm, rounding), rounding)
          return { right: correct(logits(x), label), margin: margins.rows(rivals(label, network.classes)).lower }
        },
      )
    const wanted = Math.min(batchSize, data.count)
    const { n: chunk, program: bounds } = inChunks(backend, { wanted, budget: memory }, bounding)
    const { region, close } = openRegion(backend)
    try {
      const bound = await bounds.on(region)
      bound.write({ parameters })
      const found: (number | null)[] = []
      for (let at = 0; at < data.count; at += chunk) {
        const count = Math.min(chunk, data.count - at)
        const indices = Array.from({ length: chunk }, (_, i) => at + (i % count))
        bound.write({ x: pixels(data, indices), label: labelsOf(data, indices) })
        const certified = async (radius: Float32Array) => {
          const { right, margin } = await bound({ radius })
          const all = (i: number) => Array.from({ length: rows }, (_, row) => margin[row * chunk + i])
          return {
            right,
            within: indices.map((_, i) => all(i).every((m) => m > 0 && m < Number.POSITIVE_INFINITY)),
          }
        }
        const { right, within: whole } = await certified(new Float32Array(chunk).fill(most))
        const low = Float32Array.from(whole, (yes) => (yes ? most : 0))
        const high = new Float32Array(chunk).fill(most)
        for (let step = 0; step < steps; step++) {
          const middle = low.map((l, i) => (l + high[i]) / 2)
          for (const [i, yes] of (await certified(middle)).within.entries())
            if (yes && !whole[i]) low[i] = middle[i]
            else if (!whole[i]) high[i] = middle[i]
          await options.progress?.(at * steps + (step + 1) * count, data.count * steps)
        }
        for (let i = 0; i < count; i++) found.push(right[i] === 1 ? low[i] : null)
      }
      return found
    } finally {
      close()
    }
  }
