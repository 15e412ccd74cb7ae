import type { Backend } from '../compile/backend.ts'
import { openRegion } from '../compile/region.ts'
import type { Epsilon } from '../core/epsilon.ts'
import { raise, usage } from '../core/error.ts'
import type { Rounding } from '../core/rounding.ts'
import type { Norm } from '../core/tensor.ts'
import { type Dataset, pixels } from '../data/dataset.ts'
import type { Named } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { constant } from '../ops/index.ts'
import { type Bounder, symbolic } from '../robust/bounds.ts'
import type { Fallback } from '../robust/cheaper.ts'
import { type AttackOptions, evaluator, type Images, rates, type Verdicts } from '../robust/metric.ts'
import type { Range } from '../robust/perturbation.ts'
import type { Gradient } from '../robust/search.ts'
import { decider, type Verdict, type Verification } from '../verify/branch-and-bound.ts'
import { robustness } from '../verify/robustness.ts'
import type { SearchTree } from '../verify/trace.ts'
import { DEFAULT_MEMORY, imagesOf, PIXELS } from './fit.ts'

/** What is verified of which network, by which method. */
export interface VerifyOptions {
  readonly network: Network
  readonly parameters: Named<Float32Array>
  readonly data: Dataset
  /** Radius in units of inputs from 0 to 1; a number is meant as the double that it is. */
  readonly epsilon: Epsilon | number
  /** Default: linf. */
  readonly norm?: Norm
  /** Default: symbolic. */
  readonly method?: Bounder
  /** What may be taken where bounds of one image do not fit the memory (`cheaperThan`). Default: nothing, and that is an error. */
  readonly cheaper?: Fallback | undefined
  /** Default: none, and ERA is null. */
  readonly attack?: AttackOptions | undefined
  readonly range?: Range
  /** Of the bounds. Default: none. */
  readonly rounding?: Rounding | undefined
  /** Seconds of branch and bound for each image that the method leaves open; l-inf only. Default: none. */
  readonly complete?: number | undefined
  /** Told of each verified image what verified it, before its verdict is given; branch and bound then keeps its trees. */
  readonly found?: ((image: number, by: VerifiedBy) => Promise<void>) | undefined
  readonly batchSize?: number
  /** Scratch bytes that one run may take. */
  readonly memory?: number
  /** Called after each chunk, then after each image that is decided; a promise is waited for. */
  readonly progress?: (done: number, total: number, what: 'evaluating' | 'deciding') => void | Promise<void>
}

/** What verified an image: the bounds of its margins or, where those left it open, the trees of branch and bound. */
export interface VerifiedBy {
  readonly margins: Float64Array
  readonly trees?: readonly SearchTree[] | undefined
}

/** ACC, ERA and VRA as fractions, and the verdicts they count. */
export interface Verified extends Verdicts {
  readonly acc: number
  readonly era: number | null
  readonly vra: number
  /** How many images branch and bound decided, by verdict; absent where it was not asked for. */
  readonly decided?: Readonly<Record<Verdict, number>>
}

/** What is asked of some images of a set, by their numbers in it. */
type Asked = VerifyOptions & { readonly images: readonly number[] }

/** Some images of a set; random starts are keyed by their numbers in the set, so that they do not depend on which others come along. */
const some = (data: Dataset, numbers: readonly number[]): Images => {
  const all = imagesOf(data)
  const those = (indices: ArrayLike<number>) => Array.from(indices, (i) => numbers[i])
  return {
    count: numbers.length,
    pixels: (indices) => all.pixels(those(indices)),
    labels: (indices) => all.labels(those(indices)),
    numberOf: (index) => numbers[index],
  }
}

