import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Backend, Buffer, Data, Executable } from '../../compile/backend.ts'
import type { Plan } from '../../compile/plan.ts'
import { deviceError, type MixtrainError, MixtrainException, raise } from '../../core/error.ts'
import { type Acceptance, type OpenGpu, openGpu } from './adapter.ts'
import { pageLength } from './pages.ts'
import { makePipelines } from './pipeline.ts'
import { BASES, type Binding, type Dispatch, MAX_ELEMENTS, type ProgramLimits, programOf } from './program.ts'
import { watch } from './watch.ts'

export interface WebGpuOptions {
  /** Which adapters will do. Default: any, software ones too. */
  readonly accept?: Acceptance | undefined
  /** A device to work on instead of one of our own: a page may share it. It is not destroyed by `dispose`. */
  readonly device?: GPUDevice | undefined
  /** Whether products go through tiles in workgroup memory. Default: unless the adapter is software. */
  readonly tiles?: boolean | undefined
  /** Lower limits than the device's, to try what another device would do: bytes of a binding and of a buffer (4 KiB at least), bindings of a dispatch, workgroups along a dim of one. */
  readonly limits?: Partial<Pick<ProgramLimits, 'bindingBytes' | 'bindings' | 'groups'>> | undefined
}

/** Usage flags by the WebGPU specification: the global names of them are missing in Node. */
const COPY_SRC = 0x4
const COPY_DST = 0x8
const UNIFORM = 0x40
const STORAGE = 0x80
const MAP_READ = 0x1

/** Uniforms of consecutive dispatches lie so far apart: no device asks for more. */
const UNIFORM_STRIDE = 256
/** Argument lists whose bind groups are kept: a trainer's two banks take turns. */
const REMEMBERED = 4

/** Bytes of a buffer of so many elements; whole vec4<f32>, and never none. */
const bytesOf = (length: number): number => Math.max(16, Math.ceil(length / 4) * 16)

/** Elements of each page of a store of so many, the last one perhaps empty: an operand without elements may begin at the end. */
const pagesOf = (length: number, page: number): readonly number[] =>
  Array.from({ length: Math.floor(length / page) + 1 }, (_, i) => Math.min(page, length - i * page))

interface Block extends Buffer {
  /** Its pages; undefined once it is freed. */
  gpu: readonly GPUBuffer[] | undefined
  /** The last run that had it as an argument. */
  run: number
}

interface Step {
  readonly pipeline: GPUComputePipeline
  /** Number of its list of bindings in `Program.bindings`. */
  readonly group: number
  readonly grid: readonly [number, number, number]
}

interface Groups {
  /** Which arena they show. */
  readonly arena: number
  readonly list: readonly GPUBindGroup[]
}

interface Program extends Executable {
  readonly steps: readonly Step[]
  /** The different lists of bindings of its dispatches. */
  readonly bindings: readonly (readonly Binding[])[]
  readonly bases: GPUBuffer
  readonly basesGroup: GPUBindGroup
  readonly constants: readonly GPUBuffer[]
  readonly ownBytes: number
  /** By the ids of the arguments. */
  readonly groups: Map<string, Groups>
  readonly inputs: number
  readonly lengths: readonly number[]
}

const elements = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1)

const floats = (data: Data): Float32Array<ArrayBuffer> =>
  data instanceof Float32Array && data.buffer instanceof ArrayBuffer
    ? (data as Float32Array<ArrayBuffer>)
    : Float32Array.from(data)

/**
 * The WebGPU backend, f32: a plan becomes a list of dispatches, decoded once; a run is one command buffer with one compute pass and
 * reads nothing back. Reductions are trees in a fixed order, so one device gives the same bits every time; different devices may
 * round differently (see wgsl-math.ts for what WGSL guarantees).
 *
 * Errors on the device show up later than the call that caused them: `compile` gives them as a Left, `read` and `sync` reject with
 * them, every other call throws what is known by then. A lost device stays lost.
 */
export const webgpu =
  (options: WebGpuOptions = {}): TaskEither<MixtrainError, Backend> =>
  async () => {
    const { device } = options
    const opened =
      device === undefined
        ? await openGpu(options.accept ?? 'any')
        : E.right<MixtrainError, OpenGpu>({ device, description: 'a given device', software: false })
    return E.map((gpu: OpenGpu) => backendOf(gpu, device === undefined, options))(opened)
  }

