import { openDevice } from '../backend/device.ts'
import { reference } from '../backend/reference.ts'
import { dependents } from '../bounds/anatomy.ts'
import { ibp } from '../bounds/linear-bounds.ts'
import type { Backend } from '../compile/backend.ts'
import { type Graphs, type Program, program, type Shapes } from '../compile/program.ts'
import { openRegion } from '../compile/region.ts'
import { MixtrainException } from '../core/error.ts'
import { lazily } from '../core/lazily.ts'
import { interval } from '../core/op.ts'
import { above, below, fromDouble, nearest, type Rational, ratio, showExactly, showRounded } from '../core/rational.ts'
import { type Rounding, roundDown, roundUp } from '../core/rounding.ts'
import * as S from '../core/shape.ts'
import { input } from '../ops/index.ts'
import { type Constraint, outputOf, type Subject, type UnsafeCase } from './counterexample.ts'
import { type Enclosure, enclosedInDoubles } from './enclosure.ts'
import { type ExactTensor, evaluateExactly, exactDoubles, exactTensor, Inexact, multiplicationsOf } from './exact.ts'
import { decidedBy, meets, meetsExactly } from './exact-constraint.ts'
import { type Replay, type Replayed, replayedBy } from './replay.ts'

/** An input of a box whose output satisfies all constraints of a conjunction. */
export interface Counterexample {
  /** The doubles nearest to the point and to its output. */
  readonly x: Float64Array
  readonly y: Float64Array
  /** The point exactly, and its output: exactly where that is short, else rounded so that the constraints hold of what is printed, too. */
  readonly decimals: { readonly x: readonly string[]; readonly y: readonly string[] }
  /** What another program makes of it, where one was asked. */
  readonly replayed?: Replayed
}

/** Checks points by what the bounds of the search are about, whatever its device is. */
export interface CounterexampleCheck {
  /** Outputs at a point, in doubles. */
  readonly outputs: (x: Float64Array) => Promise<Float64Array>
  /** The point, moved into the box where rounding left it outside, if it is a counterexample of its case. */
  readonly check: (c: UnsafeCase, x: ArrayLike<number>, late?: () => boolean) => Promise<Counterexample | undefined>
  /** Why the last point that looked like a counterexample in float64 was not confirmed, if there was one since this was asked last. */
  readonly doubt: () => string | undefined
  /** The first counterexample that was confirmed by what the bounds are about, but not by the program that is to replay it; forgotten with the doubt. */
  readonly unconfirmed: () => Counterexample | undefined
  readonly close: () => void
}

/** Multiplications for which exact arithmetic comes first. */
const SMALL = 3e6
/** Share of |bound| + sum |c_i y_i| that float64 may be wrong by where a point is still looked at closely. */
const NEAR = 1e-5
/** Shares of the way to the centre of the box that a point is moved by where it was not confirmed. */
const MOVES = [0, 2 ** -20, 2 ** -10, 2 ** -5]

const isNear = ({ coefficients, bound }: Constraint, y: Float64Array): boolean => {
  let [value, size] = [-bound, Math.abs(bound)]
  for (let i = 0; i < coefficients.length; i++) {
    value += coefficients[i] * y[i]
    size += Math.abs(coefficients[i] * y[i])
  }
  return !(value > NEAR * size)
}

/** Decimals of outputs such that constraints hold of the decimals; as few digits as do. */
const spelled = (y: ExactTensor, holds: (y: ExactTensor) => boolean): readonly string[] => {
  const values = y.numerators.map((n) => ratio(n, y.denominator))
  const rounded = (digits: number) => values.map((v) => roundedTo(v, digits))
  for (const digits of [17, 30, 60, 200]) {
    const some = rounded(digits)
    if (holds(exactTensor(some.map(([, v]) => v)))) return some.map(([text]) => text)
  }
  return values.map((v) => showExactly(v, 5000) ?? showRounded(v, 60, 'down'))
}
/** Digits up to which an output is printed exactly, whatever it is rounded to otherwise. */
const SHORT = 100
/** A number exactly if that is short, else rounded to so many significant digits. */
const roundedTo = (v: Rational, digits: number): readonly [string, Rational] => {
  const own = showExactly(v, SHORT)
  return own === undefined ? withValue(showRounded(v, digits, 'down')) : [own, v]
}
const withValue = (text: string): readonly [string, Rational] => [text, decimalOf(text)]
const decimalOf = (text: string): Rational => {
  const [whole, part = ''] = text.split('.')
  return ratio(BigInt(whole + part), 10n ** BigInt(part.length))
}

