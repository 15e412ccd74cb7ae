import type * as E from 'fp-ts/lib/Either.js'
import type { UnsafeCase } from './counterexample.ts'
import { meets } from './exact-constraint.ts'

/** Another program that executes the network of a property, by which counterexamples are looked at once more. */
export interface Replay {
  /** Its name. */
  readonly by: string
  /** Whether only what it confirms is `sat`. Else it is asked for a point nearby where it does not confirm one. */
  readonly required: boolean
  /** What the first run takes, about. */
  readonly seconds: number
  /** Outputs at a point, in the order of the property's, what is watched among them; a Left where it has none. */
  readonly outputs: (x: Float64Array) => Promise<E.Either<string, ArrayLike<number>>>
}

/** What another program made of a counterexample. */
export interface Replayed {
  readonly by: string
  /** Whether its outputs, too, satisfy all constraints of a conjunction, without a tolerance. */
  readonly confirmed: boolean
  /** Its outputs, where it has some. */
  readonly y?: ArrayLike<number>
  /** Why it does not confirm the point. */
  readonly reason?: string
}

/** How far an input may be moved when it is rounded to float32: what VNN-COMP allows. */
const MOVED = 1e-4

/** What another program makes of a point that is a counterexample of a case. */
export const replayedBy = async (
  { by, outputs }: Replay,
  { unsafe }: UnsafeCase,
  x: Float64Array,
): Promise<Replayed> => {
  const far = x.findIndex((v) => !(Math.abs(Math.fround(v) - v) <= MOVED))
  if (far >= 0) return { by, confirmed: false, reason: `input ${far} is ${x[far]}, which float32 does not hold` }
  const found = await outputs(x)
  if (found._tag === 'Left') return { by, confirmed: false, reason: `${by}: ${found.left}` }
  const y = found.right
  return unsafe.some((u) => u.every((c) => meets(c, y)))
    ? { by, confirmed: true, y }
    : { by, confirmed: false, y, reason: `the outputs of ${by} satisfy no conjunction` }
}
