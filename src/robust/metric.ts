import type { Backend, Buffer } from '../compile/backend.ts'
import { fitted, program } from '../compile/program.ts'
import type { Region } from '../compile/region.ts'
import { doublesOf, type Epsilon, epsilonFor } from '../core/epsilon.ts'
import { type Rounding, requireIeee } from '../core/rounding.ts'
import type { Norm } from '../core/tensor.ts'
import { correct, crossEntropy } from '../nn/criterion.ts'
import type { Named } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import { type Bounder, boundsOf } from './bounds.ts'
import { type Fallback, firstThatFits } from './cheaper.ts'
import { ball, type Range } from './perturbation.ts'
import { type AttackOptions, type Gradient, searchOf, searchPrograms } from './search.ts'
import { rivals, worstCaseLogits } from './specification.ts'

/** Labelled images by number; pixels are floats in the network's input range. */
export interface Images {
  readonly count: number
  readonly pixels: (indices: ArrayLike<number>) => Float32Array
  readonly labels: (indices: ArrayLike<number>) => Float32Array
  /** The number that the random starts of an image are keyed by, where these are some of a larger set. Default: its own here. */
  readonly numberOf?: (index: number) => number
}

export type { AttackOptions }

/** What is asked about each image. */
export interface Questions {
  readonly network: Network
  readonly range: Range
  readonly method: Bounder
  /** What may be taken where not even one image fits the memory. Default: nothing, and that is an error. */
  readonly cheaper?: Fallback | undefined
  /** Of the ball round each image. Default: linf. */
  readonly norm?: Norm
  readonly attack: AttackOptions | undefined
  /** Of the bounds; with them, the radius is rounded up to float32. Default: none. */
  readonly rounding?: Rounding | undefined
  /** Images at once, rounded up to a whole chunk (`inChunks`), if the memory budget allows. */
  readonly batchSize: number
  /** Scratch bytes that a run may take. */
  readonly memory: number
}

/** Per image, 1 or 0; for every image verified <= robust <= correct. */
export interface Verdicts {
  readonly correct: Uint8Array
  /** Correct, and still so at every point that the attack tried; absent without an attack. */
  readonly robust: Uint8Array | undefined
  /** Of images classified correctly, the search of the attack that broke it or came closest; absent without an attack. */
  readonly strongest: readonly (string | undefined)[] | undefined
  /** How many images the attack had no gradient of its loss at: how many it moved by the margin's instead, and how many had none either. */
  readonly withoutGradient: { readonly margin: number; readonly none: number } | undefined
  /** Of images that were attacked, whose gradient the steps went by; absent without an attack. */
  readonly gradients: readonly (Gradient | undefined)[] | undefined
  /** What the bounds claim, 1 or 0, whatever the attack found. */
  readonly bounded: Uint8Array
  /** Every margin's lower bound is > 0. NaN or infinity never counts, nor does an image that the attack broke. */
  readonly verified: Uint8Array
  /** Images whose bounds claimed what the attack refuted: rounding, or a defect. Counted as not verified. */
  readonly refuted: number
  readonly naturalLoss: number
  /** Mean cross-entropy on worst-case logits: an upper bound of the loss under any attack. */
  readonly robustLoss: number
  /** Lower bounds of z_y - z_j, j != y ascending: `[count, classes - 1]`. */
  readonly margins: Float64Array
}

/**
 * ACC, ERA and VRA as fractions.
 *
 * @example
 *   const { acc, era, vra } = rates(verdicts)
 */
export const rates = (v: Verdicts): { readonly acc: number; readonly era: number | null; readonly vra: number } => {
  const share = (xs: Uint8Array) => xs.reduce((n, x) => n + x, 0) / xs.length
  return { acc: share(v.correct), era: v.robust === undefined ? null : share(v.robust), vra: share(v.verified) }
}

/** A network compiled for questions about images. */
export interface Evaluator {
  /** Images per run, as the memory budget has it. */
  readonly chunk: number
  readonly run: (
    parameters: Named<Buffer>,
    images: Images,
    epsilon: Epsilon | number,
    progress?: (done: number) => void | Promise<void>,
  ) => Promise<Verdicts>
}

/**
 * Kernels of the WASM device add in another order for fewer than eight images, and for one or two that are left over of eights. In chunks of a multiple of four, from
 * eight on, every image (and every row of every image) meets the same order: its bits depend neither on the chunk, nor on where it stands in it.
 */
const [LEAST, MULTIPLE] = [8, 4]

/** The least such chunk for `n` images. */
export const wholeChunk = (n: number): number => Math.max(LEAST, MULTIPLE * Math.ceil(n / MULTIPLE))

/** A chunk of at most n images after one of `tried` did not fit: fewer than eight only where eight do not fit. */
const fewerOf = (n: number, tried: number): number =>
  n > LEAST ? MULTIPLE * Math.floor(n / MULTIPLE) : tried > LEAST ? LEAST : n

/** The programs for the largest such chunk, of at most `wanted` images, whose scratch fits `budget` bytes. */
export const inChunks = <P extends { readonly bytes: (backend: Backend) => number }>(
  backend: Backend,
  { wanted, budget }: { readonly wanted: number; readonly budget: number },
  of: (n: number) => P,
): { readonly n: number; readonly program: P } =>
  fitted(backend, { wanted: wholeChunk(wanted), budget, what: 'bounding one image', among: fewerOf }, of)

