import * as E from 'fp-ts/lib/Either.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { Backend, Executable } from '../../compile/backend.ts'
import { planFault } from '../../compile/checked.ts'
import type { Plan } from '../../compile/plan.ts'
import { deviceError, type MixtrainError, raise, usage } from '../../core/error.ts'
import { counted } from '../../core/number.ts'
import { holdings } from '../holdings.ts'
import { linearMemory, PAGE } from './memory.ts'
import { adaptive, type Pacing } from './pace.ts'
import { type Block, bindArguments, type Program, place, programAt, scratchIn } from './program.ts'
import { canShare, concurrency, mayWait, type Seat, startWorkers, type Workers } from './threads.ts'

/** Threads and arithmetic of the WASM backend. */
export interface WasmOptions {
  /** The most threads, this one included. Default: what the machine and the quota of the process give, at most 8. */
  readonly threads?: number | undefined
  /** How many of them each run takes. Default: `adaptive`, fewer while they wait for processors that other programs have. */
  readonly pace?: Pacing | undefined
  /** Told in a sentence when it computes on fewer threads, or on more again, because other programs have the processors. */
  readonly told?: ((text: string) => void) | undefined
  /** Allows fused multiply-adds where the engine has them (relaxed SIMD): faster, but bits then depend on the engine. */
  readonly fastMath?: boolean | undefined
  /** Limit of linear memory in bytes. Default: what the engine grants, at most 4 GiB. */
  readonly maxBytes?: number | undefined
}

/** The exports of assembly/index.ts. */
interface Machine {
  readonly setup: (control: number, id: number, count: number, wait: number) => void
  readonly run: (code: number, slots: number, scratch: number, scratchBytes: number, count: number) => void
  readonly isWide: (code: number) => number
  readonly scratchOf: (code: number) => number
  readonly sharedOf: (code: number) => number
  readonly waits: () => number
  readonly stop: () => void
  readonly heapBase: () => number
}

type Variant = 'single' | 'single-relaxed' | 'threads' | 'threads-relaxed'

/** One page less than 4 GiB: an address one past the end still fits 32 bits. */
const MAX_PAGES = 65535
const START_PAGES = 64
const DEFAULT_THREADS = 8
const MAX_THREADS = 64
/** Elements of one image of a convolution that assembly/conv.ts can still address as a tile of eight. */
const MAX_IMAGE = 2 ** 25
/** The control block of assembly/threads.ts. */
const CONTROL = 1024

const source = async (variant: Variant): Promise<string> => {
  switch (variant) {
    case 'single':
      return (await import('../generated/wasm-single.ts')).base64
    case 'single-relaxed':
      return (await import('../generated/wasm-single-relaxed.ts')).base64
    case 'threads':
      return (await import('../generated/wasm-threads.ts')).base64
    case 'threads-relaxed':
      return (await import('../generated/wasm-threads-relaxed.ts')).base64
    default:
      return variant satisfies never
  }
}

const bytesOf = (base64: string): Uint8Array<ArrayBuffer> => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))

/** The best variant that this engine validates. */
const chooseModule = async (
  shared: boolean,
  fastMath: boolean,
): Promise<{ readonly bytes: Uint8Array<ArrayBuffer>; readonly relaxed: boolean }> => {
  const plain: Variant = shared ? 'threads' : 'single'
  if (fastMath) {
    const bytes = bytesOf(await source(`${plain}-relaxed`))
    if (WebAssembly.validate(bytes)) return { bytes, relaxed: true }
  }
  return { bytes: bytesOf(await source(plain)), relaxed: false }
}

/** A memory that may grow to `pages`, or to less when the engine does not grant so much address space. */
const makeMemory = (
  pages: number,
  shared: boolean,
): { readonly memory: WebAssembly.Memory; readonly pages: number } => {
  const initial = Math.min(START_PAGES, pages)
  try {
    return { memory: new WebAssembly.Memory({ initial, maximum: pages, shared }), pages }
  } catch (e) {
    if (pages <= 4096) throw e
    return makeMemory(pages >> 1, shared)
  }
}

interface Started {
  readonly machine: Machine
  readonly memory: WebAssembly.Memory
  readonly pages: number
  readonly threads: number
  readonly relaxed: boolean
  readonly workers: Workers | undefined
}

const startWith = async (threads: number, fastMath: boolean, maxPages: number): Promise<Started> => {
  const shared = threads > 1
  const { bytes, relaxed } = await chooseModule(shared, fastMath)
  const module = await WebAssembly.compile(bytes)
  const { memory, pages } = makeMemory(maxPages, shared)
  const instance = await WebAssembly.instantiate(module, { env: { memory } })
  const machine = instance.exports as unknown as Machine
  machine.setup(CONTROL, 0, threads, mayWait ? 1 : 0)
  const seats = Array.from(
    { length: threads - 1 },
    (_, i): Seat => ({ module, memory, control: CONTROL, id: i + 1, count: threads }),
  )
  const workers = shared ? await startWorkers(seats) : undefined
  return { machine, memory, pages, threads, relaxed, workers }
}

const start = async (options: WasmOptions): Promise<Started> => {
  const wanted = options.threads ?? Math.min(await concurrency(), DEFAULT_THREADS)
  const threads = canShare ? Math.min(Math.max(1, wanted), MAX_THREADS) : 1
  const pages = Math.min(MAX_PAGES, Math.max(START_PAGES, Math.floor((options.maxBytes ?? MAX_PAGES * PAGE) / PAGE)))
  const fastMath = options.fastMath ?? false
  if (threads === 1) return startWith(1, fastMath, pages)
  // Where workers cannot be started (a strict content policy, a sandbox) one thread still computes the same bits.
  return startWith(threads, fastMath, pages).catch(() => startWith(1, fastMath, pages))
}

