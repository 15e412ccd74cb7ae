// Builds the studio, the page that trains and shows bounds, into dist/studio: static files for any host. Checks its types, bundles page
// and worker, and puts a starter model beside them: trained by this library on the embedded digits, kept in build/studio between builds.
//
//   node tools/build-studio.js [--output DIR] [--starter FILE|none]
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import process from 'node:process'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))

/** What the starter is trained with, without random crops: about half a minute on two cores. */
const STARTER = { images: 2000, epochs: 6, epsilon: 0.1, batchSize: 20, k: 2, seed: 0 }
const NAME = 'starter.safetensors'

const shared = {
  bundle: true,
  format: 'esm',
  target: 'es2022',
  logLevel: 'warning',
  legalComments: 'linked',
  absWorkingDir: root,
}

/** The file of the starter, trained if no earlier build left one with these settings. */
const starter = async () => {
  const folder = join(root, 'build', 'studio', Object.entries(STARTER).flat().join('-'))
  const file = join(folder, NAME)
  if (existsSync(file)) return file
  const library = join(folder, 'library.mjs')
  await build({ ...shared, platform: 'node', entryPoints: [join(root, 'src/index.ts')], outfile: library })
  const { device, digits, encodeModel, fit, networks, recipe, take } = await import(pathToFileURL(library).href)
  const { images, epochs, epsilon, batchSize, k, seed } = STARTER
  const { k: _, numbers: __, ...plan } = recipe('mixtrain', { epsilon, epochs, batchSize, k })
  const { train } = await digits()
  const network = networks.small({ input: train.shape, classes: train.classes })
  const wasm = await device({ device: 'wasm' })
  try {
    for await (const epoch of fit({
      data: { train: take(images)(train) },
      network,
      seed,
      ...plan,
      augment: undefined,
      epsilon,
    })(wasm)) {
      const { acc, vra, checkpoint } = epoch
      process.stderr.write(
        `starter model, epoch ${epoch.epoch + 1}/${epochs}: ACC ${acc.toFixed(3)}, VRA ${vra.toFixed(3)}\n`,
      )
      if (epoch.epoch + 1 < epochs) continue
      const provenance = { epsilon, loss: 'mixtrain', seed, arithmetic: 'exact' }
      writeFileSync(file, encodeModel({ network, parameters: checkpoint.state.parameters, provenance }))
    }
  } finally {
    wasm.dispose()
    rmSync(library)
  }
  return file
}

/** Builds into `output`. `given` is a model to start with instead of our own, or `none`. */
export const buildStudio = async ({ output, given }) => {
  const generated = ['src/data/generated/digits.ts', 'src/backend/generated/wasm-single.ts']
  const missing = generated.find((file) => !existsSync(join(root, file)))
  if (missing !== undefined) throw new Error(`${missing} is missing: run npm run build first`)
  const types = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'studio'], {
    cwd: root,
    stdio: 'inherit',
  })
  if (types.status !== 0) throw new Error('the studio has type errors')
  const model = given === 'none' ? undefined : (given ?? (await starter()))
  rmSync(output, { recursive: true, force: true })
  mkdirSync(output, { recursive: true })
  await build({
    ...shared,
    platform: 'browser',
    splitting: true,
    minify: true,
    external: ['node:*'],
    entryPoints: ['page', 'worker'].map((name) => join(root, 'studio', `${name}.ts`)),
    outdir: output,
    chunkNames: 'parts/[name]-[hash]',
    define: { STARTER: model === undefined ? 'undefined' : JSON.stringify({ file: NAME }) },
  })
  for (const file of ['index.html', 'style.css']) copyFileSync(join(root, 'studio', file), join(output, file))
  if (model !== undefined) copyFileSync(model, join(output, NAME))
  return output
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { output: { type: 'string' }, starter: { type: 'string' } },
  })
  const output = resolve(values.output ?? join(root, 'dist', 'studio'))
  await buildStudio({ output, given: values.starter })
  const files = readdirSync(output, { recursive: true }).map((name) => join(output, name))
  const bytes = files.reduce((n, file) => n + (statSync(file).isFile() ? statSync(file).size : 0), 0)
  process.stdout.write(`${output}: ${(bytes / 2 ** 20).toFixed(1)} MB, ready for any static host\n`)
}
