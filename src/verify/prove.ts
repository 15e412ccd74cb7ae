import type { Region } from '../proof/bounds.ts'
import { Refused, refuse } from '../proof/exact.ts'
import type { Header } from '../proof/file.ts'
import { anew, halves, type Line, left, type Query, type Refutation, whole } from '../proof/proof.ts'
import type { Group, Row } from '../proof/property.ts'
import type { Refuted, SearchNode, SearchTree } from './trace.ts'

/** How a proof is looked for. */
export interface ProveOptions {
  /** Leaves at most, over all groups. */
  readonly leaves: number
  /** Inputs are split where at most so many have an interval that is no point, else ReLUs. Default: 10. */
  readonly inputs?: number
  /** What a search split, and what refuted its parts: followed as far as it leads, and gone beyond where a leaf is not refuted exactly. */
  readonly trees?: readonly SearchTree[] | undefined
}

/** The input whose interval is the widest, relative to that of the whole group, and its middle. */
const widest = (group: Region, { boxes: [{ lower, upper, e }] }: Region): Line | undefined => {
  const [all] = group.boxes
  const scale = 2 ** (all.e - e)
  const widths = Array.from(lower, (l, i) => {
    const full = all.upper[i] - all.lower[i]
    return full > 0 ? (scale * (upper[i] - l)) / full : 0
  })
  const i = widths.indexOf(Math.max(...widths))
  return widths[i] > 0 && upper[i] - lower[i] > 1 ? ['x', i, (lower[i] + upper[i]) / 2 / 2 ** e] : undefined
}

/** The ReLU whose triangle is the largest. */
const openest = ({ network }: Query, { boxes, signs }: Region): Line | undefined => {
  let [most, line]: [number, Line | undefined] = [0, undefined]
  for (const [place, k] of network.places) {
    const node = network.nodes[k]
    if (node.kind !== 'relu') continue
    const before = node.from[0]
    const { lower, upper, e } = boxes[before]
    for (const [i, l] of lower.entries()) {
      const u = upper[i]
      if (l >= 0 || u <= 0 || signs.get(before)?.has(i)) continue
      const area = (-l * u) / (u - l) / 2 ** e
      if (area > most) {
        most = area
        line = ['z', place, i]
      }
    }
  }
  return line
}

// ---- what a search says --------------------------------------------------------------------------------------------------

/** The ReLUs of a network by their places in the file, their neurons numbered through. */
const numbered = ({ network }: Query) => {
  const relus = [...network.places].flatMap(([place, k]) => {
    const node = network.nodes[k]
    return node.kind === 'relu' ? [{ place, k, size: node.size }] : []
  })
  const begins = relus.map((_, r) => relus.slice(0, r).reduce((n, { size }) => n + size, 0))
  const find = (neuron: number) => {
    const r = begins.findLastIndex((begin) => begin <= neuron)
    return relus[r] === undefined ? undefined : { ...relus[r], neuron: neuron - begins[r] }
  }
  return { relus, begins, find }
}
type Numbered = ReturnType<typeof numbered>

const lineOf = (neurons: Numbered, { split }: SearchNode): Line | undefined => {
  if (split?.kind === 'input') return ['x', split.input, split.value]
  if (split === undefined) return undefined
  const found = neurons.find(split.neuron)
  return found === undefined ? undefined : ['z', found.place, found.neuron]
}

/** Slopes of the neurons that are open on a region, and the multipliers of splits above 0. */
const refutationOf = (
  { network }: Query,
  neurons: Numbered,
  { boxes }: Region,
  { slopes, signs = [] }: Refuted,
): Refutation => {
  const lines = neurons.relus.flatMap(({ place, k, size }, r) => {
    const node = network.nodes[k]
    if (slopes === undefined || node.kind !== 'relu') return []
    const { lower, upper } = boxes[node.from[0]]
    const own = slopes.subarray(neurons.begins[r], neurons.begins[r] + size)
    const open = [...own.keys()].filter((i) => lower[i] < 0 && upper[i] > 0 && own[i] >= 0 && own[i] <= 1)
    return open.length === 0 ? [] : [[place, open.map((i) => [i, Math.round(4096 * own[i])] as const)] as const]
  })
  const set = signs.flatMap(([neuron, m]) => {
    const found = neurons.find(neuron)
    return found !== undefined && m > 0 ? [{ ...found, m }] : []
  })
  const places = [...new Set(set.map(({ place }) => place))]
  const multipliers = places.map(
    (p) => [p, set.filter(({ place }) => place === p).map(({ neuron, m }) => [neuron, m] as const)] as const,
  )
  return {
    ...(lines.length === 0 ? {} : { slopes: Object.fromEntries(lines) }),
    ...(multipliers.length === 0 ? {} : { signs: Object.fromEntries(multipliers) }),
  }
}

// ---- leaves ----------------------------------------------------------------------------------------------------------------

/** Multipliers of rows that are worth a try: one row alone, those of the search, all the same. */
const combinations = (
  rows: readonly Row[],
  weights: Float64Array | undefined,
): readonly (readonly number[] | undefined)[] => [
  undefined,
  ...(rows.length > 1 && weights?.length === rows.length ? [[...weights].map((w) => Math.max(0, w))] : []),
  ...(rows.length > 1 ? [rows.map(() => 1)] : []),
]

