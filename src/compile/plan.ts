import { raise } from '../core/error.ts'
import type { ReferenceKernel } from '../core/lowering.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { dataOf, inputNameOf } from '../ops/index.ts'
import { suited, unrolled } from './accumulate.ts'
import { emit } from './emit.ts'
import type { Instruction } from './instruction.ts'
import { copyTo, isLeaf, type Lowered, lower, repeated, rootOf } from './lower.ts'
import { gathered, overwrites, sequence } from './schedule.ts'
import { type Step, touched, written } from './steps.ts'
import { tape } from './tape.ts'

/** Where a value lives during a run. Offsets count elements. */
export type Slot =
  | { readonly at: 'arena'; readonly offset: number; readonly length: number }
  | { readonly at: 'constant'; readonly offset: number; readonly length: number }
  | { readonly at: 'input'; readonly index: number; readonly length: number }
  | { readonly at: 'output'; readonly index: number; readonly length: number }

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

const ALIGN = 64
const align = (n: number): number => Math.ceil(n / ALIGN) * ALIGN

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

  // ---- storage -----------------------------------------------------------------------------------------------------
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
  return finish(steps, inputs, taped, roots, root, outputOf, copies, [...lowered.constants], { several, page })
}

const finish = (
  unordered: readonly Step[],
  inputs: readonly Tensor[],
  nodes: readonly Tensor[],
  roots: readonly Tensor[],
  root: (x: Tensor) => Tensor,
  outputOf: ReadonlyMap<Tensor, number>,
  copies: ReadonlyMap<Tensor, number>,
  constantNodes: readonly Tensor[],
  { several, page }: { readonly several: boolean; readonly page: number },
): Plan => {
  const copyTarget = (x: Tensor): number | undefined => copies.get(x)
  const ordered = sequence(unordered, root, new Set([...outputOf.keys()]))
  const steps = several ? gathered(ordered, root, (x) => outputOf.has(x)) : ordered
  // Last step that reads each scratch value.
  const last = new Map<Tensor, number>()
  steps.forEach((s, t) => {
    for (const x of touched(s, root)) last.set(x, t)
    for (const x of written(s)) if (!last.has(x)) last.set(x, t)
  })
  const slots: Slot[] = []
  const slotOf = new Map<Tensor, number>()
  const addSlot = (x: Tensor, slot: Slot) => slotOf.set(x, slots.push(slot) - 1)
  inputs.forEach((x, i) => addSlot(x, { at: 'input', index: i, length: S.size(x.shape) }))
  let constantLength = 0
  const constantOffset = new Map<Tensor, number>()
  for (const x of constantNodes) {
    const n = S.size(x.shape)
    // Scalars sit together; arrays are aligned like scratch.
    if (n > 1) constantLength = align(constantLength)
    constantOffset.set(x, constantLength)
    addSlot(x, { at: 'constant', offset: constantLength, length: n })
    constantLength += n
  }
  const constants = new Float64Array(constantLength)
  for (const x of constantNodes) constants.set(dataOf(x) as Float64Array, constantOffset.get(x))

  // First fit over the free gaps of the arena, values released after their last reader.
  const gaps: { start: number; end: number }[] = [{ start: 0, end: Number.POSITIVE_INFINITY }]
  let arena = 0
  /** Where n elements may begin from `start` on: at the next page if they fit one, but not the rest of this one. */
  const placed = (start: number, n: number): number => {
    const next = page === Number.POSITIVE_INFINITY ? start : (Math.floor(start / page) + 1) * page
    return n <= page && start + n > next ? next : start
  }
  const take = (n: number): number => {
    const i = gaps.findIndex((g) => g.end - placed(g.start, n) >= n)
    const { start, end } = gaps[i]
    const at = placed(start, n)
    gaps.splice(
      i,
      1,
      ...[
        { start, end: at },
        { start: at + n, end },
      ].filter((g) => g.start < g.end),
    )
    arena = Math.max(arena, at + n)
    return at
  }
  const give = (start: number, n: number): void => {
    const i = gaps.findIndex((g) => g.start > start)
    gaps.splice(i, 0, { start, end: start + n })
    if (i + 1 < gaps.length && gaps[i].end === gaps[i + 1].start) gaps.splice(i, 2, { start, end: gaps[i + 1].end })
    if (i > 0 && gaps[i - 1].end === gaps[i].start)
      gaps.splice(i - 1, 2, { start: gaps[i - 1].start, end: gaps[i].end })
  }
  const dying = steps.map(() => [] as Tensor[])
  const placedValues = new Set(steps.flatMap((s) => (s.kind === 'repeat' ? s.places.map((p) => p.value) : [])))
  for (const [x, t] of last)
    if (!isLeaf(x) && !outputOf.has(x) && copyTarget(x) === undefined && !placedValues.has(x)) dying[t].push(x)
  steps.forEach((s, t) => {
    if (s.kind === 'repeat')
      for (const { value, store, at } of s.places) {
        const { offset } = slots[slotOf.get(root(store)) as number] as { offset: number }
        addSlot(value, { at: 'arena', offset: offset + at, length: S.size(value.shape) })
      }
    let inPlace: Tensor | undefined
    const outs = written(s)
    for (const out of outs) {
      if (slotOf.has(out)) continue
      const n = S.size(out.shape)
      const k = copyTarget(out) ?? outputOf.get(out)
      // What a loop stores on its way must not replace what it still reads.
      const final = s.kind !== 'loops' && out === s.out
      if (final && k === undefined) inPlace = dying[t].find((x) => !outs.includes(x) && overwrites(s, x, root))
      const offset =
        final && inPlace !== undefined ? (slots[slotOf.get(inPlace) as number] as { offset: number }).offset : undefined
      addSlot(
        out,
        k === undefined
          ? { at: 'arena', offset: offset ?? take(align(n)), length: n }
          : { at: 'output', index: k, length: n },
      )
    }
    for (const x of dying[t]) {
      const slot = slots[slotOf.get(x) as number]
      if (slot.at === 'arena' && x !== inPlace) give(slot.offset, align(slot.length))
    }
  })

  const instructions = emit(steps, (x) => slotOf.get(root(x)) as number)

  // Op by op, for the reference backend.
  const ids = new Map<Tensor, number>()
  inputs.forEach((x, i) => ids.set(x, i))
  for (const x of constantNodes) ids.set(x, ids.size)
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
      inputs: x.inputs.map((i) => ids.get(i) as number),
      shapes: x.inputs.map((i) => i.shape),
      output: ids.get(x) as number,
      outShape: x.shape,
    })
  }
  return {
    inputs: inputs.map((x) => x.shape),
    outputs: roots.map((x) => x.shape),
    instructions,
    slots,
    constants,
    arena,
    calls,
    values: ids.size,
    constantIds: constantNodes.map((x) => ({ id: ids.get(x) as number, data: dataOf(x) as Float64Array })),
    outputIds: roots.map((x) => ids.get(x) as number),
  }
}