/**
 * Whether points are counterexamples.
 *
 * - `real`, or bounds that round to nearest: a point counts if exact rational arithmetic says so (verify/exact.ts), for networks that it can evaluate, or if bounds of the point itself do that round outward, in float32 or in doubles,
 *   which come first for large networks. With `rounding: 'none'` float64 decides for networks that neither can decide.
 * - `deployed`: a point of float32 numbers counts if a float32 execution of the network, whose outputs are exact numbers then, says so.
 *
 * The box and the constraints are those that were meant: exact, strict where they are. A point that is not confirmed is tried again a little further inside its box, and so is one that
 * `replay` does not confirm, where there is one: the first of those is kept.
 */
export const counterexampleCheck = async (
  subject: Subject,
  rounding: Rounding = 'none',
  device?: Backend,
  replay?: Replay,
): Promise<CounterexampleCheck> => {
  const backend = reference()
  const shape = [1, ...subject.input]
  const x = input('x', shape)
  const y = outputOf(subject, x)
  const size = S.size(subject.input)
  const network = program({ x: shape }, (of) => ({ y: outputOf(subject, of.x) }))
  const opened: Backend[] = []
  const released: (() => void)[] = []
  /** A program on a device until the check is closed. */
  const running = <I extends Shapes, O extends Graphs>(on: Backend, p: Program<I, O>) => {
    const { region, close } = openRegion(on)
    released.push(close)
    return p.on(region)
  }
  const inDoubles = await running(backend, network)
  const outputs = async (at: Float64Array): Promise<Float64Array> => Float64Array.from((await inDoubles({ x: at })).y)
  let doubt: string | undefined
  let unconfirmed: Counterexample | undefined

  /** A device of float32 arithmetic as IEEE 754 has it. */
  const float32 = lazily(async (): Promise<Backend> => {
    if (device !== undefined && device.dtype === 'f32' && device.name !== 'webgpu') return device
    const wasm = await openDevice({ device: 'wasm', threads: 1 })()
    if (wasm._tag === 'Left') throw new MixtrainException(wasm.left)
    opened.push(wasm.right.backend)
    return wasm.right.backend
  })

  /** The network as it is executed in float32. */
  const execution = lazily(async () => {
    const run = await running(await float32.get(), network)
    return async (at: Float64Array): Promise<Float64Array> =>
      Float64Array.from((await run({ x: Float32Array.from(at) })).y)
  })

  /** Outward bounds of the outputs over a box of float32 numbers round the point. */
  const enclosure = lazily(async () => {
    const on = await float32.get()
    const bounds = program({ lower: shape, upper: shape }, ({ lower, upper }) => {
      const boxes = new Map([[x, interval(lower, upper)]])
      if (!dependents([y], boxes).has(y)) throw new Inexact('its output does not depend on the input')
      return { y: ibp(y, boxes, undefined, { outward: 'real' }).output() }
    })
    const run = await running(on, bounds)
    return async (point: readonly Rational[]): Promise<Enclosure> => {
      const found = await run({
        lower: Float32Array.from(point, (v) => roundDown(below(v))),
        upper: Float32Array.from(point, (v) => roundUp(above(v))),
      })
      return { lower: Float64Array.from(found.y.lower), upper: Float64Array.from(found.y.upper) }
    }
  })

  const work = multiplicationsOf(y)

  const pauseUnless = (late: () => boolean) => () => {
    if (late()) throw new Inexact('the time is up')
  }

  type Verdict =
    | { readonly kind: 'yes'; readonly y: ExactTensor }
    | { readonly kind: 'no' }
    | { readonly kind: 'unknown'; readonly reason: string }

  const decided = ({ unsafe }: UnsafeCase, exact: ExactTensor): Verdict =>
    unsafe.some((u) => u.every((c) => meetsExactly(c, exact))) ? { kind: 'yes', y: exact } : { kind: 'no' }

  const byExactArithmetic = (c: UnsafeCase, point: readonly Rational[], late: () => boolean): Verdict => {
    try {
      return decided(c, evaluateExactly(y, new Map([[x, exactTensor(point)]]), pauseUnless(late)))
    } catch (e) {
      if (!(e instanceof Inexact)) throw e
      return { kind: 'unknown', reason: e.reason }
    }
  }

  /** Whether a point is a counterexample whose outputs lie between doubles. */
  const decidedBetween = (c: UnsafeCase, { lower: l, upper: u }: Enclosure, near: Float64Array): Verdict => {
    if (![...l, ...u].every(Number.isFinite)) return { kind: 'unknown', reason: 'bounds of the point are not finite' }
    const both = exactDoubles([...l, ...u])
    const half = (start: number): ExactTensor => ({
      numerators: both.numerators.slice(start, start + l.length),
      denominator: both.denominator,
    })
    const [lower, upper] = [half(0), half(l.length)]
    const sides = c.unsafe.map((u) => u.map((k) => decidedBy(k, lower, upper)))
    // Any number between the bounds tells what the output is, about; float64 knows it best.
    if (sides.some((u) => u.every((s) => s === true)))
      return { kind: 'yes', y: exactDoubles(near.map((v, i) => Math.min(Math.max(v, l[i]), u[i]))) }
    return sides.every((u) => u.some((s) => s === false))
      ? { kind: 'no' }
      : { kind: 'unknown', reason: 'bounds of the point do not decide it' }
  }

  const byBounds = async (c: UnsafeCase, point: readonly Rational[], near: Float64Array): Promise<Verdict> => {
    try {
      return decidedBetween(c, await (await enclosure.get())(point), near)
    } catch (e) {
      if (e instanceof Inexact) return { kind: 'unknown', reason: e.reason }
      if (e instanceof MixtrainException && (e.error.kind === 'unsupported' || e.error.kind === 'memory'))
        return { kind: 'unknown', reason: e.message }
      throw e
    }
  }

  const byDoubles = (c: UnsafeCase, point: readonly Rational[], near: Float64Array, late: () => boolean): Verdict => {
    try {
      const [lower, upper] = [below, above].map((end) => Float64Array.from(point, end))
      const isPoint = lower.every((l, i) => l === upper[i])
      return decidedBetween(
        c,
        enclosedInDoubles(y, new Map([[x, { lower, upper: isPoint ? lower : upper }]]), pauseUnless(late)),
        near,
      )
    } catch (e) {
      if (!(e instanceof Inexact)) throw e
      return { kind: 'unknown', reason: e.reason }
    }
  }

  /** In real arithmetic: exactly where that is quick, by bounds of the point in float32 and in doubles, and exactly where nothing else decides. */
  const inReals = async (
    c: UnsafeCase,
    point: readonly Rational[],
    near: Float64Array,
    late: () => boolean,
  ): Promise<Verdict> => {
    const exactly = () => byExactArithmetic(c, point, late)
    const ways = [
      ...(work <= SMALL ? [exactly] : []),
      () => byBounds(c, point, near),
      () => byDoubles(c, point, near, late),
      ...(work <= SMALL ? [] : [exactly]),
    ]
    const reasons: string[] = []
    for (const way of ways) {
      const verdict = await way()
      if (verdict.kind !== 'unknown') return verdict
      reasons.push(verdict.reason)
    }
    return { kind: 'unknown', reason: [...new Set(reasons)].join('; ') }
  }

  /** The point in the box, as exact numbers that have decimals. */
  const placed = (c: UnsafeCase, at: (i: number) => number): readonly Rational[] | string => {
    const point: Rational[] = []
    for (let i = 0; i < size; i++) {
      const own = c.between?.get(i)
      if (own === undefined) point.push(fromDouble(Math.min(Math.max(at(i), c.lower[i]), c.upper[i])))
      else if (showExactly(own) === undefined)
        return `input ${i} can only be ${own.numerator}/${own.denominator}, which has no decimal`
      else point.push(own)
    }
    return point
  }

  const found = (c: UnsafeCase, point: readonly Rational[], exact: ExactTensor): Counterexample => ({
    x: Float64Array.from(point, nearest),
    y: Float64Array.from(exact.numerators, (n) => nearest(ratio(n, exact.denominator))),
    decimals: {
      x: point.map((v) => showExactly(v) as string),
      y: spelled(exact, (some) => c.unsafe.some((u) => u.every((k) => meetsExactly(k, some)))),
    },
  })

  /** The counterexample, unless another program is to confirm it and does not; one that cannot run it is no reason to look further, unless it must. */
  const replayed = async (c: UnsafeCase, own: Counterexample): Promise<Counterexample | undefined> => {
    if (replay === undefined) return own
    const seen: Counterexample = { ...own, replayed: await replayedBy(replay, c, own.x) }
    if (seen.replayed?.confirmed || (seen.replayed?.y === undefined && !replay.required)) return seen
    unconfirmed ??= seen
    return undefined
  }

  const checkReal = async (c: UnsafeCase, at: ArrayLike<number>, late: () => boolean) => {
    for (const share of MOVES) {
      const moved = (i: number) => at[i] + share * (0.5 * (c.lower[i] + c.upper[i]) - at[i])
      const point = placed(c, moved)
      if (typeof point === 'string') {
        doubt = point
        return undefined
      }
      const near = await outputs(Float64Array.from(point, nearest))
      if (!c.unsafe.some((u) => u.every((k) => isNear(k, near)))) return undefined
      const verdict = await inReals(c, point, near, late)
      const looks = c.unsafe.some((u) => u.every((k) => meets(k, near)))
      const y =
        verdict.kind === 'yes'
          ? verdict.y
          : verdict.kind === 'unknown' && rounding === 'none' && looks
            ? exactDoubles(near)
            : undefined
      const own = y && (await replayed(c, found(c, point, y)))
      if (own !== undefined) return own
      // What was found out in time says more than what was not.
      if (looks && verdict.kind === 'no') doubt = 'a point is a counterexample in float64, but not in real arithmetic'
      else if (looks && verdict.kind === 'unknown')
        doubt ??= `a point is a counterexample in float64, which could not be confirmed in real arithmetic: ${verdict.reason}`
      if (late()) return undefined
    }
    return undefined
  }

  const checkDeployed = async (c: UnsafeCase, at: ArrayLike<number>, late: () => boolean) => {
    const [lower, upper] = [Float64Array.from(c.lower, roundUp), Float64Array.from(c.upper, roundDown)]
    const empty = lower.findIndex((l, i) => !(l <= upper[i]))
    if (empty >= 0) {
      doubt = `the box of input ${empty} has no float32 number, so there is no execution to confirm a counterexample by`
      return undefined
    }
    for (const share of MOVES) {
      const point = Float64Array.from(lower, (l, i) => {
        const moved = at[i] + share * (0.5 * (l + upper[i]) - at[i])
        return Math.min(Math.max(Math.fround(moved), l), upper[i])
      })
      const value = await (await execution.get())(point)
      if (c.unsafe.some((u) => u.every((k) => meets(k, value)))) {
        const exact = exactDoubles(value.map((v) => (Number.isFinite(v) ? v : 0)))
        const own = await replayed(c, found(c, Array.from(point, fromDouble), exact))
        if (own !== undefined) return own
      }
      const near = await outputs(point)
      if (!c.unsafe.some((u) => u.every((k) => isNear(k, near)))) return undefined
      if (c.unsafe.some((u) => u.every((k) => meets(k, near))))
        doubt = 'a point is a counterexample in float64, but not in a float32 execution'
      if (late()) return undefined
    }
    return undefined
  }

  return {
    outputs,
    check: (c, at, late = () => false) =>
      rounding !== 'none' && rounding.outward === 'deployed' ? checkDeployed(c, at, late) : checkReal(c, at, late),
    doubt: () => {
      const said = doubt
      doubt = undefined
      unconfirmed = undefined
      return said
    },
    unconfirmed: () => unconfirmed,
    close: () => {
      for (const release of released) release()
      backend.dispose()
      for (const b of opened) b.dispose()
    },
  }
}
