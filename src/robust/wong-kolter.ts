import { dependents, isNonlinear } from '../bounds/anatomy.ts'
import type { Bounder } from '../bounds/linear-bounds.ts'
import { order } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import { raise, usage } from '../core/error.ts'
import { fold, type Key, normal } from '../core/key.ts'
import { power } from '../core/number.ts'
import { interval } from '../core/op.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import {
  abs,
  add,
  centre,
  constant,
  div,
  equal,
  exp,
  feed,
  greater,
  type Host,
  iota,
  log,
  maximum,
  mean,
  mul,
  radius,
  reshape,
  select,
  step,
  sub,
  sum,
  zeros,
} from '../ops/index.ts'
import { isRelu, leak } from './alpha-crown.ts'

/**
 * The dual of Wong and Kolter (arXiv:1711.00851, algorithm 1), written forward: what reaches a node is its value at the centre of the box with each unstable ReLU replaced by the
 * middle of its two parallel lines, and a column of the dual network for each input and each unstable neuron before it, scaled by how far that one may be off.
 * Its bounds are the value -+ the l1 norm of the columns. In exact arithmetic this equals `symbolic` given the same pre-activation bounds; it shares no code with it.
 *
 * Columns are `[m, n, ...shape]`, m the inputs or neurons they come from, so this is dear: a check, and small networks. With `projections` (arXiv:1805.12514, random projections) m columns
 * become k random combinations with Cauchy coefficients, from which the l1 norm is *estimated*: what comes out is no bound, and good for training only.
 */
export interface Projected {
  /** Random combinations for each layer, from 3. The estimate's relative deviation is about 1.6 / sqrt(k). */
  readonly projections: number
  /** Draws them once and for all. Default: anew in each training step. */
  readonly key?: Key
}

/** Columns by where they come from: the box, or a ReLU. */
type Columns = ReadonlyMap<Tensor, Tensor>

interface State {
  readonly value: Tensor
  readonly columns: Columns
}

/** How columns begin and how their l1 norm is taken, `[m, ...] -> [...]`. */
interface Norming {
  /** Columns of a diagonal matrix, from its entries `[n, ...shape]`. */
  readonly diagonal: (entries: Tensor, source: number) => Tensor
  readonly norm: (columns: Tensor, axis: number) => Tensor
}

const exact: Norming = {
  diagonal: (entries) => {
    const shape = entries.shape.slice(1)
    const count = S.size(shape)
    return mul(reshape(equal(reshape(iota(count), [count, 1]), iota(count)), [count, 1, ...shape]), entries)
  },
  norm: (columns, axis) => sum(abs(columns), axis),
}

/** Cauchy numbers, as ratios of normal ones. */
const cauchy = (key: Key, n: number): Float32Array => {
  const draws = normal(key, 2 * n)
  return Float32Array.from({ length: n }, (_, i) => draws[2 * i] / draws[2 * i + 1])
}

/** cos x on [0, pi/4] by its series: the same bits on every engine. */
const cosine = (x: number): number => {
  let series = 1
  for (let k = 18; k >= 2; k -= 2) series = 1 - (series * x * x) / (k * (k - 1))
  return series
}

const TINY = 1e-30

/**
 * Cauchy projections are 1-stable: a combination of numbers is distributed as a Cauchy number times their l1 norm. Estimator: the geometric mean of k magnitudes,
 * times cos(pi / 2k)^k, which makes it unbiased (Li, Hastie, Church: "Nonlinear estimators and tail bounds for dimension reduction in l1 using Cauchy random
 * projections", JMLR 2007, section 3).
 */
const projected = ({ projections: k, key }: Projected): Norming => {
  if (!Number.isInteger(k) || k < 3) return raise(usage(`projections must be a whole number from 3, not ${k}`))
  const draw = (name: string, shape: S.Shape): Tensor =>
    key === undefined
      ? feed(name, shape, (h: Host) => cauchy(fold(h.key, name), S.size(shape)))
      : constant(cauchy(fold(key, name), S.size(shape)), shape)
  return {
    diagonal: (entries, source) => mul(draw(`projection ${source}`, [k, 1, ...entries.shape.slice(1)]), entries),
    norm: (columns, axis) =>
      mul(exp(mean(log(maximum(abs(columns), TINY)), axis)), power(cosine(Math.PI / (2 * k)), k)),
  }
}

