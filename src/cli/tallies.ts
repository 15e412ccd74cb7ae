import Table from 'cli-table3'
import type { Tally } from './instances.ts'

/** Counts of verdicts as a table, a line for each family. */
export const talliesTable = (tallies: readonly Tally[]): string => {
  const table = new Table({
    head: ['family', 'instances', 'sat', 'unsat', 'timeout', 'unknown', 'failed', 'agree', 'wrong', 'median s'],
    style: { head: [], border: [] },
  })
  for (const t of tallies)
    table.push([
      t.family,
      t.instances,
      t.sat,
      t.unsat,
      t.timeout,
      t.unknown,
      t.failed,
      t.agree,
      t.wrong,
      t.medianSeconds?.toFixed(2) ?? '',
    ])
  return table.toString()
}