/**
 * The WebAssembly SIMD backend: one linear memory, one call into it per run. Results are the same bits for any number of
 * threads and on every engine, unless `fastMath` is asked for. Errors, as a Left: threads that are no positive number, memory that is none, an engine that lacks what it needs.
 *
 * @example
 *   const backend = await orThrow(wasm({ threads: 2 }))
 */
export const wasm = (options: WasmOptions = {}): TE.TaskEither<MixtrainError, Backend> => {
  const { threads, maxBytes } = options
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1))
    return TE.left(usage(`threads must be a positive integer, not ${threads}`))
  if (maxBytes !== undefined && !(maxBytes > 0)) return TE.left(usage(`maxBytes must be positive, not ${maxBytes}`))
  return TE.tryCatch(
    async () => backendOf(await start(options), options),
    (e) => deviceError('wasm', e instanceof Error ? e.message : String(e)),
  )
}

const count = (threads: number): string => counted(threads, 'thread')

/** Why the number of threads changed. */
const changeOf = (threads: number, before: number): string =>
  threads < before
    ? `threads wait for processors that other programs have: on with ${count(threads)} of ${before} (results do not depend on it)`
    : `the processors are free again: on with ${count(threads)}`

const backendOf = (started: Started, { pace = adaptive, told }: WasmOptions): Backend => {
  const { machine, pages, threads, relaxed, workers } = started
  const pacing = pace(threads, (now, before) => told?.(changeOf(now, before)))
  const memory = linearMemory(started.memory, pages, machine.heapBase())
  const books = holdings<Block, Program>('wasm')
  const scratch = scratchIn(memory, books, threads)
  const outOfMemory = (what: string, needed: number): MixtrainError => ({
    kind: 'memory',
    needed: needed + books.held(),
    budget: pages * PAGE,
    what,
  })
  const ended = deviceError('wasm', 'the backend was disposed')

  const compile = (plan: Plan): E.Either<MixtrainError, Executable> => {
    if (books.isDisposed()) return E.left(ended)
    const fault = planFault(plan, MAX_IMAGE)
    if (fault !== undefined) return E.left(deviceError('wasm', `malformed program: ${fault}`))
    const placed = place(memory, plan)
    if ('size' in placed) return E.left(outOfMemory('a program', placed.size))
    const { address } = placed
    const [perThread, shared] = [machine.scratchOf(address), machine.sharedOf(address)]
    const bytes = plan.arena * 4 + perThread * threads + shared
    if (!(scratch.growScratch(perThread, shared) && scratch.growArena(plan.arena * 4))) {
      memory.heap.give(address)
      return E.left(outOfMemory('a run', bytes))
    }
    const program = programAt(placed, plan, { id: books.id(), bytes, wide: machine.isWide(address) })
    scratch.bind(program)
    books.keep(program)
    books.note(0, program.size)
    return E.right(program)
  }

  return {
    name: 'wasm',
    dtype: 'f32',
    description: `WebAssembly SIMD, ${count(threads)}${relaxed ? ', fast math' : ''}`,
    threads,
    epilogue: true,
    results: true,
    rounds: true,
    alloc: (length) => {
      if (books.isDisposed()) raise(ended)
      const address = memory.heap.take(length * 4)
      if (address === undefined) return raise(outOfMemory('a buffer', length * 4))
      const block: Block = { id: books.id(), length, address, run: 0 }
      books.add(block)
      return block
    },
    free: (buffer) => {
      const block = books.own(buffer)
      memory.heap.give(block.address)
      books.remove(block)
    },
    write: (buffer, data, at = 0) => {
      memory.f32().set(data, (books.within(buffer, at, data.length).address >>> 2) + at)
    },
    read: async (buffer, at = 0, length = buffer.length - at) => {
      const from = (books.within(buffer, at, length).address >>> 2) + at
      // A copy that is not backed by shared memory.
      return new Float32Array(memory.f32().subarray(from, from + length))
    },
    view: (buffer) => {
      const from = books.within(buffer, 0, buffer.length).address >>> 2
      return memory.f32().subarray(from, from + buffer.length)
    },
    compile: (plan) => TE.fromIOEither(() => compile(plan)),
    release: (executable) => {
      const program = books.program(executable)
      books.drop(program)
      memory.heap.give(program.code)
      books.note(0, -program.size)
    },
    run: (executable, args) => {
      const program = books.program(executable)
      books.begin(program, args, () => undefined)
      bindArguments(memory, program, args as readonly Block[])
      const [at, perThread] = scratch.place()
      if (threads === 1 || program.wide === 0) {
        machine.run(program.code, program.slots, at, perThread, 1)
        return
      }
      const [from, waits] = [performance.now(), machine.waits()]
      machine.run(program.code, program.slots, at, perThread, pacing.threadsFor(program.id))
      pacing.ran(program.id, performance.now() - from, machine.waits() - waits)
    },
    sync: async () => undefined,
    stats: books.stats,
    dispose: () => {
      if (books.isDisposed()) return
      books.dispose()
      if (workers !== undefined) machine.stop()
      workers?.terminate()
    },
  }
}
