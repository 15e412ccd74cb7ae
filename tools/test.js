// Runs the compiled tests, one process a file and one file a core:
//
//   node tools/test.js [node|deno] [--slow] [PATTERN]
//
// node: this one; deno: the npm package deno. --slow: the files of dist/test/slow instead of the others. PATTERN: a regular expression on the path below
// dist/test. Prints a line for each file, everything that a failing one printed, skipped tests, and the sum.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, stripVTControlCharacters } from 'node:util'

const { values, positionals } = parseArgs({ options: { slow: { type: 'boolean' } }, allowPositionals: true })
const runtime = ['node', 'deno'].includes(positionals[0]) ? positionals.shift() : 'node'
const pattern = new RegExp(positionals[0] ?? '')
const root = fileURLToPath(new URL('..', import.meta.url))
// The script of the package, not .bin/deno: on Windows that is one that only a shell starts.
const deno = join(root, 'node_modules/deno/bin.cjs')
const command = [
  process.execPath,
  ...(runtime === 'node' ? [] : [deno, 'run', '-A', '--quiet', '--node-modules-dir=manual']),
]
if (runtime === 'deno' && !existsSync(deno)) {
  console.log('SKIP deno: the package deno is not installed')
  process.exit(0)
}

const tests = join(root, 'dist', 'test')
// The command line is tested as a process of its own, which its test starts in both runtimes.
const elsewhere = runtime === 'deno' ? ['slow', 'cli'] : ['slow']
const under = (folder, suffix, without) =>
  readdirSync(folder, { withFileTypes: true }).flatMap((f) => {
    const path = join(folder, f.name)
    if (f.isDirectory()) return without.includes(f.name) ? [] : under(path, suffix, without)
    return f.name.endsWith(suffix) ? [path] : []
  })
/** What is left in dist of a test that was renamed or removed is none. */
const hasSource = (path) => existsSync(join(root, 'test', relative(tests, path).replace(/\.js$/, '.ts')))
const files = (values.slow ? under(join(tests, 'slow'), '.slow.js', []) : under(tests, '.test.js', elsewhere))
  .filter((path) => pattern.test(relative(tests, path)) && hasSource(path))
  .sort()

/** What a file printed, in order, and how it ended. */
const run = (file) =>
  new Promise((resolve) => {
    const begun = performance.now()
    const child = spawn(command[0], [...command.slice(1), file], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    const printed = []
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (part) => printed.push(part))
    child.on('error', (e) => printed.push(Buffer.from(String(e))))
    child.on('close', (status) =>
      resolve({ status, text: Buffer.concat(printed).toString(), seconds: (performance.now() - begun) / 1000 }),
    )
  })

let [passed, failed] = [0, 0]
const left = [...files]
const work = async () => {
  for (let file = left.shift(); file !== undefined; file = left.shift()) {
    const { status, text, seconds } = await run(file)
    const count = (label) => Number(new RegExp(`${label}:\\s+(\\d+)`).exec(stripVTControlCharacters(text))?.[1] ?? 0)
    const [total, good] = [count('Total'), count('Passed')]
    const skips = text.split('\n').filter((line) => line.startsWith('SKIP '))
    // A file whose tests were all skipped says so; one that runs nothing and says nothing is broken.
    const fine = status === 0 && total === good && (total > 0 || skips.length > 0)
    passed += good
    failed += fine ? 0 : Math.max(1, total - good)
    console.log(`${relative(root, file)}: ${good} of ${total} (${seconds.toFixed(1)} s)`)
    for (const line of fine ? skips : [text]) console.log(line)
  }
}
const begun = performance.now()
await Promise.all(Array.from({ length: availableParallelism() }, work))
if (files.length === 0) failed++
const seconds = ((performance.now() - begun) / 1000).toFixed(0)
console.log(
  `${runtime === 'node' ? 'Node' : 'Deno'}: ${passed} passed, ${failed} failed in ${files.length} files (${seconds} s)`,
)
process.exit(failed === 0 ? 0 : 1)
