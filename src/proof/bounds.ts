import {
  absolute,
  ceiling,
  floor,
  greatest,
  least,
  plus,
  type Rational,
  rational,
  refuse,
  together,
  type Vector,
  vector,
  zeros,
} from './exact.ts'
import type { Matrix, Network, Node } from './network.ts'

/** What a claim is about: the network in real arithmetic, or every float32 execution of it as well (docs/proof.md, "Semantics"). */
export type Semantics = 'real' | 'deployed'

/** Boxes are kept on a grid of 2^-64, rounded outward. */
const GRID = 64n
const UNIT = 1n << GRID
/** 2^-64 units in which nothing is known. */
export interface Box {
  readonly lower: readonly bigint[]
  readonly upper: readonly bigint[]
}

/** A set of inputs, and of signs of values before ReLUs, with what is known of every value on it. */
export interface Region {
  readonly lower: Vector
  readonly upper: Vector
  /** By node before a ReLU: 1 where a value is taken to be >= 0, -1 where <= 0. */
  readonly signs: ReadonlyMap<number, ReadonlyMap<number, 1 | -1>>
  /** By node. Any point of the region has its values there. */
  readonly boxes: readonly Box[]
  /** By node: what an execution, or a factor that is not known exactly, may be off by, in grid units. */
  readonly slack: ReadonlyMap<number, readonly bigint[]>
}

export const isEmpty = ({ lower, upper, boxes }: Region): boolean =>
  apart(lower, upper) || boxes.some((b) => b.lower.some((l, i) => l > b.upper[i]))
const apart = (lower: Vector, upper: Vector): boolean => {
  const [l, u] = together(lower, upper)
  return l.some((x, i) => x > u[i])
}

// ---- executions in float32 (proofs/README.md) ---------------------------------------------------------------------------------------

/** gamma_n = n u / (1 - n u), u = 2^-24. */
const gamma = (n: number): Rational => {
  const [p, q] = [BigInt(n), (1n << 24n) - BigInt(n)]
  return n < 2 ** 20 ? rational(p, q) : refuse(`a sum of ${n} terms`)
}
const magnitude = ({ lower, upper }: Box): readonly bigint[] =>
  lower.map((l, i) => greatest(absolute(l), absolute(upper[i])))
/** More than 2^100 may overflow on the way. */
const HUGE = UNIT << 100n

/** What float32 executions of a node may be off by: a grid unit covers n + 1 underflows of 2^-149 each. */
const executionError = (node: Node, boxes: readonly Box[], own: Box): readonly bigint[] | undefined => {
  const off = (sizes: readonly bigint[], n: number): readonly bigint[] => {
    const g = gamma(n)
    return sizes.map((s) => (s > HUGE ? refuse('values that may overflow') : ceiling(s * g.n, g.d) + 1n))
  }
  switch (node.kind) {
    case 'matrix':
      return off(rowsOf(node.matrix, magnitude(boxes[node.from[0]])), node.terms + 1)
    case 'shift': {
      if (node.terms === undefined) return off(magnitude(own), 1)
      return off(
        node.by.n.map((n) => ceiling(absolute(n) * UNIT, node.by.d)),
        node.terms + 1,
      )
    }
    case 'sum':
    case 'scale':
      return off(magnitude(own), 1)
    case 'relu':
      return node.slope.n === 0n ? undefined : off(magnitude(own), 1)
    default:
      return undefined
  }
}
/** |W| x, rounded up. */
const rowsOf = ({ start, index, weight, d }: Matrix, x: readonly bigint[]): readonly bigint[] =>
  Array.from({ length: start.length - 1 }, (_, i) => {
    let total = 0n
    for (let k = start[i]; k < start[i + 1]; k++) total += absolute(weight[k]) * x[index[k]]
    return ceiling(total, d)
  })

// ---- interval arithmetic ------------------------------------------------------------------------------------------------------------

