import { anatomy, movedFrom } from '../bounds/anatomy.ts'
import type { Boxes } from '../bounds/ibp.ts'
import { linearBounds } from '../bounds/linear-bounds.ts'
import { order } from '../compile/tape.ts'
import { MixtrainException } from '../core/error.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { input } from '../ops/index.ts'
import { type Bounder, crown, crownIbp, ibp } from '../robust/bounds.ts'
import { OutOfTime } from '../robust/budget.ts'
import { boundedOutputOf, type Subject } from './counterexample.ts'

// ---- ways to bound, the best first -----------------------------------------------------------------------------------

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
  const coefficients = (memory * SHARE) / width
  const inParts = linearBounds({ slope: 'adaptive', hidden: 'own', parts: { coefficients } })
  return [
    { name: 'CROWN', share: 1, hidden: own(crown), rows: crown },
    {
      name: 'CROWN in parts',
      share: 3,
      walks: (output, boxes) => {
        const { hidden, boxed } = anatomy(output, boxes)
        const largest = [...boxed].reduce((n, x) => Math.max(n, S.size(x.shape)), 1)
        const per = Math.max(1, Math.floor(coefficients / largest))
        const walked = hidden.filter((h) => movedFrom(h, boxed, (x) => boxes.has(x)) === undefined)
        return walked.reduce((n, h) => n + Math.ceil(S.size(h.shape) / per), 0)
      },
      hidden: own(inParts),
      rows: inParts,
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
