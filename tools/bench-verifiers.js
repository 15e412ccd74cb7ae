// Complete verifiers on the same instances, one after the other for each: verdicts, CPU seconds and seconds on the wall, a process of one thread each.
//
//   npm run bench:verifiers -- LIST.csv --folder FOLDER [--marabou FILE] [--timeout 60] [--families acasxu,mnist_fc] [--count 6] [--name peers]
//
// LIST.csv as `mixtrain benchmark` reads it; the files of an instance are FOLDER/FAMILY/NAME, gzipped or not. Marabou is measured where --marabou names its
// command (`pip install maraboupy onnxruntime` in an environment of its own brings bin/Marabou). Every process stops itself after --timeout seconds on the wall,
// so a busy machine decides fewer: the load is printed. Writes bench/results/vnncomp/NAME.json.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'
import Table from 'cli-table3'
import { median } from '../dist/bench/statistics.js'
import { decodeInstances } from '../dist/src/cli/instances.js'
import { VERSION } from '../dist/src/cli/version.js'
import { argument, progress } from './peers.js'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const list = process.argv[2]
const folder = argument('--folder', undefined)
const marabou = argument('--marabou', undefined)
const timeout = Number(argument('--timeout', '60'))
const families = argument('--families', undefined)?.split(',')
const count = Number(argument('--count', '6'))
if (list === undefined || !existsSync(list) || folder === undefined) {
  console.error(
    'usage: npm run bench:verifiers -- LIST.csv --folder FOLDER [--marabou FILE] [--timeout 60] [--families A,B] [--count 6]',
  )
  process.exit(1)
}
const read = decodeInstances(readFileSync(list, 'utf8'), list)
if (read._tag === 'Left') {
  console.error(read.left.message)
  process.exit(1)
}

const scratch = mkdtempSync(join(tmpdir(), 'mixtrain-verifiers-'))
/** The plain file of an instance: Marabou reads no gzip. */
const plain = (family, name) => {
  const from = join(folder, family, name)
  if (existsSync(from)) return from
  const to = join(scratch, basename(name))
  writeFileSync(to, gunzipSync(readFileSync(`${from}.gz`)))
  return to
}

/** Runs a command of one thread; the shell tells the CPU time of what it ran. */
const timed = (command, args) => {
  const begun = performance.now()
  const { stdout, stderr } = spawnSync('sh', ['-c', '"$@"; times', 'sh', command, ...args], {
    encoding: 'utf8',
    // Who does not stop is stopped.
    timeout: 2e3 * timeout + 10e3,
    killSignal: 'SIGKILL',
    env: { ...process.env, OMP_NUM_THREADS: '1', OPENBLAS_NUM_THREADS: '1' },
  })
  const wall = (performance.now() - begun) / 1e3
  const [user, system] = [...(stdout.trimEnd().split('\n').at(-1) ?? '').matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, m, s]) => 60 * Number(m) + Number(s),
  )
  return { out: stdout, err: stderr, wall, cpu: user + system }
}
const tools = [
  {
    name: `mixtrain ${VERSION}`,
    run: (onnx, vnnlib) =>
      timed(process.execPath, [
        ...[join(root, 'dist/src/cli/main.js'), 'verify', onnx, vnnlib],
        ...['--timeout', String(timeout), '--threads', '1'],
      ]),
    verdict: ({ out }) => /^(sat|unsat|unknown|timeout)$/m.exec(out)?.[1] ?? 'failed',
  },
  ...(marabou === undefined
    ? []
    : [
        {
          name: /Marabou version (\S+)/.exec(timed(marabou, ['--version']).out)?.[0] ?? 'Marabou',
          run: (onnx, vnnlib) => timed(marabou, [onnx, vnnlib, '--verbosity', '0', '--timeout', String(timeout)]),
          verdict: ({ out }) => /^(sat|unsat|unknown|timeout)\b/im.exec(out)?.[1].toLowerCase() ?? 'failed',
        },
      ]),
]

const chosen = read.right.filter(
  ({ family, expected }) => expected !== undefined && (families?.includes(family) ?? true),
)
const named = [...new Set(chosen.map((i) => i.family))]
/** As many of a family, evenly spread over the list. */
const some = named.flatMap((family) => {
  const own = chosen.filter((i) => i.family === family)
  return own.filter((_, i) => Math.floor((i * count) / own.length) !== Math.floor(((i - 1) * count) / own.length))
})
const before = loadavg()
const rows = some.flatMap(({ family, onnx, vnnlib, expected }) => {
  const files = [plain(family, onnx), plain(family, vnnlib)]
  return tools.map(({ name, run, verdict }) => {
    const ended = run(...files)
    const row = {
      family,
      onnx,
      vnnlib,
      expected,
      tool: name,
      verdict: verdict(ended),
      cpu: ended.cpu,
      wall: ended.wall,
    }
    progress(
      `${family} ${onnx} ${vnnlib} ${name}: ${row.verdict}, ${row.cpu.toFixed(1)} CPU s, ${row.wall.toFixed(1)} s`,
    )
    return row
  })
})
rmSync(scratch, { recursive: true, force: true })

const decided = ({ verdict }) => verdict === 'sat' || verdict === 'unsat'
const middle = (xs) => (xs.length === 0 ? '' : median(xs).toFixed(1))
const summary = named.flatMap((family) =>
  tools.map(({ name }) => {
    const own = rows.filter((r) => r.family === family && r.tool === name)
    const both = own.filter((r) =>
      rows.filter((o) => o.family === family && o.onnx === r.onnx && o.vnnlib === r.vnnlib).every(decided),
    )
    return {
      family,
      tool: name,
      instances: own.length,
      decided: own.filter(decided).length,
      wrong: own.filter((r) => decided(r) && r.verdict !== r.expected).length,
      'median CPU s': middle(own.filter(decided).map((r) => r.cpu)),
      'of those that all decided': middle(both.map((r) => r.cpu)),
    }
  }),
)
const table = new Table({ head: Object.keys(summary[0] ?? {}), style: { head: [], border: [], compact: true } })
for (const row of summary) table.push(Object.values(row))
const environment = {
  date: new Date().toISOString(),
  machine: cpus()[0].model,
  cores: cpus().length,
  node: process.version,
  load: { before, after: loadavg() },
  timeout,
  command: `npm run bench:verifiers -- ${basename(list)} ${process.argv
    .slice(3)
    .map((a) => (a.includes('/') ? basename(a) : a))
    .join(' ')}`,
}
writeFileSync(
  join(root, 'bench/results/vnncomp', `${argument('--name', 'peers')}.json`),
  `${JSON.stringify({ environment, summary, rows }, null, 1)}\n`,
)
console.log(`${environment.machine}, load ${before[0].toFixed(1)}, ${timeout} s each`)
console.log(table.toString())