const scaledBox = (lower: readonly bigint[], upper: readonly bigint[], n: (i: number) => bigint, d: bigint): Box => ({
  lower: lower.map((l, i) => floor((n(i) >= 0n ? l : upper[i]) * n(i), d)),
  upper: upper.map((u, i) => ceiling((n(i) >= 0n ? u : lower[i]) * n(i), d)),
})

const intervalOf = (node: Node, boxes: readonly Box[], { lower, upper }: Pick<Region, 'lower' | 'upper'>): Box => {
  if (node.kind === 'input')
    return {
      lower: lower.n.map((n) => floor(n * UNIT, lower.d)),
      upper: upper.n.map((n) => ceiling(n * UNIT, upper.d)),
    }
  const [x, y] = node.from.map((k) => boxes[k])
  switch (node.kind) {
    case 'pick': {
      const all =
        node.from.length === 1
          ? x
          : { lower: node.from.flatMap((k) => boxes[k].lower), upper: node.from.flatMap((k) => boxes[k].upper) }
      const picked = (ends: readonly bigint[]) => Array.from(node.index, (i) => (i < 0 ? 0n : ends[i]))
      return { lower: picked(all.lower), upper: picked(all.upper) }
    }
    case 'sum':
      return node.sign === 1n
        ? { lower: x.lower.map((l, i) => l + y.lower[i]), upper: x.upper.map((u, i) => u + y.upper[i]) }
        : { lower: x.lower.map((l, i) => l - y.upper[i]), upper: x.upper.map((u, i) => u - y.lower[i]) }
    case 'shift':
      return {
        lower: x.lower.map((l, i) => l + floor(node.by.n[i] * UNIT, node.by.d)),
        upper: x.upper.map((u, i) => u + ceiling(node.by.n[i] * UNIT, node.by.d)),
      }
    case 'scale':
      return scaledBox(x.lower, x.upper, (i) => node.factor.n[i], node.factor.d)
    case 'matrix': {
      const { start, index, weight, d } = node.matrix
      const [low, high] = [new Array<bigint>(node.size), new Array<bigint>(node.size)]
      for (let i = 0; i < node.size; i++) {
        let [l, u] = [0n, 0n]
        for (let k = start[i]; k < start[i + 1]; k++) {
          const [w, j] = [weight[k], index[k]]
          l += w * (w >= 0n ? x.lower[j] : x.upper[j])
          u += w * (w >= 0n ? x.upper[j] : x.lower[j])
        }
        low[i] = floor(l, d)
        high[i] = ceiling(u, d)
      }
      return { lower: low, upper: high }
    }
    case 'relu': {
      const { n, d } = node.slope
      return {
        lower: x.lower.map((l) => (l >= 0n ? l : floor(l * n, d))),
        upper: x.upper.map((u) => (u >= 0n ? u : ceiling(u * n, d))),
      }
    }
    case 'max': {
      const { start, index } = node
      const of = (ends: readonly bigint[], i: number) =>
        Array.from(index.subarray(start[i], start[i + 1]), (j) => ends[j]).reduce(greatest)
      return {
        lower: Array.from({ length: node.size }, (_, i) => of(x.lower, i)),
        upper: Array.from({ length: node.size }, (_, i) => of(x.upper, i)),
      }
    }
    default:
      return node satisfies never
  }
}

// ---- the backward pass --------------------------------------------------------------------------------------------------------------

/** Binary places of slopes. */
const PLACES = 12n
const ONE = 1n << PLACES
/** Coefficients finer than 2^-COARSE are rounded, for what the difference can amount to. */
const COARSE = 96n

/** What a functional takes besides its coefficients: slopes of lower lines by ReLU node (in 2^-12), and multipliers of signs by node before a ReLU. */
export interface Choices {
  readonly slopes?: ReadonlyMap<number, ReadonlyMap<number, bigint>>
  readonly multipliers?: ReadonlyMap<number, ReadonlyMap<number, Rational>>
}

