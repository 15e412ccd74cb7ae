import * as E from 'fp-ts/lib/Either.js'
import { deviceError, type MixtrainError } from '../../core/error.ts'
import { nodeModule, resolveModule } from '../../core/runtime.ts'

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

/** What is known of an adapter before a device is asked of it. */
type Adapter = Pick<GPUAdapter, 'info'> & { readonly isFallbackAdapter?: boolean }

const describe = (info: GPUAdapterInfo | undefined): string => {
  const words = [info?.description, info?.device, info?.architecture, info?.vendor].filter(
    (s): s is string => !!s && !/^\d+$/.test(s),
  )
  return words[0] ?? 'an adapter without a name'
}

const isSoftware = ({ info, isFallbackAdapter }: Adapter): boolean => {
  const fallback = info?.isFallbackAdapter ?? isFallbackAdapter ?? false
  return fallback || SOFTWARE.test([info?.description, info?.device, info?.architecture, info?.vendor].join(' '))
}

/** `navigator.gpu` of a page or of Deno. */
const ownGpu = (): GPU | undefined => (globalThis as { readonly navigator?: Navigator }).navigator?.gpu

/** The package `webgpu` of Node: Dawn. A name, so that neither the compiler nor a bundler looks for what need not be there. */
const DAWN: string = 'webgpu'

/** Dawn must not be collected while a device of it lives. */
let dawn: GPU | undefined

/** `navigator.gpu` of a page or of Deno; in Node that of the package `webgpu` where it is installed. */
const findGpu = async (): Promise<GPU | undefined> => {
  const own = ownGpu()
  if (own !== undefined || !('process' in globalThis)) return own
  if (dawn !== undefined) return dawn
  try {
    const { create } = await nodeModule<{ readonly create: (options: readonly string[]) => GPU }>(DAWN)
    dawn = create([])
    return dawn
  } catch {
    return undefined
  }
}

const requestAdapter = async (gpu: GPU): Promise<GPUAdapter | null> =>
  (await gpu.requestAdapter({ powerPreference: 'high-performance' })) ?? (await gpu.requestAdapter())

/**
 * Runs what loads drivers. Those of Linux look for a Wayland session, although nothing is drawn here, and write to standard error that XDG_RUNTIME_DIR is not
 * set where there is none (containers, ssh): meanwhile it names a folder, in which they find nothing.
 */
const withoutSession = async <A>(run: () => Promise<A>): Promise<A> => {
  if (ownGpu() !== undefined || !('process' in globalThis)) return run()
  const { env, platform } = await nodeModule<NodeJS.Process>('node:process')
  const before = env.XDG_RUNTIME_DIR
  if (platform !== 'linux' || before?.startsWith('/')) return run()
  env.XDG_RUNTIME_DIR = '/tmp'
  try {
    return await run()
  } finally {
    if (before === undefined) delete env.XDG_RUNTIME_DIR
    else env.XDG_RUNTIME_DIR = before
  }
}

/** Prints what Dawn finds: null, or what it says of the adapter that it would take. */
const SEARCH = `import(process.argv[1]).then(async ({ create }) => {
  const gpu = create([])
  const adapter = (await gpu.requestAdapter({ powerPreference: 'high-performance' })) ?? (await gpu.requestAdapter())
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter?.info ?? {}
  const info = { vendor, architecture, device, description, isFallbackAdapter }
  process.stdout.write(JSON.stringify(adapter && { info, isFallbackAdapter: adapter.isFallbackAdapter }), () => process.exit(0))
})`

/** Milliseconds that a driver may take to answer. */
const PATIENCE = 30_000

/** The answer of the child process, once asked. */
let searched: Promise<Adapter | null | undefined> | undefined

/**
 * What Dawn finds on this machine, asked in a process of its own: where there is no driver, or a wrong one, Dawn and the Vulkan loader write warnings
 * to the standard error of the process that they are in, and a driver may end it. Null: no adapter. Undefined: nobody could be asked.
 */
const search = async (): Promise<Adapter | null | undefined> => {
  if (ownGpu() !== undefined || !('process' in globalThis)) return undefined
  try {
    const { spawn } = await nodeModule<typeof import('node:child_process')>('node:child_process')
    // Not the global: bundlers for pages ask for a polyfill wherever they read its name.
    const { execPath } = await nodeModule<NodeJS.Process>('node:process')
    const url = resolveModule(DAWN)
    return await new Promise((resolve) => {
      const child = spawn(execPath, ['--input-type=module', '--eval', SEARCH, url], {
        stdio: ['ignore', 'pipe', 'ignore'],
        timeout: PATIENCE,
        killSignal: 'SIGKILL',
        windowsHide: true,
      })
      let answer = ''
      child.stdout.setEncoding('utf8').on('data', (part: string) => {
        answer += part
      })
      child.on('error', () => resolve(undefined))
      child.on('close', (code, signal) => {
        if (signal !== null) return resolve(null)
        resolve(code === 0 ? (JSON.parse(answer) as Adapter | null) : undefined)
      })
    })
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
    searched ??= search()
    const seen = await searched
    const unfit = (adapter: Adapter | null) =>
      adapter === null
        ? 'there is no GPU adapter (no GPU, or no driver for it)'
        : accept === 'real' && isSoftware(adapter)
          ? `${describe(adapter.info)} is a software adapter, slower than WASM`
          : undefined
    const early = seen === undefined ? undefined : unfit(seen)
    if (early !== undefined) return no(early)
    const gpu = await findGpu()
    if (gpu === undefined) return no('this runtime has no WebGPU (in Node: npm install webgpu)')
    return await withoutSession(async () => {
      const adapter = await requestAdapter(gpu)
      const late = unfit(adapter)
      if (adapter === null || late !== undefined) return no(late ?? '')
      return E.right({
        device: await adapter.requestDevice({ requiredLimits: limitsOf(adapter) }),
        description: describe(adapter.info),
        software: isSoftware(adapter),
      })
    })
  } catch (e) {
    return no(e instanceof Error ? e.message : String(e))
  }
}
