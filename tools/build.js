// Builds everything that is generated: the embedded digits, the WASM modules, then the TypeScript. Runs on `npm ci` (prepare).
import { spawnSync } from 'node:child_process'
import { existsSync, rmSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const run = (...args) => {
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
}

const digits = `${root}src/data/generated/digits.ts`
const made = (path) => statSync(path).mtimeMs
if (!existsSync(digits) || made(digits) < made(`${root}tools/build-digits.js`)) run('tools/build-digits.js')
run('tools/build-wasm.js')
rmSync(`${root}dist`, { recursive: true, force: true })
run('node_modules/typescript/bin/tsc', '-p', '.')
run('tools/es-modules.js')
run('tools/former-places.js')
run('tools/build-cli.js')
