// Packs the package, installs it into an empty project as a user would, and uses it there: import, types, command line.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'mixtrain-package-'))
const run = (command, args, cwd = folder) => {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} exited with ${status}\n${stdout}${stderr}`)
  return stdout
}

try {
  const [{ filename }] = JSON.parse(
    run('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', folder], root),
  )
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'empty', private: true, type: 'module' }))
  run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', join(folder, filename)])
  writeFileSync(
    join(folder, 'use.js'),
    `import { ball, constant, device, evaluate, relu } from 'mixtrain'
const backend = await device({ threads: 1 })
const { lower, upper } = relu(ball(constant([0.5, 0.05], [2]), 0.1))
const [l, u] = await evaluate(backend)([lower, upper])
backend.dispose()
const near = (x, y) => Math.abs(x - y) < 1e-6
if (!near(l[0], 0.4) || !near(l[1], 0) || !near(u[0], 0.6) || !near(u[1], 0.15)) throw new Error(\`\${l} \${u}\`)
`,
  )
  run(process.execPath, ['use.js'])
  const devices = JSON.parse(run(join(folder, 'node_modules/.bin/mixtrain'), ['devices', '--json']))
  if (devices === null) throw new Error('mixtrain devices --json printed nothing')
  console.log('package: packs, installs into an empty project, imports and runs')
} finally {
  rmSync(folder, { recursive: true, force: true })
}
