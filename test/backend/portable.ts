import { withFallback } from '../../src/backend/device.ts'
import { reference } from '../../src/backend/reference.ts'
import { wasm } from '../../src/backend/wasm/wasm.ts'
import { openGpu } from '../../src/backend/webgpu/adapter.ts'
import { webgpu } from '../../src/backend/webgpu/webgpu.ts'
import type { Backend } from '../../src/compile/backend.ts'
import { openRegion } from '../../src/compile/region.ts'
import { evaluate } from '../../src/compile/run.ts'
import { vjp } from '../../src/compile/vjp.ts'
import { fold, key } from '../../src/core/key.ts'
import { node } from '../../src/core/op.ts'
import * as S from '../../src/core/shape.ts'
import type { Tensor } from '../../src/core/tensor.ts'
import { labelsOf, pixels, slice, take } from '../../src/data/dataset.ts'
import { digits } from '../../src/data/digits.ts'
import { mixTrain } from '../../src/loss/objective.ts'
import { conv, dense, flatten, relu, sequential } from '../../src/nn/layers.ts'
import { network, networks } from '../../src/nn/networks.ts'
import * as O from '../../src/ops/index.ts'
import { symbolic } from '../../src/robust/bounds.ts'
import { fixed } from '../../src/train/balance.ts'
import { type FitOptions, fit } from '../../src/train/fit.ts'
import { adam, sgd } from '../../src/train/optimizer.ts'
import { trainer } from '../../src/train/step.ts'
import { type Entry, type Example, entries } from '../ops/examples.ts'
import { firstFar, random, right } from './wasm-programs.ts'

/** Checks that run wherever the library does, a page too: without Node and without a test runner. */

// ---- the registry against the reference ------------------------------------------------------------------------------

/** An op on an example, with numbers from its domain. */
const posed = (op: Entry['op'], x: Example, seed: number) => {
  const inputs = x.inputs.map((s, i) => O.input(`x${i}`, s.shape))
  const feeds = inputs.map((t, i) => {
    const { low, high, integer } = x.inputs[i]
    const draw = random(97 * seed + i + 1)
    const value = () => Math.fround(low + (high - low) * draw())
    return [t, Float32Array.from({ length: S.size(t.shape) }, () => (integer ? Math.floor(value()) : value()))] as const
  })
  return { inputs, out: node(op, inputs, x.attrs), feeds }
}

/** Outputs v that are further from the reference than `tolerance` (1 + |v|), in words. */
const differing = async (
  backend: Backend,
  outputs: readonly Tensor[],
  feeds: readonly (readonly [Tensor, Float32Array])[],
  tolerance: number,
): Promise<readonly string[]> => {
  const want = await evaluate(reference())(outputs, new Map(feeds.map(([t, d]) => [t, Float64Array.from(d)])))
  const got = await evaluate(backend)(outputs, new Map(feeds))
  return want.flatMap((w, k) => {
    const far = firstFar(got[k], w, tolerance)
    return far < 0 ? [] : [`output ${k} element ${far} is ${got[k][far]}, not ${w[far]}`]
  })
}

const inEvery = async (
  { op, examples }: Entry,
  check: (x: Example, i: number) => Promise<readonly string[]>,
): Promise<readonly string[]> => {
  const wrong: string[] = []
  for (const [i, x] of examples.entries())
    for (const text of await check(x, i)) wrong.push(`${op.name} ${x.label}: ${text}`)
  return wrong
}

/** WGSL allows a few units in the last place for each operation, and fused or reordered sums. */
const VALUES = 2e-5
const GRADIENTS = 1e-4

/** Where an op differs from the reference. */
export const valuesOf = (backend: Backend, entry: Entry): Promise<readonly string[]> =>
  inEvery(entry, (x, i) => {
    const { out, feeds } = posed(entry.op, x, i)
    return differing(backend, [out], feeds, VALUES)
  })

/** Where the gradients of an op differ from those of the reference. */
export const gradientsOf = (backend: Backend, entry: Entry): Promise<readonly string[]> =>
  inEvery(entry, (x, i) => {
    const { inputs, out, feeds } = posed(entry.op, x, i)
    const ct = O.input('ct', out.shape)
    const draw = random(31 * i + 7)
    const data = Float32Array.from({ length: S.size(out.shape) }, () => 4 * draw() - 2)
    const wrt = inputs.filter((_, k) => !x.inputs[k].integer)
    return wrt.length === 0
      ? Promise.resolve([])
      : differing(backend, vjp([out], [ct], wrt), [...feeds, [ct, data]], GRADIENTS)
  })

export interface Registry {
  readonly ops: number
  readonly examples: number
  readonly wrong: readonly string[]
  readonly live: number
}

