import { anatomy } from '../bounds/anatomy.ts'
import type { Boxes } from '../bounds/ibp.ts'
import type { Data } from '../compile/backend.ts'
import type { Region } from '../compile/region.ts'
import { order } from '../compile/tape.ts'
import { MixtrainException } from '../core/error.ts'
import { power } from '../core/number.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import { concat, constant, input, mul, pad, reshape, subRounded, transpose } from '../ops/index.ts'
import { ascending, isRelu, leak, type Relaxation, relaxation } from '../robust/alpha-crown.ts'
import { type Bounder, crown, crownIbp, ibp } from '../robust/bounds.ts'
import { argumentsOf, type Budget, type Graph, OutOfTime } from '../robust/budget.ts'
import { boundedOutputOf, type Subject } from './counterexample.ts'
import type { Box } from './goals.ts'
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
export interface Wanted {
  readonly spec: readonly Float32Array[]
  readonly bound: readonly number[]
}

/** Updates of the slopes, and their step size. */
const ROOT = { steps: 24, lr: 0.25 }
/** An update costs about so many runs of CROWN; so many of them at least are worth the planning, if they take no more than a share of the time that is left. */
const [UPDATE, FEWEST, ALPHA_SHARE] = [5, 3, 0.5]

// ---- ways to bound, the best first -----------------------------------------------------------------------------------

/** The box of a node from the bounds of its elements, so many at a time: what one walk holds is shared by no other. */
const inParts = (method: Bounder, per: number, x: Tensor, boxes: Boxes, known: Boxes, rounding: Rounding): Interval => {
  const shape = x.shape.slice(1)
  const count = S.size(shape)
  const bounded = method(x, boxes, known, rounding)
  const part = (from: number): Interval => {
    const rows = Math.min(per, count - from)
    const eye = constant(
      Float32Array.from({ length: rows * rows }, (_, i) => Number(i % (rows + 1) === 0)),
      [rows, rows],
    )
    const spread = pad(eye, [0, from], [0, count - from - rows])
    return bounded.rows(reshape(spread, [rows, 1, ...shape]))
  }
  const all = Array.from({ length: Math.ceil(count / per) }, (_, i) => part(i * per))
  const back = (ends: readonly Tensor[]) =>
    reshape(transpose(ends.length === 1 ? ends[0] : concat(ends, 0), [1, 0]) as Tensor, x.shape)
  return interval(back(all.map((i) => i.lower)), back(all.map((i) => i.upper)))
}

/** How hidden boxes and rows are bounded. */
export interface Way {
  readonly name: string
  /** Its graph's nodes, as a share of those of walks from every hidden node. */
  readonly share: number
  /** How many walks that takes, where it is not one from every hidden node. */
  readonly walks?: (output: Tensor, boxes: Boxes) => number
  readonly hidden: (output: Tensor, boxes: Boxes, rounding: Rounding) => Boxes
  readonly rows: Bounder
}

/** Values that walks of so many elements of rows may hold at once, as a share of the memory. */
const SHARE = 1 / 96

/**
 * From the tightest to the cheapest: CROWN with all rows of a layer at once; with few rows at once; hidden boxes by interval propagation (CROWN-IBP); and interval
 * propagation alone, for what has no lines.
 */
export const ways = (memory: number, width: number): readonly Way[] => {
  const own = (method: Bounder) => (output: Tensor, boxes: Boxes, rounding: Rounding) => {
    const bounded = method(output, boxes, undefined, rounding)
    return new Map(anatomy(output, boxes).hidden.map((h) => [h, bounded.node(h)]))
  }
  /** The hidden nodes, and of how many elements at once each is bounded. */
  const cut = (output: Tensor, boxes: Boxes) => {
    const { hidden, boxed } = anatomy(output, boxes)
    const largest = [...boxed].reduce((most, x) => Math.max(most, S.size(x.shape)), 1)
    return { hidden, per: Math.max(1, Math.floor((memory * SHARE) / (width * largest))) }
  }
  const parts = (output: Tensor, boxes: Boxes, rounding: Rounding): Boxes => {
    const { hidden, per } = cut(output, boxes)
    return hidden.reduce<Boxes>(
      (known, h) => new Map(known).set(h, inParts(crown, per, h, boxes, known, rounding)),
      new Map(),
    )
  }
  return [
    { name: 'CROWN', share: 1, hidden: own(crown), rows: crown },
    {
      name: 'CROWN in parts',
      share: 3,
      walks: (output, boxes) => {
        const { hidden, per } = cut(output, boxes)
        return hidden.reduce((n, h) => n + Math.ceil(S.size(h.shape) / per), 0)
      },
      hidden: parts,
      rows: crown,
    },
    { name: 'CROWN-IBP', share: 0.2, hidden: own(crownIbp), rows: crown },
    { name: 'intervals', share: 0.05, hidden: own(ibp), rows: ibp },
  ]
}

