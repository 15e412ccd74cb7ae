import { anatomy } from '../bounds/anatomy.ts'
import { forwardWhereWide } from '../bounds/forward-bounds.ts'
import type { Boxes } from '../bounds/ibp.ts'
import { linearBounds } from '../bounds/linear-bounds.ts'
import { roomFor } from '../compile/named.ts'
import { programOf } from '../compile/program.ts'
import { substitute } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import {
  add,
  greater,
  greaterEqual,
  input,
  max,
  maximum,
  mul,
  neg,
  probe,
  reshape,
  select,
  stopGradient,
  sub,
  subRounded,
  sum,
} from '../ops/index.ts'
import { crown, ibp, intersected } from '../robust/bounds.ts'
import type { Budget } from '../robust/budget.ts'
import { around, clipped, type Line } from './clip.ts'
import { boundedOutputOf, type Subject } from './counterexample.ts'
import { type Box, type Conjunction, type Extent, type Goal, grained, mixed, raised } from './goals.ts'
import { type Way, wayNodes, ways } from './root-bounds.ts'
import type { Placed } from './trace.ts'

/** A box of inputs, part of a goal's box. */
export interface Cell extends Placed {
  readonly goal: Goal
  readonly box: Box
  /** Lower bound of the largest row of each conjunction, less its tolerance: above 0 it is refuted. */
  readonly margins: Float64Array
  /** The least of them. */
  readonly lower: number
  /** The conjunction of that. */
  readonly conjunction: number
  /** Weights of the rows of each conjunction, for a row that is their mean. */
  readonly weights: readonly Float64Array[]
  /** Inputs to halve, the best first. */
  readonly next: readonly number[]
  /** Where the bound is least, and how far that is from a counterexample. */
  readonly point: Float32Array
  readonly violation: number
  readonly depth: number
  /** Whether the box became smaller when it was bounded, so that it may be bounded again as it is. */
  readonly shrunk: boolean
}

export interface InputOptions {
  readonly extent: Extent
  /** Whether boxes are clipped by the constraints: to where some conjunction may hold yet. */
  readonly clips: boolean
  /** Of the bounds. */
  readonly rounding: Rounding
}

/** Rows of a conjunction in a plan: its own and, if it has several, their weighted mean. */
const rowsOf = ({ rows }: Extent): number => (rows > 1 ? rows + 1 : 1)
/** How fast weights move. */
const RATE = 1.5
/** Coefficients of rows that are worth reading back, in order to clip the boxes of a batch. */
const COEFFICIENTS = 2 ** 20

/**
 * Bounds of a batch of boxes: `margin` of every row, where the least of them is, the output there, and what halving an input would gain. Hidden boxes by CROWN, each
 * intersected with interval propagation from those before it; the better of two slopes at the end.
 */
