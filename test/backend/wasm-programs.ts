import * as E from 'fp-ts/lib/Either.js'
import { type WasmOptions, wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend } from '../../src/compile/backend.ts'
import type { Instruction, LoopInstruction } from '../../src/compile/instruction.ts'
import type { Plan, Slot } from '../../src/compile/plan.ts'
import { show } from '../../src/core/error.ts'
import { Combine, LoopMode, Micro } from '../../src/core/lowering.ts'
import { WIDE } from './instructions.ts'

/** Programs for the machine made by hand, and straightforward models of what they mean. */

export const right = <A>(e: E.Either<unknown, A>): A => {
  if (E.isLeft(e)) throw new Error(`unexpected Left: ${JSON.stringify(e.left)}`)
  return e.right
}

export const open = async (options: WasmOptions): Promise<Backend> => {
  const e = await wasm(options)()
  if (E.isLeft(e)) throw new Error(show(e.left))
  return e.right
}

/** A plan around instructions whose slots 0.. are the inputs, then the outputs, then `extra`. */
export const planOf = (
  instructions: readonly Instruction[],
  inputs: readonly number[],
  outputs: readonly number[],
  extra: readonly Slot[] = [],
  constants: readonly number[] = [],
): Plan => ({
  inputs: inputs.map((n) => [n]),
  outputs: outputs.map((n) => [n]),
  instructions,
  slots: [
    ...inputs.map((length, index): Slot => ({ at: 'input', index, length })),
    ...outputs.map((length, index): Slot => ({ at: 'output', index, length })),
    ...extra,
  ],
  constants: Float64Array.from(constants),
  arena: extra.reduce((n, s) => (s.at === 'arena' ? Math.max(n, s.offset + s.length) : n), 0),
  calls: [],
  values: 0,
  constantIds: [],
  outputIds: [],
})

/** Runs a plan once on fresh buffers; the outputs start as NaN, so that what is not written shows. */
export const runPlan = async (
  b: Backend,
  plan: Plan,
  inputs: readonly Float32Array[],
): Promise<readonly Float32Array[]> => {
  const e = right(await b.compile(plan)())
  const ins = inputs.map((x) => {
    const buffer = b.alloc(x.length)
    b.write(buffer, x)
    return buffer
  })
  const outs = plan.outputs.map(([n]) => {
    const buffer = b.alloc(n)
    b.write(buffer, new Float32Array(n).fill(Number.NaN))
    return buffer
  })
  b.run(e, [...ins, ...outs])
  const results = await Promise.all(outs.map((o) => b.read(o)))
  for (const x of [...ins, ...outs]) b.free(x)
  b.release(e)
  return results as readonly Float32Array[]
}

export interface LoopSpec {
  readonly dims: readonly number[]
  readonly mode: LoopMode
  readonly combine: Combine
  readonly kept: number
  /** `slot`: where it is not the usual one. */
  readonly out: { readonly slot?: number; readonly offset: number; readonly strides: readonly number[] }
  readonly inputs: readonly { readonly slot?: number; readonly offset: number; readonly strides: readonly number[] }[]
  readonly temporaries: number
  /** micro, dst, a, b, c. */
  readonly ops: readonly (readonly [number, number, number, number, number])[]
  readonly stored?: LoopInstruction['stored']
}

/** Slots, unless the spec names others: inputs 0.., then the output. */
export const loopOf = (l: LoopSpec, work = WIDE): LoopInstruction => ({
  kind: 'loop',
  work,
  mode: l.mode,
  combine: l.combine,
  kept: l.kept,
  dims: l.dims,
  out: { slot: l.inputs.length, ...l.out },
  inputs: l.inputs.map((x, i) => ({ slot: i, ...x })),
  registers: l.inputs.length + l.temporaries,
  ops: l.ops.map(([micro, dst, ...args]) => ({ micro, dst, args })),
  stored: l.stored ?? [],
})

const f = Math.fround
const nan = Number.NaN

/** A plan of one function on n numbers. */
export const unaryPlan = (m: Micro, n: number): ReturnType<typeof planOf> =>
  planOf(
    [
      loopOf({
        dims: [n],
        mode: LoopMode.map,
        combine: Combine.sum,
        kept: 1,
        out: { offset: 0, strides: [1] },
        inputs: [{ offset: 0, strides: [1] }],
        temporaries: 1,
        ops: [[m, 1, 0, 0, 0]] as const,
      }),
    ],
    [n],
    [n],
  )

/** The exact scalar semantics of every micro-operation but those that `inexact` lists, which are given in f64. */
export const inexact: readonly Micro[] = [
  ...[Micro.exp, Micro.log, Micro.tanh, Micro.sigmoid],
  ...[Micro.erf, Micro.sin, Micro.cos],
]

