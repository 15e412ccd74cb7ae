import * as E from 'fp-ts/lib/Either.js'
import { doublesOf, type Epsilon, readEpsilon } from '../core/epsilon.ts'
import { type MixtrainError, usage } from '../core/error.ts'
import { compare, minus, over, plus, type Rational, times } from '../core/rational.ts'
import { type Dataset, nounOf } from '../data/dataset.ts'
import type { Verified } from '../train/verify.ts'
import { reach } from './options.ts'
import { percent, type Report, table } from './report.ts'

/** Radii of one curve at most. */
const MOST = 100

const whole = (n: number): Rational => ({ numerator: BigInt(n), denominator: 1n })

/** The quotient that a radius is, which `readEpsilon` takes. */
const written = (x: Rational): string => `${x.numerator}/${x.denominator}`

/** Radii from one to another, both included, exactly equal steps apart. */
const between = (from: Epsilon, to: Epsilon, n: number): readonly Epsilon[] => {
  const step = over(plus(to.exact, minus(from.exact)), whole(n - 1))
  return Array.from({ length: n }, (_, i) => {
    const exact = plus(from.exact, times(step, whole(i)))
    // The ends keep the text that was given.
    return i === 0 ? from : i === n - 1 ? to : (readEpsilon(written(exact)) ?? { written: written(exact), exact })
  })
}

/** A radius, or FROM:TO:N, N of them from one to the other: one radius or more, in rising order. */
export const radii = (value: string): E.Either<string, readonly Epsilon[]> => {
  const [first, last, n, ...rest] = value.split(':')
  if (last === undefined) return E.map((e: Epsilon) => [e])(reach(value))
  const expected = `expected FROM:TO:N, such as 0.02:0.2:10 with 2 to ${MOST} radii that rise, not "${value}"`
  const [from, to] = [reach(first), reach(last)]
  if (E.isLeft(from) || E.isLeft(to) || rest.length > 0) return E.left(expected)
  const isCount = /^\d{1,3}$/.test(n ?? '') && Number(n) >= 2 && Number(n) <= MOST
  return isCount && compare(from.right.exact, to.right.exact) < 0
    ? E.right(between(from.right, to.right, Number(n)))
    : E.left(expected)
}

/** ACC, ERA and VRA at one radius. */
export interface Point {
  readonly epsilon: number
  readonly acc: number
  readonly era: number | null
  readonly vra: number
}

export const pointOf = (epsilon: Epsilon, { acc, era, vra }: Pick<Verified, 'acc' | 'era' | 'vra'>): Point => ({
  epsilon: doublesOf(epsilon).nearest,
  acc,
  era,
  vra,
})

/** What `evaluate` says of a curve: a report without what is about one radius, and the points. The steps of an attack are shares of epsilon. */
export const sweepReport = (report: Report, curve: readonly Point[]): Readonly<Record<string, unknown>> => {
  const { epsilon, acc: _, era: __, vra: ___, attack, complete, ...about } = report
  const { stepSize = 0, withoutGradient: _w, strongest: _s, ...how } = attack ?? {}
  return {
    ...about,
    attack: attack === null ? null : { ...how, stepShare: epsilon > 0 ? stepSize / epsilon : 0 },
    ...(complete === undefined ? {} : { complete: { seconds: complete.seconds } }),
    curve,
  }
}

export const sweepTable = (curve: readonly Point[], { count, method }: Report, data: Dataset): string =>
  `${table(
    curve.map(({ epsilon, acc, era, vra }) => [
      String(Number(epsilon.toPrecision(6))),
      percent(acc),
      percent(era),
      percent(vra),
    ]),
    ['epsilon', 'ACC', 'ERA', 'VRA'],
  )}\n${count} ${nounOf(data)}s of ${data.name}, ${method} bounds`

/** What a curve is not about: one file of one radius. */
export const sweepable = (
  epsilons: readonly Epsilon[] | undefined,
  others: Readonly<Record<string, unknown>>,
): E.Either<MixtrainError, void> => {
  const given = Object.keys(others).find((name) => others[name] !== undefined)
  return (epsilons?.length ?? 0) < 2 || given === undefined
    ? E.right(undefined)
    : E.left(usage(`--epsilon FROM:TO:N measures a curve: leave --${given} out, which is about one radius`))
}
