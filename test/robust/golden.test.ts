import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { linearBounds } from '../../src/bounds/linear-bounds.ts'
import type { Backend, Data } from '../../src/compile/backend.ts'
import { evaluate } from '../../src/compile/run.ts'
import { constant, input } from '../../src/ops/index.ts'
import { type Bounder, boundsOf, crown, crownIbp, ibp, symbolic } from '../../src/robust/bounds.ts'
import { ball } from '../../src/robust/perturbation.ts'
import { margins } from '../../src/robust/specification.ts'
import { type Golden, type GoldenBounds, golden, mnistTest, networks, weights } from '../golden.ts'
import { right, skipped } from '../shared.ts'

const methods: Readonly<Record<string, Bounder>> = {
  ibp,
  crown_ibp_adaptive: crownIbp,
  crown_adaptive: crown,
  crown_ibp_same_slope: linearBounds({ slope: 'same', hidden: 'ibp' }),
  crown_same_slope: symbolic,
  crown_zero_lb: linearBounds({ slope: 'zero', hidden: 'own' }),
}

const IMAGES = 5
const CLASSES = 10

/** Bounds of the golden images: logits `[5, 10]`, margins `[10, 5]`. */
const bounds = async (
  backend: Backend,
  g: Golden,
  net: ReturnType<(typeof networks)[string]>,
  method: Bounder,
  eps: number,
): Promise<{ readonly lb: Data; readonly ub: Data; readonly margin: Data }> => {
  const x = input('x', [IMAGES, 1, 28, 28])
  const bounded = boundsOf(method)(net, ball(x, eps))
  const logits = bounded.output()
  const rows = bounded.rows(margins(constant(g.labels, [IMAGES]), CLASSES))
  const [lb, ub, margin] = await evaluate(backend)(
    [logits.lower, logits.upper, rows.lower],
    new Map([[x, await mnistTest(g.mnist_test_indices)]]),
  )
  assert.is(backend.stats().live, 0)
  return { lb, ub, margin }
}

type Bounds = Awaited<ReturnType<typeof bounds>>

const each = (f: (image: number, klass: number) => void): void => {
  for (let i = 0; i < IMAGES; i++) for (let j = 0; j < CLASSES; j++) f(i, j)
}

/** Largest deviation of logits relative to the width, and of margins relative to max(1, |margin|). */
const deviation = (got: Bounds, want: GoldenBounds, labels: readonly number[]) => {
  let [logits, margin] = [0, 0]
  // Math.max keeps a NaN, and no NaN is below a tolerance.
  each((i, j) => {
    const [l, u] = [want.lb[i][j], want.ub[i][j]]
    const k = i * CLASSES + j
    logits = Math.max(logits, Math.abs(got.lb[k] - l) / (u - l), Math.abs(got.ub[k] - u) / (u - l))
    if (j === labels[i]) return
    const m = want.margin_lb?.[i][j < labels[i] ? j : j - 1] as number
    margin = Math.max(margin, Math.abs(got.margin[j * IMAGES + i] - m) / Math.max(1, Math.abs(m)))
  })
  return { logits, margin }
}

/** Every bound holds for the logits that points of the box were seen to reach, up to `slack` of their size. */
const contains = (got: Bounds, reached: GoldenBounds, slack: number): void =>
  each((i, j) => {
    const k = i * CLASSES + j
    const [l, u] = [reached.lb[i][j], reached.ub[i][j]]
    assert.ok(
      got.lb[k] <= l + slack * Math.abs(l) && got.ub[k] >= u - slack * Math.abs(u),
      `image ${i}: logit ${j} reached [${l}, ${u}], bounds [${got.lb[k]}, ${got.ub[k]}]`,
    )
  })

/** The authors' worst_case_wc[j] = upper bound of z_j - z_y is minus the symbolic margin. */
const agreesWithAuthors = (got: Bounds, wc: readonly (readonly number[])[] | undefined): void =>
  each((i, j) => {
    if (wc === undefined) return
    const error = Math.abs(got.margin[j * IMAGES + i] + wc[i][j]) / Math.max(1, Math.abs(wc[i][j]))
    assert.ok(error <= 1e-3, `image ${i}, class ${j}: ${got.margin[j * IMAGES + i]} against ${-wc[i][j]}`)
  })

const worstCaseOf = (known: Readonly<Record<string, GoldenBounds>>) =>
  (known.authors_symbolic as { readonly worst_case_wc?: readonly (readonly number[])[] } | undefined)?.worst_case_wc

const simd = right(await wasm({ threads: 1 })())

for (const name of ['randconv_a', 'resnet_s', 'mnistfc_256x2']) {
  const [g, w] = [golden(name), weights(name)]
  if (g === undefined || w === undefined) {
    skipped(`golden ${name}`, 'shared/golden is absent')
    continue
  }
  const net = networks[name](w)
  for (const { dtype, eps, methods: known } of g.results)
    for (const [key, method] of Object.entries(methods))
      if (dtype === 'float64')
        test(`${name} ${key} eps ${eps}: f64 reference agrees to 1e-9`, async () => {
          const got = await bounds(reference(), g, net, method, eps)
          const { logits, margin } = deviation(got, known[key], g.labels)
          assert.ok(logits < 1e-9 && margin < 1e-9, `deviations: logits ${logits}, margins ${margin}`)
          contains(got, known.inner_achieved, 0)
          if (method === symbolic) agreesWithAuthors(got, worstCaseOf(known))
        })
      else
        test(`${name} ${key} eps ${eps}: f32 WASM agrees to 1e-3 of the width`, async () => {
          const got = await bounds(simd, g, net, method, eps)
          const { logits, margin } = deviation(got, known[key], g.labels)
          assert.ok(logits < 1e-3 && margin < 1e-2, `deviations: logits ${logits}, margins ${margin}`)
          contains(got, known.inner_achieved, 1e-6)
          if (method === symbolic) agreesWithAuthors(got, worstCaseOf(known))
        })
}

const [tanhGolden, tanhWeights] = [golden('mlp_tanh'), weights('mlp_tanh')]
if (tanhGolden === undefined || tanhWeights === undefined) skipped('golden mlp_tanh', 'shared/golden is absent')
else {
  const net = networks.mlp_tanh(tanhWeights)
  for (const { dtype, eps, methods: known } of tanhGolden.results)
    for (const [key, method] of Object.entries(methods))
      test(`mlp_tanh ${key} eps ${eps} ${dtype}: sound, and not wider than the golden CROWN by 5 %`, async () => {
        const backend = dtype === 'float64' ? reference() : simd
        const got = await bounds(backend, tanhGolden, net, method, eps)
        contains(got, known.inner_achieved, dtype === 'float64' ? 0 : 1e-6)
        const want = known[key]
        if (want !== undefined)
          each((i, j) => {
            const k = i * CLASSES + j
            const ratio = (got.ub[k] - got.lb[k]) / (want.ub[i][j] - want.lb[i][j])
            assert.ok(ratio <= 1.05, `image ${i}, logit ${j}: ${ratio} times as wide`)
          })
      })
}

test('no buffer is left', () => {
  assert.is(simd.stats().live, 0)
  simd.dispose()
})

test.run()
