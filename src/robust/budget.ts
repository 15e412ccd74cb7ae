import type { Backend, Buffer } from '../compile/backend.ts'
import type { Instruction } from '../compile/instruction.ts'
import type { Region } from '../compile/region.ts'
import { compilePlan, planBytes, planFor } from '../compile/run.ts'
import { order } from '../compile/tape.ts'
import { raise } from '../core/error.ts'
import type { Tensor } from '../core/tensor.ts'
import { dataOf } from '../ops/index.ts'

/** What is to be done next would end after the time limit, by what it is estimated to cost. */
export class OutOfTime extends Error {
  constructor(readonly what: string) {
    super(`the time left does not suffice for ${what}`)
  }
}

/** A graph to be planned: results as a function of arguments. */
export interface Graph {
  readonly inputs: readonly Tensor[]
  readonly outputs: readonly Tensor[]
}

/** A planned graph whose runs are timed. */
export interface Metered {
  /** Scratch of a run and constants, in bytes. */
  readonly bytes: number
  /** Estimate of one run: what runs took, else multiply-adds by the rate of other plans. */
  readonly seconds: () => number
  /** Multiply-adds of one run: the same on every machine. */
  readonly work: number
  /** Runs and waits. @throws OutOfTime, nothing done, where the estimate exceeds what is left. */
  readonly run: (args: readonly Buffer[]) => Promise<void>
  readonly release: () => void
}

/** A limit of time and one of memory, and what things have cost so far on this machine. */
export interface Budget {
  /** Begins to count. `tick` is called before whatever may take long, and may end it by throwing. */
  readonly start: (timeout: number, tick?: () => void | Promise<void>) => void
  readonly timeout: () => number
  readonly seconds: () => number
  readonly left: () => number
  readonly late: () => boolean
  /** Bytes of one plan. */
  readonly memory: number
  /** @throws OutOfTime where so many seconds are not left. */
  readonly afford: (seconds: number, what: string) => void
  /**
   * Makes a graph and its plan. `nodes` estimates the size of the graph before it is made.
   * @throws OutOfTime; a memory error where the plan is larger than the budget.
   */
  readonly plan: (what: string, nodes: number, make: () => Graph) => Promise<Metered>
  /** Multiply-adds in one second of a plan that was never run, by those that were. */
  readonly rate: () => number
}

/** Multiply-adds a second, before anything was measured: a slow machine's. */
const RATES = { reference: 2e7, wasm: 1e9, webgpu: 1e10 } as const
/** Seconds of graph, plan and program for each node and for each number that a graph holds, and of each instruction of a run. */
const [NODE, NUMBER, INSTRUCTION] = [3e-5, 2e-8, 1e-6]
/** Seconds of a run of which one alone says little. */
const BRIEF = 0.1
/** How much longer a first run takes: memory is touched for the first time. */
const FIRST = 1.5
/** How much longer than before something may take on a machine that does other things, too. */
const MARGIN = 1.2

/** Multiply-adds of a plan, and its instructions; what is repeated counts as often as it may be. */
export const costOf = (
  instructions: readonly Instruction[],
): { readonly work: number; readonly instructions: number } => {
  let [work, count] = [0, 0]
  for (const i of instructions) {
    work += i.work
    count += 1
    if (i.kind !== 'repeat') continue
    const body = costOf(i.body)
    const times = Math.max(1, i.most)
    work += times * body.work
    count += times * body.instructions
  }
  return { work, instructions: count }
}

/** Learns what planning and running cost from what they cost so far. */
export const budgetOf = (region: Region, memory: number): Budget => {
  const { backend } = region
  let [begun, limit] = [performance.now(), Number.POSITIVE_INFINITY]
  let breathe: () => void | Promise<void> = () => undefined
  let node = NODE
  // Graphs of one decision hold the weights of the same network.
  let held = 0
  let [rate, largest]: [number, number] = [RATES[backend.name], 0]
  const seconds = () => (performance.now() - begun) / 1000
  const left = () => limit - seconds()
  const afford = (needed: number, what: string) => {
    if (needed > left()) throw new OutOfTime(what)
  }
  /** Small runs say little about large ones, short ones of a busy machine little at all. */
  const learn = (work: number, took: number) => {
    if (work < 0.1 * largest || took <= 0) return
    largest = Math.max(largest, work)
    rate = took < BRIEF ? Math.max(work / took, rate / 3) : work / took
  }
  return {
    start: (timeout, tick = () => undefined) => {
      begun = performance.now()
      limit = timeout
      breathe = tick
    },
    timeout: () => limit,
    seconds,
    left,
    late: () => left() <= 0,
    memory,
    afford,
    rate: () => rate,
    plan: async (what, nodes, make) => {
      await breathe()
      afford((nodes + (held * NUMBER) / NODE) * node, `planning ${what}`)
      const from = performance.now()
      const { inputs, outputs } = make()
      const all = order(outputs)
      const count = all.length
      const numbers = all.reduce((n, x) => n + (dataOf(x)?.length ?? 0), 0)
      held = Math.max(held, numbers)
      afford((count + (numbers * NUMBER) / NODE) * node, `planning ${what}`)
      const plan = planFor(backend)(outputs, inputs)
      const bytes = planBytes(backend, plan) + plan.constants.length * (backend.dtype === 'f32' ? 4 : 8)
      if (bytes > memory) raise({ kind: 'memory', needed: bytes, budget: memory, what })
      const program = await compilePlan(backend)(plan)
      // A first plan is slow, since code of the planner is; it is no lesson for later ones beyond that.
      node = Math.min(8 * NODE, Math.max(NODE, (performance.now() - from) / 1000 / (count + (numbers * NUMBER) / NODE)))
      const release = once(program.release)
      region.defer(release)
      const { work, instructions } = costOf(plan.instructions)
      let seen: number | undefined
      const estimate = () => seen ?? FIRST * (INSTRUCTION * instructions + work / rate)
      return {
        bytes,
        work,
        seconds: estimate,
        run: async (args) => {
          await breathe()
          afford(MARGIN * estimate(), what)
          const start = performance.now()
          program.run(args)
          await backend.sync()
          const took = (performance.now() - start) / 1000
          // The first run is slower than others; what a busy machine makes of one run is forgotten by and by.
          seen = seen === undefined ? took : Math.max(took, 0.7 * seen)
          learn(work, took)
        },
        release,
      }
    },
  }
}

const once = (f: () => void): (() => void) => {
  let done = false
  return () => {
    if (!done) f()
    done = true
  }
}

/** Buffers of some tensors, filled from the host and read back by number. */
export interface Arguments {
  readonly all: readonly Buffer[]
  readonly write: (i: number, data: Float32Array) => void
  readonly read: (i: number) => Promise<ArrayLike<number>>
}

export const argumentsOf = (region: Region, tensors: readonly Tensor[]): Arguments => {
  const all = tensors.map((t) => region.alloc(t.shape.reduce((a, b) => a * b, 1)))
  const backend: Backend = region.backend
  return { all, write: (i, data) => backend.write(all[i], data), read: (i) => backend.read(all[i]) }
}
