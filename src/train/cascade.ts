/**
 * A cascade (Wong, Schmidt, Metzen, Kolter, arXiv:1805.12514): networks f_1, ..., f_m, each trained on the images that those before it do not verify. It answers an image
 * with the class of the first network that proves its own class over the ball round that image, and abstains where none does.
 *
 * The paper counts an image as verified where that first network is right. That is no proof about the cascade (arXiv:2206.00278): at x' in the ball of x another
 * network may come first, with another class. What can be proved needs every network. If f_l answers at x', its class holds in the ball of x', which contains x,
 * so it is f_l(x). Hence where all networks give x its label y, no point of the ball gets an answer but y, though it may get none.
 *
 * @module
 */

import type { Verdicts } from '../robust/metric.ts'

/** What is asked of each network on the same images, in the order of the cascade: `verify(...)`, or its `Verdicts`. */
export type Judged = Pick<Verdicts, 'correct' | 'verified'>

const imagesOf = (networks: readonly Judged[]): readonly number[] => [...(networks[0]?.verified ?? []).keys()]

/**
 * The images that no network verifies, ascending: `select(remaining(verdicts))(train)` is what the next network of a cascade is trained on.
 *
 * @example
 *   const next = selectImages(cascade.remaining([verdicts]))(train)
 */
export const remaining = (networks: readonly Judged[]): readonly number[] =>
  imagesOf(networks).filter((i) => networks.every(({ verified }) => verified[i] === 0))

/**
 * Per image, 1 or 0: all networks are right, and one at least verifies it. The cascade then answers the image rightly, and no point of the ball round it (cut to the
 * valid range) otherwise; it may abstain there, so that their
 * share is no VRA.
 *
 * @example
 *   const sure = cascade.unanimous([verdicts])
 */
export const unanimous = (networks: readonly Judged[]): Uint8Array =>
  Uint8Array.from(imagesOf(networks), (i) =>
    Number(networks.every(({ correct }) => correct[i] === 1) && networks.some(({ verified }) => verified[i] === 1)),
  )
