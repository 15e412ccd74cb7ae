import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError } from '../core/error.ts'

/** A network and a property of a list; paths as the list has them. */
export interface Instance {
  readonly onnx: string
  readonly vnnlib: string
  /** Empty where the list names none; else the folder of its files. */
  readonly family: string
  /** Seconds, where the list says. */
  readonly timeout: number | undefined
  /** The verdict that is known. */
  readonly expected: 'sat' | 'unsat' | undefined
}

/** What came of an instance; `crash` is a process that ended without an answer. */
export interface Outcome extends Instance {
  readonly limit: number
  readonly verdict: string
  readonly seconds: number
  readonly cpu: number | undefined
  /** Peak of the process, MB. */
  readonly memory: number | undefined
  readonly subproblems: number | undefined
  readonly reason: string
}

/** Whether a verdict contradicts the known one. */
export const isWrong = ({ verdict, expected }: Outcome): boolean =>
  expected !== undefined && (verdict === 'sat' || verdict === 'unsat') && verdict !== expected

/** Cells of one line of CSV (RFC 4180); undefined where a quote is never closed. */
const cellsOf = (line: string): readonly string[] | undefined => {
  const cells: string[] = []
  const cell = /\s*(?:"((?:[^"]|"")*)"|([^",]*))\s*(,|$)/y
  for (;;) {
    const found = cell.exec(line)
    if (found === null) return undefined
    cells.push(found[1] === undefined ? found[2].trim() : found[1].replaceAll('""', '"'))
    if (found[3] === '') return cells
  }
}

const quoted = (text: string): string => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
const lineOf = (cells: readonly (string | number | undefined)[]): string =>
  `${cells.map((c) => quoted(c === undefined ? '' : String(c))).join(',')}\n`

const verdictOf = (text: string | undefined): Instance['expected'] =>
  text === 'sat' || text === 'unsat' ? text : undefined

/**
 * A list of instances: lines ONNX,VNNLIB[,TIMEOUT] as VNN-COMP has them, or a first line that names the columns: onnx, vnnlib and, where they are
 * there, family, timeout and verdict. A verdict that is neither sat nor unsat is not known.
 */
export const decodeInstances = (text: string, path: string): E.Either<MixtrainError, readonly Instance[]> => {
  const lines = text.split(/\r?\n/)
  const rows: { readonly cells: readonly string[]; readonly at: number }[] = []
  for (const [i, line] of lines.entries()) {
    if (line.trim() === '') continue
    const cells = cellsOf(line)
    if (cells === undefined) return E.left(fileError(path, 'a quote is never closed', `line ${i + 1}`))
    rows.push({ cells, at: i + 1 })
  }
  const names = rows[0]?.cells.map((c) => c.toLowerCase()) ?? []
  const named = names.includes('onnx') && names.includes('vnnlib')
  const column = (name: string, otherwise: number) => (named ? names.indexOf(name) : otherwise)
  const [onnx, vnnlib, timeout, family, verdict] = [
    column('onnx', 0),
    column('vnnlib', 1),
    column('timeout', 2),
    column('family', -1),
    column('verdict', -1),
  ]
  const instances: Instance[] = []
  for (const { cells, at } of named ? rows.slice(1) : rows) {
    const [network, property] = [cells[onnx], cells[vnnlib]]
    if (!network || !property)
      return E.left(
        fileError(path, `expected a network and a property, found ${JSON.stringify(cells.join(','))}`, `line ${at}`),
      )
    const limit = cells[timeout]
    const seconds = limit === undefined || limit === '' ? undefined : Number(limit)
    if (seconds !== undefined && !(seconds > 0 && Number.isFinite(seconds)))
      return E.left(fileError(path, `expected seconds above 0, found ${JSON.stringify(limit)}`, `line ${at}`))
    instances.push({
      onnx: network,
      vnnlib: property,
      family: cells[family] ?? '',
      timeout: seconds,
      expected: verdictOf(cells[verdict]),
    })
  }
  return instances.length === 0 ? E.left(fileError(path, 'there are no instances in it')) : E.right(instances)
}

