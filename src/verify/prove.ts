import type { Region } from '../proof/bounds.ts'
import { Refused, refuse } from '../proof/exact.ts'
import type { Header } from '../proof/file.ts'
import {
  anew,
  halves,
  type Line,
  left,
  type PassSlopes,
  type Query,
  type Refutation,
  type SlopesGiven,
  whole,
} from '../proof/proof.ts'
import type { Group, Row } from '../proof/property.ts'
import type { Refuted, SearchNode, SearchTree, WalkSlopes } from './trace.ts'

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

/** The ReLUs of a network by their places in the file, their neurons numbered through. What only reshapes a ReLU is the same node, at a later place. */
const numbered = ({ network }: Query) => {
  const seen = new Set<number>()
  const relus = [...network.places].flatMap(([place, k]) => {
    const node = network.nodes[k]
    if (node.kind !== 'relu' || seen.has(k)) return []
    seen.add(k)
    return [{ place, k, size: node.size }]
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

/** Slopes of the neurons that are open on a region, but for those that are the usual ones. */
const slopesOf = ({ network }: Query, neurons: Numbered, { boxes }: Region, slopes: Float32Array): SlopesGiven =>
  Object.fromEntries(
    neurons.relus.flatMap(({ place, k, size }, r) => {
      const node = network.nodes[k]
      if (node.kind !== 'relu') return []
      const { lower, upper } = boxes[node.from[0]]
      const own = slopes.subarray(neurons.begins[r], neurons.begins[r] + size)
      const given = [...own.keys()].flatMap((i) => {
        const [l, u, s] = [lower[i], upper[i], Math.round(4096 * own[i])]
        const isUsual = s === (u > -l ? 4096 : 0)
        return l < 0 && u > 0 && s >= 0 && s <= 4096 && !isUsual ? [[i, s] as const] : []
      })
      return given.length === 0 ? [] : [[place, given] as const]
    }),
  )

/** Slopes of the passes that bound what ReLUs take: the region's lines are no others but where it is known better by then. */
const passesOf = (query: Query, neurons: Numbered, region: Region, walks: readonly WalkSlopes[]): PassSlopes => {
  const of = (r: number, side: WalkSlopes['side']): SlopesGiven => {
    const walk = walks.find((w) => w.relu === r && w.side === side)
    return walk === undefined ? {} : slopesOf(query, neurons, region, walk.slopes)
  }
  return Object.fromEntries(
    neurons.relus
      .map(({ place }, r) => [place, [of(r, 'lower'), of(r, 'upper')]] as const)
      .filter(([, ends]) => ends.some((slopes) => Object.keys(slopes).length > 0)),
  )
}

/** Slopes, and the multipliers of splits above 0. */
const refutationOf = (query: Query, neurons: Numbered, region: Region, { slopes, signs = [] }: Refuted): Refutation => {
  const lines = slopes === undefined ? {} : slopesOf(query, neurons, region, slopes)
  const set = signs.flatMap(([neuron, m]) => {
    const found = neurons.find(neuron)
    return found !== undefined && m > 0 ? [{ ...found, m }] : []
  })
  const places = [...new Set(set.map(({ place }) => place))]
  const multipliers = places.map(
    (p) => [p, set.filter(({ place }) => place === p).map(({ neuron, m }) => [neuron, m] as const)] as const,
  )
  return {
    ...(Object.keys(lines).length === 0 ? {} : { slopes: lines }),
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

interface Leaf {
  readonly group: Group
  readonly region: Region
  readonly hint?: SearchNode | undefined
  /** What the search bounded hidden values by, where the region does not know it yet. */
  readonly walks?: readonly WalkSlopes[] | undefined
}

/** What is known of a region beyond what it is made of, the cheapest first: nothing, what the search knew, backward passes to every ReLU. */
function* knowledge(
  query: Query,
  neurons: Numbered,
  { region, walks }: Leaf,
): Generator<readonly [readonly Line[], Region]> {
  yield [[], region]
  const passes = walks === undefined ? {} : passesOf(query, neurons, region, walks)
  if (Object.keys(passes).length > 0) yield [[['crown', passes]], anew(query, region, 'crown', passes)]
  yield [[['crown']], anew(query, region, 'crown')]
}

/** The lines of a leaf, if the region is one. */
const refuted = (query: Query, neurons: Numbered, leaf: Leaf): readonly Line[] | undefined => {
  const { group, region, hint } = leaf
  if (region.isEmpty) return [['leaf']]
  for (const [lines, known] of knowledge(query, neurons, leaf)) {
    if (known.isEmpty) return [...lines, ['leaf']]
    const own = hint?.refuted === undefined ? {} : refutationOf(query, neurons, known, hint.refuted)
    const hints: readonly Refutation[] = [...(Object.keys(own).length === 0 ? [] : [own]), {}, { slope: 'same' }]
    const given: Refutation[] = []
    for (const c of group.cases.keys()) {
      const found = refutationFor(query, known, group, c, hints, hint?.refuted?.weights?.[c])
      if (found === undefined) break
      given.push(found)
    }
    if (given.length === group.cases.length)
      return [...lines, given.every((r) => Object.keys(r).length === 0) ? ['leaf'] : ['leaf', ...given]]
  }
  return undefined
}

/** The parts that a group is made of, where a search took its cases one by one: all inherit what backward passes find over the whole box. */
function* partsOf(
  query: Query,
  neurons: Numbered,
  group: Group,
  start: Region,
  trees: readonly SearchTree[],
): Generator<Line, readonly Leaf[]> {
  yield ['crown']
  let region = anew(query, start, 'crown')
  // What was split was split knowing this; what was not may need no more.
  const walks = (trees.find(({ root }) => root.children !== undefined) ?? trees.at(-1))?.walks ?? []
  const passes = passesOf(query, neurons, region, walks)
  if (Object.keys(passes).length > 0) {
    yield ['crown', passes]
    region = anew(query, region, 'crown', passes)
  }
  if (group.cases.length > 1) yield ['each']
  return group.cases.map((rows, c) => {
    const tree = trees.find(({ conjunction }) => conjunction === c)
    return { group: { ...group, cases: [rows] }, region, hint: tree?.root, walks: tree?.walks }
  })
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
    const stack: Leaf[] =
      each && group.cases.length > 0
        ? [...(yield* partsOf(query, neurons, group, start, own))].reverse()
        : [{ group, region: start, hint: own[0]?.conjunction === undefined ? own[0]?.root : undefined }]
    for (let part = stack.pop(); part !== undefined; part = stack.pop()) {
      const { hint } = part
      const line = hint === undefined ? undefined : lineOf(neurons, hint)
      const followed = line === undefined ? undefined : followedBy(query, part.region, line)
      if (line !== undefined && followed !== undefined && hint?.children !== undefined) {
        yield line
        const [first, second] = hint.children
        stack.push({ ...part, region: followed[1], hint: second }, { ...part, region: followed[0], hint: first })
        continue
      }
      const found = refuted(query, neurons, part)
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
      // What nearly refuted the part may refute its halves.
      const rest = { ...part, hint: hint?.refuted === undefined ? undefined : { refuted: hint.refuted } }
      stack.push({ ...rest, region: second }, { ...rest, region: first })
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

/** Packs the parts of a file by gzip. */
export type Pack = (parts: AsyncIterable<Uint8Array>) => Promise<Uint8Array>

/** By the platform's stream, in every runtime. Its machinery costs more than packing a few kB does: a caller that has a quicker one gives it. */
const streamed: Pack = async (parts) => {
  const packing = new CompressionStream('gzip')
  const packed = new Response(packing.readable).arrayBuffer()
  const writer = packing.writable.getWriter()
  for await (const part of parts) await writer.write(part as Uint8Array<ArrayBuffer>)
  await writer.close()
  return new Uint8Array(await packed)
}

async function* written(header: Header, lines: AsyncIterable<Line>): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder()
  const bytes = (x: Header | Line) => encoder.encode(`${JSON.stringify(x)}\n`)
  yield bytes(header)
  for await (const line of lines) yield bytes(line)
}

/** The bytes of a proof file: the header, then the lines; packed by gzip. @throws what the lines throw. */
export const proofFile = (header: Header, lines: AsyncIterable<Line>, pack: Pack = streamed): Promise<Uint8Array> =>
  pack(written(header, lines))
