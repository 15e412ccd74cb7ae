import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { wholeChain } from '../proof/chain.ts'
import { right } from '../shared.ts'

test('1,000 random networks against their exact optima: what is decided is proved, what is false never is', async () => {
  const backend = right(await wasm({ threads: 1 })())
  let decided = 0
  for (let seed = 1001; seed <= 2000; seed++) decided += Number(await wholeChain(backend, seed))
  assert.ok(decided >= 990, `${decided} of 1,000 decided`)
})

test.run()
