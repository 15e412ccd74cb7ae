import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { evaluate } from '../../src/compile/run.ts'
import type { Relax } from '../../src/core/op.ts'
import type { Apply, Operand, Tensor } from '../../src/core/tensor.ts'
import * as O from '../../src/ops/index.ts'
import { alphaCrown } from '../../src/robust/alpha-crown.ts'
import { type Bounder, boundsOf, crown, crownIbp, ibp, symbolic } from '../../src/robust/bounds.ts'
import { margins } from '../../src/robust/specification.ts'
import { SEED } from '../ops/property.ts'
import { boxAround, chain, conv, fc, flatten, parameters } from './networks.ts'

/**
 * Nothing knows an op by name: one of a user's own, whose record says what that of the leaky ReLU says, has its bounds, by every method,
 * in windows, screened, listed, with slopes to choose, and rounded outward.
 */
const SLOPE = 0.25
const own: Apply = (() => {
  const { vjp, interval, relax, outward, leak } = O.leakyReluOp
  const attrs = { slope: SLOPE }
  const lines = outward?.relax
  if (
    typeof interval !== 'function' ||
    typeof relax !== 'function' ||
    typeof lines !== 'function' ||
    leak === undefined
  )
    throw new Error('the record of the leaky ReLU has other rules')
  return O.custom({
    name: 'own',
    forward: ([x]) => O.maximum(x, O.mul(SLOPE, x)) as Tensor,
    vjp: (ct, xs, out) => vjp(ct, xs, out, attrs),
    interval: (xs) => interval(xs, attrs),
    relax: (xs, _, slope) => (relax as Relax<typeof attrs>)(xs, attrs, slope),
    outward: { interval: 'rounded', relax: (xs, _, slope) => lines(xs, attrs, slope) },
    leak: () => leak(attrs),
  }) as Apply
})()

const METHODS: Readonly<Record<string, Bounder>> = {
  ibp,
  symbolic,
  crown,
  'crown-ibp': crownIbp,
  'alpha-crown': alphaCrown({ steps: 3, lr: 0.2 }),
}

for (const [name, method] of Object.entries(METHODS))
  for (const rounding of ['none', { outward: 'real' }, { outward: 'deployed' }] as const)
    test(`a custom op has the bounds of its record, ${name}, ${typeof rounding === 'string' ? 'to nearest' : rounding.outward}`, async () => {
      const found = async (activation: Apply) => {
        const p = parameters(SEED)
        const net = chain(
          conv(p, '1', 3, 3, { padding: 1 }),
          activation,
          conv(p, '2', 2, 3, { stride: 2 }),
          activation,
          flatten,
          fc(p, 'f', 3),
        )
        const { box, feeds } = boxAround([2, 2, 6, 6], 0.2, SEED)
        const bounded = boundsOf(method)(net, box, rounding)
        const rows = bounded.rows(margins(O.constant([0, 2], [2]), 3))
        return evaluate(reference())([rows.lower, rows.upper], new Map([...feeds, ...p.all()]))
      }
      const leaky: Apply = (x) => O.leakyRelu(SLOPE)(x as Operand) as typeof x
      const [mine, theirs] = [await found(own), await found(leaky)]
      mine.forEach((values, i) => assert.equal([...values], [...theirs[i]]))
      assert.ok(mine[0].every(Number.isFinite))
    })

test.run()
