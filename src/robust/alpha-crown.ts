import { anatomy, leakOf, movedFrom, underCurve } from '../bounds/anatomy.ts'
import type { Boxes } from '../bounds/ibp.ts'
import { type Bounded, type Bounder, linearBounds } from '../bounds/linear-bounds.ts'
import type { Buffer, Data } from '../compile/backend.ts'
import { type Graphs, programOf, type Results, type Values } from '../compile/program.ts'
import type { Region } from '../compile/region.ts'
import { banksIn } from '../compile/running.ts'
import { order } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import { power } from '../core/number.ts'
import { interval } from '../core/op.ts'
import type { Rounding } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import type { Interval, Tensor } from '../core/tensor.ts'
import {
  add,
  broadcastTo,
  clamp,
  constant,
  div,
  greater,
  input,
  mul,
  neg,
  reshape,
  select,
  sqrt,
  step,
  stopGradient,
  sum,
  transpose,
} from '../ops/index.ts'
import type { Budget } from './budget.ts'

/**
 * alpha-CROWN (arXiv:2011.13824): the lower line of an unstable ReLU, a x with any a in [0, 1], is a choice, and each choice gives sound
 * bounds. The choice is made by projected gradient ascent of the bound itself, on the graph of the bound.
 */
export interface AlphaOptions {
  /** Updates of the slopes; each costs a walk and its gradient. */
  readonly steps: number
  /** Step size of Adam; slopes live in [0, 1]. */
  readonly lr: number
}

// ---- free slopes -----------------------------------------------------------------------------------------------------

/** Whether an op is a ReLU, leaky or not: its lower line is a choice, and it may be split. */
export const isRelu = (x: Tensor): boolean => leakOf(x) !== undefined

/** Slope of a ReLU on the negative side: 0 but for a leaky one. */
export const leak = (x: Tensor): number => leakOf(x) ?? 0

/** Hidden walks have slopes for each of their rows up to so many numbers, and beyond that one for all rows. */
const PER_ROW = 2 ** 18

/** The slope of one ReLU in the walk from one node. */
interface FreeSlopes {
  readonly relu: Tensor
  /** `[rows, n, ...relu]`, or `[n, ...relu]`: one for all rows. */
  readonly shape: S.Shape
}

/** A walk whose slopes are free: to one side of a hidden node, or from the specification. */
interface Walk {
  readonly from: Tensor
  readonly side: 'lower' | 'upper'
  readonly free: readonly FreeSlopes[]
}

/** A bound with free slopes. */
export interface Relaxation {
  /** Shapes of the slopes, the least value of each (the greatest is 1), and the walks that they belong to. */
  readonly slopes: readonly (Pick<Walk, 'from' | 'side'> & {
    readonly shape: S.Shape
    readonly low: number
    readonly relu: Tensor
  })[]
  /** All ReLUs, inputs before users. */
  readonly order: readonly Tensor[]
  /** How many of them, the last ones, belong to the walk from the output: `[rows, n, ...relu]`, one for each of `relus`. */
  readonly relus: readonly Tensor[]
  /** CROWN's adaptive slopes. */
  readonly start: readonly Tensor[]
  /** Nodes with a box of their own, and their boxes by CROWN. */
  readonly hidden: readonly Tensor[]
  readonly crown: Boxes
  /** Lower bounds `[rows, n]` of the specification, and the boxes on the way, by these slopes: sound for slopes in their range. */
  readonly bound: (slopes: readonly Tensor[]) => { readonly lower: Tensor; readonly hidden: Boxes }
}

/**
 * The graph of a bound of `spec` (`[rows, n, ...output]`) with every slope free: those of the walk from the output, for each row and image, and
 * those of the walks that bound hidden nodes, each side its own, but for those whose box is `known`; for each row of theirs, where that makes at most `perRowMost` numbers.
 */
