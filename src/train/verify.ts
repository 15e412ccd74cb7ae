import type { Backend } from '../compile/backend.ts'
import { openRegion } from '../compile/region.ts'
import type { Epsilon } from '../core/epsilon.ts'
import { raise } from '../core/error.ts'
import type { Rounding } from '../core/rounding.ts'
import type { Norm } from '../core/tensor.ts'
import type { Dataset } from '../data/dataset.ts'
import type { Named } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { constant } from '../ops/index.ts'
import { type Bounder, symbolic } from '../robust/bounds.ts'
import { type AttackOptions, evaluator, rates, type Verdicts } from '../robust/metric.ts'
import type { Range } from '../robust/perturbation.ts'
import { decider, type Verdict } from '../verify/branch-and-bound.ts'
import { robustness } from '../verify/robustness.ts'
import { DEFAULT_MEMORY, imagesOf, PIXELS } from './fit.ts'

export interface VerifyOptions {
  readonly network: Network
  readonly parameters: Named<Float32Array>
  readonly data: Dataset
  /** Radius in pixel units; a number is meant as the double that it is. */
  readonly epsilon: Epsilon | number
  /** Default: linf. */
  readonly norm?: Norm
  /** Default: symbolic. */
  readonly method?: Bounder
  /** Default: none, and ERA is null. */
  readonly attack?: AttackOptions | undefined
  readonly range?: Range
  /** Of the bounds. Default: none. */
  readonly rounding?: Rounding | undefined
  /** Seconds of branch and bound for each image that the method leaves open; l-inf only. Default: none. */
  readonly complete?: number | undefined
  readonly batchSize?: number
  /** Scratch bytes that one run may take. */
  readonly memory?: number
  /** Called after each chunk, then after each image that is decided; a promise is waited for. */
  readonly progress?: (done: number, total: number, what: 'evaluating' | 'deciding') => void | Promise<void>
}

/** ACC, ERA and VRA as fractions, and the verdicts they count. */
export interface Verified extends Verdicts {
  readonly acc: number
  readonly era: number | null
  readonly vra: number
  /** How many images branch and bound decided, by verdict; absent where it was not asked for. */
  readonly decided?: Readonly<Record<Verdict, number>>
}

/** The verdicts of the attack and the method. */
const bounded = async (
  backend: Backend,
  { network, parameters, data, epsilon, method = symbolic, attack, progress, ...rest }: VerifyOptions,
): Promise<Verdicts> => {
  const { norm = 'linf', range = PIXELS, batchSize = 100, memory = DEFAULT_MEMORY, rounding } = rest
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
    return await judge.run(buffers, imagesOf(data), epsilon, (done) => progress?.(done, data.count, 'evaluating'))
  } finally {
    close()
  }
}

/** Decides the images that are correct, not broken, and not verified. */
const completed = async (
  backend: Backend,
  { network, parameters, data, epsilon, range = PIXELS, rounding = 'none', ...rest }: VerifyOptions,
  verdicts: Verdicts,
): Promise<Pick<Required<Verified>, 'robust' | 'verified' | 'decided'>> => {
  const { complete: timeout, memory, progress } = rest
  const { classes, input } = network
  const named = Object.entries(network.parameters).map(([k, { shape }]) => [k, constant(parameters[k], shape)])
  const subject = { network: network.apply(Object.fromEntries(named)), input, outputs: classes }
  const extent = { constraints: 1, conjunctions: classes - 1 }
  const [robust, verified] = [verdicts.robust && Uint8Array.from(verdicts.robust), Uint8Array.from(verdicts.verified)]
  const decided: Record<Verdict, number> = { unsat: 0, sat: 0, unknown: 0, timeout: 0 }
  const open = [...verified.keys()].filter((i) => (robust ?? verdicts.correct)[i] === 1 && verified[i] === 0)
  const { decide, close } = await decider(subject, extent, { rounding, ...(memory && { memory }) })(backend)
  try {
    const images = imagesOf(data)
    for (const [done, i] of open.entries()) {
      await progress?.(done, open.length, 'deciding')
      const property = robustness(images.pixels([i]), images.labels([i])[0], classes, epsilon, range)
      const { verdict } = await decide(property, { timeout })
      decided[verdict]++
      if (verdict === 'unsat') verified[i] = 1
      if (verdict === 'sat' && robust !== undefined) robust[i] = 0
    }
  } finally {
    close()
  }
  return { robust, verified, decided }
}

/**
 * Judges each image: classified correctly, still so under attack, verified (every margin's lower bound > 0: with outward rounding a theorem,
 * core/rounding.ts). With `complete`, what the method leaves open is decided as by `decider`; a counterexample that it finds breaks the image
 * as an attack does.
 */
export const verify =
  (options: VerifyOptions) =>
  async (backend: Backend): Promise<Verified> => {
    if (options.complete !== undefined && (options.norm ?? 'linf') !== 'linf')
      raise({ kind: 'unsupported', what: `branch and bound in ${options.norm} balls`, reason: 'it splits boxes' })
    const verdicts = await bounded(backend, options)
    const all = { ...verdicts, ...(options.complete === undefined ? {} : await completed(backend, options, verdicts)) }
    return { ...all, ...rates(all) }
  }
