import { raise, usage } from '../core/error.ts'
import { nodeModule } from '../core/runtime.ts'
import type { Swapped } from '../train/ranks.ts'

/** The part of MPI that training needs, as functions of typed arrays. A request is kept alive, with its arrays, until it is done. */
export interface Mpi {
  readonly rank: number
  readonly size: number
  /** `Ialltoallv` of float32: from rank r come `received[r]` numbers. */
  readonly exchange: (
    send: Float32Array,
    counts: readonly number[],
    receive: Float32Array,
    received: readonly number[],
  ) => Request
  /** `Iallgatherv` of float32. */
  readonly gather: (send: Float32Array, receive: Float32Array, received: readonly number[]) => Request
  readonly gatherBytes: (send: Uint8Array, receive: Uint8Array) => Request
  /** Arrays to another rank, and as many of the same lengths from it. */
  readonly swap: (arrays: Swapped, rank: number) => Request
  readonly send: (bytes: Uint8Array, to: number) => Request
  readonly receive: (bytes: Uint8Array, from: number) => Request
  /** Ends every process of the job at once. */
  readonly abort: (code: number) => void
  readonly finalize: () => void
}

/** Whether a message has come, or gone. */
export type Request = () => boolean

/** A process of a job of several, as its launcher's environment says; undefined without one. */
export interface Launched {
  readonly size: number
  readonly launcher: 'mpirun' | 'srun'
}

type Environment = Readonly<Record<string, string | undefined>>

/** Open MPI's mpirun, or srun, which starts steps of jobs (a batch script of a job with several tasks is none). */
export const launched = (env: Environment): Launched | undefined => {
  const number = (name: string) => (/^\d+$/.test(env[name] ?? '') ? Number(env[name]) : 0)
  const world = number('OMPI_COMM_WORLD_SIZE')
  if (world > 0) return { size: world, launcher: 'mpirun' }
  const tasks = env.SLURM_STEP_NUM_TASKS === undefined ? number('SLURM_NTASKS') : number('SLURM_STEP_NUM_TASKS')
  return env.SLURM_PROCID !== undefined && /^\d+$/.test(env.SLURM_STEP_ID ?? '') && tasks > 1
    ? { size: tasks, launcher: 'srun' }
    : undefined
}

/** Open MPI 4 and 5 have the same interface for what is used here. */
const LIBRARIES = ['libmpi.so.40', 'libmpi.so']

// biome-ignore lint/suspicious/noExplicitAny: the types of koffi are not there where it is not installed
type Library = any

const loaded = async (): Promise<{ readonly lib: Library; readonly koffi: Library }> => {
  const koffi = await nodeModule<{ readonly default: Library }>('koffi').then(
    (m) => m.default,
    () =>
      raise(
        usage('this was started as several processes by MPI, for which the package koffi is needed: npm install koffi'),
      ),
  )
  for (const name of LIBRARIES)
    try {
      return { lib: koffi.load(name), koffi }
    } catch {}
  return raise(
    usage(
      `this was started as several processes, but there is no ${LIBRARIES[0]} here: install Open MPI (Debian: openmpi-bin)`,
    ),
  )
}

const TAG = 77

/** Joins the job; `guard` calls what blocks until all have. @throws usage errors where the library, or a way to the other processes, is missing. */
export const openMpi = async (
  { size: expected, launcher }: Launched,
  guard: (call: () => void) => Promise<void> = async (call) => call(),
): Promise<Mpi> => {
  const { lib, koffi } = await loaded()
  const [handle, pointer, int] = ['uintptr_t', 'void *', 'int']
  const f = (name: string, ...types: readonly string[]) => {
    const call = lib.func(name, int, types)
    return (...given: readonly unknown[]): void => {
      const code = call(...given)
      if (code !== 0) throw new Error(`${name} returned ${code}`)
    }
  }
  const of = (name: string) => koffi.address(lib.symbol(name, 'uint8_t'))
  const init = f('MPI_Init', pointer, pointer)
  await guard(() => init(null, null))
  const [world, float, byte] = ['ompi_mpi_comm_world', 'ompi_mpi_float', 'ompi_mpi_byte'].map(of)
  const asked = (name: string): number => {
    const out = new Int32Array(1)
    f(name, handle, pointer)(world, out)
    return out[0]
  }
  const [rank, size] = [asked('MPI_Comm_rank'), asked('MPI_Comm_size')]
  if (size !== expected)
    raise(
      usage(
        `${launcher} started ${expected} processes, but MPI sees ${size}: ${launcher === 'srun' ? 'add --mpi=pmix, or start it by mpirun' : 'the library is another one than that of mpirun'}`,
      ),
    )
  const test = f('MPI_Test', pointer, pointer, pointer)
  const testAll = f('MPI_Testall', int, pointer, pointer, pointer)
  const exchange = f(
    'MPI_Ialltoallv',
    pointer,
    pointer,
    pointer,
    handle,
    pointer,
    pointer,
    pointer,
    handle,
    handle,
    pointer,
  )
  const gather = f('MPI_Iallgatherv', pointer, int, handle, pointer, pointer, pointer, handle, handle, pointer)
  const send = f('MPI_Isend', pointer, int, handle, int, int, handle, pointer)
  const receive = f('MPI_Irecv', pointer, int, handle, int, int, handle, pointer)
  const counted = (counts: readonly number[]) => ({
    counts: Int32Array.from(counts),
    at: Int32Array.from(counts, (_, i) => counts.slice(0, i).reduce((a, b) => a + b, 0)),
  })
  /** Starts; the arrays live as long as the request. */
  const request = (start: (id: BigUint64Array) => void, ...alive: readonly unknown[]): Request => {
    const [id, flag] = [new BigUint64Array(1), new Int32Array(1)]
    start(id)
    return () => {
      test(id, flag, null)
      return flag[0] !== 0 && alive.length >= 0
    }
  }
  const abort = lib.func('MPI_Abort', int, [handle, int])
  return {
    rank,
    size,
    exchange: (from, sent, to, received) => {
      const [s, r] = [counted(sent), counted(received)]
      return request(
        (id) => exchange(from, s.counts, s.at, float, to, r.counts, r.at, float, world, id),
        from,
        to,
        s,
        r,
      )
    },
    gather: (from, to, received) => {
      const r = counted(received)
      return request((id) => gather(from, from.length, float, to, r.counts, r.at, float, world, id), from, to, r)
    },
    gatherBytes: (from, to) => {
      const r = counted(Array.from({ length: size }, () => from.length))
      return request((id) => gather(from, from.length, byte, to, r.counts, r.at, byte, world, id), from, to, r)
    },
    swap: ({ own, other }, to) => {
      const [ids, flag] = [new BigUint64Array(own.length + other.length), new Int32Array(1)]
      other.forEach((x, i) => {
        receive(x, x.length, float, to, TAG, world, ids.subarray(i))
      })
      own.forEach((x, i) => {
        send(x, x.length, float, to, TAG, world, ids.subarray(other.length + i))
      })
      return () => {
        testAll(ids.length, ids, flag, null)
        return flag[0] !== 0 && own.length + other.length >= 0
      }
    },
    send: (bytes, to) => request((id) => send(bytes, bytes.length, byte, to, TAG, world, id), bytes),
    receive: (bytes, from) => request((id) => receive(bytes, bytes.length, byte, from, TAG, world, id), bytes),
    abort: (code) => {
      abort(world, code)
    },
    finalize: f('MPI_Finalize'),
  }
}
