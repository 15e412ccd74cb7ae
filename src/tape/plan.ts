import { raise } from '../core/error.ts'
import {
  Combine,
  LoopMode,
  type Lowering,
  Micro,
  Opcode,
  type PlanLowering,
  type ReferenceKernel,
} from '../core/lowering.ts'
import type { Rounds } from '../core/op.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { type ConstantAttrs, chooseOp, constantOp, inputOp } from '../ops/index.ts'
import { instance, layoutOf, pruned, settled, strideOf, unrolled } from './accumulate.ts'
import { keeping } from './keep.ts'
import {
  type Access,
  allocate,
  frugal,
  isPlain,
  type Loop,
  MAX_DIMS,
  MAX_INPUTS,
  MAX_OPS,
  type MicroOp,
  results,
  united,
} from './loops.ts'
import { absorb, type Epilogue, subtracted } from './rewrites.ts'
import { substitute, tape } from './tape.ts'

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
  /** Fused instructions as the instruction set of assembly/opcode.ts; operands are indices into `slots`. Ends with `halt`. */
  readonly code: Int32Array
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

/** Operations that cost no more than reading their result, and how many loops may each compute one. */
const LIGHT: ReadonlySet<Micro> = new Set([
  Micro.add,
  Micro.sub,
  Micro.mul,
  Micro.min,
  Micro.max,
  Micro.neg,
  Micro.abs,
  Micro.sign,
  Micro.step,
  Micro.relu,
  Micro.greater,
  Micro.greaterEqual,
])
const MAX_REPEATS = 3

const ALIGN = 64
const align = (n: number): number => Math.ceil(n / ALIGN) * ALIGN

/** Where a value of a body lies in a round: `stride` elements further in `store` each time. */
interface Place {
  readonly value: Tensor
  readonly store: Tensor
  readonly at: number
  readonly stride: number
}

type Step =
  | Loop
  | {
      readonly kind: 'rounds'
      readonly count: Tensor
      readonly per: number
      readonly most: number
      readonly round: Tensor
      /** What the body reads of what surrounds it. */
      readonly reads: readonly Tensor[]
      readonly body: readonly Step[]
      readonly places: readonly Place[]
      readonly out: Tensor
    }
  | {
      readonly kind: 'repeat'
      readonly count: Tensor
      readonly per: number
      readonly most: number
      readonly places: readonly Place[]
      /** The number of the round, which the machine writes. */
      readonly out: Tensor
    }
  | { readonly kind: 'end'; readonly reads: readonly Tensor[]; readonly out: Tensor }
  | { readonly kind: 'fill'; readonly out: Tensor; readonly value: number; readonly n: number }
  | {
      readonly kind: 'kernel'
      readonly lowering: Extract<Lowering, { kind: 'kernel' }>
      readonly inputs: readonly Tensor[]
      readonly out: Tensor
      /** Set when the kernel finishes its result itself; a bias is the last of the inputs. */
      readonly epilogue: Epilogue | undefined
    }

const loweringOf = (x: Tensor): PlanLowering => {
  const { kernel } = x.op
  if ('rounds' in kernel) return { kind: 'rounds' }
  if ('expand' in kernel)
    return raise({ kind: 'unsupported', what: `planning ${x.op.name}`, reason: 'it was not expanded' })
  return kernel.lower(
    x.inputs.map((i) => i.shape),
    x.shape,
    x.attrs,
  )
}

const isLeaf = (x: Tensor): boolean => x.op === inputOp || x.op === constantOp

/** The shape that a consumer iterates over where it reads an input of this shape, if it reads it in a loop at all. */
const iteration = (consumer: Tensor, how: PlanLowering, read: Tensor): S.Shape | undefined =>
  how.kind === 'map' ? consumer.shape : how.kind === 'reduce' || how.kind === 'place' ? read.shape : undefined