/** Coefficients of several functionals, each a row over the elements of one node, over one denominator. */
interface Rows {
  readonly n: readonly (readonly bigint[])[]
  readonly d: bigint
}
/** What each functional gains at a node. */
interface Step {
  readonly coefficients: readonly (readonly [to: number, rows: Rows])[]
  /** One a row, over one denominator; absent where it is 0. */
  readonly gained?: { readonly n: readonly bigint[]; readonly d: bigint }
}

const summed = (a: Rows, b: Rows): Rows => {
  const pairs = a.n.map((row, r) => together({ n: row, d: a.d }, { n: b.n[r], d: b.d }))
  return { n: pairs.map(([p, q]) => p.map((x, i) => x + q[i])), d: pairs[0][2] }
}

/**
 * Lower bounds of functionals on a region, each sum over nodes of coefficients . values + constant, by one pass from the last node to the input: at each node the
 * coefficients of its operands, exactly, and what a ReLU's lines add.
 */
const lowerBounds = (
  { nodes }: Network,
  region: Region,
  functionals: ReadonlyMap<number, Rows>,
  constants: Vector,
  choices: Choices,
): readonly Rational[] => {
  const open = new Map<number, Rows>()
  let bounds = constants
  const gain = (by: Vector | undefined): void => {
    if (by !== undefined) bounds = plus(bounds, by)
  }
  const give = (to: number, a: Rows): void => {
    const there = open.get(to)
    open.set(to, there === undefined ? a : summed(there, a))
  }
  for (const [node, a] of functionals) give(node, a)
  for (let k = nodes.length - 1; k >= 0; k--) {
    const added = signed(region.signs.get(k), choices.multipliers?.get(k), nodes[k].size)
    if (added !== undefined) give(k, { n: bounds.n.map(() => added.n), d: added.d })
    const fine = open.get(k)
    if (fine === undefined) continue
    open.delete(k)
    const a = coarser(fine, region.boxes[k], gain)
    const slack = region.slack.get(k)
    if (slack !== undefined)
      gain({ n: a.n.map((row) => -row.reduce((sum, c, i) => sum + absolute(c) * slack[i], 0n)), d: a.d * UNIT })
    const { coefficients, gained } = backward(nodes[k], a, region, choices.slopes?.get(k))
    gain(gained)
    for (const [to, c] of coefficients) give(to, c)
  }
  return bounds.n.map((n) => rational(n, bounds.d))
}

/** A lower bound of one functional. */
export const lowerBound = (
  network: Network,
  region: Region,
  functional: ReadonlyMap<number, Vector>,
  constant: Rational,
  choices: Choices = {},
): Rational => {
  const rows = new Map([...functional].map(([k, { n, d }]) => [k, { n: [n], d }]))
  return lowerBounds(network, region, rows, { n: [constant.n], d: constant.d }, choices)[0]
}

/** sign z >= 0 on the region, so m sign z, m >= 0, may be taken from the functional: the coefficients -m sign. */
const signed = (
  signs: ReadonlyMap<number, 1 | -1> | undefined,
  multipliers: ReadonlyMap<number, Rational> | undefined,
  size: number,
): Vector | undefined => {
  if (multipliers === undefined) return undefined
  const all: Rational[] = new Array(size).fill(NOTHING)
  for (const [i, m] of multipliers) {
    const sign = signs?.get(i) ?? refuse('a multiplier of a sign that is not set')
    if (m.n < 0n) refuse('a negative multiplier')
    all[i] = rational(-BigInt(sign) * m.n, m.d)
  }
  return vector(all)
}
const NOTHING = rational(0n)

const coarser = ({ n, d }: Rows, box: Box, gain: (by: Vector) => void): Rows => {
  const fine = 1n << COARSE
  if (d <= fine) return { n, d }
  const sizes = magnitude(box)
  const lost = n.map(() => 0n)
  const shift = (d & (d - 1n)) === 0n ? BigInt(d.toString(2).length - 1) - COARSE : undefined
  const rounded = n.map((row, r) =>
    row.map((x, i) => {
      if (x === 0n) return x
      const y = shift === undefined ? floor(x * fine, d) : x >> shift
      // x / d = (y + r) / fine with 0 <= r < 1.
      if (y * d !== x * fine) lost[r] -= sizes[i]
      return y
    }),
  )
  gain({ n: lost, d: fine * UNIT })
  return { n: rounded, d: fine }
}

