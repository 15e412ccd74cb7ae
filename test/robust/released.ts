import { readFileSync } from 'node:fs'
import type { Data } from '../../src/compile/backend.ts'
import { readIdx } from '../../src/data/idx.ts'
import { decode } from '../../src/format/safetensors.ts'
import type { Named } from '../../src/nn/layers.ts'
import { type Network, small } from '../../src/nn/networks.ts'
import type { Images } from '../../src/robust/metric.ts'
import { right, shared } from '../shared.ts'

/** The MixTrain authors' released MNIST network for epsilon 0.3 and the first MNIST test images, where the shared folder is. */
export interface Released {
  readonly network: Network
  readonly parameters: Named<Data>
  readonly images: (count: number) => Images
}

export const released = async (): Promise<Released | undefined> => {
  const model = shared('models/mixtrain_small_0.3.safetensors')
  const pixels = shared('data/mnist/t10k-images-idx3-ubyte.gz')
  const labels = shared('data/mnist/t10k-labels-idx1-ubyte.gz')
  if (model === undefined || pixels === undefined || labels === undefined) return undefined
  const network = small({ input: [1, 28, 28], classes: 10 })
  const { tensors } = right(decode(new Uint8Array(readFileSync(model)), model))
  const parameters = Object.fromEntries(
    Object.keys(network.parameters).map((k) => {
      const t = tensors.get(k)
      if (t === undefined) throw new Error(`no tensor ${k}`)
      return [k, Float32Array.from(t.data)]
    }),
  )
  const bytes = async (path: string) => right(await readIdx(new Uint8Array(readFileSync(path)), path)()).data
  const [images, classes] = [await bytes(pixels), await bytes(labels)]
  return {
    network,
    parameters,
    images: (count) => ({
      count,
      pixels: (indices) =>
        Float32Array.from(
          Array.from(indices, (i) => [...images.subarray(i * 784, (i + 1) * 784)]).flat(),
          (p) => p / 255,
        ),
      labels: (indices) => Float32Array.from(indices, (i) => classes[i]),
    }),
  }
}
