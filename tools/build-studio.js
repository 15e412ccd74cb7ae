// Builds the studio, the page that trains and shows bounds, into dist/site: static files for any host. Checks its types, bundles page
// and workers, and puts two models beside them, which tools/build-starters.js trained.
//
//   node tools/build-studio.js [--output DIR] [--starter FILE|none]
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))

/** The networks that the page begins with, as `tools/build-starters.js` left them. */
const MODELS = join(root, 'studio', 'models')

const shared = {
  bundle: true,
  format: 'esm',
  target: 'es2022',
  logLevel: 'warning',
  legalComments: 'linked',
  absWorkingDir: root,
}

const checkTypes = () => {
  const tsc = ['node_modules/typescript/bin/tsc', '-p', 'studio']
  const { status } = spawnSync(process.execPath, tsc, { cwd: root, stdio: 'inherit' })
  if (status !== 0) throw new Error('the studio has type errors')
}

/** Builds into `output`. `given` is a model to start with instead of our own, or `none`; the server leaves types to others. */
export const buildStudio = async ({ output, given, types = true }) => {
  if (!existsSync(join(root, 'dist/src/index.js'))) throw new Error('dist is missing: run npm run build first')
  if (types) checkTypes()
  const own = (name) => join(MODELS, `${name}.safetensors.gz`)
  const models = { STARTER: given === 'none' ? undefined : (given ?? own('starter')), NATURAL: own('natural') }
  rmSync(output, { recursive: true, force: true })
  mkdirSync(output, { recursive: true })
  await build({
    ...shared,
    platform: 'browser',
    splitting: true,
    minify: true,
    external: ['node:*'],
    entryPoints: ['page', 'worker', 'prover'].map((name) => join(root, 'studio', `${name}.ts`)),
    outdir: output,
    chunkNames: 'parts/[name]-[hash]',
    define: Object.fromEntries(
      Object.entries(models).map(([name, file]) => [
        name,
        JSON.stringify(file && { file: basename(file) }) ?? 'undefined',
      ]),
    ),
  })
  for (const file of ['index.html', 'style.css']) copyFileSync(join(root, 'studio', file), join(output, file))
  for (const file of Object.values(models)) if (file !== undefined) copyFileSync(file, join(output, basename(file)))
  return output
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { output: { type: 'string' }, starter: { type: 'string' } },
  })
  const output = resolve(values.output ?? join(root, 'dist', 'site'))
  await buildStudio({ output, given: values.starter })
  const files = readdirSync(output, { recursive: true }).map((name) => join(output, name))
  const bytes = files.reduce((n, file) => n + (statSync(file).isFile() ? statSync(file).size : 0), 0)
  process.stdout.write(`${output}: ${(bytes / 2 ** 20).toFixed(1)} MB, ready for any static host\n`)
}
