import { anatomy } from '../bounds/anatomy.ts'
import type { Boxes } from '../bounds/ibp.ts'
import type { Data } from '../compile/backend.ts'
import { programOf } from '../compile/program.ts'
import type { Region } from '../compile/region.ts'
import { order } from '../compile/tape.ts'
import { power } from '../core/number.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import { input, mul, subRounded } from '../ops/index.ts'
import { ascending, isRelu, leak, type Relaxation, relaxation } from '../robust/alpha-crown.ts'
import { type Budget, byNumber, OutOfTime } from '../robust/budget.ts'
import type { Subject } from './counterexample.ts'
import type { Box } from './goals.ts'
import { another, argumentsFor, firstOf, lastWalkNodes, type Way, walkNodes, wayNodes, ways } from './root-bounds.ts'
import type { WalkSlopes } from './trace.ts'

/** Boxes of the hidden nodes of one region of inputs, in the order of the graph. */
export interface HiddenBoxes {
  readonly lower: readonly Float32Array[]
  readonly upper: readonly Float32Array[]
}

/** Bounds of rows over a box, and of what is hidden. */
export interface Bounds {
  /** Lower bounds of the rows. */
  readonly lower: Float32Array
  /** How the box was bounded. */
  readonly way: string
  readonly hidden: HiddenBoxes
  /** Slopes of the ReLUs, in the order of the graph, for one row. */
  readonly slopes: (row: number) => readonly Float32Array[]
  /** Slopes of the walks that made the hidden boxes, or those of the iterate whose bound of a row is the best; none for CROWN's. */
  readonly walks?: ((row?: number) => readonly WalkSlopes[]) | undefined
}

/** Rows `spec . y - bound` of which lower bounds are wanted: coefficients `[rows, outputs]` one after the other. */
interface Wanted {
  readonly spec: readonly Float32Array[]
  readonly bound: readonly number[]
}

/** Bounds of a whole box. */
export interface Root {
  /** By CROWN or, where memory does not suffice or a line is missing, by what is cheaper. */
  readonly crown: (box: Box, wanted: Wanted) => Promise<Bounds>
  /** By CROWN in parts, where CROWN was too large. */
  readonly parts: Raising
  /** With the slopes of the walk from the output optimized and hidden boxes as they are: a small part of what alpha-CROWN costs. */
  readonly slopes: Raising
  /** By alpha-CROWN: hidden boxes, too. */
  readonly alpha: Raising
}

/** Raises bounds; `proved` says which rows need no more. Undefined where memory or time do not suffice. */
type Raising = (
  box: Box,
  wanted: Wanted,
  from: Bounds,
  proved: (lower: Float32Array) => readonly boolean[],
) => Promise<Bounds | undefined>

/** Updates of the slopes, and their step size. */
const ROOT = { steps: 24, lr: 0.25 }
/** An update costs about so many runs of CROWN; so many of them at least are worth the planning, if they take no more than a share of the time that is left. */
const [UPDATE, FEWEST, ALPHA_SHARE] = [5, 3, 0.5]

/** What bounds of a whole box are computed of, and where. */
interface Setting {
  readonly region: Region
  readonly budget: Budget
  readonly subject: Subject
  readonly rounding: Rounding
  /** Whether whatever is found can be made again from slopes that are told. */
  readonly trace: boolean
  /** Rough number of nodes of a graph of walks from every hidden node. */
  readonly nodes: number
  /** CROWN's slopes of the ReLUs, by the boxes of what they take. */
  readonly slopesOf: (boxes: HiddenBoxes) => readonly Float32Array[]
}

// ---- rows and boxes ----------------------------------------------------------------------------------------------------

const boxesOf = (hidden: readonly Tensor[], boxes: Boxes): readonly Interval[] =>
  hidden.map((h) => boxes.get(h) as Interval)

type Ends = { readonly lower: Data; readonly upper: Data }

const hiddenOf = (ends: readonly Ends[]): HiddenBoxes => ({
  lower: ends.map(({ lower }) => Float32Array.from(lower)),
  upper: ends.map(({ upper }) => Float32Array.from(upper)),
})
const endsOf = ({ lower, upper }: HiddenBoxes) => lower.map((l, h) => ({ lower: l, upper: upper[h] }))

/** Coefficients and bounds of `rows` rows, the wanted ones repeated. */
const filled = ({ spec, bound }: Wanted, rows: number, outputs: number) => {
  const coefficients = new Float32Array(rows * outputs)
  for (let r = 0; r < rows; r++) coefficients.set(spec[r % spec.length], r * outputs)
  return { spec: coefficients, bound: Float32Array.from({ length: rows }, (_, r) => bound[r % bound.length]) }
}

