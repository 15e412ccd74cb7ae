import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import * as attacks from '../../src/doors/attacks.ts'
import * as bounds from '../../src/doors/bounds.ts'
import * as data from '../../src/doors/data.ts'
import * as losses from '../../src/doors/losses.ts'
import * as nn from '../../src/doors/nn.ts'
import * as onnx from '../../src/doors/onnx.ts'
import * as api from '../../src/index.ts'
import { root } from '../shared.ts'

/** An example of a docstring is code that takes each name from the door of its file, or else from the first other one that has it. */
interface Example {
  readonly file: string
  readonly code: readonly string[]
}

const sourcesUnder = (folder: string): readonly string[] =>
  readdirSync(join(root, folder), { withFileTypes: true }).flatMap((f) =>
    f.isDirectory()
      ? f.name === 'generated'
        ? []
        : sourcesUnder(`${folder}/${f.name}`)
      : f.name.endsWith('.ts')
        ? [`${folder}/${f.name}`]
        : [],
  )
const examples: readonly Example[] = sourcesUnder('src')
  .filter((file) => !/^src\/(proof|cli)\//.test(file))
  .flatMap((file) =>
    [...readFileSync(join(root, file), 'utf8').matchAll(/^ \* @example.*\n((?: \*(?! @).*\n)*)/gm)].map(
      ([, lines]) => ({
        file,
        code: lines
          .split('\n')
          .map((line) => line.replace(/^ \*\/?(?: {3})?/, '').trimEnd())
          .filter((line) => line !== ''),
      }),
    ),
  )

const doors: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  mixtrain: api,
  'mixtrain/losses': losses,
  'mixtrain/bounds': bounds,
  'mixtrain/attacks': attacks,
  'mixtrain/nn': nn,
  'mixtrain/data': data,
  'mixtrain/onnx': onnx,
}
const doorOf = (file: string): string => {
  if (/^src\/(loss\/|nn\/criterion|train\/(balance|recipe))/.test(file)) return 'mixtrain/losses'
  if (/^src\/nn\//.test(file)) return 'mixtrain/nn'
  if (/^src\/(data\/|train\/(quick|fit)\.ts)/.test(file)) return 'mixtrain/data'
  if (/^src\/robust\/(attack|search|interval-attack)/.test(file)) return 'mixtrain/attacks'
  return 'mixtrain'
}

/** What an example may name without making it. Such an example, and one that reads or writes a file, is compiled and not run. */
const given: Readonly<Record<string, string>> = {
  network: "import('mixtrain').Network",
  parameters: "import('mixtrain').SavedModel['parameters']",
  test: "import('mixtrain').Dataset",
  weights: "Readonly<Record<string, import('mixtrain').Tensor>>",
  classify: "import('mixtrain').Apply",
  train: "import('mixtrain').Dataset",
  verdicts: "import('mixtrain').Verdicts",
  model: "import('mixtrain').SavedModel",
  certificate: "import('mixtrain/bounds').Certificate",
  checkpoint: "import('mixtrain').Checkpoint",
  settings: "import('mixtrain').Settings",
  stored: "Parameters<typeof import('mixtrain').restoreCheckpoint>[0]",
  bytes: 'Uint8Array',
  onnxBytes: 'Uint8Array',
  proof: 'Uint8Array',
  folder: 'string',
  path: 'string',
  text: 'string',
  subject: "Parameters<typeof import('mixtrain').decider>[0]",
  extent: "Parameters<typeof import('mixtrain').decider>[1]",
  input: "import('mixtrain').PropertyOptions['input']",
  outputs: "import('mixtrain').PropertyOptions['outputs']",
  property: "import('mixtrain').PropertyOptions['property']",
}

/** `expression // literal`: the literal is what the expression gives, tensors read on the f64 reference, numbers to four decimals. */
const SHOWN = /^(?!const |let |for |if )(.*\S)\s+\/\/ ?((?:[[{'?-]|\d|true$|false$).*)$/
const moduleOf = ({ file, code }: Example): { readonly text: string; readonly runs: boolean } => {
  const own = code.filter((line) => line.startsWith('import '))
  const body = code.filter((line) => !line.startsWith('import '))
  const words = new Set(
    body
      .join('\n')
      .replace(/'[^'\n]*'|\/\/.*/g, '')
      .match(/(?<!\w)(?<!(?<!\.\.)\.)[A-Za-z]\w*/g) ?? [],
  )
  const made = new Set(
    [...own, ...body].flatMap((line) => [
      ...[...line.matchAll(/import \* as (\w+)/g)].map((m) => m[1]),
      ...[...line.matchAll(/(?:import|const) [{[]([^=]*?)[}\]] (?:=|of|from)/g)].flatMap(
        (m) => m[1].match(/\w+/g) ?? [],
      ),
      ...[...line.matchAll(/const (\w+) =/g)].map((m) => m[1]),
    ]),
  )
  const free = [...words].filter((word) => !made.has(word))
  const isGiven = (word: string) => word in given && !new RegExp(`\\b${word}\\(`).test(body.join('\n'))
  const order = [doorOf(file), ...Object.keys(doors)]
  const imports = free.flatMap((word) => {
    const door = isGiven(word) ? undefined : order.find((d) => word in doors[d])
    return door === undefined ? [] : [`import { ${word} } from '${door}'`]
  })
  const io = free.filter((word) => ['readFile', 'writeFile'].includes(word))
  const unmade = free.filter(isGiven)
  return {
    text: [
      ...own,
      ...imports,
      ...io.map((word) => `import { ${word} } from 'node:fs/promises'`),
      ...unmade.map((word) => `declare const ${word}: ${given[word]}`),
      'export const run = async (shows: (value: unknown, expected: string) => Promise<void>): Promise<void> => {',
      ...body.map((line) => {
        const [, expression, literal] = SHOWN.exec(line) ?? []
        return expression === undefined ? line : `await shows(${expression}, ${JSON.stringify(literal)})`
      }),
      '}',
    ].join('\n'),
    runs: io.length === 0 && unmade.length === 0,
  }
}

const plain = async (value: unknown): Promise<unknown> => {
  if (typeof value === 'number') return Number(value.toFixed(4)) + 0
  if (ArrayBuffer.isView(value)) return plain(Array.from(value as Float32Array))
  if (Array.isArray(value)) return Promise.all(value.map(plain))
  if (typeof value !== 'object' || value === null) return value
  const { _tag } = value as { readonly _tag?: string }
  if (_tag === 'Interval') {
    const { lower, upper } = value as api.Interval
    return plain({ lower, upper })
  }
  if (_tag !== undefined) return plain((await api.evaluate(api.reference())([value as api.Tensor]))[0])
  const entries = await Promise.all(Object.entries(value).map(async ([name, v]) => [name, await plain(v)] as const))
  return Object.fromEntries(entries)
}
const literal = (text: string): unknown => (text === '?' ? undefined : new Function(`return (${text})`)())

test('each example of a docstring compiles and gives what it says', async () => {
  assert.ok(examples.length > 200)
  // Inside the package, so that its own name resolves to its own exports.
  const folder = mkdtempSync(fileURLToPath(new URL('docstrings-', import.meta.url)))
  try {
    const modules = examples.map(moduleOf)
    const files = modules.map(({ text }, i) => {
      const file = join(folder, `example-${i}.mts`)
      writeFileSync(file, text)
      return file
    })
    const options = ['--strict', '--skipLibCheck', '--module', 'nodenext', '--target', 'es2022', '--types', 'node']
    const argv = [join(root, 'node_modules/typescript/bin/tsc'), '--ignoreConfig', ...options, ...files]
    const { status, stdout } = spawnSync(process.execPath, argv, { cwd: root, encoding: 'utf8' })
    const named = stdout.replace(/^.*example-(\d+)\.mts/gm, (_, i) => `${examples[i].file} (${examples[i].code[0]})`)
    assert.is(status, 0, named)
    const wrong: string[] = []
    for (const [i, { runs }] of modules.entries()) {
      if (!runs) continue
      const { run } = await import(pathToFileURL(files[i].replace(/mts$/, 'mjs')).href)
      try {
        await run(async (value: unknown, expected: string) => {
          const found = JSON.stringify(await plain(value))
          if (found !== JSON.stringify(await plain(literal(expected))))
            wrong.push(`${examples[i].file}: ${examples[i].code.at(-1)}: gives ${found}`)
        })
      } catch (e) {
        wrong.push(`${examples[i].file}: ${examples[i].code.join('; ')}: throws ${e}`)
      }
    }
    assert.equal(wrong, [])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test.run()
