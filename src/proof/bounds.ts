import { ceiling, floor, type Rational, refuse, type Vector } from './exact.ts'
import {
  type Box,
  bits,
  boxOf,
  COEFFICIENT,
  coarser,
  enclosed,
  type Fixed,
  intersection,
  isVoid,
  largest,
  leastOf,
  nearest,
  Products,
  plus,
  shortened,
  two,
} from './fixed.ts'
import type { Matrix, Network, Node } from './network.ts'

/** What a claim is about: the network in real arithmetic, or every float32 execution of it as well (docs/proof.md, "Semantics"). */
export type Semantics = 'real' | 'deployed'

/** A set of inputs, and of signs of values before ReLUs, with what is known of every value on it. */
export interface Region {
  /** By node before a ReLU: 1 where a value is taken to be >= 0, -1 where <= 0. */
  readonly signs: ReadonlyMap<number, ReadonlyMap<number, 1 | -1>>
  /** By node. Any point of the region has its values there; the input's box is the region. Short where the region is empty. */
  readonly boxes: readonly Box[]
  /** By node: what is added to its matrix times its operands, or to its maximum: a bias, what weights are off by, and an execution. */
  readonly rest: readonly (Box | undefined)[]
  readonly isEmpty: boolean
}

// ---- executions in float32 (proofs/README.md) ---------------------------------------------------------------------------------------

/** gamma_n = n u / (1 - n u), u = 2^-24, in units of 2^-34, rounded up. */
const gamma = (n: number): number =>
  n < 2 ** 20 ? Number(ceiling(BigInt(n) << 34n, (1n << 24n) - BigInt(n))) : refuse(`a sum of ${n} terms`)
const symmetric = (n: Float64Array, e: number): Box =>
  boxOf(
    n.map((x) => -x),
    n,
    e,
  )
const magnitude = ({ lower, upper }: Pick<Box, 'lower' | 'upper'>): Float64Array =>
  lower.map((l, i) => Math.max(Math.abs(l), Math.abs(upper[i])))

/** gamma_n times integers of at most 2^53, and n + 1 underflows of 2^-149 each, in both directions; n element by element. */
const offBy = (sizes: Fixed, n: Float64Array): Box => {
  const most = bits(largest(sizes.n))
  if (most - sizes.e > 100) refuse('values that may overflow')
  const shift = Math.max(0, most - 20)
  const e = sizes.e - shift + 34
  if (e > 124) return offBy({ n: sizes.n.map((x) => Math.ceil(x * two(-40))), e: sizes.e - 40 }, n)
  const gammas = new Map([...new Set(n)].map((k) => [k, gamma(k)]))
  const f = two(-shift)
  return symmetric(
    sizes.n.map((x, i) => Math.ceil(x * f) * (gammas.get(n[i]) as number) + 1),
    e,
  )
}
/** |W| x, rounded up, and by row how many terms are not 0 in every execution: those that are change no sum (`sum_gamma`, proofs/Sum.v). */
const sizesOf = ({ start, index, weight, half, e }: Matrix, x: Box): Fixed & { readonly live: Float64Array } => {
  const shift = Math.max(0, bits(x.most) - half)
  const f = two(-shift)
  const short = magnitude(x).map((m) => Math.ceil(m * f))
  const live = new Float64Array(start.length - 1)
  const n = live.map((_, i) => {
    let total = 0
    for (let k = start[i]; k < start[i + 1]; k++) {
      const size = short[index[k]]
      if (size === 0) continue
      live[i]++
      // A unit more than the weight, which may be off by one.
      total += (Math.abs(weight[k]) + 1) * size
    }
    return total
  })
  return { n, live, e: e + x.e - shift }
}
/** The terms of the longest row. */
const longestOf = ({ start }: Matrix): number =>
  start.reduce((most, end, i) => Math.max(most, end - start[i - 1] || 0), 0)

