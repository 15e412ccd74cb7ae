// jax-js on the works of bench:peers (Node 22 or newer). usage: node jax.js FOLDER SECONDS wasm WORK...
import { pathToFileURL } from 'node:url'
import { report, values } from './measure.js'

const [folder, seconds, name, ...names] = process.argv.slice(2)
const jax = await import(pathToFileURL(`${folder}/node_modules/@jax-js/jax/dist/index.js`).href)
const { numpy: np, lax, nn } = jax
await jax.init()
jax.defaultDevice(name)

const tensor = (shape, seed) =>
  np
    .array(
      values(
        shape.reduce((a, b) => a * b, 1),
        seed,
      ),
    )
    .reshape(shape)
const shapes = [[16, 1, 4, 4], [16], [32, 16, 4, 4], [32], [100, 1568], [100], [10, 100], [10]]
const variables = () => shapes.map((s, i) => tensor(s, i + 1).mul(0.1))
const pads = [
  [1, 1],
  [1, 1],
]
const network = ([w1, b1, w2, b2, w3, b3, w4, b4], x) => {
  const a = nn.relu(lax.convGeneralDilated(x, w1, [2, 2], pads).add(b1.reshape([16, 1, 1])))
  const b = nn.relu(lax.convGeneralDilated(a, w2, [2, 2], pads).add(b2.reshape([32, 1, 1])))
  const n = b.shape[0]
  const h = nn.relu(np.matmul(b.reshape([n, 1568]), w3.transpose()).add(b3))
  return np.matmul(h, w4.transpose()).add(b4)
}
/** A value that may be used again: every use consumes one reference. */
const held = (list) => list.map((v) => v.ref)

await report(
  `jax-js, ${name}, Node ${process.version}`,
  {
    'gemm 512': () => {
      const [a, b] = [tensor([512, 512], 1), tensor([512, 512], 2)]
      return async () => {
        await np.matmul(a.ref, b.ref).data()
      }
    },
    'forward 100': () => {
      const [v, x] = [variables(), tensor([100, 1, 28, 28], 9)]
      const f = jax.jit((p, y) => network(p, y))
      return async () => {
        await f(held(v), x.ref).data()
      }
    },
    'natural step': () => {
      let v = variables()
      const x = tensor([50, 1, 28, 28], 9)
      const labels = np.array(
        Float32Array.from({ length: 500 }, (_, i) => (i % 10 === Math.floor(i / 10) % 10 ? 1 : 0)),
      )
      const target = labels.reshape([50, 10])
      const loss = (p, y, t) =>
        nn
          .logSoftmax(network(p, y))
          .mul(t)
          .sum()
          .mul(-1 / 50)
      // Plain gradient descent: less work than the Adam of the others.
      const step = jax.jit((p, y, t) => {
        const g = jax.grad(loss)(held(p), y, t)
        return p.map((w, i) => w.sub(g[i].mul(1e-4)))
      })
      return async () => {
        v = step(v, x.ref, target.ref)
        await jax.blockUntilReady(v)
      }
    },
  },
  Number(seconds),
  names,
)
process.exit(0)
