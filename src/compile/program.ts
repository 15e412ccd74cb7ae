import { raise } from '../core/error.ts'
import * as S from '../core/shape.ts'
import { type Interval, isInterval, type Operand, type Tensor } from '../core/tensor.ts'
import { input } from '../ops/index.ts'
import type { Backend, Buffer, Data } from './backend.ts'
import type { Plan } from './plan.ts'
import { openRegion, type Region } from './region.ts'
import { compilePlanIn, planBytes, planFor } from './run.ts'

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
export type Values<I> = { readonly [K in keyof I]?: I[K] extends S.Shape ? Value : Values<I[K]> }

/** A function of named tensors, as data: nothing is planned or allocated before it is put on a backend. */
export interface Program<I extends Shapes, O extends Graphs> {
  readonly inputs: I
  /** The graphs of the outputs, of inputs that only this program knows. */
  readonly outputs: O
  /** What a backend would run. Made once for each. */
  readonly plan: (backend: Backend) => Plan
  /** Bytes of scratch that a run takes on a backend. */
  readonly bytes: (backend: Backend) => number
  /** Compiled, with buffers of its own; all of it ends with the region. */
  readonly on: (region: Region) => Promise<Running<I, O>>
  /** Runs once and frees everything. */
  readonly once: (backend: Backend, values: Values<I>) => Promise<Results<O>>
}

/** A program on a backend. Inputs stay as they were last given; a call gives those that change. */
export interface Running<I extends Shapes, O extends Graphs> {
  /** Writes inputs, runs, reads every output. */
  (values?: Values<I>): Promise<Results<O>>
  /** Writes inputs. A buffer takes the place of the program's own from now on and stays its owner's. */
  readonly write: (values: Values<I>) => void
  /** Writes inputs and runs; enqueues, does not wait. */
  readonly run: (values?: Values<I>) => void
  /** `run` so many times: each output with the name and the shape of an input is that input of the next time. Nothing that was given is written over. */
  readonly repeat: (times: number, values?: Values<I>) => void
  /** Where a run leaves its outputs: the next one overwrites them. */
  readonly buffers: Results<O, Buffer>
}

// ---- trees -------------------------------------------------------------------------------------------------------------

type Path = string

const isShape = (x: S.Shape | Shapes): x is S.Shape => Array.isArray(x)
const below = (path: Path, name: string): Path => (path === '' ? name : `${path}.${name}`)

/** The shapes of a tree, by path, in order. */
const shapesOf = (shapes: Shapes, path: Path = ''): readonly (readonly [Path, S.Shape])[] =>
  Object.entries(shapes).flatMap(([name, x]) =>
    isShape(x) ? [[below(path, name), x] as const] : shapesOf(x, below(path, name)),
  )

/** A tree of shapes with the value at each path. */
const built = <I extends Shapes>(shapes: I, at: (path: Path) => Tensor, path: Path = ''): Inputs<I> =>
  Object.fromEntries(
    Object.entries(shapes).map(([name, x]) => [
      name,
      isShape(x) ? at(below(path, name)) : built(x, at, below(path, name)),
    ]),
  ) as Inputs<I>

const isOperand = (x: Graphs): x is Operand => '_tag' in x && (x._tag === 'Tensor' || x._tag === 'Interval')

/** The tensors of the outputs, in order. */
const tensorsOf = (x: Graphs): readonly Tensor[] => {
  if (isOperand(x)) return isInterval(x) ? [x.lower, x.upper] : [x]
  return Object.values(x).flatMap(tensorsOf)
}

/** The outputs with a value in place of each tensor. */
const mapped = <A>(x: Graphs, value: (x: Tensor) => A): unknown => {
  if (isOperand(x)) return isInterval(x) ? { lower: value(x.lower), upper: value(x.upper) } : value(x)
  if (Array.isArray(x)) return x.map((y) => mapped(y, value))
  return Object.fromEntries(Object.entries(x).map(([name, y]) => [name, mapped(y, value)]))
}