const backward = (
  node: Node,
  { n: rows, d }: Rows,
  region: Region,
  slopes: ReadonlyMap<number, bigint> | undefined,
): Step => {
  switch (node.kind) {
    case 'input': {
      // The least of a . x on the box.
      const [l, u, e] = together(region.lower, region.upper)
      return {
        coefficients: [],
        gained: { n: rows.map((a) => a.reduce((sum, c, i) => sum + c * (c >= 0n ? l[i] : u[i]), 0n)), d: d * e },
      }
    }
    case 'pick': {
      const sizes = node.from.map((k) => region.boxes[k].lower.length)
      const all = rows.map((a) => {
        const given = new Array<bigint>(sizes.reduce((x, y) => x + y, 0)).fill(0n)
        for (const [i, j] of node.index.entries()) if (j >= 0) given[j] += a[i]
        return given
      })
      const ends = sizes.map((_, k) => sizes.slice(0, k + 1).reduce((x, y) => x + y, 0))
      return {
        coefficients: node.from.map((to, k) => [to, { n: all.map((a) => a.slice(ends[k] - sizes[k], ends[k])), d }]),
      }
    }
    case 'sum': {
      const second = node.sign === 1n ? rows : rows.map((a) => a.map((c) => -c))
      return {
        coefficients: [
          [node.from[0], { n: rows, d }],
          [node.from[1], { n: second, d }],
        ],
      }
    }
    case 'shift':
      return {
        coefficients: [[node.from[0], { n: rows, d }]],
        gained: { n: rows.map((a) => a.reduce((sum, c, i) => sum + c * node.by.n[i], 0n)), d: d * node.by.d },
      }
    case 'scale':
      return {
        coefficients: [
          [node.from[0], { n: rows.map((a) => a.map((c, i) => c * node.factor.n[i])), d: d * node.factor.d }],
        ],
      }
    case 'matrix':
      return {
        coefficients: [
          [
            node.from[0],
            { n: transposed(node.matrix, rows, region.boxes[node.from[0]].lower.length), d: d * node.matrix.d },
          ],
        ],
      }
    case 'relu':
      return throughRelu(node, { n: rows, d }, region.boxes[node.from[0]], slopes)
    case 'max':
      return throughMax(node, { n: rows, d }, region.boxes[node.from[0]])
    default:
      return node satisfies never
  }
}

/** Rows times a matrix. Several rows are taken at once, as the digits of one number for each element. */
const transposed = (m: Matrix, rows: readonly (readonly bigint[])[], size: number): readonly (readonly bigint[])[] => {
  if (rows.length === 1) return [timesMatrix(m, rows[0], size)]
  const bits = (xs: readonly bigint[]): number =>
    xs.reduce((most, x) => greatest(most, absolute(x)), 1n).toString(2).length
  // Each sum has at most as many terms as the matrix has rows.
  const width =
    4 * Math.ceil((Math.max(...rows.map(bits)) + bits(m.weight) + m.start.length.toString(2).length + 2) / 4)
  const digits = digitsOf(rows.length, width)
  const packed = rows[0].map((_, i) => (rows.every((a) => a[i] === 0n) ? 0n : digits.join(rows.map((a) => a[i]))))
  const columns = timesMatrix(m, packed, size).map((x) => (x === 0n ? undefined : digits.split(x)))
  return rows.map((_, r) => columns.map((c) => (c === undefined ? 0n : c[r])))
}
const timesMatrix = ({ start, index, weight }: Matrix, a: readonly bigint[], size: number): readonly bigint[] => {
  const sums = new Array<bigint>(size).fill(0n)
  for (let i = 0; i < a.length; i++) {
    const c = a[i]
    if (c !== 0n) for (let k = start[i]; k < start[i + 1]; k++) sums[index[k]] += c * weight[k]
  }
  return sums
}
/** Numbers below 2^(width - 1) in magnitude as the digits of one number to the base 2^width, and back. */
const digitsOf = (count: number, width: number) => {
  const half = 1n << BigInt(width - 1)
  const hexadecimal = width / 4
  const halves = BigInt(`0x${half.toString(16).padStart(hexadecimal, '0').repeat(count)}`)
  return {
    join: (xs: readonly bigint[]): bigint =>
      BigInt(`0x${xs.map((x) => (x + half).toString(16).padStart(hexadecimal, '0')).join('')}`) - halves,
    split: (x: bigint): readonly bigint[] => {
      const text = (x + halves).toString(16).padStart(count * hexadecimal, '0')
      return Array.from(
        { length: count },
        (_, r) => BigInt(`0x${text.slice(r * hexadecimal, (r + 1) * hexadecimal)}`) - half,
      )
    },
  }
}