/** The whole registry on a backend: values and gradients. */
export const registry = async (backend: Backend): Promise<Registry> => {
  const wrong: string[] = []
  for (const entry of entries) wrong.push(...(await valuesOf(backend, entry)), ...(await gradientsOf(backend, entry)))
  return {
    ops: entries.length,
    examples: entries.reduce((n, e) => n + e.examples.length, 0),
    wrong,
    live: backend.stats().live,
  }
}

// ---- training --------------------------------------------------------------------------------------------------------

const task = { input: [1, 28, 28], classes: 10 } as const
const small = networks.small(task)
/** Natural and robust loss of twenty MixTrain steps, or fewer, of the paper's small network: four images, one of them bounded. */
export const twentySteps = async (backend: Backend, steps = 20): Promise<readonly number[]> => {
  const { train } = await digits()
  const { region, close } = openRegion(backend)
  try {
    const options = {
      network: small,
      loss: mixTrain({ k: 1 }),
      optimizer: sgd({ lr: 0.05 }),
      batchSize: 4,
      range: [0, 1] as const,
    }
    const state = { parameters: small.init(fold(key(1), 'init')), slots: {} }
    const t = await trainer(region)(options, state)
    const seen: number[] = []
    for (let i = 0; i < steps; i++) {
      const images = [0, 1, 2, 3].map((j) => i * 4 + j)
      const host = {
        count: i,
        epoch: 0,
        progress: i / 20,
        epsilon: 0.01,
        balance: 0.5,
        key: fold(fold(key(2), 'step'), i),
      }
      await t.step(pixels(train, images), labelsOf(train, images), host)
      const { natural, robust } = await t.terms()
      seen.push(natural, robust)
    }
    return seen
  } finally {
    close()
  }
}

const tiny = network('tiny', sequential(conv(2, 4, 4), relu, flatten, dense(8), relu, dense(10)), task)

/** A run of two epochs of four steps. */
const shortRun = async (): Promise<FitOptions> => {
  const { train } = await digits()
  return {
    network: tiny,
    loss: mixTrain({ k: 2 }),
    optimizer: adam({ lr: 5e-3 }),
    train: take(24)(train),
    monitor: slice(200, 205)(train),
    epsilon: 0.05,
    balance: fixed(0.5),
    epochs: 2,
    batchSize: 6,
    seed: 11,
    method: symbolic,
    evaluationBatch: 5,
  }
}

const trained = async (backend: Backend, over: Partial<FitOptions> = {}) => {
  const devices: string[] = []
  let parameters: Readonly<Record<string, Float32Array>> = {}
  for await (const epoch of fit({ ...(await shortRun()), ...over })(backend)) {
    devices.push(epoch.device)
    parameters = epoch.checkpoint.state.parameters
  }
  return { devices, parameters: Object.values(parameters).flatMap((p) => [...p]) }
}

/** SHA-256 of the parameters that a run on WASM ends with, and on how many threads it was. */
export const wasmHash = async (threads: number): Promise<{ readonly hash: string; readonly threads: number }> => {
  const backend = right(await wasm({ threads })())
  try {
    const { parameters } = await trained(backend)
    const digest = await crypto.subtle.digest('SHA-256', Float32Array.from(parameters).buffer)
    const hash = [...new Uint8Array(digest)].map((b) => b.toString(16).padStart(2, '0')).join('')
    return { hash, threads: backend.threads }
  } finally {
    backend.dispose()
  }
}

export interface Survival {
  /** The device that ended each epoch. */
  readonly devices: readonly string[]
  readonly failures: number
  /** The largest difference of a parameter from a run on WASM alone. */
  readonly far: number
}

/** A run whose GPU device is destroyed in its second epoch, and which may go on on WASM. */
export const survival = async (): Promise<Survival> => {
  const alone = right(await wasm({ threads: 1 })())
  const { device } = right(await openGpu('any'))
  const backend = withFallback(right(await webgpu({ device })()), wasm({ threads: 1 }))
  try {
    let failures = 0
    const optimizer = sgd({ lr: 0.05 })
    const want = await trained(alone, { optimizer })
    const got = await trained(backend, {
      optimizer,
      progress: async ({ phase, epoch, done }) => {
        if (phase === 'training' && epoch === 1 && done === 2) device.destroy()
        await new Promise((resolve) => setTimeout(resolve))
      },
      failed: () => {
        failures++
      },
    })
    const far = got.parameters.reduce((m, v, i) => Math.max(m, Math.abs(v - want.parameters[i])), 0)
    return { devices: got.devices, failures, far }
  } finally {
    backend.dispose()
    alone.dispose()
  }
}
