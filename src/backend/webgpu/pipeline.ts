import { deviceError, MixtrainException } from '../../core/error.ts'
import { BASES } from './program.ts'

/** Visibility flag and layouts by the WebGPU specification. */
const COMPUTE = 0x4

export interface Pipelines {
  /** The layout of `count` storage bindings. */
  readonly layoutOf: (count: number) => GPUBindGroupLayout
  /** The layout of a dispatch's uniform, found by a dynamic offset. */
  readonly basesLayout: GPUBindGroupLayout
  /** The pipeline of a shader, made once. Rejects with what the shader compiler says. */
  readonly get: (source: string, bindings: number) => Promise<GPUComputePipeline>
}

/**
 * Pipelines by source. Layouts are explicit, so that bind groups fit every pipeline with as many bindings; all storage is `read_write`,
 * for slices of one buffer must not be bound for reading and for writing side by side.
 */
export const makePipelines = (device: GPUDevice): Pipelines => {
  const layouts = new Map<number, GPUBindGroupLayout>()
  const layoutOf = (count: number): GPUBindGroupLayout => {
    const known = layouts.get(count)
    if (known !== undefined) return known
    const layout = device.createBindGroupLayout({
      entries: Array.from({ length: count }, (_, binding) => ({
        binding,
        visibility: COMPUTE,
        buffer: { type: 'storage' as const },
      })),
    })
    layouts.set(count, layout)
    return layout
  }
  const basesLayout = device.createBindGroupLayout({
    entries: [
      {
        binding: 0,
        visibility: COMPUTE,
        buffer: { type: 'uniform', hasDynamicOffset: true, minBindingSize: BASES * 4 },
      },
    ],
  })
  const pipelineLayouts = new Map<number, GPUPipelineLayout>()
  const pipelineLayoutOf = (count: number): GPUPipelineLayout => {
    const known = pipelineLayouts.get(count)
    if (known !== undefined) return known
    const layout = device.createPipelineLayout({ bindGroupLayouts: [layoutOf(count), basesLayout] })
    pipelineLayouts.set(count, layout)
    return layout
  }

  const make = async (source: string, bindings: number): Promise<GPUComputePipeline> => {
    device.pushErrorScope('validation')
    const module = device.createShaderModule({ code: source })
    const faulty = device.popErrorScope()
    try {
      const pipeline = await device.createComputePipelineAsync({
        layout: pipelineLayoutOf(bindings),
        compute: { module, entryPoint: 'main' },
      })
      await faulty
      return pipeline
    } catch (e) {
      const said = (await faulty)?.message ?? (e instanceof Error ? e.message : String(e))
      throw new MixtrainException(deviceError('webgpu', `a shader was refused: ${said}`))
    }
  }
  const made = new Map<string, Promise<GPUComputePipeline>>()
  return {
    layoutOf,
    basesLayout,
    get: (source, bindings) => {
      const known = made.get(source)
      if (known !== undefined) return known
      const pipeline = make(source, bindings)
      made.set(source, pipeline)
      // What failed may be tried again: the device may have had no room.
      pipeline.catch(() => made.delete(source))
      return pipeline
    },
  }
}