/** What refutes a case on a region, with the slopes and multipliers of a search or without. */
const refutationFor = (
  query: Query,
  region: Region,
  group: Group,
  c: number,
  hints: readonly Refutation[],
  weights: Float64Array | undefined,
): Refutation | undefined => {
  const own = { ...group, cases: [group.cases[c]] }
  for (const hint of hints)
    for (const rows of combinations(group.cases[c], weights)) {
      const refutation = rows === undefined ? hint : { ...hint, rows }
      if (left(query, own, region, [refutation]) === undefined) return refutation
    }
  return undefined
}

/** The lines of a leaf, if the region is one: as it is, or after backward passes to every ReLU. */
const refuted = (
  query: Query,
  group: Group,
  region: Region,
  hint: Refuted | undefined,
  neurons: Numbered,
): readonly Line[] | undefined => {
  if (region.isEmpty) return [['leaf']]
  for (const method of ['interval', 'crown'] as const) {
    const tried = method === 'interval' ? region : anew(query, region, method)
    if (tried.isEmpty) return [['crown'], ['leaf']]
    const hints: readonly Refutation[] = [
      {},
      { slope: 'same' },
      ...(hint === undefined ? [] : [refutationOf(query, neurons, tried, hint)]),
    ]
    const given: Refutation[] = []
    for (const c of group.cases.keys()) {
      const found = refutationFor(query, tried, group, c, hints, hint?.weights?.[c])
      if (found === undefined) break
      given.push(found)
    }
    if (given.length === group.cases.length)
      return [
        ...(method === 'interval' ? [] : [['crown'] as Line]),
        given.every((r) => Object.keys(r).length === 0) ? ['leaf'] : ['leaf', ...given],
      ]
  }
  return undefined
}

interface Subproblem {
  readonly group: Group
  readonly region: Region
  readonly hint?: SearchNode | undefined
}

/**
 * The lines of a proof that a query has no counterexample, as they are found: depth first, every leaf checked before it is given. @throws Refused where
 * `leaves` do not suffice or nothing is left to split.
 */
export async function* prove(query: Query, { leaves, inputs = 10, trees = [] }: ProveOptions): AsyncGenerator<Line> {
  const neurons = numbered(query)
  let count = 0
  for (const [g, group] of query.groups.entries()) {
    const own = trees.filter(({ at: where }) => where === g)
    const each = own.length === group.cases.length && own.every(({ conjunction }) => conjunction !== undefined)
    const start = whole(query, group)
    const free = start.boxes[0].lower.filter((l, i) => l < start.boxes[0].upper[i]).length
    const stack: Subproblem[] = []
    if (each && group.cases.length > 0) {
      // Splits of ReLUs inherit what backward passes found over the whole box.
      const region = anew(query, start, 'crown')
      yield ['crown']
      if (group.cases.length > 1) yield ['each']
      for (const [c, rows] of group.cases.entries())
        stack.unshift({
          group: { ...group, cases: [rows] },
          region,
          hint: own.find(({ conjunction }) => conjunction === c)?.root,
        })
    } else stack.push({ group, region: start, hint: own[0]?.conjunction === undefined ? own[0]?.root : undefined })
    for (let part = stack.pop(); part !== undefined; part = stack.pop()) {
      const { hint } = part
      const line = hint === undefined ? undefined : lineOf(neurons, hint)
      const followed = line === undefined ? undefined : followedBy(query, part.region, line)
      if (line !== undefined && followed !== undefined && hint?.children !== undefined) {
        yield line
        const [first, second] = hint.children
        stack.push(
          { group: part.group, region: followed[1], hint: second },
          { group: part.group, region: followed[0], hint: first },
        )
        continue
      }
      const found = refuted(query, part.group, part.region, hint?.refuted, neurons)
      if (found !== undefined) {
        if (++count > leaves) return refuse(`the proof has more than ${leaves} leaves`)
        yield* found
        continue
      }
      const region = anew(query, part.region, 'crown')
      const split =
        (free <= inputs ? widest(start, region) : undefined) ?? openest(query, region) ?? widest(start, region)
      if (split === undefined) return refuse('a part is not refuted exactly, and nothing of it is left to split')
      // Splits of ReLUs inherit what the passes found; boxes of inputs begin anew.
      const isFirst = split[0] === 'z' && part.region.signs.size === 0
      if (isFirst) yield ['crown']
      yield split
      const [first, second] = halves(query, isFirst ? region : part.region, split)
      stack.push({ group: part.group, region: second }, { group: part.group, region: first })
    }
  }
}

/** The halves of a region by a line of a search, whose numbers may lie outside of the exact box. */
const followedBy = (query: Query, region: Region, line: Line): readonly [Region, Region] | undefined => {
  try {
    return halves(query, region, line)
  } catch (e) {
    if (e instanceof Refused) return undefined
    throw e
  }
}

/** The bytes of a proof file: the header, then the lines; packed by gzip. @throws what the lines throw. */
export const proofFile = async (header: Header, lines: AsyncIterable<Line>): Promise<Uint8Array> => {
  const packing = new CompressionStream('gzip')
  const packed = new Response(packing.readable).arrayBuffer()
  const writer = packing.writable.getWriter()
  const encoder = new TextEncoder()
  const write = (x: Header | Line) => writer.write(encoder.encode(`${JSON.stringify(x)}\n`))
  await write(header)
  for await (const line of lines) await write(line)
  await writer.close()
  return new Uint8Array(await packed)
}
