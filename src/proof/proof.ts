import {
  type Choices,
  known,
  lowerBound,
  type Method,
  type Passes,
  type Region,
  type Semantics,
  type Slope,
  type Slopes,
} from './bounds.ts'
import {
  add,
  at,
  compare,
  decimal,
  exactly,
  type Rational,
  rational,
  refuse,
  times,
  type Vector,
  vector,
  zeros,
} from './exact.ts'
import { enclosed, two } from './fixed.ts'
import { evaluate, type Network, networkOf } from './network.ts'
import { type Group, type Row, readProperty } from './property.ts'

/** A line of a proof (docs/proof.md). */
export type Line =
  | readonly [Method | 'each']
  | readonly ['crown', PassSlopes]
  | readonly ['x', input: number, value: number]
  | readonly ['z', node: number, neuron: number]
  | readonly ['leaf', ...Refutation[]]
  | readonly ['point', readonly string[]]

/** Slopes of lower lines in 4096ths, by ONNX node of a ReLU and neuron. */
export type SlopesGiven = Readonly<Record<string, readonly (readonly [neuron: number, slope: number])[]>>
/** By ONNX node of a ReLU: the slopes of the passes that bound what it takes from below, and from above. */
export type PassSlopes = Readonly<Record<string, readonly [lower: SlopesGiven, upper: SlopesGiven]>>

/** What makes one case false on a leaf, in the order of the group's cases: empty where one of its rows alone does, with the usual lines. */
export interface Refutation {
  /** Multipliers of the rows, >= 0. */
  readonly rows?: readonly number[]
  /** Lower lines of other neurons. Default: adaptive. */
  readonly slope?: Slope
  readonly slopes?: SlopesGiven
  /** By ONNX node of a ReLU: multipliers of its splits, >= 0, by neuron. */
  readonly signs?: Readonly<Record<string, readonly (readonly [neuron: number, multiplier: number])[]>>
}

const isTexts = (x: unknown): boolean => Array.isArray(x) && x.every((y) => typeof y === 'string')
const isNumbers = (x: unknown): boolean => Array.isArray(x) && x.every(Number.isFinite)
const isPairs = (x: unknown): boolean =>
  Array.isArray(x) && x.every((p) => isNumbers(p) && p.length === 2 && Number.isInteger(p[0]))
const isRecordOf = (x: unknown, is: (y: unknown) => boolean): boolean =>
  typeof x === 'object' && x !== null && !Array.isArray(x) && Object.values(x).every(is)
const isByNode = (x: unknown): boolean => isRecordOf(x, isPairs)
const isPasses = (x: unknown): boolean =>
  isRecordOf(x, (ends) => Array.isArray(ends) && ends.length === 2 && ends.every(isByNode))
const isRefutation = (x: unknown): boolean => {
  if (typeof x !== 'object' || x === null || Array.isArray(x)) return false
  const { rows, slope, slopes, signs, ...others } = x as Record<string, unknown>
  const known =
    (rows === undefined || isNumbers(rows)) &&
    (slope === undefined || slope === 'adaptive' || slope === 'same') &&
    (slopes === undefined || isByNode(slopes)) &&
    (signs === undefined || isByNode(signs))
  return known && Object.keys(others).length === 0
}
const FORMS: Readonly<Record<string, (rest: readonly unknown[]) => boolean>> = {
  interval: (rest) => rest.length === 0,
  crown: (rest) => rest.length === 0 || (rest.length === 1 && isPasses(rest[0])),
  symbolic: (rest) => rest.length === 0,
  each: (rest) => rest.length === 0,
  x: (rest) => rest.length === 2 && isNumbers(rest),
  z: (rest) => rest.length === 2 && isNumbers(rest),
  leaf: (rest) => rest.every(isRefutation),
  point: (rest) => rest.length === 1 && isTexts(rest[0]),
}
/** A line of a file of unknown origin. */
const lineOf = (x: unknown): Line => {
  const [kind, ...rest] = Array.isArray(x) ? (x as readonly unknown[]) : [undefined]
  return typeof kind === 'string' && Object.hasOwn(FORMS, kind) && FORMS[kind](rest)
    ? (x as Line)
    : refuse(
        `a line of the proof${typeof kind === 'string' ? `, "${kind.slice(0, 40)}",` : ''} has none of the forms of one`,
      )
}

export interface Query {
  readonly network: Network
  readonly semantics: Semantics
  readonly groups: readonly Group[]
}

/** What a proof shows: no violation in any of so many boxes, or a point that is one. */
export interface Outcome {
  readonly verdict: 'sat' | 'unsat'
  readonly leaves: number
}

export const query = (network: Uint8Array, property: string, semantics: Semantics): Query => {
  const net = networkOf(network)
  return { network: net, semantics, groups: readProperty(property, net.nodes[0].size, net.nodes[net.output].size) }
}

