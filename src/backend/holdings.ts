import type { Buffer, Executable, Stats } from '../compile/backend.ts'
import { deviceError, raise } from '../core/error.ts'

// What the backends that run on devices keep books about in the same way: which blocks and programs are theirs and live, and how many bytes these take.

/** A resident block: what a backend's buffers are. */
export interface Held extends Buffer {
  /** The last run that had it as an argument. */
  run: number
  freed?: boolean
}

/** A program made ready, and what its arguments must be. */
export interface HeldProgram extends Executable {
  readonly inputs: number
  /** Elements of every argument, inputs first. */
  readonly lengths: ArrayLike<number>
}

export interface Holdings<B extends Held, P extends HeldProgram> {
  /** A number that nothing else of this backend has. */
  readonly id: () => number
  /** Counts bytes of buffers, and others. */
  readonly note: (resident: number, other: number) => void
  /** Bytes that are held, buffers and others. */
  readonly held: () => number
  readonly add: (block: B) => void
  readonly remove: (block: B) => void
  /** The block of a buffer. @throws where it was freed, or is not of this backend */
  readonly own: (buffer: Buffer) => B
  /** `own`, with such a range of elements. @throws where it has none */
  readonly within: (buffer: Buffer, at: number, length: number) => B
  readonly programs: ReadonlyMap<number, P>
  readonly keep: (program: P) => void
  readonly drop: (program: P) => void
  /** @throws where it was released, or is not of this backend */
  readonly program: (executable: Executable) => P
  /** The blocks of a run's arguments, and whether each was among those before it. @throws for arguments that a program cannot take */
  readonly begin: (program: P, args: readonly Buffer[], each: (block: B, i: number, again: boolean) => void) => void
  readonly isDisposed: () => boolean
  readonly blocks: ReadonlySet<B>
  readonly stats: () => Stats
  /** Forgets everything. */
  readonly dispose: () => void
}

/** Elements of a tensor. */
export const elements = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1)

/** The books of a backend, which names itself in errors. */
export const holdings = <B extends Held, P extends HeldProgram>(name: string): Holdings<B, P> => {
  const blocks = new Set<B>()
  const programs = new Map<number, P>()
  const fail = (message: string): never => raise(deviceError(name, message))
  let [nextId, runs, bytes, overhead, peak, disposed] = [1, 0, 0, 0, 0, false]
  const own = (buffer: Buffer): B => {
    const block = buffer as B
    if (blocks.has(block)) return block
    const why = disposed
      ? 'the backend was disposed'
      : block.freed
        ? 'it was freed already'
        : 'it belongs to another backend'
    return fail(`buffer ${buffer.id} is not live: ${why}`)
  }
  const note = (resident: number, other: number): void => {
    bytes += resident
    overhead += other
    peak = Math.max(peak, bytes + overhead)
  }
  return {
    id: () => nextId++,
    note,
    held: () => bytes + overhead,
    add: (block) => {
      blocks.add(block)
      note(block.length * 4, 0)
    },
    remove: (block) => {
      blocks.delete(block)
      block.freed = true
      note(-block.length * 4, 0)
    },
    own,
    within: (buffer, at, length) => {
      const block = own(buffer)
      if (at < 0 || length < 0 || at + length > block.length)
        fail(`elements ${at}..${at + length} of a buffer of ${block.length}`)
      return block
    },
    programs,
    keep: (program) => programs.set(program.id, program),
    drop: (program) => programs.delete(program.id),
    program: (executable) => {
      const program = executable as P
      return programs.get(program.id) === program
        ? program
        : fail(`executable ${executable.id} was released or belongs to another backend`)
    },
    begin: ({ lengths, inputs }, args, each) => {
      if (args.length !== lengths.length) fail(`${args.length} arguments given, ${lengths.length} wanted`)
      runs++
      for (let i = 0; i < args.length; i++) {
        const block = own(args[i])
        if (block.length < lengths[i]) fail(`argument ${i} has ${block.length} elements, ${lengths[i]} wanted`)
        const again = block.run === runs
        if (i >= inputs && again) fail(`output buffer ${block.id} is given twice`)
        block.run = runs
        each(block, i, again)
      }
    },
    isDisposed: () => disposed,
    blocks,
    stats: () => ({ live: blocks.size, bytes, peak }),
    dispose: () => {
      disposed = true
      blocks.clear()
      programs.clear()
      note(-bytes, -overhead)
    },
  }
}
