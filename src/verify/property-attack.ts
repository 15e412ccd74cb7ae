import type { Region } from '../compile/region.ts'
import { order } from '../compile/tape.ts'
import { grad } from '../compile/vjp.ts'
import { MixtrainException } from '../core/error.ts'
import { fold, type Key, uniform } from '../core/key.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { greater, input, maximum, minimum, mul, reshape, select, sign, sub, sum } from '../ops/index.ts'
import { type Arguments, argumentsOf, type Budget, type Graph, type Metered } from '../robust/budget.ts'
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
const stepOf = (subject: Subject, rows: number, images: number): Graph => {
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
  return {
    inputs: [x, lower, upper, spec, bound, all, kept, best, size],
    outputs: [
      minimum(maximum(moved, lower), upper) as Tensor,
      select(images1, x, kept) as Tensor,
      select(better, now, best) as Tensor,
    ],
  }
}

const lookOf = (subject: Subject, rows: number, images: number): Graph => {
  const { x, spec, bound } = shapes(subject, rows, images)
  const y = outputOf(subject, x)
  return { inputs: [x, spec, bound], outputs: [violation(y, spec, bound), y] }
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

const columns = (
  targets: readonly AttackTarget[],
  images: number,
  size: number,
  of: (a: AttackTarget) => Float32Array,
): Float32Array => {
  const out = new Float32Array(images * size)
  for (let i = 0; i < images; i++) out.set(of(targets[i % targets.length]), i * size)
  return out
}

interface Ready {
  readonly plan: Metered
  readonly given: Arguments
  readonly results: Arguments
}

/** Attacks of a network by gradient on a device, planned when first used. */
export const propertyAttack = (region: Region, budget: Budget, subject: Subject, rows: number): PropertyAttack => {
  const { backend } = region
  const size = S.size(subject.input)
  const forward = order([outputOf(subject, input('x', [1, ...subject.input]))]).length
  const planned = new Map<string, Promise<Ready>>()
  const ready = (kind: 'step' | 'look', images: number) => {
    const key = `${kind} ${images}`
    const known = planned.get(key)
    if (known !== undefined) return known
    const make = async () => {
      let graph: Graph | undefined
      const plan = await budget.plan('the attack', (kind === 'step' ? 4 : 1.5) * forward + 40, () => {
        graph = (kind === 'step' ? stepOf : lookOf)(subject, rows, images)
        return graph
      })
      const { inputs, outputs } = graph as Graph
      return { plan, given: argumentsOf(region, inputs), results: argumentsOf(region, outputs) }
    }
    const made = make()
    planned.set(key, made)
    made.catch(() => planned.delete(key))
    return made
  }
  /** The smallest plan, or one for a single image where memory does not suffice. */
  const smallest = async (kind: 'step' | 'look'): Promise<number> => {
    if (planned.has(`${kind} 1`)) return 1
    try {
      await ready(kind, FEW)
      return FEW
    } catch (e) {
      if (!(e instanceof MixtrainException && e.error.kind === 'memory')) throw e
      await ready(kind, 1)
      return 1
    }
  }
  /** The largest batch worth its while for so many targets, given what a run of a smaller one takes. */
  const imagesFor = async (kind: 'step' | 'look', most: number, targets: number): Promise<number> => {
    const few = await smallest(kind)
    if (targets <= few || few < FEW) return few
    const { plan } = await ready(kind, few)
    if (plan.seconds() * (most / few) > SLOW || plan.bytes * (most / few) > budget.memory) return few
    return most
  }

  const ascendSome = async (
    targets: readonly AttackTarget[],
    images: number,
    until: number,
    enough: number,
  ): Promise<readonly AttackResult[]> => {
    const { plan, given, results } = await ready('step', images)
    const { spec, bound } = specified(targets, rows, images, subject.outputs)
    given.write(
      1,
      columns(targets, images, size, (a) => a.box.lower),
    )
    given.write(
      2,
      columns(targets, images, size, (a) => a.box.upper),
    )
    given.write(3, spec)
    given.write(4, bound)
    // Every other ascent of a conjunction of several constraints is of what they lack together.
    given.write(
      5,
      Float32Array.from({ length: images }, (_, i) => Number(rows > 1 && Math.floor(i / 2) % 2 === 1)),
    )
    const [x, kept, best] = [0, 6, 7]
    given.write(
      x,
      columns(targets, images, size, (a) => a.start),
    )
    given.write(
      kept,
      columns(targets, images, size, (a) => a.start),
    )
    given.write(best, new Float32Array(images).fill(3e38))
    // Points and best points take turns: no output is an input.
    let [front, back] = [[given.all[x], given.all[kept], given.all[best]], results.all]
    for (let t = 0; t <= STEPS; t++) {
      // The last run only looks at where the last step led.
      if (t > 0 && (2 * plan.seconds() > budget.left() || budget.seconds() > until)) break
      given.write(8, Float32Array.of(t === STEPS ? 0 : FIRST * (LAST / FIRST) ** (t / STEPS)))
      const [at, point, value] = front
      await plan.run([at, ...given.all.slice(1, 6), point, value, given.all[8], ...back])
      ;[front, back] = [[...back], front]
      if (t % 8 === 7 && Array.from(await backend.read(front[2])).some((v) => v <= enough)) break
    }
    const [points, values] = [await backend.read(front[1]), await backend.read(front[2])]
    // The buffers of arguments keep their order for the next call, whichever bank is in front.
    return targets.slice(0, images).map((target, i) => ({
      target,
      x: Float32Array.from(points.slice(i * size, (i + 1) * size)),
      violation: values[i],
    }))
  }

  const lookSome = async (targets: readonly AttackTarget[], images: number): Promise<readonly AttackResult[]> => {
    const { plan, given, results } = await ready('look', images)
    const { spec, bound } = specified(targets, rows, images, subject.outputs)
    given.write(
      0,
      columns(targets, images, size, (a) => a.start),
    )
    given.write(1, spec)
    given.write(2, bound)
    await plan.run([...given.all, ...results.all])
    const values = await results.read(0)
    return targets.map((target, i) => ({ target, x: target.start, violation: values[i] }))
  }

  const inParts = async (
    kind: 'step' | 'look',
    most: number,
    targets: readonly AttackTarget[],
    until: number,
    some: (part: readonly AttackTarget[], images: number) => Promise<readonly AttackResult[]>,
  ) => {
    if (targets.length === 0) return []
    const all: AttackResult[] = []
    let images = await smallest(kind)
    // The first run tells what more of them would cost.
    for (let at = 0; at < targets.length && (at === 0 || (!budget.late() && budget.seconds() <= until)); ) {
      if (at > 0 || planned.has(`${kind} ${most}`)) images = await imagesFor(kind, most, targets.length - at)
      all.push(...(await some(targets.slice(at, at + images), images)))
      at += images
    }
    return all
  }
  return {
    ascend: (targets, until = Number.POSITIVE_INFINITY) =>
      inParts('step', MANY, targets, until, (part, images) => ascendSome(part, images, until, 0)),
    deepen: (targets, until = Number.POSITIVE_INFINITY) =>
      inParts('step', MANY, targets, until, (part, images) =>
        ascendSome(part, images, until, Number.NEGATIVE_INFINITY),
      ),
    look: (targets, until = Number.POSITIVE_INFINITY) => inParts('look', LOOK, targets, until, lookSome),
    outputs: async (points) => {
      const all: Float32Array[] = []
      for (let at = 0; at < points.length; ) {
        const images =
          at === 0 && !planned.has(`look ${LOOK}`)
            ? await smallest('look')
            : await imagesFor('look', LOOK, points.length - at)
        const { plan, given, results } = await ready('look', images)
        const data = new Float32Array(images * size)
        for (let i = 0; i < images; i++) data.set(points[Math.min(at + i, points.length - 1)], i * size)
        given.write(0, data)
        await plan.run([...given.all, ...results.all])
        const y = await results.read(1)
        for (let i = 0; i < images && at + i < points.length; i++)
          all.push(Float32Array.from({ length: subject.outputs }, (_, j) => y[i * subject.outputs + j]))
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
