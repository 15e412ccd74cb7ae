import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { verifyProperty } from '../../src/verify/branch-and-bound.ts'
import { json } from '../cli/run.ts'
import { dense, exactMinimum } from '../robust/exact.ts'
import { right, shared, skipped } from '../shared.ts'
import { boxed, constraint, instances, judged, mnistfc, propertyOf } from '../verify/verify-help.ts'

const simd = right(await wasm({ threads: 2 })())

const known = instances()
if (known === undefined) skipped('VNN-COMP instances', '../shared is absent')
else {
  const model = shared('models/mnistfc_256x2.onnx') as string
  for (const { property, verdict } of known)
    test(`${property} on the command line: ${verdict}, within 120 s on two threads`, async () => {
      const begun = performance.now()
      const path = shared(`vnnlib/${property}`) as string
      const result = await json(['verify', model, path, '--timeout', '120', '--threads', '2', '--device', 'wasm'])
      assert.is(result.verdict, verdict)
      assert.ok(performance.now() - begun < 120_000)
    })

  /** prop_13 round the same image with another radius. */
  const wider = (epsilon: number) => {
    const property = propertyOf('prop_13_0.03.vnnlib')
    const [c] = property.cases
    const grow = epsilon - 0.03
    const box = {
      // The file's box is cut to [0, 1]: an end at the cut stays there.
      lower: c.lower.map((v) => (v <= 0 ? 0 : Math.max(0, v - grow))),
      upper: c.upper.map((v) => (v >= 1 ? 1 : Math.min(1, v + grow))),
    }
    return { ...property, cases: [{ ...c, ...box, outward: box }] }
  }
  test('round the image of prop_13 there is one radius at which the verdict turns', async () => {
    const verdicts: string[] = []
    for (const epsilon of [0.02, 0.03, 0.033, 0.036, 0.039, 0.042, 0.05]) {
      const result = await verifyProperty({ ...mnistfc(), property: wider(epsilon), timeout: 120 })(simd)
      verdicts.push(result.verdict)
    }
    assert.match(verdicts.join(' '), /^(unsat )+sat( sat)*$/)
  })
}

test('fifty random networks of two inputs: verdicts agree with the enumeration of activation patterns', async () => {
  for (let seed = 100; seed < 150; seed++) {
    const net = dense(seed, seed % 3 === 0 ? [2, 8, 8, 8, 3] : [2, 10, 8, 3], seed % 5 === 0 ? 0.0625 : 0)
    const [lower, upper] = [
      [-1, -0.7],
      [1, 0.9],
    ]
    const rows =
      seed % 2 === 0
        ? [[1, -1, 0]]
        : [
            [1, -1, 0],
            [1, 0, -1],
          ]
    const least = exactMinimum(
      net,
      lower,
      upper,
      rows.map((coefficients) => ({ coefficients, bound: 0 })),
    )
    for (const gap of [-0.01, 0.01])
      for (const split of ['inputs', 'relus'] as const) {
        const cases = [boxed(lower, upper, [rows.map((r) => constraint(r, least + gap))])]
        const { verdict } = await judged(simd, net, cases, { split, timeout: 60 })
        assert.is(verdict, gap < 0 ? 'unsat' : 'sat', `seed ${seed}, split at ${split}`)
      }
  }
})

test('no buffer is left', () => {
  assert.is(simd.stats().live, 0)
  simd.dispose()
})

test.run()
