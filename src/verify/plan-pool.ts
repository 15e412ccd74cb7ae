import { type Budget, OutOfTime } from '../robust/budget.ts'
import { another } from './root-bounds.ts'

/** Bounds of so many subproblems at once. */
export interface Sized<P> {
  readonly batch: number
  readonly work: number
  readonly seconds: () => number
  readonly bound: (parts: readonly P[]) => Promise<readonly P[]>
}

/** The plans for one kind of subproblem, each made when there are enough of them to fill it. */
export interface Pool<P, B extends Sized<P>> {
  /** The plan for so many that wait. The smallest one is always there: its errors are the caller's. */
  readonly pick: (waiting: number) => Promise<B>
}

/** Sizes of plans, and seconds of a run beyond which a larger one gains nothing but delay. */
const [SIZES, SLOW] = [[1, 8, 64, 512], 2]

export const pool = <P, B extends Sized<P>>(
  budget: Budget,
  most: number,
  make: (batch: number) => Promise<B>,
): Pool<P, B> => {
  const sizes = [...new Set(SIZES.map((s) => Math.min(s, most)))]
  const made: B[] = []
  let refused = false
  return {
    pick: async (waiting) => {
      if (made.length === 0) made.push(await make(sizes[0]))
      while (!refused && made.length < sizes.length && waiting >= sizes[made.length]) {
        const last = made[made.length - 1]
        const size = sizes[made.length]
        const expected = (last.seconds() * size) / last.batch
        if (expected > Math.min(SLOW, 0.25 * budget.left())) break
        try {
          made.push(await make(size))
        } catch (e) {
          if (!another(e) && !(e instanceof OutOfTime)) throw e
          // Time may suffice for another property, memory will not.
          if (e instanceof OutOfTime) break
          refused = true
        }
      }
      const fits = made.filter(({ batch }) => batch === made[0].batch || 2 * waiting >= batch)
      return fits[fits.length - 1]
    },
  }
}
