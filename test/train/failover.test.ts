import * as E from 'fp-ts/lib/Either.js'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openDevice, withFallback } from '../../src/backend/device.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { openGpu } from '../../src/backend/webgpu/adapter.ts'
import { webgpu } from '../../src/backend/webgpu/webgpu.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { deviceError, type MixtrainError, MixtrainException, raise, show, usage } from '../../src/core/error.ts'
import { slice, take } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { bernoulli } from '../../src/loss/loss.ts'
import { mixTrain } from '../../src/loss/objective.ts'
import { cosine, linear } from '../../src/loss/schedule.ts'
import { conv, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { ibp, symbolic } from '../../src/robust/bounds.ts'
import { adaptive } from '../../src/train/balance.ts'
import { decodeCheckpoint, encodeCheckpoint, restore, type Settings } from '../../src/train/checkpoint.ts'
import { type Checkpoint, type Failure, type FitOptions, fit, type TrainedEpoch } from '../../src/train/fit.ts'
import { adam, clipGradients, type Optimizer, sgd } from '../../src/train/optimizer.ts'
import { right, skipped } from '../shared.ts'

/** A backend that fails in mid-training: training goes on elsewhere, or stops with a checkpoint. */

const data = await digits()
const task = { input: [1, 28, 28], classes: 10 } as const
const tiny = network('tiny', sequential(conv(2, 4, 4), relu, flatten, dense(8), relu, dense(10)), task)
const simd = right(await wasm({ threads: 1 })())

const options: FitOptions = {
  network: tiny,
  loss: mixTrain({ k: 2, gate: bernoulli(0.7) }),
  optimizer: clipGradients(5)(adam({ lr: cosine(5e-3, 0, 0.5), weightDecay: 1e-4 })),
  train: take(30)(data.train),
  monitor: slice(200, 210)(data.train),
  epsilon: 0.05,
  epsilonSchedule: linear(0.01, 0.05, 0, 0.7),
  balance: adaptive({ start: 0.5, min: 0.1, max: 0.9, step: 0.1, tolerance: 0.01 }),
  epochs: 3,
  batchSize: 6,
  seed: 7,
  method: symbolic,
  attack: { name: 'pgd', steps: 2, restarts: 1, stepSize: 1, seed: 0 },
  evaluationBatch: 5,
}
const STEPS = 5

const collect = async (backend: Backend, over: Partial<FitOptions> = {}): Promise<readonly TrainedEpoch[]> => {
  const epochs: TrainedEpoch[] = []
  for await (const epoch of fit({ ...options, ...over })(backend)) epochs.push(epoch)
  return epochs
}
/** All that a run determines: everything but the time it took. */
const bits = (epochs: readonly TrainedEpoch[]) =>
  epochs.map(({ seconds: _, checkpoint, device: __, ...record }) => ({ ...record, state: checkpoint.state }))

const whole = await collect(simd)

const lost = deviceError('webgpu', 'the device was lost: on purpose')
const full: MixtrainError = { kind: 'memory', needed: 2, budget: 1, what: 'a buffer' }

interface Fault {
  /** Number of the run that does not happen any more. */
  readonly at: number
  readonly error?: MixtrainError
  /** When the error becomes known: at once, with the next read or sync as on a GPU, or with a sync after a read. */
  readonly known?: 'at once' | 'late' | 'very late'
}

/** WASM, until it fails: from then on nothing is computed, and once that is known every call throws but those that free. */
const failing = (
  { at, error = lost, known = 'at once' }: Fault,
  fallback = true,
): Backend & { readonly runs: () => number } => {
  let runs = 0
  let wasRead = false
  let told = false
  const check = (call: 'any' | 'read' | 'sync'): void => {
    if (runs < at) return
    told ||= known === 'at once' || (known === 'late' && call !== 'any') || (call === 'sync' && wasRead)
    if (told) raise(error)
    wasRead ||= call === 'read'
  }
  const { fallback: _, ...rest } = simd
  return {
    ...rest,
    name: 'webgpu',
    runs: () => runs,
    alloc: (length) => {
      check('any')
      return simd.alloc(length)
    },
    write: (b, d, offset) => {
      check('any')
      simd.write(b, d, offset)
    },
    read: async (b, from, length) => {
      check('read')
      return simd.read(b, from, length)
    },
    compile: (plan) => (told ? TE.left(error) : simd.compile(plan)),
    run: (e, args) => {
      runs++
      if (runs < at) simd.run(e, args)
      else check('any')
    },
    sync: async () => check('sync'),
    dispose: () => undefined,
    ...(fallback ? { fallback: TE.right(simd) } : {}),
  }
}

const withoutFault = failing({ at: Number.POSITIVE_INFINITY })

test('host copies change nothing', async () => {
  for (const snapshotEvery of [undefined, 1, 2])
    assert.equal(bits(await collect(withoutFault, { snapshotEvery })), bits(whole))
  assert.is(simd.stats().live, 0)
})

test('whenever the device fails, and however it says so: the model is that of an uninterrupted run', async () => {
  const total = withoutFault.runs() / 3
  const seen = new Set<number>()
  for (let at = 1; at <= total; at += 2)
    for (const [snapshotEvery, known] of [
      [undefined, at % 4 === 1 ? 'late' : 'very late'],
      [2, at % 4 === 1 ? 'at once' : 'very late'],
    ] as const) {
      const failures: Failure[] = []
      const epochs = await collect(failing({ at, known, error: at % 3 === 0 ? full : lost }), {
        snapshotEvery,
        failed: (f) => {
          failures.push(f)
        },
      })
      assert.equal(bits(epochs), bits(whole), `run ${at}, copies every ${snapshotEvery}`)
      assert.is(failures.length, 1)
      const [{ to, from, steps, kept, error }] = failures
      assert.is(to, simd)
      assert.is(from.name, 'webgpu')
      assert.equal(error, at % 3 === 0 ? full : lost)
      assert.ok(kept <= steps && (known !== 'at once' || steps - kept < 2), `${kept} of ${steps}`)
      seen.add(kept)
      assert.is(epochs.at(-1)?.device, 'wasm')
      assert.is(simd.stats().live, 0)
    }
  assert.ok(seen.has(0) && seen.has(2) && seen.has(4) && seen.has(STEPS) && seen.has(2 * STEPS + 4), `${[...seen]}`)
})

test('the terms and the time of an epoch that two devices share are those of the whole epoch', async () => {
  let failure: Failure | undefined
  const slow = async () => {
    if (failure === undefined) await new Promise<void>((resolve) => setTimeout(resolve, 60))
  }
  const [first] = await collect(failing({ at: 4 }), {
    epochs: 1,
    snapshotEvery: 1,
    progress: slow,
    failed: (f) => {
      failure = f
    },
  })
  assert.is(failure?.kept, 3)
  assert.is(failure?.checkpoint.within?.steps, 3)
  const before = failure?.checkpoint.within?.seconds ?? 0
  assert.ok(before > 0.1 && first.seconds > before, `${before} of ${first.seconds}`)
})

const settings: Settings = {
  mixtrain: '0.1.0',
  data: 'digits',
  dataSha256: '0123456789abcdef'.repeat(4),
  network: 'tiny',
  loss: 'mixtrain',
  epsilon: 0.05,
  epochs: 3,
  batchSize: 6,
  k: 2,
  balance: 'adaptive',
  lr: 5e-3,
  seed: 7,
  trainLimit: null,
  testLimit: null,
  device: 'webgpu',
  arithmetic: 'exact',
  fallback: 'wasm',
  moved: [{ device: 'webgpu', steps: 8, reason: 'lost' }],
}

/** What comes back from the file of a checkpoint. */
const filed = async (checkpoint: Checkpoint, { slots }: Optimizer = options.optimizer): Promise<Checkpoint> => {
  const stored = right(await decodeCheckpoint(await encodeCheckpoint(tiny, checkpoint, settings), 'c')())
  assert.equal(stored.settings, settings)
  return right(restore(stored, tiny, slots))
}

/** Runs to the error that it must end with. */
const stopped = async (backend: Backend, over: Partial<FitOptions>) => {
  const epochs: TrainedEpoch[] = []
  const failures: Failure[] = []
  const failed = (f: Failure) => {
    failures.push(f)
  }
  try {
    for await (const epoch of fit({ ...options, ...over, failed })(backend)) epochs.push(epoch)
  } catch (e) {
    assert.ok(e instanceof MixtrainException, String(e))
    return { epochs, failures, error: e.error }
  }
  throw new Error('no error')
}

test('without a fallback a run stops with a checkpoint, in which it goes on as if it had not stopped', async () => {
  for (const at of [1, 4, 9, 12, 17, 22]) {
    const { epochs, failures, error } = await stopped(
      failing({ at, known: at % 2 === 0 ? 'late' : 'at once' }, false),
      { snapshotEvery: 1 },
    )
    assert.equal(error, lost)
    assert.is(failures.length, 1)
    const [{ to, checkpoint }] = failures
    assert.is(to, undefined)
    const rest = await collect(simd, { resume: await filed(checkpoint) })
    assert.equal(bits([...epochs, ...rest]), bits(whole), `run ${at}`)
    assert.is(simd.stats().live, 0)
  }
})

test('a fallback that cannot be opened leaves the error of the device', async () => {
  const broken = { ...failing({ at: 3 }), fallback: TE.left(deviceError('wasm', 'no memory')) }
  const { failures, error } = await stopped(broken, {})
  assert.equal(error, lost)
  assert.is(failures[0].to, undefined)
  assert.is(simd.stats().live, 0)
})

test('errors of the program, and of WASM alone, pass as they are', async () => {
  const mistaken = await stopped(failing({ at: 3, error: usage('a mistake') }), {})
  assert.equal(mistaken.error, usage('a mistake'))
  assert.equal(mistaken.failures, [])
  const plain = { ...failing({ at: 3 }, false), name: 'wasm' as const }
  const alone = await stopped(plain, {})
  assert.equal(alone.error, lost)
  assert.equal(alone.failures, [])
})

test('WASM alone makes no host copies', async () => {
  const counted = {
    ...simd,
    syncs: 0,
    sync: async () => {
      counted.syncs++
    },
  }
  assert.equal(bits(await collect(counted, { snapshotEvery: 1 })), bits(whole))
  assert.is(counted.syncs, options.epochs)
})

test('a checkpoint that is further into an epoch than there are steps is refused', async () => {
  const within = { steps: STEPS + 1, terms: {}, seconds: 0 }
  const { error } = await stopped(simd, { resume: { ...whole[0].checkpoint, within } })
  assert.match(show(error), /6 steps into an epoch, which has 5/)
})

test('a fallback is opened once, and ends with its backend', async () => {
  let [opened, ended] = [0, 0]
  const other: Backend = {
    ...simd,
    dispose: () => {
      ended++
    },
  }
  const main: Backend = {
    ...simd,
    dispose: () => {
      ended++
    },
  }
  const open = async () => {
    opened++
    return E.right(other)
  }
  const unused = withFallback(main, open)
  unused.dispose()
  assert.equal([opened, ended], [0, 1])
  const used = withFallback(main, open)
  assert.is(right((await used.fallback?.()) ?? E.left(lost)), other)
  assert.is(right((await used.fallback?.()) ?? E.left(lost)), other)
  used.dispose()
  await Promise.resolve().then(() => undefined)
  assert.equal([opened, ended], [1, 3])
})

// ---- a real device ---------------------------------------------------------------------------------------------------

const probe = await openGpu('any')
if (E.isLeft(probe)) skipped('a GPU lost in mid-training', show(probe.left))
else {
  probe.right.device.destroy()
  /** The least that a software adapter can train. */
  const quick = {
    loss: mixTrain({ k: 2 }),
    optimizer: sgd({ lr: 0.05, momentum: 0.5 }),
    method: ibp,
    attack: undefined,
    epochs: 2,
    monitor: slice(200, 205)(data.train),
  } satisfies Partial<FitOptions>

  /** A WebGPU backend whose device is destroyed when training has come to a step. */
  const doomed = async (step: number) => {
    const { device } = right(await openGpu('any'))
    const backend = right(await webgpu({ device })())
    const progress: NonNullable<FitOptions['progress']> = async ({ phase, epoch, done }) => {
      if (phase === 'training' && epoch * STEPS + done === step) device.destroy()
      await new Promise((resolve) => setTimeout(resolve))
    }
    return { backend, progress }
  }

  const close = (a: Checkpoint, b: Checkpoint, tolerance: number) => {
    for (const [k, p] of Object.entries(a.state.parameters)) {
      const far = p.findIndex((v, i) => !(Math.abs(v - b.state.parameters[k][i]) <= tolerance))
      assert.is(far, -1, `${k}[${far}] is ${p[far]}, not ${b.state.parameters[k][far]}`)
    }
  }

  test('device.destroy() in mid-training: on auto the run ends on WASM with a correct model', async () => {
    const want = await collect(simd, quick)
    const { backend, progress } = await doomed(STEPS + 2)
    const guarded = withFallback(backend, wasm({ threads: 1 }))
    const failures: Failure[] = []
    const epochs = await collect(guarded, {
      ...quick,
      progress,
      snapshotEvery: 3,
      failed: (f) => {
        failures.push(f)
      },
    })
    assert.is(failures.length, 1)
    const [{ steps, kept, to, error }] = failures
    assert.match(show(error), 'device webgpu: ')
    assert.ok(kept === STEPS && steps >= STEPS + 2, `${kept} of ${steps}`)
    assert.equal(
      epochs.map((e) => e.device),
      ['webgpu', 'wasm'],
    )
    assert.is(to?.stats().live, 0)
    assert.is(guarded.stats().live, 0)
    close(epochs[1].checkpoint, want[1].checkpoint, 1e-3)
    guarded.dispose()
  })

  test('device.destroy() in mid-training: by name the run stops with a checkpoint that it goes on from', async () => {
    const want = await collect(simd, quick)
    const { backend, progress } = await doomed(STEPS + 4)
    const { epochs, failures, error } = await stopped(backend, { ...quick, progress, snapshotEvery: 3 })
    assert.is(error.kind, 'device')
    assert.is(epochs.length, 1)
    assert.is(failures[0].kept, STEPS + 3)
    assert.is(backend.stats().live, 0)
    backend.dispose()
    const again = right(await openDevice({ device: 'webgpu' })())
    assert.is(again.backend.fallback, undefined)
    const rest = await collect(again.backend, {
      ...quick,
      resume: await filed(failures[0].checkpoint, quick.optimizer),
    })
    close(rest[0].checkpoint, want[1].checkpoint, 1e-3)
    again.backend.dispose()
  })
}

test('no buffer is left', () => {
  assert.is(simd.stats().live, 0)
  simd.dispose()
})

test.run()