export const relaxation = (
  output: Tensor,
  boxes: Boxes,
  spec: Tensor,
  known: Boxes = new Map(),
  rounding: Rounding = 'none',
  perRowMost = PER_ROW,
): Relaxation => {
  const { boxed, hidden } = anatomy(output, boxes)
  const images = ([...boxes.values()][0] as Interval).shape[0]
  const rows = spec.shape[0]
  const below = (x: Tensor) => order([x]).filter((y) => isRelu(y) && boxed.has(y) && !boxes.has(y))
  const walkOf = (from: Tensor, side: 'lower' | 'upper'): Walk => ({
    from,
    side,
    free: below(from).map((relu) => {
      const own = [images, ...relu.shape.slice(1)]
      const count = S.size(from.shape.slice(1))
      // Convolutions walk in patches, which have no row of their own; and what is moved has the rows of what it is moved from.
      const hasRows = from.shape.length === 2 && movedFrom(from, boxed, () => false) === undefined
      const perRow = hasRows && count * S.size(own) <= perRowMost
      return { relu, shape: from === output ? [rows, ...own] : perRow ? [count, ...own] : own }
    }),
  })
  const walks = [
    ...hidden
      .filter((h) => !known.has(h) && below(h).length > 0 && underCurve(h, boxed) === undefined)
      .flatMap((h) => [walkOf(h, 'lower'), walkOf(h, 'upper')]),
    walkOf(output, 'lower'),
  ]
  const free = walks.flatMap(({ from, side, free: own }) => own.map((s) => ({ ...s, from, side })))
  const crown = linearBounds({ slope: 'adaptive', hidden: 'own' })(output, boxes, known, rounding)
  return {
    slopes: free.map(({ relu, shape, from, side }) => ({ shape, low: leak(relu), relu, from, side })),
    order: below(output),
    relus: walks[walks.length - 1].free.map((s) => s.relu),
    start: free.map(({ relu, shape }) => {
      const { lower, upper } = crown.node(relu.inputs[0])
      const a = leak(relu)
      return broadcastTo(add(a, mul(1 - a, step(add(lower, upper)))), shape)
    }),
    hidden,
    crown: new Map(hidden.map((h) => [h, crown.node(h)])),
    bound: (values) => {
      const given = new Map<Tensor, Interval>(known)
      let at = 0
      const bounded = ({ from, free: own }: Walk): Bounded => {
        const slope = new Map(own.map(({ relu }, i) => [relu, values[at + i]]))
        at += own.length
        return linearBounds({ slope, hidden: 'own' })(from, boxes, new Map(given), rounding)
      }
      let lower: Tensor | undefined
      for (const walk of walks.slice(0, -1)) {
        const box = bounded(walk).output()
        if (walk.side === 'lower') lower = box.lower
        else given.set(walk.from, interval(lower as Tensor, box.upper))
      }
      const last = bounded(walks[walks.length - 1])
      const bounds = last.rows(spec)
      return { lower: bounds.lower, hidden: new Map(hidden.map((h) => [h, last.node(h)])) }
    },
  }
}

// ---- ascent ----------------------------------------------------------------------------------------------------------

const [BETA1, BETA2, TINY] = [0.9, 0.999, 1e-8]

/** A tensor to be chosen from [low, high], and its own share of the step size. */
export interface Free {
  readonly shape: S.Shape
  readonly low: number
  readonly high: number
  readonly rate?: number
}

interface State {
  readonly values: readonly Tensor[]
  readonly first: readonly Tensor[]
  readonly second: readonly Tensor[]
}

/** One update of projected ascent with Adam (arXiv:1412.6980): x <- clamp(x + lr m' / (sqrt(v') + eps)). */
const ascend = (
  free: readonly Free[],
  { values, first, second }: State,
  gradients: readonly Tensor[],
  lr: Tensor | number,
  corrections: readonly [Tensor | number, Tensor | number],
): State => {
  const m = first.map((x, i) => add(mul(BETA1, x), mul(1 - BETA1, gradients[i])) as Tensor)
  const v = second.map((x, i) => add(mul(BETA2, x), mul(1 - BETA2, mul(gradients[i], gradients[i]))) as Tensor)
  return {
    values: values.map((x, i) => {
      const direction = div(mul(m[i], corrections[0]), add(sqrt(mul(v[i], corrections[1])), TINY))
      return clamp(add(x, mul(mul(lr, free[i].rate ?? 1), direction)) as Tensor, free[i].low, free[i].high)
    }),
    first: m,
    second: v,
  }
}

/** Bias corrections of update t = 1, 2, ... */
const correctionsAt = (t: number): readonly [number, number] => [1 / (1 - power(BETA1, t)), 1 / (1 - power(BETA2, t))]

/** The larger of two, and the one that is a number where the other is none. */
const best = (x: Tensor, sofar: Tensor): Tensor => select(greater(x, sofar), x, sofar)

const zerosOf = ({ shape }: { readonly shape: S.Shape }): Tensor => broadcastTo(constant([0], []), shape)

/**
 * alpha-CROWN as a bound like the others: a graph with the updates unrolled, starting at CROWN. Each row's bound is the best of all
 * iterates, so it is never below CROWN's. Boxes of hidden nodes (`node`) are CROWN's. Gradients flow through the bounds, not through
 * the choice of the slopes.
 *
 * @example
 *   const method = alphaCrown({ steps: 20, lr: 0.1 })
 */
