import { anatomy } from '../bounds/anatomy.ts'
import type { Boxes } from '../bounds/ibp.ts'
import { order } from '../compile/tape.ts'
import { MixtrainException } from '../core/error.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import { concat, constant, input, pad, reshape, transpose } from '../ops/index.ts'
import { type Bounder, crown, crownIbp, ibp } from '../robust/bounds.ts'
import { OutOfTime } from '../robust/budget.ts'
import { boundedOutputOf, type Subject } from './counterexample.ts'

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

/** A network over a box, and rows of which bounds are wanted, as inputs of a graph. */
export const argumentsFor = (subject: Subject, rows: number) => {
  const x = input('x', [1, ...subject.input])
  const [lower, upper] = [input('lower', x.shape), input('upper', x.shape)]
  const boxes: Boxes = new Map([[x, interval(lower, upper)]])
  const y = boundedOutputOf(subject, x)
  const [spec, bound] = [input('spec', [rows, 1, subject.outputs]), input('bound', [rows, 1])]
  return { y, lower, upper, boxes, spec, bound }
}
