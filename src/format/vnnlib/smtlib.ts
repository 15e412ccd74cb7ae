import { assertions } from './assertions.ts'
import type { Names, Scope, Variable } from './formula.ts'
import { casesOf, type Property } from './property.ts'
import { type Atom, fail, quote, type Scanner } from './scan.ts'

const MAX_INDEX = 10_000_000

const VARIABLE = /^([XY])_(0|[1-9]\d{0,8})$/

/** Commands that say nothing about the property: they tell a solver what to do, or a reader what this is. */
const IGNORED = ['set-logic', 'set-info', 'set-option', 'check-sat', 'get-model', 'get-value', 'get-info', 'exit']
/** What a solver is asked about is what stands before them. */
const LAST = ['check-sat', 'exit']

/** How many X or Y are declared: 0 .. n-1, none left out. */
const countOf = (declared: ReadonlySet<Variable>, kind: 'X' | 'Y'): number => {
  const parity = kind === 'X' ? 0 : 1
  let n = 0
  for (const v of declared) if (v % 2 === parity) n++
  if (n === 0) fail(`no ${kind === 'X' ? 'input' : 'output'} is declared (${kind}_0, ${kind}_1, ...)`)
  for (let i = 0; i < n; i++) if (!declared.has(2 * i + parity)) fail(`${n} ${kind} are declared, but not ${kind}_${i}`)
  return n
}

/** A property in VNN-LIB 1.0: an SMT-LIB script over X_0, X_1, ... and Y_0, Y_1, ... */
export const readSmtlib = (s: Scanner, memory: number): Property => {
  const declared = new Set<Variable>()
  const nameOf = (v: Variable): string => (v % 2 === 0 ? `X_${v / 2}` : `Y_${(v - 1) / 2}`)
  const named = (text: string): Variable | undefined => {
    const match = VARIABLE.exec(text)
    return match === null ? undefined : 2 * Number(match[2]) + (match[1] === 'Y' ? 1 : 0)
  }
  const scope: Scope = {
    variable: ({ text, at }, indices) => {
      const v = named(text)
      if (indices !== undefined)
        fail(`${text} has indices in brackets, as in VNN-LIB 2.0; a file of it begins with (vnnlib-version <2.0>)`, at)
      return v === undefined || declared.has(v) ? v : fail(`${text} is not declared`, at)
    },
    nameOf,
    memory,
  }
  const { read, binding, finish } = assertions(s, scope)
  let ended: string | undefined
  const names = new Map<string, Names extends ReadonlyMap<string, infer B> ? B : never>()

  const sort = (): void => {
    const { text, at } = s.atom('the sort Real')
    if (text !== 'Real') fail(`expected the sort Real, found ${quote(text)}`, at)
  }
  const declare = ({ text, at }: Atom): void => {
    const v = named(text) ?? Number.POSITIVE_INFINITY
    if (v > 2 * MAX_INDEX) fail(`expected a name like X_0 or Y_0, found ${quote(text)}`, at)
    if (declared.has(v)) fail(`${text} is declared twice`, at)
    declared.add(v)
  }
  const none = (command: string): void => {
    s.open()
    s.close(`no arguments of a function in ${command}`)
  }

  while (!s.isEnd()) {
    if (!s.isOpen()) {
      const { text, at } = s.atom('a command in parentheses')
      fail(`expected a command in parentheses, such as (assert ...), found ${quote(text)}`, at)
    }
    s.open()
    const { text: command, at } = s.atom('a command after the parenthesis')
    if (ended !== undefined && !IGNORED.includes(command))
      fail(`${command} comes after ${ended}, which it is not about`, at)
    if (command === 'declare-const') {
      declare(s.atom('a name like X_0 or Y_0'))
      sort()
      s.close('(declare-const NAME Real)')
    } else if (command === 'declare-fun') {
      const name = s.atom('a name like X_0 or Y_0')
      none(command)
      sort()
      declare(name)
      s.close('(declare-fun NAME () Real)')
    } else if (command === 'define-fun') {
      const { text, at: place } = s.atom('a name')
      if (names.has(text) || named(text) !== undefined) fail(`${text} is defined twice, or is a variable`, place)
      none(command)
      s.atom('a sort')
      names.set(text, binding(new Map(names)))
      s.close('(define-fun NAME () SORT TERM)')
    } else if (command === 'assert') {
      if (s.isClose()) fail('assert takes one formula, found none', at)
      read(names)
      s.close('one formula in assert')
    } else if (IGNORED.includes(command)) {
      if (LAST.includes(command)) ended ??= command
      while (!s.isClose()) s.skip()
      s.close('')
    } else fail(`expected declare-const, declare-fun or assert, found ${quote(command)}`, at)
  }
  const [inputs, outputs] = [countOf(declared, 'X'), countOf(declared, 'Y')]
  const tensor = (name: string, kind: 'input' | 'output', size: number) => ({
    name,
    kind,
    type: 'Real',
    shape: undefined,
    first: 0,
    size,
  })
  return {
    version: 1,
    networks: [{ name: '', tensors: [tensor('X', 'input', inputs), tensor('Y', 'output', outputs)] }],
    type: undefined,
    inputs,
    ...casesOf({ ...finish(s.at()), inputs, outputs, nameOf, memory }),
  }
}
