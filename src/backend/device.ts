import * as TE from 'fp-ts/lib/TaskEither.js'
import type { MixtrainError } from '../core/error.ts'
import { MixtrainException } from '../core/error.ts'
import type { Backend } from './backend.ts'
import { reference } from './reference.ts'
import { wasm } from './wasm.ts'

export const deviceNames = ['auto', 'wasm', 'reference'] as const
export type DeviceName = (typeof deviceNames)[number]

export interface DeviceOptions {
  readonly device?: DeviceName
  /** Threads of the WASM backend. Default: the machine's, at most 8. */
  readonly threads?: number | undefined
  /** Fused multiply-adds where the engine has them: faster, and the bits then depend on the engine. */
  readonly fastMath?: boolean | undefined
}

/** A backend and why it was chosen, for reports. */
export interface Device {
  readonly backend: Backend
  readonly reason: string
}

/** Opens the device asked for by name, or with `auto` the fastest one that works here. */
export const openDevice = ({ device = 'auto', threads, fastMath }: DeviceOptions = {}): TE.TaskEither<MixtrainError, Device> => {
  switch (device) {
    case 'reference':
      return TE.right({ backend: reference(), reason: 'asked for by name' })
    case 'wasm':
    case 'auto':
      return TE.map((backend: Backend) => ({
        backend,
        reason: device === 'wasm' ? 'asked for by name' : 'WebAssembly SIMD works here',
      }))(wasm({ threads, fastMath }))
    default:
      return device satisfies never
  }
}

/** `openDevice` for scripts: the backend, or an exception that says what is wrong. */
export const device = async (options: DeviceOptions = {}): Promise<Backend> => {
  const opened = await openDevice(options)()
  if (opened._tag === 'Left') throw new MixtrainException(opened.left)
  return opened.right.backend
}