/**
 * x = max(s z, z) with z in [l, u]: x >= p z for p between s and 1; x <= q z + t for any q, with t the larger of what is missing at l and u. p is the one that was
 * chosen, else 1 where u > -l, else s; q is the slope of the chord, rounded.
 */
const throughRelu = (
  node: Node & { kind: 'relu' },
  { n: rows, d }: Rows,
  { lower, upper }: Box,
  slopes: ReadonlyMap<number, bigint> | undefined,
): Step => {
  const { n: s, d: e } = node.slope
  // All slopes over ONE e.
  const [all, none] = [ONE * e, s * ONE]
  const lines = lower.map((l, i) => {
    const u = upper[i]
    if (l >= 0n) return { p: all, q: all, t: 0n }
    if (u <= 0n) return { p: none, q: none, t: 0n }
    const chosen = slopes?.get(i)
    const p = chosen === undefined ? (u > -l ? all : none) : greatest(none, least(all, chosen * e))
    const q = floor((u * all - l * none) * ONE, (u - l) * all) * e
    return { p, q, t: greatest(l * (none - q), u * (all - q)) }
  })
  const gained = rows.map((a) => a.reduce((sum, c, i) => (c < 0n ? sum + c * lines[i].t : sum), 0n))
  const n = rows.map((a) => a.map((c, i) => c * (c > 0n ? lines[i].p : lines[i].q)))
  return { coefficients: [[node.from[0], { n, d: d * all }]], gained: { n: gained, d: d * all * UNIT } }
}

/** The largest of a window: the element that is above all others, where there is one; else at least the one with the largest lower end, at most the largest upper end. */
const throughMax = (node: Node & { kind: 'max' }, { n: rows, d }: Rows, { lower, upper }: Box): Step => {
  const windows = Array.from({ length: node.size }, (_, i) => {
    const window = node.index.subarray(node.start[i], node.start[i + 1])
    const best = window.reduce((m, j) => (lower[j] > lower[m] ? j : m))
    const top = window.reduce((m, j) => (upper[j] > upper[m] ? j : m))
    return { best, most: upper[top], only: window.every((j) => j === best || upper[j] <= lower[best]) }
  })
  const gained = rows.map((a) =>
    a.reduce((sum, c, i) => (c < 0n && !windows[i].only ? sum + c * windows[i].most : sum), 0n),
  )
  const n = rows.map((a) => {
    const given = new Array<bigint>(lower.length).fill(0n)
    for (const [i, c] of a.entries()) if (c > 0n || windows[i].only) given[windows[i].best] += c
    return given
  })
  return { coefficients: [[node.from[0], { n, d }]], gained: { n: gained, d: d * UNIT } }
}

// ---- what is known on a region ---------------------------------------------------------------------------------------------------