const programFor = (subject: Subject, { extent, rounding, clips }: InputOptions, way: Way, batch: number) => {
  const x = input('x', [batch, ...subject.input])
  const y = boundedOutputOf(subject, x)
  const [lower, upper] = [input('lower', x.shape), input('upper', x.shape)]
  const boxes: Boxes = new Map([[x, interval(lower, upper)]])
  const each = rowsOf(extent)
  const rows = each * extent.conjunctions
  const [spec, bound] = [input('spec', [rows, batch, subject.outputs]), input('bound', [rows, batch])]
  const made = way.hidden(y, boxes, rounding)
  const given: Boxes =
    way.share <= 1
      ? made
      : new Map(
          [...made].map(([h, b]): [Tensor, Interval] => [h, interval(stopGradient(b.lower), stopGradient(b.upper))]),
        )
  // The last walk meets the box under other names: what moving both its ends together would change is its coefficient of the input.
  const renamed = interval(probe('lower', lower), probe('upper', upper))
  const moved: Boxes = new Map([[x, renamed]])
  const found =
    way.name === 'intervals'
      ? [way.rows(y, moved, given, rounding)]
      : (['adaptive', 'same'] as const).map((slope) =>
          linearBounds({ slope, hidden: 'own' })(y, moved, given, rounding),
        )
  const wanted = clips && rows * S.size(x.shape) <= COEFFICIENTS
  const lines = wanted ? found.map((f) => f.lines?.(spec)) : []
  const ends = found.map((f, i) => lines[i]?.lower ?? f.rows(spec).lower)
  const margin = subRounded(
    ends.reduce((a, b) => maximum(a, b) as Tensor),
    bound,
    rounding,
  )
  // The conjunction that is farthest from being refuted, by its best row.
  const best = max(reshape(margin, [extent.conjunctions, each, batch]), 1)
  const least = neg(max(neg(best) as Tensor, 0)) as Tensor
  const [below, above, l, u] = grad(sum(least), [renamed.lower, renamed.upper, lower, upper])
  const coefficient = add(below, above)
  const point = select(greater(coefficient, 0), lower, upper) as Tensor
  const [there] = substitute([y], new Map([[x, point]]))
  // First-order gain of halving an input, through hidden boxes, too (without, the bounds of a batch take two thirds of the time, but up to 60 times as many are needed): the
  // lower half loses the upper end, and the other way round. In parts, hidden boxes are taken as they are: all walks at once would not fit.
  const gain = mul(sub(upper, lower), add(maximum(l, 0), maximum(neg(u), 0))) as Tensor
  return programOf(
    { lower, upper, spec, bound },
    {
      ...{ margin, point, there, gain },
      slope: each > 1 ? grad(sum(margin), [spec]) : [],
      coefficients: coefficientsOf(ends, lines),
    },
  )
}

/** The coefficients of the greater of two bounds, row by row; 0, which clips nothing, where one of them is no number. None where they are not known. */
const coefficientsOf = (
  ends: readonly Tensor[],
  lines: readonly ({ readonly coefficients: Tensor } | undefined)[],
): readonly Tensor[] => {
  const [a, b] = lines
  if (a === undefined || b === undefined) return []
  const along = (which: Tensor) => reshape(which, [...which.shape, ...a.coefficients.shape.slice(2).map(() => 1)])
  const others = select(along(greaterEqual(ends[1], ends[0]) as Tensor), b.coefficients, 0)
  return [select(along(greater(ends[0], ends[1]) as Tensor), a.coefficients, others) as Tensor]
}

/** Elements for each input beyond which a layer is wide, and very wide: measured on networks of 1 to 5 inputs (docs/benchmarks.md). */
const [WIDE, VERY_WIDE] = [64, 512]

/** Whether all hidden layers are wide for the inputs, or one is so wide that its walks cost more than those from narrow layers, which are tighter, save. */
const isWide = (subject: Subject): boolean => {
  const x = input('x', [1, ...subject.input])
  const { hidden } = anatomy(boundedOutputOf(subject, x), new Map([[x, interval(x, x)]]))
  const widths = hidden.map((h) => S.size(h.shape) / S.size(x.shape))
  return widths.length > 0 && (widths.every((w) => w > WIDE) || widths.some((w) => w > VERY_WIDE))
}

/** Ways to bound boxes of inputs, the best first: where layers are wide for the inputs, boxes of the wide ones by forms that are pushed forward; else by CROWN. */
export const inputWays = (subject: Subject, memory: number, width: number): readonly Way[] => {
  const [, ...others] = ways(memory, width)
  const walked: Way['hidden'] = (output, boxes, rounding) => intersected(crown, ibp)(output, boxes, undefined, rounding)
  const pushed: Way = {
    name: 'CROWN, wide layers forward',
    share: 0.5,
    hidden: forwardWhereWide(crown, WIDE),
    rows: crown,
  }
  return [...(isWide(subject) ? [pushed] : []), { name: 'CROWN', share: 1, hidden: walked, rows: crown }, ...others]
}

