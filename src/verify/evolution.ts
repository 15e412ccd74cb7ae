import { fold, type Key, uniform } from '../core/key.ts'
import type { AttackResult, AttackTarget, PropertyAttack } from './property-attack.ts'

/** Points of a generation, over all targets, and of one target at least; how many of them are parents of the next, one in so many. */
const [POINTS, FEWEST, PARENTS] = [4096, 256, 16]
/** Generations; how far children lie from their parent at first, as a share of the box, and how that shrinks; the share of coordinates that move a tenth of it. */
const [GENERATIONS, REACH, SHRINK, NEAR] = [16, 0.5, 0.75, 0.3]

/** What evolves without gradients: the best points seen so far of one target. */
type Elite = readonly AttackResult[]

const children = (target: AttackTarget, parents: Elite, count: number, reach: number, key: Key): Float32Array[] => {
  const { lower, upper } = target.box
  const size = lower.length
  const u = uniform(key, 2 * count * size, -1, 1)
  return Array.from({ length: count }, (_, k) => {
    const parent = parents[k % parents.length]?.x
    return lower.map((l, i) => {
      const [step, kind] = [u[2 * (k * size + i)], u[2 * (k * size + i) + 1]]
      const width = upper[i] - l
      const at =
        parent === undefined
          ? l + 0.5 * (step + 1) * width
          : parent[i] + (kind < 2 * NEAR - 1 ? 0.1 : 1) * step * reach * width
      return Math.min(upper[i], Math.max(l, at))
    })
  })
}

/**
 * Looks at random points of each target's box, then at points around the best of those, ever nearer: an evolution strategy (mu + lambda) with a step that shrinks. Where outputs are
 * nearly level a gradient's sign leads every start into the same corner; this keeps many places in view. `seen` hears of each generation's best points and may end it by throwing.
 */
export const evolve = async (
  { look }: Pick<PropertyAttack, 'look'>,
  targets: readonly AttackTarget[],
  key: Key,
  late: () => boolean,
  seen: (best: readonly AttackResult[]) => Promise<void>,
): Promise<void> => {
  const count = Math.max(FEWEST, Math.floor(POINTS / targets.length))
  let elites: readonly Elite[] = targets.map(() => [])
  for (let g = 0; g < GENERATIONS && !late(); g++) {
    const reach = REACH * SHRINK ** Math.max(0, g - 1)
    const own = fold(key, g)
    const points = targets.flatMap((target, t) =>
      children(target, elites[t], count, reach, fold(own, t)).map((start) => ({ ...target, start })),
    )
    const found = await look(points)
    elites = targets.map((_, t) =>
      [...elites[t], ...found.slice(t * count, (t + 1) * count)]
        .sort((p, q) => p.violation - q.violation)
        .slice(0, count / PARENTS),
    )
    await seen(elites.flatMap((e) => e.slice(0, 1)))
  }
}
