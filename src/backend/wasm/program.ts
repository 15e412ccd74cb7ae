import type { Plan } from '../../compile/plan.ts'
import { LoopMode, Micro, Opcode } from '../../core/lowering.ts'

/** The elements [low, high] of a slot that an instruction touches; high < low when it touches none. */
interface Touch {
  readonly slot: number
  readonly low: number
  readonly high: number
}

/** Words of a loop, decoded. */
interface Loop {
  readonly mode: LoopMode
  readonly combine: number
  readonly kept: number
  readonly registers: number
  readonly dims: readonly number[]
  readonly out: Access
  readonly inputs: readonly Access[]
  readonly ops: readonly number[]
  /** Number of an op and slot of each value that is stored on the way. */
  readonly stored: readonly number[]
}

interface Access {
  readonly slot: number
  readonly offset: number
  readonly strides: readonly number[]
}

const OP_WORDS = 5

const loopOf = (c: readonly number[]): Loop => {
  const [, , , depth, mode, combine, kept, nIn, nOps, registers, slot, offset] = c
  const dims = c.slice(12, 12 + depth)
  const at = 12 + 2 * depth
  const words = 2 + depth
  return {
    mode,
    combine,
    kept,
    registers,
    dims,
    out: { slot, offset, strides: c.slice(12 + depth, at) },
    inputs: Array.from({ length: nIn }, (_, i) => {
      const [s, o, ...strides] = c.slice(at + i * words, at + (i + 1) * words)
      return { slot: s, offset: o, strides }
    }),
    ops: c.slice(at + nIn * words, at + nIn * words + nOps * OP_WORDS),
    stored: c.slice(at + nIn * words + nOps * OP_WORDS),
  }
}

/** The instructions that stand inside a `loops`, from word 3 on; undefined when their lengths do not add up. */
const membersOf = (c: readonly number[]): readonly (readonly number[])[] | undefined => {
  const members: (readonly number[])[] = []
  let at = 3
  while (at < c.length && c[at + 1] >= 3) {
    members.push(c.slice(at, at + c[at + 1]))
    at += c[at + 1]
  }
  return at === c.length && members.length > 0 ? members : undefined
}

const encodeLoop = (work: number, l: Loop): readonly number[] => {
  const body = [
    l.dims.length,
    l.mode,
    l.combine,
    l.kept,
    l.inputs.length,
    l.ops.length / OP_WORDS,
    l.registers,
    l.out.slot,
    l.out.offset,
    ...l.dims,
    ...l.out.strides,
    ...l.inputs.flatMap((i) => [i.slot, i.offset, ...i.strides]),
    ...l.ops,
    ...l.stored,
  ]
  return [Opcode.loop, body.length + 3, work, ...body]
}

const product = (dims: readonly number[]): number => dims.reduce((n, d) => n * d, 1)

/** Elements reached by walking all dims of an access. */
const reach = (a: Access, dims: readonly number[]): Touch => {
  if (product(dims) === 0) return { slot: a.slot, low: 0, high: -1 }
  const spans = dims.map((d, i) => (d - 1) * a.strides[i])
  return {
    slot: a.slot,
    low: a.offset + spans.reduce((s, x) => s + Math.min(x, 0), 0),
    high: a.offset + spans.reduce((s, x) => s + Math.max(x, 0), 0),
  }
}

const whole = (slot: number, n: number): Touch => ({ slot, low: 0, high: n - 1 })

/** The bias that the epilogue at word `at` reads, if there is one. */
const biasTouch = (c: readonly number[], at: number, n: number): readonly Touch[] =>
  (c[at] ?? 0) > 0 ? [whole(c[at] - 1, n)] : []

/** Slot, store, first element and stride of the slots that move with the rounds of a `repeat`. */
const places = (c: readonly number[]): readonly (readonly number[])[] =>
  c[0] === Opcode.repeat ? Array.from({ length: (c.length - 7) >> 2 }, (_, k) => c.slice(7 + 4 * k, 11 + 4 * k)) : []

