import type { Lowering } from '../core/lowering.ts'
import type { Tensor } from '../core/tensor.ts'
import { type Loop, results } from './loops.ts'
import type { Epilogue } from './rewrites.ts'

/** What a plan does, one step after the other, before it is placed in memory and encoded. */

/** Where a value of a body lies in a round: `stride` elements further in `store` each time. */
export interface Place {
  readonly value: Tensor
  readonly store: Tensor
  readonly at: number
  readonly stride: number
}

export type Step =
  | Loop
  | {
      readonly kind: 'rounds'
      readonly count: Tensor
      readonly per: number
      readonly most: number
      readonly round: Tensor
      /** What the body reads of what surrounds it. */
      readonly reads: readonly Tensor[]
      readonly body: readonly Step[]
      readonly places: readonly Place[]
      readonly out: Tensor
    }
  | {
      readonly kind: 'repeat'
      readonly count: Tensor
      readonly per: number
      readonly most: number
      readonly places: readonly Place[]
      /** The number of the round, which the machine writes. */
      readonly out: Tensor
    }
  | { readonly kind: 'end'; readonly reads: readonly Tensor[]; readonly out: Tensor }
  | { readonly kind: 'fill'; readonly out: Tensor; readonly value: number; readonly n: number }
  | {
      readonly kind: 'kernel'
      readonly lowering: Extract<Lowering, { kind: 'kernel' }>
      readonly inputs: readonly Tensor[]
      readonly out: Tensor
      /** Set when the kernel finishes its result itself; a bias is the last of the inputs. */
      readonly epilogue: Epilogue | undefined
    }

/** Loops that run as one, none of which touches what another writes. */
export interface Loops {
  readonly kind: 'loops'
  readonly loops: readonly Loop[]
}

/** Steps in the order in which they run. */
export type Executed = Exclude<Step, { readonly kind: 'rounds' }> | Loops

/** What a step writes. */
export const written = (s: Step | Loops): readonly Tensor[] =>
  s.kind === 'loops' ? s.loops.flatMap(results) : s.kind === 'loop' ? results(s) : [s.out]

/** What a step reads, as storage roots. */
export const touched = (s: Step | Loops, root: (x: Tensor) => Tensor): readonly Tensor[] => {
  switch (s.kind) {
    case 'fill':
      return []
    case 'loop':
      return s.inputs.map((a) => root(a.base))
    case 'loops':
      return s.loops.flatMap((l) => touched(l, root))
    case 'kernel':
      return s.inputs.map(root)
    case 'repeat':
      return [root(s.count)]
    case 'rounds':
    case 'end':
      return s.reads.map(root)
    default:
      return s satisfies never
  }
}