/** Rough numbers of nodes: of the graph of a walk from the output, and of one from every hidden node besides. */
const nodesOf = (subject: Subject): { readonly walk: number; readonly all: number } => {
  const x = input('x', [1, ...subject.input])
  const y = boundedOutputOf(subject, x)
  const { hidden } = anatomy(y, new Map([[x, interval(x, x)]]))
  const walk = 24 * order([y]).length
  return { walk, all: (walk / 2) * (hidden.length + 2) }
}
export const walkNodes = (subject: Subject): number => nodesOf(subject).all
/** Where boxes of hidden nodes are given. */
export const lastWalkNodes = (subject: Subject): number => nodesOf(subject).walk

/** The nodes of the graph of a way, by its share or its walks. */
export const wayNodes = ({ share, walks }: Way, subject: Subject): number => {
  if (walks === undefined) return share * walkNodes(subject)
  const { y, boxes } = argumentsFor(subject, 1)
  return Math.max(share * walkNodes(subject), 0.5 * lastWalkNodes(subject) * (walks(y, boxes) + 2))
}

/** Whether bounds of a network that round so are refused, whatever the way. */
export const refusedBy = (subject: Subject, rounding: Rounding): boolean => {
  const { y, boxes, spec } = argumentsFor(subject, 1)
  try {
    crown(y, boxes, undefined, rounding).rows(spec)
    return false
  } catch {
    return true
  }
}

/** Whether an error says that another way may do. */
export const another = (e: unknown): e is MixtrainException =>
  e instanceof MixtrainException && (e.error.kind === 'memory' || e.error.kind === 'unsupported')

/** The first of some ways that memory and time suffice for; where none is, the first error, one of time before others. */
export const firstOf = async <A, B>(
  ways: readonly A[],
  attempt: (way: A, isLast: boolean) => Promise<B>,
): Promise<B> => {
  let refused: unknown
  for (const [i, way] of ways.entries()) {
    try {
      return await attempt(way, i === ways.length - 1)
    } catch (e) {
      if (!another(e) && !(e instanceof OutOfTime)) throw e
      // Where time alone was missing somewhere, more of it may do.
      if (refused === undefined || (e instanceof OutOfTime && !(refused instanceof OutOfTime))) refused = e
    }
  }
  throw refused
}

// ---- the whole box ---------------------------------------------------------------------------------------------------

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
export type Raising = (
  box: Box,
  wanted: Wanted,
  from: Bounds,
  proved: (lower: Float32Array) => readonly boolean[],
) => Promise<Bounds | undefined>

/** A network over a box, and rows of which bounds are wanted, as inputs of a graph. */
export const argumentsFor = (subject: Subject, rows: number) => {
  const x = input('x', [1, ...subject.input])
  const [lower, upper] = [input('lower', x.shape), input('upper', x.shape)]
  const boxes: Boxes = new Map([[x, interval(lower, upper)]])
  const y = boundedOutputOf(subject, x)
  const [spec, bound] = [input('spec', [rows, 1, subject.outputs]), input('bound', [rows, 1])]
  return { y, lower, upper, boxes, spec, bound }
}

const endsOf = (hidden: readonly Tensor[], boxes: Boxes): readonly Tensor[] =>
  hidden.flatMap((h) => {
    const { lower, upper } = boxes.get(h) as Interval
    return [lower, upper]
  })

