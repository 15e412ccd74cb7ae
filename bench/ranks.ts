import { spawnSync } from 'node:child_process'
import { hostname } from 'node:os'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { device } from '../src/backend/device.ts'
import { launched, openMpi } from '../src/cluster/mpi.ts'
import { team } from '../src/cluster/team.ts'
import { openRegion } from '../src/compile/region.ts'
import { fold, key, uniform } from '../src/core/key.ts'
import * as S from '../src/core/shape.ts'
import { mixTrain } from '../src/loss/objective.ts'
import { trainedOf } from '../src/nn/layers.ts'
import { type NetworkName, networks } from '../src/nn/networks.ts'
import { PIXELS } from '../src/train/fit.ts'
import { microTrainer } from '../src/train/micro.ts'
import { adam } from '../src/train/optimizer.ts'
import { alone } from '../src/train/ranks.ts'
import { median } from './statistics.ts'

/**
 * What training over many ranks would bring, from what was measured here: seconds of a micro-batch and of an update (one process, one thread), and seconds of a sum over two ranks by its length, whose
 * line has a latency and a bandwidth (within this machine; give --latency in microseconds and --bandwidth in GB/s of a network instead).
 *
 *   npm run scale -- --ranks [--micro 8] [--steps 3] [--only small,large] [--latency US --bandwidth GBS]
 *
 * A step of R ranks with one micro-batch each: compute + update + exchange (R - 1 messages, every rank sends its gradient once) + gather (log2 R rounds, and the gradient once more).
 */

interface Line {
  /** Seconds of a message, and of a byte. */
  readonly latency: number
  readonly perByte: number
}

const TASK = { input: [3, 32, 32], classes: 10, normalization: undefined } as const
const NETWORKS: readonly NetworkName[] = ['small', 'large', 'resnet', 'cnn7']
const RANKS = [1, 2, 8, 64, 256, 1024]

/** Seconds of one micro-batch and of one update, and numbers of a gradient. */
const measured = async (name: NetworkName, micro: number, steps: number) => {
  const backend = await device({ device: 'wasm', threads: 1 })
  const { region, close } = openRegion(backend)
  try {
    const network = networks[name](TASK)
    const gradient = Object.values(trainedOf(network.parameters)).reduce((n, p) => n + S.size(p.shape), 0)
    let compute = 0
    // One micro-batch of two is asked for, as by a rank of two; the time of a leaf is that of its computation.
    const loop = await microTrainer(region)(
      {
        ...{ network, loss: mixTrain({ k: 2 }), optimizer: adam({ lr: 1e-3 }), batchSize: 2 * micro, range: PIXELS },
        memory: 2 ** 31,
        microBatches: 2,
        ranks: {
          ...alone,
          size: 2,
          reduce: async (_, partial) => {
            const begun = performance.now()
            const sum = await partial([0, 1])
            compute = (performance.now() - begun) / 1000
            return sum
          },
        },
      },
      { parameters: network.init(fold(key(0), 'init')), slots: {} },
    )
    const images = {
      inputs: uniform(key(1), micro * S.size(TASK.input)),
      labels: Float32Array.from({ length: micro }, (_, i) => i % 10),
    }
    const [computes, updates]: [number[], number[]] = [[], []]
    for (let i = 0; i <= steps; i++) {
      const begun = performance.now()
      const host = { count: i, epoch: 0, progress: 0.5, epsilon: 2 / 255, balance: 0.5, key: fold(key(2), i) }
      await loop.step(() => images, host)
      await backend.sync()
      computes.push(compute)
      updates.push((performance.now() - begun) / 1000 - compute)
    }
    return { name, gradient, compute: median(computes.slice(1)), update: median(updates.slice(1)) }
  } finally {
    close()
    backend.dispose()
  }
}