/**
 * The plan of the given outputs as a function of the given inputs. Chains of elementwise ops, broadcasts, views and reductions become
 * single loops; other ops are kernels. Scratch is laid out by liveness in one arena, so that its size is known before anything runs.
 * @throws a shape or unsupported error for an input missing from `inputs` or an undecided choice.
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
  const { nodes: taped, outputs: roots } = tape(rounds ? repeated(outputs, keep) : unrolled(settled(outputs, false)))
  for (const x of taped) {
    if (x.op === inputOp && !inputs.includes(x))
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
    const out = { ...x, inputs: [r] }
    copies.set(out, k)
    steps.push(copyTo(out, 0, { base: r, offset: 0, strides: [1] }))
  })
  return finish(steps, inputs, taped, roots, root, outputOf, copies, [...lowered.constants], { several, page })
}

/** Loops that run as one, none of which touches what another writes. */
interface Loops {
  readonly kind: 'loops'
  readonly loops: readonly Loop[]
}

/** Steps in the order in which they run. */
type Executed = Exclude<Step, { readonly kind: 'rounds' }> | Loops

/** The graph as a backend that repeats rounds runs it. */
const repeated = (outputs: readonly Tensor[], keep: boolean): readonly Tensor[] => {
  const needed = pruned(settled(outputs, true))
  return keep ? keeping(needed) : needed
}

/** What is known of the nodes of a plan, those of its bodies included. */
interface Lowered {
  readonly how: Map<Tensor, PlanLowering>
  /** Placeholders of a body and what they stand for. */
  readonly alias: Map<Tensor, Tensor>
  readonly constants: Set<Tensor>
}

/** The value whose storage x is another name of. */
const rootOf =
  ({ how, alias }: Lowered) =>
  (x: Tensor): Tensor => {
    let from = x
    for (;;) {
      const next = how.get(from)?.kind === 'alias' ? from.inputs[0] : alias.get(from)
      if (next === undefined) return from
      from = next
    }
  }

/** A flat copy of one access to `out`, from its element `offset` on; with `sum`, added to what is there. */
const copyTo = (out: Tensor, offset: number, from: Access, n = S.size(out.shape), sum = false): Loop => ({
  kind: 'loop',
  shape: [n],
  inputs: sum ? [{ base: out, offset, strides: [1] }, from] : [from],
  program: sum ? [{ micro: Micro.add, args: [-1, -2] }] : [],
  out,
  outOffset: offset,
  outStrides: [1],
  reduce: undefined,
  more: [],
})

interface LowerOptions {
  readonly fuse: boolean
  readonly epilogue: boolean
  readonly several: boolean
  readonly keep: boolean
}

