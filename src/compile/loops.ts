import type { Combine, Micro } from '../core/lowering.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'

/** Fused loops as a plan builds them: values named once, registers only when the instruction is written. */

/** Limits of one fused loop, as the instruction set has them. */
export const MAX_DIMS = 6
export const MAX_INPUTS = 8
export const MAX_OPS = 24
/** The same of one that stores several values, how many, and its registers. */
const JOINED = { inputs: 16, results: 8, registers: 32 }

/** How one element of a loop's input is found: base[offset + index . strides]. */
export interface Access {
  readonly base: Tensor
  readonly offset: number
  readonly strides: readonly number[]
}

/** One operation of a loop. An argument k >= 0 is the value of operation k, k < 0 that of input -1 - k. */
export interface MicroOp {
  readonly micro: Micro
  readonly args: readonly number[]
}

export interface Loop {
  readonly kind: 'loop'
  readonly shape: S.Shape
  readonly inputs: readonly Access[]
  /** The loop's value is that of the last operation; without any it is a copy of its input. */
  readonly program: readonly MicroOp[]
  readonly out: Tensor
  readonly outOffset: number
  /** One stride per axis of `shape`; 0 along reduced axes. */
  readonly outStrides: readonly number[]
  readonly reduce: { readonly combine: Combine; readonly axes: readonly number[] } | undefined
  /** Operations, ascending, whose values are stored as well, where the loop's own value is stored whole and in order. */
  readonly more: readonly { readonly op: number; readonly out: Tensor }[]
}

/** What a loop writes. */
export const results = (l: Loop): readonly Tensor[] => [...l.more.map((m) => m.out), l.out]

/** A program on registers: inputs first, then as few temporaries as can hold what is still needed. */
export const allocate = ({ inputs, program }: Pick<Loop, 'inputs' | 'program'>) => {
  const last = new Map<number, number>()
  program.forEach((p, k) => {
    for (const a of p.args) last.set(a, k)
  })
  const register: number[] = []
  const free: number[] = []
  let registers = inputs.length
  const at = (a: number) => (a < 0 ? -1 - a : register[a])
  const ops = program.map(({ micro, args }, k) => {
    const from = args.map(at)
    for (const a of new Set(args)) if (a >= 0 && last.get(a) === k) free.push(register[a])
    register[k] = free.pop() ?? registers++
    // A value that nothing reads was only stored.
    if (!last.has(k) && k < program.length - 1) free.push(register[k])
    return { micro, dst: register[k], args: from }
  })
  return { ops, registers }
}

const isScalar = (a: Access): boolean => a.strides.every((s) => s === 0)

/** Whether two lists of strides reach the same elements of a shape: those of axes of extent 1 do not matter. */
const alike = (a: readonly number[], b: readonly number[], shape: S.Shape): boolean =>
  shape.every((d, i) => d === 1 || a[i] === b[i])

const isWhole = (a: Access, shape: S.Shape): boolean => a.offset === 0 && alike(a.strides, S.strides(shape), shape)

/** Elements of the innermost piece that every operand walks through evenly. */
const run = ({ shape, inputs }: Loop): number => {
  const axes = shape.flatMap((d, i) => (d === 1 ? [] : [i]))
  let n = 1
  for (let k = axes.length - 1; k >= 0; k--) {
    const [i, next] = [axes[k], axes[k + 1]]
    if (next !== undefined && !inputs.every((a) => a.strides[i] === a.strides[next] * shape[next])) break
    n *= shape[i]
  }
  return n
}

/** Whether a loop stores its value whole and in order, so that others may be computed along with it. */
export const isPlain = (l: Loop): boolean =>
  l.reduce === undefined &&
  l.program.length > 0 &&
  l.outOffset === 0 &&
  S.size(l.shape) === S.size(l.out.shape) &&
  S.equals(l.outStrides, S.strides(l.shape)) &&
  l.inputs.every((a) => a.base !== l.out)

/** The same loop over another shape of equal size, if it walks through all of its inputs in order. */
const reshaped = (l: Loop, shape: S.Shape): Loop | undefined => {
  if (S.equals(l.shape, shape)) return l
  if (!l.inputs.every((a) => isScalar(a) || isWhole(a, l.shape))) return undefined
  const strides = S.strides(shape)
  const none = shape.map(() => 0)
  return {
    ...l,
    shape,
    inputs: l.inputs.map((a) => ({ ...a, strides: isScalar(a) ? none : strides })),
    outStrides: strides,
  }
}

/** Both loops as one that stores what either stores, where they read something in common and the limits allow it. */
const joined = (a: Loop, b: Loop, root: (x: Tensor) => Tensor): Loop | undefined => {
  if (S.size(a.shape) !== S.size(b.shape)) return undefined
  const [first, second] = [reshaped(a, b.shape) ?? a, reshaped(b, a.shape) ?? b]
  const [f, s] = S.equals(first.shape, b.shape) ? [first, b] : [a, second]
  if (!S.equals(f.shape, s.shape)) return undefined
  const inputs = [...f.inputs]
  const opOf = new Map<Tensor, number>(f.more.map((m) => [m.out, m.op]))
  opOf.set(f.out, f.program.length - 1)
  let common = false
  const from: number[] = []
  for (const x of s.inputs) {
    const base = root(x.base)
    const value = opOf.get(base)
    if (value !== undefined && !isWhole(x, s.shape)) return undefined
    const same = inputs.findIndex(
      (y) => root(y.base) === base && y.offset === x.offset && alike(y.strides, x.strides, s.shape),
    )
    common ||= value !== undefined || (same >= 0 && !isScalar(x))
    from.push(value ?? -1 - (same >= 0 ? same : inputs.push(x) - 1))
  }
  const shift = f.program.length
  const program = [
    ...f.program,
    ...s.program.map((p) => ({ micro: p.micro, args: p.args.map((k) => (k < 0 ? from[-1 - k] : k + shift)) })),
  ]
  const more = [...f.more, { op: shift - 1, out: f.out }, ...s.more.map((m) => ({ op: m.op + shift, out: m.out }))]
  const both = { ...s, inputs, program, more }
  const fits = inputs.length <= JOINED.inputs && program.length <= MAX_OPS && more.length < JOINED.results
  // Several operands that repeat in different ways would cut what is walked in one piece into small ones.
  const cut = run(both) < Math.max(run(f), run(s))
  const partial = inputs.filter((x) => !isScalar(x) && !isWhole(x, both.shape)).length
  if (!common || !fits || (cut && partial > 1)) return undefined
  return allocate(both).registers <= JOINED.registers ? both : undefined
}

