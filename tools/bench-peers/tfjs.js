// TensorFlow.js on the works of bench:peers. usage: node tfjs.js FOLDER SECONDS wasm|cpu WORK...
import { createRequire } from 'node:module'
import { report, values } from './measure.js'

const [folder, seconds, name, ...names] = process.argv.slice(2)
const require = createRequire(`${folder}/package.json`)
console.warn = () => {}
const tf = require('@tensorflow/tfjs')
if (name === 'wasm') {
  const { setWasmPaths } = require('@tensorflow/tfjs-backend-wasm')
  setWasmPaths(`${folder}/node_modules/@tensorflow/tfjs-backend-wasm/dist/`)
}
await tf.setBackend(name)
await tf.ready()

const tensor = (shape, seed) =>
  tf.tensor(
    values(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    shape,
  )
const variables = () =>
  [[4, 4, 1, 16], [16], [4, 4, 16, 32], [32], [1568, 100], [100], [100, 10], [10]].map((s, i) =>
    tf.variable(tf.mul(tensor(s, i + 1), 0.1)),
  )
// Its layout is [n, h, w, c]; paddings of 1 on each side.
const pad = [
  [0, 0],
  [1, 1],
  [1, 1],
  [0, 0],
]
const network = ([w1, b1, w2, b2, w3, b3, w4, b4], x) => {
  const a = tf.relu(tf.add(tf.conv2d(x, w1, 2, pad), b1))
  const b = tf.relu(tf.add(tf.conv2d(a, w2, 2, pad), b2))
  return tf.add(tf.matMul(tf.relu(tf.add(tf.matMul(tf.reshape(b, [-1, 1568]), w3), b3)), w4), b4)
}

await report(
  `TensorFlow.js ${tf.version.tfjs}, ${name}, Node ${process.version}`,
  {
    'gemm 512': () => {
      const [a, b] = [tensor([512, 512], 1), tensor([512, 512], 2)]
      return async () => {
        const c = tf.matMul(a, b)
        await c.data()
        c.dispose()
      }
    },
    'forward 100': () => {
      const [v, x] = [variables(), tensor([100, 28, 28, 1], 9)]
      return async () => {
        const y = tf.tidy(() => network(v, x))
        await y.data()
        y.dispose()
      }
    },
    'natural step': () => {
      const [v, x] = [variables(), tensor([50, 28, 28, 1], 9)]
      const labels = tf.oneHot(
        tf.tensor1d(
          Array.from({ length: 50 }, (_, i) => i % 10),
          'int32',
        ),
        10,
      )
      const adam = tf.train.adam(1e-4)
      return async () => {
        const loss = adam.minimize(() => tf.losses.softmaxCrossEntropy(labels, network(v, x)), true)
        await loss.data()
        loss.dispose()
      }
    },
  },
  Number(seconds),
  names,
)
