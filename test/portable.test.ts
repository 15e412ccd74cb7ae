import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { decodeInstances } from '../src/cli/instances.ts'
import { fromArrays } from '../src/data/arrays.ts'
import { decodeCsv } from '../src/data/csv.ts'
import { right, root } from './shared.ts'

// What can be seen on one system of whether the others work: what npm scripts ask of a shell, how paths are made of addresses, names that file systems refuse, and
// files whose lines end as on another system. The workflow runs the tests themselves on Windows and macOS.

const read = (path: string): string => readFileSync(join(root, path), 'utf8')

const filesUnder = (folder: string): readonly string[] =>
  readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`
    if (!entry.isDirectory()) return [path]
    return ['node_modules', 'generated', 'api', 'cache'].includes(entry.name) ? [] : filesUnder(path)
  })
const SOURCES = ['src', 'tools', 'bench', 'studio', 'examples', 'test'].flatMap(filesUnder)
const CODE = SOURCES.filter((path) => /\.(ts|js)$/.test(path))

/** Programs that packages bring, which npm starts by name on every system. */
const PROGRAMS = ['node', 'npm', 'tsc', 'biome', 'depcruise', 'publint', 'vitepress']

for (const path of ['package.json', 'docs/package.json'])
  test(`the scripts of ${path} are commands that cmd.exe understands too`, () => {
    const { scripts } = JSON.parse(read(path)) as { readonly scripts: Readonly<Record<string, string>> }
    for (const [name, script] of Object.entries(scripts)) {
      // Quotes that only sh takes, variables, substitutions, pipes to other programs, backgrounds, folders with ./
      assert.not.match(script, /['$`|;<>\\]|(?<!&)&(?!&)|(?:^|\s)\.\//, `${name}: ${script}`)
      for (const command of script.split('&&'))
        assert.ok(PROGRAMS.includes(command.trim().split(' ')[0]), `${name} starts ${command.trim()}`)
    }
  })

/** Tools that only run where what they drive runs: schedulers, and measurements that ask a shell for CPU seconds. */
const ELSEWHERE = ['tools/test-cluster.js', 'tools/bench-verifiers.js', 'bench/child.ts', 'bench/busy.ts']
/** MPI is not there on Windows, and so its watchdog is never started. */
const MPI = ['src/cluster/launcher.ts']

test('what builds, tests and packs starts no POSIX shell and none of its programs', () => {
  for (const path of CODE.filter((p) => !p.startsWith('test/') && ![...ELSEWHERE, ...MPI].includes(p)))
    assert.not.match(
      read(path),
      /(?:spawn|spawnSync|exec|execSync|execFile|execFileSync)\(\s*['"`](?:sh|bash|\/bin\/\w+|which|rm|cp|mv|mkdir|cat|chmod|ln|touch)\b/,
      path,
    )
})

test('paths are made of addresses by fileURLToPath', () => {
  // The pathname of a file address begins with /C:/ on Windows, and holds %20 for a space anywhere.
  for (const path of CODE) assert.not.match(read(path), /import\.meta\.url\)\s*\.pathname/, path)
})

test('no file has a name that Windows refuses or takes for another', () => {
  const all = [...SOURCES, ...filesUnder('docs'), ...filesUnder('assembly'), ...filesUnder('proofs')]
  for (const path of all) {
    assert.not.match(path, /[:*?"<>|\\]|[. ](?:\/|$)/)
    assert.not.match(path, /(?:^|\/)(?:aux|con|nul|prn|com\d|lpt\d)(?:\.|\/|$)/i)
  }
  const folded = all.map((path) => path.toLowerCase())
  assert.is(new Set(folded).size, folded.length)
})

test('a checkout has the lines of the repository on every system', () => {
  assert.match(read('.gitattributes'), /^\* text=auto eol=lf$/m)
  for (const path of [...CODE, 'README.md', 'package.json']) assert.not.ok(read(path).includes('\r\n'), path)
})

test('the workflow runs the tests on Windows and macOS', () => {
  const workflow = read('.github/workflows/ci.yml')
  for (const system of ['windows-latest', 'macos-latest']) assert.match(workflow, system)
})

const LINES = ['length,width,kind', '1.5,2,"a, b"', '2,3.25,c', '']

test('a table is the same whether its lines end with LF, CR LF or CR, with or without a byte order mark', () => {
  const tables = ['\n', '\r\n', '\r'].flatMap((end) =>
    ['', '\uFEFF'].map((mark) => right(decodeCsv(mark + LINES.join(end), 'a.csv'))),
  )
  for (const table of tables) assert.equal(table, tables[0])
  const { inputs, classNames } = fromArrays({ name: 'a', ...tables[0] })
  assert.equal(
    [[...inputs], classNames],
    [
      [0, 0, 1, 1],
      ['a, b', 'c'],
    ],
  )
})

test('a list of instances is the same whether its lines end with LF or CR LF', () => {
  const lines = ['onnx,vnnlib,timeout', 'a.onnx,b.vnnlib,10', '']
  const [lf, crlf] = ['\n', '\r\n'].map((end) => right(decodeInstances(lines.join(end), 'a.csv')))
  assert.is(lf.length, 1)
  assert.equal(crlf, lf)
})

test.run()