/** What `united` asks of a step that is not a loop. */
interface Other {
  readonly kind: string
  readonly out: Tensor
}

/**
 * Loops that read the same values, or one the value of another, become one that stores them all: every value passes through the
 * registers once, and threads meet less often. A loop joins an earlier one as soon as what it reads is there; an earlier one waits for
 * a later one only where no kernel stands between them.
 */
export const united = <A extends Other>(
  steps: readonly (Loop | A)[],
  root: (x: Tensor) => Tensor,
): readonly (Loop | A)[] => {
  const isLoop = (s: Loop | A): s is Loop => s.kind === 'loop'
  const done: Placed<Loop | A>[] = []
  const placed = index<Loop | A>()
  const written = (s: Loop | A) => (isLoop(s) ? results(s) : [s.out])
  const read = (s: Loop | A) => (isLoop(s) ? s.inputs.map((a) => root(a.base)) : [])
  const append = (step: Loop | A): void => {
    const at = { at: done.length, step, gone: false }
    done.push(at)
    note(at)
  }
  const note = (p: Placed<Loop | A>): void => {
    for (const x of written(p.step)) placed.writes(x, p)
    for (const x of read(p.step)) placed.reads(x, p)
  }
  let start = 0
  const place = (s: Loop): void => {
    const reads = new Set(read(s))
    // The last one that s has to come behind.
    const last = placed.lastWriter([...reads, s.out])
    const size = S.size(s.shape)
    // A number for all elements alone is no reason to join.
    const shared = new Set(s.inputs.flatMap((a) => (isScalar(a) ? [] : [root(a.base)])))
    for (const p of placed.touching(reads, shared, Math.min(last, start))) {
      const g = p.step
      if (!isLoop(g) || !mayJoin(g, s, size) || !isPlain(g)) continue
      const both = joined(g, s, root)
      if (both === undefined) continue
      if (p.at >= last) {
        p.step = both
        note(p)
        return
      }
      if (p.at >= start && !placed.isReadBehind(written(g), p.at)) {
        p.gone = true
        append(both)
        return
      }
    }
    append(s)
  }
  for (const s of steps) {
    if (isLoop(s) && isPlain(s)) place(s)
    else {
      append(s)
      if (!isLoop(s) && s.kind !== 'fill') start = done.length
    }
  }
  return done.flatMap(({ step, gone }) => (gone ? [] : [step]))
}

/** What `joined` would refuse for its size alone. */
const mayJoin = (g: Loop, s: Loop, size: number): boolean =>
  g.program.length + s.program.length <= MAX_OPS &&
  g.more.length + s.more.length + 1 < JOINED.results &&
  S.size(g.shape) === size

/** A step in its place, until another takes it in. */
interface Placed<A> {
  readonly at: number
  step: A
  gone: boolean
}

/** Which steps read and write a value, so that of thousands only those are looked at that share one with a loop. */
const index = <A>() => {
  const readers = new Map<Tensor, Placed<A>[]>()
  const writers = new Map<Tensor, Placed<A>[]>()
  const add = (to: Map<Tensor, Placed<A>[]>, x: Tensor, p: Placed<A>): void => {
    const known = to.get(x)
    if (known === undefined) to.set(x, [p])
    else if (known[known.length - 1] !== p) known.push(p)
  }
  return {
    reads: (x: Tensor, p: Placed<A>) => add(readers, x, p),
    writes: (x: Tensor, p: Placed<A>) => add(writers, x, p),
    /** Where the last step stands that writes one of these; -1 where none does. */
    lastWriter: (xs: readonly Tensor[]): number =>
      xs.reduce((m, x) => (writers.get(x) ?? []).reduce((n, p) => (p.gone ? n : Math.max(n, p.at)), m), -1),
    /** Steps from a place on that write one of some values or read one of others, the last first. */
    touching: (xs: ReadonlySet<Tensor>, ys: ReadonlySet<Tensor>, from: number): readonly Placed<A>[] => {
      const found = new Set<Placed<A>>()
      const collect = (some: readonly Placed<A>[] = []) => {
        for (const p of some) if (!p.gone && p.at >= from) found.add(p)
      }
      for (const x of xs) collect(writers.get(x))
      for (const y of ys) collect(readers.get(y))
      return [...found].sort((p, q) => q.at - p.at)
    },
    /** Whether a step behind a place reads one of these. */
    isReadBehind: (xs: readonly Tensor[], at: number): boolean =>
      xs.some((x) => (readers.get(x) ?? []).some((p) => !p.gone && p.at > at)),
  }
}

/** A loop that stores, besides its own value, only what is wanted. */
export const frugal = (l: Loop, wanted: ReadonlySet<Tensor>): Loop => ({
  ...l,
  more: l.more.filter((m) => wanted.has(m.out)),
})
