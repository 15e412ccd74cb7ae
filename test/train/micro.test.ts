import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { device } from '../../src/backend/device.ts'
import { team } from '../../src/cluster/team.ts'
import { openRegion } from '../../src/compile/region.ts'
import { sha256 } from '../../src/core/hash.ts'
import { fold, key, uniform } from '../../src/core/key.ts'
import { type Loss, withPopulation } from '../../src/loss/loss.ts'
import { verifiable } from '../../src/loss/objective.ts'
import { batchNorm, conv, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network } from '../../src/nn/networks.ts'
import { ibp } from '../../src/robust/bounds.ts'
import { microTrainer } from '../../src/train/micro.ts'
import { adam } from '../../src/train/optimizer.ts'
import { alone, type Ranks } from '../../src/train/ranks.ts'
import { loopback } from './loopback.ts'

const [M, N] = [6, 4]
const BATCH = M * N
const normed = network('normed', sequential(conv(2, 3, 2, 1), batchNorm, relu, flatten, dense(3)), {
  input: [1, 6, 6],
  classes: 3,
})
const images = (batch: number, micro: number) => ({
  inputs: uniform(fold(fold(key(5), batch), micro), N * 36),
  labels: Float32Array.from({ length: N }, (_, i) => (batch + micro + i) % 3),
})

/** Two steps, a measurement of the statistics over 8 pieces, and what a rank then has: state, mean terms and the loss. */
const trained = async (loss: Loss, ranks: Ranks, threads: number): Promise<string> => {
  const backend = await device({ device: 'wasm', threads })
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

/** What every rank of a job has. */
const trainedBy = (loss: Loss, size: number, threads: number): Promise<readonly string[]> =>
  Promise.all(loopback(size).map(async (mpi) => trained(loss, await team(mpi, 'here'), threads)))

for (const [name, loss] of [
  ['statistics of the micro-batch', verifiable(ibp)],
  ['running means', withPopulation(verifiable(ibp))],
] as const)
  test(`batch norm with ${name}: parameters, statistics and terms are the same bits for 1, 2 and 3 ranks of 1 and 2 threads`, async () => {
    const one = await trained(loss, alone, 1)
    assert.is(await trained(loss, alone, 2), one)
    for (const [size, threads] of [
      [2, 2],
      [3, 1],
    ] as const)
      assert.equal(await trainedBy(loss, size, threads), Array(size).fill(one), `${size} ranks`)
  })

test.run()
