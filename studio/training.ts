// Training in the worker: on a device, with pause, stop, and another device where one fails.
import {
  type Backend,
  type Checkpoint,
  type Data,
  type Failure,
  fit,
  holdOut,
  openDevice,
  type Progress,
  show,
  take,
  withFallback,
} from 'mixtrain'
import { methods } from 'mixtrain/bounds'
import { recipe } from 'mixtrain/losses'
import type { FromWorker, TrainSettings } from './protocol.ts'

export interface Host {
  readonly post: (message: FromWorker) => void
  /** Lets messages in. */
  readonly breathe: () => Promise<void>
  readonly trained: (checkpoint: Checkpoint, settings: TrainSettings, onGpu: boolean) => void
}

export interface Training {
  readonly isRunning: () => boolean
  readonly start: (settings: TrainSettings, resume: Checkpoint | undefined) => Promise<void>
  readonly pause: () => void
  readonly go: () => void
  readonly stop: () => void
}

const reasonOf = (e: unknown): string => (e instanceof Error ? e.message : String(e))

/** The device that was asked for, or WebAssembly and why not. */
const chosen = async (
  wasm: Backend,
  { device }: TrainSettings,
  warn: (text: string) => void,
): Promise<{ readonly backend: Backend; readonly reason?: string }> => {
  if (device === 'wasm') return { backend: wasm }
  const opened = await openDevice({ device, threads: 1, fallback: false })()
  if (opened._tag === 'Left') {
    warn(`WebGPU cannot be used (${show(opened.left)}). Training on WebAssembly instead.`)
    return { backend: wasm }
  }
  const { backend, reason } = opened.right
  // Where the GPU fails, the WASM of the page takes over; it does not end with the training.
  if (backend.name === 'webgpu')
    return {
      backend: withFallback(backend, async () => ({ _tag: 'Right', right: { ...wasm, dispose: () => undefined } })),
    }
  backend.dispose()
  return { backend: wasm, reason: reason.replace(/; WebAssembly SIMD works here$/, '') }
}

/** Small sets get small batches, so that a quick trial takes enough steps. */
const recipeOf = ({ loss, epsilon, epochs, images, k, balance }: TrainSettings) =>
  recipe(loss, { epsilon, epochs, k, balance, ...(images < 5000 ? { batchSize: 20 } : {}) })

/** A door that is open or shut. */
const gate = () => {
  let shut: { readonly wait: Promise<void>; readonly release: () => void } | undefined
  return {
    close: () => {
      if (shut !== undefined) return
      let release = () => {}
      const wait = new Promise<void>((resolve) => {
        release = resolve
      })
      shut = { wait, release }
    },
    open: () => {
      shut?.release()
      shut = undefined
    },
    passed: () => shut?.wait,
  }
}

export const trainer = (wasm: Backend, data: Data, { post, breathe, trained }: Host): Training => {
  const pause = gate()
  let running: AbortController | undefined
  let reported = 0
  const warn = (text: string): void => post({ type: 'notice', level: 'warning', text })

  const progressOn = (backend: () => Backend) => {
    /** The work of the step before: a GPU would take any number of steps at once, and show, pause and stop late. */
    let queued = Promise.resolve()
    let on = backend()
    return async (p: Progress): Promise<void> => {
      // What a device that failed still had to do is nothing to wait for.
      const before = backend() === on ? queued : Promise.resolve()
      on = backend()
      queued = on.sync()
      queued.catch(() => undefined)
      await before
      const now = performance.now()
      if (now - reported > 80 || p.done === p.total) {
        reported = now
        post({ type: 'progress', ...p })
      }
      await breathe()
      await pause.passed()
    }
  }

  const train = async (settings: TrainSettings, resume: Checkpoint | undefined, signal: AbortSignal): Promise<void> => {
    const { k: _, numbers, ...plan } = recipeOf(settings)
    const { epsilon, seed } = settings
    const images = { train: take(settings.images)(data.train) }
    post({ type: 'progress', phase: 'preparing', epoch: resume?.history.length ?? 0, done: 0, total: 1 })
    const { backend, reason } = await chosen(wasm, settings, warn)
    let current = backend
    const onGpu = backend.name === 'webgpu'
    const tell = (more: string | undefined): void => {
      const held = `${holdOut(images.train).monitor.count} images held out`
      const about = [current.description, `batches of ${plan.batchSize}`, held, ...(more === undefined ? [] : [more])]
      post({ type: 'training', text: about.join(' · ') })
    }
    const failed = ({ error, to, steps, kept }: Failure): void => {
      if (to === undefined) return
      current = to
      const place = kept === 0 ? 'from the beginning' : `from step ${kept} of the ${steps} that were begun`
      warn(`The GPU stopped working (${show(error)}). Training goes on on WebAssembly ${place}.`)
      tell('after the loss of the GPU')
    }
    tell(reason)
    try {
      const measured = { method: methods[numbers.method], evaluationBatch: 25 }
      const options = { data: images, seed, ...plan, ...measured, epsilon, resume, failed, signal }
      for await (const epoch of fit({ ...options, progress: progressOn(() => current) })(backend)) {
        const { checkpoint, device: __, ...record } = epoch
        post({ type: 'epoch', record, checkpoint })
        trained(checkpoint, settings, onGpu)
      }
    } finally {
      if (backend !== wasm) backend.dispose()
    }
  }

  return {
    isRunning: () => running !== undefined,
    start: async (settings, resume) => {
      if (running !== undefined) return
      running = new AbortController()
      const { signal } = running
      const ended = (why: 'finished' | 'stopped' | 'failed', message?: string): void => {
        running = undefined
        pause.open()
        post({ type: 'ended', why, message })
      }
      try {
        await train(settings, resume, signal)
        ended('finished')
      } catch (e) {
        if (signal.aborted) ended('stopped')
        else ended('failed', reasonOf(e))
      }
    },
    pause: pause.close,
    go: pause.open,
    stop: () => {
      running?.abort()
      pause.open()
    },
  }
}
