import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { root } from './shared.ts'

// What a text can be asked of the docstring of a public name: that there is one, that who raises or returns an error says so, and that who takes or gives tensors
// says of which shapes. Whether what it says is true, and whether formula, units and source are there where a name has some, is for a reader.

interface Declared {
  readonly name: string
  readonly file: string
  readonly doc: string
  /** `const`, `type`, ... */
  readonly kind: string
  /** From behind the name to the next declaration. */
  readonly code: string
}

const read = (file: string): string => readFileSync(join(root, file), 'utf8')
const beside = (file: string, path: string): string => normalize(join(dirname(file), path)).replaceAll('\\', '/')

const DECLARATION =
  /((?:\/\*\*(?:(?!\*\/)[\s\S])*\*\/\n)?)export (const|type|interface|class|function|async function) (\w+)/g

/** What a file declares and exports itself. */
const declaredIn = (file: string): readonly Declared[] => {
  const text = read(file)
  return [...text.matchAll(DECLARATION)].map(([whole, doc, kind, name]) => {
    const begin = text.indexOf(whole) + whole.length
    const rest = text.slice(begin)
    const end = rest.search(/\n(?:export |const |\/\*\*|interface |type |function |\/\/ )/)
    return { name, file, doc: doc.split('@example')[0], kind, code: end < 0 ? rest : rest.slice(0, end) }
  })
}

/** What a file exports, by the name that its users see. */
const exportedBy = (file: string): readonly Declared[] => {
  const text = read(file)
  const named = [...text.matchAll(/export (?:type )?\{([^}]*)\} from '([^']+)'/g)].flatMap(([, list, path]) => {
    const there = exportedBy(beside(file, path))
    return list
      .split(',')
      .map(
        (part) =>
          part
            .replace(/^\s*(?:type )?/, '')
            .trim()
            .split(' as ')[0],
      )
      .filter((name) => name !== '')
      .flatMap((name) => there.find((d) => d.name === name) ?? [])
  })
  const whole = [...text.matchAll(/export \* (?:as \w+ )?from '([^']+)'/g)].flatMap(([, path]) =>
    exportedBy(beside(file, path)),
  )
  // The first of overloads has the docstring.
  return [
    ...declaredIn(file).filter((d, i, all) => all.findIndex(({ name }) => name === d.name) === i),
    ...named,
    ...whole,
  ]
}

const DOORS = ['src/index.ts', ...['losses', 'bounds', 'attacks', 'nn', 'data', 'onnx'].map((d) => `src/doors/${d}.ts`)]
const names = [...new Map(DOORS.flatMap(exportedBy).map((d) => [`${d.file} ${d.name}`, d])).values()]
const values = names.filter(({ kind }) => !['type', 'interface', 'class'].includes(kind))

test('public names are found behind the doors, and have docstrings', () => {
  assert.ok(names.length > 500, `${names.length}`)
  for (const file of new Set(names.map((d) => d.file))) assert.ok(existsSync(join(root, file)), file)
  assert.equal(
    names.filter(({ doc }) => doc === '').map(({ file, name }) => `${file} ${name}`),
    [],
  )
})

test('a public function that raises or returns an error says so', () => {
  const silent = values.filter(
    ({ doc, code }) =>
      /\braise\(|\bthrow |\b(?:T?E)\.left\(|Either</.test(code) &&
      !/@throws|\braise[sd]?\b|errors?\b|\bLeft\b|refuse|reject/i.test(doc),
  )
  assert.equal(
    silent.map(({ file, name }) => `${file} ${name}`),
    [],
  )
})

/** A graph in order, the op of a user and a layer of any shape: each has the shapes of what it is given. */
const OF_ANY_SHAPE = ['tape', 'custom', 'batchNorm']

test('a public function of tensors says of which shapes', () => {
  const silent = values.filter(
    ({ name, doc, code }) =>
      !OF_ANY_SHAPE.includes(name) &&
      /\b(?:Tensor|Interval|Operand|Arg|Argument)\b/.test(code.split(/=>\s*(?:\n|[a-z])/)[0]) &&
      !/\[|shape|element|ax[ei]s|scalar/.test(doc),
  )
  assert.equal(
    silent.map(({ file, name }) => `${file} ${name}`),
    [],
  )
})

test.run()
