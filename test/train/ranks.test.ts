import * as fc from 'fast-check'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { joined, partOf, type Span, spansOf, sumOf } from '../../src/train/ranks.ts'

const floats = (seed: number, i: number): Float32Array =>
  Float32Array.from({ length: 5 }, (_, j) => Math.sin(seed + 31 * i + 7 * j) * 10 ** ((i * 5 + j * 3) % 9))

test('the parts of ranks cover all micro-batches, and the tree has the same bits whoever sums which', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 21 }),
      fc.integer({ min: 1, max: 21 }),
      fc.integer(),
      async (M, size, seed) => {
        const leaf = async (i: number) => floats(seed, i)
        const whole = await sumOf([0, M], leaf)
        const known: (readonly [Span, Float32Array])[] = []
        const asked: number[] = []
        for (let rank = 0; rank < size; rank++)
          for (const span of spansOf(M, partOf(M, { rank, size })))
            known.push([
              span,
              await sumOf(span, async (i) => {
                asked.push(i)
                return leaf(i)
              }),
            ])
        assert.equal(
          asked,
          Array.from({ length: M }, (_, i) => i),
        )
        assert.equal(joined(M, known), whole)
      },
    ),
    { seed: 5 },
  )
})

test('another order of additions would have other bits', async () => {
  const M = 8
  const whole = await sumOf([0, M], async (i) => floats(1, i))
  const plain = floats(1, 0)
  for (let i = 1; i < M; i++)
    floats(1, i).forEach((x, j) => {
      plain[j] += x
    })
  assert.not.equal(plain, whole)
})

test.run()
