import { raise } from '../core/error.ts'
import { input } from '../ops/index.ts'
import type { Backend } from './backend.ts'
import { built, type Graphs, type Inputs, leavesOf, type Results, type Shapes, type Values } from './named.ts'
import type { Plan } from './plan.ts'
import { openRegion, type Region } from './region.ts'
import { compilePlanIn, planBytes, planFor } from './run.ts'
import { type Running, runningIn } from './running.ts'

export type { Graphs, Inputs, Results, Shapes, Targets, Value, Values } from './named.ts'
export type { Running } from './running.ts'

/** A function of named tensors, as data: nothing is planned or allocated before it is put on a backend. */
export interface Program<I, O extends Graphs> {
  readonly inputs: I
  /** The graphs of the outputs. */
  readonly outputs: O
  /** What a backend would run. Made once for each. */
  readonly plan: (backend: Backend) => Plan
  /** Bytes of scratch that a run takes on a backend. */
  readonly bytes: (backend: Backend) => number
  /** Compiled, with buffers of its own; all of it ends with the region. */
  readonly on: (region: Region) => Promise<Running<I, O>>
  /** Runs once and frees everything. */
  readonly once: (backend: Backend, values: Values<I>) => Promise<Results<O>>
}

/**
 * The program of a graph that is there: its inputs by name, and its outputs by name. Inputs may be arrays of tensors, too. What they are not made of must be constants.
 *
 * @param keep whether products are kept rather than computed again, which takes memory. Default: true.
 * @example
 *   const x = input('x', [2])
 *   const { y } = await programOf({ x }, { y: mul(x, 2) }).once(reference(), { x: [1, 2] })
 *   y // [2, 4]
 */
export const programOf = <I, O extends Graphs>(inputs: I, outputs: O, keep = true): Program<I, O> => {
  const [given, results] = [leavesOf(inputs as Graphs), leavesOf(outputs)].map((all) => all.map(([, x]) => x))
  const plans = new WeakMap<Backend, Plan>()
  const plan = (backend: Backend): Plan => {
    const made = plans.get(backend) ?? planFor(backend, keep)(results, given)
    plans.set(backend, made)
    return made
  }
  const on = async (region: Region) =>
    runningIn(region, await compilePlanIn(region)(plan(region.backend)), inputs as Graphs, outputs)
  const made = {
    inputs,
    outputs,
    plan,
    bytes: (backend: Backend) => planBytes(backend, plan(backend)),
    on,
    once: async (backend: Backend, values: object) => {
      const { region, close } = openRegion(backend)
      try {
        return await (await on(region))(values)
      } finally {
        close()
      }
    },
  }
  // The types of values and results follow from those of the graphs, which the compiler cannot see through here.
  return made as unknown as Program<I, O>
}

/**
 * A compiled function is a value: shapes by name in, graphs by name out.
 *
 * ```ts
 * const f = program({ w: [2, 2], x: [1, 2], epsilon: [] }, ({ w, x, epsilon }) => ({ y: relu(matmul(ball(x, epsilon), w)) }))
 * const { y } = await f.once(backend, { w: [1, -1, 1, 1], x: [0.5, 0.5], epsilon: 0.1 })     // y.lower, y.upper
 * ```
 *
 * Tensors that the body closes over must be constants or parts of the graph: every other input has to be named.
 * @throws whatever the ops of the body raise.
 *
 * @example
 *   const double = program({ x: [2] }, ({ x }) => ({ y: mul(x, 2) }))
 *   const { y } = await double.once(reference(), { x: [1, 2] })
 *   y // [2, 4]
 */
export const program = <I extends Shapes, O extends Graphs>(inputs: I, body: (x: Inputs<I>) => O): Program<I, O> => {
  const tensors = built(inputs, input)
  return { ...(programOf(tensors, body(tensors)) as object), inputs } as Program<I, O>
}

/** How many images are wanted at once, and what they may take. */
export interface Fitting {
  readonly wanted: number
  /** Bytes of scratch. */
  readonly budget: number
  /** What is done to one image, for the error. */
  readonly what: string
  /** Of a number that may fit and the larger one that did not, the number to try. Default: the first. */
  readonly among?: (n: number, tried: number) => number
}

/**
 * The program for the largest number of images n <= wanted whose scratch fits a budget in bytes, and n. `what` names one image's work in the error; `among` takes a smaller
 * number than was tried to one of those that are wanted, not larger than that and at least 1.
 * @throws a memory error if not even one fits.
 *
 * @example
 *   const x = fitted(reference(), { wanted: 100, budget: 2e9, what: 'a batch' }, (n) => program({ x: [n, 2] }, ({ x }) => ({ y: relu(x) })))
 *   x.n // 100
 */
export const fitted = <P extends { readonly bytes: (backend: Backend) => number }>(
  backend: Backend,
  { wanted, budget, what, among = (n) => n }: Fitting,
  of: (n: number) => P,
): { readonly n: number; readonly program: P } => {
  let n = wanted
  for (;;) {
    const candidate = of(n)
    const needed = candidate.bytes(backend)
    if (needed <= budget) return { n, program: candidate }
    if (n === 1) return raise({ kind: 'memory', needed, budget, what })
    // Scratch grows linearly with the images, but for the share that does not depend on them.
    n = among(Math.max(1, Math.min(n - 1, Math.floor((n * budget) / needed))), n)
  }
}