export const alphaCrown =
  ({ steps, lr }: AlphaOptions): Bounder =>
  (output, boxes, given, rounding = 'none') => {
    const crown = linearBounds({ slope: 'adaptive', hidden: 'own' })(output, boxes, given, rounding)
    const lowerOf = (spec: Tensor): Tensor => {
      const { slopes, start, bound } = relaxation(output, boxes, spec, given, rounding)
      const free = slopes.map((s) => ({ ...s, high: 1 }))
      let found = crown.rows(spec).lower
      if (free.length === 0) return found
      let state: State = { values: start.map(stopGradient), first: free.map(zerosOf), second: free.map(zerosOf) }
      for (let t = 0; ; t++) {
        const { lower } = bound(state.values)
        found = best(lower, found)
        if (t >= steps) return found
        const next = ascend(free, state, grad(sum(lower), state.values), lr, correctionsAt(t + 1))
        state = { ...next, values: next.values.map(stopGradient) }
      }
    }
    const rows = (spec: Tensor): Interval => interval(lowerOf(spec), neg(lowerOf(neg(spec))))
    return {
      rows,
      node: crown.node,
      rounding,
      output: () => {
        const shape = output.shape.slice(1)
        const count = S.size(shape)
        const eye = Float64Array.from({ length: count * count }, (_, i) => Number(i % (count + 1) === 0))
        const { lower, upper } = rows(constant(eye, [count, 1, ...shape]))
        const back = (x: Tensor) => reshape(transpose(x, [1, 0]), output.shape)
        return interval(back(lower), back(upper))
      },
    }
  }

// ---- ascent on a device ----------------------------------------------------------------------------------------------

/** What is maximized, as a function of the free tensors. */
export interface Ascent<I, O> {
  readonly free: readonly Free[]
  /** Other arguments of the graph. */
  readonly inputs: I
  /** The sum of `objective` is raised; `outputs` are read beside it. */
  readonly graph: (values: readonly Tensor[]) => { readonly objective: Tensor; readonly outputs: O }
}

/** A compiled update: one program, run many times, with the free tensors and their moments as its state. */
export interface Ascending<I, O> {
  /** Writes arguments besides the free tensors. */
  readonly write: (values: Values<I>) => void
  /** Outputs at the last run, before its update. */
  readonly read: () => Promise<Results<O>>
  readonly buffers: Results<O, Buffer>
  /** Puts the free tensors to these values, and the moments to 0. */
  readonly start: (values: readonly Data[]) => void
  /** Estimate of one update. */
  readonly seconds: () => number
  readonly work: number
  /** Computes the outputs and then updates by `lr`. @throws OutOfTime */
  readonly run: (lr: number) => Promise<void>
  /** The free tensors after the last update. */
  readonly values: () => Promise<readonly Data[]>
  /** Those that the last run computed its outputs from. */
  readonly evaluated: () => Promise<readonly Data[]>
}

/** The update as a program of the arguments, the step size, Adam's corrections and the state. */
const ascentProgram = ({ free, inputs, graph }: Ascent<unknown, unknown>) => {
  const named = (name: string) => free.map(({ shape }, i) => input(`${name}.${i}`, shape))
  const state: State = { values: named('value'), first: named('first'), second: named('second') }
  const lr: Tensor = input('lr', [])
  const corrections = [input('correction1', []), input('correction2', [])] as const
  const { objective, outputs } = graph(state.values)
  const next = ascend(free, state, grad(sum(objective), state.values), lr, corrections)
  return programOf({ inputs, lr, corrections, state: { ...state } }, { outputs: outputs as Graphs, state: { ...next } })
}

/** The update as it is run: the names of a program whose graphs the compiler does not know are what `Ascending` says. */
interface Update<O> extends Pick<Ascending<never, O>, 'seconds' | 'work'> {
  readonly write: (values: object) => void
  readonly read: () => Promise<{ readonly outputs: Results<O> }>
  readonly buffers: { readonly outputs: Results<O, Buffer> }
  readonly run: (values: object, into: object) => Promise<void>
  readonly program: { readonly inputs: { readonly state: State } }
}

/** Plans the update of an ascent, about `nodes` nodes of a graph. */
export const ascending =
  (region: Region, budget: Budget) =>
  async <I, O>(what: string, nodes: number, make: () => Ascent<I, O>): Promise<Ascending<I, O>> => {
    const { backend } = region
    const update = (await budget.plan(what, nodes, () => ascentProgram(make()))) as unknown as Update<O>
    const banks = banksIn(region, update.program.inputs.state)
    let count = 0
    const read = async ({ values }: { readonly values: readonly Buffer[] }): Promise<readonly Data[]> => {
      const data: Data[] = []
      for (const b of values) data.push(await backend.read(b))
      return data
    }
    return {
      write: (inputs) => update.write({ inputs }),
      read: async () => (await update.read()).outputs,
      get buffers() {
        return update.buffers.outputs
      },
      seconds: update.seconds,
      work: update.work,
      start: (values) => {
        count = 0
        const zeros = () => values.map(({ length }) => new Float32Array(length))
        banks.write({ values, first: zeros(), second: zeros() })
      },
      run: async (lr) => {
        count++
        await update.run({ lr, corrections: correctionsAt(count), state: banks.front() }, { state: banks.back() })
        banks.turn()
      },
      values: () => read(banks.front()),
      evaluated: () => read(banks.back()),
    }
  }
