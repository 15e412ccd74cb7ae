import { type Bounder, linearBounds } from '../bounds/linear-bounds.ts'
import type { Parts } from '../bounds/starts.ts'
import { MixtrainException } from '../core/error.ts'
import { crown, crownIbp, ibp, intersect, type MethodName } from './bounds.ts'

/** A way to bound in place of a method whose bounds of one image do not fit the memory. */
export interface Cheaper {
  /** The method whose bounds these are. */
  readonly method: MethodName
  /** What is told: the method, and whether its rows go in parts, which changes no bound. */
  readonly name: string
  /** For so many images at once. */
  readonly bound: (images: number) => Bounder
}

/** What may be taken where the memory is too small for a method, and who is told of what was taken and why. */
export interface Fallback {
  readonly ways: readonly Cheaper[]
  readonly told: (way: Cheaper, why: string) => void
}

/** Coefficients of the rows of one walk, as shares of the numbers that fit the memory: walks hold several of them at once. */
const SHARES = [1 / 16, 1 / 64, 1 / 256]
/** Bytes of a number on the device that has the least. */
const NUMBER = 4
/** Walks of one layer: planning more of them takes long. */
const WALKS = 64

/** Bounds of a method whose layers all walk, with fewer and fewer rows at once. */
const inParts = (method: MethodName, memory: number, of: (parts: Parts) => Bounder): readonly Cheaper[] =>
  SHARES.map((share) => ({
    method,
    name: `${method}, its rows in parts`,
    bound: (images) => of({ coefficients: Math.floor((images * share * memory) / NUMBER), walks: WALKS }),
  }))

/**
 * What may be taken where bounds of one image by a method do not fit so many bytes, the tightest first: the same bounds with fewer rows at once, alpha-CROWN without its steps, hidden boxes by interval
 * propagation (CROWN-IBP), interval propagation alone. Each is sound.
 *
 * @example
 *   cheaperThan('crown-forward', 2 ** 28).map(({ name }) => name) // ['crown-ibp', 'ibp']
 */
export const cheaperThan = (method: MethodName, memory: number): readonly Cheaper[] => {
  const walked = (slope: 'same' | 'adaptive') => (parts: Parts) => linearBounds({ slope, hidden: 'own', parts })
  const byCrown = inParts('crown', memory, walked('adaptive'))
  const [whole, boxes, intervals]: readonly Cheaper[] = [
    { method: 'crown', name: 'crown', bound: () => crown },
    { method: 'crown-ibp', name: 'crown-ibp', bound: () => crownIbp },
    { method: 'ibp', name: 'ibp', bound: () => ibp },
  ]
  const parted = walked('same')
  switch (method) {
    case 'ibp':
      return []
    case 'crown-ibp':
    case 'forward':
      return [intervals]
    case 'crown-forward':
      return [boxes, intervals]
    case 'crown':
      return [...byCrown, boxes, intervals]
    case 'alpha-crown':
      return [whole, ...byCrown, boxes, intervals]
    case 'symbolic':
      return [...inParts(method, memory, parted), boxes, intervals]
    case 'intersect':
      return [...inParts(method, memory, (parts) => intersect(parted(parts), ibp)), boxes, intervals]
    default:
      return method satisfies never
  }
}

/**
 * What the first bounder gives that fits the memory, the method itself before what may be taken instead. @throws the first error, where none fits, and any other than one of memory.
 */
export const firstThatFits = <A>(
  method: Bounder,
  { ways, told }: Fallback = { ways: [], told: () => undefined },
  attempt: (bound: (images: number) => Bounder) => A,
): A => {
  let first: MixtrainException | undefined
  for (const way of [undefined, ...ways]) {
    try {
      const found = attempt(way?.bound ?? (() => method))
      if (way !== undefined && first !== undefined) told(way, first.message)
      return found
    } catch (e) {
      if (!(e instanceof MixtrainException) || e.error.kind !== 'memory') throw e
      first ??= e
    }
  }
  throw first
}