export interface InputBrancher {
  readonly root: (goal: Goal) => Cell
  readonly bound: (cells: readonly Cell[]) => Promise<readonly Cell[]>
  /** Cells of one run, its multiply-adds and an estimate of its seconds. */
  readonly batch: number
  readonly work: number
  readonly seconds: () => number
  readonly way: string
}

/** How far a conjunction is at least from holding that constraints refuted together: above 0, and no more is known. */
const CLIPPED = Number.MIN_VALUE

/** A conjunction that is not there is one that a cell has refuted. */
const NOTHING = Number.POSITIVE_INFINITY

const specOf = (c: Conjunction, weights: Float64Array, each: number) =>
  Array.from({ length: each }, (_, k) =>
    each > 1 && k === each - 1 && c.dyadic && c.rows.length > 1
      ? mixed(c, weights)
      : { row: c.rows[k % c.rows.length], bound: c.bounds[k % c.rows.length] },
  )

/** The first cell of a goal. */
export const rootCell = (goal: Goal): Cell => ({
  goal,
  box: goal.box,
  margins: new Float64Array(goal.conjunctions.length).fill(Number.NEGATIVE_INFINITY),
  lower: Number.NEGATIVE_INFINITY,
  conjunction: 0,
  weights: goal.conjunctions.map(({ rows }) => grained(rows.map(() => 1 / rows.length))),
  next: [],
  point: new Float32Array(goal.box.lower.length),
  violation: NOTHING,
  depth: 0,
  shrunk: false,
})

const halves = (cell: Cell, i: number): readonly Cell[] => {
  const { lower, upper } = cell.box
  const middle = Math.fround(0.5 * (lower[i] + upper[i]))
  if (!(middle > lower[i] && middle < upper[i])) return []
  const [left, right] = [upper.slice(), lower.slice()]
  left[i] = middle
  right[i] = middle
  const depth = cell.depth + 1
  return [
    { ...cell, depth, box: { lower, upper: left } },
    { ...cell, depth, box: { lower: right, upper } },
  ]
}

/** Two halves of a cell, across the input where that raises the bound most (ReluVal, arXiv:1804.10829); none where float32 has no number between any ends, but for a box that became smaller and is bounded again. */
export const splitCell = (cell: Cell): readonly Cell[] => {
  for (const i of cell.next) {
    const parts = halves(cell, i)
    if (parts.length > 0) return parts
  }
  return cell.shrunk ? [cell] : []
}

