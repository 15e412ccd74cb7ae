import { roomFor } from '../compile/named.ts'
import type { Region } from '../compile/region.ts'
import { sharedIn } from '../compile/running.ts'
import { power } from '../core/number.ts'
import * as S from '../core/shape.ts'
import { ascending } from '../robust/alpha-crown.ts'
import type { Budget } from '../robust/budget.ts'
import { type Branch, codeOf, type Evaluated, excess, hasWeights, reweighed } from './branch.ts'
import type { Subject } from './counterexample.ts'
import type { Goal } from './goals.ts'
import { violationOf } from './input-splits.ts'
import { alphasOf, betasOf, encoded, evaluatedOf, lossOf, put, putRow, ranked } from './relu-batch.ts'
import { ascentOf, type BatchOptions, neuronsOf, scoreOf, trialOf } from './relu-graphs.ts'
import type { HiddenBoxes } from './root.ts'
import { lastWalkNodes } from './root-bounds.ts'

export interface ReluOptions extends BatchOptions {
  readonly steps: number
  readonly lr: number
  /** Neurons of which both branches are bounded before one is chosen. */
  readonly candidates: number
  /** Whether branches keep what they were bounded by. */
  readonly trace?: boolean
}

/** ReLU splitting on a device. */
export interface ReluBrancher {
  /** Branches of one run, multiply-adds of bounding them, and an estimate of the seconds of one ascent. */
  readonly batch: number
  readonly work: number
  readonly seconds: () => number
  /** A branch without splits, from hidden boxes and slopes by ReLU. */
  readonly root: (
    goal: Goal,
    conjunction: number,
    hidden: HiddenBoxes,
    alphas: readonly Float32Array[],
    weights: Float64Array,
  ) => Branch
  /** Raises the bounds of up to `batch` branches, and finds out how to split them. */
  readonly bound: (branches: readonly Branch[]) => Promise<readonly Branch[]>
}

/** The programs of a brancher, which share the buffers of a batch, and its host copy. */
const programsOf = async (region: Region, budget: Budget, subject: Subject, options: ReluOptions) => {
  const { layout: neurons, inputs } = neuronsOf(subject, options)
  const what = options.batch === 1 ? 'bounding one branch' : `bounding ${options.batch} branches`
  const nodes = 3 * lastWalkNodes(subject)
  const ascent = await ascending(region, budget)(what, nodes, () => ascentOf(subject, options))
  const scoring = await budget.plan(what, nodes, () => scoreOf(subject, options))
  const trying = await budget.plan(what, nodes, () => trialOf(subject, options))
  const shared = sharedIn(region, inputs)
  const { values: _, ...others } = shared.buffers
  ascent.write(others)
  scoring.write(shared.buffers)
  trying.write(shared.buffers)
  return { neurons, ascent, scoring, trying, shared, batch: roomFor(inputs) }
}

/** A brancher at work. */
interface Work extends Awaited<ReturnType<typeof programsOf>> {
  readonly region: Region
  readonly budget: Budget
  readonly subject: Subject
  readonly options: ReluOptions
}

/** What the ascents of a batch have come to: the largest bound of each branch, and what made the first above 0. */
interface Raised {
  readonly best: Float64Array
  readonly kept: (Evaluated | undefined)[]
}

/** Some updates of slopes and multipliers, until every bound is above 0. */
const ascend = async (
  { region, budget, ascent, neurons, options: { lr, trace = false } }: Work,
  count: number,
  branches: readonly Branch[],
  { best, kept }: Raised,
): Promise<void> => {
  for (let t = 0; t < count && (t === 0 || ascent.seconds() < 0.5 * budget.left()); t++) {
    await ascent.run(lr * power(0.97, t))
    // Looking means waiting; it pays now and then.
    if (t % 4 !== 3 && t < count - 1) continue
    const seen = await region.backend.read(ascent.buffers.lower)
    const now = branches.map((branch, b) => excess(seen[b], branch))
    const fresh = now.map((e, b) => trace && e > 0 && kept[b] === undefined)
    const used = fresh.includes(true) ? await ascent.evaluated() : []
    branches.forEach((branch, b) => {
      best[b] = Math.max(best[b], now[b])
      if (fresh[b]) kept[b] = evaluatedOf(neurons, used, branch, b)
    })
    if (branches.every((_, b) => best[b] > 0)) break
  }
}

/** The scores of the batch at the slopes and multipliers that the ascent has come to. */
const scored = async ({ ascent, shared, scoring }: Work) => {
  const values = await ascent.values()
  shared.write({ values })
  await scoring.run()
  return { values, ...(await scoring.read()) }
}

/** `size` numbers of the `b`-th of a batch. */
const at = (data: ArrayLike<number>, b: number, size: number): Float64Array =>
  Float64Array.from({ length: size }, (_, i) => data[b * size + i])