/** The rest of a node whose operands have these boxes. */
const restOf = (node: Node, boxes: readonly Box[], own: Box, semantics: Semantics): Box | undefined => {
  const executed = semantics === 'deployed'
  if (node.kind === 'relu' && executed && node.slope.n > 0n)
    return offBy(
      { n: magnitude(own), e: own.e },
      own.lower.map(() => 1),
    )
  if (node.kind !== 'affine') return undefined
  const { matrix, bias, terms } = node
  const x = operands(node, boxes)
  const parts: Box[] = []
  if (bias !== undefined) parts.push(biasOf(bias))
  if (matrix.inexact.some((n) => n > 0))
    parts.push(
      symmetric(
        matrix.inexact.map((n) => n * x.most),
        matrix.e + x.e,
      ),
    )
  if (executed && terms > 0) {
    const sizes = sizesOf(matrix, x)
    // Bias and division are terms of any row; one more is on the safe side.
    const others = terms + 1 - longestOf(matrix)
    const counts = sizes.live.map((n) => n + others)
    parts.push(offBy(sizes, counts))
    if (bias !== undefined) parts.push(offBy({ n: magnitude(parts[0]), e: parts[0].e }, counts))
  }
  return parts.length === 0 ? undefined : parts.reduce(plus)
}
const BIASES = new WeakMap<Vector, Box>()
const biasOf = (bias: Vector): Box => {
  const box = BIASES.get(bias) ?? enclosed(bias)
  BIASES.set(bias, box)
  return box
}

// ---- interval arithmetic ------------------------------------------------------------------------------------------------------------

/** The boxes of a node's operands one after the other. */
const operands = (node: Node & { readonly from: readonly number[] }, boxes: readonly Box[]): Box => {
  if (node.from.length === 1) return boxes[node.from[0]]
  const e = Math.min(...node.from.map((k) => boxes[k].e))
  const parts = node.from.map((k) => coarser(boxes[k], e))
  const joined = (ends: readonly Float64Array[]) => Float64Array.from(ends.flatMap((x) => [...x]))
  return boxOf(joined(parts.map((b) => b.lower)), joined(parts.map((b) => b.upper)), e)
}

/** The least and largest values of the rows of a matrix on a box: halves of its ends are multiplied apart. */
const rowsOn = ({ start, least, weight, e, half }: Matrix, x: Box): Box => {
  const box = coarser(x, x.e - Math.max(0, bits(x.most) - 2 * half))
  const ends = halvesOf(box, two(half))
  const size = start.length - 1
  const [lowerHigh, lowerLow, upperHigh, upperLow] = Array.from({ length: 4 }, () => new Float64Array(size))
  for (let i = 0; i < size; i++) {
    let [a, b, c, d] = [0, 0, 0, 0]
    const end = start[i + 1]
    for (let k = start[i]; k < end; k++) {
      const w = weight[k]
      const j = least[k]
      // The other end.
      const o = j ^ 2
      a += w * ends[j]
      b += w * ends[j + 1]
      c += w * ends[o]
      d += w * ends[o + 1]
    }
    lowerHigh[i] = a
    lowerLow[i] = b
    upperHigh[i] = c
    upperLow[i] = d
  }
  const shift = shiftOf(Math.max(largest(lowerHigh), largest(upperHigh)), half)
  const [p, q] = [two(half - shift), two(-shift)]
  return boxOf(
    lowerHigh.map((h, i) => Math.floor(h * p) + Math.floor(lowerLow[i] * q)),
    upperHigh.map((h, i) => Math.ceil(h * p) + Math.ceil(upperLow[i] * q)),
    box.e + e - shift,
  )
}
/** The ends of a box in halves, end = high base + low: high and low of the lower, then of the upper end, element by element. */
const halvesOf = ({ lower, upper }: Box, base: number): Float64Array => {
  const ends = new Float64Array(4 * lower.length)
  for (let j = 0; j < lower.length; j++) {
    const [l, u] = [Math.round(lower[j] / base), Math.round(upper[j] / base)]
    ends[4 * j] = l
    ends[4 * j + 1] = lower[j] - l * base
    ends[4 * j + 2] = u
    ends[4 * j + 3] = upper[j] - u * base
  }
  return ends
}
/** By how many places sums of halves, high 2^half + low with |low| <= 2^53, have to be shortened to have at most 2^52. */
const shiftOf = (most: number, half: number): number => (most === 0 ? 2 : Math.max(2, bits(most) + half - 50))

