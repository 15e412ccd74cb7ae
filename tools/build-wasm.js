// Compiles assembly/ to four modules (one thread or many, plain or relaxed SIMD) and embeds each in a TypeScript module as
// base64, so that one file loads in Node, Deno and a browser without fetch or bundler configuration.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

const root = new URL('..', import.meta.url)
const generated = new URL('src/backend/generated/', root)
const build = new URL('build/wasm/', root)
const variants = ['single', 'single-relaxed', 'threads', 'threads-relaxed']

rmSync(build, { recursive: true, force: true })
mkdirSync(build, { recursive: true })
mkdirSync(generated, { recursive: true })
process.chdir(fileURLToPath(root))

for (const variant of variants) {
  const { error, stderr } = await asc.main(['--config', 'asconfig.json', '--target', variant])
  if (error) {
    process.stderr.write(stderr.toString())
    throw error
  }
  const bytes = readFileSync(new URL(`${variant}.wasm`, build))
  writeFileSync(
    new URL(`wasm-${variant}.ts`, generated),
    `// Made by tools/build-wasm.js from assembly/. Do not edit.\nexport const base64: string =\n  '${bytes.toString('base64')}'\n`,
  )
  process.stdout.write(`src/backend/generated/wasm-${variant}.ts: ${bytes.length} bytes of WebAssembly\n`)
}