const backendOf = ({ device, description, software }: OpenGpu, owned: boolean, options: WebGpuOptions): Backend => {
  const { tiles = !software } = options
  const { queue } = device
  const most = (name: keyof ProgramLimits & keyof NonNullable<WebGpuOptions['limits']>, own: number): number =>
    Math.min(own, options.limits?.[name] ?? own)
  const limits: ProgramLimits = {
    bindingBytes: most(
      'bindingBytes',
      Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize),
    ),
    bindings: most('bindings', device.limits.maxStorageBuffersPerShaderStage),
    groups: most('groups', device.limits.maxComputeWorkgroupsPerDimension),
    tiles,
  }
  const page = pageLength(limits.bindingBytes)
  const pipelines = makePipelines(device)

  const live = new Set<Block>()
  const programs = new Map<number, Program>()
  let nextId = 1
  let runs = 0
  let bytes = 0
  let overhead = 0
  let peak = 0
  let disposed = false
  /** All programs share one arena: runs are sequential. `id` changes whenever it moves. */
  let arena: { readonly id: number; readonly gpu: readonly GPUBuffer[]; readonly length: number } = {
    id: 0,
    gpu: [],
    length: 0,
  }

  const { check, settle, take, end } = watch(device, () => bytes + overhead)

  // ---- memory ------------------------------------------------------------------------------------------------------
  const note = (resident: number, other: number): void => {
    bytes += resident
    overhead += other
    peak = Math.max(peak, bytes + overhead)
  }

  const own = (buffer: Buffer): Block & { gpu: readonly GPUBuffer[] } => {
    const block = buffer as Block
    if (live.has(block)) return block as Block & { gpu: readonly GPUBuffer[] }
    const why = disposed
      ? 'the backend was disposed'
      : block.gpu === undefined && 'run' in block
        ? 'it was freed already'
        : 'it belongs to another backend'
    return raise(deviceError('webgpu', `buffer ${buffer.id} is not live: ${why}`))
  }

  const takePages = (length: number, usage: number, what: string): readonly GPUBuffer[] =>
    pagesOf(length, page).map((n) => take(bytesOf(n), usage, what))

  const destroy = (buffers: readonly GPUBuffer[]): void => {
    for (const b of buffers) b.destroy()
  }

  /** Pages that are full stay; a last one that is not, and what is missing, is made anew. */
  const growArena = async (length: number): Promise<void> => {
    if (length <= arena.length && arena.gpu.length > 0) return
    const before = arena
    const full = Math.floor(before.length / page)
    const fresh = pagesOf(length, page)
      .slice(full)
      .map((n) => take(bytesOf(n), STORAGE, 'the scratch of a run'))
    await settle(Promise.resolve()).catch((e) => {
      destroy(fresh)
      throw e
    })
    // Another compilation may have grown it meanwhile.
    if (arena !== before) {
      destroy(fresh)
      return growArena(length)
    }
    destroy(before.gpu.slice(full))
    note(0, (length - before.length) * 4)
    arena = { id: nextId++, gpu: [...before.gpu.slice(0, full), ...fresh], length }
  }

  /** The parts of a range of elements that lie on one page each. */
  const partsOf = (at: number, length: number) => {
    const parts: { readonly page: number; readonly at: number; readonly from: number; readonly length: number }[] = []
    for (let done = 0; done < length; ) {
      const start = at + done
      const n = Math.min(length - done, page - (start % page))
      parts.push({ page: Math.floor(start / page), at: start % page, from: done, length: n })
      done += n
    }
    return parts
  }

  const checkRange = (buffer: Buffer, at: number, length: number): void => {
    if (at < 0 || length < 0 || at + length > buffer.length)
      raise(deviceError('webgpu', `elements ${at}..${at + length} of a buffer of ${buffer.length}`))
  }

  // ---- programs ----------------------------------------------------------------------------------------------------
  /** The different lists of bindings, and the number of each dispatch's. */
  const listsOf = (dispatches: readonly Dispatch[]) => {
    const keys = new Map<string, number>()
    const lists: (readonly Binding[])[] = []
    const numbers = dispatches.map(({ bindings }) => {
      const key = JSON.stringify(bindings)
      const known = keys.get(key)
      if (known !== undefined) return known
      keys.set(key, lists.length)
      return lists.push(bindings) - 1
    })
    return { lists, numbers }
  }

  const compile = async (plan: Plan): Promise<Executable> => {
    check()
    const decoded = programOf(plan, limits)
    if (E.isLeft(decoded)) return raise(decoded.left)
    const { dispatches, arena: scratch } = decoded.right
    const made = await settle(Promise.all(dispatches.map((d) => pipelines.get(d.source, d.bindings.length))))
    await growArena(scratch)
    const constants = takePages(plan.constants.length, STORAGE | COPY_DST, 'constants')
    const numbers32 = Float32Array.from(plan.constants)
    for (const p of partsOf(0, numbers32.length)) queue.writeBuffer(constants[p.page], 0, numbers32, p.from, p.length)
    const words = new Int32Array((Math.max(1, dispatches.length) * UNIFORM_STRIDE) / 4)
    dispatches.forEach((d, i) => {
      words.set(d.bases, (i * UNIFORM_STRIDE) / 4)
    })
    const bases = take(words.byteLength, UNIFORM | COPY_DST, 'uniforms')
    queue.writeBuffer(bases, 0, words)
    const { lists, numbers } = listsOf(dispatches)
    const ownBytes = words.byteLength + bytesOf(plan.constants.length)
    note(0, ownBytes)
    const program: Program = {
      id: nextId++,
      bytes: scratch * 4,
      steps: dispatches.map((d, i) => ({ pipeline: made[i], group: numbers[i], grid: d.grid })),
      bindings: lists,
      bases,
      basesGroup: device.createBindGroup({
        layout: pipelines.basesLayout,
        entries: [{ binding: 0, resource: { buffer: bases, size: BASES * 4 } }],
      }),
      constants,
      ownBytes,
      groups: new Map(),
      inputs: plan.inputs.length,
      lengths: [...plan.inputs, ...plan.outputs].map(elements),
    }
    programs.set(program.id, program)
    try {
      await settle(Promise.resolve())
    } catch (e) {
      drop(program)
      throw e
    }
    return program
  }

  const drop = (p: Program): void => {
    programs.delete(p.id)
    p.bases.destroy()
    destroy(p.constants)
    note(0, -p.ownBytes)
  }

  const liveProgram = (executable: Executable): Program => {
    const p = executable as Program
    return programs.get(p.id) === p
      ? p
      : raise(deviceError('webgpu', `executable ${executable.id} was released or belongs to another backend`))
  }

  const bindGroups = (p: Program, buffers: readonly (readonly GPUBuffer[])[]): readonly GPUBindGroup[] =>
    p.bindings.map((list) =>
      device.createBindGroup({
        layout: pipelines.layoutOf(list.length),
        entries: list.map((b, binding) => {
          const store = b.at === 'argument' ? buffers[b.index] : b.at === 'arena' ? arena.gpu : p.constants
          return { binding, resource: { buffer: store[b.page] } }
        }),
      }),
    )

  /** The bind groups for these arguments, kept for the next run with the same ones. */
  const groupsOf = (
    p: Program,
    blocks: readonly Block[],
    buffers: readonly (readonly GPUBuffer[])[],
    fresh: boolean,
  ): readonly GPUBindGroup[] => {
    if (fresh) return bindGroups(p, buffers)
    const key = blocks.map((b) => b.id).join(' ')
    const known = p.groups.get(key)
    if (known?.arena === arena.id) return known.list
    p.groups.delete(key)
    const oldest = p.groups.keys().next()
    if (p.groups.size >= REMEMBERED && !oldest.done) p.groups.delete(oldest.value)
    const list = bindGroups(p, buffers)
    p.groups.set(key, { arena: arena.id, list })
    return list
  }

  const run = (p: Program, args: readonly Buffer[]): void => {
    if (args.length !== p.lengths.length)
      raise(deviceError('webgpu', `${args.length} arguments given, ${p.lengths.length} wanted`))
    runs++
    const blocks = args.map(own)
    const encoder = device.createCommandEncoder()
    const copies: GPUBuffer[] = []
    const buffers = blocks.map((block, i) => {
      if (block.length < p.lengths[i])
        raise(deviceError('webgpu', `argument ${i} has ${block.length} elements, ${p.lengths[i]} wanted`))
      const repeated = block.run === runs
      block.run = runs
      if (!repeated) return block.gpu
      if (i >= p.inputs) raise(deviceError('webgpu', `output buffer ${block.id} is given twice`))
      // One buffer must not be bound twice for writing, and all bindings are: the second input becomes a copy.
      const copy = takePages(block.length, STORAGE | COPY_DST, 'a copy of an argument')
      copy.forEach((c, k) => {
        encoder.copyBufferToBuffer(block.gpu[k], 0, c, 0, c.size)
      })
      copies.push(...copy)
      return copy
    })
    const groups = groupsOf(p, blocks, buffers, copies.length > 0)
    const pass = encoder.beginComputePass()
    let pipeline: GPUComputePipeline | undefined
    let group = -1
    p.steps.forEach((s, i) => {
      if (s.pipeline !== pipeline) pass.setPipeline(s.pipeline)
      if (s.group !== group) pass.setBindGroup(0, groups[s.group])
      pass.setBindGroup(1, p.basesGroup, [i * UNIFORM_STRIDE])
      pass.dispatchWorkgroups(...s.grid)
      pipeline = s.pipeline
      group = s.group
    })
    pass.end()
    queue.submit([encoder.finish()])
    destroy(copies)
  }

  const readPart = async (from: GPUBuffer, at: number, length: number): Promise<Float32Array> => {
    const size = length * 4
    const staging = take(size, MAP_READ | COPY_DST, 'a read')
    try {
      const encoder = device.createCommandEncoder()
      encoder.copyBufferToBuffer(from, at * 4, staging, 0, size)
      queue.submit([encoder.finish()])
      await settle(staging.mapAsync(1))
      return new Float32Array(staging.getMappedRange().slice(0))
    } finally {
      staging.destroy()
    }
  }

  const read = async ({ gpu }: { gpu: readonly GPUBuffer[] }, at: number, length: number): Promise<Float32Array> => {
    const parts = partsOf(at, length)
    const [first] = parts
    if (parts.length === 1) return readPart(gpu[first.page], first.at, length)
    const all = new Float32Array(length)
    for (const p of parts) all.set(await readPart(gpu[p.page], p.at, p.length), p.from)
    return all
  }

  return {
    name: 'webgpu',
    dtype: 'f32',
    epilogue: true,
    page,
    description: `WebGPU on ${description}${software ? ' (software)' : ''}`,
    threads: 1,
    alloc: (length) => {
      check()
      if (length > MAX_ELEMENTS)
        raise({ kind: 'memory', needed: length * 4, budget: MAX_ELEMENTS * 4, what: 'a buffer' })
      const gpu = takePages(length, STORAGE | COPY_SRC | COPY_DST, 'a buffer')
      const block: Block = { id: nextId++, length, gpu, run: 0 }
      live.add(block)
      note(length * 4, 0)
      return block
    },
    free: (buffer) => {
      const block = own(buffer)
      destroy(block.gpu)
      live.delete(block)
      ;(block as Block).gpu = undefined
      note(-block.length * 4, 0)
    },
    write: (buffer, data, at = 0) => {
      check()
      const block = own(buffer)
      checkRange(block, at, data.length)
      const all = floats(data)
      for (const p of partsOf(at, data.length)) queue.writeBuffer(block.gpu[p.page], p.at * 4, all, p.from, p.length)
    },
    read: async (buffer, at = 0, length = buffer.length - at) => {
      check()
      const block = own(buffer)
      checkRange(block, at, length)
      return read(block, at, length)
    },
    compile: (plan) => async () => {
      try {
        return E.right(await compile(plan))
      } catch (e) {
        return E.left(
          e instanceof MixtrainException ? e.error : deviceError('webgpu', e instanceof Error ? e.message : String(e)),
        )
      }
    },
    release: (executable) => drop(liveProgram(executable)),
    run: (executable, args) => {
      check()
      run(liveProgram(executable), args)
    },
    sync: async () => {
      check()
      await settle(queue.onSubmittedWorkDone())
    },
    stats: () => ({ live: live.size, bytes, peak }),
    dispose: () => {
      if (disposed) return
      disposed = true
      end()
      for (const b of live) destroy(b.gpu ?? [])
      for (const p of [...programs.values()]) drop(p)
      destroy(arena.gpu)
      live.clear()
      note(-bytes, -overhead)
      if (owned) device.destroy()
    },
  }
}