/** Columns through an op that is linear in its boxed operand k: the vjp, transposed. */
const push = (x: Tensor, k: number, columns: Tensor): Tensor => {
  const ct = zeros([columns.shape[0], ...x.shape])
  const back = x.op.vjp(ct, x.inputs, x, x.attrs)[k]
  return back === undefined
    ? raise({ kind: 'unsupported', what: `the dual of ${x.op.name}`, reason: `operand ${k} is an interval` })
    : grad(sum(mul(back, columns)), [ct])[0]
}

const merged = (maps: readonly Columns[]): Columns => {
  const all = new Map<Tensor, Tensor>()
  for (const columns of maps)
    for (const [source, c] of columns) {
      const known = all.get(source)
      all.set(source, known === undefined ? c : add(known, c))
    }
  return all
}

/**
 * Bounds by the dual, its l1 norms exact or, with `projections`, estimated. A ball counts as the box round it.
 *
 * @throws usage for `projections` that is no whole number from 3. Bounds raise unsupported errors for a network with other nonlinear ops than ReLU.
 *
 * @example
 *   const [exact, estimated] = [dual(), dual({ projections: 50 })]
 */
export const dual =
  (options?: Projected): Bounder =>
  (output, boxes, given = new Map()) => {
    const { diagonal, norm } = options === undefined ? exact : projected(options)
    const boxed = dependents([output], boxes)
    if (!boxed.has(output))
      return raise({ kind: 'shape', op: 'bounds', message: 'the output does not depend on any box' })
    const states = new Map<Tensor, State>()
    const known = new Map<Tensor, Interval>()
    let sources = 0

    const spread = (columns: Columns, view: (c: Tensor) => Tensor, axis: number): Tensor | undefined =>
      [...columns.values()]
        .map((c) => norm(view(c), axis))
        .reduce<Tensor | undefined>((a, b) => (a === undefined ? b : add(a, b)), undefined)
    const boundsOf = (x: Tensor): Interval => {
      const box = known.get(x) ?? given.get(x)
      if (box !== undefined) return box
      const { value, columns } = states.get(x) as State
      const r = spread(columns, (c) => c, 0) ?? zeros(x.shape)
      const own = interval(sub(value, r), add(value, r))
      known.set(x, own)
      return own
    }

    const throughRelu = (x: Tensor): State => {
      const [z] = x.inputs
      const { lower: l, upper: u } = boundsOf(z)
      const a = leak(x)
      const unstable = mul(greater(0, l), greater(u, 0))
      // A NaN bound compares false, and must not look like a stable neuron.
      const stable = add(a, mul(1 - a, step(maximum(l, u))))
      const slope = select(unstable, div(sub(u, mul(a, l)), select(unstable, sub(u, l), 1)), stable)
      const half = select(unstable, mul(0.5, mul(u, sub(1, slope))), 0)
      const { value, columns } = states.get(z) as State
      const scaled = [...columns].map(([source, c]) => [source, mul(c, slope)] as const)
      return {
        value: add(mul(slope, value), half),
        columns: new Map([...scaled, [x, diagonal(half, ++sources)]]),
      }
    }

    for (const x of order([output])) {
      const box = boxes.get(x)
      if (box !== undefined) {
        states.set(x, { value: centre(box), columns: new Map([[x, diagonal(radius(box), ++sources)]]) })
        continue
      }
      if (!boxed.has(x)) continue
      if (isRelu(x)) states.set(x, throughRelu(x))
      else if (isNonlinear(x, boxed))
        raise({ kind: 'unsupported', what: `the dual of ${x.op.name}`, reason: 'it is known for ReLU networks' })
      else {
        const inputs = x.inputs.map((i) => states.get(i)?.value ?? i)
        const parts = x.inputs.flatMap((i, k) => {
          const from = states.get(i)
          return from === undefined ? [] : [new Map([...from.columns].map(([s, c]) => [s, push(x, k, c)] as const))]
        })
        states.set(x, { value: { ...x, inputs }, columns: merged(parts) })
      }
    }
    return {
      output: () => boundsOf(output),
      node: boundsOf,
      rows: (spec) => {
        const { value, columns } = states.get(output) as State
        const axes = [...spec.shape.keys()].slice(2)
        const c = sum(mul(spec, value), axes)
        const [rows, images, ...rest] = spec.shape
        const along = reshape(spec, [rows, 1, images, ...rest])
        const r =
          spread(
            columns,
            (g) =>
              sum(
                mul(along, g),
                axes.map((d) => d + 1),
              ),
            1,
          ) ?? zeros(c.shape)
        return interval(sub(c, r), add(c, r))
      },
    }
  }
