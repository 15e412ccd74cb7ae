import { reference } from '../backend/reference.ts'
import type { Region } from '../backend/region.ts'
import { fold, type Key, uniform } from '../core/key.ts'
import * as S from '../core/shape.ts'
import type { Apply, Tensor } from '../core/tensor.ts'
import { div, input, max, maximum, mul, neg, reshape, sub, sum } from '../ops/index.ts'
import { compile, compileIn } from '../tape/run.ts'
import { pgdFrom } from './attack.ts'

/** coefficients . y <= bound; `outward` is a double not below the bound that was meant. */
export interface Constraint {
  readonly coefficients: Float64Array
  readonly bound: number
  readonly outward: number
}

/** A box of inputs, and what must not happen in it: every constraint of at least one conjunction. */
export interface UnsafeCase {
  readonly lower: Float64Array
  readonly upper: Float64Array
  /** Encloses the box that was meant. */
  readonly outward: { readonly lower: Float64Array; readonly upper: Float64Array }
  readonly unsafe: readonly (readonly Constraint[])[]
}

/** A property of a network: it holds iff no case has a counterexample. A decoded VNN-LIB file is one. */
export interface UnsafeProperty {
  readonly inputs: number
  readonly outputs: number
  readonly cases: readonly UnsafeCase[]
}

/** A network as a property sees it: inputs in row-major order of `input`, outputs in that of its output. */
export interface Subject {
  /** `[n, ...input] -> [n, ...]`, its parameters bound. */
  readonly network: Apply
  readonly input: S.Shape
  readonly outputs: number
}

/** Outputs as `[n, outputs]`. */
export const outputOf = ({ network, outputs }: Subject, x: Tensor): Tensor => reshape(network(x), [x.shape[0], outputs])

// ---- exact checks ----------------------------------------------------------------------------------------------------

const word = new DataView(new ArrayBuffer(8))

/** A finite double as mantissa 2^exponent. */
const exactly = (x: number): readonly [bigint, number] => {
  word.setFloat64(0, x)
  const bits = word.getBigUint64(0)
  const biased = Number((bits >> 52n) & 0x7ffn)
  const fraction = bits & 0xfffffffffffffn
  const mantissa = biased === 0 ? fraction : fraction | (1n << 52n)
  return [x < 0 ? -mantissa : mantissa, Math.max(biased, 1) - 1075]
}

/** True iff coefficients . y <= bound for these doubles, in exact arithmetic. */
export const meets = ({ coefficients, bound }: Constraint, y: ArrayLike<number>): boolean => {
  const terms: (readonly [bigint, number])[] = []
  for (let i = 0; i < coefficients.length; i++) {
    if (coefficients[i] === 0) continue
    if (!Number.isFinite(coefficients[i]) || !Number.isFinite(y[i])) return false
    const [[a, e], [b, f]] = [exactly(coefficients[i]), exactly(y[i])]
    terms.push([a * b, e + f])
  }
  if (!Number.isFinite(bound)) return bound === Number.POSITIVE_INFINITY
  const [c, g] = exactly(bound)
  terms.push([-c, g])
  const least = Math.min(...terms.map(([, e]) => e))
  return terms.reduce((total, [m, e]) => total + (m << BigInt(e - least)), 0n) <= 0n
}

/** An input of a box whose output, in doubles, satisfies all constraints of a conjunction. */
export interface Counterexample {
  readonly x: Float64Array
  readonly y: Float64Array
}

/** Judges points on the f64 reference backend, whatever the device of the search is. */
export interface Judge {
  /** Outputs at a point, in doubles. */
  readonly outputs: (x: Float64Array) => Promise<Float64Array>
  /** The point, moved into the box where rounding left it outside, if it is a counterexample of its case. */
  readonly check: (c: UnsafeCase, x: ArrayLike<number>) => Promise<Counterexample | undefined>
  readonly close: () => void
}

