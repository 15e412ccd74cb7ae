import { cpus } from 'node:os'
import Table from 'cli-table3'
import { Bench } from 'tinybench'
import type { Backend } from '../src/backend/backend.ts'
import { device } from '../src/backend/device.ts'
import { openRegion } from '../src/backend/region.ts'
import { fold, key } from '../src/core/key.ts'
import { labelsOf, pixels } from '../src/data/dataset.ts'
import { digits } from '../src/data/digits.ts'
import { crossEntropy } from '../src/loss/criterion.ts'
import type { Loss } from '../src/loss/loss.ts'
import { sampled } from '../src/loss/loss.ts'
import * as L from '../src/loss/objective.ts'
import { type NetworkName, networks } from '../src/nn/networks.ts'
import type { Host } from '../src/ops/index.ts'
import * as B from '../src/robust/bounds.ts'
import { evaluator } from '../src/robust/metric.ts'
import { adam } from '../src/train/optimizer.ts'
import { trainer } from '../src/train/step.ts'

const only = (method: B.Bounder) => L.robust(method, L.worstCase(crossEntropy))

/** One optimizer update each, by the loss named; the robust ones without a natural term but for MixTrain. */
const losses: Readonly<Record<string, Loss>> = {
  natural: L.natural(crossEntropy),
  'pgd-40': L.adversarial(40),
  ibp: only(B.ibp),
  'crown-ibp': only(B.crownIbp),
  'mixtrain k=1': L.mixTrain({ k: 1, weight: 0.5 }),
  'mixtrain k=5': L.mixTrain({ k: 5, weight: 0.5 }),
  'symbolic k=1': sampled(1)(only(B.symbolic)),
  symbolic: only(B.symbolic),
}
/** What a large network's step would need more than the memory or patience of a bench for. */
const tooLarge = new Set(['symbolic', 'pgd-40', 'crown-ibp', 'mixtrain k=5'])

interface Row {
  readonly network: string
  readonly step: string
  readonly threads: number
  readonly milliseconds: number
  readonly scratchMB: number
}

const steps = async (backend: Backend, name: NetworkName, batch: number, epsilon: number): Promise<readonly Row[]> => {
  const network = networks[name]({ input: [1, 28, 28], classes: 10 })
  const { train } = await digits()
  const indices = Array.from({ length: batch }, (_, i) => i)
  const [x, y] = [pixels(train, indices), labelsOf(train, indices)]
  const rows: Row[] = []
  for (const [step, loss] of Object.entries(losses)) {
    if (name !== 'small' && tooLarge.has(step)) continue
    const { region, close } = openRegion(backend)
    const parameters = network.init(key(0))
    const run = await trainer(region)(
      { network, loss, optimizer: adam({ lr: 1e-4 }), batchSize: batch, range: [0, 1] },
      { parameters, slots: {} },
    )
    let count = 0
    const once = async () => {
      const host: Host = { count, epoch: 0, progress: 0, epsilon, balance: 0.5, key: fold(key(1), count++) }
      await run.step(x, y, host)
      await backend.sync()
    }
    await once()
    const bench = new Bench({ time: 400, iterations: 5, warmup: false })
    bench.add(step, once)
    const [{ result }] = await bench.run()
    if (result.state !== 'completed') throw new Error(`${step} did not complete`)
    rows.push({
      network: name,
      step,
      threads: backend.threads,
      milliseconds: result.latency.p50,
      scratchMB: run.scratchBytes() / 1e6,
    })
    close()
  }
  return rows
}

/** Images verified per second, and the plan's scratch. */
const verification = async (backend: Backend, epsilon: number): Promise<readonly Row[]> => {
  const network = networks.small({ input: [1, 28, 28], classes: 10 })
  const { test } = await digits()
  const rows: Row[] = []
  for (const [name, method] of Object.entries(B.methods)) {
    const { region, close } = openRegion(backend)
    const e = await evaluator(region)({
      network,
      range: [0, 1],
      method,
      attack: undefined,
      batchSize: 50,
      memory: 2 ** 31,
    })
    const parameters = Object.fromEntries(Object.entries(network.init(key(0))).map(([k, d]) => [k, region.from(d)]))
    const images = {
      count: 50,
      pixels: (i: ArrayLike<number>) => pixels(test, i),
      labels: (i: ArrayLike<number>) => labelsOf(test, i),
    }
    await e.run(parameters, images, epsilon)
    const begun = performance.now()
    await e.run(parameters, images, epsilon)
    rows.push({
      network: 'small',
      step: `verify 50 images, ${name}`,
      threads: backend.threads,
      milliseconds: performance.now() - begun,
      scratchMB: backend.stats().peak / 1e6,
    })
    close()
  }
  return rows
}

const main = async () => {
  const json = process.argv.includes('--json')
  const all: Row[] = []
  for (const threads of cpus().length > 1 ? [1, cpus().length] : [1]) {
    const backend = await device({ device: 'wasm', threads })
    all.push(...(await steps(backend, 'small', 50, 0.3)))
    all.push(...(await verification(backend, 0.1)))
    all.push(...(await steps(backend, 'large', 50, 0.1)))
    backend.dispose()
  }
  if (json)
    return console.log(
      JSON.stringify({ machine: cpus()[0].model, cores: cpus().length, node: process.version, rows: all }, null, 2),
    )
  const table = new Table({ head: ['network', 'step (batch 50)', 'threads', 'ms (median)', 'scratch MB'] })
  for (const r of all) table.push([r.network, r.step, r.threads, r.milliseconds.toFixed(2), r.scratchMB.toFixed(1)])
  console.log(`${cpus()[0].model}, ${cpus().length} cores, Node ${process.version}`)
  console.log(table.toString())
}

await main()
