import * as E from 'fp-ts/lib/Either.js'
import { type Micro, map } from '../core/lowering.ts'
import { apply, type Op } from '../core/op.ts'
import * as S from '../core/shape.ts'
import type { Join, Operand, Tensor } from '../core/tensor.ts'
import { scalar } from './source.ts'

type Scalar = (a: number, b: number, c: number) => number

/** f on every element, operands broadcast to the output. */
const mapReference =
  (f: Scalar) =>
  (out: Float64Array, inputs: readonly Float64Array[], shapes: readonly S.Shape[], outShape: S.Shape): void => {
    const rank = outShape.length
    const strides = shapes.map((s) => S.broadcastStrides(s, outShape))
    const at = inputs.map(() => 0)
    const index = new Array<number>(rank).fill(0)
    for (let i = 0; i < out.length; i++) {
      out[i] = f(inputs[0][at[0]], inputs[1]?.[at[1]], inputs[2]?.[at[2]])
      for (let d = rank - 1; d >= 0; d--) {
        const step = ++index[d] < outShape[d]
        for (let k = 0; k < at.length; k++) at[k] += step ? strides[k][d] : -strides[k][d] * (outShape[d] - 1)
        if (step) break
        index[d] = 0
      }
    }
  }

export const broadcastShape = (inputs: readonly S.Shape[]): E.Either<string, S.Shape> =>
  inputs.reduce<E.Either<string, S.Shape>>(
    (acc, s) => (E.isLeft(acc) ? acc : S.broadcast(acc.right, s)),
    E.right([] as S.Shape),
  )

/** The part of a record that every elementwise op shares. */
export const elementwise = <A>(rest: Omit<Op<A>, 'shape' | 'kernel'>, micro: Micro, f: Scalar): Op<A> => ({
  ...rest,
  shape: broadcastShape,
  kernel: { reference: mapReference(f), lower: () => map(micro) },
})

export const unary =
  <A>(op: Op<A>, attrs: A) =>
  <T extends Operand>(x: T): T =>
    apply(op, [x], attrs) as T

/** An operand of a binary op, or a number standing for a scalar constant. */
export type Argument = Operand | number
/** The kind of an argument: a number counts as a tensor. */
export type Arg<T> = T extends number ? Tensor : T extends Operand ? T : never

export const operand = (x: Argument): Operand => (typeof x === 'number' ? scalar(x) : x)

export const binary =
  (op: Op<undefined>) =>
  <T extends Argument, U extends Argument>(a: T, b: U): Join<Arg<T>, Arg<U>> =>
    apply(op, [operand(a), operand(b)], undefined) as Join<Arg<T>, Arg<U>>
