import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { MixtrainError } from '../core/error.ts'
import type { Plan } from './plan.ts'

/** A resident block of `length` elements on a backend. Opaque: only the backend that made it knows where it is. */
export interface Buffer {
  readonly id: number
  readonly length: number
}

/** A plan made ready by one backend; runs on that backend only. */
export interface Executable {
  readonly id: number
  /** Bytes of scratch that a run needs besides its arguments. */
  readonly bytes: number
}

/** What a backend holds and has done. */
export interface Stats {
  /** Buffers allocated and not yet freed. */
  readonly live: number
  /** Bytes of those buffers. */
  readonly bytes: number
  /** The most bytes ever held at once, scratch included. */
  readonly peak: number
}

/** Numbers of a backend: float32, or float64 on the reference. */
export type Data = Float32Array | Float64Array

/**
 * The whole contract between graphs and hardware. Only a backend touches bytes.
 * `run` takes the buffers of the plan's inputs, then those of its outputs, in the plan's order; an output buffer must not be
 * one of the inputs. Calls are executed in order; `read` and `sync` wait for them.
 */
export interface Backend {
  readonly name: 'reference' | 'wasm' | 'webgpu'
  readonly dtype: 'f32' | 'f64'
  /** What is running, for reports: threads, lanes, adapter. */
  readonly description: string
  readonly threads: number
  /** Whether products and convolutions of a plan may add biases and apply relu themselves (`plan`'s option of that name). */
  readonly epilogue?: boolean
  /** Whether one loop of a plan may store several values, and several loops be one instruction (`plan`'s option of that name). */
  readonly results?: boolean
  /** Whether it repeats part of a plan as often as a value says (`plan`'s option of that name). */
  readonly rounds?: boolean
  /** Elements of one page where scratch comes in pages (`plan`'s option of that name). */
  readonly page?: number
  readonly alloc: (length: number) => Buffer
  /** @throws when the buffer was freed already or belongs to another backend. */
  readonly free: (buffer: Buffer) => void
  readonly write: (buffer: Buffer, data: Data, at?: number) => void
  readonly read: (buffer: Buffer, at?: number, length?: number) => Promise<Data>
  /** The numbers of a buffer where they lie, not to be kept: the next call may move them. Present where this process can see them. */
  readonly view?: (buffer: Buffer) => Data
  readonly compile: (plan: Plan) => TaskEither<MixtrainError, Executable>
  readonly release: (executable: Executable) => void
  readonly run: (executable: Executable, args: readonly Buffer[]) => void
  readonly sync: () => Promise<void>
  readonly stats: () => Stats
  /**
   * Where work may go on when this backend fails for good: a GPU can be lost at any time. Present where `auto` chose a GPU. Always the
   * same backend, which belongs to this one and ends with it.
   */
  readonly fallback?: TaskEither<MixtrainError, Backend>
  /** Frees everything, stops threads. Idempotent. */
  readonly dispose: () => void
}