/** What the moving slots of a `repeat` pass over. */
const moved = (c: readonly number[]): readonly Touch[] =>
  places(c).flatMap(([slot, store, at, stride]) => [
    whole(slot, 0),
    { slot: store, low: at, high: at + stride * c[5] - 1 },
  ])

/** What one instruction touches; undefined for an unknown opcode. */
const touches = (c: readonly number[]): readonly Touch[] | undefined => {
  switch (c[0] as Opcode) {
    case Opcode.halt:
      return []
    case Opcode.loop: {
      const l = loopOf(c)
      const slots = l.stored.filter((_, i) => i % 2 === 1)
      return [
        reach(l.out, l.dims),
        ...l.inputs.map((i) => reach(i, l.dims)),
        ...slots.map((s) => whole(s, product(l.dims))),
      ]
    }
    case Opcode.loops:
      return membersOf(c)?.flatMap((m) => touches(m) ?? [])
    case Opcode.fill:
      return [{ slot: c[3], low: c[4], high: c[4] + c[5] - 1 }]
    case Opcode.matmul: {
      const [a, b, out, m, k, n, , , batch, strideA, strideB, strideOut] = c.slice(3)
      const last = (stride: number, size: number) => (batch === 0 ? 0 : (batch - 1) * stride + size)
      return [
        whole(a, last(strideA, m * k)),
        whole(b, last(strideB, k * n)),
        whole(out, last(strideOut, m * n)),
        ...biasTouch(c, 15, n),
      ]
    }
    case Opcode.conv2d:
    case Opcode.conv2dInput:
    case Opcode.conv2dWeight: {
      const [a, b, out, N, C, H, W, O, KH, KW, OH, OW] = c.slice(3)
      const x = N * C * H * W
      const w = O * C * KH * KW
      const y = N * O * OH * OW
      const sizes = c[0] === Opcode.conv2d ? [x, w, y] : c[0] === Opcode.conv2dInput ? [y, w, x] : [x, y, w]
      const bias = c[0] === Opcode.conv2dWeight ? [] : biasTouch(c, 21, c[0] === Opcode.conv2d ? O : C)
      return [...[a, b, out].map((slot, i) => whole(slot, sizes[i])), ...bias]
    }
    case Opcode.groupConv2d:
    case Opcode.groupConv2dInput:
    case Opcode.groupConv2dWeight: {
      const [a, b, out, N, C, H, W, O, KH, KW, OH, OW] = c.slice(3)
      const [x, w, y] = [N * C * H * W, (O * C * KH * KW) / c[21], N * O * OH * OW]
      const sizes = c[0] === Opcode.groupConv2d ? [x, w, y] : c[0] === Opcode.groupConv2dInput ? [y, w, x] : [x, y, w]
      return [a, b, out].map((slot, i) => whole(slot, sizes[i]))
    }
    case Opcode.gather:
      return [whole(c[3], c[7] * c[8]), whole(c[4], c[6]), whole(c[5], c[6] * c[8])]
    case Opcode.scatterAdd:
      return [whole(c[3], c[6] * c[8]), whole(c[4], c[6]), whole(c[5], c[7] * c[8])]
    case Opcode.scatterInto:
      return [whole(c[3], c[6] * c[8]), whole(c[4], c[6]), { slot: c[5], low: c[9], high: c[9] + c[7] * c[8] - 1 }]
    case Opcode.argmax:
      return [whole(c[3], c[5] * c[6] * c[7]), whole(c[4], c[5] * c[7])]
    case Opcode.repeat:
      return [whole(c[3], 1), whole(c[6], 1), ...moved(c)]
    case Opcode.end:
      return []
    case Opcode.compact:
      return [whole(c[3], c[5]), whole(c[4], c[5] * c[6])]
    case Opcode.unfold:
    case Opcode.fold: {
      const [a, out, N, C, H, W, KH, KW, OH, OW] = c.slice(3)
      const x = N * C * H * W
      const windows = N * OH * OW * C * KH * KW
      return c[0] === Opcode.unfold ? [whole(a, x), whole(out, windows)] : [whole(a, windows), whole(out, x)]
    }
    default:
      return undefined
  }
}

