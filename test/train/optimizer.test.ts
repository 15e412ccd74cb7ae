import { test } from 'uvu'
import * as assert from 'uvu/assert'
import type { Data } from '../../src/compile/backend.ts'
import { grad } from '../../src/compile/vjp.ts'
import { key, uniform } from '../../src/core/key.ts'
import { power } from '../../src/core/number.ts'
import { cosine } from '../../src/loss/schedule.ts'
import type { Named } from '../../src/nn/layers.ts'
import { constant, type Host, input, mul, sub, sum } from '../../src/ops/index.ts'
import { adam, clipGradients, type Optimizer, radam, type Slots, sgd } from '../../src/train/optimizer.ts'
import { host, run } from '../loss/harness.ts'

// The quadratic sum of h (p - t)^2 / 2, of two parameters of different shapes.
const SHAPES: Named<readonly number[]> = { w: [2, 3], b: [3] }
const names = Object.keys(SHAPES)
const draw = (name: string, salt: number, low: number, high: number) => [
  ...uniform(
    key(salt + name.length + name.charCodeAt(0)),
    SHAPES[name].reduce((a, d) => a * d, 1),
    low,
    high,
  ),
]
const curvature = Object.fromEntries(names.map((k) => [k, draw(k, 10, 0.2, 2)]))
const minimum = Object.fromEntries(names.map((k) => [k, draw(k, 20, -1, 1)]))
const start = Object.fromEntries(names.map((k) => [k, draw(k, 30, -3, 3)]))
const gradientAt = (p: Named<readonly number[]>): Named<number[]> =>
  Object.fromEntries(names.map((k) => [k, p[k].map((v, i) => curvature[k][i] * (v - minimum[k][i]))]))

type State = { readonly parameters: Named<number[]>; readonly slots: Slots<number[]> }

/** Runs an optimizer's graph for some steps on the reference backend. */
const trained = async (optimizer: Optimizer, steps: number, at: (count: number) => Host): Promise<State> => {
  const parameters = Object.fromEntries(names.map((k) => [k, input(k, SHAPES[k])]))
  const slots = Object.fromEntries(
    optimizer.slots.map((s) => [s, Object.fromEntries(names.map((k) => [k, input(`${s}.${k}`, SHAPES[k])]))]),
  )
  const loss = names
    .map((k) => {
      const d = sub(parameters[k], constant(minimum[k], SHAPES[k]))
      return sum(
        mul(
          mul(d, d),
          constant(
            curvature[k].map((c) => c / 2),
            SHAPES[k],
          ),
        ),
      )
    })
    .reduce((a, b) => sub(a, mul(-1, b)))
  const gradients = grad(
    loss,
    names.map((k) => parameters[k]),
  )
  const next = optimizer.update(parameters, Object.fromEntries(names.map((k, i) => [k, gradients[i]])), slots)
  assert.equal(Object.keys(next.state), optimizer.slots)
  for (const s of optimizer.slots) for (const k of names) assert.equal(next.state[s][k].shape, SHAPES[k])
  for (const k of names) assert.equal(next.parameters[k].shape, SHAPES[k])
  const outputs = [
    ...names.map((k) => next.parameters[k]),
    ...optimizer.slots.flatMap((s) => names.map((k) => next.state[s][k])),
  ]
  const nodes = [...names.map((k) => parameters[k]), ...optimizer.slots.flatMap((s) => names.map((k) => slots[s][k]))]
  let data: readonly Data[] = nodes.map((x, i) =>
    i < names.length ? Float64Array.from(start[names[i]]) : new Float64Array(x.shape.reduce((a, d) => a * d, 1)),
  )
  for (let t = 0; t < steps; t++) data = await run(outputs, new Map(nodes.map((x, i) => [x, data[i]])), at(t))
  const group = (i: number) => Object.fromEntries(names.map((k, j) => [k, [...data[i * names.length + j]]]))
  return { parameters: group(0), slots: Object.fromEntries(optimizer.slots.map((s, i) => [s, group(i + 1)])) }
}

/** The same fold in plain numbers: one update of one element. */
const modelled = (
  steps: number,
  slots: readonly string[],
  update: (p: number, g: number, state: Record<string, number>, t: number) => number,
  clip: (g: Named<number[]>) => Named<number[]> = (g) => g,
): State => {
  let p: Named<number[]> = start
  const state = Object.fromEntries(slots.map((s) => [s, Object.fromEntries(names.map((k) => [k, p[k].map(() => 0)]))]))
  for (let t = 0; t < steps; t++) {
    const g = clip(gradientAt(p))
    p = Object.fromEntries(
      names.map((k) => [
        k,
        p[k].map((v, i) => {
          const own = Object.fromEntries(slots.map((s) => [s, state[s][k][i]]))
          const moved = update(v, g[k][i], own, t)
          for (const s of slots) state[s][k][i] = own[s]
          return moved
        }),
      ]),
    )
  }
  return { parameters: p, slots: state }
}

const agree = (got: State, want: State): void => {
  const close = (a: readonly number[], b: readonly number[]) =>
    a.forEach((v, i) => {
      assert.ok(Math.abs(v - b[i]) <= 1e-12 * (1 + Math.abs(b[i])), `${v} and ${b[i]}`)
    })
  for (const k of names) close(got.parameters[k], want.parameters[k])
  assert.equal(Object.keys(got.slots), Object.keys(want.slots))
  for (const s of Object.keys(want.slots)) for (const k of names) close(got.slots[s][k], want.slots[s][k])
}

const STEPS = 7
const at = (count: number) => host({ count, progress: count / STEPS })
// Numbers that the host feeds are float32.
const f = Math.fround

