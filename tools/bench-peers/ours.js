// mixtrain on the works of bench:peers. usage: node ours.js THREADS SECONDS fast|default WEIGHTS DATA WORK... (both may be empty)
import { fileURLToPath } from 'node:url'
import { report, values } from './measure.js'

const root = new URL('../../dist/', import.meta.url)
const load = (path) => import(fileURLToPath(new URL(path, root)))
const [threads, seconds, math, weights, data, ...names] = process.argv.slice(2)
const { device } = await load('src/backend/device.js')
const { compile } = await load('src/compile/run.js')
const { input, matmul } = await load('src/ops/index.js')
const { measureStep, stepKinds, subjectOf } = await load('bench/steps.js')
const { networks } = await load('src/nn/networks.js')
const { key } = await load('src/core/key.js')
const { show } = await load('src/core/error.js')

const backend = await device({ device: 'wasm', threads: Number(threads), fastMath: math === 'fast' })

const runs = async (outputs, inputs) => {
  const f = await compile(backend)(outputs, inputs)
  const args = [...inputs, ...outputs].map((x, i) => {
    const n = x.shape.reduce((a, b) => a * b, 1)
    const buffer = backend.alloc(n)
    if (i < inputs.length) backend.write(buffer, values(n, i + 1))
    return buffer
  })
  return async () => {
    f.run(args)
    await backend.sync()
  }
}

const works = {
  'gemm 512': () => {
    const [a, b] = [input('a', [512, 512]), input('b', [512, 512])]
    return runs([matmul(a, b)], [a, b])
  },
  'forward 100': () => {
    const net = networks.small({ input: [1, 28, 28], classes: 10 })
    const parameters = Object.fromEntries(
      Object.keys(net.init(key(0))).map((k) => [k, input(k, net.parameters[k].shape)]),
    )
    const x = input('x', [100, 1, 28, 28])
    return runs([net.apply(parameters)(x)], [...Object.values(parameters), x])
  },
}
const steps = {
  'natural step': ['natural', 50],
  'natural step 100': ['natural', 100],
  'IBP step': ['ibp', 50],
  'CROWN-IBP step': ['crownIbp', 50],
  'MTL-IBP step': ['mtlIbp', 50],
  'PGD-40 step': ['pgd', 50],
  'MixTrain step, k = 1': ['mixtrain', 50],
  'symbolic step': ['symbolic', 50],
}
const read = await subjectOf(weights || undefined, data || undefined)()
if (read._tag === 'Left') {
  console.error(show(read.left))
  process.exit(1)
}

// Steps go through the trainer, whose bench measures them; its numbers are passed on.
const measured = {}
for (const name of names.filter((n) => n in steps)) {
  const row = await measureStep({
    ...read.right,
    network: 'small',
    kind: stepKinds[steps[name][0]],
    batch: steps[name][1],
    epsilon: 0.3,
    threads: Number(threads),
    fastMath: math === 'fast',
    time: Number(seconds) * 1e3,
  })
  measured[name] = { wall: row.milliseconds, cpu: row.cpu }
}
const log = console.log
console.log = (line) => {
  const { version, works: w } = JSON.parse(line)
  log(JSON.stringify({ version, works: { ...w, ...measured } }))
}
await report(`mixtrain, Node ${process.version}, ${backend.description}`, works, Number(seconds), names)
process.exit(0)