/** Slopes are in units of 2^-PLACES. */
const PLACES = 20
const ONE = 2 ** PLACES
/** The slope of a ReLU below 0, enclosed. */
const leakOf = ({ slope: { n, d } }: Node & { kind: 'relu' }): { readonly least: number; readonly most: number } => ({
  least: Number(floor(n * BigInt(ONE), d)),
  most: Number(ceiling(n * BigInt(ONE), d)),
})

const intervalOf = (node: Exclude<Node, { kind: 'input' }>, boxes: readonly Box[]): Box => {
  const x = node.kind === 'affine' ? operands(node, boxes) : boxes[node.from[0]]
  switch (node.kind) {
    case 'affine':
      return rowsOn(node.matrix, x)
    case 'relu': {
      const { least, most } = leakOf(node)
      return boxOf(
        x.lower.map((l) => (l >= 0 ? l : Math.floor((l * most) / ONE))),
        x.upper.map((u) => (u >= 0 ? u : Math.ceil((u * least) / ONE))),
        x.e,
      )
    }
    case 'max': {
      const of = (ends: Float64Array) =>
        Float64Array.from({ length: node.size }, (_, i) =>
          node.index.subarray(node.start[i], node.start[i + 1]).reduce((m, j) => Math.max(m, ends[j]), -Infinity),
        )
      return boxOf(of(x.lower), of(x.upper), x.e)
    }
    default:
      return node satisfies never
  }
}

// ---- the backward pass --------------------------------------------------------------------------------------------------------------

/** How a region's values are bounded: by intervals, or also by backward passes with adaptive slopes, or with the same above and below. */
export type Method = 'interval' | 'crown' | 'symbolic'
/** Lower lines of ReLUs that are open: 1 where u > -l, else the leak; or the slope of the upper line. */
export type Slope = 'adaptive' | 'same'
/** Slopes of lower lines in 2^-12, by ReLU node and neuron. */
export type Slopes = ReadonlyMap<number, ReadonlyMap<number, number>>
/** By node before a ReLU: the slopes of the passes that bound it from below, and from above. */
export type Passes = ReadonlyMap<number, readonly [lower: Slopes, upper: Slopes]>
/** What a functional takes besides its coefficients: slopes of lower lines, and multipliers of signs by node before a ReLU. */
export interface Choices {
  readonly slope?: Slope
  readonly slopes?: Slopes
  readonly multipliers?: ReadonlyMap<number, ReadonlyMap<number, number>>
}

/** Bounds are kept in units of 2^-BOUND, rounded down. */
const BOUND = 160
/** n 2^-e in units of 2^-BOUND, rounded down. */
const downTo = (n: bigint, e: number): bigint => (e <= BOUND ? n << BigInt(BOUND - e) : n >> BigInt(e - BOUND))

/**
 * A lower bound, in units of 2^-BOUND, of a functional on a region, a sum over nodes of coefficients . values, by one pass from the last node to the input: at each
 * node the coefficients of its operands, and what a ReLU's lines add.
 */
