import { distance } from 'fastest-levenshtein'

/** The known name with the smallest Levenshtein distance to what was written; the first of several. */
export const nearest = (name: string, known: readonly string[]): string | undefined =>
  known
    .map((candidate) => ({ candidate, far: distance(name.toLowerCase(), candidate.toLowerCase()) }))
    .reduce<{ readonly candidate: string; readonly far: number } | undefined>(
      (best, next) => (best === undefined || next.far < best.far ? next : best),
      undefined,
    )?.candidate

/** Longer lists of names are left to the help. */
const FEW = 8

/** What an error says about a name that is not among the known ones: `there is no network "smal"; the nearest is small (...)`. */
export const unknownName = (what: string, name: string, known: readonly string[]): string => {
  const quoted = JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name)
  const list = known.length <= FEW ? ` (${known.join(', ')})` : ''
  return `there is no ${what} ${quoted}; the nearest is ${nearest(name, known)}${list}`
}
