import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { imagesOfRank, verifyOver } from '../../src/cluster/spread.ts'
import { key } from '../../src/core/key.ts'
import { take } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { networks } from '../../src/nn/networks.ts'
import { ibp } from '../../src/robust/bounds.ts'
import { verify } from '../../src/train/verify.ts'
import { right } from '../shared.ts'

test("every image is some rank's, and all ranks have equally many", () => {
  for (const count of [1, 2, 7, 12, 100])
    for (const size of [1, 2, 3, 5]) {
      const parts = Array.from({ length: size }, (_, rank) => imagesOfRank(count, { rank, size }))
      assert.equal(
        [...new Set(parts.flat())].sort((a, b) => a - b),
        Array.from({ length: count }, (_, i) => i),
      )
      assert.is(new Set(parts.map((p) => p.length)).size, 1)
    }
})

test('ranks say together what one process says', async () => {
  const network = networks.mlp({ input: [1, 28, 28], classes: 10 })
  const data = take(23)((await digits()).test)
  const attack = { name: 'pgd', steps: 3, restarts: 1, stepSize: 0.5, seed: 0 } as const
  const asked = { network, parameters: network.init(key(3)), data, epsilon: 0.003, method: ibp, attack, batchSize: 8 }
  const size = 3
  const backends = await Promise.all(Array.from({ length: size }, async () => right(await wasm({ threads: 1 })())))
  // A round is over when every rank has told its text.
  const rounds: { texts: string[]; done: Promise<void>; end: () => void }[] = []
  const roundAt = (i: number) => {
    if (rounds[i] === undefined) {
      let end = () => {}
      const done = new Promise<void>((resolve) => {
        end = resolve
      })
      rounds[i] = { texts: [], done, end }
    }
    return rounds[i]
  }
  const summaries = await Promise.all(
    backends.map((backend, rank) => {
      let told = 0
      const collect = async (text: string) => {
        const round = roundAt(told++)
        round.texts[rank] = text
        if (round.texts.filter((t) => t !== undefined).length === size) round.end()
        await round.done
        return round.texts
      }
      return verifyOver({ rank, size, collect }, asked)(backend)
    }),
  )
  const { acc, era, vra, robust } = await verify(asked)(backends[0])
  assert.ok(acc > 0 && acc < 1)
  for (const s of summaries) assert.equal([s.acc, s.era, s.vra, s.robust, s.count], [acc, era, vra, robust, 23])
  for (const b of backends) b.dispose()
})

test.run()
