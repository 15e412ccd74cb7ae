import * as E from 'fp-ts/lib/Either.js'
import { normal, planFault } from '../../compile/checked.ts'
import type { Plan, Slot } from '../../compile/plan.ts'
import { deviceError, type MixtrainError } from '../../core/error.ts'
import { kernelsOf } from './kernels.ts'
import { pageLength, startOf, storeOf } from './pages.ts'
import { prelude } from './wgsl/math.ts'
import { element, elementwise, grid, type Kernel, type Operand, type Target } from './wgsl/wgsl.ts'

/** What a storage binding shows: a page of the arena, of the constants or of an argument. */
export type Binding =
  | { readonly at: 'arena' | 'constant'; readonly page: number }
  | { readonly at: 'argument'; readonly index: number; readonly page: number }

export interface Dispatch {
  /** The whole shader: what a pipeline is made of, and known by. */
  readonly source: string
  readonly bindings: readonly Binding[]
  /** Where each operand begins, from the beginning of its page, padded to whole uniforms. Negative where it begins on an earlier page. */
  readonly bases: readonly number[]
  readonly grid: readonly [number, number, number]
}

/** A plan as dispatches. */
export interface Program {
  readonly dispatches: readonly Dispatch[]
  /** Elements of scratch: the plan's arena and what its reductions add. */
  readonly arena: number
}

export interface ProgramLimits {
  /** Storage bindings of one dispatch. */
  readonly bindings: number
  /** Bytes of one storage binding, and of one buffer. */
  readonly bindingBytes: number
  /** Workgroups along one dim of a dispatch. */
  readonly groups: number
  /** Whether products go through tiles in workgroup memory; the small ones never do. */
  readonly tiles: boolean
}

/** i32 numbers in a dispatch's uniform: one per operand, in vectors of four. */
export const BASES = 12
/** Multiply-adds up to which one invocation per result is as fast as a tile. */
const SMALL = 1 << 15
/** Shaders count elements in i32. */
export const MAX_ELEMENTS = 2 ** 31 - 1
const ALIGN = 64
const align = (n: number): number => Math.ceil(n / ALIGN) * ALIGN

/** Elements of an operand's slot that a kernel may touch. */
const rangeOf = ({ slot, range }: Operand, slots: readonly Slot[]): readonly [number, number] =>
  range ?? [0, slots[slot].length - 1]

/** The store and the page that an operand lies on; undefined where it reaches over the end of one. */
const pageOf = (o: Operand, slots: readonly Slot[], length: number) => {
  const start = startOf(slots[o.slot])
  const [first, last] = rangeOf(o, slots)
  const low = Math.floor((start + first) / length)
  const high = last < first ? low : Math.floor((start + last) / length)
  const store = storeOf(slots[o.slot])
  return high > low ? undefined : { store, page: low, key: `${store} ${low}` }
}

/**
 * Copies surplus operands side by side into scratch, so that no dispatch binds more pages than a device has bindings for. (Two views of
 * one buffer cannot be bound side by side when they overlap, so what lies on one page shares a binding.)
 */
const spill = (
  k: Kernel,
  slots: readonly Slot[],
  length: number,
  bindings: number,
  { scratch }: Target,
): readonly Kernel[] => {
  const keyOf = (o: Operand) => pageOf(o, slots, length)?.key ?? ''
  const keys = [...new Set(k.operands.map(keyOf))]
  if (keys.length <= bindings) return [k]
  const sizeOf = (o: Operand) => {
    const [low, high] = rangeOf(o, slots)
    return align(high - low + 1)
  }
  const spans = new Map<string, Operand>(k.operands.slice(1).map((o) => [`${o.slot} ${rangeOf(o, slots)}`, o] as const))
  const sizes = keys
    .filter((key) => key !== keyOf(k.operands[0]))
    .map((key) => ({ key, size: [...spans.values()].reduce((n, o) => n + (keyOf(o) === key ? sizeOf(o) : 0), 0) }))
    .sort((a, b) => a.size - b.size)
  // The scratch takes a binding itself.
  const surplus = sizes.slice(0, keys.length - bindings + 1)
  const chunk = scratch(surplus.reduce((n, { size }) => n + size, 0))
  const moved = new Map<string, number>()
  let used = 0
  const copies = [...spans].flatMap(([name, o]) => {
    if (!surplus.some(({ key }) => key === keyOf(o))) return []
    const [low, high] = rangeOf(o, slots)
    const n = high - low + 1
    const to = used
    used += align(n)
    moved.set(name, to - low)
    return [
      elementwise(
        n,
        [
          { slot: chunk, offset: to, range: [to, to + n - 1] },
          { slot: o.slot, offset: low, range: [low, high] },
        ],
        ([y, x]) => `  ${element(y, 'e')} = ${element(x, 'e')};`,
      ),
    ]
  })
  const [out, ...rest] = k.operands
  return [
    ...copies,
    {
      ...k,
      operands: [
        out,
        ...rest.map((o) => {
          const [low, high] = rangeOf(o, slots)
          const by = moved.get(`${o.slot} ${low},${high}`)
          return by === undefined ? o : { slot: chunk, offset: o.offset + by, range: [low + by, high + by] as const }
        }),
      ],
    },
  ]
}

