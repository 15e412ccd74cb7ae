import type { Region } from '../backend/region.ts'
import { raise } from '../core/error.ts'
import { power } from '../core/number.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { input, mul, subRounded } from '../ops/index.ts'
import { compileIn, planBytes, planFor } from '../tape/run.ts'
import { type Ascent, ascending, ascentGraph, relaxation } from './alpha-crown.ts'
import { outputOf, type Subject } from './counterexample.ts'
import type { HiddenBoxes } from './relu-splits.ts'

/** Updates of the slopes, and their step size. */
const ROOT = { steps: 24, lr: 0.25 }

/** alpha-CROWN of a whole box, for `rows` rows at once. */
export interface Root {
  readonly rows: number
  /** Best bounds of the rows, boxes of hidden nodes (each the best of all iterates), and the slopes of each row. */
  readonly run: (
    box: { readonly lower: Float32Array; readonly upper: Float32Array },
    spec: Float32Array,
    bound: Float32Array,
    proved: (lower: Float32Array) => readonly boolean[],
    late: () => boolean,
  ) => Promise<{
    readonly lower: Float32Array
    readonly hidden: HiddenBoxes
    readonly slopes: (row: number) => readonly Float32Array[]
  }>
}

export const rootOf = async (
  region: Region,
  subject: Subject,
  rows: number,
  memory: number,
  rounding: Rounding,
): Promise<Root> => {
  const { backend } = region
  const x = input('x', [1, ...subject.input])
  const y = outputOf(subject, x)
  const [lower, upper] = [input('lower', x.shape), input('upper', x.shape)]
  const [spec, bound] = [input('spec', [rows, 1, subject.outputs]), input('bound', [rows, 1])]
  const weight = input('weight', [rows, 1])
  const {
    slopes,
    relus,
    start,
    hidden,
    crown,
    bound: boundBy,
  } = relaxation(y, new Map([[x, interval(lower, upper)]]), spec, undefined, rounding)
  const ends = (boxes: typeof crown) => hidden.flatMap((h) => [boxes.get(h)?.lower, boxes.get(h)?.upper] as Tensor[])
  const given = [lower, upper, spec, bound, weight]
  const ascent: Ascent = {
    free: slopes.map((s) => ({ ...s, high: 1 })),
    inputs: given,
    graph: (values) => {
      const bounds = boundBy(values)
      const own = subRounded(bounds.lower, bound, rounding)
      // Rows that are proved need not be raised further.
      return { objective: mul(own, weight) as Tensor, outputs: [own, ...ends(bounds.hidden)] }
    },
  }
  const graph = ascentGraph(ascent)
  const needed = planBytes(backend, planFor(backend)(graph.results, graph.arguments))
  if (needed > memory) raise({ kind: 'memory', needed, budget: memory, what: 'bounding one box by alpha-CROWN' })
  const optimiser = await ascending(region)(ascent)
  const first = [...start, ...ends(crown)]
  const { run } = await compileIn(region)(first, [lower, upper])
  const firstOut = first.map((t) => region.alloc(S.size(t.shape)))
  const sizes = hidden.map((h) => S.size(h.shape))
  return {
    rows,
    run: async (box, coefficients, offsets, proved, late) => {
      const write = (i: number, data: Float32Array) => backend.write(optimiser.inputs[i], data)
      for (const [i, data] of [box.lower, box.upper, coefficients, offsets].entries()) write(i, data)
      write(4, new Float32Array(rows).fill(1))
      run([optimiser.inputs[0], optimiser.inputs[1], ...firstOut])
      const seen: Float32Array[] = []
      for (const b of firstOut) seen.push(Float32Array.from(await backend.read(b)))
      const boxes = seen.slice(start.length)
      const best = new Float32Array(rows).fill(Number.NEGATIVE_INFINITY)
      optimiser.start(seen.slice(0, start.length))
      for (let t = 0; t <= ROOT.steps; t++) {
        optimiser.run(ROOT.lr * power(0.98, t))
        const [own, ...now] = await Promise.all(optimiser.outputs.map((b) => backend.read(b)))
        for (let k = 0; k < rows; k++) if (own[k] > best[k]) best[k] = own[k]
        // Each iterate is sound, so a box is the intersection of all. A NaN stays: it says that nothing is known.
        now.forEach((end, i) => {
          for (let j = 0; j < end.length; j++)
            if (i % 2 === 0 ? end[j] > boxes[i][j] : end[j] < boxes[i][j]) boxes[i][j] = end[j]
        })
        const done = proved(best)
        if (done.every((p) => p) || late()) break
        write(
          4,
          Float32Array.from(done, (p) => (p ? 0 : 1)),
        )
      }
      const values = await optimiser.values()
      const own = values.slice(values.length - relus.length)
      return {
        lower: best,
        hidden: {
          lower: sizes.map((_, h) => boxes[2 * h]),
          upper: sizes.map((_, h) => boxes[2 * h + 1]),
        },
        slopes: (row) =>
          own.map((v) => {
            const n = v.length / rows
            return Float32Array.from(v.slice(row * n, (row + 1) * n))
          }),
      }
    },
  }
}
