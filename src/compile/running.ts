import { raise } from '../core/error.ts'
import * as S from '../core/shape.ts'
import type { Tensor } from '../core/tensor.ts'
import type { Buffer, Data } from './backend.ts'
import {
  contentsOf,
  type Graphs,
  isBuffer,
  leavesOf,
  mapped,
  type Path,
  type Results,
  type Targets,
  type Values,
} from './named.ts'
import type { Region } from './region.ts'
import type { Compiled } from './run.ts'

/** A program on a backend. Inputs stay as they were last given; a call gives those that change. */
export interface Running<I, O> {
  /** Writes inputs, runs, reads every output. */
  (values?: Values<I>): Promise<Results<O>>
  /** Writes inputs. A buffer takes the place of the program's own from now on and stays its owner's. */
  readonly write: (values: Values<I>) => void
  /** Writes inputs and runs; enqueues, does not wait. Outputs go where `into` says, this once, which must be no input; the others to `buffers`. */
  readonly run: (values?: Values<I>, into?: Targets<O>) => void
  /** `run` so many times: each output with the name and the shape of an input is that input of the next time. Nothing that was given is written over. */
  readonly repeat: (times: number, values?: Values<I>) => void
  /** Reads every output, of the last run that left it in `buffers`. */
  readonly read: () => Promise<Results<O>>
  /** Where a run leaves its outputs: the next one overwrites them. */
  readonly buffers: Results<O, Buffer>
  /** Bytes of scratch of a run. */
  readonly scratchBytes: number
}

type Leaves = ReadonlyMap<Path, Tensor>

/** Buffers of tensors by path, each made when it is first asked for. */
const places = (region: Region, leaves: Leaves) => {
  const made = new Map<Path, Buffer>()
  return (path: Path): Buffer => {
    const buffer = made.get(path) ?? region.alloc(S.size((leaves.get(path) as Tensor).shape))
    made.set(path, buffer)
    return buffer
  }
}

/** @throws where so many numbers are not what a tensor has */
const requireLength = (leaves: Leaves, path: Path, found: number): void => {
  const { shape } = leaves.get(path) as Tensor
  const length = S.size(shape)
  if (found !== length)
    raise({ kind: 'shape', op: path, message: `expected ${length} numbers (${S.show(shape)}), found ${found}` })
}

/** Numbers as a backend takes them. */
const dataOf = (value: number | ArrayLike<number>): Data =>
  value instanceof Float32Array || value instanceof Float64Array
    ? value
    : Float64Array.from(typeof value === 'number' ? [value] : value)

/** Writes contents of tensors: numbers to where `own` says; `bind` is told every buffer, also another's in its place. */
const writeTo =
  (
    region: Region,
    tensors: Graphs,
    leaves: Leaves,
    own: (path: Path) => Buffer,
    bind: (path: Path, to: Buffer) => void,
  ) =>
  (values: object): void => {
    for (const [path, value] of contentsOf(tensors, values)) {
      requireLength(leaves, path, typeof value === 'number' ? 1 : value.length)
      bind(path, isBuffer(value) ? value : own(path))
      if (!isBuffer(value)) region.backend.write(own(path), dataOf(value))
    }
  }

/** Reads all tensors. */
const readFrom = async (region: Region, tensors: Graphs, leaves: Leaves, own: (path: Path) => Buffer) => {
  const read = async (path: Path) => [path, await region.backend.read(own(path))] as const
  const data = new Map(await Promise.all([...leaves.keys()].map(read)))
  return mapped(tensors, (path) => data.get(path))
}

/** Buffers that programs share: what is written to them, all those read that were given them. */
export interface Shared<A> {
  readonly buffers: Results<A, Buffer>
  readonly write: (values: Values<A>) => void
}

/** Shared buffers in a region for tensors by name. */
export const sharedIn = <A>(region: Region, tensors: A): Shared<A> => {
  const leaves = new Map(leavesOf(tensors as Graphs))
  const own = places(region, leaves)
  return {
    buffers: mapped(tensors as Graphs, own) as Results<A, Buffer>,
    write: writeTo(region, tensors as Graphs, leaves, own, () => undefined),
  }
}

/** @throws where an input was never given */
const requireAll = (leaves: Leaves, bound: ReadonlyMap<Path, Buffer>): void => {
  const missing = [...leaves.keys()].filter((path) => !bound.has(path))
  if (missing.length === 0) return
  const message = `the input${missing.length > 1 ? 's' : ''} ${missing.join(', ')} was never given`
  raise({ kind: 'shape', op: 'program', message })
}

