import * as E from 'fp-ts/lib/Either.js'
import { interval, lowerOf, type Op, upperOf } from '../core/op.ts'
import { roundUp } from '../core/rounding.ts'
import type { Interval, Operand, Tensor } from '../core/tensor.ts'
import { addOp, divOp, greater, maximum, minimum, mul, mulOp, select, subOp } from './elementwise.ts'
import type { Argument } from './maker.ts'
import { lifted, magnitude } from './outward.ts'
import { expOp, logOp, sigmoidOp, tanhOp } from './smooth.ts'

/**
 * What the records of activations are made of that networks in files have besides relu, leaky relu, sigmoid and tanh. All but erf run as what they expand to, so they are
 * fused and have the same bits on every runtime.
 */

export type Function1 = (x: Tensor) => Tensor

/** A unary op that runs as the graph f, with derivative df. */
export const smooth = <A>(
  name: string,
  make: (attrs: A) => { readonly f: Function1; readonly df: Function1 },
  rest: Pick<Op<A>, 'interval' | 'relax'> & Partial<Pick<Op<A>, 'domain' | 'nonnegative' | 'outward'>>,
  check: (attrs: A) => string | undefined = () => undefined,
): Op<A> => ({
  name,
  shape: ([x], attrs) => {
    const wrong = check(attrs)
    return wrong === undefined ? E.right(x) : E.left(wrong)
  },
  vjp: (ct, [x], _, attrs) => [mul(ct, make(attrs).df(x))],
  kernel: { expand: ([x], attrs) => make(attrs).f(x) },
  ...rest,
})

// ---- enclosures --------------------------------------------------------------------------------------------------------

/** Functions in interval arithmetic that holds in real arithmetic: what follows is composed of them, and enclosed step by step. */
export const enclosed = {
  add: lifted(addOp, undefined),
  sub: lifted(subOp, undefined),
  mul: lifted(mulOp, undefined),
  div: lifted(divOp, undefined),
  exp: lifted(expOp, undefined),
  log: lifted(logOp, undefined),
  tanh: lifted(tanhOp, undefined),
  sigmoid: lifted(sigmoidOp, undefined),
} as const

export type Enclosure = (x: Tensor) => Interval

/** An enclosure cut off where a function does not go. */
export const within =
  (f: Enclosure, low: Argument, high: Argument): Enclosure =>
  (x) => {
    const { lower, upper } = f(x)
    return interval(maximum(lower, low) as Tensor, minimum(upper, high) as Tensor)
  }

/** A function that is one thing above 0 and another elsewhere. */
export const aboveZero = (x: Tensor, above: Operand, elsewhere: Operand): Interval => {
  const is = greater(x, 0)
  return interval(
    select(is, lowerOf(above), lowerOf(elsewhere)) as Tensor,
    select(is, upperOf(above), upperOf(elsewhere)) as Tensor,
  )
}

/**
 * What is assumed of implementations of functions that are composed of several: each step rounds, exp, log, tanh, sigmoid and erf are off by as much as
 * they may be by themselves (ops/smooth.ts), and the sum of all that is at most 32 units in the last place of the size that a function says.
 */
export const COMPOSED = 32
/** Sizes: of the operand, and of a number that a result is a difference from. */
export const ofOperand = ([x]: readonly Operand[], box: Interval): Tensor =>
  maximum(magnitude(x), magnitude(box)) as Tensor
export const atLeast =
  (size: number) =>
  (_: readonly Operand[], box: Interval): Tensor =>
    maximum(magnitude(box), roundUp(size)) as Tensor
