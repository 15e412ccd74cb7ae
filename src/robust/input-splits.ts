import type { Region } from '../backend/region.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { add, greater, input, max, maximum, mul, neg, select, sub, subRounded, sum, zeros } from '../ops/index.ts'
import type { Boxes } from '../tape/ibp.ts'
import { linearBounds } from '../tape/linear-bounds.ts'
import { plan } from '../tape/plan.ts'
import { compileIn } from '../tape/run.ts'
import { substitute } from '../tape/tape.ts'
import { grad } from '../tape/vjp.ts'
import { crown, ibp, intersected } from './bounds.ts'
import { outputOf, type Subject, violation } from './counterexample.ts'
import { excess, type Ground } from './relu-splits.ts'

/** A box of inputs, part of a case's box. */
export interface Cell {
  readonly conjunction: number
  readonly box: { readonly lower: Float32Array; readonly upper: Float32Array }
  readonly lower: number
  /** Inputs to halve, the best first. */
  readonly next: readonly number[]
  readonly point: Float32Array
  readonly violation: number
}

export interface InputOptions {
  readonly rows: number
  readonly batch: number
  /** Of the bounds. */
  readonly rounding: Rounding
}

/**
 * Bounds of a batch of boxes: CROWN, each hidden box intersected with interval propagation from the hidden boxes before it, and
 * the better of two slopes at the end. `[rows, n]`.
 */
const graphOf = (subject: Subject, { rows, batch, rounding }: InputOptions) => {
  const x = input('x', [batch, ...subject.input])
  const y = outputOf(subject, x)
  const [lower, upper] = [input('lower', x.shape), input('upper', x.shape)]
  const boxes: Boxes = new Map([[x, interval(lower, upper)]])
  const [spec, bound] = [input('spec', [rows, batch, subject.outputs]), input('bound', [rows, batch])]
  const given = intersected(crown, ibp)(y, boxes, undefined, rounding)
  // The last walk meets the box moved by 0: the derivative with respect to that 0 is its coefficient of the input.
  const shift = zeros(x.shape)
  const moved: Boxes = new Map([[x, interval(add(lower, shift) as Tensor, add(upper, shift) as Tensor)]])
  const ends = (['adaptive', 'same'] as const).map(
    (slope) => linearBounds({ slope, hidden: 'own' })(y, moved, given, rounding).rows(spec).lower,
  )
  const margin = subRounded(maximum(ends[0], ends[1]), bound, rounding)
  const top = sum(max(margin, 0))
  const [coefficient, l, u] = grad(top, [shift, lower, upper])
  const point = select(greater(coefficient, 0), lower, upper) as Tensor
  const [closeness] = substitute([violation(y, spec, bound)], new Map([[x, point]]))
  // First-order gain of halving an input: the lower half loses the upper end, and the other way round.
  const gain = mul(sub(upper, lower), add(maximum(l, 0), maximum(neg(u), 0))) as Tensor
  return { inputs: [lower, upper, spec, bound], outputs: [margin, point, closeness, gain] }
}

/** Bytes of scratch of a batch. */
export const inputBytes = (subject: Subject, options: InputOptions, width: number): number => {
  const { inputs, outputs } = graphOf(subject, options)
  return plan(outputs, inputs).arena * width
}

export interface InputBrancher {
  readonly root: (conjunction: number, box: Cell['box']) => Cell
  readonly bound: (ground: Omit<Ground, 'hidden'>, cells: readonly Cell[]) => Promise<readonly Cell[]>
  /** The cell in 2^levels parts or, where float32 has no more numbers, fewer; none where it cannot be halved at all. */
  readonly split: (cell: Cell, levels: number) => readonly Cell[]
}

/** Bisection of the inputs, along the dimension where it raises the bound most (ReluVal, arXiv:1804.10829). */
export const inputBrancher =
  (region: Region) =>
  async (subject: Subject, options: InputOptions): Promise<InputBrancher> => {
    const { backend } = region
    const { rows, batch } = options
    const { inputs, outputs } = graphOf(subject, options)
    const { run } = await compileIn(region)(outputs, inputs)
    const alloc = (t: Tensor) => region.alloc(S.size(t.shape))
    const [given, results] = [inputs.map(alloc), outputs.map(alloc)]
    const size = S.size(subject.input)
    const filled = given.map(({ length }) => new Float32Array(length))
    const halves = (cell: Cell, i: number): readonly Cell[] => {
      const { lower, upper } = cell.box
      const middle = Math.fround(0.5 * (lower[i] + upper[i]))
      if (!(middle > lower[i] && middle < upper[i])) return [cell]
      const [left, right] = [upper.slice(), lower.slice()]
      left[i] = middle
      right[i] = middle
      return [
        { ...cell, box: { lower, upper: left } },
        { ...cell, box: { lower: right, upper } },
      ]
    }
    return {
      root: (conjunction, box) => ({
        conjunction,
        box,
        lower: Number.NEGATIVE_INFINITY,
        next: [],
        point: new Float32Array(size),
        violation: Number.POSITIVE_INFINITY,
      }),
      bound: async ({ spec, bound, tolerance }, cells) => {
        for (let b = 0; b < batch; b++) {
          const { conjunction, box } = cells[b % cells.length]
          filled[0].set(box.lower, b * size)
          filled[1].set(box.upper, b * size)
          for (let k = 0; k < rows; k++) {
            const own = spec[conjunction].subarray(k * subject.outputs, (k + 1) * subject.outputs)
            filled[2].set(own, (k * batch + b) * subject.outputs)
            filled[3][k * batch + b] = bound[conjunction][k]
          }
        }
        given.forEach((g, i) => {
          backend.write(g, filled[i])
        })
        run([...given, ...results])
        const seen: ArrayLike<number>[] = []
        for (const r of results) seen.push(await backend.read(r))
        const [margin, point, closeness, gain] = seen
        return cells.map((cell, b) => {
          const own = Float32Array.from({ length: rows }, (_, k) => margin[k * batch + b])
          const { lower, upper } = cell.box
          const width = (i: number) => upper[i] - lower[i]
          const score = (i: number) => (gain[b * size + i] > 0 ? gain[b * size + i] : 0)
          const order = Array.from({ length: size }, (_, i) => i).filter((i) => width(i) > 0)
          return {
            ...cell,
            lower: Math.max(cell.lower, excess(own, tolerance[cell.conjunction])),
            next: order.sort((i, j) => score(j) - score(i) || width(j) - width(i)),
            point: Float32Array.from({ length: size }, (_, i) => point[b * size + i]),
            violation: closeness[b],
          }
        })
      },
      split: (cell, levels) => {
        const parts = cell.next
          .slice(0, levels)
          .reduce<readonly Cell[]>((all, i) => all.flatMap((c) => halves(c, i)), [cell])
        if (parts.length > 1) return parts
        const other = cell.next.slice(levels).find((i) => halves(cell, i).length > 1)
        return other === undefined ? [] : halves(cell, other)
      },
    }
  }
