import { createHash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { encode } from '../../src/backend/wasm/words.ts'
import type { Backend } from '../../src/compile/backend.ts'
import type { Plan } from '../../src/compile/plan.ts'
import { type Graphs, program } from '../../src/compile/program.ts'
import { grad } from '../../src/compile/vjp.ts'
import type { Rounding } from '../../src/core/rounding.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import { crossEntropy } from '../../src/nn/criterion.ts'
import { type Network, networks } from '../../src/nn/networks.ts'
import { sum } from '../../src/ops/index.ts'
import { type Bounder, boundsOf, crown, crownIbp, ibp, symbolic } from '../../src/robust/bounds.ts'
import { ball } from '../../src/robust/perturbation.ts'
import { searchPrograms } from '../../src/robust/search.ts'
import { rivals, worstCaseLogits } from '../../src/robust/specification.ts'
import { right } from '../shared.ts'

/**
 * The words of forty plans, as hashes: a change of structure alone must not move one. A change that is meant to is written down by
 * `UPDATE=1 node dist/test/compile/golden-plans.test.js`, and its commit says why.
 */
const FILE = new URL('../../../test/compile/golden-plans.json', import.meta.url)

const BATCH = 4
const RANGE = [0, 1] as const
const TASKS = { mnist: { input: [1, 28, 28], classes: 10 }, cifar: { input: [3, 32, 32], classes: 10 } } as const

const bound = (net: Network, method: Bounder, differentiated: boolean, rounding: Rounding = 'none') =>
  program(
    { parameters: net.inputs, x: [BATCH, ...net.input], label: [BATCH], epsilon: [] },
    ({ parameters, x, label, epsilon }): Graphs => {
      const { lower } = boundsOf(method)(
        net.apply(parameters),
        ball(x, epsilon, RANGE, 'linf', rounding),
        rounding,
      ).rows(rivals(label, net.classes))
      if (!differentiated) return { lower }
      const loss = sum(crossEntropy(worstCaseLogits(lower, label), label))
      return { gradients: grad(loss, Object.values(parameters) as readonly Tensor[]) }
    },
  )

const natural = (net: Network, differentiated: boolean) =>
  program({ parameters: net.inputs, x: [BATCH, ...net.input], label: [BATCH] }, ({ parameters, x, label }): Graphs => {
    const logits = net.apply(parameters)(x)
    if (!differentiated) return { logits }
    return { gradients: grad(sum(crossEntropy(logits, label)), Object.values(parameters) as readonly Tensor[]) }
  })

const attack = (net: Network) =>
  searchPrograms({
    network: net,
    range: RANGE,
    norm: 'linf',
    attack: { name: 'pgd', steps: 2, restarts: 1, stepSize: 0.5, seed: 0 },
    batch: BATCH,
  }).stages[0].ascent.step

interface Planned {
  readonly plan: (device: Backend) => Plan
}
const plansOf = (net: Network): Readonly<Record<string, () => Planned>> => ({
  value: () => natural(net, false),
  gradient: () => natural(net, true),
  ibp: () => bound(net, ibp, false),
  'ibp gradient': () => bound(net, ibp, true),
  'ibp outward': () => bound(net, ibp, false, { outward: 'real' }),
  symbolic: () => bound(net, symbolic, false),
  'symbolic gradient': () => bound(net, symbolic, true),
  'crown outward': () => bound(net, crown, false, { outward: 'deployed' }),
  'crown-ibp': () => bound(net, crownIbp, false),
  attack: () => attack(net),
})

const NETS: Readonly<Record<string, Network>> = {
  mlp: networks.mlp(TASKS.mnist),
  small: networks.small(TASKS.mnist),
  'small of colours': networks.small({
    ...TASKS.cifar,
    normalization: { mean: [0.5, 0.4, 0.3], std: [0.25, 0.5, 0.2] },
  }),
  resnet: networks.resnet(TASKS.cifar),
}

const hashOf = ({ instructions, slots, arena, constants }: Plan): string => {
  const code = encode(instructions)
  return createHash('sha256')
    .update(new Uint8Array(code.buffer, code.byteOffset, code.byteLength))
    .update(JSON.stringify([slots, arena]))
    .update(new Uint8Array(constants.buffer, constants.byteOffset, constants.byteLength))
    .digest('hex')
    .slice(0, 16)
}

test('forty plans have the words that they had', async () => {
  const device = right(await wasm({ threads: 1 })())
  try {
    const found = Object.fromEntries(
      Object.entries(NETS).flatMap(([name, net]) =>
        Object.entries(plansOf(net)).map(([what, make]) => [`${name}, ${what}`, hashOf(make().plan(device))]),
      ),
    )
    assert.is(Object.keys(found).length, 40)
    if (process.env.UPDATE === '1') writeFileSync(FILE, `${JSON.stringify(found, undefined, 2)}\n`)
    assert.equal(found, JSON.parse(readFileSync(FILE, 'utf8')))
  } finally {
    device.dispose()
  }
})

test.run()
