import * as E from 'fp-ts/lib/Either.js'
import { openDevice } from '../../src/backend/device.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { wrongResult } from '../../src/backend/webgpu/check.ts'
import { webgpu } from '../../src/backend/webgpu/webgpu.ts'
import { show } from '../../src/core/error.ts'
import { registry, survival, twentySteps, wasmHash } from './portable.ts'
import { right } from './wasm-programs.ts'

/** What test/backend/webgpu-chromium.test.ts calls in a page. */
const page = {
  isolated: async () => globalThis.crossOriginIsolated,
  /** The adapter, or why there is none. */
  adapter: async () => {
    const opened = await webgpu()()
    if (E.isLeft(opened)) return { works: false, about: show(opened.left) }
    const wrong = await wrongResult(opened.right)
    const about = opened.right.description
    opened.right.dispose()
    return { works: wrong === undefined, about: wrong ?? about }
  },
  auto: async () => {
    const { backend, reason } = right(await openDevice({ threads: 1 })())
    const { name } = backend
    backend.dispose()
    return { name, reason }
  },
  registry: async () => {
    const gpu = right(await webgpu()())
    const result = await registry(gpu)
    gpu.dispose()
    return result
  },
  twenty: async () => {
    const [gpu, simd] = [right(await webgpu()()), right(await wasm({ threads: 1 })())]
    const result = {
      webgpu: await twentySteps(gpu),
      again: await twentySteps(gpu, 3),
      wasm: await twentySteps(simd),
      live: gpu.stats().live,
    }
    gpu.dispose()
    simd.dispose()
    return result
  },
  survival,
  hash: wasmHash,
  /** The same in a worker, which may wait for other threads. */
  hashInWorker: (threads: number) =>
    new Promise((resolve, reject) => {
      const worker = new Worker('browser-worker.js', { type: 'module' })
      worker.onmessage = ({ data }) => {
        worker.terminate()
        resolve(data)
      }
      worker.onerror = (e) => reject(new Error(e.message))
      worker.postMessage(threads)
    }),
}
export type PageChecks = typeof page

Object.assign(globalThis, { checks: page })
