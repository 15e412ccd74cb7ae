import { LoopMode, Micro } from '../core/lowering.ts'
import {
  type ConvInstruction,
  flat,
  type Instruction,
  type LoopInstruction,
  type LoopsInstruction,
  type RepeatInstruction,
  type View,
} from './instruction.ts'
import type { Plan } from './plan.ts'

/** The elements [low, high] of a slot that an instruction touches; high < low when it touches none. */
interface Touch {
  readonly slot: number
  readonly low: number
  readonly high: number
}

const product = (dims: readonly number[]): number => dims.reduce((n, d) => n * d, 1)

/** Elements reached by walking all dims of a view. */
const reach = (v: View, dims: readonly number[]): Touch => {
  if (product(dims) === 0) return { slot: v.slot, low: 0, high: -1 }
  const spans = dims.map((d, i) => (d - 1) * v.strides[i])
  return {
    slot: v.slot,
    low: v.offset + spans.reduce((s, x) => s + Math.min(x, 0), 0),
    high: v.offset + spans.reduce((s, x) => s + Math.max(x, 0), 0),
  }
}

const piece = (slot: number, from: number, n: number): Touch => ({ slot, low: from, high: from + n - 1 })
const whole = (slot: number, n: number): Touch => piece(slot, 0, n)

/** What one instruction touches; what a body touches stands with its own instructions. */
const touches = (i: Instruction): readonly Touch[] => {
  switch (i.kind) {
    case 'loop':
      return [
        reach(i.out, i.dims),
        ...i.inputs.map((v) => reach(v, i.dims)),
        ...i.stored.map((s) => whole(s.slot, product(i.dims))),
      ]
    case 'loops':
      return i.loops.flatMap(touches)
    case 'fill':
      return [piece(i.out, i.offset, i.n)]
    case 'matmul': {
      const last = (stride: number, size: number) => (i.batch === 0 ? 0 : (i.batch - 1) * stride + size)
      return [
        whole(i.a, last(i.strideA, i.m * i.k)),
        whole(i.b, last(i.strideB, i.k * i.n)),
        whole(i.out, last(i.strideOut, i.m * i.n)),
        ...(i.end?.bias === undefined ? [] : [whole(i.end.bias, i.n)]),
      ]
    }
    case 'conv2d':
    case 'conv2dInput':
    case 'conv2dWeight':
      return [
        whole(i.x, i.N * i.C * i.H * i.W),
        whole(i.w, (i.O * i.C * i.KH * i.KW) / i.groups),
        whole(i.y, i.N * i.O * i.OH * i.OW),
        ...(i.end?.bias === undefined ? [] : [whole(i.end.bias, i.kind === 'conv2d' ? i.O : i.C)]),
      ]
    case 'gather':
      return [whole(i.x, i.rows * i.d), whole(i.index, i.n), whole(i.out, i.n * i.d)]
    case 'scatterAdd':
    case 'scatterInto':
      return [whole(i.x, i.n * i.d), whole(i.index, i.n), piece(i.out, i.offset, i.rows * i.d)]
    case 'argmax':
      return [whole(i.x, i.outer * i.axis * i.inner), whole(i.out, i.outer * i.inner)]
    case 'compact':
      return [whole(i.x, product(i.dims)), whole(i.out, product(i.dims) * i.dims.length)]
    case 'unfold':
    case 'fold':
      return [whole(i.x, i.N * i.C * i.H * i.W), whole(i.windows, i.N * i.OH * i.OW * i.C * i.KH * i.KW)]
    case 'repeat':
      return [
        whole(i.count, 1),
        whole(i.round, 1),
        ...i.moving.flatMap((m) => [whole(m.slot, 0), piece(m.store, m.at, m.stride * i.most)]),
      ]
    default:
      return i satisfies never
  }
}

/** Why the values that a loop stores on the way are malformed, if they are. */
const storedFault = (l: LoopInstruction): string | undefined => {
  if (l.stored.length === 0) return undefined
  const ascends = l.stored.every(
    ({ op }, i) => op >= 0 && op < l.ops.length - 1 && (i === 0 || op > l.stored[i - 1].op),
  )
  const inOrder = l.dims.every((d, i) => d === 1 || l.out.strides[i] === product(l.dims.slice(i + 1)))
  if (!ascends) return 'stored values are not those of ascending ops'
  if (l.mode !== LoopMode.map || !inOrder) return 'values are stored by a loop whose output is not in order'
  const read = l.stored.find(({ slot }) => l.inputs.some((a) => a.slot === slot))
  return read === undefined ? undefined : `a value is stored over its input, slot ${read.slot}`
}

/** Why a loop is malformed, if it is. */
const loopFault = (l: LoopInstruction): string | undefined => {
  if (l.dims.length < 1 || l.dims.length > 6) return `${l.dims.length} dims`
  if (l.inputs.length < 1 || l.inputs.length > 16) return `${l.inputs.length} inputs`
  if ([l.out, ...l.inputs].some((v) => v.strides.length !== l.dims.length)) return 'not a stride for every dim'
  if (l.ops.length > 24) return `${l.ops.length} ops`
  if (l.registers < l.inputs.length || l.registers > 32) return `${l.registers} registers`
  const isRegister = (r: number) => r >= 0 && r < l.registers
  const bad = l.ops.findIndex(
    ({ micro, dst, args }) =>
      Micro[micro] === undefined || args.length < 1 || args.length > 3 || ![dst, ...args].every(isRegister),
  )
  return bad < 0 ? storedFault(l) : `op ${bad} is malformed`
}

