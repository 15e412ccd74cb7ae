import * as E from 'fp-ts/lib/Either.js'
import { broadcast, type Shape } from '../../core/shape.ts'
import type { Operand, Tensor } from '../../core/tensor.ts'
import {
  abs,
  add,
  broadcastTo,
  ceil,
  constant,
  cos,
  div,
  erf,
  exp,
  floor,
  log,
  maximum,
  minimum,
  mul,
  neg,
  pow,
  reciprocal,
  round,
  select,
  sign,
  sin,
  sqrt,
  sub,
} from '../../ops/index.ts'
import { aligned } from './axes.ts'
import { type Comparison, compared, computed, mapped, type Operation } from './known.ts'
import { DataType } from './proto.ts'
import { batched, type Floats, type Import, type Known, type NodeView } from './values.ts'
import { type Export, refuse, same } from './writer.ts'

/** Arithmetic element by element, with numpy's broadcasting. Integers and booleans are computed when the file is read. */

/** An op of one operand, whatever its axes; `operation` is what it does to numbers that are known. */
export const unary =
  (f: (x: Operand) => Operand, operation?: Operation): Import =>
  (s) => {
    const x = operation === undefined ? s.floats(0) : s.either(0)
    return x.kind === 'known' ? computed(s, operation as Operation, [x]) : onFloats(s, [x], ([v]) => f(v), operation)
  }

/** A value of a run, and its numbers where those of the operands are known. */
const onFloats = (
  s: NodeView,
  operands: readonly Floats[],
  run: (xs: readonly Operand[]) => Operand,
  operation: Operation | undefined,
): Floats => {
  const numbers = (): Known | undefined => {
    const ks = operands.map((o) => o.known?.())
    return operation !== undefined && ks.every((k) => k !== undefined) ? computed(s, operation, ks) : undefined
  }
  const met = aligned(s, operands)
  return s.emit(met, (xs) => run(repeated(met, xs)), { known: operands.some(batched) ? undefined : numbers })
}

/** What depends on the input at the full shape: linear bounds take operands as large as the result. */
const repeated = (met: readonly Floats[], xs: readonly Operand[]): readonly Operand[] => {
  if (xs.length < 2) return xs
  const shape = xs.reduce<Shape>((a, x) => E.getOrElse(() => a)(broadcast(a, x.shape)), xs[0].shape)
  return xs.map((x, i) => (batched(met[i]) ? broadcastTo(x, shape) : x))
}

/** Two operands that are both known integers, or both floats. */
export const combined = (
  s: NodeView,
  [a, b]: readonly [Known | Floats, Known | Floats],
  f: (a: Operand, b: Operand) => Operand,
  operation?: Operation,
): Known | Floats => {
  if (a.kind === 'floats' && b.kind === 'floats') return onFloats(s, [a, b], ([x, y]) => f(x, y), operation)
  const numbers = [a, b].map((v) => (v.kind === 'known' ? v : v.known?.()))
  if (operation !== undefined && numbers.every((k) => k !== undefined)) return computed(s, operation, numbers)
  return s.fail(
    `input ${a.kind === 'known' ? 0 : 1} is an integer tensor, expected float32: a Cast to float32 is missing`,
  )
}

const binary =
  (f: (a: Operand, b: Operand) => Operand, operation?: Operation): Import =>
  (s) => {
    if (s.arity !== 2) s.fail(`expected 2 inputs, found ${s.arity}`)
    return combined(s, [s.either(0), s.either(1)], f, operation)
  }

/** An op of any number of operands, folded from the left. */
const variadic =
  (f: (a: Operand, b: Operand) => Operand, operation?: Operation): Import =>
  (s) =>
    Array.from({ length: Math.max(s.arity - 1, 0) }, (_, i) => s.either(i + 1)).reduce(
      (a, b) => combined(s, [a, b], f, operation),
      s.either(0),
    )

const modulo: Import = (s) => {
  if (s.int('fmod', 0) !== 0) s.fail('attribute fmod: only 0 is supported')
  return computed(s, 'mod', [s.known(0), s.known(1)])
}

const comparison =
  (op: Comparison): Import =>
  (s) =>
    compared(s, op, s.known(0), s.known(1))

const not: Import = (s) => mapped(s, [s.known(0)], DataType.bool, (v) => Number(v === 0))