/** Bisection of the inputs, `batch` cells at a time. @throws memory and unsupported errors where this way is not open. */
export const inputBrancher =
  (budget: Budget) =>
  async (subject: Subject, options: InputOptions, way: Way, batch: number): Promise<InputBrancher> => {
    const { extent } = options
    const what = batch === 1 ? 'bounding one box' : `bounding ${batch} boxes`
    const bounds = await budget.plan(what, 2 * wayNodes(way, subject), () => programFor(subject, options, way, batch))
    const size = S.size(subject.input)
    const each = rowsOf(extent)
    const filled = roomFor(bounds.program.inputs)
    const put = ({ goal, box, weights }: Cell, b: number): void => {
      filled.lower.set(box.lower, b * size)
      filled.upper.set(box.upper, b * size)
      for (let g = 0; g < extent.conjunctions; g++) {
        const own = g % goal.conjunctions.length
        specOf(goal.conjunctions[own], weights[own], each).forEach(({ row, bound }, k) => {
          const r = (g * each + k) * batch + b
          filled.spec.set(row, r * subject.outputs)
          filled.bound[r] = bound
        })
      }
    }
    return {
      batch,
      work: bounds.work,
      seconds: bounds.seconds,
      way: way.name,
      root: rootCell,
      bound: async (cells) => {
        for (let b = 0; b < batch; b++) put(cells[b % cells.length], b)
        await bounds.run(filled)
        const { margin, point, there: output, gain, slope: slopes, coefficients: known } = await bounds.read()
        const [[slope], [coefficients]] = [slopes, known]
        /** What is known of the rows of a conjunction in the box of a cell. */
        const linesOf = (c: Conjunction, g: number, b: number, of: ArrayLike<number>): readonly Line[] =>
          Array.from({ length: each }, (_, k) => {
            const row = (g * each + k) * batch + b
            return { margin: margin[row] - toleranceOf(c, k, each), coefficients: of, from: row * size }
          })
        return cells.map((cell, b): Cell => {
          const { goal } = cell
          const row = (g: number, k: number) => (g * each + k) * batch + b
          const y = Float64Array.from({ length: subject.outputs }, (_, j) => output[b * subject.outputs + j])
          const margins = cell.margins.map((before, g) =>
            Math.max(
              before,
              marginOf(goal.conjunctions[g], (k) => margin[row(g, k)], each),
            ),
          )
          const boxes = Array.from(margins).flatMap((m, g) => {
            if (m > 0 || coefficients === undefined) return []
            const box = clipped(cell.box, linesOf(goal.conjunctions[g], g, b, coefficients))
            if (box !== undefined) return [box]
            margins[g] = CLIPPED
            return []
          })
          const box = boxes.length === 0 ? cell.box : around(boxes)
          let conjunction = 0
          margins.forEach((m, g) => {
            if (m < margins[conjunction]) conjunction = g
          })
          const width = (i: number) => box.upper[i] - box.lower[i]
          const score = (i: number) => (gain[b * size + i] > 0 ? gain[b * size + i] : 0)
          const order = Array.from({ length: size }, (_, i) => i).filter((i) => width(i) > 0)
          return {
            ...cell,
            box,
            shrunk: box.lower.some((l, i) => l > cell.box.lower[i]) || box.upper.some((u, i) => u < cell.box.upper[i]),
            margins,
            lower: margins[conjunction],
            conjunction,
            weights: cell.weights.map((w, g) => {
              const c = goal.conjunctions[g]
              if (!c.dyadic || c.rows.length === 1 || margins[g] > 0) return w
              const at = row(g, each - 1) * subject.outputs
              const gains = c.rows.map((r, k) => r.reduce((s, a, j) => s + a * slope[at + j], -c.bounds[k]))
              return grained(raised(w, gains, RATE))
            }),
            next: order.sort((i, j) => score(j) - score(i) || width(j) - width(i)),
            point: Float32Array.from({ length: size }, (_, i) => point[b * size + i]),
            violation: violationOf(goal, y),
          }
        })
      },
    }
  }

/** What a row's bound must exceed: the last one is the mean where there are several. */
const toleranceOf = ({ rows, tolerance }: Conjunction, k: number, each: number): number =>
  each > 1 && k === each - 1 ? Math.max(...tolerance) : tolerance[k % rows.length]

/** The largest excess of a conjunction's rows, or of their mean; NaN and infinity prove nothing. */
const marginOf = (c: Conjunction, margin: (k: number) => number, each: number): number => {
  let most = Number.NEGATIVE_INFINITY
  for (let k = 0; k < each; k++) {
    const e = margin(k) - toleranceOf(c, k, each)
    if (e > most && e < Number.POSITIVE_INFINITY) most = e
  }
  return most
}

/** How far an output is from a counterexample: the least over conjunctions of the largest c . y - b. */
export const violationOf = ({ conjunctions }: Pick<Goal, 'conjunctions'>, y: ArrayLike<number>): number =>
  Math.min(
    ...conjunctions.map(({ rows, bounds }) =>
      Math.max(...rows.map((r, k) => r.reduce((s, a, j) => s + a * y[j], -bounds[k]))),
    ),
  )

/** Free inputs of a box. */
export const freeInputs = ({ lower, upper }: Box): number => lower.reduce((n, l, i) => n + Number(upper[i] > l), 0)