/** The functional that a refutation bounds: sum of multipliers times rows. */
const functionalOf = (
  network: Network,
  rows: readonly Row[],
  multipliers: readonly Rational[],
): { readonly at: ReadonlyMap<number, Vector>; readonly constant: Rational } => {
  const sum = (size: number, of: (row: Row) => ReadonlyMap<number, Rational>): Vector => {
    const total = zeros(size).n.map(() => rational(0n))
    for (const [r, row] of rows.entries())
      for (const [i, c] of of(row)) total[i] = add(total[i], times(multipliers[r], c))
    return vector(total)
  }
  const x = sum(network.nodes[0].size, (row) => row.inputs)
  const y = sum(network.nodes[network.output].size, (row) => row.outputs)
  const open = new Map([[network.output, y]])
  if (network.output === 0) refuse('a network without a layer')
  if (x.n.some((n) => n !== 0n)) open.set(0, x)
  return { at: open, constant: rows.reduce((c, row, r) => add(c, times(multipliers[r], row.constant)), rational(0n)) }
}

/** Whether rows cannot all hold on a region: a combination of them with these multipliers is above 0, or at 0 where a strict row takes part. */
const refutes = (
  network: Network,
  region: Region,
  rows: readonly Row[],
  multipliers: readonly Rational[],
  choices: Choices = {},
): boolean => {
  if (multipliers.length !== rows.length) refuse(`${multipliers.length} multipliers for ${rows.length} rows`)
  if (multipliers.some(({ n }) => n < 0n)) refuse('a negative multiplier')
  const { at: functional, constant } = functionalOf(network, rows, multipliers)
  const { n } = lowerBound(network, region, functional, constant, choices)
  return n > 0n || (n === 0n && rows.some((row, r) => row.strict && multipliers[r].n > 0n))
}

const integer = (x: unknown, below: number): number =>
  typeof x === 'number' && Number.isInteger(x) && x >= 0 && x < below
    ? x
    : refuse(`${typeof x === 'number' ? x : 'what is no number'} is no index below ${below}`)

/** Lines, one of which may be looked at before it is taken. */
class Lines {
  private ahead: Promise<IteratorResult<Line>> | undefined
  constructor(private readonly source: AsyncIterator<Line>) {}
  peek(): Promise<IteratorResult<Line>> {
    this.ahead ??= this.source.next()
    return this.ahead
  }
  async take(): Promise<Line> {
    const { value, done } = await this.peek()
    this.ahead = undefined
    return done ? refuse('the proof ends before its tree does') : lineOf(value)
  }
}

/** The node that the ONNX node at a place of the file is; a ReLU. */
const reluAt = ({ places, nodes }: Network, place: unknown): number => {
  const k = places.get(Number(place)) ?? refuse(`the network has no node ${String(place).slice(0, 40)}`)
  return nodes[k].kind === 'relu' ? k : refuse(`node ${place} of the network is no ReLU`)
}
const before = (network: Network, place: unknown): number =>
  (network.nodes[reluAt(network, place)] as { readonly from: readonly [number] }).from[0]

const slopesOf = (network: Network, slopes: SlopesGiven): Slopes =>
  new Map(
    Object.entries(slopes).map(([place, given]) => [
      reluAt(network, place),
      new Map(given.map(([i, s]) => [i, integer(s, 4097)])),
    ]),
  )
const choicesOf = (network: Network, { slope = 'adaptive', slopes = {}, signs = {} }: Refutation): Choices => ({
  slope,
  slopes: slopesOf(network, slopes),
  multipliers: new Map(Object.entries(signs).map(([place, given]) => [before(network, place), new Map(given)])),
})

/** A number in units of 2^-e: exact, for no number that is taken is of another magnitude. */
const inUnits = (value: number, e: number): number =>
  value === 0 || (Math.abs(value) < 2 ** 200 && Math.abs(value) > 2 ** -200)
    ? value * two(e)
    : refuse(`an input is split at ${value}`)

/** The two halves of a region that a line splits it into, in the order in which their trees follow: x_i <= v and x_i >= v, z_i >= 0 and z_i <= 0. */
export const halves = ({ network, semantics }: Query, region: Region, line: Line): readonly [Region, Region] => {
  const { boxes, signs } = region
  const [input] = boxes
  if (line[0] === 'x') {
    const i = integer(line[1], network.nodes[0].size)
    const value = inUnits(line[2], input.e)
    const half = (ends: Partial<typeof input>) =>
      known(network, semantics, { input: { ...input, ...ends }, signs, before: region }, 'interval')
    return [
      half({ upper: input.upper.map((u, j) => (j === i ? Math.min(u, Math.ceil(value)) : u)) }),
      half({ lower: input.lower.map((l, j) => (j === i ? Math.max(l, Math.floor(value)) : l)) }),
    ]
  }
  if (line[0] !== 'z') return refuse(`"${String(line[0]).slice(0, 40)}" is no line of a tree`)
  const k = before(network, line[1])
  const i = integer(line[2], network.nodes[k].size)
  if (signs.get(k)?.has(i)) refuse(`neuron ${i} of node ${line[1]} is split twice`)
  const half = (sign: 1 | -1) => {
    const taken = new Map(signs).set(k, new Map(signs.get(k)).set(i, sign))
    return known(network, semantics, { input, signs: taken, before: region, from: k }, 'interval')
  }
  return [half(1), half(-1)]
}

