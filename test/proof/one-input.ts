import { at, compare, type Rational, Refused, rational, vector } from '../../src/proof/exact.ts'
import { evaluate, networkOf } from '../../src/proof/network.ts'
import { type Line, type Outcome, type Query, replay } from '../../src/proof/proof.ts'
import { type ProveOptions, prove } from '../../src/verify/prove.ts'
import { modelOf, type Line as Op, tensor } from '../format/onnx-models.ts'

async function* given(lines: Iterable<Line>): AsyncGenerator<Line> {
  yield* lines
}
/** The lines of a proof that was looked for, without the rest of its tree where none was found. */
export const proofOf = async (q: Query, options: ProveOptions = { leaves: 400 }): Promise<readonly Line[]> => {
  const lines: Line[] = []
  try {
    for await (const line of prove(q, options)) lines.push(line)
  } catch (e) {
    // Without the rest of its tree it is no proof, which `replay` has to find out.
    if (!(e instanceof Refused)) throw e
  }
  return lines
}
export const replayed = async (q: Query, lines: Iterable<Line>): Promise<Outcome | string> => {
  try {
    return await replay(q, given(lines))
  } catch (e) {
    if (!(e instanceof Refused)) throw e
    return e.message
  }
}
export const refused = (outcome: Outcome | string): outcome is string => typeof outcome === 'string'

/** A network of one input, its hidden values flattened after each ReLU where they are to be reshaped, and its exact least and largest value on [-1, 1]: at the ends or where a neuron is 0. */
export const oneInput = (seed: number, widths: readonly number[], reshaped = false) => {
  const all = [1, ...widths, 1]
  const initializers = widths
    .concat(1)
    .flatMap((n, l) => [
      tensor(`w${l}`, [all[l], n], 31 * seed + l, -2, 2),
      tensor(`b${l}`, [n], 31 * seed + l + 17, -1, 1),
    ])
  const lines = widths.concat(1).flatMap((_, l): Op[] => {
    const out = l === widths.length ? 'y' : `z${l}`
    return [
      ['Gemm', `${l === 0 ? 'x' : `h${l - 1}`} w${l} b${l}`, out],
      ...(l === widths.length
        ? []
        : reshaped
          ? [['Relu', out, `r${l}`] as Op, ['Flatten', `r${l}`, `h${l}`] as Op]
          : [['Relu', out, `h${l}`] as Op]),
    ]
  })
  const bytes = modelOf([1, 1], lines, initializers)
  const net = networkOf(bytes)
  const befores = net.nodes.flatMap((n) => (n.kind === 'relu' ? [n.from[0]] : []))
  // Breakpoints layer by layer: between two neighbors every earlier neuron is affine, so that later ones are 0 at one place at most.
  let points: Rational[] = [rational(-1n), rational(1n)]
  for (const k of befores) {
    const values = points.map((p) => evaluate(net, vector([p]))[k])
    const added: Rational[] = []
    for (let j = 0; j + 1 < points.length; j++)
      for (let i = 0; i < net.nodes[k].size; i++) {
        const [a, b] = [at(values[j], i), at(values[j + 1], i)]
        if (a.n > 0n === b.n > 0n || a.n === 0n || b.n === 0n) continue
        // p + (q - p) a / (a - b).
        const [s, t] = [rational(a.n * b.d, 1n), rational(a.n * b.d - b.n * a.d, 1n)]
        const [p, q] = [points[j], points[j + 1]]
        const width = rational(q.n * p.d - p.n * q.d, q.d * p.d)
        const step = t.n < 0n ? rational(width.n * -s.n, width.d * -t.n) : rational(width.n * s.n, width.d * t.n)
        added.push(rational(p.n * step.d + step.n * p.d, p.d * step.d))
      }
    points = [...points, ...added].sort(compare)
  }
  const values = points.map((p) => at(evaluate(net, vector([p]))[net.output], 0))
  const best = values.map((v, i) => ({ v, x: points[i] })).sort((a, b) => compare(a.v, b.v))
  return { bytes, least: best[0], most: best.at(-1) as (typeof best)[0] }
}
export const property = (constraint: string) =>
  `(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(assert (>= X_0 -1))\n(assert (<= X_0 1.0))\n(assert ${constraint})\n`
export const fraction = ({ n, d }: Rational) => `${n}/${d}`
