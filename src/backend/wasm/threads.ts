import { nodeModule } from '../../core/runtime.ts'
import { quota, type Reader, threadsOf } from './quota.ts'

/** What a worker needs to become thread `id` of `count`. */
export interface Seat {
  readonly module: WebAssembly.Module
  readonly memory: WebAssembly.Memory
  readonly control: number
  readonly id: number
  readonly count: number
}

type NodeWorker = InstanceType<typeof import('node:worker_threads').Worker>

/** Started workers, parked inside WebAssembly. */
export interface Workers {
  readonly terminate: () => void
}

// The same few lines everywhere; they leave `park` when the machine is stopped.
const BODY = `
const work = ({ module, memory, control, id, count }, post) => {
  const { exports } = new WebAssembly.Instance(module, { env: { memory } })
  exports.setup(control, id, count, 1)
  post('ready')
  exports.park()
}`
const NODE = `${BODY}
const { parentPort, workerData } = require('node:worker_threads')
work(workerData, m => parentPort.postMessage(m))`
const WEB = `${BODY}
onmessage = e => work(e.data, postMessage)`

const runtime = globalThis as unknown as {
  readonly process?: { readonly versions?: { readonly node?: string } }
  readonly Deno?: {
    readonly permissions?: { readonly querySync?: (of: { name: 'read'; path: string }) => { readonly state: string } }
  }
  readonly document?: unknown
}

// Deno has both kinds of workers; only Node's can be unref'ed, so that a program may end without disposing.
const isNode =
  (runtime.process?.versions?.node !== undefined || runtime.Deno !== undefined) && runtime.document === undefined

/** Whether this thread may block on an atomic: everywhere but on a page's main thread. */
export const mayWait = runtime.document === undefined

/** Whether memory can be shared at all (in a browser: only on a cross-origin-isolated page). */
export const canShare =
  typeof SharedArrayBuffer !== 'undefined' &&
  typeof Atomics !== 'undefined' &&
  (isNode || typeof Worker !== 'undefined') &&
  (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated !== false

/** Whether a file may be read without a question to the user, which Deno asks otherwise. */
const isReadable = (path: string): boolean =>
  (runtime.Deno?.permissions?.querySync?.({ name: 'read', path }).state ?? 'granted') === 'granted'

const read: Reader = async (path) => {
  try {
    if (!isReadable(path)) return undefined
    const { readFile } = await nodeModule<typeof import('node:fs/promises')>('node:fs/promises')
    return await readFile(path, 'utf8')
  } catch {
    return undefined
  }
}

let granted: Promise<number> | undefined

/** How many threads this machine, and the quota of the process in it, run at once. The quota is read once. */
export const concurrency = async (): Promise<number> => {
  if (!isNode) return globalThis.navigator?.hardwareConcurrency ?? 1
  const { availableParallelism, platform } = await nodeModule<typeof import('node:os')>('node:os')
  granted ??= platform() === 'linux' ? quota(read) : Promise.resolve(Number.POSITIVE_INFINITY)
  return Math.min(availableParallelism(), threadsOf(await granted))
}

const startNode = async (seats: readonly Seat[]): Promise<Workers> => {
  const { Worker } = await nodeModule<typeof import('node:worker_threads')>('node:worker_threads')
  const workers: NodeWorker[] = []
  const terminate = () => {
    for (const w of workers) void w.terminate()
  }
  try {
    await Promise.all(
      seats.map(
        (seat) =>
          new Promise<void>((resolve, reject) => {
            const worker = new Worker(NODE, { eval: true, workerData: seat, execArgv: [], stdin: false })
            workers.push(worker)
            worker.once('message', () => resolve())
            worker.once('error', reject)
          }),
      ),
    )
  } catch (e) {
    terminate()
    throw e
  }
  // Parked workers must not keep the process alive.
  for (const w of workers) w.unref()
  return { terminate }
}

const startWeb = async (seats: readonly Seat[]): Promise<Workers> => {
  const workers: Worker[] = []
  const url = URL.createObjectURL(new Blob([WEB], { type: 'text/javascript' }))
  const terminate = () => {
    for (const w of workers) w.terminate()
  }
  try {
    await Promise.all(
      seats.map(
        (seat) =>
          new Promise<void>((resolve, reject) => {
            const worker = new Worker(url)
            workers.push(worker)
            worker.onmessage = () => resolve()
            worker.onerror = (e) => reject(new Error(e.message))
            worker.postMessage(seat)
          }),
      ),
    )
  } catch (e) {
    terminate()
    throw e
  } finally {
    URL.revokeObjectURL(url)
  }
  return { terminate }
}

/** Starts one worker per seat and resolves when all of them are about to park. */
export const startWorkers = (seats: readonly Seat[]): Promise<Workers> => (isNode ? startNode(seats) : startWeb(seats))
