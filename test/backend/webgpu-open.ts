import * as E from 'fp-ts/lib/Either.js'
import { type WebGpuOptions, webgpu } from '../../src/backend/webgpu/webgpu.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { show } from '../../src/core/error.ts'
import { skipped } from '../shared.ts'

/** A WebGPU backend on whatever adapter there is; says why a suite is skipped where there is none. */
export const openOrSkip = async (suite: string, options: WebGpuOptions = {}): Promise<Backend | undefined> => {
  const opened = await webgpu(options)()
  if (E.isRight(opened)) return opened.right
  skipped(suite, show(opened.left))
  return undefined
}
