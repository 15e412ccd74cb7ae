import type { Rounding } from '../core/rounding.ts'
import type { Budget } from '../robust/budget.ts'
import type { Branch } from './branch.ts'
import type { Subject, UnsafeProperty } from './counterexample.ts'
import type { Counterexample } from './counterexample-check.ts'
import type { Goal } from './goals.ts'
import type { Cell } from './input-splits.ts'
import type { Pool, Sized } from './plan-pool.ts'
import type { PointCheck } from './point-check.ts'
import type { PropertyAttack } from './property-attack.ts'
import type { reluBrancher } from './relu-splits.ts'
import type { Replay } from './replay.ts'
import type { Root } from './root.ts'
import type { SearchTree } from './trace.ts'

/** How a property came out. `unsat`: it holds. `sat`: it has a counterexample. */
export type Verdict = 'unsat' | 'sat' | 'unknown' | 'timeout'

/** Where the search for a decision stands. */
export interface Progress {
  readonly phase: 'attack' | 'bounds' | 'search'
  /** Case of the property, from 0. */
  readonly at: number
  /** Subproblems bounded so far, in all cases. */
  readonly bounded: number
  /** Subproblems that wait. */
  readonly open: number
  /** Least bound of what is open. */
  readonly lower: number
  readonly seconds: number
}

/** How properties of a network are decided. */
export interface DecisionOptions {
  /** Of the bounds. Default: outward, in real arithmetic; what cannot be rounded so raises. */
  readonly rounding?: Rounding
  /** Bytes of scratch and constants of one plan, and bytes of the queue. */
  readonly memory?: number
  /** Subproblems at once at most, as many as there are and as memory allows. */
  readonly batchSize?: number
  /** `auto`: by the number of inputs that are not fixed, up to 20 of them inputs, ReLUs otherwise, and in between both by turns. A network without ReLUs is always split at its inputs. */
  readonly split?: 'auto' | 'relus' | 'inputs'
  /** Starts of the first attack on each conjunction. 0: no attack. */
  readonly restarts?: number
  readonly seed?: number
  /** Whether the trees of the search are kept, as hints for a proof. Default: false. */
  readonly trace?: boolean
  /** Another program that counterexamples are replayed by before they are answered. */
  readonly replay?: Replay | undefined
}

/** Options with what they are by default. */
export type Settings = Required<Omit<DecisionOptions, 'replay'>> & Pick<DecisionOptions, 'replay'>

/** How long one decision may take, and who hears of it. */
export interface Patience {
  /** Seconds. Nothing is begun that would end later, by what it is estimated to cost. Default: 300. */
  readonly timeout?: number | undefined
  readonly progress?: ((p: Progress) => void | Promise<void>) | undefined
  /** Hears of each step of the strategy as it is begun: what the property and the network made of it, the same on every machine but for what memory and time leave out. */
  readonly said?: ((step: string) => void) | undefined
}

/** The most that properties may have, for which plans are made: constraints in a conjunction, conjunctions in a case. */
export interface PropertyExtent {
  readonly constraints: number
  readonly conjunctions: number
}

/** What is decided: a property of a network, how, and how long it may take. */
export interface PropertyOptions extends Subject, DecisionOptions, Patience {
  readonly property: UnsafeProperty
}

/** What was decided of a property, and by what. */
export interface Verification {
  readonly verdict: Verdict
  readonly counterexample: Counterexample | undefined
  /**
   * Lower bound, over the inputs of all cases, of how far each is from a counterexample: the largest excess of a constraint, less the safety
   * margin of bounds that round to nearest. Above 0 iff the verdict is unsat, and then the least double where parts of boxes were clipped off, of which no more is known; -infinity
   * while a case was not looked at.
   */
  readonly lower: number
  /** Subproblems bounded. */
  readonly bounded: number
  readonly seconds: number
  /** Why there is no verdict. */
  readonly reason: string | undefined
  /** The trees of the search that proved it, where they were kept. */
  readonly trees?: readonly SearchTree[] | undefined
}

/** An end of the search, thrown through the loops below. */
export class Ended {
  constructor(
    readonly verdict: Exclude<Verdict, 'unsat'>,
    readonly lower: number,
    readonly counterexample?: Counterexample,
    readonly reason?: string,
  ) {}
}

/** One decision: a property of a network, within a budget. */
export interface Decision {
  readonly prepared: Prepared
  readonly budget: Budget
  readonly goals: readonly Goal[]
  readonly note: (p: Pick<Progress, 'phase' | 'at' | 'open' | 'lower'>) => Promise<void>
  readonly count: (bounded: number) => void
  readonly say: (step: string) => void
}

/** What all properties of a network share: the device, and plans made once. */
export interface Prepared {
  readonly subject: Subject
  readonly options: Settings
  readonly propertyAttack: PropertyAttack
  readonly root: Root
  readonly inputs: Pool<Cell, Sized<Cell>>
  readonly relus: Pool<Branch, Sized<Branch> & Pick<Awaited<ReturnType<ReturnType<typeof reluBrancher>>>, 'root'>>
  readonly pointCheck: PointCheck
}
