// Trains the two networks that the studio shows at first, one by MixTrain and one as usual, and writes them to studio/models, compressed:
// the page is served at once, without a training. Weights are rounded to 10 bits behind the point, which changes no image's class that counts
// here (the shares printed are those of the rounded weights) and halves the files.
//
//   npm run compile && node tools/build-starters.js
import { writeFileSync } from 'node:fs'
import process from 'node:process'
import { gzipSync } from 'node:zlib'
import { device, digits, encodeModel, fit, networks, recipe, take, verify } from '../dist/src/index.js'

const COMMON = { images: 2000, epochs: 6, batchSize: 20, seed: 0, epsilon: 0.1 }
const STARTERS = [
  { file: 'starter', loss: 'mixtrain', more: { k: 2 } },
  { file: 'natural', loss: 'natural', more: {} },
]

/** To 10 bits of the mantissa, ties away from zero. */
const rounded = (values) => {
  const bits = new Uint32Array(Float32Array.from(values).buffer)
  for (const [i, b] of bits.entries()) bits[i] = ((b + 0x1000) & ~0x1fff) >>> 0
  return new Float32Array(bits.buffer)
}

const { train, test } = await digits()
const network = networks.small({ input: train.shape, classes: train.classes })
const wasm = await device({ device: 'wasm' })
for (const { file, loss, more } of STARTERS) {
  const { images, epochs, batchSize, seed, epsilon } = COMMON
  const { k: _, numbers: __, ...plan } = recipe(loss, { epsilon, epochs, batchSize, ...more })
  const options = { data: { train: take(images)(train) }, network, seed, ...plan, augment: undefined, epsilon }
  let last
  for await (const epoch of fit(options)(wasm)) last = epoch.checkpoint
  const parameters = Object.fromEntries(Object.entries(last.state.parameters).map(([k, v]) => [k, rounded(v)]))
  const provenance = { epsilon: loss === 'natural' ? 0 : epsilon, loss, seed, arithmetic: 'exact' }
  const bytes = gzipSync(encodeModel({ network, parameters, provenance }), { level: 9 })
  writeFileSync(new URL(`../studio/models/${file}.safetensors.gz`, import.meta.url), bytes)
  const { acc, vra } = await verify({ network, parameters, data: test, epsilon })(wasm)
  process.stdout.write(`${file}: ${bytes.length} bytes, ACC ${acc.toFixed(3)}, VRA at ${epsilon} ${vra.toFixed(3)}\n`)
}
wasm.dispose()