/** The elements of input 1 where the condition, which is known, holds, those of input 2 elsewhere. */
const where: Import = (s) => {
  const condition = s.known(0)
  if (condition.type !== DataType.bool) s.fail('input 0: expected booleans')
  const [a, b] = [s.either(1), s.either(2)]
  if (a.kind === 'known' && b.kind === 'known')
    return { ...mapped(s, [condition, a, b], a.type, (c, x, y) => (c === 0 ? y : x)), exact: a.exact && b.exact }
  if (a.kind === 'known' || b.kind === 'known') return s.fail('inputs 1 and 2 are of different types')
  const data = condition.data.map((c) => (c === 'N' ? s.fail('input 0 must not depend on the batch') : c))
  const mask = s.emit([], () => constant(data, condition.shape))
  return onFloats(s, [mask, a, b], ([c, x, y]) => select(c, x, y) as Operand, undefined)
}

const total = variadic((a, b) => add(a, b) as Operand, 'add')

/** A sum divided by how many it is of. */
const average: Import = (s) => {
  const all = total(s)
  return all.kind === 'floats'
    ? s.emit([all], ([x]) => div(x, s.arity) as Operand)
    : s.fail('expected float32 tensors, found integers')
}

/** A constant exponent: one number, float or integer. */
const power: Import = (s) => {
  if (s.arity !== 2) s.fail(`expected 2 inputs, found ${s.arity}`)
  const exponent = s.number(1)
  if (!Number.isFinite(exponent)) s.fail(`input 1: the exponent ${exponent} is not a finite number`)
  return s.emit([s.floats(0)], ([x]) => pow(exponent)(x))
}

export const imports: Readonly<Record<string, Import>> = {
  Abs: unary(abs, 'abs'),
  Add: binary((a, b) => add(a, b) as Operand, 'add'),
  And: comparison('and'),
  Ceil: unary(ceil, 'ceil'),
  Cos: unary(cos),
  Div: binary((a, b) => div(a, b) as Operand, 'div'),
  Equal: comparison('equal'),
  Erf: unary(erf),
  Exp: unary(exp),
  Floor: unary(floor, 'floor'),
  Greater: comparison('greater'),
  GreaterOrEqual: comparison('greaterEqual'),
  Less: comparison('less'),
  LessOrEqual: comparison('lessEqual'),
  Log: unary(log),
  Max: variadic((a, b) => maximum(a, b) as Operand, 'max'),
  Mean: average,
  Min: variadic((a, b) => minimum(a, b) as Operand, 'min'),
  Mod: modulo,
  Mul: binary((a, b) => mul(a, b) as Operand, 'mul'),
  Neg: unary(neg, 'neg'),
  Not: not,
  Or: comparison('or'),
  Pow: power,
  Reciprocal: unary(reciprocal),
  Round: unary(round, 'round'),
  Sign: unary(sign),
  Sin: unary(sin),
  Sqrt: unary(sqrt, 'sqrt'),
  Sub: binary((a, b) => sub(a, b) as Operand, 'sub'),
  Sum: total,
  Where: where,
  Xor: comparison('xor'),
}

/** An operand that depends on the input must have the batch where the result has it. */
const broadcasting =
  (op: string): Export =>
  (x, w) => {
    const rank = x.shape.length
    const astray = (i: Tensor): boolean =>
      w.moving(i) ? i.shape.length !== rank : i.shape.length > rank || (i.shape.length === rank && i.shape[0] !== 1)
    if (w.moving(x) && x.inputs.some(astray)) refuse(x, 'the operands do not leave the batch as the first axis')
    w.emit(x, op, x.inputs.map(w.ref))
  }

export const exports: Readonly<Record<string, Export>> = {
  abs: same('Abs'),
  add: broadcasting('Add'),
  div: broadcasting('Div'),
  cos: same('Cos'),
  erf: same('Erf'),
  exp: same('Exp'),
  floor: same('Floor'),
  log: same('Log'),
  maximum: broadcasting('Max'),
  minimum: broadcasting('Min'),
  mul: broadcasting('Mul'),
  neg: same('Neg'),
  reciprocal: same('Reciprocal'),
  round: same('Round'),
  sign: same('Sign'),
  sin: same('Sin'),
  sqrt: same('Sqrt'),
  stopGradient: same('Identity'),
  sub: broadcasting('Sub'),
}