/** Outputs that are inputs too, by name. */
const carriedOf = (outputs: Graphs, inputs: Shapes): readonly (readonly [Path, Tensor])[] =>
  isOperand(outputs) || Array.isArray(outputs)
    ? []
    : Object.entries(outputs as { readonly [name: string]: Graphs }).flatMap(([name, x]) => {
        const shape = Object.hasOwn(inputs, name) ? inputs[name] : undefined
        const same = shape !== undefined && isShape(shape) && isOperand(x) && !isInterval(x) && S.equals(x.shape, shape)
        return same ? [[name, x as Tensor] as const] : []
      })

const isBuffer = (x: unknown): x is Buffer => typeof x === 'object' && x !== null && 'id' in x && 'length' in x
const isContent = (x: unknown): x is Value =>
  typeof x === 'number' || (typeof x === 'object' && x !== null && 'length' in x)

/** The contents given, by path. @throws for a name that is no input, or a record in place of numbers. */
const contentsOf = (shapes: Shapes, values: object, path: Path = ''): readonly (readonly [Path, Value])[] =>
  Object.entries(values).flatMap(([name, value]) => {
    const [at, shape] = [below(path, name), Object.hasOwn(shapes, name) ? shapes[name] : undefined]
    if (value === undefined) return []
    if (shape === undefined)
      return raise({ kind: 'shape', op: at, message: `is no input; the inputs are ${Object.keys(shapes).join(', ')}` })
    if (!isShape(shape)) return contentsOf(shape, value as object, at)
    return isContent(value)
      ? [[at, value] as const]
      : raise({ kind: 'shape', op: at, message: `expected numbers of shape ${S.show(shape)} or a buffer` })
  })

// ---- programs ------------------------------------------------------------------------------------------------------------

/**
 * A compiled function is a value: shapes by name in, graphs by name out.
 *
 * ```ts
 * const f = program({ w: [2, 2], x: [1, 2], epsilon: [] }, ({ w, x, epsilon }) => ({ y: relu(matmul(ball(x, epsilon), w)) }))
 * const { y } = await f.once(backend, { w: [1, -1, 1, 1], x: [0.5, 0.5], epsilon: 0.1 })     // y.lower, y.upper
 * ```
 *
 * Tensors that the body closes over must be constants or parts of the graph: every other input has to be named.
 * @throws whatever the ops of the body raise.
 *
 * @example
 *   const double = program({ x: [2] }, ({ x }) => ({ y: mul(x, 2) }))
 *   const { y } = await double.once(reference(), { x: [1, 2] })
 *   y // [2, 4]
 */
