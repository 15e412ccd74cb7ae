// Packs the package, installs it into an empty project as a user would, and uses it there: every door, types under each resolution, command line, bundlers.
// What it weighs is printed and has limits, a fifth above what it was when they were set.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import nodeResolve from '@rollup/plugin-node-resolve'
import { build } from 'esbuild'
import { rollup } from 'rollup'
import { packed } from './pack.js'

/** kB of 1,000 bytes; CPU milliseconds of a process that imports the root door, less those of one that does nothing
 * (a limit of three times that, for busy machines). */
const LIMITS = {
  'packed kB': 3600,
  'unpacked kB': 8500,
  'installed packages': 20,
  'installed kB': 25500,
  'bundle of a bound, kB': 84,
  'bundle of a bound, gzip kB': 30,
  'bundle of a training, gzip kB': 106,
  'import, CPU ms': 600,
}

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'mixtrain-package-'))
// On Windows npm and what packages bring are scripts, which only a shell starts.
const shell = process.platform === 'win32'
const run = (command, args, cwd = folder) => {
  const script = shell && command !== process.execPath
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8', shell: script })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} exited with ${status}\n${stdout}${stderr}`)
  return stdout
}
const bytesUnder = (path) =>
  readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0)
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1]

/** CPU milliseconds of a process that runs a line of code. */
const cpu = (code) =>
  median(
    Array.from({ length: 5 }, () =>
      Number(
        run(process.execPath, [
          '--input-type=module',
          '--eval',
          `${code}; const { user, system } = process.cpuUsage(); console.log((user + system) / 1000)`,
        ]),
      ),
    ),
  )

const BOUND = `import { ball, constant, evaluate, matmul, reference, relu } from 'mixtrain'
const { lower } = relu(matmul(ball(constant([0.5, 0.05], [1, 2]), 0.1), constant([1, 0, 0, 1], [2, 2])))
console.log((await evaluate(reference())([lower]))[0].join(' '))
`
/** What a page does that computes on the device that it finds. */
const PAGE = `import { ball, constant, device, evaluate, relu } from 'mixtrain'
import { mixTrain } from 'mixtrain/losses'
device().then(async (backend) => {
  const { lower } = relu(ball(constant([0.5, 0.05], [2]), 0.1))
  document.title = (await evaluate(backend)([lower]))[0].join(' ') + typeof mixTrain
})
`
/** Bundlers that are installed for the check alone, after the package was weighed: they bring hundreds of packages. */
const BUNDLERS = ['webpack@5.113.0', 'webpack-cli@7.3.1', 'parcel@2.16.4', 'vite@8.4.0']
const TRAINING = `import { device, fit } from 'mixtrain'
import * as losses from 'mixtrain/losses'
import * as nn from 'mixtrain/nn'
globalThis.train = async (train) => {
  const network = nn.network('mlp', nn.sequential(nn.flatten, nn.dense(10)), { input: [1, 28, 28], classes: 10 })
  for await (const epoch of fit({ network, data: { train }, loss: losses.mixTrain({ k: 5 }), epsilon: 0.1 })(await device())) console.log(epoch.vra)
}
`

/** The entry of a bundle for the browser, in bytes: chunks that it loads when it needs them (WASM, the digits) are not part of it. */
const bundled = async (name) => {
  const { outputFiles, metafile } = await build({
    entryPoints: [join(folder, name)],
    bundle: true,
    splitting: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    outdir: join(folder, 'out'),
    write: false,
    metafile: true,
    external: ['node:*'],
    absWorkingDir: folder,
  })
  const reached = new Set()
  const follow = (file) => {
    if (reached.has(file)) return
    reached.add(file)
    for (const { path, kind } of metafile.outputs[file].imports)
      if (kind === 'import-statement' && path in metafile.outputs) follow(path)
  }
  follow(Object.keys(metafile.outputs).find((file) => metafile.outputs[file].entryPoint !== undefined))
  const contents = outputFiles.filter(({ path }) => [...reached].some((file) => path.endsWith(file)))
  return {
    plain: contents.reduce((sum, { contents: c }) => sum + c.length, 0),
    packed: contents.reduce((sum, { contents: c }) => sum + gzipSync(c, { level: 9 }).length, 0),
  }
}

