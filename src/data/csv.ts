import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import type { Arrays } from './arrays.ts'

/** A row of a CSV file, and the line it begins on, from 1. */
interface Row {
  readonly line: number
  readonly cells: readonly string[]
}

/** Rows and cells of a text whose lines end with LF, as RFC 4180 has them otherwise: cells in quotes may contain separators, line breaks and doubled quotes. Empty lines are left out. */
const rowsOf = (text: string, separator: string): readonly Row[] | { readonly open: number } => {
  const rows: Row[] = []
  let [cells, cell, quoted, line, begun]: [string[], string, boolean, number, number] = [[], '', false, 1, 1]
  const end = (): void => {
    if (cells.length > 0 || cell !== '') rows.push({ line: begun, cells: [...cells, cell] })
    cells = []
    cell = ''
    begun = line
  }
  for (let i = 0; i < text.length; i++) {
    const c = text[i]
    if (c === '\n') line++
    if (quoted) {
      if (c !== '"') cell += c
      else if (text[i + 1] === '"') {
        cell += c
        i++
      } else quoted = false
    } else if (c === '"' && cell.trim() === '') {
      quoted = true
      cell = ''
    } else if (c === separator) {
      cells.push(cell)
      cell = ''
    } else if (c === '\n') end()
    else cell += c
  }
  if (quoted) return { open: begun }
  end()
  return rows
}

/** How a text of comma-separated values is read. */
export interface CsvOptions {
  /** Name of the column of labels, or its number from 0. Default: a column called label, class or target, or else the last one. */
  readonly label?: string | number | undefined
  /** Default: the one of , ; and tab that the first line has most of. */
  readonly separator?: string
}

const LABELS = ['label', 'class', 'target', 'y']

const isNumber = (cell: string): boolean => cell.trim() !== '' && Number.isFinite(Number(cell))

/** What `fromArrays` takes, of a CSV file, and the names of its features, if it has a first line with names. */
export type Table = Pick<Arrays, 'inputs' | 'labels'> & { readonly features: readonly string[] | undefined }

/**
 * Reads a table with a column of labels and numbers in all others: `fromArrays({ name, ...table })`. The first line has names if any of its cells, the label's
 * apart, is no number. Labels are kept as text unless all of them are whole numbers from 0. Errors name the line and the column.
 *
 * @example
 *   const train = fromArrays({ name: 'wine', ...orThrow(decodeCsv(text, 'wine.csv', { label: 'quality' })) })
 */
export const decodeCsv = (content: string, path: string, options: CsvOptions = {}): E.Either<MixtrainError, Table> => {
  const left = (message: string, line?: number) =>
    E.left(fileError(path, message, line === undefined ? undefined : `line ${line}`))
  // Lines end with LF, with CR LF as Windows has them, or with CR as Excel for Macintosh writes them.
  const text = content.replace(/^\uFEFF/, '').replaceAll(/\r\n?/g, '\n')
  const [first = ''] = text.split('\n', 1)
  const separator =
    options.separator ?? [',', ';', '\t'].reduce((a, b) => (first.split(b).length > first.split(a).length ? b : a))
  const rows = rowsOf(text, separator)
  if ('open' in rows) return left('a cell begins with a quote that is never closed', rows.open)
  if (rows.length === 0) return left('the file has no rows')
  const width = rows[0].cells.length
  const ragged = rows.find(({ cells }) => cells.length !== width)
  if (ragged !== undefined)
    return left(`expected ${width} cells as in the first line, found ${ragged.cells.length}`, ragged.line)
  if (width < 2) return left('expected a column of labels and at least one of numbers', rows[0].line)

  const names = rows[0].cells.map((cell) => cell.trim())
  const { label } = options
  const at =
    typeof label === 'number'
      ? label
      : label !== undefined
        ? names.indexOf(label)
        : ((i) => (i < 0 ? width - 1 : i))(names.findIndex((name) => LABELS.includes(name.toLowerCase())))
  if (!(Number.isInteger(at) && at >= 0 && at < width))
    return left(`there is no column ${JSON.stringify(label)}; the first line has ${names.join(', ')}`, rows[0].line)
  const hasNames = names.some((name, j) => j !== at && !isNumber(name))
  const body = hasNames ? rows.slice(1) : rows
  if (body.length === 0) return left('there are no rows below the first line')
  for (const { line, cells } of body) {
    const wrong = cells.findIndex((cell, j) => j !== at && !isNumber(cell))
    if (wrong >= 0)
      return left(
        `expected a number in column ${hasNames ? names[wrong] : wrong + 1}, found ${JSON.stringify(cells[wrong])}`,
        line,
      )
  }
  const labels = body.map(({ cells }) => cells[at].trim())
  return E.right({
    inputs: body.map(({ cells }) => cells.filter((_, j) => j !== at).map(Number)),
    labels: labels.every((text) => /^\d{1,5}$/.test(text)) ? labels.map(Number) : labels,
    features: hasNames ? names.filter((_, j) => j !== at) : undefined,
  })
}
