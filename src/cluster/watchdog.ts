import { nodeModule } from '../core/runtime.ts'

/** Waits in a thread of its own, as the calling one may be blocked; then says why, and ends the process. */
const CODE = `
const { workerData: { ms, message, pid } } = require('node:worker_threads')
setTimeout(() => {
  try { require('node:fs').writeSync(2, message + '\\n') } catch {}
  process.kill(pid, 'SIGKILL')
}, ms)`

/**
 * What `call` returns, a call that blocks the thread it is made on; the process is ended with a message where it does not return in so many seconds. A library that waits for a host which cannot be
 * reached would wait for ever, and whoever started the process with it.
 */
export const guarded = async <A>(seconds: number, message: string, call: () => A): Promise<A> => {
  const { Worker } = await nodeModule<typeof import('node:worker_threads')>('node:worker_threads')
  const { pid } = await nodeModule<typeof import('node:process')>('node:process')
  const worker = new Worker(CODE, { eval: true, workerData: { ms: 1000 * seconds, message, pid } })
  worker.unref()
  try {
    return call()
  } finally {
    await worker.terminate()
  }
}