/** Every bound is sound, so a box is the intersection of all. A NaN stays: it says that nothing is known. */
const intersect = ({ lower, upper }: HiddenBoxes, ends: readonly Ends[]): void =>
  ends.forEach((end, h) => {
    for (let j = 0; j < end.lower.length; j++) {
      if (end.lower[j] > lower[h][j]) lower[h][j] = end.lower[j]
      if (end.upper[j] < upper[h][j]) upper[h][j] = end.upper[j]
    }
  })

/** The ReLUs of a graph, where their operands' boxes are among the hidden ones, and CROWN's slopes of their lower lines. */
const adaptive = (subject: Subject) => {
  const { y, boxes } = argumentsFor(subject, 1)
  const { boxed, hidden } = anatomy(y, boxes)
  const relus = order([y]).filter((r) => isRelu(r) && boxed.has(r))
  return ({ lower, upper }: HiddenBoxes): readonly Float32Array[] =>
    relus.map((r) => {
      const [h, low] = [hidden.indexOf(r.inputs[0]), leak(r)]
      const [l, u] = [lower[h], upper[h]]
      return l.map((v, j) => (v + u[j] > 0 ? 1 : low))
    })
}

/** 1, 2, 4, ...: so many rows of plan for so many that are wanted. */
const rounded = (rows: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, rows)))

/** What an attempt finds; undefined where memory, a rule or time is missing. */
const ifAble = async <A>(attempt: () => Promise<A>): Promise<A | undefined> => {
  try {
    return await attempt()
  } catch (e) {
    if (another(e) || e instanceof OutOfTime) return undefined
    throw e
  }
}

// ---- CROWN -------------------------------------------------------------------------------------------------------------

const crownProgram = ({ subject, rounding }: Setting, way: Way, rows: number) => {
  const { y, lower, upper, boxes, spec, bound } = argumentsFor(subject, rows)
  const hidden = way.hidden(y, boxes, rounding)
  const own = way.rows(y, boxes, hidden, rounding).rows(spec).lower
  return programOf(
    { lower, upper, spec, bound },
    { own: subRounded(own, bound, rounding), hidden: boxesOf(anatomy(y, boxes).hidden, hidden) },
  )
}

/** Bounds of a box by the first of some ways that memory and time suffice for: all rows at once, or one after the other. `planned` is told what a run of it costs. */
const crownBy = (setting: Setting, some: readonly Way[], planned: (seconds: () => number) => void): Root['crown'] => {
  const { region, budget, subject, nodes, slopesOf } = setting
  const programs = byNumber((rows) =>
    firstOf(
      some.flatMap((way) => [rows, ...(rows > 1 ? [1] : [])].map((r) => [way, r] as const)),
      async ([way, r], isLast) => {
        const size = Math.max(nodes, wayNodes(way, subject))
        const bounds = await budget.plan('bounding one box', size, () => crownProgram(setting, way, r))
        if (!isLast && bounds.seconds() * Math.ceil(rows / r) > 0.5 * budget.left())
          throw new OutOfTime('bounding one box')
        planned(bounds.seconds)
        return { rows: r, way: way.name, bounds }
      },
    ),
  )
  return async (box, wanted) => {
    const { rows, way, bounds } = await programs.at(rounded(wanted.spec.length))
    const lower = new Float32Array(wanted.spec.length)
    let hidden: HiddenBoxes = { lower: [], upper: [] }
    bounds.write(box)
    for (let at = 0; at < wanted.spec.length; at += rows) {
      const part = { spec: wanted.spec.slice(at, at + rows), bound: wanted.bound.slice(at, at + rows) }
      await bounds.run(filled(part, rows, subject.outputs))
      const own = at === 0 ? await bounds.read() : { own: await region.backend.read(bounds.buffers.own) }
      lower.set(own.own.subarray(0, part.spec.length), at)
      if ('hidden' in own) hidden = hiddenOf(own.hidden)
    }
    const slopes = slopesOf(hidden)
    return { lower, way, hidden, slopes: () => slopes }
  }
}

// ---- ascents of slopes -------------------------------------------------------------------------------------------------

