import type { Decision } from './decision.ts'
import { type Cell, rootCell, splitCell } from './input-splits.ts'
import type { Brancher } from './searcher.ts'
import { grown, halvedAt, planted, type SearchTree } from './trace.ts'

/** Branch and bound over the inputs. */
export const overInputs = ({ prepared }: Decision): Brancher<Cell> => {
  const trees: SearchTree[] = []
  return {
    name: 'inputs',
    pool: prepared.inputs,
    roots: async (goal) => ({
      parts: [{ ...rootCell(goal), ...planted(prepared.options.trace, trees, { at: goal.at }) }],
      proved: Number.POSITIVE_INFINITY,
    }),
    bytes: ({ goal, box }) => 16 * box.lower.length + 16 * goal.conjunctions.length + 300,
    split: (cell) => {
      const halves = splitCell(cell)
      return grown(cell, halves, () => halvedAt(cell.box, halves[0].box))
    },
    clipped: ({ shrunk }) => shrunk,
    refuted: ({ weights }) => ({ weights }),
    trees,
  }
}
