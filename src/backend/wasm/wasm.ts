import * as E from 'fp-ts/lib/Either.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { Backend, Buffer, Executable } from '../../compile/backend.ts'
import { normal, planFault } from '../../compile/checked.ts'
import type { Plan } from '../../compile/plan.ts'
import { deviceError, type MixtrainError, MixtrainException, raise, usage } from '../../core/error.ts'
import { counted } from '../../core/number.ts'
import { allocator, roundUp } from './memory.ts'
import { adaptive, type Pacing } from './pace.ts'
import { canShare, concurrency, mayWait, type Seat, startWorkers, type Workers } from './threads.ts'
import { encode } from './words.ts'

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

const PAGE = 65536
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

/** A resident block. `address` is 0 once it is freed; `run` numbers the last run that had it as an argument. */
interface Block extends Buffer {
  address: number
  run: number
}

/** A compiled program. */
interface Program extends Executable {
  readonly code: number
  /** Bytes of code, slot table and constants, one block at `code`. */
  readonly size: number
  readonly slots: number
  readonly wide: number
  readonly plan: Pick<Plan, 'slots'>
  /** Slot table entry (as an index into 32-bit memory) and argument number of every slot that is an argument. */
  readonly entries: Int32Array
  readonly inputs: number
  /** Elements of every argument. */
  readonly lengths: Int32Array
}

const elements = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1)