try {
  const { tarball, size, unpackedSize, page } = packed(root, join(folder, 'published'))
  run(join(root, 'node_modules/.bin/publint'), ['run', '--strict', tarball])
  // CommonJS gets the ES modules by require(esm), which Node 20.19 and newer have.
  run(join(root, 'node_modules/.bin/attw'), [tarball, '--ignore-rules', 'cjs-resolves-to-esm'], root)

  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'empty', private: true, type: 'module' }))
  run('npm', ['install', '--no-audit', '--no-fund', tarball])
  const modules = join(folder, 'node_modules')
  const manifest = JSON.parse(readFileSync(join(modules, 'mixtrain/package.json'), 'utf8'))
  const { exports } = manifest
  if (manifest.scripts !== undefined) throw new Error('the package has scripts, of whose installation npm warns')
  const address = page === undefined ? [] : [`git+${page}.git`, `${page}#readme`, `${page}/issues`]
  const named = [manifest.repository?.url, manifest.homepage, manifest.bugs?.url].filter((x) => x !== undefined)
  if (named.join() !== address.join()) throw new Error(`the package names ${named}, not ${address}`)
  console.log(`package: ${page === undefined ? 'git knows no public address, and it names none' : `lives at ${page}`}`)
  const doors = Object.keys(exports).filter((door) => door !== './package.json')
  writeFileSync(
    join(folder, 'use.js'),
    `import { ball, constant, device, evaluate, relu } from 'mixtrain'
const doors = await Promise.all(${JSON.stringify(doors)}.map((door) => import(door.replace('.', 'mixtrain'))))
for (const door of doors) if (Object.keys(door).length < 3) throw new Error('a door is empty')
const backend = await device({ threads: 1 })
const { lower, upper } = relu(ball(constant([0.5, 0.05], [2]), 0.1))
const [l, u] = await evaluate(backend)([lower, upper])
backend.dispose()
const near = (x, y) => Math.abs(x - y) < 1e-6
if (!near(l[0], 0.4) || !near(l[1], 0) || !near(u[0], 0.6) || !near(u[1], 0.15)) throw new Error(\`\${l} \${u}\`)
`,
  )
  run(process.execPath, ['use.js'])
  const devices = JSON.parse(run(join(modules, '.bin/mixtrain'), ['devices', '--json']))
  if (devices === null) throw new Error('mixtrain devices --json printed nothing')

  writeFileSync(join(folder, 'bound.js'), BOUND)
  writeFileSync(join(folder, 'training.js'), TRAINING)
  const bundle = await rollup({
    input: join(folder, 'bound.js'),
    plugins: [nodeResolve()],
    external: [/^node:/],
    logLevel: 'silent',
  })
  await bundle.write({ file: join(folder, 'rolled.js'), format: 'es', inlineDynamicImports: true })
  const [direct, rolled] = ['bound.js', 'rolled.js'].map((file) => run(process.execPath, [file]))
  if (direct !== rolled) throw new Error(`bundled by rollup the program prints ${rolled}, not ${direct}`)

  const lock = JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8'))
  const [bound, training] = [await bundled('bound.js'), await bundled('training.js')]
  const found = {
    'packed kB': size / 1000,
    'unpacked kB': unpackedSize / 1000,
    'installed packages': Object.keys(lock.packages).filter((name) => name !== '' && existsSync(join(folder, name)))
      .length,
    'installed kB': bytesUnder(modules) / 1000,
    'bundle of a bound, kB': bound.plain / 1000,
    'bundle of a bound, gzip kB': bound.packed / 1000,
    'bundle of a training, gzip kB': training.packed / 1000,
    'import, CPU ms': cpu("await import('mixtrain')") - cpu(''),
  }
  for (const [what, value] of Object.entries(found))
    console.log(`  ${what}: ${Math.round(value)} (limit ${LIMITS[what]})`)
  const above = Object.keys(found).filter((what) => found[what] > LIMITS[what])
  if (above.length > 0) throw new Error(`above its limit: ${above.join(', ')}`)
  writeFileSync(join(folder, 'page.js'), PAGE)
  writeFileSync(join(folder, 'index.html'), '<!doctype html><script type="module" src="page.js"></script>')
  const own = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  // What docs/in-the-browser.md says that Parcel needs.
  const app = { ...own, '@parcel/resolver-default': { packageExports: true } }
  writeFileSync(join(folder, 'package.json'), JSON.stringify(app))
  run('npm', ['install', '--no-audit', '--no-fund', ...BUNDLERS])
  const bin = (name) => join(modules, '.bin', name)
  run(bin('webpack'), ['--mode', 'production', '--entry', './page.js', '-o', join(folder, 'packed')])
  // Nothing may be added to the project on the way: a polyfill that has to be installed is one that users lack.
  run(bin('parcel'), ['build', 'index.html', '--dist-dir', 'parcelled', '--no-source-maps', '--no-autoinstall'])
  run(bin('vite'), ['build', '--outDir', 'built'])
  console.log('package: packs, its types resolve, installs into an empty project, imports, bundles and runs')
} finally {
  rmSync(folder, { recursive: true, force: true })
}