const clipped = (box: Box, signs: ReadonlyMap<number, 1 | -1> | undefined): Box => {
  if (signs === undefined) return box
  const [lower, upper] = [[...box.lower], [...box.upper]]
  for (const [i, sign] of signs) {
    if (sign === 1) lower[i] = greatest(lower[i], 0n)
    else upper[i] = least(upper[i], 0n)
  }
  return { lower, upper }
}
const intersection = (a: Box, b: Box | undefined): Box =>
  b === undefined
    ? a
    : { lower: a.lower.map((l, i) => greatest(l, b.lower[i])), upper: a.upper.map((u, i) => least(u, b.upper[i])) }

/**
 * The boxes of a region: intervals node by node, cut to what is known already and to the signs; with `crown`, values before ReLUs and maxima that are not decided by
 * these are bounded by backward passes, too.
 */
export const known = (
  network: Network,
  semantics: Semantics,
  {
    lower,
    upper,
    signs,
    boxes: before,
  }: Pick<Region, 'lower' | 'upper' | 'signs'> & { readonly boxes?: readonly Box[] },
  method: 'interval' | 'crown',
): Region => {
  if (semantics === 'deployed' && network.realOnly !== undefined)
    refuse(`float32 executions are not covered: ${network.realOnly}`)
  const { nodes } = network
  const boxes: Box[] = []
  const slack = new Map<number, readonly bigint[]>()
  const relu = new Set(nodes.flatMap((n) => (n.kind === 'relu' ? [n.from[0]] : [])))
  const max = new Set(nodes.flatMap((n) => (n.kind === 'max' ? [n.from[0]] : [])))
  const region: Region = { lower, upper, signs, boxes, slack }
  for (const [k, node] of nodes.entries()) {
    const exact = intervalOf(node, boxes, region)
    const off = errorOf(node, boxes, exact, semantics)
    if (off !== undefined) slack.set(k, off)
    const wide =
      off === undefined
        ? exact
        : { lower: exact.lower.map((l, i) => l - off[i]), upper: exact.upper.map((u, i) => u + off[i]) }
    boxes[k] = intersection(clipped(wide, signs.get(k)), before?.[k])
    if (method === 'crown' && k > 0 && (relu.has(k) || max.has(k)))
      boxes[k] = clipped(refined(network, region, k, max.has(k)), signs.get(k))
  }
  return region
}

const errorOf = (node: Node, boxes: readonly Box[], own: Box, semantics: Semantics): readonly bigint[] | undefined => {
  if (semantics === 'deployed') return executionError(node, boxes, own)
  if (node.kind !== 'scale' || node.error === undefined) return undefined
  const { n, d } = node.error
  return magnitude(boxes[node.from[0]]).map((m) => ceiling(m * n, d))
}

/** Rows that are bounded at once. */
const TOGETHER = 64

/** A box made tighter by backward passes, where it is not decided on which side of 0 a value lies (or everywhere). */
const refined = (network: Network, region: Region, k: number, all: boolean): Box => {
  const [lower, upper] = [[...region.boxes[k].lower], [...region.boxes[k].upper]]
  const asked = [...lower.keys()].filter((i) => lower[i] <= upper[i] && (all || (lower[i] < 0n && upper[i] > 0n)))
  for (let begin = 0; begin < asked.length; begin += TOGETHER) {
    const part = asked.slice(begin, begin + TOGETHER)
    const unit = (i: number, c: bigint) => lower.map((_, j) => (j === i ? c : 0n))
    const rows = { n: part.flatMap((i) => [unit(i, 1n), unit(i, -1n)]), d: 1n }
    const bounds = lowerBounds(network, region, new Map([[k, rows]]), zeros(rows.n.length), {})
    for (const [p, i] of part.entries()) {
      const [low, high] = [bounds[2 * p], bounds[2 * p + 1]]
      lower[i] = greatest(lower[i], floor(low.n * UNIT, low.d))
      upper[i] = least(upper[i], ceiling(-high.n * UNIT, high.d))
    }
  }
  return { lower, upper }
}
