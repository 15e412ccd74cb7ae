// jax-js on the works of bench:gpu (Node 22 or newer). usage: node jax.js FOLDER MILLISECONDS WORK...
import { pathToFileURL } from 'node:url'
import { LAYERS, provide, report, values } from './measure.js'

const [folder, patience, ...works] = process.argv.slice(2)
provide()
const jax = await import(pathToFileURL(`${folder}/node_modules/@jax-js/jax/dist/index.js`).href)
const { numpy: np, lax, nn } = jax
await jax.init('webgpu')
jax.defaultDevice('webgpu')

const tensor = (shape, seed) =>
  np
    .array(
      values(
        shape.reduce((a, b) => a * b, 1),
        seed,
      ),
    )
    .reshape(shape)
const pads = [
  [1, 1],
  [1, 1],
]
const model = (layers) => {
  let [side, channels, flat] = [28, 1, false]
  return layers.flatMap(([out, kernel, stride], i) => {
    const shape =
      kernel === undefined ? [out, flat ? channels : side * side * channels] : [out, channels, kernel, kernel]
    if (kernel !== undefined) side = Math.floor((side + 2 - kernel) / stride) + 1
    else flat = true
    channels = out
    return [tensor(shape, i + 1).mul(0.1), tensor([out], 50 + i).mul(0)]
  })
}
const apply = (layers, p, x) =>
  layers.reduce((h, [, kernel, stride], i) => {
    const [w, b] = [p[2 * i], p[2 * i + 1]]
    const y =
      kernel === undefined
        ? np.matmul(h.reshape([h.shape[0], -1]), w.transpose()).add(b)
        : lax.convGeneralDilated(h, w, [stride, stride], pads).add(b.reshape([-1, 1, 1]))
    return i === layers.length - 1 ? y : nn.relu(y)
  }, x)

const make = (what, rest) => {
  if (what === 'gemm') {
    const n = Number(rest[0])
    const [a, b] = [tensor([n, n], 1), tensor([n, n], 2)]
    let last
    return {
      once: () => {
        last?.dispose?.()
        last = np.matmul(a.ref, b.ref)
        return last
      },
      sync: (c) => jax.blockUntilReady(c),
      flops: 2 * n ** 3,
    }
  }
  const [network, , batch] = rest
  const n = Number(batch)
  const layers = LAYERS[network]
  let p = model(layers)
  const x = tensor([n, 1, 28, 28], 9)
  const target = np
    .array(Float32Array.from({ length: 10 * n }, (_, i) => (i % 10 === Math.floor(i / 10) % 10 ? 1 : 0)))
    .reshape([n, 10])
  const loss = (q, y, t) =>
    nn
      .logSoftmax(apply(layers, q, y))
      .mul(t)
      .sum()
      .mul(-1 / n)
  // Plain gradient descent: less work than the Adam of the others.
  const step = jax.jit((q, y, t) => {
    const g = jax.grad(loss)(
      q.map((v) => v.ref),
      y,
      t,
    )
    return q.map((w, i) => w.sub(g[i].mul(1e-4)))
  })
  return {
    once: () => {
      p = step(p, x.ref, target.ref)
      return p
    },
    sync: (q) => jax.blockUntilReady(q),
  }
}

await report(`jax-js, webgpu, Node ${process.version}`, works, Number(patience), make)