/** The steps of nodes in order, and what they read. Bodies are lowered in their place. */
const lower = (
  taped: readonly Tensor[],
  isOutput: ReadonlySet<Tensor>,
  options: LowerOptions,
  lowered: Lowered,
): Step[] => {
  const { fuse, epilogue } = options
  const { how } = lowered
  for (const x of taped) {
    if (x.op === chooseOp)
      raise({ kind: 'unsupported', what: 'planning an undecided choice', reason: 'stage the graph first' })
    if (x.op === constantOp) lowered.constants.add(x)
    if (!isLeaf(x)) how.set(x, loweringOf(x))
  }
  const { nodes, inputsOf, epilogues } = subtracted(
    epilogue
      ? absorb(taped, how, isOutput)
      : { nodes: taped, inputsOf: (x: Tensor) => x.inputs, epilogues: new Map<Tensor, Epilogue>() },
    how,
    isOutput,
  )
  const users = new Map<Tensor, Tensor[]>(nodes.map((x) => [x, []]))
  for (const x of nodes) for (const i of inputsOf(x)) (users.get(i) as Tensor[]).push(x)
  // ---- what is fused into its consumer -----------------------------------------------------------------------------
  const inlined = new Set<Tensor>()
  const folded = new Set<Tensor>()
  const weight = new Map<Tensor, { readonly ops: number; readonly leaves: number }>()
  const isLoop = (x: Tensor) => ['map', 'reduce', 'place'].includes(how.get(x)?.kind ?? '')
  for (const x of nodes) {
    const h = how.get(x)
    if (h?.kind !== 'view' || isOutput.has(x)) continue
    const to = users.get(x) as Tensor[]
    const repeats = h.strides.some((s, i) => s === 0 && x.shape[i] > 1)
    if (fuse && to.length > 0 && to.every(isLoop) && (to.length === 1 || repeats)) folded.add(x)
  }
  const repeated = new Set<Tensor>()
  /** A light operation on one stored value is cheaper computed again by each of a few loops than stored and read. */
  const isRepeated = (x: Tensor, micro: Micro): boolean => {
    const to = users.get(x) as Tensor[]
    return (
      LIGHT.has(micro) &&
      !isOutput.has(x) &&
      to.length > 1 &&
      to.length <= MAX_REPEATS &&
      inputsOf(x).filter((i) => S.size(i.shape) > 1).length === 1 &&
      to.every((u) => {
        const hu = how.get(u) as PlanLowering
        const shape = hu.kind === 'place' ? undefined : iteration(u, hu, x)
        return shape !== undefined && S.equals(shape, x.shape)
      })
    )
  }
  for (const x of nodes) {
    const h = how.get(x)
    if (h === undefined || !isLoop(x)) continue
    let { ops, leaves } = { ops: h.kind === 'map' ? 1 : 0, leaves: 0 }
    const candidates: Tensor[] = []
    for (const i of new Set(inputsOf(x))) {
      const hi = how.get(i)
      const w = weight.get(i)
      if (repeated.has(i) && w !== undefined) {
        ops += w.ops
        leaves += w.leaves
        continue
      }
      const only = (users.get(i) as Tensor[]).length === 1
      const shape = iteration(x, h, i)
      if (
        fuse &&
        w !== undefined &&
        hi?.kind === 'map' &&
        only &&
        !isOutput.has(i) &&
        shape !== undefined &&
        S.equals(shape, i.shape) &&
        h.kind !== 'place'
      ) {
        candidates.push(i)
        ops += w.ops
        leaves += w.leaves
      } else leaves += 1
    }
    candidates.sort((a, b) => (weight.get(a)?.ops ?? 0) - (weight.get(b)?.ops ?? 0))
    while (candidates.length > 0 && (ops > MAX_OPS || leaves > MAX_INPUTS)) {
      const w = weight.get(candidates.pop() as Tensor) as { ops: number; leaves: number }
      ops -= w.ops
      leaves += 1 - w.leaves
    }
    for (const c of candidates) inlined.add(c)
    if (h.kind === 'map') weight.set(x, { ops, leaves })
    if (fuse && h.kind === 'map' && ops === 1 && isRepeated(x, h.micro)) {
      inlined.add(x)
      repeated.add(x)
    }
  }

  // ---- steps -------------------------------------------------------------------------------------------------------
  const steps: Step[] = []
  const loop = (
    root: Tensor,
    shape: S.Shape,
    target: Pick<Loop, 'out' | 'outOffset' | 'outStrides' | 'reduce'>,
  ): void => {
    const accesses: Access[] = []
    const program: MicroOp[] = []
    const inputValue = (a: Access): number => {
      const same = accesses.findIndex(
        (b) => b.base === a.base && b.offset === a.offset && S.equals(b.strides, a.strides),
      )
      return -1 - (same >= 0 ? same : accesses.push(a) - 1)
    }
    const known = new Map<Tensor, number>()
    const value = (x: Tensor): number => {
      if (!inlined.has(x) && !(x === root && how.get(x)?.kind === 'map' && target.out === x))
        return inputValue(access(x, shape))
      const before = known.get(x)
      if (before !== undefined) return before
      const args = inputsOf(x).map(value)
      const at = program.push({ micro: (how.get(x) as { micro: Micro }).micro, args }) - 1
      known.set(x, at)
      return at
    }
    value(root)
    steps.push({ kind: 'loop', shape, inputs: accesses, program, more: [], ...target })
  }
  const access = (x: Tensor, shape: S.Shape): Access => {
    if (!folded.has(x)) return { base: x, offset: 0, strides: S.broadcastStrides(x.shape, shape) }
    const view = how.get(x) as Extract<Lowering, { kind: 'view' }>
    const lead = shape.length - x.shape.length
    const strides = shape.map((d, i) => (i < lead || x.shape[i - lead] !== d ? 0 : view.strides[i - lead]))
    return { base: x.inputs[0], offset: view.offset, strides }
  }
  for (const x of nodes) {
    const h = how.get(x)
    if (h === undefined || inlined.has(x) || folded.has(x)) continue
    const full = { out: x, outOffset: 0, outStrides: S.strides(x.shape), reduce: undefined }
    if (S.size(x.shape) === 0) continue
    switch (h.kind) {
      case 'alias':
        break
      case 'map':
        loop(x, x.shape, full)
        break
      case 'view':
        steps.push({
          kind: 'loop',
          shape: x.shape,
          inputs: [{ base: x.inputs[0], offset: h.offset, strides: h.strides }],
          program: [],
          more: [],
          ...full,
        })
        break
      case 'reduce': {
        const [from] = x.inputs
        if (S.size(from.shape) === 0) {
          const empty = {
            [Combine.sum]: 0,
            [Combine.max]: Number.NEGATIVE_INFINITY,
            [Combine.min]: Number.POSITIVE_INFINITY,
          }
          steps.push({ kind: 'fill', out: x, value: empty[h.combine], n: S.size(x.shape) })
          break
        }
        const kept = S.strides(from.shape.map((d, i) => (h.axes.includes(i) ? 1 : d)))
        const outStrides = from.shape.map((_, i) => (h.axes.includes(i) ? 0 : kept[i]))
        loop(from, from.shape, { out: x, outOffset: 0, outStrides, reduce: { combine: h.combine, axes: h.axes } })
        break
      }
      case 'place': {
        if (h.fill !== undefined) steps.push({ kind: 'fill', out: x, value: h.fill, n: S.size(x.shape) })
        const outStrides = S.strides(x.shape)
        x.inputs.forEach((i, k) => {
          if (S.size(i.shape) > 0) loop(i, i.shape, { out: x, outOffset: h.offsets[k], outStrides, reduce: undefined })
        })
        break
      }
      case 'kernel':
        steps.push({ kind: 'kernel', lowering: h, inputs: inputsOf(x), out: x, epilogue: epilogues.get(x) })
        break
      case 'rounds':
        steps.push(...roundSteps(x, options, lowered))
        break
      default:
        h satisfies never
    }
  }
  if (!options.several) return steps
  const root = rootOf(lowered)
  const joint = united(steps, root)
  const wanted = new Set([...isOutput, ...joint.flatMap((s) => touched(s, root))].map(root))
  return joint.map((s) => (s.kind === 'loop' ? frugal(s, wanted) : s))
}

