import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { MixtrainException } from '../../src/core/error.ts'
import { slice, take } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { bernoulli, named } from '../../src/loss/loss.ts'
import { forward, judged, mixTrain, natural } from '../../src/loss/objective.ts'
import { cosine, linear } from '../../src/loss/schedule.ts'
import { crossEntropy } from '../../src/nn/criterion.ts'
import { conv, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network, small } from '../../src/nn/networks.ts'
import { symbolic } from '../../src/robust/bounds.ts'
import { adaptive, fixed } from '../../src/train/balance.ts'
import {
  type Checkpoint,
  type EpochRecord,
  type FitOptions,
  fit,
  type Progress,
  type StepRecord,
} from '../../src/train/fit.ts'
import { adam, clipGradients } from '../../src/train/optimizer.ts'
import { right } from '../shared.ts'

const data = await digits()
const task = { input: [1, 28, 28], classes: 10 } as const
const tiny = network('tiny', sequential(conv(4, 4, 4), relu, flatten, dense(16), relu, dense(10)), task)
const one = right(await wasm({ threads: 1 })())
const two = right(await wasm({ threads: 2 })())

/** A run that uses everything that could tell two runs apart. */
const options: FitOptions = {
  network: tiny,
  loss: mixTrain({ k: 2, gate: bernoulli(0.7) }),
  optimizer: clipGradients(5)(adam({ lr: cosine(5e-3, 0, 0.5), weightDecay: 1e-4 })),
  train: take(120)(data.train),
  monitor: slice(200, 230)(data.train),
  epsilon: 0.05,
  epsilonSchedule: linear(0.01, 0.05, 0, 0.7),
  balance: adaptive({ start: 0.5, min: 0.1, max: 0.9, step: 0.1, tolerance: 0.01 }),
  epochs: 3,
  batchSize: 20,
  seed: 42,
  method: symbolic,
  attack: { name: 'pgd', steps: 2, restarts: 1, stepSize: 1, seed: 0 },
  evaluationBatch: 15,
}

type Epoch = EpochRecord & { readonly checkpoint: Checkpoint }

const train = async (over: Partial<FitOptions> = {}, backend: Backend = one): Promise<readonly Epoch[]> => {
  const epochs: Epoch[] = []
  for await (const epoch of fit({ ...options, ...over })(backend)) epochs.push(epoch)
  assert.is(backend.stats().live, 0)
  assert.is(backend.stats().bytes, 0)
  return epochs
}

/** All that a run determines: everything but the time it took. */
const bits = (epochs: readonly Epoch[]) =>
  epochs.map(({ seconds: _, checkpoint, ...record }) => ({ ...record, state: checkpoint.state }))

const whole = await train()

test('records: one per epoch, metrics in order, schedules as given', () => {
  assert.equal(
    whole.map((e) => e.epoch),
    [0, 1, 2],
  )
  for (const e of whole) {
    assert.ok(e.vra <= Number(e.era) && Number(e.era) <= e.acc && e.acc <= 1)
    assert.ok(e.seconds > 0 && Number.isFinite(e.naturalLoss) && Number.isFinite(e.robustLoss))
    assert.ok(Number(e.robustLoss) > 0)
  }
  assert.is(whole[0].balance, 0.5)
  assert.ok(whole[0].epsilon < whole[1].epsilon && whole[2].epsilon === 0.05)
  assert.equal(
    whole[2].checkpoint.history.map((e) => e.epoch),
    [0, 1, 2],
  )
})

test('one seed, one run: for every number of threads the same bits', async () => {
  assert.equal(bits(await train()), bits(whole))
  assert.equal(bits(await train({}, two)), bits(whole))
})

test('another seed, another run', async () => {
  const other = await train({ seed: 43, epochs: 1 })
  assert.not.equal(bits(other)[0].state, bits(whole)[0].state)
})

test('going on from the checkpoint of an epoch gives the bits of the uninterrupted run', async () => {
  for (const from of [0, 1]) {
    const rest = await train({ resume: whole[from].checkpoint })
    assert.equal(bits(rest), bits(whole).slice(from + 1))
    assert.equal(
      rest[rest.length - 1].checkpoint.history.map(({ seconds: _, ...r }) => r),
      whole[2].checkpoint.history.map(({ seconds: _, ...r }) => r),
    )
  }
  assert.equal(await train({ resume: whole[2].checkpoint }), [])
})

test('the whole loss is in every record, whatever its terms are called; onStep is told of each step, and bits stay', async () => {
  const steps: StepRecord[] = []
  const epochs = await train({ onStep: (step) => void steps.push(step) })
  assert.equal(bits(epochs), bits(whole))
  assert.equal(
    steps.map(({ count }) => count),
    Array.from({ length: 18 }, (_, i) => i + 1),
  )
  for (const { epoch, loss, terms, naturalLoss, robustLoss } of epochs) {
    const own = steps.filter((s) => s.epoch === epoch)
    assert.equal(
      own.map(({ done }) => done),
      [1, 2, 3, 4, 5, 6],
    )
    const mean = own.reduce((sum, s) => sum + s.loss, 0) / own.length
    assert.ok(Math.abs(mean - Number(loss)) < 1e-5, `${mean} ${loss}`)
    assert.equal(terms, { natural: naturalLoss, ...(robustLoss === null ? {} : { robust: robustLoss }) })
  }
  // Terms under names of one's own, and none at all.
  const [{ loss, terms, naturalLoss }] = await train({ loss: named('mine')(judged(crossEntropy)(forward)), epochs: 1 })
  assert.is(naturalLoss, null)
  assert.equal(terms, { mine: loss })
  assert.ok(Number(loss) > 0)
})

