import type { Operand, Tensor } from '../../core/tensor.ts'
import { abs, add, div, exp, log, maximum, minimum, mul, neg, sqrt, sub } from '../../ops/index.ts'
import { checkBroadcast } from './axes.ts'
import type { Import } from './values.ts'
import { type Export, refuse, same } from './writer.ts'

/** Arithmetic element by element, with numpy's broadcasting. */

export const unary =
  (f: (x: Operand) => Operand): Import =>
  (s) =>
    s.emit([s.floats(0)], ([x]) => f(x))
const binary =
  (f: (a: Operand, b: Operand) => Operand): Import =>
  (s) => {
    if (s.arity !== 2) s.fail(`expected 2 inputs, found ${s.arity}`)
    const [a, b] = [s.floats(0), s.floats(1)]
    checkBroadcast(s, a, b)
    return s.emit([a, b], ([x, y]) => f(x, y))
  }

/** An op of any number of operands, folded from the left. */
const variadic =
  (f: (a: Operand, b: Operand) => Operand): Import =>
  (s) =>
    Array.from({ length: Math.max(s.arity - 1, 0) }, (_, i) => s.floats(i + 1)).reduce((a, b) => {
      checkBroadcast(s, a, b)
      return s.emit([a, b], ([x, y]) => f(x, y))
    }, s.floats(0))

export const imports: Readonly<Record<string, Import>> = {
  Abs: unary(abs),
  Add: binary((a, b) => add(a, b) as Operand),
  Div: binary((a, b) => div(a, b) as Operand),
  Exp: unary(exp),
  Log: unary(log),
  Max: variadic((a, b) => maximum(a, b) as Operand),
  Min: variadic((a, b) => minimum(a, b) as Operand),
  Mul: binary((a, b) => mul(a, b) as Operand),
  Neg: unary(neg),
  Sqrt: unary(sqrt),
  Sub: binary((a, b) => sub(a, b) as Operand),
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
  exp: same('Exp'),
  log: same('Log'),
  maximum: broadcasting('Max'),
  minimum: broadcasting('Min'),
  mul: broadcasting('Mul'),
  neg: same('Neg'),
  sqrt: same('Sqrt'),
  stopGradient: same('Identity'),
  sub: broadcasting('Sub'),
}
