import type { Backend } from '../backend/backend.ts'
import { openRegion } from '../backend/region.ts'
import type { Rounding } from '../core/rounding.ts'
import type { Norm } from '../core/tensor.ts'
import type { Dataset } from '../data/dataset.ts'
import type { Named } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { type Bounder, symbolic } from '../robust/bounds.ts'
import { type AttackOptions, evaluator, rates, type Verdicts } from '../robust/metric.ts'
import type { Range } from '../robust/perturbation.ts'
import { DEFAULT_MEMORY, imagesOf, PIXELS } from './fit.ts'

export interface VerifyOptions {
  readonly network: Network
  readonly parameters: Named<Float32Array>
  readonly data: Dataset
  /** Radius in pixel units. */
  readonly epsilon: number
  /** Default: linf. */
  readonly norm?: Norm
  /** Default: symbolic. */
  readonly method?: Bounder
  /** Default: none, and ERA is null. */
  readonly attack?: AttackOptions | undefined
  readonly range?: Range
  /** Of the bounds. Default: none. */
  readonly rounding?: Rounding | undefined
  readonly batchSize?: number
  /** Scratch bytes that one run may take. */
  readonly memory?: number
  /** Called after each chunk; a promise is waited for. */
  readonly progress?: (done: number, total: number) => void | Promise<void>
}

/** ACC, ERA and VRA as fractions, and the verdicts they count. */
export interface Verified extends Verdicts {
  readonly acc: number
  readonly era: number | null
  readonly vra: number
}

/** Judges each image: classified correctly, still so under attack, verified (every margin's lower bound > 0: with outward rounding a theorem, core/rounding.ts). */
export const verify =
  ({ network, parameters, data, epsilon, norm = 'linf', method = symbolic, attack, ...rest }: VerifyOptions) =>
  async (backend: Backend): Promise<Verified> => {
    const { range = PIXELS, batchSize = 100, memory = DEFAULT_MEMORY, rounding, progress } = rest
    const { region, close } = openRegion(backend)
    try {
      const buffers = Object.fromEntries(Object.keys(network.parameters).map((k) => [k, region.from(parameters[k])]))
      // A chunk is filled up with repeated images: no larger than there are images to ask about.
      const chunk = Math.max(1, Math.min(batchSize, data.count))
      const judge = await evaluator(region)({
        network,
        range,
        method,
        norm,
        attack,
        batchSize: chunk,
        memory,
        rounding,
      })
      const verdicts = await judge.run(buffers, imagesOf(data), epsilon, (done) => progress?.(done, data.count))
      return { ...verdicts, ...rates(verdicts) }
    } finally {
      close()
    }
  }