test('an aborted signal ends the stream with its reason, before and within an epoch', async () => {
  const controller = new AbortController()
  let steps = 0
  const onStep = () => {
    if (++steps === 8) controller.abort()
  }
  const failed = await train({ signal: controller.signal, onStep }).catch((e: unknown) => e)
  assert.is((failed as Error).name, 'AbortError')
  assert.is(steps, 8)
  assert.is(one.stats().live, 0)
  assert.is(await train({ signal: AbortSignal.abort('enough') }).catch((e: unknown) => e), 'enough')
})

test('training begins at given parameters', async () => {
  const { parameters } = whole[2].checkpoint.state
  const still = adam({ lr: 0 })
  const [{ checkpoint }] = await train({ parameters, optimizer: still, epochs: 1 })
  assert.equal(checkpoint.state.parameters, parameters)
  const { message } = await train({ parameters: { ...parameters, '0.weight': new Float32Array(3) } }).catch((e) => e)
  assert.match(message, /parameter 0.weight of network tiny must have 64 elements/)
  const both = await train({ parameters, resume: whole[0].checkpoint }).catch((e) => e)
  assert.match(both.message, /leave resume or parameters out/)
})

test('leaving the loop early frees everything', async () => {
  for await (const epoch of fit(options)(one)) {
    assert.ok(one.stats().live > 0)
    if (epoch.epoch === 0) break
  }
  assert.is(one.stats().live, 0)
  // A stream that is never read costs nothing.
  fit(options)(one)
  assert.is(one.stats().live, 0)
})

test('an exception in the middle frees everything and arrives as it was thrown', async () => {
  const boom = new Error('boom')
  const fail = (when: (p: Progress) => boolean) => async () => {
    const epochs: number[] = []
    try {
      for await (const epoch of fit({
        ...options,
        progress: (p) => {
          if (when(p)) throw boom
        },
      })(one))
        epochs.push(epoch.epoch)
      assert.unreachable('no error')
    } catch (e) {
      assert.is(e, boom)
    }
    assert.is(one.stats().live, 0)
    return epochs
  }
  assert.equal(await fail((p) => p.phase === 'training' && p.epoch === 1 && p.done === 3)(), [0])
  assert.equal(await fail((p) => p.phase === 'evaluating' && p.epoch === 0)(), [])
  const augment = () => {
    throw boom
  }
  try {
    await train({ augment })
    assert.unreachable('no error')
  } catch (e) {
    assert.is(e, boom)
  }
  assert.is(one.stats().live, 0)
  // In the reader's own loop, too.
  try {
    for await (const _ of fit(options)(one)) throw boom
  } catch (e) {
    assert.is(e, boom)
  }
  assert.is(one.stats().live, 0)
})

test('runs one after the other need no more memory than one', async () => {
  await train({ epochs: 1 })
  const { peak } = one.stats()
  for (let i = 0; i < 3; i++) await train({ epochs: 1 })
  assert.is(one.stats().peak, peak)
})

test('progress counts steps and images up to their totals', async () => {
  const seen: Progress[] = []
  await train({
    epochs: 1,
    progress: (p) => {
      seen.push(p)
    },
  })
  const training = seen.filter((p) => p.phase === 'training')
  assert.equal(
    training.map((p) => p.done),
    [1, 2, 3, 4, 5, 6],
  )
  assert.ok(training.every((p) => p.total === 6))
  // Bounds are the first half of the work, the attack on what is classified correctly is the second.
  const evaluating = seen.filter((p) => p.phase === 'evaluating')
  const done = evaluating.map((p) => p.done)
  assert.equal(
    done,
    [...done].sort((a, b) => a - b),
  )
  assert.ok(done.includes(15))
  assert.is(done.at(-1), 30)
  assert.ok(evaluating.every((p) => p.total === 30))
})

test('options that cannot work are usage errors, and leave nothing behind', async () => {
  for (const over of [
    { batchSize: 121 },
    { epsilon: -0.1 },
    { epsilon: 2 },
    { epsilon: Number.NaN },
    { monitor: take(0)(data.train) },
  ] satisfies readonly Partial<FitOptions>[])
    try {
      await train(over)
      assert.unreachable('no error')
    } catch (e) {
      assert.ok(e instanceof MixtrainException && e.error.kind === 'usage', String(e))
      assert.is(one.stats().live, 0)
    }
})

test('learns: the loss on 300 digits falls in 2 epochs', async () => {
  const [first, second] = await train({
    network: small(task),
    loss: natural(crossEntropy),
    optimizer: adam({ lr: 2e-3 }),
    train: take(300)(data.train),
    epochs: 2,
    batchSize: 10,
    attack: undefined,
    balance: fixed(0),
    method: symbolic,
    epsilon: 0,
  })
  assert.ok(Number(second.naturalLoss) < 0.7 * Number(first.naturalLoss), `${first.naturalLoss}, ${second.naturalLoss}`)
  assert.ok(second.acc > 0.5, `acc ${second.acc}`)
  assert.is(second.robustLoss, null)
  assert.is(second.era, null)
})

test('no buffer is left', () => {
  for (const backend of [one, two]) {
    assert.is(backend.stats().live, 0)
    backend.dispose()
  }
})

test.run()