/** Why the values that a loop stores on the way are malformed, if they are. */
const storedFault = (l: Loop): string | undefined => {
  if (l.stored.length === 0) return undefined
  if (l.stored.length % 2 !== 0) return 'a stored value without a slot'
  const ops = l.stored.filter((_, i) => i % 2 === 0)
  const ascends = ops.every((op, i) => op >= 0 && op < l.ops.length / OP_WORDS - 1 && (i === 0 || op > ops[i - 1]))
  const inOrder = l.dims.every((d, i) => d === 1 || l.out.strides[i] === product(l.dims.slice(i + 1)))
  if (!ascends) return 'stored values are not those of ascending ops'
  if (l.mode !== LoopMode.map || !inOrder) return 'values are stored by a loop whose output is not in order'
  const read = l.stored.find((slot, i) => i % 2 === 1 && l.inputs.some((a) => a.slot === slot))
  return read === undefined ? undefined : `a value is stored over its input, slot ${read}`
}

/** Why a loop is malformed, if it is. */
const loopFault = (l: Loop): string | undefined => {
  if (l.dims.length < 1 || l.dims.length > 6) return `${l.dims.length} dims`
  if (l.inputs.length < 1 || l.inputs.length > 16) return `${l.inputs.length} inputs`
  if (l.ops.length > 24 * OP_WORDS) return `${l.ops.length / OP_WORDS} ops`
  if (l.registers < l.inputs.length || l.registers > 32) return `${l.registers} registers`
  const bad = l.ops.findIndex((v, i) => (i % OP_WORDS === 0 ? Micro[v] === undefined : v < 0 || v >= l.registers))
  return bad < 0 ? storedFault(l) : `op ${Math.floor(bad / OP_WORDS)} is malformed`
}

/** Why several loops are malformed as one, if they are. */
const loopsFault = (c: readonly number[]): string | undefined => {
  const members = membersOf(c)
  if (members === undefined) return 'its loops do not end where it ends'
  if (members.some((m) => m[0] !== Opcode.loop || m[4] !== LoopMode.map)) return 'not all are loops that map'
  const all = members.map(loopOf)
  const written = all.map((l) => [l.out.slot, ...l.stored.filter((_, i) => i % 2 === 1)])
  const shared = all.findIndex((l, i) => {
    const own = new Set([...written[i], ...l.inputs.map((a) => a.slot)])
    return written.some((slots, j) => j !== i && slots.some((s) => own.has(s)))
  })
  return shared >= 0
    ? `loop ${shared} touches what another writes`
    : all.map(loopFault).find((why) => why !== undefined)
}

/** Elements of one image of a convolution that assembly/conv.ts can still address as a tile of eight. */
const MAX_IMAGE = 2 ** 25

const convFault = (c: readonly number[], most: number): string | undefined => {
  const [, C, H, W, O, , , OH, OW] = c.slice(6)
  const image = Math.max(C * H * W, O * OH * OW)
  return image > most ? `one image has ${image} elements, more than ${most}` : undefined
}

/** Why an instruction is malformed, if it is. */
const faultOf = (c: readonly number[], mostImage: number): string | undefined => {
  switch (c[0] as Opcode) {
    case Opcode.loop:
      return loopFault(loopOf(c))
    case Opcode.loops:
      return loopsFault(c)
    case Opcode.conv2d:
    case Opcode.conv2dInput:
    case Opcode.conv2dWeight:
      return convFault(c, mostImage)
    case Opcode.groupConv2d:
    case Opcode.groupConv2dInput:
    case Opcode.groupConv2dWeight:
      return c[21] >= 1 && c[7] % c[21] === 0 && c[10] % c[21] === 0
        ? undefined
        : `${c[21]} groups of ${c[7]} and ${c[10]} channels`
    case Opcode.repeat:
      if ((c.length - 7) % 4 !== 0) return 'a slot that moves lacks words'
      return c[4] >= 1 && c[5] >= 0 ? undefined : `${c[5]} rounds of ${c[4]}`
    default:
      return undefined
  }
}

