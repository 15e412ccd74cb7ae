import * as E from 'fp-ts/lib/Either.js'
import { workOf } from '../compile/keep.ts'
import type { Region } from '../compile/region.ts'
import { order } from '../compile/tape.ts'
import { lazily } from '../core/lazily.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import { input } from '../ops/index.ts'
import { type Budget, OutOfTime } from '../robust/budget.ts'
import { outputOf, type Subject } from './counterexample.ts'
import { type Counterexample, type CounterexampleCheck, counterexampleCheck } from './counterexample-check.ts'
import type { Replay } from './replay.ts'

/** Exact looks at points, within the budget. */
export interface PointCheck {
  /** @throws OutOfTime where time does not suffice for a look. */
  readonly check: CounterexampleCheck['check']
  /** Why the last point that looked like a counterexample was not confirmed, if there was one since this was asked last. */
  readonly doubt: () => Promise<string | undefined>
  /** The first counterexample that the program that is to replay it does not confirm, since the doubt was asked for. */
  readonly unconfirmed: () => Promise<Counterexample | undefined>
  readonly close: () => void
}

/** Multiply-adds a second of the reference backend, until it was seen at work. */
const REFERENCE = 1e8

/** A replay that is only begun where it ends in time. */
const within = (budget: Budget, replay: Replay): Replay => {
  let took = replay.seconds
  return {
    ...replay,
    outputs: async (x) => {
      try {
        budget.afford(1.2 * took, 'a replay of a point')
      } catch (e) {
        if (e instanceof OutOfTime) return E.left(e.message)
        throw e
      }
      const begun = budget.seconds()
      const found = await replay.outputs(x)
      took = budget.seconds() - begun
      return found
    },
  }
}

export const pointCheckOf = (
  region: Region,
  budget: Budget,
  subject: Subject,
  { rounding, replay }: { readonly rounding: Rounding; readonly replay?: Replay | undefined },
): PointCheck => {
  const timed = replay && within(budget, replay)
  const made = lazily(() => counterexampleCheck(subject, rounding, region.backend, timed))
  let took: number | undefined
  const estimate = () => {
    if (took !== undefined) return took
    const nodes = order([outputOf(subject, input('x', [1, ...subject.input]))])
    return nodes.reduce((n, node) => n + workOf(node) + S.size(node.shape), 0) / REFERENCE
  }
  return {
    check: async (c, x) => {
      budget.afford(1.2 * estimate(), 'an exact look at a point')
      const { check } = await made.get()
      const begun = budget.seconds()
      const found = await check(c, x, budget.late)
      took = budget.seconds() - begun
      return found
    },
    doubt: async () => (await made.known())?.doubt(),
    unconfirmed: async () => (await made.known())?.unconfirmed(),
    close: () => made.known()?.then(({ close }) => close()),
  }
}
