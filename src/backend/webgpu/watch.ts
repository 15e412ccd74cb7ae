import { deviceError, type MixtrainError, MixtrainException, raise } from '../../core/error.ts'

/** What goes wrong on a device, which says so later than the call that caused it. */
export interface Watch {
  /** Throws what has gone wrong so far. A lost device stays lost; any other error is reported once. */
  readonly check: () => void
  /** Waits for work of the device, which may get lost meanwhile, and for what allocations have to say; rejects like `check`. */
  readonly settle: <A>(work: Promise<A>) => Promise<A>
  /** A buffer; where there is no room for it, `check` says so as soon as the device does. */
  readonly take: (size: number, usage: number, what: string) => GPUBuffer
  /** Stops watching: from now on `check` says that the backend was disposed. */
  readonly end: () => void
}

/** How long the loss of a device may take to become known after the work that it ended. */
const GRACE_MS = 50

/** `held` tells the bytes in use, for the errors of allocations. */
export const watch = (device: GPUDevice, held: () => number): Watch => {
  let ended = false
  let lost: MixtrainError | undefined
  let fault: MixtrainError | undefined
  const pending = new Set<Promise<void>>()
  // Not promises chained to `device.lost`: those would pile up on it for as long as the device lives.
  const waiting = new Set<() => void>()
  void device.lost.then(({ message }) => {
    lost = deviceError('webgpu', `the device was lost${message ? `: ${message}` : ''}`)
    for (const wake of waiting) wake()
  })
  const onError = (event: Event): void => {
    event.preventDefault()
    fault ??= deviceError('webgpu', (event as GPUUncapturedErrorEvent).error.message)
  }
  device.addEventListener('uncapturederror', onError)

  const check = (): void => {
    if (ended) raise(deviceError('webgpu', 'the backend was disposed'))
    if (lost !== undefined) raise(lost)
    const f = fault
    fault = undefined
    if (f !== undefined) raise(f)
  }

  /** Resolves when the promise is settled either way, or the device lost. */
  const over = (work: Promise<unknown>): Promise<void> =>
    new Promise((resolve) => {
      const wake = () => {
        waiting.delete(wake)
        resolve()
      }
      waiting.add(wake)
      if (lost !== undefined) wake()
      work.then(wake, wake)
    })

  return {
    check,
    settle: async (work) => {
      await over(work)
      check()
      await Promise.all(pending)
      check()
      try {
        return await work
      } catch (e) {
        if (e instanceof MixtrainException) throw e
        await over(new Promise((resolve) => setTimeout(resolve, GRACE_MS)))
        check()
        return raise(deviceError('webgpu', e instanceof Error ? e.message : String(e)))
      }
    },
    take: (size, usage, what) => {
      device.pushErrorScope('validation')
      device.pushErrorScope('out-of-memory')
      try {
        return device.createBuffer({ size, usage })
      } finally {
        for (const scope of [device.popErrorScope(), device.popErrorScope()]) {
          const heard: Promise<void> = scope
            .then(
              (e) => {
                if (e !== null) fault ??= { kind: 'memory', needed: held() + size, budget: held(), what }
              },
              () => undefined,
            )
            .then(() => {
              pending.delete(heard)
            })
          pending.add(heard)
        }
      }
    },
    end: () => {
      ended = true
      device.removeEventListener('uncapturederror', onError)
    },
  }
}
