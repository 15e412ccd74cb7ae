import { raise } from '../core/error.ts'
import type { ReferenceKernel } from '../core/lowering.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { dataOf, inputNameOf } from '../ops/index.ts'
import { suited, unrolled } from './accumulate.ts'
import { emit } from './emit.ts'
import type { Instruction } from './instruction.ts'
import { layout, type Slot } from './layout.ts'
import { copyTo, isLeaf, type Lowered, lower, repeated, rootOf } from './lower.ts'
import { gathered, sequence } from './schedule.ts'
import { tape } from './tape.ts'

export type { Slot } from './layout.ts'

/** One op of the tape, for a backend that interprets ops one by one: `values[output] = kernel(values[inputs])`. */
export interface Call {
  readonly name: string
  // biome-ignore lint/suspicious/noExplicitAny: the op record ties kernel and attributes together
  readonly kernel: ReferenceKernel<any>
  readonly attrs: unknown
  readonly inputs: readonly number[]
  readonly shapes: readonly S.Shape[]
  readonly output: number
  readonly outShape: S.Shape
}

/** A tape with every decision taken: what runs, in which order, and where each value lives. Plain data, the same for every backend. */
export interface Plan {
  /** Shapes of the run's arguments: inputs first, then outputs. */
  readonly inputs: readonly S.Shape[]
  readonly outputs: readonly S.Shape[]
  /** Fused instructions in the order in which they run; operands are indices into `slots`. */
  readonly instructions: readonly Instruction[]
  readonly slots: readonly Slot[]
  /** All constants, f64 as written in the graph. */
  readonly constants: Float64Array
  /** Elements of scratch: one arena, lifetimes overlapping where they may. Offsets are multiples of 64 elements (256 bytes). */
  readonly arena: number
  /** The same computation op by op; value ids: inputs, then constants (see `constantIds`), then calls in order. */
  readonly calls: readonly Call[]
  readonly values: number
  readonly constantIds: readonly { readonly id: number; readonly data: Float64Array }[]
  readonly outputIds: readonly number[]
}

/** What a plan may do to a graph, and what the machine asks of it. */
export interface PlanOptions {
  /** Chains of elementwise ops become single loops. */
  readonly fuse?: boolean | undefined
  /** Products and convolutions add biases and apply relu themselves; for backends that say so (`Backend.epilogue`). */
  readonly epilogue?: boolean | undefined
  /** A loop may store several values, and several loops be one instruction; for backends that say so (`Backend.results`). */
  readonly results?: boolean | undefined
  /** Sums over rounds are repeated; false writes every round out, for backends that cannot (`Backend.rounds`). */
  readonly rounds?: boolean | undefined
  /** Sums over rounds keep products for their backward pass, in up to 128 MiB each; false: every product is computed again. */
  readonly keep?: boolean | undefined
  /** Elements of a page of scratch: values that one page holds do not reach over the end of one. */
  readonly page?: number | undefined
}

/**
 * The plan of the given outputs as a function of the given inputs. Chains of elementwise ops, broadcasts, views and reductions become
 * single loops; other ops are kernels. Scratch is laid out by liveness in one arena, so that its size is known before anything runs.
 * @throws a shape or unsupported error for an input missing from `inputs` or an undecided choice.
 *
 * @example
 *   const x = input('x', [2])
 *   const { calls } = plan([relu(x)], [x])
 */
export const plan = (
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  {
    fuse = true,
    epilogue = false,
    rounds = true,
    results: several = false,
    keep = true,
    page = Number.POSITIVE_INFINITY,
  }: PlanOptions = {},
): Plan => {
  const { nodes: taped, outputs: roots } = tape(rounds ? repeated(outputs, keep) : unrolled(suited(outputs, false)))
  for (const x of taped) {
    if (inputNameOf(x) !== undefined && !inputs.includes(x))
      raise({
        kind: 'unsupported',
        what: `running with input '${(x.attrs as { name: string }).name}' unbound`,
        reason: 'it is not among the inputs of the plan',
      })
  }
  const lowered: Lowered = { how: new Map(), alias: new Map(), constants: new Set() }
  const steps = lower(taped, new Set(roots), { fuse, epilogue, several, keep }, lowered)

  const root = rootOf(lowered)
  const outputOf = new Map<Tensor, number>()
  const copies = new Map<Tensor, number>()
  roots.forEach((x, k) => {
    const r = root(x)
    if (!isLeaf(r) && !outputOf.has(r)) {
      outputOf.set(r, k)
      return
    }
    // What has no elements is never computed: there is no slot to copy from.
    if (S.size(x.shape) === 0) return
    const out = { ...x, inputs: [r] }
    copies.set(out, k)
    steps.push(copyTo(out, 0, { base: r, offset: 0, strides: [1] }))
  })
  const ordered = sequence(steps, root, new Set(outputOf.keys()))
  const executed = several ? gathered(ordered, root, (x) => outputOf.has(x)) : ordered
  const constants = [...lowered.constants]
  const stored = { inputs, constants, root, page, outputOf: new Map([...outputOf, ...copies]) }
  const { slots, slotOf, data, arena } = layout(executed, stored)
  return {
    inputs: inputs.map((x) => x.shape),
    outputs: roots.map((x) => x.shape),
    instructions: emit(executed, slotOf),
    slots,
    constants: data,
    arena,
    ...opByOp(taped, inputs, constants, roots),
  }
}

/** The ops one by one, for the reference backend. */
const opByOp = (
  nodes: readonly Tensor[],
  inputs: readonly Tensor[],
  constants: readonly Tensor[],
  roots: readonly Tensor[],
): Pick<Plan, 'calls' | 'values' | 'constantIds' | 'outputIds'> => {
  const ids = new Map<Tensor, number>()
  inputs.forEach((x, i) => ids.set(x, i))
  for (const x of constants) ids.set(x, ids.size)
  const idOf = (x: Tensor) => ids.get(x) as number
  const calls: Call[] = []
  for (const x of nodes) {
    if (isLeaf(x)) continue
    ids.set(x, ids.size)
    const { kernel } = x.op
    if ('expand' in kernel) continue
    calls.push({
      name: x.op.name,
      kernel: kernel.reference,
      attrs: x.attrs,
      inputs: x.inputs.map(idOf),
      shapes: x.inputs.map((i) => i.shape),
      output: idOf(x),
      outShape: x.shape,
    })
  }
  return {
    calls,
    values: ids.size,
    constantIds: constants.map((x) => ({ id: idOf(x), data: dataOf(x) as Float64Array })),
    outputIds: roots.map(idOf),
  }
}