/** Asks the attack and the method about images; `close` frees what that takes. */
const bounder = async (
  backend: Backend,
  { network, parameters, data, images, epsilon, method = symbolic, attack, ...rest }: Asked,
): Promise<{
  readonly chunk: number
  readonly of: (numbers: readonly number[], progress?: (done: number) => void | Promise<void>) => Promise<Verdicts>
  readonly close: () => void
}> => {
  const { norm = 'linf', range = PIXELS, batchSize = 100, memory = DEFAULT_MEMORY, rounding, cheaper } = rest
  const { region, close } = openRegion(backend)
  try {
    const buffers = Object.fromEntries(Object.keys(network.parameters).map((k) => [k, region.from(parameters[k])]))
    // A chunk is filled up with repeated images: no larger than there are images to ask about, and all of about one size.
    const chunks = Math.max(1, Math.ceil(images.length / batchSize))
    const wanted = Math.max(1, Math.min(batchSize, Math.ceil(images.length / chunks)))
    const questions = { network, range, method, cheaper, norm, attack, batchSize: wanted, memory, rounding }
    const measuring = await evaluator(region)(questions)
    return {
      chunk: measuring.chunk,
      of: (numbers, progress) => measuring.run(buffers, some(data, numbers), epsilon, progress),
      close,
    }
  } catch (cause) {
    close()
    throw cause
  }
}

/** Decides images by branch and bound. */
const completer = async (
  backend: Backend,
  { network, parameters, data, epsilon, range = PIXELS, rounding = 'none', complete, memory, found }: VerifyOptions,
): Promise<{ readonly decide: (image: number) => Promise<Verification>; readonly close: () => void }> => {
  const { classes, input } = network
  const named = Object.entries(network.parameters).map(([k, { shape }]) => [k, constant(parameters[k], shape)])
  const subject = { network: network.apply(Object.fromEntries(named)), input, outputs: classes }
  const extent = { constraints: 1, conjunctions: classes - 1 }
  const options = { rounding, trace: found !== undefined, ...(memory && { memory }) }
  const { decide, close } = await decider(subject, extent, options)(backend)
  const { pixels, labels } = imagesOf(data)
  return {
    decide: (i) => decide(robustness(pixels([i]), labels([i])[0], classes, epsilon, range), { timeout: complete }),
    close,
  }
}

/** Branch and bound splits boxes, and of a range without the image everything would be verified: there is no point of it near the image. */
const expectAskable = ({ complete, norm = 'linf', range = PIXELS, data }: VerifyOptions): void => {
  if (complete !== undefined && norm !== 'linf')
    raise({ kind: 'unsupported', what: `branch and bound in ${norm} balls`, reason: 'it splits boxes' })
  const [least, most] = range
  // Images have numbers from 0 to 1.
  if (least <= PIXELS[0] && most >= PIXELS[1]) return
  for (let i = 0; i < data.count; i++) {
    const outside = pixels(data, [i]).find((p) => !(p >= least && p <= most))
    if (outside !== undefined)
      raise(usage(`range: image ${i} of ${data.name} has ${outside}, which is not from ${least} to ${most}`))
  }
}

/** Lower bounds of the margins of one of some images. */
const marginsOf = ({ margins, correct }: Verdicts, at: number): Float64Array => {
  const rows = margins.length / correct.length
  return margins.subarray(at * rows, (at + 1) * rows)
}

/** Whether an image is left to branch and bound: correct, not broken, not verified. */
const isOpen = ({ robust, correct, verified }: Pick<Verdicts, 'robust' | 'correct' | 'verified'>, i: number): boolean =>
  (robust ?? correct)[i] === 1 && verified[i] === 0

/** The verdicts of the attack and the method. */
const bounded = async (backend: Backend, options: VerifyOptions): Promise<Verdicts> => {
  const { data, progress, found } = options
  const images = Array.from({ length: data.count }, (_, i) => i)
  const { of, close } = await bounder(backend, { ...options, images })
  try {
    const verdicts = await of(images, (done) => progress?.(done, data.count, 'evaluating'))
    for (const i of images) if (verdicts.verified[i] === 1) await found?.(i, { margins: marginsOf(verdicts, i) })
    return verdicts
  } finally {
    close()
  }
}

