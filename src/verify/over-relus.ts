import { joinedAs } from '../core/arrays.ts'
import { counted } from '../core/number.ts'
import { type Branch, branchBytes, splitBranch } from './branch.ts'
import type { Decision } from './decision.ts'
import type { Goal } from './goals.ts'
import type { Bounds } from './root.ts'
import type { Brancher } from './searcher.ts'
import { grown, halvedAt, planted, type SearchTree } from './trace.ts'

/** CROWN of the whole box, alpha-CROWN of the rows that it leaves open, and branch and bound over ReLUs for the conjunctions that are still. */
export const overRelus = (decision: Decision): Brancher<Branch> => {
  const { prepared, note, count, say } = decision
  const trees: SearchTree[] = []
  const roots = async (goal: Goal) => {
    const { conjunctions } = goal
    await note({ phase: 'bounds', at: goal.at, open: conjunctions.length, lower: Number.NEGATIVE_INFINITY })
    const rowsOf = (which: readonly number[]) => which.flatMap((g) => conjunctions[g].rows.map((_, k) => ({ g, k })))
    const wanted = (rows: ReturnType<typeof rowsOf>) => ({
      spec: rows.map(({ g, k }) => conjunctions[g].rows[k]),
      bound: rows.map(({ g, k }) => conjunctions[g].bounds[k]),
    })
    const margins = new Float64Array(conjunctions.length).fill(Number.NEGATIVE_INFINITY)
    const judged = (rows: ReturnType<typeof rowsOf>, lower: ArrayLike<number>) =>
      rows.forEach(({ g, k }, r) => {
        const e = lower[r] - conjunctions[g].tolerance[k]
        if (e > margins[g] && e < Number.POSITIVE_INFINITY) margins[g] = e
      })
    const all = rowsOf(conjunctions.map((_, g) => g))
    let found = await prepared.root.crown(goal.box, wanted(all))
    count(1)
    judged(all, found.lower)
    let rows = all
    let open = conjunctions.map((_, g) => g)
    /** The row of a conjunction that is bounded best. */
    const bestOf = (own: readonly { readonly i: number }[]) =>
      own.reduce((a, b) => (found.lower[b.i] > found.lower[a.i] ? b : a))
    const rowsIn = (g: number) => rows.map((r, i) => ({ ...r, i })).filter((r) => r.g === g)
    /** Leaves out what is refuted; for a proof, with the slopes that did it. */
    const settled = (): void => {
      const closed = open.filter((g) => margins[g] > 0)
      open = open.filter((g) => !(margins[g] > 0))
      for (const g of prepared.options.trace ? closed : []) {
        const { i } = bestOf(rowsIn(g))
        const { node } = planted(true, trees, { at: goal.at, conjunction: g, walks: found.walks?.(i) })
        if (node !== undefined) node.refuted = { slopes: joinedAs(Float32Array, found.slopes(i)) }
      }
    }
    settled()
    const least = () =>
      open.length === 0 ? '' : `, the least at ${Math.min(...open.map((g) => margins[g])).toPrecision(3)}`
    say(
      `${found.way} of the whole box: ${open.length} of ${counted(conjunctions.length, 'conjunction')} open${least()}`,
    )
    for (const [name, raise] of [
      ['CROWN in parts', prepared.root.parts],
      ['optimized slopes', prepared.root.slopes],
      ['alpha-CROWN', prepared.root.alpha],
    ] as const) {
      if (open.length === 0) break
      const some = rowsOf(open)
      const [before, at] = [found, some.map(({ g, k }) => rows.findIndex((r) => r.g === g && r.k === k))]
      const from: Bounds = {
        way: before.way,
        lower: Float32Array.from(at, (i) => before.lower[i]),
        hidden: before.hidden,
        slopes: (row) => before.slopes(at[row]),
        walks: (row) => before.walks?.(row === undefined ? undefined : at[row]) ?? [],
      }
      const raised = await raise(goal.box, wanted(some), from, (lower) => {
        judged(some, lower)
        return some.map(({ g }) => margins[g] > 0)
      })
      if (raised === undefined) {
        if (raise !== prepared.root.parts) say(`${name} left out: time or memory`)
        continue
      }
      ;[found, rows] = [raised, some]
      judged(rows, found.lower)
      settled()
      say(`${name}: ${open.length} open${least()}`)
    }
    const proved = Math.min(Number.POSITIVE_INFINITY, ...margins.filter((m) => m > 0))
    if (open.length === 0) return { parts: [], proved }
    const brancher = await prepared.relus.pick(1)
    const walks = found.walks?.()
    const parts = open.map((g) => {
      const own = rowsIn(g)
      const best = bestOf(own)
      // Weights begin with half on the best row.
      const weights = Float64Array.from(own, (r) => 0.5 / own.length + (r === best ? 0.5 : 0))
      const root = brancher.root(goal, g, found.hidden, found.slopes(best.i), weights)
      return {
        ...root,
        lower: margins[g],
        ...planted(prepared.options.trace, trees, { at: goal.at, conjunction: g, walks }),
      }
    })
    return { parts, proved }
  }
  return {
    name: 'relus',
    pool: prepared.relus,
    roots,
    bytes: branchBytes,
    split: (branch) => {
      const parts = splitBranch(branch)
      if (parts.length === 1) return parts
      const [neuron] = branch.next
      // The search takes the half below 0 first.
      const halves = neuron === undefined ? parts : [parts[1], parts[0]]
      return grown(branch, halves, () =>
        neuron === undefined ? halvedAt(branch.box, parts[0].box) : { kind: 'relu', neuron },
      )
    },
    clipped: () => false,
    refuted: ({ splits, evaluated, conjunction, goal }) => {
      if (evaluated === undefined) return {}
      const { slopes, betas, weights } = evaluated
      return {
        slopes,
        signs: splits.map((s, k) => [s >> 1, betas[k]] as const),
        weights: goal.conjunctions.map((c, g) => (g === conjunction ? weights : new Float64Array(c.rows.length))),
      }
    },
    trees,
  }
}