const header = (bindings: number, wide: boolean): string =>
  `${Array.from({ length: bindings }, (_, i) => `@group(0) @binding(${i}) var<storage, read_write> b${i}: array<${wide ? 'vec4<f32>' : 'f32'}>;`).join('\n')}
struct Bases { v: array<vec4<i32>, ${BASES / 4}> }
@group(1) @binding(0) var<uniform> bases: Bases;
`

/** Binds a kernel's operands; undefined when one reaches over the end of a page, or there are too many. */
const link = (
  k: Kernel,
  slots: readonly Slot[],
  inputs: number,
  length: number,
  limits: ProgramLimits,
): Dispatch | undefined => {
  const bindings: Binding[] = []
  const keys: string[] = []
  const places: { readonly binding: number; readonly base: number }[] = []
  for (const o of k.operands) {
    const slot = slots[o.slot]
    const found = pageOf(o, slots, length)
    if (found === undefined) return undefined
    const { page, key } = found
    if (!keys.includes(key)) {
      keys.push(key)
      bindings.push(
        slot.at === 'arena' || slot.at === 'constant'
          ? { at: slot.at, page }
          : { at: 'argument', index: slot.at === 'input' ? slot.index : inputs + slot.index, page },
      )
    }
    places.push({ binding: keys.indexOf(key), base: startOf(slot) + o.offset - page * length })
  }
  const laid = grid(k.groups, limits.groups)
  if (bindings.length > limits.bindings || laid === undefined) return undefined
  const refs = places.map(({ binding }, i) => ({ buffer: `b${binding}`, base: `bases.v[${i >> 2}].${'xyzw'[i & 3]}` }))
  return {
    source: header(bindings.length, k.wide) + prelude + k.code(refs),
    bindings,
    bases: Array.from({ length: BASES }, (_, i) => (i < places.length ? places[i].base / (k.wide ? 4 : 1) : 0)),
    grid: laid,
  }
}

/** The dispatches of a plan, in order, after checking that each of its instructions is well-formed and stays inside its slots. */
export const programOf = (plan: Plan, limits: ProgramLimits): E.Either<MixtrainError, Program> => {
  const fault = planFault(plan, Number.POSITIVE_INFINITY)
  if (fault !== undefined) return E.left(deviceError('webgpu', `malformed program: ${fault}`))
  const slots = [...plan.slots]
  const page = pageLength(limits.bindingBytes)
  const pages = { length: page, bindings: limits.bindings, slots }
  const begin = align(plan.arena)
  let arena = begin
  /** Scratch of one instruction, or of a part of it: the next one uses the same. */
  const targetAt = (from: number): Target => {
    let used = from
    return {
      scratch: (length) => {
        const n = align(length)
        const left = page - (used % page)
        const offset = n > left && n <= page ? used + left : used
        used = offset + n
        arena = Math.max(arena, used)
        return slots.push({ at: 'arena', offset, length }) - 1
      },
      nested: () => targetAt(used),
      room: page,
      direct: limits.tiles ? SMALL : Number.POSITIVE_INFINITY,
    }
  }
  const memory = (needed: number) =>
    E.left<MixtrainError, Program>({
      kind: 'memory',
      needed,
      budget: limits.bindingBytes,
      what: 'one operation on this GPU',
    })
  const kernels = normal(plan.instructions).flatMap((i) => kernelsOf(i, pages, targetAt(begin)))
  const spare = arena
  const dispatches: Dispatch[] = []
  for (const k of kernels) {
    if (k.groups === 0) continue
    for (const part of spill(k, slots, page, limits.bindings, targetAt(spare))) {
      const d = link(part, slots, plan.inputs.length, page, limits)
      if (d === undefined) return memory(Math.max(...k.operands.map((o) => slots[o.slot].length)) * 4)
      dispatches.push(d)
    }
  }
  return arena > MAX_ELEMENTS
    ? E.left({ kind: 'memory', needed: arena * 4, budget: MAX_ELEMENTS * 4, what: 'the scratch of a run' })
    : E.right({ dispatches, arena })
}
