import type { Buffer } from '../../compile/backend.ts'
import type { Held, HeldProgram, Holdings } from '../holdings.ts'
import type { Pipelines } from './pipeline.ts'
import type { Binding } from './program.ts'
import { type Arena, COPY_DST, destroy, STORAGE, type Store } from './store.ts'

/** A resident block and its pages. */
export interface Block extends Held {
  readonly pages: readonly GPUBuffer[]
}

interface Step {
  readonly pipeline: GPUComputePipeline
  /** Number of its list of bindings in `Program.bindings`. */
  readonly group: number
  readonly grid: readonly [number, number, number]
}

/** Bind groups for some arguments, and which arena they show. */
interface Groups {
  readonly arena: number
  readonly list: readonly GPUBindGroup[]
}

export interface Program extends HeldProgram {
  readonly steps: readonly Step[]
  /** The different lists of bindings of its dispatches. */
  readonly bindings: readonly (readonly Binding[])[]
  readonly bases: GPUBuffer
  readonly basesGroup: GPUBindGroup
  readonly constants: readonly GPUBuffer[]
  readonly ownBytes: number
  /** By the ids of the arguments. */
  readonly groups: Map<string, Groups>
}

/** Uniforms of consecutive dispatches lie so far apart: no device asks for more. */
export const UNIFORM_STRIDE = 256
/** Argument lists whose bind groups are kept: a trainer's two banks take turns. */
const REMEMBERED = 4

/** Runs programs: a run is one command buffer with one compute pass. */
export const submitterOn = (
  device: GPUDevice,
  pipelines: Pipelines,
  store: Store,
  books: Holdings<Block, Program>,
  arenaNow: () => Arena,
) => {
  type Pages = readonly GPUBuffer[]
  const bindGroups = (p: Program, args: readonly Pages[], arena: Arena): readonly GPUBindGroup[] =>
    p.bindings.map((list) =>
      device.createBindGroup({
        layout: pipelines.layoutOf(list.length),
        entries: list.map((b, binding) => {
          const pages = b.at === 'argument' ? args[b.index] : b.at === 'arena' ? arena.pages : p.constants
          return { binding, resource: { buffer: pages[b.page] } }
        }),
      }),
    )
  /** The bind groups for these arguments, kept for the next run with the same ones. */
  const groupsOf = (p: Program, key: string, args: readonly Pages[]): readonly GPUBindGroup[] => {
    const arena = arenaNow()
    const known = p.groups.get(key)
    if (known?.arena === arena.id) return known.list
    p.groups.delete(key)
    const oldest = p.groups.keys().next()
    if (p.groups.size >= REMEMBERED && !oldest.done) p.groups.delete(oldest.value)
    const list = bindGroups(p, args, arena)
    p.groups.set(key, { arena: arena.id, list })
    return list
  }
  /** The pages of arguments. One buffer must not be bound twice for writing, and all bindings are: a second input becomes a copy. */
  const pagesOf = (p: Program, args: readonly Buffer[], encoder: GPUCommandEncoder) => {
    const [pages, copies]: [Pages[], GPUBuffer[]] = [[], []]
    books.begin(p, args, (block, _, again) => {
      if (!again) {
        pages.push(block.pages)
        return
      }
      const copy = store.take(block.length, STORAGE | COPY_DST, 'a copy of an argument')
      copy.forEach((c, k) => {
        encoder.copyBufferToBuffer(block.pages[k], 0, c, 0, c.size)
      })
      copies.push(...copy)
      pages.push(copy)
    })
    return { pages, copies }
  }
  return (p: Program, args: readonly Buffer[]): void => {
    const encoder = device.createCommandEncoder()
    const { pages, copies } = pagesOf(p, args, encoder)
    const groups =
      copies.length > 0 ? bindGroups(p, pages, arenaNow()) : groupsOf(p, args.map((b) => b.id).join(' '), pages)
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
    device.queue.submit([encoder.finish()])
    destroy(copies)
  }
}