/**
 * The WebAssembly SIMD backend: one linear memory, one call into it per run. Results are the same bits for any number of
 * threads and on every engine, unless `fastMath` is asked for.
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
  const { machine, memory, pages, threads, relaxed, workers } = started
  const budget = pages * PAGE
  let i32 = new Int32Array(memory.buffer)
  let f32 = new Float32Array(memory.buffer)

  const grow = (end: number): number | undefined => {
    const have = memory.buffer.byteLength / PAGE
    const need = Math.ceil(end / PAGE)
    if (need > pages) return undefined
    const generous = Math.min(pages, Math.max(need, have + (have >> 3)))
    for (const to of [generous, need]) {
      try {
        memory.grow(to - have)
      } catch {
        continue
      }
      // Growth detaches the views of an unshared memory.
      i32 = new Int32Array(memory.buffer)
      f32 = new Float32Array(memory.buffer)
      return memory.buffer.byteLength
    }
    return undefined
  }
  const pacing = pace(threads, (now, before) => told?.(changeOf(now, before)))
  const heap = allocator(roundUp(machine.heapBase(), 256), memory.buffer.byteLength, grow)

  const live = new Set<Block>()
  const programs = new Map<number, Program>()
  let nextId = 1
  let runs = 0
  let bytes = 0
  let overhead = 0
  let peak = 0
  let disposed = false
  /** The arena and the kernels' scratch, both shared by all programs: runs are sequential. */
  let arena = { address: 0, bytes: 0 }
  let scratch = { address: 0, perThread: 0, shared: 0, bytes: 0 }

  const note = (resident: number, other: number) => {
    bytes += resident
    overhead += other
    peak = Math.max(peak, bytes + overhead)
  }
  const outOfMemory = (what: string, needed: number): MixtrainError => ({
    kind: 'memory',
    needed: needed + bytes + overhead,
    budget,
    what,
  })

  const own = (buffer: Buffer): Block => {
    const block = buffer as Block
    if (live.has(block)) return block
    const why = disposed
      ? 'the backend was disposed'
      : block.address === 0
        ? 'it was freed already'
        : 'it belongs to another backend'
    return raise(deviceError('wasm', `buffer ${buffer.id} is not live: ${why}`))
  }

  /** Writes the addresses of arena slots into a program's table. */
  const bindArena = (p: Program): void => {
    p.plan.slots.forEach((slot, i) => {
      if (slot.at === 'arena') i32[(p.slots >>> 2) + i] = arena.address + slot.offset * 4
    })
  }

  /** Exchanges a block for a longer one, its content not kept; the old length again when memory does not suffice. */
  const exchange = (old: { readonly address: number; readonly bytes: number }, needed: number) => {
    if (old.bytes > 0) heap.give(old.address)
    const address = heap.take(needed, 256)
    if (address !== undefined) {
      note(0, needed - old.bytes)
      return { address, bytes: needed }
    }
    return { address: old.bytes > 0 ? (heap.take(old.bytes, 256) ?? 0) : 0, bytes: old.bytes }
  }

  /** Makes the shared arena at least so long; false when memory does not suffice. */
  const growArena = (needed: number): boolean => {
    if (needed <= arena.bytes) return true
    arena = exchange(arena, needed)
    for (const p of programs.values()) bindArena(p)
    return arena.bytes >= needed
  }

  const growScratch = (perThread: number, shared: number): boolean => {
    if (perThread <= scratch.perThread && shared <= scratch.shared) return true
    const next = { perThread: Math.max(perThread, scratch.perThread), shared: Math.max(shared, scratch.shared) }
    const needed = next.perThread * threads + next.shared
    const block = exchange(scratch, needed)
    const grown = block.bytes >= needed
    scratch = grown ? { ...next, ...block } : { ...scratch, ...block }
    return grown
  }

  const compile = (plan: Plan): E.Either<MixtrainError, Executable> => {
    if (disposed) return E.left(deviceError('wasm', 'the backend was disposed'))
    const fault = planFault(plan, MAX_IMAGE)
    if (fault !== undefined) return E.left(deviceError('wasm', `malformed program: ${fault}`))
    const code = encode(normal(plan.instructions))
    const slotsAt = roundUp(code.length * 4, 64)
    const constantsAt = slotsAt + roundUp(plan.slots.length * 4, 64)
    const size = constantsAt + plan.constants.length * 4
    const address = heap.take(size, 256)
    if (address === undefined) return E.left(outOfMemory('a program', size))
    i32.set(code, address >>> 2)
    f32.set(plan.constants, (address + constantsAt) >>> 2)
    const perThread = machine.scratchOf(address)
    const shared = machine.sharedOf(address)
    const fits = growScratch(perThread, shared) && growArena(plan.arena * 4)
    if (!fits) {
      heap.give(address)
      return E.left(outOfMemory('a run', plan.arena * 4 + perThread * threads + shared))
    }
    const table = (address + slotsAt) >>> 2
    const entries: number[] = []
    plan.slots.forEach((slot, i) => {
      if (slot.at === 'constant') i32[table + i] = address + constantsAt + slot.offset * 4
      else if (slot.at === 'input') entries.push(table + i, slot.index)
      else if (slot.at === 'output') entries.push(table + i, plan.inputs.length + slot.index)
    })
    const program: Program = {
      id: nextId++,
      bytes: plan.arena * 4 + perThread * threads + shared,
      code: address,
      size,
      slots: address + slotsAt,
      wide: machine.isWide(address),
      plan: { slots: plan.slots },
      entries: Int32Array.from(entries),
      inputs: plan.inputs.length,
      lengths: Int32Array.from([...plan.inputs, ...plan.outputs], elements),
    }
    bindArena(program)
    programs.set(program.id, program)
    note(0, size)
    return E.right(program)
  }

  const programOf = (executable: Executable): Program => {
    const p = executable as Program
    return programs.get(p.id) === p
      ? p
      : raise(deviceError('wasm', `executable ${executable.id} was released or belongs to another backend`))
  }

  const checkArguments = (p: Program, args: readonly Buffer[]): void => {
    if (args.length !== p.lengths.length)
      raise(deviceError('wasm', `${args.length} arguments given, ${p.lengths.length} wanted`))
    runs++
    for (let i = 0; i < args.length; i++) {
      const block = own(args[i])
      if (block.length < p.lengths[i])
        raise(deviceError('wasm', `argument ${i} has ${block.length} elements, ${p.lengths[i]} wanted`))
      if (i >= p.inputs && block.run === runs) raise(deviceError('wasm', `output buffer ${block.id} is given twice`))
      block.run = runs
    }
  }

  const checkRange = (buffer: Buffer, at: number, length: number): void => {
    if (at < 0 || length < 0 || at + length > buffer.length)
      raise(deviceError('wasm', `elements ${at}..${at + length} of a buffer of ${buffer.length}`))
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
      if (disposed) raise(deviceError('wasm', 'the backend was disposed'))
      const address = heap.take(length * 4)
      if (address === undefined) throw new MixtrainException(outOfMemory('a buffer', length * 4))
      const block: Block = { id: nextId++, length, address, run: 0 }
      live.add(block)
      note(length * 4, 0)
      return block
    },
    free: (buffer) => {
      const block = own(buffer)
      heap.give(block.address)
      live.delete(block)
      block.address = 0
      note(-block.length * 4, 0)
    },
    write: (buffer, data, at = 0) => {
      const block = own(buffer)
      checkRange(block, at, data.length)
      f32.set(data, (block.address >>> 2) + at)
    },
    read: async (buffer, at = 0, length = buffer.length - at) => {
      const block = own(buffer)
      checkRange(block, at, length)
      const from = (block.address >>> 2) + at
      // A copy that is not backed by shared memory.
      return new Float32Array(f32.subarray(from, from + length))
    },
    compile: (plan) => TE.fromIOEither(() => compile(plan)),
    release: (executable) => {
      const p = programOf(executable)
      programs.delete(p.id)
      heap.give(p.code)
      note(0, -p.size)
    },
    run: (executable, args) => {
      const p = programOf(executable)
      checkArguments(p, args)
      const { entries } = p
      for (let i = 0; i < entries.length; i += 2) i32[entries[i]] = (args[entries[i + 1]] as Block).address
      if (threads === 1 || p.wide === 0) {
        machine.run(p.code, p.slots, scratch.address, scratch.perThread, 1)
        return
      }
      const [from, waits] = [performance.now(), machine.waits()]
      machine.run(p.code, p.slots, scratch.address, scratch.perThread, pacing.threadsFor(p.id))
      pacing.ran(p.id, performance.now() - from, machine.waits() - waits)
    },
    sync: async () => undefined,
    stats: () => ({ live: live.size, bytes, peak }),
    dispose: () => {
      if (disposed) return
      disposed = true
      live.clear()
      programs.clear()
      note(-bytes, -overhead)
      if (workers !== undefined) machine.stop()
      workers?.terminate()
    },
  }
}