/** As a rank of two: seconds of sums by length, on standard output of rank 0. */
export const probe = async (): Promise<void> => {
  const found = launched(process.env)
  if (found === undefined) throw new Error('the probe runs under mpirun')
  const mpi = await openMpi(found)
  const { rank, sum } = await team(mpi, hostname())
  const points: (readonly [number, number])[] = []
  for (const length of [1e3, 1e5, 1e6, 4e6]) {
    const times: number[] = []
    for (let i = 0; i < 12; i++) {
      const own = new Float32Array(length)
      const begun = performance.now()
      await sum(2, async () => own)
      times.push((performance.now() - begun) / 1000)
    }
    points.push([length, median(times.slice(2))])
  }
  if (rank === 0) console.log(JSON.stringify(points))
  mpi.finalize()
}

/** Latency and seconds a byte of two ranks here: a sum sends twice 2 n bytes in two rounds. */
const line = (): Line | string => {
  const script = fileURLToPath(new URL('./scale.js', import.meta.url))
  const argv = ['--allow-run-as-root', '--oversubscribe', '-n', '2', process.execPath, script, '--probe']
  const { status, stdout, stderr } = spawnSync('mpirun', argv, { encoding: 'utf8' })
  if (status !== 0) return `mpirun does not run here (${(stderr ?? '').trim().split('\n').at(-1) ?? ''})`
  const points = JSON.parse(stdout) as readonly (readonly [number, number])[]
  const [[, short], [long, seconds]] = [points[0], points[points.length - 1]]
  return { latency: short / 2, perByte: (seconds - short) / (4 * long) }
}

/** Seconds of the parts of a step with so many ranks. */
const predicted = (
  m: { gradient: number; compute: number; update: number },
  { latency, perByte }: Line,
  R: number,
) => ({
  compute: m.compute,
  update: m.update,
  bandwidth: R === 1 ? 0 : (2 * 4 * m.gradient * perByte * (R - 1)) / R,
  latency: R === 1 ? 0 : latency * (R - 1 + Math.log2(R)),
})

const ADVICE: Readonly<Record<string, string>> = {
  compute: 'more ranks, or more threads a rank',
  update: 'every rank updates all parameters: more images a micro-batch, or fewer ranks of more threads',
  bandwidth: 'more images a micro-batch (a larger batch), or fewer ranks of more threads',
  latency: 'fewer ranks of more threads: each sends a message to every other',
}

export const main = async (given: {
  readonly micro: number
  readonly steps: number
  /** Networks by name; all by default. */
  readonly only: readonly string[] | undefined
  readonly latency: number | undefined
  readonly bandwidth: number | undefined
}): Promise<void> => {
  const here = given.latency === undefined || given.bandwidth === undefined ? line() : undefined
  if (typeof here === 'string') throw new Error(`${here}; give --latency and --bandwidth`)
  const net: Line = {
    latency: given.latency === undefined ? (here as Line).latency : given.latency * 1e-6,
    perByte: given.bandwidth === undefined ? (here as Line).perByte : 1e-9 / given.bandwidth,
  }
  console.log(
    `latency ${(net.latency * 1e6).toFixed(0)} us, bandwidth ${(1e-9 / net.perByte).toFixed(2)} GB/s, micro-batches of ${given.micro} images [3, 32, 32], MixTrain with one image bounded in each\n`,
  )
  console.log(
    '| network | gradient MB | s a micro-batch | s an update | ranks | images/s | efficiency | first bottleneck | what to do |',
  )
  console.log('|---|---|---|---|---|---|---|---|---|')
  for (const name of NETWORKS.filter((n) => given.only?.includes(n) ?? true)) {
    const m = await measured(name, given.micro, given.steps)
    const whole = (R: number) => Object.values(predicted(m, net, R)).reduce((a, b) => a + b, 0)
    for (const R of RANKS) {
      const { compute, ...others } = predicted(m, net, R)
      const [first] = R === 1 ? [['compute', compute] as const] : Object.entries(others).sort((a, b) => b[1] - a[1])
      const cells = [
        ...[name, ((4 * m.gradient) / 1e6).toFixed(1), m.compute.toPrecision(3), m.update.toPrecision(2), String(R)],
        ...[
          ((given.micro * R) / whole(R)).toFixed(1),
          `${((100 * whole(1)) / whole(R)).toFixed(0)} %`,
          first[0],
          ADVICE[first[0]],
        ],
      ]
      console.log(`| ${cells.join(' | ')} |`)
    }
  }
}
