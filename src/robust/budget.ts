import type { Instruction } from '../compile/instruction.ts'
import { type Graphs, leavesOf, type Targets, type Values } from '../compile/named.ts'
import type { Program, Running } from '../compile/program.ts'
import type { Region } from '../compile/region.ts'
import type { Untyped } from '../compile/running.ts'
import { order } from '../compile/tape.ts'
import { raise } from '../core/error.ts'
import { dataOf } from '../ops/index.ts'

/** What is to be done next would end after the time limit, by what it is estimated to cost. */
export class OutOfTime extends Error {
  constructor(readonly what: string) {
    super(`the time left does not suffice for ${what}`)
  }
}

/** A compiled program whose runs are timed. */
export interface Metered<I, O extends Graphs> extends Pick<Running<I, O>, 'write' | 'read' | 'buffers'> {
  readonly program: Program<I, O>
  /** Scratch of a run and constants, in bytes. */
  readonly bytes: number
  /** Estimate of one run: what runs took, else multiply-adds by the rate of other programs. */
  readonly seconds: () => number
  /** Multiply-adds of one run: the same on every machine. */
  readonly work: number
  /** `Running.run`, and waits. @throws OutOfTime, nothing run, where the estimate exceeds what is left. */
  readonly run: (values?: Values<I>, into?: Targets<O>) => Promise<void>
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
   * Makes a program and its plan. `nodes` estimates the size of the graph before it is made.
   * @throws OutOfTime; a memory error where the plan is larger than the budget.
   */
  readonly plan: <I, O extends Graphs>(what: string, nodes: number, make: () => Program<I, O>) => Promise<Metered<I, O>>
  /** Multiply-adds in one second of a plan that was never run, by those that were. */
  readonly rate: () => number
}

/** A program whose names are no types. */
interface Untimed extends Pick<Program<unknown, Graphs>, 'outputs' | 'plan' | 'bytes'> {
  readonly on: (region: Region) => Promise<Untyped>
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
  const start = (timeout: number, tick: () => void | Promise<void> = () => undefined) => {
    begun = performance.now()
    limit = timeout
    breathe = tick
  }
  const plan = async (what: string, nodes: number, make: () => Untimed) => {
    await breathe()
    afford((nodes + (held * NUMBER) / NODE) * node, `planning ${what}`)
    const from = performance.now()
    const program = make()
    const all = order(leavesOf(program.outputs).map(([, x]) => x))
    const count = all.length
    const numbers = all.reduce((n, x) => n + (dataOf(x)?.length ?? 0), 0)
    held = Math.max(held, numbers)
    afford((count + (numbers * NUMBER) / NODE) * node, `planning ${what}`)
    const planned = program.plan(backend)
    const bytes = program.bytes(backend) + planned.constants.length * (backend.dtype === 'f32' ? 4 : 8)
    if (bytes > memory) raise({ kind: 'memory', needed: bytes, budget: memory, what })
    const running = await program.on(region)
    // A first plan is slow, since code of the planner is; it is no lesson for later ones beyond that.
    node = Math.min(8 * NODE, Math.max(NODE, (performance.now() - from) / 1000 / (count + (numbers * NUMBER) / NODE)))
    const { work, instructions } = costOf(planned.instructions)
    let seen: number | undefined
    const estimate = () => seen ?? FIRST * (INSTRUCTION * instructions + work / rate)
    return {
      program,
      bytes,
      work,
      seconds: estimate,
      write: running.write,
      read: running.read,
      get buffers() {
        return running.buffers
      },
      run: async (values?: object, into?: object) => {
        await breathe()
        afford(MARGIN * estimate(), what)
        if (values !== undefined) running.write(values)
        const before = performance.now()
        running.run(undefined, into)
        await backend.sync()
        const took = (performance.now() - before) / 1000
        // The first run is slower than others; what a busy machine makes of one run is forgotten by and by.
        seen = seen === undefined ? took : Math.max(took, 0.7 * seen)
        learn(work, took)
      },
    }
  }
  return {
    start,
    timeout: () => limit,
    seconds,
    left,
    late: () => left() <= 0,
    memory,
    afford,
    rate: () => rate,
    // The types of values and results are those of the program, which the compiler cannot see through here.
    plan: plan as unknown as Budget['plan'],
  }
}

/** What is planned for a number of images or rows, when it is first asked for; again where that failed. */
export interface Planned<A> {
  readonly has: (n: number) => boolean
  readonly at: (n: number) => Promise<A>
}

export const byNumber = <A>(make: (n: number) => Promise<A>): Planned<A> => {
  const made = new Map<number, Promise<A>>()
  return {
    has: (n) => made.has(n),
    at: (n) => {
      const known = made.get(n) ?? make(n)
      if (!made.has(n)) known.catch(() => made.delete(n))
      made.set(n, known)
      return known
    },
  }
}
