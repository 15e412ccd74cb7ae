import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { interval } from '../../src/core/op.ts'
import { add, constant, input, maximum, minimum, sub } from '../../src/ops/index.ts'
import { type Bounder, boundsOf, crown, crownIbp, ibp, symbolic } from '../../src/robust/bounds.ts'
import { margins } from '../../src/robust/specification.ts'
import { linearBounds } from '../../src/tape/linear-bounds.ts'
import { evaluate } from '../../src/tape/run.ts'
import { golden, mnistTest, networks, weights } from '../golden.ts'
import { skipped } from '../shared.ts'

const methods: Readonly<Record<string, Bounder>> = {
  ibp,
  crown_ibp_adaptive: crownIbp,
  crown_adaptive: crown,
  crown_ibp_same_slope: linearBounds({ slope: 'same', hidden: 'ibp' }),
  crown_same_slope: symbolic,
  crown_zero_lb: linearBounds({ slope: 'zero', hidden: 'own' }),
}

for (const name of ['randconv_a', 'resnet_s', 'mnistfc_256x2']) {
  const [g, w] = [golden(name), weights(name)]
  if (g === undefined || w === undefined) {
    skipped(`golden ${name}`, 'shared/golden is absent')
    continue
  }
  const net = networks[name](w)
  for (const { dtype, eps, methods: known } of g.results) {
    if (dtype !== 'float64') continue
    for (const [key, method] of Object.entries(methods))
      test(`${name} ${key} eps ${eps}: f64 reference agrees to 1e-9 of the width`, async () => {
        const x = input('x', [5, 1, 28, 28])
        const box = interval(maximum(sub(x, eps), 0), minimum(add(x, eps), 1))
        const bounded = boundsOf(method)(net, box)
        const logits = bounded.output()
        const rows = bounded.rows(margins(constant(g.labels, [5]), 10))
        const backend = reference()
        const [lb, ub, margin] = await evaluate(backend)(
          [logits.lower, logits.upper, rows.lower],
          new Map([[x, Float64Array.from(await mnistTest(g.mnist_test_indices))]]),
        )
        assert.is(backend.stats().live, 0)
        const want = known[key]
        let worst = 0
        for (let i = 0; i < 5; i++) {
          for (let j = 0; j < 10; j++) {
            const width = want.ub[i][j] - want.lb[i][j]
            worst = Math.max(
              worst,
              Math.abs(lb[i * 10 + j] - want.lb[i][j]) / width,
              Math.abs(ub[i * 10 + j] - want.ub[i][j]) / width,
            )
          }
          const others = [...Array(10).keys()].filter((j) => j !== g.labels[i])
          others.forEach((j, k) => {
            const m = want.margin_lb?.[i][k] as number
            worst = Math.max(worst, Math.abs(margin[j * 5 + i] - m) / Math.max(1, Math.abs(m)))
          })
          const inner = known.inner_achieved
          for (let j = 0; j < 10; j++) {
            assert.ok(
              lb[i * 10 + j] <= inner.lb[i][j] && ub[i * 10 + j] >= inner.ub[i][j],
              'a reached logit lies outside the bounds',
            )
          }
        }
        assert.ok(worst < 1e-9, `worst relative deviation ${worst}`)
      })
  }
}

test.run()
