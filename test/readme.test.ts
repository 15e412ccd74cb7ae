import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import * as api from '../src/index.ts'
import { objectives } from '../src/loss/objective.ts'
import * as regularizers from '../src/loss/regularizer.ts'
import { root } from './shared.ts'

const readme = readFileSync(join(root, 'README.md'), 'utf8')
const examples = [...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map((m) => m[1])

test('the README has examples, and each compiles against the package as a user imports it', () => {
  assert.ok(examples.length >= 1)
  // Inside the package, so that its own name resolves to its own exports.
  const folder = mkdtempSync(fileURLToPath(new URL('readme-', import.meta.url)))
  try {
    const files = examples.map((code, i) => {
      const file = join(folder, `example-${i}.mts`)
      writeFileSync(file, code)
      return file
    })
    const options = [
      '--noEmit',
      '--strict',
      '--skipLibCheck',
      '--module',
      'nodenext',
      '--target',
      'es2022',
      '--types',
      'node',
    ]
    const tsc = join(root, 'node_modules/typescript/bin/tsc')
    execFileSync(process.execPath, [tsc, '--ignoreConfig', ...options, ...files], {
      cwd: root,
      encoding: 'utf8',
      stdio: 'pipe',
    })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('every npm script and every file that the README names exists', () => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  const named = [...readme.matchAll(/npm run ([a-z:-]+)/g)].map((m) => m[1])
  for (const name of named) assert.ok(name in scripts, `npm run ${name}`)
  for (const [, path] of readme.matchAll(/`((?:src|test|bench|assembly|tools)\/[\w./-]+\.(?:ts|js|json|svg|jsonl))`/g))
    assert.not.throws(() => readFileSync(join(root, path)), `${path}`)
})

test('every loss that can be trained by name has a line in the table of losses', () => {
  const rows = readme.split('\n').filter((line) => line.startsWith('| `'))
  for (const name of Object.keys(objectives))
    assert.ok(
      rows.some((row) => row.split('|')[1].includes(`\`${name}\``)),
      name,
    )
})

test('every regulariser, start values, averages and cascades have a line in the tables of losses, and are exported', () => {
  const rows = readme.split('\n').filter((line) => line.startsWith('| '))
  const names = [
    ...Object.keys(regularizers).map((name) => `regularizers.${name}`),
    'layers.ibpInit',
    'averaged',
    'fusedCrossEntropy',
    'cascade.remaining',
    'cascade.unanimous',
  ]
  for (const name of names) {
    assert.ok(
      rows.some((row) => row.includes(`\`${name}`) || row.includes(`(${name}`)),
      name,
    )
    const found = name.split('.').reduce<unknown>((at, part) => (at as Record<string, unknown>)[part], api)
    assert.is(typeof found, 'function', name)
  }
})

test('every paper of a method that the tables name is cited in the source', () => {
  const papers = (text: string) => new Set([...text.matchAll(/(?:arXiv:|, )(\d{4}\.\d{5})/g)].map((m) => m[1]))
  const sources = ['loss', 'train', 'nn', 'robust'].flatMap((folder) =>
    readdirSync(join(root, 'src', folder))
      .filter((file) => file.endsWith('.ts'))
      .map((file) => readFileSync(join(root, 'src', folder, file), 'utf8')),
  )
  const cited = papers(sources.join('\n'))
  const rows = readme.split('\n').filter((line) => line.startsWith('| '))
  for (const paper of papers(rows.join('\n'))) assert.ok(cited.has(paper), paper)
})

test.run()
