import * as E from 'fp-ts/lib/Either.js'
import { deviceError, type MixtrainError } from '../core/error.ts'

/** Which adapters will do: `real` refuses software ones, which are slower than WASM. */
export type Acceptance = 'real' | 'any'

export interface OpenGpu {
  readonly device: GPUDevice
  /** The adapter in words. */
  readonly description: string
  readonly software: boolean
}

/** The names that software adapters go by. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|software|basic render|\bwarp\b|mock/i

const describe = (info: GPUAdapterInfo | undefined): string => {
  const words = [info?.description, info?.device, info?.architecture, info?.vendor].filter(
    (s): s is string => !!s && !/^\d+$/.test(s),
  )
  return words[0] ?? 'an adapter without a name'
}

const isSoftware = (adapter: GPUAdapter): boolean => {
  const { info } = adapter
  const fallback =
    info?.isFallbackAdapter ?? (adapter as { readonly isFallbackAdapter?: boolean }).isFallbackAdapter ?? false
  return fallback || SOFTWARE.test([info?.description, info?.device, info?.architecture, info?.vendor].join(' '))
}

/** Dawn must not be collected while a device of it lives. */
let dawn: GPU | undefined

/** `navigator.gpu` of a page or of Deno; in Node that of the package `webgpu` where it is installed. */
const findGpu = async (): Promise<GPU | undefined> => {
  const { navigator } = globalThis as { readonly navigator?: Navigator }
  if (navigator?.gpu !== undefined) return navigator.gpu
  if (!('process' in globalThis)) return undefined
  if (dawn !== undefined) return dawn
  // A variable, so that neither the compiler nor a bundler looks for a package that need not be there.
  const name: string = 'webgpu'
  try {
    const { create } = (await import(/* webpackIgnore: true */ /* @vite-ignore */ name)) as {
      readonly create: (options: readonly string[]) => GPU
    }
    dawn = create([])
    return dawn
  } catch {
    return undefined
  }
}

/** Bindings that the widest loop asks for: eight inputs and an output, each on a page of its own. */
const BINDINGS = 9

/** What is asked of the adapter beyond the defaults: the longest buffers that it has, and a ninth binding. */
const limitsOf = ({ limits }: GPUAdapter): Record<string, number> => ({
  maxBufferSize: limits.maxBufferSize,
  maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
  maxStorageBuffersPerShaderStage: Math.min(BINDINGS, limits.maxStorageBuffersPerShaderStage),
})

/** The best adapter here and a device on it. A Left says why there is none. */
export const openGpu = async (accept: Acceptance): Promise<E.Either<MixtrainError, OpenGpu>> => {
  const no = (message: string) => E.left(deviceError('webgpu', message))
  try {
    const gpu = await findGpu()
    if (gpu === undefined) return no('this runtime has no WebGPU (in Node: npm install webgpu)')
    const adapter = (await gpu.requestAdapter({ powerPreference: 'high-performance' })) ?? (await gpu.requestAdapter())
    if (!adapter) return no('there is no GPU adapter (no GPU, or no driver for it)')
    const description = describe(adapter.info)
    const software = isSoftware(adapter)
    if (software && accept === 'real') return no(`${description} is a software adapter, slower than WASM`)
    return E.right({
      device: await adapter.requestDevice({ requiredLimits: limitsOf(adapter) }),
      description,
      software,
    })
  } catch (e) {
    return no(e instanceof Error ? e.message : String(e))
  }
}
