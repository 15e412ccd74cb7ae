import { raise } from '../core/error.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import { inputNameOf } from '../ops/index.ts'
import { isPlain, type Loop, results } from './loops.ts'
import { type Executed, type Step, touched, written } from './steps.ts'

/**
 * The same steps in an order that needs less memory: whenever a step that frees at least what it allocates is ready (a weight
 * gradient, a reduction), it goes next; otherwise the order of the tape is kept. Steps that write one value keep their order.
 */
const schedule = (steps: readonly Step[], root: (x: Tensor) => Tensor, kept: ReadonlySet<Tensor>): readonly Step[] => {
  const producers = new Map<Tensor, number[]>()
  steps.forEach((s, t) => {
    for (const x of written(s)) producers.set(x, [...(producers.get(x) ?? []), t])
  })
  const reads = steps.map((s) => [...new Set(touched(s, root))].filter((x) => producers.has(x)))
  const waits = steps.map(() => 0)
  const unlocks = steps.map(() => [] as number[])
  const readers = new Map<Tensor, number>()
  steps.forEach((s, t) => {
    const before = new Set(reads[t].flatMap((x) => (x === s.out ? [] : (producers.get(x) as number[]))))
    const writers = producers.get(s.out) as number[]
    const own = writers.indexOf(t)
    if (own > 0) before.add(writers[own - 1])
    waits[t] = before.size
    for (const b of before) unlocks[b].push(t)
    for (const x of reads[t]) readers.set(x, (readers.get(x) ?? 0) + 1)
  })
  const started = new Set<Tensor>()
  /** Elements allocated less elements freed by running step t now. */
  const growth = (t: number): number => {
    const freed = reads[t].filter((x) => readers.get(x) === 1 && !kept.has(x)).reduce((n, x) => n + S.size(x.shape), 0)
    const added = written(steps[t]).reduce((n, x) => (started.has(x) ? n : n + S.size(x.shape)), 0)
    return added - freed
  }
  const ready = new Set(steps.flatMap((_, t) => (waits[t] === 0 ? [t] : [])))
  const order: Step[] = []
  while (ready.size > 0) {
    let [best, least, first] = [-1, 1, Number.POSITIVE_INFINITY]
    for (const t of ready) {
      first = Math.min(first, t)
      const g = growth(t)
      if (g < least || (g === least && t < best)) [best, least] = [t, g]
    }
    const t = least <= 0 ? best : first
    ready.delete(t)
    order.push(steps[t])
    for (const x of written(steps[t])) started.add(x)
    for (const x of reads[t]) readers.set(x, (readers.get(x) as number) - 1)
    for (const u of unlocks[t]) if (--waits[u] === 0) ready.add(u)
  }
  if (order.length < steps.length)
    return raise({
      kind: 'unsupported',
      what: 'a plan',
      reason: `${steps.length - order.length} steps wait for each other`,
    })
  return order
}

/**
 * Steps as they are executed: scheduled, bodies between `repeat` and `end`. What a body reads from outside lives until its end, what it
 * computes within one round.
 */
export const sequence = (
  steps: readonly Step[],
  root: (x: Tensor) => Tensor,
  kept: ReadonlySet<Tensor>,
): readonly Executed[] =>
  schedule(steps, root, kept).flatMap((s) => {
    if (s.kind !== 'rounds') return [s]
    const { count, per, most, round, reads, body, places, out } = s
    return [
      { kind: 'repeat', count, per, most, places, out: round },
      ...sequence(body, root, new Set([...kept, out])),
      { kind: 'end', reads, out },
    ]
  })

/**
 * The same steps with all updates last and as one: loops whose results are outputs that no step reads, computed from arguments of the
 * same size. So an optimizer passes over all parameters, gradients and moments in one instruction, as over one contiguous array.
 */
export const gathered = (
  steps: readonly Executed[],
  root: (x: Tensor) => Tensor,
  isOutput: (x: Tensor) => boolean,
): readonly Executed[] => {
  const read = new Set(steps.flatMap((s) => touched(s, root)))
  const isUpdate = (s: Executed): s is Loop =>
    s.kind === 'loop' &&
    isPlain(s) &&
    results(s).every((x) => isOutput(x) && !read.has(x)) &&
    s.inputs.some((a) => inputNameOf(root(a.base)) !== undefined && S.size(a.base.shape) === S.size(s.shape))
  const updates = steps.filter(isUpdate)
  return updates.length < 2 ? steps : [...steps.filter((s) => !isUpdate(s)), { kind: 'loops', loops: updates }]
}

/** True if an elementwise step may write its output over x, its last use: each element is read where it is written. */
export const overwrites = (s: Executed, x: Tensor, root: (x: Tensor) => Tensor): boolean =>
  s.kind === 'loop' &&
  s.reduce === undefined &&
  S.size(s.shape) === S.size(s.out.shape) &&
  S.size(x.shape) === S.size(s.out.shape) &&
  s.inputs.every((a) => root(a.base) !== x || (a.offset === 0 && S.equals(a.strides, s.outStrides)))
