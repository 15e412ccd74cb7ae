import { Fault } from '../../core/fault.ts'
export const fail = (message: string, at?: number): never => {
  throw new Fault(message, undefined, at)
}

export const quote = (text: string): string => JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}...` : text)

/** `line 3, column 7` of an offset. */
export const placeOf = (text: string, at: number): string => {
  let [line, start] = [1, 0]
  for (let i = text.indexOf('\n'); i >= 0 && i < at; i = text.indexOf('\n', start)) [line, start] = [line + 1, i + 1]
  return `line ${line}, column ${at - start + 1}`
}

const MAX_DEPTH = 1000

const [OPEN, CLOSE, SEMICOLON, QUOTE, BAR, LEFT, RIGHT, BACKSLASH] = [40, 41, 59, 34, 124, 91, 93, 92]
const isSpace = (c: number): boolean => c === 32 || (c >= 9 && c <= 13)

export interface Atom {
  readonly text: string
  readonly at: number
}

/** How a quotation mark stands in a text in quotation marks: behind a backslash in VNN-LIB 2.0, doubled in SMT-LIB, where a backslash is a character like others. */
export type Quoting = 'backslash' | 'doubled'

/** Where a text that begins at i, in double quotes or bars, is closed. -1: nowhere. Of a doubled mark two texts are made, side by side. */
const closing = (text: string, i: number, mark: number, quoting: Quoting): number => {
  for (let k = i + 1; k < text.length; k++) {
    const c = text.charCodeAt(k)
    if (c === mark) return k
    if (c === BACKSLASH && mark === QUOTE && quoting === 'backslash') k++
  }
  return -1
}

/** The end of the line of a comment that begins at i. A carriage return ends it in SMT-LIB and not for other readers, who would leave out what stands behind it. */
const endOfComment = (text: string, i: number): number => {
  const found = text.indexOf('\n', i)
  const end = found < 0 ? text.length : found
  const at = text.slice(i, end).search(/\r+[^\r]/)
  return at < 0 ? end : fail('a carriage return alone within a comment: end lines by a line feed', i + at)
}

/** A place of a cursor, and how deep in lists it is. */
export interface Mark {
  readonly at: number
  readonly depth: number
}

/** A cursor in a text of parentheses and atoms. Nothing is built: a form of millions of parts is read as it goes by. */
export interface Scanner {
  readonly text: string
  /** Where the next part begins, past spaces and comments; the length of the text at its end. */
  readonly at: () => number
  readonly mark: () => Mark
  readonly moveTo: (mark: Mark) => void
  readonly isOpen: () => boolean
  readonly isClose: () => boolean
  readonly isEnd: () => boolean
  /** Goes into a list, and out of one; `close` says what was expected where the list goes on. */
  readonly open: () => number
  readonly close: (expected: string) => void
  /** An atom; brackets and what is in them are not part of one. */
  readonly atom: (expected: string) => Atom
  /** The whole numbers of a list in brackets, `[1,28, 28]`, if one comes next. */
  readonly indices: () => readonly number[] | undefined
  /** Past the part that begins here, whatever it is. */
  readonly skip: () => void
}

/** Names that need no bars. */
const SIMPLE = /^[A-Za-z_][\w.-]*$/

export const scanner = (text: string, quoting: Quoting): Scanner => {
  let i = 0
  let depth = 0
  const rest = (): number => {
    for (;;) {
      const c = text.charCodeAt(i)
      if (isSpace(c)) i++
      else if (c === SEMICOLON) i = endOfComment(text, i)
      else return i
    }
  }
  const code = () => text.charCodeAt(rest())
  const found = (): string => {
    const c = code()
    if (Number.isNaN(c)) return 'the end of the file'
    if (c === OPEN) return '"("'
    if (c === CLOSE) return '")"'
    return quote(text.slice(i, endOfAtom(i + 1)))
  }
  const endOfAtom = (from: number): number => {
    let end = from
    for (; end < text.length; end++) {
      const c = text.charCodeAt(end)
      if (isSpace(c) || c === OPEN || c === CLOSE || c === SEMICOLON || c === LEFT || c === RIGHT) break
    }
    return end
  }
  const endOfQuoted = (mark: number): number => {
    const end = closing(text, i, mark, quoting)
    return end < 0 ? fail(`this ${mark === BAR ? '|' : 'quotation mark'} is never closed`, i) : end + 1
  }
  const next = (): number => {
    const c = text.charCodeAt(i)
    return c === QUOTE || c === BAR ? endOfQuoted(c) : endOfAtom(i + 1)
  }
  return {
    text,
    at: rest,
    mark: () => ({ at: rest(), depth }),
    moveTo: (mark) => {
      i = mark.at
      depth = mark.depth
    },
    isOpen: () => code() === OPEN,
    isClose: () => code() === CLOSE,
    isEnd: () => rest() >= text.length,
    open: () => {
      if (code() !== OPEN) fail(`expected "(", found ${found()}`, i)
      if (++depth > MAX_DEPTH) fail(`parentheses are nested deeper than ${MAX_DEPTH}`, i)
      return i++
    },
    close: (expected) => {
      if (code() !== CLOSE) fail(`expected ${expected}, found ${found()}`, i)
      depth--
      i++
    },
    atom: (expected) => {
      const c = code()
      if (Number.isNaN(c) || c === OPEN || c === CLOSE || c === LEFT || c === RIGHT)
        fail(`expected ${expected}, found ${found()}`, i)
      const at = i
      i = next()
      const written = text.slice(at, i)
      // In SMT-LIB |X_0| and X_0 are one symbol.
      return { text: c === BAR && SIMPLE.test(written.slice(1, -1)) ? written.slice(1, -1) : written, at }
    },
    indices: () => {
      if (code() !== LEFT) return undefined
      const at = i
      const end = text.indexOf(']', i)
      if (end < 0) fail('this bracket is never closed', at)
      const inner = text.slice(i + 1, end).trim()
      i = end + 1
      return inner === ''
        ? []
        : inner
            .split(',')
            .map((n) =>
              /^\s*\d{1,9}\s*$/.test(n) ? Number(n) : fail(`expected whole numbers in brackets, found ${quote(n)}`, at),
            )
    },
    skip: () => {
      let open = 0
      do {
        const c = code()
        if (Number.isNaN(c)) fail('the file ends within a form', i)
        if (c === OPEN) open++
        if (c === CLOSE) open--
        i = c === OPEN || c === CLOSE || c === LEFT || c === RIGHT ? i + 1 : next()
      } while (open > 0)
    },
  }
}

/** Raises for the first parenthesis that has no partner. */
export const balanced = (text: string, quoting: Quoting): void => {
  const open: number[] = []
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    if (c === SEMICOLON) i = endOfComment(text, i)
    else if (c === QUOTE || c === BAR) {
      const end = closing(text, i, c, quoting)
      if (end < 0) return
      i = end
    } else if (c === OPEN) {
      if (open.push(i) > MAX_DEPTH) fail(`parentheses are nested deeper than ${MAX_DEPTH}`, i)
    } else if (c === CLOSE && open.pop() === undefined) fail('this parenthesis closes nothing', i)
  }
  const last = open.at(-1)
  if (last !== undefined) fail('this parenthesis is never closed', last)
}
