import type { FromProver, FromWorker, ToProver, ToWorker } from './protocol.ts'

export interface Client {
  readonly send: (message: ToWorker) => void
  readonly close: () => void
}

/** Starts the worker. `crashed` is called at most once: the worker is gone then. */
export const connect = (received: (message: FromWorker) => void, crashed: (why: string) => void): Client => {
  const worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module', name: 'mixtrain' })
  let over = false
  const close = (): void => {
    over = true
    worker.terminate()
  }
  const fail = (why: string): void => {
    if (over) return
    close()
    crashed(why)
  }
  worker.addEventListener('message', ({ data }: MessageEvent<FromWorker>) => {
    if (!over) received(data)
  })
  worker.addEventListener('error', (e) => {
    e.preventDefault()
    fail(e.message || 'its script could not be loaded')
  })
  worker.addEventListener('messageerror', () => fail('a message could not be read'))
  return { send: (message) => worker.postMessage(message), close }
}

/** Starts the worker of proofs: exact arithmetic takes seconds, which bounds do not wait for. */
export const connectProver = (
  received: (message: FromProver) => void,
): { readonly send: (message: ToProver) => void } => {
  const worker = new Worker(new URL('prover.js', import.meta.url), { type: 'module', name: 'mixtrain proofs' })
  worker.addEventListener('message', ({ data }: MessageEvent<FromProver>) => received(data))
  worker.addEventListener('error', (e) => {
    e.preventDefault()
    received({ type: 'refused', reason: e.message || 'the checker could not be loaded' })
  })
  return { send: (message) => worker.postMessage(message) }
}