/** A sum over rounds: zero, then the body again and again, each of its outputs added to its part of the sum. */
const roundSteps = (x: Tensor, options: LowerOptions, lowered: Lowered): readonly Step[] => {
  const { per, most, round, captured, outputs, kept = [], stored = [] } = instance(x.attrs as Rounds)
  const { sums, places: stores } = layoutOf(x.attrs as Rounds)
  const placeholderOf = new Map<Tensor, Tensor>()
  // Two placeholders of one value would hide that what is computed from them is the same.
  const twins = new Map<Tensor, Tensor>()
  captured.forEach((p, k) => {
    const first = placeholderOf.get(x.inputs[k + 1])
    if (first !== undefined) twins.set(p, first)
    else placeholderOf.set(x.inputs[k + 1], p)
    lowered.alias.set(p, x.inputs[k + 1])
  })
  const inner = tape(repeated(substitute([...outputs, ...kept], twins), options.keep))
  const body = lower(inner.nodes, new Set(inner.outputs), options, lowered)
  const root = rootOf(lowered)
  let at = 0
  for (const y of inner.outputs.slice(0, outputs.length)) {
    const n = S.size(y.shape)
    const made = body.findIndex((s) => s.kind === 'kernel' && s.out === root(y))
    const scatter = body[made]
    const alone =
      inner.outputs.filter((z) => root(z) === root(y)).length === 1 &&
      !body.some((s) => touched(s, root).includes(root(y)))
    if (scatter?.kind === 'kernel' && scatter.lowering.opcode === Opcode.scatterAdd && alone)
      body[made] = {
        ...scatter,
        lowering: {
          kind: 'kernel',
          opcode: Opcode.scatterInto,
          ints: [...scatter.lowering.ints, at],
          work: S.size(scatter.inputs[0].shape),
        },
        out: x,
      }
    else if (n > 0) body.push(copyTo(x, at, { base: y, offset: 0, strides: [1] }, n, true))
    at += n
  }
  const written = inner.outputs.slice(outputs.length).map((y, k): Place => {
    const made = inner.outputs.findIndex((z) => root(z) === root(y)) === outputs.length + k
    const own = made && body.some((s) => s.kind === 'kernel' && s.out === root(y))
    const value = own ? root(y) : { ...y }
    if (!own) body.push(copyTo(value, 0, { base: y, offset: 0, strides: [1] }))
    return { value, store: x, ...stores[k] }
  })
  const read = stored.map(
    ({ placeholder, at: from }): Place => ({
      value: placeholder,
      store: x.inputs[captured.length + 1],
      at: from,
      stride: strideOf(placeholder),
    }),
  )
  return [
    { kind: 'fill', out: x, value: 0, n: sums },
    {
      kind: 'rounds',
      count: x.inputs[0],
      per,
      most,
      round,
      reads: x.inputs,
      body,
      places: [...written, ...read],
      out: x,
    },
  ]
}