export const judge = async (subject: Subject): Promise<Judge> => {
  const backend = reference()
  const x = input('x', [1, ...subject.input])
  const f = await compile(backend)([outputOf(subject, x)], [x])
  const [from, to] = [backend.alloc(S.size(subject.input)), backend.alloc(subject.outputs)]
  const outputs = async (at: Float64Array): Promise<Float64Array> => {
    backend.write(from, at)
    f.run([from, to])
    return Float64Array.from(await backend.read(to))
  }
  return {
    outputs,
    check: async ({ lower, upper, unsafe }, point) => {
      const inside = Float64Array.from(lower, (l, i) => Math.min(Math.max(point[i], l), upper[i]))
      if (!inside.every((v, i) => v >= lower[i] && v <= upper[i])) return undefined
      const y = await outputs(inside)
      return unsafe.some((conjunction) => conjunction.every((c) => meets(c, y))) ? { x: inside, y } : undefined
    },
    close: () => {
      f.release()
      backend.dispose()
    },
  }
}

// ---- attack ----------------------------------------------------------------------------------------------------------

/** max over k of spec_k . y - bound_k, `[n]`: at most 0 where a conjunction holds. y `[n, m]`, spec `[rows, n, m]`, bound `[rows, n]`. */
export const violation = (y: Tensor, spec: Tensor, bound: Tensor): Tensor =>
  max(sub(sum(mul(spec, y), 2), bound) as Tensor, 0)

/** An attack on boxes, many at once. All arrays are row-major, `images` first; spec `[rows, images, outputs]`, bound `[rows, images]`. */
export interface Attacker {
  readonly images: number
  readonly rows: number
  /** `start` in [-1, 1], relative to the box. Points and how far each is from a violation (at most 0: it is one, in this arithmetic). */
  readonly run: (
    box: { readonly centre: Float32Array; readonly radius: Float32Array },
    goal: { readonly spec: Float32Array; readonly bound: Float32Array },
    start: Float32Array,
  ) => Promise<{ readonly x: ArrayLike<number>; readonly violation: ArrayLike<number> }>
}

const ANYWHERE = [-3e38, 3e38] as const

/**
 * PGD on the margin of the unsafe conjunctions (arXiv:1706.06083, with the loss of 1608.04644): signed steps of 0.15 radii, then of 0.02, `steps` of
 * each, projected to the box.
 */
export const attacker =
  (region: Region) =>
  async (subject: Subject, images: number, rows: number, steps: number): Promise<Attacker> => {
    const { backend } = region
    const shape = [images, ...subject.input]
    const [centre, radius, start] = ['centre', 'radius', 'start'].map((name): Tensor => input(name, shape))
    const [spec, bound] = [input('spec', [rows, images, subject.outputs]), input('bound', [rows, images])]
    const closeness = (y: Tensor) => neg(violation(y, spec, bound))
    const target = {
      logits: ((x: Tensor) => outputOf(subject, x)) as Apply,
      inputs: centre,
      labels: centre,
      epsilon: radius,
      range: ANYWHERE,
    }
    const near = pgdFrom({ steps, stepSize: 0.15, fallback: null }, closeness, start)(target)
    const again = div(sub(near, centre), maximum(radius, 1e-30)) as Tensor
    const x = pgdFrom({ steps, stepSize: 0.02, fallback: null }, closeness, again)(target)
    const results = [x, violation(outputOf(subject, x), spec, bound)]
    const given = [centre, radius, start, spec, bound]
    const { run } = await compileIn(region)(results, given)
    const buffers = given.map((t) => region.alloc(S.size(t.shape)))
    const out = results.map((t) => region.alloc(S.size(t.shape)))
    return {
      images,
      rows,
      run: async (box, goal, from) => {
        for (const [i, data] of [box.centre, box.radius, from, goal.spec, goal.bound].entries())
          backend.write(buffers[i], data)
        run([...buffers, ...out])
        return { x: await backend.read(out[0]), violation: await backend.read(out[1]) }
      },
    }
  }

/** Starts of one run: the centre for images whose restart is 0, uniform in the box for others. */
export const starts = (key: Key, restart: (image: number) => number, images: number, size: number): Float32Array => {
  const out = new Float32Array(images * size)
  for (let i = 0; i < images; i++)
    if (restart(i) > 0) out.set(uniform(fold(fold(key, restart(i)), i), size, -1, 1), i * size)
  return out
}
