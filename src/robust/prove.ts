import { isEmpty, known, type Region } from '../proof/bounds.ts'
import { at, type Rational, rational } from '../proof/exact.ts'
import { halves, type Line, left, type Query, type Refutation, refutes, whole } from '../proof/proof.ts'
import type { Group, Row } from '../proof/property.ts'

/** How a proof is looked for. */
export interface ProveOptions {
  /** Leaves at most, over all groups. */
  readonly leaves: number
  /** Inputs are split where at most so many have an interval that is no point, else ReLUs. Default: 10. */
  readonly inputs?: number
}

const number = ({ n, d }: Rational): number => {
  // Both to 60 bits, so that neither overflows a double.
  const shift = (x: bigint) => Math.max(0, x.toString(2).length - 60)
  const [p, q] = [shift(n), shift(d)]
  return (Number(n >> BigInt(p)) / Number(d >> BigInt(q))) * 2 ** (p - q)
}

/** The input whose interval is the widest, relative to that of the whole group, and its middle. */
const widest = (group: Group, { lower, upper }: Region): Line | undefined => {
  const widths = lower.n.map((_, i) => {
    const full = number(at(group.upper, i)) - number(at(group.lower, i))
    return full > 0 ? (number(at(upper, i)) - number(at(lower, i))) / full : 0
  })
  const i = widths.indexOf(Math.max(...widths))
  if (!(widths[i] > 0)) return undefined
  const middle = rational(lower.n[i] * upper.d + upper.n[i] * lower.d, 2n * lower.d * upper.d)
  return ['x', i, `${middle.n}/${middle.d}`]
}

/** The ReLU whose triangle is the largest. */
const openest = ({ network }: Query, { boxes, signs }: Region): Line | undefined => {
  let [most, line]: [number, Line | undefined] = [0, undefined]
  for (const [place, k] of network.places) {
    const node = network.nodes[k]
    if (node.kind !== 'relu') continue
    const before = node.from[0]
    for (const [i, l] of boxes[before].lower.entries()) {
      const u = boxes[before].upper[i]
      if (l >= 0n || u <= 0n || signs.get(before)?.has(i)) continue
      const area = number(rational(-l * u, (u - l) << 64n))
      if (area > most) {
        most = area
        line = ['z', place, i]
      }
    }
  }
  return line
}

/**
 * The lines of a proof that a query has no counterexample, as they are found: depth first, every leaf checked before it is given. It ends early, without
 * the rest of its tree, where `leaves` do not suffice or nothing is left to split; `replay` then refuses it.
 */
export async function* prove(query: Query, { leaves, inputs = 10 }: ProveOptions): AsyncGenerator<Line> {
  let count = 0
  for (const group of query.groups) {
    const free = group.lower.n.filter((_, i) => number(at(group.lower, i)) < number(at(group.upper, i))).length
    const stack = [whole(query, group)]
    for (let start = stack.pop(); start !== undefined; start = stack.pop()) {
      const found = refuted(query, group, start)
      if (found !== undefined) {
        if (++count > leaves) return
        yield* found
        continue
      }
      const region = known(query.network, query.semantics, start, 'crown')
      const split =
        (free <= inputs ? widest(group, region) : undefined) ?? openest(query, region) ?? widest(group, region)
      if (split === undefined) return
      // ReLU splits inherit what the passes found; boxes of inputs begin anew.
      if (split[0] === 'z' && start.signs.size === 0) yield ['crown']
      yield split
      const [first, second] = halves(query, split[0] === 'z' && start.signs.size === 0 ? region : start, split)
      stack.push(second, first)
    }
  }
}

/** The lines of a leaf, if the region is one: by intervals, or after backward passes to every ReLU. */
const refuted = (query: Query, group: Group, region: Region): readonly Line[] | undefined => {
  if (isEmpty(region)) return [['leaf']]
  for (const method of ['interval', 'crown'] as const) {
    const tried = method === 'interval' ? region : known(query.network, query.semantics, region, method)
    const given = group.cases.map((rows) => combined(query, tried, rows))
    if (left(query, group, tried, given) === undefined)
      return [...(method === 'interval' ? [] : [['crown'] as Line]), ['leaf', ...given]]
  }
  return undefined
}
/** Equal multipliers where no row alone refutes a case, and they do. */
const combined = ({ network }: Query, region: Region, rows: readonly Row[]): Refutation => {
  const by = (multipliers: readonly Rational[]) => refutes(network, region, rows, multipliers)
  const alone = rows.some((_, r) => by(rows.map((__, q) => rational(q === r ? 1n : 0n))))
  return alone || rows.length < 2 || !by(rows.map(() => rational(1n))) ? {} : { rows: rows.map(() => '1') }
}