const COLUMNS = [
  'family',
  'onnx',
  'vnnlib',
  'limit',
  'verdict',
  'expected',
  'seconds',
  'cpu',
  'memory',
  'subproblems',
  'reason',
] as const

export const outcomeHeader = lineOf(COLUMNS)

/** One line of the table of outcomes. */
export const encodeOutcome = (o: Outcome): string =>
  lineOf([
    o.family,
    o.onnx,
    o.vnnlib,
    o.limit,
    o.verdict,
    o.expected,
    o.seconds.toFixed(2),
    o.cpu?.toFixed(2),
    o.memory === undefined ? undefined : Math.round(o.memory),
    o.subproblems,
    o.reason.replaceAll(/\s+/g, ' '),
  ])

/** What tells instances apart. */
export const nameOf = ({ family, onnx, vnnlib }: Pick<Instance, 'family' | 'onnx' | 'vnnlib'>): string =>
  JSON.stringify([family, onnx, vnnlib])

/** The outcomes of a table that an earlier call began, and its text without a last line that was not finished. */
export const decodeOutcomes = (
  text: string,
  path: string,
): E.Either<MixtrainError, { readonly outcomes: readonly Outcome[]; readonly whole: string }> => {
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  if (whole !== '' && !whole.startsWith(outcomeHeader))
    return E.left(fileError(path, `expected a table that begins with ${outcomeHeader.trim()}`, 'line 1'))
  const outcomes: Outcome[] = []
  for (const [i, line] of whole.split('\n').slice(1, -1).entries()) {
    const cells = cellsOf(line)
    if (cells?.length !== COLUMNS.length)
      return E.left(
        fileError(
          path,
          `expected ${COLUMNS.length} columns, found ${cells?.length ?? 'a quote that is never closed'}`,
          `line ${i + 2}`,
        ),
      )
    const at = (name: (typeof COLUMNS)[number]) => cells[COLUMNS.indexOf(name)]
    const number = (name: (typeof COLUMNS)[number]) => (at(name) === '' ? undefined : Number(at(name)))
    outcomes.push({
      family: at('family'),
      onnx: at('onnx'),
      vnnlib: at('vnnlib'),
      timeout: undefined,
      limit: Number(at('limit')),
      verdict: at('verdict'),
      expected: verdictOf(at('expected')),
      seconds: Number(at('seconds')),
      cpu: number('cpu'),
      memory: number('memory'),
      subproblems: number('subproblems'),
      reason: at('reason'),
    })
  }
  return E.right({ outcomes, whole })
}

/** Counts of a family, or of all. */
export interface Tally {
  readonly family: string
  readonly instances: number
  readonly sat: number
  readonly unsat: number
  readonly timeout: number
  readonly unknown: number
  readonly failed: number
  /** Of decided ones with a known verdict, how many agree with it and how many do not. */
  readonly agree: number
  readonly wrong: number
  /** Of the decided ones. */
  readonly medianSeconds: number | null
}

const tally = (family: string, some: readonly Outcome[]): Tally => {
  const count = (...verdicts: readonly string[]) => some.filter((o) => verdicts.includes(o.verdict)).length
  const decided = some.filter((o) => o.verdict === 'sat' || o.verdict === 'unsat')
  const times = decided.map((o) => o.seconds).sort((a, b) => a - b)
  const wrong = some.filter(isWrong).length
  return {
    family,
    instances: some.length,
    sat: count('sat'),
    unsat: count('unsat'),
    timeout: count('timeout'),
    unknown: count('unknown'),
    failed: count('error', 'crash'),
    agree: decided.filter((o) => o.expected !== undefined).length - wrong,
    wrong,
    medianSeconds: times.length === 0 ? null : times[(times.length - 1) >> 1],
  }
}

/** Counts by family, in the order of the list, and of all. */
export const talliesOf = (outcomes: readonly Outcome[]): readonly Tally[] => {
  const families = [...new Set(outcomes.map((o) => o.family))]
  const each = families.map((f) =>
    tally(
      f,
      outcomes.filter((o) => o.family === f),
    ),
  )
  return families.length > 1 ? [...each, tally('all', outcomes)] : each
}
