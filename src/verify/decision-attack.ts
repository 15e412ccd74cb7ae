import { fold, key as keyOf } from '../core/key.ts'
import { counted } from '../core/number.ts'
import { OutOfTime } from '../robust/budget.ts'
import { type Decision, Ended, type Prepared } from './decision.ts'
import { evolve } from './evolution.ts'
import type { Goal } from './goals.ts'
import { type AttackResult, type AttackTarget, corner, middle, scattered } from './property-attack.ts'
import { another } from './root-bounds.ts'

/** Shares of the time that the first attack may take, and one look at random points; points that are looked at before any is moved. */
const [FIRST_SHARE, LOOK_SHARE, LOOKS] = [0.2, 0.01, 8192]
/** Numbers of the points that are looked at for one conjunction: among many inputs random points say nothing. */
const LOOK_NUMBERS = 2 ** 14

/** Checks the most promising points exactly. Throws the first that is a counterexample. */
const confirm = async ({ prepared }: Decision, results: readonly AttackResult[]): Promise<void> => {
  const near = results
    .filter(({ target: { goal, conjunction }, violation }) => violation <= goal.conjunctions[conjunction].near)
    .sort((p, q) => p.violation - q.violation)
  for (const { target, x } of near.slice(0, 8)) await confirmPoint(prepared, target.goal, x)
}

export const confirmPoint = async (
  { pointCheck }: Pick<Prepared, 'pointCheck'>,
  goal: Goal,
  x: ArrayLike<number>,
): Promise<void> => {
  const found = await pointCheck.check(goal.of, x)
  if (found !== undefined) throw new Ended('sat', Number.NEGATIVE_INFINITY, found)
}

/** Ends with a counterexample that its replay did not confirm, once what lies near it was tried, too; never where it must be confirmed. */
export const settle = async ({ pointCheck, options }: Pick<Prepared, 'pointCheck' | 'options'>): Promise<void> => {
  if (options.replay === undefined || options.replay.required) return
  const found = await pointCheck.unconfirmed()
  if (found !== undefined) throw new Ended('sat', Number.NEGATIVE_INFINITY, found)
}

/** Ascends, and tries the corners next to where that led. */
export const attack = async (decision: Decision, targets: readonly AttackTarget[], until: number): Promise<void> => {
  const { propertyAttack } = decision.prepared
  const results = await propertyAttack.ascend(targets, until)
  await confirm(decision, results)
  // What looked like a counterexample and was none, or could not be told, may be one further on.
  const doubtful = results.filter(({ violation }) => violation <= 0).slice(0, 8)
  if (doubtful.length > 0)
    await confirm(
      decision,
      await propertyAttack.deepen(
        doubtful.map(({ target, x }) => ({ ...target, start: x })),
        until,
      ),
    )
  const best = [...results].sort((p, q) => p.violation - q.violation).slice(0, 64)
  const corners = best.map(({ target, x }) => ({ ...target, start: corner(target.box, x) }))
  await confirm(decision, await propertyAttack.look(corners, until))
  await settle(decision.prepared)
}

const targetsOf = (goals: readonly Goal[]) =>
  goals.flatMap((goal) => goal.conjunctions.map((_, conjunction) => ({ goal, conjunction, box: goal.box })))

/** Every conjunction attacked from many starts: those of many random points that come nearest to a violation. */
export const attackAll = async (decision: Decision): Promise<void> => {
  const { prepared, budget, goals, note, say } = decision
  const { restarts, seed } = prepared.options
  if (restarts === 0) return
  const all = targetsOf(goals)
  const until = Math.max(budget.seconds(), FIRST_SHARE * (budget.seconds() + budget.left()))
  const done = () => budget.seconds() > until
  const shown = (open: number) => note({ phase: 'attack', at: 0, open, lower: Number.NEGATIVE_INFINITY })
  const size = goals[0]?.box.lower.length ?? 1
  const looks = Math.max(1, Math.min(1024, Math.floor(LOOKS / all.length), Math.floor(LOOK_NUMBERS / size)))
  const each = Math.max(1, Math.min(restarts, Math.floor((4 * LOOKS) / all.length)))
  say(`attack: ${counted(all.length, 'conjunction')}, ${each} of ${Math.max(looks, each)} points each ascended`)
  // A few conjunctions at a time, so that what is found early ends it early.
  const group = Math.max(1, Math.floor(64 / each))
  for (let from = 0; from < all.length; from += group) {
    if (from > 0 && done()) return
    await shown(all.length - from)
    const some = all.slice(from, from + group)
    const starts: AttackTarget[] = []
    for (const [i, target] of some.entries()) {
      const key = fold(keyOf(seed), from + i)
      const centre = { ...target, start: middle(target.box) }
      const points = scattered(target.box, key, Math.max(looks, each - 1)).map((start) => ({ ...target, start }))
      if (looks <= each) {
        starts.push(centre, ...points.slice(0, each - 1))
        continue
      }
      const seen = await prepared.propertyAttack.look(
        [centre, ...points],
        budget.seconds() + LOOK_SHARE * budget.left(),
      )
      await confirm(decision, seen)
      // Half of the starts are the best of those seen, half random: the best may lie in one hollow.
      const best = [...seen].sort((p, q) => p.violation - q.violation).slice(0, each >> 1)
      starts.push(centre, ...best.map(({ target }) => target), ...points.slice(0, each - 1 - best.length))
    }
    await attack(decision, starts, until)
  }
}

/** Conjunctions up to which points evolve, the share of the time left that one such attack may take, and a number that its keys are made with. */
const [EVOLVING, EVOLUTION_SHARE, EVOLUTION] = [64, 0.02, 2 ** 20]

/** An attack without gradients on all conjunctions, by other points each `time`. */
export const attackByEvolution = async (decision: Decision, time: number): Promise<void> => {
  const { prepared, budget, goals } = decision
  const targets = targetsOf(goals).map((target) => ({ ...target, start: middle(target.box) }))
  if (prepared.options.restarts === 0 || targets.length > EVOLVING) return
  const until = budget.seconds() + EVOLUTION_SHARE * budget.left()
  try {
    await evolve(
      prepared.propertyAttack,
      targets,
      fold(fold(keyOf(prepared.options.seed), EVOLUTION), time),
      () => budget.seconds() > until,
      (best) => confirm(decision, best),
    )
  } catch (e) {
    if (!another(e) && !(e instanceof OutOfTime)) throw e
  }
}