/**
 * The same steps in an order that needs less memory: whenever a step that frees at least what it allocates is ready (a weight
 * gradient, a reduction), it goes next; otherwise the order of the tape is kept. Steps that write one value keep their order.
 */
const schedule = (steps: readonly Step[], root: (x: Tensor) => Tensor, kept: ReadonlySet<Tensor>): readonly Step[] => {
  const producers = new Map<Tensor, number[]>()
  steps.forEach((s, t) => {
    for (const x of written(s)) producers.set(x, [...(producers.get(x) ?? []), t])
  })
  const reads = steps.map((s) => [...new Set(touched(s, root))].filter((x) => producers.has(x)))
  const waits = steps.map(() => 0)
  const unlocks = steps.map(() => [] as number[])
  const readers = new Map<Tensor, number>()
  steps.forEach((s, t) => {
    const before = new Set(reads[t].flatMap((x) => (x === s.out ? [] : (producers.get(x) as number[]))))
    const writers = producers.get(s.out) as number[]
    const own = writers.indexOf(t)
    if (own > 0) before.add(writers[own - 1])
    waits[t] = before.size
    for (const b of before) unlocks[b].push(t)
    for (const x of reads[t]) readers.set(x, (readers.get(x) ?? 0) + 1)
  })
  const started = new Set<Tensor>()
  /** Elements allocated less elements freed by running step t now. */
  const growth = (t: number): number => {
    const freed = reads[t].filter((x) => readers.get(x) === 1 && !kept.has(x)).reduce((n, x) => n + S.size(x.shape), 0)
    const added = written(steps[t]).reduce((n, x) => (started.has(x) ? n : n + S.size(x.shape)), 0)
    return added - freed
  }
  const ready = new Set(steps.flatMap((_, t) => (waits[t] === 0 ? [t] : [])))
  const order: Step[] = []
  while (ready.size > 0) {
    let [best, least, first] = [-1, 1, Number.POSITIVE_INFINITY]
    for (const t of ready) {
      first = Math.min(first, t)
      const g = growth(t)
      if (g < least || (g === least && t < best)) [best, least] = [t, g]
    }
    const t = least <= 0 ? best : first
    ready.delete(t)
    order.push(steps[t])
    for (const x of written(steps[t])) started.add(x)
    for (const x of reads[t]) readers.set(x, (readers.get(x) as number) - 1)
    for (const u of unlocks[t]) if (--waits[u] === 0) ready.add(u)
  }
  return order
}

