/** Levenshtein distance of two texts: the least number of UTF-16 units inserted, removed or replaced that makes one of the other. */
export const distance = (a: string, b: string): number => {
  // By rows of the usual table: row i holds the distances from the first i units of a to each beginning of b.
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const above = row
    row = [i]
    for (let j = 1; j <= b.length; j++)
      row.push(Math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)))
  }
  return row[b.length]
}

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
