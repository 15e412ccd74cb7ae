import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import * as door from '../src/doors/losses.ts'
import * as api from '../src/index.ts'
import { objectives } from '../src/loss/objective.ts'
import * as regularizers from '../src/loss/regularizer.ts'
import { compile, examples, inFolder, pages, print, run } from './pages.ts'
import { root } from './shared.ts'

const page = (path: string): string => {
  const text = pages.get(path)
  if (text === undefined) throw new Error(`there is no page ${path}`)
  return text
}
const losses = page('docs/losses.md')

/** Every TypeScript file below a folder of the repository. */
const sourcesUnder = (folder: string): readonly string[] =>
  readdirSync(join(root, folder), { withFileTypes: true }).flatMap((f) =>
    f.isDirectory() ? sourcesUnder(`${folder}/${f.name}`) : f.name.endsWith('.ts') ? [join(root, folder, f.name)] : [],
  )

test('each example of a page compiles against the package as a user imports it', () =>
  inFolder((folder) => {
    assert.ok(examples.length >= 5)
    const files = examples.map(({ code }, i) => {
      const file = join(folder, `example-${i}.mts`)
      writeFileSync(file, code)
      return file
    })
    compile(files, '--noEmit')
  }))

test('the programs of the README print what stands below them', async () => {
  const shown = examples.filter((example) => example.page === 'README.md')
  assert.is(shown.length, 2)
  await print(shown)
})

test('each file of examples/ compiles, prints what its last lines say, and the index names it', () =>
  inFolder(async (folder) => {
    const names = readdirSync(join(root, 'examples')).filter((name) => name.endsWith('.ts'))
    assert.ok(names.length >= 6)
    const index = page('examples/README.md')
    for (const name of names) assert.ok(index.includes(`(${name})`), `${name} is in examples/README.md`)
    const sources = names.map((name) => readFileSync(join(root, 'examples', name), 'utf8'))
    const files = names.map((name, i) => {
      const file = join(folder, name.replace(/ts$/, 'mts'))
      writeFileSync(file, sources[i])
      return file
    })
    compile(files)
    for (const [i, file] of files.entries()) {
      const [, expected] = /\/\* Prints:\n([\s\S]*?)\*\/\n$/.exec(sources[i]) ?? []
      assert.is(await run(file), expected, names[i])
    }
  }))

test('every link between pages leads to a file and a heading that exist', () => {
  const anchorsOf = (text: string) =>
    new Set(
      [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
        heading
          .toLowerCase()
          .replace(/[^\p{L}\p{N} _-]/gu, '')
          .replaceAll(' ', '-'),
      ),
    )
  let links = 0
  for (const [path, text] of pages)
    for (const [, target] of text.replace(/```[\s\S]*?```/g, '').matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue
      const [file, anchor] = target.split('#')
      const full = file === '' ? join(root, path) : join(root, dirname(path), file)
      assert.ok(existsSync(full), `${path}: ${target}`)
      if (anchor !== undefined)
        assert.ok(anchorsOf(readFileSync(full, 'utf8')).has(anchor), `${path}: no heading for ${target}`)
      links++
    }
  assert.ok(links > 30)
})

test('the index of the documentation names every page of it', () => {
  for (const path of pages.keys())
    if (path.startsWith('docs/') && path !== 'docs/README.md')
      assert.ok(page('docs/README.md').includes(`(${path.slice('docs/'.length)})`), path)
})

test('every npm script, command and file that a page names exists', () => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  const commands = new Set([
    'help',
    ...[...page('docs/command-line.md').matchAll(/^## (\w+)$/gm)].map(([, name]) => name),
  ])
  for (const [path, text] of pages) {
    for (const [, name] of text.matchAll(/npm run ([a-z:-]+)/g)) assert.ok(name in scripts, `${path}: npm run ${name}`)
    for (const [, name] of text.matchAll(/(?:`|^|npx )mixtrain +([a-z]+)\b/gm))
      assert.ok(commands.has(name), `${path}: mixtrain ${name}`)
    for (const [, file] of text.matchAll(
      /`((?:src|test|bench|assembly|tools|docs|examples)\/[\w./-]+\.(?:ts|js|json|svg|jsonl|md))`/g,
    ))
      assert.ok(existsSync(join(root, file)), `${path}: ${file}`)
  }
})

test('what is made from the records of commands and ops is current', () => {
  const { status, stderr } = spawnSync(process.execPath, [join(root, 'tools/docs-cli.js'), '--check'], {
    encoding: 'utf8',
  })
  assert.is(status, 0, stderr)
})

test('a comment that cites the method page cites a section of it', () => {
  const sections = new Set([...page('docs/method.md').matchAll(/^## (\d+)\. /gm)].map(([, n]) => n))
  let cited = 0
  for (const file of ['src', 'test'].flatMap(sourcesUnder))
    for (const [, section] of readFileSync(file, 'utf8').matchAll(/docs\/method\.md, section (\d+)/g)) {
      assert.ok(sections.has(section), `${file} cites section ${section}`)
      cited++
    }
  assert.ok(cited >= 4)
})

test('every loss that can be trained by name has a line in the table of losses', () => {
  const rows = losses.split('\n').filter((line) => line.startsWith('| `'))
  for (const name of Object.keys(objectives))
    assert.ok(
      rows.some((row) => row.split('|')[1].includes(`\`${name}\``)),
      name,
    )
})

test('every regularizer, start values, averages and cascades have a line in the tables of losses, and are exported', () => {
  const rows = losses.split('\n').filter((line) => line.startsWith('| '))
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
    const found = name
      .split('.')
      .reduce<unknown>((at, part) => (at as Record<string, unknown>)[part], { ...api, ...door })
    assert.is(typeof found, 'function', name)
  }
})

test('every paper of a method that the tables name is cited in the source', () => {
  const papers = (text: string) => new Set([...text.matchAll(/(?:arXiv:|, )(\d{4}\.\d{5})/g)].map((m) => m[1]))
  const cited = papers(
    sourcesUnder('src')
      .map((file) => readFileSync(file, 'utf8'))
      .join('\n'),
  )
  const tables = ['losses', 'bounds', 'certify-a-pytorch-model'].map((name) => page(`docs/${name}.md`))
  const rows = tables
    .join('\n')
    .split('\n')
    .filter((line) => line.startsWith('| '))
  for (const paper of papers(rows.join('\n'))) assert.ok(cited.has(paper), paper)
})

test.run()
