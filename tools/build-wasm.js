// Compiles assembly/ to four modules (one thread or many, plain or relaxed SIMD) and embeds each in a TypeScript module as
// base64, so that one file loads in Node, Deno and a browser without fetch or bundler configuration. With --if-older only if one of
// them is older than what it is made of: kernels that the planner no longer means trap, and nothing says why.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { writeWords } from './words.js'

const root = new URL('..', import.meta.url)
const generated = new URL('src/backend/generated/', root)
const build = new URL('build/wasm/', root)
const variants = ['single', 'single-relaxed', 'threads', 'threads-relaxed']

await writeWords()
const changed = (url) => statSync(url).mtimeMs
const sources = [new URL(import.meta.url), new URL('asconfig.json', root)].concat(
  readdirSync(new URL('assembly/', root)).map((name) => new URL(`assembly/${name}`, root)),
)
const modules = variants.map((variant) => new URL(`wasm-${variant}.ts`, generated))
if (process.argv.includes('--if-older') && modules.every((m) => existsSync(m)))
  if (Math.min(...modules.map(changed)) >= Math.max(...sources.map(changed))) process.exit(0)
const { default: asc } = await import('assemblyscript/asc')

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