test('sgd without momentum has no state', async () => {
  assert.equal(sgd({ lr: 0.1 }).slots, [])
  agree(
    await trained(sgd({ lr: 0.1 }), STEPS, at),
    modelled(STEPS, [], (p, g) => p - f(0.1) * g),
  )
})

test('sgd with momentum and a schedule', async () => {
  const lr = cosine(0.3, 0.01)
  agree(
    await trained(sgd({ lr, momentum: 0.9 }), STEPS, at),
    modelled(STEPS, ['velocity'], (p, g, s, t) => {
      s.velocity = 0.9 * s.velocity + g
      return p - f(lr(at(t))) * s.velocity
    }),
  )
})

test('radam is rectified as the paper has it, and plain momentum before', async () => {
  const beta2 = 0.9
  const rho = 2 / (1 - beta2) - 1
  const rectified: boolean[] = []
  const want = modelled(STEPS, ['first', 'second'], (p, g, s, t) => {
    s.first = 0.8 * s.first + (1 - 0.8) * g
    s.second = beta2 * s.second + (1 - beta2) * g * g
    const n = t + 1
    const r = rho - (2 * n * power(beta2, n)) / (1 - power(beta2, n))
    const momentum = s.first * f(1 / (1 - power(0.8, n)))
    rectified.push(r > 5)
    const factor = f(Math.sqrt(((r - 4) * (r - 2) * rho) / ((rho - 4) * (rho - 2) * r)))
    const step = r > 5 ? (factor * momentum) / (Math.sqrt(s.second * f(1 / (1 - power(beta2, n)))) + 1e-8) : momentum
    return p - f(0.05) * (step + 0.01 * p)
  })
  agree(await trained(radam({ lr: 0.05, beta1: 0.8, beta2, weightDecay: 0.01 }), STEPS, at), want)
  assert.ok(rectified.includes(true) && rectified.includes(false))
})

const adamModel =
  (lr: number, decay: number, [beta1, beta2, eps] = [0.9, 0.999, 1e-8]) =>
  (p: number, g: number, s: Record<string, number>, t: number): number => {
    s.first = beta1 * s.first + (1 - beta1) * g
    s.second = beta2 * s.second + (1 - beta2) * g * g
    const [c1, c2] = [f(1 / (1 - power(beta1, t + 1))), f(1 / (1 - power(beta2, t + 1)))]
    return p - f(lr) * ((s.first * c1) / (Math.sqrt(s.second * c2) + eps) + decay * p)
  }

test('Adam, and AdamW with its decoupled decay', async () => {
  const slots = ['first', 'second']
  assert.equal(adam({ lr: 0.1 }).slots, slots)
  agree(await trained(adam({ lr: 0.1 }), STEPS, at), modelled(STEPS, slots, adamModel(0.1, 0)))
  agree(await trained(adam({ lr: 0.1, weightDecay: 0.25 }), STEPS, at), modelled(STEPS, slots, adamModel(0.1, 0.25)))
  agree(
    await trained(adam({ lr: 0.05, beta1: 0.5, beta2: 0.75, eps: 0.01 }), STEPS, at),
    modelled(STEPS, slots, adamModel(0.05, 0, [0.5, 0.75, 0.01])),
  )
})

test('the first Adam step is lr in the direction of the sign', async () => {
  const { parameters } = await trained(adam({ lr: 0.125 }), 1, at)
  const g = gradientAt(start)
  for (const k of names)
    parameters[k].forEach((v, i) => {
      assert.ok(Math.abs(v - (start[k][i] - 0.125 * Math.sign(g[k][i]))) < 1e-6)
    })
})

test('clipping scales the joint norm down to the limit, and leaves smaller gradients alone', async () => {
  const clip = (limit: number) => (g: Named<number[]>) => {
    const norm = Math.sqrt(names.flatMap((k) => g[k]).reduce((s, v) => s + v * v, 0))
    const factor = Math.min(1, limit / norm)
    return Object.fromEntries(names.map((k) => [k, g[k].map((v) => v * factor)]))
  }
  for (const limit of [0.5, 2]) {
    const clipped = clipGradients(limit)(sgd({ lr: 0.5, momentum: 0.5 }))
    const update = (p: number, g: number, s: Record<string, number>) => {
      s.velocity = 0.5 * s.velocity + g
      return p - 0.5 * s.velocity
    }
    agree(await trained(clipped, STEPS, at), modelled(STEPS, ['velocity'], update, clip(limit)))
  }
  assert.equal(
    (await trained(clipGradients(1e6)(sgd({ lr: 0.5 })), STEPS, at)).parameters,
    (await trained(sgd({ lr: 0.5 }), STEPS, at)).parameters,
  )
})

test('clipping a gradient of 0 gives 0', async () => {
  const p = { p: input('p', [2]) }
  const g = { p: constant([0, 0], [2]) }
  const { parameters } = clipGradients(1)(sgd({ lr: 1 })).update(p, g, {})
  const [moved] = await run([parameters.p], new Map([[p.p, Float64Array.of(3, -4)]]))
  assert.equal([...moved], [3, -4])
})

test('power: exact on dyadic numbers, close to Math.pow elsewhere', () => {
  for (let n = 0; n <= 1023; n++) assert.is(power(2, n), 2 ** n)
  for (let n = 0; n <= 33; n++) assert.is(power(3, n), Number(3n ** BigInt(n)))
  for (let n = 0; n <= 26; n++) assert.is(power(0.75, n), Number(3n ** BigInt(n)) / 4 ** n)
  assert.equal([power(5, 0), power(0, 0), power(0, 7), power(-2, 5)], [1, 1, 0, -32])
  for (const x of [0.9, 0.999, 1.1])
    for (let n = 0; n < 2000; n += 13) assert.ok(Math.abs(power(x, n) / x ** n - 1) < 1e-13, `${x}^${n}`)
})

test.run()
