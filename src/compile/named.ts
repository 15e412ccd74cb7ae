import { raise } from '../core/error.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import type { Buffer, Data } from './backend.ts'

// Tensors by name, in records and arrays, nested as one likes: what a program is given and what it returns, and numbers or buffers in the place of each tensor.

/** Shapes of inputs by name, nested as one likes: `{ ...net.inputs, x: [n, 784], epsilon: [] }`. */
export interface Shapes {
  readonly [name: string]: S.Shape | Shapes
}

/** What the body of a program is given: a tensor for each shape, under the same names. */
export type Inputs<I> = { readonly [K in keyof I]: I[K] extends S.Shape ? Tensor : Inputs<I[K]> }

/** What it returns: tensors and interval tensors in records and arrays. */
export type Graphs = Operand | readonly Graphs[] | { readonly [name: string]: Graphs }

/** The graphs with A in place of each tensor; an interval tensor has its two ends. */
export type Results<O, A = Data> = O extends Tensor
  ? A
  : O extends Interval
    ? { readonly lower: A; readonly upper: A }
    : { readonly [K in keyof O]: Results<O[K], A> }

/** Content of an input: numbers in row-major order, one number for a shape of one element, or a buffer of the backend that is read in place. */
export type Value = number | ArrayLike<number> | Buffer

/** Contents by name, all of them or some. */
export type Values<I> = { readonly [K in keyof I]?: I[K] extends S.Shape | Tensor ? Value : Values<I[K]> }

/** Buffers for outputs by name, for all of them or some. */
export type Targets<O> = O extends Tensor ? Buffer : { readonly [K in keyof O]?: Targets<O[K]> }

/** Where a tensor is: the names that lead to it. */
export type Path = string

const isShape = (x: S.Shape | Shapes): x is S.Shape => Array.isArray(x)
const isOperand = (x: Graphs): x is Operand => '_tag' in x && (x._tag === 'Tensor' || x._tag === 'Interval')
const endsOf = ({ lower, upper }: Interval) => ({ lower, upper })

export const isBuffer = (x: unknown): x is Buffer => typeof x === 'object' && x !== null && 'id' in x && 'length' in x
const isContent = (x: unknown): x is Value =>
  typeof x === 'number' || (typeof x === 'object' && x !== null && 'length' in x)

const below = (path: Path, name: string): Path => (path === '' ? name : `${path}.${name}`)

/** A record of shapes with a tensor in place of each. */
export const built = <I>(shapes: I, at: (path: Path, shape: S.Shape) => Tensor, path: Path = ''): Inputs<I> =>
  Object.fromEntries(
    Object.entries(shapes as Shapes).map(([name, x]) => {
      const own = below(path, name)
      return [name, isShape(x) ? at(own, x) : built(x, at, own)]
    }),
  ) as Inputs<I>

/** The tensors of some graphs, by path, in order. */
export const leavesOf = (x: Graphs, path: Path = ''): readonly (readonly [Path, Tensor])[] => {
  if (isOperand(x)) return isInterval(x) ? leavesOf(endsOf(x), path) : [[path, x]]
  return Object.entries(x).flatMap(([name, y]: readonly [string, Graphs]) => leavesOf(y, below(path, name)))
}

/** Graphs with a value in place of each tensor. */
export const mapped = (x: Graphs, value: (path: Path, tensor: Tensor) => unknown, path: Path = ''): unknown => {
  if (isOperand(x)) return isInterval(x) ? mapped(endsOf(x), value, path) : value(path, x)
  const one = (y: Graphs, name: string | number): unknown => mapped(y, value, below(path, `${name}`))
  if (Array.isArray(x)) return x.map(one)
  return Object.fromEntries(Object.entries(x).map(([name, y]) => [name, one(y, name)]))
}

/** Room on the host for the numbers of some tensors. */
export const roomFor = <A>(tensors: A): Results<A, Float32Array> =>
  mapped(tensors as Graphs, (_, { shape }) => new Float32Array(S.size(shape))) as Results<A, Float32Array>

/** The contents given for some graphs, by path. @throws for a name that is none of theirs, or a record in place of numbers. */
export const contentsOf = (graphs: Graphs, values: object, path: Path = ''): readonly (readonly [Path, Value])[] =>
  Object.entries(values).flatMap(([name, value]) => {
    if (value === undefined) return []
    const at = below(path, name)
    const x = Object.hasOwn(graphs, name) ? (graphs as { readonly [name: string]: Graphs })[name] : undefined
    if (x === undefined)
      return raise({ kind: 'shape', op: at, message: `is no input; the inputs are ${Object.keys(graphs).join(', ')}` })
    if (!isOperand(x) || isInterval(x)) return contentsOf(x as Graphs, value as object, at)
    return isContent(value)
      ? [[at, value] as const]
      : raise({ kind: 'shape', op: at, message: `expected numbers of shape ${S.show(x.shape)} or a buffer` })
  })