/** An ascent of all slopes, or with hidden boxes given of those of the last walk. */
const slopesAscent = ({ subject, rounding, trace }: Setting, rows: number, isGiven: boolean) => {
  const { y, lower, upper, boxes, spec, bound } = argumentsFor(subject, rows)
  const weight = input('weight', [rows, 1])
  const hidden = (isGiven ? anatomy(y, boxes).hidden : []).map((h, i): [Tensor, Interval] => [
    h,
    interval(input(`lower.${i}`, h.shape), input(`upper.${i}`, h.shape)),
  ])
  const relaxed = relaxation(y, boxes, spec, new Map(hidden), rounding, trace ? 0 : undefined)
  return {
    relaxed,
    free: relaxed.slopes.map((s) => ({ ...s, high: 1 })),
    inputs: { lower, upper, spec, bound, weight, hidden: hidden.map(([, box]) => box) },
    graph: (values: readonly Tensor[]) => {
      const bounds = relaxed.bound(values)
      const own = subRounded(bounds.lower, bound, rounding)
      // Rows that are proved need not be raised further.
      const objective = mul(own, weight) as Tensor
      return { objective, outputs: { own, hidden: isGiven ? [] : boxesOf(relaxed.hidden, bounds.hidden) } }
    },
  }
}

/** Ascents by the number of rows. */
const ascentsFor = (setting: Setting, what: string, nodes: number, isGiven: boolean) =>
  byNumber(async (rows) => {
    let relaxed: Relaxation | undefined
    const optimizer = await ascending(setting.region, setting.budget)(what, nodes, () => {
      const ascent = slopesAscent(setting, rows, isGiven)
      relaxed = ascent.relaxed
      return ascent
    })
    return { optimizer, relaxed: relaxed as Relaxation, isGiven }
  })

/** Slopes of hidden walks, repeated for their rows and images, begin at CROWN's, those of the last one where its rows ended. */
const startOf = ({ slopes, order: all, relus }: Relaxation, from: Bounds, crowns: readonly Float32Array[]) =>
  slopes.map(({ shape, relu }, i) => {
    const at = all.indexOf(relu)
    const isLast = i >= slopes.length - relus.length
    const data = new Float32Array(S.size(shape))
    for (let r = 0, n = crowns[at].length; r * n < data.length; r++)
      data.set(isLast && r < from.lower.length ? from.slopes(r)[at] : crowns[at], r * n)
    return data
  })

/** The slopes of the walks to hidden nodes among all that an iterate has: NaN for ReLUs that are not on a walk. */
const walksOf = (
  { slopes, order: all, relus }: Relaxation,
  values: readonly ArrayLike<number>[],
): readonly WalkSlopes[] => {
  const sizes = all.map((r) => S.size(r.shape.slice(1)))
  const begins = sizes.map((_, i) => sizes.slice(0, i).reduce((a, b) => a + b, 0))
  const walks: (WalkSlopes & { readonly from: Tensor })[] = []
  for (const [i, { from, side, relu }] of slopes.slice(0, slopes.length - relus.length).entries()) {
    let walk = walks.find((w) => w.from === from && w.side === side)
    if (walk === undefined) {
      const own = new Float32Array(sizes.reduce((a, b) => a + b, 0)).fill(Number.NaN)
      walk = { from, side, relu: all.findIndex((r) => r.inputs[0] === from), slopes: own }
      walks.push(walk)
    }
    walk.slopes.set(Float32Array.from(values[i]), begins[all.indexOf(relu)])
  }
  return walks.filter(({ relu }) => relu >= 0).map(({ relu, side, slopes: own }) => ({ relu, side, slopes: own }))
}

/** What an ascent has found so far. With a trace the boxes of the last iterate alone count, and slopes are known by row. */
interface Found {
  /** The best bound of each row. */
  readonly lower: Float32Array
  readonly hidden: HiddenBoxes
  /** By row, the slopes that its best bound was computed from. */
  readonly usedBy: (readonly Data[] | undefined)[]
  /** Slopes and boxes of the last iterate. */
  last: readonly Data[]
  lastHidden: readonly Ends[]
}

/** Takes the next iterate into account: its bounds, its hidden boxes and, with a trace, its slopes. */
const improve = (found: Found, now: Data, hidden: readonly Ends[], traced: readonly Data[] | undefined): void => {
  if (traced === undefined) intersect(found.hidden, hidden)
  else {
    found.last = traced.map((d) => Float32Array.from(d))
    found.lastHidden = endsOf(hiddenOf(hidden))
  }
  for (let k = 0; k < found.lower.length; k++)
    if (now[k] > found.lower[k]) {
      found.lower[k] = now[k]
      found.usedBy[k] = found.last
    }
}

