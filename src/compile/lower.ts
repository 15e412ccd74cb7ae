import { raise } from '../core/error.ts'
import { Combine, type Lowering, Micro, type PlanLowering } from '../core/lowering.ts'
import type { Rounds } from '../core/op.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { chooseOp, dataOf, inputNameOf } from '../ops/index.ts'
import { instance, layoutOf, pruned, strideOf, suited } from './accumulate.ts'
import { keeping } from './keep.ts'
import { type Access, frugal, type Loop, MAX_INPUTS, MAX_OPS, type MicroOp, united } from './loops.ts'
import { absorb, type Epilogue, subtracted } from './rewrites.ts'
import { type Place, type Step, touched } from './steps.ts'
import { substitute, tape } from './tape.ts'

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

export const isLeaf = (x: Tensor): boolean => inputNameOf(x) !== undefined || dataOf(x) !== undefined

/** The shape that a consumer iterates over where it reads an input of this shape, if it reads it in a loop at all. */
const iteration = (consumer: Tensor, how: PlanLowering, read: Tensor): S.Shape | undefined =>
  how.kind === 'map' ? consumer.shape : how.kind === 'reduce' || how.kind === 'place' ? read.shape : undefined

/** The graph as a backend that repeats rounds runs it. */
export const repeated = (outputs: readonly Tensor[], keep: boolean): readonly Tensor[] => {
  const needed = pruned(suited(outputs, true))
  return keep ? keeping(needed) : needed
}

/** What is known of the nodes of a plan, those of its bodies included. */
export interface Lowered {
  readonly how: Map<Tensor, PlanLowering>
  /** Placeholders of a body and what they stand for. */
  readonly alias: Map<Tensor, Tensor>
  readonly constants: Set<Tensor>
}

/** The value whose storage x is another name of. */
export const rootOf =
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
export const copyTo = (out: Tensor, offset: number, from: Access, n = S.size(out.shape), sum = false): Loop => ({
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
export const lower = (
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
    if (dataOf(x) !== undefined) lowered.constants.add(x)
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
    const kernel = scatter?.kind === 'kernel' ? scatter.lowering.kernel : undefined
    const alone =
      inner.outputs.filter((z) => root(z) === root(y)).length === 1 &&
      !body.some((s) => touched(s, root).includes(root(y)))
    if (scatter?.kind === 'kernel' && kernel?.kind === 'scatterAdd' && alone)
      body[made] = {
        ...scatter,
        lowering: {
          kind: 'kernel',
          kernel: { ...kernel, kind: 'scatterInto', offset: at },
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
