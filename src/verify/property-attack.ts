import type { Data } from '../compile/backend.ts'
import { programOf } from '../compile/program.ts'
import type { Region } from '../compile/region.ts'
import { banksIn } from '../compile/running.ts'
import { order } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import { MixtrainException } from '../core/error.ts'
import { fold, type Key, uniform } from '../core/key.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { greater, input, maximum, minimum, mul, reshape, select, sign, sub, sum } from '../ops/index.ts'
import { type Budget, byNumber, type Metered } from '../robust/budget.ts'
import { outputOf, type Subject, violation } from './counterexample.ts'
import type { Box, Goal } from './goals.ts'

/** Where an attack starts: a box, one of the goal's conjunctions, and a point of the box. */
export interface AttackTarget {
  readonly goal: Goal
  readonly conjunction: number
  readonly box: Box
  readonly start: Float32Array
}

/** The point of the least violation on the way from a start; at most 0: it looks like a counterexample. */
export interface AttackResult {
  readonly target: AttackTarget
  readonly x: Float32Array
  readonly violation: number
}

export interface PropertyAttack {
  /** Ascends from each start, until so many seconds of the budget are over: then with fewer steps or from fewer starts. */
  readonly ascend: (targets: readonly AttackTarget[], until?: number) => Promise<readonly AttackResult[]>
  /** The same, from points that look like counterexamples on to the least violation. */
  readonly deepen: (targets: readonly AttackTarget[], until?: number) => Promise<readonly AttackResult[]>
  /** Violations of the starts themselves. */
  readonly look: (targets: readonly AttackTarget[], until?: number) => Promise<readonly AttackResult[]>
  /** Outputs at points, `[outputs]` each. */
  readonly outputs: (points: readonly Float32Array[]) => Promise<readonly Float32Array[]>
}

/** Starts at once, the smallest plan first; each is for so many. */
const [FEW, MANY] = [8, 64]
/** Points that are looked at, not moved, at once. */
const LOOK = 256
/** Step sizes fall from one share of the box's width to another. */
const [STEPS, FIRST, LAST] = [40, 0.15, 0.0015]
/** Seconds of one run beyond which fewer images are taken at once. */
const SLOW = 0.5

const shapes = (subject: Subject, rows: number, images: number) => {
  const shape = [images, ...subject.input]
  return {
    x: input('x', shape),
    lower: input('lower', shape),
    upper: input('upper', shape),
    spec: input('spec', [rows, images, subject.outputs]),
    bound: input('bound', [rows, images]),
  }
}

/**
 * One step of a projected ascent of the margin max_k c_k . y - b_k (arXiv:1706.06083 with the loss of 1608.04644), or, where `all` is 1, of what all constraints together lack,
 * sum_k max(0, c_k . y - b_k): the sign of the gradient times a share of the box's width. The best point so far is kept.
 */
const stepOf = (subject: Subject, rows: number, images: number) => {
  const { x, lower, upper, spec, bound } = shapes(subject, rows, images)
  const [all, best] = [input('all', [images]), input('best', [images])]
  const kept = input('kept', x.shape)
  const size = input('size', [])
  const y = outputOf(subject, x)
  const now = violation(y, spec, bound)
  const lacking = sum(maximum(sub(sum(mul(spec, y), 2), bound), 0), 0)
  const [g] = grad(sum(select(all, lacking, now)), [x])
  const moved = sub(x, mul(mul(size, sub(upper, lower)), sign(g)))
  const better = greater(best, now)
  const images1 = reshape(better, [images, ...subject.input.map(() => 1)])
  return programOf(
    { x, lower, upper, spec, bound, all, kept, best, size },
    {
      x: minimum(maximum(moved, lower), upper) as Tensor,
      kept: select(images1, x, kept) as Tensor,
      best: select(better, now, best) as Tensor,
    },
  )
}

const lookOf = (subject: Subject, rows: number, images: number) => {
  const { x, spec, bound } = shapes(subject, rows, images)
  const y = outputOf(subject, x)
  return programOf({ x, spec, bound }, { violation: violation(y, spec, bound), y })
}