const lowerOf = (
  { nodes }: Network,
  { signs, boxes, rest }: Region,
  functional: ReadonlyMap<number, Fixed>,
  choices: Choices,
): bigint => {
  const open: (Fixed | undefined)[] = []
  let bound = 0n
  let last = 0
  /** What `changed` coefficients of a node lose that are off by at most a unit. */
  const lose = (k: number, changed: number, e: number): void => {
    if (changed > 0) bound += downTo(-BigInt(changed) * BigInt(boxes[k].most), e + boxes[k].e)
  }
  const give = (k: number, a: Fixed): void => {
    const b = open[k]
    if (b === undefined) {
      open[k] = a
      last = Math.max(last, k)
      return
    }
    const [p, q] = [shortened(a, COEFFICIENT + 12), shortened(b, COEFFICIENT + 12)]
    lose(k, p.changed, p.e)
    lose(k, q.changed, q.e)
    const e = Math.min(p.e, q.e)
    const [f, g] = [p, q].map((x) => two(-Math.min(100, x.e - e)))
    // Two are rounded at most, each by half a unit.
    open[k] = { n: p.n.map((x, i) => Math.round(x * f) + Math.round(q.n[i] * g)), e }
    lose(k, p.e === q.e ? 0 : p.n.length, e)
  }
  for (const [k, a] of functional) give(k, a)
  for (const k of choices.multipliers?.keys() ?? []) last = Math.max(last, k)
  for (let k = last; k >= 0; k--) {
    const added = choices.multipliers?.get(k)
    if (added !== undefined) give(k, signed(signs.get(k), added, nodes[k].size))
    const fine = open[k]
    if (fine === undefined) continue
    open[k] = undefined
    const node = nodes[k]
    const a = shortened(fine, node.kind === 'affine' ? Math.min(COEFFICIENT, 2 * node.matrix.half) : COEFFICIENT)
    lose(k, a.changed, a.e)
    const own = rest[k]
    if (own !== undefined) bound += downTo(leastOf(a.n, own.lower, own.upper), a.e + own.e)
    switch (node.kind) {
      case 'input':
        bound += downTo(leastOf(a.n, boxes[k].lower, boxes[k].upper), a.e + boxes[k].e)
        break
      case 'affine': {
        const sizes = node.from.map((from) => nodes[from].size)
        const { n, e, changed } = transposed(
          node.matrix,
          a,
          sizes.reduce((x, y) => x + y, 0),
        )
        let begin = 0
        for (const [j, from] of node.from.entries()) {
          give(from, { n: node.from.length === 1 ? n : n.slice(begin, begin + sizes[j]), e })
          begin += sizes[j]
          lose(from, Math.min(changed, sizes[j]), e)
        }
        break
      }
      case 'relu': {
        const [before] = node.from
        const { coefficients, gained } = throughRelu(node, a.n, boxes[before], choices.slope, choices.slopes?.get(k))
        give(before, { n: coefficients, e: a.e + PLACES })
        bound += downTo(gained, a.e + PLACES + boxes[before].e)
        break
      }
      case 'max': {
        const [before] = node.from
        const { coefficients, gained } = throughMax(node, a.n, boxes[before])
        give(before, { n: coefficients, e: a.e })
        bound += downTo(gained, a.e + boxes[before].e)
        break
      }
      default:
        return node satisfies never
    }
  }
  return bound
}

/**
 * A lower bound of a sum over nodes of exact coefficients . values + a constant: no value on the region is below it.
 * @returns the bound, a rational
 */
export const lowerBound = (
  network: Network,
  region: Region,
  functional: ReadonlyMap<number, Vector>,
  constant: Rational,
  choices: Choices = {},
): Rational => {
  let lost = 0n
  const rounded = [...functional].map(([k, v]) => {
    const { n, e, exact } = nearest(v, COEFFICIENT)
    const changed = exact.filter((x) => !x).length
    lost += downTo(-BigInt(changed) * BigInt(region.boxes[k].most), e + region.boxes[k].e)
    return [k, { n, e }] as const
  })
  const bound = lowerOf(network, region, new Map(rounded), choices) + lost
  const unit = 1n << BigInt(BOUND)
  return { n: bound * constant.d + constant.n * unit, d: unit * constant.d }
}

/** sign z >= 0 on the region, so m sign z, m >= 0, may be taken from the functional: the coefficients -m sign, for multipliers near those that are given. */
const signed = (
  signs: ReadonlyMap<number, 1 | -1> | undefined,
  multipliers: ReadonlyMap<number, number>,
  size: number,
): Fixed => {
  const most = Math.max(0, ...multipliers.values())
  const e = COEFFICIENT - Math.ceil(Math.log2(most || 1))
  const n = new Float64Array(size)
  for (const [i, m] of multipliers) {
    const sign = signs?.get(i) ?? refuse('a multiplier of a sign that is not set')
    if (!(m >= 0 && m < 2 ** 200)) refuse('a multiplier that is negative or too large')
    // Any other multiplier that is not negative would do as well.
    n[i] = -sign * Math.min(2 ** (COEFFICIENT + 1), Math.floor(m * two(e)))
  }
  return { n, e }
}

