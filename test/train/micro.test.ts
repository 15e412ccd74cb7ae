import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { device } from '../../src/backend/device.ts'
import { reference } from '../../src/backend/reference.ts'
import { team } from '../../src/cluster/team.ts'
import { openRegion } from '../../src/compile/region.ts'
import { sha256 } from '../../src/core/hash.ts'
import { fold, key, uniform } from '../../src/core/key.ts'
import { hardest, importance, type Scores, scored, stratified } from '../../src/loss/choice.ts'
import { add, alternate, gate, type Loss, named, sampled, withPopulation } from '../../src/loss/loss.ts'
import { natural, verifiable, worstCase, worstLogits } from '../../src/loss/objective.ts'
import { bounded } from '../../src/loss/region.ts'
import { crossEntropy } from '../../src/nn/criterion.ts'
import { batchNorm, conv, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { ibp } from '../../src/robust/bounds.ts'
import { microTrainer } from '../../src/train/micro.ts'
import { adam, sgd } from '../../src/train/optimizer.ts'
import { alone, type Ranks } from '../../src/train/ranks.ts'
import { trainer } from '../../src/train/step.ts'
import { loopback } from './loopback.ts'

const [M, N] = [6, 4]
const BATCH = M * N
const normed = network('normed', sequential(conv(2, 3, 2, 1), batchNorm, relu, flatten, dense(3)), {
  input: [1, 6, 6],
  classes: 3,
})
const hardness: Scores = scored(crossEntropy)(worstLogits(bounded(ibp)))
const bound: Loss = worstCase(crossEntropy)(bounded(ibp))
const images = (batch: number, micro: number) => ({
  inputs: uniform(fold(fold(key(5), batch), micro), N * 36),
  labels: Float32Array.from({ length: N }, (_, i) => (batch + micro + i) % 3),
})

/** Two steps, a measurement of the statistics over 8 pieces, and what a rank then has: state, mean terms and the loss. */
const trained = async (loss: Loss, ranks: Ranks, threads: number, isSeen = true): Promise<string> => {
  const whole = await device({ device: 'wasm', threads })
  const { view: _, ...others } = whole
  const backend = isSeen ? whole : others
  const { region, close } = openRegion(backend)
  try {
    const loop = await microTrainer(region)(
      {
        ...{ network: normed, loss, optimizer: adam({ lr: 0.01 }), batchSize: BATCH, range: [0, 1] },
        ...{ microBatches: M, ranks },
      },
      { parameters: normed.init(key(1)), slots: {} },
    )
    for (let count = 0; count < 2; count++)
      await loop.step((micro) => images(count, micro), {
        ...{ count, epoch: 0, progress: count / 2, epsilon: 0.05, balance: 0.5, key: fold(key(2), count) },
      })
    const after = await loop.state()
    const [terms, last] = [await loop.terms(), await loop.loss()]
    await loop.calibrate({ count: 8, at: (i) => images(9, i).inputs })
    const calibrated = await loop.state()
    const text = JSON.stringify([after, calibrated, terms, last], (_, x) =>
      x instanceof Float32Array ? Buffer.from(x.buffer, x.byteOffset, x.byteLength).toString('hex') : x,
    )
    return sha256(new TextEncoder().encode(text))
  } finally {
    close()
    backend.dispose()
  }
}

/** What every rank of a job has; rank 1 may have a device whose memory its process does not see. */
const trainedBy = (loss: Loss, size: number, threads: number, isSeen: boolean): Promise<readonly string[]> =>
  Promise.all(
    loopback(size).map(async (mpi, rank) => trained(loss, await team(mpi, 'here'), threads, isSeen || rank !== 1)),
  )

for (const [name, loss] of [
  // Clean terms have statistics of the micro-batch.
  ['batch norm with running means', withPopulation(verifiable(ibp))],
  // Images are chosen of the whole batch, in some steps only, and not equally many in each micro-batch.
  ['images by importance', add(natural(crossEntropy), gate(alternate(1, 2))(importance(7, hardness)(bound)))],
] as const)
  test(`${name}: parameters, statistics and terms are the same bits for 1, 2 and 3 ranks of 1 and 2 threads`, async () => {
    const one = await trained(loss, alone, 1)
    for (const [size, threads, isSeen] of [
      [2, 2, true],
      [2, 1, false],
      [3, 1, true],
    ] as const)
      assert.equal(await trainedBy(loss, size, threads, isSeen), Array(size).fill(one), `${size} ranks`)
  })

const plain = network('plain', sequential(flatten, dense(4), relu, dense(3)), { input: [1, 6, 6], classes: 3 })
const start = { parameters: plain.init(key(1)), slots: {} }
const at = (count: number) => ({
  ...{ count, epoch: 0, progress: 0.5, epsilon: 0.05, balance: 0.5, key: fold(key(2), count) },
})

/** Mean terms of three steps without an update, each logged alone: of micro-batches, or of batches in one piece. */
const termsOf = async (loss: Loss, microBatches: number): Promise<readonly number[]> => {
  const { region, close } = openRegion(reference())
  try {
    const options = { network: plain, loss, optimizer: sgd({ lr: 0 }), batchSize: BATCH, range: [0, 1] as const }
    const whole = microBatches === 1 ? await trainer(region)(options, start) : undefined
    const cut =
      microBatches === 1 ? undefined : await microTrainer(region)({ ...options, microBatches, ranks: alone }, start)
    const found: number[] = []
    for (let count = 0; count < 3; count++) {
      const pieces = Array.from({ length: M }, (_, micro) => images(count, micro))
      const inputs = Float32Array.from(pieces.flatMap((p) => [...p.inputs]))
      const labels = Float32Array.from(pieces.flatMap((p) => [...p.labels]))
      const n = BATCH / microBatches
      await whole?.step(inputs, labels, at(count))
      await cut?.step(
        (micro) => ({
          inputs: inputs.subarray(micro * n * 36, (micro + 1) * n * 36),
          labels: labels.subarray(micro * n, (micro + 1) * n),
        }),
        at(count),
      )
      found.push((await (whole ?? cut)?.terms())?.robust as number)
    }
    return found
  } finally {
    close()
  }
}

for (const k of [7])
  for (const [name, choice] of [
    ['hardest', hardest(k, hardness)],
    ['stratified', stratified(k)],
    ['importance', importance(k, hardness)],
  ] as const)
    test(`${name}(${k}) over micro-batches is ${name}(${k}) of the batch in one piece`, async () => {
      const whole = await termsOf(named('robust')(choice(bound)), 1)
      for (const microBatches of [2, 12]) {
        const cut = await termsOf(named('robust')(choice(bound)), microBatches)
        assert.is(cut.length, whole.length)
        cut.forEach((x, i) =>
          assert.ok(
            Math.abs(x - whole[i]) < 1e-5 * (1 + Math.abs(whole[i])),
            `${microBatches}: ${cut}, wanted ${whole}`,
          ),
        )
      }
      // Another k, or images drawn at random, would give other values.
      const random = await termsOf(named('robust')(sampled(k)(bound)), 1)
      assert.ok(random.some((x, i) => Math.abs(x - whole[i]) > 1e-3))
    })

test.run()
