import * as E from 'fp-ts/lib/Either.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { Backend } from '../compile/backend.ts'
import { deviceError, type MixtrainError, MixtrainException, show } from '../core/error.ts'
import { reference } from './reference.ts'
import { wasm } from './wasm/wasm.ts'
import { wrongResult } from './webgpu/check.ts'
import { webgpu } from './webgpu/webgpu.ts'

/** The devices that `device` and `--device` know. */
export const deviceNames = ['auto', 'wasm', 'webgpu', 'reference'] as const
/** One of `deviceNames`. */
export type DeviceName = (typeof deviceNames)[number]

/** Which device is opened, and how. */
export interface DeviceOptions {
  readonly device?: DeviceName
  /** The most threads of the WASM backend. Default: what the machine and the quota of the process give, at most 8. */
  readonly threads?: number | undefined
  /** Told in a sentence when the WASM backend changes the number of its threads in mid-work. */
  readonly told?: ((text: string) => void) | undefined
  /** Fused multiply-adds where the engine has them: faster, and the bits then depend on the engine. */
  readonly fastMath?: boolean | undefined
  /** Whether WASM takes over when a GPU fails in mid-training. Default: on `auto`. */
  readonly fallback?: boolean | undefined
}

/** A backend and why it was chosen, for reports. */
export interface Device {
  readonly backend: Backend
  readonly reason: string
}

/** A WebGPU backend that has computed a known result, or why there is none. */
const checkedGpu = (accept: 'real' | 'any'): TE.TaskEither<MixtrainError, Backend> =>
  TE.chain(
    (backend: Backend): TE.TaskEither<MixtrainError, Backend> =>
      async () => {
        const wrong = await wrongResult(backend)
        if (wrong === undefined) return E.right(backend)
        backend.dispose()
        return E.left(deviceError('webgpu', `${backend.description} does not compute: ${wrong}`))
      },
  )(webgpu({ accept }))

const named = (backend: Backend): Device => ({ backend, reason: 'asked for by name' })

/**
 * The same backend with one that takes over when it fails, opened when it is first asked for; where that one cannot be opened either, the error of the first stands.
 *
 * @example
 *   const backend = withFallback(await device(), wasm())
 */
export const withFallback = (backend: Backend, open: TE.TaskEither<MixtrainError, Backend>): Backend => {
  let opened: Promise<E.Either<MixtrainError, Backend>> | undefined
  return {
    ...backend,
    fallback: () => {
      opened ??= open()
      return opened
    },
    dispose: () => {
      backend.dispose()
      void opened?.then(E.map((b) => b.dispose()))
    },
  }
}

/** The error of a device that failed; undefined where the program did. */
export const failureOf = (cause: unknown): MixtrainError | undefined =>
  cause instanceof MixtrainException && (cause.error.kind === 'device' || cause.error.kind === 'memory')
    ? cause.error
    : undefined

/** The backend that takes over from one that failed, if there is one and it can be opened. */
export const successor = async (backend: Backend): Promise<Backend | undefined> => {
  const next = await backend.fallback?.()
  return next !== undefined && E.isRight(next) ? next.right : undefined
}

/** What an error says, without the name of the device that the reader knows. */
const message = (e: MixtrainError): string => (e.kind === 'device' ? e.message : show(e))

/**
 * Opens the device asked for by name. `auto` takes WebGPU where a real GPU answers and computes a known result, WASM otherwise;
 * a software adapter is slower than WASM and is only used when `webgpu` is asked for. An error says why there is no such device. What
 * `auto` chose carries a `fallback` where it is a GPU.
 *
 * @example
 *   const { backend } = await orThrow(openDevice({ device: 'reference' }))
 */
export const openDevice = ({
  device = 'auto',
  threads,
  fastMath,
  told,
  fallback = device === 'auto',
}: DeviceOptions = {}): TE.TaskEither<MixtrainError, Device> => {
  const guarded = (gpu: Backend): Backend => (fallback ? withFallback(gpu, wasm({ threads, fastMath, told })) : gpu)
  switch (device) {
    case 'reference':
      return TE.right(named(reference()))
    case 'wasm':
      return TE.map(named)(wasm({ threads, fastMath, told }))
    case 'webgpu':
      return TE.map((gpu: Backend) => named(guarded(gpu)))(checkedGpu('any'))
    case 'auto':
      return async () => {
        const gpu = await checkedGpu('real')()
        if (E.isRight(gpu))
          return E.right({ backend: guarded(gpu.right), reason: 'a GPU answers and computes a known result correctly' })
        const reason = `no WebGPU: ${message(gpu.left)}; WebAssembly SIMD works here`
        return TE.map((backend: Backend): Device => ({ backend, reason }))(wasm({ threads, fastMath, told }))()
      }
    default:
      return device satisfies never
  }
}

/**
 * `openDevice` for scripts: the backend, or, raised, the error that says what is wrong.
 *
 * @example
 *   const backend = await device({ device: 'wasm', threads: 2 })
 */
export const device = async (options: DeviceOptions = {}): Promise<Backend> => {
  const opened = await openDevice(options)()
  if (opened._tag === 'Left') throw new MixtrainException(opened.left)
  return opened.right.backend
}