/** A row times a matrix: halves of the coefficients are multiplied apart. `changed` elements are off by at most a unit. */
const transposed = (
  { start, index, weight, half, e }: Matrix,
  a: Fixed,
  size: number,
): Fixed & { readonly changed: number } => {
  const base = two(half)
  // High and low half, element by element.
  const halves = new Float64Array(2 * size)
  for (let i = 0; i < a.n.length; i++) {
    const c = a.n[i]
    if (c === 0) continue
    const h = Math.round(c / base)
    const l = c - h * base
    const end = start[i + 1]
    for (let k = start[i]; k < end; k++) {
      const w = weight[k]
      const j = 2 * index[k]
      halves[j] += h * w
      halves[j + 1] += l * w
    }
  }
  let most = 0
  for (let j = 0; j < 2 * size; j += 2) most = Math.max(most, Math.abs(halves[j]))
  const shift = most === 0 ? 0 : shiftOf(most, half)
  const [p, q] = [two(half - shift), two(-shift)]
  let changed = 0
  const n = new Float64Array(size)
  for (let j = 0; j < size; j++) {
    const [x, y] = [halves[2 * j] * p, halves[2 * j + 1] * q]
    const [u, v] = [Math.round(x), Math.round(y)]
    if (u !== x || v !== y) changed++
    n[j] = u + v
  }
  return { n, e: a.e + e - shift, changed }
}

/**
 * x = max(s z, z) with z in [l, u]: x >= p z for p between s and 1; x <= q z + t for any q, with t the larger of what is missing at l and u. p is the one that was
 * chosen, else 1 where u > -l, else s; q is about the slope of the chord.
 */
const throughRelu = (
  node: Node & { kind: 'relu' },
  a: Float64Array,
  { lower, upper }: Box,
  slope: Slope = 'adaptive',
  slopes: ReadonlyMap<number, number> | undefined,
): { readonly coefficients: Float64Array; readonly gained: bigint } => {
  const { least, most } = leakOf(node)
  const gained = new Products()
  const coefficients = new Float64Array(a.length)
  for (let i = 0; i < a.length; i++) {
    const c = a[i]
    if (c === 0) continue
    const [l, u] = [lower[i], upper[i]]
    if (l >= 0) {
      coefficients[i] = c * ONE
      continue
    }
    // s z between the two ends of s where z <= 0.
    if (u <= 0) {
      coefficients[i] = c * (c > 0 ? most : least)
      continue
    }
    // Rounded, but any slope will do.
    const chord = Math.min(ONE, Math.max(0, Math.floor((u * ONE - l * least) / (u - l))))
    if (c > 0) {
      const chosen = slopes?.get(i)
      const usual = slope === 'same' ? Math.max(most, chord) : u > -l ? ONE : most
      coefficients[i] = c * (chosen === undefined ? usual : Math.min(ONE, Math.max(most, chosen * 256)))
      continue
    }
    // s l <= least l where l < 0; products of 32 and 20 bits.
    gained.add(c, Math.max(l * (least - chord), u * (ONE - chord)))
    coefficients[i] = c * chord
  }
  return { coefficients, gained: gained.sum() }
}

/** The largest of a window: the element that is above all others, where there is one; else at least the one with the largest lower end, at most the largest upper end. */
const throughMax = (
  node: Node & { kind: 'max' },
  a: Float64Array,
  { lower, upper }: Box,
): { readonly coefficients: Float64Array; readonly gained: bigint } => {
  const coefficients = new Float64Array(lower.length)
  let gained = 0n
  for (const [i, c] of a.entries()) {
    if (c === 0) continue
    const window = node.index.subarray(node.start[i], node.start[i + 1])
    const best = window.reduce((m, j) => (lower[j] > lower[m] ? j : m))
    if (c > 0 || window.every((j) => j === best || upper[j] <= lower[best])) coefficients[best] += c
    else gained += BigInt(c) * BigInt(window.reduce((m, j) => Math.max(m, upper[j]), -Infinity))
  }
  return { coefficients, gained }
}

// ---- what is known on a region ---------------------------------------------------------------------------------------------------

const clipped = (box: Box, signs: ReadonlyMap<number, 1 | -1> | undefined): Box => {
  if (signs === undefined) return box
  const [lower, upper] = [box.lower.slice(), box.upper.slice()]
  for (const [i, sign] of signs) {
    if (sign === 1) lower[i] = Math.max(lower[i], 0)
    else upper[i] = Math.min(upper[i], 0)
  }
  return { ...box, lower, upper }
}