/** Coefficients and bounds of `rows` rows, the wanted ones repeated. */
const filled = ({ spec, bound }: Wanted, rows: number, outputs: number) => {
  const coefficients = new Float32Array(rows * outputs)
  for (let r = 0; r < rows; r++) coefficients.set(spec[r % spec.length], r * outputs)
  return { coefficients, offsets: Float32Array.from({ length: rows }, (_, r) => bound[r % bound.length]) }
}

/** Every bound is sound, so a box is the intersection of all. A NaN stays: it says that nothing is known. */
const intersect = (boxes: readonly Float32Array[], ends: readonly ArrayLike<number>[]): void =>
  ends.forEach((end, i) => {
    for (let j = 0; j < end.length; j++)
      if (i % 2 === 0 ? end[j] > boxes[i][j] : end[j] < boxes[i][j]) boxes[i][j] = end[j]
  })
const copied = (data: readonly ArrayLike<number>[]): readonly Float32Array[] => data.map((d) => Float32Array.from(d))

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

const hiddenOf = (ends: readonly Float32Array[]): HiddenBoxes => ({
  lower: ends.filter((_, i) => i % 2 === 0),
  upper: ends.filter((_, i) => i % 2 === 1),
})

/** The ReLUs of a graph, where their operands' boxes are among the hidden ones, and CROWN's slopes of their lower lines. */
const adaptive = (y: Tensor, boxes: Boxes) => {
  const { boxed, hidden } = anatomy(y, boxes)
  const relus = order([y]).filter((r) => isRelu(r) && boxed.has(r))
  return (boxes: HiddenBoxes): readonly Float32Array[] =>
    relus.map((r) => {
      const [h, low] = [hidden.indexOf(r.inputs[0]), leak(r)]
      const [l, u] = [boxes.lower[h], boxes.upper[h]]
      return l.map((v, j) => (v + u[j] > 0 ? 1 : low))
    })
}

/** Plans for a number of rows, made when first asked for. */
const byRows = <A>(make: (rows: number) => Promise<A>) => {
  const made = new Map<number, Promise<A>>()
  return (rows: number): Promise<A> => {
    const known = made.get(rows) ?? make(rows)
    made.set(rows, known)
    known.catch(() => made.delete(rows))
    return known
  }
}

/** 1, 2, 4, ...: so many rows of plan for so many that are wanted. */
const rounded = (rows: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, rows)))

