// TensorFlow.js on the works of bench:gpu. usage: node tfjs.js FOLDER MILLISECONDS WORK...
import { createRequire } from 'node:module'
import { LAYERS, provide, report, values } from './measure.js'

const [folder, patience, ...works] = process.argv.slice(2)
provide()
const require = createRequire(`${folder}/package.json`)
console.warn = () => {}
const tf = require('@tensorflow/tfjs')
require('@tensorflow/tfjs-backend-webgpu')
await tf.setBackend('webgpu')
await tf.ready()

const tensor = (shape, seed) =>
  tf.tensor(
    values(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    shape,
  )
const pad = [
  [0, 0],
  [1, 1],
  [1, 1],
  [0, 0],
]
/** Its layout is [n, h, w, c]. */
const model = (layers) => {
  let [side, channels, flat] = [28, 1, false]
  return layers.map(([out, kernel, stride], i) => {
    if (kernel !== undefined) {
      const w = tf.variable(tf.mul(tensor([kernel, kernel, channels, out], i + 1), 0.1))
      side = Math.floor((side + 2 - kernel) / stride) + 1
      channels = out
      return { w, b: tf.variable(tf.zeros([out])), stride }
    }
    const n = flat ? channels : side * side * channels
    flat = true
    channels = out
    return { w: tf.variable(tf.mul(tensor([n, out], i + 1), 0.1)), b: tf.variable(tf.zeros([out])) }
  })
}
const apply = (layers, x) =>
  layers.reduce((h, { w, b, stride }, i) => {
    const y =
      stride === undefined
        ? tf.matMul(h.rank === 2 ? h : tf.reshape(h, [h.shape[0], -1]), w)
        : tf.conv2d(h, w, stride, pad)
    const z = tf.add(y, b)
    return i === layers.length - 1 ? z : tf.relu(z)
  }, x)

const make = (what, rest) => {
  if (what === 'gemm') {
    const n = Number(rest[0])
    const [a, b] = [tensor([n, n], 1), tensor([n, n], 2)]
    let last
    return {
      once: () => {
        last?.dispose()
        last = tf.matMul(a, b)
        return last
      },
      sync: (c) => c.data(),
      flops: 2 * n ** 3,
    }
  }
  const [network, , batch] = rest
  const n = Number(batch)
  const [layers, x] = [model(LAYERS[network]), tensor([n, 28, 28, 1], 9)]
  const labels = tf.oneHot(
    tf.tensor1d(
      Array.from({ length: n }, (_, i) => i % 10),
      'int32',
    ),
    10,
  )
  const adam = tf.train.adam(1e-4)
  let last
  return {
    once: () => {
      last?.dispose()
      last = adam.minimize(() => tf.losses.softmaxCrossEntropy(labels, apply(layers, x)), true)
      return last
    },
    sync: (loss) => loss.data(),
  }
}

await report(
  `TensorFlow.js ${tf.version.tfjs}, ${tf.getBackend()}, Node ${process.version}`,
  works,
  Number(patience),
  make,
)