/** The bounds that an ascent found, from those that it began with. */
const boundsOf = (
  { trace }: Setting,
  relaxed: Relaxation,
  from: Bounds,
  found: Found,
  values: readonly Data[],
  wanted: number,
): Bounds => {
  const { usedBy, last, lastHidden } = found
  const rows = found.lower.length
  const ofRow = (all: readonly Data[], row: number) =>
    all.slice(-relaxed.relus.length).map((v) => {
      const n = v.length / rows
      return Float32Array.from(v.slice(row * n, (row + 1) * n))
    })
  if (trace) intersect(found.hidden, lastHidden)
  const common = { lower: found.lower.slice(0, wanted), way: from.way, hidden: found.hidden }
  if (!trace) return { ...common, slopes: (row) => ofRow(values, row) }
  return {
    ...common,
    slopes: (row) => {
      const used = usedBy[row]
      return used === undefined ? from.slopes(row) : ofRow(used, row)
    },
    walks: (row) => {
      const used = row === undefined ? last : usedBy[row]
      return lastHidden.length > 0 && used !== undefined ? walksOf(relaxed, used) : (from.walks?.(row) ?? [])
    },
  }
}

/** Ascends from bounds, if that can be afforded: some updates at least. */
const raisingBy =
  (setting: Setting, ascents: ReturnType<typeof ascentsFor>): Raising =>
  async (box, wanted, from, proved) => {
    const { budget, subject, trace, slopesOf } = setting
    const rows = rounded(wanted.spec.length)
    const made = await ifAble(async () => {
      const ascent = await ascents.at(rows)
      budget.afford(FEWEST * ascent.optimizer.seconds(), 'an ascent of slopes')
      return ascent
    })
    if (made === undefined) return undefined
    const { optimizer, relaxed, isGiven } = made
    const found: Found = {
      lower: Float32Array.from({ length: rows }, (_, r) => from.lower[r] ?? Number.NEGATIVE_INFINITY),
      hidden: hiddenOf(endsOf(from.hidden)),
      usedBy: new Array(rows).fill(undefined),
      last: [],
      lastHidden: [],
    }
    const open = () => {
      const done = proved(found.lower.subarray(0, wanted.spec.length))
      return Float32Array.from({ length: rows }, (_, r) => Number(r < done.length && !done[r]))
    }
    optimizer.write({
      ...box,
      ...filled(wanted, rows, subject.outputs),
      weight: open(),
      hidden: isGiven ? endsOf(found.hidden) : [],
    })
    optimizer.start(startOf(relaxed, from, slopesOf(from.hidden)))
    for (let t = 0; t <= ROOT.steps; t++) {
      if (t > 0 && optimizer.seconds() > 0.5 * budget.left()) break
      await optimizer.run(ROOT.lr * power(0.98, t))
      const { own, hidden } = await optimizer.read()
      improve(found, own, hidden, trace ? await optimizer.evaluated() : undefined)
      const weight = open()
      if (weight.every((w) => w === 0)) break
      optimizer.write({ weight })
    }
    return boundsOf(setting, relaxed, from, found, trace ? [] : await optimizer.values(), wanted.spec.length)
  }

/** With `trace`, whatever is found can be made again from slopes that are told: hidden boxes are those of the last iterate, and of CROWN. */
export const rootOf = (region: Region, budget: Budget, subject: Subject, rounding: Rounding, trace = false): Root => {
  const nodes = walkNodes(subject)
  const setting = { region, budget, subject, rounding, trace, nodes, slopesOf: adaptive(subject) }
  const [whole, inPieces, ...coarser] = ways(budget.memory, region.backend.dtype === 'f32' ? 4 : 8)
  /** Estimate of a run of CROWN as it was planned last. */
  let crownSeconds = () => Number.POSITIVE_INFINITY
  const planned = (seconds: () => number) => {
    crownSeconds = seconds
  }
  // What is cheap comes before what takes long: few rows at once are many walks.
  const crown = crownBy(setting, [whole, ...coarser], planned)
  const inParts = crownBy(setting, [inPieces], planned)
  const what = 'bounding one box'
  const last = ascentsFor(setting, `${what} with its slopes optimized`, 3 * lastWalkNodes(subject), true)
  const all = ascentsFor(setting, `${what} by alpha-CROWN`, 6 * nodes, false)
  const raisedByAll = raisingBy(setting, all)
  return {
    crown,
    parts: async (box, wanted, from) => {
      if (from.way === whole.name) return undefined
      const found = await ifAble(() => inParts(box, wanted))
      return found && { ...found, lower: found.lower.map((l, r) => (l > from.lower[r] ? l : from.lower[r])) }
    },
    slopes: raisingBy(setting, last),
    alpha: async (box, wanted, from, proved) =>
      FEWEST * UPDATE * crownSeconds() > ALPHA_SHARE * budget.left()
        ? undefined
        : raisedByAll(box, wanted, from, proved),
  }
}