const written = (s: Step | Loops): readonly Tensor[] =>
  s.kind === 'loops' ? s.loops.flatMap(results) : s.kind === 'loop' ? results(s) : [s.out]

/** What a step reads, as storage roots. */
const touched = (s: Step | Loops, root: (x: Tensor) => Tensor): readonly Tensor[] => {
  switch (s.kind) {
    case 'fill':
      return []
    case 'loop':
      return s.inputs.map((a) => root(a.base))
    case 'loops':
      return s.loops.flatMap((l) => touched(l, root))
    case 'kernel':
      return s.inputs.map(root)
    case 'repeat':
      return [root(s.count)]
    case 'rounds':
    case 'end':
      return s.reads.map(root)
    default:
      return s satisfies never
  }
}

/**
 * Steps as they are executed: scheduled, bodies between `repeat` and `end`. What a body reads from outside lives until its end, what it
 * computes within one round.
 */
const sequence = (
  steps: readonly Step[],
  root: (x: Tensor) => Tensor,
  kept: ReadonlySet<Tensor>,
): readonly Executed[] =>
  schedule(steps, root, kept).flatMap((s) => {
    if (s.kind !== 'rounds') return [s]
    const { count, per, most, round, reads, body, places, out } = s
    return [
      { kind: 'repeat', count, per, most, places, out: round },
      ...sequence(body, root, new Set([...kept, out])),
      { kind: 'end', reads, out },
    ]
  })

/**
 * The same steps with all updates last and as one: loops whose results are outputs that no step reads, computed from arguments of the
 * same size. So an optimizer passes over all parameters, gradients and moments in one instruction, as over one contiguous array.
 */
const gathered = (
  steps: readonly Executed[],
  root: (x: Tensor) => Tensor,
  isOutput: (x: Tensor) => boolean,
): readonly Executed[] => {
  const read = new Set(steps.flatMap((s) => touched(s, root)))
  const isUpdate = (s: Executed): s is Loop =>
    s.kind === 'loop' &&
    isPlain(s) &&
    results(s).every((x) => isOutput(x) && !read.has(x)) &&
    s.inputs.some((a) => root(a.base).op === inputOp && S.size(a.base.shape) === S.size(s.shape))
  const updates = steps.filter(isUpdate)
  return updates.length < 2 ? steps : [...steps.filter((s) => !isUpdate(s)), { kind: 'loops', loops: updates }]
}

/** True if an elementwise step may write its output over x, its last use: each element is read where it is written. */
const overwrites = (s: Executed, x: Tensor, root: (x: Tensor) => Tensor): boolean =>
  s.kind === 'loop' &&
  s.reduce === undefined &&
  S.size(s.shape) === S.size(s.out.shape) &&
  S.size(x.shape) === S.size(s.out.shape) &&
  s.inputs.every((a) => root(a.base) !== x || (a.offset === 0 && S.equals(a.strides, s.outStrides)))

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
  for (const x of constantNodes) constants.set((x.attrs as ConstantAttrs).data, constantOffset.get(x))

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

  const code: number[] = []
  const slot = (x: Tensor) => slotOf.get(root(x)) as number
  for (const s of steps) encode(s, slot, code)
  code.push(Opcode.halt, 3, 0)

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
    code: Int32Array.from(code),
    slots,
    constants,
    arena,
    calls,
    values: ids.size,
    constantIds: constantNodes.map((x) => ({ id: ids.get(x) as number, data: (x.attrs as ConstantAttrs).data })),
    outputIds: roots.map((x) => ids.get(x) as number),
  }
}

// ---- encoding ------------------------------------------------------------------------------------------------------

interface Dim {
  readonly extent: number
  readonly reduced: boolean
  /** Strides of the output, then of each input. */
  readonly strides: readonly number[]
}