/** With `trace`, whatever is found can be made again from slopes that are told: hidden boxes are those of the last iterate, and of CROWN. */
export const rootOf = (region: Region, budget: Budget, subject: Subject, rounding: Rounding, trace = false): Root => {
  const { backend } = region
  const width = backend.dtype === 'f32' ? 4 : 8
  const nodes = walkNodes(subject)

  const crownGraph = (way: Way, rows: number): Graph => {
    const { y, lower, upper, boxes, spec, bound } = argumentsFor(subject, rows)
    const hidden = way.hidden(y, boxes, rounding)
    const own = way.rows(y, boxes, hidden, rounding).rows(spec).lower
    return {
      inputs: [lower, upper, spec, bound],
      outputs: [subRounded(own, bound, rounding), ...endsOf(anatomy(y, boxes).hidden, hidden)],
    }
  }
  /** Estimate of a run of the plan that was made last. */
  let crownSeconds = () => Number.POSITIVE_INFINITY
  const [whole, inPieces, ...coarser] = ways(budget.memory, width)
  const crownBy = (some: readonly Way[]) =>
    byRows((rows) =>
      // All rows at once, or one after the other.
      firstOf(
        some.flatMap((way) => [rows, ...(rows > 1 ? [1] : [])].map((r) => [way, r] as const)),
        async ([way, r], isLast) => {
          let graph: Graph | undefined
          const plan = await budget.plan('bounding one box', Math.max(nodes, wayNodes(way, subject)), () => {
            graph = crownGraph(way, r)
            return graph
          })
          if (!isLast && plan.seconds() * Math.ceil(rows / r) > 0.5 * budget.left())
            throw new OutOfTime('bounding one box')
          const { inputs, outputs } = graph as Graph
          crownSeconds = plan.seconds
          return {
            rows: r,
            way: way.name,
            plan,
            given: argumentsOf(region, inputs),
            results: argumentsOf(region, outputs),
          }
        },
      ),
    )
  // What is cheap comes before what takes long: few rows at once are many walks.
  const [crownFor, partsFor] = [crownBy([whole, ...coarser]), crownBy([inPieces])]

  /** An ascent of all slopes, or with hidden boxes given of those of the last walk. */
  const ascentFor = (what: string, size: number, isGiven: boolean) =>
    byRows(async (rows) => {
      let relaxed: ReturnType<typeof relaxation> | undefined
      const optimizer = await ascending(region, budget)(what, size, () => {
        const { y, lower, upper, boxes, spec, bound } = argumentsFor(subject, rows)
        const weight = input('weight', [rows, 1])
        const known: Boxes = isGiven
          ? new Map(
              anatomy(y, boxes).hidden.map((h, i): [Tensor, Interval] => [
                h,
                interval(input(`lower.${i}`, h.shape), input(`upper.${i}`, h.shape)),
              ]),
            )
          : new Map()
        const made = relaxation(y, boxes, spec, known, rounding, trace ? 0 : undefined)
        relaxed = made
        return {
          free: made.slopes.map((s) => ({ ...s, high: 1 })),
          inputs: [lower, upper, spec, bound, weight, ...endsOf([...known.keys()], known)],
          graph: (values) => {
            const bounds = made.bound(values)
            const own = subRounded(bounds.lower, bound, rounding)
            // Rows that are proved need not be raised further.
            const ends = isGiven ? [] : endsOf(made.hidden, bounds.hidden)
            return { objective: mul(own, weight) as Tensor, outputs: [own, ...ends] }
          },
        }
      })
      return { optimizer, relaxed: relaxed as NonNullable<typeof relaxed> }
    })
  const lastFor = ascentFor('bounding one box with its slopes optimized', 3 * lastWalkNodes(subject), true)
  const alphaFor = ascentFor('bounding one box by alpha-CROWN', 6 * nodes, false)
  const slopesOf = (() => {
    const { y, boxes } = argumentsFor(subject, 1)
    return adaptive(y, boxes)
  })()

  const bounded = async (planned: ReturnType<typeof crownBy>, box: Box, wanted: Wanted): Promise<Bounds> => {
    const { rows, way, plan, given, results } = await planned(rounded(wanted.spec.length))
    const lower = new Float32Array(wanted.spec.length)
    let ends: Float32Array[] = []
    given.write(0, box.lower)
    given.write(1, box.upper)
    for (let at = 0; at < wanted.spec.length; at += rows) {
      const some = { spec: wanted.spec.slice(at, at + rows), bound: wanted.bound.slice(at, at + rows) }
      const { coefficients, offsets } = filled(some, rows, subject.outputs)
      given.write(2, coefficients)
      given.write(3, offsets)
      await plan.run([...given.all, ...results.all])
      lower.set(Array.from(await results.read(0)).slice(0, some.spec.length), at)
      if (at > 0) continue
      ends = []
      for (let i = 1; i < results.all.length; i++) ends.push(Float32Array.from(await results.read(i)))
    }
    const hidden = hiddenOf(ends)
    const slopes = slopesOf(hidden)
    return { lower, way, hidden, slopes: () => slopes }
  }

  /** Ascends from these bounds, if that can be afforded: some updates at least. */
  const raised = async (
    planned: ReturnType<typeof ascentFor>,
    box: Box,
    wanted: Wanted,
    from: Bounds,
    proved: (lower: Float32Array) => readonly boolean[],
  ): Promise<Bounds | undefined> => {
    const rows = rounded(wanted.spec.length)
    let made: Awaited<ReturnType<typeof planned>>
    try {
      made = await planned(rows)
      budget.afford(FEWEST * made.optimizer.seconds(), 'an ascent of slopes')
    } catch (e) {
      if (another(e) || e instanceof OutOfTime) return undefined
      throw e
    }
    const { optimizer, relaxed } = made
    const own = relaxed.relus.length
    const { coefficients, offsets } = filled(wanted, rows, subject.outputs)
    const boxes = from.hidden.lower.flatMap((l, h) => [l.slice(), from.hidden.upper[h].slice()])
    const write = (i: number, data: Float32Array) => backend.write(optimizer.inputs[i], data)
    for (const [i, data] of [box.lower, box.upper, coefficients, offsets].entries()) write(i, data)
    for (let i = 5; i < optimizer.inputs.length; i++) write(i, boxes[i - 5])
    const weights = (lower: Float32Array) => {
      const done = proved(lower.subarray(0, wanted.spec.length))
      return Float32Array.from({ length: rows }, (_, r) => Number(r < done.length && !done[r]))
    }
    const best = Float32Array.from({ length: rows }, (_, r) => from.lower[r] ?? Number.NEGATIVE_INFINITY)
    write(4, weights(best))
    const start = slopesOf(from.hidden)
    // Slopes of hidden walks, repeated for their rows and images, begin at CROWN's, those of the last one where its rows ended.
    optimizer.start(
      relaxed.slopes.map(({ shape, relu }, i) => {
        const at = relaxed.order.indexOf(relu)
        const isLast = i >= relaxed.slopes.length - own
        const data = new Float32Array(S.size(shape))
        for (let r = 0, n = start[at].length; r * n < data.length; r++)
          data.set(isLast && r < from.lower.length ? from.slopes(r)[at] : start[at], r * n)
        return data
      }),
    )
    /** By row, the slopes that its best bound was computed from; and those of the last iterate. */
    const usedBy: (readonly Data[] | undefined)[] = new Array(rows).fill(undefined)
    let [last, lastEnds]: [readonly Data[], readonly ArrayLike<number>[]] = [[], []]
    for (let t = 0; t <= ROOT.steps; t++) {
      if (t > 0 && optimizer.seconds() > 0.5 * budget.left()) break
      await optimizer.run(ROOT.lr * power(0.98, t))
      const [now, ...ends] = await Promise.all(optimizer.outputs.map((b) => backend.read(b)))
      if (trace) [last, lastEnds] = [copied(await optimizer.evaluated()), copied(ends)]
      for (let k = 0; k < rows; k++)
        if (now[k] > best[k]) {
          best[k] = now[k]
          usedBy[k] = last
        }
      if (!trace) intersect(boxes, ends)
      const open = weights(best)
      if (open.every((w) => w === 0)) break
      write(4, open)
    }
    const ofRow = (values: readonly Data[], row: number) =>
      values.slice(-own).map((v) => {
        const n = v.length / rows
        return Float32Array.from(v.slice(row * n, (row + 1) * n))
      })
    const common = { lower: best.slice(0, wanted.spec.length), way: from.way, hidden: hiddenOf(boxes) }
    if (!trace) {
      const values = await optimizer.values()
      return { ...common, slopes: (row) => ofRow(values, row) }
    }
    intersect(boxes, lastEnds)
    const isHidden = lastEnds.length > 0
    return {
      ...common,
      slopes: (row) => (usedBy[row] === undefined ? from.slopes(row) : ofRow(usedBy[row], row)),
      walks: (row) => {
        const used = row === undefined ? last : usedBy[row]
        return isHidden && used !== undefined ? walksOf(relaxed, used) : (from.walks?.(row) ?? [])
      },
    }
  }

  return {
    crown: (box, wanted) => bounded(crownFor, box, wanted),
    parts: async (box, wanted, from) => {
      if (from.way === whole.name) return undefined
      try {
        const found = await bounded(partsFor, box, wanted)
        return { ...found, lower: found.lower.map((l, r) => (l > from.lower[r] ? l : from.lower[r])) }
      } catch (e) {
        if (another(e) || e instanceof OutOfTime) return undefined
        throw e
      }
    },
    slopes: (box, wanted, from, proved) => raised(lastFor, box, wanted, from, proved),
    alpha: async (box, wanted, from, proved) =>
      FEWEST * UPDATE * crownSeconds() > ALPHA_SHARE * budget.left()
        ? undefined
        : raised(alphaFor, box, wanted, from, proved),
  }
}