/** What is known of a region before its values are bounded, from some node on: its input, signs, and what is known from a larger region. */
export interface Known {
  readonly input: Box
  readonly signs: Region['signs']
  readonly before?: Region
  /** Nodes before this one are as in `before`. */
  readonly from?: number
  /** Slopes of backward passes, where they are not the usual ones. */
  readonly passes?: Passes
}

/**
 * The boxes of a region: intervals node by node, cut to what is known already and to the signs; otherwise, values before ReLUs and maxima that are not decided by
 * these are bounded by backward passes, too, whose slopes `symbolic` takes to be the same above and below.
 */
export const known = (
  network: Network,
  semantics: Semantics,
  { input, signs, before, from = 0, passes }: Known,
  method: Method,
): Region => {
  if (semantics === 'deployed' && network.realOnly !== undefined)
    refuse(`float32 executions are not covered: ${network.realOnly}`)
  if (before?.isEmpty) return before
  const { nodes } = network
  const boxes: Box[] = before?.boxes.slice(0, from) ?? []
  const rest: (Box | undefined)[] = before?.rest.slice(0, from) ?? []
  const used = (kind: 'relu' | 'max') => new Set(nodes.flatMap((n) => (n.kind === kind ? n.from : [])))
  const [relu, max] = [used('relu'), used('max')]
  /** By node, how many lie on a path from the input of which an interval may lose something: from two on, backward passes may know more. */
  const losses: number[] = []
  for (const [k, node] of nodes.entries()) {
    losses[k] = node.kind === 'input' ? 0 : Math.max(...node.from.map((j: number) => losses[j])) + Number(mixes(node))
    if (k < from) continue
    let wide = node.kind === 'input' ? input : intervalOf(node, boxes)
    rest[k] = restOf(node, boxes, wide, semantics)
    wide = rest[k] === undefined ? wide : plus(wide, rest[k] as Box)
    boxes[k] = clipped(intersection(wide, before?.boxes[k]), signs.get(k))
    if (isVoid(boxes[k])) return { signs, boxes, rest, isEmpty: true }
    if (method !== 'interval' && losses[k] > 1 && (relu.has(k) || max.has(k))) {
      const region = { signs, boxes, rest, isEmpty: false }
      boxes[k] = clipped(
        refined(network, region, k, max.has(k), method === 'crown' ? 'adaptive' : 'same', passes?.get(k)),
        signs.get(k),
      )
      if (isVoid(boxes[k])) return { signs, boxes, rest, isEmpty: true }
    }
  }
  return { signs, boxes, rest, isEmpty: false }
}

const mixes = (node: Node): boolean =>
  node.kind !== 'affine' || node.matrix.start.some((end, i, start) => i > 0 && end > start[i - 1] + 1)

/** A box made tighter by backward passes, where it is not decided on which side of 0 a value lies (or everywhere). The end that is nearer to 0 first: it may decide. */
const refined = (
  network: Network,
  region: Region,
  k: number,
  all: boolean,
  slope: Slope,
  [below, above]: readonly [Slopes?, Slopes?] = [],
): Box => {
  const { lower, upper, e } = region.boxes[k]
  const [low, high] = [lower.slice(), upper.slice()]
  const unit = 1n << BigInt(BOUND - e)
  for (let i = 0; i < low.length; i++) {
    const isOpen = () => low[i] <= high[i] && (all || (low[i] < 0 && high[i] > 0))
    for (const sign of high[i] < -low[i] ? [-1, 1] : [1, -1]) {
      if (!isOpen()) continue
      const row = new Float64Array(low.length)
      row[i] = sign
      const slopes = sign === 1 ? below : above
      const choices = slopes === undefined ? { slope } : { slope, slopes }
      const bound = floor(lowerOf(network, region, new Map([[k, { n: row, e: 0 }]]), choices), unit)
      // Beyond the other end it is empty, by however much.
      if (sign === 1 && bound > BigInt(low[i])) low[i] = Math.min(Number(bound), high[i] + 1)
      if (sign === -1 && -bound < BigInt(high[i])) high[i] = Math.max(Number(-bound), low[i] - 1)
    }
  }
  return boxOf(low, high, e)
}