/** Rows of the targets' conjunctions, `[rows, images, outputs]` and `[rows, images]`; a short conjunction repeats its rows, missing targets the first ones. */
const specified = (targets: readonly AttackTarget[], rows: number, images: number, outputs: number) => {
  const spec = new Float32Array(rows * images * outputs)
  const bound = new Float32Array(rows * images)
  for (let i = 0; i < images; i++) {
    const { goal, conjunction } = targets[i % targets.length]
    const c = goal.conjunctions[conjunction]
    for (let k = 0; k < rows; k++) {
      const r = k % c.rows.length
      spec.set(c.rows[r], (k * images + i) * outputs)
      bound[k * images + i] = c.bounds[r]
    }
  }
  return { spec, bound }
}

/** `size` numbers of each, one after the other; where there are fewer than `images`, they repeat. */
const columns = <A>(each: readonly A[], images: number, size: number, of: (a: A) => Float32Array): Float32Array => {
  const out = new Float32Array(images * size)
  for (let i = 0; i < images; i++) out.set(of(each[i % each.length]), i * size)
  return out
}

const rowOf = (data: Data, i: number, size: number): Float32Array =>
  Float32Array.from(data.slice(i * size, (i + 1) * size))

/** Programs by how many images they take at once, and how many that should be. */
const inBatches = <P extends Pick<Metered<never, never>, 'seconds' | 'bytes'>>(
  budget: Budget,
  most: number,
  make: (images: number) => Promise<P>,
) => {
  const planned = byNumber(make)
  /** The smallest program, or one for a single image where memory does not suffice. */
  const smallest = async (): Promise<number> => {
    if (planned.has(1)) return 1
    try {
      await planned.at(FEW)
      return FEW
    } catch (e) {
      if (!(e instanceof MixtrainException && e.error.kind === 'memory')) throw e
      await planned.at(1)
      return 1
    }
  }
  return {
    at: planned.at,
    /** How many of those that are left to take: the first run tells what more would cost. */
    next: async (isFirst: boolean, left: number): Promise<number> => {
      const few = await smallest()
      if ((isFirst && !planned.has(most)) || left <= few || few < FEW) return few
      const { seconds, bytes } = await planned.at(few)
      return seconds() * (most / few) > SLOW || bytes * (most / few) > budget.memory ? few : most
    },
  }
}

