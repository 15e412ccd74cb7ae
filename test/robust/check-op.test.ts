import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { MixtrainException } from '../../src/core/error.ts'
import { interval, unsupported } from '../../src/core/op.ts'
import { isInterval, type Operand, type Tensor } from '../../src/core/tensor.ts'
import { add, custom, div, exp, log, matmul, maximum, mul, neg, relu, sign, softmax, sub } from '../../src/ops/index.ts'
import { checkOp, type OpCheck } from '../../src/robust/check-op.ts'

const ends = (x: Operand) => (isInterval(x) ? ([x.lower, x.upper] as const) : ([x, x] as const))
const laws = ({ violations }: OpCheck) => [...new Set(violations.map(({ law }) => law))].sort()

type Rules = Parameters<typeof custom>[0]
/** x^2, and what may be wrong with it. */
const square = (change: Partial<Rules> = {}) =>
  custom({
    name: 'square',
    forward: ([x]) => mul(x, x) as Tensor,
    vjp: (ct, [x]) => [mul(ct, mul(2, x)) as Tensor],
    interval: ([x]) => {
      const [l, u] = ends(x)
      const least = maximum(0, maximum(l, neg(u))) as Tensor
      return interval(mul(least, least) as Tensor, maximum(mul(l, l), mul(u, u)) as Tensor)
    },
    relax: ([x]) => {
      const [l, u] = ends(x)
      const middle = mul(0.5, add(l, u)) as Tensor
      return {
        upper: { slopes: [add(l, u) as Tensor], intercept: neg(mul(l, u)) as Tensor },
        lower: { slopes: [mul(2, middle) as Tensor], intercept: neg(mul(middle, middle)) as Tensor },
      }
    },
    ...change,
  })
const range = [{ shape: [2, 3], from: -2, to: 3 }]

test('an op whose rules hold has no violation, and every law was tried', async () => {
  const checked = await checkOp(square(), [range, [{ shape: [1], from: 1, to: 2 }]])
  assert.equal(checked.violations, [])
  assert.equal(checked.skipped, [])
  for (const [law, n] of Object.entries(checked.compared)) assert.ok(n > 100, law)
})

test('a wrong gradient, interval rule or line is found, with numbers, and named by its law', async () => {
  const gradient = await checkOp(square({ vjp: (ct, [x]) => [mul(ct, x) as Tensor] }), [range])
  assert.equal(laws(gradient), ['gradient'])
  // Ends taken at the ends: wrong where 0 lies between, and the wider box then has the narrower result.
  const atEnds = await checkOp(
    square({
      interval: ([x]) => {
        const [l, u] = ends(x)
        return interval(mul(l, l) as Tensor, mul(u, u) as Tensor)
      },
    }),
    [range],
  )
  assert.ok(laws(atEnds).includes('inclusion') && laws(atEnds).includes('isotonicity'), laws(atEnds).join())
  const steep = await checkOp(
    square({
      relax: ([x]) => {
        const [l, u] = ends(x)
        return {
          // Meant for the chord, through one end only.
          upper: { slopes: [mul(2, l) as Tensor], intercept: neg(mul(l, l)) as Tensor },
          lower: { slopes: [mul(2, u) as Tensor], intercept: neg(mul(u, u)) as Tensor },
        }
      },
    }),
    [range],
  )
  assert.ok(laws(steep).includes('relaxation'))
  assert.not.ok(laws(steep).includes('gradient') || laws(steep).includes('inclusion'))
  assert.match(
    steep.violations[0].message,
    /slope same: on the box from .* the upper line is -?[\d.e-]+, below the value/,
  )
})

test('a softplus whose chord lacks its division, which gave unsound bounds without a word, is found', async () => {
  const softplus = (divided: boolean) =>
    custom({
      name: 'softplus',
      forward: ([x]) => log(add(1, exp(x))) as Tensor,
      vjp: (ct, [x]) => [div(ct, add(1, exp(neg(x)))) as Tensor],
      interval: ([x]) => {
        const [l, u] = ends(x)
        return interval(log(add(1, exp(l))) as Tensor, log(add(1, exp(u))) as Tensor)
      },
      relax: ([x]) => {
        const [l, u] = ends(x)
        const f = (y: Tensor) => log(add(1, exp(y))) as Tensor
        const rise = sub(f(u), f(l)) as Tensor
        const chord = (divided ? div(rise, maximum(sub(u, l), 1e-6)) : rise) as Tensor
        const middle = mul(0.5, add(l, u)) as Tensor
        const slope = div(1, add(1, exp(neg(middle)))) as Tensor
        return {
          upper: { slopes: [chord], intercept: sub(f(u), mul(chord, u)) as Tensor },
          lower: { slopes: [slope], intercept: sub(f(middle), mul(slope, middle)) as Tensor },
        }
      },
    })
  const of = (divided: boolean) => checkOp(softplus(divided), [[{ shape: [3], from: -4, to: 4 }]], { tolerance: 1e-6 })
  assert.equal((await of(true)).violations, [])
  assert.ok(laws(await of(false)).includes('relaxation'))
})

test('rules that are missing on purpose are skipped with their reason, and a law may be left out', async () => {
  const step = custom({
    name: 'step',
    forward: ([x]) => sign(x) as Tensor,
    vjp: (ct) => [ct],
    interval: unsupported('an estimator'),
    relax: unsupported('an estimator'),
  })
  const { violations, skipped } = await checkOp(step, [range], { except: ['gradient'] })
  assert.equal(violations, [])
  assert.equal(skipped.map(({ law }) => law).sort(), ['inclusion', 'isotonicity', 'relaxation', 'walk'])
  assert.match(skipped[0].reason, /an estimator/)
  assert.equal(laws(await checkOp(step, [range])), ['gradient'])
})

test('compositions and ops of several operands are tried too; a range that is none is refused', async () => {
  const weights = [
    { shape: [2, 3], from: -1, to: 1 },
    { shape: [3, 2], from: -1, to: 1, point: true },
  ]
  const product = await checkOp((x, w) => matmul(x as Operand, w as Operand) as never, [weights], { samples: 20 })
  assert.equal(product.violations, [])
  const composed = await checkOp((x) => relu(sub(softmax(x as Operand), 0.3)) as never, [range], { samples: 20 })
  assert.equal(composed.violations, [])
  assert.ok(composed.compared.walk > 0)
  const wrong = await checkOp(square(), [[{ shape: [1], from: 1, to: 0 }]]).catch((e: unknown) => e)
  assert.ok(wrong instanceof MixtrainException && /from 1 to 0/.test(wrong.message))
})

test.run()