/** Ascends from branches; with several rows their weights move between two ascents. */
const raised = async (work: Work, given: readonly Branch[]): Promise<readonly [readonly Branch[], Raised]> => {
  const { batch, neurons, shared, ascent, subject, options } = work
  const { steps } = options
  for (let b = 0; b < options.batch; b++) put(batch, neurons, b, given[b % given.length])
  shared.write(batch)
  ascent.start(batch.values)
  const found: Raised = {
    best: new Float64Array(given.length).fill(Number.NEGATIVE_INFINITY),
    kept: given.map(() => undefined),
  }
  if (!given.some(hasWeights)) {
    await ascend(work, steps, given, found)
    return [given, found]
  }
  await ascend(work, steps >> 1, given, found)
  if (found.best.every((e) => e > 0)) {
    await ascend(work, steps - (steps >> 1), given, found)
    return [given, found]
  }
  const { slope } = await scored(work)
  const branches = given.map((branch, b) => reweighed(branch, at(slope, b, subject.outputs)))
  for (let b = 0; b < options.batch; b++) putRow(batch, b, branches[b % branches.length])
  shared.write({ spec: batch.spec, bound: batch.bound })
  await ascend(work, steps - (steps >> 1), branches, found)
  return [branches, found]
}

/** Both branches of each candidate, bounded as they are: the one whose worse half is best comes first. */
const tried = async (work: Work, found: readonly Branch[]): Promise<readonly Branch[]> => {
  const { budget, batch, neurons, shared, trying, options } = work
  const { candidates } = options
  const trials = found.flatMap((branch, i) =>
    branch.lower > 0
      ? []
      : branch.next
          .slice(0, candidates)
          .flatMap((neuron) => [false, true].map((positive) => ({ i, neuron, code: codeOf(neuron, positive) }))),
  )
  const worse = new Map<string, number>()
  for (let from = 0; from < trials.length && 4 * trying.seconds() < budget.left(); from += options.batch) {
    const some = trials.slice(from, from + options.batch)
    for (const [b, { i, code }] of some.entries()) put(batch, neurons, b, found[i], code)
    shared.write(batch)
    await trying.run()
    const { lower } = await trying.read()
    some.forEach(({ i, neuron }, b) => {
      const key = `${i}:${neuron}`
      worse.set(key, Math.min(worse.get(key) ?? Number.POSITIVE_INFINITY, excess(lower[b], found[i])))
    })
  }
  return found.map((branch, i) => {
    const gain = (neuron: number) => worse.get(`${i}:${neuron}`) ?? Number.NEGATIVE_INFINITY
    const [tested, rest] = [branch.next.slice(0, candidates), branch.next.slice(candidates)]
    return { ...branch, next: [...[...tested].sort((a, b) => gain(b) - gain(a)), ...rest] }
  })
}

/** `ReluBrancher.bound`. */
const boundBatch = async (work: Work, given: readonly Branch[]): Promise<readonly Branch[]> => {
  const { batch, neurons, subject, options } = work
  const [branches, { best, kept }] = await raised(work, given)
  const { values, lower, point, there, slope, coefficients } = await scored(work)
  const found = branches.map((branch, b): Branch => {
    const own = excess(lower[b], branch)
    return {
      ...branch,
      weights: reweighed(branch, at(slope, b, subject.outputs)).weights,
      betas: betasOf(neurons, values, branch, b),
      alphas: alphasOf(neurons, values, b),
      lower: Math.max(branch.lower, best[b], own),
      next: ranked(lossOf(batch, neurons, b, coefficients), Math.max(options.candidates, 6)),
      evaluated: kept[b] ?? (options.trace && own > 0 ? evaluatedOf(neurons, values, branch, b) : undefined),
      point: Float32Array.from(at(point, b, S.size(subject.input))),
      violation: violationOf(branch.goal, at(there, b, subject.outputs)),
    }
  })
  return options.candidates > 1 ? tried(work, found) : found
}

export const reluBrancher =
  (region: Region, budget: Budget) =>
  async (subject: Subject, options: ReluOptions): Promise<ReluBrancher> => {
    const programs = await programsOf(region, budget, subject, options)
    const work: Work = { ...programs, region, budget, subject, options }
    const { ascent, scoring, trying, neurons } = programs
    return {
      batch: options.batch,
      work: options.steps * ascent.work + scoring.work + 2 * options.candidates * trying.work,
      seconds: ascent.seconds,
      root: (goal, conjunction, boxes, alphas, weights) => ({
        goal,
        conjunction,
        hidden: boxes,
        weights,
        splits: [],
        betas: new Float32Array(0),
        alphas: Uint8Array.from(alphas.flatMap((a, r) => [...a].map((v) => encoded(v, neurons.relus[r].leak)))),
        box: goal.box,
        lower: Number.NEGATIVE_INFINITY,
        next: [],
        point: new Float32Array(S.size(subject.input)),
        violation: Number.POSITIVE_INFINITY,
        stalled: 0,
        depth: 0,
      }),
      bound: (branches) => boundBatch(work, branches),
    }
  }
