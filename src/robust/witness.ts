import { reference } from '../backend/reference.ts'
import { program } from '../compile/program.ts'
import { openRegion } from '../compile/region.ts'
import type { Norm } from '../core/tensor.ts'
import { correct } from '../nn/criterion.ts'
import type { Named } from '../nn/layers.ts'
import type { Network } from '../nn/networks.ts'
import type { Range } from './perturbation.ts'

/** A ball of doubles round an image. */
export interface Around {
  readonly image: ArrayLike<number>
  readonly epsilon: number
  readonly range: Range
  readonly norm: Norm
}

/** How often the unit roundoff of doubles a computed norm of n elements may be off, and some. */
const room = (n: number): number => 4 * (n + 4) * 2 ** -53

/** ||d||, or its square for l2, in doubles; of squares that vanish, an upper bound. */
const sizeOf = (d: Float64Array, norm: Norm): number =>
  d.reduce(
    (s, v) => (norm === 'l2' ? s + v * v : norm === 'l1' ? s + Math.abs(v) : Math.max(s, Math.abs(v))),
    norm === 'l2' ? (d.length + 2) * Number.MIN_VALUE : 0,
  )

/**
 * The point, moved into the ball and the valid range where float32 left it outside, in doubles: between max(x - epsilon, low) and min(x + epsilon, high) as doubles compute
 * them, and for l2 and l1 of a norm that is at most epsilon whatever its rounding. Undefined for a point that is not finite or whose image is outside the range.
 */
export const inside = ({ image, epsilon, range, norm }: Around, point: ArrayLike<number>): Float64Array | undefined => {
  const n = image.length
  const clipped = Float64Array.from(image, (x, i) =>
    Math.min(Math.max(point[i], Math.max(x - epsilon, range[0])), Math.min(x + epsilon, range[1])),
  )
  const measured = sizeOf(
    clipped.map((v, i) => v - image[i]),
    norm,
  )
  const limit = (norm === 'l2' ? epsilon * epsilon : epsilon) * (1 - room(n))
  const ratio = norm === 'linf' || measured <= limit ? 1 : limit / measured
  // What comes back is rounded to doubles near x, which counts where epsilon is small.
  const rounding = room(n) + (n * 2 ** -52 * Math.max(Math.abs(range[0]), Math.abs(range[1]))) / epsilon
  const shrink = (norm === 'l2' ? Math.sqrt(ratio) : ratio) * Math.max(0, 1 - rounding)
  const moved = ratio === 1 ? clipped : clipped.map((v, i) => image[i] + shrink * (v - image[i]))
  const holds =
    moved.every(
      (v, i) =>
        v >= Math.max(image[i] - epsilon, range[0]) &&
        v <= Math.min(image[i] + epsilon, range[1]) &&
        Number.isFinite(v),
    ) &&
    (norm === 'linf' ||
      sizeOf(
        moved.map((v, i) => v - image[i]),
        norm,
      ) <=
        (norm === 'l2' ? epsilon * epsilon : epsilon) * (1 - room(n)))
  return holds ? moved : undefined
}

/** Re-runs what an attack found on the f64 reference backend, whatever the device of the search is. */
export interface Witness {
  /** The point in the ball, if the network is wrong about it in doubles. */
  readonly check: (around: Around, label: number, point: ArrayLike<number>) => Promise<Float64Array | undefined>
  readonly close: () => void
}

export const witness = async (network: Network, parameters: Named<ArrayLike<number>>): Promise<Witness> => {
  const backend = reference()
  const { region, close } = openRegion(backend)
  const classified = program({ parameters: network.inputs, x: [1, ...network.input], label: [1] }, (of) => ({
    right: correct(network.apply(of.parameters)(of.x), of.label),
  }))
  const ask = await classified.on(region)
  ask.write({ parameters })
  return {
    check: async (around, own, point) => {
      const x = inside(around, point)
      if (x === undefined) return undefined
      const { right } = await ask({ x, label: own })
      return right[0] === 1 ? undefined : x
    },
    close: () => {
      close()
      backend.dispose()
    },
  }
}
