import * as E from 'fp-ts/lib/Either.js'
import type { TaskEither } from 'fp-ts/lib/TaskEither.js'
import type { Backend, Executable } from '../../compile/backend.ts'
import type { Plan } from '../../compile/plan.ts'
import { deviceError, type MixtrainError, MixtrainException, raise } from '../../core/error.ts'
import { elements, holdings } from '../holdings.ts'
import { type Acceptance, type OpenGpu, openGpu } from './adapter.ts'
import { pageLength } from './pages.ts'
import { makePipelines } from './pipeline.ts'
import { BASES, type Binding, type Dispatch, MAX_ELEMENTS, type ProgramLimits, programOf } from './program.ts'
import { arenaIn, bytesOf, COPY_DST, COPY_SRC, destroy, STORAGE, storeOn, UNIFORM } from './store.ts'
import { type Block, type Program, submitterOn, UNIFORM_STRIDE } from './submit.ts'
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

/** What programs of a device must keep to. */
const limitsOf = ({ limits }: GPUDevice, lower: WebGpuOptions['limits'], tiles: boolean): ProgramLimits => ({
  bindingBytes: Math.min(
    limits.maxStorageBufferBindingSize,
    limits.maxBufferSize,
    lower?.bindingBytes ?? Number.POSITIVE_INFINITY,
  ),
  bindings: Math.min(limits.maxStorageBuffersPerShaderStage, lower?.bindings ?? Number.POSITIVE_INFINITY),
  groups: Math.min(limits.maxComputeWorkgroupsPerDimension, lower?.groups ?? Number.POSITIVE_INFINITY),
  tiles,
})

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

const backendOf = ({ device, description, software }: OpenGpu, owned: boolean, options: WebGpuOptions): Backend => {
  const { queue } = device
  const limits = limitsOf(device, options.limits, options.tiles ?? !software)
  const page = pageLength(limits.bindingBytes)
  const pipelines = makePipelines(device)
  const books = holdings<Block, Program>('webgpu')
  const watching = watch(device, books.held)
  const { check, settle, take, end } = watching
  const store = storeOn(device, watching, page)
  const arena = arenaIn(store, watching, books.id, (bytes) => books.note(0, bytes))
  const submit = submitterOn(device, pipelines, store, books, arena.now)

  /** Where each dispatch finds its operands, as uniforms. */
  const basesOf = (dispatches: readonly Dispatch[]): GPUBuffer => {
    const words = new Int32Array((Math.max(1, dispatches.length) * UNIFORM_STRIDE) / 4)
    dispatches.forEach((d, i) => {
      words.set(d.bases, (i * UNIFORM_STRIDE) / 4)
    })
    const bases = take(words.byteLength, UNIFORM | COPY_DST, 'uniforms')
    queue.writeBuffer(bases, 0, words)
    return bases
  }

  const drop = (p: Program): void => {
    books.drop(p)
    destroy([p.bases, ...p.constants])
    books.note(0, -p.ownBytes)
  }

  const compile = async (plan: Plan): Promise<Executable> => {
    check()
    const decoded = programOf(plan, limits)
    if (E.isLeft(decoded)) return raise(decoded.left)
    const { dispatches, arena: scratch } = decoded.right
    const made = await settle(Promise.all(dispatches.map((d) => pipelines.get(d.source, d.bindings.length))))
    await arena.grow(scratch)
    const constants = store.take(plan.constants.length, STORAGE | COPY_DST, 'constants')
    store.write(constants, plan.constants, 0)
    const bases = basesOf(dispatches)
    const { lists, numbers } = listsOf(dispatches)
    const program: Program = {
      id: books.id(),
      bytes: scratch * 4,
      steps: dispatches.map((d, i) => ({ pipeline: made[i], group: numbers[i], grid: d.grid })),
      bindings: lists,
      bases,
      basesGroup: device.createBindGroup({
        layout: pipelines.basesLayout,
        entries: [{ binding: 0, resource: { buffer: bases, size: BASES * 4 } }],
      }),
      constants,
      ownBytes: bases.size + bytesOf(plan.constants.length),
      groups: new Map(),
      inputs: plan.inputs.length,
      lengths: [...plan.inputs, ...plan.outputs].map(elements),
    }
    books.note(0, program.ownBytes)
    books.keep(program)
    await settle(Promise.resolve()).catch((e) => {
      drop(program)
      throw e
    })
    return program
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
      const pages = store.take(length, STORAGE | COPY_SRC | COPY_DST, 'a buffer')
      const block: Block = { id: books.id(), length, pages, run: 0 }
      books.add(block)
      return block
    },
    free: (buffer) => {
      const block = books.own(buffer)
      destroy(block.pages)
      books.remove(block)
    },
    write: (buffer, data, at = 0) => {
      check()
      store.write(books.within(buffer, at, data.length).pages, data, at)
    },
    read: async (buffer, at = 0, length = buffer.length - at) => {
      check()
      return store.read(books.within(buffer, at, length).pages, at, length)
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
    release: (executable) => drop(books.program(executable)),
    run: (executable, args) => {
      check()
      submit(books.program(executable), args)
    },
    sync: async () => {
      check()
      await settle(queue.onSubmittedWorkDone())
    },
    stats: books.stats,
    dispose: () => {
      if (books.isDisposed()) return
      end()
      for (const { pages } of books.blocks) destroy(pages)
      for (const p of [...books.programs.values()]) drop(p)
      destroy(arena.now().pages)
      books.dispose()
      if (owned) device.destroy()
    },
  }
}
