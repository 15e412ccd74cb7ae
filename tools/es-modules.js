// fp-ts is published as CommonJS for Node, and as ES modules that Node cannot load (they import './Apply' without an extension). What tsc made imports the
// former, which plain rollup refuses and no bundler can shake. This puts those of the ES modules that are reached, with extensions, beside what was made,
// and points the imports at them. Types still come from the package.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const made = join(root, 'dist/src')
const folder = join(made, 'vendor/fp-ts')
const source = join(root, 'node_modules/fp-ts/es6')
const PACKAGED = /(?<=from ')fp-ts\/lib\/(\w+)\.js(?=')/g
const COPIED = /(?<=vendor\/fp-ts\/)\w+(?=\.js')/g
const RELATIVE = /(?<=from ')\.\/(\w+)(?=')/g

const files = readdirSync(made, { recursive: true })
  .filter((name) => name.endsWith('.js') && !name.startsWith('vendor'))
  .map((name) => ({ path: join(made, name), text: readFileSync(join(made, name), 'utf8') }))

const reached = new Set()
const reach = (module) => {
  if (reached.has(module)) return
  reached.add(module)
  for (const [, next] of readFileSync(join(source, `${module}.js`), 'utf8').matchAll(RELATIVE)) reach(next)
}
for (const { text } of files) {
  for (const [, module] of text.matchAll(PACKAGED)) reach(module)
  for (const [module] of text.matchAll(COPIED)) reach(module)
}

const { version } = JSON.parse(readFileSync(join(root, 'node_modules/fp-ts/package.json'), 'utf8'))
rmSync(join(made, 'vendor'), { recursive: true, force: true })
mkdirSync(folder, { recursive: true })
for (const module of reached) {
  const text = readFileSync(join(source, `${module}.js`), 'utf8').replace(RELATIVE, './$1.js')
  writeFileSync(
    join(folder, `${module}.js`),
    `// fp-ts ${version}, MIT, Copyright (c) 2017-present Giulio Canti\n${text}`,
  )
}
for (const { path, text } of files) {
  const to = relative(dirname(path), folder).split(sep).join('/')
  const changed = text.replace(PACKAGED, `${to.startsWith('.') ? to : `./${to}`}/$1.js`)
  if (changed !== text) writeFileSync(path, changed)
}