export const micro = (m: Micro, a: number, b: number, c: number): number => {
  switch (m) {
    case Micro.add:
      return f(a + b)
    case Micro.sub:
      return f(a - b)
    case Micro.mul:
      return f(a * b)
    case Micro.div:
      return f(a / b)
    case Micro.min:
      return Math.min(a, b)
    case Micro.max:
      return Math.max(a, b)
    case Micro.neg:
      return -a
    case Micro.abs:
      return Math.abs(a)
    case Micro.sign:
      return a > 0 ? 1 : a < 0 ? -1 : a === 0 ? 0 : nan
    case Micro.step:
      return a > 0 ? 1 : a <= 0 ? 0 : nan
    case Micro.relu:
      return Math.max(a, 0)
    case Micro.sqrt:
      return f(Math.sqrt(a))
    case Micro.exp:
      return Math.exp(a)
    case Micro.log:
      return Math.log(a)
    case Micro.tanh:
      return Math.tanh(a)
    case Micro.sigmoid:
      return a >= 0 ? 1 / (1 + Math.exp(-a)) : Math.exp(a) / (1 + Math.exp(a))
    case Micro.greater:
      return a > b ? 1 : 0
    case Micro.greaterEqual:
      return a >= b ? 1 : 0
    case Micro.equal:
      return a === b ? 1 : 0
    case Micro.select:
      return Number.isNaN(a) ? nan : a !== 0 ? b : c
    case Micro.splitMul:
      return f(a * (a > 0 ? b : c))
    case Micro.mulAdd:
      return f(f(a * b) + c)
    case Micro.absMul:
      return f(Math.abs(a) * b)
    case Micro.up:
      return above(a)
    case Micro.down:
      return -above(-a)
    case Micro.erf:
      return errorFunction(a)
    case Micro.sin:
      return Math.abs(a) <= 8192 ? Math.sin(a) : nan
    case Micro.cos:
      return Math.abs(a) <= 8192 ? Math.cos(a) : nan
    case Micro.floor:
      return Math.floor(a)
    case Micro.round: {
      const low = Math.floor(a)
      const odd = low % 2 !== 0
      const near = a - low < 0.5 || (a - low === 0.5 && !odd) ? low : Math.ceil(a)
      return near === 0 ? Math.sign(a) * 0 : near
    }
    default:
      return m satisfies never
  }
}

/** Its Taylor series near 0, else the continued fraction of what it lacks to 1, from the back. */
export const errorFunction = (x: number): number => {
  const [a, scale] = [Math.abs(x), 2 / Math.sqrt(Math.PI)]
  if (!(a < 6)) return Number.isNaN(x) ? x : Math.sign(x)
  if (a < 2) {
    let [sum, term] = [x, x]
    for (let n = 1; n < 60; n++) {
      term *= (-x * x) / n
      sum += term / (2 * n + 1)
    }
    return scale * sum
  }
  let fraction = a
  for (let k = 120; k > 0; k--) fraction = a + k / 2 / fraction
  return Math.sign(x) * (1 - Math.exp(-a * a) / (Math.sqrt(Math.PI) * fraction))
}

/** The next float32 above, by its distance: half of the spacing below |a| and a quarter lead to it through rounding. */
const above = (a: number): number => {
  if (Number.isNaN(a) || a === Number.POSITIVE_INFINITY) return a
  if (a === Number.NEGATIVE_INFINITY) return -(2 - 2 ** -23) * 2 ** 127
  let exponent = -126
  while (2 ** (exponent + 1) <= Math.abs(a)) exponent++
  const spacing = 2 ** (exponent - 23)
  // Below a power of two, negative numbers are twice as dense.
  const step = a < 0 && -a === 2 ** exponent && exponent > -126 ? spacing / 2 : spacing
  const next = f(a + step)
  return next === 0 && a < 0 ? -0 : next
}

export const arity = (m: Micro): number =>
  m === Micro.select || m === Micro.splitMul || m === Micro.mulAdd
    ? 3
    : [
          Micro.add,
          Micro.sub,
          Micro.mul,
          Micro.div,
          Micro.min,
          Micro.max,
          Micro.greater,
          Micro.greaterEqual,
          Micro.equal,
          Micro.absMul,
        ].includes(m)
      ? 2
      : 1

/** A loop, element by element. Sums are taken in f64: compare with a tolerance. */
export const loopModel = (l: LoopSpec, inputs: readonly Float32Array[], out: Float64Array): void => {
  const index = l.dims.map(() => 0)
  const total = l.dims.reduce((n, d) => n * d, 1)
  const at = (x: { readonly offset: number; readonly strides: readonly number[] }) =>
    x.strides.reduce((s, t, d) => s + t * index[d], x.offset)
  const seen = new Set<number>()
  for (let e = 0; e < total; e++) {
    let rest = e
    for (let d = l.dims.length - 1; d >= 0; d--) {
      index[d] = rest % l.dims[d]
      rest = Math.floor(rest / l.dims[d])
    }
    const registers: number[] = l.inputs.map((x, i) => inputs[i][at(x)])
    let value = registers[0]
    for (const [m, dst, a, b, c] of l.ops) {
      value = micro(m, registers[a], registers[b], registers[c])
      registers[dst] = value
    }
    const o = at(l.out)
    if (l.mode === LoopMode.map || !seen.has(o)) out[o] = value
    else
      out[o] =
        l.combine === Combine.sum
          ? out[o] + value
          : l.combine === Combine.max
            ? Math.max(out[o], value)
            : Math.min(out[o], value)
    seen.add(o)
  }
}

/** xorshift: the same data on every run. */
export const random = (seed: number) => {
  let s = seed | 1
  return (): number => {
    s ^= s << 13
    s ^= s >>> 17
    s ^= s << 5
    return (s >>> 0) / 2 ** 32
  }
}

export const randomArray = (n: number, seed: number): Float32Array => {
  const next = random(seed)
  return Float32Array.from({ length: n }, () => next() * 2 - 1)
}

/** Whether two arrays hold the same bits, all NaN counting as one. */
export const sameBits = (a: ArrayLike<number>, b: ArrayLike<number>): boolean => {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (!Object.is(a[i], b[i])) return false
  return true
}

/** The first index where |a - b| > tolerance * (1 + |b|), or where exactly one is NaN; -1 if none. */
export const firstFar = (a: ArrayLike<number>, b: ArrayLike<number>, tolerance: number): number => {
  for (let i = 0; i < b.length; i++) {
    if (Object.is(a[i], b[i])) continue
    if (!(Math.abs(a[i] - b[i]) <= tolerance * (1 + Math.abs(b[i])))) return i
  }
  return -1
}
