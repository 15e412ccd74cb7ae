import type { Combine, ConvSizes, LoopMode, MatmulSizes, Micro, RowSizes, WindowSizes } from '../core/lowering.ts'

/**
 * What a backend is told to do: typed records, operands named. A *slot* is an index into the slots of the plan; offsets and strides count
 * elements. `work` estimates scalar multiply-adds, by which a machine decides how many threads an instruction takes.
 */
export type Instruction =
  | LoopInstruction
  | LoopsInstruction
  | FillInstruction
  | MatmulInstruction
  | ConvInstruction
  | WindowInstruction
  | RowInstruction
  | ArgmaxInstruction
  | CompactInstruction
  | RepeatInstruction

/** How a loop walks through a slot: one stride for each dim. */
export interface View {
  readonly slot: number
  readonly offset: number
  readonly strides: readonly number[]
}

/** One operation of a loop: register `dst` becomes a function of one to three registers. */
export interface RegisterOp {
  readonly micro: Micro
  readonly dst: number
  readonly args: readonly number[]
}

/**
 * One fused loop nest over 1 to 6 dims: an elementwise program with broadcasting, any strided view, an optional reduction. Registers
 * 0 .. inputs - 1 are the inputs (1 to 16); the value is that of the last operation (0 to 24), or input 0 where there is none (a copy).
 *
 * In mode `map` the output has a stride for every dim. In mode `inner` the dims from `kept` on are reduced (out strides 0) and the result
 * is one element per point of those before. In mode `keep` the dims from `kept` to the last but one are reduced and the last is kept (out
 * stride 1): out[p, i] = combine over r of value[p, r, i].
 */
export interface LoopInstruction {
  readonly kind: 'loop'
  readonly work: number
  readonly mode: LoopMode
  readonly combine: Combine
  /** How many leading dims are kept; all of them in mode `map`. */
  readonly kept: number
  readonly dims: readonly number[]
  readonly out: View
  readonly inputs: readonly View[]
  readonly ops: readonly RegisterOp[]
  /** Inputs and temporaries. */
  readonly registers: number
  /**
   * Other values that are stored, in the same order from the start of a slot, where the mode is `map` and the output contiguous: numbers of
   * their operations, ascending, not the last. Such a slot must be no input of the loop.
   */
  readonly stored: readonly { readonly op: number; readonly slot: number }[]
}

/** Loops of mode `map` as one: threads share the tiles of all of them, and meet once. None reads or writes what another writes. */
export interface LoopsInstruction {
  readonly kind: 'loops'
  readonly work: number
  readonly loops: readonly LoopInstruction[]
}

/** n elements of `out` become `value`, a float32. */
interface FillInstruction {
  readonly kind: 'fill'
  readonly work: number
  readonly out: number
  readonly offset: number
  readonly n: number
  readonly value: number
}

/** What is done to the sums of a product before they are stored, each step rounded as the loop of its own would: relu(sums + bias). */
export interface End {
  /** The slot of a bias, one value for each column or output channel. */
  readonly bias: number | undefined
  readonly relu: boolean
}

/** out = A B, and an epilogue in plans for backends that know it. */
export interface MatmulInstruction extends MatmulSizes {
  readonly kind: 'matmul'
  readonly work: number
  readonly a: number
  readonly b: number
  readonly out: number
  readonly end: End | undefined
}

/** A convolution computes y, its adjoints x or w from the other two. Adjoints to w, and convolutions with groups, have no epilogue. */
export interface ConvInstruction extends ConvSizes {
  readonly kind: 'conv2d' | 'conv2dInput' | 'conv2dWeight'
  readonly work: number
  readonly x: number
  readonly w: number
  readonly y: number
  readonly end: End | undefined
}

/** `unfold` computes the windows of x, `fold` the x that they add up to. */
export interface WindowInstruction extends WindowSizes {
  readonly kind: 'unfold' | 'fold'
  readonly work: number
  readonly x: number
  readonly windows: number
}

/** Rows by number; `offset`: where the rows that `scatterInto` adds to begin, 0 for the others. */
export interface RowInstruction extends RowSizes {
  readonly kind: 'gather' | 'scatterAdd' | 'scatterInto'
  readonly work: number
  readonly x: number
  readonly index: number
  readonly out: number
  readonly offset: number
}

export interface ArgmaxInstruction {
  readonly kind: 'argmax'
  readonly work: number
  readonly x: number
  readonly out: number
  readonly outer: number
  readonly axis: number
  readonly inner: number
}

export interface CompactInstruction {
  readonly kind: 'compact'
  readonly work: number
  readonly x: number
  readonly out: number
  readonly dims: readonly number[]
}

/** A slot that lies `stride` elements further in the slot `store` with each round, from element `at` on. */
interface Moving {
  readonly slot: number
  readonly store: number
  readonly at: number
  readonly stride: number
}

/** The body again and again: ceil(count / per) times, `most` at most (and where the count is NaN). */
export interface RepeatInstruction {
  readonly kind: 'repeat'
  readonly work: number
  readonly count: number
  readonly per: number
  readonly most: number
  /** The slot that holds the number of the round, from 0, while the round lasts. */
  readonly round: number
  readonly moving: readonly Moving[]
  readonly body: readonly Instruction[]
}

/** All instructions in the order in which they stand, those of bodies behind their `repeat`. */
export const flat = (instructions: readonly Instruction[]): readonly Instruction[] =>
  instructions.flatMap((i) => (i.kind === 'repeat' ? [i, ...flat(i.body)] : [i]))
