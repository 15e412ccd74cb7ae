// Puts the modules of the command line into one file, dist/src/cli/mixtrain.js, and the licenses of what comes with them beside it: a process that loads one file begins with 0.3 CPU seconds less than
// one that finds, opens and links 380. What is generated (WASM, digits) stays a file of its own, which is loaded where it is needed, and so do optional packages.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = join(root, 'dist/src/cli')
const { optionalDependencies, peerDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

/** Modules that stay where they are, by their place seen from the one file. */
const generated = {
  name: 'generated',
  setup: ({ onResolve }) =>
    onResolve({ filter: /\/generated\// }, ({ path, resolveDir }) => ({
      path: relative(folder, join(resolveDir, path)).replaceAll('\\', '/'),
      external: true,
    })),
}

/** Messages of zod in fifty languages, a fifth of the file: none is asked for. */
const locales = {
  name: 'locales',
  setup: ({ onLoad }) => onLoad({ filter: /zod[\\/]v4[\\/]locales[\\/]index\.js$/ }, () => ({ contents: 'export {}' })),
}

const { metafile } = await build({
  entryPoints: [join(folder, 'main.js')],
  outfile: join(folder, 'mixtrain.js'),
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  minifySyntax: true,
  minifyWhitespace: true,
  external: [...Object.keys({ ...optionalDependencies, ...peerDependencies }), 'webgpu'],
  plugins: [generated, locales],
  // Packages that are CommonJS ask for modules of Node.
  banner: { js: "import{createRequire as nodeRequire}from'node:module';const require=nodeRequire(import.meta.url);" },
  metafile: true,
  logLevel: 'warning',
})

/** Folders of the packages whose modules are in it. */
const packages = new Set(
  Object.keys(metafile.inputs).flatMap((input) => {
    const [found] = /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(resolve(input).replaceAll('\\', '/')) ?? []
    return found === undefined ? [] : [found]
  }),
)
const notices = [...packages].sort().map((path) => {
  const { name, version, license } = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'))
  const file = readdirSync(path).find((entry) => /^licen[cs]e/i.test(entry))
  const text = file !== undefined && existsSync(join(path, file)) ? readFileSync(join(path, file), 'utf8').trim() : ''
  return `${name} ${version} (${license})\n\n${text}\n`
})
writeFileSync(join(folder, 'mixtrain.licenses.txt'), notices.join('\n----------------------------------------\n\n'))