/** Drops unit dims and joins neighbours that every operand walks through contiguously. */
const compress = (dims: readonly Dim[]): readonly Dim[] => {
  const joined: Dim[] = []
  for (const d of dims.filter((x) => x.extent !== 1)) {
    const p = joined[joined.length - 1]
    const joins = p !== undefined && p.reduced === d.reduced && p.strides.every((s, i) => s === d.strides[i] * d.extent)
    if (joins) joined[joined.length - 1] = { ...d, extent: p.extent * d.extent }
    else joined.push(d)
  }
  return joined
}

const MAX_WORK = 2 ** 31 - 1

const workOf = (l: Loop): number => S.size(l.shape) * (l.program.length + 1)

const encode = (s: Executed, slot: (x: Tensor) => number, code: number[]): void => {
  const emit = (opcode: Opcode, work: number, words: readonly number[]) =>
    code.push(opcode, words.length + 3, Math.min(work, MAX_WORK), ...words)
  switch (s.kind) {
    case 'fill':
      emit(Opcode.fill, s.n, [slot(s.out), 0, s.n, new Int32Array(Float32Array.of(s.value).buffer)[0]])
      break
    case 'kernel': {
      const { opcode, ints, work } = s.lowering
      const { bias, relu } = s.epilogue ?? { bias: false, relu: false }
      const operands = s.inputs.map(slot)
      const added = bias ? (operands.pop() as number) + 1 : 0
      emit(opcode, work, [...operands, slot(s.out), ...ints, ...(s.epilogue ? [added, Number(relu)] : [])])
      break
    }
    case 'loop': {
      const axes = s.reduce?.axes ?? []
      const all = compress(
        s.shape.map((extent, i) => ({
          extent,
          reduced: axes.includes(i),
          strides: [s.outStrides[i], ...s.inputs.map((a) => a.strides[i])],
        })),
      )
      const kept = all.filter((d) => !d.reduced)
      const reduced = all.filter((d) => d.reduced)
      const tail = all[all.length - 1]
      const mode = reduced.length === 0 ? LoopMode.map : tail.reduced ? LoopMode.inner : LoopMode.keep
      const outer = compress(mode === LoopMode.keep ? kept.slice(0, -1) : kept)
      const ordered = [...outer, ...compress(reduced), ...(mode === LoopMode.keep ? [tail] : [])]
      const dims =
        ordered.length > 0 ? ordered : [{ extent: 1, reduced: false, strides: [1, ...s.inputs.map(() => 0)] }]
      if (dims.length > MAX_DIMS)
        raise({
          kind: 'unsupported',
          what: `a loop over ${dims.length} axes`,
          reason: `at most ${MAX_DIMS} remain after joining contiguous ones`,
        })
      const { ops, registers } = allocate(s)
      emit(Opcode.loop, workOf(s), [
        dims.length,
        mode,
        s.reduce?.combine ?? Combine.sum,
        mode === LoopMode.map ? dims.length : outer.length,
        s.inputs.length,
        s.program.length,
        registers,
        slot(s.out),
        s.outOffset,
        ...dims.map((d) => d.extent),
        ...dims.map((d) => d.strides[0]),
        ...s.inputs.flatMap((a, k) => [slot(a.base), a.offset, ...dims.map((d) => d.strides[k + 1])]),
        ...ops.flatMap((p) => [p.micro, p.dst, p.args[0], p.args[1] ?? 0, p.args[2] ?? 0]),
        ...s.more.flatMap((m) => [m.op, slot(m.out)]),
      ])
      break
    }
    case 'loops': {
      const members: number[] = []
      for (const l of s.loops) encode(l, slot, members)
      emit(
        Opcode.loops,
        s.loops.reduce((n, l) => n + workOf(l), 0),
        members,
      )
      break
    }
    case 'repeat':
      emit(Opcode.repeat, 0, [
        slot(s.count),
        s.per,
        s.most,
        slot(s.out),
        ...s.places.flatMap((p) => [slot(p.value), slot(p.store), p.at, p.stride]),
      ])
      break
    case 'end':
      emit(Opcode.end, 0, [])
      break
    default:
      s satisfies never
  }
}