/** The first case of a group that a leaf does not refute; undefined where it refutes all. */
export const left = (
  { network }: Query,
  { cases }: Group,
  region: Region,
  given: readonly Refutation[],
): number | undefined => {
  if (region.isEmpty) return undefined
  const open = cases.findIndex((rows, c) => {
    const refutation = given[c] ?? {}
    const choices = choicesOf(network, refutation)
    const alone = rows.map((_, r) => rows.map((__, q) => rational(q === r ? 1n : 0n)))
    const tried = refutation.rows === undefined ? alone : [refutation.rows.map(exactly)]
    return !tried.some((multipliers) => refutes(network, region, rows, multipliers, choices))
  })
  return open < 0 ? undefined : open
}

/** The region of a whole group. */
export const whole = ({ network, semantics }: Query, { lower, upper }: Group): Region =>
  known(network, semantics, { input: enclosed(lower, upper), signs: new Map() }, 'interval')

/** What is known of a region, by intervals or backward passes, from what is known already. */
export const anew = ({ network, semantics }: Query, region: Region, method: Method, given: PassSlopes = {}): Region => {
  const passes: Passes = new Map(
    Object.entries(given).map(([place, [lower, upper]]) => [
      before(network, place),
      [slopesOf(network, lower), slopesOf(network, upper)],
    ]),
  )
  return known(network, semantics, { input: region.boxes[0], signs: region.signs, before: region, passes }, method)
}

/** Values, of 16 bytes each, of all regions that wait. */
const MOST = 2 ** 27
/** Replays the tree of a group; how many leaves it has. */
const tree = async (q: Query, group: Group, lines: Lines): Promise<number> => {
  const elements = q.network.nodes.reduce((n, { size }) => n + size, 0)
  const stack = [{ group, region: whole(q, group), depth: 0 }]
  let leaves = 0
  for (let part = stack.pop(); part !== undefined; part = stack.pop()) {
    const { group: own, region, depth } = part
    // As many regions wait for their trees at once.
    if (depth * elements > MOST) refuse('the tree is too deep')
    const line = await lines.take()
    if (line[0] === 'interval' || line[0] === 'crown' || line[0] === 'symbolic')
      stack.push({ group: own, region: anew(q, region, line[0], line[1]), depth })
    else if (line[0] === 'each')
      stack.push(...own.cases.map((rows) => ({ group: { ...own, cases: [rows] }, region, depth })).reverse())
    else if (line[0] === 'leaf') {
      leaves++
      const open = left(q, own, region, line.slice(1) as readonly Refutation[])
      if (open !== undefined) refuse(`leaf ${leaves} does not refute case ${open + 1} of ${own.cases.length}`)
    } else {
      const [first, second] = halves(q, region, line)
      const below = { group: own, depth: depth + 1 }
      stack.push({ ...below, region: second }, { ...below, region: first })
    }
  }
  return leaves
}

/** Whether a point is a counterexample: it lies in the box of a group, and all rows of one of its cases hold there. Exact. */
export const isCounterexample = ({ network, groups }: Query, x: readonly Rational[]): boolean => {
  const y = evaluate(network, vector(x))[network.output]
  const value = (row: Row): Rational =>
    [
      ...[...row.inputs].map(([i, c]) => times(c, x[i])),
      ...[...row.outputs].map(([j, c]) => times(c, at(y, j))),
    ].reduce(add, row.constant)
  const holds = (row: Row) => compare(value(row), rational(0n)) < (row.strict ? 0 : 1)
  const inside = ({ lower, upper }: Group) =>
    x.every((v, i) => compare(at(lower, i), v) <= 0 && compare(v, at(upper, i)) <= 0)
  return groups.some((group) => inside(group) && group.cases.some((rows) => rows.every(holds)))
}

/** Replays the lines of a proof: the tree of each group, or one point. @throws Refused where they prove nothing about the query. */
export const replay = async (q: Query, source: AsyncIterator<Line>): Promise<Outcome> => {
  const lines = new Lines(source)
  const first = await lines.peek()
  const isPoint = first.done !== true && lineOf(first.value)[0] === 'point'
  let leaves = 0
  if (isPoint) {
    if (q.semantics !== 'real') refuse('a point proves a counterexample in real arithmetic alone')
    const [, point] = (await lines.take()) as readonly ['point', readonly string[]]
    if (!isCounterexample(q, point.map(decimal))) refuse('the point is no counterexample')
  } else for (const group of q.groups) leaves += await tree(q, group, lines)
  if (!(await lines.peek()).done) refuse('the proof goes on after its end')
  return { verdict: isPoint ? 'sat' : 'unsat', leaves }
}
