import type { Combine, Micro, Opcode } from '../../assembly/opcode.ts'
import type { Shape } from './shape.ts'

export { Combine, LoopMode, Micro, Opcode } from '../../assembly/opcode.ts'

/**
 * What an op asks of a fast backend, in terms that fuse: most ops are a scalar function, a strided view or a reduction, and a
 * chain of those is one loop (compile/plan.ts); the rest name a kernel.
 */
export type Lowering =
  /** The output has the bytes of input 0 under another shape. */
  | { readonly kind: 'alias' }
  /** out = micro(inputs...) elementwise, inputs broadcast to the shape of the output. */
  | { readonly kind: 'map'; readonly micro: Micro }
  /** out = combine of input 0 over `axes` (removed from the shape, or kept as 1). */
  | { readonly kind: 'reduce'; readonly combine: Combine; readonly axes: readonly number[] }
  /** out[i] = x[offset + sum of i_d strides_d], one stride per axis of the output. */
  | { readonly kind: 'view'; readonly offset: number; readonly strides: readonly number[] }
  /** out = fill everywhere, then each input written at its offset with the strides of the output (pad, concat). */
  | { readonly kind: 'place'; readonly fill: number | undefined; readonly offsets: readonly number[] }
  /** A kernel of its own: inputs and output slots, then `ints`, as the instruction set lists them; `work` in multiply-adds. */
  | { readonly kind: 'kernel'; readonly opcode: Opcode; readonly ints: readonly number[]; readonly work: number }

/** The same for what only a plan can lower: a body and how often it runs. */
export type PlanLowering = Lowering | { readonly kind: 'rounds' }

export const map = (micro: Micro): Lowering => ({ kind: 'map', micro })

/** f64 evaluation on plain arrays, one call per op: the oracle that every other backend is tested against. */
export type ReferenceKernel<A> = (
  out: Float64Array,
  inputs: readonly Float64Array[],
  shapes: readonly Shape[],
  outShape: Shape,
  attrs: A,
) => void