/** The buffers that some outputs go into. */
const targetsOf = (outputs: Graphs, leaves: Leaves, into: object): ReadonlyMap<Path, Buffer> =>
  new Map(
    contentsOf(outputs, into).map(([path, target]) => {
      if (!isBuffer(target)) return raise({ kind: 'shape', op: path, message: 'an output goes into a buffer' })
      requireLength(leaves, path, target.length)
      return [path, target] as const
    }),
  )

/** `Running` before the names of a program are its types. */
export interface Untyped {
  (values?: object): Promise<unknown>
  readonly write: (values: object) => void
  readonly run: (values?: object, into?: object) => void
  readonly repeat: (times: number, values?: object) => void
  readonly read: () => Promise<unknown>
  readonly buffers: unknown
  readonly scratchBytes: number
}

/** A compiled program of `inputs` and `outputs` with its buffers in a region. */
export const runningIn = (
  region: Region,
  { run: execute, scratchBytes }: Compiled,
  inputs: Graphs,
  outputs: Graphs,
): Untyped => {
  const [inputLeaves, outputLeaves] = [new Map(leavesOf(inputs)), new Map(leavesOf(outputs))]
  const bound = new Map<Path, Buffer>()
  const write = writeTo(region, inputs, inputLeaves, places(region, inputLeaves), (path, to) => bound.set(path, to))
  const [own, spare] = [places(region, outputLeaves), places(region, outputLeaves)]
  /** Outputs that are inputs too. */
  const carried = new Set(
    [...outputLeaves]
      .filter(([path, x]) => {
        const from = inputLeaves.get(path)
        return from !== undefined && S.equals(from.shape, x.shape)
      })
      .map(([path]) => path),
  )
  const once = (from: (path: Path) => Buffer, to: (path: Path) => Buffer): void =>
    execute([...[...inputLeaves.keys()].map(from), ...[...outputLeaves.keys()].map(to)])
  const input = (path: Path): Buffer => bound.get(path) as Buffer
  const run = (values: object = {}, into?: object): void => {
    write(values)
    requireAll(inputLeaves, bound)
    const targets = into === undefined ? undefined : targetsOf(outputs, outputLeaves, into)
    once(input, (path) => targets?.get(path) ?? own(path))
  }
  const repeat = (times: number, values: object = {}): void => {
    write(values)
    requireAll(inputLeaves, bound)
    // The last time writes where results are read, the one before it elsewhere, and so on in turn.
    const into = (left: number) => (path: Path) => (left % 2 === 1 && carried.has(path) ? spare : own)(path)
    for (let left = times - 1; left >= 0; left--) {
      const isFirst = left === times - 1
      once((path) => (!isFirst && carried.has(path) ? into(left + 1)(path) : input(path)), into(left))
    }
  }
  const read = () => readFrom(region, outputs, outputLeaves, own)
  const call = async (values?: object): Promise<unknown> => {
    run(values)
    return read()
  }
  const buffers = { get: () => mapped(outputs, own), enumerable: true }
  const running = Object.assign(call, { write, run, repeat, read, scratchBytes, buffers: undefined })
  return Object.defineProperty(running, 'buffers', buffers)
}

/** Two places for each tensor of a state that programs map to the next one: they take turns, since no output may be an input. */
export interface Banks<A> {
  /** Where the state is. */
  readonly front: () => Results<A, Buffer>
  /** Where the next one goes. */
  readonly back: () => Results<A, Buffer>
  /** The next one is the state from now on. */
  readonly turn: () => void
  /** Writes the state, all of it or some. */
  readonly write: (values: Values<A>) => void
  readonly read: () => Promise<Results<A>>
}

/** Banks in a region for tensors by name. */
export const banksIn = <A>(region: Region, state: A): Banks<A> => {
  const leaves = new Map(leavesOf(state as Graphs))
  const bank = () => {
    const at = places(region, leaves)
    let buffers: Results<A, Buffer> | undefined
    const all = (): Results<A, Buffer> => {
      buffers ??= mapped(state as Graphs, at) as Results<A, Buffer>
      return buffers
    }
    return { at, all }
  }
  let [front, back] = [bank(), bank()]
  return {
    front: () => front.all(),
    back: () => back.all(),
    turn: () => {
      ;[front, back] = [back, front]
    },
    write: (values) => writeTo(region, state as Graphs, leaves, front.at, () => undefined)(values),
    read: () => readFrom(region, state as Graphs, leaves, front.at) as Promise<Results<A>>,
  }
}
