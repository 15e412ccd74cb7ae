import { readFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import * as words from '../../src/backend/wasm/words.ts'
import * as lowering from '../../src/core/lowering.ts'
import { fill, matmul } from './instructions.ts'

const root = new URL('../../../', import.meta.url)

test('assembly/words.ts is what the table of words makes', async () => {
  const { textOf } = await import(new URL('tools/words.js', root).href)
  assert.is(readFileSync(new URL('assembly/words.ts', root), 'utf8'), textOf(words, lowering))
})

test('every field of an instruction is the word that the machine is told', () => {
  const { Fill, Matmul, Header, Repeat, Moving } = Object.fromEntries(
    Object.entries(words.placesOf()).map(([name, places]) => [name, Object.fromEntries(places)]),
  )
  const sizes = { m: 3, k: 5, n: 7, transA: false, transB: true, batch: 11, strideA: 13, strideB: 17, strideOut: 19 }
  const product = matmul([23, 29, 31], sizes, { bias: 37, relu: true }, 41)
  const code = [...words.encode([product])]
  const read = Object.entries(Matmul).slice(0, -1)
  assert.equal(Object.fromEntries(read.map(([name, at]) => [name, code[at]])), {
    ...{ a: 23, b: 29, out: 31, ...sizes },
    ...{ transA: 0, transB: 1 },
  })
  assert.equal(code.slice(Matmul.end, code[Header.length]), [38, 1])
  assert.is(code[Header.work], 41)
  assert.equal(code.slice(code[Header.length]), [words.Opcode.halt, 3, 0])

  const moving = [{ slot: 2, store: 3, at: 8, stride: 4 }]
  const body = [fill(2, 0, 4, -1)]
  const rounds = [...words.encode([{ kind: 'repeat', work: 0, count: 0, per: 2, most: 6, round: 1, moving, body }])]
  const place = rounds.slice(Repeat.end)
  assert.equal([place[Moving.slot], place[Moving.store], place[Moving.at], place[Moving.stride]], [2, 3, 8, 4])
  const inner = place.slice(Moving.end)
  assert.is(inner[Fill.bits], -0x40800000)
  assert.equal(inner.slice(inner[Header.length]), [words.Opcode.end, 3, 0, words.Opcode.halt, 3, 0])
})

test.run()