/** Attacks of a network by gradient on a device, planned when first used. */
export const propertyAttack = (region: Region, budget: Budget, subject: Subject, rows: number): PropertyAttack => {
  const forward = order([outputOf(subject, input('x', [1, ...subject.input]))]).length
  const steps = inBatches(budget, MANY, async (images) => {
    const step = await budget.plan('the attack', 4 * forward + 40, () => stepOf(subject, rows, images))
    const { x, kept, best } = step.program.inputs
    return { step, banks: banksIn(region, { x, kept, best }), seconds: step.seconds, bytes: step.bytes }
  })
  const looks = inBatches(budget, LOOK, (images) =>
    budget.plan('the attack', 1.5 * forward + 40, () => lookOf(subject, rows, images)),
  )

  const ascendSome = async (
    targets: readonly AttackTarget[],
    images: number,
    until: number,
    enough: number,
  ): Promise<readonly AttackResult[]> => {
    const { step, banks } = await steps.at(images)
    const { backend } = region
    const each = (of: (a: AttackTarget) => Float32Array) => columns(targets, images, S.size(subject.input), of)
    step.write({
      ...{ lower: each((a) => a.box.lower), upper: each((a) => a.box.upper) },
      ...specified(targets, rows, images, subject.outputs),
      // Every other ascent of a conjunction of several constraints is of what they lack together.
      all: Float32Array.from({ length: images }, (_, i) => Number(rows > 1 && Math.floor(i / 2) % 2 === 1)),
    })
    const starts = each((a) => a.start)
    banks.write({ x: starts, kept: starts, best: new Float32Array(images).fill(3e38) })
    for (let t = 0; t <= STEPS; t++) {
      // The last run only looks at where the last step led.
      if (t > 0 && (2 * step.seconds() > budget.left() || budget.seconds() > until)) break
      const size = t === STEPS ? 0 : FIRST * (LAST / FIRST) ** (t / STEPS)
      await step.run({ ...banks.front(), size: Float32Array.of(size) }, banks.back())
      banks.turn()
      if (t % 8 === 7 && Array.from(await backend.read(banks.front().best)).some((v) => v <= enough)) break
    }
    const found = banks.front()
    const [points, values] = [await backend.read(found.kept), await backend.read(found.best)]
    return targets.map((target, i) => ({ target, x: rowOf(points, i, S.size(subject.input)), violation: values[i] }))
  }

  const lookSome = async (targets: readonly AttackTarget[], images: number): Promise<readonly AttackResult[]> => {
    const look = await looks.at(images)
    const x = columns(targets, images, S.size(subject.input), (a) => a.start)
    await look.run({ x, ...specified(targets, rows, images, subject.outputs) })
    const { violation: values } = await look.read()
    return targets.map((target, i) => ({ target, x: target.start, violation: values[i] }))
  }

  const inParts = async (
    { next }: { readonly next: (isFirst: boolean, left: number) => Promise<number> },
    targets: readonly AttackTarget[],
    until: number,
    some: (part: readonly AttackTarget[], images: number) => Promise<readonly AttackResult[]>,
  ) => {
    const all: AttackResult[] = []
    for (let at = 0; at < targets.length && (at === 0 || (!budget.late() && budget.seconds() <= until)); ) {
      const images = await next(at === 0, targets.length - at)
      all.push(...(await some(targets.slice(at, at + images), images)))
      at += images
    }
    return all
  }
  const ascendTo =
    (enough: number): PropertyAttack['ascend'] =>
    (targets, until = Number.POSITIVE_INFINITY) =>
      inParts(steps, targets, until, (part, images) => ascendSome(part, images, until, enough))
  return {
    ascend: ascendTo(0),
    deepen: ascendTo(Number.NEGATIVE_INFINITY),
    look: (targets, until = Number.POSITIVE_INFINITY) => inParts(looks, targets, until, lookSome),
    outputs: async (points) => {
      const all: Float32Array[] = []
      for (let at = 0; at < points.length; ) {
        const images = await looks.next(at === 0, points.length - at)
        const part = points.slice(at, at + images)
        const look = await looks.at(images)
        const { spec, bound } = look.program.inputs
        await look.run({
          x: columns(part, images, S.size(subject.input), (x) => x),
          spec: new Float32Array(S.size(spec.shape)),
          bound: new Float32Array(S.size(bound.shape)),
        })
        const { y } = await look.read()
        all.push(...part.map((_, i) => rowOf(y, i, subject.outputs)))
        at += images
      }
      return all
    },
  }
}

// ---- starts ----------------------------------------------------------------------------------------------------------

/** A point of a box from numbers in [-1, 1]. */
const within = ({ lower, upper }: Box, u: ArrayLike<number>): Float32Array =>
  lower.map((l, i) => Math.min(upper[i], Math.max(l, 0.5 * (l + upper[i]) + 0.5 * u[i] * (upper[i] - l))))

export const middle = (box: Box): Float32Array => within(box, new Float32Array(box.lower.length))

/** Random points of a box: uniform ones and, each third, a corner. */
export const scattered = (box: Box, key: Key, count: number): readonly Float32Array[] =>
  Array.from({ length: count }, (_, i) => {
    const u = uniform(fold(key, i), box.lower.length, -1, 1)
    return within(box, i % 3 === 2 ? u.map(Math.sign) : u)
  })

/** The corner of a box that is nearest to a point. */
export const corner = ({ lower, upper }: Box, x: Float32Array): Float32Array =>
  x.map((v, i) => (v - lower[i] > upper[i] - v ? upper[i] : lower[i]))