/** Decides the images that are correct, not broken, and not verified. */
const completed = async (
  backend: Backend,
  options: VerifyOptions,
  verdicts: Verdicts,
): Promise<Pick<Required<Verified>, 'robust' | 'verified' | 'decided'>> => {
  const [robust, verified] = [verdicts.robust && Uint8Array.from(verdicts.robust), Uint8Array.from(verdicts.verified)]
  const decided: Record<Verdict, number> = { unsat: 0, sat: 0, unknown: 0, timeout: 0 }
  const open = [...verified.keys()].filter((i) => isOpen(verdicts, i))
  const { decide, close } = await completer(backend, options)
  try {
    for (const [done, i] of open.entries()) {
      await options.progress?.(done, open.length, 'deciding')
      const { verdict, trees } = await decide(i)
      decided[verdict]++
      if (verdict === 'unsat') {
        await options.found?.(i, { margins: marginsOf(verdicts, i), trees })
        verified[i] = 1
      }
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
 *
 * @example
 *   const { verified } = await verify({ network, parameters, data: test, epsilon: 0.1, method: crown })(await device())
 */
export const verify =
  (options: VerifyOptions) =>
  async (backend: Backend): Promise<Verified> => {
    expectAskable(options)
    const verdicts = await bounded(backend, options)
    const all = { ...verdicts, ...(options.complete === undefined ? {} : await completed(backend, options, verdicts)) }
    return { ...all, ...rates(all) }
  }

/** All that is found about one image, as plain data; 1 is yes. */
export interface ImageVerdict {
  /** Its number in the data set, from 0. */
  readonly image: number
  readonly label: number
  readonly correct: 0 | 1
  /** Correct, and broken neither by the attack nor by branch and bound; null without an attack. */
  readonly robust: 0 | 1 | null
  readonly verified: 0 | 1
  /** Whether the bounds of the method claim it, whatever the attack found. */
  readonly bounded: 0 | 1
  /** The least lower bound of a margin; null where it is NaN or infinite. */
  readonly margin: number | null
  /** The search of the attack that broke it or came closest, and whose gradient it went by; null where it was not attacked. */
  readonly strongest: string | null
  readonly gradient: Gradient | null
  /** What branch and bound found; null where it was not asked. */
  readonly decided: Verdict | null
}

const bit = (x: number): 0 | 1 => (x === 1 ? 1 : 0)

const verdictOf = (v: Verdicts, at: number, image: number, data: Dataset): ImageVerdict => {
  const margin = marginsOf(v, at).reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY)
  return {
    image,
    label: data.labels[image],
    correct: bit(v.correct[at]),
    robust: v.robust === undefined ? null : bit(v.robust[at]),
    verified: bit(v.verified[at]),
    bounded: bit(v.bounded[at]),
    margin: Number.isFinite(margin) ? margin : null,
    strongest: v.strongest?.[at] ?? null,
    gradient: v.gradients?.[at] ?? null,
    decided: null,
  }
}

/**
 * `verify` image by image, for those of these numbers: yields the verdicts as they are final, some at once, those that branch and bound decides last. An image has the
 * same verdict whichever others are asked about, but for what a limit of time decides.
 */
export const verifyEach = (options: Asked) =>
  async function* (backend: Backend): AsyncGenerator<readonly ImageVerdict[], void, undefined> {
    expectAskable(options)
    const { data, images, complete, progress, found } = options
    const open: (ImageVerdict & { readonly margins: Float64Array })[] = []
    const { of, chunk, close } = await bounder(backend, options)
    try {
      for (let at = 0; at < images.length; at += chunk) {
        const part = images.slice(at, at + chunk)
        const verdicts = await of(part, (done) => progress?.(at + done, images.length, 'evaluating'))
        const each = part.map((image, i) => verdictOf(verdicts, i, image, data))
        const isLeft = each.map((_, i) => complete !== undefined && isOpen(verdicts, i))
        for (const [i, one] of each.entries()) {
          const margins = marginsOf(verdicts, i)
          if (isLeft[i]) open.push({ ...one, margins: margins.slice() })
          else if (one.verified === 1) await found?.(one.image, { margins })
        }
        yield each.filter((_, i) => !isLeft[i])
      }
    } finally {
      close()
    }
    if (open.length === 0) return
    const deciding = await completer(backend, options)
    try {
      for (const [done, { margins, ...one }] of open.entries()) {
        await progress?.(done, open.length, 'deciding')
        const { verdict: decided, trees } = await deciding.decide(one.image)
        if (decided === 'unsat') await found?.(one.image, { margins, trees })
        const robust = decided === 'sat' && one.robust !== null ? 0 : one.robust
        yield [{ ...one, decided, robust, verified: decided === 'unsat' ? 1 : 0 }]
      }
    } finally {
      deciding.close()
    }
  }