export const program = <I extends Shapes, O extends Graphs>(inputs: I, body: (x: Inputs<I>) => O): Program<I, O> => {
  const shapes = new Map(shapesOf(inputs))
  const tensors = new Map([...shapes].map(([path, shape]) => [path, input(path, shape)]))
  const outputs = body(built(inputs, (path) => tensors.get(path) as Tensor))
  // A tensor may be returned under several names; it is computed once.
  const roots = [...new Set(tensorsOf(outputs))]
  const plans = new WeakMap<Backend, Plan>()
  const plan = (backend: Backend): Plan => {
    const made = plans.get(backend) ?? planFor(backend)(roots, [...tensors.values()])
    plans.set(backend, made)
    return made
  }
  // The types of results follow from those of the graphs, which the compiler cannot see through here.
  const on = async (region: Region) => {
    const { backend } = region
    const executable = await compilePlanIn(region)(plan(backend))
    const results = new Map(roots.map((x) => [x, region.alloc(S.size(x.shape))]))
    const own = new Map<Path, Buffer>()
    const bound = new Map<Path, Buffer>()
    const spares = new Map<Tensor, Buffer>()

    const place = (path: Path, value: Value): void => {
      const length = S.size(shapes.get(path) as S.Shape)
      const given = typeof value === 'number' ? 1 : value.length
      if (given !== length)
        raise({
          kind: 'shape',
          op: path,
          message: `expected ${length} numbers (${S.show(shapes.get(path) as S.Shape)}), found ${given}`,
        })
      if (isBuffer(value)) {
        bound.set(path, value)
        return
      }
      const buffer = own.get(path) ?? region.alloc(length)
      own.set(path, buffer)
      bound.set(path, buffer)
      const plain = value instanceof Float32Array || value instanceof Float64Array
      backend.write(buffer, plain ? value : Float64Array.from(typeof value === 'number' ? [value] : value))
    }
    const write = (values: Values<I>): void => {
      for (const [path, value] of contentsOf(inputs, values)) place(path, value)
    }
    const required = (): void => {
      const missing = [...shapes.keys()].filter((path) => !bound.has(path))
      if (missing.length > 0)
        raise({
          kind: 'shape',
          op: 'program',
          message: `the input${missing.length > 1 ? 's' : ''} ${missing.join(', ')} was never given`,
        })
    }
    const repeat = (times: number, values: Values<I> = {}): void => {
      write(values)
      required()
      const carried = times > 1 ? carriedOf(outputs, inputs) : []
      const spareOf = (x: Tensor): Buffer => {
        const buffer = spares.get(x) ?? region.alloc(S.size(x.shape))
        spares.set(x, buffer)
        return buffer
      }
      let into = bound
      for (let left = times - 1; left >= 0; left--) {
        // The last time writes where results are read, the one before it elsewhere, and so on in turn.
        const turned = new Map(left % 2 === 0 ? [] : carried.map(([, x]) => [x, spareOf(x)]))
        const out = (x: Tensor) => turned.get(x) ?? (results.get(x) as Buffer)
        executable.run([...shapes.keys()].map((path) => into.get(path) as Buffer).concat(roots.map(out)))
        into = new Map([...bound, ...carried.map(([path, x]) => [path, out(x)] as const)])
      }
    }
    const run = (values?: Values<I>): void => repeat(1, values)
    const call = async (values?: Values<I>): Promise<unknown> => {
      run(values)
      const read = new Map<Tensor, Data>()
      for (const [x, buffer] of results) read.set(x, await backend.read(buffer))
      return mapped(outputs, (x) => read.get(x) as Data)
    }
    return Object.assign(call, { write, run, repeat, buffers: mapped(outputs, (x) => results.get(x) as Buffer) })
  }
  const made = {
    inputs,
    outputs,
    plan,
    bytes: (backend: Backend) => planBytes(backend, plan(backend)),
    on,
    once: async (backend: Backend, values: Values<I>) => {
      const { region, close } = openRegion(backend)
      try {
        return await (await on(region))(values)
      } finally {
        close()
      }
    },
  }
  return made as unknown as Program<I, O>
}

/** How many images are wanted at once, and what they may take. */
export interface Fitting {
  readonly wanted: number
  /** Bytes of scratch. */
  readonly budget: number
  /** What is done to one image, for the error. */
  readonly what: string
  /** Of a number that may fit and the larger one that did not, the number to try. Default: the first. */
  readonly among?: (n: number, tried: number) => number
}

/**
 * The program for the largest number of images n <= wanted whose scratch fits a budget in bytes, and n. `what` names one image's work in the error; `among` takes a smaller
 * number than was tried to one of those that are wanted, not larger than that and at least 1.
 * @throws a memory error if not even one fits.
 *
 * @example
 *   const x = fitted(reference(), { wanted: 100, budget: 2e9, what: 'a batch' }, (n) => program({ x: [n, 2] }, ({ x }) => ({ y: relu(x) })))
 *   x.n // 100
 */
export const fitted = <P extends { readonly bytes: (backend: Backend) => number }>(
  backend: Backend,
  { wanted, budget, what, among = (n) => n }: Fitting,
  of: (n: number) => P,
): { readonly n: number; readonly program: P } => {
  let n = wanted
  for (;;) {
    const candidate = of(n)
    const needed = candidate.bytes(backend)
    if (needed <= budget) return { n, program: candidate }
    if (n === 1) return raise({ kind: 'memory', needed, budget, what })
    // Scratch grows linearly with the images, but for the share that does not depend on them.
    n = among(Math.max(1, Math.min(n - 1, Math.floor((n * budget) / needed))), n)
  }
}
