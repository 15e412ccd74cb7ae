import * as E from 'fp-ts/lib/Either.js'
import { z } from 'zod'
import { fold, type Key, uniform } from '../src/core/key.ts'
import type { ObjectiveName } from '../src/loss/objective.ts'
import { adjustableNames } from '../src/train/settings.ts'

const value = z.union([z.number(), z.string(), z.boolean()])
const range = z.union([
  z.array(value).min(1),
  z
    .strictObject({
      from: z.number(),
      to: z.number(),
      log: z.boolean().optional(),
      integer: z.boolean().optional(),
    })
    .refine(({ from, to }) => from <= to, 'from is above to')
    .refine(({ from, log }) => log !== true || from > 0, 'a logarithmic range begins above 0'),
])
const spaces = z.record(z.string(), z.partialRecord(z.enum(adjustableNames), range))

/** Values of which one is taken, or an interval. */
export type Range = z.infer<typeof range>
/** What is drawn for each number of a recipe. */
export type Space = Readonly<Partial<Record<string, Range>>>
export type Value = z.infer<typeof value>
/** Numbers of a recipe by their names. */
export type Numbers = Readonly<Record<string, Value>>

const log = (from: number, to: number): Range => ({ from, to, log: true })
const COMMON = { lr: log(3e-4, 4e-3), l1: log(1e-7, 3e-5) }
const BALANCED = { ...COMMON, balance: { from: 0.3, to: 1 } }
const EXPRESSIVE = { ...COMMON, balance: log(0.01, 0.9), attackRadius: { from: 1, to: 2 } }
const SAMPLED = { ...BALANCED, k: { from: 1, to: 8, integer: true } }

/** Where the numbers of a loss are looked for; a loss without an entry has only those that all have. */
const SPACES: Partial<Record<ObjectiveName, Space>> = {
  mixtrain: { ...SAMPLED, choice: ['random', 'stratified', 'hardest', 'importance'] },
  controlled: SAMPLED,
  twofold: SAMPLED,
  ibp: BALANCED,
  'crown-ibp': BALANCED,
  'mtl-ibp': EXPRESSIVE,
  'cc-ibp': EXPRESSIVE,
  'exp-ibp': EXPRESSIVE,
}

export const spaceOf = (loss: ObjectiveName): Space => SPACES[loss] ?? COMMON

/** Spaces by loss, of a file: `{"ibp": {"lr": {"from": 1e-4, "to": 1e-2, "log": true}, "batchSize": [50, 100]}}`. */
export const readSpaces = (json: unknown): E.Either<string, Readonly<Record<string, Space>>> => {
  const { data, error } = spaces.safeParse(json)
  return data === undefined ? E.left(z.prettifyError(error)) : E.right(data)
}

/** A trial's numbers by chance: a pure function of the key. */
export const drawn = (space: Space, key: Key): Numbers =>
  Object.fromEntries(
    Object.entries(space).map(([name, r]) => {
      const [u] = uniform(fold(key, name), 1)
      if (r === undefined || Array.isArray(r)) return [name, r?.[Math.floor(u * r.length)] ?? 0]
      // An integer stands for the interval of what is rounded to it.
      const [from, to] = r.integer === true ? [r.from - 0.5, r.to + 0.5] : [r.from, r.to]
      const x = r.log === true ? from * (to / from) ** u : from + u * (to - from)
      return [name, r.integer === true ? Math.min(r.to, Math.max(r.from, Math.round(x))) : x]
    }),
  )

/** A training that was measured. Fractions; `acc` and `vra` of held-out training images decide, those of test images are told. */
export interface Trial {
  readonly run: string
  readonly loss: ObjectiveName
  readonly trial: number
  /** From 0; each trains for longer than the one before. */
  readonly rung: number
  readonly epochs: number
  readonly numbers: Numbers
  readonly seconds: number
  readonly acc: number
  readonly vra: number
  readonly test: { readonly count: number; readonly acc: number; readonly era: number; readonly vra: number }
}

type Point = Pick<Trial, 'acc' | 'vra'>

/** As good in both, and better in one. */
export const dominates = (a: Point, b: Point): boolean =>
  a.acc >= b.acc && a.vra >= b.vra && (a.acc > b.acc || a.vra > b.vra)

/** Those that none dominates. */
export const front = <A extends Point>(points: readonly A[]): readonly A[] =>
  points.filter((p) => !points.some((q) => dominates(q, p)))

/**
 * The best `n`, front by front (nondominated sorting, NSGA-II, Deb et al. 2002, section III-A). Of a front that does not fit as a whole those with the
 * larger sum of ACC and VRA go first, so that few places are not given to the two ends.
 */
export const promoted = <A extends Point>(points: readonly A[], n: number): readonly A[] => {
  if (n <= 0 || points.length === 0) return []
  const first = front(points)
  if (first.length >= n) return first.toSorted((a, b) => b.acc + b.vra - a.acc - a.vra).slice(0, n)
  return [
    ...first,
    ...promoted(
      points.filter((p) => !first.includes(p)),
      n - first.length,
    ),
  ]
}

/** Trials on each rung of successive halving: a share of 1 / eta of those below goes on, one at least. */
export const sizes = (trials: number, rungs: number, eta: number): readonly number[] =>
  Array.from({ length: rungs }, (_, r) => Math.max(1, Math.floor(trials / eta ** r)))
