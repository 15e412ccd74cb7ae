// Runs the compiled tests under Deno (npm package deno), one process a file; ends with the sum of their totals.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'

const root = fileURLToPath(new URL('..', import.meta.url))
const deno = join(root, 'node_modules/.bin/deno')
if (!existsSync(deno)) {
  console.log('SKIP deno: the package deno is not installed')
  process.exit(0)
}
// The command line is tested as a process of its own, which its test starts in both runtimes.
const elsewhere = ['cli']
const files = (folder) =>
  readdirSync(folder, { withFileTypes: true }).flatMap((f) => {
    const path = join(folder, f.name)
    if (f.isDirectory()) return elsewhere.includes(f.name) ? [] : files(path)
    return f.name.endsWith('.test.js') ? [path] : []
  })
let [passed, failed] = [0, 0]
for (const file of files(join(root, 'dist/test')).sort()) {
  const begun = performance.now()
  const { stdout, stderr, status } = spawnSync(deno, ['run', '-A', '--quiet', '--node-modules-dir=manual', file], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  })
  const count = (label) => Number(new RegExp(`${label}:\\s+(\\d+)`).exec(stripVTControlCharacters(stdout))?.[1] ?? 0)
  const [total, good] = [count('Total'), count('Passed')]
  passed += good
  failed += status === 0 && total > 0 && total === good ? 0 : Math.max(1, total - good)
  console.log(`${relative(root, file)}: ${good} of ${total} (${((performance.now() - begun) / 1000).toFixed(1)} s)`)
  for (const line of stdout.split('\n')) if (line.startsWith('SKIP ')) console.log(line)
  if (status !== 0 || total !== good) console.log(stdout, stderr)
}
console.log(`Deno: ${passed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