/** The instructions of a program, one array of words each, `halt` included; a message when it is malformed. */
const split = (code: Int32Array): readonly (readonly number[])[] | string => {
  const out: number[][] = []
  let open = 0
  for (let at = 0; at < code.length; at += code[at + 1]) {
    const length = code[at + 1]
    if (!(length >= 3) || at + length > code.length) return `instruction at word ${at} has length ${length}`
    out.push(Array.from(code.subarray(at, at + length)))
    if (code[at] === Opcode.repeat) open++
    if (code[at] === Opcode.end && --open < 0) return `the end at word ${at} closes no repeat`
    if (code[at] === Opcode.halt) return open === 0 ? out : 'a repeat has no end'
  }
  return 'the program has no halt'
}

/**
 * The same loop with unit dims dropped, neighbours joined where every operand walks through them evenly, and at least two
 * dims, as assembly/loop.ts wants it; undefined when nothing is to be done. Kept and reduced dims are never joined.
 */
const normalLoop = (l: Loop): Loop | undefined => {
  if (l.mode === LoopMode.map && product(l.dims) === 0) return undefined
  const depth = l.dims.length
  const accesses = [l.out, ...l.inputs]
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
    const dim = { n, group: groupOf(d), strides: accesses.map((a) => a.strides[d]) }
    const last = joined.at(-1)
    const joins = last?.group === dim.group && last.strides.every((s, i) => s === dim.strides[i] * n)
    if (joins) joined.pop()
    joined.push(joins ? { ...dim, n: last.n * n } : dim)
  }
  const reduced = joined.filter((d) => d.group === 1).length
  const columns = joined.filter((d) => d.group === 2).length
  const mode = reduced === 0 ? LoopMode.map : columns === 0 ? LoopMode.inner : l.mode
  const unit: Dim = { n: 1, group: 0, strides: accesses.map(() => 0) }
  const dims = [...Array.from({ length: Math.max(0, 2 - joined.length) }, () => unit), ...joined]
  const at = (a: Access, i: number): Access => ({ ...a, strides: dims.map((d) => d.strides[i]) })
  return {
    ...l,
    mode,
    kept: dims.length - reduced - (mode === LoopMode.keep ? columns : 0),
    dims: dims.map((d) => d.n),
    out: at(l.out, 0),
    inputs: l.inputs.map((a, i) => at(a, i + 1)),
  }
}

/** An instruction in the machine's normal form; no words when nothing is to be done. */
const normal = (c: readonly number[]): readonly number[] => {
  switch (c[0] as Opcode) {
    case Opcode.loop: {
      const l = normalLoop(loopOf(c))
      return l === undefined ? [] : encodeLoop(c[2], l)
    }
    case Opcode.loops: {
      const members = (membersOf(c) ?? []).flatMap(normal)
      return members.length === 0 ? [] : [Opcode.loops, members.length + 3, c[2], ...members]
    }
    default:
      return c
  }
}

/**
 * The plan's program in the machine's normal form, after checking that every instruction is well-formed and stays inside its
 * slots; a message when it does not. `mostImage`: elements of one image of a convolution that the machine can address.
 */
export const prepare = (
  { code, slots }: Pick<Plan, 'code' | 'slots'>,
  mostImage: number = MAX_IMAGE,
): Int32Array | string => {
  const instructions = split(code)
  if (typeof instructions === 'string') return instructions
  for (const [i, c] of instructions.entries()) {
    const name = `instruction ${i} (${Opcode[c[0]] ?? `opcode ${c[0]}`})`
    const fault = faultOf(c, mostImage)
    if (fault !== undefined) return `${name}: ${fault}`
    const long = places(c).find(([slot, , , stride]) => (slots[slot]?.length ?? 0) > stride)
    if (long !== undefined) return `${name}: slot ${long[0]} is longer than the ${long[3]} elements by which it moves`
    const touched = touches(c)
    if (touched === undefined) return `${name}: no such opcode`
    for (const t of touched) {
      const slot = slots[t.slot]
      if (slot === undefined) return `${name}: no slot ${t.slot}`
      if (t.low < 0 || t.high >= slot.length)
        return `${name}: elements ${t.low}..${t.high} of slot ${t.slot}, which has ${slot.length}`
    }
  }
  return Int32Array.from(instructions.flatMap(normal))
}