/** Why several loops are malformed as one, if they are. */
const loopsFault = ({ loops }: LoopsInstruction): string | undefined => {
  if (loops.length === 0) return 'there is none'
  if (loops.some((l) => l.mode !== LoopMode.map)) return 'not all are loops that map'
  const written = loops.map((l) => [l.out.slot, ...l.stored.map((s) => s.slot)])
  const shared = loops.findIndex((l, i) => {
    const own = new Set([...written[i], ...l.inputs.map((a) => a.slot)])
    return written.some((slots, j) => j !== i && slots.some((s) => own.has(s)))
  })
  return shared >= 0
    ? `loop ${shared} touches what another writes`
    : loops.map(loopFault).find((why) => why !== undefined)
}

const convFault = (i: ConvInstruction, most: number): string | undefined => {
  const { groups } = i
  if (!(groups >= 1 && i.C % groups === 0 && i.O % groups === 0))
    return `${groups} groups of ${i.C} and ${i.O} channels`
  if (i.end !== undefined && (groups > 1 || i.kind === 'conv2dWeight')) return 'it has no epilogue'
  const image = Math.max(i.C * i.H * i.W, i.O * i.OH * i.OW)
  return groups === 1 && image > most ? `one image has ${image} elements, more than ${most}` : undefined
}

const repeatFault = (i: RepeatInstruction, slots: Plan['slots']): string | undefined => {
  if (!(i.per >= 1 && i.most >= 0)) return `${i.most} rounds of ${i.per}`
  const long = i.moving.find((m) => (slots[m.slot]?.length ?? 0) > m.stride)
  return long && `slot ${long.slot} is longer than the ${long.stride} elements by which it moves`
}

/** Why an instruction is malformed, if it is. */
const faultOf = (i: Instruction, slots: Plan['slots'], mostImage: number): string | undefined => {
  switch (i.kind) {
    case 'loop':
      return loopFault(i)
    case 'loops':
      return loopsFault(i)
    case 'conv2d':
    case 'conv2dInput':
    case 'conv2dWeight':
      return convFault(i, mostImage)
    case 'repeat':
      return repeatFault(i, slots)
    default:
      return undefined
  }
}

/**
 * What is wrong with a plan's instructions, if anything: each is well-formed and stays inside its slots. `mostImage`: elements of one image of
 * a convolution that the machine can address.
 */
export const planFault = (
  { instructions, slots }: Pick<Plan, 'instructions' | 'slots'>,
  mostImage: number,
): string | undefined => {
  for (const [n, i] of flat(instructions).entries()) {
    const name = `instruction ${n} (${i.kind})`
    const fault = faultOf(i, slots, mostImage)
    if (fault !== undefined) return `${name}: ${fault}`
    for (const t of touches(i)) {
      const slot = slots[t.slot]
      if (slot === undefined) return `${name}: no slot ${t.slot}`
      if (!(t.low >= 0 && t.high < slot.length))
        return `${name}: elements ${t.low}..${t.high} of slot ${t.slot}, which has ${slot.length}`
    }
  }
  return undefined
}

/**
 * The same loop with unit dims dropped, neighbours joined where every operand walks through them evenly, and at least two
 * dims; undefined when nothing is to be done. Kept and reduced dims are never joined.
 */
const normalLoop = (l: LoopInstruction): LoopInstruction | undefined => {
  if (l.mode === LoopMode.map && product(l.dims) === 0) return undefined
  const depth = l.dims.length
  const views = [l.out, ...l.inputs]
  interface Dim {
    readonly n: number
    /** Only dims of one group may be joined: kept, reduced, the kept columns of mode keep. */
    readonly group: number
    readonly strides: readonly number[]
  }
  const groupOf = (d: number) =>
    l.mode === LoopMode.map || d < l.kept ? 0 : l.mode === LoopMode.keep && d === depth - 1 ? 2 : 1
  const joined: Dim[] = []
  for (const [d, n] of l.dims.entries()) {
    if (n === 1) continue
    const dim = { n, group: groupOf(d), strides: views.map((v) => v.strides[d]) }
    const last = joined.at(-1)
    const joins = last?.group === dim.group && last.strides.every((s, i) => s === dim.strides[i] * n)
    if (joins) joined.pop()
    joined.push(joins ? { ...dim, n: last.n * n } : dim)
  }
  const reduced = joined.filter((d) => d.group === 1).length
  const columns = joined.filter((d) => d.group === 2).length
  const mode = reduced === 0 ? LoopMode.map : columns === 0 ? LoopMode.inner : l.mode
  const unit: Dim = { n: 1, group: 0, strides: views.map(() => 0) }
  const dims = [...Array.from({ length: Math.max(0, 2 - joined.length) }, () => unit), ...joined]
  const at = (v: View, i: number): View => ({ ...v, strides: dims.map((d) => d.strides[i]) })
  return {
    ...l,
    mode,
    kept: dims.length - reduced - (mode === LoopMode.keep ? columns : 0),
    dims: dims.map((d) => d.n),
    out: at(l.out, 0),
    inputs: l.inputs.map((v, i) => at(v, i + 1)),
  }
}

/** The same instructions with their loops in normal form, as the machines want them; what does nothing is left out. */
export const normal = (instructions: readonly Instruction[]): readonly Instruction[] =>
  instructions.flatMap((i): readonly Instruction[] => {
    switch (i.kind) {
      case 'loop': {
        const l = normalLoop(i)
        return l === undefined ? [] : [l]
      }
      case 'loops': {
        const loops = i.loops.flatMap((l) => normalLoop(l) ?? [])
        return loops.length === 0 ? [] : [{ ...i, loops }]
      }
      case 'repeat':
        return [{ ...i, body: normal(i.body) }]
      default:
        return [i]
    }
  })
