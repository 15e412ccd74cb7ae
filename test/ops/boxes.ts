import fc from 'fast-check'
import { interval } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Operand, Tensor } from '../../src/core/tensor.ts'
import { input } from '../../src/ops/index.ts'
import type { Example } from './examples.ts'
import { numbers, type Spec, values } from './property.ts'

export const inputsOf = (specs: readonly Spec[], prefix = 'x'): readonly Tensor[] =>
  specs.map((s, i) => input(`${prefix}${i}`, s.shape))

/** Non-empty sets of operands that may be boxed: each alone and all together. */
export const boxings = (e: Example): readonly (readonly number[])[] => {
  const boxable = [...e.inputs.keys()].filter((k) => e.inputs[k].box)
  return boxable.length > 1 ? [...boxable.map((k) => [k]), boxable] : boxable.map((k) => [k])
}

export const includes = (sets: readonly (readonly number[])[], set: readonly number[]): boolean =>
  sets.some((s) => s.length === set.length && s.every((k) => set.includes(k)))

/** A box and points in it, for the boxed operands; a value for the others. */
export interface Boxed {
  readonly lower: readonly Float64Array[]
  readonly upper: readonly Float64Array[]
  /** Another box inside it. */
  readonly innerLower: readonly Float64Array[]
  readonly innerUpper: readonly Float64Array[]
  readonly points: readonly (readonly Float64Array[])[]
}

const POINTS = 6
/** Widths of boxes: thin, small (most are stable), unstable, large. */
const WIDTHS = [0, 0.05, 1.5, 40]

/** Boxes of the operands in `set` with points in them. */
export const boxed = (e: Example, set: readonly number[]): fc.Arbitrary<Boxed> =>
  fc
    .tuple(
      fc.tuple(...e.inputs.map(values)),
      fc.constantFrom(...WIDTHS),
      fc.tuple(...e.inputs.map((s) => numbers((2 * POINTS + 3) * S.size(s.shape), 0, 1))),
    )
    .map(([base, width, random]) => {
      const ends = e.inputs.map((s, k) => {
        const [l, u] = [base[k].slice(), base[k].slice()]
        const positive = s.low > 0
        const negative = s.high < 0
        if (set.includes(k))
          base[k].forEach((v, j) => {
            const w = width * random[k][j]
            // Boxes stay where the op is defined; elsewhere they grow to both sides.
            l[j] = positive ? v : v - (width > 2 || negative ? w : w / 2)
            u[j] = negative ? v : v + w
            if (positive && width > 0) l[j] = s.low + (v - s.low) * (1 - random[k][j])
          })
        return [l, u]
      })
      const inside = (t: (k: number, j: number) => number) =>
        ends.map(([l, u], k) => l.map((a, j) => Math.min(Math.max(a + t(k, j) * (u[j] - a), a), u[j])))
      const at = (p: number) => (k: number, j: number) => {
        const r = random[k][(p + 1) * base[k].length + j]
        // A third of the points sit on corners.
        return p % 3 === 0 ? Math.round(r) : r
      }
      const [p, q] = [inside(at(POINTS)), inside(at(POINTS + 1))]
      return {
        lower: ends.map(([l]) => l),
        upper: ends.map(([, u]) => u),
        innerLower: p.map((v, k) => v.map((x, j) => Math.min(x, q[k][j]))),
        innerUpper: p.map((v, k) => v.map((x, j) => Math.max(x, q[k][j]))),
        points: Array.from({ length: POINTS }, (_, i) => inside(at(i))),
      }
    })

/** The operands of a call: intervals for those in `set`. */
export const operandsOf = (e: Example, set: readonly number[]) => {
  const lower = inputsOf(e.inputs, 'l')
  const upper = inputsOf(e.inputs, 'u')
  const operands = lower.map((l, k): Operand => (set.includes(k) ? interval(l, upper[k]) : l))
  return { inputs: [...lower, ...upper], operands }
}