/** Of a batch of images: whether they are classified correctly, their losses, and lower bounds of their margins. */
const boundsProgram = ({ network, range, method, norm = 'linf', rounding = 'none' }: Questions, batch: number) =>
  program(
    { parameters: network.inputs, inputs: [batch, ...network.input], labels: [batch], epsilon: [] },
    ({ parameters, inputs, labels, epsilon }) => {
      const logits = network.apply(parameters)
      const clean = logits(inputs)
      const box = ball(inputs, epsilon, range, norm, rounding)
      const margin = boundsOf(method)(logits, box, rounding).rows(rivals(labels, network.classes)).lower
      return {
        correct: correct(clean, labels),
        loss: crossEntropy(clean, labels),
        margin,
        robustLoss: crossEntropy(worstCaseLogits(margin, labels), labels),
      }
    },
  )

/**
 * Compiles the questions for chunks of images; answers them image by image. The last chunk is filled up with its own images, whose
 * repeated answers are dropped.
 *
 * @example
 *   const judge = evaluator(openRegion(await device()).region)
 */
export const evaluator =
  (region: Region) =>
  async (questions: Questions): Promise<Evaluator> => {
    const { network, range, method, cheaper, norm = 'linf', attack, batchSize, memory, rounding = 'none' } = questions
    const { backend } = region
    requireIeee(backend.name, rounding)
    const { n: chunk, program: made } = firstThatFits(method, cheaper, (bound) =>
      inChunks(backend, { wanted: Math.floor(batchSize), budget: memory }, (batch) => {
        const bounding = boundsProgram({ ...questions, method: bound(batch) }, batch)
        const attacks = attack && searchPrograms({ network, range, norm, attack, batch })
        return { bounding, attacks, bytes: (on) => Math.max(bounding.bytes(on), attacks?.bytes(on) ?? 0) }
      }),
    )
    const bound = await made.bounding.on(region)
    const searching = made.attacks && (await searchOf(region)(made.attacks))

    const runChunk = async (indices: readonly number[], images: Images) => {
      const filled = Array.from({ length: chunk }, (_, i) => indices[i % indices.length])
      const found = await bound({ inputs: images.pixels(filled), labels: images.labels(filled) })
      const verified = indices.map((_, i) =>
        Array.from({ length: network.classes - 1 }, (__, row) => found.margin[row * chunk + i]).every(
          (m) => m > 0 && m < Number.POSITIVE_INFINITY,
        ),
      )
      return { ...found, verified }
    }

    return {
      chunk,
      run: async (parameters, images, epsilon, progress = () => undefined) => {
        const n = images.count
        const result = { correct: new Uint8Array(n), robust: new Uint8Array(n), verified: new Uint8Array(n) }
        const rows = network.classes - 1
        const margins = new Float64Array(n * rows)
        let [refuted, naturalLoss, robustLoss] = [0, 0, 0]
        // With an attack, bounding is told as the first half of the work.
        const share = searching === undefined ? 1 : 0.5
        bound.write({ parameters, epsilon: epsilonFor(epsilon, rounding) })
        for (let at = 0; at < n; at += chunk) {
          const indices = Array.from({ length: Math.min(chunk, n - at) }, (_, i) => at + i)
          const c = await runChunk(indices, images)
          indices.forEach((image, i) => {
            result.correct[image] = Number(c.correct[i] === 1)
            result.verified[image] = Number(c.verified[i])
            naturalLoss += c.loss[i]
            robustLoss += c.robustLoss[i]
            for (let j = 0; j < rows; j++) margins[image * rows + j] = c.margin[j * chunk + i]
          })
          await progress(Math.floor(share * Math.min(n, at + chunk)))
        }
        const standing = [...result.correct.keys()].filter((i) => result.correct[i] === 1)
        const outcomes = await searching?.run(
          parameters,
          { indices: standing, ...images },
          doublesOf(epsilon).nearest,
          (part) => progress(Math.floor(n * (0.5 + 0.5 * part))),
        )
        const bounded = Uint8Array.from(result.verified)
        result.correct.forEach((right, i) => {
          result.robust[i] = Number(right === 1 && outcomes?.get(i)?.point === undefined)
          refuted += Number(result.verified[i] === 1 && result.robust[i] === 0)
          result.verified[i] &= result.robust[i]
        })
        return {
          correct: result.correct,
          robust: attack === undefined ? undefined : result.robust,
          withoutGradient: outcomes && {
            margin: [...outcomes.values()].filter((o) => o.gradient === 'margin').length,
            none: [...outcomes.values()].filter((o) => o.gradient === 'none').length,
          },
          strongest: outcomes && Array.from({ length: n }, (_, i) => outcomes.get(i)?.strongest),
          gradients: outcomes && Array.from({ length: n }, (_, i) => outcomes.get(i)?.gradient),
          bounded,
          verified: result.verified,
          refuted,
          naturalLoss: naturalLoss / n,
          robustLoss: robustLoss / n,
          margins,
        }
      },
    }
  }
