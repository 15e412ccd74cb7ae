import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError, MixtrainException, show } from '../core/error.ts'
import { type Arrays, type FeatureRange, fromArrays } from './arrays.ts'
import type { Data } from './dataset.ts'

/** What a data set raises about arrays, as an error of their file. */
export const made = <A>(path: string, f: () => A): E.Either<MixtrainError, A> =>
  E.tryCatch(f, (cause) => {
    if (cause instanceof MixtrainException) return fileError(path, show(cause.error))
    throw cause
  })

/** The ranges of two tables together, so that neither has a value outside. */
export const jointRanges = (a: readonly FeatureRange[], b: readonly FeatureRange[]): readonly FeatureRange[] =>
  a.map(([from, to], j) => [Math.min(from, b[j][0]), Math.max(to, b[j][1])])

/** Two tables with the same features and classes. Labels that are names are classes of both. */
export const tables = (
  name: string,
  train: Pick<Arrays, 'inputs' | 'labels'>,
  test: Pick<Arrays, 'inputs' | 'labels'>,
): Data => {
  const labels = [...Array.from(train.labels), ...Array.from(test.labels)]
  const named = labels.some((label) => typeof label === 'string')
  const classes = named
    ? { classNames: [...new Set(labels.map(String))].sort() }
    : { classes: 1 + labels.reduce<number>((m, label) => Math.max(m, Number(label)), 0) }
  const alone = (part: Pick<Arrays, 'inputs' | 'labels'>) => fromArrays({ name, ...part, ...classes })
  const ranges = jointRanges(alone(train).ranges, alone(test).ranges)
  return {
    train: fromArrays({ name, ...train, ...classes, ranges }),
    test: fromArrays({ name, ...test, ...classes, ranges }),
  }
}

/** The share of a single table that is its test set. */
export const TEST_SHARE = 5
